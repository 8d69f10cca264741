/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fetches that come in pieces. What is staged may cost room and nothing else: so each test looks at the source from
 * outside and, with check, whether what the queue remembers of it is what the file says.
 */
#include "buffer/queue_private.h"
#include "tests/unit/broken_card.h"
#include "tests/unit/queue_box.h"

#define MAX_BYTES (INT64_C(8) << 20)
#define PIECE     2000 /* bytes: a dozen small records */

static void assert_same_mark(const struct mark *a, const struct mark *b)
{
	assert_int_equal(a->id, b->id);
	assert_int_equal(a->seq, b->seq);
	assert_int_equal(a->fetch, b->fetch);
	assert_int_equal(a->records, b->records);
	assert_int_equal(a->lines, b->lines);
	assert_int_equal(a->stored, b->stored);
	assert_int_equal(a->staged.records, b->staged.records);
	assert_int_equal(a->state_len, b->state_len);
	assert_memory_equal(a->state, b->state, a->state_len);
	if (a->records == 0)
		return;
	assert_true(a->head.day == b->head.day && a->head.current == b->head.current);
	assert_true(a->head.wall_ms == b->head.wall_ms && a->head.mono_ms == b->head.mono_ms);
}

/* Nothing is staged now: the queue has the same in mind after opening the file again. */
static void check(struct box *box)
{
	struct mark before[4];
	size_t n = box->q->n_sources;

	assert_true(n <= 4);
	for (size_t i = 0; i < n; i++)
		before[i] = queue_find_source(box->q, i == 0 ? "a" : "b")->now;
	box_reopen(box);
	for (size_t i = 0; i < n; i++)
		assert_same_mark(&queue_find_source(box->q, i == 0 ? "a" : "b")->now, &before[i]);
}

/* A fetch of n records in small pieces, the same for every source. */
static struct fetch *pieces(const char *source, int64_t after_ms, int n)
{
	struct fetch *fetch = box_fetch(source, after_ms, 0, "");
	uint64_t x = 1;
	char text[64];

	for (int i = 0; i < n; i++) {
		x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		snprintf(text, sizeof text, "{\"piece\":%d,\"noise\":%llu}", i, (unsigned long long)x);
		assert_int_equal(fetch_add(fetch, text, strlen(text), PIECE), 0);
	}
	return fetch;
}

/* Stages all but its last piece; how many that are. */
static int stage(struct box *box, struct fetch *fetch)
{
	struct fetch_piece *piece;
	int n = 0;

	for (; (piece = fetch_take_piece(fetch)); n++) {
		if (queue_stage(box->q, fetch->source, piece, &box->err) < 0)
			fail_msg("%s", box->err.text);
		fetch->staged += piece->n;
		fetch_piece_free(piece);
	}
	return n;
}

static void stage_and_forget(struct box *box, const char *source, int64_t after_ms, int n)
{
	struct fetch *fetch = pieces(source, after_ms, n);

	assert_true(stage(box, fetch) > 0);
	fetch_free(fetch);
}

static void read_all(struct box *box, const char *source, struct bytes *ret_lines)
{
	uint64_t next = 0;

	bytes_init(ret_lines, 64 << 20);
	assert_int_equal(queue_read(box->q, source, 1, SIZE_MAX, ret_lines, &next, &box->err), 0);
	assert_int_equal(next, box_view(box, source).records + 1);
}

static void assert_lines(const struct bytes *got, const struct bytes *want)
{
	static const char name[] = "{\"source\":\"";
	size_t at = strlen(name);

	/* They are of sources "a" and "b": made equal, line by line. */
	for (size_t i = 0; i + at < got->len && i + at < want->len; i++) {
		if (memcmp(got->data + i, name, at) == 0 && memcmp(want->data + i, name, at) == 0)
			got->data[i + at] = want->data[i + at];
	}
	assert_int_equal(got->len, want->len);
	assert_memory_equal(got->data, want->data, got->len);
}

/* What source "a" has is what source "b" has, line by line; and in batches of that size too. */
static void assert_a_is_b(struct box *box, int64_t max_bytes)
{
	struct bytes of[2], object, lines;

	read_all(box, "a", &of[0]);
	read_all(box, "b", &of[1]);
	assert_lines(&of[0], &of[1]);
	bytes_clear(&of[0]);
	bytes_clear(&of[1]);
	box_route(box, 1, max_bytes, 100000);
	while (box_seal(box, DAY, true) == 1) {
		box_object(box, box->batch.id, &object, &lines);
		assert_int_equal(bytes_add(&of[box->batch.source[0] - 'a'], lines.data, lines.len), 0);
		assert_int_equal(box->batch.raw_bytes, lines.len);
		bytes_done(&object);
		bytes_done(&lines);
	}
	assert_lines(&of[0], &of[1]);
	assert_int_equal(box_view(box, "a").unsealed_bytes, 0);
	assert_int_equal(queue_find_source(box->q, "a")->now.stored, 0);
	bytes_done(&of[0]);
	bytes_done(&of[1]);
	check(box);
}

