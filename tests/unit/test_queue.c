/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening, owning, refusing; configuration and figures. The other tests of the queue: test_queue_*.c. The definitions
 * of open, pwrite64 and ftruncate64 take the place of the C library's in this program, SQLite included.
 */
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "buffer/schema.h"
#include "tests/unit/queue_box.h"

static int open_errno;  /* what opening for writing fails with; 0: it works */
static int write_errno; /* what each write fails with; 0: it works */
static int writes;

int open(const char *path, int flags, ...)
{
	va_list args;
	int mode;

	va_start(args, flags);
	mode = flags & O_CREAT ? va_arg(args, int) : 0;
	va_end(args);
	if (open_errno != 0 && (flags & O_ACCMODE) != O_RDONLY) {
		errno = open_errno;
		return -1;
	}
	return (int)syscall(SYS_openat, AT_FDCWD, path, flags | O_LARGEFILE, mode);
}

ssize_t pwrite64(int fd, const void *data, size_t len, off64_t at)
{
	writes++;
	if (write_errno != 0) {
		errno = write_errno;
		return -1;
	}
	return syscall(SYS_pwrite64, fd, data, len, at);
}

int ftruncate64(int fd, off64_t len)
{
	writes++;
	return (int)syscall(SYS_ftruncate, fd, len);
}

static int set_up(void **state)
{
	open_errno = write_errno = 0;
	return box_set_up(state);
}

static void read_all(const char *path, struct bytes *ret_content)
{
	FILE *file = fopen(path, "rb");
	int c;

	assert_non_null(file);
	bytes_init(ret_content, 1 << 20);
	while ((c = getc(file)) != EOF) {
		char byte = (char)c;

		assert_int_equal(bytes_add(ret_content, &byte, 1), 0);
	}
	fclose(file);
}

/* Tries to open the file, which must be refused with this and stay byte for byte as it is, with nothing beside it. */
static void assert_refused(struct box *box, int status, const char *text)
{
	struct queue *q = NULL;
	struct bytes before, after;
	char beside[200];

	read_all(box->path, &before);
	assert_int_equal(queue_open(box->path, &box->identity, &q, &box->err), status);
	assert_null(q);
	assert_non_null(strstr(box->err.text, text));
	read_all(box->path, &after);
	assert_int_equal(before.len, after.len);
	assert_memory_equal(before.data, after.data, before.len);
	snprintf(beside, sizeof beside, "%s-wal", box->path);
	assert_int_equal(access(beside, F_OK), -1);
	bytes_done(&before);
	bytes_done(&after);
}

static void remove_buffer(struct box *box)
{
	char beside[200];

	box_close(box);
	assert_int_equal(unlink(box->path), 0);
	snprintf(beside, sizeof beside, "%s-wal", box->path);
	assert_int_equal(unlink(beside), 0);
}

static void test_the_file_is_what_was_decided(void **state)
{
	struct box *box = *state;
	char beside[200];

	snprintf(beside, sizeof beside, "%s-shm", box->path);
	box_add(box, "parking", 0, 9);
	assert_int_equal(access(beside, F_OK), -1);
	box_close(box);
	assert_int_equal(access(beside, F_OK), -1);
	snprintf(beside, sizeof beside, "%s-wal", box->path);
	assert_int_equal(access(beside, F_OK), 0); /* stays grown */
	assert_int_equal(box_ask(box, "PRAGMA application_id"), 0x4d696c6c);
	assert_int_equal(box_ask(box, "PRAGMA user_version"), buffer_schema_count);
	assert_int_equal(box_ask(box, "PRAGMA page_size"), 4096);
	assert_int_equal(box_ask(box, "PRAGMA auto_vacuum"), 0);
	assert_int_equal(box_ask(box, "SELECT count(*) FROM pragma_journal_mode WHERE journal_mode = 'wal'"), 1);
}

