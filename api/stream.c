/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers that come in pieces. libmicrohttpd asks the reader for bytes; where there are none the connection is
 * suspended from within, and once libmicrohttpd's run is over the owner is asked for more.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "api/request.h"
#include "api/routes.h"

#define STREAMS_MAX  4u
#define STREAM_S     30u /* that its reader may take nothing */
#define HTTP_1_0_MAX 4096

enum stream_state {
	STREAM_SENDING, /* what is here is not taken yet */
	STREAM_EMPTY,   /* suspended: the owner is to be asked for more after this run */
	STREAM_ASKED,   /* suspended: the owner writes when it has something */
	STREAM_LAST,    /* nothing follows what is here */
	STREAM_BROKEN,  /* the connection closes without the end that HTTP wants */
	STREAM_CLOSED,  /* its request is gone, and the owner is to be told */
};

struct api_stream {
	struct api *api;
	struct request *request; /* NULL: gone */
	const struct api_stream_ops *ops;
	void *arg;
	enum stream_state state;
	struct bytes piece;
	size_t sent; /* of the piece */
	struct api_stream *next;
};

static ssize_t read_stream(void *arg, uint64_t position, char *data, size_t max)
{
	struct api_stream *stream = arg;
	size_t left = stream->piece.len - stream->sent, n = left < max ? left : max;
	(void)position;
	if (stream->state == STREAM_BROKEN || stream->api->closing)
		return MHD_CONTENT_READER_END_WITH_ERROR;
	if (n > 0) {
		memcpy(data, stream->piece.data + stream->sent, n);
		stream->sent += n;
		return (ssize_t)n;
	}
	bytes_done(&stream->piece);
	stream->sent = 0;
	if (stream->state == STREAM_LAST)
		return MHD_CONTENT_READER_END_OF_STREAM;
	stream->state = STREAM_EMPTY;
	MHD_suspend_connection(stream->request->connection);
	return 0;
}

static void set_state(struct api_stream *stream, enum stream_state state)
{
	bool suspended = stream_waits(stream);
	stream->state = state;
	if (!suspended)
		return;
	MHD_resume_connection(stream->request->connection);
	api_run_soon(stream->api);
}

static unsigned count_open(const struct api *api)
{
	unsigned n = 0;
	for (const struct api_stream *stream = api->streams; stream; stream = stream->next)
		n += stream->state != STREAM_CLOSED;
	return n;
}

static struct api_stream *stream_new(struct request *request, const struct api_stream_ops *ops, void *arg)
{
	struct api_stream *stream = calloc(1, sizeof *stream);
	if (!stream)
		return NULL;
	stream->api = request->api;
	stream->request = request;
	stream->ops = ops;
	stream->arg = arg;
	stream->next = request->api->streams;
	request->api->streams = stream;
	request->stream = stream;
	return stream;
}

static void stream_free(struct api_stream *stream)
{
	struct api_stream **at = &stream->api->streams;
	while (*at != stream)
		at = &(*at)->next;
	*at = stream->next;
	bytes_done(&stream->piece);
	free(stream);
}

struct api_stream *api_answer_stream(struct api_call *call, const char *type, const struct api_stream_ops *ops,
                                     void *arg)
{
	struct request *request = call->request;
	if (!request) {
		api_answer_response(call, 0, NULL);
		return NULL;
	}
	if (count_open(request->api) >= STREAMS_MAX) {
		api_answer_problem(call, 503, "%u clients read records or objects already; try again later",
		                   STREAMS_MAX);
		return NULL;
	}
	struct api_stream *stream = stream_new(request, ops, arg);
	struct MHD_Response *response =
	        stream ? MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, HTTP_1_0_MAX, read_stream, stream, NULL)
	               : NULL;
	if (!response) {
		if (stream)
			stream_free(stream);
		request->stream = NULL;
		api_answer_problem(call, 500, NO_MEMORY);
		return NULL;
	}
	MHD_add_response_header(response, "Content-Type", type);
	MHD_set_connection_option(request->connection, MHD_CONNECTION_OPTION_TIMEOUT, STREAM_S);
	api_answer_response(call, 200, response);
	return stream;
}

void api_stream_write(struct api_stream *stream, struct bytes *piece)
{
	assert(piece->len > 0);
	if (stream->state != STREAM_ASKED) { /* its reader is gone, or this is a piece that nobody asked for */
		assert(stream->state == STREAM_BROKEN || stream->state == STREAM_CLOSED);
		bytes_done(piece);
		return;
	}
	stream->piece = *piece;
	bytes_init(piece, piece->ceiling);
	set_state(stream, STREAM_SENDING);
}

void api_stream_end(struct api_stream *stream)
{
	if (stream->state != STREAM_BROKEN && stream->state != STREAM_CLOSED)
		set_state(stream, STREAM_LAST);
}

void api_stream_break(struct api_stream *stream)
{
	if (stream->state != STREAM_CLOSED)
		set_state(stream, STREAM_BROKEN);
}

bool stream_waits(const struct api_stream *stream)
{
	return stream->state == STREAM_EMPTY || stream->state == STREAM_ASKED;
}

void stream_lose_request(struct api_stream *stream)
{
	assert(!stream_waits(stream)); /* a suspended connection does not end */
	stream->request = NULL;
	stream->state = STREAM_CLOSED;
	bytes_done(&stream->piece);
}

/* An owner may write, end or answer other calls with streams from within, but not take another stream off the list. */
void streams_tell(struct api *api)
{
	struct api_stream *next;
	for (struct api_stream *stream = api->streams; stream; stream = next) {
		next = stream->next;
		if (stream->state == STREAM_EMPTY) {
			stream->state = STREAM_ASKED;
			stream->ops->more(stream, stream->arg);
		} else if (stream->state == STREAM_CLOSED) {
			stream->ops->closed(stream->arg);
			stream_free(stream);
		}
	}
}
