/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store `file`: a folder. An object is written to a temporary name (ending in .tmp) beside its place, synced,
 * linked to its final name, and its folder synced, new folders above it too. The folder must exist; its first use
 * leaves .millrace-store there, and a folder without that mark later is a disk that is not mounted: nothing is written
 * to it.
 */
#ifndef BUFFER_STORE_FILE_H
#define BUFFER_STORE_FILE_H

#include "buffer/store.h"

struct store_file_settings {
	char *path;
};

/* path is copied. make: the folder itself is made if need be (the embedded default alone). NULL: no memory. */
struct store *store_file_new(const char *path, bool make);

/*
 * Puts what is no batch under its key, durable and whole, in place of the file that stands there; at every moment that
 * is the one or the other. Blocks. -EEXIST as struct store_ops says; -EAGAIN: another call has begun the same key
 * since. Without the mark nothing is written (-ENODEV), and no folder of a store is made (-ENOENT).
 */
int store_file_replace(struct store *store, const char *key, const void *data, size_t len, struct err *err);

#endif
