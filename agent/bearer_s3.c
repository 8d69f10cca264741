/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An `s3` store's bearer: buffer/store_s3 says what to send and what an answer means, base/http carries it. Whether the
 * store honours If-None-Match is asked with a probe, which is a PUT of a small fixed object; where it does not, a HEAD
 * comes before each PUT.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/bearer.h"
#include "agent/s3_call.h"
#include "base/clock.h"
#include "base/container.h"
#include "base/log.h"

struct bearer_s3;

/* A load's lane: one request after the other. */
struct lane {
	struct s3_call call;
	struct bearer_s3 *owner;
	struct load *load;  /* NULL: free */
	struct sha256 hash; /* of an object that is read back */
};

struct bearer_s3 {
	struct bearer bearer;
	struct carrier *carrier;
	const struct config_store *config;
	struct s3 *s3;
	bool conditional;  /* the store honours If-None-Match, as far as is known */
	bool told;         /* that it does not */
	bool probed_twice; /* the second PUT of a probe is under way */
	struct s3_call probe;
	struct lane lanes[LOADS_MAX];
};

static struct bearer_s3 *of(struct bearer *bearer)
{
	return container_of(bearer, struct bearer_s3, bearer);
}

/* --- The probe --- */

static void send_probe(struct bearer_s3 *b)
{
	if (s3_call_probe(&b->probe) < 0)
		carrier_probed(b->carrier, -EIO, -1, &b->probe.err);
}

static void note_conditional(struct bearer_s3 *b, bool conditional)
{
	b->conditional = conditional;
	if (!conditional && !b->told)
		log_notice("store.unconditional",
		           "store \"%s\" does not honour If-None-Match: a HEAD comes before each PUT", b->config->name);
	b->told = !conditional;
	carrier_probed(b->carrier, 0, -1, NULL);
}

static void on_probe_judged(struct s3_call *call, enum s3_verdict verdict, const struct s3_answer *answer)
{
	struct bearer_s3 *b = container_of(call, struct bearer_s3, probe);
	bool twice = b->probed_twice;

	b->probed_twice = false;
	if (verdict == S3_EXISTS) {
		note_conditional(b, true);
	} else if ((verdict == S3_DONE && twice) || s3_call_knows_no_condition(verdict, answer)) {
		note_conditional(b, false);
	} else if (verdict == S3_DONE || verdict == S3_SKEWED) {
		/* It was not there: only a second one tells. Or the store's clock is known now. */
		b->probed_twice = verdict == S3_DONE;
		send_probe(b);
	} else if (verdict == S3_DENIED || verdict == S3_FOREIGN) {
		carrier_probed(b->carrier, verdict == S3_DENIED ? -EACCES : -EPROTO, -1, &call->err);
	} else {
		carrier_probed(b->carrier, -EIO, answer->retry_after_ms, &call->err);
	}
}

/* --- Loads --- */

static struct lane *lane_of(struct s3_call *call)
{
	return container_of(call, struct lane, call);
}

static void end_lane(struct lane *lane, enum load_verdict verdict, int64_t retry_after_ms)
{
	struct load *load = lane->load;

	lane->load = NULL;
	lane->call.skewed = false;
	if (verdict != LOAD_DELIVERED)
		load->err = lane->call.err;
	s3_call_drop(&lane->call);
	load_done(load, verdict, retry_after_ms);
}

/* What a verdict means that none of the steps below knows better. */
static void end_badly(struct lane *lane, enum s3_verdict verdict, const struct s3_answer *answer)
{
	bool denied = verdict == S3_DENIED || verdict == S3_FOREIGN;

	if (!lane->call.err.text[0])
		err_fail(&lane->call.err, 0, "an answer that does not fit: HTTP %ld", answer->status);
	end_lane(lane, denied ? LOAD_DENIED : LOAD_AWAY, answer->retry_after_ms);
}

static void send_put(struct lane *lane);
static void on_head_judged(struct s3_call *call, enum s3_verdict verdict, const struct s3_answer *answer);

