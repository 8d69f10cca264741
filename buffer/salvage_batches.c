/* SPDX-License-Identifier: Apache-2.0 */
/* Batches that wait: whole by their SHA-256, or as many lines from their beginning as can still be unpacked. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buffer/pack.h"
#include "buffer/salvage_private.h"

#define TRIES  64 /* ways to put a batch together whose parts stand there in several versions */
#define DAY_MS (24 * 60 * 60 * 1000)

/* --- Who has what --- */

/* 1: the store has it all, or will never have some of it and has the rest; 2: it has it all; 0, -errno. */
static int store_has(struct salvage *s, const char *store, const char *source, uint64_t first, uint64_t last)
{
	const struct cell cells[] = { cell_text(store), cell_text(source), cell_number((int64_t)first) };
	uint64_t next = first;
	bool delivered = true;
	int r = queue_query(s->fresh, SQL_SALVAGE_HAS, CELLS(cells), s->err);

	while (r == 0 && next <= last && (r = queue_step(s->fresh, SQL_SALVAGE_HAS, s->err)) > 0) {
		r = 0;
		if ((uint64_t)queue_number(s->fresh, SQL_SALVAGE_HAS, 0) > next)
			break;
		next = (uint64_t)queue_number(s->fresh, SQL_SALVAGE_HAS, 1) + 1;
		delivered &= queue_number(s->fresh, SQL_SALVAGE_HAS, 2) == 1;
	}
	queue_reset(s->fresh, SQL_SALVAGE_HAS);
	if (r < 0)
		return r;
	return next <= last ? 0 : 1 + delivered;
}

static int add_store(struct salvage *s, struct stores *stores, const char *name)
{
	if (stores->n == STORES_MAX || strlen(name) >= UNITS_NAME_MAX)
		return 0;
	if (!stores->names)
		stores->names = calloc(STORES_MAX, sizeof *stores->names);
	if (!stores->names)
		return err_fail(s->err, -ENOMEM, "buffer: no memory");
	strcpy(stores->names[stores->n++], name);
	return 0;
}

int salvage_stores(struct salvage *s, const struct origin *origin, struct stores *stores)
{
	const struct cell key[] = { cell_text(origin->source->name) };
	char name[UNITS_NAME_MAX];
	int r = 0;

	for (size_t i = 0; r == 0 && origin->known && i < origin->known->n_stores; i++)
		r = add_store(s, stores, origin->known->stores[i]);
	if (r < 0 || stores->n > 0)
		return r;
	r = queue_query(s->fresh, SQL_SALVAGE_STORES, CELLS(key), s->err);
	while (r == 0 && (r = queue_step(s->fresh, SQL_SALVAGE_STORES, s->err)) > 0) {
		r = queue_text(s->fresh, SQL_SALVAGE_STORES, 0, name, sizeof name, s->err);
		if (r == 0)
			r = add_store(s, stores, name);
	}
	queue_reset(s->fresh, SQL_SALVAGE_STORES);
	return r;
}

/* 1: all of them have it, or will never; *ret_lost: some never will. */
static int ask_all(struct salvage *s, const struct origin *origin, uint64_t first, uint64_t last, bool *ret_lost)
{
	struct stores stores = { .n = 0 };
	int r = salvage_stores(s, origin, &stores), all = stores.n > 0;

	*ret_lost = false;
	for (size_t i = 0; r == 0 && all && i < stores.n; i++) {
		r = store_has(s, stores.names[i], origin->source->name, first, last);
		all = r > 0;
		*ret_lost |= r == 1;
		r = r < 0 ? r : 0;
	}
	free(stores.names);
	return r < 0 ? r : all;
}

int salvage_all_have(struct salvage *s, const struct origin *origin, uint64_t first, uint64_t last)
{
	bool lost;

	return ask_all(s, origin, first, last, &lost);
}

/*
 * It needs nobody to deliver it. Where the configuration is not known there may be a store that has never had anything,
 * so only a batch that was dropped is, or one that nobody may have committed: another one has its seqs.
 */
static int is_done(struct salvage *s, const struct found *found)
{
	bool lost, known = found->origin->known && found->origin->known->n_stores > 0;
	int r = ask_all(s, found->origin, found->first, found->last, &lost);

	return r == 1 ? known || lost || !found->sure : r;
}

