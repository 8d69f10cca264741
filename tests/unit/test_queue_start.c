/* SPDX-License-Identifier: Apache-2.0 */
/* A buffer that is not open: each call says why, and none does harm. */
#include <sys/stat.h>

#include "queue_box.h"

static const uint8_t sha256[SHA256_SIZE];

static void all_is_refused(struct box *box, int with)
{
	struct fetch *fetch = box_fetch("a", 0, 1, "");
	struct bytes data;
	struct queue_rejected rejected = { .source = "a" };
	struct queue_range range;
	struct queue_damage damage;
	struct batch batch;
	char place[512];
	uint64_t n;
	bool done;

	bytes_init(&data, 1 << 20);
	assert_int_equal(queue_commit(box->q, fetch, &box->err), with);
	assert_int_equal(queue_stage(box->q, "a", fetch->first, &box->err), with);
	assert_int_equal(queue_next_delivery(box->q, "lake", 0, &batch, &box->err), with);
	assert_int_equal(queue_read_part(box->q, 1, 0, &data, &box->err), with);
	assert_int_equal(queue_delivered(box->q, 1, "lake", NOON, &done, &box->err), with);
	assert_int_equal(queue_expire(box->q, NOON, 0, &box->err), with);
	assert_int_equal(queue_drop(box->q, NULL, 0, &batch, &box->err), with);
	assert_int_equal(queue_store_place(box->q, "lake", place, sizeof place, &box->err), with);
	assert_int_equal(queue_set_store_place(box->q, "lake", "/", &box->err), with);
	assert_int_equal(queue_read(box->q, "a", 1, 1, &data, &n, &box->err), with);
	assert_int_equal(queue_reject(box->q, &rejected, &box->err), with);
	assert_int_equal(queue_next_rejected(box->q, "", &rejected, &box->err), with);
	assert_int_equal(queue_batches(box->q, &batch, 1, &box->err), with);
	assert_int_equal(queue_batches_waiting(box->q, 0, &batch, 1, &box->err), with);
	assert_int_equal(queue_find_batch(box->q, 1, &batch, &box->err), with);
	assert_int_equal(queue_books(box->q, "lake", 0, NULL, &range, 1, &box->err), with);
	assert_int_equal(queue_next_damage(box->q, NULL, &damage, &box->err), with);
	assert_int_equal(queue_import_begin(box->q, "source=a/dt=2026-11-21/pi-02-01234567-1-2-01234567.ndjson.gz", 100,
	                                    sha256, &box->err),
	                 with);
	assert_int_equal(queue_deliver_again(box->q, "lake", "a", 1, 2, &n, &box->err), with);
	assert_int_not_equal(box->err.text[0], '\0');
	queue_view_free(queue_view(box->q));
	bytes_done(&data);
	fetch_free(fetch);
}

static void test_before_it_is_open(void **state)
{
	struct box *box = *state;
	char wal[192];

	box_close(box);
	snprintf(wal, sizeof wal, "%s-wal", box->path);
	assert_int_equal(unlink(wal), 0);
	assert_int_equal(unlink(box->path), 0);
	assert_int_equal(mkdir(box->path, 0700), 0);
	box->q = queue_new(box->path, &box->identity);
	box_route(box, 1, 1 << 20, 1000);
	assert_int_equal(queue_start(box->q, true, &box->err), -EISDIR);
	all_is_refused(box, -EISDIR);
	assert_int_equal(rmdir(box->path), 0);
	assert_int_equal(queue_start(box->q, true, &box->err), 0);
	box_add(box, "a", 0, 1);
	assert_int_equal(box_seal(box, 0, true), 1);
}

/* It is damaged, and there is no way of salvaging it now. */
static void test_while_it_cannot_be_salvaged(void **state)
{
	struct box *box = *state;
	char elsewhere[192];
	struct queue_rejected rejected;

	box_route(box, 1, 1 << 20, 1000);
	box_add(box, "a", 0, 2);
	box_add(box, "b", 0, 2);
	assert_int_equal(box_seal(box, 0, true), 1);
	rejected = (struct queue_rejected){ .source = "a", .cause = "x", .text = "y" };
	assert_int_equal(queue_reject(box->q, &rejected, &box->err), 0);
	box_close(box);
	box_ask(box, "UPDATE rejected SET cause = 'z'");
	box_open(box);
	box_route(box, 1, 1 << 20, 1000);
	assert_int_equal(queue_next_rejected(box->q, "", &rejected, &box->err), -EBADMSG);
	all_is_refused(box, -EBADMSG);
	snprintf(elsewhere, sizeof elsewhere, "%s-elsewhere", box->folder);
	assert_int_equal(rename(box->folder, elsewhere), 0);
	assert_int_equal(queue_start(box->q, true, &box->err), -ENOENT);
	all_is_refused(box, -ENOENT);
	assert_int_equal(rename(elsewhere, box->folder), 0);
	assert_int_equal(queue_start(box->q, true, &box->err), 1);
	assert_int_equal(box_view(box, "a").records, 2);
	assert_int_equal(box_view(box, "b").records, 2);
	assert_int_equal(box_seal(box, 0, true), 1);
}

