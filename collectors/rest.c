/* SPDX-License-Identifier: Apache-2.0 */
#include "collectors/rest.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/container.h"
#include "base/sha256.h"
#include "base/url.h"
#include "collectors/schedule.h"
#include "collectors/split.h"

#define PATIENCE_MIN_MS 60000

enum state {
	REST_RESTING,  /* made and not started */
	REST_WAITING,  /* the alarm begins the next poll */
	REST_FETCHING, /* a transfer is under way */
	REST_SETTLING, /* published and not durable yet; the alarm is set */
	REST_OVERDUE,  /* the alarm rang while it was settling: the next poll begins when it is settled */
};

struct rest {
	struct collector collector;
	const struct collector_env *env;
	const struct rest_settings *settings;
	struct sink *sink;
	char *origin;
	enum state state;
	struct schedule schedule;
	struct alarm alarm; /* at_ms tells when the next poll is or was due, also while one is under way */

	/* Of the poll under way. */
	bool asked; /* by a person, before it was due */
	struct http_transfer *transfer;
	struct split *split;
	struct sha256 hash;
	int split_error; /* 0 or what the splitter or the sink returned */
	struct err err;  /* of split_error */
};

/* Settings */

static int check_url(const char *value, struct err *err)
{
	return url_check(value, err);
}

static int check_records(const char *value, struct err *err)
{
	return split_check_path(value, err);
}

static const char *const formats[] = { [REST_JSON] = "json", NULL };
static const char *const dedupes[] = { [REST_DEDUPE_BODY] = "body", [REST_DEDUPE_NONE] = "none", NULL };

#define SECOND       INT64_C(1000)
#define HOUR         (3600 * SECOND)
#define DAY          (24 * HOUR)
#define KIB          INT64_C(1024)
#define MIB          (1024 * KIB)

#define FIELD(field) .offset = offsetof(struct rest_settings, field)

static const struct option options[] = {
	{ .name = "url", .type = OPTION_TEXT, FIELD(url), .required = true, .check = check_url },
	{ .name = "every", .type = OPTION_DURATION, FIELD(every_ms), .fallback = "1m", .min = SECOND, .max = 31 * DAY },
	{ .name = "format", .type = OPTION_CHOICE, FIELD(format), .fallback = "json", .choices = formats },
	{ .name = "records", .type = OPTION_TEXT, FIELD(records), .check = check_records },
	{ .name = "dedupe", .type = OPTION_CHOICE, FIELD(dedupe), .fallback = "body", .choices = dedupes },
	{ .name = "timeout", .type = OPTION_DURATION, FIELD(timeout_ms), .fallback = "30s", .min = 100, .max = HOUR },
	{ .name = "connect_timeout",
	  .type = OPTION_DURATION,
	  FIELD(connect_timeout_ms),
	  .fallback = "10s",
	  .min = 100,
	  .max = HOUR },
	{ .name = "max_body", .type = OPTION_SIZE, FIELD(max_body), .fallback = "16M", .min = KIB, .max = 1024 * MIB },
	{ .name = "max_record", .type = OPTION_SIZE, FIELD(max_record), .fallback = "1M", .min = 1, .max = 64 * MIB },
	{ .name = "backoff_max",
	  .type = OPTION_DURATION,
	  FIELD(backoff_max_ms),
	  .fallback = "5m",
	  .min = SECOND,
	  .max = DAY },
	OPTION_END,
};

/* The end of a poll: all is set for the next one before the sink is told, whose owner may ask for it at once. */

static void forget_poll(struct rest *r)
{
	split_free(r->split);
	r->split = NULL;
	sha256_drop(&r->hash);
}

static void drop(struct rest *r, int64_t retry_after_ms, enum sink_outcome outcome, const char *cause, const char *text)
{
	int64_t now_ms = clock_mono_ms();
	forget_poll(r);
	r->state = REST_WAITING;
	alarm_set(r->env->alarms, &r->alarm,
	          r->asked ? schedule_after_request(&r->schedule, now_ms, r->alarm.at_ms, retry_after_ms)
	                   : schedule_after_failure(&r->schedule, now_ms, retry_after_ms));
	sink_drop(r->sink, outcome, cause, text);
}

