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

#include "base/clock.h"
#include "base/units.h"
#include "mill/machine.h"

#define SECOND INT64_C(1000)
#define MINUTE (60 * SECOND)
#define HOUR   (60 * MINUTE)
#define DAY    (24 * HOUR)
#define NOON   INT64_C(1795262400000) /* 2026-11-21T12:00:00Z */
#define BOOT   (20 * SECOND)          /* from a packet to the first answer */

/* Time is the test's: this stands before libc's. */

static int64_t mono_ms, wall_ms;

int clock_gettime(clockid_t id, struct timespec *time)
{
	int64_t ms = id == CLOCK_REALTIME ? wall_ms : mono_ms;
	*time = (struct timespec){ .tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000 * 1000000) };
	return 0;
}

/* The world: one machine, the ledger, and what the machine has asked for and not heard of yet. */

static struct world {
	bool awake, link;                   /* the machine is; the network to it is there */
	bool refuses;                       /* its keys are wrong */
	bool blocked;                       /* our key is not there */
	bool knows;                         /* its answers tell whether it has slept */
	const char *text;                   /* what they tell of it; NULL: the number of its boots */
	bool obstinate;                     /* agrees to sleep, and does not */
	bool deaf;                          /* to packets */
	const char *busy;                   /* why it will not sleep; NULL: it will */
	int64_t booted_ms, falls_asleep_ms; /* when it will be awake, asleep; ALARM_NEVER: it will not */
	unsigned boots;

	int wake_status, note_status;
	unsigned wakes, looks, asks, notes; /* acts so far */
	bool waking, looking, asking, noting;
	bool hold_wake, hold_look, hold_sleep, hold_note; /* these acts do not end yet */

	struct ledger_machine noted; /* as it was asked */
	struct ledger_day noted_day;
	struct ledger_machine disk;
	bool on_disk;
	struct ledger_day days[8]; /* by day; day 0: free */
	char edges[256];           /* what was written, a letter each */
	unsigned changes;
} world;

static struct alarms alarms;
static struct machine *machine;
static struct machine_settings settings;

static void do_wake(void *arg)
{
	assert_ptr_equal(arg, &world);
	assert_false(world.waking);
	world.waking = true;
	world.wakes++;
}

static void do_look(void *arg)
{
	assert_ptr_equal(arg, &world);
	assert_false(world.looking);
	world.looking = true;
	world.looks++;
}

static void do_sleep(void *arg)
{
	assert_ptr_equal(arg, &world);
	assert_false(world.asking);
	world.asking = true;
	world.asks++;
}

static void do_note(void *arg, const struct ledger_machine *state, const struct ledger_day *add)
{
	assert_ptr_equal(arg, &world);
	assert_false(world.noting);
	/* What was begun in the state before may end now, but nothing is begun until this is written. */
	world.noting = true;
	world.notes++;
	world.noted = *state;
	world.noted_day = *add;
}

static void on_changed(void *arg)
{
	assert_ptr_equal(arg, &world);
	world.changes++;
}

static struct ledger_day *day_of(int64_t day)
{
	for (size_t i = 0; i < sizeof world.days / sizeof *world.days; i++)
		if (world.days[i].day == 0 || world.days[i].day == day) {
			world.days[i].day = day;
			return &world.days[i];
		}
	fail_msg("more days than the test expects");
	return NULL;
}

static void write_down(void)
{
	struct ledger_day *day = day_of(world.noted_day.day);
	if (!world.on_disk || world.disk.state != world.noted.state || world.disk.ours != world.noted.ours)
		snprintf(world.edges + strlen(world.edges), sizeof world.edges - strlen(world.edges), "%c",
		         "awurisAWURIS"[world.noted.state + (world.noted.ours ? 6 : 0)]);
	world.disk = world.noted;
	world.on_disk = true;
	day->wakes += world.noted_day.wakes;
	day->awake_ms += world.noted_day.awake_ms;
}

static const struct machine_acts acts = { do_wake, do_look, do_sleep, do_note, on_changed, &world };

/* As after a start of the program; what was under way is forgotten. */
static void begin(void)
{
	const struct ledger_day *today = NULL;
	for (size_t i = 0; i < sizeof world.days / sizeof *world.days && world.days[i].day; i++)
		if (world.days[i].day == units_day(wall_ms))
			today = &world.days[i];
	world.waking = world.looking = world.asking = world.noting = false;
	machine = machine_new(&settings, "mill", &alarms, &acts, world.on_disk ? &world.disk : NULL, today);
	assert_non_null(machine);
}

static void cut(void)
{
	machine_free(machine);
	assert_int_equal(alarms_next(&alarms), ALARM_NEVER);
	begin();
}

static void end_wake(void)
{
	struct err err = { "no link: eth0 is down" };
	world.waking = false;
	if (world.wake_status == 0 && !world.awake && !world.deaf && world.link && world.booted_ms == ALARM_NEVER)
		world.booted_ms = mono_ms + BOOT;
	machine_on_woken(machine, world.wake_status, world.wake_status < 0 ? &err : NULL);
}

static void end_look(void)
{
	struct err refused = { "mill: refuses our key" }, silent = { "mill: no route" };
	struct err blocked = { "mill: the key is not there" };
	char id[32];
	world.looking = false;
	snprintf(id, sizeof id, "%u", world.boots);
	if (world.blocked)
		machine_on_look(machine, MACHINE_BLOCKED, NULL, &blocked);
	else if (!world.awake || !world.link)
		machine_on_look(machine, MACHINE_SILENT, NULL, &silent);
	else if (world.refuses)
		machine_on_look(machine, MACHINE_REFUSES, NULL, &refused);
	else
		machine_on_look(machine, MACHINE_ANSWERS, !world.knows ? NULL : world.text ? world.text : id, NULL);
}

static void end_sleep(void)
{
	struct err because = { "" };
	world.asking = false;
	bool agrees = world.awake && world.link && !world.busy && !world.blocked;
	if (agrees && !world.obstinate)
		world.falls_asleep_ms = mono_ms + 3 * SECOND;
	err_fail(&because, 0, "%s", world.busy ? world.busy : "no route");
	machine_on_sleep(machine, agrees, agrees ? NULL : &because);
}

static void end_note(void)
{
	world.noting = false;
	if (world.note_status == 0)
		write_down();
	machine_on_noted(machine, world.note_status);
}

/* Lets what is under way end, until nothing is. */
static void settle(void)
{
	for (int i = 0;; i++) {
		assert_true(i < 1000);
		if (world.noting && !world.hold_note)
			end_note();
		else if (world.waking && !world.hold_wake)
			end_wake();
		else if (world.looking && !world.hold_look)
			end_look();
		else if (world.asking && !world.hold_sleep)
			end_sleep();
		else
			return;
	}
}

static void set_time(int64_t to_ms)
{
	wall_ms += to_ms - mono_ms;
	mono_ms = to_ms;
	if (mono_ms >= world.booted_ms) {
		world.booted_ms = ALARM_NEVER;
		world.awake = true;
		world.boots++;
	}
	if (mono_ms >= world.falls_asleep_ms) {
		world.falls_asleep_ms = ALARM_NEVER;
		world.awake = false;
	}
}

static void pass(int64_t by_ms)
{
	int64_t until_ms = mono_ms + by_ms;
	settle();
	while (mono_ms < until_ms) {
		int64_t next_ms = alarms_next(&alarms);
		next_ms = next_ms < world.booted_ms ? next_ms : world.booted_ms;
		next_ms = next_ms < world.falls_asleep_ms ? next_ms : world.falls_asleep_ms;
		next_ms = next_ms < mono_ms ? mono_ms : next_ms;
		set_time(next_ms < until_ms ? next_ms : until_ms);
		alarms_ring(&alarms, mono_ms);
		settle();
	}
}

