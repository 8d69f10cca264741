/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "api/view.h"

#define NOW_MS 1795255320123 /* 2026-11-21T10:02:00.123Z */

static const struct source_view source = {
	.name = "parking",
	.kind = "rest",
	.origin = "https://example.org/parking.json",
	.state = "fresh",
	.last_answer_ms = NOW_MS,
	.polls = 9,
	.unchanged = 5,
	.refused = 1,
	.failed = 2,
	.records = 9007199254740993, /* 2^53 + 1: no double on the way */
	.fetches = 4,
	.unsealed_records = 18,
	.waiting_batches = 1,
	.waiting_records = 27,
	.dropped_records = 12,
	.damaged_records = 3,
	.oldest_ms = NOW_MS - 1,
	.last_error = "a \"quoted\" error",
};

/* Text, keys in their order: what docs/api.md promises. */
static void assert_json(json_t *json, const char *expected)
{
	char *text = json_dumps(json, JSON_COMPACT);
	assert_non_null(text);
	assert_string_equal(text, expected);
	free(text);
	json_decref(json);
}

static void test_sources(void **state)
{
	(void)state;
	struct source_view sources[2] = { source, { .name = "new", .state = "waiting" } };
	struct status_view view = { .now_ms = NOW_MS, .sources = sources, .n_sources = 2 };
	assert_json(view_sources(&view),
	            "{\"now\":\"2026-11-21T10:02:00.123Z\",\"sources\":["
	            "{\"name\":\"parking\",\"kind\":\"rest\",\"origin\":\"https://example.org/parking.json\","
	            "\"state\":\"fresh\",\"last_answer\":\"2026-11-21T10:02:00.123Z\",\"last_change\":null,"
	            "\"next_poll\":null,\"polls\":9,\"unchanged\":5,\"refused\":1,\"failed\":2,"
	            "\"records\":9007199254740993,\"fetches\":4,\"unsealed_records\":18,\"waiting_batches\":1,"
	            "\"waiting_records\":27,\"dropped_records\":12,\"damaged_records\":3,\"oldest\":\"2026-11-21T10:02:"
	            "00.122Z\","
	            "\"last_error\":\"a \\\"quoted\\\" error\"},"
	            "{\"name\":\"new\",\"kind\":\"\",\"origin\":\"\",\"state\":\"waiting\",\"last_answer\":null,"
	            "\"last_change\":null,\"next_poll\":null,\"polls\":0,\"unchanged\":0,\"refused\":0,\"failed\":0,"
	            "\"records\":0,\"fetches\":0,\"unsealed_records\":0,\"waiting_batches\":0,\"waiting_records\":0,"
	            "\"dropped_records\":0,\"damaged_records\":0,\"oldest\":null,\"last_error\":\"\"}]}");
}

static void test_stores(void **state)
{
	(void)state;
	struct store_view store = {
		.name = "disk",
		.kind = "file",
		.place = "/mnt/usb/lake",
		.state = "away",
		.waiting_batches = 2,
		.waiting_bytes = 4096,
		.parked_batches = 1,
		.delivered_batches = 7,
		.last_delivered_ms = NOW_MS - 123,
		.next_try_ms = NOW_MS + 877,
		.last_error = "not mounted",
	};
	struct status_view view = { .now_ms = NOW_MS, .stores = &store, .n_stores = 1 };
	assert_json(view_stores(&view),
	            "{\"now\":\"2026-11-21T10:02:00.123Z\",\"stores\":["
	            "{\"name\":\"disk\",\"kind\":\"file\",\"place\":\"/mnt/usb/lake\",\"state\":\"away\","
	            "\"waiting_batches\":2,\"waiting_bytes\":4096,\"parked_batches\":1,\"delivered_batches\":7,"
	            "\"last_delivered\":\"2026-11-21T10:02:00.000Z\",\"next_try\":\"2026-11-21T10:02:01.000Z\","
	            "\"last_error\":\"not mounted\"}]}");
}

