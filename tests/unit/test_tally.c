/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "buffer/tally.h"

#define DAY    INT64_C(20778) /* 2026-11-21 */
#define BOOT_A "aaaaaaaa"
#define BOOT_B "bbbbbbbb"

struct box {
	struct tally *tally;
	struct tally_sums sums;
	char text[8192]; /* the judgement */
	size_t len;
};

static int set_up(void **state)
{
	struct box *box = calloc(1, sizeof *box);

	box->tally = tally_new(INT64_MIN);
	assert_non_null(box->tally);
	*state = box;
	return 0;
}

static int tear_down(void **state)
{
	struct box *box = *state;

	tally_free(box->tally);
	free(box);
	return 0;
}

static struct queue_range range_of(enum queue_range_kind kind, const char *source, const char *boot, int64_t day,
                                   uint64_t first, uint64_t last)
{
	struct queue_range range = { .kind = kind, .day = day, .first_seq = first, .last_seq = last };

	snprintf(range.source, sizeof range.source, "%s", source);
	snprintf(range.device, sizeof range.device, "pi-01");
	snprintf(range.boot, sizeof range.boot, "%s", boot);
	return range;
}

static void expect(struct box *box, enum queue_range_kind kind, const char *source, const char *boot, int64_t day,
                   uint64_t first, uint64_t last)
{
	struct queue_range range = range_of(kind, source, boot, day, first, last);

	assert_int_equal(tally_expect(box->tally, &range), 0);
}

/* An object stands there; sha8 is its name's, and its content's where it is sound. */
static void find(struct box *box, const char *source, const char *boot, int64_t day, uint64_t first, uint64_t last,
                 uint32_t sha8, bool sound)
{
	uint8_t sha256[SHA256_SIZE] = { (uint8_t)(sha8 >> 24), (uint8_t)(sha8 >> 16), (uint8_t)(sha8 >> 8),
		                        (uint8_t)(sha8 + !sound) };
	char key[OBJECT_KEY_MAX], again[OBJECT_KEY_MAX], date[UNITS_TEXT_MAX];
	size_t index;

	snprintf(key, sizeof key, "source=%s/dt=%s/pi-01-%s-%" PRIu64 "-%" PRIu64 "-%08x.ndjson.gz", source,
	         units_date(day * 86400000, date), boot, first, last, sha8);
	assert_int_equal(tally_find(box->tally, key, &index), 0);
	tally_key(box->tally, index, again);
	assert_string_equal(again, key);
	tally_check(box->tally, index, sha256);
}

static void find_sound(struct box *box, int64_t day, uint64_t first, uint64_t last)
{
	find(box, "a", BOOT_A, day, first, last, 0x01020304, true);
}

static int on_line(void *arg, const struct tally_line *line)
{
	struct box *box = arg;
	const char *dash = strstr(line->key, "pi-01-");

	box->len += (size_t)snprintf(box->text + box->len, sizeof box->text - box->len,
	                             "%s%s %" PRIu64 "-%" PRIu64 " %s", box->len ? "; " : "", line->source,
	                             line->first_seq, line->last_seq, tally_kind_names[line->kind]);
	if (dash)
		box->len += (size_t)snprintf(box->text + box->len, sizeof box->text - box->len, " (%.*s)",
		                             (int)strcspn(dash + 15, "."), dash + 15);
	return 0;
}

static const char *judge(struct box *box)
{
	box->len = 0;
	box->text[0] = '\0';
	assert_int_equal(tally_judge(box->tally, on_line, box, &box->sums), 0);
	return box->text;
}

#define TALLY_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

static void test_nothing_is_sound(void **state)
{
	struct box *box = *state;

	assert_string_equal(judge(box), "");
	assert_true(box->sums.sound);
	assert_int_equal(box->sums.objects, 0);
}

/* A healthy source over days, boots and sources: one line delivered, one waiting. */
static void test_sound(void **state)
{
	struct box *box = *state;

	expect(box, QUEUE_DELIVERED, "a", BOOT_A, DAY, 1, 100);
	expect(box, QUEUE_DELIVERED, "a", BOOT_A, DAY + 1, 101, 150);
	expect(box, QUEUE_DELIVERED, "a", BOOT_B, DAY + 1, 151, 200);
	expect(box, QUEUE_WAITING, "a", BOOT_B, DAY + 1, 201, 210);
	expect(box, QUEUE_UNSEALED, "a", BOOT_B, DAY + 1, 211, 215);
	expect(box, QUEUE_DELIVERED, "b", BOOT_B, DAY, 1, 5);
	find(box, "a", BOOT_B, DAY + 1, 151, 200, 1, true);
	find(box, "a", BOOT_A, DAY, 61, 100, 2, true);
	find(box, "a", BOOT_A, DAY, 1, 60, 3, true);
	find(box, "b", BOOT_B, DAY, 1, 5, 4, true);
	find(box, "a", BOOT_A, DAY + 1, 101, 150, 0xffffff00, true);
	assert_string_equal(judge(box), "a 1-200 delivered; a 201-215 waiting; b 1-5 delivered");
	assert_true(box->sums.sound);
	assert_int_equal(box->sums.objects, 5);
	assert_int_equal(box->sums.foreign, 0);
	assert_int_equal(box->sums.records[TALLY_DELIVERED], 205);
	assert_int_equal(box->sums.records[TALLY_WAITING], 15);
	/* It says the same again. */
	assert_string_equal(judge(box), "a 1-200 delivered; a 201-215 waiting; b 1-5 delivered");
}

