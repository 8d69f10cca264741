/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When a chunk's records came. What came before the wall clock was right has only the boot's own clock to tell that by:
 * from the moment on at which both are known, the difference between them says what the wall clock would have said. It
 * is applied whenever such a chunk is read, never written into it, and remembered for its boot as long as there are
 * any.
 */
#include <errno.h>
#include <string.h>

#include "buffer/queue_private.h"

/* --- The correction --- */

/* Of a boot before this one, by the file; the last answer is kept. 1, 0: there is none, -errno. */
static int ask_correction(struct queue *q, const char *boot, int64_t *ret_ms, struct err *err)
{
	const struct cell key[] = { cell_text(boot) };
	struct other_clock *other = &q->other_clock;
	int r;

	if (strcmp(other->boot, boot) != 0) {
		r = queue_query(q, SQL_CLOCK_GET, CELLS(key), err);
		if (r == 0)
			r = queue_step(q, SQL_CLOCK_GET, err);
		if (r >= 0) {
			*other = (struct other_clock){ .known = r == 1 };
			if (other->known)
				other->correction_ms = queue_number(q, SQL_CLOCK_GET, 1);
			memcpy(other->boot, boot, strlen(boot) + 1);
		}
		queue_reset(q, SQL_CLOCK_GET);
		if (r < 0)
			return r;
	}
	if (other->known)
		*ret_ms = other->correction_ms;
	return other->known;
}

static int find_correction(struct queue *q, const char *boot, int64_t *ret_ms, struct err *err)
{
	if (strcmp(boot, q->boot) != 0)
		return ask_correction(q, boot, ret_ms, err);
	if (q->clock.known)
		*ret_ms = q->clock.correction_ms;
	return q->clock.known;
}

int queue_correct(struct queue *q, struct chunk_row *row, struct err *err)
{
	int known;

	if (row->clock != CHUNK_UNSYNCED)
		return 0;
	row->unsynced = strcmp(row->boot, q->boot) == 0;
	known = find_correction(q, row->boot, &row->correction_ms, err);
	if (known <= 0)
		return known;
	row->clock = CHUNK_CORRECTED;
	row->wall_ms = row->mono_ms + row->correction_ms;
	row->day = units_day(row->wall_ms);
	return 0;
}

/* --- Chunks and their time --- */

/*
 * The chunk that ends the fetch of one that does not, found by going through all between them: so the last one found is
 * kept, for the many chunks of one large fetch.
 */
static int find_closing(struct queue *q, int64_t id, struct err *err)
{
	const struct cell range[] = { cell_number(id), cell_number(id | SEQ_MAX) };
	struct chunk_row row = { .last = 0 };
	int r;

	if (q->closing.first <= id && id < q->closing.id)
		return 0;
	r = queue_query(q, SQL_CHUNK_CLOSING, CELLS(range), err);
	if (r == 0)
		r = queue_step(q, SQL_CHUNK_CLOSING, err);
	if (r == 1)
		r = queue_read_row(q, SQL_CHUNK_CLOSING, &row, err);
	else if (r == 0)
		r = queue_damaged(q, err, "chunk", id, "its fetch has no end");
	if (r == 0)
		q->closing = (struct closing){
			.first = id,
			.id = row.id,
			.day = row.day,
			.wall_ms = row.wall_ms,
			.mono_ms = row.mono_ms,
			.clock = row.clock,
		};
	queue_reset(q, SQL_CHUNK_CLOSING);
	return r;
}

/* What the row itself does not say of its time. */
static int complete_time(struct queue *q, struct chunk_row *row, struct err *err)
{
	int r = row->last == 0 ? find_closing(q, row->id, err) : 0;

	if (r < 0)
		return r;
	if (row->last == 0)
		row->clock = q->closing.clock;
	if (row->staged) {
		row->day = q->closing.day;
		row->wall_ms = q->closing.wall_ms;
		row->mono_ms = q->closing.mono_ms;
	}
	return queue_correct(q, row, err);
}

int queue_read_chunk(struct queue *q, enum sql sql, struct chunk_row *ret_row, struct err *err)
{
	struct chunk_row row = { .staged = false };
	int r = queue_read_row(q, sql, &row, err);

	if (r == 0)
		r = complete_time(q, &row, err);
	if (r == 0)
		*ret_row = row;
	return r;
}

