/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One store after the other: its books by jobs of the buffer's worker, page by page; then the scan of what stands in
 * the store; then the judgement, on the audit's own worker because it sorts all of it.
 */
#include "agent/audit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/scan.h"
#include "base/container.h"
#include "buffer/tally.h"

#define PAGE        256
#define RANGES_MAX  1000 /* told of a store */
#define SOURCES_MAX 4096
#define REPAIRS_MAX 100000 /* ranges that are sent again in one go */
#define DAMAGES_MAX 1000   /* told */

/* What is missing in the store at hand. */
struct repair {
	char source[UNITS_NAME_MAX];
	uint64_t first_seq, last_seq;
	json_t *range; /* of the report, which holds it; NULL: it is not told there */
};

struct audit {
	struct audit_env env;
	int64_t since;
	bool repair;
	void (*on_done)(void *arg, json_t *report, const struct err *err);
	void *arg;
	struct worker *worker;
	bool canceled;
	json_t *report;
	bool sound; /* so far */

	/* Of the store at hand. */
	size_t store;
	uint64_t began_ns;
	struct tally *tally;
	char (*sources)[UNITS_NAME_MAX]; /* in its books */
	size_t n_sources;
	const struct scan_ops *scan_ops;
	struct scan *scan; /* NULL: none is under way */
	uint64_t requests;
	bool known;

	/* A job, and what it reads or writes. */
	struct job job;
	size_t books; /* whose books are read */
	struct queue_range page[PAGE], after;
	bool begun; /* `after` holds */
	int n;
	int status;
	struct err err;
	struct queue_damage *damages;
	struct queue_view *view; /* names the sources that are in no books: others brought their objects */

	/* The judgement. */
	struct tally_sums sums;
	json_t *judged; /* the sources' array */
	json_t *ranges; /* of the source at hand */
	size_t n_ranges, left_off;

	/* Then the repair: the worker's while its job is under way. */
	struct repair *repairs;
	size_t n_repairs, repaired;
	uint64_t again; /* records that are sent again, of the range at hand and of all */
	uint64_t sum_again;
};

static void next_store(struct audit *a);

static const struct config_store *store_of(const struct audit *a)
{
	return a->env.config->stores[a->store];
}

/* --- The end --- */

static void on_worker_closed(void *arg)
{
	struct audit *a = arg;
	struct err err = a->err;
	json_t *report = a->report;

	tally_free(a->tally);
	free(a->sources);
	free(a->repairs);
	free(a->damages);
	queue_view_free(a->view);
	json_decref(a->judged);
	if (a->canceled) {
		json_decref(report);
		report = NULL;
		err_fail(&err, 0, "the audit was ended before it was done");
	} else if (report && json_object_set_new(report, "ok", json_boolean(a->sound)) < 0) {
		json_decref(report);
		report = NULL;
	}
	if (!report && !err.text[0])
		err_fail(&err, 0, "there is not enough memory for the report");
	a->on_done(a->arg, report, &err);
	free(a);
}

static void end(struct audit *a)
{
	worker_close(a->worker, on_worker_closed, a);
}

/* No memory for the report itself. */
static void give_up(struct audit *a)
{
	json_decref(a->report);
	a->report = NULL;
	a->err.text[0] = '\0';
	end(a);
}

/* --- A store's part of the report --- */

static json_t *write_records(const struct tally_sums *sums)
{
	json_t *records = json_object();

	for (int i = 0; i < TALLY_KINDS; i++)
		if (json_object_set_new(records, tally_kind_names[i], json_integer((json_int_t)sums->records[i])) < 0) {
			json_decref(records);
			return NULL;
		}
	return records;
}

/* Takes what was judged. status < 0: the store could not be audited, a->err says why. */
static json_t *write_store(struct audit *a, int status)
{
	const struct config_store *store = store_of(a);
	json_int_t took_ms = (json_int_t)((uv_hrtime() - a->began_ns) / 1000000);
	json_t *sources = a->judged ? a->judged : json_array(), *part;

	a->judged = NULL;
	part = json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:b, s:o, s:o, s:I}", "store", store->name, "kind",
	                 store->kind->kind, "place", store->place, "error", status < 0 ? a->err.text : "", "objects",
	                 (json_int_t)a->sums.objects, "foreign", (json_int_t)a->sums.foreign, "requests",
	                 (json_int_t)a->requests, "took_ms", took_ms, "sound", status == 0 && a->sums.sound, "records",
	                 write_records(&a->sums), "sources", sources, "left_off", (json_int_t)a->left_off);
	if (a->repair && json_object_set_new(part, "again", json_integer((json_int_t)a->sum_again)) < 0) {
		json_decref(part);
		return NULL;
	}
	return part;
}

