/* SPDX-License-Identifier: Apache-2.0 */
/* What a job's run has done for it: by the buffer's worker, which writes down and lists, and by the store. */
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
	m->empty = w->asked || when_wants_nothing(&w->conf.when);
	w->errand = &m->errand;
	errand_send(&m->errand, w->mill->env.worker, &w->mill->under_way);
}

/* --- Its manifest is listed --- */

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
	return r == 0 ? manifest_end(&l->json) : r;
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
	errand_send(&l->errand, w->mill->env.worker, &w->mill->under_way);
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

	return ledger_put_run(n->queue, &n->run, &errand->err);
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
	errand_send(&n->errand, w->mill->env.worker, &w->mill->under_way);
}

/* --- An object is put into the store --- */

/* Outlives whoever sent it. */
struct deposit {
	struct mill *mill;
	struct work *work; /* NULL: gone */
	struct bytes data;
};

void work_put(struct work *w, const char *name, const struct bytes *data)
{
	struct deposit *d = calloc(1, sizeof *d);
	char key[OBJECT_KEY_MAX];
	int r = -ENOMEM;

	w->step = WORK_PUTS;
	if (d) {
		bytes_init(&d->data, data->len);
		r = bytes_add(&d->data, data->data, data->len);
	}
	if (r < 0) {
		if (d)
			bytes_done(&d->data);
		free(d);
		work_on_put(w, r, &no_memory);
		return;
	}
	d->mill = w->mill;
	d->work = w;
	w->deposit = d;
	w->mill->under_way++;
	manifest_key(&w->run, name, key);
	w->mill->env.put(w->mill->env.arg, w->run.store, key, &d->data, d);
}

void mill_on_put(struct mill *mill, void *token, int status, const struct err *err)
{
	struct deposit *d = token;
	struct work *w = d->work;

	mill->under_way--;
	bytes_done(&d->data);
	free(d);
	if (w) {
		w->deposit = NULL;
		work_on_put(w, status, err);
	}
	mill_settle(mill);
}

void work_drop(struct work *w)
{
	errand_drop(w->errand);
	w->errand = NULL;
	if (w->deposit)
		w->deposit->work = NULL;
	w->deposit = NULL;
}
