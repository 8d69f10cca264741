/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The books: what a store has, or will never have, is written in the transaction that books its delivery or its end,
 * and read together with what waits and what is unsealed. A range grows, or turns from one kind into the next, while it
 * is read page by page; so a page goes on at a seq and not at a row, and cuts what holds that seq.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "buffer/queue_private.h"

/* What is booked: the same in two tables, but that a row of `lost` says when, too. */
static const struct ledger {
	enum sql near, books, put, del;
} ledgers[] = {
	[QUEUE_DELIVERED] = { SQL_BOOK_NEAR, SQL_BOOKS, SQL_BOOK_PUT, SQL_BOOK_DELETE },
	[QUEUE_LOST] = { SQL_LOST_NEAR, SQL_LOST_BOOKS, SQL_LOST_PUT, SQL_LOST_DELETE },
};

static bool same_origin(const struct queue_range *a, const struct queue_range *b)
{
	return a->day == b->day && strcmp(a->device, b->device) == 0 && strcmp(a->boot, b->boot) == 0;
}

static bool touch(const struct queue_range *left, const struct queue_range *right)
{
	return left->last_seq + 1 == right->first_seq && left->kind == right->kind && same_origin(left, right);
}

/* What a batch is in the books; its key is the only place that has day, device and boot. */
static int read_batch(struct queue *q, const struct batch *batch, struct queue_range *ret_range, struct err *err)
{
	struct queue_range range = { .kind = QUEUE_WAITING };
	struct object_name name;

	if (object_read_key(batch->key, &name) < 0 || strcmp(name.source, batch->source) != 0 ||
	    name.first_seq != batch->first_seq || name.last_seq != batch->last_seq)
		return queue_damaged(q, err, "batch", batch->id, "its object's key is not one of ours");
	memcpy(range.source, name.source, sizeof range.source);
	memcpy(range.device, name.device, sizeof range.device);
	memcpy(range.boot, name.boot, sizeof range.boot);
	range.day = name.day;
	range.first_seq = name.first_seq;
	range.last_seq = name.last_seq;
	*ret_range = range;
	return 0;
}

/* The row at hand of a statement whose columns are, from `at` on, source, first, last, day, device and boot. */
static int read_columns(struct queue *q, enum sql sql, int at, enum queue_range_kind kind,
                        struct queue_range *ret_range, struct err *err)
{
	struct queue_range range = {
		.kind = kind,
		.first_seq = (uint64_t)queue_number(q, sql, at + 1),
		.last_seq = (uint64_t)queue_number(q, sql, at + 2),
		.day = queue_number(q, sql, at + 3),
	};
	int r = queue_text(q, sql, at, range.source, sizeof range.source, err);

	if (r == 0)
		r = queue_text(q, sql, at + 4, range.device, sizeof range.device, err);
	if (r == 0)
		r = queue_text(q, sql, at + 5, range.boot, sizeof range.boot, err);
	if (r == 0)
		*ret_range = range;
	return r;
}

/* Of the books, where the store comes first. */
static int read_row(struct queue *q, enum sql sql, enum queue_range_kind kind, struct queue_range *ret_range,
                    struct err *err)
{
	return read_columns(q, sql, 1, kind, ret_range, err);
}

/* --- Booking --- */

static int put_row(struct queue *q, const char *store, const struct queue_range *range, struct err *err)
{
	const struct cell row[] = {
		cell_text(store),
		cell_text(range->source),
		cell_number((int64_t)range->first_seq),
		cell_number((int64_t)range->last_seq),
		cell_number(range->day),
		cell_text(range->device),
		cell_text(range->boot),
		cell_number(clock_wall_ms()),
	};
	size_t n = sizeof row / sizeof *row;

	return queue_put(q, ledgers[range->kind].put, row, range->kind == QUEUE_LOST ? n : n - 1, err);
}

static int delete_row(struct queue *q, const char *store, const struct queue_range *range, struct err *err)
{
	const struct cell key[] = { cell_text(store), cell_text(range->source),
		                    cell_number((int64_t)range->first_seq) };

	return queue_run(q, ledgers[range->kind].del, CELLS(key), err);
}

