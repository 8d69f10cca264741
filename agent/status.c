/* SPDX-License-Identifier: Apache-2.0 */
/* What status says, from the parts' own figures: no disk, no network, so it answers whatever hangs. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/daemon.h"
#include "base/clock.h"

#define LOST_TOLD_MS  (10 * 60 * 1000)      /* since the last batch was dropped */
#define UNSYNCED_MS   (5 * 60 * 1000)       /* longer, and the clock does not come right by itself */
#define SALVAGED_MS   (24 * 60 * 60 * 1000) /* for so long a salvage is told: somebody looks once a day */
#define NEVER_WELL_MS 60000 /* of failing from the start on: longer, and it is the settings that are wrong */

static const struct queue_source_view *find_figures(const struct queue_view *view, const char *source)
{
	for (size_t i = 0; i < view->n_sources; i++)
		if (strcmp(view->sources[i].source, source) == 0)
			return &view->sources[i];
	return NULL;
}

/*
 * Judged by the time since the last complete answer, or since it was configured, if that is later. A source that never
 * gave one and fails does not get the patience that goes with its `every`: somebody has just written its settings.
 */
static const char *judge_source(const struct agent *a, const struct agent_source *source,
                                const struct intake_counts *counts)
{
	int64_t since;

	if (!source->collector)
		return "disabled";
	if (a->full || (intake_trouble(a->intake) == -EDQUOT && intake_holds(a->intake, source->config->name)))
		return "paused";
	since = counts->answered_at_ms > source->since_ms ? counts->answered_at_ms : source->since_ms;
	if (clock_mono_ms() - since > source->collector->ops->patience_ms(source->collector))
		return "stale";
	if (counts->cause[0] && !counts->last_answer_ms && clock_mono_ms() - counts->failing_since_ms >= NEVER_WELL_MS)
		return "stale";
	if (counts->cause[0])
		return "failing";
	return counts->last_answer_ms ? "fresh" : "waiting";
}

static void fill_figures(struct source_view *v, const struct queue_source_view *figures)
{
	v->records = figures->records;
	v->fetches = figures->fetches;
	v->unsealed_records = figures->unsealed_records;
	v->waiting_batches = figures->waiting_batches;
	v->waiting_records = figures->waiting_records;
	v->dropped_records = figures->dropped_records;
	v->damaged_records = figures->damaged_records;
	v->oldest_ms = figures->oldest_ms;
}

/* Monotonic to wall, for people; 0 where nothing is planned. */
static int64_t to_wall(int64_t mono_ms)
{
	return mono_ms == ALARM_NEVER ? 0 : clock_wall_ms() + mono_ms - clock_mono_ms();
}

static void fill_source(const struct agent *a, const struct agent_source *source, struct source_view *v)
{
	const struct intake_counts *counts = intake_counts(a->intake, source->config->name);

	v->state = judge_source(a, source, counts);
	v->last_answer_ms = counts->last_answer_ms;
	v->last_change_ms = counts->last_change_ms;
	v->polls = counts->polls;
	v->unchanged = counts->unchanged;
	v->refused = counts->refused;
	v->failed = counts->failed;
	v->last_error = counts->last_error;
	v->origin = "";
	if (source->collector) {
		v->origin = source->collector->ops->origin(source->collector);
		if (strcmp(v->state, "paused") != 0)
			v->next_poll_ms = to_wall(source->collector->ops->next_ms(source->collector));
	}
}

/* One that waits for its predecessor's last fetch has nothing to say for itself yet. */
static void fill_configured(const struct agent *a, const struct config_source *config, struct source_view *v)
{
	const struct agent_source *source = agent_find_source(a, config->name);

	v->name = config->name;
	v->kind = config->kind->kind;
	v->state = "waiting";
	v->origin = v->last_error = "";
	if (source)
		fill_source(a, source, v);
}

