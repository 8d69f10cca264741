/* SPDX-License-Identifier: Apache-2.0 */
/* Clocks that are wrong, and put right or not: what the lake is told of when a record came. */
#include "buffer/queue_private.h"
#include "tests/unit/broken_card.h"
#include "tests/unit/queue_box.h"

#define MAX_BYTES (INT64_C(8) << 20)
#define SECOND    INT64_C(1000)
#define HOUR      (60 * MINUTE)
#define BOOTED    (NOON + 11 * HOUR + 50 * MINUTE) /* at mono 0 it is in truth 2026-11-21T23:50:00Z */
#define WRONG     (5 * SECOND)                     /* and the clock says 1970-01-01T00:00:05Z */
#define WAIT      HOUR                             /* clock_wait */

/* What the clock said, or would have said, so long after the boot. */
static int64_t truth(int64_t mono_ms)
{
	return BOOTED + mono_ms;
}

static int64_t wrong(int64_t mono_ms)
{
	return WRONG + mono_ms;
}

static struct fetch *make(const char *source, int64_t wall_ms, int64_t mono_ms, uint8_t clock)
{
	struct fetch *fetch = box_fetch(source, 0, 2, "");

	fetch->wall_ms = wall_ms;
	fetch->mono_ms = mono_ms;
	fetch->clock = clock;
	return fetch;
}

static void add(struct box *box, const char *source, int64_t wall_ms, int64_t mono_ms, uint8_t clock)
{
	if (box_commit(box, make(source, wall_ms, mono_ms, clock)) < 0)
		fail_msg("%s", box->err.text);
}

static void add_wrong(struct box *box, const char *source, int64_t mono_ms)
{
	add(box, source, wrong(mono_ms), mono_ms, CHUNK_UNSYNCED);
}

/* The clock is still wrong, and is waited for. */
static void wait_for_it(struct box *box, int64_t mono_ms)
{
	assert_int_equal(queue_set_clock(box->q, false, wrong(mono_ms), mono_ms, WAIT, &box->err), 0);
}

static void put_right(struct box *box, int64_t mono_ms)
{
	assert_int_equal(queue_set_clock(box->q, true, truth(mono_ms), mono_ms, WAIT, &box->err), 0);
}

static int seal(struct box *box, int64_t wall_ms, int64_t mono_ms, bool all)
{
	int r;

	do
		r = queue_seal(box->q, wall_ms, mono_ms, all, &box->batch, &box->err);
	while (r == QUEUE_STEP);
	return r;
}

static uint64_t kept_back(struct box *box)
{
	struct queue_view *view = queue_view(box->q);
	uint64_t records = view->unsynced_records;

	queue_view_free(view);
	return records;
}

/* The n-th line says that it came then. */
static void assert_line(const char *lines, size_t n, int64_t wall_ms, const char *clock)
{
	char time[UNITS_TEXT_MAX], want[128];
	const char *at = lines;

	for (size_t i = 0; i < n; i++)
		at = strchr(at, '\n') + 1;
	snprintf(want, sizeof want, "\"fetched_at\":\"%s\",\"clock\":\"%s\",", units_time(wall_ms, time), clock);
	at = strstr(at, "\"fetched_at\"");
	assert_non_null(at);
	if (strncmp(at, want, strlen(want)) != 0)
		fail_msg("wanted %s got %.*s", want, (int)strlen(want), at);
}

/* The last batch: which day it has, and when each of its fetches of two records came. */
static void assert_batch(struct box *box, const char *day, const char *clock, const int64_t *walls, size_t n)
{
	struct bytes object, lines;
	char dt[32];

	snprintf(dt, sizeof dt, "/dt=%s/", day);
	if (!strstr(box->batch.key, dt))
		fail_msg("wanted %s, got %s", dt, box->batch.key);
	assert_int_equal(box->batch.records, 2 * n);
	box_object(box, box->batch.id, &object, &lines);
	assert_int_equal(bytes_add(&lines, "", 1), 0);
	for (size_t i = 0; i < 2 * n; i++)
		assert_line((const char *)lines.data, i, walls[i / 2], clock);
	bytes_done(&object);
	bytes_done(&lines);
}

