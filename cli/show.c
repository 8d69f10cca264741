/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `millrace show WHAT`: one table each, with all that there is room for; --json has the rest. Refused answers are no
 * table (rejected.c), nor is the configuration, which has a line for each setting, named by its way through the file's
 * groups. Machines and runs are in mill.c.
 */
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "cli/answer.h"
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/commands.h"

struct view {
	const char *what; /* also the path and the member of the answer */
	const struct table_column *columns;
	void (*add)(struct table *table, const json_t *row, int64_t now_ms);
	bool has_errors;
};

struct other {
	const char *what;
	void (*print)(json_t *answer, const struct page *page);
};

static const struct table_column source_columns[] = {
	{ "SOURCE", TABLE_LEFT },   { "KIND", TABLE_LEFT },    { "STATE", TABLE_STATE }, { "CHANGED", TABLE_RIGHT },
	{ "RECORDS", TABLE_RIGHT }, { "OLDEST", TABLE_RIGHT }, { "ORIGIN", TABLE_CUT },  { NULL, TABLE_LEFT },
};

static void add_source(struct table *table, const json_t *source, int64_t now_ms)
{
	char text[UNITS_TEXT_MAX];
	table_add(table, "%s", answer_text(source, "name"));
	table_add(table, "%s", answer_text(source, "kind"));
	table_add(table, "%s", answer_text(source, "state"));
	table_add(table, "%s", answer_age(source, "last_change", now_ms, text));
	table_add(table, "%" PRId64, answer_number(source, "records"));
	table_add(table, "%s", answer_age(source, "oldest", now_ms, text));
	table_add(table, "%s", answer_text(source, "origin"));
}

static const struct table_column store_columns[] = {
	{ "STORE", TABLE_LEFT },    { "KIND", TABLE_LEFT },   { "STATE", TABLE_STATE }, { "DELIVERED", TABLE_RIGHT },
	{ "WAITING", TABLE_RIGHT }, { "BYTES", TABLE_RIGHT }, { "LAST", TABLE_RIGHT },  { "NEXT TRY", TABLE_RIGHT },
	{ "PLACE", TABLE_CUT },     { NULL, TABLE_LEFT },
};

static void add_store(struct table *table, const json_t *store, int64_t now_ms)
{
	char text[UNITS_TEXT_MAX];
	table_add(table, "%s", answer_text(store, "name"));
	table_add(table, "%s", answer_text(store, "kind"));
	table_add(table, "%s", answer_text(store, "state"));
	table_add(table, "%" PRId64, answer_number(store, "delivered_batches"));
	table_add(table, "%" PRId64, answer_number(store, "waiting_batches"));
	table_add(table, "%s", units_volume(answer_number(store, "waiting_bytes"), text));
	table_add(table, "%s", answer_age(store, "last_delivered", now_ms, text));
	table_add(table, "%s", answer_until(store, "next_try", now_ms, text));
	table_add(table, "%s", answer_text(store, "place"));
}

static const struct table_column batch_columns[] = {
	{ "ID", TABLE_RIGHT },    { "SOURCE", TABLE_CUT },  { "SEQ", TABLE_LEFT },    { "RECORDS", TABLE_RIGHT },
	{ "BYTES", TABLE_RIGHT }, { "SEALED", TABLE_LEFT }, { "STORES", TABLE_LEFT }, { NULL, TABLE_LEFT },
};

static void add_batch(struct table *table, const json_t *batch, int64_t now_ms)
{
	char text[UNITS_TEXT_MAX];
	(void)now_ms;
	table_add(table, "%" PRId64, answer_number(batch, "id"));
	table_add(table, "%s", answer_text(batch, "source"));
	table_add(table, "%" PRId64 "-%" PRId64, answer_number(batch, "first_seq"), answer_number(batch, "last_seq"));
	table_add(table, "%" PRId64, answer_number(batch, "records"));
	table_add(table, "%s", units_volume(answer_number(batch, "bytes"), text));
	table_add(table, "%.19sZ", answer_text(batch, "sealed")); /* no milliseconds */
	table_add(table, "%" PRId64 "/%" PRId64 "%s", answer_number(batch, "stores_done"),
	          answer_number(batch, "stores_all"),
	          json_is_true(json_object_get(batch, "imported")) ? " imported" : "");
}

static const struct view views[] = {
	{ "sources", source_columns, add_source, true },
	{ "stores", store_columns, add_store, true },
	{ "batches", batch_columns, add_batch, false },
};

static const struct view *find(const char *what)
{
	for (size_t i = 0; i < sizeof views / sizeof *views; i++)
		if (strcmp(views[i].what, what) == 0)
			return &views[i];
	return NULL;
}

/* A setting's way through the groups. */
struct trail {
	const struct trail *up; /* NULL: of the file itself */
	const char *name;
};

static void print_trail(const struct trail *trail, const struct page *page)
{
	if (trail->up) {
		print_trail(trail->up, page);
		fputc('.', page->out);
	}
	page_text(page, trail->name);
}

static void print_quoted(const char *text, const struct page *page)
{
	struct bytes quoted;
	bytes_init(&quoted, 2 * strlen(text) + 1);
	int rc = 0;
	for (; *text && rc == 0; text++)
		rc = bytes_printf(&quoted, "%s%c", strchr("\"\\", *text) ? "\\" : "", *text);
	fputc('"', page->out);
	page_text(page, rc == 0 && quoted.len ? (const char *)quoted.data : "");
	fputc('"', page->out);
	bytes_done(&quoted);
}

