/* SPDX-License-Identifier: Apache-2.0 */
#include "mill/machine.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/container.h"
#include "base/units.h"
#include "base/url.h"
#include "board/wol.h"
#include "mill/command.h"

#define SECOND           INT64_C(1000)
#define MINUTE           (60 * SECOND)
#define HOUR             (60 * MINUTE)
#define DAY              (24 * HOUR)
#define BACKOFF_MS       (5 * MINUTE)
#define BACKOFF_MAX_MS   (6 * HOUR)
#define BACKOFF_DOUBLING 7 /* doubling that often is more than the most */
#define LONG_AGO         (-MACHINE_LATE_MS)

/* Settings */

static int check_mac(const char *value, struct err *err)
{
	uint8_t mac[WOL_MAC];
	if (wol_parse_mac(value, mac) == 0)
		return 0;
	return err_fail(err, -EINVAL, "\"%.40s\" is no machine's MAC address; write it like \"aa:bb:cc:dd:ee:ff\"",
	                value);
}

/* What ssh gets as an argument of its own, and behind a "user@" or in a "[host]:port". */
static int check_word(const char *value, struct err *err)
{
	if (!*value || *value == '-' || strpbrk(value, " \t\n@[]/'\"\\") || strlen(value) > 253)
		return err_fail(err, -EINVAL, "\"%.80s\" is no name of a host or of a user, nor an address", value);
	return 0;
}

/* Relative ones would be seen from the folder of a service, which is / */
static int check_key(const char *value, struct err *err)
{
	if (strncmp(value, "file:/", strlen("file:/")) == 0)
		return 0;
	return err_fail(err, -EINVAL,
	                "\"%.80s\" is not \"file:\" with the key's full path, like "
	                "\"file:/etc/millrace/mill_key\"",
	                value);
}

/* Linux takes no other (dev_valid_name of its net/core/dev.c). */
static int check_interface(const char *value, struct err *err)
{
	if (*value && strlen(value) < IFNAMSIZ && !strpbrk(value, " \t\n/:") && strcmp(value, ".") != 0 &&
	    strcmp(value, "..") != 0)
		return 0;
	return err_fail(err, -EINVAL,
	                "\"%.40s\" is no name of a network interface, as `ip link` tells them: \"eth0\", up to %d "
	                "characters",
	                value, IFNAMSIZ - 1);
}

static const char *const wakes[] = { [MACHINE_WOL] = "wol", [MACHINE_EXEC] = "exec", [MACHINE_NONE] = "none", NULL };
static const char *const readies[] = { [MACHINE_SSH] = "ssh", [MACHINE_TCP] = "tcp", [MACHINE_HTTP] = "http", NULL };

#define FIELD(name) .offset = offsetof(struct machine_settings, name)

