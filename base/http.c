/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Curl on libuv in the way of curl's documentation, with two differences: finished transfers are reaped after every
 * action, the timer path too (one that ends there would never be reported), and each socket has a uv_poll of its own,
 * whose memory is freed in its close callback only. Stalls are timed by us: curl's low-speed limit knows whole seconds,
 * averages over five of them, and counts an upload that we have paused.
 */
#include "base/http.h"

#include <assert.h>
#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/container.h"
#include "base/units.h"
#include "base/url.h"

#define REDIRECTS_MAX   5
#define BUFFER_SIZE     (16L * 1024)
#define CONNECTIONS_MAX 8L /* kept open for the next request */
#define CA_FOLDER       "/etc/ssl/certs"
#define PROXY_PORT      80L /* of an http:// proxy that names none, where curl would take 1080 */
#define RATE_STEPS      8   /* a second: in how many pieces a limited upload goes, so that it never looks stalled */

struct http {
	CURLM *multi;
	uv_loop_t *loop;
	uv_timer_t timer; /* curl's */
	uv_timer_t watch; /* for stalls, and for what goes on after a pause */
	char *user_agent;
	const char *ca_file; /* NULL: the system's folder */
	size_t active;
	size_t handles;                  /* uv_polls, and watch, that are not closed yet */
	bool in_curl;                    /* within curl, which may not be entered again */
	struct http_transfer *transfers; /* all of them */
	struct http_transfer *cancelled; /* while in_curl; freed when it returns */
	void (*on_closed)(void *arg);    /* set: closing */
	void *arg;
};

struct http_socket {
	uv_poll_t poll;
	curl_socket_t fd;
	struct http *http;
};

/* Why we made curl stop. */
enum stop {
	STOP_NONE,
	STOP_CANCELLED,
	STOP_BY_CALLER, /* on_body */
	STOP_BY_READER, /* on_read */
	STOP_TOO_LARGE,
	STOP_HEADERS,
	STOP_SWITCHED, /* by the peer, to another protocol */
	STOP_STALLED,
	STOP_REPEATED, /* curl wants more than the body: it began anew on another connection without what it had taken
	                */
};

enum method { METHOD_GET, METHOD_HEAD, METHOD_PUT, METHOD_POST, METHOD_PATCH, METHODS };

static const char *const methods[METHODS] = { [METHOD_GET] = "GET",
	                                      [METHOD_HEAD] = "HEAD",
	                                      [METHOD_PUT] = "PUT",
	                                      [METHOD_POST] = "POST",
	                                      [METHOD_PATCH] = "PATCH" };

struct http_transfer {
	struct http *http;
	CURL *easy;
	enum method method;
	struct curl_slist *headers;
	char *ca_file;     /* NULL: the client's */
	char *url;         /* of this hop */
	char *first_shown; /* the first URL, for people */
	char *proxy;       /* for people; NULL: none */
	unsigned redirects;
	uint64_t end_ms;   /* uv_hrtime, in milliseconds */
	uint64_t moved_ms; /* when the last byte went either way, or the connection stood, or we went on */
	uint64_t moved;    /* bytes of bodies, both ways */
	int64_t connect_timeout_ms, timeout_ms, stall_ms;
	int64_t send_rate;
	uint64_t max_body, send_bytes;
	uint64_t read_bytes; /* that on_read has given */
	bool connected;      /* of this hop; the request is under way */
	bool paused_read;    /* by on_read */
	bool paused_body;    /* by on_body */
	bool going_on;       /* resumed, but curl does not know yet */
	size_t taken;        /* bytes that on_body took of what curl gives again after a pause */
	size_t header_bytes; /* of this hop; before it is connected those of CONNECT */
	uint64_t body_bytes; /* of this hop; without what on_body has left for later */
	bool head_complete;  /* of this hop */
	enum stop stop;
	ssize_t (*on_read)(void *arg, void *buffer, size_t size);
	ssize_t (*on_body)(void *arg, long status, const void *data, size_t len);
	void (*on_done)(void *arg, const struct http_answer *answer);
	void *arg;
	struct http_transfer *next, **link; /* in http->transfers; link: what points here */
	struct http_transfer *next_cancelled;
	char detail[CURL_ERROR_SIZE];
};

static bool has_body(enum method method)
{
	return method >= METHOD_PUT;
}

/* Answers */

/* NULL where it did not come or is empty. */
static const char *answer_header(const struct http_transfer *t, const char *name)
{
	struct curl_header *header;
	if (curl_easy_header(t->easy, name, 0, CURLH_HEADER, -1, &header))
		return NULL;
	if (!*header->value || *header->value == '\r') /* curl 7.88 leaves the CR of an empty one */
		return NULL;
	return header->value;
}

static long answer_status(const struct http_transfer *t)
{
	long status = 0;
	curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
	return status;
}

/*
 * The status with which the proxy has refused, or 0: of CONNECT, or of the request itself where the proxy gets that in
 * the clear; there 407 is the proxy's alone (RFC 9110 §15.5.8).
 */
static long proxy_refusal(const struct http_transfer *t)
{
	long status = 0;
	if (!t->proxy)
		return 0;
	curl_easy_getinfo(t->easy, CURLINFO_HTTP_CONNECTCODE, &status);
	if (status)
		return status / 100 == 2 ? 0 : status;
	bool in_the_clear = strncasecmp(t->url, "http:", 5) == 0 && strncmp(t->proxy, "http:", 5) == 0;
	return in_the_clear && answer_status(t) == 407 ? 407 : 0;
}

/* The Location that an answer wants us to follow, or NULL. */
static const char *answer_redirect(const struct http_transfer *t)
{
	if (t->method != METHOD_GET)
		return NULL;
	switch (answer_status(t)) {
	case 301:
	case 302:
	case 303:
	case 307:
	case 308:
		return answer_header(t, "Location");
	default:
		return NULL;
	}
}

