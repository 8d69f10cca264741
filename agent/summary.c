/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/summary.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/container.h"
#include "base/units.h"

#define HOUR_MS   (INT64_C(60) * 60 * 1000)
#define MINUTE_MS (INT64_C(60) * 1000)
#define LEAST_MS  (5 * MINUTE_MS) /* of an hour, from the start on, that are told by themselves */

/* By both clocks: the wall's may be put right later. */
struct moment {
	int64_t wall_ms, mono_ms;
};

struct figures {
	uint64_t polls, unchanged, failed, refused, records, bytes;
	int64_t slowest_ms; /* -1: no complete answer came */
	int last_status;    /* 0: no answer came */
	char last_cause[64];
};

struct count {
	char source[UNITS_NAME_MAX];
	struct moment from;
	struct moment to; /* once it is gone */
	bool gone;        /* from the configuration */
	struct figures figures;
	struct count *next;
};

struct summary {
	struct sink *sink;
	struct alarms *alarms;
	struct alarm alarm;
	int64_t hour_ms;     /* wall; for which the alarm is set */
	int64_t earliest_ms; /* monotonic; before it nothing is told */
	bool settling;       /* the last fetch is not durable yet */
	struct count *counts;
	size_t n;
};

static struct moment now(void)
{
	return (struct moment){ clock_wall_ms(), clock_mono_ms() };
}

/* As the wall clock would have shown it then, had it been as it is at `end`; as it was, if it has gone evenly. */
static int64_t wall_at(const struct moment *moment, const struct moment *end)
{
	int64_t reckoned_ms = end->wall_ms - (end->mono_ms - moment->mono_ms);

	return llabs(reckoned_ms - moment->wall_ms) <= MINUTE_MS ? moment->wall_ms : reckoned_ms;
}

static void begin(struct count *count, struct moment from)
{
	count->from = from;
	count->figures = (struct figures){ .slowest_ms = -1 };
}

/* --- Telling --- */

static json_t *number_or_null(int64_t number, bool null)
{
	return null ? json_null() : json_integer(number);
}

/* A new reference; NULL: no memory. */
static json_t *record(const struct count *count, const struct moment *end)
{
	const struct figures *f = &count->figures;
	char from[UNITS_TEXT_MAX], to[UNITS_TEXT_MAX];

	units_time(wall_at(&count->from, end), from);
	units_time(count->gone ? wall_at(&count->to, end) : end->wall_ms, to);
	return json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:s?}", "source", count->source,
	                 "from", from, "to", to, "polls", (json_int_t)f->polls, "unchanged", (json_int_t)f->unchanged,
	                 "failed", (json_int_t)f->failed, "refused", (json_int_t)f->refused, "records",
	                 (json_int_t)f->records, "bytes", (json_int_t)f->bytes, "slowest_ms",
	                 number_or_null(f->slowest_ms, f->slowest_ms < 0), "last_status",
	                 number_or_null(f->last_status, f->last_status == 0), "last_cause",
	                 *f->last_cause ? f->last_cause : NULL);
}

static int add_record(struct sink *sink, const struct count *count, const struct moment *end)
{
	json_t *json = record(count, end);
	char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
	int r = text ? sink_record(sink, text, strlen(text)) : -ENOMEM;

	free(text);
	json_decref(json);
	return r;
}

/* All of it was told: those that are there begin anew, those that are gone were told for the last time. */
static void begin_hour(struct summary *s, struct moment from)
{
	for (struct count **at = &s->counts; *at;) {
		struct count *count = *at;

		if (!count->gone) {
			begin(count, from);
			at = &count->next;
			continue;
		}
		*at = count->next;
		free(count);
		s->n--;
	}
}

/* What cannot be told now is counted on: a later hour tells it. */
static void tell(struct summary *s, struct moment end)
{
	int r = 0;

	if (!s->counts || s->settling || s->sink->full || end.mono_ms < s->earliest_ms)
		return;
	sink_begin(s->sink);
	for (const struct count *count = s->counts; r == 0 && count; count = count->next)
		r = add_record(s->sink, count, &end);
	if (r < 0) {
		sink_drop(s->sink, SINK_FAILED, "memory", "no memory for the hour, which the next one tells too", NULL);
		return;
	}
	s->settling = true;
	begin_hour(s, end);
	sink_publish(s->sink, clock_wall_ms(), clock_mono_ms());
}

