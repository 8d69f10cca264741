/* SPDX-License-Identifier: Apache-2.0 */
/* What the store `s3` makes of answers; those of MinIO and versitygw are as these send them. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <cmocka.h>

#include "buffer/s3_xml.h"
#include "buffer/store.h"
#include "buffer/store_s3.h"

#define NOW    INT64_C(1795255320123) /* 2026-11-21T10:02:00.123Z */
#define DATE   "Date: Sat, 21 Nov 2026 10:02:00 GMT"
#define SHA256 "d2645bd730d06cb017820a4a54b53cebf0ad59204a76beb88573c5a90011ec47"
#define BASE64 "0mRb1zDQbLAXggpKVLU86/CtWSBKdr64hXPFqQAR7Ec="
#define ACCESS "AKIAIOSFODNN7EXAMPLE"
#define SECRET "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
#define HOUR   INT64_C(3600000)
#define HTML   "<html>\r\n<head><title>405 Not Allowed</title></head>\r\n<body>\r\n</body>\r\n</html>\r\n"

struct box {
	struct s3_settings settings;
	struct s3 *s3;
	struct s3_answer answer;
	const char *headers[8];
	char body[512];
	struct err err;

	struct s3_object objects[8]; /* of a list */
	size_t n_objects, stop_at;
	char *token;
};

static const char *find_header(void *arg, const char *name)
{
	const struct box *box = arg;
	size_t len = strlen(name);

	for (size_t i = 0; box->headers[i]; i++)
		if (strncasecmp(box->headers[i], name, len) == 0 && strncmp(box->headers[i] + len, ": ", 2) == 0)
			return box->headers[i] + len + 2;
	return NULL;
}

static int set_up(void **state)
{
	static struct box box;
	static const char *const values[][2] = { { "endpoint", "http://minio.lan:9000" },
		                                 { "bucket", "lake" },
		                                 { "prefix", "landing/pi" } };

	memset(&box, 0, sizeof box);
	*state = &box;
	if (option_defaults(store_kind_s3.options, &box.settings) < 0)
		return -1;
	for (size_t i = 0; i < sizeof values / sizeof *values; i++)
		if (option_set(option_find(store_kind_s3.options, values[i][0]), &box.settings, values[i][1], NULL) < 0)
			return -1;
	return s3_new(&box.settings, ACCESS, SECRET, &box.s3);
}

static int tear_down(void **state)
{
	struct box *box = *state;

	free(box->token);
	s3_free(box->s3);
	option_done(store_kind_s3.options, &box->settings);
	return 0;
}

/* An answer of this body, with the headers that stand in the box. */
static void answers(struct box *box, long status, const char *body)
{
	box->answer = (struct s3_answer){
		.status = status,
		.retry_after_ms = -1,
		.header = find_header,
		.arg = box,
		.body = *body ? body : NULL,
		.body_len = strlen(body),
	};
}

static enum s3_verdict judge(struct box *box, int64_t wall_ms)
{
	enum s3_verdict verdict;

	box->err.text[0] = '\0';
	verdict = s3_judge(box->s3, &box->answer, wall_ms, &box->err);
	assert_null(strstr(box->err.text, ACCESS));
	assert_null(strstr(box->err.text, SECRET));
	return verdict;
}

static void is(struct box *box, enum s3_verdict verdict, const char *text)
{
	enum s3_verdict was = judge(box, NOW);

	if (was != verdict || !strstr(box->err.text, text))
		fail_msg("%ld: verdict %d, not %d: %s", box->answer.status, was, verdict, box->err.text);
}

static void code_is(struct box *box, long status, const char *code, enum s3_verdict verdict, const char *text)
{
	snprintf(box->body, sizeof box->body,
	         "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>%s</Code><Message>It said so.</Message>"
	         "<Resource>/lake</Resource><RequestId>17</RequestId></Error>",
	         code);
	answers(box, status, box->body);
	is(box, verdict, text);
	assert_non_null(strstr(box->err.text, code));
	if (strlen(box->err.text) < sizeof box->err.text - 1)
		assert_non_null(strstr(box->err.text, "the store says \"It said so.\""));
}

