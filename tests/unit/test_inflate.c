/* SPDX-License-Identifier: Apache-2.0 */
/* Each stream is fed whole and in pieces of 1, 2, 3 and 1,000 bytes; the results must be equal, also those of failure.
 */
#include "base/inflate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <zlib.h>

#include "base/bytes.h"

#define MIB       (1024 * 1024)
#define PIECE_MAX 16384
#define GZIP      (16 + MAX_WBITS)
#define ZLIB      MAX_WBITS
#define BARE      (-MAX_WBITS)

struct outcome {
	struct bytes out;
	int pause_at; /* the piece that asks for a pause, counted from 1; 0: none */
	int pause_for;
	int fail_at;
	int pieces;
	int rc;
	struct err err;
};

static int on_piece(void *arg, const void *data, size_t len)
{
	struct outcome *o = arg;

	assert_true(len > 0 && len <= PIECE_MAX);
	assert_int_equal(bytes_add(&o->out, data, len), 0);
	o->pieces++;
	if (o->pieces == o->fail_at)
		return -ENOSPC;
	return o->pause_at && o->pieces >= o->pause_at && o->pieces < o->pause_at + o->pause_for;
}

static void compress_into(struct bytes *to, int bits, int level, const void *data, size_t len)
{
	z_stream z = { 0 };

	assert_int_equal(deflateInit2(&z, level, Z_DEFLATED, bits, 8, Z_DEFAULT_STRATEGY), Z_OK);
	size_t most = deflateBound(&z, len);
	assert_int_equal(bytes_reserve(to, most), 0);
	z.next_in = (unsigned char *)data;
	z.avail_in = (unsigned)len;
	z.next_out = to->data + to->len;
	z.avail_out = (unsigned)most;
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	to->len += most - z.avail_out;
	deflateEnd(&z);
}

/* Text that compresses about as well as a feed. */
static unsigned char *make_text(size_t len)
{
	unsigned char *text = malloc(len);
	uint32_t x = 1;

	assert_non_null(text);
	for (size_t i = 0; i < len; i++) {
		if (i % 64 < 8)
			x = x * 1664525 + 1013904223;
		text[i] = i % 64 < 8 ? (unsigned char)('0' + (x >> 24) % 10) : (unsigned char)('a' + i % 64 % 26);
	}
	return text;
}

static struct outcome run(const char *encoding, uint64_t max, const void *data, size_t len, size_t piece)
{
	struct outcome o = { .rc = 0 };
	struct inflate *inflate;

	bytes_init(&o.out, 64 * MIB);
	assert_int_equal(inflate_new(encoding, max, on_piece, &o, &inflate, &o.err), 0);
	for (size_t i = 0; i < len && o.rc == 0; i += piece) {
		size_t step = len - i < piece ? len - i : piece;
		ssize_t taken = inflate_feed(inflate, (const char *)data + i, step, &o.err);

		if (taken < 0)
			o.rc = (int)taken;
		else
			assert_int_equal(taken, step);
	}
	if (o.rc == 0)
		o.rc = inflate_finish(inflate, &o.err);
	if (o.rc == 0)
		assert_int_equal(inflate_total(inflate), o.out.len);
	inflate_free(inflate);
	return o;
}

static const size_t cuts[] = { SIZE_MAX, 1, 2, 3, 1000 };

static void accept(const char *encoding, const struct bytes *coded, const void *text, size_t len)
{
	for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
		struct outcome o =
		        run(encoding, len, coded->data, coded->len, cuts[i] < coded->len ? cuts[i] : coded->len);

		if (o.rc)
			fail_msg("%s: %s", encoding, o.err.text);
		assert_int_equal(o.out.len, len);
		if (len > 0)
			assert_memory_equal(o.out.data, text, len);
		bytes_done(&o.out);
	}
}

static void refuse(const char *encoding, uint64_t max, const void *data, size_t len, int rc, const char *says)
{
	for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
		struct outcome o = run(encoding, max, data, len, cuts[i] < len ? cuts[i] : len ? len : 1);

		assert_int_equal(o.rc, rc);
		if (!strstr(o.err.text, says))
			fail_msg("\"%s\" does not say \"%s\"", o.err.text, says);
		bytes_done(&o.out);
	}
}

