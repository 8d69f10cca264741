/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"

static void test_layers(void **state)
{
	(void)state;
	struct err err;
	assert_int_equal(err_fail(&err, -ENOENT, "GET %s: status %d", "http://x", 404), -ENOENT);
	err_prefix(&err, "source \"%s\"", "parking");
	assert_string_equal(err.text, "source \"parking\": GET http://x: status 404");
	err_fail(&err, -EIO, "again: %s", err.text);
	assert_string_equal(err.text, "again: source \"parking\": GET http://x: status 404");
	assert_int_equal(err_fail(NULL, -EIO, "nobody reads it"), -EIO);
	err_prefix(NULL, "nor this");
}

static void test_fits_exactly(void **state)
{
	(void)state;
	struct err err;
	char text[ERR_MAX];
	memset(text, 'x', ERR_MAX - 1);
	text[ERR_MAX - 1] = '\0';
	memcpy(text + ERR_MAX - 4, "€", 3);
	err_fail(&err, -EIO, "%s", text);
	assert_string_equal(err.text, text);
}

/* Four bytes a character, begun at each offset: the cut must fall between two of them. */
static void test_cut_between_characters(void **state)
{
	(void)state;
	for (size_t offset = 0; offset < 4; offset++) {
		char text[2 * ERR_MAX + 1] = "abcd";
		for (size_t at = offset; at + 4 < sizeof text; at += 4)
			memcpy(text + at, "🅿", 5);
		struct err err;
		err_fail(&err, -EIO, "%s", text);
		assert_int_equal(strlen(err.text), offset + (ERR_MAX - 1 - offset) / 4 * 4);
		err_fail(&err, -EIO, "short");
		err_prefix(&err, "%s", text);
		assert_int_equal(strlen(err.text), offset + (ERR_MAX - 1 - offset) / 4 * 4);
	}
}

static void test_prefix_cuts_the_end(void **state)
{
	(void)state;
	struct err err;
	char text[ERR_MAX];
	memset(text, 'x', ERR_MAX - 1);
	text[ERR_MAX - 1] = '\0';
	err_fail(&err, -EIO, "%s", text);
	err_prefix(&err, "store");
	assert_memory_equal(err.text, "store: xxx", 10);
	assert_int_equal(strlen(err.text), ERR_MAX - 1);
}

static void assert_place(int code, const char *path, const char *expected)
{
	struct err err;
	assert_int_equal(err_place(&err, code, "buffer", path), code);
	assert_string_equal(err.text, expected);
}

static void test_place(void **state)
{
	(void)state;
	assert_place(-ENOENT, "/var/lib/millrace/buffer.db",
	             "the folder \"/var/lib/millrace\" of the buffer does not exist: create it (mkdir -p "
	             "/var/lib/millrace)");
	assert_place(-ENOTDIR, "/a/b/c",
	             "\"/a/b\" cannot be the folder of the buffer: it, or what is above it, is a file");
	assert_place(
	        -EACCES, "/c",
	        "no permission for the buffer \"/c\": this user must be able to write there, to the folder \"/\" and "
	        "to the file where it exists");
	assert_place(-ENOENT, "c", "the folder \".\" of the buffer does not exist: create it (mkdir -p .)");
	assert_place(-EISDIR, "/a", "the buffer cannot be \"/a\", which is a folder: name a file in it");
	assert_place(-EROFS, "/a/b", "buffer \"/a/b\": Read-only file system");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_layers),
		cmocka_unit_test(test_place),
		cmocka_unit_test(test_fits_exactly),
		cmocka_unit_test(test_cut_between_characters),
		cmocka_unit_test(test_prefix_cuts_the_end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
