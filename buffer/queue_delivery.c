/* SPDX-License-Identifier: Apache-2.0 */
/* Batches on their way to the stores, what is known of the stores, and the end of what all have. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "buffer/queue_private.h"

#define EXPIRE_AT_ONCE 64
#define LOOK_AT_ONCE   1024 /* rows, 60 pages */
#define END_AT_ONCE    256  /* their rows are 100 pages of a transaction, which is to stay small */

int queue_deliveries(struct queue *q, int64_t batch, uint64_t *ret_done, int64_t *ret_last_ms, struct err *err)
{
	const struct cell key[] = { cell_number(batch) };
	char name[UNITS_NAME_MAX];
	uint64_t done = 0;
	int64_t last_ms = 0;
	int store, r = queue_query(q, SQL_DELIVERIES, CELLS(key), err);

	while (r == 0 && (r = queue_step(q, SQL_DELIVERIES, err)) > 0) {
		r = queue_text(q, SQL_DELIVERIES, 1, name, sizeof name, err);
		store = r == 0 ? queue_find_store(q, name) : -1;
		if (store < 0)
			continue;
		done |= UINT64_C(1) << store;
		if (queue_number(q, SQL_DELIVERIES, 2) > last_ms)
			last_ms = queue_number(q, SQL_DELIVERIES, 2);
	}
	queue_reset(q, SQL_DELIVERIES);
	if (r < 0)
		return r;
	*ret_done = done;
	*ret_last_ms = last_ms;
	return 0;
}

int queue_next_delivery(struct queue *q, const char *store, int64_t after, struct batch *ret_batch, struct err *err)
{
	int bit = queue_find_store(q, store);
	struct batch_row row;
	int r = queue_check(q, err);

	if (r < 0)
		return r;
	if (bit >= 0)
		q->stores[bit].handed = 0;
	for (size_t i = queue_waiting_from(q, after + 1); bit >= 0 && i < q->n_waiting; i++) {
		const struct waiting *w = &q->waiting[i];

		if (!((w->source->route.stores & ~w->done) >> bit & 1))
			continue;
		r = queue_get_waiting(q, w, &row, err);
		if (r < 0)
			return r;
		row.batch.stores_done = (size_t)__builtin_popcountll(w->done & w->source->route.stores);
		row.batch.stores_all = (size_t)__builtin_popcountll(w->source->route.stores);
		q->stores[bit].handed = w->id;
		*ret_batch = row.batch;
		return 0;
	}
	return err_fail(err, -ENOENT, "nothing waits for store \"%s\"", store);
}

bool queue_waits(const struct queue *q, int64_t batch)
{
	return queue_find_waiting(q, batch) != NULL;
}

int queue_read_part(struct queue *q, int64_t batch, int n, struct bytes *ret_data, struct err *err)
{
	const struct cell key[] = { cell_number(batch << PART_BITS | n) };
	sqlite3_stmt *stmt = q->statements[SQL_PART_GET];
	int r = n < 0 || n > PART_MAX ? 0 : queue_query(q, SQL_PART_GET, CELLS(key), err);

	if (r == 0 && n >= 0 && n <= PART_MAX)
		r = queue_step(q, SQL_PART_GET, err);
	if (r == 1) {
		r = bytes_add(ret_data, sqlite3_column_blob(stmt, 1), (size_t)sqlite3_column_bytes(stmt, 1));
		if (r < 0)
			err_fail(err, r, "batch %" PRId64 ": %s", batch, strerror(-r));
	} else if (r == 0) {
		r = err_fail(err, -ENOENT, "batch %" PRId64 " has no part %d", batch, n);
	}
	queue_reset(q, SQL_PART_GET);
	return r;
}

int queue_lacks_parts(struct queue *q, int64_t batch, struct err *err)
{
	return queue_damaged(q, err, "batch", batch, "its parts are not all there");
}

static int put_delivery(struct queue *q, int64_t batch, const char *store, int64_t wall_ms, struct err *err)
{
	const struct cell row[] = { cell_number(batch), cell_text(store), cell_number(wall_ms) };

	return queue_put(q, SQL_DELIVERY_PUT, CELLS(row), err);
}

/*
 * A waiting batch: books its seqs for the store and, where that was the last, the batch as delivered, which says all
 * that a row of `delivery` would.
 */
