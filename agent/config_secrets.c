/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/config_secrets.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/secret.h"
#include "base/units.h"
#include "board/wol.h"

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

/* --- Settings of all others: pairs, and passwords in URLs, which are no references --- */

/* Settings of a source, machine or job. */
struct part {
	const config_setting_t *group; /* NULL: it has none */
	const char *what, *name;       /* source "parking" */
	const struct option *options;
	void *settings;
	bool warn;
};

static const config_setting_t *setting_of(const struct part *part, const char *name)
{
	return part->group ? config_setting_get_member(part->group, name) : NULL;
}

/* Whether what bears this name is to be kept from others. */
static bool is_secret_name(const char *name)
{
	static const char *const words[] = { "authorization", "cookie", "key", "token", "secret" };
	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (strcasestr(name, words[i]))
			return true;
	return false;
}

static int read_pairs(struct settings *s, const struct part *part, const struct option *option)
{
	const config_setting_t *setting = setting_of(part, option->name);
	struct option_pairs *list = (void *)((char *)part->settings + option->offset);
	int r = 0;
	for (size_t i = 0; i < list->n && r == 0; i++) {
		struct option_pair *pair = &list->pairs[i];
		struct spot spot = { .setting = setting ? config_setting_get_member(setting, pair->name) : NULL,
			             .name = pair->name,
			             .warn = part->warn && is_secret_name(pair->name) };
		struct err err = { "" };
		snprintf(spot.where, sizeof spot.where, "\"%s\" in %s \"%s\"", option->name, part->what, part->name);
		r = option_read_pair(option, pair, s->folder, &err);
		r = judge(s, &spot, pair->reference, r, &err);
	}
	return r;
}

static bool has_password(const char *url)
{
	const char *login = url ? strstr(url, "://") : NULL;
	if (!login)
		return false;
	login += strlen("://");
	const char *end = memrchr(login, '@', strcspn(login, "/?#"));
	return end && memchr(login, ':', (size_t)(end - login));
}

static void warn_of_password(struct settings *s, const struct part *part, const struct option *option)
{
	const config_setting_t *setting = setting_of(part, option->name);
	char *path;
	if (!setting || !has_password(*(char **)(void *)((char *)part->settings + option->offset)) ||
	    !settings_others_read(s, setting, &path))
		return;
	settings_warn(s, setting,
	              "\"%s\" in %s \"%s\" has a password, which stands in a file that others can read; "
	              "chmod 600 %s",
	              option->name, part->what, part->name, path);
	free(path);
}

static int read_part(struct settings *s, const struct part *part)
{
	int r = 0;
	for (const struct option *o = part->options; o && o->name && r == 0; o++)
		if (o->type == OPTION_PAIRS)
			r = read_pairs(s, part, o);
		else if (o->type == OPTION_TEXT && part->warn)
			warn_of_password(s, part, o);
	return r;
}

/* --- Machines --- */

static int read_secure_on(struct settings *s, const struct part *part, struct config_machine *machine)
{
	const char *reference = machine->settings.secure_on;
	uint8_t secure_on[WOL_MAC];
	struct spot spot = { .setting = setting_of(part, "secure_on"), .name = "secure_on", .warn = part->warn };
	struct err err = { "" };
	if (!reference)
		return 0;
	snprintf(spot.where, sizeof spot.where, "machine \"%s\"", machine->name);
	int r = secret_read(reference, s->folder, &machine->secure_on, &err);
	if (r == 0 && wol_parse_secure_on(machine->secure_on, secure_on) < 0)
		r = err_fail(&err, -EINVAL,
		             "%s: its value, which is not shown, is no SecureOn password; it is written like "
		             "\"aa:bb:cc:dd:ee:ff\"",
		             secret_show(reference));
	explicit_bzero(secure_on, sizeof secure_on);
	return judge(s, &spot, reference, r, &err);
}

static int read_machine(struct settings *s, const struct part *part, struct config_machine *machine)
{
	int r = read_part(s, part);
	return r < 0 ? r : read_secure_on(s, part, machine);
}

/* --- All of them --- */

static const config_setting_t *group_of(const struct settings *s, const char *groups, const char *name)
{
	const config_setting_t *setting = config_lookup(&s->tree, groups);
	return setting ? config_setting_get_member(setting, name) : NULL;
}

static int read_mill(struct settings *s, struct config_mill *mill, bool warn)
{
	int r = 0;
	for (size_t i = 0; i < mill->n_machines && r == 0; i++) {
		struct config_machine *machine = &mill->machines[i];
		const struct part part = { .group = group_of(s, "machines", machine->name),
			                   .what = "machine",
			                   .name = machine->name,
			                   .options = machine_options,
			                   .settings = &machine->settings,
			                   .warn = warn };
		r = read_machine(s, &part, machine);
	}
	for (size_t i = 0; i < mill->n_jobs && r == 0; i++) {
		const struct config_job *job = &mill->jobs[i];
		const struct part part = { .group = group_of(s, "jobs", job->name),
			                   .what = "job",
			                   .name = job->name,
			                   .options = job->driver ? job->driver->options : NULL,
			                   .settings = job->settings,
			                   .warn = warn };
		r = read_part(s, &part);
	}
	return r;
}

int config_read_secrets(struct settings *s, struct config *config, bool warn)
{
	int r = 0;
	for (size_t i = 0; i < config->n_stores && r == 0; i++) {
		struct config_store *store = config->stores[i];
		r = read_store(s, group_of(s, "stores", store->name), store, warn);
	}
	for (size_t i = 0; i < config->n_sources && r == 0; i++) {
		const struct config_source *source = config->sources[i];
		const struct part part = { .group = group_of(s, "sources", source->name),
			                   .what = "source",
			                   .name = source->name,
			                   .options = source->kind ? source->kind->options : NULL,
			                   .settings = source->settings,
			                   .warn = warn };
		r = read_part(s, &part);
	}
	return r < 0 ? r : read_mill(s, config->mill, warn);
}
