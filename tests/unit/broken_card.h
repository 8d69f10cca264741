/* SPDX-License-Identifier: Apache-2.0 */
/* A card that fails: pwrite64 takes the place of the C library's in the program, SQLite included. */
#ifndef TESTS_UNIT_BROKEN_CARD_H
#define TESTS_UNIT_BROKEN_CARD_H

#include <errno.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static int card_errno; /* what each write fails with; 0: it works */

ssize_t pwrite64(int fd, const void *data, size_t len, off64_t at)
{
	if (card_errno != 0) {
		errno = card_errno;
		return -1;
	}
	return syscall(SYS_pwrite64, fd, data, len, at);
}

#endif
