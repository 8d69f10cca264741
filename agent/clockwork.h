/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether the wall clock is right: asks the board at the start and every few seconds until it is, which then holds
 * until the daemon ends, and tells the queue and whoever else wants to know. A clock that stands before this program
 * was built is never right, whoever says so. Loop thread only; the asking is a job of the buffer's worker.
 */
#ifndef AGENT_CLOCKWORK_H
#define AGENT_CLOCKWORK_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/config.h"
#include "base/alarm.h"
#include "base/worker.h"
#include "buffer/queue.h"

struct clockwork;

enum clockwork_state {
	CLOCKWORK_WAITING,  /* it is not right yet, and clock_wait is not over */
	CLOCKWORK_UNSYNCED, /* clock_wait is over */
	CLOCKWORK_SYNCED,
};
extern const char *const clockwork_state_names[];

/* All is borrowed for the clockwork's life. */
struct clockwork_env {
	struct queue *queue;
	struct worker *worker;
	struct alarms *alarms;
	/* After each asking, and once at the beginning where nobody need be asked; takes the figures, which may be
	 * NULL. */
	void (*on_told)(void *arg, bool synced, struct queue_view *fresh);
	void *arg;
};

/* NULL: no memory. Starts at once. */
struct clockwork *clockwork_new(const struct clockwork_env *env, const struct config *config);

/* Another configuration; and asks at once, also where nothing in it changed: the queue may be a new one. */
void clockwork_configure(struct clockwork *clockwork, const struct config *config);

struct clockwork_view {
	enum clockwork_state state;
	int64_t since_ms;      /* monotonic; that it is right, or that it is not, as far as this process knows */
	int64_t wait_until_ms; /* monotonic */
};
void clockwork_view(const struct clockwork *clockwork, struct clockwork_view *ret_view);

/*
 * What the queue has to know of a configuration before anything is sealed: how long what came unsynced is kept back.
 * clock_wait counts from the boot, so a machine that has been up for longer waits no more. On the queue's worker.
 */
void clockwork_bound(const struct config *config, struct queue *queue);

/* Asks no more. The job under way ends with the worker; then the clockwork can be freed. */
void clockwork_stop(struct clockwork *clockwork);
void clockwork_free(struct clockwork *clockwork); /* NULL is fine */

#endif
