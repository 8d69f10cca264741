/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the commands print and how they exit. Pages are made from the JSON that api/view writes, so that the two cannot
 * drift apart; whole commands ask a small server on a thread that gives one prepared answer.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "api/view.h"
#include "base/alarm.h"
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/commands.h"

#define NOW_MS   1795255320123
#define WORDS    8
#define TEXT_MAX 8192

static char folder[64], path[100];
static char printed[TEXT_MAX], complained[TEXT_MAX]; /* by the last command */
static char request[TEXT_MAX];                       /* what the server was asked last */

/* Anew at each call, so that a test may spoil it. */
static struct status_view well(void)
{
	static struct source_view source;
	static struct store_view store;
	source = (struct source_view){
		.name = "stavanger-parking",
		.kind = "rest",
		.origin = "https://example.org/a/very/long/way/to/the/feed/parking.json",
		.state = "fresh",
		.last_answer_ms = NOW_MS - 12000,
		.last_change_ms = NOW_MS - 132000,
		.next_poll_ms = NOW_MS + 48000,
		.polls = 1440,
		.unchanged = 720,
		.refused = 1,
		.failed = 3,
		.records = 6450,
		.fetches = 716,
		.unsealed_records = 18,
		.waiting_batches = 2,
		.waiting_records = 108,
		.oldest_ms = NOW_MS - 1800000,
		.last_error = "",
	};
	store = (struct store_view){ .name = "local",
		                     .kind = "file",
		                     .place = "/var/lib/millrace/objects",
		                     .state = "ready",
		                     .waiting_batches = 2,
		                     .waiting_bytes = 40960,
		                     .delivered_batches = 1,
		                     .last_delivered_ms = NOW_MS - 1860000,
		                     .last_error = "" };
	return (struct status_view){
		.version = "0.1.0",
		.device = "pi-01",
		.boot = "9f8e7d6c",
		.now_ms = NOW_MS,
		.started_ms = NOW_MS - 86400000,
		.buffer = { .path = "/var/lib/millrace/buffer.db",
		            .state = "ready",
		            .on_full = "pause",
		            .file_bytes = 1048576,
		            .wal_bytes = 524288,
		            .max_bytes = 536870912,
		            .room_bytes = 503316480,
		            .waiting_records = 126,
		            .waiting_batches = 2,
		            .oldest_ms = NOW_MS - 1800000,
		            .last_error = "" },
		.sources = &source,
		.n_sources = 1,
		.stores = &store,
		.n_stores = 1,
	};
}

static const char *print(json_t *json, const char *what, struct page page)
{
	static char text[TEXT_MAX];
	memset(text, 0, sizeof text);
	page.out = fmemopen(text, sizeof text - 1, "w");
	assert_non_null(page.out);
	if (strcmp(what, "status") == 0)
		status_print(json, &page);
	else if (strcmp(what, "poll") == 0)
		poll_print(json, &page);
	else if (strcmp(what, "flush") == 0)
		flush_print(json, &page);
	else if (strcmp(what, "audit") == 0)
		audit_print(json, &page);
	else
		show_print(what, json, &page);
	fclose(page.out);
	return text;
}

/* Takes the JSON. */
static void assert_page(json_t *json, const char *what, const char *expected)
{
	assert_non_null(json);
	assert_string_equal(print(json, what, (struct page){ .width = 80 }), expected);
	json_decref(json);
}

static void test_status_all_well(void **state)
{
	(void)state;
	struct status_view view = well();
	assert_page(view_status(&view), "status",
	            "millrace 0.1.0 on pi-01: all well\n"
	            "\n"
	            "SOURCE             STATE  LAST  NEXT  RECORDS  WAITING  POLLS/UNCH/REF/FAIL\n"
	            "stavanger-parking  fresh   12s   48s     6450      126  1440/720/1/3\n"
	            "\n"
	            "STORE  STATE  DELIVERED  WAITING             LAST\n"
	            "local  ready  1 batch    2 batches, 40.0 KB   31m\n"
	            "\n"
	            "buffer ready: 1.5 MB of 512.0 MB on the card, room for 480.0 MB; 126 records waiting, 2 batches "
	            "sealed; the oldest for 30m\n");
}

static void test_status_while_a_source_fails(void **state)
{
	(void)state;
	struct status_view view = well();
	view.sources[0].state = "failing";
	view.sources[0].last_error = "HTTP 503";
	json_t *json = view_status(&view);
	const char *text = print(json, "status", (struct page){ 0 });
	assert_non_null(strstr(text, "millrace 0.1.0 on pi-01: no action needed yet: 1 source failing\n"));
	assert_non_null(strstr(text, "\n! stavanger-parking: HTTP 503\n"));
	json_decref(json);
}

static void test_status_while_the_buffer_is_full(void **state)
{
	(void)state;
	struct status_view view = well();
	view.sources[0].state = "paused";
	view.sources[0].dropped_records = 1;
	view.buffer.state = "full";
	view.buffer.room_bytes = 0;
	json_t *json = view_status(&view);
	const char *text = print(json, "status", (struct page){ .colour = true });
	assert_non_null(strstr(text, "\033[33mpaused\033[0m   12s  no room "));
	assert_non_null(strstr(text, "\nstavanger-parking: 1 record dropped so far, because the buffer was full\n"));
	assert_non_null(strstr(text, "\nbuffer \033[31mfull\033[0m: 1.5 MB of 512.0 MB on the card, room for 0 B "
	                             "(on_full: pause); 126 records waiting"));
	json_decref(json);
}

static void test_status_while_the_clock_is_not_right(void **state)
{
	(void)state;
	struct status_view view = well();
	view.clock = (struct clock_view){ "waiting", 1, NOW_MS + 45 * 60000 };
	json_t *json = view_status(&view);
	const char *text = print(json, "status", (struct page){ 0 });
	assert_non_null(strstr(text, "; the oldest for 30m\n"
	                             "clock waiting: not synchronised; 1 record kept back until it is, for 45m at "
	                             "most\n"));
	json_decref(json);
	view.clock.state = "unsynced";
	json = view_status(&view);
	text = print(json, "status", (struct page){ .colour = true });
	assert_non_null(strstr(text, "\nclock \033[31munsynced\033[0m: not synchronised; records are sealed with the "
	                             "time that there is\n"));
	json_decref(json);
}

static void test_status_needs_attention(void **state)
{
	(void)state;
	static struct problem_view problems[] = { { "source \"parking\": HTTP 503", "see whether the feed is up" },
		                                  { "store \"local\" is away: \033[2Jnot mounted", "mount it" } };
	struct status_view view = { .version = "0.1.0", .device = "pi-01", .now_ms = NOW_MS };
	view.problems = problems;
	view.n_problems = 2;
	view.buffer.state = "ready";
	assert_page(view_status(&view), "status",
	            "millrace 0.1.0 on pi-01: needs attention\n"
	            "\n"
	            "! source \"parking\": HTTP 503\n"
	            "  see whether the feed is up\n"
	            "\n"
	            "! store \"local\" is away: ?[2Jnot mounted\n"
	            "  mount it\n"
	            "\n"
	            "SOURCE  STATE  LAST  NEXT  RECORDS  WAITING  POLLS/UNCH/REF/FAIL\n"
	            "\n"
	            "STORE  STATE  DELIVERED  WAITING  LAST\n"
	            "\n"
	            "buffer ready: 0 B on the card; nothing waits\n");
}

static void test_colour(void **state)
{
	(void)state;
	struct status_view view = well();
	view.sources[0].state = "stale";
	json_t *json = view_status(&view);
	const char *text = print(json, "status", (struct page){ .colour = true });
	assert_non_null(strstr(text, "\033[32mall well\033[0m\n"));
	assert_non_null(strstr(text, "\033[31mstale\033[0m"));
	text = print(json, "status", (struct page){ .colour = false });
	assert_null(strchr(text, '\033'));
	json_decref(json);
}