static int book(struct queue *q, struct waiting *w, const char *store, uint64_t done, int64_t wall_ms, struct err *err)
{
	struct batch_row row;
	int r = queue_begin(q, err);

	if (r < 0)
		return r;
	r = queue_get_waiting(q, w, &row, err);
	if (r == 0)
		r = queue_book(q, QUEUE_DELIVERED, store, &row.batch, err);
	row.batch.delivered_ms = wall_ms;
	if (r == 0)
		r = queue_all_done(w->source, done) ? queue_put_batch(q, &row, err)
		                                    : put_delivery(q, w->id, store, wall_ms, err);
	if (r == 0 && done != w->done)
		r = ledger_deliver(q, &row.batch, store, wall_ms, err);
	r = queue_end(q, r, err);
	if (r == 0 && done != w->done)
		ledger_settle(q);
	return r;
}

/* From now on it is among what queue_expire looks at; 0: at a time that is not known. */
static void note_delivered(struct queue *q, int64_t batch, int64_t at_ms)
{
	struct delivered *d = &q->delivered;

	if (at_ms < d->soonest_ms)
		d->soonest_ms = at_ms;
	if (batch >= d->next)
		return;
	/* The search begins anew. */
	d->next = d->left.n > 0 && d->left.first < batch ? d->left.first : batch;
	d->left.n = 0;
}

static void forget_waiting(struct queue *q, struct waiting *w)
{
	size_t behind = (size_t)(&q->waiting[q->n_waiting] - (w + 1));

	memmove(w, w + 1, behind * sizeof *w);
	q->n_waiting--;
}

int queue_delivered(struct queue *q, int64_t batch, const char *store, int64_t wall_ms, bool *ret_done, struct err *err)
{
	struct waiting *w = queue_find_waiting(q, batch);
	int bit = queue_find_store(q, store);
	struct batch_row row;
	struct err ignored;
	uint64_t done;
	int r;

	if (!w) {
		r = queue_get_batch(q, batch, &row, err);
		if (r < 0 && r != -ENOENT)
			return r;
		*ret_done = true;
		return 0;
	}
	done = w->done | (bit >= 0 ? UINT64_C(1) << bit : 0);
	if (wall_ms < 1)
		wall_ms = 1; /* 0 says: not delivered */
	r = book(q, w, store, done, wall_ms, err);
	if (r < 0)
		return r;
	if (done != w->done)
		q->stores[bit].delivered++;
	w->done = done;
	*ret_done = queue_all_done(w->source, done);
	if (*ret_done) {
		note_delivered(q, batch, wall_ms);
		forget_waiting(q, w);
	}
	queue_end_done(q, &ignored); /* the card takes something again; if it does not take this, the next one tries */
	queue_sum_waiting(q);
	return 0;
}

/* --- The end of a batch --- */

/* It is delivered since the last of its stores had it. */
static int put_done(struct queue *q, int64_t batch, struct err *err)
{
	struct batch_row row;
	uint64_t done;
	int64_t last_ms;
	int r = queue_deliveries(q, batch, &done, &last_ms, err);

	if (r == 0)
		r = queue_get_batch(q, batch, &row, err);
	if (r < 0)
		return r;
	row.batch.delivered_ms = last_ms;
	return queue_put_batch(q, &row, err);
}

static bool is_done(const struct waiting *w)
{
	return queue_all_done(w->source, w->done);
}

/* Some of them, in one transaction; *ret_end: those before this place are written, and not yet forgotten. */
static int end_some(struct queue *q, size_t *ret_end, struct err *err)
{
	size_t i = 0;
	int n = 0, r = queue_begin(q, err);

	if (r < 0)
		return r;
	for (; r == 0 && i < q->n_waiting && n < END_AT_ONCE; i++) {
		if (!is_done(&q->waiting[i]))
			continue;
		r = put_done(q, q->waiting[i].id, err);
		n++;
	}
	r = queue_end(q, r, err);
	if (r == 0)
		*ret_end = i;
	return r;
}

static void forget_done(struct queue *q, size_t end)
{
	size_t kept = 0;

	for (size_t i = 0; i < q->n_waiting; i++) {
		if (i >= end || !is_done(&q->waiting[i]))
			q->waiting[kept++] = q->waiting[i];
		else
			note_delivered(q, q->waiting[i].id, 0);
	}
	q->n_waiting = kept;
}

static bool any_done(const struct queue *q)
{
	for (size_t i = 0; i < q->n_waiting; i++) {
		if (is_done(&q->waiting[i]))
			return true;
	}
	return false;
}

