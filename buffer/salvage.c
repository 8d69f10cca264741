/* SPDX-License-Identifier: Apache-2.0 */
#include "buffer/salvage.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "buffer/salvage_private.h"

#define PATH_LONGEST 4096
#define FRESH        ".salvaging" /* while it grows */
#define WHOLE        ".salvaged"  /* then, until it has the place of the damaged one */
#define ASIDES_MAX   16           /* salvages in a day */
#define DAY_S        (24 * 60 * 60)

/* --- Files --- */

static int full_path(char ret_full[PATH_LONGEST], const char *path, const char *suffix, struct err *err)
{
	if ((size_t)snprintf(ret_full, PATH_LONGEST, "%s%s", path, suffix) < PATH_LONGEST)
		return 0;
	return err_fail(err, -ENAMETOOLONG, "buffer \"%s\": its path is too long", path);
}

static bool is_there(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0;
}

static int sync_file(const char *path, struct err *err)
{
	int fd = open(path, O_RDWR | O_CLOEXEC), r = 0;

	if (fd < 0 || fsync(fd) < 0)
		r = err_fail(err, -errno, "\"%s\": %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return r;
}

/* Each step is durable before the next one is made. A file that is not there has moved already. */
static int move(const char *from, const char *to, struct err *err)
{
	if (rename(from, to) < 0)
		return errno == ENOENT ? 0 : err_fail(err, -errno, "\"%s\": %s", from, strerror(errno));
	return queue_sync_folder(to, err);
}

/* A name that is free, with the time in it, for the file and for its WAL. */
static int name_aside(const char *path, int64_t now_ms, char ret_aside[PATH_LONGEST], struct err *err)
{
	time_t now = (time_t)(now_ms / 1000);
	char stamp[32], suffix[64], wal[PATH_LONGEST];
	struct tm tm;
	int r = 0;

	strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%SZ", gmtime_r(&now, &tm));
	snprintf(suffix, sizeof suffix, ".damaged-%s", stamp);
	for (int n = 1; r == 0; n++) {
		r = full_path(ret_aside, path, suffix, err);
		if (r == 0)
			r = full_path(wal, ret_aside, "-wal", err);
		if (r == 0 && !is_there(ret_aside) && !is_there(wal))
			return 0;
		snprintf(suffix, sizeof suffix, ".damaged-%s.%d", stamp, n);
	}
	return r;
}

static int delete_file(const char *path, const char *suffix, struct err *err)
{
	char full[PATH_LONGEST];
	int r = full_path(full, path, suffix, err);

	if (r == 0 && unlink(full) < 0 && errno != ENOENT && errno != ENOTDIR)
		r = err_fail(err, -errno, "\"%s\": %s", full, strerror(errno));
	return r;
}

/* What is not whole, or what the damaged file is still there for. */
static int delete_fresh(const char *path, struct err *err)
{
	static const char *const suffixes[] = { FRESH, FRESH "-wal", FRESH "-journal", WHOLE };
	int r = 0;

	for (size_t i = 0; r == 0 && i < sizeof suffixes / sizeof *suffixes; i++)
		r = delete_file(path, suffixes[i], err);
	return r;
}

/* The fresh one is whole and durable, and says so by its name before the damaged one loses its own. */
static int change_places(const char *path, const char *aside, struct err *err)
{
	char fresh[PATH_LONGEST], wal[PATH_LONGEST], wal_aside[PATH_LONGEST];
	int r = full_path(fresh, path, WHOLE, err);

	if (r == 0)
		r = full_path(wal, path, "-wal", err);
	if (r == 0)
		r = full_path(wal_aside, aside, "-wal", err);
	if (r == 0)
		r = move(path, aside, err);
	if (r == 0)
		r = move(wal, wal_aside, err);
	return r == 0 ? move(fresh, path, err) : r;
}

/* --- What was set aside --- */

static DIR *open_folder(const char *path)
{
	const char *slash = strrchr(path, '/');
	char folder[PATH_LONGEST];

	snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
	return opendir(folder);
}

/* The next one of the folder, without its WAL; false: there is none. */
static bool next_aside(DIR *dir, const char *path, char ret_aside[PATH_LONGEST])
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		size_t len = strlen(entry->d_name);

		if (strncmp(entry->d_name, name, strlen(name)) == 0 &&
		    strncmp(entry->d_name + strlen(name), ".damaged-", 9) == 0 &&
		    strcmp(entry->d_name + len - 4, "-wal") != 0 &&
		    snprintf(ret_aside, PATH_LONGEST, "%.*s%s", (int)(name - path), path, entry->d_name) < PATH_LONGEST)
			return true;
	}
	return false;
}

