/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread that does what blocks, one job at a time in the order of submission, off the loop. The buffer has one,
 * each `file` store has its own: a hung disk holds up its own jobs and nobody else's. Jobs are embedded in what they
 * work for and owned by the submitter; between submit and done they belong to the worker.
 */
#ifndef BASE_WORKER_H
#define BASE_WORKER_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct worker;

struct job {
	void (*work)(struct job *job); /* on the worker's thread; may block */
	void (*done)(struct job *job); /* on the loop's thread, afterwards; may submit or free the job */
	struct job *next;              /* the worker's */
};

/* Starts the thread; name (up to 15 bytes) shows in ps -L. 0 or -errno. */
int worker_start(uv_loop_t *loop, const char *name, struct worker **ret_worker);

void worker_submit(struct worker *worker, struct job *job);

/* How long the job that is being worked on has taken so far, in real milliseconds; 0: none is. */
int64_t worker_busy_ms(const struct worker *worker);

/* Nothing submitted that is not done. */
bool worker_idle(const struct worker *worker);

/*
 * Jobs that have not begun are given back through done without having worked; the running one is waited for. Then
 * on_closed, and the worker is freed. A worker hung in the kernel never closes: agent/ has a deadline for that.
 */
void worker_close(struct worker *worker, void (*on_closed)(void *arg), void *arg);

/* Whether the job being done was given back unworked by worker_close; for use in done. */
bool worker_closing(const struct worker *worker);

#endif
