/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/http.h"
#include "tests/unit/loopback.h"

#define OK          "HTTP/1.1 200 OK\r\n"
#define EMPTY       "Content-Length: 0\r\n\r\n"
#define UNAVAILABLE "HTTP/1.1 503 Service Unavailable\r\n"
#define FOUND       "HTTP/1.1 302 Found\r\n"

static const struct loopback_route routes[] = {
	{ "/plain", OK "Content-Type: application/json\r\nContent-Length: 5\r\n\r\n[1,2]", LOOPBACK_KEEP },
	{ "/chunked", OK "Transfer-Encoding: chunked\r\n\r\n2\r\n[1\r\n3;x=y\r\n,2]\r\n0\r\nX-T: 1\r\n\r\n",
	  LOOPBACK_KEEP },
	{ "/until-close", OK "\r\n[1,2]", LOOPBACK_CLOSE },
	{ "/gzip", OK "Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08", LOOPBACK_KEEP },
	{ "/identity", OK "Content-Encoding: identity\r\nContent-Length: 1\r\n\r\n1", LOOPBACK_KEEP },
	{ "/missing", "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone", LOOPBACK_KEEP },
	{ "/busy", UNAVAILABLE "Retry-After: 120\r\n" EMPTY, LOOPBACK_KEEP },
	{ "/busy-date",
	  UNAVAILABLE "Date: Sat, 21 Nov 2026 10:00:00 GMT\r\nRetry-After: Sat, 21 Nov 2026 10:01:30 GMT\r\n" EMPTY,
	  LOOPBACK_KEEP },
	{ "/busy-past",
	  UNAVAILABLE "Date: Sat, 21 Nov 2026 10:00:00 GMT\r\nRetry-After: Fri, 20 Nov 2026 10:00:00 GMT\r\n" EMPTY,
	  LOOPBACK_KEEP },
	{ "/busy-year-5138", UNAVAILABLE "Retry-After: 99999999999999999999\r\n" EMPTY, LOOPBACK_KEEP },
	{ "/busy-nonsense", UNAVAILABLE "Retry-After: soon\r\n" EMPTY, LOOPBACK_KEEP },
	{ "/there", FOUND "Location: sub/a%20b\r\nContent-Length: 3\r\n\r\nxxx", LOOPBACK_KEEP },
	{ "/sub/a%20b", "HTTP/1.1 308 Permanent Redirect\r\nLocation: ../plain?key=1#f\r\n" EMPTY, LOOPBACK_KEEP },
	{ "/spaced", FOUND "Location: /sub/a b\r\n" EMPTY, LOOPBACK_KEEP },
	{ "/nowhere", "HTTP/1.1 301 Moved\r\nContent-Length: 4\r\n\r\nbody", LOOPBACK_KEEP },
	{ "/choices", "HTTP/1.1 300 Choices\r\nLocation: /plain\r\nContent-Length: 4\r\n\r\nbody", LOOPBACK_KEEP },
	{ "/loop", FOUND "Location: /loop\r\n" EMPTY, LOOPBACK_KEEP },
	{ "/to-file", FOUND "Location: file:///etc/passwd\r\n" EMPTY, LOOPBACK_KEEP },
	{ "/to-user", FOUND "Location: http://me:secret@127.0.0.1/\r\n" EMPTY, LOOPBACK_KEEP },
	{ "/to-truncated", FOUND "Location: /truncated?key=secret\r\n" EMPTY, LOOPBACK_KEEP },
	{ "/truncated", OK "Content-Length: 1243\r\n\r\n0123456789abcdef", LOOPBACK_CLOSE },
	{ "/chunk-cut", OK "Transfer-Encoding: chunked\r\n\r\n5\r\n[1,2]\r\n", LOOPBACK_CLOSE },
	{ "/chunk-bad", OK "Transfer-Encoding: chunked\r\n\r\n5\r\n[1,2]\r\nxyz\r\n", LOOPBACK_KEEP },
	{ "/head-cut", OK "Content-Len", LOOPBACK_CLOSE },
	{ "/nothing", "", LOOPBACK_CLOSE },
	{ "/ssh", "SSH-2.0-OpenSSH_9.2\r\n", LOOPBACK_CLOSE },
	{ "/large", OK "Content-Length: 1025\r\n\r\n", LOOPBACK_KEEP },
	{ "/exact", OK "Content-Length: 1024\r\n\r\n", LOOPBACK_KEEP }, /* its body: see test */
	{ "/flood", "HTTP/1.1 100 Continue\r\n\r\n", LOOPBACK_FLOOD },
	{ "/flood-line", "HTTP/1.1 200 0123456789012345678901234567890123456789", LOOPBACK_FLOOD },
	{ "/hang", NULL, LOOPBACK_KEEP },
	{ "/hang-in-body", OK "Content-Length: 9\r\n\r\n[1,", LOOPBACK_KEEP },
	{ NULL, NULL, LOOPBACK_KEEP },
};

