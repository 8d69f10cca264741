/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What must outlast a power cut of machines, jobs and runs: rows of the buffer's own file, each with its checksum, so
 * that a delivery and what it makes due are one transaction. It knows no rules: mill/ decides, and writes down what is
 * true before it acts on it. Synchronous; by jobs of the buffer's worker, as all of buffer/queue, whose errors they
 * have. A failed call has changed nothing, and may be made again.
 */
#ifndef BUFFER_LEDGER_H
#define BUFFER_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/sha256.h"
#include "base/units.h"
#include "buffer/object.h"
#include "buffer/queue.h"

#define LEDGER_RUN     33 /* hex digits and NUL: milliseconds of its creation, then chance */
#define LEDGER_JOBS    64 /* that may be configured */
#define LEDGER_RUNS    50 /* done or cancelled ones that are kept of a job, and 64 times as many of all that ever were */
#define LEDGER_OBJECTS 4096 /* of a manifest; the next run takes the others */
#define LEDGER_LOG     4096
#define LEDGER_REMOTE  128
#define LEDGER_PLACE   128
#define LEDGER_AWAKE   64
#define LEDGER_DAYS    62 /* that are kept of a machine */

struct ledger_job {
	const char *name;
	const char *store;          /* what is delivered there is due */
	const char *const *sources; /* "_polls" among them makes nothing due alone */
	size_t n_sources;
};

/*
 * Tells the jobs, which are copied: from now on each delivery to a job's store of a source of its makes a row. What
 * waits for a job that is gone is deleted with it, but not what a run has; what was delivered to a store that is the
 * job's no more stays due. May be called again, and before the buffer is open: it counts once it is. A card that takes
 * nothing does not make it fail: what is to be deleted is then deleted later. -ENOBUFS: more than LEDGER_JOBS; -ENOMEM.
 */
int ledger_configure(struct queue *queue, const struct ledger_job *jobs, size_t n, struct err *err);

/*
 * What waits for a job and is in no run, from memory, as of the last transaction that held; zeros for a job that is not
 * told. An object that a store has lost and was given again (queue_deliver_again) is due again.
 */
struct ledger_due {
	uint64_t batches;  /* `_polls` apart */
	int64_t oldest_ms; /* wall; when the first of these was delivered; 0: there is none */
	uint64_t others;   /* objects of `_polls` */
	int64_t cron_ms;   /* wall; up to when its cron was looked at; 0: never */
	uint64_t missed;   /* objects that came while its list was full: no run ever has them */
};
void ledger_due(const struct queue *queue, const char *job, struct ledger_due *ret_due);

enum ledger_state {
	LEDGER_DUE,       /* made; its manifest is not known to be in the store */
	LEDGER_WRITTEN,   /* it is; waits for the machine, or for the next attempt */
	LEDGER_STARTED,   /* the job may have been started: it is asked for by its id, and never started blindly */
	LEDGER_DONE,      /* its objects are the job's, and no longer its own */
	LEDGER_PARKED,    /* all attempts failed: keeps its objects until somebody retries or cancels it */
	LEDGER_CANCELLED, /* by a person; its objects are not due again */
};

struct ledger_run {
	char id[LEDGER_RUN];
	char job[UNITS_NAME_MAX];
	char store[UNITS_NAME_MAX]; /* where its objects are; the job's may be another one by now */
	enum ledger_state state;
	unsigned attempt;
	unsigned counted;                                               /* attempts before somebody asked for others */
	int64_t created_ms, written_ms, ready_ms, started_ms, ended_ms; /* wall; 0: not yet */
	uint64_t objects, records, bytes;
	uint8_t manifest[SHA256_SIZE]; /* all zeros: not written yet */
	char reason[ERR_MAX];
	char remote[LEDGER_REMOTE]; /* the id that the other side gave the attempt; "" */
	char place[LEDGER_PLACE];   /* where the last attempt was started, in words; "" */
	uint8_t log[LEDGER_LOG];    /* its end */
	size_t log_len;
};

/*
 * Makes a run of all that waits for a job, the oldest first, LEDGER_OBJECTS at most and all of one store. id is the
 * caller's, and new. cron_ms: that far its cron is looked at now, 0: it has none. 1: ret_run is LEDGER_DUE; 0: nothing
 * waits, and nothing was written, unless `empty` is set: then it is a run without objects. -ENOENT: no such job.
 */
int ledger_make_run(struct queue *queue, const char *job, const char *id, int64_t wall_ms, int64_t cron_ms, bool empty,
                    struct ledger_run *ret_run, struct err *err);

/* One object of a run's manifest. */
struct ledger_object {
	char key[OBJECT_KEY_MAX]; /* below the store's prefix */
	char source[UNITS_NAME_MAX];
	int64_t day;
	uint64_t first_seq, last_seq, bytes;
	uint8_t sha256[SHA256_SIZE];
	int64_t id; /* to go on with */
};
/*
 * At most n of them with an id above `after`, in the order in which they were delivered; how many, or -errno. A run
 * that is done or cancelled has none. -ENOENT: no such run.
 */
int ledger_objects(struct queue *queue, const char *run, int64_t after, struct ledger_object *ret_objects, size_t n,
                   struct err *err);

/*
 * Writes down how a run goes: its state, attempts and their place, times, manifest, reason and log; all else stays as
 * it was made. LEDGER_DONE and LEDGER_CANCELLED let go of its objects in the same transaction; older ones of these than
 * LEDGER_RUNS are deleted. -ENOENT: no such run.
 */
int ledger_put_run(struct queue *queue, const struct ledger_run *run, struct err *err);

/* The newest first by their ids, those of all jobs, at most n below `before` (NULL: all); how many, or -errno. */
int ledger_runs(struct queue *queue, const char *before, struct ledger_run *ret_runs, size_t n, struct err *err);
int ledger_find_run(struct queue *queue, const char *id, struct ledger_run *ret_run, struct err *err); /* 0, -ENOENT */

enum ledger_machine_state {
	LEDGER_ASLEEP,
	LEDGER_WAKING,
	LEDGER_UP, /* answers, and nothing was started on it yet */
	LEDGER_RUNNING,
	LEDGER_IDLE,
	LEDGER_SLEEPING, /* has agreed to sleep, and still answered */
};

struct ledger_machine {
	char name[UNITS_NAME_MAX];
	enum ledger_machine_state state;
	int64_t since_ms; /* wall */
	bool ours;        /* this agent woke it */
	char reason[ERR_MAX];
	char awake[LEDGER_AWAKE]; /* what it said last of its being awake; "": not known */
};

/* What it adds to the machine's day. */
struct ledger_day {
	int64_t day;
	uint64_t wakes;
	int64_t awake_ms;
};

/* An edge, with what has passed since the one before (NULL: nothing is to be added), in one transaction. */
int ledger_put_machine(struct queue *queue, const struct ledger_machine *machine, const struct ledger_day *add,
                       struct err *err);
int ledger_find_machine(struct queue *queue, const char *name, struct ledger_machine *ret_machine,
                        struct err *err); /* 0, -ENOENT */

/* A machine's days, the newest first; how many, or -errno. */
int ledger_days(struct queue *queue, const char *machine, struct ledger_day *ret_days, size_t n, struct err *err);

#endif