static void send_head(struct lane *lane)
{
	struct s3_request request;
	int r = s3_head(lane->owner->s3, lane->load->batch.key, clock_wall_ms(), &request);

	lane->call.on_judged = on_head_judged;
	if (s3_call_send(&lane->call, r, &request, 0) < 0)
		end_lane(lane, LOAD_AWAY, -1);
}

static int on_object(struct s3_call *call, const void *data, size_t len)
{
	sha256_add(&lane_of(call)->hash, data, len);
	return 0;
}

static void send_get(struct lane *lane);

static void on_get_judged(struct s3_call *call, enum s3_verdict verdict, const struct s3_answer *answer)
{
	struct lane *lane = lane_of(call);
	uint8_t sha256[SHA256_SIZE];

	call->on_object = NULL;
	sha256_finish(&lane->hash, sha256);
	if (verdict == S3_SKEWED) {
		send_get(lane);
	} else if (verdict != S3_DONE) {
		end_badly(lane, verdict, answer);
	} else if (memcmp(sha256, lane->load->batch.sha256, sizeof sha256) == 0) {
		end_lane(lane, LOAD_DELIVERED, -1);
	} else {
		err_fail(&call->err, 0, "\"%s\" holds other bytes of the same size", lane->load->batch.key);
		end_lane(lane, LOAD_PARKED, -1);
	}
}

/* The store tells no checksum: the object is read back. */
static void send_get(struct lane *lane)
{
	struct s3_request request;
	int r = s3_get(lane->owner->s3, lane->load->batch.key, clock_wall_ms(), &request);

	lane->call.on_judged = on_get_judged;
	lane->call.on_object = on_object;
	sha256_init(&lane->hash);
	if (s3_call_send(&lane->call, r, &request, 0) == 0)
		return;
	lane->call.on_object = NULL;
	sha256_drop(&lane->hash);
	end_lane(lane, LOAD_AWAY, -1);
}

/* What stands there under the batch's key, as s3_same says. */
static void compare(struct lane *lane, int same)
{
	if (same == -ENODATA)
		send_get(lane);
	else
		end_lane(lane, same == 0 ? LOAD_DELIVERED : LOAD_PARKED, -1);
}

static void on_head_judged(struct s3_call *call, enum s3_verdict verdict, const struct s3_answer *answer)
{
	struct lane *lane = lane_of(call);

	if (verdict == S3_DONE)
		compare(lane, s3_same(answer, &lane->load->batch, &call->err));
	else if (verdict == S3_ABSENT && !lane->owner->conditional)
		send_put(lane);
	else if (verdict == S3_ABSENT) {
		err_fail(&call->err, 0, "the store contradicts itself: \"%s\" is there already (412), and is not (404)",
		         lane->load->batch.key);
		end_lane(lane, LOAD_AWAY, -1);
	} else if (verdict == S3_SKEWED)
		send_head(lane);
	else
		end_badly(lane, verdict, answer);
}

/* From the part at hand; a pause where the next one must come from the buffer first. */
static ssize_t on_object_read(void *arg, void *buffer, size_t size)
{
	struct lane *lane = lane_of(arg);
	struct load *load = lane->load;
	size_t left, n;

	if (load->busy)
		return HTTP_READ_PAUSE;
	left = load->data.len - lane->call.sent;
	n = left < size ? left : size;
	if (left == 0) {
		load_read(load);
		return HTTP_READ_PAUSE;
	}
	memcpy(buffer, load->data.data + lane->call.sent, n);
	lane->call.sent += n;
	return (ssize_t)n;
}

