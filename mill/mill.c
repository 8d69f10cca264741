/* SPDX-License-Identifier: Apache-2.0 */
/* The mill as a whole: what the ledger knows is loaded, what is due is looked for, and people ask for things. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/container.h"
#include "mill/mill_private.h"

#define PAGE     8              /* runs that are read at a time */
#define FLUSH_MS INT64_C(30000) /* a wake waits no longer for a store that takes its time */
#define DAY_MS   INT64_C(86400000)

void mill_say(struct mill *mill, const char *event, bool bad, const char *format, ...)
{
	char text[ERR_MAX + 256];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	mill->env.say(mill->env.arg, event, text, bad);
}

void mill_count(struct mill *mill, struct stand *stand)
{
	unsigned wanted = 0, running = 0;

	if (!stand || mill->closing)
		return;
	for (size_t i = 0; i < mill->n_works; i++) {
		const struct work *w = mill->works[i];

		if (w->stand != stand)
			continue;
		wanted += work_wants(w);
		running += work_runs(w);
	}
	machine_want(stand->machine, wanted, running);
}

void mill_go(struct mill *mill, const struct stand *stand)
{
	for (size_t i = 0; i < mill->n_works; i++)
		if (!stand || mill->works[i]->stand == stand)
			work_go(mill->works[i]);
}

/* --- Before a wake --- */

static void end_flush(struct mill *mill)
{
	mill->flushing = false;
	alarm_cancel(&mill->alarm);
	for (size_t i = 0; i < mill->n_works; i++)
		if (mill->works[i]->step == WORK_FLUSHES)
			work_make(mill->works[i]);
}

void mill_flush(struct mill *mill)
{
	if (mill->flushing)
		return;
	mill->flushing = true;
	alarm_set(mill->env.driver.alarms, &mill->alarm, clock_mono_ms() + FLUSH_MS);
	mill->env.flush(mill->env.arg);
}

void mill_on_flushed(struct mill *mill)
{
	if (mill->flushing)
		end_flush(mill);
}

int64_t mill_tick(struct mill *mill)
{
	int64_t now_ms = clock_wall_ms();

	mill->tick = now_ms > mill->tick ? now_ms : mill->tick + 1;
	return mill->tick;
}

/* --- What the ledger knows --- */

struct loaded_machine {
	bool known;
	struct ledger_machine machine;
	int n_days;
	struct ledger_day days[LEDGER_DAYS];
};

struct loaded_job {
	bool has_run;
	struct ledger_run run;
	struct ledger_due due;
	int64_t made_ms, done_ms;
	unsigned n_parked;
	char parked[MILL_PARKED_KEPT][LEDGER_RUN];
};

struct loading {
	struct errand errand;
	const struct mill *mill; /* its configuration alone, which does not change */
	struct loaded_machine *machines;
	struct loaded_job *jobs;
};

static int load_machine(struct loading *l, size_t i)
{
	struct queue *queue = l->mill->env.queue;
	const char *name = l->mill->stands[i]->conf.name;
	struct loaded_machine *m = &l->machines[i];
	int r = ledger_find_machine(queue, name, &m->machine, &l->errand.err);

	if (r < 0 && r != -ENOENT)
		return r;
	m->known = r == 0;
	m->n_days = ledger_days(queue, name, m->days, LEDGER_DAYS, &l->errand.err);
	return m->n_days < 0 ? m->n_days : 0;
}

static void take_run(struct loaded_job *job, const struct ledger_run *run)
{
	if (run->created_ms > job->made_ms)
		job->made_ms = run->created_ms;
	if (run->state == LEDGER_DONE && run->ended_ms > job->done_ms)
		job->done_ms = run->ended_ms;
	if (run->state == LEDGER_PARKED && job->n_parked++ < MILL_PARKED_KEPT)
		memcpy(job->parked[job->n_parked - 1], run->id, sizeof run->id);
	if (run->state < LEDGER_DONE) {
		job->has_run = true;
		job->run = *run;
	}
}

