/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The built-in source `_polls`: at each full hour of UTC one fetch, with one record for each source that was polled in
 * that hour, of what its polls came to. With it the lake can tell a feed that stands still (its polls are unchanged)
 * from one that does not answer (they fail), and both from a collector that was not there (no record, or one whose
 * `from` comes after the hour's begin). docs/api.md has the record's keys.
 *
 * It counts in memory, so that a poll without news still writes nothing, and costs one commit an hour. What was counted
 * since the last full hour is lost at a stop or a crash; `from` is never before the start, so the lake sees that too.
 *
 * To the right it is a collector: its fetch goes through a sink, and is committed, sealed and delivered like any other.
 * An hour at whose end the buffer is full, or the fetch before is not durable yet, is not told by itself, nor is one of
 * which less than five minutes were left at the start: counting goes on, and a later one tells all of it, with the
 * `from` of the first. Nothing is told while the right time is still waited for; then the times before are reckoned
 * back from it.
 *
 * A source that goes from the configuration is told once more, up to when it went. One that is disabled is not polled
 * and not told; where there is none to tell, nothing is written. Loop thread only.
 */
#ifndef AGENT_SUMMARY_H
#define AGENT_SUMMARY_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/intake.h"
#include "base/alarm.h"
#include "base/sink.h"

#define SUMMARY_SOURCES_MAX 4096 /* in one hour; as many as the queue has routes for */

struct summary;

/*
 * sink and alarms are borrowed for its life. An hour is pushed at once, whatever the sink says meanwhile: it is to be
 * one that stages nothing. NULL: no memory.
 */
struct summary *summary_new(struct sink *sink, struct alarms *alarms);
void summary_free(struct summary *summary); /* NULL is fine */

/* The source is polled from now on. 0, -ENOMEM, or -ENOBUFS: there are too many. */
int summary_add(struct summary *summary, const char *source);

/* It is so no more; what is reported of its last fetch still counts until it was told. */
void summary_remove(struct summary *summary, const char *source);

/* What the intake reports; of any other source it is ignored. */
void summary_note(struct summary *summary, const char *source, const struct intake_report *report);

/* The clock was asked. tell: it is right, or not waited for any more; until then nothing is told. */
void summary_set_clock(struct summary *summary, bool tell);

/* Monotonic; when it tells next, or ALARM_NEVER. */
int64_t summary_next_ms(const struct summary *summary);

#endif