/* It neither fails nor is stale by itself: where it brings nothing, something else does. */
static void fill_summary(const struct agent *a, struct source_view *v)
{
	const struct intake_counts *counts = intake_counts(a->intake, UNITS_POLLS);

	v->name = UNITS_POLLS;
	v->kind = "polls";
	v->origin = v->last_error = "";
	v->state = counts->last_answer_ms ? "fresh" : "waiting";
	v->last_answer_ms = counts->last_answer_ms;
	v->last_change_ms = counts->last_change_ms;
	v->next_poll_ms = to_wall(summary_next_ms(a->summary));
}

static void fill_gone(struct source_view *v, const char *name)
{
	v->name = name;
	v->kind = v->origin = v->last_error = "";
	v->state = "gone";
}

/* The configured sources, then the built-in one, once it has told something, and those that are gone from the file
 * while something of them waits. */
static int fill_sources(const struct agent *a, struct status_view *v)
{
	const struct queue_view *view = courier_view(a->courier);
	const struct queue_source_view *figures;

	v->sources = calloc(a->config->n_sources + view->n_sources + 1, sizeof *v->sources);
	if (!v->sources)
		return -ENOMEM;
	for (size_t i = 0; i < a->config->n_sources; i++) {
		struct source_view *source = &v->sources[v->n_sources++];

		fill_configured(a, a->config->sources[i], source);
		figures = find_figures(view, source->name);
		if (figures)
			fill_figures(source, figures);
	}
	for (size_t i = 0; i < view->n_sources; i++) {
		struct source_view *source = &v->sources[v->n_sources];

		figures = &view->sources[i];
		if (agent_find_source(a, figures->source))
			continue;
		if (strcmp(figures->source, UNITS_POLLS) == 0)
			fill_summary(a, source);
		else if (figures->unsealed_records || figures->waiting_batches)
			fill_gone(source, figures->source);
		else
			continue;
		fill_figures(source, figures);
		v->n_sources++;
	}
	return 0;
}

static int fill_stores(const struct agent *a, struct status_view *v)
{
	const struct queue_view *view = courier_view(a->courier);

	v->stores = calloc(a->config->n_stores + 1, sizeof *v->stores);
	if (!v->stores)
		return -ENOMEM;
	for (size_t i = 0; i < a->config->n_stores; i++) {
		struct store_view *store = &v->stores[v->n_stores];
		struct courier_store s;

		if (!courier_store(a->courier, a->config->stores[i]->name, &s))
			continue;
		v->n_stores++;
		store->name = s.name;
		store->kind = s.kind;
		store->place = s.place;
		store->state = s.state;
		store->last_error = s.last_error;
		store->parked_batches = s.parked;
		store->last_delivered_ms = s.last_delivered_ms;
		store->next_try_ms = to_wall(s.next_try_ms);
		for (size_t k = 0; k < view->n_stores; k++)
			if (strcmp(view->stores[k].store, s.name) == 0) {
				store->waiting_batches = view->stores[k].waiting_batches;
				store->waiting_bytes = view->stores[k].waiting_bytes;
				store->delivered_batches = view->stores[k].delivered_batches;
			}
	}
	return 0;
}

static void fill_buffer(const struct agent *a, struct buffer_view *v)
{
	const struct queue_view *view = courier_view(a->courier);

	v->path = a->config->buffer_path;
	v->state = health_name(health_judge(a, &v->last_error));
	v->on_full = a->config->on_full == CONFIG_PAUSE ? "pause" : "drop-oldest";
	v->max_bytes = view->max_bytes;
	v->room_bytes = view->room_bytes;
	v->salvaged_ms = view->salvage.at_ms;
	v->aside = view->salvage.aside;
	v->file_bytes = view->file_bytes;
	v->wal_bytes = view->wal_bytes;
	for (size_t i = 0; i < view->n_sources; i++) {
		const struct queue_source_view *source = &view->sources[i];

		v->waiting_records += source->unsealed_records + source->waiting_records;
		v->waiting_batches += source->waiting_batches;
		if (source->oldest_ms && (!v->oldest_ms || source->oldest_ms < v->oldest_ms))
			v->oldest_ms = source->oldest_ms;
	}
}

