/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A driver on a loop of the test's own, whose alarms ring in real time: makes one, asks it, and waits for what it
 * answers. Each call must end once, and never from within.
 */
#ifndef TESTS_UNIT_DRIVER_BOX_H
#define TESTS_UNIT_DRIVER_BOX_H

#include <stdio.h>
#include <string.h>
#include <uv.h>

#include "base/clock.h"
#include "mill/driver.h"

struct driver_box {
	uv_loop_t loop;
	uv_timer_t timer; /* for the alarms */
	struct alarms alarms;
	struct driver_env env;
	struct driver_run run;
	struct driver *driver;
	unsigned answers;

	/* The last answer. */
	enum driver_state state;
	int exit;
	bool has_log;
	char why[ERR_MAX], remote[DRIVER_REMOTE_MAX], log[512 * 1024];
	size_t log_len;
};

static inline void driver_box_on_answer(void *arg, const struct driver_answer *answer)
{
	struct driver_box *box = arg;
	box->answers++;
	box->state = answer->state;
	box->exit = answer->exit;
	snprintf(box->why, sizeof box->why, "%s", answer->err ? answer->err->text : "");
	snprintf(box->remote, sizeof box->remote, "%s", answer->remote ? answer->remote : "");
	box->has_log = answer->log != NULL;
	box->log_len = answer->log ? answer->log->len : 0;
	if (box->log_len > 0)
		memcpy(box->log, answer->log->data, box->log_len);
	box->log[box->log_len] = '\0';
}

static inline void driver_box_on_timer(uv_timer_t *timer)
{
	(void)timer;
}

/* One turn of the loop, which sleeps no longer than the next alarm, or a second. */
static inline void driver_box_turn(struct driver_box *box)
{
	int64_t next_ms = alarms_next(&box->alarms), now_ms = clock_mono_ms();
	int64_t wait_ms = next_ms > now_ms + 1000 ? 1000 : next_ms > now_ms ? next_ms - now_ms : 0;
	uv_update_time(&box->loop);
	if (wait_ms > 0)
		uv_timer_start(&box->timer, driver_box_on_timer, (uint64_t)wait_ms, 0);
	uv_run(&box->loop, wait_ms > 0 ? UV_RUN_ONCE : UV_RUN_NOWAIT);
	uv_timer_stop(&box->timer);
	alarms_ring(&box->alarms, clock_mono_ms());
}

static inline void driver_box_wait(struct driver_box *box)
{
	unsigned before = box->answers;
	while (box->answers == before)
		driver_box_turn(box);
	assert_int_equal(box->answers, before + 1);
}

static inline void driver_box_open(struct driver_box *box)
{
	*box = (struct driver_box){ .run = { .id = "0198aa10f3b2c4d5e6f708192a3b4c5d",
		                             .job = "parking",
		                             .manifest = "{\"version\":1}",
		                             .manifest_len = 13,
		                             .manifest_place = "_runs/parking/0198/manifest.json",
		                             .on_answer = driver_box_on_answer } };
	box->run.arg = box;
	assert_int_equal(uv_loop_init(&box->loop), 0);
	uv_timer_init(&box->loop, &box->timer);
	box->env = (struct driver_env){ .loop = &box->loop, .alarms = &box->alarms };
}

/* As after a start of the program: a driver that remembers nothing. */
static inline void driver_box_renew(struct driver_box *box, const struct driver_ops *ops)
{
	if (box->driver)
		box->driver->ops->free(box->driver);
	assert_int_equal(ops->new (&box->env, &box->run, &box->driver), 0);
}

static inline void driver_box_call(struct driver_box *box, void (*how)(struct driver *driver))
{
	unsigned before = box->answers;
	how(box->driver);
	assert_int_equal(box->answers, before);
	driver_box_wait(box);
}

/* Nothing of it is left. */
static inline void driver_box_close(struct driver_box *box)
{
	if (box->driver)
		box->driver->ops->free(box->driver);
	uv_close((uv_handle_t *)&box->timer, NULL);
	uv_run(&box->loop, UV_RUN_DEFAULT);
	assert_int_equal(alarms_next(&box->alarms), ALARM_NEVER);
	assert_int_equal(uv_loop_close(&box->loop), 0);
}

#endif
