/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <malloc.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/http.h"
#include "base/url.h"
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
	{ "/switching", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nxxxx", LOOPBACK_KEEP },
	{ "/no-colon", OK "nonsense\r\n" EMPTY, LOOPBACK_KEEP },
	{ "/trailer-bad", OK "Transfer-Encoding: chunked\r\n\r\n0\r\nnonsense\r\n\r\n", LOOPBACK_KEEP },
	{ "/ssh", "SSH-2.0-OpenSSH_9.2\r\n", LOOPBACK_CLOSE },
	{ "/large", OK "Content-Length: 1025\r\n\r\n", LOOPBACK_KEEP },
	{ "/exact", OK "Content-Length: 1024\r\n\r\n", LOOPBACK_KEEP }, /* its body: see test */
	{ "/flood", "HTTP/1.1 100 Continue\r\n\r\n", LOOPBACK_FLOOD },
	{ "/flood-line", "HTTP/1.1 200 0123456789012345678901234567890123456789", LOOPBACK_FLOOD },
	{ "/denied", "HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\ndenied", LOOPBACK_EARLY },
	{ "/early", OK "Content-Length: 5\r\n\r\n[1,2]", LOOPBACK_EARLY },
	{ "/denied-close", "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 6\r\n\r\ndenied",
	  LOOPBACK_EARLY_CLOSE },
	{ "/deaf", NULL, LOOPBACK_DEAF },
	{ "/object", OK "Content-Length: 5000000000\r\nx-amz-checksum-sha256: abc=\r\nX-Empty:\r\n\r\n",
	  LOOPBACK_KEEP },
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
	bool refuse; /* on_body does */
	bool reset;  /* the server breaks the connection now */
	bool cancel; /* from within on_body or on_read */

	/* Of pauses of on_body. */
	bool limited; /* it takes no more than limit at once, which may be 0 */
	size_t limit;
	bool waiting; /* it has not taken all */
	size_t body_calls;
	bool body_counts; /* the body is not kept, but must be the letters */
	size_t counted;

	/* Of a PUT, for on_read. */
	size_t given, calls;
	size_t piece;  /* the most that it gives at once; 0: all that is asked for */
	bool pausing;  /* every second call pauses */
	bool paused;   /* the last one did */
	size_t end_at; /* bytes given when the end below comes; 0: never */
	enum { END_PAUSE, END_ABORT, END_RESET, END_CANCEL } end;
};

static uv_loop_t loop;
static struct http *http;
static struct loopback server;
static struct result result;
static bool closed;
static const char *asked; /* the method of the last request */

static unsigned char pattern(size_t at)
{
	return (unsigned char)(at * 31 + at / 251);
}

static ssize_t end_body(struct result *r)
{
	switch (r->end) {
	case END_ABORT:
		return HTTP_READ_ABORT;
	case END_RESET:
		loopback_reset(server.last);
		break;
	case END_CANCEL:
		http_cancel(r->transfer);
		r->transfer = NULL;
		return 0;
	case END_PAUSE:
		break;
	}
	r->paused = true;
	return HTTP_READ_PAUSE;
}

static ssize_t on_read(void *arg, void *buffer, size_t size)
{
	struct result *r = arg;
	assert_false(r->done);
	assert_false(r->paused); /* not asked again before http_resume */
	assert_true(size > 0);
	if (r->end_at && r->given >= r->end_at)
		return end_body(r);
	if (r->pausing && r->calls++ % 2 == 0) {
		r->paused = true;
		return HTTP_READ_PAUSE;
	}
	size_t n = r->piece && r->piece < size ? r->piece : size;
	for (size_t i = 0; i < n; i++)
		((unsigned char *)buffer)[i] = pattern(r->given + i);
	r->given += n;
	return (ssize_t)n;
}

/* Of bodies in C strings. */
static char letter(size_t at)
{
	return (char)('a' + pattern(at) % 26);
}

static void keep_body(struct result *r, const void *data, size_t len)
{
	if (!r->body_counts) {
		assert_int_equal(bytes_add(&r->body, data, len), 0);
		return;
	}
	for (size_t i = 0; i < len; i++)
		if (((const char *)data)[i] != letter(r->counted + i))
			fail_msg("byte %zu differs", r->counted + i);
	r->counted += len;
}

static ssize_t on_body(void *arg, long status, const void *data, size_t len)
{
	struct result *r = arg;
	size_t taken = r->limited && r->limit < len ? r->limit : len;
	assert_false(r->done);
	assert_false(r->waiting); /* not given again before http_resume */
	assert_true(len > 0);
	keep_body(r, data, taken);
	r->status = status;
	r->body_calls++;
	if (r->reset)
		loopback_reset(server.last);
	if (r->cancel) {
		http_cancel(r->transfer);
		r->transfer = NULL;
	}
	r->waiting = taken < len && !r->cancel && !r->refuse;
	return r->refuse ? HTTP_BODY_ABORT : (ssize_t)taken;
}

