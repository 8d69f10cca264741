/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "buffer/content.h"
#include "buffer/pack.h"

#define NOON INT64_C(1795262400000) /* 2026-11-21T12:00:00Z */

static int on_part(void *arg, const void *data, size_t len)
{
	return bytes_add(arg, data, len);
}

static struct bytes zip(const char *text, size_t len)
{
	struct bytes out;
	struct pack pack;
	uint8_t sha256[SHA256_SIZE];

	bytes_init(&out, 16 << 20);
	assert_int_equal(pack_init(&pack, on_part, &out), 0);
	assert_int_equal(pack_write(&pack, text, len), 0);
	assert_int_equal(pack_finish(&pack, sha256), 0);
	pack_done(&pack);
	return out;
}

static void add_line(struct bytes *text, const char *source, uint64_t seq, int64_t wall_ms, const char *data)
{
	const struct envelope e = { .source = source,
		                    .device = "pi-01",
		                    .boot = "9f8e7d6c",
		                    .seq = seq,
		                    .fetch = seq,
		                    .wall_ms = wall_ms,
		                    .clock = "synced" };

	assert_int_equal(object_line(text, &e, data, strlen(data)), 0);
}

/* What is made of these bytes, given in pieces of that many. */
static struct content_facts look(const void *data, size_t len, size_t piece)
{
	struct content *content = content_new();
	struct content_facts facts;

	assert_non_null(content);
	for (size_t at = 0; at < len; at += piece)
		content_add(content, (const char *)data + at, len - at < piece ? len - at : piece);
	facts = *content_finish(content);
	content_free(content);
	return facts;
}

static struct content_facts look_at_text(const char *text)
{
	struct bytes object = zip(text, strlen(text));
	struct content_facts facts = look(object.data, object.len, object.len);

	bytes_done(&object);
	return facts;
}

static void test_an_object_in_pieces_of_any_size(void **state)
{
	static const size_t pieces[] = { 1, 7, 100, 100000 };
	struct sha256 hash;
	uint8_t sha256[SHA256_SIZE];
	struct bytes text, object;

	(void)state;
	bytes_init(&text, 1 << 20);
	for (uint64_t seq = 5; seq <= 300; seq++)
		add_line(&text, "parking", seq, NOON + (int64_t)seq, seq % 2 ? "{\"a\":[1,2]}" : "\"\\n}\"");
	object = zip((const char *)text.data, text.len);
	sha256_init(&hash);
	sha256_add(&hash, object.data, object.len);
	sha256_finish(&hash, sha256);
	for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
		struct content_facts facts = look(object.data, object.len, pieces[i]);

		assert_string_equal(facts.why, "");
		assert_string_equal(facts.source, "parking");
		assert_string_equal(facts.device, "pi-01");
		assert_string_equal(facts.boot, "9f8e7d6c");
		assert_int_equal(facts.records, 296);
		assert_int_equal(facts.first_seq, 5);
		assert_int_equal(facts.last_seq, 300);
		assert_int_equal(facts.first_ms, NOON + 5);
		assert_int_equal(facts.last_ms, NOON + 300);
		assert_int_equal(facts.day, units_day(NOON));
		assert_int_equal(facts.bytes, object.len);
		assert_int_equal(facts.line_bytes, text.len);
		assert_memory_equal(facts.sha256, sha256, SHA256_SIZE);
	}
	bytes_done(&text);
	bytes_done(&object);
}

static void test_what_is_cut_or_damaged(void **state)
{
	struct bytes text, object;

	(void)state;
	bytes_init(&text, 1 << 20);
	for (uint64_t seq = 1; seq <= 50; seq++)
		add_line(&text, "parking", seq, NOON, "{}");
	object = zip((const char *)text.data, text.len);
	for (size_t len = 0; len < object.len; len++)
		assert_string_not_equal(look(object.data, len, 64).why, "");
	assert_string_equal(look(object.data, object.len, 64).why, "");
	assert_string_equal(look(object.data, 0, 1).why, "it is empty");
	assert_string_equal(look(object.data, object.len - 1, 64).why, "it is cut short");
	for (size_t at = 10; at < object.len; at++) { /* the header's time and flags say nothing of the content */
		object.data[at] ^= 1;
		assert_string_not_equal(look(object.data, object.len, 64).why, "");
		object.data[at] ^= 1;
	}
	assert_int_equal(bytes_add(&object, "x", 1), 0);
	assert_string_equal(look(object.data, object.len, 64).why, "it is no gzip file");
	bytes_done(&text);
	bytes_done(&object);
}

