/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Batches of another Millrace. Their bytes are written as parts as they come, under an id that no batch has yet; the
 * last transaction makes the row, and notes for ever that these seqs were taken over. Before it nothing but parts of a
 * batch that there is not lies in the file.
 *
 * A batch may be sealed meanwhile, under the next id. So what comes to nothing does not always lie behind the last
 * batch: queue_clear_parts and queue_delete_stray say how it goes.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "buffer/content.h"
#include "buffer/pack.h"
#include "buffer/queue_private.h"

/* What of an object's bytes waits in memory for its transaction. */
#define WAITS_MAX (QUEUE_IMPORT_STEP + PACK_PART)

struct import {
	struct object_name name;
	struct source *source;
	struct batch_row row;
	struct content *content;
	struct bytes bytes; /* that are in no part yet */
	int64_t parts;
	bool cleared;
};

/* --- Ids --- */

int64_t queue_importing_id(const struct queue *q)
{
	return q->importing ? q->importing->row.batch.id : 0;
}

static int64_t larger(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

int64_t queue_top_batch(const struct queue *q)
{
	return larger(q->last_batch, larger(queue_sealing_id(q), queue_importing_id(q)));
}

static int delete_parts(struct queue *q, int64_t id, bool and_above, struct err *err)
{
	const struct cell range[] = { cell_number(id << PART_BITS),
		                      cell_number(and_above ? INT64_MAX : id << PART_BITS | PART_MAX) };

	return queue_run(q, SQL_PARTS_DELETE, CELLS(range), err);
}

int queue_clear_parts(struct queue *q, int64_t id, struct err *err)
{
	int r = q->stray > 0 ? delete_parts(q, q->stray, false, err) : 0;

	return r == 0 ? delete_parts(q, id, queue_top_batch(q) == id, err) : r;
}

void queue_leave_parts(struct queue *q, int64_t id)
{
	if (queue_top_batch(q) > id)
		q->stray = id;
}

void queue_delete_stray(struct queue *q)
{
	const struct cell end[] = { cell_number((q->last_batch + 1) << PART_BITS) };
	struct err ignored;

	if (queue_begin(q, &ignored) == 0)
		queue_end(q, queue_run(q, SQL_PARTS_DELETE_STRAY, CELLS(end), &ignored), &ignored);
}

/* --- What was taken over before --- */

struct taken {
	uint64_t first, last;
};

/* The ranges of the object's source, device and boot that begin at `until` or before, the later one first; how many. */
static int find_taken(struct queue *q, const struct object_name *name, uint64_t until, struct taken taken[2],
                      struct err *err)
{
	const struct cell key[] = { cell_text(name->source), cell_text(name->device), cell_text(name->boot),
		                    cell_number((int64_t)until) };
	int n = 0, r = queue_query(q, SQL_IMPORTED_NEAR, CELLS(key), err);

	while (r == 0 && (r = queue_step(q, SQL_IMPORTED_NEAR, err)) > 0) {
		taken[n].first = (uint64_t)queue_number(q, SQL_IMPORTED_NEAR, 3);
		taken[n].last = (uint64_t)queue_number(q, SQL_IMPORTED_NEAR, 4);
		n++;
		r = 0;
	}
	queue_reset(q, SQL_IMPORTED_NEAR);
	return r < 0 ? r : n;
}

/* By our own books and batches: 1: we have or had all of it, 0: a part of it, -ENOENT: nothing. */
static int find_own(struct queue *q, const struct object_name *name, struct err *err)
{
	const struct cell cells[] = {
		cell_text(name->source),
		cell_text(name->device),
		cell_text(name->boot),
		cell_number((int64_t)name->first_seq),
		cell_number((int64_t)name->last_seq),
	};
	int r = queue_query(q, SQL_OWN, CELLS(cells), err);

	if (r == 0)
		r = queue_step(q, SQL_OWN, err);
	if (r == 1)
		r = (int)queue_number(q, SQL_OWN, 0);
	else if (r == 0)
		r = -ENOENT;
	queue_reset(q, SQL_OWN);
	return r;
}

static int refuse_part(const struct object_name *name, const char *how, struct err *err)
{
	return err_fail(err, -EEXIST,
	                "a part of seq %" PRIu64 " to %" PRIu64 " of source \"%s\" %s, in another object; taken over, "
	                "it would be there twice",
	                name->first_seq, name->last_seq, name->source, how);
}

/* 1: nothing is to be done, 0: it is new. */
static int look_back(struct queue *q, const struct object_name *name, struct err *err)
{
	struct taken taken[2] = { { .first = 0 } };
	int r = find_taken(q, name, name->last_seq, taken, err);

	if (r < 0)
		return r;
	if (r > 0 && taken[0].last >= name->first_seq)
		return taken[0].first <= name->first_seq && taken[0].last >= name->last_seq
		               ? 1
		               : refuse_part(name, "was taken over before", err);
	r = find_own(q, name, err);
	if (r == 0)
		return refuse_part(name, "is this buffer's own", err);
	if (r != -ENOENT)
		return r;
	if (strcmp(name->device, q->device) == 0 && strcmp(name->boot, q->boot) == 0)
		return err_fail(err, -EINVAL, "it says that it comes from this very buffer, which has never had it");
	return 0;
}

static int put_range(struct queue *q, const struct object_name *name, const struct taken *range, int64_t wall_ms,
                     struct err *err)
{
	const struct cell row[] = {
		cell_text(name->source),
		cell_text(name->device),
		cell_text(name->boot),
		cell_number((int64_t)range->first),
		cell_number((int64_t)range->last),
		cell_number(wall_ms),
	};

	return queue_put(q, SQL_IMPORTED_PUT, CELLS(row), err);
}

static int delete_range(struct queue *q, const struct object_name *name, const struct taken *range, struct err *err)
{
	const struct cell key[] = { cell_text(name->source), cell_text(name->device), cell_text(name->boot),
		                    cell_number((int64_t)range->first) };

	return queue_run(q, SQL_IMPORTED_DELETE, CELLS(key), err);
}

/* In a transaction: the range is remembered, as one with those that it touches. */
int queue_put_taken(struct queue *q, const struct object_name *name, int64_t wall_ms, struct err *err)
{
	struct taken near[2] = { { .first = 0 } }, range = { name->first_seq, name->last_seq };
	int n = find_taken(q, name, name->last_seq + 1, near, err), r = n < 0 ? n : 0;

	for (int i = 0; i < n && r == 0; i++) {
		if (near[i].first == range.last + 1)
			range.last = near[i].last;
		else if (near[i].last + 1 == range.first)
			range.first = near[i].first;
		else
			continue;
		r = delete_range(q, name, &near[i], err);
	}
	return r == 0 ? put_range(q, name, &range, wall_ms, err) : r;
}

int queue_forget_taken(struct queue *q, const struct batch *batch, struct err *err)
{
	struct taken near[2] = { { .first = 0 } }, left, right;
	struct object_name name;
	int64_t now_ms = clock_wall_ms();
	int n, r;

	if (object_read_key(batch->key, &name) < 0)
		return queue_damaged(q, err, "batch", batch->id, "its object's key is not one of ours");
	n = find_taken(q, &name, name.last_seq, near, err);
	if (n <= 0 || near[0].last < name.first_seq)
		return n < 0 ? n : 0;
	left = (struct taken){ near[0].first, name.first_seq - 1 };
	right = (struct taken){ name.last_seq + 1, near[0].last };
	r = delete_range(q, &name, &near[0], err);
	if (r == 0 && left.first <= left.last)
		r = put_range(q, &name, &left, now_ms, err);
	if (r == 0 && right.first <= right.last)
		r = put_range(q, &name, &right, now_ms, err);
	return r;
}

/* --- Begin --- */

static int check_name(const char *key, uint64_t bytes, const uint8_t sha256[SHA256_SIZE], struct object_name *name,
                      struct err *err)
{
	char sha8[9];

	if (object_read_key(key, name) < 0 || name->last_seq > (uint64_t)SEQ_MAX)
		return err_fail(err, -EINVAL, "that is no key of an object of Millrace");
	if (strcmp(sha256_hex(sha256, 8, sha8), name->sha8) != 0)
		return err_fail(err, -EILSEQ, "its SHA-256 begins with %s and not as its key says: it was changed",
		                sha8);
	if (bytes == 0 || bytes > QUEUE_IMPORT_MAX)
		return err_fail(err, -EILSEQ, "%" PRIu64 " bytes are no object of Millrace", bytes);
	return 0;
}

static int begin_import(struct queue *q, const char *key, uint64_t bytes, const uint8_t sha256[SHA256_SIZE],
                        const struct object_name *name, struct err *err)
{
	struct import *m = calloc(1, sizeof *m);
	struct batch *batch = m ? &m->row.batch : NULL;
	int r = m ? queue_add_source(q, name->source, &m->source, err) : err_fail(err, -ENOMEM, "no memory");

	if (r == 0) {
		m->content = content_new();
		r = m->content ? 0 : err_fail(err, -ENOMEM, "no memory");
	}
	if (r < 0) {
		free(m);
		return r;
	}
	m->name = *name;
	bytes_init(&m->bytes, WAITS_MAX);
	batch->id = queue_top_batch(q) + 1;
	batch->imported = true;
	memcpy(batch->source, name->source, sizeof batch->source);
	memcpy(batch->key, key, strlen(key) + 1);
	batch->first_seq = name->first_seq;
	batch->last_seq = name->last_seq;
	batch->records = name->last_seq - name->first_seq + 1;
	batch->bytes = bytes;
	memcpy(batch->sha256, sha256, SHA256_SIZE);
	q->importing = m;
	return 0;
}

int queue_import_begin(struct queue *q, const char *key, uint64_t bytes, const uint8_t sha256[SHA256_SIZE],
                       struct err *err)
{
	struct object_name name;
	int r = queue_check(q, err);

	assert(!q->importing);
	if (r == 0)
		r = check_name(key, bytes, sha256, &name, err);
	if (r == 0)
		r = look_back(q, &name, err);
	if (r == 0)
		r = queue_check_import_room(q, bytes, err);
	return r == 0 ? begin_import(q, key, bytes, sha256, &name, err) : r;
}

/* --- Its bytes --- */

static int lost(struct err *err)
{
	return err_fail(err, -ECANCELED, "the buffer was opened anew meanwhile; send it again");
}

static int put_part(struct queue *q, size_t at, size_t len, struct err *err)
{
	struct import *m = q->importing;
	const struct cell row[] = { cell_number(m->row.batch.id << PART_BITS | m->parts),
		                    cell_blob(m->bytes.data + at, len) };

	m->parts++;
	return queue_put(q, SQL_PART_PUT, CELLS(row), err);
}

/* In a transaction: what waits in memory, in parts; with `all` to the last byte. Returns how many bytes, or -errno. */
static int64_t put_parts(struct queue *q, bool all, struct err *err)
{
	struct import *m = q->importing;
	int r = m->cleared ? 0 : queue_clear_parts(q, m->row.batch.id, err);
	size_t at = 0, len = m->bytes.len;

	for (; r == 0 && len - at >= PACK_PART; at += PACK_PART)
		r = put_part(q, at, PACK_PART, err);
	if (r == 0 && all && at < len) {
		r = put_part(q, at, len - at, err);
		at = len;
	}
	return r < 0 ? r : (int64_t)at;
}

static int write_parts(struct queue *q, struct err *err)
{
	struct import *m = q->importing;
	int64_t written = 0;
	int r = queue_begin(q, err);

	if (r == 0) {
		written = put_parts(q, false, err);
		r = written < 0 ? (int)written : queue_check_import_room(q, 0, err);
		r = queue_end(q, r, err);
	}
	if (r < 0)
		return r;
	m->cleared = true;
	m->bytes.len -= (size_t)written;
	memmove(m->bytes.data, m->bytes.data + written, m->bytes.len);
	return 0;
}

static int refuse_content(const struct import *m, const char *why, struct err *err)
{
	const struct content_facts *facts = content_facts(m->content);

	return err_fail(err, -EILSEQ, "its content is not what its key says: %s (after %" PRIu64 " records)", why,
	                facts->records);
}

int queue_import_write(struct queue *q, const void *data, size_t len, struct err *err)
{
	struct import *m = q->importing;
	const struct content_facts *facts;
	int r;

	assert(len <= QUEUE_IMPORT_STEP);
	if (!m)
		return lost(err);
	content_add(m->content, data, len);
	facts = content_facts(m->content);
	if (facts->why[0])
		return refuse_content(m, facts->why, err);
	if (facts->bytes > m->row.batch.bytes)
		return refuse_content(m, "it has more bytes than announced", err);
	r = bytes_add(&m->bytes, data, len);
	if (r < 0)
		return err_fail(err, r, "no memory");
	return m->bytes.len >= PACK_PART ? write_parts(q, err) : 0;
}

/* --- The end --- */

static const char *compare(const struct import *m, const struct content_facts *facts)
{
	const struct object_name *name = &m->name;

	if (facts->why[0])
		return facts->why;
	if (facts->bytes != m->row.batch.bytes || memcmp(facts->sha256, m->row.batch.sha256, SHA256_SIZE) != 0)
		return "its bytes are not those that were announced";
	if (strcmp(facts->source, name->source) != 0 || strcmp(facts->device, name->device) != 0 ||
	    strcmp(facts->boot, name->boot) != 0)
		return "its lines are of another source, device or boot";
	if (facts->first_seq != name->first_seq || facts->last_seq != name->last_seq)
		return "its lines have other seqs";
	return facts->day != name->day ? "its lines are of another day" : NULL;
}

/*
 * In a transaction: the source's row says that the batch's id was used; it stands there as of the last sealing, and
 * nothing else in it changes.
 */
static int put_id(struct queue *q, struct source *source, int64_t id, struct err *err)
{
	struct mark *then = queue_touch(source), row = { .id = then->id };
	sqlite3_stmt *stmt = q->statements[SQL_SOURCES];
	bool found = false;
	int r = 0;

	then->batch = id;
	if (then->id == 0)
		return queue_make_source(q, source, err);
	while (!found && (r = queue_step(q, SQL_SOURCES, err)) > 0) {
		found = queue_number(q, SQL_SOURCES, 0) == row.id;
		row.seq = (uint64_t)queue_number(q, SQL_SOURCES, 2);
		row.fetch = (uint64_t)queue_number(q, SQL_SOURCES, 3);
		row.batch = larger(id, queue_number(q, SQL_SOURCES, 5));
		row.state_len = (size_t)sqlite3_column_bytes(stmt, 4);
		if (found && row.state_len > 0)
			memcpy(row.state, sqlite3_column_blob(stmt, 4), row.state_len);
	}
	queue_reset(q, SQL_SOURCES);
	if (r < 0)
		return r;
	return found ? queue_put_source(q, source->name, &row, err)
	             : queue_damaged(q, err, "source", row.id, "its row is gone");
}

static int put_import(struct queue *q, int64_t wall_ms, struct err *err)
{
	struct import *m = q->importing;
	int64_t written = put_parts(q, true, err);
	int r = written < 0 ? (int)written : queue_put_batch(q, &m->row, err);

	if (r == 0)
		r = queue_put_taken(q, &m->name, wall_ms, err);
	if (r == 0)
		r = put_id(q, m->source, m->row.batch.id, err);
	return r == 0 ? queue_check_import_room(q, 0, err) : r;
}

static int finish(struct queue *q, int64_t wall_ms, struct err *err)
{
	struct import *m = q->importing;
	const struct content_facts *facts = content_finish(m->content);
	const char *wrong = compare(m, facts);
	int r = wrong ? refuse_content(m, wrong, err) : queue_grow_waiting(q, err);

	if (r < 0)
		return r;
	m->row.batch.raw_bytes = facts->line_bytes;
	m->row.batch.sealed_ms = wall_ms;
	m->row.oldest_ms = facts->first_ms;
	r = queue_begin(q, err);
	if (r < 0)
		return r;
	r = queue_end(q, put_import(q, wall_ms, err), err);
	queue_settle(q, r == 0);
	return r;
}

int queue_import_finish(struct queue *q, int64_t wall_ms, struct batch *ret_batch, struct err *err)
{
	struct import *m = q->importing;
	int r = m ? finish(q, wall_ms, err) : lost(err);

	if (r < 0) {
		queue_import_abort(q);
		return r;
	}
	q->last_batch = larger(q->last_batch, m->row.batch.id);
	q->batches++;
	queue_add_waiting(q, m->source, &m->row);
	m->row.batch.stores_all = (size_t)__builtin_popcountll(m->source->route.stores);
	*ret_batch = m->row.batch;
	queue_import_free(q);
	return 0;
}

void queue_import_free(struct queue *q)
{
	struct import *m = q->importing;

	if (!m)
		return;
	content_free(m->content);
	bytes_done(&m->bytes);
	free(m);
	q->importing = NULL;
}

void queue_import_abort(struct queue *q)
{
	int64_t id = queue_importing_id(q);
	bool written = q->importing && q->importing->cleared;
	struct err ignored;

	queue_import_free(q);
	if (!written)
		return;
	queue_leave_parts(q, id);
	if (queue_begin(q, &ignored) == 0)
		queue_end(q, delete_parts(q, id, false, &ignored), &ignored);
}
