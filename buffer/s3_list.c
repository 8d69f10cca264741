/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <mbedtls/base64.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buffer/s3_private.h"

#define NAME_MAX_BYTES (3 * 1024 + 1) /* a key of S3 has up to 1,024 bytes, each of them encoded as three */
#define TOKEN_MAX      2048
#define SHORT_MAX      32
#define BASE64_LEN     44 /* of a SHA-256 */

/* --- An object's headers --- */

static int parse_number(const char *text, uint64_t *ret)
{
	size_t len = strlen(text);

	if (len == 0 || len > 19 || strspn(text, "0123456789") != len)
		return -EINVAL;
	*ret = strtoull(text, NULL, 10);
	return 0;
}

/* A checksum of parts ("…-3") is none of the whole. */
static int parse_checksum(const char *text, uint8_t ret_sha256[SHA256_SIZE])
{
	unsigned char digest[SHA256_SIZE + 1];
	size_t n;

	if (strlen(text) != BASE64_LEN ||
	    mbedtls_base64_decode(digest, sizeof digest, &n, (const unsigned char *)text, BASE64_LEN) != 0 ||
	    n != SHA256_SIZE)
		return -ENODATA;
	memcpy(ret_sha256, digest, SHA256_SIZE);
	return 0;
}

int s3_checksum(const struct s3_answer *head, uint64_t *ret_bytes, uint8_t ret_sha256[SHA256_SIZE])
{
	uint8_t sha256[SHA256_SIZE];
	uint64_t bytes;

	if (parse_number(s3_header(head, "content-length"), &bytes) < 0 ||
	    parse_checksum(s3_header(head, "x-amz-checksum-sha256"), sha256) < 0)
		return -ENODATA;
	*ret_bytes = bytes;
	memcpy(ret_sha256, sha256, SHA256_SIZE);
	return 0;
}

int s3_same(const struct s3_answer *head, const struct batch *batch, struct err *err)
{
	const char *noted = s3_header(head, "x-amz-meta-millrace-sha256"), *length = s3_header(head, "content-length");
	char ours[SHA256_HEX], theirs[SHA256_HEX];
	uint8_t sha256[SHA256_SIZE];
	uint64_t bytes = 0;

	sha256_hex(batch->sha256, 2 * SHA256_SIZE, ours);
	if (s3_checksum(head, &bytes, sha256) == 0)
		sha256_hex(sha256, 2 * SHA256_SIZE, theirs);
	else
		snprintf(theirs, sizeof theirs, "%s", strlen(noted) == SHA256_HEX - 1 ? noted : "unknown");
	if (parse_number(length, &bytes) == 0 && bytes == batch->bytes) {
		if (strcmp(ours, theirs) == 0)
			return 0;
		if (strcmp(theirs, "unknown") == 0)
			return -ENODATA;
	}
	return err_fail(err, -EEXIST, "\"%s\" holds other bytes (%.20s, SHA-256 %s) than ours (%" PRIu64 ", %s)",
	                batch->key, *length ? length : "?", theirs, batch->bytes, ours);
}

/* --- Lists --- */

static int hex_digit(char c)
{
	const char *digits = "0123456789abcdef0123456789ABCDEF";
	const char *at = c ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) % 16 : -1;
}

/* In place; + is a space in what encoding-type=url gives. */
static void decode_url(char *text)
{
	char *to = text;

	for (; *text; text++) {
		int high = *text == '%' ? hex_digit(text[1]) : -1;
		int low = high >= 0 ? hex_digit(text[2]) : -1;

		if (low >= 0) {
			*to++ = (char)(high << 4 | low);
			text += 2;
		} else {
			*to++ = (char)(*text == '+' ? ' ' : *text);
		}
	}
	*to = '\0';
}

static bool is_text(struct s3_span in, const char *name, const char *expected)
{
	struct s3_span content;
	char text[SHORT_MAX];

	return s3_xml_find(in, name, &content, NULL) && s3_xml_text(content, text, sizeof text) < sizeof text &&
	       strcmp(text, expected) == 0;
}

static int bad_list(struct err *err, const char *what)
{
	return err_fail(err, -EBADMSG, "the store's list of objects %s", what);
}

/* Its key below the prefix. 1: an object to tell of; 0: one whose key is too long for one of ours. */
static int read_object(const struct s3 *s3, struct s3_span contents, bool encoded, struct s3_object *ret,
                       struct err *err)
{
	const char *prefix = s3->settings->prefix;
	size_t prefix_len = strlen(prefix);
	char key[NAME_MAX_BYTES], size[SHORT_MAX];
	struct s3_span content;
	const char *below = key;

	if (!s3_xml_find(contents, "Key", &content, NULL) || s3_xml_text(content, key, sizeof key) >= sizeof key)
		return bad_list(err, "has an object without a key, or with one that is too long");
	if (encoded)
		decode_url(key);
	if (prefix_len > 0) {
		if (strncmp(key, prefix, prefix_len) != 0 || key[prefix_len] != '/')
			return bad_list(err, "has objects that were not asked for");
		below = key + prefix_len + 1;
	}
	if (!s3_xml_find(contents, "Size", &content, NULL) || s3_xml_text(content, size, sizeof size) >= sizeof size ||
	    parse_number(size, &ret->bytes) < 0)
		return bad_list(err, "has an object without a size");
	if (strlen(below) >= sizeof ret->key)
		return 0;
	snprintf(ret->key, sizeof ret->key, "%s", below);
	return 1;
}

/* A list that goes on must say where: an audit of half a list would call the other half missing. */
static int read_token(struct s3_span list, char **ret_token, struct err *err)
{
	struct s3_span content;
	char token[TOKEN_MAX];

	if (is_text(list, "IsTruncated", "false")) {
		*ret_token = NULL;
		return 0;
	}
	if (!is_text(list, "IsTruncated", "true"))
		return bad_list(err, "does not say whether it goes on");
	if (!s3_xml_find(list, "NextContinuationToken", &content, NULL) || content.len == 0 ||
	    s3_xml_text(content, token, sizeof token) >= sizeof token)
		return bad_list(err, "goes on, and does not say where");
	*ret_token = strdup(token);
	return *ret_token ? 0 : err_fail(err, -ENOMEM, "out of memory");
}

int s3_read_list(const struct s3 *s3, const struct s3_answer *answer,
                 int (*on_object)(void *arg, const struct s3_object *object), void *arg, char **ret_token,
                 struct err *err)
{
	struct s3_span list, contents, rest;
	char *token = NULL;
	bool encoded;
	int r;

	if (!s3_xml_find(s3_body(answer), "ListBucketResult", &list, NULL))
		return bad_list(err, "is none, or is cut short");
	r = read_token(list, &token, err);
	encoded = is_text(list, "EncodingType", "url");
	rest = list;
	while (r == 0 && s3_xml_find(rest, "Contents", &contents, &rest)) {
		struct s3_object object;

		r = read_object(s3, contents, encoded, &object, err);
		if (r == 1)
			r = on_object(arg, &object);
	}
	if (r != 0)
		free(token);
	else
		*ret_token = token;
	return r;
}
