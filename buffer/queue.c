/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration, sources and stores in memory, and the figures. queue_private.h says what stands where. */
#include "buffer/queue.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buffer/queue_private.h"

struct queue *queue_new(const char *path, const struct queue_identity *identity)
{
	struct queue *q = calloc(1, sizeof *q);

	if (!q)
		return NULL;
	q->path = strdup(path);
	q->kernel_boot_id = strdup(identity->kernel_boot_id);
	if (!q->path || !q->kernel_boot_id) {
		queue_close(q);
		return NULL;
	}
	assert(strlen(identity->device) < sizeof q->device);
	memcpy(q->device, identity->device, strlen(identity->device) + 1);
	/* Until queue_configure says better; no store: nothing is done before the stores are known. */
	q->fallback = (struct route){ .max_bytes = 8 << 20, .max_records = 100000, .max_age_ms = 900000 };
	q->status = err_fail(&q->said, -EAGAIN, "buffer \"%s\" is not open yet", path);
	return q;
}

void queue_forget(struct queue *q)
{
	for (size_t i = 0; i < q->n_sources; i++) {
		struct source *source = q->sources[i];

		source->now = (struct mark){ .seq = 1 };
		source->touched = false;
		source->rest_until_ms = 0;
		source->dropped = source->damaged = source->highest = 0;
		source->mixed = false;
	}
	q->n_waiting = 0;
	q->batches = 0;
	q->last_batch = q->stray = 0;
	q->closing = (struct closing){ .id = 0 };
	q->loaded = q->marked = false;
	queue_sum_waiting(q);
}

void queue_close(struct queue *q)
{
	if (!q)
		return;
	queue_shut(q);
	queue_drop_tail(q);
	for (size_t i = 0; i < q->n_sources; i++)
		free(q->sources[i]);
	free(q->sources);
	free(q->stores);
	free(q->waiting);
	ledger_free(q->ledger);
	free(q->path);
	free(q->kernel_boot_id);
	free(q);
}

/* --- Sources --- */

struct source *queue_find_source(const struct queue *q, const char *name)
{
	for (size_t i = 0; i < q->n_sources; i++) {
		if (strcmp(q->sources[i]->name, name) == 0)
			return q->sources[i];
	}
	return NULL;
}

int queue_add_source(struct queue *q, const char *name, struct source **ret_source, struct err *err)
{
	struct source *source = queue_find_source(q, name), **grown;

	if (source) {
		*ret_source = source;
		return 0;
	}
	grown = realloc(q->sources, (q->n_sources + 1) * sizeof(struct source *));
	if (grown)
		q->sources = grown;
	source = grown ? calloc(1, sizeof *source) : NULL;
	if (!source)
		return err_fail(err, -ENOMEM, "source \"%s\": no memory", name);
	assert(strlen(name) < sizeof source->name);
	memcpy(source->name, name, strlen(name) + 1);
	source->route = q->fallback;
	source->now.seq = 1;
	source->jobs = ledger_count_jobs(q, name);
	q->sources[q->n_sources++] = source;
	*ret_source = source;
	return 0;
}

bool queue_is_known(const struct source *source)
{
	return source->now.id > 0 || source->configured;
}

struct mark *queue_touch(struct source *source)
{
	if (!source->touched)
		source->then = source->now;
	source->touched = true;
	return &source->then;
}

void queue_settle(struct queue *q, bool held)
{
	for (size_t i = 0; i < q->n_sources; i++) {
		struct source *source = q->sources[i];

		if (source->touched && held)
			source->now = source->then;
		source->touched = false;
	}
}

int64_t queue_next_source_id(const struct queue *q)
{
	int64_t highest = 0;

	for (size_t i = 0; i < q->n_sources; i++) {
		const struct source *source = q->sources[i];
		int64_t id = source->touched ? source->then.id : source->now.id;

		if (id > highest)
			highest = id;
	}
	return highest + 1;
}

int queue_make_source(struct queue *q, struct source *source, struct err *err)
{
	struct mark *then = queue_touch(source);

	if (then->id > 0)
		return 0;
	then->id = queue_next_source_id(q);
	return queue_put_source(q, source->name, then, err);
}

size_t queue_source_state(struct queue *q, const char *name, uint8_t ret_state[SINK_STATE_MAX])
{
	const struct source *source = queue_find_source(q, name);

	if (!source)
		return 0;
	memcpy(ret_state, source->now.state, source->now.state_len);
	return source->now.state_len;
}

