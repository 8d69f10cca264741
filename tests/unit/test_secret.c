/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/secret.h"

#define VARIABLE "MILLRACE_TEST_SECRET"

static char folder[256], path[300], reference[320];

static int setup(void **state)
{
	(void)state;
	const char *tmp = getenv("TMPDIR");
	snprintf(folder, sizeof folder, "%s/millrace-test-XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof path, "%s/key", folder);
	snprintf(reference, sizeof reference, "file:%s", path);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(path);
	rmdir(folder);
	unsetenv(VARIABLE);
	return 0;
}

static void put(const void *data, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, len), len);
	close(fd);
}

static void put_text(const char *text)
{
	put(text, strlen(text));
}

static void gives(const char *ref, const char *expected)
{
	struct err err = { "" };
	char *secret = NULL;
	if (secret_read(ref, folder, &secret, &err) != 0)
		fail_msg("%s: %s", ref, err.text);
	assert_string_equal(secret, expected);
	secret_free(secret);
}

static void refuses(const char *ref, int error, const char *text)
{
	struct err err = { "" };
	char untouched[] = "untouched", *secret = untouched;
	assert_int_equal(secret_read(ref, folder, &secret, &err), error);
	assert_ptr_equal(secret, untouched);
	assert_string_equal(err.text, text);
}

/* The same where the reference is the file's, whose path differs from run to run. */
static void refuses_file(int error, const char *text)
{
	char whole[512];
	snprintf(whole, sizeof whole, "%s: %s", reference, text);
	refuses(reference, error, whole);
}

static void test_first_line_of_a_file(void **state)
{
	(void)state;
	put_text("wJalr/K7+=\n");
	gives(reference, "wJalr/K7+=");
	gives("file:key", "wJalr/K7+="); /* seen from the folder */
	gives("file:./key", "wJalr/K7+=");
	put_text("no line end");
	gives(reference, "no line end");
	put_text("from Windows\r\nsecond\r\n");
	gives(reference, "from Windows");
	put_text(" spaces and æøå \nsecond");
	gives(reference, " spaces and æøå ");
}

/* secret_free overwrites up to the NUL: nothing may stand behind it. */
static void test_nothing_of_the_other_lines_stays(void **state)
{
	(void)state;
	char *secret;
	put_text("first\nsecond");
	assert_int_equal(secret_read(reference, folder, &secret, NULL), 0);
	static const char nothing[sizeof "second"];
	assert_memory_equal(secret + strlen("first"), nothing, sizeof nothing);
	secret_free(secret);
	secret_free(NULL);
}

static void test_files_that_hold_none(void **state)
{
	(void)state;
	refuses_file(-ENOENT, "No such file or directory");
	char text[512];
	snprintf(text, sizeof text, "file:key: %s: No such file or directory", path);
	refuses("file:key", -ENOENT, text);
	put_text("");
	refuses_file(-EINVAL, "the secret is empty");
	put_text("\nsecond");
	refuses_file(-EINVAL, "the secret is empty");
	put_text("\r\n");
	refuses_file(-EINVAL, "the secret is empty");
	put_text("a\tb\n");
	refuses_file(-EINVAL, "the secret has a control character (byte 2)");
	put("ab\0c\n", 5);
	refuses_file(-EINVAL, "the secret has a control character (byte 3)");
	put_text("ab\x7f");
	refuses_file(-EINVAL, "the secret has a control character (byte 3)");
	refuses("file:", -EINVAL, "file:: no path stands behind it");
	char whole[512];
	snprintf(reference, sizeof reference, "file:%s", folder);
	snprintf(whole, sizeof whole, "%s: Is a directory", reference);
	refuses(reference, -EISDIR, whole);
}

static void test_fifo_does_not_hang(void **state)
{
	(void)state;
	alarm(10);
	assert_int_equal(mkfifo(path, 0600), 0);
	refuses_file(-EINVAL, "the secret is empty");
	alarm(0);
}

static void test_length_is_bounded(void **state)
{
	(void)state;
	static char longest[4096 + 1], line[4096 + 3 + 1];
	memset(longest, 'x', 4096);
	put_text(longest);
	gives(reference, longest);
	snprintf(line, sizeof line, "%s\r\n", longest);
	put_text(line);
	gives(reference, longest);
	snprintf(line, sizeof line, "%sx", longest);
	put_text(line);
	refuses_file(-EINVAL, "the secret is longer than 4096 bytes");
	setenv(VARIABLE, longest, 1);
	gives("env:" VARIABLE, longest);
	setenv(VARIABLE, line, 1);
	refuses("env:" VARIABLE, -EINVAL, "env:" VARIABLE ": the secret is longer than 4096 bytes");
	gives(longest, longest);
	refuses(line, -EINVAL, "(hidden): the secret is longer than 4096 bytes");
}

static void test_variable(void **state)
{
	(void)state;
	refuses("env:" VARIABLE, -ENOENT, "env:" VARIABLE ": the environment has no such variable");
	refuses("env:", -EINVAL, "env:: no name stands behind it");
	setenv(VARIABLE, "", 1);
	refuses("env:" VARIABLE, -EINVAL, "env:" VARIABLE ": the secret is empty");
	setenv(VARIABLE, "one\ntwo", 1);
	refuses("env:" VARIABLE, -EINVAL, "env:" VARIABLE ": the secret has a control character (byte 4)");
	setenv(VARIABLE, "file:not followed", 1);
	gives("env:" VARIABLE, "file:not followed");
}

static void test_literal(void **state)
{
	(void)state;
	gives("minioadmin", "minioadmin");
	gives("File:x", "File:x");
	refuses("", -EINVAL, "(hidden): the secret is empty");
	refuses("se\x01cret", -EINVAL, "(hidden): the secret has a control character (byte 3)");
}

static void test_what_may_be_shown(void **state)
{
	(void)state;
	assert_string_equal(secret_show("file:/run/key"), "file:/run/key");
	assert_string_equal(secret_show("env:KEY"), "env:KEY");
	assert_string_equal(secret_show("minioadmin"), "(hidden)");
	assert_true(secret_is_literal("minioadmin"));
	assert_true(secret_is_literal(""));
	assert_true(secret_is_literal("file"));
	assert_false(secret_is_literal("file:"));
	assert_false(secret_is_literal("env:KEY"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_first_line_of_a_file),
		TEST(test_nothing_of_the_other_lines_stays),
		TEST(test_files_that_hold_none),
		TEST(test_fifo_does_not_hang),
		TEST(test_length_is_bounded),
		TEST(test_variable),
		TEST(test_literal),
		TEST(test_what_may_be_shown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
