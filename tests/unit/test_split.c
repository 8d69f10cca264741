/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each text is fed whole and in pieces of 1, 2, 3 and 7 bytes, each piece in memory of its own that is freed at once,
 * and the results must be equal, also those of failure.
 */
#include "collectors/split.h"

#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>

#include "base/bytes.h"

#define MAX_RECORD     4096
#define BYTES(literal) literal, sizeof(literal) - 1

static const char LINES[] = "a text of lines"; /* in the place of a path */

struct outcome {
	int rc;
	const char *cause;
	uint64_t offset;
	struct err err;
	struct bytes records; /* a line each */
};

static int on_record(void *arg, const void *data, size_t len)
{
	struct outcome *outcome = arg;

	assert_true(len > 0);
	assert_null(memchr(data, '\n', len));
	assert_null(memchr(data, '\r', len));
	assert_int_equal(bytes_add(&outcome->records, data, len), 0);
	assert_int_equal(bytes_add(&outcome->records, "\n", 1), 0);
	return 0;
}

static int feed_copy(struct split *split, const char *data, size_t len, struct err *err)
{
	char *copy = malloc(len);
	int rc;

	assert_non_null(copy);
	memcpy(copy, data, len);
	rc = split_feed(split, copy, len, err);
	memset(copy, 'x', len);
	free(copy);
	return rc;
}

static struct split *make(const char *path, size_t max_record, split_on_record take, void *arg)
{
	struct split *split = NULL;

	if (path == LINES)
		assert_int_equal(split_new_lines(max_record, take, arg, &split), 0);
	else
		assert_int_equal(split_new(path, max_record, take, arg, &split, NULL), 0);
	assert_int_equal(split_offset(split), 0);
	return split;
}

static struct outcome run(const char *path, size_t max_record, const char *text, size_t len, size_t piece)
{
	struct outcome outcome = { .rc = 0 };
	struct split *split = make(path, max_record, on_record, &outcome);

	bytes_init(&outcome.records, (size_t)64 << 20);
	for (size_t i = 0; i < len && !outcome.rc; i += piece)
		outcome.rc = feed_copy(split, text + i, len - i < piece ? len - i : piece, &outcome.err);
	if (!outcome.rc)
		outcome.rc = split_finish(split, &outcome.err);
	outcome.cause = outcome.rc ? split_cause(split) : NULL;
	outcome.offset = split_offset(split);
	split_free(split);
	assert_int_equal(bytes_add(&outcome.records, "", 1), 0);
	return outcome;
}

static struct outcome run_all(const char *path, size_t max_record, const char *text, size_t len)
{
	static const size_t pieces[] = { 1, 2, 3, 7 };
	struct outcome whole = run(path, max_record, text, len, len ? len : 1);

	for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
		struct outcome cut = run(path, max_record, text, len, pieces[i]);

		assert_int_equal(cut.rc, whole.rc);
		assert_string_equal(cut.err.text, whole.err.text);
		assert_true(cut.cause == whole.cause);
		assert_int_equal(cut.offset, whole.offset);
		assert_int_equal(cut.records.len, whole.records.len);
		assert_memory_equal(cut.records.data, whole.records.data, whole.records.len);
		bytes_done(&cut.records);
	}
	return whole;
}

static void accept(const char *path, const char *text, size_t len, const char *records, size_t records_len)
{
	struct outcome outcome = run_all(path, MAX_RECORD, text, len);

	if (outcome.rc)
		fail_msg("%.*s: %s", (int)len, text, outcome.err.text);
	assert_int_equal(outcome.offset, len);
	if (outcome.records.len != records_len + 1 || memcmp(outcome.records.data, records, records_len) != 0)
		fail_msg("%.*s: gave %s", (int)len, text, (const char *)outcome.records.data);
	bytes_done(&outcome.records);
}

static void refuse(const char *path, size_t max_record, const char *text, size_t len, const char *cause, size_t offset)
{
	struct outcome outcome = run_all(path, max_record, text, len);
	char where[64];

	snprintf(where, sizeof where, " at offset %zu: ", offset);
	if (!outcome.rc)
		fail_msg("%.*s: taken", (int)len, text);
	assert_int_equal(outcome.rc, strcmp(cause, "record-too-large") == 0 ? -EMSGSIZE : -EBADMSG);
	if (!outcome.cause || strcmp(outcome.cause, cause) != 0 || !strstr(outcome.err.text, where))
		fail_msg("%.*s: is %s, %s; not %s%s", (int)len, text, outcome.cause, outcome.err.text, cause, where);
	assert_int_equal(outcome.offset, offset);
	bytes_done(&outcome.records);
}

/* Texts that are one record, as they are. */
static const struct {
	const char *text;
	size_t len;
} kept[] = {
	{ BYTES("0") },
	{ BYTES("-0") },
	{ BYTES("12") },
	{ BYTES("-0.0e+00") },
	{ BYTES("1e999") },
	{ BYTES("1E-5") },
	{ BYTES("10.01e1") },
	{ BYTES("123456789012345678901234567890") },
	{ BYTES("-0.100000000000000000000000000000000001") },
	{ BYTES("true") },
	{ BYTES("false") },
	{ BYTES("null") },
	{ BYTES("[]") },
	{ BYTES("{}") },
	{ BYTES("\"\"") },
	{ BYTES("\"<html>\"") },
	{ BYTES("[ 1 ,\t2 , [ ] , { } ]") },
	{ BYTES("[true,false,null,0,\"\",{},[]]") },
	{ BYTES("{\"b\":1,\"a\":2,\"b\":3,\"\":4}") },
	{ BYTES("{ \"a\" : { \"b\" : [ { \"c\" : null } ] } }") },
	{ BYTES("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0000\\u00e5\\uABCD\\uabcd\"") },
	{ BYTES("\"\\ud800\"") },
	{ BYTES("\"\\udc00\\ud83d\\ude00\\ud83dx\"") },
	{ BYTES("\"\x7f\"") },
	{ BYTES("\"Bl\xc3\xa5 \xe2\x80\xa8 \xe2\x80\xa9 \xf0\x9f\x9a\x97\"") },
	{ BYTES("\"\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf\xf0\x90\x80\x80\xf4\x8f\xbf\xbf"
	        "\"") },
	{ BYTES("\"a string that goes on for more than eight bytes\"") },
	{ BYTES("\"1234567\\n12345678\\n123456789\\n\xc3\xa6\"") },
};

