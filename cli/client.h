/* SPDX-License-Identifier: Apache-2.0 */
/* One request to the daemon over its Unix socket, by libcurl; blocks. */
#ifndef CLI_CLIENT_H
#define CLI_CLIENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/bytes.h"
#include "base/err.h"

/*
 * Asks and waits for the whole answer; GETs for at most half a minute, POSTs as long as the daemon needs. ret_body is
 * initialised here and the caller's to free with bytes_done, whatever is returned. CLI_OK: the answer is 200. Else the
 * exit status, and err says why, in the daemon's words where it had some.
 */
int client_request(const char *socket_path, const char *method, const char *path, struct bytes *ret_body,
                   struct err *err);

/*
 * GETs what has no end, or takes its time, and writes each piece to out (a descriptor) as it comes. CLI_OK: that was
 * all, which ret_ended tells, or nobody reads out any more, of which nobody needs to be told. Else as above.
 */
int client_stream(const char *socket_path, const char *path, int out, bool *ret_ended, struct err *err);

/*
 * GETs bytes, piece by piece. CLI_OK: on_bytes took them all. Else as client_request; where on_bytes did not return 0
 * it ends with CLI_CANTCREAT and err as it was.
 */
int client_fetch(const char *socket_path, const char *path, int (*on_bytes)(void *arg, const void *data, size_t len),
                 void *arg, struct err *err);

/*
 * PUTs the next `bytes` of the file `in`. ret_status: HTTP's of the answer; 0: none came, or the file could not be
 * read. CLI_OK: it is 200, and ret_answer the caller's. Else as client_request.
 */
int client_put(const char *socket_path, const char *path, int in, uint64_t bytes, long *ret_status, json_t **ret_answer,
               struct err *err);

/* The same as client_request for what answers with a JSON object, which is the caller's; copied as it came to copy
 * unless that is NULL.
 */
int client_ask(const char *socket_path, const char *method, const char *path, FILE *copy, json_t **ret_answer,
               struct err *err);

#endif
