/* SPDX-License-Identifier: Apache-2.0 */
#include "collectors/body.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <zlib.h>

#include "base/bytes.h"
#include "base/container.h"

#define MIB           (1024 * 1024)
#define TEXT(literal) literal, sizeof(literal) - 1

/* A sink that keeps records, a line each, and is full from a number of bytes on. */
struct fake {
	struct sink sink;
	struct bytes records;
	size_t full_at; /* 0: never */
	int error;
};

static struct fake fake;
static struct rest_settings settings;
static struct body *body;

static int on_record(struct sink *sink, const void *data, size_t len)
{
	struct fake *f = container_of(sink, struct fake, sink);

	if (f->error)
		return f->error;
	assert_int_equal(bytes_add(&f->records, data, len), 0);
	assert_int_equal(bytes_add(&f->records, "\n", 1), 0);
	if (f->full_at && f->records.len >= f->full_at)
		sink->full = true;
	return 0;
}

static const struct sink_ops fake_ops = { .record = on_record };

static int setup(void **state)
{
	(void)state;
	fake = (struct fake){ .sink.ops = &fake_ops };
	bytes_init(&fake.records, 64 * MIB);
	settings = (struct rest_settings){
		.format = REST_NDJSON, .dedupe = REST_DEDUPE_BODY, .max_body = 16 * MIB, .max_record = MIB
	};
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	body_free(body);
	body = NULL;
	bytes_done(&fake.records);
	return 0;
}

static void begin(void)
{
	body_free(body);
	bytes_clear(&fake.records);
	assert_int_equal(body_new(&settings, &fake.sink, &body, NULL), 0);
}

/* 0 or what went wrong; the sink must not be full on the way. */
static int feed(const char *encoding, const void *data, size_t len, size_t piece)
{
	for (size_t i = 0; i < len; i += piece) {
		size_t step = len - i < piece ? len - i : piece;
		ssize_t taken = body_feed(body, encoding, (const char *)data + i, step);

		if (taken < 0) {
			assert_int_equal(body_error(body), taken);
			return (int)taken;
		}
		assert_int_equal(taken, step);
	}
	return 0;
}

static int run(const char *encoding, const void *data, size_t len)
{
	begin();
	int r = feed(encoding, data, len, len ? len : 1);
	return r ? r : body_finish(body, encoding);
}

static void gzip(struct bytes *to, const void *data, size_t len)
{
	z_stream z = { 0 };

	bytes_init(to, 64 * MIB);
	assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
	size_t most = deflateBound(&z, len);
	assert_int_equal(bytes_reserve(to, most), 0);
	z.next_in = (unsigned char *)data;
	z.avail_in = (unsigned)len;
	z.next_out = to->data;
	z.avail_out = (unsigned)most;
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	to->len = most - z.avail_out;
	deflateEnd(&z);
}

/* Lines of JSON that compress like a feed. */
static void make_lines(struct bytes *lines, unsigned n)
{
	bytes_init(lines, 64 * MIB);
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(
		        bytes_printf(lines, "{\"line\":%u,\"hash\":%u,\"place\":\"Jernbanen\"}\n", i, i * 2654435761U),
		        0);
}

static void assert_records(const struct bytes *expected)
{
	assert_int_equal(fake.records.len, expected->len);
	assert_memory_equal(fake.records.data, expected->data, expected->len);
}

static void assert_excerpt(uint64_t bytes, int64_t offset, uint64_t start, const void *data, size_t len)
{
	struct sink_excerpt e = body_excerpt(body);

	assert_int_equal(e.bytes, bytes);
	assert_int_equal(e.offset, offset);
	assert_int_equal(e.start, start);
	assert_int_equal(e.len, len);
	assert_non_null(e.data);
	assert_memory_equal(e.data, data, len);
}

