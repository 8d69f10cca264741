/* SPDX-License-Identifier: Apache-2.0 */
/* Runs: made of what waits, written down edge by edge, and brought together again after a salvage. */
#include <errno.h>
#include <string.h>

#include "buffer/ledger_private.h"

#define RUNS_MOST (LEDGER_JOBS * LEDGER_RUNS) /* of names that are gone as well */

/* A run and what only its row has. */
struct run_row {
	struct ledger_run run;
	int64_t first, last; /* due.n of its objects */
	int64_t edge;
};

static bool is_over(enum ledger_state state)
{
	return state == LEDGER_DONE || state == LEDGER_CANCELLED;
}

/* --- Rows --- */

static int put_row(struct queue *q, const struct run_row *row, struct err *err)
{
	const struct ledger_run *run = &row->run;
	const struct cell cells[] = {
		cell_text(run->id),
		cell_text(run->job),
		cell_text(run->store),
		cell_number(row->first),
		cell_number(row->last),
		cell_number(row->edge),
		cell_number(run->state),
		cell_number(run->attempt),
		cell_number(run->created_ms),
		cell_number(run->written_ms),
		cell_number(run->ready_ms),
		cell_number(run->started_ms),
		cell_number(run->ended_ms),
		cell_number((int64_t)run->objects),
		cell_number((int64_t)run->records),
		cell_number((int64_t)run->bytes),
		cell_number(run->counted),
		cell_blob(run->manifest, sizeof run->manifest),
		cell_text(run->reason),
		cell_text(run->remote),
		cell_text(run->place),
		cell_blob(run->log, run->log_len),
	};

	return queue_put(q, SQL_RUN_PUT, CELLS(cells), err);
}

static int read_texts(struct queue *q, enum sql sql, struct ledger_run *run, struct err *err)
{
	int r = queue_text(q, sql, 0, run->id, sizeof run->id, err);

	if (r == 0)
		r = queue_text(q, sql, 1, run->job, sizeof run->job, err);
	if (r == 0)
		r = queue_text(q, sql, 2, run->store, sizeof run->store, err);
	if (r == 0)
		r = queue_text(q, sql, 18, run->reason, sizeof run->reason, err);
	if (r == 0)
		r = queue_text(q, sql, 19, run->remote, sizeof run->remote, err);
	if (r == 0)
		r = queue_text(q, sql, 20, run->place, sizeof run->place, err);
	return r;
}

static int read_blobs(struct queue *q, enum sql sql, struct ledger_run *run, struct err *err)
{
	sqlite3_stmt *stmt = q->statements[sql];
	int log_len = sqlite3_column_bytes(stmt, 21);

	if (sqlite3_column_bytes(stmt, 17) != SHA256_SIZE || log_len > LEDGER_LOG)
		return queue_damaged(q, err, "run", run->created_ms, "its manifest's SHA-256 or its log is too long");
	memcpy(run->manifest, sqlite3_column_blob(stmt, 17), SHA256_SIZE);
	if (log_len > 0)
		memcpy(run->log, sqlite3_column_blob(stmt, 21), (size_t)log_len);
	run->log_len = (size_t)log_len;
	return 0;
}

/* A struct ledger_run is 5 KB, so it is filled in place. */
static int read_run(struct queue *q, enum sql sql, struct ledger_run *ret_run, struct err *err)
{
	int64_t state = queue_number(q, sql, 6);
	int r = read_texts(q, sql, ret_run, err);

	if (r < 0)
		return r;
	if (state < 0 || state > LEDGER_CANCELLED)
		return queue_damaged(q, err, "run", state, "there is no such state");
	ret_run->state = (enum ledger_state)state;
	ret_run->attempt = (unsigned)queue_number(q, sql, 7);
	ret_run->created_ms = queue_number(q, sql, 8);
	ret_run->written_ms = queue_number(q, sql, 9);
	ret_run->ready_ms = queue_number(q, sql, 10);
	ret_run->started_ms = queue_number(q, sql, 11);
	ret_run->ended_ms = queue_number(q, sql, 12);
	ret_run->objects = (uint64_t)queue_number(q, sql, 13);
	ret_run->records = (uint64_t)queue_number(q, sql, 14);
	ret_run->bytes = (uint64_t)queue_number(q, sql, 15);
	ret_run->counted = (unsigned)queue_number(q, sql, 16);
	return read_blobs(q, sql, ret_run, err);
}

