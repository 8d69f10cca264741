/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Machines, jobs and runs: `millrace wake`, `start`, `cancel` and `retry RUN`, which only ask, and what `show` says of
 * what came of it. Reasons and logs are the words of other machines.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli/answer.h"
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/commands.h"

#define RUN_ID           32 /* hex digits */
#define REQUEST_PATH_MAX 128

bool run_is_id(const char *text)
{
	return strlen(text) == RUN_ID && strspn(text, "0123456789abcdef") == RUN_ID;
}

static int order(const char *socket_path, const struct command_arguments *arguments, const char *what, const char *verb,
                 struct err *err)
{
	char path[REQUEST_PATH_MAX];
	json_t *answer;
	snprintf(path, sizeof path, "/v1/%ss/%s/%s", what, arguments->word, verb);
	int rc = client_ask(socket_path, "POST", path, arguments->json ? stdout : NULL, &answer, err);
	if (rc != CLI_OK)
		return rc;
	if (!arguments->json && strcmp(what, "run") == 0)
		printf("%s: asked; `millrace show run %s` tells what comes of it\n", arguments->word, arguments->word);
	else if (!arguments->json)
		printf("%s: asked; `millrace show machines` tells what comes of it\n", arguments->word);
	json_decref(answer);
	return CLI_OK;
}

int command_wake(const char *socket_path, const struct command_arguments *arguments, struct err *err)
{
	return order(socket_path, arguments, "machine", "wake", err);
}

int command_start(const char *socket_path, const struct command_arguments *arguments, struct err *err)
{
	return order(socket_path, arguments, "job", "start", err);
}

int command_cancel(const char *socket_path, const struct command_arguments *arguments, struct err *err)
{
	return order(socket_path, arguments, "run", "cancel", err);
}

int command_retry_run(const char *socket_path, const struct command_arguments *arguments, struct err *err)
{
	return order(socket_path, arguments, "run", "retry", err);
}

static const char *text_or_none(const json_t *object, const char *key)
{
	const char *text = answer_text(object, key);
	return *text ? text : ANSWER_NONE;
}

static bool is_set(const json_t *object, const char *key)
{
	return json_is_true(json_object_get(object, key));
}

static const struct table_column machine_columns[] = {
	{ "MACHINE", TABLE_LEFT }, { "STATE", TABLE_STATE }, { "SINCE", TABLE_RIGHT }, { "TODAY", TABLE_RIGHT },
	{ "MONTH", TABLE_RIGHT },  { "WAKES", TABLE_LEFT },  { "REASON", TABLE_CUT },  { NULL, TABLE_LEFT },
};

static void print_machine_table(const json_t *machines, int64_t now_ms, const struct page *page)
{
	char text[UNITS_TEXT_MAX];
	struct table table;
	size_t i;
	json_t *machine;
	table_init(&table, machine_columns);
	json_array_foreach(machines, i, machine)
	{
		table_add(&table, "%s", answer_text(machine, "name"));
		table_add(&table, "%s", answer_text(machine, "state"));
		table_add(&table, "%s", answer_age(machine, "since", now_ms, text));
		table_add(&table, "%.1f h", (double)answer_number(machine, "awake_today_seconds") / 3600);
		table_add(&table, "%.1f h", (double)answer_number(machine, "awake_month_seconds") / 3600);
		table_add(&table, "%" PRId64 "/%" PRId64, answer_number(machine, "wakes_today"),
		          answer_number(machine, "wakes_month"));
		table_add(&table, "%s", text_or_none(machine, "reason"));
	}
	table_print(&table, page);
	table_done(&table);
}

static void begin_line(const char *mark, const json_t *row, const struct page *page)
{
	fputs(mark, page->out);
	page_text(page, answer_text(row, "name"));
	fputs(": ", page->out);
}

static void print_marked(const json_t *row, const char *text, const struct page *page)
{
	begin_line("! ", row, page);
	page_text(page, text);
	fputc('\n', page->out);
}

static void print_wakes(const json_t *machine, const struct page *page)
{
	char text[UNITS_TEXT_MAX];
	int64_t failures = answer_number(machine, "failures");
	bool held = answer_time(machine, "next_try") != 0;
	if (!failures && !held)
		return;
	begin_line("", machine, page);
	if (failures)
		fprintf(page->out, "%s without an answer%s", answer_plural(failures, "wake", "s", text),
		        held ? "; " : "");
	if (held)
		fprintf(page->out, "no wake before %.19sZ", answer_text(machine, "next_try"));
	fputc('\n', page->out);
}

