/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fetches to chunks, all of a list in one transaction. Small fetches of one source share a chunk, because a commit's
 * price is its pages; a large one becomes several chunks. A commit writes chunk rows only, and a source's row the first
 * time that the source is seen.
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
	struct bytes plain, stored;
	struct chunk_row row; /* id 0: nothing is in it */
	uint8_t clock;        /* of all its fetches */
	struct err *err;
};

static int flush(struct build *b)
{
	struct mark *then = b->then;
	struct chunk_row *row = &b->row;
	int r;

	if (row->id == 0)
		return 0;
	r = chunk_deflate(&b->plain, &b->stored);
	if (r < 0)
		return err_fail(b->err, r, "source \"%s\": a chunk of %zu bytes: %s", b->source->name, b->plain.len,
		                strerror(-r));
	row->plain = b->plain.len;
	row->data = b->stored.data;
	row->data_len = b->stored.len;
	row->state = then->state;
	row->state_len = then->state_len;
	r = queue_put_chunk(b->q, row, b->err);
	if (r < 0)
		return r;
	if (then->records == 0 && row->records > 0)
		then->head = queue_head(b->q, row);
	then->records += row->records;
	then->lines += row->lines;
	row->id = 0;
	return 0;
}

static int start(struct build *b, const struct fetch *fetch)
{
	struct chunk_row *row = &b->row;

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
	return chunk_begin(&b->plain) < 0 ? err_fail(b->err, -ENOMEM, "source \"%s\": no memory", row->source) : 0;
}

/* Bytes of a piece's records as object lines. */
static uint64_t piece_lines(const struct build *b, const struct fetch *fetch, const struct fetch_piece *piece)
{
	struct envelope e = {
		.source = b->source->name,
		.device = b->q->device,
		.boot = b->q->boot,
		.seq = b->then->seq,
		.fetch = fetch->number,
		.wall_ms = fetch->wall_ms,
		.clock = chunk_clock_names[fetch->clock],
	};
	uint64_t lines = piece->records.len - 4 * (uint64_t)piece->n; /* 4: chunk.h's length before each record */

	for (uint32_t i = 0; i < piece->n; i++, e.seq++)
		lines += object_line_len(&e, 0);
	return lines;
}

/* A fetch of at most one piece may join what is there, if the chunk stays one that sealing can put anywhere. */
static bool fits(const struct build *b, const struct fetch *fetch)
{
	const struct route *route = &b->source->route;
	const struct fetch_piece *piece = fetch->first;
	uint64_t full = route->max_bytes < CHUNK_FULL ? (uint64_t)route->max_bytes : CHUNK_FULL;

	if (b->row.id == 0 || (piece && piece->next))
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
	int r = chunk_add_span(&b->plain, &span, piece ? &piece->records : NULL);

	if (r < 0)
		return err_fail(b->err, r, "source \"%s\": %s", b->source->name, strerror(-r));
	b->row.lines += lines;
	b->row.records += span.records;
	b->row.fetch = fetch->number;
	b->row.last = last;
	b->then->seq += span.records;
	return 0;
}

static int add_fetch(struct build *b, struct fetch *fetch)
{
	const struct fetch_piece *piece = fetch->first;
	bool joins;
	int r = 0;

	assert(fetch->state_len <= SINK_STATE_MAX && fetch->clock <= CHUNK_UNSYNCED);
	if (fetch->records > (uint64_t)SEQ_MAX - b->then->seq)
		return err_fail(b->err, -EOVERFLOW, "source \"%s\": its numbers are used up", b->source->name);
	fetch->number = ++b->then->fetch;
	fetch->first_seq = b->then->seq;
	joins = fits(b, fetch);
	if (!joins)
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
	bytes_init(&b.plain, 2 * CHUNK_CEILING);
	bytes_init(&b.stored, 4 * (size_t)CHUNK_CEILING);
	for (struct fetch *fetch = fetches; r == 0 && fetch; fetch = fetch->next) {
		if (strcmp(fetch->source, source->name) == 0)
			r = add_fetch(&b, fetch);
	}
	if (r == 0)
		r = flush(&b);
	bytes_done(&b.plain);
	bytes_done(&b.stored);
	return r;
}

static int commit_all(struct queue *q, struct fetch *fetches, struct err *err)
{
	struct source *source;
	int r = 0;

	for (struct fetch *fetch = fetches; r == 0 && fetch; fetch = fetch->next) {
		r = queue_add_source(q, fetch->source, &source, err);
		if (r == 0 && !source->touched)
			r = commit_source(q, fetch, source, err);
	}
	return r;
}

int queue_commit(struct queue *q, struct fetch *fetches, struct err *err)
{
	int r = queue_begin(q, err);

	if (r < 0)
		return r;
	r = queue_end(q, commit_all(q, fetches, err), err);
	queue_settle(q, r == 0);
	for (struct fetch *fetch = fetches; r < 0 && fetch; fetch = fetch->next)
		fetch->number = fetch->first_seq = 0;
	return r;
}