static struct machine_view view(void)
{
	struct machine_view v;
	machine_view(machine, &v);
	return v;
}

static void assert_state(enum ledger_machine_state state)
{
	if (view().state != state)
		fail_msg("state %d, not %d: %s (%s)", view().state, state, view().reason, world.edges);
}

/* What was written since the last time, a letter each: awuris for the states, capitals where the machine is ours. */
static void assert_edges(const char *expected)
{
	assert_string_equal(world.edges, expected);
	*world.edges = '\0';
}

static void assert_says(const char *text)
{
	if (!strstr(view().reason, text))
		fail_msg("\"%s\" does not say \"%s\"", view().reason, text);
}

static int setup(void **state)
{
	(void)state;
	mono_ms = 5 * MINUTE;
	wall_ms = NOON;
	world = (struct world){ .link = true, .knows = true, .booted_ms = ALARM_NEVER, .falls_asleep_ms = ALARM_NEVER };
	alarms = (struct alarms){ NULL };
	settings = (struct machine_settings){ .wake = MACHINE_WOL,
		                              .ready_timeout_ms = 3 * MINUTE,
		                              .idle_ms = 10 * MINUTE,
		                              .sleep = true,
		                              .wakes_per_day = 12 };
	begin();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	machine_free(machine);
	assert_int_equal(alarms_next(&alarms), ALARM_NEVER);
	return 0;
}

/* Woken by us, up, and wanted. */
static void wake_up(void)
{
	machine_want(machine, 1, 0);
	pass(BOOT + MACHINE_RESEND_MS);
	assert_state(LEDGER_UP);
	assert_edges("WU");
}

/* The same, and a run is under way on it. */
static void wake_and_run(void)
{
	wake_up();
	machine_want(machine, 1, 1);
	settle();
	assert_edges("R");
}

/* The same, and nobody wants it any more. */
static void wake_and_rest(void)
{
	wake_and_run();
	machine_want(machine, 0, 0);
	settle();
	assert_edges("I");
}

static void test_a_day_at_work(void **state)
{
	(void)state;
	pass(HOUR);
	assert_int_equal(world.looks + world.wakes, 0);
	assert_false(world.on_disk);
	machine_want(machine, 1, 0);
	pass(SECOND);
	assert_state(LEDGER_WAKING);
	assert_says("it is wanted");
	assert_int_equal(world.looks, 2);
	assert_false(machine_is_ready(machine));
	pass(BOOT - 2 * SECOND);
	assert_int_equal(world.wakes, 4); /* at once, and every 5 seconds */
	pass(MACHINE_RESEND_MS);
	assert_state(LEDGER_UP);
	assert_true(machine_is_ready(machine));
	unsigned wakes = world.wakes, seen = world.looks;
	machine_want(machine, 1, 1);
	settle();
	assert_state(LEDGER_RUNNING);
	pass(MACHINE_LOOK_MS / 2);
	assert_int_equal(world.looks, seen); /* it has just answered */
	pass(HOUR);
	machine_want(machine, 0, 0);
	settle();
	assert_state(LEDGER_IDLE);
	pass(10 * MINUTE - 1);
	assert_int_equal(world.asks, 0);
	pass(1);
	assert_int_equal(world.asks, 1);
	assert_state(LEDGER_SLEEPING);
	pass(MINUTE);
	assert_state(LEDGER_ASLEEP);
	assert_edges("WURISa");
	assert_says("it sleeps");
	assert_int_equal(world.wakes, wakes); /* no packet while it is awake */
	assert_int_equal(world.boots, 1);
	unsigned looks = world.looks;
	pass(7 * DAY);
	assert_int_equal(world.looks, looks);
	assert_int_equal(world.wakes, wakes);
	assert_int_equal(world.changes, 6);
}

static void test_two_runs_share_a_wake(void **state)
{
	(void)state;
	machine_want(machine, 2, 0);
	pass(MINUTE);
	machine_want(machine, 2, 1);
	settle();
	machine_want(machine, 2, 2); /* at the same time, */
	pass(MINUTE);
	machine_want(machine, 1, 1);
	pass(MINUTE);
	assert_edges("WUR");
	machine_want(machine, 1, 0); /* and one more after them */
	settle();
	assert_state(LEDGER_UP);
	machine_want(machine, 1, 1);
	pass(MINUTE);
	machine_want(machine, 0, 0);
	pass(9 * MINUTE);
	unsigned looks = world.looks;
	machine_want(machine, 1, 0); /* and one while it rests */
	settle();
	assert_int_equal(world.looks, looks);
	assert_edges("IURIU");
	machine_want(machine, 0, 0);
	pass(9 * MINUTE + 59 * SECOND);
	assert_edges("I");
	pass(MINUTE);
	assert_edges("Sa");
	assert_int_equal(world.boots, 1);
	assert_int_equal(day_of(NOON / DAY)->wakes, 1);
}

static void test_somebody_else_woke_it(void **state)
{
	(void)state;
	world.awake = true;
	machine_want(machine, 1, 0);
	settle();
	assert_edges("u");
	assert_says("somebody else");
	machine_want(machine, 1, 1);
	settle();
	machine_want(machine, 0, 0);
	pass(7 * DAY);
	assert_edges("ri");
	assert_int_equal(world.asks + world.wakes, 0);
	world.awake = false; /* he puts it to sleep again */
	pass(MACHINE_LOOK_MS + MACHINE_LOST_MS);
	assert_edges("a");
	unsigned looks = world.looks;
	pass(DAY);
	assert_int_equal(world.looks, looks);
}

static void test_it_is_woken_while_it_is_looked_at(void **state)
{
	(void)state;
	world.hold_look = true;
	machine_want(machine, 1, 0);
	settle();
	world.awake = true;
	world.hold_look = false;
	pass(SECOND);
	assert_edges("u");
}

static void test_one_that_is_always_on(void **state)
{
	(void)state;
	settings.wake = MACHINE_NONE;
	machine_want(machine, 1, 0);
	pass(HOUR);
	assert_state(LEDGER_ASLEEP);
	assert_says("no route");
	assert_in_range(world.looks, 60, 62);
	assert_int_equal(view().next_try_ms, ALARM_NEVER);
	machine_wake(machine); /* looks at once, and no more than that */
	settle();
	assert_in_range(world.looks, 61, 63);
	world.awake = true;
	pass(MACHINE_LOOK_MS);
	machine_want(machine, 1, 1);
	settle();
	machine_want(machine, 0, 0);
	pass(DAY);
	assert_edges("uri");
	assert_int_equal(world.asks + world.wakes, 0);
	world.awake = false;
	pass(HOUR);
	assert_edges("a");
}

static void test_it_never_answers(void **state)
{
	(void)state;
	static const int64_t waits[] = { 5, 10, 20, 40, 80, 160, 320, 360, 360, 360 };
	settings.wakes_per_day = 1000;
	world.deaf = true;
	machine_want(machine, 1, 0);
	settle();
	assert_edges("W");
	for (size_t i = 0; i < sizeof waits / sizeof *waits; i++) {
		pass(3 * MINUTE - 1);
		assert_state(LEDGER_WAKING);
		pass(1);
		assert_state(LEDGER_ASLEEP);
		assert_says("did not answer within 3m of its wake");
		assert_int_equal(view().failures, i + 1);
		assert_int_equal(view().next_try_ms, mono_ms + waits[i] * MINUTE);
		pass(waits[i] * MINUTE - 1);
		assert_edges("A");
		pass(1);
		assert_edges("W");
	}
	world.deaf = false;
	pass(MINUTE);
	assert_edges("U");
	assert_int_equal(view().failures, 0);
}

