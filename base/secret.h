/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A secret as a setting names it: "file:PATH" (its first line), "env:NAME", or the secret itself. Settings keep the
 * reference; only who uses the secret (run, check, an offline audit) reads it, and no message, log or answer ever shows
 * it. Synchronous; loop thread before the loop runs, or at a reload.
 */
#ifndef BASE_SECRET_H
#define BASE_SECRET_H

#include <stdbool.h>

#include "base/err.h"

/*
 * The secret, malloc'ed; the caller ends it with secret_free. Relative paths are seen from `folder`. 0; -ENOENT,
 * -EACCES, …: the file or the variable is not there; -EINVAL: it is empty, over 4 KB, or has control characters. err
 * names the reference, never the value.
 */
int secret_read(const char *reference, const char *folder, char **ret_secret, struct err *err);

/* Overwrites it first. NULL is fine. */
void secret_free(char *secret);

/* Whether the setting is the secret itself: worth a warning in a file that others can read. */
bool secret_is_literal(const char *reference);

/* What may be shown of it: the reference, or "(hidden)" for a literal. */
const char *secret_show(const char *reference);

#endif
