/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A job's life: its run is made, its manifest written, its machine waited for, the job started, followed, ended. What
 * the ledger says is always true already, so that work_load goes on from there as if nothing had been.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/container.h"
#include "mill/mill_private.h"

#define FOLLOW_MS  INT64_C(5000)  /* between questions how a run is doing */
#define REFUSED_MS INT64_C(60000) /* the same, where a person has to mend something first */
#define AGAIN_MS   INT64_C(5000)  /* store or ledger failed: doubled up to AGAIN_MAX */
#define AGAIN_MAX  INT64_C(300000)
#define RETRY_MS   INT64_C(60000) /* before the second attempt; doubled up to RETRY_MAX */
#define RETRY_MAX  INT64_C(3600000)
#define PARKED_MAX 5 /* of a job; with so many it waits for a person */
#define LOG_PART   (1 << 20)
#define LOG_MAX    (8 << 20)

static int64_t doubled(int64_t first, unsigned times, int64_t most)
{
	int64_t ms = first;

	while (times-- > 0 && ms < most)
		ms *= 2;
	return ms < most ? ms : most;
}

static void say_wait(struct work *w, const char *text)
{
	snprintf(w->text, sizeof w->text, "%s", text);
}

static void wait_for(struct work *w, int64_t ms)
{
	w->step = WORK_RESTS;
	alarm_set(w->mill->env.driver.alarms, &w->alarm, clock_mono_ms() + ms);
}

/* What a card or a store may do at any time. */
static void again_later(struct work *w, const struct err *err)
{
	say_wait(w, err->text);
	w->retry_ms = clock_mono_ms() + doubled(AGAIN_MS, w->failures++, AGAIN_MAX);
	wait_for(w, w->retry_ms - clock_mono_ms());
}

/* --- Due --- */

/* Of "after JOB": whether that one has a run that ended well since ours was made. */
static bool ended_since(void *arg, const char *job)
{
	const struct work *w = arg;

	for (size_t i = 0; i < w->mill->n_works; i++) {
		const struct work *other = w->mill->works[i];

		if (strcmp(other->conf.name, job) == 0)
			return other->last_done_ms > w->last_made_ms;
	}
	return false;
}

static struct when_facts facts(struct work *w)
{
	return (struct when_facts){
		.batches = w->due.batches,
		.oldest_ms = w->due.oldest_ms,
		.wall_ms = clock_wall_ms(),
		.looked_ms = w->due.cron_ms,
		.ended_since = ended_since,
		.arg = w,
	};
}

static void begin_if_due(struct work *w)
{
	struct when_facts f = facts(w);
	int64_t next;

	if (w->parked >= PARKED_MAX && !w->asked) {
		say_wait(w, "too many of its runs are parked: look why (millrace show runs), then retry or cancel them");
		return;
	}
	if (w->asked || when_is_due(&w->conf.when, &f)) {
		work_make(w);
		return;
	}
	say_wait(w, "");
	next = when_next_ms(&w->conf.when, &f);
	if (next < INT64_MAX)
		wait_for(w, next);
}

void work_on_made(struct work *w, int status, const struct ledger_run *run, const struct err *err)
{
	w->step = WORK_RESTS;
	if (status < 0) {
		again_later(w, err);
		return;
	}
	w->failures = 0;
	w->asked = false;
	w->last_made_ms = clock_wall_ms();
	if (status == 0)
		return; /* nothing waits after all */
	work_load(w, run);
	mill_say(w->mill, "run.made", false, "run %s of %s: objects: %llu, records: %llu", run->id, w->conf.name,
	         (unsigned long long)run->objects, (unsigned long long)run->records);
	work_go(w);
}

/* --- Its manifest --- */

void work_on_listed(struct work *w, int status, const struct err *err)
{
	uint8_t sha256[SHA256_SIZE];

	w->step = WORK_RESTS;
	if (status < 0) {
		again_later(w, err);
		return;
	}
	w->failures = 0;
	sha256_of(w->manifest.data, w->manifest.len, sha256);
	if (w->run.state == LEDGER_DUE) {
		memcpy(w->run.manifest, sha256, sizeof sha256);
		work_put(w, "manifest.json", &w->manifest);
	} else {
		work_go(w);
	}
}

static void on_manifest_put(struct work *w)
{
	struct ledger_run run = w->run;

	run.state = LEDGER_WRITTEN;
	run.written_ms = clock_wall_ms();
	work_note(w, &run);
}

/* --- Starting --- */

static bool is_ready(const struct work *w)
{
	return !w->stand || (w->stand->machine && machine_is_ready(w->stand->machine));
}

static void start_if_ready(struct work *w)
{
	struct ledger_run run = w->run;
	int64_t now = clock_mono_ms();

	if (w->cancel) {
		w->ends = LEDGER_CANCELLED;
		run.state = LEDGER_CANCELLED;
		run.ended_ms = clock_wall_ms();
		work_note(w, &run);
	} else if (now < w->retry_ms) {
		wait_for(w, w->retry_ms - now);
	} else if (!is_ready(w)) {
		say_wait(w, "it waits for its machine");
	} else if (w->manifest.len == 0) {
		work_list(w);
	} else {
		run.state = LEDGER_STARTED;
		run.attempt++;
		run.ready_ms = run.started_ms = clock_wall_ms();
		run.ended_ms = 0;
		work_note(w, &run);
	}
}

/* --- Following --- */

static int64_t left_ms(const struct work *w)
{
	return w->start_mono_ms + w->conf.timeout_ms - clock_mono_ms();
}

static void on_answer(void *arg, const struct driver_answer *answer)
{
	work_on_answer(arg, answer);
}

