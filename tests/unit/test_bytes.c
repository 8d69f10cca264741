/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"

static void test_grows(void **state)
{
	(void)state;
	struct bytes b;
	bytes_init(&b, 100000);
	assert_null(b.data);
	for (int i = 0; i < 25000; i++)
		assert_int_equal(bytes_add(&b, "abcd", 4), 0);
	assert_int_equal(b.len, 100000);
	for (size_t i = 0; i < b.len; i++)
		assert_int_equal(b.data[i], "abcd"[i % 4]);
	bytes_done(&b);
	assert_null(b.data);
	assert_int_equal(b.ceiling, 100000);
}

static void test_ceiling(void **state)
{
	(void)state;
	struct bytes b;
	bytes_init(&b, 10);
	assert_int_equal(bytes_add(&b, "0123456", 7), 0);
	assert_int_equal(bytes_add(&b, "0123", 4), -ENOBUFS);
	assert_int_equal(bytes_reserve(&b, SIZE_MAX), -ENOBUFS);
	assert_int_equal(bytes_printf(&b, "%d", 1234), -ENOBUFS);
	assert_int_equal(b.len, 7);
	assert_memory_equal(b.data, "0123456", 7);
	assert_int_equal(bytes_printf(&b, "%d", 789), 0);
	assert_int_equal(b.len, 10);
	assert_memory_equal(b.data, "0123456789", 10);
	assert_true(b.capacity <= 10);
	assert_int_equal(bytes_add(&b, NULL, 0), 0);
	assert_int_equal(bytes_add_text(&b, "x"), -ENOBUFS);
	bytes_done(&b);
}

static void test_refused_memory(void **state)
{
	(void)state;
	struct bytes b;
	bytes_init(&b, SIZE_MAX);
	assert_int_equal(bytes_add_text(&b, "kept"), 0);
	assert_int_equal(bytes_reserve(&b, SIZE_MAX - 4), -ENOMEM);
	assert_int_equal(b.len, 4);
	assert_memory_equal(b.data, "kept", 4);
	bytes_done(&b);
}

static void test_nothing(void **state)
{
	(void)state;
	struct bytes b;
	bytes_init(&b, 0);
	assert_int_equal(bytes_add(&b, NULL, 0), 0);
	assert_int_equal(bytes_add_text(&b, ""), 0);
	assert_int_equal(bytes_printf(&b, "%s", ""), 0);
	assert_int_equal(bytes_add(&b, "x", 1), -ENOBUFS);
	assert_null(b.data);
	bytes_done(&b);
	bytes_done(&b);
}

static void test_reserve_then_write(void **state)
{
	(void)state;
	struct bytes b;
	bytes_init(&b, 1000);
	assert_int_equal(bytes_add_text(&b, "head"), 0);
	assert_int_equal(bytes_reserve(&b, 996), 0);
	memset(b.data + b.len, 'x', 996);
	b.len += 996;
	assert_int_equal(bytes_reserve(&b, 1), -ENOBUFS);
	assert_memory_equal(b.data, "headx", 5);
	bytes_done(&b);
}

static void test_clear_keeps_memory(void **state)
{
	(void)state;
	struct bytes b;
	bytes_init(&b, 1000);
	assert_int_equal(bytes_add_text(&b, "first"), 0);
	unsigned char *data = b.data;
	bytes_clear(&b);
	assert_int_equal(b.len, 0);
	assert_int_equal(bytes_add_text(&b, "again"), 0);
	assert_ptr_equal(b.data, data);
	assert_memory_equal(b.data, "again", 5);
	bytes_done(&b);
}

static void test_take(void **state)
{
	(void)state;
	struct bytes b;
	bytes_init(&b, 1000);
	assert_int_equal(bytes_add_text(&b, "mine"), 0);
	size_t len = 0;
	unsigned char *data = bytes_take(&b, &len);
	assert_int_equal(len, 4);
	assert_int_equal(b.len, 0);
	assert_int_equal(bytes_add_text(&b, "other"), 0);
	assert_memory_equal(data, "mine", 4);
	free(data);
	bytes_done(&b);
}

static void test_printf_grows(void **state)
{
	(void)state;
	struct bytes b;
	bytes_init(&b, 100000);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(bytes_printf(&b, "%04d ", i), 0);
	assert_int_equal(b.len, 5000);
	assert_memory_equal(b.data, "0000 0001 ", 10);
	assert_memory_equal(b.data + 4990, "0998 0999 ", 10);
	bytes_done(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_grows),
		cmocka_unit_test(test_ceiling),
		cmocka_unit_test(test_refused_memory),
		cmocka_unit_test(test_nothing),
		cmocka_unit_test(test_reserve_then_write),
		cmocka_unit_test(test_clear_keeps_memory),
		cmocka_unit_test(test_take),
		cmocka_unit_test(test_printf_grows),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
