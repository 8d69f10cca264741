/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Growing bytes with a ceiling: everything that grows in Millrace grows in one of these. Embedded, owned by whoever
 * embeds it, used by one thread at a time.
 */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include <stdarg.h>
#include <stddef.h>

struct bytes {
	unsigned char *data; /* NULL while nothing was added */
	size_t len;
	size_t capacity;
	size_t ceiling; /* len never exceeds it */
};

/* Starts empty; allocates nothing. */
void bytes_init(struct bytes *b, size_t ceiling);

/* Frees the memory; b is empty again with the same ceiling. */
void bytes_done(struct bytes *b);

/* Forgets the content, keeps the memory. */
void bytes_clear(struct bytes *b);

/* 0, -ENOBUFS where the ceiling would be passed, -ENOMEM. On failure b is as it was. */
int bytes_add(struct bytes *b, const void *data, size_t len);
int bytes_add_text(struct bytes *b, const char *text);
int bytes_printf(struct bytes *b, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Room for len more bytes at data + len, which the caller writes before it raises len. Errors as bytes_add. */
int bytes_reserve(struct bytes *b, size_t len);

/* Hands the memory to the caller, who frees it with free(); b is empty again. */
unsigned char *bytes_take(struct bytes *b, size_t *ret_len);

#endif
