/* SPDX-License-Identifier: Apache-2.0 */
/* The secrets that the settings of stores, sources, machines and jobs refer to. Private to agent/config*.c. */
#ifndef AGENT_CONFIG_SECRETS_H
#define AGENT_CONFIG_SECRETS_H

#include "agent/config.h"
#include "agent/settings.h"

/*
 * Reads them all; each that cannot be read is told as a mistake. `warn`: those that stand in a file that others can
 * read are told as well; of a pair only where its name says that it is one. 0 or -ENOMEM.
 */
int config_read_secrets(struct settings *s, struct config *config, bool warn);

#endif
