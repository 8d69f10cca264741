/* SPDX-License-Identifier: Apache-2.0 */
/* The definitions of fsync and linkat below take the place of the C library's in this program. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "buffer/store_file.h"

#define KEY "source=s/dt=2026-11-21/pi-9f8e7d6c-1-2-00000000.ndjson.gz"

static int link_errno; /* what linkat fails with; 0: it works */
static char synced[4096];
static int fsync_fails_at, fsyncs;

int fsync(int fd)
{
	char link[64], path[512];
	ssize_t n;

	if (++fsyncs == fsync_fails_at) {
		errno = EIO;
		return -1;
	}
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof path);
	if (n > 0)
		snprintf(synced + strlen(synced), sizeof synced - strlen(synced), "%.*s\n", (int)n, path);
	return (int)syscall(SYS_fsync, fd);
}

int linkat(int from, const char *old, int to, const char *new, int flags)
{
	if (link_errno != 0) {
		errno = link_errno;
		return -1;
	}
	return (int)syscall(SYS_linkat, from, old, to, new, flags);
}

struct box {
	char root[128], folder[160];
	struct store *store;
	struct err err;
};

static int set_up(void **state)
{
	struct box *box = calloc(1, sizeof *box);
	const char *tmp = getenv("TMPDIR");

	snprintf(box->root, sizeof box->root, "%s/millrace-test-XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(box->root));
	snprintf(box->folder, sizeof box->folder, "%s/lake", box->root);
	assert_int_equal(mkdir(box->folder, 0755), 0);
	box->store = store_file_new(box->folder, false);
	assert_non_null(box->store);
	link_errno = fsync_fails_at = fsyncs = 0;
	synced[0] = '\0';
	*state = box;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static int tear_down(void **state)
{
	struct box *box = *state;

	box->store->ops->free(box->store);
	nftw(box->root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	free(box);
	return 0;
}

static char *at(const struct box *box, const char *name)
{
	static char path[512];

	snprintf(path, sizeof path, "%s/%s", box->folder, name);
	return path;
}

static void digest(const char *text, uint8_t ret_sha256[SHA256_SIZE])
{
	struct sha256 hash;

	sha256_init(&hash);
	sha256_add(&hash, text, strlen(text));
	sha256_finish(&hash, ret_sha256);
}

static int start(struct box *box, const char *key, const char *text)
{
	uint8_t sha256[SHA256_SIZE];

	digest(text, sha256);
	return box->store->ops->begin(box->store, key, strlen(text), sha256, &box->err);
}

static int put(struct box *box, const char *key, const char *text)
{
	const struct store_ops *ops = box->store->ops;
	size_t half = strlen(text) / 2;
	int r = start(box, key, text);

	if (r == 0)
		r = ops->write(box->store, text, half, &box->err);
	if (r == 0)
		r = ops->write(box->store, text + half, strlen(text) - half, &box->err);
	if (r == 0)
		r = ops->finish(box->store, &box->err);
	return r;
}

static void assert_holds(const char *path, const char *text)
{
	char content[256];
	FILE *file = fopen(path, "rb");
	size_t n;

	assert_non_null(file);
	n = fread(content, 1, sizeof content - 1, file);
	content[n] = '\0';
	fclose(file);
	assert_string_equal(content, text);
}

static int count_files(const char *folder)
{
	DIR *dir = opendir(folder);
	int n = 0;

	assert_non_null(dir);
	for (struct dirent *entry; (entry = readdir(dir));)
		n += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
	closedir(dir);
	return n;
}

static void test_an_object_stands_whole_and_durable(void **state)
{
	struct box *box = *state;
	const char *file, *folder;

	assert_int_equal(box->store->ops->probe(box->store, false, &box->err), 0);
	synced[0] = '\0';
	assert_int_equal(put(box, KEY, "hello"), 0);
	assert_holds(at(box, KEY), "hello");
	assert_int_equal(count_files(at(box, "source=s/dt=2026-11-21")), 1);
	/* Each folder that got an entry, the file, and its folder after it had its name. */
	assert_non_null(strstr(synced, "/lake\n"));
	assert_non_null(strstr(synced, "/lake/source=s\n"));
	file = strstr(synced, "ndjson.gz.tmp\n");
	folder = strstr(synced, "/dt=2026-11-21\n");
	assert_non_null(file);
	assert_non_null(folder);
	assert_true(file < folder);
}

/* A second object of a day does not sync the way up again. */
static void test_the_way_up_is_synced_once(void **state)
{
	struct box *box = *state;

	assert_int_equal(box->store->ops->probe(box->store, false, &box->err), 0);
	assert_int_equal(put(box, KEY, "hello"), 0);
	synced[0] = '\0';
	assert_int_equal(put(box, "source=s/dt=2026-11-21/another.ndjson.gz", "hello"), 0);
	assert_null(strstr(synced, "/lake\n"));
	assert_non_null(strstr(synced, "/dt=2026-11-21\n"));
	/* But a folder that another run made may not be durable yet. */
	assert_int_equal(mkdir(at(box, "source=t"), 0755), 0);
	assert_int_equal(mkdir(at(box, "source=t/dt=2026-11-22"), 0755), 0);
	assert_int_equal(put(box, "source=t/dt=2026-11-22/x.ndjson.gz", "hello"), 0);
	assert_non_null(strstr(synced, "/lake\n"));
	assert_non_null(strstr(synced, "/lake/source=t\n"));
}

static void test_again_is_a_success_and_other_bytes_are_not(void **state)
{
	struct box *box = *state;

	assert_int_equal(box->store->ops->probe(box->store, false, &box->err), 0);
	assert_int_equal(put(box, KEY, "hello"), 0);
	assert_int_equal(put(box, KEY, "hello"), 0);
	assert_int_equal(put(box, KEY, "jello"), -EEXIST);
	assert_non_null(strstr(box->err.text, KEY));
	assert_non_null(strstr(box->err.text, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"));
	assert_holds(at(box, KEY), "hello");
	assert_int_equal(count_files(at(box, "source=s/dt=2026-11-21")), 1);
}

static void test_a_file_system_without_links(void **state)
{
	struct box *box = *state;

	assert_int_equal(box->store->ops->probe(box->store, false, &box->err), 0);
	link_errno = EPERM;
	assert_int_equal(put(box, KEY, "hello"), 0);
	assert_holds(at(box, KEY), "hello");
	assert_int_equal(put(box, KEY, "hello"), 0);
	assert_int_equal(put(box, KEY, "jello"), -EEXIST);
	assert_holds(at(box, KEY), "hello");
	assert_int_equal(count_files(at(box, "source=s/dt=2026-11-21")), 1);
	link_errno = ENOSPC;
	assert_int_equal(put(box, "source=s/dt=2026-11-21/b", "hello"), -ENOSPC);
	assert_int_equal(count_files(at(box, "source=s/dt=2026-11-21")), 1);
}

static void test_what_a_killed_run_left_is_written_over(void **state)
{
	struct box *box = *state;
	FILE *file;

	assert_int_equal(box->store->ops->probe(box->store, false, &box->err), 0);
	assert_int_equal(start(box, KEY, "hello"), 0);
	box->store->ops->abort(box->store);
	assert_int_equal(count_files(at(box, "source=s/dt=2026-11-21")), 0);
	file = fopen(at(box, KEY ".tmp"), "wb");
	assert_non_null(file);
	assert_true(fputs("much longer than what comes", file) >= 0);
	fclose(file);
	assert_int_equal(put(box, KEY, "hello"), 0);
	assert_holds(at(box, KEY), "hello");
	assert_int_equal(count_files(at(box, "source=s/dt=2026-11-21")), 1);
	box->store->ops->abort(box->store);
}

/* What finish cannot vouch for gets no name, or is done again. */
static void test_a_sync_that_fails_is_told(void **state)
{
	struct box *box = *state;

	assert_int_equal(box->store->ops->probe(box->store, false, &box->err), 0);
	for (int i = 1;; i++) {
		fsyncs = 0;
		fsync_fails_at = i;
		if (put(box, KEY, "hello") == 0)
			break;
		assert_non_null(strstr(box->err.text, strerror(EIO)));
		assert_int_equal(access(at(box, KEY ".tmp"), F_OK), -1);
		assert_true(i < 8);
	}
	assert_true(fsyncs < fsync_fails_at && fsync_fails_at > 3);
	assert_holds(at(box, KEY), "hello");
}

static void test_other_bytes_than_announced_get_no_name(void **state)
{
	struct box *box = *state;

	assert_int_equal(box->store->ops->probe(box->store, false, &box->err), 0);
	assert_int_equal(start(box, KEY, "hello"), 0);
	assert_int_equal(box->store->ops->write(box->store, "hellx", 5, &box->err), 0);
	assert_int_equal(box->store->ops->finish(box->store, &box->err), -EBADMSG);
	assert_int_equal(start(box, KEY, "hello"), 0);
	assert_int_equal(box->store->ops->write(box->store, "hell", 4, &box->err), 0);
	assert_int_equal(box->store->ops->finish(box->store, &box->err), -EBADMSG);
	assert_int_equal(count_files(at(box, "source=s/dt=2026-11-21")), 0);
	assert_int_equal(put(box, KEY, "hello"), 0);
}

static void test_a_disk_that_is_not_mounted(void **state)
{
	struct box *box = *state;

	assert_int_equal(box->store->ops->probe(box->store, true, &box->err), -ENODEV);
	assert_non_null(strstr(box->err.text, box->folder));
	assert_int_equal(count_files(box->folder), 0);
	assert_int_equal(box->store->ops->probe(box->store, false, &box->err), 0);
	assert_int_equal(access(at(box, ".millrace-store"), F_OK), 0);
	assert_int_equal(box->store->ops->probe(box->store, true, &box->err), 0);
	/* It goes between the probe and an object. */
	assert_int_equal(unlink(at(box, ".millrace-store")), 0);
	assert_int_equal(put(box, KEY, "hello"), -ENODEV);
	assert_int_equal(count_files(box->folder), 0);
	assert_int_equal(rmdir(box->folder), 0);
	assert_int_equal(box->store->ops->probe(box->store, true, &box->err), -ENOENT);
	assert_int_equal(box->store->ops->probe(box->store, false, &box->err), -ENOENT);
	assert_int_equal(put(box, KEY, "hello"), -ENOENT);
	assert_int_equal(access(box->folder, F_OK), -1);
}

static void test_the_embedded_store_makes_its_folder(void **state)
{
	struct box *box = *state;
	struct store *store = store_file_new(box->folder, true);

	assert_int_equal(rmdir(box->folder), 0);
	assert_int_equal(store->ops->probe(store, true, &box->err), -ENOENT);
	assert_int_equal(store->ops->probe(store, false, &box->err), 0);
	assert_int_equal(store->ops->probe(store, false, &box->err), 0);
	assert_int_equal(access(at(box, ".millrace-store"), F_OK), 0);
	store->ops->free(store);
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_an_object_stands_whole_and_durable),         TEST(test_the_way_up_is_synced_once),
		TEST(test_again_is_a_success_and_other_bytes_are_not), TEST(test_a_file_system_without_links),
		TEST(test_what_a_killed_run_left_is_written_over),     TEST(test_a_sync_that_fails_is_told),
		TEST(test_other_bytes_than_announced_get_no_name),     TEST(test_a_disk_that_is_not_mounted),
		TEST(test_the_embedded_store_makes_its_folder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
