/* SPDX-License-Identifier: Apache-2.0 */
/* `millrace status`: first whether all is well, then what to do where it is not, then the figures; 80 columns. */
#include <inttypes.h>
#include <string.h>

#include "cli/answer.h"
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/commands.h"

static int64_t count_failing(const json_t *sources)
{
	int64_t n = 0;
	size_t i;
	json_t *source;
	json_array_foreach(sources, i, source)
	{
		n += strcmp(answer_text(source, "state"), "failing") == 0;
	}
	return n;
}

static void print_head(const json_t *status, bool ok, const struct page *page)
{
	char text[UNITS_TEXT_MAX];
	int64_t failing = count_failing(json_object_get(status, "sources"));
	const char *state = !ok ? "needs attention" : failing ? "no action needed yet" : "all well";
	page_text(page, "millrace ");
	page_text(page, answer_text(status, "version"));
	page_text(page, " on ");
	page_text(page, answer_text(status, "device"));
	page_text(page, ": ");
	page_state(page, state, state);
	if (ok && failing)
		fprintf(page->out, ": %s failing", answer_plural(failing, "source", "s", text));
	fputc('\n', page->out);
}

static void print_problems(const json_t *problems, const struct page *page)
{
	size_t i;
	json_t *problem;
	json_array_foreach(problems, i, problem)
	{
		fputs("\n! ", page->out);
		page_text(page, answer_text(problem, "what"));
		fputs("\n  ", page->out);
		page_text(page, answer_text(problem, "remedy"));
		fputc('\n', page->out);
	}
}

static const struct table_column source_columns[] = {
	{ "SOURCE", TABLE_CUT },
	{ "STATE", TABLE_STATE },
	{ "LAST", TABLE_RIGHT },
	{ "NEXT", TABLE_RIGHT },
	{ "RECORDS", TABLE_RIGHT },
	{ "WAITING", TABLE_RIGHT },
	{ "POLLS/UNCH/REF/FAIL", TABLE_LEFT },
	{ NULL, TABLE_LEFT },
};

/* When the next poll is; while the buffer is full no time tells that. */
static const char *next_poll(const json_t *source, int64_t now_ms, char text[UNITS_TEXT_MAX])
{
	if (strcmp(answer_text(source, "state"), "paused") == 0)
		return "no room";
	return answer_until(source, "next_poll", now_ms, text);
}

static void print_sources(const json_t *sources, int64_t now_ms, const struct page *page)
{
	struct table table;
	char text[UNITS_TEXT_MAX];
	size_t i;
	json_t *source;
	table_init(&table, source_columns);
	json_array_foreach(sources, i, source)
	{
		table_add(&table, "%s", answer_text(source, "name"));
		table_add(&table, "%s", answer_text(source, "state"));
		table_add(&table, "%s", answer_age(source, "last_answer", now_ms, text));
		table_add(&table, "%s", next_poll(source, now_ms, text));
		table_add(&table, "%" PRId64, answer_number(source, "records"));
		table_add(&table, "%" PRId64,
		          answer_number(source, "unsealed_records") + answer_number(source, "waiting_records"));
		table_add(&table, "%" PRId64 "/%" PRId64 "/%" PRId64 "/%" PRId64, answer_number(source, "polls"),
		          answer_number(source, "unchanged"), answer_number(source, "refused"),
		          answer_number(source, "failed"));
	}
	fputc('\n', page->out);
	table_print(&table, page);
	table_done(&table);
	show_losses(sources, page);
	show_errors(sources, "failing", page); /* those that fail for too long are told as problems */
}

static const struct table_column store_columns[] = {
	{ "STORE", TABLE_CUT },    { "STATE", TABLE_STATE }, { "DELIVERED", TABLE_LEFT },
	{ "WAITING", TABLE_LEFT }, { "LAST", TABLE_RIGHT },  { NULL, TABLE_LEFT },
};