/* What stands in the machine's way, and what it has drawn: as lines, for which the table has no room. */
static void print_machine_lines(const json_t *machine, const struct page *page)
{
	if (is_set(machine, "refuses"))
		print_marked(machine, answer_text(machine, "reason"), page);
	print_wakes(machine, page);
	if (!json_is_integer(json_object_get(machine, "energy_wh")))
		return;
	begin_line("", machine, page);
	fprintf(page->out, "%.2f kWh this month; always on it would have been %.2f kWh\n",
	        (double)answer_number(machine, "energy_wh") / 1000,
	        (double)answer_number(machine, "always_on_wh") / 1000);
}

static const struct table_column job_columns[] = {
	{ "JOB", TABLE_LEFT },  { "MACHINE", TABLE_LEFT },  { "BATCHES", TABLE_RIGHT }, { "OLDEST", TABLE_RIGHT },
	{ "RUN", TABLE_STATE }, { "WAITS FOR", TABLE_CUT }, { NULL, TABLE_LEFT },
};

static void print_job_table(const json_t *jobs, int64_t now_ms, const struct page *page)
{
	char text[UNITS_TEXT_MAX];
	struct table table;
	size_t i;
	json_t *job;
	table_init(&table, job_columns);
	json_array_foreach(jobs, i, job)
	{
		table_add(&table, "%s", answer_text(job, "name"));
		table_add(&table, "%s", text_or_none(job, "machine"));
		table_add(&table, "%" PRId64, answer_number(job, "batches"));
		table_add(&table, "%s", answer_age(job, "oldest", now_ms, text));
		table_add(&table, "%s", text_or_none(job, "run_state"));
		table_add(&table, "%s", text_or_none(job, "waits_for"));
	}
	table_print(&table, page);
	table_done(&table);
}

static void print_job_lines(const json_t *job, const struct page *page)
{
	char text[UNITS_TEXT_MAX];
	int64_t parked = answer_number(job, "parked"), missed = answer_number(job, "missed");
	if (is_set(job, "trouble"))
		print_marked(job, answer_text(job, "waits_for"), page);
	if (parked > 0) {
		begin_line("! ", job, page);
		fprintf(page->out, "%s parked, the newest ", answer_plural(parked, "run", "s", text));
		page_text(page, answer_text(job, "last_parked"));
		fputs(": look at it with `millrace show run`, then `retry` or `cancel` it\n", page->out);
	}
	if (missed > 0) {
		begin_line("! ", job, page);
		fprintf(page->out, "%s came while its list was full: no run will ever have them\n",
		        answer_plural(missed, "object", "s", text));
	}
}

void machines_print(json_t *answer, const struct page *page)
{
	const json_t *machines = json_object_get(answer, "machines"), *jobs = json_object_get(answer, "jobs");
	int64_t now_ms = answer_time(answer, "now");
	size_t i;
	json_t *row;
	print_machine_table(machines, now_ms, page);
	json_array_foreach(machines, i, row)
	{
		print_machine_lines(row, page);
	}
	fputc('\n', page->out);
	print_job_table(jobs, now_ms, page);
	json_array_foreach(jobs, i, row)
	{
		print_job_lines(row, page);
	}
}

static const struct table_column run_columns[] = {
	{ "RUN", TABLE_LEFT },     { "JOB", TABLE_LEFT },   { "STATE", TABLE_STATE },   { "TRY", TABLE_RIGHT },
	{ "CREATED", TABLE_LEFT }, { "TOOK", TABLE_RIGHT }, { "OBJECTS", TABLE_RIGHT }, { "RECORDS", TABLE_RIGHT },
	{ "REASON", TABLE_CUT },   { NULL, TABLE_LEFT },
};

/* From its making to its end, with all the waiting. */
static const char *took(const json_t *run, char text[UNITS_TEXT_MAX])
{
	int64_t ended_ms = answer_time(run, "ended_at");
	return ended_ms ? answer_age(run, "created_at", ended_ms, text) : ANSWER_NONE;
}

