/* SPDX-License-Identifier: Apache-2.0 */
/* Whether somebody answers at a port: the name is looked up, a connection is made and closed. Loop thread only. */
#ifndef MILL_KNOCK_H
#define MILL_KNOCK_H

#include <stdint.h>
#include <uv.h>

#include "base/alarm.h"

struct knock;

/* on_end comes once unless cancelled, never from within: 0, -ETIMEDOUT, or what the system says. 0 or -ENOMEM. */
int knock_start(uv_loop_t *loop, struct alarms *alarms, const char *host, uint16_t port, int64_t timeout_ms,
                void (*on_end)(void *arg, int status), void *arg, struct knock **ret_knock);
void knock_cancel(struct knock *knock); /* NULL is fine */

#endif
