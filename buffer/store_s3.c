/* SPDX-License-Identifier: Apache-2.0 */
#include "buffer/store_s3.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "buffer/s3_private.h"
#include "buffer/store.h"

#define SECOND        1000
#define ENDPOINT_MAX  200 /* endpoint, bucket and prefix: together below the 511 bytes of a place in the buffer */
#define BUCKET_MIN    3
#define BUCKET_MAX    63
#define PREFIX_MAX    200
#define REGION_MAX    63
#define LETTERS       "abcdefghijklmnopqrstuvwxyz"
#define CAPITALS      "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS        "0123456789"
#define HOST_CHARS    LETTERS CAPITALS DIGITS "._-"
#define ADDRESS_CHARS "abcdefABCDEF" DIGITS ":."
#define PATH_CHARS    LETTERS CAPITALS DIGITS "-._~/"
#define EXAMPLE       "write it like \"http://minio.lan:9000\""

/* --- Settings --- */

/* The parts of an endpoint, each within its text. */
struct endpoint {
	bool tls;
	struct s3_span host; /* with the brackets of an IPv6 address */
	size_t zone_len;     /* at the host's end before the bracket: "%25eth0" */
	long port;           /* 0: the scheme's */
	struct s3_span path; /* "" or begins with /, and does not end with it */
};

/* A part between slashes that is empty, "." or "..", which clients and proxies would take out. */
static bool has_bad_part(const char *path, size_t len)
{
	for (const char *end = path + len;; path++) {
		size_t part = strcspn(path, "/");

		if (part > (size_t)(end - path))
			part = (size_t)(end - path);
		if (part == 0 || (part <= 2 && strspn(path, ".") >= part))
			return true;
		path += part;
		if (path == end)
			return false;
	}
}

/* The host at the beginning of text: returns its length, 0 where there is none. */
static size_t scan_host(const char *text, struct endpoint *ret)
{
	size_t len;

	ret->zone_len = 0;
	if (*text != '[') {
		len = strspn(text, HOST_CHARS);
		ret->host = (struct s3_span){ text, len };
		return len;
	}
	len = 1 + strspn(text + 1, ADDRESS_CHARS);
	if (text[len] == '%')
		ret->zone_len = 1 + strspn(text + len + 1, HOST_CHARS);
	if (len == 1 || text[len + ret->zone_len] != ']')
		return 0;
	ret->host = (struct s3_span){ text, len + ret->zone_len + 1 };
	return ret->host.len;
}

/* Behind host and port, or NULL. */
static const char *scan_authority(const char *text, struct endpoint *ret)
{
	size_t len = scan_host(text, ret), digits;

	if (len == 0)
		return NULL;
	text += len;
	ret->port = 0;
	if (*text != ':')
		return text;
	digits = strspn(text + 1, DIGITS);
	ret->port = digits > 0 && digits <= 5 ? strtol(text + 1, NULL, 10) : 0;
	return ret->port > 0 && ret->port <= 65535 ? text + 1 + digits : NULL;
}

/* No message shows the value where a password may stand in it. */
static int parse_endpoint(const char *text, struct endpoint *ret, struct err *err)
{
	const char *at;
	size_t len;

	if (strchr(text, '@'))
		return err_fail(err, -EINVAL,
		                "a user or password does not belong here, but into access_key and "
		                "secret_key; " EXAMPLE);
	if (strpbrk(text, "?#"))
		return err_fail(err, -EINVAL, "what begins with ? or # does not belong here; " EXAMPLE);
	ret->tls = strncasecmp(text, "https://", 8) == 0;
	if (!ret->tls && strncasecmp(text, "http://", 7) != 0)
		return err_fail(err, -EINVAL, "\"%.100s\" does not begin with http:// or https://; " EXAMPLE, text);
	if (strlen(text) > ENDPOINT_MAX)
		return err_fail(err, -EINVAL, "longer than %d bytes; " EXAMPLE, ENDPOINT_MAX);
	at = scan_authority(text + (ret->tls ? 8 : 7), ret);
	if (!at || (*at && *at != '/'))
		return err_fail(err, -EINVAL, "\"%.100s\" has no host, or one that is none, or a wrong port; " EXAMPLE,
		                text);
	len = strlen(at);
	if (len > 0 && at[len - 1] == '/')
		len--;
	ret->path = (struct s3_span){ at, len };
	if (strspn(at, PATH_CHARS) != strlen(at) || (len > 0 && has_bad_part(at + 1, len - 1)))
		return err_fail(err, -EINVAL,
		                "\"%.100s\": the path may have letters, digits, - . _ ~ and /, and no part that is "
		                "empty, \".\" or \"..\"",
		                text);
	return 0;
}

