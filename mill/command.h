/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A command as a setting has it: a program, by its absolute path or a name on PATH, and its arguments, with spaces
 * between; no shell ever sees it, so nothing else means anything. Any thread.
 */
#ifndef MILL_COMMAND_H
#define MILL_COMMAND_H

#include "base/err.h"

#define COMMAND_WORDS_MAX 32

struct command {
	char *text;
	const char *argv[COMMAND_WORDS_MAX + 1]; /* for base/child; into text */
};

/* 0, -ENOMEM, or -EINVAL: no words, too many, or a path that is not absolute; command is empty then. */
int command_init(struct command *command, const char *text, struct err *err);
void command_done(struct command *command);

/* The same for a setting's check. */
int command_check(const char *text, struct err *err);

#endif