const struct option machine_options[] = {
	{ .name = "wake", .type = OPTION_CHOICE, FIELD(wake), .fallback = "wol", .choices = wakes },
	{ .name = "mac", .type = OPTION_TEXT, FIELD(mac), .check = check_mac },
	{ .name = "secure_on", .type = OPTION_TEXT, FIELD(secure_on), .secret = true },
	{ .name = "interface", .type = OPTION_TEXT, FIELD(interface), .check = check_interface },
	{ .name = "command", .type = OPTION_TEXT, FIELD(command), .check = command_check },
	{ .name = "host", .type = OPTION_TEXT, FIELD(host), .required = true, .check = check_word },
	{ .name = "user", .type = OPTION_TEXT, FIELD(user), .fallback = "millrace", .check = check_word },
	{ .name = "key", .type = OPTION_TEXT, FIELD(key), .check = check_key },
	{ .name = "known_hosts", .type = OPTION_TEXT, FIELD(known_hosts), .path = true, .check = option_check_path },
	{ .name = "port", .type = OPTION_NUMBER, FIELD(port), .fallback = "22", .min = 1, .max = 65535 },
	{ .name = "ready", .type = OPTION_CHOICE, FIELD(ready), .fallback = "ssh", .choices = readies },
	{ .name = "ready_port", .type = OPTION_NUMBER, FIELD(ready_port), .fallback = "22", .min = 1, .max = 65535 },
	{ .name = "ready_url", .type = OPTION_TEXT, FIELD(ready_url), .check = url_check },
	{ .name = "ready_timeout",
	  .type = OPTION_DURATION,
	  FIELD(ready_timeout_ms),
	  .fallback = "3m",
	  .min = 10 * SECOND,
	  .max = HOUR },
	{ .name = "idle",
	  .type = OPTION_DURATION,
	  FIELD(idle_ms),
	  .fallback = "10m",
	  .min = 10 * SECOND,
	  .max = 7 * DAY },
	{ .name = "sleep", .type = OPTION_BOOL, FIELD(sleep), .fallback = "true" },
	{ .name = "wakes_per_day",
	  .type = OPTION_NUMBER,
	  FIELD(wakes_per_day),
	  .fallback = "12",
	  .min = 1,
	  .max = 1000 },
	{ .name = "watts", .type = OPTION_NUMBER, FIELD(watts), .fallback = "0", .min = 0, .max = 100000 },
	OPTION_END,
};

const char *const machine_state_names[] = {
	[LEDGER_ASLEEP] = "asleep",   [LEDGER_WAKING] = "waking", [LEDGER_UP] = "up",
	[LEDGER_RUNNING] = "running", [LEDGER_IDLE] = "idle",     [LEDGER_SLEEPING] = "sleeping",
};

/* What a choice makes necessary. */
int machine_check(const struct machine_settings *s, struct err *err)
{
	if (s->wake == MACHINE_WOL && !s->mac)
		return err_fail(err, -EINVAL,
		                "wake = \"wol\" wants \"mac\", the address of the machine's network card");
	if (s->wake == MACHINE_EXEC && !s->command)
		return err_fail(err, -EINVAL, "wake = \"exec\" wants \"command\"");
	if (s->ready == MACHINE_HTTP && !s->ready_url)
		return err_fail(err, -EINVAL, "ready = \"http\" wants \"ready_url\"");
	bool sleeps = s->sleep && s->wake != MACHINE_NONE;
	if ((s->ready == MACHINE_SSH || sleeps) && !s->key)
		return err_fail(err, -EINVAL, "%s wants \"key\", the file of the ssh key%s",
		                s->ready == MACHINE_SSH ? "ready = \"ssh\"" : "sleep = true, the default,",
		                s->ready == MACHINE_SSH ? "" : "; or set sleep = false");
	return 0;
}

/* The machine */

struct machine {
	const struct machine_settings *settings;
	struct alarms *alarms;
	struct machine_acts acts;
	struct ledger_machine now; /* its state, as the ledger has it or is about to */
	struct ledger_day add;     /* what that adds to its days */
	enum {
		STILL,
		WRITTEN,
		COUNTING,
		CHANGING
	} book;                               /* STILL: before the first machine_want. COUNTING, CHANGING: what
	                                         is to be written is time alone, or an edge */
	bool noting, waking, looking, asking; /* acts that are under way */
	unsigned wanted, running;
	bool asked;            /* by a person, since it was last up */
	bool doubted;          /* a person asks for it while it counts as awake: is it? */
	bool met;              /* it has answered in this process */
	bool woken;            /* since the state began its command has ended well: it is not given again */
	bool ran;              /* a run has been on it since it told its text last */
	bool refuses, blocked; /* blocked: what is to be mended is here */
	const char *text;      /* while an answer is judged: its text, as now.awake; NULL: it tells none */
	struct err trouble;    /* what is wrong in this state; "" */

