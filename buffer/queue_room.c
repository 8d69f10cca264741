/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much of the card the buffer takes: its file and its WAL together never more than max_size.
 *
 * The WAL grows to what a checkpoint leaves of it and one transaction; the file to max_page_count, which is what
 * remains of max_size. Of the file's pages a reserve is kept from all that is new, so that what is there can be sealed
 * (parts are written while their chunks still lie there), delivered and deleted.
 *
 * The rest of the card is others' too. So what is new must also leave that reserve there, in the file's free pages or
 * before its end; and a new file is written larger once than it need be (queue_shrink.c).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "buffer/queue_private.h"

#define PAYLOAD     4092 /* of a page that a large row takes whole */
#define FRAME       (PAGE + 24)
#define TRANSACTION INT64_C(0x140000) /* a commit of 1 MB, what it changes beside its rows included */
#define SLACK       64                /* pages that any one transaction may need besides */
#define STEP        INT64_C(0x100000) /* what a step of sealing writes */
#define PER_RECORD  16                /* bytes of an object for what a chunk lacks of a record; measured: up to 4.1 */
#define PER_SOURCE  1024              /* its next batch's row */
#define PER_BATCH   384               /* what a batch takes more than its chunks did; measured: up to 254 */
#define MORE        5                 /* for each of its records besides; measured: up to 4.1 */
#define PER_BOOKING 96                /* a batch's delivery or loss, and its share of a book's row */
#define LOW_LEAST   INT64_C(0x80000)
#define LOW_MOST    INT64_C(0x800000)

int64_t queue_file_size(const struct queue *q, const char *suffix)
{
	char full[4096];
	struct stat st;

	snprintf(full, sizeof full, "%s%s", q->path, suffix);
	return stat(full, &st) == 0 ? st.st_size : 0;
}

/* Bytes of the card that are free for us; without an answer as many as one can wish. */
int64_t queue_card_bytes(const struct queue *q)
{
	struct statvfs fs;

	return statvfs(q->path, &fs) == 0 ? (int64_t)fs.f_bavail * (int64_t)fs.f_frsize : INT64_MAX / 4;
}

static int ask_number(struct queue *q, enum sql sql, int64_t *ret_number, struct err *err)
{
	int r = queue_step(q, sql, err);

	if (r == 1)
		*ret_number = queue_number(q, sql, 0);
	queue_reset(q, sql);
	return r < 0 ? r : 0;
}

int queue_count_pages(struct queue *q, int64_t *ret_pages, int64_t *ret_free, struct err *err)
{
	int r = ask_number(q, SQL_PAGES, ret_pages, err);

	return r == 0 ? ask_number(q, SQL_PAGES_FREE, ret_free, err) : r;
}

/* --- The reserve --- */

/* The most that the source's next batch takes beside its chunks; with what is staged, which once is there in full. */
static int64_t batch_bytes(const struct queue *q, const struct source *source)
{
	const struct mark *mark = source->touched ? &source->then : &source->now;
	int64_t bytes = (int64_t)(mark->stored + PER_RECORD * (mark->records + mark->staged.records));
	int64_t most = source->route.max_bytes + q->room.max_record;

	return bytes < most ? bytes : most;
}

/* At most, of one day: of two neighbours the second begins where the first would have too many records or bytes. */
static int64_t batches_to_come(const struct source *source)
{
	const struct mark *mark = source->touched ? &source->then : &source->now;
	int64_t records = (int64_t)(mark->records + mark->staged.records);
	int64_t lines = (int64_t)(mark->lines + mark->staged.lines);
	int64_t most = 1;

	if (records > source->route.max_records || lines > source->route.max_bytes)
		most += 2 * (records / source->route.max_records + lines / source->route.max_bytes + 1);
	return records < most ? records : most;
}

/* What the source's unsealed records take more once they are sealed and delivered. */
static int64_t growth(const struct queue *q, const struct source *source)
{
	const struct mark *mark = source->touched ? &source->then : &source->now;
	int64_t per_batch = PER_BATCH + (int64_t)(1 + q->n_stores) * PER_BOOKING;

	return batches_to_come(source) * per_batch + (int64_t)(mark->records + mark->staged.records) * MORE;
}