static const char *status_hint(long status)
{
	switch (status) {
	case 401:
		return ": it wants a login, which is not supported yet";
	case 403:
		return ": forbidden; does the URL need a key, or is this address blocked?";
	case 404:
		return ": not found; is the path in \"url\" right?";
	case 429:
		return ": too many requests; poll less often (\"every\")";
	default:
		return "";
	}
}

static void drop_status(struct rest *r, const struct http_answer *answer)
{
	char cause[24];
	struct err err;
	snprintf(cause, sizeof cause, "http-%ld", answer->status);
	err_fail(&err, 0, "GET %.320s: HTTP %ld%s", r->origin, answer->status, status_hint(answer->status));
	bool heed = answer->status == 429 || answer->status == 503;
	drop(r, heed ? answer->retry_after_ms : -1, SINK_FAILED, cause, err.text);
}

static void drop_error(struct rest *r, const struct http_answer *answer)
{
	/* These two came, at least in part; of the others nothing can be said but that they did not. */
	bool came = answer->error == -EMSGSIZE || answer->error == -EPIPE;
	drop(r, -1, came ? SINK_REFUSED : SINK_FAILED, answer->cause, answer->text);
}

static void drop_encoded(struct rest *r, const struct http_answer *answer)
{
	struct err err;
	err_fail(&err, 0, "GET %.320s: the answer is compressed (Content-Encoding: %.40s), which was not asked for",
	         r->origin, answer->content_encoding);
	drop(r, -1, SINK_REFUSED, "encoded", err.text);
}

static void drop_split(struct rest *r, const struct http_answer *answer)
{
	if (r->split_error == -ENOMEM) {
		drop(r, -1, SINK_FAILED, "memory", "out of memory");
		return;
	}
	bool html = strncasecmp(answer->content_type, "text/html", 9) == 0;
	if (html)
		err_prefix(&r->err, "the answer is a web page (Content-Type: %.60s), not JSON", answer->content_type);
	err_prefix(&r->err, "GET %.320s", r->origin);
	drop(r, -1, SINK_REFUSED, split_cause(r->split), r->err.text);
}

/* Whether the body is the one that was committed last; if not, its hash becomes the sink's state. */
static bool seen_before(struct rest *r)
{
	uint8_t digest[SHA256_SIZE];
	if (r->settings->dedupe == REST_DEDUPE_NONE)
		return false;
	sha256_finish(&r->hash, digest);
	if (r->sink->state_len == sizeof digest && memcmp(r->sink->state, digest, sizeof digest) == 0)
		return true;
	memcpy(r->sink->state, digest, sizeof digest);
	r->sink->state_len = sizeof digest;
	return false;
}

static void complete(struct rest *r)
{
	int64_t wall_ms = clock_wall_ms(), mono_ms = clock_mono_ms();
	bool seen = seen_before(r);
	forget_poll(r);
	r->state = seen ? REST_WAITING : REST_SETTLING;
	alarm_set(r->env->alarms, &r->alarm, schedule_after_success(&r->schedule, mono_ms));
	if (seen)
		sink_unchanged(r->sink);
	else
		sink_publish(r->sink, wall_ms, mono_ms);
}

/* Exactly one word to the sink. */
static void judge(struct rest *r, const struct http_answer *answer)
{
	/* That the page of a 503 was cut short, or long, says less than the 503. */
	if (answer->status >= 400) {
		drop_status(r, answer);
		return;
	}
	if (answer->error && r->split_error == 0) {
		drop_error(r, answer);
		return;
	}
	if (answer->status != 200) {
		drop_status(r, answer);
		return;
	}
	if (*answer->content_encoding) {
		drop_encoded(r, answer);
		return;
	}
	if (r->split_error == 0)
		r->split_error = split_finish(r->split, &r->err);
	if (r->split_error)
		drop_split(r, answer);
	else
		complete(r);
}

/* The callbacks of a poll */

static int on_record(void *arg, const void *data, size_t len)
{
	struct rest *r = arg;
	return sink_record(r->sink, data, len);
}

static int on_body(void *arg, long status, const void *data, size_t len)
{
	struct rest *r = arg;
	if (status != 200)
		return 0;
	if (r->settings->dedupe == REST_DEDUPE_BODY)
		sha256_add(&r->hash, data, len);
	r->split_error = split_feed(r->split, data, len, &r->err);
	return r->split_error;
}

static void on_done(void *arg, const struct http_answer *answer)
{
	struct rest *r = arg;
	r->transfer = NULL;
	judge(r, answer);
}