static void test_a_staged_fetch_is_as_any_other(void **state)
{
	struct box *box = *state;
	struct fetch *fetch;

	box_add(box, "a", 0, 3);
	box_add(box, "b", 0, 3);
	/* Of another day and another clock than what is before it. */
	for (int i = 0; i < 2; i++) {
		fetch = pieces(i == 0 ? "a" : "b", DAY, 100);
		fetch->clock = CHUNK_UNSYNCED;
		if (i == 0)
			assert_true(stage(box, fetch) > 5);
		assert_int_equal(queue_commit(box->q, fetch, &box->err), 0);
		assert_int_equal(fetch->number, 2);
		assert_int_equal(fetch->first_seq, 4);
		assert_int_equal(fetch->records, 100);
		fetch_free(fetch);
	}
	box_add(box, "a", DAY + 1, 2);
	box_add(box, "b", DAY + 1, 2);
	check(box);
	assert_int_equal(box_view(box, "a").records, 105);
	assert_int_equal(box_view(box, "a").fetches, 3);
	assert_true(box_view(box, "a").unsealed_bytes >= box_view(box, "b").unsealed_bytes);
	assert_a_is_b(box, MAX_BYTES);
}

/* A batch may end, and the next one begin, where nothing but staged chunks are. */
static void test_a_staged_fetch_in_many_batches(void **state)
{
	struct box *box = *state;
	struct fetch *fetch = pieces("a", 5, 200);
	struct bytes of[2];
	uint64_t next = 1;
	int batches = 0;

	box_route(box, 1, 5000, 100000);
	assert_true(stage(box, fetch) > 10);
	assert_int_equal(box_commit(box, fetch), 0);
	while (box_seal(box, 5, false) == 1) {
		assert_int_equal(box->batch.first_seq, next);
		assert_true(box->batch.raw_bytes <= 5000);
		assert_non_null(strstr(box->batch.key, "/dt=2026-11-21/"));
		assert_true(box_view(box, "a").oldest_ms == NOON + 5);
		next = box->batch.last_seq + 1;
		if (batches++ % 2 == 0) {
			check(box);
			box_route(box, 1, 5000, 100000);
		}
		box_assert_state(box, "a", "a@5");
		assert_int_equal(box_view(box, "a").fetches, 1);
	}
	assert_true(batches > 4);
	/* It goes on as of its arrival, which a batch's beginning between staged chunks has to know. */
	assert_int_equal(box_view(box, "a").unsealed_records, 201 - next);
	assert_true(queue_seal_due_ms(box->q, NOON + 5, MONO + 5) == 15 * MINUTE);
	/* And it is read across: a part is in batches, a part is not. */
	assert_int_equal(box_commit(box, pieces("b", 5, 200)), 0);
	read_all(box, "a", &of[0]);
	read_all(box, "b", &of[1]);
	assert_lines(&of[0], &of[1]);
	bytes_done(&of[0]);
	bytes_done(&of[1]);
	check(box);
}

static void test_what_is_staged_is_seen_by_nobody(void **state)
{
	struct box *box = *state;
	struct queue_source_view before, view;
	struct queue_range range[8];
	struct bytes lines, again;

	box_route(box, 1, 1000, 100000);
	box_add(box, "a", 0, 3);
	before = box_view(box, "a");
	read_all(box, "a", &lines);
	stage_and_forget(box, "a", 1, 100);
	view = box_view(box, "a");
	assert_memory_equal(&view, &before, sizeof view);
	box_assert_state(box, "a", "a@0");
	read_all(box, "a", &again);
	assert_int_equal(again.len, lines.len);
	assert_int_equal(queue_books(box->q, "lake", 0, NULL, range, 8, &box->err), 1);
	assert_int_equal(range[0].last_seq, 3);
	assert_int_equal(box_seal(box, 1, true), 1);
	assert_int_equal(box->batch.records, 3);
	assert_int_equal(box_seal(box, 1, true), 0);
	assert_true(queue_seal_due_ms(box->q, NOON + DAY, MONO + DAY) == INT64_MAX);
	bytes_done(&lines);
	bytes_done(&again);
}