/* What one transfer came to. */
struct result {
	struct http_transfer *transfer;
	bool done;
	struct http_answer answer;
	char cause[32], text[ERR_MAX], type[64], encoding[64];
	struct bytes body;
	long status; /* of on_body */
	int refuse;  /* what on_body returns */
	bool reset;  /* the server breaks the connection now */
	bool cancel; /* from within on_body */
};

static uv_loop_t loop;
static struct http *http;
static struct loopback server;
static struct result result;
static bool closed;

static int on_body(void *arg, long status, const void *data, size_t len)
{
	struct result *r = arg;
	assert_false(r->done);
	assert_int_equal(bytes_add(&r->body, data, len), 0);
	r->status = status;
	if (r->reset)
		loopback_reset(server.last);
	if (r->cancel) {
		http_cancel(r->transfer);
		r->transfer = NULL;
	}
	return r->refuse;
}

static void on_done(void *arg, const struct http_answer *answer)
{
	struct result *r = arg;
	assert_false(r->done);
	r->done = true;
	r->transfer = NULL;
	r->answer = *answer;
	snprintf(r->cause, sizeof r->cause, "%s", answer->cause ? answer->cause : "");
	snprintf(r->text, sizeof r->text, "%s", answer->text);
	snprintf(r->type, sizeof r->type, "%s", answer->content_type);
	snprintf(r->encoding, sizeof r->encoding, "%s", answer->content_encoding);
}

static void on_closed(void *arg)
{
	assert_ptr_equal(arg, &closed);
	closed = true;
}

static int setup(void **state)
{
	(void)state;
	memset(&result, 0, sizeof result);
	bytes_init(&result.body, 1 << 20);
	closed = false;
	assert_int_equal(uv_loop_init(&loop), 0);
	assert_int_equal(http_new(&loop, "millrace-test/1", &http), 0);
	loopback_start(&loop, &server, routes);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	assert_int_equal(http_active(http), 0);
	http_close(http, on_closed, &closed);
	assert_false(closed);
	loopback_stop(&server);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_true(closed);
	assert_int_equal(server.open, 0);
	assert_int_equal(uv_loop_close(&loop), 0);
	bytes_done(&result.body);
	return 0;
}

static struct http_request request_for(const char *url, struct result *r)
{
	return (struct http_request){
		.method = "GET",
		.url = url,
		.connect_timeout_ms = 5000,
		.timeout_ms = 10000,
		.max_body = 65536,
		.on_body = on_body,
		.on_done = on_done,
		.arg = r,
	};
}

static void run(const struct http_request *request)
{
	size_t before = http_active(http);
	assert_int_equal(http_start(http, request, &result.transfer, NULL), 0);
	assert_false(result.done);
	assert_int_equal(http_active(http), before + 1);
	while (!result.done)
		loopback_turn(&loop);
	assert_int_equal(http_active(http), before);
}

/* One after another over the same client. */
static void get(const char *path)
{
	bytes_clear(&result.body);
	result.done = false;
	result.status = 0;
	struct http_request request = request_for(loopback_url(&server, path), &result);
	run(&request);
}

static void assert_body(const char *expected)
{
	assert_int_equal(result.body.len, strlen(expected));
	assert_memory_equal(result.body.data ? (char *)result.body.data : "", expected, strlen(expected));
}

static void assert_good(long status, const char *body)
{
	assert_string_equal(result.text, "");
	assert_int_equal(result.answer.error, 0);
	assert_int_equal(result.answer.status, status);
	assert_int_equal(result.answer.body_bytes, strlen(body));
	assert_body(body);
	if (*body)
		assert_int_equal(result.status, status);
}

