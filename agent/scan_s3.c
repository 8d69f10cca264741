/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An `s3` store: lists each source's keys, then asks for every object of ours by HEAD, several at a time; where that
 * tells no checksum, the object is read and hashed. What may pass by itself is tried a few times; then the store is out
 * of reach.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/s3_call.h"
#include "agent/scan.h"
#include "base/clock.h"
#include "base/container.h"
#include "base/random.h"

#define LANES     8
#define PAGES_MAX 100000 /* of 1,000 keys, ours and others */
#define TRIES     5
#define RETRY_MS  500   /* doubled with each try, full jitter */
#define WAIT_MAX  30000 /* more than a store's Retry-After may ask for here */

enum ask { ASK_LIST, ASK_HEAD, ASK_GET };

struct lane {
	struct scan *scan;
	struct s3_call call;
	uv_timer_t timer; /* the next try */
	bool busy;
	enum ask ask;
	size_t object; /* index in the tally */
	unsigned tries;
	struct sha256 hash;
};

struct scan {
	struct scan_env env;
	struct s3 *s3;
	struct lane lanes[LANES];
	size_t source; /* whose keys are listed */
	char *token;   /* of the next page */
	unsigned pages;
	size_t found; /* objects to look at */
	size_t next;  /* the first that nobody looks at yet */
	uint64_t requests;
	bool ending;
	unsigned open; /* handles that are not closed yet */
	int status;
	struct err err;
};

/* --- The end --- */

static void on_timer_closed(uv_handle_t *handle)
{
	struct lane *lane = handle->data;
	struct scan *s = lane->scan;
	struct scan_env env = s->env;
	struct err err = s->err;
	uint64_t requests = s->requests;
	int status = s->status;

	if (--s->open > 0)
		return;
	s3_free(s->s3);
	free(s->token);
	free(s);
	env.on_end(env.arg, status, requests, &err);
}

static void end(struct scan *s, int status, const struct err *err)
{
	if (s->ending)
		return;
	s->ending = true;
	s->status = status;
	if (err)
		s->err = *err;
	for (size_t i = 0; i < LANES; i++) {
		struct lane *lane = &s->lanes[i];

		s3_call_drop(&lane->call);
		sha256_drop(&lane->hash);
		uv_close((uv_handle_t *)&lane->timer, on_timer_closed);
	}
}

/* --- A request --- */

static int on_object(struct s3_call *call, const void *data, size_t len)
{
	sha256_add(&container_of(call, struct lane, call)->hash, data, len);
	return 0;
}

static int build(struct lane *lane, struct s3_request *ret_request)
{
	struct scan *s = lane->scan;
	char text[OBJECT_KEY_MAX];

	if (lane->ask == ASK_LIST) {
		snprintf(text, sizeof text, "source=%s/", s->env.sources[s->source]);
		return s3_list(s->s3, text, s->token, clock_wall_ms(), ret_request);
	}
	tally_key(s->env.tally, lane->object, text);
	return (lane->ask == ASK_HEAD ? s3_head : s3_get)(s->s3, text, clock_wall_ms(), ret_request);
}

static void send_lane(struct lane *lane)
{
	struct scan *s = lane->scan;
	struct s3_request request;
	int r = build(lane, &request);

	lane->call.on_object = lane->ask == ASK_GET ? on_object : NULL;
	if (lane->ask == ASK_GET) {
		sha256_drop(&lane->hash);
		sha256_init(&lane->hash);
	}
	s->requests++;
	r = s3_call_send(&lane->call, r, &request, 0);
	if (r < 0)
		end(s, r, &lane->call.err);
}

static void ask(struct lane *lane, enum ask what)
{
	lane->busy = true;
	lane->ask = what;
	lane->tries = 0;
	send_lane(lane);
}

static void on_timer(uv_timer_t *timer)
{
	send_lane(timer->data);
}

/* --- What follows --- */

/* Gives every idle lane an object; the scan is over when none is left and all lanes are idle. */
static void look_at_objects(struct scan *s)
{
	bool busy = false;

	for (size_t i = 0; i < LANES && !s->ending; i++) {
		struct lane *lane = &s->lanes[i];

		if (!lane->busy && s->next < s->found) {
			lane->object = s->next++;
			ask(lane, ASK_HEAD);
		}
		busy |= lane->busy;
	}
	if (!busy)
		end(s, 0, NULL);
}

