/* SPDX-License-Identifier: Apache-2.0 */
/* What may stand in a configuration, group by group; agent/settings does the reading. */
#include "agent/config.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/config_mill_private.h"
#include "agent/config_options.h"
#include "agent/config_secrets.h"
#include "agent/config_text.h"
#include "agent/settings.h"
#include "base/units.h"

#define SOCKET_MAX    (sizeof((struct sockaddr_un *)0)->sun_path - 1)
#define WHERE_MAX     128 /* bytes of `batch of source "parking"` */
#define EMBEDDED_NAME "local"

/* Which of the kinds a group names: its index, or -1 after telling what is wrong. */
static int find_kind(struct settings *s, const config_setting_t *group, const char *where, const char *const *kinds,
                     size_t n)
{
	const config_setting_t *setting = config_setting_get_member(group, "kind");
	const char *kind = setting ? config_setting_get_string(setting) : NULL;
	if (!setting)
		settings_mistake(s, group, "%s has no kind; add kind = \"%s\"", where, kinds[0]);
	else if (!kind)
		settings_mistake(s, setting, "\"kind\" in %s wants text in quotes, such as \"%s\"", where, kinds[0]);
	if (!kind)
		return -1;
	for (size_t i = 0; i < n; i++)
		if (strcmp(kinds[i], kind) == 0)
			return (int)i;
	settings_unknown(s, setting, "kind", kind, where, kinds, n);
	return -1;
}

static int read_batch(struct settings *s, const config_setting_t *setting, const char *where,
                      struct config_batch *batch)
{
	const struct settings_group group = { .where = where,
		                              .options = { config_batch_options },
		                              .targets = { batch } };
	return settings_read(s, setting, &group);
}

static int on_batch(struct settings *s, const config_setting_t *setting, void *arg)
{
	struct config *config = arg;
	return settings_is_group(s, setting, NULL) ? read_batch(s, setting, "batch", &config->batch) : 0;
}

static int on_buffer(struct settings *s, const config_setting_t *setting, void *arg)
{
	const struct settings_group group = { .where = "buffer",
		                              .options = { config_buffer_options },
		                              .targets = { arg } };
	struct config *config = arg;
	size_t mistakes = s->mistakes;
	int r = settings_is_group(s, setting, NULL) ? settings_read(s, setting, &group) : 0;
	if (s->mistakes > mistakes)
		config->max_size = INT64_MAX; /* not known: nothing is measured by it */
	return r;
}

static int find_store_kind(struct settings *s, const config_setting_t *setting, const char *where,
                           struct config_store *store)
{
	const char *kinds[SETTINGS_GROUP_MAX] = { "" };
	size_t n = 0;
	for (; n < SETTINGS_GROUP_MAX && store_kinds[n]; n++)
		kinds[n] = store_kinds[n]->kind;
	int kind = find_kind(s, setting, where, kinds, n);
	if (kind < 0)
		return 0;
	store->kind = store_kinds[kind];
	store->settings = calloc(1, store->kind->settings_size);
	return store->settings ? option_defaults(store->kind->options, store->settings) : -ENOMEM;
}

/* Where a store is whose settings are each in order; two in one place would each take the other's work for its own. */
static int find_place(struct settings *s, const config_setting_t *setting, const struct config *config,
                      struct config_store *store)
{
	store->place = store->kind->place(store->settings);
	if (!store->place)
		return -ENOMEM;
	if (strlen(store->place) > SETTINGS_PLACE_MAX)
		settings_mistake(s, setting, "the place of store \"%s\" has %zu bytes; up to %d are taken", store->name,
		                 strlen(store->place), SETTINGS_PLACE_MAX);
	for (size_t i = 0; config->stores[i] != store; i++)
		if (config->stores[i]->place && strcmp(store->place, config->stores[i]->place) == 0)
			settings_mistake(s, setting, "store \"%s\" has the place of store \"%s\"; each needs its own",
			                 store->name, config->stores[i]->name);
	return 0;
}

