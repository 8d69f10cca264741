/* SPDX-License-Identifier: Apache-2.0 */
#include "mill/errand.h"

#include <stdlib.h>

#include "base/container.h"

static void work(struct job *job)
{
	struct errand *errand = container_of(job, struct errand, job);

	errand->status = errand->work(errand);
}

static void on_done(struct job *job)
{
	struct errand *errand = container_of(job, struct errand, job);
	void (*end)(struct errand *) = errand->free;

	(*errand->under_way)--;
	if (errand->done && !worker_closing(errand->worker)) /* given back unworked: the next start makes it */
		errand->done(errand);
	if (end)
		end(errand);
	free(errand);
}

void errand_send(struct errand *errand, struct worker *worker, unsigned *under_way)
{
	errand->job = (struct job){ .work = work, .done = on_done };
	errand->worker = worker;
	errand->under_way = under_way;
	(*under_way)++;
	worker_submit(worker, &errand->job);
}

void errand_drop(struct errand *errand)
{
	if (errand)
		errand->done = NULL;
}