static int on_listed(void *arg, const struct s3_object *object)
{
	struct scan *s = arg;
	size_t index;
	int r = tally_find(s->env.tally, object->key, &index);

	if (r == 0)
		s->found = index + 1;
	return r == -ENOENT || r == -EINVAL ? 0 : r;
}

static void after_list(struct lane *lane, const struct s3_answer *answer)
{
	struct scan *s = lane->scan;
	char *token = NULL;
	int r = s3_read_list(s->s3, answer, on_listed, s, &token, &lane->call.err);

	if (r < 0) {
		free(token);
		end(s, r, &lane->call.err);
		return;
	}
	if (++s->pages > PAGES_MAX || (token && s->token && strcmp(token, s->token) == 0)) {
		err_fail(&lane->call.err, 0, "the store's list does not end: %u pages so far", s->pages);
		free(token);
		end(s, -EPROTO, &lane->call.err);
		return;
	}
	free(s->token);
	s->token = token;
	if (!token)
		s->source++;
	lane->busy = false;
	if (s->source < s->env.n_sources)
		ask(lane, ASK_LIST);
	else
		look_at_objects(s);
}

static void after_head(struct lane *lane, const struct s3_answer *answer)
{
	uint8_t sha256[SHA256_SIZE];
	uint64_t bytes;

	if (s3_checksum(answer, &bytes, sha256) < 0) {
		ask(lane, ASK_GET);
		return;
	}
	tally_check(lane->scan->env.tally, lane->object, sha256);
	lane->busy = false;
	look_at_objects(lane->scan);
}

static void after_get(struct lane *lane)
{
	uint8_t sha256[SHA256_SIZE];

	sha256_finish(&lane->hash, sha256);
	tally_check(lane->scan->env.tally, lane->object, sha256);
	lane->busy = false;
	look_at_objects(lane->scan);
}

static void try_again(struct lane *lane, int64_t retry_after_ms)
{
	int64_t wait_ms = 100 + random_below(RETRY_MS << lane->tries);

	if (++lane->tries == TRIES || retry_after_ms > WAIT_MAX) {
		end(lane->scan, -EIO, &lane->call.err);
		return;
	}
	if (wait_ms < retry_after_ms)
		wait_ms = retry_after_ms;
	uv_timer_start(&lane->timer, on_timer, (uint64_t)wait_ms, 0);
}

static void on_judged(struct s3_call *call, enum s3_verdict verdict, const struct s3_answer *answer)
{
	struct lane *lane = container_of(call, struct lane, call);
	struct scan *s = lane->scan;

	if (verdict == S3_DONE && lane->ask == ASK_LIST) {
		after_list(lane, answer);
	} else if (verdict == S3_DONE && lane->ask == ASK_HEAD) {
		after_head(lane, answer);
	} else if (verdict == S3_DONE) {
		after_get(lane);
	} else if (verdict == S3_ABSENT && lane->ask != ASK_LIST) {
		lane->busy = false; /* it went since it was listed */
		look_at_objects(s);
	} else if (verdict == S3_SKEWED) {
		send_lane(lane);
	} else if (verdict == S3_AGAIN) {
		try_again(lane, answer->retry_after_ms);
	} else {
		if (!call->err.text[0])
			err_fail(&call->err, 0, "an answer that does not fit: HTTP %ld", answer->status);
		end(s, -EIO, &call->err);
	}
}

static int start(const struct scan_env *env, struct scan **ret_scan)
{
	struct scan *s = calloc(1, sizeof *s);
	int r;

	if (!s)
		return -ENOMEM;
	s->env = *env;
	r = s3_new(env->store->settings, env->store->access_key, env->store->secret_key, &s->s3);
	if (r < 0) {
		free(s);
		return r;
	}
	for (size_t i = 0; i < LANES; i++) {
		struct lane *lane = &s->lanes[i];

		lane->scan = s;
		s3_call_init(&lane->call, env->http, env->store->settings, s->s3);
		lane->call.on_judged = on_judged;
		sha256_init(&lane->hash);
		uv_timer_init(env->loop, &lane->timer);
		lane->timer.data = lane;
		s->open++;
	}
	*ret_scan = s;
	if (env->n_sources > 0)
		ask(&s->lanes[0], ASK_LIST);
	else
		end(s, 0, NULL);
	return 0;
}

static void stop(struct scan *s)
{
	end(s, -ECANCELED, NULL);
}

const struct scan_ops scan_s3_ops = { .start = start, .stop = stop };
