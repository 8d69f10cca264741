/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "buffer/pack.h"

#define SIZE 700000

/* What parts came, and when to say no. */
struct catch
{
	struct bytes all;
	int parts, fail_at;
	size_t largest;
};

static int on_part(void *arg, const void *data, size_t len)
{
	struct catch *c = arg;

	if (c->parts++ == c->fail_at)
		return -ENOSPC;
	if (len > c->largest)
		c->largest = len;
	return bytes_add(&c->all, data, len);
}

static void catch_init(struct catch *c)
{
	memset(c, 0, sizeof *c);
	bytes_init(&c->all, 4 * SIZE);
	c->fail_at = -1;
}

static unsigned char *noise(void)
{
	unsigned char *data = malloc(SIZE);
	uint32_t x = 7;

	assert_non_null(data);
	for (int i = 0; i < SIZE; i++)
		data[i] = (unsigned char)((x = x * 1664525 + 1013904223) >> (i % 3 ? 30 : 24));
	return data;
}

static void pack_all(struct catch *c, const unsigned char *data, size_t len, size_t step, uint8_t *ret_sha256)
{
	struct pack pack;

	catch_init(c);
	assert_int_equal(pack_init(&pack, on_part, c), 0);
	for (size_t at = 0; at < len; at += step)
		assert_int_equal(pack_write(&pack, data + at, len - at < step ? len - at : step), 0);
	assert_int_equal(pack_finish(&pack, ret_sha256), 0);
	assert_int_equal(pack.bytes, c->all.len);
	pack_done(&pack);
	pack_done(&pack);
}

static void test_gzip_is_deterministic_and_plain(void **state)
{
	static const unsigned char header[] = { 0x1f, 0x8b, 8, 0 /* no name */, 0, 0, 0, 0 /* no time */ };
	unsigned char *data = noise();
	struct catch a, b;
	uint8_t sha_a[SHA256_SIZE], sha_b[SHA256_SIZE], sha[SHA256_SIZE];
	struct sha256 hash;

	(void)state;
	pack_all(&a, data, SIZE, 1000, sha_a);
	pack_all(&b, data, SIZE, 77777, sha_b);
	assert_memory_equal(a.all.data, header, sizeof header);
	assert_memory_equal(sha_a, sha_b, SHA256_SIZE);
	assert_int_equal(a.all.len, b.all.len);
	assert_memory_equal(a.all.data, b.all.data, a.all.len);
	assert_int_equal(a.largest, PACK_PART);
	assert_int_equal(a.parts, (int)((a.all.len + PACK_PART - 1) / PACK_PART));
	assert_true(a.parts >= 2);
	sha256_init(&hash);
	sha256_add(&hash, a.all.data, a.all.len);
	sha256_finish(&hash, sha);
	assert_memory_equal(sha, sha_a, SHA256_SIZE);
	bytes_done(&a.all);
	bytes_done(&b.all);
	free(data);
}

static void test_zlib_unpacks_it(void **state)
{
	unsigned char *data = noise(), *again = malloc(SIZE + 1);
	struct catch c;
	uint8_t sha256[SHA256_SIZE];
	z_stream z = { .next_out = again, .avail_out = SIZE + 1 };

	(void)state;
	pack_all(&c, data, SIZE, 4096, sha256);
	assert_int_equal(inflateInit2(&z, 15 + 16), Z_OK);
	z.next_in = c.all.data;
	z.avail_in = (uInt)c.all.len;
	assert_int_equal(inflate(&z, Z_FINISH), Z_STREAM_END);
	assert_int_equal(z.total_out, SIZE);
	assert_int_equal(z.avail_in, 0);
	assert_memory_equal(again, data, SIZE);
	inflateEnd(&z);
	bytes_done(&c.all);
	free(data);
	free(again);
}

static void test_what_a_part_says_ends_it(void **state)
{
	unsigned char *data = noise();
	struct catch c;
	struct pack pack;
	uint8_t sha256[SHA256_SIZE];

	(void)state;
	catch_init(&c);
	c.fail_at = 1;
	assert_int_equal(pack_init(&pack, on_part, &c), 0);
	assert_int_equal(pack_write(&pack, data, SIZE), -ENOSPC);
	pack_done(&pack);
	bytes_done(&c.all);
	catch_init(&c);
	c.fail_at = 0;
	assert_int_equal(pack_init(&pack, on_part, &c), 0);
	assert_int_equal(pack_write(&pack, data, 100), 0);
	assert_int_equal(pack_finish(&pack, sha256), -ENOSPC);
	pack_done(&pack);
	bytes_done(&c.all);
	free(data);
}

static int unpack_all(const unsigned char *data, size_t len, size_t step, struct catch *c)
{
	struct unpack unpack;
	int r = 0;

	assert_int_equal(unpack_init(&unpack, on_part, c), 0);
	for (size_t at = 0; r == 0 && at < len; at += step)
		r = unpack_write(&unpack, data + at, len - at < step ? len - at : step);
	unpack_done(&unpack);
	unpack_done(&unpack);
	return r;
}

static void test_unpack(void **state)
{
	static const size_t steps[] = { 1, 1000, SIZE };
	unsigned char *data = noise();
	struct catch packed, c;
	uint8_t sha256[SHA256_SIZE];

	(void)state;
	pack_all(&packed, data, SIZE, 4096, sha256);
	for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
		catch_init(&c);
		assert_int_equal(unpack_all(packed.all.data, packed.all.len, steps[i], &c), 0);
		assert_int_equal(c.all.len, SIZE);
		assert_memory_equal(c.all.data, data, SIZE);
		assert_true(c.largest <= 64 * 1024);
		bytes_done(&c.all);
	}
	catch_init(&c);
	c.fail_at = 2;
	assert_int_equal(unpack_all(packed.all.data, packed.all.len, SIZE, &c), -ENOSPC);
	bytes_done(&c.all);
	catch_init(&c);
	packed.all.data[packed.all.len / 2] ^= 1;
	assert_int_equal(unpack_all(packed.all.data, packed.all.len, SIZE, &c), -EBADMSG);
	packed.all.data[packed.all.len / 2] ^= 1;
	assert_int_equal(bytes_add(&packed.all, "more", 4), 0);
	assert_int_equal(unpack_all(packed.all.data, packed.all.len, SIZE, &c), -EBADMSG);
	assert_int_equal(unpack_all((const unsigned char *)"no gzip", 7, 7, &c), -EBADMSG);
	bytes_done(&c.all);
	bytes_done(&packed.all);
	free(data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_gzip_is_deterministic_and_plain),
		cmocka_unit_test(test_zlib_unpacks_it),
		cmocka_unit_test(test_what_a_part_says_ends_it),
		cmocka_unit_test(test_unpack),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
