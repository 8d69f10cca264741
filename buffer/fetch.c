/* SPDX-License-Identifier: Apache-2.0 */
#include "buffer/fetch.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "buffer/chunk.h"

/* About what an envelope adds to a record. Without it a piece of one-byte records would make lines of 80 times its
 * size. */
#define ENVELOPE 160

struct fetch *fetch_new(const char *source)
{
	struct fetch *fetch = calloc(1, sizeof *fetch);

	assert(strlen(source) < sizeof fetch->source);
	if (fetch)
		memcpy(fetch->source, source, strlen(source) + 1);
	return fetch;
}

void fetch_free(struct fetch *fetch)
{
	struct fetch_piece *piece, *next;

	if (!fetch)
		return;
	for (piece = fetch->first; piece; piece = next) {
		next = piece->next;
		fetch_piece_free(piece);
	}
	free(fetch);
}

void fetch_piece_free(struct fetch_piece *piece)
{
	if (!piece)
		return;
	bytes_done(&piece->records);
	free(piece);
}

bool fetch_is_large(const struct fetch *fetch)
{
	const struct fetch_piece *second = fetch->first ? fetch->first->next : NULL;

	return second && (fetch->staged > 0 || second->next);
}

struct fetch_piece *fetch_take_piece(struct fetch *fetch)
{
	struct fetch_piece *piece = fetch->first;

	if (!fetch_is_large(fetch))
		return NULL;
	fetch->first = piece->next;
	piece->next = NULL;
	return piece;
}

static struct fetch_piece *piece_new(void)
{
	struct fetch_piece *piece = calloc(1, sizeof *piece);

	if (piece)
		bytes_init(&piece->records, CHUNK_CEILING);
	return piece;
}

static bool is_full(const struct fetch_piece *piece, size_t full)
{
	return piece->records.len + (size_t)piece->n * ENVELOPE >= full;
}

int fetch_add(struct fetch *fetch, const void *data, size_t len, size_t full)
{
	struct fetch_piece *piece = fetch->last;
	int r;

	if (!piece || is_full(piece, full)) {
		piece = piece_new();
		if (!piece)
			return -ENOMEM;
	}
	r = chunk_add_record(&piece->records, data, len);
	if (r < 0) {
		if (piece != fetch->last)
			free(piece);
		return r;
	}
	piece->n++;
	if (!fetch->first)
		fetch->first = piece;
	else if (piece != fetch->last)
		fetch->last->next = piece;
	fetch->last = piece;
	fetch->records++;
	fetch->bytes += len;
	return 0;
}