static int load_runs(struct loading *l, struct ledger_run *runs)
{
	char before[LEDGER_RUN] = "";
	int n = PAGE;

	while (n == PAGE) {
		n = ledger_runs(l->mill->env.queue, *before ? before : NULL, runs, PAGE, &l->errand.err);
		for (int i = 0; i < n; i++) {
			for (size_t j = 0; j < l->mill->n_works; j++)
				if (strcmp(l->mill->works[j]->conf.name, runs[i].job) == 0)
					take_run(&l->jobs[j], &runs[i]);
		}
		if (n > 0)
			memcpy(before, runs[n - 1].id, sizeof before);
	}
	return n < 0 ? n : 0;
}

static int load_work(struct errand *errand)
{
	struct loading *l = container_of(errand, struct loading, errand);
	struct ledger_run *runs = calloc(PAGE, sizeof *runs);
	int r = runs ? 0 : err_fail(&errand->err, -ENOMEM, "no memory");

	for (size_t i = 0; r == 0 && i < l->mill->n_stands; i++)
		r = load_machine(l, i);
	if (r == 0)
		r = load_runs(l, runs);
	free(runs);
	for (size_t i = 0; r == 0 && i < l->mill->n_works; i++)
		ledger_due(l->mill->env.queue, l->mill->works[i]->conf.name, &l->jobs[i].due);
	return r;
}

static void free_loading(struct errand *errand)
{
	struct loading *l = container_of(errand, struct loading, errand);

	free(l->machines);
	free(l->jobs);
}

static int take_machines(struct mill *mill, const struct loading *l)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < mill->n_stands; i++) {
		const struct loaded_machine *m = &l->machines[i];

		if (!mill->stands[i]->machine)
			r = stand_load(mill->stands[i], m->known ? &m->machine : NULL, m->days, (size_t)m->n_days);
	}
	return r;
}

static void take_job(struct work *w, const struct loaded_job *job)
{
	int64_t now_ms = clock_wall_ms();

	w->due = job->due;
	w->looked_ms = job->due.cron_ms;
	w->made = job->made_ms < now_ms ? job->made_ms : now_ms;
	w->done = job->done_ms < now_ms ? job->done_ms : now_ms;
	w->n_parked = job->n_parked;
	memcpy(w->parked, job->parked, sizeof w->parked);
	if (job->has_run)
		work_load(w, &job->run);
}

static void load(struct mill *mill);

static void load_again(struct mill *mill)
{
	alarm_set(mill->env.driver.alarms, &mill->alarm,
	          clock_mono_ms() + mill_doubled(MILL_AGAIN_MS, mill->failures++, MILL_AGAIN_MAX));
}

static void on_loaded(struct errand *errand)
{
	struct loading *l = container_of(errand, struct loading, errand);
	struct mill *mill = errand->owner;

	mill->load = NULL;
	if (errand->status < 0 || take_machines(mill, l) < 0) {
		load_again(mill);
		return;
	}
	mill->loaded = true;
	for (size_t i = 0; i < mill->n_works; i++)
		take_job(mill->works[i], &l->jobs[i]);
	for (size_t i = 0; i < mill->n_stands; i++)
		mill_count(mill, mill->stands[i]);
	mill_go(mill, NULL);
}

static void load(struct mill *mill)
{
	struct loading *l = calloc(1, sizeof *l);

	if (l) {
		l->errand =
		        (struct errand){ .work = load_work, .done = on_loaded, .free = free_loading, .owner = mill };
		l->mill = mill;
		l->machines = calloc(mill->n_stands + 1, sizeof *l->machines);
		l->jobs = calloc(mill->n_works + 1, sizeof *l->jobs);
	}
	if (!l || !l->machines || !l->jobs) {
		if (l)
			free_loading(&l->errand);
		free(l);
		load_again(mill);
		return;
	}
	mill->load = &l->errand;
	errand_send(&l->errand, mill);
}

