/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jobs and what is due for them. What a transaction changes stands in a job's `then`, and is its `now` once that has
 * held; a job has a row from the first one of table due on, and so a job for which nothing ever came costs nothing.
 */
#include "buffer/ledger.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "buffer/ledger_private.h"

#define ROWS_MAX (1 << 18) /* of table due, of all jobs; 50 MB */
#define SHARE    8         /* of max_size, for the same */
#define ROW      512       /* bytes, at most */

static struct ledger *ledger_of(struct queue *q)
{
	if (!q->ledger)
		q->ledger = calloc(1, sizeof *q->ledger);
	return q->ledger;
}

void ledger_free(struct ledger *ledger)
{
	for (size_t i = 0; ledger && i < ledger->n; i++)
		free(ledger->jobs[i].sources);
	if (ledger)
		free(ledger->jobs);
	free(ledger);
}

struct job *ledger_find_job(const struct queue *q, const char *name)
{
	for (size_t i = 0; q->ledger && i < q->ledger->n; i++) {
		if (strcmp(q->ledger->jobs[i].name, name) == 0)
			return &q->ledger->jobs[i];
	}
	return NULL;
}

/* --- Which jobs want what --- */

static bool wants(const struct job *job, const char *source)
{
	for (size_t i = 0; i < job->n_sources; i++) {
		if (strcmp(job->sources[i], source) == 0)
			return true;
	}
	return false;
}

unsigned ledger_count_jobs(const struct queue *q, const char *source)
{
	unsigned n = 0;

	for (size_t i = 0; q->ledger && i < q->ledger->n; i++)
		n += wants(&q->ledger->jobs[i], source);
	return n;
}

unsigned ledger_jobs(const struct queue *q)
{
	unsigned n = 0;

	for (size_t i = 0; q->ledger && i < q->ledger->n; i++)
		n += q->ledger->jobs[i].told;
	return n;
}

/* --- Rows --- */

int ledger_read_due(struct queue *q, struct due_row *ret_row, struct err *err)
{
	sqlite3_stmt *stmt = q->statements[SQL_DUE];
	struct ledger_object *o = &ret_row->object;
	struct object_name name;
	int r;

	o->id = queue_number(q, SQL_DUE, 1);
	r = queue_text(q, SQL_DUE, 2, ret_row->store, sizeof ret_row->store, err);
	if (r == 0)
		r = queue_text(q, SQL_DUE, 3, o->key, sizeof o->key, err);
	if (r < 0)
		return r;
	if (object_read_key(o->key, &name) < 0)
		return queue_damaged(q, err, "due", o->id, "its object's key is none");
	if (sqlite3_column_bytes(stmt, 5) != SHA256_SIZE)
		return queue_damaged(q, err, "due", o->id, "its SHA-256 has another length");
	memcpy(o->source, name.source, sizeof o->source);
	o->day = name.day;
	o->first_seq = name.first_seq;
	o->last_seq = name.last_seq;
	o->bytes = (uint64_t)queue_number(q, SQL_DUE, 4);
	memcpy(o->sha256, sqlite3_column_blob(stmt, 5), SHA256_SIZE);
	ret_row->delivered_ms = queue_number(q, SQL_DUE, 6);
	return 0;
}

int ledger_query_due(struct queue *q, const char *job, int64_t first, int64_t last, struct err *err)
{
	const struct cell range[] = { cell_text(job), cell_number(first), cell_number(last) };

	return queue_query(q, SQL_DUE, CELLS(range), err);
}

static int put_due(struct queue *q, const struct job *job, int64_t n, const struct batch *batch, const char *store,
                   int64_t wall_ms, struct err *err)
{
	const struct cell row[] = {
		cell_text(job->name),
		cell_number(n),
		cell_text(store),
		cell_text(batch->key),
		cell_number((int64_t)batch->bytes),
		cell_blob(batch->sha256, sizeof batch->sha256),
		cell_number(wall_ms),
	};

	return queue_put(q, SQL_DUE_PUT, CELLS(row), err);
}

int ledger_delete_due(struct queue *q, const char *job, int64_t first, int64_t last, uint64_t *ret_n, struct err *err)
{
	const struct cell range[] = { cell_text(job), cell_number(first), cell_number(last) };
	int r = queue_run(q, SQL_DUE_DELETE, CELLS(range), err);

	if (r < 0)
		return r;
	*ret_n = (uint64_t)sqlite3_changes(q->db);
	return 0;
}

