/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/client.h"

#include <curl/curl.h>
#include <errno.h>
#include <grp.h>
#include <jansson.h>
#include <poll.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "cli/cli.h"

#define ANSWER_MAX    ((size_t)64 << 20)
#define PROBLEM_MAX   ((size_t)64 << 10)
#define GET_TIMEOUT_S 30L
#define URL_MAX       1536

static size_t on_data(char *data, size_t size, size_t n, void *arg)
{
	return bytes_add(arg, data, size * n) == 0 ? size * n : 0;
}

/* What stands in the way: the socket, or the nearest folder above it that can be looked at. */
static void describe_owner(const char *socket_path, struct err *err)
{
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	struct stat st;
	snprintf(path, sizeof path, "%s", socket_path);
	while (stat(path, &st) < 0) {
		char *slash = strrchr(path, '/');
		if (!slash || slash == path)
			return;
		*slash = '\0';
	}
	const struct passwd *user = getpwuid(st.st_uid);
	const struct group *group = getgrgid(st.st_gid);
	err_fail(err, 0, "%s; %s belongs to user %s and group %s: run this as that user, or join the group", err->text,
	         path, user ? user->pw_name : "?", group ? group->gr_name : "?");
}

static int explain_connect(const char *socket_path, long os_error, struct err *err)
{
	if (os_error == EACCES || os_error == EPERM) {
		err_fail(err, 0, "may not ask the daemon at %s: %s", socket_path, strerror((int)os_error));
		describe_owner(socket_path, err);
		return CLI_UNAVAILABLE;
	}
	return err_fail(err, CLI_UNAVAILABLE,
	                "no daemon answers at %s: %s; is it running? start it with: millrace -c FILE run", socket_path,
	                strerror(os_error ? (int)os_error : ECONNREFUSED));
}

static int explain_transfer(CURL *curl, CURLcode code, const char *socket_path, struct err *err)
{
	long os_error = 0;
	switch (code) {
	case CURLE_COULDNT_CONNECT:
		curl_easy_getinfo(curl, CURLINFO_OS_ERRNO, &os_error);
		return explain_connect(socket_path, os_error, err);
	case CURLE_OPERATION_TIMEDOUT:
		return err_fail(err, CLI_UNAVAILABLE, "the daemon at %s gave no answer within %ld seconds", socket_path,
		                GET_TIMEOUT_S);
	case CURLE_GOT_NOTHING:
	case CURLE_RECV_ERROR:
	case CURLE_PARTIAL_FILE:
		return err_fail(err, CLI_UNAVAILABLE, "the daemon at %s went away before its answer was complete",
		                socket_path);
	default:
		return err_fail(err, CLI_UNAVAILABLE, "the daemon at %s: %s", socket_path, curl_easy_strerror(code));
	}
}

/* 4xx is what the caller asked wrongly, anything else is the daemon's trouble. */
static int explain_status(long status, const struct bytes *body, struct err *err)
{
	json_t *problem = body->len ? json_loadb((const char *)body->data, body->len, 0, NULL) : NULL;
	const char *detail = json_string_value(json_object_get(problem, "detail"));
	if (detail)
		err_fail(err, 0, "%s", detail);
	else
		err_fail(err, 0, "the daemon answered with HTTP status %ld", status);
	json_decref(problem);
	return status >= 400 && status < 500 ? CLI_USAGE : CLI_UNAVAILABLE;
}

static CURL *open_request(const char *socket_path, const char *path, struct err *err)
{
	char url[URL_MAX];
	if (strlen(socket_path) >= sizeof(((struct sockaddr_un *)0)->sun_path)) {
		err_fail(err, CLI_UNAVAILABLE, "%s: longer than a socket's path can be", socket_path);
		return NULL;
	}
	CURL *curl = curl_easy_init();
	if (!curl) {
		err_fail(err, CLI_UNAVAILABLE, "there is not enough memory");
		return NULL;
	}
	snprintf(url, sizeof url, "http://millrace%s", path);
	curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, socket_path);
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	return curl;
}

static long status_of(CURL *curl)
{
	long status = 0;
	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
	return status;
}

