/* SPDX-License-Identifier: Apache-2.0 */
/* Batches of another Millrace, which is a second buffer here. */
#include "tests/unit/queue_box.h"

#include "buffer/pack.h"

#define MAX_BYTES (INT64_C(8) << 20)

struct object {
	struct batch batch;
	struct bytes bytes;
};

/* The other Millrace: a fresh buffer of that device, whose source has sealed batches of `records` each. */
static void make_objects(struct box *box, const char *device, const char *source, const int *records, size_t n,
                         struct object *ret_objects)
{
	struct box other = { .identity = { .device = device, .kernel_boot_id = BOOT_B } };
	struct bytes lines;

	snprintf(other.path, sizeof other.path, "%s/%s-%s.db", box->folder, device, source);
	box_open(&other);
	box_route(&other, 1, 64 << 20, 1000000);
	for (size_t i = 0; i < n; i++) {
		box_add(&other, source, 0, records[i]);
		assert_int_equal(box_seal(&other, 0, true), 1);
		ret_objects[i].batch = other.batch;
		box_object(&other, other.batch.id, &ret_objects[i].bytes, &lines);
		bytes_done(&lines);
	}
	box_close(&other);
}

static void free_objects(struct object *objects, size_t n)
{
	for (size_t i = 0; i < n; i++)
		bytes_done(&objects[i].bytes);
}

static int begin(struct box *box, const struct object *o)
{
	return queue_import_begin(box->q, o->batch.key, o->bytes.len, o->batch.sha256, &box->err);
}

static int write_some(struct box *box, const struct object *o, size_t from, size_t to)
{
	int r = 0;

	for (; r == 0 && from < to; from += QUEUE_IMPORT_STEP) {
		size_t n = to - from < QUEUE_IMPORT_STEP ? to - from : QUEUE_IMPORT_STEP;

		r = queue_import_write(box->q, o->bytes.data + from, n, &box->err);
	}
	return r;
}

static int finish(struct box *box)
{
	return queue_import_finish(box->q, NOON + 7, &box->batch, &box->err);
}

/* All of it: 0: taken, 1: nothing was to be done, or -errno. */
static int take(struct box *box, const struct object *o)
{
	int r = begin(box, o);

	if (r != 0)
		return r;
	r = write_some(box, o, 0, o->bytes.len);
	if (r == 0)
		return finish(box);
	queue_import_abort(box->q);
	return r;
}

static void assert_holds(struct box *box, int64_t id, const struct object *o)
{
	struct bytes object, lines;

	box_object(box, id, &object, &lines);
	assert_int_equal(object.len, o->bytes.len);
	assert_memory_equal(object.data, o->bytes.data, object.len);
	bytes_done(&object);
	bytes_done(&lines);
}

static void test_it_waits_under_its_own_key_and_is_taken_once(void **state)
{
	struct box *box = *state;
	struct object o[2];
	struct batch found;
	bool done;

	box_route(box, 2, MAX_BYTES, 1000);
	make_objects(box, "pi-02", "a", (const int[]){ 9, 5 }, 2, o);
	assert_int_equal(take(box, &o[0]), 0);
	assert_true(box->batch.imported);
	assert_string_equal(box->batch.key, o[0].batch.key);
	assert_int_equal(box->batch.stores_all, 2);
	assert_int_equal(take(box, &o[0]), 1);
	assert_int_equal(queue_next_delivery(box->q, "lake", 0, &found, &box->err), 0);
	assert_int_equal(found.id, box->batch.id);
	assert_true(found.imported);
	assert_int_equal(found.records, 9);
	assert_int_equal(found.raw_bytes, o[0].batch.raw_bytes);
	assert_memory_equal(found.sha256, o[0].batch.sha256, SHA256_SIZE);
	assert_holds(box, found.id, &o[0]);

	/* Long after it was delivered and deleted, and after a restart, it is still known. */
	assert_int_equal(queue_delivered(box->q, found.id, "lake", NOON, &done, &box->err), 0);
	assert_int_equal(queue_delivered(box->q, found.id, "disk", NOON, &done, &box->err), 0);
	assert_true(done);
	assert_int_equal(queue_expire(box->q, NOON + DAY, 0, &box->err), 0);
	box_reopen(box);
	box_route(box, 2, MAX_BYTES, 1000);
	assert_int_equal(take(box, &o[0]), 1);
	assert_int_equal(take(box, &o[1]), 0);
	assert_true(box->batch.id > found.id); /* an id is never used again */
	assert_int_equal(take(box, &o[1]), 1);
	assert_int_equal(take(box, &o[0]), 1);
	free_objects(o, 2);
	box_close(box);
	assert_int_equal(box_ask(box, "SELECT count(*) FROM imported"), 1); /* the two are one range */
	assert_int_equal(box_ask(box, "SELECT last FROM imported"), 14);
}

