/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "mill/when.h"

#define MINUTE INT64_C(60000)
#define HOUR   (60 * MINUTE)
#define DAY    (24 * HOUR)
#define OSLO   "CET-1CEST,M3.5.0,M10.5.0/3"

static int64_t at(const char *time)
{
	char text[64];
	int64_t ms;
	snprintf(text, sizeof text, "%s:00.000Z", time);
	assert_int_equal(units_parse_time(text, &ms), 0);
	return ms;
}

static void use_zone(const char *zone)
{
	assert_int_equal(setenv("TZ", zone, 1), 0);
	tzset();
}

static struct when parsed(const char *text)
{
	struct when when;
	struct err err = { "" };
	if (when_parse(text, &when, &err) != 0)
		fail_msg("\"%s\": %s", text, err.text);
	return when;
}

static const char *ended; /* the job of which a run ended well; NULL: none */

static bool ended_since(void *arg, const char *job)
{
	assert_ptr_equal(arg, &ended);
	return ended && strcmp(job, ended) == 0;
}

static struct when_facts facts_of(uint64_t batches, int64_t age_ms)
{
	return (struct when_facts){
		.batches = batches,
		.oldest_ms = batches ? at("2026-11-21T12:00") - age_ms : 0,
		.wall_ms = at("2026-11-21T12:00"),
		.looked_ms = at("2026-11-21T12:00"),
		.ended_since = ended_since,
		.arg = &ended,
	};
}

static bool is_due(const char *text, uint64_t batches, int64_t age_ms)
{
	struct when when = parsed(text);
	struct when_facts facts = facts_of(batches, age_ms);
	return when_is_due(&when, &facts);
}

static void test_batches_and_age(void **state)
{
	(void)state;
	assert_false(is_due("batches >= 6", 5, 0));
	assert_true(is_due("batches >= 6", 6, 0));
	assert_true(is_due(" batches>=6\n", 7, 0));
	assert_false(is_due("age >= 6h", 1, 6 * HOUR - 1));
	assert_true(is_due("age>=6h", 1, 6 * HOUR));
	assert_false(is_due("age >= 0s", 0, 0));
	assert_true(is_due("age >= 0s", 1, 0));
	/* the clock was put back behind the delivery */
	assert_false(is_due("age >= 6h", 1, -DAY));
}

static void test_and_binds_closer_than_or(void **state)
{
	(void)state;
	const char *text = "batches >= 6 or age >= 6h and batches >= 2";
	assert_true(is_due(text, 6, 0));
	assert_false(is_due(text, 1, 7 * HOUR));
	assert_true(is_due(text, 2, 7 * HOUR));
	text = "age >= 6h and batches >= 2 or batches >= 6";
	assert_true(is_due(text, 6, 0));
	assert_false(is_due(text, 1, 7 * HOUR));
	assert_false(is_due(text, 2, 5 * HOUR));
	assert_true(is_due(text, 2, 7 * HOUR));
	text = "batches >= 9 and age >= 1h and age >= 2h or batches >= 6";
	assert_true(is_due(text, 6, 0));
	assert_false(is_due(text, 5, 3 * HOUR));
}

static void test_after(void **state)
{
	(void)state;
	ended = NULL;
	assert_false(is_due("after parking", 100, DAY));
	ended = "parking";
	assert_true(is_due("after parking", 0, 0));
	assert_false(is_due("after parking-2", 0, 0));
	assert_false(is_due("after parking and batches >= 1", 0, 0));
	struct when when = parsed("after parking");
	assert_true(when_wants_nothing(&when));
	when = parsed("batches >= 1 or after and and age >= 1s"); /* a job may have that name */
	assert_string_equal(when.conditions[1].job, "and");
	assert_true(when_wants_nothing(&when));
	when = parsed("batches >= 1");
	assert_false(when_wants_nothing(&when));
}

/* Whether the cron `text` is due between the two moments, the first of them excluded. */
static bool is_due_in(const char *text, const char *looked, const char *now)
{
	char whole[128];
	snprintf(whole, sizeof whole, "cron %s", text);
	struct when when = parsed(whole);
	struct when_facts facts = { .batches = 1, .oldest_ms = 1, .wall_ms = at(now), .looked_ms = at(looked) };
	return when_is_due(&when, &facts);
}