static void on_put_judged(struct s3_call *call, enum s3_verdict verdict, const struct s3_answer *answer)
{
	struct lane *lane = lane_of(call);

	if (verdict == S3_DONE && !answer->header(answer->arg, "ETag")) {
		err_fail(&call->err, 0, "what answers there is no S3: it takes an object and gives it no ETag");
		end_lane(lane, LOAD_DENIED, -1);
	} else if (verdict == S3_DONE)
		end_lane(lane, LOAD_DELIVERED, -1);
	else if (verdict == S3_EXISTS)
		send_head(lane);
	else if (verdict == S3_SKEWED)
		send_put(lane);
	else
		end_badly(lane, verdict, answer);
}

/* The object from its beginning. */
static void send_put(struct lane *lane)
{
	struct bearer_s3 *b = lane->owner;
	struct load *load = lane->load;
	struct s3_request request;
	int r = s3_put(b->s3, &load->batch, b->conditional, clock_wall_ms(), &request);

	lane->call.on_judged = on_put_judged;
	lane->call.on_read = on_object_read;
	load_rewind(load);
	if (s3_call_send(&lane->call, r, &request, load->batch.bytes) < 0)
		end_lane(lane, LOAD_AWAY, -1);
}

static void bearer_s3_bring(struct bearer *bearer, struct load *load)
{
	struct bearer_s3 *b = of(bearer);
	struct lane *lane = b->lanes;

	while (lane->load)
		lane++;
	lane->load = load;
	load->own = lane;
	if (b->conditional)
		send_put(lane);
	else
		send_head(lane);
}

static void bearer_s3_on_part(struct bearer *bearer, struct load *load)
{
	struct lane *lane = load->own;

	(void)bearer;
	lane->call.sent = 0;
	if (load->status < 0) {
		lane->call.err = load->err;
		end_lane(lane, load->status == -EBADMSG ? LOAD_PARKED : LOAD_AWAY, -1);
	} else if (lane->call.transfer) {
		http_resume(lane->call.transfer); /* else the store has answered in between */
	}
}

/* --- Its life --- */

static int bearer_s3_new(const struct carrier_env *env, const struct config_store *config, struct carrier *carrier,
                         struct bearer **ret_bearer, size_t *ret_loads)
{
	const struct s3_settings *settings = config->settings;
	struct bearer_s3 *b = calloc(1, sizeof *b);
	int r;

	if (!b)
		return -ENOMEM;
	b->bearer.ops = &bearer_s3_ops;
	b->carrier = carrier;
	b->config = config;
	b->conditional = true;
	r = s3_new(settings, config->access_key, config->secret_key, &b->s3);
	if (r < 0) {
		free(b);
		return r;
	}
	s3_call_init(&b->probe, env->http, settings, b->s3);
	b->probe.on_judged = on_probe_judged;
	for (size_t i = 0; i < LOADS_MAX; i++) {
		b->lanes[i].owner = b;
		s3_call_init(&b->lanes[i].call, env->http, settings, b->s3);
	}
	*ret_bearer = &b->bearer;
	/* A rate is kept by one upload at a time: two would share it anyway. */
	*ret_loads = settings->upload_rate ? 1 : (size_t)settings->parallel;
	return 0;
}

static void bearer_s3_probe(struct bearer *bearer, bool known)
{
	(void)known;
	send_probe(of(bearer));
}

static void bearer_s3_close(struct bearer *bearer, void (*on_closed)(void *arg), void *arg)
{
	struct bearer_s3 *b = of(bearer);

	s3_call_drop(&b->probe);
	for (size_t i = 0; i < LOADS_MAX; i++) {
		s3_call_drop(&b->lanes[i].call);
		sha256_drop(&b->lanes[i].hash);
	}
	on_closed(arg);
}

static void bearer_s3_free(struct bearer *bearer)
{
	struct bearer_s3 *b = of(bearer);

	s3_free(b->s3);
	free(b);
}

const struct bearer_ops bearer_s3_ops = {
	.probe_every_ms = 15 * 60 * 1000,
	.new = bearer_s3_new,
	.probe = bearer_s3_probe,
	.bring = bearer_s3_bring,
	.on_part = bearer_s3_on_part,
	.close = bearer_s3_close,
	.free = bearer_s3_free,
};