static void on_done(void *arg, const struct http_answer *answer)
{
	struct result *r = arg;
	assert_false(r->done);
	r->done = true;
	r->waiting = false;
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
	asked = "GET";
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
	asked = request->method;
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
	assert_memory_equal(result.text, asked, strlen(asked));
	assert_memory_equal(result.text + strlen(asked), " http", 5);
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

static const char *const our_headers[] = { "X-Api-Key: abc", "Authorization: Bearer abc", "x-other:abc", NULL };

static void get_with_our_headers(const char *url)
{
	struct http_request request = request_for(url, &result);
	request.headers = our_headers;
	result.done = false;
	bytes_clear(&result.body);
	run(&request);
	assert_good(200, "[1,2]");
}

static void test_headers_of_our_own_stay_with_their_origin(void **state)
{
	(void)state;
	static struct loopback other; /* its connections end in teardown */
	char away[128], round[128];
	loopback_start(&loop, &other, routes);
	snprintf(away, sizeof away, FOUND "Location: %s\r\n" EMPTY, loopback_url(&other, "/plain"));
	snprintf(round, sizeof round, FOUND "Location: http://localhost:%d/plain\r\n" EMPTY, server.port);
	const struct loopback_route table[] = { { "/away", away, LOOPBACK_KEEP },
		                                { "/round", round, LOOPBACK_KEEP },
		                                { "/plain", routes[0].answer, LOOPBACK_KEEP },
		                                { NULL, NULL, LOOPBACK_KEEP } };
	server.routes = table;
	get_with_our_headers(loopback_url(&server, "/away")); /* another port */
	assert_non_null(strstr(server.last_head, "GET /away "));
	assert_non_null(strstr(server.last_head, "X-Api-Key: abc\r\nAuthorization: Bearer abc\r\nx-other:abc\r\n"));
	assert_non_null(strstr(other.last_head, "GET /plain "));
	assert_null(strstr(other.last_head, "abc"));
	get_with_our_headers(loopback_url(&server, "/round")); /* another host, be it on the same machine */
	assert_non_null(strstr(server.last_head, "GET /plain "));
	assert_non_null(strstr(server.last_head, "Host: localhost:"));
	assert_null(strstr(server.last_head, "abc"));

	/* The same origin keeps them. */
	server.routes = routes;
	get_with_our_headers(loopback_url(&server, "/there"));
	assert_non_null(strstr(server.last_head, "GET /plain"));
	assert_non_null(strstr(server.last_head, "X-Api-Key: abc\r\n"));
	loopback_stop(&other);
}

static void test_redirect_judgement(void **state)
{
	(void)state;
	struct err err;
	assert_int_equal(url_check_redirect("https://a.example/", "https://b.example/", &err), 0);
	assert_int_equal(url_check_redirect("http://a.example/", "https://a.example/", &err), 0);
	assert_int_equal(url_check_redirect("http://a.example/", "http://b.example/", &err), 0);
	assert_int_equal(url_check_redirect("https://a.example/", "http://a.example/", &err), -EPROTO);
	assert_non_null(strstr(err.text, "from https to http"));
	assert_int_equal(url_check_redirect("HTTPS://a.example/", "HTTP://a.example/", &err), -EPROTO);
	assert_int_equal(url_check_redirect("http://a.example/", "ftp://a.example/", &err), -EPROTO);
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
                                 "    def do_PUT(self):\n"
                                 "        body = self.rfile.read(int(self.headers['Content-Length']))\n"
                                 "        self.send_response(201)\n"
                                 "        self.send_header('Content-Length', str(len(body)))\n"
                                 "        self.end_headers()\n"
                                 "        self.wfile.write(body)\n"
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

static void get_tls(struct http *client, int port, const char *ca_file, const char *host_and_path)
{
	char url[128];
	struct http_request request = request_for(url, &result);
	request.ca_file = ca_file;
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

/* The child's id; skips the test where TLS cannot be tested. */
static pid_t tls_begin(char pem[256], int *ret_port)
{
	write_pem(pem);
	pid_t child = tls_start(pem, ret_port);
	if (child == 0) {
		unlink(pem);
		print_message("SKIPPED: no python3, TLS is not tested\n"); /* `make unit` shows this line */
		skip();
	}
	return child;
}

static void tls_end(pid_t child, const char *pem)
{
	kill(child, SIGTERM);
	waitpid(child, NULL, 0);
	unlink(pem);
}

static void test_tls_is_verified(void **state)
{
	(void)state;
	char pem[256];
	int port;
	pid_t child = tls_begin(pem, &port);
	get_tls(http, port, NULL, "127.0.0.1/");
	assert_failed(-EBADE, "tls", "certificate");

	struct http *trusting;
	bool gone = false;
	setenv("SSL_CERT_FILE", pem, 1);
	assert_int_equal(http_new(&loop, "millrace-test/1", &trusting), 0);
	get_tls(trusting, port, NULL, "127.0.0.1/");
	assert_good(200, "[1]");
	get_tls(trusting, port, NULL, "localhost/");
	assert_failed(-EBADE, "tls", "localhost");
	get_tls(trusting, port, NULL, "127.0.0.1/down");
	assert_failed(-EPROTO, "redirect", "redirect refused: from https to http");
	http_close(trusting, on_trusting_closed, &gone);
	while (!gone)
		loopback_turn(&loop);
	unsetenv("SSL_CERT_FILE");
	tls_end(child, pem);
}

/* Each request trusts its own file: no connection and no kept certificate of another one serves it. */
static void test_ca_file_of_a_request(void **state)
{
	(void)state;
	char pem[256];
	int port;
	pid_t child = tls_begin(pem, &port);
	get_tls(http, port, pem, "127.0.0.1/");
	assert_good(200, "[1]");
	get_tls(http, port, NULL, "127.0.0.1/");
	assert_failed(-EBADE, "tls", "certificate");
	get_tls(http, port, pem, "localhost/");
	assert_failed(-EBADE, "tls", "localhost");
	get_tls(http, port, "/nonexistent/ca.pem", "127.0.0.1/");
	assert_failed(-EBADE, "tls", "/nonexistent/ca.pem");
	get_tls(http, port, pem, "127.0.0.1/");
	assert_good(200, "[1]");
	assert_int_equal(truncate(pem, 0), 0); /* who changes it need not start us again */
	get_tls(http, port, pem, "127.0.0.1/");
	assert_failed(-EBADE, "tls", pem);
	tls_end(child, pem);
}

static void test_https_where_http_is_spoken(void **state)
{
	(void)state;
	get_tls(http, server.port, NULL, "127.0.0.1/");
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
	assert_int_equal(result.body.len, 0);
	get("/no-colon");
	assert_failed(-EPROTO, "protocol", "Header without colon");
	get("/trailer-bad");
	assert_failed(-EPROTO, "protocol", "a line without a colon among the headers");
	get("/switching");
	assert_failed(-EPROTO, "protocol", "101 (Switching Protocols), which was not asked for");
	assert_int_equal(result.body.len, 0);
}

#define PADDING "X-Padding: 012345678901234567890123456\r\n"

/* An answer of `begin`, lines of padding that make `len` bytes together with what follows, and `end`. */
static const char *padded(const char *begin, size_t len, const char *end)
{
	static char answer[80000];
	size_t at = strlen(begin), left = len - at;
	memcpy(answer, begin, at);
	for (; left >= 2 * strlen(PADDING); left -= strlen(PADDING), at += strlen(PADDING))
		memcpy(answer + at, PADDING, strlen(PADDING));
	memcpy(answer + at, "X:", 2);
	memset(answer + at + 2, 'x', left - 4);
	memcpy(answer + at + left - 2, "\r\n", 3);
	strcat(answer, end);
	return answer;
}

static void get_padded(const char *answer)
{
	const struct loopback_route padding[] = { { "/padded", answer, LOOPBACK_KEEP }, { NULL, NULL, LOOPBACK_KEEP } };
	server.routes = padding;
	get("/padded");
	server.routes = routes;
}

static void test_headers_are_bounded(void **state)
{
	(void)state;
	size_t most = HTTP_HEADERS_MAX - strlen(EMPTY);
	get("/flood");
	assert_failed(-E2BIG, "too-large", "/flood: more than 65536 bytes of headers");
	get("/flood-line");
	assert_failed(-E2BIG, "too-large", "/flood-line: more than 65536 bytes of headers, or a line of them");
	get_padded(padded(OK, most, EMPTY));
	assert_good(200, "");
	get_padded(padded(OK, most + 1, EMPTY));
	assert_failed(-E2BIG, "too-large", "/padded: more than 65536 bytes of headers");
	/* 1xx are in the same sum. */
	get_padded(padded("HTTP/1.1 103 Early Hints\r\n", most - strlen("\r\n" OK) + 1, "\r\n" OK EMPTY));
	assert_failed(-E2BIG, "too-large", "more than 65536 bytes of headers");
	get_padded(padded("HTTP/1.1 103 Early Hints\r\n", most - strlen("\r\n" OK), "\r\n" OK EMPTY));
	assert_good(200, "");
}

static void test_trailers_are_bounded(void **state)
{
	(void)state;
#define CHUNKED OK "Transfer-Encoding: chunked\r\n\r\n"
#define CHUNKS  "5\r\n[1,2]\r\n0\r\n"
	get_padded(padded(CHUNKED CHUNKS, HTTP_HEADERS_MAX + strlen(CHUNKS), "\r\n"));
	assert_good(200, "[1,2]");
	get_padded(padded(CHUNKED CHUNKS, HTTP_HEADERS_MAX + strlen(CHUNKS) + 1, "\r\n"));
	assert_failed(-E2BIG, "too-large", "more than 65536 bytes of headers");
	char line[8192] = "";
	memset(line, 'x', 6000);
	get_padded(padded(CHUNKED CHUNKS, sizeof CHUNKED CHUNKS + 100, line));
	assert_failed(-E2BIG, "too-large", "more than 65536 bytes of headers, or a line of them that is too long");
}

/* Each answer on the way may have as many. */
static void test_headers_of_redirects_are_bounded_apart(void **state)
{
	(void)state;
	char *moved = strdup(padded(FOUND "Location: /b\r\n", 60000, EMPTY));
	const struct loopback_route away[] = { { "/a", moved, LOOPBACK_KEEP },
		                               { "/b", padded(OK, 60000, EMPTY), LOOPBACK_KEEP },
		                               { NULL, NULL, LOOPBACK_KEEP } };
	server.routes = away;
	get("/a");
	assert_good(200, "");
	assert_int_equal(server.requests, 2);
	free(moved);
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
	request.stall_ms = 20; /* is about connections that stand */
	uint64_t began = uv_hrtime();
	run(&request);
	assert_true(uv_hrtime() - began > 80 * 1000000ull);
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
	result.refuse = true;
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

static ssize_t on_body_cancels_another(void *arg, long status, const void *data, size_t len)
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

/* Uploads */

static struct http_request put_for(const char *url, uint64_t bytes)
{
	struct http_request request = request_for(url, &result);
	request.method = "PUT";
	request.send_bytes = bytes;
	request.on_read = on_read;
	bytes_clear(&result.body);
	result.done = false;
	result.given = 0;
	return request;
}

static struct http_request put(const char *path, uint64_t bytes)
{
	return put_for(loopback_url(&server, path), bytes);
}

/* Resumes whatever on_read has paused, but for a pause that is meant to last. */
static void run_upload(const struct http_request *request)
{
	asked = request->method;
	assert_int_equal(http_start(http, request, &result.transfer, NULL), 0);
	while (!result.done) {
		loopback_turn(&loop);
		if (result.paused && !result.done && !result.end_at) {
			result.paused = false;
			http_resume(result.transfer);
		}
	}
}

static void assert_pattern(const void *data, size_t len, size_t expected)
{
	assert_int_equal(len, expected);
	for (size_t i = 0; i < len; i++)
		if (((const unsigned char *)data)[i] != pattern(i))
			fail_msg("byte %zu differs", i);
}

static void assert_uploaded(uint64_t bytes)
{
	char length[64];
	snprintf(length, sizeof length, "\r\nContent-Length: %llu\r\n", (unsigned long long)bytes);
	assert_non_null(strstr(server.last_head, length));
	assert_pattern(server.last_body, server.last_body_len, bytes);
	assert_int_equal(result.given, bytes);
}

static void test_put_in_one_go(void **state)
{
	(void)state;
	const char *headers[] = { "If-None-Match: *", NULL };
	struct http_request request = put("/plain", 3000000); /* curl would wait for 100 (Continue) from 1 MB on */
	request.headers = headers;
	run_upload(&request);
	assert_good(200, "[1,2]");
	assert_uploaded(3000000);
	assert_non_null(strstr(server.last_head, "PUT /plain HTTP/1.1\r\n"));
	assert_non_null(strstr(server.last_head, "If-None-Match: *\r\n"));
	assert_null(strstr(server.last_head, "Expect"));
	assert_null(strstr(server.last_head, "Content-Type"));
	request = put("/missing", 0);
	run_upload(&request);
	assert_good(404, "none");
	assert_uploaded(0);
	request = put("/plain", 1);
	run_upload(&request);
	assert_good(200, "[1,2]");
	assert_uploaded(1);
	assert_int_equal(server.connections, 1);
}

static void test_other_methods_with_a_body(void **state)
{
	(void)state;
	static const char *const names[] = { "POST", "PATCH" };
	const char *headers[] = { "Content-Type: application/json", NULL };
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		char line[64];
		snprintf(line, sizeof line, "%s /plain HTTP/1.1\r\n", names[i]);
		struct http_request request = put("/plain", 3000000);
		request.method = names[i];
		request.headers = headers;
		run_upload(&request);
		assert_good(200, "[1,2]");
		assert_uploaded(3000000);
		assert_memory_equal(server.last_head, line, strlen(line));
		assert_non_null(strstr(server.last_head, "Content-Type: application/json\r\n"));
		assert_null(strstr(server.last_head, "Expect"));
		request = put("/there", 0); /* not redirected */
		request.method = names[i];
		request.on_read = NULL;
		run_upload(&request);
		assert_good(302, "xxx");
		assert_uploaded(0);
		request = put("/hang", 3);
		request.method = names[i];
		request.timeout_ms = 50;
		run_upload(&request);
		assert_failed(-ETIMEDOUT, "timeout", "/hang: no answer within 50ms");
	}
}

static void test_put_in_pieces_with_pauses(void **state)
{
	(void)state;
	static const size_t pieces[] = { 997, 20000, 0 };
	result.pausing = true;
	for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
		struct http_request request = put("/plain", 400000);
		result.piece = pieces[i];
		run_upload(&request);
		assert_good(200, "[1,2]");
		assert_uploaded(400000);
	}
	assert_true(result.calls > 800);
	assert_int_equal(server.connections, 1);
}

static void test_put_over_tls(void **state)
{
	(void)state;
	char pem[256], url[64];
	int port;
	pid_t child = tls_begin(pem, &port);
	snprintf(url, sizeof url, "https://127.0.0.1:%d/x", port);
	struct http_request request = put_for(url, 300000);
	request.ca_file = pem;
	request.max_body = 300000;
	result.pausing = true;
	result.piece = 7000;
	run_upload(&request);
	assert_string_equal(result.text, "");
	assert_int_equal(result.answer.status, 201);
	assert_pattern(result.body.data, result.body.len, 300000);
	tls_end(child, pem);
}

static void on_resume_timer(uv_timer_t *timer)
{
	struct result *r = timer->data;
	r->paused = false;
	r->end_at = 0;
	http_resume(r->transfer);
	http_resume(r->transfer); /* harmless */
	uv_close((uv_handle_t *)timer, NULL);
}

/* A pause of ours is not the peer's. */
static void test_long_pause_is_no_stall(void **state)
{
	(void)state;
	uv_timer_t timer = { .data = &result };
	struct http_request request = put("/early", 50000); /* on_read is not asked then either */
	request.stall_ms = 100;
	request.timeout_ms = 0;
	result.piece = 1000;
	result.end_at = 1; /* the answer comes while we pause */
	uv_timer_init(&loop, &timer);
	uv_timer_start(&timer, on_resume_timer, 350, 0);
	run_upload(&request);
	assert_good(200, "[1,2]");
	assert_int_equal(result.given, 50000);
}

static void on_trickle_timer(uv_timer_t *timer)
{
	static const char *const parts[] = { OK, "Content-Length: 5\r\n\r\n", "[1,2]" };
	size_t *at = timer->data;
	uv_buf_t buf = uv_buf_init((char *)parts[*at], (unsigned)strlen(parts[*at]));
	assert_int_equal(uv_try_write((uv_stream_t *)&server.last->tcp, &buf, 1), buf.len);
	if (++*at == 3)
		uv_close((uv_handle_t *)timer, NULL);
}

static void test_trickle_is_no_stall(void **state)
{
	(void)state;
	size_t at = 0;
	uv_timer_t timer = { .data = &at };
	struct http_request request = request_for(loopback_url(&server, "/hang"), &result);
	request.stall_ms = 400;
	request.timeout_ms = 0;
	uv_timer_init(&loop, &timer);
	uv_timer_start(&timer, on_trickle_timer, 200, 200);
	run(&request);
	assert_good(200, "[1,2]");
}

static void test_stalls(void **state)
{
	(void)state;
	struct http_request request = put("/deaf", 64 << 20);
	request.stall_ms = 100;
	request.timeout_ms = 0;
	run_upload(&request);
	assert_failed(-ETIMEDOUT, "timeout", "/deaf: nothing was taken for 100ms: ");
	assert_non_null(strstr(result.text, " of 67108864 bytes were sent"));
	loopback_end(server.last); /* who reads nothing sees no end either */
	request = put("/hang", 1000);
	request.stall_ms = 100;
	run_upload(&request);
	assert_failed(-ETIMEDOUT, "timeout", "/hang: no answer within 100ms");
	request = request_for(loopback_url(&server, "/hang-in-body"), &result);
	request.stall_ms = 100;
	request.timeout_ms = 0;
	result.done = false;
	run(&request);
	assert_failed(-ETIMEDOUT, "timeout", "the answer stood still for 100ms: 3 bytes came");
	/* The shorter one ends first, though it began last; the other can still be cancelled. */
	struct result other = { .done = false };
	struct http_request patient = request_for(loopback_url(&server, "/hang"), &other);
	patient.stall_ms = 60000;
	assert_int_equal(http_start(http, &patient, &other.transfer, NULL), 0);
	result.done = false;
	run(&request);
	assert_failed(-ETIMEDOUT, "timeout", "stood still");
	http_cancel(other.transfer);
}

/* The pieces come 125 ms after each other: slow, but nothing that has stalled. */
static void test_send_rate(void **state)
{
	(void)state;
	struct http_request request = put("/plain", 20000);
	request.send_rate = 20000;
	request.stall_ms = 600;
	uint64_t began = uv_hrtime();
	run_upload(&request);
	assert_good(200, "[1,2]");
	assert_uploaded(20000);
	assert_true(uv_hrtime() - began > 700 * 1000000ull);
}

static void test_answer_before_the_body(void **state)
{
	(void)state;
	static const char *const paths[] = { "/denied", "/denied-close" };
	for (size_t i = 0; i < 2; i++) {
		struct http_request request = put(paths[i], 64 << 20);
		run_upload(&request);
		assert_good(403, "denied");
		assert_true(result.given < 64 << 20);
		/* Also while we have nothing to send. */
		request = put(paths[i], 64 << 20);
		result.end_at = 1;
		run_upload(&request);
		assert_good(403, "denied");
		result.end_at = 0;
		result.paused = false;
	}
	struct http_request request = put("/plain", 1000);
	run_upload(&request);
	assert_good(200, "[1,2]");
	assert_uploaded(1000);
}

/* More than one read of it, from a connection that is already broken. */
static void test_long_answer_before_the_body(void **state)
{
	(void)state;
	static char answer[50128];
	const struct loopback_route away[] = { { "/denied", answer, LOOPBACK_EARLY_CLOSE },
		                               { "/broken", answer, LOOPBACK_RESET },
		                               { NULL, NULL, LOOPBACK_KEEP } };
	int head = snprintf(answer, sizeof answer, "HTTP/1.1 403 Forbidden\r\nContent-Length: 50000\r\n\r\n");
	memset(answer + head, 'x', 50000);
	answer[head + 50000] = '\0';
	server.routes = away;
	struct http_request request = put("/denied", 64 << 20);
	run_upload(&request);
	assert_good(403, answer + head);
	get("/broken");
	assert_good(403, answer + head);
}

static void test_upload_that_breaks(void **state)
{
	(void)state;
	struct http_request request = put("/plain", 1000000);
	result.end_at = 300000;
	result.end = END_RESET;
	run_upload(&request);
	assert_failed(-EIO, "network", " of 1000000 bytes were sent");
	result.paused = false;
	request = put("/plain", 1000000);
	result.end = END_ABORT;
	run_upload(&request);
	assert_failed(-ECANCELED, "canceled", "/plain: given up after ");
	request = put("/plain", 1000000);
	result.end = END_CANCEL;
	assert_int_equal(http_start(http, &request, &result.transfer, NULL), 0);
	while (http_active(http) > 0)
		loopback_turn(&loop);
	assert_false(result.done);
	result.paused = false;
	result.end_at = 0;
	request = put("/truncated", 10);
	run_upload(&request);
	assert_failed(-EPIPE, "truncated", "ended after 16 of 1243 bytes");
}

/* Curl would send the request again on a new connection, but the body cannot begin anew. */
static void test_upload_on_a_connection_that_closes(void **state)
{
	(void)state;
	get("/plain");
	struct http_request request = put("/nothing", 1000);
	run_upload(&request);
	assert_failed(-EIO, "network", "/nothing: the connection was closed");
	assert_int_equal(server.requests, 2);
}

static void test_only_get_is_redirected(void **state)
{
	(void)state;
	struct http_request request = put("/there", 10);
	run_upload(&request);
	assert_good(302, "xxx");
	request.method = "HEAD";
	result.done = false;
	bytes_clear(&result.body);
	run(&request);
	assert_good(302, "");
	assert_int_equal(server.requests, 2);
}

/* Bodies that are not taken at once */

/* An answer of `head` and that many letters, in chunks of some odd size where chunk is not 0. The caller frees it. */
static char *lettered(const char *head, size_t len, size_t chunk)
{
	size_t pieces = chunk ? len / chunk + 2 : 1;
	char *answer = malloc(strlen(head) + len + pieces * 32 + 64);
	assert_non_null(answer);
	char *at = answer + sprintf(answer, "%s", head);
	for (size_t i = 0; i < len; i++) {
		if (chunk && i % chunk == 0)
			at += sprintf(at, "%s%zx;x=y\r\n", i ? "\r\n" : "", chunk < len - i ? chunk : len - i);
		*at++ = letter(i);
	}
	sprintf(at, "%s", chunk ? "\r\n0\r\nX-T: 1\r\n\r\n" : "");
	return answer;
}

static void assert_letters(size_t len)
{
	assert_string_equal(result.text, "");
	assert_int_equal(result.answer.error, 0);
	assert_int_equal(result.answer.status, 200);
	assert_int_equal(result.answer.body_bytes, len);
	assert_int_equal(result.counted, len);
}

static struct http_request slow_get(const char *path, size_t limit)
{
	bytes_clear(&result.body);
	result.done = false;
	result.counted = result.body_calls = 0;
	result.limited = true;
	result.limit = limit;
	asked = "GET";
	return request_for(loopback_url(&server, path), &result);
}

static void start(const struct http_request *request)
{
	assert_int_equal(http_start(http, request, &result.transfer, NULL), 0);
}

static void run_until_waiting(void)
{
	while (!result.waiting && !result.done)
		loopback_turn(&loop);
	assert_true(result.waiting);
}

static void resume(void)
{
	assert_true(result.waiting);
	result.waiting = false;
	http_resume(result.transfer);
}

/* Resumes whenever on_body has paused; where it takes bytes at all, nothing at every third time. */
static void run_to_end(const struct http_request *request)
{
	size_t limit = result.limit, pauses = 0;
	start(request);
	while (!result.done) {
		if (!result.waiting) {
			loopback_turn(&loop);
			continue;
		}
		result.limit = ++pauses % 3 ? limit : 0;
		resume();
		uv_run(&loop, UV_RUN_NOWAIT);
	}
	assert_int_equal(http_active(http), 0);
}

#define SOME_LETTERS 5003
#define MANY_LETTERS 100003

static void test_body_taken_in_pieces(void **state)
{
	(void)state;
	char length[80];
	snprintf(length, sizeof length, OK "Content-Length: %d\r\n\r\n", SOME_LETTERS);
	char *plain = lettered(length, SOME_LETTERS, 0);
	char *chunked = lettered(OK "Transfer-Encoding: chunked\r\n\r\n", SOME_LETTERS, 7);
	char *open = lettered(OK "\r\n", SOME_LETTERS, 0);
	char *large = lettered(OK "Transfer-Encoding: chunked\r\n\r\n", MANY_LETTERS, 40001);
	const struct loopback_route table[] = { { "/plain", plain, LOOPBACK_KEEP },
		                                { "/chunked", chunked, LOOPBACK_KEEP },
		                                { "/open", open, LOOPBACK_CLOSE },
		                                { "/large", large, LOOPBACK_KEEP },
		                                { NULL, NULL, LOOPBACK_KEEP } };
	server.routes = table;
	result.body_counts = true;
	for (size_t i = 0; i < 4; i++) {
		size_t len = i < 3 ? SOME_LETTERS : MANY_LETTERS;
		struct http_request request = slow_get(table[i].path, i < 3 ? 1 : 997);
		request.max_body = len; /* what is given again does not count again */
		run_to_end(&request);
		assert_letters(len);
		assert_true(result.body_calls > len / result.limit);
	}
	assert_int_equal(server.connections, 2); /* and they serve the next request */
	free(plain);
	free(chunked);
	free(open);
	free(large);
}

static void test_body_taken_in_pieces_over_tls(void **state)
{
	(void)state;
	char pem[256], url[64];
	int port;
	pid_t child = tls_begin(pem, &port);
	snprintf(url, sizeof url, "https://127.0.0.1:%d/x", port);
	struct http_request request = put_for(url, 300000);
	request.ca_file = pem;
	request.max_body = 300000;
	result.limited = true;
	result.limit = 1009;
	run_to_end(&request);
	assert_string_equal(result.text, "");
	assert_int_equal(result.answer.body_bytes, 300000);
	assert_pattern(result.body.data, result.body.len, 300000);
	tls_end(child, pem);
}

/* The server sends 64 KB at a time, as fast as they are taken. */
static void test_pauses_hold_back_the_peer(void **state)
{
	(void)state;
	const size_t len = 1 << 20;
	char length[80];
	snprintf(length, sizeof length, OK "Content-Length: %zu\r\n\r\n", len);
	char *answer = lettered(length, len, 0);
	const struct loopback_route table[] = { { "/large", answer, LOOPBACK_KEEP }, { NULL, NULL, LOOPBACK_KEEP } };
	server.routes = table;
	result.body_counts = true;
	struct http_request request = slow_get("/large", 5000);
	request.max_body = len;
	size_t before = 0, most = 0;
	start(&request);
	while (!result.done) {
		loopback_turn(&loop);
		size_t used = mallinfo2().uordblks; /* 0 under a sanitizer */
		if (result.body_calls == 1)
			before = used;
		if (used > most)
			most = used;
		if (result.waiting)
			resume();
	}
	assert_letters(len);
	assert_true(most < before + (64 << 10));
	free(answer);
}

/* Neither the end nor anything that comes after the pause is told before all was taken. */
static void test_pause_after_the_end_came(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct http_request request = slow_get(i ? "/chunked" : "/plain", 1);
		start(&request);
		run_until_waiting();
		for (int turns = 0; turns < 20; turns++)
			loopback_turn(&loop);
		assert_body("[");
		result.limit = 0;
		resume();
		run_until_waiting();
		result.limited = false;
		resume();
		assert_body("["); /* not from within http_resume */
		while (!result.done)
			loopback_turn(&loop);
		assert_good(200, "[1,2]");
	}
	assert_int_equal(server.connections, 1);
}

static void test_pause_outlasts_the_peer(void **state)
{
	(void)state;
	static const char *const paths[] = { "/until-close", "/truncated", "/chunk-cut" };
	for (unsigned i = 0; i < 3; i++) {
		struct http_request request = slow_get(paths[i], 1);
		start(&request);
		run_until_waiting();
		while (server.open > 0)
			loopback_turn(&loop);
		assert_false(result.done);
		result.limited = false;
		resume();
		while (!result.done)
			loopback_turn(&loop);
		if (i == 0)
			assert_good(200, "[1,2]");
		else
			assert_failed(-EPIPE, "truncated",
			              i == 1 ? "ended after 16 of 1243 bytes" : "ended after 5 bytes");
		assert_body(i == 1 ? "0123456789abcdef" : "[1,2]");
	}
}

static void test_resume_is_harmless(void **state)
{
	(void)state;
	struct http_request request = slow_get("/plain", 1);
	start(&request);
	http_resume(result.transfer);
	while (server.requests == 0) {
		loopback_turn(&loop);
		if (result.transfer)
			http_resume(result.transfer);
	}
	run_until_waiting();
	result.limited = false;
	resume();
	http_resume(result.transfer);
	while (!result.done)
		loopback_turn(&loop);
	assert_good(200, "[1,2]");
}

static void test_cancel_while_paused(void **state)
{
	(void)state;
	struct http_request request = slow_get("/plain", 1);
	start(&request);
	run_until_waiting();
	http_cancel(result.transfer);
	result.waiting = false;
	start(&request);
	run_until_waiting();
	resume();
	http_cancel(result.transfer); /* before it could go on */
	start(&request);
	run_until_waiting();
	result.cancel = true; /* by itself, when it goes on */
	resume();
	while (http_active(http) > 0)
		loopback_turn(&loop);
	assert_false(result.done);
	assert_body("[[[1");
	result.cancel = false;
	result.limited = false;
	get("/plain");
	assert_good(200, "[1,2]");
}

static void test_refusal_after_a_pause(void **state)
{
	(void)state;
	struct http_request request = slow_get("/plain", 2);
	start(&request);
	run_until_waiting();
	result.refuse = true;
	resume();
	while (!result.done)
		loopback_turn(&loop);
	assert_failed(-ECANCELED, "canceled", "not wanted after 5 bytes");
	assert_int_equal(result.answer.status, 200);
}

static ssize_t on_body_resumes_another(void *arg, long status, const void *data, size_t len)
{
	http_resume(victim);
	return on_body(arg, status, data, len);
}

static ssize_t on_body_cancels_both(void *arg, long status, const void *data, size_t len)
{
	struct result *r = arg;
	if (r->cancel)
		http_cancel(victim);
	return on_body(arg, status, data, len);
}

/* Its transfer is `victim`. */
static void start_waiting(struct result *other)
{
	struct http_request slow = request_for(loopback_url(&server, "/plain"), other);
	*other = (struct result){ .limited = true };
	bytes_init(&other->body, 100);
	assert_int_equal(http_start(http, &slow, &victim, NULL), 0);
	while (!other->waiting)
		loopback_turn(&loop);
}

/* While curl is at work. */
static void test_on_body_may_resume_another(void **state)
{
	(void)state;
	struct result other;
	start_waiting(&other);
	other.waiting = other.limited = false;
	struct http_request request = request_for(loopback_url(&server, "/missing"), &result);
	request.on_body = on_body_resumes_another;
	start(&request);
	while (!result.done || !other.done)
		loopback_turn(&loop);
	assert_good(404, "none");
	assert_int_equal(other.answer.error, 0);
	assert_memory_equal(other.body.data, "[1,2]", 5);
	bytes_done(&other.body);
}

static void test_cancel_of_all_that_go_on(void **state)
{
	(void)state;
	struct result other;
	start_waiting(&other);
	struct http_request request = slow_get("/plain", 0);
	request.on_body = on_body_cancels_both;
	start(&request);
	run_until_waiting();
	http_resume(victim);
	result.cancel = true;
	resume();
	while (http_active(http) > 0)
		loopback_turn(&loop);
	assert_false(result.done || other.done);
	assert_int_equal(result.body_calls, 2);
	bytes_done(&other.body);
}

static void test_pause_of_answer_and_upload(void **state)
{
	(void)state;
	struct http_request request = put("/early", 50000);
	result.piece = 1000;
	result.end_at = 1; /* the upload pauses, */
	result.limited = true;
	result.limit = 1; /* and then the answer too */
	start(&request);
	run_until_waiting();
	assert_true(result.paused);
	result.paused = false;
	result.end_at = 0;
	while (!result.done) {
		if (result.waiting)
			resume();
		loopback_turn(&loop);
	}
	assert_good(200, "[1,2]");
	assert_int_equal(result.given, 50000);
}

static void test_body_is_bounded_across_pauses(void **state)
{
	(void)state;
	char *answer = lettered(OK "Transfer-Encoding: chunked\r\n\r\n", MANY_LETTERS, 3000);
	const struct loopback_route table[] = { { "/large", answer, LOOPBACK_KEEP }, { NULL, NULL, LOOPBACK_KEEP } };
	server.routes = table;
	result.body_counts = true;
	struct http_request request = slow_get("/large", 700);
	request.max_body = MANY_LETTERS - 1;
	run_to_end(&request);
	assert_failed(-EMSGSIZE, "too-large", "more than 100002 are not taken");
	assert_true(result.counted > MANY_LETTERS - 20000);
	free(answer);
}

static void on_take_timer(uv_timer_t *timer)
{
	result.limited = false;
	resume();
	uv_close((uv_handle_t *)timer, NULL);
}

/* A pause of ours is not the peer's, but what follows it is. */
static void test_long_pause_of_a_body_is_no_stall(void **state)
{
	(void)state;
	static const char *const paths[] = { "/plain", "/hang-in-body" };
	for (unsigned i = 0; i < 2; i++) {
		uv_timer_t timer;
		struct http_request request = slow_get(paths[i], 1);
		request.stall_ms = 100;
		request.timeout_ms = 0;
		uv_timer_init(&loop, &timer);
		uv_timer_start(&timer, on_take_timer, 350, 0);
		start(&request);
		while (!result.done)
			loopback_turn(&loop);
		if (i == 0)
			assert_good(200, "[1,2]");
		else
			assert_failed(-ETIMEDOUT, "timeout", "the answer stood still for 100ms: 3 bytes came");
	}
}

static void test_timeout_of_a_paused_body(void **state)
{
	(void)state;
	struct http_request request = slow_get("/plain", 1);
	request.timeout_ms = 100;
	start(&request);
	while (!result.done)
		loopback_turn(&loop);
	assert_failed(-ETIMEDOUT, "timeout", "/plain: the answer could not be taken within 100ms: 1 bytes came");
}

/* Proxies */

/* One that serves a single connection, from a thread of its own: CONNECT and SOCKS5, always to the same port. */
struct relay {
	uv_thread_t thread;
	int listener, port, stop[2];
	int target;
	const char *answer;                      /* to CONNECT */
	unsigned char method, user_reply, reply; /* of SOCKS5 */
	char asked[4096];                        /* the head of CONNECT, or the host of SOCKS5 */
	bool kerberos;                           /* was offered to SOCKS5 */
};

/* False: it is to stop, or there is nothing to read for good. */
static bool relay_wait(const struct relay *relay, int fd)
{
	struct pollfd fds[] = { { .fd = fd, .events = POLLIN }, { .fd = relay->stop[0], .events = POLLIN } };
	return poll(fds, 2, -1) > 0 && !fds[1].revents;
}

static bool relay_read(const struct relay *relay, int fd, void *data, size_t len)
{
	for (size_t at = 0; at < len;) {
		ssize_t n = relay_wait(relay, fd) ? read(fd, (char *)data + at, len - at) : 0;
		if (n <= 0)
			return false;
		at += (size_t)n;
	}
	return true;
}

static bool relay_connect(struct relay *relay, int fd)
{
	size_t len = 0;
	while (!strstr(relay->asked, "\r\n\r\n")) {
		if (len == sizeof relay->asked - 1 || !relay_read(relay, fd, relay->asked + len, 1))
			return false;
		relay->asked[++len] = '\0';
	}
	size_t left = strlen(relay->answer);
	return write(fd, relay->answer, left) == (ssize_t)left && strncmp(relay->answer, "HTTP/1.1 200", 12) == 0;
}

/* RFC 1928; RFC 1929 for the user, whose name and password go to `asked`, before the host. */
static bool relay_socks(struct relay *relay, int fd)
{
	unsigned char head[4], methods[255], port[2], len, user[] = { 1, relay->user_reply };
	unsigned char method[] = { 5, relay->method }, reply[] = { 5, relay->reply, 0, 1, 127, 0, 0, 1, 0, 1 };
	size_t at = 0;
	if (!relay_read(relay, fd, head, 2) || !relay_read(relay, fd, methods, head[1]) || write(fd, method, 2) != 2)
		return false;
	relay->kerberos = memchr(methods, 1, head[1]);
	for (int i = 0; relay->method == 2 && i < 2; i++) {
		if ((i == 0 && !relay_read(relay, fd, head, 1)) || !relay_read(relay, fd, &len, 1) ||
		    !relay_read(relay, fd, relay->asked + at, len))
			return false;
		at += len;
		relay->asked[at++] = ' ';
	}
	if (relay->method == 2 && (write(fd, user, 2) != 2 || relay->user_reply))
		return false;
	if (!relay_read(relay, fd, head, 4) || head[3] != 3 || !relay_read(relay, fd, &len, 1) ||
	    !relay_read(relay, fd, relay->asked + at, len) || !relay_read(relay, fd, port, 2))
		return false;
	return write(fd, reply, sizeof reply) == (ssize_t)sizeof reply && relay->reply == 0;
}

static void relay_pump(const struct relay *relay, int a, int b)
{
	char data[16384];
	struct pollfd fds[] = { { .fd = a, .events = POLLIN },
		                { .fd = b, .events = POLLIN },
		                { .fd = relay->stop[0], .events = POLLIN } };
	while (poll(fds, 3, -1) > 0 && !fds[2].revents)
		for (int i = 0; i < 2; i++) {
			ssize_t n = fds[i].revents ? read(fds[i].fd, data, sizeof data) : 0;
			if (fds[i].revents && (n <= 0 || write(fds[1 - i].fd, data, (size_t)n) != n))
				return;
		}
}

static void relay_serve(void *arg)
{
	struct relay *relay = arg;
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	unsigned char first = 0;
	address.sin_port = htons((uint16_t)relay->target);
	int back = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int front = relay_wait(relay, relay->listener) ? accept(relay->listener, NULL, NULL) : -1;
	if (front >= 0 && relay_wait(relay, front) && recv(front, &first, 1, MSG_PEEK) == 1 &&
	    (first == 5 ? relay_socks(relay, front) : relay_connect(relay, front)) &&
	    connect(back, (struct sockaddr *)&address, sizeof address) == 0)
		relay_pump(relay, front, back);
	close(front);
	close(back);
}

static int silent_socket(int backlog, int *ret_port);

static void relay_start(struct relay *relay)
{
	memset(relay->asked, 0, sizeof relay->asked);
	relay->listener = silent_socket(1, &relay->port);
	assert_int_equal(pipe(relay->stop), 0);
	assert_int_equal(uv_thread_create(&relay->thread, relay_serve, relay), 0);
}

static void relay_stop(struct relay *relay)
{
	assert_int_equal(write(relay->stop[1], "", 1), 1);
	uv_thread_join(&relay->thread);
	close(relay->stop[0]);
	close(relay->stop[1]);
	close(relay->listener);
}

static void get_through(const char *proxy, const char *url, const char *ca_file)
{
	struct http_request request = request_for(url, &result);
	request.connect_timeout_ms = request.timeout_ms = 300000; /* nothing may have to wait for one */
	request.proxy = proxy;
	request.ca_file = ca_file;
	request.headers = our_headers;
	result.done = false;
	bytes_clear(&result.body);
	run(&request);
	assert_null(strstr(result.text, "secret"));
}

/* `format` has a %d for its port; the relay is over when this returns. */
static void get_through_relay(struct relay *relay, const char *format, const char *url, const char *ca_file)
{
	char proxy[64];
	relay_start(relay);
	snprintf(proxy, sizeof proxy, format, relay->port);
	get_through(proxy, url, ca_file);
	relay_stop(relay);
}

/* The environment says otherwise, and is not asked. */
static void test_http_through_a_proxy(void **state)
{
	(void)state;
	static const struct loopback_route table[] = {
		{ "http://origin.invalid/a", OK "Content-Length: 5\r\n\r\n[1,2]", LOOPBACK_KEEP },
		{ "http://origin.invalid/away", FOUND "Location: http://other.invalid:8080/b\r\n" EMPTY,
		  LOOPBACK_KEEP },
		{ "http://other.invalid:8080/b", OK "Content-Length: 1\r\n\r\n1", LOOPBACK_KEEP },
		{ "http://origin.invalid/cut", OK "Content-Length: 5\r\n\r\n[1", LOOPBACK_CLOSE },
		{ "http://origin.invalid/502", "HTTP/1.1 502 Bad\r\nContent-Length: 3\r\n\r\nbad", LOOPBACK_KEEP },
		{ NULL, NULL, LOOPBACK_KEEP }
	};
	char proxy[64];
	server.routes = table;
	snprintf(proxy, sizeof proxy, "http://me:s%%65cret@127.0.0.1:%d", server.port);
	setenv("no_proxy", "*", 1);
	setenv("http_proxy", "http://127.0.0.1:1", 1);
	get_through(proxy, "http://origin.invalid/a?key=1", NULL);
	assert_good(200, "[1,2]");
	assert_non_null(
	        strstr(server.last_head, "GET http://origin.invalid/a?key=1 HTTP/1.1\r\nHost: origin.invalid\r\n"));
	assert_non_null(strstr(server.last_head, "Proxy-Authorization: Basic bWU6c2VjcmV0\r\n"));
	assert_non_null(strstr(server.last_head, "X-Api-Key: abc\r\n"));
	get_through(proxy, "http://origin.invalid/away", NULL);
	assert_good(200, "1");
	assert_null(strstr(server.last_head, "abc"));
	get_through(proxy, "http://origin.invalid/502", NULL);
	assert_good(502, "bad");
	get_through(proxy, "http://origin.invalid/cut", NULL);
	assert_failed(-EPIPE, "truncated", "http://origin.invalid/cut: through the proxy http://127.0.0.1:");
	server.routes = routes;
	get_through("", loopback_url(&server, "/plain"), NULL);
	assert_good(200, "[1,2]");
	get("/plain");
	assert_good(200, "[1,2]");
	unsetenv("no_proxy");
	get("/plain");
	assert_good(200, "[1,2]");
	unsetenv("http_proxy");
}

static void test_https_through_a_proxy(void **state)
{
	(void)state;
	char pem[256], url[64];
	int port;
	pid_t child = tls_begin(pem, &port);
	struct relay relay = { .answer = "HTTP/1.1 200 Connected\r\nRetry-After: 7\r\nContent-Type: no/no\r\n\r\n" };
	relay.target = port;
	snprintf(url, sizeof url, "https://127.0.0.1:%d/", port);
	get_through_relay(&relay, "http://me:secret@127.0.0.1:%d", url, pem);
	assert_good(200, "[1]");
	assert_string_equal(result.type, "");
	assert_int_equal(result.answer.retry_after_ms, -1);
	assert_memory_equal(relay.asked, "CONNECT 127.0.0.1:", 18);
	assert_non_null(strstr(relay.asked, "Proxy-Authorization: Basic bWU6c2VjcmV0\r\n"));
	assert_null(strstr(relay.asked, "abc"));
	/* Its headers are not in the answer's sum. */
	relay.answer = padded("HTTP/1.1 200 Connected\r\n", 65500, "\r\n");
	get_through_relay(&relay, "http://127.0.0.1:%d", url, pem);
	assert_good(200, "[1]");
	/* The origin must be who it says. */
	get_through_relay(&relay, "http://127.0.0.1:%d", url, NULL);
	assert_failed(-EBADE, "tls", ": through the proxy http://127.0.0.1:");
	assert_int_equal(result.answer.status, 0);
	get_through_relay(&relay, "http://127.0.0.1:%d", "https://origin.invalid/", pem);
	assert_failed(-EBADE, "tls", "origin.invalid");
	tls_end(child, pem);
}

#define PAGE "Content-Length: 4\r\nRetry-After: 9\r\nContent-Type: text/html\r\n\r\npage"

/* The path of a route is what CONNECT asks for. */
static void test_proxy_that_refuses(void **state)
{
	(void)state;
	static const struct loopback_route table[] = {
		{ "http://407.invalid/", "HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic realm=\"x\"\r\n" PAGE,
		  LOOPBACK_KEEP },
		{ "407.invalid:443", "HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic realm=\"x\"\r\n" PAGE,
		  LOOPBACK_KEEP },
		{ "502.invalid:443", "HTTP/1.1 502 Bad\r\n" PAGE, LOOPBACK_KEEP },
		{ "503.invalid:443", "HTTP/1.0 503 Bad\r\n\r\n", LOOPBACK_CLOSE },
		{ "302.invalid:443", FOUND "Location: https://503.invalid/\r\n\r\n", LOOPBACK_KEEP },
		{ "100.invalid:443", "HTTP/1.1 100 Continue\r\n\r\n", LOOPBACK_FLOOD },
		{ "flood.invalid:443", "HTTP/1.1 407 Who\r\nContent-Length: 99999999999\r\n\r\nxx", LOOPBACK_FLOOD },
		{ NULL, NULL, LOOPBACK_KEEP }
	};
	static const char *const urls[] = { "http://407.invalid/",   "https://407.invalid/",
		                            "https://502.invalid/",  "https://503.invalid/?key=secret",
		                            "https://302.invalid/",  "https://100.invalid/",
		                            "https://flood.invalid/" };
	char proxy[64], text[64];
	server.routes = table;
	snprintf(proxy, sizeof proxy, "http://me:secret@127.0.0.1:%d", server.port);
	snprintf(text, sizeof text, "/: through the proxy http://127.0.0.1:%d: ", server.port);
	for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
		get_through(proxy, urls[i], NULL);
		assert_failed(-EIO, "proxy", text);
		assert_int_equal(result.answer.status, 0);
		assert_int_equal(result.body.len, 0);
		bool who = i < 2 || i == 6;
		char status[32];
		snprintf(status, sizeof status, "it answered %.3s", strstr(urls[i], "//") + 2);
		assert_non_null(strstr(result.text, who ? "wants a user and a password" : status));
		if (i > 0)
			assert_null(strstr(server.last_head, "abc"));
	}
	assert_int_equal(server.requests, sizeof urls / sizeof *urls);
}

