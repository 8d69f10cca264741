/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/carrier.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/container.h"
#include "base/log.h"
#include "base/random.h"
#include "buffer/pack.h"
#include "buffer/store_file.h"

#define RETRY_FIRST_MS 1000
#define RETRY_MAX_MS   60000
#define ASIDE_MS       (60 * 60 * 1000) /* a batch that cannot be brought is tried again after an hour */

/* Where a batch is on its way; each but the first is one job. */
enum step {
	STEP_REST,   /* nothing to bring, or waiting for the next try */
	STEP_LOOK,   /* ask the buffer what comes next, and whether the store was used before */
	STEP_PROBE,  /* see whether the store is there */
	STEP_PLACE,  /* have the buffer remember where the store is */
	STEP_BEGIN,  /* begin the object */
	STEP_READ,   /* read a part from the buffer */
	STEP_WRITE,  /* write it to the store */
	STEP_FINISH, /* have the store make it durable */
	STEP_BOOK,   /* have the buffer remember that the store has it */
	STEP_ABORT,  /* leave the object; then wait, or leave the batch aside */
};

enum state { STATE_UNKNOWN, STATE_READY, STATE_AWAY };
static const char *const state_names[] = {
	[STATE_UNKNOWN] = "unknown", [STATE_READY] = "ready", [STATE_AWAY] = "away"
};

struct carrier {
	struct carrier_env env;
	const struct config_store *config;
	struct store *store;
	struct worker *worker;
	struct job job;
	struct alarm alarm;

	enum step step;
	enum state state;
	bool again; /* nudged while a step was under way */
	bool empty;
	bool closing;

	/* Of the step; the worker's while its job is under way. */
	int status;
	struct err err;
	bool known; /* the store was used at this place before */
	bool have;  /* there is a batch to bring */
	bool done;  /* the last of its stores has it */
	struct batch batch;
	int part;
	uint64_t written; /* bytes of the object */
	struct bytes data;
	struct queue_view *fresh;

	int64_t after; /* batches up to this id are not looked at: one of them was left aside */
	int64_t aside_until_ms;
	int64_t retry_ms;
	int64_t last_delivered_ms;
	char error[ERR_MAX];

	void (*on_closed)(void *arg);
	void *closed_arg;
};

static void start(struct carrier *c, enum step step);

static void look_work(struct carrier *c)
{
	char place[512];

	c->have = false;
	c->status = queue_store_place(c->env.queue, c->config->name, place, sizeof place, &c->err);
	if (c->status < 0)
		return;
	c->known = strcmp(place, c->config->path) == 0;
	c->status = queue_next_delivery(c->env.queue, c->config->name, c->after, &c->batch, &c->err);
	c->have = c->status == 0;
	if (c->status == -ENOENT)
		c->status = 0;
}

static void probe_work(struct carrier *c)
{
	c->status = c->store->ops->probe(c->store, c->known, &c->err);
}

static void place_work(struct carrier *c)
{
	c->status = queue_set_store_place(c->env.queue, c->config->name, c->config->path, &c->err);
}

static void begin_work(struct carrier *c)
{
	c->status = c->store->ops->begin(c->store, c->batch.key, c->batch.bytes, c->batch.sha256, &c->err);
}

static void read_work(struct carrier *c)
{
	bytes_clear(&c->data);
	c->status = queue_read_part(c->env.queue, c->batch.id, c->part, &c->data, &c->err);
	if (c->status == -ENOENT && c->written != c->batch.bytes)
		c->status = err_fail(&c->err, -EBADMSG, "batch %lld has %llu bytes in the buffer, not %llu",
		                     (long long)c->batch.id, (unsigned long long)c->written,
		                     (unsigned long long)c->batch.bytes);
}

static void write_work(struct carrier *c)
{
	c->status = c->store->ops->write(c->store, c->data.data, c->data.len, &c->err);
}

static void finish_work(struct carrier *c)
{
	c->status = c->store->ops->finish(c->store, &c->err);
}

static void book_work(struct carrier *c)
{
	c->status = queue_delivered(c->env.queue, c->batch.id, c->config->name, clock_wall_ms(), &c->done, &c->err);
	c->fresh = queue_view(c->env.queue);
}

static void abort_work(struct carrier *c)
{
	c->store->ops->abort(c->store);
}

