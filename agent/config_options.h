/* SPDX-License-Identifier: Apache-2.0 */
/* The settings that belong to no kind of source or store, nor to a driver. Private to agent/config*.c. */
#ifndef AGENT_CONFIG_OPTIONS_H
#define AGENT_CONFIG_OPTIONS_H

#include "base/option.h"

extern const struct option config_top_options[];    /* into struct config */
extern const struct option config_buffer_options[]; /* into struct config */
extern const struct option config_batch_options[];  /* into struct config_batch */
extern const struct option config_source_options[]; /* into struct config_source */
extern const struct option config_job_options[];    /* into struct config_job */

#endif
