/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chunks to a batch, in one transaction, chunk by chunk: inflated, put into lines, compressed, and written as parts as
 * they come, so that memory does not grow with the batch. The source's row moves on and the chunks go in the same
 * transaction. A chunk without records stays: it is its source's newest state and costs nothing.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "buffer/pack.h"
#include "buffer/queue_private.h"

#define REST_MS (60 * 1000)
#define DAY_MS  (24 * 60 * 60 * 1000)
#define LINES   (32 * 1024) /* gathered before they are compressed */

/* --- What is due --- */

/* In how many milliseconds the source's first records are due; 0: now. It has unsealed records. */
static int64_t due_in_ms(const struct source *source, int64_t wall_ms, int64_t mono_ms)
{
	const struct mark *now = &source->now;
	const struct route *route = &source->route;
	int64_t today = units_day(wall_ms), age_ms = mono_ms - now->head.mono_ms, left_ms;

	if (now->lines >= (uint64_t)route->max_bytes || now->records >= (uint64_t)route->max_records)
		return 0;
	if (!now->head.current || now->head.day < today || age_ms >= route->max_age_ms)
		return 0;
	left_ms = route->max_age_ms - age_ms;
	/* A wall clock that was set back past a midnight has that midnight once more ahead of it. */
	if ((today + 1) * DAY_MS - wall_ms < left_ms)
		left_ms = (today + 1) * DAY_MS - wall_ms;
	return left_ms;
}

int64_t queue_seal_due_ms(const struct queue *q, int64_t wall_ms, int64_t mono_ms)
{
	int64_t soonest = INT64_MAX;

	for (size_t i = 0; i < q->n_sources; i++) {
		const struct source *source = q->sources[i];
		int64_t due;

		if (source->now.records == 0)
			continue;
		due = due_in_ms(source, wall_ms, mono_ms);
		if (due < source->rest_until_ms - mono_ms)
			due = source->rest_until_ms - mono_ms;
		if (due < soonest)
			soonest = due;
	}
	return soonest;
}

/* --- Which chunks --- */

struct plan {
	int64_t end;      /* the last chunk that fits */
	int64_t boundary; /* the last one that fits and ends a fetch; 0: none */
	uint64_t lines, records;
	int64_t day;
	char device[UNITS_NAME_MAX], boot[OBJECT_BOOT];
};

/* The same day, device and boot as the chunks before it; the first chunk says which these are. */
static int same_group(struct queue *q, struct plan *plan, struct err *err)
{
	char device[UNITS_NAME_MAX], boot[OBJECT_BOOT];
	int64_t day = queue_number(q, SQL_CHUNK_PLAN, 4);
	int r = queue_text(q, SQL_CHUNK_PLAN, 1, device, sizeof device, err);

	if (r == 0)
		r = queue_text(q, SQL_CHUNK_PLAN, 2, boot, sizeof boot, err);
	if (r < 0)
		return r;
	if (plan->end == 0) {
		plan->day = day;
		memcpy(plan->device, device, sizeof device);
		memcpy(plan->boot, boot, sizeof boot);
	}
	return plan->day == day && strcmp(plan->device, device) == 0 && strcmp(plan->boot, boot) == 0;
}

/* 1: the chunk at hand was taken and more may be, 0: the plan is complete. */
static int plan_chunk(struct queue *q, const struct route *route, struct plan *plan, struct err *err)
{
	uint64_t records = plan->records + (uint64_t)queue_number(q, SQL_CHUNK_PLAN, 3);
	uint64_t lines = plan->lines + (uint64_t)queue_number(q, SQL_CHUNK_PLAN, 5);
	bool too_many = records > (uint64_t)route->max_records;
	int r = same_group(q, plan, err);

	if (r <= 0)
		return r;
	if (plan->end != 0 && lines > (uint64_t)route->max_bytes)
		return 0;
	/* Only max_bytes may part a fetch: one that has too many records by itself is taken whole. */
	if (too_many && plan->boundary != 0)
		return 0;
	plan->records = records;
	plan->lines = lines;
	plan->end = queue_number(q, SQL_CHUNK_PLAN, 0);
	if (queue_number(q, SQL_CHUNK_PLAN, 6) != 0)
		plan->boundary = plan->end;
	return !too_many || plan->boundary == 0;
}

