/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "collectors/rest.h"
#include "tests/unit/loopback.h"

#define OK           "HTTP/1.1 200 OK\r\n"
#define EMPTY        "Content-Length: 0\r\n\r\n"
#define UNAVAILABLE  "HTTP/1.1 503 Service Unavailable\r\n"

#define LONG_RECORDS 50000

static char long_answer[LONG_RECORDS * 12 + 200]; /* LONG_RECORDS lines of 10 bytes */

static const struct loopback_route routes[] = {
	{ "/feed", OK "Content-Length: 15\r\n\r\n[ 1, {\"a\":\n2} ]", LOOPBACK_KEEP },
	{ "/chunked", OK "Transfer-Encoding: chunked\r\n\r\n7\r\n[ 1, {\"\r\n8\r\na\":\n2} ]\r\n0\r\n\r\n",
	  LOOPBACK_KEEP },
	{ "/other", OK "Content-Length: 3\r\n\r\n[3]", LOOPBACK_KEEP },
	{ "/busy", UNAVAILABLE "Retry-After: 900\r\n" EMPTY, LOOPBACK_KEEP },
	{ "/busy-cut", UNAVAILABLE "Content-Length: 99\r\n\r\nsorry", LOOPBACK_CLOSE },
	{ "/error", "HTTP/1.1 500 Oh\r\nRetry-After: 900\r\n" EMPTY, LOOPBACK_KEEP },
	{ "/limit", "HTTP/1.1 429 Slow\r\nRetry-After: 900\r\n" EMPTY, LOOPBACK_KEEP },
	{ "/empty", "HTTP/1.1 204 No Content\r\n\r\n", LOOPBACK_KEEP },
	{ "/login", "HTTP/1.1 401 Who\r\n" EMPTY, LOOPBACK_KEEP },
	{ "/html", OK "Content-Type: text/html; charset=utf-8\r\nContent-Length: 6\r\n\r\n<html>", LOOPBACK_KEEP },
	{ "/not-json", OK "Content-Length: 6\r\n\r\n[1,2,x", LOOPBACK_KEEP },
	{ "/cut", OK "Content-Length: 99\r\n\r\n[1,2,", LOOPBACK_CLOSE },
	{ "/cut-unseen", OK "\r\n[1,2,", LOOPBACK_CLOSE },
	{ "/deflate", /* the body of /feed; the bits behind its end are 1, for the answer is a C string */
	  OK "Content-Encoding: deflate\r\nContent-Length: 23\r\n\r\n"
	     "\x78\xda\x8b\x56\x30\xd4\x51\xa8\x56\x4a\x54\xb2\xe2\x32\xaa\x55\x88\x05\x80\x1b\x71\x03\x89",
	  LOOPBACK_KEEP },
	{ "/gzip-cut", OK "Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08", LOOPBACK_KEEP },
	{ "/no-gzip", OK "Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\n[1]", LOOPBACK_KEEP },
	{ "/brotli", OK "Content-Encoding: br\r\nContent-Length: 3\r\n\r\n[1]", LOOPBACK_KEEP },
	{ "/lines", OK "Content-Length: 9\r\n\r\n1\r\n\n[2]\n3", LOOPBACK_KEEP },
	{ "/nothing", OK EMPTY, LOOPBACK_KEEP },
	{ "/long", long_answer, LOOPBACK_KEEP },
	{ "/large", OK "Content-Length: 5000\r\n\r\n[", LOOPBACK_KEEP },
	{ "/wide", OK "Content-Length: 42\r\n\r\n[\"012345678901234567890123456789012345\",1]", LOOPBACK_KEEP },
	{ "/moved", "HTTP/1.1 302 Found\r\nLocation: /moved\r\n" EMPTY, LOOPBACK_KEEP },
	{ "/hang", NULL, LOOPBACK_KEEP },
	{ "/hang-in-body", OK "Content-Length: 99\r\n\r\n[1,", LOOPBACK_KEEP },
	{ NULL, NULL, LOOPBACK_KEEP },
};

/* A sink that writes down what it is told, and settles when the test says so. */
struct fake {
	struct sink sink;
	char calls[512]; /* "begin record:1 publish " */
	bool fetching;
	int record_error;
	bool poll_again; /* asks for the next poll from within drop */
	int64_t wall_ms, mono_ms;
	enum sink_outcome outcome;
	char cause[64], text[ERR_MAX];
	unsigned records;
	unsigned full_after; /* records, then full; 0: never */
	bool excerpted;
	struct sink_excerpt excerpt; /* its data: */
	char data[SINK_EXCERPT_MAX];
};

static uv_loop_t loop;
static struct http *http;
static struct alarms alarms;
static struct loopback server;
static struct fake fake;
static struct rest_settings settings;
static struct collector *rest;
static struct collector_env env;

