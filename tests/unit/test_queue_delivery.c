/* SPDX-License-Identifier: Apache-2.0 */
#include "buffer/queue_private.h"
#include "tests/unit/queue_box.h"

#define MAX_BYTES (INT64_C(8) << 20)

/* Seals one batch of the source; returns its id. */
static int64_t seal_one(struct box *box, const char *source)
{
	box_add(box, source, 0, 9);
	assert_int_equal(box_seal(box, 0, true), 1);
	return box->batch.id;
}

static bool deliver(struct box *box, int64_t id, const char *store, int64_t after_ms)
{
	bool done = false;

	assert_int_equal(queue_delivered(box->q, id, store, NOON + after_ms, &done, &box->err), 0);
	return done;
}

static struct queue_store_view store_view(struct box *box, const char *store)
{
	struct queue_view *view = queue_view(box->q);
	struct queue_store_view found = { .waiting_batches = 99 };

	for (size_t i = 0; i < view->n_stores; i++) {
		if (strcmp(view->stores[i].store, store) == 0)
			found = view->stores[i];
	}
	queue_view_free(view);
	return found;
}

static int next(struct box *box, const char *store, int64_t after)
{
	return queue_next_delivery(box->q, store, after, &box->batch, &box->err);
}

static void test_two_stores_at_their_own_pace(void **state)
{
	struct box *box = *state;
	int64_t one, two;

	box_route(box, 2, MAX_BYTES, 1000);
	one = seal_one(box, "a");
	two = seal_one(box, "b");
	assert_int_equal(next(box, "lake", 0), 0);
	assert_int_equal(box->batch.id, one);
	assert_int_equal(box->batch.records, 9);
	assert_int_equal(box->batch.stores_all, 2);
	assert_int_equal(box->batch.stores_done, 0);
	assert_int_equal(next(box, "lake", one), 0);
	assert_int_equal(box->batch.id, two);
	assert_int_equal(next(box, "lake", two), -ENOENT);
	assert_int_equal(next(box, "nobody", 0), -ENOENT);

	assert_false(deliver(box, one, "lake", 1));
	assert_int_equal(next(box, "lake", 0), 0);
	assert_int_equal(box->batch.id, two);
	assert_int_equal(next(box, "disk", 0), 0);
	assert_int_equal(box->batch.id, one);
	assert_int_equal(box->batch.stores_done, 1);
	assert_int_equal(store_view(box, "lake").waiting_batches, 1);
	assert_int_equal(store_view(box, "lake").delivered_batches, 1);
	assert_int_equal(store_view(box, "disk").waiting_batches, 2);
	assert_true(store_view(box, "disk").waiting_bytes > store_view(box, "lake").waiting_bytes);
	assert_int_equal(box_view(box, "a").waiting_batches, 1);

	/* Twice is as good as once. */
	assert_false(deliver(box, one, "lake", 2));
	assert_int_equal(store_view(box, "lake").delivered_batches, 1);
	assert_true(deliver(box, one, "disk", 3));
	assert_true(deliver(box, one, "disk", 4));
	assert_int_equal(box_view(box, "a").waiting_batches, 0);
	assert_true(box_view(box, "a").oldest_ms == 0);
	assert_int_equal(next(box, "disk", 0), 0);
	assert_int_equal(box->batch.id, two);
}

static void test_progress_survives_reopening(void **state)
{
	struct box *box = *state;
	int64_t one, two;
	struct batch batches[8];

	box_route(box, 2, MAX_BYTES, 1000);
	one = seal_one(box, "a");
	two = seal_one(box, "a");
	assert_false(deliver(box, one, "lake", 1));
	assert_false(deliver(box, two, "disk", 2));
	assert_true(deliver(box, two, "lake", 5));
	box_reopen(box);
	assert_int_equal(next(box, "lake", 0), -ENOENT); /* no stores are known yet */
	box_route(box, 2, MAX_BYTES, 1000);
	assert_int_equal(next(box, "lake", 0), -ENOENT);
	assert_int_equal(next(box, "disk", 0), 0);
	assert_int_equal(box->batch.id, one);
	assert_int_equal(next(box, "disk", one), -ENOENT);
	assert_int_equal(queue_batches(box->q, batches, 8, &box->err), 2);
	assert_int_equal(batches[0].id, two);
	assert_true(batches[0].delivered_ms == NOON + 5);
	assert_int_equal(batches[0].stores_done, 2);
	assert_int_equal(batches[1].stores_done, 1);
	assert_int_equal(batches[1].stores_all, 2);
	assert_true(batches[1].delivered_ms == 0);
	assert_int_equal(queue_batches(box->q, batches, 1, &box->err), 1);
	assert_int_equal(batches[0].id, two);
}

