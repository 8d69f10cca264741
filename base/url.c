/* SPDX-License-Identifier: Apache-2.0 */
#include "base/url.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static void cleanup_url(CURLU **url)
{
	curl_url_cleanup(*url);
}

static void cleanup_text(char **text)
{
	curl_free(*text);
}

#define auto_url  __attribute__((cleanup(cleanup_url))) CURLU *
#define auto_text __attribute__((cleanup(cleanup_text))) char *

/* NULL where the URL does not have it. */
static char *url_part(const CURLU *url, CURLUPart part, unsigned flags)
{
	char *text = NULL;
	return curl_url_get((CURLU *)url, part, &text, flags) == CURLUE_OK ? text : NULL;
}

int url_check(const char *text, struct err *err)
{
	auto_url url = curl_url();
	if (!url)
		return err_fail(err, -ENOMEM, "out of memory");
	CURLUcode code = curl_url_set(url, CURLUPART_URL, text, CURLU_NON_SUPPORT_SCHEME);
	if (code == CURLUE_OUT_OF_MEMORY)
		return err_fail(err, -ENOMEM, "out of memory");
	if (code)
		return err_fail(err, -EINVAL, "not a URL (%s); write it like \"https://host/path\"",
		                curl_url_strerror(code));
	auto_text user = url_part(url, CURLUPART_USER, 0);
	auto_text password = url_part(url, CURLUPART_PASSWORD, 0);
	if (user || password)
		return err_fail(err, -EINVAL,
		                "a user or password does not belong into a URL, where logs would show it; "
		                "sources with a login are not supported yet");
	auto_text scheme = url_part(url, CURLUPART_SCHEME, 0);
	auto_text shown = url_part(url, CURLUPART_URL, 0);
	if (shown)
		shown[strcspn(shown, "?#")] = '\0';
	if (!scheme || (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0))
		return err_fail(err, -EINVAL, "\"%.200s\": scheme \"%s\" is not http or https", shown ? shown : "",
		                scheme ? scheme : "");
	return 0;
}

char *url_show(const char *text)
{
	auto_url url = curl_url();
	if (!url || curl_url_set(url, CURLUPART_URL, text, CURLU_NON_SUPPORT_SCHEME | CURLU_PATH_AS_IS))
		return NULL;
	static const CURLUPart hidden[] = { CURLUPART_USER, CURLUPART_PASSWORD, CURLUPART_OPTIONS, CURLUPART_QUERY,
		                            CURLUPART_FRAGMENT };
	for (size_t i = 0; i < sizeof hidden / sizeof *hidden; i++)
		curl_url_set(url, hidden[i], NULL, 0);
	auto_text shown = url_part(url, CURLUPART_URL, 0);
	return shown ? strdup(shown) : NULL;
}

int url_check_redirect(const char *from, const char *to, struct err *err)
{
	int r = url_check(to, err);
	if (r)
		return r == -EINVAL ? -EPROTO : r;
	if (strncasecmp(from, "https:", 6) == 0 && strncasecmp(to, "https:", 6) != 0)
		return err_fail(err, -EPROTO, "from https to http, which anybody on the way could read and change");
	return 0;
}

char *url_resolve(const char *from, const char *location)
{
	auto_url url = curl_url();
	if (!url || curl_url_set(url, CURLUPART_URL, from, 0) ||
	    curl_url_set(url, CURLUPART_URL, location, CURLU_URLENCODE | CURLU_NON_SUPPORT_SCHEME))
		return NULL;
	auto_text text = url_part(url, CURLUPART_URL, 0);
	return text ? strdup(text) : NULL;
}

static bool same_part(const CURLU *a, const CURLU *b, CURLUPart part)
{
	auto_text in_a = url_part(a, part, CURLU_DEFAULT_PORT);
	auto_text in_b = url_part(b, part, CURLU_DEFAULT_PORT);
	return in_a && in_b && strcasecmp(in_a, in_b) == 0;
}

bool url_same_origin(const char *a, const char *b)
{
	auto_url in_a = curl_url();
	auto_url in_b = curl_url();
	return in_a && in_b && !curl_url_set(in_a, CURLUPART_URL, a, 0) && !curl_url_set(in_b, CURLUPART_URL, b, 0) &&
	       same_part(in_a, in_b, CURLUPART_SCHEME) && same_part(in_a, in_b, CURLUPART_HOST) &&
	       same_part(in_a, in_b, CURLUPART_PORT);
}
