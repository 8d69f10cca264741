/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alarm.h"
#include "base/container.h"

static struct alarms set;
static char rung[32]; /* the letters of what rang, in order */

struct bell {
	struct alarm alarm;
	char letter;
	struct bell *cancels;
	struct bell *sets;
	int64_t sets_at_ms;
	struct bell *frees; /* cancelled and freed, as when a source is closed by another's callback */
};

static void on_ring(struct alarm *alarm)
{
	struct bell *bell = container_of(alarm, struct bell, alarm);
	size_t n = strlen(rung);
	assert_true(n + 1 < sizeof rung);
	rung[n] = bell->letter;
	rung[n + 1] = '\0';
	if (bell->cancels)
		alarm_cancel(&bell->cancels->alarm);
	if (bell->sets)
		alarm_set(&set, &bell->sets->alarm, bell->sets_at_ms);
	if (bell->frees) {
		alarm_cancel(&bell->frees->alarm);
		free(bell->frees);
		bell->frees = NULL;
	}
}

static struct bell make(char letter)
{
	return (struct bell){ .alarm = { .on_ring = on_ring }, .letter = letter };
}

static int setup(void **state)
{
	(void)state;
	set = (struct alarms){ NULL };
	rung[0] = '\0';
	return 0;
}

static void test_by_time_then_by_order(void **state)
{
	(void)state;
	struct bell a = make('a'), b = make('b'), c = make('c'), d = make('d');
	assert_int_equal(alarms_next(&set), ALARM_NEVER);
	alarm_set(&set, &c.alarm, 30);
	alarm_set(&set, &a.alarm, 10);
	alarm_set(&set, &d.alarm, 30);
	alarm_set(&set, &b.alarm, 20);
	assert_int_equal(alarms_next(&set), 10);
	alarms_ring(&set, 9);
	assert_string_equal(rung, "");
	alarms_ring(&set, 10);
	assert_string_equal(rung, "a");
	assert_int_equal(alarms_next(&set), 20);
	alarms_ring(&set, 1000);
	assert_string_equal(rung, "abcd");
	alarms_ring(&set, 2000);
	assert_string_equal(rung, "abcd");
	assert_int_equal(alarms_next(&set), ALARM_NEVER);
}

static void test_set_again_moves(void **state)
{
	(void)state;
	struct bell a = make('a'), b = make('b');
	alarm_set(&set, &a.alarm, 10);
	alarm_set(&set, &b.alarm, 20);
	alarm_set(&set, &a.alarm, 30);
	alarms_ring(&set, 20);
	assert_string_equal(rung, "b");
	alarm_set(&set, &a.alarm, 25);
	alarms_ring(&set, 25);
	assert_string_equal(rung, "ba");
}

static void test_cancel(void **state)
{
	(void)state;
	struct bell a = make('a'), b = make('b'), c = make('c');
	alarm_cancel(&a.alarm);
	alarm_set(&set, &a.alarm, 10);
	alarm_set(&set, &b.alarm, 20);
	alarm_set(&set, &c.alarm, 30);
	alarm_cancel(&b.alarm);
	assert_null(b.alarm.set);
	alarm_cancel(&a.alarm);
	alarm_cancel(&a.alarm);
	assert_int_equal(alarms_next(&set), 30);
	alarms_ring(&set, 100);
	assert_string_equal(rung, "c");
}

static void test_set_for_now_rings_next_time(void **state)
{
	(void)state;
	struct bell a = make('a'), b = make('b');
	a.sets = &a;
	a.sets_at_ms = 10;
	alarm_set(&set, &a.alarm, 10);
	alarm_set(&set, &b.alarm, 10);
	alarms_ring(&set, 10);
	assert_string_equal(rung, "ab");
	assert_int_equal(alarms_next(&set), 10);
	alarms_ring(&set, 10);
	assert_string_equal(rung, "aba");
}

static void test_due_one_is_cancelled(void **state)
{
	(void)state;
	struct bell a = make('a'), b = make('b'), c = make('c');
	a.cancels = &b;
	alarm_set(&set, &a.alarm, 1);
	alarm_set(&set, &b.alarm, 2);
	alarm_set(&set, &c.alarm, 3);
	alarms_ring(&set, 5);
	assert_string_equal(rung, "ac");
	assert_null(set.first);
}

static void test_due_one_is_put_off(void **state)
{
	(void)state;
	struct bell a = make('a'), b = make('b');
	a.sets = &b;
	a.sets_at_ms = 50;
	alarm_set(&set, &a.alarm, 1);
	alarm_set(&set, &b.alarm, 2);
	alarms_ring(&set, 5);
	assert_string_equal(rung, "a");
	assert_int_equal(alarms_next(&set), 50);
	alarms_ring(&set, 50);
	assert_string_equal(rung, "ab");
}

static void test_due_one_is_freed(void **state)
{
	(void)state;
	struct bell a = make('a'), c = make('c');
	struct bell *b = malloc(sizeof *b);
	assert_non_null(b);
	*b = make('b');
	a.frees = b;
	alarm_set(&set, &a.alarm, 1);
	alarm_set(&set, &b->alarm, 2);
	alarm_set(&set, &c.alarm, 3);
	alarms_ring(&set, 5);
	assert_string_equal(rung, "ac");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_by_time_then_by_order, setup),
		cmocka_unit_test_setup(test_set_again_moves, setup),
		cmocka_unit_test_setup(test_cancel, setup),
		cmocka_unit_test_setup(test_set_for_now_rings_next_time, setup),
		cmocka_unit_test_setup(test_due_one_is_cancelled, setup),
		cmocka_unit_test_setup(test_due_one_is_put_off, setup),
		cmocka_unit_test_setup(test_due_one_is_freed, setup),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
