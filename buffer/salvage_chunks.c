/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chunks of a source, in the order of their seqs: those that were committed stay, each fetch with a higher number than
 * the one before. Where two cannot both be true, the one that was begun earlier, or may never have been committed, goes.
 */
#include <errno.h>
#include <string.h>

#include "buffer/salvage_private.h"

static int delete_chunks(struct salvage *s, int64_t first, int64_t last)
{
	const struct cell range[] = { cell_number(first), cell_number(last) };

	return queue_run(s->fresh, SQL_CHUNKS_DELETE, CELLS(range), s->err);
}

/* Whether it can be sealed: as many records as told, and where they begin. */
static bool look_inside(struct salvage *s, const struct chunk_row *row, uint64_t *ret_first_fetch)
{
	uint64_t records = 0, first_fetch = row->fetch;
	struct chunk_reader reader;
	struct span span;
	const void *data;
	size_t len;
	int r = chunk_inflate(row->data, row->data_len, row->plain, &s->plain);

	if (r == 0)
		r = chunk_reader_init(&reader, &s->plain);
	for (bool first = true; r == 0 && (r = chunk_next_span(&reader, &span)) > 0; first = false) {
		if (first)
			first_fetch = span.fetch;
		records += span.records;
		for (r = 0; r == 0 && span.records > 0; span.records--)
			r = chunk_next_record(&reader, &data, &len);
	}
	*ret_first_fetch = first_fetch;
	return r == 0 && records == row->records;
}

static void fill_unit(struct unit *unit, const struct salvage *s, const struct chunk_row *row, uint64_t first_fetch)
{
	*unit = (struct unit){
		.id = row->id,
		.seq = (uint64_t)(row->id & SEQ_MAX),
		.records = row->records,
		.lines = row->lines,
		.stored = row->data_len,
		.first_fetch = first_fetch,
		.last_fetch = row->staged ? first_fetch : row->fetch,
		.last = row->last,
		.staged = row->staged,
		.sure = !salvage_has_id(&s->unsure_chunks, row->id),
		.mono_ms = row->mono_ms,
	};
	memcpy(unit->boot, row->boot, sizeof unit->boot);
}

int salvage_next_chunk(struct salvage *s, int64_t from, struct unit *ret_unit)
{
	for (;;) {
		const struct cell range[] = { cell_number(from), cell_number(from | SEQ_MAX) };
		struct chunk_row row = { .id = 0 };
		uint64_t first_fetch;
		bool sound = false;
		int found = queue_query(s->fresh, SQL_CHUNKS, CELLS(range), s->err), r = found;

		if (r == 0)
			r = found = queue_step(s->fresh, SQL_CHUNKS, s->err);
		if (r == 1)
			r = queue_read_row(s->fresh, SQL_CHUNKS, &row, s->err);
		if (r == 0 && found == 1)
			sound = look_inside(s, &row, &first_fetch);
		if (sound)
			fill_unit(ret_unit, s, &row, first_fetch);
		queue_reset(s->fresh, SQL_CHUNKS);
		if (r < 0 || found <= 0 || sound)
			return r < 0 ? r : found;
		r = delete_chunks(s, row.id, row.id);
		if (r < 0)
			return r;
	}
}

/* --- What stays --- */

struct walk {
	struct salvage *s;
	struct origin *origin;
	struct unit before, prev; /* accepted last, and before that; id 0: none */
	int64_t group;            /* the first of the staged chunks of which prev is the last; 0: it is none */
};

/* The process still runs: what it has committed it knows, and one fetch of a source may be on its way. */
static bool is_running(const struct origin *origin)
{
	return origin->known && origin->known->running;
}

static int is_out_of_date(const struct walk *w, const struct unit *c)
{
	const struct origin *o = w->origin;
	const struct found *found;
	int r;

	if (c->records == 0)
		return c->seq <= o->sealed;
	if (is_running(o) && !c->staged && c->seq >= o->known->seq)
		return 1;
	if (c->seq > o->sealed)
		return c->first_fetch < o->sealed_fetch;
	found = salvage_find_batch(w->s, o, c->seq, c->seq + c->records - 1);
	if (!found || found->state != FOUND_BROKEN)
		return 1;
	r = salvage_all_have(w->s, o, c->seq, c->seq + c->records - 1);
	return r;
}

/* Both are pieces of a fetch that was staged in one go. */
static bool same_stage(const struct unit *a, const struct unit *b)
{
	return a->staged && b->staged && a->first_fetch == b->first_fetch && a->mono_ms == b->mono_ms &&
	       strcmp(a->boot, b->boot) == 0;
}

