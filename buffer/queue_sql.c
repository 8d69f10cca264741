/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All SQL of the queue but its schema, the way rows are written and read, and what SQLite's errors mean. A row's
 * checksum (cell.h) is over its other columns in the order of the statements below.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "buffer/queue_private.h"

#define CHUNK    "id, source, device, boot, records, day, lines, last, wall, mono, fetch, state, plain, data, crc"
#define BOOK     "store, source, first, last, day, device, boot, crc"
#define LOST     "store, source, first, last, day, device, boot, at, crc"
#define BATCH    "id, source, object, first, last, raw, bytes, sha256, oldest, sealed, delivered, imported, crc"

#define IMPORTED "source, device, boot, first, last, at, crc"
#define DAMAGE   "source, first, last, day, device, boot, at, crc"
#define REJECTED "source, at, cause, text, bytes, start, offset, excerpt, crc"
#define DUE      "job, n, store, object, bytes, sha256, delivered, crc"
#define RUN                                                                                                            \
	"id, job, store, first, last, edge, state, attempt, created, written, ready, started, ended, objects, "        \
	"records, bytes, counted, manifest, reason, remote, place, log, crc"
#define MACHINE "name, state, since, ours, reason, awake, crc"
#define DAY     "day, machine, wakes, awake, crc"
/* States of runs that have let go of their objects: LEDGER_DONE, LEDGER_CANCELLED. */
#define OVER "state IN (3, 5)"

/* The same of table book and of table lost. */
#define BOOK_NEAR(table, columns)                                                                                      \
	"SELECT " columns " FROM " table " WHERE store = ? AND source = ? AND first <= ? ORDER BY first DESC LIMIT 2"
/* From the row that holds seq ?3 on, if one does; that row is the last to begin before it. */
#define BOOKS(table, columns)                                                                                          \
	"SELECT " columns " FROM " table                                                                               \
	" WHERE store = ?1 AND source = ?2 AND first >= ifnull((SELECT max(first) FROM " table                         \
	" WHERE store = ?1 AND source = ?2 AND first <= ?3), 0) AND last >= ?3 AND day >= ?4 ORDER BY first"
/* Of a table whose rows may be read in several versions. */
#define BOOK_AFTER(table, columns)                                                                                     \
	"SELECT " columns " FROM " table                                                                               \
	" WHERE (store, source, first) > (?, ?, ?) ORDER BY store, source, first LIMIT 1"
#define GROWN(also)                                                                                                    \
	" ON CONFLICT (store, source, first) DO UPDATE SET " also "last = excluded.last, day = excluded.day, "         \
	"device = excluded.device, boot = excluded.boot, crc = excluded.crc WHERE excluded.last > last"
#define BOOK_DELETE(table) "DELETE FROM " table " WHERE store = ? AND source = ? AND first = ?"

#define CACHE_KEPT         (256 * 1024)

struct statement {
	const char *text;
	const char *table; /* of rows that have a checksum; it is their last column */
};

