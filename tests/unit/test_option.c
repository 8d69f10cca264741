/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/option.h"

struct settings {
	char *url;
	char *prefix;
	char *key;
	int64_t every_ms, timeout_ms;
	int64_t max_body, any_size;
	int64_t parallel, offset;
	bool enabled;
	int format;
	struct option_names stores, words;
	struct option_pairs headers;
};

static int check_url(const char *value, struct err *err)
{
	return strncmp(value, "http", 4) == 0 ? 0 : err_fail(err, -EINVAL, "\"%s\" is no http URL", value);
}

static int check_key(const char *value, struct err *err)
{
	return strchr(value, ' ') ? err_fail(err, -EINVAL, "\"%s\" has a space", value) : 0;
}

static int check_header(const char *name, struct err *err)
{
	return strchr(name, '_') ? err_fail(err, -EINVAL, "\"%s\" has a _", name) : 0;
}

static const char *const formats[] = { "json", "ndjson", "text", NULL };

#define FIELD(member) .offset = offsetof(struct settings, member)

static const struct option table[] = {
	{ .name = "url", .type = OPTION_TEXT, FIELD(url), .required = true, .check = check_url },
	{ .name = "prefix", .type = OPTION_TEXT, FIELD(prefix), .fallback = "" },
	{ .name = "key", .type = OPTION_TEXT, FIELD(key), .secret = true, .check = check_key },
	{ .name = "every", .type = OPTION_DURATION, FIELD(every_ms), .min = 1000 },
	{ .name = "timeout", .type = OPTION_DURATION, FIELD(timeout_ms), .fallback = "30s", .min = 1, .max = 3600000 },
	{ .name = "max_body", .type = OPTION_SIZE, FIELD(max_body), .fallback = "16M", .min = 1024, .max = 1 << 30 },
	{ .name = "any_size", .type = OPTION_SIZE, FIELD(any_size) },
	{ .name = "parallel", .type = OPTION_NUMBER, FIELD(parallel), .fallback = "2", .min = 1, .max = 16 },
	{ .name = "offset", .type = OPTION_NUMBER, FIELD(offset), .min = -5, .max = 0 },
	{ .name = "enabled", .type = OPTION_BOOL, FIELD(enabled), .fallback = "true" },
	{ .name = "format", .type = OPTION_CHOICE, FIELD(format), .fallback = "ndjson", .choices = formats },
	{ .name = "stores", .type = OPTION_NAMES, FIELD(stores) },
	{ .name = "words", .type = OPTION_NAMES, FIELD(words), .check_name = check_header },
	{ .name = "headers",
	  .type = OPTION_PAIRS,
	  FIELD(headers),
	  .secret = true,
	  .check = check_key,
	  .check_name = check_header },
	OPTION_END,
};

static struct settings settings;

static int setup(void **state)
{
	(void)state;
	settings = (struct settings){ 0 };
	return option_defaults(table, &settings);
}

static int teardown(void **state)
{
	(void)state;
	option_done(table, &settings);
	return 0;
}

static int set(const char *name, const char *value, struct err *err)
{
	const struct option *option = option_find(table, name);
	assert_non_null(option);
	return option_set(option, &settings, value, err);
}

static void takes(const char *name, const char *value)
{
	struct err err = { "" };
	if (set(name, value, &err) != 0)
		fail_msg("%s: %s", name, err.text);
}

static void refuses(const char *name, const char *value, const char *text)
{
	struct err err;
	assert_int_equal(set(name, value, &err), -EINVAL);
	assert_string_equal(err.text, text);
}

static void test_defaults(void **state)
{
	(void)state;
	assert_null(settings.url);
	assert_string_equal(settings.prefix, "");
	assert_int_equal(settings.every_ms, 0);
	assert_int_equal(settings.timeout_ms, 30000);
	assert_int_equal(settings.max_body, 16 << 20);
	assert_int_equal(settings.parallel, 2);
	assert_true(settings.enabled);
	assert_int_equal(settings.format, 1);
	assert_null(settings.stores.names);
	assert_int_equal(settings.headers.n, 0);
}

static void test_find(void **state)
{
	(void)state;
	assert_ptr_equal(option_find(table, "url"), &table[0]);
	assert_string_equal(option_find(table, "stores")->name, "stores");
	assert_null(option_find(table, "evry"));
	assert_null(option_find(table, ""));
}