static void test_another_configuration_judges_what_waits_again(void **state)
{
	struct box *box = *state;
	int64_t one, two;
	struct batch batches[2];

	box_route(box, 2, MAX_BYTES, 1000);
	one = seal_one(box, "a");
	two = seal_one(box, "a");
	deliver(box, one, "lake", 7);
	box_route(box, 1, MAX_BYTES, 1000); /* "disk" is gone: lake has the first, so all have it */
	assert_int_equal(queue_batches(box->q, batches, 2, &box->err), 2);
	assert_true(batches[1].delivered_ms == NOON + 7);
	assert_int_equal(box_view(box, "a").waiting_batches, 1);
	box_route(box, 2, MAX_BYTES, 1000); /* it comes back: what was done stays done */
	assert_int_equal(next(box, "disk", 0), 0);
	assert_int_equal(box->batch.id, two);
	assert_int_equal(next(box, "lake", 0), 0);
	assert_int_equal(box->batch.id, two);
	box_reopen(box);
	box_route(box, 2, MAX_BYTES, 1000);
	assert_int_equal(next(box, "disk", 0), 0);
	assert_int_equal(box->batch.id, two);
}

static void test_a_source_goes_to_its_own_stores(void **state)
{
	struct box *box = *state;
	static const char *const stores[] = { "lake", "disk" }, *const disk[] = { "disk" };
	struct queue_route a = { .source = "a",
		                 .max_bytes = MAX_BYTES,
		                 .max_records = 1000,
		                 .max_age_ms = 1000,
		                 .stores = disk,
		                 .n_stores = 1 };
	int64_t one, two;

	assert_int_equal(queue_configure(box->q, stores, 2, &a, 1, &a, &box->err), 0);
	one = seal_one(box, "a");
	assert_int_equal(next(box, "lake", 0), -ENOENT);
	assert_int_equal(next(box, "disk", 0), 0);
	assert_int_equal(box->batch.stores_all, 1);
	assert_true(deliver(box, one, "disk", 0));
	/* To no store at all: nobody has it, so it waits. */
	a.n_stores = 0;
	assert_int_equal(queue_configure(box->q, stores, 2, &a, 1, &a, &box->err), 0);
	two = seal_one(box, "a");
	assert_int_equal(next(box, "disk", 0), -ENOENT);
	assert_false(deliver(box, two, "disk", 0));
	assert_int_equal(box_view(box, "a").waiting_batches, 1);
}

/* Before the stores are known nothing may count as delivered to all of them. */
static void test_no_stores_known_is_not_all_done(void **state)
{
	struct box *box = *state;
	int64_t one = seal_one(box, "a");

	assert_false(deliver(box, one, "lake", 0));
	box_reopen(box);
	assert_int_equal(box_view(box, "a").waiting_batches, 1);
	box_route(box, 1, MAX_BYTES, 1000);
	assert_int_equal(box_view(box, "a").waiting_batches, 0); /* lake had it */
}

static void test_expire(void **state)
{
	struct box *box = *state;
	struct bytes part;
	int64_t one, two;
	bool done = false;

	box_route(box, 1, MAX_BYTES, 1000);
	one = seal_one(box, "a");
	two = seal_one(box, "a");
	assert_true(deliver(box, one, "lake", 0));
	assert_int_equal(queue_expire(box->q, NOON + DAY - 1, DAY, &box->err), 0);
	bytes_init(&part, 1 << 20);
	assert_int_equal(queue_read_part(box->q, one, 0, &part, &box->err), 0);
	assert_int_equal(queue_expire(box->q, NOON + DAY, DAY, &box->err), 0);
	assert_int_equal(queue_read_part(box->q, one, 0, &part, &box->err), -ENOENT);
	assert_int_equal(queue_delivered(box->q, one, "lake", NOON, &done, &box->err), 0);
	assert_true(done);
	/* What waits stays, however old. */
	assert_int_equal(queue_expire(box->q, NOON + 1000 * DAY, 0, &box->err), 0);
	assert_int_equal(queue_read_part(box->q, two, 0, &part, &box->err), 0);
	assert_int_equal(queue_read_part(box->q, two, 1, &part, &box->err), -ENOENT);
	assert_int_equal(queue_read_part(box->q, two, -1, &part, &box->err), -ENOENT);
	assert_int_equal(queue_read_part(box->q, two, 1 << 16, &part, &box->err), -ENOENT);
	bytes_done(&part);
	box_close(box);
	assert_int_equal(box_ask(box, "SELECT count(*) FROM batch"), 1);
	assert_int_equal(box_ask(box, "SELECT count(*) FROM part"), 1);
	assert_int_equal(box_ask(box, "SELECT count(*) FROM delivery"), 0);
	box_open(box);
}

