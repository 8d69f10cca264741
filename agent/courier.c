/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/courier.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/bearer.h"
#include "agent/carrier.h"
#include "base/clock.h"
#include "base/container.h"
#include "base/log.h"

#define EXPIRE_EVERY_MS (60 * 60 * 1000) /* many at once: what a commit costs the card is its pages */
#define DROP_AFTER_MS   5000             /* what stores that take batches, or are being asked, have to make room */
#define PATIENCE_MS     60000            /* what those have that do make room, while polls wait for it */
#define UNDER_WAY_MAX   (64 * LOADS_MAX)
#define OPEN_EVERY_MS   INT64_C(5000)
#define OPEN_DOUBLINGS  6     /* of that, up to 5 minutes, where it was to be salvaged: each try writes the card */
#define ERROR_LASTS_MS  90000 /* longer than a source that cannot be sealed rests: no recovery is told in between */

/* Somebody waits until all is sealed, and perhaps delivered. */
struct flush {
	bool wait;
	bool begun;  /* the tending under way began after it had come */
	bool asked;  /* the stores were, for its sake */
	bool sealed; /* all that could be */
	int status;  /* what sealing some of it failed with */
	char text[ERR_MAX];
	uint64_t batches;
	uint64_t kept_back; /* once sealed: records that wait for the clock */
	courier_on_flushed on_flushed;
	void *arg;
	struct flush *next;
};

/* A store's carrier, from the day that the store is configured until it is closed. */
struct berth {
	struct courier *courier;
	struct carrier *carrier;
	const struct config_store *store;
	struct config_store *own; /* what `store` is, once it is gone from the configuration; else NULL */
	bool closing;
	struct berth *next;
};

struct courier {
	const struct config *config;
	struct courier_env env;

	/* Tending: seal what is due, delete what was kept long enough, see when the next is due. One job at a time. */
	struct job job;
	bool tending, again, closing;
	struct alarm due;
	int64_t expire_at_ms;

	/* The job's own while it is under way. */
	bool seal_all, wake, expire, drop;
	int64_t keep_ms;
	int opened;                   /* 1: the buffer was salvaged */
	int sealed, expired, dropped; /* 1: one more may follow */
	bool rests;                   /* a source that could not be sealed */
	struct batch batch;           /* sealed or dropped */
	int64_t under_way[UNDER_WAY_MAX];
	size_t n_under_way;
	bool made_room;
	int64_t due_in_ms;
	struct err err;
	struct queue_view *fresh;

	struct queue_view *view;
	bool shut; /* the buffer is not open, or damaged, and could not be opened */
	unsigned failed_salvages;
	char error[ERR_MAX];
	int why;     /* the -errno of that; -EDQUOT: what is there is delivered and goes, and then there is room */
	bool mended; /* the card takes commits again: what rests is tried at once */
	int64_t error_until_ms;
	struct flush *flushes;
	struct berth *berths;
	int64_t short_since_ms; /* monotonic; ALARM_NEVER: there is room in the buffer for all that comes */
	struct courier_lost lost;
	int64_t freed_ms; /* monotonic; when what all stores have made room last */
	int64_t asked_ms; /* monotonic; when a store that was away was asked last, before a batch would go */

	void (*on_closed)(void *arg);
	void *closed_arg;
};

static void tend(struct courier *c);

static bool is_short(const struct queue_view *view)
{
	return view->full || view->wanted;
}

static void take_view(struct courier *c, struct queue_view *fresh)
{
	if (!fresh)
		return;
	queue_view_free(c->view);
	c->view = fresh;
	if (!is_short(fresh))
		c->short_since_ms = ALARM_NEVER;
	else if (c->short_since_ms == ALARM_NEVER)
		c->short_since_ms = clock_mono_ms();
	c->env.on_view(c->env.arg, fresh);
}