static void on_alarm(struct alarm *alarm)
{
	struct mill *mill = container_of(alarm, struct mill, alarm);

	if (mill->flushing)
		end_flush(mill);
	else if (!mill->loaded && !mill->load)
		load(mill);
}

/* --- What is due --- */

struct looking {
	struct errand errand;
	const struct mill *mill;
	struct ledger_due *due;
};

static int look_work(struct errand *errand)
{
	struct looking *l = container_of(errand, struct looking, errand);

	for (size_t i = 0; i < l->mill->n_works; i++)
		ledger_due(l->mill->env.queue, l->mill->works[i]->conf.name, &l->due[i]);
	return 0;
}

static void free_looking(struct errand *errand)
{
	free(container_of(errand, struct looking, errand)->due);
}

static void take_due(struct work *w, const struct ledger_due *due)
{
	if (due->missed > w->due.missed)
		mill_say(w->mill, "job.missed", true,
		         "job %s: too many objects wait for it, and %llu more will be in none of its runs: load them "
		         "by hand",
		         w->conf.name, (unsigned long long)(due->missed - w->due.missed));
	w->due = *due;
}

static void on_looked(struct errand *errand)
{
	struct looking *l = container_of(errand, struct looking, errand);
	struct mill *mill = errand->owner;

	mill->look = NULL;
	for (size_t i = 0; i < mill->n_works; i++)
		take_due(mill->works[i], &l->due[i]);
	mill_go(mill, NULL);
	if (mill->look_again)
		mill_nudge(mill);
}

void mill_nudge(struct mill *mill)
{
	struct looking *l;

	mill->look_again = mill->look != NULL;
	if (mill->look || mill->closing)
		return;
	if (!mill->loaded && !mill->load)
		load(mill);
	if (!mill->loaded || mill->n_works == 0)
		return;
	l = calloc(1, sizeof *l);
	if (l)
		l->due = calloc(mill->n_works, sizeof *l->due);
	if (!l || !l->due) {
		free(l);
		return; /* the next delivery nudges again */
	}
	l->errand = (struct errand){ .work = look_work, .done = on_looked, .free = free_looking, .owner = mill };
	l->mill = mill;
	mill->look = &l->errand;
	errand_send(&l->errand, mill);
}

/* --- What people ask for --- */

static struct stand *find_stand(const struct mill *mill, const char *name)
{
	for (size_t i = 0; name && i < mill->n_stands; i++)
		if (strcmp(mill->stands[i]->conf.name, name) == 0)
			return mill->stands[i];
	return NULL;
}

static int check_loaded(const struct mill *mill, struct err *err)
{
	return mill->loaded ? 0 : err_fail(err, -EAGAIN, "the buffer is not open yet; try again later");
}

int mill_wake(struct mill *mill, const char *name, struct err *err)
{
	struct stand *s = find_stand(mill, name);

	if (!s)
		return err_fail(err, -ENOENT, "there is no machine \"%s\"; millrace show machines lists them", name);
	if (s->conf.settings->wake == MACHINE_NONE)
		return err_fail(err, -ENOTSUP, "machine \"%s\" has wake = \"none\": it is never woken", name);
	if (check_loaded(mill, err) < 0)
		return -EAGAIN;
	machine_wake(s->machine);
	return 0;
}

static struct work *find_job(const struct mill *mill, const char *name)
{
	for (size_t i = 0; i < mill->n_works; i++)
		if (strcmp(mill->works[i]->conf.name, name) == 0)
			return mill->works[i];
	return NULL;
}

int mill_start(struct mill *mill, const char *name, struct err *err)
{
	struct work *w = find_job(mill, name);

	if (!w)
		return err_fail(err, -ENOENT, "there is no job \"%s\"; millrace show machines lists them", name);
	if (check_loaded(mill, err) < 0)
		return -EAGAIN;
	if (w->has_run)
		return err_fail(err, -EBUSY, "run %s of job \"%s\" is on its way; its next one can be started after it",
		                w->run.id, name);
	w->asked = true;
	work_go(w);
	return 0;
}

