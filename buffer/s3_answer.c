/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an answer means is told by its status, its XML's <Code> and a few headers; which request it answers does not
 * matter. What a store says may hold what we have sent, so it passes through quote() before people see it.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/units.h"
#include "buffer/s3_private.h"

#define CODE_MAX    64
#define MESSAGE_MAX 512 /* read of what a store says */
#define QUOTE_MAX   161 /* shown of it */
#define ADVICE_MAX  ERR_MAX
#define SKEW_MS     (10 * 60 * 1000)

/* What an answer says, for people but for the code. */
struct said {
	bool is_error;       /* it is S3's XML */
	char code[CODE_MAX]; /* "" where there is none */
	char message[QUOTE_MAX];
	char region[QUOTE_MAX];
	char server[QUOTE_MAX];
};

const char *s3_header(const struct s3_answer *answer, const char *name)
{
	const char *value = answer->header ? answer->header(answer->arg, name) : NULL;

	return value ? value : "";
}

/* --- What it says --- */

static void hide(char *text, const char *secret)
{
	size_t len = strlen(secret);

	for (char *at = text; len > 0 && (at = strstr(at, secret)); at += len)
		memset(at, '*', len);
}

/*
 * Text of the store as a message can show it: printable ASCII without double quotes, white space as one space, our
 * credentials hidden, which a store may send back. They are hidden before the text is cut, lest half of one stays.
 */
static void quote(const struct s3 *s3, const char *text, size_t len, char ret[QUOTE_MAX])
{
	char raw[MESSAGE_MAX] = "", clean[MESSAGE_MAX] = "";
	size_t n = 0;

	if (len > sizeof raw - 1)
		len = sizeof raw - 1;
	if (len > 0) /* text may be NULL then */
		memcpy(raw, text, len);
	for (size_t i = 0; i < len; i++)
		raw[i] = raw[i] ? raw[i] : ' ';
	hide(raw, s3->secret_key);
	hide(raw, s3->access_key);
	for (size_t i = 0; i < len && n + 1 < sizeof clean; i++) {
		unsigned char c = (unsigned char)raw[i];

		if (c > ' ' && c < 0x7f)
			clean[n++] = c == '"' ? '\'' : (char)c;
		else if (c >= 0x7f)
			clean[n++] = '?';
		else if (n > 0 && clean[n - 1] != ' ')
			clean[n++] = ' ';
	}
	clean[n] = '\0';
	clean[QUOTE_MAX - 1] = '\0';
	memcpy(ret, clean, QUOTE_MAX);
}

static void quote_element(const struct s3 *s3, struct s3_span in, const char *name, char ret[QUOTE_MAX])
{
	struct s3_span content;
	char text[MESSAGE_MAX] = "";

	if (s3_xml_find(in, name, &content, NULL))
		s3_xml_text(content, text, sizeof text);
	quote(s3, text, strlen(text), ret);
}

static bool is_code(const char *text)
{
	for (const char *at = text; *at; at++) {
		if (!isalnum((unsigned char)*at) && !strchr("._-", *at))
			return false;
	}
	return *text != '\0';
}

static void read_said(const struct s3 *s3, const struct s3_answer *a, struct said *ret)
{
	struct s3_span error, content;
	const char *region = s3_header(a, "x-amz-bucket-region"), *server = s3_header(a, "server");

	*ret = (struct said){ 0 };
	if (s3_xml_find(s3_body(a), "Error", &error, NULL) && s3_xml_find(error, "Code", &content, NULL) &&
	    s3_xml_text(content, ret->code, sizeof ret->code) < sizeof ret->code && is_code(ret->code)) {
		ret->is_error = true;
		quote_element(s3, error, "Message", ret->message);
		quote_element(s3, error, "Region", ret->region);
	}
	if (!ret->is_error)
		ret->code[0] = '\0';
	if (!*ret->region)
		quote(s3, region, strlen(region), ret->region);
	quote(s3, server, strlen(server), ret->server);
}

/* Adds up to `most` bytes of value, where there is one. */
static void append(struct err *err, const char *before, const char *value, int most, const char *after)
{
	size_t len = strlen(err->text);

	if (*value)
		snprintf(err->text + len, sizeof err->text - len, "%s%.*s%s", before, most, value, after);
}