static void test_proxy_that_speaks_no_http(void **state)
{
	(void)state;
	const struct loopback_route table[] = {
		{ "lines.invalid:443", padded("HTTP/1.1 200 OK\r\n", 66000, ""), LOOPBACK_KEEP },
		{ "line.invalid:443", "0123456789012345678901234567890123456789", LOOPBACK_FLOOD },
		{ "close.invalid:443", "", LOOPBACK_CLOSE },
		{ NULL, NULL, LOOPBACK_KEEP }
	};
	char proxy[64];
	server.routes = table;
	snprintf(proxy, sizeof proxy, "http://127.0.0.1:%d", server.port);
	get_through(proxy, "https://lines.invalid/", NULL);
	assert_failed(-E2BIG, "too-large", "more than 65536 bytes of headers");
	assert_int_equal(result.answer.status, 0);
	get_through(proxy, "https://line.invalid/", NULL);
	assert_failed(-EIO, "network", "CONNECT response too large");
	get_through(proxy, "https://close.invalid/", NULL);
	assert_failed(-EIO, "network", "through the proxy http://127.0.0.1:");
	/* Nor SOCKS. */
	snprintf(proxy, sizeof proxy, "socks5h://127.0.0.1:%d", server.port);
	server.routes = routes;
	struct http_request request = request_for("http://origin.invalid/", &result);
	request.proxy = proxy;
	request.timeout_ms = 100; /* our greeting is too short to be answered */
	result.done = false;
	run(&request);
	assert_failed(-ETIMEDOUT, "timeout", "through the proxy socks5h://127.0.0.1:");
}

