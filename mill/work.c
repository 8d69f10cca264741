/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A job's life: its run is made, its manifest written, its machine waited for, the job started and followed. What the
 * ledger says is always true already, so that work_load goes on from there as if nothing had been.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/container.h"
#include "base/sha256.h"
#include "mill/mill_private.h"

#define PARKED_MAX 5 /* of a job; with so many it waits for a person */

int64_t mill_doubled(int64_t first_ms, unsigned times, int64_t most_ms)
{
	int64_t ms = first_ms;

	while (times-- > 0 && ms < most_ms)
		ms *= 2;
	return ms < most_ms ? ms : most_ms;
}

static void say(struct work *w, bool trouble, const char *text)
{
	w->trouble = trouble;
	snprintf(w->text, sizeof w->text, "%s", text);
}

void work_wait(struct work *w, int64_t ms, bool trouble, const char *text)
{
	w->step = WORK_RESTS;
	say(w, trouble, text);
	alarm_set(w->mill->env.driver.alarms, &w->alarm, clock_mono_ms() + ms);
}

void work_again(struct work *w, const struct err *err)
{
	int64_t ms = mill_doubled(MILL_AGAIN_MS, w->failures++, MILL_AGAIN_MAX);

	w->retry_ms = clock_mono_ms() + ms;
	work_wait(w, ms, false, err->text);
}

/* --- Due --- */

/* Of "after JOB": whether that one has a run that ended well since ours was made. */
static bool ended_since(void *arg, const char *job)
{
	const struct work *w = arg;

	for (size_t i = 0; i < w->mill->n_works; i++) {
		const struct work *other = w->mill->works[i];

		if (strcmp(other->conf.name, job) == 0)
			return other->done > w->made;
	}
	return false;
}

/* What was delivered while the clock was ahead waits from now on. */
static int64_t oldest_ms(struct work *w, int64_t now_ms)
{
	int64_t mono_ms = clock_mono_ms();

	if (w->due.oldest_ms <= now_ms) {
		w->ahead_ms = 0;
		return w->due.oldest_ms;
	}
	if (w->ahead_ms == 0)
		w->ahead_ms = mono_ms;
	return now_ms - (mono_ms - w->ahead_ms);
}

/* A time of cron that passed before anything waited is none. */
static struct when_facts facts(struct work *w)
{
	int64_t now_ms = clock_wall_ms(), oldest = oldest_ms(w, now_ms);

	return (struct when_facts){
		.batches = w->due.batches,
		.oldest_ms = oldest,
		.wall_ms = now_ms,
		.looked_ms = w->looked_ms > oldest ? w->looked_ms : oldest,
		.ended_since = ended_since,
		.arg = w,
	};
}

/* A machine that has to be woken is woken for all that there is. */
static void begin(struct work *w)
{
	if (!w->stand || machine_is_ready(w->stand->machine)) {
		work_make(w);
		return;
	}
	w->step = WORK_FLUSHES;
	say(w, false, "what was collected is sealed and delivered first");
	mill_flush(w->mill);
}

static void begin_if_due(struct work *w)
{
	struct when_facts f = facts(w);
	int64_t next;

	if (w->n_parked >= PARKED_MAX && !w->asked) {
		say(w, true,
		    "too many of its runs are parked: see why (millrace show runs), then retry or cancel them");
		return;
	}
	if (w->asked || when_is_due(w->conf.when, &f)) {
		begin(w);
		return;
	}
	say(w, false, w->conf.when->text);
	next = when_next_ms(w->conf.when, &f);
	w->looked_ms = f.wall_ms;
	if (next < INT64_MAX)
		work_wait(w, next, false, w->conf.when->text);
}