static void end_flush(struct flush **at, int status, const char *text)
{
	struct flush *flush = *at;

	*at = flush->next;
	flush->on_flushed(flush->arg, status, flush->batches, flush->kept_back,
	                  flush->wait && status == 0 && flush->kept_back == 0, text);
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

	for (const struct berth *b = c->berths; b; b = b->next) {
		if (!b->closing && carrier_stuck(b->carrier, ret_text))
			return -EHOSTDOWN;
		if (b->closing || !carrier_empty(b->carrier))
			verdict = 1; /* one that is closing may have a successor, which has not looked yet */
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

static void retry_carriers(struct courier *c)
{
	for (struct berth *b = c->berths; b; b = b->next)
		if (!b->closing)
			carrier_retry(b->carrier);
}

/*
 * All that waited when it came is sealed, but for what `rests`. What rests for want of room may have some soon, as long
 * as the stores take what is there. Whether the flush has ended.
 */
static bool judge_sealed(struct courier *c, struct flush **at)
{
	struct flush *flush = *at;
	const char *ignored;

	if (!c->rests)
		flush->status = 0;
	if (flush->wait && flush->status == -EDQUOT && judge_delivery(c, &ignored) > 0)
		return false;
	flush->sealed = true;
	flush->kept_back = c->view->unsynced_records;
	if (flush->wait && flush->status == 0)
		return false;
	end_flush(at, flush->status, flush->text);
	return true;
}

static void note_all_sealed(struct courier *c)
{
	bool news = false;

	for (const struct flush *flush = c->flushes; flush; flush = flush->next)
		news |= flush->begun && !flush->asked;
	if (news)
		retry_carriers(c);
	for (struct flush **at = &c->flushes; *at;) {
		bool ended = false;

		(*at)->asked |= (*at)->begun;
		if ((*at)->begun && !(*at)->sealed)
			ended = judge_sealed(c, at);
		if (!ended)
			at = &(*at)->next;
	}
	judge_flushes(c);
}

static void nudge_carriers(struct courier *c)
{
	for (struct berth *b = c->berths; b; b = b->next)
		if (!b->closing)
			carrier_nudge(b->carrier);
}

static void note_sealed(struct courier *c)
{
	log_info("batch.sealed", "source \"%s\": sealed seq %llu to %llu, %llu bytes, %s", c->batch.source,
	         (unsigned long long)c->batch.first_seq, (unsigned long long)c->batch.last_seq,
	         (unsigned long long)c->batch.bytes, c->batch.key);
	for (struct flush *flush = c->flushes; flush; flush = flush->next)
		flush->batches += flush->begun && !flush->sealed;
	nudge_carriers(c);
}

static void note_dropped(const struct courier *c)
{
	log_warning("buffer.dropped",
	            "source \"%s\": seq %llu to %llu (%llu records) dropped, on_full = \"drop-oldest\"",
	            c->batch.source, (unsigned long long)c->batch.first_seq, (unsigned long long)c->batch.last_seq,
	            (unsigned long long)c->batch.records);
}

static void note_error(struct courier *c, int status)
{
	if (status == -EDQUOT && c->why != -EDQUOT)
		log_notice("batch.short", "sealing waits for room: %s", c->err.text);
	snprintf(c->error, sizeof c->error, "%s", c->err.text);
	c->why = status;
	c->error_until_ms = clock_mono_ms() + ERROR_LASTS_MS;
	for (struct flush *flush = c->flushes; flush; flush = flush->next)
		if (flush->begun && !flush->sealed) {
			flush->status = status;
			memcpy(flush->text, c->err.text, sizeof flush->text);
		}
}

static void note_shut(struct courier *c)
{
	snprintf(c->error, sizeof c->error, "%s", c->err.text);
	c->shut = true;
	if (c->view->status == -EBADMSG && c->failed_salvages < OPEN_DOUBLINGS)
		c->failed_salvages++;
	for (struct flush *flush = c->flushes; flush; flush = flush->next)
		flush->status = c->opened;
	end_flushes(c, c->opened, c->error);
}

static void note_salvaged(const struct courier *c)
{
	const struct queue_salvage *salvage = &c->view->salvage;

	log_error("buffer.salvaged",
	          "the buffer was damaged, and what could be read went into a fresh one: batches: %llu, unsealed "
	          "records: %llu; records known to be lost: %llu, sources that may have lost more: %llu (`millrace "
	          "audit` "
	          "tells which); the damaged one is %s",
	          (unsigned long long)salvage->batches, (unsigned long long)salvage->records,
	          (unsigned long long)salvage->lost_records, (unsigned long long)salvage->open_ends, salvage->aside);
}

static void note_open(struct courier *c)
{
	if (c->opened == 1)
		note_salvaged(c);
	else if (!c->shut)
		return;
	c->shut = false;
	c->failed_salvages = 0;
	c->error[0] = '\0';
	c->why = 0;
	retry_carriers(c); /* what is parked may be so because of what was damaged */
	c->env.on_open(c->env.arg);
}

static void note_no_error(struct courier *c)
{
	if (!c->error[0] || clock_mono_ms() < c->error_until_ms)
		return;
	if (c->why == -EDQUOT)
		log_notice("batch.recovered", "sealing has found room");
	c->error[0] = '\0';
	c->why = 0;
}

/* What all have is kept while there is room; the oldest of what they have not is dropped where that is told. */
static void make_room(struct courier *c, int64_t wall_ms)
{
	uint64_t before = c->fresh->batches;

	c->expired = queue_expire(c->env.queue, wall_ms, 0, &c->err);
	queue_view_free(c->fresh);
	c->fresh = queue_view(c->env.queue);
	c->made_room = c->fresh && c->fresh->batches < before;
	if (c->made_room || c->expired != 0 || !c->fresh || c->sealed != 0 || !c->drop || !is_short(c->fresh))
		return;
	c->dropped = queue_drop(c->env.queue, c->under_way, c->n_under_way, &c->batch, &c->err);
	c->made_room = c->dropped == 1;
	queue_view_free(c->fresh);
	c->fresh = queue_view(c->env.queue);
}

static bool has_unsealed(const struct queue_view *view)
{
	size_t i = 0;

	while (i < view->n_sources && view->sources[i].unsealed_records == 0)
		i++;
	return i < view->n_sources;
}

static void tend_work(struct job *job)
{
	struct courier *c = container_of(job, struct courier, job);
	int64_t wall = clock_wall_ms(), mono = clock_mono_ms();

	c->opened = queue_start(c->env.queue, true, &c->err);
	if (c->opened < 0) {
		c->fresh = queue_view(c->env.queue);
		return;
	}
	if (c->wake)
		queue_seal_wake(c->env.queue);
	c->sealed = queue_seal(c->env.queue, wall, mono, c->seal_all, &c->batch, &c->err);
	if (c->sealed == 0 && c->expire)
		c->expired = queue_expire(c->env.queue, wall, c->keep_ms, &c->err);
	c->fresh = queue_view(c->env.queue);
	c->rests = c->sealed == 0 && c->seal_all && (!c->fresh || has_unsealed(c->fresh));
	c->made_room = c->sealed == 1;
	if (c->fresh && (is_short(c->fresh) || c->fresh->card_full) && c->sealed <= 0)
		make_room(c, wall);
	c->due_in_ms = queue_seal_due_ms(c->env.queue, wall, mono);
}

static bool any_busy(const struct courier *c)
{
	for (const struct berth *b = c->berths; b; b = b->next)
		if (!b->closing && !carrier_idle(b->carrier))
			return true;
	return false;
}

/* Before a batch is dropped for them: those that are away may be back. Whether one is asked now. */
static bool ask_stores(struct courier *c)
{
	bool any = false;

	for (struct berth *b = c->berths; b; b = b->next)
		any |= !b->closing && carrier_ask(b->carrier);
	if (any)
		c->asked_ms = clock_mono_ms();
	return any;
}

static int64_t patience_ends_ms(const struct courier *c)
{
	int64_t soon = (c->short_since_ms > c->freed_ms ? c->short_since_ms : c->freed_ms) + DROP_AFTER_MS;
	int64_t late = c->short_since_ms + PATIENCE_MS;

	return soon < late ? soon : late;
}

/*
 * When the oldest batch may be dropped: at once where no store takes any; else they have some time to make room, more
 * while they make some, and those that are being asked to answer.
 */
static int64_t drop_at_ms(const struct courier *c)
{
	const char *ignored;

	if (c->short_since_ms == ALARM_NEVER)
		return ALARM_NEVER;
	if (any_busy(c) && clock_mono_ms() < c->asked_ms + DROP_AFTER_MS)
		return c->asked_ms + DROP_AFTER_MS;
	for (const struct berth *b = c->berths; b; b = b->next)
		if (!b->closing && !carrier_stuck(b->carrier, &ignored))
			return patience_ends_ms(c);
	return c->short_since_ms;
}

static void set_due(struct courier *c)
{
	int64_t now = clock_mono_ms();
	int64_t at = c->due_in_ms > ALARM_NEVER - now ? ALARM_NEVER : now + c->due_in_ms;

	if (c->error[0] && at > c->error_until_ms)
		at = c->error_until_ms;
	if (at > c->expire_at_ms)
		at = c->expire_at_ms;
	if (c->config->on_full == CONFIG_DROP_OLDEST && now < drop_at_ms(c) && drop_at_ms(c) < at)
		at = drop_at_ms(c);
	alarm_set(c->env.alarms, &c->due, c->shut ? now + (OPEN_EVERY_MS << c->failed_salvages) : at);
}

static void finish_close(struct courier *c)
{
	if (c->tending || c->berths)
		return;
	alarm_cancel(&c->due);
	queue_view_free(c->view);
	c->on_closed(c->closed_arg);
	free(c);
}

static void on_tended(struct job *job)
{
	struct courier *c = container_of(job, struct courier, job);
	bool all = c->seal_all;
	int status = c->sealed < 0 ? c->sealed : c->expired < 0 ? c->expired : c->dropped;

	c->tending = false;
	take_view(c, c->fresh);
	c->fresh = NULL;
	if (c->closing) {
		finish_close(c);
		return;
	}
	if (c->opened < 0) {
		note_shut(c);
		set_due(c);
		return;
	}
	note_open(c);
	if (status < 0)
		note_error(c, status);
	else
		note_no_error(c);
	if (c->sealed == 1)
		note_sealed(c);
	else if (c->sealed == 0 && all)
		note_all_sealed(c);
	if (c->dropped == 1) {
		c->lost.at_ms = clock_wall_ms();
		c->lost.records += c->batch.records;
		c->lost.at_mono_ms = clock_mono_ms();
		note_dropped(c);
	}
	if (c->expire && c->expired <= 0 && c->sealed == 0)
		c->expire_at_ms = clock_mono_ms() + EXPIRE_EVERY_MS;
	if (c->made_room && c->sealed != 1 && c->dropped != 1)
		c->freed_ms = clock_mono_ms();
	if (c->made_room)
		c->env.on_room(c->env.arg);
	set_due(c);
	/* A source that could not be sealed rests; the others go on at once. */
	if (c->sealed != 0 || c->expired == 1 || (is_short(c->view) && (c->made_room || !all)) || c->again)
		tend(c);
}

static bool any_unsealed(const struct courier *c)
{
	for (const struct flush *flush = c->flushes; flush; flush = flush->next)
		if (!flush->sealed)
			return true;
	return false;
}

/* Whether one of them has come since the last time. */
static bool begin_flushes(struct courier *c)
{
	bool any = false;

	for (struct flush *flush = c->flushes; flush; flush = flush->next) {
		any |= !flush->begun;
		flush->begun = true;
	}
	return any;
}

static void tend(struct courier *c)
{
	c->again = c->tending;
	if (c->tending || c->closing)
		return;
	c->tending = true;
	c->seal_all = any_unsealed(c) || is_short(c->view); /* sealed, it takes less room, and can go */
	c->wake = begin_flushes(c) || c->mended;
	c->mended = false;
	c->expire = clock_mono_ms() >= c->expire_at_ms;
	c->drop = c->config->on_full == CONFIG_DROP_OLDEST && clock_mono_ms() >= drop_at_ms(c) && !ask_stores(c);
	c->keep_ms = c->config->keep_delivered_ms;
	c->n_under_way = 0;
	for (const struct berth *b = c->berths; b; b = b->next)
		if (c->n_under_way + LOADS_MAX <= UNDER_WAY_MAX)
			c->n_under_way += carrier_under_way(b->carrier, &c->under_way[c->n_under_way]);
	c->sealed = c->expired = c->dropped = 0;
	c->due_in_ms = INT64_MAX;
	c->err.text[0] = '\0';
	worker_submit(c->env.worker, &c->job);
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
	if (c->closing)
		return;
	judge_flushes(c);
	if (is_short(c->view) || any_unsealed(c) || !c->view->sound)
		tend(c); /* what all have now makes room; what is damaged is salvaged */
}

/* --- Stores come and go --- */

static bool is_configured(const struct courier *c, const struct config_store *store)
{
	for (size_t i = 0; i < c->config->n_stores; i++)
		if (c->config->stores[i] == store)
			return true;
	return false;
}

static bool has_berth(const struct courier *c, const char *store)
{
	const struct berth *b = c->berths;

	while (b && strcmp(b->store->name, store) != 0)
		b = b->next;
	return b != NULL;
}

static int add_berth(struct courier *c, const struct config_store *store)
{
	const struct carrier_env env = {
		.loop = c->env.loop,
		.http = c->env.http,
		.queue = c->env.queue,
		.queue_worker = c->env.worker,
		.alarms = c->env.alarms,
		.on_step = on_carried,
		.arg = c,
	};
	struct berth **end = &c->berths, *b = calloc(1, sizeof *b);
	int r = b ? carrier_new(&env, store, &b->carrier) : -ENOMEM;

	if (r < 0) {
		free(b);
		return r;
	}
	b->courier = c;
	b->store = store;
	while (*end)
		end = &(*end)->next;
	*end = b;
	return 0;
}

/* Where one has none, and none of the same name that is still being closed, it gets a carrier. 0 or -errno. */
static int add_berths(struct courier *c)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < c->config->n_stores; i++)
		if (!has_berth(c, c->config->stores[i]->name))
			r = add_berth(c, c->config->stores[i]);
	return r;
}

