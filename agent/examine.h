/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stands in a store in the place of a batch that is parked there, beside what the batch is: both read whole, ours
 * from the buffer's worker, theirs by base/http or on a worker of its own. For `millrace retry`. Changes nothing. Loop
 * thread only.
 */
#ifndef AGENT_EXAMINE_H
#define AGENT_EXAMINE_H

#include <jansson.h>
#include <uv.h>

#include "agent/config.h"
#include "base/http.h"
#include "base/worker.h"
#include "buffer/queue.h"

#define EXAMINE_STORES 16

struct examine;

/* Borrowed for its life. */
struct examine_env {
	uv_loop_t *loop;
	struct http *http;
	struct queue *queue;
	struct worker *queue_worker;
};

/*
 * on_done comes exactly once, never from within; it takes conflicts: an array with one object (docs/api.md) for each of
 * the stores where something stands under the batch's key that is not the batch, or that cannot be asked; NULL: no
 * memory, or it was ended. The stores (up to EXAMINE_STORES) are borrowed. 0 or -ENOMEM.
 */
int examine_start(const struct examine_env *env, int64_t batch, const struct config_store *const *stores,
                  size_t n_stores, void (*on_done)(void *arg, json_t *conflicts), void *arg,
                  struct examine **ret_examine);

/* Ends it at its next step. */
void examine_cancel(struct examine *examine);

#endif
