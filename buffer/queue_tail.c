/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What lies behind the end of the WAL: a transaction that was cut off before it was durable, or one that was durable
 * and is damaged. Nothing tells the two apart, so a whole fetch of it that goes on where its source ends is taken as
 * committed. If nobody was ever told so, the source brought it all the same.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "buffer/queue_private.h"

struct tail_row {
	int64_t id;
	uint64_t records, first_fetch, last_fetch;
	bool staged, last;
	int64_t mono_ms; /* of its first fetch; a staged one's ticket */
	int64_t ticket;  /* that what is staged of its first fetch has; 0: nothing is */
	char source[UNITS_NAME_MAX], boot[OBJECT_BOOT];
	struct cell cells[PAGES_CELLS_MAX];
	size_t n;
	unsigned char *data; /* of the cells */
};

/* How far a source is by what lies in the file below the WAL: further than the WAL says if that has lost its end. */
struct ahead {
	int64_t source;
	uint64_t sealed, committed; /* seqs: all before are */
	uint64_t torn;              /* the same of `sealed`, behind the end of the WAL */
};

struct tail {
	struct tail_row *rows;
	size_t n;
	uint64_t bytes;
	struct ahead *ahead;
	size_t n_ahead;
};

/* --- Keeping it --- */

static int copy_cells(struct tail_row *row, const struct pages_row *from, uint64_t *ret_bytes)
{
	size_t len = 0;

	for (size_t i = 0; i < from->n; i++)
		len += from->cells[i].len;
	row->data = malloc(len + 1);
	if (!row->data)
		return -ENOMEM;
	*ret_bytes += len;
	len = 0;
	for (size_t i = 0; i < from->n; i++) {
		row->cells[i] = from->cells[i];
		if (from->cells[i].len > 0)
			memcpy(row->data + len, from->cells[i].data, from->cells[i].len);
		row->cells[i].data = row->data + len;
		len += from->cells[i].len;
	}
	row->n = from->n;
	return 0;
}

/* It must be sound to its inside; the number of its first fetch stands there, and whether that was staged. */
static bool look_inside(struct tail_row *row)
{
	const struct cell *data = &row->cells[13];
	struct chunk_reader reader;
	struct span span = { .fetch = 0 };
	struct bytes plain;
	int r;

	bytes_init(&plain, CHUNK_PLAIN_MAX);
	r = chunk_inflate(data->data, data->len, (size_t)row->cells[12].number, &plain);
	if (r == 0)
		r = chunk_reader_init(&reader, &plain);
	if (r == 0)
		r = chunk_next_span(&reader, &span);
	bytes_done(&plain);
	if (r != 1)
		return false;
	row->first_fetch = span.fetch;
	row->ticket = span.records == 0 && span.wall_ms == 0 ? span.mono_ms : 0;
	if (row->staged)
		row->last_fetch = span.fetch;
	return true;
}

static int on_row(void *arg, const struct pages_row *from)
{
	struct tail *tail = arg;
	const struct cell *name = &from->cells[1], *boot = &from->cells[3];
	struct tail_row row = {
		.id = from->cells[0].number,
		.records = (uint64_t)from->cells[4].number,
		.last_fetch = (uint64_t)from->cells[10].number,
		.staged = from->cells[7].number == 0 && from->cells[8].number == 0,
		.last = from->cells[7].number > 0,
		.mono_ms = from->cells[9].number,
	}, *grown;

	if (row.records == 0 || row.records > (uint64_t)SEQ_MAX || name->len == 0 || name->len >= sizeof row.source ||
	    boot->len >= sizeof row.boot || from->cells[12].number < 0 ||
	    from->cells[12].number > (int64_t)CHUNK_PLAIN_MAX || tail->bytes > CHUNK_PLAIN_MAX)
		return 0;
	memcpy(row.source, name->data, name->len);
	memcpy(row.boot, boot->data, boot->len);
	if (copy_cells(&row, from, &tail->bytes) < 0)
		return -ENOMEM;
	grown = look_inside(&row) ? realloc(tail->rows, (tail->n + 1) * sizeof row) : NULL;
	if (!grown) {
		free(row.data);
		return 0;
	}
	tail->rows = grown;
	tail->rows[tail->n++] = row;
	return 0;
}

static struct ahead *find_ahead(struct tail *tail, int64_t source)
{
	struct ahead *grown;

