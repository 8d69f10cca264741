/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One working machine: asleep → waking → up → running → idle → sleeping, by this table and by no other way:
 *
 *     state      what happens                                next       and
 *     asleep     it is wanted, and answers already           up         not ours: somebody else woke it
 *     asleep     it is wanted, and does not answer           waking     a wake is counted
 *     asleep     it is wanted, wakes_per_day are used up     asleep     the breaker: after midnight UTC
 *     asleep     ours still (lost, or late), and answers     up         ours, unless another has woken it since
 *     asleep     the same, woken by another, not wanted      asleep     not ours
 *     waking     it answers                                  up         ours, if anything was sent
 *     waking     it does not for ready_timeout               asleep     late; backoff, 5 minutes to 6 hours
 *     up         a run begins on it                          running
 *     up         nobody wants it any more                    idle
 *     up, idle   it does not answer for LOST_MS              asleep     lost: it sleeps, or is cut off
 *     up, idle   ours, and it has slept or begun anew        the same   not ours: somebody else woke it
 *     running    the last run has ended                      idle
 *     running    it does not answer for LOST_MS              asleep     lost; its runs want it again
 *     idle       it is wanted                                up
 *     idle       for `idle`, ours, and `sleep`: it agrees    sleeping
 *     idle       the same: it refuses                        idle       asked again after `idle`
 *     sleeping   it answers no more                          asleep
 *     sleeping   it answers, and has slept                   idle       not ours: somebody else woke it
 *     sleeping   it still answers after ready_timeout        idle       told; asked again after `idle`
 *
 * Its worker tells a text that stays the same until it has slept or was started anew; that is written down with each
 * edge, and alone where it came without one. The same text again: it has not slept, and is ours if it was, however long
 * it was away and whatever was sent meanwhile. Another one: what went out well within LATE_MS, and since it was last
 * up, has woken it, or else somebody has; but under a run of ours it was started anew, and stays ours. Where nothing is
 * told one that is lost, or late, is ours for LATE_MS. One that is ours and does not answer is looked at, so that
 * neither a broken link nor a slow start leaves a machine awake.
 *
 * A machine with wake = "none" is never woken nor put to sleep; one that is away is waited for. Each edge is written
 * down before the next step is taken, so that a start after a power cut goes on from the state that it finds: asleep is
 * looked at, waking goes on with packets, sleeping looks whether it does. It stands still until the first machine_want,
 * for before that nobody knows whether it is wanted. Time awake is written down with each edge, and once an hour. What
 * it does to the world it does through machine_acts, so that a test can be the world. Loop thread only.
 */
#ifndef MILL_MACHINE_H
#define MILL_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/alarm.h"
#include "base/err.h"
#include "base/option.h"
#include "buffer/ledger.h"

#define MACHINE_LOST_MS   INT64_C(120000)
#define MACHINE_RESEND_MS INT64_C(5000)  /* between rounds of packets, and between looks whether it answers */
#define MACHINE_LOOK_MS   INT64_C(60000) /* between looks at one that is awake, or that is waited for */
#define MACHINE_QUIET_MS  INT64_C(15000) /* without an answer: it sleeps, as it agreed to */
#define MACHINE_LATE_MS   INT64_C(3600000)

enum machine_wake { MACHINE_WOL, MACHINE_EXEC, MACHINE_NONE };
enum machine_ready { MACHINE_SSH, MACHINE_TCP, MACHINE_HTTP };

struct machine_settings {
	int wake;        /* enum machine_wake */
	char *mac;       /* of wol */
	char *secure_on; /* the same, written like a MAC; a reference to a secret */
	char *interface; /* NULL: as the routes say */
	char *command;   /* of exec: a path and its arguments, split at spaces; it has ready_timeout */
	char *host, *user, *key;
	char *known_hosts;  /* NULL: the user's */
	int64_t port;       /* of ssh, 22 */
	int ready;          /* enum machine_ready */
	int64_t ready_port; /* of tcp */
	char *ready_url;    /* of http: any 2xx */
	int64_t ready_timeout_ms, idle_ms;
	bool sleep;
	int64_t wakes_per_day;
	int64_t watts; /* 0: not told */
};