/*
 * RFC 9110 §10.2.3. A date is taken relative to the answer's own Date: a Pi without a battery clock may believe in any
 * year.
 */
static int64_t answer_retry_after(const struct http_transfer *t)
{
	const int64_t most_s = 366 * 86400;
	const char *text = answer_header(t, "Retry-After");
	if (!text)
		return -1;
	int64_t wait_s;
	if (strspn(text, "0123456789") == strlen(text)) {
		wait_s = strtoll(text, NULL, 10);
	} else {
		int64_t until_s = curl_getdate(text, NULL);
		if (until_s == -1)
			return -1;
		const char *date = answer_header(t, "Date");
		int64_t now_s = date ? curl_getdate(date, NULL) : -1;
		wait_s = until_s - (now_s == -1 ? clock_wall_ms() / 1000 : now_s);
	}
	return (wait_s < 0 ? 0 : wait_s > most_s ? most_s : wait_s) * 1000;
}

/* Failures */

struct failure {
	CURLcode code;
	int error;
	const char *cause;
};

static const struct failure failures[] = {
	{ CURLE_COULDNT_RESOLVE_HOST, -EHOSTUNREACH, "dns" },
	{ CURLE_COULDNT_RESOLVE_PROXY, -EHOSTUNREACH, "dns" },
	{ CURLE_PROXY, -EIO, "proxy" },
	{ CURLE_OPERATION_TIMEDOUT, -ETIMEDOUT, "timeout" },
	{ CURLE_FILESIZE_EXCEEDED, -EMSGSIZE, "too-large" },
	{ CURLE_PARTIAL_FILE, -EPIPE, "truncated" },
	{ CURLE_UNSUPPORTED_PROTOCOL, -EPROTO, "protocol" }, /* HTTP/0.9: not HTTP at all */
	{ CURLE_WEIRD_SERVER_REPLY, -EPROTO, "protocol" },
	{ CURLE_BAD_CONTENT_ENCODING, -EPROTO, "protocol" },
	{ CURLE_BAD_FUNCTION_ARGUMENT, -EPROTO, "protocol" }, /* a line of the headers that is none */
	{ CURLE_SSL_CONNECT_ERROR, -EBADE, "tls" },
	{ CURLE_PEER_FAILED_VERIFICATION, -EBADE, "tls" },
	{ CURLE_SSL_CIPHER, -EBADE, "tls" },
	{ CURLE_SSL_CERTPROBLEM, -EBADE, "tls" },
	{ CURLE_SSL_CACERT_BADFILE, -EBADE, "tls" },
	{ CURLE_SSL_ISSUER_ERROR, -EBADE, "tls" },
	{ CURLE_SSL_INVALIDCERTSTATUS, -EBADE, "tls" },
	{ CURLE_SSL_ENGINE_INITFAILED, -EBADE, "tls" },
};

static const struct failure stops[] = {
	[STOP_BY_CALLER] = { CURLE_WRITE_ERROR, -ECANCELED, "canceled" },
	[STOP_BY_READER] = { CURLE_ABORTED_BY_CALLBACK, -ECANCELED, "canceled" },
	[STOP_TOO_LARGE] = { CURLE_WRITE_ERROR, -EMSGSIZE, "too-large" },
	[STOP_HEADERS] = { CURLE_WRITE_ERROR, -E2BIG, "too-large" },
	[STOP_SWITCHED] = { CURLE_WRITE_ERROR, -EPROTO, "protocol" },
	[STOP_STALLED] = { CURLE_OPERATION_TIMEDOUT, -ETIMEDOUT, "timeout" },
	[STOP_REPEATED] = { CURLE_SEND_FAIL_REWIND, -EIO, "network" },
};

static int os_errno(const struct http_transfer *t)
{
	long number = 0;
	curl_easy_getinfo(t->easy, CURLINFO_OS_ERRNO, &number);
	return (int)number;
}

/* Curl's own bounds, which it calls want of memory: 100 KB for a line of the headers, 4 KB for one of the trailers. */
static bool is_line_too_long(const struct http_transfer *t, CURLcode code)
{
	return (code == CURLE_OUT_OF_MEMORY && !t->head_complete) ||
	       (code == CURLE_RECV_ERROR && strstr(t->detail, "Out of memory in chunked-encoding"));
}

static struct failure classify(const struct http_transfer *t, CURLcode code)
{
	if (t->stop != STOP_NONE)
		return stops[t->stop];
	if (proxy_refusal(t))
		return (struct failure){ code, -EIO, "proxy" };
	if (code == CURLE_COULDNT_CONNECT && os_errno(t) == ECONNREFUSED)
		return (struct failure){ code, -ECONNREFUSED, "refused" };
	if (is_line_too_long(t, code))
		return (struct failure){ code, -E2BIG, "too-large" };
	/* curl 7.88 has no other code for a broken chunk than the one for a connection that broke. */
	if (code == CURLE_RECV_ERROR && strstr(t->detail, "chunked-encoding"))
		return (struct failure){ code, -EPROTO, "protocol" };
	if (code == CURLE_RECV_ERROR && t->body_bytes > 0)
		return (struct failure){ CURLE_PARTIAL_FILE, -EPIPE, "truncated" };
	for (size_t i = 0; i < sizeof failures / sizeof *failures; i++)
		if (failures[i].code == code)
			return failures[i];
	return (struct failure){ code, -EIO, "network" };
}

static unsigned long long sent_bytes(const struct http_transfer *t)
{
	curl_off_t sent = 0;
	curl_easy_getinfo(t->easy, CURLINFO_SIZE_UPLOAD_T, &sent);
	return (unsigned long long)sent;
}

