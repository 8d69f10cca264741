/* SPDX-License-Identifier: Apache-2.0 */
/* What the queue keeps in memory, read from the file when it is opened; every row on the way has its checksum tried. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "buffer/queue_private.h"

#define ID_BYTES 16

/* The buffer's own random id: 1 where it has one, 0 where it is made now and has yet to be written, or -errno. */
static int load_id(struct queue *q, char ret_id[2 * ID_BYTES + 1], struct err *err)
{
	uint8_t random[SHA256_SIZE] = { 0 };
	int found = queue_step(q, SQL_BUFFER_GET, err), r = 0;

	if (found == 1)
		r = queue_text(q, SQL_BUFFER_GET, 0, ret_id, 2 * ID_BYTES + 1, err);
	queue_reset(q, SQL_BUFFER_GET);
	if (found == 0) {
		random_fill(random, ID_BYTES);
		sha256_hex(random, 2 * ID_BYTES, ret_id);
	}
	return r < 0 ? r : found;
}

static int put_id(struct queue *q, const char *id, struct err *err)
{
	const struct cell row[] = { cell_text(id) };

	return queue_put(q, SQL_BUFFER_PUT, CELLS(row), err);
}

static int load_source(struct queue *q, struct err *err)
{
	sqlite3_stmt *stmt = q->statements[SQL_SOURCES];
	int64_t id = queue_number(q, SQL_SOURCES, 0);
	size_t state_len = (size_t)sqlite3_column_bytes(stmt, 4);
	char name[UNITS_NAME_MAX];
	struct source *source;
	int r = queue_text(q, SQL_SOURCES, 1, name, sizeof name, err);

	if (r == 0 && state_len > SINK_STATE_MAX)
		r = queue_damaged(q, err, "source", id, "its state is too long");
	if (r == 0)
		r = queue_add_source(q, name, &source, err);
	if (r < 0)
		return r;
	source->now.id = id;
	source->now.seq = (uint64_t)queue_number(q, SQL_SOURCES, 2);
	source->now.fetch = (uint64_t)queue_number(q, SQL_SOURCES, 3);
	source->now.state_len = state_len;
	source->now.batch = queue_number(q, SQL_SOURCES, 5);
	if (state_len > 0)
		memcpy(source->now.state, sqlite3_column_blob(stmt, 4), state_len);
	return 0;
}

static int load_sources(struct queue *q, struct err *err)
{
	int r;

	while ((r = queue_step(q, SQL_SOURCES, err)) > 0) {
		r = load_source(q, err);
		if (r < 0)
			break;
	}
	queue_reset(q, SQL_SOURCES);
	return r;
}

/* `then` runs ahead over the chunks of a fetch, and `now` follows it to each fetch's end. */
static int load_chunk(struct queue *q, struct err *err)
{
	struct chunk_row row;
	struct source *source;
	struct mark *then;
	int r = queue_read_row(q, SQL_CHUNKS, &row, err);

	if (r < 0)
		return r;
	source = queue_find_source(q, row.source);
	if (!source || source->now.id != row.id >> SEQ_BITS)
		return queue_damaged(q, err, "chunk", row.id, "its source is not the one of its name");
	then = queue_touch(source);
	queue_note_chunk(q, row.plain);
	if ((uint64_t)(row.id & SEQ_MAX) != then->seq || row.records > (uint64_t)SEQ_MAX - then->seq)
		return queue_damaged(q, err, "chunk", row.id, "it does not follow the one before it");
	then->seq += row.records;
	then->records += row.records;
	then->lines += row.lines;
	then->stored += row.records > 0 ? row.data_len : 0;
	then->fetch = row.fetch;
	then->state_len = row.state_len;
	if (row.state_len > 0)
		memcpy(then->state, row.state, row.state_len);
	if (row.last == 0)
		return 0;
	r = queue_correct(q, &row, err);
	if (r < 0)
		return r;
	if (source->now.records == 0 && then->records > 0)
		then->head = queue_head(q, &row); /* its time is that of the whole fetch */
	if (row.unsynced)
		then->unsynced += then->records - source->now.records;
	source->now = *then;
	return 0;
}