static void print_stores(const json_t *stores, int64_t now_ms, const struct page *page)
{
	struct table table;
	char text[UNITS_TEXT_MAX], volume[UNITS_TEXT_MAX];
	size_t i;
	json_t *store;
	table_init(&table, store_columns);
	json_array_foreach(stores, i, store)
	{
		int64_t waiting = answer_number(store, "waiting_batches");
		table_add(&table, "%s", answer_text(store, "name"));
		table_add(&table, "%s", answer_text(store, "state"));
		table_add(&table, "%s", answer_plural(answer_number(store, "delivered_batches"), "batch", "es", text));
		if (waiting)
			table_add(&table, "%s, %s", answer_plural(waiting, "batch", "es", text),
			          units_volume(answer_number(store, "waiting_bytes"), volume));
		else
			table_add(&table, ANSWER_NONE);
		table_add(&table, "%s", answer_age(store, "last_delivered", now_ms, text));
	}
	fputc('\n', page->out);
	table_print(&table, page);
	table_done(&table);
}

static void print_size(const json_t *buffer, const struct page *page)
{
	char text[UNITS_TEXT_MAX];
	int64_t max_bytes = answer_number(buffer, "max_bytes");
	const char *state = answer_text(buffer, "state");
	fputs("\nbuffer ", page->out);
	page_state(page, state, state);
	fprintf(page->out, ": %s",
	        units_volume(answer_number(buffer, "file_bytes") + answer_number(buffer, "wal_bytes"), text));
	if (max_bytes)
		fprintf(page->out, " of %s", units_volume(max_bytes, text));
	fputs(" on the card", page->out);
	if (max_bytes)
		fprintf(page->out, ", room for %s", units_volume(answer_number(buffer, "room_bytes"), text));
	if (strcmp(state, "full") == 0) {
		fputs(" (on_full: ", page->out);
		page_text(page, answer_text(buffer, "on_full"));
		fputc(')', page->out);
	}
	fputs("; ", page->out);
}

static void print_buffer(const json_t *buffer, int64_t now_ms, const struct page *page)
{
	char text[UNITS_TEXT_MAX], batches[UNITS_TEXT_MAX], age[UNITS_TEXT_MAX];
	int64_t records = answer_number(buffer, "waiting_records");
	print_size(buffer, page);
	if (!records) {
		fputs("nothing waits\n", page->out);
		return;
	}
	fprintf(page->out, "%s waiting, %s sealed; the oldest for %s\n", answer_plural(records, "record", "s", text),
	        answer_plural(answer_number(buffer, "waiting_batches"), "batch", "es", batches),
	        answer_age(buffer, "oldest", now_ms, age));
}

/* Nothing where it is right. */
static void print_clock(const json_t *clock, int64_t now_ms, const struct page *page)
{
	char text[UNITS_TEXT_MAX], until[UNITS_TEXT_MAX];
	const char *state = answer_text(clock, "state");
	if (strcmp(state, "waiting") != 0 && strcmp(state, "unsynced") != 0)
		return;
	fputs("clock ", page->out);
	page_state(page, state, state);
	if (strcmp(state, "waiting") == 0)
		fprintf(page->out, ": not synchronised; %s kept back until it is, for %s at most\n",
		        answer_plural(answer_number(clock, "unsynced_records"), "record", "s", text),
		        answer_until(clock, "wait_until", now_ms, until));
	else
		fputs(": not synchronised; records are sealed with the time that there is\n", page->out);
}

void status_print(const json_t *status, const struct page *page)
{
	bool ok = json_is_true(json_object_get(status, "ok"));
	int64_t now_ms = answer_time(status, "now");
	print_head(status, ok, page);
	print_problems(json_object_get(status, "problems"), page);
	print_sources(json_object_get(status, "sources"), now_ms, page);
	print_stores(json_object_get(status, "stores"), now_ms, page);
	print_buffer(json_object_get(status, "buffer"), now_ms, page);
	print_clock(json_object_get(status, "clock"), now_ms, page);
}

int command_status(const char *socket_path, const struct command_arguments *arguments, struct err *err)
{
	json_t *status;
	bool to_json = arguments->json && !arguments->ready;
	int rc = client_ask(socket_path, "GET", "/v1/status", to_json ? stdout : NULL, &status, err);
	if (rc != CLI_OK)
		return rc;
	if (!arguments->json && !arguments->ready) {
		struct page page = page_stdout();
		status_print(status, &page);
	}
	rc = json_is_true(json_object_get(status, "ok")) ? CLI_OK : CLI_ATTENTION;
	json_decref(status);
	return rc;
}