/* The newest whose WAL was not; "" where there is none. */
static void find_aside(const char *path, char ret_aside[PATH_LONGEST])
{
	char full[PATH_LONGEST], wal[PATH_LONGEST];
	DIR *dir = open_folder(path);

	ret_aside[0] = '\0';
	while (next_aside(dir, path, full)) {
		if (full_path(wal, full, "-wal", NULL) == 0 && !is_there(wal) && strcmp(full, ret_aside) > 0)
			memcpy(ret_aside, full, sizeof full);
	}
	if (dir)
		closedir(dir);
}

/*
 * A card that damages whatever is written to it would be filled by what was set aside. None of that is deleted: it may
 * hold records.
 */
static int check_asides(const char *path, struct err *err)
{
	time_t now = (time_t)(clock_wall_ms() / 1000);
	char full[PATH_LONGEST];
	DIR *dir = open_folder(path);
	struct stat st;
	int n = 0;

	while (next_aside(dir, path, full))
		n += stat(full, &st) == 0 && labs((long)(now - st.st_ctime)) < DAY_S; /* it was renamed then */
	if (dir)
		closedir(dir);
	if (n < ASIDES_MAX)
		return 0;
	return err_fail(err, -EBADMSG,
	                "buffer \"%s\" is damaged, and was salvaged %d times within a day: its card is failing (dmesg "
	                "says more): replace it; once what was set aside beside it is moved away, it is salvaged again",
	                path, n);
}

int salvage_finish(const char *path, struct err *err)
{
	char fresh[PATH_LONGEST], aside[PATH_LONGEST];
	int r = full_path(fresh, path, WHOLE, err);

	if (r < 0)
		return r;
	if (is_there(path) || !is_there(fresh))
		return delete_fresh(path, err);
	find_aside(path, aside);
	r = aside[0] == '\0' ? name_aside(path, clock_wall_ms(), aside, err) : 0;
	if (r == 0)
		r = change_places(path, aside, err);
	return r < 0 ? r : 1;
}

/* --- The salvage --- */

static int init(struct salvage *s, const char *path, const struct queue_identity *identity)
{
	char fresh[PATH_LONGEST];
	int r = full_path(fresh, path, FRESH, s->err);

	if (r == 0)
		r = delete_fresh(path, s->err);
	if (r == 0)
		r = pages_open(path, &s->pages, s->err);
	if (r < 0)
		return r;
	bytes_init(&s->plain, CHUNK_PLAIN_MAX);
	bytes_init(&s->part, CHUNK_PLAIN_MAX);
	s->now_ms = clock_wall_ms();
	s->origins = calloc(SOURCES_MAX + 1, sizeof *s->origins);
	s->fresh = queue_new(fresh, identity);
	if (!s->origins || !s->fresh)
		return err_fail(s->err, -ENOMEM, "buffer: no memory");
	s->fresh->fresh = true;
	return queue_open_fresh(s->fresh, s->err);
}

static void done(struct salvage *s)
{
	pages_close(s->pages);
	queue_close(s->fresh);
	free(s->origins);
	free(s->found);
	free(s->by_seq);
	free(s->unsure_batches.at);
	free(s->unsure_chunks.at);
	bytes_done(&s->plain);
	bytes_done(&s->part);
}

/* A source of which neither its row nor a chunk is left. */
static void give_id(struct salvage *s, struct origin *origin)
{
	int64_t highest = 0;

	for (size_t i = 0; i < s->n_origins; i++) {
		if (s->origins[i].source->now.id > highest)
			highest = s->origins[i].source->now.id;
	}
	if (origin->source->now.id == 0)
		origin->source->now.id = highest + 1;
}

