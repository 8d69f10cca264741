/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The audit's arithmetic: holds what the books expect in a store against the objects that were found there. Pure; one
 * thread. Memory grows with the number of ranges and objects (40 bytes each, twice that while it judges), up to
 * TALLY_MAX of either.
 */
#ifndef BUFFER_TALLY_H
#define BUFFER_TALLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buffer/object.h"
#include "buffer/queue.h"

#define TALLY_MAX (1 << 20)

struct tally;

/* since: days before it are looked at by nobody; INT64_MIN: all are. NULL: no memory. */
struct tally *tally_new(int64_t since);
void tally_free(struct tally *tally);

/* A range of the books; all of them come before the first object. 0, -ENOMEM, -ENOBUFS. */
int tally_expect(struct tally *tally, const struct queue_range *range);

/*
 * A range of another store's books: seqs that are in none of this store's are no gap then, they were never meant for it
 * (a store or a route that came later). 0, -ENOMEM, -ENOBUFS.
 */
int tally_excuse(struct tally *tally, const struct queue_range *range);

/*
 * An object that stands in the store: its key below the prefix (interface.md's form). 0: it is one of ours to look at,
 * and ret_index stands for it, counted from 0; -ENOENT: not of a device and boot of the books, or before `since`:
 * counted as foreign, nothing to check; -EINVAL: no key of an object at all, not counted; -ENOMEM, -ENOBUFS.
 */
int tally_find(struct tally *tally, const char *key, size_t *ret_index);

/*
 * What the content of object `index` is: whether its SHA-256 begins as its key says. An object that was never checked
 * does not count as being there.
 */
void tally_check(struct tally *tally, size_t index, const uint8_t sha256[SHA256_SIZE]);
void tally_key(const struct tally *tally, size_t index, char ret_key[OBJECT_KEY_MAX]);

enum tally_kind {
	TALLY_DELIVERED, /* booked, and there; also where it was dropped when the store had just got it */
	TALLY_WAITING,   /* still to come, by the books */
	TALLY_LOST,      /* dropped for want of room, by the books, and not there */
	TALLY_EARLY,     /* there, and not booked yet: an answer that was lost; delivery will find it */
	TALLY_MISSING,   /* booked as delivered, and not there; or in no book at all: a gap between two ranges */
	TALLY_DOUBLE,    /* in two objects of the same boot; told besides what it is otherwise, with the later key */
	TALLY_CHANGED,   /* the object's bytes are not those of its key */
	TALLY_KINDS
};
extern const char *const tally_kind_names[];

struct tally_line {
	enum tally_kind kind;
	const char *source;
	uint64_t first_seq, last_seq;
	const char *key; /* of the object that it is about, or ""; borrowed during the call */
};

struct tally_sums {
	uint64_t objects, foreign;     /* foreign: of another device, or of another buffer's life */
	uint64_t records[TALLY_KINDS]; /* of all lines; double: how often one stands there once more */
	bool sound;                    /* nothing missing, double or changed */
};

/*
 * Judges: calls on_line for every range, merged over days and boots, by source and seq; those that are sound
 * (delivered, waiting, lost) too. Without `since` a gap between two ranges is missing; with it, nobody knows the days
 * of a gap. 0, -ENOMEM, -ENOBUFS, or what on_line returned.
 */
int tally_judge(struct tally *tally, int (*on_line)(void *arg, const struct tally_line *line), void *arg,
                struct tally_sums *ret_sums);

#endif