static int put_delivery(struct salvage *s, int64_t batch, const char *store)
{
	const struct cell row[] = { cell_number(batch), cell_text(store), cell_number(s->now_ms) };

	return queue_put(s->fresh, SQL_DELIVERY_PUT, CELLS(row), s->err);
}

/* The first of the batch's seqs from *first on that are not in the store's books: 1, 0: all are, -errno. */
static int find_unbooked(struct salvage *s, const char *store, const struct batch *batch, uint64_t *first,
                         uint64_t *ret_last)
{
	const struct cell cells[] = { cell_text(store), cell_text(batch->source), cell_number((int64_t)*first) };
	int r = queue_query(s->fresh, SQL_SALVAGE_HAS, CELLS(cells), s->err);

	*ret_last = batch->last_seq;
	while (r == 0 && (r = queue_step(s->fresh, SQL_SALVAGE_HAS, s->err)) > 0) {
		uint64_t begin = (uint64_t)queue_number(s->fresh, SQL_SALVAGE_HAS, 0);

		r = 0;
		if (begin > *first) {
			*ret_last = begin - 1 < batch->last_seq ? begin - 1 : batch->last_seq;
			break;
		}
		*first = (uint64_t)queue_number(s->fresh, SQL_SALVAGE_HAS, 1) + 1;
	}
	queue_reset(s->fresh, SQL_SALVAGE_HAS);
	return r < 0 ? r : *first <= batch->last_seq;
}

/* The store has the batch: so its books say. */
static int fill_books(struct salvage *s, const char *store, const struct batch *batch)
{
	uint64_t first = batch->first_seq, last;
	struct object_name name;
	int r = object_read_key(batch->key, &name) < 0 ? 0 : 1;

	while (r == 1 && (r = find_unbooked(s, store, batch, &first, &last)) == 1) {
		const struct cell row[] = {
			cell_text(store),           cell_text(batch->source), cell_number((int64_t)first),
			cell_number((int64_t)last), cell_number(name.day),    cell_text(name.device),
			cell_text(name.boot),
		};

		r = queue_put(s->fresh, SQL_SALVAGE_BOOK, CELLS(row), s->err);
		first = last + 1;
		r = r == 0 ? 1 : r;
	}
	return r;
}

/* 1: the store has the batch by a row of `delivery`. */
static int is_delivered(struct salvage *s, int64_t batch, const char *store)
{
	const struct cell key[] = { cell_number(batch) };
	char name[UNITS_NAME_MAX];
	int found = 0, r = queue_query(s->fresh, SQL_DELIVERIES, CELLS(key), s->err);

	while (r == 0 && !found && (r = queue_step(s->fresh, SQL_DELIVERIES, s->err)) > 0) {
		r = queue_text(s->fresh, SQL_DELIVERIES, 1, name, sizeof name, s->err);
		found = r == 0 && strcmp(name, store) == 0;
	}
	queue_reset(s->fresh, SQL_DELIVERIES);
	return r < 0 ? r : found;
}

/* 1: the books say that the store has some of it. */
static int is_begun(struct salvage *s, const char *store, const struct batch *batch)
{
	const struct cell cells[] = { cell_text(store), cell_text(batch->source),
		                      cell_number((int64_t)batch->first_seq) };
	int r = queue_query(s->fresh, SQL_SALVAGE_HAS, CELLS(cells), s->err), begun = 0;

	while (r == 0 && (r = queue_step(s->fresh, SQL_SALVAGE_HAS, s->err)) > 0) {
		begun |= (uint64_t)queue_number(s->fresh, SQL_SALVAGE_HAS, 0) <= batch->last_seq &&
		         queue_number(s->fresh, SQL_SALVAGE_HAS, 2) == 1;
		r = 0;
	}
	queue_reset(s->fresh, SQL_SALVAGE_HAS);
	return r < 0 ? r : begun;
}

/*
 * What the books, the batch itself and its deliveries say of a store, each says for the others as well. A batch is
 * booked in one go, so that the books that have some of it are an earlier version of those that have it all.
 */
static int agree(struct salvage *s, const struct batch *batch, const char *store)
{
	int r = batch->delivered_ms > 0 ? 1 : is_delivered(s, batch->id, store);

	if (r == 0)
		r = is_begun(s, store, batch);
	if (r != 1)
		return r;
	r = fill_books(s, store, batch);
	return r == 0 ? put_delivery(s, batch->id, store) : r;
}

