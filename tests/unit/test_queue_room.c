/* SPDX-License-Identifier: Apache-2.0 */
/*
 * max_size: what is on the card is measured after every call. The definitions of pwrite64, ftruncate64 and statvfs64
 * take the place of the C library's in this program, SQLite included: others fill the card at a word.
 */
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>

#include "buffer/queue_private.h"
#include "tests/unit/queue_box.h"

#define MB         INT64_C(1048576)
#define MAX_SIZE   (16 * MB)
#define MAX_RECORD (MB / 4)

static bool card_is_full; /* of others: no file grows any more */
static int writes;
static int64_t written;

static bool grows(int fd, off64_t end)
{
	struct stat st;

	return fstat(fd, &st) == 0 && end > st.st_size;
}

ssize_t pwrite64(int fd, const void *data, size_t len, off64_t at)
{
	writes++;
	written += (int64_t)len;
	if (card_is_full && grows(fd, at + (off64_t)len)) {
		errno = ENOSPC;
		return -1;
	}
	return syscall(SYS_pwrite64, fd, data, len, at);
}

int ftruncate64(int fd, off64_t len)
{
	if (card_is_full && grows(fd, len)) {
		errno = ENOSPC;
		return -1;
	}
	return (int)syscall(SYS_ftruncate, fd, len);
}

int statvfs64(const char *path, struct statvfs64 *ret_fs)
{
	(void)path;
	*ret_fs = (struct statvfs64){ .f_frsize = 4096, .f_bavail = card_is_full ? 0 : 1 << 24 };
	return 0;
}

/* --- A buffer that is watched --- */

static int64_t bound; /* 0: nothing is measured */
static uint64_t noise;

static int64_t size_of(const struct box *box, const char *suffix)
{
	char path[200];
	struct stat st;

	snprintf(path, sizeof path, "%s%s", box->path, suffix);
	return stat(path, &st) == 0 ? st.st_size : 0;
}

static void measure(const struct box *box)
{
	int64_t size = size_of(box, "") + size_of(box, "-wal");

	if (bound > 0 && size > bound)
		fail_msg("%lld bytes on the card", (long long)size);
}

static int set_up(void **state)
{
	card_is_full = false;
	bound = 0;
	noise = 88172645463325252;
	return box_set_up(state);
}

static void set_bound(struct box *box, int64_t max_size)
{
	const struct queue_bounds bounds = { .max_size = max_size, .max_record = MAX_RECORD };

	assert_int_equal(queue_bound(box->q, &bounds, &box->err), 0);
}

/* What is measured is the same without waiting for the disk. */
static void open_quickly(struct box *box)
{
	if (!box->q)
		box_open(box);
	sqlite3_exec(box->q->db, "PRAGMA synchronous = OFF", NULL, NULL, NULL);
}

/* As the daemon starts. */
static void start(struct box *box, int64_t max_bytes)
{
	open_quickly(box);
	box_route(box, 2, max_bytes, 100000);
	set_bound(box, MAX_SIZE);
	bound = MAX_SIZE;
	measure(box);
}

static char random_letter(void)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-";

	noise ^= noise << 13;
	noise ^= noise >> 7;
	noise ^= noise << 17;
	return letters[noise % 64];
}

/* What fills a buffer: incompressible or not. */
struct load {
	int sources, records;
	size_t size;
	bool compressible;
};

static struct fetch *make_fetch(const struct load *load, int n)
{
	char name[16];
	struct fetch *fetch;
	char *data = malloc(load->size);

	snprintf(name, sizeof name, "s%d", n % load->sources);
	fetch = fetch_new(name);
	fetch->wall_ms = NOON + n;
	fetch->mono_ms = MONO + n;
	for (int i = 0; i < load->records; i++) {
		for (size_t j = 0; j < load->size; j++)
			data[j] = load->compressible && j % 40 < 30 ? 'x' : random_letter();
		data[0] = data[load->size - 1] = '"';
		assert_int_equal(fetch_add(fetch, data, load->size, CHUNK_FULL), 0);
	}
	free(data);
	return fetch;
}

static int commit(struct box *box, const struct load *load, int n)
{
	int r = box_commit(box, make_fetch(load, n));

	measure(box);
	return r;
}

