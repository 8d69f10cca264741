/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/queue_box.h"

#include "buffer/schema.h"
#include "tests/row_crc.h"

#define MAX_BYTES (INT64_C(8) << 20)
#define MANY      256
#define ALL_DAYS  INT64_MIN
#define TODAY     INT64_C(20778) /* NOON's day */

static int64_t seal(struct box *box, const char *source, int64_t after_ms, int n)
{
	box_add(box, source, after_ms, n);
	assert_int_equal(box_seal(box, after_ms, true), 1);
	return box->batch.id;
}

static void deliver(struct box *box, int64_t id, const char *store)
{
	bool done;

	if (queue_delivered(box->q, id, store, NOON, &done, &box->err) < 0)
		fail_msg("%s", box->err.text);
}

/* All the books of a store as one text: "a 1-18 delivered; a 19-20 waiting; …", read in pages of `page`. */
static const char *books_from(struct box *box, const char *store, int64_t since, size_t page)
{
	static const char *const kinds[] = { "delivered", "waiting", "unsealed", "lost" };
	static char text[8192];
	struct queue_range ranges[MANY], after;
	size_t len = 0;
	int n = 0;

	text[0] = '\0';
	for (bool first = true; first || n > 0; first = false) {
		n = queue_books(box->q, store, since, first ? NULL : &after, ranges, page, &box->err);
		if (n < 0)
			return box->err.text;
		assert_in_range(n, 0, page);
		for (int i = 0; i < n; i++) {
			len += (size_t)snprintf(text + len, sizeof text - len, "%s%s %llu-%llu %s", len > 0 ? "; " : "",
			                        ranges[i].source, (unsigned long long)ranges[i].first_seq,
			                        (unsigned long long)ranges[i].last_seq, kinds[ranges[i].kind]);
			after = ranges[i];
		}
	}
	return text;
}

static const char *books(struct box *box, const char *store)
{
	return books_from(box, store, ALL_DAYS, MANY);
}

static void test_what_becomes_of_a_seq(void **state)
{
	struct box *box = *state;
	int64_t one, two;
	struct queue_range range;

	box_route(box, 2, MAX_BYTES, 1000);
	assert_string_equal(books(box, "lake"), "");
	one = seal(box, "b", 0, 9);
	two = seal(box, "a", 0, 3);
	box_add(box, "b", 0, 2);
	assert_string_equal(books(box, "lake"), "a 1-3 waiting; b 1-9 waiting; b 10-11 unsealed");
	deliver(box, one, "lake");
	assert_string_equal(books(box, "lake"), "a 1-3 waiting; b 1-9 delivered; b 10-11 unsealed");
	assert_string_equal(books(box, "disk"), "a 1-3 waiting; b 1-9 waiting; b 10-11 unsealed");
	assert_string_equal(books(box, "nobody"), "");
	deliver(box, two, "disk");
	deliver(box, one, "disk");
	deliver(box, two, "lake");
	assert_string_equal(books(box, "lake"), "a 1-3 delivered; b 1-9 delivered; b 10-11 unsealed");
	assert_int_equal(queue_books(box->q, "lake", ALL_DAYS, NULL, &range, 1, &box->err), 1);
	assert_string_equal(range.device, "pi-01");
	assert_int_equal(strlen(range.boot), 8);
	assert_true(range.day == TODAY);
	box_reopen(box);
	assert_string_equal(books(box, "lake"), "a 1-3 delivered; b 1-9 delivered");
	box_route(box, 2, MAX_BYTES, 1000);
	assert_string_equal(books(box, "lake"), "a 1-3 delivered; b 1-9 delivered; b 10-11 unsealed");
}

