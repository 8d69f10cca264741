/* SPDX-License-Identifier: Apache-2.0 */
#include "base/worker.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/container.h"

#define STACK_SIZE ((size_t)256 * 1024)

struct jobs {
	struct job *first;
	struct job **end; /* where the next one goes */
};

struct worker {
	uv_async_t async;
	uv_thread_t thread;
	char name[16];

	uv_mutex_t mutex; /* guards the next five */
	uv_cond_t cond;
	struct jobs todo;
	struct jobs worked;
	_Atomic uint64_t began_ns; /* uv_hrtime when the job that is being worked on began; 0: none is */
	bool stop;                 /* begin no other job */
	bool ended;                /* the thread touches nothing any more */

	/* The loop's alone. */
	size_t pending;
	bool giving_back;
	void (*on_closed)(void *arg); /* set: closing */
	void *arg;
};

static void jobs_init(struct jobs *jobs)
{
	jobs->first = NULL;
	jobs->end = &jobs->first;
}

static void jobs_put(struct jobs *jobs, struct job *job)
{
	job->next = NULL;
	*jobs->end = job;
	jobs->end = &job->next;
}

static struct job *jobs_take(struct jobs *jobs)
{
	struct job *job = jobs->first;
	if (job) {
		jobs->first = job->next;
		if (!jobs->first)
			jobs->end = &jobs->first;
	}
	return job;
}

static void run(void *arg)
{
	struct worker *w = arg;
	pthread_setname_np(pthread_self(), w->name);
	uv_mutex_lock(&w->mutex);
	for (;;) {
		while (!w->todo.first && !w->stop)
			uv_cond_wait(&w->cond, &w->mutex);
		if (w->stop)
			break;
		struct job *job = jobs_take(&w->todo);
		uv_mutex_unlock(&w->mutex);
		w->began_ns = uv_hrtime();
		job->work(job);
		w->began_ns = 0;
		uv_mutex_lock(&w->mutex);
		jobs_put(&w->worked, job);
		uv_async_send(&w->async);
	}
	w->ended = true;
	uv_async_send(&w->async);
	uv_mutex_unlock(&w->mutex);
}

static struct job *take_worked(struct worker *w)
{
	uv_mutex_lock(&w->mutex);
	struct job *job = jobs_take(&w->worked);
	uv_mutex_unlock(&w->mutex);
	return job;
}

static void finish(struct worker *w, struct job *job)
{
	w->pending--;
	job->done(job); /* the job may be gone now */
}

static void on_async_closed(uv_handle_t *handle)
{
	struct worker *w = container_of(handle, struct worker, async);
	uv_cond_destroy(&w->cond);
	uv_mutex_destroy(&w->mutex);
	w->on_closed(w->arg);
	free(w);
}

/* The thread has said its last word: nothing needs the mutex any more. */
static void wind_up(struct worker *w)
{
	uv_thread_join(&w->thread);
	w->giving_back = true;
	for (struct job *job; (job = jobs_take(&w->todo));)
		finish(w, job);
	uv_close((uv_handle_t *)&w->async, on_async_closed);
}

static void on_async(uv_async_t *async)
{
	struct worker *w = container_of(async, struct worker, async);
	for (struct job *job; (job = take_worked(w));)
		finish(w, job);
	uv_mutex_lock(&w->mutex);
	bool over = w->ended && !w->worked.first;
	uv_mutex_unlock(&w->mutex);
	if (over)
		wind_up(w);
}

/* A thread that could not start leaves the async behind, and its memory is free only when it is closed. */
static void on_async_abandoned(uv_handle_t *handle)
{
	free(container_of(handle, struct worker, async));
}

static int start(struct worker *w)
{
	int r = uv_mutex_init(&w->mutex);
	if (r)
		return r;
	r = uv_cond_init(&w->cond);
	if (!r) {
		const uv_thread_options_t options = { .flags = UV_THREAD_HAS_STACK_SIZE, .stack_size = STACK_SIZE };
		r = uv_thread_create_ex(&w->thread, &options, run, w);
		if (!r)
			return 0;
		uv_cond_destroy(&w->cond);
	}
	uv_mutex_destroy(&w->mutex);
	return r;
}

int worker_start(uv_loop_t *loop, const char *name, struct worker **ret_worker)
{
	struct worker *w = calloc(1, sizeof *w);
	if (!w)
		return -ENOMEM;
	snprintf(w->name, sizeof w->name, "%s", name);
	jobs_init(&w->todo);
	jobs_init(&w->worked);
	int r = uv_async_init(loop, &w->async, on_async);
	if (r) {
		free(w);
		return r;
	}
	r = start(w);
	if (r) {
		uv_close((uv_handle_t *)&w->async, on_async_abandoned);
		return r;
	}
	*ret_worker = w;
	return 0;
}

void worker_submit(struct worker *worker, struct job *job)
{
	assert(!uv_is_closing((uv_handle_t *)&worker->async));
	worker->pending++;
	uv_mutex_lock(&worker->mutex);
	jobs_put(&worker->todo, job);
	uv_cond_signal(&worker->cond);
	uv_mutex_unlock(&worker->mutex);
}

int64_t worker_busy_ms(const struct worker *worker)
{
	uint64_t began = worker->began_ns;
	return began ? (int64_t)((uv_hrtime() - began) / 1000000) : 0;
}

bool worker_idle(const struct worker *worker)
{
	return worker->pending == 0;
}

void worker_close(struct worker *worker, void (*on_closed)(void *arg), void *arg)
{
	assert(!worker->on_closed);
	worker->on_closed = on_closed;
	worker->arg = arg;
	uv_mutex_lock(&worker->mutex);
	worker->stop = true;
	uv_cond_signal(&worker->cond);
	uv_mutex_unlock(&worker->mutex);
}

bool worker_closing(const struct worker *worker)
{
	return worker->giving_back;
}