static void seal(struct box *box, bool all)
{
	int r;

	while ((r = box_step(box, 10 * MINUTE, all)) > 0)
		measure(box);
	measure(box);
	if (r < 0)
		fail_msg("%s", box->err.text);
}

/* Commits until nothing more is taken. Returns the number of records that were. */
static uint64_t fill(struct box *box, const struct load *load, bool seals)
{
	uint64_t records = 0;
	int n = 0;

	while (commit(box, load, n++) == 0) {
		records += (uint64_t)load->records;
		if (seals)
			seal(box, false);
	}
	assert_non_null(strstr(box->err.text, "/buffer.db\" has reached max_size (16M): mend what keeps the stores "
	                                      "away, or raise max_size"));
	return records;
}

static void deliver_all(struct box *box, const char *store)
{
	bool done;

	while (queue_next_delivery(box->q, store, 0, &box->batch, &box->err) == 0) {
		if (queue_delivered(box->q, box->batch.id, store, NOON, &done, &box->err) < 0)
			fail_msg("%s", box->err.text);
		measure(box);
	}
}

static void expire_all(struct box *box)
{
	int r;

	while ((r = queue_expire(box->q, NOON, 0, &box->err)) == 1)
		measure(box);
	measure(box);
	assert_int_equal(r, 0);
}

static struct queue_view figures(struct box *box)
{
	struct queue_view *view = queue_view(box->q), copy = *view;

	queue_view_free(view);
	return copy;
}

/* Records by what the books say became of them. */
static uint64_t sum_books(struct box *box, const char *store, enum queue_range_kind kind)
{
	struct queue_range ranges[64], after;
	uint64_t sum = 0;
	int n = 0;

	for (bool first = true; first || n > 0; first = false) {
		n = queue_books(box->q, store, INT64_MIN, first ? NULL : &after, ranges, 64, &box->err);
		assert_in_range(n, 0, 64);
		for (int i = 0; i < n; i++) {
			if (ranges[i].kind == kind)
				sum += ranges[i].last_seq - ranges[i].first_seq + 1;
			after = ranges[i];
		}
	}
	return sum;
}

/* --- Below max_size --- */

/* Fills it while the stores are away, twice, and then drops all of it; what must go on does, all the time. */
static void go_round(struct box *box, const struct load *load, int64_t max_bytes, bool seals)
{
	uint64_t taken = 0, lost;
	struct batch dropped;
	int r;

	start(box, max_bytes);
	for (int round = 0; round < 2; round++) {
		uint64_t before = taken;

		taken += fill(box, load, seals);
		assert_true(taken > before);
		assert_true(figures(box).full);
		seal(box, true);
		box_close(box);
		start(box, max_bytes);
		if (round == 1)
			break;
		deliver_all(box, "lake");
		deliver_all(box, "disk");
		expire_all(box);
		assert_int_equal(figures(box).batches, 0);
		assert_false(figures(box).full);
	}
	lost = sum_books(box, "lake", QUEUE_WAITING);
	while ((r = queue_drop(box->q, NULL, 0, &dropped, &box->err)) == 1)
		measure(box);
	assert_int_equal(r, 0);
	assert_int_equal(commit(box, load, 0), 0);
	taken += (uint64_t)load->records;
	assert_int_equal(sum_books(box, "lake", QUEUE_LOST), lost);
	assert_int_equal(sum_books(box, "disk", QUEUE_LOST), lost);
	assert_int_equal(sum_books(box, "lake", QUEUE_UNSEALED), load->records);
	assert_int_equal(sum_books(box, "lake", QUEUE_DELIVERED), taken - lost - (uint64_t)load->records);
}

static void test_noise(void **state)
{
	static const struct load load = { .sources = 20, .records = 40, .size = 3000 };

	go_round(*state, &load, MB, true);
}

static void test_large_batches(void **state)
{
	static const struct load load = { .sources = 1, .records = 40, .size = 3000 };

	go_round(*state, &load, 8 * MB, true);
}

static void test_large_records(void **state)
{
	static const struct load load = { .sources = 3, .records = 2, .size = MAX_RECORD };

	go_round(*state, &load, 8 * MB, true);
}

