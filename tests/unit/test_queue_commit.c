/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fetches into the queue. The definitions of pwrite64, fdatasync and fsync take the place of the C library's in this
 * program, SQLite included: so a test makes a write fail, or dies at it.
 */
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "tests/unit/queue_box.h"

static int writes, syncs, folder_syncs, die_at; /* die at that write; 0: never */
static int write_errno, sync_errno;

ssize_t pwrite64(int fd, const void *data, size_t len, off64_t at)
{
	if (++writes == die_at)
		_exit(42);
	if (write_errno != 0) {
		errno = write_errno;
		return -1;
	}
	return syscall(SYS_pwrite64, fd, data, len, at);
}

int fdatasync(int fd)
{
	syncs++;
	if (sync_errno != 0) {
		errno = sync_errno;
		return -1;
	}
	return (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
	struct stat st;

	folder_syncs += fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
	return (int)syscall(SYS_fsync, fd);
}

static int set_up(void **state)
{
	die_at = write_errno = sync_errno = 0;
	return box_set_up(state);
}

static void test_numbers_are_given_out_in_order(void **state)
{
	struct box *box = *state;
	struct fetch *one = box_fetch("a", 0, 9, ""), *two = box_fetch("b", 1, 1, ""),
	             *three = box_fetch("a", 2, 0, ""), *four = box_fetch("a", 3, 2, "");

	one->next = two;
	two->next = three;
	three->next = four;
	assert_int_equal(queue_commit(box->q, one, &box->err), 0);
	assert_int_equal(one->number, 1);
	assert_int_equal(one->first_seq, 1);
	assert_int_equal(two->number, 1);
	assert_int_equal(two->first_seq, 1);
	assert_int_equal(three->number, 2);
	assert_int_equal(three->first_seq, 10);
	assert_int_equal(four->number, 3);
	assert_int_equal(four->first_seq, 10);
	box_assert_state(box, "a", "a@3");
	box_assert_state(box, "b", "b@1");
	fetch_free(one);
	fetch_free(two);
	fetch_free(three);
	fetch_free(four);
}

static struct fetch *list(struct fetch *first, struct fetch *second)
{
	first->next = second;
	return first;
}

static int64_t chunks(struct box *box)
{
	int64_t n;

	box_close(box);
	n = box_ask(box, "SELECT count(*) FROM chunk");
	box_open(box);
	return n;
}

static void test_small_fetches_of_one_commit_share_a_chunk(void **state)
{
	struct box *box = *state;

	assert_int_equal(box_commit(box, list(box_fetch("a", 0, 9, ""),
	                                      list(box_fetch("b", 0, 1, ""), box_fetch("a", 1, 9, "")))),
	                 0);
	assert_int_equal(chunks(box), 2);
	box_add(box, "a", 2, 9); /* a commit of its own has its own */
	assert_int_equal(chunks(box), 3);
	assert_int_equal(box_view(box, "a").records, 27);
	assert_int_equal(box_view(box, "a").fetches, 3);
}

static void test_what_does_not_share_a_chunk(void **state)
{
	struct box *box = *state;
	struct fetch *other;

	/* another day */
	assert_int_equal(box_commit(box, list(box_fetch("a", 0, 1, ""), box_fetch("a", DAY / 2, 1, ""))), 0);
	assert_int_equal(chunks(box), 2);
	/* another clock */
	other = box_fetch("b", 1, 1, "");
	other->clock = CHUNK_UNSYNCED;
	assert_int_equal(box_commit(box, list(box_fetch("b", 0, 1, ""), other)), 0);
	assert_int_equal(chunks(box), 4);
	/* more records than a batch may have, more lines than a batch may have */
	box_route(box, 1, 1 << 20, 10);
	assert_int_equal(box_commit(box, list(box_fetch("c", 0, 6, ""), box_fetch("c", 1, 5, ""))), 0);
	assert_int_equal(chunks(box), 6);
	box_route(box, 1, 1000, 100);
	assert_int_equal(box_commit(box, list(box_fetch("d", 0, 4, ""), box_fetch("d", 1, 4, ""))), 0);
	assert_int_equal(chunks(box), 8);
	assert_int_equal(box_commit(box, list(box_fetch("e", 0, 3, ""), box_fetch("e", 1, 3, ""))), 0);
	assert_int_equal(chunks(box), 9);
}

static void test_a_large_fetch_is_several_chunks_and_one_fetch(void **state)
{
	struct box *box = *state;

	box_add(box, "a", 0, 5000);
	assert_true(chunks(box) >= 3);
	box_close(box);
	assert_int_equal(box_ask(box, "SELECT sum(last) FROM chunk"), 1);
	assert_int_equal(box_ask(box, "SELECT last FROM chunk ORDER BY id DESC"), 1);
	assert_int_equal(box_ask(box, "SELECT sum(records) FROM chunk"), 5000);
	assert_int_equal(box_ask(box, "SELECT max(fetch) FROM chunk"), 1);
	box_open(box);
	assert_int_equal(box_view(box, "a").fetches, 1);
	assert_int_equal(box_view(box, "a").records, 5000);
}

static void test_a_fetch_without_records_moves_state_and_number(void **state)
{
	struct box *box = *state;

	box_add(box, "a", 0, 3);
	box_add(box, "a", 1, 0);
	box_add(box, "a", 2, 0);
	box_reopen(box);
	box_assert_state(box, "a", "a@2");
	assert_int_equal(box_view(box, "a").fetches, 3);
	assert_int_equal(box_view(box, "a").records, 3);
	assert_int_equal(chunks(box), 2); /* the second took the first's place */
	box_add(box, "a", 3, 2);
	assert_int_equal(chunks(box), 2);
	box_reopen(box);
	assert_int_equal(box_view(box, "a").fetches, 4);
	assert_int_equal(box_view(box, "a").unsealed_records, 5);
	assert_int_equal(box_seal(box, 0, true), 1);
	assert_int_equal(box->batch.records, 5);
}

static void test_a_commit_writes_one_row_and_waits_for_the_card(void **state)
{
	struct box *box = *state;

	box_add(box, "a", 0, 9);
	writes = syncs = 0;
	box_add(box, "a", 1, 9);
	assert_int_equal(syncs, 1);
	/* The chunk's page and nothing else; in the WAL a frame is a header and a page, each one write. */
	assert_int_equal(writes, 2);
}

/* The run that made the file may have been killed before its name was durable: so every run sees to that. */
static void test_opening_makes_the_files_name_durable(void **state)
{
	struct box *box = *state;

	box_close(box);
	folder_syncs = 0;
	box_open(box);
	assert_int_equal(folder_syncs, 1);
}

/* The state of the memory after a failure is that of the file. */
static void test_a_failed_commit_leaves_no_trace_and_may_be_repeated(void **state)
{
	static const struct {
		int write_errno, sync_errno, status;
	} failures[] = { { ENOSPC, 0, -ENOSPC }, { EIO, 0, -EIO }, { 0, EIO, -EIO } };
	struct box *box = *state;

	box_add(box, "a", 0, 9);
	for (size_t i = 0; i < sizeof failures / sizeof *failures; i++) {
		struct fetch *fetch = list(box_fetch("a", 1, 5, ""), box_fetch("new", 2, 5, ""));

		write_errno = failures[i].write_errno;
		sync_errno = failures[i].sync_errno;
		assert_int_equal(queue_commit(box->q, fetch, &box->err), failures[i].status);
		assert_non_null(strstr(box->err.text, box->path));
		assert_int_equal(queue_commit(box->q, fetch, &box->err), failures[i].status);
		assert_int_equal(fetch->number, 0);
		assert_int_equal(fetch->first_seq, 0);
		assert_int_equal(box_view(box, "a").records, 9 + 5 * i);
		box_assert_state(box, "a", i == 0 ? "a@0" : "a@1");
		assert_int_equal(box_view(box, "new").records, 5 * i);
		write_errno = sync_errno = 0;
		assert_int_equal(queue_commit(box->q, fetch, &box->err), 0);
		assert_int_equal(fetch->first_seq, 10 + 5 * i);
		assert_int_equal(fetch->next->number, 1 + i);
		fetch_free(fetch->next);
		fetch_free(fetch);
		box_reopen(box);
		assert_int_equal(box_view(box, "a").records, 14 + 5 * i);
		assert_int_equal(box_view(box, "new").fetches, 1 + i);
	}
}

/* A fetch of several pieces, all staged but the last. */
static struct fetch *stage(struct box *box, int64_t after_ms)
{
	struct fetch *fetch = box_fetch("a", after_ms, 0, "");
	struct fetch_piece *piece;

	for (int i = 0; i < 9; i++) {
		if (fetch_add(fetch, "17", 2, 500) < 0)
			_exit(7);
		piece = fetch_take_piece(fetch);
		if (!piece)
			continue;
		if (queue_stage(box->q, "a", piece, &box->err) < 0)
			_exit(8);
		fetch->staged += piece->n;
		fetch_piece_free(piece);
	}
	return fetch;
}

/* What another run has staged is no reason not to begin: it goes when the card takes something again. */
static void test_opening_on_a_card_that_takes_nothing(void **state)
{
	struct box *box = *state;

	box_add(box, "a", 0, 9);
	box_add(box, "a", 1, 0);
	fetch_free(stage(box, 2));
	box_close(box);
	write_errno = ENOSPC;
	box_open(box);
	assert_int_equal(box_view(box, "a").records, 9);
	assert_int_equal(box_view(box, "a").fetches, 2);
	box_assert_state(box, "a", "a@1");
	write_errno = 0;
	box_add(box, "a", 3, 5);
	box_reopen(box);
	assert_int_equal(box_view(box, "a").records, 14);
	assert_int_equal(box_view(box, "a").fetches, 3);
	assert_int_equal(chunks(box), 2);
}

/* A life in short: made, filled, sealed, filled. Returns the acknowledged fetches through the pipe. */
static void live(struct box *box, int pipe_end, int fetches)
{
	struct batch batch;

	if (queue_open(box->path, &box->identity, &box->q, &box->err) < 0)
		_exit(3);
	for (int i = 0; i < fetches; i++) {
		struct fetch *fetch = i % 4 == 2 ? stage(box, i) : box_fetch("a", i, i % 7 == 3 ? 0 : 9, "");

		if (queue_commit(box->q, fetch, &box->err) < 0)
			_exit(4);
		if (write(pipe_end, &fetch->number, sizeof fetch->number) != sizeof fetch->number)
			_exit(5);
		fetch_free(fetch);
		if (i % 5 == 4 && queue_seal(box->q, NOON, MONO, true, &batch, &box->err) != 1)
			_exit(6);
	}
	_exit(0);
}

/* After a child's death: what it was told stands in the buffer, whole and in order. Returns the fetches there. */
static uint64_t assert_nothing_lost(struct box *box, uint64_t acknowledged)
{
	struct queue_source_view view;
	struct bytes lines;
	uint64_t next;
	const char *at;

	box_open(box);
	view = box_view(box, "a");
	assert_true(view.fetches >= acknowledged && view.fetches <= acknowledged + 1);
	bytes_init(&lines, 64 << 20);
	if (view.fetches > 0) {
		assert_int_equal(queue_read(box->q, "a", 1, SIZE_MAX, &lines, &next, &box->err), 0);
		assert_int_equal(box_count_lines(&lines), view.records);
		at = (const char *)lines.data;
		for (uint64_t seq = 1; seq <= view.records; seq++) {
			char want[32];

			snprintf(want, sizeof want, "\"seq\":%llu,", (unsigned long long)seq);
			at = memmem(at, (size_t)((const char *)lines.data + lines.len - at), want, strlen(want));
			assert_non_null(at);
		}
	}
	bytes_done(&lines);
	box_close(box);
	return view.fetches;
}

static pid_t start_child(struct box *box, int dies_at, int fetches, int *ret_pipe)
{
	int ends[2];
	pid_t child;

	assert_int_equal(pipe(ends), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		close(ends[0]);
		writes = 0;
		die_at = dies_at;
		live(box, ends[1], fetches);
	}
	close(ends[1]);
	*ret_pipe = ends[0];
	return child;
}

static uint64_t last_number(int pipe_end, uint64_t before)
{
	uint64_t number;

	while (read(pipe_end, &number, sizeof number) == sizeof number)
		before = number;
	close(pipe_end);
	return before;
}

/* Dies at each write that there is from the making of the file on, one after the other. */
static void test_death_at_any_write_loses_nothing(void **state)
{
	struct box *box = *state;
	int status, deaths = 0, pipe_end;
	char path[200];

	box_close(box);
	do {
		pid_t child;

		unlink(box->path);
		snprintf(path, sizeof path, "%s-wal", box->path);
		unlink(path);
		snprintf(path, sizeof path, "%s-journal", box->path);
		unlink(path);
		child = start_child(box, ++deaths, 6, &pipe_end);
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_true(WIFEXITED(status) && (WEXITSTATUS(status) == 42 || WEXITSTATUS(status) == 0));
		assert_nothing_lost(box, last_number(pipe_end, 0));
	} while (WEXITSTATUS(status) == 42);
	assert_true(deaths > 30);
}

static int64_t size_of(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 ? st.st_size : 0;
}

/*
 * A power cut while the file is made may leave its length without its content, with the journal beside it: that is no
 * foreign file. Without a journal it is one.
 */
static void test_a_file_cut_short_while_it_was_made(void **state)
{
	static const char zeros[8192];
	struct box *box = *state;
	char journal[200], wal[200];
	struct queue *q;
	FILE *file;

	box_close(box);
	snprintf(journal, sizeof journal, "%s-journal", box->path);
	snprintf(wal, sizeof wal, "%s-wal", box->path);
	for (int at = 1; size_of(box->path) == 0 || size_of(journal) == 0; at++) {
		int status, pipe_end;
		pid_t child;

		unlink(box->path);
		unlink(journal);
		child = start_child(box, at, 1, &pipe_end);
		close(pipe_end);
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_int_equal(WEXITSTATUS(status), 42);
	}
	file = fopen(box->path, "wb");
	assert_int_equal(fwrite(zeros, 1, sizeof zeros, file), sizeof zeros);
	fclose(file);
	box_open(box);
	box_add(box, "a", 0, 1);
	box_close(box);
	file = fopen(box->path, "wb");
	assert_int_equal(fwrite(zeros, 1, sizeof zeros, file), sizeof zeros);
	fclose(file);
	assert_int_equal(unlink(wal), 0);
	assert_int_equal(queue_open(box->path, &box->identity, &q, &box->err), -EMEDIUMTYPE);
}

/* The same file goes through it all; when it strikes is chance. */
static void test_kill_9_loses_nothing(void **state)
{
	struct box *box = *state;
	uint64_t number, there = 0;
	unsigned seed = (unsigned)getpid();

	box_close(box);
	for (int i = 0; i < 10; i++) {
		int status, pipe_end;
		pid_t child = start_child(box, 0, 1000000, &pipe_end);

		for (int wait = rand_r(&seed) % 40; wait >= 0; wait--) {
			assert_int_equal(read(pipe_end, &number, sizeof number), sizeof number);
			assert_int_equal(number, ++there);
		}
		assert_int_equal(kill(child, SIGKILL), 0);
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_true(WIFSIGNALED(status));
		there = assert_nothing_lost(box, last_number(pipe_end, there));
	}
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, box_tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_numbers_are_given_out_in_order),
		TEST(test_small_fetches_of_one_commit_share_a_chunk),
		TEST(test_what_does_not_share_a_chunk),
		TEST(test_a_large_fetch_is_several_chunks_and_one_fetch),
		TEST(test_a_fetch_without_records_moves_state_and_number),
		TEST(test_a_commit_writes_one_row_and_waits_for_the_card),
		TEST(test_opening_makes_the_files_name_durable),
		TEST(test_a_failed_commit_leaves_no_trace_and_may_be_repeated),
		TEST(test_opening_on_a_card_that_takes_nothing),
		TEST(test_death_at_any_write_loses_nothing),
		TEST(test_a_file_cut_short_while_it_was_made),
		TEST(test_kill_9_loses_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
