/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/summary.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/container.h"

#define SECOND INT64_C(1000)
#define MINUTE (60 * SECOND)
#define HOUR   (60 * MINUTE)
#define TEN    INT64_C(1795255200000) /* 2026-11-21T10:00:00Z */

/* All clocks stand where the test has put them. */
static int64_t wall_ms, mono_ms;

int clock_gettime(clockid_t id, struct timespec *time)
{
	int64_t ms = id == CLOCK_REALTIME ? wall_ms : mono_ms;

	*time = (struct timespec){ .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };
	return 0;
}

/* What was told of the last hour, a record a line. */
struct fake {
	struct sink sink;
	char lines[4096];
	int fetches; /* published */
	int drops;
	int fail_at; /* a record; 0: none */
	int records;
	int64_t wall_ms, mono_ms;
};

static struct fake fake;
static struct alarms alarms;
static struct summary *summary;

static void on_begin(struct sink *sink)
{
	struct fake *f = container_of(sink, struct fake, sink);

	f->lines[0] = '\0';
	f->records = 0;
}

static int on_record(struct sink *sink, const void *data, size_t len)
{
	struct fake *f = container_of(sink, struct fake, sink);
	size_t end = strlen(f->lines);

	if (++f->records == f->fail_at)
		return -ENOMEM;
	if (end + len + 2 < sizeof f->lines)
		snprintf(f->lines + end, sizeof f->lines - end, "%.*s\n", (int)len, (const char *)data);
	return 0;
}

static void on_publish(struct sink *sink, int64_t at_wall_ms, int64_t at_mono_ms)
{
	struct fake *f = container_of(sink, struct fake, sink);

	f->fetches++;
	f->wall_ms = at_wall_ms;
	f->mono_ms = at_mono_ms;
}

static void on_drop(struct sink *sink, enum sink_outcome outcome, const char *cause, const char *text,
                    const struct sink_excerpt *excerpt)
{
	struct fake *f = container_of(sink, struct fake, sink);

	assert_int_equal(outcome, SINK_FAILED);
	assert_string_equal(cause, "memory");
	assert_non_null(text);
	assert_null(excerpt);
	f->drops++;
}

static const struct sink_ops ops = { .begin = on_begin, .record = on_record, .publish = on_publish, .drop = on_drop };

static int setup(void **state)
{
	(void)state;
	fake = (struct fake){ .sink = { .ops = &ops } };
	alarms.first = NULL;
	wall_ms = TEN;
	mono_ms = 1000000;
	summary = summary_new(&fake.sink, &alarms);
	assert_non_null(summary);
	summary_set_clock(summary, true);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	summary_free(summary);
	assert_null(alarms.first);
	return 0;
}

/* Time goes on, and what is due rings, at its time. */
static void run(int64_t ms)
{
	int64_t until = mono_ms + ms;

	while (alarms_next(&alarms) <= until) {
		int64_t step = alarms_next(&alarms) > mono_ms ? alarms_next(&alarms) - mono_ms : 0;

		mono_ms += step;
		wall_ms += step;
		alarms_ring(&alarms, mono_ms);
	}
	wall_ms += until - mono_ms;
	mono_ms = until;
}

static void settle(void)
{
	fake.sink.on_settled(fake.sink.collector);
}

static void add(const char *source)
{
	assert_int_equal(summary_add(summary, source), 0);
}

static void note(const char *source, enum sink_outcome outcome, uint64_t records)
{
	const struct intake_report report = {
		.outcome = outcome,
		.records = records,
		.text = "",
		.cause = outcome == SINK_REFUSED  ? "not-json"
		         : outcome == SINK_FAILED ? "refused"
		                                  : "",
		.status = outcome == SINK_FAILED ? 0 : 200,
		.bytes = outcome == SINK_FAILED ? 0 : 100,
		.took_ms = 12,
	};

	summary_note(summary, source, &report);
}

#define NONE_POLLED                                                                                                    \
	"\"polls\":0,\"unchanged\":0,\"failed\":0,\"refused\":0,\"records\":0,\"bytes\":0,\"slowest_ms\":null,"        \
	"\"last_status\":null,\"last_cause\":null}\n"
#define ONE_UNCHANGED                                                                                                  \
	"\"polls\":1,\"unchanged\":1,\"failed\":0,\"refused\":0,\"records\":0,\"bytes\":100,\"slowest_ms\":12,"        \
	"\"last_status\":200,\"last_cause\":null}\n"
