/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker writes to a folder, or hashes for an s3, which is given the object by a PUT without a condition then. The
 * deposit ends when its worker is closed.
 */
#include "agent/deposit.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/s3_call.h"
#include "base/clock.h"
#include "base/container.h"
#include "base/worker.h"
#include "buffer/store_file.h"

struct deposit {
	struct deposit_request request;
	char key[OBJECT_KEY_MAX];
	struct worker *worker;
	bool closing;                 /* the worker is */
	void (*on_closed)(void *arg); /* set: cancelled */
	void *closed_arg;

	/* Written by the job. */
	struct job job;
	int status;
	struct err err;
	uint8_t sha256[SHA256_SIZE];

	struct store *folder; /* NULL: the store is an s3 */
	struct s3 *s3;
	struct s3_call call;
};

/* --- The end --- */

static void free_deposit(struct deposit *d)
{
	if (d->folder)
		d->folder->ops->free(d->folder);
	s3_free(d->s3);
	free(d);
}

static void on_worker_closed(void *arg)
{
	struct deposit *d = arg;
	struct deposit_request request = d->request;
	void (*on_closed)(void *arg) = d->on_closed;
	void *closed_arg = d->closed_arg;
	struct err err = d->err;
	int status = d->status;

	if (!on_closed && status < 0)
		err_prefix(&err, "store \"%s\"", request.store->name);
	free_deposit(d);
	if (on_closed)
		on_closed(closed_arg);
	else
		request.on_end(request.arg, status, &err);
}

static void close_deposit(struct deposit *d)
{
	if (!d->folder)
		s3_call_drop(&d->call);
	if (!d->closing)
		worker_close(d->worker, on_worker_closed, d);
	d->closing = true;
}

static void end(struct deposit *d, int status)
{
	d->status = status;
	close_deposit(d);
}

/* --- An s3 --- */

static void send_put(struct deposit *d);

static ssize_t on_read(void *arg, void *buffer, size_t size)
{
	struct s3_call *call = arg;
	const struct bytes *data = container_of(call, struct deposit, call)->request.data;
	size_t left = data->len - call->sent, n = left < size ? left : size;

	memcpy(buffer, data->data + call->sent, n);
	call->sent += n;
	return (ssize_t)n;
}

static int judge(struct s3_call *call, enum s3_verdict verdict, const struct s3_answer *answer)
{
	if (verdict == S3_DONE && answer->header(answer->arg, "ETag"))
		return 0;
	if (verdict == S3_DONE)
		return err_fail(&call->err, -EPROTO,
		                "what answers there is no S3: it takes an object and gives it no ETag");
	if (!call->err.text[0])
		err_fail(&call->err, 0, "an answer that does not fit: HTTP %ld", answer->status);
	if (verdict == S3_FOREIGN)
		return -EPROTO;
	return verdict == S3_DENIED ? -EACCES : -EIO;
}

static void on_judged(struct s3_call *call, enum s3_verdict verdict, const struct s3_answer *answer)
{
	struct deposit *d = container_of(call, struct deposit, call);
	int r;

	if (verdict == S3_SKEWED) {
		send_put(d);
		return;
	}
	r = judge(call, verdict, answer);
	d->err = call->err;
	end(d, r);
}

static const char *content_type(const char *key)
{
	const char *dot = strrchr(key, '.');

	return dot && strcmp(dot, ".json") == 0 ? "application/json" : "application/gzip";
}

static void send_put(struct deposit *d)
{
	struct s3_request request;
	int r = s3_put_small(d->s3, d->key, d->sha256, content_type(d->key), clock_wall_ms(), &request);

	r = s3_call_send(&d->call, r, &request, d->request.data->len);
	if (r == 0)
		return;
	d->err = d->call.err;
	end(d, r);
}

/* --- The worker's job --- */

static void on_work(struct job *job)
{
	struct deposit *d = container_of(job, struct deposit, job);
	const struct bytes *data = d->request.data;
	struct sha256 hash;

	if (d->folder) {
		d->status = store_file_replace(d->folder, d->key, data->data, data->len, &d->err);
		return;
	}
	sha256_init(&hash);
	sha256_add(&hash, data->data, data->len);
	sha256_finish(&hash, d->sha256);
}

static void on_worked(struct job *job)
{
	struct deposit *d = container_of(job, struct deposit, job);

	if (d->closing)
		return;
	if (d->folder)
		end(d, d->status);
	else
		send_put(d);
}

/* --- Public functions --- */

static int open_store(struct deposit *d)
{
	const struct config_store *store = d->request.store;
	int r;

	if (store->kind == &store_kind_file) {
		const struct store_file_settings *settings = store->settings;

		d->folder = store_file_new(settings->path, false);
		return d->folder ? 0 : -ENOMEM;
	}
	r = s3_new(store->settings, store->access_key, store->secret_key, &d->s3);
	if (r < 0)
		return r;
	s3_call_init(&d->call, d->request.http, store->settings, d->s3);
	d->call.on_judged = on_judged;
	d->call.on_read = on_read;
	return 0;
}

int deposit_start(const struct deposit_request *request, struct deposit **ret_deposit)
{
	struct deposit *d = calloc(1, sizeof *d);
	int r;

	if (!d)
		return -ENOMEM;
	assert(strlen(request->key) < sizeof d->key);
	d->request = *request;
	snprintf(d->key, sizeof d->key, "%s", request->key);
	r = open_store(d);
	if (r == 0)
		r = worker_start(request->loop, "deposit", &d->worker);
	if (r < 0) {
		free_deposit(d);
		return r;
	}
	d->job = (struct job){ .work = on_work, .done = on_worked };
	worker_submit(d->worker, &d->job);
	*ret_deposit = d;
	return 0;
}

void deposit_cancel(struct deposit *d, void (*on_closed)(void *arg), void *arg)
{
	d->on_closed = on_closed;
	d->closed_arg = arg;
	close_deposit(d);
}
