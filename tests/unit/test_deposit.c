/* SPDX-License-Identifier: Apache-2.0 */
/* Into a folder of the test's own, and to a server of its loop. The definition of fsync below takes the C library's
 * place in this program. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <ftw.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/deposit.h"
#include "base/sha256.h"
#include "buffer/store_file.h"
#include "buffer/store_s3.h"
#include "tests/unit/loopback.h"

#define RUN      "_runs/parking/0198aa10f3b2c4d5e6f708192a3b4c5d"
#define MANIFEST RUN "/manifest.json"
#define PLACE    "/lake/landing/" RUN
#define LARGE    300000

static uv_loop_t loop;
static struct http *http;
static struct loopback server;
static struct loopback_route routes[2];

static char root[64], folder[80];
static struct store_file_settings folder_settings;
static struct config_store disk = { .name = (char *)"disk", .settings = &folder_settings };
static struct s3_settings s3_settings;
static struct config_store lake = { .name = (char *)"lake", .settings = &s3_settings };

static struct deposit *deposit;
static struct bytes data;

/* What was told. */
static int ends, closes, status;
static struct err err;

/* A disk that hangs, once. */
static atomic_bool hold;
static uv_sem_t begun, go_on;

int fsync(int fd)
{
	char link[64], path[512];
	ssize_t n;

	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof path - 1);
	path[n > 0 ? n : 0] = '\0';
	if (strstr(path, ".json.tmp") && atomic_exchange(&hold, false)) {
		uv_sem_post(&begun);
		uv_sem_wait(&go_on);
	}
	return (int)syscall(SYS_fsync, fd);
}

static void on_end(void *arg, int end_status, const struct err *end_err)
{
	assert_ptr_equal(arg, &loop);
	ends++;
	status = end_status;
	err = *end_err;
}

static void on_closed(void *arg)
{
	++*(int *)arg;
}

static void set_s3(const char *name, const char *value)
{
	assert_int_equal(option_set(option_find(store_kind_s3.options, name), &s3_settings, value, &err), 0);
}

static void set_data(const char *text)
{
	bytes_clear(&data);
	assert_int_equal(bytes_add_text(&data, text), 0);
}

