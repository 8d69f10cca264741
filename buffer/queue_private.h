/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the queue share: its memory and its way to SQLite. Only buffer/queue*.c, the salvage and the ledger
 * include it.
 *
 * What is asked for often (next seq, what is due, what waits) is kept in memory, as of the last COMMIT that succeeded:
 * a transaction works on copies and its caller takes them over afterwards, so a failed one has changed nothing.
 *
 *     queue.c         configuration, sources, figures      queue_seal.c      chunks to batches
 *     queue_open.c    the file, its lock, its schema       queue_delivery.c  batches to stores, and their end
 *     queue_load.c    the memory, from the file            queue_read.c      records, lists of batches
 *     queue_stage.c   fetches that are not complete yet
 *     queue_commit.c  fetches to chunks                    queue_books.c     what each store has, for ever
 *     queue_room.c    how much of the card it may take     queue_rejected.c  the newest refused answers
 *     queue_clock.c   when the records came           queue_import.c    batches of another Millrace
 *     queue_again.c   what a store has lost again      queue_shrink.c    how large the file itself is
 *     queue_sql.c     all SQL, rows and their checksums
 *     queue_start.c   looking, loading, salvaging          queue_tail.c      what lies behind the end of the WAL
 */
#ifndef BUFFER_QUEUE_PRIVATE_H
#define BUFFER_QUEUE_PRIVATE_H

#include <sqlite3.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "buffer/cell.h"
#include "buffer/chunk.h"
#include "buffer/pages.h"
#include "buffer/queue.h"

#define SOURCES_MAX 4096      /* that are configured at a time; names with a row are known for ever */
#define STORES_MAX  64        /* bits of a mask */
#define WAITING_MAX (1 << 20) /* 56 MB; sealing pauses there, and the chunks stay */
#define WAL_PAGES   1000      /* at which a commit brings the WAL into the file, and it begins anew */

#define PAGE        4096 /* bytes of one of the file's */

#define SEQ_BITS    40
#define SEQ_MAX     ((INT64_C(1) << SEQ_BITS) - 1)
#define PART_BITS   16
#define PART_MAX    ((1 << PART_BITS) - 1)

