/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration: read once, checked whole, const from then on. All mistakes of a file are told at once, each with
 * file and line, what is wrong and what would be right. Owned by whoever loaded it; read by any thread.
 */
#ifndef AGENT_CONFIG_H
#define AGENT_CONFIG_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "agent/config_mill.h"
#include "base/log.h"
#include "base/option.h"
#include "buffer/store.h"
#include "collectors/collector.h"

#define CONFIG_PATH "/etc/millrace/millrace.conf"

struct config_batch {
	int64_t max_bytes, max_records, max_age_ms;
};

enum config_on_full {
	CONFIG_PAUSE,       /* no polls until there is room */
	CONFIG_DROP_OLDEST, /* the oldest batch makes room */
};

enum config_clock {
	CONFIG_CLOCK_AUTO,  /* it is right once it is synchronised */
	CONFIG_CLOCK_TRUST, /* it is right */
};

struct config_source {
	char *name;
	const struct collector_ops *kind;
	void *settings; /* the kind's own */
	bool enabled;
	struct option_names stores; /* names == NULL: all */
	struct config_batch batch;  /* the file's, or its own */
};

struct config_store {
	char *name;
	const struct store_kind *kind;
	void *settings;                /* the kind's own */
	char *place;                   /* what the buffer remembers of it */
	char *access_key, *secret_key; /* what the settings of these names refer to; NULL: not read, or it has none */
	bool embedded; /* the one that is there when the file names none: its folder is made if need be */
};

struct config {
	char *path; /* the file */
	char *device;
	char *socket;
	int log;               /* enum log_format */
	int clock;             /* enum config_clock */
	int64_t clock_wait_ms; /* from the boot on; longer a wrong clock is not waited for */
	char *buffer_path;
	char *buffer_place; /* where the file says so: `FILE:12`, or `FILE` where it does not */
	int64_t max_size;   /* bytes that the buffer ever takes of the card */
	int on_full;        /* enum config_on_full */
	int64_t keep_delivered_ms;
	struct config_batch batch;
	struct config_source **sources; /* each of its own, so that it may outlive the configuration */
	size_t n_sources;
	struct config_store **stores; /* the same */
	size_t n_stores;
	struct config_mill *mill; /* the same; never NULL: it may be empty */
};

enum config_use {
	CONFIG_ASK,   /* secrets stay references, and nothing is opened but the file and what it includes */
	CONFIG_RUN,   /* secrets are read; one that cannot be is a mistake */
	CONFIG_CHECK, /* as CONFIG_RUN, and lines `FILE:12: warning: …` tell what is no mistake and yet unwise */
};

/*
 * Reads the file and writes every mistake as a line `FILE:12: …` to `errors`. 0; -EINVAL: there were mistakes; -ENOENT,
 * -EACCES, …: the file cannot be read (told as well).
 */
int config_load(const char *path, enum config_use use, FILE *errors, struct config **ret_config);

/*
 * All that a client wants of the file: where the daemon's socket is, and the buffer (NULL: not asked), to be freed.
 * Mistakes that config_load would tell do not matter here, so that a daemon can be asked that runs on with the file
 * before. 0 or what config_load says of a file that cannot be read or parsed (told).
 */
int config_find_socket(const char *path, FILE *errors, char **ret_socket, char **ret_buffer);

void config_free(struct config *config); /* overwrites the secrets; NULL is fine */

/*
 * A reload. Running parts borrow sources and stores, with their settings and secrets, and must not notice that what
 * they borrow was read again.
 */

/*
 * Whether a collector of a could do b's work: kind, settings with what their secrets refer to, enabled. Stores and
 * batch are no matter of the collector but of the buffer's routes.
 */
bool config_same_source(const struct config_source *a, const struct config_source *b);

/* Whether a carrier to a is one to b: kind, place, settings, secrets, embedded. */
bool config_same_store(const struct config_store *a, const struct config_store *b);

/*
 * Moves each source and store of `before` into `now` where `now` has the same under that name, in place of its own,
 * which is freed; a source takes stores and batch from its own. So pointers to them stay good, and what is left in
 * `before` is what is gone or changed. Loop thread, while no job reads either of the two. Cannot fail. So it is with
 * the mill as a whole: where it is the same, `now` has that of `before`, whose own is NULL then.
 */
void config_keep(struct config *now, struct config *before);

#define CONFIG_CHANGES_MAX 640

/*
 * What a reload brings, before config_keep: `added: source b; changed: batch, source a; removed: store disk`, with as
 * many names as there is room for, or `nothing changed`.
 */
void config_changes(const struct config *now, const struct config *before, char ret_text[CONFIG_CHANGES_MAX]);

/* Takes one out of a configuration, which the caller then frees when nothing borrows it; NULL: it has none such. */
struct config_source *config_take_source(struct config *config, const char *name);
struct config_store *config_take_store(struct config *config, const char *name);

/* Overwrite the secrets; NULL is fine. */
void config_free_source(struct config_source *source);
void config_free_store(struct config_store *store);

/* What `millrace check` says of a file without mistakes: a line `FILE: fine: 1 source, 1 store`, then one for each. */
void config_print(const struct config *config, FILE *out);

/*
 * All of it with the defaults, as an object like the file's groups: durations and sizes as they are written, what has
 * neither value nor default left out, secrets as secret_show tells, URLs without their query. A new reference; NULL: no
 * memory.
 */
json_t *config_json(const struct config *config);

#endif
