/* SPDX-License-Identifier: Apache-2.0 */
#include "base/bytes.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CAPACITY_MIN 64

void bytes_init(struct bytes *b, size_t ceiling)
{
	*b = (struct bytes){ .ceiling = ceiling };
}

void bytes_done(struct bytes *b)
{
	free(b->data);
	bytes_init(b, b->ceiling);
}

void bytes_clear(struct bytes *b)
{
	b->len = 0;
}

/* Doubling keeps adding cheap; the ceiling bounds the last step, so that 16 MB allowed are never 32 MB taken. */
static size_t next_capacity(const struct bytes *b, size_t needed)
{
	size_t capacity = b->capacity < CAPACITY_MIN ? CAPACITY_MIN : b->capacity;
	while (capacity < needed && capacity <= b->ceiling / 2)
		capacity *= 2;
	if (capacity < needed || capacity > b->ceiling)
		capacity = b->ceiling;
	return capacity;
}

int bytes_reserve(struct bytes *b, size_t len)
{
	if (len > b->ceiling - b->len)
		return -ENOBUFS;
	if (len <= b->capacity - b->len)
		return 0;
	size_t capacity = next_capacity(b, b->len + len);
	if (capacity == SIZE_MAX)
		return -ENOMEM;
	unsigned char *data = realloc(b->data, capacity + 1); /* one for the NUL that vsnprintf writes */
	if (!data)
		return -ENOMEM;
	b->data = data;
	b->capacity = capacity;
	return 0;
}

int bytes_add(struct bytes *b, const void *data, size_t len)
{
	int rc = bytes_reserve(b, len);
	if (rc < 0 || len == 0)
		return rc;
	memcpy(b->data + b->len, data, len);
	b->len += len;
	return 0;
}

int bytes_add_text(struct bytes *b, const char *text)
{
	return bytes_add(b, text, strlen(text));
}

int bytes_printf(struct bytes *b, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	int len = vsnprintf(NULL, 0, format, args);
	va_end(args);
	if (len < 0)
		return -ENOBUFS; /* longer than an int counts */
	int rc = bytes_reserve(b, (size_t)len);
	if (rc < 0 || len == 0)
		return rc;
	va_start(args, format);
	vsnprintf((char *)b->data + b->len, (size_t)len + 1, format, args);
	va_end(args);
	b->len += (size_t)len;
	return 0;
}

unsigned char *bytes_take(struct bytes *b, size_t *ret_len)
{
	unsigned char *data = b->data;
	*ret_len = b->len;
	bytes_init(b, b->ceiling);
	return data;
}
