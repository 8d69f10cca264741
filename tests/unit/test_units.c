/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/units.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define DAY_MS       INT64_C(86400000)

struct pair {
	const char *text;
	int64_t value;
};

static void refuses(int (*parse)(const char *text, int64_t *ret_value), const char *const *texts)
{
	for (; *texts; texts++) {
		int64_t value = 77;
		if (parse(*texts, &value) != -EINVAL)
			fail_msg("\"%s\" was taken", *texts);
		assert_int_equal(value, 77);
	}
}

static void test_durations(void **state)
{
	(void)state;
	static const struct pair pairs[] = {
		{ "0s", 0 },          { "1ms", 1 },
		{ "1500ms", 1500 },   { "90s", 90000 },
		{ "2m", 120000 },     { "6h", 21600000 },
		{ "1d", DAY_MS },     { "36h", 36 * 3600000 },
		{ "7d", 7 * DAY_MS }, { "9223372036854775807ms", INT64_MAX },
	};
	for (size_t i = 0; i < COUNT(pairs); i++) {
		char text[UNITS_TEXT_MAX];
		int64_t ms = -1;
		assert_int_equal(units_parse_duration(pairs[i].text, &ms), 0);
		assert_int_equal(ms, pairs[i].value);
		assert_string_equal(units_duration(ms, text), pairs[i].text);
	}
	int64_t ms;
	assert_int_equal(units_parse_duration("120s", &ms), 0);
	char text[UNITS_TEXT_MAX];
	assert_string_equal(units_duration(ms, text), "2m");
}

static void test_wrong_durations(void **state)
{
	(void)state;
	static const char *const wrong[] = { "",
		                             "s",
		                             "90",
		                             "10x",
		                             "-1s",
		                             "+1s",
		                             " 1s",
		                             "1s ",
		                             "1 s",
		                             "1.5s",
		                             "2M",
		                             "1h30m",
		                             "9223372036854775808ms",
		                             "9223372036854776s",
		                             "106751991168d",
		                             "99999999999999999999s",
		                             NULL };
	refuses(units_parse_duration, wrong);
}

static void test_sizes(void **state)
{
	(void)state;
	static const struct pair pairs[] = {
		{ "0", 0 },           { "1", 1 },
		{ "1000", 1000 },     { "64K", 65536 },
		{ "8M", 8388608 },    { "2G", INT64_C(2147483648) },
		{ "1025K", 1049600 }, { "9223372036854775807", INT64_MAX },
	};
	for (size_t i = 0; i < COUNT(pairs); i++) {
		char text[UNITS_TEXT_MAX];
		int64_t bytes = -1;
		assert_int_equal(units_parse_size(pairs[i].text, &bytes), 0);
		assert_int_equal(bytes, pairs[i].value);
		assert_string_equal(units_size(bytes, text), pairs[i].text);
	}
	static const char *const wrong[] = {
		"", "K", "8k", "8MB", "8KK", "-1", "0x10", "1.5M", "9223372036854775808", "8589934592G", NULL
	};
	refuses(units_parse_size, wrong);
}

static void test_ages(void **state)
{
	(void)state;
	static const struct pair pairs[] = {
		{ "0s", -5 },
		{ "0s", 499 },
		{ "1s", 500 },
		{ "4s", 4200 },
		{ "59s", 59499 },
		{ "1m", 59500 },
		{ "12m", 12 * 60000 },
		{ "13m", 12 * 60000 + 30000 },
		{ "59m", 59 * 60000 },
		{ "1h", 3599000 },
		{ "3h 5m", 11100000 },
		{ "23h 59m", DAY_MS - 60000 },
		{ "1d", DAY_MS - 1000 },
		{ "2d 4h", 2 * DAY_MS + 4 * 3600000 },
		{ "3d", 3 * DAY_MS - 60000 },
	};
	for (size_t i = 0; i < COUNT(pairs); i++) {
		char text[UNITS_TEXT_MAX];
		assert_string_equal(units_age(pairs[i].value, text), pairs[i].text);
	}
	char text[UNITS_TEXT_MAX];
	assert_string_equal(units_age(INT64_MAX, text), "106751991167d 7h");
}

static void test_volumes(void **state)
{
	(void)state;
	static const struct pair pairs[] = {
		{ "0 B", 0 },          { "812 B", 812 },          { "1023 B", 1023 },
		{ "1.0 KB", 1024 },    { "1.2 MB", 1258291 },     { "1023.9 KB", 1048524 },
		{ "1.0 MB", 1048575 }, { "512.0 MB", 536870912 }, { "8.0 EB", INT64_MAX },
	};
	for (size_t i = 0; i < COUNT(pairs); i++) {
		char text[UNITS_TEXT_MAX];
		assert_string_equal(units_volume(pairs[i].value, text), pairs[i].text);
	}
}

static void test_times(void **state)
{
	(void)state;
	static const struct pair pairs[] = {
		{ "1970-01-01T00:00:00.000Z", 0 },
		{ "1969-12-31T23:59:59.999Z", -1 },
		{ "2026-11-21T10:02:00.123Z", INT64_C(1795255320123) },
		{ "2024-02-29T23:59:59.000Z", INT64_C(1709251199000) },
		{ "2000-02-29T00:00:00.000Z", INT64_C(951782400000) },
		{ "0000-01-01T00:00:00.000Z", INT64_C(-62167219200000) },
		{ "9999-12-31T23:59:59.999Z", INT64_C(253402300799999) },
	};
	for (size_t i = 0; i < COUNT(pairs); i++) {
		char text[UNITS_TEXT_MAX];
		int64_t ms = 1;
		assert_string_equal(units_time(pairs[i].value, text), pairs[i].text);
		assert_int_equal(units_parse_time(text, &ms), 0);
		assert_true(ms == pairs[i].value);
	}
	char text[UNITS_TEXT_MAX];
	assert_string_equal(units_time(INT64_MAX, text), "9999-12-31T23:59:59.999Z");
	assert_string_equal(units_time(INT64_MIN, text), "0000-01-01T00:00:00.000Z");
}

