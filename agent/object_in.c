/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An object of another Millrace, taken over by the buffer's worker piece by piece as it comes (agent/daemon.h). One at
 * a time. What comes to nothing leaves nothing; a daemon that stops in the middle leaves that to its next start.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/daemon.h"
#include "base/clock.h"
#include "base/container.h"
#include "base/log.h"

enum step { STEP_BEGIN, STEP_WRITE, STEP_FINISH, STEP_ABORT };

struct object_in {
	struct job job;
	struct agent *agent;
	struct api_call *call;
	char key[OBJECT_KEY_MAX];
	uint64_t bytes;
	uint8_t sha256[SHA256_SIZE];

	/* The step, and what it works on: the worker's while it is under way. */
	enum step step;
	struct bytes piece;
	bool last; /* it is the last one */
	int status;
	struct err err;
	struct batch batch;
	struct queue_view *fresh;
};

/* --- On the worker --- */

/* What all stores have makes room. */
static int begin(struct object_in *o)
{
	struct queue *q = o->agent->queue;
	int r = queue_import_begin(q, o->key, o->bytes, o->sha256, &o->err);
	struct err ignored;

	if (r != -ENOSPC)
		return r;
	do
		r = queue_expire(q, clock_wall_ms(), 0, &ignored);
	while (r == 1);
	return queue_import_begin(q, o->key, o->bytes, o->sha256, &o->err);
}

static void work(struct job *job)
{
	struct object_in *o = container_of(job, struct object_in, job);
	struct queue *q = o->agent->queue;

	switch (o->step) {
	case STEP_BEGIN:
		o->status = begin(o);
		break;
	case STEP_WRITE:
		o->status = queue_import_write(q, o->piece.data, o->piece.len, &o->err);
		break;
	case STEP_FINISH:
		o->status = queue_import_finish(q, clock_wall_ms(), &o->batch, &o->err);
		o->fresh = queue_view(q);
		break;
	case STEP_ABORT:
		queue_import_abort(q);
		break;
	}
}

/* --- On the loop --- */

static void submit(struct object_in *o, enum step step)
{
	o->step = step;
	if (step != STEP_ABORT)
		o->status = -ESHUTDOWN; /* stands where the worker gives the job back unworked */
	worker_submit(o->agent->worker, &o->job);
}

static unsigned judge(int status)
{
	switch (status) {
	case -EINVAL:
	case -EEXIST:
	case -EILSEQ:
		return 422;
	case -ENOSPC:
		return 507;
	default:
		return 503;
	}
}

/* Ends it: what came of it is in status and batch. */
static void conclude(struct object_in *o)
{
	json_t *body;

	o->agent->taking = NULL;
	bytes_done(&o->piece);
	if (o->status < 0) {
		api_answer_problem(o->call, judge(o->status), "%s", o->err.text[0] ? o->err.text : "the daemon ends");
	} else {
		body = o->status == 1 ? json_pack("{s:b}", "taken", 0)
		                      : json_pack("{s:b, s:I, s:I}", "taken", 1, "batch", (json_int_t)o->batch.id,
		                                  "records", (json_int_t)o->batch.records);
		if (body)
			api_answer(o->call, body);
		else
			api_answer_problem(o->call, 500, "the answer could not be written");
	}
	free(o);
}

static void on_piece(void *arg, struct bytes *piece, bool last)
{
	struct object_in *o = arg;

	o->piece = *piece;
	o->last = last;
	bytes_init(piece, piece->ceiling);
	submit(o, STEP_WRITE);
}

static void give_up(struct object_in *o)
{
	if (o->agent->stopping)
		conclude(o);
	else
		submit(o, STEP_ABORT);
}

static void on_gone(void *arg)
{
	struct object_in *o = arg;

	o->status = err_fail(&o->err, -ECONNRESET, "its bytes stopped coming");
	give_up(o);
}

static void ask_for_more(struct object_in *o)
{
	static const struct api_body_ops ops = { .piece = on_piece, .gone = on_gone };

	bytes_done(&o->piece);
	if (!api_body_next(o->call, &ops, o))
		on_gone(o);
}

static void note_taken(struct object_in *o)
{
	log_info("batch.imported", "source \"%s\": took over seq %llu to %llu of another Millrace, %llu bytes, %s",
	         o->batch.source, (unsigned long long)o->batch.first_seq, (unsigned long long)o->batch.last_seq,
	         (unsigned long long)o->batch.bytes, o->batch.key);
	courier_carry(o->agent->courier, o->fresh);
	o->fresh = NULL;
}

static void on_worked(struct job *job)
{
	struct object_in *o = container_of(job, struct object_in, job);
	bool ended = o->step == STEP_ABORT || (o->step == STEP_BEGIN && o->status != 0);

	if (o->step == STEP_FINISH && o->status == 0 && !o->agent->stopping)
		note_taken(o);
	queue_view_free(o->fresh);
	if (ended || o->step == STEP_FINISH || o->agent->stopping)
		conclude(o);
	else if (o->status < 0)
		give_up(o);
	else if (o->step == STEP_WRITE && o->last)
		submit(o, STEP_FINISH);
	else
		ask_for_more(o);
}

void object_in(struct agent *a, const struct api_object *object, struct api_call *call)
{
	struct object_in *o = a->taking || a->stopping ? NULL : calloc(1, sizeof *o);

	if (!o) {
		if (a->taking)
			api_answer_problem(call, 409,
			                   "another object is being taken over; try again when that is done");
		else
			api_answer_problem(call, 503, a->stopping ? "the daemon ends" : "no memory");
		return;
	}
	a->taking = o;
	o->job = (struct job){ .work = work, .done = on_worked };
	o->agent = a;
	o->call = call;
	snprintf(o->key, sizeof o->key, "%s", object->key);
	o->bytes = object->bytes;
	memcpy(o->sha256, object->sha256, SHA256_SIZE);
	submit(o, STEP_BEGIN);
}
