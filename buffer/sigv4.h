/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AWS Signature Version 4 for one request with a known payload hash, checked against AWS's published vectors. Pure;
 * any thread. (libcurl 7.88's own breaks on `=` in the path and sends X-Amz-Date twice.)
 */
#ifndef BUFFER_SIGV4_H
#define BUFFER_SIGV4_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/sha256.h"

#define SIGV4_TIME_MAX 17 /* 20261121T100200Z and a NUL */

struct sigv4_header {
	const char *name;  /* lower case */
	const char *value; /* without white space around it or twice running */
};

struct sigv4_request {
	const char *method;
	const char *path;                   /* encoded once, as it stands in the request line; begins with / */
	const char *query;                  /* canonical: encoded, sorted, without the ?; "" where there is none */
	const struct sigv4_header *headers; /* all that are signed, sorted by name, host and x-amz-date among them */
	size_t n_headers;
	const char *payload_sha256; /* 64 hex digits, or UNSIGNED-PAYLOAD */
};

struct sigv4_credentials {
	const char *access_key, *secret_key, *region, *service; /* service: "s3" */
};

/* The x-amz-date of a moment. */
void sigv4_time(int64_t wall_ms, char ret_time[SIGV4_TIME_MAX]);

/* Appends the value of the Authorization header. time is the request's x-amz-date. 0, -ENOMEM, -ENOBUFS. */
int sigv4_authorization(const struct sigv4_request *request, const struct sigv4_credentials *credentials,
                        const char *time, struct bytes *ret_value);

/* HMAC-SHA-256 (RFC 2104). PSA's own is for one thread: in mbedTLS 2.28 its keys stand in a table without a lock. */
void sigv4_hmac(const void *key, size_t key_len, const void *data, size_t len, uint8_t ret_mac[SHA256_SIZE]);

/* Appends text percent-encoded as S3 wants it: all but A-Z a-z 0-9 - . _ ~, and but / where `path` is set. */
int sigv4_encode(const char *text, bool path, struct bytes *out);

#endif