static void assert_failed(int error, const char *cause, const char *text)
{
	assert_int_equal(result.answer.error, error);
	assert_string_equal(result.cause, cause);
	if (!strstr(result.text, text))
		fail_msg("\"%s\" does not say \"%s\"", result.text, text);
	assert_memory_equal(result.text, "GET http", 8);
}

static void test_complete_answers(void **state)
{
	(void)state;
	get("/plain?key=1");
	assert_good(200, "[1,2]");
	assert_string_equal(result.type, "application/json");
	assert_string_equal(result.encoding, "");
	assert_int_equal(result.answer.retry_after_ms, -1);
	get("/chunked");
	assert_good(200, "[1,2]");
	assert_string_equal(result.type, "");
	get("/missing");
	assert_good(404, "none");
	get("/until-close");
	assert_good(200, "[1,2]");
	assert_int_equal(server.connections, 1); /* one connection for all four */
	assert_int_equal(server.requests, 4);
}

static void test_request_says_who_asks_and_no_more(void **state)
{
	(void)state;
	const char *headers[] = { "X-Api-Key: abc", "Accept: application/json", NULL };
	struct http_request request = request_for(loopback_url(&server, "/plain"), &result);
	request.headers = headers;
	run(&request);
	assert_non_null(strstr(server.last_head, "GET /plain HTTP/1.1\r\n"));
	assert_non_null(strstr(server.last_head, "User-Agent: millrace-test/1\r\n"));
	assert_non_null(strstr(server.last_head, "X-Api-Key: abc\r\n"));
	assert_null(strstr(server.last_head, "Accept-Encoding"));
}

static void test_encoded_body_comes_raw_and_is_told(void **state)
{
	(void)state;
	get("/gzip");
	assert_good(200, "\x1f\x8b\x08");
	assert_string_equal(result.encoding, "gzip");
	get("/identity");
	assert_good(200, "1");
	assert_string_equal(result.encoding, "");
}

static void test_retry_after_in_both_forms(void **state)
{
	(void)state;
	get("/busy");
	assert_good(503, "");
	assert_int_equal(result.answer.retry_after_ms, 120000);
	get("/busy-date");
	assert_int_equal(result.answer.retry_after_ms, 90000);
	get("/busy-past");
	assert_int_equal(result.answer.retry_after_ms, 0);
	get("/busy-nonsense");
	assert_int_equal(result.answer.retry_after_ms, -1);
	get("/busy-year-5138");
	assert_true(result.answer.retry_after_ms > 0);
}

static void test_redirects_are_followed(void **state)
{
	(void)state;
	get("/there");
	assert_good(200, "[1,2]"); /* nothing of the bodies on the way */
	assert_int_equal(server.requests, 3);
	assert_non_null(strstr(server.last_head, "GET /plain?key=1 HTTP/1.1\r\n"));
	get("/spaced");
	assert_good(200, "[1,2]");
	get("/nowhere"); /* without Location it is an answer like any other */
	assert_good(301, "body");
	get("/choices");
	assert_good(300, "body");
}

static void test_redirects_are_limited(void **state)
{
	(void)state;
	get("/loop");
	assert_failed(-EPROTO, "redirect", "more than 5 redirects");
	assert_int_equal(server.requests, 6);
	assert_int_equal(result.answer.status, 302);
	get("/to-file");
	assert_failed(-EPROTO, "redirect",
	              "redirect refused: \"file:///etc/passwd\": scheme \"file\" is not http or https");
	get("/to-user");
	assert_failed(-EPROTO, "redirect", "redirect refused");
	assert_null(strstr(result.text, "secret"));
	assert_int_equal(result.body.len, 0);
}

static void test_headers_of_our_own_stay_with_their_origin(void **state)
{
	(void)state;
	struct loopback other;
	char answer[128];
	loopback_start(&loop, &other, routes);
	snprintf(answer, sizeof answer, FOUND "Location: %s\r\n" EMPTY, loopback_url(&other, "/plain"));
	const struct loopback_route away[] = { { "/away", answer, LOOPBACK_KEEP }, { NULL, NULL, LOOPBACK_KEEP } };
	const char *headers[] = { "X-Api-Key: abc", NULL };
	struct http_request request = request_for(loopback_url(&server, "/away"), &result);
	request.headers = headers;
	server.routes = away;
	run(&request);
	assert_good(200, "[1,2]");
	assert_non_null(strstr(server.last_head, "X-Api-Key: abc\r\n"));
	assert_null(strstr(other.last_head, "X-Api-Key"));

	/* The same origin keeps them. */
	server.routes = routes;
	result.done = false;
	bytes_clear(&result.body);
	request.url = loopback_url(&server, "/there");
	run(&request);
	assert_non_null(strstr(server.last_head, "X-Api-Key: abc\r\n"));
	loopback_stop(&other);
}

