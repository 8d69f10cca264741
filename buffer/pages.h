/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads the buffer's file and its WAL page by page, without SQLite: what SQLite refuses, or drops without a word, can
 * still be there. Whether a row is one of ours, and which table's, is told by its checksum alone, so it does not matter
 * what else is damaged: header, trees, schema, free list, frames. Rows that were deleted, and earlier versions of rows,
 * are found too; the caller knows what is out of date. https://sqlite.org/fileformat2.html has the format.
 *
 * Reads with pread alone and changes nothing; what the card does not give (EIO) is counted and passed over. Memory: the
 * list of the WAL's frames and the row at hand. One thread, and not while SQLite has the file open in this process: a
 * close drops all locks that the process has on it (fcntl(2)).
 */
#ifndef BUFFER_PAGES_H
#define BUFFER_PAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "buffer/cell.h"

struct pages;

/*
 * Opens path and path-wal, of whatever content; a file that is missing is an empty one. The page size is 4096, which is
 * all that we ever made. 0, -ENOMEM, -ENOENT: neither is there, or what the system says.
 */
int pages_open(const char *path, struct pages **ret_pages, struct err *err);
void pages_close(struct pages *pages); /* NULL is fine */

/* How the WAL ends, as SQLite will take it (its §4.3: salts and running checksums up to a commit). */
enum pages_wal {
	PAGES_WAL_SOUND, /* nothing of this WAL's own lies behind its last whole transaction */
	/*
	 * Behind it lies one transaction that is not whole: it was cut off before it was durable; or it was, and is
	 * damaged. Only its rows can tell. Or what failed or was rolled back before.
	 */
	PAGES_WAL_TORN,
	/*
	 * SQLite would drop what was durable: behind it lies a commit that another transaction was built on, or one
	 * that is in the file already; or the WAL's header is no header, and not all of it is in the file. Or it would
	 * not open the file, because the card does not give the WAL's header, or a frame that SQLite needs.
	 */
	PAGES_WAL_DAMAGED,
};
enum pages_wal pages_judge_wal(const struct pages *pages);

/* Tables, in the order in which a row is tried. */
enum pages_table {
	PAGES_BUFFER,
	PAGES_SOURCE,
	PAGES_CHUNK,
	PAGES_BATCH,
	PAGES_PART,
	PAGES_DELIVERY,
	PAGES_STORE,
	PAGES_BOOK,
	PAGES_LOST,
	PAGES_DAMAGE,
	PAGES_CLOCK,
	PAGES_IMPORTED,
	PAGES_REJECTED,
	PAGES_DUE,
	PAGES_JOB,
	PAGES_RUN,
	PAGES_MACHINE,
	PAGES_DAY,
	PAGES_TABLES
};
#define PAGES_CELLS_MAX 23

struct pages_row {
	enum pages_table table;
	/*
	 * In the order of queue_sql.c's statements, without the checksum, which was right; a row of an earlier schema
	 * has as many more as it lacks, filled with what the schema's files would give it. Borrowed during the call.
	 */
	struct cell cells[PAGES_CELLS_MAX];
	size_t n;
	/*
	 * It was committed: it is in the file, in a frame that SQLite takes, or before a commit of this WAL that
	 * another transaction was built on. Of others nobody knows.
	 */
	bool sure;
};

enum pages_where {
	/*
	 * What is left of the frames of the WAL before this one began anew, the oldest first; the file's pages in their
	 * order; this WAL's frames from the first to the last.
	 */
	PAGES_ALL,
	PAGES_TAIL, /* this WAL's frames behind its last whole transaction */
	/*
	 * The file's pages of which this WAL has newer ones, and those behind the end that it gives the file. What is
	 * there was committed before the WAL's frames were, or by frames of it that came to the file and are gone.
	 */
	PAGES_UNDER,
};

/*
 * Calls on_row for every row whose checksum is right, of the tables whose bit (1 << enum pages_table) is in `tables`;
 * a row may come several times, an earlier version before a later one as far as the WAL's order tells. `max_len`: rows
 * with more bytes are passed over. 0, -ENOMEM, or what on_row returned if that is below 0; 1 from on_row ends it early
 * with 0.
 */
typedef int (*pages_on_row)(void *arg, const struct pages_row *row);
int pages_each(struct pages *pages, enum pages_where where, unsigned tables, size_t max_len, pages_on_row on_row,
               void *arg);

/* Pages that the card did not give since pages_open. */
uint64_t pages_unread(const struct pages *pages);

#endif
