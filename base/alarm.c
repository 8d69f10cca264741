/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alarm.h"

#include <stddef.h>

/* A plain list: there are about two alarms a source, and most are set to ring last. */
static void insert(struct alarms *set, struct alarm *alarm)
{
	struct alarm **at = &set->first;
	while (*at && (*at)->at_ms <= alarm->at_ms)
		at = &(*at)->next;
	alarm->next = *at;
	alarm->set = set;
	*at = alarm;
}

void alarm_set(struct alarms *set, struct alarm *alarm, int64_t at_ms)
{
	alarm_cancel(alarm);
	alarm->at_ms = at_ms;
	insert(set, alarm);
}

void alarm_cancel(struct alarm *alarm)
{
	if (!alarm->set)
		return;
	struct alarm **at = &alarm->set->first;
	while (*at != alarm)
		at = &(*at)->next;
	*at = alarm->next;
	alarm->next = NULL;
	alarm->set = NULL;
}

int64_t alarms_next(const struct alarms *set)
{
	return set->first ? set->first->at_ms : ALARM_NEVER;
}

/*
 * What is due moves to a set of this call's own first: an on_ring may cancel, free or set again any alarm, the due ones
 * too, and what it sets for now is not rung in the same round.
 */
void alarms_ring(struct alarms *set, int64_t now_ms)
{
	struct alarms due = { set->first };
	struct alarm **end = &due.first;
	while (*end && (*end)->at_ms <= now_ms) {
		(*end)->set = &due;
		end = &(*end)->next;
	}
	set->first = *end;
	*end = NULL;
	while (due.first) {
		struct alarm *alarm = due.first;
		alarm_cancel(alarm);
		alarm->on_ring(alarm);
	}
}