static void test_redirect_judgement(void **state)
{
	(void)state;
	struct err err;
	assert_int_equal(http_check_redirect("https://a.example/", "https://b.example/", &err), 0);
	assert_int_equal(http_check_redirect("http://a.example/", "https://a.example/", &err), 0);
	assert_int_equal(http_check_redirect("http://a.example/", "http://b.example/", &err), 0);
	assert_int_equal(http_check_redirect("https://a.example/", "http://a.example/", &err), -EPROTO);
	assert_non_null(strstr(err.text, "from https to http"));
	assert_int_equal(http_check_redirect("HTTPS://a.example/", "HTTP://a.example/", &err), -EPROTO);
	assert_int_equal(http_check_redirect("http://a.example/", "ftp://a.example/", &err), -EPROTO);
}

/* TLS: a server of Python's, with a certificate for 127.0.0.1 that nobody but this file trusts (valid until 2126). */

static const char tls_pem[] = "-----BEGIN PRIVATE KEY-----\n"
                              "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgEAFBnAsmnGH8l7B+\n"
                              "ILzbo+LzumZxj0NBxcXIUs5uRtChRANCAARrSiph8NgGEI8/wP232i8SJVIOaAeM\n"
                              "ibhvNEeLEyxr/9+VVsr1eQ+lsLnZ6tVVRxHOxiw5ESJUmoGuLZLMwwzs\n"
                              "-----END PRIVATE KEY-----\n"
                              "-----BEGIN CERTIFICATE-----\n"
                              "MIIBlzCCAT6gAwIBAgIUB8v4ezWFd+d3LKhgykMTDxlDSFowCgYIKoZIzj0EAwIw\n"
                              "GDEWMBQGA1UEAwwNbWlsbHJhY2UgdGVzdDAgFw0yNjExMjExMDQxNDJaGA8yMTI2\n"
                              "MTAyODEwNDE0MlowGDEWMBQGA1UEAwwNbWlsbHJhY2UgdGVzdDBZMBMGByqGSM49\n"
                              "AgEGCCqGSM49AwEHA0IABGtKKmHw2AYQjz/A/bfaLxIlUg5oB4yJuG80R4sTLGv/\n"
                              "35VWyvV5D6Wwudnq1VVHEc7GLDkRIlSaga4tkszDDOyjZDBiMB0GA1UdDgQWBBTU\n"
                              "Jw1Ti2zNhyqpVj/6wt83jW9SBjAfBgNVHSMEGDAWgBTUJw1Ti2zNhyqpVj/6wt83\n"
                              "jW9SBjAPBgNVHRMBAf8EBTADAQH/MA8GA1UdEQQIMAaHBH8AAAEwCgYIKoZIzj0E\n"
                              "AwIDRwAwRAIgOy6TEFjVhCjdI9DEDFxiODf93f9Y4hv2TM71mW43ojkCIHIUlvgS\n"
                              "bGBKoPUbccDVLao0ZftriVzJPcQXtjSJ+9YQ\n"
                              "-----END CERTIFICATE-----\n";

static const char tls_server[] = "import http.server, ssl, sys\n"
                                 "class Handler(http.server.BaseHTTPRequestHandler):\n"
                                 "    def do_GET(self):\n"
                                 "        down = self.path == '/down'\n"
                                 "        self.send_response(302 if down else 200)\n"
                                 "        if down: self.send_header('Location', 'http://127.0.0.1:1/')\n"
                                 "        self.send_header('Content-Length', '3')\n"
                                 "        self.end_headers()\n"
                                 "        self.wfile.write(b'[1]')\n"
                                 "    def log_message(self, *args): pass\n"
                                 "class Server(http.server.HTTPServer):\n"
                                 "    def handle_error(self, *args): pass\n"
                                 "server = Server(('127.0.0.1', 0), Handler)\n"
                                 "context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n"
                                 "context.load_cert_chain(sys.argv[1])\n"
                                 "server.socket = context.wrap_socket(server.socket, server_side=True)\n"
                                 "print(server.server_port, flush=True)\n"
                                 "server.serve_forever()\n";

