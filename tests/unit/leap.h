/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lets time leap for everything in the process that asks libc for it, libuv and libmicrohttpd included: this
 * clock_gettime stands before libc's. Where a library was built to ask by another name (32 bits with 32-bit times) it
 * sees no leap, and a test that leaps takes as long as it says.
 */
#ifndef TESTS_UNIT_LEAP_H
#define TESTS_UNIT_LEAP_H

#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifdef SYS_clock_gettime64
#define LEAP_SYSCALL SYS_clock_gettime64
#else
#define LEAP_SYSCALL SYS_clock_gettime
#endif

static time_t leapt_s;

int clock_gettime(clockid_t id, struct timespec *time)
{
	long rc = syscall(LEAP_SYSCALL, id, time);
	if (rc == 0 && id != CLOCK_REALTIME)
		time->tv_sec += leapt_s;
	return (int)rc;
}

#endif
