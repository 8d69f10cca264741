/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "buffer/chunk.h"

static const char *const words[] = { "{\"a\":1}", "", "[1,2,3]", "\"\xc3\xa6\"" };

/* What a writer has stored, inflated again. */
static void read_back(const struct chunk_writer *w, struct bytes *plain)
{
	bytes_init(plain, CHUNK_PLAIN_MAX);
	assert_int_equal(chunk_inflate(w->stored.data, w->stored.len, w->plain, plain), 0);
	assert_int_equal(plain->len, w->plain);
}

static void write_chunk(struct chunk_writer *w)
{
	struct span one = { .fetch = 7, .wall_ms = -5, .mono_ms = 99, .clock = CHUNK_UNSYNCED, .records = 3 };
	struct span two = { .fetch = 8, .wall_ms = INT64_MAX, .last = true, .records = 1 };
	struct span none = { .fetch = UINT64_MAX, .last = true };
	struct bytes records;

	bytes_init(&records, CHUNK_CEILING);
	assert_int_equal(chunk_writer_begin(w), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(chunk_add_record(&records, words[i], strlen(words[i])), 0);
	assert_int_equal(chunk_writer_add(w, &one, &records), 0);
	bytes_clear(&records);
	assert_int_equal(chunk_add_record(&records, words[3], strlen(words[3])), 0);
	assert_int_equal(chunk_writer_add(w, &two, &records), 0);
	assert_int_equal(chunk_writer_add(w, &none, NULL), 0);
	assert_int_equal(chunk_writer_finish(w), 0);
	bytes_done(&records);
}

static void make_plain(struct bytes *plain)
{
	struct chunk_writer w;

	chunk_writer_init(&w);
	write_chunk(&w);
	read_back(&w, plain);
	chunk_writer_done(&w);
}

/* Reads it to the end; 0 or the first error. Counts what it saw. */
static int walk(const struct bytes *plain, int *ret_spans, int *ret_records)
{
	struct chunk_reader reader;
	struct span span;
	const void *data;
	size_t len;
	int r = chunk_reader_init(&reader, plain);

	*ret_spans = *ret_records = 0;
	while (r == 0 && (r = chunk_next_span(&reader, &span)) > 0) {
		++*ret_spans;
		for (r = 0; r == 0 && span.records > 0; span.records--) {
			r = chunk_next_record(&reader, &data, &len);
			*ret_records += r == 0;
		}
	}
	return r;
}

static void test_what_goes_in_comes_out(void **state)
{
	struct chunk_reader reader;
	struct bytes plain;
	struct span span;
	const void *data;
	size_t len;

	(void)state;
	make_plain(&plain);
	assert_int_equal(chunk_reader_init(&reader, &plain), 0);
	assert_int_equal(chunk_next_span(&reader, &span), 1);
	assert_int_equal(span.fetch, 7);
	assert_int_equal(span.wall_ms, -5);
	assert_int_equal(span.mono_ms, 99);
	assert_int_equal(span.clock, CHUNK_UNSYNCED);
	assert_false(span.last);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(chunk_next_record(&reader, &data, &len), 0);
		assert_int_equal(len, strlen(words[i]));
		assert_memory_equal(data, words[i], len);
	}
	assert_int_equal(chunk_next_record(&reader, &data, &len), -EBADMSG);
	assert_int_equal(chunk_next_span(&reader, &span), 1);
	assert_true(span.last);
	assert_true(span.wall_ms == INT64_MAX);
	/* Its record is left unread: the next span is found all the same. */
	assert_int_equal(chunk_next_span(&reader, &span), 1);
	assert_true(span.fetch == UINT64_MAX);
	assert_int_equal(span.records, 0);
	assert_int_equal(chunk_next_span(&reader, &span), 0);
	bytes_done(&plain);
}

/* Also where the one before was not brought to its end. */
static void test_a_writer_may_begin_again(void **state)
{
	struct span span = { .fetch = 1, .last = true };
	struct bytes first, second;
	struct chunk_writer w;

	(void)state;
	chunk_writer_init(&w);
	write_chunk(&w);
	read_back(&w, &first);
	assert_int_equal(chunk_writer_begin(&w), 0);
	assert_int_equal(chunk_writer_add(&w, &span, NULL), 0);
	write_chunk(&w);
	read_back(&w, &second);
	assert_int_equal(second.len, first.len);
	assert_memory_equal(second.data, first.data, first.len);
	bytes_done(&first);
	bytes_done(&second);
	chunk_writer_done(&w);
	chunk_writer_done(&w);
}

static void test_a_writer_refuses_what_no_reader_would_take(void **state)
{
	struct span span = { .fetch = 1, .records = 1 };
	struct bytes huge = { .data = (unsigned char *)"", .len = CHUNK_PLAIN_MAX }, plain;
	struct chunk_writer w;

	(void)state;
	chunk_writer_init(&w);
	assert_int_equal(chunk_writer_begin(&w), 0);
	assert_int_equal(chunk_writer_add(&w, &span, &huge), -ENOBUFS);
	assert_int_equal(chunk_writer_finish(&w), 0);
	read_back(&w, &plain);
	assert_int_equal(plain.len, 1);
	bytes_done(&plain);
	chunk_writer_done(&w);
}