	for (size_t i = 0; i < tail->n_ahead; i++) {
		if (tail->ahead[i].source == source)
			return &tail->ahead[i];
	}
	grown = tail->n_ahead < SOURCES_MAX ? realloc(tail->ahead, (tail->n_ahead + 1) * sizeof *grown) : NULL;
	if (!grown)
		return NULL;
	tail->ahead = grown;
	tail->ahead[tail->n_ahead] = (struct ahead){ .source = source };
	return &tail->ahead[tail->n_ahead++];
}

/* What is staged may have been given up since, and what has no records says nothing. */
static int on_row_under(void *arg, const struct pages_row *row)
{
	int64_t id = row->cells[0].number;
	bool chunk = row->table == PAGES_CHUNK;
	uint64_t seq = (uint64_t)(chunk ? (id & SEQ_MAX) + row->cells[4].number : row->cells[2].number);
	struct ahead *ahead;

	if (chunk && (row->cells[4].number <= 0 || (row->cells[7].number == 0 && row->cells[8].number == 0)))
		return 0;
	ahead = find_ahead(arg, chunk ? id >> SEQ_BITS : id);
	if (!ahead)
		return -ENOMEM;
	if (chunk && ahead->committed < seq)
		ahead->committed = seq;
	if (!chunk && ahead->sealed < seq)
		ahead->sealed = seq;
	return 0;
}

static int on_source(void *arg, const struct pages_row *row)
{
	struct ahead *ahead = find_ahead(arg, row->cells[0].number);

	if (!ahead)
		return -ENOMEM;
	if (row->cells[2].number > 0 && ahead->torn < (uint64_t)row->cells[2].number)
		ahead->torn = (uint64_t)row->cells[2].number;
	return 0;
}

int queue_note_tail(struct queue *q, struct pages *pages, struct err *err)
{
	int r;

	queue_drop_tail(q);
	q->tail = calloc(1, sizeof *q->tail);
	r = q->tail ? pages_each(pages, PAGES_TAIL, 1U << PAGES_CHUNK, CHUNK_PLAIN_MAX, on_row, q->tail) : -ENOMEM;
	if (r == 0)
		r = pages_each(pages, PAGES_UNDER, 1U << PAGES_CHUNK | 1U << PAGES_SOURCE, CHUNK_PLAIN_MAX,
		               on_row_under, q->tail);
	if (r == 0)
		r = pages_each(pages, PAGES_TAIL, 1U << PAGES_SOURCE, CHUNK_PLAIN_MAX, on_source, q->tail);
	return r < 0 ? err_fail(err, r, "buffer: no memory") : 0;
}

void queue_drop_tail(struct queue *q)
{
	for (size_t i = 0; q->tail && i < q->tail->n; i++)
		free(q->tail->rows[i].data);
	if (q->tail) {
		free(q->tail->rows);
		free(q->tail->ahead);
	}
	free(q->tail);
	q->tail = NULL;
}

/* --- What the WAL has lost --- */

/* Of the sources as their rows say it, or with their chunks. */
int queue_check_ahead(struct queue *q, bool with_chunks, struct err *err)
{
	for (size_t i = 0; i < q->n_sources && q->tail; i++) {
		const struct mark *now = &q->sources[i]->now;

		for (size_t j = 0; j < q->tail->n_ahead; j++) {
			const struct ahead *ahead = &q->tail->ahead[j];

			if (ahead->source == now->id && now->seq < (with_chunks ? ahead->committed : ahead->sealed))
				return queue_damaged(q, err, "source", now->id, "the write-ahead log has lost its end");
		}
	}
	return 0;
}

/* --- Adopting it --- */

/*
 * Rows of an earlier power cut's tail may stand behind this one's, with the ids that would follow: a fetch is made of
 * what came with it.
 */
static bool goes_on(const struct tail_row *p, const struct tail_row *c)
{
	if (p->last)
		return c->first_fetch > p->last_fetch;
	if (c->first_fetch != p->last_fetch || strcmp(c->boot, p->boot) != 0)
		return false;
	return p->mono_ms == (p->staged && !c->staged ? c->ticket : c->mono_ms);
}

/* Where it begins: the first of its fetch, or what ends the one that is staged. Those between brought no records. */
static bool begins(const struct source *source, const struct tail_row *c)
{
	bool behind_staged = (uint64_t)(c->id & SEQ_MAX) != source->now.seq;

	return c->first_fetch > source->now.fetch && (c->staged || (c->ticket != 0) == behind_staged);
}

/*
 * The one with that id that goes on with the one before (NULL: it is the first). What comes first in the WAL was
 * written last.
 */
