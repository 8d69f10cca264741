/* SPDX-License-Identifier: Apache-2.0 */
/* The state that the buffer is in, by what its parts say, and its changes in the log: once each, not once per try. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/carrier.h"
#include "agent/daemon.h"
#include "base/clock.h"
#include "base/log.h"

#define SEE_DMESG "see what the card says (dmesg)"

static const struct {
	const char *name, *event, *what, *remedy;
} states[] = {
	[HEALTH_READY] = { "ready", "buffer.ready", "", "" },
	[HEALTH_FULL] = { "full", "buffer.full", "", "" },
	[HEALTH_NO_SPACE] = { "no-space", "buffer.no-space", "no space is left on its file system",
	                      "make room there, where others have filled it (df -h); it then goes on by itself" },
	[HEALTH_READ_ONLY] = { "read-only", "buffer.read-only", "its file system is read-only",
	                       SEE_DMESG
	                       "; mounted writable again it goes on by itself, unless the file system had to be "
	                       "unmounted for that: then restart the daemon" },
	[HEALTH_FAILING] = { "failing", "buffer.failing", "the card fails",
	                     SEE_DMESG "; it goes on by itself once this ends; a card on which it does not wants to be "
	                               "replaced" },
	[HEALTH_DAMAGED] = { "damaged", "buffer.damaged", "something in it is not what was written",
	                     "it is salvaged by itself; where that fails again and again, " SEE_DMESG
	                     ", and replace it" },
	[HEALTH_SALVAGING] = { "salvaging", "buffer.salvaging",
	                       "it is damaged; what can be read is being taken over into a fresh one",
	                       "wait until that is done" },
	[HEALTH_HUNG] = { "hung", "buffer.hung", "the card does not answer", SEE_DMESG " and its power supply" },
};

static enum health by_status(int status)
{
	switch (status) {
	case -ENOSPC:
		return HEALTH_NO_SPACE;
	case -EROFS:
		return HEALTH_READ_ONLY;
	case -EBADMSG:
		return HEALTH_DAMAGED;
	default:
		return HEALTH_FAILING;
	}
}

/* Not open comes first, then what keeps records in memory, then what keeps them in the buffer. */
static enum health judge(const struct agent *a, const char **ret_text)
{
	const struct queue_view *view = courier_view(a->courier);
	int trouble = intake_trouble(a->intake);

	*ret_text = "";
	if (queue_is_salvaging(a->queue))
		return HEALTH_SALVAGING;
	if (worker_busy_ms(a->worker) >= HUNG_MS)
		return HEALTH_HUNG;
	if (view->status < 0) {
		*ret_text = courier_error(a->courier);
		return by_status(view->status);
	}
	if (trouble != 0 && trouble != -EDQUOT) {
		*ret_text = intake_error(a->intake);
		return by_status(trouble);
	}
	if (courier_trouble(a->courier) != 0 && courier_trouble(a->courier) != -EDQUOT) {
		*ret_text = courier_error(a->courier);
		return by_status(courier_trouble(a->courier));
	}
	if (view->failing)
		return by_status(view->failing);
	return a->full || view->wanted || trouble ? HEALTH_FULL : HEALTH_READY;
}

enum health health_judge(const struct agent *a, const char **ret_text)
{
	enum health health = judge(a, ret_text);

	if (!**ret_text)
		*ret_text = states[health].what;
	return health;
}

const char *health_name(enum health health)
{
	return states[health].name;
}

const char *health_remedy(enum health health)
{
	return states[health].remedy;
}

/* Want of room below max_size is told by itself, where it makes polls wait or drops something. */
static bool is_well(enum health health)
{
	return health <= HEALTH_FULL;
}

static void tell(const struct agent *a, enum health health, const char *text)
{
	char age[UNITS_TEXT_MAX];

	if (!is_well(health))
		log_error(states[health].event, "the buffer's state is \"%s\": %s", states[health].name, text);
	else
		log_notice(states[HEALTH_READY].event, "the buffer takes records again; it was not ready for %s",
		           units_age(clock_mono_ms() - a->unwell_ms, age));
}

void health_note(struct agent *a)
{
	const char *text;
	enum health health = health_judge(a, &text), before = a->health;
	int trouble = intake_trouble(a->intake);

	if (a->trouble != 0 && a->trouble != -EDQUOT && trouble == 0)
		courier_wake(a->courier);
	a->trouble = trouble;
	if (before == HEALTH_SALVAGING && health == HEALTH_DAMAGED && !worker_idle(a->worker))
		return; /* the job is not over: what is known is from before it */
	a->health = health;
	if (health == before || (is_well(health) && is_well(before)))
		return;
	if (is_well(before))
		a->unwell_ms = clock_mono_ms();
	tell(a, health, text);
}
