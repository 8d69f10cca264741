/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A job behind somebody else's HTTP: one request starts it, another tells how it is. Texts in the settings may have
 * {run}, {job}, {manifest} (where it stands in the store) and, but for the start, {id}: what the start's answer gave,
 * else the run. In URLs they are percent-encoded, in bodies escaped as within a JSON string.
 */
#include <assert.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/container.h"
#include "base/url.h"
#include "mill/driver.h"

#define SECOND       INT64_C(1000)
#define ANSWER_MAX   (256 * 1024)
#define URL_MAX      8192
#define BODY_MAX     (64 * 1024)
#define HEADERS_MORE 4 /* of our own, and the NULL */

struct http_settings {
	int method, cancel_method;
	char *url, *body;
	struct option_pairs headers;
	char *id;                      /* path in the start's answer; NULL: the run is the id */
	char *status_url, *status;     /* and the path in its answer */
	char *running, *done, *failed; /* words, with commas between */
	char *cancel_url, *cancel_body;
	int64_t timeout_ms;
};

/* Settings */

static const char *const words[] = { "{run}", "{job}", "{manifest}", "{id}" };
enum { RUN, JOB, MANIFEST, ID, WORDS };

/* Which of the first n words stands at text; n: none. */
static size_t find_word(const char *text, size_t n)
{
	size_t i = 0;
	while (i < n && strncmp(text, words[i], strlen(words[i])) != 0)
		i++;
	return i;
}

/* What looks like a word and is none would go out as it stands. */
static int check_words(const char *value, size_t n, struct err *err)
{
	for (const char *at = strchr(value, '{'); at; at = strchr(at + 1, '{')) {
		size_t len = strspn(at + 1, "abcdefghijklmnopqrstuvwxyz_");
		if (len > 0 && at[len + 1] == '}' && find_word(at, n) == n)
			return err_fail(err, -EINVAL, "%.*s is not known here; {run}, {job}%s are", (int)len + 2, at,
			                n == WORDS ? ", {manifest} and {id}" : " and {manifest}");
	}
	return 0;
}

static int check_url_words(const char *value, size_t n, struct err *err)
{
	int rc = url_check(value, err);
	return rc < 0 ? rc : check_words(value, n, err);
}

static int check_start_url(const char *value, struct err *err)
{
	return check_url_words(value, ID, err);
}

static int check_later_url(const char *value, struct err *err)
{
	return check_url_words(value, WORDS, err);
}

static int check_start_body(const char *value, struct err *err)
{
	return check_words(value, ID, err);
}

static int check_later_body(const char *value, struct err *err)
{
	return check_words(value, WORDS, err);
}