/* Bytes. One batch is made at a time, and its chunks go with its end. */
int64_t queue_reserve(const struct queue *q)
{
	int64_t largest = 0, bytes = (int64_t)(q->n_waiting * (1 + q->n_stores)) * PER_BOOKING;

	for (size_t i = 0; i < q->n_sources; i++) {
		int64_t batch = batch_bytes(q, q->sources[i]);

		if (batch > 0)
			bytes += PER_SOURCE + growth(q, q->sources[i]);
		if (batch > largest)
			largest = batch;
	}
	/* What is written of a batch half made is in the file already. */
	largest -= (int64_t)queue_sealed_bytes(q);
	return (bytes + (largest > 0 ? largest : 0)) / PAYLOAD * PAGE + SLACK * PAGE;
}

/* Below max_size. */
static int64_t own_room(const struct queue *q, int64_t pages, int64_t free_pages)
{
	if (pages > q->room.limit)
		return -1;
	return (q->room.limit - pages + free_pages) * PAGE - queue_reserve(q);
}

/*
 * On the card: what of the file is not on it yet comes with the next checkpoint, and a step of sealing must find room
 * in the WAL, as it is or as it can become.
 */
static int64_t card_room(const struct queue *q, int64_t pages, int64_t free_pages)
{
	int64_t kept = queue_reserve(q), step = kept < STEP ? kept : STEP, wal = queue_file_size(q, "-wal");
	int64_t ahead = queue_file_size(q, "") - pages * PAGE;

	return queue_card_bytes(q) + ahead + free_pages * PAGE - kept - (step > wal ? step - wal : 0);
}

static int refuse(const struct queue *q, struct err *err)
{
	char size[UNITS_TEXT_MAX];

	return err_fail(err, -EDQUOT,
	                "buffer \"%s\" has reached max_size (%s): mend what keeps the stores away, or raise max_size",
	                q->path, units_size(q->room.max_size, size));
}

int64_t queue_low(const struct queue *q)
{
	int64_t bytes = q->room.max_size / 16;

	return bytes < LOW_LEAST ? LOW_LEAST : bytes > LOW_MOST ? LOW_MOST : bytes;
}

static int check_room(struct queue *q, int64_t spare, struct err *err)
{
	int64_t pages = 0, free_pages = 0;
	int r;

	if (q->room.max_size == 0) {
		q->room.card_full = false;
		return 0;
	}
	r = queue_count_pages(q, &pages, &free_pages, err);
	if (r < 0)
		return r;
	if (own_room(q, pages, free_pages) < spare || queue_file_size(q, "-wal") > q->room.wal_max) {
		q->room.wanted = true;
		return refuse(q, err);
	}
	if (card_room(q, pages, free_pages) < spare) {
		q->room.card_full = true;
		return err_fail(err, -ENOSPC,
		                "buffer \"%s\": no space is left on the file system but for what sealing and "
		                "delivering need",
		                q->path);
	}
	q->room.wanted = q->room.card_full = false;
	return 0;
}

int queue_check_room(struct queue *q, struct err *err)
{
	return check_room(q, 0, err);
}

int queue_check_staging_room(struct queue *q, struct err *err)
{
	return check_room(q, LOW_LEAST, err);
}

/* Of a batch taken over: what is read from the room must leave enough to the polls, whose records exist nowhere else.
 */
int queue_check_import_room(struct queue *q, uint64_t bytes, struct err *err)
{
	int64_t pages = 0, free_pages = 0, wanted = (int64_t)(bytes + bytes / 16) + 2 * queue_low(q);
	int r;

	if (q->room.max_size == 0)
		return 0;
	r = queue_count_pages(q, &pages, &free_pages, err);
	if (r < 0)
		return r;
	if (own_room(q, pages, free_pages) >= wanted && card_room(q, pages, free_pages) >= wanted)
		return 0;
	return err_fail(err, -ENOSPC, "the buffer has no room for it now: what is left is kept for its own sources");
}