/* Where damage has taken one that no store had, it can be brought again; and one that was delivered may be, too. */
static void test_one_that_damage_took_comes_again(void **state)
{
	struct box *box = *state;
	struct object o[3];
	int64_t lost;
	bool done;
	char sql[128];

	box_route(box, 2, MAX_BYTES, 1000);
	make_objects(box, "pi-02", "a", (const int[]){ 9, 5, 3 }, 3, o);
	assert_int_equal(take(box, &o[0]), 0);
	assert_int_equal(queue_delivered(box->q, box->batch.id, "lake", NOON, &done, &box->err), 0);
	assert_int_equal(queue_delivered(box->q, box->batch.id, "disk", NOON, &done, &box->err), 0);
	assert_int_equal(queue_expire(box->q, NOON + DAY, 0, &box->err), 0);
	assert_int_equal(take(box, &o[1]), 0);
	lost = box->batch.id;
	assert_int_equal(take(box, &o[2]), 0);
	box_close(box);
	snprintf(sql, sizeof sql, "UPDATE batch SET raw = raw + 1 WHERE id = %d", (int)lost);
	box_ask(box, sql); /* its close takes the WAL away, and with it the row as it was */
	box_open(box);
	box_route(box, 2, MAX_BYTES, 1000);
	assert_true(queue_last_salvage(box->q)->at_ms > 0);
	assert_int_equal(take(box, &o[2]), 1);
	assert_int_equal(take(box, &o[1]), 0);
	assert_int_equal(take(box, &o[1]), 1);
	assert_int_equal(take(box, &o[0]), 0);
	free_objects(o, 3);
}

static void test_it_is_in_no_book_and_moves_no_seq(void **state)
{
	struct box *box = *state;
	struct object o[1];
	struct queue_range range;
	bool done;

	box_route(box, 1, MAX_BYTES, 1000);
	box_add(box, "a", 0, 3); /* the same name and the same seqs as the other's */
	assert_int_equal(box_seal(box, 0, true), 1);
	int64_t own = box->batch.id;

	make_objects(box, "pi-02", "a", (const int[]){ 9 }, 1, o);
	assert_int_equal(take(box, &o[0]), 0);
	assert_int_equal(queue_delivered(box->q, box->batch.id, "lake", NOON, &done, &box->err), 0);
	assert_int_equal(queue_books(box->q, "lake", INT64_MIN, NULL, &range, 1, &box->err), 1);
	assert_int_equal(range.kind, QUEUE_WAITING);
	assert_int_equal(range.last_seq, 3);
	assert_int_equal(box_view(box, "a").records, 3);
	assert_int_equal(queue_delivered(box->q, own, "lake", NOON, &done, &box->err), 0);
	box_reopen(box);
	box_route(box, 1, MAX_BYTES, 1000);
	box_add(box, "a", 0, 1);
	assert_int_equal(box_view(box, "a").records, 4);
	assert_int_equal(queue_books(box->q, "lake", INT64_MIN, NULL, &range, 1, &box->err), 1);
	assert_int_equal(range.kind, QUEUE_DELIVERED);
	assert_int_equal(range.last_seq, 3);
	assert_int_equal(box_seal(box, 0, true), 1);
	assert_true(box->batch.id > own + 1);
	free_objects(o, 1);
}

