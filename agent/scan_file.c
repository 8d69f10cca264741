/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A folder, read by the audit's worker in steps: between two of them the audit may be stopped. Only the folders of the
 * sources it is told are opened; a name that ends in .tmp is no object.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/scan.h"
#include "base/container.h"
#include "buffer/store_file.h"

#define STEP_BYTES   (16 * 1024 * 1024)
#define STEP_ENTRIES 512
#define READ_BYTES   ((size_t)64 * 1024)

struct scan {
	struct scan_env env;
	const char *path;
	struct store *store; /* only asked whether it is there */
	struct job job;
	bool stopped;

	/* The worker's while the job is under way. */
	bool begun, ended;
	int status;
	struct err err;
	size_t source; /* the one at hand */
	DIR *days;     /* its folder; NULL: to be opened */
	DIR *objects;  /* one of its days'; NULL: none is open */
	char day[16];
	uint64_t bytes; /* read in this step */
	unsigned char buffer[READ_BYTES];
};

static int fail(struct scan *s, const char *what, struct err *err)
{
	int r = -errno;

	return err_fail(err, r, "\"%s%s%s\": %s", s->path, *what ? "/" : "", what, strerror(-r));
}

static void shut(DIR **dir)
{
	if (*dir)
		closedir(*dir);
	*dir = NULL;
}

/* --- On the worker --- */

static int open_below(int folder, const char *name, DIR **ret_dir)
{
	int fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return -1;
	*ret_dir = fdopendir(fd);
	if (*ret_dir)
		return 0;
	close(fd);
	return -1;
}

static int hash(struct scan *s, int fd, uint8_t digest[SHA256_SIZE])
{
	struct sha256 h;
	ssize_t n;

	sha256_init(&h);
	while ((n = read(fd, s->buffer, sizeof s->buffer)) > 0) {
		sha256_add(&h, s->buffer, (size_t)n);
		s->bytes += (uint64_t)n;
	}
	if (n < 0) {
		int error = errno;

		sha256_drop(&h);
		errno = error;
		return -1;
	}
	sha256_finish(&h, digest);
	return 0;
}

/* One that went since it was listed, and what is no file, is not there. */
static int check_object(struct scan *s, const char *name, const char *key, size_t index)
{
	int fd = openat(dirfd(s->objects), name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	uint8_t digest[SHA256_SIZE];
	struct stat st;
	int r = 0;

	if (fd < 0)
		return errno == ENOENT || errno == ELOOP ? 0 : fail(s, key, &s->err);
	if (fstat(fd, &st) < 0)
		r = fail(s, key, &s->err);
	else if (S_ISREG(st.st_mode)) {
		r = hash(s, fd, digest) < 0 ? fail(s, key, &s->err) : 0;
		if (r == 0)
			tally_check(s->env.tally, index, digest);
	}
	close(fd);
	return r;
}

static bool is_temporary(const char *name)
{
	size_t len = strlen(name);

	return name[0] == '.' || (len > 4 && strcmp(name + len - 4, ".tmp") == 0);
}

static int look_at(struct scan *s, const char *name)
{
	char key[NAME_MAX + UNITS_NAME_MAX + 64];
	size_t index;
	int r;

	if (is_temporary(name))
		return 0;
	snprintf(key, sizeof key, "source=%s/%s/%s", s->env.sources[s->source], s->day, name);
	r = tally_find(s->env.tally, key, &index);
	if (r == 0)
		return check_object(s, name, key, index);
	return r == -ENOENT || r == -EINVAL ? 0 : r;
}

/* The next entry of an open folder; NULL at its end, or with s->status set. */
static const char *next_name(struct scan *s, DIR *dir)
{
	struct dirent *entry;

	errno = 0;
	entry = readdir(dir);
	if (!entry && errno)
		s->status = fail(s, s->env.sources[s->source], &s->err);
	return entry ? entry->d_name : NULL;
}

static void next_object(struct scan *s)
{
	const char *name = next_name(s, s->objects);

	if (name)
		s->status = look_at(s, name);
	else
		shut(&s->objects);
}

static void next_day(struct scan *s)
{
	const char *name = next_name(s, s->days);

	if (!name) {
		shut(&s->days);
		s->source++;
		return;
	}
	if (strncmp(name, "dt=", 3) != 0 || strlen(name) >= sizeof s->day)
		return;
	snprintf(s->day, sizeof s->day, "%s", name);
	if (open_below(dirfd(s->days), name, &s->objects) < 0 && errno != ENOENT && errno != ENOTDIR && errno != ELOOP)
		s->status = fail(s, name, &s->err);
}

static void next_source(struct scan *s)
{
	char name[UNITS_NAME_MAX + 8], path[4096];

	snprintf(name, sizeof name, "source=%s", s->env.sources[s->source]);
	if (snprintf(path, sizeof path, "%s/%s", s->path, name) >= (int)sizeof path)
		errno = ENAMETOOLONG;
	else if (open_below(AT_FDCWD, path, &s->days) == 0)
		return;
	if (errno == ENOENT)
		s->source++;
	else
		s->status = fail(s, name, &s->err);
}

/* Where the store was never used there may be no folder yet. */
static int probe(struct scan *s)
{
	return s->env.known ? s->store->ops->probe(s->store, true, &s->err) : 0;
}

static void on_work(struct job *job)
{
	struct scan *s = container_of(job, struct scan, job);

	s->bytes = 0;
	s->status = s->begun ? 0 : probe(s);
	s->begun = true;
	for (int i = 0; s->status == 0 && i < STEP_ENTRIES && s->bytes < STEP_BYTES; i++) {
		if (s->objects)
			next_object(s);
		else if (s->days)
			next_day(s);
		else if (s->source < s->env.n_sources)
			next_source(s);
		else
			break;
	}
	s->ended = s->source == s->env.n_sources;
	/* A disk that was taken away meanwhile must not look like one that lost everything. */
	if (s->status == 0 && s->ended)
		s->status = probe(s);
}

/* --- On the loop --- */

static void free_scan(struct scan *s)
{
	shut(&s->days);
	shut(&s->objects);
	if (s->store)
		s->store->ops->free(s->store);
	free(s);
}

static void on_worked(struct job *job)
{
	struct scan *s = container_of(job, struct scan, job);
	struct scan_env env = s->env;
	struct err err = s->err;
	int status = s->stopped ? -ECANCELED : s->status;

	if (status == 0 && !s->ended) {
		s->status = -ECANCELED;
		worker_submit(env.worker, job);
		return;
	}
	free_scan(s);
	env.on_end(env.arg, status, 0, &err);
}

static int start(const struct scan_env *env, struct scan **ret_scan)
{
	const struct store_file_settings *settings = env->store->settings;
	struct scan *s = calloc(1, sizeof *s);

	if (!s)
		return -ENOMEM;
	s->env = *env;
	s->path = settings->path;
	s->store = store_file_new(settings->path, false);
	if (!s->store) {
		free_scan(s);
		return -ENOMEM;
	}
	s->job = (struct job){ .work = on_work, .done = on_worked };
	s->status = -ECANCELED;
	worker_submit(env->worker, &s->job);
	*ret_scan = s;
	return 0;
}

static void stop(struct scan *s)
{
	s->stopped = true;
}

const struct scan_ops scan_file_ops = { .start = start, .stop = stop };
