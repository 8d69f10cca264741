/* SPDX-License-Identifier: Apache-2.0 */
/* What a job's run has done for it: by the buffer's worker, which writes down and lists, and by the store. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/container.h"
#include "base/random.h"
#include "mill/mill_private.h"

#define PAGE 64

/* --- A run is made --- */

struct making {
	struct errand errand;
	struct queue *queue;
	char job[UNITS_NAME_MAX];
	int64_t wall_ms, cron_ms;
	bool empty;
	struct ledger_run run;
};

/* Later ones are greater; two of one millisecond differ by chance. */
static void name_run(int64_t wall_ms, char ret_id[LEDGER_RUN])
{
	uint8_t chance[10];

	random_fill(chance, sizeof chance);
	snprintf(ret_id, LEDGER_RUN, "%012llx", (unsigned long long)wall_ms);
	for (size_t i = 0; i < sizeof chance; i++)
		snprintf(ret_id + 12 + 2 * i, 3, "%02x", chance[i]);
}

static int make_work(struct errand *errand)
{
	struct making *m = container_of(errand, struct making, errand);
	char id[LEDGER_RUN];

	name_run(m->wall_ms, id);
	return ledger_make_run(m->queue, m->job, id, m->wall_ms, m->cron_ms, m->empty, &m->run, &errand->err);
}

static void on_made(struct errand *errand)
{
	struct making *m = container_of(errand, struct making, errand);
	struct work *w = errand->owner;

	w->errand = NULL;
	work_on_made(w, errand->status, &m->run, &errand->err);
}

static const struct err no_memory = { "there is no memory" };

void work_make(struct work *w)
{
	struct making *m = calloc(1, sizeof *m);

	w->step = WORK_MAKES;
	if (!m) {
		work_on_made(w, -ENOMEM, NULL, &no_memory);
		return;
	}
	m->errand = (struct errand){ .work = make_work, .done = on_made, .owner = w };
	m->queue = w->mill->env.queue;
	snprintf(m->job, sizeof m->job, "%s", w->conf.name);
	m->wall_ms = m->cron_ms = clock_wall_ms();
	m->empty = w->asked || when_wants_nothing(w->conf.when);
	w->errand = &m->errand;
	errand_send(&m->errand, w->mill);
}

/* --- Its manifest is listed --- */

/* A buffer that is not open may say so of its folder. */
static int judge(const struct queue *queue, int status)
{
	return status == -ENOENT && !queue_is_sound(queue) ? -EIO : status;
}

struct listing {
	struct errand errand;
	struct queue *queue;
	struct ledger_run run;
	struct manifest_store there;
	char device[UNITS_NAME_MAX];
	struct bytes json;
};

static int list_objects(struct listing *l)
{
	struct ledger_object objects[PAGE];
	int64_t after = 0;
	int n = PAGE, r = 0;

	while (r == 0 && n == PAGE) {
		n = ledger_objects(l->queue, l->run.id, after, objects, PAGE, &l->errand.err);
		r = n < 0 ? n : 0;
		for (int i = 0; r == 0 && i < n; i++)
			r = manifest_add(&l->json, &objects[i], &l->there);
		if (n > 0)
			after = objects[n - 1].id;
	}
	return r;
}

static int list_work(struct errand *errand)
{
	struct listing *l = container_of(errand, struct listing, errand);
	int r = manifest_begin(&l->json, &l->run, l->device, &l->there);

	if (r == 0)
		r = list_objects(l);
	return r == 0 ? manifest_end(&l->json) : judge(l->queue, r);
}

static void on_listed(struct errand *errand)
{
	struct listing *l = container_of(errand, struct listing, errand);
	struct work *w = errand->owner;

	w->errand = NULL;
	bytes_done(&w->manifest);
	w->manifest = l->json;
	bytes_init(&l->json, 0);
	work_on_listed(w, errand->status, &errand->err);
}

static void free_listing(struct errand *errand)
{
	bytes_done(&container_of(errand, struct listing, errand)->json);
}

void work_list(struct work *w)
{
	struct listing *l = calloc(1, sizeof *l);

	w->step = WORK_LISTS;
	if (!l) {
		work_on_listed(w, -ENOMEM, &no_memory);
		return;
	}
	l->errand = (struct errand){ .work = list_work, .done = on_listed, .free = free_listing, .owner = w };
	l->queue = w->mill->env.queue;
	l->run = w->run;
	l->there = w->conf.there;
	snprintf(l->device, sizeof l->device, "%s", w->mill->env.device);
	bytes_init(&l->json, MANIFEST_MAX);
	w->errand = &l->errand;
	errand_send(&l->errand, w->mill);
}

/* --- A state is written down --- */

struct noting {
	struct errand errand;
	struct queue *queue;
	struct ledger_run run;
};