static void add_missing(struct courier *c)
{
	int r = add_berths(c);

	if (r < 0)
		log_error("store.refused", "a store cannot be served until the next reload: %s", strerror(-r));
	nudge_carriers(c);
}

static void on_berth_closed(void *arg)
{
	struct berth *b = arg, **at = &b->courier->berths;
	struct courier *c = b->courier;

	while (*at != b)
		at = &(*at)->next;
	*at = b->next;
	carrier_free(b->carrier);
	config_free_store(b->own);
	free(b);
	if (c->closing)
		finish_close(c);
	else
		add_missing(c);
}

static void close_berth(struct berth *b)
{
	if (b->closing)
		return;
	b->closing = true;
	carrier_close(b->carrier, on_berth_closed, b);
}

/* Closing one may take it, and no other, off the list at once. */
static void close_berths(struct courier *c)
{
	for (struct berth *b = c->berths, *next; b; b = next) {
		next = b->next;
		close_berth(b);
	}
}

void courier_configure(struct courier *c, const struct config *now, struct config *before)
{
	c->config = now;
	for (struct berth *b = c->berths, *next; b; b = next) {
		next = b->next;
		if (b->closing || is_configured(c, b->store))
			continue;
		b->own = config_take_store(before, b->store->name);
		close_berth(b);
	}
	c->expire_at_ms = 0; /* keep_delivered may be another */
	add_missing(c);
	judge_flushes(c);
	tend(c);
}

