/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the mill share:
 *
 *     mill.c     what the ledger knows, what people ask for, what they see   stand.c     a machine's hands and eyes
 *     work.c     a job and its run: what comes next                          work_end.c  how an attempt of it ended
 *     work_io.c  its ways to ledger and store                                knock.c     whether a port answers
 *     errand.c   a job of the buffer's worker that may outlive its sender    run_log.c   a run's log, packed as it
 * comes
 */
#ifndef MILL_MILL_PRIVATE_H
#define MILL_MILL_PRIVATE_H

#include "mill/errand.h"
#include "mill/knock.h"
#include "mill/mill.h"
#include "mill/run_log.h"
#include "mill/ssh.h"

#define MILL_AGAIN_MS    INT64_C(5000) /* what store or ledger failed at: doubled up to MILL_AGAIN_MAX */
#define MILL_AGAIN_MAX   INT64_C(300000)
#define MILL_PARKED_KEPT 16 /* parked runs of a job whose ids are known */

/* What a machine does; one of each is under way at a time. */
enum act { ACT_WAKE, ACT_LOOK, ACT_SLEEP, ACT_NOTE, ACTS };

struct stand;

/* An act that failed at once ends here, for it must not end from within. */
struct late {
	struct alarm alarm;
	struct stand *stand;
	int status;
	struct err err;
};

/* A machine, and what it does to the world. */
struct stand {
	struct mill *mill;
	struct mill_machine conf;
	struct machine *machine; /* NULL until it is loaded */
	struct errand *note;
	struct ssh_call *looking, *sleeping;
	struct child *child; /* the wake command */
	struct http_transfer *transfer;
	struct knock *knock;
	struct lookup *lookup;  /* of its address; NULL: none is under way */
	struct in_addr address; /* where it was found last; 0: not known */
	struct late late[ACTS];
	struct ledger_day days[LEDGER_DAYS]; /* the newest first; with what was added since */
	size_t n_days;
};

/* What is under way for a job. */
enum work_step {
	WORK_RESTS,   /* nothing: see work_go */
	WORK_FLUSHES, /* what is not sealed is sealed and delivered first */
	WORK_MAKES,   /* a run of what is due */
	WORK_LISTS,   /* its manifest */
	WORK_PUTS,    /* that into the store */
	WORK_SAVES,   /* the log of an attempt that has ended, the same */
	WORK_NOTES,   /* a state in the ledger */
	WORK_ASKS,    /* the driver: start, ask, cancel */
	WORK_READS,   /* the log */
};

/* A job, and its run that has not ended. */
struct work {
	struct mill *mill;
	struct mill_job conf;
	struct stand *stand; /* NULL: no machine */
	struct ledger_due due;
	bool asked; /* mill_start: due or not */
	bool has_run;
	struct ledger_run run;
	char place[OBJECT_KEY_MAX];  /* of its manifest */
	char there[LEDGER_RUN + 16]; /* the run's id for the driver: each attempt is a run of its own there */
	enum work_step step;
	bool unnoted;       /* run.remote is known, and not in the ledger yet */
	bool fresh;         /* nothing was started yet: the driver is to start it, and not to ask */
	bool cancel;        /* a person wants it ended */
	bool late;          /* it passed its timeout, and is being cancelled */
	bool stuck;         /* it may go on there: no other attempt */
	bool begun;         /* it was seen at work in this attempt, by this process */
	bool refused;       /* its start was, as `reason` says; whether it began all the same is being asked */
	bool trouble;       /* a person must mend what `text` says */
	int64_t retry_ms;   /* monotonic; nothing before */
	unsigned failures;  /* in a row, of store and ledger */
	int64_t start_ms;   /* monotonic; of this attempt */
	int64_t made, done; /* its last run, and the last that ended well: by mill_tick */
	int64_t ahead_ms;   /* monotonic; since when what waits is from the future: the clock was ahead. 0: it is not */
	int64_t looked_ms;  /* wall; its cron was looked at up to then */
	enum ledger_state ends; /* what it becomes when its log is in the store */
	char reason[ERR_MAX];   /* and why */
	struct bytes manifest;
	uint8_t sha256[SHA256_SIZE]; /* of the manifest */
	struct run_log log;
	struct errand *errand;
	struct put *put;
	struct driver *driver;
	struct alarm alarm;
	unsigned n_parked;                         /* of its runs */
	char parked[MILL_PARKED_KEPT][LEDGER_RUN]; /* the newest first */
	char text[ERR_MAX];                        /* what it waits for */
};

