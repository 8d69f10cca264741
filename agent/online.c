/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/online.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#include "agent/config_text.h"
#include "agent/s3_call.h"
#include "base/clock.h"
#include "base/container.h"
#include "buffer/store_file.h"
#include "cli/cli.h"

#define PROBE_KEY ".millrace-probe" /* what s3_probe writes */

/* One store's questions, one request at a time. */
struct online {
	uv_loop_t loop;
	struct http *http;
	struct s3 *s3;
	struct s3_call call;

	/* Of the last request. */
	bool done;
	long status;
	enum s3_verdict verdict;
	bool no_condition; /* the store knows no If-None-Match */
};

/* --- A request --- */

static void on_judged(struct s3_call *call, enum s3_verdict verdict, const struct s3_answer *answer)
{
	struct online *o = container_of(call, struct online, call);

	o->status = answer->status;
	o->verdict = verdict;
	o->no_condition = s3_call_knows_no_condition(verdict, answer);
	if (verdict == S3_AGAIN && !call->err.text[0])
		err_fail(&call->err, 0, "HTTP %ld", answer->status);
	o->done = true;
	uv_stop(&o->loop); /* perhaps from a timer, before the loop sleeps */
}

/* Until the answer to what was sent is judged. */
static enum s3_verdict await(struct online *o, int sent)
{
	if (sent < 0)
		return S3_AGAIN;
	for (o->done = false; !o->done;)
		uv_run(&o->loop, UV_RUN_ONCE);
	return o->verdict;
}

/* --- What is asked --- */

static enum s3_verdict ask_put(struct online *o)
{
	return await(o, s3_call_probe(&o->call));
}

static enum s3_verdict ask_head(struct online *o)
{
	struct s3_request request;
	int r = s3_head(o->s3, PROBE_KEY, clock_wall_ms(), &request);

	return await(o, s3_call_send(&o->call, r, &request, 0));
}

static enum s3_verdict ask_list(struct online *o)
{
	struct s3_request request;
	int r = s3_list(o->s3, "", NULL, clock_wall_ms(), &request);

	return await(o, s3_call_send(&o->call, r, &request, 0));
}

/* Where the clocks differ, the second request is signed with the store's. */
static enum s3_verdict ask(struct online *o, enum s3_verdict (*what)(struct online *o))
{
	enum s3_verdict verdict = what(o);

	return verdict == S3_SKEWED ? what(o) : verdict;
}

/* 0 or -EIO, and o->err says why. An object that was not there tells nothing yet: only a second PUT of it does. */
static int check_put(struct online *o, bool *ret_conditional)
{
	enum s3_verdict verdict = ask(o, ask_put);

	if (verdict == S3_DONE)
		verdict = ask(o, ask_put);
	*ret_conditional = verdict == S3_EXISTS;
	if (verdict == S3_EXISTS || verdict == S3_DONE || o->no_condition)
		return 0;
	err_prefix(&o->call.err, "writing %s", PROBE_KEY);
	return -EIO;
}

static int check_head(struct online *o)
{
	enum s3_verdict verdict = ask(o, ask_head);

	if (verdict == S3_DONE || verdict == S3_ABSENT)
		return 0;
	err_prefix(&o->call.err, "reading %s", PROBE_KEY);
	return -EIO;
}

static const char *no_header(void *arg, const char *name)
{
	(void)arg;
	(void)name;
	return NULL;
}

static int on_object(void *arg, const struct s3_object *object)
{
	(void)arg;
	(void)object;
	return 0;
}

static int check_list(struct online *o)
{
	char *token = NULL;
	int r = -EIO;

	if (ask(o, ask_list) == S3_DONE) {
		const struct s3_answer answer = { .status = o->status,
			                          .header = no_header,
			                          .body = o->call.body.data,
			                          .body_len = o->call.body.len };

		r = s3_read_list(o->s3, &answer, on_object, NULL, &token, &o->call.err);
	}
	free(token);
	if (r < 0)
		err_prefix(&o->call.err, "listing what is below the prefix");
	return r;
}