static void test_ours_is_known_as_ours(void **state)
{
	struct box *box = *state;
	struct object o = { .bytes.data = NULL };
	struct bytes lines;
	bool done;

	box_route(box, 1, MAX_BYTES, 1000);
	box_add(box, "a", 0, 3);
	assert_int_equal(box_seal(box, 0, true), 1);
	o.batch = box->batch;
	box_object(box, o.batch.id, &o.bytes, &lines);
	assert_int_equal(begin(box, &o), 1); /* it waits */
	assert_int_equal(queue_delivered(box->q, o.batch.id, "lake", NOON, &done, &box->err), 0);
	assert_int_equal(queue_expire(box->q, NOON + DAY, 0, &box->err), 0);
	assert_int_equal(begin(box, &o), 1); /* it is booked */
	box->identity.kernel_boot_id = BOOT_B;
	box_reopen(box);
	assert_int_equal(begin(box, &o), 1); /* of an earlier boot */
	/* A part of it, and more: in another cut it would be there twice. */
	snprintf(strstr(o.batch.key, "-1-3-"), 32, "-2-4-%.8s.ndjson.gz", strrchr(box->batch.key, '-') + 1);
	assert_int_equal(begin(box, &o), -EEXIST);
	assert_non_null(strstr(box->err.text, "this buffer's own"));
	bytes_done(&o.bytes);
	bytes_done(&lines);
}

static void test_of_this_very_buffer_and_not_known_to_it(void **state)
{
	struct box *box = *state;
	struct object o = { .bytes.data = NULL };

	box_route(box, 1, MAX_BYTES, 1000);
	box_add(box, "a", 0, 3);
	assert_int_equal(box_seal(box, 0, true), 1);
	o.batch = box->batch;
	o.bytes.len = 100;
	snprintf(strstr(o.batch.key, "-1-3-"), 32, "-7-9-%.8s.ndjson.gz", strrchr(box->batch.key, '-') + 1);
	assert_int_equal(begin(box, &o), -EINVAL);
	assert_non_null(strstr(box->err.text, "this very buffer"));
}

static void test_what_overlaps_is_refused(void **state)
{
	struct box *box = *state;
	struct object o[2], all[1];

	box_route(box, 1, MAX_BYTES, 1000);
	make_objects(box, "pi-02", "a", (const int[]){ 4, 3 }, 2, o);
	make_objects(box, "pi-03", "a", (const int[]){ 7 }, 1, all);
	assert_int_equal(take(box, &o[1]), 0);
	assert_int_equal(take(box, &all[0]), 0); /* another device */
	/* 3 to 6 of which 5 to 7 are here: a key is enough, since it says so. */
	char *at = strstr(o[0].batch.key, "-1-4-");
	char sha8[9];

	snprintf(at, 32, "-3-6-%s.ndjson.gz", sha256_hex(o[0].batch.sha256, 8, sha8));
	assert_int_equal(begin(box, &o[0]), -EEXIST);
	assert_non_null(strstr(box->err.text, "taken over before"));
	snprintf(at, 32, "-5-6-%s.ndjson.gz", sha8);
	assert_int_equal(begin(box, &o[0]), 1);
	snprintf(at, 32, "-7-8-%s.ndjson.gz", sha8);
	assert_int_equal(begin(box, &o[0]), -EEXIST);
	free_objects(o, 2);
	free_objects(all, 1);
}

static void test_keys_that_are_none(void **state)
{
	struct box *box = *state;
	struct object o[1];

	make_objects(box, "pi-02", "a", (const int[]){ 4 }, 1, o);
	o[0].bytes.len = QUEUE_IMPORT_MAX + 1;
	assert_int_equal(begin(box, &o[0]), -EILSEQ);
	o[0].bytes.len = 0;
	assert_int_equal(begin(box, &o[0]), -EILSEQ);
	o[0].bytes.len = 100;
	o[0].batch.sha256[0] ^= 1;
	assert_int_equal(begin(box, &o[0]), -EILSEQ);
	strcpy(o[0].batch.key, "notes.txt");
	assert_int_equal(begin(box, &o[0]), -EINVAL);
	free_objects(o, 1);
}

