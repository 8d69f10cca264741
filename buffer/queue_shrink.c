/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How large the file itself is, whatever of it is in use: it is grown once when it is new, and gives back to the card
 * what a backlog has left of it.
 *
 * A new file is written larger once than it need be, 2 MB of flash for the WAL and as much for the file, which is no
 * more than the WAL's growing by and by costs: then a card that is full to the last block still lets the buffer do all
 * but collect.
 *
 * Free pages cost nothing and are used again, so they go back only where that is cheap: VACUUM writes what is left into
 * the WAL and from there into the file, which then is grown as a new one is, but by half: its WAL has grown already.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buffer/queue_private.h"

#define LARGE      INT64_C(0x200000) /* what a new file is grown to */
#define SMALL      INT64_C(0x100000) /* and one that has given back */
#define GIVE_SHARE 11                /* bytes given back for each that is written; 0.1 of flash with what ext4 adds */
#define GIVE_MOST                                                                                                      \
	INT64_C(0x800000) /* of what is left: for so much commits wait no longer than for a checkpoint or two */

static void count_pages(struct queue *q)
{
	struct err ignored;

	queue_count_pages(q, &q->room.pages, &q->room.free_pages, &ignored);
}

static int64_t used_bytes(const struct queue *q)
{
	return (q->room.pages - q->room.free_pages) * PAGE;
}

/* Above a bound that was lowered, what is there is sealed and delivered all the same. */
void queue_set_page_limit(struct queue *q)
{
	int64_t needed = q->room.pages - q->room.free_pages + queue_reserve(q) / PAGE;
	char sql[64];

	/* SQLite takes the file's own size where that is more. */
	snprintf(sql, sizeof sql, "PRAGMA max_page_count = %lld",
	         (long long)(needed > q->room.limit ? needed : q->room.limit));
	sqlite3_exec(q->db, sql, NULL, NULL, NULL);
}

/* --- Growing --- */

/* A blob in, which goes out again at once: its pages, and the WAL's, are there from then on. */
static bool grow(struct queue *q, int64_t size)
{
	const struct cell blob[] = { cell_number(0), cell_number(size) };
	struct err ignored;
	int r;

	if (q->room.pages * PAGE >= size || q->room.limit * PAGE < 2 * size || queue_card_bytes(q) < 4 * size)
		return false;
	r = queue_begin(q, &ignored);
	if (r == 0)
		r = queue_end(q, queue_run(q, SQL_PART_FILL, CELLS(blob), &ignored), &ignored);
	return r == 0;
}

/* Of this start or, where that was killed between the two, of the one before. */
static void delete_blob(struct queue *q)
{
	const struct cell range[] = { cell_number(0), cell_number(0) };
	struct err ignored;

	if (queue_begin(q, &ignored) == 0)
		queue_end(q, queue_run(q, SQL_PARTS_DELETE, CELLS(range), &ignored), &ignored);
}

static void grow_to(struct queue *q, int64_t size)
{
	bool grown = grow(q, size);

	delete_blob(q);
	if (grown)
		queue_empty_wal(q);
}

void queue_grow(struct queue *q)
{
	grow_to(q, LARGE);
}

/* --- Giving back --- */

/*
 * VACUUM writes what is used into a temporary file, and that into the WAL: beside the buffer, because temp_store's
 * memory has no bound. What it writes into that file is seldom on the card before it goes.
 */
static void vacuum(struct queue *q)
{
	char *folder = strdup(q->path), *slash = folder ? strrchr(folder, '/') : NULL;

	if (slash)
		slash[slash == folder] = '\0';
	sqlite3_temp_directory = slash ? folder : NULL;
	sqlite3_exec(q->db, "PRAGMA temp_store = FILE; VACUUM", NULL, NULL, NULL);
	sqlite3_exec(q->db, "PRAGMA temp_store = MEMORY", NULL, NULL, NULL);
	sqlite3_temp_directory = NULL;
	free(folder);
}

/* What there will be where the file is above its limit now. */
static int64_t room_once_shrunk(const struct queue *q)
{
	return (q->room.limit - q->room.pages + q->room.free_pages) * PAGE - queue_reserve(q);
}

/* It is the one moment at which the card holds more than before. */
void queue_shrink(struct queue *q)
{
	if (q->room.max_size == 0 || q->room.pages <= q->room.limit || room_once_shrunk(q) < 2 * queue_low(q) ||
	    queue_card_bytes(q) < 2 * used_bytes(q) + LARGE)
		return;
	vacuum(q);
	sqlite3_wal_checkpoint_v2(q->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
	sqlite3_db_release_memory(q->db);
	queue_set_page_limit(q);
	count_pages(q);
}

/* Whether it is cheap, takes no long time, and stays within max_size and the card. */
static bool is_worth_it(const struct queue *q)
{
	int64_t used = used_bytes(q), left = used + SMALL, more = 2 * used, wal = queue_file_size(q, "-wal");

	return queue_is_sound(q) && q->room.max_size > 0 && used <= GIVE_MOST &&
	       q->room.pages * PAGE - left >= GIVE_SHARE * 2 * left &&
	       queue_file_size(q, "") + wal + more <= q->room.max_size && queue_card_bytes(q) >= more + 4 * SMALL;
}

void queue_give_back(struct queue *q)
{
	if (!is_worth_it(q))
		return;
	if (used_bytes(q) > SMALL)
		queue_empty_wal(q); /* so that it grows no further; else what is about to go is not written any more */
	vacuum(q);
	queue_empty_wal(q);
	sqlite3_db_release_memory(q->db);
	count_pages(q);
	queue_set_page_limit(q);
	grow_to(q, SMALL);
	queue_note_room(q);
}