/* A name that would not fit the terminal is cut there, and nowhere else; the å is one column. */
static void test_narrow_page(void **state)
{
	(void)state;
	struct status_view view = well();
	view.sources[0].name = "a-v\xC3\xA5ry-long-name-of-a-source";
	json_t *json = view_status(&view);
	const char *text = print(json, "status", (struct page){ .width = 80 });
	assert_non_null(
	        strstr(text, "\na-v\xC3\xA5ry-long-name-of-a…  fresh   12s   48s     6450      126  1440/720/1/3\n"));
	text = print(json, "status", (struct page){ .width = 20 });
	assert_non_null(strstr(text, "\na-v\xC3\xA5ry-…  fresh "));
	text = print(json, "status", (struct page){ .width = 0 });
	assert_non_null(strstr(text, "\na-v\xC3\xA5ry-long-name-of-a-source  fresh "));
	json_decref(json);
}

static void test_show(void **state)
{
	(void)state;
	struct status_view view = well();
	struct batch batch = { .id = 7,
		               .source = "stavanger-parking",
		               .first_seq = 10,
		               .last_seq = 18,
		               .records = 9,
		               .bytes = 512,
		               .sealed_ms = NOW_MS,
		               .stores_done = 1,
		               .stores_all = 2 };
	assert_page(view_sources(&view), "sources",
	            "SOURCE             KIND  STATE  CHANGED  RECORDS  OLDEST  ORIGIN\n"
	            "stavanger-parking  rest  fresh       2m     6450     30m  https://example.org/a…\n");
	assert_page(view_batches(&batch, 1), "batches",
	            "ID  SOURCE             SEQ    RECORDS  BYTES  SEALED                STORES\n"
	            " 7  stavanger-parking  10-18        9  512 B  2026-11-21T10:02:00Z  1/2\n");
	batch.imported = true;
	assert_page(view_batches(&batch, 1), "batches",
	            "ID  SOURCE             SEQ    RECORDS  BYTES  SEALED                STORES\n"
	            " 7  stavanger-parking  10-18        9  512 B  2026-11-21T10:02:00Z  1/2 imported\n");
	view.sources[0].dropped_records = 1200;
	assert_page(view_sources(&view), "sources",
	            "SOURCE             KIND  STATE  CHANGED  RECORDS  OLDEST  ORIGIN\n"
	            "stavanger-parking  rest  fresh       2m     6450     30m  https://example.org/a…\n"
	            "stavanger-parking: 1200 records dropped so far, because the buffer was full\n");
	view.sources[0].dropped_records = 0;
	view.sources[0].damaged_records = 1;
	assert_page(view_sources(&view), "sources",
	            "SOURCE             KIND  STATE  CHANGED  RECORDS  OLDEST  ORIGIN\n"
	            "stavanger-parking  rest  fresh       2m     6450     30m  https://example.org/a…\n"
	            "stavanger-parking: 1 record destroyed so far, by damage to the buffer\n");
	view.stores[0].last_error = "disk full";
	view.stores[0].next_try_ms = NOW_MS + 30000;
	assert_page(view_stores(&view), "stores",
	            "STORE  KIND  STATE  DELIVERED  WAITING    BYTES  LAST  NEXT TRY  PLACE\n"
	            "local  file  ready          1        2  40.0 KB   31m       30s  /var/lib/millr…\n"
	            "! local: disk full\n");
}

static void test_show_config(void **state)
{
	(void)state;
	assert_page(
	        json_loads("{\"device\":\"pi\",\"batch\":{\"max_records\":7},\"sources\":{},\"stores\":{\"lake\":{"
	                   "\"prefix\":\"a \\\"b\\\\\\u001b\xC3\xA5\",\"virtual_host\":false}},\"names\":[\"a\",\"b\"],"
	                   "\"none\":[],\"other\":[null,1.5,{\"a\":true}]}",
	                   0, NULL),
	        "config",
	        "device = \"pi\"\n"
	        "batch.max_records = 7\n"
	        "sources = { }\n"
	        "stores.lake.prefix = \"a \\\"b\\\\?\xC3\xA5\"\n"
	        "stores.lake.virtual_host = false\n"
	        "names = [ \"a\", \"b\" ]\n"
	        "none = [ ]\n"
	        "other = [ ?, ?, { } ]\n");
}

/* One refused answer; mark: where the offset stands in the text. */
static json_t *rejected_answer(const char *data, size_t len, int64_t offset)
{
	struct rejected_view view = { .source = "parking",
		                      .cause = "no-json",
		                      .text = "no \aJSON",
		                      .at_ms = NOW_MS,
		                      .bytes = 5000,
		                      .start = 1000,
		                      .offset = offset,
		                      .data = data,
		                      .len = len };
	return json_pack("{s:[o]}", "rejected", view_rejected(&view));
}

static json_t *unread_answer(const char *data)
{
	struct rejected_view view = { .source = "parking",
		                      .cause = "bad-encoding",
		                      .text = "broken",
		                      .at_ms = NOW_MS,
		                      .offset = -1,
		                      .data = data,
		                      .len = strlen(data) };
	return json_pack("{s:[o]}", "rejected", view_rejected(&view));
}

#define REJECTED_HEAD                                                                                                  \
	"parking: 2026-11-21T10:02:00Z: no-json\n"                                                                     \
	"  no ?JSON\n"                                                                                                 \
	"  5000 bytes came; from byte 1000 on:\n"

static void test_show_rejected(void **state)
{
	(void)state;
	assert_page(json_pack("{s:[]}", "rejected"), "rejected", "no answer was refused\n");
	assert_page(rejected_answer("<a>\n\t\xC3\xA5\xFF\0\x1b[2J\x7F\xC2\x9B", 16, 1007), "rejected",
	            REJECTED_HEAD "    <a>\xE2\x90\x8A\n"
	                          "    \xE2\x90\x89\xC3\xA5\xEF\xBF\xBD\xE2\x90\x80\xE2\x90\x9B[2J\xE2\x90\xA1?\n"
	                          "      ^ byte 1007\n");
	assert_page(rejected_answer("{\n", 2, 1002), "rejected",
	            REJECTED_HEAD "    {\xE2\x90\x8A\n"
	                          "\n"
	                          "    ^ byte 1002\n");
	assert_page(rejected_answer("{", 1, 1001), "rejected",
	            REJECTED_HEAD "    {\n"
	                          "     ^ byte 1001\n");
	assert_page(rejected_answer("abc", 3, -1), "rejected", REJECTED_HEAD "    abc\n");
	assert_page(rejected_answer("", 0, -1), "rejected", REJECTED_HEAD);
	assert_page(unread_answer("\\x1f\\x8b"), "rejected",
	            "parking: 2026-11-21T10:02:00Z: bad-encoding\n  broken\n"
	            "  nothing of it could be read; as it came, it begins:\n    \\x1f\\x8b\n");
	assert_page(unread_answer(""), "rejected",
	            "parking: 2026-11-21T10:02:00Z: bad-encoding\n  broken\n  none of it was taken\n");
}

static void test_show_rejected_in_rows(void **state)
{
	(void)state;
	json_t *json = rejected_answer("0123456789012345678901234567890123456789", 40, 1017);
	assert_string_equal(print(json, "rejected", (struct page){ .width = 20 }),
	                    REJECTED_HEAD "    0123456789012345\n"
	                                  "    6789012345678901\n"
	                                  "     ^ byte 1017\n"
	                                  "    23456789\n");
	assert_non_null(
	        strstr(print(json, "rejected", (struct page){ .colour = true }), "\033[31m^ byte 1017\033[0m\n"));
	json_decref(json);
}

#define RUN  "0198f3ab0c1d2e3f405162738495a6b7"
#define HOUR INT64_C(3600000)

