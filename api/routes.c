/* SPDX-License-Identifier: Apache-2.0 */
#include "api/routes.h"

#include <stdlib.h>
#include <string.h>

#include "api/request.h"
#include "base/units.h"

#define LAST_DEFAULT   10
#define LAST_MAX       100000
#define PARAMETERS_MAX 2

/* What a request says beyond its route. */
struct words {
	char name[UNITS_NAME_MAX];          /* in the path; "" */
	const char *values[PARAMETERS_MAX]; /* of the route's parameters; NULL: not in the query, "": `?last` alone */
};

struct route {
	const char *method;
	const char *pattern;                    /* `*` stands for a source's name or a batch's number */
	const char *parameters[PARAMETERS_MAX]; /* that a query may have */
	bool waits;                             /* the backend answers later */
	void (*serve)(const struct routes_request *request, const struct words *words, struct api_call *call);
};

static void serve_view(const struct routes_request *request, json_t *(*write)(const struct status_view *),
                       struct api_call *call)
{
	struct status_view view = { 0 };
	json_t *body = request->backend->status(request->agent, &view) == 0 ? write(&view) : NULL;
	view_done(&view);
	if (body)
		api_answer(call, body);
	else
		api_answer_problem(call, 500, NO_MEMORY);
}

static void get_status(const struct routes_request *request, const struct words *words, struct api_call *call)
{
	(void)words;
	serve_view(request, view_status, call);
}

static void get_sources(const struct routes_request *request, const struct words *words, struct api_call *call)
{
	(void)words;
	serve_view(request, view_sources, call);
}

static void get_stores(const struct routes_request *request, const struct words *words, struct api_call *call)
{
	(void)words;
	serve_view(request, view_stores, call);
}

static void get_config(const struct routes_request *request, const struct words *words, struct api_call *call)
{
	(void)words;
	json_t *body = request->backend->config(request->agent);
	if (body)
		api_answer(call, body);
	else
		api_answer_problem(call, 500, NO_MEMORY);
}

static void get_batches(const struct routes_request *request, const struct words *words, struct api_call *call)
{
	(void)words;
	request->backend->batches(request->agent, call);
}

/* What is not in the query stays as it is. */
static bool parse_last(const char *text, size_t *ret_last)
{
	size_t digits = text ? strspn(text, "0123456789") : 0;
	if (!text)
		return true;
	if (digits == 0 || digits > 6 || text[digits] || strtoul(text, NULL, 10) > LAST_MAX)
		return false;
	*ret_last = strtoul(text, NULL, 10);
	return true;
}

static bool parse_switch(const char *text, bool *ret_on)
{
	if (!text)
		return true;
	*ret_on = strcmp(text, "1") == 0;
	return *ret_on || strcmp(text, "0") == 0;
}

static void get_records(const struct routes_request *request, const struct words *words, struct api_call *call)
{
	size_t last = LAST_DEFAULT;
	bool follow = false;
	if (!parse_last(words->values[0], &last))
		api_answer_problem(call, 400, "last is a number from 0 to %d", LAST_MAX);
	else if (!parse_switch(words->values[1], &follow))
		api_answer_problem(call, 400, "follow is 0 or 1");
	else
		request->backend->records(request->agent, words->name, last, follow, call);
}

static void get_rejected(const struct routes_request *request, const struct words *words, struct api_call *call)
{
	(void)words;
	request->backend->rejected(request->agent, call);
}

static void post_poll(const struct routes_request *request, const struct words *words, struct api_call *call)
{
	request->backend->poll(request->agent, words->name, call);
}

static void post_flush(const struct routes_request *request, const struct words *words, struct api_call *call)
{
	bool wait = false;
	if (!parse_switch(words->values[0], &wait))
		api_answer_problem(call, 400, "wait is 0 or 1");
	else
		request->backend->flush(request->agent, wait, call);
}

static void post_retry(const struct routes_request *request, const struct words *words, struct api_call *call)
{
	const char *id = words->name;
	if (strlen(id) > 18 || strspn(id, "0123456789") != strlen(id))
		api_answer_problem(call, 404, "\"%s\" is no batch; `millrace show batches` lists them", id);
	else
		request->backend->retry(request->agent, strtoll(id, NULL, 10), call);
}

