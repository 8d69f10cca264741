/* SPDX-License-Identifier: Apache-2.0 */
/* What the mill asks of the daemon: objects put into stores, a flush, the log. And what it is told: its configuration.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/daemon.h"
#include "agent/deposit.h"
#include "base/clock.h"
#include "base/container.h"
#include "base/log.h"

/* --- Objects for a store --- */

struct mill_put {
	struct agent *agent;
	struct mill *mill;
	void *token;
	struct deposit *deposit; /* NULL: it could not begin, and ends by the alarm */
	struct alarm alarm;
	struct err err; /* why it could not begin */
	bool cancelled;
	struct mill_put *next;
};

static void end_put(struct mill_put *put, int status, const struct err *err)
{
	struct mill_put **at = &put->agent->mill_puts;
	struct mill *mill = put->mill;
	void *token = put->token;

	while (*at != put)
		at = &(*at)->next;
	*at = put->next;
	free(put);
	mill_on_put(mill, token, status, err);
}

static void on_deposited(void *arg, int status, const struct err *err)
{
	end_put(arg, status, err);
}

static void on_put_cancelled(void *arg)
{
	const struct err err = { "another configuration has come" };

	end_put(arg, -ECANCELED, &err);
}

static void on_not_begun(struct alarm *alarm)
{
	struct mill_put *put = container_of(alarm, struct mill_put, alarm);

	end_put(put, -EAGAIN, &put->err);
}

static const struct config_store *find_store(const struct agent *a, const char *name)
{
	for (size_t i = 0; i < a->config->n_stores; i++)
		if (strcmp(a->config->stores[i]->name, name) == 0)
			return a->config->stores[i];
	return NULL;
}

static int on_put(void *arg, const char *store, const char *key, const struct bytes *data, void *token)
{
	struct agent *a = arg;
	struct mill_put *put = calloc(1, sizeof *put);
	const struct deposit_request request = {
		.loop = &a->loop,
		.http = a->http,
		.store = find_store(a, store),
		.key = key,
		.data = data,
		.on_end = on_deposited,
		.arg = put,
	};

	if (!put)
		return -ENOMEM;
	*put = (struct mill_put){ .agent = a, .mill = a->mill, .token = token, .alarm.on_ring = on_not_begun };
	put->next = a->mill_puts;
	a->mill_puts = put;
	err_fail(&put->err, 0, request.store ? "no memory" : "there is no store \"%s\" in the configuration any more",
	         store);
	if (!request.store || deposit_start(&request, &put->deposit) < 0)
		alarm_set(&a->alarms, &put->alarm, clock_mono_ms());
	return 0;
}

/* Their stores may be gone with the configuration. The mill tries again. */
static void cancel_puts(struct agent *a)
{
	struct mill_put *next;

	for (struct mill_put *put = a->mill_puts; put; put = next) {
		next = put->next;
		alarm_cancel(&put->alarm);
		if (put->cancelled)
			continue;
		put->cancelled = true;
		if (put->deposit)
			deposit_cancel(put->deposit, on_put_cancelled, put);
		else
			on_put_cancelled(put);
	}
}

/* --- Before a wake --- */

static void on_flushed(void *arg, int status, uint64_t batches, uint64_t kept_back, bool delivered, const char *text)
{
	struct agent *a = arg;

	(void)status;
	(void)batches;
	(void)kept_back;
	(void)delivered;
	(void)text;
	if (a->mill)
		mill_on_flushed(a->mill);
}

/* What is not flushed for want of memory is not waited for long. */
static void on_flush(void *arg)
{
	struct agent *a = arg;

	courier_flush(a->courier, true, on_flushed, a);
}

/* --- The log --- */

static void on_say(void *arg, const char *event, const char *text, bool bad)
{
	(void)arg;
	if (bad)
		log_warning(event, "%s", text);
	else
		log_notice(event, "%s", text);
}

/* --- Its configuration --- */