static void test_a_wait_ends_between_two_looks(void **state)
{
	(void)state;
	world.deaf = true;
	machine_want(machine, 1, 0);
	pass(3 * MINUTE + 10 * SECOND);
	machine_want(machine, 0, 0);
	pass(20 * SECOND);
	machine_want(machine, 1, 0); /* looked at now, and each minute from now on */
	pass(4 * MINUTE + 30 * SECOND - 1);
	assert_edges("WA");
	pass(1);
	assert_edges("W");
}

/* In the backoff too: somebody presses its button. */
static void test_it_is_looked_at_while_it_waits(void **state)
{
	(void)state;
	world.deaf = true;
	machine_want(machine, 1, 0);
	pass(4 * MINUTE);
	assert_edges("WA");
	world.awake = true;
	pass(MACHINE_LOOK_MS);
	assert_edges("U");
	world.awake = false;
	pass(5 * MINUTE);
	assert_edges("AWA"); /* with its answer the backoff was over */
}

static void test_nobody_wants_it_any_more_while_it_wakes(void **state)
{
	(void)state;
	machine_want(machine, 1, 0);
	pass(SECOND);
	machine_want(machine, 0, 0);
	pass(MINUTE);
	assert_edges("WUI"); /* it comes up all the same, and is put to sleep */
	pass(11 * MINUTE);
	assert_edges("Sa");
	machine_want(machine, 1, 0);
	world.deaf = true;
	pass(SECOND);
	machine_want(machine, 0, 0);
	pass(DAY);
	assert_edges("WA");
}

static void test_no_packet_leaves(void **state)
{
	(void)state;
	world.wake_status = -ENETDOWN;
	machine_want(machine, 1, 0);
	pass(MINUTE);
	assert_state(LEDGER_WAKING);
	assert_says("eth0 is down");
	assert_int_equal(world.wakes, 13);
	pass(2 * MINUTE);
	assert_state(LEDGER_ASLEEP);
	assert_says("of its wake: no link: eth0 is down");
	world.wake_status = 0;
	pass(6 * MINUTE);
	assert_edges("WaWU");
}

static void test_packets_that_leave_at_first(void **state)
{
	(void)state;
	world.deaf = true;
	machine_want(machine, 1, 0);
	pass(SECOND);
	world.wake_status = -ENETDOWN;
	pass(4 * MINUTE);
	assert_edges("WA"); /* they may have woken it all the same */
	/* a failure that is told when it is up already is none */
	pass(4 * MINUTE);
	assert_edges("W");
	world.hold_wake = true;
	pass(10 * SECOND);
	world.awake = true;
	pass(10 * SECOND);
	world.hold_wake = false;
	settle();
	assert_edges("U");
	assert_says("after its wake");
}

static void test_a_wake_command(void **state)
{
	(void)state;
	settings.wake = MACHINE_EXEC;
	world.wake_status = -ENOENT;
	world.hold_wake = true;
	machine_want(machine, 1, 0);
	pass(MINUTE);
	assert_int_equal(world.wakes, 1);
	world.hold_wake = false;
	pass(10 * SECOND);
	assert_int_equal(world.wakes, 3); /* again, until it ends well */
	assert_says("eth0 is down");
	world.wake_status = 0;
	world.deaf = true;
	pass(30 * SECOND);
	assert_int_equal(world.wakes, 4);
	assert_says("it is wanted");
	world.hold_wake = true;
	world.wake_status = -EIO;
	pass(10 * MINUTE);
	assert_edges("WAWA"); /* it has not ended well, but the first one has */
	assert_int_equal(world.wakes, 5);
	pass(12 * MINUTE);
	assert_edges("W");
	assert_int_equal(world.wakes, 5); /* not twice at a time, even where it hangs for ever */
	world.hold_wake = false;
	world.wake_status = 0;
	world.deaf = false;
	pass(MINUTE);
	assert_edges("AU");
}

static void test_a_wake_command_that_ends_too_late(void **state)
{
	(void)state;
	settings.wake = MACHINE_EXEC;
	world.hold_wake = true;
	machine_want(machine, 1, 0);
	pass(4 * MINUTE);
	assert_edges("Wa");
	world.hold_wake = false;
	settle();
	assert_says("did not answer");
	assert_edges("");
	pass(MACHINE_LOOK_MS);
	assert_edges("u");
}

static void test_breaker(void **state)
{
	(void)state;
	settings.wakes_per_day = 3;
	world.deaf = true;
	wall_ms = NOON + 6 * HOUR;
	machine_want(machine, 1, 0);
	pass(2 * HOUR);
	assert_edges("WAWAWA");
	assert_says("woken 3 times today");
	assert_int_equal(view().wakes, 3);
	assert_int_equal(view().next_try_ms, mono_ms + 4 * HOUR);
	pass(4 * HOUR - SECOND);
	assert_edges("");
	pass(2 * MINUTE);
	assert_edges("W");
	assert_int_equal(view().wakes, 1);
	assert_int_equal(day_of(NOON / DAY)->wakes, 3);
	assert_int_equal(day_of(NOON / DAY + 1)->wakes, 1);
}

static void test_breaker_outlasts_a_start(void **state)
{
	(void)state;
	settings.wakes_per_day = 3;
	world.deaf = true;
	machine_want(machine, 1, 0);
	for (int i = 0; i < 5; i++) {
		pass(4 * MINUTE);
		cut();
		machine_want(machine, 1, 0);
	}
	pass(HOUR);
	assert_edges("WAWAWA");
	wall_ms += DAY;
	cut();
	machine_want(machine, 1, 0);
	settle();
	assert_edges("W");
}

/* The clock was ahead for a while: the wakes of a day to come are none of today. */
static void test_breaker_and_a_day_to_come(void **state)
{
	(void)state;
	settings.wakes_per_day = 1;
	wall_ms += 400 * DAY;
	wake_and_rest();
	pass(HOUR);
	assert_edges("Sa");
	wall_ms -= 400 * DAY;
	pass(DAY);
	machine_free(machine);
	machine = machine_new(&settings, "mill", &alarms, &acts, &world.disk, day_of(NOON / DAY + 400));
	assert_int_equal(view().wakes, 0);
	machine_want(machine, 1, 0);
	pass(MINUTE);
	assert_edges("WU");
	assert_int_equal(view().wakes, 1);
}

static void test_breaker_and_a_clock_that_jumps(void **state)
{
	(void)state;
	settings.wakes_per_day = 1;
	world.deaf = true;
	machine_want(machine, 1, 0);
	pass(DAY / 4);
	assert_edges("WA");
	wall_ms -= 3 * DAY; /* put back: nothing is won */
	pass(HOUR);
	assert_edges("");
	assert_int_equal(view().wakes, 1);
	wall_ms += DAY / 2 + HOUR;
	pass(3 * HOUR); /* nor lost: midnight is midnight */
	assert_edges("WA");
	wall_ms += 1000 * DAY;
	pass(2 * MINUTE);
	assert_edges("W");
	pass(HOUR);
	wall_ms -= 1000 * DAY;
	pass(HOUR);
	assert_edges("A");
	assert_says("woken 1 times today");
	pass(DAY);
	assert_edges("WA");
}

