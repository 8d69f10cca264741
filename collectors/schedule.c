/* SPDX-License-Identifier: Apache-2.0 */
#include "collectors/schedule.h"

#include <assert.h>

#include "base/random.h"

#define FIRST_RETRY_MS     5000
#define RETRY_AFTER_MAX_MS 3600000

static int64_t least(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

void schedule_start(struct schedule *s, int64_t every_ms, int64_t backoff_max_ms, int64_t first_ms)
{
	assert(every_ms > 0 && backoff_max_ms > 0);
	*s = (struct schedule){ .every_ms = every_ms, .backoff_max_ms = backoff_max_ms, .origin_ms = first_ms };
}

int64_t schedule_after_success(struct schedule *s, int64_t now_ms)
{
	s->failures = 0;
	if (now_ms < s->origin_ms)
		return s->origin_ms;
	return now_ms + s->every_ms - (now_ms - s->origin_ms) % s->every_ms;
}

/* The wait after as many failures in a row as there were before this one. */
static int64_t backoff(const struct schedule *s)
{
	int64_t wait_ms = least(least(FIRST_RETRY_MS, s->every_ms), s->backoff_max_ms);

	for (unsigned i = 0; i < s->failures && wait_ms < s->backoff_max_ms; i++)
		wait_ms = wait_ms > s->backoff_max_ms / 2 ? s->backoff_max_ms : wait_ms * 2;
	return wait_ms - random_below(wait_ms / 2 + 1);
}

/* A server that names a later moment is heeded, up to an hour. */
static int64_t heed(int64_t at_ms, int64_t now_ms, int64_t retry_after_ms)
{
	int64_t asked_ms = now_ms + least(retry_after_ms, RETRY_AFTER_MAX_MS);

	return asked_ms > at_ms ? asked_ms : at_ms;
}

int64_t schedule_after_failure(struct schedule *s, int64_t now_ms, int64_t retry_after_ms)
{
	int64_t at_ms = now_ms + backoff(s);

	if (s->failures < UINT32_MAX)
		s->failures++;
	return heed(at_ms, now_ms, retry_after_ms);
}

int64_t schedule_after_request(const struct schedule *s, int64_t now_ms, int64_t due_ms, int64_t retry_after_ms)
{
	int64_t at_ms = s->failures > 0 ? due_ms : least(due_ms, now_ms + backoff(s));

	return heed(at_ms, now_ms, retry_after_ms);
}
