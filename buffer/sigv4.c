/* SPDX-License-Identifier: Apache-2.0 */
#include "buffer/sigv4.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/units.h"

#define BLOCK         64 /* bytes of a block of SHA-256 */
#define SCOPE_MAX     512
#define SIGNED_MAX    4096
#define SECRET_MAX    8192
#define ALGORITHM     "AWS4-HMAC-SHA256"
#define DATE_LEN      8 /* the 20261121 of 20261121T100200Z */
#define HEX_UPPERCASE "0123456789ABCDEF"

void sigv4_hmac(const void *key, size_t key_len, const void *data, size_t len, uint8_t ret_mac[SHA256_SIZE])
{
	uint8_t block[BLOCK] = { 0 };
	struct sha256 h;

	sha256_init(&h);
	if (key_len > BLOCK) {
		sha256_add(&h, key, key_len);
		sha256_finish(&h, block);
		sha256_init(&h);
	} else {
		memcpy(block, key, key_len);
	}
	for (size_t i = 0; i < BLOCK; i++)
		block[i] ^= 0x36;
	sha256_add(&h, block, BLOCK);
	sha256_add(&h, data, len);
	sha256_finish(&h, ret_mac);
	for (size_t i = 0; i < BLOCK; i++)
		block[i] ^= 0x36 ^ 0x5c;
	sha256_init(&h);
	sha256_add(&h, block, BLOCK);
	sha256_add(&h, ret_mac, SHA256_SIZE);
	sha256_finish(&h, ret_mac);
	explicit_bzero(block, sizeof block);
}

void sigv4_time(int64_t wall_ms, char ret_time[SIGV4_TIME_MAX])
{
	char text[UNITS_TEXT_MAX];
	size_t n = 0;

	units_time(wall_ms, text);
	for (const char *at = text; *at != '.'; at++) {
		if (*at != '-' && *at != ':')
			ret_time[n++] = *at;
	}
	ret_time[n++] = 'Z';
	ret_time[n] = '\0';
	assert(n == SIGV4_TIME_MAX - 1);
}

static bool is_unreserved(char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
	       c == '_' || c == '~';
}

int sigv4_encode(const char *text, bool path, struct bytes *out)
{
	size_t before = out->len;
	int r = 0;

	for (; *text && r == 0; text++) {
		unsigned char c = (unsigned char)*text;
		const char encoded[] = { '%', HEX_UPPERCASE[c >> 4], HEX_UPPERCASE[c & 15] };

		if (is_unreserved(*text) || (path && *text == '/'))
			r = bytes_add(out, text, 1);
		else
			r = bytes_add(out, encoded, sizeof encoded);
	}
	if (r < 0)
		out->len = before;
	return r;
}

static void add_text(struct sha256 *h, const char *text)
{
	sha256_add(h, text, strlen(text));
}

/* The names with ; between. */
static int add_names(struct bytes *out, const struct sigv4_request *request)
{
	int r = 0;

	for (size_t i = 0; i < request->n_headers && r == 0; i++) {
		assert(i == 0 || strcmp(request->headers[i - 1].name, request->headers[i].name) < 0);
		r = bytes_printf(out, "%s%s", i ? ";" : "", request->headers[i].name);
	}
	return r;
}

/* SHA-256 of the canonical request, in hex; it is hashed as it is laid out, and so needs no memory. */
static void hash_request(const struct sigv4_request *request, const struct bytes *names, char ret_hex[SHA256_HEX])
{
	const char *const lines[] = { request->method, request->path, request->query };
	uint8_t digest[SHA256_SIZE];
	struct sha256 h;

	sha256_init(&h);
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
		add_text(&h, lines[i]);
		add_text(&h, "\n");
	}
	for (size_t i = 0; i < request->n_headers; i++) {
		add_text(&h, request->headers[i].name);
		add_text(&h, ":");
		add_text(&h, request->headers[i].value);
		add_text(&h, "\n");
	}
	add_text(&h, "\n");
	sha256_add(&h, names->data, names->len);
	add_text(&h, "\n");
	add_text(&h, request->payload_sha256);
	sha256_finish(&h, digest);
	sha256_hex(digest, 2 * SHA256_SIZE, ret_hex);
}

/* The key that signs one day's requests to one region's service. */
static int derive_key(const struct sigv4_credentials *credentials, const char *time, uint8_t ret_key[SHA256_SIZE])
{
	const char *const steps[] = { credentials->region, credentials->service, "aws4_request" };
	struct bytes secret;
	int r;

	bytes_init(&secret, SECRET_MAX);
	r = bytes_reserve(&secret,
	                  strlen("AWS4") + strlen(credentials->secret_key)); /* at once: no copy stays behind */
	if (r < 0)
		return r;
	bytes_add_text(&secret, "AWS4");
	bytes_add_text(&secret, credentials->secret_key);
	sigv4_hmac(secret.data, secret.len, time, DATE_LEN, ret_key);
	for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
		sigv4_hmac(ret_key, SHA256_SIZE, steps[i], strlen(steps[i]), ret_key);
	explicit_bzero(secret.data, secret.len);
	bytes_done(&secret);
	return 0;
}

static int sign(const struct sigv4_credentials *credentials, const char *time, const struct bytes *text,
                char ret_hex[SHA256_HEX])
{
	uint8_t key[SHA256_SIZE], mac[SHA256_SIZE];
	int r = derive_key(credentials, time, key);

	if (r < 0)
		return r;
	sigv4_hmac(key, sizeof key, text->data, text->len, mac);
	sha256_hex(mac, 2 * SHA256_SIZE, ret_hex);
	explicit_bzero(key, sizeof key);
	return 0;
}

int sigv4_authorization(const struct sigv4_request *request, const struct sigv4_credentials *credentials,
                        const char *time, struct bytes *ret_value)
{
	char hash[SHA256_HEX], signature[SHA256_HEX];
	struct bytes names, scope, text;
	int r;

	assert(strlen(time) == SIGV4_TIME_MAX - 1);
	bytes_init(&names, SIGNED_MAX);
	bytes_init(&scope, SCOPE_MAX);
	bytes_init(&text, SCOPE_MAX + SHA256_HEX + 64);
	r = add_names(&names, request);
	if (r == 0)
		r = bytes_printf(&scope, "%.*s/%s/%s/aws4_request", DATE_LEN, time, credentials->region,
		                 credentials->service);
	if (r == 0) {
		hash_request(request, &names, hash);
		r = bytes_printf(&text, ALGORITHM "\n%s\n%.*s\n%s", time, (int)scope.len, (char *)scope.data, hash);
	}
	if (r == 0)
		r = sign(credentials, time, &text, signature);
	if (r == 0)
		r = bytes_printf(ret_value, ALGORITHM " Credential=%s/%.*s, SignedHeaders=%.*s, Signature=%s",
		                 credentials->access_key, (int)scope.len, (char *)scope.data, (int)names.len,
		                 (char *)names.data, signature);
	bytes_done(&names);
	bytes_done(&scope);
	bytes_done(&text);
	return r;
}
