/* SPDX-License-Identifier: Apache-2.0 */
/* From a path to an open buffer, and back there after damage: looking, loading, salvaging. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buffer/queue_private.h"
#include "buffer/salvage.h"

#define LINKS_MAX 8

bool queue_is_sound(const struct queue *q)
{
	return q->db && q->loaded && !q->damaged;
}

bool queue_is_salvaging(const struct queue *q)
{
	return atomic_load(&q->salvaging);
}

const struct queue_salvage *queue_last_salvage(const struct queue *q)
{
	return &q->salvage;
}

/* --- Opening --- */

/* SQLite's WAL stands beside the file itself, not beside a link to it; and so does all that we put there. */
static int follow_link(struct queue *q, struct err *err)
{
	const char *slash = strrchr(q->path, '/');
	char target[4096], *path = NULL;
	ssize_t n = readlink(q->path, target, sizeof target - 1);

	if (n < 0)
		return err_place(err, -errno, "buffer", q->path);
	target[n] = '\0';
	if (asprintf(&path, "%.*s%s", target[0] != '/' && slash ? (int)(slash - q->path) + 1 : 0, q->path, target) < 0)
		return err_fail(err, -ENOMEM, "buffer: no memory");
	free(q->path);
	q->path = path;
	return 0;
}

static int follow_links(struct queue *q, struct err *err)
{
	struct stat st;
	int r = 0;

	for (int n = 0; r == 0 && lstat(q->path, &st) == 0 && S_ISLNK(st.st_mode); n++)
		r = n < LINKS_MAX ? follow_link(q, err)
		                  : err_fail(err, -ELOOP, "the buffer \"%s\" is a link to a link, and so on", q->path);
	return r;
}

static int look(struct queue *q, struct err *err)
{
	int fd = -1, r = follow_links(q, err);

	if (r == 0)
		r = queue_lock(q, &fd, err);
	/* Before anything else, but not while another process is at it. */
	if (r == 0)
		r = salvage_finish(q->path, err);
	if (r >= 0 && fd < 0)
		r = queue_lock(q, &fd, err);
	if (r >= 0)
		r = queue_look(q, err);
	if (fd >= 0)
		close(fd);
	return r;
}

static int load(struct queue *q, struct err *err)
{
	int r = queue_open_file(q, err);

	if (r == 0)
		r = queue_load(q, err);
	if (r == 0)
		r = queue_judge(q, err);
	return r == 0 && q->bounds.max_size > 0 ? queue_take_bounds(q, err) : r;
}

/* Where a load finds damage behind the sources, what it knows of these stays for the salvage. */
static int open_sound(struct queue *q, struct err *err)
{
	int r;

	queue_forget(q);
	q->damaged = false;
	r = look(q, err);
	if (r == 0)
		r = load(q, err);
	queue_drop_tail(q);
	q->loaded = r == 0;
	queue_note_files(q);
	if (r == 0)
		return 0;
	queue_shut(q);
	if (r != -EBADMSG || !q->marked)
		queue_forget(q);
	return r == -EBUSY ? queue_name_owner(q->path, err) : r;
}

/* --- Salvaging --- */

struct known {
	struct salvage_known *sources;
	const char **stores; /* STORES_MAX for each */
};

static int list_known(const struct queue *q, struct known *known, struct err *err)
{
	known->sources = calloc(q->n_sources + 1, sizeof *known->sources);
	known->stores = calloc((q->n_sources + 1) * q->n_stores + 1, sizeof *known->stores);
	if (!known->sources || !known->stores)
		return err_fail(err, -ENOMEM, "buffer: no memory");
	for (size_t i = 0; i <= q->n_sources; i++) {
		const struct source *source = i < q->n_sources ? q->sources[i] : NULL;
		const struct route *route = source ? &source->route : &q->fallback;
		const char **stores = known->stores + i * q->n_stores;
		struct salvage_known *k = &known->sources[i];

		*k = (struct salvage_known){ .running = q->loaded, .stores = stores };
		for (size_t j = 0; j < q->n_stores; j++) {
			if (route->stores >> j & 1)
				stores[k->n_stores++] = q->stores[j].name;
		}
		if (!source)
			continue;
		k->source = source->name;
		if (!q->loaded && !q->marked)
			continue;
		k->seq = source->now.seq;
		k->fetch = source->now.fetch;
		k->batch = q->last_batch;
		k->ticket = source->now.staged.given_up ? 0 : source->now.staged.ticket;
		k->state = source->now.state;
		k->state_len = source->now.state_len;
	}
	return 0;
}

/* What is on its way goes on if all that was staged of it is found again. */
static void note_staged(struct queue *q)
{
	for (size_t i = 0; q->loaded && i < q->n_sources; i++) {
		struct source *source = q->sources[i];

		source->going_on = source->now.staged;
		if (source->going_on.given_up)
			source->going_on = (struct staged){ .records = 0 };
	}
}

static int run_salvage(struct queue *q, struct err *err)
{
	const struct queue_identity identity = { .device = q->device, .kernel_boot_id = q->kernel_boot_id };
	struct known known = { .sources = NULL };
	int r = list_known(q, &known, err);

	if (r == 0)
		r = salvage_run(q->path, &identity, known.sources, q->n_sources + 1, &q->salvage, err);
	free(known.sources);
	free(known.stores);
	return r;
}

/* Afterwards it is closed, and sound. */
static int salvage(struct queue *q, struct err *err)
{
	int fd = -1, r;

	queue_shut(q);
	r = queue_lock(q, &fd, err);
	if (r == 0)
		r = salvage_finish(q->path, err);
	if (r == 0)
		r = run_salvage(q, err);
	if (fd >= 0)
		close(fd);
	if (r < 0)
		return r;
	note_staged(q);
	q->loaded = false;
	return 0;
}

int queue_start(struct queue *q, bool do_salvage, struct err *err)
{
	int r, salvaged = 0;

	if (queue_is_sound(q))
		return 0;
	r = q->loaded ? err_fail(&q->said, -EBADMSG, "buffer \"%s\" is damaged, and is to be salvaged", q->path)
	              : open_sound(q, &q->said);
	if (r == -EBADMSG && do_salvage) {
		atomic_store(&q->salvaging, true);
		r = salvage(q, &q->said);
		if (r == 0) {
			salvaged = 1;
			r = open_sound(q, &q->said);
		}
		atomic_store(&q->salvaging, false);
	}
	q->status = r;
	if (r < 0 && err)
		*err = q->said;
	return r < 0 ? r : salvaged;
}

int queue_open(const char *path, const struct queue_identity *identity, struct queue **ret_queue, struct err *err)
{
	struct queue *q = queue_new(path, identity);
	int r = q ? queue_start(q, true, err) : err_fail(err, -ENOMEM, "buffer: no memory");

	if (r < 0) {
		queue_close(q);
		return r;
	}
	*ret_queue = q;
	return 0;
}