/* The last two rows that begin no later than right behind the range, the later one first: its neighbours are there. */
static int find_near(struct queue *q, const char *store, const struct queue_range *range, struct queue_range near[2],
                     int *ret_n, struct err *err)
{
	const struct cell cells[] = { cell_text(store), cell_text(range->source),
		                      cell_number((int64_t)range->last_seq + 1) };
	enum sql sql = ledgers[range->kind].near;
	int n = 0, r = queue_query(q, sql, CELLS(cells), err);

	while (r == 0 && (r = queue_step(q, sql, err)) > 0) {
		r = read_row(q, sql, range->kind, &near[n], err);
		n++;
	}
	queue_reset(q, sql);
	*ret_n = n;
	return r;
}

int queue_book(struct queue *q, enum queue_range_kind kind, const char *store, const struct batch *batch,
               struct err *err)
{
	struct queue_range near[2] = { { .first_seq = 0 } }, range = { .first_seq = 0 }, *left = NULL, *right = NULL;
	int n = 0, r = batch->imported ? 0 : read_batch(q, batch, &range, err);

	if (batch->imported)
		return 0;
	range.kind = kind;
	if (r == 0)
		r = find_near(q, store, &range, near, &n, err);
	if (r < 0)
		return r;
	if (n > 0 && near[0].first_seq == range.last_seq + 1)
		right = &near[0];
	if (n > (right ? 1 : 0))
		left = &near[right ? 1 : 0];
	if (left && left->first_seq <= range.first_seq && left->last_seq >= range.last_seq)
		return 0;
	if (left && left->last_seq >= range.first_seq)
		return queue_damaged(q, err, "batch", batch->id, "a part of it is booked already");
	if (right && touch(&range, right)) {
		range.last_seq = right->last_seq;
		r = delete_row(q, store, right, err);
	}
	if (left && touch(left, &range))
		range.first_seq = left->first_seq;
	return r == 0 ? put_row(q, store, &range, err) : r;
}

/* The row that holds the range, cut in two around it. */
int queue_unbook(struct queue *q, const char *store, const struct batch *batch, struct err *err)
{
	struct queue_range near[2] = { { .first_seq = 0 } }, range = { .first_seq = 0 }, *row = near;
	int n = 0, r = read_batch(q, batch, &range, err);

	range.kind = QUEUE_DELIVERED;
	if (r == 0)
		r = find_near(q, store, &range, near, &n, err);
	while (r == 0 && n > 0 && row->first_seq > range.first_seq) {
		row++;
		n--;
	}
	if (r < 0 || n == 0 || row->last_seq < range.last_seq)
		return r;
	struct queue_range left = *row, right = *row;

	left.last_seq = range.first_seq - 1;
	right.first_seq = range.last_seq + 1;
	r = delete_row(q, store, row, err);
	if (r == 0 && left.first_seq <= left.last_seq)
		r = put_row(q, store, &left, err);
	if (r == 0 && right.first_seq <= right.last_seq)
		r = put_row(q, store, &right, err);
	return r;
}

/* --- What is lost --- */

/* The rows of all stores come by source and seq: what several have lost counts once. */
struct losses {
	struct source *source;
	uint64_t end; /* counted up to before this seq */
};

static int count_row(struct queue *q, struct losses *losses, struct err *err)
{
	struct queue_range range = { .first_seq = 0 };
	int r = read_row(q, SQL_LOST, QUEUE_LOST, &range, err);

	if (r < 0)
		return r;
	if (!losses->source || strcmp(losses->source->name, range.source) != 0)
		*losses = (struct losses){ .source = queue_find_source(q, range.source) };
	if (!losses->source) {
		q->damaged = true;
		return err_fail(err, -EBADMSG, "buffer \"%s\" is damaged: lost %s: its source is not known", q->path,
		                range.source);
	}
	if (range.first_seq < losses->end)
		range.first_seq = losses->end;
	if (range.first_seq > range.last_seq)
		return 0;
	losses->source->dropped += range.last_seq - range.first_seq + 1;
	losses->end = range.last_seq + 1;
	return 0;
}

