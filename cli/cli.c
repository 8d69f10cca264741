/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/units.h"
#include "cli/commands.h"

#define LAST_DEFAULT 10
#define LAST_MAX     100000

enum takes {
	TAKES_JSON = 1,
	TAKES_READY = 2,
	TAKES_WAIT = 4,
	TAKES_LAST = 8,
	TAKES_SINCE = 16,
	TAKES_FOLLOW = 32,
	TAKES_REPAIR = 64,
};

enum word {
	WORD_NONE,
	WORD_SOURCE,
	WORD_VIEW,
	WORD_BATCH,
	WORD_FOLDER,
	WORD_MACHINE,
	WORD_JOB,
	WORD_RUN,
};

static const char *const word_names[] = {
	[WORD_SOURCE] = "SOURCE", [WORD_VIEW] = "what to show", [WORD_BATCH] = "BATCH or RUN",
	[WORD_FOLDER] = "DIR",    [WORD_MACHINE] = "MACHINE",   [WORD_JOB] = "JOB",
	[WORD_RUN] = "RUN",
};

struct command {
	const char *name, *usage;
	unsigned takes; /* enum takes */
	enum word word;
	command_run run; /* NULL: agent/ does it, which may need no daemon */
};

static const struct command commands[] = {
	{ "status", "status [--json] [--ready]", TAKES_JSON | TAKES_READY, WORD_NONE, command_status },
	{ "show", "show sources|stores|batches|rejected|config|machines|runs|run RUN [--json]", TAKES_JSON, WORD_VIEW,
	  command_show },
	{ "tail", "tail SOURCE [-f] [-n N]", TAKES_JSON | TAKES_FOLLOW | TAKES_LAST, WORD_SOURCE, command_tail },
	{ "poll", "poll SOURCE [--json]", TAKES_JSON, WORD_SOURCE, command_poll },
	{ "flush", "flush [--wait] [--json]", TAKES_JSON | TAKES_WAIT, WORD_NONE, command_flush },
	{ "audit", "audit [--since DATE] [--repair] [--json]", TAKES_JSON | TAKES_SINCE | TAKES_REPAIR, WORD_NONE,
	  command_audit },
	{ "retry", "retry BATCH|RUN [--json]", TAKES_JSON, WORD_BATCH, command_retry },
	{ "wake", "wake MACHINE [--json]", TAKES_JSON, WORD_MACHINE, command_wake },
	{ "start", "start JOB [--json]", TAKES_JSON, WORD_JOB, command_start },
	{ "cancel", "cancel RUN [--json]", TAKES_JSON, WORD_RUN, command_cancel },
	{ "export", "export DIR [--json]", TAKES_JSON, WORD_FOLDER, NULL },
	{ "import", "import DIR [--json]", TAKES_JSON, WORD_FOLDER, command_import },
};

const char cli_help[] =
        "  status [--json] [--ready]   how it stands and what to do; --ready: by the exit status alone\n"
        "  show WHAT [--json]          one table: sources, stores or batches; or rejected: the newest answer that was\n"
        "                              refused, of each source; or the running config, with its defaults; or\n"
        "                              machines, with what their jobs wait for; or runs\n"
        "  show run RUN [--json]       one run: its stages, its manifest, the end of its log\n"
        "  tail SOURCE [-f] [-n N]     the last N records [10] as object lines; -f, --follow: then those that come\n"
        "  poll SOURCE [--json]        poll now; returns once committed, unchanged or refused\n"
        "  flush [--wait] [--json]     seal what waits; --wait: until all stores have it\n"
        "  audit [--since DATE] [--repair] [--json]\n"
        "                              what each store has, lacks or has twice; --repair: send again what it lacks\n"
        "                              and is still here; with the daemon or without\n"
        "  retry BATCH [--json]        bring a batch at once that is parked or waits for a store; where other bytes\n"
        "                              stand in its place, tell what these are\n"
        "  retry RUN [--json]          try a parked run again, with all its attempts anew\n"
        "  cancel RUN [--json]         end a run that is on its way or parked; its objects are not due again\n"
        "  start JOB [--json]          make a run of what waits for the job now, due or not\n"
        "  wake MACHINE [--json]       wake it now, whatever holds that back\n"
        "  export DIR [--json]         write what the stores lack into a folder; with the daemon or without\n"
        "  import DIR [--json]         take over such a folder of another Millrace, once only\n";

