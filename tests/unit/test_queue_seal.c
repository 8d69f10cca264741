/* SPDX-License-Identifier: Apache-2.0 */
#include "buffer/queue_private.h"
#include "tests/unit/broken_card.h"
#include "tests/unit/queue_box.h"

#define MAX_BYTES (INT64_C(8) << 20)

static int64_t due(const struct box *box, int64_t after_ms)
{
	return queue_seal_due_ms(box->q, NOON + after_ms, MONO + after_ms);
}

static void boot_of(const struct box *box, char ret_boot[OBJECT_BOOT])
{
	struct queue_view *view = queue_view(box->q);

	memcpy(ret_boot, view->boot, OBJECT_BOOT);
	queue_view_free(view);
}

static void test_an_object_is_exactly_its_lines(void **state)
{
	struct box *box = *state;
	struct bytes object, lines;
	struct fetch *fetch = fetch_new("parking");
	const char *record = "{\"b\": 1e999, \"a\":\"\xe2\x80\xa8\"}";
	char boot[OBJECT_BOOT], want[2048], key[OBJECT_KEY_MAX], sha8[9];
	struct sha256 hash;
	uint8_t sha256[SHA256_SIZE];

	boot_of(box, boot);
	fetch->wall_ms = NOON + 123;
	fetch->mono_ms = MONO;
	assert_int_equal(fetch_add(fetch, record, strlen(record), CHUNK_FULL), 0);
	assert_int_equal(fetch_add(fetch, "17", 2, CHUNK_FULL), 0);
	assert_int_equal(box_commit(box, fetch), 0);
	fetch = fetch_new("parking");
	fetch->wall_ms = NOON + 60123;
	fetch->mono_ms = MONO;
	fetch->clock = CHUNK_UNSYNCED;
	assert_int_equal(fetch_add(fetch, "[]", 2, CHUNK_FULL), 0);
	assert_int_equal(box_commit(box, fetch), 0);

	assert_int_equal(box_seal(box, 5 * MINUTE, true), 1);
	assert_int_equal(box_seal(box, 5 * MINUTE, true), 0);
	box_object(box, box->batch.id, &object, &lines);
	snprintf(want, sizeof want,
	         "{\"source\":\"parking\",\"device\":\"pi-01\",\"boot\":\"%s\",\"seq\":1,\"fetch\":1,"
	         "\"fetched_at\":\"2026-11-21T12:00:00.123Z\",\"clock\":\"synced\",\"data\":{\"b\": 1e999, "
	         "\"a\":\"\xe2\x80\xa8\"}}\n"
	         "{\"source\":\"parking\",\"device\":\"pi-01\",\"boot\":\"%s\",\"seq\":2,\"fetch\":1,"
	         "\"fetched_at\":\"2026-11-21T12:00:00.123Z\",\"clock\":\"synced\",\"data\":17}\n"
	         "{\"source\":\"parking\",\"device\":\"pi-01\",\"boot\":\"%s\",\"seq\":3,\"fetch\":2,"
	         "\"fetched_at\":\"2026-11-21T12:01:00.123Z\",\"clock\":\"unsynced\",\"data\":[]}\n",
	         boot, boot, boot);
	assert_int_equal(lines.len, strlen(want));
	assert_memory_equal(lines.data, want, lines.len);

	sha256_init(&hash);
	sha256_add(&hash, object.data, object.len);
	sha256_finish(&hash, sha256);
	snprintf(key, sizeof key, "source=parking/dt=2026-11-21/pi-01-%s-1-3-%s.ndjson.gz", boot,
	         sha256_hex(sha256, 8, sha8));
	assert_string_equal(box->batch.key, key);
	assert_memory_equal(box->batch.sha256, sha256, SHA256_SIZE);
	assert_string_equal(box->batch.source, "parking");
	assert_int_equal(box->batch.first_seq, 1);
	assert_int_equal(box->batch.last_seq, 3);
	assert_int_equal(box->batch.records, 3);
	assert_int_equal(box->batch.bytes, object.len);
	assert_int_equal(box->batch.raw_bytes, lines.len);
	assert_true(box->batch.sealed_ms == NOON + 5 * MINUTE);
	assert_true(box->batch.delivered_ms == 0);
	bytes_done(&object);
	bytes_done(&lines);
}

