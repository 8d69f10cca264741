/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The buffer: one SQLite file in WAL mode with synchronous=FULL that one process owns. It takes fetches, seals them
 * into batches, hands batches to stores and knows who has what. All SQL of Millrace stands here and in buffer/schema.
 * It decides what is due; agent/courier acts. Synchronous: after queue_open every call is made by jobs of one worker,
 * but queue_view's copies may be read anywhere.
 *
 * What is durable is what a transaction here has committed. A failed call leaves the buffer as it was, and may be made
 * again: -EDQUOT (max_size is reached), -ENOSPC (the card is full), -EIO, -EROFS and -ENOMEM are states, not ends.
 * -EBADMSG is damage, told with the place: from then on all is refused until queue_start has salvaged what it can.
 */
#ifndef BUFFER_QUEUE_H
#define BUFFER_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/sha256.h"
#include "base/units.h"
#include "buffer/fetch.h"
#include "buffer/object.h"

struct queue;

struct queue_identity {
	const char *device;         /* the configuration's */
	const char *kernel_boot_id; /* board/'s */
};

/*
 * A queue that is not open yet. It can be configured, bounded, viewed and closed; all else fails as queue_start did
 * last. path and identity are copied. NULL: no memory.
 */
struct queue *queue_new(const char *path, const struct queue_identity *identity);

/*
 * Opens or makes the buffer, brings its schema up to date, and takes it for this process alone; a buffer that is
 * damaged, found so here or by any call since (queue_is_sound), is salvaged into a fresh one where `salvage` says so
 * (buffer/salvage.h). Does nothing where it is open and sound. 0; 1: it was salvaged, queue_last_salvage says more;
 *   -ENOENT, -ENOTDIR, -EACCES, -EPERM  its folder or file is missing or forbidden (exit 73)
 *   -EBUSY    another process owns it; err names its pid (exit 75)
 *   -EMEDIUMTYPE  no buffer of ours; -EPROTONOSUPPORT  a schema newer than this program (exit 65)
 *   -EBADMSG  damaged, and `salvage` is false
 *   -EROFS, -ENOSPC, -EIO, -ENOMEM, others  states: it may be called again
 * Nothing is changed in a file that is refused. Batch ids, seqs and what a fetch has staged outlast a salvage; neither
 * an id nor a seq is used again of which anything readable tells.
 */
int queue_start(struct queue *queue, bool salvage, struct err *err);

/* Both in one, for those who cannot wait: a damaged one is salvaged; nothing is left open where it fails. */
int queue_open(const char *path, const struct queue_identity *identity, struct queue **ret_queue, struct err *err);

/* Open, and nothing damaged was met since. */
bool queue_is_sound(const struct queue *queue);

/* Whether queue_start is salvaging now. Any thread. */
bool queue_is_salvaging(const struct queue *queue);

struct queue_salvage {
	int64_t at_ms;             /* wall; 0: there was none since queue_new */
	char aside[512];           /* where the damaged file is now */
	uint64_t records, batches; /* taken over: unsealed ones, sealed ones */
	uint64_t lost_records;     /* that are known to be gone */
	uint64_t open_ends;        /* sources of which nobody knows whether more is gone */
};
const struct queue_salvage *queue_last_salvage(const struct queue *queue);

/* Closes the file, and writes nothing; the WAL stays as it is. NULL is fine. */
void queue_close(struct queue *queue);

/*
 * What is known of this boot's clock. Fetches that came with CHUNK_UNSYNCED are not sealed before mono wait_until_ms,
 * unless their times can be corrected: once `synced`, by wall_ms - mono_ms, which is remembered for their boot; their
 * lines then say "corrected". What an earlier boot brought and nobody corrected is sealed as it is. May be called as
 * often as one likes. 0, or -errno where it could not be written down; it counts for this process all the same.
 */
int queue_set_clock(struct queue *queue, bool synced, int64_t wall_ms, int64_t mono_ms, int64_t wait_until_ms,
                    struct err *err);

/* Where a source's records go and when they are sealed. Sources without one have the defaults and go to all stores. */
struct queue_route {
	char source[UNITS_NAME_MAX];
	int64_t max_bytes; /* of an object before gzip */
	int64_t max_records;
	int64_t max_age_ms;
	const char *const *stores; /* names, borrowed during the call; NULL: all */
	size_t n_stores;
};

/*
 * Tells the configuration: the stores (by name) and the routes; fallback is the route of every other source. A batch
 * that waits goes to the stores that its source has now; one that all of them have is done. May be called again. Makes
 * the sources known, in memory: their rows come with their first commit. A card that takes nothing does not make it
 * fail: that a batch is done is then written after the next delivery, or when this is called again. -ENOBUFS: more than
 * 64 stores or 4,096 routes; names of sources that are gone do not count.
 */
