/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A job of the buffer's worker for somebody who may be gone when it is done: it has copies of all that it works with,
 * or of what lives as long as the mill, and frees itself. The worker makes them in the order in which they were sent,
 * so what is read later sees what was written before. Private to mill/. Loop thread only, but for `work`.
 */
#ifndef MILL_ERRAND_H
#define MILL_ERRAND_H

#include "base/err.h"
#include "base/worker.h"

struct mill;

struct errand {
	struct job job;
	int (*work)(struct errand *errand);  /* on the worker's thread; its result is `status` */
	void (*done)(struct errand *errand); /* NULL: whoever sent it is gone */
	void (*free)(struct errand *errand); /* of what it has beside itself; NULL: nothing */
	void *owner;
	int status;
	struct err err;
	struct mill *mill;
};

/* Sends it; `done` comes once, unless it was dropped; then it is freed. The mill lives until then. */
void errand_send(struct errand *errand, struct mill *mill);

/* Its end will be told to nobody. NULL is fine. */
void errand_drop(struct errand *errand);

#endif