static void test_the_books_know_the_day_of_what_was_staged(void **state)
{
	struct box *box = *state;
	struct fetch *fetch = pieces("a", DAY, 100);
	struct queue_range range[8];

	box_route(box, 1, MAX_BYTES, 100000);
	box_add(box, "a", 0, 3);
	stage(box, fetch);
	assert_int_equal(box_commit(box, fetch), 0);
	assert_int_equal(queue_books(box->q, "lake", 0, NULL, range, 8, &box->err), 2);
	assert_int_equal(range[0].kind, QUEUE_UNSEALED);
	assert_int_equal(range[1].first_seq, 4);
	assert_int_equal(range[1].last_seq, 103);
	assert_true(range[1].day == range[0].day + 1);
}

static int64_t count(struct box *box, const char *what)
{
	char sql[200];
	int64_t n;

	snprintf(sql, sizeof sql, "SELECT count(*) FROM %s", what);
	box_close(box);
	n = box_ask(box, sql);
	box_open(box);
	return n;
}

/* The run ends before the fetch does: its next one finds the source as it was. */
static void test_what_no_commit_publishes_is_deleted_by_opening(void **state)
{
	struct box *box = *state;

	box_add(box, "a", 0, 3);
	for (int i = 0; i < 2; i++) {
		stage_and_forget(box, i == 0 ? "a" : "b", 1, 100);
		assert_true(count(box, "chunk") > 5); /* opens it, too */
		assert_int_equal(count(box, "chunk WHERE records > 0"), 1);
		check(box);
	}
	assert_int_equal(box_view(box, "a").fetches, 1);
	assert_int_equal(box_view(box, "a").records, 3);
	assert_int_equal(box_view(box, "b").records, 0);
	box_add(box, "b", 1, 4);
	assert_int_equal(box_view(box, "b").records, 4);
	assert_int_equal(box_view(box, "b").fetches, 1);
	check(box);
}

/* Its place is the first thing that staging takes; a crash must not take the state along. */
static void test_a_fetch_without_records_before_a_staged_one(void **state)
{
	struct box *box = *state;
	struct fetch *fetch;

	for (int round = 0; round < 2; round++) {
		const char *source = round == 0 ? "a" : "b", *want = round == 0 ? "a@1" : "b@1";

		if (round == 0) /* else it is the first that the source ever committed */
			box_add(box, source, 0, 3);
		box_add(box, source, 1, 0);
		stage_and_forget(box, source, 2, 100);
		box_assert_state(box, source, want);
		assert_int_equal(queue_unstage(box->q, source, &box->err), 0);
		box_assert_state(box, source, want);
		check(box);
		stage_and_forget(box, source, 3, 100);
		box_reopen(box); /* instead of a commit */
		box_assert_state(box, source, want);
		assert_int_equal(box_view(box, source).fetches, 2 - round);
		check(box);
		box_assert_state(box, source, want);
		fetch = pieces(source, 4, 50);
		stage(box, fetch);
		assert_int_equal(queue_commit(box->q, fetch, &box->err), 0);
		assert_int_equal(fetch->number, 3 - round);
		assert_int_equal(fetch->first_seq, round == 0 ? 4 : 1);
		fetch_free(fetch);
		check(box);
	}
}

static void test_another_fetch_takes_the_place_of_a_staged_one(void **state)
{
	struct box *box = *state;
	struct fetch *fetch;

	box_add(box, "a", 0, 3);
	box_add(box, "b", 0, 3);
	stage_and_forget(box, "a", 1, 300);
	box_add(box, "a", 2, 5);
	box_add(box, "b", 2, 5);
	stage_and_forget(box, "a", 3, 300);
	assert_int_equal(queue_unstage(box->q, "a", &box->err), 0);
	assert_int_equal(queue_unstage(box->q, "a", &box->err), 0);
	assert_int_equal(queue_unstage(box->q, "nobody", &box->err), 0);
	for (int i = 0; i < 2; i++) {
		fetch = pieces(i == 0 ? "a" : "b", 4, 40);
		if (i == 0)
			stage(box, fetch);
		assert_int_equal(box_commit(box, fetch), 0);
	}
	check(box);
	assert_a_is_b(box, 1000);
	assert_int_equal(count(box, "chunk"), 0);
}

/* A card that does not even take deletions: what was given up stays so, and goes with what comes next. */
static void test_giving_up_holds_though_the_card_fails(void **state)
{
	struct box *box = *state;

	box_add(box, "a", 0, 3);
	box_add(box, "b", 0, 3);
	for (int64_t i = 1; i <= 2; i++) {
		stage_and_forget(box, "a", i, 300);
		card_errno = EIO;
		assert_true(queue_unstage(box->q, "a", &box->err) < 0);
		card_errno = 0;
		if (i == 1) {
			struct fetch *fetch = pieces("a", i, 40);

			stage(box, fetch);
			assert_int_equal(box_commit(box, fetch), 0);
			assert_int_equal(box_commit(box, pieces("b", i, 40)), 0);
		} else {
			box_add(box, "a", i, 9);
			box_add(box, "b", i, 9);
		}
		check(box);
	}
	assert_a_is_b(box, MAX_BYTES);
}