static void test_kept(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
		char record[256], text[256];
		int record_len = snprintf(record, sizeof record, "%.*s\n", (int)kept[i].len, kept[i].text);
		int len = snprintf(text, sizeof text, " \r\n\t%.*s\n\t ", (int)kept[i].len, kept[i].text);

		accept(NULL, kept[i].text, kept[i].len, record, (size_t)record_len);
		accept(NULL, text, (size_t)len, record, (size_t)record_len);
		len = snprintf(text, sizeof text, "\xef\xbb\xbf[%.*s]", (int)kept[i].len, kept[i].text);
		accept("$", text, (size_t)len, record, (size_t)record_len);
		len = snprintf(text, sizeof text, "{\"x\":[{}],\"a\":\r{\"b\":[\n%.*s\r] }}", (int)kept[i].len,
		               kept[i].text);
		accept("a.b", text, (size_t)len, record, (size_t)record_len);
		len = snprintf(text, sizeof text, "\xef\xbb\xbf\n%.*s\r\n \t\n%.*s", (int)kept[i].len, kept[i].text,
		               (int)kept[i].len, kept[i].text);
		record_len += snprintf(record + record_len, sizeof record - (size_t)record_len, "%.*s\n",
		                       (int)kept[i].len, kept[i].text);
		accept(LINES, text, (size_t)len, record, (size_t)record_len);
	}
}

static const struct {
	const char *path;
	const char *text;
	size_t len;
	const char *records;
	size_t records_len;
} cut[] = {
	{ "$", BYTES("[]"), BYTES("") },
	{ "$", BYTES(" [ \n ] "), BYTES("") },
	{ "$", BYTES("[1,2,3]"), BYTES("1\n2\n3\n") },
	{ "$", BYTES("[ 1 , \"a\" ,null\t,[ 2 , [3]] , {\"a\" : [4]} ]"),
	  BYTES("1\n\"a\"\nnull\n[ 2 , [3]]\n{\"a\" : [4]}\n") },
	{ "$", BYTES("\xef\xbb\xbf[{\"$\":[1]},[[]]]"), BYTES("{\"$\":[1]}\n[[]]\n") },
	/* each line break is one space, none is left around a record */
	{ "$", BYTES("[\r\n\t{\r\n\t\t\"a\": 1,\n\n\"b\":\r[]\r\n\t}\r\n,\r\n7\r\n]\r\n"),
	  BYTES("{  \t\t\"a\": 1,  \"b\": []  \t}\n7\n") },
	{ NULL, BYTES("\n{\n\"a\\n\"\n:\n1\r}\n"), BYTES("{ \"a\\n\" : 1 }\n") },
	{ "a", BYTES("{\"a\":[1]}"), BYTES("1\n") },
	{ "a", BYTES("{\"b\":{\"a\":[0]},\"a\":[1,2],\"c\":[{\"a\":[3]}]}"), BYTES("1\n2\n") },
	{ "a.a", BYTES("{\"a\":{\"a\":[{\"a\":{\"a\":[1]}}]}}"), BYTES("{\"a\":{\"a\":[1]}}\n") },
	{ "a.b", BYTES("{\"b\":[9],\"a\":{\"a\":{\"b\":[8]},\"b\":[1],\"c\":[7]},\"c\":{\"b\":[6]}}"), BYTES("1\n") },
	/* twice is a key on the way, once the path */
	{ "a.b", BYTES("{\"a\":1,\"a\":[{\"b\":[2]}],\"a\":{\"c\":3},\"a\":{\"b\":[4]}}"), BYTES("4\n") },
	/* nearly the key */
	{ "abc", BYTES("{\"ab\":[1],\"abcd\":[2],\"\":[3],\"abd\":[4],\"ABC\":[5],\"abc\":[6]}"), BYTES("6\n") },
	{ "abc", BYTES("{\"ab\\u0000\":[1],\"a\\u0062c\":[6]}"), BYTES("6\n") },
	/* escapes in keys */
	{ "\xc3\xa5", BYTES("{\"\\u00E5\":[1]}"), BYTES("1\n") },
	{ "\xc3\xa5", BYTES("{\"\xc3\xa5\":[1]}"), BYTES("1\n") },
	{ "\xe2\x82\xac/\"", BYTES("{\"\\u20ac\\/\\\"\":[1]}"), BYTES("1\n") },
	{ "\\\t\n", BYTES("{\"\\\\\\t\\u000a\":[1]}"), BYTES("1\n") },
	{ "x\xf0\x9f\x98\x80y", BYTES("{\"x\\ud83d\\uDE00y\":[1]}"), BYTES("1\n") },
	{ "\xf0\x90\x80\x80", BYTES("{\"\\ud800\\udc00\":[1]}"), BYTES("1\n") },
	{ "\xf4\x8f\xbf\xbf", BYTES("{\"\\udbff\\udfff\":[1]}"), BYTES("1\n") },
	{ "x", BYTES("{\"x\\ud800\":[1],\"\\udc00x\":[2],\"\\ud800x\":[3],\"\\ud800\\u0078\":[4],\"x\":[5]}"),
	  BYTES("5\n") },
	{ "\xf0\x9f\x98\x80",
	  BYTES("{\"\\ud83d\\ud83d\\ude00\":[1],\"\\ud83d\xf0\x9f\x98\x80\":[2],\"\xf0\x9f\x98\x80\":[3]}"),
	  BYTES("3\n") },
	{ "a.$", BYTES("{\"a\":{\"$\":[1]}}"), BYTES("1\n") },
	{ LINES, BYTES(""), BYTES("") },
	{ LINES, BYTES("\xef\xbb\xbf"), BYTES("") },
	{ LINES, BYTES("\n\r\n \t\r\n "), BYTES("") },
	{ LINES, BYTES("1"), BYTES("1\n") },
	{ LINES, BYTES("1\n22\n"), BYTES("1\n22\n") },
	{ LINES, BYTES("1\r\n\r\n\n2 \r\n"), BYTES("1\n2\n") },
	{ LINES, BYTES("\xef\xbb\xbf{\"a\":[1, 2]}\n[{}]\n\ttrue\t\n\"\\n\"\nnull"),
	  BYTES("{\"a\":[1, 2]}\n[{}]\ntrue\n\"\\n\"\nnull\n") },
	/* a CR ends no line: within one it is white space */
	{ LINES, BYTES("[1,\r2]\r\r\n3\r"), BYTES("[1, 2]\n3\n") },
	/* no keys mean anything here */
	{ LINES, BYTES("{\"\":[1]}\n{\"$\":[2],\"$\":[3]}\n"), BYTES("{\"\":[1]}\n{\"$\":[2],\"$\":[3]}\n") },
};

