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
#include <stdio.h>
#include <unistd.h>

#include "base/secret.h"
#include "tests/unit/driver_box.h"
#include "tests/unit/loopback.h"

#define OK      "HTTP/1.1 200 OK\r\n"
#define RUN     "0198aa10f3b2c4d5e6f708192a3b4c5d"
#define SETTING 512 /* bytes of any kind's settings */

static struct driver_box box;
static struct loopback server;
static struct http *http;
static unsigned char settings[SETTING] __attribute__((aligned(16)));
static struct loopback_route route[2]; /* all that the server has */
static char answer[4096];

static void set(const char *name, const char *value)
{
	struct err err;
	const struct option *option = option_find(driver_http.options, name);
	assert_non_null(option);
	if (option_set(option, settings, value, &err) != 0)
		fail_msg("%s = %s: %s", name, value, err.text);
}

static void set_url(const char *name, const char *path)
{
	set(name, loopback_url(&server, path));
}

/* What the server answers at that path from now on. */
static void serve(const char *path, const char *status, const char *body)
{
	snprintf(answer, sizeof answer, "HTTP/1.1 %s\r\nContent-Length: %zu\r\n\r\n%s", status, strlen(body), body);
	route[0] = (struct loopback_route){ path, answer, LOOPBACK_KEEP };
}

static int setup(void **state)
{
	(void)state;
	assert_true(driver_http.settings_size <= sizeof settings);
	memset(settings, 0, sizeof settings);
	assert_int_equal(option_defaults(driver_http.options, settings), 0);
	memset(route, 0, sizeof route);
	driver_box_open(&box);
	assert_int_equal(http_new(&box.loop, "millrace-test/1", &http), 0);
	loopback_start(&box.loop, &server, route);
	box.env.http = http;
	box.run.settings = settings;
	set_url("url", "/start");
	set_url("status_url", "/runs/{run}");
	driver_box_renew(&box, &driver_http);
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
	box.driver->ops->free(box.driver);
	box.driver = NULL;
	assert_int_equal(http_active(http), 0);
	http_close(http, on_closed, &closed);
	loopback_stop(&server);
	driver_box_close(&box);
	assert_true(closed);
	option_done(driver_http.options, settings);
	return 0;
}

static void assert_asked(const char *line)
{
	if (strncmp(server.last_head, line, strlen(line)) != 0)
		fail_msg("%s does not begin with %s", server.last_head, line);
}

static void assert_body(const char *expected)
{
	assert_int_equal(server.last_body_len, strlen(expected));
	assert_memory_equal(server.last_body, expected, strlen(expected));
}

static void assert_state(enum driver_state state, const char *why)
{
	if (box.state != state || !strstr(box.why, why) || (!*why && *box.why))
		fail_msg("%d \"%s\" is not %d \"%s\"", box.state, box.why, state, why);
	assert_int_equal(box.exit, -1);
	assert_false(box.has_log);
}

static void start(void)
{
	driver_box_call(&box, box.driver->ops->start);
}

static void ask(void)
{
	driver_box_call(&box, box.driver->ops->ask);
}

static void cancel(void)
{
	driver_box_call(&box, box.driver->ops->cancel);
}

static void test_start(void **state)
{
	(void)state;
	set("headers", "Authorization: file:/dev/null");
	set("body", "{\"dag_run_id\":\"{run}\",\"conf\":{\"job\":\"{job}\",\"at\":\"{manifest}\",\"x\":{}}}");
	struct option_pairs *headers = (void *)(settings + option_find(driver_http.options, "headers")->offset);
	headers->pairs[0].value = strdup("Bearer abc");
	box.run.manifest_place = "s3://lake/\"q\"/æ";
	driver_box_renew(&box, &driver_http);
	serve("/start", "201 Created", "{}");
	start();
	assert_state(DRIVER_RUNNING, "");
	assert_string_equal(box.remote, "");
	assert_asked("POST /start HTTP/1.1\r\n");
	assert_non_null(strstr(server.last_head, "\r\nIdempotency-Key: " RUN "\r\n"));
	assert_non_null(strstr(server.last_head, "\r\nAuthorization: Bearer abc\r\n"));
	assert_non_null(strstr(server.last_head, "\r\nContent-Type: application/json\r\n"));
	assert_body("{\"dag_run_id\":\"" RUN
	            "\",\"conf\":{\"job\":\"parking\",\"at\":\"s3://lake/\\\"q\\\"/æ\",\"x\":{}}}");
}

