/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fetches to chunks, all of a list in one transaction. Small fetches of one source share a chunk, because a commit's
 * price is its pages; a large one becomes several chunks, of which queue_stage may have written the first ones. A
 * commit writes chunk rows only, and a source's row the first time that the source is seen.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "buffer/queue_private.h"

/* A chunk being put together. */
struct build {
	struct queue *q;
	struct source *source;
	struct mark *then;
	struct chunk_writer writer;
	struct chunk_row row; /* id 0: nothing is in it */
	uint8_t clock;        /* of all its fetches */
	int64_t ticket;       /* of what is staged of the fetch at hand */
	struct err *err;
};

static int flush(struct build *b)
{
	struct mark *then = b->then;
	struct chunk_row *row = &b->row;
	int r;

	if (row->id == 0)
		return 0;
	r = chunk_writer_finish(&b->writer);
	if (r < 0)
		return err_fail(b->err, r, "source \"%s\": a chunk of %llu bytes: %s", b->source->name,
		                (unsigned long long)b->writer.plain, strerror(-r));
	row->plain = b->writer.plain;
	row->data = b->writer.stored.data;
	row->data_len = b->writer.stored.len;
	row->state = then->state;
	row->state_len = then->state_len;
	r = queue_put_chunk(b->q, row, b->err);
	if (r < 0)
		return r;
	row->clock = b->clock;
	r = queue_correct(b->q, row, b->err);
	if (r < 0)
		return r;
	if (then->records == 0 && row->records > 0)
		then->head = queue_head(b->q, row);
	then->records += row->records;
	then->unsynced += row->unsynced ? row->records : 0;
	then->lines += row->lines;
	then->stored += row->records > 0 ? row->data_len : 0;
	row->id = 0;
	return 0;
}

/*
 * A span without records says which staged chunks the fetch's are: others may lie at the same ids, of a fetch that was
 * given up, for whoever reads a damaged file.
 */
static int add_mark(struct build *b, const struct fetch *fetch)
{
	const struct span mark = { .fetch = fetch->number, .mono_ms = b->ticket };

	return chunk_writer_add(&b->writer, &mark, NULL);
}

static int start(struct build *b, const struct fetch *fetch)
{
	struct chunk_row *row = &b->row;
	int r;

	*row = (struct chunk_row){
		.id = b->then->id << SEQ_BITS | (int64_t)b->then->seq,
		.day = units_day(fetch->wall_ms),
		.wall_ms = fetch->wall_ms,
		.mono_ms = fetch->mono_ms,
	};
	memcpy(row->source, b->source->name, sizeof row->source);
	memcpy(row->device, b->q->device, sizeof row->device);
	memcpy(row->boot, b->q->boot, sizeof row->boot);
	b->clock = fetch->clock;
	r = chunk_writer_begin(&b->writer);
	if (r == 0 && fetch->staged > 0)
		r = add_mark(b, fetch);
	return r < 0 ? err_fail(b->err, r, "source \"%s\": %s", row->source, strerror(-r)) : 0;
}

/* What came unsynced may be corrected before it becomes lines, and that word is longer. */
static uint64_t piece_lines(const struct build *b, const struct fetch *fetch, const struct fetch_piece *piece)
{
	uint8_t clock = fetch->clock == CHUNK_UNSYNCED ? CHUNK_CORRECTED : fetch->clock;
	struct envelope e = {
		.source = b->source->name,
		.device = b->q->device,
		.boot = b->q->boot,
		.seq = b->then->seq,
		.fetch = fetch->number,
		.wall_ms = fetch->wall_ms,
		.clock = chunk_clock_names[clock],
	};

	return queue_piece_lines(&e, piece);
}

/*
 * A fetch of at most one piece may join what is there, if the chunk stays one that sealing can put anywhere. One that
 * came unsynced stays alone: by its corrected time it may be of another day than its neighbours.
 */
static bool fits(const struct build *b, const struct fetch *fetch)
{
	const struct route *route = &b->source->route;
	const struct fetch_piece *piece = fetch->first;
	uint64_t full = route->max_bytes < CHUNK_FULL ? (uint64_t)route->max_bytes : CHUNK_FULL;

	if (b->row.id == 0 || (piece && piece->next) || fetch->clock == CHUNK_UNSYNCED)
		return false;
	return b->row.day == units_day(fetch->wall_ms) && b->clock == fetch->clock &&
	       b->row.records + fetch->records <= (uint64_t)route->max_records &&
	       b->row.lines + (piece ? piece_lines(b, fetch, piece) : 0) <= full;
}

static int add_piece(struct build *b, const struct fetch *fetch, const struct fetch_piece *piece)
{
	bool last = !piece || !piece->next;
	uint64_t lines = piece ? piece_lines(b, fetch, piece) : 0;
	struct span span = {
		.fetch = fetch->number,
		.wall_ms = fetch->wall_ms,
		.mono_ms = fetch->mono_ms,
		.clock = fetch->clock,
		.last = last,
		.records = piece ? piece->n : 0,
	};
	int r = chunk_writer_add(&b->writer, &span, piece ? &piece->records : NULL);

	if (r < 0)
		return err_fail(b->err, r, "source \"%s\": %s", b->source->name, strerror(-r));
	b->row.lines += lines;
	b->row.records += span.records;
	b->row.fetch = fetch->number;
	b->row.last = last ? 1 + b->clock : 0;
	b->then->seq += span.records;
	return 0;
}