/* Nothing is sealed (the clock is not known, say) until it is full of chunks. */
static void test_chunks_alone(void **state)
{
	static const struct load load = { .sources = 20, .records = 40, .size = 3000 };

	go_round(*state, &load, 8 * MB, false);
}

static void test_compressible(void **state)
{
	static const struct load load = { .sources = 100, .records = 200, .size = 1000, .compressible = true };

	go_round(*state, &load, MB, true);
}

/* Rows are most of it: batches of one record. */
static void test_tiny_batches(void **state)
{
	static const struct load load = { .sources = 200, .records = 1, .size = 8000 };
	struct box *box = *state;
	int n = 0;

	start(box, MB);
	for (int r = 0; r == 0; n++) {
		r = commit(box, &load, n);
		if (n % 100 == 99)
			seal(box, true);
	}
	seal(box, true);
	assert_true(figures(box).full);
	deliver_all(box, "lake");
	deliver_all(box, "disk");
	expire_all(box);
	assert_false(figures(box).full);
	assert_int_equal(commit(box, &load, n), 0);
}

/* Sources that commit side by side until the buffer is full; what they left is sealed and delivered all the same. */
static void end_of_what_is_unsealed(struct box *box, const struct load *load, int64_t max_records, int64_t max_bytes)
{
	struct fetch *list;
	uint64_t taken = 0;
	int r = 0;

	open_quickly(box);
	box_route(box, 2, max_bytes, max_records);
	bound = MAX_SIZE / 2;
	set_bound(box, bound);
	while (r == 0) {
		list = NULL;
		for (int n = 0; n < load->sources; n++) {
			struct fetch *fetch = make_fetch(load, n);

			fetch->next = list;
			list = fetch;
		}
		r = box_commit(box, list);
		measure(box);
		taken += r == 0 ? (uint64_t)(load->sources * load->records) : 0;
	}
	assert_int_equal(r, -EDQUOT);
	seal(box, true);
	deliver_all(box, "lake");
	deliver_all(box, "disk");
	assert_int_equal(sum_books(box, "disk", QUEUE_DELIVERED), taken);
	expire_all(box);
	assert_int_equal(commit(box, load, 0), 0);
}

/* Each of the fetches is a batch of its own, and a batch has more to it than a chunk. */
static void test_many_batches_of_one_source(void **state)
{
	static const struct load load = { .sources = 16, .records = 1, .size = 4 };

	end_of_what_is_unsealed(*state, &load, 1, MB);
}

static void test_many_batches_by_their_bytes(void **state)
{
	static const struct load load = { .sources = 16, .records = 3, .size = 8 };

	end_of_what_is_unsealed(*state, &load, 100000, 1000);
}

/* In an object each of them has an envelope. */
static void test_many_records_that_are_almost_nothing(void **state)
{
	static const struct load load = { .sources = 20, .records = 1000, .size = 3, .compressible = true };

	end_of_what_is_unsealed(*state, &load, 10000, 8 * MB);
}

/* --- Giving back --- */

/* A backlog of that size comes and goes again. Returns the bytes of the file before it went. */
static int64_t come_and_go(struct box *box, int64_t size)
{
	static const struct load load = { .sources = 20, .records = 40, .size = 3000 };
	int64_t before;

	for (int n = 0; size_of(box, "") < size; n++) {
		assert_int_equal(commit(box, &load, n), 0);
		seal(box, false);
	}
	seal(box, true);
	deliver_all(box, "lake");
	deliver_all(box, "disk");
	before = size_of(box, "");
	queue_empty_wal(box->q);
	written = 0;
	expire_all(box);
	return before;
}

static void test_what_a_backlog_leaves_is_given_back(void **state)
{
	struct box *box = *state;
	int64_t before;

	open_quickly(box);
	box_route(box, 2, MB, 100000);
	bound = 80 * MB;
	set_bound(box, bound);
	before = come_and_go(box, 32 * MB);
	assert_in_range(size_of(box, ""), MB, 2 * MB); /* for a card that others fill */
	assert_true(figures(box).room_bytes > 70 * MB);
	assert_in_range(written, 1, (before - size_of(box, "")) / 10);
	assert_true(size_of(box, "-wal") > MB);
	come_and_go(box, 32 * MB);
	assert_in_range(size_of(box, ""), MB, 2 * MB);
	written = 0;
	expire_all(box);
	assert_int_equal(written, 0);
}