#define ASSERT_BATCH(box, day, clock, ...)                                                                             \
	assert_batch(box, day, clock, (const int64_t[]){ __VA_ARGS__ },                                                \
	             sizeof((const int64_t[]){ __VA_ARGS__ }) / sizeof(int64_t))

/* --- Not right at the start, and then it is --- */

static void test_times_are_corrected(void **state)
{
	struct box *box = *state;

	wait_for_it(box, 10 * SECOND);
	add_wrong(box, "a", MINUTE);
	add_wrong(box, "a", 2 * MINUTE);
	assert_int_equal(kept_back(box), 4);
	put_right(box, 3 * MINUTE);
	assert_int_equal(kept_back(box), 0);
	/* They are of today, and wait for their age as any other. */
	assert_true(queue_seal_due_ms(box->q, truth(3 * MINUTE), 3 * MINUTE) == 7 * MINUTE); /* to midnight */
	assert_int_equal(seal(box, truth(3 * MINUTE), 3 * MINUTE, true), 1);
	ASSERT_BATCH(box, "2026-11-21", "corrected", truth(MINUTE), truth(2 * MINUTE));
	/* What comes now is right by itself. */
	add(box, "a", truth(4 * MINUTE), 4 * MINUTE, CHUNK_SYNCED);
	assert_int_equal(seal(box, truth(4 * MINUTE), 4 * MINUTE, true), 1);
	ASSERT_BATCH(box, "2026-11-21", "synced", truth(4 * MINUTE));
}

static void test_nothing_is_sealed_before(void **state)
{
	struct box *box = *state;
	struct queue_route small = { .max_bytes = MAX_BYTES, .max_records = 1, .max_age_ms = MINUTE };

	assert_int_equal(queue_configure(box->q, NULL, 0, NULL, 0, &small, &box->err), 0);
	wait_for_it(box, 10 * SECOND);
	add_wrong(box, "a", MINUTE);
	assert_true(queue_seal_due_ms(box->q, wrong(2 * MINUTE), 2 * MINUTE) == WAIT - 2 * MINUTE);
	assert_int_equal(seal(box, wrong(2 * MINUTE), 2 * MINUTE, false), 0);
	assert_int_equal(seal(box, wrong(2 * MINUTE), 2 * MINUTE, true), 0);
	assert_int_equal(seal(box, wrong(WAIT - 1), WAIT - 1, true), 0);
	put_right(box, WAIT - 1);
	assert_true(queue_seal_due_ms(box->q, truth(WAIT - 1), WAIT - 1) == 0);
	assert_int_equal(seal(box, truth(WAIT - 1), WAIT - 1, false), 1);
}

/* Of one source alone: what others have is theirs, and other sources' batches do not wait. */
static void test_what_came_before_is_sealed_alone(void **state)
{
	struct box *box = *state;

	add(box, "a", truth(MINUTE), MINUTE, CHUNK_SYNCED);
	wait_for_it(box, MINUTE);
	add(box, "b", truth(MINUTE), MINUTE, CHUNK_SYNCED);
	add(box, "a", truth(2 * MINUTE), 2 * MINUTE, CHUNK_UNSYNCED); /* of the same day, as far as one can tell */
	assert_int_equal(kept_back(box), 2);
	assert_int_equal(seal(box, wrong(3 * MINUTE), 3 * MINUTE, true), 1);
	assert_string_equal(box->batch.source, "a");
	ASSERT_BATCH(box, "2026-11-21", "synced", truth(MINUTE));
	assert_int_equal(seal(box, wrong(3 * MINUTE), 3 * MINUTE, true), 1);
	assert_string_equal(box->batch.source, "b");
	assert_int_equal(seal(box, wrong(3 * MINUTE), 3 * MINUTE, true), 0);
	assert_int_equal(box_view(box, "a").unsealed_records, 2);
}

