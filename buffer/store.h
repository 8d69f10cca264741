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
#include "base/option.h"
#include "base/sha256.h"

struct store;

/* A kind of store as the configuration sees it; all of them stand in buffer/store_kinds.c. */
struct store_kind {
	const char *kind;             /* the word in the configuration */
	const struct option *options; /* into a struct of settings_size bytes */
	size_t settings_size;
	char *(*place)(const void *settings); /* where it is, for people and the buffer's memory; malloc'ed or NULL */
};

extern const struct store_kind *const store_kinds[]; /* ended by NULL */
extern const struct store_kind store_kind_file, store_kind_s3;

struct store_ops {
	const char *kind;

	/*
	 * Sees whether the store is there. known: it was used before, at this place. 0; -ENODEV (a folder without our
	 * mark: a disk that is not mounted), -ENOENT, -EACCES, -EROFS, or what the system says; err has path and
	 * remedy.
	 */
	int (*probe)(struct store *store, bool known, struct err *err);

	/*
	 * One object at a time. bytes and sha256 are those of the whole object. Begin, write and finish say -EEXIST
	 * where something stands in the way of this object, other bytes under its key or what is no file or folder,
	 * which err names and which is left as it is: others can be brought. Whatever else fails, fails for all.
	 */
	int (*begin)(struct store *store, const char *key, uint64_t bytes, const uint8_t sha256[SHA256_SIZE],
	             struct err *err);
	int (*write)(struct store *store, const void *data, size_t len, struct err *err);

	/* 0: durable under its key. -EBADMSG: what was written is not what was announced. */
	int (*finish)(struct store *store, struct err *err);

	/* Leaves a begun object; nothing of it remains. Fine where none was begun. */
	void (*abort)(struct store *store);

	void (*free)(struct store *store);
};

struct store {
	const struct store_ops *ops;
};

#endif
