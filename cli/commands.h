/* SPDX-License-Identifier: Apache-2.0 */
/* The commands themselves: private to cli/. cli.c reads the arguments, prints what went wrong, and gives the exit. */
#ifndef CLI_COMMANDS_H
#define CLI_COMMANDS_H

#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"
#include "cli/table.h"

struct command_arguments {
	const char *word; /* SOURCE, WHAT, MACHINE and the like; NULL where the command takes none */
	const char *run;  /* of `show run`; NULL */
	bool json, ready, wait, follow, repair;
	int last;
	const char *since; /* a date; NULL: none was given */
};

/* Each returns an exit status (cli.h), with err filled where there is something to say beyond it. */
typedef int (*command_run)(const char *socket_path, const struct command_arguments *arguments, struct err *err);

int command_status(const char *socket_path, const struct command_arguments *arguments, struct err *err);
int command_show(const char *socket_path, const struct command_arguments *arguments, struct err *err);
int command_tail(const char *socket_path, const struct command_arguments *arguments, struct err *err);
int command_poll(const char *socket_path, const struct command_arguments *arguments, struct err *err);
int command_flush(const char *socket_path, const struct command_arguments *arguments, struct err *err);
int command_audit(const char *socket_path, const struct command_arguments *arguments, struct err *err);
int command_import(const char *socket_path, const struct command_arguments *arguments, struct err *err);
int command_retry(const char *socket_path, const struct command_arguments *arguments, struct err *err);
int command_wake(const char *socket_path, const struct command_arguments *arguments, struct err *err);
int command_start(const char *socket_path, const struct command_arguments *arguments, struct err *err);
int command_cancel(const char *socket_path, const struct command_arguments *arguments, struct err *err);
int command_retry_run(const char *socket_path, const struct command_arguments *arguments, struct err *err);

/* What the answers look like on a page. */
void status_print(const json_t *status, const struct page *page);
void poll_print(const json_t *answer, const struct page *page);
void flush_print(const json_t *answer, const struct page *page);

void retry_print(const json_t *answer, const struct page *page);
void import_print(const json_t *report, const struct page *page);

void audit_print(const json_t *report, const struct page *page);
int audit_exit(const json_t *report);

/* 0, or says that there is no such thing to show, and which one may be meant; show_print needs one that there is. */
int show_check(const char *what, struct err *err);
void show_print(const char *what, json_t *answer, const struct page *page);

void rejected_print(json_t *answer, const struct page *page);
void machines_print(json_t *answer, const struct page *page);
void runs_print(json_t *answer, const struct page *page);
void run_print(json_t *run, const struct page *page);

/* Whether it can be the id of a run: 32 hex digits. */
bool run_is_id(const char *text);

/* A line for each source that has lost records, for each way in which it has. */
void show_losses(const json_t *sources, const struct page *page);

/* A line for each row that has an error, or for those alone that are in this state. */
void show_errors(const json_t *rows, const char *state, const struct page *page);

#endif
