/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/clockwork.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/container.h"
#include "base/log.h"
#include "board/board.h"

#define ASK_MS    5000
#define ASK_SHARE 10    /* of the worker's time that asking may take: a tenth */
#define CALM_MS   60000 /* once clock_wait is over */

const char *const clockwork_state_names[] = {
	[CLOCKWORK_WAITING] = "waiting",
	[CLOCKWORK_UNSYNCED] = "unsynced",
	[CLOCKWORK_SYNCED] = "synced",
};

struct clockwork {
	struct clockwork_env env;
	bool trust;
	int64_t wait_ms;
	enum clockwork_state state;
	int64_t since_ms;
	bool asked, stopped; /* asked: the state is an answer, and not only how it begins */
	struct alarm alarm;

	/* The job's own while it is under way. */
	struct job job;
	bool asking, again;
	bool ask_trust, ask_synced, answered, right;
	int64_t ask_until_ms, began_ms, wall_ms, mono_ms;
	int status; /* the queue's */
	struct queue_view *fresh;

	int64_t ahead_ms; /* the wall clock is that much ahead of the boot's own, as of the last answer */
};

static int64_t wait_until(bool trust, int64_t wait_ms)
{
	return trust ? 0 : wait_ms;
}

void clockwork_bound(const struct config *config, struct queue *queue)
{
	bool trust = config->clock == CONFIG_CLOCK_TRUST;
	int64_t wall_ms = clock_wall_ms();
	struct err ignored; /* what cannot be written down now is with the next answer */

	queue_set_clock(queue, trust && clock_plausible(wall_ms), wall_ms, clock_mono_ms(),
	                wait_until(trust, config->clock_wait_ms), &ignored);
}

/* --- What it says --- */

static void log_waiting(const struct clockwork *cw)
{
	char left[UNITS_TEXT_MAX], wait[UNITS_TEXT_MAX];

	log_notice("clock.waiting",
	           "the clock is not synchronised: what comes is kept, and sealed once it is, or in %s at the latest "
	           "(clock_wait = \"%s\")",
	           units_age(cw->wait_ms - cw->mono_ms, left), units_duration(cw->wait_ms, wait));
}

static void log_unsynced(const struct clockwork *cw)
{
	char wait[UNITS_TEXT_MAX];

	if (cw->trust)
		log_warning("clock.unsynced",
		            "the clock stands before this program was built: what comes is sealed as \"unsynced\"");
	else
		log_warning("clock.unsynced",
		            "the clock was not synchronised within clock_wait = \"%s\" of the boot: what comes is "
		            "sealed with the time that there is, as \"unsynced\"",
		            units_duration(cw->wait_ms, wait));
}

/* The first answer is told only where it is bad. */
static void log_synced(const struct clockwork *cw)
{
	int64_t by_ms = cw->wall_ms - cw->mono_ms - cw->ahead_ms;
	char by[UNITS_TEXT_MAX], now[UNITS_TEXT_MAX];

	if (!cw->asked)
		return;
	units_age(by_ms < 0 ? -by_ms : by_ms, by);
	log_notice("clock.synced",
	           "the clock is right: it was put %s by %s, to %s, and so are the times of what was kept back",
	           by_ms < 0 ? "back" : "forward", by, units_time(cw->wall_ms, now));
}

static void set_state(struct clockwork *cw, enum clockwork_state state)
{
	static void (*const tell[])(const struct clockwork *cw) = {
		[CLOCKWORK_WAITING] = log_waiting,
		[CLOCKWORK_UNSYNCED] = log_unsynced,
		[CLOCKWORK_SYNCED] = log_synced,
	};

	if (cw->asked && cw->state == state)
		return;
	if (!cw->asked || state == CLOCKWORK_SYNCED)
		cw->since_ms = cw->mono_ms;
	cw->state = state;
	tell[state](cw);
	cw->asked = true;
}

/* --- Asking --- */

/* Where nobody can be asked, a time that can be right is. */
static bool ask_board(void)
{
	return board_clock_state("") != BOARD_CLOCK_UNSYNCED;
}