static const struct statement statements[SQL_STATEMENTS] = {
	[SQL_BEGIN] = { "BEGIN IMMEDIATE", NULL },
	[SQL_COMMIT] = { "COMMIT", NULL },
	[SQL_ROLLBACK] = { "ROLLBACK", NULL },
	[SQL_PAGES] = { "PRAGMA page_count", NULL },
	[SQL_PAGES_FREE] = { "PRAGMA freelist_count", NULL },
	[SQL_BUFFER_GET] = { "SELECT id, crc FROM buffer", "buffer" },
	[SQL_BUFFER_PUT] = { "INSERT INTO buffer (id, crc) VALUES (?, ?)", NULL },
	[SQL_SOURCES] = { "SELECT id, name, seq, fetch, state, batch, crc FROM source ORDER BY id", "source" },
	/* No REPLACE: it would write the index of the names anew. */
	[SQL_SOURCE_PUT] = { "INSERT INTO source (id, name, seq, fetch, state, batch, crc) "
	                     "VALUES (?, ?, ?, ?, ?, ?, ?) "
	                     "ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, fetch = excluded.fetch, "
	                     "state = excluded.state, batch = excluded.batch, crc = excluded.crc",
	                     NULL },
	[SQL_CHUNKS] = { "SELECT " CHUNK " FROM chunk WHERE id BETWEEN ? AND ? ORDER BY id", "chunk" },
	[SQL_CHUNK_HOLDING] = { "SELECT max(id) FROM chunk WHERE id BETWEEN ? AND ?", NULL },
	[SQL_CHUNK_PLAN] = { "SELECT id, device, boot, records, day, lines, last, wall, mono FROM chunk WHERE id "
	                     "BETWEEN ? AND ? AND records > 0 ORDER BY id",
	                     NULL },
	[SQL_CHUNK_CLOSING] = { "SELECT " CHUNK " FROM chunk WHERE id BETWEEN ? AND ? AND last > 0 ORDER BY id LIMIT 1",
	                        "chunk" },
	[SQL_CHUNK_LARGEST] = { "SELECT id, plain FROM chunk ORDER BY plain DESC LIMIT 1", NULL },
	[SQL_CHUNK_PUT] = { "INSERT OR REPLACE INTO chunk (" CHUNK
	                    ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
	                    NULL },
	[SQL_CHUNKS_DELETE] = { "DELETE FROM chunk WHERE id BETWEEN ? AND ?", NULL },
	[SQL_BATCH_GET] = { "SELECT " BATCH " FROM batch WHERE id = ?", "batch" },
	[SQL_BATCH_PUT] = { "INSERT OR REPLACE INTO batch (" BATCH ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
	                    NULL },
	[SQL_BATCHES_WAITING] = { "SELECT " BATCH " FROM batch WHERE delivered = 0 ORDER BY id", "batch" },
	[SQL_BATCHES_NEWEST] = { "SELECT " BATCH " FROM batch ORDER BY id DESC LIMIT ?", "batch" },
	[SQL_BATCHES_OF] = { "SELECT " BATCH " FROM batch WHERE source = ? AND last >= ? AND imported = 0 ORDER BY "
	                     "first LIMIT 1",
	                     "batch" },
	[SQL_BATCHES_FROM] = { "SELECT id, delivered FROM batch WHERE id >= ? ORDER BY id LIMIT ?", NULL },
	[SQL_BATCHES_COUNT] = { "SELECT (SELECT count(*) FROM batch), max(ifnull((SELECT max(id) FROM batch), 0), "
	                        "ifnull((SELECT max(batch) FROM source), 0))",
	                        NULL },
	[SQL_BATCH_DELETE] = { "DELETE FROM batch WHERE id = ?", NULL },
	[SQL_PART_GET] = { "SELECT id, data, crc FROM part WHERE id = ?", "part" },
	[SQL_PART_PUT] = { "INSERT INTO part (id, data, crc) VALUES (?, ?, ?)", NULL },
	[SQL_PART_FILL] = { "INSERT INTO part (id, data, crc) VALUES (?, zeroblob(?), 0)", NULL },
	[SQL_PARTS_DELETE] = { "DELETE FROM part WHERE id BETWEEN ? AND ?", NULL },
	[SQL_PARTS_DELETE_STRAY] = { "DELETE FROM part WHERE id < ? AND id >> 16 NOT IN (SELECT id FROM batch)", NULL },
	[SQL_DELIVERIES] = { "SELECT batch, store, at, crc FROM delivery WHERE batch = ?", "delivery" },
	[SQL_DELIVERY_PUT] = { "INSERT OR IGNORE INTO delivery (batch, store, at, crc) VALUES (?, ?, ?, ?)", NULL },
	[SQL_DELIVERY_DELETE] = { "DELETE FROM delivery WHERE batch = ? AND store = ?", NULL },
	[SQL_DELIVERIES_DELETE] = { "DELETE FROM delivery WHERE batch = ?", NULL },
	[SQL_BOOK_NEAR] = { BOOK_NEAR("book", BOOK), "book" },
	[SQL_BOOKS] = { BOOKS("book", BOOK), "book" },
	[SQL_BOOK_PUT] = { "INSERT OR REPLACE INTO book (" BOOK ") VALUES (?, ?, ?, ?, ?, ?, ?, ?)", NULL },
	[SQL_BOOK_DELETE] = { BOOK_DELETE("book"), NULL },
	[SQL_LOST] = { "SELECT " LOST " FROM lost ORDER BY source, first", "lost" },
	[SQL_LOST_NEAR] = { BOOK_NEAR("lost", LOST), "lost" },
	[SQL_LOST_BOOKS] = { BOOKS("lost", LOST), "lost" },
	[SQL_LOST_PUT] = { "INSERT OR REPLACE INTO lost (" LOST ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", NULL },
	[SQL_LOST_DELETE] = { BOOK_DELETE("lost"), NULL },
	[SQL_IMPORTED_NEAR] = { "SELECT " IMPORTED " FROM imported WHERE source = ? AND device = ? AND boot = ? AND "
	                        "first <= ? ORDER BY first DESC LIMIT 2",
	                        "imported" },
	[SQL_IMPORTED_PUT] = { "INSERT OR REPLACE INTO imported (" IMPORTED ") VALUES (?, ?, ?, ?, ?, ?, ?)", NULL },
	[SQL_IMPORTED_DELETE] = { "DELETE FROM imported WHERE source = ? AND device = ? AND boot = ? AND first = ?",
	                          NULL },
	/* What some store has of it, and what waits: no checksum, since nothing is made of it but a refusal. */
	[SQL_OWN] = { "SELECT first <= ?4 AND last >= ?5 FROM (SELECT first, last FROM book WHERE source = ?1 AND "
	              "device = ?2 AND boot = ?3 AND first <= ?5 AND last >= ?4 UNION ALL SELECT first, last FROM "
	              "batch WHERE source = ?1 AND imported = 0 AND first <= ?5 AND last >= ?4 AND "
	              "instr(object, '/' || ?2 || '-' || ?3 || '-') > 0) ORDER BY 1 DESC LIMIT 1",
	              NULL },
	[SQL_DAMAGE] = { "SELECT " DAMAGE " FROM damage ORDER BY source, first", "damage" },
	[SQL_DAMAGE_NEXT] = { "SELECT " DAMAGE " FROM damage WHERE (source, first, boot) > (?, ?, ?) "
	                      "ORDER BY source, first, boot LIMIT 1",
	                      "damage" },
	[SQL_DAMAGE_BOOKS] = { "SELECT " DAMAGE " FROM damage WHERE source = ? AND last >= ? AND day >= ? "
	                       "ORDER BY first",
	                       "damage" },
	[SQL_DAMAGE_PUT] = { "INSERT OR REPLACE INTO damage (" DAMAGE ") VALUES (?, ?, ?, ?, ?, ?, ?, ?)", NULL },
	[SQL_REJECTED_NEXT] = { "SELECT " REJECTED " FROM rejected WHERE source > ? ORDER BY source LIMIT 1",
	                        "rejected" },
	[SQL_REJECTED_PUT] = { "INSERT OR REPLACE INTO rejected (" REJECTED ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
	                       NULL },
	[SQL_REJECTED_TRIM] = { "DELETE FROM rejected WHERE source IN (SELECT source FROM rejected ORDER BY at DESC "
	                        "LIMIT -1 OFFSET ?)",
	                        NULL },
	[SQL_CLOCK_GET] = { "SELECT boot, correction, crc FROM clock WHERE boot = ?", "clock" },
	[SQL_CLOCK_PUT] = { "INSERT OR REPLACE INTO clock (boot, correction, crc) VALUES (?, ?, ?)", NULL },
	[SQL_CLOCKS_TRIM] = { "DELETE FROM clock WHERE boot NOT IN (SELECT boot FROM chunk)", NULL },
	[SQL_STORE_GET] = { "SELECT name, place, crc FROM store WHERE name = ?", "store" },
	[SQL_STORE_USED] = { "SELECT 1 FROM book WHERE store = ? LIMIT 1", NULL },
	[SQL_STORE_PUT] = { "INSERT OR REPLACE INTO store (name, place, crc) VALUES (?, ?, ?)", NULL },

	[SQL_JOBS] = { "SELECT name, taken, cron, missed, crc FROM job ORDER BY name", "job" },
	[SQL_JOB_LAST] = { "SELECT max(ifnull((SELECT max(n) FROM due WHERE job = ?1), 0), "
	                   "ifnull((SELECT max(last) FROM run WHERE job = ?1), 0))",
	                   NULL },
	[SQL_JOB_PUT] = { "INSERT OR REPLACE INTO job (name, taken, cron, missed, crc) VALUES (?, ?, ?, ?, ?)", NULL },
	[SQL_JOB_DELETE] = { "DELETE FROM job WHERE name = ?", NULL },
	[SQL_DUE] = { "SELECT " DUE " FROM due WHERE job = ? AND n BETWEEN ? AND ? ORDER BY n", "due" },
	[SQL_DUE_PUT] = { "INSERT INTO due (" DUE ") VALUES (?, ?, ?, ?, ?, ?, ?, ?)", NULL },
	[SQL_DUE_DELETE] = { "DELETE FROM due WHERE job = ? AND n BETWEEN ? AND ?", NULL },
	[SQL_RUN_GET] = { "SELECT " RUN " FROM run WHERE id = ?", "run" },
	[SQL_RUN_PUT] = { "INSERT OR REPLACE INTO run (" RUN ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, "
	                  "?, ?, ?, ?, ?, ?, ?, ?)",
	                  NULL },
	[SQL_RUNS] = { "SELECT " RUN " FROM run WHERE id < ? ORDER BY id DESC LIMIT ?", "run" },
	[SQL_RUNS_TRIM] = { "DELETE FROM run WHERE id IN (SELECT id FROM run WHERE job = ? AND " OVER
	                    " ORDER BY id DESC LIMIT -1 OFFSET ?)",
	                    NULL },
	[SQL_RUNS_TRIM_ALL] = { "DELETE FROM run WHERE id IN (SELECT id FROM run WHERE " OVER
	                        " ORDER BY id DESC LIMIT -1 OFFSET ?)",
	                        NULL },
	[SQL_MACHINE_GET] = { "SELECT " MACHINE " FROM machine WHERE name = ?", "machine" },
	[SQL_MACHINE_PUT] = { "INSERT OR REPLACE INTO machine (" MACHINE ") VALUES (?, ?, ?, ?, ?, ?, ?)", NULL },
	[SQL_MACHINES_TRIM] = { "DELETE FROM machine WHERE name IN (SELECT name FROM machine ORDER BY since DESC "
	                        "LIMIT -1 OFFSET ?)",
	                        NULL },
	[SQL_DAYS] = { "SELECT " DAY " FROM machine_day WHERE machine = ? ORDER BY day DESC LIMIT ?", "machine_day" },
	[SQL_DAY_GET] = { "SELECT " DAY " FROM machine_day WHERE day = ? AND machine = ?", "machine_day" },
	[SQL_DAY_PUT] = { "INSERT OR REPLACE INTO machine_day (" DAY ") VALUES (?, ?, ?, ?, ?)", NULL },
	[SQL_DAYS_TRIM] = { "DELETE FROM machine_day WHERE machine = ?1 AND day IN (SELECT day FROM machine_day WHERE "
	                    "machine = ?1 ORDER BY day DESC LIMIT -1 OFFSET ?2)",
	                    NULL },
	[SQL_DAYS_TRIM_ALL] = { "DELETE FROM machine_day WHERE machine NOT IN (SELECT name FROM machine)", NULL },

	/* Rows of several versions: what they say of the books only ever grows. */
	[SQL_SALVAGE_BOOK] = { "INSERT INTO book (" BOOK ") VALUES (?, ?, ?, ?, ?, ?, ?, ?)" GROWN(""), NULL },
	[SQL_SALVAGE_LOST] = { "INSERT INTO lost (" LOST ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)" GROWN(
	                               "at = excluded.at, ") " OR (excluded.last = last AND excluded.at > at)",
	                       NULL },
	[SQL_SALVAGE_DAMAGE] = { "INSERT OR IGNORE INTO damage (" DAMAGE ") VALUES (?, ?, ?, ?, ?, ?, ?, ?)", NULL },
	[SQL_SALVAGE_REJECTED] = { "SELECT at FROM rejected WHERE source = ?", NULL },
	[SQL_SALVAGE_BOOK_AFTER] = { BOOK_AFTER("book", BOOK), "book" },
	[SQL_SALVAGE_LOST_AFTER] = { BOOK_AFTER("lost", LOST), "lost" },
	[SQL_SALVAGE_HAS] = { "SELECT first, last, 1 FROM book WHERE store = ?1 AND source = ?2 AND last >= ?3 UNION "
	                      "ALL SELECT first, last, 0 FROM lost WHERE store = ?1 AND source = ?2 AND last >= ?3 "
	                      "ORDER BY 1",
	                      NULL },
	[SQL_SALVAGE_STORES] = { "SELECT store FROM book WHERE source = ?1 UNION SELECT store FROM lost WHERE source = "
	                         "?1 UNION SELECT store FROM delivery JOIN batch ON batch.id = delivery.batch WHERE "
	                         "source = ?1",
	                         NULL },
	[SQL_SALVAGE_COVER] = { "SELECT first, last, day, device, boot FROM book WHERE source = ?1 AND ?2 IN (store, "
	                        "'') UNION ALL SELECT first, last, day, device, boot FROM lost WHERE source = ?1 AND "
	                        "?2 IN (store, '') UNION ALL SELECT first, "
	                        "last, day, device, boot FROM damage WHERE source = ?1 AND last > 0 ORDER BY first",
	                        NULL },
	[SQL_SALVAGE_BATCHES] = { "SELECT " BATCH " FROM batch WHERE source = ? AND imported = 0 ORDER BY first",
	                          "batch" },
	[SQL_SALVAGE_DELIVERED] = { "DELETE FROM batch WHERE delivered > 0", NULL },
	[SQL_SALVAGE_DELIVERIES] = { "DELETE FROM delivery WHERE batch NOT IN (SELECT id FROM batch)", NULL },
	[SQL_SALVAGE_CLOCKS] = { "INSERT OR REPLACE INTO clock (boot, correction, crc) VALUES (?, ?, ?)", NULL },
	[SQL_SALVAGE_COUNT] = { "SELECT count(*) FROM batch", NULL },
	[SQL_SALVAGE_DUE] = { "INSERT OR REPLACE INTO due (" DUE ") VALUES (?, ?, ?, ?, ?, ?, ?, ?)", NULL },
	[SQL_SALVAGE_JOB] = { "INSERT INTO job (name, taken, cron, missed, crc) VALUES (?, ?, ?, ?, ?) ON CONFLICT "
	                      "(name) DO UPDATE SET taken = excluded.taken, cron = excluded.cron, missed = "
	                      "excluded.missed, crc = excluded.crc WHERE (excluded.taken, excluded.cron, "
	                      "excluded.missed) > (taken, cron, missed)",
	                      NULL },
	[SQL_SALVAGE_MACHINE] = { "INSERT INTO machine (" MACHINE
	                          ") VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO "
	                          "UPDATE SET state = excluded.state, since = excluded.since, ours = excluded.ours, "
	                          "reason = excluded.reason, awake = excluded.awake, crc = excluded.crc WHERE "
	                          "excluded.since >= since",
	                          NULL },
	[SQL_SALVAGE_DAY] = { "INSERT INTO machine_day (" DAY ") VALUES (?, ?, ?, ?, ?) ON CONFLICT (day, machine) DO "
	                      "UPDATE SET wakes = excluded.wakes, awake = excluded.awake, crc = excluded.crc WHERE "
	                      "excluded.wakes >= wakes AND excluded.awake >= awake",
	                      NULL },
	/* One whose transaction never held, and which was made again under another id. */
	[SQL_SALVAGE_RUNS_TWICE] = { "DELETE FROM run WHERE state = 0 AND EXISTS (SELECT 1 FROM run AS other WHERE "
	                             "other.job = run.job AND other.first <= run.last AND other.last >= run.first AND "
	                             "(other.state > 0 OR other.id > run.id) AND other.id <> run.id)",
	                             NULL },
	[SQL_SALVAGE_JOBS] = { "INSERT OR IGNORE INTO job (name, taken, cron, missed, crc) SELECT job, 0, 0, 0, "
	                       "row_crc(job, 0, 0, 0) FROM due GROUP BY job",
	                       NULL },
	[SQL_SALVAGE_TAKEN] = { "UPDATE job SET taken = ran, crc = row_crc(name, ran, cron, missed) FROM (SELECT job, "
	                        "max(last) AS ran FROM run GROUP BY job) WHERE job = name AND ran > taken",
	                        NULL },
	[SQL_SALVAGE_LET_GO] = { "DELETE FROM due WHERE n <= (SELECT taken FROM job WHERE name = due.job) AND NOT "
	                         "EXISTS (SELECT 1 FROM run WHERE run.job = due.job AND n BETWEEN first AND last AND "
	                         "NOT " OVER ")",
	                         NULL },
};

