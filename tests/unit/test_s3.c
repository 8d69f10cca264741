/* SPDX-License-Identifier: Apache-2.0 */
/* Settings and requests of the store `s3`. The signatures are botocore 1.43's, of the same requests. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "buffer/store.h"
#include "buffer/store_file.h"
#include "buffer/store_s3.h"

#define NOW    INT64_C(1795255320123) /* 2026-11-21T10:02:00.123Z */
#define KEY    "source=parking/dt=2026-11-21/pi-01-9f8e7d6c-1042-1141-d2645bd7.ndjson.gz"
#define SHA256 "d2645bd730d06cb017820a4a54b53cebf0ad59204a76beb88573c5a90011ec47"
#define BASE64 "0mRb1zDQbLAXggpKVLU86/CtWSBKdr64hXPFqQAR7Ec="
#define EMPTY  "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define ACCESS "AKIAIOSFODNN7EXAMPLE"
#define SECRET "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"

/* All that keys and prefixes may hold: = space + % : and UTF-8. */
#define STRANGE         "land ing/a=b+c%d:e/\xc3\xa5\xe2\x82\xac"
#define STRANGE_IN_PATH "land%20ing/a%3Db%2Bc%25d%3Ae/%C3%A5%E2%82%AC"
#define STRANGE_IN_LIST "land%20ing%2Fa%3Db%2Bc%25d%3Ae%2F%C3%A5%E2%82%AC"
#define KEY_IN_PATH     "source%3Dparking/dt%3D2026-11-21/pi-01-9f8e7d6c-1042-1141-d2645bd7.ndjson.gz"

struct box {
	struct s3_settings settings;
	struct s3 *s3;
	struct batch batch;
	struct s3_request request;
	struct err err;
};

static void set(struct box *box, const char *name, const char *value)
{
	const struct option *option = option_find(store_kind_s3.options, name);

	assert_non_null(option);
	if (option_set(option, &box->settings, value, &box->err) < 0)
		fail_msg("%s: %s", name, box->err.text);
}

static void make(struct box *box)
{
	assert_int_equal(s3_new(&box->settings, ACCESS, SECRET, &box->s3), 0);
}

static int set_up(void **state)
{
	static struct box box;
	static const char digits[] = "0123456789abcdef";

	memset(&box, 0, sizeof box);
	*state = &box;
	if (option_defaults(store_kind_s3.options, &box.settings) < 0)
		return -1;
	set(&box, "endpoint", "http://minio.lan:9000");
	set(&box, "bucket", "lake");
	set(&box, "prefix", STRANGE);
	snprintf(box.batch.key, sizeof box.batch.key, "%s", KEY);
	box.batch.first_seq = 1042;
	box.batch.last_seq = 1141;
	box.batch.records = 100;
	box.batch.raw_bytes = 5000;
	box.batch.bytes = 15;
	box.batch.sealed_ms = NOW - 1000;
	for (int i = 0; i < SHA256_SIZE; i++)
		box.batch.sha256[i] = (uint8_t)((strchr(digits, SHA256[2 * i]) - digits) << 4 |
		                                (strchr(digits, SHA256[2 * i + 1]) - digits));
	return 0;
}

static int tear_down(void **state)
{
	struct box *box = *state;

	s3_request_done(&box->request);
	s3_free(box->s3);
	option_done(store_kind_s3.options, &box->settings);
	return 0;
}

/* --- Settings --- */

static void refuses(struct box *box, const char *name, const char *value, const char *why)
{
	const struct option *option = option_find(store_kind_s3.options, name);

	box->err.text[0] = '\0';
	assert_int_equal(option_set(option, &box->settings, value, &box->err), -EINVAL);
	if (!strstr(box->err.text, why))
		fail_msg("%s = \"%s\": %s", name, value, box->err.text);
}

