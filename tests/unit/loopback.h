/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tiny HTTP server on the test's own loop: answers each request with raw bytes chosen by its path, so that a test can
 * send what no proper server would. Loopback only, a port of the kernel's choice.
 */
#ifndef TESTS_UNIT_LOOPBACK_H
#define TESTS_UNIT_LOOPBACK_H

#include <arpa/inet.h>
#include <assert.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "base/container.h"

struct loopback_route {
	const char *path;   /* NULL ends the table */
	const char *answer; /* raw; NULL: none, the request hangs */
	enum {
		LOOPBACK_KEEP,
		LOOPBACK_CLOSE,
		LOOPBACK_RESET,
		LOOPBACK_FLOOD,       /* repeats it until closed */
		LOOPBACK_EARLY,       /* answers before the request's body */
		LOOPBACK_EARLY_CLOSE, /* and breaks the connection, as a close with unread bytes does */
		LOOPBACK_DEAF,        /* reads nothing behind the request's head */
	} then;
};

struct loopback_peer;

struct loopback {
	uv_tcp_t listener;
	int port;
	const struct loopback_route *routes; /* may be changed at any time */
	unsigned connections, requests;
	unsigned open;              /* connections that are not closed yet */
	struct loopback_peer *last; /* who asked last */
	char last_head[4096];       /* its request */
	unsigned char *last_body;   /* and what came of its body */
	size_t last_body_len;
};

struct loopback_peer {
	uv_tcp_t tcp;
	uv_write_t write;
	struct loopback *server;
	const struct loopback_route *route;
	char head[4096];
	size_t len;
	size_t body_left; /* bytes of the request's body that are still to come */
};

static void loopback_on_peer_closed(uv_handle_t *handle)
{
	struct loopback_peer *peer = container_of(handle, struct loopback_peer, tcp);
	peer->server->open--;
	free(peer);
}

static void loopback_end(struct loopback_peer *peer)
{
	if (!uv_is_closing((uv_handle_t *)&peer->tcp))
		uv_close((uv_handle_t *)&peer->tcp, loopback_on_peer_closed);
}

/* A connection that breaks, where a close would end it. */
static inline void loopback_reset(struct loopback_peer *peer)
{
	uv_tcp_close_reset(&peer->tcp, loopback_on_peer_closed);
}

static void loopback_answer(struct loopback_peer *peer);

static void loopback_on_written(uv_write_t *write, int status)
{
	struct loopback_peer *peer = container_of(write, struct loopback_peer, write);
	if (status < 0 || peer->route->then == LOOPBACK_CLOSE || peer->route->then == LOOPBACK_EARLY_CLOSE)
		loopback_end(peer);
	else if (peer->route->then == LOOPBACK_RESET)
		loopback_reset(peer);
	else if (peer->route->then == LOOPBACK_FLOOD)
		loopback_answer(peer);
}

static void loopback_answer(struct loopback_peer *peer)
{
	uv_buf_t buf = uv_buf_init((char *)peer->route->answer, (unsigned)strlen(peer->route->answer));
	uv_write(&peer->write, (uv_stream_t *)&peer->tcp, &buf, 1, loopback_on_written);
}

static void loopback_add_body(struct loopback_peer *peer, const char *data, size_t len)
{
	struct loopback *server = peer->server;
	assert(len <= peer->body_left);
	peer->body_left -= len;
	if (len == 0 || uv_is_closing((uv_handle_t *)&server->listener))
		return;
	server->last_body = realloc(server->last_body, server->last_body_len + len);
	assert(server->last_body);
	memcpy(server->last_body + server->last_body_len, data, len);
	server->last_body_len += len;
}

static const struct loopback_route loopback_lost = { NULL, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 0 };