static int prepare(struct queue *q, enum sql sql, struct err *err)
{
	if (sqlite3_prepare_v3(q->db, statements[sql].text, -1, SQLITE_PREPARE_PERSISTENT, &q->statements[sql], NULL) !=
	    SQLITE_OK)
		return queue_fail(q, err, statements[sql].text);
	return 0;
}

int queue_prepare(struct queue *q, struct err *err)
{
	int n = q->fresh ? SQL_STATEMENTS : SQL_LEDGER, r = 0;

	for (int i = 0; r == 0 && i < n; i++)
		r = prepare(q, (enum sql)i, err);
	return r;
}

/*
 * Since Linux 6.15 an ext4 that has turned itself read-only does not say so in statvfs, but to who syncs. The folder:
 * closing another descriptor of the file would give up its locks.
 */
static bool is_stopped(const struct queue *q)
{
	struct err ignored;

	return queue_sync_folder(q->path, &ignored) == -EROFS;
}

/* A card that is full or has turned read-only is an I/O error to SQLite, and no errno tells it from a broken one. */
static int ask_card(const struct queue *q)
{
	struct statvfs fs;

	if (statvfs(q->path, &fs) < 0)
		return -EIO;
	if (fs.f_flag & ST_RDONLY || is_stopped(q))
		return -EROFS;
	return fs.f_bavail == 0 ? -ENOSPC : -EIO;
}