	/* All monotonic. */
	struct alarm alarm;
	int64_t next_ms;    /* while a step is taken: when the alarm is to ring */
	int64_t entered_ms; /* its state, in this process */
	int64_t heard_ms;   /* its last answer */
	int64_t seen_ms;    /* the last look that found it up, running or idle */
	int64_t sent_ms;    /* packets, or the command, went out well, since it was last up */
	int64_t wanted_ms;  /* since then, if it is */
	int64_t wake_ms, look_ms, sleep_ms, try_ms, count_ms; /* when each is due */
	int64_t counted_ms;                                   /* up to when its time awake was counted */

	int64_t counted_day; /* UTC, of counted_ms */
	unsigned failures;   /* wakes in a row */
	int64_t day;         /* UTC, of these: */
	uint64_t wakes;
};

static bool is_awake(enum ledger_machine_state state)
{
	return state == LEDGER_UP || state == LEDGER_RUNNING || state == LEDGER_IDLE || state == LEDGER_SLEEPING;
}

static bool is_wanted(const struct machine *m)
{
	return m->wanted > 0 || m->running > 0 || m->asked;
}

/* Writing down */

static int64_t to_midnight_ms(int64_t wall_ms)
{
	return (units_day(wall_ms) + 1) * DAY - wall_ms;
}

/* Time awake belongs to the day on which it began; count_ms is never beyond that day's end. */
static void count(struct machine *m)
{
	int64_t now_ms = clock_mono_ms(), wall_ms = clock_wall_ms();
	int64_t today = units_day(wall_ms), left_ms = to_midnight_ms(wall_ms);
	m->add.day = is_awake(m->now.state) ? m->counted_day : today;
	if (is_awake(m->now.state))
		m->add.awake_ms += now_ms - m->counted_ms;
	m->counted_ms = now_ms;
	m->counted_day = today;
	m->count_ms = now_ms + (left_ms < HOUR ? left_ms : HOUR);
}

static void note(struct machine *m)
{
	m->noting = true;
	m->acts.note(m->acts.arg, &m->now, &m->add);
}

/* What its answer tells of its being awake, beside what it told before. Where one of both is not known: neither. */
static bool is_same(const struct machine *m)
{
	return m->text && *m->now.awake && strcmp(m->text, m->now.awake) == 0;
}

static bool is_changed(const struct machine *m)
{
	return m->text && *m->now.awake && strcmp(m->text, m->now.awake) != 0;
}

static void take_text(struct machine *m)
{
	if (!m->text)
		return;
	snprintf(m->now.awake, sizeof m->now.awake, "%s", m->text);
	m->ran = m->now.state == LEDGER_RUNNING;
}

/* The one setter. `ours` as it is from now on. */
__attribute__((format(printf, 4, 5))) static void go(struct machine *m, enum ledger_machine_state state, bool ours,
                                                     const char *format, ...)
{
	va_list args;
	count(m);
	take_text(m);
	if (state == LEDGER_WAKING)
		m->add.wakes++;
	va_start(args, format);
	vsnprintf(m->now.reason, sizeof m->now.reason, format, args);
	va_end(args);
	m->now.state = state;
	m->now.since_ms = clock_wall_ms();
	m->now.ours = ours;
	m->asked = (m->asked || m->doubted) &&
	           (state == LEDGER_ASLEEP || state == LEDGER_WAKING || state == LEDGER_SLEEPING);
	m->doubted = false;
	if (state == LEDGER_UP) {
		m->failures = 0;
		m->try_ms = 0;
		m->sent_ms = LONG_AGO;
	}
	m->refuses = m->refuses && is_awake(state);
	if (!m->refuses)
		*m->trouble.text = '\0';
	m->book = CHANGING;
	note(m);
}

static void say(struct machine *m, const struct err *err)
{
	if (err)
		m->trouble = *err;
}

