/* SPDX-License-Identifier: Apache-2.0 */
#include "collectors/body.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/inflate.h"
#include "collectors/split.h"

#define RAW_MAX 256 /* \x00 makes four of each at worst, which must fit into an excerpt */

struct body {
	struct sink *sink;
	struct split *split;
	struct inflate *inflate; /* NULL until the encoding is known */
	uint64_t max;            /* bytes, inflated */
	bool hashing;
	struct sha256 hash;
	int code; /* of the failure, or 0 */
	const char *cause;
	struct err err;
	int64_t wrong_offset; /* -1: none */
	uint64_t kept_end;    /* offset behind what is kept */
	size_t kept_len;
	unsigned char kept[SINK_EXCERPT_MAX]; /* the last that came, or what stands around the failure */
	size_t raw_len;
	unsigned char raw[RAW_MAX]; /* the first that came, as they came */
};

/* Failures */

static int fail(struct body *b, int code, const char *cause)
{
	b->code = code;
	b->cause = cause;
	return code;
}

static void keep(struct body *b, const unsigned char *data, size_t len)
{
	size_t skip = len > sizeof b->kept ? len - sizeof b->kept : 0;
	size_t add = len - skip;
	size_t stay = b->kept_len < sizeof b->kept - add ? b->kept_len : sizeof b->kept - add;

	memmove(b->kept, b->kept + b->kept_len - stay, stay);
	memcpy(b->kept + stay, data + skip, add);
	b->kept_len = stay + add;
	b->kept_end += len;
}

/* Bytes come again where they were not taken; then something of them could be read, and these are not asked for. */
static void keep_raw(struct body *b, const void *data, size_t len)
{
	size_t add = len < sizeof b->raw - b->raw_len ? len : sizeof b->raw - b->raw_len;

	memcpy(b->raw + b->raw_len, data, add);
	b->raw_len += add;
}

/* Where nothing of it could be read: how it begins, in ASCII. */
static void show_raw(struct body *b)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < b->raw_len; i++) {
		unsigned char c = b->raw[i];

		if (c >= 0x20 && c < 0x7f && c != '\\') {
			b->kept[b->kept_len++] = c;
			continue;
		}
		b->kept[b->kept_len++] = '\\';
		b->kept[b->kept_len++] = 'x';
		b->kept[b->kept_len++] = (unsigned char)digits[c >> 4];
		b->kept[b->kept_len++] = (unsigned char)digits[c & 15];
	}
	b->kept_end = b->kept_len;
}

/* What is wrong lies in this piece: as much is kept before as behind it, and all of a small body. */
static int fail_in_piece(struct body *b, int code, const unsigned char *data, size_t len)
{
	const uint64_t half = sizeof b->kept / 2;
	uint64_t wrong = split_offset(b->split);
	uint64_t end = (wrong > half ? wrong : half) + half;

	if (!split_cause(b->split))
		return fail(b, code, NULL);
	assert(wrong >= b->kept_end);
	b->wrong_offset = (int64_t)wrong;
	keep(b, data, end - b->kept_end < len ? (size_t)(end - b->kept_end) : len);
	return fail(b, code, split_cause(b->split));
}

/* The way of the bytes */

static int on_record(void *arg, const void *data, size_t len)
{
	struct body *b = arg;

	return sink_record(b->sink, data, len);
}

static int on_piece(void *arg, const void *data, size_t len)
{
	struct body *b = arg;
	int r;

	if (b->hashing)
		sha256_add(&b->hash, data, len);
	r = split_feed(b->split, data, len, &b->err);
	if (r)
		return fail_in_piece(b, r, data, len);
	keep(b, data, len);
	return b->sink->full;
}

/* Also of a body without a byte: where it should be compressed, it is cut short. */
static int know_encoding(struct body *b, const char *encoding)
{
	int r = b->inflate ? 0 : inflate_new(encoding, b->max, on_piece, b, &b->inflate, &b->err);

	return r ? fail(b, r, r == -ENOTSUP ? "encoded" : NULL) : 0;
}