enum sql {
	SQL_BEGIN,
	SQL_COMMIT,
	SQL_ROLLBACK,
	SQL_PAGES,
	SQL_PAGES_FREE,
	SQL_BUFFER_GET,
	SQL_BUFFER_PUT,
	SQL_SOURCES,
	SQL_SOURCE_PUT,
	SQL_CHUNKS,
	SQL_CHUNK_HOLDING,
	SQL_CHUNK_PLAN,
	SQL_CHUNK_CLOSING,
	SQL_CHUNK_LARGEST,
	SQL_CHUNK_PUT,
	SQL_CHUNKS_DELETE,
	SQL_BATCH_GET,
	SQL_BATCH_PUT,
	SQL_BATCHES_WAITING,
	SQL_BATCHES_NEWEST,
	SQL_BATCHES_OF,
	SQL_BATCHES_FROM,
	SQL_BATCHES_COUNT,
	SQL_BATCH_DELETE,
	SQL_PART_GET,
	SQL_PART_PUT,
	SQL_PART_FILL,
	SQL_PARTS_DELETE,
	SQL_PARTS_DELETE_STRAY,
	SQL_DELIVERIES,
	SQL_DELIVERY_PUT,
	SQL_DELIVERY_DELETE,
	SQL_DELIVERIES_DELETE,
	SQL_BOOK_NEAR,
	SQL_BOOKS,
	SQL_BOOK_PUT,
	SQL_BOOK_DELETE,
	SQL_LOST,
	SQL_LOST_NEAR,
	SQL_LOST_BOOKS,
	SQL_LOST_PUT,
	SQL_LOST_DELETE,
	SQL_IMPORTED_NEAR,
	SQL_IMPORTED_PUT,
	SQL_IMPORTED_DELETE,
	SQL_OWN,
	SQL_DAMAGE,
	SQL_DAMAGE_NEXT,
	SQL_DAMAGE_BOOKS,
	SQL_DAMAGE_PUT,
	SQL_REJECTED_NEXT,
	SQL_REJECTED_PUT,
	SQL_REJECTED_TRIM,
	SQL_CLOCK_GET,
	SQL_CLOCK_PUT,
	SQL_CLOCKS_TRIM,
	SQL_STORE_GET,
	SQL_STORE_USED,
	SQL_STORE_PUT,
	/* Prepared when they are needed first: without jobs and machines they cost nothing. */
	SQL_LEDGER,
	SQL_JOBS = SQL_LEDGER,
	SQL_JOB_LAST,
	SQL_JOB_PUT,
	SQL_JOB_DELETE,
	SQL_DUE,
	SQL_DUE_PUT,
	SQL_DUE_DELETE,
	SQL_RUN_GET,
	SQL_RUN_PUT,
	SQL_RUNS,
	SQL_RUNS_TRIM,
	SQL_RUNS_TRIM_ALL,
	SQL_MACHINE_GET,
	SQL_MACHINE_PUT,
	SQL_MACHINES_TRIM,
	SQL_DAYS,
	SQL_DAY_GET,
	SQL_DAY_PUT,
	SQL_DAYS_TRIM,
	SQL_DAYS_TRIM_ALL,
	/* Of a salvage's fresh file alone. */
	SQL_SALVAGE,
	SQL_SALVAGE_BOOK = SQL_SALVAGE,
	SQL_SALVAGE_LOST,
	SQL_SALVAGE_DAMAGE,
	SQL_SALVAGE_REJECTED,
	SQL_SALVAGE_BOOK_AFTER,
	SQL_SALVAGE_LOST_AFTER,
	SQL_SALVAGE_HAS,
	SQL_SALVAGE_STORES,
	SQL_SALVAGE_COVER,
	SQL_SALVAGE_BATCHES,
	SQL_SALVAGE_DELIVERED,
	SQL_SALVAGE_DELIVERIES,
	SQL_SALVAGE_CLOCKS,
	SQL_SALVAGE_COUNT,
	SQL_SALVAGE_DUE,
	SQL_SALVAGE_JOB,
	SQL_SALVAGE_MACHINE,
	SQL_SALVAGE_DAY,
	SQL_SALVAGE_RUNS_TWICE,
	SQL_SALVAGE_JOBS,
	SQL_SALVAGE_TAKEN,
	SQL_SALVAGE_LET_GO,
	SQL_STATEMENTS
};

/* A source's route as the queue keeps it. */
struct route {
	int64_t max_bytes, max_records, max_age_ms;
	uint64_t stores; /* bits by the index in queue.stores */
};

/* The first unsealed records of a source: they say what can go into one batch, and when it is due. */
struct head {
	int64_t day, wall_ms, mono_ms;
	bool current;  /* of this boot and device */
	bool unsynced; /* of this boot, and its time may yet be corrected */
};

/* What lies behind a source's last record and is no fetch of its yet: chunks from id seq on. */
struct staged {
	uint64_t records, lines, stored;
	int64_t ticket; /* its chunks have it, so that what is left of another fetch is not taken for its */
	bool given_up;  /* no commit will publish them: the next transaction of the source deletes them */
	uint64_t turn;  /* the lower one began first */
};

/* A source's progress. */
struct mark {
	int64_t id;              /* 0: no row yet */
	int64_t batch;           /* the last one, as its row has it; an id is never used again */
	uint64_t seq, fetch;     /* the next record's; fetches committed so far */
	uint64_t records, lines; /* unsealed */
	uint64_t unsynced;       /* of these, which this boot brought while its clock was not right */
	uint64_t stored;         /* bytes of the data of its chunks with records, staged ones included */
	struct head head;        /* while records > 0 */
	struct staged staged;
	size_t state_len;
	uint8_t state[SINK_STATE_MAX];
};

/* What is sealed and some store has not. */
struct backlog {
	uint64_t batches, records, bytes;
	int64_t oldest_ms; /* wall time of the oldest record; 0: none */
};