/* Its state is written down, or as it was found; its time counts from here. */
static void enter(struct machine *m)
{
	int64_t now_ms = clock_mono_ms();
	bool heard = m->now.state == LEDGER_UP || m->now.state == LEDGER_RUNNING || m->now.state == LEDGER_IDLE;
	m->book = WRITTEN;
	m->entered_ms = m->wake_ms = now_ms;
	m->look_ms = heard && (!m->ran || m->now.state == LEDGER_RUNNING) ? m->heard_ms + MACHINE_LOOK_MS : now_ms;
	m->ran = m->ran || m->now.state == LEDGER_RUNNING;
	m->sleep_ms = now_ms + m->settings->idle_ms;
	m->woken = false;
}

/* What it is doing is not known before it was looked at, and until then it is not lost. */
static void begin(struct machine *m)
{
	m->heard_ms = clock_mono_ms();
	enter(m);
	m->look_ms = m->entered_ms;
}

/* Waiting and looking */

/* Whether `at_ms` is here; else the alarm rings then. */
static bool is_due(struct machine *m, int64_t at_ms)
{
	if (clock_mono_ms() >= at_ms)
		return true;
	if (at_ms < m->next_ms)
		m->next_ms = at_ms;
	return false;
}

static void look_when_due(struct machine *m)
{
	if (m->looking || !is_due(m, m->look_ms))
		return;
	m->looking = true;
	m->acts.look(m->acts.arg);
}

/* A day of the breaker begins when the clock says so; one that is put back brings no new wakes. */
static void turn_day(struct machine *m)
{
	int64_t today = units_day(clock_wall_ms());
	if (today > m->day)
		m->wakes = 0;
	m->day = today;
}

static bool is_spent(const struct machine *m)
{
	return m->wakes >= (uint64_t)m->settings->wakes_per_day;
}

/* asleep */

/* That it is awake may still be our doing, where its answers do not tell. */
static bool is_recent(const struct machine *m)
{
	return clock_mono_ms() - m->entered_ms < MACHINE_LATE_MS;
}

/* What went out may have woken it since it was last up. */
static bool is_sent(const struct machine *m)
{
	return clock_mono_ms() - m->sent_ms < MACHINE_LATE_MS;
}

static bool is_looked_for(const struct machine *m)
{
	return is_wanted(m) || is_sent(m) || (m->now.ours && (*m->now.awake || is_recent(m)));
}

static void step_asleep(struct machine *m)
{
	if (!is_wanted(m)) {
		*m->trouble.text = '\0';
		m->failures = m->settings->wake == MACHINE_NONE ? 0 : m->failures;
	}
	if (is_looked_for(m))
		look_when_due(m);
}

static void begin_waking(struct machine *m)
{
	/* If it has not slept since its text it is ours only if it was. */
	bool ours = m->now.ours || !*m->now.awake;
	m->wakes++;
	go(m, LEDGER_WAKING, ours, "%s", m->asked ? "somebody asked for it" : "it is wanted");
}

/* It does not answer, and is wanted. */
static void wake(struct machine *m, const struct err *err)
{
	turn_day(m);
	if (m->settings->wake == MACHINE_NONE) {
		m->failures = clock_mono_ms() - m->wanted_ms >= m->settings->ready_timeout_ms;
		say(m, err);
		m->asked = false;
	} else if (m->asked || (!is_spent(m) && clock_mono_ms() >= m->try_ms)) {
		begin_waking(m);
	} else if (is_spent(m)) {
		err_fail(&m->trouble, 0,
		         "woken %" PRIu64 " times today, and wakes_per_day allows no more; it goes on after midnight "
		         "UTC, or with: millrace wake %s",
		         m->wakes, m->now.name);
	}
}

/* One that is lost is looked at ever more rarely. */
static int64_t lost_look_ms(const struct machine *m)
{
	int64_t wait_ms = (clock_mono_ms() - m->entered_ms) / 8;
	return wait_ms < MACHINE_LOOK_MS ? MACHINE_LOOK_MS : wait_ms < HOUR ? wait_ms : HOUR;
}