/* The next batch of the source by its first seq: 1, 0, -errno. */
static int next_batch(struct salvage *s, const struct origin *origin, uint64_t from, struct batch *ret_batch)
{
	const struct cell cells[] = { cell_text(origin->source->name), cell_number((int64_t)from) };
	struct batch_row row = { .oldest_ms = 0 };
	int found = queue_query(s->fresh, SQL_BATCHES_OF, CELLS(cells), s->err), r = found;

	if (r == 0)
		r = found = queue_step(s->fresh, SQL_BATCHES_OF, s->err);
	if (r == 1)
		r = queue_read_batch(s->fresh, SQL_BATCHES_OF, &row, s->err);
	queue_reset(s->fresh, SQL_BATCHES_OF);
	*ret_batch = row.batch;
	return r < 0 ? r : found;
}

int salvage_deliveries(struct salvage *s, struct origin *origin)
{
	struct stores stores = { .n = 0 };
	struct batch batch = { .last_seq = 0 };
	int r = salvage_stores(s, origin, &stores);

	while (r == 0 && (r = next_batch(s, origin, batch.last_seq + 1, &batch)) > 0) {
		r = 0;
		for (size_t i = 0; r == 0 && i < stores.n; i++)
			r = agree(s, &batch, stores.names[i]);
	}
	free(stores.names);
	return r;
}

/* --- The list of what waits --- */

static int by_seq(const void *left, const void *right)
{
	const struct found *a = *(struct found *const *)left, *b = *(struct found *const *)right;

	if (a->origin != b->origin)
		return a->origin < b->origin ? -1 : 1;
	if (a->first != b->first)
		return a->first < b->first ? -1 : 1;
	return a->last < b->last ? -1 : a->last > b->last;
}

static int add_found(struct salvage *s, const struct batch_row *row)
{
	const struct batch *batch = &row->batch;
	struct found *grown;

	if (s->n_found % 256 == 0) {
		grown = s->n_found < WAITING_MAX ? realloc(s->found, (s->n_found + 256) * sizeof *grown) : NULL;
		if (!grown)
			return err_fail(s->err, -ENOMEM, "buffer: no memory");
		s->found = grown;
	}
	s->found[s->n_found++] = (struct found){
		.id = batch->id,
		.origin = batch->imported ? NULL : salvage_origin(s, batch->source),
		.first = batch->first_seq,
		.last = batch->last_seq,
		.sure = !salvage_has_id(&s->unsure_batches, batch->id),
	};
	if (!batch->imported)
		salvage_note_sealed(s->found[s->n_found - 1].origin, batch->last_seq);
	return 0;
}

int salvage_list_batches(struct salvage *s)
{
	struct batch_row row;
	int r = 0;

	while (r == 0 && (r = queue_step(s->fresh, SQL_BATCHES_WAITING, s->err)) > 0) {
		r = queue_read_batch(s->fresh, SQL_BATCHES_WAITING, &row, s->err);
		if (r == 0)
			r = add_found(s, &row);
	}
	queue_reset(s->fresh, SQL_BATCHES_WAITING);
	if (r == 0 && s->n_found > 0) {
		s->by_seq = calloc(s->n_found, sizeof(struct found *));
		if (!s->by_seq)
			return err_fail(s->err, -ENOMEM, "buffer: no memory");
	}
	for (size_t i = 0; r == 0 && i < s->n_found; i++) {
		if (s->found[i].origin)
			s->by_seq[s->n_by_seq++] = &s->found[i];
	}
	if (s->n_by_seq > 0)
		qsort(s->by_seq, s->n_by_seq, sizeof(struct found *), by_seq);
	return r;
}