static void test_cron_fields(void **state)
{
	(void)state;
	use_zone("UTC0");
	/* 2026-11-21 is a Saturday */
	static const struct {
		const char *cron;
		const char *now; /* the minute that is looked at */
		bool due;
	} cases[] = {
		{ "* * * * *", "2026-11-21T12:34", true },
		{ "34 12 * * *", "2026-11-21T12:34", true },
		{ "35 12 * * *", "2026-11-21T12:34", false },
		{ "34 13 * * *", "2026-11-21T12:34", false },
		{ "*/17 * * * *", "2026-11-21T12:34", true },
		{ "*/17 * * * *", "2026-11-21T12:35", false },
		{ "30-40/4 * * * *", "2026-11-21T12:34", true },
		{ "30-40/4 * * * *", "2026-11-21T12:36", false },
		{ "30-40/4 * * * *", "2026-11-21T12:42", false },
		{ "1,34,59 12,13 * * *", "2026-11-21T12:34", true },
		{ "0,59 23 31 12 *", "2026-12-31T23:59", true },
		{ "0 0 1 1 *", "2027-01-01T00:00", true },
		{ "* * * nov *", "2026-11-21T12:34", true },
		{ "* * * Oct-NOV,1 *", "2026-11-21T12:34", true },
		{ "* * * dec *", "2026-11-21T12:34", false },
		{ "* * * * sat", "2026-11-21T12:34", true },
		{ "* * * * 6", "2026-11-21T12:34", true },
		{ "* * * * mon-fri", "2026-11-21T12:34", false },
		{ "* * * * mon-fri", "2026-11-20T12:34", true },
		{ "* * * * sat-sun", "2026-11-22T12:34", true },
		{ "* * * * sat-sun", "2026-11-23T12:34", false },
		{ "* * * * 0", "2026-11-22T12:34", true },
		{ "* * * * 7", "2026-11-22T12:34", true },
		{ "* * * * 5-7", "2026-11-22T12:34", true },
		{ "* * * * 1-6", "2026-11-22T12:34", false },
		/* days: either, where both are restricted; both, where one begins with a star */
		{ "* * 20 * sat", "2026-11-21T12:34", true },
		{ "* * 21 * mon", "2026-11-21T12:34", true },
		{ "* * 20 * mon", "2026-11-21T12:34", false },
		{ "* * */20 * sat", "2026-11-21T12:34", true },
		{ "* * */19 * sat", "2026-11-21T12:34", false },
		{ "* * 21 * */2", "2026-11-21T12:34", true },
		{ "* * 21 * */4", "2026-11-21T12:34", false },
		{ "0 0 29 2 *", "2028-02-29T00:00", true },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char before[64];
		units_time(at(cases[i].now) - MINUTE, before);
		before[16] = '\0';
		if (is_due_in(cases[i].cron, before, cases[i].now) != cases[i].due)
			fail_msg("%s at %s: not %d", cases[i].cron, cases[i].now, cases[i].due);
	}
}

static void test_cron_needs_something_that_waits(void **state)
{
	(void)state;
	use_zone("UTC0");
	struct when when = parsed("cron * * * * *");
	struct when_facts facts = { .wall_ms = at("2026-11-21T12:00"), .looked_ms = at("2026-11-20T12:00") };
	assert_false(when_is_due(&when, &facts));
	facts.batches = 1;
	assert_true(when_is_due(&when, &facts));
}

