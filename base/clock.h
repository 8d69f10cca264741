/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The only place where Millrace asks what time it is. clock.c asks the kernel; a build with O=build/sim links
 * clock_sim.c instead, whose time stands still until a test lets it run (the file that it names by MILLRACE_CLOCK holds
 * three int64: wall_ms, mono_ms, until_ms). Any thread.
 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

/* Milliseconds since 1970 UTC; may jump either way. */
int64_t clock_wall_ms(void);

/* Milliseconds of CLOCK_BOOTTIME: never jumps, counts on in suspend, starts again with each boot. */
int64_t clock_mono_ms(void);

/*
 * The loop has nothing to do before `mono_ms`. The kernel's clock ignores that and returns false. The driven clock
 * jumps to `mono_ms`, wall and mono alike, and returns true, unless the test's `until_ms` lies before it.
 */
bool clock_skip(int64_t mono_ms);

/* Real milliseconds to sleep until it may be `mono_ms`: 0 or more; under the driven clock at most 1. */
int64_t clock_sleep_ms(int64_t mono_ms);

/* Whether the wall clock can be right: it is not before this program was built. */
bool clock_plausible(int64_t wall_ms);

#endif