static void test_success(void **state)
{
	struct box *box = *state;

	box->headers[0] = "ETag: \"b8f477f1e1327f6520a7a375a2d1d288\"";
	answers(box, 200, "");
	is(box, S3_DONE, "");
	answers(box, 404, "");
	is(box, S3_ABSENT, "");
	answers(box, 201, "");
	is(box, S3_FOREIGN, "");
	box->headers[0] = NULL;
	answers(box, 200, "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>");
	is(box, S3_DONE, "");
	answers(box, 412, "");
	is(box, S3_EXISTS, "412");
	answers(box, 404, "");
	is(box, S3_ABSENT, "404");
	code_is(box, 412, "PreconditionFailed", S3_EXISTS, "stands there already");
	code_is(box, 404, "NoSuchKey", S3_ABSENT, "no such object");
	assert_int_equal(s3_judge(box->s3, &box->answer, NOW, NULL), S3_ABSENT);
}

static void test_denied(void **state)
{
	struct box *box = *state;

	code_is(box, 403, "InvalidAccessKeyId", S3_DENIED, "see access_key");
	code_is(box, 404, "XAdminUserNotFound", S3_DENIED, "see access_key"); /* versitygw */
	code_is(box, 403, "SignatureDoesNotMatch", S3_DENIED, "see secret_key");
	code_is(box, 403, "AccessDenied", S3_DENIED,
	        "allow this access key s3:PutObject and s3:GetObject on \"arn:aws:s3:::lake/landing/pi/*\" and "
	        "s3:ListBucket on \"arn:aws:s3:::lake\"");
	code_is(box, 404, "NoSuchBucket", S3_DENIED,
	        "there is no bucket \"lake\" at http://minio.lan:9000; make it: mc mb ALIAS/lake");
	code_is(box, 400, "InvalidBucketName", S3_DENIED, "see bucket");
	code_is(box, 501, "NotImplemented", S3_DENIED, "cannot do");
	code_is(box, 403, "SomethingNew", S3_DENIED, "403 SomethingNew; the store says");
	code_is(box, 405, "MethodNotAllowed", S3_DENIED, "405");
	answers(box, 403, "");
	is(box, S3_DENIED, "s3:ListBucket");
	answers(box, 401, "");
	is(box, S3_DENIED, "access_key");
	answers(box, 400, "");
	is(box, S3_DENIED, "region");
	answers(box, 501, "");
	is(box, S3_DENIED, "501");
	answers(box, 413, HTML);
	is(box, S3_DENIED, "a proxy before the store");
}

static void test_region(void **state)
{
	struct box *box = *state;

	code_is(box, 301, "PermanentRedirect", S3_DENIED, "see endpoint and region");
	code_is(box, 400, "AuthorizationHeaderMalformed", S3_DENIED, "see endpoint and region");
	answers(box, 400,
	        "<Error><Code>AuthorizationHeaderMalformed</Code><Message>The authorization header is malformed; the "
	        "region &#34;us-east-1&#34; is wrong; expecting &#34;eu-west-1&#34;</Message><Region>eu-west-1"
	        "</Region></Error>");
	is(box, S3_DENIED, "the bucket is in region \"eu-west-1\", and region is \"us-east-1\"");
	assert_non_null(strstr(box->err.text, "is wrong; expecting 'eu-west-1'\""));
	box->headers[0] = "x-amz-bucket-region: eu-north-1";
	answers(box, 301, "");
	is(box, S3_DENIED, "the bucket is in region \"eu-north-1\"");
	code_is(box, 301, "PermanentRedirect", S3_DENIED, "eu-north-1");
}

static void test_again(void **state)
{
	struct box *box = *state;

	code_is(box, 409, "ConditionalRequestConflict", S3_AGAIN, "under way");
	code_is(box, 503, "SlowDown", S3_AGAIN, "fewer requests");
	code_is(box, 503, "ServiceUnavailable", S3_AGAIN, "503");
	code_is(box, 500, "InternalError", S3_AGAIN, "500");
	code_is(box, 503, "XMinioServerNotInitialized", S3_AGAIN, "503");
	code_is(box, 429, "TooManyRequests", S3_AGAIN, "429");
	code_is(box, 400, "RequestTimeout", S3_AGAIN, "too slow");
	code_is(box, 400, "BadDigest", S3_AGAIN, "damaged on the way");
	code_is(box, 400, "IncompleteBody", S3_AGAIN, "damaged on the way");
	code_is(box, 400, "XAmzContentSHA256Mismatch", S3_AGAIN, "damaged on the way");
	code_is(box, 400, "XAmzContentChecksumMismatch", S3_AGAIN, "damaged on the way");
	code_is(box, 400, "EntityTooLarge", S3_AGAIN, "no object of that size");
	code_is(box, 403, "QuotaExceeded", S3_AGAIN, "quota");
	code_is(box, 507, "XMinioStorageFull", S3_AGAIN, "make room");
	for (long status = 500; status <= 599; status++) {
		answers(box, status, "");
		is(box, status == 501 ? S3_DENIED : S3_AGAIN, "");
		answers(box, status, HTML);
		is(box, status == 501 ? S3_FOREIGN : S3_AGAIN, "");
	}
	box->headers[0] = "Server: nginx/1.22.1";
	answers(box, 502, HTML);
	is(box, S3_AGAIN, "502 from the store or a proxy before it, server \"nginx/1.22.1\"");
	answers(box, 429, HTML);
	is(box, S3_AGAIN, "429");
	answers(box, 408, "");
	is(box, S3_AGAIN, "408");
}