static int translate(const struct queue *q, int code)
{
	switch (code & 0xff) {
	case SQLITE_FULL:
		return queue_is_bounded(q) ? -EDQUOT : -ENOSPC;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return -EBUSY;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
	case SQLITE_TOOBIG:     /* a length that no row of ours has */
	case SQLITE_CONSTRAINT: /* we write no row twice: an index is wrong */
	case SQLITE_ERROR:      /* no such table or column: a schema that is not ours */
		return -EBADMSG;
	default: /* SQLITE_IOERR, SQLITE_READONLY, SQLITE_CANTOPEN */
		return ask_card(q);
	}
}

static void note_failing(struct queue *q, int r)
{
	if (r == -ENOSPC || r == -EROFS || r == -EIO)
		q->failing = r;
}

int queue_fail(struct queue *q, struct err *err, const char *what)
{
	int r = translate(q, sqlite3_extended_errcode(q->db));
	const char *why = r == -EROFS    ? "the file system is read-only"
	                  : r == -EDQUOT ? "max_size is reached"
	                  : r == -ENOSPC ? "no space is left on the file system"
	                                 : sqlite3_errmsg(q->db);

	note_failing(q, r);
	q->damaged |= r == -EBADMSG;
	q->room.wanted |= r == -EDQUOT;
	q->room.card_full |= r == -ENOSPC;
	return err_fail(err, r, "buffer \"%s\": %s: %s", q->path, what, why);
}