static void test_a_person_asks(void **state)
{
	(void)state;
	settings.wakes_per_day = 1;
	machine_wake(machine);
	settle();
	assert_int_equal(world.looks, 0); /* not before it is known who wants it */
	machine_want(machine, 0, 0);
	pass(MINUTE);
	assert_edges("WUI");
	pass(5 * MINUTE);
	machine_wake(machine); /* stays for `idle` from here */
	pass(10 * MINUTE - SECOND);
	assert_edges("");
	pass(MINUTE);
	assert_edges("Sa");
	world.deaf = true;
	machine_want(machine, 1, 0);
	pass(MINUTE);
	assert_says("woken 1 times today");
	machine_wake(machine);
	pass(4 * MINUTE);
	assert_edges("WA"); /* past the breaker, once */
	pass(HOUR);
	assert_edges("");
	machine_wake(machine);
	settle();
	assert_edges("W");
	assert_says("somebody asked for it");
	world.deaf = false;
	pass(MINUTE);
	machine_wake(machine); /* it is up: nothing to do */
	machine_want(machine, 1, 1);
	settle();
	machine_wake(machine);
	pass(HOUR);
	assert_edges("UR");
}

/* What a person has asked for is done once it is up. */
static void test_a_person_asked_long_ago(void **state)
{
	(void)state;
	settings.wakes_per_day = 1;
	wake_and_run();
	machine_wake(machine);
	pass(SECOND);
	world.awake = false;
	pass(HOUR);
	assert_edges("A");
	assert_says("woken 1 times today");
}

/* It counts as awake, and is not: who asks for it need not wait until it is lost. */
static void test_a_person_knows_better(void **state)
{
	(void)state;
	settings.wakes_per_day = 1;
	wake_and_run();
	machine_want(machine, 0, 0);
	settle();
	assert_edges("I");
	world.awake = false;
	machine_wake(machine);
	pass(MINUTE);
	assert_edges("AWUI");
	assert_int_equal(world.boots, 2);
	machine_wake(machine); /* it does answer */
	pass(MINUTE);
	assert_edges("");
}

/* A state of before says nothing of now. */
static void test_not_ready_before_it_has_answered(void **state)
{
	(void)state;
	wake_and_run();
	cut();
	world.refuses = true;
	machine_want(machine, 1, 1);
	assert_false(machine_is_ready(machine));
	unsigned changes = world.changes;
	pass(MINUTE);
	assert_false(machine_is_ready(machine));
	world.refuses = false;
	pass(MACHINE_LOOK_MS);
	assert_true(machine_is_ready(machine));
	assert_true(world.changes > changes);
	cut();
	machine_want(machine, 1, 1);
	assert_false(machine_is_ready(machine));
	changes = world.changes;
	pass(SECOND);
	assert_true(machine_is_ready(machine));
	assert_int_equal(world.changes, changes + 1);
	assert_edges("");
}

/* Others have to wake it, and nobody does. */
static void test_one_that_only_others_wake(void **state)
{
	(void)state;
	settings.wake = MACHINE_NONE;
	machine_want(machine, 1, 0);
	pass(settings.ready_timeout_ms - MINUTE);
	assert_int_equal(view().failures, 0);
	pass(2 * MINUTE);
	assert_int_equal(view().failures, 1);
	assert_says("no route");
	world.awake = true;
	pass(MACHINE_LOOK_MS);
	assert_int_equal(view().failures, 0);
	machine_want(machine, 0, 0);
	world.awake = false;
	pass(HOUR);
	machine_want(machine, 1, 0);
	pass(settings.ready_timeout_ms + MINUTE);
	assert_int_equal(view().failures, 1);
	machine_want(machine, 0, 0);
	pass(MINUTE);
	assert_int_equal(view().failures, 0);
}

static void test_a_wake_that_works_ends_the_backoff(void **state)
{
	(void)state;
	world.deaf = true;
	machine_want(machine, 1, 0);
	pass(3 * MINUTE + SECOND);
	assert_edges("WA");
	world.deaf = false;
	machine_wake(machine);
	pass(MINUTE);
	assert_edges("WU");
	world.awake = false;
	world.deaf = true;
	pass(MACHINE_LOST_MS + MACHINE_RESEND_MS);
	assert_edges("AW");
}

static void test_a_person_asks_while_it_falls_asleep(void **state)
{
	(void)state;
	wake_and_rest();
	world.hold_sleep = true;
	pass(10 * MINUTE);
	assert_int_equal(world.asks, 1);
	machine_wake(machine);
	world.hold_sleep = false;
	pass(2 * MINUTE);
	assert_edges("SaWUI");
	/* it refuses, and stays for `idle` */
	world.hold_sleep = true;
	pass(9 * MINUTE);
	machine_wake(machine);
	world.busy = "somebody is logged in";
	world.hold_sleep = false;
	world.asks = 0;
	pass(9 * MINUTE);
	assert_int_equal(world.asks, 0);
	machine_want(machine, 1, 0);
	settle();
	assert_edges("U");
}

static void test_it_refuses_to_sleep(void **state)
{
	(void)state;
	wake_and_rest();
	world.busy = "somebody is logged in";
	pass(10 * MINUTE);
	assert_int_equal(world.asks, 1);
	assert_says("it does not sleep: somebody is logged in");
	pass(10 * MINUTE - SECOND);
	assert_int_equal(world.asks, 1);
	pass(HOUR + SECOND);
	assert_int_equal(world.asks, 8);
	assert_state(LEDGER_IDLE);
	world.busy = NULL;
	pass(11 * MINUTE);
	assert_edges("Sa");
}

static void test_wanted_while_it_is_asked_to_sleep(void **state)
{
	(void)state;
	wake_and_rest();
	world.hold_sleep = true;
	pass(10 * MINUTE);
	machine_want(machine, 1, 0);
	pass(MINUTE);
	assert_state(LEDGER_IDLE); /* its answer is awaited first */
	assert_false(machine_is_ready(machine));
	world.hold_sleep = false;
	pass(2 * MINUTE);
	assert_edges("SaWU");
	machine_want(machine, 0, 0);
	world.busy = "a lease";
	world.hold_sleep = true;
	pass(10 * MINUTE);
	machine_want(machine, 1, 0);
	settle();
	world.hold_sleep = false;
	settle();
	assert_edges("IU");
}

/* Nor is it lost then: what it says to sleep must find the state that asked. */
static void test_silent_while_it_is_asked_to_sleep(void **state)
{
	(void)state;
	world.knows = false;
	wake_and_rest();
	pass(8 * MINUTE);
	world.link = false;
	pass(MINUTE + 50 * SECOND);
	world.hold_look = world.hold_sleep = true;
	pass(2 * MINUTE);
	assert_true(world.looking && world.asking);
	world.hold_look = false;
	settle();
	assert_edges("");
	world.hold_sleep = false;
	pass(MINUTE);
	assert_edges("A");
}

static void test_it_may_not_sleep(void **state)
{
	(void)state;
	settings.sleep = false;
	wake_and_rest();
	pass(DAY);
	assert_edges("");
	assert_int_equal(world.asks, 0);
	settings.sleep = true;
	machine_use(machine, &settings);
	pass(MINUTE);
	assert_edges("Sa");
}

static void test_it_agrees_and_does_not_sleep(void **state)
{
	(void)state;
	wake_and_rest();
	world.obstinate = true;
	pass(10 * MINUTE);
	assert_edges("S");
	machine_want(machine, 1, 0); /* waits until it is known what becomes of it */
	pass(3 * MINUTE - SECOND);
	assert_edges("");
	pass(SECOND);
	assert_edges("IU");
	machine_want(machine, 0, 0);
	pass(13 * MINUTE);
	assert_edges("ISI");
	assert_says("it agreed to sleep, and still answers after 3m");
	world.obstinate = false;
	pass(11 * MINUTE);
	assert_edges("Sa");
}