/* Every order in which four batches can arrive gives one row; the one left out stays a hole until it comes. */
static void test_merges_in_any_order(void **state)
{
	static const int orders[][4] = { { 0, 1, 2, 3 }, { 3, 2, 1, 0 }, { 0, 2, 1, 3 }, { 1, 3, 0, 2 },
		                         { 2, 0, 3, 1 }, { 0, 3, 1, 2 }, { 1, 2, 0, 3 }, { 3, 0, 2, 1 } };
	struct box *box = *state;
	char source[] = "a", expected[128];

	box_route(box, 1, MAX_BYTES, 1000);
	for (size_t i = 0; i < sizeof orders / sizeof *orders; i++, source[0]++) {
		int64_t ids[4], id;
		int missing = orders[i][3];

		for (int j = 0; j < 4; j++)
			ids[j] = seal(box, source, 0, 5);
		for (int j = 0; j < 3; j++) {
			id = ids[orders[i][j]];
			deliver(box, id, "lake");
			deliver(box, id, "lake");
		}
		snprintf(expected, sizeof expected, "%s %d-%d waiting", source, 5 * missing + 1, 5 * missing + 5);
		assert_non_null(strstr(books(box, "lake"), expected));
		deliver(box, ids[missing], "lake");
		deliver(box, ids[missing], "lake");
		snprintf(expected, sizeof expected, "%s 1-20 delivered", source);
		assert_non_null(strstr(books(box, "lake"), expected));
		assert_null(strstr(books(box, "lake"), "waiting"));
	}
	box_close(box);
	assert_int_equal(box_ask(box, "SELECT count(*) FROM book"), sizeof orders / sizeof *orders);
	box_open(box);
}

static void test_a_row_has_one_day_boot_and_device(void **state)
{
	struct box *box = *state;

	box_route(box, 1, MAX_BYTES, 1000);
	deliver(box, seal(box, "a", 0, 5), "lake");
	deliver(box, seal(box, "a", MINUTE, 5), "lake");
	deliver(box, seal(box, "a", DAY, 5), "lake");
	box->identity.kernel_boot_id = BOOT_B;
	box_reopen(box);
	box_route(box, 1, MAX_BYTES, 1000);
	deliver(box, seal(box, "a", DAY, 5), "lake");
	box->identity.device = "other-pi-2";
	box_reopen(box);
	box_route(box, 1, MAX_BYTES, 1000);
	deliver(box, seal(box, "a", DAY, 5), "lake");
	box_add(box, "a", DAY, 1);
	box_add(box, "a", DAY, 1);
	box_add(box, "a", 2 * DAY, 1);
	assert_string_equal(books(box, "lake"),
	                    "a 1-10 delivered; a 11-15 delivered; a 16-20 delivered; a 21-25 delivered; "
	                    "a 26-27 unsealed; a 28-28 unsealed");
	assert_string_equal(books_from(box, "lake", TODAY + 1, MANY),
	                    "a 11-15 delivered; a 16-20 delivered; a 21-25 delivered; a 26-27 unsealed; "
	                    "a 28-28 unsealed");
	assert_string_equal(books_from(box, "lake", TODAY + 2, 1), "a 28-28 unsealed");
	assert_string_equal(books_from(box, "lake", TODAY + 3, MANY), "");
}

/* Twelve batches of two sources, every third delivered: the same in pages of any size. (A range that goes on behind a
 * page's end would be told in two pieces.) */
static void test_pages(void **state)
{
	struct box *box = *state;
	char whole[8192];

	box_route(box, 1, MAX_BYTES, 1000);
	for (int i = 0; i < 12; i++) {
		int64_t id = seal(box, i % 2 ? "b" : "a", i * DAY, 5);

		if (i % 3 == 0)
			deliver(box, id, "lake");
	}
	box_add(box, "a", 12 * DAY, 1);
	box_add(box, "b", 12 * DAY, 1);
	box_add(box, "b", 13 * DAY, 1);
	snprintf(whole, sizeof whole, "%s", books(box, "lake"));
	assert_string_equal(whole, "a 1-5 delivered; a 6-10 waiting; a 11-15 waiting; a 16-20 delivered; a 21-25 "
	                           "waiting; a 26-30 waiting; a 31-31 unsealed; b 1-5 waiting; b 6-10 delivered; "
	                           "b 11-15 waiting; b 16-20 waiting; b 21-25 delivered; b 26-30 waiting; "
	                           "b 31-31 unsealed; b 32-32 unsealed");
	for (size_t page = 1; page < 20; page++)
		assert_string_equal(books_from(box, "lake", ALL_DAYS, page), whole);
}