static int set_up(void **state)
{
	const char *tmp = getenv("TMPDIR");
	uint8_t digest[SHA256_SIZE];
	struct sha256 hash;

	(void)state;
	sha256_init(&hash); /* its first use is on one thread */
	sha256_finish(&hash, digest);
	snprintf(root, sizeof root, "%s/test_deposit.XXXXXX", tmp && strlen(tmp) < 40 ? tmp : "/tmp");
	assert_non_null(mkdtemp(root));
	snprintf(folder, sizeof folder, "%s/lake", root);
	assert_int_equal(mkdir(folder, 0755), 0);
	folder_settings.path = folder;
	disk.kind = &store_kind_file;
	lake.kind = &store_kind_s3;
	lake.access_key = (char *)"key";
	lake.secret_key = (char *)"hunter2";
	assert_int_equal(uv_loop_init(&loop), 0);
	assert_int_equal(http_new(&loop, "millrace-test/1", &http), 0);
	loopback_start(&loop, &server, routes);
	assert_int_equal(option_defaults(store_kind_s3.options, &s3_settings), 0);
	set_s3("endpoint", loopback_url(&server, ""));
	set_s3("bucket", "lake");
	set_s3("prefix", "landing");
	bytes_init(&data, 1 << 20);
	set_data("{\"version\":1}");
	uv_sem_init(&begun, 0);
	uv_sem_init(&go_on, 0);
	ends = closes = status = 0;
	hold = false;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static int tear_down(void **state)
{
	int closed = 0;

	(void)state;
	assert_int_equal(http_active(http), 0);
	http_close(http, on_closed, &closed);
	loopback_stop(&server);
	assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
	assert_int_equal(closed, 1);
	assert_int_equal(uv_loop_close(&loop), 0);
	uv_sem_destroy(&begun);
	uv_sem_destroy(&go_on);
	option_done(store_kind_s3.options, &s3_settings);
	bytes_done(&data);
	nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	return 0;
}

static void start(const struct config_store *store, const char *key)
{
	char passing[OBJECT_KEY_MAX]; /* it is copied */
	const struct deposit_request request = {
		.loop = &loop,
		.http = http,
		.store = store,
		.key = passing,
		.data = &data,
		.on_end = on_end,
		.arg = &loop,
	};

	snprintf(passing, sizeof passing, "%s", key);
	assert_int_equal(deposit_start(&request, &deposit), 0);
	memset(passing, 'x', sizeof passing);
	assert_int_equal(ends, 0);
}

/* A deposit to its end: its status. */
static int bring(const struct config_store *store, const char *key)
{
	err.text[0] = '\0';
	ends = 0;
	start(store, key);
	while (ends == 0)
		loopback_turn(&loop);
	assert_int_equal(ends, 1);
	return status;
}

static void cancel(void)
{
	deposit_cancel(deposit, on_closed, &closes);
}

static void wait_closed(void)
{
	while (closes == 0)
		loopback_turn(&loop);
	assert_int_equal(closes, 1);
	assert_int_equal(ends, 0);
}

static char *at(const char *name)
{
	static char path[512];

	snprintf(path, sizeof path, "%s/%s", folder, name);
	return path;
}

static void assert_holds(const char *name, const char *text)
{
	char content[256];
	FILE *file = fopen(at(name), "rb");

	assert_non_null(file);
	content[fread(content, 1, sizeof content - 1, file)] = '\0';
	fclose(file);
	assert_string_equal(content, text);
}

static void assert_absent(const char *name)
{
	assert_int_equal(access(at(name), F_OK), -1);
}

static void assert_said(const char *beginning, const char *detail)
{
	if (strncmp(err.text, beginning, strlen(beginning)) != 0 || !strstr(err.text, detail))
		fail_msg("not \"%s…%s\": %s", beginning, detail, err.text);
	assert_null(strstr(err.text, "hunter2"));
}

static void leave_mark(void)
{
	fclose(fopen(at(".millrace-store"), "wb"));
}

/* --- A folder --- */

static void test_a_folder_gets_it(void **state)
{
	(void)state;
	leave_mark();
	assert_int_equal(bring(&disk, MANIFEST), 0);
	assert_holds(MANIFEST, "{\"version\":1}");
	set_data("{}");
	assert_int_equal(bring(&disk, MANIFEST), 0);
	assert_holds(MANIFEST, "{}");
	assert_absent(MANIFEST ".tmp");
}

/* Also of the embedded store: who has lost it must not be given an empty one unasked. */
static void test_a_folder_that_is_not_there(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		disk.embedded = i == 1;
		assert_int_equal(mkdir(folder, 0755), i == 1 ? 0 : -1);
		assert_int_equal(bring(&disk, MANIFEST), -ENODEV);
		assert_said("store \"disk\": \"", "has no .millrace-store: is its disk not mounted?");
		assert_int_equal(rmdir(folder), 0); /* nothing was left in it */
		assert_int_equal(bring(&disk, MANIFEST), -ENOENT);
		assert_said("store \"disk\": the folder \"", "does not exist");
		assert_int_equal(access(folder, F_OK), -1);
	}
	disk.embedded = false;
}

static void test_a_full_disk(void **state)
{
	struct rlimit all, few = { 0 };

	(void)state;
	leave_mark();
	assert_int_equal(bring(&disk, MANIFEST), 0);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(bytes_add_text(&data, "{\"version\":1}"), 0);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &all), 0);
	few = (struct rlimit){ .rlim_cur = 8192, .rlim_max = all.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &few), 0);
	bring(&disk, MANIFEST);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &all), 0);
	assert_int_equal(status, -EFBIG);
	assert_said("store \"disk\": \"", MANIFEST "\": File too large");
	assert_holds(MANIFEST, "{\"version\":1}");
	assert_absent(MANIFEST ".tmp");
	assert_int_equal(bring(&disk, MANIFEST), 0);
}