static void test_a_small_backlog_leaves_pages_that_are_used_again(void **state)
{
	struct box *box = *state;
	int64_t before;

	open_quickly(box);
	box_route(box, 2, MB, 100000);
	bound = 80 * MB;
	set_bound(box, bound);
	before = come_and_go(box, 16 * MB);
	assert_int_equal(size_of(box, ""), before);
	assert_true(figures(box).room_bytes > 70 * MB);
}

/* --- Figures --- */

static void test_without_a_bound(void **state)
{
	static const struct load load = { .sources = 1, .records = 40, .size = 3000 };
	struct box *box = *state;
	struct queue_view view = figures(box);

	open_quickly(box);
	assert_int_equal(view.max_bytes, 0);
	assert_true(view.room_bytes == INT64_MAX);
	assert_false(view.full);
	for (int n = 0; n < 200; n++)
		assert_int_equal(commit(box, &load, n), 0);
	assert_true(size_of(box, "") + size_of(box, "-wal") > MAX_SIZE);
}

/* A record that is larger than what is left finds no page before it is asked for. */
static void test_too_large_for_what_is_left(void **state)
{
	static const struct load load = { .sources = 1, .records = 40, .size = 3000 };
	static const struct load large = { .sources = 1, .records = 1, .size = 7 * MB };
	struct box *box = *state;

	start(box, MB);
	for (int n = 0; figures(box).room_bytes > 3 * MB; n++) {
		assert_int_equal(commit(box, &load, n), 0);
		seal(box, false);
	}
	assert_false(figures(box).full);
	bound = 0; /* no record may be that large */
	assert_int_equal(commit(box, &large, 0), -EDQUOT);
	assert_non_null(strstr(box->err.text, "write: max_size is reached"));
	assert_true(figures(box).wanted);
	assert_false(figures(box).card_full);
	assert_int_equal(commit(box, &load, 0), 0);
	assert_false(figures(box).wanted);
}

/* Full begins before the last byte, and ends when there is twice as much again. */
static void test_full(void **state)
{
	static const struct load load = { .sources = 1, .records = 10, .size = 3000 };
	struct box *box = *state;
	struct queue_view view;
	struct batch dropped;
	int n = 0;

	start(box, MB);
	view = figures(box);
	assert_int_equal(view.max_bytes, MAX_SIZE);
	assert_true(view.room_bytes > MAX_SIZE / 2 && view.room_bytes < MAX_SIZE);
	assert_false(view.full);
	while (!figures(box).full) {
		assert_int_equal(commit(box, &load, n++), 0);
		seal(box, false);
	}
	assert_in_range(figures(box).room_bytes, MB - 100000, MB);
	assert_int_equal(commit(box, &load, n), 0); /* what was begun still comes in */
	while (figures(box).room_bytes < 2 * MB) {
		assert_true(figures(box).full);
		assert_int_equal(queue_drop(box->q, NULL, 0, &dropped, &box->err), 1);
	}
	assert_false(figures(box).full);
}

/* What is reserved for a batch is what it takes: while it is half made there is no less room than before. */
static void test_sealing_takes_of_the_reserve(void **state)
{
	static const struct load load = { .sources = 1, .records = 40, .size = 3000 };
	struct box *box = *state;
	int64_t before;
	int r = QUEUE_STEP, steps = 0;

	start(box, 8 * MB);
	for (int n = 0; n < 30; n++)
		assert_int_equal(commit(box, &load, n), 0);
	before = figures(box).room_bytes;
	for (; r == QUEUE_STEP; steps++) {
		assert_true(figures(box).room_bytes > before - MB / 4);
		r = box_step(box, MINUTE, true);
	}
	assert_int_equal(r, 1);
	assert_true(steps > 2);
	assert_true(figures(box).room_bytes > before + 2 * MB);
}

