/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The driven clock: a file of three int64 in native order, mapped by the daemon and by the test that drives it. The
 * test raises until_ms; the daemon jumps from alarm to alarm and in the end to until_ms itself, so that mono_ms ==
 * until_ms tells the test that everything before it was done. wall_ms alone is the test's to set: a clock that is put
 * right.
 */
#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

struct sim {
	_Atomic int64_t wall_ms, mono_ms, until_ms;
};

static struct sim *sim;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static int map_file(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	struct stat st;
	int rc = fstat(fd, &st) < 0 ? -errno : 0;
	if (rc == 0 && st.st_size < (off_t)sizeof *sim)
		rc = -EINVAL; /* a mapping beyond the file's end would raise SIGBUS */
	if (rc == 0) {
		void *map = mmap(NULL, sizeof *sim, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (map == MAP_FAILED)
			rc = -errno;
		else
			sim = map;
	}
	close(fd);
	return rc;
}

static void attach(void)
{
	const char *path = getenv("MILLRACE_CLOCK");
	if (!path) {
		fputs("millrace: this build has a driven clock; MILLRACE_CLOCK must name its file\n", stderr);
		exit(EX_CONFIG);
	}
	int rc = map_file(path);
	if (rc < 0) {
		fprintf(stderr, "millrace: MILLRACE_CLOCK=%s: %s\n", path,
		        rc == -EINVAL ? "must hold three int64: wall_ms, mono_ms, until_ms" : strerror(-rc));
		exit(EX_CONFIG);
	}
}

static struct sim *attached(void)
{
	pthread_once(&once, attach);
	return sim;
}

int64_t clock_wall_ms(void)
{
	return atomic_load(&attached()->wall_ms);
}

int64_t clock_mono_ms(void)
{
	return atomic_load(&attached()->mono_ms);
}

/* Adds instead of storing, so that a wall clock that the test puts right at the same moment stays so. */
static void advance(int64_t mono_ms)
{
	int64_t by_ms = mono_ms - atomic_load(&sim->mono_ms);
	if (by_ms <= 0)
		return;
	atomic_fetch_add(&sim->wall_ms, by_ms);
	atomic_fetch_add(&sim->mono_ms, by_ms);
}

bool clock_skip(int64_t mono_ms)
{
	int64_t until_ms = atomic_load(&attached()->until_ms);
	if (mono_ms > until_ms) {
		advance(until_ms);
		return false;
	}
	if (mono_ms == INT64_MAX)
		return false; /* no alarm is set, and the test lets the clock run for ever */
	advance(mono_ms);
	return true;
}

int64_t clock_sleep_ms(int64_t mono_ms)
{
	return mono_ms > clock_mono_ms() ? 1 : 0;
}

bool clock_plausible(int64_t wall_ms)
{
	return wall_ms >= MILLRACE_BUILD_EPOCH * 1000;
}