static void test_batches(void **state)
{
	(void)state;
	struct batch batch = {
		.id = 3,
		.source = "parking",
		.key = "source=parking/dt=2026-11-21/x.ndjson.gz",
		.first_seq = 10,
		.last_seq = 18,
		.records = 9,
		.raw_bytes = 1800,
		.bytes = 400,
		.sha256 = { 0xAB, 0x01 },
		.sealed_ms = NOW_MS,
		.stores_done = 1,
		.stores_all = 2,
	};
	assert_json(
	        view_batches(&batch, 1),
	        "{\"batches\":[{\"id\":3,\"source\":\"parking\",\"key\":\"source=parking/dt=2026-11-21/x.ndjson.gz\","
	        "\"first_seq\":10,\"last_seq\":18,\"records\":9,\"raw_bytes\":1800,\"bytes\":400,"
	        "\"sha256\":\"ab01000000000000000000000000000000000000000000000000000000000000\","
	        "\"sealed\":\"2026-11-21T10:02:00.123Z\",\"delivered\":null,\"imported\":false,\"stores_done\":1,"
	        "\"stores_all\":2}]}");
	assert_json(view_batches(NULL, 0), "{\"batches\":[]}");
}

static struct status_view status_with_a_problem(void)
{
	static struct problem_view problem = { .what = "store \"disk\" is away", .remedy = "mount it" };
	return (struct status_view){
		.version = "0.1.0",
		.device = "pi-01",
		.boot = "9f8e7d6c",
		.now_ms = NOW_MS,
		.started_ms = NOW_MS - 60000,
		.buffer = { .path = "/var/lib/millrace/buffer.db",
		            .state = "full",
		            .on_full = "pause",
		            .file_bytes = 8192,
		            .wal_bytes = 4096,
		            .max_bytes = 16384,
		            .room_bytes = 1024,
		            .waiting_records = 45,
		            .waiting_batches = 1,
		            .oldest_ms = NOW_MS - 1,
		            .salvaged_ms = NOW_MS - 3,
		            .aside = "/var/lib/millrace/damaged-1",
		            .last_error = "" },
		.clock = { .state = "waiting", .unsynced_records = 18, .wait_until_ms = NOW_MS + 1 },
		.config = { .path = "/etc/x.conf",
		            .refused_ms = NOW_MS - 2,
		            .last_error = "x.conf:1: no",
		            .restart = "device = \"b\"" },
		.problems = &problem,
		.n_problems = 1,
	};
}

static void test_status(void **state)
{
	(void)state;
	struct status_view view = status_with_a_problem();
	assert_json(
	        view_status(&view),
	        "{\"version\":\"0.1.0\",\"device\":\"pi-01\",\"boot\":\"9f8e7d6c\","
	        "\"now\":\"2026-11-21T10:02:00.123Z\",\"started\":\"2026-11-21T10:01:00.123Z\",\"ok\":false,"
	        "\"problems\":[{\"what\":\"store \\\"disk\\\" is away\",\"remedy\":\"mount it\"}],"
	        "\"buffer\":{\"path\":\"/var/lib/millrace/buffer.db\",\"state\":\"full\",\"on_full\":\"pause\","
	        "\"file_bytes\":8192,\"wal_bytes\":4096,\"max_bytes\":16384,\"room_bytes\":1024,"
	        "\"waiting_records\":45,\"waiting_batches\":1,"
	        "\"oldest\":\"2026-11-21T10:02:00.122Z\",\"salvaged\":\"2026-11-21T10:02:00.120Z\","
	        "\"aside\":\"/var/lib/millrace/damaged-1\",\"last_error\":\"\"},"
	        "\"clock\":{\"state\":\"waiting\",\"unsynced_records\":18,"
	        "\"wait_until\":\"2026-11-21T10:02:00.124Z\"},"
	        "\"config\":{\"path\":\"/etc/x.conf\",\"refused\":\"2026-11-21T10:02:00.121Z\","
	        "\"last_error\":\"x.conf:1: no\",\"restart\":\"device = \\\"b\\\"\"},\"sources\":[],\"stores\":[]}");
}

static void test_ok_without_problems(void **state)
{
	(void)state;
	struct status_view view = status_with_a_problem();
	view.n_problems = 0;
	json_t *json = view_status(&view);
	assert_true(json_is_true(json_object_get(json, "ok")));
	assert_int_equal(json_array_size(json_object_get(json, "problems")), 0);
	json_decref(json);
}

