/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/carrier.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/bearer.h"
#include "base/clock.h"
#include "base/container.h"
#include "base/log.h"
#include "base/random.h"
#include "buffer/pack.h"

#define RETRY_FIRST_MS     1000
#define RETRY_MAX_MS       60000
#define ASK_AFTER_MS       2000             /* since the last try: then carrier_ask makes one more */
#define RETRY_AFTER_MAX_MS (60 * 60 * 1000) /* what a store may ask for */
#define DENIED_MS          (5 * 60 * 1000)
#define PARKED_MS          (60 * 60 * 1000)
#define PARKED_MAX         1024
#define PARKED_TOLD        16 /* in the log; status counts them all */
#define TRIES_MAX          8  /* of one batch at a store that answers probes */

enum state { STATE_UNKNOWN, STATE_READY, STATE_AWAY, STATE_DENIED };
static const char *const state_names[] = {
	[STATE_UNKNOWN] = "unknown",
	[STATE_READY] = "ready",
	[STATE_AWAY] = "away",
	[STATE_DENIED] = "denied",
};

struct carrier {
	struct carrier_env env;
	const struct config_store *config;
	struct bearer *bearer;
	struct load loads[LOADS_MAX];
	size_t n_loads;
	struct alarm alarm; /* the next try: of a store that is away or denied, of what is parked, or a look after it */

	enum state state;
	bool seen; /* the store has answered a probe since it was held back last */
	bool probing;
	int64_t probe_at_ms; /* when a store that is ready is looked after again */
	bool again;          /* nudged while it looked */
	bool empty;          /* it looked, and nothing waits */
	bool closing, bearer_closed;
	size_t jobs; /* of the buffer's worker, under way */

	/* Looking: which batch comes next, and whether the store was used before; the worker's while it is under way.
	 */
	struct job look;
	bool looking;
	bool have, known;
	char moved_from[512]; /* where the buffer has it, if that is elsewhere; "" */
	int status;
	struct err err;
	struct batch batch;
	int64_t skip[LOADS_MAX + PARKED_MAX]; /* batches that are under way or parked */
	size_t n_skip;

	struct job place; /* has the buffer remember where the store is */

	int64_t parked[PARKED_MAX];
	size_t n_parked;
	int64_t parked_until_ms;

	struct failing {
		int64_t batch;
		unsigned tries;
	} failing[LOADS_MAX]; /* batches that the store did not take, though it answers probes */

	int64_t retry_ms;
	int64_t ask_at_ms; /* while it is away: when carrier_ask may do so */
	int64_t last_delivered_ms;
	char told[ERR_MAX];         /* what the log was told last, until the store takes objects again */
	char error[ERR_MAX];        /* why the store is away or denied; "" while it is ready */
	char parked_error[ERR_MAX]; /* of the last one; "" while none is */

	void (*on_closed)(void *arg);
	void *closed_arg;
};

static void look(struct carrier *c);

static void submit(struct carrier *c, struct job *job)
{
	c->jobs++;
	worker_submit(c->env.queue_worker, job);
}

static void finish_close(struct carrier *c)
{
	if (c->closing && c->bearer_closed && c->jobs == 0)
		c->on_closed(c->closed_arg);
}

/* A job of the buffer's worker is back: true where the carrier is closing and nothing may follow. */
static bool is_over(struct carrier *c)
{
	bool over = c->closing; /* finish_close may free the carrier */

	c->jobs--;
	if (over)
		finish_close(c);
	return over;
}

static void tell(struct carrier *c, struct queue_view *fresh)
{
	c->env.on_step(c->env.arg, fresh);
}

static size_t under_way(const struct carrier *c)
{
	size_t n = 0;

	for (size_t i = 0; i < c->n_loads; i++)
		n += c->loads[i].used;
	return n;
}

/* --- States --- */

static void set_error(struct carrier *c, const char *text)
{
	snprintf(c->error, sizeof c->error, "%s", text);
}

/* Of a store that is ready. */
static void set_alarm(struct carrier *c)
{
	bool parked_first = c->n_parked && c->parked_until_ms < c->probe_at_ms;

	alarm_set(c->env.alarms, &c->alarm, parked_first ? c->parked_until_ms : c->probe_at_ms);
}

/* The store has taken an object, or nothing waits for it: that it answers a probe alone tells too little. */
static void note_ready(struct carrier *c)
{
	if (c->told[0])
		log_notice("store.recovered", "store \"%s\": ready again", c->config->name);
	c->told[0] = '\0';
	c->state = STATE_READY;
	c->retry_ms = RETRY_FIRST_MS;
	c->probe_at_ms = clock_mono_ms() + c->bearer->ops->probe_every_ms;
	set_error(c, "");
	set_alarm(c);
}