static void test_urls_and_other_methods(void **state)
{
	(void)state;
	box.run.manifest_place = "a b/ü?";
	driver_box_renew(&box, &driver_http);
	set("method", "PUT");
	set("headers", "Content-Type: file:/dev/null");
	set("body", "x={run}");
	set_url("url", "/jobs/{job}/{run}?at={manifest}");
	serve("/jobs/parking/" RUN, "200 OK", "");
	start();
	assert_state(DRIVER_RUNNING, "");
	assert_asked("PUT /jobs/parking/" RUN "?at=a%20b%2F%C3%BC%3F HTTP/1.1\r\n");
	assert_null(strstr(server.last_head, "application/json"));
	/* without a body none has a type */
	set("body", "");
	start();
	assert_body("");
	assert_non_null(strstr(server.last_head, "\r\nContent-Length: 0\r\n"));
}

static void test_status(void **state)
{
	(void)state;
	static const struct {
		const char *status, *body;
		enum driver_state state;
		const char *why;
	} cases[] = {
		{ "200 OK", "{\"state\":\"queued\"}", DRIVER_RUNNING, "" },
		{ "200 OK", "{\"state\":\"running\"}", DRIVER_RUNNING, "" },
		{ "200 OK", "{\"state\":\"success\"}", DRIVER_DONE, "" },
		{ "200 OK", "{\"state\":\"failed\"}", DRIVER_FAILED, "it says \"failed\"" },
		{ "200 OK", "{\"state\":\"succes\"}", DRIVER_REFUSED, "it says \"succes\", which is none of" },
		{ "200 OK", "{\"state\":\"queued, running\"}", DRIVER_REFUSED, "which is none of" },
		{ "200 OK", "{\"state\":{}}", DRIVER_REFUSED, "status_url answers nothing at \"state\"" },
		{ "200 OK", "{}", DRIVER_REFUSED, "answers nothing" },
		{ "200 OK", "<html>", DRIVER_REFUSED, "answers nothing" },
		{ "200 OK", "", DRIVER_REFUSED, "answers nothing" },
		{ "404 Not Found", "{\"state\":\"running\"}", DRIVER_UNKNOWN, "no such run" },
		{ "401 No", "who?", DRIVER_REFUSED,
		  "status_url answered 401: its login is refused; see \"headers\": who?" },
		{ "400 Bad", "", DRIVER_REFUSED, "status_url answered 400" },
		{ "302 Found", "", DRIVER_REFUSED, "status_url answered 302" },
		{ "429 Slow", "", DRIVER_AWAY, "answered 429" },
		{ "503 Busy", "", DRIVER_AWAY, "answered 503" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		serve("/runs/" RUN, cases[i].status, cases[i].body);
		ask();
		assert_state(cases[i].state, cases[i].why);
	}
	assert_asked("GET /runs/" RUN " HTTP/1.1\r\n");
	set("status", "data.runs.1.state");
	set("running", "STARTED,QUEUED ,7");
	set("done", "SUCCESS");
	serve("/runs/" RUN, "200 OK", "{\"data\":{\"runs\":[{\"state\":\"x\"},{\"state\":\"QUEUED\"}]}}");
	ask();
	assert_state(DRIVER_RUNNING, "");
	serve("/runs/" RUN, "200 OK", "{\"data\":{\"runs\":[0,{\"state\":7}]}}");
	ask();
	assert_state(DRIVER_RUNNING, "");
	serve("/runs/" RUN, "200 OK", "{\"data\":{\"runs\":[{\"state\":\"SUCCESS\"}]}}");
	ask();
	assert_state(DRIVER_REFUSED, "answers nothing at \"data.runs.1.state\"");
}

static void test_the_id_of_the_other_side(void **state)
{
	(void)state;
	set("id", "data.id");
	set_url("status_url", "/status/{id}");
	set_url("cancel_url", "/kill/{id}");
	set("cancel_method", "PATCH");
	set("cancel_body", "{\"id\":\"{id}\",\"run\":\"{run}\"}");
	ask();
	assert_state(DRIVER_UNKNOWN, "not known");
	cancel();
	assert_state(DRIVER_UNKNOWN, "not known");
	assert_int_equal(server.requests, 0);
	serve("/start", "200 OK", "{\"data\":{\"id\":\"driver/2026 1\"}}");
	start();
	assert_state(DRIVER_RUNNING, "");
	assert_string_equal(box.remote, "driver/2026 1");
	serve("/status/driver%2F2026%201", "200 OK", "{\"state\":\"running\"}");
	ask();
	assert_state(DRIVER_RUNNING, "");
	/* after a start of ours it is what was written down */
	box.run.remote = "47";
	driver_box_renew(&box, &driver_http);
	serve("/status/47", "200 OK", "{\"state\":\"success\"}");
	ask();
	assert_state(DRIVER_DONE, "");
	serve("/kill/47", "202 Accepted", "");
	cancel();
	assert_state(DRIVER_FAILED, "it was cancelled");
	assert_asked("PATCH /kill/47 HTTP/1.1\r\n");
	assert_body("{\"id\":\"47\",\"run\":\"" RUN "\"}");
	/* a number will do, nothing else */
	serve("/start", "200 OK", "{\"data\":{\"id\":48}}");
	start();
	assert_string_equal(box.remote, "48");
	box.run.remote = NULL;
	driver_box_renew(&box, &driver_http);
	serve("/start", "200 OK", "{\"data\":{\"id\":null}}");
	start();
	assert_state(DRIVER_REFUSED, "url answered 200, but at \"data.id\" there is no id");
}

static void test_starts_that_fail(void **state)
{
	(void)state;
	static const struct {
		const char *status;
		enum driver_state state;
		const char *why;
	} cases[] = {
		{ "409 Conflict", DRIVER_RUNNING, "" }, /* it has it already */
		{ "500 Oops", DRIVER_AWAY, "url answered 500: traceback" },
		{ "403 No", DRIVER_REFUSED, "its login is refused" },
		{ "404 Not Found", DRIVER_REFUSED, "url answered 404" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		serve("/start", cases[i].status, "traceback");
		start();
		assert_state(cases[i].state, cases[i].why);
	}
	route[0] = (struct loopback_route){ "/start", OK "Content-Length: 9\r\n\r\n{", LOOPBACK_CLOSE };
	start();
	assert_state(DRIVER_AWAY, "the answer ended after 1 of 9 bytes");
	route[0] = (struct loopback_route){ "/start", OK "Content-Length: 999999\r\n\r\n", LOOPBACK_KEEP };
	start();
	assert_state(DRIVER_AWAY, "more than 262144 are not taken");
	set("url", "http://127.0.0.1:1/start");
	start();
	assert_state(DRIVER_AWAY, "connection refused");
}

static void test_what_becomes_too_long(void **state)
{
	(void)state;
	static char place[70000];
	memset(place, 'x', sizeof place - 1);
	box.run.manifest_place = place;
	driver_box_renew(&box, &driver_http);
	set("body", "{manifest}");
	start();
	assert_state(DRIVER_REFUSED, "URL or body become too long");
	set("body", "");
	set_url("url", "/{manifest}");
	start();
	assert_state(DRIVER_REFUSED, "URL or body become too long");
}

static void test_cancel(void **state)
{
	(void)state;
	cancel();
	assert_state(DRIVER_REFUSED, "no \"cancel_url\"");
	set_url("cancel_url", "/stop/{id}");
	serve("/stop/" RUN, "404 Not Found", "");
	cancel();
	assert_state(DRIVER_FAILED, "it was cancelled");
	assert_asked("POST /stop/");
	serve("/stop/" RUN, "503 Busy", "");
	cancel();
	assert_state(DRIVER_AWAY, "cancel_url answered 503");
	/* freed while it hangs */
	route[0] = (struct loopback_route){ "/stop/" RUN, NULL, LOOPBACK_KEEP };
	box.driver->ops->cancel(box.driver);
	driver_box_turn(&box);
}

static void test_settings_are_judged(void **state)
{
	(void)state;
	static const struct {
		const char *name, *value, *says;
	} cases[] = {
		{ "url", "ftp://x/", "not http or https" },
		{ "url", "http://x/{id}", "{id} is not known here; {run}, {job} and {manifest} are" },
		{ "status_url", "http://x/{ruin}", "{ruin} is not known here; {run}, {job}, {manifest} and {id} are" },
		{ "body", "{\"a\":\"{id}\"}", "{id} is not known here" },
		{ "cancel_body", "{x}", "{x} is not known here" },
		{ "status", "", "no path" },
		{ "status", "a..b", "no path" },
		{ "id", ".a", "no path" },
		{ "id", "a.", "no path" },
		{ "method", "GET", "\"POST\", \"PUT\", \"PATCH\"" },
		{ "headers", "Idempotency-Key: x", "sent by Millrace itself" },
		{ "headers", "a b: x", "no name of a header" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct err err = { "" };
		const struct option *option = option_find(driver_http.options, cases[i].name);
		assert_int_equal(option_set(option, settings, cases[i].value, &err), -EINVAL);
		if (!strstr(err.text, cases[i].says))
			fail_msg("%s: \"%s\" does not say \"%s\"", cases[i].name, err.text, cases[i].says);
	}
	const struct option *headers = option_find(driver_http.options, "headers");
	assert_int_equal(headers->check("Bearer\tabc \xe6", NULL), 0);
	assert_int_equal(headers->check("Bearer abc\r\nX: y", NULL), -EINVAL);
	assert_int_equal(headers->check("\x7f", NULL), -EINVAL);
	set("cancel_body", "{\"a\":{\"b\":{}},\"c\":\"{id}{job}\"} { run } {}");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_start),
		TEST(test_urls_and_other_methods),
		TEST(test_status),
		TEST(test_the_id_of_the_other_side),
		TEST(test_starts_that_fail),
		TEST(test_what_becomes_too_long),
		TEST(test_cancel),
		TEST(test_settings_are_judged),
	};
	alarm(60); /* a hang fails */
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