/* The same bytes under a key whose place `from` says `to`. */
static int take_as(struct box *box, const struct object *o, const char *from, const char *to)
{
	struct object other = *o;
	char *at = strstr(other.batch.key, from), rest[OBJECT_KEY_MAX];

	assert_non_null(at);
	snprintf(rest, sizeof rest, "%s", at + strlen(from));
	snprintf(at, sizeof other.batch.key - (size_t)(at - other.batch.key), "%s%s", to, rest);
	return take(box, &other);
}

static void test_content_that_is_not_what_its_key_says(void **state)
{
	struct box *box = *state;
	struct object o[1];
	struct batch batches[2];

	box_route(box, 1, MAX_BYTES, 1000);
	make_objects(box, "pi-02", "a", (const int[]){ 4 }, 1, o);
	assert_int_equal(take_as(box, &o[0], "-1-4-", "-1-5-"), -EILSEQ);
	assert_non_null(strstr(box->err.text, "other seqs"));
	assert_int_equal(take_as(box, &o[0], "-1-4-", "-2-5-"), -EILSEQ);
	assert_int_equal(take_as(box, &o[0], "pi-02", "pi-03"), -EILSEQ);
	assert_int_equal(take_as(box, &o[0], "source=a", "source=b"), -EILSEQ);
	assert_int_equal(take_as(box, &o[0], "dt=2026-11-21", "dt=2026-11-22"), -EILSEQ);
	assert_non_null(strstr(box->err.text, "another day"));

	o[0].bytes.data[o[0].bytes.len / 2] ^= 4; /* a byte that has tipped over */
	assert_int_equal(take(box, &o[0]), -EILSEQ);
	o[0].bytes.data[o[0].bytes.len / 2] ^= 4;
	assert_int_equal(begin(box, &o[0]), 0); /* cut short */
	assert_int_equal(write_some(box, &o[0], 0, o[0].bytes.len - 1), 0);
	assert_int_equal(finish(box), -EILSEQ);
	assert_non_null(strstr(box->err.text, "cut short"));
	assert_int_equal(begin(box, &o[0]), 0); /* longer than announced */
	assert_int_equal(write_some(box, &o[0], 0, o[0].bytes.len), 0);
	assert_int_equal(queue_import_write(box->q, "x", 1, &box->err), -EILSEQ);
	queue_import_abort(box->q);
	assert_int_equal(queue_batches(box->q, batches, 2, &box->err), 0);
	assert_int_equal(take(box, &o[0]), 0); /* nothing of all that is held against it */
	free_objects(o, 1);
}

/* An object of about that many bytes: text that does not compress. */
static void make_large(struct box *box, const char *device, size_t bytes, struct object *ret_object)
{
	struct box other = { .identity = { .device = device, .kernel_boot_id = BOOT_B } };
	struct fetch *fetch = fetch_new("a");
	char *record = malloc(8192);
	struct bytes lines;

	snprintf(other.path, sizeof other.path, "%s/%s.db", box->folder, device);
	box_open(&other);
	box_route(&other, 1, 64 << 20, 1000000);
	srand(1);
	for (size_t at = 0; at * 3 / 4 < bytes; at += 8192) {
		for (size_t i = 0; i < 8192; i++)
			record[i] = (char)('0' + rand() % 64);
		record[0] = record[8191] = '"';
		for (size_t i = 1; i < 8191; i++)
			record[i] = record[i] == '\\' ? '~' : record[i];
		assert_int_equal(fetch_add(fetch, record, 8192, CHUNK_FULL), 0);
	}
	fetch->wall_ms = NOON;
	assert_int_equal(box_commit(&other, fetch), 0);
	assert_int_equal(box_seal(&other, 0, true), 1);
	ret_object->batch = other.batch;
	box_object(&other, other.batch.id, &ret_object->bytes, &lines);
	bytes_done(&lines);
	box_close(&other);
	free(record);
}

