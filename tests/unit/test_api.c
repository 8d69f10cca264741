/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The real server on a socket in a temporary folder; clients are plain sockets on the same loop. Where a test is about
 * time, it lets it leap.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "api/api.h"
#include "leap.h"

#define CALLS_KEPT    80
#define FEEDS_MAX     8
#define ANSWER_MAX    (4 << 20)
#define PIECE_MAX     (64 << 10)
#define CONNECTIONS   48 /* these are the server's limits */
#define WAITING_LIMIT 12
#define CALLS_LIMIT   64
#define STREAMS_LIMIT 4
#define UNSENT_LIMIT  (1 << 20)

static uv_loop_t loop;
static struct api *api;
static struct err err;
static char folder[64], path[100];
static bool closed;

/* The backend: keeps the calls that wait, and what it was asked. */
static struct api_call *calls[CALLS_KEPT];
static size_t n_calls, asked_last;
static char asked[256];
static bool answer_first_call; /* poll answers the oldest call, from within */
static size_t config_bytes;    /* how large the configuration is besides */

/* An answer that comes in pieces. */
struct feed {
	struct api_stream *stream;
	int asked; /* for more */
	bool wants, closed;
};

static struct feed feeds[FEEDS_MAX];
static size_t n_feeds;
static enum { FEED_TWO_LINES, FEED_BY_HAND, FEED_ENDLESS, FEED_LATER } feed_way;
static const char *feed_type = API_LINES;
static bool in_api; /* a function of the API is on the stack that must not call back */

static int fake_status(void *agent, struct status_view *ret_view)
{
	(void)agent;
	ret_view->version = "0.1.0";
	ret_view->device = "pi-01";
	ret_view->now_ms = 1795255320123;
	ret_view->sources = calloc(1, sizeof *ret_view->sources);
	ret_view->n_sources = 1;
	ret_view->sources[0].name = "parking";
	return 0;
}

static void keep(struct api_call *call)
{
	assert_true(n_calls < CALLS_KEPT);
	calls[n_calls++] = call;
}

static struct api_call *take(void)
{
	assert_true(n_calls > 0);
	struct api_call *call = calls[0];
	memmove(calls, calls + 1, --n_calls * sizeof *calls);
	return call;
}

static json_t *fake_config(void *agent)
{
	(void)agent;
	if (!config_bytes)
		return json_pack("{s:{s:s}}", "buffer", "path", "/b.db");
	char *text = malloc(config_bytes + 1);
	assert_non_null(text);
	memset(text, 'x', config_bytes);
	text[config_bytes] = '\0';
	json_t *json = json_pack("{s:s}", "device", text);
	free(text);
	return json;
}

static void fake_batches(void *agent, bool waiting, int64_t after, struct api_call *call)
{
	(void)agent;
	snprintf(asked, sizeof asked, "batches %d %lld", waiting, (long long)after);
	api_answer(call, view_batches(NULL, 0));
}

static void feed_write(struct feed *feed, const char *text)
{
	struct bytes lines;
	bytes_init(&lines, PIECE_MAX);
	assert_int_equal(bytes_add_text(&lines, text), 0);
	feed->wants = false;
	in_api = true;
	api_stream_write(feed->stream, &lines);
	in_api = false;
	assert_int_equal(lines.len, 0);
}

static void feed_end(struct feed *feed)
{
	in_api = true;
	api_stream_end(feed->stream);
	in_api = false;
}

static void on_more(struct api_stream *stream, void *arg)
{
	static char piece[PIECE_MAX];
	struct feed *feed = arg;
	assert_false(in_api || feed->closed || feed->wants);
	assert_ptr_equal(stream, feed->stream);
	feed->asked++;
	feed->wants = true;
	memset(piece, 'y', sizeof piece - 2);
	piece[sizeof piece - 2] = '\n';
	if (feed_way == FEED_ENDLESS)
		feed_write(feed, piece);
	else if (feed_way == FEED_TWO_LINES && feed->asked == 1)
		feed_write(feed, "{\"source\":\"parking\"}\n{}\n");
	else if (feed_way == FEED_TWO_LINES)
		feed_end(feed);
}

static void on_stream_closed(void *arg)
{
	struct feed *feed = arg;
	assert_false(in_api || feed->closed);
	feed->closed = true;
}

static const struct api_stream_ops feed_ops = { .more = on_more, .closed = on_stream_closed };

static struct feed *feed_start(struct api_call *call)
{
	assert_true(n_feeds < FEEDS_MAX);
	struct feed *feed = &feeds[n_feeds];
	*feed = (struct feed){ .stream = NULL };
	in_api = true;
	feed->stream = api_answer_stream(call, feed_type, &feed_ops, feed);
	in_api = false;
	n_feeds += feed->stream != NULL;
	return feed->stream ? feed : NULL;
}

static void fake_records(void *agent, const char *source, size_t last, bool follow, struct api_call *call)
{
	(void)agent;
	asked_last = last;
	snprintf(asked, sizeof asked, "records %s %d", source, follow);
	if (feed_way == FEED_LATER)
		keep(call);
	else
		feed_start(call);
}

static void fake_rejected(void *agent, struct api_call *call)
{
	(void)agent;
	api_answer(call, json_pack("{s:[]}", "rejected"));
}

static void fake_poll(void *agent, const char *source, struct api_call *call)
{
	(void)agent;
	snprintf(asked, sizeof asked, "poll %s", source);
	if (strcmp(source, "broken") == 0) {
		api_answer_problem(call, 500, "no UTF-8: \xC3( \xED\xA0\x80 \xE2\x82\xAC and \xE2\x82");
		return;
	}
	if (answer_first_call)
		api_answer(take(), json_pack("{s:s}", "outcome", "early"));
	keep(call);
}

static void fake_flush(void *agent, bool wait, struct api_call *call)
{
	(void)agent;
	snprintf(asked, sizeof asked, "flush %d", wait);
	keep(call);
}

static void fake_retry(void *agent, int64_t batch, struct api_call *call)
{
	(void)agent;
	snprintf(asked, sizeof asked, "retry %lld", (long long)batch);
	api_answer(call, json_pack("{s:I}", "stores", (json_int_t)1));
}

static void fake_audit(void *agent, int64_t since_day, bool repair, struct api_call *call)
{
	(void)agent;
	snprintf(asked, sizeof asked, "audit %lld%s", (long long)since_day, repair ? " repair" : "");
	api_answer(call, json_pack("{s:b}", "ok", 1));
}

static void fake_object(void *agent, int64_t batch, struct api_call *call)
{
	(void)agent;
	snprintf(asked, sizeof asked, "object %lld", (long long)batch);
	feed_type = API_GZIP;
	feed_start(call);
	feed_type = API_LINES;
}

/* What takes a body: by hand, but for what it does where it is asked. */
static struct taking {
	struct api_call *call;
	uint64_t bytes, got;
	unsigned sum; /* of all bytes */
	int pieces;
	bool last, gone;
	enum { TAKE_BY_HAND, TAKE_AT_ONCE, TAKE_NOTHING, TAKE_ONE } way;
} taking;

static const struct api_body_ops body_ops;

static void on_body(void *arg, struct bytes *piece, bool last)
{
	struct taking *t = arg;
	assert_false(in_api || t->last || t->gone);
	for (size_t i = 0; i < piece->len; i++)
		t->sum += piece->data[i];
	t->got += piece->len;
	t->pieces++;
	t->last = last;
	bytes_done(piece);
	if (t->way == TAKE_AT_ONCE && !last)
		assert_true(api_body_next(t->call, &body_ops, t));
	if (t->way == TAKE_ONE)
		api_answer_problem(t->call, 422, "one is enough");
	else if (t->way == TAKE_AT_ONCE && last)
		api_answer(t->call, json_pack("{s:b}", "taken", 1));
}

