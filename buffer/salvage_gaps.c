/* SPDX-License-Identifier: Apache-2.0 */
/* The books of a salvaged buffer, and what of a source's seqs is nowhere any more. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "buffer/salvage_private.h"

/* --- What rows of several versions say twice --- */

struct booking {
	char store[UNITS_NAME_MAX], source[UNITS_NAME_MAX], device[UNITS_NAME_MAX], boot[OBJECT_BOOT];
	int64_t first, last, day, at_ms;
};

/* The first one behind `b` in the table: 1, 0, -errno. */
static int next_booking(struct salvage *s, enum sql after, struct booking *b)
{
	const struct cell key[] = { cell_text(b->store), cell_text(b->source), cell_number(b->first) };
	struct queue *q = s->fresh;
	struct booking next = { .at_ms = 0 };
	int found = queue_query(q, after, CELLS(key), s->err), r = found;

	if (r == 0)
		r = found = queue_step(q, after, s->err);
	if (r == 1)
		r = queue_text(q, after, 0, next.store, sizeof next.store, s->err);
	if (r == 0 && found == 1)
		r = queue_text(q, after, 1, next.source, sizeof next.source, s->err);
	if (r == 0 && found == 1)
		r = queue_text(q, after, 5, next.device, sizeof next.device, s->err);
	if (r == 0 && found == 1)
		r = queue_text(q, after, 6, next.boot, sizeof next.boot, s->err);
	if (r == 0 && found == 1) {
		next.first = queue_number(q, after, 2);
		next.last = queue_number(q, after, 3);
		next.day = queue_number(q, after, 4);
		next.at_ms = after == SQL_SALVAGE_LOST_AFTER ? queue_number(q, after, 7) : 0;
		*b = next;
	}
	queue_reset(q, after);
	return r < 0 ? r : found;
}

/* Leaves of it what is behind `last`, if anything is. */
static int cut_booking(struct salvage *s, enum sql put, enum sql del, const struct booking *b, int64_t last)
{
	const struct cell key[] = { cell_text(b->store), cell_text(b->source), cell_number(b->first) };
	const struct cell row[] = {
		key[0],
		key[1],
		cell_number(last + 1),
		cell_number(b->last),
		cell_number(b->day),
		cell_text(b->device),
		cell_text(b->boot),
		cell_number(b->at_ms),
	};
	size_t n = sizeof row / sizeof *row;
	int r = queue_run(s->fresh, del, CELLS(key), s->err);

	if (r < 0 || b->last <= last)
		return r;
	return queue_put(s->fresh, put, row, put == SQL_SALVAGE_LOST ? n : n - 1, s->err);
}

static int clean(struct salvage *s, enum sql after, enum sql put, enum sql del)
{
	struct booking b = { .store = "" }, before = b;
	int r;

	while ((r = next_booking(s, after, &b)) > 0) {
		if (strcmp(b.store, before.store) == 0 && strcmp(b.source, before.source) == 0 &&
		    b.first <= before.last) {
			r = cut_booking(s, put, del, &b, before.last);
			if (r < 0)
				return r;
			continue;
		}
		before = b;
	}
	return r;
}

int salvage_clean_books(struct salvage *s)
{
	int r = queue_begin(s->fresh, s->err);

	if (r < 0)
		return r;
	r = clean(s, SQL_SALVAGE_BOOK_AFTER, SQL_SALVAGE_BOOK, SQL_BOOK_DELETE);
	if (r == 0)
		r = clean(s, SQL_SALVAGE_LOST_AFTER, SQL_SALVAGE_LOST, SQL_LOST_DELETE);
	return queue_end(s->fresh, r, s->err);
}

/* --- What is gone --- */

static int put_hole(struct salvage *s, const struct origin *origin, const struct hole *hole, const char *boot)
{
	const struct cell row[] = {
		cell_text(origin->source->name), cell_number((int64_t)hole->first), cell_number((int64_t)hole->last),
		cell_number(hole->day),          cell_text(hole->device),           cell_text(boot),
		cell_number(s->now_ms),
	};

	return queue_put(s->fresh, SQL_SALVAGE_DAMAGE, CELLS(row), s->err);
}

int salvage_put_damage(struct salvage *s, const struct origin *origin, const struct hole *hole)
{
	int r = put_hole(s, origin, hole, hole->boot);

	/* Its place may be taken by one without an end, of an earlier salvage. */
	if (r == 0 && sqlite3_changes(s->fresh->db) == 0 && hole->last != 0)
		r = put_hole(s, origin, hole, "");
	if (hole->last == 0)
		s->result.open_ends++;
	else
		s->result.lost_records += hole->last - hole->first + 1;
	return r;
}

/* Something that has seqs of the source, and what else is known of these. */
struct cover {
	bool there;
	uint64_t first, last;
	int64_t day;
	char device[UNITS_NAME_MAX], boot[OBJECT_BOOT];
};

static int next_row(struct salvage *s, struct cover *cover)
{
	struct queue *q = s->fresh;
	int r = queue_step(q, SQL_SALVAGE_COVER, s->err); /* of all stores, or of one */

	cover->there = r == 1;
	if (r <= 0)
		return r;
	cover->first = (uint64_t)queue_number(q, SQL_SALVAGE_COVER, 0);
	cover->last = (uint64_t)queue_number(q, SQL_SALVAGE_COVER, 1);
	cover->day = queue_number(q, SQL_SALVAGE_COVER, 2);
	r = queue_text(q, SQL_SALVAGE_COVER, 3, cover->device, sizeof cover->device, s->err);
	return r < 0 ? r : queue_text(q, SQL_SALVAGE_COVER, 4, cover->boot, sizeof cover->boot, s->err);
}