static void note(struct sink *sink, const char *call)
{
	struct fake *f = container_of(sink, struct fake, sink);
	assert_true(strlen(f->calls) + strlen(call) + 2 < sizeof f->calls);
	strcat(strcat(f->calls, call), " ");
}

static void end(struct sink *sink)
{
	struct fake *f = container_of(sink, struct fake, sink);
	assert_true(f->fetching); /* begun, and not ended before */
	f->fetching = false;
}

static void on_begin(struct sink *sink)
{
	struct fake *f = container_of(sink, struct fake, sink);
	assert_false(f->fetching);
	f->fetching = true;
	note(sink, "begin");
}

static int on_record(struct sink *sink, const void *data, size_t len)
{
	struct fake *f = container_of(sink, struct fake, sink);
	char call[128];
	assert_true(f->fetching);
	if (f->record_error)
		return f->record_error;
	if (++f->records == f->full_after)
		sink->full = true;
	if (f->full_after)
		return 0;
	snprintf(call, sizeof call, "%.*s", (int)len, (const char *)data);
	note(sink, call);
	return 0;
}

static void on_publish(struct sink *sink, int64_t wall_ms, int64_t mono_ms)
{
	struct fake *f = container_of(sink, struct fake, sink);
	end(sink);
	f->wall_ms = wall_ms;
	f->mono_ms = mono_ms;
	note(sink, "publish");
}

static void on_unchanged(struct sink *sink)
{
	end(sink);
	note(sink, "unchanged");
}

static void on_drop(struct sink *sink, enum sink_outcome outcome, const char *cause, const char *text,
                    const struct sink_excerpt *excerpt)
{
	struct fake *f = container_of(sink, struct fake, sink);
	end(sink);
	f->outcome = outcome;
	f->excerpted = excerpt;
	if (excerpt) {
		f->excerpt = *excerpt;
		assert_true(excerpt->len <= sizeof f->data);
		memcpy(f->data, excerpt->data, excerpt->len);
	}
	snprintf(f->cause, sizeof f->cause, "%s", cause);
	snprintf(f->text, sizeof f->text, "%s", text);
	note(sink, sink_outcome_names[outcome]);
	if (f->poll_again) {
		f->poll_again = false;
		rest->ops->poll(rest);
	}
}

static const struct sink_ops fake_ops = { on_begin, on_record, on_publish, on_unchanged, on_drop };

static const struct option *option(const char *name)
{
	const struct option *found = option_find(rest_ops.options, name);
	assert_non_null(found);
	return found;
}

static void set(const char *name, const char *value)
{
	assert_int_equal(option_set(option(name), &settings, value, NULL), 0);
}

static int setup(void **state)
{
	(void)state;
	memset(&fake, 0, sizeof fake);
	memset(&settings, 0, sizeof settings);
	fake.sink.ops = &fake_ops;
	alarms.first = NULL;
	assert_int_equal(uv_loop_init(&loop), 0);
	assert_int_equal(http_new(&loop, "millrace-test/1", &http), 0);
	env.http = http;
	env.alarms = &alarms;
	loopback_start(&loop, &server, routes);
	assert_int_equal(option_defaults(rest_ops.options, &settings), 0);
	set("records", "$");
	return 0;
}

static void on_closed(void *arg)
{
	*(bool *)arg = true;
}

static int teardown(void **state)
{
	(void)state;
	bool closed = false;
	rest_ops.free(rest);
	rest = NULL;
	assert_null(alarms.first);
	assert_int_equal(http_active(http), 0);
	http_close(http, on_closed, &closed);
	loopback_stop(&server);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_true(closed);
	assert_int_equal(uv_loop_close(&loop), 0);
	option_done(rest_ops.options, &settings);
	return 0;
}

static void start(const char *path)
{
	set("url", loopback_url(&server, path));
	assert_int_equal(rest_ops.new(&env, &settings, &fake.sink, &rest), 0);
	assert_int_equal(rest->ops->next_ms(rest), ALARM_NEVER);
	rest->ops->start(rest, 0);
}

/* Another path of the same server; the collector reads its settings anew for each poll. */
static void move(const char *path)
{
	set("url", loopback_url(&server, path));
}

static void ring(void)
{
	assert_non_null(alarms.first);
	alarms_ring(&alarms, alarms_next(&alarms));
}

static void run_to_end(void)
{
	assert_true(fake.fetching);
	while (fake.fetching)
		loopback_turn(&loop);
}

/* One poll from its alarm to its end. */
static void poll_once(void)
{
	fake.calls[0] = '\0';
	ring();
	run_to_end();
}

static void settle(void)
{
	fake.sink.on_settled(fake.sink.collector);
}

/* As the sink's owner does, whether or not anybody waits for it. */
static void make_room(void)
{
	fake.sink.full = false;
	fake.sink.on_room(fake.sink.collector);
}

