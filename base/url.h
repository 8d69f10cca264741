/* SPDX-License-Identifier: Apache-2.0 */
/* URLs as Millrace takes, follows and shows them, by libcurl's parser (RFC 3986). Pure functions; any thread. */
#ifndef BASE_URL_H
#define BASE_URL_H

#include <stdbool.h>

#include "base/err.h"

/*
 * 0, -ENOMEM, or -EINVAL with what is wrong: not a URL, no http or https, a user or password inside (they would show in
 * logs and lists of processes).
 */
int url_check(const char *url, struct err *err);

/* The URL without query, fragment, user and password, where secrets may stand: for people. The caller frees it; NULL
 * where it is no URL, or for want of memory. */
char *url_show(const char *url);

/* Whether an answer of `from` may lead to `to`: 0, -ENOMEM, or -EPROTO with what is wrong (url_check, or from
 * https to http, RFC 9110 §15.4). */
int url_check_redirect(const char *from, const char *to, struct err *err);

/* Where `location` leads, seen from `from`; the caller frees it; NULL where it is no URL, or for want of memory. */
char *url_resolve(const char *from, const char *location);

/* RFC 6454 §5; no memory counts as another origin. */
bool url_same_origin(const char *a, const char *b);

#endif
