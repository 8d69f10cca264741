/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which path and method asks the backend for what: private to api/. routes.c judges requests, api.c carries them.
 * Loop thread only.
 */
#ifndef API_ROUTES_H
#define API_ROUTES_H

#include <microhttpd.h>
#include <stdbool.h>

#include "api/api.h"

struct routes_request {
	const struct api_backend *backend;
	void *agent;
	struct MHD_Connection *connection; /* for the query */
	const char *method, *path;
	uint64_t body; /* bytes of one that is wanted */
	bool crowded;  /* so many calls wait that only what comes from memory is answered */
};

/* Answers the call, or hands it to the backend. */
void routes_serve(const struct routes_request *request, struct api_call *call);

/* How long a body this may have that somebody wants; 0: none is wanted. */
uint64_t routes_body_max(const char *method, const char *path);

/* A problem as problem+json (RFC 9457). NULL: no memory. */
struct MHD_Response *api_problem(unsigned status, const char *detail);

/* Ends the call; takes the response. NULL: no memory, the connection is closed without an answer. */
void api_answer_response(struct api_call *call, unsigned status, struct MHD_Response *response);

#endif