/* A fetch too large for the buffer leaves room for others' small ones. */
static void test_what_is_staged_leaves_room(void **state)
{
	static const struct load large = { .sources = 1, .records = 20, .size = 3000 };
	static const struct load small = { .sources = 1, .records = 1, .size = 30 };
	struct box *box = *state;
	int r = 0, pieces = 0;

	start(box, 8 * MB);
	while (r == 0) {
		struct fetch *fetch = make_fetch(&large, 0);

		r = queue_stage(box->q, "huge", fetch->first, &box->err);
		measure(box);
		fetch_free(fetch);
		pieces++;
	}
	assert_int_equal(r, -EFBIG);
	assert_non_null(strstr(box->err.text, "more than a quarter of max_size"));
	assert_true(pieces > 50);
	for (int n = 0; n < 300; n++)
		assert_int_equal(commit(box, &small, n), 0);
	seal(box, true);
	assert_int_equal(queue_unstage(box->q, "huge", &box->err), 0);
	assert_false(figures(box).full);
	assert_true(figures(box).room_bytes > MAX_SIZE / 2);
}

static void test_a_refused_answer_is_kept_if_there_is_room(void **state)
{
	static const struct load load = { .sources = 20, .records = 40, .size = 3000 };
	static const struct load small = { .sources = 1, .records = 1, .size = 200 };
	struct queue_rejected rejected = { .source = "a", .cause = "x", .len = SINK_EXCERPT_MAX };
	struct box *box = *state;

	start(box, MB);
	assert_int_equal(queue_reject(box->q, &rejected, &box->err), 0);
	fill(box, &load, true);
	for (int n = 0; commit(box, &small, n) == 0; n++)
		;
	strcpy(rejected.source, "b");
	assert_int_equal(queue_reject(box->q, &rejected, &box->err), -EDQUOT);
	assert_int_equal(queue_next_rejected(box->q, "", &rejected, &box->err), 1);
	assert_string_equal(rejected.source, "a");
	assert_int_equal(queue_next_rejected(box->q, "a", &rejected, &box->err), 0);
}

/* --- Another bound --- */

/* About 18 MB, sealed, from before there was a bound. */
static void make_large(struct box *box)
{
	static const struct load load = { .sources = 4, .records = 40, .size = 3000 };

	open_quickly(box);
	box_route(box, 2, MB, 100000);
	for (int n = 0; n < 200; n++) {
		assert_int_equal(commit(box, &load, n), 0);
		seal(box, false);
	}
	seal(box, true);
	assert_true(size_of(box, "") > MAX_SIZE);
}

/* Takes nothing until it is small enough, and then is below its bound for good. */
static void test_a_large_buffer_that_drops(void **state)
{
	static const struct load load = { .sources = 4, .records = 40, .size = 3000 };
	struct box *box = *state;
	struct batch dropped;
	struct bytes lines;
	uint64_t next = 0, waiting;
	int64_t pages;
	int n = 0;

	make_large(box);
	box_close(box);
	open_quickly(box);
	box_route(box, 2, MB, 100000);
	set_bound(box, MAX_SIZE);
	pages = box->q->room.pages;
	assert_true(pages * 4096 > MAX_SIZE);
	assert_true(size_of(box, "-wal") <= box->q->room.wal_max);
	while (box->q->room.pages == pages) {
		assert_int_equal(commit(box, &load, n), -EDQUOT);
		assert_true(figures(box).full);
		assert_int_equal(figures(box).room_bytes, 0);
		assert_int_equal(queue_drop(box->q, NULL, 0, &dropped, &box->err), 1);
		n++;
	}
	/* No more than needed, and what is left is whole. */
	bound = MAX_SIZE;
	measure(box);
	assert_false(figures(box).full);
	assert_true(size_of(box, "") > MAX_SIZE / 4);
	waiting = sum_books(box, "lake", QUEUE_WAITING);
	assert_int_equal(waiting + sum_books(box, "lake", QUEUE_LOST), 200 * 40);
	bytes_init(&lines, 64 << 20);
	for (n = 0; n < 4; n++) {
		char source[16];

		snprintf(source, sizeof source, "s%d", n);
		assert_int_equal(queue_read(box->q, source, 1, SIZE_MAX, &lines, &next, &box->err), 0);
	}
	assert_int_equal(box_count_lines(&lines), waiting);
	bytes_done(&lines);
	fill(box, &load, true);
	seal(box, true);
}