static const struct option options[] = {
	{ "json", no_argument, NULL, TAKES_JSON },       { "ready", no_argument, NULL, TAKES_READY },
	{ "wait", no_argument, NULL, TAKES_WAIT },       { "since", required_argument, NULL, TAKES_SINCE },
	{ "follow", no_argument, NULL, TAKES_FOLLOW },   { "repair", no_argument, NULL, TAKES_REPAIR },
	{ "last", required_argument, NULL, TAKES_LAST }, { NULL, 0, NULL, 0 },
};

static const struct command *find(const char *name)
{
	for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return NULL;
}

bool cli_knows(const char *command)
{
	return find(command) != NULL;
}

static int parse_last(const char *text, int *ret_last)
{
	size_t digits = strspn(text, "0123456789");
	int last = digits > 0 && digits <= 6 && !text[digits] ? atoi(text) : -1;
	if (last < 0 || last > LAST_MAX)
		return -1;
	*ret_last = last;
	return 0;
}

static int parse_options(const struct command *command, int argc, char **argv, struct command_arguments *ret_arguments,
                         struct err *err)
{
	int64_t day;
	int c;
	optind = 0; /* glibc: start anew */
	opterr = 0;
	while ((c = getopt_long(argc, argv, ":fn:", options, NULL)) != -1) {
		unsigned option = c == 'n' ? TAKES_LAST : c == 'f' ? TAKES_FOLLOW : (unsigned)c;
		if (c == ':')
			return err_fail(err, CLI_USAGE, "%s needs a value", argv[optind - 1]);
		if (c == '?' || !(command->takes & option))
			return err_fail(err, CLI_USAGE, "unknown option %s", argv[optind - 1]);
		if (option == TAKES_LAST && parse_last(optarg, &ret_arguments->last) < 0)
			return err_fail(err, CLI_USAGE, "-n takes a number from 0 to %d, not \"%s\"", LAST_MAX, optarg);
		if (c == TAKES_SINCE && units_parse_date(optarg, &day) < 0)
			return err_fail(err, CLI_USAGE, "--since takes a date like 2026-11-21, not \"%s\"", optarg);
		if (c == TAKES_SINCE)
			ret_arguments->since = optarg;
		ret_arguments->json |= c == TAKES_JSON;
		ret_arguments->ready |= c == TAKES_READY;
		ret_arguments->wait |= c == TAKES_WAIT;
		ret_arguments->follow |= option == TAKES_FOLLOW;
		ret_arguments->repair |= c == TAKES_REPAIR;
	}
	return CLI_OK;
}

static bool is_batch(const char *text)
{
	return *text && strlen(text) <= 18 && strspn(text, "0123456789") == strlen(text);
}

static int check_run(const char *text, struct err *err)
{
	if (run_is_id(text))
		return CLI_OK;
	return err_fail(err, CLI_USAGE, "\"%s\" is not the id of a run, which has 32 hex digits", text);
}

static int check_word(enum word word, const char *text, struct err *err)
{
	if (word == WORD_VIEW)
		return show_check(text, err);
	if (word == WORD_RUN)
		return check_run(text, err);
	if (word == WORD_SOURCE && !units_is_name(text + (*text == '_'))) /* a leading _ is ours */
		return err_fail(err, CLI_USAGE, "\"%s\" cannot be the name of a source", text);
	if (word == WORD_MACHINE && !units_is_name(text))
		return err_fail(err, CLI_USAGE, "\"%s\" cannot be the name of a machine", text);
	if (word == WORD_JOB && !units_is_name(text))
		return err_fail(err, CLI_USAGE, "\"%s\" cannot be the name of a job", text);
	if (word == WORD_BATCH && !is_batch(text) && !run_is_id(text))
		return err_fail(err, CLI_USAGE,
		                "\"%s\" is neither the number of a batch nor the id of a run, which has 32 hex digits",
		                text);
	return CLI_OK;
}