static void test_due_by_age(void **state)
{
	struct box *box = *state;

	box_route(box, 1, MAX_BYTES, 1000);
	assert_true(due(box, 0) == INT64_MAX);
	box_add(box, "a", 0, 9);
	box_add(box, "a", 5 * MINUTE, 9);
	assert_true(due(box, 5 * MINUTE) == 10 * MINUTE);
	assert_int_equal(box_seal(box, 15 * MINUTE - 1, false), 0);
	assert_true(due(box, 15 * MINUTE) == 0);
	assert_int_equal(box_seal(box, 15 * MINUTE, false), 1);
	assert_int_equal(box->batch.records, 18);
	assert_true(due(box, 15 * MINUTE) == INT64_MAX);
	assert_int_equal(box_seal(box, 15 * MINUTE, false), 0);
}

static void test_due_by_records_on_a_fetch_boundary(void **state)
{
	struct box *box = *state;

	box_route(box, 1, MAX_BYTES, 20);
	box_add(box, "a", 0, 9);
	box_add(box, "a", 1, 9);
	assert_int_equal(box_seal(box, 1, false), 0);
	box_add(box, "a", 2, 9);
	assert_true(due(box, 2) == 0);
	assert_int_equal(box_seal(box, 2, false), 1);
	assert_int_equal(box->batch.records, 18);
	assert_int_equal(box_seal(box, 2, false), 0); /* the third waits for company */
	assert_int_equal(box_view(box, "a").unsealed_records, 9);
	/* It is the oldest now. */
	assert_true(due(box, 2) == 15 * MINUTE);
	/* A fetch with more records than a batch may have is not parted for that. */
	box_add(box, "b", 3, 3000);
	assert_int_equal(box_seal(box, 3, false), 1);
	assert_int_equal(box->batch.records, 3000);
}

static void test_due_by_bytes(void **state)
{
	struct box *box = *state;
	uint64_t one;

	box_add(box, "a", 0, 9);
	one = box_view(box, "a").unsealed_bytes;
	box_route(box, 1, (int64_t)(3 * one + 20), 1000);
	box_add(box, "a", 1, 9);
	assert_int_equal(box_seal(box, 1, false), 0);
	box_add(box, "a", 2, 9);
	assert_int_equal(box_seal(box, 2, false), 0); /* seq 10 to 27 has a digit more, but it stays just below */
	box_add(box, "a", 3, 9);
	assert_int_equal(box_seal(box, 3, false), 1);
	assert_true(box->batch.raw_bytes <= 3 * one + 20);
	assert_int_equal(box->batch.records, 27);
	assert_int_equal(box_seal(box, 3, false), 0);
}

/* Only what is too large by itself is parted, and what follows keeps its numbers. */
static void test_an_oversized_fetch_is_parted(void **state)
{
	struct box *box = *state;
	uint64_t next = 4, records = 0;
	int batches = 0;

	box_route(box, 1, 300000, 1000000);
	box_add(box, "a", 0, 3);
	box_add(box, "a", 1, 10000);
	assert_int_equal(box_seal(box, 1, false), 1);
	assert_int_equal(box->batch.records, 3);
	while (box_seal(box, 1, false) == 1) {
		struct bytes object, lines;

		assert_int_equal(box->batch.first_seq, next);
		assert_true(box->batch.raw_bytes <= 300000);
		box_object(box, box->batch.id, &object, &lines);
		assert_int_equal(box_count_lines(&lines), box->batch.records);
		assert_int_equal(lines.len, box->batch.raw_bytes);
		bytes_done(&object);
		bytes_done(&lines);
		next = box->batch.last_seq + 1;
		records += box->batch.records;
		batches++;
		if (batches == 2) { /* in the middle of the fetch */
			box_reopen(box);
			box_route(box, 1, 300000, 1000000);
		}
	}
	assert_true(batches > 4);
	assert_int_equal(records + box_view(box, "a").unsealed_records, 10000);
	assert_int_equal(box_view(box, "a").fetches, 2);
	box_assert_state(box, "a", "a@1");
	box_add(box, "a", 2, 1);
	while (box_seal(box, 2, true) == 1)
		next = box->batch.last_seq + 1;
	assert_int_equal(next, 10005);
}

