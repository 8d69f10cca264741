/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Batches come from one of two places (struct origin), and are written by the store `file`, whose way it is already to
 * leave nothing that is not whole. Its mark in the folder, which it leaves there too, keeps an export from going to the
 * bare mount point of a stick that was pulled out.
 */
#include "agent/export.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/opening.h"
#include "base/clock.h"
#include "board/board.h"
#include "buffer/pack.h"
#include "buffer/store_file.h"
#include "cli/answer.h"
#include "cli/cli.h"
#include "cli/client.h"

#define LIST      ".millrace-export"
#define LIST_TMP  LIST ".tmp"
#define PAGE      256
#define DAEMON    500 /* batches in one of its answers */
#define PATH_SIZE 4096
#define TRIES     3

struct origin;

/* How a batch was read: 0, or */
enum { READ_GONE = 1, READ_DAMAGED = 2 }; /* all stores have it by now; what is wrong is told */

struct origin_ops {
	/* The next batches with an id above `after`; how many, 0 at the end, or -1: nothing more can be had. */
	int (*list)(struct origin *origin, int64_t after, struct batch *ret_batches, struct err *err);

	/* Its bytes, to on_piece, which returns 0 as long as it takes them. READ_…, or -1: nothing more can be had. */
	int (*read)(struct origin *origin, const struct batch *batch,
	            int (*on_piece)(void *arg, const void *data, size_t len), void *arg, struct err *err);
};

struct origin {
	const struct origin_ops *ops;
	const char *socket_path;
	struct queue *queue;
};

struct export
{
	struct origin *origin;
	const char *folder;
	struct store *store;
	json_t *list;       /* key -> its line, those of earlier exports too */
	const char *buffer; /* where what is exported comes from; NULL: nobody knows */
	struct err err;
	int store_status; /* of the object at hand */

	int64_t batches, records, bytes, already, damaged, in_the_way;
	int64_t left_out, left_out_bytes; /* for want of room */
	uint64_t too_large;               /* so many bytes found none: nor do more; 0: there was room for all */
	int64_t kept_back;                /* records that wait for the clock */
	int status;
};

static void complain(struct export *x, const char *prefix)
{
	if (prefix)
		err_prefix(&x->err, "%s", prefix);
	cli_complain(x->err.text);
	x->err.text[0] = '\0';
}

/* The worst that happened: a stop counts most. */
static void note(struct export *x, int status)
{
	if (x->status == CLI_OK)
		x->status = status;
}

/* --- From the daemon --- */

static bool read_hex(const char *text, uint8_t sha256[SHA256_SIZE])
{
	for (int i = 0; i < SHA256_SIZE; i++, text += 2)
		if (sscanf(text, "%2hhx", &sha256[i]) != 1)
			return false;
	return *text == '\0';
}

static bool read_batch(const json_t *json, struct batch *ret_batch)
{
	struct batch batch = {
		.id = answer_number(json, "id"),
		.bytes = (uint64_t)answer_number(json, "bytes"),
		.records = (uint64_t)answer_number(json, "records"),
	};
	struct object_name name;
	const char *key = answer_text(json, "key");

	if (object_read_key(key, &name) < 0 || !read_hex(answer_text(json, "sha256"), batch.sha256))
		return false;
	snprintf(batch.key, sizeof batch.key, "%s", key);
	*ret_batch = batch;
	return true;
}

static int list_daemon(struct origin *origin, int64_t after, struct batch *ret_batches, struct err *err)
{
	char path[96];
	json_t *answer, *array, *json;
	size_t i;
	int n = 0;

	snprintf(path, sizeof path, "/v1/batches?waiting=1&after=%" PRId64, after);
	if (client_ask(origin->socket_path, "GET", path, NULL, &answer, err) != CLI_OK)
		return -1;
	array = json_object_get(answer, "batches");
	json_array_foreach(array, i, json)
	{
		if (n < DAEMON && read_batch(json, &ret_batches[n]))
			n++;
	}
	json_decref(answer);
	return n;
}

static bool is_there(const struct origin *origin)
{
	struct err ignored;
	json_t *answer;
	int rc = client_ask(origin->socket_path, "GET", "/v1/status", NULL, &answer, &ignored);

	if (rc == CLI_OK)
		json_decref(answer);
	return rc == CLI_OK;
}

