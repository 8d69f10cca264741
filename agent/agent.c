/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Start order is the architecture: the buffer first, then what takes from it (the courier), then what gives to it (the
 * collectors), last the API. It ends the other way round.
 */
#include "agent/agent.h"

#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/daemon.h"
#include "agent/opening.h"
#include "base/clock.h"
#include "base/container.h"
#include "base/log.h"
#include "cli/cli.h"

#define DEADLINE_MS 900  /* of a stop: interface.md promises a second */
#define LOOK_MS     1000 /* while the buffer is busy: whether it hangs, or is being salvaged */
#define FULL        "what is left of max_size is kept for sealing and delivery, polls wait: "

static bool all_idle(const struct agent *a)
{
	return worker_idle(a->worker) && courier_idle(a->courier) && http_active(a->http) == 0 &&
	       (!a->mill || mill_idle(a->mill));
}

static void on_tick(uv_timer_t *timer)
{
	(void)timer; /* the loop has woken; on_prepare does the rest */
}

/* Rings what is due, then has the loop sleep until the next alarm, or a driven clock jump there. */
static void on_prepare(uv_prepare_t *prepare)
{
	struct agent *a = container_of(prepare, struct agent, prepare);
	int64_t next, sleep_ms;

	alarms_ring(&a->alarms, clock_mono_ms());
	health_note(a);
	next = alarms_next(&a->alarms);
	uv_update_time(&a->loop);
	sleep_ms = all_idle(a) && clock_skip(next) ? 0 : clock_sleep_ms(next);
	if (!worker_idle(a->worker) && sleep_ms > LOOK_MS)
		sleep_ms = LOOK_MS;
	uv_timer_start(&a->tick, on_tick, (uint64_t)sleep_ms, 0);
}

static void on_committed(void *arg, struct queue_view *fresh)
{
	struct agent *a = arg;

	courier_nudge(a->courier, fresh);
}

/* What takes the room: the stores' trouble if they have any, else what lies there. */
static void tell_why_full(const struct agent *a, const struct queue_view *view)
{
	uint64_t unsealed = 0, waiting = 0;
	struct courier_store store;

	for (size_t i = 0; i < a->config->n_stores; i++)
		if (courier_store(a->courier, a->config->stores[i]->name, &store) && *store.last_error) {
			log_warning("buffer.full", FULL "store \"%s\": %s", store.name, store.last_error);
			return;
		}
	for (size_t i = 0; i < view->n_sources; i++) {
		unsealed += view->sources[i].unsealed_records;
		waiting += view->sources[i].waiting_batches;
	}
	log_warning("buffer.full",
	            FULL "it holds %llu batches that wait for their stores, %llu that all have and that go now, %llu "
	                 "records that are not sealed yet, and large answers that are coming in",
	            (unsigned long long)waiting,
	            (unsigned long long)(view->batches > waiting ? view->batches - waiting : 0),
	            (unsigned long long)unsealed);
}

/*
 * The sources begin once the buffer is open, which knows what they brought last, and the clock has been asked: what
 * they bring says whether it was right then.
 */
static void begin_polling(struct agent *a, const struct queue_view *view)
{
	struct err err;

	if (a->polling || !a->clock_asked || !view->sound)
		return;
	a->polling = true;
	if (!a->api && api_start(&a->loop, a->config->socket, &agent_backend, a, &a->api, &err) < 0)
		log_error("api.shut", "%s; restart the daemon once that is mended", err.text);
	if (agent_configure_sources(a, NULL) < 0)
		log_error("source.refused", "no memory for a source; reload the configuration to try again");
	reload_go_on(a); /* a SIGHUP that came before the API did */
}

/* Polls wait while the buffer is full: for a moment only where the oldest batches are dropped for them. */
static void on_view(void *arg, const struct queue_view *view)
{
	struct agent *a = arg;
	bool full = view->full && a->config->on_full == CONFIG_PAUSE;

	begin_polling(a, view);
	if (a->mill)
		mill_nudge(a->mill);
	records_note(a, view);
	intake_set_full(a->intake, view->full);
	if (full == a->full)
		return;
	a->full = full;
	if (full)
		tell_why_full(a, view);
	else if (!view->full)
		log_notice("buffer.room", "the buffer has room again; polls go on");
}

static void on_report(void *arg, const char *source, const struct intake_report *report)
{
	struct agent *a = arg;

	summary_note(a->summary, source, report);
	backend_on_report(a, source, report);
}

static void on_room(void *arg)
{
	struct agent *a = arg;

	intake_retry(a->intake);
}

/* What it knew of the clock may be gone, and what waits in memory was kept from an earlier one. */
static void on_open(void *arg)
{
	struct agent *a = arg;

	if (courier_view(a->courier)->salvage.at_ms)
		a->salvaged_ms = clock_mono_ms();
	if (a->clockwork)
		clockwork_configure(a->clockwork, a->config);
	intake_retry(a->intake);
}