static void test_a_deleted_object_is_missing(void **state)
{
	struct box *box = *state;
	size_t index;

	expect(box, QUEUE_DELIVERED, "a", BOOT_A, DAY, 1, 40);
	expect(box, QUEUE_DELIVERED, "a", BOOT_A, DAY + 1, 41, 60);
	find_sound(box, DAY, 1, 10);
	find_sound(box, DAY, 21, 30);
	find_sound(box, DAY + 1, 51, 60);
	/* It was listed, and is gone when somebody looks. */
	assert_int_equal(
	        tally_find(box->tally, "source=a/dt=2026-11-21/pi-01-aaaaaaaa-11-20-01020304.ndjson.gz", &index), 0);
	assert_string_equal(judge(box), "a 1-10 delivered; a 11-20 missing; a 21-30 delivered; a 31-50 missing; "
	                                "a 51-60 delivered");
	assert_false(box->sums.sound);
	assert_int_equal(box->sums.records[TALLY_MISSING], 30);
	assert_int_equal(box->sums.records[TALLY_DELIVERED], 30);
}

/* The same seqs of another boot, device, day or source are not these. */
static void test_elsewhere_is_missing(void **state)
{
	struct box *box = *state;

	expect(box, QUEUE_DELIVERED, "a", BOOT_A, DAY, 1, 10);
	expect(box, QUEUE_DELIVERED, "b", BOOT_B, DAY, 1, 10);
	find(box, "a", BOOT_B, DAY, 1, 10, 1, true);
	find(box, "a", BOOT_A, DAY + 1, 1, 10, 2, true);
	find(box, "b", BOOT_B, DAY, 1, 10, 3, true);
	assert_string_equal(judge(box), "a 1-10 early (1-10-00000002); a 1-10 early (1-10-00000001); a 1-10 missing; "
	                                "b 1-10 delivered");
	assert_false(box->sums.sound);
}

static void test_early(void **state)
{
	struct box *box = *state;

	expect(box, QUEUE_DELIVERED, "a", BOOT_A, DAY, 1, 10);
	expect(box, QUEUE_WAITING, "a", BOOT_A, DAY, 11, 30);
	find_sound(box, DAY, 1, 10);
	find_sound(box, DAY, 21, 30);
	find_sound(box, DAY, 31, 40); /* committed, sealed and delivered since the books were read */
	assert_string_equal(judge(box), "a 1-10 delivered; a 11-20 waiting; a 21-30 early (21-30-01020304); "
	                                "a 31-40 early (31-40-01020304)");
	assert_true(box->sums.sound);
	assert_int_equal(box->sums.records[TALLY_EARLY], 20);
}

static void test_changed(void **state)
{
	struct box *box = *state;

	expect(box, QUEUE_DELIVERED, "a", BOOT_A, DAY, 1, 30);
	expect(box, QUEUE_WAITING, "a", BOOT_A, DAY, 31, 40);
	find_sound(box, DAY, 1, 10);
	find(box, "a", BOOT_A, DAY, 11, 20, 0x0a0b0c0d, false);
	find_sound(box, DAY, 21, 30);
	find(box, "a", BOOT_A, DAY, 31, 40, 0x0a0b0c0d, false);
	assert_string_equal(judge(box), "a 1-10 delivered; a 11-20 changed (11-20-0a0b0c0d); a 21-30 delivered; "
	                                "a 31-40 waiting; a 31-40 changed (31-40-0a0b0c0d)");
	assert_false(box->sums.sound);
	assert_int_equal(box->sums.records[TALLY_CHANGED], 20);
	assert_int_equal(box->sums.records[TALLY_MISSING], 0);
}

