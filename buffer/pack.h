/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes to gzip (RFC 1952), deterministic: no name, no time, one member, level 6. The compressed bytes leave in parts
 * of PACK_PART bytes, so that memory stays the same whatever the size; size and SHA-256 of the whole are known at the
 * end. Embedded; the worker's thread.
 */
#ifndef BUFFER_PACK_H
#define BUFFER_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <zlib.h>

#include "base/sha256.h"

#define PACK_PART (128 * 1024)

struct pack {
	z_stream stream;
	struct sha256 hash;
	uint64_t bytes; /* compressed, so far */
	unsigned char *part;
	int (*on_part)(void *arg, const void *data, size_t len); /* 0 or -errno, which ends it */
	void *arg;
};

int pack_init(struct pack *p, int (*on_part)(void *arg, const void *data, size_t len), void *arg); /* 0, -ENOMEM */
int pack_write(struct pack *p, const void *data, size_t len); /* 0 or what on_part returned */
int pack_finish(struct pack *p, uint8_t ret_sha256[SHA256_SIZE]);
void pack_done(struct pack *p); /* always, finished or not */

/* The other way: gzip in parts to bytes in pieces of up to 64 KB; for `tail`. */
struct unpack {
	z_stream stream;
	unsigned char *piece;
	bool ended; /* the gzip is whole */
	int (*on_piece)(void *arg, const void *data, size_t len);
	void *arg;
};

int unpack_init(struct unpack *u, int (*on_piece)(void *arg, const void *data, size_t len), void *arg);
int unpack_write(struct unpack *u, const void *data, size_t len); /* 0, -EBADMSG, or what on_piece returned */
void unpack_done(struct unpack *u);

#endif