static void test_midnight_by_the_corrected_time(void **state)
{
	struct box *box = *state;
	struct fetch *fetch;

	wait_for_it(box, 0);
	add_wrong(box, "a", 8 * MINUTE);
	/* Before and after it in one transaction; by the clock they are of one day. */
	fetch = make("a", wrong(9 * MINUTE), 9 * MINUTE, CHUNK_UNSYNCED);
	fetch->next = make("a", wrong(11 * MINUTE), 11 * MINUTE, CHUNK_UNSYNCED);
	assert_int_equal(box_commit(box, fetch), 0);
	put_right(box, 12 * MINUTE);
	assert_true(queue_seal_due_ms(box->q, truth(12 * MINUTE), 12 * MINUTE) == 0); /* of yesterday */
	assert_int_equal(seal(box, truth(12 * MINUTE), 12 * MINUTE, false), 1);
	ASSERT_BATCH(box, "2026-11-21", "corrected", truth(8 * MINUTE), truth(9 * MINUTE));
	assert_int_equal(seal(box, truth(12 * MINUTE), 12 * MINUTE, false), 0);
	assert_int_equal(seal(box, truth(12 * MINUTE), 12 * MINUTE, true), 1);
	ASSERT_BATCH(box, "2026-11-22", "corrected", truth(11 * MINUTE));
}

/* A midnight that the wrong clock alone has seen parts nothing. */
static void test_no_midnight_by_the_wrong_time(void **state)
{
	struct box *box = *state;

	assert_int_equal(queue_set_clock(box->q, false, 0, 0, WAIT, &box->err), 0);
	add(box, "a", DAY - SECOND, MINUTE, CHUNK_UNSYNCED);
	add(box, "a", DAY + SECOND, MINUTE + 2 * SECOND, CHUNK_UNSYNCED);
	put_right(box, 2 * MINUTE);
	assert_int_equal(seal(box, truth(2 * MINUTE), 2 * MINUTE, true), 1);
	ASSERT_BATCH(box, "2026-11-21", "corrected", truth(MINUTE), truth(MINUTE + 2 * SECOND));
}

/* Complete when the clock was wrong, in the file when it was right; then the power goes. */
static void test_a_commit_that_comes_late_is_corrected(void **state)
{
	struct box *box = *state;

	wait_for_it(box, 0);
	put_right(box, 2 * MINUTE);
	add_wrong(box, "a", MINUTE);
	assert_int_equal(kept_back(box), 0);
	box->identity.kernel_boot_id = BOOT_B;
	box_reopen(box);
	assert_int_equal(seal(box, NOON, MINUTE, true), 1);
	ASSERT_BATCH(box, "2026-11-21", "corrected", truth(MINUTE));
}

static struct fetch *make_large(const char *source, int64_t mono_ms)
{
	struct fetch *fetch = fetch_new(source);

	fetch->wall_ms = wrong(mono_ms);
	fetch->mono_ms = mono_ms;
	fetch->clock = CHUNK_UNSYNCED;
	for (int i = 0; i < 60; i++)
		assert_int_equal(fetch_add(fetch, "{\"some\":\"record\"}", 17, 500), 0);
	return fetch;
}

static void test_large_fetches_are_corrected(void **state)
{
	struct box *box = *state;

	for (int staged = 0; staged < 2; staged++) {
		struct fetch *fetch = make_large(staged ? "a" : "b", MINUTE);
		struct fetch_piece *piece;

		wait_for_it(box, 0);
		while (staged && (piece = fetch_take_piece(fetch))) {
			assert_int_equal(queue_stage(box->q, "a", piece, &box->err), 0);
			fetch->staged += piece->n;
			fetch_piece_free(piece);
		}
		assert_int_equal(fetch->staged > 0, staged);
		assert_int_equal(box_commit(box, fetch), 0);
		assert_int_equal(kept_back(box), 60);
		assert_int_equal(seal(box, wrong(2 * MINUTE), 2 * MINUTE, true), 0);
		box_reopen(box);
		wait_for_it(box, 2 * MINUTE);
		assert_int_equal(kept_back(box), 60);
		assert_int_equal(seal(box, wrong(2 * MINUTE), 2 * MINUTE, true), 0);
		put_right(box, 3 * MINUTE);
		assert_int_equal(seal(box, truth(3 * MINUTE), 3 * MINUTE, true), 1);
		int64_t all[30];
		for (int i = 0; i < 30; i++)
			all[i] = truth(MINUTE);
		assert_batch(box, "2026-11-21", "corrected", all, 30);
		assert_int_equal(kept_back(box), 0);
		/* And another life, in which nobody knows yet. */
		box->identity.kernel_boot_id = BOOT_B;
		box_reopen(box);
	}
}