int client_request(const char *socket_path, const char *method, const char *path, struct bytes *ret_body,
                   struct err *err)
{
	bytes_init(ret_body, ANSWER_MAX);
	CURL *curl = open_request(socket_path, path, err);
	if (!curl)
		return CLI_UNAVAILABLE;
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, ret_body);
	if (strcmp(method, "POST") == 0)
		curl_easy_setopt(curl, CURLOPT_POSTFIELDS, "");
	else
		curl_easy_setopt(curl, CURLOPT_TIMEOUT, GET_TIMEOUT_S);
	CURLcode code = curl_easy_perform(curl);
	int rc = CLI_OK;
	if (code != CURLE_OK)
		rc = explain_transfer(curl, code, socket_path, err);
	else if (status_of(curl) != 200)
		rc = explain_status(status_of(curl), ret_body, err);
	curl_easy_cleanup(curl);
	return rc;
}

struct stream {
	CURL *curl;
	int out;
	int out_error;        /* why no more was written */
	struct bytes problem; /* the body of an answer that is not 200 */
};

static size_t on_piece(char *data, size_t size, size_t n, void *arg)
{
	struct stream *stream = arg;
	size_t len = size * n;
	if (status_of(stream->curl) != 200)
		return on_data(data, size, n, &stream->problem);
	for (size_t done = 0; done < len;) {
		ssize_t written = write(stream->out, data + done, len - done);
		if (written < 0 && errno != EINTR) {
			stream->out_error = errno;
			return 0;
		}
		done += written > 0 ? (size_t)written : 0;
	}
	return len;
}

/* Comes each second: ends what nobody reads any more, and what has no answer yet after half a minute. */
static int on_second(void *arg, curl_off_t down_all, curl_off_t down, curl_off_t up_all, curl_off_t up)
{
	struct stream *stream = arg;
	struct pollfd reader = { .fd = stream->out };
	double waited_s = 0;
	(void)down_all;
	(void)down;
	(void)up_all;
	(void)up;
	if (poll(&reader, 1, 0) > 0 && reader.revents & (POLLERR | POLLHUP))
		stream->out_error = EPIPE;
	curl_easy_getinfo(stream->curl, CURLINFO_TOTAL_TIME, &waited_s);
	return stream->out_error || (status_of(stream->curl) == 0 && waited_s > GET_TIMEOUT_S);
}

static int explain_stream(struct stream *stream, CURLcode code, const char *socket_path, struct err *err)
{
	long status = status_of(stream->curl);
	if (stream->out_error == EPIPE)
		return CLI_OK;
	if (stream->out_error)
		return err_fail(err, CLI_CANTCREAT, "standard output: %s", strerror(stream->out_error));
	if (status != 0 && status != 200)
		return explain_status(status, &stream->problem, err);
	if (code == CURLE_ABORTED_BY_CALLBACK)
		code = CURLE_OPERATION_TIMEDOUT;
	if (code != CURLE_OK && status == 200)
		return err_fail(err, CLI_UNAVAILABLE,
		                "the daemon at %s broke off: it stopped, or its answer was read too slowly",
		                socket_path);
	return code == CURLE_OK ? CLI_OK : explain_transfer(stream->curl, code, socket_path, err);
}

int client_stream(const char *socket_path, const char *path, int out, bool *ret_ended, struct err *err)
{
	struct stream stream = { .curl = open_request(socket_path, path, err), .out = out };
	if (!stream.curl)
		return CLI_UNAVAILABLE;
	bytes_init(&stream.problem, PROBLEM_MAX);
	curl_easy_setopt(stream.curl, CURLOPT_WRITEFUNCTION, on_piece);
	curl_easy_setopt(stream.curl, CURLOPT_WRITEDATA, &stream);
	curl_easy_setopt(stream.curl, CURLOPT_XFERINFOFUNCTION, on_second);
	curl_easy_setopt(stream.curl, CURLOPT_XFERINFODATA, &stream);
	curl_easy_setopt(stream.curl, CURLOPT_NOPROGRESS, 0L);
	int rc = explain_stream(&stream, curl_easy_perform(stream.curl), socket_path, err);
	*ret_ended = rc == CLI_OK && !stream.out_error;
	curl_easy_cleanup(stream.curl);
	bytes_done(&stream.problem);
	return rc;
}

struct fetch {
	CURL *curl;
	int (*on_bytes)(void *arg, const void *data, size_t len);
	void *arg;
	bool refused;
	struct bytes problem;
};

static size_t on_fetched(char *data, size_t size, size_t n, void *arg)
{
	struct fetch *fetch = arg;
	if (status_of(fetch->curl) != 200)
		return on_data(data, size, n, &fetch->problem);
	fetch->refused = fetch->on_bytes(fetch->arg, data, size * n) != 0;
	return fetch->refused ? 0 : size * n;
}