/* What was unsealed on one page and delivered before the next is told once and whole. */
static void test_books_grow_between_pages(void **state)
{
	struct box *box = *state;
	struct queue_range one, two;

	box_route(box, 1, MAX_BYTES, 1000);
	deliver(box, seal(box, "a", 0, 5), "lake");
	assert_int_equal(queue_books(box->q, "lake", ALL_DAYS, NULL, &one, 1, &box->err), 1);
	assert_int_equal(one.last_seq, 5);
	deliver(box, seal(box, "a", 0, 5), "lake");
	assert_int_equal(queue_books(box->q, "lake", ALL_DAYS, &one, &two, 1, &box->err), 1);
	assert_int_equal(two.first_seq, 6);
	assert_int_equal(two.last_seq, 10);

	box_add(box, "a", 0, 5);
	assert_int_equal(queue_books(box->q, "lake", ALL_DAYS, &two, &one, 1, &box->err), 1);
	assert_int_equal(one.kind, QUEUE_UNSEALED);
	assert_int_equal(one.last_seq, 15);
	box_add(box, "a", 0, 5);
	assert_int_equal(box_seal(box, 0, true), 1);
	assert_int_equal(queue_books(box->q, "lake", ALL_DAYS, &one, &two, 1, &box->err), 1);
	assert_int_equal(two.kind, QUEUE_WAITING);
	assert_int_equal(two.first_seq, 16);
	assert_int_equal(two.last_seq, 20);
	deliver(box, box->batch.id, "lake");
	assert_int_equal(queue_books(box->q, "lake", ALL_DAYS, &one, &two, 1, &box->err), 1);
	assert_int_equal(two.kind, QUEUE_DELIVERED);
	assert_int_equal(two.first_seq, 16);
	assert_int_equal(queue_books(box->q, "lake", ALL_DAYS, &two, &one, 1, &box->err), 0);
}

static void test_books_outlive_their_batches(void **state)
{
	struct box *box = *state;

	box_route(box, 1, MAX_BYTES, 1000);
	for (int i = 0; i < 3; i++)
		deliver(box, seal(box, "a", 0, 5), "lake");
	assert_int_equal(queue_expire(box->q, NOON + DAY, 0, &box->err), 0);
	assert_string_equal(books(box, "lake"), "a 1-15 delivered");
	deliver(box, seal(box, "a", 0, 5), "lake");
	assert_string_equal(books(box, "lake"), "a 1-20 delivered");
	box_close(box);
	assert_int_equal(box_ask(box, "SELECT count(*) FROM book"), 1);
	box_open(box);
}

static void drop(struct box *box)
{
	struct batch dropped;

	assert_int_equal(queue_drop(box->q, NULL, 0, &dropped, &box->err), 1);
}

/* Lost for those stores that had it not; merged and read like what is delivered, in its place. */
static void test_what_is_dropped(void **state)
{
	static const char lake[] = "a 1-5 delivered; a 6-15 lost; a 16-20 delivered; a 21-25 lost; a 26-30 lost; "
	                           "a 31-35 waiting; a 36-37 unsealed";
	static const char disk[] = "a 1-20 lost; a 21-25 lost; a 26-30 delivered; a 31-35 waiting; a 36-37 unsealed";
	struct box *box = *state;
	int64_t ids[7];

	box_route(box, 2, MAX_BYTES, 1000);
	for (int i = 0; i < 7; i++)
		ids[i] = seal(box, "a", i < 4 ? 0 : i * DAY, 5);
	box_add(box, "a", 6 * DAY, 2);
	deliver(box, ids[0], "lake");
	deliver(box, ids[3], "lake");
	deliver(box, ids[5], "disk");
	for (int i = 0; i < 6; i++)
		drop(box);
	assert_string_equal(books(box, "lake"), lake);
	assert_string_equal(books(box, "disk"), disk);
	assert_int_equal(box_view(box, "a").dropped_records, 30);
	for (size_t page = 1; page < 9; page++)
		assert_string_equal(books_from(box, "lake", ALL_DAYS, page), lake);
	assert_string_equal(books_from(box, "lake", TODAY + 1, MANY),
	                    "a 21-25 lost; a 26-30 lost; a 31-35 waiting; a 36-37 unsealed");
	box_reopen(box);
	assert_int_equal(box_view(box, "a").dropped_records, 30);
	/* What is booked stays, wherever the source goes now. */
	assert_string_equal(books(box, "disk"), "a 1-20 lost; a 21-25 lost; a 26-30 delivered");
	box_close(box);
	assert_int_equal(box_ask(box, "SELECT count(*) FROM lost"), 5);
	box_open(box);
}

static void test_a_delivery_after_the_drop_changes_no_book(void **state)
{
	struct box *box = *state;
	int64_t id;

	box_route(box, 2, MAX_BYTES, 1000);
	id = seal(box, "a", 0, 5);
	drop(box);
	deliver(box, id, "lake");
	assert_string_equal(books(box, "lake"), "a 1-5 lost");
	assert_int_equal(box_view(box, "a").dropped_records, 5);
}