static void test_cut(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof cut / sizeof *cut; i++)
		accept(cut[i].path, cut[i].text, cut[i].len, cut[i].records, cut[i].records_len);
}

static const struct {
	const char *path;
	const char *text;
	size_t len;
	const char *cause;
	size_t offset;
} refused[] = {
	{ NULL, BYTES(""), "empty", 0 },
	{ "$", BYTES(" \n\t\r"), "empty", 4 },
	{ NULL, BYTES("\xef\xbb\xbf"), "empty", 3 },
	{ "a", BYTES("\xef\xbb\xbf "), "empty", 4 },
	{ NULL, BYTES("\xef"), "truncated", 1 },
	{ NULL, BYTES("\xef\xbb"), "truncated", 2 },
	{ NULL, BYTES("\xef\xbb{"), "not-json", 2 },
	{ NULL, BYTES("\xef\xbc\x9a"), "not-json", 1 },
	{ NULL, BYTES("\xef\xbb\xbf\xef\xbb\xbf{}"), "not-json", 3 },
	{ NULL, BYTES(" \xef\xbb\xbf{}"), "not-json", 1 },
	{ NULL, BYTES("\xff\xfe{\0}\0"), "not-utf-8", 0 },
	{ NULL, BYTES("{\0}\0"), "not-json", 1 },
	{ NULL, BYTES("\x1f\x8b\x08"), "not-json", 0 },
	/* no values */
	{ "$", BYTES("<!DOCTYPE html>"), "not-json", 0 },
	{ NULL, BYTES("\xef\xbb\xbf\n<?xml"), "not-json", 4 },
	{ NULL, BYTES("[<]"), "not-json", 1 },
	{ NULL, BYTES("nul"), "truncated", 3 },
	{ NULL, BYTES("nulL"), "not-json", 3 },
	{ NULL, BYTES("nulll"), "not-json", 4 },
	{ NULL, BYTES("True"), "not-json", 0 },
	{ NULL, BYTES("tRue"), "not-json", 1 },
	{ NULL, BYTES("falsE"), "not-json", 4 },
	{ NULL, BYTES("[truefalse]"), "not-json", 5 },
	{ NULL, BYTES("NaN"), "not-json", 0 },
	{ NULL, BYTES("Infinity"), "not-json", 0 },
	{ NULL, BYTES("-Infinity"), "not-json", 1 },
	{ NULL, BYTES("undefined"), "not-json", 0 },
	{ NULL, BYTES("'a'"), "not-json", 0 },
	{ NULL, BYTES("a"), "not-json", 0 },
	{ NULL, BYTES("// c\n1"), "not-json", 0 },
	{ NULL, BYTES("1 /* c */"), "not-json", 2 },
	{ NULL, BYTES("# c"), "not-json", 0 },
	{ NULL,
	  BYTES("\x0b"
	        "1"),
	  "not-json", 0 },
	{ NULL,
	  BYTES("\x0c"
	        "1"),
	  "not-json", 0 },
	{ NULL,
	  BYTES("\xc2\xa0"
	        "1"),
	  "not-json", 0 },
	{ NULL, BYTES("[\xe2\x80\xa8]"), "not-json", 1 },
	{ NULL, BYTES("[\x80]"), "not-utf-8", 1 },
	{ NULL, BYTES("]"), "not-json", 0 },
	{ NULL, BYTES("}"), "not-json", 0 },
	{ NULL, BYTES(","), "not-json", 0 },
	/* numbers */
	{ NULL, BYTES("-"), "truncated", 1 },
	{ NULL, BYTES("1."), "truncated", 2 },
	{ NULL, BYTES("1e"), "truncated", 2 },
	{ NULL, BYTES("1e+"), "truncated", 3 },
	{ NULL, BYTES("- "), "not-json", 1 },
	{ NULL, BYTES("--1"), "not-json", 1 },
	{ NULL, BYTES("+1"), "not-json", 0 },
	{ NULL, BYTES(".5"), "not-json", 0 },
	{ NULL, BYTES("-.5"), "not-json", 1 },
	{ NULL, BYTES("01"), "not-json", 1 },
	{ NULL, BYTES("-01"), "not-json", 2 },
	{ NULL, BYTES("00"), "not-json", 1 },
	{ NULL, BYTES("1.e5"), "not-json", 2 },
	{ NULL, BYTES("[1.]"), "not-json", 3 },
	{ NULL, BYTES("[1.5.5]"), "not-json", 4 },
	{ NULL, BYTES("[1e]"), "not-json", 3 },
	{ NULL, BYTES("[1e+]"), "not-json", 4 },
	{ NULL, BYTES("[1e+-5]"), "not-json", 4 },
	{ NULL, BYTES("[1e++5]"), "not-json", 4 },
	{ NULL, BYTES("[1e5.5]"), "not-json", 4 },
	{ NULL, BYTES("[1e5e5]"), "not-json", 4 },
	{ NULL, BYTES("0x10"), "not-json", 1 },
	{ NULL, BYTES("1_000"), "not-json", 1 },
	{ NULL, BYTES("1a"), "not-json", 1 },
	{ NULL, BYTES("1\"\""), "not-json", 1 },
	{ NULL, BYTES("[1-1]"), "not-json", 2 },
	{ NULL, BYTES("[1\xef\xbc\x91]"), "not-json", 2 },
	/* strings */
	{ NULL, BYTES("\"a"), "truncated", 2 },
	{ NULL, BYTES("\"a\\"), "truncated", 3 },
	{ NULL, BYTES("\"a\\\""), "truncated", 4 },
	{ NULL, BYTES("\"\\u12"), "truncated", 5 },
	{ NULL, BYTES("\"\xc3"), "truncated", 2 },
	{ NULL, BYTES("\"a\nb\""), "not-json", 2 },
	{ NULL, BYTES("\"a\rb\""), "not-json", 2 },
	{ NULL, BYTES("\"a\tb\""), "not-json", 2 },
	{ NULL, BYTES("\"a\0b\""), "not-json", 2 },
	{ NULL, BYTES("\"12345678901234\x1f\""), "not-json", 15 },
	{ NULL,
	  BYTES("\"a\x1f"
	        "c and many bytes that are plain\""),
	  "not-json", 2 },
	{ NULL,
	  BYTES("\"many bytes that are plain, b\x1f"
	        "c and many bytes that are plain\""),
	  "not-json", 29 },
	{ NULL, BYTES("\"\\x41\""), "not-json", 2 },
	{ NULL, BYTES("\"\\'\""), "not-json", 2 },
	{ NULL, BYTES("\"\\0\""), "not-json", 2 },
	{ NULL, BYTES("\"\\U0041\""), "not-json", 2 },
	{ NULL, BYTES("\"\\\n\""), "not-json", 2 },
	{ NULL, BYTES("\"\\\xc3\xa5\""), "not-json", 2 },
	{ NULL, BYTES("\"\\u004g\""), "not-json", 6 },
	{ NULL, BYTES("\"\\u\""), "not-json", 3 },
	{ NULL, BYTES("\"\\u004\""), "not-json", 6 },
	{ NULL, BYTES("\"\\u+041\""), "not-json", 3 },
	{ NULL,
	  BYTES("\"\\u00\x10"
	        "1\""),
	  "not-json", 5 },
	{ NULL,
	  BYTES("\"many bytes that are plain, b\x9f"
	        "c and many bytes that are plain\""),
	  "not-utf-8", 29 },
	{ NULL, BYTES("\"\x80\""), "not-utf-8", 1 },
	{ NULL, BYTES("\"\xe5\""), "not-utf-8", 2 },
	{ NULL, BYTES("\"Bl\xe5\x20\""), "not-utf-8", 4 },
	{ NULL, BYTES("\"\xc3\xa5\xa5\""), "not-utf-8", 3 },
	{ NULL, BYTES("\"\xc0\xaf\""), "not-utf-8", 1 },
	{ NULL, BYTES("\"\xc1\xbf\""), "not-utf-8", 1 },
	{ NULL, BYTES("\"\xe0\x9f\xbf\""), "not-utf-8", 2 },
	{ NULL, BYTES("\"\xed\xa0\x80\""), "not-utf-8", 2 },
	{ NULL, BYTES("\"\xed\xbf\xbf\""), "not-utf-8", 2 },
	{ NULL, BYTES("\"\xf0\x8f\xbf\xbf\""), "not-utf-8", 2 },
	{ NULL, BYTES("\"\xf4\x90\x80\x80\""), "not-utf-8", 2 },
	{ NULL, BYTES("\"\xf5\x80\x80\x80\""), "not-utf-8", 1 },
	{ NULL, BYTES("\"\xff\""), "not-utf-8", 1 },
	{ NULL, BYTES("\"\xe2\x82\""), "not-utf-8", 3 },
	{ NULL, BYTES("\"\xf0\x9f\x98\""), "not-utf-8", 4 },
	{ NULL, BYTES("{\"\xff\":1}"), "not-utf-8", 2 },
	/* structure */
	{ NULL, BYTES("[1,]"), "not-json", 3 },
	{ NULL, BYTES("[,1]"), "not-json", 1 },
	{ NULL, BYTES("[1,,2]"), "not-json", 3 },
	{ NULL, BYTES("[1 2]"), "not-json", 3 },
	{ NULL, BYTES("[1}"), "not-json", 2 },
	{ NULL, BYTES("[\"a\":1]"), "not-json", 4 },
	{ NULL, BYTES("{]"), "not-json", 1 },
	{ NULL, BYTES("{,}"), "not-json", 1 },
	{ NULL, BYTES("{\"a\":1,}"), "not-json", 7 },
	{ NULL, BYTES("{\"a\"}"), "not-json", 4 },
	{ NULL, BYTES("{\"a\":}"), "not-json", 5 },
	{ NULL, BYTES("{\"a\" 1}"), "not-json", 5 },
	{ NULL, BYTES("{\"a\"::1}"), "not-json", 5 },
	{ NULL, BYTES("{\"a\":1 \"b\":2}"), "not-json", 7 },
	{ NULL, BYTES("{\"a\":1]"), "not-json", 6 },
	{ NULL, BYTES("{a:1}"), "not-json", 1 },
	{ NULL, BYTES("{1:1}"), "not-json", 1 },
	{ NULL, BYTES("{null:1}"), "not-json", 1 },
	{ NULL, BYTES("{\"a\":[}"), "not-json", 6 },
	{ NULL, BYTES("[{\"a\":{}}]]"), "not-json", 10 },
	{ NULL, BYTES("[1],"), "not-json", 3 },
	{ NULL, BYTES("{} {}"), "not-json", 3 },
	{ NULL, BYTES("1 2"), "not-json", 2 },
	{ "$", BYTES("[1]\n[2]"), "not-json", 4 },
	{ "a", BYTES("{\"a\":[1]}x"), "not-json", 9 },
	{ NULL, BYTES("{}\0"), "not-json", 2 },
	/* the path */
	{ "$", BYTES("{\"error\":1}"), "no-records", 0 },
	{ "$", BYTES(" \"a\""), "no-records", 1 },
	{ "$", BYTES("null"), "no-records", 0 },
	{ "a", BYTES("{}"), "no-records", 2 },
	{ "a", BYTES("[]"), "no-records", 2 },
	{ "a", BYTES("1 "), "no-records", 2 },
	{ "a", BYTES("[{\"a\":[1]}]"), "no-records", 11 },
	{ "a", BYTES("{\"b\":{\"a\":[1]}}"), "no-records", 15 },
	{ "a", BYTES("{\"a\":{}}"), "no-records", 5 },
	{ "a", BYTES("{\"a\": \"[]\"}"), "no-records", 6 },
	{ "a", BYTES("{\"a\":null}"), "no-records", 5 },
	{ "a.b", BYTES("{\"a\":[{\"b\":[1]}]}"), "no-records", 17 },
	{ "a.b", BYTES("{\"a\":{\"b\":1}}"), "no-records", 10 },
	{ "a.b", BYTES("{\"a\":{},\"b\":[1]}"), "no-records", 16 },
	{ "a.b", BYTES("{\"a.b\":[1]}"), "no-records", 11 },
	{ "a.b", BYTES("{\"a\":1,\"x\":{\"b\":[2]}}"), "no-records", 21 },
	/* halves of a surrogate pair are equal to nothing, not even to the bytes that would encode them */
	{ "\xed\xb0\x80", BYTES("{\"\\udc00\":[1]}"), "no-records", 14 },
	{ "x\xf0\x9f\x98\x80", BYTES("{\"\\ud83dx\\ude00\":[1]}"), "no-records", 21 },
	{ "a", BYTES("{\"a\":[1],\"b\":2,\"a\":[3]}"), "no-records", 19 },
	{ "a", BYTES("{\"a\":[],\"\\u0061\":1}"), "no-records", 17 },
	{ "a.b", BYTES("{\"a\":{\"b\":[1]},\"a\":{\"b\":[2]}}"), "no-records", 24 },
	/* lines */
	{ LINES, BYTES("1 2\n"), "not-json", 2 },
	{ LINES, BYTES("{}{}\n"), "not-json", 2 },
	{ LINES, BYTES("1\n2,\n"), "not-json", 3 },
	{ LINES, BYTES("1\r2\n"), "not-json", 2 },
	{ LINES, BYTES("[\n1\n]\n"), "not-json", 1 },
	{ LINES, BYTES("1\n{\"a\":\r\n1}\n"), "not-json", 8 },
	{ LINES, BYTES("\"a\nb\"\n"), "not-json", 2 },
	{ LINES, BYTES("\"\\\nb\"\n"), "not-json", 2 },
	{ LINES, BYTES("\"\xc3\n\""), "not-json", 2 },
	{ LINES, BYTES("tr\nue\n"), "not-json", 2 },
	{ LINES, BYTES("-\n1\n"), "not-json", 1 },
	{ LINES, BYTES("1.\n"), "not-json", 2 },
	{ LINES, BYTES("1\nx\n"), "not-json", 2 },
	{ LINES, BYTES("1\n]\n"), "not-json", 2 },
	{ LINES, BYTES("1\n<html>"), "not-json", 2 },
	{ LINES, BYTES("1\n\0\n2\n"), "not-json", 2 },
	{ LINES, BYTES("1\0\n"), "not-json", 1 },
	{ LINES, BYTES("\"\0\"\n"), "not-json", 1 },
	{ LINES, BYTES("1\n\"\xff\"\n"), "not-utf-8", 3 },
	{ LINES,
	  BYTES("1\n\xef\xbb\xbf"
	        "2\n"),
	  "not-json", 2 },
	{ LINES,
	  BYTES("\n\xef\xbb\xbf"
	        "1"),
	  "not-json", 1 },
	{ LINES, BYTES("\xef\n"), "not-json", 1 },
	{ LINES, BYTES("\xef\xbb"), "truncated", 2 },
	{ LINES, BYTES("1\n{\"a\":"), "truncated", 7 },
	{ LINES, BYTES("1\n\"a"), "truncated", 4 },
	{ LINES, BYTES("1\n2\n3."), "truncated", 6 },
	{ LINES, BYTES("nul"), "truncated", 3 },
};