static void test_foreign(void **state)
{
	struct box *box = *state;

	box->headers[0] = "Server: nginx/1.22.1";
	box->headers[1] = "Content-Type: text/html";
	answers(box, 405, HTML);
	is(box, S3_FOREIGN,
	   "no S3 answers at http://minio.lan:9000 (see endpoint): 405, text/html, server \"nginx/1.22.1\", beginning "
	   "with \"<html> <head><title>405 Not Allowed</title></head> <body> </body> </html> \"");
	answers(box, 404, HTML);
	is(box, S3_FOREIGN, "404");
	answers(box, 403, HTML);
	is(box, S3_FOREIGN, "403");
	answers(box, 412, HTML);
	is(box, S3_FOREIGN, "412");
	answers(box, 200, HTML);
	is(box, S3_FOREIGN, "200");
	answers(box, 200, "");
	is(box, S3_FOREIGN, "200");
	answers(box, 201, "");
	is(box, S3_FOREIGN, "201");
	answers(box, 204, "");
	is(box, S3_FOREIGN, "204");
	answers(box, 400, "{\"error\":\"no route\"}");
	is(box, S3_FOREIGN, "{'error':'no route'}");
	answers(box, 403, "<Error><Message>no code</Message></Error>");
	is(box, S3_FOREIGN, "403");
	answers(box, 403, "<Error><Code></Code></Error>");
	is(box, S3_FOREIGN, "403");
	answers(box, 403, "<Error><Code>a b</Code></Error>");
	is(box, S3_FOREIGN, "403");
	answers(box, 403, "<Error><Code>AccessDenied</Code>"); /* cut short */
	is(box, S3_FOREIGN, "403");
	answers(box, 400, "\x80\xff\x01\x7f<\n\n\t>");
	is(box, S3_FOREIGN, "beginning with \"?? ?< >\"");
	box->headers[2] = "Location: https://minio.lan:9000/lake/x?X-Amz-Security-Token=hush#x";
	answers(box, 301, HTML);
	is(box, S3_FOREIGN, "redirected to https://minio.lan:9000/lake/x, ");
	assert_null(strstr(box->err.text, "hush"));
	answers(box, 307, "");
	is(box, S3_FOREIGN, "redirected to https://minio.lan:9000/lake/x");
}

/* A server that sends back what it was asked. */
static void test_hides_credentials(void **state)
{
	struct box *box = *state;
	char body[1024], line[1040];

	answers(box, 400, "Authorization: AWS4-HMAC-SHA256 Credential=" ACCESS "/20261121");
	is(box, S3_FOREIGN, "Credential=********************/20261121");
	answers(box, 403,
	        "<Error><Code>InvalidAccessKeyId</Code><Message>no " ACCESS " or " SECRET "</Message></Error>");
	is(box, S3_DENIED, "\"no ******************** or ****************************************\"");
	answers(box, 403, "<Error><Code>AccessDenied</Code><Message>&#65;KIAIOSFODNN7EXAMPLE</Message></Error>");
	is(box, S3_DENIED, "\"********************\"");
	for (size_t before = 0; before < 600; before++) { /* cut anywhere */
		memset(body, 'x', before);
		snprintf(body + before, sizeof body - before, ACCESS);
		snprintf(line, sizeof line, "Server: %s", body);
		box->headers[0] = before % 2 ? line : NULL;
		answers(box, 400, before % 2 ? "?" : body);
		is(box, S3_FOREIGN, "beginning with");
		assert_null(strstr(box->err.text, "AKIA"));
	}
}

