/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/examine.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/s3_call.h"
#include "base/clock.h"
#include "base/container.h"
#include "buffer/content.h"
#include "buffer/pack.h"
#include "buffer/store_file.h"

#define READ_MAX   (UINT64_C(1) << 27) /* of what stands there: more is no object of Millrace */
#define STEP_BYTES (1024 * 1024)       /* of a file, read by one job */
#define PIECE      ((size_t)64 * 1024)

struct examine {
	struct examine_env env;
	const struct config_store *stores[EXAMINE_STORES];
	size_t n_stores, store; /* store: the one at hand */
	void (*on_done)(void *arg, json_t *conflicts);
	void *arg;
	bool canceled;
	json_t *conflicts;

	/* Ours. */
	int64_t id;
	struct batch batch;
	int part;
	struct bytes data;
	struct content_facts ours;
	struct err ours_err; /* why it cannot be read */

	/* What is read: ours or theirs. */
	struct content *content;
	struct job job;
	int status; /* 1: all was read */
	struct err err;

	struct worker *worker;
	int fd; /* of a `file` store's object; -1: none is open */
	struct s3 *s3;
	struct s3_call call;
};

static void next_store(struct examine *x);

/* --- The end --- */

static void on_worker_closed(void *arg)
{
	struct examine *x = arg;

	content_free(x->content);
	bytes_done(&x->data);
	if (x->fd >= 0)
		close(x->fd);
	if (x->canceled) {
		json_decref(x->conflicts);
		x->conflicts = NULL;
	}
	x->on_done(x->arg, x->conflicts);
	free(x);
}

static void end(struct examine *x)
{
	s3_call_drop(&x->call);
	s3_free(x->s3);
	x->s3 = NULL;
	worker_close(x->worker, on_worker_closed, x);
}

static void give_up(struct examine *x)
{
	json_decref(x->conflicts);
	x->conflicts = NULL;
	end(x);
}

/* --- A store's part of the answer --- */

static json_t *time_value(int64_t wall_ms)
{
	char text[UNITS_TEXT_MAX];

	return wall_ms ? json_string(units_time(wall_ms, text)) : json_null();
}

/* `wrong`: why it is none of Millrace's; "": it is. */
static json_t *describe(const struct content_facts *f)
{
	char hex[SHA256_HEX];

	return json_pack("{s:I, s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:o, s:o}", "bytes", (json_int_t)f->bytes,
	                 "sha256", sha256_hex(f->sha256, SHA256_HEX - 1, hex), "wrong", f->why, "source", f->source,
	                 "device", f->device, "boot", f->boot, "records", (json_int_t)f->records, "first_seq",
	                 (json_int_t)f->first_seq, "last_seq", (json_int_t)f->last_seq, "first",
	                 time_value(f->first_ms), "last", time_value(f->last_ms));
}

/* What a person can do. */
static const char *advise(const struct examine *x, const struct content_facts *theirs)
{
	const struct content_facts *ours = &x->ours;

	if (x->ours_err.text[0] || ours->why[0])
		return "the buffer's own copy is damaged: if what stands there is good, leave it; nothing better is "
		       "left "
		       "here";
	if (theirs->why[0])
		return "what stands there is no whole object of Millrace: move it away or delete it, and retry; ours "
		       "then "
		       "takes its place";
	if (strcmp(theirs->source, ours->source) == 0 && strcmp(theirs->device, ours->device) == 0 &&
	    strcmp(theirs->boot, ours->boot) == 0 && theirs->first_seq <= ours->first_seq &&
	    theirs->last_seq >= ours->last_seq)
		return "what stands there has these records too, perhaps compressed anew: keep a copy of it elsewhere, "
		       "delete it, and retry; ours, as it was sealed, then takes its place";
	return "what stands there has other records than its name says: move it to where it belongs, and retry; ours "
	       "then takes its place";
}