static void test_a_reopened_buffer_goes_on(void **state)
{
	struct box *box = *state;
	struct fetch *fetch;

	box_add(box, "parking", 0, 9);
	box_add(box, "weather", 10, 1);
	box_add(box, "parking", 20, 9);
	for (int i = 0; i < 2; i++) {
		struct queue_source_view view;

		view = box_view(box, "parking");
		assert_int_equal(view.records, 18);
		assert_int_equal(view.fetches, 2);
		assert_int_equal(view.unsealed_records, 18);
		assert_true(view.unsealed_bytes > 18 * 100);
		assert_true(view.oldest_ms == NOON);
		box_assert_state(box, "parking", "parking@20");
		box_assert_state(box, "weather", "weather@10");
		box_assert_state(box, "nobody", "");
		box_reopen(box);
	}
	fetch = box_fetch("parking", 30, 2, "");
	assert_int_equal(queue_commit(box->q, fetch, &box->err), 0);
	assert_int_equal(fetch->number, 3);
	assert_int_equal(fetch->first_seq, 19);
	fetch_free(fetch);
}

static void test_boot_is_the_kernels_and_the_buffers(void **state)
{
	struct box *box = *state;
	char boot[OBJECT_BOOT];
	struct queue_view *view = queue_view(box->q);

	memcpy(boot, view->boot, sizeof boot);
	assert_int_equal(strspn(boot, "0123456789abcdef"), 8);
	assert_string_equal(view->device, "pi-01");
	queue_view_free(view);
	box_reopen(box);
	view = queue_view(box->q);
	assert_string_equal(view->boot, boot);
	queue_view_free(view);
	box->identity.kernel_boot_id = BOOT_B;
	box_reopen(box);
	view = queue_view(box->q);
	assert_string_not_equal(view->boot, boot);
	queue_view_free(view);
	/* A new card at the same boot: another id, another name. */
	box->identity.kernel_boot_id = BOOT_A;
	remove_buffer(box);
	box_open(box);
	view = queue_view(box->q);
	assert_string_not_equal(view->boot, boot);
	queue_view_free(view);
}

static void write_file(const char *path, const void *data, size_t len)
{
	FILE *file = fopen(path, "wb");

	assert_non_null(file);
	assert_int_equal(fwrite(data, 1, len, file), len);
	fclose(file);
}

static void test_foreign_files_are_refused(void **state)
{
	struct box *box = *state;
	sqlite3 *db;

	remove_buffer(box);
	write_file(box->path, "a letter to my grandmother, not a database", 42);
	assert_refused(box, -EMEDIUMTYPE, "no buffer of Millrace");
	write_file(box->path, "x", 1);
	assert_refused(box, -EMEDIUMTYPE, "no buffer of Millrace");
	write_file(box->path, "", 0);
	assert_int_equal(sqlite3_open(box->path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "PRAGMA journal_mode = WAL; CREATE TABLE t (x)", NULL, NULL, NULL), 0);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	assert_refused(box, -EMEDIUMTYPE, "no buffer of Millrace");
}

static void test_an_empty_file_is_a_new_buffer(void **state)
{
	struct box *box = *state;

	remove_buffer(box);
	write_file(box->path, "", 0);
	box_open(box);
	box_add(box, "parking", 0, 1);
}

static void test_a_newer_schema_is_refused(void **state)
{
	struct box *box = *state;
	char beside[200];

	box_add(box, "parking", 0, 1);
	box_close(box);
	/* A close takes the WAL away. A number alone would be damage: a newer schema has something that ours has not.
	 */
	box_ask(box, "CREATE TABLE future (x)");
	box_ask(box, "PRAGMA user_version = 99");
	snprintf(beside, sizeof beside, "%s-wal", box->path);
	assert_int_equal(access(beside, F_OK), -1);
	assert_refused(box, -EPROTONOSUPPORT, "schema 99");
}

/* The same, told by the WAL alone: the file's own header is older. */
static void test_a_newer_schema_in_the_wal_is_refused(void **state)
{
	struct box *box = *state;
	struct bytes before, after, wal_before, wal_after;
	char wal[200];
	sqlite3 *db;
	int on = 1;

	box_close(box);
	snprintf(wal, sizeof wal, "%s-wal", box->path);
	assert_int_equal(sqlite3_open(box->path, &db), SQLITE_OK);
	sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	sqlite3_file_control(db, NULL, SQLITE_FCNTL_PERSIST_WAL, &on);
	assert_int_equal(sqlite3_exec(db, "PRAGMA locking_mode = EXCLUSIVE; PRAGMA user_version = 7", NULL, NULL, NULL),
	                 0);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	read_all(box->path, &before);
	read_all(wal, &wal_before);
	assert_int_equal(before.data[63], buffer_schema_count);
	assert_int_equal(queue_open(box->path, &box->identity, &box->q, &box->err), -EPROTONOSUPPORT);
	read_all(box->path, &after);
	read_all(wal, &wal_after);
	assert_int_equal(before.len, after.len);
	assert_memory_equal(before.data, after.data, before.len);
	assert_int_equal(wal_before.len, wal_after.len);
	assert_memory_equal(wal_before.data, wal_after.data, wal_before.len);
	bytes_done(&before);
	bytes_done(&after);
	bytes_done(&wal_before);
	bytes_done(&wal_after);
}

