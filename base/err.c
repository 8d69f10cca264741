/* SPDX-License-Identifier: Apache-2.0 */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

/*
 * Takes over a text that was written with room for more than fits, so that the first byte lost can be seen: a cut moves
 * back to the start of a character, for half a character would spoil the log line or JSON it ends in.
 */
static void set_text(struct err *err, const char *text)
{
	size_t len = strlen(text);
	if (len >= ERR_MAX) {
		len = utf8_cut(text, ERR_MAX - 1);
	}
	memcpy(err->text, text, len);
	err->text[len] = '\0';
}

int err_fail(struct err *err, int code, const char *format, ...)
{
	if (!err)
		return code;
	char text[ERR_MAX + 1]; /* not err->text at once: it may be among the arguments */
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	set_text(err, text);
	return code;
}

int err_place(struct err *err, int code, const char *what, const char *path)
{
	const char *slash = strrchr(path, '/');
	const char *folder = slash == path ? "/" : slash ? path : ".";
	int len = slash && slash > path ? (int)(slash - path) : 1;
	switch (code) {
	case -ENOENT:
		return err_fail(err, code, "the folder \"%.*s\" of the %s does not exist: create it (mkdir -p %.*s)",
		                len, folder, what, len, folder);
	case -ENOTDIR:
		return err_fail(err, code,
		                "\"%.*s\" cannot be the folder of the %s: it, or what is above it, is a file", len,
		                folder, what);
	case -EACCES:
	case -EPERM:
		return err_fail(err, code,
		                "no permission for the %s \"%s\": this user must be able to write there, to the folder "
		                "\"%.*s\" and to the file where it exists",
		                what, path, len, folder);
	case -EISDIR:
		return err_fail(err, code, "the %s cannot be \"%s\", which is a folder: name a file in it", what, path);
	default:
		return err_fail(err, code, "%s \"%s\": %s", what, path, strerror(-code));
	}
}

void err_prefix(struct err *err, const char *format, ...)
{
	if (!err)
		return;
	char text[2 * ERR_MAX + 2];
	va_list args;
	va_start(args, format);
	vsnprintf(text, ERR_MAX + 1, format, args);
	va_end(args);
	size_t len = strlen(text);
	snprintf(text + len, sizeof text - len, ": %s", err->text);
	set_text(err, text);
}
