/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When to poll next: pure arithmetic over monotonic milliseconds, without a timer of its own. A poll is due every
 * `every_ms` from the first one; slots that passed while a poll was late or under way are skipped, never made up. After
 * a failure it is tried again sooner: waits of 5 s (or every_ms, if that is less), doubled each time up to
 * backoff_max_ms, each jittered to between half and the whole of it; Retry-After lengthens the wait, up to an hour.
 */
#ifndef COLLECTORS_SCHEDULE_H
#define COLLECTORS_SCHEDULE_H

#include <stdint.h>

struct schedule {
	int64_t every_ms;
	int64_t backoff_max_ms;
	int64_t origin_ms; /* of the slots */
	unsigned failures; /* in a row */
};

void schedule_start(struct schedule *s, int64_t every_ms, int64_t backoff_max_ms, int64_t first_ms);

/* A poll ended well at now_ms: when the next one is due; always after now_ms. */
int64_t schedule_after_success(struct schedule *s, int64_t now_ms);

/* A poll failed; retry_after_ms is -1 where the server said nothing. */
int64_t schedule_after_failure(struct schedule *s, int64_t now_ms, int64_t retry_after_ms);

/*
 * A poll that a person asked for failed before the next one was due at due_ms. It is no failure in a row: a retry that
 * is planned stays where it is, and where all was well the first one is planned. Only Retry-After puts off what was
 * due.
 */
int64_t schedule_after_request(const struct schedule *s, int64_t now_ms, int64_t due_ms, int64_t retry_after_ms);

#endif