int ledger_put_job(struct queue *q, const struct job *job, struct err *err)
{
	const struct cell row[] = {
		cell_text(job->name),
		cell_number(job->then.taken),
		cell_number(job->then.cron_ms),
		cell_number((int64_t)job->then.missed),
	};

	return queue_put(q, SQL_JOB_PUT, CELLS(row), err);
}

/*
 * Its numbers go on above all that a job of that name ever had: what a salvage finds of that must not be taken for what
 * waits now. The time is above what is forgotten.
 */
int ledger_make_job(struct queue *q, struct job *job, int64_t wall_ms, struct err *err)
{
	const struct cell key[] = { cell_text(job->name) };
	int64_t last = 0;
	int r;

	if (job->then.there)
		return 0;
	r = queue_query(q, SQL_JOB_LAST, CELLS(key), err);
	if (r == 0)
		r = queue_step(q, SQL_JOB_LAST, err);
	if (r == 1)
		last = queue_number(q, SQL_JOB_LAST, 0);
	queue_reset(q, SQL_JOB_LAST);
	if (r < 0)
		return r;
	job->then.there = true;
	job->then.taken = last > wall_ms ? last : wall_ms;
	job->then.next = job->then.taken + 1;
	return ledger_put_job(q, job, err);
}

/* --- What a run takes --- */

static bool takes(const struct ledger_walk *w, const struct due_row *row)
{
	return w->objects == 0 || (w->objects < LEDGER_OBJECTS && strcmp(w->store, row->store) == 0);
}

static void take(struct ledger_walk *w, const struct due_row *row)
{
	const struct ledger_object *o = &row->object;

	if (w->objects++ == 0)
		w->first = o->id;
	w->last = o->id;
	w->batches += strcmp(o->source, UNITS_POLLS) != 0;
	w->records += o->last_seq - o->first_seq + 1;
	w->bytes += o->bytes;
	memcpy(w->store, row->store, sizeof w->store);
}

/* Once something is left, it goes on to the first batch among that: it says how old what waits is. */
int ledger_walk(struct queue *q, const char *job, int64_t first, int64_t last, struct ledger_walk *ret_walk,
                struct err *err)
{
	struct ledger_walk w = { .first = 1 };
	struct due_row row;
	bool left = false;
	int r = ledger_query_due(q, job, first, last, err);

	while (r == 0 && w.oldest_ms == 0 && (r = queue_step(q, SQL_DUE, err)) > 0) {
		r = ledger_read_due(q, &row, err);
		left |= r == 0 && !takes(&w, &row);
		if (r == 0 && !left)
			take(&w, &row);
		else if (r == 0 && strcmp(row.object.source, UNITS_POLLS) != 0)
			w.oldest_ms = row.delivered_ms;
	}
	queue_reset(q, SQL_DUE);
	if (r < 0)
		return r;
	*ret_walk = w;
	return 0;
}

void ledger_take(struct progress *p, const struct ledger_walk *w)
{
	if (w->objects == 0)
		return;
	p->taken = w->last;
	p->batches -= w->batches;
	p->others -= w->objects - w->batches;
	p->oldest_ms = w->oldest_ms;
}

/* --- Transactions --- */

/* One whose row has yet to be deleted; NULL: there is none. */
static struct job *find_gone(const struct queue *q)
{
	for (size_t i = 0; q->ledger && q->ledger->told && i < q->ledger->n; i++) {
		if (!q->ledger->jobs[i].told)
			return &q->ledger->jobs[i];
	}
	return NULL;
}

/* As much of what waits for it as a run takes, since a transaction is to stay small; its row goes with the last. */
static int delete_gone(struct queue *q, struct job *job, struct err *err)
{
	const struct cell key[] = { cell_text(job->name) };
	struct progress *p = &job->then;
	struct ledger_walk w;
	uint64_t n;
	int r = ledger_walk(q, job->name, p->taken + 1, INT64_MAX, &w, err);

	if (r == 0)
		r = ledger_delete_due(q, job->name, w.first, w.last, &n, err);
	if (r < 0)
		return r;
	p->rows -= n;
	ledger_take(p, &w);
	p->there = w.objects > 0 && p->batches + p->others > 0;
	return p->there ? ledger_put_job(q, job, err) : queue_run(q, SQL_JOB_DELETE, CELLS(key), err);
}

