/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/intake.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/rejects.h"
#include "agent/staging.h"
#include "base/clock.h"
#include "base/container.h"
#include "base/log.h"
#include "buffer/chunk.h"

#define COMMIT_MAX     (1 << 20) /* bytes of records in one transaction, or one fetch: what bounds the WAL */
#define FETCH_ALONE    8192      /* what a fetch costs beside its records: a row, at worst on pages of its own */
#define RETRY_FIRST_MS 1000
#define RETRY_MAX_MS   30000

/* A source as the intake sees it: its sink, the fetch that it builds, and what became of those before. */
struct feed {
	struct sink sink;
	struct intake *intake;
	char name[UNITS_NAME_MAX];
	size_t full;
	bool fetching;
	struct fetch *fetch;    /* being built; NULL between fetches and where memory ran out */
	struct fetch *complete; /* waits for its last full piece to be staged; then it is published */
	struct staging staging;
	struct reject_memory rejected;
	struct intake_counts counts;
	int64_t began_ms, took_ms; /* monotonic; the last poll, and how long its answer took */
	struct alarm settled;      /* for a fetch that settles without a commit */
	struct alarm room;         /* tells the collector that there is some */
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
	struct fetch *stale;      /* and what never will be */
	int status;               /* of the whole */
	int why;                  /* what is not was refused for: -EDQUOT, max_size alone, or what the card did */
	struct err err;
	struct queue_view *fresh;

	struct alarm retry;
	int64_t retry_ms;
	char error[ERR_MAX]; /* why answers wait in memory; "" while none does */
	int trouble;         /* the -errno of that; -EDQUOT: only max_size */
	bool full;           /* the buffer takes nothing new */
	bool synced;         /* the wall clock is right */
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
		.cause = feed->counts.cause, /* that of this poll: it was noted before */
		.status = feed->sink.status,
		.bytes = feed->sink.bytes,
		.took_ms = feed->took_ms,
	};

	feed->intake->on_report(feed->intake->arg, feed->name, &r);
}

static void report_waits(struct feed *feed, const char *text)
{
	const struct intake_report r = { .outcome = SINK_FAILED, .waits = true, .text = text, .cause = "" };

	feed->intake->on_report(feed->intake->arg, feed->name, &r);
}

/* A complete answer came: what was wrong with the source is over. */
static void note_answer(struct feed *feed, int64_t wall_ms)
{
	feed->counts.last_answer_ms = wall_ms;
	feed->counts.answered_at_ms = clock_mono_ms();
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
	counts->outcome = outcome;
	snprintf(counts->last_error, sizeof counts->last_error, "%s", text);
}

static void start_commit(struct intake *intake);

/* Who waits for these polls is told now: the answers themselves become durable once the buffer takes them. */
static void report_unsettled(struct intake *intake)
{
	struct err text = intake->err;

	err_prefix(&text, "the answer came and waits in memory");
	for (struct fetch *fetch = intake->failed; fetch; fetch = fetch->next)
		report_waits(find_feed(intake, fetch->source), text.text);
}

/* Where max_size is reached nothing fails: the courier makes room, or polls wait until the stores do. */
static void note_trouble(struct intake *intake, const char *text, int why)
{
	if (why == -EDQUOT && intake->trouble != -EDQUOT)
		log_notice("buffer.short", "an answer waits in memory until there is room: %s", text);
	snprintf(intake->error, sizeof intake->error, "%s", text);
	intake->trouble = why;
}

static void note_no_trouble(struct intake *intake)
{
	if (intake->stuck.first)
		return;
	for (const struct feed *feed = intake->feeds; feed; feed = feed->next)
		if (feed->staging.error[0])
			return;
	intake->retry_ms = RETRY_FIRST_MS;
	if (intake->trouble == -EDQUOT)
		log_notice("buffer.recovered", "what waited for room has found some");
	intake->error[0] = '\0';
	intake->trouble = 0;
}