static void test_a_look_that_fails_is_no_sleep(void **state)
{
	(void)state;
	wake_and_rest();
	world.obstinate = true;
	pass(10 * MINUTE + SECOND);
	world.link = false;
	pass(9 * SECOND);
	world.link = true;
	pass(3 * MINUTE);
	assert_edges("SI");
}

static void test_lost_while_it_runs(void **state)
{
	(void)state;
	wake_and_run();
	pass(MACHINE_LOOK_MS - SECOND);
	world.link = false;
	pass(MACHINE_LOST_MS - MINUTE);
	assert_edges("");
	pass(MINUTE + MACHINE_RESEND_MS);
	assert_edges("AW"); /* its run wants it; it does not answer */
	world.link = true;
	pass(MINUTE);
	assert_edges("UR");
	assert_int_equal(world.boots, 1);
	machine_want(machine, 0, 0);
	pass(12 * MINUTE);
	assert_edges("ISa");
}

static void test_runs_that_answer_are_looks_enough(void **state)
{
	(void)state;
	wake_and_run();
	unsigned looks = world.looks;
	for (int i = 0; i < 30; i++) {
		pass(10 * SECOND);
		machine_answered(machine);
	}
	assert_int_equal(world.looks, looks);
	world.link = false;
	pass(MACHINE_LOST_MS + MACHINE_RESEND_MS);
	assert_edges("AW");
}

/* The link is down for hours while it rests: it is found again, and put to sleep. */
static void test_no_machine_is_left_awake(void **state)
{
	(void)state;
	wake_and_rest();
	pass(MINUTE);
	world.link = false;
	pass(5 * HOUR);
	assert_edges("A");
	assert_says("it has not answered for 2m: mill: no route");
	unsigned looks = world.looks;
	pass(2 * HOUR);
	assert_in_range(world.looks, looks + 2, looks + 4); /* not for ever each minute */
	world.link = true;
	pass(HOUR + 12 * MINUTE);
	assert_edges("UISa");
	assert_int_equal(world.boots, 1);
}

static void test_lost_and_woken_by_somebody_else(void **state)
{
	for (int wanted = 0; wanted < 2; wanted++) {
		wake_and_rest();
		pass(MINUTE);
		world.awake = false; /* he puts it to sleep */
		pass(wanted ? HOUR : 20 * MINUTE);
		assert_edges("A");
		world.awake = true; /* and wakes it */
		world.boots++;
		machine_want(machine, (unsigned)wanted, 0);
		pass(HOUR);
		assert_edges(wanted ? "u" : "a");
		machine_want(machine, 0, 0);
		pass(DAY);
		assert_int_equal(world.asks, 0);
		world.awake = false;
		pass(MINUTE + 2 * MACHINE_LOST_MS);
		assert_edges(wanted ? "ia" : "");
		teardown(state);
		setup(state);
	}
}

/* The link is down for so long, five minutes into which our power may be cut; is it left awake by our wake? */
static bool is_left_awake(int64_t down_ms, bool runs, bool cuts)
{
	wake_and_run();
	pass(10 * MINUTE);
	machine_want(machine, runs, runs);
	pass(MINUTE);
	world.link = false;
	pass(5 * MINUTE);
	if (cuts) {
		cut();
		machine_want(machine, runs, runs);
	}
	pass(down_ms - 5 * MINUTE);
	world.link = true;
	pass(10 * MINUTE);
	machine_want(machine, 0, 0);
	pass(DAY);
	assert_int_equal(world.boots, 1);
	return world.awake;
}

static void test_an_outage_of_any_length(void **state)
{
	for (int64_t down_ms = 10 * MINUTE; down_ms <= DAY; down_ms += 10 * MINUTE) {
		for (int way = 0; way < 4; way++) {
			if (is_left_awake(down_ms, way & 1, way & 2))
				fail_msg("way %d, %d minutes: %s", way, (int)(down_ms / MINUTE), world.edges);
			teardown(state);
			setup(state);
		}
	}
}

static void somebody_wakes_it(void)
{
	world.awake = true;
	world.boots++;
}

/* Faster than it could be missed. */
static void somebody_puts_it_to_sleep_and_wakes_it(void)
{
	assert_true(world.awake);
	somebody_wakes_it();
}

static void assert_left_alone(void)
{
	unsigned asks = world.asks;
	machine_want(machine, 0, 0);
	pass(7 * DAY);
	assert_int_equal(world.asks, asks);
	assert_true(world.awake);
}

static void test_nothing_was_sent_and_somebody_woke_it(void **state)
{
	(void)state;
	world.wake_status = -ENODEV;
	machine_want(machine, 1, 0);
	pass(10 * SECOND);
	somebody_wakes_it();
	pass(10 * SECOND);
	assert_edges("Wu");
	assert_says("nothing was sent");
	assert_left_alone();
}

/* What a command does it may have done before it ends. */
static void test_a_wake_command_that_is_under_way(void **state)
{
	(void)state;
	settings.wake = MACHINE_EXEC;
	world.hold_wake = true;
	machine_want(machine, 1, 0);
	pass(10 * SECOND);
	somebody_wakes_it();
	pass(10 * SECOND);
	assert_edges("WU");
}

/* Somebody else's machine is cut off, and packets are sent to it: it has never slept. */
static void test_packets_to_one_that_is_awake(void **state)
{
	(void)state;
	static const int64_t outages[] = { 4, 10, 50, 400 };
	for (size_t i = 0; i < sizeof outages / sizeof *outages; i++) {
		somebody_wakes_it();
		machine_want(machine, 1, 1);
		pass(MINUTE);
		assert_edges("ur");
		world.link = false;
		pass(outages[i] * MINUTE);
		assert_int_equal(memcmp(world.edges, "aw", 2), 0);
		assert_true(world.wakes > 0);
		world.link = true;
		pass(MINUTE);
		assert_state(LEDGER_RUNNING);
		assert_false(view().ours);
		assert_left_alone();
		teardown(state);
		setup(state);
	}
}

static void test_packets_to_one_that_is_awake_and_wanted_no_more(void **state)
{
	(void)state;
	somebody_wakes_it();
	machine_want(machine, 1, 1);
	pass(MINUTE);
	world.link = false;
	pass(6 * MINUTE);
	machine_want(machine, 0, 0);
	world.link = true;
	unsigned looks = world.looks;
	pass(DAY);
	assert_in_range(world.looks, looks + 1, looks + 61);
	assert_edges("urawa");
	assert_left_alone();
}

/* The same, but he has switched it off meanwhile: it is our wake that it answers then, in time or late. */
static void test_packets_to_one_that_was_awake(void **state)
{
	for (int late = 0; late < 2; late++) {
		somebody_wakes_it();
		machine_want(machine, 1, 1);
		pass(MINUTE);
		world.awake = false;
		machine_want(machine, 1, 0);
		world.link = !late;
		pass(MACHINE_LOST_MS + MINUTE);
		if (late) {
			pass(4 * MINUTE); /* and his switch is slow */
			machine_want(machine, 0, 0);
			somebody_wakes_it();
			world.link = true;
			pass(10 * MINUTE);
		}
		machine_want(machine, 0, 0);
		pass(HOUR);
		assert_edges(late ? "uriuawaUISa" : "uriuawUISa");
		teardown(state);
		setup(state);
	}
}