static void fill_clock(const struct agent *a, struct clock_view *v)
{
	struct clockwork_view clock;

	clockwork_view(a->clockwork, &clock);
	v->state = clockwork_state_names[clock.state];
	v->unsynced_records = courier_view(a->courier)->unsynced_records;
	v->wait_until_ms = clock.state == CLOCKWORK_WAITING ? to_wall(clock.wait_until_ms) : 0;
}

static void add_problem(struct status_view *v, const char *remedy, const char *kind, const char *name, const char *what)
{
	struct problem_view *problem = &v->problems[v->n_problems++];

	snprintf(problem->what, sizeof problem->what, "%s%s%s%s: %s", kind, *name ? " \"" : "", name, *name ? "\"" : "",
	         what);
	snprintf(problem->remedy, sizeof problem->remedy, "%s", remedy);
}

static const char *store_remedy(const struct store_view *store)
{
	if (store->parked_batches)
		return "`millrace show batches` and `millrace retry BATCH` say what stands there; move it away, and "
		       "retry "
		       "again";
	if (strcmp(store->state, "denied") == 0)
		return "once it is mended, `millrace flush` or `millrace retry BATCH` tries at once; else every 5 "
		       "minutes";
	return "once it is mended, delivery goes on by itself; `millrace flush` tries at once";
}

static const char *text_setting(const struct config_source *config, const char *name)
{
	const struct option *option = option_find(config->kind->options, name);
	const char *text = option ? *(char *const *)((const char *)config->settings + option->offset) : NULL;

	return text ? text : "";
}

/* What its origin shows is all of the request: no login, no query, no proxy and no headers. */
static bool is_plain(const struct config_source *config)
{
	const struct option *headers = option_find(config->kind->options, "headers");
	const char *settings = config->settings;

	if (headers && ((const struct option_pairs *)(settings + headers->offset))->n > 0)
		return false;
	return !*text_setting(config, "proxy") && !strpbrk(text_setting(config, "url"), "?@");
}

static void add_stale(const struct agent *a, struct status_view *v, const struct source_view *source)
{
	const struct intake_counts *counts = intake_counts(a->intake, source->name);
	bool plain = is_plain(agent_find_source(a, source->name)->config);
	char remedy[sizeof v->problems->remedy];

	if (strstr(source->last_error, "; raise max_"))
		snprintf(remedy, sizeof remedy,
		         "where such large ones are meant, raise the setting that it names and reload");
	else
		snprintf(remedy, sizeof remedy, "%ssee whether the address %s: %s%s",
		         counts->outcome == SINK_REFUSED ? "see what came (millrace show rejected); " : "",
		         counts->outcome == SINK_REFUSED ? "still gives what the source's settings say"
		                                         : "answers on this machine",
		         plain ? "curl -v "
		               : "with the source's own query, headers and proxy, which are not shown here",
		         plain ? source->origin : "");
	add_problem(v, remedy, "source", source->name,
	            *source->last_error ? source->last_error : "no answer for too long");
}

static bool all_stores_well(const struct status_view *v)
{
	for (size_t i = 0; i < v->n_stores; i++)
		if (*v->stores[i].last_error)
			return false;
	return true;
}

/* It is told for a while after it has ended: nobody may have looked meanwhile, and what is lost is worth a look. */
static void add_lost(const struct agent *a, struct status_view *v, const char *remedy)
{
	const struct courier_lost *lost = courier_lost(a->courier);
	bool over = strcmp(v->buffer.state, "full") != 0 && all_stores_well(v);
	char what[sizeof v->problems->what], at[UNITS_TEXT_MAX];

	if (!lost->at_ms || clock_mono_ms() - lost->at_mono_ms >= LOST_TOLD_MS)
		return;
	snprintf(what, sizeof what,
	         "%llu records were dropped since the start to make room (on_full = \"drop-oldest\"), the last at %s%s",
	         (unsigned long long)lost->records, units_time(lost->at_ms, at),
	         over ? "; it has room again, and the stores are well" : "");
	add_problem(v, over ? "`millrace audit` tells which; nothing else is to be done" : remedy, "buffer", "", what);
}