/* The run's id there: each attempt is a run of its own, so that none is taken for the one before. */
static int make_driver(struct work *w)
{
	const struct driver_run run = {
		.id = w->there,
		.job = w->conf.name,
		.settings = w->conf.settings,
		.machine = w->stand ? w->stand->conf.settings : NULL,
		.host_alias = w->stand ? w->stand->conf.name : NULL,
		.manifest = w->manifest.data,
		.manifest_len = w->manifest.len,
		.on_answer = on_answer,
		.arg = w,
	};

	snprintf(w->there, sizeof w->there, "%s-%u", w->run.id, w->run.attempt);
	return w->conf.driver->new(&w->mill->env.driver, &run, &w->driver);
}

static void drop_driver(struct work *w)
{
	if (w->driver)
		w->conf.driver->free(w->driver);
	w->driver = NULL;
	w->told = w->late = false;
}

static void call(struct work *w, void (*how)(struct driver *driver))
{
	w->step = WORK_ASKS;
	how(w->driver);
}

/* A run that may have been started already is asked for; only one that this process has just noted is told to start. */
static void follow(struct work *w)
{
	struct err err = { "no memory" };

	if (!is_ready(w)) {
		say_wait(w, "it waits for its machine");
		return;
	}
	if (w->manifest.len == 0) {
		work_list(w);
		return;
	}
	if (!w->driver && make_driver(w) < 0) {
		again_later(w, &err);
		return;
	}
	if (w->conf.driver->cancel && (w->cancel || left_ms(w) <= 0)) {
		w->late = !w->cancel;
		call(w, w->conf.driver->cancel);
	} else {
		call(w, w->told ? w->conf.driver->start : w->conf.driver->ask);
	}
}

/* --- The end of an attempt --- */

static void finish(struct work *w)
{
	struct ledger_run run = w->run;
	bool more = w->ends == LEDGER_PARKED && run.attempt - w->first_attempt < (unsigned)w->conf.retries;
	size_t len = w->log.len < LEDGER_LOG ? w->log.len : LEDGER_LOG;

	memcpy(run.log, w->log.data + w->log.len - len, len);
	run.log_len = len;
	run.state = more ? LEDGER_WRITTEN : w->ends;
	run.ended_ms = clock_wall_ms();
	work_note(w, &run);
}

/* Packed, as a whole: only a run that ended well has the plain name, for an object is never written over. */
static void put_log(struct work *w)
{
	struct bytes packed;
	char name[32];
	int r;

	bytes_init(&packed, LOG_MAX);
	r = pack_whole(w->log.data, w->log.len, &packed);
	if (w->ends == LEDGER_DONE)
		snprintf(name, sizeof name, "log.gz");
	else
		snprintf(name, sizeof name, "log-%u.gz", w->run.attempt);
	if (r == 0)
		work_put(w, name, &packed);
	bytes_done(&packed);
	if (r < 0)
		finish(w);
}

static void end(struct work *w, enum ledger_state state, const char *reason)
{
	w->ends = state;
	snprintf(w->run.reason, sizeof w->run.reason, "%s", reason);
	bytes_clear(&w->log);
	if (!w->conf.driver->log) {
		finish(w);
		return;
	}
	w->step = WORK_READS;
	w->conf.driver->log(w->driver, 0);
}

static void on_log(struct work *w, const struct driver_answer *answer)
{
	static const char rest[] = "\n[the rest of the log is on the machine]\n";

	w->step = WORK_RESTS;
	if (!answer->log) {
		/* The run has ended whatever becomes of its log; a machine that is gone is not waited for. */
		put_log(w);
		return;
	}
	if (w->log.len + answer->log->len + sizeof rest > LOG_MAX ||
	    bytes_add(&w->log, answer->log->data, answer->log->len) < 0) {
		bytes_add_text(&w->log, rest);
		put_log(w);
	} else if (answer->log->len > 0) {
		w->step = WORK_READS;
		w->conf.driver->log(w->driver, w->log.len);
	} else {
		put_log(w);
	}
}

static void on_state(struct work *w, const struct driver_answer *answer)
{
	const char *why = answer->err ? answer->err->text : "";
	char text[ERR_MAX];

	if (answer->state != DRIVER_AWAY && w->stand)
		machine_answered(w->stand->machine);
	if (w->cancel && answer->state != DRIVER_RUNNING && answer->state != DRIVER_AWAY) {
		end(w, LEDGER_CANCELLED, "cancelled");
		return;
	}
	switch (answer->state) {
	case DRIVER_RUNNING:
		w->told = false;
		say_wait(w, "");
		wait_for(w, FOLLOW_MS);
		break;
	case DRIVER_UNKNOWN:
		w->told = true; /* it never got there, or what it was told was lost: the same attempt again */
		wait_for(w, w->late ? 0 : 1);
		break;
	case DRIVER_DONE:
		end(w, LEDGER_DONE, "");
		break;
	case DRIVER_FAILED:
		snprintf(text, sizeof text, w->late ? "it took longer than its timeout" : "%s", why);
		end(w, LEDGER_PARKED, text);
		break;
	case DRIVER_AWAY:
		say_wait(w, why);
		wait_for(w, FOLLOW_MS);
		break;
	case DRIVER_REFUSED:
		say_wait(w, why);
		wait_for(w, REFUSED_MS);
		break;
	}
}

void work_on_answer(struct work *w, const struct driver_answer *answer)
{
	enum work_step step = w->step;

	w->step = WORK_RESTS;
	if (step == WORK_READS)
		on_log(w, answer);
	else
		on_state(w, answer);
	mill_count(w->mill, w->stand);
}
