/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program that is started, fed, listened to and ended: ssh, a job's command, a wake command. Never through a shell.
 * It leads a process group of its own, which is what is killed, so that nothing it started outlives it unasked; its
 * descriptors beside the three are closed, its signals are the default ones, its folder is /. Loop thread only.
 */
#ifndef BASE_CHILD_H
#define BASE_CHILD_H

#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/alarm.h"
#include "base/bytes.h"
#include "base/err.h"

struct child;

struct child_end {
	int error;         /* 0: it ended by itself; -ETIMEDOUT: it was killed for its time; -EMSGSIZE: for max_out */
	int status;        /* its exit status, 0 to 255; where a signal ended it 128 and that one's number, as shells say */
	struct bytes *out; /* all of its standard output; borrowed */
	const char *text;  /* the last CHILD_TEXT_MAX bytes of its standard error, as one line of printable characters */
};

#define CHILD_TEXT_MAX 512

struct child_command {
	const char *const *argv;        /* argv[0]: a path, or a name that is looked up in PATH; ended by NULL; copied */
	const char *const *environment; /* "NAME=value", beside PATH, HOME, LANG, TZ, SSL_CERT_FILE of our own where they are
	                                   set; ended by NULL; copied; NULL: none */
	const void *in;                 /* its standard input, then the end of it; copied */
	size_t in_len;
	size_t max_out;     /* bytes of its standard output; it is killed at more */
	int64_t timeout_ms; /* by base/clock; SIGTERM then, SIGKILL 2 s later */
	/* The end, exactly once unless cancelled, never from within child_start. The child is gone afterwards. */
	void (*on_end)(void *arg, const struct child_end *end);
	void *arg;
};

/* 0; -ENOENT, -EACCES: no such program, or none (err names it); -ENOMEM, -EAGAIN. */
int child_start(uv_loop_t *loop, struct alarms *alarms, const struct child_command *command, struct child **ret_child,
                struct err *err);

/* Kills its group at once (SIGKILL), without on_end; on_closed comes when nothing of it is left. NULL on_closed is fine. */
void child_cancel(struct child *child, void (*on_closed)(void *arg), void *arg);

#endif
