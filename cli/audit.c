/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `millrace audit`: a line for each store, below it what became of each source's seqs, problems marked with !, and at
 * last the sum of it. The report comes from the daemon, or from agent/ where none runs.
 */
#include <inttypes.h>
#include <string.h>

#include "cli/answer.h"
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/commands.h"

#define REQUEST_PATH_MAX 64

static const char *const problems[] = { "missing", "double", "changed" };
#define N_PROBLEMS (sizeof problems / sizeof *problems)

static bool is_problem(const char *kind)
{
	for (size_t i = 0; i < N_PROBLEMS; i++)
		if (strcmp(problems[i], kind) == 0)
			return true;
	return false;
}

static void print_store(const json_t *store, const struct page *page)
{
	const char *error = answer_text(store, "error");
	char text[UNITS_TEXT_MAX];
	fputs(*error ? "! " : "", page->out);
	page_text(page, answer_text(store, "store"));
	fputs(": ", page->out);
	page_text(page, answer_text(store, "place"));
	if (*error) {
		fputs(": ", page->out);
		page_text(page, error);
	} else {
		fprintf(page->out, ": %s, ", answer_plural(answer_number(store, "objects"), "object", "s", text));
		if (answer_number(store, "foreign"))
			fprintf(page->out, "%" PRId64 " of others, ", answer_number(store, "foreign"));
		if (answer_number(store, "requests"))
			fprintf(page->out, "%s, ",
			        answer_plural(answer_number(store, "requests"), "request", "s", text));
		fprintf(page->out, "%.1f s", (double)answer_number(store, "took_ms") / 1000);
	}
	fputc('\n', page->out);
}

/* What --repair made of a range that is missing. */
static void print_again(const json_t *range, const struct page *page)
{
	int64_t n = answer_number(range, "last_seq") - answer_number(range, "first_seq") + 1;
	int64_t again = answer_number(range, "again");
	if (!json_object_get(range, "again"))
		return;
	if (again == n)
		fputs(", sent again", page->out);
	else if (again == 0)
		fputs(", gone: the buffer has it no more", page->out);
	else
		fprintf(page->out, ", %" PRId64 " of %" PRId64 " sent again, the others are gone", again, n);
}

static void print_range(const char *source, const json_t *range, const struct page *page)
{
	const char *kind = answer_text(range, "kind"), *key = answer_text(range, "key");
	fputs(is_problem(kind) ? "! " : "  ", page->out);
	page_text(page, source);
	fprintf(page->out, "  seq %" PRId64 " to %" PRId64 "  ", answer_number(range, "first_seq"),
	        answer_number(range, "last_seq"));
	page_text(page, kind);
	print_again(range, page);
	fputs(*key ? "  " : "", page->out);
	page_text(page, key);
	fputc('\n', page->out);
}

static void print_sources(const json_t *store, const struct page *page)
{
	size_t i, j;
	json_t *source, *range;
	json_array_foreach(json_object_get(store, "sources"), i, source)
	{
		json_array_foreach(json_object_get(source, "ranges"), j, range)
		{
			print_range(answer_text(source, "source"), range, page);
		}
	}
	if (answer_number(store, "left_off"))
		fprintf(page->out, "  and %" PRId64 " ranges more\n", answer_number(store, "left_off"));
}

/* How many records of all stores are of this kind. */
static int64_t count(const json_t *stores, const char *kind)
{
	int64_t n = 0;
	size_t i;
	json_t *store;
	json_array_foreach(stores, i, store)
	{
		n += answer_number(json_object_get(store, "records"), kind);
	}
	return n;
}

static int64_t count_errors(const json_t *stores)
{
	int64_t n = 0;
	size_t i;
	json_t *store;
	json_array_foreach(stores, i, store)
	{
		n += *answer_text(store, "error") != '\0';
	}
	return n;
}

static bool has_problems(const json_t *stores)
{
	for (size_t i = 0; i < N_PROBLEMS; i++)
		if (count(stores, problems[i]) > 0)
			return true;
	return false;
}

static int64_t sum(const json_t *stores, const char *field)
{
	int64_t n = 0;
	size_t i;
	json_t *store;
	json_array_foreach(stores, i, store)
	{
		n += answer_number(store, field);
	}
	return n;
}

/* Records that --repair sends again. */
static int64_t count_again(const json_t *stores)
{
	return sum(stores, "again");
}

static bool is_repair(const json_t *stores)
{
	return json_object_get(json_array_get(stores, 0), "again") != NULL;
}

