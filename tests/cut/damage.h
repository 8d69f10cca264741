/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A buffer that is damaged in any way, and all that a salvage without a power cut makes of it, so that it can be
 * compared with what one makes that was cut off.
 */
#ifndef TESTS_CUT_DAMAGE_H
#define TESTS_CUT_DAMAGE_H

#include "tests/cut/drive.h"

struct damage {
	int r; /* of the start */
	struct bytes left;
	struct bytes files[2]; /* as they were damaged */
};

/*
 * Damages the closed buffer, salvages it, keeps what is there then, and puts the damaged files back. False: there is
 * nothing to damage.
 */
bool damage_make(struct damage *ret_damage, struct drive *d);

/* Starts it, and compares; oracle.wrong says what is not the same. */
bool damage_judge(const struct damage *damage, struct drive *d);
void damage_done(struct damage *damage);

#endif
