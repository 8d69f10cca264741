/* SPDX-License-Identifier: Apache-2.0 */
/* What of a configuration outlives it: sources and stores one by one, and the mill as a whole. */
#include <stdlib.h>
#include <string.h>

#include "agent/config.h"
#include "agent/config_options.h"
#include "base/secret.h"

static bool same_secret(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

bool config_same_source(const struct config_source *a, const struct config_source *b)
{
	return a->kind == b->kind && a->enabled == b->enabled &&
	       option_equal(a->kind->options, a->settings, b->settings);
}

bool config_same_store(const struct config_store *a, const struct config_store *b)
{
	return a->kind == b->kind && a->embedded == b->embedded && strcmp(a->place, b->place) == 0 &&
	       option_equal(a->kind->options, a->settings, b->settings) && same_secret(a->access_key, b->access_key) &&
	       same_secret(a->secret_key, b->secret_key);
}

/* The index, or n where there is none. */
static size_t find_source(const struct config *config, const char *name)
{
	size_t i = 0;
	while (i < config->n_sources && strcmp(config->sources[i]->name, name) != 0)
		i++;
	return i;
}

static size_t find_store(const struct config *config, const char *name)
{
	size_t i = 0;
	while (i < config->n_stores && strcmp(config->stores[i]->name, name) != 0)
		i++;
	return i;
}

struct config_source *config_take_source(struct config *config, const char *name)
{
	size_t i = find_source(config, name);
	if (i == config->n_sources)
		return NULL;
	struct config_source *source = config->sources[i];
	config->n_sources--;
	memmove(&config->sources[i], &config->sources[i + 1], (config->n_sources - i) * sizeof(void *));
	return source;
}

struct config_store *config_take_store(struct config *config, const char *name)
{
	size_t i = find_store(config, name);
	if (i == config->n_stores)
		return NULL;
	struct config_store *store = config->stores[i];
	config->n_stores--;
	memmove(&config->stores[i], &config->stores[i + 1], (config->n_stores - i) * sizeof(void *));
	return store;
}

static void keep_source(struct config_source **fresh, struct config_source *kept)
{
	struct option_names stores = kept->stores;
	kept->stores = (*fresh)->stores;
	kept->batch = (*fresh)->batch;
	(*fresh)->stores = stores;
	config_free_source(*fresh);
	*fresh = kept;
}

void config_keep(struct config *now, struct config *before)
{
	for (size_t i = 0; i < now->n_sources; i++) {
		size_t j = find_source(before, now->sources[i]->name);
		if (j < before->n_sources && config_same_source(now->sources[i], before->sources[j]))
			keep_source(&now->sources[i], config_take_source(before, now->sources[i]->name));
	}
	for (size_t i = 0; i < now->n_stores; i++) {
		size_t j = find_store(before, now->stores[i]->name);
		if (j == before->n_stores || !config_same_store(now->stores[i], before->stores[j]))
			continue;
		struct config_store *kept = config_take_store(before, now->stores[i]->name);
		config_free_store(now->stores[i]);
		now->stores[i] = kept;
	}
	if (config_same_mill(now->mill, before->mill)) {
		config_free_mill(now->mill);
		now->mill = before->mill;
		before->mill = NULL;
	}
}

void config_free_source(struct config_source *source)
{
	if (!source)
		return;
	if (source->settings)
		option_done(source->kind->options, source->settings);
	free(source->settings);
	option_done(config_source_options, source);
	free(source->name);
	free(source);
}

void config_free_store(struct config_store *store)
{
	if (!store)
		return;
	if (store->settings)
		option_done(store->kind->options, store->settings);
	free(store->settings);
	free(store->place);
	free(store->name);
	secret_free(store->access_key);
	secret_free(store->secret_key);
	free(store);
}