void work_on_made(struct work *w, int status, const struct ledger_run *run, const struct err *err)
{
	w->step = WORK_RESTS;
	if (status < 0) {
		work_again(w, err);
		return;
	}
	w->failures = 0;
	w->asked = false;
	w->looked_ms = clock_wall_ms();
	mill_nudge(w->mill);
	if (status == 0)
		return; /* nothing waits after all; what does is told by the nudge */
	w->made = mill_tick(w->mill);
	work_load(w, run);
	mill_say(w->mill, "run.made", false, "run %s of %s: objects: %" PRIu64 ", records: %" PRIu64, run->id,
	         w->conf.name, run->objects, run->records);
	work_go(w);
}

/* The ledger has it no more. */
static void on_gone(struct work *w)
{
	mill_say(w->mill, "run.gone", true, "run %s of %s was lost with a damaged buffer", w->run.id, w->conf.name);
	work_forget(w);
	mill_count(w->mill, w->stand);
	work_go(w);
}

/* --- Its manifest --- */

void work_note_state(struct work *w, enum ledger_state state, const char *reason)
{
	struct ledger_run run = w->run;

	run.state = state;
	run.ended_ms = clock_wall_ms();
	snprintf(run.reason, sizeof run.reason, "%s", reason);
	work_note(w, &run);
}

/* Its objects are where it was made for, whatever the job has now. */
static void list(struct work *w)
{
	char text[ERR_MAX];

	if (strcmp(w->run.store, w->conf.store) == 0) {
		work_list(w);
		return;
	}
	snprintf(text, sizeof text,
	         "its objects are in store \"%s\", and job \"%s\" has store \"%s\" now: change it back and retry the "
	         "run, "
	         "or cancel it",
	         w->run.store, w->conf.name, w->conf.store);
	work_note_state(w, LEDGER_PARKED, text);
}

void work_on_listed(struct work *w, int status, const struct err *err)
{
	struct sha256 hash;
	bool same;

	w->step = WORK_RESTS;
	if (status < 0)
		bytes_clear(&w->manifest);
	if (status == -ENOENT) {
		on_gone(w);
		return;
	}
	if (status < 0) {
		work_again(w, err);
		return;
	}
	sha256_init(&hash);
	sha256_add(&hash, w->manifest.data, w->manifest.len);
	sha256_finish(&hash, w->sha256);
	same = memcmp(w->run.manifest, w->sha256, sizeof w->sha256) == 0;
	if (w->run.state == LEDGER_DUE || (!same && w->run.state == LEDGER_WRITTEN)) {
		/* Its objects are the same, or the ledger would say so: the way to the store is described anew. */
		work_put(w, WORK_PUTS, "manifest.json", &w->manifest);
	} else if (!same) {
		work_note_state(w, LEDGER_PARKED,
		                "what its manifest was made of has changed or is damaged while it was on its way; "
		                "retry the run, "
		                "or cancel it and load by hand what its manifest in the store lists");
	} else {
		work_go(w);
	}
}

void work_on_put(struct work *w, int status, const struct err *err)
{
	struct ledger_run run = w->run;
	bool log = w->step == WORK_SAVES;

	w->step = WORK_RESTS;
	if (log) {
		work_on_saved(w, status, err);
		return;
	}
	if (status < 0) {
		work_again(w, err);
		return;
	}
	run.state = LEDGER_WRITTEN;
	run.written_ms = clock_wall_ms();
	memcpy(run.manifest, w->sha256, sizeof run.manifest);
	work_note(w, &run);
}

/* --- Starting --- */

static bool is_ready(const struct work *w)
{
	return !w->stand || machine_is_ready(w->stand->machine);
}

static void wait_for_machine(struct work *w)
{
	struct machine_view view;
	char text[ERR_MAX];

	machine_view(w->stand->machine, &view);
	snprintf(text, sizeof text, "it waits for machine %s: %.400s", w->stand->conf.name, view.reason);
	say(w, false, text); /* what a person must mend is the machine's */
}

void work_look(struct work *w)
{
	bool waits = w->has_run && w->step == WORK_RESTS && work_wants(w) && !is_ready(w);

	if (waits)
		wait_for_machine(w);
}

