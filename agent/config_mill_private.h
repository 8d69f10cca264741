/* SPDX-License-Identifier: Apache-2.0 */
/* The groups `machines` and `jobs` on their way out of the file. Private to agent/config*.c. */
#ifndef AGENT_CONFIG_MILL_PRIVATE_H
#define AGENT_CONFIG_MILL_PRIVATE_H

#include "agent/config.h"
#include "agent/settings.h"

#define CONFIG_MACHINES_MAX 16

/* Of settings_section; arg: the configuration. */
int config_read_machines(struct settings *s, const config_setting_t *setting, void *arg);
int config_read_jobs(struct settings *s, const config_setting_t *setting, void *arg);

/*
 * Once the rest of the file is read: tells what jobs name that is not there, or does not fit, and fills in what they
 * leave out. 0 or -ENOMEM.
 */
int config_complete_mill(struct settings *s, struct config *config);

/* Warns of keys that ssh would not take, of host keys and programs that are not there; they may be put there later. */
void config_warn_of_mill(struct settings *s, const struct config *config);

const struct config_machine *config_find_machine(const struct config_mill *mill, const char *name); /* or NULL */
const struct config_job *config_find_job(const struct config_mill *mill, const char *name);         /* the same */

/* Secrets included. */
bool config_same_machine(const struct config_machine *a, const struct config_machine *b);
bool config_same_job(const struct config_job *a, const struct config_job *b);

#endif