struct mill {
	struct mill_env env;
	char device[UNITS_NAME_MAX];
	struct stand **stands;
	struct work **works;
	size_t n_stands, n_works;
	int64_t tick;               /* the last of mill_tick */
	struct errand *load, *look; /* under way */
	bool look_again;
	bool loaded;
	bool flushing;
	struct alarm alarm; /* loads, or ends the wait for a flush */
	unsigned failures;  /* of loading */
	unsigned under_way; /* errands and puts */
	bool closing;
	void (*on_closed)(void *arg);
	void *on_closed_arg;
};

/* --- stand.c --- */

struct stand *stand_new(struct mill *mill, const struct mill_machine *conf); /* NULL: no memory */

/* was: NULL: the ledger has it not. days: the newest first. 0 or -ENOMEM. */
int stand_load(struct stand *stand, const struct ledger_machine *was, const struct ledger_day *days, size_t n);
bool stand_is_idle(const struct stand *stand); /* nothing is under way */
void stand_stop(struct stand *stand);          /* drops what is under way */
void stand_free(struct stand *stand);          /* a stopped one; NULL is fine */

/* --- work.c --- */

struct work *work_new(struct mill *mill, const struct mill_job *conf, struct stand *stand); /* NULL: no memory */
void work_load(struct work *work, const struct ledger_run *run);                            /* one that has not ended */
void work_stop(struct work *work); /* drops what is under way */
void work_free(struct work *work); /* a stopped one */

/* Something may have changed: does what comes next, if nothing is under way. */
void work_go(struct work *work);

/* Whether it wants its machine, and whether it may be running there. */
bool work_wants(const struct work *work);
bool work_runs(const struct work *work);

void work_look(struct work *work); /* what its machine says may be another thing than when it began to wait */
void work_wait(struct work *work, int64_t ms, bool trouble, const char *text); /* then work_go */
void work_again(struct work *work, const struct err *err); /* the same after a while: of store and ledger */
void work_note_state(struct work *work, enum ledger_state state, const char *reason); /* its end without an attempt */
void work_drop_driver(struct work *work);
void work_forget(struct work *work); /* its run has ended */

/* The end of what work_io.c does for it. */
void work_on_made(struct work *work, int status, const struct ledger_run *run, const struct err *err);
void work_on_listed(struct work *work, int status, const struct err *err);
void work_on_put(struct work *work, int status, const struct err *err);
void work_on_noted(struct work *work, int status, const struct ledger_run *now, const struct err *err);

/* --- work_end.c --- */

void work_on_answer(struct work *work, const struct driver_answer *answer);
void work_on_saved(struct work *work, int status, const struct err *err); /* its log is in the store, or is not */
void work_on_end(struct work *work);                   /* what was noted ends the attempt, or the run */
void work_park_id(struct work *work, const char *run); /* one more is parked */
void work_unpark(struct work *work, const char *run);
int64_t mill_doubled(int64_t first_ms, unsigned times, int64_t most_ms);

/* --- work_io.c: each sets the step, and ends in one of the above --- */

void work_make(struct work *work);
void work_list(struct work *work);
void work_put(struct work *work, enum work_step step, const char *name, struct bytes *data); /* data is taken over */
void work_note(struct work *work, const struct ledger_run *run);
void work_drop(struct work *work); /* whatever is under way ends without it */

/* A parked run becomes LEDGER_WRITTEN, or LEDGER_CANCELLED. 0, -EBUSY or -ENOMEM. */
int work_change(struct work *work, const char *run, enum ledger_state to, struct err *err);

/* --- mill.c --- */

void mill_count(struct mill *mill, struct stand *stand);    /* how many want it may have changed; NULL is fine */
void mill_go(struct mill *mill, const struct stand *stand); /* the jobs of a machine; NULL: all */
void mill_flush(struct mill *mill);                         /* those that wait for it go on afterwards */
void mill_settle(struct mill *mill);                        /* one thing less is under way */
int64_t mill_tick(struct mill *mill);                       /* after all before, whatever the clock says */

__attribute__((format(printf, 4, 5))) void mill_say(struct mill *mill, const char *event, bool bad, const char *format,
                                                    ...);

#endif
