/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program that is started, fed, listened to and ended: ssh, a job's command, a wake command. Never through a shell.
 * It leads a session and a process group of its own, which is what is killed; its descriptors beside the three, which
 * are pipes, are closed, its signals are the default ones, its folder is /.
 *
 * Its end is that of the program itself. What it leaves in its group is killed then, so that nothing it started
 * outlives it unasked; what has made a session of its own (setsid, ssh's ControlPersist, a daemon) goes on, and is not
 * waited for, even where it holds standard output open: what it writes from then on is not read. Where Millrace itself
 * is killed (SIGKILL) the program finds its input ended and its output broken, and else goes on.
 *
 * Loop thread only. The process must ignore SIGPIPE, for a program need not read its input, and must not ignore
 * SIGCHLD.
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
	int error;  /* 0: it ended by itself; -ETIMEDOUT: it was ended for its time; -EMSGSIZE: it was killed for
	               max_out, -ENOMEM: for want of memory for its output */
	int status; /* its exit status, 0 to 255; where a signal ended it 128 and that one's number, as shells say */
	struct bytes *out; /* its standard output, all of it where error is 0; borrowed, but bytes_take may have it */
	const char *text;  /* the last CHILD_TEXT_MAX bytes of its standard error as one line of printable UTF-8: white
	                      space is one space, what is none is "?"; "" where there was none; borrowed */
};

#define CHILD_TEXT_MAX 512

struct child_command {
	const char *const
	        *argv; /* argv[0]: an absolute path, or a name that is looked up in PATH; ended by NULL; copied */
	const char *const *environment; /* "NAME=value"; beside them it gets our own PATH, HOME, LANG, TZ, SSL_CERT_FILE
	                                   where they are set and not given here, and nothing else, for secrets may
	                                   stand there. Ended by NULL; copied; NULL: none */
	const void *in;                 /* its standard input, then the end of it; copied until it is read */
	size_t in_len;
	size_t max_out;     /* bytes of its standard output; it is killed at more */
	int64_t timeout_ms; /* by base/clock; SIGTERM then, SIGKILL 2 s later */
	/* The end, exactly once unless cancelled, never from within child_start. The child is gone afterwards: reaped,
	 * its handles closed, its memory free when this returns. May start another. */
	void (*on_end)(void *arg, const struct child_end *end);
	void *arg;
};

/* 0; -ENOENT, -EACCES: no such program, or none (err names it); -ENOMEM, -EAGAIN, -EMFILE, or what execve(2) says. */
int child_start(uv_loop_t *loop, struct alarms *alarms, const struct child_command *command, struct child **ret_child,
                struct err *err);

/* Kills its group at once (SIGKILL), without on_end; on_closed comes from the loop when nothing of it is left, which
 * takes as long as the kernel needs (a hung disk holds a process). NULL on_closed is fine. */
void child_cancel(struct child *child, void (*on_closed)(void *arg), void *arg);

#endif