/* For all sources before any is sealed, which deletes the parts of what was given up. */
static int judge_source(struct salvage *s, struct origin *origin)
{
	int r = queue_begin(s->fresh, s->err);

	if (r < 0)
		return r;
	give_id(s, origin);
	r = salvage_resolve(s, origin);
	if (r == 0)
		r = salvage_mend_batches(s, origin);
	return queue_end(s->fresh, r, s->err);
}

static int settle_source(struct salvage *s, struct origin *origin)
{
	int r = salvage_settle(s, origin);

	if (r == 0)
		r = queue_begin(s->fresh, s->err);
	if (r < 0)
		return r;
	r = salvage_deliveries(s, origin);
	if (r == 0)
		r = salvage_gaps(s, origin);
	s->result.records += origin->kept;
	return queue_end(s->fresh, r, s->err);
}

/* What has come to its end is not taken over. */
static int trim(struct salvage *s)
{
	int r = queue_run(s->fresh, SQL_SALVAGE_DELIVERED, NULL, 0, s->err);

	if (r == 0)
		r = queue_run(s->fresh, SQL_SALVAGE_DELIVERIES, NULL, 0, s->err);
	if (r == 0)
		r = queue_step(s->fresh, SQL_SALVAGE_COUNT, s->err);
	if (r == 1)
		s->result.batches = (uint64_t)queue_number(s->fresh, SQL_SALVAGE_COUNT, 0);
	queue_reset(s->fresh, SQL_SALVAGE_COUNT);
	return r < 0 ? r : 0;
}

static int take_over(struct salvage *s)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < s->n_known; i++) {
		/* A source that is configured and of which nothing is left had something, for all that is known. */
		if (s->known[i].source && s->known[i].seq != 1 && !salvage_origin(s, s->known[i].source))
			r = -ENOMEM;
		if (s->fresh->last_batch < s->known[i].batch)
			s->fresh->last_batch = s->known[i].batch;
	}
	if (r == 0)
		r = salvage_rows(s);
	if (r == 0)
		r = salvage_clean_books(s);
	if (r == 0)
		r = salvage_list_batches(s);
	if (r == 0)
		r = salvage_data(s);
	if (r == 0)
		r = salvage_judge_batches(s);
	for (size_t i = 0; r == 0 && i < s->n_origins; i++)
		r = judge_source(s, &s->origins[i]);
	if (r == 0)
		r = salvage_delete_chunks(s, VERSION(0, 1), INT64_MAX); /* staged ones that nothing came of */
	for (size_t i = 0; r == 0 && i < s->n_origins; i++)
		r = settle_source(s, &s->origins[i]);
	return r == 0 ? trim(s) : r;
}

static int put_in_place(struct salvage *s, const char *path)
{
	char aside[PATH_LONGEST], whole[PATH_LONGEST];
	int r = name_aside(path, s->now_ms, aside, s->err);

	queue_shut(s->fresh);
	if (r == 0)
		r = full_path(whole, path, WHOLE, s->err);
	if (r == 0)
		r = sync_file(s->fresh->path, s->err);
	if (r == 0)
		r = move(s->fresh->path, whole, s->err);
	if (r == 0)
		r = change_places(path, aside, s->err);
	s->result.at_ms = s->now_ms;
	snprintf(s->result.aside, sizeof s->result.aside, "%.511s", aside);
	return r;
}

int salvage_run(const char *path, const struct queue_identity *identity, const struct salvage_known *known,
                size_t n_known, struct queue_salvage *ret_salvage, struct err *err)
{
	struct salvage s = { .known = known, .n_known = n_known, .err = err };
	struct err ignored;
	int r = check_asides(path, err);

	if (r == 0)
		r = init(&s, path, identity);
	if (r == 0)
		r = take_over(&s);
	if (r == 0)
		r = put_in_place(&s, path);
	if (r == 0)
		*ret_salvage = s.result;
	done(&s);
	if (r < 0 && is_there(path))
		delete_fresh(path, &ignored);
	return r;
}
