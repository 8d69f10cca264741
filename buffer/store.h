/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store that blocks, as the courier sees it: an object is begun, written part by part and finished, at which it
 * stands durable and whole under its key or not at all. Each call is made by jobs of the store's own worker. Every step
 * may run twice: an object that is already there with the same bytes is a success.
 */
#ifndef BUFFER_STORE_H
#define BUFFER_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/sha256.h"

struct store;

struct store_ops {
	const char *kind;

	/*
	 * Sees whether the store is there. known: it was used before, at this place. 0; -ENODEV (a folder without our
	 * mark: a disk that is not mounted), -ENOENT, -EACCES, -EROFS, or what the system says; err has path and
	 * remedy.
	 */
	int (*probe)(struct store *store, bool known, struct err *err);

	/* One object at a time. bytes and sha256 are those of the whole object. */
	int (*begin)(struct store *store, const char *key, uint64_t bytes, const uint8_t sha256[SHA256_SIZE],
	             struct err *err);
	int (*write)(struct store *store, const void *data, size_t len, struct err *err);

	/* 0: durable under its key. -EEXIST: other bytes stand there; they are left as they are. */
	int (*finish)(struct store *store, struct err *err);

	/* Leaves a begun object; nothing of it remains. Fine where none was begun. */
	void (*abort)(struct store *store);

	void (*free)(struct store *store);
};

struct store {
	const struct store_ops *ops;
};

#endif
