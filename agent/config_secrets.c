/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/config_secrets.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/secret.h"
#include "base/units.h"

#define WHERE_MAX (UNITS_NAME_MAX + 32) /* bytes of `"headers" in source "parking"` and the like */

/* Where a secret stands in the file. */
struct spot {
	const config_setting_t *setting; /* NULL: the store is embedded */
	const char *name;                /* the setting's */
	char where[WHERE_MAX];           /* of what */
	bool warn;
};

static void warn_of_literal(struct settings *s, const struct spot *spot)
{
	char *path;
	if (!settings_others_read(s, spot->setting, &path))
		return;
	settings_warn(s, spot->setting,
	              "\"%.80s\" in %s stands in the file itself, which others can read; write file:PATH or "
	              "env:NAME, or chmod 600 %s",
	              spot->name, spot->where, path);
	free(path);
}

/* r: what reading the reference gave. */
static int judge(struct settings *s, const struct spot *spot, const char *reference, int r, const struct err *err)
{
	if (r == -ENOMEM)
		return r;
	if (r < 0)
		settings_mistake(s, spot->setting, "\"%.80s\" in %s: %s", spot->name, spot->where, err->text);
	else if (spot->warn && spot->setting && secret_is_literal(reference))
		warn_of_literal(s, spot);
	return 0;
}

/* --- Stores --- */

/* Where the secret goes that a setting of this name refers to. */
static char **secret_of(struct config_store *store, const char *name)
{
	if (strcmp(name, "access_key") == 0)
		return &store->access_key;
	assert(strcmp(name, "secret_key") == 0);
	return &store->secret_key;
}

static int read_store(struct settings *s, const config_setting_t *group, struct config_store *store, bool warn)
{
	int r = 0;
	for (const struct option *o = store->kind ? store->kind->options : NULL; o && o->name && r == 0; o++) {
		if (!o->secret)
			continue;
		const char *reference = *(char **)(void *)((char *)store->settings + o->offset);
		struct spot spot = { .setting = group ? config_setting_get_member(group, o->name) : NULL,
			             .name = o->name,
			             .warn = warn };
		struct err err = { "" };
		snprintf(spot.where, sizeof spot.where, "store \"%s\"", store->name);
		if (reference)
			r = secret_read(reference, s->folder, secret_of(store, o->name), &err);
		r = judge(s, &spot, reference, r, &err);
	}
	return r;
}

/* --- Pairs of sources --- */

/* Whether what bears this name is to be kept from others. */
static bool is_secret_name(const char *name)
{
	static const char *const words[] = { "authorization", "cookie", "key", "token", "secret" };
	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (strcasestr(name, words[i]))
			return true;
	return false;
}

static int read_pairs(struct settings *s, const config_setting_t *group, const struct config_source *source,
                      const struct option *option, bool warn)
{
	const config_setting_t *setting = group ? config_setting_get_member(group, option->name) : NULL;
	struct option_pairs *list = (void *)((char *)source->settings + option->offset);
	int r = 0;
	for (size_t i = 0; i < list->n && r == 0; i++) {
		struct option_pair *pair = &list->pairs[i];
		struct spot spot = { .setting = setting ? config_setting_get_member(setting, pair->name) : NULL,
			             .name = pair->name,
			             .warn = warn && is_secret_name(pair->name) };
		struct err err = { "" };
		snprintf(spot.where, sizeof spot.where, "\"%s\" in source \"%s\"", option->name, source->name);
		r = option_read_pair(option, pair, s->folder, &err);
		r = judge(s, &spot, pair->reference, r, &err);
	}
	return r;
}

/* --- Passwords in URLs, which are no references --- */

static bool has_password(const char *url)
{
	const char *login = url ? strstr(url, "://") : NULL;
	if (!login)
		return false;
	login += strlen("://");
	const char *end = memrchr(login, '@', strcspn(login, "/?#"));
	return end && memchr(login, ':', (size_t)(end - login));
}

static void warn_of_password(struct settings *s, const config_setting_t *group, const struct config_source *source,
                             const struct option *option)
{
	const config_setting_t *setting = group ? config_setting_get_member(group, option->name) : NULL;
	char *path;
	if (!setting || !has_password(*(char **)(void *)((char *)source->settings + option->offset)) ||
	    !settings_others_read(s, setting, &path))
		return;
	settings_warn(s, setting,
	              "\"%s\" in source \"%s\" has a password, which stands in a file that others can read; "
	              "chmod 600 %s",
	              option->name, source->name, path);
	free(path);
}

static int read_source(struct settings *s, const config_setting_t *group, const struct config_source *source, bool warn)
{
	int r = 0;
	for (const struct option *o = source->kind ? source->kind->options : NULL; o && o->name && r == 0; o++)
		if (o->type == OPTION_PAIRS)
			r = read_pairs(s, group, source, o, warn);
		else if (o->type == OPTION_TEXT && warn)
			warn_of_password(s, group, source, o);
	return r;
}

int config_read_secrets(struct settings *s, struct config *config, bool warn)
{
	const config_setting_t *stores = config_lookup(&s->tree, "stores");
	const config_setting_t *sources = config_lookup(&s->tree, "sources");
	int r = 0;
	for (size_t i = 0; i < config->n_stores && r == 0; i++) {
		struct config_store *store = config->stores[i];
		r = read_store(s, stores ? config_setting_get_member(stores, store->name) : NULL, store, warn);
	}
	for (size_t i = 0; i < config->n_sources && r == 0; i++) {
		struct config_source *source = config->sources[i];
		r = read_source(s, config_setting_get_member(sources, source->name), source, warn);
	}
	return r;
}
