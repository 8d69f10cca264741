/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/utf8.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Each end of each length, and of the gap that surrogates leave. */
static const struct {
	const char *text;
	uint32_t code;
} characters[] = {
	{ "\x01", 1 },
	{ "\x7f", 0x7f },
	{ "\xc2\x80", 0x80 },
	{ "\xdf\xbf", 0x7ff },
	{ "\xe0\xa0\x80", 0x800 },
	{ "\xed\x9f\xbf", 0xd7ff },
	{ "\xee\x80\x80", 0xe000 },
	{ "\xef\xbf\xbf", 0xffff },
	{ "\xf0\x90\x80\x80", 0x10000 },
	{ "\xf4\x8f\xbf\xbf", 0x10ffff },
};

static void test_characters(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(characters); i++) {
		size_t len = strlen(characters[i].text);
		uint32_t code = 0;
		assert_int_equal(utf8_decode(characters[i].text, len, &code), len);
		assert_int_equal(code, characters[i].code);
		assert_int_equal(utf8_decode(characters[i].text, UTF8_MAX, NULL), len);
	}
	assert_int_equal(utf8_decode("", 1, NULL), 1); /* NUL is a character, too */
}

/* The sanitizers see a look at what is not there. */
static void test_ends_of_text(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(characters); i++) {
		size_t len = strlen(characters[i].text);
		for (size_t there = 1; there < len; there++) {
			char *text = malloc(there + 1);
			uint32_t code = 77;
			assert_non_null(text);
			memcpy(text, characters[i].text, there);
			text[there] = '\0';
			assert_int_equal(utf8_decode(text, there, &code), 0);
			assert_int_equal(utf8_decode(text, UTF8_MAX, &code), 0);
			assert_int_equal(code, 77);
			free(text);
		}
	}
}

static void test_wrong_bytes(void **state)
{
	(void)state;
	static const char *const wrong[] = {
		"\x80",
		"\xbf",
		"\xc0\x80",
		"\xc1\xbf", /* longer than need be */
		"\xe0\x80\x80",
		"\xe0\x9f\xbf",
		"\xf0\x80\x80\x80",
		"\xf0\x8f\xbf\xbf",
		"\xed\xa0\x80",
		"\xed\xbf\xbf", /* surrogates */
		"\xf4\x90\x80\x80",
		"\xf7\xbf\xbf\xbf",
		"\xf8\x88\x80\x80",
		"\xfe\x80\x80\x80",
		"\xff\xbf\xbf\xbf",
		"\xc2 ",
		"\xc3\xc3",
		"\xe2\x82 ",
		"\xe2 \x82",
		"\xf0\x9f\x85 ",
	};
	for (size_t i = 0; i < COUNT(wrong); i++)
		if (utf8_decode(wrong[i], strlen(wrong[i]), NULL) != 0)
			fail_msg("number %zu is taken for a character", i);
}

static void test_what_breaks_a_line(void **state)
{
	(void)state;
	static const uint32_t breaks[] = { 0, '\n', '\r', '\t', 0x1f, 0x7f, 0x80, 0x85, 0x9f, 0x2028, 0x2029 };
	static const uint32_t stays[] = { ' ', '~', 0xa0, 0xe5, 0x2027, 0x202a, 0x1f17f };
	for (size_t i = 0; i < COUNT(breaks); i++)
		assert_true(utf8_breaks_line(breaks[i]));
	for (size_t i = 0; i < COUNT(stays); i++)
		assert_false(utf8_breaks_line(stays[i]));
}

static void test_cuts(void **state)
{
	(void)state;
	static const char text[] = "a\xc3\xa5\xe2\x82\xac\xf0\x9f\x85\xbfz";
	static const size_t cuts[] = { 0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11 };
	assert_int_equal(COUNT(cuts), sizeof text);
	for (size_t len = 0; len < sizeof text; len++)
		assert_int_equal(utf8_cut(text, len), cuts[len]);
	/* of what is no text no more is lost than of a character */
	assert_int_equal(utf8_cut("\x80\x80\x80\x80\x80\x80\x80\x80", 7), 4);
	assert_int_equal(utf8_cut("\x80\x80\x80", 1), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_characters),  cmocka_unit_test(test_ends_of_text),
		cmocka_unit_test(test_wrong_bytes), cmocka_unit_test(test_what_breaks_a_line),
		cmocka_unit_test(test_cuts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