/* Once per change of what is wrong, not once per try. */
static void hold_back(struct carrier *c, enum state state, const char *text, int64_t wait_ms)
{
	if (strcmp(c->told, text) != 0)
		log_warning(state == STATE_DENIED ? "store.denied" : "store.away", "store \"%s\": %s", c->config->name,
		            text);
	set_error(c, text);
	memcpy(c->told, c->error, sizeof c->told);
	c->state = state;
	c->seen = false;
	alarm_set(c->env.alarms, &c->alarm, clock_mono_ms() + wait_ms);
}

/* Full jitter: many Millraces whose store comes back do not come back in one moment. */
static void note_away(struct carrier *c, const char *text, int64_t retry_after_ms)
{
	int64_t wait_ms = 100 + random_below(c->retry_ms);

	c->retry_ms = c->retry_ms * 2 < RETRY_MAX_MS ? c->retry_ms * 2 : RETRY_MAX_MS;
	if (retry_after_ms > RETRY_AFTER_MAX_MS)
		retry_after_ms = RETRY_AFTER_MAX_MS;
	c->ask_at_ms = clock_mono_ms() + (retry_after_ms > ASK_AFTER_MS ? retry_after_ms : ASK_AFTER_MS);
	hold_back(c, STATE_AWAY, text, wait_ms > retry_after_ms ? wait_ms : retry_after_ms);
}

static void note_denied(struct carrier *c, const char *text)
{
	hold_back(c, STATE_DENIED, text, DENIED_MS + random_below(DENIED_MS / 10));
}

/* How often by now a store that answers probes has not taken this batch. */
static unsigned count_failure(struct carrier *c, int64_t batch)
{
	struct failing *least = c->failing;

	for (size_t i = 0; i < LOADS_MAX; i++) {
		if (c->failing[i].batch == batch)
			return ++c->failing[i].tries;
		if (c->failing[i].tries < least->tries)
			least = &c->failing[i];
	}
	*least = (struct failing){ .batch = batch, .tries = 1 };
	return 1;
}

/* It is the store itself: what was held against single batches is forgotten. */
static void forgive(struct carrier *c)
{
	memset(c->failing, 0, sizeof c->failing);
	c->n_parked = 0;
}

static void note_parked(struct carrier *c, const struct load *load)
{
	struct err err = load->err;

	err_prefix(&err, "batch %lld is parked", (long long)load->batch.id);
	if (c->n_parked < PARKED_TOLD)
		log_error("batch.parked", "store \"%s\": %s", c->config->name, err.text);
	if (c->n_parked == PARKED_MAX) {
		note_denied(c, err.text);
		return;
	}
	if (c->n_parked == 0)
		c->parked_until_ms = clock_mono_ms() + PARKED_MS;
	c->parked[c->n_parked++] = load->batch.id;
	memcpy(c->parked_error, err.text, sizeof c->parked_error);
	if (c->state == STATE_READY)
		set_alarm(c);
}

/* --- Loads --- */

static void read_work(struct job *job)
{
	struct load *load = container_of(job, struct load, job);

	bytes_clear(&load->data);
	struct queue *queue = load->carrier->env.queue;

	load->status = queue_read_part(queue, load->batch.id, load->part, &load->data, &load->err);
	load->dropped = load->status == -ENOENT && !queue_waits(queue, load->batch.id);
	if (load->status == -ENOENT && !load->dropped)
		load->status = queue_lacks_parts(queue, load->batch.id, &load->err);
	if (load->status < 0)
		load->fresh = queue_view(queue); /* what is damaged is salvaged by whoever sees it there */
}

static void forget_view(struct load *load)
{
	queue_view_free(load->fresh);
	load->fresh = NULL;
}

static void end_load(struct load *load)
{
	load->used = load->dropped = false;
	bytes_done(&load->data);
	forget_view(load);
}

static void book_work(struct job *job)
{
	struct load *load = container_of(job, struct load, job);
	struct carrier *c = load->carrier;
	bool done;

	load->status =
	        queue_delivered(c->env.queue, load->batch.id, c->config->name, clock_wall_ms(), &done, &load->err);
	load->fresh = queue_view(c->env.queue);
}

