/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of a salvage share. Rows of the damaged file go into the tables of the fresh one as they are found,
 * the better of two that claim the same place; then what they say is judged there, source by source. So memory holds no
 * more than a line for every batch that waits and for every row that nobody knows to be committed.
 *
 *     salvage.c          the files               salvage_batches.c  what is sealed, and who has it
 *     salvage_rows.c     rows into tables        salvage_gaps.c     the books, and what is gone
 *     salvage_chunks.c   what is not sealed  salvage_staged.c   what of it was staged
 */
#ifndef BUFFER_SALVAGE_PRIVATE_H
#define BUFFER_SALVAGE_PRIVATE_H

#include "buffer/pages.h"
#include "buffer/queue_private.h"
#include "buffer/salvage.h"

/* Ids of rows of which nobody knows whether they were ever committed: those of a WAL's few megabytes. By size. */
struct ids {
	int64_t *at;
	size_t n, capacity;
};

/* What is known of a source besides what its `now` in the fresh queue says. */
struct origin {
	struct source *source;
	const struct salvage_known *known; /* NULL: nothing */
	uint64_t sealed;                   /* all up to it was */
	uint64_t sealed_fetch;             /* as of a row of the source that says so; 0: none does */
	uint64_t next;                     /* above all that is readable */
	uint64_t state_seq;                /* the row that `now` has its state from */
	uint64_t kept;                     /* unsealed records that stay so; all before that are sealed */
};

/* A batch that waits, as far as its own row tells. */
struct found {
	int64_t id;
	struct origin *origin; /* NULL: imported */
	uint64_t first, last;
	uint64_t end; /* of one that is whole, or was made whole: there it ends now */
	bool sure;
	enum { FOUND_OPEN, FOUND_WHOLE, FOUND_BROKEN, FOUND_GONE } state;
};

struct salvage {
	struct pages *pages;
	struct queue *fresh;
	const struct salvage_known *known;
	size_t n_known;
	struct origin *origins; /* SOURCES_MAX of them */
	size_t n_origins;
	struct found *found, **by_seq; /* by id; by source and first seq, without the imported ones */
	size_t n_found, n_by_seq;
	struct ids unsure_batches, unsure_chunks;
	int64_t now_ms;
	struct bytes plain; /* scratch: a chunk's text */
	struct bytes part;  /* scratch */
	struct queue_salvage result;
	struct err *err;
};

/* Which of several versions of a part: it stands above the part's id. */
#define VERSIONS        4
#define VERSION_BITS    59
#define VERSION(id, v)  ((id) | (int64_t)(v) << VERSION_BITS)
#define BATCH_MOST      (INT64_C(1) << (VERSION_BITS - PART_BITS))
#define SOURCE_MOST     (INT64_C(1) << (VERSION_BITS - SEQ_BITS))
#define SALVAGE_ROW_MAX 65536 /* bytes of a row that is neither a chunk nor a part */

/* --- salvage_rows.c --- */

int salvage_rows(struct salvage *s);
int salvage_data(struct salvage *s); /* chunks and parts, as far as they are wanted */

struct origin *salvage_origin(struct salvage *s, const char *name); /* NULL: err is filled */
void salvage_note_sealed(struct origin *origin, uint64_t last);     /* all up to that seq is in batches */
bool salvage_has_id(const struct ids *ids, int64_t id);

/* --- salvage_batches.c --- */

int salvage_list_batches(struct salvage *s);

/* A batch that waits and holds all of these; NULL: none does. */
const struct found *salvage_find_batch(const struct salvage *s, const struct origin *origin, uint64_t first,
                                       uint64_t last);
/* The one, in whatever state, that has or had that seq; NULL: none. */
const struct found *salvage_batch_of(const struct salvage *s, const struct origin *origin, uint64_t seq);
const struct found *salvage_get_batch(const struct salvage *s, int64_t id);

/* Which of them are whole. The others are brought to their end when their source's chunks are known. */
int salvage_judge_batches(struct salvage *s);
int salvage_mend_batches(struct salvage *s, struct origin *origin);

/* The source's stores: those of the configuration or, where nobody told it, those that the books name. */
struct stores {
	char (*names)[UNITS_NAME_MAX]; /* to be freed */
	size_t n;
};
int salvage_stores(struct salvage *s, const struct origin *origin, struct stores *stores);

/* 1: every store of the source has these, or will never have them; 0, -errno. */
int salvage_all_have(struct salvage *s, const struct origin *origin, uint64_t first, uint64_t last);

/* The stores that the books say to have a batch of the source have it. */
int salvage_deliveries(struct salvage *s, struct origin *origin);

/* --- salvage_chunks.c --- */

/* What of a chunk can be known without its neighbours. */
struct unit {
	int64_t id;
	uint64_t seq, records, lines, stored;
	uint64_t first_fetch, last_fetch;
	int64_t ticket; /* that the first fetch's staged chunks have; 0: it has none */
	uint8_t last;
	bool staged, sure;
	int64_t mono_ms;
	char boot[OBJECT_BOOT];
};

/* The first chunk from that id on, of its source: 1, 0, -errno. One whose inside is not sound is deleted. */
int salvage_next_chunk(struct salvage *s, int64_t from, struct unit *ret_unit);

/* What of a chunk is in its row and inside; false: it cannot be sealed. */
bool salvage_look(struct salvage *s, const struct chunk_row *row, struct unit *ret_unit);

int salvage_delete_chunks(struct salvage *s, int64_t first, int64_t last); /* ids */

/* The process still runs: what it has committed it knows, and one fetch of a source may be on its way. */
static inline bool salvage_is_running(const struct origin *origin)
{
	return origin->known && origin->known->running && origin->known->seq > 0;
}

/* 1: it was never committed, or is in a batch or with all its stores; 0, -errno. */
int salvage_is_out_of_date(struct salvage *s, const struct origin *origin, const struct unit *unit);

/* Leaves of a source's chunks those that were committed and are in no batch. */
int salvage_resolve(struct salvage *s, struct origin *origin);

/* Seals what is followed by a gap, and writes the source's row. */
int salvage_settle(struct salvage *s, struct origin *origin);

/* --- salvage_staged.c --- */

/* The id at which a staged chunk waits for the end of its fetch. */
#define STAGE_VERSIONS 15
int salvage_stage_version(struct salvage *s, int64_t id, int64_t mono_ms, int64_t *ret_id);

/* Puts those into their places whose fetch was committed, or is on its way. */
int salvage_staged(struct salvage *s, struct origin *origin);

/* --- salvage_gaps.c --- */

/* What versions of rows say twice. */
int salvage_clean_books(struct salvage *s);

struct hole {
	uint64_t first, last; /* last 0: nobody knows */
	int64_t day;
	const char *device, *boot;
};
int salvage_put_damage(struct salvage *s, const struct origin *origin, const struct hole *hole);

/* Books as damage what of the source is nowhere. */
int salvage_gaps(struct salvage *s, struct origin *origin);

#endif