static int make_plan(struct queue *q, const struct source *source, struct plan *plan, struct err *err)
{
	const struct cell range[] = {
		cell_number(source->now.id << SEQ_BITS),
		cell_number(source->now.id << SEQ_BITS | SEQ_MAX),
	};
	int r = queue_query(q, SQL_CHUNK_PLAN, CELLS(range), err);

	if (r == 0) {
		while ((r = queue_step(q, SQL_CHUNK_PLAN, err)) > 0) {
			r = plan_chunk(q, &source->route, plan, err);
			if (r <= 0)
				break;
		}
	}
	queue_reset(q, SQL_CHUNK_PLAN);
	if (r == 0 && plan->end == 0)
		r = queue_damaged(q, err, "source", source->now.id, "its chunks are gone");
	return r;
}

/* --- The batch --- */

struct seal {
	struct queue *q;
	struct source *source;
	struct mark sealed; /* the source as of the last chunk taken: its row */
	struct batch_row row;
	struct pack pack;
	struct bytes plain, lines;
	char device[UNITS_NAME_MAX], boot[OBJECT_BOOT];
	int64_t parts;
	int64_t first_chunk;
	struct err *err;
};

static int on_part(void *arg, const void *data, size_t len)
{
	struct seal *s = arg;
	const struct cell row[] = { cell_number(s->row.batch.id << PART_BITS | s->parts), cell_blob(data, len) };

	if (s->parts++ == PART_MAX)
		return err_fail(s->err, -EFBIG, "a batch of more than %d parts", PART_MAX);
	return queue_put(s->q, SQL_PART_PUT, CELLS(row), s->err);
}

static int write_lines(struct seal *s)
{
	int r = pack_write(&s->pack, s->lines.data, s->lines.len);

	s->row.batch.raw_bytes += s->lines.len;
	bytes_clear(&s->lines);
	return r;
}

static int on_record(void *arg, const struct envelope *envelope, const void *data, size_t len)
{
	struct seal *s = arg;
	int r = object_line(&s->lines, envelope, data, len);

	if (r < 0)
		return err_fail(s->err, r, "a record of %zu bytes: %s", len, strerror(-r));
	return s->lines.len >= LINES ? write_lines(s) : 0;
}

static int seal_chunk(struct seal *s)
{
	struct chunk_row row;
	struct batch *batch = &s->row.batch;
	uint64_t raw_before = batch->raw_bytes;
	int r = queue_read_chunk(s->q, SQL_CHUNKS, &row, s->err);

	if (r < 0)
		return r;
	if (batch->first_seq == 0) {
		s->first_chunk = row.id;
		s->row.oldest_ms = row.wall_ms;
		batch->first_seq = (uint64_t)(row.id & SEQ_MAX);
		memcpy(s->device, row.device, sizeof s->device);
		memcpy(s->boot, row.boot, sizeof s->boot);
	}
	r = queue_chunk_each(s->q, &row, &s->plain, on_record, s, s->err);
	if (r == 0)
		r = write_lines(s);
	if (r < 0)
		return r;
	if (batch->raw_bytes - raw_before != row.lines)
		return queue_damaged(s->q, s->err, "chunk", row.id, "its lines have another length");
	batch->records += row.records;
	batch->last_seq = batch->first_seq + batch->records - 1;
	s->sealed.seq = batch->last_seq + 1;
	s->sealed.fetch = row.fetch;
	s->sealed.state_len = row.state_len;
	if (row.state_len > 0)
		memcpy(s->sealed.state, row.state, row.state_len);
	return 0;
}

static int seal_chunks(struct seal *s, int64_t end)
{
	const struct cell range[] = { cell_number(s->sealed.id << SEQ_BITS), cell_number(end) };
	int r = queue_query(s->q, SQL_CHUNKS, CELLS(range), s->err);

	while (r == 0 && (r = queue_step(s->q, SQL_CHUNKS, s->err)) > 0)
		r = seal_chunk(s);
	queue_reset(s->q, SQL_CHUNKS);
	return r;
}

