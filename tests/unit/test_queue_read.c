/* SPDX-License-Identifier: Apache-2.0 */
#include "buffer/queue_private.h"
#include "tests/unit/queue_box.h"

/* Checks that the lines are whole and have the seqs from first on. */
static void assert_seqs(const struct bytes *lines, uint64_t first, uint64_t n)
{
	const char *at = lines->len > 0 ? (const char *)lines->data : "", *end = at + lines->len;

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

/* All from seq `from` on, read in pages. */
static void read_pages(struct box *box, uint64_t from, size_t page, struct bytes *ret_lines)
{
	uint64_t next = from;

	bytes_init(ret_lines, 1 << 20);
	for (size_t before = SIZE_MAX; before != ret_lines->len;) {
		before = ret_lines->len;
		from = next;
		if (queue_read(box->q, "a", from, page, ret_lines, &next, &box->err) < 0)
			fail_msg("%s", box->err.text);
		assert_true(next >= from && ret_lines->len - before < page + 200);
	}
	assert_true(next == from);
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

static void test_from_any_seq_in_pages_of_any_size(void **state)
{
	static const size_t pages[] = { 1, 150, 500, 3000, 1 << 20 };
	struct box *box = *state;

	fill(box);
	for (uint64_t from = 0; from <= 40; from++) {
		for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
			uint64_t first = from == 0 ? 1 : from;
			struct bytes lines;

			read_pages(box, from, pages[i], &lines);
			assert_seqs(&lines, first, first <= 37 ? 38 - first : 0);
			bytes_done(&lines);
		}
	}
}

/* A page ends with the line that makes it as long as was asked, and says where the next one begins. */
static void test_a_page(void **state)
{
	struct box *box = *state;
	struct bytes lines, whole;
	uint64_t next = 0;

	fill(box);
	bytes_init(&lines, 1 << 20);
	read_pages(box, 1, 1 << 20, &whole);
	for (size_t enough = 1; enough < whole.len; enough += 37) {
		bytes_clear(&lines);
		assert_int_equal(bytes_add(&lines, "first\n", 6), 0);
		assert_int_equal(queue_read(box->q, "a", 1, enough, &lines, &next, &box->err), 0);
		assert_true(lines.len - 6 >= enough);
		assert_memory_equal(lines.data, "first\n", 6);
		assert_memory_equal(lines.data + 6, whole.data, lines.len - 6);
		assert_int_equal(lines.data[lines.len - 1], '\n');
		assert_int_equal(box_count_lines(&lines), next);
		for (lines.len--; lines.data[lines.len - 1] != '\n';)
			lines.len--;
		assert_true(lines.len - 6 < enough);
	}
	bytes_done(&lines);
	bytes_done(&whole);
}

/* The same bytes, sealed or not. */
static void test_it_is_what_the_object_holds(void **state)
{
	struct box *box = *state;
	struct bytes before, after;

	box_add(box, "a", 0, 9);
	box_add(box, "a", 1, 9);
	read_pages(box, 7, 400, &before);
	assert_int_equal(box_seal(box, 1, true), 1);
	read_pages(box, 7, 500, &after);
	assert_int_equal(before.len, after.len);
	assert_memory_equal(before.data, after.data, before.len);
	bytes_done(&before);
	bytes_done(&after);
}

/* What a page cannot hold is left to the next one; what no page can is told. */
static void test_a_ceiling(void **state)
{
	struct box *box = *state;
	struct bytes lines;
	uint64_t next = 77;

	fill(box);
	for (uint64_t from = 1; from <= 37; from = next) {
		bytes_init(&lines, 700);
		assert_int_equal(queue_read(box->q, "a", from, 10000, &lines, &next, &box->err), 0);
		assert_true(next > from && lines.len > 700 - 200);
		assert_seqs(&lines, from, next - from);
		bytes_done(&lines);
		if (next == 38)
			break;
	}
	assert_int_equal(next, 38);
	for (uint64_t from = 1; from <= 37; from += 12) {
		bytes_init(&lines, 100);
		assert_int_equal(bytes_add(&lines, "x", 1), 0);
		assert_int_equal(queue_read(box->q, "a", from, 10000, &lines, &next, &box->err), -ENOBUFS);
		assert_int_equal(lines.len, 1);
		assert_int_equal(next, 38);
		assert_non_null(strstr(box->err.text, "record "));
		bytes_done(&lines);
	}
}

static void test_what_is_gone_is_passed_over(void **state)
{
	struct box *box = *state;
	struct bytes lines;
	uint64_t next = 77;
	bool done;

	bytes_init(&lines, 1 << 20);
	assert_int_equal(queue_read(box->q, "a", 1, 5, &lines, &next, &box->err), -ENOENT);
	assert_string_equal(box->err.text, "there is no source \"a\"");
	assert_int_equal(next, 77);
	box_route(box, 1, 8 << 20, 1000);
	box_add(box, "a", 0, 9);
	assert_int_equal(box_seal(box, 0, true), 1);
	assert_int_equal(queue_delivered(box->q, box->batch.id, "lake", NOON, &done, &box->err), 0);
	assert_int_equal(queue_expire(box->q, NOON, 0, &box->err), 0);
	assert_int_equal(queue_read(box->q, "a", 5, 1000, &lines, &next, &box->err), 0);
	assert_int_equal(lines.len, 0);
	assert_int_equal(next, 10);
	assert_int_equal(queue_read(box->q, "a", 20, 1000, &lines, &next, &box->err), 0);
	assert_int_equal(next, 20);
	box_add(box, "a", 0, 3);
	assert_int_equal(box_seal(box, 0, true), 1);
	box_add(box, "a", 0, 3);
	assert_int_equal(queue_read(box->q, "a", 5, 10000, &lines, &next, &box->err), 0);
	assert_seqs(&lines, 10, 6);
	assert_int_equal(next, 16);
	bytes_done(&lines);
}

/* What is staged is nobody's yet. */
static void test_what_is_staged_is_not_read(void **state)
{
	struct box *box = *state;
	struct fetch *fetch = box_fetch("a", 0, 9, "");
	struct bytes lines;
	uint64_t next = 0;

	box_add(box, "a", 0, 9);
	assert_int_equal(queue_stage(box->q, "a", fetch->first, &box->err), 0);
	bytes_init(&lines, 1 << 20);
	assert_int_equal(queue_read(box->q, "a", 1, 10000, &lines, &next, &box->err), 0);
	assert_seqs(&lines, 1, 9);
	assert_int_equal(next, 10);
	bytes_done(&lines);
	fetch_free(fetch);
}

static int read_from(struct box *box, uint64_t from, struct bytes *lines)
{
	uint64_t next;

	return queue_read(box->q, "a", from, 1 << 20, lines, &next, &box->err);
}

static void test_damage(void **state)
{
	struct box *box = *state;
	struct bytes lines;

	fill(box);
	bytes_init(&lines, 1 << 20);
	assert_int_equal(bytes_add(&lines, "x", 1), 0);
	assert_int_equal(sqlite3_exec(box->q->db, "DELETE FROM part WHERE id >> 16 = 3", NULL, NULL, NULL), 0);
	assert_int_equal(read_from(box, 1, &lines), -EBADMSG);
	assert_non_null(strstr(box->err.text, "batch 3"));
	assert_int_equal(lines.len, 1);
	assert_false(queue_is_sound(box->q));
	assert_int_equal(read_from(box, 28, &lines), -EBADMSG);
	assert_non_null(strstr(box->err.text, "to be salvaged"));
	box_reopen(box);
	assert_int_equal(read_from(box, 28, &lines), 0);
	assert_int_equal(sqlite3_exec(box->q->db, "UPDATE chunk SET plain = plain - 1", NULL, NULL, NULL), 0);
	bytes_clear(&lines);
	assert_int_equal(read_from(box, 28, &lines), -EBADMSG);
	assert_non_null(strstr(box->err.text, "chunk"));
	assert_int_equal(lines.len, 0);
	bytes_done(&lines);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOX_TEST(test_from_any_seq_in_pages_of_any_size),
		BOX_TEST(test_a_page),
		BOX_TEST(test_it_is_what_the_object_holds),
		BOX_TEST(test_a_ceiling),
		BOX_TEST(test_what_is_gone_is_passed_over),
		BOX_TEST(test_what_is_staged_is_not_read),
		BOX_TEST(test_damage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