static void write_pem(char path[256])
{
	const char *folder = getenv("TMPDIR");
	snprintf(path, 256, "%s/millrace-test-XXXXXX", folder ? folder : "/tmp");
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, tls_pem, strlen(tls_pem)), strlen(tls_pem));
	close(fd);
}

/* The child's id; 0 where there is no Python to run it. */
static pid_t tls_start(const char *pem, int *ret_port)
{
	int ends[2];
	assert_int_equal(pipe(ends), 0);
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGTERM); /* also where an assertion ends the test */
		dup2(ends[1], STDOUT_FILENO);
		close(ends[0]);
		execlp("python3", "python3", "-c", tls_server, pem, (char *)NULL);
		_exit(127);
	}
	close(ends[1]);
	FILE *output = fdopen(ends[0], "r");
	assert_non_null(output);
	int found = fscanf(output, "%d", ret_port);
	fclose(output);
	if (found == 1)
		return child;
	waitpid(child, NULL, 0);
	return 0;
}

static void get_tls(struct http *client, int port, const char *host_and_path)
{
	char url[128];
	struct http_request request = request_for(url, &result);
	snprintf(url, sizeof url, "https://%.*s:%d%s", (int)strcspn(host_and_path, "/"), host_and_path, port,
	         strchr(host_and_path, '/'));
	bytes_clear(&result.body);
	result.done = false;
	assert_int_equal(http_start(client, &request, &result.transfer, NULL), 0);
	while (!result.done)
		loopback_turn(&loop);
}

static void on_trusting_closed(void *arg)
{
	*(bool *)arg = true;
}

static void test_tls_is_verified(void **state)
{
	(void)state;
	char pem[256];
	int port;
	write_pem(pem);
	pid_t child = tls_start(pem, &port);
	if (child == 0) {
		unlink(pem);
		print_message("no python3: TLS is not tested\n");
		skip();
	}
	get_tls(http, port, "127.0.0.1/");
	assert_failed(-EBADE, "tls", "certificate");

	struct http *trusting;
	bool gone = false;
	setenv("SSL_CERT_FILE", pem, 1);
	assert_int_equal(http_new(&loop, "millrace-test/1", &trusting), 0);
	get_tls(trusting, port, "127.0.0.1/");
	assert_good(200, "[1]");
	get_tls(trusting, port, "localhost/");
	assert_failed(-EBADE, "tls", "localhost");
	get_tls(trusting, port, "127.0.0.1/down");
	assert_failed(-EPROTO, "redirect", "redirect refused: from https to http");
	http_close(trusting, on_trusting_closed, &gone);
	while (!gone)
		loopback_turn(&loop);
	unsetenv("SSL_CERT_FILE");
	kill(child, SIGTERM);
	waitpid(child, NULL, 0);
	unlink(pem);
}

static void test_https_where_http_is_spoken(void **state)
{
	(void)state;
	get_tls(http, server.port, "127.0.0.1/");
	assert_failed(-EBADE, "tls", "wrong version number; does the server speak https at all?");
}

static void test_cut_answers(void **state)
{
	(void)state;
	get("/truncated?key=secret");
	assert_failed(-EPIPE, "truncated", "/truncated: the answer ended after 16 of 1243 bytes");
	assert_null(strstr(result.text, "secret"));
	assert_int_equal(result.answer.status, 200);
	assert_int_equal(result.answer.body_bytes, 16);
	get("/chunk-cut");
	assert_failed(-EPIPE, "truncated", "ended after 5 bytes, before its last chunk");
	result.reset = true;
	get("/hang-in-body");
	result.reset = false;
	assert_failed(-EPIPE, "truncated", "the answer ended after 3 of 9 bytes");
	get("/to-truncated");
	assert_failed(-EPIPE, "truncated", "/to-truncated, redirected to http://127.0.0.1");
	assert_null(strstr(result.text, "secret"));
}

/* One answer with more headers than are taken. */
static const struct loopback_route *padded_routes(void)
{
	static char answer[70000] = OK;
	static const struct loopback_route padded[] = { { "/padded", answer, LOOPBACK_KEEP },
		                                        { NULL, NULL, LOOPBACK_KEEP } };
	for (size_t at = strlen(OK); at + 100 < sizeof answer; at += 40)
		memcpy(answer + at, "X-Padding: 012345678901234567890123456\r\n", 40);
	return padded;
}