static void test_what_stands_in_the_way(void **state)
{
	(void)state;
	leave_mark();
	fclose(fopen(at("_runs"), "wb"));
	assert_int_equal(bring(&disk, MANIFEST), -EEXIST);
	assert_said("store \"disk\": \"", "/_runs\" stands in the way");
	assert_holds("_runs", "");
}

/* --- An s3 --- */

#define ANSWER(code, type, body)                                                                                       \
	"HTTP/1.1 " code " X\r\nServer: MinIO\r\nx-amz-request-id: 1\r\nContent-Type: " type "\r\n"                    \
	"Connection: close\r\n\r\n" body
#define XML "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
#define FAILED(status_code, code)                                                                                      \
	ANSWER(status_code, "application/xml", XML "<Error><Code>" code "</Code><Message>m</Message></Error>")
#define TAKEN "HTTP/1.1 200 OK\r\nx-amz-request-id: 1\r\nETag: \"a\"\r\nContent-Length: 0\r\n\r\n"
#define SKEWED                                                                                                         \
	"HTTP/1.1 403 X\r\nx-amz-request-id: 1\r\nDate: Sat, 21 Nov 2015 10:02:00 GMT\r\nConnection: close\r\n"        \
	"Content-Type: application/xml\r\n\r\n" XML "<Error><Code>RequestTimeTooSkewed</Code></Error>"

/* What the server says from now on. */
static void answer(const char *path, const char *text)
{
	routes[0] =
	        (struct loopback_route){ path, text, text && strstr(text, "close") ? LOOPBACK_CLOSE : LOOPBACK_KEEP };
}

static void assert_asked(const char *line)
{
	if (!strcasestr(server.last_head, line))
		fail_msg("no \"%s\" in: %s", line, server.last_head);
}

static void test_an_s3_gets_it(void **state)
{
	(void)state;
	answer(PLACE "/manifest.json", TAKEN);
	assert_int_equal(bring(&lake, MANIFEST), 0);
	assert_asked("PUT " PLACE "/manifest.json HTTP/1.1\r\n");
	assert_asked("\r\nContent-Type: application/json\r\n");
	assert_asked("\r\nContent-Length: 13\r\n");
	assert_asked("\r\nx-amz-checksum-sha256: JDDxoq0pgtAGeIVIikyJ4hrR18g7EVuo8bIKzIjfrqg=\r\n");
	assert_asked("\r\nAuthorization: AWS4-HMAC-SHA256 Credential=key/");
	assert_null(strcasestr(server.last_head, "if-none-match"));
	assert_memory_equal(server.last_body, "{\"version\":1}", 13);
	/* And a log, of many pieces. */
	bytes_clear(&data);
	assert_int_equal(bytes_reserve(&data, LARGE), 0);
	for (data.len = 0; data.len < LARGE; data.len++)
		data.data[data.len] = (unsigned char)(data.len * 2654435761U >> 24);
	answer(PLACE "/log.gz", TAKEN);
	assert_int_equal(bring(&lake, RUN "/log.gz"), 0);
	assert_asked("\r\nContent-Type: application/gzip\r\n");
	assert_int_equal(server.last_body_len, LARGE);
	assert_memory_equal(server.last_body, data.data, LARGE);
}

static void test_clocks_that_differ(void **state)
{
	(void)state;
	answer(PLACE "/manifest.json", SKEWED);
	start(&lake, MANIFEST);
	while (server.requests == 0)
		loopback_turn(&loop);
	answer(PLACE "/manifest.json", TAKEN);
	while (ends == 0)
		loopback_turn(&loop);
	assert_int_equal(status, 0);
	assert_int_equal(server.requests, 2);
	assert_asked("\r\nx-amz-date: 20151121T");
	assert_int_equal(server.last_body_len, 13);
	/* But not for ever. */
	answer(PLACE "/manifest.json", SKEWED);
	assert_int_equal(bring(&lake, MANIFEST), -EIO);
	assert_int_equal(server.requests, 4);
	assert_said("store \"lake\": ", "clock");
}

