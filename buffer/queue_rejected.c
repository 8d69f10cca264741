/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The newest refused answer of each source: one row, replaced by the next. Those of sources that are gone stay until
 * there are too many.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "buffer/queue_private.h"

#define REJECTED_MAX 256 /* about a megabyte */

int queue_reject(struct queue *q, const struct queue_rejected *rejected, struct err *err)
{
	const struct cell row[] = {
		cell_text(rejected->source),
		cell_number(rejected->at_ms),
		cell_text(rejected->cause),
		cell_text(rejected->text),
		cell_number((int64_t)rejected->bytes),
		cell_number((int64_t)rejected->start),
		cell_number(rejected->offset),
		cell_blob(rejected->data, rejected->len),
	};
	const struct cell most[] = { cell_number(REJECTED_MAX) };
	int r = queue_begin(q, err);

	assert(rejected->len <= sizeof rejected->data);
	if (r < 0)
		return r;
	r = queue_put(q, SQL_REJECTED_PUT, CELLS(row), err);
	if (r == 0)
		r = queue_run(q, SQL_REJECTED_TRIM, CELLS(most), err);
	if (r == 0)
		r = queue_check_room(q, err);
	return queue_end(q, r, err);
}

static int read_row(struct queue *q, struct queue_rejected *ret_rejected, struct err *err)
{
	enum sql sql = SQL_REJECTED_NEXT;
	sqlite3_stmt *stmt = q->statements[sql];
	struct queue_rejected rejected = {
		.at_ms = queue_number(q, sql, 1),
		.bytes = (uint64_t)queue_number(q, sql, 4),
		.start = (uint64_t)queue_number(q, sql, 5),
		.offset = queue_number(q, sql, 6),
		.len = (size_t)sqlite3_column_bytes(stmt, 7),
	};
	int r = queue_text(q, sql, 0, rejected.source, sizeof rejected.source, err);

	if (r == 0)
		r = queue_text(q, sql, 2, rejected.cause, sizeof rejected.cause, err);
	if (r == 0)
		r = queue_text(q, sql, 3, rejected.text, sizeof rejected.text, err);
	if (r == 0 && rejected.len > sizeof rejected.data)
		r = queue_damaged(q, err, "rejected", rejected.at_ms, "its excerpt is too long");
	if (r < 0)
		return r;
	if (rejected.len > 0)
		memcpy(rejected.data, sqlite3_column_blob(stmt, 7), rejected.len);
	*ret_rejected = rejected;
	return 0;
}

int queue_next_rejected(struct queue *q, const char *after, struct queue_rejected *ret_rejected, struct err *err)
{
	const struct cell key[] = { cell_text(after) };
	int r = queue_query(q, SQL_REJECTED_NEXT, CELLS(key), err);

	if (r == 0)
		r = queue_step(q, SQL_REJECTED_NEXT, err);
	if (r == 1)
		r = read_row(q, ret_rejected, err) < 0 ? -EBADMSG : 1;
	queue_reset(q, SQL_REJECTED_NEXT);
	return r;
}