static void test_kinds(void **state)
{
	struct store_file_settings settings = { 0 };
	struct err err;
	char *place;

	(void)state;
	assert_ptr_equal(store_kinds[0], &store_kind_file);
	assert_ptr_equal(store_kinds[1], &store_kind_s3);
	assert_null(store_kinds[2]);
	assert_string_equal(store_kind_file.kind, "file");
	assert_string_equal(store_kind_s3.kind, "s3");
	assert_int_equal(option_set(store_kind_file.options, &settings, "", &err), -EINVAL);
	assert_int_equal(option_set(store_kind_file.options, &settings, "/mnt/usb", &err), 0);
	assert_true(store_kind_file.options[0].required);
	place = store_kind_file.place(&settings);
	assert_string_equal(place, "/mnt/usb");
	free(place);
	option_done(store_kind_file.options, &settings);
}

static void test_defaults(void **state)
{
	static const char *const required[] = { "endpoint", "bucket", "access_key", "secret_key" };
	struct s3_settings settings = { 0 };

	(void)state;
	assert_int_equal(option_defaults(store_kind_s3.options, &settings), 0);
	assert_string_equal(settings.region, "us-east-1");
	assert_string_equal(settings.prefix, "");
	assert_null(settings.ca_file);
	assert_int_equal(settings.parallel, 2);
	assert_int_equal(settings.upload_rate, 0);
	assert_int_equal(settings.timeout_ms, 60000);
	assert_false(settings.virtual_host);
	for (const struct option *o = store_kind_s3.options; o->name; o++) {
		bool expected = false;

		for (size_t i = 0; i < sizeof required / sizeof *required; i++)
			expected = expected || strcmp(required[i], o->name) == 0;
		assert_int_equal(o->required, expected);
		assert_int_equal(o->secret, strstr(o->name, "_key") != NULL);
		assert_int_equal(o->path, strcmp(o->name, "ca_file") == 0);
	}
	option_done(store_kind_s3.options, &settings);
}

static void test_endpoint(void **state)
{
	struct box *box = *state;

	set(box, "endpoint", "https://s3.eu-central-1.amazonaws.com");
	set(box, "endpoint", "HTTP://127.0.0.1:1/");
	set(box, "endpoint", "http://[::1]:65535/a/b-c._~/");
	set(box, "endpoint", "http://[fe80::1%25eth0]");
	refuses(box, "endpoint", "", "http:// or https://");
	refuses(box, "endpoint", "minio.lan:9000", "http://minio.lan:9000");
	refuses(box, "endpoint", "ftp://minio.lan", "http:// or https://");
	refuses(box, "endpoint", "http://", "no host");
	refuses(box, "endpoint", "http:///path", "no host");
	refuses(box, "endpoint", "http://a b", "host");
	refuses(box, "endpoint", "http://[::1", "host");
	refuses(box, "endpoint", "http://[]", "host");
	refuses(box, "endpoint", "http://[::1]x", "host");
	refuses(box, "endpoint", "http://h:", "port");
	refuses(box, "endpoint", "http://h:0", "port");
	refuses(box, "endpoint", "http://h:65536", "port");
	refuses(box, "endpoint", "http://h:99999999999999999999", "port");
	refuses(box, "endpoint", "http://h:9x", "port");
	refuses(box, "endpoint", "http://h/?list", "?");
	refuses(box, "endpoint", "http://h/#top", "#");
	refuses(box, "endpoint", "http://h//a", "empty");
	refuses(box, "endpoint", "http://h//", "empty");
	refuses(box, "endpoint", "http://h/a/../b", "..");
	refuses(box, "endpoint", "http://h/.", "..");
	refuses(box, "endpoint", "http://h/a%20b", "letters");
	refuses(box, "endpoint", "http://h/a=b", "letters");
	refuses(box, "endpoint", "http://user:hush@h", "access_key");
	assert_null(strstr(box->err.text, "hush"));
	refuses(box, "endpoint", "user:hush@h", "access_key");
	assert_null(strstr(box->err.text, "hush"));
	char longest[256] = "http://h/";
	memset(longest + 9, 'a', 191);
	set(box, "endpoint", longest);
	longest[200] = 'a';
	refuses(box, "endpoint", longest, "longer than 200");
}