static void test_formats(void **state)
{
	(void)state;
	assert_int_equal(run("", TEXT("[1,\n{}]")), -EBADMSG);
	assert_string_equal(body_cause(body), "not-json");
	assert_int_equal(run("", TEXT("1\n{}")), 0);
	assert_memory_equal(fake.records.data, "1\n{}\n", 5);
	settings.format = REST_JSON;
	assert_int_equal(run("", TEXT("[1,\n{}]")), 0);
	assert_memory_equal(fake.records.data, "[1, {}]\n", 8);
	settings.records = "$";
	assert_int_equal(run("", TEXT("[1,\n{}]")), 0);
	assert_memory_equal(fake.records.data, "1\n{}\n", 5);
	settings.max_record = 3;
	assert_int_equal(run("", TEXT("[1234]")), -EMSGSIZE);
	assert_string_equal(body_cause(body), "record-too-large");
	assert_non_null(strstr(body_text(body), "raise max_record"));
}

static void test_empty_bodies(void **state)
{
	(void)state;
	assert_int_equal(run("", NULL, 0), 0);
	assert_int_equal(run("gzip", NULL, 0), -EBADMSG);
	assert_string_equal(body_cause(body), "truncated");
	settings.format = REST_JSON;
	assert_int_equal(run("", NULL, 0), -EBADMSG);
	assert_string_equal(body_cause(body), "empty");
	assert_excerpt(0, 0, 0, "", 0);
}

static void test_compressed(void **state)
{
	struct bytes lines, coded;

	(void)state;
	make_lines(&lines, 10000);
	gzip(&coded, lines.data, lines.len);
	static const size_t pieces[] = { 1, 1000, 16384 };
	for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
		begin();
		assert_int_equal(feed("gzip", coded.data, coded.len, pieces[i]), 0);
		assert_int_equal(body_finish(body, "gzip"), 0);
		assert_records(&lines);
	}
	begin();
	assert_int_equal(feed("gzip", coded.data, coded.len - 1, 1000), 0);
	assert_int_equal(body_finish(body, "gzip"), -EBADMSG);
	assert_string_equal(body_cause(body), "truncated");
	assert_non_null(strstr(body_text(body), "the gzip stream ends after "));
	assert_int_equal(body_finish(body, "gzip"), -EBADMSG);
	assert_excerpt(lines.len, -1, lines.len - 4096, lines.data + lines.len - 4096, 4096);
	bytes_done(&coded);
	bytes_done(&lines);
}

static void test_what_cannot_be_inflated(void **state)
{
	struct bytes coded;
	char many[1000];

	(void)state;
	assert_int_equal(run("br", TEXT("1\n")), -ENOTSUP);
	assert_string_equal(body_cause(body), "encoded");
	assert_non_null(strstr(body_text(body), "\"br\""));
	assert_excerpt(0, -1, 0, TEXT("1\\x0a")); /* as it came */
	assert_int_equal(run("br", NULL, 0), -ENOTSUP);
	assert_excerpt(0, -1, 0, TEXT(""));
	assert_int_equal(run("gzip", TEXT("<p>\xc3\xa5\\")), -EBADMSG);
	assert_excerpt(0, -1, 0, TEXT("<p>\\xc3\\xa5\\x5c"));
	gzip(&coded, "1\n", 2);
	coded.data[coded.len - 1] ^= 1;
	assert_int_equal(run("gzip", coded.data, coded.len), -EBADMSG);
	assert_string_equal(body_cause(body), "bad-encoding");
	assert_excerpt(2, -1, 0, "1\n", 2);
	bytes_done(&coded);
	memset(many, 0xff, sizeof many);
	begin();
	assert_int_equal(feed("gzip", many, sizeof many, 100), -EBADMSG);
	assert_int_equal(body_excerpt(body).len, 4 * 100); /* that told it all */
	assert_int_equal(run("br", many, sizeof many), -ENOTSUP);
	assert_int_equal(body_excerpt(body).len, 4 * 256);
}

static void test_max_body_counts_what_was_inflated(void **state)
{
	struct bytes lines, coded;

	(void)state;
	make_lines(&lines, 10000);
	gzip(&coded, lines.data, lines.len);
	settings.max_body = (int64_t)lines.len;
	assert_int_equal(run("gzip", coded.data, coded.len), 0);
	settings.max_body--;
	assert_int_equal(run("gzip", coded.data, coded.len), -EMSGSIZE);
	assert_string_equal(body_cause(body), "too-large");
	assert_non_null(strstr(body_text(body), "inflated, has more than"));
	assert_non_null(strstr(body_text(body), "raise max_body"));
	assert_int_equal(body_excerpt(body).offset, -1);
	assert_int_equal(body_excerpt(body).len, SINK_EXCERPT_MAX);
	bytes_done(&coded);
	bytes_done(&lines);
}