static struct mill *make(struct agent *a, const struct mill_machine *machines, const struct mill_job *jobs)
{
	const struct config_mill *mill = a->config->mill;
	const struct mill_env env = {
		.driver = { .loop = &a->loop, .alarms = &a->alarms, .http = a->http },
		.queue = a->queue,
		.worker = a->worker,
		.device = a->config->device,
		.flush = on_flush,
		.put = on_put,
		.say = on_say,
		.arg = a,
	};

	return mill_new(&env, machines, mill->n_machines, jobs, mill->n_jobs);
}

int miller_start(struct agent *a)
{
	const struct config_mill *mill = a->config->mill;
	struct mill_machine *machines = calloc(mill->n_machines + 1, sizeof *machines);
	struct mill_job *jobs = calloc(mill->n_jobs + 1, sizeof *jobs);

	for (size_t i = 0; machines && i < mill->n_machines; i++)
		machines[i] = (struct mill_machine){ .name = mill->machines[i].name,
			                             .settings = &mill->machines[i].settings,
			                             .secure_on = mill->machines[i].secure_on };
	for (size_t i = 0; jobs && i < mill->n_jobs; i++) {
		const struct config_job *job = &mill->jobs[i];

		jobs[i] = (struct mill_job){ .name = job->name,
			                     .machine = job->machine,
			                     .driver = job->driver,
			                     .settings = job->settings,
			                     .store = job->store,
			                     .there = job->there,
			                     .when = &job->when,
			                     .timeout_ms = job->timeout_ms,
			                     .retries = job->retries };
	}
	a->mill = machines && jobs ? make(a, machines, jobs) : NULL;
	free(machines);
	free(jobs);
	return a->mill ? 0 : -ENOMEM;
}

/* The one before, with what it borrows, until it is closed. */
struct mill_closing {
	struct agent *agent;
	struct config_mill *config;
};

static void on_closed(void *arg)
{
	struct mill_closing *closing = arg;

	config_free_mill(closing->config);
	closing->agent->open--;
	free(closing);
}

static bool has_machine(const struct config_mill *mill, const char *name)
{
	for (size_t i = 0; i < mill->n_machines; i++)
		if (strcmp(mill->machines[i].name, name) == 0)
			return true;
	return false;
}

/* Nobody puts it to sleep any more: that is not known before somebody sees its lights. */
static void tell_left(const struct mill *was, const struct config_mill *now)
{
	struct mill_view *view = mill_view(was);

	for (size_t i = 0; view && i < view->n_machines; i++) {
		const struct mill_machine_view *m = &view->machines[i];

		if (!m->known || !m->machine.ours || m->machine.state == LEDGER_ASLEEP ||
		    m->machine.state == LEDGER_SLEEPING || has_machine(now, m->name))
			continue;
		log_warning("machine.left",
		            "machine %s is in the configuration no more, and awake by our wake: it stays awake; put "
		            "it to sleep by hand",
		            m->name);
	}
	mill_view_free(view);
}

void miller_configure(struct agent *a, struct config *before)
{
	struct mill_closing *closing;
	struct mill *was = a->mill;

	cancel_puts(a);
	if (!before->mill)
		return; /* it is the same */
	closing = calloc(1, sizeof *closing);
	if (!closing || miller_start(a) < 0) {
		struct config_mill *now = a->config->mill;

		a->mill = was;
		a->config->mill = before->mill;
		before->mill = now;
		free(closing);
		log_error("mill.refused",
		          "no memory for machines and jobs: they stay as they were; reload to try again");
		return;
	}
	tell_left(was, a->config->mill);
	*closing = (struct mill_closing){ .agent = a, .config = before->mill };
	before->mill = NULL;
	a->open++;
	mill_close(was, on_closed, closing);
}

static void on_stopped(void *arg)
{
	struct agent *a = arg;

	a->open--;
}

void miller_stop(struct agent *a)
{
	struct mill *mill = a->mill;

	if (!mill)
		return;
	a->mill = NULL;
	a->open++;
	mill_close(mill, on_stopped, a);
	cancel_puts(a);
}