static void test_each_encoding(void **state)
{
	static const struct {
		const char *encoding;
		int bits; /* 0: none */
	} codings[] = {
		{ "gzip", GZIP },    { "GZip", GZIP }, { "x-gzip", GZIP }, { "deflate", ZLIB },
		{ "DEFLATE", BARE }, { "", 0 },        { "Identity", 0 },
	};
	static const size_t lengths[] = { 0, 1, 100, PIECE_MAX, PIECE_MAX + 1, 100000 };
	unsigned char *text = make_text(100000);

	(void)state;
	for (size_t i = 0; i < sizeof codings / sizeof *codings; i++) {
		for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++) {
			struct bytes coded;

			if (codings[i].bits == 0 && lengths[k] == 0)
				continue;
			bytes_init(&coded, 64 * MIB);
			if (codings[i].bits)
				compress_into(&coded, codings[i].bits, 6, text, lengths[k]);
			else
				bytes_add(&coded, text, lengths[k]);
			accept(codings[i].encoding, &coded, text, lengths[k]);
			bytes_done(&coded);
		}
	}
	free(text);
}

/* Stored blocks, whose first byte is another one. */
static void test_deflate_of_every_level_and_window(void **state)
{
	unsigned char *text = make_text(5000);

	(void)state;
	for (int level = 0; level <= 9; level++) {
		for (int bits = 9; bits <= 15; bits++) {
			struct bytes coded;

			bytes_init(&coded, 64 * MIB);
			compress_into(&coded, bits, level, text, 5000);
			accept("deflate", &coded, text, 5000);
			bytes_clear(&coded);
			compress_into(&coded, -bits, level, text, 5000);
			accept("deflate", &coded, text, 5000);
			bytes_done(&coded);
		}
	}
	free(text);
}

static void test_members(void **state)
{
	unsigned char *text = make_text(50000);
	struct bytes coded;

	(void)state;
	bytes_init(&coded, 64 * MIB);
	compress_into(&coded, GZIP, 6, text, 20000);
	compress_into(&coded, GZIP, 6, text + 20000, 0);
	compress_into(&coded, GZIP, 1, text + 20000, 30000);
	accept("gzip", &coded, text, 50000);
	refuse("gzip", 50000, coded.data, coded.len - 1, -EBADMSG, "before its end");
	bytes_done(&coded);
	free(text);
}

static void test_other_encodings(void **state)
{
	static const char *const others[] = { "br", "zstd", "compress", "gzip, gzip", "gzip,", " ", "gzip\n" };

	(void)state;
	for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
		struct inflate *inflate = NULL;
		struct err err;

		assert_int_equal(inflate_new(others[i], 1, on_piece, NULL, &inflate, &err), -ENOTSUP);
		assert_null(inflate);
		assert_non_null(strstr(err.text, others[i]));
		assert_non_null(strstr(err.text, "(gzip, deflate, identity)"));
	}
	inflate_free(NULL);
}

static void test_every_truncation(void **state)
{
	static const struct {
		const char *encoding, *says;
		int bits;
	} codings[] = { { "gzip", "the gzip stream ends after ", GZIP },
		        { "deflate", "the deflate stream ends after ", ZLIB },
		        { "deflate", "the deflate stream ends after ", BARE } };
	unsigned char *text = make_text(300);

	(void)state;
	for (size_t i = 0; i < sizeof codings / sizeof *codings; i++) {
		struct bytes coded;

		bytes_init(&coded, 64 * MIB);
		compress_into(&coded, codings[i].bits, 6, text, 300);
		for (size_t len = 0; len < coded.len; len++)
			refuse(codings[i].encoding, 300, coded.data, len, -EBADMSG, codings[i].says);
		bytes_done(&coded);
	}
	free(text);
}

static void test_flipped_bits_change_nothing_unseen(void **state)
{
	unsigned char *text = make_text(200);
	struct bytes coded;
	unsigned told = 0;

	(void)state;
	bytes_init(&coded, MIB);
	compress_into(&coded, GZIP, 6, text, 200);
	for (size_t bit = 0; bit < coded.len * 8; bit++) {
		coded.data[bit / 8] ^= (unsigned char)(1 << bit % 8);
		struct outcome o = run("gzip", 1000, coded.data, coded.len, coded.len);
		assert_true(o.rc == -EBADMSG || o.rc == -EMSGSIZE ||
		            (o.out.len == 200 && memcmp(o.out.data, text, 200) == 0)); /* as in the header's time */
		told += o.rc != 0;
		bytes_done(&o.out);
		coded.data[bit / 8] ^= (unsigned char)(1 << bit % 8);
	}
	assert_true(told >= (coded.len - 10) * 8);
	bytes_done(&coded);
	free(text);
}