static void test_cron_over_a_long_time(void **state)
{
	(void)state;
	use_zone("UTC0");
	assert_true(is_due_in("0 3 * * *", "2026-11-20T03:00", "2026-11-21T03:00"));
	assert_false(is_due_in("0 3 * * *", "2026-11-20T03:00", "2026-11-21T02:59"));
	assert_true(is_due_in("0 3 * * *", "1970-01-01T00:01", "2026-11-21T02:59"));
	assert_true(is_due_in("0 0 29 2 *", "2096-02-29T00:00", "2104-02-29T00:00"));
	assert_false(is_due_in("0 0 29 2 *", "2096-02-29T00:00", "2104-02-28T23:59"));
	/* never looked, or the clock was put back: this minute alone */
	struct when when = parsed("cron 0 3 * * *");
	struct when_facts facts = { .batches = 1, .wall_ms = at("2026-11-21T03:00") + 59999 };
	assert_true(when_is_due(&when, &facts));
	facts.looked_ms = facts.wall_ms + DAY;
	assert_true(when_is_due(&when, &facts));
	facts.wall_ms += 1;
	assert_false(when_is_due(&when, &facts));
	facts.looked_ms = 0;
	assert_false(when_is_due(&when, &facts));
}

/* Looks once in each step and writes down, in UTC, when it was due. */
static const char *walk(const char *cron, const char *from, const char *to, int64_t step_ms)
{
	static char list[512];
	struct when when = parsed(cron);
	struct when_facts facts = { .batches = 1, .looked_ms = at(from) };
	*list = '\0';
	for (facts.wall_ms = at(from) + step_ms; facts.wall_ms <= at(to); facts.wall_ms += step_ms) {
		char text[UNITS_TEXT_MAX];
		if (when_is_due(&when, &facts)) {
			units_time(facts.wall_ms, text);
			snprintf(list + strlen(list), sizeof list - strlen(list), "%s%.5s", *list ? " " : "",
			         text + 11);
		}
		facts.looked_ms = facts.wall_ms;
	}
	return list;
}

static void test_spring_and_autumn(void **state)
{
	(void)state;
	use_zone(OSLO);
	const char *spring = "2026-03-29T00:00", *spring_end = "2026-03-29T03:00";
	/* 02:00 to 02:59 do not exist: at once after the gap, at 03:00, and once */
	assert_string_equal(walk("cron 30 2 * * *", spring, spring_end, MINUTE), "01:00");
	assert_string_equal(walk("cron 0 2 * * *", spring, spring_end, MINUTE), "01:00");
	assert_string_equal(walk("cron */20 2 * * *", spring, spring_end, MINUTE), "01:00");
	assert_string_equal(walk("cron 0 3 * * *", spring, spring_end, MINUTE), "01:00");
	assert_string_equal(walk("cron 59 1 * * *", spring, spring_end, MINUTE), "00:59");
	assert_string_equal(walk("cron 1 3 * * *", spring, spring_end, MINUTE), "01:01");
	assert_string_equal(walk("cron 30 * * * *", spring, spring_end, MINUTE), "00:30 01:00 01:30 02:30");
	/* 02:00 to 02:59 come twice: the first of them counts */
	const char *autumn = "2026-10-24T23:00", *autumn_end = "2026-10-25T04:00";
	assert_string_equal(walk("cron 30 2 * * *", autumn, autumn_end, MINUTE), "00:30");
	assert_string_equal(walk("cron 0 2 * * *", autumn, autumn_end, MINUTE), "00:00");
	assert_string_equal(walk("cron 0 3 * * *", autumn, autumn_end, MINUTE), "02:00");
	assert_string_equal(walk("cron 30 * * * *", autumn, autumn_end, MINUTE), "23:30 00:30 02:30 03:30");
	/* looked at rarely, and within the hour that comes twice */
	assert_string_equal(walk("cron 30 2 * * *", autumn, autumn_end, 75 * MINUTE), "01:30");
	assert_string_equal(walk("cron 30 2 * * *", "2026-10-25T00:29", autumn_end, 2 * MINUTE), "00:31");
	assert_string_equal(walk("cron 30 2 * * *", "2026-10-25T01:29", autumn_end, MINUTE), "");
	/* a zone that turns by half an hour, and one without summer time */
	use_zone("<+1030>-10:30<+11>-11,M10.1.0,M4.1.0");
	assert_string_equal(walk("cron 45 1 * * *", "2026-04-04T13:00", "2026-04-04T18:00", MINUTE), "14:45");
	assert_string_equal(walk("cron 15 2 * * *", "2026-10-03T13:00", "2026-10-03T18:00", MINUTE), "15:30");
	use_zone("<+0545>-5:45");
	assert_string_equal(walk("cron 0 6 * * *", "2026-10-03T13:00", "2026-10-04T12:00", MINUTE), "00:15");
}

