/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/rejects.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/container.h"

struct reject {
	struct job job;
	struct queue *queue;
	struct reject_memory *memory;
	int status;
	struct queue_rejected rejected;
};

static void work(struct job *job)
{
	struct reject *reject = container_of(job, struct reject, job);
	struct err ignored;

	reject->status = queue_reject(reject->queue, &reject->rejected, &ignored);
}

/* One that was not kept is news the next time. */
static void on_worked(struct job *job)
{
	struct reject *reject = container_of(job, struct reject, job);

	reject->memory->busy = false;
	if (reject->status < 0)
		memset(reject->memory->digest, 0, sizeof reject->memory->digest);
	free(reject);
}

/* Whether it differs from the last one; then it is the last one. */
static bool is_news(struct reject_memory *memory, const char *cause, const struct sink_excerpt *excerpt)
{
	uint8_t digest[SHA256_SIZE];
	struct sha256 hash;

	sha256_init(&hash);
	sha256_add(&hash, cause, strlen(cause) + 1);
	sha256_add(&hash, excerpt->data, excerpt->len);
	sha256_finish(&hash, digest);
	if (memcmp(memory->digest, digest, sizeof digest) == 0)
		return false;
	memcpy(memory->digest, digest, sizeof digest);
	return true;
}

static void fill(struct queue_rejected *rejected, const char *source, const char *cause, const char *text,
                 const struct sink_excerpt *excerpt)
{
	snprintf(rejected->source, sizeof rejected->source, "%s", source);
	snprintf(rejected->cause, sizeof rejected->cause, "%s", cause);
	snprintf(rejected->text, sizeof rejected->text, "%s", text);
	rejected->at_ms = clock_wall_ms();
	rejected->bytes = excerpt->bytes;
	rejected->start = excerpt->start;
	rejected->offset = excerpt->offset;
	rejected->len = excerpt->len;
	if (excerpt->len > 0)
		memcpy(rejected->data, excerpt->data, excerpt->len);
}

void rejects_keep(struct reject_memory *memory, struct queue *queue, struct worker *worker, const char *source,
                  const char *cause, const char *text, const struct sink_excerpt *excerpt)
{
	struct reject *reject;

	if (memory->busy || !is_news(memory, cause, excerpt))
		return;
	reject = calloc(1, sizeof *reject);
	if (!reject)
		return;
	memory->busy = true;
	reject->memory = memory;
	reject->status = -ECANCELED; /* stands where the worker gives the job back unworked */
	reject->job = (struct job){ .work = work, .done = on_worked };
	reject->queue = queue;
	fill(&reject->rejected, source, cause, text, excerpt);
	worker_submit(worker, &reject->job);
}
