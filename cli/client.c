/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/client.h"

#include <curl/curl.h>
#include <errno.h>
#include <grp.h>
#include <jansson.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "cli/cli.h"

#define ANSWER_MAX    ((size_t)64 << 20)
#define GET_TIMEOUT_S 30L
#define URL_MAX       256

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

static void prepare(CURL *curl, const char *socket_path, const char *method, const char *url, struct bytes *body)
{
	curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, socket_path);
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, body);
	if (strcmp(method, "POST") == 0)
		curl_easy_setopt(curl, CURLOPT_POSTFIELDS, "");
	else
		curl_easy_setopt(curl, CURLOPT_TIMEOUT, GET_TIMEOUT_S);
}

int client_request(const char *socket_path, const char *method, const char *path, struct bytes *ret_body,
                   struct err *err)
{
	char url[URL_MAX];
	bytes_init(ret_body, ANSWER_MAX);
	if (strlen(socket_path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return err_fail(err, CLI_UNAVAILABLE, "%s: longer than a socket's path can be", socket_path);
	CURL *curl = curl_easy_init();
	if (!curl)
		return err_fail(err, CLI_UNAVAILABLE, "there is not enough memory");
	snprintf(url, sizeof url, "http://millrace%s", path);
	prepare(curl, socket_path, method, url, ret_body);
	long status = 0;
	CURLcode code = curl_easy_perform(curl);
	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
	int rc = CLI_OK;
	if (code != CURLE_OK)
		rc = explain_transfer(curl, code, socket_path, err);
	else if (status != 200)
		rc = explain_status(status, ret_body, err);
	curl_easy_cleanup(curl);
	return rc;
}

int client_ask(const char *socket_path, const char *method, const char *path, FILE *copy, json_t **ret_answer,
               struct err *err)
{
	struct bytes body;
	int rc = client_request(socket_path, method, path, &body, err);
	json_t *answer = rc == CLI_OK ? json_loadb(body.len ? (const char *)body.data : "", body.len, 0, NULL) : NULL;
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
