/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `check --online` says of stores: folders of the test's own, and a server on a thread that gives prepared answers
 * one after the other, each on a connection of its own, and remembers what was asked.
 */
#include <arpa/inet.h>
#include <pthread.h>
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

#include "agent/config.h"
#include "agent/online.h"
#include "cli/cli.h"

#define TEXT_MAX 4096

static char folder[64];
static char said[TEXT_MAX], wrong[TEXT_MAX]; /* by the last check, the server's port as PORT and the folder as DIR */
static char asked[TEXT_MAX];                 /* the request lines */

struct server {
	pthread_t thread;
	int listener, port;
	const char *const *answers; /* the next ones; ended by NULL */
};

static void read_request(int fd)
{
	char request[TEXT_MAX], *end = NULL;
	size_t len = 0, body = 0;
	while (len < sizeof request - 1 && (!end || len < (size_t)(end - request) + body)) {
		ssize_t n = read(fd, request + len, sizeof request - 1 - len);
		if (n <= 0)
			break;
		len += (size_t)n;
		request[len] = '\0';
		end = strstr(request, "\r\n\r\n");
		end = end ? end + 4 : NULL;
		const char *length = strstr(request, "Content-Length: ");
		body = length ? strtoul(length + 16, NULL, 10) : 0;
	}
	size_t at = strlen(asked);
	snprintf(asked + at, sizeof asked - at, "%.*s\n", (int)strcspn(request, "\r"), request);
}

static void *serve(void *arg)
{
	struct server *server = arg;
	for (int fd; *server->answers && (fd = accept(server->listener, NULL, NULL)) >= 0; server->answers++) {
		read_request(fd);
		send(fd, *server->answers, strlen(*server->answers), MSG_NOSIGNAL);
		shutdown(fd, SHUT_WR);
		while (read(fd, &(char){ 0 }, 1) > 0)
			;
		close(fd);
	}
	return NULL;
}

static void listen_on(struct server *server)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof address;
	server->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(server->listener, (struct sockaddr *)&address, sizeof address), 0);
	assert_int_equal(listen(server->listener, 8), 0);
	assert_int_equal(getsockname(server->listener, (struct sockaddr *)&address, &len), 0);
	server->port = ntohs(address.sin_port);
}

static void replace(char *text, const char *word, const char *by)
{
	char copy[TEXT_MAX];
	for (char *at = text; (at = strstr(at, word));) {
		snprintf(copy, sizeof copy, "%s", at + strlen(word));
		at += snprintf(at, (size_t)(text + TEXT_MAX - at), "%s", by);
		snprintf(at, (size_t)(text + TEXT_MAX - at), "%s", copy);
	}
}

static int check(const char *stores, int port)
{
	char path[100], number[16], text[TEXT_MAX];
	struct config *config;
	snprintf(path, sizeof path, "%s/x.conf", folder);
	snprintf(number, sizeof number, ":%d", port);
	snprintf(text, sizeof text, "%s", stores);
	replace(text, ":PORT", number);
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
	assert_int_equal(config_load(path, CONFIG_RUN, stderr, &config), 0);
	memset(said, 0, sizeof said);
	memset(wrong, 0, sizeof wrong);
	FILE *out = fmemopen(said, sizeof said - 1, "w"), *errors = fmemopen(wrong, sizeof wrong - 1, "w");
	int status = online_check(config, out, errors);
	fclose(out);
	fclose(errors);
	config_free(config);
	char *const texts[] = { said, wrong };
	for (int i = 0; i < 2; i++) {
		replace(texts[i], folder, "DIR");
		replace(texts[i], number, ":PORT");
	}
	return status;
}

#define LAKE                                                                                                           \
	"stores = { lake = { kind = \"s3\" endpoint = \"http://127.0.0.1:PORT\" bucket = \"lake\" prefix = "           \
	"\"landing\" "                                                                                                 \
	"access_key = \"key\" secret_key = \"hunter2\" timeout = \"5s\" } }"
