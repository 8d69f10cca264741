/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drives a buffer with everything that the daemon does to it, and keeps an oracle in step. What a call was about that
 * failed, because the power went or a fault was planted, may stand in the file or not once that is opened again: but
 * whole or not at all (of a commit each source's fetches), and of all such calls since the last one that held at most
 * one, since each writes its frames where the one before wrote its own; and of commits before that, what is left
 * behind.
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
	PHASE_IMPORT,
	PHASE_SALVAGE,    /* of a damaged buffer, from the first call to the last rename */
	PHASE_ADOPTION,   /* of what is torn at the end of the WAL */
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
	struct queue *closed; /* one whose start failed, and which is to be started again */
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
	struct foreign foreign; /* to be imported; no bytes: none is */
	uint64_t foreign_seq;
	bool damaged;  /* by drive_damage, and not opened since */
	bool salvaged; /* and what was in doubt then is still to be settled */
	bool over;     /* a salvage has taken over a part of what was in doubt: more than the oracle knows */
	struct doubt doubts[DRIVE_DOUBTS];
	int n_doubts;
	bool doubted; /* the last one is of the last call */
};

/* Called before and after each call of the queue; NULL: nothing is. */
extern void (*drive_on_call)(bool under_way);

/* Calls that change or sync, up to the end of the last salvage, since shim_cut_at. */
extern uint64_t drive_salvage_calls;

/* A folder for the buffer, in memory where that can be. Exits where there is none. */
void drive_init(struct drive *d);
void drive_done(struct drive *d);

/* Deletes all that is in the folder. */
void drive_empty(const struct drive *d);

/* Another life: an empty folder, and all that happens follows from the seed. */
void drive_begin(struct drive *d, uint64_t seed);

/* Opens it, and judges nothing; as drive_start does so, what it draws is the same each time. */
int drive_start(struct drive *d);

/* After it has held: what was in doubt is settled by looking, and everything is judged. */
int drive_open(struct drive *d);
bool drive_judge(struct drive *d);
void drive_close(struct drive *d);

int drive_commit(struct drive *d);
int drive_stage(struct drive *d, int source); /* begins, goes on or, at its last piece, commits; 1: that is done */
int drive_unstage(struct drive *d, int source);
int drive_seal(struct drive *d, bool all);
int drive_deliver(struct drive *d, int store); /* 1: done, 0: nothing waits */
int drive_import(struct drive *d);             /* 1: it is there now */
int drive_expire(struct drive *d);
int drive_drop(struct drive *d);

/* The last call was rolled back while the power was on: nothing of it will come. What was in doubt before still is. */
void drive_refused(struct drive *d);

/* One of all these, at random; of those only that a program knew which had no books yet, where `early`. */
int drive_any(struct drive *d, bool early);

/* Another kernel boot, or the same again. */
void drive_reboot(struct drive *d);
void drive_pass(struct drive *d, int64_t ms);

/* What was under way at last; more exact than `phase`. */
enum phase drive_phase(const struct drive *d);

/*
 * The closed buffer's first page is gone: the next drive_open salvages it, and loses nothing. False: there is nothing
 * to damage.
 */
bool drive_damage(struct drive *d);

/* The closed buffer as a program of that schema would have written it. */
bool drive_age(struct drive *d, int version);

#endif
