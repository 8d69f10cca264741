/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of the damaged file into the tables of the fresh one. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "buffer/ledger.h"
#include "buffer/salvage_private.h"

/* --- Cells --- */

static bool take_text(const struct pages_row *row, size_t i, char *ret_text, size_t size)
{
	const struct cell *cell = &row->cells[i];

	if (cell->type != SQLITE_TEXT || cell->len >= size || (cell->len > 0 && memchr(cell->data, '\0', cell->len)))
		return false;
	if (cell->len > 0)
		memcpy(ret_text, cell->data, cell->len);
	ret_text[cell->len] = '\0';
	return true;
}

static int64_t number(const struct pages_row *row, size_t i)
{
	return row->cells[i].type == SQLITE_INTEGER ? row->cells[i].number : -1;
}

/* As it stands, with its checksum. */
static int put(struct salvage *s, enum sql sql, const struct pages_row *row)
{
	return queue_put(s->fresh, sql, row->cells, row->n, s->err);
}

/* --- Ids --- */

static size_t place_of(const struct ids *ids, int64_t id)
{
	size_t low = 0, high = ids->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (ids->at[middle] < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

bool salvage_has_id(const struct ids *ids, int64_t id)
{
	size_t i = place_of(ids, id);

	return i < ids->n && ids->at[i] == id;
}

static int note_id(struct salvage *s, struct ids *ids, int64_t id, bool unsure)
{
	size_t i = place_of(ids, id), capacity = ids->capacity > 0 ? 2 * ids->capacity : 64;
	bool there = i < ids->n && ids->at[i] == id;
	int64_t *grown;

	if (there && !unsure) {
		memmove(ids->at + i, ids->at + i + 1, (ids->n - i - 1) * sizeof *ids->at);
		ids->n--;
	}
	if (there == unsure || !unsure)
		return 0;
	if (ids->n == ids->capacity) {
		grown = realloc(ids->at, capacity * sizeof *grown);
		if (!grown)
			return err_fail(s->err, -ENOMEM, "buffer: no memory");
		ids->at = grown;
		ids->capacity = capacity;
	}
	memmove(ids->at + i + 1, ids->at + i, (ids->n - i) * sizeof *ids->at);
	ids->at[i] = id;
	ids->n++;
	return 0;
}

/* --- Sources --- */

struct origin *salvage_origin(struct salvage *s, const char *name)
{
	struct origin *origin;

	for (size_t i = 0; i < s->n_origins; i++) {
		if (strcmp(s->origins[i].source->name, name) == 0)
			return &s->origins[i];
	}
	origin = &s->origins[s->n_origins];
	if (queue_add_source(s->fresh, name, &origin->source, s->err) < 0)
		return NULL;
	s->n_origins++;
	origin->next = 1;
	for (size_t i = 0; i < s->n_known; i++) {
		if (!s->known[i].source && !origin->known)
			origin->known = &s->known[i];
		if (s->known[i].source && strcmp(s->known[i].source, name) == 0)
			origin->known = &s->known[i];
	}
	return origin;
}

void salvage_note_sealed(struct origin *origin, uint64_t last)
{
	if (origin->sealed < last)
		origin->sealed = last;
	if (origin->next <= last)
		origin->next = last + 1;
}

/* Chunks hold the id of their source. */
static bool claim_id(struct salvage *s, struct origin *origin, int64_t id)
{
	if (origin->source->now.id != 0)
		return origin->source->now.id == id;
	for (size_t i = 0; i < s->n_origins; i++) {
		if (s->origins[i].source->now.id == id)
			return false;
	}
	origin->source->now.id = id;
	return true;
}

/* Whatever tells of it: no batch gets it again, nor one below it. */
static void note_batch_id(struct salvage *s, int64_t id)
{
	if (s->fresh->last_batch < id && id < BATCH_MOST)
		s->fresh->last_batch = id;
}

static int add_source(struct salvage *s, const struct pages_row *row)
{
	uint64_t seq = (uint64_t)number(row, 2), fetch = (uint64_t)number(row, 3);
	const struct cell *state = &row->cells[4];
	char name[UNITS_NAME_MAX];
	struct origin *origin;
	struct mark *now;

	if (number(row, 0) < 1 || number(row, 0) >= SOURCE_MOST || !take_text(row, 1, name, sizeof name) || seq < 1 ||
	    seq > (uint64_t)SEQ_MAX || state->len > SINK_STATE_MAX)
		return 0;
	origin = salvage_origin(s, name);
	if (!origin)
		return -ENOMEM;
	claim_id(s, origin, number(row, 0));
	now = &origin->source->now;
	if (now->batch < number(row, 5))
		now->batch = number(row, 5);
	note_batch_id(s, now->batch);
	if (row->sure && seq > origin->sealed) {
		salvage_note_sealed(origin, seq - 1);
		origin->sealed_fetch = fetch;
	}
	if (origin->next < seq)
		origin->next = seq;
	if (seq < origin->state_seq || (seq == origin->state_seq && fetch < now->fetch))
		return 0;
	origin->state_seq = seq;
	now->fetch = fetch;
	now->state_len = state->len;
	if (state->len > 0)
		memcpy(now->state, state->data, state->len);
	return 0;
}

/* --- Batches and the books --- */

static bool batch_is_one(const struct pages_row *row, char source[UNITS_NAME_MAX])
{
	struct object_name name;
	char key[OBJECT_KEY_MAX];

	return number(row, 0) > 0 && number(row, 0) < BATCH_MOST && take_text(row, 1, source, UNITS_NAME_MAX) &&
	       take_text(row, 2, key, sizeof key) && object_read_key(key, &name) == 0 &&
	       strcmp(name.source, source) == 0 && name.first_seq == (uint64_t)number(row, 3) &&
	       name.last_seq == (uint64_t)number(row, 4) && row->cells[7].len == SHA256_SIZE &&
	       name.last_seq <= (uint64_t)SEQ_MAX;
}

static int add_batch(struct salvage *s, const struct pages_row *row)
{
	int64_t id = number(row, 0);
	char source[UNITS_NAME_MAX];
	struct origin *origin;
	struct batch_row before;
	struct err none;
	int r;

	if (!batch_is_one(row, source))
		return 0;
	note_batch_id(s, id);
	if (number(row, 11) == 0) {
		origin = salvage_origin(s, source);
		if (!origin)
			return -ENOMEM;
		/* One that nobody may have committed counts if its row is still there in the end: ids come again. */
		if (row->sure)
			salvage_note_sealed(origin, (uint64_t)number(row, 4));
		else if (origin->next <= (uint64_t)number(row, 4))
			origin->next = (uint64_t)number(row, 4) + 1;
	}
	r = queue_get_batch(s->fresh, id, &before, &none);
	if (r < 0 && r != -ENOENT)
		return err_fail(s->err, r, "%s", none.text);
	/* That it was delivered counts only with the books of the same transaction: without them it goes out again. */
	if (r == 0 && !row->sure && !salvage_has_id(&s->unsure_batches, id))
		return 0;
	if (r == 0 && number(row, 10) == 0 && before.batch.delivered_ms > 0 &&
	    (!row->sure || !salvage_has_id(&s->unsure_batches, id)))
		return 0;
	r = put(s, SQL_BATCH_PUT, row);
	return r == 0 ? note_id(s, &s->unsure_batches, id, !row->sure) : r;
}

/* A store has it, or it was dropped: whoever wrote that down knew it, be it committed or not. */
static int add_booking(struct salvage *s, const struct pages_row *row, enum sql sql)
{
	char source[UNITS_NAME_MAX], text[UNITS_NAME_MAX], boot[OBJECT_BOOT];
	int64_t first = number(row, 2), last = number(row, 3);
	struct origin *origin;

	if (!take_text(row, 0, text, sizeof text) || !take_text(row, 1, source, sizeof source) || first < 1 ||
	    last < first || last > SEQ_MAX || !take_text(row, 5, text, sizeof text) ||
	    !take_text(row, 6, boot, sizeof boot))
		return 0;
	origin = salvage_origin(s, source);
	if (!origin)
		return -ENOMEM;
	salvage_note_sealed(origin, (uint64_t)last);
	return put(s, sql, row);
}

static int add_damage(struct salvage *s, const struct pages_row *row)
{
	char source[UNITS_NAME_MAX], device[UNITS_NAME_MAX], boot[OBJECT_BOOT];
	int64_t first = number(row, 1), last = number(row, 2);
	struct origin *origin;

	if (!take_text(row, 0, source, sizeof source) || first < 1 || first > SEQ_MAX || (last != 0 && last < first) ||
	    last > SEQ_MAX || !take_text(row, 4, device, sizeof device) || !take_text(row, 5, boot, sizeof boot))
		return 0;
	origin = salvage_origin(s, source);
	if (!origin)
		return -ENOMEM;
	if (origin->next < (uint64_t)first)
		origin->next = (uint64_t)first;
	if (origin->next <= (uint64_t)last)
		origin->next = (uint64_t)last + 1;
	return put(s, SQL_SALVAGE_DAMAGE, row);
}

static int add_rejected(struct salvage *s, const struct pages_row *row)
{
	char source[UNITS_NAME_MAX];
	const struct cell key[] = { row->cells[0] };
	int64_t at = -1;
	int r;

	if (!take_text(row, 0, source, sizeof source) || row->cells[7].len > SINK_EXCERPT_MAX)
		return 0;
	r = queue_query(s->fresh, SQL_SALVAGE_REJECTED, CELLS(key), s->err);
	if (r == 0)
		r = queue_step(s->fresh, SQL_SALVAGE_REJECTED, s->err);
	if (r == 1)
		at = queue_number(s->fresh, SQL_SALVAGE_REJECTED, 0);
	queue_reset(s->fresh, SQL_SALVAGE_REJECTED);
	if (r < 0 || number(row, 1) < at)
		return r < 0 ? r : 0;
	return put(s, SQL_REJECTED_PUT, row);
}

/* --- The ledger --- */

static int add_due(struct salvage *s, const struct pages_row *row)
{
	char job[UNITS_NAME_MAX], store[UNITS_NAME_MAX], key[OBJECT_KEY_MAX];
	struct object_name name;

	if (!take_text(row, 0, job, sizeof job) || number(row, 1) < 1 || !take_text(row, 2, store, sizeof store) ||
	    !take_text(row, 3, key, sizeof key) || object_read_key(key, &name) < 0 || row->cells[5].len != SHA256_SIZE)
		return 0;
	return put(s, SQL_SALVAGE_DUE, row);
}

static int add_job(struct salvage *s, const struct pages_row *row)
{
	char name[UNITS_NAME_MAX];

	return take_text(row, 0, name, sizeof name) ? put(s, SQL_SALVAGE_JOB, row) : 0;
}

static int add_run(struct salvage *s, const struct pages_row *row)
{
	char id[LEDGER_RUN], job[UNITS_NAME_MAX], store[UNITS_NAME_MAX], reason[ERR_MAX], remote[LEDGER_REMOTE];
	char place[LEDGER_PLACE];
	int r;

	if (!take_text(row, 0, id, sizeof id) || !take_text(row, 1, job, sizeof job) ||
	    !take_text(row, 2, store, sizeof store) || number(row, 6) < 0 || number(row, 6) > LEDGER_CANCELLED ||
	    row->cells[17].len != SHA256_SIZE || !take_text(row, 18, reason, sizeof reason) ||
	    !take_text(row, 19, remote, sizeof remote) || !take_text(row, 20, place, sizeof place) ||
	    row->cells[21].len > LEDGER_LOG)
		return 0;
	r = ledger_has_edge(s->fresh, id, number(row, 5), s->err);
	return r == 0 ? put(s, SQL_RUN_PUT, row) : r < 0 ? r : 0;
}

static int add_machine(struct salvage *s, const struct pages_row *row)
{
	char name[UNITS_NAME_MAX], reason[ERR_MAX], awake[LEDGER_AWAKE];

	if (!take_text(row, 0, name, sizeof name) || number(row, 1) < 0 || number(row, 1) > LEDGER_SLEEPING ||
	    !take_text(row, 4, reason, sizeof reason) || !take_text(row, 5, awake, sizeof awake))
		return 0;
	return put(s, SQL_SALVAGE_MACHINE, row);
}

static int on_ledger_row(struct salvage *s, const struct pages_row *row)
{
	switch (row->table) {
	case PAGES_DUE:
		return add_due(s, row);
	case PAGES_JOB:
		return add_job(s, row);
	case PAGES_RUN:
		return add_run(s, row);
	case PAGES_MACHINE:
		return add_machine(s, row);
	case PAGES_DAY:
		return put(s, SQL_SALVAGE_DAY, row);
	default:
		return 0;
	}
}

static int on_row(void *arg, const struct pages_row *row)
{
	struct salvage *s = arg;

	switch (row->table) {
	case PAGES_SOURCE:
		return add_source(s, row);
	case PAGES_BATCH:
		return add_batch(s, row);
	case PAGES_DELIVERY:
		note_batch_id(s, number(row, 0));
		return put(s, SQL_DELIVERY_PUT, row);
	case PAGES_STORE:
		return put(s, SQL_STORE_PUT, row);
	case PAGES_BOOK:
		return add_booking(s, row, SQL_SALVAGE_BOOK);
	case PAGES_LOST: /* a drop that was cut off has dropped nothing */
		return row->sure ? add_booking(s, row, SQL_SALVAGE_LOST) : 0;
	case PAGES_DAMAGE:
		return add_damage(s, row);
	case PAGES_CLOCK:
		return put(s, SQL_SALVAGE_CLOCKS, row);
	case PAGES_REJECTED:
		return add_rejected(s, row);
	default:
		return on_ledger_row(s, row);
	}
}

int salvage_rows(struct salvage *s)
{
	unsigned tables = ~(1U << PAGES_CHUNK | 1U << PAGES_PART);
	int r = queue_begin(s->fresh, s->err);

	if (r < 0)
		return r;
	r = pages_each(s->pages, PAGES_ALL, tables, SALVAGE_ROW_MAX, on_row, s);
	if (r == 0)
		r = ledger_mend(s->fresh, s->err);
	return queue_end(s->fresh, r, s->err);
}

/* --- Chunks --- */

/* What two rows with one id are told apart by. */
struct version {
	uint64_t records, fetch;
	bool staged, sure;
	int64_t mono_ms;
	char boot[OBJECT_BOOT];
};

/* One with records against one without: the number of the fetch that it brought is higher, if it came behind. */
static bool beats(const struct version *full, const struct version *other)
{
	return full->fetch > other->fetch || full->sure || !other->sure;
}

/*
 * Of two that have records, one was never durable. A chunk without records gives way to what follows it. Else what was
 * begun later.
 */
static bool is_better(const struct version *new, const struct version *old)
{
	bool full = new->records > 0, was_full = old->records > 0;

	if (full && was_full && new->sure != old->sure)
		return new->sure;
	if (full != was_full)
		return full ? beats(new, old) : !beats(old, new);
	if (!full && new->fetch != old->fetch)
		return new->fetch > old->fetch;
	if (strcmp(new->boot, old->boot) == 0 && new->mono_ms != old->mono_ms)
		return new->mono_ms > old->mono_ms;
	return new->sure || !old->sure;
}

static bool chunk_is_one(const struct pages_row *row)
{
	int64_t id = number(row, 0), seq = id & SEQ_MAX, records = number(row, 4), last = number(row, 7);
	char text[UNITS_NAME_MAX], boot[OBJECT_BOOT];

	return id > 0 && id >> SEQ_BITS > 0 && id >> SEQ_BITS < SOURCE_MOST && seq > 0 && records >= 0 &&
	       records <= SEQ_MAX - seq && last >= 0 && last <= 1 + CHUNK_UNSYNCED &&
	       take_text(row, 2, text, sizeof text) && take_text(row, 3, boot, sizeof boot) &&
	       row->cells[11].len <= SINK_STATE_MAX && number(row, 12) >= 0 &&
	       number(row, 12) <= (int64_t)CHUNK_PLAIN_MAX;
}

static struct version read_version(const struct pages_row *row)
{
	struct version version = {
		.records = (uint64_t)number(row, 4),
		.fetch = (uint64_t)number(row, 10),
		.staged = number(row, 7) == 0 && number(row, 8) == 0,
		.sure = row->sure,
		.mono_ms = number(row, 9),
	};

	take_text(row, 3, version.boot, sizeof version.boot);
	return version;
}

/* The one that has the id's place: 1, 0: none has, -errno. */
static int get_version(struct salvage *s, int64_t id, struct version *ret_version)
{
	const struct cell range[] = { cell_number(id), cell_number(id) };
	struct chunk_row row = { .id = 0 };
	int r = queue_query(s->fresh, SQL_CHUNKS, CELLS(range), s->err), found = 0;

	if (r == 0)
		r = found = queue_step(s->fresh, SQL_CHUNKS, s->err);
	if (r == 1)
		r = queue_read_row(s->fresh, SQL_CHUNKS, &row, s->err);
	queue_reset(s->fresh, SQL_CHUNKS);
	if (r < 0 || found == 0)
		return r;
	*ret_version = (struct version){
		.records = row.records,
		.fetch = row.fetch,
		.staged = row.staged,
		.sure = !salvage_has_id(&s->unsure_chunks, id),
		.mono_ms = row.mono_ms,
	};
	memcpy(ret_version->boot, row.boot, sizeof row.boot);
	return 1;
}

/*
 * What is sealed is out of date, unless it is all that may be left of a batch. One without records stands where the
 * next ones will come.
 */
static bool is_wanted(const struct salvage *s, const struct origin *origin, uint64_t seq, uint64_t records)
{
	if (records == 0)
		return seq > origin->sealed;
	return seq + records - 1 > origin->sealed || salvage_find_batch(s, origin, seq, seq + records - 1);
}

/* It says, besides, what of its source was committed so far; also one that is out of date. */
static void take_state(struct mark *now, const struct pages_row *row, const struct version *version)
{
	if (version->fetch <= now->fetch)
		return;
	now->fetch = version->fetch;
	now->state_len = row->cells[11].len;
	if (now->state_len > 0)
		memcpy(now->state, row->cells[11].data, now->state_len);
}

static int add_staged(struct salvage *s, const struct origin *origin, const struct pages_row *row,
                      const struct version *version)
{
	struct pages_row put_row = *row;
	int64_t id;
	int r = salvage_stage_version(s, number(row, 0), version->mono_ms, &id);

	if (r < 0)
		return r;
	put_row.cells[0] = cell_number(id);
	take_state(&origin->source->now, row, version);
	return put(s, SQL_CHUNK_PUT, &put_row);
}

static int add_chunk(struct salvage *s, const struct pages_row *row)
{
	int64_t id = number(row, 0);
	char source[UNITS_NAME_MAX];
	struct version old = { .records = 0 }, new;
	struct origin *origin;
	int r;

	if (!chunk_is_one(row) || !take_text(row, 1, source, sizeof source))
		return 0;
	origin = salvage_origin(s, source);
	if (!origin)
		return -ENOMEM;
	if (!claim_id(s, origin, id >> SEQ_BITS))
		return 0;
	new = read_version(row);
	if (new.sure)
		take_state(&origin->source->now, row, &new);
	if (!is_wanted(s, origin, (uint64_t)(id & SEQ_MAX), (uint64_t)number(row, 4)))
		return 0;
	if (new.staged)
		return add_staged(s, origin, row, &new);
	r = get_version(s, id, &old);
	if (r < 0 || (r == 1 && !is_better(&new, &old)))
		return r < 0 ? r : 0;
	r = put(s, SQL_CHUNK_PUT, row);
	return r == 0 ? note_id(s, &s->unsure_chunks, id, !row->sure) : r;
}

/* --- Parts --- */

/*
 * A batch that was given up half made leaves parts with the ids of the next one's, so all that differ are kept until
 * the SHA-256 tells.
 */
static int add_part(struct salvage *s, const struct pages_row *row)
{
	const struct found *found = salvage_get_batch(s, number(row, 0) >> PART_BITS);
	int64_t number_of = number(row, 0) & PART_MAX;
	struct cell cells[] = { cell_number(0), row->cells[1] };
	int r;

	note_batch_id(s, number(row, 0) >> PART_BITS);
	if (!found || number(row, 0) < 0)
		return 0;
	for (int v = 0; v < VERSIONS; v++) {
		int64_t batch = VERSION(found->id << PART_BITS, v);

		cells[0] = cell_number(batch | number_of);
		bytes_clear(&s->part);
		r = queue_read_part(s->fresh, batch >> PART_BITS, (int)number_of, &s->part, NULL);
		if (r == -ENOENT)
			return queue_put(s->fresh, SQL_PART_PUT, CELLS(cells), s->err);
		if (r < 0)
			return err_fail(s->err, r, "part: %s", strerror(-r));
		if (s->part.len == row->cells[1].len && memcmp(s->part.data, row->cells[1].data, s->part.len) == 0)
			return 0;
	}
	return 0;
}

static int on_data(void *arg, const struct pages_row *row)
{
	struct salvage *s = arg;

	return row->table == PAGES_CHUNK ? add_chunk(s, row) : add_part(s, row);
}

int salvage_data(struct salvage *s)
{
	unsigned tables = 1U << PAGES_CHUNK | 1U << PAGES_PART;
	int r = queue_begin(s->fresh, s->err);

	if (r < 0)
		return r;
	r = pages_each(s->pages, PAGES_ALL, tables, CHUNK_PLAIN_MAX, on_data, s);
	return queue_end(s->fresh, r, s->err);
}