static int read_store_settings(struct settings *s, const config_setting_t *setting, struct config *config,
                               struct config_store *store)
{
	static const struct settings_section sections[] = { { "kind", NULL }, { NULL, NULL } };
	char where[WHERE_MAX];
	snprintf(where, sizeof where, "store \"%s\"", store->name);
	size_t mistakes = s->mistakes;
	int r = find_store_kind(s, setting, where, store);
	if (r < 0 || !store->kind)
		return r;
	const struct settings_group group = { .where = where,
		                              .options = { store->kind->options },
		                              .targets = { store->settings },
		                              .sections = sections };
	r = settings_read(s, setting, &group);
	return r == 0 && s->mistakes == mistakes ? find_place(s, setting, config, store) : r;
}

static int read_store(struct settings *s, const config_setting_t *setting, struct config *config)
{
	if (!settings_is_name(s, setting, "store") || !settings_is_group(s, setting, "stores"))
		return 0;
	struct config_store *store = calloc(1, sizeof *store);
	if (!store)
		return -ENOMEM;
	config->stores[config->n_stores++] = store;
	store->name = strdup(config_setting_name(setting));
	if (!store->name)
		return -ENOMEM;
	return read_store_settings(s, setting, config, store);
}

static int on_stores(struct settings *s, const config_setting_t *setting, void *arg)
{
	struct config *config = arg;
	if (!settings_is_group(s, setting, NULL))
		return 0;
	int n = config_setting_length(setting);
	config->stores = calloc((size_t)n + 1, sizeof *config->stores);
	int r = config->stores ? 0 : -ENOMEM;
	for (int i = 0; i < n && r == 0; i++)
		r = read_store(s, config_setting_get_elem(setting, (unsigned)i), config);
	return r;
}

static int on_source_batch(struct settings *s, const config_setting_t *setting, void *arg)
{
	struct config_source *source = arg;
	char where[WHERE_MAX];
	snprintf(where, sizeof where, "source \"%s\"", source->name);
	if (!settings_is_group(s, setting, where))
		return 0;
	snprintf(where, sizeof where, "batch of source \"%s\"", source->name);
	return read_batch(s, setting, where, &source->batch);
}

/* The stores that a source names must stand in the file, before the source or behind it. */
static int check_stores(struct settings *s, const config_setting_t *source_setting, const char *where,
                        const struct config_source *source)
{
	const config_setting_t *setting = config_setting_get_member(source_setting, "stores");
	size_t n = 0;
	const char **known = settings_names(s, "stores", &n);
	if (!known)
		return -ENOMEM;
	if (n == 0)
		known[n++] = EMBEDDED_NAME;
	if (source->stores.names && source->stores.n == 0)
		settings_mistake(s, setting, "\"stores\" in %s is empty; name a store, or leave it out for all of them",
		                 where);
	for (size_t i = 0; source->stores.names && i < source->stores.n; i++)
		settings_is_known(s, setting, "store", source->stores.names[i], where, known, n);
	free(known);
	return 0;
}

static int find_collector(struct settings *s, const config_setting_t *setting, const char *where,
                          struct config_source *source)
{
	const char *kinds[SETTINGS_GROUP_MAX] = { "" };
	size_t n = 0;
	for (; n < SETTINGS_GROUP_MAX && collector_kinds[n]; n++)
		kinds[n] = collector_kinds[n]->kind;
	int kind = find_kind(s, setting, where, kinds, n);
	if (kind < 0)
		return 0;
	source->kind = collector_kinds[kind];
	source->settings = calloc(1, source->kind->settings_size);
	return source->settings ? option_defaults(source->kind->options, source->settings) : -ENOMEM;
}

/* What is wrong with a source whose settings are each in order. */
static void check_source(struct settings *s, const config_setting_t *setting, const char *where,
                         const struct config_source *source)
{
	struct err err;
	if (source->kind && source->kind->check && source->kind->check(source->settings, &err) < 0)
		settings_mistake(s, setting, "%s: %s", where, err.text);
}

