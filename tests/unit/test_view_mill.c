/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "api/view.h"
#include "base/alarm.h"

#define NOW_MS  1795255320123 /* 2026-11-21T10:02:00.123Z */
#define MONO_MS 5000000
#define HOUR    INT64_C(3600000)
#define RUN     "0198f3ab0c1d2e3f405162738495a6b7"

/* Text, keys in their order: what docs/api.md promises. */
static void assert_json(json_t *json, const char *expected)
{
	char *text = json_dumps(json, JSON_COMPACT);
	assert_non_null(text);
	assert_string_equal(text, expected);
	free(text);
	json_decref(json);
}

static void assert_machine(const struct mill_machine_view *machine, const char *expected)
{
	struct mill_machine_view copy = *machine;
	struct mill_view view = { .n_machines = 1, .machines = &copy };
	json_t *json = view_machines(&view, NOW_MS, MONO_MS);
	assert_json(json_incref(json_array_get(json_object_get(json, "machines"), 0)), expected);
	json_decref(json);
}

static void assert_job(const struct mill_job_view *job, const char *expected)
{
	struct mill_job_view copy = *job;
	struct mill_view view = { .n_jobs = 1, .jobs = &copy };
	json_t *json = view_machines(&view, NOW_MS, MONO_MS);
	assert_json(json_incref(json_array_get(json_object_get(json, "jobs"), 0)), expected);
	json_decref(json);
}

static void test_no_machines(void **state)
{
	(void)state;
	struct mill_view view = { .n_machines = 0 };
	assert_json(view_machines(&view, NOW_MS, MONO_MS),
	            "{\"now\":\"2026-11-21T10:02:00.123Z\",\"machines\":[],\"jobs\":[]}");
}

static const struct mill_machine_view mill = {
	.name = "mill",
	.machine = { .state = LEDGER_ASLEEP,
	             .since_ms = NOW_MS - 123,
	             .ours = true,
	             .refuses = true,
	             .next_try_ms = MONO_MS + 60000,
	             .failures = 3,
	             .reason = "it did not \"answer\"" },
	.known = true,
	.watts = 120,
	.awake_today_ms = HOUR + 999,
	.awake_month_ms = 10 * HOUR,
	.wakes_today = 2,
	.wakes_month = 31,
	.month_ms = 490 * HOUR,
};

#define MILL_REST                                                                                                      \
	"\"wakes_today\":2,\"wakes_month\":31,\"awake_today_seconds\":3600,"                                           \
	"\"awake_month_seconds\":36000,\"month_seconds\":1764000,"

static void test_machine_with_all(void **state)
{
	(void)state;
	assert_machine(&mill, "{\"name\":\"mill\",\"state\":\"asleep\",\"since\":\"2026-11-21T10:02:00.000Z\","
	                      "\"ours\":true,\"refuses\":true,\"reason\":\"it did not \\\"answer\\\"\",\"failures\":3,"
	                      "\"next_try\":\"2026-11-21T10:03:00.123Z\"," MILL_REST
	                      "\"watts\":120,\"energy_wh\":1200,\"always_on_wh\":58800}");
}

/* No watts, no try that is held back; and energy is rounded. */
static void test_machine_with_nulls(void **state)
{
	(void)state;
	struct mill_machine_view machine = mill;
	machine.watts = 0;
	machine.machine.next_try_ms = ALARM_NEVER;
	machine.machine.since_ms = 0;
	assert_machine(&machine,
	               "{\"name\":\"mill\",\"state\":\"asleep\",\"since\":null,\"ours\":true,\"refuses\":true,"
	               "\"reason\":\"it did not \\\"answer\\\"\",\"failures\":3,\"next_try\":null," MILL_REST
	               "\"watts\":null,\"energy_wh\":null,\"always_on_wh\":null}");
	machine = (struct mill_machine_view){
		.name = "m", .known = true, .watts = 1, .awake_month_ms = HOUR / 2 - 1, .month_ms = HOUR / 2
	};
	machine.machine.next_try_ms = MONO_MS - 1000; /* it was due a second ago */
	assert_machine(&machine,
	               "{\"name\":\"m\",\"state\":\"asleep\",\"since\":null,\"ours\":false,\"refuses\":false,"
	               "\"reason\":\"\",\"failures\":0,\"next_try\":\"2026-11-21T10:01:59.123Z\",\"wakes_today\":0,"
	               "\"wakes_month\":0,\"awake_today_seconds\":0,\"awake_month_seconds\":1799,"
	               "\"month_seconds\":1800,\"watts\":1,\"energy_wh\":0,\"always_on_wh\":1}");
}

