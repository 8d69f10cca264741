/* SPDX-License-Identifier: Apache-2.0 */
#include "buffer/queue_private.h"
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
static void test_a_damaged_source_rests(void **state)
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
	assert_int_equal(box_seal(box, 0, true), 1);
	assert_string_equal(box->batch.source, "b");
	assert_int_equal(box_seal(box, 0, true), 0);
	assert_true(due(box, MINUTE / 2) == 15 * MINUTE - MINUTE / 2);
	assert_true(due(box, 15 * MINUTE) == 0);
	assert_int_equal(box_seal(box, 15 * MINUTE, false), -EBADMSG);
	assert_true(due(box, 15 * MINUTE + 1) == MINUTE - 1);
	assert_int_equal(sqlite3_exec(db, "UPDATE chunk SET lines = lines - 1", NULL, NULL, NULL), 0);
	assert_int_equal(box_seal(box, 15 * MINUTE + 1, false), 0);
	assert_int_equal(box_seal(box, 16 * MINUTE, false), 1);
	assert_int_equal(box->batch.records, 9);
	assert_int_equal(box->batch.first_seq, 1);
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
		BOX_TEST(test_a_damaged_source_rests),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