static void assert_next_within(int64_t least_ms, int64_t most_ms)
{
	int64_t wait_ms = rest->ops->next_ms(rest) - clock_mono_ms();
	if (wait_ms < least_ms - 1000 || wait_ms > most_ms)
		fail_msg("the next poll comes in %lld ms", (long long)wait_ms);
}

static void assert_dropped(enum sink_outcome outcome, const char *cause, const char *text)
{
	assert_int_equal(fake.outcome, outcome);
	assert_string_equal(fake.cause, cause);
	if (!strstr(fake.text, text))
		fail_msg("\"%s\" does not say \"%s\"", fake.text, text);
	assert_memory_equal(fake.text, "GET http://127.0.0.1", 20);
	assert_null(strstr(fake.text, "secret"));
	assert_int_equal(fake.excerpted, outcome == SINK_REFUSED);
	assert_int_equal(fake.sink.state_len, 0);
	assert_next_within(2500, 5000); /* the first backoff */
}

static void test_records_are_published(void **state)
{
	(void)state;
	int64_t wall_ms = clock_wall_ms(), mono_ms = clock_mono_ms();
	start("/feed?key=secret");
	poll_once();
	assert_string_equal(fake.calls, "begin 1 {\"a\": 2} publish ");
	assert_int_equal(fake.sink.state_len, 32);
	assert_true(fake.wall_ms >= wall_ms && fake.wall_ms <= clock_wall_ms());
	assert_true(fake.mono_ms >= mono_ms && fake.mono_ms <= clock_mono_ms());
	assert_next_within(59000, 60000);
	assert_non_null(strstr(server.last_head, "GET /feed?key=secret HTTP/1.1\r\n"));
}

static void test_the_state_is_a_hash_of_the_body(void **state)
{
	(void)state;
	static const uint8_t expected[32] = {
		/* printf 'json\0$\0[3]' | sha256sum */
		0x4e, 0x6c, 0x18, 0x8b, 0xb8, 0xc5, 0x00, 0xef, 0x9a, 0xba, 0x0e, 0x12, 0x98, 0x24, 0xed, 0xa2,
		0xeb, 0xe4, 0x47, 0x68, 0xa6, 0x82, 0x03, 0x4d, 0xaf, 0x4f, 0xcd, 0x55, 0x12, 0x95, 0xd4, 0x11,
	};
	start("/other");
	poll_once();
	assert_int_equal(fake.sink.state_len, sizeof expected);
	assert_memory_equal(fake.sink.state, expected, sizeof expected);
}

static void test_without_records_the_body_is_one(void **state)
{
	(void)state;
	free(settings.records);
	settings.records = NULL;
	start("/feed");
	poll_once();
	assert_string_equal(fake.calls, "begin [ 1, {\"a\": 2} ] publish ");
}

static void test_equal_bodies_are_unchanged(void **state)
{
	(void)state;
	start("/feed");
	poll_once();
	settle();
	move("/chunked"); /* the same body in other frames */
	poll_once();
	assert_string_equal(fake.calls, "begin 1 {\"a\": 2} unchanged ");
	assert_next_within(59000, 60000);
	move("/deflate"); /* the same body compressed */
	poll_once();
	assert_string_equal(fake.calls, "begin 1 {\"a\": 2} unchanged ");
	move("/other");
	poll_once();
	assert_string_equal(fake.calls, "begin 3 publish ");
	settle();
	move("/feed");
	poll_once();
	assert_string_equal(fake.calls, "begin 1 {\"a\": 2} publish ");
}

/* Status and bytes of the last one, and of no other. */
static void test_what_came_is_told(void **state)
{
	static const struct {
		const char *path;
		int status;
		uint64_t bytes;
	} answers[] = {
		{ "/feed", 200, 15 },    { "/deflate", 200, 15 }, /* inflated */
		{ "/login", 401, 0 },    { "/busy-cut", 503, 0 }, /* its page is of no interest */
		{ "/not-json", 200, 6 }, { "/cut", 200, 5 },      { "/gzip-cut", 200, 0 }, { "/empty", 204, 0 },
	};
	(void)state;
	start("/feed");
	for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
		move(answers[i].path);
		poll_once();
		assert_int_equal(fake.sink.status, answers[i].status);
		assert_int_equal(fake.sink.bytes, answers[i].bytes);
		if (i == 0)
			settle();
	}
	free(settings.url);
	settings.url = strdup("http://127.0.0.1:1/");
	poll_once();
	assert_string_equal(fake.cause, "refused");
	assert_int_equal(fake.sink.status, 0);
	assert_int_equal(fake.sink.bytes, 0);
}

