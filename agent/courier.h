/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The courier takes what the buffer holds to the stores: has it sealed when it is due, reads a sealed batch part by
 * part and writes it to each of its stores, books it as delivered, and deletes what was kept long enough. Where the
 * buffer is full it deletes what all have at once, and, told so, drops the oldest of what they have not. Each store
 * has its own pace and its own worker; one that is away is tried again with backoff and holds back nobody. Every step
 * may run twice, so starting after a crash is just starting. Loop thread only.
 */
#ifndef AGENT_COURIER_H
#define AGENT_COURIER_H

#include <stdbool.h>
#include <uv.h>

#include "agent/config.h"
#include "base/alarm.h"
#include "base/worker.h"
#include "buffer/queue.h"

struct courier;

/* All is borrowed for the courier's life. */
struct courier_env {
	uv_loop_t *loop;
	struct http *http;
	struct queue *queue;
	struct worker *worker;
	struct alarms *alarms;
	void (*on_view)(void *arg, const struct queue_view *view); /* new figures; borrowed */
	void (*on_room)(void *arg); /* there is more of it: a batch was sealed, deleted or dropped */
	void (*on_open)(void *arg); /* the buffer was opened late, or salvaged: it is to be told all anew */
	const char *shut;           /* why it is not open yet; "": it is. Borrowed during courier_new */
	void *arg;
};

/* config is borrowed until courier_configure brings another. 0 or -errno. */
int courier_new(const struct courier_env *env, const struct config *config, struct courier **ret_courier);

/*
 * Another configuration, which the queue has been told already: stores that config_keep has brought along go on as they
 * are; the others are closed, taken out of `before`, and those of `now` that have no carrier get one, a changed one
 * once its predecessor is closed.
 */
void courier_configure(struct courier *courier, const struct config *now, struct config *before);

/* There may be something new to seal. fresh: the buffer's figures since, which it takes; may be NULL. */
void courier_nudge(struct courier *courier, struct queue_view *fresh);

/* There is something new to deliver. fresh: as above. */
void courier_carry(struct courier *courier, struct queue_view *fresh);

/*
 * How a flush ended: 0; -EHOSTDOWN: sealed, but a store is away (text says which); or what sealing failed with, where
 * something is still unsealed (text names its source).
 * batches: sealed meanwhile; kept_back: records that wait for the clock instead, and are not waited for; delivered: all
 * stores have all of it.
 */
typedef void (*courier_on_flushed)(void *arg, int status, uint64_t batches, uint64_t kept_back, bool delivered,
                                   const char *text);

/*
 * Seals all that waits, also what rests after a failure, and has stores that are away asked; with `wait` until all have
 * it. Calls back exactly once. 0 or -ENOMEM.
 */
int courier_flush(struct courier *courier, bool wait, courier_on_flushed on_flushed, void *arg);

struct courier_store {
	const char *name, *kind, *place;
	const char *state;         /* "unknown", "ready", "away", "denied", "hung" */
	size_t parked;             /* batches that cannot be brought there */
	const char *last_error;    /* "" while all is well */
	int64_t last_delivered_ms; /* wall; 0: none since start */
	int64_t next_try_ms;       /* monotonic; ALARM_NEVER: none is waited for */
};

/* Tries a batch again that is parked or waits for a store that is away or denied; at how many stores. */
size_t courier_retry(struct courier *courier, int64_t batch);

/* The stores where the batch is parked, up to n; how many. Borrowed until the next courier_configure. */
size_t courier_parked(const struct courier *courier, int64_t batch, const struct config_store **ret_stores, size_t n);

/* How a configured store is doing; false: there was no memory for its carrier. Borrowed until the loop goes on. */
bool courier_store(const struct courier *courier, const char *store, struct courier_store *ret_store);

/* "" while sealing and deleting go well, else why not, or why the buffer could not be opened or salvaged. */
const char *courier_error(const struct courier *courier);

/* The -errno of sealing or deleting, 0: none; -EDQUOT is only max_size. */
int courier_trouble(const struct courier *courier);

/* The card takes commits again: what rests because of it is sealed at once. */
void courier_wake(struct courier *courier);

/* What was dropped to make room since the start. */
struct courier_lost {
	uint64_t records;
	int64_t at_ms;      /* wall; the last of it; 0: nothing */
	int64_t at_mono_ms; /* the same */
};

const struct courier_lost *courier_lost(const struct courier *courier);

/* The figures after the last change; borrowed until the loop goes on. Never NULL after courier_new. */
const struct queue_view *courier_view(const struct courier *courier);

/* Nothing is under way and nothing is due. */
bool courier_idle(const struct courier *courier);

/* Ends at the next step; flushes under way are told -ECANCELED. The queue's worker must still run. */
void courier_close(struct courier *courier, void (*on_closed)(void *arg), void *arg);

#endif