static void test_what_an_s3_refuses(void **state)
{
	static const struct {
		const char *answer;
		int status;
		const char *detail;
	} cases[] = {
		{ FAILED("403", "AccessDenied"), -EACCES, "403 AccessDenied" },
		{ FAILED("404", "NoSuchBucket"), -EACCES, "NoSuchBucket" },
		{ FAILED("503", "SlowDown"), -EIO, "503 SlowDown" },
		{ FAILED("412", "PreconditionFailed"), -EIO, "412" },
		{ ANSWER("200", "text/html", "<html>"), -EPROTO, "no S3 answers" },
		{ ANSWER("200", "application/xml", XML "<ListBucketResult></ListBucketResult>"), -EPROTO, "no ETag" },
		{ "HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n", -EIO, "404" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		answer(PLACE "/manifest.json", cases[i].answer);
		assert_int_equal(bring(&lake, MANIFEST), cases[i].status);
		assert_said("store \"lake\": ", cases[i].detail);
	}
	assert_int_equal(server.requests, sizeof cases / sizeof *cases);
	set_s3("endpoint", "http://127.0.0.1:1");
	assert_int_equal(bring(&lake, MANIFEST), -EIO);
	assert_said("store \"lake\": ", "127.0.0.1");
}

/* --- Cancelling --- */

/* Others get it beside the one that hangs, whose file must not be taken for theirs, nor theirs for its. */
static void test_cancelling_while_the_disk_hangs(void **state)
{
	(void)state;
	leave_mark();
	hold = true;
	start(&disk, MANIFEST);
	uv_sem_wait(&begun);
	assert_holds(MANIFEST ".tmp", "{\"version\":1}");
	cancel();
	for (int i = 0; i < 20; i++)
		loopback_turn(&loop);
	assert_int_equal(closes, 0);
	assert_int_equal(bring(&disk, MANIFEST), 0);
	assert_holds(MANIFEST, "{\"version\":1}");
	hold = true;
	ends = 0;
	start(&disk, MANIFEST);
	uv_sem_wait(&begun); /* the next one has a file of its own under the temporary name, as the first one goes on */
	uv_sem_post(&go_on);
	uv_sem_post(&go_on);
	while (ends == 0 || closes == 0)
		loopback_turn(&loop);
	assert_int_equal(status, 0);
	assert_int_equal(ends, 1);
	assert_int_equal(closes, 1);
	assert_holds(MANIFEST, "{\"version\":1}");
	assert_absent(MANIFEST ".tmp");
}

static void test_cancelling_while_an_s3_says_nothing(void **state)
{
	(void)state;
	answer(PLACE "/manifest.json", NULL);
	start(&lake, MANIFEST);
	while (server.requests == 0)
		loopback_turn(&loop);
	assert_int_equal(http_active(http), 1);
	cancel();
	assert_int_equal(http_active(http), 0);
	wait_closed();
}

/* After any number of turns: either the end is told or the closing, once. */
static void test_cancelling_at_any_time(void **state)
{
	const struct config_store *const stores[] = { &disk, &lake };

	(void)state;
	leave_mark();
	answer(PLACE "/manifest.json", TAKEN);
	for (int i = 0; i < 40; i++) {
		ends = closes = 0;
		start(stores[i % 2], MANIFEST);
		for (int turns = 0; turns < i / 2; turns++)
			uv_run(&loop, UV_RUN_NOWAIT);
		if (ends == 0) {
			cancel();
			wait_closed();
		}
		assert_int_equal(ends + closes, 1);
		assert_absent(MANIFEST ".tmp");
		if (access(at(MANIFEST), F_OK) == 0)
			assert_holds(MANIFEST, "{\"version\":1}");
	}
}

int main(void)
{
	alarm(60); /* a hang fails */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_a_folder_gets_it),
		TEST(test_a_folder_that_is_not_there),
		TEST(test_a_full_disk),
		TEST(test_what_stands_in_the_way),
		TEST(test_an_s3_gets_it),
		TEST(test_clocks_that_differ),
		TEST(test_what_an_s3_refuses),
		TEST(test_cancelling_while_the_disk_hangs),
		TEST(test_cancelling_while_an_s3_says_nothing),
		TEST(test_cancelling_at_any_time),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
