/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An audit's look through one store: finds what stands there of the sources it is told, and checks each object of ours.
 * scan_s3.c asks by base/http, scan_file.c reads by jobs of the audit's worker. Private to agent/audit.c and
 * agent/scan*.c. Loop thread only.
 */
#ifndef AGENT_SCAN_H
#define AGENT_SCAN_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "agent/config.h"
#include "base/http.h"
#include "base/worker.h"
#include "buffer/tally.h"

struct scan;

/* All of it outlives the scan. */
struct scan_env {
	uv_loop_t *loop;
	struct http *http;
	struct worker *worker;
	const struct config_store *store;
	bool known;          /* the store was used before, at this place */
	struct tally *tally; /* the scan's alone until on_end */
	const char (*sources)[UNITS_NAME_MAX];
	size_t n_sources;

	/* The end, exactly once, never from within start or stop; the scan is gone. status: 0; -ECANCELED, stopped;
	 * else the store could not be looked through, err says why. */
	void (*on_end)(void *arg, int status, uint64_t requests, const struct err *err);
	void *arg;
};

struct scan_ops {
	/* 0 or -errno. */
	int (*start)(const struct scan_env *env, struct scan **ret_scan);

	/* Drops what is under way at once; on_end follows as soon as a job that blocks is back. */
	void (*stop)(struct scan *scan);
};

extern const struct scan_ops scan_file_ops, scan_s3_ops;

#endif