static void test_expire_takes_64_at_a_time(void **state)
{
	struct box *box = *state;
	struct queue_view *view;

	box_route(box, 1, MAX_BYTES, 1000);
	for (int i = 0; i < 70; i++)
		assert_true(deliver(box, seal_one(box, "a"), "lake", 0));
	assert_int_equal(queue_expire(box->q, NOON, 0, &box->err), 1);
	view = queue_view(box->q);
	assert_int_equal(view->batches, 6);
	queue_view_free(view);
	assert_int_equal(queue_expire(box->q, NOON, 0, &box->err), 0);
	view = queue_view(box->q);
	assert_int_equal(view->batches, 0);
	queue_view_free(view);
}

static uint64_t batches(struct box *box)
{
	struct queue_view *view = queue_view(box->q);
	uint64_t n = view->batches;

	queue_view_free(view);
	return n;
}

/* They wait for one store. */
static void seal_many(struct box *box, int n)
{
	sqlite3_exec(box->q->db, "PRAGMA synchronous = OFF", NULL, NULL, NULL);
	box_route(box, 1, MAX_BYTES, 1000);
	while (n-- > 0)
		seal_one(box, "a");
}

/* How much SQLite has done to find what is expired, since the last call. */
static int searched(struct box *box)
{
	return sqlite3_stmt_status(box->q->statements[SQL_BATCHES_FROM], SQLITE_STMTSTATUS_VM_STEP, 1);
}

static void test_expire_does_not_read_what_waits(void **state)
{
	struct box *box = *state;

	seal_many(box, 400);
	assert_int_equal(queue_expire(box->q, NOON, 0, &box->err), 0);
	deliver(box, 200, "lake", 0);
	assert_int_equal(queue_expire(box->q, NOON, 0, &box->err), 0);
	assert_int_equal(batches(box), 399);
	searched(box);
	deliver(box, 300, "lake", 0);
	deliver(box, 100, "lake", 10);
	assert_int_equal(queue_expire(box->q, NOON - 1, 0, &box->err), 0);
	assert_int_equal(searched(box), 0); /* it is too early for any */
	assert_int_equal(queue_expire(box->q, NOON + 9, 0, &box->err), 0);
	assert_int_equal(batches(box), 398);
	searched(box);
	deliver(box, 350, "lake", 20);
	assert_int_equal(queue_expire(box->q, NOON + 9, 0, &box->err), 0);
	assert_int_equal(searched(box), 0);
	assert_int_equal(queue_expire(box->q, NOON + 20, 0, &box->err), 0);
	assert_int_equal(batches(box), 396);
	searched(box);
	deliver(box, 351, "lake", 30);
	assert_int_equal(queue_expire(box->q, NOON + 30, 0, &box->err), 0);
	assert_in_range(searched(box), 1, 50);
	assert_int_equal(batches(box), 395);
}

/* Nothing is known at a start: it looks at some at a time, and what is delivered meanwhile is found too. */
static void test_expire_looks_at_some_at_a_time(void **state)
{
	struct box *box = *state;

	seal_many(box, 1100);
	deliver(box, 1, "lake", DAY);
	deliver(box, 2, "lake", 0);
	deliver(box, 1099, "lake", 0);
	box_reopen(box);
	sqlite3_exec(box->q->db, "PRAGMA synchronous = OFF", NULL, NULL, NULL);
	box_route(box, 1, MAX_BYTES, 1000);
	assert_int_equal(queue_expire(box->q, NOON, 0, &box->err), 1);
	assert_int_equal(batches(box), 1099);
	deliver(box, 500, "lake", 0);
	assert_int_equal(queue_expire(box->q, NOON, 0, &box->err), 1);
	assert_int_equal(batches(box), 1098);
	assert_int_equal(queue_expire(box->q, NOON, 0, &box->err), 0);
	assert_int_equal(batches(box), 1097);
	assert_int_equal(queue_expire(box->q, NOON + DAY, 0, &box->err), 0);
	assert_int_equal(batches(box), 1096);
	/* A judgement ends some too. */
	box_route(box, 2, MAX_BYTES, 1000);
	deliver(box, 700, "lake", 5);
	assert_int_equal(queue_expire(box->q, NOON + DAY, 0, &box->err), 0);
	assert_int_equal(batches(box), 1096);
	box_route(box, 1, MAX_BYTES, 1000);
	assert_int_equal(queue_expire(box->q, NOON + DAY, 0, &box->err), 0);
	assert_int_equal(batches(box), 1095);
}

