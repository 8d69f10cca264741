/* SPDX-License-Identifier: Apache-2.0 */
#include "buffer/pack.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LEVEL       6
#define GZIP_WINDOW (15 + 16) /* 16: with gzip's header and trailer, whose name is empty and whose time is 0 */
#define MEMORY      8
#define PIECE       (64 * 1024)

int pack_init(struct pack *p, int (*on_part)(void *arg, const void *data, size_t len), void *arg)
{
	memset(p, 0, sizeof *p);
	p->part = malloc(PACK_PART);
	if (!p->part)
		return -ENOMEM;
	if (deflateInit2(&p->stream, LEVEL, Z_DEFLATED, GZIP_WINDOW, MEMORY, Z_DEFAULT_STRATEGY) != Z_OK) {
		free(p->part);
		p->part = NULL;
		return -ENOMEM;
	}
	p->stream.next_out = p->part;
	p->stream.avail_out = PACK_PART;
	p->on_part = on_part;
	p->arg = arg;
	sha256_init(&p->hash);
	return 0;
}

static int emit(struct pack *p)
{
	size_t len = PACK_PART - p->stream.avail_out;

	if (len == 0)
		return 0;
	sha256_add(&p->hash, p->part, len);
	p->bytes += len;
	p->stream.next_out = p->part;
	p->stream.avail_out = PACK_PART;
	return p->on_part(p->arg, p->part, len);
}

int pack_write(struct pack *p, const void *data, size_t len)
{
	int r;

	/* zlib reads only, but its next_in is not const unless built with ZLIB_CONST. */
	p->stream.next_in = (Bytef *)(uintptr_t)data;
	p->stream.avail_in = (uInt)len;
	while (p->stream.avail_in > 0) {
		deflate(&p->stream, Z_NO_FLUSH);
		if (p->stream.avail_out > 0)
			continue;
		r = emit(p);
		if (r < 0)
			return r;
	}
	return 0;
}

int pack_finish(struct pack *p, uint8_t ret_sha256[SHA256_SIZE])
{
	int z, r;

	p->stream.avail_in = 0;
	do {
		z = deflate(&p->stream, Z_FINISH);
		r = emit(p);
	} while (r == 0 && z != Z_STREAM_END);
	if (r == 0)
		sha256_finish(&p->hash, ret_sha256);
	return r;
}

void pack_done(struct pack *p)
{
	if (!p->part)
		return;
	deflateEnd(&p->stream);
	sha256_drop(&p->hash);
	free(p->part);
	p->part = NULL;
}

int unpack_init(struct unpack *u, int (*on_piece)(void *arg, const void *data, size_t len), void *arg)
{
	memset(u, 0, sizeof *u);
	u->piece = malloc(PIECE);
	if (!u->piece)
		return -ENOMEM;
	if (inflateInit2(&u->stream, GZIP_WINDOW) != Z_OK) {
		free(u->piece);
		u->piece = NULL;
		return -ENOMEM;
	}
	u->on_piece = on_piece;
	u->arg = arg;
	return 0;
}

int unpack_write(struct unpack *u, const void *data, size_t len)
{
	int z, r;

	u->stream.next_in = (Bytef *)(uintptr_t)data;
	u->stream.avail_in = (uInt)len;
	do {
		u->stream.next_out = u->piece;
		u->stream.avail_out = PIECE;
		z = inflate(&u->stream, Z_NO_FLUSH);
		/* Z_BUF_ERROR: all was read and nothing is left to write. Bytes behind the end are not ours. */
		if (z != Z_OK && z != Z_STREAM_END && z != Z_BUF_ERROR)
			return z == Z_MEM_ERROR ? -ENOMEM : -EBADMSG;
		if (z == Z_STREAM_END && u->stream.avail_in > 0)
			return -EBADMSG;
		u->ended = z == Z_STREAM_END;
		r = u->stream.avail_out < PIECE ? u->on_piece(u->arg, u->piece, PIECE - u->stream.avail_out) : 0;
		if (r < 0)
			return r;
	} while (z == Z_OK && (u->stream.avail_in > 0 || u->stream.avail_out == 0));
	return 0;
}

void unpack_done(struct unpack *u)
{
	if (!u->piece)
		return;
	inflateEnd(&u->stream);
	free(u->piece);
	u->piece = NULL;
}