/* The offset is of the bytes, the mark of the characters that are left of them. */
static void test_rejected(void **state)
{
	(void)state;
	static const char data[] = "[\"bl\xC3\xA5\", \xFF\0\x1b";
	struct rejected_view view = { .source = "parking",
		                      .cause = "no-json",
		                      .text = "no value at byte 1009",
		                      .at_ms = NOW_MS,
		                      .bytes = 5000,
		                      .start = 1000,
		                      .offset = 1009,
		                      .data = data,
		                      .len = sizeof data - 1 };
	assert_json(view_rejected(&view),
	            "{\"source\":\"parking\",\"at\":\"2026-11-21T10:02:00.123Z\",\"cause\":\"no-json\","
	            "\"text\":\"no value at byte 1009\",\"bytes\":5000,\"start\":1000,\"offset\":1009,"
	            "\"excerpt\":\"[\\\"bl\xC3\xA5\\\", \xEF\xBF\xBD\\u0000\\u001B\",\"mark\":8}");
}

static json_int_t mark_at(int64_t offset, const void *data, size_t len)
{
	struct rejected_view view = { .start = 10, .offset = offset, .data = data, .len = len };
	json_t *json = view_rejected(&view), *mark = json_object_get(json, "mark");
	json_int_t value = json_is_integer(mark) ? json_integer_value(mark) : -1;
	json_decref(json);
	return value;
}

static void test_marks(void **state)
{
	(void)state;
	assert_int_equal(mark_at(-1, "abc", 3), -1);
	assert_int_equal(mark_at(9, "abc", 3), -1);
	assert_int_equal(mark_at(10, "abc", 3), 0);
	assert_int_equal(mark_at(13, "abc", 3), 3);
	assert_int_equal(mark_at(14, "abc", 3), -1);
	assert_int_equal(mark_at(10, NULL, 0), 0);
	assert_int_equal(mark_at(11, "\xC3\xA5z", 3), 0); /* amid a character */
	assert_int_equal(mark_at(12, "\xE2\x82z", 3), 2); /* two bytes that are none */
	assert_int_equal(mark_at(12, "\xE2\x82", 2), 2);  /* cut off */
}

static void assert_text(const char *text, const char *expected)
{
	json_t *json = view_text(text);
	assert_string_equal(json_string_value(json), expected);
	json_decref(json);
}

/* Expected as RFC 3629 has it: overlong forms, surrogates, beyond U+10FFFF and cut ends are no UTF-8. */
static void test_text(void **state)
{
	(void)state;
	assert_text(NULL, "");
	assert_text("Store Stokkav\xC3\xA5n \xF0\x9F\x9A\x97", "Store Stokkav\xC3\xA5n \xF0\x9F\x9A\x97");
	assert_text("caf\xE9 \xC3\xA5", "caf\xEF\xBF\xBD \xC3\xA5");
	assert_text("\xC0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD");
	assert_text("\xE0\x9F\xBF", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
	assert_text("\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
	assert_text("\xF4\x90\x80\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
	assert_text("\xFF\xF4\x8F\xBF\xBF", "\xEF\xBF\xBD\xF4\x8F\xBF\xBF");
	assert_text("cut \xE2\x82", "cut \xEF\xBF\xBD\xEF\xBF\xBD");
}

static void test_done_frees_the_arrays(void **state)
{
	(void)state;
	struct status_view view = { .sources = calloc(2, sizeof *view.sources), .n_sources = 2 };
	view.stores = calloc(1, sizeof *view.stores);
	view.problems = calloc(1, sizeof *view.problems);
	view.n_stores = view.n_problems = 1;
	view_done(&view); /* the sanitizer's build tells a leak */
	assert_null(view.sources);
	assert_int_equal(view.n_sources + view.n_stores + view.n_problems, 0);
	view_done(&view);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sources),
		cmocka_unit_test(test_stores),
		cmocka_unit_test(test_batches),
		cmocka_unit_test(test_status),
		cmocka_unit_test(test_ok_without_problems),
		cmocka_unit_test(test_rejected),
		cmocka_unit_test(test_marks),
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_done_frees_the_arrays),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