/* max_size is reached: polls wait, or the oldest records go. */
static void add_want_of_room(const struct agent *a, struct status_view *v)
{
	static const char remedy[] = "mend what keeps the stores away or slow, or raise max_size and reload";
	bool drops = a->config->on_full == CONFIG_DROP_OLDEST;

	if (strcmp(v->buffer.state, "full") == 0)
		add_problem(v, remedy, "buffer", "",
		            drops ? "it is full: what is left of max_size is kept for sealing and delivery, and the "
		                    "oldest records are dropped (on_full = \"drop-oldest\")"
		                  : "it is full: what is left of max_size is kept for sealing and delivery, and polls "
		                    "wait");
	add_lost(a, v, remedy);
}

static void add_unsynced(const struct agent *a, struct status_view *v)
{
	struct clockwork_view clock;
	char text[160], left[UNITS_TEXT_MAX];

	clockwork_view(a->clockwork, &clock);
	if (clock.state == CLOCKWORK_SYNCED || clock_mono_ms() - clock.since_ms < UNSYNCED_MS)
		return;
	snprintf(text, sizeof text, "it is not synchronised; %llu records are kept back for %s at most",
	         (unsigned long long)v->clock.unsynced_records, units_age(clock.wait_until_ms - clock_mono_ms(), left));
	add_problem(
	        v,
	        "see why no time comes (timedatectl timesync-status): the network, or NTP= in "
	        "/etc/systemd/timesyncd.conf; where the clock is right by other means, set clock = \"trust\" and "
	        "reload",
	        "clock", "",
	        clock.state == CLOCKWORK_WAITING
	                ? text
	                : "it is not synchronised; records are sealed with the time that there is, as \"unsynced\"");
}

static void add_reload(struct status_view *v)
{
	char what[sizeof v->problems->what], at[UNITS_TEXT_MAX];

	if (v->config.refused_ms) {
		snprintf(what, sizeof what, "the reload at %s was refused: %s", units_time(v->config.refused_ms, at),
		         v->config.last_error);
		add_problem(v,
		            "the one before runs on; mend the file (millrace check tells all that is wrong with it), "
		            "then reload again",
		            "configuration", "", what);
	}
	if (*v->config.restart) {
		snprintf(what, sizeof what, "%s waits for a restart", v->config.restart);
		add_problem(v, "restart the daemon, or take it back and reload", "configuration", "", what);
	}
}

static void add_buffer(const struct agent *a, struct status_view *v)
{
	const char *text;
	enum health health = health_judge(a, &text);
	char what[sizeof v->problems->what];

	if (!*health_remedy(health))
		return;
	snprintf(what, sizeof what, "%s: %s", health_name(health), text);
	add_problem(v, health_remedy(health), "buffer", "", what);
}

static void add_salvaged(const struct agent *a, struct status_view *v)
{
	const struct queue_salvage *salvage = &courier_view(a->courier)->salvage;
	char what[sizeof v->problems->what], remedy[sizeof v->problems->remedy], at[UNITS_TEXT_MAX];

	if (!salvage->at_ms || clock_mono_ms() - a->salvaged_ms >= SALVAGED_MS)
		return;
	snprintf(what, sizeof what,
	         "it was damaged, and salvaged at %s: batches taken over: %llu, unsealed records: %llu; records known "
	         "to "
	         "be lost: %llu, sources that may have lost more: %llu",
	         units_time(salvage->at_ms, at), (unsigned long long)salvage->batches,
	         (unsigned long long)salvage->records, (unsigned long long)salvage->lost_records,
	         (unsigned long long)salvage->open_ends);
	snprintf(remedy, sizeof remedy,
	         "`millrace audit` tells which; see whether the card fails (dmesg). What no store had and could "
	         "be read was taken over; the damaged file is %s: delete it, with its -wal, once nobody wants to look "
	         "into it",
	         salvage->aside);
	add_problem(v, remedy, "buffer", "", what);
}

