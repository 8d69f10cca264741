/* SPDX-License-Identifier: Apache-2.0 */
/* Who can be asked stands in a folder of the test's own; timedatectl is a script there. */
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timex.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "board/board.h"

#ifdef SYS_clock_gettime64
#define CLOCK_SYSCALL SYS_clock_gettime64
#else
#define CLOCK_SYSCALL SYS_clock_gettime
#endif

static char root[PATH_MAX / 2];
static time_t leap_each_s, leapt_s;

/* Stands before libc's: each look at the time finds it so much later. */
int clock_gettime(clockid_t id, struct timespec *now)
{
	long rc = syscall(CLOCK_SYSCALL, id, now);
	leapt_s += leap_each_s;
	if (rc == 0)
		now->tv_sec += leapt_s;
	return (int)rc;
}

static void make_folder(const char *name)
{
	char path[PATH_MAX];
	snprintf(path, sizeof path, "%s%s", root, name);
	assert_int_equal(mkdir(path, 0700), 0);
}

static void write_file(const char *name, const char *content, mode_t mode)
{
	char path[PATH_MAX];
	snprintf(path, sizeof path, "%s%s", root, name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, mode);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, content, strlen(content)), strlen(content));
	assert_int_equal(close(fd), 0);
}

static bool is_there(const char *name)
{
	char path[PATH_MAX];
	snprintf(path, sizeof path, "%s%s", root, name);
	return access(path, F_OK) == 0;
}

static int setup(void **state)
{
	(void)state;
	const char *tmp = getenv("TMPDIR");
	snprintf(root, sizeof root, "%s/test_board_clock.XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(root))
		return -1;
	make_folder("/run");
	make_folder("/run/systemd");
	make_folder("/usr");
	make_folder("/usr/bin");
	leapt_s = 0;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static int teardown(void **state)
{
	(void)state;
	return nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* One that leaves a trace behind: so it shows whether it was asked. */
static void write_timedatectl(const char *rest)
{
	char script[PATH_MAX * 2];
	snprintf(script, sizeof script, "#!/bin/sh\necho \"$0 $*\" >'%s/asked'\n%s\n", root, rest);
	write_file("/usr/bin/timedatectl", script, 0700);
}

static void test_nobody_can_be_asked(void **state)
{
	(void)state;
	assert_int_equal(board_clock_state(root), BOARD_CLOCK_UNKNOWN);
}

static void test_timesyncds_flag_is_enough(void **state)
{
	(void)state;
	make_folder("/run/systemd/timesync");
	write_timedatectl("echo NTPSynchronized=no");
	assert_int_equal(board_clock_state(root), BOARD_CLOCK_UNSYNCED);
	write_file("/run/systemd/timesync/synchronized", "", 0600);
	assert_int_equal(board_clock_state(root), BOARD_CLOCK_SYNCED);
	assert_false(is_there("/asked"));
}

static void test_timedatectl_is_asked_where_timesyncd_is_not(void **state)
{
	(void)state;
	write_timedatectl("test \"$*\" = 'show -p NTPSynchronized' && echo NTPSynchronized=yes");
	assert_int_equal(board_clock_state(root), BOARD_CLOCK_SYNCED);
	assert_true(is_there("/asked"));
	write_timedatectl("echo NTPSynchronized=no");
	assert_int_equal(board_clock_state(root), BOARD_CLOCK_UNSYNCED);
}

static void test_a_timedatectl_that_cannot_say(void **state)
{
	(void)state;
	static const char *const scripts[] = {
		"echo NTPSynchronized=yes; exit 1",
		"echo NTPSynchronized=maybe",
		"echo NTPSynchronized=yes; echo more",
		"exit 0",
		"kill -9 $$",
		"head -c 100000 /dev/zero | tr '\\0' y",
		"echo System has not been booted with systemd >&2; exit 1",
	};
	for (size_t i = 0; i < sizeof scripts / sizeof *scripts; i++) {
		write_timedatectl(scripts[i]);
		assert_int_equal(board_clock_state(root), BOARD_CLOCK_UNKNOWN);
		assert_true(is_there("/asked"));
	}
	write_file("/usr/bin/timedatectl", "no program", 0600);
	assert_int_equal(board_clock_state(root), BOARD_CLOCK_UNKNOWN);
}

/* What our environment holds, secrets perhaps, is not handed on. */
static void test_timedatectl_gets_no_environment_of_ours(void **state)
{
	(void)state;
	setenv("LAKE_SECRET", "hunter2", 1);
	write_timedatectl("test -z \"$LAKE_SECRET\" && echo NTPSynchronized=yes");
	assert_int_equal(board_clock_state(root), BOARD_CLOCK_SYNCED);
	unsetenv("LAKE_SECRET");
}

static void test_a_timedatectl_that_hangs_is_killed(void **state)
{
	(void)state;
	int status;
	write_timedatectl("exec sleep 600");
	leap_each_s = 6;
	assert_int_equal(board_clock_state(root), BOARD_CLOCK_UNKNOWN);
	leap_each_s = 0;
	assert_int_equal(waitpid(-1, &status, WNOHANG), -1); /* and nothing is left of it */
}

static void test_the_kernel_is_asked_last(void **state)
{
	(void)state;
	struct timex timex = { .modes = 0 };
	if (access("/run/systemd/timesync", F_OK) == 0 || access("/run/systemd/system", F_OK) == 0)
		skip(); /* a machine where others can say */
	enum board_clock kernel = adjtimex(&timex) < 0        ? BOARD_CLOCK_UNKNOWN
	                          : timex.maxerror < 16000000 ? BOARD_CLOCK_SYNCED
	                                                      : BOARD_CLOCK_UNSYNCED;
	assert_int_equal(board_clock_state(""), kernel);
}

static void test_long_root(void **state)
{
	(void)state;
	char longer[PATH_MAX + 1];
	memset(longer, '/', sizeof longer);
	longer[sizeof longer - 1] = '\0';
	assert_int_equal(board_clock_state(longer), BOARD_CLOCK_UNKNOWN);
}

#define ROOT_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ROOT_TEST(test_nobody_can_be_asked),
		ROOT_TEST(test_timesyncds_flag_is_enough),
		ROOT_TEST(test_timedatectl_is_asked_where_timesyncd_is_not),
		ROOT_TEST(test_a_timedatectl_that_cannot_say),
		ROOT_TEST(test_timedatectl_gets_no_environment_of_ours),
		ROOT_TEST(test_a_timedatectl_that_hangs_is_killed),
		cmocka_unit_test(test_the_kernel_is_asked_last),
		cmocka_unit_test(test_long_root),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
