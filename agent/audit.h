/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `millrace audit`: for each store, reads the books from the buffer, lists what stands in the store, has every object
 * of ours looked at (s3: HEAD, some at a time, and GET where no checksum is told; file: hashed on a worker of its own),
 * and hands the judgement on as JSON. Runs beside everything else in the daemon, or alone on a buffer whose daemon is
 * down. Loop thread only.
 */
#ifndef AGENT_AUDIT_H
#define AGENT_AUDIT_H

#include <jansson.h>
#include <uv.h>

#include "agent/config.h"
#include "base/http.h"
#include "base/worker.h"
#include "buffer/queue.h"

struct audit;

/* All of it is borrowed for the audit's life; config with its secrets. */
struct audit_env {
	uv_loop_t *loop;
	const struct config *config;
	struct queue *queue;
	struct worker *queue_worker;
	struct http *http;
};

/*
 * Starts one; since_day: INT64_MIN for all. repair: what is missing and whose batch the buffer still has waits for its
 * store again, who then is to be nudged. on_done comes exactly once, never from within; it takes report: NULL where
 * it could not be made at all (err says why), else docs/api.md's audit object, in which a store out of reach has its
 * error. 0 or -ENOMEM.
 */
int audit_start(const struct audit_env *env, int64_t since_day, bool repair,
                void (*on_done)(void *arg, json_t *report, const struct err *err), void *arg, struct audit **ret_audit);

/* Ends it at its next step; on_done comes with -ECANCELED in err's text. */
void audit_cancel(struct audit *audit);

/* `millrace audit` without a daemon: opens the buffer itself, prints as cli/ does. Returns the exit status. */
int audit_offline(const struct config *config, int64_t since_day, bool repair, bool json);

#endif