int queue_damaged(struct queue *q, struct err *err, const char *table, int64_t id, const char *how)
{
	q->damaged = true;
	return err_fail(err, -EBADMSG, "buffer \"%s\" is damaged: %s %" PRId64 ": %s", q->path, table, id, how);
}

int queue_check(const struct queue *q, struct err *err)
{
	if (!q->db)
		return err_fail(err, q->status, "%s", q->said.text);
	if (q->damaged)
		return err_fail(err, -EBADMSG, "buffer \"%s\" is damaged, and is to be salvaged", q->path);
	return 0;
}

/* --- Transactions --- */

static int run_plain(struct queue *q, enum sql sql)
{
	int code = sqlite3_step(q->statements[sql]);

	sqlite3_reset(q->statements[sql]);
	return code == SQLITE_DONE ? 0 : -1;
}

int queue_begin(struct queue *q, struct err *err)
{
	int r = queue_check(q, err);

	if (r == 0)
		r = queue_check_files(q, err);
	if (r == -EIO)
		q->failing = r;
	if (r < 0)
		return r;
	return run_plain(q, SQL_BEGIN) < 0 ? queue_fail(q, err, "begin") : 0;
}

/* A transaction, or a long query, wants a large cache; what it leaves there is seldom needed again, and the kernel has
 * it too. */