/* What was dropped is no gap and wants no object; one that stands there all the same is neither early nor double. */
static void test_lost(void **state)
{
	struct box *box = *state;

	expect(box, QUEUE_DELIVERED, "a", BOOT_A, DAY, 1, 10);
	expect(box, QUEUE_LOST, "a", BOOT_A, DAY, 11, 40);
	expect(box, QUEUE_LOST, "a", BOOT_B, DAY + 1, 41, 50);
	expect(box, QUEUE_WAITING, "a", BOOT_B, DAY + 1, 51, 60);
	find_sound(box, DAY, 1, 10);
	assert_string_equal(judge(box), "a 1-10 delivered; a 11-50 lost; a 51-60 waiting");
	assert_true(box->sums.sound);
	assert_int_equal(box->sums.records[TALLY_LOST], 40);
	find_sound(box, DAY, 21, 30);
	find(box, "a", BOOT_A, DAY, 31, 40, 0x0a0b0c0d, false);
	assert_string_equal(judge(box), "a 1-10 delivered; a 11-20 lost; a 21-30 delivered; a 31-50 lost; "
	                                "a 31-40 changed (31-40-0a0b0c0d); a 51-60 waiting");
	assert_int_equal(box->sums.records[TALLY_LOST], 30);
	assert_false(box->sums.sound);
}

/* Overlaps made by hand: equal seqs, a part, one within another, and one that three share. */
static void test_double(void **state)
{
	struct box *box = *state;

	expect(box, QUEUE_DELIVERED, "a", BOOT_A, DAY, 1, 100);
	find(box, "a", BOOT_A, DAY, 1, 50, 1, true);
	find(box, "a", BOOT_A, DAY, 51, 100, 2, true);
	find(box, "a", BOOT_A, DAY, 1, 50, 9, true);
	assert_string_equal(judge(box), "a 1-100 delivered; a 1-50 double (1-50-00000009)");
	assert_false(box->sums.sound);
	assert_int_equal(box->sums.records[TALLY_DOUBLE], 50);
	find(box, "a", BOOT_A, DAY, 40, 60, 8, true);
	find(box, "a", BOOT_A, DAY, 45, 47, 7, false);
	assert_string_equal(judge(box), "a 1-100 delivered; a 1-50 double (1-50-00000009); "
	                                "a 40-50 double (40-60-00000008); a 45-47 double (45-47-00000007); "
	                                "a 45-47 changed (45-47-00000007); a 51-60 double (51-100-00000002)");
}

/* Each boot counts for itself: a restored card gives seqs out again under another boot. */
static void test_boots_are_not_double(void **state)
{
	struct box *box = *state;

	expect(box, QUEUE_DELIVERED, "a", BOOT_A, DAY, 1, 50);
	expect(box, QUEUE_DELIVERED, "a", BOOT_B, DAY, 51, 60);
	find(box, "a", BOOT_A, DAY, 1, 50, 1, true);
	find(box, "a", BOOT_B, DAY, 51, 60, 2, true);
	find(box, "a", BOOT_A, DAY, 51, 60, 3, true);
	assert_string_equal(judge(box), "a 1-60 delivered; a 51-60 early (51-60-00000003)");
	assert_true(box->sums.sound);
}

static void test_gaps(void **state)
{
	struct box *box = *state;

	/* Nothing is known of what came before the first: this store may be younger than the source. */
	expect(box, QUEUE_DELIVERED, "a", BOOT_A, DAY, 11, 20);
	expect(box, QUEUE_DELIVERED, "a", BOOT_B, DAY + 3, 31, 40);
	expect(box, QUEUE_UNSEALED, "a", BOOT_B, DAY + 3, 43, 44);
	expect(box, QUEUE_UNSEALED, "b", BOOT_B, DAY + 3, 50, 60);
	find(box, "a", BOOT_A, DAY, 11, 20, 1, true);
	find(box, "a", BOOT_B, DAY + 3, 31, 40, 2, true);
	assert_string_equal(judge(box), "a 11-20 delivered; a 21-30 missing; a 31-40 delivered; a 41-42 missing; "
	                                "a 43-44 waiting; b 50-60 waiting");
	assert_int_equal(box->sums.records[TALLY_MISSING], 12);
	/* What stands there is not missing, whatever the books say. */
	find(box, "a", BOOT_A, DAY + 1, 23, 25, 3, true);
	assert_string_equal(judge(box), "a 11-20 delivered; a 21-22 missing; a 23-25 early (23-25-00000003); "
	                                "a 26-30 missing; a 31-40 delivered; a 41-42 missing; a 43-44 waiting; "
	                                "b 50-60 waiting");
}

/* What only went to another store while the route was another is no gap of this one. */
static void test_a_gap_may_be_excused(void **state)
{
	struct box *box = *state;
	struct queue_range other = range_of(QUEUE_DELIVERED, "a", BOOT_A, DAY, 1, 15),
	                   waits = range_of(QUEUE_WAITING, "a", BOOT_A, DAY, 16, 17),
	                   lost = range_of(QUEUE_LOST, "a", BOOT_A, DAY, 18, 18);

	expect(box, QUEUE_DELIVERED, "a", BOOT_A, DAY, 1, 10);
	expect(box, QUEUE_WAITING, "a", BOOT_A, DAY, 21, 30);
	find_sound(box, DAY, 1, 10);
	assert_int_equal(tally_excuse(box->tally, &other), 0);
	assert_int_equal(tally_excuse(box->tally, &waits), 0);
	assert_int_equal(tally_excuse(box->tally, &lost), 0);
	assert_string_equal(judge(box), "a 1-10 delivered; a 19-20 missing; a 21-30 waiting");
}

