/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pieces of a fetch that is not complete yet, written at the ids that they will keep: so its commit, which may be
 * hundreds of megabytes later, writes only the chunk that ends it. queue_private.h's chunk_row says what such a chunk
 * does not know yet.
 *
 * A chunk without records stands at the very id that the first staged one takes. What it said is in the staged ones,
 * and it is written again when they are deleted.
 */
#include <errno.h>
#include <string.h>

#include "base/random.h"
#include "buffer/queue_private.h"

uint64_t queue_piece_lines(const struct envelope *first, const struct fetch_piece *piece)
{
	struct envelope e = *first;
	uint64_t lines = piece->records.len - 4 * (uint64_t)piece->n; /* 4: chunk.h's length before each record */

	for (uint32_t i = 0; i < piece->n; i++, e.seq++)
		lines += object_line_len(&e, 0);
	return lines;
}

int queue_delete_staged(struct queue *q, struct source *source, struct err *err)
{
	struct mark *then = &source->then;
	const struct cell range[] = { cell_number(queue_chunk_id(then, then->seq)),
		                      cell_number(queue_chunk_id(then, SEQ_MAX)) };
	int r = queue_run(q, SQL_CHUNKS_DELETE, CELLS(range), err);

	if (r < 0)
		return r;
	then->stored -= then->staged.stored;
	then->staged = (struct staged){ .records = 0 };
	return 0;
}

int queue_stale(const char *source, struct err *err)
{
	return err_fail(err, -ESTALE, "source \"%s\": what was staged of its answer was lost with a damaged buffer",
	                source);
}

/* Puts a span (NULL: none) with the row that is filled but for what it says of all that is before it. */
static int put_chunk(struct queue *q, const struct source *source, struct chunk_row *row, const struct span *span,
                     const struct fetch_piece *piece, struct err *err)
{
	struct chunk_writer writer;
	int r;

	memcpy(row->source, source->name, sizeof row->source);
	memcpy(row->device, q->device, sizeof row->device);
	memcpy(row->boot, q->boot, sizeof row->boot);
	row->fetch = source->then.fetch;
	row->state = source->then.state;
	row->state_len = source->then.state_len;
	chunk_writer_init(&writer);
	r = chunk_writer_begin(&writer);
	if (r == 0 && span)
		r = chunk_writer_add(&writer, span, &piece->records);
	if (r == 0)
		r = chunk_writer_finish(&writer);
	if (r < 0)
		err_fail(err, r, "source \"%s\": a chunk: %s", source->name, strerror(-r));
	row->plain = writer.plain;
	row->data = writer.stored.data;
	row->data_len = writer.stored.len;
	if (r == 0)
		r = queue_put_chunk(q, row, err);
	chunk_writer_done(&writer);
	return r;
}

/* Tells what is staged from what was given up before at the same ids. */
static int64_t draw_ticket(void)
{
	uint64_t ticket;

	random_fill(&ticket, sizeof ticket);
	return (int64_t)(ticket >> 1 | 1);
}

static int put_piece(struct queue *q, struct source *source, const struct fetch_piece *piece, struct err *err)
{
	struct mark *then = &source->then;
	struct staged *staged = &then->staged;
	uint64_t seq = then->seq + staged->records;
	const struct envelope first = {
		.source = source->name,
		.device = q->device,
		.boot = q->boot,
		.seq = seq,
		.fetch = then->fetch + 1,
		.clock = chunk_clock_names[CHUNK_CORRECTED], /* the longest */
	};
	const struct span span = { .fetch = then->fetch + 1, .records = piece->n };
	struct chunk_row row = { .id = queue_chunk_id(then, seq), .records = piece->n };
	int64_t ticket = staged->records > 0 ? staged->ticket : draw_ticket();
	int r;

	if (piece->n > (uint64_t)SEQ_MAX - seq)
		return err_fail(err, -EOVERFLOW, "source \"%s\": its numbers are used up", source->name);
	row.mono_ms = ticket;
	row.lines = queue_piece_lines(&first, piece);
	r = put_chunk(q, source, &row, &span, piece, err);
	if (r < 0)
		return r;
	if (staged->records == 0)
		staged->turn = ++q->turns;
	staged->ticket = ticket;
	staged->records += row.records;
	staged->lines += row.lines;
	staged->stored += row.data_len;
	then->stored += row.data_len;
	return 0;
}

/*
 * Many large fetches at once would fill the buffer with what none of them can end, so beyond a sixteenth of max_size
 * only the one that began first goes on.
 */
static int check_turn(const struct queue *q, const struct source *source, struct err *err)
{
	const struct staged *mine = &source->then.staged;
	uint64_t max_size = (uint64_t)q->room.max_size, total = 0;
	bool first = true;

	for (size_t i = 0; i < q->n_sources; i++) {
		const struct staged *other = &q->sources[i]->now.staged;

		if (q->sources[i] == source || other->records == 0)
			continue;
		total += other->stored;
		first &= mine->records > 0 && mine->turn < other->turn;
	}
	if (max_size > 0 && mine->stored > max_size / 4)
		return err_fail(err, -EFBIG, "source \"%s\": an answer takes more than a quarter of max_size",
		                source->name);
	if (max_size > 0 && !first && total + mine->stored > max_size / 16)
		return err_fail(err, -EAGAIN, "source \"%s\": another large answer comes first", source->name);
	return 0;
}

static int stage(struct queue *q, struct source *source, const struct fetch_piece *piece, struct err *err)
{
	int r = queue_make_source(q, source, err);

	if (r == 0 && source->then.staged.given_up)
		r = queue_delete_staged(q, source, err);
	if (r == 0)
		r = check_turn(q, source, err);
	if (r == 0)
		r = put_piece(q, source, piece, err);
	return r == 0 ? queue_check_staging_room(q, err) : r;
}

int queue_stage(struct queue *q, const char *name, const struct fetch_piece *piece, struct err *err)
{
	struct source *source;
	int r = queue_add_source(q, name, &source, err);

	if (r == 0 && source->stale)
		r = queue_stale(name, err);
	if (r == 0)
		r = queue_begin(q, err);
	if (r < 0)
		return r;
	r = queue_end(q, stage(q, source, piece, err), err);
	queue_settle(q, r == 0);
	return r;
}

static int unstage(struct queue *q, struct source *source, struct err *err)
{
	const struct mark *then = queue_touch(source);
	struct chunk_row row = { .id = queue_chunk_id(then, then->seq), .last = 1 };
	int r = queue_delete_staged(q, source, err);

	return r == 0 ? put_chunk(q, source, &row, NULL, NULL, err) : r;
}

int queue_unstage(struct queue *q, const char *name, struct err *err)
{
	struct source *source = queue_find_source(q, name);
	int r;

	if (source)
		source->stale = false;
	if (!source || source->now.staged.records == 0)
		return 0;
	source->now.staged.given_up = true; /* whether or not this holds */
	r = queue_begin(q, err);
	if (r < 0)
		return r;
	r = queue_end(q, unstage(q, source, err), err);
	queue_settle(q, r == 0);
	return r;
}