static int read_source_settings(struct settings *s, const config_setting_t *setting, struct config_source *source)
{
	static const struct settings_section sections[] = { { "kind", NULL },
		                                            { "batch", on_source_batch },
		                                            { NULL, NULL } };
	char where[WHERE_MAX];
	snprintf(where, sizeof where, "source \"%s\"", source->name);
	size_t mistakes = s->mistakes;
	int r = option_defaults(config_source_options, source);
	if (r == 0)
		r = find_collector(s, setting, where, source);
	if (r < 0)
		return r;
	const struct settings_group group = { .where = where,
		                              .options = { config_source_options,
		                                           source->kind ? source->kind->options : NULL },
		                              .targets = { source, source->settings },
		                              .sections = sections,
		                              .arg = source,
		                              .any = !source->kind };
	r = settings_read(s, setting, &group);
	if (r == 0)
		r = check_stores(s, setting, where, source);
	if (r == 0 && s->mistakes == mistakes)
		check_source(s, setting, where, source);
	return r;
}

static int read_source(struct settings *s, const config_setting_t *setting, struct config *config)
{
	if (!settings_is_name(s, setting, "source") || !settings_is_group(s, setting, "sources"))
		return 0;
	struct config_source *source = calloc(1, sizeof *source);
	if (!source)
		return -ENOMEM;
	config->sources[config->n_sources++] = source;
	source->name = strdup(config_setting_name(setting));
	if (!source->name)
		return -ENOMEM;
	return read_source_settings(s, setting, source);
}

static int on_sources(struct settings *s, const config_setting_t *setting, void *arg)
{
	struct config *config = arg;
	if (!settings_is_group(s, setting, NULL))
		return 0;
	int n = config_setting_length(setting);
	config->sources = calloc((size_t)n + 1, sizeof *config->sources);
	int r = config->sources ? 0 : -ENOMEM;
	for (int i = 0; i < n && r == 0; i++)
		r = read_source(s, config_setting_get_elem(setting, (unsigned)i), config);
	return r;
}

static int read_file(struct settings *s, struct config *config)
{
	static const struct settings_section sections[] = {
		{ "buffer", on_buffer },
		{ "batch", on_batch },
		{ "stores", on_stores },
		{ "sources", on_sources },
		{ "machines", config_read_machines },
		{ "jobs", config_read_jobs },
		{ NULL, NULL },
	};
	const struct settings_group group = {
		.options = { config_top_options }, .targets = { config }, .sections = sections, .arg = config
	};
	config->path = strdup(s->path);
	config->mill = calloc(1, sizeof *config->mill);
	int r = config->path && config->mill ? option_defaults(config_top_options, config) : -ENOMEM;
	if (r == 0)
		r = option_defaults(config_buffer_options, config);
	if (r == 0)
		r = option_defaults(config_batch_options, &config->batch);
	return r < 0 ? r : settings_read(s, config_root_setting(&s->tree), &group);
}

static int complete_device(struct settings *s, struct config *config)
{
	char host[256] = "";
	if (config->device || config_lookup(&s->tree, "device"))
		return 0;
	if (gethostname(host, sizeof host - 1) < 0 || !units_is_device(host)) {
		settings_mistake(s, NULL, "the host name \"%s\" is no name for a device; set device = \"...\"", host);
		return 0;
	}
	config->device = strdup(host);
	return config->device ? 0 : -ENOMEM;
}

/* A path beside the buffer, or NULL for want of memory. */
static char *beside_buffer(const struct config *config, const char *name)
{
	char *folder = config_text_folder(config->buffer_path);
	char *path = folder ? config_text_join(folder, name) : NULL;
	free(folder);
	return path;
}

static void check_buffer(struct settings *s, const config_setting_t *setting, const char *path)
{
	struct stat st;
	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		settings_mistake(s, setting,
		                 "\"path\" in buffer: \"%s\" is a folder; name a file in it: \"%s/buffer.db\"", path,
		                 path);
}

static int complete_paths(struct settings *s, struct config *config)
{
	const config_setting_t *buffer = config_lookup(&s->tree, "buffer.path");
	const config_setting_t *socket = config_lookup(&s->tree, "socket");
	if (!config->socket)
		config->socket = beside_buffer(config, "millrace.sock");
	if (!config->socket)
		return -ENOMEM;
	config->buffer_place = settings_place(s, buffer);
	if (!config->buffer_place)
		return -ENOMEM;
	if (s->errors) /* a client looks at no card, which may hang: the daemon tells that */
		check_buffer(s, buffer, config->buffer_path);
	if (strlen(config->socket) > SOCKET_MAX)
		settings_mistake(
		        s, socket ? socket : buffer,
		        "the socket's path has %zu bytes, and up to %zu are possible; set socket = \"...\" to a "
		        "shorter one",
		        strlen(config->socket), SOCKET_MAX);
	return 0;
}