static void silent_asleep(struct machine *m, const struct err *err)
{
	int64_t now_ms = clock_mono_ms();
	if (is_wanted(m))
		wake(m, err);
	if (m->book != WRITTEN)
		return;
	m->look_ms = now_ms + (is_wanted(m) ? MACHINE_LOOK_MS : lost_look_ms(m));
	if (is_wanted(m) && m->try_ms > now_ms && m->try_ms < m->look_ms)
		m->look_ms = m->try_ms;
}

static bool is_ours_still(const struct machine *m)
{
	if (is_same(m))
		return m->now.ours;
	return is_sent(m) || (m->now.ours && !is_changed(m) && (*m->now.awake || is_recent(m)));
}

static void awake_asleep(struct machine *m)
{
	m->look_ms = clock_mono_ms() + MACHINE_LOOK_MS;
	if (is_ours_still(m))
		go(m, LEDGER_UP, true, "it answers again, or late: it is awake by our wake");
	else if (is_wanted(m))
		go(m, LEDGER_UP, false, "%s",
		   is_same(m) ? "it answers again" : "it answers already: somebody else woke it");
	else if (m->now.ours)
		go(m, LEDGER_ASLEEP, false, "somebody else has put it to sleep, and woken it");
}

/* waking */

static void give_up_waking(struct machine *m)
{
	unsigned doubled = m->failures < BACKOFF_DOUBLING ? m->failures : BACKOFF_DOUBLING;
	int64_t wait_ms = BACKOFF_MS << doubled;
	char text[UNITS_TEXT_MAX];
	struct err why = m->trouble;
	m->failures++;
	m->try_ms = clock_mono_ms() + (wait_ms < BACKOFF_MAX_MS ? wait_ms : BACKOFF_MAX_MS);
	m->asked = false;
	go(m, LEDGER_ASLEEP, *m->now.awake ? m->now.ours : is_sent(m),
	   "it did not answer within %s of its wake%s%.400s", units_duration(m->settings->ready_timeout_ms, text),
	   *why.text ? ": " : "", why.text);
}

static void step_waking(struct machine *m)
{
	bool again = m->settings->wake == MACHINE_WOL || (m->settings->wake == MACHINE_EXEC && !m->woken);
	if (is_due(m, m->entered_ms + m->settings->ready_timeout_ms)) {
		give_up_waking(m);
		return;
	}
	if (again && !m->waking && is_due(m, m->wake_ms)) {
		m->waking = true;
		m->acts.wake(m->acts.arg);
	}
	look_when_due(m);
}

static void silent_waking(struct machine *m, const struct err *err)
{
	(void)err; /* no route, refused: what one expects of it now */
	m->look_ms = clock_mono_ms() + MACHINE_RESEND_MS;
}

static void awake_waking(struct machine *m)
{
	bool commanded = m->waking && m->settings->wake == MACHINE_EXEC;
	char text[UNITS_TEXT_MAX];
	if (is_same(m))
		go(m, LEDGER_UP, m->now.ours, "it answers again, and has not slept");
	else if (is_sent(m) || commanded)
		go(m, LEDGER_UP, true, "it answered %s after its wake",
		   units_age(clock_mono_ms() - m->entered_ms, text));
	else
		go(m, LEDGER_UP, false, "it answers, and nothing was sent: somebody else woke it");
}

/* up, running, idle */

static void step_up(struct machine *m)
{
	if (m->running > 0)
		go(m, LEDGER_RUNNING, m->now.ours, "a run begins");
	else if (m->wanted == 0)
		go(m, LEDGER_IDLE, m->now.ours, "nothing wants it");
	else
		look_when_due(m);
}

static void step_running(struct machine *m)
{
	if (m->running == 0)
		go(m, LEDGER_IDLE, m->now.ours, "its last run has ended");
	else
		look_when_due(m);
}

