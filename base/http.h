/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All HTTP that Millrace asks for, sources and later stores and jobs: libcurl's multi interface on libuv. One client
 * per process, owned by agent/. Loop thread only. HTTP/1.1; TLS is verified always, against the system's CA folder or,
 * where the environment has SSL_CERT_FILE, against that file alone. Redirects (301, 302, 303, 307, 308) are followed
 * for GET alone, at most 5, and never from https to http (RFC 9110 §15.4); the caller sees only the last answer. Only
 * http and https are spoken. No credential is kept, no cookie, no .netrc; proxies of the environment are not used.
 * Headers of our own go to the origin that was asked and to no other. Timeouts are real time, also where base/clock is
 * driven by a test. The process must ignore SIGPIPE: a TLS peer that goes away would raise it.
 */
#ifndef BASE_HTTP_H
#define BASE_HTTP_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

#include "base/err.h"

struct http;
struct http_transfer;

struct http_answer {
	int error;              /* 0: complete, whatever its status; else -errno: -ETIMEDOUT, -EMSGSIZE (over max_body),
	                           -E2BIG (over HTTP_HEADERS_MAX), -EPROTO (broken HTTP, redirect refused), -EBADE (TLS), -EPIPE (cut
	                           short), -ECANCELED (on_body or on_read refused), -ECONNREFUSED, -EHOSTUNREACH (no such
	                           name), -EIO */
	const char *cause;      /* of an error, one word that does not change with numbers: "timeout", "too-large",
	                           "truncated", "tls", "refused", "dns", "redirect", "protocol", "canceled", "proxy" (which
	                           refused: 407, CONNECT without 2xx, SOCKS), "network" */
	const char *text;       /* of an error, in full: `GET https://host/path: the answer ended after 512 of 1243
	                           bytes`; the URL without query and user info; names the proxy, without user info */
	long status;            /* 0 where none came; a proxy's refusal is none */
	int64_t retry_after_ms; /* from Retry-After, both forms (RFC 9110 §10.2.3); -1 where none came */
	const char *content_type;             /* "" where none came */
	const char *content_encoding;         /* "" where none came or "identity" */
	uint64_t body_bytes;                  /* as they came over the wire, without the framing of chunks */
	const struct http_transfer *transfer; /* for http_header */
};

#define HTTP_READ_PAUSE (-1)
#define HTTP_READ_ABORT (-2)
#define HTTP_BODY_ABORT (-1)

/* Bytes of all status lines, headers and trailers of one answer, 1xx included, those of its redirects and of a proxy's
 * answer to CONNECT apart; more is -E2BIG. */
#define HTTP_HEADERS_MAX (64 * 1024)

struct http_request {
	const char *method;         /* "GET" or "HEAD"; "PUT", "POST" or "PATCH", which have a body */
	const char *url;            /* http or https; copied */
	const char *const *headers; /* "Name: value", ended by NULL; copied; NULL: none of our own but User-Agent */
	const char *ca_file;        /* trusted instead of the system's; NULL: the system's. Copied */
	int64_t connect_timeout_ms;
	int64_t timeout_ms;  /* over all, redirects included; 0: no such limit, but stall_ms */
	int64_t stall_ms;    /* without a byte either way on a connection that stands, which ends it with -ETIMEDOUT;
	                        pauses of on_read and on_body do not count; 0: no such limit */
	uint64_t max_body;   /* bytes of one answer's body */
	uint64_t send_bytes; /* of the body, which may be empty: its Content-Length */
	int64_t send_rate;   /* bytes a second at most, 0: no limit */
	const char *proxy;   /* http_check_proxy; NULL or "": none. Copied */

	/*
	 * Bytes of the body into buffer, not called where that is empty: how many (1 to size), HTTP_READ_PAUSE where
	 * they are not at hand (http_resume when they are), HTTP_READ_ABORT, which ends the transfer with -ECANCELED.
	 * May cancel any transfer, this one too; may not start one. An answer may come before all of the body was asked
	 * for.
	 */
	ssize_t (*on_read)(void *arg, void *buffer, size_t size);

	/*
	 * Bytes of the body of the answer that is not a followed redirect, as they arrive; borrowed. Returns how many
	 * it took: fewer than len pauses the transfer, and the rest is given again, from its first byte on, after
	 * http_resume; nothing is read from the peer meanwhile, and no end but an error is told before all was taken.
	 * HTTP_BODY_ABORT ends the transfer with -ECANCELED. May cancel any transfer, this one too; may not start one.
	 */
	ssize_t (*on_body)(void *arg, long status, const void *data, size_t len);

	/* The end, exactly once unless cancelled, never from within http_start; answer is borrowed. The transfer is
	 * gone. */
	void (*on_done)(void *arg, const struct http_answer *answer);
	void *arg;
};

/* 0 or -errno. user_agent is copied. */
int http_new(uv_loop_t *loop, const char *user_agent, struct http **ret_http);

/*
 * Whether value is a proxy, or "": 0, -ENOMEM, or -EINVAL with what to write instead.
 * http://[user:password@]host[:port], port 80 where none is given: https through CONNECT, http with the whole URL (RFC
 * 9112 §3.2.2). socks5h://…, port 1080: the proxy looks up the names (RFC 1928, 1929).
 */
int http_check_proxy(const char *value, struct err *err);

/* 0 or -ENOMEM, -EINVAL (url_check, http_check_proxy; err says why). */
int http_start(struct http *http, const struct http_request *request, struct http_transfer **ret_transfer,
               struct err *err);

/* Goes on with a transfer whose on_read or on_body has paused; harmless where it has not. Not from within a callback of
 * it. What follows comes from the loop, not before this returns. */
void http_resume(struct http_transfer *transfer);

/* The Content-Encoding of the answer whose body on_body is given; "" where none came or identity. Borrowed until
 * on_body returns. */
const char *http_content_encoding(const struct http_transfer *transfer);

/* A header of the answer that on_done is about, or NULL where it did not come or is empty; borrowed until on_done
 * returns. */
const char *http_header(const struct http_answer *answer, const char *name);

/* Ends it at once, without on_done. Does not wait for a resolver that hangs. */
void http_cancel(struct http_transfer *transfer);

/* How many transfers are under way. */
size_t http_active(const struct http *http);

/* All transfers must be gone. on_closed comes when every handle is closed; the client is freed then. */
void http_close(struct http *http, void (*on_closed)(void *arg), void *arg);

#endif
