/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <mbedtls/base64.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/units.h"
#include "buffer/s3_private.h"
#include "buffer/sigv4.h"

#define HEADERS_MAX  16
#define TARGET_MAX   8192 /* a prefix and a token, each byte of them encoded as three */
#define AUTH_MAX     8192
#define BASE64_MAX   45 /* of a SHA-256, and a NUL */
#define PAGE         "1000"
#define PROBE        ".millrace-probe"
#define EMPTY_SHA256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

/* A request on its way to being signed. */
struct draft {
	const struct s3 *s3;
	const char *method;
	const char *key;   /* below the prefix; NULL: the bucket itself */
	const char *query; /* canonical */
	struct sigv4_header headers[HEADERS_MAX + 1];
	size_t n_headers;
};

/* In its place: they are signed in order. */
static void add(struct draft *d, const char *name, const char *value)
{
	size_t at = d->n_headers++;

	assert(at < HEADERS_MAX);
	for (; at > 0 && strcmp(d->headers[at - 1].name, name) > 0; at--)
		d->headers[at] = d->headers[at - 1];
	d->headers[at] = (struct sigv4_header){ name, value };
}

static int add_path(const struct draft *d, struct bytes *out)
{
	const char *prefix = d->s3->settings->prefix;
	int r = bytes_add_text(out, d->s3->path);

	if (r == 0 && d->key && *prefix) {
		r = bytes_add_text(out, "/");
		if (r == 0)
			r = sigv4_encode(prefix, true, out);
	}
	if (r == 0 && d->key) {
		r = bytes_add_text(out, "/");
		if (r == 0)
			r = sigv4_encode(d->key, true, out);
	}
	if (r == 0 && out->len == 0)
		r = bytes_add_text(out, "/");
	return r == 0 ? bytes_add(out, "", 1) : r;
}

static int authorize(const struct draft *d, const char *path, const char *time, const char *payload_sha256,
                     struct bytes *out)
{
	const struct sigv4_request request = {
		.method = d->method,
		.path = path,
		.query = d->query,
		.headers = d->headers,
		.n_headers = d->n_headers,
		.payload_sha256 = payload_sha256,
	};
	const struct sigv4_credentials credentials = {
		.access_key = d->s3->access_key,
		.secret_key = d->s3->secret_key,
		.region = d->s3->settings->region,
		.service = "s3",
	};
	int r = sigv4_authorization(&request, &credentials, time, out);

	return r == 0 ? bytes_add(out, "", 1) : r;
}

void s3_request_done(struct s3_request *request)
{
	for (size_t i = 0; request->headers && request->headers[i]; i++)
		free(request->headers[i]);
	free(request->headers);
	free(request->url);
	*request = (struct s3_request){ 0 };
}

static int write_out(const struct draft *d, const char *path, struct s3_request *ret)
{
	struct s3_request request = { .method = d->method };
	int n = asprintf(&request.url, "%s%s%s%s", d->s3->origin, path, *d->query ? "?" : "", d->query);

	if (n < 0)
		return -ENOMEM;
	request.headers = calloc(d->n_headers + 1, sizeof *request.headers);
	for (size_t i = 0; request.headers && i < d->n_headers && n >= 0; i++) {
		n = asprintf(&request.headers[i], "%s: %s", d->headers[i].name, d->headers[i].value);
		if (n < 0)
			request.headers[i] = NULL;
	}
	if (!request.headers || n < 0) {
		s3_request_done(&request);
		return -ENOMEM;
	}
	*ret = request;
	return 0;
}

/* Adds what every request has, signs it, and writes it out. */
static int finish(const struct draft *unsigned_draft, const char *payload_sha256, int64_t wall_ms,
                  struct s3_request *ret)
{
	struct draft d = *unsigned_draft;
	char time[SIGV4_TIME_MAX];
	struct bytes path, authorization;
	int r;

	bytes_init(&path, TARGET_MAX);
	bytes_init(&authorization, AUTH_MAX);
	sigv4_time(wall_ms + d.s3->ahead_ms, time);
	add(&d, "host", d.s3->host);
	add(&d, "x-amz-content-sha256", payload_sha256);
	add(&d, "x-amz-date", time);
	r = add_path(&d, &path);
	if (r == 0)
		r = authorize(&d, (char *)path.data, time, payload_sha256, &authorization);
	if (r == 0) {
		add(&d, "authorization", (char *)authorization.data); /* it is not signed itself */
		r = write_out(&d, (char *)path.data, ret);
	}
	bytes_done(&path);
	bytes_done(&authorization);
	return r;
}

static void encode_base64(const uint8_t sha256[SHA256_SIZE], char ret_text[BASE64_MAX])
{
	size_t len;
	int r = mbedtls_base64_encode((unsigned char *)ret_text, BASE64_MAX, &len, sha256, SHA256_SIZE);

	assert(r == 0 && len == BASE64_MAX - 1);
	(void)r;
}