#define TWO_UNCHANGED                                                                                                  \
	"\"polls\":2,\"unchanged\":2,\"failed\":0,\"refused\":0,\"records\":0,\"bytes\":200,\"slowest_ms\":12,"        \
	"\"last_status\":200,\"last_cause\":null}\n"
#define HEAD(source, from, to)                                                                                         \
	"{\"source\":\"" source "\",\"from\":\"2026-11-21T" from "Z\",\"to\":\"2026-11-21T" to "Z\","

static void test_an_hour(void **state)
{
	(void)state;
	add("parking");
	add("quiet");
	note("parking", SINK_COMMITTED, 9);
	note("parking", SINK_COMMITTED, 8);
	note("parking", SINK_UNCHANGED, 0);
	note("parking", SINK_REFUSED, 0);
	note("parking", SINK_FAILED, 0);
	run(HOUR - 1);
	assert_int_equal(fake.fetches, 0);
	assert_int_equal(summary_next_ms(summary), mono_ms + 1);
	run(1);
	assert_int_equal(fake.fetches, 1);
	assert_int_equal(fake.wall_ms, TEN + HOUR);
	assert_int_equal(fake.mono_ms, mono_ms);
	assert_string_equal(fake.lines, HEAD("parking", "10:00:00.000", "11:00:00.000") //
	                    "\"polls\":5,\"unchanged\":1,\"failed\":1,\"refused\":1,\"records\":17,\"bytes\":400,"
	                    "\"slowest_ms\":12,\"last_status\":200,\"last_cause\":\"refused\"}\n" //
	                    HEAD("quiet", "10:00:00.000", "11:00:00.000") NONE_POLLED);
	settle();
	note("quiet", SINK_UNCHANGED, 0);
	run(HOUR);
	assert_int_equal(fake.fetches, 2);
	assert_string_equal(fake.lines, HEAD("parking", "11:00:00.000", "12:00:00.000") NONE_POLLED //
	                                        HEAD("quiet", "11:00:00.000", "12:00:00.000") ONE_UNCHANGED);
}

static void test_what_is_kept_of_many_polls(void **state)
{
	struct intake_report report = { .outcome = SINK_UNCHANGED, .cause = "", .status = 200, .took_ms = 40 };

	(void)state;
	add("a");
	summary_note(summary, "a", &report);
	report.took_ms = 0;
	summary_note(summary, "a", &report);
	/* one that is no answer is slow for other reasons */
	report = (struct intake_report){ .outcome = SINK_FAILED, .cause = "http-503", .status = 503, .took_ms = 30000 };
	summary_note(summary, "a", &report);
	report = (struct intake_report){ .outcome = SINK_FAILED, .cause = "dns", .took_ms = 50 };
	summary_note(summary, "a", &report);
	/* it comes again, once it is durable */
	report = (struct intake_report){ .outcome = SINK_FAILED, .waits = true, .cause = "", .status = 200 };
	summary_note(summary, "a", &report);
	run(HOUR);
	assert_string_equal(fake.lines, HEAD("a", "10:00:00.000", "11:00:00.000") //
	                    "\"polls\":4,\"unchanged\":2,\"failed\":2,\"refused\":0,\"records\":0,\"bytes\":0,"
	                    "\"slowest_ms\":40,\"last_status\":503,\"last_cause\":\"dns\"}\n");
}

static void test_without_sources_nothing_is_told(void **state)
{
	(void)state;
	note(UNITS_POLLS, SINK_COMMITTED, 1);
	run(3 * HOUR);
	assert_int_equal(fake.fetches + fake.drops, 0);
	add("late");
	run(HOUR);
	assert_int_equal(fake.fetches, 1);
	assert_string_equal(fake.lines, HEAD("late", "13:00:00.000", "14:00:00.000") NONE_POLLED);
}

static void test_one_that_is_added(void **state)
{
	(void)state;
	add("a");
	run(20 * MINUTE + 7);
	add("b");
	run(HOUR);
	assert_string_equal(fake.lines, HEAD("a", "10:00:00.000", "11:00:00.000") NONE_POLLED //
	                                        HEAD("b", "10:20:00.007", "11:00:00.000") NONE_POLLED);
}

