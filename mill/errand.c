/* SPDX-License-Identifier: Apache-2.0 */
#include "mill/errand.h"

#include <stdlib.h>

#include "base/container.h"
#include "mill/mill_private.h"

static void work(struct job *job)
{
	struct errand *errand = container_of(job, struct errand, job);

	errand->status = errand->work(errand);
}

static void on_done(struct job *job)
{
	struct errand *errand = container_of(job, struct errand, job);
	struct mill *mill = errand->mill;

	if (errand->done && !worker_closing(mill->env.worker)) /* given back unworked: the next start makes it */
		errand->done(errand);
	if (errand->free)
		errand->free(errand);
	free(errand);
	mill_settle(mill);
}

void errand_send(struct errand *errand, struct mill *mill)
{
	errand->job = (struct job){ .work = work, .done = on_done };
	errand->mill = mill;
	mill->under_way++;
	worker_submit(mill->env.worker, &errand->job);
}

void errand_drop(struct errand *errand)
{
	if (errand)
		errand->done = NULL;
}