static void on_settled(void *collector)
{
	struct summary *s = collector;

	s->settling = false;
}

/* The next hour will do. */
static void on_room(void *collector)
{
	(void)collector;
}

/* --- The hours --- */

static void set_alarm(struct summary *s)
{
	struct moment at = now();

	s->hour_ms = (at.wall_ms / HOUR_MS + 1) * HOUR_MS;
	alarm_set(s->alarms, &s->alarm, at.mono_ms + s->hour_ms - at.wall_ms);
}

/* The wall clock may have been put since: back, then it is not the hour yet, or on, then the hour is long over. */
static void on_ring(struct alarm *alarm)
{
	struct summary *s = container_of(alarm, struct summary, alarm);
	struct moment at = now();
	int64_t late_ms = at.wall_ms - s->hour_ms;

	if (late_ms >= 0 && late_ms <= MINUTE_MS)
		tell(s, (struct moment){ s->hour_ms, at.mono_ms - late_ms });
	else if (late_ms > 0)
		tell(s, at);
	set_alarm(s);
}

void summary_set_clock(struct summary *s, bool tell)
{
	if (!tell)
		alarm_cancel(&s->alarm);
	else if (!s->alarm.set || s->alarm.at_ms > clock_mono_ms()) /* else it rings now */
		set_alarm(s);
}

int64_t summary_next_ms(const struct summary *s)
{
	return s->alarm.set ? s->alarm.at_ms : ALARM_NEVER;
}

/* --- The sources --- */

struct summary *summary_new(struct sink *sink, struct alarms *alarms)
{
	struct summary *s = calloc(1, sizeof *s);

	if (!s)
		return NULL;
	s->sink = sink;
	s->alarms = alarms;
	s->alarm.on_ring = on_ring;
	s->earliest_ms = clock_mono_ms() + LEAST_MS;
	sink->on_settled = on_settled;
	sink->on_room = on_room;
	sink->collector = s;
	return s;
}

static struct count *find(const struct summary *s, const char *source)
{
	struct count *count = s->counts;

	while (count && strcmp(count->source, source) != 0)
		count = count->next;
	return count;
}

/* The first of those that are gone; who reloads for ever with new names fills no memory. */
static void forget_one(struct summary *s)
{
	for (struct count **at = &s->counts; *at; at = &(*at)->next) {
		struct count *count = *at;

		if (!count->gone)
			continue;
		*at = count->next;
		free(count);
		s->n--;
		return;
	}
}

int summary_add(struct summary *s, const char *source)
{
	struct count **end = &s->counts, *count = find(s, source);

	if (count) {
		count->gone = false; /* it has come back, changed perhaps */
		return 0;
	}
	if (s->n == SUMMARY_SOURCES_MAX)
		forget_one(s);
	if (s->n == SUMMARY_SOURCES_MAX)
		return -ENOBUFS;
	count = calloc(1, sizeof *count);
	if (!count)
		return -ENOMEM;
	snprintf(count->source, sizeof count->source, "%s", source);
	begin(count, now());
	while (*end)
		end = &(*end)->next;
	*end = count;
	s->n++;
	return 0;
}

void summary_remove(struct summary *s, const char *source)
{
	struct count *count = find(s, source);

	if (!count || count->gone)
		return;
	count->gone = true;
	count->to = now();
}

static void add_report(struct figures *f, const struct intake_report *report)
{
	bool complete = report->outcome == SINK_COMMITTED || report->outcome == SINK_UNCHANGED;

	f->polls++;
	f->unchanged += report->outcome == SINK_UNCHANGED;
	f->failed += report->outcome == SINK_FAILED;
	f->refused += report->outcome == SINK_REFUSED;
	f->records += report->records;
	f->bytes += report->bytes;
	if (report->status)
		f->last_status = report->status;
	if (complete && report->took_ms > f->slowest_ms)
		f->slowest_ms = report->took_ms;
	if (!complete)
		snprintf(f->last_cause, sizeof f->last_cause, "%s", report->cause);
}

void summary_note(struct summary *s, const char *source, const struct intake_report *report)
{
	struct count *count = find(s, source);

	if (count && !report->waits)
		add_report(&count->figures, report);
}

void summary_free(struct summary *s)
{
	if (!s)
		return;
	alarm_cancel(&s->alarm);
	while (s->counts) {
		struct count *count = s->counts;

		s->counts = count->next;
		free(count);
	}
	free(s);
}
