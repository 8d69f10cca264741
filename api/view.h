/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What status and show say, as plain structs that agent/ fills from memory and api/ writes as JSON; the words are those
 * of docs/api.md. Strings are borrowed. Times are wall milliseconds, 0: never.
 */
#ifndef API_VIEW_H
#define API_VIEW_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "buffer/queue.h"
#include "mill/mill.h"

struct source_view {
	const char *name, *kind, *origin;
	const char
	        *state; /* "waiting", "fresh", "failing", "stale", "paused" (the buffer is full), "disabled", "gone" */
	int64_t last_answer_ms; /* complete and valid, changed or not */
	int64_t last_change_ms; /* the last committed fetch since start */
	int64_t next_poll_ms;   /* 0: none is planned (one is under way, or it is paused or disabled) */
	uint64_t polls, unchanged, refused, failed; /* since start */
	uint64_t records, fetches;                  /* ever committed */
	uint64_t unsealed_records, waiting_batches, waiting_records;
	uint64_t dropped_records; /* by on_full = "drop-oldest", ever */
	uint64_t damaged_records; /* destroyed by damage, as far as their number is known, ever */
	int64_t oldest_ms;        /* the oldest record that some store has not */
	const char *last_error;   /* "" while all is well */
};

struct store_view {
	const char *name, *kind, *place;
	const char *state; /* "ready", "unknown" (not tried yet), "away", "denied", "hung" */
	uint64_t waiting_batches, waiting_bytes, delivered_batches;
	uint64_t parked_batches; /* of the waiting ones: they cannot be brought there */
	int64_t last_delivered_ms, next_try_ms;
	const char *last_error;
};

struct buffer_view {
	const char *path;
	const char *state;   /* "ready", "full", "no-space", "read-only", "failing", "damaged", "salvaging", "hung" */
	const char *on_full; /* "pause", "drop-oldest" */
	int64_t file_bytes, wal_bytes;
	int64_t max_bytes;                         /* max_size */
	int64_t room_bytes;                        /* that new records may take before the buffer is full */
	uint64_t waiting_records, waiting_batches; /* unsealed records included in the first */
	int64_t oldest_ms;
	int64_t salvaged_ms; /* 0: not since the start */
	const char *aside;   /* what that has left of the damaged file; "" */
	const char *last_error;
};

struct clock_view {
	const char *state;         /* "synced", "waiting", "unsynced" (clock_wait is over) */
	uint64_t unsynced_records; /* kept back until it is right, or wait_until_ms */
	int64_t wait_until_ms;     /* 0: nothing is waited for */
};

/* What the last reload left undone. */
struct config_view {
	const char *path;
	int64_t refused_ms;     /* 0: it was not refused */
	const char *last_error; /* why it was; "" */
	const char *restart;    /* settings that wait for one: `device = "pi-02"`; "" */
};

/* The newest refused answer of a source. */
struct rejected_view {
	const char *source, *cause, *text;
	int64_t at_ms;         /* wall */
	uint64_t bytes, start; /* sink.h's sink_excerpt */
	int64_t offset;
	const void *data; /* not UTF-8 throughout, perhaps */
	size_t len;
};

struct problem_view {
	char what[600];
	char remedy[800];
};

struct status_view {
	const char *version, *device, *boot;
	int64_t now_ms, started_ms;
	struct buffer_view buffer;
	struct clock_view clock;
	struct config_view config;
	struct source_view *sources; /* the arrays are the view's own */
	size_t n_sources;
	struct store_view *stores;
	size_t n_stores;
	struct problem_view *problems; /* none: all is well */
	size_t n_problems;
};

void view_done(struct status_view *view);

/* New references; NULL: no memory. */
json_t *view_status(const struct status_view *view);
json_t *view_sources(const struct status_view *view);
json_t *view_stores(const struct status_view *view);
json_t *view_batches(const struct batch *batches, size_t n);

/* One of the elements of {"rejected": [...]}. "excerpt" is text (as view_text makes it, NUL included). */
json_t *view_rejected(const struct rejected_view *view);

#define RUNS_SHOWN 100

/* {"now", "machines": [...], "jobs": [...]}: docs/api.md has the words. Both clocks of this moment: some of its times
 * are monotonic. */
json_t *view_machines(const struct mill_view *view, int64_t wall_ms, int64_t mono_ms);

/* {"runs": [...]}, and one of its elements with its stages, manifest and the end of its log. */
json_t *view_runs(const struct ledger_run *runs, size_t n);
json_t *view_run(const struct ledger_run *run);

/* A text from anywhere as a JSON string (NULL: an empty one); what is not UTF-8 becomes U+FFFD. NULL: no memory. */
json_t *view_text(const char *text);
json_t *view_bytes(const void *data, size_t len); /* the same of so many, NUL included */

/* RFC 3339; null where it is 0. NULL: no memory. */
json_t *view_time(int64_t ms);

#endif