static bool follows(const struct unit *p, const struct unit *c)
{
	if (p->id == 0)
		return true;
	if (p->seq + p->records > c->seq)
		return false;
	if (p->staged)
		return same_stage(p, c) || (!c->staged && c->records > 0 && c->first_fetch == p->first_fetch);
	if (c->records == 0)
		return c->last_fetch >= p->last_fetch;
	return c->first_fetch > p->last_fetch || (p->last == 0 && c->first_fetch == p->last_fetch);
}

/* Of two that cannot both be true: whether the first one goes. */
static bool first_goes(const struct unit *p, const struct unit *c)
{
	if (p->staged != c->staged)
		return p->staged;
	if (p->sure != c->sure)
		return c->sure;
	if (strcmp(p->boot, c->boot) == 0 && p->mono_ms != c->mono_ms)
		return c->mono_ms > p->mono_ms;
	return false;
}

static void begin_walk(struct walk *w)
{
	w->before = w->prev = (struct unit){ .id = 0 };
	w->group = 0;
}

/* And all the staged ones that it belongs with. Another walk begins. */
static int drop_prev(struct walk *w)
{
	int r = delete_chunks(w->s, w->group != 0 ? w->group : w->prev.id, w->prev.id);

	begin_walk(w);
	return r < 0 ? r : 1;
}

/* 1: the walk begins anew, 0: it goes on behind the chunk, -errno. */
static int take_chunk(struct walk *w, const struct unit *c)
{
	int r = is_out_of_date(w, c);

	if (r != 0)
		return r < 0 ? r : delete_chunks(w->s, c->id, c->id);
	if (!follows(&w->prev, c))
		return first_goes(&w->prev, c) ? drop_prev(w) : delete_chunks(w->s, c->id, c->id);
	/* What came since says all that one without records has said. */
	if (w->prev.id != 0 && w->prev.records == 0) {
		r = delete_chunks(w->s, w->prev.id, w->prev.id);
		w->prev = w->before;
	}
	if (!c->staged)
		w->group = 0;
	else if (w->group == 0)
		w->group = c->id;
	w->before = w->prev;
	w->prev = *c;
	return r;
}

/*
 * At the end: pieces of a fetch that has none are left out, unless it goes on, or they are known to be committed. 1:
 * the walk begins anew, 0: what is there stays.
 */
static int end_walk(struct walk *w)
{
	const struct origin *o = w->origin;

	if (w->prev.id == 0 || w->prev.last > 0)
		return 0;
	if (w->prev.staged && is_running(o) && (uint64_t)(w->group & SEQ_MAX) == o->known->seq)
		return 0;
	return w->prev.staged || !w->prev.sure ? drop_prev(w) : 0;
}

int salvage_resolve(struct salvage *s, struct origin *origin)
{
	const int64_t first = queue_chunk_id(&origin->source->now, 0);
	struct walk w = { .s = s, .origin = origin };
	struct unit c = { .id = first };
	int r = 0;

	begin_walk(&w);
	while (r >= 0) {
		r = salvage_next_chunk(s, c.id + 1, &c);
		if (r < 0)
			break;
		r = r == 1 ? take_chunk(&w, &c) : end_walk(&w) == 1 ? 1 : 2;
		if (r == 2)
			return 0;
		if (r == 1)
			c.id = first;
	}
	return r;
}

/* --- What is sealed --- */

/* Chunks that follow one another. */
struct run {
	int64_t first, last; /* ids */
	uint64_t next;       /* seq behind it */
	uint64_t records, lines, stored;
	bool ended; /* with the end of a fetch */
};

static bool is_on_its_way(const struct origin *origin, const struct unit *unit)
{
	return unit->staged && is_running(origin) && unit->seq >= origin->known->seq;
}

/* 1: there is one from that id on, 0, -errno. */
static int next_run(struct salvage *s, const struct origin *origin, int64_t from, struct run *ret_run)
{
	struct run run = { .first = 0 };
	struct unit unit;
	int r;

	while ((r = salvage_next_chunk(s, from, &unit)) > 0) {
		from = unit.id + 1;
		if (unit.records == 0 || is_on_its_way(origin, &unit) || (run.first != 0 && unit.seq != run.next))
			break;
		run.first = run.first != 0 ? run.first : unit.id;
		run.last = unit.id;
		run.next = unit.seq + unit.records;
		run.records += unit.records;
		run.lines += unit.lines;
		run.stored += unit.stored;
		run.ended = unit.last > 0;
	}
	if (r < 0)
		return r;
	*ret_run = run;
	return run.first != 0;
}

/* The mark of a source whose unsealed records are the run. */
static int make_mark(struct salvage *s, const struct run *run, struct mark *mark)
{
	const struct cell first[] = { cell_number(run->first), cell_number(run->first) };
	struct chunk_row row = { .id = 0 };
	int r = queue_query(s->fresh, SQL_CHUNKS, CELLS(first), s->err);

	if (r == 0)
		r = queue_step(s->fresh, SQL_CHUNKS, s->err);
	if (r == 1)
		r = queue_read_chunk(s->fresh, SQL_CHUNKS, &row, s->err);
	if (r == 0)
		mark->head = queue_head(s->fresh, &row);
	queue_reset(s->fresh, SQL_CHUNKS);
	mark->seq = run->next;
	mark->records = run->records;
	mark->lines = run->lines;
	mark->stored = run->stored;
	return r;
}