int courier_new(const struct courier_env *env, const struct config *config, struct courier **ret_courier)
{
	struct courier *c = calloc(1, sizeof *c);
	int r;

	if (!c)
		return -ENOMEM;
	c->env = *env;
	c->config = config;
	c->job = (struct job){ .work = tend_work, .done = on_tended };
	c->due.on_ring = on_due;
	c->short_since_ms = ALARM_NEVER;
	c->shut = env->shut[0] != '\0';
	snprintf(c->error, sizeof c->error, "%s", env->shut);
	c->view = queue_view(env->queue);
	r = c->view ? add_berths(c) : -ENOMEM;
	if (r < 0)
		return r; /* NOLINT(clang-analyzer-unix.Malloc): the process ends, nothing here outlives it */
	*ret_courier = c;
	tend(c);
	nudge_carriers(c);
	return 0;
}

void courier_nudge(struct courier *c, struct queue_view *fresh)
{
	take_view(c, fresh);
	tend(c);
}

void courier_carry(struct courier *c, struct queue_view *fresh)
{
	take_view(c, fresh);
	if (!c->closing)
		nudge_carriers(c);
}

void courier_wake(struct courier *c)
{
	c->mended = true;
	c->error_until_ms = clock_mono_ms();
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

	for (struct berth *b = c->berths; b; b = b->next)
		n += !b->closing && carrier_retry_batch(b->carrier, batch);
	return n;
}