static void test_names(void **state)
{
	struct box *box = *state;

	set(box, "bucket", "abc");
	set(box, "bucket", "a.b-3");
	refuses(box, "bucket", "ab", "3 to 63");
	refuses(box, "bucket", "Lake", "small letters");
	refuses(box, "bucket", "my_lake", "small letters");
	refuses(box, "bucket", "-lake", "begins");
	refuses(box, "bucket", "lake.", "ends");
	refuses(box, "bucket", "la..ke", "bucket");
	refuses(box, "bucket", "a123456789012345678901234567890123456789012345678901234567890123", "3 to 63");
	set(box, "region", "auto");
	refuses(box, "region", "", "us-east-1");
	refuses(box, "region", "eu/west", "us-east-1");
	set(box, "prefix", "");
	set(box, "prefix", "a");
	set(box, "prefix", "a/.b/..c/d..");
	refuses(box, "prefix", "/a", "slash");
	refuses(box, "prefix", "a/", "slash");
	refuses(box, "prefix", "/", "slash");
	refuses(box, "prefix", "a//b", "empty");
	refuses(box, "prefix", "a/./b", "empty");
	refuses(box, "prefix", "..", "empty");
	refuses(box, "prefix", "a/..", "empty");
	refuses(box, "prefix", "a\nb", "control");
	refuses(box, "parallel", "0", "");
	refuses(box, "parallel", "17", "");
	refuses(box, "timeout", "500ms", "");
	refuses(box, "timeout", "2h", "");
	refuses(box, "access_key", "", "");
	refuses(box, "secret_key", "", "");
	refuses(box, "ca_file", "", "empty");
	char longest[202];
	memset(longest, 'a', 201);
	longest[201] = '\0';
	refuses(box, "prefix", longest, "longer than 200");
	set(box, "prefix", longest + 1);
}

static void is_place(struct box *box, const char *expected)
{
	char *place = store_kind_s3.place(&box->settings);

	assert_string_equal(place, expected);
	free(place);
}

static void test_place(void **state)
{
	struct box *box = *state;

	is_place(box, "http://minio.lan:9000/lake/" STRANGE);
	set(box, "endpoint", "https://h/s3/");
	is_place(box, "https://h/s3/lake/" STRANGE);
	set(box, "prefix", "");
	is_place(box, "https://h/s3/lake");
}

/* --- Requests --- */

/* The value of a header, which stands there once. */
static const char *header(const struct box *box, const char *name)
{
	const char *value = NULL;
	size_t len = strlen(name);

	for (char **h = box->request.headers; *h; h++) {
		if (strncmp(*h, name, len) == 0 && strncmp(*h + len, ": ", 2) == 0) {
			assert_null(value);
			value = *h + len + 2;
		}
	}
	return value ? value : "";
}

static void is_signed(const struct box *box, const char *names, const char *signature)
{
	char expected[1024];

	snprintf(expected, sizeof expected,
	         "AWS4-HMAC-SHA256 Credential=" ACCESS "/20261121/us-east-1/s3/aws4_request, SignedHeaders=%s, "
	         "Signature=%s",
	         names, signature);
	assert_string_equal(header(box, "authorization"), expected);
}

