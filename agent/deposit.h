/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Puts a small object that is no batch (a run's manifest, its log) into a store: whole and durable under its key, in
 * place of what stands there. By base/http, or by a worker of its own, so that a hung disk holds up nothing else. The
 * folder of a `file` store is its carrier's to make and to mark: where that has not been, or the disk is not mounted,
 * nothing is written. Private to agent/. Loop thread only.
 */
#ifndef AGENT_DEPOSIT_H
#define AGENT_DEPOSIT_H

#include <uv.h>

#include "agent/config.h"
#include "base/bytes.h"
#include "base/http.h"

struct deposit;

struct deposit_request {
	uv_loop_t *loop;
	struct http *http;
	const struct config_store *store; /* borrowed until the end, as is all that follows */
	const char *key;                  /* below the store's prefix; copied */
	const struct bytes *data;
	/* 0, or -errno: the same may be tried again; err names the store. -EACCES and -EPROTO of an s3: a person must
	   mend it. Once, never from within deposit_start; nothing is left of the deposit then. */
	void (*on_end)(void *arg, int status, const struct err *err);
	void *arg;
};

/* 0, or -ENOMEM or -EAGAIN: on_end does not come. */
int deposit_start(const struct deposit_request *request, struct deposit **ret_deposit);

/*
 * Without on_end. What is borrowed may be freed once on_closed has come, which takes as long as a disk needs to answer,
 * and what stands under the key then is what stood there or the object. May come after the store has left the
 * configuration. The same bytes may be put there anew before on_closed, which may have to be tried twice; other bytes
 * have to wait for it.
 */
void deposit_cancel(struct deposit *deposit, void (*on_closed)(void *arg), void *arg);

#endif
