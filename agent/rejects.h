/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Has the buffer keep the newest refused answer of each source, for `millrace show rejected`. An answer that is refused
 * like the one before, byte for byte, costs the card nothing. Loop thread only.
 */
#ifndef AGENT_REJECTS_H
#define AGENT_REJECTS_H

#include <stdbool.h>

#include "base/sha256.h"
#include "base/sink.h"
#include "base/worker.h"
#include "buffer/queue.h"

/* Of one source; embedded, zeroed before the first use; outlives the worker. */
struct reject_memory {
	uint8_t digest[SHA256_SIZE]; /* of the one that is kept */
	bool busy;                   /* one is on its way to the buffer */
};

/* What cannot be kept (no memory, no room) is not: the log and status have said why it was refused. */
void rejects_keep(struct reject_memory *memory, struct queue *queue, struct worker *worker, const char *source,
                  const char *cause, const char *text, const struct sink_excerpt *excerpt);

#endif
