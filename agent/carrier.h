/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One store's share of the courier's work: brings batches to one store, oldest first, as many at once as its kind
 * takes. Keeps the store's state: unknown until it was seen, ready, away (tried again with backoff), denied (a person
 * must mend something; tried again slowly). A batch that cannot be brought is parked for an hour and holds back no
 * other. What is durable is booked in the buffer after the store has it, so every step may run twice. Owned by
 * agent/courier. Loop thread only.
 */
#ifndef AGENT_CARRIER_H
#define AGENT_CARRIER_H

#include "agent/courier.h"

struct carrier;

#define HUNG_MS 10000 /* from which on a disk that does not answer is told */

struct carrier_env {
	uv_loop_t *loop;
	struct http *http;
	struct queue *queue;
	struct worker *queue_worker;
	struct alarms *alarms;
	void (*on_step)(void *arg, struct queue_view *fresh); /* something changed; takes fresh, which may be NULL */
	void *arg;
};

/* At rest until it is nudged. 0 or -errno. store is borrowed. */
int carrier_new(const struct carrier_env *env, const struct config_store *store, struct carrier **ret_carrier);

/* There may be something to bring. A store that is away or denied keeps its pace. */
void carrier_nudge(struct carrier *carrier);

/* Somebody asks for it: a store that is away or denied, and what was parked, is tried again at once. */
void carrier_retry(struct carrier *carrier);

/*
 * Something would be dropped for want of it: a store that is away is tried at once, unless it was just now or has said
 * when to come again. Whether it is.
 */
bool carrier_ask(struct carrier *carrier);

/* The same for one batch: whether it was parked here, or waits for a store that is away or denied. */
bool carrier_retry_batch(struct carrier *carrier, int64_t batch);

/* It cannot be brought here, while others can. */
bool carrier_has_parked(const struct carrier *carrier, int64_t batch);

/* It looked, and the store has all. */
bool carrier_empty(const struct carrier *carrier);

/* The store is away or denied, or a batch is parked, and nothing is under way; ret_text says what is wrong. */
bool carrier_stuck(const struct carrier *carrier, const char **ret_text);

/* The batches that are on their way, up to LOADS_MAX; how many. */
size_t carrier_under_way(const struct carrier *carrier, int64_t *ret_batches);

/* Nothing is under way. */
bool carrier_idle(const struct carrier *carrier);

void carrier_view(const struct carrier *carrier, struct courier_store *ret_store);

/* Drops what is under way; on_closed follows, perhaps from within. Then carrier_free. */
void carrier_close(struct carrier *carrier, void (*on_closed)(void *arg), void *arg);
void carrier_free(struct carrier *carrier);

#endif
