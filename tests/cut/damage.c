/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/cut/damage.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/cut/chance.h"
#include "tests/cut/shim.h"

#define CEILING ((size_t)256 << 20)
#define HURT    64 /* bytes of one place */
#define BATCHES 1000

static const char *const suffixes[2] = { "", "-wal" };

/* --- Files --- */

static void read_file(const char *path, struct bytes *content)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	if (fstat(fd, &st) < 0 || bytes_reserve(content, (size_t)st.st_size + 1) < 0 ||
	    read(fd, content->data, (size_t)st.st_size) != st.st_size)
		abort();
	content->len = (size_t)st.st_size;
	close(fd);
}

static void write_file(const char *path, const struct bytes *content)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);

	if (fd < 0 || write(fd, content->data, content->len) != (ssize_t)content->len)
		abort();
	close(fd);
}

static void put_files(const struct damage *damage, const struct drive *d)
{
	char path[200];

	drive_empty(d);
	shim_settle();
	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof path, "%s%s", d->path, suffixes[i]);
		if (damage->files[i].len > 0)
			write_file(path, &damage->files[i]);
	}
}

/* --- Damage --- */

static void hurt(struct bytes *file, uint64_t *state)
{
	size_t at = chance(state, (uint32_t)file->len), len = 1 + chance(state, HURT);

	for (size_t i = at; i < at + len && i < file->len; i++)
		file->data[i] = (unsigned char)chance(state, 256);
}

static void hurt_files(struct bytes files[2], uint64_t *state)
{
	uint32_t places = 1 + chance(state, 8);

	for (uint32_t i = 0; i < places; i++) {
		struct bytes *file = &files[chance(state, 2)];

		if (file->len > 0)
			hurt(file, state);
	}
	if (chance(state, 4) == 0)
		memset(files[0].data, 0, 4096);
	if (chance(state, 8) == 0)
		files[0].len = chance(state, (uint32_t)files[0].len / 4096) * (size_t)4096 + 4096;
}

/* --- What is left --- */

static void add_lines(struct queue *q, const char *source, struct bytes *text)
{
	uint8_t state[SINK_STATE_MAX];
	size_t len = queue_source_state(q, source, state);
	uint64_t next = 0;
	struct err err = { .text = "" };
	int r = queue_read(q, source, 1, SIZE_MAX, text, &next, &err);

	bytes_printf(text, "%s: %d %s, next %" PRIu64 ", state of %zu\n", source, r, err.text, next, len);
	if (bytes_add(text, state, len) < 0)
		abort();
}

static void add_batch(struct queue *q, const struct batch *batch, struct bytes *text)
{
	struct err err;
	int r = 0;

	bytes_printf(text, "batch %" PRId64 " %s %" PRIu64 " bytes, delivered %" PRId64 " to %zu\n", batch->id,
	             batch->key, batch->bytes, batch->delivered_ms, batch->stores_done);
	for (int n = 0; r == 0; n++)
		r = queue_read_part(q, batch->id, n, text, &err);
	bytes_printf(text, "\n%d\n", r);
}

static void add_books(struct queue *q, const char *store, struct bytes *text)
{
	struct queue_range page[16], after;
	const struct queue_range *behind = NULL;
	struct err err;
	int n;

	while ((n = queue_books(q, store, INT64_MIN, behind, page, 16, &err)) > 0) {
		for (int i = 0; i < n; i++)
			bytes_printf(text, "%s %d %s %s %" PRIu64 " %" PRIu64 "\n", store, (int)page[i].kind,
			             page[i].source, page[i].boot, page[i].first_seq, page[i].last_seq);
		after = page[n - 1];
		behind = &after;
	}
	bytes_printf(text, "%s %d\n", store, n);
}

static void add_damage(struct queue *q, struct bytes *text)
{
	struct queue_damage damage, after;
	struct err err;
	int r = queue_next_damage(q, NULL, &damage, &err);

	for (; r == 1; r = queue_next_damage(q, &after, &damage, &err)) {
		bytes_printf(text, "damage %s %s %" PRIu64 " %" PRIu64 "\n", damage.source, damage.boot,
		             damage.first_seq, damage.last_seq);
		after = damage;
	}
	bytes_printf(text, "damage %d\n", r);
}

static void add_all(struct queue *q, struct bytes *text)
{
	static struct batch batches[BATCHES];
	struct err err;
	int n = queue_batches(q, batches, BATCHES, &err);

	for (int i = 0; i < ORACLE_SOURCES; i++)
		add_lines(q, oracle_sources[i], text);
	for (int i = 0; i < n; i++)
		add_batch(q, &batches[i], text);
	for (int i = 0; i < ORACLE_STORES; i++)
		add_books(q, oracle_stores[i], text);
	add_damage(q, text);
}

/* --- One without cuts, one with --- */

bool damage_make(struct damage *ret_damage, struct drive *d)
{
	struct damage damage = { .r = 0 };
	char path[200];

	bytes_init(&damage.left, CEILING);
	for (int i = 0; i < 2; i++) {
		bytes_init(&damage.files[i], CEILING);
		snprintf(path, sizeof path, "%s%s", d->path, suffixes[i]);
		read_file(path, &damage.files[i]);
	}
	*ret_damage = damage;
	if (damage.files[0].len < 8192) {
		damage_done(ret_damage);
		return false;
	}
	hurt_files(ret_damage->files, &d->chance);
	put_files(ret_damage, d);
	ret_damage->r = drive_start(d);
	if (ret_damage->r == 0)
		add_all(d->q, &ret_damage->left);
	drive_close(d);
	put_files(ret_damage, d);
	return true;
}

bool damage_judge(const struct damage *damage, struct drive *d)
{
	struct bytes left;
	size_t same = 0;
	bool right;
	int r;

	bytes_init(&left, CEILING);
	r = drive_start(d);
	if (r == 0)
		add_all(d->q, &left);
	right = r == damage->r && left.len == damage->left.len &&
	        (left.len == 0 || memcmp(left.data, damage->left.data, left.len) == 0);
	while (same < left.len && same < damage->left.len && left.data[same] == damage->left.data[same])
		same++;
	if (!right)
		oracle_fail(
		        &d->oracle,
		        "salvaged without a power cut: %d, %zu bytes; with: %d, %zu; from %zu on %.200s; and %.200s",
		        damage->r, damage->left.len, r, left.len, same,
		        damage->left.len > 0 ? (char *)damage->left.data + same : "",
		        left.len > 0 ? (char *)left.data + same : "");
	bytes_done(&left);
	return right;
}

void damage_done(struct damage *damage)
{
	bytes_done(&damage->left);
	for (int i = 0; i < 2; i++)
		bytes_done(&damage->files[i]);
}
