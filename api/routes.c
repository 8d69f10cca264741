/* SPDX-License-Identifier: Apache-2.0 */
#include "api/routes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/request.h"
#include "base/clock.h"
#include "base/units.h"
#include "buffer/object.h"

#define OBJECT_MAX     (UINT64_C(1) << 27) /* bytes of an object */
#define LAST_DEFAULT   10
#define LAST_MAX       100000
#define PARAMETERS_MAX 2
#define NO_BATCH       "\"%s\" is no batch; `millrace show batches` lists them"
#define NO_RUN         "\"%s\" is no run; `millrace show runs` lists them"

/* What a request says beyond its route. */
struct words {
	char name[OBJECT_KEY_MAX];          /* in the path; "" */
	const char *values[PARAMETERS_MAX]; /* of the route's parameters; NULL: not in the query, "": `?last` alone */
};

struct route {
	const char *method;
	const char *pattern; /* `*` stands for a name, a batch's number or a run's id, `**` for a key */
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

/* A batch's number. */
static bool parse_id(const char *text, int64_t *ret_id)
{
	size_t digits = text ? strspn(text, "0123456789") : 1;
	if (digits == 0 || digits > 18 || (text && text[digits]))
		return false;
	*ret_id = text ? strtoll(text, NULL, 10) : 0;
	return true;
}

static void get_batches(const struct routes_request *request, const struct words *words, struct api_call *call)
{
	bool waiting = false;
	int64_t after = 0;
	if (!parse_switch(words->values[0], &waiting))
		api_answer_problem(call, 400, "waiting is 0 or 1");
	else if (!parse_id(words->values[1], &after) || (after > 0 && !waiting))
		api_answer_problem(call, 400, "after is the id of a batch, and goes with waiting=1");
	else
		request->backend->batches(request->agent, waiting, after, call);
}

static void get_object(const struct routes_request *request, const struct words *words, struct api_call *call)
{
	int64_t id;
	if (parse_id(words->name, &id))
		request->backend->object(request->agent, id, call);
	else
		api_answer_problem(call, 404, NO_BATCH, words->name);
}

static int hex_digit(char c)
{
	const char *digits = "0123456789abcdef", *at = c ? strchr(digits, c) : NULL;
	return at ? (int)(at - digits) : -1;
}

static bool parse_sha256(const char *text, uint8_t sha256[SHA256_SIZE])
{
	if (!text || strlen(text) != 2 * (size_t)SHA256_SIZE)
		return false;
	for (size_t i = 0; i < SHA256_SIZE; i++) {
		int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
		if (high < 0 || low < 0)
			return false;
		sha256[i] = (uint8_t)(high << 4 | low);
	}
	return true;
}

static void put_object(const struct routes_request *request, const struct words *words, struct api_call *call)
{
	struct api_object object = { .key = words->name, .bytes = request->body };
	if (parse_sha256(words->values[0], object.sha256))
		request->backend->import(request->agent, &object, call);
	else
		api_answer_problem(call, 400, "sha256 is that of the body, in 64 small hex digits");
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
	int64_t id;
	if (parse_id(words->name, &id))
		request->backend->retry(request->agent, id, call);
	else
		api_answer_problem(call, 404, NO_BATCH, words->name);
}

static void post_audit(const struct routes_request *request, const struct words *words, struct api_call *call)
{
	int64_t since_day = INT64_MIN;
	bool repair = false;
	if (words->values[0] && units_parse_date(words->values[0], &since_day) < 0)
		api_answer_problem(call, 400, "since is a date like 2026-11-21");
	else if (!parse_switch(words->values[1], &repair))
		api_answer_problem(call, 400, "repair is 0 or 1");
	else
		request->backend->audit(request->agent, since_day, repair, call);
}

static void get_machines(const struct routes_request *request, const struct words *words, struct api_call *call)
{
	(void)words;
	struct mill_view *view = request->backend->mill(request->agent);
	json_t *body = view ? view_machines(view, clock_wall_ms(), clock_mono_ms()) : NULL;
	mill_view_free(view);
	if (body)
		api_answer(call, body);
	else
		api_answer_problem(call, 500, NO_MEMORY);
}

static void get_runs(const struct routes_request *request, const struct words *words, struct api_call *call)
{
	(void)words;
	request->backend->runs(request->agent, call);
}

static bool is_run(const char *text)
{
	return strlen(text) == LEDGER_RUN - 1 && strspn(text, "0123456789abcdef") == LEDGER_RUN - 1;
}

static void get_run(const struct routes_request *request, const struct words *words, struct api_call *call)
{
	if (is_run(words->name))
		request->backend->run(request->agent, words->name, call);
	else
		api_answer_problem(call, 404, NO_RUN, words->name);
}

static unsigned order_status(int rc)
{
	switch (rc) {
	case -ENOENT:
		return 404;
	case -EBUSY:
	case -ENOTSUP:
	case -EALREADY:
		return 409;
	case -EAGAIN:
		return 503;
	default:
		return 500;
	}
}

/* What a person may ask for by its name. */
struct kind {
	const char *name, *none;
};

static const struct kind machine_kind = { "machine", "there is none; `millrace show machines` lists them" };
static const struct kind job_kind = { "job", "there is none; `millrace show machines` lists them, too" };
static const struct kind run_kind = { "run", "it is neither on its way nor parked; `millrace show runs` lists them" };

static void serve_order(const struct routes_request *request, int (*order)(void *agent, const char *, struct err *),
                        const struct kind *kind, const char *name, struct api_call *call)
{
	struct err err = { .text = "" };
	int rc = order(request->agent, name, &err);
	const char *why = rc == -ENOENT   ? kind->none
	                  : rc == -EAGAIN ? "the buffer is not open yet; try again later"
	                                  : strerror(-rc);
	if (rc == 0)
		api_answer(call, json_pack("{s:s, s:b}", kind->name, name, "asked", 1));
	else if (*err.text)
		api_answer_problem(call, order_status(rc), "%s", err.text);
	else
		api_answer_problem(call, order_status(rc), "%s \"%s\": %s", kind->name, name, why);
}

static void post_wake(const struct routes_request *request, const struct words *words, struct api_call *call)
{
	serve_order(request, request->backend->wake, &machine_kind, words->name, call);
}

static void post_start(const struct routes_request *request, const struct words *words, struct api_call *call)
{
	serve_order(request, request->backend->start, &job_kind, words->name, call);
}

static void post_cancel(const struct routes_request *request, const struct words *words, struct api_call *call)
{
	if (is_run(words->name))
		serve_order(request, request->backend->cancel, &run_kind, words->name, call);
	else
		api_answer_problem(call, 404, NO_RUN, words->name);
}

static void post_retry_run(const struct routes_request *request, const struct words *words, struct api_call *call)
{
	if (is_run(words->name))
		serve_order(request, request->backend->retry_run, &run_kind, words->name, call);
	else
		api_answer_problem(call, 404, NO_RUN, words->name);
}

static const struct route routes[] = {
	{ "GET", "/v1/status", { NULL }, false, get_status },
	{ "GET", "/v1/sources", { NULL }, false, get_sources },
	{ "GET", "/v1/stores", { NULL }, false, get_stores },
	{ "GET", "/v1/config", { NULL }, false, get_config },
	{ "GET", "/v1/batches", { "waiting", "after" }, true, get_batches },
	{ "GET", "/v1/batches/*/object", { NULL }, true, get_object },
	{ "PUT", "/v1/objects/**", { "sha256" }, true, put_object },
	{ "GET", "/v1/rejected", { NULL }, true, get_rejected },
	{ "GET", "/v1/sources/*/records", { "last", "follow" }, true, get_records },
	{ "POST", "/v1/sources/*/poll", { NULL }, true, post_poll },
	{ "POST", "/v1/flush", { "wait" }, true, post_flush },
	{ "POST", "/v1/audit", { "since", "repair" }, true, post_audit },
	{ "POST", "/v1/batches/*/retry", { NULL }, true, post_retry },
	{ "GET", "/v1/machines", { NULL }, false, get_machines },
	{ "GET", "/v1/runs", { NULL }, true, get_runs },
	{ "GET", "/v1/runs/*", { NULL }, true, get_run },
	{ "POST", "/v1/machines/*/wake", { NULL }, false, post_wake },
	{ "POST", "/v1/jobs/*/start", { NULL }, false, post_start },
	{ "POST", "/v1/runs/*/cancel", { NULL }, false, post_cancel },
	{ "POST", "/v1/runs/*/retry", { NULL }, false, post_retry_run },
};

/* Whether the path fits; what stands for `*` goes to name, which has OBJECT_KEY_MAX bytes. */
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
	if (pattern[before + 1] == '*')
		return *path && strlen(path) < OBJECT_KEY_MAX && strcpy(name, path);
	if (strcmp(path + len, pattern + before + 1) != 0 || len >= UNITS_NAME_MAX)
		return false;
	memcpy(name, path, len);
	name[len] = '\0';
	/* A leading _ is ours; a number is no name, nor is a run's id. */
	return units_is_name(name + (*name == '_')) || (len > 0 && strspn(name, "0123456789abcdef") == len);
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

uint64_t routes_body_max(const char *method, const char *path)
{
	char name[OBJECT_KEY_MAX];
	const struct route *route = find(path, name);
	return route && strcmp(route->method, "PUT") == 0 && allows(route, method) ? OBJECT_MAX : 0;
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
