/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands that are clients of the API: status, show, tail, poll, flush, audit, retry, import, wake, start, cancel.
 * Each is one request on the daemon's Unix socket (libcurl; import: one for each object) and one text for people, or
 * with --json the answer as it came. Colour only on a terminal and without NO_COLOR. Knows base/ and nothing else of
 * Millrace.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* sysexits.h's numbers, where interface.md fixes them. */
enum cli_exit {
	CLI_OK = 0,
	CLI_ATTENTION = 1,
	CLI_USAGE = 64,
	CLI_DATA = 65,
	CLI_UNAVAILABLE = 69,
	CLI_CANTCREAT = 73,
	CLI_TEMPFAIL = 75,
	CLI_CONFIG = 78,
};

/* Whether this word is one of the commands here. */
bool cli_knows(const char *command);

/* Whether the arguments would be taken; tells on stderr what is wrong. What is checked before a socket is looked for.
 */
int cli_check(int argc, char **argv);

/* argv[0] is the command. Returns the exit status. */
int cli_run(const char *socket_path, int argc, char **argv);

/* `audit` where no daemon runs: its options (INT64_MIN: no --since), and its report as the command prints it. Both
 * return the exit status. */
int cli_audit_options(int argc, char **argv, int64_t *ret_since_day, bool *ret_repair, bool *ret_json);
int cli_audit_print(const json_t *report, bool json);

/* The options of `export`, which agent/ does; the folder is a word of argv. */
int cli_export_options(int argc, char **argv, const char **ret_folder, bool *ret_json);

/* A line on standard error, without what steers terminals. */
void cli_complain(const char *text);

/* The exit status, or another where not all reached standard output. */
int cli_flush_output(int status);

/* The lines of --help about these commands. */
extern const char cli_help[];

#endif
