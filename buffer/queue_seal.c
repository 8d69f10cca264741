/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chunks to a batch, chunk by chunk: inflated, put into lines, compressed, and written as parts as they come, so that
 * memory does not grow with the batch. A large batch takes several transactions, so that none is long. The last one
 * makes its row; in it too the source's row moves on and the chunks go: before it nothing but parts of a batch that
 * there is not lies in the file. A chunk without records stays: it is its source's newest state and costs nothing.
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

/* Bytes of lines, and of parts, that end a step; the chunk at hand is still taken whole. */
#define STEP_LINES (1024 * 1024)
#define STEP_PARTS (512 * 1024)

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

	if (q->sealing)
		return 0;
	for (size_t i = 0; i < q->n_sources; i++) {
		const struct source *source = q->sources[i];
		int64_t due;

		if (source->now.records == 0)
			continue;
		if (source->now.head.unsynced && queue_keeps_back(q, mono_ms))
			due = q->clock.wait_until_ms - mono_ms;
		else
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
	bool keeps_back; /* what is unsynced; the first chunk is not */
};

/* The same day, device and boot as the chunks before it; the first chunk says which these are. None that is kept back.
 */
static int same_group(struct queue *q, struct plan *plan, struct err *err)
{
	char device[UNITS_NAME_MAX], boot[OBJECT_BOOT];
	bool unsynced;
	int64_t day;
	int r = queue_plan_day(q, &day, &unsynced, err);

	if (r == 0)
		r = queue_text(q, SQL_CHUNK_PLAN, 1, device, sizeof device, err);
	if (r == 0)
		r = queue_text(q, SQL_CHUNK_PLAN, 2, boot, sizeof boot, err);
	if (r < 0)
		return r;
	if (plan->end == 0) {
		plan->day = day;
		memcpy(plan->device, device, sizeof device);
		memcpy(plan->boot, boot, sizeof boot);
	}
	if (plan->end != 0 && plan->keeps_back && unsynced)
		return 0;
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

/* Its first unsealed chunk. */
static int64_t first_chunk(const struct mark *mark)
{
	return queue_chunk_id(mark, mark->seq - mark->records);
}

static int make_plan(struct queue *q, const struct source *source, struct plan *plan, struct err *err)
{
	const struct cell range[] = {
		cell_number(first_chunk(&source->now)),
		cell_number(queue_chunk_id(&source->now, source->now.seq - 1)),
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
	int64_t first, next, end; /* chunks: of the batch, not taken yet, of the batch */
	struct mark sealed;       /* the source as of the last chunk taken: its row */
	uint64_t lines, stored;   /* of the chunks taken, as their rows have it */
	uint64_t unsynced;        /* records, as the source's mark counts them */
	bool keeps_back;
	struct batch_row row;
	struct pack pack;
	char device[UNITS_NAME_MAX], boot[OBJECT_BOOT];
	int64_t parts;

	/* Of the step under way. */
	uint64_t step_lines, step_parts; /* bytes */
	struct bytes plain, text;        /* a chunk's plain text, and lines of it */
	struct err *err;
};

static int on_part(void *arg, const void *data, size_t len)
{
	struct seal *s = arg;
	const struct cell row[] = { cell_number(s->row.batch.id << PART_BITS | s->parts), cell_blob(data, len) };

	if (s->parts++ == PART_MAX)
		return err_fail(s->err, -EFBIG, "a batch of more than %d parts", PART_MAX);
	s->step_parts += len;
	return queue_put(s->q, SQL_PART_PUT, CELLS(row), s->err);
}

static int write_lines(struct seal *s)
{
	int r = pack_write(&s->pack, s->text.data, s->text.len);

	s->row.batch.raw_bytes += s->text.len;
	s->step_lines += s->text.len;
	bytes_clear(&s->text);
	return r;
}

static int on_record(void *arg, const struct envelope *envelope, const void *data, size_t len)
{
	struct seal *s = arg;
	int r = object_line(&s->text, envelope, data, len);

	if (r < 0)
		return err_fail(s->err, r, "a record of %zu bytes: %s", len, strerror(-r));
	return s->text.len >= LINES ? write_lines(s) : 0;
}

static void begin_batch(struct seal *s, const struct chunk_row *row)
{
	s->row.oldest_ms = row->wall_ms;
	s->row.batch.first_seq = (uint64_t)(row->id & SEQ_MAX);
	memcpy(s->device, row->device, sizeof s->device);
	memcpy(s->boot, row->boot, sizeof s->boot);
}

static int seal_chunk(struct seal *s)
{
	struct chunk_row row;
	struct batch *batch = &s->row.batch;
	int r = queue_read_chunk(s->q, SQL_CHUNKS, &row, s->err);

	if (r < 0)
		return r;
	if (row.id != s->next)
		return queue_damaged(s->q, s->err, "chunk", row.id, "it does not follow the one before it");
	if (row.id == s->first)
		begin_batch(s, &row);
	r = queue_chunk_each(s->q, &row, &s->plain, on_record, s, s->err);
	if (r == 0)
		r = write_lines(s);
	if (r < 0)
		return r;
	batch->records += row.records;
	batch->last_seq = batch->first_seq + batch->records - 1;
	s->next = row.id + (int64_t)row.records;
	s->lines += row.lines;
	s->stored += row.data_len;
	s->unsynced += row.unsynced ? row.records : 0;
	s->sealed.seq = batch->last_seq + 1;
	s->sealed.fetch = row.fetch;
	s->sealed.state_len = row.state_len;
	if (row.state_len > 0)
		memcpy(s->sealed.state, row.state, row.state_len);
	return 0;
}

/* The next chunks, until the step is long enough or there are no more. */
static int seal_chunks(struct seal *s)
{
	const struct cell range[] = { cell_number(s->next), cell_number(s->end) };
	int r = queue_query(s->q, SQL_CHUNKS, CELLS(range), s->err);

	while (r == 0 && s->next <= s->end && s->step_lines < STEP_LINES && s->step_parts < STEP_PARTS) {
		r = queue_step(s->q, SQL_CHUNKS, s->err);
		if (r == 0)
			r = queue_damaged(s->q, s->err, "source", s->sealed.id, "its chunks are gone");
		else if (r > 0)
			r = seal_chunk(s);
	}
	queue_reset(s->q, SQL_CHUNKS);
	return r;
}

static int write_batch(struct seal *s)
{
	struct batch *batch = &s->row.batch;
	struct envelope first = {
		.source = s->source->name,
		.device = s->device,
		.boot = s->boot,
		.seq = batch->first_seq,
		.wall_ms = s->row.oldest_ms,
	};
	const struct cell chunks[] = { cell_number(s->first), cell_number(s->end) };
	int r = pack_finish(&s->pack, batch->sha256);

	if (r < 0)
		return r;
	batch->bytes = s->pack.bytes;
	/* One with a higher id may have been taken over meanwhile. */
	s->sealed.batch = s->source->then.batch > batch->id ? s->source->then.batch : batch->id;
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
	const struct cell range[] = { cell_number(first_chunk(then)),
		                      cell_number(queue_chunk_id(then, then->seq - 1)) };
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

/* --- Its steps --- */

/* Which chunks it takes is said once: what is committed later comes behind them. */
static int first_step(struct seal *s)
{
	struct plan plan = { .keeps_back = s->keeps_back };
	int r = queue_clear_parts(s->q, s->row.batch.id, s->err);

	if (r == 0)
		r = make_plan(s->q, s->source, &plan, s->err);
	if (r < 0)
		return r;
	s->sealed = s->source->now;
	s->first = s->next = first_chunk(&s->sealed);
	s->end = plan.boundary != 0 ? plan.boundary : plan.end;
	return 0;
}

/* 1: in it the batch is complete; 0: there is more to do. */
static int step(struct seal *s)
{
	struct mark *then = queue_touch(s->source);
	int r = s->end == 0 ? first_step(s) : 0;

	if (r == 0)
		r = seal_chunks(s);
	if (r < 0 || s->next <= s->end)
		return r;
	r = write_batch(s);
	if (r < 0)
		return r;
	then->records -= s->row.batch.records;
	then->lines -= s->lines;
	then->stored -= s->stored;
	then->unsynced -= s->unsynced;
	r = read_head(s, then);
	return r < 0 ? r : 1;
}

void queue_seal_free(struct queue *q)
{
	struct seal *s = q->sealing;

	if (!s)
		return;
	pack_done(&s->pack);
	free(s);
	q->sealing = NULL;
}

int64_t queue_sealing_id(const struct queue *q)
{
	return q->sealing ? q->sealing->row.batch.id : 0;
}

uint64_t queue_sealed_bytes(const struct queue *q)
{
	return q->sealing ? (uint64_t)q->sealing->parts * PACK_PART : 0;
}

static int begin_seal(struct queue *q, struct source *source, bool keeps_back, struct err *err)
{
	struct seal *s;
	int r = queue_grow_waiting(q, err);

	if (r < 0)
		return err_fail(err, r, "%s", r == -ENOMEM ? "no memory" : "too many batches wait already");
	s = calloc(1, sizeof *s);
	if (!s || pack_init(&s->pack, on_part, s) < 0) {
		free(s);
		return err_fail(err, -ENOMEM, "no memory");
	}
	s->q = q;
	s->source = source;
	s->keeps_back = keeps_back;
	s->row.batch.id = queue_top_batch(q) + 1;
	memcpy(s->row.batch.source, source->name, sizeof source->name);
	q->sealing = s;
	return 0;
}

/* One transaction. 1: it has made the batch; 0: there is more to do. */
static int run_step(struct seal *s, struct err *err)
{
	struct queue *q = s->q;
	int done, r = queue_begin(q, err);

	if (r < 0)
		return r;
	s->err = err;
	s->step_lines = s->step_parts = 0;
	bytes_init(&s->plain, CHUNK_PLAIN_MAX);
	bytes_init(&s->text, CHUNK_PLAIN_MAX);
	done = step(s);
	r = queue_end(q, done < 0 ? done : 0, err);
	queue_settle(q, r == 0);
	bytes_done(&s->plain);
	bytes_done(&s->text);
	return r < 0 ? r : done;
}

static void note_batch(struct queue *q, struct batch *ret_batch)
{
	struct seal *s = q->sealing;

	if (s->row.batch.id > q->last_batch)
		q->last_batch = s->row.batch.id;
	q->batches++;
	queue_add_waiting(q, s->source, &s->row);
	s->row.batch.stores_all = (size_t)__builtin_popcountll(s->source->route.stores);
	*ret_batch = s->row.batch;
	queue_forget_largest(q);
}

static void rest(struct source *source, int64_t mono_ms, int status, struct err *err)
{
	source->rest_until_ms = mono_ms + REST_MS;
	source->rests_for_room = status == -EDQUOT || status == -ENOSPC;
	err_prefix(err, "source \"%s\"", source->name);
}

static int go_on(struct queue *q, int64_t wall_ms, int64_t mono_ms, struct batch *ret_batch, struct err *err)
{
	struct seal *s = q->sealing;
	int r;

	s->row.batch.sealed_ms = wall_ms;
	r = run_step(s, err);
	if (r == 0)
		return QUEUE_STEP;
	if (r == 1)
		note_batch(q, ret_batch);
	else
		rest(s->source, mono_ms, r, err);
	if (r < 0)
		queue_leave_parts(q, s->row.batch.id);
	queue_seal_free(q);
	return r;
}

static void wake(struct queue *q, bool all)
{
	for (size_t i = 0; i < q->n_sources; i++)
		if (all || q->sources[i]->rests_for_room)
			q->sources[i]->rest_until_ms = 0;
}

void queue_note_room(struct queue *q)
{
	wake(q, false);
}

void queue_seal_wake(struct queue *q)
{
	wake(q, true);
}

/* The first source that is due; NULL: none. */
static struct source *find_due(const struct queue *q, int64_t wall_ms, int64_t mono_ms, bool all, bool keeps_back)
{
	for (size_t i = 0; i < q->n_sources; i++) {
		struct source *source = q->sources[i];

		if (source->now.records > 0 && mono_ms >= source->rest_until_ms &&
		    !(keeps_back && source->now.head.unsynced) && (all || due_in_ms(source, wall_ms, mono_ms) <= 0))
			return source;
	}
	return NULL;
}

int queue_seal(struct queue *q, int64_t wall_ms, int64_t mono_ms, bool all, struct batch *ret_batch, struct err *err)
{
	int r = queue_check(q, err);
	bool keeps_back = queue_keeps_back(q, mono_ms);
	struct source *source = r < 0 || q->sealing ? NULL : find_due(q, wall_ms, mono_ms, all, keeps_back);

	if (source)
		r = begin_seal(q, source, keeps_back, err);
	if (source && r < 0)
		rest(source, mono_ms, r, err);
	if (r < 0 || !q->sealing)
		return r;
	return go_on(q, wall_ms, mono_ms, ret_batch, err);
}