static void describe_timeout(const struct http_transfer *t, struct err *err)
{
	char limit[UNITS_TEXT_MAX];
	bool stalled = t->stop == STOP_STALLED;
	bool by_connect = t->timeout_ms == 0 || t->connect_timeout_ms < t->timeout_ms;
	units_duration(stalled ? t->stall_ms : t->timeout_ms, limit);
	if (!t->connected)
		err_fail(err, 0, "no connection within %s",
		         by_connect ? units_duration(t->connect_timeout_ms, limit) : limit);
	else if (sent_bytes(t) < t->send_bytes)
		err_fail(err, 0, "%s %s: %llu of %llu bytes were sent",
		         stalled ? "nothing was taken for" : "the body was not sent within", limit, sent_bytes(t),
		         (unsigned long long)t->send_bytes);
	else if (t->body_bytes == 0)
		err_fail(err, 0, "no answer within %s", limit);
	else
		err_fail(err, 0, "the answer %s %s: %llu bytes came",
		         stalled          ? "stood still for"
		         : t->paused_body ? "could not be taken within"
		                          : "did not end within",
		         limit, (unsigned long long)t->body_bytes);
}

static void describe_headers(const struct http_transfer *t, struct err *err)
{
	err_fail(err, 0, "more than %d bytes of headers%s", HTTP_HEADERS_MAX,
	         t->stop == STOP_HEADERS ? "" : ", or a line of them that is too long (or out of memory)");
}

static void describe_size(const struct http_transfer *t, struct err *err)
{
	unsigned long long most = t->max_body;
	const char *length = answer_header(t, "Content-Length");
	if (t->stop != STOP_TOO_LARGE && length)
		err_fail(err, 0, "the answer has %.20s bytes; more than %llu are not taken", length, most);
	else
		err_fail(err, 0, "the answer goes on after %llu bytes; more than %llu are not taken",
		         (unsigned long long)t->body_bytes, most);
}

static void describe_truncation(const struct http_transfer *t, struct err *err)
{
	curl_off_t length = -1;
	curl_easy_getinfo(t->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
	if (!t->head_complete)
		err_fail(err, 0, "the answer ended within its headers");
	else if (length >= 0)
		err_fail(err, 0, "the answer ended after %llu of %lld bytes", (unsigned long long)t->body_bytes,
		         (long long)length);
	else
		err_fail(err, 0, "the answer ended after %llu bytes, before its last chunk",
		         (unsigned long long)t->body_bytes);
}

static void describe_canceled(const struct http_transfer *t, struct err *err)
{
	if (t->stop == STOP_BY_READER)
		err_fail(err, 0, "given up after %llu of %llu bytes of the body", (unsigned long long)t->read_bytes,
		         (unsigned long long)t->send_bytes);
	else
		err_fail(err, 0, "not wanted after %llu bytes", (unsigned long long)t->body_bytes);
}

/* A SOCKS5 proxy tells no more than a number (RFC 1928 §6). */
static const char *socks_refusal(const struct http_transfer *t)
{
	long why = CURLPX_OK;
	curl_easy_getinfo(t->easy, CURLINFO_PROXY_ERROR, &why);
	switch (why) {
	case CURLPX_REPLY_NOT_ALLOWED:
		return "the proxy does not allow this connection";
	case CURLPX_REPLY_NETWORK_UNREACHABLE:
	case CURLPX_REPLY_HOST_UNREACHABLE:
		return "the proxy does not know or cannot reach the host";
	case CURLPX_REPLY_CONNECTION_REFUSED:
		return "the host has refused the proxy's connection";
	case CURLPX_NO_AUTH:
	case CURLPX_USER_REJECTED:
		return "the proxy wants a user and a password, or refuses those it was given";
	default:
		return *t->detail ? t->detail : "the proxy speaks no SOCKS5";
	}
}

static void describe_proxy(const struct http_transfer *t, struct err *err)
{
	long status = proxy_refusal(t);
	if (status == 407)
		err_fail(err, 0, "the proxy wants a user and a password, or refuses those it was given (407)");
	else if (status)
		err_fail(err, 0, "the proxy did not connect, it answered %ld", status);
	else
		err_fail(err, 0, "%s", socks_refusal(t));
}

/* What has no function of its own. */
static void describe_other(const struct http_transfer *t, CURLcode code, struct err *err)
{
	char detail[CURL_ERROR_SIZE + 64];
	snprintf(detail, sizeof detail, "%s%s", *t->detail ? t->detail : curl_easy_strerror(code),
	         strstr(t->detail, "wrong version number") ? "; does the server speak https at all?" : "");
	if (t->stop == STOP_SWITCHED)
		snprintf(detail, sizeof detail, "101 (Switching Protocols), which was not asked for");
	else if (code == CURLE_BAD_FUNCTION_ARGUMENT)
		snprintf(detail, sizeof detail, "a line without a colon among the headers");
	else if (code == CURLE_SEND_FAIL_REWIND)
		snprintf(detail, sizeof detail, "the connection was closed");
	else if (t->proxy && (code == CURLE_COULDNT_RESOLVE_HOST || code == CURLE_COULDNT_RESOLVE_PROXY))
		snprintf(detail, sizeof detail, "the proxy's name is not known (DNS)");
	else if (code == CURLE_COULDNT_CONNECT && os_errno(t))
		snprintf(detail, sizeof detail, "no connection%s: %s", t->proxy ? " to the proxy" : "",
		         strerror(os_errno(t)));
	if (t->read_bytes > 0 && sent_bytes(t) < t->send_bytes)
		err_fail(err, 0, "%s, after %llu of %llu bytes were sent", detail, sent_bytes(t),
		         (unsigned long long)t->send_bytes);
	else
		err_fail(err, 0, "%s", detail);
}

static void describe(const struct http_transfer *t, struct failure failure, struct err *err)
{
	if (strcmp(failure.cause, "proxy") == 0) {
		describe_proxy(t, err);
		return;
	}
	switch (failure.error) {
	case -ECANCELED:
		describe_canceled(t, err);
		break;
	case -ETIMEDOUT:
		describe_timeout(t, err);
		break;
	case -E2BIG:
		describe_headers(t, err);
		break;
	case -EMSGSIZE:
		describe_size(t, err);
		break;
	case -EPIPE:
		describe_truncation(t, err);
		break;
	case -ECONNREFUSED:
		err_fail(err, 0, "connection refused%s", t->proxy ? " by the proxy" : "");
		break;
	default:
		describe_other(t, failure.code, err);
		break;
	}
}

static void name_the_request(const struct http_transfer *t, struct err *err)
{
	if (t->proxy)
		err_prefix(err, "through the proxy %.80s", t->proxy);
	if (t->redirects > 0) {
		char *shown = url_show(t->url);
		err_prefix(err, "%s %.160s, redirected to %.160s", methods[t->method], t->first_shown,
		           shown ? shown : "");
		free(shown);
	} else {
		err_prefix(err, "%s %.*s", methods[t->method], t->proxy ? 240 : 320, t->first_shown);
	}
}

/* The end of a transfer */

static void transfer_free(struct http_transfer *t)
{
	*t->link = t->next;
	if (t->next)
		t->next->link = t->link;
	if (t->easy)
		curl_easy_cleanup(t->easy);
	curl_slist_free_all(t->headers);
	free(t->first_shown);
	free(t->proxy);
	free(t->url);
	free(t->ca_file);
	free(t);
}

static void deliver(struct http_transfer *t, struct failure failure, struct err *err)
{
	char *type = NULL;
	curl_easy_getinfo(t->easy, CURLINFO_CONTENT_TYPE, &type);
	if (failure.error)
		name_the_request(t, err);
	const struct http_answer answer = {
		.error = failure.error,
		.cause = failure.cause,
		.text = err->text,
		.status = proxy_refusal(t) ? 0 : answer_status(t), /* the proxy's is not the answer's */
		.retry_after_ms = answer_retry_after(t),
		.content_type = type ? type : "",
		.content_encoding = http_content_encoding(t),
		.body_bytes = t->body_bytes,
		.transfer = t,
	};
	t->http->active--;
	t->on_done(t->arg, &answer);
	transfer_free(t);
}

static uint64_t now_ms(void)
{
	return uv_hrtime() / 1000000;
}

/* Sets what differs from hop to hop and hands the transfer to curl, which begins with it in the loop. 0 or -ENOMEM. */
static int hop(struct http_transfer *t)
{
	uint64_t now = now_ms();
	int failed = 0;
	t->header_bytes = 0;
	t->body_bytes = 0;
	t->head_complete = false;
	t->connected = false;
	*t->detail = '\0';
	failed |= curl_easy_setopt(t->easy, CURLOPT_URL, t->url);
	failed |= curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, t->headers);
	if (t->timeout_ms > 0) /* 0 would mean: for ever */
		failed |= curl_easy_setopt(t->easy, CURLOPT_TIMEOUT_MS, now < t->end_ms ? (long)(t->end_ms - now) : 1L);
	return failed || curl_multi_add_handle(t->http->multi, t->easy) ? -ENOMEM : 0;
}