static void fail_to_inflate(struct body *b, int code)
{
	if (code == -EMSGSIZE)
		err_fail(&b->err, code, "%s" BODY_REMEDY, b->err.text);
	fail(b, code, code == -EMSGSIZE || code == -E2BIG ? "too-large" : code == -EBADMSG ? "bad-encoding" : NULL);
}

ssize_t body_feed(struct body *body, const char *encoding, const void *data, size_t len)
{
	ssize_t taken;

	assert(!body->code);
	if (body->sink->full)
		return 0;
	keep_raw(body, data, len);
	if (know_encoding(body, encoding))
		return body->code;
	taken = inflate_feed(body->inflate, data, len, &body->err);
	if (taken < 0 && !body->code)
		fail_to_inflate(body, (int)taken);
	return taken;
}

int body_finish(struct body *body, const char *encoding)
{
	int r;

	if (body->code || know_encoding(body, encoding))
		return body->code;
	r = inflate_finish(body->inflate, &body->err);
	if (r)
		return fail(body, r, "truncated");
	r = split_finish(body->split, &body->err);
	return r ? fail_in_piece(body, r, (const unsigned char *)"", 0) : 0;
}

void body_digest(struct body *body, uint8_t digest[SHA256_SIZE])
{
	assert(body->hashing && !body->code);
	sha256_finish(&body->hash, digest);
	body->hashing = false;
}

uint64_t body_bytes(const struct body *body)
{
	return body->inflate ? inflate_total(body->inflate) : 0;
}

int body_error(const struct body *body)
{
	return body->code;
}

const char *body_cause(const struct body *body)
{
	return body->cause;
}

const char *body_text(const struct body *body)
{
	return body->err.text;
}

struct sink_excerpt body_excerpt(struct body *body)
{
	if (body->kept_end == 0)
		show_raw(body);
	return (struct sink_excerpt){
		.bytes = body_bytes(body),
		.offset = body->wrong_offset,
		.start = body->kept_end - body->kept_len,
		.data = body->kept,
		.len = body->kept_len,
	};
}

static int make_splitter(struct body *b, const struct rest_settings *settings, struct err *err)
{
	size_t max_record = (size_t)settings->max_record;
	int r;

	if (settings->format == REST_JSON)
		return split_new(settings->records, max_record, on_record, b, &b->split, err);
	r = split_new_lines(max_record, on_record, b, &b->split);
	return r ? err_fail(err, r, "no memory for a splitter") : 0;
}

/* Of what makes other records of the same bytes the hash knows too: it comes out new when these settings change. */
static void begin_hash(struct body *b, const struct rest_settings *settings)
{
	const char *format = settings->format == REST_JSON ? "json" : "ndjson";
	const char *records = settings->records ? settings->records : "";

	b->hashing = true;
	sha256_init(&b->hash);
	sha256_add(&b->hash, format, strlen(format) + 1);
	sha256_add(&b->hash, records, strlen(records) + 1);
}

int body_new(const struct rest_settings *settings, struct sink *sink, struct body **ret_body, struct err *err)
{
	struct body *b = calloc(1, sizeof *b);
	int r;

	if (!b)
		return err_fail(err, -ENOMEM, "out of memory");
	b->sink = sink;
	b->max = (uint64_t)settings->max_body;
	b->wrong_offset = -1;
	r = make_splitter(b, settings, err);
	if (r) {
		free(b);
		return r;
	}
	if (settings->dedupe == REST_DEDUPE_BODY)
		begin_hash(b, settings);
	*ret_body = b;
	return 0;
}

void body_free(struct body *body)
{
	if (!body)
		return;
	if (body->hashing)
		sha256_drop(&body->hash);
	inflate_free(body->inflate);
	split_free(body->split);
	free(body);
}