int queue_load_lost(struct queue *q, struct err *err)
{
	struct losses losses = { .source = NULL };
	int r;

	while ((r = queue_step(q, SQL_LOST, err)) > 0) {
		r = count_row(q, &losses, err);
		if (r < 0)
			break;
	}
	queue_reset(q, SQL_LOST);
	return r;
}

/* --- What damage has destroyed --- */

int queue_load_damage(struct queue *q, struct err *err)
{
	struct queue_range range = { .first_seq = 0 };
	struct source *source;
	int r;

	while ((r = queue_step(q, SQL_DAMAGE, err)) > 0) {
		r = read_columns(q, SQL_DAMAGE, 0, QUEUE_LOST, &range, err);
		if (r < 0)
			break;
		source = queue_find_source(q, range.source);
		if (source && range.last_seq > 0)
			source->damaged += range.last_seq - range.first_seq + 1;
	}
	queue_reset(q, SQL_DAMAGE);
	return r;
}

int queue_next_damage(struct queue *q, const struct queue_damage *after, struct queue_damage *ret_damage,
                      struct err *err)
{
	const struct cell key[] = { cell_text(after ? after->source : ""),
		                    cell_number(after ? (int64_t)after->first_seq : 0),
		                    cell_text(after ? after->boot : "") };
	struct queue_range range = { .first_seq = 0 };
	struct queue_damage damage = { .first_seq = 0 };
	int found = queue_query(q, SQL_DAMAGE_NEXT, CELLS(key), err), r = found;

	if (r == 0)
		r = found = queue_step(q, SQL_DAMAGE_NEXT, err);
	if (r == 1)
		r = read_columns(q, SQL_DAMAGE_NEXT, 0, QUEUE_LOST, &range, err);
	if (r == 0 && found == 1) {
		memcpy(damage.source, range.source, sizeof damage.source);
		memcpy(damage.device, range.device, sizeof damage.device);
		memcpy(damage.boot, range.boot, sizeof damage.boot);
		damage.first_seq = range.first_seq;
		damage.last_seq = range.last_seq;
		damage.at_ms = queue_number(q, SQL_DAMAGE_NEXT, 6);
		*ret_damage = damage;
	}
	queue_reset(q, SQL_DAMAGE_NEXT);
	return r < 0 ? r : found;
}

/* --- Reading --- */

struct page {
	struct queue *q;
	const char *store;
	int64_t since;
	struct queue_range *ranges;
	size_t n, size;
	struct err *err;
};

/* Adds what of the range is at `from` or later, if it is of the days that are asked for. */
static void add_range(struct page *page, const struct queue_range *range, uint64_t from)
{
	struct queue_range *last = page->n > 0 ? &page->ranges[page->n - 1] : NULL, cut = *range;

	if (range->day < page->since || range->last_seq < from)
		return;
	if (cut.first_seq < from)
		cut.first_seq = from;
	if (last && strcmp(last->source, cut.source) == 0 && touch(last, &cut)) {
		last->last_seq = cut.last_seq;
		return;
	}
	assert(page->n < page->size);
	page->ranges[page->n++] = cut;
}

/* The next of what is booked: 1, 0 at the end, or -errno. */
static int next_booked(struct page *page, enum queue_range_kind kind, struct queue_range *ret_range)
{
	enum sql sql = ledgers[kind].books;
	int r = queue_step(page->q, sql, page->err);

	if (r <= 0)
		return r;
	r = read_row(page->q, sql, kind, ret_range, page->err);
	return r < 0 ? r : 1;
}

/* What is booked, what waits and what damage has destroyed of a source, side by side. */
enum { DAMAGED = QUEUE_LOST + 1, KINDS };

struct merge {
	const struct source *source;
	uint64_t from, end; /* what is before these was read before, is in the page */
	size_t at;          /* in the queue's list of what waits */
	uint64_t waits;     /* behind the last one that waits */
	struct queue_range next[KINDS];
	bool has[KINDS];
};

static bool goes_there(const struct page *page, const struct source *source)
{
	int bit = queue_find_store(page->q, page->store);

	return bit >= 0 && (source->route.stores >> bit & 1);
}

/*
 * The batch of the source that waits for the store and comes next by its seqs. That is their order by id as well, but
 * for what a salvage has sealed anew.
 */