static void finish_store(struct audit *a, int status)
{
	json_t *part;

	tally_free(a->tally);
	a->tally = NULL;
	free(a->sources);
	a->sources = NULL;
	if (a->canceled) {
		end(a);
		return;
	}
	if (status < 0 && !a->err.text[0])
		err_fail(&a->err, status, "%s",
		         status == -ENOBUFS
		                 ? "there are more ranges or objects than an audit takes; try it with --since"
		                 : strerror(-status));
	if (status < 0)
		a->sums = (struct tally_sums){ .sound = false };
	a->sound = a->sound && status == 0 && a->sums.sound;
	part = write_store(a, status);
	a->err.text[0] = '\0';
	if (!part || json_array_append_new(json_object_get(a->report, "stores"), part) < 0) {
		give_up(a);
		return;
	}
	a->store++;
	next_store(a);
}

/* --- Judging --- */

static int add_source(struct audit *a, const char *name)
{
	size_t n = json_array_size(a->judged);
	const char *last = n > 0 ? json_string_value(json_object_get(json_array_get(a->judged, n - 1), "source")) : "";
	json_t *source;

	if (n > 0 && strcmp(last, name) == 0)
		return 0;
	a->ranges = json_array();
	source = json_pack("{s:s, s:o}", "source", name, "ranges", a->ranges);
	return json_array_append_new(a->judged, source) < 0 ? -ENOMEM : 0;
}

/* range: borrowed; a->ranges holds it. */
static int note_repair(struct audit *a, const struct tally_line *line, json_t *range)
{
	struct repair *grown;

	if (!a->repair || line->kind != TALLY_MISSING || a->n_repairs == REPAIRS_MAX)
		return 0;
	grown = realloc(a->repairs, (a->n_repairs + 1) * sizeof *grown);
	if (!grown)
		return -ENOMEM;
	a->repairs = grown;
	grown[a->n_repairs] =
	        (struct repair){ .first_seq = line->first_seq, .last_seq = line->last_seq, .range = range };
	snprintf(grown[a->n_repairs++].source, UNITS_NAME_MAX, "%s", line->source);
	return 0;
}

static int on_line(void *arg, const struct tally_line *line)
{
	struct audit *a = arg;
	json_t *range;
	int r;

	if (a->n_ranges == RANGES_MAX) {
		a->left_off++;
		return note_repair(a, line, NULL);
	}
	r = add_source(a, line->source);
	range = json_pack("{s:s, s:I, s:I, s:s}", "kind", tally_kind_names[line->kind], "first_seq",
	                  (json_int_t)line->first_seq, "last_seq", (json_int_t)line->last_seq, "key", line->key);
	if (r == 0)
		r = json_array_append(a->ranges, range) < 0 ? -ENOMEM : 0;
	if (r == 0)
		r = note_repair(a, line, range);
	json_decref(range);
	a->n_ranges++;
	return r;
}

static void judge_work(struct job *job)
{
	struct audit *a = container_of(job, struct audit, job);

	a->judged = json_array();
	a->status = a->judged ? tally_judge(a->tally, on_line, a, &a->sums) : -ENOMEM;
}

/* --- Repairing --- */

static void repair_next(struct audit *a);

static void repair_work(struct job *job)
{
	struct audit *a = container_of(job, struct audit, job);
	const struct repair *repair = &a->repairs[a->repaired];

	a->again = 0;
	a->status = queue_deliver_again(a->env.queue, store_of(a)->name, repair->source, repair->first_seq,
	                                repair->last_seq, &a->again, &a->err);
}

static void on_repaired(struct job *job)
{
	struct audit *a = container_of(job, struct audit, job);
	const struct repair *repair = &a->repairs[a->repaired++];

	if (a->status == -EINVAL)
		a->status = 0; /* the source does not go there any more */
	if (a->status < 0 || a->canceled) {
		finish_store(a, a->status < 0 ? a->status : -ECANCELED);
		return;
	}
	a->err.text[0] = '\0';
	a->sum_again += a->again;
	if (repair->range && json_object_set_new(repair->range, "again", json_integer((json_int_t)a->again)) < 0) {
		give_up(a);
		return;
	}
	repair_next(a);
}

