/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libmicrohttpd without a thread of its own: its epoll descriptor hangs in our loop, and a timer stands in for its
 * timeouts. A request whose answer is not there yet is suspended: libmicrohttpd then neither reads it, nor times it
 * out, nor notices that its client left. So two things meet here and may end in any order: the request, which belongs
 * to the connection, and the call, which belongs to the backend until it answers.
 */
#include "api/api.h"

#include <assert.h>
#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/listener.h"
#include "api/routes.h"
#include "base/container.h"

#define CONNECTIONS_MAX      16u
#define WAITING_MAX          12u /* the rest is left for status */
#define CONNECTION_MEMORY    ((size_t)4096)
#define CONNECTION_TIMEOUT_S 30u
#define REQUEST_BODY_MAX     4096u
#define DETAIL_MAX           1024
#define STOPPING             "the daemon is stopping"
#define LAST_RUNS            8 /* enough to send what fits the sockets' buffers */

enum request_state {
	REQUEST_READING,  /* a small body, which nobody wants, may be on its way */
	REQUEST_ASKED,    /* the backend is being asked, on this very stack */
	REQUEST_WAITING,  /* suspended; the backend has the call */
	REQUEST_ANSWERED, /* status and response stand here */
};

struct request {
	struct api *api;
	struct MHD_Connection *connection;
	enum request_state state;
	struct api_call *call; /* NULL: not asked yet, or answered */
	unsigned status;
	struct MHD_Response *response;
	struct request *next;
};

struct api_call {
	struct request *request; /* NULL: it ended without this answer */
};

struct api {
	struct MHD_Daemon *daemon;
	struct listener listener;
	const struct api_backend *backend;
	void *agent;
	uv_poll_t poll;
	uv_timer_t timer;
	int open_handles;
	bool running; /* libmicrohttpd is on the stack */
	bool again;   /* it has something to do that no descriptor tells */
	bool closing;
	unsigned waiting;
	struct request *requests;
	void (*on_closed)(void *arg);
	void *on_closed_arg;
};

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

static void run_once(struct api *api)
{
	api->running = true;
	MHD_run(api->daemon);
	api->running = false;
}