static void test_a_large_buffer_that_pauses(void **state)
{
	static const struct load load = { .sources = 4, .records = 40, .size = 3000 };
	struct box *box = *state;
	int64_t pages;

	make_large(box);
	box_close(box);
	open_quickly(box);
	box_route(box, 2, MB, 100000);
	set_bound(box, MAX_SIZE);
	pages = box->q->room.pages;
	assert_true(pages * 4096 > MAX_SIZE);
	assert_int_equal(commit(box, &load, 0), -EDQUOT);
	deliver_all(box, "lake");
	deliver_all(box, "disk");
	assert_int_equal(commit(box, &load, 0), -EDQUOT);
	assert_true(box->q->room.pages == pages);
	assert_true(size_of(box, "") <= pages * 4096);
	expire_all(box);
	bound = MAX_SIZE;
	measure(box);
	assert_int_equal(commit(box, &load, 0), 0);
	assert_int_equal(sum_books(box, "disk", QUEUE_DELIVERED), 200 * 40);
	fill(box, &load, true);
}

/* A larger bound is there at once. */
static void test_more_room(void **state)
{
	static const struct load load = { .sources = 4, .records = 40, .size = 3000 };
	struct box *box = *state;

	start(box, MB);
	fill(box, &load, true);
	bound = 2 * MAX_SIZE;
	set_bound(box, bound);
	for (int n = 0; n < 60; n++)
		assert_int_equal(commit(box, &load, n), 0);
	assert_false(figures(box).full);
}

/* One record that only the bound before let in: while it lies there unsealed, and no longer. */
static void test_a_record_of_a_larger_bound(void **state)
{
	static const struct load large = { .sources = 1, .records = 1, .size = 6 * MB };
	static const struct load load = { .sources = 4, .records = 40, .size = 3000 };
	const struct queue_bounds before = { .max_size = 4 * MAX_SIZE, .max_record = 6 * MB };
	struct box *box = *state;
	int64_t limit;

	start(box, MB);
	limit = box->q->room.limit;
	bound = 0;
	for (int sealed = 0; sealed < 2; sealed++) {
		assert_int_equal(queue_bound(box->q, &before, &box->err), 0);
		assert_int_equal(commit(box, &large, 0), 0);
		assert_int_equal(commit(box, &load, 1), 0);
		if (sealed)
			seal(box, true);
		set_bound(box, MAX_SIZE);
		assert_true(sealed ? box->q->room.limit == limit : box->q->room.limit < limit / 2);
		seal(box, true);
		assert_true(box->q->room.limit == limit);
		deliver_all(box, "lake");
		deliver_all(box, "disk");
		expire_all(box);
		bound = MAX_SIZE;
		assert_int_equal(commit(box, &load, 0), 0);
		assert_false(figures(box).full);
		bound = 0;
	}
	seal(box, true);
	bound = MAX_SIZE;
	fill(box, &load, true);
}

/* --- A card that others fill --- */

/* It may fail once, when the WAL cannot grow; then it has made room in it. */
static int commit_or_again(struct box *box, const struct load *load, int n)
{
	int r = commit(box, load, n);

	return r == -ENOSPC ? commit(box, load, n) : r;
}

static void seal_or_again(struct box *box, int n)
{
	int r = 1, failures = 0;

	while (r != 0) {
		int64_t mono = MONO + (n + failures) * 2 * MINUTE;

		r = queue_seal(box->q, NOON + n, mono, true, &box->batch, &box->err);
		failures = r < 0 ? failures + 1 : 0;
		if (failures > 4)
			fail_msg("%s", box->err.text);
	}
}

