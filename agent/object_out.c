/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A batch's object for who reads it over the API, part by part from the buffer at the reader's pace (agent/daemon.h).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/daemon.h"
#include "base/container.h"
#include "buffer/pack.h"

struct sending {
	struct job job;
	struct agent *agent;
	struct api_call *call;     /* until the stream is there */
	struct api_stream *stream; /* NULL: the reader is gone */
	int64_t id;
	bool working; /* the job is the worker's, and what follows too */
	int part;
	uint64_t read;
	struct batch batch;
	struct bytes data;
	int status;
	struct err err;
};

static void sending_free(struct sending *s)
{
	bytes_done(&s->data);
	free(s);
}

/* First the batch, then its parts. */
static void work(struct job *job)
{
	struct sending *s = container_of(job, struct sending, job);

	if (s->call)
		s->status = queue_find_batch(s->agent->queue, s->id, &s->batch, &s->err);
	else
		s->status = queue_read_part(s->agent->queue, s->id, s->part, &s->data, &s->err);
}

static void submit(struct sending *s)
{
	s->working = true;
	s->status = -ECANCELED; /* stands where the worker gives the job back unworked */
	s->agent->reads++;
	worker_submit(s->agent->worker, &s->job);
}

static void on_more(struct api_stream *stream, void *arg)
{
	struct sending *s = arg;

	s->stream = stream;
	if (s->read >= s->batch.bytes)
		api_stream_end(stream);
	else if (s->agent->stopping)
		api_stream_break(stream);
	else
		submit(s);
}

static void on_closed(void *arg)
{
	struct sending *s = arg;

	s->stream = NULL;
	if (!s->working)
		sending_free(s);
}

static const struct api_stream_ops ops = { .more = on_more, .closed = on_closed };

static void on_found(struct sending *s)
{
	struct api_call *call = s->call;

	s->call = NULL;
	if (s->status == 0)
		s->stream = api_answer_stream(call, API_GZIP, &ops, s);
	else if (s->status == -ENOENT)
		api_answer_problem(call, 404, "%s", s->err.text);
	else
		api_answer_problem(call, 503, "%s", s->err.text);
	if (!s->stream)
		sending_free(s);
}

static void on_part(struct sending *s)
{
	if (!s->stream) {
		sending_free(s);
	} else if (s->status < 0) {
		api_stream_break(s->stream); /* it was deleted meanwhile, or is damaged */
	} else {
		s->part++;
		s->read += s->data.len;
		api_stream_write(s->stream, &s->data);
	}
}

static void on_worked(struct job *job)
{
	struct sending *s = container_of(job, struct sending, job);

	s->working = false;
	s->agent->reads--;
	if (s->call)
		on_found(s);
	else
		on_part(s);
}

void object_out(struct agent *a, int64_t batch, struct api_call *call)
{
	struct sending *s = calloc(1, sizeof *s);

	if (!s) {
		api_answer_problem(call, 503, "no memory");
		return;
	}
	s->job = (struct job){ .work = work, .done = on_worked };
	s->agent = a;
	s->call = call;
	s->id = batch;
	bytes_init(&s->data, PACK_PART);
	submit(s);
}