static void test_text(void **state)
{
	(void)state;
	takes("url", "http://one");
	takes("url", "https://two");
	refuses("url", "ftp://three", "\"ftp://three\" is no http URL");
	assert_string_equal(settings.url, "https://two");
	option_done(table, &settings);
	assert_null(settings.url);
}

static void test_duration(void **state)
{
	(void)state;
	takes("every", "1s");
	takes("every", "365d");
	refuses("every", "10x", "\"10x\" is no duration; write it like \"90s\", \"2m\" or \"6h\"");
	refuses("every", "60", "\"60\" is no duration; write it like \"90s\", \"2m\" or \"6h\"");
	refuses("every", "999ms", "\"999ms\" is too little; it must be at least \"1s\"");
	assert_int_equal(settings.every_ms, INT64_C(365) * 86400000);
	takes("timeout", "1h");
	refuses("timeout", "0s", "\"0s\" is out of range; it must be between \"1ms\" and \"1h\"");
	refuses("timeout", "61m", "\"61m\" is out of range; it must be between \"1ms\" and \"1h\"");
	assert_int_equal(settings.timeout_ms, 3600000);
}

static void test_size(void **state)
{
	(void)state;
	takes("max_body", "1K");
	takes("max_body", "1G");
	refuses("max_body", "1023", "\"1023\" is out of range; it must be between \"1K\" and \"1G\"");
	refuses("max_body", "2G", "\"2G\" is out of range; it must be between \"1K\" and \"1G\"");
	refuses("max_body", "8MB", "\"8MB\" is no size; write it in bytes, or like \"64K\", \"8M\" or \"2G\"");
	assert_int_equal(settings.max_body, 1 << 30);
	takes("any_size", "0");
	takes("any_size", "4096G");
	assert_int_equal(settings.any_size, INT64_C(4096) << 30);
}

static void test_number(void **state)
{
	(void)state;
	takes("parallel", "16");
	refuses("parallel", "17", "\"17\" is out of range; it must be between 1 and 16");
	refuses("parallel", "-1", "\"-1\" is out of range; it must be between 1 and 16");
	static const char *const wrong[] = {
		"", "-", "two", "1.5", "1 ", " 1", "+1", "0x1", "9223372036854775808", NULL
	};
	for (size_t i = 0; wrong[i]; i++)
		assert_int_equal(set("parallel", wrong[i], NULL), -EINVAL);
	refuses("parallel", "two", "\"two\" is no whole number; write it like 100");
	assert_int_equal(settings.parallel, 16);
	takes("offset", "-5");
	assert_int_equal(settings.offset, -5);
	refuses("offset", "1", "\"1\" is out of range; it must be between -5 and 0");
}

static void test_bool(void **state)
{
	(void)state;
	takes("enabled", "false");
	assert_false(settings.enabled);
	refuses("enabled", "yes", "\"yes\" is neither true nor false");
	takes("enabled", "true");
	assert_true(settings.enabled);
}

static void test_choice(void **state)
{
	(void)state;
	takes("format", "text");
	refuses("format", "jsn", "\"jsn\" is not one of \"json\", \"ndjson\", \"text\"; did you mean \"json\"?");
	refuses("format", "parquet", "\"parquet\" is not one of \"json\", \"ndjson\", \"text\"");
	assert_int_equal(settings.format, 2);
}

static void test_names(void **state)
{
	(void)state;
	takes("stores", "");
	assert_non_null(settings.stores.names);
	assert_int_equal(settings.stores.n, 0);
	takes("stores", " lake , disk-2,x");
	assert_int_equal(settings.stores.n, 3);
	assert_string_equal(settings.stores.names[0], "lake");
	assert_string_equal(settings.stores.names[1], "disk-2");
	assert_string_equal(settings.stores.names[2], "x");
	refuses("stores", "lake,Disk",
	        "\"Disk\" is no name; write small letters, digits, _ and -, a letter first, up to 63");
	refuses("stores", "lake,disk,lake", "\"lake\" stands there twice");
	static const char *const wrong[] = { "lake,", ",lake", "a,,b", "a, ,b", ",", "a b", NULL };
	for (size_t i = 0; wrong[i]; i++)
		assert_int_equal(set("stores", wrong[i], NULL), -EINVAL);
	assert_int_equal(settings.stores.n, 3);
	takes("stores", "lake");
	assert_int_equal(settings.stores.n, 1);
	takes("words", "A word,B"); /* its own check alone */
	assert_string_equal(settings.words.names[0], "A word");
	refuses("words", "a,_b", "\"_b\" has a _");
	refuses("words", "a,b,a", "\"a\" stands there twice");
	assert_int_equal(settings.words.n, 2);
}