int client_fetch(const char *socket_path, const char *path, int (*on_bytes)(void *arg, const void *data, size_t len),
                 void *arg, struct err *err)
{
	struct fetch fetch = { .curl = open_request(socket_path, path, err), .on_bytes = on_bytes, .arg = arg };
	int rc = CLI_OK;
	if (!fetch.curl)
		return CLI_UNAVAILABLE;
	bytes_init(&fetch.problem, PROBLEM_MAX);
	curl_easy_setopt(fetch.curl, CURLOPT_WRITEFUNCTION, on_fetched);
	curl_easy_setopt(fetch.curl, CURLOPT_WRITEDATA, &fetch);
	curl_easy_setopt(fetch.curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
	curl_easy_setopt(fetch.curl, CURLOPT_LOW_SPEED_TIME, GET_TIMEOUT_S);
	CURLcode code = curl_easy_perform(fetch.curl);
	long status = status_of(fetch.curl);
	if (fetch.refused)
		rc = CLI_CANTCREAT;
	else if (status != 0 && status != 200)
		rc = explain_status(status, &fetch.problem, err);
	else if (code != CURLE_OK)
		rc = explain_transfer(fetch.curl, code, socket_path, err);
	curl_easy_cleanup(fetch.curl);
	bytes_done(&fetch.problem);
	return rc;
}

struct upload {
	int in;
	uint64_t left;
	int error; /* why no more could be read */
};

static size_t on_upload(char *data, size_t size, size_t n, void *arg)
{
	struct upload *upload = arg;
	size_t most = size * n < upload->left ? size * n : (size_t)upload->left;
	ssize_t got;
	do
		got = most ? read(upload->in, data, most) : 0;
	while (got < 0 && errno == EINTR);
	if (got < 0 || (got == 0 && most)) {
		upload->error = got < 0 ? errno : ENODATA;
		return CURL_READFUNC_ABORT;
	}
	upload->left -= (uint64_t)got;
	return (size_t)got;
}

/* Expect: is taken out: the daemon reads the body anyway, and nobody waits for its leave. */
static CURLcode perform_put(CURL *curl, struct upload *upload, struct bytes *body)
{
	struct curl_slist *headers = curl_slist_append(NULL, "Expect:");
	curl_easy_setopt(curl, CURLOPT_UPLOAD, 1L);
	curl_easy_setopt(curl, CURLOPT_INFILESIZE_LARGE, (curl_off_t)upload->left);
	curl_easy_setopt(curl, CURLOPT_READFUNCTION, on_upload);
	curl_easy_setopt(curl, CURLOPT_READDATA, upload);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, body);
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
	CURLcode code = headers ? curl_easy_perform(curl) : CURLE_OUT_OF_MEMORY;
	curl_slist_free_all(headers);
	return code;
}

int client_put(const char *socket_path, const char *path, int in, uint64_t bytes, long *ret_status, json_t **ret_answer,
               struct err *err)
{
	struct upload upload = { .in = in, .left = bytes };
	struct bytes body;
	CURL *curl = open_request(socket_path, path, err);
	int rc = CLI_OK;
	*ret_status = 0;
	if (!curl)
		return CLI_UNAVAILABLE;
	bytes_init(&body, PROBLEM_MAX);
	CURLcode code = perform_put(curl, &upload, &body);
	if (upload.error) {
		rc = err_fail(err, CLI_DATA, "%s", strerror(upload.error));
	} else if (code != CURLE_OK) {
		rc = explain_transfer(curl, code, socket_path, err);
	} else {
		*ret_status = status_of(curl);
		*ret_answer = *ret_status == 200 ? json_loadb((char *)body.data, body.len, 0, NULL) : NULL;
		if (!*ret_answer)
			rc = explain_status(*ret_status, &body, err);
	}
	curl_easy_cleanup(curl);
	bytes_done(&body);
	return rc;
}

int client_ask(const char *socket_path, const char *method, const char *path, FILE *copy, json_t **ret_answer,
               struct err *err)
{
	struct bytes body;
	int rc = client_request(socket_path, method, path, &body, err);
	json_t *answer = rc == CLI_OK
	                         ? json_loadb(body.len ? (const char *)body.data : "", body.len, JSON_ALLOW_NUL, NULL)
	                         : NULL;
	if (rc == CLI_OK && !json_is_object(answer)) {
		json_decref(answer);
		answer = NULL;
		rc = err_fail(err, CLI_UNAVAILABLE, "what answers at %s is no Millrace daemon", socket_path);
	}
	if (rc == CLI_OK && copy)
		fwrite(body.data, 1, body.len, copy);
	if (rc == CLI_OK)
		*ret_answer = answer;
	bytes_done(&body);
	return rc;
}
