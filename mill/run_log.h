/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A run's log on its way into the store: packed piece by piece as it comes, so that memory stays small, and its end
 * kept for people. Embedded; loop thread only.
 */
#ifndef MILL_RUN_LOG_H
#define MILL_RUN_LOG_H

#include "base/bytes.h"
#include "buffer/ledger.h"
#include "buffer/pack.h"

/* So much of a log is kept, whichever comes first. */
#define RUN_LOG_MAX        (8 << 20)
#define RUN_LOG_PACKED_MAX (512 * 1024)
#define RUN_LOG_PIECE      (256 * 1024) /* at a time */

struct run_log {
	uint64_t bytes;      /* so far */
	struct bytes packed; /* gzip; whole after run_log_finish */
	uint8_t tail[LEDGER_LOG];
	size_t tail_len;
	struct pack pack;
};

int run_log_open(struct run_log *log); /* an empty one; 0 or -ENOMEM */

/* Up to RUN_LOG_PIECE. 0; -ENOBUFS: no more is kept, and the log says so at its end; -ENOMEM. */
int run_log_add(struct run_log *log, const void *data, size_t len);

int run_log_finish(struct run_log *log); /* 0 or -ENOMEM */
void run_log_done(struct run_log *log);  /* also where it was never opened but is all zeros; the tail stays */

#endif