static void trim_cache(struct queue *q)
{
	int used = 0, highest;

	sqlite3_db_status(q->db, SQLITE_DBSTATUS_CACHE_USED, &used, &highest, 0);
	if (used > CACHE_KEPT)
		sqlite3_db_release_memory(q->db);
}

int queue_end(struct queue *q, int r, struct err *err)
{
	int64_t pages = 0, free_pages = 0;

	if (r == 0)
		r = queue_count_pages(q, &pages, &free_pages, err);
	if (r == 0 && run_plain(q, SQL_COMMIT) < 0)
		r = queue_fail(q, err, "commit");
	trim_cache(q);
	note_failing(q, r);
	if (r == 0) {
		q->failing = 0;
		q->room.pages = pages;
		q->room.free_pages = free_pages;
		return 0;
	}
	for (int i = 0; i < SQL_STATEMENTS; i++)
		sqlite3_reset(q->statements[i]);
	/* SQLite has rolled back by itself after some errors. Nothing is left to do where this fails too. */
	if (!sqlite3_get_autocommit(q->db))
		run_plain(q, SQL_ROLLBACK);
	if (r == -ENOSPC || r == -EDQUOT)
		queue_empty_wal(q);
	return r;
}

/* --- Cells --- */

static int bind(sqlite3_stmt *stmt, int at, const struct cell *cell)
{
	switch (cell->type) {
	case SQLITE_INTEGER:
		return sqlite3_bind_int64(stmt, at, cell->number);
	case SQLITE_TEXT:
		return sqlite3_bind_text64(stmt, at, cell->data, cell->len, SQLITE_STATIC, SQLITE_UTF8);
	default:
		return sqlite3_bind_blob64(stmt, at, cell->data, cell->len, SQLITE_STATIC);
	}
}

static struct cell column(sqlite3_stmt *stmt, int at)
{
	struct cell cell = { .type = sqlite3_column_type(stmt, at) };

	if (cell.type == SQLITE_INTEGER) {
		cell.number = sqlite3_column_int64(stmt, at);
	} else {
		cell.data = sqlite3_column_blob(stmt, at);
		cell.len = (size_t)sqlite3_column_bytes(stmt, at);
	}
	return cell;
}

int queue_query(struct queue *q, enum sql sql, const struct cell *cells, size_t n, struct err *err)
{
	int r = queue_check(q, err);

	if (r == 0 && !q->statements[sql])
		r = prepare(q, sql, err);
	if (r < 0)
		return r;
	assert(sqlite3_bind_parameter_count(q->statements[sql]) == (int)n);
	for (size_t i = 0; i < n; i++) {
		if (bind(q->statements[sql], (int)i + 1, &cells[i]) != SQLITE_OK)
			return queue_fail(q, err, "bind");
	}
	return 0;
}

int queue_run(struct queue *q, enum sql sql, const struct cell *cells, size_t n, struct err *err)
{
	int r = queue_query(q, sql, cells, n, err);

	if (r == 0 && sqlite3_step(q->statements[sql]) != SQLITE_DONE)
		r = queue_fail(q, err, "write");
	sqlite3_reset(q->statements[sql]);
	return r;
}

