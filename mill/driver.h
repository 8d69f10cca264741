/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a job is started on a machine and followed: by ssh (worker/PROTOCOL.md), by a local command, by HTTP. A const ops
 * table for each kind. A driver may be asked for the same run again at any time: the run's id is its idempotency key.
 * Each call ends in driver_on exactly once unless cancelled, never from within; one call of a run at a time. Loop thread
 * only.
 */
#ifndef MILL_DRIVER_H
#define MILL_DRIVER_H

#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/alarm.h"
#include "base/bytes.h"
#include "base/err.h"
#include "base/http.h"
#include "base/option.h"
#include "mill/machine.h"

struct driver; /* begins the struct of each kind: one run on its way */

enum driver_state {
	DRIVER_RUNNING,
	DRIVER_DONE,
	DRIVER_FAILED,  /* it ended, and not well; or vanished without an end */
	DRIVER_UNKNOWN, /* no such run there: it was never started */
	DRIVER_AWAY,    /* no answer; the same may be asked again */
	DRIVER_REFUSED, /* a person must mend something: err says what */
};

struct driver_answer {
	enum driver_state state;
	const struct err *err;   /* why, where it is none of running and done */
	int exit;                /* of a run that ended; -1: not known */
	const struct bytes *log; /* of a call for it: bytes from the offset on; borrowed. NULL else */
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
	const char *host_alias;                 /* the machine's name, under which its host key is kept */
	const void *manifest;                   /* JSON; needed by start alone */
	size_t manifest_len;
	const char *manifest_place; /* where it stands in the store, for people and templates */
	void (*on_answer)(void *arg, const struct driver_answer *answer);
	void *arg;
};

struct driver_ops {
	const char *kind;             /* the word in the configuration */
	const struct option *options; /* into a struct of settings_size bytes */
	size_t settings_size;
	int (*new)(const struct driver_env *env, const struct driver_run *run, struct driver **ret_driver);
	void (*start)(struct driver *driver);               /* RUNNING, or how it ended already */
	void (*ask)(struct driver *driver);                 /* UNKNOWN: to be started */
	void (*log)(struct driver *driver, uint64_t offset); /* NULL: its kind has none to give */
	void (*cancel)(struct driver *driver);              /* as ask; NULL: its kind cannot */
	void (*free)(struct driver *driver);                /* drops what is under way */
};

struct driver {
	const struct driver_ops *ops;
};

extern const struct driver_ops driver_ssh, driver_exec, driver_http;
extern const struct driver_ops *const driver_kinds[]; /* ended by NULL */

#endif