/* RFC 9110 §5.1, §5.6.2. */
static int check_header_name(const char *name, struct err *err)
{
	if (!*name ||
	    name[strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~")])
		return err_fail(err, -EINVAL, "\"%.60s\" is no name of a header", name);
	if (strcasecmp(name, "Idempotency-Key") == 0 || strcasecmp(name, "Content-Length") == 0)
		return err_fail(err, -EINVAL, "%s is sent by Millrace itself", name);
	return 0;
}

static int check_header_value(const char *value, struct err *err)
{
	for (const char *c = value; *c; c++)
		if (((unsigned char)*c < 0x20 && *c != '\t') || *c == 0x7f)
			return err_fail(err, -EINVAL, "it has a character that no header may have");
	return 0;
}

static int check_path(const char *value, struct err *err)
{
	if (*value && *value != '.' && !strstr(value, "..") && value[strlen(value) - 1] != '.')
		return 0;
	return err_fail(err, -EINVAL, "\"%.60s\" is no path; write it like \"state\" or \"data.runs.0.state\"", value);
}

static const char *const methods[] = { "POST", "PUT", "PATCH", NULL };

#define FIELD(name) .offset = offsetof(struct http_settings, name)

static const struct option options[] = {
	{ .name = "method", .type = OPTION_CHOICE, FIELD(method), .fallback = "POST", .choices = methods },
	{ .name = "url", .type = OPTION_TEXT, FIELD(url), .required = true, .check = check_start_url },
	{ .name = "body", .type = OPTION_TEXT, FIELD(body), .fallback = "", .check = check_start_body },
	{ .name = "headers",
	  .type = OPTION_PAIRS,
	  FIELD(headers),
	  .check = check_header_value,
	  .check_name = check_header_name },
	{ .name = "id", .type = OPTION_TEXT, FIELD(id), .check = check_path },
	{ .name = "status_url", .type = OPTION_TEXT, FIELD(status_url), .required = true, .check = check_later_url },
	{ .name = "status", .type = OPTION_TEXT, FIELD(status), .fallback = "state", .check = check_path },
	{ .name = "running", .type = OPTION_TEXT, FIELD(running), .fallback = "queued, running" },
	{ .name = "done", .type = OPTION_TEXT, FIELD(done), .fallback = "success" },
	{ .name = "failed", .type = OPTION_TEXT, FIELD(failed), .fallback = "failed" },
	{ .name = "cancel_method",
	  .type = OPTION_CHOICE,
	  FIELD(cancel_method),
	  .fallback = "POST",
	  .choices = methods },
	{ .name = "cancel_url", .type = OPTION_TEXT, FIELD(cancel_url), .check = check_later_url },
	{ .name = "cancel_body", .type = OPTION_TEXT, FIELD(cancel_body), .fallback = "", .check = check_later_body },
	{ .name = "request_timeout",
	  .type = OPTION_DURATION,
	  FIELD(timeout_ms),
	  .fallback = "30s",
	  .min = SECOND,
	  .max = 3600 * SECOND },
	OPTION_END,
};

/* Templates */

struct http_driver {
	struct driver driver;
	struct http_transfer *transfer;                                         /* NULL: none is under way */
	void (*judge)(struct http_driver *d, const struct http_answer *answer); /* its end, where a status came */
	struct bytes out, in;                                                   /* the bodies of request and answer */
	size_t given;                                                           /* of out */
	char *remote;                                                           /* NULL: not known */
};

static int encode(struct bytes *out, const char *text)
{
	int rc = 0;
	for (; rc == 0 && *text; text++) {
		bool plain = (*text >= 'a' && *text <= 'z') || (*text >= 'A' && *text <= 'Z') ||
		             (*text >= '0' && *text <= '9') || strchr("-._~", *text);
		rc = plain ? bytes_add(out, text, 1) : bytes_printf(out, "%%%02X", (unsigned char)*text);
	}
	return rc;
}

static int escape(struct bytes *out, const char *text)
{
	json_t *value = json_string(text);
	char *dump = value ? json_dumps(value, JSON_ENCODE_ANY) : NULL;
	int rc = dump ? bytes_add(out, dump + 1, strlen(dump) - 2) : -ENOMEM;
	free(dump);
	json_decref(value);
	return rc;
}

static int fill(const struct http_driver *d, const char *template, int (*add)(struct bytes *out, const char *text),
                struct bytes *out)
{
	const struct driver_run *run = &d->driver.run;
	const char *const values[WORDS] = { run->id, run->job, run->manifest_place, d->remote ? d->remote : run->id };
	int rc = 0;
	bytes_clear(out);
	while (rc == 0 && *template) {
		size_t word = find_word(template, WORDS);
		if (word == WORDS) {
			rc = bytes_add(out, template ++, 1);
		} else {
			rc = add(out, values[word] ? values[word] : "");
			template += strlen(words[word]);
		}
	}
	return rc < 0 ? rc : bytes_reserve(out, 1);
}

/* JSON paths */

static json_t *json_at(json_t *json, const char *path)
{
	char name[128];
	while (json && *path) {
		size_t len = strcspn(path, ".");
		if (len >= sizeof name)
			return NULL;
		memcpy(name, path, len);
		name[len] = '\0';
		path += len + (path[len] == '.');
		json = json_is_array(json) ? json_array_get(json, strtoul(name, NULL, 10))
		                           : json_object_get(json, name);
	}
	return json;
}

/* The text or whole number at path; false: there is none. */
static bool text_at(json_t *json, const char *path, char ret_text[DRIVER_REMOTE_MAX])
{
	const json_t *value = json_at(json, path);
	int len = -1;
	if (json_is_string(value))
		len = snprintf(ret_text, DRIVER_REMOTE_MAX, "%s", json_string_value(value));
	else if (json_is_integer(value))
		len = snprintf(ret_text, DRIVER_REMOTE_MAX, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
	return len > 0 && len < DRIVER_REMOTE_MAX;
}

/* The same of the answer's body. */
static bool text_in_answer(const struct http_driver *d, const char *path, char ret_text[DRIVER_REMOTE_MAX])
{
	json_t *json = json_loadb((const char *)d->in.data, d->in.len, JSON_DECODE_ANY, NULL);
	bool found = text_at(json, path, ret_text);
	json_decref(json);
	return found;
}

/* Whether the list, with commas and spaces between, has the word. */
static bool has_word(const char *list, const char *word)
{
	while (*(list += strspn(list, ", "))) {
		size_t len = strcspn(list, ", ");
		if (strlen(word) == len && memcmp(list, word, len) == 0)
			return true;
		list += len;
	}
	return false;
}

/* Answers */

__attribute__((format(printf, 3, 4))) static void tell(struct http_driver *d, enum driver_state state,
                                                       const char *format, ...)
{
	struct err err;
	va_list args;
	va_start(args, format);
	vsnprintf(err.text, sizeof err.text, format, args);
	va_end(args);
	driver_tell_state(&d->driver, state, -1, &err);
}

/* A status that is no 2xx, nor one that the caller knows. */
static void tell_status(struct http_driver *d, const char *what, const struct http_answer *answer)
{
	long status = answer->status;
	bool passes = status >= 500 || status == 408 || status == 425 || status == 429;
	const char *hint = status == 401 || status == 403 ? ": its login is refused; see \"headers\"" : "";
	tell(d, passes ? DRIVER_AWAY : DRIVER_REFUSED, "%s answered %ld%s: %.*s", what, status, hint,
	     (int)(d->in.len < 160 ? d->in.len : 160), d->in.data ? (const char *)d->in.data : "");
}

static bool is_good(const struct http_answer *answer)
{
	return answer->status / 100 == 2;
}

/* 409: it has this run already, as the same start before has told it. */
static void judge_start(struct http_driver *d, const struct http_answer *answer)
{
	const struct http_settings *s = d->driver.run.settings;
	char id[DRIVER_REMOTE_MAX];
	if (!is_good(answer) && answer->status != 409) {
		tell_status(d, "url", answer);
		return;
	}
	if (s->id && text_in_answer(d, s->id, id)) {
		free(d->remote);
		d->remote = strdup(id);
	}
	if (s->id && !d->remote)
		tell(d, DRIVER_REFUSED, "url answered %ld, but at \"%s\" there is no id", answer->status, s->id);
	else
		driver_tell(&d->driver,
		            &(struct driver_answer){ .state = DRIVER_RUNNING, .exit = -1, .remote = d->remote });
}

static void judge_ask(struct http_driver *d, const struct http_answer *answer)
{
	const struct http_settings *s = d->driver.run.settings;
	char word[DRIVER_REMOTE_MAX];
	if (answer->status == 404 || answer->status == 410)
		tell(d, DRIVER_UNKNOWN, "no such run is known there");
	else if (!is_good(answer))
		tell_status(d, "status_url", answer);
	else if (!text_in_answer(d, s->status, word))
		tell(d, DRIVER_REFUSED, "status_url answers nothing at \"%s\"", s->status);
	else if (has_word(s->done, word))
		driver_tell_state(&d->driver, DRIVER_DONE, -1, NULL);
	else if (has_word(s->failed, word))
		tell(d, DRIVER_FAILED, "it says \"%s\"", word);
	else if (has_word(s->running, word))
		driver_tell_state(&d->driver, DRIVER_RUNNING, -1, NULL);
	else
		tell(d, DRIVER_REFUSED, "it says \"%s\", which is none of \"running\", \"done\" and \"failed\"", word);
}

static void judge_cancel(struct http_driver *d, const struct http_answer *answer)
{
	if (is_good(answer) || answer->status == 404 || answer->status == 410)
		tell(d, DRIVER_FAILED, "it was cancelled");
	else
		tell_status(d, "cancel_url", answer);
}

static ssize_t on_read(void *arg, void *buffer, size_t size)
{
	struct http_driver *d = arg;
	size_t left = d->out.len - d->given;
	size_t n = left < size ? left : size;
	memcpy(buffer, d->out.data + d->given, n);
	d->given += n;
	return (ssize_t)n;
}

static ssize_t on_body(void *arg, long status, const void *data, size_t len)
{
	struct http_driver *d = arg;
	(void)status;
	return bytes_add(&d->in, data, len) < 0 ? HTTP_BODY_ABORT : (ssize_t)len;
}

static void on_done(void *arg, const struct http_answer *answer)
{
	struct http_driver *d = arg;
	d->transfer = NULL;
	if (answer->error)
		tell(d, DRIVER_AWAY, "%s", answer->text);
	else
		d->judge(d, answer);
}

/* Requests */

/* "Name: value"; the caller frees each. false: no memory. */
static bool make_headers(const struct http_driver *d, char *ret_headers[OPTION_PAIRS_MAX + HEADERS_MORE])
{
	const struct http_settings *s = d->driver.run.settings;
	bool typed = false, good;
	size_t n = 0;
	good = asprintf(&ret_headers[n++], "Idempotency-Key: %s", d->driver.run.id) > 0;
	for (size_t i = 0; good && i < s->headers.n; i++) {
		const struct option_pair *pair = &s->headers.pairs[i];
		typed = typed || strcasecmp(pair->name, "Content-Type") == 0;
		good = asprintf(&ret_headers[n++], "%s: %s", pair->name, pair->value ? pair->value : "") > 0;
	}
	if (good && d->out.len > 0 && !typed)
		good = (ret_headers[n++] = strdup("Content-Type: application/json")) != NULL;
	ret_headers[good ? n : n - 1] = NULL;
	return good;
}

static int send_request(struct http_driver *d, const char *method, const char *url, struct err *err)
{
	const struct http_settings *s = d->driver.run.settings;
	char *headers[OPTION_PAIRS_MAX + HEADERS_MORE];
	bool made = make_headers(d, headers);
	const struct http_request request = {
		.method = method,
		.url = url,
		.headers = (const char *const *)headers,
		.connect_timeout_ms = s->timeout_ms,
		.timeout_ms = s->timeout_ms,
		.max_body = ANSWER_MAX,
		.send_bytes = d->out.len,
		.on_read = on_read,
		.on_body = on_body,
		.on_done = on_done,
		.arg = d,
	};
	d->given = 0;
	bytes_clear(&d->in);
	int rc = made ? http_start(d->driver.env.http, &request, &d->transfer, err)
	              : err_fail(err, -ENOMEM, "out of memory");
	for (char **header = headers; *header; header++)
		free(*header);
	return rc;
}

static void request(struct http_driver *d, const char *method, const char *url, const char *body,
                    void (*judge)(struct http_driver *d, const struct http_answer *answer))
{
	struct err err = { "" };
	struct bytes text;
	assert(!d->transfer);
	bytes_init(&text, URL_MAX);
	d->judge = judge;
	int rc = fill(d, url, encode, &text);
	if (rc == 0)
		rc = fill(d, body, escape, &d->out);
	if (rc < 0) {
		err_fail(&err, rc, rc == -ENOBUFS ? "URL or body become too long" : "out of memory");
	} else {
		text.data[text.len] = '\0';
		rc = send_request(d, method, (const char *)text.data, &err);
	}
	bytes_done(&text);
	if (rc < 0)
		driver_tell_soon(&d->driver, rc == -ENOMEM ? DRIVER_AWAY : DRIVER_REFUSED, -1, &err);
}

static struct http_driver *self_of(struct driver *driver)
{
	return container_of(driver, struct http_driver, driver);
}

static void start(struct driver *driver)
{
	const struct http_settings *s = driver->run.settings;
	request(self_of(driver), methods[s->method], s->url, s->body, judge_start);
}

/* A run whose id was not written down may have been started; the key makes another start of it harmless. */
static bool knows_id(const struct http_driver *d)
{
	const struct http_settings *s = d->driver.run.settings;
	return !s->id || d->remote;
}

static void ask(struct driver *driver)
{
	struct http_driver *d = self_of(driver);
	const struct http_settings *s = driver->run.settings;
	struct err err = { "what it is called there is not known" };
	if (knows_id(d))
		request(d, "GET", s->status_url, "", judge_ask);
	else
		driver_tell_soon(driver, DRIVER_UNKNOWN, -1, &err);
}

static void cancel(struct driver *driver)
{
	struct http_driver *d = self_of(driver);
	const struct http_settings *s = driver->run.settings;
	struct err err = { "it cannot be cancelled: the job has no \"cancel_url\"" };
	struct err unknown = { "what it is called there is not known, and so it was not cancelled there" };
	if (!s->cancel_url)
		driver_tell_soon(driver, DRIVER_REFUSED, -1, &err);
	else if (!knows_id(d))
		driver_tell_soon(driver, DRIVER_UNKNOWN, -1, &unknown);
	else
		request(d, methods[s->cancel_method], s->cancel_url, s->cancel_body, judge_cancel);
}

static void free_driver(struct driver *driver)
{
	struct http_driver *d = self_of(driver);
	if (d->transfer)
		http_cancel(d->transfer);
	driver_done(driver);
	bytes_done(&d->out);
	bytes_done(&d->in);
	free(d->remote);
	free(d);
}

static int new (const struct driver_env *env, const struct driver_run *run, struct driver **ret_driver)
{
	struct http_driver *d = calloc(1, sizeof *d);
	if (!d)
		return -ENOMEM;
	driver_init(&d->driver, &driver_http, env, run);
	bytes_init(&d->out, BODY_MAX);
	bytes_init(&d->in, ANSWER_MAX);
	d->remote = run->remote ? strdup(run->remote) : NULL;
	if (run->remote && !d->remote) {
		free_driver(&d->driver);
		return -ENOMEM;
	}
	*ret_driver = &d->driver;
	return 0;
}

const struct driver_ops driver_http = {
	.kind = "http",
	.options = options,
	.settings_size = sizeof(struct http_settings),
	.new = new,
	.start = start,
	.ask = ask,
	.cancel = cancel,
	.free = free_driver,
};