struct source {
	char name[UNITS_NAME_MAX];
	struct route route;
	bool configured; /* it has a route of its own: it shows, with or without a row */
	struct mark now;
	struct mark then;      /* what `now` becomes when the transaction under way has held */
	bool touched;          /* by that transaction */
	int64_t rest_until_ms; /* monotonic; no sealing before, because the last one failed */
	bool rests_for_room;   /* and that is why */
	struct backlog backlog;
	uint64_t highest;       /* seq of all that wait */
	bool mixed;             /* those that wait are not in the order of their seqs */
	uint64_t dropped;       /* records that are lost for some store */
	struct staged going_on; /* across a salvage; records 0: none does */
	bool stale;             /* what was staged did not outlast it, and who staged it has not been told */
	uint64_t damaged;       /* records that damage has destroyed, as far as their number is known */
	unsigned jobs;          /* that want what is delivered of it */
};

/* A sealed batch that some store has not, or whose row could not be told yet that all have it. */
struct waiting {
	int64_t id;
	struct source *source;
	uint64_t first_seq, records, bytes;
	int64_t oldest_ms;
	uint64_t done; /* which stores have it */
	bool imported;
};

struct queue_store {
	char name[UNITS_NAME_MAX];
	int64_t handed; /* the batch that queue_next_delivery named last, queue_drop not called since; 0: none */
	uint64_t delivered;
	struct backlog backlog;
};

/* What queue_bound was told, in the units of the file; max_size 0: nothing yet. */
struct room {
	int64_t max_size;
	int64_t told_record;       /* its max_record */
	int64_t max_record;        /* that, or what lies here since it was allowed */
	int64_t wal_max;           /* bytes that the WAL may grow to */
	int64_t limit;             /* pages of the file below that */
	int64_t pages, free_pages; /* as of the last commit */
	bool full;
	bool wanted;           /* something was refused for want of it, and nothing was taken since */
	bool card_full;        /* the same for want of room on the card */
	uint64_t largest;      /* bytes of the text of the largest chunk that lies here, or did (queue_room.c) */
	int64_t largest_chunk; /* 0: not known */
};

/*
 * Where the delivered batches are: none has an id below `next`, or was delivered before soonest_ms, but those that the
 * search under way has passed and left. Zeros: nothing is known yet.
 */
struct delivered {
	int64_t next, soonest_ms;
	struct {
		uint64_t n;
		int64_t first, soonest_ms; /* of them; where n > 0 */
	} left;
};

/* What a chunk that ends a fetch says of those before it: all of them from id `first` on. 0: nothing is known. */
struct closing {
	int64_t first, id;
	int64_t day, wall_ms, mono_ms;
	uint8_t clock;
};

/* What queue_set_clock was told, and what it made of that. */
struct own_clock {
	bool known, written; /* the correction: at all, in the file */
	int64_t correction_ms;
	int64_t wait_until_ms, mono_ms;
};

/* The correction of the boot that was asked for last; "": none was. */
struct other_clock {
	char boot[OBJECT_BOOT];
	bool known;
	int64_t correction_ms;
};

struct seal;
struct import;

struct tail;

struct ledger;

struct queue {
	sqlite3 *db; /* NULL: it is not open */
	sqlite3_stmt *statements[SQL_STATEMENTS];
	int status; /* of the last queue_start, and what it said */
	struct err said;
	bool loaded;  /* what is in memory was read from the file, to the end */
	bool marked;  /* the sources, at least, were: where each goes on is known */
	bool damaged; /* something in the file is not what was written */
	int failing;  /* what the card did last: -ENOSPC, -EROFS, -EIO; 0: a transaction held since */
	struct tail *tail;
	bool fresh; /* it is a salvage's, and not yet anybody's */
	atomic_bool salvaging;
	struct queue_salvage salvage; /* the last one */
	struct queue_bounds bounds;   /* max_size 0: none were told */
	char *path, *kernel_boot_id;
	struct {
		dev_t dev;
		ino_t file, wal; /* 0: not known */
	} files;
	char device[UNITS_NAME_MAX];
	char boot[OBJECT_BOOT];
	struct source **sources;
	size_t n_sources;
	struct route fallback;
	struct queue_store *stores;
	size_t n_stores;
	struct waiting *waiting; /* by id; a batch that all have is among them until its row says so */
	size_t n_waiting, waiting_capacity;
	uint64_t batches; /* on the card */
	struct delivered delivered;
	int64_t last_batch;
	struct room room;
	struct closing closing; /* the last one found */
	struct own_clock clock;
	struct other_clock other_clock;
	uint64_t turns;           /* large fetches that were begun */
	struct seal *sealing;     /* a batch half made; NULL: none */
	struct import *importing; /* a batch half taken over; NULL: none */
	int64_t stray;            /* the id of what came to nothing, below the last batch; 0: none is known */
	struct ledger *ledger;    /* NULL: there are no jobs */
};

