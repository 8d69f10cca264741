/* SPDX-License-Identifier: Apache-2.0 */
#include "mill/command.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int command_init(struct command *command, const char *text, struct err *err)
{
	char *rest = NULL;
	size_t n = 0;
	*command = (struct command){ .text = strdup(text) };
	if (!command->text)
		return err_fail(err, -ENOMEM, "out of memory");
	char *word = strtok_r(command->text, " ", &rest);
	for (; word && n < COMMAND_WORDS_MAX; word = strtok_r(NULL, " ", &rest))
		command->argv[n++] = word;
	int rc = 0;
	if (n == 0 || word)
		rc = err_fail(err, -EINVAL, "it is a program and up to %d arguments, with spaces between",
		              COMMAND_WORDS_MAX - 1);
	else if (*command->argv[0] != '/' && strchr(command->argv[0], '/'))
		rc = err_fail(err, -EINVAL, "\"%.80s\": write the whole path, or a name that is found on PATH",
		              command->argv[0]);
	if (rc < 0)
		command_done(command);
	return rc;
}

void command_done(struct command *command)
{
	free(command->text);
	*command = (struct command){ 0 };
}

int command_check(const char *text, struct err *err)
{
	struct command command;
	int rc = command_init(&command, text, err);
	command_done(&command);
	return rc;
}
