/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vectors are AWS's: the examples of "Signature Calculations for the Authorization Header: Transferring Payload in
 * a Single Chunk" (Amazon S3 API reference), and AWS's Signature Version 4 test suite as in awslabs/aws-c-auth, by its
 * names. Of the suite are left out what a caller of ours has done before: parsing and joining of headers
 * (get-header-key-duplicate, -value-order and -value-multiline; -value-trim stands here with its values trimmed), and
 * the paths that get normalized, which S3 never does (get-relative-normalized and the like; their unnormalized twins
 * stand here). HMAC's are those of RFC 4231, but for its truncated case 5.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "buffer/sigv4.h"

#define EMPTY   "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define WELCOME "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072" /* "Welcome to Amazon S3." */
#define FORM    "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e" /* "Param1=value1" */
#define TOKEN   "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267"
#define ALNUM   "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

struct vector {
	const char *name, *method, *path, *query, *payload, *signature;
	struct sigv4_header headers[6]; /* ended by a NULL name */
};

static const struct sigv4_credentials s3_example = {
	"AKIAIOSFODNN7EXAMPLE",
	"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
	"us-east-1",
	"s3",
};

static const struct sigv4_credentials suite = {
	"AKIDEXAMPLE",
	"wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
	"us-east-1",
	"service",
};

#define S3_TIME "20130524T000000Z"
#define S3_HOST                                                                                                        \
	{                                                                                                              \
		"host", "examplebucket.s3.amazonaws.com"                                                               \
	}
#define S3_DATE                                                                                                        \
	{                                                                                                              \
		"x-amz-date", S3_TIME                                                                                  \
	}
#define S3_NOTHING                                                                                                     \
	{                                                                                                              \
		"x-amz-content-sha256", EMPTY                                                                          \
	}

static const struct vector s3_vectors[] = {
	{ "GET Object",
	  "GET",
	  "/test.txt",
	  "",
	  EMPTY,
	  "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
	  { S3_HOST, { "range", "bytes=0-9" }, S3_NOTHING, S3_DATE } },
	{ "PUT Object",
	  "PUT",
	  "/test$file.text",
	  "",
	  WELCOME,
	  "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
	  { { "date", "Fri, 24 May 2013 00:00:00 GMT" },
	    S3_HOST,
	    { "x-amz-content-sha256", WELCOME },
	    S3_DATE,
	    { "x-amz-storage-class", "REDUCED_REDUNDANCY" } } },
	{ "GET Bucket Lifecycle",
	  "GET",
	  "/",
	  "lifecycle=",
	  EMPTY,
	  "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
	  { S3_HOST, S3_NOTHING, S3_DATE } },
	{ "GET Bucket (List Objects)",
	  "GET",
	  "/",
	  "max-keys=2&prefix=J",
	  EMPTY,
	  "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
	  { S3_HOST, S3_NOTHING, S3_DATE } },
};

#define TIME "20150830T123600Z"
#define HOST                                                                                                           \
	{                                                                                                              \
		"host", "example.amazonaws.com"                                                                        \
	}
#define DATE                                                                                                           \
	{                                                                                                              \
		"x-amz-date", TIME                                                                                     \
	}

