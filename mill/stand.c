/* SPDX-License-Identifier: Apache-2.0 */
/* A machine's hands and eyes: packets or a command to wake it, its service asked, its sleep, its rows in the ledger. */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/child.h"
#include "base/clock.h"
#include "base/container.h"
#include "board/wol.h"
#include "mill/command.h"
#include "mill/mill_private.h"

#define LOOK_TIMEOUT_MS  INT64_C(10000)
#define SLEEP_TIMEOUT_MS INT64_C(20000)
#define OUT_MAX          4096
#define EARLIER_MS       INT64_C(3000) /* a command's end comes before the state gives up, SIGKILL's grace included */

/* --- What ends at once ends a moment later --- */

static void on_late(struct alarm *alarm)
{
	struct late *late = container_of(alarm, struct late, alarm);
	struct stand *s = late->stand;

	switch ((enum act)(late - s->late)) {
	case ACT_WAKE:
		machine_on_woken(s->machine, late->status, late->status < 0 ? &late->err : NULL);
		break;
	case ACT_LOOK:
		machine_on_look(s->machine, MACHINE_SILENT, NULL, &late->err);
		break;
	case ACT_SLEEP:
		machine_on_sleep(s->machine, false, &late->err);
		break;
	default:
		machine_on_noted(s->machine, late->status);
		break;
	}
}

static void end_late(struct stand *s, enum act act, int status)
{
	s->late[act].status = status;
	alarm_set(s->mill->env.driver.alarms, &s->late[act].alarm, clock_mono_ms());
}

static void end_without_memory(struct stand *s, enum act act)
{
	end_late(s, act, err_fail(&s->late[act].err, -ENOMEM, "no memory"));
}

/* --- Its address, for the packets that go there --- */

/* A resolver cannot be stopped, only forgotten. */
struct lookup {
	uv_getaddrinfo_t request;
	struct stand *stand; /* NULL: gone */
};

static void on_found(uv_getaddrinfo_t *request, int status, struct addrinfo *found)
{
	struct lookup *lookup = container_of(request, struct lookup, request);
	struct stand *s = lookup->stand;

	if (s && status == 0)
		s->address = ((const struct sockaddr_in *)(const void *)found->ai_addr)->sin_addr;
	if (s)
		s->lookup = NULL;
	uv_freeaddrinfo(found);
	free(lookup);
}

/* For the next round: a name may take long while nobody answers to it. */
static void look_up(struct stand *s)
{
	const struct addrinfo hints = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM };
	struct lookup *lookup;

	if (s->lookup || inet_pton(AF_INET, s->conf.settings->host, &s->address) == 1)
		return;
	lookup = calloc(1, sizeof *lookup);
	if (!lookup)
		return;
	lookup->stand = s;
	if (uv_getaddrinfo(s->mill->env.driver.loop, &lookup->request, on_found, s->conf.settings->host, NULL, &hints) <
	    0)
		free(lookup);
	else
		s->lookup = lookup;
}

/* --- Waking --- */

static int fill_wol(const struct stand *s, struct wol *wol, uint8_t secure_on[WOL_MAC], struct err *err)
{
	const struct machine_settings *m = s->conf.settings;

	*wol = (struct wol){ .interface = m->interface, .unicast = s->address };
	if (wol_parse_mac(m->mac, wol->mac) < 0)
		return err_fail(err, -EINVAL, "\"%s\" is no MAC address", m->mac);
	if (!s->conf.secure_on)
		return 0;
	if (wol_parse_secure_on(s->conf.secure_on, secure_on) < 0)
		return err_fail(err, -EINVAL, "secure_on is no SecureOn password: six bytes, written as a MAC is");
	wol->secure_on = secure_on;
	return 0;
}

static void send_packets(struct stand *s)
{
	struct err *err = &s->late[ACT_WAKE].err;
	uint8_t secure_on[WOL_MAC];
	struct wol wol;
	int r;

	look_up(s);
	r = fill_wol(s, &wol, secure_on, err);
	if (r == 0)
		r = wol_send(&wol, err);
	end_late(s, ACT_WAKE, r < 0 ? r : 0);
}

static void on_command(void *arg, const struct child_end *end)
{
	struct stand *s = arg;
	bool well = end->error == 0 && end->status == 0;
	struct err err;

	s->child = NULL;
	if (end->error == -ETIMEDOUT)
		err_fail(&err, -EIO, "its wake command did not end by itself, and was killed");
	else if (end->error == -EMSGSIZE)
		err_fail(&err, -EIO, "its wake command was killed: it prints more than %d KB", OUT_MAX / 1024);
	else if (end->error)
		err_fail(&err, -EIO, "its wake command was killed: %s", strerror(-end->error));
	else
		err_fail(&err, -EIO, "its wake command ended with %d%s%s", end->status, *end->text ? ": " : "",
		         end->text);
	machine_on_woken(s->machine, well ? 0 : -EIO, well ? NULL : &err);
}

