/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chunks that were staged. Those of a fetch that was given up stand at the ids of those that came after it, and only
 * a number tells the ones from the others. So all are kept apart, in versions of their id,
 * until the chunk that goes on with a fetch says which it needs.
 */
#include <errno.h>
#include <string.h>

#include "buffer/salvage_private.h"

/* --- Keeping them --- */

/* The first chunk with an id of that version from `first` to `last`: 1, and it is to be reset; 0, -errno. */
static int begin_read(struct salvage *s, int64_t first, int64_t last, int v, struct chunk_row *ret_row)
{
	const struct cell range[] = { cell_number(VERSION(first, v)), cell_number(VERSION(last, v)) };
	int r = queue_query(s->fresh, SQL_CHUNKS, CELLS(range), s->err), found = 0;

	if (r == 0)
		r = found = queue_step(s->fresh, SQL_CHUNKS, s->err);
	if (r == 1)
		r = queue_read_row(s->fresh, SQL_CHUNKS, ret_row, s->err);
	return r < 0 ? r : found;
}

int salvage_stage_version(struct salvage *s, int64_t id, int64_t mono_ms, int64_t *ret_id)
{
	struct chunk_row there = { .id = 0 };
	int found = 1, v = 1;

	for (; v < STAGE_VERSIONS - 1; v++) { /* the last one is always the latest */
		found = begin_read(s, id, id, v, &there);
		if (found == 1 && there.mono_ms == mono_ms)
			found = 0;
		queue_reset(s->fresh, SQL_CHUNKS);
		if (found <= 0)
			break;
	}
	*ret_id = VERSION(id, v);
	return found < 0 ? found : 0;
}

/* --- Taking them --- */

/* Puts the row into the place of its id, if it is sound. */
static int take_row(struct salvage *s, const struct origin *origin, const struct chunk_row *row, bool on_its_way)
{
	struct chunk_row taken = *row;
	struct unit unit;
	int r;

	taken.id &= VERSION(INT64_C(0), 1) - 1;
	if (!salvage_look(s, &taken, &unit))
		return 0;
	r = on_its_way ? 0 : salvage_is_out_of_date(s, origin, &unit);
	if (r != 0)
		return r < 0 ? r : 0;
	r = queue_put_chunk(s->fresh, &taken, s->err);
	return r < 0 ? r : 1;
}

/* Those with ids from `first` on that the chunk `end` goes on with. */
static int take_staged(struct salvage *s, const struct origin *origin, int64_t first, const struct unit *end)
{
	struct chunk_row row = { .id = 0 };
	int r = 0;

	for (int v = 1; r >= 0 && v < STAGE_VERSIONS; v++) {
		int64_t next = first;

		while ((r = begin_read(s, next, end->id - 1, v, &row)) > 0) {
			next = (row.id & (VERSION(INT64_C(0), 1) - 1)) + 1;
			if (row.mono_ms == end->ticket && row.fetch + 1 == end->first_fetch &&
			    next - 1 + (int64_t)row.records <= end->id)
				r = take_row(s, origin, &row, false);
			queue_reset(s->fresh, SQL_CHUNKS);
			if (r < 0)
				return r;
		}
		queue_reset(s->fresh, SQL_CHUNKS);
	}
	return r < 0 ? r : 0;
}

/* Those of the fetch that is on its way: the process knows when that began. */
static int take_on_its_way(struct salvage *s, const struct origin *origin)
{
	const struct salvage_known *known = origin->known;
	int64_t id = queue_chunk_id(&origin->source->now, known->seq);
	struct chunk_row row = { .id = 0 };
	int r = 0;

	for (int v = 1; r >= 0 && v < STAGE_VERSIONS; v++) {
		uint64_t records = 0;

		r = begin_read(s, id, id, v, &row);
		if (r == 1 && row.mono_ms == known->ticket) {
			r = take_row(s, origin, &row, true);
			records = r == 1 ? row.records : 0;
		}
		queue_reset(s->fresh, SQL_CHUNKS);
		if (records > 0) {
			id += (int64_t)records;
			v = 0;
		}
	}
	return r < 0 ? r : 0;
}

int salvage_staged(struct salvage *s, struct origin *origin)
{
	const struct mark *now = &origin->source->now;
	struct unit end = { .id = queue_chunk_id(now, 0) };
	int64_t first = end.id + 1;
	int r;

	while ((r = salvage_next_chunk(s, end.id + 1, &end)) > 0) {
		r = end.ticket > 0 ? take_staged(s, origin, first, &end) : 0;
		if (r < 0)
			return r;
		first = end.id + (int64_t)end.records;
	}
	return r == 0 && salvage_is_running(origin) && origin->known->ticket > 0 ? take_on_its_way(s, origin) : r;
}