static void test_folders_that_are_not_there(void **state)
{
	struct box *box = *state;
	struct queue *q = NULL;
	char path[200];

	snprintf(path, sizeof path, "%s/missing/buffer.db", box->folder);
	assert_int_equal(queue_open(path, &box->identity, &q, &box->err), -ENOENT);
	assert_non_null(strstr(box->err.text, "/missing\" of the buffer does not exist: create it (mkdir -p /"));
	assert_int_equal(queue_open(box->folder, &box->identity, &q, &box->err), -EISDIR);
	assert_non_null(strstr(box->err.text, "is a folder: name a file in it"));
	snprintf(path, sizeof path, "%s/x", box->path);
	assert_int_equal(queue_open(path, &box->identity, &q, &box->err), -ENOTDIR);
	if (geteuid() == 0)
		return; /* root may write everywhere */
	assert_int_equal(chmod(box->folder, 0500), 0);
	snprintf(path, sizeof path, "%s/other.db", box->folder);
	assert_int_equal(queue_open(path, &box->identity, &q, &box->err), -EACCES);
	assert_non_null(strstr(box->err.text, "this user must be able to write there"));
	assert_int_equal(chmod(box->folder, 0700), 0);
}

/* The owner is this process, the one that is refused a child. */
static void test_a_second_owner_is_refused_with_the_firsts_pid(void **state)
{
	struct box *box = *state;
	char pid[32];
	int status;
	pid_t child;

	box_add(box, "parking", 0, 1);
	snprintf(pid, sizeof pid, "process %ld", (long)getpid());
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		struct queue *q = NULL;
		int r = queue_open(box->path, &box->identity, &q, &box->err);

		_exit(r != -EBUSY ? 1 : !strstr(box->err.text, pid) ? 2 : 0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	box_add(box, "parking", 1, 1); /* still ours */
}

/* Every byte of a row counts. */
static void test_a_flipped_byte_is_found(void **state)
{
	static const char *const damage[] = {
		"UPDATE chunk SET data = CAST(substr(data, 1, 9) || x'00' || substr(data, 11) AS BLOB)",
		"UPDATE chunk SET lines = lines + 1",
		"UPDATE chunk SET boot = '00000000'",
		"UPDATE chunk SET state = x''",
		"UPDATE source SET state = x'01'",
		"UPDATE source SET fetch = fetch + 1",
		"UPDATE buffer SET id = '0123456789abcdef0123456789abcdef'",
	};
	struct box *box = *state;

	for (size_t i = 0; i < sizeof damage / sizeof *damage; i++) {
		const char *table = strchr(damage[i], ' ') + 1;
		char name[32];

		box_add(box, "parking", 0, 9);
		box_close(box);
		box_ask(box, damage[i]);
		snprintf(name, sizeof name, "damaged: %.*s ", (int)strcspn(table, " "), table);
		assert_int_equal(box_try(box), -EBADMSG);
		assert_non_null(strstr(box->err.text, name));
		assert_non_null(strstr(box->err.text, "checksum"));
		assert_int_equal(unlink(box->path), 0);
		box_open(box);
	}
}

static void test_a_lost_chunk_is_found(void **state)
{
	struct box *box = *state;

	for (int i = 0; i < 3; i++)
		box_add(box, "parking", i, 9);
	box_close(box);
	box_ask(box, "DELETE FROM chunk WHERE id = (1 << 40) + 10");
	assert_int_equal(box_try(box), -EBADMSG);
	assert_non_null(strstr(box->err.text, "does not follow"));
}

static void test_configure_makes_sources_known(void **state)
{
	struct box *box = *state;
	static const char *const stores[] = { "lake", "disk" }, *const lake[] = { "lake" }, *const wrong[] = { "lak" };
	struct queue_route routes[] = {
		{ .source = "a", .max_bytes = 1 << 20, .max_records = 10, .max_age_ms = 1000 },
		{ .source = "b",
		  .max_bytes = 1 << 20,
		  .max_records = 10,
		  .max_age_ms = 1000,
		  .stores = lake,
		  .n_stores = 1 },
	};
	struct queue_route bad = { .source = "c", .max_bytes = 1, .max_records = 1, .stores = wrong, .n_stores = 1 };
	struct queue_view *view;
	struct bytes lines;
	uint64_t next = 0;

	bytes_init(&lines, 1 << 20);
	assert_int_equal(queue_configure(box->q, stores, 2, routes, 2, &routes[0], &box->err), 0);
	view = queue_view(box->q);
	assert_int_equal(view->n_sources, 2);
	assert_int_equal(view->n_stores, 2);
	assert_string_equal(view->sources[1].source, "b");
	assert_string_equal(view->stores[1].store, "disk");
	queue_view_free(view);
	assert_int_equal(queue_configure(box->q, stores, 1, &bad, 1, &routes[0], &box->err), -EINVAL);
	assert_string_equal(box->err.text, "source \"c\": there is no store \"lak\"");
	view = queue_view(box->q);
	assert_int_equal(view->n_sources, 2); /* not "c" */
	queue_view_free(view);
	assert_int_equal(queue_read(box->q, "c", 1, 1, &lines, &next, &box->err), -ENOENT);
	assert_int_equal(queue_read(box->q, "a", 1, 1, &lines, &next, &box->err), 0);
	assert_int_equal(lines.len, 0);
	assert_int_equal(next, 1);
	box_add(box, "b", 0, 1);
	box_reopen(box);
	view = queue_view(box->q);
	assert_int_equal(view->n_sources, 1); /* a row comes with the first commit */
	assert_string_equal(view->sources[0].source, "b");
	queue_view_free(view);
	queue_view_free(NULL);
	assert_int_equal(queue_configure(box->q, stores, 2, routes, 1, &routes[0], &box->err), 0);
	view = queue_view(box->q);
	assert_int_equal(view->n_sources, 2);
	assert_true(view->file_bytes > 0 && view->wal_bytes > 0);
	queue_view_free(view);
}

/* Start and end with a card that takes nothing any more. */
/* Names that come and go with the configuration: those of before never keep the ones of now out. */
static void test_names_that_are_gone_do_not_count(void **state)
{
	static struct queue_route routes[4097];
	static const char *const stores[] = { "lake" };
	struct queue_route fallback = { .max_bytes = 1000, .max_records = 10, .max_age_ms = MINUTE };
	struct box *box = *state;
	struct fetch *fetches = NULL;
	struct queue_view *view;

	for (int i = 0; i < 4097; i++) {
		routes[i] = fallback;
		snprintf(routes[i].source, sizeof routes[i].source, "s%d", i);
	}
	assert_int_equal(queue_configure(box->q, stores, 1, routes, 4097, &fallback, &box->err), -ENOBUFS);
	assert_int_equal(queue_configure(box->q, stores, 1, routes, 4096, &fallback, &box->err), 0);
	assert_int_equal(queue_configure(box->q, stores, 1, &routes[4096], 1, &fallback, &box->err), 0);
	view = queue_view(box->q);
	assert_int_equal(view->n_sources, 1);
	queue_view_free(view);
	assert_int_equal(queue_configure(box->q, stores, 1, routes, 4096, &fallback, &box->err), 0);
	for (int i = 0; i < 4096; i++) {
		struct fetch *fetch = box_fetch(routes[i].source, 0, 1, "");

		fetch->next = fetches;
		fetches = fetch;
	}
	assert_int_equal(box_commit(box, fetches), 0);
	assert_int_equal(queue_configure(box->q, stores, 1, &routes[4096], 1, &fallback, &box->err), 0);
	box_add(box, "s4096", 0, 1);
	box_reopen(box);
	assert_int_equal(queue_configure(box->q, stores, 1, &routes[4096], 1, &fallback, &box->err), 0);
	assert_int_equal(queue_configure(box->q, stores, 1, routes, 4096, &fallback, &box->err), 0);
	box_add(box, "s0", 0, 1);
	assert_int_equal(box_view(box, "s0").records, 2); /* its numbers go on */
}

static void test_a_full_card_starts_and_ends(void **state)
{
	static const int errors[] = { ENOSPC, EROFS, EIO };
	struct box *box = *state;
	static const char *const stores[] = { "lake" };
	struct queue_route route = { .source = "new", .max_bytes = 1 << 20, .max_records = 10, .max_age_ms = 1000 };
	struct queue_view *view;

	box_add(box, "parking", 0, 9);
	for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
		write_errno = errors[i];
		box_reopen(box);
		assert_int_equal(queue_configure(box->q, stores, 1, &route, 1, &route, &box->err), 0);
		view = queue_view(box->q);
		assert_int_equal(view->n_sources, 2);
		assert_string_equal(view->sources[1].source, "new");
		queue_view_free(view);
	}
	write_errno = 0;
	box_add(box, "new", 0, 1);
	box_reopen(box);
	assert_int_equal(box_view(box, "new").records, 1);
}