/* The day of a piece that was staged is that of its fetch. */
static void test_staged_pieces_have_the_day_of_their_fetch(void **state)
{
	struct box *box = *state;
	struct fetch *fetch = box_fetch("a", DAY, 9, ""), *end = box_fetch("a", DAY, 1, "");

	box_route(box, 1, MAX_BYTES, 1000);
	box_add(box, "a", DAY, 2);
	assert_int_equal(queue_stage(box->q, "a", fetch->first, &box->err), 0);
	assert_string_equal(books(box, "lake"), "a 1-2 unsealed");
	end->staged = 9;
	end->records += 9;
	assert_int_equal(box_commit(box, end), 0);
	assert_string_equal(books_from(box, "lake", TODAY + 1, MANY), "a 1-12 unsealed");
	assert_string_equal(books_from(box, "lake", TODAY + 2, 1), "");
	fetch_free(fetch);
}

/* A source that no longer goes to a store has nothing waiting for it there; what was delivered stays. */
static void test_another_route(void **state)
{
	static const char *const stores[] = { "lake", "disk" }, *const disk[] = { "disk" };
	struct queue_route a = { .source = "a", .max_bytes = MAX_BYTES, .max_records = 1000, .max_age_ms = 1000 };
	struct box *box = *state;

	box_route(box, 2, MAX_BYTES, 1000);
	deliver(box, seal(box, "a", 0, 5), "lake");
	seal(box, "a", 0, 5);
	box_add(box, "a", 0, 5);
	assert_string_equal(books(box, "lake"), "a 1-5 delivered; a 6-10 waiting; a 11-15 unsealed");
	a.stores = disk;
	a.n_stores = 1;
	assert_int_equal(queue_configure(box->q, stores, 2, &a, 1, &a, &box->err), 0);
	assert_string_equal(books(box, "lake"), "a 1-5 delivered");
	assert_string_equal(books(box, "disk"), "a 1-10 waiting; a 11-15 unsealed");
	box_route(box, 2, MAX_BYTES, 1000);
	assert_string_equal(books(box, "lake"), "a 1-5 delivered; a 6-10 waiting; a 11-15 unsealed");
}

/* A transaction that fails books nothing: neither delivery nor book. */
static void test_damage_is_found(void **state)
{
	static const char *const damage[] = {
		"UPDATE book SET last = 9",
		"UPDATE book SET device = 'pi-02'",
		"UPDATE book SET crc = 0",
	};
	struct box *box = *state;
	int64_t next;
	bool done;

	for (size_t i = 0; i < sizeof damage / sizeof *damage; i++) {
		box_route(box, 1, MAX_BYTES, 1000);
		deliver(box, seal(box, "a", 0, 5), "lake");
		next = seal(box, "a", 0, 5);
		box_close(box);
		box_ask(box, damage[i]);
		box_open(box);
		box_route(box, 1, MAX_BYTES, 1000);
		assert_non_null(strstr(books(box, "lake"), "is damaged: book lake: its checksum is wrong"));
		assert_int_equal(queue_delivered(box->q, next, "lake", NOON, &done, &box->err), -EBADMSG);
		box_close(box);
		assert_int_equal(box_ask(box, "SELECT count(*) FROM book"), 1);
		assert_int_equal(unlink(box->path), 0);
		box_open(box);
	}
}

static void test_damaged_losses_are_found(void **state)
{
	struct box *box = *state;

	box_route(box, 1, MAX_BYTES, 1000);
	seal(box, "a", 0, 5);
	drop(box);
	box_close(box);
	box_ask(box, "UPDATE lost SET last = 4");
	assert_int_equal(box_try(box), -EBADMSG);
	assert_non_null(strstr(box->err.text, "is damaged: lost lake: its checksum is wrong"));
}

/* --- A buffer from before there were books --- */