static void on_clock(void *arg, bool synced, struct queue_view *fresh)
{
	struct agent *a = arg;
	struct clockwork_view clock = { .state = CLOCKWORK_SYNCED }; /* of one that begins */

	if (a->clockwork)
		clockwork_view(a->clockwork, &clock);
	intake_set_clock(a->intake, synced);
	summary_set_clock(a->summary, clock.state != CLOCKWORK_WAITING);
	a->clock_asked = true;
	begin_polling(a, courier_view(a->courier));
	if (fresh)
		courier_nudge(a->courier, fresh); /* what was kept back may be sealed now */
}

static void closed_one(void *arg)
{
	struct agent *a = arg;

	a->open--;
}

static void on_handle_closed(uv_handle_t *handle)
{
	closed_one(handle->data);
}

static void close_handle(struct agent *a, uv_handle_t *handle)
{
	handle->data = a;
	a->open++;
	uv_close(handle, on_handle_closed);
}

/* Durable is durable: what hangs now (a disk, a resolver) may hang without us. */
static void on_deadline(uv_timer_t *timer)
{
	(void)timer;
	log_warning("agent.hung", "stopped without waiting for a disk that does not answer");
	_exit(CLI_OK);
}

static void run_until_closed(struct agent *a)
{
	while (a->open)
		uv_run(&a->loop, UV_RUN_ONCE);
}

static void count_process(uv_handle_t *handle, void *arg)
{
	*(unsigned *)arg += uv_handle_get_type(handle) == UV_PROCESS;
}

/* Those of the mill were killed; the kernel may take its time. */
static void wait_for_children(struct agent *a)
{
	for (unsigned n = 1; n > 0;) {
		n = 0;
		uv_walk(&a->loop, count_process, &n);
		if (n > 0)
			uv_run(&a->loop, UV_RUN_ONCE);
	}
}

/* No new answers; those that are complete still become durable, unless the buffer is failing. */
static void stop_sources(struct agent *a)
{
	agent_free_sources(a);
	while (a->reads || a->reload.now || !intake_settled(a->intake))
		uv_run(&a->loop, UV_RUN_ONCE);
}

/* SQLite's last syncs may take long on a slow card; the loop, and with it the deadline, goes on. */
static void close_work(struct job *job)
{
	queue_close(container_of(job, struct agent, close_job)->queue);
}

static void on_queue_closed(struct job *job)
{
	closed_one(container_of(job, struct agent, close_job));
}

static void close_queue(struct agent *a)
{
	a->close_job = (struct job){ .work = close_work, .done = on_queue_closed };
	a->open++;
	worker_submit(a->worker, &a->close_job);
	run_until_closed(a);
	a->open++;
	worker_close(a->worker, closed_one, a);
	run_until_closed(a);
}

static int close_loop(struct agent *a)
{
	close_handle(a, (uv_handle_t *)&a->prepare);
	close_handle(a, (uv_handle_t *)&a->tick);
	close_handle(a, (uv_handle_t *)&a->sigterm);
	close_handle(a, (uv_handle_t *)&a->sigint);
	close_handle(a, (uv_handle_t *)&a->sighup);
	close_handle(a, (uv_handle_t *)&a->deadline);
	run_until_closed(a);
	return uv_loop_close(&a->loop);
}

static void stop(struct agent *a)
{
	a->stopping = true;
	uv_prepare_stop(&a->prepare); /* no alarm rings from here on */
	uv_timer_start(&a->deadline, on_deadline, DEADLINE_MS, 0);
	if (a->clockwork)
		clockwork_stop(a->clockwork);
	miller_stop(a);
	stop_sources(a);
	backend_stop(a);
	a->open++;
	courier_close(a->courier, closed_one, a);
	if (a->api) {
		a->open++;
		api_close(a->api, closed_one, a);
	}
	a->open++;
	http_close(a->http, closed_one, a);
	run_until_closed(a);
	wait_for_children(a);
	close_queue(a);
	clockwork_free(a->clockwork);
	summary_free(a->summary);
	intake_free(a->intake);
}

static void on_signal(uv_signal_t *handle, int number)
{
	struct agent *a = container_of(handle->loop, struct agent, loop);

	if (!a->stopping)
		log_notice("agent.stopping", "%s", number == SIGTERM ? "SIGTERM" : "SIGINT");
	a->stopping = true;
	uv_stop(&a->loop);
}

static void on_sighup(uv_signal_t *handle, int number)
{
	(void)number;
	reload_begin(container_of(handle, struct agent, sighup));
}

static int start_loop(struct agent *a)
{
	int r = uv_loop_init(&a->loop);

	if (r < 0)
		return r;
	uv_prepare_init(&a->loop, &a->prepare);
	uv_timer_init(&a->loop, &a->tick);
	uv_timer_init(&a->loop, &a->deadline);
	uv_signal_init(&a->loop, &a->sigterm);
	uv_signal_init(&a->loop, &a->sigint);
	uv_signal_init(&a->loop, &a->sighup);
	r = uv_signal_start(&a->sigterm, on_signal, SIGTERM);
	if (r == 0)
		r = uv_signal_start(&a->sigint, on_signal, SIGINT);
	if (r == 0)
		r = uv_signal_start(&a->sighup, on_sighup, SIGHUP);
	return r;
}

