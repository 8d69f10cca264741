/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/staging.h"

#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/container.h"

#define RETRY_MS 1000

static void work(struct job *job)
{
	struct staging *s = container_of(job, struct staging, job);

	s->status = s->undo ? queue_unstage(s->queue, s->source, &s->err) : 0;
	if (s->status < 0)
		return;
	s->undo = false;
	if (s->piece)
		s->status = queue_stage(s->queue, s->source, s->piece, &s->err);
}

static void submit(struct staging *s)
{
	alarm_cancel(&s->retry);
	s->working = true;
	s->status = -ECANCELED; /* stands where the worker gives the job back unworked */
	worker_submit(s->worker, &s->job);
}

/* A piece whose fetch was dropped meanwhile lies in the file all the same. */
static void note_written(struct staging *s)
{
	s->error[0] = '\0';
	if (!s->piece)
		return;
	if (s->fetch)
		s->fetch->staged += s->piece->n;
	else
		s->undo = true;
	fetch_piece_free(s->piece);
	s->piece = NULL;
}

static void note_refused(struct staging *s)
{
	s->refused = s->fetch && (s->status == -EFBIG || s->status == -ESTALE) ? s->status : 0;
	if (s->refused)
		return;
	if (s->status != -EAGAIN) {
		snprintf(s->error, sizeof s->error, "%s", s->err.text);
		s->why = s->status;
	}
	if (!s->fetch) {
		fetch_piece_free(s->piece);
		s->piece = NULL;
		s->undo = true;
	}
	alarm_set(s->alarms, &s->retry, clock_mono_ms() + RETRY_MS);
}

static void on_worked(struct job *job)
{
	struct staging *s = container_of(job, struct staging, job);

	s->working = false;
	if (s->status == -ECANCELED)
		return;
	if (s->status == 0)
		note_written(s);
	else
		note_refused(s);
	if (s->undo && !s->retry.set)
		submit(s);
	s->on_step(s);
}

static void on_retry(struct alarm *alarm)
{
	struct staging *s = container_of(alarm, struct staging, retry);

	if (!s->working && (s->piece || s->undo))
		submit(s);
}

void staging_init(struct staging *s)
{
	s->job = (struct job){ .work = work, .done = on_worked };
	s->retry.on_ring = on_retry;
}

void staging_take(struct staging *s, struct fetch *fetch)
{
	if (s->working || s->piece || !fetch_is_large(fetch))
		return;
	s->piece = fetch_take_piece(fetch);
	s->fetch = fetch;
	submit(s);
}

void staging_retry(struct staging *s)
{
	if (s->retry.set)
		alarm_set(s->alarms, &s->retry, clock_mono_ms());
}

bool staging_busy(const struct staging *s)
{
	return s->fetch && s->piece;
}

void staging_release(struct staging *s)
{
	s->fetch = NULL;
}

void staging_drop(struct staging *s)
{
	bool staged = s->fetch && s->fetch->staged > 0;

	s->fetch = NULL;
	s->refused = 0;
	if (s->working)
		return; /* on_worked sees that it is nobody's */
	staged |= s->piece != NULL;
	fetch_piece_free(s->piece);
	s->piece = NULL;
	s->undo |= staged;
	if (s->undo)
		submit(s);
}

void staging_done(struct staging *s)
{
	alarm_cancel(&s->retry);
	fetch_piece_free(s->piece);
	s->piece = NULL;
}