/* --- Configuration --- */

int queue_find_store(const struct queue *q, const char *name)
{
	for (size_t i = 0; i < q->n_stores; i++) {
		if (strcmp(q->stores[i].name, name) == 0)
			return (int)i;
	}
	return -1;
}

bool queue_all_done(const struct source *source, uint64_t done)
{
	return source->route.stores != 0 && (done & source->route.stores) == source->route.stores;
}

/* What queue_configure prepares, so that it can fail without a trace. */
struct setup {
	struct queue_store *stores;
	struct route *routes; /* by source */
	uint64_t *done;       /* by waiting batch */
	size_t n_stores;
};

static int read_route(const struct setup *setup, const struct queue_route *from, struct route *ret_route,
                      struct err *err)
{
	struct route route = {
		.max_bytes = from->max_bytes,
		.max_records = from->max_records,
		.max_age_ms = from->max_age_ms,
		.stores = setup->n_stores == STORES_MAX ? UINT64_MAX : (UINT64_C(1) << setup->n_stores) - 1,
	};

	if (from->stores)
		route.stores = 0;
	for (size_t i = 0; from->stores && i < from->n_stores; i++) {
		size_t j = 0;

		while (j < setup->n_stores && strcmp(setup->stores[j].name, from->stores[i]) != 0)
			j++;
		if (j == setup->n_stores)
			return err_fail(err, -EINVAL, "source \"%s\": there is no store \"%s\"", from->source,
			                from->stores[i]);
		route.stores |= UINT64_C(1) << j;
	}
	*ret_route = route;
	return 0;
}

static int prepare_stores(struct queue *q, struct setup *setup, const char *const *stores, struct err *err)
{
	setup->stores = calloc(setup->n_stores + 1, sizeof *setup->stores);
	if (!setup->stores)
		return err_fail(err, -ENOMEM, "buffer: no memory");
	for (size_t i = 0; i < setup->n_stores; i++) {
		int before = queue_find_store(q, stores[i]);

		snprintf(setup->stores[i].name, sizeof setup->stores[i].name, "%s", stores[i]);
		if (before < 0)
			continue;
		setup->stores[i].delivered = q->stores[before].delivered;
		setup->stores[i].handed = q->stores[before].handed;
	}
	return 0;
}

static int prepare_routes(struct queue *q, struct setup *setup, const struct queue_route *routes, size_t n_routes,
                          const struct queue_route *fallback, struct route *ret_fallback, struct err *err)
{
	struct source *source;
	int r = read_route(setup, fallback, ret_fallback, err);

	for (size_t i = 0; r == 0 && i < n_routes; i++)
		r = queue_add_source(q, routes[i].source, &source, err);
	if (r < 0)
		return r;
	setup->routes = calloc(q->n_sources + 1, sizeof *setup->routes);
	if (!setup->routes)
		return err_fail(err, -ENOMEM, "buffer: no memory");
	for (size_t i = 0; r == 0 && i < q->n_sources; i++) {
		setup->routes[i] = *ret_fallback;
		for (size_t j = 0; r == 0 && j < n_routes; j++) {
			if (strcmp(q->sources[i]->name, routes[j].source) == 0)
				r = read_route(setup, &routes[j], &setup->routes[i], err);
		}
	}
	return r;
}

/* From here on in memory as in `setup`; the old lists go back into it to be freed. */
static void take_setup(struct queue *q, struct setup *setup, const struct route *fallback)
{
	struct queue_store *stores = q->stores;

	q->stores = setup->stores;
	q->n_stores = setup->n_stores;
	setup->stores = stores;
	q->fallback = *fallback;
	for (size_t i = 0; i < q->n_sources; i++) {
		struct route route = q->sources[i]->route;

		q->sources[i]->route = setup->routes[i];
		setup->routes[i] = route;
	}
}

static void drop_setup(struct setup *setup)
{
	free(setup->stores);
	free(setup->routes);
	free(setup->done);
}

/* With the new stores in place: who has what. */
static int judge_waiting(struct queue *q, struct setup *setup, struct err *err)
{
	int64_t last_ms;
	int r = 0;

	setup->done = calloc(q->n_waiting + 1, sizeof *setup->done);
	if (!setup->done)
		return err_fail(err, -ENOMEM, "buffer: no memory");
	if (!queue_is_sound(q))
		return 0; /* the next start does it */
	for (size_t i = 0; r == 0 && i < q->n_waiting; i++)
		r = queue_deliveries(q, q->waiting[i].id, &setup->done[i], &last_ms, err);
	return r;
}

