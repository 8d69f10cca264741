/* SPDX-License-Identifier: Apache-2.0 */
/* A `file` store's bearer: one object at a time, each step a job of the store's own worker. */
#include <errno.h>
#include <stdlib.h>

#include "agent/bearer.h"
#include "base/container.h"
#include "base/worker.h"
#include "buffer/store_file.h"

enum step { STEP_PROBE, STEP_BEGIN, STEP_WRITE, STEP_FINISH, STEP_ABORT };

struct bearer_file {
	struct bearer bearer;
	struct carrier *carrier;
	struct store *store;
	struct worker *worker;
	bool closing;

	/* The step, and the job that does it; the worker's while it is under way. */
	struct job job;
	bool busy;
	enum step step;
	bool known;
	struct load *load; /* NULL while it probes */
	int status;
	struct err err; /* of the probe */

	void (*on_closed)(void *arg);
	void *closed_arg;
};

static struct bearer_file *of(struct bearer *bearer)
{
	return container_of(bearer, struct bearer_file, bearer);
}

static void on_work(struct job *job)
{
	struct bearer_file *b = container_of(job, struct bearer_file, job);
	const struct store_ops *ops = b->store->ops;
	struct load *load = b->load;

	switch (b->step) {
	case STEP_PROBE:
		b->status = ops->probe(b->store, b->known, &b->err);
		break;
	case STEP_BEGIN:
		b->status = ops->begin(b->store, load->batch.key, load->batch.bytes, load->batch.sha256, &load->err);
		break;
	case STEP_WRITE:
		b->status = ops->write(b->store, load->data.data, load->data.len, &load->err);
		break;
	case STEP_FINISH:
		b->status = ops->finish(b->store, &load->err);
		break;
	case STEP_ABORT:
		ops->abort(b->store);
		break;
	}
}

static void start(struct bearer_file *b, enum step step)
{
	b->step = step;
	b->busy = true;
	worker_submit(b->worker, &b->job);
}

/* Other bytes under this key, or bytes that are not the batch's: nothing that waiting would mend. */
static enum load_verdict judge(int status)
{
	return status == -EEXIST || status == -EBADMSG ? LOAD_PARKED : LOAD_AWAY;
}

/* What the last step, which went well, is followed by. */
static void go_on(struct bearer_file *b)
{
	struct load *load = b->load;

	if (b->step == STEP_FINISH)
		load_done(load, LOAD_DELIVERED, -1);
	else if (load_is_read(load))
		start(b, STEP_FINISH);
	else
		load_read(load);
}

static void on_worker_closed(void *arg)
{
	struct bearer_file *b = arg;

	b->worker = NULL;
	b->on_closed(b->closed_arg);
}

static void on_step_done(struct job *job)
{
	struct bearer_file *b = container_of(job, struct bearer_file, job);

	b->busy = false;
	if (b->closing)
		return;
	if (b->step == STEP_PROBE)
		carrier_probed(b->carrier, b->status == -EACCES ? -EIO : b->status, -1, &b->err);
	else if (b->step == STEP_ABORT)
		load_done(b->load, judge(b->status), -1);
	else if (b->status < 0)
		start(b, STEP_ABORT);
	else
		go_on(b);
}

static int bearer_file_new(const struct carrier_env *env, const struct config_store *config, struct carrier *carrier,
                           struct bearer **ret_bearer, size_t *ret_loads)
{
	const struct store_file_settings *settings = config->settings;
	struct bearer_file *b = calloc(1, sizeof *b);
	int r;

	if (!b)
		return -ENOMEM;
	b->bearer.ops = &bearer_file_ops;
	b->carrier = carrier;
	b->job = (struct job){ .work = on_work, .done = on_step_done };
	b->store = store_file_new(settings->path, config->embedded);
	r = b->store ? worker_start(env->loop, config->name, &b->worker) : -ENOMEM;
	if (r < 0) {
		if (b->store)
			b->store->ops->free(b->store);
		free(b);
		return r;
	}
	*ret_bearer = &b->bearer;
	*ret_loads = 1;
	return 0;
}

static void bearer_file_probe(struct bearer *bearer, bool known)
{
	struct bearer_file *b = of(bearer);

	b->known = known;
	b->err.text[0] = '\0';
	start(b, STEP_PROBE);
}

static void bearer_file_bring(struct bearer *bearer, struct load *load)
{
	struct bearer_file *b = of(bearer);

	b->load = load;
	start(b, STEP_BEGIN);
}

static void bearer_file_on_part(struct bearer *bearer, struct load *load)
{
	struct bearer_file *b = of(bearer);

	b->status = load->status;
	start(b, load->status < 0 ? STEP_ABORT : STEP_WRITE);
}

static int64_t bearer_file_busy_ms(const struct bearer *bearer)
{
	return worker_busy_ms(of((struct bearer *)bearer)->worker);
}

static void bearer_file_close(struct bearer *bearer, void (*on_closed)(void *arg), void *arg)
{
	struct bearer_file *b = of(bearer);

	b->closing = true;
	b->on_closed = on_closed;
	b->closed_arg = arg;
	worker_close(b->worker, on_worker_closed, b);
}

static void bearer_file_free(struct bearer *bearer)
{
	struct bearer_file *b = of(bearer);

	b->store->ops->abort(b->store);
	b->store->ops->free(b->store);
	free(b);
}

const struct bearer_ops bearer_file_ops = {
	.probe_every_ms = 60 * 1000,
	.new = bearer_file_new,
	.probe = bearer_file_probe,
	.bring = bearer_file_bring,
	.on_part = bearer_file_on_part,
	.busy_ms = bearer_file_busy_ms,
	.close = bearer_file_close,
	.free = bearer_file_free,
};
