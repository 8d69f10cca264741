/* SPDX-License-Identifier: Apache-2.0 */
/* Standard error is a datagram socket here, so that one read is one write(2) of the log. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/units.h"
#include "leap.h"

static int saved_stderr, reader;
static char line[8192];

static int setup(void **state)
{
	(void)state;
	int ends[2];
	if (socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) < 0)
		return -1;
	reader = ends[0];
	saved_stderr = dup(STDERR_FILENO);
	dup2(ends[1], STDERR_FILENO);
	close(ends[1]);
	unsetenv("JOURNAL_STREAM");
	log_init(LOG_TEXT);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	dup2(saved_stderr, STDERR_FILENO);
	close(saved_stderr);
	close(reader);
	unsetenv("JOURNAL_STREAM");
	return 0;
}

/* The one line that was written, without its line break. */
static const char *written(void)
{
	ssize_t n = recv(reader, line, sizeof line - 1, MSG_DONTWAIT);
	assert_true(n > 0 && n <= 1024);
	line[n] = '\0';
	assert_ptr_equal(strchr(line, '\n'), line + n - 1);
	line[n - 1] = '\0';
	char more;
	assert_int_equal(recv(reader, &more, 1, MSG_DONTWAIT), -1);
	return line;
}

/* What stands behind the time, which must be now. */
static const char *behind_time(const char *text)
{
	char time[UNITS_TEXT_MAX];
	int64_t ms;
	snprintf(time, sizeof time, "%.24s", text);
	assert_int_equal(units_parse_time(time, &ms), 0);
	assert_in_range(clock_wall_ms() - ms, 0, 60000);
	return text + 24;
}