/* Anew at each call, so that a test may spoil it. */
static struct mill_view mill(void)
{
	static struct mill_machine_view machine;
	static struct mill_job_view job;
	machine = (struct mill_machine_view){
		.name = "mill",
		.machine = { .state = LEDGER_IDLE,
		             .since_ms = NOW_MS - 240000,
		             .ours = true,
		             .next_try_ms = ALARM_NEVER,
		             .reason = "the last run on it has ended" },
		.known = true,
		.awake_today_ms = HOUR + HOUR / 2,
		.awake_month_ms = 21 * HOUR,
		.wakes_today = 2,
		.wakes_month = 31,
		.month_ms = 490 * HOUR,
	};
	job = (struct mill_job_view){ .name = "parking",
		                      .machine = "mill",
		                      .due = { .batches = 3, .oldest_ms = NOW_MS - 1800000 },
		                      .last_parked = "",
		                      .waits_for = "batches>=6 or age>=6h" };
	return (struct mill_view){ .n_machines = 1, .machines = &machine, .n_jobs = 1, .jobs = &job };
}

#define MILL_TABLE                                                                                                     \
	"MACHINE  STATE  SINCE  TODAY   MONTH  WAKES  REASON\n"                                                        \
	"mill     idle      4m  1.5 h  21.0 h  2/31   the last run on it has ended\n"
#define JOB_TABLE                                                                                                      \
	"\n"                                                                                                           \
	"JOB      MACHINE  BATCHES  OLDEST  RUN  WAITS FOR\n"                                                          \
	"parking  mill           3     30m  -    batches>=6 or age>=6h\n"

static void test_show_machines(void **state)
{
	(void)state;
	struct mill_view view = mill();
	assert_page(view_machines(&view, NOW_MS, 0), "machines", MILL_TABLE JOB_TABLE);
	view.machines[0].watts = 120;
	assert_page(view_machines(&view, NOW_MS, 0), "machines",
	            MILL_TABLE "mill: 2.52 kWh this month; always on it would have been 58.80 kWh\n" JOB_TABLE);
	view.n_machines = view.n_jobs = 0;
	assert_page(view_machines(&view, NOW_MS, 0), "machines",
	            "MACHINE  STATE  SINCE  TODAY  MONTH  WAKES  REASON\n"
	            "\n"
	            "JOB  MACHINE  BATCHES  OLDEST  RUN  WAITS FOR\n");
}

static void test_show_a_machine_that_is_not_known(void **state)
{
	(void)state;
	struct mill_view view = mill();
	view.machines[0].known = false;
	view.n_jobs = 0;
	assert_page(view_machines(&view, NOW_MS, 0), "machines",
	            "MACHINE  STATE    SINCE  TODAY  MONTH  WAKES  REASON\n"
	            "mill     unknown      -  0.0 h  0.0 h  0/0    -\n"
	            "\n"
	            "JOB  MACHINE  BATCHES  OLDEST  RUN  WAITS FOR\n");
}

static void test_show_machines_in_trouble(void **state)
{
	(void)state;
	struct mill_view view = mill();
	struct ledger_run run = { .id = RUN, .state = LEDGER_WRITTEN };
	view.machines[0].machine.reason = "its host key is \033[2Janother one";
	view.machines[0].machine.refuses = true;
	view.machines[0].machine.failures = 1;
	view.machines[0].machine.next_try_ms = 1000;
	view.jobs[0] = (struct mill_job_view){ .name = "b",
		                               .due = { .missed = 1 },
		                               .run = &run,
		                               .parked = 2,
		                               .last_parked = RUN,
		                               .waits_for = "store \"lake\" is \a gone",
		                               .trouble = true };
	assert_page(view_machines(&view, NOW_MS, 0), "machines",
	            "MACHINE  STATE  SINCE  TODAY   MONTH  WAKES  REASON\n"
	            "mill     idle      4m  1.5 h  21.0 h  2/31   its host key is ?[2Janother one\n"
	            "! mill: its host key is ?[2Janother one\n"
	            "mill: 1 wake without an answer; no wake before 2026-11-21T10:02:01Z\n"
	            "\n"
	            "JOB  MACHINE  BATCHES  OLDEST  RUN      WAITS FOR\n"
	            "b    -              0       -  written  store \"lake\" is ? gone\n"
	            "! b: store \"lake\" is ? gone\n"
	            "! b: 2 runs parked, the newest " RUN
	            ": look at it with `millrace show run`, then `retry` or `cancel` it\n"
	            "! b: 1 object came while its list was full: no run will ever have them\n");
}

/* The breaker holds it back, or it was not wanted after its last try. */
static void test_show_wakes_that_are_held_back(void **state)
{
	(void)state;
	struct mill_view view = mill();
	view.machines[0].machine.next_try_ms = 1000;
	view.n_jobs = 0;
	json_t *json = view_machines(&view, NOW_MS, 0);
	assert_non_null(
	        strstr(print(json, "machines", (struct page){ 0 }), "\nmill: no wake before 2026-11-21T10:02:01Z\n"));
	json_decref(json);
	view.machines[0].machine.next_try_ms = ALARM_NEVER;
	view.machines[0].machine.failures = 2;
	json = view_machines(&view, NOW_MS, 0);
	assert_non_null(strstr(print(json, "machines", (struct page){ 0 }), "\nmill: 2 wakes without an answer\n"));
	json_decref(json);
}

static struct ledger_run done(void)
{
	return (struct ledger_run){ .id = RUN,
		                    .job = "parking",
		                    .store = "lake",
		                    .state = LEDGER_DONE,
		                    .attempt = 1,
		                    .created_ms = NOW_MS,
		                    .written_ms = NOW_MS + 3000,
		                    .ready_ms = NOW_MS + 63000,
		                    .started_ms = NOW_MS + 65000,
		                    .ended_ms = NOW_MS + 365000,
		                    .objects = 12,
		                    .records = 1204,
		                    .bytes = 40960,
		                    .manifest = { 0xAB, 0x01 },
		                    .remote = RUN "-1",
		                    .log = "one\r\n\ttwo \033[2J\n\nthree\0\xFF\n",
		                    .log_len = sizeof "one\r\n\ttwo \033[2J\n\nthree\0\xFF\n" - 1 };
}

static void test_show_runs(void **state)
{
	(void)state;
	struct ledger_run runs[2] = { done(), { .id = RUN, .job = "b", .state = LEDGER_DUE, .created_ms = NOW_MS } };
	json_t *json = view_runs(runs, 2);
	snprintf(runs[0].reason, sizeof runs[0].reason, "exit 3: \033[31m");
	assert_string_equal(
	        print(json, "runs", (struct page){ 0 }),
	        "RUN                               JOB      STATE  TRY  CREATED               TOOK  OBJECTS  RECORDS  "
	        "REASON\n" RUN "  parking  done     1  2026-11-21T10:02:00Z    6m       12     1204  -\n" RUN
	        "  b        due      0  2026-11-21T10:02:00Z     -        0        0  -\n");
	json_decref(json);
	runs[0].state = LEDGER_PARKED;
	json = view_runs(runs, 1);
	const char *text = print(json, "runs", (struct page){ .colour = true });
	assert_non_null(strstr(text, "  \033[31mparked\033[0m "));
	assert_non_null(strstr(text, "  exit 3: ?[31m\n"));
	json_decref(json);
}

