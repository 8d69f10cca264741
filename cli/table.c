/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/table.h"

#include <assert.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define GAP     2
#define CUT_MIN 8 /* a cut column is never narrower */
#define GREEN   "\033[32m"
#define YELLOW  "\033[33m"
#define RED     "\033[31m"
#define PLAIN   "\033[0m"

struct state_colour {
	const char *state, *colour;
};

static const struct state_colour state_colours[] = {
	{ "all well", GREEN }, { "fresh", GREEN },    { "ready", GREEN },
	{ "waiting", YELLOW }, { "unknown", YELLOW }, { "no action needed yet", YELLOW },
	{ "paused", YELLOW },  { "stale", RED },      { "failing", RED },
	{ "away", RED },       { "full", RED },       { "needs attention", RED },
	{ "unsynced", RED },   { "no-space", RED },   { "read-only", RED },
	{ "damaged", RED },    { "salvaging", RED },  { "hung", RED },
	{ "up", GREEN },       { "running", GREEN },  { "done", GREEN },
	{ "waking", YELLOW },  { "parked", RED },
};

static const char *colour_of(const struct page *page, const char *state)
{
	for (size_t i = 0; page->colour && i < sizeof state_colours / sizeof *state_colours; i++)
		if (strcmp(state_colours[i].state, state) == 0)
			return state_colours[i].colour;
	return NULL;
}

struct page page_stdout(void)
{
	const char *no_colour = getenv("NO_COLOR");
	struct page page = { .out = stdout };
	struct winsize size;
	if (!isatty(STDOUT_FILENO))
		return page;
	page.colour = !no_colour || !*no_colour;
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0)
		page.width = size.ws_col;
	return page;
}

/* Of UTF-8 every byte but a continuation begins a character; near enough to columns for names and paths. */
static bool begins(unsigned char c)
{
	return (c & 0xC0) != 0x80;
}

static size_t text_width(const char *text)
{
	size_t width = 0;
	for (; *text; text++)
		width += begins((unsigned char)*text);
	return width;
}

/* U+0080 to U+009F are control characters as well: in UTF-8 0xC2 and that byte. */
static bool is_control(const unsigned char *c)
{
	return *c < 0x20 || *c == 0x7F || (*c == 0xC2 && c[1] >= 0x80 && c[1] < 0xA0);
}

/* At most `width` characters. */
static void put(FILE *out, const char *text, size_t width)
{
	for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
		if (begins(*c) && width-- == 0)
			return;
		if (!is_control(c)) {
			putc(*c, out);
			continue;
		}
		putc('?', out);
		c += *c == 0xC2;
	}
}

void page_text(const struct page *page, const char *text)
{
	put(page->out, text, SIZE_MAX);
}

void page_state(const struct page *page, const char *state, const char *text)
{
	const char *colour = colour_of(page, state);
	if (colour)
		fputs(colour, page->out);
	page_text(page, text);
	if (colour)
		fputs(PLAIN, page->out);
}

void table_init(struct table *table, const struct table_column *columns)
{
	*table = (struct table){ .columns = columns };
	while (columns[table->n_columns].title)
		table->n_columns++;
	assert(table->n_columns <= TABLE_COLUMNS_MAX);
}

void table_done(struct table *table)
{
	for (size_t i = 0; i < table->n_cells; i++)
		free(table->cells[i]);
	free(table->cells);
	table->cells = NULL;
	table->n_cells = 0;
}

void table_add(struct table *table, const char *format, ...)
{
	char *text = NULL;
	va_list args;
	va_start(args, format);
	int len = vasprintf(&text, format, args);
	va_end(args);
	char **cells = len < 0 ? NULL : reallocarray(table->cells, table->n_cells + 1, sizeof *cells);
	if (!cells) {
		if (len >= 0)
			free(text);
		table->failed = true;
		return;
	}
	table->cells = cells;
	cells[table->n_cells++] = text;
}

static void measure(const struct table *table, size_t page_width, size_t *widths)
{
	size_t total = 0, cut = SIZE_MAX;
	for (size_t i = 0; i < table->n_columns; i++)
		widths[i] = text_width(table->columns[i].title);
	for (size_t i = 0; i < table->n_cells; i++) {
		size_t width = text_width(table->cells[i]), *widest = &widths[i % table->n_columns];
		*widest = width > *widest ? width : *widest;
	}
	for (size_t i = 0; i < table->n_columns; i++) {
		total += widths[i] + (i ? GAP : 0);
		cut = table->columns[i].align == TABLE_CUT ? i : cut;
	}
	if (!page_width || total <= page_width || cut == SIZE_MAX)
		return;
	size_t least = text_width(table->columns[cut].title), excess = total - page_width;
	least = least > CUT_MIN ? least : CUT_MIN;
	if (widths[cut] > least)
		widths[cut] = widths[cut] >= least + excess ? widths[cut] - excess : least;
}

static void put_cell(const struct page *page, const char *text, enum table_align align, size_t width, bool last)
{
	size_t len = text_width(text);
	int pad = (int)(len < width ? width - len : 0);
	if (align == TABLE_RIGHT)
		fprintf(page->out, "%*s", pad, "");
	if (align == TABLE_STATE)
		page_state(page, text, text);
	else if (len > width)
		put(page->out, text, width - 1);
	else
		page_text(page, text);
	if (len > width)
		fputs("…", page->out);
	if (align != TABLE_RIGHT && !last)
		fprintf(page->out, "%*s", pad, "");
	fprintf(page->out, "%*s", last ? 0 : GAP, "");
}

void table_print(const struct table *table, const struct page *page)
{
	size_t widths[TABLE_COLUMNS_MAX];
	if (table->failed) {
		fputs("(there is not enough memory for this table)\n", page->out);
		return;
	}
	assert(table->n_cells % table->n_columns == 0);
	measure(table, page->width, widths);
	for (size_t i = 0; i < table->n_columns; i++) {
		enum table_align align = table->columns[i].align == TABLE_RIGHT ? TABLE_RIGHT : TABLE_LEFT;
		put_cell(page, table->columns[i].title, align, widths[i], i + 1 == table->n_columns);
	}
	fputc('\n', page->out);
	for (size_t i = 0; i < table->n_cells; i++) {
		size_t column = i % table->n_columns;
		bool last = column + 1 == table->n_columns;
		put_cell(page, table->cells[i], table->columns[column].align, widths[column], last);
		if (last)
			fputc('\n', page->out);
	}
}