#define PLACE "store lake: http://127.0.0.1:PORT/lake/landing: "

static int check_against(const char *const *answers)
{
	struct server server = { .answers = answers };
	listen_on(&server);
	asked[0] = '\0';
	assert_int_equal(pthread_create(&server.thread, NULL, serve, &server), 0);
	int status = check(LAKE, server.port);
	shutdown(server.listener, SHUT_RDWR); /* ends an accept that nobody comes to */
	pthread_join(server.thread, NULL);
	close(server.listener);
	assert_null(*server.answers); /* all were asked for */
	assert_null(strstr(wrong, "hunter2"));
	return status;
}

#define ANSWER(status, type, body)                                                                                     \
	"HTTP/1.1 " status " X\r\nServer: MinIO\r\nx-amz-request-id: 1\r\nETag: \"a\"\r\nConnection: close\r\n"        \
	"Content-Type: " type "\r\n\r\n" body
#define XML "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
#define FAILED(status, code)                                                                                           \
	ANSWER(status, "application/xml", XML "<Error><Code>" code "</Code><Message>m</Message></Error>")
#define WRITTEN ANSWER("200", "text/plain", "")
#define EXISTS  FAILED("412", "PreconditionFailed")
#define HEAD    "HTTP/1.1 200 OK\r\nx-amz-request-id: 1\r\nETag: \"a\"\r\nContent-Length: 61\r\nConnection: close\r\n\r\n"
#define LISTED                                                                                                         \
	ANSWER("200", "application/xml",                                                                               \
	       XML "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>lake</Name>"             \
	           "<Prefix>landing/</Prefix><KeyCount>0</KeyCount><MaxKeys>1000</MaxKeys>"                            \
	           "<IsTruncated>false</IsTruncated></ListBucketResult>")

static void test_a_store_that_honours_it(void **state)
{
	(void)state;
	assert_int_equal(check_against((const char *[]){ EXISTS, HEAD, LISTED, NULL }), CLI_OK);
	assert_string_equal(wrong, "");
	assert_string_equal(said, PLACE "fine, honours If-None-Match\n");
	static const char expected[] = "PUT /lake/landing/.millrace-probe HTTP/1.1\n"
	                               "HEAD /lake/landing/.millrace-probe HTTP/1.1\n"
	                               "GET /lake?";
	assert_memory_equal(asked, expected, strlen(expected));
	assert_int_equal(check_against((const char *[]){ WRITTEN, EXISTS, HEAD, LISTED, NULL }), CLI_OK);
	assert_string_equal(said, PLACE "fine, honours If-None-Match\n");
}

static void test_a_store_that_does_not(void **state)
{
	(void)state;
	static const char told[] = PLACE "fine, does not honour If-None-Match: a HEAD comes before each PUT\n";
	assert_int_equal(check_against((const char *[]){ WRITTEN, WRITTEN, HEAD, LISTED, NULL }), CLI_OK);
	assert_string_equal(said, told);
	assert_int_equal(check_against((const char *[]){ FAILED("501", "NotImplemented"), HEAD, LISTED, NULL }),
	                 CLI_OK);
	assert_string_equal(said, told);
}

static void expect_refusal(const char *const *answers, const char *beginning, const char *detail)
{
	assert_int_equal(check_against(answers), CLI_UNAVAILABLE);
	assert_string_equal(said, "");
	if (strncmp(wrong, beginning, strlen(beginning)) != 0 || !strstr(wrong, detail))
		fail_msg("not \"%s…%s\": %s", beginning, detail, wrong);
}

