/* SPDX-License-Identifier: Apache-2.0 */
/* A configuration as it was understood, for people and as JSON; no secret shows in either. */
#include <stdlib.h>
#include <string.h>

#include "agent/config.h"
#include "agent/config_options.h"
#include "api/view.h"
#include "base/http.h"
#include "base/secret.h"
#include "base/units.h"
#include "base/url.h"

static const void *field_of(const struct option *option, const void *target)
{
	return (const char *)target + option->offset;
}

static void print_source(const struct config *config, const struct config_source *source, FILE *out)
{
	char text[UNITS_TEXT_MAX];
	const struct option *url = option_find(source->kind->options, "url");
	const struct option *every = option_find(source->kind->options, "every");
	fprintf(out, "  source %s: %s", source->name, source->kind->kind);
	if (url) {
		char *shown = url_show(*(char *const *)field_of(url, source->settings));
		fprintf(out, " %s", shown ? shown : "");
		free(shown);
	}
	if (every)
		fprintf(out, ", every %s", units_duration(*(const int64_t *)field_of(every, source->settings), text));
	fputs(", to", out);
	for (size_t i = 0; i < source->stores.n; i++)
		fprintf(out, "%s %s", i > 0 ? "," : "", source->stores.names[i]);
	for (size_t i = 0; !source->stores.names && i < config->n_stores; i++)
		fprintf(out, "%s %s", i > 0 ? "," : "", config->stores[i]->name);
	fputs(source->enabled ? "\n" : ", disabled\n", out);
}

static void print_count(const char *before, size_t n, const char *what, FILE *out)
{
	fprintf(out, "%s%zu %s%s", before, n, what, n == 1 ? "" : "s");
}

static void print_mill(const struct config_mill *mill, FILE *out)
{
	const struct option *wake = option_find(machine_options, "wake");
	for (size_t i = 0; i < mill->n_machines; i++) {
		const struct machine_settings *settings = &mill->machines[i].settings;
		fprintf(out, "  machine %s: %s, wake %s\n", mill->machines[i].name, settings->host,
		        wake->choices[settings->wake]);
	}
	for (size_t i = 0; i < mill->n_jobs; i++) {
		const struct config_job *job = &mill->jobs[i];
		fprintf(out, "  job %s: %s%s%s, of %s:", job->name, job->driver->kind, job->machine ? " on " : "",
		        job->machine ? job->machine : "", job->store);
		for (size_t k = 0; k < job->sources.n; k++)
			fprintf(out, "%s %s", k > 0 ? "," : "", job->sources.names[k]);
		fprintf(out, "%s, when %s\n", job->sources.n == 0 ? " nothing" : "", job->when_text);
	}
}

void config_print(const struct config *config, FILE *out)
{
	fprintf(out, "%s: fine: ", config->path);
	print_count("", config->n_sources, "source", out);
	print_count(", ", config->n_stores, "store", out);
	if (config->mill->n_machines > 0)
		print_count(", ", config->mill->n_machines, "machine", out);
	if (config->mill->n_jobs > 0)
		print_count(", ", config->mill->n_jobs, "job", out);
	fputc('\n', out);
	for (size_t i = 0; i < config->n_sources; i++)
		print_source(config, config->sources[i], out);
	for (size_t i = 0; i < config->n_stores; i++)
		fprintf(out, "  store %s: %s %s\n", config->stores[i]->name, config->stores[i]->kind->kind,
		        config->stores[i]->place);
	print_mill(config->mill, out);
	if (config->n_sources == 0)
		fputs("  no source is named: nothing will be collected\n", out);
}

/* As JSON: a NULL that any of these returns for want of memory makes the whole NULL. */

/* The object where rc is 0, else nothing is left of it. */
static json_t *done(json_t *object, int rc)
{
	if (rc == 0)
		return object;
	json_decref(object);
	return NULL;
}

/* Of a URL all but login and query, in which keys are common. */
static json_t *text_value(const struct option *option, const char *text)
{
	if (option->secret)
		return view_text(secret_show(text));
	const char *host = strstr(text, "://");
	if (!host)
		return view_text(text);
	host += strlen("://");
	size_t len = strcspn(host, "?");
	const char *login_end = memrchr(host, '@', strcspn(host, "/?#"));
	const char *kept = login_end ? login_end : host;
	char *shown = NULL;
	json_t *json = NULL;
	if (asprintf(&shown, "%.*s%s%.*s%s", (int)(host - text), text, login_end ? "(hidden)" : "",
	             (int)(host + len - kept), kept, host[len] ? "?(hidden)" : "") >= 0)
		json = view_text(shown);
	free(shown);
	return json;
}

static json_t *names_value(const struct option_names *list)
{
	json_t *json = json_array();
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < list->n; i++)
		rc = json_array_append_new(json, json_string(list->names[i]));
	return done(json, rc);
}