static void note_commit_failed(struct intake *intake)
{
	report_unsettled(intake);
	list_append(&intake->stuck, intake->failed);
	intake->failed = NULL;
	note_trouble(intake, intake->err.text, intake->why);
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

/*
 * A complete answer that the buffer will never take. What the collector has made of it in the sink's state was never
 * committed: without any, the next answer is news, whatever it says.
 */
static void drop_answer(struct feed *feed, int status, const char *text)
{
	enum sink_outcome outcome = status == -EFBIG ? SINK_REFUSED : SINK_FAILED;

	feed->sink.state_len = 0;
	if (outcome == SINK_REFUSED)
		feed->counts.refused++;
	else
		feed->counts.failed++;
	note_failure(feed, outcome, status == -EFBIG ? "too-large" : "buffer", text);
	report(feed, outcome, NULL, text);
	alarm_set(feed->intake->alarms, &feed->settled, clock_mono_ms());
}

static void drop_stale(struct intake *intake)
{
	for (const struct fetch *fetch = intake->stale; fetch; fetch = fetch->next)
		drop_answer(find_feed(intake, fetch->source), -ESTALE,
		            "the first part of its answer was lost with a damaged buffer; it is asked again");
	free_fetches(intake->stale);
	intake->stale = NULL;
}

static void note_committed(struct intake *intake)
{
	struct fetch *committed = intake->committing;

	intake->committing = NULL;
	note_no_trouble(intake);
	for (struct fetch *fetch = committed; fetch; fetch = fetch->next)
		settle(intake, fetch);
	free_fetches(committed);
}

/* What could not be committed together is tried fetch by fetch: one that fits nowhere holds back no other source. */
static void commit_singly(struct intake *intake)
{
	struct fetch_list failed, held, stale;
	struct fetch *next;
	struct err err;

	intake->why = -EDQUOT;
	list_init(&failed);
	list_init(&held);
	list_init(&stale);
	for (struct fetch *fetch = intake->committing; fetch; fetch = next) {
		int r;

		next = fetch->next;
		fetch->next = NULL;
		r = has_source(failed.first, fetch->source) ? -EAGAIN : queue_commit(intake->queue, fetch, &err);
		if (r < 0 && r != -EAGAIN && r != -ESTALE && (r != -EDQUOT || intake->why == -EDQUOT)) {
			intake->why = r;
			intake->err = err;
		}
		list_append(r == -ESTALE ? &stale : r < 0 ? &failed : &held, fetch);
	}
	intake->committing = held.first;
	intake->failed = failed.first;
	intake->stale = stale.first;
}

static void commit_work(struct job *job)
{
	struct intake *intake = container_of(job, struct intake, job);

	intake->err.text[0] = '\0';
	intake->failed = NULL;
	intake->status = queue_commit(intake->queue, intake->committing, &intake->err);
	if (intake->status < 0)
		commit_singly(intake);
	intake->fresh = queue_view(intake->queue);
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
	drop_stale(intake);
	intake->on_committed(intake->arg, intake->fresh);
	if (intake->committing)
		note_committed(intake);
	start_commit(intake);
}

/* About what it adds to its transaction. */
static size_t bytes_at_hand(const struct fetch *fetch)
{
	size_t bytes = FETCH_ALONE;

	for (const struct fetch_piece *piece = fetch->first; piece; piece = piece->next)
		bytes += piece->records.len;
	return bytes;
}

/* The first of the list, as many as one transaction takes, at least one. */
static struct fetch *take_some(struct fetch_list *list)
{
	struct fetch *first = list->first, *last = first;
	size_t bytes = bytes_at_hand(first);

	while (last->next && bytes + bytes_at_hand(last->next) <= COMMIT_MAX) {
		last = last->next;
		bytes += bytes_at_hand(last);
	}
	list->first = last->next;
	if (!list->first)
		list_init(list);
	last->next = NULL;
	return first;
}

/* What was published while a commit was under way goes into the next one together. */
static void start_commit(struct intake *intake)
{
	if (intake->busy || !intake->pending.first)
		return;
	intake->busy = true;
	intake->committing = take_some(&intake->pending);
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

static void on_room(struct alarm *alarm)
{
	struct feed *feed = container_of(alarm, struct feed, room);

	if (!feed->sink.full && feed->sink.on_room)
		feed->sink.on_room(feed->sink.collector);
}

/*
 * A fetch under way has no room while one full piece is being staged and the next one is full too; what is begun is
 * brought to its end though the buffer be full, for which some room was left.
 */
static void judge_room(struct feed *feed)
{
	bool before = feed->sink.full;

	if (feed->staging.refused)
		feed->sink.full = false; /* the next record is told so */
	else if (feed->fetching)
		feed->sink.full = feed->fetch && fetch_is_large(feed->fetch);
	else
		feed->sink.full = feed->intake->full;
	if (before && !feed->sink.full)
		alarm_set(feed->intake->alarms, &feed->room, clock_mono_ms());
}

void intake_set_clock(struct intake *intake, bool synced)
{
	intake->synced = synced;
}

void intake_set_full(struct intake *intake, bool full)
{
	if (intake->full == full)
		return;
	intake->full = full;
	for (struct feed *feed = intake->feeds; feed; feed = feed->next)
		judge_room(feed);
}

void intake_retry(struct intake *intake)
{
	if (intake->retry.set)
		alarm_set(intake->alarms, &intake->retry, clock_mono_ms());
	for (struct feed *feed = intake->feeds; feed; feed = feed->next)
		staging_retry(&feed->staging);
}

static void publish(struct feed *feed, struct fetch *fetch)
{
	staging_release(&feed->staging);
	list_append(&feed->intake->pending, fetch);
	start_commit(feed->intake);
}

/* Who waits for the poll is told now; the answer itself goes on once the buffer takes it. */
static void note_staging_failed(struct feed *feed)
{
	struct err text;

	note_trouble(feed->intake, feed->staging.error, feed->staging.why);
	err_fail(&text, 0, "the answer comes, and what came of it waits in memory: %s", feed->staging.error);
	report_waits(feed, text.text);
}

/* It is too large by its last pieces, or the buffer has lost the first ones. */
static void drop_complete(struct feed *feed)
{
	struct err text = feed->staging.err;
	int status = feed->staging.refused;

	staging_drop(&feed->staging);
	fetch_free(feed->complete);
	feed->complete = NULL;
	drop_answer(feed, status, text.text);
}

/* A piece was staged, or could not be. */
static void on_staged(struct staging *staging)
{
	struct feed *feed = container_of(staging, struct feed, staging);
	struct fetch *complete = feed->complete;

	if (complete && staging->refused) {
		drop_complete(feed);
		return;
	}
	if (staging->error[0])
		note_staging_failed(feed);
	else
		note_no_trouble(feed->intake);
	feed->intake->on_committed(feed->intake->arg, NULL); /* there are new figures, and perhaps room to make */
	if (complete && !staging_busy(staging)) {
		feed->complete = NULL;
		publish(feed, complete);
	}
	if (feed->fetch)
		staging_take(staging, feed->fetch);
	judge_room(feed);
}

static void end_fetch(struct feed *feed)
{
	staging_drop(&feed->staging);
	fetch_free(feed->fetch);
	feed->fetch = NULL;
	feed->fetching = false;
	judge_room(feed);
}

static void sink_on_begin(struct sink *sink)
{
	struct feed *feed = container_of(sink, struct feed, sink);

	feed->counts.polls++;
	feed->began_ms = clock_mono_ms();
	feed->fetching = true;
	feed->fetch = fetch_new(feed->name);
	judge_room(feed);
}

static int sink_on_record(struct sink *sink, const void *data, size_t len)
{
	struct feed *feed = container_of(sink, struct feed, sink);
	int r = feed->fetch ? fetch_add(feed->fetch, data, len, feed->full) : -ENOMEM;

	if (feed->staging.refused)
		return feed->staging.refused;
	if (r == 0) {
		staging_take(&feed->staging, feed->fetch);
		judge_room(feed);
	}
	return r;
}

static void sink_on_drop(struct sink *sink, enum sink_outcome outcome, const char *cause, const char *text,
                         const struct sink_excerpt *excerpt)
{
	struct feed *feed = container_of(sink, struct feed, sink);
	struct intake *intake = feed->intake;

	end_fetch(feed);
	feed->took_ms = clock_mono_ms() - feed->began_ms;
	if (excerpt)
		rejects_keep(&feed->rejected, intake->queue, intake->worker, feed->name, cause, text, excerpt);
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
		/* An answer without records, for which there was no memory at its beginning; as drop_complete. */
		sink->state_len = 0;
		sink_on_drop(sink, SINK_FAILED, "memory", "no memory for this answer", NULL);
		alarm_set(feed->intake->alarms, &feed->settled, mono_ms);
		return;
	}
	feed->fetch = NULL;
	feed->fetching = false;
	feed->took_ms = mono_ms - feed->began_ms;
	fetch->wall_ms = wall_ms;
	fetch->mono_ms = mono_ms;
	fetch->clock = feed->intake->synced && clock_plausible(wall_ms) ? CHUNK_SYNCED : CHUNK_UNSYNCED;
	memcpy(fetch->state, sink->state, sink->state_len);
	fetch->state_len = sink->state_len;
	if (staging_busy(&feed->staging))
		feed->complete = fetch;
	else
		publish(feed, fetch);
	judge_room(feed);
}

static void sink_on_unchanged(struct sink *sink)
{
	struct feed *feed = container_of(sink, struct feed, sink);

	end_fetch(feed);
	feed->took_ms = clock_mono_ms() - feed->began_ms;
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

	if (feed) {
		feed->full = full;
		return &feed->sink;
	}
	feed = calloc(1, sizeof *feed);
	if (!feed)
		return NULL;
	feed->sink.ops = &intake_sink_ops;
	feed->sink.state_len = queue_source_state(intake->queue, source, feed->sink.state);
	feed->settled.on_ring = on_settled_alarm;
	feed->room.on_ring = on_room;
	feed->intake = intake;
	feed->full = full;
	snprintf(feed->name, sizeof feed->name, "%s", source);
	feed->staging = (struct staging){ .queue = intake->queue,
		                          .worker = intake->worker,
		                          .alarms = intake->alarms,
		                          .source = feed->name,
		                          .on_step = on_staged };
	staging_init(&feed->staging);
	feed->sink.full = intake->full;
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

int intake_trouble(const struct intake *intake)
{
	return intake->trouble;
}

bool intake_holds(const struct intake *intake, const char *source)
{
	const struct feed *feed = find_feed(intake, source);

	return has_source(intake->stuck.first, source) || (feed && feed->complete && feed->staging.error[0]);
}

/* A staging that fails is not waited for: nothing of its fetch was ever acknowledged. */
static bool is_staging(const struct intake *intake)
{
	for (const struct feed *feed = intake->feeds; feed; feed = feed->next)
		if (feed->staging.working && !feed->staging.error[0])
			return true;
	return false;
}

bool intake_settled(const struct intake *intake)
{
	return !intake->busy && !intake->pending.first && !is_staging(intake);
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
		alarm_cancel(&feed->room);
		staging_done(&feed->staging);
		fetch_free(feed->fetch);
		fetch_free(feed->complete);
		free(feed);
	}
	free(intake);
}