static void test_no_answer(void **state)
{
	struct box *box = *state;

	box->answer = (struct s3_answer){ .error = -ECONNREFUSED, .text = "PUT http://m/: connection refused" };
	is(box, S3_AGAIN, "PUT http://m/: connection refused");
	box->answer.error = -ETIMEDOUT;
	is(box, S3_AGAIN, "refused");
	box->answer.error = -EHOSTUNREACH;
	is(box, S3_AGAIN, "refused");
	box->answer.error = -EPIPE;
	box->answer.status = 200;
	is(box, S3_AGAIN, "refused");
	box->answer = (struct s3_answer){ .error = -EBADE, .text = "PUT https://m/: self-signed certificate" };
	is(box, S3_DENIED, "PUT https://m/: self-signed certificate; see endpoint (http or https?), ca_file");
	box->answer = (struct s3_answer){ .error = -EPROTO, .text = "PUT http://m/: Received HTTP/0.9" };
	is(box, S3_FOREIGN, "no S3 answers at http://minio.lan:9000 (see endpoint): PUT http://m/: Received");
	box->answer = (struct s3_answer){ .error = -EMSGSIZE, .text = "too large", .status = 200 };
	is(box, S3_FOREIGN, "too large");
	box->answer.status = 503;
	is(box, S3_AGAIN, "too large");
}

/* --- Clocks --- */

static void signs_at(struct box *box, const char *date)
{
	struct s3_request request;
	char expected[64];
	bool found = false;

	assert_int_equal(s3_head(box->s3, "k", NOW, &request), 0);
	snprintf(expected, sizeof expected, "x-amz-date: %s", date);
	for (char **h = request.headers; *h; h++)
		found = found || strcmp(*h, expected) == 0;
	assert_true(found);
	s3_request_done(&request);
}

#define SKEWED "<Error><Code>RequestTimeTooSkewed</Code></Error>"

static void test_skew_by_name(void **state)
{
	struct box *box = *state;

	box->headers[0] = "Date: Sun, 22 Nov 2026 10:02:01 GMT";
	signs_at(box, "20261121T100200Z");
	answers(box, 403, SKEWED);
	is(box, S3_SKEWED, "403 RequestTimeTooSkewed: the store's clock is 1d ahead of this machine's");
	signs_at(box, "20261122T100201Z");
	is(box, S3_AGAIN, "set this machine's clock");
	is(box, S3_AGAIN, "set this machine's clock");
	signs_at(box, "20261122T100201Z");
	answers(box, 404, "");
	is(box, S3_ABSENT, "");
	box->headers[0] = DATE; /* this machine's clock has been set */
	answers(box, 403, SKEWED);
	is(box, S3_SKEWED, "");
	signs_at(box, "20261121T100200Z");
}

static void test_skew_by_date(void **state)
{
	struct box *box = *state;

	box->headers[0] = "Date: Sat, 21 Nov 2026 09:02:00 GMT";
	answers(box, 403, "");
	is(box, S3_SKEWED, "403: the store's clock is 1h behind this machine's");
	signs_at(box, "20261121T090200Z");
	is(box, S3_DENIED, "access_key"); /* it was not the clock */
	answers(box, 400, "<Error><Code>RequestExpired</Code></Error>");
	assert_int_equal(judge(box, NOW + HOUR), S3_DENIED); /* twice running */
	answers(box, 404, "");
	assert_int_equal(judge(box, NOW + HOUR), S3_ABSENT);
	answers(box, 400, "<Error><Code>RequestExpired</Code></Error>");
	assert_int_equal(judge(box, NOW + HOUR), S3_DENIED); /* it was learnt then */
	assert_int_equal(judge(box, NOW + 2 * HOUR), S3_SKEWED);
	answers(box, 404, "");
	assert_int_equal(judge(box, NOW + 2 * HOUR), S3_ABSENT);
	answers(box, 403, "");
	box->headers[0] = "Date: Sat, 21 Nov 2026 07:12:00 GMT"; /* as far from the learnt time as is forgiven */
	assert_int_equal(judge(box, NOW), S3_DENIED);
	box->headers[0] = "Date: Sat, 21 Nov 2026 07:12:01 GMT";
	assert_int_equal(judge(box, NOW), S3_SKEWED);
}

