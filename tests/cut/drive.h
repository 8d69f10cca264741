/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drives a buffer with everything that the daemon does to it, and keeps an oracle in step. What a call was about that
 * failed, because the power went or a fault was planted, may stand in the file or not once that is opened again: but
 * whole or not at all, and of all such calls since the last one that held at most one, since each writes its frames
 * where the one before wrote its own.
 *
 * Every function returns what the queue did: 0 or above, or -errno. Whether it was right to, oracle.wrong says.
 */
#ifndef TESTS_CUT_DRIVE_H
#define TESTS_CUT_DRIVE_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/cut/oracle.h"

enum phase {
	PHASE_CREATE,
	PHASE_UPGRADE,
	PHASE_RECOVERY,
	PHASE_BOUND, /* queue_bound: a new file is written larger once */
	PHASE_COMMIT,
	PHASE_STAGE,
	PHASE_SEAL,
	PHASE_DELIVERY,
	PHASE_EXPIRE,
	PHASE_DROP,
	PHASE_CHECKPOINT, /* in any of those before */
	PHASES
};
extern const char *const phase_names[PHASES];

#define DRIVE_TOGETHER 4 /* fetches in a commit */

struct doubt {
	enum phase phase;
	int n, source[DRIVE_TOGETHER]; /* of a commit */
	struct told told[DRIVE_TOGETHER];
	int64_t batch, wall_ms; /* of a delivery; wall_ms also of what expires */
	int store;
};

#define DRIVE_DOUBTS 16

/* A fetch that comes in pieces. */
struct large {
	struct fetch *fetch; /* NULL: none is under way */
	struct fetch_piece *piece;
	struct told told;
};

struct drive {
	struct oracle oracle;
	struct queue *q;
	char folder[128], path[160];
	struct err err;
	uint64_t chance;
	int64_t wall_ms, mono_ms;
	int64_t max_size; /* 0: without bounds */
	int kernel_boot;
	char boots[8][OBJECT_BOOT]; /* by kernel_boot; "": not known yet */
	enum phase phase;           /* of the call under way, or of the last one */
	enum phase opening;         /* what the next queue_open does */
	struct large large[ORACLE_SOURCES];
	struct doubt doubts[DRIVE_DOUBTS];
	int n_doubts;
};

/* Called before and after each call of the queue; NULL: nothing is. */
extern void (*drive_on_call)(bool under_way);

/* A folder for the buffer, in memory where that can be. Exits where there is none. */
void drive_init(struct drive *d);
void drive_done(struct drive *d);

/* Another life: an empty folder, and all that happens follows from the seed. */
void drive_begin(struct drive *d, uint64_t seed);

/* After it has held: what was in doubt is settled by looking, and everything is judged. */
int drive_open(struct drive *d);
bool drive_judge(struct drive *d);
void drive_close(struct drive *d);

int drive_commit(struct drive *d);
int drive_stage(struct drive *d, int source); /* begins, goes on or, at its last piece, commits; 1: that is done */
int drive_unstage(struct drive *d, int source);
int drive_seal(struct drive *d, bool all);
int drive_deliver(struct drive *d, int store); /* 1: done, 0: nothing waits */
int drive_expire(struct drive *d);
int drive_drop(struct drive *d);

/* One of all these, at random; of those only that a program knew which had no books yet, where `early`. */
int drive_any(struct drive *d, bool early);

/* Another kernel boot, or the same again. */
void drive_reboot(struct drive *d);
void drive_pass(struct drive *d, int64_t ms);

/* The closed buffer as a program of that schema would have written it. */
bool drive_age(struct drive *d, int version);

#endif