/* The head of a request is there, and perhaps the beginning of its body. */
static void loopback_request(struct loopback_peer *peer)
{
	struct loopback *server = peer->server;
	const struct loopback_route *route = server->routes;
	server->requests++;
	server->last = peer;
	const char *body = strstr(peer->head, "\r\n\r\n") + 4;
	size_t head_len = (size_t)(body - peer->head);
	memcpy(server->last_head, peer->head, head_len);
	server->last_head[head_len] = '\0';
	const char *length = strstr(server->last_head, "\r\nContent-Length: ");
	peer->body_left = length ? strtoul(length + strlen("\r\nContent-Length: "), NULL, 10) : 0;
	server->last_body_len = 0;
	loopback_add_body(peer, body, peer->len - head_len);
	const char *path = strchr(peer->head, ' ') + 1;
	size_t len = strcspn(path, " ?");
	while (route->path && (strlen(route->path) != len || memcmp(route->path, path, len) != 0))
		route++;
	peer->route = route->path ? route : &loopback_lost;
	peer->len = 0;
	if (peer->route->then == LOOPBACK_DEAF || peer->route->then == LOOPBACK_EARLY_CLOSE)
		uv_read_stop((uv_stream_t *)&peer->tcp);
	if (peer->route->answer &&
	    (peer->body_left == 0 || peer->route->then == LOOPBACK_EARLY || peer->route->then == LOOPBACK_EARLY_CLOSE))
		loopback_answer(peer);
}

static void loopback_on_alloc(uv_handle_t *handle, size_t wanted, uv_buf_t *buf)
{
	(void)wanted;
	struct loopback_peer *peer = container_of(handle, struct loopback_peer, tcp);
	static char body[65536];
	if (peer->body_left > 0)
		*buf = uv_buf_init(body, sizeof body);
	else
		*buf = uv_buf_init(peer->head + peer->len, (unsigned)(sizeof peer->head - 1 - peer->len));
}

static void loopback_on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct loopback_peer *peer = container_of(stream, struct loopback_peer, tcp);
	if (n < 0) {
		loopback_end(peer);
		return;
	}
	if (peer->body_left > 0) {
		loopback_add_body(peer, buf->base, (size_t)n);
		if (peer->body_left == 0 && peer->route->answer && peer->route->then != LOOPBACK_EARLY)
			loopback_answer(peer);
		return;
	}
	peer->len += (size_t)n;
	peer->head[peer->len] = '\0';
	if (strstr(peer->head, "\r\n\r\n")) {
		loopback_request(peer);
	} else if (peer->head[0] == 0x16) { /* a TLS greeting is answered as well, in plain text */
		peer->route = &loopback_lost;
		loopback_answer(peer);
	}
}

static void loopback_on_connection(uv_stream_t *listener, int status)
{
	assert(status == 0);
	struct loopback_peer *peer = calloc(1, sizeof *peer);
	assert(peer);
	peer->server = container_of(listener, struct loopback, listener);
	peer->server->connections++;
	peer->server->open++;
	uv_tcp_init(listener->loop, &peer->tcp);
	uv_accept(listener, (uv_stream_t *)&peer->tcp);
	uv_read_start((uv_stream_t *)&peer->tcp, loopback_on_alloc, loopback_on_read);
}

static inline void loopback_start(uv_loop_t *loop, struct loopback *server, const struct loopback_route *routes)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	int len = sizeof address;
	memset(server, 0, sizeof *server);
	server->routes = routes;
	uv_tcp_init(loop, &server->listener);
	int r = uv_tcp_bind(&server->listener, (struct sockaddr *)&address, 0);
	assert(r == 0);
	r = uv_listen((uv_stream_t *)&server->listener, 16, loopback_on_connection);
	assert(r == 0);
	r = uv_tcp_getsockname(&server->listener, (struct sockaddr *)&address, &len);
	assert(r == 0);
	server->port = ntohs(address.sin_port);
}

/* Connections end when their clients close them. */
static inline void loopback_stop(struct loopback *server)
{
	uv_close((uv_handle_t *)&server->listener, NULL);
	free(server->last_body);
	server->last_body = NULL;
}

/* Borrowed until the next call but three. */
static inline const char *loopback_url(const struct loopback *server, const char *path)
{
	static char urls[4][256];
	static unsigned at;
	char *url = urls[at++ % 4];
	snprintf(url, sizeof urls[0], "http://127.0.0.1:%d%s", server->port, path);
	return url;
}

/* One turn of the loop that cannot block for good: what a test waits for may come with a timer, before the loop polls.
 */
static inline void loopback_turn(uv_loop_t *on)
{
	uv_run(on, UV_RUN_NOWAIT);
	poll(NULL, 0, 1);
}

#endif