static int seal_run(struct salvage *s, struct origin *origin, const struct run *run)
{
	struct mark *now = &origin->source->now, kept = *now;
	struct batch batch;
	int r = make_mark(s, run, now);

	while (r >= 0 && now->records > 0)
		r = queue_seal(s->fresh, s->now_ms, 0, true, &batch, s->err);
	/* The state is the newest's, not the run's. */
	kept.batch = now->batch;
	if (r >= 0)
		*now = kept;
	return r < 0 ? r : 0;
}

/* The newest state and number of a fetch that a chunk tells of. */
static int find_state(struct salvage *s, const struct origin *origin, int64_t id)
{
	const struct cell range[] = { cell_number(id), cell_number(id) };
	struct mark *now = &origin->source->now;
	struct chunk_row row;
	int r = queue_query(s->fresh, SQL_CHUNKS, CELLS(range), s->err);

	if (r == 0)
		r = queue_step(s->fresh, SQL_CHUNKS, s->err);
	if (r == 1)
		r = queue_read_row(s->fresh, SQL_CHUNKS, &row, s->err);
	if (r == 0 && row.fetch >= now->fetch) {
		now->fetch = row.fetch;
		now->state_len = row.state_len;
		if (row.state_len > 0)
			memcpy(now->state, row.state, row.state_len);
	}
	queue_reset(s->fresh, SQL_CHUNKS);
	return r;
}

/* What all the source's chunks say: where it goes on, and with what. */
static int read_end(struct salvage *s, struct origin *origin)
{
	const struct salvage_known *known = origin->known;
	struct mark *now = &origin->source->now;
	struct unit unit = { .id = queue_chunk_id(now, 0) };
	int r;

	while ((r = salvage_next_chunk(s, unit.id + 1, &unit)) > 0) {
		r = find_state(s, origin, unit.id);
		if (r < 0)
			return r;
		if (!is_on_its_way(origin, &unit) && origin->next < unit.seq + unit.records)
			origin->next = unit.seq + unit.records;
	}
	if (r < 0 || !known || known->seq == 0)
		return r;
	if (origin->next < known->seq)
		origin->next = known->seq;
	if (known->fetch >= now->fetch) {
		now->fetch = known->fetch;
		now->state_len = known->state_len;
		if (known->state_len > 0)
			memcpy(now->state, known->state, known->state_len);
	}
	return 0;
}

/*
 * A chunk without records where the next one will come, if those that stay do not end with the newest state; what is
 * staged there has it.
 */
static int put_state(struct salvage *s, const struct origin *origin)
{
	const struct mark *now = &origin->source->now;
	struct unit unit = { .id = 0 };
	struct chunk_writer writer;
	struct chunk_row row = {
		.id = queue_chunk_id(now, origin->next),
		.last = 1,
		.fetch = now->fetch,
		.state = now->state,
		.state_len = now->state_len,
	};
	int r = salvage_next_chunk(s, row.id, &unit);

	if (r != 0)
		return r < 0 ? r : 0;
	memcpy(row.source, origin->source->name, sizeof row.source);
	memcpy(row.device, s->fresh->device, sizeof row.device);
	memcpy(row.boot, s->fresh->boot, sizeof row.boot);
	chunk_writer_init(&writer);
	r = chunk_writer_begin(&writer);
	if (r == 0)
		r = chunk_writer_finish(&writer);
	row.plain = writer.plain;
	row.data = writer.stored.data;
	row.data_len = writer.stored.len;
	r = r < 0 ? err_fail(s->err, r, "a chunk: %s", strerror(-r)) : queue_put_chunk(s->fresh, &row, s->err);
	chunk_writer_done(&writer);
	return r;
}

int salvage_settle(struct salvage *s, struct origin *origin)
{
	struct mark *now = &origin->source->now;
	struct run run = { .last = queue_chunk_id(now, 0) };
	int r = read_end(s, origin);

	/* What is left of a source without records has said it. */
	for (int found = 1; r == 0 && found == 1;) {
		r = found = next_run(s, origin, run.last + 1, &run);
		if (found != 1 || (run.next == origin->next && run.ended))
			break;
		r = seal_run(s, origin, &run);
	}
	if (r < 0)
		return r;
	origin->kept = r == 1 ? run.records : 0;
	now->seq = origin->next - origin->kept;
	r = queue_put_source(s->fresh, origin->source->name, now, s->err);
	if (r == 0)
		r = put_state(s, origin);
	now->seq = origin->next;
	return r;
}
