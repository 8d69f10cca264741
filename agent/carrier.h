/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One store's share of the courier's work: brings one batch after the other, oldest first, to one store. A step is a
 * job either of the buffer's worker (what to bring, its parts, booking it) or of the store's own (probing, writing),
 * never of both at once. Made and owned by agent/courier. Loop thread only.
 */
#ifndef AGENT_CARRIER_H
#define AGENT_CARRIER_H

#include "agent/courier.h"

struct carrier;

struct carrier_env {
	uv_loop_t *loop;
	struct queue *queue;
	struct worker *queue_worker;
	struct alarms *alarms;
	void (*on_step)(void *arg, struct queue_view *fresh); /* after each; takes fresh, which may be NULL */
	void *arg;
};

/* At rest until it is nudged. 0 or -errno. store is borrowed. */
int carrier_new(const struct carrier_env *env, const struct config_store *store, struct carrier **ret_carrier);

/* There may be something to bring. A store that is away keeps its pace. */
void carrier_nudge(struct carrier *carrier);

/* Somebody asks for it: a store that is away, and what was left aside, is tried again at once. */
void carrier_retry(struct carrier *carrier);

/* It looked, and the store has all. */
bool carrier_empty(const struct carrier *carrier);

/* The store is away, or holds back what cannot be brought; ret_text says what is wrong. */
bool carrier_stuck(const struct carrier *carrier, const char **ret_text);

/* No step is under way. */
bool carrier_idle(const struct carrier *carrier);

void carrier_view(const struct carrier *carrier, struct courier_store *ret_store);

/* Ends after the step under way; on_closed follows, never from within. Then carrier_free. */
void carrier_close(struct carrier *carrier, void (*on_closed)(void *arg), void *arg);
void carrier_free(struct carrier *carrier);

#endif