static void repair_next(struct audit *a)
{
	if (a->repaired == a->n_repairs) {
		finish_store(a, 0);
		return;
	}
	a->status = -ECANCELED;
	a->job = (struct job){ .work = repair_work, .done = on_repaired };
	worker_submit(a->env.queue_worker, &a->job);
}

static void on_judged(struct job *job)
{
	struct audit *a = container_of(job, struct audit, job);

	if (a->status < 0 || a->canceled)
		finish_store(a, a->status);
	else
		repair_next(a);
}

/* --- Looking through the store --- */

static void on_scanned(void *arg, int status, uint64_t requests, const struct err *err)
{
	struct audit *a = arg;

	a->scan = NULL;
	a->requests = requests;
	if (status < 0 || a->canceled) {
		a->err = *err;
		finish_store(a, status < 0 ? status : -ECANCELED);
		return;
	}
	a->status = -ECANCELED;
	a->job = (struct job){ .work = judge_work, .done = on_judged };
	worker_submit(a->worker, &a->job);
}

static void start_scan(struct audit *a)
{
	const struct config_store *store = store_of(a);
	const struct scan_env env = {
		.loop = a->env.loop,
		.http = a->env.http,
		.worker = a->worker,
		.store = store,
		.known = a->known,
		.tally = a->tally,
		.sources = (const char(*)[UNITS_NAME_MAX])a->sources,
		.n_sources = a->n_sources,
		.on_end = on_scanned,
		.arg = a,
	};
	int r;

	a->scan_ops = store->kind == &store_kind_s3 ? &scan_s3_ops : &scan_file_ops;
	r = a->scan_ops->start(&env, &a->scan);
	if (r < 0)
		finish_store(a, r);
}

/* --- The books --- */

/* The books come by source; each name once. */
static int note_source(struct audit *a, const char *name)
{
	char(*grown)[UNITS_NAME_MAX];

	if (a->n_sources > 0 && strcmp(a->sources[a->n_sources - 1], name) == 0)
		return 0;
	if (a->n_sources == SOURCES_MAX)
		return -ENOBUFS;
	grown = realloc(a->sources, (a->n_sources + 1) * sizeof *grown);
	if (!grown)
		return -ENOMEM;
	a->sources = grown;
	memcpy(a->sources[a->n_sources++], name, strlen(name) + 1);
	return 0;
}

static bool has_source(const struct audit *a, const char *name)
{
	for (size_t i = 0; i < a->n_sources; i++)
		if (strcmp(a->sources[i], name) == 0)
			return true;
	return false;
}

/* What was imported is in no books, and counts as of others. */
static int take_view(struct audit *a)
{
	struct queue_view *view = a->view;
	int r = 0;

	a->view = NULL;
	for (size_t i = 0; view && r == 0 && i < view->n_sources; i++)
		if (!has_source(a, view->sources[i].source))
			r = note_source(a, view->sources[i].source);
	queue_view_free(view);
	return r;
}

static int take_page(struct audit *a)
{
	int r = 0;

	for (int i = 0; r == 0 && i < a->n; i++) {
		if (a->books != a->store) {
			r = tally_excuse(a->tally, &a->page[i]);
			continue;
		}
		r = note_source(a, a->page[i].source);
		if (r == 0)
			r = tally_expect(a->tally, &a->page[i]);
	}
	return r;
}

/*
 * The store's own books first. The others' tell which gaps are none; where days are left out there are none anyway, and
 * the scan comes at once.
 */
static bool next_books(struct audit *a)
{
	bool own = a->books == a->store;

	a->begun = false;
	a->books = own ? 0 : a->books + 1;
	if (a->books == a->store)
		a->books++;
	return a->since == INT64_MIN && a->books < a->env.config->n_stores;
}

static void read_work(struct job *job)
{
	struct audit *a = container_of(job, struct audit, job);
	const struct config_store *store = a->env.config->stores[a->books];
	char place[1024] = "";

	a->n = 0;
	a->status = queue_store_place(a->env.queue, store->name, place, sizeof place, &a->err);
	if (a->books == a->store)
		a->known = strcmp(place, store->place) == 0 || strcmp(place, QUEUE_PLACE_LOST) == 0;
	if (a->status == 0)
		a->n = queue_books(a->env.queue, store->name, a->since, a->begun ? &a->after : NULL, a->page, PAGE,
		                   &a->err);
	if (a->n < 0)
		a->status = a->n;
	if (a->status == 0 && a->n == 0 && a->books == a->store) {
		a->view = queue_view(a->env.queue);
		a->status = a->view ? 0 : -ENOMEM;
	}
}