int queue_judge(struct queue *q, struct err *err)
{
	struct err ignored;
	int64_t last_ms;
	int r = 0;

	for (size_t i = 0; r == 0 && q->n_stores > 0 && i < q->n_waiting; i++)
		r = queue_deliveries(q, q->waiting[i].id, &q->waiting[i].done, &last_ms, err);
	if (r == 0)
		queue_end_done(q, &ignored); /* a later delivery tries again */
	queue_sum_waiting(q);
	return r;
}

/* Nothing can fail any more. */
static void take_judgement(struct queue *q, const struct setup *setup, const struct queue_route *routes,
                           size_t n_routes)
{
	for (size_t i = 0; i < q->n_waiting; i++)
		q->waiting[i].done = setup->done[i];
	for (size_t i = 0; i < q->n_sources; i++)
		q->sources[i]->configured = false;
	for (size_t i = 0; i < n_routes; i++)
		queue_find_source(q, routes[i].source)->configured = true;
}

/* Names of an earlier configuration of which nothing ever came. */
static void forget_unknown(struct queue *q)
{
	size_t kept = 0;

	for (size_t i = 0; i < q->n_sources; i++) {
		if (queue_is_known(q->sources[i]))
			q->sources[kept++] = q->sources[i];
		else
			free(q->sources[i]);
	}
	q->n_sources = kept;
}

int queue_configure(struct queue *q, const char *const *stores, size_t n_stores, const struct queue_route *routes,
                    size_t n_routes, const struct queue_route *fallback, struct err *err)
{
	struct setup setup = { .n_stores = n_stores };
	struct route route, before = q->fallback;
	struct err ignored;
	int r;

	if (n_stores > STORES_MAX)
		return err_fail(err, -ENOBUFS, "more than %d stores", STORES_MAX);
	if (n_routes > SOURCES_MAX)
		return err_fail(err, -ENOBUFS, "more than %d sources", SOURCES_MAX);
	r = prepare_stores(q, &setup, stores, err);
	if (r == 0)
		r = prepare_routes(q, &setup, routes, n_routes, fallback, &route, err);
	if (r == 0) {
		size_t n_before = q->n_stores;

		take_setup(q, &setup, &route);
		r = judge_waiting(q, &setup, err);
		if (r < 0) {
			setup.n_stores = n_before;
			take_setup(q, &setup, &before);
		}
	}
	if (r == 0) {
		take_judgement(q, &setup, routes, n_routes);
		forget_unknown(q);
		if (queue_is_sound(q))
			queue_end_done(q, &ignored); /* a later delivery tries again */
		queue_sum_waiting(q);
	}
	drop_setup(&setup);
	return r;
}

/* --- Waiting batches --- */