static int check_endpoint(const char *value, struct err *err)
{
	struct endpoint endpoint;

	return parse_endpoint(value, &endpoint, err);
}

static int check_region(const char *value, struct err *err)
{
	size_t len = strlen(value);

	if (len > 0 && len <= REGION_MAX && strspn(value, HOST_CHARS) == len)
		return 0;
	return err_fail(err, -EINVAL, "\"%.80s\" is no region; write it like \"us-east-1\", up to %d", value,
	                REGION_MAX);
}

static int check_bucket(const char *value, struct err *err)
{
	size_t len = strlen(value);

	if (len >= BUCKET_MIN && len <= BUCKET_MAX && strspn(value, LETTERS DIGITS ".-") == len &&
	    !strchr(".-", value[0]) && !strchr(".-", value[len - 1]) && !strstr(value, ".."))
		return 0;
	return err_fail(err, -EINVAL,
	                "\"%.80s\" is no name for a bucket; it has small letters, digits, . and -, begins and ends "
	                "with a letter or digit, and is %d to %d long",
	                value, BUCKET_MIN, BUCKET_MAX);
}

static int check_prefix(const char *value, struct err *err)
{
	size_t len = strlen(value);

	if (len == 0)
		return 0;
	if (value[0] == '/' || value[len - 1] == '/')
		return err_fail(err, -EINVAL, "\"%.100s\" begins or ends with a slash; write it like \"landing/pi\"",
		                value);
	if (has_bad_part(value, len))
		return err_fail(err, -EINVAL, "\"%.100s\" has a part that is empty, \".\" or \"..\"", value);
	for (const char *at = value; *at; at++) {
		if ((unsigned char)*at < ' ' || *at == 0x7f)
			return err_fail(err, -EINVAL, "it has a control character");
	}
	if (len > PREFIX_MAX)
		return err_fail(err, -EINVAL, "it is longer than %d bytes", PREFIX_MAX);
	return 0;
}

static int check_filled(const char *value, struct err *err)
{
	return *value ? 0 : err_fail(err, -EINVAL, "it is empty");
}

static const struct option options[] = {
	{ .name = "endpoint",
	  .type = OPTION_TEXT,
	  .offset = offsetof(struct s3_settings, endpoint),
	  .required = true,
	  .check = check_endpoint },
	{ .name = "region",
	  .type = OPTION_TEXT,
	  .offset = offsetof(struct s3_settings, region),
	  .fallback = "us-east-1",
	  .check = check_region },
	{ .name = "bucket",
	  .type = OPTION_TEXT,
	  .offset = offsetof(struct s3_settings, bucket),
	  .required = true,
	  .check = check_bucket },
	{ .name = "prefix",
	  .type = OPTION_TEXT,
	  .offset = offsetof(struct s3_settings, prefix),
	  .fallback = "",
	  .check = check_prefix },
	{ .name = "access_key",
	  .type = OPTION_TEXT,
	  .offset = offsetof(struct s3_settings, access_key),
	  .required = true,
	  .secret = true,
	  .check = check_filled },
	{ .name = "secret_key",
	  .type = OPTION_TEXT,
	  .offset = offsetof(struct s3_settings, secret_key),
	  .required = true,
	  .secret = true,
	  .check = check_filled },
	{ .name = "ca_file",
	  .type = OPTION_TEXT,
	  .offset = offsetof(struct s3_settings, ca_file),
	  .path = true,
	  .check = check_filled },
	{ .name = "parallel",
	  .type = OPTION_NUMBER,
	  .offset = offsetof(struct s3_settings, parallel),
	  .fallback = "2",
	  .min = 1,
	  .max = 16 },
	{ .name = "upload_rate",
	  .type = OPTION_SIZE,
	  .offset = offsetof(struct s3_settings, upload_rate),
	  .fallback = "0" },
	{ .name = "timeout",
	  .type = OPTION_DURATION,
	  .offset = offsetof(struct s3_settings, timeout_ms),
	  .fallback = "60s",
	  .min = SECOND,
	  .max = 3600 * SECOND },
	{ .name = "virtual_host",
	  .type = OPTION_BOOL,
	  .offset = offsetof(struct s3_settings, virtual_host),
	  .fallback = "false" },
	OPTION_END,
};