static void on_body_gone(void *arg)
{
	struct taking *t = arg;
	assert_false(t->gone);
	t->gone = true;
}

static const struct api_body_ops body_ops = { .piece = on_body, .gone = on_body_gone };

static bool take_next(void)
{
	in_api = true;
	bool r = api_body_next(taking.call, &body_ops, &taking);
	in_api = false;
	return r;
}

static void fake_import(void *agent, const struct api_object *object, struct api_call *call)
{
	char hex[SHA256_HEX];
	(void)agent;
	snprintf(asked, sizeof asked, "import %s %.8s", object->key, sha256_hex(object->sha256, 64, hex));
	taking.call = call;
	taking.bytes = object->bytes;
	if (taking.way == TAKE_NOTHING)
		api_answer(call, json_pack("{s:b}", "taken", 0));
	else if (taking.way != TAKE_BY_HAND)
		take_next();
}

/* Of the mill: what the next order comes to, and what is said of it. */
static int order_rc;
static const char *order_text = "";
static bool no_mill;

static struct mill_view *fake_mill(void *agent)
{
	(void)agent;
	struct mill_view *view = no_mill ? NULL : calloc(1, sizeof *view);
	if (!view)
		return NULL;
	view->machines = calloc(1, sizeof *view->machines);
	assert_non_null(view->machines);
	view->n_machines = 1;
	view->machines[0].name = "mill";
	return view;
}

static void fake_runs(void *agent, struct api_call *call)
{
	(void)agent;
	snprintf(asked, sizeof asked, "runs");
	keep(call);
}

static void fake_run(void *agent, const char *run, struct api_call *call)
{
	(void)agent;
	snprintf(asked, sizeof asked, "run %s", run);
	keep(call);
}

static int take_order(const char *order, const char *name, struct err *ret_err)
{
	snprintf(asked, sizeof asked, "%s %s", order, name);
	if (*order_text)
		err_fail(ret_err, 0, "%s", order_text);
	return order_rc;
}

static int fake_wake(void *agent, const char *machine, struct err *ret_err)
{
	(void)agent;
	return take_order("wake", machine, ret_err);
}

static int fake_start(void *agent, const char *job, struct err *ret_err)
{
	(void)agent;
	return take_order("start", job, ret_err);
}

static int fake_cancel(void *agent, const char *run, struct err *ret_err)
{
	(void)agent;
	return take_order("cancel", run, ret_err);
}

static int fake_retry_run(void *agent, const char *run, struct err *ret_err)
{
	(void)agent;
	return take_order("retry run", run, ret_err);
}

static const struct api_backend backend = {
	.status = fake_status,
	.config = fake_config,
	.batches = fake_batches,
	.object = fake_object,
	.import = fake_import,
	.records = fake_records,
	.rejected = fake_rejected,
	.poll = fake_poll,
	.flush = fake_flush,
	.audit = fake_audit,
	.retry = fake_retry,
	.mill = fake_mill,
	.runs = fake_runs,
	.run = fake_run,
	.wake = fake_wake,
	.start = fake_start,
	.cancel = fake_cancel,
	.retry_run = fake_retry_run,
};

struct client {
	int fd;
	uv_poll_t poll;
	bool end;
	char answer[ANSWER_MAX];
	size_t len;
};

/* To the end: libuv stops watching a socket that was closed before all that we sent was read (EPOLLERR). */
static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct client *client = poll->data;
	ssize_t n;
	(void)status;
	(void)events;
	while ((n = read(client->fd, client->answer + client->len, sizeof client->answer - 1 - client->len)) > 0) {
		client->len += (size_t)n;
		client->answer[client->len] = '\0';
	}
	if (n < 0 && errno == EAGAIN)
		return;
	client->end = true;
	uv_poll_stop(poll);
}