/* 0 where the next hop is under way; else err says why not. */
static int follow(struct http_transfer *t, const char *location, struct err *err)
{
	if (t->redirects == REDIRECTS_MAX)
		return err_fail(err, -EPROTO, "more than %d redirects", REDIRECTS_MAX);
	char *to = url_resolve(t->url, location);
	if (!to)
		return err_fail(err, -EPROTO, "redirected to something that is no URL");
	int r = url_check_redirect(t->url, to, err);
	if (r) {
		free(to);
		err_prefix(err, "redirect refused");
		return r;
	}
	if (!url_same_origin(t->url, to)) {
		curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, NULL);
		curl_slist_free_all(t->headers);
		t->headers = NULL;
	}
	free(t->url);
	t->url = to;
	t->redirects++;
	r = hop(t);
	return r ? err_fail(err, r, "out of memory") : 0;
}

/* Curl has ended a transfer, well or not. */
static void finish(struct http_transfer *t, CURLcode code)
{
	struct err err = { .text = "" };
	struct failure failure = { 0 };
	curl_multi_remove_handle(t->http->multi, t->easy);
	if (code == CURLE_OK && !t->head_complete)
		code = CURLE_PARTIAL_FILE; /* curl 7.88 takes headers without an end for an answer */
	const char *location = code == CURLE_OK ? answer_redirect(t) : NULL;
	bool refused = code == CURLE_OK && proxy_refusal(t);
	if (location) {
		failure.error = follow(t, location, &err);
		if (failure.error == 0)
			return;
		failure.cause = "redirect";
	} else if (code != CURLE_OK || refused) {
		failure = classify(t, code);
		describe(t, failure, &err);
	}
	deliver(t, failure, &err);
}

/* Stalls */

static void moved(struct http_transfer *t)
{
	t->moved_ms = now_ms();
}

/* When a transfer is to be looked at again, and whether it has stalled. What waits for us, or for its connection, which
 * has a timeout of its own, does not count. */
static uint64_t stall_due(const struct http_transfer *t, uint64_t now)
{
	bool counts = t->connected && !t->paused_read && !t->paused_body;
	return (counts ? t->moved_ms : now) + (uint64_t)t->stall_ms;
}