static void read_page(struct audit *a);

static void on_read(struct job *job)
{
	struct audit *a = container_of(job, struct audit, job);
	int r = a->status;

	if (r == 0 && !a->canceled)
		r = take_page(a);
	if (r == 0 && a->view)
		r = take_view(a);
	if (r < 0 || a->canceled) {
		finish_store(a, r < 0 ? r : -ECANCELED);
		return;
	}
	if (a->n > 0) {
		a->begun = true;
		a->after = a->page[a->n - 1];
	}
	if (a->n > 0 || next_books(a))
		read_page(a);
	else
		start_scan(a);
}

static void read_page(struct audit *a)
{
	a->status = -ECANCELED;
	a->job = (struct job){ .work = read_work, .done = on_read };
	worker_submit(a->env.queue_worker, &a->job);
}

/* --- What damage has destroyed, whatever the store --- */

static void damage_work(struct job *job)
{
	struct audit *a = container_of(job, struct audit, job);
	int r = 1;

	for (a->n = 0; r == 1 && a->n < DAMAGES_MAX; a->n += r == 1)
		r = queue_next_damage(a->env.queue, a->n > 0 ? &a->damages[a->n - 1] : NULL, &a->damages[a->n],
		                      &a->err);
	a->status = r < 0 ? r : 0;
}

static int add_damage(json_t *list, const struct queue_damage *damage)
{
	char at[UNITS_TEXT_MAX];
	json_t *last = damage->last_seq > 0 ? json_integer((json_int_t)damage->last_seq) : json_null();

	return json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:I, s:o, s:s}", "source", damage->source,
	                                             "device", damage->device, "boot", damage->boot, "first_seq",
	                                             (json_int_t)damage->first_seq, "last_seq", last, "found",
	                                             units_time(damage->at_ms, at)));
}

static void on_damage(struct job *job)
{
	struct audit *a = container_of(job, struct audit, job);
	json_t *list = json_object_get(a->report, "damage");
	int r = a->status;

	for (int i = 0; r == 0 && i < a->n; i++)
		r = add_damage(list, &a->damages[i]);
	if (r < 0) {
		json_decref(a->report);
		a->report = NULL;
	}
	end(a);
}

static void read_damage(struct audit *a)
{
	a->damages = calloc(DAMAGES_MAX, sizeof *a->damages);
	if (!a->damages) {
		give_up(a);
		return;
	}
	a->status = -ECANCELED;
	a->job = (struct job){ .work = damage_work, .done = on_damage };
	worker_submit(a->env.queue_worker, &a->job);
}

static void next_store(struct audit *a)
{
	if (a->store == a->env.config->n_stores) {
		read_damage(a);
		return;
	}
	a->began_ns = uv_hrtime();
	a->n_sources = 0;
	a->sums = (struct tally_sums){ .objects = 0 };
	a->requests = 0;
	a->n_ranges = a->left_off = 0;
	a->n_repairs = a->repaired = 0;
	a->sum_again = 0;
	a->books = a->store;
	a->begun = false;
	a->tally = tally_new(a->since);
	if (a->tally)
		read_page(a);
	else
		give_up(a);
}

/* --- Public functions --- */

static json_t *new_report(int64_t since_day)
{
	char date[UNITS_TEXT_MAX];
	json_t *since = since_day == INT64_MIN ? json_null() : json_string(units_date(since_day * 86400000, date));

	return json_pack("{s:b, s:o, s:[], s:[]}", "ok", 0, "since", since, "stores", "damage");
}

int audit_start(const struct audit_env *env, int64_t since_day, bool repair,
                void (*on_done)(void *arg, json_t *report, const struct err *err), void *arg, struct audit **ret_audit)
{
	struct audit *a = calloc(1, sizeof *a);
	int r;

	if (!a)
		return -ENOMEM;
	a->env = *env;
	a->since = since_day;
	a->repair = repair;
	a->on_done = on_done;
	a->arg = arg;
	a->sound = true;
	a->report = new_report(since_day);
	r = a->report ? worker_start(env->loop, "audit", &a->worker) : -ENOMEM;
	if (r < 0) {
		json_decref(a->report);
		free(a);
		return r;
	}
	*ret_audit = a;
	next_store(a);
	return 0;
}

void audit_cancel(struct audit *a)
{
	a->canceled = true;
	if (a->scan)
		a->scan_ops->stop(a->scan);
}