int queue_configure(struct queue *queue, const char *const *stores, size_t n_stores, const struct queue_route *routes,
                    size_t n_routes, const struct queue_route *fallback, struct err *err);

struct queue_bounds {
	int64_t max_size;   /* bytes that the buffer ever takes of the card, its WAL and its free pages included */
	int64_t max_record; /* bytes of the largest record that may come: one transaction must be able to hold it */
};

/*
 * Tells the bounds; without them there are none. May be called again: a buffer that is larger than a new bound takes
 * nothing until it fits, and grows only by what sealing needs. Some of max_size is kept free inside the file, so that
 * what is there can always be sealed, delivered and deleted: queue_commit and queue_stage fail with -EDQUOT before they
 * would take of it, and with -ENOSPC where others have filled the rest of the card. A commit is to bring no more than
 * about 1 MB, each fetch counted with 8 KB beside its records, or a single record: what more it takes of the WAL is not
 * in the bound. 0 or -errno.
 */
int queue_bound(struct queue *queue, const struct queue_bounds *bounds, struct err *err);

/*
 * Whether this user may open or make a buffer at this path: 0, or what queue_open would say of file and folder. Changes
 * nothing, and does not ask whether the file is a buffer, or free.
 */
int queue_check_path(const char *path, struct err *err);

/* The state that the source's last committed fetch left; 0 bytes for a new source. Returns its length. */
size_t queue_source_state(struct queue *queue, const char *source, uint8_t ret_state[SINK_STATE_MAX]);

/*
 * Stages a full piece of a fetch that is not complete yet, in a short transaction of its own: what is staged lies in
 * the file and is seen by nobody until queue_commit publishes the fetch, whose `staged` says how many records that are.
 * A source has one such fetch at a time, whose last piece is never staged, and commits no other meanwhile. What no
 * commit will publish is given up by queue_unstage: it is deleted there or, where that fails, by the source's next
 * stage or commit, or by the next queue_open. -EFBIG: the fetch has a quarter of max_size already: one that fills the
 * buffer would do so at the cost of all others. -EAGAIN: another one that began before has to end first. -ESTALE: what
 * was staged of this one did not outlast a salvage: drop it, by queue_unstage.
 */
int queue_stage(struct queue *queue, const char *source, const struct fetch_piece *piece, struct err *err);
int queue_unstage(struct queue *queue, const char *source, struct err *err);

/*
 * Commits the fetches of a list (linked by next), of any sources, in one transaction, and writes number and first_seq
 * into each. All or none. -ESTALE: the one that is marked as `stale` has lost what was staged of it: drop it, and
 * commit the others.
 */
int queue_commit(struct queue *queue, struct fetch *fetches, struct err *err);

struct batch {
	int64_t id;
	char source[UNITS_NAME_MAX];
	char key[OBJECT_KEY_MAX]; /* below the store's prefix */
	uint64_t first_seq, last_seq, records;
	uint64_t raw_bytes; /* of the lines */
	uint64_t bytes;     /* of the object */
	uint8_t sha256[SHA256_SIZE];
	int64_t sealed_ms;              /* wall */
	int64_t delivered_ms;           /* wall, by the last of its stores; 0: not yet */
	bool imported;                  /* from another Millrace: never in our books */
	size_t stores_done, stores_all; /* of its source's stores now; filled by queue_batches */
};

/*
 * Seals the next batch that is due: by size, number, age, a UTC midnight or a boot that has passed; or whatever waits,
 * where `all` is set. In steps of about a megabyte of lines, so that a commit never waits long: QUEUE_STEP: a step was
 * made, ask again; other calls may come in between. 1: one was sealed, ask again. 0: nothing is due. -errno: err names
 * the source, whose sealing rests for a minute while the others go on; for want of room, until there is more, if that
 * is sooner. What a crash leaves of a batch half sealed is deleted by the next sealing; its records are where they
 * were.
 */
#define QUEUE_STEP 2
int queue_seal(struct queue *queue, int64_t wall_ms, int64_t mono_ms, bool all, struct batch *ret_batch,
               struct err *err);

/* Somebody asks for it: sources that rest are tried at once. */
void queue_seal_wake(struct queue *queue);

/* In how many milliseconds queue_seal may have something to do; INT64_MAX: nothing is unsealed. */
int64_t queue_seal_due_ms(const struct queue *queue, int64_t wall_ms, int64_t mono_ms);

/* The oldest batch with an id above `after` that still has to go to the store. 0, -ENOENT: none. */
int queue_next_delivery(struct queue *queue, const char *store, int64_t after, struct batch *ret_batch,
                        struct err *err);

/* Part n (from 0) of a batch's object, appended to ret_data. 0; -ENOENT: there are no more. Checked by its checksum. */
int queue_read_part(struct queue *queue, int64_t batch, int n, struct bytes *ret_data, struct err *err);