static void test_a_record_larger_than_a_batch_is_its_own(void **state)
{
	struct box *box = *state;
	struct fetch *fetch = fetch_new("a");
	static char record[100000];

	memset(record, '7', sizeof record);
	box_route(box, 1, 1000, 100);
	fetch->wall_ms = NOON;
	fetch->mono_ms = MONO;
	assert_int_equal(fetch_add(fetch, "1", 1, 1000), 0);
	assert_int_equal(fetch_add(fetch, record, sizeof record, 1000), 0);
	assert_int_equal(fetch_add(fetch, "3", 1, 1000), 0);
	assert_int_equal(box_commit(box, fetch), 0);
	for (int i = 1; i <= 2; i++)
		assert_int_equal(box_seal(box, 0, true), 1);
	assert_int_equal(box->batch.last_seq, 3);
	assert_int_equal(box_seal(box, 0, true), 0);
}

static void test_due_by_midnight(void **state)
{
	struct box *box = *state;
	int64_t midnight = DAY / 2;

	box_route(box, 1, MAX_BYTES, 1000);
	box_add(box, "a", midnight - 2 * MINUTE, 9);
	box_add(box, "a", midnight - 1, 1);
	assert_true(due(box, midnight - 1) == 1);
	assert_int_equal(box_seal(box, midnight - 1, false), 0);
	box_add(box, "a", midnight, 5);
	assert_int_equal(box_seal(box, midnight, false), 1);
	assert_int_equal(box->batch.records, 10);
	assert_non_null(strstr(box->batch.key, "/dt=2026-11-21/"));
	assert_int_equal(box_seal(box, midnight, false), 0);
	assert_int_equal(box_seal(box, midnight, true), 1);
	assert_int_equal(box->batch.records, 5);
	assert_non_null(strstr(box->batch.key, "/dt=2026-11-22/"));
}

static void test_due_by_another_boot_or_device(void **state)
{
	struct box *box = *state;
	char boot[OBJECT_BOOT];

	box_route(box, 1, MAX_BYTES, 1000);
	boot_of(box, boot);
	box_add(box, "a", 0, 9);
	box->identity.kernel_boot_id = BOOT_B;
	box_reopen(box);
	box_route(box, 1, MAX_BYTES, 1000);
	box_add(box, "a", 1, 1);
	/* The monotonic clock of another boot says nothing: this one is younger than the record. */
	assert_true(queue_seal_due_ms(box->q, NOON + 1, 10) == 0);
	assert_int_equal(queue_seal(box->q, NOON + 1, 10, false, &box->batch, &box->err), 1);
	assert_int_equal(box->batch.records, 9);
	assert_non_null(strstr(box->batch.key, boot));
	assert_int_equal(box_seal(box, 1, false), 0);
	box->identity.device = "pi-02";
	box_reopen(box);
	box_route(box, 1, MAX_BYTES, 1000);
	assert_int_equal(box_seal(box, 1, false), 1);
	assert_int_equal(box->batch.first_seq, 10);
	assert_non_null(strstr(box->batch.key, "/pi-01-"));
	boot_of(box, boot);
	assert_non_null(strstr(box->batch.key, boot));
}

