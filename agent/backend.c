/* SPDX-License-Identifier: Apache-2.0 */
/* What the API asks, answered from the daemon's parts: at once, after a poll, after a flush, or by the buffer's worker.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/daemon.h"
#include "base/container.h"

#define READS_MAX    8   /* API reads that may queue behind the writer */
#define REJECTED_MAX 256 /* in one answer */
#define BATCHES_MAX  500 /* in one answer */

struct poll_wait {
	struct api_call *call;
	char source[UNITS_NAME_MAX];
	struct poll_wait *next;
};

static void answer_unknown(const struct agent *a, const char *source, struct api_call *call)
{
	size_t n = a->config->n_sources;
	const char **names = calloc(n + 1, sizeof *names);
	const char *nearest = NULL;

	for (size_t i = 0; names && i < n; i++)
		names[i] = a->config->sources[i]->name;
	if (names)
		nearest = units_nearest(source, names, n);
	if (nearest && strcmp(nearest, source) == 0)
		api_answer_problem(
		        call, 503,
		        "source \"%s\" is changing: its last fetch by the settings before has not ended; try "
		        "again soon",
		        source);
	else if (nearest)
		api_answer_problem(call, 404, "there is no source \"%s\"; did you mean \"%s\"?", source, nearest);
	else
		api_answer_problem(call, 404, "there is no source \"%s\"; `millrace show sources` lists them", source);
	free(names);
}

static int backend_status(void *agent, struct status_view *ret_view)
{
	return status_fill(agent, ret_view);
}

static json_t *backend_config(void *agent)
{
	const struct agent *a = agent;

	return config_json(a->config);
}

static void answer_report(struct api_call *call, const char *source, const struct intake_report *report)
{
	json_t *body = json_pack("{s:s, s:s, s:I, s:I, s:o}", "source", source, "outcome",
	                         sink_outcome_names[report->outcome], "records", (json_int_t)report->records,
	                         "first_seq", (json_int_t)report->first_seq, "text", view_text(report->text));

	if (body)
		api_answer(call, body);
	else
		api_answer_problem(call, 500, "the answer could not be written");
}

void backend_on_report(void *agent, const char *source, const struct intake_report *report)
{
	struct agent *a = agent;

	for (struct poll_wait **at = &a->waits; *at;) {
		struct poll_wait *wait = *at;

		if (strcmp(wait->source, source) != 0) {
			at = &wait->next;
			continue;
		}
		*at = wait->next;
		answer_report(wait->call, source, report);
		free(wait);
	}
}

void backend_stop(struct agent *a)
{
	while (a->waits) {
		struct poll_wait *wait = a->waits;

		a->waits = wait->next;
		api_answer_problem(wait->call, 503, "the daemon ends");
		free(wait);
	}
	if (a->audit) {
		a->open++;
		a->audit_ending = true;
		audit_cancel(a->audit);
	}
	if (a->examine) {
		a->open++;
		a->examine_ending = true;
		examine_cancel(a->examine);
	}
}

static void backend_poll(void *agent, const char *name, struct api_call *call)
{
	struct agent *a = agent;
	struct agent_source *source = agent_find_source(a, name);
	struct poll_wait *wait;

	if (strcmp(name, UNITS_POLLS) == 0) {
		api_answer_problem(call, 409,
		                   "source \"%s\" is built in and cannot be polled: each full hour it tells what the "
		                   "polls of the others came to",
		                   name);
		return;
	}
	if (!source) {
		answer_unknown(a, name, call);
		return;
	}
	if (!source->collector) {
		api_answer_problem(call, 409, "source \"%s\" is disabled; set enabled = true and reload", name);
		return;
	}
	if (intake_holds(a->intake, name)) {
		api_answer_problem(call, 503, "its last answer waits in memory, the buffer does not take it: %s",
		                   intake_error(a->intake));
		return;
	}
	if (a->full) {
		api_answer_problem(call, 503,
		                   "the buffer is full; polls wait until there is room: see `millrace status`");
		return;
	}
	wait = calloc(1, sizeof *wait);
	if (!wait) {
		api_answer_problem(call, 503, "no memory");
		return;
	}
	wait->call = call;
	snprintf(wait->source, sizeof wait->source, "%s", name);
	wait->next = a->waits;
	a->waits = wait;
	source->collector->ops->poll(source->collector);
}