static void test_put(void **state)
{
	struct box *box = *state;

	make(box);
	assert_int_equal(s3_put(box->s3, &box->batch, true, NOW, &box->request), 0);
	assert_string_equal(box->request.method, "PUT");
	assert_string_equal(box->request.url, "http://minio.lan:9000/lake/" STRANGE_IN_PATH "/" KEY_IN_PATH);
	assert_string_equal(header(box, "host"), "minio.lan:9000");
	assert_string_equal(header(box, "content-type"), "application/gzip");
	assert_string_equal(header(box, "content-encoding"), "");
	assert_string_equal(header(box, "if-none-match"), "*");
	assert_string_equal(header(box, "x-amz-content-sha256"), SHA256);
	assert_string_equal(header(box, "x-amz-checksum-sha256"), BASE64);
	assert_string_equal(header(box, "x-amz-date"), "20261121T100200Z");
	assert_string_equal(header(box, "x-amz-meta-millrace-records"), "100");
	assert_string_equal(header(box, "x-amz-meta-millrace-first-seq"), "1042");
	assert_string_equal(header(box, "x-amz-meta-millrace-last-seq"), "1141");
	assert_string_equal(header(box, "x-amz-meta-millrace-raw-bytes"), "5000");
	assert_string_equal(header(box, "x-amz-meta-millrace-sealed"), "2026-11-21T10:01:59.123Z");
	assert_string_equal(header(box, "x-amz-meta-millrace-sha256"), SHA256);
	is_signed(box,
	          "content-type;host;if-none-match;x-amz-checksum-sha256;x-amz-content-sha256;x-amz-date;"
	          "x-amz-meta-millrace-first-seq;x-amz-meta-millrace-last-seq;x-amz-meta-millrace-raw-bytes;"
	          "x-amz-meta-millrace-records;x-amz-meta-millrace-sealed;x-amz-meta-millrace-sha256",
	          "90ef813c646db4abc5fe5354fd93e24d772564e8181e8cbf9931cf089ad8f7f8");
	s3_request_done(&box->request);
	assert_int_equal(s3_put(box->s3, &box->batch, false, NOW, &box->request), 0);
	assert_string_equal(header(box, "if-none-match"), "");
	assert_null(strstr(header(box, "authorization"), "if-none-match"));
}

static void test_put_small(void **state)
{
	struct box *box = *state;

	make(box);
	assert_int_equal(s3_put_small(box->s3, "_runs/parking/0198/manifest.json", box->batch.sha256,
	                              "application/json", NOW, &box->request),
	                 0);
	assert_string_equal(box->request.method, "PUT");
	assert_string_equal(box->request.url,
	                    "http://minio.lan:9000/lake/" STRANGE_IN_PATH "/_runs/parking/0198/manifest.json");
	assert_string_equal(header(box, "content-type"), "application/json");
	assert_string_equal(header(box, "if-none-match"), "");
	assert_string_equal(header(box, "x-amz-content-sha256"), SHA256);
	assert_string_equal(header(box, "x-amz-checksum-sha256"), BASE64);
	is_signed(box, "content-type;host;x-amz-checksum-sha256;x-amz-content-sha256;x-amz-date",
	          "9b59e8f4a2eacb3e759f75ef5cbcd4531f0da38dd89535f596e0450e2d326e71");
}

static void test_head_and_get(void **state)
{
	struct box *box = *state;

	make(box);
	assert_int_equal(s3_head(box->s3, KEY, NOW, &box->request), 0);
	assert_string_equal(box->request.method, "HEAD");
	assert_string_equal(box->request.url, "http://minio.lan:9000/lake/" STRANGE_IN_PATH "/" KEY_IN_PATH);
	assert_string_equal(header(box, "x-amz-checksum-mode"), "ENABLED");
	assert_string_equal(header(box, "x-amz-content-sha256"), EMPTY);
	is_signed(box, "host;x-amz-checksum-mode;x-amz-content-sha256;x-amz-date",
	          "31e60e106bb35698fe89a485f657d97a53fecdb9f6d86d56d684eaeb7ca65991");
	s3_request_done(&box->request);
	assert_int_equal(s3_get(box->s3, KEY, NOW, &box->request), 0);
	assert_string_equal(box->request.method, "GET");
	assert_string_equal(box->request.url, "http://minio.lan:9000/lake/" STRANGE_IN_PATH "/" KEY_IN_PATH);
	is_signed(box, "host;x-amz-content-sha256;x-amz-date",
	          "e3395682c591512ff82be7e254b986216c9ee62939e417013471fd5eda4c8f2a");
}

static void test_probe(void **state)
{
	struct box *box = *state;

	set(box, "prefix", "");
	make(box);
	assert_int_equal(s3_probe(box->s3, NOW, &box->request), 0);
	assert_string_equal(box->request.method, "PUT");
	assert_string_equal(box->request.url, "http://minio.lan:9000/lake/.millrace-probe");
	assert_string_equal(header(box, "if-none-match"), "*");
	assert_string_equal(header(box, "x-amz-content-sha256"),
	                    "99a70a72f2f67ddfe30959a941509c1ef7c1c32b7ee51b61c3f7fa9173d1f346");
	assert_string_equal(header(box, "x-amz-checksum-sha256"), "macKcvL2fd/jCVmpQVCcHvfBwyt+5Rthw/f6kXPR80Y=");
	is_signed(box, "content-type;host;if-none-match;x-amz-checksum-sha256;x-amz-content-sha256;x-amz-date",
	          "06fb457ae8ec34e6ec7b210e2e9a6a419be8e24eca8e31aa52777b557e54c185");
}

