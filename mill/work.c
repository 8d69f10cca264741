/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A job's life: its run is made, its manifest written, its machine waited for, the job started, followed, ended. What
 * the ledger says is always true already, so that work_load goes on from there as if nothing had been.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/container.h"
#include "base/sha256.h"
#include "buffer/pack.h"
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
		.looked_ms = w->looked_ms,
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
	w->looked_ms = f.wall_ms;
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

static void park(struct work *w, const char *reason)
{
	struct ledger_run run = w->run;

	run.state = LEDGER_PARKED;
	run.ended_ms = clock_wall_ms();
	snprintf(run.reason, sizeof run.reason, "%s", reason);
	work_note(w, &run);
}

void work_on_listed(struct work *w, int status, const struct err *err)
{
	uint8_t sha256[SHA256_SIZE];
	struct sha256 hash;

	w->step = WORK_RESTS;
	if (status < 0) {
		again_later(w, err);
		return;
	}
	w->failures = 0;
	sha256_init(&hash);
	sha256_add(&hash, w->manifest.data, w->manifest.len);
	sha256_finish(&hash, sha256);
	if (w->run.state == LEDGER_DUE) {
		memcpy(w->run.manifest, sha256, sizeof sha256);
		work_put(w, "manifest.json", &w->manifest);
	} else if (memcmp(w->run.manifest, sha256, sizeof sha256) != 0) {
		park(w, "what its manifest was made of is damaged: its objects are in the store, and in its manifest there");
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
		.machine_name = w->stand ? w->stand->conf.name : NULL,
		.manifest_place = w->place,
		.remote = w->run.remote[0] ? w->run.remote : NULL,
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
static int add_packed(void *arg, const void *data, size_t len)
{
	return bytes_add(arg, data, len);
}

static int pack_log(const struct bytes *log, struct bytes *packed)
{
	uint8_t ignored[SHA256_SIZE];
	struct pack pack;
	int r = pack_init(&pack, add_packed, packed);

	if (r == 0)
		r = pack_write(&pack, log->data, log->len);
	if (r == 0)
		r = pack_finish(&pack, ignored);
	pack_done(&pack);
	return r;
}

static void put_log(struct work *w)
{
	struct bytes packed;
	char name[32];
	int r;

	bytes_init(&packed, LOG_MAX);
	r = pack_log(&w->log, &packed);
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

/* The id that status and cancel want is written down before anything else is asked. */
static void note_remote(struct work *w, const char *remote)
{
	struct ledger_run run = w->run;

	snprintf(run.remote, sizeof run.remote, "%s", remote);
	work_note(w, &run);
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
		if (answer->remote && strcmp(answer->remote, w->run.remote) != 0) {
			note_remote(w, answer->remote);
			break;
		}
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

/* --- What was put, and what was noted --- */

void work_on_put(struct work *w, int status, const struct err *err)
{
	w->step = WORK_RESTS;
	if (status < 0) {
		again_later(w, err);
		return;
	}
	w->failures = 0;
	if (w->run.state == LEDGER_DUE)
		on_manifest_put(w);
	else
		finish(w);
}

static void forget_run(struct work *w)
{
	drop_driver(w);
	w->has_run = w->cancel = false;
	bytes_clear(&w->manifest);
	bytes_clear(&w->log);
	say_wait(w, "");
}

static void say_end(const struct work *w)
{
	static const char *const events[] = {
		[LEDGER_DONE] = "run.done", [LEDGER_PARKED] = "run.parked", [LEDGER_CANCELLED] = "run.cancelled"
	};

	mill_say(w->mill, events[w->run.state], w->run.state == LEDGER_PARKED, "run %s of %s, attempt %u%s%s", w->run.id,
	         w->conf.name, w->run.attempt, *w->run.reason ? ": " : "", w->run.reason);
}

static void on_ended(struct work *w)
{
	if (w->run.state == LEDGER_DONE)
		w->last_done_ms = w->run.ended_ms;
	if (w->run.state == LEDGER_PARKED) {
		w->parked++;
		memcpy(w->last_parked, w->run.id, sizeof w->last_parked);
	}
	say_end(w);
	forget_run(w);
}

/* An attempt that failed, and another one follows. */
static void on_failed(struct work *w)
{
	unsigned failed = w->run.attempt - w->first_attempt;

	drop_driver(w);
	w->retry_ms = clock_mono_ms() + doubled(RETRY_MS, failed > 0 ? failed - 1 : 0, RETRY_MAX);
	mill_say(w->mill, "run.failed", true, "run %s of %s, attempt %u: %s", w->run.id, w->conf.name, w->run.attempt,
	         w->run.reason);
}

/* w->run is what is written down now. before: what was. */
void work_on_noted(struct work *w, int status, const struct ledger_run *now, const struct err *err)
{
	enum ledger_state before = w->run.state;

	w->step = WORK_RESTS;
	if (status < 0) {
		again_later(w, err);
		return;
	}
	w->failures = 0;
	w->run = *now;
	if (now->state >= LEDGER_DONE) {
		on_ended(w);
	} else if (now->state == LEDGER_STARTED && before == LEDGER_WRITTEN) {
		w->told = true;
		w->start_mono_ms = clock_mono_ms();
		mill_say(w->mill, "run.started", false, "run %s of %s, attempt %u", now->id, w->conf.name, now->attempt);
	} else if (now->state == LEDGER_WRITTEN && before == LEDGER_STARTED) {
		on_failed(w);
	}
	mill_count(w->mill, w->stand);
	work_go(w);
}

/* --- Going on --- */

void work_go(struct work *w)
{
	if (w->step != WORK_RESTS || w->mill->closing)
		return;
	alarm_cancel(&w->alarm);
	if (w->has_run && clock_mono_ms() < w->retry_ms && !w->cancel) {
		wait_for(w, w->retry_ms - clock_mono_ms());
		return;
	}
	if (!w->has_run) {
		begin_if_due(w);
		return;
	}
	switch (w->run.state) {
	case LEDGER_DUE:
		work_list(w);
		break;
	case LEDGER_WRITTEN:
		start_if_ready(w);
		break;
	default:
		follow(w);
		break;
	}
}

static void on_alarm(struct alarm *alarm)
{
	work_go(container_of(alarm, struct work, alarm));
}

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
	bytes_init(&w->log, LOG_MAX);
	return w;
}

/* Its timeout goes on where the clock that people see says that it is. */
void work_load(struct work *w, const struct ledger_run *run)
{
	int64_t passed = run->started_ms > 0 ? clock_wall_ms() - run->started_ms : 0;

	w->has_run = true;
	w->run = *run;
	w->first_attempt = run->state == LEDGER_STARTED ? 1 : run->attempt;
	w->told = false;
	w->retry_ms = 0;
	w->start_mono_ms = clock_mono_ms() - (passed > 0 && passed < w->conf.timeout_ms ? passed : 0);
	manifest_key(run, "manifest.json", w->place);
}

void work_free(struct work *w)
{
	if (!w)
		return;
	alarm_cancel(&w->alarm);
	work_drop(w);
	drop_driver(w);
	bytes_done(&w->manifest);
	bytes_done(&w->log);
	free(w);
}