/* All but its commits: a slow card is not waited for at the end. */
static void test_open_configure_and_close_write_nothing(void **state)
{
	struct box *box = *state;

	box_route(box, 1, 1 << 20, 10);
	box_add(box, "parking", 0, 9);
	writes = 0;
	box_reopen(box);
	box_route(box, 2, 1 << 20, 10);
	box_close(box);
	assert_int_equal(writes, 0);
}

/* A batch that became done while the card was full waits no more, and its row is told when the card takes it. */
static void test_a_judgement_that_cannot_be_written(void **state)
{
	struct box *box = *state;
	struct batch batches[4];
	struct queue_view *view;
	int64_t one, two;
	bool done = false;

	for (int way = 0; way < 2; way++) {
		box_route(box, 2, 1 << 20, 10);
		box_add(box, "a", 0, 3);
		assert_int_equal(box_seal(box, 0, true), 1);
		one = box->batch.id;
		box_add(box, "a", 0, 3);
		assert_int_equal(box_seal(box, 0, true), 1);
		two = box->batch.id;
		assert_int_equal(queue_delivered(box->q, one, "lake", NOON + 7, &done, &box->err), 0);
		write_errno = ENOSPC;
		box_route(box, 1, 1 << 20, 10);
		assert_int_equal(box_view(box, "a").waiting_batches, 1);
		view = queue_view(box->q);
		assert_int_equal(view->stores[0].waiting_batches, 1);
		queue_view_free(view);
		assert_int_equal(queue_next_delivery(box->q, "lake", 0, &box->batch, &box->err), 0);
		assert_int_equal(box->batch.id, two);
		assert_int_equal(queue_batches(box->q, batches, 4, &box->err), 2 + 2 * way);
		assert_true(batches[1].delivered_ms == 0);
		assert_int_equal(queue_delivered(box->q, two, "lake", NOON + 9, &done, &box->err), -ENOSPC);
		write_errno = 0;
		if (way == 0)
			box_route(box, 1, 1 << 20, 10);
		else
			assert_int_equal(queue_delivered(box->q, two, "lake", NOON + 9, &done, &box->err), 0);
		assert_int_equal(queue_batches(box->q, batches, 4, &box->err), 2 + 2 * way);
		assert_true(batches[1].delivered_ms == NOON + 7);
		assert_int_equal(queue_delivered(box->q, two, "lake", NOON + 9, &done, &box->err), 0);
		assert_true(done);
		assert_int_equal(box_view(box, "a").waiting_batches, 0);
		box_reopen(box);
		assert_int_equal(box_view(box, "a").waiting_batches, 0);
	}
}

