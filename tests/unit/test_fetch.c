/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "buffer/chunk.h"
#include "buffer/fetch.h"

static size_t pieces(const struct fetch *fetch, uint64_t *ret_records)
{
	size_t n = 0;

	*ret_records = 0;
	for (const struct fetch_piece *piece = fetch->first; piece; piece = piece->next, n++)
		*ret_records += piece->n;
	return n;
}

static void test_small_fetch_is_one_piece(void **state)
{
	struct fetch *fetch = fetch_new("parking");
	uint64_t records;

	(void)state;
	assert_non_null(fetch);
	assert_string_equal(fetch->source, "parking");
	assert_null(fetch->first);
	for (int i = 0; i < 9; i++)
		assert_int_equal(fetch_add(fetch, "{\"a\":1}", 7, CHUNK_FULL), 0);
	assert_int_equal(pieces(fetch, &records), 1);
	assert_int_equal(records, 9);
	assert_int_equal(fetch->records, 9);
	assert_int_equal(fetch->bytes, 63);
	assert_ptr_equal(fetch->first, fetch->last);
	assert_int_equal(fetch->first->records.len, 9 * (4 + 7));
	assert_memory_equal(fetch->first->records.data, "\x07\0\0\0{\"a\":1}\x07\0\0\0", 15);
	fetch_free(fetch);
}

static void test_a_full_piece_is_followed_by_another(void **state)
{
	struct fetch *fetch = fetch_new("s");
	static char record[40000];
	uint64_t records;

	(void)state;
	for (int i = 0; i < 20; i++)
		assert_int_equal(fetch_add(fetch, record, sizeof record, 100000), 0);
	assert_int_equal(pieces(fetch, &records), 7); /* three records fill one */
	assert_int_equal(records, 20);
	assert_null(fetch->last->next);
	fetch_free(fetch);
}

/* A piece's lines are what its batch is made of: tiny records must not make them a hundred times its size. */
static void test_tiny_records_fill_a_piece_by_their_lines(void **state)
{
	struct fetch *fetch = fetch_new("s");
	uint64_t records;

	(void)state;
	for (int i = 0; i < 10000; i++)
		assert_int_equal(fetch_add(fetch, "1", 1, CHUNK_FULL), 0);
	assert_true(pieces(fetch, &records) >= 6);
	assert_int_equal(records, 10000);
	for (const struct fetch_piece *piece = fetch->first; piece; piece = piece->next)
		assert_true(piece->n <= 2000);
	fetch_free(fetch);
}

static void test_too_large_a_record_changes_nothing(void **state)
{
	struct fetch *fetch = fetch_new("s");

	(void)state;
	assert_int_equal(fetch_add(fetch, NULL, CHUNK_CEILING, CHUNK_FULL), -ENOBUFS);
	assert_null(fetch->first);
	assert_int_equal(fetch_add(fetch, "1", 1, CHUNK_FULL), 0);
	assert_int_equal(fetch_add(fetch, NULL, CHUNK_CEILING, CHUNK_FULL), -ENOBUFS);
	assert_int_equal(fetch->records, 1);
	assert_int_equal(fetch->first->n, 1);
	fetch_free(fetch);
	fetch_free(NULL);
}

/*
 * Only a piece that gets no more records may go, and never the last one: a fetch ends with its commit. The first goes
 * once two are full, those after it as soon as they are.
 */
static void test_full_pieces_are_taken_in_order(void **state)
{
	struct fetch *fetch = fetch_new("s");
	struct fetch_piece *piece;
	static char record[60000];
	uint64_t records;

	(void)state;
	assert_false(fetch_is_large(fetch));
	assert_null(fetch_take_piece(fetch));
	for (char c = 'a'; c < 'a' + 5; c++) { /* two fill a piece */
		record[0] = c;
		assert_int_equal(fetch_add(fetch, record, sizeof record, 100000), 0);
		assert_int_equal(fetch_is_large(fetch), c >= 'e');
	}
	piece = fetch_take_piece(fetch);
	assert_non_null(piece);
	assert_int_equal(piece->n, 2);
	assert_int_equal(piece->records.data[4], 'a');
	assert_null(piece->next);
	assert_int_equal(pieces(fetch, &records), 2);
	assert_int_equal(fetch->first->records.data[4], 'c');
	assert_int_equal(fetch->records, 5);
	assert_int_equal(fetch->bytes, 5 * sizeof record);
	assert_false(fetch_is_large(fetch));
	assert_null(fetch_take_piece(fetch));
	fetch->staged = piece->n;
	assert_true(fetch_is_large(fetch));
	fetch_piece_free(piece);
	fetch_piece_free(NULL);
	fetch_free(fetch);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_small_fetch_is_one_piece),
		cmocka_unit_test(test_a_full_piece_is_followed_by_another),
		cmocka_unit_test(test_tiny_records_fill_a_piece_by_their_lines),
		cmocka_unit_test(test_too_large_a_record_changes_nothing),
		cmocka_unit_test(test_full_pieces_are_taken_in_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