int queue_put(struct queue *q, enum sql sql, const struct cell *cells, size_t n, struct err *err)
{
	struct cell row[PAGES_CELLS_MAX];

	assert(n < sizeof row / sizeof *row);
	memcpy(row, cells, n * sizeof *row);
	row[n] = cell_number(cell_crc(0, cells, n));
	return queue_run(q, sql, row, n + 1, err);
}

/* What queue_put would bind, for the schema's files. */
static void row_crc(sqlite3_context *context, int n, sqlite3_value **values)
{
	uint32_t crc = 0;

	for (int i = 0; i < n; i++) {
		struct cell cell = { .type = sqlite3_value_type(values[i]) };

		if (cell.type == SQLITE_INTEGER) {
			cell.number = sqlite3_value_int64(values[i]);
		} else {
			cell.data = sqlite3_value_blob(values[i]);
			cell.len = (size_t)sqlite3_value_bytes(values[i]);
		}
		crc = cell_crc(crc, &cell, 1);
	}
	sqlite3_result_int64(context, crc);
}

int queue_add_functions(struct queue *q, struct err *err)
{
	int flags = SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_DIRECTONLY;

	if (sqlite3_create_function(q->db, "row_crc", -1, flags, NULL, row_crc, NULL, NULL) != SQLITE_OK)
		return queue_fail(q, err, "open");
	return 0;
}

static bool row_is_sound(sqlite3_stmt *stmt)
{
	int crc_at = sqlite3_column_count(stmt) - 1;
	uint32_t crc = 0;

	for (int i = 0; i < crc_at; i++) {
		struct cell cell = column(stmt, i);

		crc = cell_crc(crc, &cell, 1);
	}
	return sqlite3_column_type(stmt, crc_at) == SQLITE_INTEGER && sqlite3_column_int64(stmt, crc_at) == crc;
}

int queue_step(struct queue *q, enum sql sql, struct err *err)
{
	sqlite3_stmt *stmt = q->statements[sql];
	int code, r = queue_check(q, err);

	if (r < 0)
		return r;
	code = sqlite3_step(stmt);
	if (code == SQLITE_DONE)
		return 0;
	if (code != SQLITE_ROW)
		return queue_fail(q, err, "read");
	if (!statements[sql].table || row_is_sound(stmt))
		return 1;
	q->damaged = true;
	return err_fail(err, -EBADMSG, "buffer \"%s\" is damaged: %s %s: its checksum is wrong", q->path,
	                statements[sql].table, (const char *)sqlite3_column_text(stmt, 0));
}

void queue_reset(struct queue *q, enum sql sql)
{
	sqlite3_reset(q->statements[sql]);
	if (q->db && sqlite3_get_autocommit(q->db))
		trim_cache(q);
}

int64_t queue_number(struct queue *q, enum sql sql, int at)
{
	return sqlite3_column_int64(q->statements[sql], at);
}

int queue_text(struct queue *q, enum sql sql, int at, char *text, size_t size, struct err *err)
{
	struct cell cell = column(q->statements[sql], at);

	if (cell.type != SQLITE_TEXT || cell.len >= size || memchr(cell.data ? cell.data : "", '\0', cell.len))
		return queue_damaged(q, err, statements[sql].table ? statements[sql].table : "row",
		                     queue_number(q, sql, 0), "a text is too long");
	memcpy(text, cell.data ? cell.data : "", cell.len);
	text[cell.len] = '\0';
	return 0;
}

/* --- Rows --- */

int queue_put_source(struct queue *q, const char *name, const struct mark *mark, struct err *err)
{
	const struct cell row[] = {
		cell_number(mark->id),
		cell_text(name),
		cell_number((int64_t)mark->seq),
		cell_number((int64_t)mark->fetch),
		cell_blob(mark->state, mark->state_len),
		cell_number(mark->batch),
	};

	return queue_put(q, SQL_SOURCE_PUT, CELLS(row), err);
}

void queue_note_chunk(struct queue *q, uint64_t plain)
{
	if (q->room.largest >= plain)
		return;
	q->room.largest = plain;
	q->room.largest_chunk = 0;
}

int queue_put_chunk(struct queue *q, const struct chunk_row *row, struct err *err)
{
	const struct cell cells[] = {
		cell_number(row->id),
		cell_text(row->source),
		cell_text(row->device),
		cell_text(row->boot),
		cell_number((int64_t)row->records),
		cell_number(row->day),
		cell_number((int64_t)row->lines),
		cell_number(row->last),
		cell_number(row->wall_ms),
		cell_number(row->mono_ms),
		cell_number((int64_t)row->fetch),
		cell_blob(row->state, row->state_len),
		cell_number((int64_t)row->plain),
		cell_blob(row->data, row->data_len),
	};

	queue_note_chunk(q, row->plain);
	return queue_put(q, SQL_CHUNK_PUT, CELLS(cells), err);
}

