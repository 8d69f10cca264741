/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stands in the lake: an object's lines and its key, as interface.md fixes them. Pure; any thread.
 */
#ifndef BUFFER_OBJECT_H
#define BUFFER_OBJECT_H

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/sha256.h"
#include "base/units.h"

#define OBJECT_BOOT    9   /* 8 hex digits and a NUL */
#define OBJECT_KEY_MAX 320 /* bytes of a key below the prefix, with its NUL */

struct envelope {
	const char *source, *device, *boot;
	uint64_t seq, fetch;
	int64_t wall_ms;
	const char *clock;
};

/* One line with its line feed. 0, -ENOMEM, -ENOBUFS. */
int object_line(struct bytes *out, const struct envelope *envelope, const void *data, size_t len);

/* How many bytes that line has, for data of len bytes. */
size_t object_line_len(const struct envelope *envelope, size_t len);

/*
 * source=<source>/dt=<date>/<device>-<boot>-<first>-<last>-<sha8>.ndjson.gz: the key below the store's prefix, frozen
 * once the batch is sealed.
 */
void object_key(char ret_key[OBJECT_KEY_MAX], const struct envelope *first, uint64_t last_seq,
                const uint8_t sha256[SHA256_SIZE]);

struct object_name {
	char source[UNITS_NAME_MAX], device[UNITS_NAME_MAX], boot[OBJECT_BOOT];
	int64_t day; /* UTC days since 1970 */
	uint64_t first_seq, last_seq;
	char sha8[9];
};

/* What a key says; -EINVAL: it is not, to the byte, one that object_key makes. */
int object_read_key(const char *key, struct object_name *ret_name);

/* The first 8 hex digits of SHA-256 over the kernel's boot id followed by the buffer's random id, both as text. */
void object_boot(char ret_boot[OBJECT_BOOT], const char *kernel_boot_id, const char *buffer_id);

#endif