/* Whether it is to be asked to sleep; just before that it is looked at: is it still awake by our wake? */
static bool is_to_sleep(struct machine *m)
{
	if (!m->now.ours || !m->settings->sleep)
		return false;
	if (is_due(m, m->sleep_ms))
		return !*m->now.awake || m->seen_ms >= m->sleep_ms;
	if (*m->now.awake && m->look_ms > m->sleep_ms)
		m->look_ms = m->sleep_ms;
	return false;
}

/* While it is asked to sleep nothing else is decided: what it says must not fall upon another state. */
static void step_idle(struct machine *m)
{
	if (m->asking)
		return;
	if (m->asked)
		m->sleep_ms = clock_mono_ms() + m->settings->idle_ms;
	m->asked = false;
	if (m->wanted > 0) {
		go(m, LEDGER_UP, m->now.ours, "it is wanted");
		return;
	}
	if (is_to_sleep(m)) {
		m->asking = true;
		m->acts.sleep(m->acts.arg);
		return;
	}
	look_when_due(m);
}

static void silent_awake(struct machine *m, const struct err *err)
{
	int64_t now_ms = clock_mono_ms();
	bool lost = now_ms - m->heard_ms >= MACHINE_LOST_MS;
	char text[UNITS_TEXT_MAX];
	m->look_ms = now_ms + MACHINE_RESEND_MS;
	if (m->asking || !(lost || m->doubted))
		return;
	go(m, LEDGER_ASLEEP, m->now.ours, "it has not answered for %s%s%.400s",
	   units_duration(lost ? MACHINE_LOST_MS : now_ms - m->heard_ms, text), err && *err->text ? ": " : "",
	   err ? err->text : "");
}

/* Started anew under a run it stays ours: nobody else is known to want it. */
static void awake_awake(struct machine *m)
{
	m->seen_ms = clock_mono_ms();
	m->look_ms = m->seen_ms + MACHINE_LOOK_MS;
	if (m->now.ours && is_changed(m) && !m->ran)
		go(m, m->now.state, false, "somebody else has put it to sleep and woken it, or started it anew");
}

/* sleeping */

static void step_sleeping(struct machine *m)
{
	char text[UNITS_TEXT_MAX];
	if (is_due(m, m->entered_ms + m->settings->ready_timeout_ms))
		go(m, LEDGER_IDLE, m->now.ours, "it agreed to sleep, and still answers after %s",
		   units_duration(m->settings->ready_timeout_ms, text));
	else
		look_when_due(m);
}

static void silent_sleeping(struct machine *m, const struct err *err)
{
	int64_t now_ms = clock_mono_ms();
	(void)err;
	m->look_ms = now_ms + MACHINE_RESEND_MS;
	if (now_ms - m->heard_ms < MACHINE_QUIET_MS)
		return;
	*m->now.awake = '\0'; /* it is over with it */
	go(m, LEDGER_ASLEEP, false, "it sleeps, as it agreed to");
}

static void awake_sleeping(struct machine *m)
{
	m->look_ms = clock_mono_ms() + MACHINE_RESEND_MS;
	if (is_changed(m))
		go(m, LEDGER_IDLE, false, "it slept, and somebody else woke it");
}

/* All states */

static const struct {
	void (*step)(struct machine *m);
	void (*on_silent)(struct machine *m, const struct err *err);
	void (*on_awake)(struct machine *m); /* it answers, or refuses */
} states[] = {
	[LEDGER_ASLEEP] = { step_asleep, silent_asleep, awake_asleep },
	[LEDGER_WAKING] = { step_waking, silent_waking, awake_waking },
	[LEDGER_UP] = { step_up, silent_awake, awake_awake },
	[LEDGER_RUNNING] = { step_running, silent_awake, awake_awake },
	[LEDGER_IDLE] = { step_idle, silent_awake, awake_awake },
	[LEDGER_SLEEPING] = { step_sleeping, silent_sleeping, awake_sleeping },
};