static void test_one_that_goes_is_told_once(void **state)
{
	(void)state;
	add("a");
	add("b");
	note("a", SINK_UNCHANGED, 0);
	run(20 * MINUTE);
	summary_remove(summary, "a");
	summary_remove(summary, "nobody");
	run(MINUTE);
	summary_remove(summary, "a");
	note("a", SINK_UNCHANGED, 0); /* the end of its last poll */
	run(39 * MINUTE);
	assert_string_equal(fake.lines, HEAD("a", "10:00:00.000", "10:20:00.000") TWO_UNCHANGED //
	                                        HEAD("b", "10:00:00.000", "11:00:00.000") NONE_POLLED);
	settle();
	note("a", SINK_UNCHANGED, 0);
	run(HOUR);
	assert_string_equal(fake.lines, HEAD("b", "11:00:00.000", "12:00:00.000") NONE_POLLED);
	settle();
	summary_remove(summary, "b");
	run(HOUR);
	assert_int_equal(fake.fetches, 3);
	assert_string_equal(fake.lines, HEAD("b", "12:00:00.000", "12:00:00.000") NONE_POLLED);
	settle();
	run(HOUR);
	assert_int_equal(fake.fetches, 3);
}

static void test_one_that_changes_is_the_same(void **state)
{
	(void)state;
	add("a");
	note("a", SINK_UNCHANGED, 0);
	run(20 * MINUTE);
	summary_remove(summary, "a");
	add("a");
	note("a", SINK_UNCHANGED, 0);
	run(40 * MINUTE);
	assert_string_equal(fake.lines, HEAD("a", "10:00:00.000", "11:00:00.000") TWO_UNCHANGED);
}

/* Of those that are gone the first is forgotten; one that is there never is. */
static void test_it_is_bounded(void **state)
{
	char name[UNITS_NAME_MAX];

	(void)state;
	for (int i = 0; i < SUMMARY_SOURCES_MAX; i++) {
		snprintf(name, sizeof name, "s%d", i);
		add(name);
	}
	assert_int_equal(summary_add(summary, "more"), -ENOBUFS);
	add("s7");
	summary_remove(summary, "s0");
	summary_remove(summary, "s1");
	add("more");
	run(HOUR);
	assert_int_equal(fake.records, SUMMARY_SOURCES_MAX);
	assert_memory_equal(fake.lines, "{\"source\":\"s1\"", 14);
	settle();
	run(HOUR);
	assert_int_equal(fake.records, SUMMARY_SOURCES_MAX - 1);
}

static void test_an_hour_that_cannot_be_told_is_told_with_the_next(void **state)
{
	(void)state;
	add("a");
	note("a", SINK_UNCHANGED, 0);
	fake.sink.full = true;
	run(HOUR);
	assert_int_equal(fake.fetches, 0);
	fake.sink.full = false;
	fake.sink.on_room(fake.sink.collector);
	run(59 * MINUTE);
	assert_int_equal(fake.fetches, 0);
	note("a", SINK_UNCHANGED, 0);
	run(MINUTE);
	assert_int_equal(fake.fetches, 1);
	assert_string_equal(fake.lines, HEAD("a", "10:00:00.000", "12:00:00.000") TWO_UNCHANGED);

	/* that one is not durable yet */
	note("a", SINK_UNCHANGED, 0);
	run(HOUR);
	assert_int_equal(fake.fetches, 1);
	settle();
	run(HOUR);
	assert_int_equal(fake.fetches, 2);
	assert_string_equal(fake.lines, HEAD("a", "12:00:00.000", "14:00:00.000") ONE_UNCHANGED);
}

static void test_without_memory_it_is_told_with_the_next(void **state)
{
	(void)state;
	add("a");
	add("b");
	note("a", SINK_UNCHANGED, 0);
	summary_remove(summary, "b");
	fake.fail_at = 2;
	run(HOUR);
	assert_int_equal(fake.fetches, 0);
	assert_int_equal(fake.drops, 1);
	fake.fail_at = 0;
	note("a", SINK_UNCHANGED, 0);
	run(HOUR);
	assert_int_equal(fake.fetches, 1);
	assert_string_equal(fake.lines, HEAD("a", "10:00:00.000", "12:00:00.000") TWO_UNCHANGED //
	                                        HEAD("b", "10:00:00.000", "10:00:00.000") NONE_POLLED);
}

/* Begins anew, so long before the next hour. */
static void start(int64_t before_ms)
{
	summary_free(summary);
	wall_ms = TEN + HOUR - before_ms;
	summary = summary_new(&fake.sink, &alarms);
	assert_non_null(summary);
	summary_set_clock(summary, true);
	add("a");
}