static void test_secret_is_not_repeated(void **state)
{
	(void)state;
	takes("key", "minioadmin");
	takes("key", "file:/run/key");
	refuses("key", "mini oadmin", "the secret that stands here is not taken; it is not shown");
	refuses("key", "file:/run/my key", "\"file:/run/my key\" has a space"); /* a reference is none */
	assert_int_equal(set("key", "mini oadmin", NULL), -EINVAL);
	assert_string_equal(settings.key, "file:/run/key");
}

static void test_pairs(void **state)
{
	(void)state;
	takes("headers", "X-Api-Key: file:/run/key");
	takes("headers", "Accept: a: b");
	takes("headers", "Empty: ");
	assert_int_equal(settings.headers.n, 3);
	assert_string_equal(settings.headers.pairs[0].name, "X-Api-Key");
	assert_string_equal(settings.headers.pairs[0].reference, "file:/run/key");
	assert_null(settings.headers.pairs[0].value);
	assert_string_equal(settings.headers.pairs[1].name, "Accept");
	assert_string_equal(settings.headers.pairs[1].reference, "a: b");
	assert_string_equal(settings.headers.pairs[2].reference, "");
	refuses("headers", "x-api-KEY: 1", "the name stands there twice; capitals make no difference");
	refuses("headers", "X_Key: 1", "\"X_Key\" has a _");
	assert_int_equal(settings.headers.n, 3);
	option_done(table, &settings);
	assert_int_equal(settings.headers.n, 0);
	assert_null(settings.headers.pairs);
}

static void test_pairs_have_a_ceiling(void **state)
{
	(void)state;
	char pair[32];
	for (int i = 0; i < OPTION_PAIRS_MAX; i++) {
		snprintf(pair, sizeof pair, "Name-%d: text", i);
		takes("headers", pair);
	}
	refuses("headers", "Other: text", "it is one too many; up to 32 are taken");
	assert_int_equal(settings.headers.n, 32);
}

static int read_pair(size_t i, struct err *err)
{
	return option_read_pair(option_find(table, "headers"), &settings.headers.pairs[i], "/none", err);
}

static void test_pairs_are_read(void **state)
{
	(void)state;
	struct err err = { "" };
	takes("headers", "A: env:MILLRACE_TEST_PAIR");
	takes("headers", "B: literal");
	takes("headers", "C: has space");
	takes("headers", "D: file:key");
	setenv("MILLRACE_TEST_PAIR", "one", 1);
	assert_int_equal(read_pair(0, &err), 0);
	assert_string_equal(settings.headers.pairs[0].value, "one");
	setenv("MILLRACE_TEST_PAIR", "two", 1);
	assert_int_equal(read_pair(0, &err), 0);
	assert_string_equal(settings.headers.pairs[0].value, "two");
	assert_int_equal(read_pair(1, &err), 0);
	assert_string_equal(settings.headers.pairs[1].value, "literal");

	assert_int_equal(read_pair(2, &err), -EINVAL);
	assert_string_equal(err.text, "(hidden): its value is not taken there; it is not shown");
	assert_null(settings.headers.pairs[2].value);
	setenv("MILLRACE_TEST_PAIR", "has space", 1);
	assert_int_equal(read_pair(0, &err), -EINVAL);
	assert_string_equal(err.text, "env:MILLRACE_TEST_PAIR: its value is not taken there; it is not shown");
	assert_string_equal(settings.headers.pairs[0].value, "two");
	assert_int_equal(read_pair(3, &err), -ENOENT);
	assert_string_equal(err.text, "file:key: /none/key: No such file or directory");
}

/* Writes a value into a copy of the settings and tells whether it is then another one. */
static bool differs_with(const char *name, const char *value)
{
	struct settings other = { 0 };
	struct err err;
	assert_int_equal(option_defaults(table, &other), 0);
	assert_true(option_equal(table, &settings, &other));
	assert_int_equal(option_set(option_find(table, name), &other, value, &err), 0);
	bool equal = option_equal(table, &settings, &other);
	assert_int_equal(option_equal(table, &other, &settings), equal);
	option_done(table, &other);
	return !equal;
}