static void test_no_skew(void **state)
{
	static const char *const dates[] = {
		DATE,
		"Date: Sat, 21 Nov 2026 09:52:05 GMT",
		"Date: Saturday, 21-Nov-26 09:02:00 GMT",
		"Date: Sat, 21 Now 2026 09:02:00 GMT",
		"Date: Sat, 21 anF 2026 09:02:00 GMT",
		"Date: Sat, 32 Nov 2026 09:02:00 GMT",
		"Date: Sat, 21 Nov 2026 09:62:00 GMT",
		"Date: Sat, 21 Nov 2026 9:02:00 GMT",
		"Date: ",
		"X: y",
	};
	struct box *box = *state;

	for (size_t i = 0; i < sizeof dates / sizeof *dates; i++) {
		box->headers[0] = dates[i];
		answers(box, 403, "");
		is(box, S3_DENIED, "403");
		signs_at(box, "20261121T100200Z");
	}
	answers(box, 403, SKEWED);
	is(box, S3_AGAIN, "set this machine's clock");
	box->headers[0] = "Date: Sat, 21 Nov 2026 09:02:00 GMT";
	answers(box, 404, "");
	is(box, S3_ABSENT, "");
	answers(box, 500, "");
	is(box, S3_AGAIN, "");
	signs_at(box, "20261121T100200Z");
}

/* --- Objects --- */

static void batch_is(struct box *box, int expected, const char *text)
{
	struct batch batch = { .key = "k", .bytes = 15 };
	uint64_t bytes;

	for (int i = 0; i < SHA256_SIZE; i++)
		assert_int_equal(sscanf(&SHA256[2 * i], "%2hhx", &batch.sha256[i]), 1);
	answers(box, 200, "");
	assert_int_equal(s3_same(&box->answer, &batch, &box->err), expected);
	if (expected < 0 && !strstr(box->err.text, text))
		fail_msg("%s", box->err.text);
	if (s3_checksum(&box->answer, &bytes, batch.sha256) == 0 && expected == 0)
		assert_int_equal(bytes, 15);
}

static void test_same(void **state)
{
	struct box *box = *state;
	uint8_t sha256[SHA256_SIZE];
	char hex[SHA256_HEX];
	uint64_t bytes = 0;

	box->headers[0] = "Content-Length: 15";
	box->headers[1] = "x-amz-checksum-sha256: " BASE64;
	batch_is(box, 0, "");
	assert_int_equal(s3_checksum(&box->answer, &bytes, sha256), 0);
	assert_int_equal(bytes, 15);
	assert_string_equal(sha256_hex(sha256, 64, hex), SHA256);
	box->headers[0] = "Content-Length: 16";
	batch_is(box, -EEXIST, "\"k\" holds other bytes (16, SHA-256 " SHA256 ") than ours (15, " SHA256 ")");
	box->headers[0] = "Content-Length: 15";
	box->headers[1] = "x-amz-checksum-sha256: AmRb1zDQbLAXggpKVLU86/CtWSBKdr64hXPFqQAR7Ec=";
	box->headers[2] = "x-amz-meta-millrace-sha256: " SHA256; /* the store's own word counts */
	batch_is(box, -EEXIST, "(15, SHA-256 02645bd7");
	box->headers[1] = "x-amz-checksum-sha256: " BASE64 "-2"; /* of parts */
	batch_is(box, 0, "");
	assert_int_equal(s3_checksum(&box->answer, &bytes, sha256), -ENODATA);
	box->headers[1] = "x-amz-checksum-sha256: ********************************************";
	batch_is(box, 0, "");
	box->headers[2] = NULL;
	batch_is(box, -ENODATA, "");
	box->headers[1] = "x-amz-checksum-sha256: " BASE64;
	box->headers[0] = "Content-Length: -1";
	batch_is(box, -EEXIST, "(-1, ");
	assert_int_equal(s3_checksum(&box->answer, &bytes, sha256), -ENODATA);
	box->headers[0] = "X: y";
	batch_is(box, -EEXIST, "(?, ");
}

static int on_object(void *arg, const struct s3_object *object)
{
	struct box *box = arg;

	if (box->n_objects == box->stop_at)
		return -ECANCELED;
	box->objects[box->n_objects++] = *object;
	return 0;
}