/* A batch has one day whichever way the clock goes, and nothing spins or hangs. */
static void test_a_wall_clock_that_is_set_back(void **state)
{
	struct box *box = *state;
	struct fetch *fetch;

	box_route(box, 1, MAX_BYTES, 1000);
	box_add(box, "a", 0, 2);
	fetch = box_fetch("a", MINUTE, 3, "");
	fetch->wall_ms = NOON - 3 * DAY;
	assert_int_equal(box_commit(box, fetch), 0);
	assert_int_equal(queue_seal(box->q, NOON - 3 * DAY, MONO + MINUTE, false, &box->batch, &box->err), 0);
	assert_true(queue_seal_due_ms(box->q, NOON - 3 * DAY, MONO + MINUTE) == 14 * MINUTE);
	assert_int_equal(queue_seal(box->q, NOON - 3 * DAY, MONO + 15 * MINUTE, false, &box->batch, &box->err), 1);
	assert_int_equal(box->batch.records, 2);
	assert_int_equal(queue_seal(box->q, NOON - 3 * DAY, MONO + 15 * MINUTE, false, &box->batch, &box->err), 0);
	assert_int_equal(queue_seal(box->q, NOON - 3 * DAY, MONO + 16 * MINUTE, false, &box->batch, &box->err), 1);
	assert_int_equal(box->batch.records, 3);
	assert_non_null(strstr(box->batch.key, "/dt=2026-11-18/"));
}

static void test_empty_chunks_are_never_due(void **state)
{
	struct box *box = *state;

	box_route(box, 1, MAX_BYTES, 1000);
	box_add(box, "a", 0, 0);
	assert_true(due(box, DAY) == INT64_MAX);
	assert_int_equal(box_seal(box, DAY, true), 0);
	box_add(box, "b", 0, 3);
	box_add(box, "b", 1, 0);
	assert_int_equal(box_seal(box, DAY, false), 1);
	assert_int_equal(box->batch.records, 3);
	assert_int_equal(box_seal(box, DAY, true), 0);
	box_reopen(box);
	assert_int_equal(box_view(box, "b").fetches, 2);
	box_assert_state(box, "b", "b@1");
	box_assert_state(box, "a", "a@0");
}

static void test_a_sealed_source_goes_on_after_reopening(void **state)
{
	struct box *box = *state;

	box_add(box, "a", 0, 9);
	box_add(box, "a", 1, 9);
	assert_int_equal(box_seal(box, 1, true), 1);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(box_view(box, "a").records, 18);
		assert_int_equal(box_view(box, "a").fetches, 2);
		assert_int_equal(box_view(box, "a").unsealed_records, 0);
		assert_int_equal(box_view(box, "a").unsealed_bytes, 0);
		assert_int_equal(box_view(box, "a").waiting_records, 18);
		assert_true(box_view(box, "a").oldest_ms == NOON);
		box_assert_state(box, "a", "a@1");
		box_reopen(box);
	}
	box_add(box, "a", 2, 1);
	assert_int_equal(box_seal(box, 2, true), 1);
	assert_int_equal(box->batch.first_seq, 19);
	box_close(box);
	assert_int_equal(box_ask(box, "SELECT count(*) FROM chunk"), 0);
	box_open(box);
}

/* Larger than one part, in more than one chunk, and read back by other means. */
static void test_a_large_batch_is_stored_in_parts(void **state)
{
	struct box *box = *state;
	struct fetch *fetch = fetch_new("a");
	struct bytes object, lines;
	char record[64];
	uint64_t x = 1;

	fetch->wall_ms = NOON;
	fetch->mono_ms = MONO;
	for (int i = 0; i < 10000; i++) {
		x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		snprintf(record, sizeof record, "\"%016llx%016llx\"", (unsigned long long)x,
		         (unsigned long long)(x ^ x >> 7));
		assert_int_equal(fetch_add(fetch, record, strlen(record), CHUNK_FULL), 0);
	}
	assert_int_equal(box_commit(box, fetch), 0);
	assert_int_equal(box_seal(box, 0, true), 1);
	box_object(box, box->batch.id, &object, &lines);
	assert_int_equal(lines.len, box->batch.raw_bytes);
	assert_int_equal(box_count_lines(&lines), 10000);
	assert_true(object.len > 200000);
	bytes_done(&object);
	bytes_done(&lines);
	box_close(box);
	assert_int_equal(box_ask(box, "SELECT max(length(data)) FROM part"), 131072);
	assert_true(box_ask(box, "SELECT count(*) FROM part") >= 2);
	box_open(box);
}

