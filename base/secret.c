/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Read with read(2) into memory that is overwritten before it is freed: stdio would leave a copy in its buffer.
 */
#include "base/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SECRET_MAX 4096 /* bytes, without the NUL */

/* What stands behind `prefix`, or NULL where the reference is of another kind. */
static const char *behind(const char *reference, const char *prefix)
{
	size_t len = strlen(prefix);
	return strncmp(reference, prefix, len) == 0 ? reference + len : NULL;
}

bool secret_is_literal(const char *reference)
{
	return !behind(reference, "file:") && !behind(reference, "env:");
}

const char *secret_show(const char *reference)
{
	return secret_is_literal(reference) ? "(hidden)" : reference;
}

void secret_free(char *secret)
{
	if (secret)
		explicit_bzero(secret, strlen(secret));
	free(secret);
}

/* Of any source: 0 or -EINVAL. A secret ends up in a header, which a control character would break in two. */
static int check(const char *secret, size_t len, struct err *err)
{
	if (len == 0)
		return err_fail(err, -EINVAL, "the secret is empty");
	if (len > SECRET_MAX)
		return err_fail(err, -EINVAL, "the secret is longer than %d bytes", SECRET_MAX);
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)secret[i] < 0x20 || secret[i] == 0x7f)
			return err_fail(err, -EINVAL, "the secret has a control character (byte %zu)", i + 1);
	return 0;
}

static int copy(const char *value, char **ret_secret, struct err *err)
{
	int r = check(value, strlen(value), err);
	if (r)
		return r;
	char *secret = strdup(value);
	if (!secret)
		return err_fail(err, -ENOMEM, "out of memory");
	*ret_secret = secret;
	return 0;
}

/* Up to size bytes; how many, or -errno. */
static ssize_t read_up_to(int fd, char *data, size_t size)
{
	size_t len = 0;
	while (len < size) {
		ssize_t n = read(fd, data + len, size - len);
		if (n == 0)
			break;
		if (n < 0 && errno != EINTR)
			return -errno;
		len += n > 0 ? (size_t)n : 0;
	}
	return (ssize_t)len;
}

static int read_first_line(int fd, char **ret_secret, struct err *err)
{
	const size_t size = SECRET_MAX + sizeof "\r\n"; /* one byte more than the longest line that is taken */
	char *data = malloc(size);
	if (!data)
		return err_fail(err, -ENOMEM, "out of memory");
	ssize_t n = read_up_to(fd, data, size);
	int r = n < 0 ? err_fail(err, (int)n, "%s", strerror((int)-n)) : 0;
	size_t len = n < 0 ? 0 : (size_t)n;
	if (r == 0) {
		const char *end = memchr(data, '\n', len);
		len = end ? (size_t)(end - data) : len;
		len -= len > 0 && data[len - 1] == '\r';
		r = check(data, len, err);
	}
	if (r < 0) {
		explicit_bzero(data, size);
		free(data);
		return r;
	}
	explicit_bzero(data + len, size - len); /* the lines behind it, and secret_free knows only of the first */
	*ret_secret = data;
	return 0;
}

static int read_file(const char *path, const char *folder, char **ret_secret, struct err *err)
{
	char *whole = NULL;
	if (!*path)
		return err_fail(err, -EINVAL, "no path stands behind it");
	if (asprintf(&whole, "%s%s%s", *path == '/' ? "" : folder, *path == '/' ? "" : "/", path) < 0)
		return err_fail(err, -ENOMEM, "out of memory");
	int fd = open(whole, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK); /* a FIFO must not hold up the start */
	int r = fd < 0 ? err_fail(err, -errno, "%s", strerror(errno)) : read_first_line(fd, ret_secret, err);
	if (fd >= 0)
		close(fd);
	if (r < 0 && *path != '/')
		err_prefix(err, "%s", whole);
	free(whole);
	return r;
}

static int read_variable(const char *name, char **ret_secret, struct err *err)
{
	const char *value = *name ? getenv(name) : NULL;
	if (!*name)
		return err_fail(err, -EINVAL, "no name stands behind it");
	if (!value)
		return err_fail(err, -ENOENT, "the environment has no such variable");
	return copy(value, ret_secret, err);
}

int secret_read(const char *reference, const char *folder, char **ret_secret, struct err *err)
{
	const char *path = behind(reference, "file:");
	const char *name = behind(reference, "env:");
	int r = path   ? read_file(path, folder, ret_secret, err)
	        : name ? read_variable(name, ret_secret, err)
	               : copy(reference, ret_secret, err);
	if (r < 0)
		err_prefix(err, "%s", secret_show(reference));
	return r;
}