/* One that is to go on or has stalled, or NULL and how long it takes until one may have; -1: none can. */
static struct http_transfer *find_due(const struct http *http, int64_t *ret_wait_ms)
{
	uint64_t now = now_ms();
	int64_t wait_ms = -1;
	for (struct http_transfer *t = http->transfers; t; t = t->next) {
		if (t->going_on)
			return t;
		if (t->stall_ms == 0)
			continue;
		uint64_t due = stall_due(t, now);
		if (due <= now)
			return t;
		if (wait_ms < 0 || (int64_t)(due - now) < wait_ms)
			wait_ms = (int64_t)(due - now);
	}
	*ret_wait_ms = wait_ms;
	return NULL;
}

static void end_stalled(struct http_transfer *t)
{
	struct err err = { .text = "" };
	t->stop = STOP_STALLED;
	struct failure failure = classify(t, CURLE_OPERATION_TIMEDOUT);
	describe(t, failure, &err);
	curl_multi_remove_handle(t->http->multi, t->easy);
	deliver(t, failure, &err);
}

static void sweep_cancelled(struct http *http)
{
	while (http->cancelled) {
		struct http_transfer *t = http->cancelled;
		http->cancelled = t->next_cancelled;
		curl_multi_remove_handle(http->multi, t->easy);
		transfer_free(t);
	}
}

/* Curl gives on_body here what it has kept, and tells nobody else when that ends the transfer. */
static void go_on(struct http_transfer *t)
{
	struct http *http = t->http;
	t->going_on = false;
	http->in_curl = true;
	CURLcode code = curl_easy_pause(t->easy, CURLPAUSE_CONT); /* also makes curl's timer due at once */
	http->in_curl = false;
	bool failed = code != CURLE_OK && t->stop != STOP_CANCELLED;
	sweep_cancelled(http);
	if (failed)
		finish(t, code);
}

/* One at a time: callbacks may change all the others. */
static void on_watch(uv_timer_t *watch)
{
	struct http *http = container_of(watch, struct http, watch);
	int64_t wait_ms = 0;
	struct http_transfer *t = find_due(http, &wait_ms);
	if (t && t->going_on)
		go_on(t);
	else if (t)
		end_stalled(t);
	if (wait_ms >= 0)
		uv_timer_start(watch, on_watch, (uint64_t)wait_ms, 0);
}

/* Curl on libuv */

static void reap(struct http *http)
{
	CURLMsg *message;
	int left;
	while ((message = curl_multi_info_read(http->multi, &left))) {
		struct http_transfer *t = NULL;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&t);
		finish(t, message->data.result);
	}
}

static void act(struct http *http, curl_socket_t fd, int flags)
{
	int running;
	http->in_curl = true;
	curl_multi_socket_action(http->multi, fd, flags, &running);
	http->in_curl = false;
	sweep_cancelled(http);
	reap(http);
}

static void on_timer(uv_timer_t *timer)
{
	act(container_of(timer, struct http, timer), CURL_SOCKET_TIMEOUT, 0);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	struct http_socket *socket = container_of(poll, struct http_socket, poll);
	int flags = 0;
	if (status < 0) /* of an error curl would not look for an answer that came before it; reading, it finds both */
		events = UV_READABLE | UV_WRITABLE;
	if (events & UV_READABLE)
		flags |= CURL_CSELECT_IN;
	if (events & UV_WRITABLE)
		flags |= CURL_CSELECT_OUT;
	act(socket->http, socket->fd, flags);
}

static int on_curl_timer(CURLM *multi, long timeout_ms, void *arg)
{
	(void)multi;
	struct http *http = arg;
	if (http->on_closed)
		return 0;
	if (timeout_ms < 0)
		uv_timer_stop(&http->timer);
	else
		uv_timer_start(&http->timer, on_timer, (uint64_t)timeout_ms, 0);
	return 0;
}

static void free_when_closed(struct http *http)
{
	if (http->multi || http->handles > 0)
		return;
	void (*on_closed)(void *arg) = http->on_closed;
	void *arg = http->arg;
	free(http->user_agent);
	free(http);
	curl_global_cleanup();
	on_closed(arg);
}

static void on_poll_closed(uv_handle_t *handle)
{
	struct http_socket *socket = container_of(handle, struct http_socket, poll);
	struct http *http = socket->http;
	free(socket);
	http->handles--;
	free_when_closed(http);
}

static struct http_socket *socket_new(struct http *http, curl_socket_t fd)
{
	struct http_socket *socket = calloc(1, sizeof *socket);
	if (!socket)
		return NULL;
	if (uv_poll_init_socket(http->loop, &socket->poll, fd)) {
		free(socket);
		return NULL;
	}
	socket->fd = fd;
	socket->http = http;
	http->handles++;
	curl_multi_assign(http->multi, fd, socket);
	return socket;
}

static int on_curl_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
	(void)easy;
	struct http *http = arg;
	struct http_socket *socket = known;
	if (what == CURL_POLL_REMOVE) {
		if (socket)
			uv_close((uv_handle_t *)&socket->poll, on_poll_closed);
		curl_multi_assign(http->multi, fd, NULL);
		return 0;
	}
	if (!socket)
		socket = socket_new(http, fd);
	if (!socket)
		return 0; /* the transfer runs into its timeout; -1 would end the client for good */
	int events = 0;
	if (what & CURL_POLL_IN)
		events |= UV_READABLE;
	if (what & CURL_POLL_OUT)
		events |= UV_WRITABLE;
	uv_poll_start(&socket->poll, events, on_poll);
	return 0;
}

static bool is_blank(const char *line, size_t len)
{
	return len > 0 && line[len - 1] == '\n' && (len == 1 || (len == 2 && line[0] == '\r'));
}

