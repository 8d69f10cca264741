/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chunks of a source, in the order of their seqs: those that were committed stay, each fetch with a higher number than
 * the one before. Where two cannot both be true, the one that was begun earlier, or may never have been committed,
 * goes.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "buffer/salvage_private.h"

int salvage_delete_chunks(struct salvage *s, int64_t first, int64_t last)
{
	const struct cell range[] = { cell_number(first), cell_number(last) };

	return queue_run(s->fresh, SQL_CHUNKS_DELETE, CELLS(range), s->err);
}

bool salvage_look(struct salvage *s, const struct chunk_row *row, struct unit *ret_unit)
{
	struct span span, first = { .fetch = row->fetch, .records = 1 };
	struct chunk_reader reader;
	uint64_t records = 0;
	const void *data;
	size_t len;
	int n = 0, r = chunk_inflate(row->data, row->data_len, row->plain, &s->plain);

	if (r == 0)
		r = chunk_reader_init(&reader, &s->plain);
	while (r == 0 && (r = chunk_next_span(&reader, &span)) > 0) {
		if (n++ == 0)
			first = span;
		records += span.records;
		for (r = 0; r == 0 && span.records > 0; span.records--)
			r = chunk_next_record(&reader, &data, &len);
	}
	if (r < 0 || records != row->records)
		return false;
	*ret_unit = (struct unit){
		.id = row->id,
		.seq = (uint64_t)(row->id & SEQ_MAX),
		.records = row->records,
		.lines = row->lines,
		.stored = row->data_len,
		.first_fetch = first.fetch,
		.last_fetch = row->staged ? first.fetch : row->fetch,
		.ticket = first.records == 0 && first.wall_ms == 0 ? first.mono_ms : 0,
		.last = row->last,
		.staged = row->staged,
		.sure = !salvage_has_id(&s->unsure_chunks, row->id),
		.mono_ms = row->mono_ms,
	};
	memcpy(ret_unit->boot, row->boot, sizeof ret_unit->boot);
	return true;
}

int salvage_next_chunk(struct salvage *s, int64_t from, struct unit *ret_unit)
{
	for (;;) {
		const struct cell range[] = { cell_number(from), cell_number(from | SEQ_MAX) };
		struct chunk_row row = { .id = 0 };
		bool sound = false;
		int found = queue_query(s->fresh, SQL_CHUNKS, CELLS(range), s->err), r = found;

		if (r == 0)
			r = found = queue_step(s->fresh, SQL_CHUNKS, s->err);
		if (r == 1)
			r = queue_read_row(s->fresh, SQL_CHUNKS, &row, s->err);
		if (r == 0 && found == 1)
			sound = salvage_look(s, &row, ret_unit);
		queue_reset(s->fresh, SQL_CHUNKS);
		if (r < 0 || found <= 0 || sound)
			return r < 0 ? r : found;
		r = salvage_delete_chunks(s, row.id, row.id);
		if (r < 0)
			return r;
	}
}

/* --- What stays --- */

struct walk {
	struct salvage *s;
	struct origin *origin;
	struct unit before, prev; /* accepted last, and before that; id 0: none */
};

int salvage_is_out_of_date(struct salvage *s, const struct origin *o, const struct unit *c)
{
	const struct found *found;

	if (c->records == 0)
		return c->seq <= o->sealed || (salvage_is_running(o) && c->seq > o->known->seq);
	if (salvage_is_running(o) && c->seq >= o->known->seq)
		return 1;
	if (c->seq > o->sealed)
		return c->first_fetch < o->sealed_fetch;
	found = salvage_find_batch(s, o, c->seq, c->seq + c->records - 1);
	if (!found || found->state != FOUND_BROKEN)
		return 1;
	return salvage_all_have(s, o, c->seq, c->seq + c->records - 1);
}

static bool follows(const struct unit *p, const struct unit *c)
{
	if (p->id == 0)
		return true;
	if (p->seq + p->records > c->seq)
		return false;
	if (c->records == 0)
		return c->last_fetch >= p->last_fetch;
	return c->first_fetch > p->last_fetch || (p->last == 0 && c->first_fetch == p->last_fetch);
}

/* Of two that cannot both be true: whether the first one goes. */
static bool first_goes(const struct unit *p, const struct unit *c)
{
	if (p->sure != c->sure)
		return c->sure;
	return strcmp(p->boot, c->boot) == 0 && c->mono_ms > p->mono_ms;
}