static void note_time(struct machine *m)
{
	count(m);
	m->book = COUNTING;
	note(m);
}

/* Does what is due, and sets the alarm for the rest. What was not written down is tried again by the alarm alone. */
static void step(struct machine *m)
{
	if (m->book != WRITTEN)
		return;
	m->next_ms = ALARM_NEVER;
	if (is_awake(m->now.state) && !m->asking && is_due(m, m->count_ms)) {
		note_time(m);
		return;
	}
	states[m->now.state].step(m);
	if (m->book == WRITTEN && m->next_ms != ALARM_NEVER)
		alarm_set(m->alarms, &m->alarm, m->next_ms);
	else
		alarm_cancel(&m->alarm);
}

static void on_ring(struct alarm *alarm)
{
	struct machine *m = container_of(alarm, struct machine, alarm);
	if (m->book == WRITTEN)
		step(m);
	else if (!m->noting)
		note(m);
}

/* Public functions */

struct machine *machine_new(const struct machine_settings *settings, const char *name, struct alarms *alarms,
                            const struct machine_acts *acts, const struct ledger_machine *was,
                            const struct ledger_day *today)
{
	struct machine *m = calloc(1, sizeof *m);
	if (!m)
		return NULL;
	m->settings = settings;
	m->alarms = alarms;
	m->acts = *acts;
	m->alarm.on_ring = on_ring;
	m->now = was ? *was : (struct ledger_machine){ .state = LEDGER_ASLEEP, .since_ms = clock_wall_ms() };
	snprintf(m->now.name, sizeof m->now.name, "%s", name);
	if (settings->ready != MACHINE_SSH)
		*m->now.awake = '\0'; /* it tells none any more */
	m->try_ms = clock_mono_ms();
	m->sent_ms = LONG_AGO;
	count(m);
	m->add = (struct ledger_day){ 0 };
	m->day = m->counted_day;
	m->wakes = today && today->day == m->day ? today->wakes : 0;
	return m;
}

void machine_use(struct machine *m, const struct machine_settings *settings)
{
	m->settings = settings;
	step(m);
}

void machine_free(struct machine *m)
{
	if (!m)
		return;
	alarm_cancel(&m->alarm);
	free(m);
}

void machine_want(struct machine *m, unsigned wanted, unsigned running)
{
	bool before = is_wanted(m);
	m->wanted = wanted;
	m->running = running;
	if (m->book == STILL)
		begin(m);
	if (!before && is_wanted(m))
		m->look_ms = m->wanted_ms = clock_mono_ms();
	step(m);
}

void machine_wake(struct machine *m)
{
	m->asked = m->now.state != LEDGER_UP && m->now.state != LEDGER_RUNNING;
	m->doubted = is_awake(m->now.state) && m->now.state != LEDGER_SLEEPING;
	m->look_ms = clock_mono_ms();
	step(m);
}

void machine_on_woken(struct machine *m, int status, const struct err *err)
{
	assert(m->waking);
	m->waking = false;
	m->wake_ms = clock_mono_ms() + MACHINE_RESEND_MS;
	if (m->now.state != LEDGER_WAKING)
		return;
	if (status < 0) {
		say(m, err);
	} else {
		m->woken = true;
		m->sent_ms = clock_mono_ms();
		*m->trouble.text = '\0';
	}
	step(m);
}

/* Whether a person must mend something; what was to be mended there is not known to be mended by silence. */
static void judge(struct machine *m, enum machine_answer answer, const struct err *err)
{
	bool refused = m->refuses;
	if (answer == MACHINE_ANSWERS || (answer == MACHINE_SILENT && m->blocked))
		m->refuses = false;
	else if (answer != MACHINE_SILENT)
		m->refuses = true;
	m->blocked = answer == MACHINE_BLOCKED;
	m->met = m->met || answer == MACHINE_ANSWERS;
	m->doubted = m->doubted && answer == MACHINE_SILENT;
	if (m->refuses && answer != MACHINE_SILENT)
		say(m, err);
	else if (refused && !m->refuses)
		*m->trouble.text = '\0';
}