static void set_journal(int off_by)
{
	struct stat st;
	assert_int_equal(fstat(STDERR_FILENO, &st), 0);
	char stream[64];
	snprintf(stream, sizeof stream, "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino + (uintmax_t)off_by);
	setenv("JOURNAL_STREAM", stream, 1);
	log_init(LOG_TEXT);
}

static void test_text(void **state)
{
	(void)state;
	log_warning("source.failed", "source \"%s\": status %d", "parking", 503);
	assert_string_equal(behind_time(written()), " warning source.failed: source \"parking\": status 503");
	log_error("a", "b");
	assert_string_equal(behind_time(written()), " error a: b");
	log_notice("a", "b");
	assert_string_equal(behind_time(written()), " notice a: b");
	log_info("a", "b");
	assert_string_equal(behind_time(written()), " info a: b");
}

static void test_journal(void **state)
{
	(void)state;
	set_journal(0);
	log_error("store.absent", "disk is not mounted");
	assert_string_equal(written(), "<3>store.absent: disk is not mounted");
	log_info("agent.started", "0.1.0");
	assert_string_equal(written(), "<6>agent.started: 0.1.0");
}

/* The variable is inherited by whoever redirects standard error to a file. */
static void test_another_journal(void **state)
{
	(void)state;
	set_journal(1);
	log_info("a", "b");
	assert_string_equal(behind_time(written()), " info a: b");
}

static void test_controls_and_wrong_utf8(void **state)
{
	(void)state;
	set_journal(0);
	log_info("a", "one\ntwo\r\tthree\x1b[31m\x7f\xc2\x85\xe2\x80\xa8\xe2\x80\xa9 blå 🅿");
	assert_string_equal(written(), "<6>a: one two  three [31m     blå 🅿");
	log_info("a", "\xff|\xc3|\xc0\xaf|\xed\xa0\x80|\xf4\x90\x80\x80|\xe2\x82");
	assert_string_equal(written(), "<6>a: �|�|��|���|����|��");
}

static void test_json(void **state)
{
	(void)state;
	log_init(LOG_JSON);
	log_notice("batch.sealed", "say \"hi\"\\\n\x01 bl\xe5 blå 🅿");
	const char *text = written();
	assert_memory_equal(text, "{\"time\":\"", 9);
	assert_string_equal(behind_time(text + 9), "\",\"level\":\"notice\",\"event\":\"batch.sealed\","
	                                           "\"message\":\"say \\\"hi\\\"\\\\   bl� blå 🅿\"}");
	json_t *root = json_loads(text, 0, NULL);
	assert_non_null(root);
	assert_string_equal(json_string_value(json_object_get(root, "message")), "say \"hi\"\\   bl� blå 🅿");
	json_decref(root);
}

/* Whatever a line ends in, it is a whole one: four bytes a character, each offset, both formats. */
static void test_long_lines(void **state)
{
	(void)state;
	for (int format = LOG_TEXT; format <= LOG_JSON; format++) {
		log_init((enum log_format)format);
		for (size_t offset = 0; offset < 4; offset++) {
			char text[6000] = "abcd";
			for (size_t at = offset; at + 4 < sizeof text; at += 4)
				memcpy(text + at, "🅿", 5);
			log_info("a", "%s", text);
			size_t len = strlen(written());
			assert_in_range(len, 1020, 1023);
			const char *end = format == LOG_JSON ? "🅿\"}" : "🅿";
			assert_string_equal(line + len - strlen(end), end);
		}
	}
}

static void test_long_quotes(void **state)
{
	(void)state;
	char text[3000];
	memset(text, '"', sizeof text);
	text[sizeof text - 1] = '\0';
	log_init(LOG_JSON);
	log_info("a", "%s", text);
	json_t *root = json_loads(written(), 0, NULL);
	assert_non_null(root);
	json_decref(root);
	log_info("bc", "%s", text);
	root = json_loads(written(), 0, NULL);
	assert_non_null(root);
	json_decref(root);
}

/* How many lines come of n events, the last of which is left in `line`. */
static int count_lines(const char *id, int n)
{
	int lines = 0;
	for (int i = 0; i < n; i++) {
		log_info(id, "%d", i);
		ssize_t got = recv(reader, line, sizeof line - 1, MSG_DONTWAIT);
		if (got <= 0)
			continue;
		lines++;
		line[got - 1] = '\0';
	}
	return lines;
}

static void test_bursts_are_cut(void **state)
{
	(void)state;
	set_journal(0);
	assert_int_equal(count_lines("burst", LOG_BURST + 13), LOG_BURST);
	assert_string_equal(line, "<6>burst: 119");
	assert_int_equal(count_lines("other", 1), 1);
	leapt_s += 3600 / LOG_BURST;
	assert_int_equal(count_lines("burst", 2), 1);
	assert_string_equal(line, "<6>burst: 0 (13 more like it were left out)");
	leapt_s += 3600 / LOG_BURST;
	assert_int_equal(count_lines("burst", 1), 1);
	assert_string_equal(line, "<6>burst: 0 (1 more like it was left out)");
	leapt_s += 7 * 24 * 3600;
	assert_int_equal(count_lines("burst", 3 * LOG_BURST), LOG_BURST);
}

/* The news of those that were left out is not cut off. */
static void test_long_line_after_a_burst(void **state)
{
	(void)state;
	char text[3000];
	memset(text, 'a', sizeof text);
	text[sizeof text - 1] = '\0';
	count_lines("long", LOG_BURST + 2);
	leapt_s += 3600;
	log_init(LOG_JSON);
	log_info("long", "%s", text);
	json_t *root = json_loads(written(), 0, NULL);
	assert_non_null(root);
	assert_non_null(
	        strstr(json_string_value(json_object_get(root, "message")), "aaa (2 more like it were left out)"));
	json_decref(root);
}

/* However many ids there are, each has at least what all others beyond the table share. */
static void test_more_ids_than_are_told_apart(void **state)
{
	(void)state;
	char id[32];
	int lines = 0;
	set_journal(0);
	for (int i = 0; i < 100; i++) {
		snprintf(id, sizeof id, "many.%d", i);
		lines += count_lines(id, 100);
	}
	assert_in_range(lines, 30 * 100 + LOG_BURST, 64 * 100 + LOG_BURST);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_text, setup, teardown),
		cmocka_unit_test_setup_teardown(test_journal, setup, teardown),
		cmocka_unit_test_setup_teardown(test_another_journal, setup, teardown),
		cmocka_unit_test_setup_teardown(test_controls_and_wrong_utf8, setup, teardown),
		cmocka_unit_test_setup_teardown(test_json, setup, teardown),
		cmocka_unit_test_setup_teardown(test_long_lines, setup, teardown),
		cmocka_unit_test_setup_teardown(test_long_quotes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bursts_are_cut, setup, teardown),
		cmocka_unit_test_setup_teardown(test_long_line_after_a_burst, setup, teardown),
		cmocka_unit_test_setup_teardown(test_more_ids_than_are_told_apart, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