/* Its first lines had the time before: all of it is made anew. */
static void test_it_comes_right_between_two_steps(void **state)
{
	struct box *box = *state;
	struct bytes object, lines;

	for (int i = 0; i < 3; i++) {
		struct fetch *fetch = make("a", wrong(MINUTE + i), MINUTE + i, CHUNK_UNSYNCED);

		for (int k = 0; k < 10000; k++)
			assert_int_equal(fetch_add(fetch, "{\"a\":\"record\"}", 14, CHUNK_FULL), 0);
		assert_int_equal(box_commit(box, fetch), 0);
	}
	assert_int_equal(queue_seal(box->q, wrong(2 * MINUTE), 2 * MINUTE, true, &box->batch, &box->err), QUEUE_STEP);
	put_right(box, 2 * MINUTE);
	assert_int_equal(seal(box, truth(2 * MINUTE), 2 * MINUTE, true), 1);
	assert_int_equal(box->batch.records, 30006);
	assert_non_null(strstr(box->batch.key, "/dt=2026-11-21/"));
	assert_true(box->batch.raw_bytes <= MAX_BYTES);
	box_object(box, box->batch.id, &object, &lines);
	assert_int_equal(bytes_add(&lines, "", 1), 0);
	assert_line((const char *)lines.data, 0, truth(MINUTE), "corrected");
	assert_line((const char *)lines.data, 30005, truth(MINUTE + 2), "corrected");
	bytes_done(&object);
	bytes_done(&lines);
}

/* A line that is corrected is longer; max_bytes holds all the same. */
static void test_corrected_lines_fit(void **state)
{
	struct box *box = *state;
	uint64_t told;

	add_wrong(box, "a", MINUTE);
	told = box_view(box, "a").unsealed_bytes;
	put_right(box, 2 * MINUTE);
	assert_int_equal(seal(box, truth(2 * MINUTE), 2 * MINUTE, true), 1);
	assert_int_equal(box->batch.raw_bytes, told);
	assert_int_equal(box_view(box, "a").unsealed_bytes, 0);
}

/* Whoever asks before it is sealed hears the same. */
static void test_tail_and_books_are_corrected(void **state)
{
	struct box *box = *state;
	struct queue_range range;
	struct bytes lines;
	uint64_t next;

	box_route(box, 1, MAX_BYTES, 1000);
	wait_for_it(box, 0);
	add_wrong(box, "a", 11 * MINUTE);
	bytes_init(&lines, 1 << 20);
	assert_int_equal(queue_read(box->q, "a", 1, 1000, &lines, &next, &box->err), 0);
	assert_int_equal(bytes_add(&lines, "", 1), 0);
	assert_line((const char *)lines.data, 0, wrong(11 * MINUTE), "unsynced");
	assert_int_equal(queue_books(box->q, "lake", 0, NULL, &range, 1, &box->err), 1);
	assert_true(range.day == 0);
	put_right(box, 12 * MINUTE);
	bytes_clear(&lines);
	assert_int_equal(queue_read(box->q, "a", 1, 1000, &lines, &next, &box->err), 0);
	assert_int_equal(bytes_add(&lines, "", 1), 0);
	assert_line((const char *)lines.data, 1, truth(11 * MINUTE), "corrected");
	bytes_done(&lines);
	assert_int_equal(queue_books(box->q, "lake", 0, NULL, &range, 1, &box->err), 1);
	assert_true(range.day == units_day(truth(11 * MINUTE)) && range.kind == QUEUE_UNSEALED);
	assert_true(box_view(box, "a").oldest_ms == truth(11 * MINUTE));
}

/* --- It never is --- */

static void test_after_the_wait_it_is_sealed_as_it_is(void **state)
{
	struct box *box = *state;

	wait_for_it(box, 0);
	add_wrong(box, "a", MINUTE);
	add_wrong(box, "a", 59 * MINUTE);
	assert_int_equal(seal(box, wrong(WAIT - 1), WAIT - 1, true), 0);
	wait_for_it(box, WAIT);
	assert_int_equal(kept_back(box), 0);
	assert_int_equal(seal(box, wrong(WAIT), WAIT, false), 1);
	ASSERT_BATCH(box, "1970-01-01", "unsynced", wrong(MINUTE), wrong(59 * MINUTE));
	add_wrong(box, "a", WAIT + MINUTE);
	assert_int_equal(seal(box, wrong(WAIT + 2 * MINUTE), WAIT + 2 * MINUTE, true), 1);
	ASSERT_BATCH(box, "1970-01-01", "unsynced", wrong(WAIT + MINUTE));
}