/* Writes what the closed buffer holds into a file of schema 1, made from 001.sql, and puts that in its place. */
static void go_back_to_version_1(struct box *box)
{
	static const char *const tables[] = { "buffer", "chunk", "part", "delivery", "store" };
	char old[200], wal[200], old_wal[210], sql[512];
	sqlite3 *db;

	snprintf(old, sizeof old, "%s.old", box->path);
	snprintf(wal, sizeof wal, "%s-wal", box->path);
	snprintf(old_wal, sizeof old_wal, "%s-wal", old);
	assert_int_equal(rename(box->path, old), 0);
	assert_int_equal(rename(wal, old_wal), 0);
	assert_int_equal(sqlite3_open(box->path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, buffer_schema[0], NULL, NULL, NULL), SQLITE_OK);
	snprintf(sql, sizeof sql, "PRAGMA application_id = 0x4d696c6c; PRAGMA user_version = 1; ATTACH '%s' AS old",
	         old);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
		snprintf(sql, sizeof sql, "INSERT INTO main.%s SELECT * FROM old.%s", tables[i], tables[i]);
		assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	}
	assert_int_equal(sqlite3_create_function(db, "row_crc", -1, SQLITE_UTF8, NULL, row_crc, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db,
	                              "INSERT INTO source SELECT id, name, seq, fetch, state, "
	                              "row_crc(id, name, seq, fetch, state) FROM old.source",
	                              NULL, NULL, NULL),
	                 SQLITE_OK);
	assert_int_equal(
	        sqlite3_exec(db,
	                     "INSERT INTO batch SELECT id, source, object, first, last, raw, bytes, sha256, oldest, "
	                     "sealed, delivered, row_crc(id, source, object, first, last, raw, bytes, sha256, oldest, "
	                     "sealed, delivered) FROM old.batch",
	                     NULL, NULL, NULL),
	        SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void test_a_version_1_buffer_gets_its_books(void **state)
{
	static const char expected[] = "a 1-10 delivered; a 11-15 delivered; a 16-20 waiting; a 21-25 delivered; "
	                               "long_name-x 1-11 delivered; long_name-x 12-12 unsealed";
	struct box *box = *state;
	int64_t ids[6];

	box_close(box);
	assert_int_equal(unlink(box->path), 0);
	box->identity.device = "my-pi-01.home";
	box_open(box);
	box_route(box, 3, MAX_BYTES, 1000); /* so that no batch is done: version 1 had every delivery's row */
	for (int i = 0; i < 5; i++)
		ids[i] = seal(box, "a", i >= 2 ? DAY : 0, 5);
	ids[5] = seal(box, "long_name-x", 0, 11);
	box_add(box, "long_name-x", 0, 1);
	for (int i = 0; i < 6; i++) {
		if (i != 3)
			deliver(box, ids[i], "lake");
	}
	deliver(box, ids[0], "disk");
	assert_string_equal(books(box, "lake"), expected);
	box_close(box);
	go_back_to_version_1(box);
	assert_int_equal(box_ask(box, "PRAGMA user_version"), 1);

	box_open(box);
	box_route(box, 2, MAX_BYTES, 1000);
	assert_string_equal(books(box, "lake"), expected);
	assert_string_equal(books(box, "disk"), "a 1-5 delivered; a 6-10 waiting; a 11-25 waiting; long_name-x 1-11 "
	                                        "waiting; long_name-x 12-12 unsealed");
	deliver(box, ids[3], "lake");
	assert_non_null(strstr(books(box, "lake"), "a 1-10 delivered; a 11-25 delivered; long"));
	box_close(box);
	assert_int_equal(box_ask(box, "PRAGMA user_version"), buffer_schema_count);
	assert_int_equal(box_ask(box, "SELECT count(*) FROM book"), 4);
	assert_int_equal(box_ask(box, "SELECT count(DISTINCT device) FROM book WHERE device = 'my-pi-01.home'"), 1);
	box_open(box);
}

static void test_a_new_buffer_has_empty_books(void **state)
{
	struct box *box = *state;

	box_close(box);
	assert_int_equal(box_ask(box, "SELECT count(*) FROM book"), 0);
	assert_int_equal(box_ask(box, "PRAGMA user_version"), buffer_schema_count);
	box_open(box);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOX_TEST(test_what_becomes_of_a_seq),
		BOX_TEST(test_merges_in_any_order),
		BOX_TEST(test_a_row_has_one_day_boot_and_device),
		BOX_TEST(test_pages),
		BOX_TEST(test_books_grow_between_pages),
		BOX_TEST(test_books_outlive_their_batches),
		BOX_TEST(test_what_is_dropped),
		BOX_TEST(test_a_delivery_after_the_drop_changes_no_book),
		BOX_TEST(test_staged_pieces_have_the_day_of_their_fetch),
		BOX_TEST(test_another_route),
		BOX_TEST(test_damage_is_found),
		BOX_TEST(test_damaged_losses_are_found),
		BOX_TEST(test_a_version_1_buffer_gets_its_books),
		BOX_TEST(test_a_new_buffer_has_empty_books),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