/*
 * A batch that waits has fewer bytes than its row says, as who reads its parts has found: the buffer is damaged,
 * perhaps in what leads to them alone, and is to be salvaged. -EBADMSG.
 */
int queue_lacks_parts(struct queue *queue, int64_t batch, struct err *err);

/* Whether the batch is still here for some store that has it not: queue_drop may have taken it. */
bool queue_waits(const struct queue *queue, int64_t batch);

/*
 * The store has the batch: 0, and ret_done says whether it was the last of its stores. May be called twice, and of a
 * batch that is here no longer: that changes nothing, and it is done.
 */
int queue_delivered(struct queue *queue, int64_t batch, const char *store, int64_t wall_ms, bool *ret_done,
                    struct err *err);

/*
 * Deletes what all stores have had for keep_ms: at most 64 batches a call, of about a thousand that it looks at. 1:
 * there may be more; 0: nothing is left, and where a backlog has left a file of which hardly anything is in use any
 * more, the card has that back.
 */
int queue_expire(struct queue *queue, int64_t wall_ms, int64_t keep_ms, struct err *err);

/*
 * Makes room at the price of the oldest batch that some store has not, none of `skip`, which are on their way: deleted
 * whole, and booked as lost for the stores that have it not. 1: ret_batch is gone; 0: no other is sealed. What
 * queue_next_delivery has named last for a store may have begun its way after the caller saw which are under way, so it
 * is passed over too, unless queue_drop was called since: the caller's next `skip` knows.
 */
int queue_drop(struct queue *queue, const int64_t *skip, size_t n_skip, struct batch *ret_batch, struct err *err);

/*
 * What the buffer remembers of a store across restarts: where it was when it was used first ("" where it never was;
 * QUEUE_PLACE_LOST where it was used, and damage has destroyed where). place is a path or an endpoint, up to 511 bytes.
 */
#define QUEUE_PLACE_LOST "?"
int queue_store_place(struct queue *queue, const char *store, char *ret_place, size_t size, struct err *err);
int queue_set_store_place(struct queue *queue, const char *store, const char *place, struct err *err);

/*
 * Records of a source from seq `from` on as object lines, sealed or not, oldest first, until ret_lines holds `enough`
 * bytes or there are no more; it may hold one line more than that. What is no longer here is passed over. ret_next: the
 * seq to go on with. -ENOENT: no such source; -ENOBUFS: a line passes ret_lines' ceiling.
 */
int queue_read(struct queue *queue, const char *source, uint64_t from, size_t enough, struct bytes *ret_lines,
               uint64_t *ret_next, struct err *err);

/* The newest refused answer of a source, kept for a person to look at. */
struct queue_rejected {
	char source[UNITS_NAME_MAX];
	int64_t at_ms; /* wall */
	char cause[64];
	char text[ERR_MAX];
	uint64_t bytes, start; /* sink.h's sink_excerpt */
	int64_t offset;
	uint8_t data[SINK_EXCERPT_MAX];
	size_t len;
};

/* Keeps it in place of the one before, if there is room. 0 or -errno. */
int queue_reject(struct queue *queue, const struct queue_rejected *rejected, struct err *err);

/* The first one of a source that comes after `after` by name ("": the first of all): 1, 0: there is none, -errno. */
int queue_next_rejected(struct queue *queue, const char *after, struct queue_rejected *ret_rejected, struct err *err);

/* The newest batches first, at most n; returns how many, or -errno. */
int queue_batches(struct queue *queue, struct batch *ret_batches, size_t n, struct err *err);

/* Those that some store has not, imported ones too, the oldest first, with an id above `after`; how many, or -errno. */
int queue_batches_waiting(struct queue *queue, int64_t after, struct batch *ret_batches, size_t n, struct err *err);

/* One of them, whoever has it. 0, -ENOENT. */
int queue_find_batch(struct queue *queue, int64_t id, struct batch *ret_batch, struct err *err);

/*
 * The books: for one store, what became of every seq of every source, as ranges that never overlap, by source and seq.
 * A range has one day, device and boot, like a batch; what is delivered is kept for ever, merged within these.
 */
enum queue_range_kind {
	QUEUE_DELIVERED, /* the store has it */
	QUEUE_WAITING,   /* sealed, and the store has it not */
	QUEUE_UNSEALED,
	QUEUE_LOST, /* dropped for want of room before the store had it, or destroyed by damage */
};

struct queue_range {
	enum queue_range_kind kind;
	char source[UNITS_NAME_MAX], device[UNITS_NAME_MAX], boot[OBJECT_BOOT];
	int64_t day; /* UTC days since 1970 */
	uint64_t first_seq, last_seq;
};

/*
 * The ranges of days from `since` on, in pages: at most n that come after `after` (NULL: from the beginning). Returns
 * how many, 0 at the end, or -errno. For a source that does not go to the store there are none but what was delivered
 * or lost.
 */