static void test_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
		refuse(refused[i].path, MAX_RECORD, refused[i].text, refused[i].len, refused[i].cause,
		       refused[i].offset);
}

static void assert_says(const char *path, const char *text, const char *word)
{
	struct outcome outcome = run_all(path, MAX_RECORD, text, strlen(text));

	assert_non_null(strstr(outcome.err.text, word));
	bytes_done(&outcome.records);
}

static void test_says_why(void **state)
{
	(void)state;
	assert_says("$", "<html>", "looks like HTML or XML");
	assert_says("a", "{\"a\":[],\"a\":[]}", "records = \"a\" stands in the text twice");
	assert_says("a.b", "{\"a\":{\"b\":{}}}", "what stands at records = \"a.b\" is no array");
	assert_says("a.b", "{\"a\":{}}", "no records at offset 8: nothing stands at records = \"a.b\"");
	assert_says(NULL, " ", "empty answer at offset 1: ");
	assert_says(NULL, "[1,]", "expected a value, found ']'");
	assert_says(NULL, "[1\x01]", "expected ',' or ']', found byte 0x01");
	assert_says(LINES, "1\n<p>", "the line begins with '<': it looks like HTML or XML");
	assert_says(LINES, "[\n]", "the line ends before its value does; is it format = \"json\"?");
	assert_says(LINES, "1 2", "expected nothing more after the line's value, found '2'");
	assert_says(LINES, "1\n[", "truncated at offset 3: the text ends before its last line's value does");
}

