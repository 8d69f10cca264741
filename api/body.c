/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bodies that somebody wants. libmicrohttpd brings a few KB at a time; they are gathered into pieces, and while the
 * backend is at one the connection is suspended and nothing more is read.
 */
#include <assert.h>

#include "api/request.h"

static bool is_full(const struct request *request)
{
	return request->piece.len == API_PIECE || request->left == 0;
}

/* As when the request was asked: the backend may answer from within. */
static void give(struct request *request)
{
	request->state = REQUEST_ASKED;
	request->body->piece(request->body_arg, &request->piece, request->left == 0);
	if (request->state == REQUEST_ASKED)
		request_suspend(request);
}

void body_take(struct request *request, const char *data, size_t *len)
{
	size_t room = API_PIECE - request->piece.len, n = *len < room ? *len : room;
	assert(n <= request->left);
	if (bytes_add(&request->piece, data, n) < 0) {
		body_lose(request); /* no memory */
		request_answer(request, 503, NULL);
		return;
	}
	request->left -= n;
	*len -= n;
	if (is_full(request))
		give(request);
}

void body_lose(struct request *request)
{
	call_detach(request->call);
	request->body->gone(request->body_arg);
}

bool api_body_next(struct api_call *call, const struct api_body_ops *ops, void *arg)
{
	struct request *request = call->request;
	if (!request || request->left == 0)
		return false;
	bool suspended = request->state == REQUEST_WAITING;
	assert(suspended || request->state == REQUEST_ASKED);
	request->body = ops;
	request->body_arg = arg;
	request->begun_ms = uv_now(request->api->timer.loop);
	request->state = REQUEST_TAKING;
	if (suspended) {
		request->api->waiting--;
		request_resume(request);
	}
	return true;
}
