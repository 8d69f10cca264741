/* SPDX-License-Identifier: Apache-2.0 */
#include "collectors/schedule.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define MINUTE INT64_C(60000)
#define DRAWS  400

static void test_slots(void **state)
{
	struct schedule s;

	(void)state;
	schedule_start(&s, MINUTE, 5 * MINUTE, 1000);
	assert_int_equal(schedule_after_success(&s, 1000), 61000);
	assert_int_equal(schedule_after_success(&s, 1001), 61000);
	assert_int_equal(schedule_after_success(&s, 60999), 61000);
	/* at a slot the next one is meant */
	assert_int_equal(schedule_after_success(&s, 61000), 121000);
	/* slots that passed are skipped, and the raster stays */
	assert_int_equal(schedule_after_success(&s, 1000 + 10 * MINUTE + 7), 1000 + 11 * MINUTE);
	/* a poll that a person asked for before the first slot */
	assert_int_equal(schedule_after_success(&s, 10), 1000);
	assert_int_equal(schedule_after_success(&s, 999), 1000);
}

/* All waits after `failures` lie between half of wait_ms and the whole, and reach into both halves of that. */
static void assert_waits(struct schedule *s, unsigned failures, int64_t wait_ms)
{
	int64_t shortest = INT64_MAX, longest = 0;

	for (int i = 0; i < DRAWS; i++) {
		int64_t wait;

		s->failures = failures;
		wait = schedule_after_failure(s, 500, -1) - 500;
		assert_int_equal(s->failures, failures + 1);
		shortest = wait < shortest ? wait : shortest;
		longest = wait > longest ? wait : longest;
	}
	assert_in_range(shortest, (wait_ms + 1) / 2, wait_ms * 3 / 4);
	assert_in_range(longest, wait_ms * 3 / 4, wait_ms);
}

static void test_backoff(void **state)
{
	struct schedule s;

	(void)state;
	schedule_start(&s, MINUTE, 5 * MINUTE, 0);
	assert_waits(&s, 0, 5000);
	assert_waits(&s, 1, 10000);
	assert_waits(&s, 2, 20000);
	assert_waits(&s, 5, 160000);
	assert_waits(&s, 6, 5 * MINUTE);
	assert_waits(&s, 7, 5 * MINUTE);
	assert_waits(&s, 4000000000U, 5 * MINUTE);
	s.failures = UINT32_MAX;
	schedule_after_failure(&s, 0, -1);
	assert_int_equal(s.failures, UINT32_MAX);
}

static void test_backoff_bounds(void **state)
{
	struct schedule s;

	(void)state;
	schedule_start(&s, 1000, 5 * MINUTE, 0);
	assert_waits(&s, 0, 1000);
	assert_waits(&s, 1, 2000);
	schedule_start(&s, MINUTE, 2000, 0);
	assert_waits(&s, 0, 2000);
	assert_waits(&s, 9, 2000);
	schedule_start(&s, MINUTE, INT64_MAX, 0);
	s.failures = 100;
	assert_true(schedule_after_failure(&s, 0, -1) >= INT64_MAX / 2);
}

static void test_success_forgets(void **state)
{
	struct schedule s;

	(void)state;
	schedule_start(&s, MINUTE, 5 * MINUTE, 0);
	for (int i = 0; i < 5; i++)
		schedule_after_failure(&s, 1, -1);
	assert_int_equal(s.failures, 5);
	assert_int_equal(schedule_after_success(&s, 90000), 120000);
	assert_in_range(schedule_after_failure(&s, 0, -1), 2500, 5000);
}

static void test_retry_after(void **state)
{
	struct schedule s;

	(void)state;
	schedule_start(&s, MINUTE, 5 * MINUTE, 0);
	assert_int_equal(schedule_after_failure(&s, 100, 20000), 20100);
	assert_int_equal(schedule_after_failure(&s, 100, 60 * MINUTE), 100 + 60 * MINUTE);
	assert_int_equal(schedule_after_failure(&s, 100, 60 * MINUTE + 1), 100 + 60 * MINUTE);
	assert_int_equal(schedule_after_failure(&s, 100, INT64_MAX), 100 + 60 * MINUTE);
	/* it never shortens the wait */
	s.failures = 0;
	assert_in_range(schedule_after_failure(&s, 0, 0), 2500, 5000);
	s.failures = 20;
	assert_in_range(schedule_after_failure(&s, 0, 1000), 150000, 300000);
}

static void test_what_a_person_asked_for_does_not_count(void **state)
{
	struct schedule s;

	(void)state;
	schedule_start(&s, MINUTE, 5 * MINUTE, 0);
	/* where all was well the first retry is planned, but never later than what was due */
	assert_in_range(schedule_after_request(&s, 10000, 60000, -1), 12500, 15000);
	assert_int_equal(schedule_after_request(&s, 10000, 11000, -1), 11000);
	assert_int_equal(s.failures, 0);
	schedule_after_failure(&s, 0, -1);
	assert_int_equal(schedule_after_request(&s, 10000, 200000, -1), 200000);
	assert_int_equal(s.failures, 1);
	assert_int_equal(schedule_after_request(&s, 10000, 200000, 900000), 910000);
	assert_int_equal(schedule_after_request(&s, 10000, 200000, 1000), 200000);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_slots),          cmocka_unit_test(test_backoff),
		cmocka_unit_test(test_backoff_bounds), cmocka_unit_test(test_success_forgets),
		cmocka_unit_test(test_retry_after),    cmocka_unit_test(test_what_a_person_asked_for_does_not_count),
	};

	return cmocka_run_group_tests_name("schedule", tests, NULL, NULL);
}
