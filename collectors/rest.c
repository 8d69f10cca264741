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
#include "base/secret.h"
#include "base/sha256.h"
#include "base/url.h"
#include "collectors/body.h"
#include "collectors/schedule.h"
#include "collectors/split.h"

#define PATIENCE_MIN_MS 60000

enum state {
	REST_RESTING,  /* not started, or stopped: nothing is under way */
	REST_WAITING,  /* the alarm begins the next poll */
	REST_HELD,     /* the alarm rang, or a person asked, while the sink was full: the next poll begins when there is
	                  room */
	REST_FETCHING, /* a transfer is under way */
	REST_LAST_FETCH,    /* the same, and stopped */
	REST_SETTLING,      /* published and not durable yet; the alarm is set */
	REST_OVERDUE,       /* the alarm rang while it was settling: the next poll begins when it is settled */
	REST_LAST_SETTLING, /* published and not durable yet, and stopped */
};

struct rest {
	struct collector collector;
	const struct collector_env *env;
	const struct rest_settings *settings;
	struct sink *sink;
	char *origin;
	char **headers; /* of a request, ended by NULL */
	enum state state;
	struct schedule schedule;
	struct alarm alarm; /* at_ms tells when the next poll is or was due, also while one is under way */

	/* Of the poll under way. */
	bool asked; /* by a person, before it was due */
	struct http_transfer *transfer;
	struct body *body;
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

/* Headers that say how the request is carried, which is ours to say. */
static const char *const own_headers[] = { "Accept-Encoding", "Connection", "Content-Length", "Host",
	                                   "Keep-Alive",      "TE",         "Trailer",        "Transfer-Encoding",
	                                   "Upgrade",         NULL };

/* A token (RFC 9110 §5.6.2). */
static int check_header_name(const char *name, struct err *err)
{
	static const char token[] = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

	if (!*name || name[strspn(name, token)])
		return err_fail(err, -EINVAL,
		                "it is no name of a header; it has letters, digits and -, as \"X-Api-Key\"");
	for (size_t i = 0; own_headers[i]; i++)
		if (strcasecmp(name, own_headers[i]) == 0)
			return err_fail(err, -EINVAL, "Millrace sets this header itself; leave it out");
	if (strncasecmp(name, "Proxy-", 6) == 0)
		return err_fail(err, -EINVAL,
		                "a header for a proxy would reach the source too; write user and password into "
		                "\"proxy\"");
	return 0;
}

static int check_header_value(const char *value, struct err *err)
{
	if (!value[strspn(value, " \t")])
		return err_fail(err, -EINVAL, "it is empty");
	for (; *value; value++)
		if ((unsigned char)*value < 0x20 || *value == 0x7f)
			return err_fail(err, -EINVAL, "it has a control character, such as a line break");
	return 0;
}

static int check_together(const void *settings, struct err *err)
{
	const struct rest_settings *s = settings;

	if (s->format == REST_NDJSON && s->records)
		return err_fail(
		        err, -EINVAL,
		        "\"records\" means nothing with format = \"ndjson\", where each line is a record; leave "
		        "one of them out");
	return 0;
}

static const char *const formats[] = { [REST_JSON] = "json", [REST_NDJSON] = "ndjson", NULL };
static const char *const dedupes[] = { [REST_DEDUPE_BODY] = "body", [REST_DEDUPE_NONE] = "none", NULL };

#define SECOND       INT64_C(1000)
#define HOUR         (3600 * SECOND)
#define DAY          (24 * HOUR)
#define KIB          INT64_C(1024)
#define MIB          (1024 * KIB)

#define FIELD(field) .offset = offsetof(struct rest_settings, field)

static const struct option options[] = {
	{ .name = "url", .type = OPTION_TEXT, FIELD(url), .required = true, .check = check_url },
	{ .name = "headers",
	  .type = OPTION_PAIRS,
	  FIELD(headers),
	  .check = check_header_value,
	  .check_name = check_header_name },
	{ .name = "proxy", .type = OPTION_TEXT, FIELD(proxy), .fallback = "", .check = http_check_proxy },
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

static void wait_until(struct rest *r, int64_t at_ms)
{
	if (r->state == REST_LAST_FETCH) {
		r->state = REST_RESTING;
		return;
	}
	r->state = REST_WAITING;
	alarm_set(r->env->alarms, &r->alarm, at_ms);
}

/* cause and text may be the body's. */
static void drop(struct rest *r, int64_t retry_after_ms, enum sink_outcome outcome, const char *cause, const char *text)
{
	struct body *body = r->body;
	int64_t now_ms = clock_mono_ms();
	struct sink_excerpt excerpt;

	if (outcome == SINK_REFUSED)
		excerpt = body_excerpt(body);
	r->body = NULL;
	wait_until(r, r->asked ? schedule_after_request(&r->schedule, now_ms, r->alarm.at_ms, retry_after_ms)
	                       : schedule_after_failure(&r->schedule, now_ms, retry_after_ms));
	sink_drop(r->sink, outcome, cause, text, outcome == SINK_REFUSED ? &excerpt : NULL);
	body_free(body);
}

static const char *status_hint(long status)
{
	switch (status) {
	case 401:
		return ": it wants a login; is one missing in \"headers\", or no longer good?";
	case 403:
		return ": forbidden; does it need a key, or is this address blocked?";
	case 404:
		return ": not found; is the path in \"url\" right?";
	case 429:
		return ": too many requests; poll less often (\"every\")";
	default:
		return "";
	}
}

/* A proxy that gets the request in the clear may answer itself: tinyproxy refuses a password with 401. */
static void name_the_proxy(const struct rest *r, struct err *err)
{
	const struct rest_settings *s = r->settings;
	if (!s->proxy || strncasecmp(s->proxy, "http:", 5) != 0 || strncasecmp(s->url, "http:", 5) != 0)
		return;
	char *shown = url_show(s->proxy);
	if (!shown)
		return;
	shown[strlen(shown) - 1] = '\0'; /* the path, "/" */
	err_prefix(err, "through the proxy %.80s", shown);
	free(shown);
}

static void name_the_request(const struct rest *r, struct err *err)
{
	name_the_proxy(r, err);
	err_prefix(err, "GET %.320s", r->origin);
}

static void drop_status(struct rest *r, const struct http_answer *answer)
{
	char cause[24];
	struct err err;
	snprintf(cause, sizeof cause, "http-%ld", answer->status);
	err_fail(&err, 0, "HTTP %ld%s", answer->status, status_hint(answer->status));
	name_the_request(r, &err);
	bool heed = answer->status == 429 || answer->status == 503;
	drop(r, heed ? answer->retry_after_ms : -1, SINK_FAILED, cause, err.text);
}

static void drop_error(struct rest *r, const struct http_answer *answer)
{
	/* These came, at least in part; of the others nothing can be said but that they did not. */
	bool large = answer->error == -EMSGSIZE, came = large || answer->error == -E2BIG || answer->error == -EPIPE;
	struct err err;
	err_fail(&err, 0, "%s%s", answer->text, large ? BODY_REMEDY : "");
	drop(r, -1, came ? SINK_REFUSED : SINK_FAILED, answer->cause, err.text);
}

static void drop_body(struct rest *r, const struct http_answer *answer)
{
	const char *cause = body_cause(r->body);
	struct err err;
	if (body_error(r->body) == -EFBIG) {
		err_fail(&err, 0, "the answer takes more of the buffer than one may; raise max_size");
		name_the_request(r, &err);
		drop(r, -1, SINK_REFUSED, "too-large", err.text);
		return;
	}
	if (body_error(r->body) == -ESTALE) {
		drop(r, -1, SINK_FAILED, "buffer",
		     "the first part of its answer was lost with a damaged buffer; it is asked again");
		return;
	}
	if (!cause) {
		drop(r, -1, SINK_FAILED, "memory", "out of memory");
		return;
	}
	bool html = strcmp(cause, "not-json") == 0 && strncasecmp(answer->content_type, "text/html", 9) == 0;
	err_fail(&err, 0, "%s", body_text(r->body));
	if (html)
		err_prefix(&err, "the answer is a web page (Content-Type: %.60s), not JSON", answer->content_type);
	name_the_request(r, &err);
	drop(r, -1, SINK_REFUSED, cause, err.text);
}

/* Whether the body is the one that was committed last; if not, its hash becomes the sink's state. */
static bool seen_before(struct rest *r)
{
	uint8_t digest[SHA256_SIZE];
	if (r->settings->dedupe == REST_DEDUPE_NONE)
		return false;
	body_digest(r->body, digest);
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
	bool last = r->state == REST_LAST_FETCH;
	body_free(r->body);
	r->body = NULL;
	wait_until(r, schedule_after_success(&r->schedule, mono_ms));
	if (seen) {
		sink_unchanged(r->sink);
		return;
	}
	r->state = last ? REST_LAST_SETTLING : REST_SETTLING;
	sink_publish(r->sink, wall_ms, mono_ms);
}

/* Exactly one word to the sink. */
static void judge(struct rest *r, const struct http_answer *answer)
{
	bool failed = answer->error && !body_error(r->body);
	r->sink->status = (int)answer->status;
	r->sink->bytes = body_bytes(r->body);
	/* That the page of a 503 was cut short, or long, says less than the 503. */
	if (answer->status >= 400 || (answer->status != 200 && !failed))
		drop_status(r, answer);
	else if (failed)
		drop_error(r, answer);
	else if (body_finish(r->body, answer->content_encoding))
		drop_body(r, answer);
	else
		complete(r);
}

/* The callbacks of a poll */

static ssize_t on_body(void *arg, long status, const void *data, size_t len)
{
	struct rest *r = arg;
	if (status != 200)
		return (ssize_t)len;
	ssize_t taken = body_feed(r->body, http_content_encoding(r->transfer), data, len);
	return taken < 0 ? HTTP_BODY_ABORT : taken;
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
	int rc = body_new(s, r->sink, &r->body, err);
	if (rc)
		return rc;
	const struct http_request request = {
		.method = "GET",
		.url = s->url,
		.headers = (const char *const *)r->headers,
		.connect_timeout_ms = s->connect_timeout_ms,
		.timeout_ms = s->timeout_ms,
		.max_body = (uint64_t)s->max_body,
		.proxy = s->proxy,
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
	sink_begin(r->sink);
	int rc = start_transfer(r, &err);
	if (rc)
		drop(r, -1, SINK_FAILED, rc == -ENOMEM ? "memory" : "url", err.text);
}

/* One that is due. */
static void begin_with_room(struct rest *r, bool asked)
{
	if (r->sink->full) {
		r->state = REST_HELD;
		r->asked = asked;
	} else {
		begin(r, asked);
	}
}

static void on_ring(struct alarm *alarm)
{
	struct rest *r = container_of(alarm, struct rest, alarm);
	if (r->state == REST_SETTLING)
		r->state = REST_OVERDUE;
	else
		begin_with_room(r, false);
}

static void on_settled(void *collector)
{
	struct rest *r = collector;
	if (r->state == REST_OVERDUE)
		begin_with_room(r, false);
	else if (r->state == REST_SETTLING)
		r->state = REST_WAITING;
	else if (r->state == REST_LAST_SETTLING)
		r->state = REST_RESTING;
}

static void on_room(void *collector)
{
	struct rest *r = collector;
	if (r->state == REST_HELD)
		begin_with_room(r, r->asked);
	else if (r->transfer)
		http_resume(r->transfer);
}

/* What the sink's owner has to tell when its collector has gone. */
static void on_late(void *collector)
{
	(void)collector;
}

/* The ops */

static void free_headers(char **headers)
{
	for (size_t i = 0; headers && headers[i]; i++)
		secret_free(headers[i]);
	free(headers);
}

static char *join_header(const struct option_pair *pair)
{
	size_t size = strlen(pair->name) + strlen(pair->value) + sizeof ": ";
	char *header = malloc(size);

	if (header)
		snprintf(header, size, "%s: %s", pair->name, pair->value);
	return header;
}

/* NULL for want of memory. */
static char **make_headers(const struct option_pairs *pairs)
{
	char **headers = calloc(pairs->n + 2, sizeof *headers);
	bool complete = headers;

	if (complete) {
		headers[0] = strdup("Accept-Encoding: gzip, deflate");
		complete = headers[0];
	}
	for (size_t i = 0; complete && i < pairs->n; i++) {
		headers[i + 1] = join_header(&pairs->pairs[i]);
		complete = headers[i + 1];
	}
	if (complete)
		return headers;
	free_headers(headers);
	return NULL;
}

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
	r->headers = make_headers(&r->settings->headers);
	if (!r->origin || !r->headers) {
		free(r->origin);
		free_headers(r->headers);
		free(r);
		return -ENOMEM;
	}
	r->alarm.on_ring = on_ring;
	r->sink = sink;
	sink->on_settled = on_settled;
	sink->on_room = on_room;
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
	assert(r->state == REST_RESTING || r->state == REST_LAST_FETCH || r->state == REST_LAST_SETTLING);
	schedule_start(&r->schedule, r->settings->every_ms, r->settings->backoff_max_ms, first_ms);
	r->alarm.at_ms = first_ms;
	if (r->state == REST_LAST_FETCH) {
		r->state = REST_FETCHING; /* whose end sets the alarm */
		return;
	}
	r->state = r->state == REST_RESTING ? REST_WAITING : REST_SETTLING;
	alarm_set(r->env->alarms, &r->alarm, first_ms);
}

static void rest_stop(struct collector *collector)
{
	struct rest *r = rest_of(collector);
	alarm_cancel(&r->alarm);
	if (r->state == REST_WAITING || r->state == REST_HELD)
		r->state = REST_RESTING;
	else if (r->state == REST_FETCHING)
		r->state = REST_LAST_FETCH;
	else if (r->state == REST_SETTLING || r->state == REST_OVERDUE)
		r->state = REST_LAST_SETTLING;
}

static bool rest_idle(const struct collector *collector)
{
	enum state state = rest_of(collector)->state;
	return state == REST_RESTING || state == REST_WAITING || state == REST_HELD;
}

static void rest_poll(struct collector *collector)
{
	struct rest *r = rest_of(collector);
	assert(r->state != REST_RESTING);
	if (r->state == REST_WAITING)
		begin_with_room(r, true);
}

static int64_t rest_next_ms(const struct collector *collector)
{
	const struct rest *r = rest_of(collector);
	switch (r->state) {
	case REST_WAITING:
	case REST_HELD:
	case REST_SETTLING:
	case REST_OVERDUE:
		return r->alarm.at_ms;
	default:
		return ALARM_NEVER;
	}
}

static int64_t rest_max_record(const void *settings)
{
	return ((const struct rest_settings *)settings)->max_record;
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
	body_free(r->body);
	r->sink->on_settled = on_late;
	r->sink->on_room = on_late;
	r->sink->collector = NULL;
	free_headers(r->headers);
	free(r->origin);
	free(r);
}

const struct collector_ops rest_ops = {
	.kind = "rest",
	.options = options,
	.settings_size = sizeof(struct rest_settings),
	.check = check_together,
	.max_record = rest_max_record,
	.new = rest_new,
	.start = rest_start,
	.stop = rest_stop,
	.idle = rest_idle,
	.poll = rest_poll,
	.next_ms = rest_next_ms,
	.patience_ms = rest_patience_ms,
	.origin = rest_origin,
	.free = rest_free,
};
