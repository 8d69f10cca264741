/* SPDX-License-Identifier: Apache-2.0 */
/* What people ask for: the last records of a source, and the batches. */
#include <errno.h>
#include <string.h>

#include "buffer/pack.h"
#include "buffer/queue_private.h"

int queue_chunk_each(struct queue *q, const struct chunk_row *row, struct bytes *plain,
                     int (*on_record)(void *arg, const struct envelope *envelope, const void *data, size_t len),
                     void *arg, struct err *err)
{
	struct envelope e = { .source = row->source, .device = row->device, .boot = row->boot };
	uint64_t end = (uint64_t)(row->id & SEQ_MAX) + row->records;
	struct chunk_reader reader;
	struct span span;
	const void *data;
	size_t len;
	int r = chunk_inflate(row->data, row->data_len, row->plain, plain);

	e.seq = end - row->records;
	if (r == 0)
		r = chunk_reader_init(&reader, plain);
	while (r == 0 && (r = chunk_next_span(&reader, &span)) > 0) {
		e.fetch = span.fetch;
		e.wall_ms = span.wall_ms;
		e.clock = chunk_clock_names[span.clock];
		for (r = 0; r == 0 && span.records > 0; span.records--, e.seq++) {
			r = chunk_next_record(&reader, &data, &len);
			if (r < 0 || e.seq == end)
				return queue_damaged(q, err, "chunk", row->id, "its records are not as many as told");
			r = on_record(arg, &e, data, len);
			if (r < 0)
				return r;
		}
	}
	if (r < 0 && r != -EBADMSG)
		return err_fail(err, r, "chunk: %s", strerror(-r));
	if (r < 0 || e.seq != end)
		return queue_damaged(q, err, "chunk", row->id, "its inside is not what was written");
	return 0;
}

/* --- Tail --- */

struct tail {
	struct queue *q;
	struct bytes *out;
	size_t base;       /* what stood in out before */
	size_t line;       /* where the line at hand begins in out */
	uint64_t seq;      /* of the line at hand */
	uint64_t from;     /* the first wanted */
	bool skip;         /* the line at hand is too long for out */
	struct bytes part; /* scratch: a part's bytes, a chunk's plain text, */
	struct bytes text; /* and a line */
	struct err *err;
};

/* Drops the oldest lines, a sixteenth of all at least, so that dropping stays cheap. */
static void make_room(struct tail *t, size_t len)
{
	struct bytes *out = t->out;
	size_t want = out->ceiling / 16, cut;
	const unsigned char *end;

	if (len <= out->ceiling - out->len)
		return;
	if (want < len - (out->ceiling - out->len))
		want = len - (out->ceiling - out->len);
	cut = t->line - t->base;
	if (want < cut) {
		end = memchr(out->data + t->base + want - 1, '\n', cut - want + 1);
		cut = (size_t)(end - (out->data + t->base)) + 1;
	}
	if (cut == 0)
		return;
	memmove(out->data + t->base, out->data + t->base + cut, out->len - t->base - cut);
	out->len -= cut;
	t->line -= cut;
}

/* A part of the line at hand. */
static int tail_add(struct tail *t, const void *data, size_t len)
{
	int r;

	if (t->skip || t->seq < t->from || len == 0)
		return 0;
	make_room(t, len);
	r = bytes_add(t->out, data, len);
	if (r != -ENOBUFS)
		return r;
	t->skip = true;
	t->out->len = t->line = t->base;
	return 0;
}

static void tail_end_line(struct tail *t)
{
	t->line = t->out->len;
	t->skip = false;
	t->seq++;
}

static int on_piece(void *arg, const void *data, size_t len)
{
	struct tail *t = arg;
	const char *at = data, *end = at + len, *feed;
	int r = 0;

	while (r == 0 && at < end) {
		feed = memchr(at, '\n', (size_t)(end - at));
		r = tail_add(t, at, (size_t)((feed ? feed + 1 : end) - at));
		if (feed)
			tail_end_line(t);
		at = feed ? feed + 1 : end;
	}
	return r;
}

static int unpack_batch(struct tail *t, const struct batch *batch)
{
	struct unpack unpack;
	int r = unpack_init(&unpack, on_piece, t);

	if (r < 0)
		return err_fail(t->err, r, "batch: %s", strerror(-r));
	for (int n = 0; r == 0; n++) {
		bytes_clear(&t->part);
		r = queue_read_part(t->q, batch->id, n, &t->part, t->err);
		if (r < 0)
			break;
		r = unpack_write(&unpack, t->part.data, t->part.len);
		if (r < 0)
			err_fail(t->err, r, "batch: %s", strerror(-r));
	}
	unpack_done(&unpack);
	if (r == -ENOENT && t->seq != batch->last_seq + 1)
		return queue_damaged(t->q, t->err, "batch", batch->id, "its parts are not all there");
	return r == -ENOENT ? 0 : r;
}

