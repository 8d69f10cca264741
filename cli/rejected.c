/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `millrace show rejected`: of each source the newest answer that was refused, when and why, and the part of it that
 * tells most. Control characters come out as the pictures that Unicode has for them, one column each, so that what is
 * wrong can be pointed at.
 */
#include <inttypes.h>
#include <string.h>

#include "cli/answer.h"
#include "cli/commands.h"

#define INDENT    "    "
#define WIDTH     80 /* where no terminal says */
#define WIDTH_MIN 16 /* of the excerpt */

/* One line of the page being filled. */
struct row {
	const struct page *page;
	size_t column, width;
	int64_t offset;
	size_t marked; /* column to point at; SIZE_MAX: none */
};

static void end_row(struct row *row)
{
	char mark[64];
	fputc('\n', row->page->out);
	if (row->marked != SIZE_MAX) {
		snprintf(mark, sizeof mark, "^ byte %" PRId64, row->offset);
		fprintf(row->page->out, INDENT "%*s", (int)row->marked, "");
		page_state(row->page, "failing", mark);
		fputc('\n', row->page->out);
	}
	row->column = 0;
	row->marked = SIZE_MAX;
}

/* U+2400 and on: the picture of each control character, of DEL at U+2421. */
static void put_control(FILE *out, unsigned char c)
{
	putc(0xE2, out);
	putc(0x90, out);
	putc(0x80 + (c == 0x7F ? 0x21 : c), out);
}

/* The bytes of one character, which are UTF-8: jansson has seen to that. */
static void put_character(const struct row *row, const char *at, size_t len)
{
	char text[8] = "";
	unsigned char c = (unsigned char)*at;
	if (row->column == 0)
		fputs(INDENT, row->page->out);
	if (c < 0x20 || c == 0x7F) {
		put_control(row->page->out, c);
		return;
	}
	memcpy(text, at, len);
	page_text(row->page, text);
}

static size_t character_len(unsigned char c)
{
	return c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
}

static void print_excerpt(const json_t *rejected, const struct page *page)
{
	const json_t *excerpt = json_object_get(rejected, "excerpt"), *mark = json_object_get(rejected, "mark");
	const char *text = json_string_value(excerpt);
	size_t len = json_string_length(excerpt), width = page->width ? page->width : WIDTH;
	json_int_t index = 0, marked = json_is_integer(mark) ? json_integer_value(mark) : -1;
	struct row row = { .page = page, .offset = answer_number(rejected, "offset"), .marked = SIZE_MAX };
	row.width = width > strlen(INDENT) + WIDTH_MIN ? width - strlen(INDENT) : WIDTH_MIN;
	for (size_t at = 0, step; at < len; at += step, index++) {
		step = character_len((unsigned char)text[at]);
		if (row.column == row.width)
			end_row(&row);
		if (index == marked)
			row.marked = row.column;
		put_character(&row, text + at, step);
		row.column++;
		if (text[at] == '\n')
			end_row(&row);
	}
	if (index == marked)
		row.marked = row.column;
	if (row.column > 0 || row.marked != SIZE_MAX)
		end_row(&row);
}

static void print_one(const json_t *rejected, const struct page *page)
{
	char text[UNITS_TEXT_MAX];
	page_text(page, answer_text(rejected, "source"));
	fprintf(page->out, ": %.19sZ: ", answer_text(rejected, "at")); /* no milliseconds */
	page_state(page, "failing", answer_text(rejected, "cause"));
	fputs("\n  ", page->out);
	page_text(page, answer_text(rejected, "text"));
	if (answer_number(rejected, "bytes") > 0)
		fprintf(page->out, "\n  %s came; from byte %" PRId64 " on:\n",
		        answer_plural(answer_number(rejected, "bytes"), "byte", "s", text),
		        answer_number(rejected, "start"));
	else if (*answer_text(rejected, "excerpt"))
		fputs("\n  nothing of it could be read; as it came, it begins:\n", page->out);
	else
		fputs("\n  none of it was taken\n", page->out);
	print_excerpt(rejected, page);
}

void rejected_print(json_t *answer, const struct page *page)
{
	const json_t *all = json_object_get(answer, "rejected");
	size_t i;
	json_t *rejected;
	if (json_array_size(all) == 0)
		fputs("no answer was refused\n", page->out);
	json_array_foreach(all, i, rejected)
	{
		if (i > 0)
			fputc('\n', page->out);
		print_one(rejected, page);
	}
}