static void test_equal(void **state)
{
	(void)state;
	static const char *const others[][2] = {
		{ "url", "http://one" }, { "prefix", "x" },        { "key", "x" },       { "every", "1s" },
		{ "timeout", "31s" },    { "max_body", "15M" },    { "any_size", "1" },  { "parallel", "3" },
		{ "offset", "-1" },      { "enabled", "false" },   { "format", "json" }, { "stores", "" },
		{ "stores", "lake" },    { "headers", "A: text" },
	};
	static const char *const same[][2] = {
		{ "prefix", "" }, { "timeout", "30000ms" }, { "max_body", "16777216" }, { "enabled", "true" }
	};
	for (size_t i = 0; i < sizeof others / sizeof *others; i++)
		if (!differs_with(others[i][0], others[i][1]))
			fail_msg("%s = %s makes no difference", others[i][0], others[i][1]);
	for (size_t i = 0; i < sizeof same / sizeof *same; i++)
		assert_false(differs_with(same[i][0], same[i][1]));
}

static void test_equal_lists(void **state)
{
	(void)state;
	struct settings other = { 0 };
	struct err err;
	const struct option *stores = option_find(table, "stores"), *headers = option_find(table, "headers");
	assert_int_equal(option_defaults(table, &other), 0);
	takes("stores", "lake,disk");
	assert_int_equal(option_set(stores, &other, "lake,disc", &err), 0);
	assert_false(option_equal(table, &settings, &other));
	assert_int_equal(option_set(stores, &other, "lake , disk", &err), 0);
	assert_true(option_equal(table, &settings, &other));

	takes("headers", "A: env:MILLRACE_TEST_PAIR");
	assert_int_equal(option_set(headers, &other, "A: env:MILLRACE_TEST_PAIR", &err), 0);
	assert_true(option_equal(table, &settings, &other));
	setenv("MILLRACE_TEST_PAIR", "one", 1);
	assert_int_equal(read_pair(0, &err), 0);
	assert_false(option_equal(table, &settings, &other)); /* one was read */
	assert_int_equal(option_read_pair(headers, &other.headers.pairs[0], "/", &err), 0);
	assert_true(option_equal(table, &settings, &other));
	setenv("MILLRACE_TEST_PAIR", "two", 1);
	assert_int_equal(option_read_pair(headers, &other.headers.pairs[0], "/", &err), 0);
	assert_false(option_equal(table, &settings, &other)); /* the same reference to another secret */
	option_done(table, &other);
	option_done(table, &settings);

	takes("headers", "A: one");
	assert_int_equal(option_set(headers, &other, "A: one", &err), 0);
	assert_true(option_equal(table, &settings, &other));
	option_done(table, &other);
	assert_int_equal(option_set(headers, &other, "A: two", &err), 0);
	assert_false(option_equal(table, &settings, &other));
	option_done(table, &other);
	assert_int_equal(option_set(headers, &other, "B: one", &err), 0);
	assert_false(option_equal(table, &settings, &other));
	option_done(table, &other);
}

/* The advice must still be read behind a value of any length, and no half character stand before it. */
static void test_long_value_is_cut(void **state)
{
	(void)state;
	char value[1000] = "x";
	for (size_t at = 1; at + 3 < sizeof value; at += 2)
		memcpy(value + at, "å", 3);
	struct err err;
	assert_int_equal(set("every", value, &err), -EINVAL);
	const char *rest = strstr(err.text, "å…\" is no duration; write it like");
	assert_non_null(rest);
	assert_int_equal(rest + strlen("å") - err.text, 1 + 75);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_defaults, setup, teardown),
		cmocka_unit_test_setup_teardown(test_find, setup, teardown),
		cmocka_unit_test_setup_teardown(test_text, setup, teardown),
		cmocka_unit_test_setup_teardown(test_duration, setup, teardown),
		cmocka_unit_test_setup_teardown(test_size, setup, teardown),
		cmocka_unit_test_setup_teardown(test_number, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bool, setup, teardown),
		cmocka_unit_test_setup_teardown(test_choice, setup, teardown),
		cmocka_unit_test_setup_teardown(test_names, setup, teardown),
		cmocka_unit_test_setup_teardown(test_secret_is_not_repeated, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pairs, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pairs_have_a_ceiling, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pairs_are_read, setup, teardown),
		cmocka_unit_test_setup_teardown(test_equal, setup, teardown),
		cmocka_unit_test_setup_teardown(test_equal_lists, setup, teardown),
		cmocka_unit_test_setup_teardown(test_long_value_is_cut, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