static void test_without_memory(void **state)
{
	(void)state;
	fake.error = -ENOMEM;
	assert_int_equal(run("", TEXT("1\n2\n")), -ENOMEM);
	assert_null(body_cause(body));
	assert_int_equal(run("", TEXT("1")), -ENOMEM); /* a record that only the end ends */
	assert_null(body_cause(body));
}

static void digest_of(const char *encoding, const void *data, size_t len, uint8_t digest[SHA256_SIZE])
{
	assert_int_equal(run(encoding, data, len), 0);
	body_digest(body, digest);
}

static void test_digest(void **state)
{
	static const uint8_t expected[SHA256_SIZE] = {
		/* printf 'json\0$\0[3]' | sha256sum */
		0x4e, 0x6c, 0x18, 0x8b, 0xb8, 0xc5, 0x00, 0xef, 0x9a, 0xba, 0x0e, 0x12, 0x98, 0x24, 0xed, 0xa2,
		0xeb, 0xe4, 0x47, 0x68, 0xa6, 0x82, 0x03, 0x4d, 0xaf, 0x4f, 0xcd, 0x55, 0x12, 0x95, 0xd4, 0x11,
	};
	uint8_t first[SHA256_SIZE], other[SHA256_SIZE];
	struct bytes coded;

	(void)state;
	settings.format = REST_JSON;
	settings.records = "$";
	digest_of("", TEXT("[3]"), first);
	assert_memory_equal(first, expected, sizeof expected);
	gzip(&coded, "[3]", 3);
	digest_of("gzip", coded.data, coded.len, other); /* of the body as it is inflated */
	assert_memory_equal(first, other, sizeof first);
	bytes_done(&coded);
	digest_of("", TEXT("[3] "), other);
	assert_memory_not_equal(first, other, sizeof first);

	/* other records of the same bytes */
	settings.records = NULL;
	digest_of("", TEXT("[3]"), other);
	assert_memory_not_equal(first, other, sizeof first);
	memcpy(first, other, sizeof first);
	settings.format = REST_NDJSON;
	digest_of("", TEXT("[3]"), other);
	assert_memory_not_equal(first, other, sizeof first);
}

static void fill(char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		text[i] = (char)('a' + i * i % 23);
}

/* The text of a string with a byte that cannot stand at `wrong`, cut anyhow. */
static void assert_excerpt_around(size_t len, size_t wrong, size_t piece, size_t start, size_t end)
{
	char *text = malloc(len);

	assert_non_null(text);
	fill(text, len);
	text[0] = '"';
	text[wrong] = 0x01;
	begin();
	assert_int_equal(feed("", text, len, piece), -EBADMSG);
	struct sink_excerpt e = body_excerpt(body);
	assert_int_equal(e.offset, wrong);
	assert_int_equal(e.start, start);
	assert_int_equal(e.start + e.len, end);
	assert_memory_equal(e.data, text + start, e.len);
	assert_true(e.bytes >= end && e.bytes <= len);
	free(text);
}

static void test_excerpts(void **state)
{
	(void)state;
	settings.format = REST_JSON;
	/* all of a small body, wherever it is wrong */
	assert_excerpt_around(4096, 1, 16384, 0, 4096);
	assert_excerpt_around(4096, 4095, 16384, 0, 4096);
	assert_excerpt_around(4096, 4095, 100, 0, 4096);
	/* half of it before, half behind */
	assert_excerpt_around(50000, 20000, 50000, 17952, 22048);
	assert_excerpt_around(50000, 20000, 16384, 17952, 22048);
	assert_excerpt_around(50000, 16384, 16384, 14336, 18432);
	/* more before where less came behind */
	assert_excerpt_around(50000, 20000, 1, 15905, 20001);
	assert_excerpt_around(50000, 20000, 100, 16004, 20100);
	assert_excerpt_around(50000, 49999, 16384, 45904, 50000);
	/* more behind where less came before */
	assert_excerpt_around(50000, 1, 16384, 0, 4096);
	assert_excerpt_around(50000, 2048, 16384, 0, 4096);
	assert_excerpt_around(50000, 2049, 16384, 1, 4097);
	/* less where no more came */
	assert_excerpt_around(50000, 150, 100, 0, 200);
}

