/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Brings the full pieces of one source's large fetch into the buffer while the rest of it still comes in (queue_stage),
 * one at a time, on the buffer's worker; and takes them away again where the fetch turns out to be worth nothing. A
 * piece that the buffer does not take is tried again until it does, unless the fetch is too large for it. Embedded in
 * what owns it, agent/intake's feeds. Loop thread only.
 */
#ifndef AGENT_STAGING_H
#define AGENT_STAGING_H

#include <stdbool.h>

#include "base/alarm.h"
#include "base/worker.h"
#include "buffer/queue.h"

struct staging {
	/* Set by the owner before staging_init, borrowed. */
	struct queue *queue;
	struct worker *worker;
	struct alarms *alarms;
	const char *source;
	void (*on_step)(struct staging *staging); /* a try has ended: see staging_lags, staging_busy, error */

	char error[ERR_MAX]; /* "" while pieces are taken, else why the last one was not */
	int why;             /* the -errno of that */
	int refused;         /* -EFBIG or -ESTALE: no piece of the fetch is taken any more, and it must be dropped */

	/* Its own. */
	struct job job;
	bool working;              /* the job is the worker's: what follows up to err is too */
	bool undo;                 /* what is staged goes first */
	struct fetch_piece *piece; /* not written yet */
	int status;
	struct err err;
	struct fetch *fetch; /* whose piece it is; NULL: nobody's any more */
	struct alarm retry;
};

void staging_init(struct staging *staging);

/* The fetch may have a full piece to spare: takes it. Its `staged` grows when pieces are written. */
void staging_take(struct staging *staging, struct fetch *fetch);

/* There may be room now: a piece that was not taken is tried again at once. */
void staging_retry(struct staging *staging);

/* A piece of the fetch is not written yet: it must not be committed before. */
bool staging_busy(const struct staging *staging);

/* The fetch is complete and not busy: it goes its own way from here on. */
void staging_release(struct staging *staging);

/* The fetch will never be committed; its memory is the caller's again at once. */
void staging_drop(struct staging *staging);

/* The job must not be the worker's any more. */
void staging_done(struct staging *staging);

#endif