static const struct vector suite_vectors[] = {
	{ "get-vanilla",
	  "GET",
	  "/",
	  "",
	  EMPTY,
	  "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
	  { HOST, DATE } },
	{ "get-header-value-trim",
	  "GET",
	  "/",
	  "",
	  EMPTY,
	  "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
	  { HOST, { "my-header1", "value1" }, { "my-header2", "\"a b c\"" }, DATE } },
	{ "get-relative-relative-unnormalized",
	  "GET",
	  "/example1/example2/../..",
	  "",
	  EMPTY,
	  "dc33e0856fd4baca4d7aa2146c38958283844764f38c74252a333df5e613003b",
	  { HOST, DATE } },
	{ "get-relative-unnormalized",
	  "GET",
	  "/example/..",
	  "",
	  EMPTY,
	  "eca7ead57bb5aa5c8e28007acd4ff04e1ff9a0ff3b237ec1554a184887ff9282",
	  { HOST, DATE } },
	{ "get-slash-dot-slash-unnormalized",
	  "GET",
	  "/./",
	  "",
	  EMPTY,
	  "68714168e6557f8f2de0ef956fc24dc2593a4bd2961f8df51898d8a134695145",
	  { HOST, DATE } },
	{ "get-slash-pointless-dot-unnormalized",
	  "GET",
	  "/./example",
	  "",
	  EMPTY,
	  "beb03f223f7deae4146464f06e29eebbee9c8afbe15c290cf07aa8b119e14cff",
	  { HOST, DATE } },
	{ "get-slash-unnormalized",
	  "GET",
	  "//",
	  "",
	  EMPTY,
	  "c88bcd3d312d75078c0cd961d6deae3f4c754924b01669efcfcb439fd5e5b76e",
	  { HOST, DATE } },
	{ "get-slashes-unnormalized",
	  "GET",
	  "//example//",
	  "",
	  EMPTY,
	  "87cca117541a147f6df867677d98a7d80dff226d2bfca9e4ffa899665623c7e5",
	  { HOST, DATE } },
	{ "get-space-unnormalized",
	  "GET",
	  "/example space/",
	  "",
	  EMPTY,
	  "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741",
	  { HOST, DATE } },
	{ "get-unreserved",
	  "GET",
	  "/-._~" ALNUM,
	  "",
	  EMPTY,
	  "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
	  { HOST, DATE } },
	{ "get-utf8",
	  "GET",
	  "/\xe1\x88\xb4",
	  "",
	  EMPTY,
	  "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
	  { HOST, DATE } },
	{ "get-vanilla-empty-query-key",
	  "GET",
	  "/",
	  "Param1=value1",
	  EMPTY,
	  "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb",
	  { HOST, DATE } },
	{ "get-vanilla-query-order-encoded",
	  "GET",
	  "/",
	  "%E1%88%B4=Value1&Param=Value2&Param-3=Value3",
	  EMPTY,
	  "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac",
	  { HOST, DATE } },
	{ "get-vanilla-query-order-key-case",
	  "GET",
	  "/",
	  "Param1=value1&Param2=value2",
	  EMPTY,
	  "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
	  { HOST, DATE } },
	{ "get-vanilla-query-unreserved",
	  "GET",
	  "/",
	  "-._~" ALNUM "=-._~" ALNUM,
	  EMPTY,
	  "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
	  { HOST, DATE } },
	{ "get-vanilla-utf8-query",
	  "GET",
	  "/",
	  "%E1%88%B4=bar",
	  EMPTY,
	  "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04",
	  { HOST, DATE } },
	{ "get-vanilla-with-session-token",
	  "GET",
	  "/",
	  "",
	  EMPTY,
	  "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8",
	  { HOST, DATE, { "x-amz-security-token", TOKEN } } },
	{ "post-vanilla",
	  "POST",
	  "/",
	  "",
	  EMPTY,
	  "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
	  { HOST, DATE } },
	{ "post-vanilla-query",
	  "POST",
	  "/",
	  "Param1=value1",
	  EMPTY,
	  "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11",
	  { HOST, DATE } },
	{ "post-header-key-sort",
	  "POST",
	  "/",
	  "",
	  EMPTY,
	  "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
	  { HOST, { "my-header1", "value1" }, DATE } },
	{ "post-header-value-case",
	  "POST",
	  "/",
	  "",
	  EMPTY,
	  "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d",
	  { HOST, { "my-header1", "VALUE1" }, DATE } },
	{ "post-x-www-form-urlencoded",
	  "POST",
	  "/",
	  "",
	  FORM,
	  "d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b",
	  { { "content-length", "13" },
	    { "content-type", "application/x-www-form-urlencoded" },
	    HOST,
	    { "x-amz-content-sha256", FORM },
	    DATE } },
	{ "post-x-www-form-urlencoded-parameters",
	  "POST",
	  "/",
	  "",
	  FORM,
	  "328d1b9eaadca9f5818ef05e8392801e091653bafec24fcab71e7344e7f51422",
	  { { "content-length", "13" },
	    { "content-type", "application/x-www-form-urlencoded; charset=utf-8" },
	    HOST,
	    { "x-amz-content-sha256", FORM },
	    DATE } },
};

/* The Authorization header of a vector, whose path is encoded here. */
static void sign(const struct vector *v, const struct sigv4_credentials *credentials, const char *time,
                 struct bytes *out)
{
	struct sigv4_request request = {
		.method = v->method,
		.query = v->query,
		.headers = v->headers,
		.payload_sha256 = v->payload,
	};
	struct bytes path;

	bytes_init(&path, 1024);
	assert_int_equal(sigv4_encode(v->path, true, &path), 0);
	assert_int_equal(bytes_add(&path, "", 1), 0);
	request.path = (char *)path.data;
	while (v->headers[request.n_headers].name)
		request.n_headers++;
	bytes_init(out, 1024);
	assert_int_equal(sigv4_authorization(&request, credentials, time, out), 0);
	assert_int_equal(bytes_add(out, "", 1), 0);
	bytes_done(&path);
}

static void check_signature(const struct vector *v, const struct sigv4_credentials *credentials, const char *time)
{
	struct bytes value;
	const char *signature;

	sign(v, credentials, time, &value);
	signature = strstr((char *)value.data, "Signature=");
	assert_non_null(signature);
	if (strcmp(signature + strlen("Signature="), v->signature) != 0)
		fail_msg("%s: %s", v->name, signature);
	bytes_done(&value);
}

