/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The text of a configuration before libconfig sees it. libconfig ends the whole process where an included name is a
 * folder, cuts numbers to 32 bits without a word, and sees nothing behind a NUL: what it would not survive or would
 * misread is refused here, in the file and in all that it includes.
 */
#ifndef AGENT_CONFIG_TEXT_H
#define AGENT_CONFIG_TEXT_H

#include <stddef.h>

#include "base/err.h"

#define CONFIG_TEXT_MAX   (1024 * 1024) /* bytes of one file */
#define CONFIG_TEXT_FILES 64            /* included ones, counted each time */
#define CONFIG_TEXT_DEPTH 10            /* libconfig's own */

/*
 * Reads a file whole, without its byte order mark; the caller frees the text. 0; -ENOENT, -EACCES, -EISDIR, …: it
 * cannot be read; -EFBIG; -EINVAL: its text cannot be meant. err has file and line.
 */
int config_text_read(const char *path, char **ret_text, struct err *err);

/* Bytes of the string, comment, word, number or single character that begins here, where the text does not end. */
size_t config_text_token(const char *text);

/* The folder of a file as it was given ("." where none was), which the caller frees. NULL: no memory. */
char *config_text_folder(const char *path);

/* A name below a folder, which the caller frees; "." adds nothing and an absolute name stays. NULL: no memory. */
char *config_text_join(const char *folder, const char *name);

#endif