static const char mended[] = "once it is mended it goes on by itself, within a minute";

static const char *machine_problem(const struct mill_machine_view *machine)
{
	bool away = machine->machine.failures > 0 || machine->machine.next_try_ms != ALARM_NEVER;

	return machine->known && (machine->machine.refuses || away) ? machine->machine.reason : NULL;
}

static void add_job(struct status_view *v, const struct mill_job_view *job)
{
	char what[sizeof v->problems->what], remedy[sizeof v->problems->remedy];

	snprintf(what, sizeof what, "%u of its runs are parked, the newest is %s", job->parked, job->last_parked);
	snprintf(remedy, sizeof remedy,
	         "`millrace show run %s` tells why; then `millrace retry %s`, or `millrace cancel %s`",
	         job->last_parked, job->last_parked, job->last_parked);
	if (job->trouble && job->run)
		add_problem(v, mended, "job", job->name, job->waits_for);
	else if (job->trouble || job->parked > 0)
		add_problem(v, remedy, "job", job->name, job->trouble ? job->waits_for : what);
}

static void add_machines(struct status_view *v, const struct mill_view *mill)
{
	const char *text;

	for (size_t i = 0; i < mill->n_machines; i++) {
		text = machine_problem(&mill->machines[i]);
		if (text)
			add_problem(v,
			            mill->machines[i].machine.refuses
			                    ? mended
			                    : "see whether it wakes (docs/mill.md); `millrace wake` tries at once",
			            "machine", mill->machines[i].name, text);
	}
	for (size_t i = 0; i < mill->n_jobs; i++)
		add_job(v, &mill->jobs[i]);
}

static bool is_stale(const struct source_view *source)
{
	return strcmp(source->state, "stale") == 0;
}

static int fill_problems(const struct agent *a, struct status_view *v)
{
	struct mill_view *mill = a->mill ? mill_view(a->mill) : NULL;
	size_t most = v->n_stores + 7 + (mill ? mill->n_machines + mill->n_jobs : 0);

	for (size_t i = 0; i < v->n_sources; i++)
		most += is_stale(&v->sources[i]);
	v->problems = calloc(most, sizeof *v->problems);
	if (!v->problems) {
		mill_view_free(mill);
		return -ENOMEM;
	}
	for (size_t i = 0; i < v->n_sources; i++)
		if (is_stale(&v->sources[i]))
			add_stale(a, v, &v->sources[i]);
	for (size_t i = 0; i < v->n_stores; i++) /* but what is the buffer's trouble is told once, as its own */
		if (*v->stores[i].last_error && strcmp(v->stores[i].last_error, v->buffer.last_error) != 0)
			add_problem(v, store_remedy(&v->stores[i]), "store", v->stores[i].name,
			            v->stores[i].last_error);
	add_reload(v);
	add_want_of_room(a, v);
	add_unsynced(a, v);
	add_buffer(a, v);
	add_salvaged(a, v);
	if (mill)
		add_machines(v, mill);
	mill_view_free(mill);
	return 0;
}

int status_fill(const struct agent *a, struct status_view *v)
{
	int r;

	v->version = MILLRACE_VERSION;
	v->device = a->config->device;
	v->boot = courier_view(a->courier)->boot;
	v->now_ms = clock_wall_ms();
	v->started_ms = a->started_ms;
	v->config = (struct config_view){ .path = a->config->path,
		                          .refused_ms = a->reload.refused_ms,
		                          .last_error = a->reload.refused_ms ? a->reload.refused : "",
		                          .restart = a->reload.restart };
	fill_buffer(a, &v->buffer);
	fill_clock(a, &v->clock);
	r = fill_sources(a, v);
	if (r == 0)
		r = fill_stores(a, v);
	return r == 0 ? fill_problems(a, v) : r;
}