static void test_broken_http(void **state)
{
	(void)state;
	get("/chunk-bad");
	assert_failed(-EPROTO, "protocol", "chunked-encoding");
	get("/ssh");
	assert_failed(-EPROTO, "protocol", "HTTP/0.9");
	get("/nothing");
	assert_failed(-EIO, "network", "Empty reply");
	get("/head-cut");
	assert_failed(-EPIPE, "truncated", "the answer ended within its headers");
	get("/flood");
	assert_failed(-EPROTO, "protocol", "more than 65536 bytes of headers");
	server.routes = padded_routes();
	get("/padded");
	assert_failed(-EPROTO, "protocol", "more than 65536 bytes of headers");
	server.routes = routes;
	get("/flood-line");
	assert_failed(-EPROTO, "protocol", "header line that is too long");
	assert_int_equal(result.body.len, 0);
}

static void test_body_is_bounded(void **state)
{
	(void)state;
	char exact[64 + 1024 + 1] = OK "Content-Length: 1024\r\n\r\n";
	char chunked[128 + 1025 + 1] = OK "Transfer-Encoding: chunked\r\n\r\n401\r\n";
	memset(exact + strlen(exact), 'x', 1024);
	memset(chunked + strlen(chunked), 'x', 1025);
	const struct loopback_route sized[] = { { "/exact", exact, LOOPBACK_KEEP },
		                                { "/chunked", chunked, LOOPBACK_KEEP },
		                                { NULL, NULL, LOOPBACK_KEEP } };
	struct http_request request = request_for(loopback_url(&server, "/large"), &result);
	request.max_body = 1024;
	run(&request);
	assert_failed(-EMSGSIZE, "too-large", "the answer has 1025 bytes; more than 1024 are not taken");
	assert_int_equal(result.body.len, 0);
	server.routes = sized;
	result.done = false;
	request.url = loopback_url(&server, "/exact");
	run(&request);
	assert_int_equal(result.answer.error, 0);
	assert_int_equal(result.body.len, 1024);
	bytes_clear(&result.body);
	result.done = false;
	request.url = loopback_url(&server, "/chunked");
	run(&request);
	assert_failed(-EMSGSIZE, "too-large", "more than 1024 are not taken");
	assert_true(result.body.len <= 1024);
}

/* A port on which nobody listens: bound, never listened on. */
static int silent_socket(int backlog, int *ret_port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t len = sizeof address;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
	if (backlog >= 0)
		assert_int_equal(listen(fd, backlog), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
	*ret_port = ntohs(address.sin_port);
	return fd;
}

static void test_connection_refused(void **state)
{
	(void)state;
	int port;
	char url[64];
	int fd = silent_socket(-1, &port);
	snprintf(url, sizeof url, "http://127.0.0.1:%d/x?key=secret", port);
	struct http_request request = request_for(url, &result);
	run(&request);
	assert_failed(-ECONNREFUSED, "refused", "/x: connection refused");
	assert_int_equal(result.answer.status, 0);
	assert_int_equal(result.answer.retry_after_ms, -1);
	close(fd);
}

static void test_no_such_name(void **state)
{
	(void)state;
	/* A label over 63 bytes: refused by the resolver itself, so that no name server is asked. */
	struct http_request request = request_for("http://a123456789b123456789c123456789d123456789e123456789f123456789"
	                                          "g123456789.invalid/",
	                                          &result);
	run(&request);
	assert_failed(-EHOSTUNREACH, "dns", "resolve host");
}

/* A listener whose queue is full does not answer a SYN: connecting hangs. */
static void fill_queue(int port, int fds[3])
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	address.sin_port = htons((uint16_t)port);
	for (int i = 0; i < 3; i++) {
		fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		assert_true(fds[i] >= 0);
		if (connect(fds[i], (struct sockaddr *)&address, sizeof address) != 0)
			assert_int_equal(errno, EINPROGRESS);
	}
}