static void test_the_state_lasts_over_a_restart(void **state)
{
	(void)state;
	start("/feed");
	poll_once();
	settle();
	rest_ops.free(rest);
	start("/feed");
	poll_once();
	assert_string_equal(fake.calls, "begin 1 {\"a\": 2} unchanged ");
}

static void test_without_dedupe_equal_bodies_are_published(void **state)
{
	(void)state;
	set("dedupe", "none");
	start("/feed");
	poll_once();
	settle();
	poll_once();
	assert_string_equal(fake.calls, "begin 1 {\"a\": 2} publish ");
	assert_int_equal(fake.sink.state_len, 0);
}

static void test_other_statuses_fail(void **state)
{
	(void)state;
	start("/busy-cut?key=secret");
	poll_once();
	assert_dropped(SINK_FAILED, "http-503", "/busy-cut: HTTP 503");
	assert_string_equal(fake.calls, "begin failed ");
	rest_ops.free(rest);
	start("/login");
	poll_once();
	assert_dropped(SINK_FAILED, "http-401", "HTTP 401: it wants a login");
	rest_ops.free(rest);
	start("/lost");
	poll_once();
	assert_dropped(SINK_FAILED, "http-404", "HTTP 404: not found");
	rest_ops.free(rest);
	start("/empty");
	poll_once();
	assert_dropped(SINK_FAILED, "http-204", "HTTP 204");
	rest_ops.free(rest);
	start("/error");
	poll_once(); /* its Retry-After is not heeded */
	assert_dropped(SINK_FAILED, "http-500", "HTTP 500");
}

static void test_retry_after_is_heeded(void **state)
{
	(void)state;
	start("/busy");
	poll_once();
	assert_string_equal(fake.cause, "http-503");
	assert_next_within(900000, 900000);
	rest_ops.free(rest);
	start("/limit");
	poll_once();
	assert_string_equal(fake.cause, "http-429");
	assert_next_within(900000, 900000);
}

static void test_what_did_not_come_failed(void **state)
{
	(void)state;
	set("timeout", "100ms");
	start("/hang?key=secret");
	poll_once();
	assert_dropped(SINK_FAILED, "timeout", "/hang: no answer within 100ms");
	rest_ops.free(rest);
	start("/moved");
	poll_once();
	assert_dropped(SINK_FAILED, "redirect", "more than 5 redirects");
}

static void test_what_was_not_promised_is_refused(void **state)
{
	(void)state;
	static const struct {
		const char *path, *cause, *text, *calls, *excerpt;
		int64_t offset;
		bool unread;
	} cases[] = {
		{ "/html?key=secret", "not-json", "/html: the answer is a web page (Content-Type: text/html",
		  "begin refused ", "<html>", 0, false },
		{ "/not-json", "not-json", "/not-json: ", "begin 1 2 refused ", "[1,2,x", 5, false },
		{ "/cut", "truncated", "/cut: the answer ended after 5 of 99 bytes", "begin 1 2 refused ", "[1,2,", -1,
		  false },
		{ "/cut-unseen", "truncated", "/cut-unseen: ", "begin 1 2 refused ", "[1,2,", 5, false },
		{ "/gzip-cut", "truncated", "/gzip-cut: the gzip stream ends after 3 bytes", "begin refused ",
		  "\\x1f\\x8b\\x08", -1, true },
		{ "/no-gzip", "bad-encoding", "/no-gzip: the gzip stream is broken", "begin refused ", "[1]", -1,
		  true },
		{ "/brotli", "encoded", "/brotli: Content-Encoding \"br\" is none", "begin refused ", "[1]", -1, true },
		{ "/nothing", "empty", "/nothing: empty answer", "begin refused ", "", 0, false },
		{ "/large", "too-large", "the answer has 5000 bytes; more than 1024 are not taken; raise max_body",
		  "begin refused ", "", -1, false },
		{ "/wide", "record-too-large", "/wide: ", "begin refused ",
		  "[\"012345678901234567890123456789012345\",1]", 17, false },
	};
	set("max_body", "1K");
	settings.max_record = 16;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		start(cases[i].path);
		poll_once();
		assert_dropped(SINK_REFUSED, cases[i].cause, cases[i].text);
		assert_string_equal(fake.calls, cases[i].calls);
		assert_int_equal(fake.excerpt.offset, cases[i].offset);
		assert_int_equal(fake.excerpt.bytes, cases[i].unread ? 0 : strlen(cases[i].excerpt));
		assert_int_equal(fake.excerpt.start, 0);
		assert_int_equal(fake.excerpt.len, strlen(cases[i].excerpt));
		assert_memory_equal(fake.data, cases[i].excerpt, fake.excerpt.len);
		rest_ops.free(rest);
		rest = NULL;
	}
}