static void run_command(struct stand *s)
{
	struct err *err = &s->late[ACT_WAKE].err;
	struct child_command child = { .max_out = OUT_MAX,
		                       .timeout_ms = s->conf.settings->ready_timeout_ms - EARLIER_MS,
		                       .on_end = on_command,
		                       .arg = s };
	struct command command;
	int r = command_init(&command, s->conf.settings->command, err);

	if (r == 0) {
		child.argv = command.argv;
		r = child_start(s->mill->env.driver.loop, s->mill->env.driver.alarms, &child, &s->child, err);
		command_done(&command);
	}
	if (r < 0)
		end_late(s, ACT_WAKE, r);
}

static void wake(void *arg)
{
	struct stand *s = arg;

	if (s->conf.settings->wake == MACHINE_WOL)
		send_packets(s);
	else
		run_command(s);
}

/* --- Looking --- */

static void on_health(void *arg, const struct ssh_answer *answer)
{
	struct stand *s = arg;
	const char *awake = answer->json ? json_string_value(json_object_get(answer->json, "awake")) : NULL;

	s->looking = NULL;
	switch (answer->end) {
	case SSH_ANSWERED:
	case SSH_LATER:
		machine_on_look(s->machine, MACHINE_ANSWERS, awake, NULL);
		break;
	case SSH_REFUSED:
		machine_on_look(s->machine, MACHINE_REFUSES, NULL, &answer->err);
		break;
	case SSH_BLOCKED:
		machine_on_look(s->machine, MACHINE_BLOCKED, NULL, &answer->err);
		break;
	case SSH_AWAY:
		machine_on_look(s->machine, MACHINE_SILENT, NULL, &answer->err);
		break;
	}
}

static int ask_worker(struct stand *s, const char *verb, int64_t timeout_ms,
                      void (*on_answer)(void *arg, const struct ssh_answer *answer), struct ssh_call **ret_call)
{
	const struct ssh_request request = {
		.machine = s->conf.settings,
		.verb = verb,
		.timeout_ms = timeout_ms,
		.on_answer = on_answer,
		.arg = s,
	};

	return ssh_start(s->mill->env.driver.loop, s->mill->env.driver.alarms, &request, ret_call);
}

static void on_knocked(void *arg, int status)
{
	struct stand *s = arg;
	struct err err;

	s->knock = NULL;
	err_fail(&err, status, "port %lld: %s", (long long)s->conf.settings->ready_port, strerror(-status));
	machine_on_look(s->machine, status == 0 ? MACHINE_ANSWERS : MACHINE_SILENT, NULL, status == 0 ? NULL : &err);
}

static ssize_t drop_body(void *arg, long status, const void *data, size_t len)
{
	(void)arg;
	(void)status;
	(void)data;
	return (ssize_t)len;
}

static void on_page(void *arg, const struct http_answer *answer)
{
	struct stand *s = arg;
	struct err err;
	bool well = answer->error == 0 && answer->status >= 200 && answer->status < 300;

	s->transfer = NULL;
	if (answer->error < 0)
		err_fail(&err, answer->error, "%s", answer->text);
	else
		err_fail(&err, -EPROTO, "ready_url: HTTP %ld", answer->status);
	machine_on_look(s->machine, well ? MACHINE_ANSWERS : MACHINE_SILENT, NULL, well ? NULL : &err);
}

static int get_page(struct stand *s)
{
	const struct http_request request = {
		.method = "GET",
		.url = s->conf.settings->ready_url,
		.connect_timeout_ms = LOOK_TIMEOUT_MS,
		.timeout_ms = LOOK_TIMEOUT_MS,
		.max_body = 1 << 20,
		.on_body = drop_body,
		.on_done = on_page,
		.arg = s,
	};

	return http_start(s->mill->env.driver.http, &request, &s->transfer, &s->late[ACT_LOOK].err);
}

static void look(void *arg)
{
	struct stand *s = arg;
	const struct machine_settings *m = s->conf.settings;
	int r;

	err_fail(&s->late[ACT_LOOK].err, 0, "no memory");
	switch (m->ready) {
	case MACHINE_SSH:
		r = ask_worker(s, "health", LOOK_TIMEOUT_MS, on_health, &s->looking);
		break;
	case MACHINE_TCP:
		r = knock_start(s->mill->env.driver.loop, s->mill->env.driver.alarms, m->host, (uint16_t)m->ready_port,
		                LOOK_TIMEOUT_MS, on_knocked, s, &s->knock);
		break;
	default:
		r = get_page(s);
		break;
	}
	if (r < 0)
		end_late(s, ACT_LOOK, r);
}

/* --- Sleeping --- */