static void test_timeout_and_cancel_while_connecting(void **state)
{
	(void)state;
	int port, fds[3];
	char url[64];
	int fd = silent_socket(0, &port);
	fill_queue(port, fds);
	snprintf(url, sizeof url, "http://127.0.0.1:%d/x", port);
	struct http_request request = request_for(url, &result);
	request.connect_timeout_ms = 100;
	run(&request);
	assert_failed(-ETIMEDOUT, "timeout", "/x: no connection within 100ms");

	result.done = false;
	request.connect_timeout_ms = 5000;
	assert_int_equal(http_start(http, &request, &result.transfer, NULL), 0);
	for (int i = 0; i < 3; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
	assert_int_equal(http_active(http), 1);
	http_cancel(result.transfer);
	assert_int_equal(http_active(http), 0);
	assert_false(result.done);
	for (int i = 0; i < 3; i++)
		close(fds[i]);
	close(fd);
}

static void test_timeout_of_an_answer(void **state)
{
	(void)state;
	struct http_request request = request_for(loopback_url(&server, "/hang"), &result);
	request.timeout_ms = 100;
	run(&request);
	assert_failed(-ETIMEDOUT, "timeout", "/hang: no answer within 100ms");
	result.done = false;
	request.url = loopback_url(&server, "/hang-in-body");
	run(&request);
	assert_failed(-ETIMEDOUT, "timeout", "the answer did not end within 100ms: 3 bytes came");
}

/* Each hop waits a little; only all of them together are too long. */
static void test_timeout_counts_all_hops(void **state)
{
	(void)state;
	static const struct loopback_route slow[] = { { "/a", FOUND "Location: /b\r\n" EMPTY, LOOPBACK_KEEP },
		                                      { "/b", NULL, LOOPBACK_KEEP },
		                                      { NULL, NULL, LOOPBACK_KEEP } };
	struct http_request request = request_for(loopback_url(&server, "/a"), &result);
	request.timeout_ms = 200;
	server.routes = slow;
	assert_int_equal(http_start(http, &request, &result.transfer, NULL), 0);
	uint64_t began = uv_hrtime();
	while (uv_hrtime() - began < 120 * 1000000ull) /* the first hop is held up for 120 of its 200 ms */
		;
	while (!result.done)
		loopback_turn(&loop);
	assert_failed(-ETIMEDOUT, "timeout", "/b: no answer within 200ms");
	assert_true(uv_hrtime() - began < 310 * 1000000ull);
}

static void test_on_body_may_refuse(void **state)
{
	(void)state;
	result.refuse = -EBADMSG;
	get("/plain");
	assert_failed(-ECANCELED, "canceled", "not wanted after 5 bytes");
	assert_int_equal(result.answer.status, 200);
	assert_string_equal(result.type, "application/json");
}

static void test_cancel_from_on_body(void **state)
{
	(void)state;
	result.cancel = true;
	struct http_request request = request_for(loopback_url(&server, "/hang-in-body"), &result);
	assert_int_equal(http_start(http, &request, &result.transfer, NULL), 0);
	while (http_active(http) > 0)
		loopback_turn(&loop);
	assert_false(result.done);
	assert_body("[1,");
}

static struct http_transfer *victim;

static int on_body_cancels_another(void *arg, long status, const void *data, size_t len)
{
	http_cancel(victim);
	victim = NULL;
	return on_body(arg, status, data, len);
}

static void test_on_body_may_cancel_another(void **state)
{
	(void)state;
	struct result other = { .done = false };
	struct http_request hanging = request_for(loopback_url(&server, "/hang"), &other);
	struct http_request request = request_for(loopback_url(&server, "/plain"), &result);
	request.on_body = on_body_cancels_another;
	assert_int_equal(http_start(http, &hanging, &victim, NULL), 0);
	assert_int_equal(http_start(http, &request, &result.transfer, NULL), 0);
	while (!result.done)
		loopback_turn(&loop);
	assert_good(200, "[1,2]");
	assert_int_equal(http_active(http), 0);
	assert_false(other.done);
}

static void test_cancel_at_once_and_while_waiting(void **state)
{
	(void)state;
	struct http_request request = request_for(loopback_url(&server, "/hang"), &result);
	assert_int_equal(http_start(http, &request, &result.transfer, NULL), 0);
	http_cancel(result.transfer);
	assert_int_equal(http_start(http, &request, &result.transfer, NULL), 0);
	while (server.requests == 0)
		loopback_turn(&loop);
	http_cancel(result.transfer);
	assert_int_equal(http_active(http), 0);
	assert_false(result.done);
	get("/plain");
	assert_good(200, "[1,2]");
}

static void on_done_starts_another(void *arg, const struct http_answer *answer)
{
	assert_int_equal(answer->error, 0);
	struct http_request request = request_for(loopback_url(&server, "/chunked"), arg);
	assert_int_equal(http_start(http, &request, &result.transfer, NULL), 0);
}

static void test_on_done_may_start_another(void **state)
{
	(void)state;
	struct http_request request = request_for(loopback_url(&server, "/missing"), &result);
	request.on_done = on_done_starts_another;
	assert_int_equal(http_start(http, &request, &result.transfer, NULL), 0);
	while (!result.done)
		loopback_turn(&loop);
	assert_body("none[1,2]");
}

static void test_many_at_once(void **state)
{
	(void)state;
	static struct result all[12];
	memset(all, 0, sizeof all);
	for (size_t i = 0; i < 12; i++) {
		bytes_init(&all[i].body, 1024);
		struct http_request request =
		        request_for(loopback_url(&server, i % 2 ? "/chunked" : "/there"), &all[i]);
		assert_int_equal(http_start(http, &request, &all[i].transfer, NULL), 0);
	}
	while (http_active(http) > 0)
		loopback_turn(&loop);
	for (size_t i = 0; i < 12; i++) {
		assert_true(all[i].done);
		assert_int_equal(all[i].answer.error, 0);
		assert_int_equal(all[i].body.len, 5);
		bytes_done(&all[i].body);
	}
}

static void test_urls_are_judged(void **state)
{
	(void)state;
	struct err err;
	assert_int_equal(http_check_url("https://data.example/parking.json?key=1", &err), 0);
	assert_int_equal(http_check_url("HTTP://data.example", &err), 0);
	assert_int_equal(http_check_url("http://[::1]:8080/", &err), 0);
	assert_int_equal(http_check_url("ftp://data.example/x?key=secret", &err), -EINVAL);
	assert_string_equal(err.text, "\"ftp://data.example/x\": scheme \"ftp\" is not http or https");
	static const char *const wrong[] = { "data.example/x", "", "http://", "http://a b/", "https://a:99999/" };
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		assert_int_equal(http_check_url(wrong[i], &err), -EINVAL);
		assert_non_null(strstr(err.text, "not a URL"));
	}
	assert_int_equal(http_check_url("https://me:secret@data.example/", &err), -EINVAL);
	assert_non_null(strstr(err.text, "password"));
	assert_null(strstr(err.text, "secret"));
	assert_int_equal(http_check_url("https://me@data.example/", &err), -EINVAL);
	struct http_request request = request_for("file:///etc/passwd", &result);
	assert_int_equal(http_start(http, &request, &result.transfer, &err), -EINVAL);
	assert_non_null(strstr(err.text, "file"));
}