static void forget_failures(struct carrier *c, int64_t batch)
{
	for (size_t i = 0; i < LOADS_MAX; i++)
		if (c->failing[i].batch == batch)
			c->failing[i] = (struct failing){ 0 };
}

static void on_booked(struct job *job)
{
	struct load *load = container_of(job, struct load, job);
	struct carrier *c = load->carrier;
	struct queue_view *fresh = load->fresh;

	load->fresh = NULL;
	end_load(load);
	if (is_over(c)) {
		queue_view_free(fresh);
		return;
	}
	if (load->status < 0) {
		/* The store has it; it is brought, and found there, once more. */
		note_away(c, load->err.text, -1);
	} else {
		note_ready(c);
		forget_failures(c, load->batch.id);
		c->last_delivered_ms = clock_wall_ms();
		log_info("batch.delivered", "store \"%s\": has %s", c->config->name, load->batch.key);
		look(c);
	}
	tell(c, fresh);
}

static void conclude(struct load *load)
{
	struct carrier *c = load->carrier;
	struct queue_view *fresh = load->fresh;

	load->fresh = NULL;
	if (load->verdict == LOAD_DELIVERED) {
		queue_view_free(fresh); /* booking brings another */
		load->job = (struct job){ .work = book_work, .done = on_booked };
		load->status = -ECANCELED;
		submit(c, &load->job);
		return;
	}
	/* A denial of this object, or of all? The probe tells; where the store takes that, the others go on. */
	if (load->verdict == LOAD_DENIED)
		c->probe_at_ms = 0;
	if (load->dropped)
		forget_failures(c, load->batch.id); /* to make room: nothing is left to bring */
	else if (load->verdict != LOAD_AWAY || count_failure(c, load->batch.id) >= TRIES_MAX)
		note_parked(c, load);
	else
		note_away(c, load->err.text, load->retry_after_ms);
	end_load(load);
	look(c);
	tell(c, fresh);
}

void load_done(struct load *load, enum load_verdict verdict, int64_t retry_after_ms)
{
	load->verdict = verdict;
	load->retry_after_ms = retry_after_ms;
	load->done_early = load->busy;
	if (!load->busy)
		conclude(load);
}

static void on_read(struct job *job)
{
	struct load *load = container_of(job, struct load, job);
	struct carrier *c = load->carrier;

	load->busy = false;
	if (c->closing)
		forget_view(load);
	if (is_over(c))
		return;
	if (load->done_early) {
		conclude(load);
		return;
	}
	if (load->stale) {
		load->stale = false;
		load_read(load);
		return;
	}
	if (load->status == 0) {
		load->part++;
		load->read += load->data.len;
	}
	c->bearer->ops->on_part(c->bearer, load);
}

void load_read(struct load *load)
{
	forget_view(load);
	load->job = (struct job){ .work = read_work, .done = on_read };
	load->busy = true;
	load->status = -ECANCELED;
	submit(load->carrier, &load->job);
}

void load_rewind(struct load *load)
{
	load->part = 0;
	load->read = 0;
	load->stale = load->busy;
	if (!load->busy)
		bytes_clear(&load->data);
}

bool load_is_read(const struct load *load)
{
	return load->read >= load->batch.bytes;
}

static void start_load(struct carrier *c)
{
	struct load *load = c->loads;

	while (load->used)
		load++;
	load->used = true;
	load->batch = c->batch;
	load->part = 0;
	load->read = 0;
	load->busy = load->stale = load->done_early = false;
	load->err.text[0] = '\0';
	bytes_init(&load->data, PACK_PART);
	c->bearer->ops->bring(c->bearer, load);
}

/* --- Looking --- */

static bool is_skipped(const struct carrier *c, int64_t batch)
{
	for (size_t i = 0; i < c->n_skip; i++)
		if (c->skip[i] == batch)
			return true;
	return false;
}

static void look_work(struct job *job)
{
	struct carrier *c = container_of(job, struct carrier, look);
	char place[sizeof c->moved_from];

	c->have = false;
	c->batch.id = 0;
	c->status = queue_store_place(c->env.queue, c->config->name, place, sizeof place, &c->err);
	if (c->status < 0)
		return;
	c->known = strcmp(place, c->config->place) == 0 || strcmp(place, QUEUE_PLACE_LOST) == 0;
	snprintf(c->moved_from, sizeof c->moved_from, "%s", c->known ? "" : place);
	do
		c->status = queue_next_delivery(c->env.queue, c->config->name, c->batch.id, &c->batch, &c->err);
	while (c->status == 0 && is_skipped(c, c->batch.id));
	c->have = c->status == 0;
	if (c->status == -ENOENT)
		c->status = 0;
}