static const struct tail_row *find_row(const struct tail *tail, const struct source *source, int64_t id,
                                       const struct tail_row *before)
{
	for (size_t i = 0; i < tail->n; i++) {
		const struct tail_row *row = &tail->rows[i];

		if (row->id == id && strcmp(row->source, source->name) == 0 &&
		    (before ? goes_on(before, row) : begins(source, row)))
			return row;
	}
	return NULL;
}

/* The id behind the last whole fetch of those that follow one another from `id` on; `id`: there is none. */
static int64_t find_end(const struct tail *tail, const struct source *source, int64_t id)
{
	const struct tail_row *row = NULL;
	int64_t end = id;

	while ((row = find_row(tail, source, id, row))) {
		id += (int64_t)row->records;
		if (row->last)
			end = id;
	}
	return end;
}

static int put_rows(struct queue *q, const struct source *source, int64_t id, int64_t end, struct err *err)
{
	const struct tail_row *row = NULL;
	int r = 0;

	while (r == 0 && id < end) {
		row = find_row(q->tail, source, id, row);
		r = queue_put(q, SQL_CHUNK_PUT, row->cells, row->n, err);
		id += (int64_t)row->records;
	}
	return r;
}

/* Where what may be adopted of the source begins, and ends: it may end what is staged, or take its place. */
static int64_t find_chain(const struct tail *tail, const struct source *source, int64_t *ret_first)
{
	const struct mark *now = &source->now;
	int64_t first = queue_chunk_id(now, now->seq), behind = first + (int64_t)now->staged.records;
	int64_t end = find_end(tail, source, behind);

	if (end == behind && behind != first)
		end = find_end(tail, source, behind = first);
	*ret_first = behind;
	return end;
}

/* 1: something of the source was taken. */
static int adopt(struct queue *q, struct source *source, struct err *err)
{
	const struct mark *now = &source->now;
	int64_t first, end = find_chain(q->tail, source, &first);
	const struct cell behind[] = { cell_number(first), cell_number(queue_chunk_id(now, SEQ_MAX)) };
	int r;

	if (end == first)
		return 0;
	r = queue_run(q, SQL_CHUNKS_DELETE, CELLS(behind), err);
	if (r == 0)
		r = put_rows(q, source, first, end, err);
	return r < 0 ? r : 1;
}

/* A sealing in it must be of what is there, or comes with it; else more is gone than one transaction. */
static int check_sealed(struct queue *q, struct err *err)
{
	for (size_t i = 0; i < q->n_sources; i++) {
		const struct source *source = q->sources[i];
		int64_t first, end;

		if (source->now.id == 0)
			continue;
		end = find_chain(q->tail, source, &first);
		for (size_t j = 0; j < q->tail->n_ahead; j++) {
			const struct ahead *ahead = &q->tail->ahead[j];

			if (ahead->source == source->now.id && ahead->torn > (uint64_t)(end & SEQ_MAX) &&
			    ahead->torn > source->now.seq)
				return queue_damaged(q, err, "source", source->now.id,
				                     "what was sealed last is not there");
		}
	}
	return 0;
}

/* A source whose first fetch it would be, with the id that it has in the row, or not at all. */
static int make_source(struct queue *q, const struct tail_row *row, struct err *err)
{
	struct source *source;
	int r;

	if ((row->id & SEQ_MAX) != 1 || row->first_fetch != 1)
		return 0;
	r = queue_add_source(q, row->source, &source, err);
	if (r < 0 || source->now.id != 0 || queue_next_source_id(q) != row->id >> SEQ_BITS)
		return r;
	r = queue_make_source(q, source, err);
	if (r == 0)
		source->now = source->then;
	return r;
}

static int adopt_all(struct queue *q, struct err *err)
{
	int r = 0, any = 0;

	for (size_t i = 0; r >= 0 && i < q->tail->n; i++)
		r = make_source(q, &q->tail->rows[i], err);
	for (size_t i = 0; r >= 0 && i < q->n_sources; i++) {
		if (q->sources[i]->now.id == 0)
			continue;
		r = adopt(q, q->sources[i], err);
		any |= r == 1;
	}
	return r < 0 ? r : any;
}

int queue_adopt_tail(struct queue *q, struct err *err)
{
	int any, r;

	if (!q->tail)
		return 0;
	r = check_sealed(q, err);
	if (r < 0 || q->tail->n == 0)
		return r;
	r = queue_begin(q, err);
	if (r < 0)
		return r;
	any = adopt_all(q, err);
	r = queue_end(q, any < 0 ? any : 0, err);
	queue_settle(q, false);
	return r < 0 ? r : any;
}