static void test_wrong_times(void **state)
{
	(void)state;
	static const char *const wrong[] = {
		"",
		"2026-11-21",
		"2026-11-21T10:02:00Z",
		"2026-11-21 10:02:00.123Z",
		"2026-11-21T10:02:00.123z",
		"2026-11-21T10:02:00.123Z ",
		"2026-02-30T10:02:00.123Z",
		"2025-02-29T10:02:00.123Z",
		"2026-13-01T10:02:00.123Z",
		"2026-00-01T10:02:00.123Z",
		"2026-11-21T24:00:00.000Z",
		"2026-11-21T10:60:00.000Z",
		"2026-12-31T23:59:60.000Z",
		"2026-11-21T10:02: 0.123Z",
		"-026-11-21T10:02:00.123Z",
		NULL,
	};
	refuses(units_parse_time, wrong);
}

static void test_days(void **state)
{
	(void)state;
	char text[UNITS_TEXT_MAX];
	assert_string_equal(units_date(INT64_C(1795255320123), text), "2026-11-21");
	assert_int_equal(units_day(INT64_C(1795255320123)), 20778);
	assert_int_equal(units_day(DAY_MS - 1), 0);
	assert_int_equal(units_day(DAY_MS), 1);
	assert_int_equal(units_day(-1), -1);
	assert_int_equal(units_day(-DAY_MS), -1);
	static const char *const wrong[] = {
		"", "2026-11-2", "2026-11-211", "2026-02-30", "2026-11-21 ", "21-11-2026", "2026-11-21T10:02:00Z", NULL
	};
	int64_t day = 7;
	assert_int_equal(units_parse_date("2026-11-21", &day), 0);
	assert_true(day == 20778);
	assert_int_equal(units_parse_date("1969-12-31", &day), 0);
	assert_true(day == -1);
	refuses(units_parse_date, wrong);
}

static void test_names(void **state)
{
	(void)state;
	static const char longest[] = "a23456789012345678901234567890123456789012345678901234567890123";
	static const char *const good[] = { "a", "stavanger-parking", "x_1-", "truest", longest, NULL };
	static const char *const bad[] = { "",    "_polls", "1a",    "-a",    "Parking", "a b",
		                           "a.b", "true",   "false", "parké", "a/b",     NULL };
	for (size_t i = 0; good[i]; i++)
		assert_true(units_is_name(good[i]));
	for (size_t i = 0; bad[i]; i++)
		assert_false(units_is_name(bad[i]));
	char longer[sizeof longest + 1];
	strcpy(longer, longest);
	strcat(longer, "4");
	assert_false(units_is_name(longer));
	assert_true(units_is_device(longest));
	assert_false(units_is_device(longer));
}

static void test_devices(void **state)
{
	(void)state;
	static const char *const good[] = { "pi-01", "PI.lan", "...", "_", "7", NULL };
	static const char *const bad[] = { "", ".", "..", "a/b", "pi 1", "pié", "a@b", "[", "a\n", NULL };
	for (size_t i = 0; good[i]; i++)
		assert_true(units_is_device(good[i]));
	for (size_t i = 0; bad[i]; i++)
		assert_false(units_is_device(bad[i]));
}

static void test_nearest(void **state)
{
	(void)state;
	static const char *const words[] = { "url",      "every",     "format", "timeout", "connect_timeout",
		                             "max_body", "max_record" };
	static const char *const pairs[][2] = {
		{ "evry", "every" },
		{ "evrey", "every" },
		{ "every", "every" },
		{ "URL", "url" },
		{ "ulr", "url" },
		{ "timout", "timeout" },
		{ "connecttimeout", "connect_timeout" },
		{ "max-record", "max_record" },
	};
	static const char *const far[] = { "", "x", "cron", "interval", "password", "headers" };
	for (size_t i = 0; i < COUNT(pairs); i++) {
		const char *nearest = units_nearest(pairs[i][0], words, COUNT(words));
		assert_non_null(nearest);
		assert_string_equal(nearest, pairs[i][1]);
	}
	for (size_t i = 0; i < COUNT(far); i++)
		assert_null(units_nearest(far[i], words, COUNT(words)));
	assert_null(units_nearest("every", words, 0));
	char longer[200];
	memset(longer, 'a', sizeof longer);
	longer[sizeof longer - 1] = '\0';
	const char *const long_words[] = { longer };
	assert_null(units_nearest(longer, words, COUNT(words)));
	assert_null(units_nearest("aaa", long_words, 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_durations),   cmocka_unit_test(test_wrong_durations),
		cmocka_unit_test(test_sizes),       cmocka_unit_test(test_ages),
		cmocka_unit_test(test_volumes),     cmocka_unit_test(test_times),
		cmocka_unit_test(test_wrong_times), cmocka_unit_test(test_days),
		cmocka_unit_test(test_names),       cmocka_unit_test(test_devices),
		cmocka_unit_test(test_nearest),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