static int read_list(struct box *box, const char *body)
{
	free(box->token);
	box->token = NULL;
	box->n_objects = 0;
	box->err.text[0] = '\0';
	answers(box, 200, body);
	return s3_read_list(box->s3, &box->answer, on_object, box, &box->token, &box->err);
}

#define LIST(inner)                                                                                                    \
	"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"                                                                 \
	"<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>lake</Name>" inner                  \
	"</ListBucketResult>"
#define OBJECT(key, size)                                                                                              \
	"<Contents><Key>" key "</Key><ETag>&#34;b8&#34;</ETag><Size>" size "</Size><Owner><ID>x</ID></Owner>"          \
	"<StorageClass>STANDARD</StorageClass></Contents>"
#define LAST "<KeyCount>2</KeyCount><IsTruncated>false</IsTruncated>"

static void test_list(void **state)
{
	struct box *box = *state;

	box->stop_at = 8;
	assert_int_equal(read_list(box, LIST(LAST "<EncodingType>url</EncodingType>" OBJECT(
	                                        "landing/pi/source%3Da/dt%3d2026-11-21/k%2B+%C3%A5%&amp;%2", "15")
	                                             OBJECT("landing%2Fpi/.millrace-probe", "62"))),
	                 0);
	assert_null(box->token);
	assert_int_equal(box->n_objects, 2);
	assert_string_equal(box->objects[0].key, "source=a/dt=2026-11-21/k+ \xc3\xa5%&%2");
	assert_int_equal(box->objects[0].bytes, 15);
	assert_string_equal(box->objects[1].key, ".millrace-probe");
	assert_int_equal(box->objects[1].bytes, 62);
	/* versitygw encodes nothing, and does not say that it does */
	assert_int_equal(read_list(box, LIST(LAST OBJECT("landing/pi/a=%41+&lt;&#xe5;", "1"))), 0);
	assert_string_equal(box->objects[0].key, "a=%41+<\xc3\xa5");
	assert_int_equal(read_list(box, LIST("<IsTruncated>true</IsTruncated><NextContinuationToken>1ueG &amp;=="
	                                     "</NextContinuationToken>" OBJECT("landing/pi/a", "0"))),
	                 0);
	assert_string_equal(box->token, "1ueG &==");
	assert_int_equal(box->n_objects, 1);
	assert_int_equal(read_list(box, LIST(LAST "<Contents/>")), -EBADMSG);
	assert_int_equal(read_list(box, LIST(LAST)), 0);
	assert_int_equal(box->n_objects, 0);
	box->stop_at = 1;
	assert_int_equal(read_list(box, LIST("<IsTruncated>true</IsTruncated><NextContinuationToken>1"
	                                     "</NextContinuationToken>" OBJECT("landing/pi/a", "0")
	                                             OBJECT("landing/pi/b", "0"))),
	                 -ECANCELED);
	assert_null(box->token);
}

static void test_list_lengths(void **state)
{
	struct box *box = *state;
	char key[4000], body[5000];

	box->stop_at = 8;
	for (size_t len = OBJECT_KEY_MAX - 2; len <= OBJECT_KEY_MAX; len++) {
		memset(key, 'k', len);
		key[len] = '\0';
		snprintf(body, sizeof body, LIST(LAST OBJECT("landing/pi/%s", "1") OBJECT("landing/pi/z", "2")), key);
		assert_int_equal(read_list(box, body), 0);
		assert_int_equal(box->n_objects, len < OBJECT_KEY_MAX ? 2 : 1);
	}
	memset(key, 'k', 3100);
	key[3100] = '\0';
	snprintf(body, sizeof body, LIST(LAST OBJECT("landing/pi/%s", "1")), key);
	assert_int_equal(read_list(box, body), -EBADMSG);
	snprintf(body, sizeof body,
	         LIST("<IsTruncated>true</IsTruncated><NextContinuationToken>%s"
	              "</NextContinuationToken>"),
	         key);
	assert_int_equal(read_list(box, body), -EBADMSG);
}

static void refuses(struct box *box, const char *body, const char *text)
{
	assert_int_equal(read_list(box, body), -EBADMSG);
	if (!strstr(box->err.text, text))
		fail_msg("%s", box->err.text);
	assert_null(box->token);
}