static char *place(const void *settings)
{
	const struct s3_settings *s = settings;
	size_t len = strlen(s->endpoint);
	char *text;

	if (len > 0 && s->endpoint[len - 1] == '/')
		len--;
	if (asprintf(&text, "%.*s/%s%s%s", (int)len, s->endpoint, s->bucket, *s->prefix ? "/" : "", s->prefix) < 0)
		return NULL;
	return text;
}

const struct store_kind store_kind_s3 = {
	.kind = "s3",
	.options = options,
	.settings_size = sizeof(struct s3_settings),
	.place = place,
};

/* --- Its life --- */

static int set_text(char **ret_text, const char *format, ...) __attribute__((format(printf, 2, 3)));

static int set_text(char **ret_text, const char *format, ...)
{
	va_list args;
	char *text;

	va_start(args, format);
	int n = vasprintf(&text, format, args);
	va_end(args);
	if (n < 0)
		return -ENOMEM;
	*ret_text = text;
	return 0;
}

/* The Host header leaves out the scheme's own port, as all clients do, and an address's zone, which is this machine's
 * business alone. */
static int set_host(struct s3 *s3, const struct endpoint *e, const char *bucket)
{
	bool default_port = e->port == 0 || e->port == (e->tls ? 443 : 80);
	size_t len = e->host.len - (e->zone_len ? e->zone_len + 1 : 0);
	char port[24] = "";

	if (!default_port)
		snprintf(port, sizeof port, ":%ld", e->port);
	return set_text(&s3->host, "%s%s%.*s%s%s", bucket, *bucket ? "." : "", (int)len, e->host.at,
	                e->zone_len ? "]" : "", port);
}

static int set_addresses(struct s3 *s3)
{
	const struct s3_settings *settings = s3->settings;
	bool in_host = settings->virtual_host;
	const char *bucket = in_host ? settings->bucket : "";
	struct endpoint e = { 0 };
	char port[24] = "";
	int r = parse_endpoint(settings->endpoint, &e, NULL);

	assert(r == 0); /* the settings were checked */
	if (e.port > 0)
		snprintf(port, sizeof port, ":%ld", e.port);
	r = set_text(&s3->origin, "%s://%s%s%.*s%s", e.tls ? "https" : "http", bucket, in_host ? "." : "",
	             (int)e.host.len, e.host.at, port);
	if (r == 0)
		r = set_host(s3, &e, bucket);
	if (r == 0)
		r = set_text(&s3->path, "%.*s%s%s", (int)e.path.len, e.path.at, in_host ? "" : "/",
		             in_host ? "" : settings->bucket);
	return r;
}

int s3_new(const struct s3_settings *settings, const char *access_key, const char *secret_key, struct s3 **ret_s3)
{
	struct s3 *s3 = calloc(1, sizeof *s3);

	if (!s3)
		return -ENOMEM;
	s3->settings = settings;
	s3->access_key = strdup(access_key);
	s3->secret_key = strdup(secret_key);
	s3->place = place(settings);
	if (!s3->access_key || !s3->secret_key || !s3->place || set_addresses(s3) < 0) {
		s3_free(s3);
		return -ENOMEM;
	}
	*ret_s3 = s3;
	return 0;
}

static void free_secret(char *secret)
{
	if (secret)
		explicit_bzero(secret, strlen(secret));
	free(secret);
}

void s3_free(struct s3 *s3)
{
	if (!s3)
		return;
	free_secret(s3->access_key);
	free_secret(s3->secret_key);
	free(s3->origin);
	free(s3->host);
	free(s3->path);
	free(s3->place);
	free(s3);
}