static void post_audit(const struct routes_request *request, const struct words *words, struct api_call *call)
{
	int64_t since_day = INT64_MIN;
	if (words->values[0] && units_parse_date(words->values[0], &since_day) < 0)
		api_answer_problem(call, 400, "since is a date like 2026-11-21");
	else
		request->backend->audit(request->agent, since_day, call);
}

static const struct route routes[] = {
	{ "GET", "/v1/status", { NULL }, false, get_status },
	{ "GET", "/v1/sources", { NULL }, false, get_sources },
	{ "GET", "/v1/stores", { NULL }, false, get_stores },
	{ "GET", "/v1/config", { NULL }, false, get_config },
	{ "GET", "/v1/batches", { NULL }, true, get_batches },
	{ "GET", "/v1/rejected", { NULL }, true, get_rejected },
	{ "GET", "/v1/sources/*/records", { "last", "follow" }, true, get_records },
	{ "POST", "/v1/sources/*/poll", { NULL }, true, post_poll },
	{ "POST", "/v1/flush", { "wait" }, true, post_flush },
	{ "POST", "/v1/audit", { "since" }, true, post_audit },
	{ "POST", "/v1/batches/*/retry", { NULL }, true, post_retry },
};

/* Whether the path fits; what stands for `*` goes to name, which has UNITS_NAME_MAX bytes. */
static bool matches(const char *pattern, const char *path, char *name)
{
	size_t before = strcspn(pattern, "*");
	*name = '\0';
	if (strncmp(path, pattern, before) != 0)
		return false;
	if (!pattern[before])
		return !path[before];
	path += before;
	size_t len = strcspn(path, "/");
	if (strcmp(path + len, pattern + before + 1) != 0 || len >= UNITS_NAME_MAX)
		return false;
	memcpy(name, path, len);
	name[len] = '\0';
	/* A leading _ is ours; a number is no name. */
	return units_is_name(name + (*name == '_')) || (len > 0 && strspn(name, "0123456789") == len);
}

static const struct route *find(const char *path, char *name)
{
	for (size_t i = 0; i < sizeof routes / sizeof *routes; i++)
		if (matches(routes[i].pattern, path, name))
			return &routes[i];
	return NULL;
}

/* HEAD is GET whose body the server leaves out (RFC 9110 §9.3.2). */
static bool allows(const struct route *route, const char *method)
{
	return strcmp(route->method, strcmp(method, "HEAD") == 0 ? "GET" : method) == 0;
}

static void answer_wrong_method(const struct route *route, const char *method, struct api_call *call)
{
	char detail[128];
	const char *allowed = strcmp(route->method, "GET") == 0 ? "GET, HEAD" : route->method;
	snprintf(detail, sizeof detail, "this takes %s, not %.40s", allowed, method);
	struct MHD_Response *response = api_problem(405, detail);
	if (response)
		MHD_add_response_header(response, "Allow", allowed);
	api_answer_response(call, 405, response);
}

struct query {
	const char *const *known;
	const char **values;
	const char *unknown; /* the first one that is not known */
};

static enum MHD_Result on_parameter(void *arg, enum MHD_ValueKind kind, const char *key, const char *value)
{
	(void)kind;
	struct query *query = arg;
	for (size_t i = 0; i < PARAMETERS_MAX && query->known[i]; i++) {
		if (strcmp(key, query->known[i]) == 0) {
			query->values[i] = value ? value : "";
			return MHD_YES;
		}
	}
	query->unknown = key;
	return MHD_NO;
}

void routes_serve(const struct routes_request *request, struct api_call *call)
{
	struct words words = { .values = { NULL } };
	const struct route *route = find(request->path, words.name);
	if (!route) {
		api_answer_problem(call, 404, "there is no %.200s here; docs/api.md has the list", request->path);
		return;
	}
	if (!allows(route, request->method)) {
		answer_wrong_method(route, request->method, call);
		return;
	}
	struct query query = { .known = route->parameters, .values = words.values };
	MHD_get_connection_values(request->connection, MHD_GET_ARGUMENT_KIND, on_parameter, &query);
	if (query.unknown)
		api_answer_problem(call, 400, "unknown parameter \"%.100s\"", query.unknown);
	else if (route->waits && request->crowded)
		api_answer_problem(call, 503, "too many calls wait for their answers; try again later");
	else
		route->serve(request, &words, call);
}
