/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A damaged buffer's rows into a fresh one. The damaged file is read with buffer/pages and never written; the fresh one
 * grows beside it as `<path>.salvaging` and takes its place when it is whole and durable; then the damaged one has
 * become `<path>.damaged-<time>` (UTC, 20261121T102030Z), its WAL `<path>.damaged-<time>-wal`. A power cut at any
 * moment leaves either the damaged file, and all begins anew, or the fresh one, which salvage_finish puts into its
 * place.
 *
 * Taken over: sources, chunks that no batch of their source has passed, batches that some store has not, with all their
 * parts, whole by their SHA-256; what is known of deliveries, books, losses, stores, clocks, imports, refused answers.
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

/* What a process still knows of a source whose buffer turned out damaged while it ran. */
struct salvage_known {
	const char *source;
	uint64_t seq, fetch; /* the next record's; fetches committed so far */
};

/*
 * known, n_known: none after a start: then what is lost behind the last readable record has no end. Returns 0 and fills
 * ret_salvage; -EMEDIUMTYPE: not one row of ours is in it: it is left as it is; -ENOSPC and others: the damaged file
 * is where it was, and salvage may be tried again.
 */
int salvage_run(const char *path, const struct queue_identity *identity, const struct salvage_known *known,
                size_t n_known, struct queue_salvage *ret_salvage, struct err *err);

/*
 * Before anything else is done with `path`: what a power cut left of a salvage's last steps is brought to its end, and
 * a salvage that was not complete is deleted. 0 or -errno.
 */
int salvage_finish(const char *path, struct err *err);

#endif
