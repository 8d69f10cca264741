/* SPDX-License-Identifier: Apache-2.0 */
#include "buffer/queue_private.h"
#include "tests/unit/queue_box.h"

/* Checks that the lines are whole and have the seqs from first on. */
static void assert_seqs(const struct bytes *lines, uint64_t first, uint64_t n)
{
	const char *at = (const char *)lines->data, *end = at + lines->len;

	for (uint64_t i = 0; i < n; i++) {
		const char *feed = memchr(at, '\n', (size_t)(end - at));
		char want[40];

		assert_non_null(feed);
		assert_memory_equal(at, "{\"source\":\"a\",", 14);
		assert_memory_equal(feed - 2, "}}", 2);
		snprintf(want, sizeof want, "\"seq\":%llu,", (unsigned long long)(first + i));
		assert_non_null(memmem(at, (size_t)(feed - at), want, strlen(want)));
		at = feed + 1;
	}
	assert_ptr_equal(at, end);
}

static void tail(struct box *box, size_t n, size_t ceiling, struct bytes *ret_lines)
{
	bytes_init(ret_lines, ceiling);
	if (queue_tail(box->q, "a", n, ret_lines, &box->err) < 0)
		fail_msg("%s", box->err.text);
}

/* Two batches of 18 and 9, then chunks of 9 and 1 and an empty one, and another source between them. */
static void fill(struct box *box)
{
	box_add(box, "a", 0, 9);
	box_add(box, "b", 0, 9);
	box_add(box, "a", 1, 9);
	while (box_seal(box, 1, true) == 1)
		;
	box_add(box, "a", 2, 9);
	assert_int_equal(box_seal(box, 2, true), 1);
	box_add(box, "a", 3, 9);
	box_add(box, "a", 4, 1);
	box_add(box, "a", 5, 0);
}

static void test_tail_over_batches_and_chunks(void **state)
{
	static const size_t numbers[] = { 0, 1, 2, 10, 11, 19, 20, 36, 37, 38, 1000, SIZE_MAX };
	struct box *box = *state;

	fill(box);
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
		struct bytes lines;
		size_t n = numbers[i] < 37 ? numbers[i] : 37;

		tail(box, numbers[i], 1 << 20, &lines);
		assert_seqs(&lines, 38 - n, n);
		bytes_done(&lines);
	}
}

/* The same bytes, sealed or not. */
static void test_tail_shows_what_the_object_holds(void **state)
{
	struct box *box = *state;
	struct bytes before, after;

	box_add(box, "a", 0, 9);
	box_add(box, "a", 1, 9);
	tail(box, 12, 1 << 20, &before);
	assert_int_equal(box_seal(box, 1, true), 1);
	tail(box, 12, 1 << 20, &after);
	assert_int_equal(before.len, after.len);
	assert_memory_equal(before.data, after.data, before.len);
	bytes_done(&before);
	bytes_done(&after);
}

static void test_tail_keeps_the_newest_below_the_ceiling(void **state)
{
	struct box *box = *state;
	struct bytes lines;

	fill(box);
	for (size_t ceiling = 100; ceiling < 7000; ceiling += 61) {
		size_t n;

		tail(box, 37, ceiling, &lines);
		n = box_count_lines(&lines);
		assert_true(n <= 37);
		assert_seqs(&lines, 38 - n, n);
		assert_true(n == 37 || lines.len + 2 * 160 + ceiling / 8 > ceiling);
		bytes_done(&lines);
	}
	/* What stands there already stays. */
	bytes_init(&lines, 500);
	assert_int_equal(bytes_add(&lines, "first\n", 6), 0);
	assert_int_equal(queue_tail(box->q, "a", 37, &lines, &box->err), 0);
	assert_memory_equal(lines.data, "first\n{", 7);
	assert_true(lines.len <= 500 && box_count_lines(&lines) >= 2);
	bytes_done(&lines);
}

static void test_tail_of_what_is_gone(void **state)
{
	struct box *box = *state;
	struct bytes lines;
	bool done;

	bytes_init(&lines, 1 << 20);
	assert_int_equal(queue_tail(box->q, "a", 5, &lines, &box->err), -ENOENT);
	assert_string_equal(box->err.text, "there is no source \"a\"");
	box_route(box, 1, 8 << 20, 1000);
	box_add(box, "a", 0, 9);
	assert_int_equal(box_seal(box, 0, true), 1);
	assert_int_equal(queue_delivered(box->q, box->batch.id, "lake", NOON, &done, &box->err), 0);
	assert_int_equal(queue_expire(box->q, NOON, 0, &box->err), 0);
	assert_int_equal(queue_tail(box->q, "a", 5, &lines, &box->err), 0);
	assert_int_equal(lines.len, 0);
	box_add(box, "a", 0, 3);
	assert_int_equal(queue_tail(box->q, "a", 5, &lines, &box->err), 0);
	assert_seqs(&lines, 10, 3);
	bytes_done(&lines);
}

static void test_tail_of_damage(void **state)
{
	struct box *box = *state;
	struct bytes lines;

	fill(box);
	bytes_init(&lines, 1 << 20);
	assert_int_equal(bytes_add(&lines, "x", 1), 0);
	assert_int_equal(sqlite3_exec(box->q->db, "DELETE FROM part WHERE id >> 16 = 3", NULL, NULL, NULL), 0);
	assert_int_equal(queue_tail(box->q, "a", 37, &lines, &box->err), -EBADMSG);
	assert_non_null(strstr(box->err.text, "batch 3"));
	assert_int_equal(lines.len, 1);
	assert_int_equal(queue_tail(box->q, "a", 10, &lines, &box->err), 0);
	assert_int_equal(sqlite3_exec(box->q->db, "UPDATE chunk SET plain = plain - 1", NULL, NULL, NULL), 0);
	bytes_clear(&lines);
	assert_int_equal(queue_tail(box->q, "a", 10, &lines, &box->err), -EBADMSG);
	assert_non_null(strstr(box->err.text, "chunk"));
	assert_int_equal(lines.len, 0);
	bytes_done(&lines);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOX_TEST(test_tail_over_batches_and_chunks),
		BOX_TEST(test_tail_shows_what_the_object_holds),
		BOX_TEST(test_tail_keeps_the_newest_below_the_ceiling),
		BOX_TEST(test_tail_of_what_is_gone),
		BOX_TEST(test_tail_of_damage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