static void test_a_crash_in_the_middle_leaves_nothing(void **state)
{
	struct box *box = *state;
	struct object o;

	box_route(box, 1, MAX_BYTES, 1000);
	make_large(box, "pi-02", 2 << 20, &o);
	assert_int_equal(begin(box, &o), 0);
	assert_int_equal(write_some(box, &o, 0, o.bytes.len * 3 / 4), 0);
	box_close(box);
	assert_true(box_ask(box, "SELECT count(*) FROM part") > 8);
	box_open(box);
	box_route(box, 1, MAX_BYTES, 1000);
	assert_int_equal(take(box, &o), 0);
	assert_holds(box, box->batch.id, &o);
	box_close(box);
	assert_int_equal(box_ask(box, "SELECT count(*) FROM part WHERE id >> 16 NOT IN (SELECT id FROM batch)"), 0);
	assert_int_equal(box_ask(box, "SELECT count(*) FROM batch"), 1);
	bytes_done(&o.bytes);
}

static void test_sealing_goes_on_meanwhile(void **state)
{
	struct box *box = *state;
	struct object o;
	int64_t first, second;
	struct bytes object, lines;

	box_route(box, 1, MAX_BYTES, 1000);
	make_large(box, "pi-02", 2 << 20, &o);
	assert_int_equal(begin(box, &o), 0);
	assert_int_equal(write_some(box, &o, 0, o.bytes.len / 2), 0);
	box_add(box, "a", 0, 3);
	assert_int_equal(box_seal(box, 0, true), 1);
	first = box->batch.id;
	assert_int_equal(write_some(box, &o, o.bytes.len / 2, o.bytes.len), 0);
	box_add(box, "a", 0, 4);
	assert_int_equal(box_seal(box, 0, true), 1);
	second = box->batch.id;
	assert_int_equal(finish(box), 0);
	assert_true(box->batch.id < first && first < second);
	assert_holds(box, box->batch.id, &o);
	box_object(box, first, &object, &lines);
	assert_int_equal(box_count_lines(&lines), 3);
	bytes_done(&object);
	bytes_done(&lines);

	/* What waits is in order, after a restart too. */
	for (int i = 0; i < 2; i++) {
		struct batch batches[4];

		assert_int_equal(queue_batches_waiting(box->q, 0, batches, 4, &box->err), 3);
		assert_int_equal(batches[0].id, box->batch.id);
		assert_int_equal(batches[2].id, second);
		assert_int_equal(queue_batches_waiting(box->q, first, batches, 4, &box->err), 1);
		assert_int_equal(queue_batches_waiting(box->q, 0, batches, 2, &box->err), 2);
		box_reopen(box);
		box_route(box, 1, MAX_BYTES, 1000);
	}
	bytes_done(&o.bytes);
}

static void test_what_lies_below_the_last_batch_goes_too(void **state)
{
	static const char stray[] = "SELECT count(*) FROM part WHERE id >> 16 NOT IN (SELECT id FROM batch)";
	struct box *box = *state;
	struct object o;

	box_route(box, 1, MAX_BYTES, 1000);
	make_large(box, "pi-02", 2 << 20, &o);
	/* Given up while a batch with a higher id is there. */
	assert_int_equal(begin(box, &o), 0);
	assert_int_equal(write_some(box, &o, 0, o.bytes.len / 2), 0);
	box_add(box, "a", 0, 3);
	assert_int_equal(box_seal(box, 0, true), 1);
	queue_import_abort(box->q);
	box_close(box);
	assert_int_equal(box_ask(box, stray), 0);

	/* Killed there. */
	box_open(box);
	box_route(box, 1, MAX_BYTES, 1000);
	assert_int_equal(begin(box, &o), 0);
	assert_int_equal(write_some(box, &o, 0, o.bytes.len / 2), 0);
	box_add(box, "a", 0, 3);
	assert_int_equal(box_seal(box, 0, true), 1);
	box_close(box);
	assert_true(box_ask(box, stray) > 4);
	box_open(box);
	box_close(box);
	assert_int_equal(box_ask(box, stray), 0);
	assert_int_equal(box_ask(box, "SELECT count(*) FROM batch"), 2);
	bytes_done(&o.bytes);
}