static int connect_to(const char *socket_path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	snprintf(address.sun_path, sizeof address.sun_path, "%s", socket_path);
	if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static struct client *client_new(void)
{
	struct client *client = calloc(1, sizeof *client);
	assert_non_null(client);
	client->fd = connect_to(path);
	assert_true(client->fd >= 0);
	assert_int_equal(uv_poll_init(&loop, &client->poll, client->fd), 0);
	client->poll.data = client;
	uv_poll_start(&client->poll, UV_READABLE, on_readable);
	return client;
}

static void on_client_closed(uv_handle_t *handle)
{
	struct client *client = handle->data;
	close(client->fd);
	free(client);
}

static void client_free(struct client *client)
{
	uv_close((uv_handle_t *)&client->poll, on_client_closed);
}

static void send_text(struct client *client, const char *text)
{
	assert_int_equal(send(client->fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static void send_request(struct client *client, const char *request)
{
	char text[16384];
	snprintf(text, sizeof text, "%s HTTP/1.1\r\nHost: millrace\r\nConnection: close\r\n\r\n", request);
	send_text(client, text);
}

static void run_to_end(struct client *client)
{
	while (!client->end)
		uv_run(&loop, UV_RUN_ONCE);
}

/* Long enough for all that can happen without anybody's doing. */
static void settle(void)
{
	for (int i = 0; i < 500; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
}

static void leap(int seconds)
{
	leapt_s += seconds;
	settle();
}

/* Reads nothing any more. */
static struct client *client_deaf(const char *request)
{
	struct client *client = client_new();
	uv_poll_stop(&client->poll);
	send_request(client, request);
	settle();
	return client;
}

static void run_to_calls(size_t n)
{
	while (n_calls < n)
		uv_run(&loop, UV_RUN_ONCE);
}

static int status_of(const struct client *client)
{
	int status = 0;
	sscanf(client->answer, "HTTP/1.1 %d", &status);
	return status;
}

static const char *body_of(const struct client *client)
{
	const char *body = strstr(client->answer, "\r\n\r\n");
	return body ? body + 4 : "";
}

static bool has_header(const struct client *client, const char *line)
{
	const char *at = strstr(client->answer, line);
	return at && at < body_of(client);
}

static struct client *ask(const char *request)
{
	struct client *client = client_new();
	send_request(client, request);
	run_to_end(client);
	return client;
}

/* That it is a problem with this status, in header and body, and what its detail holds. */
static void assert_problem(const struct client *client, int status, const char *detail)
{
	json_t *problem = json_loads(body_of(client), 0, NULL);
	assert_int_equal(status_of(client), status);
	assert_true(has_header(client, "Content-Type: application/problem+json\r\n"));
	assert_non_null(problem);
	assert_string_equal(json_string_value(json_object_get(problem, "type")), "about:blank");
	assert_true(json_string_length(json_object_get(problem, "title")) > 0);
	assert_int_equal(json_integer_value(json_object_get(problem, "status")), status);
	assert_non_null(strstr(json_string_value(json_object_get(problem, "detail")), detail));
	json_decref(problem);
}

static void expect_problem(const char *request, int status, const char *detail)
{
	struct client *client = ask(request);
	assert_problem(client, status, detail);
	client_free(client);
}

static void expect_status(const char *request, int status)
{
	struct client *client = ask(request);
	assert_int_equal(status_of(client), status);
	client_free(client);
}

static int setup(void **state)
{
	(void)state;
	const char *tmp = getenv("TMPDIR");
	alarm(60); /* a server that never answers is a failed test, not a hung one */
	snprintf(folder, sizeof folder, "%s/test_api.XXXXXX", tmp && strlen(tmp) < 40 ? tmp : "/tmp");
	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof path, "%s/api.sock", folder);
	n_calls = n_feeds = 0;
	asked_last = config_bytes = 0;
	taking = (struct taking){ .call = NULL };
	asked[0] = '\0';
	answer_first_call = closed = in_api = false;
	feed_way = FEED_TWO_LINES;
	order_rc = 0;
	order_text = "";
	no_mill = false;
	api = NULL;
	return uv_loop_init(&loop);
}

static int setup_server(void **state)
{
	if (setup(state) < 0)
		return -1;
	return api_start(&loop, path, &backend, NULL, &api, &err);
}

static void on_closed(void *arg)
{
	*(bool *)arg = true;
}

static void close_api(void)
{
	if (!api)
		return;
	in_api = true;
	api_close(api, on_closed, &closed);
	in_api = false;
	api = NULL;
	assert_false(closed);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_true(closed);
	for (size_t i = 0; i < n_feeds; i++)
		assert_true(feeds[i].closed);
}

static int teardown(void **state)
{
	(void)state;
	close_api();
	while (n_calls > 0)
		api_answer(take(), json_object());
	uv_run(&loop, UV_RUN_DEFAULT);
	unlink(path);
	return uv_loop_close(&loop) == 0 ? rmdir(folder) : -1;
}

static void test_status(void **state)
{
	(void)state;
	struct client *client = ask("GET /v1/status");
	json_t *json = json_loads(body_of(client), 0, NULL);
	assert_int_equal(status_of(client), 200);
	assert_true(has_header(client, "Content-Type: application/json\r\n"));
	assert_true(has_header(client, "Connection: close\r\n"));
	assert_string_equal(json_string_value(json_object_get(json, "device")), "pi-01");
	assert_true(json_is_true(json_object_get(json, "ok")));
	json_decref(json);
	client_free(client);
	expect_status("GET /v1/sources", 200);
	expect_status("GET /v1/stores", 200);
	expect_status("GET /v1/batches", 200);
	expect_status("GET /v1/rejected", 200);
}

static void test_config(void **state)
{
	(void)state;
	struct client *client = ask("GET /v1/config");
	assert_int_equal(status_of(client), 200);
	assert_string_equal(body_of(client), "{\"buffer\":{\"path\":\"/b.db\"}}\n");
	client_free(client);
	expect_problem("POST /v1/config", 405, "GET, HEAD");
}

static void test_head_is_get_without_body(void **state)
{
	(void)state;
	struct client *client = ask("HEAD /v1/status");
	assert_int_equal(status_of(client), 200);
	assert_true(has_header(client, "Content-Length: "));
	assert_string_equal(body_of(client), "");
	client_free(client);
}

static void test_unknown_paths(void **state)
{
	(void)state;
	expect_problem("GET /", 404, "there is no / here");
	expect_problem("GET /v1/statusses", 404, "/v1/statusses");
	expect_problem("GET /v1/status/", 404, "");
	expect_problem("GET /v1/caf%E9", 404, "\xEF\xBF\xBD");
	expect_problem("POST /v1/sources/Parking/poll", 404, "");
	expect_problem("POST /v1/sources//poll", 404, "");
	expect_problem("POST /v1/sources/a%2Fb/poll", 404, "");
	expect_problem("POST /v1/sources/a1234567890123456789012345678901234567890123456789012345678901234/poll", 404,
	               "");
	assert_string_equal(asked, "");
}

static void test_wrong_methods(void **state)
{
	(void)state;
	struct client *client = ask("DELETE /v1/status");
	assert_problem(client, 405, "GET, HEAD, not DELETE");
	assert_true(has_header(client, "Allow: GET, HEAD\r\n"));
	client_free(client);
	client = ask("GET /v1/flush");
	assert_problem(client, 405, "POST");
	assert_true(has_header(client, "Allow: POST\r\n"));
	client_free(client);
	assert_string_equal(asked, "");
}

static void test_retry(void **state)
{
	(void)state;
	struct client *client = ask("POST /v1/batches/97/retry");
	assert_string_equal(asked, "retry 97");
	client_free(client);
}

#define RUN "0198f3ab0c1d2e3f405162738495a6b7"

static void test_machines(void **state)
{
	(void)state;
	struct client *client = ask("GET /v1/machines");
	json_t *json = json_loads(body_of(client), 0, NULL);
	json_t *machine = json_array_get(json_object_get(json, "machines"), 0);
	assert_int_equal(status_of(client), 200);
	assert_string_equal(json_string_value(json_object_get(machine, "name")), "mill");
	assert_string_equal(json_string_value(json_object_get(machine, "state")), "unknown");
	assert_int_equal(json_string_length(json_object_get(json, "now")), strlen("2026-11-21T10:02:00.123Z"));
	json_decref(json);
	client_free(client);
	no_mill = true;
	expect_problem("GET /v1/machines", 500, "not enough memory");
	expect_problem("POST /v1/machines", 405, "GET, HEAD");
	expect_problem("GET /v1/machines?x=1", 400, "\"x\"");
}

/* Answered later, as the ledger is on the card. */
static void test_runs(void **state)
{
	(void)state;
	static const char *const requests[][2] = { { "GET /v1/runs", "runs" }, { "GET /v1/runs/" RUN, "run " RUN } };
	struct ledger_run run = { .id = RUN };
	for (size_t i = 0; i < 2; i++) {
		struct client *client = client_new();
		send_request(client, requests[i][0]);
		run_to_calls(1);
		assert_string_equal(asked, requests[i][1]);
		api_answer(take(), i ? view_run(&run) : view_runs(&run, 1));
		run_to_end(client);
		assert_int_equal(status_of(client), 200);
		assert_non_null(strstr(body_of(client), "\"id\":\"" RUN "\""));
		client_free(client);
	}
}

/* Nothing that is no id reaches the backend. */
static void test_what_is_no_run(void **state)
{
	(void)state;
	static const char *const ids[] = { "97", "parking", "0198f3ab0c1d2e3f405162738495a6b", RUN "0" };
	char request[128];
	for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
		snprintf(request, sizeof request, "GET /v1/runs/%s", ids[i]);
		expect_problem(request, 404, "is no run; `millrace show runs` lists them");
		snprintf(request, sizeof request, "POST /v1/runs/%s/cancel", ids[i]);
		expect_problem(request, 404, "is no run; `millrace show runs` lists them");
		snprintf(request, sizeof request, "POST /v1/runs/%s/retry", ids[i]);
		expect_problem(request, 404, "is no run; `millrace show runs` lists them");
	}
	expect_problem("GET /v1/runs/0198F3AB0C1D2E3F405162738495A6B7", 404, "");
	expect_problem("GET /v1/runs/", 404, "");
	expect_problem("GET /v1/runs/..%2F" RUN, 404, "");
	expect_problem("POST /v1/batches/" RUN "/retry", 404, "no batch");
	expect_problem("POST /v1/machines/Mill/wake", 404, "");
	expect_problem("POST /v1/jobs//start", 404, "");
	expect_problem("GET /v1/runs/" RUN "/cancel", 405, "POST");
	expect_problem("GET /v1/machines/mill/wake", 405, "POST");
	expect_problem("POST /v1/runs/" RUN, 405, "GET, HEAD");
	assert_string_equal(asked, "");
}

static const struct {
	const char *request, *asked, *body, *none;
} orders[] = {
	{ "POST /v1/machines/mill/wake", "wake mill", "{\"machine\":\"mill\",\"asked\":true}\n",
	  "machine \"mill\": there is none; `millrace show machines`" },
	{ "POST /v1/jobs/parking/start", "start parking", "{\"job\":\"parking\",\"asked\":true}\n",
	  "job \"parking\": there is none; `millrace show machines`" },
	{ "POST /v1/runs/" RUN "/cancel", "cancel " RUN, "{\"run\":\"" RUN "\",\"asked\":true}\n",
	  "run \"" RUN "\": it is neither on its way nor parked; `millrace show runs`" },
	{ "POST /v1/runs/" RUN "/retry", "retry run " RUN, "{\"run\":\"" RUN "\",\"asked\":true}\n",
	  "run \"" RUN "\": it is neither on its way nor parked; `millrace show runs`" },
};

#define ORDERS (sizeof orders / sizeof *orders)

static void test_orders(void **state)
{
	(void)state;
	for (size_t i = 0; i < ORDERS; i++) {
		struct client *client = ask(orders[i].request);
		assert_int_equal(status_of(client), 200);
		assert_string_equal(asked, orders[i].asked);
		assert_string_equal(body_of(client), orders[i].body);
		client_free(client);
	}
}

static void test_orders_that_are_refused(void **state)
{
	(void)state;
	static const int refusals[][2] = { { -ENOENT, 404 },   { -EBUSY, 409 },  { -ENOTSUP, 409 },
		                           { -EALREADY, 409 }, { -EAGAIN, 503 }, { -EIO, 500 } };
	order_text = "why not: 100 %s \xFF";
	for (size_t i = 0; i < ORDERS; i++)
		for (size_t k = 0; k < sizeof refusals / sizeof *refusals; k++) {
			order_rc = refusals[k][0];
			expect_problem(orders[i].request, refusals[k][1], "why not: 100 %s \xEF\xBF\xBD");
		}
}

/* Where the backend finds no words. */
static void test_orders_without_a_word(void **state)
{
	(void)state;
	for (size_t i = 0; i < ORDERS; i++) {
		order_rc = -ENOENT;
		expect_problem(orders[i].request, 404, orders[i].none);
		order_rc = -EAGAIN;
		expect_problem(orders[i].request, 503, "the buffer is not open yet");
		order_rc = -EIO;
		expect_problem(orders[i].request, 500, "Input/output error");
	}
}

static void test_audit(void **state)
{
	(void)state;
	struct client *client = ask("POST /v1/audit");
	assert_string_equal(asked, "audit -9223372036854775808");
	client_free(client);
	client = ask("POST /v1/audit?since=2026-11-21");
	assert_string_equal(asked, "audit 20778");
	client_free(client);
	client = ask("POST /v1/audit?repair=1");
	assert_string_equal(asked, "audit -9223372036854775808 repair");
	client_free(client);
}

static void test_batches(void **state)
{
	(void)state;
	static const char *const queries[][2] = {
		{ "", "0 0" }, { "?waiting=0", "0 0" }, { "?waiting=1", "1 0" }, { "?waiting=1&after=97", "1 97" }
	};
	char request[64], expected[32];
	for (size_t i = 0; i < sizeof queries / sizeof *queries; i++) {
		snprintf(request, sizeof request, "GET /v1/batches%s", queries[i][0]);
		snprintf(expected, sizeof expected, "batches %s", queries[i][1]);
		expect_status(request, 200);
		assert_string_equal(asked, expected);
	}
}

static void test_an_object_is_streamed_as_what_it_is(void **state)
{
	(void)state;
	struct client *client = ask("GET /v1/batches/97/object");
	assert_string_equal(asked, "object 97");
	assert_int_equal(status_of(client), 200);
	assert_true(has_header(client, "Content-Type: application/gzip\r\n"));
	client_free(client);
	expect_problem("GET /v1/batches/parking/object", 404, "no batch");
}

static void test_queries(void **state)
{
	(void)state;
	static const char *const bad[] = { "last=100001", "last=-1", "last=", "last", "last=10x", "last=99999999999" };
	char request[128];
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		snprintf(request, sizeof request, "GET /v1/sources/parking/records?%s", bad[i]);
		expect_problem(request, 400, "last is a number from 0 to 100000");
	}
	expect_problem("GET /v1/sources/parking/records?last=5&follow=2", 400, "follow is 0 or 1");
	expect_problem("GET /v1/sources/parking/records?follow", 400, "follow is 0 or 1");
	expect_problem("GET /v1/rejected?last=5", 400, "\"last\"");
	expect_problem("GET /v1/sources/parking/records?lst=5", 400, "\"lst\"");
	expect_problem("GET /v1/status?last=5", 400, "\"last\"");
	expect_problem("POST /v1/flush?wait=2", 400, "0 or 1");
	expect_problem("POST /v1/flush?wait", 400, "0 or 1");
	expect_problem("POST /v1/audit?since=2026-02-30", 400, "a date like 2026-11-21");
	expect_problem("POST /v1/audit?since", 400, "a date like");
	expect_problem("POST /v1/audit?repair=yes", 400, "repair is 0 or 1");
	expect_problem("GET /v1/batches?waiting=2", 400, "waiting is 0 or 1");
	expect_problem("GET /v1/batches?waiting=1&after=x", 400, "after is the id of a batch");
	expect_problem("GET /v1/batches?after=5", 400, "goes with waiting=1");
	expect_problem("POST /v1/batches/parking/retry", 404, "no batch");
	expect_problem("POST /v1/batches/1234567890123456789/retry", 404, "no batch");
	assert_string_equal(asked, "");
	assert_int_equal(asked_last, 0);
}

/* In HTTP/1.0, which knows no chunks: the body as it is. */
static struct client *ask_plainly(const char *request)
{
	char text[256];
	struct client *client = client_new();
	snprintf(text, sizeof text, "%s HTTP/1.0\r\n\r\n", request);
	send_text(client, text);
	return client;
}

static void test_records(void **state)
{
	(void)state;
	struct client *client = ask_plainly("GET /v1/sources/parking/records");
	run_to_end(client);
	assert_int_equal(status_of(client), 200);
	assert_true(has_header(client, "Content-Type: application/x-ndjson\r\n"));
	assert_true(has_header(client, "Connection: close\r\n"));
	assert_string_equal(body_of(client), "{\"source\":\"parking\"}\n{}\n");
	assert_int_equal(asked_last, 10);
	assert_string_equal(asked, "records parking 0");
	assert_true(feeds[0].closed);
	client_free(client);
	expect_status("GET /v1/sources/_polls/records?last=100000&follow=1", 200);
	assert_int_equal(asked_last, 100000);
	assert_string_equal(asked, "records _polls 1");
	expect_status("GET /v1/sources/parking/records?follow=0&last=0", 200);
	assert_int_equal(asked_last, 0);
	assert_string_equal(asked, "records parking 0");
}

/* What ends in HTTP/1.1 with this was sent to its end. */
#define LAST_CHUNK "\r\n0\r\n\r\n"

static bool is_complete(const struct client *client)
{
	size_t len = strlen(LAST_CHUNK);
	return client->len > len && strcmp(client->answer + client->len - len, LAST_CHUNK) == 0;
}

static void run_to_want(const struct feed *feed)
{
	while (!feed->wants)
		uv_run(&loop, UV_RUN_ONCE);
}

static void run_to_text(const struct client *client, const char *text)
{
	while (!strstr(client->answer, text))
		uv_run(&loop, UV_RUN_ONCE);
}

static struct client *follow(void)
{
	struct client *client = client_new();
	size_t before = n_feeds;
	feed_way = FEED_BY_HAND;
	send_request(client, "GET /v1/sources/parking/records?follow=1");
	while (n_feeds == before)
		uv_run(&loop, UV_RUN_ONCE);
	run_to_want(&feeds[before]);
	run_to_text(client, "\r\n\r\n");
	return client;
}

static void test_stream(void **state)
{
	(void)state;
	struct client *client = follow();
	assert_int_equal(status_of(client), 200);
	feed_write(&feeds[0], "{\"a\":1}\n");
	run_to_text(client, "{\"a\":1}\n");
	run_to_want(&feeds[0]);
	assert_int_equal(feeds[0].asked, 2);
	feed_write(&feeds[0], "{\"a\":2}\n");
	feed_end(&feeds[0]);
	run_to_end(client);
	assert_non_null(strstr(client->answer, "{\"a\":2}\n"));
	assert_true(is_complete(client));
	assert_true(feeds[0].closed);
	client_free(client);
}

static void test_stream_after_a_while(void **state)
{
	(void)state;
	struct client *client = ask_plainly("GET /v1/sources/parking/records");
	feed_way = FEED_LATER;
	run_to_calls(1);
	settle();
	feed_way = FEED_TWO_LINES;
	feed_start(take());
	run_to_end(client);
	assert_string_equal(body_of(client), "{\"source\":\"parking\"}\n{}\n");
	client_free(client);
}

static void test_stream_of_nothing(void **state)
{
	(void)state;
	struct client *client = follow();
	feed_end(&feeds[0]);
	run_to_end(client);
	assert_true(is_complete(client));
	client_free(client);
}

/* Much more than fits a socket: every byte comes. */
static void test_long_stream(void **state)
{
	(void)state;
	struct client *client = ask_plainly("GET /v1/sources/parking/records");
	feed_way = FEED_ENDLESS;
	while (n_feeds == 0 || feeds[0].asked < 30)
		uv_run(&loop, UV_RUN_ONCE);
	feed_end(&feeds[0]);
	run_to_end(client);
	assert_int_equal(strlen(body_of(client)), (size_t)feeds[0].asked * (PIECE_MAX - 1));
	client_free(client);
}

static void test_stream_keeps_the_readers_pace(void **state)
{
	(void)state;
	feed_way = FEED_ENDLESS;
	struct client *client = client_deaf("GET /v1/sources/parking/records?follow=1");
	int asked_before = feeds[0].asked;
	assert_in_range(asked_before, 1, 20);
	leap(29);
	assert_int_equal(feeds[0].asked, asked_before);
	assert_false(feeds[0].closed);
	leap(2);
	assert_true(feeds[0].closed);
	client_free(client);
}

static void test_idle_stream_stays(void **state)
{
	(void)state;
	struct client *client = follow();
	assert_int_equal(shutdown(client->fd, SHUT_WR), 0); /* it asks nothing more: that is not leaving */
	for (int i = 0; i < 10; i++)
		leap(1000);
	assert_false(feeds[0].closed || client->end);
	feed_write(&feeds[0], "{}\n");
	run_to_text(client, "{}\n");
	client_free(client);
}

static void test_reader_leaves_idle_stream(void **state)
{
	(void)state;
	struct client *client = follow();
	client_free(client);
	settle();
	assert_false(feeds[0].closed);
	leap(2);
	assert_true(feeds[0].closed);
	expect_status("GET /v1/status", 200);
}

static void test_reader_leaves_busy_stream(void **state)
{
	(void)state;
	feed_way = FEED_ENDLESS;
	client_free(client_deaf("GET /v1/sources/parking/records?follow=1"));
	settle();
	assert_true(feeds[0].closed);
}

static void test_stream_that_breaks_off(void **state)
{
	(void)state;
	struct client *client = follow();
	feed_write(&feeds[0], "{\"a\":1}\n");
	run_to_want(&feeds[0]);
	api_stream_break(feeds[0].stream);
	run_to_end(client);
	assert_non_null(strstr(client->answer, "{\"a\":1}\n"));
	assert_false(is_complete(client));
	assert_true(feeds[0].closed);
	client_free(client);
}

static void test_head_of_records(void **state)
{
	(void)state;
	expect_status("HEAD /v1/sources/parking/records", 200);
	assert_int_equal(feeds[0].asked, 0);
	assert_true(feeds[0].closed);
}

static void test_streams_are_few(void **state)
{
	(void)state;
	struct client *clients[STREAMS_LIMIT];
	for (size_t i = 0; i < STREAMS_LIMIT; i++)
		clients[i] = follow();
	expect_problem("GET /v1/sources/parking/records", 503, "read records or objects already");
	expect_status("GET /v1/status", 200);
	feed_end(&feeds[1]);
	run_to_end(clients[1]);
	client_free(clients[1]);
	clients[1] = follow();
	for (size_t i = 0; i < STREAMS_LIMIT; i++)
		client_free(clients[i]);
}

/* The client left before: there is nobody to stream to. */
static void test_stream_for_nobody(void **state)
{
	(void)state;
	struct client *client = client_new();
	feed_way = FEED_LATER;
	send_request(client, "GET /v1/sources/parking/records");
	run_to_calls(1);
	client_free(client);
	settle();
	leap(2);
	assert_null(feed_start(take()));
}

/* libmicrohttpd refuses by itself what does not fit its memory; the server goes on. */
static void test_long_url(void **state)
{
	(void)state;
	char request[9000] = "GET /v1/";
	memset(request + strlen(request), 'a', 1500);
	expect_problem(request, 404, "aaa");
	memset(request + strlen("GET /v1/"), 'a', sizeof request - strlen("GET /v1/") - 1);
	expect_status(request, 414);
	expect_status("GET /v1/status", 200);
}

static void test_bodies(void **state)
{
	(void)state;
	static char text[4500], data[4097];
	struct client *client = client_new();
	memset(data, 'x', 4096);
	snprintf(text, sizeof text,
	         "GET /v1/status HTTP/1.1\r\nHost: m\r\nConnection: close\r\nContent-Length: 4096\r\n\r\n%s", data);
	send_text(client, text);
	run_to_end(client);
	assert_int_equal(status_of(client), 200);
	client_free(client);
	client = client_new();
	send_text(client, "POST /v1/flush HTTP/1.1\r\nHost: m\r\nContent-Length: 4097\r\n\r\n");
	run_to_end(client);
	assert_problem(client, 413, "this takes no body");
	client_free(client);
	client = client_new();
	send_text(client, "POST /v1/flush HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
	run_to_end(client);
	assert_problem(client, 411, "this takes no body");
	client_free(client);
	assert_string_equal(asked, "");
}

#define SHA256_TEXT "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define KEY         "source=a/dt=2026-11-21/pi-02-9f8e7d6c-1-9-01234567.ndjson.gz"

static struct client *put(const char *query, size_t bytes)
{
	char text[512];
	struct client *client = client_new();
	snprintf(text, sizeof text,
	         "PUT /v1/objects/" KEY "%s HTTP/1.1\r\nHost: m\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n",
	         query, bytes);
	send_text(client, text);
	return client;
}

/* As many of these bytes as the server takes; each is 1. Returns how many. */
static size_t send_body(struct client *client, size_t bytes)
{
	static char ones[65536];
	size_t sent = 0;
	int idle = 0;
	memset(ones, 1, sizeof ones);
	while (sent < bytes && idle < 500) {
		size_t left = bytes - sent;
		ssize_t n = send(client->fd, ones, left < sizeof ones ? left : sizeof ones, MSG_NOSIGNAL);
		idle = n > 0 ? 0 : idle + 1;
		sent += n > 0 ? (size_t)n : 0;
		uv_run(&loop, UV_RUN_NOWAIT);
	}
	settle();
	return sent;
}

static void test_a_body_in_pieces_at_the_takers_pace(void **state)
{
	(void)state;
	const size_t bytes = 2 * API_PIECE + 1000;
	struct client *client = put("?sha256=" SHA256_TEXT, bytes);
	settle();
	assert_string_equal(asked, "import " KEY " 01234567");
	assert_int_equal(taking.bytes, bytes);
	size_t sent = send_body(client, bytes);
	assert_true(sent < API_PIECE); /* what the sockets hold: nothing is read before it is asked for */
	assert_int_equal(taking.pieces, 0);
	for (int piece = 1; piece <= 3; piece++) {
		assert_true(take_next());
		sent += send_body(client, bytes - sent);
		assert_int_equal(taking.pieces, piece);
		assert_int_equal(taking.got, piece < 3 ? (size_t)piece * API_PIECE : bytes);
		assert_int_equal(taking.last, piece == 3);
		expect_status("GET /v1/status", 200);
	}
	assert_int_equal(sent, bytes);
	assert_int_equal(taking.sum, bytes);
	assert_false(take_next());
	assert_int_equal(client->len, 0);
	api_answer(taking.call, json_pack("{s:b}", "taken", 1));
	run_to_end(client);
	assert_int_equal(status_of(client), 200);
	assert_string_equal(body_of(client), "{\"taken\":true}\n");
	client_free(client);
	assert_false(taking.gone);
}

static void test_a_body_that_is_taken_at_once(void **state)
{
	(void)state;
	const size_t bytes = 5 * API_PIECE;
	taking.way = TAKE_AT_ONCE;
	struct client *client = put("?sha256=" SHA256_TEXT, bytes);
	assert_int_equal(send_body(client, bytes), bytes);
	run_to_end(client);
	assert_int_equal(status_of(client), 200);
	assert_int_equal(taking.sum, bytes);
	assert_int_equal(taking.pieces, 5);
	client_free(client);
}

static void test_an_answer_before_the_bodys_end(void **state)
{
	(void)state;
	const size_t bytes = 3 * API_PIECE;
	for (int i = 0; i < 2; i++) {
		taking = (struct taking){ .way = i == 0 ? TAKE_NOTHING : TAKE_ONE };
		struct client *client = put("?sha256=" SHA256_TEXT, bytes);
		assert_int_equal(send_body(client, bytes), bytes);
		run_to_end(client);
		assert_int_equal(status_of(client), i == 0 ? 200 : 422);
		assert_int_equal(taking.pieces, i);
		client_free(client);
	}
	struct client *client = put("?sha256=xyz", bytes);
	send_body(client, bytes);
	run_to_end(client);
	assert_problem(client, 400, "64 small hex digits");
	client_free(client);
}

static void test_who_sends_a_body_leaves(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		taking = (struct taking){ .way = TAKE_BY_HAND };
		struct client *client = put("?sha256=" SHA256_TEXT, API_PIECE);
		settle();
		if (i == 0)
			assert_true(take_next());
		send_body(client, 1000);
		client_free(client);
		settle();
		leap(2);
		assert_int_equal(taking.gone, i == 0);
		if (i == 1)
			assert_false(take_next());
		api_answer_problem(taking.call, 503, "nobody reads this");
		assert_int_equal(taking.pieces, 0);
	}
	expect_status("GET /v1/status", 200);
}

static void test_a_body_that_does_not_come_ends(void **state)
{
	(void)state;
	struct client *client = put("?sha256=" SHA256_TEXT, API_PIECE);
	settle();
	assert_true(take_next());
	/* A byte now and then is not enough. */
	for (int second = 0; second < 40 && !taking.gone; second++) {
		send(client->fd, "x", 1, MSG_NOSIGNAL);
		leap(1);
	}
	assert_true(taking.gone);
	api_answer_problem(taking.call, 503, "nobody reads this");
	run_to_end(client);
	client_free(client);
}

static void test_bodies_that_are_not_taken(void **state)
{
	(void)state;
	struct client *client = put("?sha256=" SHA256_TEXT, (128 << 20) + 1);
	run_to_end(client);
	assert_problem(client, 413, "up to 128 MB");
	client_free(client);
	client = client_new();
	send_text(client,
	          "PUT /v1/objects/" KEY " HTTP/1.1\r\nHost: m\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
	run_to_end(client);
	assert_problem(client, 411, "known length");
	client_free(client);
	expect_problem("POST /v1/objects/" KEY, 405, "PUT");
	expect_problem("PUT /v1/objects/", 404, "there is no");
	assert_string_equal(asked, "");
}

static void test_close_ends_a_body(void **state)
{
	(void)state;
	struct client *client = put("?sha256=" SHA256_TEXT, API_PIECE);
	settle();
	assert_true(take_next());
	send_body(client, 1000);
	close_api();
	assert_true(taking.gone);
	api_answer_problem(taking.call, 503, "nobody reads this");
	run_to_end(client);
	client_free(client);
}

static void test_answers_later(void **state)
{
	(void)state;
	struct client *client = client_new();
	send_request(client, "POST /v1/sources/parking/poll");
	run_to_calls(1);
	assert_string_equal(asked, "poll parking");
	expect_status("GET /v1/status", 200);
	assert_int_equal(client->len, 0);
	api_answer(take(), json_pack("{s:s}", "outcome", "committed"));
	run_to_end(client);
	assert_int_equal(status_of(client), 200);
	assert_string_equal(body_of(client), "{\"outcome\":\"committed\"}\n");
	client_free(client);
}

static void test_answers_within_another_call(void **state)
{
	(void)state;
	struct client *first = client_new(), *second = client_new();
	send_request(first, "POST /v1/flush?wait=1");
	run_to_calls(1);
	assert_string_equal(asked, "flush 1");
	answer_first_call = true;
	send_request(second, "POST /v1/sources/parking/poll");
	run_to_end(first);
	assert_non_null(strstr(body_of(first), "early"));
	assert_int_equal(second->len, 0);
	api_answer(take(), json_object());
	run_to_end(second);
	assert_string_equal(body_of(second), "{}\n");
	client_free(first);
	client_free(second);
}

static void test_one_request_a_connection(void **state)
{
	(void)state;
	struct client *client = client_new();
	send_text(client, "POST /v1/flush?wait=0 HTTP/1.1\r\nHost: m\r\n\r\n"
	                  "GET /v1/stores HTTP/1.1\r\nHost: m\r\n\r\n");
	run_to_calls(1);
	assert_string_equal(asked, "flush 0");
	api_answer_problem(take(), 503, "store \"%s\" is away", "lake");
	run_to_end(client);
	assert_int_equal(status_of(client), 503);
	assert_true(has_header(client, "Connection: close\r\n"));
	assert_non_null(strstr(client->answer, "store \\\"lake\\\" is away"));
	assert_null(strstr(client->answer, "\"stores\":[]"));
	client_free(client);
}

static void test_detail_that_is_no_utf8(void **state)
{
	(void)state;
	expect_problem("POST /v1/sources/broken/poll", 500,
	               "no UTF-8: \xEF\xBF\xBD( \xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD \xE2\x82\xAC and "
	               "\xEF\xBF\xBD\xEF\xBF\xBD");
}

/* More of them than the server has connections: each one's place must be free again after its answer. */
static void test_client_leaves_before_its_answer(void **state)
{
	(void)state;
	for (int i = 0; i < 2 * CONNECTIONS; i++) {
		struct client *client = client_new();
		send_request(client, "POST /v1/sources/parking/poll");
		run_to_calls(1);
		client_free(client);
		expect_status("GET /v1/status", 200);
		api_answer(take(), json_object());
	}
	expect_status("GET /v1/status", 200);
}

static void on_iteration(uv_prepare_t *prepare)
{
	++*(int *)prepare->data;
}

static void on_spell_over(uv_timer_t *timer)
{
	*(bool *)timer->data = true;
}

/* A suspended connection whose client left must not keep the loop busy. */
static void test_waiting_is_idle(void **state)
{
	(void)state;
	int iterations = 0;
	bool over = false;
	uv_prepare_t prepare;
	uv_timer_t timer;
	struct client *client = client_new();
	send_request(client, "POST /v1/sources/parking/poll");
	run_to_calls(1);
	client_free(client);
	uv_prepare_init(&loop, &prepare);
	uv_timer_init(&loop, &timer);
	prepare.data = &iterations;
	timer.data = &over;
	uv_prepare_start(&prepare, on_iteration);
	uv_timer_start(&timer, on_spell_over, 100, 0);
	while (!over)
		uv_run(&loop, UV_RUN_ONCE);
	assert_in_range(iterations, 1, 10);
	uv_close((uv_handle_t *)&prepare, NULL);
	uv_close((uv_handle_t *)&timer, NULL);
	uv_run(&loop, UV_RUN_NOWAIT);
}

static void test_crowd_leaves_room_for_status(void **state)
{
	(void)state;
	struct client *waiting[WAITING_LIMIT];
	for (size_t i = 0; i < WAITING_LIMIT; i++) {
		waiting[i] = client_new();
		send_request(waiting[i], "POST /v1/flush?wait=1");
	}
	run_to_calls(WAITING_LIMIT);
	expect_problem("POST /v1/flush?wait=1", 503, "too many");
	assert_int_equal(n_calls, WAITING_LIMIT);
	expect_status("GET /v1/status", 200);
	for (size_t i = 0; i < WAITING_LIMIT; i++)
		api_answer(take(), json_object());
	for (size_t i = 0; i < WAITING_LIMIT; i++) {
		run_to_end(waiting[i]);
		assert_int_equal(status_of(waiting[i]), 200);
		client_free(waiting[i]);
	}
	struct client *late = client_new();
	send_request(late, "POST /v1/flush");
	run_to_calls(1);
	api_answer(take(), json_object());
	run_to_end(late);
	client_free(late);
}

/* Their places are free again, and their calls stay the backend's, up to a limit of their own. */
static void test_waiting_clients_that_leave_make_room(void **state)
{
	(void)state;
	for (size_t n = 0; n < CALLS_LIMIT;) {
		struct client *waiting[WAITING_LIMIT];
		size_t more = CALLS_LIMIT - n < WAITING_LIMIT ? CALLS_LIMIT - n : WAITING_LIMIT;
		for (size_t i = 0; i < more; i++) {
			waiting[i] = client_new();
			send_request(waiting[i], "POST /v1/flush?wait=1");
		}
		n += more;
		run_to_calls(n);
		for (size_t i = 0; i < more; i++)
			client_free(waiting[i]);
		settle();
		leap(2);
	}
	expect_problem("POST /v1/flush?wait=1", 503, "too many");
	expect_status("GET /v1/status", 200);
	api_answer(take(), json_object());
	struct client *next = client_new();
	send_request(next, "POST /v1/flush?wait=1");
	run_to_calls(CALLS_LIMIT);
	client_free(next);
}

static void test_waiting_call_stays(void **state)
{
	(void)state;
	struct client *client = client_new();
	send_request(client, "POST /v1/flush?wait=1");
	assert_int_equal(shutdown(client->fd, SHUT_WR), 0);
	run_to_calls(1);
	for (int i = 0; i < 10; i++)
		leap(1000);
	assert_false(client->end);
	api_answer(take(), json_object());
	run_to_end(client);
	assert_int_equal(status_of(client), 200);
	client_free(client);
}

static void test_silence_ends(void **state)
{
	(void)state;
	struct client *silent = client_new(), *half = client_new(), *slow = client_new();
	send_text(half, "GET /v1/status HTTP/1.1\r\n");
	settle();
	for (int i = 0; i < 2; i++) {
		send_text(slow, "\r\n");
		leap(2);
	}
	assert_false(silent->end || half->end || slow->end);
	send_text(slow, "G");
	leap(2);
	run_to_end(silent);
	run_to_end(half);
	run_to_end(slow);
	assert_int_equal(silent->len + half->len + slow->len, 0);
	client_free(silent);
	client_free(half);
	client_free(slow);
}

/* A body that is announced and does not come is no whole request. */
static void test_missing_body_ends(void **state)
{
	(void)state;
	struct client *client = client_new();
	send_text(client, "POST /v1/flush HTTP/1.1\r\nHost: m\r\nContent-Length: 10\r\n\r\n");
	settle();
	leap(6);
	run_to_end(client);
	assert_string_equal(asked, "");
	client_free(client);
}

static void test_answer_that_is_not_taken_ends(void **state)
{
	(void)state;
	config_bytes = UNSENT_LIMIT / 2;
	struct client *client = client_deaf("GET /v1/config");
	leap(4);
	leap(2);
	uv_poll_start(&client->poll, UV_READABLE, on_readable);
	run_to_end(client);
	assert_int_equal(status_of(client), 200);
	assert_true(strlen(body_of(client)) < config_bytes);
	client_free(client);
}

static void test_unsent_answers_are_bounded(void **state)
{
	(void)state;
	config_bytes = UNSENT_LIMIT / 2 - 100;
	struct client *first = client_deaf("GET /v1/config"), *second = client_deaf("GET /v1/config");
	expect_problem("GET /v1/config", 503, "too many answers");
	client_free(first);
	settle();
	expect_status("GET /v1/config", 200);
	config_bytes = 2 * UNSENT_LIMIT;
	expect_problem("GET /v1/config", 503, "too many answers");
	client_free(second);
	settle();
	expect_status("GET /v1/config", 200); /* alone it may be larger */
}

/* As fast as they can, and some with half a request. */
static void test_silent_clients_lock_nobody_out(void **state)
{
	(void)state;
	static struct client *silent[4 * CONNECTIONS];
	size_t n = sizeof silent / sizeof *silent, open = 0;
	for (size_t i = 0; i < n; i++) {
		silent[i] = client_new();
		if (i % 2)
			send_text(silent[i], "GET /v1/status HTTP/1.1\r\n");
		uv_run(&loop, UV_RUN_NOWAIT);
	}
	expect_status("GET /v1/status", 200);
	settle();
	for (size_t i = 0; i < n; i++)
		open += !silent[i]->end;
	assert_in_range(open, CONNECTIONS / 2, CONNECTIONS);
	assert_true(silent[0]->end);
	assert_false(silent[n - 1]->end);
	for (size_t i = 0; i < n; i++)
		client_free(silent[i]);
}

/* Whoever asks gets his answer, also where all ask at once while the long ones hold their places. */
static void test_crowd_of_askers(void **state)
{
	(void)state;
	struct client *waiting[WAITING_LIMIT], *streams[STREAMS_LIMIT], *asking[CONNECTIONS];
	for (size_t i = 0; i < STREAMS_LIMIT; i++)
		streams[i] = follow();
	for (size_t i = 0; i < WAITING_LIMIT; i++) {
		waiting[i] = client_new();
		send_request(waiting[i], "POST /v1/flush?wait=1");
	}
	run_to_calls(WAITING_LIMIT);
	for (size_t i = 0; i < CONNECTIONS; i++) {
		asking[i] = client_new();
		send_request(asking[i], "GET /v1/status");
	}
	for (size_t i = 0; i < CONNECTIONS; i++) {
		run_to_end(asking[i]);
		assert_int_equal(status_of(asking[i]), 200);
		client_free(asking[i]);
	}
	for (size_t i = 0; i < WAITING_LIMIT; i++)
		client_free(waiting[i]);
	for (size_t i = 0; i < STREAMS_LIMIT; i++)
		client_free(streams[i]);
}

static int open_descriptors(void)
{
	int n = 0;
	DIR *dir = opendir("/proc/self/fd");
	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static void test_close_ends_open_calls(void **state)
{
	(void)state;
	struct stat st;
	struct client *first = client_new(), *second = client_new(), *idle = client_new(), *half = client_new();
	send_request(first, "POST /v1/sources/parking/poll");
	send_request(second, "POST /v1/flush?wait=1");
	send_text(half, "POST /v1/flush HTTP/1.1\r\nHost: m\r\n");
	run_to_calls(2);
	api_close(api, on_closed, &closed);
	api = NULL;
	assert_int_equal(lstat(path, &st), -1);
	while (!closed)
		uv_run(&loop, UV_RUN_ONCE);
	run_to_end(first);
	run_to_end(second);
	run_to_end(idle);
	run_to_end(half);
	assert_problem(first, 503, "stopping");
	assert_problem(second, 503, "stopping");
	assert_int_equal(n_calls, 2);
	api_answer(take(), json_object());
	api_answer_problem(take(), 503, "late");
	client_free(first);
	client_free(second);
	client_free(idle);
	client_free(half);
}

/* on_stream_closed comes once, from the loop, and before all is closed; until then the stream may be written to. */
static void test_close_breaks_streams_off(void **state)
{
	(void)state;
	struct client *idle = follow(), *busy;
	feed_way = FEED_ENDLESS;
	busy = client_deaf("GET /v1/sources/parking/records?follow=1");
	in_api = true;
	api_close(api, on_closed, &closed);
	in_api = false;
	api = NULL;
	assert_false(feeds[0].closed || feeds[1].closed || closed);
	feed_write(&feeds[0], "{}\n");
	feed_end(&feeds[1]);
	while (!closed)
		uv_run(&loop, UV_RUN_ONCE);
	assert_true(feeds[0].closed && feeds[1].closed);
	run_to_end(idle);
	assert_int_equal(status_of(idle), 200);
	assert_false(is_complete(idle));
	client_free(idle);
	client_free(busy);
}

static void test_close_keeps_no_descriptor(void **state)
{
	(void)state;
	uv_run(&loop, UV_RUN_NOWAIT);
	int before = open_descriptors();
	assert_int_equal(api_start(&loop, path, &backend, NULL, &api, &err), 0);
	expect_status("GET /v1/status", 200);
	assert_true(open_descriptors() > before);
	close_api();
	assert_int_equal(open_descriptors(), before);
}

/* A request that comes in the server's last runs, when calls were told to end: the backend must not get it. */
static void test_request_while_it_closes(void **state)
{
	(void)state;
	struct client *waiting = client_new(), *late = client_new();
	send_request(waiting, "POST /v1/sources/parking/poll");
	run_to_calls(1);
	send_request(late, "POST /v1/flush?wait=1");
	close_api();
	run_to_end(waiting);
	run_to_end(late);
	assert_int_equal(n_calls, 1);
	assert_problem(late, 503, "stopping");
	client_free(waiting);
	client_free(late);
}

static void test_socket_mode(void **state)
{
	(void)state;
	struct stat st;
	assert_int_equal(lstat(path, &st), 0);
	assert_true(S_ISSOCK(st.st_mode));
	assert_int_equal(st.st_mode & 07777, 0660);
}

static void test_leftover_socket_is_replaced(void **state)
{
	(void)state;
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
	close(fd);
	assert_int_equal(api_start(&loop, path, &backend, NULL, &api, &err), 0);
	expect_status("GET /v1/status", 200);
}

static void test_socket_in_use(void **state)
{
	(void)state;
	struct api *second = NULL;
	assert_int_equal(api_start(&loop, path, &backend, NULL, &second, &err), -EADDRINUSE);
	assert_null(second);
	assert_non_null(strstr(err.text, path));
	expect_status("GET /v1/status", 200);
}

static void test_other_files_are_left_alone(void **state)
{
	(void)state;
	struct stat st;
	close(open(path, O_CREAT | O_WRONLY, 0600));
	assert_int_equal(api_start(&loop, path, &backend, NULL, &api, &err), -EEXIST);
	assert_int_equal(lstat(path, &st), 0);
	assert_true(S_ISREG(st.st_mode));
	assert_null(api);
}

static void test_impossible_paths(void **state)
{
	(void)state;
	char text[200];
	memset(text, 'a', 108);
	text[108] = '\0';
	assert_int_equal(api_start(&loop, text, &backend, NULL, &api, &err), -ENAMETOOLONG);
	assert_non_null(strstr(err.text, "107"));
	snprintf(text, sizeof text, "%s/none/api.sock", folder);
	assert_int_equal(api_start(&loop, text, &backend, NULL, &api, &err), -ENOENT);
	assert_non_null(strstr(err.text, "/none\" of the socket does not exist: create it (mkdir -p /"));
	assert_null(api);
}

static void test_close_leaves_another_ones_socket(void **state)
{
	(void)state;
	struct stat st;
	assert_int_equal(unlink(path), 0);
	close(open(path, O_CREAT | O_WRONLY, 0600));
	close_api();
	assert_int_equal(lstat(path, &st), 0);
}

#define WITH_SERVER(test) cmocka_unit_test_setup_teardown(test, setup_server, teardown)
#define WITHOUT(test)     cmocka_unit_test_setup_teardown(test, setup, teardown)

static int run_bodies(void)
{
	const struct CMUnitTest tests[] = {
		WITH_SERVER(test_a_body_in_pieces_at_the_takers_pace),
		WITH_SERVER(test_a_body_that_is_taken_at_once),
		WITH_SERVER(test_an_answer_before_the_bodys_end),
		WITH_SERVER(test_who_sends_a_body_leaves),
		WITH_SERVER(test_a_body_that_does_not_come_ends),
		WITH_SERVER(test_bodies_that_are_not_taken),
		WITH_SERVER(test_close_ends_a_body),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

static int run_mill(void)
{
	const struct CMUnitTest tests[] = {
		WITH_SERVER(test_machines),
		WITH_SERVER(test_runs),
		WITH_SERVER(test_what_is_no_run),
		WITH_SERVER(test_orders),
		WITH_SERVER(test_orders_that_are_refused),
		WITH_SERVER(test_orders_without_a_word),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_SERVER(test_status),
		WITH_SERVER(test_config),
		WITH_SERVER(test_head_is_get_without_body),
		WITH_SERVER(test_unknown_paths),
		WITH_SERVER(test_wrong_methods),
		WITH_SERVER(test_queries),
		WITH_SERVER(test_retry),
		WITH_SERVER(test_audit),
		WITH_SERVER(test_batches),
		WITH_SERVER(test_an_object_is_streamed_as_what_it_is),
		WITH_SERVER(test_records),
		WITH_SERVER(test_stream),
		WITH_SERVER(test_stream_after_a_while),
		WITH_SERVER(test_stream_of_nothing),
		WITH_SERVER(test_long_stream),
		WITH_SERVER(test_stream_keeps_the_readers_pace),
		WITH_SERVER(test_idle_stream_stays),
		WITH_SERVER(test_reader_leaves_idle_stream),
		WITH_SERVER(test_reader_leaves_busy_stream),
		WITH_SERVER(test_stream_that_breaks_off),
		WITH_SERVER(test_head_of_records),
		WITH_SERVER(test_streams_are_few),
		WITH_SERVER(test_stream_for_nobody),
		WITH_SERVER(test_long_url),
		WITH_SERVER(test_bodies),
		WITH_SERVER(test_answers_later),
		WITH_SERVER(test_answers_within_another_call),
		WITH_SERVER(test_one_request_a_connection),
		WITH_SERVER(test_detail_that_is_no_utf8),
		WITH_SERVER(test_client_leaves_before_its_answer),
		WITH_SERVER(test_waiting_is_idle),
		WITH_SERVER(test_crowd_leaves_room_for_status),
		WITH_SERVER(test_waiting_clients_that_leave_make_room),
		WITH_SERVER(test_waiting_call_stays),
		WITH_SERVER(test_silence_ends),
		WITH_SERVER(test_missing_body_ends),
		WITH_SERVER(test_answer_that_is_not_taken_ends),
		WITH_SERVER(test_unsent_answers_are_bounded),
		WITH_SERVER(test_silent_clients_lock_nobody_out),
		WITH_SERVER(test_crowd_of_askers),
		WITH_SERVER(test_close_ends_open_calls),
		WITH_SERVER(test_close_breaks_streams_off),
		WITHOUT(test_close_keeps_no_descriptor),
		WITH_SERVER(test_request_while_it_closes),
		WITH_SERVER(test_socket_mode),
		WITHOUT(test_leftover_socket_is_replaced),
		WITH_SERVER(test_socket_in_use),
		WITHOUT(test_other_files_are_left_alone),
		WITHOUT(test_impossible_paths),
		WITH_SERVER(test_close_leaves_another_ones_socket),
	};
	return run_bodies() + run_mill() + cmocka_run_group_tests(tests, NULL, NULL);
}
