/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "buffer/object.h"

static const struct envelope sample = {
	.source = "stavanger-parking",
	.device = "pi-01",
	.boot = "9f8e7d6c",
	.seq = 1042,
	.fetch = 117,
	.wall_ms = INT64_C(1795255320123),
	.clock = "synced",
};

static void test_a_line_is_what_the_interface_says(void **state)
{
	struct bytes out;
	const char *data = "{\"b\":1e999,\"b\": 123456789012345678901234567890,\"\\ud800\":null}";
	const char *line = "{\"source\":\"stavanger-parking\",\"device\":\"pi-01\",\"boot\":\"9f8e7d6c\",\"seq\":1042,"
	                   "\"fetch\":117,\"fetched_at\":\"2026-11-21T10:02:00.123Z\",\"clock\":\"synced\",\"data\":"
	                   "{\"b\":1e999,\"b\": 123456789012345678901234567890,\"\\ud800\":null}}\n";

	(void)state;
	bytes_init(&out, 4096);
	assert_int_equal(object_line(&out, &sample, data, strlen(data)), 0);
	assert_int_equal(out.len, strlen(line));
	assert_memory_equal(out.data, line, out.len);
	assert_int_equal(object_line(&out, &sample, data, strlen(data)), 0);
	assert_int_equal(out.len, 2 * strlen(line));
	bytes_done(&out);
}

static void test_its_length_is_known_beforehand(void **state)
{
	static const uint64_t numbers[] = { 0, 1, 9, 10, 99, 100, 999999, UINT64_C(1) << 40, UINT64_MAX };
	static const int64_t times[] = { INT64_MIN, -1, 0, INT64_C(1795255320123), INT64_MAX };
	struct envelope e = sample;
	struct bytes out;

	(void)state;
	bytes_init(&out, 4096);
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
		for (size_t j = 0; j < sizeof times / sizeof *times; j++) {
			e.seq = numbers[i];
			e.fetch = numbers[sizeof numbers / sizeof *numbers - 1 - i];
			e.wall_ms = times[j];
			bytes_clear(&out);
			assert_int_equal(object_line(&out, &e, "[1]", 3), 0);
			assert_int_equal(out.len, object_line_len(&e, 3));
		}
	}
	bytes_done(&out);
}

static void test_a_line_that_does_not_fit_leaves_no_trace(void **state)
{
	struct bytes out;

	(void)state;
	bytes_init(&out, object_line_len(&sample, 3) + 1);
	assert_int_equal(bytes_add(&out, "abc", 3), 0);
	assert_int_equal(object_line(&out, &sample, "[1]", 3), -ENOBUFS);
	assert_int_equal(out.len, 3);
	bytes_done(&out);
}

static void test_key(void **state)
{
	const uint8_t sha256[SHA256_SIZE] = { 0x2f, 0x0a, 0xbc, 0xde, 0xff };
	char key[OBJECT_KEY_MAX], name[64];
	struct envelope e = sample;

	(void)state;
	object_key(key, &sample, 2041, sha256);
	assert_string_equal(key, "source=stavanger-parking/dt=2026-11-21/"
	                         "pi-01-9f8e7d6c-1042-2041-2f0abcde.ndjson.gz");
	/* The longest names and numbers there can be. */
	memset(name, 'a', 63);
	name[63] = '\0';
	e.source = e.device = name;
	e.seq = UINT64_MAX;
	object_key(key, &e, UINT64_MAX, sha256);
	assert_true(strlen(key) < OBJECT_KEY_MAX - 1);
	assert_string_equal(key + strlen(key) - 19, "-2f0abcde.ndjson.gz");
}

/* Against sha256sum of both texts put together. */
static void test_boot(void **state)
{
	char boot[OBJECT_BOOT];

	(void)state;
	object_boot(boot, "2c9f8b7a-1111-4222-8333-444455556666", "0123456789abcdef0123456789abcdef");
	assert_string_equal(boot, "79bfd862");
}