/* The oldest that some store has not, whole; what all have is not touched. */
static void test_drop(void **state)
{
	struct box *box = *state;
	struct batch dropped = { .id = 0 };
	struct bytes part;
	int64_t one, two, three;

	box_route(box, 2, MAX_BYTES, 1000);
	assert_int_equal(queue_drop(box->q, NULL, 0, &dropped, &box->err), 0);
	one = seal_one(box, "a");
	two = seal_one(box, "b");
	three = seal_one(box, "a");
	deliver(box, one, "lake", 0);
	assert_true(deliver(box, one, "disk", 0));
	deliver(box, two, "lake", 0);
	assert_int_equal(queue_drop(box->q, NULL, 0, &dropped, &box->err), 1);
	assert_int_equal(dropped.id, two);
	assert_string_equal(dropped.source, "b");
	assert_int_equal(dropped.records, 9);
	assert_false(queue_waits(box->q, two));
	assert_true(queue_waits(box->q, three));
	assert_int_equal(batches(box), 2);
	bytes_init(&part, 1 << 20);
	assert_int_equal(queue_read_part(box->q, two, 0, &part, &box->err), -ENOENT);
	bytes_done(&part);
	assert_int_equal(box_view(box, "b").waiting_batches, 0);
	assert_int_equal(box_view(box, "b").waiting_records, 0);
	assert_int_equal(box_view(box, "b").dropped_records, 9);
	assert_int_equal(box_view(box, "a").dropped_records, 0);
	assert_int_equal(store_view(box, "lake").waiting_batches, 1);
	assert_int_equal(store_view(box, "disk").waiting_batches, 1);

	/* A delivery that was under way: it changes nothing. */
	assert_true(deliver(box, two, "disk", 0));
	assert_int_equal(store_view(box, "disk").delivered_batches, 1);

	assert_int_equal(queue_drop(box->q, NULL, 0, &dropped, &box->err), 1);
	assert_int_equal(dropped.id, three);
	assert_int_equal(queue_drop(box->q, NULL, 0, &dropped, &box->err), 0);
	box_reopen(box);
	assert_int_equal(box_view(box, "b").dropped_records, 9);
	assert_int_equal(box_view(box, "a").dropped_records, 9);
	assert_int_equal(batches(box), 1);
	box_route(box, 2, MAX_BYTES, 1000);
	assert_int_equal(next(box, "lake", 0), -ENOENT);
	/* Its id is not given out again. */
	assert_true(seal_one(box, "a") > three);
	box_close(box);
	assert_int_equal(box_ask(box, "SELECT count(*) FROM delivery"), 1);
	assert_int_equal(box_ask(box, "SELECT count(*) FROM part"), 2);
	box_open(box);
}

/* A carrier looks between the courier's list of what is under way and the drop that it is for. */
static void test_what_was_handed_out_is_not_dropped(void **state)
{
	struct box *box = *state;
	struct batch dropped;
	int64_t one, two, three;

	box_route(box, 2, MAX_BYTES, 1000);
	one = seal_one(box, "a");
	two = seal_one(box, "a");
	three = seal_one(box, "a");
	assert_int_equal(next(box, "lake", 0), 0);
	assert_int_equal(next(box, "disk", one), 0);
	assert_int_equal(box->batch.id, two);
	box_route(box, 2, MAX_BYTES, 1000); /* changes nothing */
	assert_int_equal(queue_drop(box->q, NULL, 0, &dropped, &box->err), 1);
	assert_int_equal(dropped.id, three);
	/* The next list has what is under way. */
	assert_int_equal(queue_drop(box->q, &one, 1, &dropped, &box->err), 1);
	assert_int_equal(dropped.id, two);
	assert_int_equal(next(box, "lake", 0), 0);
	assert_int_equal(queue_drop(box->q, NULL, 0, &dropped, &box->err), 0);
	assert_int_equal(queue_drop(box->q, NULL, 0, &dropped, &box->err), 1);
	assert_int_equal(dropped.id, one);
}

/* What the store has by now, or what it was handed before, is as any other. */
static void test_only_the_last_one_handed_out_is_held(void **state)
{
	struct box *box = *state;
	struct batch dropped;
	int64_t one, two;

	box_route(box, 2, MAX_BYTES, 1000);
	one = seal_one(box, "a");
	two = seal_one(box, "a");
	assert_int_equal(next(box, "lake", 0), 0);
	deliver(box, one, "lake", 0);
	assert_int_equal(queue_drop(box->q, NULL, 0, &dropped, &box->err), 1);
	assert_int_equal(dropped.id, one);
	seal_one(box, "a");
	assert_int_equal(next(box, "lake", 0), 0);
	assert_int_equal(box->batch.id, two);
	assert_int_equal(next(box, "lake", two), 0);
	assert_int_equal(queue_drop(box->q, NULL, 0, &dropped, &box->err), 1);
	assert_int_equal(dropped.id, two);
}

