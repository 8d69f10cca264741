/* SPDX-License-Identifier: Apache-2.0 */
/* What a reload changes, in a line for the log. */
#include <stdio.h>
#include <string.h>

#include "agent/config.h"
#include "agent/config_mill_private.h"
#include "agent/config_options.h"

#define NAMES_MAX 180 /* bytes of the names of one kind of change; three of them fit into CONFIG_CHANGES_MAX */

struct names {
	char text[NAMES_MAX];
	size_t n, left_off;
};

/* `source parking`, `batch.max_age` */
static void add(struct names *names, const char *group, const char *between, const char *name)
{
	size_t len = strlen(names->text);
	int more = snprintf(names->text + len, NAMES_MAX - len, "%s%s%s%s", names->n ? ", " : "", group, between, name);

	names->n++;
	if (names->left_off > 0 || more >= (int)(NAMES_MAX - len)) {
		names->text[len] = '\0'; /* whole names alone, and none behind one that was left off */
		names->left_off++;
	}
}

static void add_options(struct names *changed, const char *group, const struct option *options, const void *now,
                        const void *before)
{
	for (; options->name; options++) {
		const struct option one[] = { *options, OPTION_END };

		if (!option_equal(one, now, before))
			add(changed, group, *group ? "." : "", options->name);
	}
}

/* Whether the source's own value is another: what it takes from the file's batch is told there. */
static bool is_own(int64_t now, int64_t before, int64_t file_now, int64_t file_before)
{
	return now != before && (now != file_now || before != file_before);
}

static bool same_batch(const struct config_batch *a, const struct config_batch *b, const struct config *now,
                       const struct config *before)
{
	return !is_own(a->max_bytes, b->max_bytes, now->batch.max_bytes, before->batch.max_bytes) &&
	       !is_own(a->max_records, b->max_records, now->batch.max_records, before->batch.max_records) &&
	       !is_own(a->max_age_ms, b->max_age_ms, now->batch.max_age_ms, before->batch.max_age_ms);
}

static const struct config_source *find_source(const struct config *config, const char *name)
{
	for (size_t i = 0; i < config->n_sources; i++)
		if (strcmp(config->sources[i]->name, name) == 0)
			return config->sources[i];
	return NULL;
}

static const struct config_store *find_store(const struct config *config, const char *name)
{
	for (size_t i = 0; i < config->n_stores; i++)
		if (strcmp(config->stores[i]->name, name) == 0)
			return config->stores[i];
	return NULL;
}

static void compare_sources(const struct config *now, const struct config *before, struct names *added,
                            struct names *changed, struct names *removed)
{
	for (size_t i = 0; i < now->n_sources; i++) {
		const struct config_source *a = now->sources[i], *b = find_source(before, a->name);

		if (!b)
			add(added, "source", " ", a->name);
		else if (!config_same_source(a, b) || !option_equal(config_source_options, a, b) ||
		         !same_batch(&a->batch, &b->batch, now, before))
			add(changed, "source", " ", a->name);
	}
	for (size_t i = 0; i < before->n_sources; i++)
		if (!find_source(now, before->sources[i]->name))
			add(removed, "source", " ", before->sources[i]->name);
}

static void compare_stores(const struct config *now, const struct config *before, struct names *added,
                           struct names *changed, struct names *removed)
{
	for (size_t i = 0; i < now->n_stores; i++) {
		const struct config_store *a = now->stores[i], *b = find_store(before, a->name);

		if (!b)
			add(added, "store", " ", a->name);
		else if (!config_same_store(a, b))
			add(changed, "store", " ", a->name);
	}
	for (size_t i = 0; i < before->n_stores; i++)
		if (!find_store(now, before->stores[i]->name))
			add(removed, "store", " ", before->stores[i]->name);
}

static void compare_machines(const struct config_mill *now, const struct config_mill *before, struct names *added,
                             struct names *changed, struct names *removed)
{
	for (size_t i = 0; i < now->n_machines; i++) {
		const struct config_machine *a = &now->machines[i], *b = config_find_machine(before, a->name);

		if (!b)
			add(added, "machine", " ", a->name);
		else if (!config_same_machine(a, b))
			add(changed, "machine", " ", a->name);
	}
	for (size_t i = 0; i < before->n_machines; i++)
		if (!config_find_machine(now, before->machines[i].name))
			add(removed, "machine", " ", before->machines[i].name);
}

static void compare_jobs(const struct config_mill *now, const struct config_mill *before, struct names *added,
                         struct names *changed, struct names *removed)
{
	for (size_t i = 0; i < now->n_jobs; i++) {
		const struct config_job *a = &now->jobs[i], *b = config_find_job(before, a->name);

		if (!b)
			add(added, "job", " ", a->name);
		else if (!config_same_job(a, b))
			add(changed, "job", " ", a->name);
	}
	for (size_t i = 0; i < before->n_jobs; i++)
		if (!config_find_job(now, before->jobs[i].name))
			add(removed, "job", " ", before->jobs[i].name);
}

static void tell(char text[CONFIG_CHANGES_MAX], const char *what, const struct names *names)
{
	size_t len = strlen(text);

	if (names->n == 0)
		return;
	len += (size_t)snprintf(text + len, CONFIG_CHANGES_MAX - len, "%s%s: %s", len ? "; " : "", what, names->text);
	if (names->left_off > 0)
		snprintf(text + len, CONFIG_CHANGES_MAX - len, " and %zu more", names->left_off);
}

void config_changes(const struct config *now, const struct config *before, char ret_text[CONFIG_CHANGES_MAX])
{
	struct names added = { "", 0, 0 }, changed = { "", 0, 0 }, removed = { "", 0, 0 };

	add_options(&changed, "", config_top_options, now, before);
	add_options(&changed, "buffer", config_buffer_options, now, before);
	add_options(&changed, "batch", config_batch_options, &now->batch, &before->batch);
	compare_sources(now, before, &added, &changed, &removed);
	compare_stores(now, before, &added, &changed, &removed);
	compare_machines(now->mill, before->mill, &added, &changed, &removed);
	compare_jobs(now->mill, before->mill, &added, &changed, &removed);
	ret_text[0] = '\0';
	tell(ret_text, "added", &added);
	tell(ret_text, "changed", &changed);
	tell(ret_text, "removed", &removed);
	if (!ret_text[0])
		snprintf(ret_text, CONFIG_CHANGES_MAX, "nothing changed");
}