/* What is staged of a fetch that no commit will end: here it is only known from now on. */
static void find_staged(struct source *source)
{
	struct mark *now = &source->now;
	const struct mark *then = &source->then;

	if (source->touched && then->seq > now->seq) {
		now->staged = (struct staged){
			.records = then->seq - now->seq,
			.lines = then->lines - now->lines,
			.stored = then->stored - now->stored,
		};
		now->stored = then->stored;
		/* These say what was committed before, where the chunk that said so has made way for them. */
		now->fetch = then->fetch;
		now->state_len = then->state_len;
		memcpy(now->state, then->state, then->state_len);
	}
	source->touched = false;
}

static int load_chunks(struct queue *q, struct err *err)
{
	const struct cell all[] = { cell_number(0), cell_number(INT64_MAX) };
	int r = queue_query(q, SQL_CHUNKS, CELLS(all), err);

	while (r == 0 && (r = queue_step(q, SQL_CHUNKS, err)) > 0)
		r = load_chunk(q, err);
	queue_reset(q, SQL_CHUNKS);
	for (size_t i = 0; i < q->n_sources; i++)
		find_staged(q->sources[i]);
	return r;
}

static bool goes_on(const struct staged *before, const struct staged *now)
{
	return now->records == before->records && now->lines == before->lines && now->stored == before->stored;
}

/*
 * But for what goes on across a salvage. A card that takes nothing keeps them: then the source's next transaction
 * deletes them.
 */
static void delete_staged(struct queue *q)
{
	struct err ignored;

	for (size_t i = 0; i < q->n_sources; i++) {
		struct source *source = q->sources[i];
		struct staged before = source->going_on;

		source->going_on = (struct staged){ .records = 0 };
		if (before.records > 0 && goes_on(&before, &source->now.staged)) {
			source->now.staged = before;
			continue;
		}
		queue_unstage(q, source->name, &ignored);
		source->stale |= before.records > 0;
	}
}

static int load_batch(struct queue *q, struct err *err)
{
	struct batch_row row;
	struct source *source;
	int r = queue_read_batch(q, SQL_BATCHES_WAITING, &row, err);

	if (r < 0)
		return r;
	source = queue_find_source(q, row.batch.source);
	if (!source && row.batch.imported)
		r = queue_add_source(q, row.batch.source, &source, err);
	else if (!source)
		r = queue_damaged(q, err, "batch", row.batch.id, "its source is not known");
	if (r < 0)
		return r;
	r = queue_grow_waiting(q, err);
	if (r == 0)
		queue_add_waiting(q, source, &row);
	return r;
}

static int load_batches(struct queue *q, struct err *err)
{
	int r = queue_step(q, SQL_BATCHES_COUNT, err);

	if (r == 1) {
		q->batches = (uint64_t)queue_number(q, SQL_BATCHES_COUNT, 0);
		q->last_batch = queue_number(q, SQL_BATCHES_COUNT, 1);
		r = 0;
	}
	queue_reset(q, SQL_BATCHES_COUNT);
	while (r == 0 && (r = queue_step(q, SQL_BATCHES_WAITING, err)) > 0)
		r = load_batch(q, err);
	queue_reset(q, SQL_BATCHES_WAITING);
	return r;
}

/* All that is kept in memory; nothing is written. */
static int load_all(struct queue *q, struct err *err)
{
	int r = queue_load_clock(q, err);

	if (r == 0)
		r = load_sources(q, err);
	if (r == 0)
		r = queue_check_ahead(q, false, err);
	if (r == 0)
		r = load_chunks(q, err);
	if (r == 0)
		r = queue_check_ahead(q, true, err);
	q->marked = r == 0;
	if (r == 0)
		r = load_batches(q, err);
	if (r == 0)
		r = queue_load_lost(q, err);
	return r == 0 ? queue_load_damage(q, err) : r;
}

int queue_load(struct queue *q, struct err *err)
{
	char id[2 * ID_BYTES + 1];
	int found = load_id(q, id, err), r;

	if (found < 0)
		return found;
	object_boot(q->boot, q->kernel_boot_id, id);
	r = load_all(q, err);
	if (r == 0 && !found)
		r = put_id(q, id, err); /* at the end: in a file that is refused nothing is changed */
	if (r == 0)
		r = queue_adopt_tail(q, err);
	if (r == 1) {
		queue_forget(q);
		r = load_all(q, err);
	}
	if (r == 0) {
		delete_staged(q);
		queue_delete_stray(q);
	}
	return r;
}
