/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection, its one request, and what becomes of that: private to api/. Each answer closes its connection, so the
 * request lives as long. api.c serves connections, call.c answers calls, stream.c feeds answers that come in pieces,
 * body.c takes bodies that do.
 * Loop thread only.
 */
#ifndef API_REQUEST_H
#define API_REQUEST_H

#include <microhttpd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/api.h"
#include "api/listener.h"

#define STOPPING  "the daemon is stopping"
#define NO_MEMORY "there is not enough memory for the answer"

enum request_state {
	REQUEST_READING,  /* the head, or a small body that nobody wants, may be on its way */
	REQUEST_ASKED,    /* the backend is being asked, on this very stack */
	REQUEST_WAITING,  /* suspended; the backend has the call */
	REQUEST_TAKING,   /* the backend has the call, and waits for a piece of the body */
	REQUEST_ANSWERED, /* status and response stand here */
	REQUEST_SHUT,     /* came to nothing: libmicrohttpd closes it in its next run */
};

struct request {
	struct api *api;
	struct MHD_Connection *connection;
	int fd;
	uint64_t begun_ms; /* of the loop's time: when the connection was taken */
	enum request_state state;
	struct api_call *call;     /* NULL: not asked yet, or answered */
	struct api_stream *stream; /* NULL: the answer comes at once */
	unsigned status;
	struct MHD_Response *response;
	size_t bytes; /* of the answer, counted in api->unsent */

	/* Of a body that somebody wants. */
	uint64_t left; /* bytes that were not read yet */
	struct bytes piece;
	const struct api_body_ops *body;
	void *body_arg;
	struct request *next;
};

struct api_call {
	struct api *api;         /* NULL: it is closed */
	struct request *request; /* NULL: it ended without this answer */
	struct api_call *next;
};

struct api {
	struct MHD_Daemon *daemon;
	struct listener listener;
	const struct api_backend *backend;
	void *agent;
	uv_poll_t poll;
	uv_timer_t timer; /* libmicrohttpd's next run */
	uv_timer_t sweep; /* looks after connections, while there are any */
	int open_handles;
	bool running; /* its run is on the stack, and schedules the next one at its end */
	bool again;   /* libmicrohttpd has something to do that no descriptor tells */
	bool closing;
	struct request *requests; /* the newest first */
	unsigned n_requests, waiting;
	size_t unsent;          /* bytes of answers that are not on their way as a whole */
	struct api_call *calls; /* those that the backend has */
	unsigned n_calls;
	struct api_stream *streams;
	void (*on_closed)(void *arg);
	void *on_closed_arg;
};

/* libmicrohttpd is to run after a resume. */
void api_run_soon(struct api *api);

/* Takes the response (NULL: no memory; the connection closes without an answer), and resumes what was suspended. */
void request_answer(struct request *request, unsigned status, struct MHD_Response *response);

/* It waits for its answer, or for a piece of its body to be taken: suspended. */
void request_suspend(struct request *request);

/* It goes on at libmicrohttpd's next run. */
void request_resume(struct request *request);

/* More of the body that the backend waits for, as libmicrohttpd has it: len becomes what was left of it. */
void body_take(struct request *request, const char *data, size_t *len);

/* The connection ends while the backend waits. */
void body_lose(struct request *request);

/* NULL: no memory. */
struct api_call *call_new(struct request *request);

/* The request ends without the backend's answer. */
void call_detach(struct api_call *call);

/* Whether it waits, suspended, for its owner to write. */
bool stream_waits(const struct api_stream *stream);

/* Its request is gone: on_closed is due. */
void stream_lose_request(struct api_stream *stream);

/* Tells the owners of streams what libmicrohttpd's last run brought. */
void streams_tell(struct api *api);

#endif