int s3_put(const struct s3 *s3, const struct batch *batch, bool only_new, int64_t wall_ms, struct s3_request *ret)
{
	struct draft d = { .s3 = s3, .method = "PUT", .key = batch->key, .query = "" };
	char base64[BASE64_MAX], hex[SHA256_HEX], sealed[UNITS_TEXT_MAX];
	char first[UNITS_TEXT_MAX], last[UNITS_TEXT_MAX], records[UNITS_TEXT_MAX], raw[UNITS_TEXT_MAX];

	encode_base64(batch->sha256, base64);
	snprintf(first, sizeof first, "%" PRIu64, batch->first_seq);
	snprintf(last, sizeof last, "%" PRIu64, batch->last_seq);
	snprintf(records, sizeof records, "%" PRIu64, batch->records);
	snprintf(raw, sizeof raw, "%" PRIu64, batch->raw_bytes);
	sha256_hex(batch->sha256, 2 * SHA256_SIZE, hex);
	add(&d, "content-type", "application/gzip");
	if (only_new)
		add(&d, "if-none-match", "*");
	add(&d, "x-amz-checksum-sha256", base64);
	add(&d, "x-amz-meta-millrace-first-seq", first);
	add(&d, "x-amz-meta-millrace-last-seq", last);
	add(&d, "x-amz-meta-millrace-raw-bytes", raw);
	add(&d, "x-amz-meta-millrace-records", records);
	add(&d, "x-amz-meta-millrace-sealed", units_time(batch->sealed_ms, sealed));
	add(&d, "x-amz-meta-millrace-sha256", hex);
	return finish(&d, hex, wall_ms, ret);
}

int s3_put_small(const struct s3 *s3, const char *key, const uint8_t sha256[SHA256_SIZE], const char *content_type,
                 int64_t wall_ms, struct s3_request *ret)
{
	struct draft d = { .s3 = s3, .method = "PUT", .key = key, .query = "" };
	char base64[BASE64_MAX], hex[SHA256_HEX];

	encode_base64(sha256, base64);
	add(&d, "content-type", content_type);
	add(&d, "x-amz-checksum-sha256", base64);
	return finish(&d, sha256_hex(sha256, 2 * SHA256_SIZE, hex), wall_ms, ret);
}

int s3_head(const struct s3 *s3, const char *key, int64_t wall_ms, struct s3_request *ret)
{
	struct draft d = { .s3 = s3, .method = "HEAD", .key = key, .query = "" };

	add(&d, "x-amz-checksum-mode", "ENABLED");
	return finish(&d, EMPTY_SHA256, wall_ms, ret);
}

int s3_get(const struct s3 *s3, const char *key, int64_t wall_ms, struct s3_request *ret)
{
	struct draft d = { .s3 = s3, .method = "GET", .key = key, .query = "" };

	return finish(&d, EMPTY_SHA256, wall_ms, ret);
}

int s3_probe(const struct s3 *s3, int64_t wall_ms, struct s3_request *ret)
{
	struct draft d = { .s3 = s3, .method = "PUT", .key = PROBE, .query = "" };
	uint8_t digest[SHA256_SIZE];
	char base64[BASE64_MAX], hex[SHA256_HEX];
	struct sha256 h;

	sha256_init(&h);
	sha256_add(&h, S3_PROBE_BODY, strlen(S3_PROBE_BODY));
	sha256_finish(&h, digest);
	encode_base64(digest, base64);
	add(&d, "content-type", "text/plain");
	add(&d, "if-none-match", "*");
	add(&d, "x-amz-checksum-sha256", base64);
	return finish(&d, sha256_hex(digest, 2 * SHA256_SIZE, hex), wall_ms, ret);
}

/* The parameters in the order of their names, as they are signed. */
static int add_list_query(const struct s3 *s3, const char *below, const char *token, struct bytes *out)
{
	const char *prefix = s3->settings->prefix;
	int r = 0;

	if (token) {
		r = bytes_add_text(out, "continuation-token=");
		if (r == 0)
			r = sigv4_encode(token, false, out);
		if (r == 0)
			r = bytes_add_text(out, "&");
	}
	if (r == 0)
		r = bytes_add_text(out, "encoding-type=url&list-type=2&max-keys=" PAGE "&prefix=");
	if (r == 0 && *prefix)
		r = sigv4_encode(prefix, false, out);
	if (r == 0 && *prefix)
		r = sigv4_encode("/", false, out);
	if (r == 0)
		r = sigv4_encode(below, false, out);
	return r == 0 ? bytes_add(out, "", 1) : r;
}

int s3_list(const struct s3 *s3, const char *below, const char *token, int64_t wall_ms, struct s3_request *ret)
{
	struct draft d = { .s3 = s3, .method = "GET" };
	struct bytes query;
	int r;

	bytes_init(&query, TARGET_MAX);
	r = add_list_query(s3, below, token, &query);
	d.query = (char *)query.data;
	if (r == 0)
		r = finish(&d, EMPTY_SHA256, wall_ms, ret);
	bytes_done(&query);
	return r;
}