static void test_a_sink_without_memory(void **state)
{
	(void)state;
	fake.record_error = -ENOMEM;
	start("/feed");
	poll_once();
	assert_int_equal(fake.outcome, SINK_FAILED);
	assert_string_equal(fake.cause, "memory");
	fake.record_error = 0;
	poll_once();
	assert_string_equal(fake.calls, "begin 1 {\"a\": 2} publish ");
}

static void test_failures_back_off_and_end(void **state)
{
	(void)state;
	start("/error");
	poll_once();
	assert_next_within(2500, 5000);
	poll_once();
	assert_next_within(5000, 10000);
	poll_once();
	assert_next_within(10000, 20000);
	move("/feed");
	poll_once();
	assert_next_within(0, 60000);
	settle();
	move("/error");
	poll_once();
	assert_next_within(2500, 5000);
}

static void test_failures_that_were_asked_for_leave_the_backoff_alone(void **state)
{
	(void)state;
	start("/error");
	poll_once();
	int64_t due_ms = rest->ops->next_ms(rest);
	for (int i = 0; i < 5; i++) {
		rest->ops->poll(rest);
		run_to_end();
		assert_int_equal(rest->ops->next_ms(rest), due_ms);
	}
	assert_int_equal(server.requests, 6);
	poll_once();
	assert_next_within(5000, 10000); /* the second backoff */
}

static void test_lines(void **state)
{
	(void)state;
	free(settings.records);
	settings.records = NULL;
	set("format", "ndjson");
	start("/lines");
	poll_once();
	assert_string_equal(fake.calls, "begin 1 [2] 3 publish ");
	settle();
	move("/nothing"); /* an answer without a line is complete */
	poll_once();
	assert_string_equal(fake.calls, "begin publish ");
	settle();
	move("/not-json");
	poll_once();
	assert_string_equal(fake.calls, "begin refused ");
}

static void test_headers_are_sent(void **state)
{
	(void)state;
	static char names[2][16] = { "X-Api-Key", "User-Agent" }, values[2][16] = { "hunter2", "curious/1" };
	struct option_pair pairs[] = { { .name = names[0], .value = values[0] },
		                       { .name = names[1], .value = values[1] } };
	settings.headers = (struct option_pairs){ pairs, 2 };
	start("/feed");
	settings.headers = (struct option_pairs){ 0 };
	poll_once();
	assert_non_null(strstr(server.last_head, "\r\nAccept-Encoding: gzip, deflate\r\n"));
	assert_non_null(strstr(server.last_head, "\r\nX-Api-Key: hunter2\r\n"));
	assert_non_null(strstr(server.last_head, "\r\nUser-Agent: curious/1\r\n"));
	assert_null(strstr(server.last_head, "millrace-test"));
}

static void test_through_a_proxy(void **state)
{
	(void)state;
	static const char line[] = "GET http://data.example/feed HTTP/1.1\r\n";
	set("proxy", loopback_url(&server, ""));
	set("url", "http://data.example/feed");
	assert_int_equal(rest_ops.new(&env, &settings, &fake.sink, &rest), 0);
	rest->ops->start(rest, 0);
	poll_once();
	assert_memory_equal(server.last_head, line, strlen(line));
}

static void test_nothing_begins_while_the_sink_is_full(void **state)
{
	(void)state;
	start("/feed");
	fake.sink.full = true;
	rest->ops->poll(rest); /* does nothing */
	ring();
	assert_false(fake.fetching);
	assert_null(alarms.first);
	assert_true(rest->ops->idle(rest));
	assert_next_within(0, 0); /* it is due */
	rest->ops->poll(rest);
	assert_false(fake.fetching);
	make_room();
	assert_true(fake.fetching);
	run_to_end();
	assert_string_equal(fake.calls, "begin 1 {\"a\": 2} publish ");
	assert_next_within(59000, 60000);
	make_room(); /* says nothing new */
	assert_string_equal(fake.calls, "begin 1 {\"a\": 2} publish ");

	/* overdue when it settles, and then held */
	ring();
	fake.sink.full = true;
	settle();
	assert_false(fake.fetching);
	make_room();
	run_to_end();
	assert_int_equal(server.requests, 2);
}

static void test_a_full_sink_in_time_skips_no_poll(void **state)
{
	(void)state;
	start("/feed");
	fake.sink.full = true;
	make_room();
	assert_false(fake.fetching);
	poll_once();
	assert_int_equal(server.requests, 1);
}

static void make_long_answer(void)
{
	int len = snprintf(long_answer, sizeof long_answer, OK "Content-Length: %d\r\n\r\n", LONG_RECORDS * 10);
	for (int i = 0; i < LONG_RECORDS; i++)
		len += snprintf(long_answer + len, sizeof long_answer - (size_t)len, "\"%07d\"\n", i);
	free(settings.records);
	settings.records = NULL;
	set("format", "ndjson");
}