/* The one that has it on its way; or, parked, among its parked ones. */
static struct work *find_run(const struct mill *mill, const char *run, bool *ret_parked)
{
	for (size_t i = 0; i < mill->n_works; i++) {
		struct work *w = mill->works[i];

		*ret_parked = false;
		if (w->has_run && strcmp(w->run.id, run) == 0)
			return w;
		*ret_parked = true;
		for (size_t j = 0; j < MILL_PARKED_KEPT && *w->parked[j]; j++)
			if (strcmp(w->parked[j], run) == 0)
				return w;
	}
	return NULL;
}

int mill_cancel(struct mill *mill, const char *run, struct err *err)
{
	bool parked;
	struct work *w = find_run(mill, run, &parked);

	if (check_loaded(mill, err) < 0)
		return -EAGAIN;
	if (!w)
		return err_fail(err, -ENOENT,
		                "no run \"%s\" of a job that the configuration has is on its way or parked; see "
		                "millrace show runs",
		                run);
	if (parked)
		return work_change(w, run, LEDGER_CANCELLED, err);
	w->cancel = true;
	work_go(w);
	return 0;
}

int mill_retry(struct mill *mill, const char *run, struct err *err)
{
	bool parked;
	struct work *w = find_run(mill, run, &parked);

	if (check_loaded(mill, err) < 0)
		return -EAGAIN;
	if (!w)
		return err_fail(err, -ENOENT,
		                "no run \"%s\" of a job that the configuration has is parked; see millrace show runs",
		                run);
	if (parked && !w->has_run)
		return work_change(w, run, LEDGER_WRITTEN, err);
	if (parked)
		return err_fail(err, -EBUSY, "run %s of the same job is on its way; retry this one after it",
		                w->run.id);
	if (w->run.state == LEDGER_STARTED)
		return err_fail(err, -EBUSY, "it runs already");
	w->retry_ms = 0;
	mill_count(mill, w->stand);
	work_go(w);
	return 0;
}

/* --- What people see --- */

static int64_t month_begin(int64_t wall_ms)
{
	time_t now = (time_t)(wall_ms / 1000);
	struct tm tm;

	gmtime_r(&now, &tm);
	return units_day(wall_ms) - (tm.tm_mday - 1);
}

static void view_days(const struct stand *s, struct mill_machine_view *view)
{
	int64_t now_ms = clock_wall_ms(), today = units_day(now_ms), month = month_begin(now_ms), since = today + 1;

	for (size_t i = 0; i < s->n_days; i++) {
		const struct ledger_day *day = &s->days[i];

		since = day->day < month ? month : day->day < since ? day->day : since;
		if (day->day < month || day->day > today)
			continue;
		view->awake_month_ms += day->awake_ms;
		view->wakes_month += day->wakes;
		if (day->day == today) {
			view->awake_today_ms = day->awake_ms;
			view->wakes_today = day->wakes;
		}
	}
	view->month_ms = since <= today ? now_ms - since * DAY_MS : 0;
}

static struct mill_machine_view view_machine(const struct stand *s)
{
	struct mill_machine_view view = { .name = s->conf.name, .watts = s->conf.settings->watts };

	if (!s->machine)
		return view;
	view.known = true;
	machine_view(s->machine, &view.machine);
	view_days(s, &view);
	return view;
}

static struct mill_job_view view_job(struct work *w)
{
	work_look(w);
	return (struct mill_job_view){
		.name = w->conf.name,
		.machine = w->conf.machine,
		.due = w->due,
		.run = w->has_run ? &w->run : NULL,
		.parked = w->n_parked,
		.last_parked = w->parked[0],
		.waits_for = w->text,
		.trouble = w->trouble,
	};
}

struct mill_view *mill_view(const struct mill *mill)
{
	struct mill_view *view = calloc(1, sizeof *view);