static void test_shown_urls_hold_no_secret(void **state)
{
	(void)state;
	char *shown = http_show_url("https://me:secret@data.example:8443/a/b.json?key=secret#secret");
	assert_string_equal(shown, "https://data.example:8443/a/b.json");
	free(shown);
	assert_null(http_show_url("not a url"));
}

int main(void)
{
	alarm(60); /* a hang fails */
	signal(SIGPIPE, SIG_IGN);
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_complete_answers),
		TEST(test_request_says_who_asks_and_no_more),
		TEST(test_encoded_body_comes_raw_and_is_told),
		TEST(test_retry_after_in_both_forms),
		TEST(test_redirects_are_followed),
		TEST(test_redirects_are_limited),
		TEST(test_headers_of_our_own_stay_with_their_origin),
		TEST(test_redirect_judgement),
		TEST(test_tls_is_verified),
		TEST(test_https_where_http_is_spoken),
		TEST(test_cut_answers),
		TEST(test_broken_http),
		TEST(test_body_is_bounded),
		TEST(test_connection_refused),
		TEST(test_no_such_name),
		TEST(test_timeout_and_cancel_while_connecting),
		TEST(test_timeout_of_an_answer),
		TEST(test_timeout_counts_all_hops),
		TEST(test_on_body_may_refuse),
		TEST(test_cancel_from_on_body),
		TEST(test_on_body_may_cancel_another),
		TEST(test_cancel_at_once_and_while_waiting),
		TEST(test_on_done_may_start_another),
		TEST(test_many_at_once),
		TEST(test_urls_are_judged),
		TEST(test_shown_urls_hold_no_secret),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