static void test_proxy_that_is_not_there(void **state)
{
	(void)state;
	char proxy[160];
	int port;
	int fd = silent_socket(-1, &port);
	for (unsigned i = 0; i < 2; i++) {
		snprintf(proxy, sizeof proxy, "%s://me:secret@127.0.0.1:%d", i ? "socks5h" : "http", port);
		get_through(proxy, "https://origin.invalid/", NULL);
		assert_failed(-ECONNREFUSED, "refused", "://127.0.0.1:");
		assert_non_null(strstr(result.text, ": connection refused by the proxy"));
		/* The resolver itself refuses the name. */
		snprintf(proxy, sizeof proxy,
		         "%s://me:secret@a123456789b123456789c123456789d123456789e123456789f123456789g"
		         "123456789.invalid:1",
		         i ? "socks5h" : "http");
		get_through(proxy, "https://origin.invalid/", NULL);
		assert_failed(-EHOSTUNREACH, "dns", "the proxy's name is not known");
	}
	close(fd);
}

static void test_socks_proxy(void **state)
{
	(void)state;
	char url[64];
	struct relay relay = { .target = server.port };
	snprintf(url, sizeof url, "http://origin.invalid:%d/plain", server.port);
	get_through_relay(&relay, "socks5h://127.0.0.1:%d", url, NULL);
	assert_good(200, "[1,2]");
	assert_string_equal(relay.asked, "origin.invalid");
	assert_false(relay.kerberos);
	assert_non_null(strstr(server.last_head, "GET /plain HTTP/1.1\r\n"));
	assert_non_null(strstr(server.last_head, "X-Api-Key: abc\r\n"));
	assert_null(strstr(server.last_head, "Proxy"));
	relay.method = 2;
	get_through_relay(&relay, "socks5h://me:se%%63ret@127.0.0.1:%d", url, NULL);
	assert_good(200, "[1,2]");
	assert_string_equal(relay.asked, "me secret origin.invalid");
	relay.user_reply = 1;
	get_through_relay(&relay, "socks5h://me:secret@127.0.0.1:%d", url, NULL);
	assert_failed(-EIO, "proxy", "the proxy wants a user and a password, or refuses those it was given");
	relay.method = 0xff;
	get_through_relay(&relay, "socks5h://127.0.0.1:%d", url, NULL);
	assert_failed(-EIO, "proxy", "the proxy wants a user and a password");
	static const struct {
		unsigned char reply;
		const char *text;
	} refusals[] = { { 1, "connection" },    { 2, "does not allow" },       { 3, "cannot reach the host" },
		         { 4, "does not know" }, { 5, "the host has refused" }, { 99, "connection" } };
	relay.method = 0;
	for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
		relay.reply = refusals[i].reply;
		get_through_relay(&relay, "socks5h://127.0.0.1:%d", url, NULL);
		assert_failed(-EIO, "proxy", "/plain: through the proxy socks5h://127.0.0.1:");
		assert_non_null(strstr(result.text, refusals[i].text));
	}
}

