/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A configuration file as libconfig parsed it, walked with tables of base/option: whoever a setting belongs to, its
 * mistakes are told in one way, `FILE:12: …`, and counted. Knows no setting by name. Lives while config_load reads.
 */
#ifndef AGENT_SETTINGS_H
#define AGENT_SETTINGS_H

#include <libconfig.h>
#include <stdbool.h>
#include <stdio.h>

#include "base/option.h"

struct settings {
	config_t tree;
	const char *path; /* as it was given; borrowed */
	char *folder;     /* its folder, absolute */
	FILE *errors;     /* NULL: mistakes are only counted */
	size_t mistakes;
};

/* Reads and parses. 0; -EINVAL: syntax; else -errno: it cannot be read. What is wrong is told. path is borrowed. */
int settings_open(struct settings *s, const char *path, FILE *errors);
void settings_close(struct settings *s);

/* Tells one mistake with the place of `at`; NULL: of the file as a whole. */
void settings_mistake(struct settings *s, const config_setting_t *at, const char *format, ...)
        __attribute__((format(printf, 3, 4)));

/* The same for what is no mistake and yet unwise: `FILE:12: warning: …`. */
void settings_warn(struct settings *s, const config_setting_t *at, const char *format, ...)
        __attribute__((format(printf, 3, 4)));

/* `FILE:12`, or `FILE` for NULL; to be freed. NULL: no memory. */
char *settings_place(const struct settings *s, const config_setting_t *at);

/* Whether the file that this stands in may be read by others than its owner; then ret_path is its path, to be freed. */
bool settings_others_read(const struct settings *s, const config_setting_t *at, char **ret_path);

/*
 * Tells that `word` is none of the n known ones: `unknown setting "evry" in source "parking"; did you mean "every"?`,
 * or which there are where none is near. what: "setting". where: `source "parking"`; NULL: the file.
 */
void settings_unknown(struct settings *s, const config_setting_t *at, const char *what, const char *word,
                      const char *where, const char *const *known, size_t n);

/* Whether it is one of the n known ones; if not, that is told like this. */
bool settings_is_known(struct settings *s, const config_setting_t *at, const char *what, const char *word,
                       const char *where, const char *const *known, size_t n);

/*
 * The names that stand in one of the file's groups, in an array with room for one more, which the caller frees; they
 * are borrowed. NULL: no memory.
 */
const char **settings_names(const struct settings *s, const char *group, size_t *ret_n);

/* Whether it bears a name that may be configured; if not, that is told. what: "source". */
bool settings_is_name(struct settings *s, const config_setting_t *setting, const char *what);

/* Whether it is a group; if not, that is told. */
bool settings_is_group(struct settings *s, const config_setting_t *setting, const char *where);

/* A setting that no table describes. read: 0 or -ENOMEM, and tells mistakes; NULL: the caller reads it otherwise. */
struct settings_section {
	const char *name; /* NULL ends a table */
	int (*read)(struct settings *s, const config_setting_t *setting, void *arg);
};

/* A group of the file and what may stand in it. */
struct settings_group {
	const char *where;
	const struct option *options[2]; /* NULL: none */
	void *targets[2];
	const struct settings_section *sections; /* NULL: none */
	void *arg;
	bool any; /* unknown settings are not told, because what they belong to is not known */
};

#define SETTINGS_GROUP_MAX 64  /* settings that may stand in one group */
#define SETTINGS_PLACE_MAX 511 /* bytes of a path, and of what the buffer remembers of a store's place */

/*
 * Reads every setting of a group in the file's order, missing ones told first. Paths, and files that secrets refer to,
 * become absolute, seen from the configuration's folder. 0 or -ENOMEM.
 */
int settings_read(struct settings *s, const config_setting_t *setting, const struct settings_group *group);

#endif
