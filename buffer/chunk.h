/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of a chunk: what fetches brought, as the buffer keeps it until it is sealed. Plain text of a chunk, before
 * it is deflated:
 *
 *     u8 version (1), then spans. A span is the records of one fetch, or of a part of one:
 *     u64 fetch, i64 wall_ms, i64 mono_ms, u8 clock, u8 last (1: the fetch ends here), u32 records,
 *     then per record u32 length and its bytes. All little-endian.
 *
 * Pure; any thread.
 */
#ifndef BUFFER_CHUNK_H
#define BUFFER_CHUNK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <zlib.h>

#include "base/bytes.h"

/* About how many bytes of object lines a chunk is to hold; a single record may be larger. */
#define CHUNK_FULL (256 * 1024)

/* What a chunk's records never exceed, encoded: room for the largest object, 64 MB, as a single record. */
#define CHUNK_CEILING (66 * 1024 * 1024)

/* Nor does the plain text of a chunk exceed this. */
#define CHUNK_PLAIN_MAX (2 * (size_t)CHUNK_CEILING)

/* What is known of a fetch's time. Names as in an object's "clock". */
enum chunk_clock { CHUNK_SYNCED, CHUNK_CORRECTED, CHUNK_UNSYNCED };
extern const char *const chunk_clock_names[];

struct span {
	uint64_t fetch; /* number of the fetch, from 1 per source */
	int64_t wall_ms;
	int64_t mono_ms;
	uint8_t clock; /* enum chunk_clock */
	bool last;
	uint32_t records;
};

/* The encoded run of a span's records, one more. 0, -ENOMEM, -ENOBUFS. */
int chunk_add_record(struct bytes *records, const void *data, size_t len);

/*
 * Writes what is stored (raw deflate, level 1) span by span, without a copy of the plain text in between: begin, add
 * spans, finish; then `stored` holds it and `plain` says how long the plain text was. done frees both, whenever. 0,
 * -ENOMEM, -ENOBUFS.
 */
struct chunk_writer {
	z_stream z;
	bool begun;
	struct bytes stored;
	uint64_t plain; /* bytes so far */
};

void chunk_writer_init(struct chunk_writer *w);
int chunk_writer_begin(struct chunk_writer *w);
int chunk_writer_add(struct chunk_writer *w, const struct span *span, const struct bytes *records);
int chunk_writer_finish(struct chunk_writer *w);
void chunk_writer_done(struct chunk_writer *w);

/* And back. -EBADMSG where it is not what we wrote, -ENOMEM. */
int chunk_inflate(const void *stored, size_t len, size_t plain_len, struct bytes *ret_plain);

/* Reads plain text: start with chunk_reader_init, then for each span its records. */
struct chunk_reader {
	const unsigned char *at, *end;
	uint32_t left; /* records of the current span not yet read */
};

int chunk_reader_init(struct chunk_reader *r, const struct bytes *plain); /* 0, -EBADMSG: another version */
int chunk_next_span(struct chunk_reader *r, struct span *ret_span);       /* 1: there is one, 0: the end, -EBADMSG */
int chunk_next_record(struct chunk_reader *r, const void **ret_data, size_t *ret_len); /* 0, -EBADMSG; borrowed */

#endif