static void test_proxies_are_judged(void **state)
{
	(void)state;
	static const char *const good[] = { "",
		                            "http://proxy.example",
		                            "HTTP://proxy.example:3128/",
		                            "http://me:a%40b@proxy.example:3128",
		                            "http://me@[::1]:3128",
		                            "socks5h://127.0.0.1:9050" };
	static const char *const wrong[] = { "https://secret.example:3128",
		                             "socks5://secret.example",
		                             "socks5h:secret.example",
		                             "secret.example:3128",
		                             "http://",
		                             "http://me:secret@",
		                             "http://me:secret@host:99999",
		                             "http://me:sec ret@host",
		                             "http://me:1#secret@host",
		                             "http://me:1/secret@host",
		                             "http://me:1?secret@host",
		                             "http://me:secret%0d@host",
		                             "http://secret%00:x@host",
		                             "http://secret.example/path",
		                             "socks5h://localhost/secret" };
	struct err err;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++)
		assert_int_equal(http_check_proxy(good[i], &err), 0);
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		if (http_check_proxy(wrong[i], &err) != -EINVAL)
			fail_msg("\"%s\" is taken", wrong[i]);
		assert_non_null(strstr(err.text, "://"));
		assert_null(strstr(err.text, "secret"));
	}
	struct http_request request = request_for("http://origin.invalid/", &result);
	request.proxy = "ftp://secret.example";
	assert_int_equal(http_start(http, &request, &result.transfer, &err), -EINVAL);
	assert_non_null(strstr(err.text, "no other kind"));
}

