/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/queue_box.h"

static struct queue_rejected make(const char *source, int64_t after_ms, const char *cause, size_t len)
{
	struct queue_rejected rejected = { .at_ms = NOON + after_ms, .bytes = 9000, .start = 100, .offset = 4100 };

	snprintf(rejected.source, sizeof rejected.source, "%s", source);
	snprintf(rejected.cause, sizeof rejected.cause, "%s", cause);
	snprintf(rejected.text, sizeof rejected.text, "%s at byte 4100", cause);
	rejected.len = len;
	for (size_t i = 0; i < len; i++)
		rejected.data[i] = (uint8_t)i;
	return rejected;
}

static void reject(struct box *box, const char *source, int64_t after_ms, const char *cause, size_t len)
{
	struct queue_rejected rejected = make(source, after_ms, cause, len);

	if (queue_reject(box->q, &rejected, &box->err) < 0)
		fail_msg("%s", box->err.text);
}

static void assert_next(struct box *box, const char *after, const char *source, const char *cause, size_t len)
{
	struct queue_rejected rejected = { .at_ms = 0 };

	assert_int_equal(queue_next_rejected(box->q, after, &rejected, &box->err), 1);
	assert_string_equal(rejected.source, source);
	assert_string_equal(rejected.cause, cause);
	assert_int_equal(rejected.len, len);
	for (size_t i = 0; i < len; i++)
		assert_int_equal(rejected.data[i], (uint8_t)i);
}

static void test_the_newest_of_each_source(void **state)
{
	struct box *box = *state;
	struct queue_rejected rejected = { .source = "" };

	assert_int_equal(queue_next_rejected(box->q, "", &rejected, &box->err), 0);
	reject(box, "b", 0, "truncated", SINK_EXCERPT_MAX);
	reject(box, "a", 1, "not-json", 1);
	reject(box, "a", 2, "too-large", 0);
	reject(box, "c", 3, "not-json", 300);
	box_reopen(box);
	assert_next(box, "", "a", "too-large", 0);
	assert_next(box, "a", "b", "truncated", SINK_EXCERPT_MAX);
	assert_next(box, "aa", "b", "truncated", SINK_EXCERPT_MAX);
	assert_next(box, "b", "c", "not-json", 300);
	/* Place and answer may be the same struct. */
	assert_int_equal(queue_next_rejected(box->q, rejected.source, &rejected, &box->err), 1);
	assert_true(rejected.at_ms == NOON + 2);
	assert_int_equal(rejected.bytes, 9000);
	assert_int_equal(rejected.start, 100);
	assert_true(rejected.offset == 4100);
	assert_string_equal(rejected.text, "too-large at byte 4100");
	assert_int_equal(queue_next_rejected(box->q, "c", &rejected, &box->err), 0);
	assert_string_equal(rejected.source, "a"); /* untouched */
}

/* Sources come and go: the oldest make way. */
static void test_there_are_not_ever_more(void **state)
{
	struct box *box = *state;
	char name[16];

	for (int i = 0; i < 300; i++) {
		snprintf(name, sizeof name, "s%d", i);
		reject(box, name, i, "truncated", 9);
	}
	reject(box, "s0", 301, "late", 9);
	assert_next(box, "s", "s0", "late", 9);
	assert_next(box, "s0", "s100", "truncated", 9);
	assert_next(box, "s4", "s45", "truncated", 9);
	box_close(box);
	assert_int_equal(box_ask(box, "SELECT count(*) FROM rejected"), 256);
	box_open(box);
}

static void test_damage_is_found(void **state)
{
	static const char *const damage[] = {
		"UPDATE rejected SET excerpt = x'00'",
		"UPDATE rejected SET cause = 'fine'",
		"UPDATE rejected SET offset = 0",
	};
	struct box *box = *state;

	for (size_t i = 0; i < sizeof damage / sizeof *damage; i++) {
		struct queue_rejected rejected;

		reject(box, "a", 0, "truncated", 20);
		box_close(box);
		box_ask(box, damage[i]);
		box_open(box);
		assert_int_equal(queue_next_rejected(box->q, "", &rejected, &box->err), -EBADMSG);
		assert_non_null(strstr(box->err.text, "is damaged: rejected a: its checksum is wrong"));
		box_reopen(box);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOX_TEST(test_the_newest_of_each_source),
		BOX_TEST(test_there_are_not_ever_more),
		BOX_TEST(test_damage_is_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