extern const struct option machine_options[];
extern const char *const machine_state_names[]; /* by enum ledger_machine_state */

/* 0, or -EINVAL: a setting is left out that another one makes necessary. */
int machine_check(const struct machine_settings *settings, struct err *err);

struct machine;

/*
 * What a machine does, each ending in one call of machine_on_… below, never from within. One of a kind is under way at
 * a time; the machine asks for no second.
 */
struct machine_acts {
	void (*wake)(void *arg);  /* one round of packets, or the command; ends in machine_on_woken */
	void (*look)(void *arg);  /* whether its service answers; ends in machine_on_look */
	void (*sleep)(void *arg); /* asks it to; ends in machine_on_sleep */
	void (*note)(void *arg, const struct ledger_machine *state,
	             const struct ledger_day *add); /* machine_on_noted */
	/* Its state is another one, and written down; or it refuses, or no more; or it was met for the first time: what
	   waits for it may go on. From here all but machine_free may be called. */
	void (*changed)(void *arg);
	void *arg;
};

/*
 * settings and alarms are borrowed; name and acts are copied. was, today: as the ledger has them; NULL: it is new, and
 * held to be asleep; this day has no row. A row of another day counts for nothing. NULL: no memory.
 */
struct machine *machine_new(const struct machine_settings *settings, const char *name, struct alarms *alarms,
                            const struct machine_acts *acts, const struct ledger_machine *was,
                            const struct ledger_day *today);
void machine_use(struct machine *machine, const struct machine_settings *settings); /* from now on */
void machine_free(struct machine *machine); /* at any time; what is under way must be told to nobody then */

/* So many runs want it; of these so many are under way on it. The first call sets it going. */
void machine_want(struct machine *machine, unsigned wanted, unsigned running);

/*
 * A person asks for it: past backoff and breaker, and it stays for `idle` at least. One that counts as awake is looked
 * at: where it does not answer it is woken.
 */
void machine_wake(struct machine *machine);

void machine_on_woken(struct machine *machine, int status, const struct err *err); /* 0, or why nothing was sent */

enum machine_answer {
	MACHINE_ANSWERS,
	MACHINE_SILENT,  /* refused, no route, no answer in time */
	MACHINE_REFUSES, /* it is awake, and a person must mend something: keys, a worker that is not set up or too old
	                  */
	MACHINE_BLOCKED, /* it was not asked, for a person must mend something here: a key that is not there, no ssh */
};
/* awake: the text of its health; NULL: it tells none. err: why it does not answer, or refuses; may be NULL. */
void machine_on_look(struct machine *machine, enum machine_answer answer, const char *awake, const struct err *err);
void machine_on_sleep(struct machine *machine, bool agreed, const struct err *err); /* err: because */
void machine_on_noted(struct machine *machine, int status); /* negative: not written; it is tried again */

/* Any answer of it that came by another way: a run's status. It has not vanished. */
void machine_answered(struct machine *machine);

struct machine_view {
	enum ledger_machine_state state;
	int64_t since_ms; /* wall */
	bool ours;
	bool refuses;        /* a person must mend something, there or here */
	int64_t next_try_ms; /* monotonic; of a wake that backoff or breaker hold back. ALARM_NEVER: none is */
	unsigned failures;   /* wakes in a row that it did not answer; 1 for one that only others wake, and none did */
	uint64_t wakes;      /* today */
	const char *reason;  /* of the last edge, or what is wrong since; borrowed until the loop goes on */
};
void machine_view(const struct machine *machine, struct machine_view *ret_view);

/*
 * Whether a run may be started on it now: up or running, that is written down, it has answered since this process
 * began, and it does not refuse.
 */
bool machine_is_ready(const struct machine *machine);

#endif