/* All that is wrong is being mended. */
static bool is_repaired(const json_t *stores)
{
	return is_repair(stores) && count_again(stores) == count(stores, "missing") && count(stores, "double") == 0 &&
	       count(stores, "changed") == 0;
}

int audit_exit(const json_t *report)
{
	const json_t *stores = json_object_get(report, "stores");
	if (has_problems(stores) && !is_repair(stores))
		return CLI_ATTENTION;
	if (count_errors(stores) > 0)
		return CLI_UNAVAILABLE;
	return is_repaired(stores) || json_is_true(json_object_get(report, "ok")) ? CLI_OK : CLI_ATTENTION;
}

static void print_repair(const json_t *stores, const struct page *page)
{
	int64_t again = count_again(stores), gone = count(stores, "missing") - again;
	char text[UNITS_TEXT_MAX];
	if (!is_repair(stores))
		return;
	fprintf(page->out, "; sent again: %s", answer_plural(again, "record", "s", text));
	if (gone > 0)
		fprintf(page->out, ", gone for good: %" PRId64, gone);
	if (count(stores, "changed") > 0)
		fputs("; what was changed stands in the way: move it away and repair once more", page->out);
}

/* It is told for ever, and no problem that anybody could mend. */
static void print_damage(const json_t *report, const struct page *page)
{
	size_t i;
	json_t *range;
	json_array_foreach(json_object_get(report, "damage"), i, range)
	{
		fputs("  ", page->out);
		page_text(page, answer_text(range, "source"));
		fprintf(page->out, "  seq %" PRId64 " ", answer_number(range, "first_seq"));
		if (json_is_null(json_object_get(range, "last_seq")))
			fputs("and on, nobody knows how far, if at all", page->out);
		else
			fprintf(page->out, "to %" PRId64, answer_number(range, "last_seq"));
		fprintf(page->out, ": destroyed by damage to the buffer, found at %s\n", answer_text(range, "found"));
	}
}

/* First what nobody could look at: of that nothing is said. */
static void print_found(const json_t *stores, const struct page *page)
{
	int64_t errors = count_errors(stores);
	char text[UNITS_TEXT_MAX];
	fputs("audit: ", page->out);
	if (errors > 0)
		fprintf(page->out, "%s could not be looked through", answer_plural(errors, "store", "s", text));
	if (errors > 0 && (size_t)errors == json_array_size(stores))
		return;
	fputs(errors > 0 ? "; elsewhere " : "", page->out);
	if (has_problems(stores))
		fprintf(page->out, "records missing: %" PRId64 ", double: %" PRId64 ", changed: %" PRId64,
		        count(stores, "missing"), count(stores, "double"), count(stores, "changed"));
	else
		fputs("nothing is missing, nothing is double", page->out);
}

static void print_sum(const json_t *stores, const struct page *page)
{
	int64_t lost = count(stores, "lost"), foreign = sum(stores, "foreign");
	char text[UNITS_TEXT_MAX];
	print_found(stores, page);
	if (lost > 0)
		fprintf(page->out, "; lost for want of room or by damage: %s",
		        answer_plural(lost, "record", "s", text));
	print_repair(stores, page);
	if (foreign > 0)
		fprintf(page->out, "; in no books here: %s of others", answer_plural(foreign, "object", "s", text));
	fputc('\n', page->out);
}

void audit_print(const json_t *report, const struct page *page)
{
	const json_t *stores = json_object_get(report, "stores");
	size_t i;
	json_t *store;
	json_array_foreach(stores, i, store)
	{
		print_store(store, page);
		print_sources(store, page);
	}
	print_damage(report, page);
	print_sum(stores, page);
	if (count(stores, "missing") > 0 && !is_repair(stores))
		fputs("`millrace audit --repair` sends again what is still here; what a store got at another place "
		      "counts as missing too: one that moves wants a new name\n",
		      page->out);
}

int command_audit(const char *socket_path, const struct command_arguments *arguments, struct err *err)
{
	char path[REQUEST_PATH_MAX];
	json_t *report;
	snprintf(path, sizeof path, "/v1/audit%s%s%s", arguments->since ? "?since=" : "",
	         arguments->since ? arguments->since : "",
	         !arguments->repair ? ""
	         : arguments->since ? "&repair=1"
	                            : "?repair=1");
	int rc = client_ask(socket_path, "POST", path, arguments->json ? stdout : NULL, &report, err);
	if (rc != CLI_OK)
		return rc;
	struct page page = page_stdout();
	if (!arguments->json)
		audit_print(report, &page);
	rc = audit_exit(report);
	json_decref(report);
	return rc;
}