static int write_batch(struct seal *s, int64_t end)
{
	struct batch *batch = &s->row.batch;
	struct envelope first = {
		.source = s->source->name,
		.device = s->device,
		.boot = s->boot,
		.seq = batch->first_seq,
		.wall_ms = s->row.oldest_ms,
	};
	const struct cell chunks[] = { cell_number(s->first_chunk), cell_number(end) };
	int r = pack_finish(&s->pack, batch->sha256);

	if (r < 0)
		return r;
	batch->bytes = s->pack.bytes;
	object_key(batch->key, &first, batch->last_seq, batch->sha256);
	r = queue_put_batch(s->q, &s->row, s->err);
	if (r == 0)
		r = queue_put_source(s->q, s->source->name, &s->sealed, s->err);
	if (r == 0)
		r = queue_run(s->q, SQL_CHUNKS_DELETE, CELLS(chunks), s->err);
	return r;
}

/* What comes first now. */
static int read_head(struct seal *s, struct mark *then)
{
	const struct cell range[] = { cell_number(then->id << SEQ_BITS), cell_number(then->id << SEQ_BITS | SEQ_MAX) };
	struct chunk_row row;
	int r;

	if (then->records == 0)
		return 0;
	r = queue_query(s->q, SQL_CHUNKS, CELLS(range), s->err);
	if (r == 0)
		r = queue_step(s->q, SQL_CHUNKS, s->err);
	if (r == 1)
		r = queue_read_chunk(s->q, SQL_CHUNKS, &row, s->err);
	else if (r == 0)
		r = queue_damaged(s->q, s->err, "source", then->id, "its chunks are gone");
	if (r == 0)
		then->head = queue_head(s->q, &row);
	queue_reset(s->q, SQL_CHUNKS);
	return r;
}

static int seal_all(struct seal *s)
{
	struct plan plan = { .end = 0 };
	struct mark *then = queue_touch(s->source);
	int64_t end;
	int r = make_plan(s->q, s->source, &plan, s->err);

	if (r < 0)
		return r;
	end = plan.boundary != 0 ? plan.boundary : plan.end;
	s->sealed = s->source->now;
	r = seal_chunks(s, end);
	if (r == 0)
		r = write_batch(s, end);
	if (r < 0)
		return r;
	then->records -= s->row.batch.records;
	then->lines -= s->row.batch.raw_bytes;
	return read_head(s, then);
}

static int seal_source(struct queue *q, struct source *source, int64_t wall_ms, struct batch *ret_batch,
                       struct err *err)
{
	struct seal s = { .q = q, .source = source, .err = err };
	int r = queue_grow_waiting(q, err);

	if (r == 0)
		r = pack_init(&s.pack, on_part, &s);
	if (r < 0)
		return err_fail(err, r, "%s", r == -ENOMEM ? "no memory" : "too many batches wait already");
	s.row.batch.id = q->last_batch + 1;
	s.row.batch.sealed_ms = wall_ms;
	memcpy(s.row.batch.source, source->name, sizeof source->name);
	bytes_init(&s.plain, 2 * CHUNK_CEILING);
	bytes_init(&s.lines, 2 * CHUNK_CEILING);
	r = queue_begin(q, err);
	if (r == 0)
		r = queue_end(q, seal_all(&s), err);
	queue_settle(q, r == 0);
	/* The pages of a whole batch went through the cache and are not needed again soon. */
	sqlite3_db_release_memory(q->db);
	pack_done(&s.pack);
	bytes_done(&s.plain);
	bytes_done(&s.lines);
	if (r < 0)
		return r;
	q->last_batch = s.row.batch.id;
	q->batches++;
	queue_add_waiting(q, source, &s.row);
	s.row.batch.stores_all = (size_t)__builtin_popcountll(source->route.stores);
	*ret_batch = s.row.batch;
	return 1;
}

int queue_seal(struct queue *q, int64_t wall_ms, int64_t mono_ms, bool all, struct batch *ret_batch, struct err *err)
{
	for (size_t i = 0; i < q->n_sources; i++) {
		struct source *source = q->sources[i];
		int r;

		if (source->now.records == 0 || mono_ms < source->rest_until_ms)
			continue;
		if (!all && due_in_ms(source, wall_ms, mono_ms) > 0)
			continue;
		r = seal_source(q, source, wall_ms, ret_batch, err);
		if (r < 0) {
			source->rest_until_ms = mono_ms + REST_MS;
			err_prefix(err, "source \"%s\"", source->name);
		}
		return r;
	}
	return 0;
}