static const char *header_of(const struct http_answer *answer, const char *name)
{
	const char *value = http_header(answer, name);
	return value ? value : "(none)";
}

static void on_done_looks_at_headers(void *arg, const struct http_answer *answer)
{
	assert_string_equal(header_of(answer, "content-length"), "5000000000");
	assert_string_equal(header_of(answer, "X-Amz-Checksum-SHA256"), "abc=");
	assert_string_equal(header_of(answer, "X-Empty"), "(none)");
	assert_null(http_header(answer, "ETag"));
	on_done(arg, answer);
}

static void test_head(void **state)
{
	(void)state;
	struct http_request request = request_for(loopback_url(&server, "/object"), &result);
	request.method = "HEAD";
	request.on_done = on_done_looks_at_headers;
	run(&request); /* the Content-Length is more than max_body */
	assert_good(200, "");
	assert_non_null(strstr(server.last_head, "HEAD /object HTTP/1.1\r\n"));
	get("/plain");
	assert_good(200, "[1,2]");
	assert_int_equal(server.connections, 1);
	request.url = loopback_url(&server, "/head-cut");
	request.on_done = on_done;
	result.done = false;
	bytes_clear(&result.body);
	run(&request);
	assert_failed(-EPIPE, "truncated", "the answer ended within its headers");
}