static void test_somebody_wants_it_while_it_is_ours(void **state)
{
	/* up; idle, before its first look, and shortly before its sleep; after a start of ours */
	for (int way = 0; way < 4; way++) {
		wake_up();
		if (way > 0) {
			machine_want(machine, 1, 1);
			settle();
			machine_want(machine, 0, 0);
			settle();
			assert_edges("RI");
			pass(way == 2 ? 10 * MINUTE - SECOND : SECOND);
		}
		somebody_puts_it_to_sleep_and_wakes_it();
		if (way == 3) {
			cut();
			machine_want(machine, 0, 0);
		}
		pass(MACHINE_LOOK_MS);
		assert_edges(way == 0 ? "u" : "i");
		assert_says("somebody else has put it to sleep and woken it");
		assert_false(view().ours);
		assert_left_alone();
		teardown(state);
		setup(state);
	}
}

/* A run tells that it is gone before anybody has looked: nobody else is known to want it. */
static void test_started_anew_under_a_run(void **state)
{
	for (int way = 0; way < 4; way++) {
		wake_and_run();
		pass(10 * SECOND);
		world.boots++;
		if (way & 2) {
			cut();
			machine_want(machine, 1, 1);
		}
		if (way & 1)
			pass(10 * MINUTE);
		machine_want(machine, 0, 0);
		pass(11 * MINUTE);
		assert_edges("ISa");
		teardown(state);
		setup(state);
	}
}

static void test_somebody_wakes_it_as_it_falls_asleep(void **state)
{
	for (int wanted = 0; wanted < 2; wanted++) {
		wake_and_rest();
		pass(10 * MINUTE + 5 * SECOND);
		assert_edges("S");
		assert_false(world.awake);
		somebody_wakes_it();
		machine_want(machine, (unsigned)wanted, 0);
		pass(10 * SECOND);
		assert_edges(wanted ? "iu" : "i");
		assert_false(view().ours);
		assert_left_alone();
		teardown(state);
		setup(state);
	}
}

/* What it tells outlasts us: written with an edge, or, once, alone. */
static void test_its_text_is_written_down(void **state)
{
	(void)state;
	wake_up();
	assert_string_equal(world.disk.awake, "1");
	machine_want(machine, 1, 1);
	settle();
	assert_edges("R");
	unsigned notes = world.notes;
	world.boots++;
	pass(10 * MINUTE);
	assert_int_equal(world.notes, notes + 1);
	assert_string_equal(world.disk.awake, "2");
	cut();
	machine_want(machine, 1, 1);
	pass(10 * MINUTE);
	assert_int_equal(world.notes, notes + 1);
	/* as a Millrace of before has left it */
	*world.disk.awake = '\0';
	cut();
	machine_want(machine, 1, 1);
	pass(10 * MINUTE);
	assert_int_equal(world.notes, notes + 2);
	assert_string_equal(world.disk.awake, "2");
	/* no text, or one that is none */
	world.knows = false;
	pass(10 * MINUTE);
	world.knows = true;
	world.text = "";
	pass(10 * MINUTE);
	world.text = "a text that is longer than any that a worker of this or of a later time would tell us";
	pass(10 * MINUTE);
	assert_int_equal(world.notes, notes + 2);
	assert_edges("");
	world.text = NULL;
	machine_want(machine, 0, 0);
	pass(12 * MINUTE);
	assert_edges("ISa");
	assert_string_equal(world.disk.awake, "");
}

/* What it tells while it is asked to sleep must not be written down: the answer must find the state that asked. */
static void test_a_text_while_it_is_asked_to_sleep(void **state)
{
	(void)state;
	world.knows = false;
	wake_and_rest();
	pass(9 * MINUTE + 50 * SECOND);
	world.hold_look = world.hold_sleep = true;
	machine_wake(machine);
	pass(10 * MINUTE);
	assert_true(world.looking && world.asking);
	unsigned notes = world.notes;
	world.knows = true;
	world.hold_look = false;
	settle();
	assert_int_equal(world.notes, notes);
	world.busy = "a lease";
	world.hold_sleep = false;
	pass(MINUTE);
	assert_int_equal(world.notes, notes + 1);
	assert_string_equal(world.disk.awake, "1");
	assert_edges("");
}

/* It is found after hours, and what it tells of itself later still: until then nothing has changed. */
static void test_found_before_it_tells(void **state)
{
	for (int slept = 0; slept < 2; slept++) {
		wake_and_rest();
		world.link = false;
		pass(3 * HOUR);
		world.link = true;
		world.refuses = true;
		world.boots += (unsigned)slept;
		machine_want(machine, 1, 0);
		pass(MINUTE);
		assert_edges("AU");
		world.refuses = false;
		machine_want(machine, 0, 0);
		pass(12 * MINUTE);
		assert_edges(slept ? "Ii" : "ISa");
		teardown(state);
		setup(state);
	}
}

/* What an ssh of before was told is no use to one that is knocked at. */
static void test_a_text_that_is_told_no_more(void **state)
{
	(void)state;
	wake_and_rest();
	settings.ready = MACHINE_TCP;
	world.knows = false;
	cut();
	machine_want(machine, 0, 0);
	world.link = false;
	pass(3 * HOUR);
	assert_edges("A");
	assert_string_equal(world.disk.awake, "");
	world.link = true;
	pass(DAY);
	assert_int_equal(world.asks, 0);
}

/* Where its answers do not tell whether it has slept it is ours for an hour, and then better left awake. */
static void test_lost_and_nobody_knows(void **state)
{
	(void)state;
	world.knows = false;
	wake_and_rest();
	world.link = false;
	pass(30 * MINUTE);
	world.link = true;
	pass(10 * MINUTE);
	assert_edges("AUI");
	world.link = false;
	pass(2 * HOUR);
	assert_edges("A");
	unsigned looks = world.looks;
	pass(DAY);
	assert_int_equal(world.looks, looks);
	world.link = true;
	machine_want(machine, 1, 0);
	pass(MINUTE);
	machine_want(machine, 0, 0);
	pass(HOUR);
	assert_edges("ui");
}

/* It takes longer to wake than ready_timeout says, or its answers did not come through. */
static void test_it_is_late(void **state)
{
	(void)state;
	machine_want(machine, 1, 0);
	pass(SECOND);
	world.link = false;
	pass(4 * MINUTE);
	assert_edges("WA");
	machine_want(machine, 0, 0);
	world.link = true;
	pass(20 * MINUTE);
	assert_edges("UISa");
	assert_int_equal(world.boots, 1);
	/* it has failed for good, and hours later somebody presses its button */
	world.deaf = true;
	machine_want(machine, 1, 0);
	pass(MINUTE);
	machine_want(machine, 0, 0);
	pass(3 * HOUR);
	assert_edges("WA");
	world.awake = true;
	machine_want(machine, 1, 0);
	pass(MINUTE);
	assert_edges("u");
}

static void test_it_refuses_us(void **state)
{
	(void)state;
	world.refuses = true;
	machine_want(machine, 1, 0);
	pass(MINUTE);
	assert_edges("WU");
	assert_true(view().refuses);
	assert_says("refuses our key");
	assert_false(machine_is_ready(machine));
	pass(DAY);
	assert_state(LEDGER_UP);
	assert_int_equal(view().wakes, 0); /* of today */
	unsigned changes = world.changes;
	world.refuses = false;
	pass(MACHINE_LOOK_MS);
	assert_true(machine_is_ready(machine));
	assert_false(view().refuses);
	assert_int_equal(world.changes, changes + 1);
	assert_says("answered");
	/* and again, while a run is on it */
	machine_want(machine, 1, 1);
	settle();
	world.refuses = true;
	pass(MACHINE_LOOK_MS);
	assert_true(view().refuses);
	assert_int_equal(world.changes, changes + 3);
	world.awake = false;
	world.deaf = true;
	pass(MACHINE_LOOK_MS + MACHINE_LOST_MS);
	assert_false(view().refuses);
	assert_edges("RAW");
}

