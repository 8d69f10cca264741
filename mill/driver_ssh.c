/* SPDX-License-Identifier: Apache-2.0 */
/* A job of the worker behind ssh: worker/PROTOCOL.md. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/container.h"
#include "base/units.h"
#include "mill/driver.h"
#include "mill/ssh.h"

#define ASK_MS   INT64_C(30000)
#define LOG_MS   INT64_C(60000)
#define START_MS INT64_C(300000) /* it brings the manifest */
#define VERB_MAX 192

struct ssh_settings {
	char *run; /* the job's name there */
};

static int check_run(const char *value, struct err *err)
{
	if (units_is_name(value))
		return 0;
	return err_fail(err, -EINVAL,
	                "\"%.80s\" is no job's name; it has small letters, digits, _ and -, a letter first", value);
}

static const struct option options[] = {
	{ .name = "run", .type = OPTION_TEXT, .offset = offsetof(struct ssh_settings, run), .check = check_run },
	OPTION_END,
};

struct ssh_driver {
	struct driver driver;
	struct ssh_call *call; /* NULL: none is under way */
};

static struct ssh_driver *self_of(struct driver *driver)
{
	return container_of(driver, struct ssh_driver, driver);
}

/* Where it does not answer as it should: a run tells whose trouble that is. */
static void tell_failure(struct ssh_driver *d, const struct ssh_answer *answer)
{
	bool refused = answer->end == SSH_REFUSED || answer->end == SSH_BLOCKED;
	struct err err = answer->err;

	err_prefix(&err, "%s", d->driver.run.machine_name);
	driver_tell_state(&d->driver, refused ? DRIVER_REFUSED : DRIVER_AWAY, -1, &err);
}

static const struct {
	const char *word;
	enum driver_state state;
	const char *why;
} states[] = {
	{ "running", DRIVER_RUNNING, NULL },
	{ "done", DRIVER_DONE, NULL },
	{ "failed", DRIVER_FAILED, "the job failed" },
	{ "cancelled", DRIVER_FAILED, "it was cancelled there" },
	{ "lost", DRIVER_FAILED, "it vanished without an end: the machine was started again, or the job killed" },
	{ "unknown", DRIVER_UNKNOWN, "no such run is known there" },
};

/* Of start, status and cancel. */
static void on_status(void *arg, const struct ssh_answer *answer)
{
	struct ssh_driver *d = arg;
	struct err err = { "" };
	d->call = NULL;
	if (answer->end != SSH_ANSWERED) {
		tell_failure(d, answer);
		return;
	}
	const char *word = json_string_value(json_object_get(answer->json, "state"));
	const char *run = json_string_value(json_object_get(answer->json, "run"));
	const json_t *number = json_object_get(answer->json, "exit");
	int status = json_is_integer(number) ? (int)json_integer_value(number) : -1;
	size_t i = 0, n = sizeof states / sizeof *states;
	if (!run || strcmp(run, d->driver.run.id) != 0) {
		err_fail(&err, 0, "%s: its millrace-worker answers of another run", d->driver.run.machine_name);
		driver_tell_state(&d->driver, DRIVER_REFUSED, -1, &err);
		return;
	}
	while (i < n && strcmp(states[i].word, word ? word : "") != 0)
		i++;
	if (i == n) {
		err_fail(&err, 0, "%s: its millrace-worker tells a state that is not known here, \"%.40s\"",
		         d->driver.run.machine_name, word ? word : "");
		driver_tell_state(&d->driver, DRIVER_REFUSED, -1, &err);
		return;
	}
	if (states[i].why && status > 0)
		err_fail(&err, 0, "%s, exit %d", states[i].why, status);
	else if (states[i].why)
		err_fail(&err, 0, "%s", states[i].why);
	driver_tell_state(&d->driver, states[i].state, status, states[i].why ? &err : NULL);
}

static void on_log(void *arg, const struct ssh_answer *answer)
{
	struct ssh_driver *d = arg;
	d->call = NULL;
	if (answer->end != SSH_ANSWERED) {
		tell_failure(d, answer);
		return;
	}
	driver_tell(&d->driver, &(struct driver_answer){ .state = DRIVER_RUNNING, .exit = -1, .log = answer->out });
}

static void call(struct ssh_driver *d, const char *verb, int64_t timeout_ms, bool log)
{
	const struct driver_run *run = &d->driver.run;
	bool start = timeout_ms == START_MS;
	const struct ssh_request request = {
		.machine = run->machine,
		.verb = verb,
		.log = log,
		.in = start ? run->manifest : NULL,
		.in_len = start ? run->manifest_len : 0,
		.timeout_ms = timeout_ms,
		.on_answer = log ? on_log : on_status,
		.arg = d,
	};
	struct err err = { "out of memory" };
	assert(!d->call);
	if (ssh_start(d->driver.env.loop, d->driver.env.alarms, &request, &d->call) < 0)
		driver_tell_soon(&d->driver, DRIVER_AWAY, -1, &err);
}

static void start(struct driver *driver)
{
	const struct ssh_settings *settings = driver->run.settings;
	char verb[VERB_MAX];
	snprintf(verb, sizeof verb, "start %s %s", driver->run.id, settings->run ? settings->run : driver->run.job);
	call(self_of(driver), verb, START_MS, false);
}

static void ask(struct driver *driver)
{
	char verb[VERB_MAX];
	snprintf(verb, sizeof verb, "status %s", driver->run.id);
	call(self_of(driver), verb, ASK_MS, false);
}

static void get_log(struct driver *driver, uint64_t offset)
{
	char verb[VERB_MAX];
	snprintf(verb, sizeof verb, "log %s %" PRIu64, driver->run.id, offset);
	call(self_of(driver), verb, LOG_MS, true);
}

static void cancel(struct driver *driver)
{
	char verb[VERB_MAX];
	snprintf(verb, sizeof verb, "cancel %s", driver->run.id);
	call(self_of(driver), verb, ASK_MS, false);
}

static void free_driver(struct driver *driver)
{
	struct ssh_driver *d = self_of(driver);
	ssh_cancel(d->call);
	driver_done(driver);
	free(d);
}

static int new (const struct driver_env *env, const struct driver_run *run, struct driver **ret_driver)
{
	struct ssh_driver *d = calloc(1, sizeof *d);
	assert(run->machine);
	if (!d)
		return -ENOMEM;
	driver_init(&d->driver, &driver_ssh, env, run);
	*ret_driver = &d->driver;
	return 0;
}

const struct driver_ops driver_ssh = {
	.kind = "ssh",
	.of_machine = true,
	.options = options,
	.settings_size = sizeof(struct ssh_settings),
	.new = new,
	.start = start,
	.ask = ask,
	.log = get_log,
	.cancel = cancel,
	.free = free_driver,
};