/* --- queue_sql.c --- */

/* What SQL of buffer/schema may call besides SQLite's own. */
int queue_add_functions(struct queue *q, struct err *err);

/* Prepares every statement; the schema must stand. */
int queue_prepare(struct queue *q, struct err *err);

/* Fills err from what SQLite said last, and returns its -errno. `what` was tried. */
int queue_fail(struct queue *q, struct err *err, const char *what);
int queue_damaged(struct queue *q, struct err *err, const char *table, int64_t id, const char *how);

/* 0: it is open, and nothing damaged was met; else why nothing can be done now. */
int queue_check(const struct queue *q, struct err *err);

int queue_begin(struct queue *q, struct err *err);

/* Ends a transaction: commits where r is 0, else rolls back. 0, r, or what the commit failed with. */
int queue_end(struct queue *q, int r, struct err *err);

/* Binds the cells and runs the statement. queue_put binds the row's checksum behind them. 0 or -errno. */
int queue_run(struct queue *q, enum sql sql, const struct cell *cells, size_t n, struct err *err);
int queue_put(struct queue *q, enum sql sql, const struct cell *cells, size_t n, struct err *err);

/*
 * Queries: queue_query binds, queue_step returns 1 (a row, its checksum tried, if the statement's rows have one), 0
 * (the end) or -errno. The rows are borrowed until the next step; queue_reset ends a query early and is needed after
 * every one.
 */
int queue_query(struct queue *q, enum sql sql, const struct cell *cells, size_t n, struct err *err);
int queue_step(struct queue *q, enum sql sql, struct err *err);
void queue_reset(struct queue *q, enum sql sql);
int64_t queue_number(struct queue *q, enum sql sql, int column);

/* A text column into text; -EBADMSG where it does not fit. */
int queue_text(struct queue *q, enum sql sql, int column, char *text, size_t size, struct err *err);

/*
 * A staged chunk was written before its fetch was complete, and is not written again when it is: so in the file its
 * day and wall are 0, as in its span, and mono is a number that all of its fetch have; they and the clock are those of
 * the chunk that ends the fetch, the first one behind it with `last`. Its state and fetch number are what was committed
 * before. Its lines are no fewer than they say.
 */
struct chunk_row {
	int64_t id;
	char source[UNITS_NAME_MAX], device[UNITS_NAME_MAX], boot[OBJECT_BOOT];
	uint64_t records, lines, fetch;
	int64_t day, wall_ms, mono_ms;
	uint8_t last; /* 0: its fetch goes on in the next chunk; else 1 + clock of its first fetch (enum chunk_clock) */
	bool staged;
	uint8_t clock; /* of its fetches; corrected, by that much, where they came unsynced */
	int64_t correction_ms;
	bool unsynced;            /* they came so in this boot, be they corrected or not */
	const void *state, *data; /* borrowed until the next step */
	size_t state_len, data_len, plain;
};

/* The row at hand, as it stands in the file; and, by queue_clock.c, with the time that is known by now. */
int queue_read_row(struct queue *q, enum sql sql, struct chunk_row *ret_row, struct err *err);
int queue_read_chunk(struct queue *q, enum sql sql, struct chunk_row *ret_row, struct err *err);