int64_t queue_room_bytes(struct queue *q, bool *ret_full)
{
	int64_t room = INT64_MAX, card = INT64_MAX;

	if (q->room.max_size > 0) {
		room = own_room(q, q->room.pages, q->room.free_pages);
		card = card_room(q, q->room.pages, q->room.free_pages);
	}
	q->room.full = room < (q->room.full ? 2 : 1) * queue_low(q);
	*ret_full = q->room.full;
	if (card < room)
		room = card;
	return room > 0 ? room : 0;
}

bool queue_is_bounded(const struct queue *q)
{
	return q->room.max_size > 0 && queue_card_bytes(q) >= STEP;
}

/* --- Keeping to it --- */

void queue_empty_wal(struct queue *q)
{
	bool large = q->room.max_size > 0 && queue_file_size(q, "-wal") > q->room.wal_max;
	int mode = large ? SQLITE_CHECKPOINT_TRUNCATE : SQLITE_CHECKPOINT_PASSIVE;

	sqlite3_wal_checkpoint_v2(q->db, NULL, mode, NULL, NULL);
}

/* Whether the chunk is one that is unsealed or staged. */
static bool lies_here(const struct queue *q, int64_t chunk)
{
	for (size_t i = 0; i < q->n_sources; i++) {
		const struct mark *now = &q->sources[i]->now;

		if (now->id == chunk >> SEQ_BITS)
			return chunk >= queue_chunk_id(now, now->seq - now->records) &&
			       chunk <= queue_chunk_id(now, now->seq + now->staged.records);
	}
	return false;
}

/*
 * One that is larger than what may come is looked for once more where it has gone: reads all chunks' rows, so no more
 * often than that. Whether it has gone.
 */
static bool find_largest(struct queue *q)
{
	uint64_t before = q->room.largest;
	struct err ignored;
	int r;

	if ((int64_t)before <= q->room.told_record + CHUNK_FULL || lies_here(q, q->room.largest_chunk))
		return false;
	r = queue_step(q, SQL_CHUNK_LARGEST, &ignored);
	if (r >= 0) {
		q->room.largest_chunk = r == 1 ? queue_number(q, SQL_CHUNK_LARGEST, 0) : 0;
		q->room.largest = r == 1 ? (uint64_t)queue_number(q, SQL_CHUNK_LARGEST, 1) : 0;
	}
	queue_reset(q, SQL_CHUNK_LARGEST);
	return q->room.largest < before;
}

void queue_forget_largest(struct queue *q)
{
	const struct queue_bounds bounds = { .max_size = q->room.max_size, .max_record = q->room.told_record };
	struct err ignored;

	if (bounds.max_size > 0 && find_largest(q))
		queue_bound(q, &bounds, &ignored);
}

static void set_bounds(struct room *room, const struct queue_bounds *bounds)
{
	int64_t largest = bounds->max_record > (int64_t)room->largest ? bounds->max_record : (int64_t)room->largest;
	int64_t transaction = TRANSACTION + largest + largest / 8;

	room->max_size = bounds->max_size;
	room->max_record = largest;
	room->wal_max = (WAL_PAGES + SLACK + transaction / PAYLOAD) * FRAME;
	room->limit = (bounds->max_size - room->wal_max) / PAGE;
	if (room->limit < 1)
		room->limit = 1;
}

int queue_bound(struct queue *q, const struct queue_bounds *bounds, struct err *err)
{
	q->bounds = *bounds;
	return queue_is_sound(q) ? queue_take_bounds(q, err) : 0;
}

int queue_take_bounds(struct queue *q, struct err *err)
{
	const struct queue_bounds *bounds = &q->bounds;
	int r = queue_count_pages(q, &q->room.pages, &q->room.free_pages, err);

	if (r < 0)
		return r;
	q->room.told_record = bounds->max_record;
	find_largest(q);
	set_bounds(&q->room, bounds);
	if (queue_file_size(q, "-wal") > q->room.wal_max)
		queue_empty_wal(q);
	queue_set_page_limit(q);
	queue_grow(q);
	queue_shrink(q);
	queue_note_room(q);
	return 0;
}
