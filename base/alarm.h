/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Alarms on base/clock's monotonic time: what every timer of Millrace hangs on, so that a test owns time. Alarms are
 * embedded in what they wake; the set is owned by agent/, whose loop rings it. Loop thread only.
 */
#ifndef BASE_ALARM_H
#define BASE_ALARM_H

#include <stdint.h>

struct alarm {
	void (*on_ring)(struct alarm *alarm);
	int64_t at_ms; /* monotonic */
	struct alarm *next;
	struct alarms *set; /* NULL while it is not set */
};

struct alarms {
	struct alarm *first; /* by time; equal times in the order in which they were set */
};

#define ALARM_NEVER INT64_MAX

/* Sets it (again): it rings once, at or after at_ms. May be called from on_ring. */
void alarm_set(struct alarms *set, struct alarm *alarm, int64_t at_ms);

/* Does nothing where it is not set. */
void alarm_cancel(struct alarm *alarm);

/* When the first one rings, or ALARM_NEVER. */
int64_t alarms_next(const struct alarms *set);

/* Rings what is due; what an on_ring sets for now rings in the next call, so this always ends. */
void alarms_ring(struct alarms *set, int64_t now_ms);

#endif
