/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/intake.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/container.h"
#include "base/log.h"
#include "buffer/chunk.h"

#define RETRY_FIRST_MS 1000
#define RETRY_MAX_MS   30000

/* A source as the intake sees it: its sink, the fetch that it builds, and what became of those before. */
struct feed {
	struct sink sink;
	struct intake *intake;
	char name[UNITS_NAME_MAX];
	size_t full;
	struct fetch *fetch; /* being built; NULL between fetches and where memory ran out */
	struct intake_counts counts;
	struct alarm settled; /* for a fetch that settles without a commit */
	struct feed *next;
};

struct fetch_list {
	struct fetch *first, **end;
};

struct intake {
	struct queue *queue;
	struct worker *worker;
	struct alarms *alarms;
	intake_on_report on_report;
	void (*on_committed)(void *arg, struct queue_view *fresh);
	void *arg;

	struct feed *feeds;
	struct fetch_list pending; /* published, in order, and in no commit yet */
	struct fetch_list stuck;   /* could not be committed; with the next retry again */

	struct job job;
	bool busy;                /* the job is under way; the next three are the worker's then */
	struct fetch *committing; /* afterwards: what is durable */
	struct fetch *failed;     /* and what is not */
	int status;               /* of the whole */
	struct err err;
	struct queue_view *fresh;

	struct alarm retry;
	int64_t retry_ms;
	char error[ERR_MAX];
};

static void list_init(struct fetch_list *list)
{
	list->first = NULL;
	list->end = &list->first;
}

static void list_append(struct fetch_list *list, struct fetch *fetches)
{
	*list->end = fetches;
	while (*list->end)
		list->end = &(*list->end)->next;
}

static void free_fetches(struct fetch *fetch)
{
	while (fetch) {
		struct fetch *next = fetch->next;

		fetch_free(fetch);
		fetch = next;
	}
}

static bool has_source(const struct fetch *fetch, const char *source)
{
	while (fetch && strcmp(fetch->source, source) != 0)
		fetch = fetch->next;
	return fetch != NULL;
}

static struct feed *find_feed(const struct intake *intake, const char *source)
{
	for (struct feed *feed = intake->feeds; feed; feed = feed->next)
		if (strcmp(feed->name, source) == 0)
			return feed;
	return NULL;
}

static void report(struct feed *feed, enum sink_outcome outcome, const struct fetch *fetch, const char *text)
{
	struct intake_report r = {
		.outcome = outcome,
		.records = fetch ? fetch->records : 0,
		.first_seq = fetch ? fetch->first_seq : 0,
		.text = text,
	};

	feed->intake->on_report(feed->intake->arg, feed->name, &r);
}

/* A complete answer came: what was wrong with the source is over. */
static void note_answer(struct feed *feed, int64_t wall_ms)
{
	feed->counts.last_answer_ms = wall_ms;
	if (feed->counts.cause[0])
		log_notice("source.recovered", "source \"%s\": complete answers again", feed->name);
	feed->counts.cause[0] = feed->counts.last_error[0] = '\0';
}

/* Once per change of what is wrong, not once per poll. */
static void note_failure(struct feed *feed, enum sink_outcome outcome, const char *cause, const char *text)
{
	struct intake_counts *counts = &feed->counts;

	if (!counts->cause[0])
		counts->failing_since_ms = clock_mono_ms();
	if (strcmp(counts->cause, cause) != 0)
		log_warning(outcome == SINK_REFUSED ? "source.refused" : "source.failed", "source \"%s\": %s",
		            feed->name, text);
	snprintf(counts->cause, sizeof counts->cause, "%s", cause);
	snprintf(counts->last_error, sizeof counts->last_error, "%s", text);
}

static void start_commit(struct intake *intake);

/* Who waits for these polls is told now: the answers themselves become durable once the buffer takes them. */
static void report_unsettled(struct intake *intake)
{
	struct err text = intake->err;

	err_prefix(&text, "the answer came and waits in memory");
	for (struct fetch *fetch = intake->failed; fetch; fetch = fetch->next)
		report(find_feed(intake, fetch->source), SINK_FAILED, NULL, text.text);
}

