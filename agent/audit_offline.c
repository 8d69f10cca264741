/* SPDX-License-Identifier: Apache-2.0 */
/* An audit with a loop of its own, on a buffer that no daemon has. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "agent/audit.h"
#include "agent/opening.h"
#include "cli/cli.h"

struct offline {
	uv_loop_t loop;
	struct audit_env env;
	bool done;
	unsigned open; /* parts that are not closed yet */
	json_t *report;
	struct err err;
};

static void on_audited(void *arg, json_t *report, const struct err *err)
{
	struct offline *o = arg;

	o->done = true;
	o->report = report;
	o->err = *err;
	uv_stop(&o->loop); /* perhaps from a timer, before the loop sleeps */
}

static void on_closed(void *arg)
{
	struct offline *o = arg;

	o->open--;
}

static void run_audit(struct offline *o, int64_t since_day, bool repair)
{
	struct audit *audit;
	int r = http_new(&o->loop, "millrace/" MILLRACE_VERSION, &o->env.http);

	if (r == 0)
		r = worker_start(&o->loop, "buffer", &o->env.queue_worker);
	if (r == 0)
		r = audit_start(&o->env, since_day, repair, on_audited, o, &audit);
	if (r < 0)
		err_fail(&o->err, r, "%s", strerror(-r));
	while (r == 0 && !o->done)
		uv_run(&o->loop, UV_RUN_ONCE);
	if (o->env.http) {
		o->open++;
		http_close(o->env.http, on_closed, o);
	}
	if (o->env.queue_worker) {
		o->open++;
		worker_close(o->env.queue_worker, on_closed, o);
	}
	while (o->open > 0)
		uv_run(&o->loop, UV_RUN_ONCE);
}

int audit_offline(const struct config *config, int64_t since_day, bool repair, bool json)
{
	struct offline o = { .env = { .loop = &o.loop, .config = config } };
	int r = opening_alone(config, "audit", &o.env.queue, &o.err), status = CLI_ATTENTION;

	signal(SIGPIPE, SIG_IGN);
	if (r < 0) {
		cli_complain(o.err.text);
		return opening_status(r);
	}
	r = uv_loop_init(&o.loop);
	if (r == 0) {
		run_audit(&o, since_day, repair);
		uv_loop_close(&o.loop);
	} else {
		err_fail(&o.err, r, "%s", strerror(-r));
	}
	if (o.report)
		status = cli_audit_print(o.report, json);
	else
		fprintf(stderr, "millrace: %s\n", o.err.text);
	json_decref(o.report);
	queue_close(o.env.queue);
	return status;
}
