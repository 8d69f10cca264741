/* SPDX-License-Identifier: Apache-2.0 */
/* What a driver says of a run; and how an attempt ends: its log goes into the store, and then it is written down. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "mill/mill_private.h"

#define FOLLOW_MS  INT64_C(5000) /* between questions how a run is doing, but for its first seconds */
#define SOON_MS    INT64_C(1000)
#define REFUSED_MS INT64_C(60000) /* the same, where a person has to mend something first */
#define RETRY_MS   INT64_C(60000) /* before the second attempt; doubled up to RETRY_MAX */
#define RETRY_MAX  INT64_C(3600000)
#define SAVE_TRIES 3 /* of a log: the machine is not held awake for it */

/* --- Parked runs --- */

void work_park_id(struct work *w, const char *run)
{
	memmove(w->parked[1], w->parked[0], sizeof w->parked - sizeof w->parked[0]);
	snprintf(w->parked[0], sizeof w->parked[0], "%s", run);
	w->n_parked++;
}

void work_unpark(struct work *w, const char *run)
{
	size_t i = 0;

	while (i < MILL_PARKED_KEPT && strcmp(w->parked[i], run) != 0)
		i++;
	if (i == MILL_PARKED_KEPT)
		return;
	memmove(w->parked[i], w->parked[i + 1], (MILL_PARKED_KEPT - 1 - i) * sizeof w->parked[0]);
	w->parked[MILL_PARKED_KEPT - 1][0] = '\0';
	w->n_parked--;
}

/* --- What was noted ends something --- */

/* An attempt that failed, and another one follows. */
static void on_failed(struct work *w)
{
	int64_t ms = mill_doubled(RETRY_MS, w->run.attempt - w->run.counted - 1, RETRY_MAX);
	char text[ERR_MAX];

	work_drop_driver(w);
	snprintf(text, sizeof text, "its next attempt follows, for the last one failed: %.400s", w->run.reason);
	w->retry_ms = clock_mono_ms() + ms;
	work_wait(w, ms, false, text);
	mill_say(w->mill, "run.failed", true, "run %s of %s, attempt %u: %s", w->run.id, w->conf.name, w->run.attempt,
	         w->run.reason);
}

void work_on_end(struct work *w)
{
	static const char *const events[] = {
		[LEDGER_DONE] = "run.done", [LEDGER_PARKED] = "run.parked", [LEDGER_CANCELLED] = "run.cancelled"
	};
	const struct ledger_run *run = &w->run;
	bool cancel = w->cancel && run->state == LEDGER_PARKED; /* it came while that was written down */

	if (run->state < LEDGER_DONE) {
		on_failed(w);
		return;
	}
	mill_say(w->mill, events[run->state], run->state == LEDGER_PARKED, "run %s of %s, attempt %u%s%s", run->id,
	         w->conf.name, run->attempt, *run->reason ? ": " : "", run->reason);
	if (run->state == LEDGER_DONE)
		w->done = mill_tick(w->mill);
	if (run->state == LEDGER_PARKED)
		work_park_id(w, run->id);
	work_forget(w);
	if (cancel)
		work_change(w, run->id, LEDGER_CANCELLED, NULL);
	if (run->state == LEDGER_DONE)
		mill_go(w->mill, NULL); /* others may wait for its end */
}

/* --- The end of an attempt --- */

static void finish(struct work *w)
{
	struct ledger_run run = w->run;
	bool more = w->ends == LEDGER_PARKED && !w->stuck && run.attempt - run.counted - 1 < (unsigned)w->conf.retries;

	memcpy(run.log, w->log.tail, w->log.tail_len);
	run.log_len = w->log.tail_len;
	run.state = more ? LEDGER_WRITTEN : w->ends;
	run.ended_ms = clock_wall_ms();
	memcpy(run.reason, w->reason, sizeof run.reason);
	work_note(w, &run);
}

/* Each attempt has its own; that of the one that ended well has the plain name. */
static void put_log(struct work *w)
{
	char name[32];

	snprintf(name, sizeof name, "log-%u.gz", w->run.attempt);
	if (w->log.bytes > 0 && run_log_finish(&w->log) == 0)
		work_put(w, WORK_SAVES, w->ends == LEDGER_DONE ? "log.gz" : name, &w->log.packed);
	else
		finish(w);
	run_log_done(&w->log);
}

void work_on_saved(struct work *w, int status, const struct err *err)
{
	if (status < 0 && w->failures + 1 < SAVE_TRIES) {
		work_again(w, err);
		return;
	}
	if (status < 0)
		mill_say(w->mill, "run.unsaved", true,
		         "run %s of %s: its log is where it ran, and not in the store: %.400s", w->run.id, w->conf.name,
		         err->text);
	finish(w);
}

