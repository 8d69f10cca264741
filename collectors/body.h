/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The way of one answer's body from the wire into a sink: inflated within bounds, hashed, split into records, and a
 * piece of it kept for a look at what is wrong. One for each fetch. Loop thread only.
 */
#ifndef COLLECTORS_BODY_H
#define COLLECTORS_BODY_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/sha256.h"
#include "base/sink.h"
#include "collectors/rest.h"

struct body;

/* What helps where an answer has more than max_body bytes. */
#define BODY_REMEDY "; raise max_body, where such ones are meant"

/* For a fetch that was begun in sink; both are borrowed for its whole life. 0; -ENOMEM; -EINVAL: the path. */
int body_new(const struct rest_settings *settings, struct sink *sink, struct body **ret_body, struct err *err);
void body_free(struct body *body);

/*
 * More bytes, as they came; encoding is the answer's Content-Encoding. Returns how many it took: fewer than len, none
 * perhaps, while the sink is full; the rest is given again when it has room. -errno: the body is worth nothing, and
 * body_cause and body_text say why.
 */
ssize_t body_feed(struct body *body, const char *encoding, const void *data, size_t len);

/* The body ends here, complete. 0 or -errno; that of body_feed where it has failed. */
int body_finish(struct body *body, const char *encoding);

/* Once finished, and with dedupe: tells this body, and how it is taken apart, from others. */
void body_digest(struct body *body, uint8_t digest[SHA256_SIZE]);

/* How many came, inflated. */
uint64_t body_bytes(const struct body *body);

/* 0, or what body_feed or body_finish has returned. */
int body_error(const struct body *body);

/*
 * After a failure: one word that stays the same while the same thing is wrong: split_cause's, "encoded" (an encoding
 * that we do not know), "bad-encoding" (not what its Content-Encoding says), "too-large". NULL: out of memory.
 */
const char *body_cause(const struct body *body);
const char *body_text(const struct body *body);

/*
 * The part that tells most of what came: of a failure what stands around it, else the end. Where nothing could be read
 * (no byte was inflated) the first bytes as they came, in printable ASCII, and \x1f for each other byte. Borrowed from
 * body.
 */
struct sink_excerpt body_excerpt(struct body *body);

#endif