static int tail_batches(struct tail *t, const char *source)
{
	const struct cell cells[] = { cell_text(source), cell_number((int64_t)t->from) };
	struct batch_row row = { .oldest_ms = 0 };
	int r = queue_query(t->q, SQL_BATCHES_OF, CELLS(cells), t->err);

	while (r == 0 && (r = queue_step(t->q, SQL_BATCHES_OF, t->err)) > 0) {
		r = queue_read_batch(t->q, SQL_BATCHES_OF, &row, t->err);
		t->seq = row.batch.first_seq;
		if (r == 0)
			r = unpack_batch(t, &row.batch);
	}
	queue_reset(t->q, SQL_BATCHES_OF);
	return r;
}

static int on_record(void *arg, const struct envelope *envelope, const void *data, size_t len)
{
	struct tail *t = arg;
	int r;

	t->seq = envelope->seq;
	if (t->seq < t->from)
		return 0;
	bytes_clear(&t->text);
	r = object_line(&t->text, envelope, data, len);
	if (r == 0)
		r = tail_add(t, t->text.data, t->text.len);
	if (r == 0)
		tail_end_line(t);
	return r < 0 ? err_fail(t->err, r, "%s", strerror(-r)) : 0;
}

static int tail_chunks(struct tail *t, const struct source *source)
{
	const struct cell range[] = {
		cell_number(source->now.id << SEQ_BITS),
		cell_number(source->now.id << SEQ_BITS | SEQ_MAX),
	};
	struct chunk_row row;
	int r = queue_query(t->q, SQL_CHUNKS, CELLS(range), t->err);

	while (r == 0 && (r = queue_step(t->q, SQL_CHUNKS, t->err)) > 0) {
		r = queue_read_chunk(t->q, SQL_CHUNKS, &row, t->err);
		if (r == 0 && (uint64_t)(row.id & SEQ_MAX) + row.records > t->from)
			r = queue_chunk_each(t->q, &row, &t->part, on_record, t, t->err);
	}
	queue_reset(t->q, SQL_CHUNKS);
	return r;
}

int queue_tail(struct queue *q, const char *name, size_t n, struct bytes *ret_lines, struct err *err)
{
	const struct source *source = queue_find_source(q, name);
	struct tail t = { .q = q, .out = ret_lines, .base = ret_lines->len, .line = ret_lines->len, .err = err };
	int r;

	if (!source || !queue_is_known(source))
		return err_fail(err, -ENOENT, "there is no source \"%s\"", name);
	t.from = source->now.seq > n ? source->now.seq - n : 1;
	bytes_init(&t.part, 2 * CHUNK_CEILING);
	bytes_init(&t.text, 2 * CHUNK_CEILING);
	r = tail_batches(&t, name);
	if (r == 0)
		r = tail_chunks(&t, source);
	if (r < 0)
		ret_lines->len = t.base;
	bytes_done(&t.part);
	bytes_done(&t.text);
	return r;
}

/* --- Batches --- */

static int count_stores(struct queue *q, struct batch *batch, struct err *err)
{
	const struct source *source = queue_find_source(q, batch->source);
	uint64_t done, stores = source ? source->route.stores : 0;
	int64_t last_ms;
	int r = queue_deliveries(q, batch->id, &done, &last_ms, err);

	if (r < 0)
		return r;
	batch->stores_done = (size_t)__builtin_popcountll(done & stores);
	batch->stores_all = (size_t)__builtin_popcountll(stores);
	return 0;
}

int queue_batches(struct queue *q, struct batch *ret_batches, size_t n, struct err *err)
{
	const struct cell limit[] = { cell_number(n > INT32_MAX ? INT32_MAX : (int64_t)n) };
	struct batch_row row;
	int count = 0, r = queue_query(q, SQL_BATCHES_NEWEST, CELLS(limit), err);

	while (r == 0 && (r = queue_step(q, SQL_BATCHES_NEWEST, err)) > 0) {
		r = queue_read_batch(q, SQL_BATCHES_NEWEST, &row, err);
		if (r == 0)
			r = count_stores(q, &row.batch, err);
		if (r == 0)
			ret_batches[count++] = row.batch;
	}
	queue_reset(q, SQL_BATCHES_NEWEST);
	return r < 0 ? r : count;
}
