/* SPDX-License-Identifier: Apache-2.0 */
/* Calls and their answers: JSON, or a problem. */
#include <stdio.h>
#include <stdlib.h>

#include "api/request.h"
#include "api/routes.h"

#define UNSENT_MAX ((size_t)1 << 20)
#define DETAIL_MAX 1024

struct api_call *call_new(struct request *request)
{
	struct api *api = request->api;
	struct api_call *call = calloc(1, sizeof *call);
	if (!call)
		return NULL;
	call->api = api;
	call->request = request;
	call->next = api->calls;
	api->calls = call;
	api->n_calls++;
	request->call = call;
	return call;
}

void call_detach(struct api_call *call)
{
	if (call->request)
		call->request->call = NULL;
	call->request = NULL;
}

static void call_free(struct api_call *call)
{
	struct api_call **at = call->api ? &call->api->calls : NULL;
	if (at) {
		while (*at != call)
			at = &(*at)->next;
		*at = call->next;
		call->api->n_calls--;
	}
	free(call);
}

void api_answer_response(struct api_call *call, unsigned status, struct MHD_Response *response)
{
	struct request *request = call->request;
	call_detach(call);
	call_free(call);
	if (request)
		request_answer(request, status, response);
	else if (response)
		MHD_destroy_response(response);
}

/* Takes the reference; the caller frees the text. The line break at the end is for those who look with curl. */
static char *json_text(json_t *json, size_t *ret_len)
{
	size_t len = json ? json_dumpb(json, NULL, 0, JSON_COMPACT) : 0;
	char *text = len ? malloc(len + 1) : NULL;
	if (text) {
		json_dumpb(json, text, len, JSON_COMPACT);
		text[len] = '\n';
		*ret_len = len + 1;
	}
	json_decref(json);
	return text;
}

/* Takes the text. NULL: no memory. */
static struct MHD_Response *response_new(char *text, size_t len, const char *type)
{
	struct MHD_Response *response = MHD_create_response_from_buffer(len, text, MHD_RESPMEM_MUST_FREE);
	if (!response)
		free(text);
	else
		MHD_add_response_header(response, "Content-Type", type);
	return response;
}

struct MHD_Response *api_problem(unsigned status, const char *detail)
{
	json_t *json = json_pack("{s:s, s:s, s:i, s:o}", "type", "about:blank", "title",
	                         MHD_get_reason_phrase_for(status), "status", (int)status, "detail", view_text(detail));
	size_t len = 0;
	char *text = json_text(json, &len);
	return text ? response_new(text, len, "application/problem+json") : NULL;
}

/* One answer may be larger than all may be together, or it could never be given; but then it is alone. */
static bool fits(const struct api *api, size_t len)
{
	return api->unsent == 0 || (len <= UNSENT_MAX && api->unsent <= UNSENT_MAX - len);
}

void api_answer(struct api_call *call, json_t *body)
{
	struct request *request = call->request;
	size_t len = 0;
	char *text = json_text(body, &len);
	if (text && request && !fits(request->api, len)) {
		free(text);
		api_answer_problem(call, 503,
		                   "too many answers wait for readers that do not take them; try again later");
		return;
	}
	if (request) {
		request->bytes = len;
		request->api->unsent += len;
	}
	api_answer_response(call, 200, text ? response_new(text, len, "application/json") : NULL);
}

void api_answer_problem(struct api_call *call, unsigned status, const char *format, ...)
{
	char detail[DETAIL_MAX];
	va_list args;
	va_start(args, format);
	vsnprintf(detail, sizeof detail, format, args);
	va_end(args);
	api_answer_response(call, status, api_problem(status, detail));
}
