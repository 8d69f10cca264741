/* SPDX-License-Identifier: Apache-2.0 */
#include "base/inflate.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <zlib.h>

#define PIECE_MAX 16384

enum coding { CODING_NONE, CODING_GZIP, CODING_DEFLATE };

static const struct {
	const char *word;
	enum coding coding;
} codings[] = {
	{ "", CODING_NONE },       { "identity", CODING_NONE },   { "gzip", CODING_GZIP },
	{ "x-gzip", CODING_GZIP }, { "deflate", CODING_DEFLATE },
};

struct inflate {
	enum coding coding;
	bool open;  /* zlib is at work: a first byte came */
	bool whole; /* what came ends with a whole stream, or gzip member */
	bool again; /* a member ended before this one */
	uint64_t max;
	uint64_t taken, given; /* bytes in and out */
	inflate_on_piece on_piece;
	void *arg;
	z_stream zlib;
	unsigned char piece[]; /* PIECE_MAX bytes, where there is a coding */
};

int inflate_new(const char *encoding, uint64_t max, inflate_on_piece on_piece, void *arg, struct inflate **ret_inflate,
                struct err *err)
{
	const size_t n = sizeof codings / sizeof *codings;
	struct inflate *inflate;
	size_t i = 0;

	while (i < n && strcasecmp(codings[i].word, encoding) != 0)
		i++;
	if (i == n)
		return err_fail(err, -ENOTSUP,
		                "Content-Encoding \"%.60s\" is none that Millrace can read (gzip, deflate, identity)",
		                encoding);
	inflate = calloc(1, sizeof *inflate + (codings[i].coding == CODING_NONE ? 0 : PIECE_MAX));
	if (!inflate)
		return err_fail(err, -ENOMEM, "out of memory");
	inflate->coding = codings[i].coding;
	inflate->max = max;
	inflate->on_piece = on_piece;
	inflate->arg = arg;
	*ret_inflate = inflate;
	return 0;
}

void inflate_free(struct inflate *inflate)
{
	if (!inflate)
		return;
	if (inflate->open)
		inflateEnd(&inflate->zlib);
	free(inflate);
}

/* Hands out len more bytes; what on_piece returned. */
static int give(struct inflate *f, const void *data, size_t len, struct err *err)
{
	if (len > f->max - f->given)
		return err_fail(err, -EMSGSIZE, "the answer%s has more than %llu bytes, which are not taken",
		                f->coding == CODING_NONE ? "" : ", inflated,", (unsigned long long)f->max);
	f->given += len;
	if (f->coding != CODING_NONE && f->given > INFLATE_RATIO_FROM && f->given / INFLATE_RATIO_MAX > f->taken)
		return err_fail(err, -E2BIG,
		                "the answer inflates from %llu to %llu bytes; more than %d times its size is not taken",
		                (unsigned long long)f->taken, (unsigned long long)f->given, INFLATE_RATIO_MAX);
	return f->on_piece(f->arg, data, len);
}

static ssize_t feed_plain(struct inflate *f, const unsigned char *data, size_t len, struct err *err)
{
	size_t done = 0;
	int r = 0;

	while (r == 0 && done < len) {
		size_t step = len - done < PIECE_MAX ? len - done : PIECE_MAX;

		f->taken += step;
		r = give(f, data + done, step, err);
		done += step;
	}
	return r < 0 ? r : (ssize_t)done;
}

/*
 * What "deflate" begins with tells zlib's header, as RFC 9110 wants it, from a bare stream, as some servers send it:
 * the header's first byte is 0x08 to 0x78 in steps of 16, and no encoder begins a bare stream with such a one.
 */
static int open_zlib(struct inflate *f, unsigned char first, struct err *err)
{
	int bits = f->coding == CODING_GZIP ? 16 + MAX_WBITS : (first & 0x8f) == 0x08 ? MAX_WBITS : -MAX_WBITS;

	if (inflateInit2(&f->zlib, bits) != Z_OK)
		return err_fail(err, -ENOMEM, "out of memory");
	f->open = true;
	return 0;
}

/* Before more bytes come behind a whole stream: only gzip may have another member there. */
static int open_again(struct inflate *f, struct err *err)
{
	if (f->coding != CODING_GZIP)
		return err_fail(err, -EBADMSG, "bytes after the end of the deflate stream, at offset %llu",
		                (unsigned long long)f->taken);
	inflateReset(&f->zlib);
	f->whole = false;
	f->again = true;
	return 0;
}

static int fail_data(const struct inflate *f, struct err *err)
{
	const char *name = f->coding == CODING_GZIP ? "gzip" : "deflate";

	/* zlib takes the bytes that tell it so */
	if (f->again && f->zlib.total_in <= 2)
		return err_fail(err, -EBADMSG, "bytes after the end of the gzip stream, at offset %llu",
		                (unsigned long long)(f->taken - f->zlib.total_in));
	return err_fail(err, -EBADMSG, "the %s stream is broken at offset %llu: %s", name, (unsigned long long)f->taken,
	                f->zlib.msg ? f->zlib.msg : "it wants a dictionary");
}

/* One piece; 0, 1: a pause was asked for, or -errno. *ret_dry: zlib has nothing more to give without more bytes. */
static int step(struct inflate *f, bool *ret_dry, struct err *err)
{
	size_t before = f->zlib.avail_in;
	size_t len;
	int r = 0, z;

	f->zlib.next_out = f->piece;
	f->zlib.avail_out = PIECE_MAX;
	z = inflate(&f->zlib, Z_NO_FLUSH);
	f->taken += before - f->zlib.avail_in;
	f->whole = z == Z_STREAM_END;
	len = PIECE_MAX - f->zlib.avail_out;
	*ret_dry = f->whole || f->zlib.avail_out > 0;
	if (len > 0) /* also what came out before something wrong: for a look at it */
		r = give(f, f->piece, len, err);
	if (r < 0 || z == Z_OK || z == Z_STREAM_END || z == Z_BUF_ERROR)
		return r;
	return z == Z_MEM_ERROR ? err_fail(err, -ENOMEM, "out of memory") : fail_data(f, err);
}

static ssize_t feed_coded(struct inflate *f, const unsigned char *data, size_t len, struct err *err)
{
	bool pause = false, dry = false;
	int r = f->open ? 0 : open_zlib(f, *data, err);

	f->zlib.next_in = (unsigned char *)data;
	f->zlib.avail_in = (unsigned)len;
	/* once all is taken, what zlib holds must come out in spite of a pause: nothing would be given again for it */
	while (r == 0 && (f->zlib.avail_in > 0 ? !pause : !dry)) {
		if (f->whole)
			r = open_again(f, err);
		if (r == 0)
			r = step(f, &dry, err);
		pause = pause || r == 1;
		r = r == 1 ? 0 : r;
	}
	return r < 0 ? r : (ssize_t)(len - f->zlib.avail_in);
}

ssize_t inflate_feed(struct inflate *inflate, const void *data, size_t len, struct err *err)
{
	assert(len <= INT_MAX);
	if (len == 0)
		return 0;
	return inflate->coding == CODING_NONE ? feed_plain(inflate, data, len, err)
	                                      : feed_coded(inflate, data, len, err);
}

int inflate_finish(struct inflate *inflate, struct err *err)
{
	if (inflate->coding == CODING_NONE || inflate->whole)
		return 0;
	return err_fail(err, -EBADMSG, "the %s stream ends after %llu bytes, before its end",
	                inflate->coding == CODING_GZIP ? "gzip" : "deflate", (unsigned long long)inflate->taken);
}

uint64_t inflate_total(const struct inflate *inflate)
{
	return inflate->given;
}
