/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a collector sees of everything to its right: one sink for each source. A fetch begins, takes records, and ends
 * in exactly one way: published, unchanged or dropped. Records of a published fetch become durable together or not at
 * all; until on_settled says so the collector begins no other fetch. agent/intake implements the ops; a test may too.
 * Loop thread only.
 */
#ifndef BASE_SINK_H
#define BASE_SINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SINK_STATE_MAX 1024        /* bytes */
#define SINK_OVERSHOOT (64 * 1024) /* bytes of records, or one record where that is larger */

/* How a fetch ended, in the words that status, log and `millrace poll` use. */
enum sink_outcome {
	SINK_COMMITTED, /* durable in the buffer */
	SINK_UNCHANGED, /* equal to the last one; adds nothing */
	SINK_REFUSED,   /* it came, but is not what was promised */
	SINK_FAILED,    /* it did not come */
};

extern const char *const sink_outcome_names[]; /* by enum: "committed", "unchanged", "refused", "failed" */

struct sink;

#define SINK_EXCERPT_MAX 4096 /* bytes */

/* The part of a refused answer that tells most, for a person to look at (`show rejected`). Borrowed. */
struct sink_excerpt {
	uint64_t bytes;   /* of the body as it was decoded, as far as it came */
	int64_t offset;   /* in it, of what is wrong; -1: of the whole */
	uint64_t start;   /* in it, of data's first byte */
	const void *data; /* bytes == 0: what came could not be decoded, and this shows how it begins (\x1f: a byte) */
	size_t len;       /* up to SINK_EXCERPT_MAX */
};

struct sink_ops {
	void (*begin)(struct sink *sink);
	int (*record)(struct sink *sink, const void *data, size_t len);
	void (*publish)(struct sink *sink, int64_t wall_ms, int64_t mono_ms);
	void (*unchanged)(struct sink *sink);
	void (*drop)(struct sink *sink, enum sink_outcome outcome, const char *cause, const char *text,
	             const struct sink_excerpt *excerpt);
};

struct sink {
	const struct sink_ops *ops;

	/*
	 * The collector's own memory across restarts (a hash, an ETag, a cursor): at start what was committed last; the
	 * collector overwrites it before it publishes, and it becomes durable in the same transaction as the records.
	 */
	uint8_t state[SINK_STATE_MAX];
	size_t state_len;

	/* What came of the fetch under way; set by the collector before it ends it. */
	int status;     /* of HTTP; 0: none came */
	uint64_t bytes; /* of the body as it was decoded, as far as it came */

	/*
	 * Set by the owner: there is no room, either for more of the fetch under way, which waits for the card, or for
	 * any new one, because the buffer is full. While it is set the collector begins nothing and pushes no more than
	 * SINK_OVERSHOOT bytes; on_room says that it is over.
	 */
	bool full;

	/*
	 * Set by the collector. on_settled: a published fetch is durable, and the next one may begin. on_room: full is
	 * over. Never from within a function of this header; not called after a close.
	 */
	void (*on_settled)(void *collector);
	void (*on_room)(void *collector);
	void *collector;
};

/* A fetch begins. */
void sink_begin(struct sink *sink);

/*
 * One more record: a JSON text (or, later, whatever the source's format says) without line breaks and without white
 * space around it. Copied. 0, -ENOMEM, -EFBIG: the fetch takes more of the buffer than one may, or -ESTALE: the buffer
 * has lost what came before it; after an error the collector drops the fetch.
 */
int sink_record(struct sink *sink, const void *data, size_t len);

/* The fetch is complete; its last byte came at wall_ms (UTC) and mono_ms. on_settled follows, never from within. */
void sink_publish(struct sink *sink, int64_t wall_ms, int64_t mono_ms);

/* The fetch is complete and says nothing new. */
void sink_unchanged(struct sink *sink);

/*
 * The fetch is worth nothing: outcome is SINK_REFUSED or SINK_FAILED. `cause` is a short word that stays the same while
 * the same thing is wrong ("http-503", "truncated"), so that a log can tell a change from a repetition; text says
 * everything, with offsets and numbers. excerpt: NULL where nothing came that is worth a look. All is copied.
 */
void sink_drop(struct sink *sink, enum sink_outcome outcome, const char *cause, const char *text,
               const struct sink_excerpt *excerpt);

#endif