int queue_end_done(struct queue *q, struct err *err)
{
	size_t end = 0;
	int r = 0;

	while (r == 0 && any_done(q)) {
		r = end_some(q, &end, err);
		if (r == 0)
			forget_done(q, end);
	}
	return r;
}

/* What queue_expire deletes, and what it knows once that has held. */
struct search {
	int64_t before_ms;
	int64_t ids[EXPIRE_AT_ONCE];
	size_t n;
	struct delivered known;
	bool more;
};

static void leave(struct delivered *d, int64_t id, int64_t at_ms)
{
	if (d->left.n == 0) {
		d->left.first = id;
		d->left.soonest_ms = at_ms;
	}
	if (at_ms < d->left.soonest_ms)
		d->left.soonest_ms = at_ms;
	d->left.n++;
}

/* All that are delivered were looked at: the next search begins with what was left. */
static void end_search(struct search *s)
{
	struct delivered *d = &s->known;

	d->next = d->left.n > 0 ? d->left.first : INT64_MAX;
	d->soonest_ms = d->left.n > 0 ? d->left.soonest_ms : INT64_MAX;
	d->left.n = 0;
	s->more = false;
}

/* Read once more, since a damaged row might say that it is delivered. */
static int look_at(struct queue *q, struct search *s, int64_t id, struct err *err)
{
	struct batch_row row;
	int r = queue_get_batch(q, id, &row, err);

	if (r < 0)
		return r;
	if (row.batch.delivered_ms > s->before_ms)
		leave(&s->known, id, row.batch.delivered_ms);
	else
		s->ids[s->n++] = id;
	return 0;
}

/*
 * No index leads to them, since it would be written with every batch. So the search goes on where nothing was delivered
 * before, and ends with the last of them: their number is known.
 */
static int find_expired(struct queue *q, struct search *s, struct err *err)
{
	const struct cell cells[] = { cell_number(s->known.next), cell_number(LOOK_AT_ONCE) };
	uint64_t total = q->batches - q->n_waiting;
	int looked = 0, r = queue_query(q, SQL_BATCHES_FROM, CELLS(cells), err);

	while (r == 0 && s->n < EXPIRE_AT_ONCE && s->known.left.n + s->n < total &&
	       (r = queue_step(q, SQL_BATCHES_FROM, err)) > 0) {
		int64_t id = queue_number(q, SQL_BATCHES_FROM, 0);

		r = queue_number(q, SQL_BATCHES_FROM, 1) > 0 ? look_at(q, s, id, err) : 0;
		s->known.next = id + 1;
		looked++;
	}
	queue_reset(q, SQL_BATCHES_FROM);
	s->more = true;
	if (s->known.left.n + s->n >= total || (looked < LOOK_AT_ONCE && s->n < EXPIRE_AT_ONCE))
		end_search(s);
	return r;
}

/* Where a part's chain of pages leads into those of another row, its deletion would free these too. */
static int check_parts(struct queue *q, int64_t id, struct err *err)
{
	struct bytes part;
	int r = 0;

	bytes_init(&part, CHUNK_PLAIN_MAX);
	for (int n = 0; r == 0; n++) {
		bytes_clear(&part);
		r = queue_read_part(q, id, n, &part, err);
	}
	bytes_done(&part);
	return r == -ENOENT ? 0 : r;
}

static int delete_batch(struct queue *q, int64_t id, struct err *err)
{
	const struct cell parts[] = { cell_number(id << PART_BITS), cell_number(id << PART_BITS | PART_MAX) };
	const struct cell key[] = { cell_number(id) };
	int r = check_parts(q, id, err);

	if (r == 0)
		r = queue_run(q, SQL_PARTS_DELETE, CELLS(parts), err);
	if (r == 0)
		r = queue_run(q, SQL_DELIVERIES_DELETE, CELLS(key), err);
	if (r == 0)
		r = queue_run(q, SQL_BATCH_DELETE, CELLS(key), err);
	return r;
}

static int delete_batches(struct queue *q, const int64_t *ids, size_t n, struct err *err)
{
	int r = queue_begin(q, err);

	if (r < 0)
		return r;
	for (size_t i = 0; r == 0 && i < n; i++)
		r = delete_batch(q, ids[i], err);
	return queue_end(q, r, err);
}