/* --- The store's clock --- */

/* The Date header (RFC 9110 §5.6.7, the form that must be sent: Fri, 24 May 2013 00:00:00 GMT). */
static int parse_date(const char *text, int64_t *ret_wall_ms)
{
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	char month[4], time[9], rfc3339[2 * UNITS_TEXT_MAX];
	const char *at;
	unsigned day, year;

	if (sscanf(text, "%*3[A-Za-z], %2u %3[A-Za-z] %4u %8[0-9:] GMT", &day, month, &year, time) != 4)
		return -EINVAL;
	at = strstr(months, month);
	if (!at || (at - months) % 3 != 0)
		return -EINVAL;
	snprintf(rfc3339, sizeof rfc3339, "%04u-%02d-%02uT%s.000Z", year, (int)(at - months) / 3 + 1, day, time);
	return units_parse_time(rfc3339, ret_wall_ms);
}

/*
 * Whether the answer tells a time that is so far from the one that was signed that it may have been refused for it. A
 * refused HEAD says no more than that, and not all stores call it RequestTimeTooSkewed.
 */
static bool note_skew(struct s3 *s3, const struct s3_answer *a, const struct said *said, int64_t wall_ms,
                      struct err *err)
{
	bool named = strcmp(said->code, "RequestTimeTooSkewed") == 0;
	char age[UNITS_TEXT_MAX];
	int64_t now, ahead, moved;

	if ((!named && a->status != 400 && a->status != 403) || parse_date(s3_header(a, "date"), &now) < 0)
		return false;
	ahead = now - wall_ms;
	moved = llabs(ahead - s3->ahead_ms);
	if (!named && moved <= SKEW_MS)
		return false;
	s3->ahead_ms = ahead;
	err_fail(err, 0, "%ld%s%s: the store's clock is %s %s this machine's; its time is used from now on", a->status,
	         *said->code ? " " : "", said->code, units_age(llabs(ahead), age), ahead < 0 ? "behind" : "ahead of");
	return true;
}

/* --- Codes --- */

static void advise_policy(const struct s3 *s3, const struct said *said, char text[ADVICE_MAX])
{
	const struct s3_settings *s = s3->settings;

	(void)said;
	snprintf(text, ADVICE_MAX,
	         "allow this access key s3:PutObject and s3:GetObject on \"arn:aws:s3:::%s/%s%s*\" and s3:ListBucket "
	         "on \"arn:aws:s3:::%s\"",
	         s->bucket, s->prefix, *s->prefix ? "/" : "", s->bucket);
}

static void advise_bucket(const struct s3 *s3, const struct said *said, char text[ADVICE_MAX])
{
	(void)said;
	snprintf(text, ADVICE_MAX, "there is no bucket \"%s\" at %s; make it: mc mb ALIAS/%s", s3->settings->bucket,
	         s3->settings->endpoint, s3->settings->bucket);
}

static void advise_region(const struct s3 *s3, const struct said *said, char text[ADVICE_MAX])
{
	const char *ours = s3->settings->region;

	if (*said->region && strcmp(said->region, ours) != 0)
		snprintf(text, ADVICE_MAX,
		         "the bucket is in region \"%.63s\", and region is \"%s\"; set region (and endpoint, where it "
		         "names one)",
		         said->region, ours);
	else
		snprintf(text, ADVICE_MAX, "the bucket is not at %s in region \"%s\"; see endpoint and region",
		         s3->settings->endpoint, ours);
}

struct meaning {
	const char *code;
	enum s3_verdict verdict;
	const char *advice; /* or */
	void (*advise)(const struct s3 *s3, const struct said *said, char text[ADVICE_MAX]);
};

#define DAMAGED "the object was damaged on the way; it is sent again"
#define FULL    "the store is full: make room there"