/* What is sealed stays; what is not sealed yet is corrected. */
static void test_right_at_last(void **state)
{
	struct box *box = *state;

	add_wrong(box, "a", MINUTE);
	wait_for_it(box, WAIT);
	assert_int_equal(seal(box, wrong(WAIT), WAIT, true), 1);
	add_wrong(box, "a", WAIT + MINUTE);
	put_right(box, WAIT + 2 * MINUTE);
	assert_int_equal(seal(box, truth(WAIT + 2 * MINUTE), WAIT + 2 * MINUTE, true), 1);
	ASSERT_BATCH(box, "2026-11-22", "corrected", truth(WAIT + MINUTE));
}

static void test_a_shorter_wait_counts_at_once(void **state)
{
	struct box *box = *state;

	wait_for_it(box, 0);
	add_wrong(box, "a", MINUTE);
	assert_int_equal(seal(box, wrong(2 * MINUTE), 2 * MINUTE, true), 0);
	assert_int_equal(queue_set_clock(box->q, false, wrong(2 * MINUTE), 2 * MINUTE, MINUTE, &box->err), 0);
	assert_int_equal(kept_back(box), 0);
	assert_int_equal(seal(box, wrong(2 * MINUTE), 2 * MINUTE, true), 1);
}

/* A poll that is lost for want of room is worse than a doubtful time. */
static void test_where_room_is_short_nothing_is_kept_back(void **state)
{
	struct box *box = *state;
	const struct queue_bounds bounds = { .max_size = INT64_C(16) << 20, .max_record = 1 << 20 };
	bool full = false;

	assert_int_equal(queue_bound(box->q, &bounds, &box->err), 0);
	wait_for_it(box, 0);
	for (uint64_t n = 0; !full; n++) {
		struct fetch *fetch = make("a", wrong(MINUTE), MINUTE, CHUNK_UNSYNCED);
		struct queue_view *view;
		char noise[100000];
		uint64_t x = n;

		for (size_t i = 0; i < sizeof noise; i++) {
			x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
			noise[i] = (char)(' ' + (x >> 33) % 90);
		}
		assert_int_equal(fetch_add(fetch, noise, sizeof noise, CHUNK_FULL), 0);
		assert_int_equal(seal(box, wrong(2 * MINUTE), 2 * MINUTE, true), 0);
		assert_int_equal(box_commit(box, fetch), 0);
		view = queue_view(box->q);
		full = view->full;
		assert_int_equal(view->unsynced_records, full ? 0 : 3 * (n + 1));
		queue_view_free(view);
	}
	assert_int_equal(seal(box, wrong(2 * MINUTE), 2 * MINUTE, true), 1);
	assert_non_null(strstr(box->batch.key, "/dt=1970-01-01/"));
}

/* Nor where somebody else has filled the card. */
static void test_where_the_card_is_full_nothing_is_kept_back(void **state)
{
	struct box *box = *state;
	const struct queue_bounds bounds = { .max_size = INT64_C(16) << 20, .max_record = 1 << 20 };
	struct fetch *fetch = make("a", wrong(2 * MINUTE), 2 * MINUTE, CHUNK_UNSYNCED);
	int r;

	assert_int_equal(queue_bound(box->q, &bounds, &box->err), 0);
	wait_for_it(box, 0);
	add_wrong(box, "a", MINUTE);
	assert_int_equal(seal(box, wrong(2 * MINUTE), 2 * MINUTE, true), 0);
	card_errno = ENOSPC;
	r = queue_commit(box->q, fetch, &box->err);
	card_errno = 0;
	assert_true(r == -ENOSPC || r == -EDQUOT); /* to the queue the card has room by then */
	assert_int_equal(kept_back(box), 0);
	assert_int_equal(seal(box, wrong(2 * MINUTE), 2 * MINUTE, true), 1);
	assert_int_equal(box_commit(box, fetch), 0); /* there is room again */
	assert_int_equal(kept_back(box), 2);
	assert_int_equal(seal(box, wrong(2 * MINUTE), 2 * MINUTE, true), 0);
}

