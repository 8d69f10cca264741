/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When a job is due: `batches >= 6 or age >= 6h`, parsed once, judged as often as one likes. Pure; any thread.
 *
 *     when      = all { "or" all }
 *     all       = condition { "and" condition }
 *     condition = "batches >=" NUMBER       so many delivered batches wait for the job
 *               | "age >=" DURATION         the first of them was delivered so long ago
 *               | "cron" M H D M W          crontab(5), local time, names and steps; something waits
 *               | "after" JOB               a run of that job ended well since this job's last one was made
 *
 * In spring a time that is skipped is due at once after the gap; in autumn one that comes twice is due once. Local time
 * is that of TZ, or of the system, when the process began.
 */
#ifndef MILL_WHEN_H
#define MILL_WHEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/units.h"

#define WHEN_CONDITIONS 8
#define WHEN_TEXT       128

enum when_kind { WHEN_BATCHES, WHEN_AGE, WHEN_CRON, WHEN_AFTER };

/* Bits of what matches; days are ORed where both of them are restricted, as crontab(5) says. */
struct when_cron {
	uint64_t minutes;
	uint32_t hours, days;
	uint16_t months;
	uint8_t weekdays;
	bool any_day, any_weekday; /* the field begins with a star */
};

struct when_condition {
	enum when_kind kind;
	bool first; /* an "or", or the beginning, stands before it */
	uint64_t batches;
	int64_t age_ms;
	struct when_cron cron;
	char job[UNITS_NAME_MAX];
};

struct when {
	struct when_condition conditions[WHEN_CONDITIONS];
	size_t n;
	char text[WHEN_TEXT]; /* as it was written, for people; cut where it is longer */
};

/* 0 or -EINVAL; err says where in the text, what was read there, and the grammar in a line. */
int when_parse(const char *text, struct when *ret_when, struct err *err);

struct when_facts {
	uint64_t batches;
	int64_t oldest_ms; /* wall; of the first delivery that waits; 0: nothing does */
	int64_t wall_ms;   /* now */
	int64_t looked_ms; /* wall; up to when cron was looked at already. 0, or after now (the clock was put back): not
	                      known, and only the minute that it is now counts */
	bool (*ended_since)(void *arg, const char *job); /* for "after" */
	void *arg;
};

bool when_is_due(const struct when *when, const struct when_facts *facts);

/*
 * In how many milliseconds it may become due by time alone, or is to be looked at again: at most an hour, for the wall
 * clock may be put right meanwhile; never 0. INT64_MAX: by time alone it never will.
 */
int64_t when_next_ms(const struct when *when, const struct when_facts *facts);

/* Whether it may be due with nothing delivered: it has an "after". */
bool when_wants_nothing(const struct when *when);

#endif
