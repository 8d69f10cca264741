/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libmicrohttpd without a thread of its own: its epoll descriptor hangs in our loop, and a timer stands in for its
 * timeouts. A request whose answer is not there yet is suspended: libmicrohttpd then neither reads it, nor times it
 * out, nor notices that its client left; that is looked for here, once a second. So two things meet here and may end in
 * any order: the request, which belongs to the connection, and the call, which belongs to the backend until it answers.
 */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "api/request.h"
#include "api/routes.h"
#include "base/container.h"

/*
 * When the last place is taken, one is made free; so there must always be one whose holder has said nothing for two
 * runs. Of 48, waiting calls and streams hold 16, large answers that nobody reads 5, and libmicrohttpd takes 11
 * connections a run.
 */
#define CONNECTIONS_MAX   48u
#define WAITING_MAX       12u /* the rest is left for status */
#define CALLS_MAX         64u /* those whose clients left included */
#define CONNECTION_MEMORY ((size_t)4096)
#define SILENCE_S         5u /* until a request is there as a whole; while an answer is not taken */
#define SWEEP_MS          1000
#define BODY_S            30u /* until the next piece of a body that is wanted is there */
#define REQUEST_BODY_MAX  4096u
#define LAST_RUNS         8 /* enough to send what fits the sockets' buffers */

static void on_timer(uv_timer_t *timer);

static void schedule(struct api *api)
{
	MHD_UNSIGNED_LONG_LONG timeout_ms = 0;
	if (api->again || MHD_get_timeout(api->daemon, &timeout_ms) == MHD_YES)
		uv_timer_start(&api->timer, on_timer, timeout_ms, 0);
	else
		uv_timer_stop(&api->timer);
	api->again = false;
}

static void run(struct api *api)
{
	if (api->closing)
		return;
	api->running = true;
	MHD_run(api->daemon);
	streams_tell(api);
	api->running = false;
	schedule(api);
}

static void on_timer(uv_timer_t *timer)
{
	run(container_of(timer, struct api, timer));
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	(void)status;
	(void)events;
	run(container_of(poll, struct api, poll));
}

void api_run_soon(struct api *api)
{
	if (api->running)
		api->again = true;
	else
		uv_timer_start(&api->timer, on_timer, 0, 0);
}

void request_answer(struct request *request, unsigned status, struct MHD_Response *response)
{
	struct api *api = request->api;
	bool suspended = request->state == REQUEST_WAITING;
	assert(request->state < REQUEST_ANSWERED);
	if (response)
		MHD_add_response_header(response, "Connection", "close");
	request->status = status;
	request->response = response;
	request->state = REQUEST_ANSWERED;
	if (!suspended)
		return;
	api->waiting--;
	request_resume(request);
}

void request_suspend(struct request *request)
{
	request->state = REQUEST_WAITING;
	request->api->waiting++;
	MHD_suspend_connection(request->connection);
}

void request_resume(struct request *request)
{
	MHD_resume_connection(request->connection);
	api_run_soon(request->api);
}

static enum MHD_Result request_send(struct request *request)
{
	if (!request->response)
		return MHD_NO; /* no memory, or nobody to answer: the connection is closed */
	return MHD_queue_response(request->connection, request->status, request->response);
}

/* libmicrohttpd finds its client gone, and closes it. */
static void request_shut(struct request *request)
{
	assert(request->state != REQUEST_WAITING);
	if (request->state == REQUEST_TAKING)
		body_lose(request);
	request->state = REQUEST_SHUT;
	shutdown(request->fd, SHUT_RDWR);
}

static bool client_left(const struct request *request)
{
	/* Not that it will send nothing more, which a client may tell that waits for its answer. */
	struct pollfd client = { .fd = request->fd };
	return poll(&client, 1, 0) > 0 && client.revents & (POLLHUP | POLLERR);
}

/* A request; a body that is wanted, or the rest of one that was answered already. */
static bool sends_slowly(const struct request *request, uint64_t now_ms)
{
	uint64_t ms = now_ms - request->begun_ms;
	if (request->state == REQUEST_READING)
		return ms >= SILENCE_S * 1000;
	return (request->state == REQUEST_TAKING || request->state == REQUEST_ANSWERED) && request->left > 0 &&
	       ms >= BODY_S * 1000;
}