static const struct waiting *find_waiting(const struct page *page, struct merge *merge)
{
	int bit = queue_find_store(page->q, page->store);
	const struct source *source = merge->source;
	const struct waiting *next = NULL;

	for (size_t i = source->mixed ? 0 : merge->at; i < page->q->n_waiting; i++) {
		const struct waiting *w = &page->q->waiting[i];

		if (w->source != source || w->imported || (w->done >> bit & 1) ||
		    w->first_seq + w->records <= merge->waits || (next && next->first_seq < w->first_seq))
			continue;
		merge->at = i + 1;
		next = w;
		if (!source->mixed)
			break;
	}
	return next;
}

/* The next of what waits for it: 1, 0 at the end, or -errno. */
static int next_waiting(struct page *page, struct merge *merge, struct queue_range *ret_range)
{
	const struct waiting *w = goes_there(page, merge->source) ? find_waiting(page, merge) : NULL;
	struct batch_row row;
	int r;

	if (!w)
		return 0;
	merge->waits = w->first_seq + w->records;
	r = queue_get_waiting(page->q, w, &row, page->err);
	if (r == 0)
		r = read_batch(page->q, &row.batch, ret_range, page->err);
	return r < 0 ? r : 1;
}

static int next_damaged(struct page *page, const struct merge *merge, struct queue_range *ret_range)
{
	int r = goes_there(page, merge->source) ? queue_step(page->q, SQL_DAMAGE_BOOKS, page->err) : 0;

	if (r <= 0)
		return r;
	r = read_columns(page->q, SQL_DAMAGE_BOOKS, 0, QUEUE_LOST, ret_range, page->err);
	return r < 0 ? r : 1;
}

static int advance(struct page *page, struct merge *merge, int kind)
{
	struct queue_range *next = &merge->next[kind];
	int r = kind == QUEUE_WAITING ? next_waiting(page, merge, next)
	        : kind == DAMAGED     ? next_damaged(page, merge, next)
	                              : next_booked(page, (enum queue_range_kind)kind, next);

	merge->has[kind] = r == 1;
	return r < 0 ? r : 0;
}

static int begin_merge(struct page *page, struct merge *merge)
{
	const struct cell cells[] = { cell_text(page->store), cell_text(merge->source->name),
		                      cell_number((int64_t)merge->from), cell_number(page->since) };
	int r = queue_query(page->q, SQL_BOOKS, CELLS(cells), page->err);

	if (r == 0)
		r = queue_query(page->q, SQL_LOST_BOOKS, CELLS(cells), page->err);
	if (r == 0)
		r = queue_query(page->q, SQL_DAMAGE_BOOKS, cells + 1, 3, page->err);
	for (int kind = 0; r == 0 && kind < KINDS; kind++) {
		if (kind != QUEUE_UNSEALED)
			r = advance(page, merge, kind);
	}
	return r;
}

/* The kind that comes first; -1 at the end. Damage comes behind what begins with it. */
static int first_kind(const struct merge *merge)
{
	int first = -1;

	for (int kind = 0; kind < KINDS; kind++) {
		if (merge->has[kind] && (first < 0 || merge->next[kind].first_seq < merge->next[first].first_seq))
			first = kind;
	}
	return first;
}

/* What the store has of it, or waits for, it has not lost. */
static int add_damaged(struct page *page, struct merge *merge)
{
	struct queue_range *damaged = &merge->next[DAMAGED], cut;
	int other;

	if (damaged->first_seq < merge->end)
		damaged->first_seq = merge->end;
	if (damaged->first_seq > damaged->last_seq)
		return advance(page, merge, DAMAGED);
	merge->has[DAMAGED] = false;
	other = first_kind(merge);
	merge->has[DAMAGED] = true;
	cut = *damaged;
	if (other >= 0 && merge->next[other].first_seq <= cut.last_seq)
		cut.last_seq = merge->next[other].first_seq - 1;
	if (cut.first_seq <= cut.last_seq)
		add_range(page, &cut, merge->from);
	merge->end = cut.last_seq + 1;
	damaged->first_seq = merge->end;
	return 0;
}