/* Whatever else stands there is not to be believed. */
static void test_machine_that_is_not_known(void **state)
{
	(void)state;
	struct mill_machine_view machine = mill;
	machine.known = false;
	machine.machine.reason = NULL;
	assert_machine(&machine,
	               "{\"name\":\"mill\",\"state\":\"unknown\",\"since\":null,\"ours\":false,\"refuses\":false,"
	               "\"reason\":\"\",\"failures\":0,\"next_try\":null,\"wakes_today\":0,\"wakes_month\":0,"
	               "\"awake_today_seconds\":0,\"awake_month_seconds\":0,\"month_seconds\":0,\"watts\":null,"
	               "\"energy_wh\":null,\"always_on_wh\":null}");
}

static void test_machine_states(void **state)
{
	(void)state;
	static const char *const names[] = { "asleep", "waking", "up", "running", "idle", "sleeping" };
	struct mill_machine_view machines[6];
	for (int i = 0; i < 6; i++) {
		machines[i] = mill;
		machines[i].machine.state = (enum ledger_machine_state)(LEDGER_ASLEEP + i);
	}
	struct mill_view view = { .n_machines = 6, .machines = machines };
	json_t *json = view_machines(&view, NOW_MS, MONO_MS), *array = json_object_get(json, "machines");
	assert_int_equal(json_array_size(array), 6);
	for (size_t i = 0; i < 6; i++)
		assert_string_equal(json_string_value(json_object_get(json_array_get(array, i), "state")), names[i]);
	json_decref(json);
}

static void test_jobs(void **state)
{
	(void)state;
	struct ledger_run run = { .id = RUN, .state = LEDGER_STARTED, .attempt = 2 };
	struct mill_job_view job = {
		.name = "parking",
		.machine = "mill",
		.due = { .batches = 6, .oldest_ms = NOW_MS, .others = 2, .cron_ms = NOW_MS, .missed = 7 },
		.run = &run,
		.parked = 1,
		.last_parked = "0198",
		.waits_for = "machine \"mill\": no wake before midnight",
		.trouble = true,
	};
	assert_job(&job,
	           "{\"name\":\"parking\",\"machine\":\"mill\",\"batches\":6,\"oldest\":\"2026-11-21T10:02:00.123Z\","
	           "\"others\":2,\"missed\":7,\"run\":\"" RUN "\",\"run_state\":\"started\",\"attempt\":2,"
	           "\"parked\":1,\"last_parked\":\"0198\","
	           "\"waits_for\":\"machine \\\"mill\\\": no wake before midnight\",\"trouble\":true}");
	job = (struct mill_job_view){ .name = "b", .last_parked = "", .waits_for = "" };
	assert_job(&job, "{\"name\":\"b\",\"machine\":null,\"batches\":0,\"oldest\":null,\"others\":0,\"missed\":0,"
	                 "\"run\":null,\"run_state\":null,\"attempt\":0,\"parked\":0,\"last_parked\":\"\","
	                 "\"waits_for\":\"\",\"trouble\":false}");
}

/* What a machine or a job has said need not be UTF-8. */
static void test_foreign_texts(void **state)
{
	(void)state;
	struct mill_machine_view machine = mill;
	struct mill_job_view job = { .name = "b", .last_parked = "", .waits_for = "\xC3(" };
	struct mill_view view = { .n_machines = 1, .machines = &machine, .n_jobs = 1, .jobs = &job };
	machine.machine.reason = "caf\xE9";
	json_t *json = view_machines(&view, NOW_MS, MONO_MS);
	assert_string_equal(
	        json_string_value(json_object_get(json_array_get(json_object_get(json, "machines"), 0), "reason")),
	        "caf\xEF\xBF\xBD");
	assert_string_equal(
	        json_string_value(json_object_get(json_array_get(json_object_get(json, "jobs"), 0), "waits_for")),
	        "\xEF\xBF\xBD(");
	json_decref(json);
}

