/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records for those who read them over the API, page by page from the buffer at the reader's pace: whoever reads
 * slowly, or follows for weeks, costs one page of memory. What a page brings comes from the buffer's worker
 * (agent/daemon.h).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/daemon.h"
#include "base/container.h"
#include "buffer/chunk.h"

#define PAGE (128 * 1024) /* bytes of lines, about */

struct reading {
	struct job job;
	struct agent *agent;
	struct api_stream *stream; /* NULL: the reader is gone */
	char source[UNITS_NAME_MAX];
	uint64_t next, until; /* seqs; until: where it ends, UINT64_MAX: never */
	bool wanted;          /* the stream asks for more */
	bool working;         /* the job is the worker's: what follows is too */
	uint64_t read_to;
	int status;
	struct err err;
	struct bytes lines;
	struct reading *following;
};

static void reading_free(struct reading *reading)
{
	struct reading **at = &reading->agent->readings;

	while (*at != reading)
		at = &(*at)->following;
	*at = reading->following;
	bytes_done(&reading->lines);
	free(reading);
}

static void work(struct job *job)
{
	struct reading *r = container_of(job, struct reading, job);

	r->status = queue_read(r->agent->queue, r->source, r->next, PAGE, &r->lines, &r->read_to, &r->err);
}

static uint64_t last_seq(const struct queue_view *view, const char *source)
{
	for (size_t i = 0; i < view->n_sources; i++)
		if (strcmp(view->sources[i].source, source) == 0)
			return view->sources[i].records;
	return 0;
}

/* The built-in source never goes. */
static bool may_bring_more(const struct agent *a, const char *source)
{
	return agent_has_source(a, source) || strcmp(source, UNITS_POLLS) == 0;
}

/* Reads on where there is something to read and somebody who wants it. */
static void go_on(struct reading *r, const struct queue_view *view)
{
	if (r->working || !r->wanted || !r->stream)
		return;
	if (r->next > r->until || r->agent->stopping) {
		r->wanted = false;
		if (r->agent->stopping)
			api_stream_break(r->stream);
		else
			api_stream_end(r->stream);
		return;
	}
	if (r->next > last_seq(view, r->source))
		return;
	r->working = true;
	r->status = -ECANCELED; /* stands where the worker gives the job back unworked */
	r->agent->reads++;
	worker_submit(r->agent->worker, &r->job);
}

static void on_worked(struct job *job)
{
	struct reading *r = container_of(job, struct reading, job);
	bool moved;

	r->working = false;
	r->agent->reads--;
	if (!r->stream) {
		reading_free(r);
		return;
	}
	if (r->status < 0) {
		r->wanted = false;
		api_stream_break(r->stream);
		return;
	}
	moved = r->read_to > r->next;
	r->next = r->read_to;
	if (r->lines.len > 0) {
		r->wanted = false;
		api_stream_write(r->stream, &r->lines);
	} else if (moved) {
		go_on(r, courier_view(r->agent->courier));
	}
}

static void on_more(struct api_stream *stream, void *arg)
{
	struct reading *r = arg;

	r->stream = stream;
	r->wanted = true;
	go_on(r, courier_view(r->agent->courier));
}

static void on_closed(void *arg)
{
	struct reading *r = arg;

	r->stream = NULL;
	if (!r->working)
		reading_free(r);
}

void records_note(struct agent *a, const struct queue_view *view)
{
	for (struct reading *r = a->readings; r; r = r->following)
		go_on(r, view);
}

void records_end_gone(struct agent *a)
{
	const struct queue_view *view = courier_view(a->courier);

	for (struct reading *r = a->readings; r; r = r->following) {
		if (r->until != UINT64_MAX || may_bring_more(a, r->source))
			continue;
		r->until = last_seq(view, r->source);
		go_on(r, view);
	}
}

void records_answer(struct agent *a, const char *source, size_t last, bool follow, struct api_call *call)
{
	static const struct api_stream_ops ops = { .more = on_more, .closed = on_closed };
	uint64_t seq = last_seq(courier_view(a->courier), source);
	struct reading *r = calloc(1, sizeof *r);

	if (!r) {
		api_answer_problem(call, 503, "no memory");
		return;
	}
	r->job = (struct job){ .work = work, .done = on_worked };
	r->agent = a;
	r->next = seq > last ? seq - last + 1 : 1;
	r->until = follow && may_bring_more(a, source) ? UINT64_MAX : seq;
	snprintf(r->source, sizeof r->source, "%s", source);
	bytes_init(&r->lines, 2 * CHUNK_CEILING);
	r->following = a->readings;
	a->readings = r;
	r->stream = api_answer_stream(call, API_LINES, &ops, r);
	if (!r->stream)
		reading_free(r);
}