static void test_excerpt_of_a_record_that_is_too_large(void **state)
{
	char text[20000];

	(void)state;
	memset(text, '7', sizeof text);
	settings.max_record = 10000;
	assert_int_equal(run("", text, sizeof text), -EMSGSIZE);
	assert_int_equal(body_excerpt(body).offset, 10000);
	assert_int_equal(body_excerpt(body).start, 10000 - 2048);
	begin();
	assert_int_equal(feed("", text, sizeof text, 1000), -EMSGSIZE);
	assert_int_equal(body_excerpt(body).offset, 10000);
	assert_int_equal(body_excerpt(body).start + body_excerpt(body).len, 11000);
}

static void test_excerpt_of_what_was_cut_short(void **state)
{
	struct bytes lines;

	(void)state;
	make_lines(&lines, 1000);
	size_t len = lines.len - 5;
	begin();
	assert_int_equal(feed("", lines.data, len, 700), 0);
	assert_excerpt(len, -1, len - 4096, lines.data + len - 4096, 4096);
	assert_int_equal(body_finish(body, ""), -EBADMSG);
	assert_string_equal(body_cause(body), "truncated");
	assert_excerpt(len, (int64_t)len, len - 4096, lines.data + len - 4096, 4096);
	bytes_done(&lines);
}

/* Gives again what was not taken, as http does; every pause is within the sink's bounds. */
static unsigned feed_with_pauses(const char *encoding, const struct bytes *coded, size_t piece)
{
	unsigned pauses = 0;

	begin();
	fake.full_at = 30000;
	for (size_t i = 0; i < coded->len;) {
		size_t step = coded->len - i < piece ? coded->len - i : piece;
		ssize_t taken = body_feed(body, encoding, coded->data + i, step);

		assert_true(taken >= 0 && (size_t)taken <= step);
		i += (size_t)taken;
		if (!fake.sink.full)
			assert_int_equal(taken, step);
		if (!fake.sink.full)
			continue;
		assert_true(fake.records.len <= fake.full_at + SINK_OVERSHOOT);
		size_t before = fake.records.len;
		assert_int_equal(body_feed(body, encoding, coded->data + i, coded->len - i), 0);
		assert_int_equal(fake.records.len, before); /* nothing more comes */
		pauses++;
		fake.full_at = before + 30000;
		fake.sink.full = false;
	}
	assert_int_equal(body_finish(body, encoding), 0);
	fake.sink.full = false;
	return pauses;
}

static void test_pauses_while_the_sink_is_full(void **state)
{
	static const size_t pieces[] = { 100, 1000, 16384, SIZE_MAX };
	struct bytes lines, coded;

	(void)state;
	make_lines(&lines, 20000);
	gzip(&coded, lines.data, lines.len);
	for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
		assert_true(feed_with_pauses("gzip", &coded, pieces[i]) > 10);
		assert_records(&lines);
		assert_true(feed_with_pauses("", &lines, pieces[i]) > 10);
		assert_records(&lines);
	}
	bytes_done(&coded);
	bytes_done(&lines);
}

static void test_a_path_that_is_none(void **state)
{
	struct err err = { .text = "" };

	(void)state;
	settings.format = REST_JSON;
	settings.records = "a..b";
	assert_int_equal(body_new(&settings, &fake.sink, &body, &err), -EINVAL);
	assert_null(body);
	assert_non_null(strstr(err.text, "a..b"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	static const struct CMUnitTest tests[] = {
		TEST(test_formats),
		TEST(test_empty_bodies),
		TEST(test_compressed),
		TEST(test_what_cannot_be_inflated),
		TEST(test_max_body_counts_what_was_inflated),
		TEST(test_without_memory),
		TEST(test_digest),
		TEST(test_excerpts),
		TEST(test_excerpt_of_a_record_that_is_too_large),
		TEST(test_excerpt_of_what_was_cut_short),
		TEST(test_pauses_while_the_sink_is_full),
		TEST(test_a_path_that_is_none),
	};

	return cmocka_run_group_tests_name("body", tests, NULL, NULL);
}