int queue_plan_day(struct queue *q, int64_t *ret_day, bool *ret_unsynced, struct err *err)
{
	struct chunk_row row = {
		.id = queue_number(q, SQL_CHUNK_PLAN, 0),
		.day = queue_number(q, SQL_CHUNK_PLAN, 4),
		.wall_ms = queue_number(q, SQL_CHUNK_PLAN, 7),
		.mono_ms = queue_number(q, SQL_CHUNK_PLAN, 8),
	};
	int64_t last = queue_number(q, SQL_CHUNK_PLAN, 6);
	int r = queue_text(q, SQL_CHUNK_PLAN, 2, row.boot, sizeof row.boot, err);

	row.last = last > 0;
	row.clock = (uint8_t)(last > 0 ? last - 1 : 0);
	row.staged = last == 0 && row.wall_ms == 0;
	if (r == 0)
		r = complete_time(q, &row, err);
	if (r < 0)
		return r;
	*ret_day = row.day;
	*ret_unsynced = row.unsynced && row.clock == CHUNK_UNSYNCED;
	return 0;
}

struct head queue_head(const struct queue *q, const struct chunk_row *row)
{
	return (struct head){
		.day = row->day,
		.wall_ms = row->wall_ms,
		.mono_ms = row->mono_ms,
		.current = strcmp(row->boot, q->boot) == 0 && strcmp(row->device, q->device) == 0,
		.unsynced = row->unsynced && row->clock == CHUNK_UNSYNCED,
	};
}

/* --- This boot's clock --- */

/*
 * Where room is short it is given up: what is kept back cannot make room, and a poll that is lost for want of it is
 * worse than a record with a doubtful time.
 */
bool queue_keeps_back(const struct queue *q, int64_t mono_ms)
{
	return !q->clock.known && mono_ms < q->clock.wait_until_ms && !q->room.full && !q->room.wanted &&
	       !q->room.card_full;
}

uint64_t queue_count_unsynced(const struct queue *q)
{
	uint64_t records = 0;

	for (size_t i = 0; i < q->n_sources; i++)
		records += q->sources[i]->now.unsynced;
	return records;
}

int queue_load_clock(struct queue *q, struct err *err)
{
	int64_t correction_ms;
	int r;

	q->other_clock = (struct other_clock){ .boot = "" };
	r = ask_correction(q, q->boot, &correction_ms, err);
	if (r < 0)
		return r;
	q->clock.written = r == 1;
	if (r == 1) {
		q->clock.known = true;
		q->clock.correction_ms = correction_ms;
	}
	return 0;
}

int queue_put_clock(struct queue *q, struct err *err)
{
	const struct cell row[] = { cell_text(q->boot), cell_number(q->clock.correction_ms) };
	int r = queue_run(q, SQL_CLOCKS_TRIM, NULL, 0, err);

	return r == 0 ? queue_put(q, SQL_CLOCK_PUT, CELLS(row), err) : r;
}

/* A batch half made has lines with the times before: it is made anew. */
static void learn(struct queue *q, int64_t correction_ms)
{
	q->clock.known = true;
	q->clock.correction_ms = correction_ms;
	queue_seal_free(q);
	for (size_t i = 0; i < q->n_sources; i++) {
		struct head *head = &q->sources[i]->now.head;

		if (!head->unsynced)
			continue;
		head->unsynced = false;
		head->wall_ms = head->mono_ms + correction_ms;
		head->day = units_day(head->wall_ms);
	}
}

int queue_set_clock(struct queue *q, bool synced, int64_t wall_ms, int64_t mono_ms, int64_t wait_until_ms,
                    struct err *err)
{
	int r;

	q->clock.mono_ms = mono_ms;
	q->clock.wait_until_ms = wait_until_ms;
	if (synced && !q->clock.known)
		learn(q, wall_ms - mono_ms);
	if (!q->clock.known || q->clock.written || queue_count_unsynced(q) == 0)
		return 0;
	r = queue_begin(q, err);
	if (r == 0)
		r = queue_end(q, queue_put_clock(q, err), err);
	q->clock.written = r == 0;
	return r;
}