static int read_chunk_names(struct queue *q, enum sql sql, struct chunk_row *row, struct err *err)
{
	int r = queue_text(q, sql, 1, row->source, sizeof row->source, err);

	if (r == 0)
		r = queue_text(q, sql, 2, row->device, sizeof row->device, err);
	if (r == 0)
		r = queue_text(q, sql, 3, row->boot, sizeof row->boot, err);
	return r;
}

int queue_read_row(struct queue *q, enum sql sql, struct chunk_row *ret_row, struct err *err)
{
	struct chunk_row row = {
		.id = queue_number(q, sql, 0),
		.records = (uint64_t)queue_number(q, sql, 4),
		.day = queue_number(q, sql, 5),
		.lines = (uint64_t)queue_number(q, sql, 6),
		.wall_ms = queue_number(q, sql, 8),
		.mono_ms = queue_number(q, sql, 9),
		.fetch = (uint64_t)queue_number(q, sql, 10),
		.plain = (size_t)queue_number(q, sql, 12),
	};
	struct cell state = column(q->statements[sql], 11), data = column(q->statements[sql], 13);
	int64_t last = queue_number(q, sql, 7);
	int r = read_chunk_names(q, sql, &row, err);

	if (r < 0)
		return r;
	if (state.len > SINK_STATE_MAX)
		return queue_damaged(q, err, "chunk", row.id, "its state is too long");
	if (last < 0 || last > 1 + CHUNK_UNSYNCED)
		return queue_damaged(q, err, "chunk", row.id, "its clock is unknown");
	row.last = (uint8_t)last;
	row.staged = row.last == 0 && row.wall_ms == 0;
	row.clock = row.last > 0 ? row.last - 1 : 0;
	row.state = state.data;
	row.state_len = state.len;
	row.data = data.data;
	row.data_len = data.len;
	*ret_row = row;
	return 0;
}

int queue_put_batch(struct queue *q, const struct batch_row *row, struct err *err)
{
	const struct batch *b = &row->batch;
	const struct cell cells[] = {
		cell_number(b->id),
		cell_text(b->source),
		cell_text(b->key),
		cell_number((int64_t)b->first_seq),
		cell_number((int64_t)b->last_seq),
		cell_number((int64_t)b->raw_bytes),
		cell_number((int64_t)b->bytes),
		cell_blob(b->sha256, sizeof b->sha256),
		cell_number(row->oldest_ms),
		cell_number(b->sealed_ms),
		cell_number(b->delivered_ms),
		cell_number(b->imported),
	};

	return queue_put(q, SQL_BATCH_PUT, CELLS(cells), err);
}

int queue_read_batch(struct queue *q, enum sql sql, struct batch_row *ret_row, struct err *err)
{
	struct batch_row row = { .oldest_ms = queue_number(q, sql, 8) };
	struct batch *b = &row.batch;
	struct cell sha256 = column(q->statements[sql], 7);
	int r = queue_text(q, sql, 1, b->source, sizeof b->source, err);

	if (r == 0)
		r = queue_text(q, sql, 2, b->key, sizeof b->key, err);
	if (r < 0)
		return r;
	b->id = queue_number(q, sql, 0);
	if (sha256.len != SHA256_SIZE)
		return queue_damaged(q, err, "batch", b->id, "its SHA-256 has another length");
	memcpy(b->sha256, sha256.data, SHA256_SIZE);
	b->first_seq = (uint64_t)queue_number(q, sql, 3);
	b->last_seq = (uint64_t)queue_number(q, sql, 4);
	b->records = b->last_seq - b->first_seq + 1;
	b->raw_bytes = (uint64_t)queue_number(q, sql, 5);
	b->bytes = (uint64_t)queue_number(q, sql, 6);
	b->sealed_ms = queue_number(q, sql, 9);
	b->delivered_ms = queue_number(q, sql, 10);
	b->imported = queue_number(q, sql, 11) != 0;
	*ret_row = row;
	return 0;
}

int queue_get_batch(struct queue *q, int64_t id, struct batch_row *ret_row, struct err *err)
{
	const struct cell key[] = { cell_number(id) };
	int r = queue_query(q, SQL_BATCH_GET, CELLS(key), err);

	if (r == 0)
		r = queue_step(q, SQL_BATCH_GET, err);
	if (r == 0)
		r = err_fail(err, -ENOENT, "there is no batch %" PRId64, id);
	else if (r > 0)
		r = queue_read_batch(q, SQL_BATCH_GET, ret_row, err);
	queue_reset(q, SQL_BATCH_GET);
	return r;
}

int queue_get_waiting(struct queue *q, const struct waiting *waiting, struct batch_row *ret_row, struct err *err)
{
	int r = queue_get_batch(q, waiting->id, ret_row, err);

	return r == -ENOENT ? queue_damaged(q, err, "batch", waiting->id, "it is gone") : r;
}