/* theirs NULL: it cannot be read, x->err says why. */
static void add_conflict(struct examine *x, const struct content_facts *theirs)
{
	const struct config_store *store = x->stores[x->store];
	json_t *conflict =
	        json_pack("{s:s, s:s, s:s, s:s, s:o, s:o, s:s}", "store", store->name, "place", store->place, "key",
	                  x->batch.key, "error", theirs ? x->ours_err.text : x->err.text, "ours", describe(&x->ours),
	                  "theirs", theirs ? describe(theirs) : json_null(), "advice", theirs ? advise(x, theirs) : "");

	if (!conflict || json_array_append_new(x->conflicts, conflict) < 0)
		give_up(x);
	else
		next_store(x);
}

/* There is nothing, or it is the batch. */
static bool is_well(const struct examine *x, const struct content_facts *theirs)
{
	return theirs->bytes == x->batch.bytes && memcmp(theirs->sha256, x->batch.sha256, SHA256_SIZE) == 0;
}

static void judge(struct examine *x)
{
	const struct content_facts *theirs = content_finish(x->content);

	if (is_well(x, theirs))
		next_store(x);
	else
		add_conflict(x, theirs);
}

/* Fresh for what is read next. */
static int renew(struct examine *x)
{
	content_free(x->content);
	x->content = content_new();
	x->err.text[0] = '\0';
	return x->content ? 0 : -ENOMEM;
}

static int add(struct examine *x, const void *data, size_t len)
{
	if (content_facts(x->content)->bytes + len > READ_MAX)
		return err_fail(&x->err, -EFBIG, "more than 128 MB stand there, which is no object of Millrace");
	content_add(x->content, data, len);
	return 0;
}

/* --- What stands in a folder --- */

static void shut(struct examine *x)
{
	if (x->fd >= 0)
		close(x->fd);
	x->fd = -1;
}

static int open_file(struct examine *x)
{
	const struct store_file_settings *settings = x->stores[x->store]->settings;
	char path[4096];
	struct stat st;

	snprintf(path, sizeof path, "%s/%s", settings->path, x->batch.key);
	x->fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (x->fd < 0)
		return err_fail(&x->err, -errno, "\"%s\": %s", path, strerror(errno));
	if (fstat(x->fd, &st) < 0 || !S_ISREG(st.st_mode))
		return err_fail(&x->err, -EEXIST, "\"%s\" is no regular file", path);
	return 0;
}

static int read_step(struct examine *x)
{
	char *piece = malloc(PIECE);
	ssize_t n = 1;
	int r = piece ? 0 : -ENOMEM;

	for (size_t step = 0; r == 0 && n > 0 && step < STEP_BYTES; step += (size_t)n) {
		n = read(x->fd, piece, PIECE);
		r = n < 0 ? err_fail(&x->err, -errno, "%s", strerror(errno)) : add(x, piece, (size_t)n);
	}
	free(piece);
	return r == 0 && n == 0 ? 1 : r;
}

static void file_work(struct job *job)
{
	struct examine *x = container_of(job, struct examine, job);
	int r = x->fd < 0 ? open_file(x) : 0;

	x->status = r == 0 ? read_step(x) : r;
}

static void on_file_read(struct job *job)
{
	struct examine *x = container_of(job, struct examine, job);

	if (x->canceled) {
		end(x);
	} else if (x->status == 0) {
		worker_submit(x->worker, &x->job);
	} else {
		shut(x);
		if (x->status == 1)
			judge(x);
		else if (x->status == -ENOENT)
			next_store(x);
		else
			add_conflict(x, NULL);
	}
}

static void read_file(struct examine *x)
{
	x->job = (struct job){ .work = file_work, .done = on_file_read };
	worker_submit(x->worker, &x->job);
}

/* --- What stands in an S3 --- */

static int on_object(struct s3_call *call, const void *data, size_t len)
{
	return add(container_of(call, struct examine, call), data, len);
}

static void send_get(struct examine *x);