size_t queue_waiting_from(const struct queue *q, int64_t id)
{
	size_t low = 0, high = q->n_waiting;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (q->waiting[middle].id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

struct waiting *queue_find_waiting(const struct queue *q, int64_t batch)
{
	size_t i = queue_waiting_from(q, batch);

	return i < q->n_waiting && q->waiting[i].id == batch ? &q->waiting[i] : NULL;
}

int queue_grow_waiting(struct queue *q, struct err *err)
{
	size_t capacity = q->waiting_capacity > 0 ? 2 * q->waiting_capacity : 16;
	struct waiting *grown;

	if (q->n_waiting < q->waiting_capacity)
		return 0;
	if (capacity > WAITING_MAX)
		return err_fail(err, -ENOBUFS, "%zu batches wait already", q->n_waiting);
	grown = realloc(q->waiting, capacity * sizeof *grown);
	if (!grown)
		return err_fail(err, -ENOMEM, "buffer: no memory");
	q->waiting = grown;
	q->waiting_capacity = capacity;
	return 0;
}

static void add_to_backlog(struct backlog *backlog, const struct waiting *w)
{
	backlog->batches++;
	backlog->records += w->records;
	backlog->bytes += w->bytes;
	if (backlog->oldest_ms == 0 || w->oldest_ms < backlog->oldest_ms)
		backlog->oldest_ms = w->oldest_ms;
}

static void sum_one(struct queue *q, const struct waiting *w)
{
	uint64_t missing = w->source->route.stores & ~w->done;

	if (queue_all_done(w->source, w->done))
		return;
	add_to_backlog(&w->source->backlog, w);
	for (; missing != 0; missing &= missing - 1)
		add_to_backlog(&q->stores[__builtin_ctzll(missing)].backlog, w);
}

void queue_sum_waiting(struct queue *q)
{
	for (size_t i = 0; i < q->n_sources; i++)
		q->sources[i]->backlog = (struct backlog){ .batches = 0 };
	for (size_t i = 0; i < q->n_stores; i++)
		q->stores[i].backlog = (struct backlog){ .batches = 0 };
	for (size_t i = 0; i < q->n_waiting; i++)
		sum_one(q, &q->waiting[i]);
}

void queue_add_waiting(struct queue *q, struct source *source, const struct batch_row *row)
{
	size_t at = queue_waiting_from(q, row->batch.id);
	struct waiting *w = &q->waiting[at];

	assert(q->n_waiting < q->waiting_capacity && (at == q->n_waiting || w->id != row->batch.id));
	memmove(w + 1, w, (q->n_waiting - at) * sizeof *w);
	q->n_waiting++;
	*w = (struct waiting){
		.id = row->batch.id,
		.source = source,
		.first_seq = row->batch.first_seq,
		.records = row->batch.records,
		.bytes = row->batch.bytes,
		.oldest_ms = row->oldest_ms,
		.imported = row->batch.imported,
	};
	if (!w->imported) {
		source->mixed |= w->first_seq < source->highest;
		source->highest = row->batch.last_seq;
	}
	sum_one(q, w);
}

/* --- Figures --- */

static void view_source(const struct source *source, struct queue_source_view *view)
{
	const struct backlog *backlog = &source->backlog;

	memcpy(view->source, source->name, sizeof view->source);
	view->records = source->now.seq - 1;
	view->fetches = source->now.fetch;
	view->unsealed_records = source->now.records;
	view->unsealed_bytes = source->now.lines;
	view->waiting_batches = backlog->batches;
	view->waiting_records = backlog->records;
	view->dropped_records = source->dropped;
	view->damaged_records = source->damaged;
	view->oldest_ms = source->now.records > 0 ? source->now.head.wall_ms : 0;
	if (backlog->batches > 0 && (view->oldest_ms == 0 || backlog->oldest_ms < view->oldest_ms))
		view->oldest_ms = backlog->oldest_ms;
}

static void view_store(const struct queue_store *store, struct queue_store_view *view)
{
	memcpy(view->store, store->name, sizeof view->store);
	view->delivered_batches = store->delivered;
	view->waiting_batches = store->backlog.batches;
	view->waiting_bytes = store->backlog.bytes;
}

static void view_room(struct queue *q, struct queue_view *view)
{
	view->max_bytes = q->room.max_size;
	view->room_bytes = queue_room_bytes(q, &view->full);
	view->wanted = q->room.wanted;
	view->card_full = q->room.card_full;
	view->file_bytes = queue_file_size(q, "");
	view->wal_bytes = queue_file_size(q, "-wal");
	view->batches = q->batches;
}

struct queue_view *queue_view(struct queue *q)
{
	struct queue_view *view = calloc(1, sizeof *view);

	if (!view)
		return NULL;
	view->sources = calloc(q->n_sources + 1, sizeof *view->sources);
	view->stores = calloc(q->n_stores + 1, sizeof *view->stores);
	if (!view->sources || !view->stores) {
		queue_view_free(view);
		return NULL;
	}
	memcpy(view->device, q->device, sizeof view->device);
	memcpy(view->boot, q->boot, sizeof view->boot);
	view_room(q, view);
	view->sound = queue_is_sound(q);
	view->status = view->sound ? 0 : q->damaged ? -EBADMSG : q->status;
	view->failing = q->failing;
	view->unsynced_records = queue_keeps_back(q, q->clock.mono_ms) ? queue_count_unsynced(q) : 0;
	view->salvage = q->salvage;
	for (size_t i = 0; i < q->n_sources; i++) {
		if (queue_is_known(q->sources[i]))
			view_source(q->sources[i], &view->sources[view->n_sources++]);
	}
	for (size_t i = 0; i < q->n_stores; i++)
		view_store(&q->stores[i], &view->stores[view->n_stores++]);
	return view;
}

void queue_view_free(struct queue_view *view)
{
	if (!view)
		return;
	free(view->sources);
	free(view->stores);
	free(view);
}