/* Of SQL_CHUNK_PLAN's chunk at hand: its day, and whether it is of this boot and may yet be corrected. */
int queue_plan_day(struct queue *q, int64_t *ret_day, bool *ret_unsynced, struct err *err);

/* Puts the time of a row right whose own is complete, if that can be done. A row of this boot cannot fail. */
int queue_correct(struct queue *q, struct chunk_row *row, struct err *err);

/* What came unsynced in this boot is not sealed yet. */
bool queue_keeps_back(const struct queue *q, int64_t mono_ms);

uint64_t queue_count_unsynced(const struct queue *q); /* records */

/* Whether this boot's correction is in the file. Before the chunks are loaded. */
int queue_load_clock(struct queue *q, struct err *err);

/* In a transaction: writes it there. */
int queue_put_clock(struct queue *q, struct err *err);

/*
 * The chunk of a source that begins at that seq. What is committed ends at `seq` - 1; at `seq` there may be a chunk
 * without records or what is staged.
 */
static inline int64_t queue_chunk_id(const struct mark *mark, uint64_t seq)
{
	return mark->id << SEQ_BITS | (int64_t)seq;
}

/* The head that a source has whose first unsealed chunk this is. */
struct head queue_head(const struct queue *q, const struct chunk_row *row);

/* A chunk's text is that long: one transaction must be able to hold it, also when it is sealed. */
void queue_note_chunk(struct queue *q, uint64_t plain);

int queue_put_chunk(struct queue *q, const struct chunk_row *row, struct err *err);

struct batch_row {
	struct batch batch;
	int64_t oldest_ms;
};

int queue_read_batch(struct queue *q, enum sql sql, struct batch_row *ret_row, struct err *err);
int queue_put_batch(struct queue *q, const struct batch_row *row, struct err *err);

/* 0, -ENOENT, … */
int queue_get_batch(struct queue *q, int64_t id, struct batch_row *ret_row, struct err *err);

/* The same of one that waits: that it is not there is damage, where -ENOENT would say that all is done. */
struct waiting;
int queue_get_waiting(struct queue *q, const struct waiting *waiting, struct batch_row *ret_row, struct err *err);

int queue_put_source(struct queue *q, const char *name, const struct mark *mark, struct err *err);

/* --- the others --- */

int queue_load(struct queue *q, struct err *err);

/* Makes the file where it is missing. 0, -EBADMSG, -EMEDIUMTYPE, … without a change, and without SQLite. */
int queue_look(struct queue *q, struct err *err);

int queue_lock(const struct queue *q, int *ret_fd, struct err *err);
int queue_name_owner(const char *path, struct err *err);

/*
 * The folder that a file stands in: a name that is not durable takes all that is behind it along in a power cut. 0 or
 * -errno.
 */
int queue_sync_folder(const char *path, struct err *err);

/* Which files it has opened, by number; and whether their names still lead there. 0 or -EIO. */
void queue_note_files(struct queue *q);
int queue_check_files(const struct queue *q, struct err *err);

/* What SQLite opens; it loads nothing. And a salvage's file, which does not exist yet. */
int queue_open_file(struct queue *q, struct err *err);
int queue_open_fresh(struct queue *q, struct err *err);

/* The chunks that lie behind the end of the WAL, until they are adopted. */
int queue_note_tail(struct queue *q, struct pages *pages, struct err *err);
void queue_drop_tail(struct queue *q);
int queue_check_ahead(struct queue *q, bool with_chunks, struct err *err);

/* Commits those that go on where the file ends: 1, 0: there are none, -errno. All is loaded, nothing staged deleted. */
int queue_adopt_tail(struct queue *q, struct err *err);

/* Closes what SQLite has open, and drops what is half made. What is in memory stays. */
void queue_shut(struct queue *q);

/* As queue_new has it; what was configured stays, and so do pointers to sources. */
void queue_forget(struct queue *q);

/* Who has what, after a start: what was configured before counts from here on. */
int queue_judge(struct queue *q, struct err *err);

