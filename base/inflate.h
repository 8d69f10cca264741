/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of an answer whose Content-Encoding is gzip, deflate or none (RFC 9110 §8.4.1): inflated piece by piece
 * with zlib within bounds, so that a small answer never becomes a large one unnoticed. "deflate" is taken with zlib's
 * header, as it is defined, and without, as some servers send it; gzip may have several members. Any thread.
 */
#ifndef BASE_INFLATE_H
#define BASE_INFLATE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/* What an answer may grow by: JSON compresses 12:1, lists of zeros 30:1, and only what was made to harm 1,000:1. */
#define INFLATE_RATIO_MAX  200
#define INFLATE_RATIO_FROM (1024 * 1024) /* bytes inflated; below this any ratio will do */

struct inflate;

/*
 * A piece of what came out, borrowed until return: 0 takes it and more may follow, 1 takes it and asks for a pause,
 * -errno ends all.
 */
typedef int (*inflate_on_piece)(void *arg, const void *data, size_t len);

/*
 * encoding: "gzip", "x-gzip", "deflate", "identity" or "" (RFC 9110 §8.4.1, letters of any case). max: bytes that may
 * come out. 0, -ENOMEM, -ENOTSUP: another encoding (err says which there are).
 */
int inflate_new(const char *encoding, uint64_t max, inflate_on_piece on_piece, void *arg, struct inflate **ret_inflate,
                struct err *err);
void inflate_free(struct inflate *inflate);

/*
 * More bytes; gives pieces of up to 16 KB. Returns how many bytes it took: fewer than len only where on_piece asked for
 * a pause; what is left is given again. -EBADMSG (not what the encoding says, or bytes after its end), -EMSGSIZE (over
 * max), -E2BIG (over INFLATE_RATIO_MAX), -ENOMEM, or what on_piece returned; err tells what and at which offset.
 */
ssize_t inflate_feed(struct inflate *inflate, const void *data, size_t len, struct err *err);

/* The answer ends here: 0, or -EBADMSG: it is cut short. */
int inflate_finish(struct inflate *inflate, struct err *err);

/* Bytes that came out so far. */
uint64_t inflate_total(const struct inflate *inflate);

#endif
