/* SPDX-License-Identifier: Apache-2.0 */
#include "mill/driver.h"

#include <assert.h>

#include "base/clock.h"
#include "base/container.h"

const struct driver_ops *const driver_kinds[] = { &driver_ssh, &driver_exec, &driver_http, NULL };

static void on_ring(struct alarm *alarm)
{
	struct driver *d = container_of(alarm, struct driver, alarm);
	driver_tell(d, &d->known);
}

void driver_init(struct driver *d, const struct driver_ops *ops, const struct driver_env *env,
                 const struct driver_run *run)
{
	*d = (struct driver){ .ops = ops, .env = *env, .run = *run, .alarm = { .on_ring = on_ring } };
}

void driver_done(struct driver *d)
{
	alarm_cancel(&d->alarm);
}

void driver_tell(struct driver *d, const struct driver_answer *answer)
{
	d->run.on_answer(d->run.arg, answer);
}

void driver_tell_state(struct driver *d, enum driver_state state, int exit, const struct err *err)
{
	const struct driver_answer answer = { .state = state, .exit = exit, .err = err };
	driver_tell(d, &answer);
}

void driver_tell_soon(struct driver *d, enum driver_state state, int exit, const struct err *err)
{
	assert(!d->alarm.set);
	if (err)
		d->err = *err;
	d->known = (struct driver_answer){ .state = state, .exit = exit, .err = err ? &d->err : NULL };
	alarm_set(d->env.alarms, &d->alarm, clock_mono_ms());
}
