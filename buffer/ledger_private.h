/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the ledger share.
 *
 *     ledger.c          jobs, and what is due for them
 *     ledger_run.c      runs, and what a salvage leaves of them
 *     ledger_machine.c  machines and their days
 */
#ifndef BUFFER_LEDGER_PRIVATE_H
#define BUFFER_LEDGER_PRIVATE_H

#include "buffer/ledger.h"
#include "buffer/queue_private.h"

/* A job's row, and what is due for it. */
struct progress {
	bool there;    /* it has a row */
	int64_t taken; /* due.n: all up to it are in runs, or gone */
	int64_t next;  /* the next one's */
	int64_t cron_ms;
	uint64_t missed;
	uint64_t rows;            /* of table due, those in runs too */
	uint64_t batches, others; /* that wait */
	int64_t oldest_ms;
};

struct job {
	char name[UNITS_NAME_MAX], store[UNITS_NAME_MAX];
	char (*sources)[UNITS_NAME_MAX];
	size_t n_sources;
	bool told; /* else it is gone, or the jobs are not told yet */
	struct progress now, then;
};

struct ledger {
	struct job *jobs;
	size_t n;
	bool told; /* the jobs are, be there any or not */
};

/* A row of table due. */
struct due_row {
	struct ledger_object object;
	char store[UNITS_NAME_MAX];
	int64_t delivered_ms;
};

/* What of the rows of a job one run takes: the first ones of one store; and what that leaves. */
struct ledger_walk {
	uint64_t objects, batches, records, bytes;
	int64_t first, last; /* due.n; without objects last is below first */
	char store[UNITS_NAME_MAX];
	int64_t oldest_ms; /* of what is left, `_polls` apart; 0: none is */
};

/* --- ledger.c --- */

struct job *ledger_find_job(const struct queue *q, const char *name);

/* In a transaction that changes what is due, at its beginning; once it has held, ledger_settle. */
int ledger_start(struct queue *q, struct err *err);

/* In such a transaction: gives a job without a row its row; writes what `then` says. */
int ledger_make_job(struct queue *q, struct job *job, int64_t wall_ms, struct err *err);
int ledger_put_job(struct queue *q, const struct job *job, struct err *err);
int ledger_delete_due(struct queue *q, const char *job, int64_t first, int64_t last, uint64_t *ret_n, struct err *err);

/* Rows of SQL_DUE in their order; and the one at hand. */
int ledger_query_due(struct queue *q, const char *job, int64_t first, int64_t last, struct err *err);
int ledger_read_due(struct queue *q, struct due_row *ret_row, struct err *err);

int ledger_walk(struct queue *q, const char *job, int64_t first, int64_t last, struct ledger_walk *ret_walk,
                struct err *err);

/* It no longer waits. */
void ledger_take(struct progress *p, const struct ledger_walk *w);

void ledger_add_waiting(struct progress *p, const char *source, int64_t delivered_ms);

#endif