static const struct ledger_run parked = {
	.id = RUN,
	.job = "parking",
	.store = "lake",
	.state = LEDGER_PARKED,
	.attempt = 3,
	.created_ms = NOW_MS,
	.written_ms = NOW_MS + 1,
	.ready_ms = NOW_MS + 2,
	.started_ms = NOW_MS + 3,
	.ended_ms = NOW_MS + 4,
	.objects = 12,
	.records = 9007199254740993, /* 2^53 + 1: no double on the way */
	.bytes = 40960,
	.manifest = { 0xAB, 0x01 },
	.reason = "exit 1: \xFF",
	.remote = RUN "-3",
	.log = "a\n\0\x1b\xC3",
	.log_len = 5,
};

#define PARKED_ROW                                                                                                     \
	"{\"id\":\"" RUN "\",\"job\":\"parking\",\"state\":\"parked\",\"attempt\":3,"                                  \
	"\"created_at\":\"2026-11-21T10:02:00.123Z\",\"written_at\":\"2026-11-21T10:02:00.124Z\","                     \
	"\"ready_at\":\"2026-11-21T10:02:00.125Z\",\"started_at\":\"2026-11-21T10:02:00.126Z\","                       \
	"\"ended_at\":\"2026-11-21T10:02:00.127Z\",\"objects\":12,\"records\":9007199254740993,\"bytes\":40960,"       \
	"\"reason\":\"exit 1: \xEF\xBF\xBD\""
#define NEW_ROW                                                                                                        \
	"{\"id\":\"\",\"job\":\"\",\"state\":\"due\",\"attempt\":0,\"created_at\":null,\"written_at\":null,"           \
	"\"ready_at\":null,\"started_at\":null,\"ended_at\":null,\"objects\":0,\"records\":0,\"bytes\":0,"             \
	"\"reason\":\"\""

static void test_runs(void **state)
{
	(void)state;
	struct ledger_run runs[2] = { parked, { .state = LEDGER_DUE } };
	assert_json(view_runs(runs, 2), "{\"runs\":[" PARKED_ROW "}," NEW_ROW "}]}");
	assert_json(view_runs(NULL, 0), "{\"runs\":[]}");
}

static void test_run_states(void **state)
{
	(void)state;
	static const char *const names[] = { "due", "written", "started", "done", "parked", "cancelled" };
	struct ledger_run run = parked;
	for (int i = 0; i < 6; i++) {
		run.state = (enum ledger_state)(LEDGER_DUE + i);
		json_t *json = view_run(&run);
		assert_string_equal(json_string_value(json_object_get(json, "state")), names[i]);
		json_decref(json);
	}
}

static void test_run(void **state)
{
	(void)state;
	struct ledger_run run = { .state = LEDGER_DUE };
	assert_json(view_run(&parked),
	            PARKED_ROW ",\"store\":\"lake\",\"manifest\":{\"key\":\"_runs/parking/" RUN "/manifest.json\","
	                       "\"sha256\":\"ab01000000000000000000000000000000000000000000000000000000000000\"},"
	                       "\"remote\":\"" RUN "-3\",\"log\":\"a\\n\\u0000\\u001B\xEF\xBF\xBD\"}");
	assert_json(view_run(&run),
	            NEW_ROW ",\"store\":\"\",\"manifest\":{\"key\":\"_runs///manifest.json\",\"sha256\":null},"
	                    "\"remote\":null,\"log\":\"\"}");
	run.manifest[SHA256_SIZE - 1] = 1; /* any byte tells that it is written */
	json_t *json = view_run(&run);
	assert_int_equal(json_string_length(json_object_get(json_object_get(json, "manifest"), "sha256")), 64);
	json_decref(json);
}

/* As long as it gets, and it ends where the array does. */
static void test_long_log(void **state)
{
	(void)state;
	struct ledger_run run = parked;
	memset(run.log, 'x', sizeof run.log);
	run.log_len = sizeof run.log;
	json_t *json = view_run(&run);
	assert_int_equal(json_string_length(json_object_get(json, "log")), LEDGER_LOG);
	json_decref(json);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_machines),        cmocka_unit_test(test_machine_with_all),
		cmocka_unit_test(test_machine_with_nulls), cmocka_unit_test(test_machine_that_is_not_known),
		cmocka_unit_test(test_machine_states),     cmocka_unit_test(test_jobs),
		cmocka_unit_test(test_foreign_texts),      cmocka_unit_test(test_runs),
		cmocka_unit_test(test_run_states),         cmocka_unit_test(test_run),
		cmocka_unit_test(test_long_log),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