/* Batches, in the order of their seqs, until the page is full. */
static int add_batches(struct page *page, const struct source *source, uint64_t from)
{
	struct merge merge = { .source = source, .from = from, .end = from, .waits = from };
	int kind, r = begin_merge(page, &merge);

	while (r == 0 && page->n < page->size && (kind = first_kind(&merge)) >= 0) {
		if (kind == DAMAGED) {
			r = add_damaged(page, &merge);
			continue;
		}
		add_range(page, &merge.next[kind], from);
		if (merge.end <= merge.next[kind].last_seq)
			merge.end = merge.next[kind].last_seq + 1;
		r = advance(page, &merge, kind);
	}
	queue_reset(page->q, SQL_BOOKS);
	queue_reset(page->q, SQL_LOST_BOOKS);
	queue_reset(page->q, SQL_DAMAGE_BOOKS);
	return r;
}

/* The chunk at hand of SQL_CHUNK_PLAN. */
static int read_chunk(struct page *page, const struct source *source, struct queue_range *ret_range)
{
	struct queue_range range = { .kind = QUEUE_UNSEALED };
	struct queue *q = page->q;
	bool ignored;
	int r = queue_text(q, SQL_CHUNK_PLAN, 1, range.device, sizeof range.device, page->err);

	if (r == 0)
		r = queue_text(q, SQL_CHUNK_PLAN, 2, range.boot, sizeof range.boot, page->err);
	if (r == 0)
		r = queue_plan_day(q, &range.day, &ignored, page->err);
	if (r < 0)
		return r;
	memcpy(range.source, source->name, sizeof range.source);
	range.first_seq = (uint64_t)(queue_number(q, SQL_CHUNK_PLAN, 0) & SEQ_MAX);
	range.last_seq = range.first_seq + (uint64_t)queue_number(q, SQL_CHUNK_PLAN, 3) - 1;
	*ret_range = range;
	return 0;
}

static int add_unsealed(struct page *page, const struct source *source, uint64_t from)
{
	const struct mark *now = &source->now;
	const struct cell cells[] = { cell_number(queue_chunk_id(now, from)),
		                      cell_number(queue_chunk_id(now, now->seq - 1)) };
	int bit = queue_find_store(page->q, page->store), r;
	struct queue_range range = { .first_seq = 0 };

	if (bit < 0 || !(source->route.stores >> bit & 1) || from >= now->seq)
		return 0;
	r = queue_query(page->q, SQL_CHUNK_PLAN, CELLS(cells), page->err);
	while (r == 0 && page->n < page->size && (r = queue_step(page->q, SQL_CHUNK_PLAN, page->err)) > 0) {
		r = read_chunk(page, source, &range);
		if (r == 0)
			add_range(page, &range, from);
	}
	queue_reset(page->q, SQL_CHUNK_PLAN);
	return r;
}

static int add_source(struct page *page, const struct source *source, uint64_t from)
{
	int r = add_batches(page, source, from);

	return r == 0 && page->n < page->size ? add_unsealed(page, source, from) : r;
}

/* The first source by name that comes after `name`; NULL at the end. */
static const struct source *next_source(const struct queue *q, const char *name)
{
	const struct source *next = NULL;

	for (size_t i = 0; i < q->n_sources; i++) {
		const struct source *source = q->sources[i];

		if (source->now.id > 0 && strcmp(source->name, name) > 0 &&
		    (!next || strcmp(source->name, next->name) < 0))
			next = source;
	}
	return next;
}

int queue_books(struct queue *q, const char *store, int64_t since, const struct queue_range *after,
                struct queue_range *ret_ranges, size_t n, struct err *err)
{
	struct page page = { .q = q, .store = store, .since = since, .ranges = ret_ranges, .size = n, .err = err };
	const struct source *source = after ? queue_find_source(q, after->source) : NULL;
	int r = queue_check(q, err);

	assert(n <= INT32_MAX);
	if (r == 0 && source)
		r = add_source(&page, source, after->last_seq + 1);
	source = next_source(q, after ? after->source : "");
	for (; r == 0 && source && page.n < page.size; source = next_source(q, source->name))
		r = add_source(&page, source, 1);
	return r < 0 ? r : (int)page.n;
}
