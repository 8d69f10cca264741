/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the queue share: a buffer in a folder of its own, fetches by hand, and objects unpacked by zlib. */
#ifndef TESTS_UNIT_QUEUE_BOX_H
#define TESTS_UNIT_QUEUE_BOX_H

#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>
#include <zlib.h>

#include "buffer/chunk.h"
#include "buffer/queue.h"

#define BOOT_A "2c9f8b7a-1111-4222-8333-444455556666"
#define BOOT_B "7d01e3c4-5555-4666-8777-888899990000"
#define NOON   INT64_C(1795262400000) /* 2026-11-21T12:00:00Z */
#define MONO   INT64_C(5000000)
#define MINUTE INT64_C(60000)
#define DAY    INT64_C(86400000)

struct box {
	char folder[128], path[160];
	struct queue_identity identity;
	struct queue *q;
	struct err err;
	struct batch batch; /* the last one sealed */
};

static inline void box_open(struct box *box)
{
	int r = queue_open(box->path, &box->identity, &box->q, &box->err);

	if (r < 0)
		fail_msg("%s", box->err.text);
}

/* Opens it and salvages nothing: what is wrong with the file. */
static inline int box_try(struct box *box)
{
	int r;

	box->q = queue_new(box->path, &box->identity);
	assert_non_null(box->q);
	r = queue_start(box->q, false, &box->err);
	if (r < 0) {
		queue_close(box->q);
		box->q = NULL;
	}
	return r;
}

static inline void box_close(struct box *box)
{
	queue_close(box->q);
	box->q = NULL;
}

static inline void box_reopen(struct box *box)
{
	box_close(box);
	box_open(box);
}

static inline int box_set_up(void **state)
{
	struct box *box = calloc(1, sizeof *box);
	const char *tmp = getenv("TMPDIR");

	snprintf(box->folder, sizeof box->folder, "%s/millrace-test-XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(box->folder));
	snprintf(box->path, sizeof box->path, "%s/buffer.db", box->folder);
	box->identity = (struct queue_identity){ .device = "pi-01", .kernel_boot_id = BOOT_A };
	box_open(box);
	*state = box;
	return 0;
}

static inline int box_remove(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static inline int box_tear_down(void **state)
{
	struct box *box = *state;

	box_close(box);
	nftw(box->folder, box_remove, 8, FTW_DEPTH | FTW_PHYS);
	free(box);
	return 0;
}

#define BOX_TEST(test) cmocka_unit_test_setup_teardown(test, box_set_up, box_tear_down)

/* Routes every source alike, to the stores "lake" and "disk" where their number is 2, to "lake" where it is 1. */
static inline void box_route(struct box *box, size_t n_stores, int64_t max_bytes, int64_t max_records)
{
	static const char *const stores[] = { "lake", "disk", "third" };
	struct queue_route fallback = { .max_bytes = max_bytes, .max_records = max_records, .max_age_ms = 15 * MINUTE };

	assert_int_equal(queue_configure(box->q, stores, n_stores, NULL, 0, &fallback, &box->err), 0);
}

/* A fetch with n times the record; "%d" in it counts from 0. */
static inline struct fetch *box_fetch(const char *source, int64_t after_ms, int n, const char *record)
{
	struct fetch *fetch = fetch_new(source);
	char text[256];

	assert_non_null(fetch);
	fetch->wall_ms = NOON + after_ms;
	fetch->mono_ms = MONO + after_ms;
	for (int i = 0; i < n; i++) {
		snprintf(text, sizeof text, "%s{\"n\":%d}", record, i);
		assert_int_equal(fetch_add(fetch, text, strlen(text), CHUNK_FULL), 0);
	}
	fetch->state_len =
	        (size_t)snprintf((char *)fetch->state, sizeof fetch->state, "%s@%lld", source, (long long)after_ms);
	return fetch;
}

static inline int box_commit(struct box *box, struct fetch *fetch)
{
	int r = queue_commit(box->q, fetch, &box->err);

	while (fetch) {
		struct fetch *next = fetch->next;

		fetch_free(fetch);
		fetch = next;
	}
	return r;
}

/* One fetch of n records, that many milliseconds after noon. */
static inline void box_add(struct box *box, const char *source, int64_t after_ms, int n)
{
	if (box_commit(box, box_fetch(source, after_ms, n, "")) < 0)
		fail_msg("%s", box->err.text);
}

static inline int box_step(struct box *box, int64_t after_ms, bool all)
{
	return queue_seal(box->q, NOON + after_ms, MONO + after_ms, all, &box->batch, &box->err);
}

/* Seals a batch with all its steps. */
static inline int box_seal(struct box *box, int64_t after_ms, bool all)
{
	int r;

	do
		r = box_step(box, after_ms, all);
	while (r == QUEUE_STEP);
	return r;
}

/* The bytes of a batch's object, and its lines. */
static inline void box_object(struct box *box, int64_t batch, struct bytes *ret_object, struct bytes *ret_lines)
{
	z_stream z = { .next_in = NULL };
	int r = 0;

	bytes_init(ret_object, 64 << 20);
	bytes_init(ret_lines, 64 << 20);
	for (int n = 0; r == 0; n++)
		r = queue_read_part(box->q, batch, n, ret_object, &box->err);
	assert_int_equal(r, -ENOENT);
	assert_int_equal(inflateInit2(&z, 15 + 16), Z_OK);
	z.next_in = ret_object->data;
	z.avail_in = (uInt)ret_object->len;
	do {
		assert_int_equal(bytes_reserve(ret_lines, 65536), 0);
		z.next_out = ret_lines->data + ret_lines->len;
		z.avail_out = 65536;
		r = inflate(&z, Z_NO_FLUSH);
		assert_true(r == Z_OK || r == Z_STREAM_END);
		ret_lines->len += 65536 - z.avail_out;
	} while (r == Z_OK);
	assert_int_equal(z.avail_in, 0);
	inflateEnd(&z);
}

static inline size_t box_count_lines(const struct bytes *lines)
{
	size_t n = 0;

	for (size_t i = 0; i < lines->len; i++)
		n += lines->data[i] == '\n';
	return n;
}

/* The figures of a source; zeros where it is not known. */
static inline struct queue_source_view box_view(struct box *box, const char *source)
{
	struct queue_view *view = queue_view(box->q);
	struct queue_source_view found = { .records = 0 };

	assert_non_null(view);
	for (size_t i = 0; i < view->n_sources; i++) {
		if (strcmp(view->sources[i].source, source) == 0)
			found = view->sources[i];
	}
	queue_view_free(view);
	return found;
}

/* One number out of the file, past the queue: it has to be closed. */
static inline int64_t box_ask(struct box *box, const char *sql)
{
	sqlite3 *db;
	sqlite3_stmt *stmt;
	int64_t number;

	assert_null(box->q);
	assert_int_equal(sqlite3_open_v2(box->path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), SQLITE_OK);
	number = sqlite3_step(stmt) == SQLITE_ROW ? sqlite3_column_int64(stmt, 0) : -1;
	sqlite3_finalize(stmt);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	return number;
}

static inline void box_assert_state(struct box *box, const char *source, const char *state)
{
	uint8_t bytes[SINK_STATE_MAX];
	size_t len = queue_source_state(box->q, source, bytes);

	assert_int_equal(len, strlen(state));
	assert_memory_equal(bytes, state, len);
}

#endif