static int get_row(struct queue *q, const char *id, struct run_row *ret_row, struct err *err)
{
	const struct cell key[] = { cell_text(id) };
	int r = queue_query(q, SQL_RUN_GET, CELLS(key), err);

	if (r == 0)
		r = queue_step(q, SQL_RUN_GET, err);
	if (r == 0) {
		r = err_fail(err, -ENOENT, "there is no run %s", id);
	} else if (r > 0) {
		ret_row->first = queue_number(q, SQL_RUN_GET, 3);
		ret_row->last = queue_number(q, SQL_RUN_GET, 4);
		ret_row->edge = queue_number(q, SQL_RUN_GET, 5);
		r = read_run(q, SQL_RUN_GET, &ret_row->run, err);
	}
	queue_reset(q, SQL_RUN_GET);
	return r;
}

int ledger_find_run(struct queue *q, const char *id, struct ledger_run *ret_run, struct err *err)
{
	struct run_row row;
	int r = get_row(q, id, &row, err);

	if (r == 0)
		*ret_run = row.run;
	return r;
}

int ledger_runs(struct queue *q, const char *before, struct ledger_run *ret_runs, size_t n, struct err *err)
{
	const struct cell cells[] = { cell_text(before ? before : "~"), cell_number((int64_t)n) };
	int r = queue_query(q, SQL_RUNS, CELLS(cells), err);
	size_t found = 0;

	while (r == 0 && found < n && (r = queue_step(q, SQL_RUNS, err)) > 0)
		r = read_run(q, SQL_RUNS, &ret_runs[found++], err);
	queue_reset(q, SQL_RUNS);
	return r < 0 ? r : (int)found;
}

/* Damage to the tree hides sound rows, and SQLite says nothing. Of a started run a salvage may have left some. */
static int check_objects(struct queue *q, const struct run_row *row, struct err *err)
{
	const struct ledger_run *run = &row->run;
	struct ledger_walk w;
	int r;

	if (is_over(run->state) || run->state == LEDGER_STARTED)
		return 0;
	r = ledger_walk(q, run->job, row->first, row->last, &w, err);
	if (r < 0 || w.objects == run->objects)
		return r;
	return queue_damaged(q, err, "due", row->first, "a run's objects are not all there");
}

int ledger_objects(struct queue *q, const char *run, int64_t after, struct ledger_object *ret_objects, size_t n,
                   struct err *err)
{
	struct run_row row = { .first = 1 };
	struct due_row due;
	size_t found = 0;
	int r = get_row(q, run, &row, err);

	if (r == 0 && after == 0)
		r = check_objects(q, &row, err);
	if (r == 0)
		r = ledger_query_due(q, row.run.job, after < row.first ? row.first : after + 1, row.last, err);
	while (r == 0 && found < n && (r = queue_step(q, SQL_DUE, err)) > 0) {
		r = ledger_read_due(q, &due, err);
		if (r == 0)
			ret_objects[found++] = due.object;
	}
	queue_reset(q, SQL_DUE);
	return r < 0 ? r : (int)found;
}

/* --- Making one --- */

static void fill(struct run_row *row, const struct job *job, const char *id, int64_t wall_ms,
                 const struct ledger_walk *w)
{
	struct ledger_run *run = &row->run;

	*row = (struct run_row){ .first = w->first, .last = w->last };
	memcpy(run->id, id, strlen(id) + 1);
	memcpy(run->job, job->name, sizeof run->job);
	memcpy(run->store, w->objects > 0 ? w->store : job->store, sizeof run->store);
	run->state = LEDGER_DUE;
	run->created_ms = wall_ms;
	run->objects = w->objects;
	run->records = w->records;
	run->bytes = w->bytes;
}

static int make(struct queue *q, struct job *job, const char *id, int64_t wall_ms, int64_t cron_ms,
                struct run_row *ret_row, struct err *err)
{
	struct ledger_walk w = { .first = 1 };
	int r = ledger_start(q, err);

	if (r == 0)
		r = ledger_make_job(q, job, wall_ms, err);
	if (r == 0)
		r = ledger_walk(q, job->name, job->then.taken + 1, INT64_MAX, &w, err);
	if (r < 0)
		return r;
	ledger_take(&job->then, &w);
	if (cron_ms > 0)
		job->then.cron_ms = cron_ms;
	fill(ret_row, job, id, wall_ms, &w);
	r = put_row(q, ret_row, err);
	return r == 0 ? ledger_put_job(q, job, err) : r;
}

int ledger_make_run(struct queue *q, const char *name, const char *id, int64_t wall_ms, int64_t cron_ms, bool empty,
                    struct ledger_run *ret_run, struct err *err)
{
	struct job *job = ledger_find_job(q, name);
	struct run_row row;
	int r = queue_check(q, err);