static void print_value(const json_t *value, const struct page *page)
{
	size_t i;
	const json_t *element;
	switch (json_typeof(value)) {
	case JSON_STRING:
		print_quoted(json_string_value(value), page);
		return;
	case JSON_INTEGER:
		fprintf(page->out, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
		return;
	case JSON_TRUE:
	case JSON_FALSE:
		fputs(json_is_true(value) ? "true" : "false", page->out);
		return;
	case JSON_ARRAY:
		fputc('[', page->out);
		json_array_foreach(value, i, element)
		{
			fputs(i ? ", " : " ", page->out);
			print_value(element, page);
		}
		fputs(" ]", page->out);
		return;
	case JSON_OBJECT:
		fputs("{ }", page->out); /* an empty one: print_setting goes into the others */
		return;
	default: /* neither stands in a configuration */
		fputc('?', page->out);
	}
}

static void print_setting(const struct trail *trail, json_t *value, const struct page *page)
{
	const char *name;
	json_t *member;
	if (json_object_size(value) == 0) {
		print_trail(trail, page);
		fputs(" = ", page->out);
		print_value(value, page);
		fputc('\n', page->out);
	}
	json_object_foreach(value, name, member)
	{
		const struct trail below = { trail, name };
		print_setting(&below, member, page);
	}
}

static void print_config(json_t *config, const struct page *page)
{
	const char *name;
	json_t *member;
	json_object_foreach(config, name, member)
	{
		const struct trail trail = { NULL, name };
		print_setting(&trail, member, page);
	}
}

static void show_loss(const json_t *source, const char *field, const char *how, const struct page *page)
{
	char text[UNITS_TEXT_MAX];
	int64_t records = answer_number(source, field);
	if (!records)
		return;
	page_text(page, answer_text(source, "name"));
	fprintf(page->out, ": %s %s\n", answer_plural(records, "record", "s", text), how);
}

void show_losses(const json_t *sources, const struct page *page)
{
	size_t i;
	json_t *source;
	json_array_foreach(sources, i, source)
	{
		show_loss(source, "dropped_records", "dropped so far, because the buffer was full", page);
		show_loss(source, "damaged_records", "destroyed so far, by damage to the buffer", page);
	}
}

void show_errors(const json_t *rows, const char *state, const struct page *page)
{
	size_t i;
	json_t *row;
	json_array_foreach(rows, i, row)
	{
		const char *text = answer_text(row, "last_error");
		if (!*text || (state && strcmp(answer_text(row, "state"), state) != 0))
			continue;
		fputs("! ", page->out);
		page_text(page, answer_text(row, "name"));
		fputs(": ", page->out);
		page_text(page, text);
		fputc('\n', page->out);
	}
}

static void print_table(const char *what, const json_t *answer, const struct page *page)
{
	const struct view *view = find(what);
	const json_t *rows = json_object_get(answer, what);
	struct table table;
	size_t i;
	json_t *row;
	table_init(&table, view->columns);
	json_array_foreach(rows, i, row)
	{
		view->add(&table, row, answer_time(answer, "now"));
	}
	table_print(&table, page);
	table_done(&table);
	if (view->add == add_source)
		show_losses(rows, page);
	if (view->has_errors)
		show_errors(rows, NULL, page);
}

static const struct other others[] = {
	{ "config", print_config }, { "rejected", rejected_print }, { "machines", machines_print },
	{ "runs", runs_print },     { "run", run_print },
};

int show_check(const char *what, struct err *err)
{
	const char *known[sizeof views / sizeof *views + sizeof others / sizeof *others];
	size_t n = 0;
	for (size_t i = 0; i < sizeof views / sizeof *views; i++)
		known[n++] = views[i].what;
	for (size_t i = 0; i < sizeof others / sizeof *others; i++)
		known[n++] = others[i].what;
	for (size_t i = 0; i < n; i++)
		if (strcmp(known[i], what) == 0)
			return CLI_OK;
	const char *nearest = units_nearest(what, known, n);
	if (nearest)
		return err_fail(err, CLI_USAGE, "there is no \"%s\" to show; did you mean \"%s\"?", what, nearest);
	return err_fail(err, CLI_USAGE, "there is no \"%s\" to show", what);
}

void show_print(const char *what, json_t *answer, const struct page *page)
{
	if (find(what))
		print_table(what, answer, page);
	for (size_t i = 0; i < sizeof others / sizeof *others; i++)
		if (strcmp(others[i].what, what) == 0)
			others[i].print(answer, page);
}

int command_show(const char *socket_path, const struct command_arguments *arguments, struct err *err)
{
	char path[64];
	json_t *answer;
	if (arguments->run)
		snprintf(path, sizeof path, "/v1/runs/%s", arguments->run);
	else
		snprintf(path, sizeof path, "/v1/%s", arguments->word);
	int rc = client_ask(socket_path, "GET", path, arguments->json ? stdout : NULL, &answer, err);
	if (rc != CLI_OK)
		return rc;
	if (!arguments->json) {
		struct page page = page_stdout();
		show_print(arguments->word, answer, &page);
	}
	json_decref(answer);
	return CLI_OK;
}