static void limit_pages(struct box *box, int64_t pages)
{
	char sql[64];

	snprintf(sql, sizeof sql, "PRAGMA max_page_count = %lld", (long long)pages);
	assert_int_equal(sqlite3_exec(box->q->db, sql, NULL, NULL, NULL), SQLITE_OK);
}

static void test_a_failed_stage_may_be_repeated(void **state)
{
	struct box *box = *state;
	struct fetch *fetch = pieces("a", 1, 400);
	struct fetch_piece *piece;
	bool failed = false;

	box_add(box, "a", 0, 3);
	box_add(box, "b", 0, 3);
	limit_pages(box, 1); /* as many as there are */
	while ((piece = fetch_take_piece(fetch))) {
		int r = queue_stage(box->q, "a", piece, &box->err);

		if (r < 0) {
			assert_int_equal(r, -ENOSPC);
			assert_non_null(strstr(box->err.text, box->path));
			assert_int_equal(queue_stage(box->q, "a", piece, &box->err), -ENOSPC);
			failed = true;
			limit_pages(box, 100000);
			assert_int_equal(queue_stage(box->q, "a", piece, &box->err), 0);
		}
		fetch->staged += piece->n;
		fetch_piece_free(piece);
	}
	assert_true(failed);
	card_errno = EIO;
	assert_true(queue_commit(box->q, fetch, &box->err) < 0);
	assert_int_equal(fetch->number, 0);
	assert_int_equal(box_view(box, "a").records, 3);
	card_errno = 0;
	assert_int_equal(box_commit(box, fetch), 0);
	assert_int_equal(box_commit(box, pieces("b", 1, 400)), 0);
	check(box);
	assert_a_is_b(box, MAX_BYTES);
}

/* The rest of the fetch, and fetches behind it, in one commit: they may share its last chunk. */
static void test_others_in_the_same_commit(void **state)
{
	struct box *box = *state;
	struct fetch *fetch[4];

	for (int i = 0; i < 2; i++) {
		fetch[2 * i] = pieces(i == 0 ? "a" : "b", 1, 30);
		fetch[2 * i + 1] = box_fetch(i == 0 ? "a" : "b", 2, 2, "");
	}
	stage(box, fetch[0]);
	for (int i = 0; i < 3; i++)
		fetch[i]->next = fetch[i + 1];
	assert_int_equal(box_commit(box, fetch[0]), 0);
	check(box);
	assert_a_is_b(box, MAX_BYTES);
}

/* The chunk that ends a fetch is looked for once, not once a chunk. */
static void test_a_fetch_of_many_chunks(void **state)
{
	struct box *box = *state;
	struct fetch *fetch = pieces("a", 1, 4000);
	int staged, batches = 0;

	assert_int_equal(sqlite3_exec(box->q->db, "PRAGMA synchronous = OFF", NULL, NULL, NULL), SQLITE_OK);
	box_route(box, 1, 100000, 100000);
	staged = stage(box, fetch);
	assert_true(staged > 300);
	assert_int_equal(box_commit(box, fetch), 0);
	assert_int_equal(box_view(box, "a").records, 4000);
	while (box_seal(box, 1, true) == 1)
		batches++;
	assert_true(batches > 5);
	assert_int_equal(sqlite3_stmt_status(box->q->statements[SQL_CHUNK_CLOSING], SQLITE_STMTSTATUS_RUN, 0), 1);
	/* Of what has no end yet nobody asks for it. */
	stage_and_forget(box, "a", 2, 100);
	box_reopen(box);
	assert_int_equal(sqlite3_stmt_status(box->q->statements[SQL_CHUNK_CLOSING], SQLITE_STMTSTATUS_RUN, 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOX_TEST(test_a_staged_fetch_is_as_any_other),
		BOX_TEST(test_a_staged_fetch_in_many_batches),
		BOX_TEST(test_what_is_staged_is_seen_by_nobody),
		BOX_TEST(test_the_books_know_the_day_of_what_was_staged),
		BOX_TEST(test_what_no_commit_publishes_is_deleted_by_opening),
		BOX_TEST(test_a_fetch_without_records_before_a_staged_one),
		BOX_TEST(test_another_fetch_takes_the_place_of_a_staged_one),
		BOX_TEST(test_giving_up_holds_though_the_card_fails),
		BOX_TEST(test_a_failed_stage_may_be_repeated),
		BOX_TEST(test_others_in_the_same_commit),
		BOX_TEST(test_a_fetch_of_many_chunks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
