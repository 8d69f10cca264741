/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "board/board.h"

#define BOOT_ID "9f8e7d6c-0123-4567-89ab-cdef01234567"

static char root[PATH_MAX / 2];
static char path[PATH_MAX];

static const char *const folders[] = { "/proc", "/proc/sys", "/proc/sys/kernel", "/proc/sys/kernel/random" };
#define FOLDERS (sizeof folders / sizeof *folders)

static int setup(void **state)
{
	(void)state;
	const char *tmp = getenv("TMPDIR");
	snprintf(root, sizeof root, "%s/test_boot.XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(root))
		return -1;
	for (size_t i = 0; i < FOLDERS; i++) {
		snprintf(path, sizeof path, "%s%s", root, folders[i]);
		if (mkdir(path, 0700) < 0)
			return -1;
	}
	snprintf(path, sizeof path, "%s/proc/sys/kernel/random/boot_id", root);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(path);
	for (size_t i = FOLDERS; i-- > 0;) {
		snprintf(path, sizeof path, "%s%s", root, folders[i]);
		rmdir(path);
	}
	return rmdir(root);
}

static void write_file(const char *content)
{
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	assert_true(fputs(content, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

static void test_reads(void **state)
{
	(void)state;
	char id[BOARD_BOOT_ID];
	struct err err;
	write_file(BOOT_ID "\n");
	assert_int_equal(board_boot_id(root, id, &err), 0);
	assert_string_equal(id, BOOT_ID);
	write_file(BOOT_ID);
	assert_int_equal(board_boot_id(root, id, &err), 0);
	assert_string_equal(id, BOOT_ID);
}

static void test_missing(void **state)
{
	(void)state;
	char id[BOARD_BOOT_ID] = "untouched";
	struct err err;
	assert_int_equal(board_boot_id(root, id, &err), -ENOENT);
	assert_non_null(strstr(err.text, path));
	assert_non_null(strstr(err.text, "No such file or directory"));
	assert_string_equal(id, "untouched");
	assert_int_equal(board_boot_id(root, id, NULL), -ENOENT);
}

static void test_nonsense(void **state)
{
	(void)state;
	static const char *const wrong[] = {
		"",
		"\n",
		"9f8e7d6c-0123-4567-89ab-cdef0123456\n",
		BOOT_ID "8\n",
		BOOT_ID "89",
		"9f8e7d6c-0123-4567-89abccdef01234567\n",
		"9f8e7d6c-0123-4567-89ab-cdef0123456g\n",
		"9f8e7d6c-0123-4567-89a--cdef01234567\n",
	};
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		char id[BOARD_BOOT_ID] = "untouched";
		struct err err;
		write_file(wrong[i]);
		assert_int_equal(board_boot_id(root, id, &err), -EBADMSG);
		assert_non_null(strstr(err.text, path));
		assert_string_equal(id, "untouched");
	}
}

static void test_long_root(void **state)
{
	(void)state;
	char longer[PATH_MAX + 1], id[BOARD_BOOT_ID];
	memset(longer, '/', sizeof longer);
	longer[sizeof longer - 1] = '\0';
	assert_int_equal(board_boot_id(longer, id, NULL), -ENAMETOOLONG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_reads, setup, teardown),
		cmocka_unit_test_setup_teardown(test_missing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nonsense, setup, teardown),
		cmocka_unit_test(test_long_root),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
