/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the mill share:
 *
 *     mill.c     the configuration, what people ask for, what they see      stand.c    a machine's hands and eyes
 *     work.c     a job and its run: what comes next                         work_io.c  its ways to ledger, store, driver
 *     errand.c   a job of the buffer's worker that may outlive its sender   knock.c    whether a port answers
 */
#ifndef MILL_MILL_PRIVATE_H
#define MILL_MILL_PRIVATE_H

#include "mill/errand.h"
#include "mill/knock.h"
#include "mill/mill.h"
#include "mill/ssh.h"

/* A machine, and what it does to the world. */
struct stand {
	struct mill *mill;
	struct mill_machine conf;
	struct machine *machine; /* NULL until it is loaded */
	struct errand *note;
	struct ssh_call *ssh;
	struct child *child; /* the wake command */
	struct http_transfer *transfer;
	struct knock *knock;
	struct alarm later; /* an act that failed at once ends here, for it must not end from within */
	void (*late)(struct stand *stand);
	struct err late_err;
	struct ledger_day days[LEDGER_DAYS]; /* as they were when it was loaded, and what was added since */
	size_t n_days;
};

/* What a job's run waits for, or is doing. */
enum work_step {
	WORK_RESTS, /* for what comes next: see work_step */
	WORK_MAKES, /* a run of what is due */
	WORK_LISTS, /* its manifest */
	WORK_PUTS,  /* that, or a log, into the store */
	WORK_NOTES, /* a state in the ledger */
	WORK_ASKS,  /* the driver: start, ask, cancel */
	WORK_READS, /* the log */
};

/* A job, and its run that has not ended. */
struct work {
	struct mill *mill;
	struct mill_job conf;
	struct stand *stand; /* NULL: no machine */
	struct ledger_due due;
	bool asked;  /* mill_start: due or not */
	bool has_run;
	struct ledger_run run;
	char place[OBJECT_KEY_MAX]; /* of its manifest */
	char there[LEDGER_RUN + 8]; /* the run's id for the driver: with its attempt, for each is a run there */
	unsigned first_attempt;     /* retries are counted from here */
	enum work_step step;
	bool told; /* nothing was started yet: the driver is to start it, and not to ask */
	bool cancel;  /* a person wants it ended */
	bool late;    /* it passed its timeout, and is being cancelled */
	int64_t retry_ms; /* monotonic; nothing before */
	unsigned failures; /* in a row, of what is tried again: store, ledger */
	int64_t start_mono_ms; /* of this attempt */
	int64_t last_made_ms, last_done_ms; /* wall; its last run, and the last that ended well */
	int64_t looked_ms; /* wall; its cron was looked at up to then */
	enum ledger_state ends; /* what it becomes when its log is in the store */
	struct bytes manifest, log;
	struct errand *errand;
	struct deposit *deposit;
	struct driver *driver;
	struct alarm alarm;
	unsigned parked;             /* of its runs */
	char last_parked[LEDGER_RUN];
	char text[ERR_MAX]; /* what it waits for */
};

struct mill {
	struct mill_env env;
	struct stand **stands;
	struct work **works;
	size_t n_stands, n_works;
	struct errand *look; /* under way */
	bool look_again;
	bool loaded;
	unsigned under_way; /* errands and deposits */
	bool closing;
	void (*on_closed)(void *arg);
	void *on_closed_arg;
};

/* --- stand.c --- */

/* NULL: no memory. was, days: as the ledger has them. */
struct stand *stand_new(struct mill *mill, const struct mill_machine *conf);
int stand_load(struct stand *stand, const struct ledger_machine *was, const struct ledger_day *days, size_t n);
void stand_free(struct stand *stand);

/* --- work.c --- */

struct work *work_new(struct mill *mill, const struct mill_job *conf, struct stand *stand);
void work_load(struct work *work, const struct ledger_run *run); /* one that has not ended; NULL: none */
void work_free(struct work *work);

/* Something may have changed: does what comes next, if nothing is under way. */
void work_go(struct work *work);

/* The end of what it has asked for by work_io.c; status as there. */
void work_on_made(struct work *work, int status, const struct ledger_run *run, const struct err *err);
void work_on_listed(struct work *work, int status, const struct err *err);
void work_on_put(struct work *work, int status, const struct err *err);
void work_on_noted(struct work *work, int status, const struct ledger_run *now, const struct err *err);
void work_on_answer(struct work *work, const struct driver_answer *answer);

/* --- work_io.c: each sets step, and ends in one of the above --- */

void work_make(struct work *work);
void work_list(struct work *work);
void work_put(struct work *work, const char *name, const struct bytes *data);
void work_note(struct work *work, const struct ledger_run *run);
void work_drop(struct work *work); /* whatever is under way */

/* --- mill.c --- */

/* How many want a machine has changed, perhaps. */
void mill_count(struct mill *mill, struct stand *stand);

void mill_settle(struct mill *mill); /* closing goes on when nothing is under way */

__attribute__((format(printf, 4, 5))) void mill_say(struct mill *mill, const char *event, bool bad, const char *format,
                                                    ...);

#endif
