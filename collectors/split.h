/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The splitter: validates a JSON text (RFC 8259, UTF-8 by RFC 3629) as its bytes arrive, in pieces of any size, and
 * cuts the records out of it byte for byte. Its memory is bounded by the largest record. It judges the whole text: a
 * record that was handed out counts only once split_finish has returned 0. Pure C, no dependencies but base/bytes.
 *
 * Within a record each CR and each LF becomes a space (in valid JSON they stand between tokens only) and the white
 * space around it is left out; nothing else is touched: numbers of any length, duplicate keys, key order, escapes, lone
 * surrogate escapes, 1e999. A byte order mark before the text is skipped.
 */
#ifndef COLLECTORS_SPLIT_H
#define COLLECTORS_SPLIT_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define SPLIT_MAX_DEPTH 512 /* of nested arrays and objects; one more is refused */

struct split;

/* One record, borrowed until return. Anything but 0 stops the splitter, which returns it. */
typedef int (*split_on_record)(void *arg, const void *data, size_t len);

/*
 * path: NULL: the whole text is one record. "$": the text is an array, each element a record. "data.stations": the
 * value of these keys, one in the other, is an array, each element a record. A key is compared after its escapes are
 * decoded. max_record: bytes of one record. 0, -ENOMEM, or -EINVAL for a path that is none (err says why).
 */
int split_new(const char *path, size_t max_record, split_on_record on_record, void *arg, struct split **ret_split,
              struct err *err);

/*
 * The same for a text of lines (NDJSON): each line is a JSON text and a record; lines of white space alone are left
 * out, a CR before the LF too, and the last line may lack its LF. A text without a line is complete and has no records.
 */
int split_new_lines(size_t max_record, split_on_record on_record, void *arg, struct split **ret_split);
void split_free(struct split *split);

/* 0 or says what is wrong with a path: what the configuration checks with. */
int split_check_path(const char *path, struct err *err);

/*
 * More bytes. 0; -EBADMSG (not JSON, not UTF-8, deeper than 512, no array where the path says so, the path there
 * twice), -EMSGSIZE (a record over max_record), -ENOMEM, or what on_record returned. err tells what and at which
 * offset. After a failure only free and split_cause may be called.
 */
int split_feed(struct split *split, const void *data, size_t len, struct err *err);

/* The text ends here. 0; -EBADMSG where it is empty, is cut short, or has nothing at the path. */
int split_finish(struct split *split, struct err *err);

/* Where in the text the splitter is, or, after a failure, what is wrong begins: bytes from 0. */
uint64_t split_offset(const struct split *split);

/* After a failure: one word that stays the same while the same thing is wrong: "not-json", "not-utf-8", "truncated",
 * "too-deep", "record-too-large", "no-records", "empty". NULL where the text is not to blame: -ENOMEM, on_record's. */
const char *split_cause(const struct split *split);

#endif
