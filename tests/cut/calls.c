/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the program does to its files past SQLite, through the linker's --wrap: while a call of the queue is under way
 * it goes dark, fails and forgets like what passes through the VFS. What the card does not give of a page (pread) is no
 * fault here but damage, and left alone.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/cut/shim.h"

int __real_open64(const char *path, int flags, ...);
int __real_rename(const char *from, const char *to);
int __real_unlink(const char *path);
int __wrap_open64(const char *path, int flags, ...);
int __wrap_fsync(int fd);
int __wrap_rename(const char *from, const char *to);
int __wrap_unlink(const char *path);

static int fail(void)
{
	errno = EIO;
	return -1;
}

/* A file that is made is there at once; see shim.h. */
int __wrap_open64(const char *path, int flags, ...)
{
	va_list args;
	mode_t mode;

	va_start(args, flags);
	mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
	va_end(args);
	return shim_call("open", false) ? __real_open64(path, flags, mode) : fail();
}

/* Of a folder: nothing is to be done. */
int __wrap_fsync(int fd)
{
	char link[64], path[512];
	ssize_t n;

	if (!shim_call("fsync", true))
		return fail();
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof path - 1);
	if (n > 0) {
		path[n] = '\0';
		shim_synced(path);
	}
	return 0;
}

int __wrap_rename(const char *from, const char *to)
{
	int r;

	if (!shim_call("rename", true))
		return fail();
	r = __real_rename(from, to);
	if (r == 0)
		shim_renamed(from, to);
	return r;
}

int __wrap_unlink(const char *path)
{
	int r;

	if (!shim_call("unlink", true))
		return fail();
	r = __real_unlink(path);
	if (r == 0)
		shim_unlinked(path);
	return r;
}