static int start_transfer(struct rest *r, struct err *err)
{
	const struct rest_settings *s = r->settings;
	int rc = split_new(s->records, (size_t)s->max_record, on_record, r, &r->split, err);
	if (rc)
		return rc;
	const struct http_request request = {
		.method = "GET",
		.url = s->url,
		.connect_timeout_ms = s->connect_timeout_ms,
		.timeout_ms = s->timeout_ms,
		.max_body = (uint64_t)s->max_body,
		.on_body = on_body,
		.on_done = on_done,
		.arg = r,
	};
	return http_start(r->env->http, &request, &r->transfer, err);
}

static void begin(struct rest *r, bool asked)
{
	struct err err = { .text = "" };
	alarm_cancel(&r->alarm);
	r->state = REST_FETCHING;
	r->asked = asked;
	r->split_error = 0;
	sha256_init(&r->hash);
	sink_begin(r->sink);
	int rc = start_transfer(r, &err);
	if (rc)
		drop(r, -1, SINK_FAILED, rc == -ENOMEM ? "memory" : "url", err.text);
}

static void on_ring(struct alarm *alarm)
{
	struct rest *r = container_of(alarm, struct rest, alarm);
	if (r->state == REST_SETTLING)
		r->state = REST_OVERDUE;
	else
		begin(r, false);
}

static void on_settled(void *collector)
{
	struct rest *r = collector;
	if (r->state == REST_OVERDUE)
		begin(r, false);
	else
		r->state = REST_WAITING;
}

/* A commit that was under way when its collector went may still be told. */
static void on_settled_late(void *collector)
{
	(void)collector;
}

/* The ops */

static int rest_new(const struct collector_env *env, const void *settings, struct sink *sink,
                    struct collector **ret_collector)
{
	struct rest *r = calloc(1, sizeof *r);
	if (!r)
		return -ENOMEM;
	r->collector.ops = &rest_ops;
	r->env = env;
	r->settings = settings;
	r->origin = url_show(r->settings->url);
	if (!r->origin) {
		free(r);
		return -ENOMEM;
	}
	r->alarm.on_ring = on_ring;
	r->sink = sink;
	sink->on_settled = on_settled;
	sink->collector = r;
	*ret_collector = &r->collector;
	return 0;
}

static struct rest *rest_of(const struct collector *collector)
{
	return container_of(collector, struct rest, collector);
}

static void rest_start(struct collector *collector, int64_t delay_ms)
{
	struct rest *r = rest_of(collector);
	int64_t first_ms = clock_mono_ms() + delay_ms;
	assert(r->state == REST_RESTING);
	schedule_start(&r->schedule, r->settings->every_ms, r->settings->backoff_max_ms, first_ms);
	r->state = REST_WAITING;
	alarm_set(r->env->alarms, &r->alarm, first_ms);
}

static void rest_poll(struct collector *collector)
{
	struct rest *r = rest_of(collector);
	assert(r->state != REST_RESTING);
	if (r->state == REST_WAITING)
		begin(r, true);
}

static int64_t rest_next_ms(const struct collector *collector)
{
	const struct rest *r = rest_of(collector);
	return r->state == REST_RESTING || r->state == REST_FETCHING ? ALARM_NEVER : r->alarm.at_ms;
}

static int64_t rest_patience_ms(const struct collector *collector)
{
	const struct rest_settings *s = rest_of(collector)->settings;
	int64_t patience_ms = 3 * s->every_ms + s->timeout_ms;
	return patience_ms > PATIENCE_MIN_MS ? patience_ms : PATIENCE_MIN_MS;
}

static const char *rest_origin(const struct collector *collector)
{
	return rest_of(collector)->origin;
}

static void rest_free(struct collector *collector)
{
	if (!collector)
		return;
	struct rest *r = rest_of(collector);
	if (r->transfer)
		http_cancel(r->transfer);
	alarm_cancel(&r->alarm);
	forget_poll(r);
	r->sink->on_settled = on_settled_late;
	r->sink->collector = NULL;
	free(r->origin);
	free(r);
}

const struct collector_ops rest_ops = {
	.kind = "rest",
	.options = options,
	.settings_size = sizeof(struct rest_settings),
	.new = rest_new,
	.start = rest_start,
	.poll = rest_poll,
	.next_ms = rest_next_ms,
	.patience_ms = rest_patience_ms,
	.origin = rest_origin,
	.free = rest_free,
};
