/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The buffer as the configuration says: for the daemon, and for what does without one while none runs. Synchronous;
 * before the loop runs.
 */
#ifndef AGENT_OPENING_H
#define AGENT_OPENING_H

#include "agent/config.h"
#include "base/err.h"
#include "buffer/queue.h"

/*
 * For a command that does without a daemon, `what` ("audit"): opens the buffer that is there, and makes none; tells on
 * stderr where it was damaged and is salvaged now, and what of it was lost. 0 or what stat, queue_open and
 * queue_configure say; then nothing is open.
 */
int opening_alone(const struct config *config, const char *what, struct queue **ret_queue, struct err *err);

/*
 * The same for the daemon, which starts with a buffer that cannot be opened now: 0: it is open; 1: it is not, err says
 * why, queue_start may open it later; -errno: it was refused, and ret_queue is not set. A damaged one is left to
 * queue_start.
 */
int opening_begin(const struct config *config, struct queue **ret_queue, struct err *err);

/* Tells one stores, routes and bounds, at the start or at a reload; the queue's worker may do it. 0 or -errno.
 */
int opening_configure(const struct config *config, struct queue *queue, struct err *err);

/* The exit status of a start that failed with this -errno (interface.md). */
int opening_status(int r);

#endif