/* Another walk begins. */
static int drop_prev(struct walk *w)
{
	int r = salvage_delete_chunks(w->s, w->prev.id, w->prev.id);

	w->before = w->prev = (struct unit){ .id = 0 };
	return r < 0 ? r : 1;
}

/* 1: the walk begins anew, 0: it goes on behind the chunk, -errno. */
static int take_chunk(struct walk *w, const struct unit *c)
{
	int r = salvage_is_out_of_date(w->s, w->origin, c);

	if (r != 0)
		return r < 0 ? r : salvage_delete_chunks(w->s, c->id, c->id);
	if (!follows(&w->prev, c))
		return first_goes(&w->prev, c) ? drop_prev(w) : salvage_delete_chunks(w->s, c->id, c->id);
	/* What came since says all that one without records has said. */
	if (w->prev.id != 0 && w->prev.records == 0) {
		r = salvage_delete_chunks(w->s, w->prev.id, w->prev.id);
		w->prev = w->before;
	}
	w->before = w->prev;
	w->prev = *c;
	return r;
}

/*
 * At the end: pieces of a fetch that has none are left out, unless they are known to be committed. 1: the walk begins
 * anew, 0: what is there stays.
 */
static int end_walk(struct walk *w)
{
	return w->prev.id == 0 || w->prev.last > 0 || w->prev.sure ? 0 : drop_prev(w);
}

int salvage_resolve(struct salvage *s, struct origin *origin)
{
	const int64_t first = queue_chunk_id(&origin->source->now, 0);
	struct walk w = { .s = s, .origin = origin };
	struct unit c = { .id = first };
	int found, r;

	do {
		found = salvage_next_chunk(s, c.id + 1, &c);
		r = found < 0 ? found : found == 1 ? take_chunk(&w, &c) : end_walk(&w);
		if (r == 1)
			c.id = first;
	} while (r >= 0 && (found == 1 || r == 1));
	return r < 0 ? r : salvage_staged(s, origin);
}

/* --- What is sealed --- */

/* Chunks that follow one another. */
struct run {
	int64_t first, last; /* ids */
	uint64_t next;       /* seq behind it */
	uint64_t records, lines, stored;
	uint64_t first_fetch, last_fetch;
	bool ended; /* with the end of a fetch */
};

static bool is_on_its_way(const struct origin *origin, const struct unit *unit)
{
	return unit->staged && salvage_is_running(origin) && unit->seq >= origin->known->seq;
}

/*
 * What is left of a batch stays apart from what is left of another, and from what never was in one: some store may have
 * that batch.
 */
static bool is_apart(const struct salvage *s, const struct origin *origin, uint64_t before, uint64_t seq)
{
	if (before > origin->sealed)
		return false;
	return seq > origin->sealed || salvage_batch_of(s, origin, before) != salvage_batch_of(s, origin, seq);
}