/* The place behind the last batch of the source that begins no later. */
static size_t place_behind(const struct salvage *s, const struct origin *origin, uint64_t first)
{
	size_t low = 0, high = s->n_by_seq;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct found *f = s->by_seq[middle];

		if (f->origin < origin || (f->origin == origin && f->first <= first))
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

const struct found *salvage_find_batch(const struct salvage *s, const struct origin *origin, uint64_t first,
                                       uint64_t last)
{
	/* A few may overlap: those that were given up before they were durable. */
	size_t behind = place_behind(s, origin, first), least = behind > VERSIONS ? behind - VERSIONS : 0;

	for (size_t i = behind; i > least && s->by_seq[i - 1]->origin == origin; i--) {
		if (s->by_seq[i - 1]->last >= last && s->by_seq[i - 1]->state != FOUND_GONE)
			return s->by_seq[i - 1];
	}
	return NULL;
}

const struct found *salvage_batch_of(const struct salvage *s, const struct origin *origin, uint64_t seq)
{
	size_t behind = place_behind(s, origin, seq), least = behind > VERSIONS ? behind - VERSIONS : 0;

	for (size_t i = behind; i > least && s->by_seq[i - 1]->origin == origin; i--) {
		if (s->by_seq[i - 1]->last >= seq)
			return s->by_seq[i - 1];
	}
	return NULL;
}

const struct found *salvage_get_batch(const struct salvage *s, int64_t id)
{
	size_t low = 0, high = s->n_found;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (s->found[middle].id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low < s->n_found && s->found[low].id == id ? &s->found[low] : NULL;
}

/* --- Whole ones --- */

/* Part n in that version, into s->part: 0, -ENOENT, … */
static int read_part(struct salvage *s, int64_t batch, int n, int version)
{
	bytes_clear(&s->part);
	return queue_read_part(s->fresh, VERSION(batch << PART_BITS, version) >> PART_BITS, n, &s->part, s->err);
}

static int count_versions(struct salvage *s, int64_t batch, int n, int *ret_versions)
{
	int versions = 0, r = 0;

	while (r == 0 && versions < VERSIONS) {
		r = read_part(s, batch, n, versions);
		versions += r == 0;
	}
	*ret_versions = versions;
	return r == -ENOENT ? 0 : r;
}

/* From part n on. */
static int delete_parts(struct salvage *s, int64_t batch, int n)
{
	int r = 0;

	for (int v = 0; r == 0 && v < VERSIONS; v++) {
		const struct cell range[] = { cell_number(VERSION(batch << PART_BITS | n, v)),
			                      cell_number(VERSION(batch << PART_BITS | PART_MAX, v)) };

		r = queue_run(s->fresh, SQL_PARTS_DELETE, CELLS(range), s->err);
	}
	return r;
}

/* A way to put it together: for each part the version of it, of which the first parts have most. */
struct way {
	int left;    /* what of the way's number later parts have to say */
	bool chosen; /* some part was there in several versions */
	uint64_t bytes;
	struct sha256 hash;
};

static int take_part(struct salvage *s, int64_t batch, int n, struct way *way, int *ret_version)
{
	int versions, r = count_versions(s, batch, n, &versions);

	if (r < 0 || versions == 0)
		return r < 0 ? r : -ENOENT;
	*ret_version = versions - 1 - way->left % versions; /* the latest one first */
	way->left /= versions;
	r = read_part(s, batch, n, *ret_version);
	if (r < 0)
		return r;
	way->bytes += s->part.len;
	sha256_add(&way->hash, s->part.data, s->part.len);
	return 0;
}

/* Puts the version in the part's place, once it is known to be the right one. */
static int place_part(struct salvage *s, int64_t batch, int n, int version)
{
	int r = version > 0 ? read_part(s, batch, n, version) : 0;

	for (int v = 0; r == 0 && v < VERSIONS; v++) {
		int64_t id = VERSION(batch << PART_BITS | n, v);
		const struct cell range[] = { cell_number(id), cell_number(id) };

		if (v > 0 || version > 0)
			r = queue_run(s->fresh, SQL_PARTS_DELETE, CELLS(range), s->err);
	}
	if (r == 0 && version > 0) {
		const struct cell row[] = { cell_number(batch << PART_BITS | n), cell_blob(s->part.data, s->part.len) };

		r = queue_put(s->fresh, SQL_PART_PUT, CELLS(row), s->err);
	}
	return r;
}

/* 1: it is whole that way, 0: it is not, -ENOENT: a part is missing, -ERANGE: there are no more ways. */
static int try_way(struct salvage *s, const struct batch *batch, int number, bool place)
{
	uint8_t digest[SHA256_SIZE];
	struct way way = { .left = number };
	int n, version, r = 0;

	sha256_init(&way.hash);
	for (n = 0; r == 0 && way.bytes < batch->bytes && n <= PART_MAX; n++) {
		r = take_part(s, batch->id, n, &way, &version);
		if (r == 0 && place)
			r = place_part(s, batch->id, n, version);
	}
	sha256_finish(&way.hash, digest);
	if (r < 0)
		return r;
	if (way.left > 0)
		return -ERANGE;
	if (way.bytes != batch->bytes || memcmp(digest, batch->sha256, SHA256_SIZE) != 0)
		return 0;
	/* Others are of an import or a sealing that was given up, and whose id this batch got. */
	r = place && n <= PART_MAX ? delete_parts(s, batch->id, n) : 0;
	return r < 0 ? r : 1;
}

/* 1: all its parts are there, and no others; 0, -errno. */
static int make_whole(struct salvage *s, const struct batch *batch)
{
	int r = 0;

	for (int way = 0; r == 0 && way < TRIES; way++) {
		r = try_way(s, batch, way, false);
		if (r == 1)
			r = try_way(s, batch, way, true);
	}
	return r == -ENOENT || r == -ERANGE ? 0 : r;
}

static int drop(struct salvage *s, struct found *found)
{
	const struct cell key[] = { cell_number(found->id) };
	int r = delete_parts(s, found->id, 0);

	found->state = FOUND_GONE;
	return r == 0 ? queue_run(s->fresh, SQL_BATCH_DELETE, CELLS(key), s->err) : r;
}

static bool overlaps_whole(const struct salvage *s, const struct found *found)
{
	size_t behind = place_behind(s, found->origin, found->last);
	size_t least = behind > 2 * VERSIONS ? behind - 2 * VERSIONS : 0;

	for (size_t i = behind; i > least && s->by_seq[i - 1]->origin == found->origin; i--) {
		const struct found *other = s->by_seq[i - 1];

		if (other != found && other->state == FOUND_WHOLE && other->end >= found->first)
			return true;
	}
	return false;
}

static int judge(struct salvage *s, struct found *found)
{
	struct batch_row row;
	int r = is_done(s, found);

	if (r == 0)
		r = overlaps_whole(s, found);
	if (r != 0)
		return r < 0 ? r : drop(s, found);
	r = queue_get_batch(s->fresh, found->id, &row, s->err);
	if (r == 0)
		r = make_whole(s, &row.batch);
	if (r < 0)
		return r;
	found->state = r == 1 ? FOUND_WHOLE : FOUND_BROKEN;
	found->end = found->last;
	return 0;
}

/* 1: some of its seqs are there already. */
static int is_taken(struct salvage *s, const struct object_name *name)
{
	const struct cell key[] = { cell_text(name->source), cell_text(name->device), cell_text(name->boot),
		                    cell_number((int64_t)name->last_seq) };
	int taken = 0, r = queue_query(s->fresh, SQL_IMPORTED_NEAR, CELLS(key), s->err);

	while (r == 0 && !taken && (r = queue_step(s->fresh, SQL_IMPORTED_NEAR, s->err)) > 0) {
		taken = (uint64_t)queue_number(s->fresh, SQL_IMPORTED_NEAR, 4) >= name->first_seq;
		r = 0;
	}
	queue_reset(s->fresh, SQL_IMPORTED_NEAR);
	return r < 0 ? r : taken;
}

/*
 * Of what was imported only those are remembered that are here, so that one that is gone can come again. If it had been
 * delivered, it has the same name and content once more, and its store finds it there.
 */
static int judge_imported(struct salvage *s, struct found *found)
{
	struct object_name name = { .first_seq = 0 };
	struct batch_row row;
	int r = queue_get_batch(s->fresh, found->id, &row, s->err), whole = 0;

	if (r == 0 && object_read_key(row.batch.key, &name) == 0)
		r = is_taken(s, &name);
	if (r == 0 && name.first_seq > 0)
		r = whole = make_whole(s, &row.batch);
	if (r < 0)
		return r;
	if (whole != 1)
		return drop(s, found);
	found->state = FOUND_WHOLE;
	found->end = found->last;
	return queue_put_taken(s->fresh, &name, s->now_ms, s->err);
}

int salvage_judge_batches(struct salvage *s)
{
	int r = queue_begin(s->fresh, s->err);

	if (r < 0)
		return r;
	for (int sure = 1; r == 0 && sure >= 0; sure--) {
		for (size_t i = 0; r == 0 && i < s->n_found; i++) {
			if (s->found[i].sure == sure && s->found[i].origin)
				r = judge(s, &s->found[i]);
		}
	}
	/* One that was dropped may have come again: the later one is that. */
	for (size_t i = s->n_found; r == 0 && i > 0; i--) {
		if (!s->found[i - 1].origin)
			r = judge_imported(s, &s->found[i - 1]);
	}
	return queue_end(s->fresh, r, s->err);
}

/* --- Broken ones --- */

/* The lines that can be unpacked from the beginning. */
struct prefix {
	struct salvage *s;
	const struct object_name *name;
	struct bytes line; /* the one at hand, as far as it has come */
	uint64_t seq;      /* of that one */
	uint64_t stop;     /* there it ends */
	struct pack *pack; /* where whole lines go; NULL: they are counted */
	uint64_t raw;
};

/* It is the one that is to come: a part of another batch may have been taken for one of this. */
static bool is_expected(const struct prefix *p)
{
	char begin[256];
	int len = snprintf(begin, sizeof begin,
	                   "{\"source\":\"%s\",\"device\":\"%s\",\"boot\":\"%s\",\"seq\":%" PRIu64 ",", p->name->source,
	                   p->name->device, p->name->boot, p->seq);

	return p->line.len > (size_t)len && memcmp(p->line.data, begin, (size_t)len) == 0;
}

static int end_line(struct prefix *p)
{
	int r = 0;

	if (p->seq == p->stop || !is_expected(p))
		return -ECANCELED;
	if (p->pack)
		r = pack_write(p->pack, p->line.data, p->line.len);
	p->raw += p->line.len;
	p->seq++;
	bytes_clear(&p->line);
	return r;
}

static int on_piece(void *arg, const void *data, size_t len)
{
	struct prefix *p = arg;
	const char *at = data, *end = at + len, *feed;
	int r = 0;

	while (r == 0 && at < end) {
		feed = memchr(at, '\n', (size_t)(end - at));
		r = bytes_add(&p->line, at, (size_t)((feed ? feed + 1 : end) - at));
		if (r == 0 && feed)
			r = end_line(p);
		at = feed ? feed + 1 : end;
	}
	return r;
}

/* Unpacks what there is, in the latest version of each part. What ends it early is what it is for. */
static int unpack_lines(struct prefix *p, int64_t batch)
{
	struct salvage *s = p->s;
	struct unpack unpack;
	int versions, r = unpack_init(&unpack, on_piece, p);

	bytes_init(&p->line, CHUNK_PLAIN_MAX);
	p->seq = p->name->first_seq;
	for (int n = 0; r == 0 && n <= PART_MAX; n++) {
		r = count_versions(s, batch, n, &versions);
		if (r == 0)
			r = versions > 0 ? read_part(s, batch, n, versions - 1) : -ECANCELED;
		if (r == 0)
			r = unpack_write(&unpack, s->part.data, s->part.len);
	}
	unpack_done(&unpack);
	bytes_done(&p->line);
	return r == -ECANCELED || r == -EBADMSG || r == -ENOBUFS ? 0 : r;
}

struct writing {
	struct salvage *s;
	int64_t batch;
	int parts;
};

static int on_part(void *arg, const void *data, size_t len)
{
	struct writing *w = arg;
	const struct cell row[] = { cell_number(w->batch << PART_BITS | w->parts), cell_blob(data, len) };

	if (w->parts++ == PART_MAX)
		return err_fail(w->s->err, -EFBIG, "a batch of more than %d parts", PART_MAX);
	return queue_put(w->s->fresh, SQL_PART_PUT, CELLS(row), w->s->err);
}

/* A batch of its own of the lines before `stop`. */
static int write_prefix(struct salvage *s, const struct batch_row *from, const struct object_name *name, uint64_t stop)
{
	struct writing w = { .s = s, .batch = s->fresh->last_batch + 1 };
	struct batch_row row = *from;
	struct batch *batch = &row.batch;
	const struct envelope first = {
		.source = name->source,
		.device = name->device,
		.boot = name->boot,
		.seq = name->first_seq,
		.wall_ms = name->day * DAY_MS,
	};
	struct pack pack;
	struct prefix p = { .s = s, .name = name, .stop = stop, .pack = &pack };
	int r = pack_init(&pack, on_part, &w);

	if (r < 0)
		return err_fail(s->err, r, "buffer: no memory");
	r = unpack_lines(&p, from->batch.id);
	if (r == 0)
		r = pack_finish(&pack, batch->sha256);
	assert(r < 0 || p.seq == stop);
	batch->id = s->fresh->last_batch = w.batch;
	batch->last_seq = stop - 1;
	batch->records = stop - name->first_seq;
	batch->raw_bytes = p.raw;
	batch->bytes = pack.bytes;
	batch->sealed_ms = s->now_ms;
	object_key(batch->key, &first, batch->last_seq, batch->sha256);
	pack_done(&pack);
	return r == 0 ? queue_put_batch(s->fresh, &row, s->err) : r;
}

/* Where the lines are to end so that no chunk is cut in two; the chunks before it are in the lines. */
static int cut_prefix(struct salvage *s, const struct mark *mark, uint64_t first, uint64_t *stop)
{
	struct cell range[] = { cell_number(queue_chunk_id(mark, first)), cell_number(0) };
	struct unit unit = { .id = queue_chunk_id(mark, first) - 1 };
	int r;

	while ((r = salvage_next_chunk(s, unit.id + 1, &unit)) > 0 && unit.seq < *stop) {
		if (unit.seq + unit.records > *stop)
			*stop = unit.seq;
	}
	if (r < 0 || *stop == first)
		return r < 0 ? r : 0;
	range[1] = cell_number(queue_chunk_id(mark, *stop) - 1);
	return queue_run(s->fresh, SQL_CHUNKS_DELETE, CELLS(range), s->err);
}

/* What is left of its seqs and in no chunk is damage, unless all its stores have the batch. */
static int book_holes(struct salvage *s, const struct origin *origin, const struct found *found, uint64_t next,
                      const struct object_name *name)
{
	const struct mark *mark = &origin->source->now;
	struct unit unit = { .id = queue_chunk_id(mark, next) - 1 };
	int r = salvage_all_have(s, origin, found->first, found->last);

	if (r != 0)
		return r < 0 ? r : 0;
	while (r == 0 && next <= found->last) {
		r = salvage_next_chunk(s, unit.id + 1, &unit);
		if (r == 0 || (r == 1 && unit.seq > found->last))
			unit = (struct unit){ .id = unit.id, .seq = found->last + 1 };
		r = r > 0 ? 0 : r;
		if (r == 0 && unit.seq > next)
			r = salvage_put_damage(
			        s, origin, &(struct hole){ next, unit.seq - 1, name->day, name->device, name->boot });
		next = unit.seq + unit.records;
		if (unit.records == 0)
			next = found->last + 1;
	}
	return r;
}

static int mend(struct salvage *s, struct origin *origin, struct found *found)
{
	struct object_name name = { .first_seq = 0 };
	struct prefix p = { .s = s, .name = &name, .stop = found->last + 1 };
	struct batch_row row = { .oldest_ms = 0 };
	int r = queue_get_batch(s->fresh, found->id, &row, s->err);

	if (r == 0 && (object_read_key(row.batch.key, &name) < 0 || overlaps_whole(s, found)))
		return drop(s, found);
	if (r == 0)
		r = unpack_lines(&p, found->id);
	if (r == 0 && p.seq > found->first)
		r = cut_prefix(s, &origin->source->now, found->first, &p.seq);
	if (r == 0 && p.seq > found->first)
		r = write_prefix(s, &row, &name, p.seq);
	if (r == 0)
		r = book_holes(s, origin, found, p.seq, &name);
	if (r == 0)
		r = drop(s, found);
	if (r == 0 && p.seq > found->first) {
		found->end = p.seq - 1; /* what another one holds of it as well is not needed */
		found->state = FOUND_WHOLE;
	}
	return r;
}

int salvage_mend_batches(struct salvage *s, struct origin *origin)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < s->n_by_seq; i++) {
		if (s->by_seq[i]->origin == origin && s->by_seq[i]->state == FOUND_BROKEN)
			r = mend(s, origin, s->by_seq[i]);
	}
	return r;
}