/* Who asks the clock need not wait for the file. */
static void test_it_may_be_told_before_the_file_is_open(void **state)
{
	struct box *box = *state;

	add_wrong(box, "a", MINUTE);
	box_close(box);
	box->q = queue_new(box->path, &box->identity);
	put_right(box, 2 * MINUTE);
	assert_int_equal(queue_start(box->q, false, &box->err), 0);
	assert_int_equal(kept_back(box), 0);
	put_right(box, 3 * MINUTE); /* is written now, and is the first one */
	box->identity.kernel_boot_id = BOOT_B;
	box_reopen(box);
	assert_int_equal(seal(box, NOON, MINUTE, true), 1);
	ASSERT_BATCH(box, "2026-11-21", "corrected", truth(MINUTE));
}

/* --- Power cuts --- */

static void test_two_boots_and_no_synchronisation_between(void **state)
{
	struct box *box = *state;

	wait_for_it(box, 0);
	add_wrong(box, "a", MINUTE);
	box->identity.kernel_boot_id = BOOT_B;
	box_reopen(box);
	wait_for_it(box, 0);
	add_wrong(box, "a", 2 * MINUTE);
	assert_int_equal(kept_back(box), 2);
	/* The older boot's are sealed as they are, at once; the newer's wait. */
	assert_int_equal(seal(box, wrong(3 * MINUTE), 3 * MINUTE, false), 1);
	ASSERT_BATCH(box, "1970-01-01", "unsynced", wrong(MINUTE));
	assert_int_equal(seal(box, wrong(3 * MINUTE), 3 * MINUTE, true), 0);
	put_right(box, 4 * MINUTE);
	assert_int_equal(seal(box, truth(4 * MINUTE), 4 * MINUTE, true), 1);
	ASSERT_BATCH(box, "2026-11-21", "corrected", truth(2 * MINUTE));
}

/* The older one's are not corrected by the newer one's clock, though that be right. */
static void test_a_boot_has_its_own_correction(void **state)
{
	struct box *box = *state;

	wait_for_it(box, 0);
	add_wrong(box, "a", MINUTE);
	put_right(box, 2 * MINUTE);
	box->identity.kernel_boot_id = BOOT_B;
	box_reopen(box);
	add_wrong(box, "a", MINUTE);
	assert_int_equal(queue_set_clock(box->q, true, truth(DAY), 2 * MINUTE, WAIT, &box->err), 0);
	assert_int_equal(seal(box, truth(DAY), 2 * MINUTE, true), 1);
	ASSERT_BATCH(box, "2026-11-21", "corrected", truth(MINUTE));
	assert_int_equal(seal(box, truth(DAY), 2 * MINUTE, true), 1);
	ASSERT_BATCH(box, "2026-11-22", "corrected", truth(DAY - MINUTE));
}

static void test_the_correction_outlasts_a_power_cut(void **state)
{
	struct box *box = *state;

	wait_for_it(box, 0);
	add_wrong(box, "a", 8 * MINUTE);
	add_wrong(box, "a", 12 * MINUTE);
	put_right(box, 13 * MINUTE);
	box->identity.kernel_boot_id = BOOT_B;
	box_reopen(box);
	wait_for_it(box, 0);
	assert_int_equal(kept_back(box), 0);
	assert_int_equal(seal(box, wrong(0), 0, false), 1);
	ASSERT_BATCH(box, "2026-11-21", "corrected", truth(8 * MINUTE));
	assert_int_equal(seal(box, wrong(0), 0, false), 1);
	ASSERT_BATCH(box, "2026-11-22", "corrected", truth(12 * MINUTE));
}