	if (r < 0)
		return r;
	if (!job || !job->told)
		return err_fail(err, -ENOENT, "there is no job \"%s\"", name);
	if (job->now.batches == 0 && job->now.others == 0 && !empty)
		return 0;
	r = queue_begin(q, err);
	if (r == 0)
		r = queue_end(q, make(q, job, id, wall_ms, cron_ms, &row, err), err);
	if (r < 0)
		return r;
	ledger_settle(q);
	*ret_run = row.run;
	return 1;
}

/* --- Its way --- */

static int let_go(struct queue *q, const struct run_row *row, struct err *err)
{
	const struct cell of_job[] = { cell_text(row->run.job), cell_number(LEDGER_RUNS) };
	const struct cell of_all[] = { cell_number(RUNS_MOST) };
	struct job *job = ledger_find_job(q, row->run.job);
	uint64_t n;
	int r = ledger_delete_due(q, row->run.job, row->first, row->last, &n, err);

	if (r < 0)
		return r;
	if (job)
		job->then.rows -= n < job->then.rows ? n : job->then.rows;
	r = queue_run(q, SQL_RUNS_TRIM, CELLS(of_job), err);
	return r == 0 ? queue_run(q, SQL_RUNS_TRIM_ALL, CELLS(of_all), err) : r;
}

/* What was made stays as it was. */
static void go_on(struct run_row *row, const struct ledger_run *run)
{
	struct ledger_run made = row->run;

	row->run = *run;
	row->edge++;
	memcpy(row->run.id, made.id, sizeof made.id);
	memcpy(row->run.job, made.job, sizeof made.job);
	memcpy(row->run.store, made.store, sizeof made.store);
	row->run.created_ms = made.created_ms;
	row->run.objects = made.objects;
	row->run.records = made.records;
	row->run.bytes = made.bytes;
}

static int put_run(struct queue *q, const struct ledger_run *run, struct err *err)
{
	struct run_row row;
	int r = ledger_start(q, err);

	if (r == 0)
		r = get_row(q, run->id, &row, err);
	if (r < 0)
		return r;
	go_on(&row, run);
	r = put_row(q, &row, err);
	return r == 0 && is_over(run->state) ? let_go(q, &row, err) : r;
}

int ledger_put_run(struct queue *q, const struct ledger_run *run, struct err *err)
{
	int r = queue_begin(q, err);

	if (r == 0)
		r = queue_end(q, put_run(q, run, err), err);
	if (r == 0)
		ledger_settle(q);
	return r;
}

/* --- After damage --- */

int ledger_has_edge(struct queue *q, const char *run, int64_t edge, struct err *err)
{
	struct run_row row = { .edge = -1 };
	int r = get_row(q, run, &row, err);

	if (r == -ENOENT)
		return 0;
	return r < 0 ? r : row.edge >= edge;
}

/*
 * Of a run whose objects are not all known any more the manifest cannot be made again as it was. One that may have been
 * started is followed by its id; any other is left to a person, who may run what is left of it, by a new manifest.
 */
static int judge(struct queue *q, struct run_row *row, struct err *err)
{
	struct ledger_run *run = &row->run;
	uint64_t objects = run->objects;
	struct ledger_walk w;
	int r = ledger_walk(q, run->job, row->first, row->last, &w, err);

	if (r < 0 || w.objects >= objects || run->state == LEDGER_STARTED)
		return r;
	run->state = LEDGER_PARKED;
	run->objects = w.objects;
	run->records = w.records;
	run->bytes = w.bytes;
	memset(run->manifest, 0, sizeof run->manifest);
	snprintf(run->reason, sizeof run->reason,
	         "damage has destroyed what was known of %llu of its %llu objects, which are in the store: a retry "
	         "runs the "
	         "others",
	         (unsigned long long)(objects - w.objects), (unsigned long long)objects);
	row->edge++;
	return put_row(q, row, err);
}

static int judge_runs(struct queue *q, struct err *err)
{
	char id[LEDGER_RUN];
	struct run_row row;
	int r = ledger_runs(q, NULL, &row.run, 1, err);

	while (r == 1) {
		memcpy(id, row.run.id, sizeof id);
		r = get_row(q, id, &row, err);
		if (r == 0 && !is_over(row.run.state))
			r = judge(q, &row, err);
		if (r == 0)
			r = ledger_runs(q, id, &row.run, 1, err);
	}
	return r;
}

int ledger_mend(struct queue *q, struct err *err)
{
	static const enum sql steps[] = {
		SQL_SALVAGE_RUNS_TWICE,
		SQL_SALVAGE_JOBS,
		SQL_SALVAGE_TAKEN,
		SQL_SALVAGE_LET_GO,
	};
	int r = 0;

	for (size_t i = 0; r == 0 && i < sizeof steps / sizeof *steps; i++)
		r = queue_run(q, steps[i], NULL, 0, err);
	return r == 0 ? judge_runs(q, err) : r;
}
