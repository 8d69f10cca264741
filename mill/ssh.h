/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OpenSSH's client with one verb of worker/PROTOCOL.md: no shell, no terminal, no agent, no configuration file, no
 * password, strict host keys, its key from a file of mode 0600. Says what is wrong in words, with what to type. Loop
 * thread only.
 */
#ifndef MILL_SSH_H
#define MILL_SSH_H

#include <jansson.h>
#include <uv.h>

#include "base/alarm.h"
#include "base/bytes.h"
#include "base/err.h"
#include "mill/machine.h"

#define SSH_PROTOCOL 1
#define SSH_LOG_MAX  (256 * 1024) /* bytes that one `log` answers */

enum ssh_end {
	SSH_ANSWERED, /* exit 0 */
	SSH_AWAY,     /* no connection, or it broke */
	SSH_LATER,    /* 75 */
	SSH_BLOCKED,  /* nothing was asked: our key's file, or ssh itself */
	SSH_REFUSED,  /* host key, our key, no worker behind it, or too old; or it says 64, 65, 69, 78 */
};

struct ssh_answer {
	enum ssh_end end;
	json_t *json;            /* an object, of all verbs but log; borrowed; NULL where it did not answer */
	const struct bytes *out; /* of log; borrowed */
	struct err err; /* why, with the remedy; the caller names the machine: `its host key has changed: …` */
};

struct ssh_request {
	const struct machine_settings *machine; /* borrowed until the end */
	const char *verb;                       /* with its arguments, each of which the caller has checked */
	bool log;                               /* it answers bytes, not JSON */
	const void *in;                         /* its standard input */
	size_t in_len;
	int64_t timeout_ms; /* over all */
	/* The end: once unless cancelled, never from within ssh_start. Nothing is left of it then. */
	void (*on_answer)(void *arg, const struct ssh_answer *answer);
	void *arg;
};

struct ssh_call;

/* Whether the machine's key is a file that ssh will take. 0 or -errno; err has the remedy. */
int ssh_check_key(const struct machine_settings *machine, struct err *err);

/* 0 or -ENOMEM; all else is told by on_answer. */
int ssh_start(uv_loop_t *loop, struct alarms *alarms, const struct ssh_request *request, struct ssh_call **ret_call);

/* Without on_answer. NULL is fine. */
void ssh_cancel(struct ssh_call *call);

#endif