/* The words of a command, n of them: one of its own, and `show run` has a second one. */
static int parse_words(const struct command *command, char **words, int n, struct command_arguments *ret_arguments,
                       struct err *err)
{
	bool has_run = command->word == WORD_VIEW && n > 0 && strcmp(words[0], "run") == 0;
	int wanted = command->word == WORD_NONE ? 0 : has_run ? 2 : 1;
	if (n < wanted)
		return err_fail(err, CLI_USAGE, "%s is missing", word_names[has_run ? WORD_RUN : command->word]);
	if (n > wanted)
		return err_fail(err, CLI_USAGE, "\"%s\" is one argument too many", words[wanted]);
	ret_arguments->word = wanted ? words[0] : NULL;
	ret_arguments->run = has_run ? words[1] : NULL;
	if (has_run)
		return check_run(words[1], err);
	return wanted ? check_word(command->word, words[0], err) : CLI_OK;
}

static int parse(const struct command *command, int argc, char **argv, struct command_arguments *ret_arguments,
                 struct err *err)
{
	struct command_arguments arguments = { .last = LAST_DEFAULT };
	int rc = parse_options(command, argc, argv, &arguments, err);
	if (rc == CLI_OK)
		rc = parse_words(command, argv + optind, argc - optind, &arguments, err);
	if (rc == CLI_OK)
		*ret_arguments = arguments;
	return rc;
}

static const struct command *prepare(int argc, char **argv, struct command_arguments *ret_arguments)
{
	struct err err;
	const struct command *command = find(argv[0]);
	if (!command)
		fprintf(stderr, "millrace: unknown command \"%s\"\n", argv[0]);
	else if (parse(command, argc, argv, ret_arguments, &err) == CLI_OK)
		return command;
	else
		fprintf(stderr, "millrace %s: %s\nusage: millrace %s\n", command->name, err.text, command->usage);
	return NULL;
}

int cli_check(int argc, char **argv)
{
	struct command_arguments arguments;
	return prepare(argc, argv, &arguments) ? CLI_OK : CLI_USAGE;
}

int cli_export_options(int argc, char **argv, const char **ret_folder, bool *ret_json)
{
	struct command_arguments arguments = { .word = NULL };
	if (!prepare(argc, argv, &arguments))
		return CLI_USAGE;
	*ret_folder = arguments.word;
	*ret_json = arguments.json;
	return CLI_OK;
}

int cli_audit_options(int argc, char **argv, int64_t *ret_since_day, bool *ret_repair, bool *ret_json)
{
	struct command_arguments arguments = { .since = NULL };
	if (!prepare(argc, argv, &arguments))
		return CLI_USAGE;
	*ret_json = arguments.json;
	*ret_repair = arguments.repair;
	if (!arguments.since || units_parse_date(arguments.since, ret_since_day) < 0)
		*ret_since_day = INT64_MIN;
	return CLI_OK;
}

/* What did not reach the output is no success. */
int cli_flush_output(int rc)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return rc;
	perror("millrace: standard output");
	return rc == CLI_OK ? CLI_CANTCREAT : rc;
}

int cli_audit_print(const json_t *report, bool json)
{
	struct page page = page_stdout();
	if (json)
		fputs(json_dumpf(report, stdout, JSON_COMPACT) == 0 ? "\n" : "", stdout);
	else
		audit_print(report, &page);
	return cli_flush_output(audit_exit(report));
}

/* What the daemon said may carry a feed's words: the same filter as for a page. */
void cli_complain(const char *text)
{
	struct page page = { .out = stderr };
	fputs("millrace: ", stderr);
	page_text(&page, text);
	fputc('\n', stderr);
}

int cli_run(const char *socket_path, int argc, char **argv)
{
	struct command_arguments arguments;
	const struct command *command = prepare(argc, argv, &arguments);
	if (!command)
		return CLI_USAGE;
	struct err err = { .text = "" };
	int rc = command->run(socket_path, &arguments, &err);
	if (*err.text && !arguments.ready)
		cli_complain(err.text);
	return cli_flush_output(rc);
}
