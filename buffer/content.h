/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the bytes of an object are, seen as they come: whether they are gzip with lines of Millrace (interface.md), of
 * which source, device and boot, and of which seqs and times. Memory stays the same whatever the size. Any one thread.
 */
#ifndef BUFFER_CONTENT_H
#define BUFFER_CONTENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/sha256.h"
#include "base/units.h"
#include "buffer/object.h"

/* Bytes of lines from which on an object is none of ours: a batch of 64M and its largest fetch. */
#define CONTENT_LINES_MAX (UINT64_C(1) << 28)

struct content_facts {
	uint64_t bytes;
	uint8_t sha256[SHA256_SIZE];
	char why[96]; /* it is no whole object of ours; "": it is */

	/* Of the lines that are right; the names are the first one's, which all have in common. */
	char source[UNITS_NAME_MAX], device[UNITS_NAME_MAX], boot[OBJECT_BOOT];
	uint64_t records, first_seq, last_seq;
	int64_t day, first_ms, last_ms; /* wall */
	uint64_t line_bytes;
};

struct content;

struct content *content_new(void); /* NULL: no memory */
void content_free(struct content *content);

/* More bytes. Whatever they are, they are counted and hashed. */
void content_add(struct content *content, const void *data, size_t len);

/* What is known so far; sha256 and what is missing at the end only after content_finish. Borrowed. */
const struct content_facts *content_facts(const struct content *content);

/* The bytes end here. Once. */
const struct content_facts *content_finish(struct content *content);

#endif