/* Any zone, any day: looked at in any steps each time counts once. */
static void test_each_day_once(void **state)
{
	(void)state;
	static const char *const zones[] = { OSLO, "EST5EDT,M3.2.0,M11.1.0", "AEST-10AEDT,M10.1.0,M4.1.0/3", "UTC0" };
	static const int64_t steps[] = { 7 * MINUTE + 13, 61 * MINUTE, 100 * MINUTE };
	for (size_t zone = 0; zone < sizeof zones / sizeof *zones; zone++) {
		use_zone(zones[zone]);
		for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
			struct when when = parsed("cron 30 2 * * *");
			struct when_facts facts = { .batches = 1, .looked_ms = at("2026-01-01T12:00") };
			unsigned n = 0;
			while (facts.looked_ms < at("2026-12-31T12:00")) {
				facts.wall_ms = facts.looked_ms + steps[i];
				n += when_is_due(&when, &facts);
				facts.looked_ms = facts.wall_ms;
			}
			assert_in_range(n, 364, 365);
		}
	}
}

static int64_t next_ms(const char *text, uint64_t batches, int64_t age_ms)
{
	struct when when = parsed(text);
	struct when_facts facts = facts_of(batches, age_ms);
	return when_next_ms(&when, &facts);
}

static void test_next(void **state)
{
	(void)state;
	use_zone("UTC0");
	assert_int_equal(next_ms("batches >= 6 or after parking", 5, 0), INT64_MAX);
	assert_int_equal(next_ms("age >= 6h", 0, 0), INT64_MAX);
	assert_int_equal(next_ms("age >= 6h", 1, 6 * HOUR), INT64_MAX);
	assert_int_equal(next_ms("age >= 6h", 1, 6 * HOUR - 1), 1);
	assert_int_equal(next_ms("age >= 6h", 1, 0), HOUR);
	assert_int_equal(next_ms("age >= 6h", 1, -10 * DAY), HOUR);
	assert_int_equal(next_ms("age >= 10m or age >= 5m", 1, 4 * MINUTE), MINUTE);
	/* it is 12:00 */
	assert_int_equal(next_ms("cron 1 12 * * *", 1, 0), MINUTE);
	assert_int_equal(next_ms("cron 59 12 * * *", 1, 0), 59 * MINUTE);
	assert_int_equal(next_ms("cron 0 12 * * *", 1, 0), HOUR);
	assert_int_equal(next_ms("cron 0 3 1 1 *", 0, 0), HOUR);
	assert_int_equal(next_ms("cron 0 3 1 1 * or age >= 7m", 1, 0), 7 * MINUTE);
	struct when when = parsed("cron 1 12 * * *");
	struct when_facts facts = facts_of(1, 0);
	facts.wall_ms += 59999;
	assert_int_equal(when_next_ms(&when, &facts), 1);
	/* over the gap in spring */
	use_zone(OSLO);
	facts.wall_ms = at("2026-03-29T00:58");
	when = parsed("cron 30 2 * * *");
	assert_int_equal(when_next_ms(&when, &facts), 2 * MINUTE);
}