/* What closed it is gone: what is left of it is kept all the same. */
static void test_the_end_of_a_large_answer_is_damaged(void **state)
{
	struct box *box = *state;
	struct bytes object, lines;
	uint64_t kept;

	box_route(box, 1, 64 << 20, 100000);
	assert_int_equal(box_commit(box, box_fetch("a", 0, 30000, "")), 0);
	box_close(box);
	assert_in_range(box_ask(box, "SELECT count(*) FROM chunk"), 2, 100);
	box_ask(box, "UPDATE chunk SET data = x'00' WHERE id = (SELECT max(id) FROM chunk)");
	box->q = queue_new(box->path, &box->identity);
	box_route(box, 1, 64 << 20, 100000);
	if (queue_start(box->q, true, &box->err) == 0) {
		assert_int_equal(box_seal(box, 0, true), -EBADMSG);
		assert_int_equal(queue_start(box->q, true, &box->err), 1);
	}
	assert_int_equal(queue_next_delivery(box->q, "lake", 0, &box->batch, &box->err), 0);
	kept = box->batch.records;
	assert_in_range(kept, 10000, 29999);
	assert_int_equal(queue_last_salvage(box->q)->open_ends, 1);
	box_object(box, box->batch.id, &object, &lines);
	assert_int_equal(box_count_lines(&lines), kept);
	assert_memory_equal(lines.data, "{\"source\":\"a\"", 13);
	bytes_done(&object);
	bytes_done(&lines);
	box_add(box, "a", 0, 1);
	assert_int_equal(box_seal(box, 0, true), 1);
	assert_int_equal(box->batch.first_seq, kept + 1);
}

static bool is_there(const char *path, const char *suffix)
{
	char name[256];

	snprintf(name, sizeof name, "%s%s", path, suffix);
	return access(name, F_OK) == 0;
}

/* All stands beside the file, which need not be there yet. */
static void test_a_link(void **state)
{
	struct box *box = *state;
	char link[160], target[160];

	snprintf(link, sizeof link, "%s/link.db", box->folder);
	snprintf(target, sizeof target, "%s/elsewhere", box->folder);
	assert_int_equal(mkdir(target, 0700), 0);
	assert_int_equal(symlink("elsewhere/buffer.db", link), 0);
	box_close(box);
	snprintf(box->path, sizeof box->path, "%s", link);
	box_open(box);
	box_add(box, "a", 0, 1);
	snprintf(target, sizeof target, "%s/elsewhere/buffer.db", box->folder);
	assert_true(is_there(target, "") && is_there(target, "-wal") && !is_there(link, "-wal"));
	box_reopen(box);
	assert_int_equal(box_view(box, "a").records, 1);
}

static void test_a_link_to_itself(void **state)
{
	struct box *box = *state;

	box_close(box);
	snprintf(box->path, sizeof box->path, "%s/link.db", box->folder);
	assert_int_equal(symlink("link.db", box->path), 0);
	assert_int_equal(box_try(box), -ELOOP);
}

/* Nothing is acknowledged that would be gone with the process. */
static void test_files_that_are_taken_away(void **state)
{
	static const char *const suffixes[] = { "", "-wal" };
	struct box *box = *state;
	char path[192], away[224];

	box_add(box, "a", 0, 1);
	for (size_t i = 0; i < 2; i++) {
		snprintf(path, sizeof path, "%s%s", box->path, suffixes[i]);
		snprintf(away, sizeof away, "%s.away", path);
		assert_int_equal(rename(path, away), 0);
		assert_int_equal(box_commit(box, box_fetch("a", 0, 1, "")), -EIO);
		assert_non_null(strstr(box->err.text, "was removed or replaced"));
		assert_int_equal(box_view(box, "a").records, i + 1);
		assert_int_equal(rename(away, path), 0);
		box_add(box, "a", 0, 1);
	}
	box_reopen(box);
	assert_int_equal(box_view(box, "a").records, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOX_TEST(test_before_it_is_open),
		BOX_TEST(test_while_it_cannot_be_salvaged),
		BOX_TEST(test_the_end_of_a_large_answer_is_damaged),
		BOX_TEST(test_a_link),
		BOX_TEST(test_a_link_to_itself),
		BOX_TEST(test_files_that_are_taken_away),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