void runs_print(json_t *answer, const struct page *page)
{
	char text[UNITS_TEXT_MAX];
	struct table table;
	size_t i;
	json_t *run;
	table_init(&table, run_columns);
	json_array_foreach(json_object_get(answer, "runs"), i, run)
	{
		table_add(&table, "%s", answer_text(run, "id"));
		table_add(&table, "%s", answer_text(run, "job"));
		table_add(&table, "%s", answer_text(run, "state"));
		table_add(&table, "%" PRId64, answer_number(run, "attempt"));
		table_add(&table, "%.19sZ", answer_text(run, "created_at")); /* no milliseconds */
		table_add(&table, "%s", took(run, text));
		table_add(&table, "%" PRId64, answer_number(run, "objects"));
		table_add(&table, "%" PRId64, answer_number(run, "records"));
		table_add(&table, "%s", text_or_none(run, "reason"));
	}
	table_print(&table, page);
	table_done(&table);
}

static const struct table_column stage_columns[] = {
	{ "STAGE", TABLE_LEFT },
	{ "AT", TABLE_LEFT },
	{ "TOOK", TABLE_RIGHT },
	{ NULL, TABLE_LEFT },
};

/* Each with what has passed since the one before that it has reached. */
static void print_stages(const json_t *run, const struct page *page)
{
	static const char *const stages[][2] = {
		{ "due", "created_at" },         { "manifest written", "written_at" },
		{ "machine ready", "ready_at" }, { "started", "started_at" },
		{ "ended", "ended_at" },
	};
	char text[UNITS_TEXT_MAX];
	int64_t before_ms = 0;
	struct table table;
	table_init(&table, stage_columns);
	for (size_t i = 0; i < sizeof stages / sizeof *stages; i++) {
		int64_t at_ms = answer_time(run, stages[i][1]);
		table_add(&table, "%s", stages[i][0]);
		if (at_ms)
			table_add(&table, "%.19sZ", answer_text(run, stages[i][1]));
		else
			table_add(&table, ANSWER_NONE);
		table_add(&table, "%s", at_ms && before_ms ? units_age(at_ms - before_ms, text) : ANSWER_NONE);
		before_ms = at_ms ? at_ms : before_ms;
	}
	table_print(&table, page);
	table_done(&table);
}

/* Line by line; tabs, by which the traces of many programs are indented, become blanks. */
static void print_log(const json_t *log, const struct page *page)
{
	size_t len = json_string_length(log);
	char *copy = malloc(len + 1), *at = copy, *line;
	if (!copy || !len) {
		free(copy);
		return;
	}
	memcpy(copy, json_string_value(log), len + 1);
	for (size_t i = 0; i < len; i++)
		copy[i] = copy[i] == '\t' ? ' ' : copy[i] ? copy[i] : '?';
	if (copy[len - 1] == '\n')
		copy[len - 1] = '\0';
	fputs("log, its end:\n", page->out);
	while ((line = strsep(&at, "\n"))) {
		size_t end = strlen(line);
		if (end > 0 && line[end - 1] == '\r')
			line[end - 1] = '\0';
		fputs("  ", page->out);
		page_text(page, line);
		fputc('\n', page->out);
	}
	free(copy);
}

static void print_word(const char *label, const char *text, const struct page *page)
{
	if (!*text)
		return;
	fputs(label, page->out);
	page_text(page, text);
	fputc('\n', page->out);
}

static void print_run_head(const json_t *run, const struct page *page)
{
	char objects[UNITS_TEXT_MAX], records[UNITS_TEXT_MAX], volume[UNITS_TEXT_MAX];
	const char *state = answer_text(run, "state");
	fputs("run ", page->out);
	page_text(page, answer_text(run, "id"));
	fputs(" of ", page->out);
	page_text(page, answer_text(run, "job"));
	fputs(": ", page->out);
	page_state(page, state, state);
	fprintf(page->out, ", attempt %" PRId64 ", %s, %s, %s\n", answer_number(run, "attempt"),
	        answer_plural(answer_number(run, "objects"), "object", "s", objects),
	        answer_plural(answer_number(run, "records"), "record", "s", records),
	        units_volume(answer_number(run, "bytes"), volume));
	print_word("  ", answer_text(run, "reason"), page);
}

void run_print(json_t *run, const struct page *page)
{
	const json_t *manifest = json_object_get(run, "manifest");
	const char *sha256 = answer_text(manifest, "sha256");
	print_run_head(run, page);
	fputc('\n', page->out);
	print_stages(run, page);
	fputs("\nmanifest: ", page->out);
	page_text(page, answer_text(manifest, "key"));
	fputs(" in store ", page->out);
	page_text(page, answer_text(run, "store"));
	fputs(*sha256 ? ", SHA-256 " : ", not written yet", page->out);
	page_text(page, sha256);
	fputc('\n', page->out);
	print_word("on the other side: ", answer_text(run, "remote"), page);
	print_log(json_object_get(run, "log"), page);
}
