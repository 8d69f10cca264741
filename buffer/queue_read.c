/* SPDX-License-Identifier: Apache-2.0 */
/* What people ask for: the records of a source, and the batches. */
#include <errno.h>
#include <inttypes.h>
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
	uint8_t clock;
	size_t len;
	int r = chunk_inflate(row->data, row->data_len, row->plain, plain);

	e.seq = end - row->records;
	if (r == 0)
		r = chunk_reader_init(&reader, plain);
	while (r == 0 && (r = chunk_next_span(&reader, &span)) > 0) {
		e.fetch = span.fetch;
		e.wall_ms = row->staged ? row->wall_ms : span.wall_ms;
		clock = row->staged ? row->clock : span.clock;
		if (clock == CHUNK_UNSYNCED && row->clock == CHUNK_CORRECTED) {
			e.wall_ms = span.mono_ms + row->correction_ms;
			clock = CHUNK_CORRECTED;
		}
		e.clock = chunk_clock_names[clock];
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

/* --- Records --- */

#define ENOUGH (-ECANCELED) /* ends a walk: no error */

struct reading {
	struct queue *q;
	struct bytes *out;
	size_t base;       /* what stood in out before */
	size_t line;       /* where the line at hand begins in out */
	size_t enough;     /* bytes */
	uint64_t seq;      /* of the line at hand */
	uint64_t from;     /* the first wanted; behind it all up to it is done */
	struct bytes part; /* scratch: a part's bytes, a chunk's plain text, */
	struct bytes text; /* and a line */
	struct err *err;
};

/* A part of the line at hand. One that is too long fails only where it would be the first. */
static int add(struct reading *r, const void *data, size_t len)
{
	int status;

	if (r->seq < r->from)
		return 0;
	status = bytes_add(r->out, data, len);
	if (status == -ENOBUFS && r->line > r->base) {
		r->out->len = r->line;
		return ENOUGH;
	}
	return status < 0 ? err_fail(r->err, status, "record %" PRIu64 ": %s", r->seq, strerror(-status)) : 0;
}

static int end_line(struct reading *r)
{
	r->line = r->out->len;
	r->seq++;
	if (r->seq > r->from)
		r->from = r->seq;
	return r->out->len - r->base >= r->enough ? ENOUGH : 0;
}

static int on_piece(void *arg, const void *data, size_t len)
{
	struct reading *r = arg;
	const char *at = data, *end = at + len, *feed;
	int status = 0;

	while (status == 0 && at < end) {
		feed = memchr(at, '\n', (size_t)(end - at));
		status = add(r, at, (size_t)((feed ? feed + 1 : end) - at));
		if (status == 0 && feed)
			status = end_line(r);
		at = feed ? feed + 1 : end;
	}
	return status;
}

static int unpack_batch(struct reading *r, const struct batch *batch)
{
	struct unpack unpack;
	int status = unpack_init(&unpack, on_piece, r);

	if (status < 0)
		return err_fail(r->err, status, "batch: %s", strerror(-status));
	r->seq = batch->first_seq;
	for (int n = 0; status == 0; n++) {
		bytes_clear(&r->part);
		status = queue_read_part(r->q, batch->id, n, &r->part, r->err);
		if (status < 0)
			break;
		status = unpack_write(&unpack, r->part.data, r->part.len);
		if (status == -EBADMSG)
			queue_damaged(r->q, r->err, "batch", batch->id, "its object is not what was written");
	}
	unpack_done(&unpack);
	if (status == -ENOENT && r->seq != batch->last_seq + 1)
		return queue_lacks_parts(r->q, batch->id, r->err);
	return status == -ENOENT ? 0 : status;
}

/*
 * The batch of the source that is read next; by its seqs, because what a salvage has sealed anew has a higher id than
 * what comes behind it. 1, 0: there is none, -errno.
 */
static int find_batch(struct reading *r, const char *source, struct batch *ret_batch)
{
	const struct cell cells[] = { cell_text(source), cell_number((int64_t)r->from) };
	struct batch_row row = { .oldest_ms = 0 };
	int found = queue_query(r->q, SQL_BATCHES_OF, CELLS(cells), r->err), status = found;

	if (status == 0)
		status = found = queue_step(r->q, SQL_BATCHES_OF, r->err);
	if (status == 1)
		status = queue_read_batch(r->q, SQL_BATCHES_OF, &row, r->err);
	queue_reset(r->q, SQL_BATCHES_OF);
	*ret_batch = row.batch;
	return status < 0 ? status : found;
}

static int read_batches(struct reading *r, const char *source)
{
	struct batch batch;
	int status;

	while ((status = find_batch(r, source, &batch)) > 0) {
		status = unpack_batch(r, &batch);
		if (status < 0)
			return status;
		if (r->from <= batch.last_seq)
			r->from = batch.last_seq + 1;
	}
	return status;
}

static int on_record(void *arg, const struct envelope *envelope, const void *data, size_t len)
{
	struct reading *r = arg;
	int status;

	r->seq = envelope->seq;
	if (r->seq < r->from)
		return 0;
	bytes_clear(&r->text);
	status = object_line(&r->text, envelope, data, len);
	if (status < 0)
		return err_fail(r->err, status, "record %" PRIu64 ": %s", r->seq, strerror(-status));
	status = add(r, r->text.data, r->text.len);
	return status == 0 ? end_line(r) : status;
}

/* The chunk that holds the first record that is wanted, or the source's first one. */
static int find_chunk(struct reading *r, const struct mark *now, int64_t *ret_id)
{
	const struct cell range[] = { cell_number(queue_chunk_id(now, 0)), cell_number(queue_chunk_id(now, r->from)) };
	int status = queue_query(r->q, SQL_CHUNK_HOLDING, CELLS(range), r->err);

	if (status == 0)
		status = queue_step(r->q, SQL_CHUNK_HOLDING, r->err);
	if (status == 1)
		*ret_id = queue_number(r->q, SQL_CHUNK_HOLDING, 0);
	queue_reset(r->q, SQL_CHUNK_HOLDING);
	return status < 0 ? status : 0;
}

static int read_chunks(struct reading *r, const struct mark *now)
{
	struct chunk_row row;
	int64_t first = 0;
	int status = find_chunk(r, now, &first);
	const struct cell range[] = { cell_number(first > 0 ? first : queue_chunk_id(now, 0)),
		                      cell_number(queue_chunk_id(now, now->seq - 1)) };

	if (status == 0)
		status = queue_query(r->q, SQL_CHUNKS, CELLS(range), r->err);
	while (status == 0 && (status = queue_step(r->q, SQL_CHUNKS, r->err)) > 0) {
		status = queue_read_chunk(r->q, SQL_CHUNKS, &row, r->err);
		if (status == 0)
			status = queue_chunk_each(r->q, &row, &r->part, on_record, r, r->err);
	}
	queue_reset(r->q, SQL_CHUNKS);
	return status;
}

int queue_read(struct queue *q, const char *name, uint64_t from, size_t enough, struct bytes *ret_lines,
               uint64_t *ret_next, struct err *err)
{
	const struct source *source = queue_find_source(q, name);
	struct reading r = { .q = q, .out = ret_lines, .enough = enough, .from = from > 0 ? from : 1, .err = err };
	const struct mark *now;
	int status;

	status = queue_check(q, err);
	if (status < 0)
		return status;
	if (!source || !queue_is_known(source))
		return err_fail(err, -ENOENT, "there is no source \"%s\"", name);
	now = &source->now;
	r.base = r.line = ret_lines->len;
	bytes_init(&r.part, 2 * CHUNK_CEILING);
	bytes_init(&r.text, 2 * CHUNK_CEILING);
	if (r.from < now->seq - now->records)
		status = read_batches(&r, name);
	if (status == 0 && r.from < now->seq)
		status = read_chunks(&r, now);
	bytes_done(&r.part);
	bytes_done(&r.text);
	if (status < 0 && status != ENOUGH) {
		ret_lines->len = r.base;
		return status;
	}
	*ret_next = status == 0 && r.from < now->seq ? now->seq : r.from;
	return 0;
}

/* --- Batches --- */

static int count_stores(struct queue *q, struct batch *batch, struct err *err)
{
	const struct source *source = queue_find_source(q, batch->source);
	uint64_t done = UINT64_MAX, stores = source ? source->route.stores : 0;
	int64_t last_ms;
	int r = batch->delivered_ms > 0 ? 0 : queue_deliveries(q, batch->id, &done, &last_ms, err);

	if (r < 0)
		return r;
	batch->stores_done = (size_t)__builtin_popcountll(done & stores);
	batch->stores_all = (size_t)__builtin_popcountll(stores);
	return 0;
}

int queue_find_batch(struct queue *q, int64_t id, struct batch *ret_batch, struct err *err)
{
	struct batch_row row;
	int r = queue_get_batch(q, id, &row, err);

	if (r == 0)
		r = count_stores(q, &row.batch, err);
	if (r == 0)
		*ret_batch = row.batch;
	return r;
}

int queue_batches_waiting(struct queue *q, int64_t after, struct batch *ret_batches, size_t n, struct err *err)
{
	size_t count = 0;
	int r = queue_check(q, err);

	for (size_t i = queue_waiting_from(q, after + 1); r == 0 && i < q->n_waiting && count < n; i++) {
		const struct waiting *w = &q->waiting[i];

		if (!queue_all_done(w->source, w->done))
			r = queue_find_batch(q, w->id, &ret_batches[count++], err);
	}
	return r < 0 ? r : (int)count;
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