static void wait_until_full(void)
{
	while (!fake.sink.full)
		loopback_turn(&loop);
	for (int i = 0; i < 5; i++)
		loopback_turn(&loop);
	assert_true(fake.records < fake.full_after + SINK_OVERSHOOT / 10);
	assert_true(fake.fetching);
}

static void test_a_transfer_waits_for_room(void **state)
{
	(void)state;
	make_long_answer();
	start("/long");
	ring();
	for (unsigned i = 1; i <= 4; i++) {
		fake.full_after = i * 10000;
		wait_until_full();
		make_room();
	}
	run_to_end();
	assert_int_equal(fake.records, LONG_RECORDS);
	assert_string_equal(fake.calls, "begin publish ");
}

static void test_a_transfer_that_waits_too_long_fails(void **state)
{
	(void)state;
	make_long_answer();
	set("timeout", "200ms");
	fake.full_after = 10;
	start("/long");
	ring();
	run_to_end();
	assert_string_equal(fake.calls, "begin failed ");
	assert_dropped(SINK_FAILED, "timeout", "");
	make_room(); /* of another fetch, long after */
	fake.full_after = 0;
	set("timeout", "30s");
	move("/lines");
	poll_once();
	assert_string_equal(fake.calls, "begin 1 [2] 3 publish ");
}

static void test_free_while_it_waits_for_room(void **state)
{
	(void)state;
	make_long_answer();
	fake.full_after = 10;
	start("/long");
	ring();
	wait_until_full();
	rest_ops.free(rest);
	rest = NULL;
	make_room();
	assert_string_equal(fake.calls, "begin ");
}

static void test_stop_at_rest(void **state)
{
	(void)state;
	start("/feed");
	rest->ops->stop(rest);
	assert_null(alarms.first);
	assert_true(rest->ops->idle(rest));
	assert_int_equal(rest->ops->next_ms(rest), ALARM_NEVER);
	rest->ops->stop(rest);
	rest->ops->start(rest, 5000);
	assert_next_within(5000, 5000);
	fake.sink.full = true;
	ring();
	rest->ops->stop(rest); /* while it is held */
	make_room();
	assert_string_equal(fake.calls, "");
	rest->ops->start(rest, 0);
	poll_once();
	assert_string_equal(fake.calls, "begin 1 {\"a\": 2} publish ");
}

static void test_stop_during_a_fetch(void **state)
{
	(void)state;
	start("/feed");
	ring();
	rest->ops->stop(rest);
	assert_false(rest->ops->idle(rest));
	run_to_end();
	assert_string_equal(fake.calls, "begin 1 {\"a\": 2} publish ");
	assert_false(rest->ops->idle(rest)); /* not settled */
	assert_int_equal(rest->ops->next_ms(rest), ALARM_NEVER);
	assert_null(alarms.first);
	settle();
	assert_true(rest->ops->idle(rest));

	rest->ops->start(rest, 0);
	ring();
	rest->ops->stop(rest);
	run_to_end();
	assert_non_null(strstr(fake.calls, "unchanged"));
	assert_true(rest->ops->idle(rest));
	assert_null(alarms.first);

	move("/error");
	rest->ops->start(rest, 0);
	ring();
	rest->ops->stop(rest);
	run_to_end();
	assert_non_null(strstr(fake.calls, "failed"));
	assert_true(rest->ops->idle(rest));
	assert_null(alarms.first);
}

static void test_stop_while_unsettled(void **state)
{
	(void)state;
	for (int overdue = 0; overdue < 2; overdue++) {
		start("/feed");
		fake.sink.state_len = 0;
		poll_once();
		if (overdue)
			ring();
		rest->ops->stop(rest);
		assert_null(alarms.first);
		assert_false(rest->ops->idle(rest));
		settle();
		assert_true(rest->ops->idle(rest));
		assert_false(fake.fetching);
		rest_ops.free(rest);
	}
	rest = NULL;
}

static void test_a_stopped_transfer_still_waits_for_room(void **state)
{
	(void)state;
	make_long_answer();
	fake.full_after = 10;
	start("/long");
	ring();
	wait_until_full();
	rest->ops->stop(rest);
	make_room();
	run_to_end();
	assert_int_equal(fake.records, LONG_RECORDS);
	assert_string_equal(fake.calls, "begin publish ");
}

static void test_start_again_before_the_end(void **state)
{
	(void)state;
	start("/feed");
	ring();
	rest->ops->stop(rest);
	rest->ops->start(rest, 100000); /* during the fetch: it decides when the next comes */
	run_to_end();
	assert_next_within(100000, 100000);
	rest->ops->stop(rest);
	rest->ops->start(rest, 3000); /* unsettled */
	assert_next_within(3000, 3000);
	ring();
	assert_false(fake.fetching);
	settle();
	assert_true(fake.fetching);
	run_to_end();
	assert_int_equal(server.requests, 2);
}