static void test_s3_examples(void **state)
{
	struct bytes value;

	(void)state;
	for (size_t i = 0; i < sizeof s3_vectors / sizeof *s3_vectors; i++)
		check_signature(&s3_vectors[i], &s3_example, S3_TIME);
	sign(&s3_vectors[1], &s3_example, S3_TIME, &value);
	assert_string_equal((char *)value.data,
	                    "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
	                    "SignedHeaders=date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class, "
	                    "Signature=98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
	bytes_done(&value);
}

static void test_suite(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof suite_vectors / sizeof *suite_vectors; i++)
		check_signature(&suite_vectors[i], &suite, TIME);
}

static void test_ceiling(void **state)
{
	const struct sigv4_header headers[] = { HOST, DATE };
	const struct sigv4_request request = { "GET", "/", "", headers, 2, EMPTY };
	struct sigv4_credentials credentials = suite;
	char secret[9000];
	struct bytes value;

	(void)state;
	bytes_init(&value, 100);
	assert_int_equal(bytes_add_text(&value, "x"), 0);
	assert_int_equal(sigv4_authorization(&request, &credentials, TIME, &value), -ENOBUFS);
	assert_int_equal(value.len, 1);
	bytes_done(&value);
	memset(secret, 's', sizeof secret - 1);
	secret[sizeof secret - 1] = '\0';
	credentials.secret_key = secret;
	bytes_init(&value, 1000);
	assert_int_equal(sigv4_authorization(&request, &credentials, TIME, &value), -ENOBUFS);
	assert_int_equal(value.len, 0);
	bytes_done(&value);
}

static void hmac_is(const void *key, size_t key_len, const void *data, size_t len, const char *expected)
{
	uint8_t mac[SHA256_SIZE];
	char hex[SHA256_HEX];

	sigv4_hmac(key, key_len, data, len, mac);
	assert_string_equal(sha256_hex(mac, 64, hex), expected);
}

static void test_hmac(void **state)
{
	uint8_t key[131], data[50];

	(void)state;
	memset(key, 0x0b, 20);
	hmac_is(key, 20, "Hi There", 8, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
	hmac_is("Jefe", 4, "what do ya want for nothing?", 28,
	        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
	memset(key, 0xaa, sizeof key);
	memset(data, 0xdd, sizeof data);
	hmac_is(key, 20, data, 50, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe");
	for (uint8_t i = 0; i < 25; i++)
		key[i] = i + 1;
	memset(data, 0xcd, sizeof data);
	hmac_is(key, 25, data, 50, "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b");
	memset(key, 0xaa, sizeof key);
	hmac_is(key, 131, "Test Using Larger Than Block-Size Key - Hash Key First", 54,
	        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
	hmac_is(key, 131,
	        "This is a test using a larger than block-size key and a larger than block-size data. The key needs to "
	        "be hashed before being used by the HMAC algorithm.",
	        152, "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2");
}

static void test_time(void **state)
{
	char time[SIGV4_TIME_MAX];

	(void)state;
	sigv4_time(INT64_C(1369353600000), time);
	assert_string_equal(time, S3_TIME);
	sigv4_time(INT64_C(1440938160999), time);
	assert_string_equal(time, TIME);
	sigv4_time(0, time);
	assert_string_equal(time, "19700101T000000Z");
}

static void encodes(const char *text, bool path, const char *expected)
{
	struct bytes out;

	bytes_init(&out, 1024);
	assert_int_equal(sigv4_encode(text, path, &out), 0);
	assert_int_equal(out.len, strlen(expected));
	assert_memory_equal(out.data, expected, out.len);
	bytes_done(&out);
}

static void test_encode(void **state)
{
	struct bytes out;

	(void)state;
	encodes("source=a/b c+d%e:f/\xc3\xa5\xe2\x82\xac", true, "source%3Da/b%20c%2Bd%25e%3Af/%C3%A5%E2%82%AC");
	encodes("source=a/b c+d%e:f", false, "source%3Da%2Fb%20c%2Bd%25e%3Af");
	encodes("-._~" ALNUM, false, "-._~" ALNUM);
	encodes("%20 !\"#$&'()*,;<>?@[\\]^`{|}\x01\x7f\xff", true,
	        "%2520%20%21%22%23%24%26%27%28%29%2A%2C%3B%3C%3E%3F%40%5B%5C%5D%5E%60%7B%7C%7D%01%7F%FF");
	bytes_init(&out, 4);
	assert_int_equal(bytes_add_text(&out, "x"), 0);
	assert_int_equal(sigv4_encode("a=", false, &out), -ENOBUFS);
	assert_int_equal(out.len, 1);
	bytes_done(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_s3_examples), cmocka_unit_test(test_suite), cmocka_unit_test(test_ceiling),
		cmocka_unit_test(test_hmac),        cmocka_unit_test(test_time),  cmocka_unit_test(test_encode),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