/* The blank line of the answer that is not a 1xx, nor the proxy's to CONNECT. */
static void on_head_complete(struct http_transfer *t)
{
	t->head_complete = true;
	if (t->paused_read) /* an answer in the middle of the body: curl would wait for the rest of that, and not end */
		curl_easy_pause(t->easy, CURLPAUSE_CONT);
}

/* Returning another number than size * n makes curl stop. */
static size_t on_curl_header(char *data, size_t size, size_t n, void *arg)
{
	struct http_transfer *t = arg;
	size_t len = size * n;
	if (t->stop != STOP_NONE)
		return 0;
	if (len > HTTP_HEADERS_MAX - t->header_bytes)
		t->stop = STOP_HEADERS;
	else if (answer_status(t) == 101)
		t->stop = STOP_SWITCHED;
	if (t->stop != STOP_NONE)
		return 0;
	t->header_bytes += len;
	moved(t);
	if (!t->head_complete && is_blank(data, len) && answer_status(t) >= 200)
		on_head_complete(t);
	return len;
}

/* Bytes that come for the first time. What on_body took of them; -1: curl is to stop. */
static ssize_t give_body(struct http_transfer *t, const void *data, size_t len)
{
	if (len > t->max_body - t->body_bytes) {
		t->stop = STOP_TOO_LARGE;
		return -1;
	}
	t->body_bytes += len;
	if (answer_redirect(t) || proxy_refusal(t))
		return (ssize_t)len;
	ssize_t taken = t->on_body(t->arg, answer_status(t), data, len);
	if (t->stop == STOP_NONE && taken == HTTP_BODY_ABORT)
		t->stop = STOP_BY_CALLER;
	if (t->stop != STOP_NONE)
		return -1;
	assert(taken >= 0 && (size_t)taken <= len);
	t->body_bytes -= len - (size_t)taken;
	return taken;
}

/* Curl keeps all of a piece that was not taken to its end, and gives it again in pieces of its own choice. */
static size_t on_curl_body(char *data, size_t size, size_t n, void *arg)
{
	struct http_transfer *t = arg;
	size_t len = size * n;
	size_t known = len < t->taken ? len : t->taken;
	if (t->stop != STOP_NONE)
		return 0;
	t->taken -= known;
	if (known == len)
		return len;
	ssize_t taken = give_body(t, data + known, len - known);
	if (taken < 0)
		return 0;
	if (known + (size_t)taken == len)
		return len;
	t->taken = known + (size_t)taken;
	t->paused_body = true;
	return CURL_WRITEFUNC_PAUSE;
}

static size_t read_size(const struct http_transfer *t, size_t size)
{
	uint64_t left = t->send_bytes - t->read_bytes;
	uint64_t step = t->send_rate > 0 ? 1 + (uint64_t)t->send_rate / RATE_STEPS : size;
	uint64_t least = left < step ? left : step;
	return size < least ? size : (size_t)least;
}

static size_t on_curl_read(char *buffer, size_t size, size_t n, void *arg)
{
	struct http_transfer *t = arg;
	size_t most = read_size(t, size * n);
	if (t->stop != STOP_NONE)
		return CURL_READFUNC_ABORT;
	if (t->paused_read)
		return CURL_READFUNC_PAUSE;
	if (most == 0) {
		t->stop = STOP_REPEATED;
		return CURL_READFUNC_ABORT;
	}
	ssize_t len = t->on_read(t->arg, buffer, most);
	if (t->stop != STOP_NONE)
		return CURL_READFUNC_ABORT;
	if (len == HTTP_READ_PAUSE) {
		t->paused_read = true;
		return CURL_READFUNC_PAUSE;
	}
	if (len == HTTP_READ_ABORT) {
		t->stop = STOP_BY_READER;
		return CURL_READFUNC_ABORT;
	}
	assert(len > 0 && (size_t)len <= most);
	t->read_bytes += (uint64_t)len;
	return (size_t)len;
}

/* The connection stands and the request is about to be sent. */
static int on_curl_connected(void *arg, char *to, char *from, int to_port, int from_port)
{
	struct http_transfer *t = arg;
	(void)to;
	(void)from;
	(void)to_port;
	(void)from_port;
	t->connected = true;
	t->header_bytes = 0; /* those of CONNECT are not the answer's */
	moved(t);
	return CURL_PREREQFUNC_OK;
}

/*
 * Anything but 0 makes curl stop. A proxy that has refused has nothing more to say: curl would read the page of a 407
 * byte by byte, and not come back to the loop as long as there are more.
 */
static int on_curl_progress(void *arg, curl_off_t to_get, curl_off_t got, curl_off_t to_send, curl_off_t sent)
{
	struct http_transfer *t = arg;
	uint64_t bytes = (uint64_t)got + (uint64_t)sent;
	(void)to_get;
	(void)to_send;
	if (bytes != t->moved)
		moved(t);
	t->moved = bytes;
	return !t->connected && proxy_refusal(t);
}

/* Public functions */

/* Beyond what every method needs. */
static int setup_method(struct http_transfer *t)
{
	int failed = 0;
#define SET(option, value) failed |= curl_easy_setopt(t->easy, CURLOPT_##option, value)
	switch (t->method) {
	case METHOD_GET:
		break;
	case METHOD_HEAD:
		SET(NOBODY, 1L);
		SET(MAXFILESIZE_LARGE, (curl_off_t)0); /* its Content-Length is of a body that does not come */
		break;
	case METHOD_POST: /* to curl a PUT by another name: it asks on_read for the body */
	case METHOD_PATCH:
		SET(CUSTOMREQUEST, methods[t->method]);
		/* fall through */
	case METHOD_PUT:
		SET(UPLOAD, 1L);
		SET(INFILESIZE_LARGE, (curl_off_t)t->send_bytes);
		SET(MAX_SEND_SPEED_LARGE, (curl_off_t)t->send_rate);
		SET(READFUNCTION, on_curl_read);
		SET(READDATA, t);
		break;
	case METHODS:
		break;
	}
	return failed;
}

