/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SIGHUP: the configuration is read again on the loop, told to the queue by its worker, and then to the running parts.
 * One reload at a time; none while an audit reads the configuration. A file with mistakes changes nothing.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/daemon.h"
#include "agent/opening.h"
#include "base/clock.h"
#include "base/container.h"
#include "base/log.h"

#define MISTAKES_TOLD 20

static void note_refused(struct agent *a, const char *why)
{
	a->reload.refused_ms = clock_wall_ms();
	snprintf(a->reload.refused, sizeof a->reload.refused, "%s", why);
}

/* Each line of what config_load says, as one line of the log; the first is kept. */
static void tell_mistakes(struct agent *a, char *text)
{
	char *rest = text, *line = strsep(&rest, "\n");

	note_refused(a, line);
	log_error("config.refused", "%s", line);
	for (int i = 1; i < MISTAKES_TOLD && (line = strsep(&rest, "\n")); i++)
		if (*line)
			log_error("config.refused", "%s", line);
	log_error("config.refused", "the configuration was not reloaded; the one before runs on");
}

/* NULL: it was told why. */
static struct config *load(struct agent *a)
{
	struct config *now = NULL;
	char *text = NULL;
	size_t size = 0;
	FILE *errors = open_memstream(&text, &size);

	if (!errors) {
		note_refused(a, "no memory");
		log_error("config.refused", "no memory; the configuration before runs on");
		return NULL;
	}
	if (config_load(a->config->path, CONFIG_RUN, errors, &now) < 0)
		now = NULL;
	fclose(errors);
	if (!now)
		tell_mistakes(a, text);
	free(text);
	return now;
}

/* As it is, also in what `show config` says. */
static void keep(char **now, const char *before)
{
	char *kept = strdup(before);

	if (!kept)
		return;
	free(*now);
	*now = kept;
}

/* What only a restart can change. */
static void put_off(struct agent *a, char **now, const char *before, const char *name)
{
	char *restart = a->reload.restart;
	size_t len = strlen(restart);

	if (strcmp(*now, before) == 0)
		return;
	log_warning("config.restart", "%s = \"%s\" wants a restart; until then it is \"%s\"", name, *now, before);
	snprintf(restart + len, sizeof a->reload.restart - len, "%s%s = \"%s\"", len ? ", " : "", name, *now);
	keep(now, before);
}

/* A socket's path that cannot be taken leaves the old one in place. */
static void move_socket(struct agent *a, struct config *now)
{
	struct api *api, *before = a->api;
	struct err err;

	if (strcmp(now->socket, a->config->socket) == 0)
		return;
	if (api_start(&a->loop, now->socket, &agent_backend, a, &api, &err) < 0) {
		log_error("config.socket", "%s; the API stays at \"%s\"", err.text, a->config->socket);
		keep(&now->socket, a->config->socket);
		return;
	}
	a->api = api;
	if (before)
		api_close(before, NULL, NULL);
}

static void warn_of_full(const struct agent *a)
{
	bool drops = a->config->on_full == CONFIG_DROP_OLDEST;
	char size[UNITS_TEXT_MAX], taken[UNITS_TEXT_MAX];

	if (a->reload.taken)
		log_warning(
		        "buffer.over",
		        "max_size = \"%s\" is no more than what waits in the buffer, which takes %s now: %s; raise it "
		        "again, or wait until more is delivered",
		        units_size(a->config->max_size, size), units_volume(a->reload.taken, taken),
		        drops ? "the oldest batches are dropped until there is room"
		              : "polls wait until there is room");
}

static void take(struct agent *a)
{
	struct config *now = a->reload.now, *before = a->config;
	char changes[CONFIG_CHANGES_MAX], mill[CONFIG_COUNT_MAX];

	a->reload.refused_ms = 0;
	move_socket(a, now);
	config_changes(now, before, changes);
	config_keep(now, before);
	a->config = now;
	a->reload.now = NULL;
	log_init((enum log_format)now->log);
	courier_configure(a->courier, now, before);
	clockwork_configure(a->clockwork, now);
	miller_configure(a, before);
	if (a->polling && agent_configure_sources(a, before) < 0)
		log_error("source.refused", "no memory for a source; reload the configuration to try again");
	config_free(before);
	warn_of_full(a);
	config_count_mill(now->mill, mill);
	log_notice("agent.reloaded", "configuration %s: sources: %zu, stores: %zu%s; %s", now->path, now->n_sources,
	           now->n_stores, mill, changes);
}

static int64_t taken_if_full(struct queue *queue)
{
	struct queue_view *view = queue_view(queue);
	int64_t taken = view && view->full ? view->file_bytes + view->wal_bytes : 0;

	queue_view_free(view);
	return taken;
}

static void work(struct job *job)
{
	struct agent *a = container_of(job, struct agent, reload.job);

	a->reload.taken = 0;
	a->reload.status = opening_configure(a->reload.now, a->queue, &a->reload.err);
	if (a->reload.status == 0 && a->reload.now->max_size < a->config->max_size)
		a->reload.taken = taken_if_full(a->queue);
}

static void on_worked(struct job *job)
{
	struct agent *a = container_of(job, struct agent, reload.job);

	if (a->reload.status == 0 && !a->stopping) {
		take(a);
	} else {
		if (!a->stopping) {
			note_refused(a, a->reload.err.text);
			log_error("config.refused", "%s; the configuration before runs on", a->reload.err.text);
		}
		config_free(a->reload.now);
		a->reload.now = NULL;
	}
	reload_go_on(a);
}

void reload_begin(struct agent *a)
{
	struct config *now;

	a->reload.due = a->reload.now || a->audit || a->examine || !a->api;
	if (a->reload.due || a->stopping)
		return;
	now = load(a);
	if (!now)
		return;
	a->reload.restart[0] = '\0';
	put_off(a, &now->device, a->config->device, "device");
	put_off(a, &now->buffer_path, a->config->buffer_path, "the buffer's path");
	a->reload.now = now;
	a->reload.status = -ECANCELED; /* stands where the worker gives the job back unworked */
	a->reload.job = (struct job){ .work = work, .done = on_worked };
	worker_submit(a->worker, &a->reload.job);
}

void reload_go_on(struct agent *a)
{
	if (a->reload.due)
		reload_begin(a);
}