#define SAMPLE                                                                                                         \
	"{\"n\":-12.50e+3,\r\n\"s\":\"\\u00e5\\n\xf0\x9f\x9a\x97\xc3\xa6\",\"t\":true,\"data\" : "                     \
	"{\"d\\u0061ta\":[{\"a\":[[],null]},"                                                                          \
	" false,1]}}"

#define LINE "1\n{\"a\":[-1.5e+3,\"\\u00e5\xc3\xa6\",true,{}]}"

static void test_every_truncation(void **state)
{
	static const char *const paths[] = { NULL, "n.o", "data.data" };

	(void)state;
	for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
		for (size_t len = 1; len < sizeof SAMPLE - 1; len++)
			refuse(paths[i], MAX_RECORD, SAMPLE, len, "truncated", len);
	accept("data.data", BYTES(SAMPLE), BYTES("{\"a\":[[],null]}\nfalse\n1\n"));
	for (size_t len = 3; len < sizeof LINE - 1; len++)
		refuse(LINES, MAX_RECORD, LINE, len, "truncated", len);
	accept(LINES, BYTES(LINE), BYTES("1\n{\"a\":[-1.5e+3,\"\\u00e5\xc3\xa6\",true,{}]}\n"));
}

/* What RFC 3629 says of the bytes from p on, by decoding them: the length of the character, or 0. */
static size_t character_length(const unsigned char *p)
{
	static const unsigned least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t len = p[0] < 0x80 ? 1 : p[0] >> 5 == 6 ? 2 : p[0] >> 4 == 14 ? 3 : p[0] >> 3 == 30 ? 4 : 0;
	unsigned point = len == 1 ? p[0] : p[0] & (0x7fU >> len);

	for (size_t i = 1; i < len; i++) {
		if (p[i] >> 6 != 2)
			return 0;
		point = point << 6 | (p[i] & 0x3f);
	}
	return len && point >= least[len] && point <= 0x10ffff && point >> 11 != 0x1b ? len : 0;
}