static void test_bad_list(void **state)
{
	static const char whole[] = LIST(LAST OBJECT("landing/pi/a", "0"));
	struct box *box = *state;

	box->stop_at = 8;
	refuses(box, "", "is none");
	refuses(box, HTML, "is none");
	refuses(box, LIST(OBJECT("landing/pi/a", "0")), "whether it goes on");
	refuses(box, LIST("<IsTruncated>maybe</IsTruncated>"), "whether it goes on");
	refuses(box, LIST("<IsTruncated>true</IsTruncated>"), "does not say where");
	refuses(box, LIST("<IsTruncated>true</IsTruncated><NextContinuationToken></NextContinuationToken>"),
	        "does not say where");
	refuses(box, LIST(LAST OBJECT("other/pi/a", "0")), "not asked for");
	refuses(box, LIST(LAST OBJECT("landing/pia", "0")), "not asked for");
	refuses(box, LIST(LAST OBJECT("landing/pi", "0")), "not asked for");
	refuses(box, LIST(LAST OBJECT("landing/pi/a", "")), "size");
	refuses(box, LIST(LAST OBJECT("landing/pi/a", "-1")), "size");
	refuses(box, LIST(LAST OBJECT("landing/pi/a", "99999999999999999999")), "size");
	refuses(box, LIST(LAST "<Contents><Key>landing/pi/a</Key></Contents>"), "size");
	for (size_t len = 0; len < sizeof whole - 1; len++) { /* cut short anywhere: never a shorter list */
		answers(box, 200, whole);
		box->answer.body_len = len;
		assert_int_equal(s3_read_list(box->s3, &box->answer, on_object, box, &box->token, &box->err), -EBADMSG);
	}
}

/* --- XML --- */

static struct s3_span span(const char *text)
{
	return (struct s3_span){ text, strlen(text) };
}

static void text_is(const char *content, size_t size, const char *expected, size_t expected_len)
{
	char text[64];

	assert_int_equal(s3_xml_text(span(content), text, size), expected_len);
	assert_string_equal(text, expected);
}

static void test_xml_text(void **state)
{
	(void)state;
	text_is("", 64, "", 0);
	text_is("a&lt;b&gt;&amp;&quot;&apos;", 64, "a<b>&\"'", 7);
	text_is("&#65;&#x42;&#XE5;&#x20ac;&#x1F600;", 64, "AB\xc3\xa5\xe2\x82\xac\xf0\x9f\x98\x80", 11);
	text_is("&", 64, "&", 1);
	text_is("&;&x;&#;&#x;&#0;&#xd800;&#x110000;&#99999999999;&nbsp;", 64,
	        "&;&x;&#;&#x;&#0;&#xd800;&#x110000;&#99999999999;&nbsp;", 54);
	text_is("&amp", 64, "&amp", 4);
	text_is("abc", 4, "abc", 3);
	text_is("abcd", 4, "abc", 4);
	text_is("abcd", 1, "", 4);
	text_is("ab&#x20ac;d", 5, "ab", 6); /* no half of a character */
}

static void test_xml_find(void **state)
{
	struct s3_span content, behind;

	(void)state;
	assert_true(s3_xml_find(span("<a><KeyCount>1</KeyCount><Key >x</Key><Key/>y"), "Key", &content, &behind));
	assert_memory_equal(content.at, "x</Key>", 7);
	assert_int_equal(content.len, 1);
	assert_true(s3_xml_find(behind, "Key", &content, &behind));
	assert_int_equal(content.len, 0);
	assert_int_equal(behind.len, 1);
	assert_false(s3_xml_find(behind, "Key", &content, &behind));
	assert_true(s3_xml_find(span("<Key a=\"b\">z</Key>"), "Key", &content, NULL));
	assert_int_equal(content.len, 1);
	assert_false(s3_xml_find(span("<Key"), "Key", &content, NULL));
	assert_false(s3_xml_find(span("<Key>"), "Key", &content, NULL));
	assert_false(s3_xml_find(span("<Key>x</Ke"), "Key", &content, NULL));
	assert_false(s3_xml_find(span("<key>x</key>"), "Key", &content, NULL));
	assert_false(s3_xml_find((struct s3_span){ NULL, 0 }, "Key", &content, NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_success, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_denied, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_region, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_again, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_foreign, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_hides_credentials, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_no_answer, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_skew_by_name, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_skew_by_date, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_no_skew, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_same, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_list, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_list_lengths, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_bad_list, set_up, tear_down),
		cmocka_unit_test(test_xml_text),
		cmocka_unit_test(test_xml_find),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
