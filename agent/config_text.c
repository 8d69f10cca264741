/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/config_text.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WORD "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_*."

struct scan {
	const char *folder; /* where libconfig looks for included names, whichever file names them */
	int files, depth;
	struct err *err;
};

char *config_text_folder(const char *path)
{
	const char *slash = strrchr(path, '/');
	if (!slash)
		return strdup(".");
	return slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
}

char *config_text_join(const char *folder, const char *name)
{
	char *joined;
	if (name[0] == '/' || strcmp(folder, ".") == 0)
		return strdup(name);
	return asprintf(&joined, "%s/%s", strcmp(folder, "/") == 0 ? "" : folder, name) < 0 ? NULL : joined;
}

static int read_all(int fd, char *text, size_t *ret_len)
{
	size_t len = 0;
	while (len <= CONFIG_TEXT_MAX) {
		ssize_t n = read(fd, text + len, CONFIG_TEXT_MAX + 1 - len);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0) {
			*ret_len = len;
			return 0;
		}
		len += n > 0 ? (size_t)n : 0;
	}
	return -EFBIG;
}

/* NULL: *ret_error and err say why. */
static char *read_file(const char *path, int *ret_error, struct err *err)
{
	size_t len = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		*ret_error = err_fail(err, -errno, "%s: cannot be read: %s", path, strerror(errno));
		return NULL;
	}
	char *text = malloc(CONFIG_TEXT_MAX + 2);
	int r = text ? read_all(fd, text, &len) : -ENOMEM;
	close(fd);
	if (r == -EFBIG)
		err_fail(err, r, "%s: larger than 1 MB; no configuration is", path);
	else if (r < 0)
		err_fail(err, r, "%s: cannot be read: %s", path, strerror(-r));
	else if (memchr(text, '\0', len))
		r = err_fail(err, -EINVAL, "%s: holds a NUL byte; it must be a text in UTF-8", path);
	if (r < 0) {
		free(text);
		*ret_error = r;
		return NULL;
	}
	if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
		memmove(text, text + 3, len -= 3);
	text[len] = '\0';
	return text;
}

size_t config_text_token(const char *p)
{
	size_t n = 1;
	if (*p == '"') {
		while (p[n] && p[n] != '"')
			n += p[n] == '\\' && p[n + 1] ? 2 : 1;
		return p[n] ? n + 1 : n;
	}
	if (*p == '#' || strncmp(p, "//", 2) == 0)
		return strcspn(p, "\n");
	if (strncmp(p, "/*", 2) == 0) {
		const char *end = strstr(p + 2, "*/");
		return end ? (size_t)(end + 2 - p) : strlen(p);
	}
	n = strspn(p, WORD);
	return n > 0 ? n : 1;
}

/* libconfig 1.5 keeps the low 32 bits of a whole number without an L behind it. */
static bool is_too_large(const char *token, size_t len)
{
	char *end;
	if (!isdigit((unsigned char)token[0]))
		return false;
	long long value = strtoll(token, &end, strncasecmp(token, "0x", 2) == 0 ? 16 : 10);
	return end == token + len && value > INT_MAX;
}

static int scan_text(struct scan *scan, const char *file, const char *text);

static int scan_file(struct scan *scan, const char *file, int line, const char *path)
{
	struct err why = { "" };
	int r = 0;
	char *text = read_file(path, &r, &why);
	if (!text)
		return err_fail(scan->err, -EINVAL, "%s:%d: included file: %s", file, line, why.text);
	scan->depth++;
	r = scan_text(scan, path, text);
	scan->depth--;
	free(text);
	return r;
}

/* text begins behind the word @include. */
static int scan_include(struct scan *scan, const char *file, int line, const char *text)
{
	text += strspn(text, " \t");
	if (*text != '"')
		return 0; /* a syntax error, which libconfig tells */
	if (text[1] == '/')
		return err_fail(scan->err, -EINVAL,
		                "%s:%d: @include wants a name relative to the configuration's folder", file, line);
	if (scan->depth >= CONFIG_TEXT_DEPTH || scan->files >= CONFIG_TEXT_FILES)
		return err_fail(scan->err, -EINVAL,
		                "%s:%d: too many included files; %d are taken, and %d one in the other", file, line,
		                CONFIG_TEXT_FILES, CONFIG_TEXT_DEPTH);
	scan->files++;
	char *name = strndup(text + 1, strcspn(text + 1, "\"\n"));
	char *path = name ? config_text_join(scan->folder, name) : NULL;
	int r = path ? scan_file(scan, file, line, path) : err_fail(scan->err, -ENOMEM, "%s: no memory", file);
	free(path);
	free(name);
	return r;
}

static int scan_text(struct scan *scan, const char *file, const char *text)
{
	bool fresh = true; /* nothing but blanks in this line so far: elsewhere @include is a syntax error */
	int line = 1;
	while (*text) {
		size_t len = config_text_token(text);
		if (fresh && strncmp(text, "@include", 8) == 0) {
			int r = scan_include(scan, file, line, text + 8);
			if (r < 0)
				return r;
		}
		if (is_too_large(text, len))
			return err_fail(scan->err, -EINVAL, "%s:%d: the number %.*s is too large", file, line,
			                (int)(len < 40 ? len : 40), text);
		fresh = *text == '\n' || (fresh && isblank((unsigned char)*text));
		for (size_t i = 0; i < len; i++)
			line += text[i] == '\n';
		text += len;
	}
	return 0;
}

int config_text_read(const char *path, char **ret_text, struct err *err)
{
	int r = 0;
	char *text = read_file(path, &r, err);
	if (!text && r == -ENOENT)
		return err_fail(err, r, "%s: no such file; name another with -c FILE", path);
	if (!text)
		return r;
	char *folder = config_text_folder(path);
	struct scan scan = { .folder = folder, .err = err };
	r = folder ? scan_text(&scan, path, text) : err_fail(err, -ENOMEM, "%s: no memory", path);
	free(folder);
	if (r < 0)
		free(text);
	else
		*ret_text = text;
	return r;
}