/* The environment's no_proxy would send requests past our proxy; Kerberos would tell it who we are. */
static int setup_proxy(struct http_transfer *t, const char *proxy)
{
	int failed = 0;
	SET(PROXY, proxy);
	SET(NOPROXY, "");
	if (strncasecmp(proxy, "http:", 5) == 0)
		SET(PROXYPORT, PROXY_PORT);
	SET(SOCKS5_AUTH, (long)CURLAUTH_BASIC);
	SET(HEADEROPT, (long)CURLHEADER_SEPARATE);
	if (!*proxy)
		return failed;
	t->proxy = url_show(proxy);
	if (!t->proxy)
		return -ENOMEM;
	t->proxy[strlen(t->proxy) - 1] = '\0'; /* the path, "/" */
	return failed;
}

static int setup(struct http_transfer *t, const char *proxy)
{
	const char *ca_file = t->ca_file ? t->ca_file : t->http->ca_file;
	int failed = 0;
	SET(PRIVATE, t);
	SET(ERRORBUFFER, t->detail);
	SET(NOSIGNAL, 1L);
	SET(QUICK_EXIT, 1L); /* else ending a transfer waits for a resolver that hangs */
	SET(HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	SET(PROTOCOLS_STR, "http,https");
	SET(FOLLOWLOCATION, 0L);
	SET(PATH_AS_IS, 1L);
	SET(NETRC, (long)CURL_NETRC_IGNORED);
	SET(CAINFO, ca_file); /* a bundle costs 0.8 MB, a folder is read as needed */
	SET(CAPATH, ca_file ? NULL : CA_FOLDER);
	SET(SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	SET(USERAGENT, t->http->user_agent);
	SET(BUFFERSIZE, BUFFER_SIZE);
	SET(CONNECTTIMEOUT_MS, (long)t->connect_timeout_ms);
	SET(MAXFILESIZE_LARGE, (curl_off_t)t->max_body); /* by Content-Length; what comes is counted by us */
	SET(HEADERFUNCTION, on_curl_header);
	SET(HEADERDATA, t);
	SET(WRITEFUNCTION, on_curl_body);
	SET(WRITEDATA, t);
	SET(PREREQFUNCTION, on_curl_connected);
	SET(PREREQDATA, t);
	SET(NOPROGRESS, t->stall_ms > 0 || *proxy ? 0L : 1L);
	SET(XFERINFOFUNCTION, on_curl_progress);
	SET(XFERINFODATA, t);
	failed |= setup_method(t);
	failed |= setup_proxy(t, proxy);
#undef SET
	/* Else a CA file that was changed would be read a day later. A curl without OpenSSL does not know it. */
	curl_easy_setopt(t->easy, CURLOPT_CA_CACHE_TIMEOUT, 0L);
	return failed ? -ENOMEM : 0;
}

static int add_header(struct http_transfer *t, const char *header)
{
	struct curl_slist *longer = curl_slist_append(t->headers, header);
	if (!longer)
		return -ENOMEM;
	t->headers = longer;
	return 0;
}

static int copy_headers(struct http_transfer *t, const char *const *headers)
{
	/* Curl's own "Expect: 100-continue" would wait a second for servers that do not know it. */
	int r = has_body(t->method) ? add_header(t, "Expect:") : 0;
	for (; r == 0 && headers && *headers; headers++)
		r = add_header(t, *headers);
	return r;
}

int http_new(uv_loop_t *loop, const char *user_agent, struct http **ret_http)
{
	struct http *http = calloc(1, sizeof *http);
	if (!http)
		return -ENOMEM;
	if (curl_global_init(CURL_GLOBAL_DEFAULT)) {
		free(http);
		return -ENOMEM;
	}
	http->loop = loop;
	http->ca_file = getenv("SSL_CERT_FILE");
	http->user_agent = strdup(user_agent);
	http->multi = curl_multi_init();
	if (!http->user_agent || !http->multi) {
		curl_multi_cleanup(http->multi);
		curl_global_cleanup();
		free(http->user_agent);
		free(http);
		return -ENOMEM;
	}
	curl_multi_setopt(http->multi, CURLMOPT_SOCKETFUNCTION, on_curl_socket);
	curl_multi_setopt(http->multi, CURLMOPT_SOCKETDATA, http);
	curl_multi_setopt(http->multi, CURLMOPT_TIMERFUNCTION, on_curl_timer);
	curl_multi_setopt(http->multi, CURLMOPT_TIMERDATA, http);
	curl_multi_setopt(http->multi, CURLMOPT_MAXCONNECTS, CONNECTIONS_MAX);
	uv_timer_init(loop, &http->timer);
	uv_timer_init(loop, &http->watch);
	http->handles = 1;
	*ret_http = http;
	return 0;
}

/* Whether that part of a URL, where it has it, is text; a proxy's that is not would make curl connect without one. */
static bool part_decodes(CURLU *url, CURLUPart part)
{
	char *text = NULL;
	CURLUcode code = curl_url_get(url, part, &text, CURLU_URLDECODE);
	curl_free(text);
	return code == CURLUE_OK || code == CURLUE_NO_USER || code == CURLUE_NO_PASSWORD;
}

static bool is_proxy_url(CURLU *url, const char *value)
{
	char *path = NULL;
	if (curl_url_set(url, CURLUPART_URL, value, CURLU_NON_SUPPORT_SCHEME))
		return false;
	curl_url_get(url, CURLUPART_PATH, &path, 0);
	bool bare = !strpbrk(value, "?#") && (!path || strcmp(path, "/") == 0);
	curl_free(path);
	return bare && part_decodes(url, CURLUPART_HOST) && part_decodes(url, CURLUPART_USER) &&
	       part_decodes(url, CURLUPART_PASSWORD);
}

/* The value itself is not shown: it may hold a password, at a place where no parser finds it. */
int http_check_proxy(const char *value, struct err *err)
{
	bool http = strncasecmp(value, "http://", 7) == 0;
	if (!*value)
		return 0;
	if (!http && strncasecmp(value, "socks5h://", 10) != 0)
		return err_fail(err, -EINVAL,
		                "a proxy is \"http://host:port\" or \"socks5h://host:port\"; no other kind is spoken");
	CURLU *url = curl_url();
	if (!url)
		return err_fail(err, -ENOMEM, "out of memory");
	bool good = is_proxy_url(url, value);
	curl_url_cleanup(url);
	if (!good)
		return err_fail(
		        err, -EINVAL,
		        "not a proxy; write it like \"%s://user:password@host:port\", without a path, and what is "
		        "special in user and password like %%40 for @",
		        http ? "http" : "socks5h");
	return 0;
}

static enum method find_method(const char *name)
{
	enum method method = METHOD_GET;
	while (strcmp(methods[method], name) != 0) {
		method++;
		assert(method < METHODS);
	}
	return method;
}

/* NULL for want of memory. */
static struct http_transfer *transfer_new(struct http *http, const struct http_request *request)
{
	struct http_transfer *t = calloc(1, sizeof *t);
	if (!t)
		return NULL;
	t->http = http;
	t->next = http->transfers;
	t->link = &http->transfers;
	if (t->next)
		t->next->link = &t->next;
	http->transfers = t;
	t->method = find_method(request->method);
	t->connect_timeout_ms = request->connect_timeout_ms;
	t->timeout_ms = request->timeout_ms;
	t->stall_ms = request->stall_ms;
	t->end_ms = now_ms() + (uint64_t)request->timeout_ms;
	t->max_body = request->max_body;
	t->send_bytes = has_body(t->method) ? request->send_bytes : 0;
	t->send_rate = request->send_rate;
	t->on_read = request->on_read;
	t->on_body = request->on_body;
	t->on_done = request->on_done;
	t->arg = request->arg;
	t->easy = curl_easy_init();
	t->url = strdup(request->url);
	t->first_shown = url_show(request->url);
	t->ca_file = request->ca_file ? strdup(request->ca_file) : NULL;
	if (!t->easy || !t->url || !t->first_shown || (request->ca_file && !t->ca_file) ||
	    copy_headers(t, request->headers) || setup(t, request->proxy ? request->proxy : "") || hop(t)) {
		transfer_free(t);
		return NULL;
	}
	return t;
}

int http_start(struct http *http, const struct http_request *request, struct http_transfer **ret_transfer,
               struct err *err)
{
	assert(!http->in_curl && !http->on_closed);
	int r = url_check(request->url, err);
	if (r == 0 && request->proxy)
		r = http_check_proxy(request->proxy, err);
	if (r)
		return r;
	struct http_transfer *t = transfer_new(http, request);
	if (!t)
		return err_fail(err, -ENOMEM, "out of memory");
	http->active++;
	if (t->stall_ms > 0 &&
	    (!uv_is_active((uv_handle_t *)&http->watch) || uv_timer_get_due_in(&http->watch) > (uint64_t)t->stall_ms))
		uv_timer_start(&http->watch, on_watch, (uint64_t)t->stall_ms, 0);
	*ret_transfer = t;
	return 0;
}

/* Not here and now: the caller may be in the callback of another transfer, and curl in the middle of its work. */
void http_resume(struct http_transfer *transfer)
{
	if (!transfer->paused_read && !transfer->paused_body)
		return;
	transfer->paused_read = transfer->paused_body = false;
	transfer->going_on = true;
	moved(transfer);
	uv_timer_start(&transfer->http->watch, on_watch, 0, 0);
}

const char *http_content_encoding(const struct http_transfer *transfer)
{
	const char *encoding = answer_header(transfer, "Content-Encoding");
	return encoding && strcasecmp(encoding, "identity") != 0 ? encoding : "";
}

const char *http_header(const struct http_answer *answer, const char *name)
{
	return answer_header(answer->transfer, name);
}

void http_cancel(struct http_transfer *transfer)
{
	struct http *http = transfer->http;
	http->active--;
	if (http->in_curl) {
		transfer->stop = STOP_CANCELLED;
		transfer->next_cancelled = http->cancelled;
		http->cancelled = transfer;
		return;
	}
	curl_multi_remove_handle(http->multi, transfer->easy);
	transfer_free(transfer);
}

size_t http_active(const struct http *http)
{
	return http->active;
}

/* Not in http_close itself, which an on_done may call: there reap still uses the multi. */
static void on_timer_closed(uv_handle_t *handle)
{
	struct http *http = container_of(handle, struct http, timer);
	curl_multi_cleanup(http->multi); /* may still take sockets away */
	http->multi = NULL;
	free_when_closed(http);
}

static void on_watch_closed(uv_handle_t *handle)
{
	struct http *http = container_of(handle, struct http, watch);
	http->handles--;
	free_when_closed(http);
}

void http_close(struct http *http, void (*on_closed)(void *arg), void *arg)
{
	assert(http->active == 0 && !http->on_closed);
	http->on_closed = on_closed;
	http->arg = arg;
	uv_close((uv_handle_t *)&http->timer, on_timer_closed);
	uv_close((uv_handle_t *)&http->watch, on_watch_closed);
}