	if (!view)
		return NULL;
	view->machines = calloc(mill->n_stands + 1, sizeof *view->machines);
	view->jobs = calloc(mill->n_works + 1, sizeof *view->jobs);
	if (!view->machines || !view->jobs) {
		mill_view_free(view);
		return NULL;
	}
	while (view->n_machines < mill->n_stands) {
		view->machines[view->n_machines] = view_machine(mill->stands[view->n_machines]);
		view->n_machines++;
	}
	while (view->n_jobs < mill->n_works) {
		view->jobs[view->n_jobs] = view_job(mill->works[view->n_jobs]);
		view->n_jobs++;
	}
	return view;
}

void mill_view_free(struct mill_view *view)
{
	if (!view)
		return;
	free(view->machines);
	free(view->jobs);
	free(view);
}

bool mill_idle(const struct mill *mill)
{
	bool idle = mill->under_way == 0 && !mill->flushing;

	for (size_t i = 0; idle && i < mill->n_stands; i++)
		idle = stand_is_idle(mill->stands[i]);
	for (size_t i = 0; idle && i < mill->n_works; i++)
		idle = mill->works[i]->step == WORK_RESTS;
	return idle;
}

/* --- Life --- */

/* Its errands read its configuration until they have ended. */
static void finish(struct mill *mill)
{
	void (*on_closed)(void *arg) = mill->on_closed;
	void *arg = mill->on_closed_arg;

	for (size_t i = 0; i < mill->n_works; i++)
		work_free(mill->works[i]);
	for (size_t i = 0; i < mill->n_stands; i++)
		stand_free(mill->stands[i]);
	free(mill->works);
	free(mill->stands);
	free(mill);
	if (on_closed)
		on_closed(arg);
}

void mill_settle(struct mill *mill)
{
	mill->under_way--;
	if (mill->closing && mill->under_way == 0)
		finish(mill);
}

static int add_parts(struct mill *mill, const struct mill_machine *machines, size_t n_machines,
                     const struct mill_job *jobs, size_t n_jobs)
{
	for (; mill->n_stands < n_machines; mill->n_stands++) {
		mill->stands[mill->n_stands] = stand_new(mill, &machines[mill->n_stands]);
		if (!mill->stands[mill->n_stands])
			return -ENOMEM;
	}
	for (; mill->n_works < n_jobs; mill->n_works++) {
		const struct mill_job *job = &jobs[mill->n_works];

		mill->works[mill->n_works] = work_new(mill, job, find_stand(mill, job->machine));
		if (!mill->works[mill->n_works])
			return -ENOMEM;
	}
	return 0;
}

struct mill *mill_new(const struct mill_env *env, const struct mill_machine *machines, size_t n_machines,
                      const struct mill_job *jobs, size_t n_jobs)
{
	struct mill *mill = calloc(1, sizeof *mill);

	if (!mill)
		return NULL;
	mill->env = *env;
	snprintf(mill->device, sizeof mill->device, "%s", env->device);
	mill->env.device = mill->device;
	mill->alarm.on_ring = on_alarm;
	mill->stands = calloc(n_machines + 1, sizeof *mill->stands);
	mill->works = calloc(n_jobs + 1, sizeof *mill->works);
	if (!mill->stands || !mill->works || add_parts(mill, machines, n_machines, jobs, n_jobs) < 0) {
		finish(mill);
		return NULL;
	}
	load(mill);
	return mill;
}

void mill_close(struct mill *mill, void (*on_closed)(void *arg), void *arg)
{
	mill->closing = true;
	mill->on_closed = on_closed;
	mill->on_closed_arg = arg;
	alarm_cancel(&mill->alarm);
	errand_drop(mill->load);
	errand_drop(mill->look);
	for (size_t i = 0; i < mill->n_works; i++)
		work_stop(mill->works[i]);
	for (size_t i = 0; i < mill->n_stands; i++)
		stand_stop(mill->stands[i]);
	if (mill->under_way == 0)
		finish(mill);
}