/* A new text that has come without an edge is written down alone. While it is asked to sleep it has to wait. */
static void judge_text(struct machine *m, const char *awake)
{
	m->text = awake && *awake && strlen(awake) < sizeof m->now.awake && !m->asking ? awake : NULL;
	states[m->now.state].on_awake(m);
	if (m->book == WRITTEN && m->text) {
		bool same = is_same(m);
		take_text(m);
		if (!same)
			note_time(m);
	}
	m->text = NULL;
}

void machine_on_look(struct machine *m, enum machine_answer answer, const char *awake, const struct err *err)
{
	assert(m->looking);
	bool refused = m->refuses, met = m->met;
	m->looking = false;
	judge(m, answer, err);
	if (answer == MACHINE_BLOCKED)
		m->look_ms = clock_mono_ms() + MACHINE_LOOK_MS;
	else if (answer != MACHINE_SILENT)
		m->heard_ms = clock_mono_ms();
	/* While something is written down it is too late, or too early: it is looked at again. */
	if (m->book == WRITTEN && answer == MACHINE_SILENT)
		states[m->now.state].on_silent(m, err);
	else if (m->book == WRITTEN && answer != MACHINE_BLOCKED)
		judge_text(m, awake);
	if ((m->refuses != refused || m->met != met) && (m->book == WRITTEN || m->book == COUNTING))
		m->acts.changed(m->acts.arg);
	step(m);
}

void machine_on_sleep(struct machine *m, bool agreed, const struct err *err)
{
	assert(m->asking && m->now.state == LEDGER_IDLE && m->book == WRITTEN);
	m->asking = false;
	if (agreed) {
		go(m, LEDGER_SLEEPING, m->now.ours, "it agreed to sleep");
		return;
	}
	m->sleep_ms = clock_mono_ms() + m->settings->idle_ms;
	say(m, err);
	err_prefix(&m->trouble, "it does not sleep");
	step(m);
}

void machine_on_noted(struct machine *m, int status)
{
	assert(m->noting);
	m->noting = false;
	if (status < 0) {
		alarm_set(m->alarms, &m->alarm, clock_mono_ms() + MACHINE_RESEND_MS);
		return;
	}
	m->add = (struct ledger_day){ 0 };
	if (m->book == CHANGING) {
		enter(m);
		m->acts.changed(m->acts.arg);
	} else {
		m->book = WRITTEN;
	}
	step(m);
}

void machine_answered(struct machine *m)
{
	m->heard_ms = clock_mono_ms();
	if (m->now.state == LEDGER_RUNNING)
		m->look_ms = m->heard_ms + MACHINE_LOOK_MS;
}

void machine_view(const struct machine *m, struct machine_view *ret_view)
{
	int64_t now_ms = clock_mono_ms(), wall_ms = clock_wall_ms(), try_ms = ALARM_NEVER;
	if (m->now.state == LEDGER_ASLEEP && is_wanted(m))
		try_ms = is_spent(m) ? now_ms + to_midnight_ms(wall_ms) : m->try_ms;
	*ret_view = (struct machine_view){
		.state = m->now.state,
		.since_ms = m->now.since_ms,
		.ours = m->now.ours,
		.refuses = m->refuses,
		.next_try_ms = try_ms > now_ms ? try_ms : ALARM_NEVER,
		.failures = m->failures,
		.wakes = units_day(wall_ms) > m->day ? 0 : m->wakes,
		.reason = *m->trouble.text ? m->trouble.text : m->now.reason,
	};
}

bool machine_is_ready(const struct machine *m)
{
	return (m->now.state == LEDGER_UP || m->now.state == LEDGER_RUNNING) &&
	       (m->book == WRITTEN || m->book == COUNTING) && m->met && !m->refuses;
}