size_t courier_parked(const struct courier *c, int64_t batch, const struct config_store **ret_stores, size_t n)
{
	size_t found = 0;

	for (const struct berth *b = c->berths; b && found < n; b = b->next)
		if (!b->closing && carrier_has_parked(b->carrier, batch))
			ret_stores[found++] = b->store;
	return found;
}

bool courier_store(const struct courier *c, const char *store, struct courier_store *ret_store)
{
	for (const struct berth *b = c->berths; b; b = b->next)
		if (strcmp(b->store->name, store) == 0) {
			carrier_view(b->carrier, ret_store);
			return true;
		}
	return false;
}

const char *courier_error(const struct courier *c)
{
	return c->error;
}

int courier_trouble(const struct courier *c)
{
	return c->why;
}

const struct courier_lost *courier_lost(const struct courier *c)
{
	return &c->lost;
}

const struct queue_view *courier_view(const struct courier *c)
{
	return c->view;
}

bool courier_idle(const struct courier *c)
{
	if (c->tending)
		return false;
	for (const struct berth *b = c->berths; b; b = b->next)
		if (!carrier_idle(b->carrier))
			return false;
	return true;
}

void courier_close(struct courier *c, void (*on_closed)(void *arg), void *arg)
{
	c->closing = true;
	c->on_closed = on_closed;
	c->closed_arg = arg;
	end_flushes(c, -ECANCELED, "the daemon ends");
	if (c->berths)
		close_berths(c);
	else
		finish_close(c);
}
