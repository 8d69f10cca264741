/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/opening.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/clockwork.h"
#include "board/board.h"
#include "cli/answer.h"
#include "cli/cli.h"

int opening_status(int r)
{
	switch (r) {
	case -ENOENT:
	case -ENOTDIR:
	case -EACCES:
	case -EPERM:
		return CLI_CANTCREAT;
	case -EBUSY:
	case -EADDRINUSE:
		return CLI_TEMPFAIL;
	case -EBADMSG:
	case -EMEDIUMTYPE:
	case -EPROTONOSUPPORT:
		return CLI_DATA;
	default:
		return CLI_ATTENTION;
	}
}

static void fill_route(struct queue_route *route, const struct config_batch *batch, const struct option_names *stores)
{
	route->max_bytes = batch->max_bytes;
	route->max_records = batch->max_records;
	route->max_age_ms = batch->max_age_ms;
	route->stores = stores ? (const char *const *)stores->names : NULL;
	route->n_stores = stores ? stores->n : 0;
}

static int tell_routes(const struct config *config, struct queue *queue, struct err *err)
{
	const char **stores = calloc(config->n_stores + 1, sizeof *stores);
	struct queue_route *routes = calloc(config->n_sources + 1, sizeof *routes);
	struct queue_route fallback = { 0 };
	int r = -ENOMEM;

	if (stores && routes) {
		for (size_t i = 0; i < config->n_stores; i++)
			stores[i] = config->stores[i]->name;
		for (size_t i = 0; i < config->n_sources; i++) {
			const struct config_source *source = config->sources[i];

			snprintf(routes[i].source, sizeof routes[i].source, "%s", source->name);
			fill_route(&routes[i], &source->batch, &source->stores);
		}
		fill_route(&fallback, &config->batch, NULL);
		r = queue_configure(queue, stores, config->n_stores, routes, config->n_sources, &fallback, err);
	}
	free(stores);
	free(routes);
	return r;
}

static int tell_jobs(const struct config *config, struct queue *queue, struct err *err)
{
	const struct config_mill *mill = config->mill;
	struct ledger_job *jobs = calloc(mill->n_jobs + 1, sizeof *jobs);
	int r;

	if (!jobs)
		return err_fail(err, -ENOMEM, "no memory");
	for (size_t i = 0; i < mill->n_jobs; i++)
		jobs[i] = (struct ledger_job){ .name = mill->jobs[i].name,
			                       .store = mill->jobs[i].store,
			                       .sources = (const char *const *)mill->jobs[i].sources.names,
			                       .n_sources = mill->jobs[i].sources.n };
	r = ledger_configure(queue, jobs, mill->n_jobs, err);
	free(jobs);
	return r;
}

static int64_t largest_record(const struct config *config)
{
	int64_t largest = 0;

	for (size_t i = 0; i < config->n_sources; i++) {
		int64_t max_record = config->sources[i]->kind->max_record(config->sources[i]->settings);

		if (max_record > largest)
			largest = max_record;
	}
	return largest;
}

int opening_configure(const struct config *config, struct queue *queue, struct err *err)
{
	const struct queue_bounds bounds = { .max_size = config->max_size, .max_record = largest_record(config) };
	int r = tell_routes(config, queue, err);

	clockwork_bound(config, queue);
	if (r == 0)
		r = tell_jobs(config, queue, err);
	return r == 0 ? queue_bound(queue, &bounds, err) : r;
}

/* What is wrong with it is a person's to mend, and a person is there who starts it. */
static bool is_refused(int r)
{
	return opening_status(r) != CLI_ATTENTION && r != -EBADMSG;
}

int opening_begin(const struct config *config, struct queue **ret_queue, struct err *err)
{
	char boot_id[BOARD_BOOT_ID];
	struct queue_identity identity = { .device = config->device, .kernel_boot_id = boot_id };
	int r = board_boot_id("", boot_id, err);
	struct queue *queue = r == 0 ? queue_new(config->buffer_path, &identity) : NULL;

	if (r == 0)
		r = queue ? opening_configure(config, queue, err) : err_fail(err, -ENOMEM, "no memory");
	if (r < 0) {
		queue_close(queue);
		return r;
	}
	r = queue_start(queue, false, err);
	if (r < 0 && is_refused(r)) {
		queue_close(queue);
		return r;
	}
	*ret_queue = queue;
	return r < 0 ? 1 : 0;
}

/* Opens it and tells it stores and routes. */
static int open_queue(const struct config *config, struct queue **ret_queue, struct err *err)
{
	char boot_id[BOARD_BOOT_ID];
	struct queue_identity identity = { .device = config->device, .kernel_boot_id = boot_id };
	struct queue *queue = NULL;
	int r = board_boot_id("", boot_id, err);

	if (r == 0)
		r = queue_open(config->buffer_path, &identity, &queue, err);
	if (r == 0)
		r = opening_configure(config, queue, err);
	if (r < 0) {
		queue_close(queue);
		return r;
	}
	*ret_queue = queue;
	return 0;
}

static void tell_salvage(const struct queue *queue)
{
	const struct queue_salvage *salvage = queue_last_salvage(queue);
	char records[UNITS_TEXT_MAX], batches[UNITS_TEXT_MAX], lost[UNITS_TEXT_MAX], ends[UNITS_TEXT_MAX];
	char text[ERR_MAX + sizeof salvage->aside];

	if (salvage->at_ms == 0)
		return;
	snprintf(text, sizeof text,
	         "the buffer was damaged: %s and %s were salvaged; lost for certain: %s; %s may have lost more "
	         "(`millrace audit` tells what); what is left of the damaged one is \"%s\"",
	         answer_plural((int64_t)salvage->records, "unsealed record", "s", records),
	         answer_plural((int64_t)salvage->batches, "sealed batch", "es", batches),
	         answer_plural((int64_t)salvage->lost_records, "record", "s", lost),
	         answer_plural((int64_t)salvage->open_ends, "source", "s", ends), salvage->aside);
	cli_complain(text);
}

/* A card that fails makes it so; its buffer is read elsewhere. */
static int refuse_read_only(const char *path, struct err *err)
{
	return err_fail(
	        err, -EROFS,
	        "the buffer \"%s\" is on a file system that is read-only, and whoever opens it writes: copy it, "
	        "and the file with -wal behind its name, into a folder that can be written, name that copy in "
	        "a configuration, buffer = { path = … }, and do this again with -c and that file",
	        path);
}

int opening_alone(const struct config *config, const char *what, struct queue **ret_queue, struct err *err)
{
	const char *path = config->buffer_path;
	struct stat st;
	int r;

	/* Opening would make a new one, in which everything is well. */
	if (stat(path, &st) < 0 && errno == ENOENT)
		return err_fail(err, -ENOENT,
		                "buffer \"%s\" is not there, so there is nothing to %s: `millrace run` makes it; or is "
		                "another path meant?",
		                path, what);
	if (stat(path, &st) < 0)
		return err_fail(err, -errno, "buffer \"%s\": %s", path, strerror(errno));
	r = open_queue(config, ret_queue, err);
	if (r == -EROFS)
		refuse_read_only(path, err);
	if (r == 0)
		tell_salvage(*ret_queue);
	return r;
}