/* Of the daemon alone: the same boot, so it is known from the first moment on. */
static void test_the_correction_outlasts_a_restart(void **state)
{
	struct box *box = *state;

	wait_for_it(box, 0);
	add_wrong(box, "a", MINUTE);
	put_right(box, 2 * MINUTE);
	box_reopen(box);
	card_errno = EIO; /* it is in the file: nothing is written */
	wait_for_it(box, 3 * MINUTE);
	put_right(box, 3 * MINUTE);
	card_errno = 0;
	add_wrong(box, "a", 3 * MINUTE);
	assert_int_equal(kept_back(box), 0);
	assert_int_equal(seal(box, truth(4 * MINUTE), 4 * MINUTE, true), 1);
	ASSERT_BATCH(box, "2026-11-21", "corrected", truth(MINUTE), truth(3 * MINUTE));
}

static void test_a_card_that_takes_no_correction(void **state)
{
	struct box *box = *state;

	wait_for_it(box, 0);
	add_wrong(box, "a", MINUTE);
	card_errno = EIO;
	assert_int_equal(queue_set_clock(box->q, true, truth(2 * MINUTE), 2 * MINUTE, WAIT, &box->err), -EIO);
	card_errno = 0;
	assert_int_equal(kept_back(box), 0); /* it counts all the same */
	put_right(box, 5 * MINUTE);          /* is written now, and is the first one */
	box->identity.kernel_boot_id = BOOT_B;
	box_reopen(box);
	assert_int_equal(seal(box, NOON, MINUTE, true), 1);
	ASSERT_BATCH(box, "2026-11-21", "corrected", truth(MINUTE));
}

static void test_what_nobody_needs_is_not_kept(void **state)
{
	struct box *box = *state;

	put_right(box, MINUTE); /* nothing came before: nothing is written */
	add(box, "a", truth(MINUTE), MINUTE, CHUNK_SYNCED);
	box_close(box);
	assert_int_equal(box_ask(box, "SELECT count(*) FROM clock"), 0);
	for (int i = 0; i < 3; i++) {
		box->identity.kernel_boot_id = i % 2 ? BOOT_A : BOOT_B;
		box_open(box);
		add_wrong(box, "a", MINUTE);
		put_right(box, 2 * MINUTE);
		put_right(box, 3 * MINUTE);
		while (i < 2 && seal(box, truth(3 * MINUTE), 3 * MINUTE, true) == 1)
			;
		box_close(box);
		assert_int_equal(box_ask(box, "SELECT count(*) FROM clock"), 1);
	}
	/* Of two boots, where both have records. */
	box->identity.kernel_boot_id = BOOT_A;
	box_open(box);
	add_wrong(box, "b", MINUTE);
	put_right(box, 2 * MINUTE);
	box_close(box);
	assert_int_equal(box_ask(box, "SELECT count(*) FROM clock"), 2);
	assert_int_equal(box_ask(box, "UPDATE clock SET correction = correction + 1"), -1);
	assert_int_equal(box_try(box), -EBADMSG);
	assert_non_null(strstr(box->err.text, "clock"));
}

/* --- Jumps of a clock that is said to be right --- */

static void test_jumps_while_synced(void **state)
{
	struct box *box = *state;

	put_right(box, 0);
	add(box, "a", NOON, MINUTE, CHUNK_SYNCED);
	add(box, "a", NOON + 5 * HOUR, 2 * MINUTE, CHUNK_SYNCED); /* forward */
	add(box, "a", NOON - 5 * HOUR, 3 * MINUTE, CHUNK_SYNCED); /* back */
	assert_true(queue_seal_due_ms(box->q, NOON - 5 * HOUR, 3 * MINUTE) == 13 * MINUTE);
	assert_int_equal(seal(box, NOON - 5 * HOUR, 3 * MINUTE, true), 1);
	ASSERT_BATCH(box, "2026-11-21", "synced", NOON, NOON + 5 * HOUR, NOON - 5 * HOUR);
}