static int check_answers(struct online *o, const char **ret_fine)
{
	bool conditional = false;
	int r = check_put(o, &conditional);

	if (r == 0)
		r = check_head(o);
	if (r == 0)
		r = check_list(o);
	*ret_fine = conditional ? "fine, honours If-None-Match"
	                        : "fine, does not honour If-None-Match: a HEAD comes before each PUT";
	return r;
}

/* --- Kinds of stores: each 0 or -errno; ret_err: what is wrong, ret_fine: what is to be said where nothing is --- */

static void on_closed(void *arg)
{
	*(bool *)arg = true;
}

static int check_with_loop(struct online *o, const struct config_store *store, const char **ret_fine)
{
	bool closed = false;
	int r = http_new(&o->loop, "millrace/" MILLRACE_VERSION, &o->http);

	if (r < 0)
		return err_fail(&o->call.err, r, "%s", strerror(-r));
	r = s3_new(store->settings, store->access_key, store->secret_key, &o->s3);
	s3_call_init(&o->call, o->http, store->settings, o->s3);
	o->call.on_judged = on_judged;
	if (r == 0)
		r = check_answers(o, ret_fine);
	else
		err_fail(&o->call.err, r, "%s", strerror(-r));
	http_close(o->http, on_closed, &closed);
	while (!closed)
		uv_run(&o->loop, UV_RUN_ONCE);
	return r;
}

static int check_s3(const struct config_store *store, const char **ret_fine, struct err *err)
{
	struct online o = { .http = NULL };
	int r = uv_loop_init(&o.loop);

	if (r < 0)
		return err_fail(err, r, "%s", strerror(-r));
	r = check_with_loop(&o, store, ret_fine);
	uv_loop_close(&o.loop);
	s3_free(o.s3);
	s3_call_drop(&o.call);
	if (r < 0)
		*err = o.call.err;
	return r;
}

static int check_folder(const char *path, struct err *err)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return err_fail(err, -errno, "%s",
		                errno == ENOENT ? "the folder does not exist: create it, or mount its disk"
		                                : strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return err_fail(err, -ENOTDIR, "it is no folder");
	if (faccessat(AT_FDCWD, path, W_OK | X_OK, AT_EACCESS) < 0)
		return err_fail(err, -errno, "this user may not write there: %s", strerror(errno));
	return 0;
}

/* Nothing is written: the first use by the daemon leaves the mark. */
static int check_file(const struct config_store *store, const char **ret_fine, struct err *err)
{
	const struct store_file_settings *settings = store->settings;
	int r = check_folder(settings->path, err);

	*ret_fine = "fine, this user may write there";
	if (r != -ENOENT || !store->embedded)
		return r;
	char *parent = config_text_folder(settings->path);

	*ret_fine = "fine, it will be made";
	r = parent ? check_folder(parent, err) : -ENOMEM;
	if (r < 0)
		err_prefix(err, "%s, in which it would be made", parent ? parent : "the folder");
	free(parent);
	return r;
}

static const struct {
	const struct store_kind *kind;
	int (*check)(const struct config_store *store, const char **ret_fine, struct err *err);
} checks[] = { { &store_kind_file, check_file }, { &store_kind_s3, check_s3 } };

/* Whether the store is fine. */
static bool check_store(const struct config_store *store, FILE *out, FILE *errors)
{
	const char *fine = "";
	struct err err = { "" };
	int r = 0;

	for (size_t i = 0; i < sizeof checks / sizeof *checks; i++)
		if (checks[i].kind == store->kind)
			r = checks[i].check(store, &fine, &err);
	fprintf(r < 0 ? errors : out, "store %s: %s: %s\n", store->name, store->place, r < 0 ? err.text : fine);
	return r == 0;
}

int online_check(const struct config *config, FILE *out, FILE *errors)
{
	int status = CLI_OK;

	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; i < config->n_stores; i++) {
		if (!check_store(config->stores[i], out, errors))
			status = CLI_UNAVAILABLE;
		fflush(out);
	}
	return status;
}