static int note_work(struct errand *errand)
{
	struct noting *n = container_of(errand, struct noting, errand);

	return judge(n->queue, ledger_put_run(n->queue, &n->run, &errand->err));
}

static void on_noted(struct errand *errand)
{
	struct noting *n = container_of(errand, struct noting, errand);
	struct work *w = errand->owner;

	w->errand = NULL;
	work_on_noted(w, errand->status, &n->run, &errand->err);
}

void work_note(struct work *w, const struct ledger_run *run)
{
	struct noting *n = calloc(1, sizeof *n);

	w->step = WORK_NOTES;
	if (!n) {
		work_on_noted(w, -ENOMEM, run, &no_memory);
		return;
	}
	n->errand = (struct errand){ .work = note_work, .done = on_noted, .owner = w };
	n->queue = w->mill->env.queue;
	n->run = *run;
	w->errand = &n->errand;
	errand_send(&n->errand, w->mill);
}

/* --- An object is put into the store --- */

/* Outlives whoever sent it. */
struct put {
	struct work *work; /* NULL: gone */
	struct bytes data;
};

static int begin_put(struct work *w, struct put *p, const char *name)
{
	const struct mill_env *env = &w->mill->env;
	char key[OBJECT_KEY_MAX];

	manifest_key(&w->run, name, key);
	return env->put(env->arg, w->run.store, key, &p->data, p);
}

void work_put(struct work *w, enum work_step step, const char *name, struct bytes *data)
{
	struct put *p = calloc(1, sizeof *p);

	w->step = step;
	if (p) {
		p->data = *data;
		bytes_init(data, data->ceiling);
	}
	if (p && begin_put(w, p, name) == 0) {
		p->work = w;
		w->put = p;
		w->mill->under_way++;
		return;
	}
	if (p)
		bytes_done(&p->data);
	free(p);
	work_on_put(w, -ENOMEM, &no_memory);
}

void mill_on_put(struct mill *mill, void *token, int status, const struct err *err)
{
	struct put *p = token;
	struct work *w = p->work;

	bytes_done(&p->data);
	free(p);
	if (w) {
		w->put = NULL;
		work_on_put(w, status, err);
	}
	mill_settle(mill);
}

/* --- A parked run is retried, or let go --- */

struct change {
	struct errand errand;
	struct queue *queue;
	enum ledger_state to;
	struct ledger_run run;
};

static int change_work(struct errand *errand)
{
	static const uint8_t none[SHA256_SIZE];
	struct change *c = container_of(errand, struct change, errand);
	int r = ledger_find_run(c->queue, c->run.id, &c->run, &errand->err);

	if (r < 0)
		return r;
	c->run.state = c->to;
	if (c->to == LEDGER_WRITTEN)
		c->run.counted = c->run.attempt;
	if (c->to == LEDGER_WRITTEN && memcmp(c->run.manifest, none, sizeof none) == 0)
		c->run.state = LEDGER_DUE; /* of what is left of it */
	if (c->to == LEDGER_CANCELLED)
		c->run.ended_ms = clock_wall_ms();
	return ledger_put_run(c->queue, &c->run, &errand->err);
}

static void on_changed(struct errand *errand)
{
	struct change *c = container_of(errand, struct change, errand);
	struct work *w = errand->owner;

	w->errand = NULL;
	w->step = WORK_RESTS;
	if (errand->status < 0) {
		mill_say(w->mill, "run.unchanged", true, "run %s: %s", c->run.id, errand->err.text);
	} else {
		work_unpark(w, c->run.id);
		mill_say(w->mill, c->to == LEDGER_CANCELLED ? "run.cancelled" : "run.retried", false, "run %s of %s",
		         c->run.id, w->conf.name);
	}
	if (errand->status == 0 && c->to == LEDGER_WRITTEN) {
		work_load(w, &c->run);
	}
	mill_count(w->mill, w->stand);
	work_go(w);
}

int work_change(struct work *w, const char *run, enum ledger_state to, struct err *err)
{
	struct change *c;

	if (w->step != WORK_RESTS)
		return err_fail(err, -EBUSY, "job \"%s\" is busy with another run; try again later", w->conf.name);
	c = calloc(1, sizeof *c);
	if (!c)
		return err_fail(err, -ENOMEM, "no memory");
	alarm_cancel(&w->alarm);
	w->step = WORK_NOTES;
	c->errand = (struct errand){ .work = change_work, .done = on_changed, .owner = w };
	c->queue = w->mill->env.queue;
	c->to = to;
	snprintf(c->run.id, sizeof c->run.id, "%s", run);
	w->errand = &c->errand;
	errand_send(&c->errand, w->mill);
	return 0;
}

void work_drop(struct work *w)
{
	errand_drop(w->errand);
	w->errand = NULL;
	if (w->put)
		w->put->work = NULL;
	w->put = NULL;
}
