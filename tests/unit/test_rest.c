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

#define OK          "HTTP/1.1 200 OK\r\n"
#define EMPTY       "Content-Length: 0\r\n\r\n"
#define UNAVAILABLE "HTTP/1.1 503 Service Unavailable\r\n"

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
	{ "/gzip", OK "Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08", LOOPBACK_KEEP },
	{ "/large", OK "Content-Length: 5000\r\n\r\n[", LOOPBACK_KEEP },
	{ "/wide", OK "Content-Length: 41\r\n\r\n[\"012345678901234567890123456789012345\",1]", LOOPBACK_KEEP },
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

static void on_drop(struct sink *sink, enum sink_outcome outcome, const char *cause, const char *text)
{
	struct fake *f = container_of(sink, struct fake, sink);
	end(sink);
	f->outcome = outcome;
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

static void test_the_hash_is_sha256_of_the_body(void **state)
{
	(void)state;
	static const uint8_t expected[32] = {
		/* printf '[3]' | sha256sum */
		0x06, 0xd0, 0x33, 0xec, 0xe6, 0x64, 0x5d, 0xe5, 0x92, 0xdb, 0x97, 0x36, 0x44, 0xcf, 0x73, 0x57,
		0x25, 0x5f, 0x24, 0x53, 0x6f, 0xf7, 0xb0, 0x3c, 0x3b, 0x2a, 0xce, 0x10, 0x73, 0x6f, 0x76, 0x36,
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
	move("/other");
	poll_once();
	assert_string_equal(fake.calls, "begin 3 publish ");
	settle();
	move("/feed");
	poll_once();
	assert_string_equal(fake.calls, "begin 1 {\"a\": 2} publish ");
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
		const char *path, *cause, *text, *calls;
	} cases[] = {
		{ "/html?key=secret", "not-json", "/html: the answer is a web page (Content-Type: text/html",
		  "begin refused " },
		{ "/not-json", "not-json", "/not-json: ", "begin 1 2 refused " },
		{ "/cut", "truncated", "/cut: the answer ended after 5 of 99 bytes", "begin 1 2 refused " },
		{ "/cut-unseen", "truncated", "/cut-unseen: ", "begin 1 2 refused " },
		{ "/gzip", "encoded", "compressed (Content-Encoding: gzip)", "begin refused " },
		{ "/large", "too-large", "the answer has 5000 bytes; more than 1024 are not taken", "begin refused " },
		{ "/wide", "record-too-large", "/wide: ", "begin refused " },
	};
	set("max_body", "1K");
	settings.max_record = 16;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		start(cases[i].path);
		poll_once();
		assert_dropped(SINK_REFUSED, cases[i].cause, cases[i].text);
		assert_string_equal(fake.calls, cases[i].calls);
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
}

int main(void)
{
	alarm(60); /* a hang fails */
	signal(SIGPIPE, SIG_IGN);
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_records_are_published),
		TEST(test_the_hash_is_sha256_of_the_body),
		TEST(test_without_records_the_body_is_one),
		TEST(test_equal_bodies_are_unchanged),
		TEST(test_the_state_lasts_over_a_restart),
		TEST(test_without_dedupe_equal_bodies_are_published),
		TEST(test_other_statuses_fail),
		TEST(test_retry_after_is_heeded),
		TEST(test_what_did_not_come_failed),
		TEST(test_what_was_not_promised_is_refused),
		TEST(test_a_sink_without_memory),
		TEST(test_failures_back_off_and_end),
		TEST(test_failures_that_were_asked_for_leave_the_backoff_alone),
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
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