static void test_show_run(void **state)
{
	(void)state;
	struct ledger_run run = done();
	assert_page(view_run(&run), "run",
	            "run " RUN " of parking: done, attempt 1, 12 objects, 1204 records, 40.0 KB\n"
	            "\n"
	            "STAGE             AT                    TOOK\n"
	            "due               2026-11-21T10:02:00Z     -\n"
	            "manifest written  2026-11-21T10:02:03Z    3s\n"
	            "machine ready     2026-11-21T10:03:03Z    1m\n"
	            "started           2026-11-21T10:03:05Z    2s\n"
	            "ended             2026-11-21T10:08:05Z    5m\n"
	            "\n"
	            "manifest: _runs/parking/" RUN "/manifest.json in store lake, SHA-256 "
	            "ab01000000000000000000000000000000000000000000000000000000000000\n"
	            "on the other side: " RUN "-1\n"
	            "log, its end:\n"
	            "  one\n"
	            "   two ?[2J\n"
	            "  \n"
	            "  three?\xEF\xBF\xBD\n");
}

/* No machine, so it was ready at no time; and one that has only begun. */
static void test_show_run_without_all_stages(void **state)
{
	(void)state;
	struct ledger_run run = done();
	run.ready_ms = run.ended_ms = 0;
	run.log_len = 0;
	*run.remote = '\0';
	snprintf(run.reason, sizeof run.reason, "it was \033[2J killed");
	assert_page(view_run(&run), "run",
	            "run " RUN " of parking: done, attempt 1, 12 objects, 1204 records, 40.0 KB\n"
	            "  it was ?[2J killed\n"
	            "\n"
	            "STAGE             AT                    TOOK\n"
	            "due               2026-11-21T10:02:00Z     -\n"
	            "manifest written  2026-11-21T10:02:03Z    3s\n"
	            "machine ready     -                        -\n"
	            "started           2026-11-21T10:03:05Z    1m\n"
	            "ended             -                        -\n"
	            "\n"
	            "manifest: _runs/parking/" RUN "/manifest.json in store lake, SHA-256 "
	            "ab01000000000000000000000000000000000000000000000000000000000000\n");
	run = (struct ledger_run){ .id = RUN, .job = "b", .store = "lake", .state = LEDGER_DUE, .created_ms = NOW_MS };
	json_t *json = view_run(&run);
	const char *text = print(json, "run", (struct page){ 0 });
	assert_non_null(strstr(text, " of b: due, attempt 0, 0 objects, 0 records, 0 B\n\nSTAGE "));
	assert_non_null(strstr(text, "\nended             -                        -\n\nmanifest: _runs/b/" RUN
	                             "/manifest.json in store lake, not written yet\n"));
	json_decref(json);
}

static json_t *poll_answer(const char *outcome, int records, const char *text)
{
	return json_pack("{s:s, s:s, s:i, s:i, s:s}", "source", "parking", "outcome", outcome, "records", records,
	                 "first_seq", records ? 10 : 0, "text", text);
}

static void test_poll_lines(void **state)
{
	(void)state;
	assert_page(poll_answer("committed", 9, ""), "poll", "parking: committed 9 records, seq 10 to 18\n");
	assert_page(poll_answer("committed", 1, ""), "poll", "parking: committed 1 record, seq 10\n");
	assert_page(poll_answer("committed", 0, ""), "poll", "parking: committed 0 records\n");
	assert_page(poll_answer("unchanged", 0, ""), "poll", "parking: unchanged\n");
	assert_page(poll_answer("refused", 0, "no \aJSON"), "poll", "parking: refused: no ?JSON\n");
}

static void test_flush_lines(void **state)
{
	(void)state;
	assert_page(json_pack("{s:i, s:b}", "batches", 2, "delivered", 0), "flush", "sealed 2 batches\n");
	assert_page(json_pack("{s:i, s:b}", "batches", 1, "delivered", 1), "flush", "sealed 1 batch, all delivered\n");
	assert_page(json_pack("{s:i, s:i, s:b}", "batches", 0, "kept_back", 1, "delivered", 0), "flush",
	            "sealed 0 batches; not sealed: 1 record, until the clock is right\n");
}

/* An answer of another version, or of something else, must not crash. */
static void test_answers_of_another_shape(void **state)
{
	(void)state;
	json_t *json = json_pack("{s:i, s:[i, n, {s:i}], s:s, s:i}", "version", 3, "sources", 1, "name", 5, "buffer",
	                         "x", "now", 7);
	assert_non_null(json);
	assert_non_null(strstr(print(json, "status", (struct page){ 0 }), "needs attention"));
	print(json, "sources", (struct page){ 0 });
	print(json, "batches", (struct page){ 0 });
	print(json, "rejected", (struct page){ 0 });
	print(json, "poll", (struct page){ 0 });
	print(json, "flush", (struct page){ 0 });
	print(json, "machines", (struct page){ 0 });
	print(json, "runs", (struct page){ 0 });
	print(json, "run", (struct page){ 0 });
	json_decref(json);
	json = json_pack("{s:[i, {s:i}], s:[i, {s:b}], s:[i, {s:i}], s:i, s:i}", "machines", 1, "name", 5, "jobs", 1,
	                 "trouble", 1, "runs", 1, "id", 5, "log", 5, "manifest", 5);
	assert_non_null(json);
	print(json, "machines", (struct page){ 0 });
	print(json, "runs", (struct page){ 0 });
	print(json, "run", (struct page){ 0 });
	json_decref(json);
	json = json_pack("{s:[i, {s:i, s:s}]}", "rejected", 1, "excerpt", 5, "mark", "x");
	print(json, "rejected", (struct page){ 0 });
	json_decref(json);
}

/* Standard output and error into files while the function runs. */
static void capture(int *saved)
{
	static const char *const names[] = { "out", "err" };
	char file[128];
	fflush(NULL);
	for (int i = 0; i < 2; i++) {
		snprintf(file, sizeof file, "%s/%s", folder, names[i]);
		int fd = open(file, O_CREAT | O_TRUNC | O_RDWR, 0600);
		saved[i] = dup(i + 1);
		dup2(fd, i + 1);
		close(fd);
	}
}

static void release(const int *saved)
{
	char *const texts[] = { printed, complained };
	fflush(NULL);
	for (int i = 0; i < 2; i++) {
		ssize_t n = pread(i + 1, texts[i], TEXT_MAX - 1, 0);
		texts[i][n > 0 ? n : 0] = '\0';
		dup2(saved[i], i + 1);
		close(saved[i]);
	}
}

/* Runs a command line (words separated by single blanks), or only checks it where socket is NULL. */
static int run(const char *socket, const char *line)
{
	char text[256], *words[WORDS + 1] = { NULL };
	int n = 0, saved[2];
	snprintf(text, sizeof text, "%s", line);
	for (char *at = text, *word; (word = strsep(&at, " ")) && n < WORDS;)
		words[n++] = word;
	capture(saved);
	int rc = socket ? cli_run(socket, n, words) : cli_check(n, words);
	release(saved);
	return rc;
}

static void expect_usage(const char *line, const char *complaint)
{
	assert_int_equal(run(NULL, line), CLI_USAGE);
	if (!strstr(complained, complaint))
		fail_msg("%s: \"%s\" is not in: %s", line, complaint, complained);
	assert_string_equal(printed, "");
}

static void test_arguments_taken(void **state)
{
	(void)state;
	static const char *const good[] = { "status",
		                            "status --json --ready",
		                            "show --json sources",
		                            "show batches",
		                            "show config --json",
		                            "tail -n 5 parking",
		                            "tail parking -n100000",
		                            "tail -f parking -n 0",
		                            "tail parking --follow --last 7",
		                            "show rejected --json",
		                            "tail _polls",
		                            "poll parking --json",
		                            "poll --json -- parking",
		                            "flush --wait",
		                            "flush",
		                            "flush --json --wait",
		                            "audit",
		                            "audit --json --since 2026-11-21",
		                            "show machines --json",
		                            "show runs",
		                            "show run --json " RUN,
		                            "wake mill",
		                            "start --json parking",
		                            "cancel " RUN,
		                            "retry " RUN,
		                            "retry 123456789012345678" };
	for (size_t i = 0; i < sizeof good / sizeof *good; i++)
		if (run(NULL, good[i]) != CLI_OK)
			fail_msg("%s: %s", good[i], complained);
	assert_true(cli_knows("tail") && cli_knows("wake") && cli_knows("start") && cli_knows("cancel"));
	assert_false(cli_knows("run"));
}