int queue_expire(struct queue *q, int64_t wall_ms, int64_t keep_ms, struct err *err)
{
	struct search s = { .before_ms = wall_ms - keep_ms, .known = q->delivered };
	int r;

	if (s.before_ms < s.known.soonest_ms) {
		queue_give_back(q);
		return 0;
	}
	r = find_expired(q, &s, err);
	if (r == 0 && s.n > 0)
		r = delete_batches(q, s.ids, s.n, err);
	if (r < 0)
		return r;
	q->delivered = s.known;
	q->batches -= s.n;
	if (s.n > 0) {
		queue_shrink(q);
		queue_note_room(q);
	}
	if (!s.more)
		queue_give_back(q);
	return s.more;
}

/* --- What nobody will have --- */

static bool is_among(int64_t id, const int64_t *ids, size_t n)
{
	while (n > 0 && ids[n - 1] != id)
		n--;
	return n > 0;
}

static bool is_handed(const struct queue *q, const struct waiting *w)
{
	for (size_t i = 0; i < q->n_stores; i++) {
		if (q->stores[i].handed == w->id && !(w->done >> i & 1))
			return true;
	}
	return false;
}

static struct waiting *find_oldest(const struct queue *q, const int64_t *skip, size_t n_skip)
{
	for (size_t i = 0; i < q->n_waiting; i++) {
		struct waiting *w = &q->waiting[i];

		if (!is_done(w) && !is_among(w->id, skip, n_skip) && !is_handed(q, w))
			return w;
	}
	return NULL;
}

/* What is deleted first makes room for what is booked then. */
static int drop(struct queue *q, const struct waiting *w, const struct batch *batch, struct err *err)
{
	uint64_t missing = w->source->route.stores & ~w->done;
	int r = delete_batch(q, w->id, err);

	if (r == 0 && batch->imported)
		r = queue_forget_taken(q, batch, err);
	for (; r == 0 && missing != 0; missing &= missing - 1)
		r = queue_book(q, QUEUE_LOST, q->stores[__builtin_ctzll(missing)].name, batch, err);
	return r;
}

int queue_drop(struct queue *q, const int64_t *skip, size_t n_skip, struct batch *ret_batch, struct err *err)
{
	struct waiting *w = find_oldest(q, skip, n_skip);
	struct batch_row row;
	int r = queue_check(q, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < q->n_stores; i++)
		q->stores[i].handed = 0;
	if (!w)
		return 0;
	r = queue_get_waiting(q, w, &row, err);
	if (r < 0)
		return r;
	r = queue_begin(q, err);
	if (r == 0)
		r = queue_end(q, drop(q, w, &row.batch, err), err);
	if (r < 0)
		return r;
	if (!w->imported && (w->source->route.stores & ~w->done) != 0)
		w->source->dropped += w->records;
	q->batches--;
	q->room.wanted = false; /* who wanted it tries again before the next one is dropped */
	forget_waiting(q, w);
	queue_sum_waiting(q);
	queue_shrink(q);
	queue_note_room(q);
	*ret_batch = row.batch;
	return 1;
}

/* --- Stores --- */

/* Its row comes before its first delivery: where there are such and it is missing, damage has destroyed it. */
static int find_used(struct queue *q, const char *store, struct err *err)
{
	const struct cell key[] = { cell_text(store) };
	int r = queue_query(q, SQL_STORE_USED, CELLS(key), err);

	if (r == 0)
		r = queue_step(q, SQL_STORE_USED, err);
	queue_reset(q, SQL_STORE_USED);
	return r;
}

int queue_store_place(struct queue *q, const char *store, char *ret_place, size_t size, struct err *err)
{
	const struct cell key[] = { cell_text(store) };
	int r = queue_query(q, SQL_STORE_GET, CELLS(key), err);

	if (r == 0)
		r = queue_step(q, SQL_STORE_GET, err);
	if (r == 1) {
		r = queue_text(q, SQL_STORE_GET, 1, ret_place, size, err);
		queue_reset(q, SQL_STORE_GET);
		return r;
	}
	queue_reset(q, SQL_STORE_GET);
	if (r == 0)
		r = find_used(q, store, err);
	if (r >= 0)
		snprintf(ret_place, size, "%s", r == 1 ? QUEUE_PLACE_LOST : "");
	return r < 0 ? r : 0;
}

int queue_set_store_place(struct queue *q, const char *store, const char *place, struct err *err)
{
	const struct cell row[] = { cell_text(store), cell_text(place) };

	if (strlen(place) > 511)
		return err_fail(err, -ENAMETOOLONG, "store \"%s\": its place has more than 511 bytes", store);
	return queue_put(q, SQL_STORE_PUT, CELLS(row), err);
}
