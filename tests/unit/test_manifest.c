/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <jansson.h>

#include "mill/manifest.h"

static const struct ledger_run run = { .id = "0198aa10f3b2c4d5e6f708192a3b4c5d",
	                               .job = "parking",
	                               .created_ms = INT64_C(1795262400123) };
static const struct manifest_store s3 = {
	.kind = "s3", .endpoint = "http://minio.lan:9000", .region = "us-east-1", .bucket = "lake", .prefix = "landing"
};

static struct ledger_object object_of(const char *source, uint64_t first, uint64_t last)
{
	struct ledger_object o = { .day = 20778, .first_seq = first, .last_seq = last, .bytes = 4711 };
	snprintf(o.source, sizeof o.source, "%s", source);
	snprintf(o.key, sizeof o.key, "source=%s/dt=2026-11-21/pi-01-9f8e7d6c-%d-%d-00010203.ndjson.gz", source,
	         (int)first, (int)last);
	for (size_t i = 0; i < sizeof o.sha256; i++)
		o.sha256[i] = (uint8_t)i;
	return o;
}

static void make(struct bytes *json, const struct manifest_store *store)
{
	struct ledger_object a = object_of("stavanger-parking", 1, 1042), b = object_of("_polls", 7, 7);
	assert_int_equal(manifest_begin(json, &run, "pi-01", store), 0);
	assert_int_equal(manifest_add(json, &a, store), 0);
	assert_int_equal(manifest_add(json, &b, store), 0);
	assert_int_equal(manifest_end(json), 0);
}

#define HASH "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

static void test_to_the_byte(void **state)
{
	(void)state;
	static const char expected[] =
	        "{\"version\":1,\"run\":\"0198aa10f3b2c4d5e6f708192a3b4c5d\",\"job\":\"parking\",\"device\":\"pi-01\","
	        "\"created_at\":\"2026-11-21T12:00:00.123Z\",\n"
	        "\"store\":{\"kind\":\"s3\",\"endpoint\":\"http://minio.lan:9000\",\"region\":\"us-east-1\","
	        "\"bucket\":\"lake\",\"path\":null},\"objects\":[\n"
	        "{\"key\":\"landing/source=stavanger-parking/dt=2026-11-21/"
	        "pi-01-9f8e7d6c-1-1042-00010203.ndjson.gz\",\"bytes\":4711,\"sha256\":\"" HASH "\","
	        "\"source\":\"stavanger-parking\",\"dt\":\"2026-11-21\",\"first_seq\":1,\"last_seq\":1042,"
	        "\"records\":1042},\n"
	        "{\"key\":\"landing/source=_polls/dt=2026-11-21/pi-01-9f8e7d6c-7-7-00010203.ndjson.gz\","
	        "\"bytes\":4711,\"sha256\":\"" HASH "\",\"source\":\"_polls\",\"dt\":\"2026-11-21\",\"first_seq\":7,"
	        "\"last_seq\":7,\"records\":1}\n]}\n";
	struct bytes json;
	bytes_init(&json, MANIFEST_MAX);
	for (int i = 0; i < 2; i++) {
		make(&json, &s3);
		assert_int_equal(json.len, strlen(expected));
		assert_memory_equal(json.data, expected, json.len);
	}
	bytes_done(&json);
}

static void test_texts_of_the_user(void **state)
{
	(void)state;
	const char *path = "/mnt/\"disk\" \\ æ\t\x01\x7f", *region = "";
	struct manifest_store store = { .kind = "file", .path = path, .region = region, .prefix = "" };
	struct bytes json;
	bytes_init(&json, MANIFEST_MAX);
	make(&json, &store);
	json_t *root = json_loadb((char *)json.data, json.len, JSON_REJECT_DUPLICATES, NULL);
	assert_non_null(root);
	json_t *there = json_object_get(root, "store");
	assert_string_equal(json_string_value(json_object_get(there, "path")), path);
	assert_string_equal(json_string_value(json_object_get(there, "region")), "");
	assert_true(json_is_null(json_object_get(there, "bucket")));
	json_t *first = json_array_get(json_object_get(root, "objects"), 0);
	assert_memory_equal(json_string_value(json_object_get(first, "key")), "source=", 7);
	json_decref(root);
	store.path = "/mnt/\xe6";
	assert_int_equal(manifest_begin(&json, &run, "pi-01", &store), -EILSEQ);
	bytes_done(&json);
}

static void test_no_objects(void **state)
{
	(void)state;
	struct bytes json;
	bytes_init(&json, MANIFEST_MAX);
	assert_int_equal(manifest_begin(&json, &run, "pi-01", &s3), 0);
	assert_int_equal(manifest_end(&json), 0);
	json_t *root = json_loadb((char *)json.data, json.len, 0, NULL);
	assert_int_equal(json_array_size(json_object_get(root, "objects")), 0);
	json_decref(root);
	bytes_done(&json);
}

static void test_what_does_not_fit_is_not_in_it(void **state)
{
	(void)state;
	struct ledger_object object = object_of("stavanger-parking", 1, 2);
	struct bytes json;
	bytes_init(&json, 1000);
	assert_int_equal(manifest_begin(&json, &run, "pi-01", &s3), 0);
	int rc, n = 0;
	size_t len;
	do
		len = json.len;
	while ((rc = manifest_add(&json, &object, &s3)) == 0 && ++n < 100);
	assert_int_equal(rc, -ENOBUFS);
	assert_true(n > 0);
	assert_int_equal(json.len, len);
	assert_int_equal(manifest_end(&json), 0);
	json_t *root = json_loadb((char *)json.data, json.len, 0, NULL);
	assert_int_equal(json_array_size(json_object_get(root, "objects")), n);
	json_decref(root);
	bytes_done(&json);
}

/* The longest keys there may be, as many as a run may have. */
static void test_the_largest(void **state)
{
	(void)state;
	struct ledger_object object = object_of("s", UINT64_MAX - 1, UINT64_MAX);
	char prefix[200];
	memset(prefix, 'p', sizeof prefix - 1);
	prefix[sizeof prefix - 1] = '\0';
	memset(object.key, 'k', sizeof object.key - 1);
	memset(object.source, 's', sizeof object.source - 1);
	object.bytes = UINT64_MAX;
	struct manifest_store store = s3;
	store.prefix = prefix;
	struct bytes json;
	bytes_init(&json, MANIFEST_MAX);
	assert_int_equal(manifest_begin(&json, &run, "pi-01", &store), 0);
	for (int i = 0; i < LEDGER_OBJECTS; i++)
		assert_int_equal(manifest_add(&json, &object, &store), 0);
	assert_int_equal(manifest_end(&json), 0);
	bytes_done(&json);
}

static void test_keys(void **state)
{
	(void)state;
	char key[OBJECT_KEY_MAX];
	manifest_key(&run, "log.gz", key);
	assert_string_equal(key, "_runs/parking/0198aa10f3b2c4d5e6f708192a3b4c5d/log.gz");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_to_the_byte), cmocka_unit_test(test_texts_of_the_user),
		cmocka_unit_test(test_no_objects),  cmocka_unit_test(test_what_does_not_fit_is_not_in_it),
		cmocka_unit_test(test_the_largest), cmocka_unit_test(test_keys),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