static void after_look(struct carrier *c)
{
	if (!c->seen || clock_mono_ms() >= c->probe_at_ms) {
		c->probing = true;
		c->bearer->ops->probe(c->bearer, c->known);
	} else if (c->have) {
		start_load(c);
		look(c);
	} else {
		c->empty = under_way(c) == 0 && c->n_parked == 0 && !c->again;
		if (under_way(c) == 0 && c->state != STATE_READY)
			note_ready(c);
		else if (c->state == STATE_READY && !c->alarm.set)
			set_alarm(c);
		if (c->again)
			look(c);
	}
}

static void on_looked(struct job *job)
{
	struct carrier *c = container_of(job, struct carrier, look);

	c->looking = false;
	if (is_over(c))
		return;
	if (c->status < 0)
		note_away(c, c->err.text, -1);
	else
		after_look(c);
	tell(c, NULL);
}

static void fill_skip(struct carrier *c)
{
	c->n_skip = 0;
	for (size_t i = 0; i < c->n_loads; i++)
		if (c->loads[i].used)
			c->skip[c->n_skip++] = c->loads[i].batch.id;
	for (size_t i = 0; i < c->n_parked; i++)
		c->skip[c->n_skip++] = c->parked[i];
}

/* Looks for the next batch, unless it is doing so, has its hands full, or waits for the store. */
static void look(struct carrier *c)
{
	bool waits = c->state == STATE_AWAY || c->state == STATE_DENIED;

	c->empty = false;
	if (c->looking || c->probing || c->closing || under_way(c) == c->n_loads || (waits && c->alarm.set))
		return;
	c->again = false;
	c->looking = true;
	c->status = -ECANCELED;
	c->err.text[0] = '\0';
	fill_skip(c);
	submit(c, &c->look);
}

static void place_work(struct job *job)
{
	struct carrier *c = container_of(job, struct carrier, place);

	c->status = queue_set_store_place(c->env.queue, c->config->name, c->config->place, &c->err);
}

/* It answers. What it was held back for is over once it takes an object. */
static void note_seen(struct carrier *c)
{
	c->seen = true;
	c->probe_at_ms = clock_mono_ms() + c->bearer->ops->probe_every_ms;
	if (c->state == STATE_UNKNOWN)
		note_ready(c);
	else if (c->state == STATE_READY)
		set_alarm(c);
}

/* The books go by its name. */
static void warn_moved(const struct carrier *c)
{
	if (c->moved_from[0])
		log_warning(
		        "store.moved",
		        "store \"%s\" is at %s now, and was at %s before: what it got there does not come along, and "
		        "`audit` will call it missing here; give a store that moves a new name",
		        c->config->name, c->config->place, c->moved_from);
}

static void on_placed(struct job *job)
{
	struct carrier *c = container_of(job, struct carrier, place);

	c->probing = false;
	if (is_over(c))
		return;
	if (c->status < 0) {
		note_away(c, c->err.text, -1);
	} else {
		warn_moved(c);
		note_seen(c);
	}
	look(c);
	tell(c, NULL);
}

void carrier_probed(struct carrier *c, int status, int64_t retry_after_ms, const struct err *err)
{
	c->probing = false;
	if (status < 0)
		forgive(c);
	if (status == -EACCES || status == -EPROTO)
		note_denied(c, err->text);
	else if (status < 0)
		note_away(c, err->text, retry_after_ms);
	else if (c->known)
		note_seen(c);
	if (status < 0 || c->known) {
		look(c);
		tell(c, NULL);
		return;
	}
	c->probing = true;
	submit(c, &c->place);
}

static void on_alarm(struct alarm *alarm)
{
	struct carrier *c = container_of(alarm, struct carrier, alarm);

	if (clock_mono_ms() >= c->parked_until_ms)
		c->n_parked = 0;
	look(c);
	if (c->state == STATE_READY && !c->looking)
		set_alarm(c); /* its hands are full: what they bring tells as much as a probe */
}

/* --- Public functions --- */

static const struct bearer_ops *find_bearer(const struct store_kind *kind)
{
	return kind == &store_kind_s3 ? &bearer_s3_ops : &bearer_file_ops;
}