static int embed_store(struct config *config)
{
	struct config_store *store = calloc(1, sizeof *store);
	if (!store)
		return -ENOMEM;
	config->stores[config->n_stores++] = store;
	store->embedded = true;
	store->kind = &store_kind_file;
	store->name = strdup(EMBEDDED_NAME);
	store->settings = calloc(1, store->kind->settings_size);
	store->place = beside_buffer(config, "objects");
	if (!store->name || !store->settings || !store->place)
		return -ENOMEM;
	int r = option_defaults(store->kind->options, store->settings);
	return r < 0 ? r : option_set(option_find(store->kind->options, "path"), store->settings, store->place, NULL);
}

static int complete_stores(struct settings *s, struct config *config)
{
	const config_setting_t *setting = config_lookup(&s->tree, "stores");
	if (config->n_stores > 0 || (setting && config_setting_length(setting) > 0))
		return 0;
	free(config->stores);
	config->stores = calloc(1, sizeof *config->stores);
	return config->stores ? embed_store(config) : -ENOMEM;
}

static void complete_batches(struct config *config)
{
	for (size_t i = 0; i < config->n_sources; i++) {
		struct config_batch *batch = &config->sources[i]->batch;
		if (batch->max_bytes == 0)
			batch->max_bytes = config->batch.max_bytes;
		if (batch->max_records == 0)
			batch->max_records = config->batch.max_records;
		if (batch->max_age_ms == 0)
			batch->max_age_ms = config->batch.max_age_ms;
	}
}

/* A setting of a group, or where it is not in it, the group. */
static const config_setting_t *setting_or_group(const config_setting_t *group, const char *name)
{
	const config_setting_t *setting = group ? config_setting_get_member(group, name) : NULL;
	return setting ? setting : group;
}

/* What is sealed lies in the buffer twice for a while: as it came, and as the object. */
static void check_batch(struct settings *s, const config_setting_t *group, const char *where, int64_t max_bytes,
                        int64_t max_size)
{
	char is[UNITS_TEXT_MAX], size[UNITS_TEXT_MAX], least[UNITS_TEXT_MAX], most[UNITS_TEXT_MAX];
	if (max_bytes <= max_size / 2)
		return;
	settings_mistake(s, setting_or_group(group, "max_bytes"),
	                 "\"max_bytes\" in %s: \"%s\" is over half of the buffer's max_size, \"%s\"; set it to at most "
	                 "\"%s\", or max_size to at least \"%s\"",
	                 where, units_size(max_bytes, is), units_size(max_size, size), units_size(max_size / 2, most),
	                 units_size(max_bytes * 2, least));
}

/* One transaction must be able to hold the record, beside the room that is kept for sealing and delivering. */
static void check_record(struct settings *s, const config_setting_t *group, const struct config_source *source,
                         int64_t max_size)
{
	char is[UNITS_TEXT_MAX], size[UNITS_TEXT_MAX], least[UNITS_TEXT_MAX], most[UNITS_TEXT_MAX];
	int64_t max_record = source->kind ? source->kind->max_record(source->settings) : 0;
	if (max_record <= max_size / 16)
		return;
	settings_mistake(
	        s, setting_or_group(group, "max_record"),
	        "\"max_record\" in source \"%s\": \"%s\" is over a sixteenth of the buffer's max_size, \"%s\"; "
	        "set it to at most \"%s\", or max_size to at least \"%s\"",
	        source->name, units_size(max_record, is), units_size(max_size, size), units_size(max_size / 16, most),
	        units_size(max_record * 16, least));
}