static void on_flushed(void *arg, int status, uint64_t batches, uint64_t kept_back, bool delivered, const char *text)
{
	struct api_call *call = arg;
	json_t *body;

	if (status < 0) {
		api_answer_problem(call, 503, "sealed %llu batch%s; %s: %s", (unsigned long long)batches,
		                   batches == 1 ? "" : "es",
		                   status == -EHOSTDOWN ? "not delivered" : "not all could be sealed", text);
		return;
	}
	body = json_pack("{s:I, s:I, s:b}", "batches", (json_int_t)batches, "kept_back", (json_int_t)kept_back,
	                 "delivered", delivered);
	if (body)
		api_answer(call, body);
	else
		api_answer_problem(call, 500, "the answer could not be written");
}

static void backend_flush(void *agent, bool wait, struct api_call *call)
{
	struct agent *a = agent;

	if (courier_flush(a->courier, wait, on_flushed, call) < 0)
		api_answer_problem(call, 503, "no memory");
}

/* conflicts NULL: nobody looked; else taken. */
static void retry(struct agent *a, int64_t batch, json_t *conflicts, struct api_call *call)
{
	size_t stores = courier_retry(a->courier, batch);
	json_t *body;

	if (stores == 0 && json_array_size(conflicts) == 0) {
		json_decref(conflicts);
		api_answer_problem(call, 404,
		                   "batch %lld is parked nowhere and waits for no store that is away: it is brought "
		                   "without that",
		                   (long long)batch);
		return;
	}
	body = json_pack("{s:I, s:I, s:o}", "batch", (json_int_t)batch, "stores", (json_int_t)stores, "conflicts",
	                 conflicts ? conflicts : json_array());
	if (body)
		api_answer(call, body);
	else
		api_answer_problem(call, 500, "the answer could not be written");
}

static void on_examined(void *agent, json_t *conflicts)
{
	struct agent *a = agent;
	struct api_call *call = a->examine_call;

	a->examine = NULL;
	a->examine_call = NULL;
	if (a->examine_ending) {
		json_decref(conflicts);
		api_answer_problem(call, 503, "the daemon ends");
		a->open--;
		return;
	}
	retry(a, a->examine_batch, conflicts, call);
	reload_go_on(a);
}

/* Where it is parked, what stands in its place is looked at before it is tried again. */
static void look_and_retry(struct agent *a, int64_t batch, struct api_call *call)
{
	const struct examine_env env = {
		.loop = &a->loop, .http = a->http, .queue = a->queue, .queue_worker = a->worker
	};
	const struct config_store *stores[EXAMINE_STORES];
	size_t n = courier_parked(a->courier, batch, stores, EXAMINE_STORES);

	if (n == 0 || a->reload.now)
		retry(a, batch, NULL, call);
	else if (a->examine)
		api_answer_problem(call, 409, "another batch is being looked at; ask again when that is done");
	else if (a->stopping || examine_start(&env, batch, stores, n, on_examined, a, &a->examine) < 0)
		api_answer_problem(call, 503, a->stopping ? "the daemon ends" : "no memory");
	else {
		a->examine_call = call;
		a->examine_batch = batch;
	}
}

static void on_audited(void *agent, json_t *report, const struct err *err)
{
	struct agent *a = agent;
	struct api_call *call = a->audit_call;

	a->audit = NULL;
	a->audit_call = NULL;
	if (a->audit_ending)
		a->open--;
	else
		courier_carry(a->courier, NULL); /* perhaps something is to be sent again */
	if (report)
		api_answer(call, report);
	else
		api_answer_problem(call, 503, "%s", err->text);
	reload_go_on(a);
}

static void backend_audit(void *agent, int64_t since_day, bool repair, struct api_call *call)
{
	struct agent *a = agent;
	const struct audit_env env = {
		.loop = &a->loop, .config = a->config, .queue = a->queue, .queue_worker = a->worker, .http = a->http
	};

	if (a->reload.now)
		api_answer_problem(call, 409, "the configuration is being reloaded; ask again");
	else if (a->audit)
		api_answer_problem(call, 409, "an audit is under way already; ask again when it is done");
	else if (a->stopping)
		api_answer_problem(call, 503, "the daemon ends");
	else if (audit_start(&env, since_day, repair, on_audited, a, &a->audit) < 0)
		api_answer_problem(call, 503, "no memory");
	else
		a->audit_call = call;
}