/* The same of queue_bound. */
int queue_take_bounds(struct queue *q, struct err *err);

struct source *queue_find_source(const struct queue *q, const char *name);

/* Finds or adds it in memory. -ENOMEM. */
int queue_add_source(struct queue *q, const char *name, struct source **ret_source, struct err *err);

/* It has a row, or the configuration names it. */
bool queue_is_known(const struct source *source);

/* Begins to change a source in the transaction under way: returns its `then`. */
struct mark *queue_touch(struct source *source);

/* The transaction has held (or not): every touched source's `then` is its `now` (or forgotten). */
void queue_settle(struct queue *q, bool held);

/* In a transaction: gives a source without a row its row, with the next id. */
int64_t queue_next_source_id(const struct queue *q);
int queue_make_source(struct queue *q, struct source *source, struct err *err);

int queue_find_store(const struct queue *q, const char *name); /* its index or -1 */

/* All of the source's stores are among `done`. A source without a store never says so: nobody has its batch. */
bool queue_all_done(const struct source *source, uint64_t done);

struct waiting *queue_find_waiting(const struct queue *q, int64_t batch);

/* The place of the first one with that id or a higher one; n_waiting: there is none. */
size_t queue_waiting_from(const struct queue *q, int64_t id);
int queue_grow_waiting(struct queue *q, struct err *err); /* room for one more */
void queue_add_waiting(struct queue *q, struct source *source, const struct batch_row *row);

/* There is more room: sources whose sealing rests for want of it are tried at once. */
void queue_note_room(struct queue *q);

/* The backlogs of sources and stores, after waiting batches have changed or gone. */
void queue_sum_waiting(struct queue *q);

/* Writes of the waiting batches that all their stores have that they are delivered, and forgets them. */
int queue_end_done(struct queue *q, struct err *err);

/* Which of the configured stores have the batch, by the file; and when the last of all got it. */
int queue_deliveries(struct queue *q, int64_t batch, uint64_t *ret_done, int64_t *ret_last_ms, struct err *err);

/*
 * In a transaction: the store has the batch (QUEUE_DELIVERED) or will never have it (QUEUE_LOST), so its book says so.
 * Booking again what is booked changes nothing.
 */
int queue_book(struct queue *q, enum queue_range_kind kind, const char *store, const struct batch *batch,
               struct err *err);

/* In a transaction: the store has it no more, so its book says nothing of it. What is not booked stays so. */
int queue_unbook(struct queue *q, const char *store, const struct batch *batch, struct err *err);

/* Counts what each source has lost for some store, and by damage. */
int queue_load_lost(struct queue *q, struct err *err);
int queue_load_damage(struct queue *q, struct err *err);

/*
 * In a transaction that takes pages for what is new, at its end: 0, or -EDQUOT (of max_size) or -ENOSPC (of the
 * card) where it would take of what sealing, delivering and deleting need. Nothing is refused while no bound was told.
 */
int queue_check_room(struct queue *q, struct err *err);

/* The same for what is staged, which leaves some room to the commits of others while it waits for its fetch's end. */
int queue_check_staging_room(struct queue *q, struct err *err);

/* Pages of the file, and those of them that are free; in a transaction as it stands. */
int queue_count_pages(struct queue *q, int64_t *ret_pages, int64_t *ret_free, struct err *err);

/* After a failure for want of space: what the WAL holds goes into the file, so that the WAL begins anew. */
void queue_empty_wal(struct queue *q);

/* After chunks have gone: what only a larger record than may come now had need of is given back. */
void queue_forget_largest(struct queue *q);

/* Gives back what a file above its bound no longer needs, if it is enough to bring it below. */
void queue_shrink(struct queue *q);

/* Gives back what a backlog has left, where that costs next to nothing. To be asked when something was deleted. */
void queue_give_back(struct queue *q);

/* A new file is made large enough to work on a card that others have filled. */
void queue_grow(struct queue *q);
void queue_set_page_limit(struct queue *q);

/* Bytes that are kept for sealing, delivering and deleting; that are free on the card; below which it is full. */
int64_t queue_reserve(const struct queue *q);
int64_t queue_card_bytes(const struct queue *q);
int64_t queue_low(const struct queue *q);