static void test_polls_do_not_overlap(void **state)
{
	(void)state;
	start("/hang-in-body");
	ring();
	assert_true(fake.fetching);
	assert_int_equal(rest->ops->next_ms(rest), ALARM_NEVER);
	assert_null(alarms.first); /* nothing that could begin another */
	while (server.requests == 0)
		loopback_turn(&loop);
	rest->ops->poll(rest); /* does nothing */
	for (int i = 0; i < 5; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
	assert_int_equal(server.requests, 1);
	assert_int_equal(http_active(http), 1);
}

static void test_the_next_poll_waits_until_settled(void **state)
{
	(void)state;
	start("/feed");
	poll_once();
	rest->ops->poll(rest); /* not settled: does nothing */
	assert_false(fake.fetching);
	ring(); /* due, and waits */
	assert_false(fake.fetching);
	assert_null(alarms.first);
	rest->ops->poll(rest);
	assert_false(fake.fetching);
	settle();
	assert_true(fake.fetching);
	run_to_end();
	assert_int_equal(server.requests, 2);
	assert_non_null(strstr(fake.calls, "unchanged"));
}

static void test_settled_in_time_waits_for_the_alarm(void **state)
{
	(void)state;
	start("/feed");
	poll_once();
	settle();
	assert_false(fake.fetching);
	assert_next_within(59000, 60000);
}

static void test_poll_now(void **state)
{
	(void)state;
	start("/feed");
	int64_t first_ms = rest->ops->next_ms(rest);
	poll_once();
	settle();
	int64_t due_ms = rest->ops->next_ms(rest);
	assert_int_equal(due_ms, first_ms + 60000);
	rest->ops->poll(rest);
	assert_true(fake.fetching);
	assert_null(alarms.first); /* what was due would begin another */
	run_to_end();
	assert_int_equal(server.requests, 2);
	assert_int_equal(rest->ops->next_ms(rest), due_ms); /* the slots stay */
}

static void test_poll_from_within_the_end_of_one(void **state)
{
	(void)state;
	fake.poll_again = true;
	start("/not-json");
	ring();
	move("/feed");
	run_to_end(); /* of the second: the first one's end asked for it */
	assert_int_equal(server.requests, 2);
	assert_string_equal(fake.calls, "begin 1 2 refused begin 1 {\"a\": 2} publish ");
}

static void test_free_during_a_transfer(void **state)
{
	(void)state;
	start("/hang-in-body");
	ring();
	while (!strstr(fake.calls, "1"))
		loopback_turn(&loop);
	rest_ops.free(rest);
	rest = NULL;
	assert_string_equal(fake.calls, "begin 1 "); /* without a word */
	assert_int_equal(http_active(http), 0);
}

static void test_free_while_unsettled(void **state)
{
	(void)state;
	start("/feed");
	poll_once();
	rest_ops.free(rest);
	rest = NULL;
	settle(); /* a commit that ends late touches nothing */
}

static void test_free_of_nothing_and_at_rest(void **state)
{
	(void)state;
	rest_ops.free(NULL);
	set("url", "http://127.0.0.1:1/");
	assert_int_equal(rest_ops.new(&env, &settings, &fake.sink, &rest), 0);
}

static void test_origin_and_patience(void **state)
{
	(void)state;
	set("url", "https://data.example/parking.json?key=secret");
	set("every", "2m");
	assert_int_equal(rest_ops.new(&env, &settings, &fake.sink, &rest), 0);
	assert_string_equal(rest->ops->origin(rest), "https://data.example/parking.json");
	assert_int_equal(rest->ops->patience_ms(rest), 390000);
	settings.every_ms = 1000;
	settings.timeout_ms = 1000;
	assert_int_equal(rest->ops->patience_ms(rest), 60000);
}

static void test_settings(void **state)
{
	(void)state;
	struct err err;
	assert_string_equal(rest_ops.kind, "rest");
	assert_ptr_equal(collector_kinds[0], &rest_ops);
	assert_null(collector_kinds[1]);
	assert_true(option("url")->required);
	assert_int_equal(settings.every_ms, 60000);
	assert_int_equal(settings.format, REST_JSON);
	assert_int_equal(settings.dedupe, REST_DEDUPE_BODY);
	assert_int_equal(settings.timeout_ms, 30000);
	assert_int_equal(settings.connect_timeout_ms, 10000);
	assert_int_equal(settings.max_body, 16 << 20);
	assert_int_equal(settings.max_record, 1 << 20);
	assert_int_equal(settings.backoff_max_ms, 300000);
	assert_int_equal(option_set(option("url"), &settings, "ftp://data.example/x", &err), -EINVAL);
	assert_non_null(strstr(err.text, "scheme \"ftp\" is not http or https"));
	assert_int_equal(option_set(option("url"), &settings, "https://me:secret@data.example/", &err), -EINVAL);
	assert_null(strstr(err.text, "secret"));
	assert_int_equal(option_set(option("records"), &settings, "a..b", &err), -EINVAL);
	assert_int_equal(option_set(option("every"), &settings, "999ms", &err), -EINVAL);
	assert_int_equal(option_set(option("max_body"), &settings, "2G", &err), -EINVAL);
	assert_int_equal(rest_ops.max_record(&settings), 1 << 20);
}

static void assert_refused(int rc, const struct err *err, const char *says)
{
	assert_int_equal(rc, -EINVAL);
	if (!strstr(err->text, says))
		fail_msg("\"%s\" does not say \"%s\"", err->text, says);
}

static void test_settings_of_headers(void **state)
{
	(void)state;
	static const char *const good[] = {
		"X-Api-Key", "Authorization", "User-Agent", "accept", "Cookie", "T", "TEa"
	};
	static const char *const ours[] = { "Host",       "content-length",  "Transfer-Encoding",
		                            "CONNECTION", "Accept-Encoding", "te",
		                            "Upgrade",    "Keep-Alive",      "Trailer" };
	static const char *const none[] = { "", " ", "X Api", "X-Api-Key:", "X\nY", "Bl\xc3\xa5", "(a)" };
	const struct option *headers = option("headers");
	struct err err;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++)
		assert_int_equal(headers->check_name(good[i], &err), 0);
	for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
		assert_refused(headers->check_name(ours[i], &err), &err, "Millrace sets this header itself");
	for (size_t i = 0; i < sizeof none / sizeof *none; i++)
		assert_refused(headers->check_name(none[i], &err), &err, "no name of a header");
	assert_refused(headers->check_name("proxy-Authorization", &err), &err, "\"proxy\"");
	assert_int_equal(headers->check("Bearer a:b, c=\"\xc3\xa5\"", &err), 0);
	assert_refused(headers->check(" ", &err), &err, "empty");
	assert_refused(headers->check("a\r\nHost: b", &err), &err, "control character");
	assert_refused(headers->check("a\x7f", &err), &err, "control character");
}

