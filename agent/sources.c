/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's sources: they come, and go when their last fetch has ended (agent/daemon.h). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/daemon.h"
#include "base/clock.h"
#include "base/container.h"
#include "base/log.h"
#include "buffer/chunk.h"

#define SPREAD_MS 30000 /* within which the first polls of all sources begin */
#define SWEEP_MS  100

struct agent_source *agent_find_source(const struct agent *a, const char *name)
{
	struct agent_source *source = a->sources;

	while (source && (source->own || strcmp(source->config->name, name) != 0))
		source = source->next;
	return source;
}

static struct agent_source *find_config(const struct agent *a, const struct config_source *config)
{
	struct agent_source *source = a->sources;

	while (source && source->config != config)
		source = source->next;
	return source;
}

bool agent_has_source(const struct agent *a, const char *name)
{
	const struct agent_source *source = a->sources;

	while (source && strcmp(source->config->name, name) != 0)
		source = source->next;
	return source != NULL;
}

static size_t piece_size(const struct config_source *config)
{
	return config->batch.max_bytes < CHUNK_FULL ? (size_t)config->batch.max_bytes : CHUNK_FULL;
}

static void free_source(struct agent_source *source)
{
	if (source->collector)
		source->collector->ops->free(source->collector);
	config_free_source(source->own);
	free(source);
}

static int add_source(struct agent *a, const struct config_source *config)
{
	struct agent_source **end = &a->sources, *source = calloc(1, sizeof *source);
	int r = source ? 0 : -ENOMEM;

	if (r == 0)
		source->sink = intake_sink(a->intake, config->name, piece_size(config));
	if (r == 0 && !source->sink)
		r = -ENOMEM;
	if (r == 0 && config->enabled)
		r = config->kind->new (&a->env, config->settings, source->sink, &source->collector);
	if (r == 0 && source->collector)
		r = summary_add(a->summary, config->name);
	if (r < 0) {
		if (source)
			free_source(source);
		return r;
	}
	source->config = config;
	source->since_ms = clock_mono_ms();
	while (*end)
		end = &(*end)->next;
	*end = source;
	return 0;
}

static size_t count_missing(const struct agent *a)
{
	size_t n = 0;

	for (size_t i = 0; i < a->config->n_sources; i++)
		n += !agent_has_source(a, a->config->sources[i]->name);
	return n;
}

/* The first polls of those that are new are spread out, so that many do not begin in one moment. */
static int add_sources(struct agent *a)
{
	size_t n = count_missing(a), k = 0;
	int r = 0;

	for (size_t i = 0; i < a->config->n_sources; i++) {
		const struct config_source *config = a->config->sources[i];
		struct agent_source *source = NULL;
		int added = agent_has_source(a, config->name) ? 1 : add_source(a, config);

		if (added < 0)
			r = added;
		if (added == 0)
			source = find_config(a, config);
		if (source && source->collector)
			source->collector->ops->start(source->collector, (int64_t)k * SPREAD_MS / (int64_t)n);
		k += added <= 0;
	}
	return r;
}

static bool is_at_rest(const struct agent_source *source)
{
	return !source->collector || source->collector->ops->idle(source->collector);
}

/* Frees what has ended; whether something has not. */
static bool sweep(struct agent *a)
{
	bool left = false;

	for (struct agent_source **at = &a->sources; *at;) {
		struct agent_source *source = *at;

		if (!source->own || !is_at_rest(source)) {
			left |= source->own != NULL;
			at = &source->next;
			continue;
		}
		*at = source->next;
		free_source(source);
	}
	return left;
}

static void on_sweep(struct alarm *alarm)
{
	struct agent *a = container_of(alarm, struct agent, sweep);

	if (sweep(a))
		alarm_set(&a->alarms, alarm, clock_mono_ms() + SWEEP_MS);
	if (add_sources(a) < 0)
		log_error("source.refused", "no memory for a source; reload the configuration to try again");
	records_end_gone(a);
}

static bool is_configured(const struct agent *a, const struct config_source *config)
{
	for (size_t i = 0; i < a->config->n_sources; i++)
		if (a->config->sources[i] == config)
			return true;
	return false;
}

/* Who waits for a poll that was only held back is told that it does not come. */
static void stop_source(struct agent *a, struct agent_source *source)
{
	const struct intake_report never = { .outcome = SINK_FAILED,
		                             .text = "the source was reloaded before it was polled" };

	source->collector->ops->stop(source->collector);
	if (is_at_rest(source))
		backend_on_report(a, source->config->name, &never);
}

int agent_configure_sources(struct agent *a, struct config *before)
{
	int r;

	for (struct agent_source *source = a->sources; source; source = source->next) {
		if (source->own)
			continue;
		if (is_configured(a, source->config)) {
			intake_sink(a->intake, source->config->name, piece_size(source->config));
			continue;
		}
		source->own = config_take_source(before, source->config->name);
		summary_remove(a->summary, source->config->name);
		if (source->collector)
			stop_source(a, source);
	}
	a->sweep.on_ring = on_sweep;
	if (sweep(a))
		alarm_set(&a->alarms, &a->sweep, clock_mono_ms() + SWEEP_MS);
	r = add_sources(a);
	records_end_gone(a);
	return r;
}

void agent_free_sources(struct agent *a)
{
	alarm_cancel(&a->sweep);
	while (a->sources) {
		struct agent_source *source = a->sources;

		a->sources = source->next;
		free_source(source);
	}
}