static void test_a_read_only_file_system(void **state)
{
	struct box *box = *state;

	box_add(box, "parking", 0, 9);
	box_close(box);
	open_errno = EROFS;
	assert_int_equal(queue_open(box->path, &box->identity, &box->q, &box->err), -EROFS);
	open_errno = 0;
	assert_null(box->q);
	assert_non_null(strstr(box->err.text, box->path));
	assert_non_null(strstr(box->err.text, "is on a file system that is read-only: remount it"));
	box_open(box);
}

/* Found at the very end of the loading, when the WAL holds all there is. */
static void test_a_damaged_file_is_left_unchanged(void **state)
{
	static const char *const damage[] = { "UPDATE chunk SET crc = 1",
		                              "DELETE FROM buffer; UPDATE chunk SET crc = 1" };
	struct box *box = *state;
	char wal[200];

	snprintf(wal, sizeof wal, "%s-wal", box->path);
	for (size_t i = 0; i < 2; i++) {
		struct bytes before[2], after[2];
		sqlite3 *db;
		int on = 1;

		box_add(box, "parking", 0, 9);
		box_close(box);
		assert_int_equal(sqlite3_open(box->path, &db), SQLITE_OK);
		sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
		sqlite3_file_control(db, NULL, SQLITE_FCNTL_PERSIST_WAL, &on);
		assert_int_equal(sqlite3_exec(db, "PRAGMA locking_mode = EXCLUSIVE", NULL, NULL, NULL), 0);
		assert_int_equal(sqlite3_exec(db, damage[i], NULL, NULL, NULL), 0);
		assert_int_equal(sqlite3_close(db), SQLITE_OK);
		read_all(box->path, &before[0]);
		read_all(wal, &before[1]);
		assert_int_equal(box_try(box), -EBADMSG);
		read_all(box->path, &after[0]);
		read_all(wal, &after[1]);
		for (int j = 0; j < 2; j++) {
			assert_int_equal(before[j].len, after[j].len);
			assert_memory_equal(before[j].data, after[j].data, before[j].len);
			bytes_done(&before[j]);
			bytes_done(&after[j]);
		}
		remove_buffer(box);
		box_open(box);
	}
}

