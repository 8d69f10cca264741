/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `millrace check --online`: asks each store what delivery will ask of it. Runs a loop of its own until all is said; no
 * daemon is needed, none is disturbed. Sources are not polled.
 */
#ifndef AGENT_ONLINE_H
#define AGENT_ONLINE_H

#include <stdio.h>

#include "agent/config.h"

/*
 * A line for each store: to out `store lake: http://minio.lan:9000/lake: fine, honours If-None-Match`, to errors what
 * is wrong and what to do. config was loaded with its secrets. Returns the exit status: 0, or 69 where a store is out
 * of reach or refuses.
 */
int online_check(const struct config *config, FILE *out, FILE *errors);

#endif
