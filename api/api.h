/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The API: HTTP/1.1 with JSON on a Unix socket (docs/api.md), by libmicrohttpd driven from our loop. It knows requests
 * and answers; what they are about comes from agent/ through api_backend. Loop thread only.
 *
 * All is bounded: connections, the size of a request, calls that wait, streams, the bytes of answers that nobody has
 * read yet, and how long a connection may keep silent. Every answer closes its connection. A client that leaves while
 * its call waits is noticed within a second or two, and its place is free again.
 */
#ifndef API_API_H
#define API_API_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

#include "api/view.h"
#include "base/bytes.h"
#include "base/err.h"
#include "base/sha256.h"
#include "mill/mill.h"

struct api;
struct api_call; /* one request that waits for its answer */

/* A PUT's. */
struct api_object {
	const char *key;
	uint64_t bytes; /* of its body */
	uint8_t sha256[SHA256_SIZE];
};

/*
 * Implemented by agent/. What is answered from memory returns at once; the others take the call and answer it exactly
 * once, now or later, with one of the api_answer functions. A client that left in between is no business of theirs: the
 * call stays valid until it is answered.
 */
struct api_backend {
	/* Fills a zeroed view; strings are borrowed until the loop goes on; view_done frees the arrays. 0 or -ENOMEM.
	 */
	int (*status)(void *agent, struct status_view *ret_view);

	/* The configuration as docs/api.md shows it: a new reference; NULL: no memory. */
	json_t *(*config)(void *agent);

	/* The newest first; or, waiting, those that some store has not, the oldest first, with an id above `after`. */
	void (*batches)(void *agent, bool waiting, int64_t after, struct api_call *call);
	/* The bytes of a batch's object: answered with api_answer_stream. */
	void (*object)(void *agent, int64_t batch, struct api_call *call);
	/* An object of another Millrace, whose bytes come by api_body_next; borrowed until it returns. */
	void (*import)(void *agent, const struct api_object *object, struct api_call *call);
	/* The last n records, then, with follow, those that come: answered with api_answer_stream. */
	void (*records)(void *agent, const char *source, size_t last, bool follow, struct api_call *call);
	void (*rejected)(void *agent, struct api_call *call);
	void (*poll)(void *agent, const char *source, struct api_call *call);
	void (*flush)(void *agent, bool wait, struct api_call *call);

	/* since_day: UTC days since 1970; INT64_MIN: all. repair: what is missing is sent again. One at a time. */
	void (*audit)(void *agent, int64_t since_day, bool repair, struct api_call *call);
	void (*retry)(void *agent, int64_t batch, struct api_call *call);

	/* Of this moment; freed with mill_view_free. NULL: no memory. */
	struct mill_view *(*mill)(void *agent);
	/* The newest RUNS_SHOWN of all jobs, answered with view_runs; or one, by its id, with view_run. */
	void (*runs)(void *agent, struct api_call *call);
	void (*run)(void *agent, const char *run, struct api_call *call);
	/* As mill.h says; both err and the result become a problem. */
	int (*wake)(void *agent, const char *machine, struct err *err);
	int (*start)(void *agent, const char *job, struct err *err);
	int (*cancel)(void *agent, const char *run, struct err *err);
	int (*retry_run)(void *agent, const char *run, struct err *err);
};

/*
 * Listens on the socket at path, mode 0660; a left-over socket that nobody listens on is replaced. 0, -EADDRINUSE
 * (somebody answers there), -EEXIST (something that is no socket, left alone), -ENAMETOOLONG, or what the system says.
 * backend and agent are borrowed for the API's life.
 */
int api_start(uv_loop_t *loop, const char *path, const struct api_backend *backend, void *agent, struct api **ret_api,
              struct err *err);

/*
 * Ends open calls with 503, removes the socket; on_closed comes when every handle is closed. Not from within a backend
 * function. A call that the backend still has stays its own: answering it afterwards, even after on_closed, frees it.
 */
void api_close(struct api *api, void (*on_closed)(void *arg), void *arg);

/* 200 with this JSON, whose reference is taken. */
void api_answer(struct api_call *call, json_t *body);

#define API_LINES "application/x-ndjson"
#define API_GZIP  "application/gzip"

/*
 * 200 with this type, piece by piece at the pace of who reads: an answer that takes its time, or has no end.
 * The stream owns itself; each of the two calls back from the loop, never from within a function of this header.
 */
struct api_stream;

struct api_stream_ops {
	/* All that was written is on its way: give the next piece, now or later, or end. */
	void (*more)(struct api_stream *stream, void *arg);

	/* Exactly once, at the end of every stream: sent to its end, its reader gone or too slow, or the API closing.
	 * The stream is gone when this returns. */
	void (*closed)(void *arg);
};

/*
 * NULL: it came to nothing, and the call is answered: no memory, as many streams as may be at a time, or its client has
 * left. type and ops are borrowed for the stream's life.
 */
struct api_stream *api_answer_stream(struct api_call *call, const char *type, const struct api_stream_ops *ops,
                                     void *arg);

/*
 * Once after each `more`; takes the bytes (not none) and leaves `piece` empty. They stay in memory until
 * they are read, beside what all other answers may take: so how long a piece may be is the owner's to bound.
 */
void api_stream_write(struct api_stream *stream, struct bytes *piece);

/* Nothing follows what was written. */
void api_stream_end(struct api_stream *stream);

/* What should have followed cannot be had: the answer breaks off, which its reader can tell from an end. */
void api_stream_break(struct api_stream *stream);

/*
 * A call's body, in pieces of up to API_PIECE bytes at the pace of who takes them: nothing of it is read before it is
 * asked for, and one piece at a time is in memory. What is answered before the end reaches the client once it has sent
 * the rest, which goes nowhere.
 */
#define API_PIECE (512 * 1024)

struct api_body_ops {
	/* What was asked for: takes the bytes and leaves `piece` empty. last: nothing follows. */
	void (*piece)(void *arg, struct bytes *piece, bool last);

	/* Instead: the client has left, or sent too slowly, or the API closes (from within api_close): nothing more
	 * comes. The call is to be answered all the same. */
	void (*gone)(void *arg);
};

/* Asks for the next piece, from within `piece` too. false: nothing more will come, as with `gone`. ops are borrowed. */
bool api_body_next(struct api_call *call, const struct api_body_ops *ops, void *arg);

/* A problem (RFC 9457): status and what happened, with the remedy. */
void api_answer_problem(struct api_call *call, unsigned status, const char *format, ...)
        __attribute__((format(printf, 3, 4)));

#endif
