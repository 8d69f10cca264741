/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/timex.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "board/board.h"

#define TIMESYNC      "/run/systemd/timesync"
#define TIMEDATECTL   "/usr/bin/timedatectl"
#define PATIENCE_MS   5000
#define MAXERROR_NONE 16000000 /* microseconds; what the kernel gives a clock that nobody has put right */

static bool exists(const char *root, const char *name)
{
	char path[PATH_MAX];
	struct stat st;
	return snprintf(path, sizeof path, "%s%s", root, name) < (int)sizeof path && stat(path, &st) == 0;
}

/* --- timesyncd --- */

/*
 * It touches the file at each synchronisation (systemd-timesyncd.service(8)). The folder is there while it runs, and
 * then nobody else sets the clock.
 */
static enum board_clock ask_flag(const char *root)
{
	if (exists(root, TIMESYNC "/synchronized"))
		return BOARD_CLOCK_SYNCED;
	return exists(root, TIMESYNC) ? BOARD_CLOCK_UNSYNCED : BOARD_CLOCK_UNKNOWN;
}

/* --- timedatectl --- */

static int64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* What comes until its end, as text, cut off where it is too long. False: it did not end in time. */
static bool read_all(int fd, char *text, size_t size)
{
	int64_t until_ms = now_ms() + PATIENCE_MS;
	struct pollfd waits = { .fd = fd, .events = POLLIN };
	size_t len = 0;
	for (;;) {
		char more[256];
		int64_t left_ms = until_ms - now_ms();
		if (left_ms <= 0)
			return false;
		int ready = poll(&waits, 1, (int)left_ms);
		ssize_t n = ready > 0 ? read(fd, more, sizeof more) : 0;
		if (ready == 0 || ((ready < 0 || n < 0) && errno == EINTR))
			continue;
		if (ready < 0 || n < 0)
			return false;
		if (n == 0)
			break;
		size_t kept = (size_t)n < size - 1 - len ? (size_t)n : size - 1 - len;
		memcpy(text + len, more, kept);
		len += kept;
	}
	text[len] = '\0';
	return true;
}

/* It gets none of our environment, in which secrets may stand. */
static pid_t spawn(const char *program, int out)
{
	char *arguments[] = { "timedatectl", "show", "-p", "NTPSynchronized", NULL };
	char *environment[] = { "LC_ALL=C", NULL };
	posix_spawn_file_actions_t actions;
	pid_t pid = -1;
	if (posix_spawn_file_actions_init(&actions) != 0)
		return -1;
	if (posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0) == 0 &&
	    posix_spawn_file_actions_adddup2(&actions, out, 1) == 0 &&
	    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0) == 0 &&
	    posix_spawn(&pid, program, &actions, NULL, arguments, environment) != 0)
		pid = -1;
	posix_spawn_file_actions_destroy(&actions);
	return pid;
}

/* Whether the program said something in time and ended well. */
static bool run(const char *program, char *text, size_t size)
{
	int ends[2], status;
	if (pipe2(ends, O_CLOEXEC) < 0)
		return false;
	pid_t pid = spawn(program, ends[1]);
	close(ends[1]);
	bool complete = pid > 0 && read_all(ends[0], text, size);
	close(ends[0]);
	if (pid <= 0)
		return false;
	if (!complete)
		kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return false;
	return complete && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static enum board_clock ask_timedatectl(const char *root)
{
	char program[PATH_MAX], text[128];
	if (!exists(root, TIMEDATECTL) ||
	    snprintf(program, sizeof program, "%s" TIMEDATECTL, root) >= (int)sizeof program ||
	    !run(program, text, sizeof text))
		return BOARD_CLOCK_UNKNOWN;
	if (strcmp(text, "NTPSynchronized=yes\n") == 0)
		return BOARD_CLOCK_SYNCED;
	return strcmp(text, "NTPSynchronized=no\n") == 0 ? BOARD_CLOCK_UNSYNCED : BOARD_CLOCK_UNKNOWN;
}

/* --- The kernel --- */

/* Judged by the error that it thinks possible: STA_UNSYNC may only mean that the RTC is to be left alone. */
static enum board_clock ask_kernel(const char *root)
{
	struct timex state = { .modes = 0 };
	if (*root || adjtimex(&state) < 0)
		return BOARD_CLOCK_UNKNOWN;
	return state.maxerror < MAXERROR_NONE ? BOARD_CLOCK_SYNCED : BOARD_CLOCK_UNSYNCED;
}

enum board_clock board_clock_state(const char *root)
{
	enum board_clock state = ask_flag(root);
	if (state == BOARD_CLOCK_UNKNOWN)
		state = ask_timedatectl(root);
	return state == BOARD_CLOCK_UNKNOWN ? ask_kernel(root) : state;
}