static void end(struct work *w, enum ledger_state state, const char *reason)
{
	w->ends = state;
	snprintf(w->reason, sizeof w->reason, "%s", reason);
	run_log_done(&w->log);
	if (run_log_open(&w->log) < 0 || !w->conf.driver->log) {
		run_log_done(&w->log);
		finish(w);
		return;
	}
	w->step = WORK_READS;
	w->conf.driver->log(w->driver, 0);
}

/* The run has ended, whatever becomes of its log: a machine that is gone is not waited for. */
static void on_log(struct work *w, const struct bytes *log)
{
	if (!log || log->len == 0 || run_log_add(&w->log, log->data, log->len) < 0) {
		put_log(w);
	} else {
		w->step = WORK_READS;
		w->conf.driver->log(w->driver, w->log.bytes);
	}
}

/* --- What it says --- */

static const char late[] = "it took longer than its timeout";

/* Whatever else happens hurries no question; but for a cancel. */
static void ask_again(struct work *w, int64_t ms, bool trouble, const char *text)
{
	w->retry_ms = clock_mono_ms() + ms;
	work_wait(w, ms, trouble, text);
}

static void on_running(struct work *w, const char *remote)
{
	w->fresh = w->refused = false;
	w->begun = true;
	bytes_done(&w->manifest);
	if (remote && strcmp(remote, w->run.remote) != 0) {
		/* It is written down before anything else is asked, for all else is asked by it. */
		snprintf(w->run.remote, sizeof w->run.remote, "%s", remote);
		w->unnoted = true;
		work_note(w, &w->run);
	} else {
		ask_again(w, FOLLOW_MS, false, "");
	}
}

/* A start that was refused may have begun all the same: first it is asked for. */
static void on_start_refused(struct work *w, const char *why)
{
	w->fresh = false;
	w->refused = true;
	snprintf(w->reason, sizeof w->reason, "%s", why);
	ask_again(w, FOLLOW_MS, true, why);
}

static void on_refused(struct work *w, const char *why)
{
	char text[ERR_MAX];

	if (w->fresh) {
		on_start_refused(w, why);
	} else if (w->late && w->begun) {
		w->stuck = true;
		snprintf(text, sizeof text, "it took longer than its timeout, and was not ended: %.400s", why);
		end(w, LEDGER_PARKED, text);
	} else {
		if (!w->begun) /* for a person one waits longer than any timeout */
			w->start_ms = clock_mono_ms() + REFUSED_MS;
		ask_again(w, REFUSED_MS, true, why);
	}
}

static void on_unknown(struct work *w)
{
	char reason[ERR_MAX];

	if (w->begun) {
		end(w, LEDGER_PARKED, w->late ? late : "it was at work there, and is not known there any more");
	} else if (w->refused) {
		memcpy(reason, w->reason, sizeof reason);
		end(w, LEDGER_PARKED, reason);
	} else {
		w->fresh = true; /* it never got there: the same attempt again */
		w->start_ms = clock_mono_ms();
		work_go(w);
	}
}

static void on_state(struct work *w, const struct driver_answer *answer)
{
	const char *why = answer->err ? answer->err->text : "";

	switch (answer->state) {
	case DRIVER_RUNNING:
		on_running(w, answer->remote);
		break;
	case DRIVER_UNKNOWN:
		on_unknown(w);
		break;
	case DRIVER_DONE:
		end(w, LEDGER_DONE, "");
		break;
	case DRIVER_FAILED:
		end(w, LEDGER_PARKED, w->late ? late : why);
		break;
	case DRIVER_AWAY:
		w->fresh = false; /* a start may have got there all the same */
		ask_again(w, FOLLOW_MS, false, why);
		break;
	case DRIVER_REFUSED:
		on_refused(w, why);
		break;
	}
}

static void on_cancelled(struct work *w, const struct driver_answer *answer)
{
	char text[ERR_MAX] = "cancelled";

	if (answer->state == DRIVER_REFUSED && answer->err)
		snprintf(text, sizeof text, "cancelled, and it may go on there: %.400s", answer->err->text);
	end(w, answer->state == DRIVER_DONE ? LEDGER_DONE : LEDGER_CANCELLED, answer->state == DRIVER_DONE ? "" : text);
}

void work_on_answer(struct work *w, const struct driver_answer *answer)
{
	enum work_step step = w->step;

	w->step = WORK_RESTS;
	if (answer->state != DRIVER_AWAY && w->stand && w->conf.driver->of_machine)
		machine_answered(w->stand->machine);
	if (step == WORK_READS)
		on_log(w, answer->log);
	else if (w->cancel && answer->state != DRIVER_RUNNING && answer->state != DRIVER_AWAY)
		on_cancelled(w, answer);
	else
		on_state(w, answer);
}