static void test_a_start_just_before_the_hour(void **state)
{
	(void)state;
	start(5 * MINUTE - 1);
	run(HOUR - 1);
	assert_int_equal(fake.fetches, 0);
	run(5 * MINUTE);
	assert_string_equal(fake.lines, HEAD("a", "10:55:00.001", "12:00:00.000") NONE_POLLED);
	start(5 * MINUTE);
	run(5 * MINUTE);
	assert_string_equal(fake.lines, HEAD("a", "10:55:00.000", "11:00:00.000") NONE_POLLED);
}

/* The loop was held up, or an hour is a little longer by a clock that is being slewed. */
static void test_a_moment_late(void **state)
{
	(void)state;
	add("a");
	run(HOUR - 1);
	mono_ms += 2 * SECOND;
	wall_ms += 2 * SECOND - 500;
	alarms_ring(&alarms, mono_ms);
	assert_int_equal(fake.fetches, 1);
	assert_int_equal(fake.wall_ms, TEN + HOUR + 1499);
	assert_string_equal(fake.lines, HEAD("a", "10:00:00.000", "11:00:00.000") NONE_POLLED);
	settle();
	run(HOUR - 10 * SECOND);
	wall_ms -= 3 * SECOND;
	run(12 * SECOND);
	assert_int_equal(fake.fetches, 2);
	assert_string_equal(fake.lines, HEAD("a", "11:00:00.000", "12:00:00.000") NONE_POLLED);
}

/* Suspended: who was not there for hours does not tell full ones. */
static void test_hours_late(void **state)
{
	(void)state;
	add("a");
	run(30 * MINUTE);
	mono_ms += 3 * HOUR;
	wall_ms += 3 * HOUR;
	alarms_ring(&alarms, mono_ms);
	assert_string_equal(fake.lines, HEAD("a", "10:00:00.000", "13:30:00.000") NONE_POLLED);
	settle();
	run(30 * MINUTE);
	assert_string_equal(fake.lines, HEAD("a", "13:30:00.000", "14:00:00.000") NONE_POLLED);
}

static void test_the_clock_is_put_right(void **state)
{
	(void)state;
	summary_set_clock(summary, false);
	assert_int_equal(summary_next_ms(summary), ALARM_NEVER);
	wall_ms = 0;
	add("a");
	add("b");
	run(10 * MINUTE);
	summary_remove(summary, "b");
	run(100 * MINUTE);
	assert_int_equal(fake.fetches, 0);
	wall_ms = TEN + 30 * MINUTE;
	summary_set_clock(summary, true);
	run(30 * MINUTE);
	assert_int_equal(fake.fetches, 1);
	assert_string_equal(fake.lines, HEAD("a", "08:40:00.000", "11:00:00.000") NONE_POLLED //
	                                        HEAD("b", "08:40:00.000", "08:50:00.000") NONE_POLLED);
}

static void test_the_clock_jumps(void **state)
{
	(void)state;
	add("a");
	run(30 * MINUTE);
	wall_ms -= 2 * HOUR; /* 08:30 */
	run(HOUR + 29 * MINUTE);
	assert_int_equal(fake.fetches, 0);
	run(MINUTE);
	assert_string_equal(fake.lines, HEAD("a", "08:00:00.000", "10:00:00.000") NONE_POLLED);
	settle();
	run(30 * MINUTE);
	wall_ms += 2 * HOUR; /* 12:30 */
	run(30 * MINUTE);
	assert_int_equal(fake.fetches, 2);
	assert_string_equal(fake.lines, HEAD("a", "12:00:00.000", "13:00:00.000") NONE_POLLED);
}

/* It is asked every minute while nothing is right: the hour that has come is not put off for another. */
static void test_an_answer_of_the_clock_at_the_hour(void **state)
{
	(void)state;
	add("a");
	run(HOUR - 1);
	mono_ms++;
	wall_ms++;
	summary_set_clock(summary, true);
	alarms_ring(&alarms, mono_ms);
	assert_int_equal(fake.fetches, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_an_hour),
		TEST(test_what_is_kept_of_many_polls),
		TEST(test_without_sources_nothing_is_told),
		TEST(test_one_that_is_added),
		TEST(test_one_that_goes_is_told_once),
		TEST(test_one_that_changes_is_the_same),
		TEST(test_it_is_bounded),
		TEST(test_an_hour_that_cannot_be_told_is_told_with_the_next),
		TEST(test_without_memory_it_is_told_with_the_next),
		TEST(test_a_start_just_before_the_hour),
		TEST(test_a_moment_late),
		TEST(test_hours_late),
		TEST(test_the_clock_is_put_right),
		TEST(test_the_clock_jumps),
		TEST(test_an_answer_of_the_clock_at_the_hour),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