static void test_garbage(void **state)
{
	struct bytes coded;

	(void)state;
	refuse("gzip", 100, "[1,2,3]", 7, -EBADMSG, "the gzip stream is broken at offset 2: incorrect header check");
	refuse("deflate", 100, "[1,2,3]", 7, -EBADMSG, "the deflate stream is broken at offset ");
	refuse("deflate", 100, "\x78\x9d", 2, -EBADMSG, "the deflate stream is broken at offset 2: ");
	bytes_init(&coded, 64 * MIB);
	compress_into(&coded, GZIP, 6, "[1]", 3);
	size_t len = coded.len;
	bytes_add(&coded, "\0\0\0", 3);
	refuse("gzip", 100, coded.data, coded.len, -EBADMSG, "bytes after the end of the gzip stream, at offset 23");
	assert_int_equal(len, 23);
	bytes_clear(&coded);
	compress_into(&coded, ZLIB, 6, "[1]", 3);
	len = coded.len;
	bytes_add(&coded, "\0", 1);
	refuse("deflate", 100, coded.data, coded.len, -EBADMSG,
	       "bytes after the end of the deflate stream, at offset 11");
	assert_int_equal(len, 11);
	bytes_done(&coded);
}

/* What came out before the place where it is broken is given. */
static void test_what_is_good_of_a_broken_stream(void **state)
{
	unsigned char *text = make_text(300);
	struct bytes coded;

	(void)state;
	bytes_init(&coded, 64 * MIB);
	compress_into(&coded, GZIP, 6, text, 300);
	coded.data[coded.len - 8] ^= 1; /* of the checksum */
	struct outcome o = run("gzip", 300, coded.data, coded.len, coded.len);
	assert_int_equal(o.rc, -EBADMSG);
	assert_non_null(strstr(o.err.text, "incorrect data check"));
	assert_int_equal(o.out.len, 300);
	assert_memory_equal(o.out.data, text, 300);
	bytes_done(&o.out);
	bytes_done(&coded);
	free(text);
}

static void test_max(void **state)
{
	unsigned char *text = make_text(40000);
	struct bytes coded;

	(void)state;
	bytes_init(&coded, 64 * MIB);
	compress_into(&coded, GZIP, 6, text, 40000);
	refuse("gzip", 39999, coded.data, coded.len, -EMSGSIZE, "the answer, inflated, has more than 39999 bytes");
	refuse("gzip", 0, coded.data, coded.len, -EMSGSIZE, "more than 0 bytes");
	refuse("", 39999, text, 40000, -EMSGSIZE, "the answer has more than 39999 bytes");
	bytes_done(&coded);
	free(text);
}

/* Zeros compress 1,000:1. */
static void test_ratio(void **state)
{
	unsigned char *zeros = calloc(8, MIB);
	struct bytes coded;

	(void)state;
	assert_non_null(zeros);
	bytes_init(&coded, 64 * MIB);
	compress_into(&coded, GZIP, 9, zeros, INFLATE_RATIO_FROM);
	accept("gzip", &coded, zeros, INFLATE_RATIO_FROM);
	bytes_clear(&coded);
	compress_into(&coded, GZIP, 9, zeros, 8 * MIB);
	struct outcome o = run("gzip", 64 * MIB, coded.data, coded.len, 16384);
	assert_int_equal(o.rc, -E2BIG);
	assert_non_null(strstr(o.err.text, "more than 200 times its size"));
	assert_true(o.out.len <= 16384 * INFLATE_RATIO_MAX + PIECE_MAX);
	bytes_done(&o.out);
	bytes_clear(&coded);

	/* bare zeros are no bomb */
	o = run("", 64 * MIB, zeros, 8 * MIB, 16384);
	assert_int_equal(o.rc, 0);
	bytes_done(&o.out);
	free(zeros);
	bytes_done(&coded);
}

/* Feeds all, given again after each pause; the bytes taken at the first one. */
static size_t feed_with_pause(struct outcome *o, const char *encoding, const void *data, size_t len, size_t piece)
{
	struct inflate *inflate;
	size_t paused_at = 0;

	bytes_init(&o->out, 64 * MIB);
	assert_int_equal(inflate_new(encoding, 64 * MIB, on_piece, o, &inflate, NULL), 0);
	for (size_t i = 0; i < len;) {
		size_t step = len - i < piece ? len - i : piece;
		int before = o->pieces;
		ssize_t taken = inflate_feed(inflate, (const char *)data + i, step, NULL);

		assert_true(taken >= 0 && (size_t)taken <= step);
		if ((size_t)taken < step)
			assert_true(o->pieces > before && o->pieces >= o->pause_at &&
			            o->pieces < o->pause_at + o->pause_for);
		i += (size_t)taken;
		if (!paused_at && o->pause_at && o->pieces >= o->pause_at)
			paused_at = i;
	}
	assert_int_equal(inflate_finish(inflate, NULL), 0);
	inflate_free(inflate);
	return paused_at;
}

