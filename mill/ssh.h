/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OpenSSH's client with one verb of worker/PROTOCOL.md: no shell, no terminal, no agent, no configuration file, no
 * password, strict host keys, its key from a file of mode 0600. Says what is wrong in words, with what to type. Loop
 * thread only.
 */
#ifndef MILL_SSH_H
#define MILL_SSH_H

#include <jansson.h>

#include "base/child.h"
#include "mill/machine.h"

enum ssh_end {
	SSH_ANSWERED, /* exit 0 */
	SSH_AWAY,     /* no connection, or it broke */
	SSH_LATER,    /* 75 */
	SSH_REFUSED,  /* host key, our key, no worker behind it, or too old; or it says 64, 65, 69, 78 */
};

struct ssh_answer {
	enum ssh_end end;
	json_t *json;            /* of all verbs but log; borrowed; NULL where it did not answer */
	const struct bytes *out; /* of log */
	struct err err;          /* why, with the remedy: `mill: its host key has changed: …; ssh-keygen -R …` */
};

struct ssh_call;

/*
 * verb: with its arguments, each of which the caller has checked. in: standard input. timeout_ms: over all. 0 or -errno;
 * machine and name are borrowed until the end, which comes once unless cancelled.
 */
int ssh_call(uv_loop_t *loop, struct alarms *alarms, const struct machine_settings *machine, const char *name,
             const char *verb, const void *in, size_t in_len, int64_t timeout_ms,
             void (*on_answer)(void *arg, const struct ssh_answer *answer), void *arg, struct ssh_call **ret_call,
             struct err *err);
void ssh_cancel(struct ssh_call *call);

#endif