static int read_daemon(struct origin *origin, const struct batch *batch,
                       int (*on_piece)(void *arg, const void *data, size_t len), void *arg, struct err *err)
{
	char path[96];
	int rc;

	snprintf(path, sizeof path, "/v1/batches/%" PRId64 "/object", batch->id);
	rc = client_fetch(origin->socket_path, path, on_piece, arg, err);
	switch (rc) {
	case CLI_OK:
	case CLI_CANTCREAT: /* on_piece knows better */
		return 0;
	case CLI_USAGE: /* 404 */
		return READ_GONE;
	default:
		return is_there(origin) ? READ_DAMAGED : -1;
	}
}

static const struct origin_ops daemon_ops = { .list = list_daemon, .read = read_daemon };

/* --- From the buffer --- */

static int list_queue(struct origin *origin, int64_t after, struct batch *ret_batches, struct err *err)
{
	return queue_batches_waiting(origin->queue, after, ret_batches, PAGE, err);
}

static int read_queue(struct origin *origin, const struct batch *batch,
                      int (*on_piece)(void *arg, const void *data, size_t len), void *arg, struct err *err)
{
	struct bytes part;
	uint64_t read = 0;
	int r = 0;

	bytes_init(&part, PACK_PART);
	for (int n = 0; r == 0 && read < batch->bytes; n++) {
		bytes_clear(&part);
		r = queue_read_part(origin->queue, batch->id, n, &part, err);
		if (r == 0 && on_piece(arg, part.data, part.len) != 0)
			break;
		read += part.len;
	}
	bytes_done(&part);
	return r < 0 ? READ_DAMAGED : 0;
}

static const struct origin_ops queue_ops = { .list = list_queue, .read = read_queue };

/* --- The list --- */

static void read_list(struct export *x)
{
	char path[PATH_SIZE], line[PATH_SIZE];
	FILE *file;

	snprintf(path, sizeof path, "%s/" LIST, x->folder);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof line, file)) {
		json_t *entry = json_loads(line, 0, NULL);
		const char *key = json_string_value(json_object_get(entry, "key"));

		if (key)
			json_object_set(x->list, key, entry);
		json_decref(entry);
	}
	if (file)
		fclose(file);
}

static int add_to_list(struct export *x, const struct batch *batch)
{
	char hex[SHA256_HEX];
	json_t *entry =
	        json_pack("{s:s, s:I, s:s, s:I}", "key", batch->key, "bytes", (json_int_t)batch->bytes, "sha256",
	                  sha256_hex(batch->sha256, SHA256_HEX - 1, hex), "records", (json_int_t)batch->records);

	return json_object_set_new(x->list, batch->key, entry);
}