int ledger_start(struct queue *q, struct err *err)
{
	struct job *gone = find_gone(q);

	for (size_t i = 0; q->ledger && i < q->ledger->n; i++)
		q->ledger->jobs[i].then = q->ledger->jobs[i].now;
	return gone ? delete_gone(q, gone, err) : 0;
}

void ledger_settle(struct queue *q)
{
	struct ledger *l = q->ledger;
	size_t kept = 0;

	for (size_t i = 0; l && i < l->n; i++) {
		struct job *job = &l->jobs[i];

		job->now = job->then;
		if (job->told || job->now.there)
			l->jobs[kept++] = *job;
		else
			free(job->sources);
	}
	if (l)
		l->n = kept;
}

void ledger_tidy(struct queue *q)
{
	struct err ignored;
	int r = 0;

	while (r == 0 && find_gone(q)) {
		r = queue_begin(q, &ignored);
		if (r == 0)
			r = queue_end(q, ledger_start(q, &ignored), &ignored);
		if (r == 0)
			ledger_settle(q);
	}
}

/* --- The memory --- */

static int add_job(struct ledger *l, const char *name, struct job **ret_job)
{
	struct job *grown = realloc(l->jobs, (l->n + 1) * sizeof *grown);

	if (!grown)
		return -ENOMEM;
	l->jobs = grown;
	grown += l->n++;
	*grown = (struct job){ .told = false };
	memcpy(grown->name, name, strlen(name) + 1);
	*ret_job = grown;
	return 0;
}

static int load_job(struct queue *q, struct err *err)
{
	char name[UNITS_NAME_MAX];
	struct ledger *l = ledger_of(q);
	struct job *job;
	int r = queue_text(q, SQL_JOBS, 0, name, sizeof name, err);

	if (r < 0)
		return r;
	job = ledger_find_job(q, name);
	if (!l || (!job && add_job(l, name, &job) < 0))
		return err_fail(err, -ENOMEM, "buffer: no memory");
	job->now = (struct progress){
		.there = true,
		.taken = queue_number(q, SQL_JOBS, 1),
		.next = queue_number(q, SQL_JOBS, 1) + 1,
		.cron_ms = queue_number(q, SQL_JOBS, 2),
		.missed = (uint64_t)queue_number(q, SQL_JOBS, 3),
	};
	return 0;
}

static void count_due(struct progress *p, const struct due_row *row)
{
	p->rows++;
	if (row->object.id <= p->taken)
		return;
	p->next = row->object.id + 1;
	ledger_add_waiting(p, row->object.source, row->delivered_ms);
}

void ledger_add_waiting(struct progress *p, const char *source, int64_t delivered_ms)
{
	if (strcmp(source, UNITS_POLLS) == 0)
		p->others++;
	else if (p->batches++ == 0)
		p->oldest_ms = delivered_ms;
}

static int load_due(struct queue *q, struct job *job, struct err *err)
{
	struct due_row row;
	int r = ledger_query_due(q, job->name, 0, INT64_MAX, err);

	while (r == 0 && (r = queue_step(q, SQL_DUE, err)) > 0) {
		r = ledger_read_due(q, &row, err);
		if (r == 0)
			count_due(&job->now, &row);
	}
	queue_reset(q, SQL_DUE);
	return r;
}

int ledger_load(struct queue *q, struct err *err)
{
	int r = queue_query(q, SQL_JOBS, NULL, 0, err);

	for (size_t i = 0; q->ledger && i < q->ledger->n; i++)
		q->ledger->jobs[i].now = (struct progress){ .there = false };
	while (r == 0 && (r = queue_step(q, SQL_JOBS, err)) > 0)
		r = load_job(q, err);
	queue_reset(q, SQL_JOBS);
	for (size_t i = 0; r == 0 && q->ledger && i < q->ledger->n; i++) {
		if (q->ledger->jobs[i].now.there)
			r = load_due(q, &q->ledger->jobs[i], err);
	}
	return r;
}

/* --- Configuration --- */