static void run(struct api *api)
{
	if (api->closing)
		return;
	run_once(api);
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

/* From within libmicrohttpd the next run is scheduled when this one ends. */
static void run_soon(struct api *api)
{
	if (api->running)
		api->again = true;
	else
		uv_timer_start(&api->timer, on_timer, 0, 0);
}

static struct request *request_new(struct api *api, struct MHD_Connection *connection)
{
	struct request *request = calloc(1, sizeof *request);
	if (!request)
		return NULL;
	request->api = api;
	request->connection = connection;
	request->next = api->requests;
	api->requests = request;
	return request;
}

static void request_free(struct request *request)
{
	struct request **at = &request->api->requests;
	assert(request->state != REQUEST_WAITING); /* a suspended connection does not end */
	while (*at != request)
		at = &(*at)->next;
	*at = request->next;
	if (request->response)
		MHD_destroy_response(request->response);
	free(request);
}

static void request_answer(struct request *request, unsigned status, struct MHD_Response *response)
{
	struct api *api = request->api;
	bool suspended = request->state == REQUEST_WAITING;
	assert(request->state != REQUEST_ANSWERED);
	request->status = status;
	request->response = response;
	request->state = REQUEST_ANSWERED;
	if (!suspended)
		return;
	api->waiting--;
	MHD_resume_connection(request->connection);
	run_soon(api);
}

static enum MHD_Result request_send(struct request *request)
{
	if (!request->response)
		return MHD_NO; /* no memory: the connection is closed */
	return MHD_queue_response(request->connection, request->status, request->response);
}

void api_answer_response(struct api_call *call, unsigned status, struct MHD_Response *response)
{
	struct request *request = call->request;
	free(call);
	if (request) {
		request->call = NULL;
		request_answer(request, status, response);
	} else if (response) {
		MHD_destroy_response(response);
	}
}

/* Takes the memory. NULL: no memory. */
static struct MHD_Response *response_new(void *data, size_t len, const char *type)
{
	struct MHD_Response *response = MHD_create_response_from_buffer(len, data, MHD_RESPMEM_MUST_FREE);
	if (!response)
		free(data);
	else
		MHD_add_response_header(response, "Content-Type", type);
	return response;
}

/* Takes the reference. The line break at the end is for those who look with curl. */
static struct MHD_Response *json_response(json_t *json, const char *type)
{
	size_t len = json ? json_dumpb(json, NULL, 0, JSON_COMPACT) : 0;
	char *text = len ? malloc(len + 1) : NULL;
	if (text) {
		json_dumpb(json, text, len, JSON_COMPACT);
		text[len] = '\n';
	}
	json_decref(json);
	return text ? response_new(text, len + 1, type) : NULL;
}

struct MHD_Response *api_problem(unsigned status, const char *detail)
{
	json_t *json = json_pack("{s:s, s:s, s:i, s:o}", "type", "about:blank", "title",
	                         MHD_get_reason_phrase_for(status), "status", (int)status, "detail", view_text(detail));
	return json_response(json, "application/problem+json");
}

void api_answer(struct api_call *call, json_t *body)
{
	api_answer_response(call, 200, json_response(body, "application/json"));
}

void api_answer_lines(struct api_call *call, struct bytes *lines)
{
	size_t len;
	unsigned char *data = bytes_take(lines, &len);
	api_answer_response(call, 200, response_new(data, len, "application/x-ndjson"));
}

void api_answer_problem(struct api_call *call, unsigned status, const char *format, ...)
{
	char detail[DETAIL_MAX];
	va_list args;
	va_start(args, format);
	vsnprintf(detail, sizeof detail, format, args);
	va_end(args);
	api_answer_response(call, status, api_problem(status, detail));
}

/* 0, or the status that refuses the body before it is read. A length that is no number was refused already. */
static unsigned refuse_body(struct MHD_Connection *connection)
{
	const char *length = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Content-Length");
	if (MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Transfer-Encoding"))
		return 411;
	return length && strtoull(length, NULL, 10) > REQUEST_BODY_MAX ? 413 : 0;
}

static enum MHD_Result begin(struct api *api, struct MHD_Connection *connection, void **request)
{
	struct request *new = request_new(api, connection);
	if (!new)
		return MHD_NO;
	*request = new;
	unsigned refused = refuse_body(connection);
	if (!refused)
		return MHD_YES;
	request_answer(new, refused, api_problem(refused, "no request here takes a body"));
	return request_send(new);
}

static enum MHD_Result ask(struct request *request, const char *method, const char *path)
{
	struct api *api = request->api;
	if (api->closing) {
		request_answer(request, 503, api_problem(503, STOPPING));
		return request_send(request);
	}
	struct api_call *call = calloc(1, sizeof *call);
	if (!call)
		return MHD_NO;
	call->request = request;
	request->call = call;
	request->state = REQUEST_ASKED;
	routes_serve(&(struct routes_request){ .backend = api->backend,
	                                       .agent = api->agent,
	                                       .connection = request->connection,
	                                       .method = method,
	                                       .path = path,
	                                       .crowded = api->waiting >= WAITING_MAX },
	             call);
	if (request->state == REQUEST_ANSWERED)
		return request_send(request);
	request->state = REQUEST_WAITING;
	api->waiting++;
	MHD_suspend_connection(request->connection);
	return MHD_YES;
}

/* Comes when the head was read, for each piece of a body, at its end, and after a resume. */
static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *path, const char *method,
                                  const char *version, const char *body, size_t *body_len, void **request)
{
	(void)version;
	(void)body;
	struct request *known = *request;
	if (!known)
		return begin(arg, connection, request);
	if (known->state == REQUEST_ANSWERED)
		return request_send(known);
	if (*body_len > 0) {
		*body_len = 0;
		return MHD_YES;
	}
	return known->state == REQUEST_READING ? ask(known, method, path) : MHD_YES;
}

static void on_completed(void *arg, struct MHD_Connection *connection, void **request,
                         enum MHD_RequestTerminationCode code)
{
	(void)arg;
	(void)connection;
	(void)code;
	if (*request)
		request_free(*request);
	*request = NULL;
}

/* A server that was full takes new connections again only in a run after the one that closed an old one. */
static void on_connection(void *arg, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
	(void)connection;
	(void)context;
	struct api *api = arg;
	if (code == MHD_CONNECTION_NOTIFY_CLOSED)
		api->again = true;
}

static struct MHD_Daemon *daemon_new(struct api *api)
{
	return MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, on_request, api,
	                        MHD_OPTION_LISTEN_SOCKET, api->listener.fd, MHD_OPTION_CONNECTION_LIMIT,
	                        CONNECTIONS_MAX, MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_MEMORY,
	                        MHD_OPTION_CONNECTION_TIMEOUT, CONNECTION_TIMEOUT_S, MHD_OPTION_NOTIFY_COMPLETED,
	                        on_completed, NULL, MHD_OPTION_NOTIFY_CONNECTION, on_connection, api, MHD_OPTION_END);
}

static int watch(uv_loop_t *loop, struct api *api)
{
	const union MHD_DaemonInfo *info = MHD_get_daemon_info(api->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	int rc = info ? uv_poll_init(loop, &api->poll, info->epoll_fd) : -EIO;
	if (rc < 0)
		return rc;
	uv_timer_init(loop, &api->timer);
	uv_poll_start(&api->poll, UV_READABLE, on_poll);
	api->open_handles = 2;
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
	void (*on_closed)(void *) = api->on_closed;
	void *arg = api->on_closed_arg;
	free(api);
	if (on_closed)
		on_closed(arg);
}

/* The backend's calls live on without their requests. */
static void end_requests(struct api *api)
{
	for (struct request *request = api->requests; request; request = request->next) {
		if (request->state != REQUEST_WAITING)
			continue;
		request->call->request = NULL;
		request->call = NULL;
		request_answer(request, 503, api_problem(503, STOPPING));
	}
}

void api_close(struct api *api, void (*on_closed)(void *arg), void *arg)
{
	assert(!api->running && !api->closing);
	api->on_closed = on_closed;
	api->on_closed_arg = arg;
	listener_remove(&api->listener);
	end_requests(api);
	api->closing = true;
	for (int i = 0; i < LAST_RUNS && api->requests; i++)
		run_once(api);
	api->poll.data = api->timer.data = api;
	uv_close((uv_handle_t *)&api->poll, on_handle_closed);
	uv_close((uv_handle_t *)&api->timer, on_handle_closed);
	MHD_stop_daemon(api->daemon);
}