/* What is staged of the fetch is its from here on. */
static int take_staged(struct build *b, const struct fetch *fetch)
{
	struct mark *then = b->then;
	const struct staged *staged = &then->staged;
	struct chunk_row row = {
		.day = units_day(fetch->wall_ms),
		.wall_ms = fetch->wall_ms,
		.mono_ms = fetch->mono_ms,
		.clock = fetch->clock,
	};
	int r;

	assert(!staged->given_up && fetch->first && then->seq == b->source->now.seq);
	memcpy(row.device, b->q->device, sizeof row.device);
	memcpy(row.boot, b->q->boot, sizeof row.boot);
	r = queue_correct(b->q, &row, b->err);
	if (r < 0)
		return r;
	if (then->records == 0)
		then->head = queue_head(b->q, &row);
	then->seq += staged->records;
	then->records += staged->records;
	then->unsynced += row.unsynced ? staged->records : 0;
	then->lines += staged->lines;
	then->staged = (struct staged){ .records = 0 };
	return 0;
}

static int add_fetch(struct build *b, struct fetch *fetch)
{
	const struct fetch_piece *piece = fetch->first;
	bool joins;
	int r = 0;

	assert(fetch->state_len <= SINK_STATE_MAX && fetch->clock <= CHUNK_UNSYNCED);
	if (fetch->staged > 0 && (b->source->stale || fetch->staged != b->then->staged.records)) {
		fetch->stale = true;
		return queue_stale(fetch->source, b->err);
	}
	b->source->stale = false;
	if (fetch->staged == 0 && b->then->staged.records > 0)
		r = queue_delete_staged(b->q, b->source, b->err);
	if (r < 0)
		return r;
	if (fetch->records > (uint64_t)SEQ_MAX - b->then->seq)
		return err_fail(b->err, -EOVERFLOW, "source \"%s\": its numbers are used up", b->source->name);
	fetch->number = ++b->then->fetch;
	fetch->first_seq = b->then->seq;
	b->ticket = b->then->staged.ticket;
	if (fetch->staged > 0)
		r = take_staged(b, fetch);
	joins = fits(b, fetch);
	if (r == 0 && !joins)
		r = flush(b); /* before the state changes: a chunk carries the one of its own last fetch */
	memcpy(b->then->state, fetch->state, fetch->state_len);
	b->then->state_len = fetch->state_len;
	do {
		if (r == 0 && !joins)
			r = flush(b);
		if (r == 0 && !joins)
			r = start(b, fetch);
		if (r == 0)
			r = add_piece(b, fetch, piece);
		piece = piece ? piece->next : NULL;
	} while (r == 0 && piece);
	return r;
}

/* The fetches of one source, in their order; the first of the list is one. */
static int commit_source(struct queue *q, struct fetch *fetches, struct source *source, struct err *err)
{
	struct build b = { .q = q, .source = source, .err = err };
	int r = queue_make_source(q, source, err);

	b.then = queue_touch(source);
	chunk_writer_init(&b.writer);
	for (struct fetch *fetch = fetches; r == 0 && fetch; fetch = fetch->next) {
		if (strcmp(fetch->source, source->name) == 0)
			r = add_fetch(&b, fetch);
	}
	if (r == 0)
		r = flush(&b);
	chunk_writer_done(&b.writer);
	return r;
}

static bool any_unsynced(const struct fetch *fetch)
{
	while (fetch && fetch->clock != CHUNK_UNSYNCED)
		fetch = fetch->next;
	return fetch != NULL;
}

static int commit_all(struct queue *q, struct fetch *fetches, bool corrected, struct err *err)
{
	struct source *source;
	int r = corrected ? queue_put_clock(q, err) : 0;

	for (struct fetch *fetch = fetches; r == 0 && fetch; fetch = fetch->next) {
		r = queue_add_source(q, fetch->source, &source, err);
		if (r == 0 && !source->touched)
			r = commit_source(q, fetch, source, err);
	}
	return r == 0 ? queue_check_room(q, err) : r;
}

int queue_commit(struct queue *q, struct fetch *fetches, struct err *err)
{
	/* They came when nobody knew, and the correction is in no file that a power cut would leave behind. */
	bool corrected = q->clock.known && !q->clock.written && any_unsynced(fetches);
	int r = queue_begin(q, err);

	if (r < 0)
		return r;
	r = queue_end(q, commit_all(q, fetches, corrected, err), err);
	queue_settle(q, r == 0);
	q->clock.written |= r == 0 && corrected;
	for (struct fetch *fetch = fetches; r < 0 && fetch; fetch = fetch->next)
		fetch->number = fetch->first_seq = 0;
	return r;
}