static void test_settings_together(void **state)
{
	(void)state;
	struct err err;
	assert_int_equal(rest_ops.check(&settings, &err), 0);
	set("format", "ndjson");
	assert_refused(rest_ops.check(&settings, &err), &err, "\"records\" means nothing with format = \"ndjson\"");
	free(settings.records);
	settings.records = NULL;
	assert_int_equal(rest_ops.check(&settings, &err), 0);
	assert_string_equal(settings.proxy, "");
	assert_int_equal(option_set(option("proxy"), &settings, "ftp://proxy.lan", &err), -EINVAL);
}

int main(void)
{
	alarm(60); /* a hang fails */
	signal(SIGPIPE, SIG_IGN);
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_records_are_published),
		TEST(test_the_state_is_a_hash_of_the_body),
		TEST(test_without_records_the_body_is_one),
		TEST(test_equal_bodies_are_unchanged),
		TEST(test_what_came_is_told),
		TEST(test_the_state_lasts_over_a_restart),
		TEST(test_without_dedupe_equal_bodies_are_published),
		TEST(test_other_statuses_fail),
		TEST(test_retry_after_is_heeded),
		TEST(test_what_did_not_come_failed),
		TEST(test_what_was_not_promised_is_refused),
		TEST(test_a_sink_without_memory),
		TEST(test_failures_back_off_and_end),
		TEST(test_failures_that_were_asked_for_leave_the_backoff_alone),
		TEST(test_lines),
		TEST(test_headers_are_sent),
		TEST(test_through_a_proxy),
		TEST(test_nothing_begins_while_the_sink_is_full),
		TEST(test_a_full_sink_in_time_skips_no_poll),
		TEST(test_a_transfer_waits_for_room),
		TEST(test_a_transfer_that_waits_too_long_fails),
		TEST(test_free_while_it_waits_for_room),
		TEST(test_stop_at_rest),
		TEST(test_stop_during_a_fetch),
		TEST(test_stop_while_unsettled),
		TEST(test_a_stopped_transfer_still_waits_for_room),
		TEST(test_start_again_before_the_end),
		TEST(test_polls_do_not_overlap),
		TEST(test_the_next_poll_waits_until_settled),
		TEST(test_settled_in_time_waits_for_the_alarm),
		TEST(test_poll_now),
		TEST(test_poll_from_within_the_end_of_one),
		TEST(test_free_during_a_transfer),
		TEST(test_free_while_unsettled),
		TEST(test_free_of_nothing_and_at_rest),
		TEST(test_origin_and_patience),
		TEST(test_settings),
		TEST(test_settings_of_headers),
		TEST(test_settings_together),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
