/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"

#include <time.h>

static int64_t read_ms(clockid_t id)
{
	struct timespec now = { 0 };
	clock_gettime(id, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t clock_wall_ms(void)
{
	return read_ms(CLOCK_REALTIME);
}

int64_t clock_mono_ms(void)
{
	return read_ms(CLOCK_BOOTTIME);
}

bool clock_skip(int64_t mono_ms)
{
	(void)mono_ms;
	return false;
}

int64_t clock_sleep_ms(int64_t mono_ms)
{
	int64_t now_ms = clock_mono_ms();
	return mono_ms > now_ms ? mono_ms - now_ms : 0;
}

bool clock_plausible(int64_t wall_ms)
{
	return wall_ms >= MILLRACE_BUILD_EPOCH * 1000;
}