static void test_list(void **state)
{
	struct box *box = *state;

	make(box);
	assert_int_equal(s3_list(box->s3, "source=parking/", "1 ueG+/=", NOW, &box->request), 0);
	assert_string_equal(box->request.method, "GET");
	assert_string_equal(box->request.url,
	                    "http://minio.lan:9000/lake?continuation-token=1%20ueG%2B%2F%3D&encoding-type=url&"
	                    "list-type=2&max-keys=1000&prefix=" STRANGE_IN_LIST "%2Fsource%3Dparking%2F");
	is_signed(box, "host;x-amz-content-sha256;x-amz-date",
	          "327f0ea5a363d26d418b38a2cb6edbd8aa1bce5e00b71445c8320061e43b3425");
	s3_free(box->s3);
	s3_request_done(&box->request);
	set(box, "prefix", "");
	make(box);
	assert_int_equal(s3_list(box->s3, "", NULL, NOW, &box->request), 0);
	assert_string_equal(box->request.url,
	                    "http://minio.lan:9000/lake?encoding-type=url&list-type=2&max-keys=1000&prefix=");
}

static void goes_to(struct box *box, const char *endpoint, bool virtual_host, const char *url, const char *host)
{
	set(box, "endpoint", endpoint);
	set(box, "prefix", "p");
	box->settings.virtual_host = virtual_host;
	make(box);
	assert_int_equal(s3_get(box->s3, "k", NOW, &box->request), 0);
	assert_string_equal(box->request.url, url);
	assert_string_equal(header(box, "host"), host);
	s3_request_done(&box->request);
	s3_free(box->s3);
	box->s3 = NULL;
}

static void test_addresses(void **state)
{
	struct box *box = *state;

	goes_to(box, "http://minio.lan:9000/", false, "http://minio.lan:9000/lake/p/k", "minio.lan:9000");
	goes_to(box, "HTTPS://h/some/way/", false, "https://h/some/way/lake/p/k", "h");
	goes_to(box, "http://h:80", false, "http://h:80/lake/p/k", "h");
	goes_to(box, "https://h:443", false, "https://h:443/lake/p/k", "h");
	goes_to(box, "https://h:80", false, "https://h:80/lake/p/k", "h:80");
	goes_to(box, "http://[::1]:9000", false, "http://[::1]:9000/lake/p/k", "[::1]:9000");
	goes_to(box, "http://[fe80::1%25eth0]:9000", false, "http://[fe80::1%25eth0]:9000/lake/p/k", "[fe80::1]:9000");
	goes_to(box, "https://s3.example.com", true, "https://lake.s3.example.com/p/k", "lake.s3.example.com");
	goes_to(box, "http://h:9000/way", true, "http://lake.h:9000/way/p/k", "lake.h:9000");
	set(box, "endpoint", "https://h");
	box->settings.virtual_host = true;
	make(box);
	assert_int_equal(s3_list(box->s3, "", NULL, NOW, &box->request), 0);
	assert_string_equal(box->request.url,
	                    "https://lake.h/?encoding-type=url&list-type=2&max-keys=1000&prefix=p%2F");
}

/* A token that no S3 gives: the request is not made, and nothing is left of it. */
static void test_too_long(void **state)
{
	struct box *box = *state;
	char token[4000];

	memset(token, '%', sizeof token - 1);
	token[sizeof token - 1] = '\0';
	make(box);
	assert_int_equal(s3_list(box->s3, "", token, NOW, &box->request), -ENOBUFS);
	assert_null(box->request.url);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_kinds, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_defaults, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_endpoint, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_names, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_place, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_put, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_put_small, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_head_and_get, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_probe, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_list, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_addresses, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_too_long, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
