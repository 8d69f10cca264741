/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Machines and jobs, as the configuration's groups `machines` and `jobs` tell them. Copies all that it needs of the
 * stores, so that it outlives the configuration that it was read with: a reload that leaves it as it is moves it on.
 */
#ifndef AGENT_CONFIG_MILL_H
#define AGENT_CONFIG_MILL_H

#include "base/option.h"
#include "mill/driver.h"
#include "mill/machine.h"
#include "mill/manifest.h"
#include "mill/when.h"

struct config_machine {
	char *name;
	struct machine_settings settings;
	char *secure_on; /* what the setting of this name refers to; NULL: not read, or there is none */
};

struct config_job {
	char *name;
	char *machine;                   /* NULL: it needs none (exec and http) */
	const struct driver_ops *driver; /* `driver`, one of driver_kinds */
	void *settings;                  /* the driver's own */
	char *store;                     /* left out: the only one */
	struct option_names sources;     /* of the file, or `_polls`; left out: all of the file that go to the store */
	char *when_text;
	struct when when;
	char *path_there;            /* of a `file` store: its path as the machine sees it; NULL: another kind */
	struct manifest_store there; /* its texts are the job's own */
	int64_t timeout_ms;          /* of one attempt [1h] */
	int64_t retries;             /* after the first attempt [3] */
};

struct config_mill {
	struct config_machine *machines;
	size_t n_machines;
	struct config_job *jobs;
	size_t n_jobs;
};

#define CONFIG_COUNT_MAX 64

/* How many machines and jobs there are, behind such a list: `, machines: 1, jobs: 2`; "" where there are none. */
void config_count_mill(const struct config_mill *mill, char ret_text[CONFIG_COUNT_MAX]);

bool config_same_mill(const struct config_mill *a, const struct config_mill *b); /* secrets included */
void config_free_mill(struct config_mill *mill); /* overwrites the secrets; NULL is fine */

#endif