static int next_batch(struct salvage *s, struct cover *cover)
{
	struct batch_row row = { .oldest_ms = 0 };
	struct object_name name;
	int r = queue_step(s->fresh, SQL_SALVAGE_BATCHES, s->err);

	cover->there = r == 1;
	if (r == 1)
		r = queue_read_batch(s->fresh, SQL_SALVAGE_BATCHES, &row, s->err);
	if (r < 0 || !cover->there || object_read_key(row.batch.key, &name) < 0)
		return r;
	*cover = (struct cover){ .there = true, .first = name.first_seq, .last = name.last_seq, .day = name.day };
	memcpy(cover->device, name.device, sizeof name.device);
	memcpy(cover->boot, name.boot, sizeof name.boot);
	return 0;
}

static int next_chunk(struct salvage *s, struct cover *cover)
{
	struct queue *q = s->fresh;
	int64_t day;
	int r = queue_step(q, SQL_CHUNK_PLAN, s->err);

	cover->there = r == 1;
	if (r <= 0)
		return r;
	cover->first = (uint64_t)(queue_number(q, SQL_CHUNK_PLAN, 0) & SEQ_MAX);
	cover->last = cover->first + (uint64_t)queue_number(q, SQL_CHUNK_PLAN, 3) - 1;
	day = queue_number(q, SQL_CHUNK_PLAN, 4);
	cover->day = day != 0 ? day : cover->day; /* a staged one has none of its own */
	r = queue_text(q, SQL_CHUNK_PLAN, 1, cover->device, sizeof cover->device, s->err);
	return r < 0 ? r : queue_text(q, SQL_CHUNK_PLAN, 2, cover->boot, sizeof cover->boot, s->err);
}

enum { ROWS, BATCHES, CHUNKS, KINDS };
static int (*const next_of[KINDS])(struct salvage *s, struct cover *cover) = { next_row, next_batch, next_chunk };

static int first_of(const struct cover covers[KINDS])
{
	int first = -1;

	for (int i = 0; i < KINDS; i++) {
		if (covers[i].there && (first < 0 || covers[i].first < covers[first].first))
			first = i;
	}
	return first;
}

static int begin_covers(struct salvage *s, const struct origin *origin, const char *store, struct cover covers[KINDS])
{
	const struct mark *now = &origin->source->now;
	const struct cell name[] = { cell_text(origin->source->name), cell_text(store ? store : "") };
	const struct cell chunks[] = { cell_number(queue_chunk_id(now, 0)),
		                       cell_number(queue_chunk_id(now, origin->next) - 1) };
	int r = queue_query(s->fresh, SQL_SALVAGE_COVER, CELLS(name), s->err);

	if (r == 0)
		r = queue_query(s->fresh, SQL_SALVAGE_BATCHES, name, 1, s->err);
	if (r == 0)
		r = queue_query(s->fresh, SQL_CHUNK_PLAN, CELLS(chunks), s->err);
	for (int i = 0; r == 0 && i < KINDS; i++)
		r = next_of[i](s, &covers[i]);
	return r;
}

static int put_gap(struct salvage *s, const struct origin *origin, uint64_t first, uint64_t last,
                   const struct cover *before)
{
	const struct hole hole = { first, last, before->day, before->device, before->boot };

	return salvage_put_damage(s, origin, &hole);
}

/* Of what one store must have (NULL: any), since it began to. */
static int find_gaps(struct salvage *s, const struct origin *origin, const char *store, struct cover *ret_last)
{
	struct cover covers[KINDS] = { { .there = false } }, before = { .last = 0 };
	int i, r = begin_covers(s, origin, store, covers);

	if (r == 0 && store && (i = first_of(covers)) >= 0)
		before = covers[i];
	while (r == 0 && (i = first_of(covers)) >= 0) {
		if (covers[i].first > before.last + 1)
			r = put_gap(s, origin, before.last + 1, covers[i].first - 1, &before);
		if (covers[i].last > before.last)
			before = covers[i];
		if (r == 0)
			r = next_of[i](s, &covers[i]);
	}
	queue_reset(s->fresh, SQL_SALVAGE_COVER);
	queue_reset(s->fresh, SQL_SALVAGE_BATCHES);
	queue_reset(s->fresh, SQL_CHUNK_PLAN);
	*ret_last = before;
	return r;
}

/* Behind what the store is known to have: it had to have that, unless it is a store no longer. */
static int find_store_gaps(struct salvage *s, const struct origin *origin, const char *store)
{
	bool configured = origin->known && origin->known->n_stores > 0;
	struct cover before;
	int r = find_gaps(s, origin, store, &before);

	if (r < 0 || !configured || before.last == 0 || before.last + 1 >= origin->next)
		return r;
	return put_gap(s, origin, before.last + 1, origin->next - 1, &before);
}

int salvage_gaps(struct salvage *s, struct origin *origin)
{
	struct stores stores = { .n = 0 };
	struct cover before;
	int r = find_gaps(s, origin, NULL, &before);

	if (r == 0 && before.last + 1 < origin->next)
		r = put_gap(s, origin, before.last + 1, origin->next - 1, &before);
	/* A load tells how far the file goes; how far it went before it was damaged, only who wrote it. */
	if (r == 0 && !salvage_is_running(origin))
		r = put_gap(s, origin, origin->next, 0, &before);
	if (r == 0)
		r = salvage_stores(s, origin, &stores);
	for (size_t i = 0; r == 0 && i < stores.n; i++)
		r = find_store_gaps(s, origin, stores.names[i]);
	free(stores.names);
	return r;
}