/* A read that queues behind the writer. */
struct read {
	struct job job;
	struct agent *agent;
	struct api_call *call;
	int (*work)(struct read *read);
	int64_t batch; /* that is to be tried again, or that the list goes on behind; else 0 */
	char run[LEDGER_RUN];
	int status;
	struct err err;
	json_t *body;
};

static int read_batches(struct read *read)
{
	struct batch *batches = calloc(BATCHES_MAX, sizeof *batches);
	int n = batches ? queue_batches(read->agent->queue, batches, BATCHES_MAX, &read->err)
	                : err_fail(&read->err, -ENOMEM, "no memory");

	if (n >= 0)
		read->body = view_batches(batches, (size_t)n);
	free(batches);
	return n < 0 ? n : 0;
}

static int read_waiting(struct read *read)
{
	struct batch *batches = calloc(BATCHES_MAX, sizeof *batches);
	int n = batches ? queue_batches_waiting(read->agent->queue, read->batch, batches, BATCHES_MAX, &read->err)
	                : err_fail(&read->err, -ENOMEM, "no memory");

	if (n >= 0)
		read->body = view_batches(batches, (size_t)n);
	free(batches);
	return n < 0 ? n : 0;
}

static json_t *show_rejected(const struct queue_rejected *rejected)
{
	return view_rejected(&(struct rejected_view){ .source = rejected->source,
	                                              .cause = rejected->cause,
	                                              .text = rejected->text,
	                                              .at_ms = rejected->at_ms,
	                                              .bytes = rejected->bytes,
	                                              .start = rejected->start,
	                                              .offset = rejected->offset,
	                                              .data = rejected->data,
	                                              .len = rejected->len });
}

static int read_rejected(struct read *read)
{
	struct queue_rejected rejected = { .source = "" };
	json_t *array = json_array();
	int r = 1;

	for (int i = 0; array && i < REJECTED_MAX && r == 1; i++) {
		r = queue_next_rejected(read->agent->queue, rejected.source, &rejected, &read->err);
		if (r == 1)
			json_array_append_new(array, show_rejected(&rejected));
	}
	read->body = json_pack("{s:o}", "rejected", array);
	return r < 0 ? r : 0;
}

static int read_runs(struct read *read)
{
	struct ledger_run *runs = calloc(RUNS_SHOWN, sizeof *runs);
	int n = runs ? ledger_runs(read->agent->queue, NULL, runs, RUNS_SHOWN, &read->err)
	             : err_fail(&read->err, -ENOMEM, "no memory");

	if (n >= 0)
		read->body = view_runs(runs, (size_t)n);
	free(runs);
	return n < 0 ? n : 0;
}

static int read_run(struct read *read)
{
	struct ledger_run run;
	int r = ledger_find_run(read->agent->queue, read->run, &run, &read->err);

	if (r == 0)
		read->body = view_run(&run);
	if (r == -ENOENT)
		err_fail(&read->err, r, "there is no run \"%s\"; `millrace show runs` lists the newest", read->run);
	return r;
}

static void read_work(struct job *job)
{
	struct read *read = container_of(job, struct read, job);

	read->status = read->work(read);
}

/* A store that is away would be tried again for a batch that is not there, too. */
static int read_waits(struct read *read)
{
	struct batch batch;

	if (queue_waits(read->agent->queue, read->batch))
		return 0;
	if (queue_find_batch(read->agent->queue, read->batch, &batch, &read->err) == 0)
		return err_fail(&read->err, -ENOENT,
		                "batch %lld is delivered everywhere; `millrace audit` looks whether it is still there",
		                (long long)read->batch);
	return err_fail(&read->err, -ENOENT,
	                "there is no batch %lld that waits for a store; `millrace show batches` lists those there are",
	                (long long)read->batch);
}