static void look_after(struct request *request, uint64_t now_ms)
{
	if (sends_slowly(request, now_ms)) {
		request_shut(request);
	} else if (request->state == REQUEST_WAITING && client_left(request)) {
		call_detach(request->call);
		request_answer(request, 0, NULL);
	} else if (request->stream && stream_waits(request->stream) && client_left(request)) {
		api_stream_break(request->stream);
	}
}

static void on_sweep(uv_timer_t *timer)
{
	struct api *api = container_of(timer, struct api, sweep);
	uint64_t now_ms = uv_now(timer->loop);
	for (struct request *request = api->requests; request; request = request->next)
		look_after(request, now_ms);
}

/* Nobody locks others out by saying nothing: the one that does so for longest leaves. */
static void make_room(struct api *api)
{
	struct request *oldest = NULL;
	for (struct request *request = api->requests->next; request; request = request->next)
		if (request->state == REQUEST_READING)
			oldest = request;
	if (oldest)
		request_shut(oldest);
}

static struct request *request_new(struct api *api, struct MHD_Connection *connection)
{
	struct request *request = calloc(1, sizeof *request);
	if (!request)
		return NULL;
	request->api = api;
	request->connection = connection;
	request->fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
	request->begun_ms = uv_now(api->timer.loop);
	bytes_init(&request->piece, API_PIECE);
	request->next = api->requests;
	api->requests = request;
	if (++api->n_requests == 1)
		uv_timer_start(&api->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
	if (api->n_requests == CONNECTIONS_MAX)
		make_room(api);
	return request;
}

static void request_free(struct request *request)
{
	struct api *api = request->api;
	struct request **at = &api->requests;
	assert(request->state != REQUEST_WAITING); /* a suspended connection does not end */
	while (*at != request)
		at = &(*at)->next;
	*at = request->next;
	if (--api->n_requests == 0)
		uv_timer_stop(&api->sweep);
	api->unsent -= request->bytes;
	if (request->state == REQUEST_TAKING)
		body_lose(request);
	bytes_done(&request->piece);
	if (request->stream)
		stream_lose_request(request->stream);
	if (request->response)
		MHD_destroy_response(request->response);
	free(request);
}

static struct request *request_of(struct MHD_Connection *connection)
{
	return MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

/* 0, or the status that refuses the body before it is read. A length that is no number was refused already. */
static unsigned refuse_body(struct MHD_Connection *connection, uint64_t max, uint64_t *ret_bytes)
{
	const char *length = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Content-Length");
	if (MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Transfer-Encoding"))
		return 411;
	*ret_bytes = length ? strtoull(length, NULL, 10) : 0;
	return *ret_bytes > max ? 413 : 0;
}

static enum MHD_Result ask(struct request *request, const char *method, const char *path)
{
	struct api *api = request->api;
	if (api->closing) {
		request_answer(request, 503, api_problem(503, STOPPING));
		return request_send(request);
	}
	struct api_call *call = call_new(request);
	if (!call)
		return MHD_NO;
	request->state = REQUEST_ASKED;
	routes_serve(&(struct routes_request){ .backend = api->backend,
	                                       .agent = api->agent,
	                                       .connection = request->connection,
	                                       .method = method,
	                                       .path = path,
	                                       .body = request->left,
	                                       .crowded = api->waiting >= WAITING_MAX || api->n_calls > CALLS_MAX },
	             call);
	if (request->state == REQUEST_ASKED)
		request_suspend(request);
	/* Whoever still sends a body reads no answer. */
	return request->state == REQUEST_ANSWERED && request->left == 0 ? request_send(request) : MHD_YES;
}

/* A body that is wanted is announced to the backend, and read when that asks for it; any other goes nowhere. */
static enum MHD_Result begin(struct request *request, const char *method, const char *path)
{
	uint64_t wanted = routes_body_max(method, path), bytes = 0;
	unsigned refused = refuse_body(request->connection, wanted ? wanted : REQUEST_BODY_MAX, &bytes);
	if (refused) {
		request_answer(request, refused,
		               api_problem(refused, wanted ? "this takes a body of a known length, up to 128 MB"
		                                           : "this takes no body"));
		return request_send(request);
	}
	request->left = wanted ? bytes : 0;
	return request->left ? ask(request, method, path) : MHD_YES;
}

static void skip(struct request *request, size_t *len)
{
	request->left -= *len < request->left ? *len : request->left;
	*len = 0;
}

/* Comes when the head was read, for each piece of a body, at its end, and after a resume. */
static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *path, const char *method,
                                  const char *version, const char *body, size_t *body_len, void **context)
{
	(void)arg;
	(void)version;
	struct request *request = request_of(connection);
	bool is_first = !*context;
	if (!request || request->state == REQUEST_SHUT)
		return MHD_NO;
	*context = request;
	if (is_first)
		return begin(request, method, path);
	if (*body_len > 0) {
		if (request->state == REQUEST_TAKING)
			body_take(request, body, body_len);
		else
			skip(request, body_len);
		return MHD_YES;
	}
	if (request->state == REQUEST_ANSWERED && request->left == 0)
		return request_send(request);
	return request->state == REQUEST_READING ? ask(request, method, path) : MHD_YES;
}

/* A server that was full takes new connections again only in a run after the one that closed an old one. */
static void on_connection(void *arg, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
	struct api *api = arg;
	if (code == MHD_CONNECTION_NOTIFY_STARTED) {
		*context = request_new(api, connection);
		return;
	}
	api->again = true;
	if (*context)
		request_free(*context);
	*context = NULL;
}

static struct MHD_Daemon *daemon_new(struct api *api)
{
	return MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, on_request, api,
	                        MHD_OPTION_LISTEN_SOCKET, api->listener.fd, MHD_OPTION_CONNECTION_LIMIT,
	                        CONNECTIONS_MAX, MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_MEMORY,
	                        MHD_OPTION_CONNECTION_TIMEOUT, SILENCE_S, MHD_OPTION_NOTIFY_CONNECTION, on_connection,
	                        api, MHD_OPTION_END);
}

static int watch(uv_loop_t *loop, struct api *api)
{
	const union MHD_DaemonInfo *info = MHD_get_daemon_info(api->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	int rc = info ? uv_poll_init(loop, &api->poll, info->epoll_fd) : -EIO;
	if (rc < 0)
		return rc;
	uv_timer_init(loop, &api->timer);
	uv_timer_init(loop, &api->sweep);
	uv_poll_start(&api->poll, UV_READABLE, on_poll);
	api->open_handles = 3;
	return 0;
}

int api_start(uv_loop_t *loop, const char *path, const struct api_backend *backend, void *agent, struct api **ret_api,
              struct err *err)
{
	struct api *api = calloc(1, sizeof *api);
	if (!api)
		return err_fail(err, -ENOMEM, "%s: there is not enough memory", path);
	api->backend = backend;
	api->agent = agent;
	int rc = listener_open(&api->listener, path, err);
	if (rc < 0)
		goto fail;
	api->daemon = daemon_new(api);
	rc = api->daemon ? watch(loop, api) : -ENOMEM;
	if (rc < 0) {
		err_fail(err, rc, "%s: cannot serve there: %s", path, strerror(-rc));
		listener_remove(&api->listener);
		if (api->daemon)
			MHD_stop_daemon(api->daemon);
		goto fail;
	}
	schedule(api);
	*ret_api = api;
	return 0;
fail:
	free(api);
	return rc;
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct api *api = handle->data;
	if (--api->open_handles > 0)
		return;
	streams_tell(api);
	assert(!api->requests && !api->streams);
	void (*on_closed)(void *) = api->on_closed;
	void *arg = api->on_closed_arg;
	free(api);
	if (on_closed)
		on_closed(arg);
}

/* The backend's calls live on without their requests, and without the API. */
static void end_requests(struct api *api)
{
	for (struct request *request = api->requests; request; request = request->next) {
		if (request->state == REQUEST_WAITING) {
			call_detach(request->call);
			request_answer(request, 503, api_problem(503, STOPPING));
		} else if (request->stream) {
			api_stream_break(request->stream);
		}
	}
	for (struct api_call *call = api->calls; call; call = call->next)
		call->api = NULL;
}

void api_close(struct api *api, void (*on_closed)(void *arg), void *arg)
{
	assert(!api->running && !api->closing);
	api->on_closed = on_closed;
	api->on_closed_arg = arg;
	listener_remove(&api->listener);
	end_requests(api);
	api->closing = true;
	for (int i = 0; i < LAST_RUNS; i++)
		MHD_run(api->daemon);
	api->poll.data = api->timer.data = api->sweep.data = api;
	uv_close((uv_handle_t *)&api->poll, on_handle_closed);
	uv_close((uv_handle_t *)&api->timer, on_handle_closed);
	uv_close((uv_handle_t *)&api->sweep, on_handle_closed);
	MHD_stop_daemon(api->daemon);
}
