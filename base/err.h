/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a person must read when something failed. Functions return 0 or -errno; where the number alone would not tell
 * what to mend they also fill a struct err, and each layer on the way up puts its own name before the text:
 * `source "parking": GET https://…: certificate expired`. The struct lives on the caller's stack; no thread owns it.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#define ERR_MAX 512 /* bytes with the final NUL; longer texts are cut, never refused */

struct err {
	char text[ERR_MAX];
};

/* Fills err (NULL is fine) and returns code, so that a failure is one line: return err_fail(err, -EINVAL, "…"); */
int err_fail(struct err *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/*
 * Why the file of `what` ("buffer") at path cannot be made or opened, where code (-errno) tells it with what a person
 * can do: no such folder, no permission, a folder where a file must be. Returns code.
 */
int err_place(struct err *err, int code, const char *what, const char *path);

/* Puts `prefix: ` before what stands there. NULL is fine. */
void err_prefix(struct err *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
