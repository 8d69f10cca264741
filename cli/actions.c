/* SPDX-License-Identifier: Apache-2.0 */
/* `millrace tail`, `poll` and `flush`: what concerns one source's records, or moves some. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/answer.h"
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/commands.h"

#define REQUEST_PATH_MAX 128

int command_tail(const char *socket_path, const struct command_arguments *arguments, struct err *err)
{
	char path[REQUEST_PATH_MAX];
	bool ended;
	snprintf(path, sizeof path, "/v1/sources/%s/records?last=%d%s", arguments->word, arguments->last,
	         arguments->follow ? "&follow=1" : "");
	int rc = client_stream(socket_path, path, STDOUT_FILENO, &ended, err);
	if (rc == CLI_OK && ended && arguments->follow)
		return err_fail(err, CLI_OK,
		                "source \"%s\" is gone from the configuration: nothing more will come from it",
		                arguments->word);
	return rc;
}

static void print_committed(const json_t *answer, const struct page *page)
{
	char text[UNITS_TEXT_MAX];
	int64_t records = answer_number(answer, "records"), first = answer_number(answer, "first_seq");
	fprintf(page->out, ": committed %s", answer_plural(records, "record", "s", text));
	if (records > 0)
		fprintf(page->out, ", seq %" PRId64, first);
	if (records > 1)
		fprintf(page->out, " to %" PRId64, first + records - 1);
}

static int poll_exit(const json_t *answer)
{
	const char *outcome = answer_text(answer, "outcome");
	return strcmp(outcome, "committed") == 0 || strcmp(outcome, "unchanged") == 0 ? CLI_OK : CLI_ATTENTION;
}

void poll_print(const json_t *answer, const struct page *page)
{
	const char *outcome = answer_text(answer, "outcome"), *text = answer_text(answer, "text");
	page_text(page, answer_text(answer, "source"));
	if (strcmp(outcome, "committed") == 0) {
		print_committed(answer, page);
	} else {
		fputs(": ", page->out);
		page_text(page, outcome);
		fputs(*text ? ": " : "", page->out);
		page_text(page, text);
	}
	fputc('\n', page->out);
}

int command_poll(const char *socket_path, const struct command_arguments *arguments, struct err *err)
{
	char path[REQUEST_PATH_MAX];
	json_t *answer;
	snprintf(path, sizeof path, "/v1/sources/%s/poll", arguments->word);
	int rc = client_ask(socket_path, "POST", path, arguments->json ? stdout : NULL, &answer, err);
	if (rc != CLI_OK)
		return rc;
	struct page page = page_stdout();
	if (!arguments->json)
		poll_print(answer, &page);
	rc = poll_exit(answer);
	json_decref(answer);
	return rc;
}

void flush_print(const json_t *answer, const struct page *page)
{
	char text[UNITS_TEXT_MAX];
	bool delivered = json_is_true(json_object_get(answer, "delivered"));
	int64_t kept_back = answer_number(answer, "kept_back");
	fprintf(page->out, "sealed %s%s", answer_plural(answer_number(answer, "batches"), "batch", "es", text),
	        delivered ? ", all delivered" : "");
	if (kept_back > 0)
		fprintf(page->out, "; not sealed: %s, until the clock is right",
		        answer_plural(kept_back, "record", "s", text));
	fputc('\n', page->out);
}

int command_flush(const char *socket_path, const struct command_arguments *arguments, struct err *err)
{
	json_t *answer;
	int rc = client_ask(socket_path, "POST", arguments->wait ? "/v1/flush?wait=1" : "/v1/flush",
	                    arguments->json ? stdout : NULL, &answer, err);
	if (rc != CLI_OK)
		return rc;
	struct page page = page_stdout();
	if (!arguments->json)
		flush_print(answer, &page);
	bool delivered = json_is_true(json_object_get(answer, "delivered"));
	json_decref(answer);
	return delivered || !arguments->wait ? CLI_OK : CLI_UNAVAILABLE;
}
