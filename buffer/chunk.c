/* SPDX-License-Identifier: Apache-2.0 */
#include "buffer/chunk.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#define VERSION       1
#define SPAN_SIZE     (8 + 8 + 8 + 1 + 1 + 4)
#define DEFLATE_LEVEL 1
/* A window of 8 KB and a small hash: 96 KB of memory where zlib's defaults take 256, for a little less compression. */
#define DEFLATE_WINDOW (-13)
#define DEFLATE_MEMORY 7
#define INFLATE_WINDOW (-15)
#define OUTPUT         (16 * 1024) /* bytes that a step of deflating has room for */

const char *const chunk_clock_names[] = {
	[CHUNK_SYNCED] = "synced",
	[CHUNK_CORRECTED] = "corrected",
	[CHUNK_UNSYNCED] = "unsynced",
};

static void put_u32(unsigned char *to, uint32_t value)
{
	value = htole32(value);
	memcpy(to, &value, sizeof value);
}

static void put_u64(unsigned char *to, uint64_t value)
{
	value = htole64(value);
	memcpy(to, &value, sizeof value);
}

static uint32_t get_u32(const unsigned char *from)
{
	uint32_t value;

	memcpy(&value, from, sizeof value);
	return le32toh(value);
}

static uint64_t get_u64(const unsigned char *from)
{
	uint64_t value;

	memcpy(&value, from, sizeof value);
	return le64toh(value);
}

int chunk_add_record(struct bytes *records, const void *data, size_t len)
{
	int r;

	if (len > UINT32_MAX - 4)
		return -ENOBUFS;
	r = bytes_reserve(records, 4 + len);
	if (r < 0)
		return r;
	put_u32(records->data + records->len, (uint32_t)len);
	if (len > 0)
		memcpy(records->data + records->len + 4, data, len);
	records->len += 4 + len;
	return 0;
}

/* --- Writing --- */

void chunk_writer_init(struct chunk_writer *w)
{
	memset(w, 0, sizeof *w);
	bytes_init(&w->stored, CHUNK_PLAIN_MAX + CHUNK_PLAIN_MAX / 8); /* noise grows a little when deflated */
}

/* Deflates what it is given, and with Z_FINISH what zlib still holds. */
static int deflate_bytes(struct chunk_writer *w, const void *data, size_t len, int flush)
{
	z_stream *z = &w->z;

	/* zlib reads only, but its next_in is not const unless built with ZLIB_CONST. */
	z->next_in = (Bytef *)(uintptr_t)data;
	z->avail_in = (uInt)len;
	do {
		int r = bytes_reserve(&w->stored, OUTPUT);

		if (r < 0)
			return r;
		z->next_out = w->stored.data + w->stored.len;
		z->avail_out = OUTPUT;
		deflate(z, flush);
		w->stored.len += OUTPUT - z->avail_out;
	} while (z->avail_out == 0);
	w->plain += len;
	return 0;
}

int chunk_writer_begin(struct chunk_writer *w)
{
	const unsigned char version = VERSION;

	bytes_clear(&w->stored);
	w->plain = 0;
	if (w->begun)
		deflateReset(&w->z);
	else if (deflateInit2(&w->z, DEFLATE_LEVEL, Z_DEFLATED, DEFLATE_WINDOW, DEFLATE_MEMORY, Z_DEFAULT_STRATEGY) !=
	         Z_OK)
		return -ENOMEM;
	w->begun = true;
	return deflate_bytes(w, &version, 1, Z_NO_FLUSH);
}

int chunk_writer_add(struct chunk_writer *w, const struct span *span, const struct bytes *records)
{
	unsigned char head[SPAN_SIZE];
	size_t len = records ? records->len : 0;
	int r;

	if (len > CHUNK_PLAIN_MAX || w->plain + SPAN_SIZE + len > CHUNK_PLAIN_MAX)
		return -ENOBUFS;
	put_u64(head, span->fetch);
	put_u64(head + 8, (uint64_t)span->wall_ms);
	put_u64(head + 16, (uint64_t)span->mono_ms);
	head[24] = span->clock;
	head[25] = span->last;
	put_u32(head + 26, span->records);
	r = deflate_bytes(w, head, sizeof head, Z_NO_FLUSH);
	return r == 0 && len > 0 ? deflate_bytes(w, records->data, len, Z_NO_FLUSH) : r;
}

int chunk_writer_finish(struct chunk_writer *w)
{
	return deflate_bytes(w, NULL, 0, Z_FINISH);
}

void chunk_writer_done(struct chunk_writer *w)
{
	if (w->begun)
		deflateEnd(&w->z);
	w->begun = false;
	bytes_done(&w->stored);
}

/* --- Reading --- */

int chunk_inflate(const void *stored, size_t len, size_t plain_len, struct bytes *ret_plain)
{
	/* zlib reads only, but its next_in is not const unless built with ZLIB_CONST. */
	z_stream z = { .next_in = (Bytef *)(uintptr_t)stored, .avail_in = (uInt)len };
	int r;

	if (len > UINT32_MAX || plain_len == 0 || plain_len > CHUNK_PLAIN_MAX)
		return -EBADMSG;
	bytes_clear(ret_plain);
	r = bytes_reserve(ret_plain, plain_len);
	if (r < 0)
		return r;
	if (inflateInit2(&z, INFLATE_WINDOW) != Z_OK)
		return -ENOMEM;
	z.next_out = ret_plain->data;
	z.avail_out = (uInt)plain_len;
	r = inflate(&z, Z_FINISH);
	if (r == Z_STREAM_END && z.total_out == plain_len && z.avail_in == 0) {
		ret_plain->len = plain_len;
		r = 0;
	} else {
		r = r == Z_MEM_ERROR ? -ENOMEM : -EBADMSG;
	}
	inflateEnd(&z);
	return r;
}

int chunk_reader_init(struct chunk_reader *r, const struct bytes *plain)
{
	if (plain->len < 1 || plain->data[0] != VERSION)
		return -EBADMSG;
	*r = (struct chunk_reader){ .at = plain->data + 1, .end = plain->data + plain->len };
	return 0;
}

static int skip_records(struct chunk_reader *r)
{
	const void *data;
	size_t len;
	int status = 0;

	while (r->left > 0 && status == 0)
		status = chunk_next_record(r, &data, &len);
	return status;
}

int chunk_next_span(struct chunk_reader *r, struct span *ret_span)
{
	int status = skip_records(r);

	if (status < 0)
		return status;
	if (r->at == r->end)
		return 0;
	if (r->end - r->at < SPAN_SIZE || r->at[24] > CHUNK_UNSYNCED || r->at[25] > 1)
		return -EBADMSG;
	*ret_span = (struct span){
		.fetch = get_u64(r->at),
		.wall_ms = (int64_t)get_u64(r->at + 8),
		.mono_ms = (int64_t)get_u64(r->at + 16),
		.clock = r->at[24],
		.last = r->at[25],
		.records = get_u32(r->at + 26),
	};
	r->at += SPAN_SIZE;
	r->left = ret_span->records;
	return 1;
}

int chunk_next_record(struct chunk_reader *r, const void **ret_data, size_t *ret_len)
{
	size_t rest = (size_t)(r->end - r->at);
	uint32_t len;

	if (r->left == 0 || rest < 4)
		return -EBADMSG;
	len = get_u32(r->at);
	if (len > rest - 4)
		return -EBADMSG;
	*ret_data = r->at + 4;
	*ret_len = len;
	r->at += 4 + len;
	r->left--;
	return 0;
}
