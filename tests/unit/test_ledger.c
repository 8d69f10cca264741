/* SPDX-License-Identifier: Apache-2.0 */
#include <sys/stat.h>

#include "buffer/ledger_private.h"
#include "buffer/schema.h"
#include "tests/unit/broken_card.h"
#include "tests/unit/queue_box.h"

#define MAX_BYTES (INT64_C(8) << 20)
#define ANY_JOB   "parking"

static const char *const a_and_polls[] = { "a", "_polls" }, *const a_and_b[] = { "a", "b" };

static const struct ledger_job lake_job = { ANY_JOB, "lake", a_and_polls, 2 };
static const struct ledger_job other_job = { "other", "lake", a_and_b, 2 };
static const struct ledger_job disk_job = { "disky", "disk", a_and_b, 1 };

static int set_up(void **state)
{
	card_errno = 0;
	return box_set_up(state);
}

static int tear_down(void **state)
{
	card_errno = 0;
	return box_tear_down(state);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

static void tell(struct box *box, const struct ledger_job *jobs, size_t n)
{
	assert_int_equal(ledger_configure(box->q, jobs, n, &box->err), 0);
}

/* Two stores, and that job. */
static void begin(struct box *box, const struct ledger_job *job)
{
	box_route(box, 2, MAX_BYTES, 1000);
	tell(box, job, 1);
}

static int64_t seal(struct box *box, const char *source, int records)
{
	box_add(box, source, 0, records);
	assert_int_equal(box_seal(box, 0, true), 1);
	return box->batch.id;
}

static int deliver(struct box *box, int64_t id, const char *store, int64_t after_ms)
{
	bool done;

	return queue_delivered(box->q, id, store, NOON + after_ms, &done, &box->err);
}

static int64_t bring(struct box *box, const char *source, const char *store, int64_t after_ms)
{
	int64_t id = seal(box, source, 9);

	assert_int_equal(deliver(box, id, store, after_ms), 0);
	return id;
}

/* "batches others oldest", the last in milliseconds after noon. */
static const char *due(struct box *box, const char *job)
{
	static char text[128];
	struct ledger_due d;

	ledger_due(box->q, job, &d);
	snprintf(text, sizeof text, "%d %d %d", (int)d.batches, (int)d.others,
	         d.oldest_ms == 0 ? -1 : (int)(d.oldest_ms - NOON));
	return text;
}

static uint64_t missed(struct box *box, const char *job)
{
	struct ledger_due d;

	ledger_due(box->q, job, &d);
	return d.missed;
}

static const char *id_of(int n)
{
	static char ids[4][LEDGER_RUN];
	static int at;

	at = (at + 1) % 4;
	snprintf(ids[at], sizeof ids[at], "%012x%020x", n, n * 7);
	return ids[at];
}

static int try_make(struct box *box, const char *job, int n, struct ledger_run *ret_run)
{
	return ledger_make_run(box->q, job, id_of(n), NOON + 1000 * n, 0, false, ret_run, &box->err);
}

static struct ledger_run make(struct box *box, const char *job, int n)
{
	struct ledger_run run;

	if (try_make(box, job, n, &run) != 1)
		fail_msg("%s", box->err.text);
	return run;
}

static struct ledger_run find(struct box *box, const char *id)
{
	struct ledger_run run;

	if (ledger_find_run(box->q, id, &run, &box->err) < 0)
		fail_msg("%s", box->err.text);
	return run;
}

static void put(struct box *box, struct ledger_run *run, enum ledger_state state)
{
	run->state = state;
	if (ledger_put_run(box->q, run, &box->err) < 0)
		fail_msg("%s", box->err.text);
}

static int count_objects(struct box *box, const struct ledger_run *run)
{
	static struct ledger_object objects[LEDGER_OBJECTS + 1];

	return ledger_objects(box->q, run->id, 0, objects, LEDGER_OBJECTS + 1, &box->err);
}

/* A transaction of deliveries without batches, the fast way to many. */
static void bring_many(struct box *box, const char *source, int n)
{
	struct batch batch = { .bytes = 100 };

	snprintf(batch.source, sizeof batch.source, "%s", source);
	assert_int_equal(queue_begin(box->q, &box->err), 0);
	for (int i = 0; i < n; i++) {
		struct envelope first = { .source = source,
			                  .device = "pi-01",
			                  .boot = "2c9f8b7a",
			                  .seq = (uint64_t)i * 10 + 1,
			                  .wall_ms = NOON };

		object_key(batch.key, &first, (uint64_t)i * 10 + 10, batch.sha256);
		assert_int_equal(ledger_deliver(box->q, &batch, "lake", NOON + i, &box->err), 0);
		ledger_settle(box->q);
	}
	assert_int_equal(queue_end(box->q, 0, &box->err), 0);
}

static void run_sql(struct box *box, const char *sql)
{
	if (sqlite3_exec(box->q->db, sql, NULL, NULL, NULL) != SQLITE_OK)
		fail_msg("%s: %s", sql, sqlite3_errmsg(box->q->db));
}

/* --- What is due --- */

static void test_a_delivery_is_due_by_source_and_store(void **state)
{
	struct box *box = *state;
	int64_t one;

	begin(box, &lake_job);
	assert_string_equal(due(box, ANY_JOB), "0 0 -1");
	assert_string_equal(due(box, "nobody"), "0 0 -1");
	one = bring(box, "a", "disk", 1); /* not its store */
	assert_string_equal(due(box, ANY_JOB), "0 0 -1");
	assert_int_equal(deliver(box, one, "lake", 2), 0);
	assert_string_equal(due(box, ANY_JOB), "1 0 2");
	assert_int_equal(deliver(box, one, "lake", 3), 0); /* twice is as good as once */
	bring(box, "b", "lake", 4);                        /* not its source */
	bring(box, "a", "lake", 5);
	assert_string_equal(due(box, ANY_JOB), "2 0 2");
	one = seal(box, "a", 1); /* only sealed */
	assert_string_equal(due(box, ANY_JOB), "2 0 2");
	assert_int_equal(deliver(box, one, "lake", 6), 0);
	assert_int_equal(deliver(box, one, "lake", 6), 0); /* the other store has it not yet */
	assert_string_equal(due(box, ANY_JOB), "3 0 2");
	bring(box, "a", "lake", 7);
	box_reopen(box);
	begin(box, &lake_job);
	assert_string_equal(due(box, ANY_JOB), "4 0 2");
}

static void test_polls_make_nothing_due_alone(void **state)
{
	struct box *box = *state;
	struct ledger_run run;

	begin(box, &lake_job);
	bring(box, "_polls", "lake", 1);
	assert_string_equal(due(box, ANY_JOB), "0 1 -1");
	bring(box, "a", "lake", 2);
	bring(box, "_polls", "lake", 3);
	assert_string_equal(due(box, ANY_JOB), "1 2 2");
	run = make(box, ANY_JOB, 1);
	assert_int_equal(run.objects, 3);
	assert_string_equal(due(box, ANY_JOB), "0 0 -1");
	bring(box, "_polls", "lake", 4);
	run = make(box, ANY_JOB, 2); /* somebody asks for it */
	assert_int_equal(run.objects, 1);
}

static void test_two_jobs_on_one_object(void **state)
{
	const struct ledger_job jobs[] = { lake_job, other_job, disk_job };
	struct box *box = *state;
	struct ledger_run run;
	int64_t one;

	box_route(box, 2, MAX_BYTES, 1000);
	tell(box, jobs, 3);
	one = bring(box, "a", "lake", 1);
	bring(box, "b", "lake", 2);
	assert_string_equal(due(box, ANY_JOB), "1 0 1");
	assert_string_equal(due(box, "other"), "2 0 1");
	assert_string_equal(due(box, "disky"), "0 0 -1");
	assert_int_equal(deliver(box, one, "disk", 3), 0);
	assert_string_equal(due(box, "disky"), "1 0 3");
	/* Each has it for itself. */
	run = make(box, ANY_JOB, 1);
	put(box, &run, LEDGER_DONE);
	assert_string_equal(due(box, "other"), "2 0 1");
	run = make(box, "other", 2);
	assert_int_equal(count_objects(box, &run), 2);
	assert_string_equal(run.store, "lake");
	run = make(box, "disky", 3);
	assert_string_equal(run.store, "disk");
	assert_int_equal(count_objects(box, &run), 1);
}

static void test_a_batch_taken_over_is_due(void **state)
{
	struct box *box = *state, other = { .identity = { .device = "pi-02", .kernel_boot_id = BOOT_B } };
	struct bytes object, lines;
	struct ledger_object found;
	struct ledger_run run;

	snprintf(other.path, sizeof other.path, "%s/other.db", box->folder);
	box_open(&other);
	box_route(&other, 1, MAX_BYTES, 1000);
	seal(&other, "a", 5);
	box_object(&other, other.batch.id, &object, &lines);
	begin(box, &lake_job);
	assert_int_equal(queue_import_begin(box->q, other.batch.key, object.len, other.batch.sha256, &box->err), 0);
	assert_int_equal(queue_import_write(box->q, object.data, object.len, &box->err), 0);
	assert_int_equal(queue_import_finish(box->q, NOON, &box->batch, &box->err), 0);
	assert_int_equal(deliver(box, box->batch.id, "lake", 7), 0);
	assert_string_equal(due(box, ANY_JOB), "1 0 7");
	run = make(box, ANY_JOB, 1);
	assert_int_equal(run.records, 5);
	assert_int_equal(ledger_objects(box->q, run.id, 0, &found, 1, &box->err), 1);
	assert_string_equal(found.key, other.batch.key);
	bytes_done(&object);
	bytes_done(&lines);
	box_close(&other);
}

static void test_what_a_store_has_lost_is_due_again(void **state)
{
	struct box *box = *state;
	struct ledger_run run;
	uint64_t records;
	int64_t one;

	begin(box, &lake_job);
	one = bring(box, "a", "lake", 1);
	run = make(box, ANY_JOB, 1);
	put(box, &run, LEDGER_DONE);
	assert_int_equal(queue_deliver_again(box->q, "lake", "a", 1, 9, &records, &box->err), 0);
	assert_int_equal(records, 9);
	assert_string_equal(due(box, ANY_JOB), "0 0 -1");
	assert_int_equal(deliver(box, one, "lake", 2), 0);
	assert_string_equal(due(box, ANY_JOB), "1 0 2");
}

/* A machine that never comes back must not fill the buffer. */
static void test_a_list_that_is_full(void **state)
{
	const struct queue_bounds bounds = { .max_size = 16 << 20, .max_record = 1 << 20 };
	const struct ledger_job jobs[] = { lake_job, other_job };
	struct box *box = *state;
	struct ledger_run run;

	box_route(box, 2, MAX_BYTES, 1000);
	tell(box, jobs, 2);
	assert_int_equal(queue_bound(box->q, &bounds, &box->err), 0);
	bring_many(box, "a", 2047);
	assert_int_equal(missed(box, ANY_JOB), 0);
	bring(box, "a", "lake", 0);
	bring(box, "a", "lake", 0);
	bring(box, "a", "lake", 0);
	assert_int_equal(missed(box, ANY_JOB), 2);
	assert_string_equal(due(box, ANY_JOB), "2048 0 0");
	box_reopen(box);
	box_route(box, 2, MAX_BYTES, 1000);
	tell(box, jobs, 2);
	assert_int_equal(queue_bound(box->q, &bounds, &box->err), 0);
	assert_int_equal(missed(box, ANY_JOB), 2);
	run = make(box, ANY_JOB, 1); /* which keeps them */
	bring(box, "a", "lake", 0);
	assert_int_equal(missed(box, ANY_JOB), 3);
	put(box, &run, LEDGER_DONE);
	bring(box, "a", "lake", 4);
	assert_int_equal(missed(box, ANY_JOB), 3);
	assert_string_equal(due(box, ANY_JOB), "1 0 4");
	assert_int_equal(missed(box, "other"), 4);
}

/* --- Configuration --- */

static void test_it_counts_across_a_restart(void **state)
{
	struct box *box = *state;
	struct ledger_run run;

	begin(box, &lake_job);
	bring(box, "a", "lake", 1);
	run = make(box, ANY_JOB, 1);
	bring(box, "_polls", "lake", 2);
	bring(box, "a", "lake", 3);
	bring(box, "a", "lake", 4);
	box_close(box);
	box->q = queue_new(box->path, &box->identity);
	tell(box, &lake_job, 1); /* before it is open */
	assert_string_equal(due(box, ANY_JOB), "0 0 -1");
	assert_int_equal(queue_start(box->q, false, &box->err), 0);
	assert_string_equal(due(box, ANY_JOB), "2 1 3");
	box_reopen(box);
	assert_string_equal(due(box, ANY_JOB), "0 0 -1"); /* the jobs are not told yet: nothing is deleted */
	begin(box, &lake_job);
	assert_string_equal(due(box, ANY_JOB), "2 1 3");
	assert_int_equal(count_objects(box, &run), 1);
	bring(box, "a", "lake", 5);
	run = make(box, ANY_JOB, 2);
	assert_int_equal(count_objects(box, &run), 4);
}

static void test_a_job_that_is_gone(void **state)
{
	struct box *box = *state;
	struct ledger_run run;

	begin(box, &lake_job);
	bring(box, "a", "lake", 1);
	run = make(box, ANY_JOB, 1);
	bring(box, "a", "lake", 2);
	tell(box, &other_job, 1);
	assert_string_equal(due(box, ANY_JOB), "0 0 -1");
	assert_int_equal(try_make(box, ANY_JOB, 2, &run), -ENOENT);
	assert_int_equal(count_objects(box, &run), 1);
	tell(box, &lake_job, 1); /* it comes back, to none of that */
	assert_string_equal(due(box, ANY_JOB), "0 0 -1");
	bring(box, "a", "lake", 3);
	assert_string_equal(due(box, ANY_JOB), "1 0 3");
	assert_int_equal(count_objects(box, &run), 1);
	put(box, &run, LEDGER_DONE);
	assert_string_equal(due(box, ANY_JOB), "1 0 3");
	box_close(box);
	assert_int_equal(box_ask(box, "SELECT count(*) FROM due"), 1);
	assert_int_equal(box_ask(box, "SELECT count(*) FROM job"), 1);
	box_open(box);
}

/* What is deleted at once is no more than a run has. */
static void test_a_job_that_is_gone_and_had_much(void **state)
{
	struct box *box = *state;

	begin(box, &lake_job);
	bring_many(box, "a", 3 * LEDGER_OBJECTS);
	sqlite3_wal_checkpoint_v2(box->q->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
	tell(box, &other_job, 0);
	assert_in_range(queue_file_size(box->q, "-wal"), 1, 512 * 4096);
	box_close(box);
	assert_int_equal(box_ask(box, "SELECT count(*) FROM due"), 0);
	assert_int_equal(box_ask(box, "SELECT count(*) FROM job"), 0);
	box_open(box);
}

static void test_a_job_with_another_store(void **state)
{
	struct ledger_job moved = lake_job;
	struct box *box = *state;
	struct ledger_run run;

	moved.store = "disk";
	begin(box, &lake_job);
	bring(box, "a", "lake", 1);
	bring(box, "_polls", "lake", 2);
	tell(box, &moved, 1);
	bring(box, "a", "lake", 3);
	bring(box, "a", "disk", 4);
	bring(box, "a", "disk", 5);
	assert_string_equal(due(box, ANY_JOB), "3 1 1");
	run = make(box, ANY_JOB, 1); /* a manifest names one store */
	assert_string_equal(run.store, "lake");
	assert_int_equal(run.objects, 2);
	assert_string_equal(due(box, ANY_JOB), "2 0 4");
	run = make(box, ANY_JOB, 2);
	assert_string_equal(run.store, "disk");
	assert_int_equal(run.objects, 2);
}

static void test_too_many_jobs(void **state)
{
	static struct ledger_job jobs[LEDGER_JOBS + 1];
	static char names[LEDGER_JOBS + 1][8];
	struct box *box = *state;

	box_route(box, 1, MAX_BYTES, 1000);
	for (int i = 0; i <= LEDGER_JOBS; i++) {
		snprintf(names[i], sizeof names[i], "j%d", i);
		jobs[i] = lake_job;
		jobs[i].name = names[i];
	}
	assert_int_equal(ledger_configure(box->q, jobs, LEDGER_JOBS + 1, &box->err), -ENOBUFS);
	tell(box, jobs, LEDGER_JOBS);
	bring(box, "a", "lake", 1);
	assert_string_equal(due(box, "j63"), "1 0 1");
	tell(box, jobs, 0);
	assert_string_equal(due(box, "j63"), "0 0 -1");
}

/* --- Runs --- */

static void test_a_run(void **state)
{
	static const uint8_t zeros[SHA256_SIZE];
	struct box *box = *state;
	struct ledger_run run = { .id = "untouched" }, found;
	struct ledger_object objects[4];
	struct batch first;
	uint64_t bytes;

	begin(box, &lake_job);
	assert_int_equal(try_make(box, "nobody", 1, &run), -ENOENT);
	assert_int_equal(try_make(box, ANY_JOB, 1, &run), 0);
	assert_string_equal(run.id, "untouched");
	bring(box, "a", "lake", 1);
	first = box->batch;
	bring(box, "_polls", "lake", 2);
	bytes = first.bytes + box->batch.bytes;
	bring(box, "a", "lake", 3);
	bytes += box->batch.bytes;
	run = make(box, ANY_JOB, 1);
	assert_string_equal(run.job, ANY_JOB);
	assert_string_equal(run.store, "lake");
	assert_int_equal(run.state, LEDGER_DUE);
	assert_int_equal(run.attempt, 0);
	assert_true(run.created_ms == NOON + 1000);
	assert_int_equal(run.objects, 3);
	assert_int_equal(run.records, 27);
	assert_int_equal(run.bytes, bytes);
	assert_memory_equal(run.manifest, zeros, sizeof zeros);
	found = find(box, run.id);
	assert_memory_equal(&found.objects, &run.objects, sizeof run.objects);
	assert_string_equal(found.store, "lake");

	assert_int_equal(ledger_objects(box->q, run.id, 0, objects, 2, &box->err), 2);
	assert_string_equal(objects[0].key, first.key);
	assert_string_equal(objects[0].source, "a");
	assert_int_equal(objects[0].day, NOON / DAY);
	assert_int_equal(objects[0].first_seq, 1);
	assert_int_equal(objects[0].last_seq, 9);
	assert_int_equal(objects[0].bytes, first.bytes);
	assert_memory_equal(objects[0].sha256, first.sha256, SHA256_SIZE);
	assert_string_equal(objects[1].source, "_polls");
	assert_int_equal(ledger_objects(box->q, run.id, objects[1].id, objects, 2, &box->err), 1);
	assert_int_equal(objects[0].first_seq, 10);
	assert_int_equal(ledger_objects(box->q, run.id, objects[0].id, objects, 2, &box->err), 0);
	assert_int_equal(ledger_objects(box->q, id_of(9), 0, objects, 2, &box->err), -ENOENT);
}

static void test_a_run_of_nothing(void **state)
{
	struct box *box = *state;
	struct ledger_run run;
	struct ledger_due d;

	begin(box, &lake_job);
	assert_int_equal(ledger_make_run(box->q, ANY_JOB, id_of(1), NOON, NOON - 5, true, &run, &box->err), 1);
	assert_int_equal(run.objects, 0);
	assert_string_equal(run.store, "lake");
	assert_int_equal(count_objects(box, &run), 0);
	bring(box, "a", "lake", 1);
	put(box, &run, LEDGER_DONE);
	assert_string_equal(due(box, ANY_JOB), "1 0 1");
	box_reopen(box);
	begin(box, &lake_job);
	ledger_due(box->q, ANY_JOB, &d);
	assert_true(d.cron_ms == NOON - 5);
	make(box, ANY_JOB, 2); /* it has no cron: what was looked at stays */
	ledger_due(box->q, ANY_JOB, &d);
	assert_true(d.cron_ms == NOON - 5);
}

static void test_a_manifest_is_bounded(void **state)
{
	struct box *box = *state;
	struct ledger_run run;
	int64_t wal;

	begin(box, &lake_job);
	bring_many(box, "a", LEDGER_OBJECTS);
	bring_many(box, "_polls", 2);
	bring_many(box, "a", 10);
	assert_string_equal(due(box, ANY_JOB), "4106 2 0");
	sqlite3_wal_checkpoint_v2(box->q->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
	run = make(box, ANY_JOB, 1);
	assert_int_equal(run.objects, LEDGER_OBJECTS);
	assert_int_equal(run.records, 10 * LEDGER_OBJECTS);
	assert_int_equal(run.bytes, 100 * LEDGER_OBJECTS);
	assert_string_equal(due(box, ANY_JOB), "10 2 0");
	wal = queue_file_size(box->q, "-wal");
	assert_in_range(wal, 1, 8 * 4096);
	put(box, &run, LEDGER_DONE);
	/* What deletes them all is no large transaction. */
	assert_in_range(queue_file_size(box->q, "-wal"), wal, 256 * 4096);
	run = make(box, ANY_JOB, 2);
	assert_int_equal(count_objects(box, &run), 12);
	assert_string_equal(due(box, ANY_JOB), "0 0 -1");
}

static void test_its_way(void **state)
{
	struct box *box = *state;
	struct ledger_run run, found;

	begin(box, &lake_job);
	bring(box, "a", "lake", 1);
	run = make(box, ANY_JOB, 1);
	memset(run.manifest, 7, sizeof run.manifest);
	run.written_ms = NOON + 1;
	put(box, &run, LEDGER_WRITTEN);
	run.attempt = 2;
	run.ready_ms = NOON + 2;
	run.started_ms = NOON + 3;
	put(box, &run, LEDGER_STARTED);
	run.ended_ms = NOON + 4;
	snprintf(run.reason, sizeof run.reason, "exit 3");
	snprintf(run.remote, sizeof run.remote, "job-17");
	snprintf(run.place, sizeof run.place, "ssh mill");
	run.counted = 2;
	memset(run.log, 'x', sizeof run.log);
	run.log_len = sizeof run.log;
	/* What was made stays. */
	run.objects = 77;
	snprintf(run.job, sizeof run.job, "other");
	put(box, &run, LEDGER_PARKED);
	box_reopen(box);
	found = find(box, run.id);
	assert_int_equal(found.state, LEDGER_PARKED);
	assert_int_equal(found.attempt, 2);
	assert_true(found.written_ms == NOON + 1 && found.ready_ms == NOON + 2 && found.started_ms == NOON + 3 &&
	            found.ended_ms == NOON + 4 && found.created_ms == NOON + 1000);
	assert_memory_equal(found.manifest, run.manifest, sizeof run.manifest);
	assert_string_equal(found.reason, "exit 3");
	assert_string_equal(found.remote, "job-17");
	assert_string_equal(found.place, "ssh mill");
	assert_int_equal(found.counted, 2);
	assert_int_equal(found.log_len, LEDGER_LOG);
	assert_memory_equal(found.log, run.log, LEDGER_LOG);
	assert_int_equal(found.objects, 1);
	assert_string_equal(found.job, ANY_JOB);
	assert_int_equal(count_objects(box, &found), 1); /* parked: it keeps them */
	run = found;
	put(box, &run, LEDGER_WRITTEN); /* retried */
	put(box, &run, LEDGER_CANCELLED);
	assert_int_equal(count_objects(box, &run), 0);
	snprintf(run.id, sizeof run.id, "%s", id_of(5));
	assert_int_equal(ledger_put_run(box->q, &run, &box->err), -ENOENT);
	assert_int_equal(ledger_find_run(box->q, id_of(5), &found, &box->err), -ENOENT);
	begin(box, &lake_job);
	assert_string_equal(due(box, ANY_JOB), "0 0 -1");
}

static void test_old_runs_go(void **state)
{
	struct ledger_run *runs = calloc(LEDGER_RUNS + 10, sizeof *runs), run, parked;
	const struct ledger_job jobs[] = { lake_job, other_job };
	struct box *box = *state;

	box_route(box, 1, MAX_BYTES, 1000);
	tell(box, jobs, 2);
	sqlite3_exec(box->q->db, "PRAGMA synchronous = OFF", NULL, NULL, NULL);
	bring_many(box, "a", 1);
	parked = make(box, ANY_JOB, 1);
	put(box, &parked, LEDGER_PARKED);
	run = make(box, "other", 2);
	put(box, &run, LEDGER_DONE);
	for (int i = 0; i < LEDGER_RUNS + 5; i++) {
		bring_many(box, "a", 1);
		run = make(box, ANY_JOB, 3 + i);
		put(box, &run, i % 2 == 0 ? LEDGER_DONE : LEDGER_CANCELLED);
	}
	/* The last of this job, those that are parked, and the other job's. */
	assert_int_equal(ledger_runs(box->q, NULL, runs, LEDGER_RUNS + 10, &box->err), LEDGER_RUNS + 2);
	assert_string_equal(runs[0].id, run.id);
	assert_string_equal(runs[LEDGER_RUNS - 1].id, id_of(8));
	assert_string_equal(runs[LEDGER_RUNS].job, "other");
	assert_string_equal(runs[LEDGER_RUNS + 1].id, parked.id);
	assert_int_equal(ledger_runs(box->q, id_of(9), runs, 2, &box->err), 2);
	assert_string_equal(runs[0].id, id_of(8));
	assert_string_equal(runs[1].id, id_of(2));
	assert_int_equal(count_objects(box, &parked), 1);
	free(runs);
}

/* --- A card that fails --- */

static void test_a_delivery_that_fails_is_not_due(void **state)
{
	struct box *box = *state;
	int64_t one;

	begin(box, &lake_job);
	bring(box, "a", "lake", 1);
	one = seal(box, "a", 3);
	card_errno = EIO;
	assert_int_equal(deliver(box, one, "lake", 2), -EIO);
	assert_string_equal(due(box, ANY_JOB), "1 0 1");
	card_errno = 0;
	assert_int_equal(deliver(box, one, "lake", 3), 0);
	assert_string_equal(due(box, ANY_JOB), "2 0 1");
	box_reopen(box);
	begin(box, &lake_job);
	assert_string_equal(due(box, ANY_JOB), "2 0 1");
}

static void test_a_run_that_fails_has_changed_nothing(void **state)
{
	struct box *box = *state;
	struct ledger_run run = { .id = "untouched" };

	begin(box, &lake_job);
	bring(box, "a", "lake", 1);
	card_errno = EIO;
	assert_int_equal(try_make(box, ANY_JOB, 1, &run), -EIO);
	assert_string_equal(run.id, "untouched");
	assert_string_equal(due(box, ANY_JOB), "1 0 1");
	card_errno = 0;
	run = make(box, ANY_JOB, 1);
	card_errno = EIO;
	run.state = LEDGER_DONE;
	assert_int_equal(ledger_put_run(box->q, &run, &box->err), -EIO);
	card_errno = 0;
	assert_int_equal(find(box, run.id).state, LEDGER_DUE);
	assert_int_equal(count_objects(box, &run), 1);
	put(box, &run, LEDGER_DONE);
	assert_int_equal(count_objects(box, &run), 0);
}

/* What waits for a job that is gone is deleted once the card takes something again. */
static void test_a_job_that_goes_while_the_card_fails(void **state)
{
	struct box *box = *state;

	begin(box, &lake_job);
	bring(box, "a", "lake", 1);
	card_errno = EIO;
	tell(box, &other_job, 1);
	assert_string_equal(due(box, ANY_JOB), "0 0 -1");
	card_errno = 0;
	bring(box, "c", "lake", 2); /* any delivery */
	tell(box, &lake_job, 1);
	assert_string_equal(due(box, ANY_JOB), "0 0 -1");
	bring(box, "a", "lake", 3);
	card_errno = EIO;
	tell(box, &other_job, 1);
	card_errno = 0;
	box_close(box);
	box->q = queue_new(box->path, &box->identity);
	tell(box, &other_job, 1);
	assert_int_equal(queue_start(box->q, false, &box->err), 0); /* or the next start */
	box_close(box);
	assert_int_equal(box_ask(box, "SELECT count(*) FROM due"), 0);
	box_open(box);
}

static void test_a_buffer_that_is_not_open(void **state)
{
	struct box *box = *state;
	struct ledger_machine machine = { .name = "mill" };
	struct ledger_object object;
	struct ledger_run run = { .id = "1" };
	struct ledger_day day;

	box_close(box);
	box->q = queue_new(box->path, &box->identity);
	tell(box, &lake_job, 1);
	assert_int_equal(try_make(box, ANY_JOB, 1, &run), -EAGAIN);
	assert_int_equal(ledger_put_run(box->q, &run, &box->err), -EAGAIN);
	assert_int_equal(ledger_find_run(box->q, "1", &run, &box->err), -EAGAIN);
	assert_int_equal(ledger_runs(box->q, NULL, &run, 1, &box->err), -EAGAIN);
	assert_int_equal(ledger_objects(box->q, "1", 0, &object, 1, &box->err), -EAGAIN);
	assert_int_equal(ledger_put_machine(box->q, &machine, NULL, &box->err), -EAGAIN);
	assert_int_equal(ledger_find_machine(box->q, "mill", &machine, &box->err), -EAGAIN);
	assert_int_equal(ledger_days(box->q, "mill", &day, 1, &box->err), -EAGAIN);
}

/* --- Room --- */

/* What queue_room.c keeps for a row, however the rows of several jobs lie among one another. */
static void test_the_room_of_a_row(void **state)
{
	static const char *const names[] = { "a", "b", "c", "d", "e", "f", "g", "h" };
	struct ledger_job jobs[8];
	struct box *box = *state;
	int64_t before, free_before, after, free_after;

	box_route(box, 1, MAX_BYTES, 1000);
	for (int i = 0; i < 8; i++) {
		jobs[i] = lake_job;
		jobs[i].name = names[i];
	}
	tell(box, jobs, 8);
	assert_int_equal(queue_count_pages(box->q, &before, &free_before, &box->err), 0);
	bring_many(box, "a", 1000);
	assert_int_equal(queue_count_pages(box->q, &after, &free_after, &box->err), 0);
	after = (after - free_after - before + free_before) * 4096 / 8000;
	assert_in_range(after, 100, 512);
}

/* --- Damage --- */

/* Changes the file so that an older version of the row is nowhere. */
static void break_rows(struct box *box, const char *sql)
{
	box_close(box);
	box_ask(box, sql);
}

static void start_again(struct box *box, int expected)
{
	box->q = queue_new(box->path, &box->identity);
	begin(box, &lake_job);
	assert_int_equal(queue_start(box->q, true, &box->err), expected);
}

static void test_a_damaged_row(void **state)
{
	struct box *box = *state;

	begin(box, &lake_job);
	for (int i = 0; i < 5; i++)
		bring(box, "a", "lake", i + 1);
	break_rows(box, "UPDATE due SET bytes = bytes + 1 WHERE n = (SELECT max(n) - 1 FROM due)");
	assert_int_equal(box_try(box), -EBADMSG);
	assert_non_null(strstr(box->err.text, "is damaged: due parking: its checksum is wrong"));
	start_again(box, 1);
	assert_string_equal(due(box, ANY_JOB), "4 0 1");
	assert_int_equal(make(box, ANY_JOB, 1).objects, 4);
}

static void test_damage_while_it_runs(void **state)
{
	struct box *box = *state;
	struct ledger_object objects[4];
	struct ledger_run run;

	begin(box, &lake_job);
	bring(box, "a", "lake", 1);
	run = make(box, ANY_JOB, 1);
	bring(box, "a", "lake", 2);
	run_sql(box, "UPDATE due SET bytes = bytes + 1");
	assert_int_equal(ledger_objects(box->q, run.id, 0, objects, 4, &box->err), -EBADMSG);
	assert_false(queue_is_sound(box->q));
	assert_int_equal(ledger_put_run(box->q, &run, &box->err), -EBADMSG);
	assert_string_equal(due(box, ANY_JOB), "1 0 2"); /* from memory */
	/* The rows as they were are found in the WAL. */
	assert_int_equal(queue_start(box->q, true, &box->err), 1);
	assert_string_equal(due(box, ANY_JOB), "1 0 2");
	assert_int_equal(count_objects(box, &run), 1);
	bring(box, "a", "lake", 3);
	assert_string_equal(due(box, ANY_JOB), "2 0 2");
}

static void test_all_outlasts_a_salvage(void **state)
{
	struct ledger_machine machine = { .name = "mill", .state = LEDGER_RUNNING, .since_ms = NOON, .ours = true };
	const struct ledger_day day = { .day = 20000, .wakes = 2, .awake_ms = 3000 };
	struct box *box = *state;
	struct ledger_run ended, started, found;
	struct ledger_day days[2];

	begin(box, &lake_job);
	bring(box, "a", "lake", 1);
	ended = make(box, ANY_JOB, 1);
	ended.log_len = sizeof ended.log;
	memset(ended.log, 'y', sizeof ended.log);
	put(box, &ended, LEDGER_WRITTEN);
	put(box, &ended, LEDGER_DONE);
	bring(box, "a", "lake", 2);
	started = make(box, ANY_JOB, 2);
	put(box, &started, LEDGER_PARKED);
	put(box, &started, LEDGER_STARTED); /* of its versions the last counts */
	bring(box, "a", "lake", 3);
	assert_int_equal(ledger_put_machine(box->q, &machine, &day, &box->err), 0);
	machine.state = LEDGER_IDLE;
	machine.since_ms++;
	assert_int_equal(ledger_put_machine(box->q, &machine, &day, &box->err), 0);
	run_sql(box, "UPDATE store SET crc = 1; UPDATE buffer SET crc = 1");
	box_close(box);
	start_again(box, 1);
	assert_string_equal(due(box, ANY_JOB), "1 0 3");
	found = find(box, ended.id);
	assert_int_equal(found.state, LEDGER_DONE);
	assert_int_equal(found.log_len, LEDGER_LOG);
	assert_memory_equal(found.log, ended.log, LEDGER_LOG);
	assert_int_equal(find(box, started.id).state, LEDGER_STARTED);
	assert_int_equal(count_objects(box, &started), 1);
	assert_int_equal(ledger_find_machine(box->q, "mill", &machine, &box->err), 0);
	assert_int_equal(machine.state, LEDGER_IDLE);
	assert_true(machine.ours);
	assert_int_equal(ledger_days(box->q, "mill", days, 2, &box->err), 1);
	assert_int_equal(days[0].wakes, 4);
	assert_int_equal(days[0].awake_ms, 6000);
	box_close(box);
	assert_int_equal(box_ask(box, "SELECT count(*) FROM due"), 2); /* what was let go does not come back */
	box_open(box);
}

/* Its manifest cannot be made again as it was. */
static void test_a_run_that_has_lost_objects(void **state)
{
	static const uint8_t zeros[SHA256_SIZE];
	struct box *box = *state;
	struct ledger_run written, started, found;

	begin(box, &lake_job);
	for (int i = 0; i < 3; i++)
		bring(box, "a", "lake", i + 1);
	written = make(box, ANY_JOB, 1);
	memset(written.manifest, 1, sizeof written.manifest);
	put(box, &written, LEDGER_WRITTEN);
	bring(box, "a", "lake", 4);
	bring(box, "a", "lake", 5);
	started = make(box, ANY_JOB, 2);
	put(box, &started, LEDGER_STARTED);
	bring(box, "a", "lake", 6);
	break_rows(box, "UPDATE due SET bytes = bytes + 1 WHERE n IN (SELECT n FROM due ORDER BY n LIMIT 3 OFFSET 2)");
	start_again(box, 1);
	found = find(box, written.id);
	assert_int_equal(found.state, LEDGER_PARKED);
	assert_string_equal(found.reason, "damage has destroyed what was known of 1 of its 3 objects, which are in the "
	                                  "store: a retry runs the others");
	assert_int_equal(found.objects, 2);
	assert_int_equal(found.records, 18);
	assert_memory_equal(found.manifest, zeros, sizeof zeros);
	assert_int_equal(count_objects(box, &written), 2);
	found = find(box, started.id); /* it is asked for by its id */
	assert_int_equal(found.state, LEDGER_STARTED);
	assert_int_equal(found.objects, 2);
	assert_string_equal(due(box, ANY_JOB), "1 0 6");
}

/* Without its row a job is known by its runs and by what is due. */
static void test_a_job_whose_row_is_lost(void **state)
{
	struct box *box = *state;
	struct ledger_run run;

	begin(box, &lake_job);
	bring(box, "a", "lake", 1);
	run = make(box, ANY_JOB, 1);
	bring(box, "a", "lake", 2);
	break_rows(box, "UPDATE job SET crc = crc + 1");
	start_again(box, 1);
	assert_string_equal(due(box, ANY_JOB), "1 0 2");
	assert_int_equal(count_objects(box, &run), 1);
	break_rows(box, "DELETE FROM run");
	box_ask(box, "UPDATE job SET crc = crc + 1");
	start_again(box, 1);
	assert_string_equal(due(box, ANY_JOB), "2 0 1"); /* twice is better than never */
}

static void test_a_run_that_was_never_made(void **state)
{
	struct box *box = *state;
	struct ledger_run run, found;

	begin(box, &lake_job);
	bring(box, "a", "lake", 1);
	run = make(box, ANY_JOB, 1);
	/* What a transaction that did not hold leaves: a version of it under another id. */
	run_sql(box,
	        "INSERT INTO run SELECT '000000000000aaaa', job, store, first, last, edge, state, attempt, created, "
	        "written, ready, started, ended, objects, records, bytes, counted, manifest, reason, remote, place, "
	        "log, "
	        "row_crc('000000000000aaaa', job, store, first, last, edge, state, attempt, created, written, "
	        "ready, started, ended, objects, records, bytes, counted, manifest, reason, remote, place, log) FROM "
	        "run");
	put(box, &run, LEDGER_WRITTEN);
	run_sql(box, "UPDATE buffer SET crc = 1");
	box_close(box);
	start_again(box, 1);
	assert_int_equal(ledger_find_run(box->q, "000000000000aaaa", &found, &box->err), -ENOENT);
	assert_int_equal(find(box, run.id).state, LEDGER_WRITTEN);
	assert_int_equal(count_objects(box, &run), 1);
}

static void test_the_last_version_counts(void **state)
{
	struct box *box = *state;
	struct ledger_run run;
	struct ledger_due d;

	begin(box, &lake_job);
	bring(box, "a", "lake", 1);
	assert_int_equal(ledger_make_run(box->q, ANY_JOB, id_of(1), NOON, NOON, false, &run, &box->err), 1);
	put(box, &run, LEDGER_DONE);
	/* What is found behind another one need not be newer. */
	run_sql(box, "UPDATE run SET edge = 0, state = 2, crc = row_crc(id, job, store, first, last, 0, 2, attempt, "
	             "created, written, ready, started, ended, objects, records, bytes, counted, manifest, reason, "
	             "remote, place, log)");
	run_sql(box, "UPDATE job SET cron = 7, crc = row_crc(name, taken, 7, missed)");
	run_sql(box, "UPDATE buffer SET crc = 1");
	box_close(box);
	start_again(box, 1);
	assert_int_equal(find(box, run.id).state, LEDGER_DONE);
	ledger_due(box->q, ANY_JOB, &d);
	assert_true(d.cron_ms == NOON);
}

/* --- Damage by chance --- */

static uint64_t chance;

static uint32_t draw(uint32_t below)
{
	chance = chance * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(chance >> 33) % below;
}

/* Deliveries, and runs in all states; returns how many runs were made. */
static int live(struct box *box, int steps)
{
	static const enum ledger_state on_its_way[] = { LEDGER_WRITTEN, LEDGER_STARTED, LEDGER_PARKED };
	static const enum ledger_state over[] = { LEDGER_DONE, LEDGER_CANCELLED };
	struct ledger_run run;
	int n = 0;

	begin(box, &lake_job);
	sqlite3_exec(box->q->db, "PRAGMA synchronous = OFF", NULL, NULL, NULL);
	for (int i = 0; i < steps; i++) {
		bring(box, draw(4) == 0 ? "_polls" : "a", "lake", i);
		if (draw(5) > 0)
			continue;
		run = make(box, ANY_JOB, ++n);
		for (int edges = (int)draw(4); edges > 0; edges--)
			put(box, &run, on_its_way[draw(3)]);
		if (draw(2) == 0)
			put(box, &run, over[draw(2)]);
	}
	return n;
}

/* Not the first page: whether a number there is a newer schema's is not asked here. */
static void damage(const char *path, const char *suffix)
{
	uint8_t noise[4096] = { 0 };
	bool page = draw(2) == 0;
	char full[200];
	struct stat st;
	FILE *file;

	snprintf(full, sizeof full, "%s%s", path, suffix);
	file = fopen(full, "r+");
	assert_non_null(file);
	assert_int_equal(fstat(fileno(file), &st), 0);
	for (int i = 1 + (int)draw(3); i > 0 && st.st_size > 8192; i--) {
		noise[0] = (uint8_t)draw(256);
		fseek(file, 4096 + (long)draw((uint32_t)st.st_size - 8192), SEEK_SET);
		assert_int_equal(fwrite(noise, page ? sizeof noise : 1, 1, file), 1);
	}
	fclose(file);
}

struct keys {
	char at[512][OBJECT_KEY_MAX];
	int n;
};

/* 0, or what reading them failed with. */
static int note_keys(struct box *box, const struct ledger_run *run, struct keys *keys)
{
	static struct ledger_object objects[256];
	bool over = run->state == LEDGER_DONE || run->state == LEDGER_CANCELLED;
	int n = ledger_objects(box->q, run->id, 0, objects, 256, &box->err);

	if (n < 0)
		return n;
	if (run->state != LEDGER_STARTED)
		assert_int_equal(n, over ? 0 : run->objects);
	for (int i = 0; i < n; i++) {
		for (int k = 0; k < keys->n; k++)
			assert_string_not_equal(keys->at[k], objects[i].key);
		memcpy(keys->at[keys->n++], objects[i].key, OBJECT_KEY_MAX);
	}
	return 0;
}

/*
 * Every run has all that it says, or nothing; no object is in two; and all goes on. 0, or -EBADMSG: it is damaged
 * still.
 */
static int check(struct box *box, int *n)
{
	static struct ledger_run runs[64];
	struct keys *keys = calloc(1, sizeof *keys);
	bool done;
	int r, found = 0;

	box_add(box, "a", 0, 9);
	assert_int_equal(box_seal(box, 0, true), 1);
	r = queue_delivered(box->q, box->batch.id, "lake", NOON, &done, &box->err);
	if (r == 0)
		r = 1;
	while (r == 1)
		r = try_make(box, ANY_JOB, ++*n, &runs[0]);
	if (r == 0)
		r = found = ledger_runs(box->q, NULL, runs, 64, &box->err);
	for (int i = 0; r >= 0 && i < found; i++)
		r = note_keys(box, &runs[i], keys);
	assert_true(r < 0 || (keys->n > 0 && found < 64));
	free(keys);
	return r;
}

static void test_damage_by_chance(void **state)
{
	const char *rounds = getenv("MILLRACE_DAMAGES");
	int salvaged = 0;

	for (int i = 1; i <= (rounds ? atoi(rounds) : 40); i++) {
		struct box *box = *state;
		int n;

		chance = (uint64_t)i;
		n = live(box, 20 + (int)draw(60));
		if (draw(2) == 0)
			sqlite3_wal_checkpoint_v2(box->q->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
		box_close(box);
		damage(box->path, "");
		damage(box->path, "-wal");
		box->q = queue_new(box->path, &box->identity);
		begin(box, &lake_job);
		do {
			int r = queue_start(box->q, true, &box->err);

			assert_in_range(r, 0, 1);
			salvaged += r;
		} while (check(box, &n) == -EBADMSG);
		assert_true(queue_is_sound(box->q));
		tear_down(state);
		set_up(state);
	}
	print_message("%d salvages\n", salvaged);
	assert_true(rounds || salvaged > 5);
}

/* --- Machines --- */

static void test_machines(void **state)
{
	struct ledger_machine machine = {
		.name = "mill", .state = LEDGER_WAKING, .since_ms = NOON, .ours = true, .reason = "job parking"
	};
	struct ledger_machine found;
	struct ledger_day days[LEDGER_DAYS + 1], add = { .day = 100, .wakes = 1 };
	struct box *box = *state;

	assert_int_equal(ledger_find_machine(box->q, "mill", &found, &box->err), -ENOENT);
	assert_int_equal(ledger_put_machine(box->q, &machine, NULL, &box->err), 0);
	assert_int_equal(ledger_days(box->q, "mill", days, 1, &box->err), 0);
	assert_int_equal(ledger_put_machine(box->q, &machine, &add, &box->err), 0);
	machine.state = LEDGER_UP;
	machine.ours = false;
	add.wakes = 0;
	add.awake_ms = 70000;
	assert_int_equal(ledger_put_machine(box->q, &machine, &add, &box->err), 0);
	box_reopen(box);
	assert_int_equal(ledger_find_machine(box->q, "mill", &found, &box->err), 0);
	assert_int_equal(found.state, LEDGER_UP);
	assert_false(found.ours);
	assert_true(found.since_ms == NOON);
	assert_string_equal(found.reason, "job parking");
	assert_int_equal(ledger_days(box->q, "mill", days, 1, &box->err), 1);
	assert_int_equal(days[0].day, 100);
	assert_int_equal(days[0].wakes, 1);
	assert_int_equal(days[0].awake_ms, 70000);
	sqlite3_exec(box->q->db, "PRAGMA synchronous = OFF", NULL, NULL, NULL);
	for (add.day = 101; add.day < 100 + LEDGER_DAYS + 5; add.day++)
		assert_int_equal(ledger_put_machine(box->q, &machine, &add, &box->err), 0);
	assert_int_equal(ledger_days(box->q, "mill", days, LEDGER_DAYS + 1, &box->err), LEDGER_DAYS);
	assert_int_equal(days[0].day, 100 + LEDGER_DAYS + 4);
	assert_int_equal(days[LEDGER_DAYS - 1].day, 105);
	/* Another one's are its own. */
	snprintf(machine.name, sizeof machine.name, "other");
	add.day = 200;
	assert_int_equal(ledger_put_machine(box->q, &machine, &add, &box->err), 0);
	assert_int_equal(ledger_days(box->q, "other", days, 2, &box->err), 1);
	assert_int_equal(ledger_days(box->q, "mill", days, LEDGER_DAYS + 1, &box->err), LEDGER_DAYS);
}

static void test_names_of_machines_that_are_long_gone(void **state)
{
	struct ledger_machine machine = { .since_ms = NOON };
	const struct ledger_day add = { .day = 100, .wakes = 1 };
	struct ledger_day day;
	struct box *box = *state;

	sqlite3_exec(box->q->db, "PRAGMA synchronous = OFF", NULL, NULL, NULL);
	for (int i = 0; i < 257; i++, machine.since_ms++) {
		snprintf(machine.name, sizeof machine.name, "m%d", i);
		assert_int_equal(ledger_put_machine(box->q, &machine, &add, &box->err), 0);
	}
	assert_int_equal(ledger_find_machine(box->q, "m0", &machine, &box->err), -ENOENT);
	assert_int_equal(ledger_days(box->q, "m0", &day, 1, &box->err), 0);
	assert_int_equal(ledger_find_machine(box->q, "m1", &machine, &box->err), 0);
}

/* --- A buffer from before there were jobs --- */

static void test_a_version_5_buffer(void **state)
{
	static const char *const tables[] = { "due", "job", "run", "machine", "machine_day" };
	struct box *box = *state;
	char sql[64];
	int64_t one;

	box_route(box, 2, MAX_BYTES, 1000);
	bring(box, "a", "lake", 1);
	one = seal(box, "a", 4);
	box_add(box, "b", 0, 3);
	box_close(box);
	for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
		snprintf(sql, sizeof sql, "DROP TABLE %s", tables[i]);
		box_ask(box, sql);
	}
	box_ask(box, "PRAGMA user_version = 5");
	box_open(box);
	begin(box, &lake_job);
	assert_int_equal(box_view(box, "a").waiting_batches, 2);
	assert_int_equal(box_view(box, "b").unsealed_records, 3);
	assert_int_equal(deliver(box, one, "lake", 2), 0);
	assert_string_equal(due(box, ANY_JOB), "1 0 2");
	box_close(box);
	assert_int_equal(box_ask(box, "PRAGMA user_version"), buffer_schema_count);
	box_open(box);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_a_delivery_is_due_by_source_and_store),
		TEST(test_polls_make_nothing_due_alone),
		TEST(test_two_jobs_on_one_object),
		TEST(test_a_batch_taken_over_is_due),
		TEST(test_what_a_store_has_lost_is_due_again),
		TEST(test_a_list_that_is_full),
		TEST(test_it_counts_across_a_restart),
		TEST(test_a_job_that_is_gone),
		TEST(test_a_job_that_is_gone_and_had_much),
		TEST(test_a_job_with_another_store),
		TEST(test_too_many_jobs),
		TEST(test_a_run),
		TEST(test_a_run_of_nothing),
		TEST(test_a_manifest_is_bounded),
		TEST(test_its_way),
		TEST(test_old_runs_go),
		TEST(test_a_delivery_that_fails_is_not_due),
		TEST(test_a_run_that_fails_has_changed_nothing),
		TEST(test_a_job_that_goes_while_the_card_fails),
		TEST(test_a_buffer_that_is_not_open),
		TEST(test_the_room_of_a_row),
		TEST(test_a_damaged_row),
		TEST(test_damage_while_it_runs),
		TEST(test_all_outlasts_a_salvage),
		TEST(test_a_run_that_has_lost_objects),
		TEST(test_a_job_whose_row_is_lost),
		TEST(test_a_run_that_was_never_made),
		TEST(test_the_last_version_counts),
		TEST(test_damage_by_chance),
		TEST(test_machines),
		TEST(test_names_of_machines_that_are_long_gone),
		TEST(test_a_version_5_buffer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
