/* SPDX-License-Identifier: Apache-2.0 */
/* The vectors are NIST's (FIPS 180-4 examples, and the one million a's). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/sha256.h"

static void is_digest_of(const char *text, const char *expected)
{
	for (size_t step = 1; step <= 64; step *= 8) {
		struct sha256 h;
		uint8_t digest[SHA256_SIZE];
		char hex[SHA256_HEX];
		sha256_init(&h);
		size_t len = strlen(text);
		for (size_t at = 0; at < len; at += step)
			sha256_add(&h, text + at, len - at < step ? len - at : step);
		sha256_finish(&h, digest);
		assert_string_equal(sha256_hex(digest, 64, hex), expected);
	}
}

static void test_vectors(void **state)
{
	(void)state;
	is_digest_of("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
	is_digest_of("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	is_digest_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
	             "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

static void test_million(void **state)
{
	(void)state;
	char block[1000];
	memset(block, 'a', sizeof block);
	struct sha256 h;
	uint8_t digest[SHA256_SIZE];
	char hex[SHA256_HEX];
	sha256_init(&h);
	sha256_add(&h, NULL, 0);
	for (int i = 0; i < 1000; i++)
		sha256_add(&h, block, sizeof block);
	sha256_finish(&h, digest);
	assert_string_equal(sha256_hex(digest, 64, hex),
	                    "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

static void test_first_digits(void **state)
{
	(void)state;
	static const uint8_t digest[SHA256_SIZE] = { 0x01, 0xab, 0xcd, 0xef, 0x9f };
	char hex[SHA256_HEX];
	memset(hex, '?', sizeof hex);
	assert_string_equal(sha256_hex(digest, 8, hex), "01abcdef");
	assert_int_equal(hex[9], '?');
	assert_string_equal(sha256_hex(digest, 9, hex), "01abcdef9");
	assert_string_equal(sha256_hex(digest, 0, hex), "");
}

static void test_drop_and_use_again(void **state)
{
	(void)state;
	struct sha256 h;
	uint8_t digest[SHA256_SIZE];
	char hex[SHA256_HEX];
	sha256_init(&h);
	sha256_drop(&h);
	sha256_init(&h);
	sha256_add(&h, "left behind", 11);
	sha256_drop(&h);
	sha256_init(&h);
	sha256_add(&h, "abc", 3);
	sha256_finish(&h, digest);
	sha256_drop(&h);
	assert_string_equal(sha256_hex(digest, 8, hex), "ba7816bf");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vectors),
		cmocka_unit_test(test_million),
		cmocka_unit_test(test_first_digits),
		cmocka_unit_test(test_drop_and_use_again),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