static void note_commit_failed(struct intake *intake)
{
	report_unsettled(intake);
	list_append(&intake->stuck, intake->failed);
	intake->failed = NULL;
	if (strcmp(intake->error, intake->err.text) != 0)
		log_error("buffer.failing", "the buffer does not take all, answers wait in memory: %s",
		          intake->err.text);
	snprintf(intake->error, sizeof intake->error, "%s", intake->err.text);
	if (intake->retry.set)
		return;
	alarm_set(intake->alarms, &intake->retry, clock_mono_ms() + intake->retry_ms);
	intake->retry_ms = intake->retry_ms * 2 < RETRY_MAX_MS ? intake->retry_ms * 2 : RETRY_MAX_MS;
}

static void settle(struct intake *intake, struct fetch *fetch)
{
	struct feed *feed = find_feed(intake, fetch->source);

	note_answer(feed, fetch->wall_ms);
	feed->counts.last_change_ms = fetch->wall_ms;
	report(feed, SINK_COMMITTED, fetch, "");
	if (feed->sink.on_settled)
		feed->sink.on_settled(feed->sink.collector);
}

static void note_committed(struct intake *intake)
{
	struct fetch *committed = intake->committing;

	intake->committing = NULL;
	if (!intake->stuck.first) {
		intake->retry_ms = RETRY_FIRST_MS;
		if (intake->error[0])
			log_notice("buffer.recovered", "the buffer takes records again");
		intake->error[0] = '\0';
	}
	intake->on_committed(intake->arg, intake->fresh);
	for (struct fetch *fetch = committed; fetch; fetch = fetch->next)
		settle(intake, fetch);
	free_fetches(committed);
}

/* What could not be committed together is tried fetch by fetch: one that fits nowhere holds back no other source. */
static void commit_singly(struct intake *intake)
{
	struct fetch_list failed, held;
	struct fetch *next;

	list_init(&failed);
	list_init(&held);
	for (struct fetch *fetch = intake->committing; fetch; fetch = next) {
		int r;

		next = fetch->next;
		fetch->next = NULL;
		r = has_source(failed.first, fetch->source) ? intake->status
		                                            : queue_commit(intake->queue, fetch, &intake->err);
		list_append(r < 0 ? &failed : &held, fetch);
	}
	intake->committing = held.first;
	intake->failed = failed.first;
}

static void commit_work(struct job *job)
{
	struct intake *intake = container_of(job, struct intake, job);

	intake->err.text[0] = '\0';
	intake->failed = NULL;
	intake->status = queue_commit(intake->queue, intake->committing, &intake->err);
	if (intake->status < 0)
		commit_singly(intake);
	intake->fresh = intake->committing ? queue_view(intake->queue) : NULL;
}

static void on_commit_done(struct job *job)
{
	struct intake *intake = container_of(job, struct intake, job);

	intake->busy = false;
	if (intake->status == -ECANCELED) {
		list_append(&intake->stuck, intake->committing);
		intake->committing = NULL;
		return;
	}
	if (intake->failed)
		note_commit_failed(intake);
	if (intake->committing)
		note_committed(intake);
	start_commit(intake);
}

/* What was published while a commit was under way goes into the next one together. */
static void start_commit(struct intake *intake)
{
	if (intake->busy || !intake->pending.first)
		return;
	intake->busy = true;
	intake->committing = intake->pending.first;
	list_init(&intake->pending);
	intake->status = -ECANCELED; /* stands where the worker gives the job back unworked */
	worker_submit(intake->worker, &intake->job);
}

static void on_settled_alarm(struct alarm *alarm)
{
	struct feed *feed = container_of(alarm, struct feed, settled);

	if (feed->sink.on_settled)
		feed->sink.on_settled(feed->sink.collector);
}

static void on_retry(struct alarm *alarm)
{
	struct intake *intake = container_of(alarm, struct intake, retry);

	if (intake->stuck.first)
		list_append(&intake->pending, intake->stuck.first);
	list_init(&intake->stuck);
	start_commit(intake);
}

static void sink_on_begin(struct sink *sink)
{
	struct feed *feed = container_of(sink, struct feed, sink);

	feed->counts.polls++;
	feed->fetch = fetch_new(feed->name);
}

static int sink_on_record(struct sink *sink, const void *data, size_t len)
{
	struct feed *feed = container_of(sink, struct feed, sink);

	return feed->fetch ? fetch_add(feed->fetch, data, len, feed->full) : -ENOMEM;
}

