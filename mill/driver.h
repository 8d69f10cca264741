/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a job is started on a machine and followed: by ssh (worker/PROTOCOL.md), by a local command, by HTTP. A const ops
 * table for each kind. A driver may be asked for the same run again at any time: the run's id is its idempotency key.
 * Each call ends in on_answer exactly once unless the driver is freed, never from within; one call of a run at a time.
 * Loop thread only.
 */
#ifndef MILL_DRIVER_H
#define MILL_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/alarm.h"
#include "base/bytes.h"
#include "base/err.h"
#include "base/http.h"
#include "base/option.h"
#include "mill/machine.h"

struct driver;
struct driver_ops;

#define DRIVER_REMOTE_MAX 128

enum driver_state {
	DRIVER_RUNNING,
	DRIVER_DONE,
	DRIVER_FAILED,  /* it ended, and not well, or was cancelled; or vanished without an end */
	DRIVER_UNKNOWN, /* no such run there: it was never started */
	DRIVER_AWAY,    /* no answer; the same may be asked again */
	DRIVER_REFUSED, /* a person must mend something: err says what */
};

/* All borrowed until on_answer returns. */
struct driver_answer {
	enum driver_state state; /* of a call for the log: RUNNING where `log` is there */
	const struct err *err;   /* why, where it is none of running and done; else NULL */
	int exit;                /* of a run that ended; -1: not known */
	const char *remote; /* of start: the id that the other side gave it, which status and cancel want, to be written
	                       down; NULL: it gave none, for it goes by our own */
	const struct bytes *log; /* of a call for it: bytes from the offset on */
};

struct driver_env {
	uv_loop_t *loop;
	struct alarms *alarms;
	struct http *http;
};

/* What a run is to its driver; all borrowed for the driver's life. */
struct driver_run {
	const char *id, *job;
	const void *settings;                   /* the kind's own, of the job */
	const struct machine_settings *machine; /* NULL: a job without one (exec, http) */
	const char *machine_name;               /* for words */
	const void *manifest;                   /* JSON; needed by start alone */
	size_t manifest_len;
	const char *manifest_place; /* where it stands in the store, for people and templates */
	const char *remote;         /* as written down before; NULL: none was */
	void (*on_answer)(void *arg, const struct driver_answer *answer);
	void *arg;
};

struct driver_ops {
	const char *kind;             /* the word in the configuration */
	bool of_machine;              /* what answers is the job's machine itself */
	const struct option *options; /* into a struct of settings_size bytes */
	size_t settings_size;
	int (*new)(const struct driver_env *env, const struct driver_run *run, struct driver **ret_driver);
	void (*start)(struct driver *driver);                /* RUNNING, or how it ended already */
	void (*ask)(struct driver *driver);                  /* UNKNOWN: to be started */
	void (*log)(struct driver *driver, uint64_t offset); /* NULL: its kind has none to give */
	void (*cancel)(struct driver *driver);               /* as ask; REFUSED where it cannot be */
	/* Drops what is under way, but for a command of exec: that is killed. */
	void (*free)(struct driver *driver);
};

extern const struct driver_ops driver_ssh, driver_exec, driver_http;
extern const struct driver_ops *const driver_kinds[]; /* ended by NULL */

/* The rest is the kinds' own: a struct driver begins the struct of each, one run on its way. */
struct driver {
	const struct driver_ops *ops;
	struct driver_env env;
	struct driver_run run;
	struct alarm alarm;         /* for an answer that is known without asking anybody */
	struct driver_answer known; /* that answer */
	struct err err;             /* of it */
};

void driver_init(struct driver *driver, const struct driver_ops *ops, const struct driver_env *env,
                 const struct driver_run *run);
void driver_done(struct driver *driver);

/* Tells an answer from within a callback of the loop; the driver may be gone when this returns. */
void driver_tell(struct driver *driver, const struct driver_answer *answer);

/* The same with what `err` says, where it is none of running and done. */
void driver_tell_state(struct driver *driver, enum driver_state state, int exit, const struct err *err);

/* Tells the same from the loop, soon; err is copied, NULL: there is none. */
void driver_tell_soon(struct driver *driver, enum driver_state state, int exit, const struct err *err);

#endif