static void on_judged(struct s3_call *call, enum s3_verdict verdict, const struct s3_answer *answer)
{
	struct examine *x = container_of(call, struct examine, call);

	if (x->canceled) {
		end(x);
	} else if (verdict == S3_SKEWED) {
		send_get(x);
	} else if (verdict == S3_DONE) {
		judge(x);
	} else if (verdict == S3_ABSENT) {
		next_store(x);
	} else {
		if (!x->err.text[0])
			x->err = call->err;
		if (!x->err.text[0])
			err_fail(&x->err, 0, "HTTP %ld", answer->status);
		add_conflict(x, NULL);
	}
}

static void send_get(struct examine *x)
{
	struct s3_request request;
	int r = renew(x);

	if (r == 0)
		r = s3_get(x->s3, x->batch.key, clock_wall_ms(), &request);
	if (r == 0)
		r = s3_call_send(&x->call, r, &request, 0);
	if (r < 0)
		give_up(x);
}

static void ask_s3(struct examine *x)
{
	const struct config_store *store = x->stores[x->store];

	s3_call_drop(&x->call);
	s3_free(x->s3);
	x->s3 = NULL;
	if (s3_new(store->settings, store->access_key, store->secret_key, &x->s3) < 0) {
		give_up(x);
		return;
	}
	s3_call_init(&x->call, x->env.http, store->settings, x->s3);
	x->call.on_object = on_object;
	x->call.on_judged = on_judged;
	send_get(x);
}

/* --- One store after the other --- */

static void look(struct examine *x)
{
	if (x->store == x->n_stores || x->canceled) {
		end(x);
	} else if (x->stores[x->store]->kind == &store_kind_s3) {
		ask_s3(x);
	} else if (renew(x) < 0) {
		give_up(x);
	} else {
		read_file(x);
	}
}

static void next_store(struct examine *x)
{
	x->store++;
	look(x);
}

/* --- Ours --- */

static void ours_work(struct job *job)
{
	struct examine *x = container_of(job, struct examine, job);

	x->status = x->batch.id ? 0 : queue_find_batch(x->env.queue, x->id, &x->batch, &x->err);
	if (x->status < 0)
		return;
	bytes_clear(&x->data);
	x->status = queue_read_part(x->env.queue, x->id, x->part, &x->data, &x->err);
	if (x->status < 0)
		return;
	content_add(x->content, x->data.data, x->data.len);
	x->part++;
	x->status = content_facts(x->content)->bytes >= x->batch.bytes;
}

static void on_ours_read(struct job *job)
{
	struct examine *x = container_of(job, struct examine, job);

	if (x->status == 0 && !x->canceled) {
		worker_submit(x->env.queue_worker, &x->job);
		return;
	}
	if (x->status < 0)
		x->ours_err = x->err;
	x->ours = *content_finish(x->content);
	if (x->batch.id)
		look(x);
	else
		end(x); /* it was deleted meanwhile */
}

/* --- Public functions --- */

int examine_start(const struct examine_env *env, int64_t batch, const struct config_store *const *stores,
                  size_t n_stores, void (*on_done)(void *arg, json_t *conflicts), void *arg,
                  struct examine **ret_examine)
{
	struct examine *x = calloc(1, sizeof *x);
	int r = -ENOMEM;

	assert(n_stores <= EXAMINE_STORES);
	if (!x)
		return -ENOMEM;
	x->env = *env;
	memcpy(x->stores, stores, n_stores * sizeof *stores);
	x->n_stores = n_stores;
	x->on_done = on_done;
	x->arg = arg;
	x->id = batch;
	x->fd = -1;
	bytes_init(&x->data, PACK_PART);
	x->conflicts = json_array();
	if (x->conflicts && renew(x) == 0)
		r = worker_start(env->loop, "examine", &x->worker);
	if (r < 0) {
		json_decref(x->conflicts);
		content_free(x->content);
		free(x);
		return r;
	}
	x->job = (struct job){ .work = ours_work, .done = on_ours_read };
	x->status = -ECANCELED;
	worker_submit(env->queue_worker, &x->job);
	*ret_examine = x;
	return 0;
}

void examine_cancel(struct examine *x)
{
	x->canceled = true;
	if (!x->call.transfer)
		return; /* a job is back soon */
	end(x);
}