static const struct meaning meanings[] = {
	{ "PreconditionFailed", S3_EXISTS, "an object stands there already", NULL },
	{ "NoSuchKey", S3_ABSENT, "there is no such object", NULL },

	{ "InvalidAccessKeyId", S3_DENIED, "the store does not know this access key; see access_key", NULL },
	{ "XAdminUserNotFound", S3_DENIED, "the store does not know this access key; see access_key", NULL },
	{ "SignatureDoesNotMatch", S3_DENIED,
	  "the secret key is not the access key's (see secret_key), or a proxy changes the host or the path", NULL },
	{ "AccessDenied", S3_DENIED, NULL, advise_policy },
	{ "NoSuchBucket", S3_DENIED, NULL, advise_bucket },
	{ "InvalidBucketName", S3_DENIED, "the store takes no bucket of that name; see bucket and virtual_host", NULL },
	{ "PermanentRedirect", S3_DENIED, NULL, advise_region },
	{ "TemporaryRedirect", S3_DENIED, NULL, advise_region },
	{ "AuthorizationHeaderMalformed", S3_DENIED, NULL, advise_region },
	{ "IllegalLocationConstraintException", S3_DENIED, NULL, advise_region },
	{ "NotImplemented", S3_DENIED, "the store cannot do what was asked", NULL },

	{ "RequestTimeTooSkewed", S3_AGAIN, "the clocks differ too much; set this machine's clock", NULL },
	{ "ConditionalRequestConflict", S3_AGAIN, "another upload of the same object is under way", NULL },
	{ "OperationAborted", S3_AGAIN, "another change of the same object is under way", NULL },
	{ "RequestTimeout", S3_AGAIN, "the upload was too slow for the store", NULL },
	{ "SlowDown", S3_AGAIN, "the store asks for fewer requests", NULL },
	{ "BadDigest", S3_AGAIN, DAMAGED, NULL },
	{ "IncompleteBody", S3_AGAIN, DAMAGED, NULL },
	{ "XAmzContentSHA256Mismatch", S3_AGAIN, DAMAGED, NULL },
	{ "XAmzContentChecksumMismatch", S3_AGAIN, DAMAGED, NULL },
	{ "EntityTooLarge", S3_AGAIN, "the store takes no object of that size; allow more there", NULL },
	{ "QuotaExceeded", S3_AGAIN, "the bucket's quota is used up; raise it, or make room", NULL },
	{ "XMinioAdminBucketQuotaExceeded", S3_AGAIN, "the bucket's quota is used up; raise it, or make room", NULL },
	{ "XMinioStorageFull", S3_AGAIN, FULL, NULL },
	{ "StorageFull", S3_AGAIN, FULL, NULL },
};

static bool passes_by_itself(long status)
{
	return status >= 500 || status == 408 || status == 409 || status == 429;
}

static enum s3_verdict judge_code(const struct s3 *s3, const struct s3_answer *a, const struct said *said,
                                  struct err *err)
{
	const struct meaning unknown = { .verdict = passes_by_itself(a->status) ? S3_AGAIN : S3_DENIED };
	const struct meaning *m = &unknown;
	char advice[ADVICE_MAX] = "";

	for (size_t i = 0; i < sizeof meanings / sizeof *meanings; i++)
		if (strcmp(meanings[i].code, said->code) == 0)
			m = &meanings[i];
	if (m->advise)
		m->advise(s3, said, advice);
	else if (m->advice)
		snprintf(advice, sizeof advice, "%s", m->advice);
	err_fail(err, 0, "%ld %s", a->status, said->code);
	append(err, ": ", advice, ADVICE_MAX, "");
	append(err, "; the store says \"", said->message, QUOTE_MAX, "\"");
	return m->verdict;
}

/* --- Answers without a code --- */

static enum s3_verdict foreign(const struct s3 *s3, const struct s3_answer *a, const struct said *said, struct err *err)
{
	const char *type = s3_header(a, "content-type"), *to = s3_header(a, "location");
	char shown_type[QUOTE_MAX], shown_to[QUOTE_MAX], body[QUOTE_MAX];

	quote(s3, type, strlen(type), shown_type);
	quote(s3, to, strcspn(to, "?#"), shown_to);
	quote(s3, a->body, a->body ? a->body_len : 0, body);
	err_fail(err, 0, "no S3 answers at %s (see endpoint): %ld", s3->settings->endpoint, a->status);
	append(err, ", ", shown_type, 60, "");
	append(err, ", server \"", said->server, 60, "\"");
	append(err, ", redirected to ", shown_to, 100, "");
	append(err, ", beginning with \"", body, 80, "\"");
	return S3_FOREIGN;
}