static void test_ids_are_never_used_again(void **state)
{
	struct box *box = *state;
	bool done;
	int64_t id;

	box_route(box, 1, MAX_BYTES, 1000);
	box_add(box, "a", 0, 1);
	assert_int_equal(box_seal(box, 0, true), 1);
	id = box->batch.id;
	assert_int_equal(queue_delivered(box->q, id, "lake", NOON, &done, &box->err), 0);
	assert_int_equal(queue_expire(box->q, NOON, 0, &box->err), 0);
	box_reopen(box);
	box_add(box, "a", 1, 1);
	assert_int_equal(box_seal(box, 1, true), 1);
	assert_true(box->batch.id > id);
}

/* One source's damage does not hold up the others, and is not tried again at once. */
static void test_a_damaged_source_stops_all(void **state)
{
	struct box *box = *state;
	sqlite3 *db;

	box_route(box, 1, MAX_BYTES, 1000);
	box_add(box, "a", 0, 9);
	box_add(box, "b", 0, 9);
	/* Behind the queue's back, by its own handle: another one would not get the file. */
	db = box->q->db;
	assert_int_equal(sqlite3_exec(db, "UPDATE chunk SET lines = lines + 1 WHERE source = 'a'", NULL, NULL, NULL),
	                 0);
	assert_int_equal(box_seal(box, 0, true), -EBADMSG);
	assert_non_null(strstr(box->err.text, "source \"a\""));
	assert_non_null(strstr(box->err.text, "chunk"));
	assert_false(queue_is_sound(box->q));
	assert_int_equal(box_seal(box, 0, true), -EBADMSG);
	assert_non_null(strstr(box->err.text, "to be salvaged"));
}

/* --- In steps --- */

/* Records of 512 bytes that compress badly. */
static void add_large(struct box *box, const char *source, int64_t after_ms, int n)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	struct fetch *fetch = box_fetch(source, after_ms, 0, "");
	char record[512];
	uint64_t x = 1;

	for (int i = 0; i < n; i++) {
		size_t len = 1;

		record[0] = '"';
		while (len < sizeof record - 2) {
			x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
			record[len++] = letters[x >> 58];
		}
		record[len++] = '"';
		assert_int_equal(fetch_add(fetch, record, len, CHUNK_FULL), 0);
	}
	assert_int_equal(box_commit(box, fetch), 0);
}