/* Nobody is woken for runs that cannot be started, and nothing is held to be awake, or asleep. */
static void test_it_cannot_be_asked(void **state)
{
	(void)state;
	world.blocked = true;
	machine_want(machine, 1, 0);
	pass(HOUR);
	assert_edges("");
	assert_state(LEDGER_ASLEEP);
	assert_int_equal(world.wakes, 0);
	assert_true(view().refuses);
	assert_says("the key is not there");
	unsigned changes = world.changes;
	world.blocked = false;
	pass(MACHINE_LOOK_MS + MINUTE);
	assert_edges("WU");
	assert_false(view().refuses);
	assert_true(world.changes > changes);
	machine_want(machine, 1, 1);
	settle();
	world.blocked = true;
	pass(HOUR);
	assert_edges("R"); /* its run goes on, for all that is known */
	assert_true(view().refuses);
	machine_want(machine, 0, 0);
	pass(HOUR);
	world.blocked = false;
	pass(12 * MINUTE);
	assert_edges("ISa");
}

static void test_it_cannot_be_asked_while_it_wakes(void **state)
{
	(void)state;
	world.deaf = true;
	machine_want(machine, 1, 0);
	pass(10 * SECOND);
	world.blocked = true;
	pass(settings.ready_timeout_ms);
	assert_edges("WA"); /* it was never up */
	assert_says("the key is not there");
}

static void test_nothing_is_begun_before_it_is_written(void **state)
{
	(void)state;
	world.hold_note = true;
	machine_want(machine, 1, 0);
	settle();
	assert_state(LEDGER_WAKING);
	pass(HOUR);
	assert_int_equal(world.wakes, 0);
	world.hold_note = false;
	world.note_status = -EROFS;
	pass(MINUTE); /* tried again every 5 seconds */
	assert_int_equal(world.wakes, 0);
	assert_int_equal(world.changes, 0);
	world.note_status = 0;
	pass(MACHINE_RESEND_MS);
	assert_edges("W");
	world.note_status = -ENOSPC;
	pass(MINUTE);
	assert_state(LEDGER_UP);
	assert_false(machine_is_ready(machine));
	world.note_status = 0;
	pass(MACHINE_RESEND_MS);
	assert_true(machine_is_ready(machine));
	assert_int_equal(day_of(NOON / DAY)->wakes, 1);
	/* what it says meanwhile is too late */
	world.hold_look = true;
	pass(MACHINE_LOOK_MS);
	world.hold_note = true;
	machine_want(machine, 1, 1);
	world.hold_look = false;
	settle();
	assert_false(machine_is_ready(machine));
	world.hold_note = false;
	pass(MINUTE);
	assert_edges("UR");
}

static void test_looks_that_end_while_an_edge_is_written(void **state)
{
	(void)state;
	wake_up();
	pass(MACHINE_LOOK_MS);
	world.awake = false;
	pass(MACHINE_LOST_MS - 10 * SECOND);
	world.hold_look = true;
	pass(MINUTE);
	assert_true(world.looking);
	world.hold_note = true;
	machine_want(machine, 1, 1);
	settle();
	world.hold_look = false;
	settle();
	assert_state(LEDGER_RUNNING);
	world.hold_note = false;
	world.deaf = true;
	pass(SECOND);
	assert_edges("RAW");
	/* and one that answers */
	pass(2 * MINUTE);
	world.hold_look = true;
	pass(50 * SECOND);
	world.hold_note = true;
	pass(MINUTE);
	assert_state(LEDGER_ASLEEP);
	world.awake = true;
	world.hold_look = false;
	settle();
	assert_state(LEDGER_ASLEEP);
	world.hold_note = false;
	settle();
	assert_edges("AUR");
}

static void test_time_awake(void **state)
{
	(void)state;
	wall_ms = NOON + 11 * HOUR + 30 * MINUTE;
	settings.sleep = false;
	wake_and_rest();
	int64_t up_ms = mono_ms;
	pass(29 * MINUTE);
	assert_in_range(day_of(NOON / DAY)->awake_ms, 0, MINUTE);
	pass(2 * MINUTE); /* over midnight */
	assert_in_range(day_of(NOON / DAY)->awake_ms, 29 * MINUTE, 30 * MINUTE);
	pass(25 * HOUR);
	assert_int_equal(day_of(NOON / DAY + 1)->awake_ms, DAY);
	int64_t counted_ms = day_of(NOON / DAY + 2)->awake_ms;
	cut(); /* an hour is lost at most, and nothing counted twice */
	machine_want(machine, 0, 0);
	world.awake = false;
	pass(MACHINE_LOOK_MS + MACHINE_LOST_MS);
	int64_t all_ms = day_of(NOON / DAY)->awake_ms + DAY + day_of(NOON / DAY + 2)->awake_ms;
	assert_true(day_of(NOON / DAY + 2)->awake_ms > counted_ms);
	assert_in_range(all_ms, mono_ms - up_ms - HOUR - MINUTE, mono_ms - up_ms);
	/* nothing is counted while it sleeps, nor by a clock that jumps */
	counted_ms = day_of(NOON / DAY + 2)->awake_ms;
	wall_ms += 2 * HOUR;
	machine_want(machine, 1, 0);
	pass(MINUTE);
	machine_want(machine, 0, 0);
	pass(MINUTE);
	wall_ms += 5 * HOUR;
	settings.sleep = true;
	machine_use(machine, &settings);
	pass(11 * MINUTE);
	assert_state(LEDGER_ASLEEP);
	assert_in_range(day_of(NOON / DAY + 2)->awake_ms - counted_ms, 10 * MINUTE, 13 * MINUTE);
}

static void test_a_note_of_time_is_no_edge(void **state)
{
	(void)state;
	wake_and_run();
	unsigned changes = world.changes;
	world.hold_note = true;
	pass(2 * HOUR);
	assert_true(world.noting);
	assert_true(machine_is_ready(machine));
	world.awake = false;
	pass(HOUR);
	assert_state(LEDGER_RUNNING);
	world.hold_note = false;
	pass(SECOND);
	assert_edges("AW");
	assert_int_equal(world.changes, changes + 2);
	/* while it is asked to sleep it is not counted: the answer must find the state that asked */
	world.awake = true;
	pass(MINUTE);
	machine_want(machine, 0, 0);
	world.hold_sleep = true;
	pass(11 * MINUTE);
	world.hold_note = true;
	pass(3 * HOUR);
	world.hold_sleep = false;
	settle();
	world.hold_note = false;
	pass(MINUTE);
	assert_edges("URISa");
}

/*
 * A run is due; at the n-th thing that is written the power is cut, before or after that is on the card. However that
 * goes, the run is begun and ended, and the machine sleeps again.
 */
struct course {
	unsigned cut_at, notes;
	bool before; /* what is being written then is lost */
	bool started, ended;
	int64_t ends_ms;
};

static void want(const struct course *course)
{
	bool open = !course->ended;
	machine_want(machine, open, open && course->started);
}

static void drive(struct course *course)
{
	if (!course->started && machine_is_ready(machine)) {
		course->started = true;
		course->ends_ms = mono_ms + 2 * MINUTE;
		want(course);
	}
	if (course->started && !course->ended && mono_ms >= course->ends_ms) {
		course->ended = true;
		want(course);
	}
}

static void cut_when_due(struct course *course)
{
	if (!world.noting || ++course->notes != course->cut_at)
		return;
	if (!course->before)
		write_down();
	cut();
	want(course);
}

static void run_course(struct course *course)
{
	world.hold_note = true;
	want(course);
	for (int64_t i = 0; i < HOUR / SECOND; i++) {
		pass(SECOND);
		drive(course);
		cut_when_due(course);
		if (world.noting)
			end_note();
	}
}