/* 1: there is one from that id on, 0, -errno. */
static int next_run(struct salvage *s, const struct origin *origin, int64_t from, struct run *ret_run)
{
	struct run run = { .first = 0 };
	struct unit unit;
	int r;

	while ((r = salvage_next_chunk(s, from, &unit)) > 0) {
		from = unit.id + 1;
		if (unit.records == 0 || is_on_its_way(origin, &unit) ||
		    (run.first != 0 && (unit.seq != run.next || is_apart(s, origin, run.next - 1, unit.seq))))
			break;
		if (run.first == 0) {
			run.first = unit.id;
			run.first_fetch = unit.first_fetch;
		}
		run.last = unit.id;
		run.last_fetch = unit.last_fetch;
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

/* What ended its last fetch is gone, and with it what is known of its clock where the records do not say so. */
static int end_run(struct salvage *s, const struct run *run)
{
	const struct cell last[] = { cell_number(run->last), cell_number(run->last) };
	struct chunk_row row = { .id = 0 };
	int r = queue_query(s->fresh, SQL_CHUNKS, CELLS(last), s->err);

	if (r == 0)
		r = queue_step(s->fresh, SQL_CHUNKS, s->err);
	assert(r != 0);
	if (r == 1)
		r = queue_read_row(s->fresh, SQL_CHUNKS, &row, s->err);
	row.last = 1 + CHUNK_UNSYNCED;
	if (r == 0)
		r = queue_put_chunk(s->fresh, &row, s->err);
	queue_reset(s->fresh, SQL_CHUNKS);
	return r;
}

static int seal_run(struct salvage *s, struct origin *origin, const struct run *run)
{
	struct mark *now = &origin->source->now, kept = *now;
	struct batch batch;
	int r = run->ended ? 0 : end_run(s, run);

	if (r == 0)
		r = make_mark(s, run, now);
	if (r == 0)
		do
			r = queue_seal(s->fresh, s->now_ms, 0, true, &batch, s->err);
		while (r > 0 && now->records > 0);
	if (r == 0)
		r = err_fail(s->err, -EIO, "source \"%s\": what was salvaged cannot be sealed", origin->source->name);
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
	struct chunk_row row = { .id = 0 };
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

/* What all the source's chunks say: where it goes on, and with what. One without records has said all by that. */
static int read_end(struct salvage *s, struct origin *origin)
{
	struct mark *now = &origin->source->now;
	struct unit unit = { .id = queue_chunk_id(now, 0) };
	int r;

	while ((r = salvage_next_chunk(s, unit.id + 1, &unit)) > 0) {
		r = unit.last_fetch >= now->fetch ? find_state(s, origin, unit.id) : 0;
		if (r == 0 && unit.records == 0)
			r = salvage_delete_chunks(s, unit.id, unit.id);
		if (r < 0)
			return r;
		if (!is_on_its_way(origin, &unit) && origin->next < unit.seq + unit.records)
			origin->next = unit.seq + unit.records;
	}
	return r;
}

/* What the process or a load that came so far knows better. */
static int read_known(struct salvage *s, struct origin *origin)
{
	const struct salvage_known *known = origin->known;
	struct mark *now = &origin->source->now;

	if (!known || known->seq == 0)
		return 0;
	if (known->fetch >= now->fetch) {
		now->fetch = known->fetch;
		now->state_len = known->state_len;
		if (known->state_len > 0)
			memcpy(now->state, known->state, known->state_len);
	}
	if (origin->next < known->seq)
		origin->next = known->seq;
	if (!known->running || origin->next == known->seq)
		return 0;
	/* What is staged has lost its place. */
	return salvage_delete_chunks(s, queue_chunk_id(now, known->seq), queue_chunk_id(now, SEQ_MAX));
}

/* A chunk without records where the next one will come. */
static int put_state(struct salvage *s, const struct origin *origin)
{
	const struct mark *now = &origin->source->now;
	struct chunk_writer writer;
	struct chunk_row row = {
		.id = queue_chunk_id(now, origin->next),
		.last = 1,
		.fetch = now->fetch,
		.state = now->state,
		.state_len = now->state_len,
	};
	int r;

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

/* The source's row as of what is sealed, and its newest state behind what is not. */
static int put_source(struct salvage *s, const struct origin *origin, const struct run *kept)
{
	struct mark mark = origin->source->now;
	struct unit staged;
	int r;

	mark.seq = origin->next - kept->records;
	mark.batch = s->fresh->last_batch; /* the batch that has it may go, and another source's may have had it */
	if (kept->records > 0)
		mark.fetch = kept->first_fetch - 1;
	r = queue_put_source(s->fresh, origin->source->name, &mark, s->err);
	if (r < 0 || kept->records == 0 || kept->last_fetch >= origin->source->now.fetch)
		return r;
	r = salvage_next_chunk(s, queue_chunk_id(&mark, origin->next), &staged);
	return r == 0 ? put_state(s, origin) : r < 0 ? r : 0;
}

int salvage_settle(struct salvage *s, struct origin *origin)
{
	struct run run = { .last = queue_chunk_id(&origin->source->now, 0) };
	int r = read_end(s, origin), found = 1;

	if (r == 0)
		r = read_known(s, origin);
	while (r == 0 && found == 1) {
		found = next_run(s, origin, run.last + 1, &run);
		r = found < 0 ? found : 0;
		if (found == 1 && run.next == origin->next && run.ended && run.next - run.records > origin->sealed)
			break;
		if (found == 1)
			r = seal_run(s, origin, &run);
	}
	if (r == 0)
		r = put_source(s, origin, &run);
	origin->kept = run.records;
	return r;
}
