/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A run's manifest (interface.md): the exact list of objects, byte for byte the same each time it is made from the same
 * run. Pure; any thread.
 */
#ifndef MILL_MANIFEST_H
#define MILL_MANIFEST_H

#include "base/bytes.h"
#include "buffer/ledger.h"

/* Where the machine finds the store; NULL what its kind has not. */
struct manifest_store {
	const char *kind, *endpoint, *region, *bucket, *path, *prefix;
};

#define MANIFEST_MAX (8 << 20) /* LEDGER_OBJECTS with keys of any length */

/*
 * json is initialised, with MANIFEST_MAX for its ceiling. 0, -ENOMEM, -ENOBUFS, -EILSEQ: a text of the store is no
 * UTF-8. The first clears json; what the second could not add is not in it. JSON (RFC 8259), an object a line.
 */
int manifest_begin(struct bytes *json, const struct ledger_run *run, const char *device,
                   const struct manifest_store *store);
int manifest_add(struct bytes *json, const struct ledger_object *object, const struct manifest_store *store);
int manifest_end(struct bytes *json);

/* `_runs/parking/0198…/manifest.json`, and log.gz beside it; below the store's prefix. */
void manifest_key(const struct ledger_run *run, const char *name, char ret_key[OBJECT_KEY_MAX]);

#endif