static void test_arguments_refused(void **state)
{
	(void)state;
	expect_usage("status now",
	             "millrace status: \"now\" is one argument too many\nusage: millrace status [--json]");
	expect_usage("status --wait", "unknown option --wait");
	expect_usage("status --foo", "unknown option --foo");
	expect_usage("status -x", "unknown option -x");
	expect_usage("show", "what to show is missing");
	expect_usage("show cows", "there is no \"cows\" to show");
	expect_usage("tail", "SOURCE is missing");
	expect_usage("tail parking -n", "-n needs a value");
	expect_usage("tail parking -n 100001", "from 0 to 100000");
	expect_usage("tail parking --last -1", "from 0 to 100000");
	expect_usage("poll parking -f", "unknown option -f");
	expect_usage("tail parking -n 5x", "\"5x\"");
	expect_usage("poll Parking", "\"Parking\" cannot be the name of a source");
	expect_usage("poll a/../b", "cannot be");
	expect_usage("poll parking weather", "\"weather\" is one argument too many");
	expect_usage("flush --json=1", "unknown option --json=1");
	expect_usage("audit --since", "--since needs a value");
	expect_usage("audit --since yesterday", "a date like 2026-11-21, not \"yesterday\"");
	expect_usage("flush --since 2026-11-21", "unknown option");
	expect_usage("export", "DIR is missing");
	expect_usage("import a b", "one argument too many");
	expect_usage("import --repair a", "unknown option");
	expect_usage("dance", "unknown command \"dance\"");
}

static void test_arguments_of_the_mill_refused(void **state)
{
	(void)state;
	expect_usage("show run", "millrace show: RUN is missing\nusage: millrace show sources|");
	expect_usage("show run 97", "\"97\" is not the id of a run, which has 32 hex digits");
	expect_usage("show run 0198F3AB0C1D2E3F405162738495A6B7", "is not the id of a run");
	expect_usage("show run " RUN "0", "is not the id of a run");
	expect_usage("show run ../../status", "is not the id of a run");
	expect_usage("show run " RUN " now", "\"now\" is one argument too many");
	expect_usage("show runs " RUN, "\"" RUN "\" is one argument too many");
	expect_usage("show machine", "there is no \"machine\" to show; did you mean \"machines\"?");
	expect_usage("wake", "MACHINE is missing");
	expect_usage("wake Mill", "\"Mill\" cannot be the name of a machine");
	expect_usage("wake mill --wait", "unknown option --wait");
	expect_usage("start", "JOB is missing");
	expect_usage("start a/../b", "cannot be the name of a job");
	expect_usage("start parking now", "\"now\" is one argument too many");
	expect_usage("cancel", "RUN is missing");
	expect_usage("cancel 97", "\"97\" is not the id of a run");
	expect_usage("retry", "BATCH or RUN is missing");
	expect_usage("retry 1234567890123456789", "is neither the number of a batch nor the id of a run");
	expect_usage("retry parking", "is neither the number of a batch nor the id of a run");
}

/* One exchange: reads a request's head, gives the answer, ends. */
struct server {
	pthread_t thread;
	int listener;
	const char *answer;
};

static void *serve(void *arg)
{
	struct server *server = arg;
	size_t len = 0;
	int fd = accept(server->listener, NULL, NULL);
	while (len < sizeof request - 1) {
		ssize_t n = read(fd, request + len, sizeof request - 1 - len);
		len += n > 0 ? (size_t)n : 0;
		request[len] = '\0';
		if (n <= 0 || strstr(request, "\r\n\r\n"))
			break;
	}
	send(fd, server->answer, strlen(server->answer), MSG_NOSIGNAL);
	close(fd);
	return NULL;
}

static int bind_path(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
	return fd;
}

static int run_against(const char *answer, const char *line)
{
	struct server server = { .listener = bind_path(), .answer = answer };
	request[0] = '\0';
	assert_int_equal(listen(server.listener, 1), 0);
	assert_int_equal(pthread_create(&server.thread, NULL, serve, &server), 0);
	int rc = run(path, line);
	pthread_join(server.thread, NULL);
	close(server.listener);
	unlink(path);
	return rc;
}

#define OK         "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
#define UNWELL     OK "{\"ok\":false}\n"
#define PROBLEM(n) "HTTP/1.1 " n " X\r\nConnection: close\r\n\r\n{\"detail\":\"says \\u001b the daemon\"}\n"

static void test_status_exits(void **state)
{
	(void)state;
	assert_int_equal(run_against(OK "{\"ok\":true, \"x\":1}\n", "status --json"), CLI_OK);
	assert_string_equal(printed, "{\"ok\":true, \"x\":1}\n");
	assert_non_null(strstr(request, "GET /v1/status HTTP/1.1\r\n"));
	assert_int_equal(run_against(UNWELL, "status --json"), CLI_ATTENTION);
	assert_int_equal(run_against(UNWELL, "status"), CLI_ATTENTION);
	assert_non_null(strstr(printed, "needs attention"));
	assert_null(strchr(printed, '\033'));
	assert_string_equal(complained, "");
}

static void test_ready_prints_nothing(void **state)
{
	(void)state;
	assert_int_equal(run_against(OK "{\"ok\":true}", "status --ready"), CLI_OK);
	assert_string_equal(printed, "");
	assert_int_equal(run_against(UNWELL, "status --json --ready"), CLI_ATTENTION);
	assert_string_equal(printed, "");
	assert_int_equal(run(path, "status --ready"), CLI_UNAVAILABLE);
	assert_string_equal(printed, "");
	assert_string_equal(complained, "");
}

static void test_poll_exits(void **state)
{
	(void)state;
	assert_int_equal(run_against(OK "{\"source\":\"parking\",\"outcome\":\"unchanged\"}", "poll parking"), CLI_OK);
	assert_string_equal(printed, "parking: unchanged\n");
	assert_non_null(strstr(request, "POST /v1/sources/parking/poll HTTP/1.1\r\n"));
	assert_non_null(strstr(request, "Content-Length: 0\r\n"));
	assert_int_equal(run_against(OK "{\"outcome\":\"refused\"}", "poll parking --json"), CLI_ATTENTION);
	assert_string_equal(printed, "{\"outcome\":\"refused\"}");
	assert_int_equal(run_against(OK "{\"outcome\":\"failed\"}", "poll parking"), CLI_ATTENTION);
}

#define SOUND                                                                                                          \
	"{\"store\":\"lake\",\"place\":\"http://h/lake\",\"error\":\"\",\"objects\":1,\"foreign\":0,\"requests\":2,"   \
	"\"took_ms\":149,\"sound\":true,\"records\":{\"delivered\":5,\"waiting\":2,\"missing\":0},\"sources\":["       \
	"{\"source\":\"parking\",\"ranges\":[{\"kind\":\"delivered\",\"first_seq\":1,\"last_seq\":5,\"key\":\"\"},"    \
	"{\"kind\":\"waiting\",\"first_seq\":6,\"last_seq\":7,\"key\":\"\"}]}],\"left_off\":0}"
#define BAD                                                                                                            \
	"{\"store\":\"disk\",\"place\":\"/mnt\",\"error\":\"\",\"objects\":2,\"foreign\":3,\"took_ms\":2000,"          \
	"\"records\":{\"missing\":1,\"double\":2},\"sources\":[{\"source\":\"parking\",\"ranges\":["                   \
	"{\"kind\":\"missing\",\"first_seq\":1,\"last_seq\":1,\"key\":\"\"},"                                          \
	"{\"kind\":\"double\",\"first_seq\":2,\"last_seq\":3,\"key\":\"source=parking/x\"}]}],\"left_off\":7}"
