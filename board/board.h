/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What Millrace asks the machine that it runs on. Every path lies below `root`, "" in life and a fixture folder in
 * tests. Synchronous; any thread.
 */
#ifndef BOARD_BOARD_H
#define BOARD_BOARD_H

#include "base/err.h"

#define BOARD_BOOT_ID 37 /* a UUID as text with its NUL */

/* The kernel's id of this boot (random(4), boot_id). 0 or -errno with the path in err. */
int board_boot_id(const char *root, char ret_id[BOARD_BOOT_ID], struct err *err);

enum board_clock {
	BOARD_CLOCK_UNKNOWN, /* nobody here can be asked */
	BOARD_CLOCK_UNSYNCED,
	BOARD_CLOCK_SYNCED,
};

/*
 * Whether the wall clock is synchronised, by the first of these that can say so: timesyncd's flag
 * (/run/systemd/timesync/synchronized, systemd-timesyncd.service(8)), `timedatectl show -p NTPSynchronized`, the
 * kernel (adjtimex(2), which the service's sandbox forbids). Runs a program and waits for it, up to 5 s; not for the
 * loop's thread.
 */
enum board_clock board_clock_state(const char *root);

#endif