/* The store's, or that of a proxy before it. */
static enum s3_verdict away(const struct s3_answer *a, const struct said *said, struct err *err)
{
	err_fail(err, 0, "%ld from the store or a proxy before it", a->status);
	append(err, ", server \"", said->server, 60, "\"");
	return S3_AGAIN;
}

/* Those without a body, as all answers to HEAD are. */
static enum s3_verdict judge_status(const struct s3 *s3, const struct s3_answer *a, const struct said *said,
                                    struct err *err)
{
	char advice[ADVICE_MAX];

	switch (a->status) {
	case 412:
		err_fail(err, 0, "412: an object stands there already");
		return S3_EXISTS;
	case 404:
		err_fail(err, 0, "404: there is no such object");
		return S3_ABSENT;
	case 401:
	case 403:
		advise_policy(s3, said, advice);
		err_fail(err, 0, "%ld: see access_key and secret_key, or %s", a->status, advice);
		return S3_DENIED;
	case 400:
		err_fail(err, 0, "400 without a reason; see endpoint, region, access_key and secret_key");
		return S3_DENIED;
	default:
		break;
	}
	if (a->status >= 300 && a->status < 400 && *said->region) {
		advise_region(s3, said, advice);
		err_fail(err, 0, "%ld: %s", a->status, advice);
		return S3_DENIED;
	}
	if (a->status == 501) {
		err_fail(err, 0, "501: the store cannot do what was asked");
		return S3_DENIED;
	}
	return passes_by_itself(a->status) ? away(a, said, err) : foreign(s3, a, said, err);
}

/* An object's answer has an ETag and no body (what is read goes elsewhere); a list's has none, but is a list. A web
 * page may have an ETag too. */
static bool is_success(const struct s3_answer *a)
{
	struct s3_span list;

	return a->status == 200 && ((*s3_header(a, "etag") && a->body_len == 0) ||
	                            s3_xml_find(s3_body(a), "ListBucketResult", &list, NULL));
}

static enum s3_verdict judge_answer(const struct s3 *s3, const struct s3_answer *a, const struct said *said,
                                    struct err *err)
{
	if (is_success(a))
		return S3_DONE;
	if (said->is_error)
		return judge_code(s3, a, said, err);
	if (a->status == 413) {
		err_fail(err, 0, "413: a proxy before the store takes no object of that size; allow more there");
		return S3_DENIED;
	}
	if (a->body_len == 0)
		return judge_status(s3, a, said, err);
	if (a->status != 501 && passes_by_itself(a->status))
		return away(a, said, err);
	return foreign(s3, a, said, err);
}

/* --- No answer --- */

static enum s3_verdict judge_error(const struct s3 *s3, const struct s3_answer *a, struct err *err)
{
	const char *text = a->text ? a->text : "no answer";

	switch (a->error) {
	case -EBADE:
		err_fail(err, 0,
		         "%.300s; see endpoint (http or https?), ca_file (a CA of your own?) and this machine's clock",
		         text);
		return S3_DENIED;
	case -EPROTO:
	case -EMSGSIZE: /* an error of S3 is short */
	case -E2BIG:
		if (a->status >= 500)
			break;
		err_fail(err, 0, "no S3 answers at %s (see endpoint): %.250s", s3->settings->endpoint, text);
		return S3_FOREIGN;
	default:
		break;
	}
	err_fail(err, 0, "%s", text);
	return S3_AGAIN;
}

enum s3_verdict s3_judge(struct s3 *s3, const struct s3_answer *answer, int64_t wall_ms, struct err *err)
{
	enum s3_verdict verdict;
	struct said said;
	struct err own = { "" };

	err = err ? err : &own;
	if (answer->error)
		return judge_error(s3, answer, err);
	read_said(s3, answer, &said);
	if (note_skew(s3, answer, &said, wall_ms, err) && !s3->skewed) {
		s3->skewed = true;
		return S3_SKEWED;
	}
	verdict = judge_answer(s3, answer, &said, err);
	if (verdict == S3_DONE || verdict == S3_EXISTS || verdict == S3_ABSENT)
		s3->skewed = false;
	return verdict;
}
