/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the sinks into the queue: builds fetches from what collectors push, gathers published ones while a commit is
 * under way, and commits them together (group commit). A commit that fails is tried again with the same fetches until
 * it holds; meanwhile their sources wait. A large fetch is staged while it comes in (agent/staging), and its collector
 * told to wait where the card is slower. Keeps each source's counts and how its last poll ended. Loop thread only.
 */
#ifndef AGENT_INTAKE_H
#define AGENT_INTAKE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/alarm.h"
#include "base/sink.h"
#include "base/worker.h"
#include "buffer/queue.h"

struct intake;

struct intake_counts {
	uint64_t polls, unchanged, refused, failed; /* since start */
	int64_t last_answer_ms, last_change_ms;     /* wall; 0: none since start */
	int64_t answered_at_ms;                     /* monotonic; the last complete answer */
	int64_t failing_since_ms;                   /* monotonic; the first failure after a complete answer, or ever */
	char last_error[ERR_MAX];                   /* "" after a complete answer */
	char cause[64];
	enum sink_outcome outcome; /* SINK_REFUSED or SINK_FAILED, while there is a cause */
};

/* How a poll ended. */
struct intake_report {
	enum sink_outcome outcome;
	bool waits; /* failed for now: the answer came, the buffer does not take it yet, and one more report follows */
	uint64_t records;
	uint64_t first_seq; /* of a committed fetch with records */
	const char *text;   /* why, when refused or failed; else "" */
	const char *cause;  /* of that, as sink_drop has it; else "" */
	int status;         /* as the sink has it; and bytes */
	uint64_t bytes;
	int64_t took_ms; /* from its beginning to the last byte */
};

typedef void (*intake_on_report)(void *arg, const char *source, const struct intake_report *report);

/*
 * queue and worker are borrowed. on_report: every poll's end, told by one report that does not wait. on_committed:
 * after every commit, also one that failed, and before its reports, for the courier; takes the figures, which may be
 * NULL. NULL: no memory.
 */
struct intake *intake_new(struct queue *queue, struct worker *worker, struct alarms *alarms, intake_on_report on_report,
                          void (*on_committed)(void *arg, struct queue_view *fresh), void *arg);

/* The sink of a source; made on first use with the state that the queue has. full: bytes of a full piece from now on.
 * Owned by the intake. NULL: no memory. */
struct sink *intake_sink(struct intake *intake, const char *source, size_t full);

const struct intake_counts *intake_counts(const struct intake *intake, const char *source);

/* Whether the wall clock is right; what comes while it is not says so. It is not until somebody says that it is. */
void intake_set_clock(struct intake *intake, bool synced);

/* The buffer is full (or has room again): while it is, collectors begin nothing. */
void intake_set_full(struct intake *intake, bool full);

/* There may be room now for what could not be committed: it is tried at once. */
void intake_retry(struct intake *intake);

/* "" while commits and stagings hold, else why the last one did not. */
const char *intake_error(const struct intake *intake);

/* Its -errno, 0: none. -EDQUOT is only max_size, below which there will be room again; all others are the card's. */
int intake_trouble(const struct intake *intake);

/* Whether an answer of this source waits in memory because it could not be committed. */
bool intake_holds(const struct intake *intake, const char *source);

/* No commit is under way, and none will be: all that was published is durable, or the buffer is failing. */
bool intake_settled(const struct intake *intake);

void intake_free(struct intake *intake);

#endif