int carrier_new(const struct carrier_env *env, const struct config_store *config, struct carrier **ret_carrier)
{
	struct carrier *c = calloc(1, sizeof *c);
	int r;

	if (!c)
		return -ENOMEM;
	c->env = *env;
	c->config = config;
	c->look = (struct job){ .work = look_work, .done = on_looked };
	c->place = (struct job){ .work = place_work, .done = on_placed };
	c->alarm.on_ring = on_alarm;
	c->retry_ms = RETRY_FIRST_MS;
	for (size_t i = 0; i < LOADS_MAX; i++)
		c->loads[i].carrier = c;
	r = find_bearer(config->kind)->new (env, config, c, &c->bearer, &c->n_loads);
	if (r < 0) {
		free(c);
		return r;
	}
	*ret_carrier = c;
	return 0;
}

void carrier_nudge(struct carrier *c)
{
	c->again = true;
	look(c);
}

void carrier_retry(struct carrier *c)
{
	c->n_parked = 0;
	c->probe_at_ms = 0;
	alarm_cancel(&c->alarm);
	carrier_nudge(c);
}

bool carrier_has_parked(const struct carrier *c, int64_t batch)
{
	for (size_t i = 0; i < c->n_parked; i++)
		if (c->parked[i] == batch)
			return true;
	return false;
}

bool carrier_ask(struct carrier *c)
{
	if (c->state != STATE_AWAY || !carrier_idle(c) || clock_mono_ms() < c->ask_at_ms)
		return false;
	c->probe_at_ms = 0;
	alarm_cancel(&c->alarm);
	carrier_nudge(c);
	return true;
}

bool carrier_retry_batch(struct carrier *c, int64_t batch)
{
	bool waits = c->state == STATE_AWAY || c->state == STATE_DENIED;

	for (size_t i = 0; i < c->n_parked; i++) {
		if (c->parked[i] != batch)
			continue;
		c->parked[i] = c->parked[--c->n_parked];
		carrier_nudge(c);
		return true;
	}
	if (waits)
		carrier_retry(c);
	return waits;
}

bool carrier_empty(const struct carrier *c)
{
	return c->empty;
}

bool carrier_stuck(const struct carrier *c, const char **ret_text)
{
	if (!carrier_idle(c) || (c->state == STATE_READY && c->n_parked == 0) || c->state == STATE_UNKNOWN)
		return false;
	*ret_text = c->error[0] ? c->error : c->parked_error;
	return true;
}

size_t carrier_under_way(const struct carrier *c, int64_t *ret_batches)
{
	size_t n = 0;

	for (size_t i = 0; i < c->n_loads; i++)
		if (c->loads[i].used)
			ret_batches[n++] = c->loads[i].batch.id;
	return n;
}

bool carrier_idle(const struct carrier *c)
{
	return !c->looking && !c->probing && under_way(c) == 0;
}

static bool is_hung(const struct carrier *c)
{
	return c->bearer->ops->busy_ms && c->bearer->ops->busy_ms(c->bearer) >= HUNG_MS;
}

static const char *why(const struct carrier *c)
{
	if (is_hung(c))
		return "the disk does not answer";
	if (c->error[0])
		return c->error;
	return c->n_parked ? c->parked_error : "";
}

/* Of what is held back: that a store which is ready is looked after is no try. */
static int64_t next_try(const struct carrier *c)
{
	bool waits = c->state == STATE_AWAY || c->state == STATE_DENIED;

	if (waits && c->alarm.set)
		return c->alarm.at_ms;
	return c->n_parked ? c->parked_until_ms : ALARM_NEVER;
}

void carrier_view(const struct carrier *c, struct courier_store *ret_store)
{
	*ret_store = (struct courier_store){
		.name = c->config->name,
		.kind = c->config->kind->kind,
		.place = c->config->place,
		.state = is_hung(c) ? "hung" : state_names[c->state],
		.parked = c->n_parked,
		.last_error = why(c),
		.last_delivered_ms = c->last_delivered_ms,
		.next_try_ms = next_try(c),
	};
}

static void on_bearer_closed(void *arg)
{
	struct carrier *c = arg;

	c->bearer_closed = true;
	finish_close(c);
}

void carrier_close(struct carrier *c, void (*on_closed)(void *arg), void *arg)
{
	c->closing = true;
	c->on_closed = on_closed;
	c->closed_arg = arg;
	alarm_cancel(&c->alarm);
	c->bearer->ops->close(c->bearer, on_bearer_closed, c);
}

void carrier_free(struct carrier *c)
{
	for (size_t i = 0; i < c->n_loads; i++)
		bytes_done(&c->loads[i].data);
	c->bearer->ops->free(c->bearer);
	free(c);
}
