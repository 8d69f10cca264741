/* SPDX-License-Identifier: Apache-2.0 */
#include "buffer/store_file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/container.h"
#include "buffer/object.h"

#define MARK         ".millrace-store"
#define MARK_TEXT    "Millrace writes here; without this file it takes the folder for a disk that is not mounted.\n"
#define TMP          ".tmp"
#define TMP_PATH_MAX (OBJECT_KEY_MAX + sizeof TMP)
#define FOLDER_MODE  0755
#define FILE_MODE    0644
#define PIECE        (64 * 1024)

struct store_file {
	struct store store;
	char *path;
	bool make;
	char synced[OBJECT_KEY_MAX]; /* the folder whose way up is known to be durable */

	/* The object under way. */
	int root, folder, file; /* -1: not open */
	bool stands;            /* the same bytes are there under its key already: file is they, to be read only */
	char key[OBJECT_KEY_MAX];
	char tmp[TMP_PATH_MAX]; /* its name within the folder */
	uint64_t bytes, written;
	uint8_t sha256[SHA256_SIZE];
	struct sha256 hash;
};

static struct store_file *of(struct store *store)
{
	return container_of(store, struct store_file, store);
}

static void shut(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* errno as -errno, told with the path; "" for the folder itself. */
static int fail(const struct store_file *s, const char *key, struct err *err)
{
	int code = errno;

	return err_fail(err, -code, "\"%s%s%s\": %s", s->path, *key ? "/" : "", key, strerror(code));
}

static const char *last_part(const char *key)
{
	const char *slash = strrchr(key, '/');

	return slash ? slash + 1 : key;
}

/* What stands at `path`, whose folder is open, is in the way of this object alone: others can be brought. */
static bool in_the_way(const struct store_file *s, const char *path, int code)
{
	struct stat st;
	bool there = fstatat(s->folder, last_part(path), &st, AT_SYMLINK_NOFOLLOW) == 0;

	switch (code) {
	case EEXIST:
	case ENOTDIR:
	case EISDIR:
	case ELOOP:
	case ENXIO:
		return true;
	case ENOENT: /* a link that leads nowhere; where there is nothing, the folder itself has gone */
		return there;
	case EACCES:
	case EPERM:
	case EROFS: /* of the whole store, or of a folder within? */
		return (there || strchr(path, '/')) && faccessat(s->root, ".", W_OK | X_OK, AT_EACCESS) == 0;
	default:
		return false;
	}
}

/* errno from a name below the root: -EEXIST where it is in the way, else as it is. */
static int fail_below(const struct store_file *s, const char *path, struct err *err)
{
	int code = errno;

	if (in_the_way(s, path, code))
		return err_fail(err, -EEXIST, "\"%s/%s\" stands in the way: %s", s->path, path, strerror(code));
	errno = code;
	return fail(s, path, err);
}

static int fail_irregular(const struct store_file *s, const char *path, struct err *err)
{
	return err_fail(err, -EEXIST, "\"%s/%s\" stands in the way: it is no regular file", s->path, path);
}

static int write_all(int fd, const void *data, size_t len)
{
	const char *at = data;

	while (len > 0) {
		ssize_t n = write(fd, at, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		at += n;
		len -= (size_t)n;
	}
	return 0;
}

/* --- Is it there? --- */

static int make_root(struct store_file *s, struct err *err)
{
	char parent[4096];
	const char *slash = strrchr(s->path, '/');
	int fd, r = 0;

	if (mkdir(s->path, FOLDER_MODE) < 0)
		return errno == EEXIST ? 0 : fail(s, "", err);
	snprintf(parent, sizeof parent, "%.*s", slash ? (int)(slash - s->path) + 1 : 1, slash ? s->path : ".");
	fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0)
		r = fail(s, "", err);
	shut(&fd);
	return r;
}

static int open_root(const struct store_file *s, int *ret_fd, struct err *err)
{
	int fd = open(s->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 && errno == ENOENT)
		return err_fail(err, -ENOENT, "the folder \"%s\" does not exist: create it, or mount its disk",
		                s->path);
	if (fd < 0)
		return fail(s, "", err);
	*ret_fd = fd;
	return 0;
}

static int refuse_unmarked(const struct store_file *s, struct err *err)
{
	return err_fail(err, -ENODEV,
	                "\"%s\" has no " MARK ": is its disk not mounted? If it is the right folder, create that file",
	                s->path);
}

/* Its being there is what counts; a power cut may leave it empty. */
static int leave_mark(const struct store_file *s, int root, struct err *err)
{
	int fd = openat(root, MARK, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, FILE_MODE);
	int r = 0;

	if (fd < 0 || write_all(fd, MARK_TEXT, strlen(MARK_TEXT)) < 0 || fsync(fd) < 0 || fsync(root) < 0)
		r = fail(s, MARK, err);
	shut(&fd);
	return r;
}

static int probe(struct store *store, bool known, struct err *err)
{
	struct store_file *s = of(store);
	int root = -1, r = 0;

	if (s->make && !known)
		r = make_root(s, err);
	if (r == 0)
		r = open_root(s, &root, err);
	if (r < 0)
		return r;
	if (faccessat(root, MARK, F_OK, 0) == 0)
		r = faccessat(root, ".", W_OK | X_OK, AT_EACCESS) < 0 ? fail(s, "", err) : 0;
	else if (errno != ENOENT)
		r = fail(s, MARK, err);
	else if (known)
		r = refuse_unmarked(s, err);
	else
		r = leave_mark(s, root, err);
	shut(&root);
	return r;
}

/* --- One object --- */

/*
 * Whether the temporary name is still that of our file. Who replaced the same key before, and is waited for by nobody
 * any more, may go on beside us on a slow disk: neither may give the other's half-written file the final name, or take
 * it away.
 */
static bool has_tmp(const struct store_file *s)
{
	struct stat ours, there;

	return fstat(s->file, &ours) == 0 && fstatat(s->folder, s->tmp, &there, AT_SYMLINK_NOFOLLOW) == 0 &&
	       ours.st_dev == there.st_dev && ours.st_ino == there.st_ino;
}

static void abort_object(struct store *store)
{
	struct store_file *s = of(store);

	if (s->file >= 0 && !s->stands) {
		if (has_tmp(s))
			unlinkat(s->folder, s->tmp, 0);
		sha256_drop(&s->hash);
	}
	shut(&s->file);
	shut(&s->folder);
	shut(&s->root);
}

/* A key is ours and never leads out of the folder. */
static bool is_key(const char *key)
{
	size_t len = strlen(key);

	return len > 0 && len < OBJECT_KEY_MAX && key[0] != '/' && key[len - 1] != '/' && !strstr(key, "//") &&
	       strncmp(key, "../", 3) != 0 && !strstr(key, "/../") && strcmp(key, "..") != 0 &&
	       (len < 3 || strcmp(key + len - 3, "/..") != 0);
}

/*
 * Into the next folder of the key's way, made if need be. A folder's entry is durable once the folder above is synced;
 * one that is there already may have been made by a run that was killed before that, so who made it does not count.
 */
static int descend(struct store_file *s, const char *path, bool sync, struct err *err)
{
	const char *name = last_part(path);
	int below;

	if (mkdirat(s->folder, name, FOLDER_MODE) == 0)
		sync = true;
	else if (errno != EEXIST)
		return fail_below(s, path, err);
	if (sync && fsync(s->folder) < 0)
		return fail(s, path, err);
	below = openat(s->folder, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (below < 0)
		return fail_below(s, path, err);
	shut(&s->folder);
	s->folder = below;
	return 0;
}

/* The folder that the key's last part stands in. */
static int open_folder(struct store_file *s, struct err *err)
{
	int len = (int)(last_part(s->key) - s->key) - 1; /* of its way; -1: the root itself */
	char path[OBJECT_KEY_MAX];
	bool sync;
	int r = 0;

	snprintf(path, sizeof path, "%.*s", len > 0 ? len : 0, s->key);
	sync = strcmp(path, s->synced) != 0;
	s->folder = fcntl(s->root, F_DUPFD_CLOEXEC, 0);
	if (s->folder < 0)
		return fail(s, "", err);
	for (int i = 1; r == 0 && i <= len; i++) {
		if (s->key[i] != '/')
			continue;
		snprintf(path, sizeof path, "%.*s", i, s->key);
		r = descend(s, path, sync, err);
	}
	if (r == 0)
		snprintf(s->synced, sizeof s->synced, "%s", path);
	return r;
}

static int hash_file(int fd, uint64_t *ret_bytes, uint8_t ret_sha256[SHA256_SIZE])
{
	char *piece = malloc(PIECE);
	struct sha256 hash;
	uint64_t bytes = 0;
	ssize_t n;

	if (!piece)
		return -1;
	sha256_init(&hash);
	while ((n = read(fd, piece, PIECE)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			break;
		sha256_add(&hash, piece, (size_t)n);
		bytes += (uint64_t)n;
	}
	free(piece);
	sha256_finish(&hash, ret_sha256);
	*ret_bytes = bytes;
	return n < 0 ? -1 : 0;
}

/* The file at fd, which has our key: 0 where it holds our bytes. Of what has another length nothing is read. */
static int compare(const struct store_file *s, int fd, struct err *err)
{
	char ours[SHA256_HEX], theirs[SHA256_HEX];
	uint8_t sha256[SHA256_SIZE];
	uint64_t bytes;
	struct stat st;

	if (fstat(fd, &st) < 0)
		return fail(s, s->key, err);
	if (!S_ISREG(st.st_mode))
		return fail_irregular(s, s->key, err);
	if ((uint64_t)st.st_size != s->bytes)
		return err_fail(err, -EEXIST, "\"%s/%s\" holds other bytes (%llu) than ours (%llu)", s->path, s->key,
		                (unsigned long long)st.st_size, (unsigned long long)s->bytes);
	if (hash_file(fd, &bytes, sha256) < 0)
		return fail(s, s->key, err);
	if (bytes == s->bytes && memcmp(sha256, s->sha256, SHA256_SIZE) == 0)
		return 0;
	return err_fail(err, -EEXIST, "\"%s/%s\" holds other bytes (%llu, SHA-256 %s) than ours (%llu, %s)", s->path,
	                s->key, (unsigned long long)bytes, sha256_hex(sha256, 64, theirs), (unsigned long long)s->bytes,
	                sha256_hex(s->sha256, 64, ours));
}

/* 1: our bytes stand under the key, an earlier run's, in *ret_fd; 0: nothing does; -EEXIST: something else does. */
static int find_same(const struct store_file *s, int *ret_fd, struct err *err)
{
	int flags = O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC; /* a FIFO must not hold the worker */
	int fd = openat(s->folder, last_part(s->key), flags), r;

	if (fd < 0)
		return errno == ENOENT ? 0 : fail_below(s, s->key, err);
	r = compare(s, fd, err);
	if (r < 0) {
		shut(&fd);
		return r;
	}
	*ret_fd = fd;
	return 1;
}

/*
 * What a killed run left under the temporary name goes. It is never opened: it may be one file with the object that
 * stands under the final name.
 */
static int clear_tmp(const struct store_file *s, const char *path, struct err *err)
{
	struct stat st;

	if (fstatat(s->folder, s->tmp, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : fail_below(s, path, err);
	if (!S_ISREG(st.st_mode))
		return fail_irregular(s, path, err);
	if (unlinkat(s->folder, s->tmp, 0) < 0 && errno != ENOENT)
		return fail_below(s, path, err);
	return 0;
}

/* Always the same temporary name for a key, so that nothing is left lying about. */
static void name_tmp(struct store_file *s, char ret_path[TMP_PATH_MAX])
{
	snprintf(s->tmp, sizeof s->tmp, "%s" TMP, last_part(s->key));
	snprintf(ret_path, TMP_PATH_MAX, "%s" TMP, s->key);
}

/* A new file under the temporary name. */
static int open_tmp(struct store_file *s, struct err *err)
{
	char path[TMP_PATH_MAX];
	int r;

	name_tmp(s, path);
	r = clear_tmp(s, path, err);
	if (r < 0)
		return r;
	s->file = openat(s->folder, s->tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, FILE_MODE);
	return s->file < 0 ? fail_below(s, path, err) : 0;
}

/* The same; or what stands under the final name, where that is the object already. */
static int open_file(struct store_file *s, struct err *err)
{
	char path[TMP_PATH_MAX];
	struct err ignored;
	int r = find_same(s, &s->file, err);

	if (r == 0)
		return open_tmp(s, err);
	if (r < 0)
		return r;
	s->stands = true;
	name_tmp(s, path);
	clear_tmp(s, path, &ignored);
	return 0;
}

/* The folder of the key, on the disk that has the mark. */
static int open_way(struct store_file *s, struct err *err)
{
	int r = open_root(s, &s->root, err);

	if (r < 0)
		return r;
	/* Again: the disk may have gone since the probe. What is opened below stays on the disk that has the mark. */
	if (faccessat(s->root, MARK, F_OK, 0) < 0)
		return errno == ENOENT ? refuse_unmarked(s, err) : fail(s, MARK, err);
	return open_folder(s, err);
}

static int begin(struct store *store, const char *key, uint64_t bytes, const uint8_t sha256[SHA256_SIZE],
                 struct err *err)
{
	struct store_file *s = of(store);
	int r;

	assert(is_key(key) && s->file < 0);
	snprintf(s->key, sizeof s->key, "%s", key);
	s->bytes = bytes;
	s->written = 0;
	s->stands = false;
	memcpy(s->sha256, sha256, SHA256_SIZE);
	r = open_way(s, err);
	if (r == 0)
		r = open_file(s, err);
	if (r < 0)
		abort_object(store);
	else if (!s->stands)
		sha256_init(&s->hash);
	return r;
}

static int write_object(struct store *store, const void *data, size_t len, struct err *err)
{
	struct store_file *s = of(store);

	assert(s->file >= 0);
	if (s->stands)
		return 0;
	if (write_all(s->file, data, len) < 0)
		return fail(s, s->key, err);
	sha256_add(&s->hash, data, len);
	s->written += len;
	return 0;
}

/* What was written is what was announced: what a damaged card gave must not stand under this name for ever. */
static int check_written(struct store_file *s, struct err *err)
{
	uint8_t sha256[SHA256_SIZE];

	sha256_finish(&s->hash, sha256);
	if (s->written == s->bytes && memcmp(sha256, s->sha256, SHA256_SIZE) == 0)
		return 0;
	return err_fail(err, -EBADMSG, "\"%s\": the buffer gave other bytes than it sealed", s->key);
}

/* The final name, never over another file. FAT and exFAT have no links, but rename without replacing. */
static int give_name(struct store_file *s)
{
	const char *name = last_part(s->key);

	if (linkat(s->folder, s->tmp, s->folder, name, 0) == 0)
		return 0;
	if (errno != EPERM && errno != EOPNOTSUPP && errno != ENOSYS)
		return -1;
	return renameat2(s->folder, s->tmp, s->folder, name, RENAME_NOREPLACE);
}

/* Something got the final name since begin: fine where it is the same. */
static int yield_to_other(const struct store_file *s, struct err *err)
{
	int fd = -1, r = find_same(s, &fd, err);

	if (r == 0)
		return err_fail(err, -EAGAIN, "\"%s/%s\": it came and went", s->path, s->key);
	if (r == 1)
		r = fsync(fd) < 0 ? fail(s, s->key, err) : 0;
	shut(&fd);
	return r;
}

/* What was written gets its name once it is durable. */
static int publish(struct store_file *s, struct err *err)
{
	int r = check_written(s, err);

	if (r == 0 && fsync(s->file) < 0)
		r = fail(s, s->key, err);
	if (r == 0 && give_name(s) < 0)
		r = errno == EEXIST ? yield_to_other(s, err) : fail_below(s, s->key, err);
	if (r == 0 && unlinkat(s->folder, s->tmp, 0) < 0 && errno != ENOENT)
		r = fail(s, s->key, err);
	return r;
}

static int finish(struct store *store, struct err *err)
{
	struct store_file *s = of(store);
	int r;

	assert(s->file >= 0);
	if (s->stands)
		r = fsync(s->file) < 0 ? fail(s, s->key, err) : 0; /* who wrote it may not have come so far */
	else
		r = publish(s, err);
	if (r == 0 && fsync(s->folder) < 0)
		r = fail(s, s->key, err);
	abort_object(store); /* of the temporary file nothing stays, whatever came out */
	return r;
}

/* --- In place of what stands there --- */

static int write_over(struct store_file *s, const void *data, size_t len, struct err *err)
{
	if (write_all(s->file, data, len) < 0 || fsync(s->file) < 0)
		return fail(s, s->key, err);
	if (!has_tmp(s))
		return err_fail(err, -EAGAIN, "\"%s/%s\" is written by somebody else, too", s->path, s->key);
	if (renameat(s->folder, s->tmp, s->folder, last_part(s->key)) < 0)
		return fail_below(s, s->key, err);
	return fsync(s->folder) < 0 ? fail(s, s->key, err) : 0;
}

int store_file_replace(struct store *store, const char *key, const void *data, size_t len, struct err *err)
{
	struct store_file *s = of(store);
	int r;

	assert(is_key(key) && s->file < 0);
	snprintf(s->key, sizeof s->key, "%s", key);
	s->stands = false;
	r = open_way(s, err);
	if (r == 0)
		r = open_tmp(s, err);
	if (r == 0)
		r = write_over(s, data, len, err);
	abort_object(store);
	return r;
}

static void free_store(struct store *store)
{
	struct store_file *s = of(store);

	abort_object(store);
	free(s->path);
	free(s);
}

static const struct store_ops ops = {
	.kind = "file",
	.probe = probe,
	.begin = begin,
	.write = write_object,
	.finish = finish,
	.abort = abort_object,
	.free = free_store,
};

struct store *store_file_new(const char *path, bool make)
{
	struct store_file *s = calloc(1, sizeof *s);

	if (!s || !(s->path = strdup(path))) {
		free(s);
		return NULL;
	}
	s->store.ops = &ops;
	s->make = make;
	s->root = s->folder = s->file = -1;
	return &s->store;
}

/* --- Its settings --- */

static const struct option options[] = {
	{ .name = "path",
	  .type = OPTION_TEXT,
	  .offset = offsetof(struct store_file_settings, path),
	  .required = true,
	  .path = true,
	  .check = option_check_path },
	OPTION_END,
};

static char *place(const void *settings)
{
	const struct store_file_settings *s = settings;

	return strdup(s->path);
}

const struct store_kind store_kind_file = {
	.kind = "file",
	.options = options,
	.settings_size = sizeof(struct store_file_settings),
	.place = place,
};