static void test_a_key_is_read_back(void **state)
{
	static const char key[] = "source=stavanger-parking/dt=2026-11-21/my-pi-01.home-9f8e7d6c-1042-2041-2f0abcde"
	                          ".ndjson.gz";
	static const char *const wrong[] = {
		"",
		"source=a",
		".millrace-probe",
		"source=a/dt=2026-11-21/pi-9f8e7d6c-1-2-2f0abcde.ndjson",
		"source=A/dt=2026-11-21/pi-9f8e7d6c-1-2-2f0abcde.ndjson.gz",
		"source=/dt=2026-11-21/pi-9f8e7d6c-1-2-2f0abcde.ndjson.gz",
		"source=a/d=2026-11-21/pi-9f8e7d6c-1-2-2f0abcde.ndjson.gz",
		"source=a/dt=2026-02-30/pi-9f8e7d6c-1-2-2f0abcde.ndjson.gz",
		"source=a/dt=2026-11-2/pi-9f8e7d6c-1-2-2f0abcde.ndjson.gz",
		"source=a/dt=2026-11-21/x/pi-9f8e7d6c-1-2-2f0abcde.ndjson.gz",
		"source=a/dt=2026-11-21/9f8e7d6c-1-2-2f0abcde.ndjson.gz",
		"source=a/dt=2026-11-21/-9f8e7d6c-1-2-2f0abcde.ndjson.gz",
		"source=a/dt=2026-11-21/pi-9F8E7D6C-1-2-2f0abcde.ndjson.gz",
		"source=a/dt=2026-11-21/pi-9f8e7d6-1-2-2f0abcde.ndjson.gz",
		"source=a/dt=2026-11-21/pi-9f8e7d6c-01-2-2f0abcde.ndjson.gz",
		"source=a/dt=2026-11-21/pi-9f8e7d6c-0-2-2f0abcde.ndjson.gz",
		"source=a/dt=2026-11-21/pi-9f8e7d6c-3-2-2f0abcde.ndjson.gz",
		"source=a/dt=2026-11-21/pi-9f8e7d6c--2-2f0abcde.ndjson.gz",
		"source=a/dt=2026-11-21/pi-9f8e7d6c-1-9223372036854775808-2f0abcde.ndjson.gz",
		"source=a/dt=2026-11-21/pi-9f8e7d6c-1-2-2f0abcde1.ndjson.gz",
		"source=a/dt=2026-11-21/pi-9f8e7d6c-1-2-2f0abcde.ndjson.gz.tmp",
		"source=a/dt=2026-11-21/pi-9f8e7d6c-1-2-2f0abcde.ndjson.gz ",
	};
	struct object_name name;

	(void)state;
	assert_int_equal(object_read_key(key, &name), 0);
	assert_string_equal(name.source, "stavanger-parking");
	assert_string_equal(name.device, "my-pi-01.home");
	assert_string_equal(name.boot, "9f8e7d6c");
	assert_string_equal(name.sha8, "2f0abcde");
	assert_int_equal(name.day, 20778);
	assert_int_equal(name.first_seq, 1042);
	assert_int_equal(name.last_seq, 2041);
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		if (object_read_key(wrong[i], &name) != -EINVAL)
			fail_msg("taken: %s", wrong[i]);
	}
	assert_int_equal(object_read_key("source=_polls/dt=2026-11-21/pi-9f8e7d6c-1-1-2f0abcde.ndjson.gz", &name), 0);
	assert_string_equal(name.source, "_polls");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_line_is_what_the_interface_says),
		cmocka_unit_test(test_its_length_is_known_beforehand),
		cmocka_unit_test(test_a_line_that_does_not_fit_leaves_no_trace),
		cmocka_unit_test(test_key),
		cmocka_unit_test(test_a_key_is_read_back),
		cmocka_unit_test(test_boot),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