static void on_read_done(struct job *job)
{
	struct read *read = container_of(job, struct read, job);

	read->agent->reads--;
	if (read->status == 0 && read->work == read_waits)
		look_and_retry(read->agent, read->batch, read->call);
	else if (read->status == -ENOENT && (read->work == read_waits || read->work == read_run))
		api_answer_problem(read->call, 404, "%s", read->err.text);
	else if (read->status < 0)
		api_answer_problem(read->call, 503, "%s", read->err.text);
	else if (!read->body)
		api_answer_problem(read->call, 500, "the answer could not be written");
	else
		api_answer(read->call, json_incref(read->body));
	json_decref(read->body);
	free(read);
}

/* run: NULL: of none. */
static void start_read(struct agent *a, int (*work)(struct read *read), int64_t batch, const char *run,
                       struct api_call *call)
{
	struct read *read = a->reads < READS_MAX ? calloc(1, sizeof *read) : NULL;

	if (!read) {
		api_answer_problem(call, 503, "too many reads at once; try again");
		return;
	}
	read->job = (struct job){ .work = read_work, .done = on_read_done };
	read->agent = a;
	read->call = call;
	read->work = work;
	read->batch = batch;
	snprintf(read->run, sizeof read->run, "%s", run ? run : "");
	read->status = -ECANCELED;
	snprintf(read->err.text, sizeof read->err.text, "the daemon ends");
	a->reads++;
	worker_submit(a->worker, &read->job);
}

static void backend_batches(void *agent, bool waiting, int64_t after, struct api_call *call)
{
	start_read(agent, waiting ? read_waiting : read_batches, after, NULL, call);
}

static void backend_object(void *agent, int64_t batch, struct api_call *call)
{
	struct agent *a = agent;

	if (a->reads < READS_MAX)
		object_out(a, batch, call);
	else
		api_answer_problem(call, 503, "too many reads at once; try again");
}

static void backend_import(void *agent, const struct api_object *object, struct api_call *call)
{
	object_in(agent, object, call);
}

static void backend_rejected(void *agent, struct api_call *call)
{
	start_read(agent, read_rejected, 0, NULL, call);
}

static void backend_retry(void *agent, int64_t batch, struct api_call *call)
{
	start_read(agent, read_waits, batch, NULL, call);
}

static bool is_known(const struct agent *a, const char *source)
{
	const struct queue_view *view = courier_view(a->courier);

	if (agent_find_source(a, source) || strcmp(source, UNITS_POLLS) == 0)
		return true;
	for (size_t i = 0; i < view->n_sources; i++)
		if (strcmp(view->sources[i].source, source) == 0)
			return true;
	return false;
}

static void backend_records(void *agent, const char *source, size_t last, bool follow, struct api_call *call)
{
	struct agent *a = agent;

	if (!is_known(a, source))
		answer_unknown(a, source, call);
	else
		records_answer(a, source, last, follow, call);
}

static struct mill_view *backend_mill(void *agent)
{
	return mill_view(((struct agent *)agent)->mill);
}

static void backend_runs(void *agent, struct api_call *call)
{
	start_read(agent, read_runs, 0, NULL, call);
}

static void backend_run(void *agent, const char *run, struct api_call *call)
{
	start_read(agent, read_run, 0, run, call);
}

static int backend_wake(void *agent, const char *machine, struct err *err)
{
	return mill_wake(((struct agent *)agent)->mill, machine, err);
}

static int backend_start(void *agent, const char *job, struct err *err)
{
	return mill_start(((struct agent *)agent)->mill, job, err);
}

static int backend_cancel(void *agent, const char *run, struct err *err)
{
	return mill_cancel(((struct agent *)agent)->mill, run, err);
}

static int backend_retry_run(void *agent, const char *run, struct err *err)
{
	return mill_retry(((struct agent *)agent)->mill, run, err);
}

const struct api_backend agent_backend = {
	.status = backend_status,
	.config = backend_config,
	.batches = backend_batches,
	.object = backend_object,
	.import = backend_import,
	.records = backend_records,
	.rejected = backend_rejected,
	.poll = backend_poll,
	.flush = backend_flush,
	.audit = backend_audit,
	.retry = backend_retry,
	.mill = backend_mill,
	.runs = backend_runs,
	.run = backend_run,
	.wake = backend_wake,
	.start = backend_start,
	.cancel = backend_cancel,
	.retry_run = backend_retry_run,
};
