/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/courier.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/carrier.h"
#include "base/clock.h"
#include "base/container.h"
#include "base/log.h"

#define EXPIRE_EVERY_MS (10 * 60 * 1000)
#define ERROR_LASTS_MS  90000 /* longer than a source that cannot be sealed rests: no recovery is told in between */

/* Somebody waits until all is sealed, and perhaps delivered. */
struct flush {
	bool wait;
	bool sealed;
	int status; /* what sealing some of it failed with */
	uint64_t batches;
	courier_on_flushed on_flushed;
	void *arg;
	struct flush *next;
};

struct courier {
	const struct config *config;
	struct http *http;
	struct queue *queue;
	struct worker *worker;
	struct alarms *alarms;

	/* Tending: seal what is due, delete what was kept long enough, see when the next is due. One job at a time. */
	struct job job;
	bool tending, again, closing;
	struct alarm due;
	int64_t expire_at_ms;

	/* The job's own while it is under way. */
	bool seal_all, expire;
	int sealed, expired; /* 1: one more may follow */
	struct batch batch;
	int64_t due_in_ms;
	struct err err;
	struct queue_view *fresh;

	struct queue_view *view;
	char error[ERR_MAX];
	int64_t error_until_ms;
	struct flush *flushes;
	struct carrier **carriers;
	size_t n_carriers;

	void (*on_closed)(void *arg);
	void *closed_arg;
	size_t open; /* carriers not closed yet */
};

static void tend(struct courier *c);

static void take_view(struct courier *c, struct queue_view *fresh)
{
	if (!fresh)
		return;
	queue_view_free(c->view);
	c->view = fresh;
}

static void end_flush(struct flush **at, int status, const char *text)
{
	struct flush *flush = *at;

	*at = flush->next;
	flush->on_flushed(flush->arg, status, flush->batches, flush->wait && status == 0, text);
	free(flush);
}

static void end_flushes(struct courier *c, int status, const char *text)
{
	while (c->flushes)
		end_flush(&c->flushes, status, text);
}

/* What the stores say about those who wait for delivery: 0 done, 1 wait on, -EHOSTDOWN with text. */
static int judge_delivery(const struct courier *c, const char **ret_text)
{
	int verdict = 0;

	for (size_t i = 0; i < c->n_carriers; i++) {
		if (carrier_stuck(c->carriers[i], ret_text))
			return -EHOSTDOWN;
		if (!carrier_empty(c->carriers[i]))
			verdict = 1;
	}
	return verdict;
}

static void judge_flushes(struct courier *c)
{
	const char *text = "";
	int verdict = judge_delivery(c, &text);

	for (struct flush **at = &c->flushes; *at;) {
		if ((*at)->sealed && verdict <= 0)
			end_flush(at, verdict, text);
		else
			at = &(*at)->next;
	}
}

/* All that waited when they came is sealed. */
static void note_all_sealed(struct courier *c)
{
	for (struct flush **at = &c->flushes; *at;) {
		(*at)->sealed = true;
		if (!(*at)->wait || (*at)->status)
			end_flush(at, (*at)->status, c->error);
		else
			at = &(*at)->next;
	}
	if (c->flushes)
		for (size_t i = 0; i < c->n_carriers; i++)
			carrier_retry(c->carriers[i]);
	judge_flushes(c);
}

static void note_sealed(struct courier *c)
{
	log_info("batch.sealed", "source \"%s\": sealed seq %llu to %llu, %llu bytes, %s", c->batch.source,
	         (unsigned long long)c->batch.first_seq, (unsigned long long)c->batch.last_seq,
	         (unsigned long long)c->batch.bytes, c->batch.key);
	for (struct flush *flush = c->flushes; flush; flush = flush->next)
		flush->batches += !flush->sealed;
	for (size_t i = 0; i < c->n_carriers; i++)
		carrier_nudge(c->carriers[i]);
}

static void note_error(struct courier *c, int status)
{
	if (strcmp(c->error, c->err.text) != 0)
		log_error("batch.failing", "sealing or deleting fails: %s", c->err.text);
	snprintf(c->error, sizeof c->error, "%s", c->err.text);
	c->error_until_ms = clock_mono_ms() + ERROR_LASTS_MS;
	for (struct flush *flush = c->flushes; flush; flush = flush->next)
		if (!flush->sealed)
			flush->status = status;
}

static void note_no_error(struct courier *c)
{
	if (!c->error[0] || clock_mono_ms() < c->error_until_ms)
		return;
	log_notice("batch.recovered", "sealing and deleting work again");
	c->error[0] = '\0';
}

static void tend_work(struct job *job)
{
	struct courier *c = container_of(job, struct courier, job);
	int64_t wall = clock_wall_ms(), mono = clock_mono_ms();

	c->expired = 0;
	c->sealed = queue_seal(c->queue, wall, mono, c->seal_all, &c->batch, &c->err);
	if (c->sealed == 0 && c->expire)
		c->expired = queue_expire(c->queue, wall, c->config->keep_delivered_ms, &c->err);
	c->due_in_ms = queue_seal_due_ms(c->queue, wall, mono);
	c->fresh = queue_view(c->queue);
}

static void set_due(struct courier *c)
{
	int64_t now = clock_mono_ms();
	int64_t at = c->due_in_ms > ALARM_NEVER - now ? ALARM_NEVER : now + c->due_in_ms;

	if (c->error[0] && at > c->error_until_ms)
		at = c->error_until_ms;
	if (at > c->expire_at_ms)
		at = c->expire_at_ms;
	alarm_set(c->alarms, &c->due, at);
}

