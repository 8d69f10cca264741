/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A damaged buffer's rows into a fresh one. The damaged file is read with buffer/pages and never written; the fresh one
 * grows beside it as `<path>.salvaging`, is called `<path>.salvaged` when it is whole and durable, and takes the place
 * of the damaged one when that has become `<path>.damaged-<time>` (UTC, 20261121T102030Z), its WAL
 * `<path>.damaged-<time>-wal`. A power cut at any moment leaves either the damaged file, and all begins anew, or the
 * fresh one, which salvage_finish puts into its place.
 *
 * Taken over: sources, chunks that no batch of their source has passed, batches that some store has not, with all their
 * parts, whole by their SHA-256; what is known of deliveries, books, losses, stores, clocks, refused answers.
 * Left: what was delivered, what was deleted, as far as that can still be read; what was never committed. Records that
 * follow a gap stand there with their old seq; the gap, and what may have come behind the last one, is booked in table
 * `damage`. Synchronous, may take minutes; the buffer's worker.
 */
#ifndef BUFFER_SALVAGE_H
#define BUFFER_SALVAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "buffer/queue.h"

/*
 * What is known of a source besides what the file says: by a process that still runs, whose buffer turned out damaged
 * under it; or by a load that found the damage only after all chunks; and by the configuration.
 */
struct salvage_known {
	const char *source;  /* NULL: every other one */
	uint64_t seq, fetch; /* the next record's; fetches committed so far. 0, 0: that is not known */
	int64_t batch;       /* no id of one above it was used before its last sealing */
	const uint8_t *state;
	size_t state_len;
	int64_t ticket; /* of what is staged and on its way; 0: nothing is */
	bool running;   /* what is there from seq on was never acknowledged; a fetch that is staged there goes on */
	const char *const *stores; /* its stores; none: the configuration is not known */
	size_t n_stores;
};

/*
 * known: but for a process that runs, what is lost behind the last readable record has no end. The caller keeps other
 * processes away. That the file is ours is the caller's to know: where not one row is left, the fresh one is empty.
 * Returns 0 and fills ret_salvage; -ENOSPC and others: the damaged file is where it was, and salvage may be tried
 * again. -EBADMSG: it was salvaged 16 times within a day, and what was set aside then is still there.
 */
int salvage_run(const char *path, const struct queue_identity *identity, const struct salvage_known *known,
                size_t n_known, struct queue_salvage *ret_salvage, struct err *err);

/*
 * Before anything else is done with `path`: what a power cut left of a salvage's last steps is brought to its end, and
 * a salvage that was not complete is deleted. 1: a fresh file is in its place now, 0: nothing was under way, -errno.
 */
int salvage_finish(const char *path, struct err *err);

#endif
