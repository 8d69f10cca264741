/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration: read once, checked whole, const from then on. All mistakes of a file are told at once, each with
 * file and line, what is wrong and what would be right. Owned by whoever loaded it; read by any thread.
 */
#ifndef AGENT_CONFIG_H
#define AGENT_CONFIG_H

#include <stdbool.h>
#include <stdio.h>

#include "base/log.h"
#include "base/option.h"
#include "collectors/collector.h"

#define CONFIG_PATH "/etc/millrace/millrace.conf"

struct config_batch {
	int64_t max_bytes, max_records, max_age_ms;
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
	char *path;
	bool embedded; /* the one that is there when the file names none: its folder is made if need be */
};

struct config {
	char *path; /* the file */
	char *device;
	char *socket;
	int log; /* enum log_format */
	char *buffer_path;
	int64_t keep_delivered_ms;
	struct config_batch batch;
	struct config_source *sources;
	size_t n_sources;
	struct config_store *stores;
	size_t n_stores;
};

/*
 * Reads the file and writes every mistake as a line `FILE:12: …` to `errors`. 0; -EINVAL: there were mistakes; -ENOENT,
 * -EACCES, …: the file cannot be read (told as well). Nothing is opened but the file itself and what it includes.
 */
int config_load(const char *path, FILE *errors, struct config **ret_config);
void config_free(struct config *config);

/* What `millrace check` says of a file without mistakes: a line `FILE: fine: 1 source, 1 store`, then one for each. */
void config_print(const struct config *config, FILE *out);

#endif