static void finish_close(struct courier *c)
{
	if (c->tending || c->open)
		return;
	for (size_t i = 0; i < c->n_carriers; i++)
		carrier_free(c->carriers[i]);
	alarm_cancel(&c->due);
	queue_view_free(c->view);
	free(c->carriers);
	c->on_closed(c->closed_arg);
	free(c);
}

static void on_tended(struct job *job)
{
	struct courier *c = container_of(job, struct courier, job);
	bool all = c->seal_all;
	int status = c->sealed < 0 ? c->sealed : c->expired;

	c->tending = false;
	take_view(c, c->fresh);
	c->fresh = NULL;
	if (c->closing) {
		finish_close(c);
		return;
	}
	if (status < 0)
		note_error(c, status);
	else
		note_no_error(c);
	if (c->sealed == 1)
		note_sealed(c);
	else if (c->sealed == 0 && all)
		note_all_sealed(c);
	if (c->expire && c->expired <= 0 && c->sealed == 0)
		c->expire_at_ms = clock_mono_ms() + EXPIRE_EVERY_MS;
	set_due(c);
	/* A source that could not be sealed rests; the others go on at once. */
	if (c->sealed != 0 || c->expired == 1 || c->again)
		tend(c);
}

static bool any_unsealed(const struct courier *c)
{
	for (const struct flush *flush = c->flushes; flush; flush = flush->next)
		if (!flush->sealed)
			return true;
	return false;
}

static void tend(struct courier *c)
{
	c->again = c->tending;
	if (c->tending || c->closing)
		return;
	c->tending = true;
	c->seal_all = any_unsealed(c);
	c->expire = clock_mono_ms() >= c->expire_at_ms;
	c->sealed = c->expired = 0;
	c->due_in_ms = INT64_MAX;
	c->err.text[0] = '\0';
	worker_submit(c->worker, &c->job);
}

static void on_due(struct alarm *alarm)
{
	tend(container_of(alarm, struct courier, due));
}

/* A carrier has done a step: new figures, and perhaps the end of somebody's wait. */
static void on_carried(void *arg, struct queue_view *fresh)
{
	struct courier *c = arg;

	take_view(c, fresh);
	if (!c->closing)
		judge_flushes(c);
}

static int make_carriers(struct courier *c, uv_loop_t *loop)
{
	c->carriers = calloc(c->config->n_stores, sizeof *c->carriers);
	if (!c->carriers)
		return -ENOMEM;
	for (size_t i = 0; i < c->config->n_stores; i++) {
		const struct carrier_env env = {
			.loop = loop,
			.http = c->http,
			.queue = c->queue,
			.queue_worker = c->worker,
			.alarms = c->alarms,
			.on_step = on_carried,
			.arg = c,
		};
		int r = carrier_new(&env, &c->config->stores[i], &c->carriers[i]);

		if (r < 0)
			return r;
		c->n_carriers++;
	}
	return 0;
}

int courier_new(uv_loop_t *loop, const struct config *config, struct http *http, struct queue *queue,
                struct worker *worker, struct alarms *alarms, struct courier **ret_courier)
{
	struct courier *c = calloc(1, sizeof *c);
	int r;

	if (!c)
		return -ENOMEM;
	c->config = config;
	c->http = http;
	c->queue = queue;
	c->worker = worker;
	c->alarms = alarms;
	c->job = (struct job){ .work = tend_work, .done = on_tended };
	c->due.on_ring = on_due;
	c->view = queue_view(queue);
	r = c->view ? make_carriers(c, loop) : -ENOMEM;
	if (r < 0)
		return r; /* NOLINT(clang-analyzer-unix.Malloc): the process ends, nothing here outlives it */
	*ret_courier = c;
	tend(c);
	for (size_t i = 0; i < c->n_carriers; i++)
		carrier_nudge(c->carriers[i]);
	return 0;
}

void courier_nudge(struct courier *c, struct queue_view *fresh)
{
	take_view(c, fresh);
	tend(c);
}

int courier_flush(struct courier *c, bool wait, courier_on_flushed on_flushed, void *arg)
{
	struct flush *flush = calloc(1, sizeof *flush);
	struct flush **end = &c->flushes;

	if (!flush)
		return -ENOMEM;
	*flush = (struct flush){ .wait = wait, .on_flushed = on_flushed, .arg = arg };
	while (*end)
		end = &(*end)->next;
	*end = flush;
	tend(c);
	return 0;
}

size_t courier_retry(struct courier *c, int64_t batch)
{
	size_t n = 0;

	for (size_t i = 0; i < c->n_carriers; i++)
		n += carrier_retry_batch(c->carriers[i], batch);
	return n;
}

size_t courier_stores(const struct courier *c)
{
	return c->n_carriers;
}

void courier_store(const struct courier *c, size_t i, struct courier_store *ret_store)
{
	carrier_view(c->carriers[i], ret_store);
}

const char *courier_error(const struct courier *c)
{
	return c->error;
}

const struct queue_view *courier_view(const struct courier *c)
{
	return c->view;
}

bool courier_idle(const struct courier *c)
{
	if (c->tending)
		return false;
	for (size_t i = 0; i < c->n_carriers; i++)
		if (!carrier_idle(c->carriers[i]))
			return false;
	return true;
}

static void on_carrier_closed(void *arg)
{
	struct courier *c = arg;

	c->open--;
	finish_close(c);
}

void courier_close(struct courier *c, void (*on_closed)(void *arg), void *arg)
{
	c->closing = true;
	c->on_closed = on_closed;
	c->closed_arg = arg;
	c->open = c->n_carriers + 1; /* a carrier may be closed from within */
	end_flushes(c, -ECANCELED, "the daemon ends");
	for (size_t i = 0; i < c->n_carriers; i++)
		carrier_close(c->carriers[i], on_carrier_closed, c);
	on_carrier_closed(c);
}
