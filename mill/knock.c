/* SPDX-License-Identifier: Apache-2.0 */
#include "mill/knock.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/container.h"

/* Freed when both of its handles are done with: a resolver cannot be stopped, only forgotten. */
struct knock {
	uv_getaddrinfo_t lookup;
	uv_tcp_t tcp;
	uv_connect_t connect;
	struct alarm deadline;
	void (*on_end)(void *arg, int status); /* NULL: it was told, or is to be told nobody */
	void *arg;
	bool looking, open;
};

static void settle(struct knock *k)
{
	if (!k->looking && !k->open)
		free(k);
}

static void on_closed(uv_handle_t *handle)
{
	struct knock *k = handle->data;

	k->open = false;
	settle(k);
}

static void let_go(struct knock *k)
{
	alarm_cancel(&k->deadline);
	if (k->looking)
		uv_cancel((uv_req_t *)&k->lookup);
	if (k->open && !uv_is_closing((uv_handle_t *)&k->tcp))
		uv_close((uv_handle_t *)&k->tcp, on_closed);
}

static void end(struct knock *k, int status)
{
	void (*on_end)(void *arg, int status) = k->on_end;

	k->on_end = NULL;
	let_go(k);
	if (on_end)
		on_end(k->arg, status);
}

static void on_connected(uv_connect_t *request, int status)
{
	end(request->data, status);
}

static void on_found(uv_getaddrinfo_t *request, int status, struct addrinfo *found)
{
	struct knock *k = request->data;

	k->looking = false;
	if (k->on_end && status == 0)
		status = uv_tcp_connect(&k->connect, &k->tcp, found->ai_addr, on_connected);
	uv_freeaddrinfo(found);
	if (k->on_end && status < 0)
		end(k, status == UV_EAI_NONAME ? -EHOSTUNREACH : status);
	settle(k);
}

static void on_deadline(struct alarm *alarm)
{
	end(container_of(alarm, struct knock, deadline), -ETIMEDOUT);
}

int knock_start(uv_loop_t *loop, struct alarms *alarms, const char *host, uint16_t port, int64_t timeout_ms,
                void (*on_end)(void *arg, int status), void *arg, struct knock **ret_knock)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
	struct knock *k = calloc(1, sizeof *k);
	char service[8];
	int r;

	if (!k)
		return -ENOMEM;
	k->on_end = on_end;
	k->arg = arg;
	k->lookup.data = k->connect.data = k;
	snprintf(service, sizeof service, "%u", port);
	r = uv_tcp_init(loop, &k->tcp);
	if (r < 0) {
		free(k);
		return r;
	}
	k->tcp.data = k;
	k->open = true;
	r = uv_getaddrinfo(loop, &k->lookup, on_found, host, service, &hints);
	if (r < 0) {
		k->on_end = NULL;
		let_go(k);
		return r;
	}
	k->looking = true;
	k->deadline.on_ring = on_deadline;
	alarm_set(alarms, &k->deadline, clock_mono_ms() + timeout_ms);
	*ret_knock = k;
	return 0;
}

void knock_cancel(struct knock *k)
{
	if (!k)
		return;
	k->on_end = NULL;
	let_go(k);
}