static void test_pause(void **state)
{
	static const size_t sizes[] = { 1, 100, 1000, SIZE_MAX };
	unsigned char *text = make_text(300000);
	struct bytes coded;

	(void)state;
	bytes_init(&coded, 64 * MIB);
	compress_into(&coded, GZIP, 6, text, 300000);
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		for (int at = 1; at < 20; at++) {
			struct outcome o = { .pause_at = at, .pause_for = at % 3 + 1 };

			feed_with_pause(&o, "gzip", coded.data, coded.len, sizes[i]);
			assert_int_equal(o.out.len, 300000);
			assert_memory_equal(o.out.data, text, 300000);
			bytes_done(&o.out);
		}
	}
	struct outcome o = { .pause_at = 2, .pause_for = 1 };
	size_t at = feed_with_pause(&o, "gzip", coded.data, coded.len, coded.len);
	assert_true(at > 0 && at < coded.len / 2);
	bytes_done(&o.out);
	o = (struct outcome){ .pause_at = 2, .pause_for = 1 };
	assert_int_equal(feed_with_pause(&o, "", text, 300000, 300000), 2 * PIECE_MAX);
	assert_memory_equal(o.out.data, text, 300000);
	bytes_done(&o.out);
	bytes_done(&coded);
	free(text);
}

/*
 * Of zeros a bit or two are 258 bytes: zlib has taken all of a stream and still holds some of its end. That must come
 * out in spite of a pause, for nothing follows.
 */
static void test_pause_when_all_is_taken(void **state)
{
	unsigned char *zeros = calloc(2, PIECE_MAX);
	struct bytes coded;

	(void)state;
	assert_non_null(zeros);
	bytes_init(&coded, MIB);
	for (size_t len = PIECE_MAX; len < 2 * PIECE_MAX; len += 43) {
		bytes_clear(&coded);
		compress_into(&coded, BARE, 9, zeros, len);
		for (size_t piece = 1; piece <= 64; piece *= 2) {
			struct outcome o = { .pause_at = 1, .pause_for = 1000 };

			feed_with_pause(&o, "deflate", coded.data, coded.len, piece);
			assert_int_equal(o.out.len, len);
			bytes_done(&o.out);
		}
	}
	bytes_done(&coded);
	free(zeros);
}

static void test_on_piece_fails(void **state)
{
	unsigned char *text = make_text(100000);
	struct bytes coded;

	(void)state;
	bytes_init(&coded, 64 * MIB);
	compress_into(&coded, GZIP, 6, text, 100000);
	for (int i = 0; i < 2; i++) {
		struct outcome o = { .fail_at = 2, .err.text = "its own" };
		struct inflate *inflate;

		bytes_init(&o.out, MIB);
		assert_int_equal(inflate_new(i ? "gzip" : "", MIB, on_piece, &o, &inflate, NULL), 0);
		assert_int_equal(inflate_feed(inflate, i ? coded.data : text, i ? coded.len : 100000, &o.err), -ENOSPC);
		assert_int_equal(o.pieces, 2);
		assert_string_equal(o.err.text, "its own");
		inflate_free(inflate);
		bytes_done(&o.out);
	}
	bytes_done(&coded);
	free(text);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_encoding),
		cmocka_unit_test(test_deflate_of_every_level_and_window),
		cmocka_unit_test(test_members),
		cmocka_unit_test(test_other_encodings),
		cmocka_unit_test(test_every_truncation),
		cmocka_unit_test(test_flipped_bits_change_nothing_unseen),
		cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_what_is_good_of_a_broken_stream),
		cmocka_unit_test(test_max),
		cmocka_unit_test(test_ratio),
		cmocka_unit_test(test_pause),
		cmocka_unit_test(test_pause_when_all_is_taken),
		cmocka_unit_test(test_on_piece_fails),
	};

	return cmocka_run_group_tests_name("inflate", tests, NULL, NULL);
}