static void test_path_is_sent_as_it_is(void **state)
{
	(void)state;
	static const char *const paths[] = { "/b/a%3Db/../x", "/b/./a//b/.", "/b/%2e%2E/%2fx%c3%a6", "/b/a+b~c:d@e,f=g",
		                             "/b?prefix=a%2Fb/../c&x=%3d" };
	for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
		char line[128];
		snprintf(line, sizeof line, "GET %s HTTP/1.1\r\n", paths[i]);
		get(paths[i]);
		assert_memory_equal(server.last_head, line, strlen(line));
	}
	char *shown = url_show("http://h/b/../x?key=1");
	assert_string_equal(shown, "http://h/b/../x");
	free(shown);
}

static void test_urls_are_judged(void **state)
{
	(void)state;
	struct err err;
	assert_int_equal(url_check("https://data.example/parking.json?key=1", &err), 0);
	assert_int_equal(url_check("HTTP://data.example", &err), 0);
	assert_int_equal(url_check("http://[::1]:8080/", &err), 0);
	assert_int_equal(url_check("ftp://data.example/x?key=secret", &err), -EINVAL);
	assert_string_equal(err.text, "\"ftp://data.example/x\": scheme \"ftp\" is not http or https");
	static const char *const wrong[] = { "data.example/x", "", "http://", "http://a b/", "https://a:99999/" };
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		assert_int_equal(url_check(wrong[i], &err), -EINVAL);
		assert_non_null(strstr(err.text, "not a URL"));
	}
	assert_int_equal(url_check("https://me:secret@data.example/", &err), -EINVAL);
	assert_non_null(strstr(err.text, "password"));
	assert_null(strstr(err.text, "secret"));
	assert_int_equal(url_check("https://me@data.example/", &err), -EINVAL);
	struct http_request request = request_for("file:///etc/passwd", &result);
	assert_int_equal(http_start(http, &request, &result.transfer, &err), -EINVAL);
	assert_non_null(strstr(err.text, "file"));
}

