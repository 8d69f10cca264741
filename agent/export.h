/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `millrace export DIR`: writes every batch that some store has not into a folder that is there, under its final key
 * and durable, as far as there is room, and a list of them, `.millrace-export`: a line of JSON for each, with key,
 * bytes, sha256 and records. Nothing is deleted here, so it may be made again and again; what stands there already with
 * the same bytes is passed over. Synchronous; prints as cli/ does and returns the exit status.
 */
#ifndef AGENT_EXPORT_H
#define AGENT_EXPORT_H

#include <stdbool.h>

#include "agent/config.h"

/* What the daemon at the socket has. */
int export_by_daemon(const char *socket_path, const char *folder, bool json);

/* What the buffer has, which no daemon holds. */
int export_alone(const struct config *config, const char *folder, bool json);

#endif