static const struct {
	const char *text, *says;
} mistakes[] = {
	{ "", "it ends where batches, age, cron or after must stand" },
	{ "batches", "it ends where \">=\" must stand" },
	{ "batches > 6", "at character 9 stands \">\", where \">=\" must stand" },
	{ "batches => 6", "at character 9 stands \"=>\"" },
	{ "batches 6", "at character 9 stands \"6\"" },
	{ "batches >=", "it ends where a number" },
	{ "batches >= 0", "at character 12 stands \"0\", where a number from 1 on must stand" },
	{ "batches >= -1", "stands \"-1\"" },
	{ "batches >= 6K", "stands \"6K\"" },
	{ "batches >= 99999999999999999999", "stands \"9999" },
	{ "age >= 6", "at character 8 stands \"6\", where a duration like" },
	{ "age >= 3651d", "stands \"3651d\"" },
	{ "age >= 6h,", "stands \"6h,\"" },
	{ "batches >= 6 or", "it ends where batches" },
	{ "batches >= 6 age >= 6h", "at character 14 stands \"age\", where and, or" },
	{ "batches >= 6 || age >= 6h", "stands \"||\"" },
	{ "Batches >= 6", "at character 1 stands \"Batches\"" },
	{ "or batches >= 6", "stands \"or\"" },
	{ "after", "it ends where the name of a job" },
	{ "after Job", "stands \"Job\"" },
	{ "after a12345678901234567890123456789012345678901234567890123456789012345", "stands \"a1234" },
	{ "cron * * * *", "it ends where cron's weekday" },
	{ "cron * * * * or age >= 6h", "at character 14 stands \"or\", where cron's weekday" },
	{ "cron * * * * * *", "at character 16 stands \"*\", where and, or" },
	{ "cron 60 * * * *", "stands \"60\", where cron's minute" },
	{ "cron * 24 * * *", "stands \"24\", where cron's hour" },
	{ "cron * * 0 * *", "stands \"0\", where cron's day" },
	{ "cron * * 32 * *", "stands \"32\"" },
	{ "cron * * * 13 *", "where cron's month" },
	{ "cron * * * * 8", "where cron's weekday" },
	{ "cron * * * * monday", "stands \"monday\"" },
	{ "cron mon * * * *", "stands \"mon\"" },
	{ "cron */0 * * * *", "stands \"*/0\"" },
	{ "cron */ * * * *", "stands \"*/\"" },
	{ "cron 5/2 * * * *", "stands \"5/2\"" },
	{ "cron 5-1 * * * *", "stands \"5-1\"" },
	{ "cron 1- * * * *", "stands \"1-\"" },
	{ "cron -1 * * * *", "stands \"-1\"" },
	{ "cron 1,,2 * * * *", "stands \"1,,2\"" },
	{ "cron 1, * * * *", "stands \"1,\"" },
	{ "cron 001 * * * *", "stands \"001\"" },
	{ "cron ** * * * *", "stands \"**\"" },
	{ "cron @daily", "stands \"@daily\"" },
	{ "cron 0 0 31 2,4 *", "at character 10 stands \"31 2,4 *\", where a day that its month has" },
	{ "cron 0 0 30 feb *", "stands \"30 feb *\"" },
};

static void test_mistakes(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++) {
		struct when when = { .n = 77 };
		struct err err = { "" };
		if (when_parse(mistakes[i].text, &when, &err) != -EINVAL)
			fail_msg("\"%s\" is taken", mistakes[i].text);
		assert_int_equal(when.n, 77);
		if (!strstr(err.text, mistakes[i].says))
			fail_msg("\"%s\": \"%s\" does not say \"%s\"", mistakes[i].text, err.text, mistakes[i].says);
		assert_non_null(strstr(err.text, "\"cron MINUTE HOUR DAY MONTH WEEKDAY\""));
		assert_null(strchr(err.text, '\n'));
	}
	struct when when = parsed("cron 0 0 31 2,4 mon");
	assert_int_equal(when.n, 1);
}

static void test_many_conditions(void **state)
{
	(void)state;
	char text[512] = "age >= 1s";
	struct when when;
	struct err err;
	for (int i = 1; i < WHEN_CONDITIONS; i++)
		strcat(text, " or age >= 1s");
	assert_int_equal(parsed(text).n, WHEN_CONDITIONS);
	strcat(text, " or age >= 1s");
	assert_int_equal(when_parse(text, &when, &err), -EINVAL);
	assert_string_equal(err.text, "it has more than 8 conditions");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_batches_and_age),
		cmocka_unit_test(test_and_binds_closer_than_or),
		cmocka_unit_test(test_after),
		cmocka_unit_test(test_cron_fields),
		cmocka_unit_test(test_cron_needs_something_that_waits),
		cmocka_unit_test(test_cron_over_a_long_time),
		cmocka_unit_test(test_spring_and_autumn),
		cmocka_unit_test(test_each_day_once),
		cmocka_unit_test(test_next),
		cmocka_unit_test(test_mistakes),
		cmocka_unit_test(test_many_conditions),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