static void test_what_is_no_gzip_is_hashed_all_the_same(void **state)
{
	struct content_facts facts = look("somebody else's", 15, 4);
	char hex[SHA256_HEX];

	(void)state;
	assert_string_equal(facts.why, "it is no gzip file");
	assert_int_equal(facts.bytes, 15);
	assert_string_equal(sha256_hex(facts.sha256, 64, hex),
	                    "818d60d36afc2dd3117d2d768a08ecdb447ac49ddb31244b3e8a3c57fedeb494");
}

static void test_lines_that_are_none_of_ours(void **state)
{
	static const char *const lines[] = {
		"hello\n",
		"{\"a\":1}\n",
		"\n",
		"{\"source\":\"s\",\"device\":\"d\",\"boot\":\"9f8e7d6c\",\"seq\":0,\"fetch\":1,\"fetched_at\":"
		"\"2026-11-21T10:02:00.123Z\",\"clock\":\"synced\",\"data\":1}\n",
		"{\"source\":\"s\",\"device\":\"d\",\"boot\":\"9f8e7d6c\",\"seq\":1,\"fetch\":1,\"fetched_at\":"
		"\"2026-11-21T10:02:00.123Z\",\"clock\":\"late\",\"data\":1}\n",
		"{\"source\":\"s\",\"device\":\"d\",\"boot\":\"9f8e7d6c\",\"seq\":1,\"fetch\":1,\"fetched_at\":"
		"\"yesterday\",\"clock\":\"synced\",\"data\":1}\n",
		"{\"source\":\"s\",\"device\":\"d\",\"boot\":\"9f8e7d6c\",\"seq\":1,\"fetch\":1,\"fetched_at\":"
		"\"2026-11-21T10:02:00.123Z\",\"clock\":\"synced\",\"data\":1\n",
	};

	(void)state;
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
		assert_string_equal(look_at_text(lines[i]).why, "line 1 is no record of Millrace");
	assert_string_equal(look_at_text("").why, "its last line is not whole");
}

static void test_lines_that_do_not_belong_together(void **state)
{
	struct bytes text;

	(void)state;
	bytes_init(&text, 1 << 20);
	add_line(&text, "parking", 1, NOON, "{}");
	size_t one = text.len;

	add_line(&text, "parking", 3, NOON, "{}");
	assert_int_equal(bytes_add(&text, "", 1), 0);
	assert_string_equal(look_at_text((char *)text.data).why, "seq 3 does not follow 1");
	assert_int_equal(look_at_text((char *)text.data).records, 1);
	text.len = one;
	add_line(&text, "bikes", 2, NOON, "{}");
	assert_int_equal(bytes_add(&text, "", 1), 0);
	assert_string_equal(look_at_text((char *)text.data).why, "line 2 is of another source, device or boot");
	text.len = one;
	add_line(&text, "parking", 2, NOON + 86400000, "{}");
	assert_int_equal(bytes_add(&text, "", 1), 0);
	assert_string_equal(look_at_text((char *)text.data).why, "line 2 is of another day");
	text.len = one;
	add_line(&text, "parking", 2, NOON, "{}");
	text.data[text.len - 1] = '\0'; /* the line feed */
	assert_string_equal(look_at_text((char *)text.data).why, "its last line is not whole");
	bytes_done(&text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_an_object_in_pieces_of_any_size),
		cmocka_unit_test(test_what_is_cut_or_damaged),
		cmocka_unit_test(test_what_is_no_gzip_is_hashed_all_the_same),
		cmocka_unit_test(test_lines_that_are_none_of_ours),
		cmocka_unit_test(test_lines_that_do_not_belong_together),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