static void work(struct job *job)
{
	struct clockwork *cw = container_of(job, struct clockwork, job);
	struct err ignored;
	bool said;

	cw->began_ms = clock_mono_ms();
	said = cw->ask_synced || cw->ask_trust || ask_board();
	cw->wall_ms = clock_wall_ms();
	cw->mono_ms = clock_mono_ms();
	cw->right = cw->ask_synced || (said && clock_plausible(cw->wall_ms));
	cw->status = queue_set_clock(cw->env.queue, cw->right, cw->wall_ms, cw->mono_ms, cw->ask_until_ms, &ignored);
	cw->fresh = queue_view(cw->env.queue);
	cw->answered = true;
}

static void ask(struct clockwork *cw)
{
	cw->again = cw->asking;
	if (cw->asking || cw->stopped)
		return;
	cw->asking = true;
	cw->answered = false; /* stands where the worker gives the job back unworked */
	cw->ask_trust = cw->trust;
	cw->ask_synced = cw->state == CLOCKWORK_SYNCED;
	cw->ask_until_ms = wait_until(cw->trust, cw->wait_ms);
	worker_submit(cw->env.worker, &cw->job);
}

/* At the end of clock_wait at the latest; not so often that commits would have to wait for the answers. */
static void set_alarm(struct clockwork *cw)
{
	int64_t at_ms = cw->mono_ms + (cw->state == CLOCKWORK_UNSYNCED ? CALM_MS : ASK_MS);
	int64_t least_ms = cw->mono_ms + (cw->mono_ms - cw->began_ms) * (ASK_SHARE - 1);

	if (cw->state == CLOCKWORK_SYNCED && cw->status == 0)
		return;
	if (at_ms < least_ms)
		at_ms = least_ms;
	if (cw->state == CLOCKWORK_WAITING && at_ms > cw->ask_until_ms)
		at_ms = cw->ask_until_ms;
	alarm_set(cw->env.alarms, &cw->alarm, at_ms);
}

static void note_answer(struct clockwork *cw)
{
	set_state(cw, cw->right                        ? CLOCKWORK_SYNCED
	              : cw->mono_ms < cw->ask_until_ms ? CLOCKWORK_WAITING
	                                               : CLOCKWORK_UNSYNCED);
	cw->ahead_ms = cw->wall_ms - cw->mono_ms;
}

static void on_asked(struct job *job)
{
	struct clockwork *cw = container_of(job, struct clockwork, job);

	cw->asking = false;
	if (!cw->answered)
		return;
	if (cw->stopped) {
		queue_view_free(cw->fresh);
		return;
	}
	note_answer(cw);
	cw->env.on_told(cw->env.arg, cw->state == CLOCKWORK_SYNCED, cw->fresh);
	set_alarm(cw);
	if (cw->again)
		ask(cw);
}

static void on_alarm(struct alarm *alarm)
{
	ask(container_of(alarm, struct clockwork, alarm));
}

void clockwork_configure(struct clockwork *cw, const struct config *config)
{
	cw->trust = config->clock == CONFIG_CLOCK_TRUST;
	cw->wait_ms = config->clock_wait_ms;
	ask(cw);
}

struct clockwork *clockwork_new(const struct clockwork_env *env, const struct config *config)
{
	struct clockwork *cw = calloc(1, sizeof *cw);

	if (!cw)
		return NULL;
	cw->env = *env;
	cw->job = (struct job){ .work = work, .done = on_asked };
	cw->alarm.on_ring = on_alarm;
	cw->since_ms = clock_mono_ms();
	if (config->clock == CONFIG_CLOCK_TRUST && clock_plausible(clock_wall_ms())) {
		cw->state = CLOCKWORK_SYNCED;
		env->on_told(env->arg, true, NULL);
	}
	clockwork_configure(cw, config);
	return cw;
}

void clockwork_view(const struct clockwork *cw, struct clockwork_view *ret_view)
{
	*ret_view = (struct clockwork_view){
		.state = cw->state,
		.since_ms = cw->since_ms,
		.wait_until_ms = wait_until(cw->trust, cw->wait_ms),
	};
}

void clockwork_stop(struct clockwork *cw)
{
	cw->stopped = true;
	alarm_cancel(&cw->alarm);
}

void clockwork_free(struct clockwork *cw)
{
	free(cw);
}