static void sink_on_drop(struct sink *sink, enum sink_outcome outcome, const char *cause, const char *text)
{
	struct feed *feed = container_of(sink, struct feed, sink);

	fetch_free(feed->fetch);
	feed->fetch = NULL;
	if (outcome == SINK_REFUSED)
		feed->counts.refused++;
	else
		feed->counts.failed++;
	note_failure(feed, outcome, cause, text);
	report(feed, outcome, NULL, text);
}

static void sink_on_publish(struct sink *sink, int64_t wall_ms, int64_t mono_ms)
{
	struct feed *feed = container_of(sink, struct feed, sink);
	struct fetch *fetch = feed->fetch;

	if (!fetch) {
		/* An answer without records, for which there was no memory at its beginning. */
		sink_on_drop(sink, SINK_FAILED, "memory", "no memory for this answer");
		alarm_set(feed->intake->alarms, &feed->settled, mono_ms);
		return;
	}
	feed->fetch = NULL;
	fetch->wall_ms = wall_ms;
	fetch->mono_ms = mono_ms;
	fetch->clock = clock_plausible(wall_ms) ? CHUNK_SYNCED : CHUNK_UNSYNCED;
	memcpy(fetch->state, sink->state, sink->state_len);
	fetch->state_len = sink->state_len;
	list_append(&feed->intake->pending, fetch);
	start_commit(feed->intake);
}

static void sink_on_unchanged(struct sink *sink)
{
	struct feed *feed = container_of(sink, struct feed, sink);

	fetch_free(feed->fetch);
	feed->fetch = NULL;
	feed->counts.unchanged++;
	note_answer(feed, clock_wall_ms());
	report(feed, SINK_UNCHANGED, NULL, "");
}

static const struct sink_ops intake_sink_ops = {
	.begin = sink_on_begin,
	.record = sink_on_record,
	.publish = sink_on_publish,
	.unchanged = sink_on_unchanged,
	.drop = sink_on_drop,
};

struct intake *intake_new(struct queue *queue, struct worker *worker, struct alarms *alarms, intake_on_report on_report,
                          void (*on_committed)(void *arg, struct queue_view *fresh), void *arg)
{
	struct intake *intake = calloc(1, sizeof *intake);

	if (!intake)
		return NULL;
	intake->queue = queue;
	intake->worker = worker;
	intake->alarms = alarms;
	intake->on_report = on_report;
	intake->on_committed = on_committed;
	intake->arg = arg;
	intake->job = (struct job){ .work = commit_work, .done = on_commit_done };
	intake->retry.on_ring = on_retry;
	intake->retry_ms = RETRY_FIRST_MS;
	list_init(&intake->pending);
	list_init(&intake->stuck);
	return intake;
}

struct sink *intake_sink(struct intake *intake, const char *source, size_t full)
{
	struct feed *feed = find_feed(intake, source);

	if (feed)
		return &feed->sink;
	feed = calloc(1, sizeof *feed);
	if (!feed)
		return NULL;
	feed->sink.ops = &intake_sink_ops;
	feed->sink.state_len = queue_source_state(intake->queue, source, feed->sink.state);
	feed->settled.on_ring = on_settled_alarm;
	feed->intake = intake;
	feed->full = full;
	snprintf(feed->name, sizeof feed->name, "%s", source);
	feed->next = intake->feeds;
	intake->feeds = feed;
	return &feed->sink;
}

const struct intake_counts *intake_counts(const struct intake *intake, const char *source)
{
	struct feed *feed = find_feed(intake, source);

	return feed ? &feed->counts : NULL;
}

const char *intake_error(const struct intake *intake)
{
	return intake->error;
}

bool intake_holds(const struct intake *intake, const char *source)
{
	return has_source(intake->stuck.first, source);
}

bool intake_settled(const struct intake *intake)
{
	return !intake->busy && !intake->pending.first;
}

void intake_free(struct intake *intake)
{
	if (!intake)
		return;
	alarm_cancel(&intake->retry);
	free_fetches(intake->pending.first);
	free_fetches(intake->stuck.first);
	while (intake->feeds) {
		struct feed *feed = intake->feeds;

		intake->feeds = feed->next;
		alarm_cancel(&feed->settled);
		fetch_free(feed->fetch);
		free(feed);
	}
	free(intake);
}