/* A batch that no store is to have is no loss of any. */
static void test_drop_of_what_goes_nowhere(void **state)
{
	struct box *box = *state;
	struct batch dropped;

	box_route(box, 0, MAX_BYTES, 1000);
	seal_one(box, "a");
	assert_int_equal(queue_drop(box->q, NULL, 0, &dropped, &box->err), 1);
	assert_int_equal(box_view(box, "a").dropped_records, 0);
	assert_int_equal(box_view(box, "a").waiting_batches, 0);
}

/* More than one transaction writes: all of them are told in the end. */
static void test_many_are_done_at_once(void **state)
{
	struct box *box = *state;

	box_route(box, 2, MAX_BYTES, 1000);
	for (int i = 0; i < 600; i++)
		deliver(box, seal_one(box, "a"), "lake", 1);
	assert_int_equal(store_view(box, "disk").waiting_batches, 600);
	assert_int_equal(next(box, "disk", 300), 0);
	assert_int_equal(box->batch.id, 301);
	box_route(box, 1, MAX_BYTES, 1000);
	assert_int_equal(box_view(box, "a").waiting_batches, 0);
	box_close(box);
	assert_int_equal(box_ask(box, "SELECT count(*) FROM batch WHERE delivered = 0"), 0);
	box_open(box);
}

/* A wrong "delivered" would let a batch expire that nobody has; a wrong part would stand in the lake for ever. */
static void test_damage_is_found(void **state)
{
	static const char *const damage[] = {
		"UPDATE batch SET delivered = 1",
		"UPDATE batch SET object = 'source=a/x'",
		"UPDATE part SET data = CAST(x'00' || substr(data, 2) AS BLOB)",
		"UPDATE delivery SET store = 'disk'",
		"UPDATE store SET place = '/elsewhere'",
	};
	struct box *box = *state;

	for (size_t i = 0; i < sizeof damage / sizeof *damage; i++) {
		struct bytes part;
		char place[512];
		int64_t id;
		int found = 0;

		box_route(box, 2, MAX_BYTES, 1000);
		id = seal_one(box, "a");
		deliver(box, id, "lake", 0);
		assert_int_equal(queue_set_store_place(box->q, "lake", "/mnt", &box->err), 0);
		box_close(box);
		box_ask(box, damage[i]);
		bytes_init(&part, 1 << 20);
		if (box_try(box) == -EBADMSG) {
			found = 1;
		} else {
			static const char *const stores[] = { "lake", "disk" };
			struct queue_route route = { .max_bytes = MAX_BYTES, .max_records = 9, .max_age_ms = 9 };

			found += queue_configure(box->q, stores, 2, NULL, 0, &route, &box->err) == -EBADMSG;
			found += queue_read_part(box->q, id, 0, &part, &box->err) == -EBADMSG;
			found += queue_store_place(box->q, "lake", place, sizeof place, &box->err) == -EBADMSG;
			if (found == 0)
				found += queue_expire(box->q, NOON, 0, &box->err) == -EBADMSG;
		}
		assert_true(found >= 1);
		assert_non_null(strstr(box->err.text, "is damaged"));
		bytes_done(&part);
		box_close(box);
		assert_int_equal(unlink(box->path), 0);
		box_open(box);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOX_TEST(test_two_stores_at_their_own_pace),
		BOX_TEST(test_progress_survives_reopening),
		BOX_TEST(test_another_configuration_judges_what_waits_again),
		BOX_TEST(test_a_source_goes_to_its_own_stores),
		BOX_TEST(test_no_stores_known_is_not_all_done),
		BOX_TEST(test_expire),
		BOX_TEST(test_expire_takes_64_at_a_time),
		BOX_TEST(test_expire_does_not_read_what_waits),
		BOX_TEST(test_expire_looks_at_some_at_a_time),
		BOX_TEST(test_drop),
		BOX_TEST(test_what_was_handed_out_is_not_dropped),
		BOX_TEST(test_only_the_last_one_handed_out_is_held),
		BOX_TEST(test_drop_of_what_goes_nowhere),
		BOX_TEST(test_many_are_done_at_once),
		BOX_TEST(test_damage_is_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