static json_t *pairs_value(const struct option_pairs *list)
{
	json_t *json = json_object();
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < list->n; i++)
		rc = json_object_set_new(json, list->pairs[i].name, view_text(secret_show(list->pairs[i].reference)));
	return done(json, rc);
}

static json_t *option_value(const struct option *option, const void *field)
{
	char text[UNITS_TEXT_MAX];
	switch (option->type) {
	case OPTION_TEXT:
		return text_value(option, *(char *const *)field);
	case OPTION_DURATION:
		return json_string(units_duration(*(const int64_t *)field, text));
	case OPTION_SIZE:
		return json_string(units_size(*(const int64_t *)field, text));
	case OPTION_NUMBER:
		return json_integer(*(const int64_t *)field);
	case OPTION_BOOL:
		return json_boolean(*(const bool *)field);
	case OPTION_CHOICE:
		return json_string(option->choices[*(const int *)field]);
	case OPTION_NAMES:
		return names_value(field);
	case OPTION_PAIRS:
		return pairs_value(field);
	}
	return NULL;
}

/* Neither in the file nor with a default. */
static bool is_left_out(const struct option *option, const void *field)
{
	if (option->type == OPTION_NAMES)
		return !((const struct option_names *)field)->names;
	if (option->type == OPTION_PAIRS)
		return ((const struct option_pairs *)field)->n == 0;
	return option->type == OPTION_TEXT && !*(char *const *)field;
}

/* 0, or -1 for want of memory; object may be NULL, which is that as well. */
static int add_options(json_t *object, const struct option *options, const void *target)
{
	for (const struct option *o = options; o->name; o++) {
		const void *field = field_of(o, target);
		if (!is_left_out(o, field) && json_object_set_new(object, o->name, option_value(o, field)) < 0)
			return -1;
	}
	return object ? 0 : -1;
}

static json_t *group_json(const struct option *options, const void *target)
{
	json_t *json = json_object();
	return done(json, add_options(json, options, target));
}

static json_t *store_json(const struct config_store *store)
{
	json_t *json = json_pack("{s:s}", "kind", store->kind->kind);
	return done(json, add_options(json, store->kind->options, store->settings));
}

static json_t *stores_json(const struct config *config)
{
	json_t *json = json_object();
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < config->n_stores; i++)
		rc = json_object_set_new(json, config->stores[i]->name, store_json(config->stores[i]));
	return done(json, rc);
}

static json_t *all_stores(const struct config *config)
{
	json_t *json = json_array();
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < config->n_stores; i++)
		rc = json_array_append_new(json, json_string(config->stores[i]->name));
	return done(json, rc);
}

static json_t *source_json(const struct config *config, const struct config_source *source)
{
	json_t *json = json_pack("{s:s}", "kind", source->kind->kind);
	int rc = add_options(json, source->kind->options, source->settings);
	if (rc == 0)
		rc = add_options(json, config_source_options, source);
	if (rc == 0 && !source->stores.names)
		rc = json_object_set_new(json, "stores", all_stores(config));
	if (rc == 0)
		rc = json_object_set_new(json, "batch", group_json(config_batch_options, &source->batch));
	return done(json, rc);
}

static json_t *sources_json(const struct config *config)
{
	json_t *json = json_object();
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < config->n_sources; i++)
		rc = json_object_set_new(json, config->sources[i]->name, source_json(config, config->sources[i]));
	return done(json, rc);
}

static json_t *machines_json(const struct config_mill *mill)
{
	json_t *json = json_object();
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < mill->n_machines; i++)
		rc = json_object_set_new(json, mill->machines[i].name,
		                         group_json(machine_options, &mill->machines[i].settings));
	return done(json, rc);
}

static json_t *job_json(const struct config_job *job)
{
	json_t *json = json_pack("{s:s}", "driver", job->driver->kind);
	int rc = add_options(json, config_job_options, job);
	if (rc == 0)
		rc = add_options(json, job->driver->options, job->settings);
	return done(json, rc);
}

static json_t *jobs_json(const struct config_mill *mill)
{
	json_t *json = json_object();
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < mill->n_jobs; i++)
		rc = json_object_set_new(json, mill->jobs[i].name, job_json(&mill->jobs[i]));
	return done(json, rc);
}

json_t *config_json(const struct config *config)
{
	json_t *json = json_object();
	int rc = add_options(json, config_top_options, config);
	if (rc == 0)
		rc = json_object_set_new(json, "buffer", group_json(config_buffer_options, config));
	if (rc == 0)
		rc = json_object_set_new(json, "batch", group_json(config_batch_options, &config->batch));
	if (rc == 0)
		rc = json_object_set_new(json, "stores", stores_json(config));
	if (rc == 0)
		rc = json_object_set_new(json, "sources", sources_json(config));
	if (rc == 0)
		rc = json_object_set_new(json, "machines", machines_json(config->mill));
	if (rc == 0)
		rc = json_object_set_new(json, "jobs", jobs_json(config->mill));
	return done(json, rc);
}