static void test_a_jump_back_past_midnight(void **state)
{
	struct box *box = *state;
	int64_t midnight = NOON + 12 * HOUR;

	put_right(box, 0);
	add(box, "a", midnight - MINUTE, MINUTE, CHUNK_SYNCED);
	add(box, "a", midnight + MINUTE, 3 * MINUTE, CHUNK_SYNCED);
	add(box, "a", midnight - 2 * HOUR, 4 * MINUTE, CHUNK_SYNCED);
	/* By this clock no day is over: what is of tomorrow waits for its age. */
	assert_int_equal(seal(box, midnight - 2 * HOUR, 4 * MINUTE, false), 0);
	assert_true(queue_seal_due_ms(box->q, midnight - 2 * HOUR, 4 * MINUTE) == 12 * MINUTE);
	assert_int_equal(seal(box, midnight - 2 * HOUR + 12 * MINUTE, 16 * MINUTE, false), 1);
	ASSERT_BATCH(box, "2026-11-21", "synced", midnight - MINUTE);
	assert_int_equal(seal(box, midnight - 2 * HOUR + 14 * MINUTE, 18 * MINUTE, false), 1);
	ASSERT_BATCH(box, "2026-11-22", "synced", midnight + MINUTE);
	assert_int_equal(seal(box, midnight - 2 * HOUR + 15 * MINUTE, 19 * MINUTE, false), 1);
	ASSERT_BATCH(box, "2026-11-21", "synced", midnight - 2 * HOUR);
}

static void test_years(void **state)
{
	struct box *box = *state;
	static const struct {
		int64_t wall_ms;
		const char *day;
	} years[] = {
		{ 1, "1970-01-01" },
		{ INT64_C(0x7fffffff) * 1000 + 999, "2038-01-19" },
		{ INT64_C(0x80000000) * 1000, "2038-01-19" },
		{ INT64_C(0x100000000) * 1000, "2106-02-07" },
		{ INT64_C(253402300799999), "9999-12-31" },
	};

	put_right(box, 0);
	for (size_t i = 0; i < sizeof years / sizeof *years; i++) {
		add(box, "a", years[i].wall_ms, MINUTE, CHUNK_SYNCED);
		box_reopen(box);
		assert_int_equal(seal(box, years[i].wall_ms, MINUTE, true), 1);
		ASSERT_BATCH(box, years[i].day, "synced", years[i].wall_ms);
	}
}

/* The clock is right, jumps to 1970, and who feeds the queue sees that it cannot be right: the boot's own tells better.
 */
static void test_a_time_that_cannot_be_right_is_corrected(void **state)
{
	struct box *box = *state;

	put_right(box, 0);
	add(box, "a", truth(MINUTE), MINUTE, CHUNK_SYNCED);
	add_wrong(box, "a", 2 * MINUTE);
	assert_int_equal(kept_back(box), 0);
	assert_int_equal(seal(box, wrong(3 * MINUTE), 3 * MINUTE, true), 1);
	assert_non_null(strstr(box->batch.key, "/dt=2026-11-21/"));
	assert_int_equal(box->batch.records, 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOX_TEST(test_times_are_corrected),
		BOX_TEST(test_nothing_is_sealed_before),
		BOX_TEST(test_what_came_before_is_sealed_alone),
		BOX_TEST(test_midnight_by_the_corrected_time),
		BOX_TEST(test_no_midnight_by_the_wrong_time),
		BOX_TEST(test_a_commit_that_comes_late_is_corrected),
		BOX_TEST(test_large_fetches_are_corrected),
		BOX_TEST(test_it_comes_right_between_two_steps),
		BOX_TEST(test_corrected_lines_fit),
		BOX_TEST(test_tail_and_books_are_corrected),
		BOX_TEST(test_after_the_wait_it_is_sealed_as_it_is),
		BOX_TEST(test_right_at_last),
		BOX_TEST(test_a_shorter_wait_counts_at_once),
		BOX_TEST(test_where_room_is_short_nothing_is_kept_back),
		BOX_TEST(test_where_the_card_is_full_nothing_is_kept_back),
		BOX_TEST(test_it_may_be_told_before_the_file_is_open),
		BOX_TEST(test_two_boots_and_no_synchronisation_between),
		BOX_TEST(test_a_boot_has_its_own_correction),
		BOX_TEST(test_the_correction_outlasts_a_power_cut),
		BOX_TEST(test_the_correction_outlasts_a_restart),
		BOX_TEST(test_a_card_that_takes_no_correction),
		BOX_TEST(test_what_nobody_needs_is_not_kept),
		BOX_TEST(test_jumps_while_synced),
		BOX_TEST(test_a_jump_back_past_midnight),
		BOX_TEST(test_years),
		BOX_TEST(test_a_time_that_cannot_be_right_is_corrected),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
