/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon: wires the folders together, runs the loop, and ends on SIGTERM within a second. Knows everyone, decides
 * little.
 */
#ifndef AGENT_AGENT_H
#define AGENT_AGENT_H

#include "agent/config.h"

/* Runs until told to stop, and frees the configuration. Returns the exit status (interface.md). */
int agent_run(struct config *config);

#endif