static void test_what_is_refused(void **state)
{
	(void)state;
	expect_refusal((const char *[]){ FAILED("403", "SignatureDoesNotMatch"), NULL },
	               PLACE "writing .millrace-probe: ", "SignatureDoesNotMatch");
	expect_refusal((const char *[]){ FAILED("404", "NoSuchBucket"), NULL },
	               PLACE "writing .millrace-probe: ", "NoSuchBucket");
	expect_refusal((const char *[]){ FAILED("503", "SlowDown"), NULL }, PLACE "writing .millrace-probe: ", "503");
	expect_refusal(
	        (const char *[]){ EXISTS, "HTTP/1.1 403 X\r\nx-amz-request-id: 1\r\nConnection: close\r\n\r\n", NULL },
	        PLACE "reading .millrace-probe: ", "403");
	expect_refusal((const char *[]){ EXISTS, HEAD, FAILED("403", "AccessDenied"), NULL },
	               PLACE "listing what is below the prefix: ", "AccessDenied");
	expect_refusal(
	        (const char *[]){ "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html>",
	                          NULL },
	        PLACE "writing .millrace-probe: ", "");
}

static void test_clocks_that_differ(void **state)
{
	(void)state;
	static const char skewed[] =
	        "HTTP/1.1 403 X\r\nx-amz-request-id: 1\r\nDate: Sat, 21 Nov 2026 10:02:00 GMT\r\nConnection: close\r\n"
	        "Content-Type: application/xml\r\n\r\n" XML "<Error><Code>RequestTimeTooSkewed</Code></Error>";
	assert_int_equal(check_against((const char *[]){ skewed, EXISTS, HEAD, LISTED, NULL }), CLI_OK);
	expect_refusal((const char *[]){ skewed, skewed, NULL },
	               PLACE "writing .millrace-probe: ", "RequestTimeTooSkewed");
}

static void test_a_store_out_of_reach(void **state)
{
	(void)state;
	struct server server = { 0 };
	listen_on(&server);
	close(server.listener);
	assert_int_equal(check(LAKE, server.port), CLI_UNAVAILABLE);
	assert_string_equal(said, "");
	assert_memory_equal(wrong, PLACE, strlen(PLACE));
}

static void test_folders(void **state)
{
	(void)state;
	char path[100];
	snprintf(path, sizeof path, "%s/lake", folder);
	assert_int_equal(mkdir(path, 0700), 0);
	static const char stores[] = "stores = { a = { kind = \"file\" path = \"lake\" } "
	                             "b = { kind = \"file\" path = \"none\" } "
	                             "c = { kind = \"file\" path = \"x.conf\" } }";
	assert_int_equal(check(stores, 0), CLI_UNAVAILABLE);
	assert_string_equal(said, "store a: DIR/lake: fine, this user may write there\n");
	assert_string_equal(wrong, "store b: DIR/none: the folder does not exist: create it, or mount its disk\n"
	                           "store c: DIR/x.conf: it is no folder\n");
	assert_int_equal(rmdir(path), 0); /* nothing was left in it */
}

static void test_the_folder_that_is_made(void **state)
{
	(void)state;
	assert_int_equal(check("buffer = { path = \"b.db\" }", 0), CLI_OK);
	assert_string_equal(said, "store local: DIR/objects: fine, it will be made\n");
	assert_int_equal(check("buffer = { path = \"none/b.db\" }", 0), CLI_UNAVAILABLE);
	assert_string_equal(wrong,
	                    "store local: DIR/none/objects: DIR/none, in which it would be made: the folder does "
	                    "not exist: create it, or mount its disk\n");
}

static int make_folder(void **state)
{
	(void)state;
	const char *tmp = getenv("TMPDIR");
	alarm(60); /* a question too few would leave the server waiting */
	snprintf(folder, sizeof folder, "%s/test_online.XXXXXX", tmp && strlen(tmp) < 40 ? tmp : "/tmp");
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	(void)state;
	char path[100];
	snprintf(path, sizeof path, "%s/x.conf", folder);
	(void)unlink(path);
	return rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_store_that_honours_it), cmocka_unit_test(test_a_store_that_does_not),
		cmocka_unit_test(test_what_is_refused),         cmocka_unit_test(test_clocks_that_differ),
		cmocka_unit_test(test_a_store_out_of_reach),    cmocka_unit_test(test_folders),
		cmocka_unit_test(test_the_folder_that_is_made),
	};
	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