static void test_shown_urls_hold_no_secret(void **state)
{
	(void)state;
	char *shown = url_show("https://me:secret@data.example:8443/a/b.json?key=secret#secret");
	assert_string_equal(shown, "https://data.example:8443/a/b.json");
	free(shown);
	assert_null(url_show("not a url"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
static const struct CMUnitTest tests[] = {
	TEST(test_complete_answers),
	TEST(test_request_says_who_asks_and_no_more),
	TEST(test_encoded_body_comes_raw_and_is_told),
	TEST(test_retry_after_in_both_forms),
	TEST(test_redirects_are_followed),
	TEST(test_redirects_are_limited),
	TEST(test_headers_of_our_own_stay_with_their_origin),
	TEST(test_redirect_judgement),
	TEST(test_tls_is_verified),
	TEST(test_ca_file_of_a_request),
	TEST(test_put_over_tls),
	TEST(test_https_where_http_is_spoken),
	TEST(test_cut_answers),
	TEST(test_broken_http),
	TEST(test_headers_are_bounded),
	TEST(test_trailers_are_bounded),
	TEST(test_headers_of_redirects_are_bounded_apart),
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
	TEST(test_put_in_one_go),
	TEST(test_other_methods_with_a_body),
	TEST(test_put_in_pieces_with_pauses),
	TEST(test_long_pause_is_no_stall),
	TEST(test_trickle_is_no_stall),
	TEST(test_stalls),
	TEST(test_send_rate),
	TEST(test_answer_before_the_body),
	TEST(test_long_answer_before_the_body),
	TEST(test_upload_that_breaks),
	TEST(test_upload_on_a_connection_that_closes),
	TEST(test_only_get_is_redirected),
	TEST(test_body_taken_in_pieces),
	TEST(test_body_taken_in_pieces_over_tls),
	TEST(test_pauses_hold_back_the_peer),
	TEST(test_pause_after_the_end_came),
	TEST(test_pause_outlasts_the_peer),
	TEST(test_resume_is_harmless),
	TEST(test_cancel_while_paused),
	TEST(test_refusal_after_a_pause),
	TEST(test_on_body_may_resume_another),
	TEST(test_cancel_of_all_that_go_on),
	TEST(test_pause_of_answer_and_upload),
	TEST(test_body_is_bounded_across_pauses),
	TEST(test_long_pause_of_a_body_is_no_stall),
	TEST(test_timeout_of_a_paused_body),
	TEST(test_http_through_a_proxy),
	TEST(test_https_through_a_proxy),
	TEST(test_proxy_that_refuses),
	TEST(test_proxy_that_speaks_no_http),
	TEST(test_proxy_that_is_not_there),
	TEST(test_socks_proxy),
	TEST(test_proxies_are_judged),
	TEST(test_head),
	TEST(test_path_is_sent_as_it_is),
	TEST(test_urls_are_judged),
	TEST(test_shown_urls_hold_no_secret),
};

int main(void)
{
	alarm(60); /* a hang fails */
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
