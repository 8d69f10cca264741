/* SPDX-License-Identifier: Apache-2.0 */
/* The definitions of fsync, linkat, mkdirat and faccessat below take the place of the C library's in this program. */
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
static int mkdir_errno; /* what mkdirat fails with; 0: it works */
static int root_errno;  /* what faccessat says about writing to the root */
static char taken[512]; /* a file that is somebody else's once it is synced; "": none */

static void take_away(const char *path)
{
	if (!taken[0] || !strstr(path, ".json.tmp"))
		return;
	assert_int_equal(unlink(taken), 0);
	fclose(fopen(taken, "wb"));
	taken[0] = '\0';
}

int fsync(int fd)
{
	char link[64], path[512];
	ssize_t n;

	if (++fsyncs == fsync_fails_at) {
		errno = EIO;
		return -1;
	}
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof path - 1);
	path[n > 0 ? n : 0] = '\0';
	snprintf(synced + strlen(synced), sizeof synced - strlen(synced), "%s\n", path);
	take_away(path);
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

int mkdirat(int folder, const char *name, mode_t mode)
{
	if (mkdir_errno != 0) {
		errno = mkdir_errno;
		return -1;
	}
	return (int)syscall(SYS_mkdirat, folder, name, mode);
}

/* The daemon must not be able to write; the tests may run as root, who always can. */
int faccessat(int folder, const char *name, int mode, int flags)
{
	(void)flags;
	if (mode & W_OK && root_errno != 0) {
		errno = root_errno;
		return -1;
	}
	return (int)syscall(SYS_faccessat, folder, name, mode);
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
	link_errno = fsync_fails_at = fsyncs = mkdir_errno = root_errno = 0;
	synced[0] = taken[0] = '\0';
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

/* Killed between link and unlink: both names are one file, whole and durable, and nothing may write to it. */
static void test_a_run_killed_before_the_temporary_name_went(void **state)
{
	struct box *box = *state;
	const struct store_ops *ops = box->store->ops;
	char tmp[512], elsewhere[512];

	assert_int_equal(ops->probe(box->store, false, &box->err), 0);
	assert_int_equal(put(box, KEY, "hello"), 0);
	snprintf(tmp, sizeof tmp, "%s", at(box, KEY ".tmp"));
	assert_int_equal(link(at(box, KEY), tmp), 0);
	assert_int_equal(start(box, KEY, "hello"), 0);
	assert_holds(at(box, KEY), "hello");
	assert_int_equal(access(tmp, F_OK), -1);
	assert_int_equal(ops->write(box->store, "hel", 3, &box->err), 0);
	ops->abort(box->store); /* what an ENOSPC or the daemon's end does */
	assert_holds(at(box, KEY), "hello");
	/* The same where the delivered object has other bytes than are brought now. */
	assert_int_equal(link(at(box, KEY), tmp), 0);
	assert_int_equal(put(box, KEY, "a longer text"), -EEXIST);
	assert_holds(at(box, KEY), "hello");
	/* And a temporary file that has another name still, wherever that leads. */
	snprintf(elsewhere, sizeof elsewhere, "%s", at(box, "elsewhere"));
	assert_int_equal(rename(at(box, KEY), elsewhere), 0);
	assert_int_equal(access(tmp, F_OK), 0);
	assert_int_equal(put(box, KEY, "jello"), 0);
	assert_holds(elsewhere, "hello");
	assert_holds(at(box, KEY), "jello");
}

/* An earlier run may have been killed before its object was durable. */
static void test_what_stands_already_is_synced_and_not_written(void **state)
{
	struct box *box = *state;
	const struct store_ops *ops = box->store->ops;
	struct stat before, after;
	const char *file, *folder;

	assert_int_equal(ops->probe(box->store, false, &box->err), 0);
	assert_int_equal(put(box, KEY, "hello"), 0);
	assert_int_equal(stat(at(box, KEY), &before), 0);
	synced[0] = '\0';
	fsyncs = 0;
	assert_int_equal(start(box, KEY, "hello"), 0);
	assert_int_equal(access(at(box, KEY ".tmp"), F_OK), -1);
	assert_int_equal(ops->finish(box->store, &box->err), 0); /* without a byte */
	file = strstr(synced, "ndjson.gz\n");
	folder = strstr(synced, "/dt=2026-11-21\n");
	assert_non_null(file);
	assert_non_null(folder);
	assert_true(file < folder);
	assert_int_equal(stat(at(box, KEY), &after), 0);
	assert_true(before.st_ino == after.st_ino);
	for (int i = 1; i <= 2; i++) {
		fsyncs = 0;
		fsync_fails_at = i;
		assert_int_equal(put(box, KEY, "hello"), -EIO);
		assert_holds(at(box, KEY), "hello");
	}
}

/* What is in the way of one object, at its name, its temporary one or a folder above, is told with its path and left.
 */
static void test_what_stands_in_the_way_of_one_object(void **state)
{
	enum { FILE_THERE, FOLDER, LINK, LINK_TO_NOWHERE, LOOP, FIFO, KINDS };
	static const char *const names[] = { "source=s", "source=s/dt=2026-11-21", KEY, KEY ".tmp" };
	struct box *box = *state;
	struct stat st, now;

	assert_int_equal(box->store->ops->probe(box->store, false, &box->err), 0);
	for (int i = 0; i < 4; i++) {
		for (int kind = 0; kind < KINDS; kind++) {
			char path[512], target[512];

			if ((i < 2 && (kind == FOLDER || kind == LINK)) || (i == 3 && kind == FILE_THERE))
				continue; /* is fine there */
			snprintf(target, sizeof target, "%s/%s", box->root, kind == LINK ? "target" : "nowhere");
			snprintf(path, sizeof path, "%s", at(box, names[i]));
			mkdir(at(box, "source=s"), 0755);
			mkdir(at(box, "source=s/dt=2026-11-21"), 0755);
			if (i < 2)
				nftw(path, remove_one, 8, FTW_DEPTH | FTW_PHYS);
			if (kind == FILE_THERE || kind == LINK)
				fclose(fopen(kind == LINK ? target : path, "wb"));
			if (kind == FOLDER)
				assert_int_equal(mkdir(path, 0755), 0);
			if (kind == LINK || kind == LINK_TO_NOWHERE || kind == LOOP)
				assert_int_equal(symlink(kind == LOOP ? path : target, path), 0);
			if (kind == FIFO)
				assert_int_equal(mkfifo(path, 0644), 0);
			assert_int_equal(lstat(path, &st), 0);
			alarm(10); /* a FIFO would hold it for ever */
			assert_int_equal(put(box, KEY, "hello"), -EEXIST);
			alarm(0);
			assert_non_null(strstr(box->err.text, path));
			assert_int_equal(lstat(path, &now), 0);
			assert_true(st.st_ino == now.st_ino && st.st_mode == now.st_mode);
			assert_int_equal(put(box, "source=t/dt=2026-11-21/x.ndjson.gz", "hello"), 0);
			assert_int_equal(remove(path), 0);
		}
	}
	assert_int_equal(put(box, KEY, "hello"), 0);
}

/* The same code means one object where the root can be written to, and the whole store where it cannot. */
static void test_no_permission_below_a_fine_root(void **state)
{
	static const int codes[] = { EACCES, EPERM, EROFS };
	struct box *box = *state;

	assert_int_equal(box->store->ops->probe(box->store, false, &box->err), 0);
	assert_int_equal(mkdir(at(box, "source=s"), 0755), 0);
	for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
		mkdir_errno = codes[i];
		root_errno = 0;
		assert_int_equal(put(box, KEY, "hello"), -EEXIST);
		assert_non_null(strstr(box->err.text, at(box, "source=s\"")));
		root_errno = codes[i];
		assert_int_equal(put(box, KEY, "hello"), -codes[i]);
	}
	root_errno = 0;
	mkdir_errno = ENOSPC;
	assert_int_equal(put(box, KEY, "hello"), -ENOSPC);
	mkdir_errno = EIO;
	assert_int_equal(put(box, KEY, "hello"), -EIO);
	mkdir_errno = EDQUOT;
	assert_int_equal(put(box, KEY, "hello"), -EDQUOT);
	/* Nothing stands there: it is the root that takes nothing. */
	mkdir_errno = EACCES;
	assert_int_equal(put(box, "source=t/dt=2026-11-21/x", "hello"), -EACCES);
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

/* --- In place of what stands there --- */

#define RUN      "_runs/parking/0198aa10f3b2c4d5e6f708192a3b4c5d"
#define MANIFEST RUN "/manifest.json"

static int replace(struct box *box, const char *text)
{
	return store_file_replace(box->store, MANIFEST, text, strlen(text), &box->err);
}

static void test_what_stands_there_is_replaced(void **state)
{
	struct box *box = *state;
	const char *file, *folder;
	char kept[160];

	assert_int_equal(box->store->ops->probe(box->store, false, &box->err), 0);
	synced[0] = '\0';
	assert_int_equal(replace(box, "hello"), 0);
	assert_holds(at(box, MANIFEST), "hello");
	assert_non_null(strstr(synced, "/lake\n"));
	assert_non_null(strstr(synced, "/lake/_runs\n"));
	file = strstr(synced, "manifest.json.tmp\n");
	folder = strstr(synced, "/parking/0198aa10f3b2c4d5e6f708192a3b4c5d\n");
	assert_non_null(file);
	assert_non_null(folder);
	assert_true(file < folder);
	assert_int_equal(replace(box, "a longer text"), 0);
	assert_holds(at(box, MANIFEST), "a longer text");
	assert_int_equal(replace(box, "hello"), 0);
	assert_holds(at(box, MANIFEST), "hello");
	assert_int_equal(count_files(at(box, RUN)), 1);
	/* It is the name that is given to another file: who reads has the one or the other. */
	snprintf(kept, sizeof kept, "%s/kept", box->root);
	assert_int_equal(link(at(box, MANIFEST), kept), 0);
	assert_int_equal(replace(box, ""), 0);
	assert_holds(at(box, MANIFEST), "");
	assert_holds(kept, "hello");
	/* And the store takes objects as ever. */
	assert_int_equal(put(box, KEY, "hello"), 0);
	assert_int_equal(put(box, KEY, "jello"), -EEXIST);
}

static void test_a_replacing_that_fails_leaves_what_stands_there(void **state)
{
	struct box *box = *state;

	assert_int_equal(box->store->ops->probe(box->store, false, &box->err), 0);
	assert_int_equal(replace(box, "hello"), 0);
	for (int i = 1;; i++) {
		fsyncs = 0;
		fsync_fails_at = i;
		if (replace(box, "jello") == 0)
			break;
		assert_non_null(strstr(box->err.text, strerror(EIO)));
		assert_int_equal(count_files(at(box, RUN)), 1);
		/* The second is the folder's: the name was given, and may be lost with a power cut. */
		assert_holds(at(box, MANIFEST), i < 2 ? "hello" : "jello");
		assert_true(i < 3);
	}
	assert_int_equal(fsync_fails_at, 3);
	assert_holds(at(box, MANIFEST), "jello");
}

static void test_what_a_killed_replacing_left_goes(void **state)
{
	struct box *box = *state;
	char tmp[512], elsewhere[512];
	FILE *file;

	assert_int_equal(box->store->ops->probe(box->store, false, &box->err), 0);
	assert_int_equal(replace(box, "hello"), 0);
	snprintf(tmp, sizeof tmp, "%s", at(box, MANIFEST ".tmp"));
	file = fopen(tmp, "wb");
	assert_non_null(file);
	assert_true(fputs("much longer than what comes", file) >= 0);
	fclose(file);
	assert_int_equal(replace(box, "jello"), 0);
	assert_holds(at(box, MANIFEST), "jello");
	assert_int_equal(count_files(at(box, RUN)), 1);
	/* A link is not followed, neither there nor at the final name. */
	snprintf(elsewhere, sizeof elsewhere, "%s/elsewhere", box->root);
	assert_int_equal(symlink(elsewhere, tmp), 0);
	assert_int_equal(replace(box, "hello"), -EEXIST);
	assert_non_null(strstr(box->err.text, tmp));
	assert_int_equal(unlink(tmp), 0);
	assert_int_equal(unlink(at(box, MANIFEST)), 0);
	assert_int_equal(symlink(elsewhere, at(box, MANIFEST)), 0);
	assert_int_equal(replace(box, "hello"), 0);
	assert_int_equal(access(elsewhere, F_OK), -1);
	assert_holds(at(box, MANIFEST), "hello");
	/* What cannot be replaced is named. */
	assert_int_equal(unlink(at(box, MANIFEST)), 0);
	assert_int_equal(mkdir(at(box, MANIFEST), 0755), 0);
	assert_int_equal(replace(box, "hello"), -EEXIST);
	assert_non_null(strstr(box->err.text, at(box, MANIFEST)));
	assert_int_equal(count_files(at(box, RUN)), 1);
}

/* The other call has taken the temporary name, and writes to it still: that file must not get the final one. */
static void test_two_that_replace_at_the_same_time(void **state)
{
	struct box *box = *state;

	assert_int_equal(box->store->ops->probe(box->store, false, &box->err), 0);
	assert_int_equal(replace(box, "hello"), 0);
	snprintf(taken, sizeof taken, "%s", at(box, MANIFEST ".tmp"));
	assert_int_equal(replace(box, "jello"), -EAGAIN);
	assert_string_equal(taken, "");
	assert_non_null(strstr(box->err.text, at(box, MANIFEST)));
	assert_holds(at(box, MANIFEST), "hello");
	assert_holds(at(box, MANIFEST ".tmp"), ""); /* it is the other's still */
	assert_int_equal(replace(box, "jello"), 0);
	assert_holds(at(box, MANIFEST), "jello");
	assert_int_equal(count_files(at(box, RUN)), 1);
}

static void test_nothing_is_replaced_on_a_disk_that_is_not_mounted(void **state)
{
	struct box *box = *state;
	struct store *store = store_file_new(box->folder, true);

	assert_int_equal(replace(box, "hello"), -ENODEV);
	assert_non_null(strstr(box->err.text, ".millrace-store"));
	assert_int_equal(count_files(box->folder), 0);
	assert_int_equal(rmdir(box->folder), 0);
	assert_int_equal(replace(box, "hello"), -ENOENT);
	assert_int_equal(store_file_replace(store, MANIFEST, "hello", 5, &box->err), -ENOENT);
	assert_int_equal(access(box->folder, F_OK), -1);
	assert_int_equal(store->ops->probe(store, false, &box->err), 0);
	assert_int_equal(store_file_replace(store, MANIFEST, "hello", 5, &box->err), 0);
	assert_holds(at(box, MANIFEST), "hello");
	mkdir_errno = ENOSPC;
	assert_int_equal(store_file_replace(store, "_runs/parking/x/log.gz", "hello", 5, &box->err), -ENOSPC);
	store->ops->free(store);
}

int main(void)
{
#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_an_object_stands_whole_and_durable),
		TEST(test_the_way_up_is_synced_once),
		TEST(test_again_is_a_success_and_other_bytes_are_not),
		TEST(test_a_file_system_without_links),
		TEST(test_what_a_killed_run_left_is_written_over),
		TEST(test_a_sync_that_fails_is_told),
		TEST(test_a_run_killed_before_the_temporary_name_went),
		TEST(test_what_stands_already_is_synced_and_not_written),
		TEST(test_what_stands_in_the_way_of_one_object),
		TEST(test_no_permission_below_a_fine_root),
		TEST(test_other_bytes_than_announced_get_no_name),
		TEST(test_a_disk_that_is_not_mounted),
		TEST(test_the_embedded_store_makes_its_folder),
		TEST(test_what_stands_there_is_replaced),
		TEST(test_a_replacing_that_fails_leaves_what_stands_there),
		TEST(test_what_a_killed_replacing_left_goes),
		TEST(test_two_that_replace_at_the_same_time),
		TEST(test_nothing_is_replaced_on_a_disk_that_is_not_mounted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