static void test_a_card_that_others_have_filled(void **state)
{
	static const struct load load = { .sources = 5, .records = 20, .size = 1000 };
	struct box *box = *state;
	int64_t size;
	bool done;

	start(box, MB);
	assert_int_equal(commit(box, &load, 0), 0);
	card_is_full = true;
	size = size_of(box, "") + size_of(box, "-wal");
	for (int round = 1; round < 4; round++) {
		int taken = 0;

		while (commit_or_again(box, &load, taken) == 0)
			taken++;
		assert_true(taken > 20);
		assert_non_null(strstr(box->err.text, "no space is left on the file system"));
		seal_or_again(box, 10 * round);
		while (queue_next_delivery(box->q, "lake", 0, &box->batch, &box->err) == 0)
			queue_delivered(box->q, box->batch.id, "lake", NOON, &done, &box->err);
		while (queue_next_delivery(box->q, "disk", 0, &box->batch, &box->err) == 0)
			queue_delivered(box->q, box->batch.id, "disk", NOON, &done, &box->err);
		assert_int_equal(queue_expire(box->q, NOON, 0, &box->err), 0);
		assert_int_equal(figures(box).batches, 0);
		assert_true(size_of(box, "") + size_of(box, "-wal") <= size);
		box_close(box);
		start(box, MB);
	}
	card_is_full = false;
	assert_int_equal(commit(box, &load, 0), 0);
}

/* Both where SQLite finds no room and where we say so ourselves; it is no matter of max_size. */
static void test_what_others_have_filled_is_told(void **state)
{
	static const struct load load = { .sources = 5, .records = 20, .size = 1000 };
	struct box *box = *state;
	int refused = 0, failed = 0;

	start(box, MB);
	assert_int_equal(commit(box, &load, 0), 0);
	assert_false(figures(box).card_full);
	card_is_full = true;
	for (int n = 0; refused == 0; n++) {
		int r = commit(box, &load, n);

		if (r < 0 && strstr(box->err.text, "but for what sealing"))
			refused++;
		else if (r < 0)
			failed++;
		assert_int_equal(r, r < 0 ? -ENOSPC : 0);
		assert_true(figures(box).card_full == (r < 0));
		assert_false(figures(box).wanted);
	}
	assert_int_equal(failed, 1);
	seal_or_again(box, 10);
	deliver_all(box, "lake");
	deliver_all(box, "disk");
	assert_true(figures(box).card_full);
	expire_all(box);
	assert_int_equal(commit(box, &load, 0), 0);
	assert_false(figures(box).card_full);
}

/* Starting on such a card, and with a first start that was killed half way. */
static void test_a_new_file_is_grown_once(void **state)
{
	struct box *box = *state;
	int64_t size;

	card_is_full = true;
	start(box, MB);
	assert_true(size_of(box, "") < MB);
	card_is_full = false;
	box_close(box);
	start(box, MB);
	assert_true(box->q->room.pages * 4096 >= 2 * MB);
	assert_true(box->q->room.free_pages * 4096 >= 2 * MB - 100000);
	size = size_of(box, "") + size_of(box, "-wal");
	assert_true(size >= 2 * MB);
	box_close(box);
	box_ask(box, "INSERT INTO part (id, data, crc) VALUES (0, zeroblob(900000), 0)");
	start(box, MB);
	assert_true(box->q->room.free_pages * 4096 >= 2 * MB - 100000);
	box_close(box);
	assert_int_equal(box_ask(box, "SELECT count(*) FROM part"), 0);
	start(box, MB);
	box_close(box);
	box_open(box);
	writes = 0;
	start(box, MB);
	assert_int_equal(writes, 0);
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, box_tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_noise),
		TEST(test_large_batches),
		TEST(test_large_records),
		TEST(test_chunks_alone),
		TEST(test_compressible),
		TEST(test_tiny_batches),
		TEST(test_many_batches_of_one_source),
		TEST(test_many_batches_by_their_bytes),
		TEST(test_many_records_that_are_almost_nothing),
		TEST(test_what_a_backlog_leaves_is_given_back),
		TEST(test_a_small_backlog_leaves_pages_that_are_used_again),
		TEST(test_without_a_bound),
		TEST(test_too_large_for_what_is_left),
		TEST(test_full),
		TEST(test_sealing_takes_of_the_reserve),
		TEST(test_what_is_staged_leaves_room),
		TEST(test_a_refused_answer_is_kept_if_there_is_room),
		TEST(test_a_large_buffer_that_drops),
		TEST(test_a_large_buffer_that_pauses),
		TEST(test_more_room),
		TEST(test_a_record_of_a_larger_bound),
		TEST(test_a_card_that_others_have_filled),
		TEST(test_what_others_have_filled_is_told),
		TEST(test_a_new_file_is_grown_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