static void test_since(void **state)
{
	struct box *box = *state;
	size_t index;

	tally_free(box->tally);
	box->tally = tally_new(DAY);
	expect(box, QUEUE_DELIVERED, "a", BOOT_A, DAY - 1, 1, 10);
	expect(box, QUEUE_DELIVERED, "a", BOOT_A, DAY, 11, 20);
	expect(box, QUEUE_DELIVERED, "a", BOOT_A, DAY, 31, 40);
	find_sound(box, DAY, 11, 20);
	assert_int_equal(
	        tally_find(box->tally, "source=a/dt=2026-11-20/pi-01-aaaaaaaa-1-10-01020304.ndjson.gz", &index),
	        -ENOENT);
	assert_string_equal(judge(box), "a 11-20 delivered; a 31-40 missing"); /* 21 to 30 may be of an earlier day */
	assert_int_equal(box->sums.foreign, 1);
	assert_int_equal(box->sums.objects, 1);
}

static void test_foreign_ones_are_only_counted(void **state)
{
	struct box *box = *state;
	size_t index = 77;

	expect(box, QUEUE_DELIVERED, "a", BOOT_A, DAY, 1, 10);
	find_sound(box, DAY, 1, 10);
	assert_int_equal(
	        tally_find(box->tally, "source=a/dt=2026-11-21/pi-02-aaaaaaaa-1-10-01020304.ndjson.gz", &index),
	        -ENOENT);
	assert_int_equal(
	        tally_find(box->tally, "source=a/dt=2026-11-21/pi-01-cccccccc-1-10-01020304.ndjson.gz", &index),
	        -ENOENT);
	/* What is no object is none of others either. */
	assert_int_equal(tally_find(box->tally, "source=a/dt=2026-11-21/notes.txt", &index), -EINVAL);
	assert_int_equal(tally_find(box->tally, "_runs/parking/0198aa10/manifest.json", &index), -EINVAL);
	assert_int_equal(index, 77);
	assert_string_equal(judge(box), "a 1-10 delivered");
	assert_int_equal(box->sums.foreign, 2);
	assert_true(box->sums.sound);
}

static int refuse_line(void *arg, const struct tally_line *line)
{
	(void)arg;
	(void)line;
	return -ECANCELED;
}

static void test_a_line_may_be_refused(void **state)
{
	struct box *box = *state;

	expect(box, QUEUE_DELIVERED, "a", BOOT_A, DAY, 1, 10);
	assert_int_equal(tally_judge(box->tally, refuse_line, NULL, &box->sums), -ECANCELED);
}

static int count_line(void *arg, const struct tally_line *line)
{
	(void)line;
	++*(int *)arg;
	return 0;
}

/* Three years of a source with an object every quarter of an hour; every hundredth is gone. */
static void test_many(void **state)
{
	struct box *box = *state;
	uint64_t seq = 1, gone = 0;
	int lines = 0;

	for (int64_t day = 0; day < 1000; day++)
		expect(box, QUEUE_DELIVERED, "a", BOOT_A, DAY + day, (uint64_t)day * 960 + 1,
		       (uint64_t)day * 960 + 960);
	for (int i = 0; i < 96000; i++, seq += 10) {
		if (i % 100 == 50)
			gone += 10;
		else
			find_sound(box, DAY + i / 96, seq, seq + 9);
	}
	assert_int_equal(tally_judge(box->tally, count_line, &lines, &box->sums), 0);
	assert_int_equal(lines, 2 * 960 + 1);
	assert_int_equal(box->sums.records[TALLY_MISSING], gone);
	assert_int_equal(box->sums.records[TALLY_DELIVERED], 960000 - gone);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TALLY_TEST(test_nothing_is_sound),
		TALLY_TEST(test_sound),
		TALLY_TEST(test_a_deleted_object_is_missing),
		TALLY_TEST(test_elsewhere_is_missing),
		TALLY_TEST(test_early),
		TALLY_TEST(test_changed),
		TALLY_TEST(test_lost),
		TALLY_TEST(test_double),
		TALLY_TEST(test_boots_are_not_double),
		TALLY_TEST(test_gaps),
		TALLY_TEST(test_a_gap_may_be_excused),
		TALLY_TEST(test_since),
		TALLY_TEST(test_foreign_ones_are_only_counted),
		TALLY_TEST(test_a_line_may_be_refused),
		TALLY_TEST(test_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
