/* SPDX-License-Identifier: Apache-2.0 */
/* What a store has lost is brought there again, as far as it is still here. */
#include "tests/unit/queue_box.h"

#define MAX_BYTES (INT64_C(8) << 20)

/* Four batches of 5 records each of source a, that both stores have. */
static void fill(struct box *box, int64_t ids[4])
{
	bool done;

	box_route(box, 2, MAX_BYTES, 1000);
	for (int i = 0; i < 4; i++) {
		box_add(box, "a", 0, 5);
		assert_int_equal(box_seal(box, 0, true), 1);
		ids[i] = box->batch.id;
		assert_int_equal(queue_delivered(box->q, ids[i], "lake", NOON, &done, &box->err), 0);
		assert_int_equal(queue_delivered(box->q, ids[i], "disk", NOON + 1, &done, &box->err), 0);
		assert_true(done);
	}
}

static uint64_t again(struct box *box, const char *store, uint64_t first, uint64_t last)
{
	uint64_t records = 99;

	if (queue_deliver_again(box->q, store, "a", first, last, &records, &box->err) < 0)
		fail_msg("%s", box->err.text);
	return records;
}

static int next(struct box *box, const char *store, int64_t after)
{
	return queue_next_delivery(box->q, store, after, &box->batch, &box->err);
}

/* The store's book as text: kind and range of each. */
static const char *books(struct box *box, const char *store)
{
	static char text[256];
	struct queue_range ranges[8];
	int n = queue_books(box->q, store, INT64_MIN, NULL, ranges, 8, &box->err);

	text[0] = '\0';
	for (int i = 0; i < n; i++)
		snprintf(text + strlen(text), sizeof text - strlen(text), "%c%d-%d ", "DWUL"[ranges[i].kind],
		         (int)ranges[i].first_seq, (int)ranges[i].last_seq);
	return text;
}

static void test_it_waits_for_that_store_alone(void **state)
{
	struct box *box = *state;
	int64_t ids[4];
	bool done;

	fill(box, ids);
	assert_string_equal(books(box, "lake"), "D1-20 ");
	assert_int_equal(again(box, "lake", 6, 10), 5);
	assert_string_equal(books(box, "lake"), "D1-5 W6-10 D11-20 ");
	assert_string_equal(books(box, "disk"), "D1-20 ");
	for (int i = 0; i < 2; i++) {
		assert_int_equal(next(box, "lake", 0), 0);
		assert_int_equal(box->batch.id, ids[1]);
		assert_int_equal(box->batch.stores_done, 1);
		assert_int_equal(next(box, "lake", ids[1]), -ENOENT);
		assert_int_equal(next(box, "disk", 0), -ENOENT);
		box_reopen(box);
		box_route(box, 2, MAX_BYTES, 1000);
	}
	assert_int_equal(queue_expire(box->q, NOON + DAY, 0, &box->err), 0); /* the others go */
	assert_int_equal(queue_delivered(box->q, ids[1], "lake", NOON, &done, &box->err), 0);
	assert_true(done);
	assert_string_equal(books(box, "lake"), "D1-20 ");
	assert_int_equal(box_view(box, "a").waiting_batches, 0);
}

static void test_every_batch_that_has_some_of_it(void **state)
{
	struct box *box = *state;
	int64_t ids[4];

	fill(box, ids);
	assert_int_equal(again(box, "disk", 3, 11), 9); /* whole batches go, but these records were asked for */
	assert_string_equal(books(box, "disk"), "W1-15 D16-20 ");
	assert_int_equal(again(box, "disk", 3, 11), 9); /* twice is as good as once */
	assert_string_equal(books(box, "disk"), "W1-15 D16-20 ");
	assert_int_equal(next(box, "disk", 0), 0);
	assert_int_equal(box->batch.id, ids[0]);
	assert_int_equal(box_view(box, "a").waiting_batches, 3);
}

static void test_what_is_gone_is_not_counted(void **state)
{
	struct box *box = *state;
	int64_t ids[4];

	fill(box, ids);
	assert_int_equal(queue_expire(box->q, NOON + DAY, 0, &box->err), 0);
	assert_int_equal(again(box, "lake", 1, 20), 0);
	assert_string_equal(books(box, "lake"), "D1-20 ");
	assert_int_equal(next(box, "lake", 0), -ENOENT);
}

static void test_more_batches_than_one_step_takes(void **state)
{
	struct box *box = *state;
	bool done;

	box_route(box, 1, MAX_BYTES, 1000);
	for (int i = 0; i < 150; i++) {
		box_add(box, "a", 0, 2);
		assert_int_equal(box_seal(box, 0, true), 1);
		assert_int_equal(queue_delivered(box->q, box->batch.id, "lake", NOON, &done, &box->err), 0);
	}
	assert_int_equal(again(box, "lake", 1, 299), 299);
	assert_string_equal(books(box, "lake"), "W1-300 ");
	assert_int_equal(box_view(box, "a").waiting_batches, 150);
}

static void test_a_store_that_the_source_does_not_go_to(void **state)
{
	struct box *box = *state;
	int64_t ids[4];
	uint64_t records;

	fill(box, ids);
	assert_int_equal(queue_deliver_again(box->q, "third", "a", 1, 5, &records, &box->err), -EINVAL);
	assert_int_equal(queue_deliver_again(box->q, "lake", "b", 1, 5, &records, &box->err), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOX_TEST(test_it_waits_for_that_store_alone),
		BOX_TEST(test_every_batch_that_has_some_of_it),
		BOX_TEST(test_what_is_gone_is_not_counted),
		BOX_TEST(test_more_batches_than_one_step_takes),
		BOX_TEST(test_a_store_that_the_source_does_not_go_to),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