static void rest(struct carrier *c, int64_t until_ms)
{
	c->step = STEP_REST;
	if (c->again && c->state != STATE_AWAY)
		start(c, STEP_LOOK);
	else if (until_ms != ALARM_NEVER)
		alarm_set(c->env.alarms, &c->alarm, until_ms);
}

/* The store, or the buffer, does not do it now: the same again after a while. */
static void back_off(struct carrier *c)
{
	int64_t wait = c->retry_ms / 2 + random_below(c->retry_ms / 2 + 1);

	if (strcmp(c->error, c->err.text) != 0)
		log_warning("store.away", "store \"%s\": %s", c->config->name, c->err.text);
	snprintf(c->error, sizeof c->error, "%s", c->err.text);
	c->state = STATE_AWAY;
	c->retry_ms = c->retry_ms * 2 < RETRY_MAX_MS ? c->retry_ms * 2 : RETRY_MAX_MS;
	rest(c, clock_mono_ms() + wait);
}

/* This batch cannot be brought, others can: leave it aside for an hour. */
static void leave_aside(struct carrier *c)
{
	log_error("batch.aside", "store \"%s\": batch %lld cannot be delivered: %s", c->config->name,
	          (long long)c->batch.id, c->err.text);
	snprintf(c->error, sizeof c->error, "%s", c->err.text);
	if (!c->after)
		c->aside_until_ms = clock_mono_ms() + ASIDE_MS;
	c->after = c->batch.id;
	start(c, STEP_LOOK);
}

static bool is_aside(int status)
{
	return status == -EEXIST || status == -EBADMSG;
}

/* The store is there, whether or not something waits for it. */
static void note_ready(struct carrier *c)
{
	if (c->state == STATE_AWAY)
		log_notice("store.recovered", "store \"%s\": ready again", c->config->name);
	c->state = STATE_READY;
	c->retry_ms = RETRY_FIRST_MS;
	if (!c->after)
		c->error[0] = '\0';
}

static void after_look(struct carrier *c)
{
	c->empty = !c->have && !c->after;
	if (c->have || c->state != STATE_READY)
		start(c, STEP_PROBE);
	else
		rest(c, c->after ? c->aside_until_ms : ALARM_NEVER);
}

static void after_probe(struct carrier *c)
{
	if (!c->known)
		start(c, STEP_PLACE);
	else if (c->have)
		start(c, STEP_BEGIN);
	else {
		note_ready(c);
		rest(c, c->after ? c->aside_until_ms : ALARM_NEVER);
	}
}

static void after_place(struct carrier *c)
{
	c->known = true;
	after_probe(c);
}

static void after_begin(struct carrier *c)
{
	c->part = 0;
	c->written = 0;
	start(c, STEP_READ);
}

static void after_read(struct carrier *c)
{
	start(c, STEP_WRITE);
}

static void after_write(struct carrier *c)
{
	c->part++;
	c->written += c->data.len;
	start(c, STEP_READ);
}

static void after_finish(struct carrier *c)
{
	start(c, STEP_BOOK);
}

static void after_book(struct carrier *c)
{
	note_ready(c);
	c->last_delivered_ms = clock_wall_ms();
	log_info("batch.delivered", "store \"%s\": has %s", c->config->name, c->batch.key);
	start(c, STEP_LOOK);
}

static void after_abort(struct carrier *c)
{
	if (is_aside(c->status))
		leave_aside(c);
	else
		back_off(c);
}

/* What each step does, on which worker, and what follows where it went well. */
static const struct {
	void (*work)(struct carrier *c);
	void (*after)(struct carrier *c);
	bool in_buffer;
	bool begun; /* a failure leaves an object that was begun */
} steps[] = {
	[STEP_LOOK] = { look_work, after_look, .in_buffer = true },
	[STEP_PROBE] = { .work = probe_work, .after = after_probe },
	[STEP_PLACE] = { place_work, after_place, .in_buffer = true },
	[STEP_BEGIN] = { begin_work, after_begin, .begun = true },
	[STEP_READ] = { read_work, after_read, .in_buffer = true, .begun = true },
	[STEP_WRITE] = { write_work, after_write, .begun = true },
	[STEP_FINISH] = { finish_work, after_finish, .begun = true },
	[STEP_BOOK] = { book_work, after_book, .in_buffer = true },
	[STEP_ABORT] = { .work = abort_work, .after = after_abort },
};

