/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jobs, runs and the machines that they want: sees what is due, makes a run of it, puts its manifest into the store, has
 * the machine woken, starts the job, follows it to its end, and lets the machine sleep. Whatever is true is in the
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
};

struct mill_job {
	const char *name;
	const char *machine; /* NULL: none is needed */
	const struct driver_ops *driver;
	const void *settings; /* the driver's */
	const char *store;
	struct manifest_store there; /* the store as the machine sees it */
	struct when when;
	int64_t timeout_ms; /* of one attempt */
	int64_t retries;    /* after the first */
};

struct mill_env {
	struct driver_env driver;
	struct queue *queue;
	struct worker *worker;
	const char *device;
	/* Puts a small object into a store, whole and durable under its key; data is borrowed until mill_on_put. */
	void (*put)(void *arg, const char *store, const char *key, const struct bytes *data, void *token);
	void (*say)(void *arg, const char *event, const char *text, bool bad); /* for the log */
	void *arg;
};

struct mill *mill_new(const struct mill_env *env); /* NULL: no memory */

/* Names and settings are borrowed until the next one. What is on its way goes on by the settings it began with. */
int mill_configure(struct mill *mill, const struct mill_machine *machines, size_t n_machines,
                   const struct mill_job *jobs, size_t n_jobs);

/* The buffer is open (again), or there are new deliveries. */
void mill_nudge(struct mill *mill);

/* The end of env.put: 0; -EAGAIN: the store is away, and it is tried again. */
void mill_on_put(struct mill *mill, void *token, int status, const struct err *err);

/* What people ask for. 0; -ENOENT: no such machine, job, run; -EALREADY, -EBUSY, …: err says why not. */
int mill_wake(struct mill *mill, const char *machine, struct err *err);
int mill_start(struct mill *mill, const char *job, struct err *err); /* a run of what waits now, due or not */
int mill_cancel(struct mill *mill, const char *run, struct err *err);
int mill_retry(struct mill *mill, const char *run, struct err *err); /* a parked one, with attempts anew */

struct mill_machine_view {
	const char *name;
	struct machine_view machine;
	const struct machine_settings *settings;
	int64_t awake_today_ms, awake_month_ms; /* UTC */
	uint64_t wakes_today, wakes_month;
	int64_t since_ms; /* wall; from when on these are known, for the comparison with a machine that is always on */
};
struct mill_job_view {
	const char *name;
	struct ledger_due due;
	const struct ledger_run *run; /* the one on its way, or parked; NULL: none */
	const char *waits_for;        /* in words, what it waits for; "" */
};
struct mill_view {
	size_t n_machines, n_jobs;
	struct mill_machine_view *machines;
	struct mill_job_view *jobs;
};
/* From memory. NULL: no memory. */
struct mill_view *mill_view(const struct mill *mill);
void mill_view_free(struct mill_view *view);

/* Drops what is under way and tells nobody: the next start goes on. on_closed may come from within. */
void mill_close(struct mill *mill, void (*on_closed)(void *arg), void *arg);

#endif