/* What has to fit into the buffer, wherever in the file its size stands. */
static void check_sizes(struct settings *s, const struct config *config)
{
	char where[WHERE_MAX];
	const config_setting_t *sources = config_lookup(&s->tree, "sources");
	check_batch(s, config_lookup(&s->tree, "batch"), "batch", config->batch.max_bytes, config->max_size);
	for (size_t i = 0; i < config->n_sources; i++) {
		const struct config_source *source = config->sources[i];
		const config_setting_t *group = config_setting_get_member(sources, source->name);
		const config_setting_t *batch = config_setting_get_member(group, "batch");
		snprintf(where, sizeof where, "batch of source \"%s\"", source->name);
		check_record(s, group, source, config->max_size);
		if (batch && config_setting_get_member(batch, "max_bytes")) /* else it is the file's, told above */
			check_batch(s, batch, where, source->batch.max_bytes, config->max_size);
	}
}

/* No mistake: its disk may come later, and whoever runs the daemon may write there. */
static void warn_of_folders(struct settings *s, const struct config *config)
{
	const config_setting_t *stores = config_lookup(&s->tree, "stores");
	for (size_t i = 0; i < config->n_stores; i++) {
		const struct config_store *store = config->stores[i];
		char folder[SETTINGS_PLACE_MAX + sizeof "/."];
		if (store->kind != &store_kind_file || store->embedded || !store->place)
			continue;
		snprintf(folder, sizeof folder, "%s/.", store->place);
		if (access(folder, W_OK | X_OK) == 0)
			continue;
		settings_warn(s, setting_or_group(config_setting_get_member(stores, store->name), "path"),
		              "the folder of store \"%s\" cannot be written: %s%s", store->name, strerror(errno),
		              errno == ENOENT ? "; create it, or mount its disk" : "");
	}
}

static int read_config(struct settings *s, struct config *config, enum config_use use)
{
	int r = read_file(s, config);
	if (r == 0)
		r = complete_device(s, config);
	if (r == 0)
		r = complete_paths(s, config);
	if (r == 0)
		r = complete_stores(s, config);
	if (r == 0)
		r = config_complete_mill(s, config);
	if (r == 0 && use != CONFIG_ASK)
		r = config_read_secrets(s, config, use == CONFIG_CHECK);
	if (r < 0) {
		settings_mistake(s, NULL, "out of memory");
		return r;
	}
	complete_batches(config);
	check_sizes(s, config);
	if (use == CONFIG_CHECK) {
		warn_of_folders(s, config);
		config_warn_of_mill(s, config);
	}
	return s->mistakes > 0 ? -EINVAL : 0;
}

int config_load(const char *path, enum config_use use, FILE *errors, struct config **ret_config)
{
	struct settings s;
	int r = settings_open(&s, path, errors);
	if (r < 0)
		return r;
	struct config *config = calloc(1, sizeof *config);
	r = config ? read_config(&s, config, use) : -ENOMEM;
	settings_close(&s);
	if (r < 0)
		config_free(config);
	else
		*ret_config = config;
	return r;
}

int config_find_socket(const char *path, FILE *errors, char **ret_socket, char **ret_buffer)
{
	struct settings s;
	int r = settings_open(&s, path, errors);
	if (r < 0)
		return r;
	struct config *config = calloc(1, sizeof *config);
	s.errors = NULL;
	r = config ? read_file(&s, config) : -ENOMEM;
	if (r == 0)
		r = complete_paths(&s, config);
	settings_close(&s);
	if (r == 0) {
		*ret_socket = config->socket;
		config->socket = NULL;
		if (ret_buffer) {
			*ret_buffer = config->buffer_path;
			config->buffer_path = NULL;
		}
	} else {
		fprintf(errors, "%s: out of memory\n", path);
	}
	config_free(config);
	return r;
}

void config_free(struct config *config)
{
	if (!config)
		return;
	for (size_t i = 0; i < config->n_sources; i++)
		config_free_source(config->sources[i]);
	for (size_t i = 0; i < config->n_stores; i++)
		config_free_store(config->stores[i]);
	config_free_mill(config->mill);
	option_done(config_top_options, config);
	option_done(config_buffer_options, config);
	free(config->sources);
	free(config->stores);
	free(config->path);
	free(config->buffer_place);
	free(config);
}