/* Where attempts are made, in words. */
static void tell_place(const struct work *w, char text[LEDGER_PLACE])
{
	snprintf(text, LEDGER_PLACE, "%s%s%s", w->conf.driver->kind, w->stand ? " on " : "",
	         w->stand ? w->stand->conf.name : "");
}

static void start_if_ready(struct work *w)
{
	struct ledger_run run = w->run;

	if (!is_ready(w)) {
		wait_for_machine(w);
	} else if (w->manifest.len == 0) {
		list(w);
	} else {
		run.state = LEDGER_STARTED;
		run.attempt++;
		run.ready_ms = run.started_ms = clock_wall_ms();
		run.ended_ms = 0;
		run.remote[0] = run.reason[0] = '\0';
		run.log_len = 0;
		tell_place(w, run.place);
		work_note(w, &run);
	}
}

/* --- Following --- */

static bool is_late(const struct work *w)
{
	return clock_mono_ms() - w->start_ms >= w->conf.timeout_ms;
}

static void on_answer(void *arg, const struct driver_answer *answer)
{
	work_on_answer(arg, answer);
}

static int make_driver(struct work *w)
{
	const struct driver_run run = {
		.id = w->there,
		.job = w->conf.name,
		.settings = w->conf.settings,
		.machine = w->stand ? w->stand->conf.settings : NULL,
		.machine_name = w->stand ? w->stand->conf.name : NULL,
		.manifest = w->manifest.data,
		.manifest_len = w->manifest.len,
		.manifest_place = w->place,
		.remote = w->run.remote[0] ? w->run.remote : NULL,
		.on_answer = on_answer,
		.arg = w,
	};

	if (w->run.attempt > 1)
		snprintf(w->there, sizeof w->there, "%s-%u", w->run.id, w->run.attempt);
	else
		snprintf(w->there, sizeof w->there, "%s", w->run.id);
	return w->conf.driver->new (&w->mill->env.driver, &run, &w->driver);
}

void work_drop_driver(struct work *w)
{
	if (w->driver)
		w->conf.driver->free(w->driver);
	w->driver = NULL;
	w->fresh = w->late = w->stuck = w->unnoted = w->begun = w->refused = false;
}

/* A run that may have been started already is asked for; only one that this process has just noted is told to start. */
static void call(struct work *w)
{
	void (*how)(struct driver * driver) = w->fresh ? w->conf.driver->start : w->conf.driver->ask;

	w->late = !w->cancel && !w->fresh && is_late(w);
	if (w->cancel || w->late)
		how = w->conf.driver->cancel;
	w->step = WORK_ASKS;
	how(w->driver);
}

/* Only where it was started it is known: whether it is at work still is for a person to say. */
static bool has_moved(struct work *w)
{
	char now[LEDGER_PLACE], text[ERR_MAX];

	tell_place(w, now);
	if (strcmp(now, w->run.place) == 0)
		return false;
	snprintf(text, sizeof text,
	         "it was started by %s, and job \"%s\" is of %s now; see whether it has ended there, then retry the "
	         "run, or cancel it",
	         w->run.place, w->conf.name, now);
	work_note_state(w, w->cancel ? LEDGER_CANCELLED : LEDGER_PARKED, text);
	return true;
}

static void follow(struct work *w)
{
	struct err err = { "no memory" };

	if (has_moved(w))
		return;
	if (w->unnoted) {
		work_note(w, &w->run);
	} else if (!is_ready(w)) {
		wait_for_machine(w);
	} else if (w->fresh && w->manifest.len == 0) {
		/* The one that asked whether it is known there was made without. */
		if (w->driver)
			w->conf.driver->free(w->driver);
		w->driver = NULL;
		list(w);
	} else if (!w->driver && make_driver(w) < 0) {
		work_again(w, &err);
	} else {
		call(w);
	}
}

/* --- Going on --- */