#define AWAY                                                                                                           \
	"{\"store\":\"far\",\"place\":\"http://f/\",\"error\":\"connection refused\",\"records\":{},\"sources\":[]}"
#define SOUND_LINES                                                                                                    \
	"lake: http://h/lake: 1 object, 2 requests, 0.1 s\n"                                                           \
	"  parking  seq 1 to 5  delivered\n"                                                                           \
	"  parking  seq 6 to 7  waiting\n"

static void test_audits(void **state)
{
	(void)state;
	assert_int_equal(run_against(OK "{\"ok\":true,\"stores\":[" SOUND "]}", "audit"), CLI_OK);
	assert_string_equal(printed, SOUND_LINES "audit: nothing is missing, nothing is double\n");
	assert_non_null(strstr(request, "POST /v1/audit HTTP/1.1\r\n"));
	assert_int_equal(run_against(OK "{\"ok\":false,\"stores\":[" BAD "," AWAY "]}", "audit --since 2026-11-21"),
	                 CLI_ATTENTION);
	assert_string_equal(printed, "disk: /mnt: 2 objects, 3 of others, 2.0 s\n"
	                             "! parking  seq 1 to 1  missing\n"
	                             "! parking  seq 2 to 3  double  source=parking/x\n"
	                             "  and 7 ranges more\n"
	                             "! far: http://f/: connection refused\n"
	                             "audit: 1 store could not be looked through; elsewhere records missing: 1, "
	                             "double: 2, changed: 0; in no books here: 3 objects of others\n"
	                             "`millrace audit --repair` sends again what is still here; what a store got at "
	                             "another place counts as missing too: one that moves wants a new name\n");
	assert_non_null(strstr(request, "POST /v1/audit?since=2026-11-21 HTTP/1.1\r\n"));
	assert_int_equal(run_against(OK "{\"ok\":false,\"stores\":[" SOUND "," AWAY "]}", "audit --json"),
	                 CLI_UNAVAILABLE);
	assert_string_equal(printed, "{\"ok\":false,\"stores\":[" SOUND "," AWAY "]}");
	assert_int_equal(run_against(OK "{\"ok\":false,\"stores\":[" AWAY "]}", "audit"), CLI_UNAVAILABLE);
	assert_string_equal(printed,
	                    "! far: http://f/: connection refused\naudit: 1 store could not be looked through\n");
	assert_int_equal(
	        run_against(OK "{\"ok\":true,\"stores\":[{\"store\":\"lake\",\"records\":{\"lost\":12}}]}", "audit"),
	        CLI_OK);
	assert_non_null(strstr(printed,
	                       "\naudit: nothing is missing, nothing is double; lost for want of room or by damage: 12 "
	                       "records\n"));
	assert_int_equal(run_against(OK "{}", "audit"),
	                 CLI_ATTENTION); /* whatever that was, it says not that all is well */
}

#define FACTS(bytes, records, wrong)                                                                                   \
	"{\"bytes\":" bytes ",\"sha256\":\"abc\",\"wrong\":\"" wrong "\",\"source\":\"parking\",\"device\":\"pi-01\"," \
	"\"records\":" records ",\"first_seq\":7,\"last_seq\":9,\"first\":\"2026-11-21T09:32:00.000Z\","               \
	"\"last\":\"2026-11-21T09:46:00.000Z\"}"

static void test_retry_prints_both(void **state)
{
	(void)state;
	assert_int_equal(run_against(OK "{\"batch\":97,\"stores\":2,\"conflicts\":[]}", "retry 97"), CLI_OK);
	assert_string_equal(printed, "batch 97: tried again at 2 stores\n");
	assert_int_equal(
	        run_against(
	                OK
	                "{\"batch\":97,\"stores\":1,\"conflicts\":["
	                "{\"store\":\"lake\",\"key\":\"source=x\",\"error\":\"\",\"ours\":" FACTS(
	                        "512", "3",
	                        "") ",\"theirs\":" FACTS("15", "0",
	                                                 "it is no gzip \\u001b file") ",\"advice\":\"look\"},"
	                                                                               "{\"store\":\"disk\",\"key\":"
	                                                                               "\"source=x\",\"error\":\"no "
	                                                                               "disk\","
	                                                                               "\"ours\":" FACTS(
	                                                                                       "512", "1",
	                                                                                       "") ",\"theirs\":null,"
	                                                                                           "\"advice\":\"\"}]}",
	                "retry 97"),
	        CLI_ATTENTION);
	assert_string_equal(printed,
	                    "batch 97: tried again at 1 store\n"
	                    "! store lake: other bytes stand under source=x\n"
	                    "  ours : 512 bytes, 3 records of parking by pi-01, seq 7 to 9, 2026-11-21T09:32:00Z to "
	                    "2026-11-21T09:46:00Z, SHA-256 abc\n"
	                    "  there: 15 bytes, SHA-256 abc: it is no gzip ? file\n"
	                    "  what to do: look\n"
	                    "! store disk: nobody can say what stands under source=x\n"
	                    "  no disk\n"
	                    "  ours : 512 bytes, 1 record of parking by pi-01, seq 7 to 9, 2026-11-21T09:32:00Z to "
	                    "2026-11-21T09:46:00Z, SHA-256 abc\n");
}

#define REPAIRED(again, ranges)                                                                                        \
	"{\"ok\":false,\"stores\":[{\"store\":\"disk\",\"place\":\"/mnt\",\"error\":\"\",\"objects\":2,"               \
	"\"took_ms\":0,\"again\":" again                                                                               \
	",\"records\":{\"missing\":9},\"sources\":[{\"source\":\"parking\",\"ranges\":[" ranges "]}]}]}"

static void test_repairs(void **state)
{
	(void)state;
	assert_int_equal(
	        run_against(OK REPAIRED("9", "{\"kind\":\"missing\",\"first_seq\":1,\"last_seq\":9,\"again\":9}"),
	                    "audit --repair"),
	        CLI_OK);
	assert_non_null(strstr(request, "POST /v1/audit?repair=1 HTTP/1.1\r\n"));
	assert_string_equal(printed, "disk: /mnt: 2 objects, 0.0 s\n"
	                             "! parking  seq 1 to 9  missing, sent again\n"
	                             "audit: records missing: 9, double: 0, changed: 0; sent again: 9 records\n");
	assert_int_equal(
	        run_against(OK REPAIRED("5", "{\"kind\":\"missing\",\"first_seq\":1,\"last_seq\":6,\"again\":5},"
	                                     "{\"kind\":\"missing\",\"first_seq\":8,\"last_seq\":10,\"again\":0}"),
	                    "audit --since 2026-11-21 --repair"),
	        CLI_ATTENTION);
	assert_non_null(strstr(request, "POST /v1/audit?since=2026-11-21&repair=1 HTTP/1.1\r\n"));
	assert_string_equal(printed,
	                    "disk: /mnt: 2 objects, 0.0 s\n"
	                    "! parking  seq 1 to 6  missing, 5 of 6 sent again, the others are gone\n"
	                    "! parking  seq 8 to 10  missing, gone: the buffer has it no more\n"
	                    "audit: records missing: 9, double: 0, changed: 0; sent again: 5 records, gone for good: "
	                    "4\n");
}