static void on_work(struct job *job)
{
	struct carrier *c = container_of(job, struct carrier, job);

	if (c->step != STEP_ABORT) {
		c->status = 0;
		c->err.text[0] = '\0';
	}
	steps[c->step].work(c);
}

static void on_store_worker_closed(void *arg)
{
	struct carrier *c = arg;

	c->worker = NULL;
	c->on_closed(c->closed_arg);
}

/* The last step of a begun object is known by the buffer having no further part. */
static bool is_last_part(const struct carrier *c)
{
	return c->step == STEP_READ && c->status == -ENOENT;
}

static void on_step_done(struct job *job)
{
	struct carrier *c = container_of(job, struct carrier, job);
	struct queue_view *fresh = c->fresh;

	c->fresh = NULL;
	if (c->closing)
		worker_close(c->worker, on_store_worker_closed, c);
	else if (is_last_part(c))
		start(c, STEP_FINISH);
	else if (c->status < 0 && steps[c->step].begun)
		start(c, STEP_ABORT);
	else if (c->status < 0 && c->step != STEP_ABORT)
		back_off(c);
	else
		steps[c->step].after(c);
	c->env.on_step(c->env.arg, fresh);
}

static void start(struct carrier *c, enum step step)
{
	assert(step != STEP_REST);
	if (step == STEP_LOOK) {
		c->again = false;
		c->empty = false;
	}
	c->step = step;
	worker_submit(steps[step].in_buffer ? c->env.queue_worker : c->worker, &c->job);
}

static void on_alarm(struct alarm *alarm)
{
	struct carrier *c = container_of(alarm, struct carrier, alarm);

	if (clock_mono_ms() >= c->aside_until_ms)
		c->after = 0;
	start(c, STEP_LOOK);
}

int carrier_new(const struct carrier_env *env, const struct config_store *config, struct carrier **ret_carrier)
{
	struct carrier *c = calloc(1, sizeof *c);
	int r;

	if (!c)
		return -ENOMEM;
	c->env = *env;
	c->config = config;
	c->job = (struct job){ .work = on_work, .done = on_step_done };
	c->alarm.on_ring = on_alarm;
	c->retry_ms = RETRY_FIRST_MS;
	bytes_init(&c->data, PACK_PART);
	c->store = store_file_new(config->path, config->embedded);
	r = c->store ? worker_start(env->loop, config->name, &c->worker) : -ENOMEM;
	if (r < 0) {
		carrier_free(c);
		return r;
	}
	*ret_carrier = c;
	return 0;
}

void carrier_nudge(struct carrier *c)
{
	c->again = true;
	c->empty = false;
	if (c->step == STEP_REST && c->state != STATE_AWAY && !c->closing) {
		alarm_cancel(&c->alarm);
		start(c, STEP_LOOK);
	}
}

void carrier_retry(struct carrier *c)
{
	c->again = true;
	c->empty = false;
	c->after = 0;
	if (c->step == STEP_REST && !c->closing) {
		alarm_cancel(&c->alarm);
		start(c, STEP_LOOK);
	}
}

bool carrier_empty(const struct carrier *c)
{
	return c->empty;
}

bool carrier_stuck(const struct carrier *c, const char **ret_text)
{
	if (c->step != STEP_REST || (c->state != STATE_AWAY && !c->after))
		return false;
	*ret_text = c->error;
	return true;
}

bool carrier_idle(const struct carrier *c)
{
	return c->step == STEP_REST;
}

void carrier_view(const struct carrier *c, struct courier_store *ret_store)
{
	*ret_store = (struct courier_store){
		.name = c->config->name,
		.kind = c->store->ops->kind,
		.place = c->config->path,
		.state = state_names[c->state],
		.last_error = c->error,
		.last_delivered_ms = c->last_delivered_ms,
		.next_try_ms = c->alarm.set ? c->alarm.at_ms : ALARM_NEVER,
	};
}

void carrier_close(struct carrier *c, void (*on_closed)(void *arg), void *arg)
{
	c->closing = true;
	c->on_closed = on_closed;
	c->closed_arg = arg;
	alarm_cancel(&c->alarm);
	if (c->step == STEP_REST)
		worker_close(c->worker, on_store_worker_closed, c);
}

void carrier_free(struct carrier *c)
{
	if (!c)
		return;
	queue_view_free(c->fresh);
	bytes_done(&c->data);
	if (c->store) {
		c->store->ops->abort(c->store);
		c->store->ops->free(c->store);
	}
	free(c);
}