static bool all_characters(const unsigned char *p, size_t len)
{
	for (size_t step; len; p += step, len -= step) {
		step = character_length(p);
		if (!step || step > len)
			return false;
	}
	return true;
}

/* All pairs of bytes from 0x80 on and whatever follows, with none to two bytes of a tail. */
static void test_utf_8(void **state)
{
	(void)state;
	for (unsigned bits = 0; bits < 0x80 * 0x100 * 3; bits++) {
		unsigned tail = bits >> 15;
		unsigned char text[] = { '"', 0x80 | (bits >> 8 & 0x7f), bits & 0xff, '"', '"', '"', 0 };
		struct outcome outcome;

		/* an escape or a closing quote there is another matter */
		if (text[2] == '\\' || text[2] == '"' || text[2] < 0x20)
			continue;
		memset(text + 3, 0xa0, tail);
		outcome = run(NULL, MAX_RECORD, (const char *)text, 4 + tail, bits % 5 + 1);
		if ((outcome.rc == 0) != all_characters(text + 1, 2 + tail))
			fail_msg("%02x %02x and %u more: %s", text[1], text[2], tail, outcome.err.text);
		if (outcome.rc)
			assert_string_equal(outcome.cause, "not-utf-8");
		bytes_done(&outcome.records);
	}
}

static bool is_stray(unsigned c)
{
	return (c >= 0x80 && c < 0xc2) || c > 0xf4;
}

/* Each byte in a string, behind a run of plain ones and before more of them, or before NULs. */
static void byte_in_string(size_t run, unsigned char c, char after)
{
	char text[40], record[41];
	size_t at = run + 1, len = at + 12;

	memset(text, 'n', sizeof text);
	text[0] = text[len - 1] = '"';
	text[at] = (char)c;
	memset(text + at + 1, after, 10);
	snprintf(record, sizeof record, "%.*s\n", (int)len, text);
	if (c >= 0x80)
		refuse(NULL, MAX_RECORD, text, len, "not-utf-8", is_stray(c) ? at : at + 1);
	else if (c < 0x20)
		refuse(NULL, MAX_RECORD, text, len, "not-json", at);
	else if (c == '"' || !after)
		refuse(NULL, MAX_RECORD, text, len, "not-json", at + 1);
	else
		accept(NULL, text, len, record, len + 1);
}

static void test_runs_in_strings(void **state)
{
	(void)state;
	for (size_t run = 0; run <= 17; run++)
		for (unsigned c = 0; c < 256; c++) {
			byte_in_string(run, (unsigned char)c, 'n');
			byte_in_string(run, (unsigned char)c, '\0');
		}
}

/* Each byte behind a run of digits: as a whole number, behind its point, and in its exponent. */
static void byte_after_digits(const char *start, size_t run, unsigned char c)
{
	char text[40], record[41];
	size_t at = 1 + strlen(start) + run, len = at + 2;

	snprintf(text, sizeof text, "[%s%.*s%c]", start, (int)run, "12345678901234567", c);
	snprintf(record, sizeof record, "%.*s\n", (int)(at - 1) + (c >= '0' && c <= '9'), text + 1);
	if ((c >= '0' && c <= '9') || (c && strchr(" \t\r\n", c)))
		accept("$", text, len, record, strlen(record));
	else if (c == ',' || c == ']' || (!strchr(start, 'e') && (c | 0x20) == 'e') || (!*start && c == '.'))
		refuse("$", MAX_RECORD, text, len, "not-json", at + 1);
	else
		refuse("$", MAX_RECORD, text, len, is_stray(c) ? "not-utf-8" : "not-json", at);
}

static void test_runs_of_digits(void **state)
{
	static const char *const starts[] = { "", "-0.", "7e+" };

	(void)state;
	for (size_t i = 0; i < sizeof starts / sizeof *starts; i++)
		for (size_t run = 1; run <= 17; run++)
			for (unsigned c = 0; c < 256; c++)
				byte_after_digits(starts[i], run, (unsigned char)c);
}

#define DENSE                                                                                                          \
	"[{\"12345678\":\"1234567\\u00eA\\n12345678\xc3\xa6\xe2\x82\xac\xf0\x9f\x98\x80 123456789\\\\\\\"\",\r\n  "    \
	"\"n\" : "                                                                                                     \
	"[-12345678.12345678e+123456789,1234567,123456789,0.5E-1,true,false,null]}]"

