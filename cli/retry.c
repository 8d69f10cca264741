/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `millrace retry BATCH`: and where something else stands in the batch's place, both are described, and what to do.
 * The same for a run is in mill.c.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/answer.h"
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/commands.h"

#define REQUEST_PATH_MAX 64

/* What is known of the lines: of an object that is not whole, those before it goes wrong. */
static void print_lines(const json_t *facts, const struct page *page)
{
	char text[UNITS_TEXT_MAX];
	int64_t records = answer_number(facts, "records");
	if (records == 0)
		return;
	fprintf(page->out, ", %s of ", answer_plural(records, "record", "s", text));
	page_text(page, answer_text(facts, "source"));
	fputs(" by ", page->out);
	page_text(page, answer_text(facts, "device"));
	fprintf(page->out, ", seq %" PRId64 " to %" PRId64 ", %.19sZ to %.19sZ", answer_number(facts, "first_seq"),
	        answer_number(facts, "last_seq"), answer_text(facts, "first"), answer_text(facts, "last"));
}

static void print_facts(const char *whose, const json_t *facts, const struct page *page)
{
	char text[UNITS_TEXT_MAX];
	const char *wrong = answer_text(facts, "wrong");
	fprintf(page->out, "  %s: %s", whose, answer_plural(answer_number(facts, "bytes"), "byte", "s", text));
	print_lines(facts, page);
	fputs(", SHA-256 ", page->out);
	page_text(page, answer_text(facts, "sha256"));
	fputs(*wrong ? ": " : "", page->out);
	page_text(page, wrong);
	fputc('\n', page->out);
}

static void print_text(const char *prefix, const char *text, const struct page *page)
{
	if (!*text)
		return;
	fputs(prefix, page->out);
	page_text(page, text);
	fputc('\n', page->out);
}

static void print_conflict(const json_t *conflict, const struct page *page)
{
	const json_t *theirs = json_object_get(conflict, "theirs");
	bool known = json_is_object(theirs);
	fputs("! store ", page->out);
	page_text(page, answer_text(conflict, "store"));
	fputs(known ? ": other bytes stand under " : ": nobody can say what stands under ", page->out);
	page_text(page, answer_text(conflict, "key"));
	fputc('\n', page->out);
	print_text("  ", answer_text(conflict, "error"), page);
	print_facts("ours ", json_object_get(conflict, "ours"), page);
	if (known)
		print_facts("there", theirs, page);
	print_text("  what to do: ", answer_text(conflict, "advice"), page);
}

void retry_print(const json_t *answer, const struct page *page)
{
	char text[UNITS_TEXT_MAX];
	size_t i;
	json_t *conflict;
	fprintf(page->out, "batch %" PRId64 ": tried again at %s\n", answer_number(answer, "batch"),
	        answer_plural(answer_number(answer, "stores"), "store", "s", text));
	json_array_foreach(json_object_get(answer, "conflicts"), i, conflict)
	{
		print_conflict(conflict, page);
	}
}

int command_retry(const char *socket_path, const struct command_arguments *arguments, struct err *err)
{
	char path[REQUEST_PATH_MAX];
	json_t *answer;
	if (run_is_id(arguments->word))
		return command_retry_run(socket_path, arguments, err);
	snprintf(path, sizeof path, "/v1/batches/%s/retry", arguments->word);
	int rc = client_ask(socket_path, "POST", path, arguments->json ? stdout : NULL, &answer, err);
	if (rc != CLI_OK)
		return rc;
	struct page page = page_stdout();
	if (!arguments->json)
		retry_print(answer, &page);
	rc = json_array_size(json_object_get(answer, "conflicts")) > 0 ? CLI_ATTENTION : CLI_OK;
	json_decref(answer);
	return rc;
}