int queue_books(struct queue *queue, const char *store, int64_t since, const struct queue_range *after,
                struct queue_range *ret_ranges, size_t n, struct err *err);

/* What damage has destroyed, by source and seq, the first that comes after `after` (NULL: the first of all). */
struct queue_damage {
	char source[UNITS_NAME_MAX], device[UNITS_NAME_MAX], boot[OBJECT_BOOT];
	uint64_t first_seq, last_seq; /* last_seq 0: nobody knows where it ended */
	int64_t at_ms;                /* wall; when it was found */
};
/* 1: there is one, 0: there is none, -errno. */
int queue_next_damage(struct queue *queue, const struct queue_damage *after, struct queue_damage *ret_damage,
                      struct err *err);

#define QUEUE_IMPORT_STEP (512 * 1024)
#define QUEUE_IMPORT_MAX  (UINT64_C(1) << 27) /* bytes of an object */

/*
 * Takes over a batch of another Millrace: begin, its object's bytes in pieces of up to QUEUE_IMPORT_STEP, finish, at
 * which it waits for its stores like one of our own, under its own key, or not at all. One at a time; batches may be
 * sealed in between. After a write that failed only abort is left; finish ends it, whatever comes out.
 *
 * begin: 0; 1: all of its seqs were taken over before, or are this buffer's own and in its batches or books: nothing is
 * to be done. -EINVAL: no key of interface.md's, or one that says that it is of this very buffer, which knows nothing
 * of it; -EEXIST: some of its seqs were taken over before, or are this buffer's own, and some not. -EILSEQ, of all
 * three: the bytes are not those of key, size and SHA-256, or no lines of that range. -ENOSPC: there is no room now,
 * since some is left to our own sources. -ECANCELED: the buffer was opened anew in between.
 */
int queue_import_begin(struct queue *queue, const char *key, uint64_t bytes, const uint8_t sha256[SHA256_SIZE],
                       struct err *err);
int queue_import_write(struct queue *queue, const void *data, size_t len, struct err *err);
int queue_import_finish(struct queue *queue, int64_t wall_ms, struct batch *ret_batch, struct err *err);
void queue_import_abort(struct queue *queue);

/*
 * The store has lost what the books say that it has: each batch of the source that is still here and holds some of
 * these seqs waits for that store again. ret_records: how many of these seqs do so; all others are gone. 0 or -errno.
 */
int queue_deliver_again(struct queue *queue, const char *store, const char *source, uint64_t first_seq,
                        uint64_t last_seq, uint64_t *ret_records, struct err *err);

/* Figures for people; all of it in memory, no SQL. */
struct queue_source_view {
	char source[UNITS_NAME_MAX];
	uint64_t records, fetches;                 /* ever committed */
	uint64_t unsealed_records, unsealed_bytes; /* bytes of lines */
	uint64_t waiting_batches, waiting_records; /* sealed, and some store has them not */
	uint64_t dropped_records;                  /* lost for some store by queue_drop, ever */
	uint64_t damaged_records;                  /* lost by damage, as far as their number is known, ever */
	int64_t oldest_ms;                         /* wall time of the oldest record that some store has not; 0: none */
};

struct queue_store_view {
	char store[UNITS_NAME_MAX];
	uint64_t waiting_batches, waiting_bytes;
	uint64_t delivered_batches; /* since start */
};

struct queue_view {
	char device[UNITS_NAME_MAX];
	char boot[OBJECT_BOOT];
	int64_t file_bytes, wal_bytes; /* on the card */
	int64_t max_bytes;             /* max_size; 0: none was told */
	int64_t room_bytes;            /* what commits may still take */
	bool wanted;                   /* max_size has made something be refused, and nothing was taken since */
	/*
	 * The same of a card that others have filled: what all stores have is to be expired at once. Nothing is dropped
	 * for it: what others fill would take it all.
	 */
	bool card_full;
	bool sound;                   /* queue_is_sound */
	int status;                   /* 0, or why it is not: what queue_start failed with last, -EBADMSG: damaged */
	int failing;                  /* what the card did last: -ENOSPC, -EROFS, -EIO; 0: a transaction held since */
	uint64_t unsynced_records;    /* unsealed, and kept back until the clock is right */
	struct queue_salvage salvage; /* the last one */
	bool full; /* so little is left that nothing new should be begun; over when there is twice as much again */
	uint64_t batches; /* on the card, delivered ones included */
	size_t n_sources, n_stores;
	struct queue_source_view *sources;
	struct queue_store_view *stores;
};

/* A copy that the caller frees with queue_view_free. NULL: no memory. */
struct queue_view *queue_view(struct queue *queue);
void queue_view_free(struct queue_view *view);

#endif
