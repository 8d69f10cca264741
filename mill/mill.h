/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jobs, runs and the machines that they want: sees what is due, makes a run of it, puts its manifest into the store,
 * has the machine woken, starts the job, follows it to its end, and lets the machine sleep. Whatever is true is in the
 * ledger before it is acted on, so a start after a crash goes on; a run that may have been started is asked for by its
 * id, and never started blindly. Collecting and delivering know nothing of it. Loop thread only; all of the ledger by
 * jobs of the buffer's worker.
 */
#ifndef MILL_MILL_H
#define MILL_MILL_H

#include "base/worker.h"
#include "mill/driver.h"
#include "mill/manifest.h"
#include "mill/when.h"

struct mill;

struct mill_machine {
	const char *name;
	const struct machine_settings *settings;
	const char *secure_on; /* the value, in place of the settings' reference; NULL: none */
};

struct mill_job {
	const char *name;
	const char *machine; /* NULL: none is needed */
	const struct driver_ops *driver;
	const void *settings; /* the driver's */
	const char *store;
	struct manifest_store there; /* the store as the machine sees it */
	const struct when *when;
	int64_t timeout_ms; /* of one attempt */
	int64_t retries;    /* after the first */
};

struct mill_env {
	struct driver_env driver;
	struct queue *queue;
	struct worker *worker;
	const char *device;
	/* Seals what waits and brings it to the stores, as far as that goes soon; ends in mill_on_flushed. */
	void (*flush)(void *arg);
	/* Puts a small object into a store, whole and durable under its key, in place of what stands there; data is
	   borrowed until it ends, in mill_on_put. 0 or -ENOMEM: that does not come. */
	int (*put)(void *arg, const char *store, const char *key, const struct bytes *data, void *token);
	void (*say)(void *arg, const char *event, const char *text, bool bad); /* for the log */
	void *arg;
};

/*
 * All but the device is borrowed for the mill's life, names and settings too: with other ones it is closed, and another
 * one goes on from what the ledger says. The queue knows the jobs (ledger_configure). NULL: no memory.
 */
struct mill *mill_new(const struct mill_env *env, const struct mill_machine *machines, size_t n_machines,
                      const struct mill_job *jobs, size_t n_jobs);

/* The buffer is open (again), or there are new deliveries. */
void mill_nudge(struct mill *mill);

/* The end of env.flush, as far as it went; more often is no harm. Not from within it. */
void mill_on_flushed(struct mill *mill);

/* The end of env.put: 0, or why it is to be tried again. Not from within it. */
void mill_on_put(struct mill *mill, void *token, int status, const struct err *err);

/*
 * What people ask for. 0; -ENOENT: no such machine, job, or run on its way; -EAGAIN: the buffer is not open yet; -EBUSY
 * or -ENOTSUP: err says why not.
 */
int mill_wake(struct mill *mill, const char *machine, struct err *err);
int mill_start(struct mill *mill, const char *job, struct err *err);  /* a run of what waits now, due or not */
int mill_cancel(struct mill *mill, const char *run, struct err *err); /* one on its way, or parked */
int mill_retry(struct mill *mill, const char *run, struct err *err);  /* a parked one, with attempts anew */

struct mill_machine_view {
	const char *name;
	struct machine_view machine;
	bool known;    /* what the ledger says of it is loaded; else all but the name is nothing */
	int64_t watts; /* 0: not told */
	int64_t awake_today_ms, awake_month_ms; /* UTC, as far as this agent knows */
	uint64_t wakes_today, wakes_month;
	int64_t month_ms; /* of this month, since then these are known */
};

struct mill_job_view {
	const char *name;
	const char *machine; /* NULL: none */
	struct ledger_due due;
	const struct ledger_run *run; /* the one on its way; NULL: none */
	unsigned parked;              /* of its runs */
	const char *last_parked;      /* the id of the newest of these; "" */
	const char *waits_for;        /* in words, what it waits for; "" */
	bool trouble;                 /* that is something that a person must mend */
};

struct mill_view {
	size_t n_machines, n_jobs;
	struct mill_machine_view *machines;
	struct mill_job_view *jobs;
};

/* Of this moment, from memory; texts are borrowed until the loop goes on. NULL: no memory. */
struct mill_view *mill_view(const struct mill *mill);
void mill_view_free(struct mill_view *view);

/* Nothing is under way: only time, a delivery or a person brings it on. */
bool mill_idle(const struct mill *mill);

/* Drops what is under way and tells nobody: the next start goes on. on_closed may come from within. */
void mill_close(struct mill *mill, void (*on_closed)(void *arg), void *arg);

#endif