static void test_places_of_stores_are_remembered(void **state)
{
	struct box *box = *state;
	char place[512], long_place[600];

	assert_int_equal(queue_store_place(box->q, "lake", place, sizeof place, &box->err), 0);
	assert_string_equal(place, "");
	assert_int_equal(queue_set_store_place(box->q, "lake", "/mnt/usb", &box->err), 0);
	assert_int_equal(queue_set_store_place(box->q, "lake", "/mnt/usb2", &box->err), 0);
	assert_int_equal(queue_set_store_place(box->q, "disk", "/mnt/usb", &box->err), 0);
	box_reopen(box);
	assert_int_equal(queue_store_place(box->q, "lake", place, sizeof place, &box->err), 0);
	assert_string_equal(place, "/mnt/usb2");
	memset(long_place, 'x', sizeof long_place);
	long_place[512] = '\0';
	assert_int_equal(queue_set_store_place(box->q, "lake", long_place, &box->err), -ENAMETOOLONG);
	long_place[511] = '\0';
	assert_int_equal(queue_set_store_place(box->q, "lake", long_place, &box->err), 0);
	assert_int_equal(queue_store_place(box->q, "lake", place, sizeof place, &box->err), 0);
	assert_string_equal(place, long_place);
}

/* Who was delivered to stands at some place: no empty folder is taken for it. */
static void test_a_place_that_is_lost(void **state)
{
	struct box *box = *state;
	char place[512];
	bool done;

	box_route(box, 1, 1 << 20, 1000);
	box_add(box, "a", 0, 1);
	assert_int_equal(box_seal(box, 0, true), 1);
	assert_int_equal(queue_set_store_place(box->q, "lake", "/mnt/usb", &box->err), 0);
	assert_int_equal(queue_delivered(box->q, box->batch.id, "lake", NOON, &done, &box->err), 0);
	box_close(box);
	box_ask(box, "DELETE FROM store");
	box_open(box);
	assert_int_equal(queue_store_place(box->q, "lake", place, sizeof place, &box->err), 0);
	assert_string_equal(place, QUEUE_PLACE_LOST);
	assert_int_equal(queue_store_place(box->q, "disk", place, sizeof place, &box->err), 0);
	assert_string_equal(place, "");
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, box_tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_the_file_is_what_was_decided),
		TEST(test_a_reopened_buffer_goes_on),
		TEST(test_boot_is_the_kernels_and_the_buffers),
		TEST(test_foreign_files_are_refused),
		TEST(test_an_empty_file_is_a_new_buffer),
		TEST(test_a_newer_schema_is_refused),
		TEST(test_a_newer_schema_in_the_wal_is_refused),
		TEST(test_folders_that_are_not_there),
		TEST(test_a_second_owner_is_refused_with_the_firsts_pid),
		TEST(test_a_flipped_byte_is_found),
		TEST(test_a_lost_chunk_is_found),
		TEST(test_configure_makes_sources_known),
		TEST(test_names_that_are_gone_do_not_count),
		TEST(test_a_full_card_starts_and_ends),
		TEST(test_open_configure_and_close_write_nothing),
		TEST(test_a_judgement_that_cannot_be_written),
		TEST(test_a_read_only_file_system),
		TEST(test_a_damaged_file_is_left_unchanged),
		TEST(test_places_of_stores_are_remembered),
		TEST(test_a_place_that_is_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