/* Both in two pieces, cut at i. */
static void cut_at(const char *text, size_t len, size_t i)
{
	struct outcome whole = run("$", MAX_RECORD, text, len, len), two = { .rc = 0 };
	struct split *split = make("$", MAX_RECORD, on_record, &two);

	bytes_init(&two.records, (size_t)64 << 20);
	two.rc = feed_copy(split, text, i, &two.err);
	if (!two.rc)
		two.rc = feed_copy(split, text + i, len - i, &two.err);
	if (!two.rc)
		two.rc = split_finish(split, &two.err);
	assert_int_equal(two.rc, whole.rc);
	assert_string_equal(two.err.text, whole.err.text);
	assert_int_equal(split_offset(split), whole.offset);
	assert_int_equal(bytes_add(&two.records, "", 1), 0);
	assert_string_equal(two.records.data, whole.records.data);
	split_free(split);
	bytes_done(&two.records);
	bytes_done(&whole.records);
}

/* Wherever it is cut in two, and whatever byte of it is broken how. */
static void test_every_cut(void **state)
{
	static const unsigned char breaks[] = { 0, 0x1f, ' ', '"', '\\', '0', 'u', 0x7f, 0x80, 0xc3, 0xe2, 0xf0, 0xff };
	char text[] = DENSE;
	size_t len = sizeof text - 1;

	(void)state;
	for (size_t i = 1; i < len; i++)
		cut_at(text, len, i);
	for (size_t k = 0; k < len; k++) {
		for (size_t b = 0; b < sizeof breaks; b++) {
			text[k] = (char)breaks[b];
			for (size_t i = k > 8 ? k - 8 : 1; i < len && i < k + 8; i++)
				cut_at(text, len, i);
		}
		text[k] = DENSE[k];
	}
}

static void nest(struct bytes *text, unsigned depth)
{
	static const char *const opens[] = { "[", "{\"a\":", "[", "[", "{\"a\":" };
	static const char closes[] = "]}]]}";

	for (unsigned i = 0; i < depth; i++)
		assert_int_equal(bytes_add_text(text, opens[i % 5]), 0);
	assert_int_equal(bytes_add_text(text, "0"), 0);
	for (unsigned i = depth; i > 0; i--)
		assert_int_equal(bytes_add(text, &closes[(i - 1) % 5], 1), 0);
}

static void test_depth(void **state)
{
	struct bytes text;

	(void)state;
	bytes_init(&text, 1 << 16);
	assert_int_equal(bytes_add_text(&text, "["), 0);
	nest(&text, SPLIT_MAX_DEPTH - 1);
	assert_int_equal(bytes_add_text(&text, ","), 0);
	nest(&text, SPLIT_MAX_DEPTH - 1);
	assert_int_equal(bytes_add_text(&text, "]"), 0);
	static const char *const paths[] = { NULL, "$", LINES };

	for (int i = 0; i < 3; i++) {
		struct outcome outcome = run_all(paths[i], MAX_RECORD, (const char *)text.data, text.len);

		assert_int_equal(outcome.rc, 0);
		bytes_done(&outcome.records);
	}
	bytes_clear(&text);
	nest(&text, SPLIT_MAX_DEPTH + 1);
	size_t deepest = (size_t)((unsigned char *)memchr(text.data, '0', text.len) - text.data) - 1;

	refuse(NULL, MAX_RECORD, (const char *)text.data, text.len, "too-deep", deepest);
	refuse(LINES, MAX_RECORD, (const char *)text.data, text.len, "too-deep", deepest);
	bytes_done(&text);
}

static void test_max_record(void **state)
{
	(void)state;
	for (size_t max = 14; max < 40; max++) {
		struct outcome outcome = run_all("$", max, BYTES("[1, [2345, \"6789\"] , {}]"));

		assert_int_equal(outcome.rc, 0);
		bytes_done(&outcome.records);
	}
	for (size_t max = 1; max < 14; max++)
		refuse("$", max, BYTES("[1, [2345,\"67890\"] , {}]"), "record-too-large", 4 + max);
	refuse("$", 2, BYTES("[1, \n\n\n\n 123]"), "record-too-large", 11);
	refuse(NULL, 2, BYTES(" 123"), "record-too-large", 3);
	refuse(NULL, 5, BYTES("\n[1\n\n\n\n]"), "record-too-large", 6);
	/* what goes wrong within the limit is told first, what goes wrong beyond it is not seen */
	refuse("$", 4, BYTES("[\"abc\x01\"]"), "not-json", 5);
	refuse("$", 3, BYTES("[\"abc\x01\"]"), "record-too-large", 4);
	refuse("$", 3, BYTES("[\"abc"), "record-too-large", 4);
	refuse("$", 4, BYTES("[\"abc"), "truncated", 5);
}

static void test_max_record_of_lines(void **state)
{
	(void)state;
	struct outcome outcome = run_all(LINES, 3, BYTES(" 123 \r\n\n  \"4\"  \n     \n567"));

	assert_int_equal(outcome.rc, 0);
	bytes_done(&outcome.records);
	refuse(LINES, 2, BYTES("12\n 345\n6\n"), "record-too-large", 6);
	refuse(LINES, 2, BYTES("12\n345"), "record-too-large", 5);
	refuse(LINES, 4, BYTES("1\n[1,\r2]\n"), "record-too-large", 6);
	refuse(LINES, 3, BYTES("[123\n"), "record-too-large", 3);
	refuse(LINES, 4, BYTES("[123\n"), "not-json", 4);
	refuse(LINES, 4, BYTES("[123"), "truncated", 4);
}

struct stop {
	int calls;
	int at;
};

static int on_record_stop(void *arg, const void *data, size_t len)
{
	struct stop *stop = arg;

	(void)data;
	(void)len;
	return ++stop->calls == stop->at ? -ENOSPC : 0;
}