static int64_t ask(const struct box *box, const char *sql)
{
	sqlite3_stmt *stmt;
	int64_t number;

	assert_int_equal(sqlite3_prepare_v2(box->q->db, sql, -1, &stmt, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
	number = sqlite3_column_int64(stmt, 0);
	sqlite3_finalize(stmt);
	return number;
}

#define NO_BATCHS_PARTS "SELECT count(*) FROM part WHERE id >> 16 NOT IN (SELECT id FROM batch)"

/* The batch at hand has these records of source "a", and the file has nothing of another. */
static void assert_sealed(struct box *box, uint64_t first, uint64_t last)
{
	struct bytes object, lines;
	char want[64];
	const char *at;

	assert_string_equal(box->batch.source, "a");
	assert_int_equal(box->batch.first_seq, first);
	assert_int_equal(box->batch.last_seq, last);
	box_object(box, box->batch.id, &object, &lines);
	assert_int_equal(object.len, box->batch.bytes);
	assert_int_equal(lines.len, box->batch.raw_bytes);
	assert_int_equal(box_count_lines(&lines), last - first + 1);
	at = (const char *)lines.data;
	for (uint64_t seq = first; seq <= last; seq++) {
		snprintf(want, sizeof want, "\"seq\":%llu,", (unsigned long long)seq);
		at = memmem(at, (size_t)((const char *)lines.data + lines.len - at), want, strlen(want));
		assert_non_null(at);
	}
	assert_int_equal(ask(box, NO_BATCHS_PARTS), 0);
	bytes_done(&object);
	bytes_done(&lines);
}

static void assert_same_view(struct box *box, const struct queue_source_view *before)
{
	struct queue_source_view view = box_view(box, before->source);

	assert_memory_equal(&view, before, sizeof view);
}

static void test_a_large_batch_takes_steps(void **state)
{
	struct box *box = *state;
	struct queue_source_view before;
	struct batch batches[2];
	int steps = 0, r;

	box_route(box, 1, MAX_BYTES, 100000);
	box_add(box, "a", 0, 3);
	assert_int_equal(box_step(box, 0, true), 1); /* a small one is made at once */
	add_large(box, "a", 1, 10000);
	before = box_view(box, "a");
	while ((r = box_step(box, 1, steps == 0)) == QUEUE_STEP) {
		steps++;
		assert_same_view(box, &before);
		assert_int_equal(queue_batches(box->q, batches, 2, &box->err), 1);
		assert_int_equal(queue_next_delivery(box->q, "lake", 1, &batches[0], &box->err), -ENOENT);
		assert_true(due(box, 1) == 0);
		assert_int_equal(ask(box, "SELECT sum(records) FROM chunk"), 10000);
	}
	assert_int_equal(r, 1);
	/* Lines of 6.5 MB, whose parts end a step before a megabyte of lines does. */
	assert_true(steps >= 7 && steps <= 12);
	assert_sealed(box, 4, 10003);
	assert_int_equal(ask(box, "SELECT count(*) FROM chunk"), 0);
	assert_int_equal(box_step(box, 1, true), 0);
	assert_true(due(box, 1) == INT64_MAX);
	box_reopen(box);
	assert_int_equal(box_view(box, "a").records, 10003);
	assert_int_equal(box_view(box, "a").unsealed_records, 0);
}

/* As parts they are next to nothing: it is the lines that end a step. */
static void test_a_step_is_a_megabyte_of_lines(void **state)
{
	struct box *box = *state;
	int steps = 0;

	box_route(box, 1, MAX_BYTES, 100000);
	box_add(box, "a", 0, 40000);
	assert_true(box_view(box, "a").unsealed_bytes > 5 << 20);
	while (box_step(box, 0, true) == QUEUE_STEP)
		steps++;
	assert_true(steps >= 4 && steps <= 7);
	assert_sealed(box, 1, 40000);
}

/* All that a daemon does may come between two steps; what is committed there comes into the next batch. */
static void test_a_life_between_two_steps(void **state)
{
	struct box *box = *state;
	struct bytes lines;
	struct batch batch;
	uint64_t next, records = 5003;
	bool done;
	int steps = 0;

	box_route(box, 1, MAX_BYTES, 100000);
	box_add(box, "a", 0, 3);
	assert_int_equal(box_step(box, 0, true), 1);
	add_large(box, "a", 1, 5000);
	bytes_init(&lines, 64 << 20);
	while (box_step(box, 1, true) == QUEUE_STEP) {
		struct fetch *fetch = box_fetch("a", 2 + steps, 9, "");
		struct fetch_piece piece = { .n = 1 };

		bytes_init(&piece.records, 100);
		assert_int_equal(chunk_add_record(&piece.records, "1", 1), 0);
		assert_int_equal(queue_stage(box->q, "a", &piece, &box->err), 0);
		if (steps % 2 == 0)
			assert_int_equal(queue_unstage(box->q, "a", &box->err), 0);
		bytes_done(&piece.records);
		assert_int_equal(box_commit(box, fetch), 0);
		records += 9;
		box_add(box, "b", 2, 1);
		bytes_clear(&lines);
		assert_int_equal(queue_read(box->q, "a", 4, SIZE_MAX, &lines, &next, &box->err), 0);
		assert_int_equal(box_count_lines(&lines), records - 3);
		assert_int_equal(next, records + 1);
		if (queue_next_delivery(box->q, "lake", 0, &batch, &box->err) == 0)
			assert_int_equal(queue_delivered(box->q, batch.id, "lake", NOON, &done, &box->err), 0);
		assert_int_equal(queue_expire(box->q, NOON + 1, 0, &box->err), 0);
		box_route(box, 1, MAX_BYTES, 10);
		steps++;
	}
	assert_true(steps >= 2);
	assert_sealed(box, 4, 5003);
	assert_int_equal(box_view(box, "a").unsealed_records, records - 5003);
	assert_true(box_view(box, "a").oldest_ms == NOON + 1);
	assert_int_equal(queue_delivered(box->q, box->batch.id, "lake", NOON, &done, &box->err), 0);
	assert_true(box_view(box, "a").oldest_ms == NOON + 2);
	box_reopen(box);
	assert_int_equal(box_view(box, "a").unsealed_records, records - 5003);
	box_route(box, 1, MAX_BYTES, 100000);
	assert_int_equal(box_seal(box, 9, true), 1);
	assert_sealed(box, 5004, records);
	bytes_done(&lines);
}

static void test_an_end_between_two_steps_loses_nothing(void **state)
{
	struct box *box = *state;
	struct queue_source_view before;
	bool ended = false;

	for (int after = 1; !ended; after++) {
		box_route(box, 1, MAX_BYTES, 100000);
		if (after == 1)
			add_large(box, "a", 0, 5000);
		before = box_view(box, "a");
		for (int i = 0; i < after && !ended; i++)
			ended = box_step(box, 1, true) == 1;
		if (ended)
			break;
		assert_same_view(box, &before);
		box_reopen(box);
		assert_same_view(box, &before);
		assert_true(ask(box, "SELECT count(*) FROM part") > 0);
	}
	assert_sealed(box, 1, 5000);
}

/* Whichever step fails, the source rests, the others go on, and the next sealing begins with a clean table. */
static void test_a_step_that_fails_gives_the_batch_up(void **state)
{
	struct box *box = *state;
	struct queue_source_view before;
	int64_t now = 0;
	int r;

	for (int good = 0;; good++, now += 2 * MINUTE) {
		box_route(box, 1, MAX_BYTES, 100000);
		if (good == 0)
			add_large(box, "a", 0, 5000);
		box_add(box, "b", 0, 1);
		before = box_view(box, "a");
		for (int i = 0; i < good; i++)
			if ((r = box_step(box, now, true)) != QUEUE_STEP)
				break;
		if (good > 0 && r == 1)
			break;
		card_errno = EIO;
		assert_true(box_step(box, now, true) < 0);
		card_errno = 0;
		assert_non_null(strstr(box->err.text, "source \"a\""));
		assert_same_view(box, &before);
		assert_int_equal(box_step(box, now, true), 1);
		assert_string_equal(box->batch.source, "b");
		assert_int_equal(ask(box, NO_BATCHS_PARTS), 0);
		assert_int_equal(box_step(box, now, true), 0);
		assert_true(due(box, now) > 0);
		if (good % 2 == 0)
			box_reopen(box); /* and nothing rests */
		assert_same_view(box, &before);
	}
	assert_sealed(box, 1, 5000);
	assert_true(now >= 6 * MINUTE); /* three steps, the last one among them */
}

static void test_a_step_without_room(void **state)
{
	struct box *box = *state;
	struct queue_source_view before;
	char sql[64];
	bool done;
	int r;

	box_route(box, 1, MAX_BYTES, 100000);
	add_large(box, "a", 0, 5000);
	before = box_view(box, "a");
	snprintf(sql, sizeof sql, "PRAGMA max_page_count = %lld", (long long)ask(box, "PRAGMA page_count") + 200);
	assert_int_equal(sqlite3_exec(box->q->db, sql, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(box_step(box, 0, true), QUEUE_STEP);
	while ((r = box_step(box, 0, true)) == QUEUE_STEP)
		;
	assert_int_equal(r, -ENOSPC);
	assert_same_view(box, &before);
	/* What is there of it goes before the next one begins, so that it has that much more room. */
	assert_true(ask(box, "SELECT count(*) FROM part") > 0);
	box_add(box, "b", 1, 1);
	assert_int_equal(box_step(box, 1, true), 1);
	assert_string_equal(box->batch.source, "b");
	assert_int_equal(ask(box, "SELECT count(*) FROM part"), 1);
	assert_int_equal(sqlite3_exec(box->q->db, "PRAGMA max_page_count = 100000", NULL, NULL, NULL), SQLITE_OK);
	/* It rests, until a batch is gone. */
	assert_int_equal(box_seal(box, 1, true), 0);
	assert_int_equal(queue_delivered(box->q, box->batch.id, "lake", NOON, &done, &box->err), 0);
	assert_int_equal(box_seal(box, 1, true), 0);
	assert_int_equal(queue_expire(box->q, NOON, 0, &box->err), 0);
	assert_int_equal(due(box, 1), 15 * MINUTE - 1);
	assert_int_equal(box_seal(box, 1, true), 1);
	assert_sealed(box, 1, 5000);
}

/* A chunk that is gone while its batch is made is found, and nothing spins. */
static void test_a_chunk_that_goes_between_two_steps(void **state)
{
	struct box *box = *state;
	int r;

	add_large(box, "a", 0, 5000);
	assert_int_equal(box_step(box, 0, true), QUEUE_STEP);
	assert_int_equal(
	        sqlite3_exec(box->q->db, "DELETE FROM chunk WHERE id = (SELECT max(id) FROM chunk)", NULL, NULL, NULL),
	        SQLITE_OK);
	while ((r = box_step(box, 0, true)) == QUEUE_STEP)
		;
	assert_int_equal(r, -EBADMSG);
	assert_non_null(strstr(box->err.text, "gone"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOX_TEST(test_an_object_is_exactly_its_lines),
		BOX_TEST(test_due_by_age),
		BOX_TEST(test_due_by_records_on_a_fetch_boundary),
		BOX_TEST(test_due_by_bytes),
		BOX_TEST(test_an_oversized_fetch_is_parted),
		BOX_TEST(test_a_record_larger_than_a_batch_is_its_own),
		BOX_TEST(test_due_by_midnight),
		BOX_TEST(test_due_by_another_boot_or_device),
		BOX_TEST(test_a_wall_clock_that_is_set_back),
		BOX_TEST(test_empty_chunks_are_never_due),
		BOX_TEST(test_a_sealed_source_goes_on_after_reopening),
		BOX_TEST(test_a_large_batch_is_stored_in_parts),
		BOX_TEST(test_ids_are_never_used_again),
		BOX_TEST(test_a_damaged_source_stops_all),
		BOX_TEST(test_a_large_batch_takes_steps),
		BOX_TEST(test_a_step_is_a_megabyte_of_lines),
		BOX_TEST(test_a_life_between_two_steps),
		BOX_TEST(test_an_end_between_two_steps_loses_nothing),
		BOX_TEST(test_a_step_that_fails_gives_the_batch_up),
		BOX_TEST(test_a_step_without_room),
		BOX_TEST(test_a_chunk_that_goes_between_two_steps),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