static void test_power_cut_at_each_edge(void **state)
{
	unsigned most = 6; /* edges there are */
	for (unsigned at = 1; at <= most; at++) {
		for (int before = 0; before < 2; before++) {
			struct course course = { .cut_at = at, .before = before };
			run_course(&course);
			assert_true(course.ended);
			assert_true(course.notes >= most);
			assert_state(LEDGER_ASLEEP);
			assert_false(world.awake);
			assert_int_equal(world.boots, 1);
			assert_int_equal(world.disk.state, LEDGER_ASLEEP);
			assert_int_equal(day_of(NOON / DAY)->wakes, 1);
			teardown(state);
			setup(state);
		}
	}
}

/* The machine's own power is cut, or its link, once at each second of the way; and ours as well. */
static void test_faults_at_each_moment(void **state)
{
	for (int64_t at = 0; at < 16 * MINUTE; at += 7 * SECOND) {
		for (int fault = 0; fault < 3; fault++) {
			struct course course = { 0 };
			want(&course);
			for (int64_t t = 0; t < 4 * HOUR; t += SECOND) {
				if (t == at && fault == 0)
					world.awake = false;
				if (t == at && fault == 1)
					world.link = false;
				if (t == at && fault == 2) {
					cut();
					want(&course);
				}
				if (t == at + 5 * MINUTE)
					world.link = true;
				pass(SECOND);
				drive(&course);
			}
			assert_true(course.ended);
			assert_state(LEDGER_ASLEEP);
			if (world.awake)
				fail_msg("fault %d at %d s: awake; %s", fault, (int)(at / SECOND), world.edges);
			assert_true(world.boots <= 2);
			teardown(state);
			setup(state);
		}
	}
}

static void test_from_each_state(void **state)
{
	(void)state;
	for (int s = LEDGER_ASLEEP; s <= LEDGER_SLEEPING; s++) {
		for (int awake = 0; awake < 2; awake++) {
			world.disk = (struct ledger_machine){ .state = (enum ledger_machine_state)s,
				                              .ours = true,
				                              .reason = "before" };
			world.on_disk = true;
			world.awake = awake;
			world.deaf = true;
			cut();
			pass(DAY);
			assert_int_equal(world.looks + world.wakes + world.asks, 0); /* who wants it is not known */
			assert_edges("");
			assert_says("before");
			machine_want(machine, 0, 0);
			pass(DAY);
			assert_state(LEDGER_ASLEEP);
			if (s != LEDGER_ASLEEP)
				assert_false(world.awake);
			machine_free(machine);
			machine = NULL;
			setup(state);
		}
	}
}

static void test_settings(void **state)
{
	(void)state;
	struct machine_settings s = { 0 };
	struct err err;
	assert_int_equal(option_defaults(machine_options, &s), 0);
	assert_int_equal(s.ready_timeout_ms, 3 * MINUTE);
	assert_int_equal(s.idle_ms, 10 * MINUTE);
	assert_int_equal(s.wakes_per_day, 12);
	assert_true(s.sleep);
	static const struct {
		const char *name, *bad, *good, *wanted;
	} cases[] = {
		{ "mac", "aa:bb:cc:dd:ee", "aa:bb:cc:dd:ee:0f", "wake = \"wol\" wants \"mac\"" },
		{ "key", "/etc/key", "file:/etc/key", "wants \"key\"" },
		{ "ready", "ping", "http", NULL },
		{ "ready_url", "ftp://x", "http://mill.lan/", "ready = \"http\" wants \"ready_url\"" },
		{ "wake", "button", "exec", NULL },
		{ "command", "~/wake", "/usr/local/bin/plug on", "wake = \"exec\" wants \"command\"" },
		{ "host", "-oProxyCommand=x", "mill.lan", NULL },
		{ "user", "a b", "millrace", NULL },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		const struct option *option = option_find(machine_options, cases[i].name);
		assert_int_equal(option_set(option, &s, cases[i].bad, &err), -EINVAL);
		if (cases[i].wanted) {
			assert_int_equal(machine_check(&s, &err), -EINVAL);
			assert_non_null(strstr(err.text, cases[i].wanted));
		}
		assert_int_equal(option_set(option, &s, cases[i].good, &err), 0);
	}
	assert_int_equal(machine_check(&s, &err), 0);
	option_done(machine_options, &s);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static const struct CMUnitTest tests[] = {
	TEST(test_a_day_at_work),
	TEST(test_two_runs_share_a_wake),
	TEST(test_somebody_else_woke_it),
	TEST(test_it_is_woken_while_it_is_looked_at),
	TEST(test_one_that_is_always_on),
	TEST(test_it_never_answers),
	TEST(test_a_wait_ends_between_two_looks),
	TEST(test_it_is_looked_at_while_it_waits),
	TEST(test_nobody_wants_it_any_more_while_it_wakes),
	TEST(test_no_packet_leaves),
	TEST(test_packets_that_leave_at_first),
	TEST(test_a_wake_command),
	TEST(test_a_wake_command_that_ends_too_late),
	TEST(test_breaker),
	TEST(test_breaker_outlasts_a_start),
	TEST(test_breaker_and_a_day_to_come),
	TEST(test_breaker_and_a_clock_that_jumps),
	TEST(test_a_person_asks),
	TEST(test_a_person_asked_long_ago),
	TEST(test_a_person_knows_better),
	TEST(test_not_ready_before_it_has_answered),
	TEST(test_one_that_only_others_wake),
	TEST(test_a_wake_that_works_ends_the_backoff),
	TEST(test_a_person_asks_while_it_falls_asleep),
	TEST(test_it_refuses_to_sleep),
	TEST(test_wanted_while_it_is_asked_to_sleep),
	TEST(test_silent_while_it_is_asked_to_sleep),
	TEST(test_it_may_not_sleep),
	TEST(test_it_agrees_and_does_not_sleep),
	TEST(test_a_look_that_fails_is_no_sleep),
	TEST(test_lost_while_it_runs),
	TEST(test_runs_that_answer_are_looks_enough),
	TEST(test_no_machine_is_left_awake),
	TEST(test_lost_and_woken_by_somebody_else),
	TEST(test_an_outage_of_any_length),
	TEST(test_nothing_was_sent_and_somebody_woke_it),
	TEST(test_a_wake_command_that_is_under_way),
	TEST(test_packets_to_one_that_is_awake),
	TEST(test_packets_to_one_that_is_awake_and_wanted_no_more),
	TEST(test_packets_to_one_that_was_awake),
	TEST(test_somebody_wants_it_while_it_is_ours),
	TEST(test_started_anew_under_a_run),
	TEST(test_somebody_wakes_it_as_it_falls_asleep),
	TEST(test_its_text_is_written_down),
	TEST(test_a_text_while_it_is_asked_to_sleep),
	TEST(test_found_before_it_tells),
	TEST(test_a_text_that_is_told_no_more),
	TEST(test_lost_and_nobody_knows),
	TEST(test_it_is_late),
	TEST(test_it_refuses_us),
	TEST(test_it_cannot_be_asked),
	TEST(test_it_cannot_be_asked_while_it_wakes),
	TEST(test_nothing_is_begun_before_it_is_written),
	TEST(test_looks_that_end_while_an_edge_is_written),
	TEST(test_time_awake),
	TEST(test_a_note_of_time_is_no_edge),
	TEST(test_power_cut_at_each_edge),
	TEST(test_faults_at_each_moment),
	TEST(test_from_each_state),
	cmocka_unit_test(test_settings),
};

int main(void)
{
	return cmocka_run_group_tests(tests, NULL, NULL);
}
