/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fetch on its way into the buffer: built record by record on the loop's thread, then handed to the worker's and to
 * queue_commit, which says what became of it. Owned by whoever holds it; one thread at a time.
 */
#ifndef BUFFER_FETCH_H
#define BUFFER_FETCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/sink.h"
#include "base/units.h"

/* Up to a chunk's worth of records (chunk.h's encoding), ready to be put into one. */
struct fetch_piece {
	struct bytes records;
	uint32_t n;
	struct fetch_piece *next;
};

struct fetch {
	char source[UNITS_NAME_MAX];
	int64_t wall_ms, mono_ms;      /* arrival of the last byte of the body */
	uint8_t clock;                 /* enum chunk_clock */
	uint8_t state[SINK_STATE_MAX]; /* the collector's, committed with the records */
	size_t state_len;
	struct fetch_piece *first, *last; /* none: a fetch without records, which still moves the state */
	uint64_t records;                 /* all of it */
	uint64_t staged;                  /* of these, the first ones, which queue_stage has written */
	uint64_t bytes;                   /* of the data of all records */

	/* Written by queue_commit. */
	uint64_t number;    /* counts the source's committed fetches, from 1 */
	uint64_t first_seq; /* of its records, which follow one another */
	bool stale;         /* what was staged of it is lost, so that the list fails with -ESTALE: to be dropped */

	struct fetch *next; /* the holder's */
};

/* NULL: no memory. */
struct fetch *fetch_new(const char *source);
void fetch_free(struct fetch *fetch);

/*
 * One more record, copied. full: about how many bytes of object lines make a piece full (CHUNK_FULL, or a batch's
 * max_bytes where that is less); a single record may be larger. 0, -ENOMEM, -ENOBUFS: no object could hold it.
 */
int fetch_add(struct fetch *fetch, const void *data, size_t len, size_t full);

/* Takes the first piece off, if there is one to spare, never the last: it is to be staged. NULL: there is none. */
struct fetch_piece *fetch_take_piece(struct fetch *fetch);

/*
 * Whether there is a piece to spare: two are full to begin with, since each that is staged is a transaction more, and
 * then one.
 */
bool fetch_is_large(const struct fetch *fetch);

void fetch_piece_free(struct fetch_piece *piece);

#endif