/* Bytes of the file, or with suffix "-wal" of its WAL; 0 where there is none. */
int64_t queue_file_size(const struct queue *q, const char *suffix);

/* Bytes that commits may still take; INT64_MAX without a bound. ret_full: as queue_view says it. */
int64_t queue_room_bytes(struct queue *q, bool *ret_full);

/* Whether it is the bound that is reached, and not the end of the card. */
bool queue_is_bounded(const struct queue *q);

/* Bytes of a piece's records as object lines, the first of them in that envelope. */
uint64_t queue_piece_lines(const struct envelope *first, const struct fetch_piece *piece);

/* -ESTALE, with its text. */
int queue_stale(const char *source, struct err *err);

/* In a transaction: deletes what is staged of a touched source. */
int queue_delete_staged(struct queue *q, struct source *source, struct err *err);

/* Forgets the batch half made; what is written of it is deleted by the next sealing. */
void queue_seal_free(struct queue *q);

/* The id of the batch half made; 0: there is none. */
int64_t queue_sealing_id(const struct queue *q);

/* The same of the batch half taken over, and its end without a trace in memory. */
int64_t queue_importing_id(const struct queue *q);
void queue_import_free(struct queue *q);

/* In a transaction: an imported batch is remembered. */
int queue_put_taken(struct queue *q, const struct object_name *name, int64_t wall_ms, struct err *err);

/* In a transaction: an imported batch goes before all stores have it; so it may be taken over again. */
int queue_forget_taken(struct queue *q, const struct batch *batch, struct err *err);

/* The highest id that a batch has or is to have: the next one's comes after it. */
int64_t queue_top_batch(const struct queue *q);

/*
 * Parts of batches that came to nothing. In a transaction, before the first part is written under a new id: what lies
 * there is deleted, all behind it too where no higher id is taken, and what queue_leave_parts remembers. After a crash
 * there may be some below the last batch as well, which queue_delete_stray looks for at a start.
 */
int queue_clear_parts(struct queue *q, int64_t id, struct err *err);
void queue_leave_parts(struct queue *q, int64_t id);
void queue_delete_stray(struct queue *q);

/*
 * In a transaction or before one: 0, or -ENOSPC where so many bytes more, of a batch taken over, would leave our own
 * records less than they want. Nobody makes room for it.
 */
int queue_check_import_room(struct queue *q, uint64_t bytes, struct err *err);

/* Bytes that are written of the batch half made. */
uint64_t queue_sealed_bytes(const struct queue *q);

/* Every record of a chunk in its envelope; `plain` is scratch memory. 0, -EBADMSG, -ENOMEM, or what on_record said. */
int queue_chunk_each(struct queue *q, const struct chunk_row *row, struct bytes *plain,
                     int (*on_record)(void *arg, const struct envelope *envelope, const void *data, size_t len),
                     void *arg, struct err *err);

/* --- ledger.c --- */

int ledger_load(struct queue *q, struct err *err);
void ledger_free(struct ledger *ledger); /* NULL is fine */

/* Deletes what waits for jobs that are gone. What fails is tried again with the next delivery, or at the next start. */
void ledger_tidy(struct queue *q);

/* How many jobs there are, and how many of them want a source. */
unsigned ledger_jobs(const struct queue *q);
unsigned ledger_count_jobs(const struct queue *q, const char *source);

/* In the transaction of a batch's first delivery to the store: it is due. Once that has held, ledger_settle. */
int ledger_deliver(struct queue *q, const struct batch *batch, const char *store, int64_t wall_ms, struct err *err);
void ledger_settle(struct queue *q);

/* --- ledger_run.c, in a salvage's transaction --- */

/* A row of table run is there in this version, or in a later one: 1, 0, -errno. */
int ledger_has_edge(struct queue *q, const char *run, int64_t edge, struct err *err);

/* Once all rows are there: brings them together. */
int ledger_mend(struct queue *q, struct err *err);

#endif