static int write_lines(struct export *x, int folder)
{
	int fd = openat(folder, LIST_TMP, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
	FILE *file = fd >= 0 ? fdopen(fd, "w") : NULL;
	const char *key;
	json_t *entry;
	bool written = file != NULL;

	if (!file) {
		if (fd >= 0)
			close(fd);
		return -1;
	}
	json_object_foreach(x->list, key, entry)
	{
		written = written && json_dumpf(entry, file, JSON_COMPACT) == 0 && fputc('\n', file) != EOF;
	}
	written = written && fflush(file) == 0 && fsync(fd) == 0;
	return fclose(file) == 0 && written ? 0 : -1;
}

/* For import to compare with; without it the objects are as good. */
static void write_list(struct export *x)
{
	int folder = open(x->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool done = folder >= 0 && write_lines(x, folder) == 0 && renameat(folder, LIST_TMP, folder, LIST) == 0 &&
	            fsync(folder) == 0;

	if (!done) {
		err_fail(&x->err, 0, "\"%s/" LIST "\": %s; import goes without it", x->folder, strerror(errno));
		complain(x, NULL);
		note(x, CLI_CANTCREAT);
		if (folder >= 0)
			unlinkat(folder, LIST_TMP, 0);
	}
	if (folder >= 0)
		close(folder);
}

/* --- A batch --- */

static int on_piece(void *arg, const void *data, size_t len)
{
	struct export *x = arg;

	x->store_status = x->store->ops->write(x->store, data, len, &x->err);
	return x->store_status;
}

static bool stands(const struct export *x, const struct batch *batch)
{
	char path[PATH_SIZE];

	snprintf(path, sizeof path, "%s/%s", x->folder, batch->key);
	return access(path, F_OK) == 0;
}

static int leave_out(struct export *x, const struct batch *batch)
{
	if (x->left_out == 0) {
		err_fail(&x->err, 0, "\"%s\" is full: what has no room is left out, what is written is whole",
		         x->folder);
		complain(x, NULL);
	}
	if (x->too_large == 0 || batch->bytes < x->too_large)
		x->too_large = batch->bytes;
	x->left_out++;
	x->left_out_bytes += (int64_t)batch->bytes;
	note(x, CLI_CANTCREAT);
	return 0;
}

/* The folder's part of it failed. 0: of this object alone, -1: of all that follow too. */
static int judge_store(struct export *x, const struct batch *batch)
{
	if (x->store_status == -EEXIST) {
		complain(x, NULL);
		x->in_the_way++;
		note(x, CLI_CANTCREAT);
		return 0;
	}
	if (x->store_status == -EBADMSG) {
		complain(x, "a batch is damaged");
		x->damaged++;
		note(x, CLI_DATA);
		return 0;
	}
	if (x->store_status == -ENOSPC || x->store_status == -EDQUOT)
		return leave_out(x, batch);
	complain(x, NULL);
	x->status = CLI_CANTCREAT;
	return -1;
}

static void count(struct export *x, const struct batch *batch, bool already)
{
	if (already) {
		x->already++;
	} else {
		x->batches++;
		x->records += (int64_t)batch->records;
		x->bytes += (int64_t)batch->bytes;
	}
	if (add_to_list(x, batch) < 0)
		note(x, CLI_ATTENTION); /* no memory */
}

/* READ_…, or -1: nothing more can be done; the store's part of it is in x->store_status. */
static int write_batch(struct export *x, const struct batch *batch, bool already)
{
	int r = 0;

	x->err.text[0] = '\0';
	x->store_status = x->store->ops->begin(x->store, batch->key, batch->bytes, batch->sha256, &x->err);
	if (x->store_status == 0 && !already)
		r = x->origin->ops->read(x->origin, batch, on_piece, x, &x->err);
	if (x->store_status == 0 && r == 0)
		x->store_status = x->store->ops->finish(x->store, &x->err);
	if (x->store_status < 0 || r != 0)
		x->store->ops->abort(x->store);
	return r;
}

/* 0: go on with the next, -1: nothing more can be done. */
static int export_batch(struct export *x, const struct batch *batch)
{
	bool already = stands(x, batch);
	int r;

	if (!already && x->too_large > 0 && batch->bytes >= x->too_large)
		return leave_out(x, batch);
	r = write_batch(x, batch, already);
	/* A daemon with too many readers has none too many a moment later. */
	for (int tries = 1; r == READ_DAMAGED && x->origin->socket_path && tries < TRIES; tries++) {
		sleep(1);
		r = write_batch(x, batch, already);
	}
	if (r == READ_DAMAGED) {
		complain(x, batch->key);
		x->damaged++;
		note(x, CLI_DATA);
	} else if (r < 0) {
		complain(x, NULL);
		x->status = CLI_UNAVAILABLE;
	} else if (r == 0 && x->store_status < 0) {
		return judge_store(x, batch);
	} else if (r == 0) {
		count(x, batch, already);
	}
	return r < 0 ? -1 : 0;
}

static void export_batches(struct export *x)
{
	struct batch *batches = calloc(DAEMON, sizeof *batches);
	int64_t after = 0;
	int n = batches ? 1 : -1, r = 0;

	while (r == 0 && n > 0) {
		n = x->origin->ops->list(x->origin, after, batches, &x->err);
		for (int i = 0; r == 0 && i < n; i++) {
			after = batches[i].id;
			r = export_batch(x, &batches[i]);
		}
	}
	if (n < 0) {
		complain(x, "not all could be had");
		x->status = x->origin->queue ? CLI_DATA : CLI_UNAVAILABLE;
	}
	free(batches);
}

/* --- The report --- */

static void print_text(const struct export *x)
{
	char batches[UNITS_TEXT_MAX], records[UNITS_TEXT_MAX], text[UNITS_TEXT_MAX];

	printf("exported %s (%s, %s) to %s", answer_plural(x->batches, "batch", "es", batches),
	       answer_plural(x->records, "record", "s", records), units_volume(x->bytes, text), x->folder);
	if (x->already)
		printf("; already there: %" PRId64, x->already);
	if (x->in_the_way)
		printf("; something else stands in the way of: %" PRId64, x->in_the_way);
	if (x->damaged)
		printf("; damaged: %" PRId64, x->damaged);
	puts("");
	if (x->left_out)
		printf("left out for want of room: %s of %s; export once more to another folder, or when there is "
		       "room\n",
		       answer_plural(x->left_out, "batch", "es", batches), units_volume(x->left_out_bytes, text));
	if (x->kept_back)
		printf("not exported, until the clock is right: %s; to have them now stop the daemon, and export once "
		       "more\n",
		       answer_plural(x->kept_back, "record", "s", text));
	puts("nothing was deleted here: the stores still get all of it, if they can be reached");
}

static void print_json(const struct export *x)
{
	json_t *json =
	        json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "folder", x->folder, "batches",
	                  (json_int_t)x->batches, "records", (json_int_t)x->records, "bytes", (json_int_t)x->bytes,
	                  "already", (json_int_t)x->already, "in_the_way", (json_int_t)x->in_the_way, "damaged",
	                  (json_int_t)x->damaged, "left_out", (json_int_t)x->left_out, "left_out_bytes",
	                  (json_int_t)x->left_out_bytes, "kept_back", (json_int_t)x->kept_back);

	fputs(json && json_dumpf(json, stdout, JSON_COMPACT) == 0 ? "\n" : "", stdout);
	json_decref(json);
}

/* --- From begin to end --- */

/* What is there already: a missing folder is a stick that is not mounted, and its copy would stand on the card. */
static bool begin(struct export *x)
{
	signal(SIGPIPE, SIG_IGN);
	x->list = json_object();
	x->store = store_file_new(x->folder, false);
	if (!x->store || !x->list) {
		cli_complain("there is not enough memory");
		x->status = CLI_ATTENTION;
	} else if (x->store->ops->probe(x->store, false, &x->err) < 0) {
		complain(x, NULL);
		x->status = CLI_CANTCREAT;
	}
	return x->status == CLI_OK;
}

static void warn_of_one_card(struct export *x)
{
	struct stat buffer, folder;

	if (!x->buffer || stat(x->buffer, &buffer) < 0 || stat(x->folder, &folder) < 0 ||
	    buffer.st_dev != folder.st_dev)
		return;
	err_fail(&x->err, 0, "\"%s\" is on the buffer's own file system: if that card dies, both are gone", x->folder);
	complain(x, NULL);
}

static void write_all(struct export *x, bool json)
{
	warn_of_one_card(x);
	read_list(x);
	export_batches(x);
	if (json_object_size(x->list) > 0)
		write_list(x);
	(json ? print_json : print_text)(x);
}

static int end(struct export *x)
{
	if (x->store)
		x->store->ops->free(x->store);
	json_decref(x->list);
	return cli_flush_output(x->status);
}

/* Sealed is sealed: where some cannot be, the rest is exported all the same. */
static void flush_daemon(struct export *x, const char *socket_path)
{
	json_t *answer;
	int rc = client_ask(socket_path, "POST", "/v1/flush", NULL, &answer, &x->err);

	if (rc == CLI_OK) {
		json_decref(answer);
	} else {
		note(x, rc);
		complain(x, "not all could be sealed");
	}
}

/* --- Public functions --- */

int export_by_daemon(const char *socket_path, const char *folder, bool json)
{
	struct origin origin = { .ops = &daemon_ops, .socket_path = socket_path };
	struct export x = { .origin = &origin, .folder = folder };
	json_t *status = NULL;
	struct err ignored;

	if (begin(&x)) {
		flush_daemon(&x, socket_path);
		client_ask(socket_path, "GET", "/v1/status", NULL, &status, &ignored);
		x.kept_back = answer_number(json_object_get(status, "clock"), "unsynced_records");
		x.buffer = json_string_value(json_object_get(json_object_get(status, "buffer"), "path"));
		write_all(&x, json);
	}
	json_decref(status);
	return end(&x);
}

/* The clock is asked once: what came before it was right gets its time if that is known now, and is not waited for. */
static void seal_all(struct export *x, struct queue *queue)
{
	int64_t wall_ms = clock_wall_ms(), mono_ms = clock_mono_ms();
	struct batch batch;
	int r;

	if (board_clock_state("") == BOARD_CLOCK_SYNCED)
		queue_set_clock(queue, true, wall_ms, mono_ms, mono_ms, &x->err);
	do {
		r = queue_seal(queue, wall_ms, mono_ms, true, &batch, &x->err);
		if (r < 0) {
			complain(x, "not all could be sealed");
			note(x, CLI_ATTENTION);
		}
	} while (r != 0 && queue_is_sound(queue));
}

int export_alone(const struct config *config, const char *folder, bool json)
{
	struct origin origin = { .ops = &queue_ops };
	struct export x = { .origin = &origin, .folder = folder, .buffer = config->buffer_path };
	int r;

	if (begin(&x)) {
		r = opening_alone(config, "export", &origin.queue, &x.err);
		if (r < 0) {
			complain(&x, NULL);
			x.status = opening_status(r);
		} else {
			if (queue_last_salvage(origin.queue)->lost_records > 0)
				note(&x, CLI_DATA);
			seal_all(&x, origin.queue);
			write_all(&x, json);
		}
	}
	queue_close(origin.queue);
	return end(&x);
}