static void on_sleep(void *arg, const struct ssh_answer *answer)
{
	struct stand *s = arg;
	struct err err = answer->err;
	const char *because = answer->json ? json_string_value(json_object_get(answer->json, "because")) : NULL;

	s->sleeping = NULL;
	if (because)
		err_fail(&err, 0, "%s", because);
	machine_on_sleep(s->machine, answer->json && json_is_true(json_object_get(answer->json, "asleep")), &err);
}

static void put_to_sleep(void *arg)
{
	struct stand *s = arg;

	if (ask_worker(s, "sleep", SLEEP_TIMEOUT_MS, on_sleep, &s->sleeping) < 0)
		end_without_memory(s, ACT_SLEEP);
}

/* --- What is written down --- */

struct edge {
	struct errand errand;
	struct queue *queue;
	struct ledger_machine state;
	struct ledger_day add;
	bool any; /* `add` is to be added */
};

static int note_work(struct errand *errand)
{
	struct edge *e = container_of(errand, struct edge, errand);

	return ledger_put_machine(e->queue, &e->state, e->any ? &e->add : NULL, &errand->err);
}

static struct ledger_day *find_day(struct stand *s, int64_t day)
{
	for (size_t i = 0; i < s->n_days; i++) {
		if (s->days[i].day == day)
			return &s->days[i];
	}
	return NULL;
}

static struct ledger_day *make_day(struct stand *s, int64_t day)
{
	struct ledger_day *found = find_day(s, day);

	if (found)
		return found;
	if (s->n_days == LEDGER_DAYS)
		s->n_days--;
	memmove(s->days + 1, s->days, s->n_days * sizeof *s->days);
	s->n_days++;
	s->days[0] = (struct ledger_day){ .day = day };
	return &s->days[0];
}

static void on_noted(struct errand *errand)
{
	struct edge *e = container_of(errand, struct edge, errand);
	struct stand *s = errand->owner;

	s->note = NULL;
	if (errand->status == 0 && e->any) {
		struct ledger_day *day = make_day(s, e->add.day);

		day->wakes += e->add.wakes;
		day->awake_ms += e->add.awake_ms;
	}
	machine_on_noted(s->machine, errand->status);
}

static void note(void *arg, const struct ledger_machine *state, const struct ledger_day *add)
{
	struct stand *s = arg;
	struct edge *e = calloc(1, sizeof *e);

	if (!e) {
		end_without_memory(s, ACT_NOTE);
		return;
	}
	e->errand = (struct errand){ .work = note_work, .done = on_noted, .owner = s };
	e->queue = s->mill->env.queue;
	e->state = *state;
	e->any = add != NULL;
	if (add)
		e->add = *add;
	s->note = &e->errand;
	errand_send(&e->errand, s->mill);
}

static void changed(void *arg)
{
	struct stand *s = arg;
	struct machine_view view;

	machine_view(s->machine, &view);
	mill_say(s->mill, "machine.changed", view.refuses, "machine %s: %s: %s", s->conf.name,
	         machine_state_names[view.state], view.reason);
	mill_go(s->mill, s);
}

/* --- Life --- */

struct stand *stand_new(struct mill *mill, const struct mill_machine *conf)
{
	struct stand *s = calloc(1, sizeof *s);

	if (!s)
		return NULL;
	s->mill = mill;
	s->conf = *conf;
	for (int act = 0; act < ACTS; act++) {
		s->late[act].alarm.on_ring = on_late;
		s->late[act].stand = s;
	}
	return s;
}

int stand_load(struct stand *s, const struct ledger_machine *was, const struct ledger_day *days, size_t n)
{
	const struct machine_acts acts = {
		.wake = wake, .look = look, .sleep = put_to_sleep, .note = note, .changed = changed, .arg = s
	};

	s->n_days = n;
	memcpy(s->days, days, n * sizeof *days);
	s->machine = machine_new(s->conf.settings, s->conf.name, s->mill->env.driver.alarms, &acts, was,
	                         find_day(s, units_day(clock_wall_ms())));
	return s->machine ? 0 : -ENOMEM;
}

bool stand_is_idle(const struct stand *s)
{
	return !s->note && !s->looking && !s->sleeping && !s->child && !s->transfer && !s->knock && !s->lookup;
}

void stand_stop(struct stand *s)
{
	for (int act = 0; act < ACTS; act++)
		alarm_cancel(&s->late[act].alarm);
	errand_drop(s->note);
	ssh_cancel(s->looking);
	ssh_cancel(s->sleeping);
	if (s->child)
		child_cancel(s->child, NULL, NULL);
	if (s->transfer)
		http_cancel(s->transfer);
	knock_cancel(s->knock);
	if (s->lookup)
		s->lookup->stand = NULL;
	machine_free(s->machine);
	s->machine = NULL;
}

void stand_free(struct stand *s)
{
	free(s);
}