static void test_requests(void **state)
{
	(void)state;
	assert_int_equal(run_against(OK "{\"data\":1}\n{}\n", "tail parking -n 2"), CLI_OK);
	assert_string_equal(printed, "{\"data\":1}\n{}\n");
	assert_non_null(strstr(request, "GET /v1/sources/parking/records?last=2 HTTP/1.1\r\n"));
	assert_int_equal(run_against(OK "{\"batches\":1,\"delivered\":true}", "flush --wait"), CLI_OK);
	assert_string_equal(printed, "sealed 1 batch, all delivered\n");
	assert_non_null(strstr(request, "POST /v1/flush?wait=1 HTTP/1.1\r\n"));
	assert_int_equal(run_against(OK "{\"batches\":0,\"kept_back\":1,\"delivered\":false}", "flush --wait"),
	                 CLI_UNAVAILABLE);
	assert_int_equal(run_against(OK "{\"batches\":1,\"delivered\":false}", "flush"), CLI_OK);
	assert_int_equal(run_against(OK "{\"batches\":[]}", "show batches"), CLI_OK);
	assert_non_null(strstr(request, "GET /v1/batches HTTP/1.1\r\n"));
}

#define CHUNKED "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"

static void test_tail(void **state)
{
	(void)state;
	assert_int_equal(run_against(CHUNKED "3\r\n{}\n\r\n0\r\n\r\n", "tail parking -f -n 0"), CLI_OK);
	assert_string_equal(printed, "{}\n");
	assert_string_equal(complained,
	                    "millrace: source \"parking\" is gone from the configuration: nothing more will "
	                    "come from it\n");
	assert_non_null(strstr(request, "GET /v1/sources/parking/records?last=0&follow=1 HTTP/1.1\r\n"));
	assert_int_equal(run_against(CHUNKED "3\r\n{}\n\r\n0\r\n\r\n", "tail parking"), CLI_OK);
	assert_string_equal(complained, "");
	assert_int_equal(run_against(CHUNKED "3\r\n{}\n\r\n", "tail parking -f"), CLI_UNAVAILABLE);
	assert_string_equal(printed, "{}\n");
	assert_non_null(strstr(complained, " broke off: it stopped, or its answer was read too slowly\n"));
	assert_int_equal(run_against("", "tail parking"), CLI_UNAVAILABLE);
	assert_non_null(strstr(complained, "went away before its answer was complete"));
	assert_int_equal(run(path, "tail parking -f"), CLI_UNAVAILABLE);
	assert_non_null(strstr(complained, "no daemon answers at"));
}

/* A daemon that goes on only when its last line was read at the other end of standard output. */
struct conversation {
	int listener, output;
	size_t lines;
};

static void *converse(void *arg)
{
	struct conversation *conversation = arg;
	char text[256];
	int fd = accept(conversation->listener, NULL, NULL);
	ssize_t n = read(fd, text, sizeof text);
	send(fd, CHUNKED, strlen(CHUNKED), MSG_NOSIGNAL);
	for (; n > 0 && conversation->lines < 3; conversation->lines++) {
		send(fd, "3\r\n{}\n\r\n", 8, MSG_NOSIGNAL);
		n = read(conversation->output, text, sizeof text);
		if (n != 3 || memcmp(text, "{}\n", 3) != 0)
			break;
	}
	close(conversation->output); /* nobody reads any more, while nothing comes */
	while (n > 0)
		n = read(fd, text, sizeof text); /* until the client leaves */
	close(fd);
	return NULL;
}

static void test_tail_prints_as_it_comes(void **state)
{
	(void)state;
	struct conversation conversation = { .listener = bind_path() };
	pthread_t thread;
	int ends[2];
	bool ended = false;
	struct err err = { .text = "" };
	assert_int_equal(pipe(ends), 0);
	conversation.output = ends[0];
	assert_int_equal(listen(conversation.listener, 1), 0);
	assert_int_equal(pthread_create(&thread, NULL, converse, &conversation), 0);
	assert_int_equal(client_stream(path, "/v1/x", ends[1], &ended, &err), CLI_OK);
	pthread_join(thread, NULL);
	close(conversation.listener);
	close(ends[1]);
	unlink(path);
	assert_int_equal(conversation.lines, 3);
	assert_false(ended);
	assert_string_equal(err.text, "");
}

static int stream_to(int out, struct err *err)
{
	bool ended = true;
	struct server server = { .listener = bind_path(), .answer = CHUNKED "3\r\n{}\n\r\n0\r\n\r\n" };
	assert_int_equal(listen(server.listener, 1), 0);
	assert_int_equal(pthread_create(&server.thread, NULL, serve, &server), 0);
	int rc = client_stream(path, "/v1/x", out, &ended, err);
	shutdown(server.listener, SHUT_RDWR); /* it may never have been asked */
	pthread_join(server.thread, NULL);
	close(server.listener);
	close(out);
	unlink(path);
	assert_false(ended);
	return rc;
}

static void test_tail_into_what_takes_no_more(void **state)
{
	(void)state;
	int ends[2];
	struct err err = { .text = "" };
	assert_int_equal(pipe(ends), 0);
	close(ends[0]);
	void (*before)(int) = signal(SIGPIPE, SIG_IGN);
	assert_int_equal(stream_to(ends[1], &err), CLI_OK);
	signal(SIGPIPE, before);
	assert_string_equal(err.text, "");
	assert_int_equal(stream_to(open("/dev/full", O_WRONLY), &err), CLI_CANTCREAT);
	assert_string_equal(err.text, "standard output: No space left on device");
}

static void test_orders(void **state)
{
	(void)state;
	assert_int_equal(run_against(OK "{\"machine\":\"mill\",\"asked\":true}", "wake mill"), CLI_OK);
	assert_string_equal(printed, "mill: asked; `millrace show machines` tells what comes of it\n");
	assert_non_null(strstr(request, "POST /v1/machines/mill/wake HTTP/1.1\r\n"));
	assert_int_equal(run_against(OK "{\"job\":\"parking\",\"asked\":true}", "start parking"), CLI_OK);
	assert_string_equal(printed, "parking: asked; `millrace show machines` tells what comes of it\n");
	assert_non_null(strstr(request, "POST /v1/jobs/parking/start HTTP/1.1\r\n"));
	assert_int_equal(run_against(OK "{\"run\":\"" RUN "\",\"asked\":true}", "cancel " RUN), CLI_OK);
	assert_string_equal(printed, RUN ": asked; `millrace show run " RUN "` tells what comes of it\n");
	assert_non_null(strstr(request, "POST /v1/runs/" RUN "/cancel HTTP/1.1\r\n"));
	assert_int_equal(run_against(OK "{\"run\":\"" RUN "\",\"asked\":true}", "retry " RUN), CLI_OK);
	assert_string_equal(printed, RUN ": asked; `millrace show run " RUN "` tells what comes of it\n");
	assert_non_null(strstr(request, "POST /v1/runs/" RUN "/retry HTTP/1.1\r\n"));
	assert_int_equal(run_against(OK "{\"machine\":\"mill\",\"asked\":true}\n", "wake mill --json"), CLI_OK);
	assert_string_equal(printed, "{\"machine\":\"mill\",\"asked\":true}\n");
}

static void test_orders_refused(void **state)
{
	(void)state;
	static const char *const lines[] = { "wake mill", "start parking", "cancel " RUN, "retry " RUN,
		                             "show run " RUN };
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
		assert_int_equal(run_against(PROBLEM("404"), lines[i]), CLI_USAGE);
		assert_string_equal(complained, "millrace: says ? the daemon\n");
		assert_int_equal(run_against(PROBLEM("409"), lines[i]), CLI_USAGE);
		assert_int_equal(run_against(PROBLEM("503"), lines[i]), CLI_UNAVAILABLE);
		assert_string_equal(printed, "");
		assert_int_equal(run(path, lines[i]), CLI_UNAVAILABLE);
		assert_non_null(strstr(complained, "no daemon answers at"));
	}
}