static void test_callback_stops(void **state)
{
	struct stop stop = { .at = 2 };
	struct err err;
	struct split *split;

	(void)state;
	split = make(LINES, MAX_RECORD, on_record_stop, &stop);
	assert_int_equal(split_feed(split, BYTES("1\n2\nx"), &err), -ENOSPC);
	assert_int_equal(stop.calls, 2);
	assert_null(split_cause(split));
	split_free(split);

	stop = (struct stop){ .at = 2 };
	assert_int_equal(split_new("$", MAX_RECORD, on_record_stop, &stop, &split, &err), 0);
	assert_int_equal(split_feed(split, BYTES("[1,2,3,x"), &err), -ENOSPC);
	assert_int_equal(stop.calls, 2);
	assert_null(split_cause(split));
	split_free(split);

	/* a number that only the text's end ends */
	stop = (struct stop){ .at = 1 };
	assert_int_equal(split_new(NULL, MAX_RECORD, on_record_stop, &stop, &split, &err), 0);
	assert_int_equal(split_feed(split, BYTES("12"), &err), 0);
	assert_int_equal(stop.calls, 0);
	assert_int_equal(split_finish(split, &err), -ENOSPC);
	split_free(split);

	/* one that is cut short is none */
	stop = (struct stop){ .at = 1 };
	assert_int_equal(split_new("$", MAX_RECORD, on_record_stop, &stop, &split, &err), 0);
	assert_int_equal(split_feed(split, BYTES("[12"), &err), 0);
	assert_int_equal(split_finish(split, &err), -EBADMSG);
	assert_int_equal(stop.calls, 0);
	split_free(split);
	split_free(NULL);
}

static void test_paths(void **state)
{
	static const char *const good[] = { NULL, "$",   "a",          "data.stations", "a.b.c",
		                            "$x", "a.$", "\xc3\xa5 b", "a[b]",          "a]" };
	static const char *const bad[] = { "", ".", "a.", ".a", "a..b", "$.", "$.a", "data[0].x", "$[*]", "a[]" };
	struct split *split = NULL;
	struct err err;

	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++)
		assert_int_equal(split_check_path(good[i], &err), 0);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		err.text[0] = '\0';
		assert_int_equal(split_check_path(bad[i], &err), -EINVAL);
		assert_non_null(strstr(err.text, "path"));
		assert_int_equal(split_new(bad[i], MAX_RECORD, on_record, NULL, &split, &err), -EINVAL);
		assert_null(split);
	}
	assert_int_equal(split_check_path("", NULL), -EINVAL);
}

/* 8 MB of records of 40 bytes leave nothing behind but the room for one. */
static void assert_small(const char *path, const char *record, const char *before, const char *after)
{
	static char piece[1000 * 41];
	struct stop stop = { 0 };
	struct split *split;
	size_t in_use;

	assert_int_equal(strlen(record), 41);
	for (size_t i = 0; i < sizeof piece; i += 41)
		memcpy(piece + i, record, 41);
	in_use = mallinfo2().uordblks;
	split = make(path, (size_t)1 << 20, on_record_stop, &stop);
	assert_int_equal(split_feed(split, before, strlen(before), NULL), 0);
	for (int i = 0; i < 200; i++) {
		assert_int_equal(split_feed(split, piece, sizeof piece - 20, NULL), 0);
		assert_int_equal(split_feed(split, piece + sizeof piece - 20, 20, NULL), 0);
	}
	assert_true(mallinfo2().uordblks - in_use < 2048);
	assert_int_equal(split_feed(split, after, strlen(after), NULL), 0);
	assert_int_equal(split_finish(split, NULL), 0);
	assert_int_equal(stop.calls, 200001);
	split_free(split);
}

static void test_memory(void **state)
{
	(void)state;
	assert_small("$", "{\"a\":\"a value\",\n\"b\":[ 1234567890, true]},", "[", "1]");
	assert_small(LINES, "{\"a\":\"a value\",\r\"b\":[ 1234567890, true]}\n", "\n", "1");
}

/* A line without an end costs max_record, not what comes; so does white space without an end. */
static void test_endless_line(void **state)
{
	static char piece[4096];
	struct split *split = make(LINES, 10000, on_record_stop, &(struct stop){ 0 });
	size_t in_use = mallinfo2().uordblks;

	(void)state;
	memset(piece, ' ', sizeof piece);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(split_feed(split, piece, sizeof piece, NULL), 0);
	memset(piece, '7', sizeof piece);
	assert_int_equal(split_feed(split, piece, sizeof piece, NULL), 0);
	assert_int_equal(split_feed(split, piece, sizeof piece, NULL), 0);
	assert_int_equal(split_feed(split, piece, sizeof piece, NULL), -EMSGSIZE);
	assert_int_equal(split_offset(split), 1000 * sizeof piece + 10000);
	assert_true(mallinfo2().uordblks - in_use < 10000 + 256);
	split_free(split);
}

/* A record far larger than a piece, and a number far larger than any type. */
static void test_large(void **state)
{
	size_t len = (size_t)1 << 20;
	char *text = malloc(len);
	struct outcome outcome;

	(void)state;
	assert_non_null(text);
	memset(text, '7', len);
	text[0] = '[';
	text[len - 1] = ']';
	outcome = run("$", len - 2, text, len, 4093);
	assert_int_equal(outcome.rc, 0);
	assert_int_equal(outcome.records.len, len);
	assert_memory_equal(outcome.records.data, text + 1, len - 2);
	bytes_done(&outcome.records);
	outcome = run("$", len - 3, text, len, 4093);
	assert_int_equal(outcome.rc, -EMSGSIZE);
	bytes_done(&outcome.records);
	free(text);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kept),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_says_why),
		cmocka_unit_test(test_every_truncation),
		cmocka_unit_test(test_utf_8),
		cmocka_unit_test(test_runs_in_strings),
		cmocka_unit_test(test_runs_of_digits),
		cmocka_unit_test(test_every_cut),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_max_record),
		cmocka_unit_test(test_max_record_of_lines),
		cmocka_unit_test(test_callback_stops),
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_endless_line),
		cmocka_unit_test(test_large),
	};

	return cmocka_run_group_tests_name("split", tests, NULL, NULL);
}