static void on_started(struct work *w)
{
	w->fresh = true;
	w->start_ms = clock_mono_ms();
	mill_say(w->mill, "run.started", false, "run %s of %s, attempt %u", w->run.id, w->conf.name, w->run.attempt);
}

void work_on_noted(struct work *w, int status, const struct ledger_run *now, const struct err *err)
{
	enum ledger_state before = w->run.state;

	w->step = WORK_RESTS;
	if (status == -ENOENT)
		on_gone(w);
	else if (status < 0)
		work_again(w, err);
	if (status < 0)
		return;
	w->failures = 0;
	w->unnoted = false;
	w->run = *now;
	if (before == LEDGER_WRITTEN && now->state == LEDGER_STARTED)
		on_started(w);
	else if (now->state < before || now->state >= LEDGER_DONE)
		work_on_end(w);
	mill_count(w->mill, w->stand);
	work_go(w);
}

static void go_on(struct work *w)
{
	switch (w->run.state) {
	case LEDGER_DUE:
		if (w->cancel)
			work_note_state(w, LEDGER_CANCELLED, "cancelled before it was started");
		else
			list(w);
		break;
	case LEDGER_WRITTEN:
		if (w->cancel)
			work_note_state(w, LEDGER_CANCELLED, "cancelled while it waited");
		else
			start_if_ready(w);
		break;
	default:
		follow(w);
		break;
	}
}

void work_go(struct work *w)
{
	int64_t now = clock_mono_ms();

	if (w->step != WORK_RESTS || w->mill->closing || !w->mill->loaded)
		return;
	alarm_cancel(&w->alarm);
	if (now < w->retry_ms && !w->cancel)
		alarm_set(w->mill->env.driver.alarms, &w->alarm, w->retry_ms);
	else if (w->has_run)
		go_on(w);
	else
		begin_if_due(w);
}

bool work_runs(const struct work *w)
{
	return w->has_run && w->run.state == LEDGER_STARTED;
}

/* One that waits for its next attempt lets the machine sleep meanwhile. */
bool work_wants(const struct work *w)
{
	return work_runs(w) || (w->has_run && w->run.state == LEDGER_WRITTEN && clock_mono_ms() >= w->retry_ms);
}

static void on_alarm(struct alarm *alarm)
{
	struct work *w = container_of(alarm, struct work, alarm);

	mill_count(w->mill, w->stand);
	work_go(w);
}

/* --- Life --- */

struct work *work_new(struct mill *mill, const struct mill_job *conf, struct stand *stand)
{
	struct work *w = calloc(1, sizeof *w);

	if (!w)
		return NULL;
	w->mill = mill;
	w->conf = *conf;
	w->stand = stand;
	w->alarm.on_ring = on_alarm;
	bytes_init(&w->manifest, MANIFEST_MAX);
	return w;
}

/* Its timeout goes on where the clock that people see says that it is, if that can be. */
void work_load(struct work *w, const struct ledger_run *run)
{
	int64_t passed = run->started_ms > 0 ? clock_wall_ms() - run->started_ms : 0;

	w->has_run = true;
	w->run = *run;
	w->retry_ms = 0;
	w->start_ms = clock_mono_ms() - (passed > 0 && passed < w->conf.timeout_ms ? passed : 0);
	manifest_key(run, "manifest.json", w->place);
}

void work_forget(struct work *w)
{
	work_drop_driver(w);
	w->has_run = w->cancel = false;
	w->retry_ms = 0;
	bytes_done(&w->manifest);
	bytes_init(&w->manifest, MANIFEST_MAX);
	run_log_done(&w->log);
	say(w, false, "");
}

void work_stop(struct work *w)
{
	alarm_cancel(&w->alarm);
	work_drop(w);
	work_drop_driver(w);
}

void work_free(struct work *w)
{
	bytes_done(&w->manifest);
	run_log_done(&w->log);
	free(w);
}