static void test_shows_of_the_mill(void **state)
{
	(void)state;
	assert_int_equal(run_against(OK "{\"machines\":[],\"jobs\":[]}", "show machines"), CLI_OK);
	assert_non_null(strstr(request, "GET /v1/machines HTTP/1.1\r\n"));
	assert_non_null(strstr(printed, "MACHINE  STATE "));
	assert_int_equal(run_against(OK "{\"runs\":[]}\n", "show runs --json"), CLI_OK);
	assert_non_null(strstr(request, "GET /v1/runs HTTP/1.1\r\n"));
	assert_string_equal(printed, "{\"runs\":[]}\n");
	assert_int_equal(run_against(OK "{\"id\":\"" RUN "\",\"log\":\"a\\u0000b\"}", "show run " RUN), CLI_OK);
	assert_non_null(strstr(request, "GET /v1/runs/" RUN " HTTP/1.1\r\n"));
	assert_non_null(strstr(printed, "\nlog, its end:\n  a?b\n"));
}

static void test_show_rejected_takes_every_byte(void **state)
{
	(void)state;
	assert_int_equal(run_against(OK "{\"rejected\":[{\"excerpt\":\"a\\u0000b\"}]}", "show rejected"), CLI_OK);
	assert_non_null(strstr(printed, "    a\xE2\x90\x80"
	                                "b\n"));
	assert_non_null(strstr(request, "GET /v1/rejected HTTP/1.1\r\n"));
}

static void test_problems(void **state)
{
	(void)state;
	assert_int_equal(run_against(PROBLEM("404"), "tail parking"), CLI_USAGE);
	assert_string_equal(complained, "millrace: says ? the daemon\n");
	assert_string_equal(printed, "");
	assert_int_equal(run_against(PROBLEM("503"), "flush --json"), CLI_UNAVAILABLE);
	assert_string_equal(printed, "");
	assert_int_equal(run_against("HTTP/1.1 500 X\r\nConnection: close\r\n\r\n<html>", "status"), CLI_UNAVAILABLE);
	assert_string_equal(complained, "millrace: the daemon answered with HTTP status 500\n");
	assert_int_equal(run_against(OK "<html>", "status"), CLI_UNAVAILABLE);
	assert_non_null(strstr(complained, "is no Millrace daemon"));
	assert_int_equal(run_against(OK, "status --json"), CLI_UNAVAILABLE);
	assert_int_equal(run_against("", "status"), CLI_UNAVAILABLE);
	assert_non_null(strstr(complained, "went away before its answer was complete"));
	assert_int_equal(run_against("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "status"), CLI_UNAVAILABLE);
	assert_non_null(strstr(complained, "went away before its answer was complete"));
}

static void test_no_daemon(void **state)
{
	(void)state;
	char expected[300], long_path[120];
	assert_int_equal(run(path, "status"), CLI_UNAVAILABLE);
	snprintf(expected, sizeof expected,
	         "millrace: no daemon answers at %s: No such file or directory; is it running? start it with: millrace "
	         "-c FILE run\n",
	         path);
	assert_string_equal(complained, expected);
	close(bind_path());
	assert_int_equal(run(path, "poll parking"), CLI_UNAVAILABLE);
	assert_non_null(strstr(complained, ": Connection refused; is it running?"));
	unlink(path);
	memset(long_path, 'a', sizeof long_path);
	long_path[sizeof long_path - 1] = '\0';
	assert_int_equal(run(long_path, "status"), CLI_UNAVAILABLE);
	assert_non_null(strstr(complained, "longer than a socket's path"));
}

/* root may always ask: there the child takes another user's id, nobody's. */
static void test_forbidden_socket(void **state)
{
	(void)state;
	int listener = bind_path();
	assert_int_equal(listen(listener, 1), 0);
	chmod(path, 0);
	chmod(folder, 0755);
	struct err err = { .text = "" };
	struct bytes body;
	bool root = geteuid() == 0;
	if (root)
		assert_int_equal(seteuid(65534), 0);
	int rc = client_request(path, "GET", "/v1/status", &body, &err);
	if (root)
		assert_int_equal(seteuid(0), 0);
	bytes_done(&body);
	close(listener);
	unlink(path);
	assert_int_equal(rc, CLI_UNAVAILABLE);
	assert_non_null(strstr(err.text, "Permission denied; "));
	assert_non_null(strstr(err.text, root ? "belongs to user root and group" : "belongs to user "));
	assert_non_null(strstr(err.text, "join the group"));
}

static void test_full_output_is_told(void **state)
{
	(void)state;
	int saved[2];
	char *words[] = { (char[]){ "status" }, (char[]){ "--json" }, NULL };
	struct server server = { .listener = bind_path(), .answer = OK "{\"ok\":true}" };
	assert_int_equal(listen(server.listener, 1), 0);
	assert_int_equal(pthread_create(&server.thread, NULL, serve, &server), 0);
	capture(saved);
	int full = open("/dev/full", O_WRONLY);
	int out = dup(1);
	dup2(full, 1);
	int rc = cli_run(path, 2, words);
	clearerr(stdout);
	dup2(out, 1);
	release(saved);
	close(full);
	close(out);
	pthread_join(server.thread, NULL);
	close(server.listener);
	unlink(path);
	assert_int_equal(rc, CLI_CANTCREAT);
	assert_non_null(strstr(complained, "No space left on device"));
}

static int setup(void **state)
{
	(void)state;
	const char *tmp = getenv("TMPDIR");
	alarm(60);
	unsetenv("NO_COLOR");
	setenv("http_proxy", "http://127.0.0.1:9", 1); /* must not be asked */
	snprintf(folder, sizeof folder, "%s/test_cli.XXXXXX", tmp && strlen(tmp) < 40 ? tmp : "/tmp");
	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof path, "%s/api.sock", folder);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	char file[128];
	snprintf(file, sizeof file, "%s/out", folder);
	unlink(file);
	snprintf(file, sizeof file, "%s/err", folder);
	unlink(file);
	return rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_status_all_well),
		cmocka_unit_test(test_status_while_a_source_fails),
		cmocka_unit_test(test_status_while_the_buffer_is_full),
		cmocka_unit_test(test_status_while_the_clock_is_not_right),
		cmocka_unit_test(test_status_needs_attention),
		cmocka_unit_test(test_colour),
		cmocka_unit_test(test_narrow_page),
		cmocka_unit_test(test_show),
		cmocka_unit_test(test_show_config),
		cmocka_unit_test(test_show_rejected),
		cmocka_unit_test(test_show_rejected_in_rows),
		cmocka_unit_test(test_show_machines),
		cmocka_unit_test(test_show_a_machine_that_is_not_known),
		cmocka_unit_test(test_show_machines_in_trouble),
		cmocka_unit_test(test_show_wakes_that_are_held_back),
		cmocka_unit_test(test_show_runs),
		cmocka_unit_test(test_show_run),
		cmocka_unit_test(test_show_run_without_all_stages),
		cmocka_unit_test(test_poll_lines),
		cmocka_unit_test(test_flush_lines),
		cmocka_unit_test(test_answers_of_another_shape),
		cmocka_unit_test(test_arguments_taken),
		cmocka_unit_test(test_arguments_refused),
		cmocka_unit_test(test_arguments_of_the_mill_refused),
		cmocka_unit_test(test_status_exits),
		cmocka_unit_test(test_ready_prints_nothing),
		cmocka_unit_test(test_poll_exits),
		cmocka_unit_test(test_audits),
		cmocka_unit_test(test_repairs),
		cmocka_unit_test(test_retry_prints_both),
		cmocka_unit_test(test_requests),
		cmocka_unit_test(test_tail),
		cmocka_unit_test(test_tail_prints_as_it_comes),
		cmocka_unit_test(test_tail_into_what_takes_no_more),
		cmocka_unit_test(test_orders),
		cmocka_unit_test(test_orders_refused),
		cmocka_unit_test(test_shows_of_the_mill),
		cmocka_unit_test(test_show_rejected_takes_every_byte),
		cmocka_unit_test(test_problems),
		cmocka_unit_test(test_no_daemon),
		cmocka_unit_test(test_forbidden_socket),
		cmocka_unit_test(test_full_output_is_told),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
