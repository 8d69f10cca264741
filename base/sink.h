/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a collector sees of everything to its right: one sink for each source. A fetch begins, takes records, and ends
 * in exactly one way: published, unchanged or dropped. Records of a published fetch become durable together or not at
 * all; until on_settled says so the collector begins no other fetch. agent/intake implements the ops; a test may too.
 * Loop thread only.
 */
#ifndef BASE_SINK_H
#define BASE_SINK_H

#include <stddef.h>
#include <stdint.h>

#define SINK_STATE_MAX 1024 /* bytes */

/* How a fetch ended, in the words that status, log and `millrace poll` use. */
enum sink_outcome {
	SINK_COMMITTED, /* durable in the buffer */
	SINK_UNCHANGED, /* equal to the last one; adds nothing */
	SINK_REFUSED,   /* it came, but is not what was promised */
	SINK_FAILED,    /* it did not come */
};

extern const char *const sink_outcome_names[]; /* by enum: "committed", "unchanged", "refused", "failed" */

struct sink;

struct sink_ops {
	void (*begin)(struct sink *sink);
	int (*record)(struct sink *sink, const void *data, size_t len);
	void (*publish)(struct sink *sink, int64_t wall_ms, int64_t mono_ms);
	void (*unchanged)(struct sink *sink);
	void (*drop)(struct sink *sink, enum sink_outcome outcome, const char *cause, const char *text);
};

struct sink {
	const struct sink_ops *ops;

	/*
	 * The collector's own memory across restarts (a hash, an ETag, a cursor): at start what was committed last; the
	 * collector overwrites it before it publishes, and it becomes durable in the same transaction as the records.
	 */
	uint8_t state[SINK_STATE_MAX];
	size_t state_len;

	/* Set by the collector: a published fetch is durable, and the next one may begin. Not called after a close. */
	void (*on_settled)(void *collector);
	void *collector;
};

/* A fetch begins. */
void sink_begin(struct sink *sink);

/*
 * One more record: a JSON text (or, later, whatever the source's format says) without line breaks and without white
 * space around it. Copied. 0 or -ENOMEM; after an error the collector drops the fetch.
 */
int sink_record(struct sink *sink, const void *data, size_t len);

/* The fetch is complete; its last byte came at wall_ms (UTC) and mono_ms. on_settled follows, never from within. */
void sink_publish(struct sink *sink, int64_t wall_ms, int64_t mono_ms);

/* The fetch is complete and says nothing new. */
void sink_unchanged(struct sink *sink);

/*
 * The fetch is worth nothing: outcome is SINK_REFUSED or SINK_FAILED. `cause` is a short word that stays the same while
 * the same thing is wrong ("http-503", "truncated"), so that a log can tell a change from a repetition; text says
 * everything, with offsets and numbers. Both are copied.
 */
void sink_drop(struct sink *sink, enum sink_outcome outcome, const char *cause, const char *text);

#endif