static void test_it_asks_for_room_and_leaves_some(void **state)
{
	struct box *box = *state;
	const struct queue_bounds bounds = { .max_size = 16 << 20, .max_record = 1 << 20 };
	struct queue_view *view;
	struct object o[3];
	int r = 0, taken = 0;

	box_route(box, 1, MAX_BYTES, 1000);
	assert_int_equal(queue_bound(box->q, &bounds, &box->err), 0);
	make_large(box, "pi-02", 3 << 20, &o[0]);
	make_large(box, "pi-03", 3 << 20, &o[1]);
	make_large(box, "pi-04", 3 << 20, &o[2]);
	for (int i = 0; r == 0 && i < 3; i++) {
		r = take(box, &o[i]);
		taken += r == 0;
	}
	assert_int_equal(r, -ENOSPC);
	assert_true(taken >= 1);
	view = queue_view(box->q);
	assert_false(view->full);
	assert_false(view->wanted); /* nobody drops anything for it */
	queue_view_free(view);
	box_add(box, "a", 0, 3);
	free_objects(o, 3);
}

static void test_what_was_dropped_may_come_again(void **state)
{
	struct box *box = *state;
	struct object o[3];

	box_route(box, 1, MAX_BYTES, 1000);
	make_objects(box, "pi-02", "a", (const int[]){ 4, 3, 2 }, 3, o);
	assert_int_equal(take(box, &o[1]), 0);
	for (int i = 0; i < 3; i += 2)
		assert_int_equal(take(box, &o[i]), 0);
	assert_int_equal(queue_drop(box->q, NULL, 0, &box->batch, &box->err), 1);
	assert_string_equal(box->batch.key, o[1].batch.key);
	assert_int_equal(box_view(box, "a").dropped_records, 0); /* none of ours */
	assert_int_equal(take(box, &o[0]), 1);
	assert_int_equal(take(box, &o[2]), 1);
	assert_int_equal(take(box, &o[1]), 0);
	assert_int_equal(take(box, &o[1]), 1);
	free_objects(o, 3);
}

static void test_a_source_of_its_own_route(void **state)
{
	struct box *box = *state;
	static const char *const stores[] = { "lake", "disk" }, *const disk[] = { "disk" };
	struct queue_route a = { .source = "a",
		                 .max_bytes = MAX_BYTES,
		                 .max_records = 1000,
		                 .max_age_ms = 1000,
		                 .stores = disk,
		                 .n_stores = 1 },
	                   all = { .max_bytes = MAX_BYTES, .max_records = 1000, .max_age_ms = 1000 };
	struct object o[1], b[1];

	assert_int_equal(queue_configure(box->q, stores, 2, &a, 1, &all, &box->err), 0);
	make_objects(box, "pi-02", "a", (const int[]){ 4 }, 1, o);
	make_objects(box, "pi-02", "b", (const int[]){ 4 }, 1, b);
	assert_int_equal(take(box, &o[0]), 0);
	assert_int_equal(box->batch.stores_all, 1);
	assert_int_equal(take(box, &b[0]), 0); /* a source that nobody knows here */
	assert_int_equal(box->batch.stores_all, 2);
	assert_int_equal(box_view(box, "b").waiting_records, 4);
	assert_int_equal(box_view(box, "b").records, 0);
	free_objects(o, 1);
	free_objects(b, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOX_TEST(test_it_waits_under_its_own_key_and_is_taken_once),
		BOX_TEST(test_one_that_damage_took_comes_again),
		BOX_TEST(test_it_is_in_no_book_and_moves_no_seq),
		BOX_TEST(test_ours_is_known_as_ours),
		BOX_TEST(test_of_this_very_buffer_and_not_known_to_it),
		BOX_TEST(test_what_overlaps_is_refused),
		BOX_TEST(test_keys_that_are_none),
		BOX_TEST(test_content_that_is_not_what_its_key_says),
		BOX_TEST(test_a_crash_in_the_middle_leaves_nothing),
		BOX_TEST(test_sealing_goes_on_meanwhile),
		BOX_TEST(test_what_lies_below_the_last_batch_goes_too),
		BOX_TEST(test_it_asks_for_room_and_leaves_some),
		BOX_TEST(test_what_was_dropped_may_come_again),
		BOX_TEST(test_a_source_of_its_own_route),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