static int copy_job(struct ledger *to, const struct queue *q, const struct ledger_job *from)
{
	const struct job *before = ledger_find_job(q, from->name);
	struct job *job;
	int r = add_job(to, from->name, &job);

	if (r < 0)
		return r;
	job->told = true;
	memcpy(job->store, from->store, strlen(from->store) + 1);
	if (before)
		job->now = before->now;
	job->sources = calloc(from->n_sources + 1, sizeof *job->sources);
	if (!job->sources)
		return -ENOMEM;
	for (size_t i = 0; i < from->n_sources; i++)
		memcpy(job->sources[job->n_sources++], from->sources[i], strlen(from->sources[i]) + 1);
	return 0;
}

/* Those that are gone stay until what waits for them is deleted. */
static int copy_gone(struct queue *to, const struct ledger *from)
{
	struct job *job;
	int r = 0;

	for (size_t i = 0; r == 0 && from && i < from->n; i++) {
		if (!from->jobs[i].now.there || ledger_find_job(to, from->jobs[i].name))
			continue;
		r = add_job(to->ledger, from->jobs[i].name, &job);
		if (r == 0)
			job->now = from->jobs[i].now;
	}
	return r;
}

int ledger_configure(struct queue *q, const struct ledger_job *jobs, size_t n, struct err *err)
{
	struct ledger *before = q->ledger, *l;
	int r = 0;

	if (n > LEDGER_JOBS)
		return err_fail(err, -ENOBUFS, "more than %d jobs", LEDGER_JOBS);
	l = calloc(1, sizeof *l);
	for (size_t i = 0; l && r == 0 && i < n; i++)
		r = copy_job(l, q, &jobs[i]);
	q->ledger = l;
	if (l && r == 0)
		r = copy_gone(q, before);
	if (!l || r < 0) {
		q->ledger = before;
		ledger_free(l);
		return err_fail(err, -ENOMEM, "jobs: no memory");
	}
	ledger_free(before);
	l->told = true;
	for (size_t i = 0; i < q->n_sources; i++)
		q->sources[i]->jobs = ledger_count_jobs(q, q->sources[i]->name);
	if (queue_is_sound(q))
		ledger_tidy(q);
	return 0;
}

void ledger_due(const struct queue *q, const char *name, struct ledger_due *ret_due)
{
	const struct job *job = ledger_find_job(q, name);

	*ret_due = (struct ledger_due){ .batches = 0 };
	if (!job || !job->told)
		return;
	ret_due->batches = job->now.batches;
	ret_due->oldest_ms = job->now.oldest_ms;
	ret_due->others = job->now.others;
	ret_due->cron_ms = job->now.cron_ms;
	ret_due->missed = job->now.missed;
}

/* --- Deliveries --- */

/* What one job may have: a machine that is away for good must not fill the buffer, whose records exist nowhere else. */
static uint64_t most_rows(const struct queue *q)
{
	int64_t most = ROWS_MAX, bound = q->bounds.max_size / SHARE / ROW;
	unsigned n_jobs = ledger_jobs(q);

	assert(n_jobs > 0);
	if (q->bounds.max_size > 0 && bound < most)
		most = bound;
	return (uint64_t)most / n_jobs;
}

static int deliver_to(struct queue *q, struct job *job, const struct batch *batch, const char *store, int64_t wall_ms,
                      struct err *err)
{
	struct progress *p = &job->then;
	int r = ledger_make_job(q, job, wall_ms, err);

	if (r < 0)
		return r;
	if (p->rows >= most_rows(q)) {
		p->missed++;
		return ledger_put_job(q, job, err);
	}
	r = put_due(q, job, p->next++, batch, store, wall_ms, err);
	p->rows++;
	ledger_add_waiting(p, batch->source, wall_ms);
	return r;
}

int ledger_deliver(struct queue *q, const struct batch *batch, const char *store, int64_t wall_ms, struct err *err)
{
	int r = ledger_start(q, err);

	for (size_t i = 0; r == 0 && q->ledger && i < q->ledger->n; i++) {
		struct job *job = &q->ledger->jobs[i];

		if (job->told && strcmp(job->store, store) == 0 && wants(job, batch->source))
			r = deliver_to(q, job, batch, store, wall_ms, err);
	}
	return r;
}