/* In memory of its own, so that the sanitizer sees a byte read too many. */
static int walk_copy(const unsigned char *data, size_t len, int *ret_spans, int *ret_records)
{
	struct bytes copy;
	int r;

	bytes_init(&copy, len > 0 ? len : 1);
	assert_int_equal(bytes_add(&copy, data, len), 0);
	r = walk(&copy, ret_spans, ret_records);
	bytes_done(&copy);
	return r;
}

static void test_a_cut_is_found_unless_between_spans(void **state)
{
	struct bytes plain;
	int spans, records, whole = 0;

	(void)state;
	make_plain(&plain);
	for (size_t len = 0; len < plain.len; len++) {
		int r = walk_copy(plain.data, len, &spans, &records);

		assert_true(r == 0 || r == -EBADMSG);
		whole += r == 0;
	}
	assert_int_equal(whole, 3); /* before each span */
	assert_int_equal(walk(&plain, &spans, &records), 0);
	assert_int_equal(spans, 3);
	assert_int_equal(records, 4);
	bytes_done(&plain);
}

static void test_wrong_bytes_do_no_harm(void **state)
{
	struct bytes plain;
	int spans, records;

	(void)state;
	make_plain(&plain);
	for (size_t at = 0; at < plain.len; at++) {
		for (int bit = 0; bit < 8; bit++) {
			plain.data[at] ^= (unsigned char)(1 << bit);
			int r = walk_copy(plain.data, plain.len, &spans, &records);

			assert_true(r == 0 || r == -EBADMSG);
			if (at == 0)
				assert_int_equal(r, -EBADMSG); /* another version */
			plain.data[at] ^= (unsigned char)(1 << bit);
		}
	}
	bytes_done(&plain);
}

static void test_inflate_takes_only_what_was_deflated(void **state)
{
	struct chunk_writer w;
	struct bytes *stored = &w.stored, again;

	(void)state;
	chunk_writer_init(&w);
	write_chunk(&w);
	bytes_init(&again, CHUNK_PLAIN_MAX);
	assert_int_equal(chunk_inflate(stored->data, stored->len, w.plain, &again), 0);
	assert_int_equal(chunk_inflate(stored->data, stored->len, w.plain - 1, &again), -EBADMSG);
	assert_int_equal(chunk_inflate(stored->data, stored->len, w.plain + 1, &again), -EBADMSG);
	assert_int_equal(chunk_inflate(stored->data, stored->len - 1, w.plain, &again), -EBADMSG);
	assert_int_equal(chunk_inflate(stored->data, stored->len, 0, &again), -EBADMSG);
	assert_int_equal(chunk_inflate(stored->data, stored->len, CHUNK_PLAIN_MAX + 1, &again), -EBADMSG);
	assert_int_equal(bytes_add(stored, "x", 1), 0);
	assert_int_equal(chunk_inflate(stored->data, stored->len, w.plain, &again), -EBADMSG);
	assert_int_equal(chunk_inflate("\xff\xff\xff", 3, 100, &again), -EBADMSG);
	bytes_done(&again);
	chunk_writer_done(&w);
}

/* Larger than the deflater's window, and noise, which grows when deflated. */
static void test_large_and_incompressible(void **state)
{
	struct span span = { .fetch = 1, .records = 1, .last = true };
	struct bytes plain, records;
	struct chunk_writer w;
	unsigned char *noise = malloc(300000);
	uint32_t x = 1;

	(void)state;
	assert_non_null(noise);
	for (int i = 0; i < 300000; i++)
		noise[i] = (unsigned char)((x = x * 1664525 + 1013904223) >> 24);
	chunk_writer_init(&w);
	bytes_init(&records, CHUNK_CEILING);
	assert_int_equal(chunk_writer_begin(&w), 0);
	assert_int_equal(chunk_add_record(&records, noise, 300000), 0);
	assert_int_equal(chunk_writer_add(&w, &span, &records), 0);
	assert_int_equal(chunk_writer_finish(&w), 0);
	assert_true(w.stored.len > 300000);
	read_back(&w, &plain);
	assert_int_equal(plain.len, 1 + 30 + records.len); /* the version, and what stands before a span's records */
	assert_memory_equal(plain.data + 31, records.data, records.len);
	bytes_done(&plain);
	bytes_done(&records);
	chunk_writer_done(&w);
	free(noise);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_goes_in_comes_out),
		cmocka_unit_test(test_a_writer_may_begin_again),
		cmocka_unit_test(test_a_writer_refuses_what_no_reader_would_take),
		cmocka_unit_test(test_a_cut_is_found_unless_between_spans),
		cmocka_unit_test(test_wrong_bytes_do_no_harm),
		cmocka_unit_test(test_inflate_takes_only_what_was_deflated),
		cmocka_unit_test(test_large_and_incompressible),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