/* Its fetch is one piece, however many sources there are: nothing of it is staged. */
static int start_summary(struct agent *a)
{
	struct sink *sink = intake_sink(a->intake, UNITS_POLLS, SIZE_MAX);

	a->summary = sink ? summary_new(sink, &a->alarms) : NULL;
	return a->summary ? 0 : -ENOMEM;
}

static int start_courier(struct agent *a, const char *shut)
{
	const struct courier_env env = {
		.loop = &a->loop,
		.http = a->http,
		.queue = a->queue,
		.worker = a->worker,
		.alarms = &a->alarms,
		.on_view = on_view,
		.on_room = on_room,
		.on_open = on_open,
		.shut = shut,
		.arg = a,
	};

	return courier_new(&env, a->config, &a->courier);
}

static int start_clock(struct agent *a)
{
	const struct clockwork_env env = {
		.queue = a->queue, .worker = a->worker, .alarms = &a->alarms, .on_told = on_clock, .arg = a
	};

	a->clockwork = clockwork_new(&env, a->config);
	return a->clockwork ? 0 : -ENOMEM;
}

/* A socket on a card that takes nothing waits for it; any other that cannot be made is a mistake. */
static int start_api(struct agent *a, struct err *err)
{
	int r = api_start(&a->loop, a->config->socket, &agent_backend, a, &a->api, err);

	if (r != -EROFS && r != -ENOSPC && r != -EIO)
		return r;
	log_error("api.shut",
	          "%s; it is tried again once the buffer is open, and no command reaches the daemon until then",
	          err->text);
	return 0;
}

static int start_parts(struct agent *a, const char *shut, struct err *err)
{
	int r = worker_start(&a->loop, "buffer", &a->worker);

	if (r == 0)
		r = http_new(&a->loop, "millrace/" MILLRACE_VERSION, &a->http);
	a->env = (struct collector_env){ .http = a->http, .alarms = &a->alarms };
	if (r == 0) {
		a->intake = intake_new(a->queue, a->worker, &a->alarms, on_report, on_committed, a);
		r = a->intake ? start_summary(a) : -ENOMEM;
	}
	if (r == 0)
		r = start_courier(a, shut);
	if (r < 0)
		return err_fail(err, r, "cannot start: %s", strerror(-r));
	uv_prepare_start(&a->prepare, on_prepare);
	r = start_api(a, err);
	if (r < 0)
		return r;
	r = miller_start(a);
	if (r == 0)
		r = start_clock(a); /* a trusted clock begins the polls at once */
	return r < 0 ? err_fail(err, r, "cannot start: %s", strerror(-r)) : 0;
}

/* The loop first: from here on SIGTERM is an orderly end. */
static int start_agent(struct agent *a, struct err *err)
{
	struct err shut = { "" };
	int r = start_loop(a);

	if (r < 0)
		return err_fail(err, r, "cannot start: %s", uv_strerror(r));
	r = opening_begin(a->config, &a->queue, &shut);
	if (r < 0) {
		*err = shut;
		return r;
	}
	return start_parts(a, r == 1 ? shut.text : "", err);
}

/* A start that was refused: by the buffer or its configuration, or, with all the rest running, by the API's socket. */
static void undo_start(struct agent *a)
{
	if (a->courier)
		stop(a);
	else
		queue_close(a->queue);
	close_loop(a);
	config_free(a->config);
	free(a);
}

/* One arena and small thresholds: four busy threads cost 700 KB otherwise (mallopt(3)). */
static void tune_memory(void)
{
	mallopt(M_ARENA_MAX, 1);
	mallopt(M_MMAP_THRESHOLD, 64 * 1024);
	mallopt(M_TRIM_THRESHOLD, 64 * 1024);
	mallopt(M_TOP_PAD, 16 * 1024);
}

int agent_run(struct config *config)
{
	struct agent *a = calloc(1, sizeof *a);
	struct err err = { "" };
	char mill[CONFIG_COUNT_MAX];
	int r;

	if (!a) {
		config_free(config);
		return CLI_ATTENTION;
	}
	tune_memory();
	signal(SIGPIPE, SIG_IGN);
	log_init(config->log);
	a->config = config;
	a->started_ms = clock_wall_ms();
	r = start_agent(a, &err);
	if (r < 0) {
		log_error("agent.refused", "%s", err.text);
		undo_start(a);
		return opening_status(r);
	}
	config_count_mill(config->mill, mill);
	log_notice("agent.started", "millrace %s on %s: sources: %zu, stores: %zu%s, buffer %s", MILLRACE_VERSION,
	           config->device, config->n_sources, config->n_stores, mill, config->buffer_path);
	reload_go_on(a); /* a SIGHUP that came too early */
	if (!a->stopping)
		uv_run(&a->loop, UV_RUN_DEFAULT);
	stop(a);
	r = close_loop(a);
	log_notice("agent.stopped", "%s", r == 0 ? "all closed" : uv_strerror(r));
	config_free(a->config);
	free(a);
	return CLI_OK;
}
