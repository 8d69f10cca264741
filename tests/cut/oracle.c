/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/cut/oracle.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zlib.h>

#include "tests/cut/chance.h"

#define DAY_MS  INT64_C(86400000)
#define CEILING ((size_t)256 << 20)

const char *const oracle_sources[ORACLE_SOURCES] = { "a", "b", "long_name-c" };
const char *const oracle_stores[ORACLE_STORES] = { "lake", "disk" };

static const char *const clocks[] = { "synced", "corrected", "unsynced" };

unsigned oracle_route(int source)
{
	return source == 2 ? 2 : 3;
}

static int find_source(const char *name)
{
	for (int i = 0; i < ORACLE_SOURCES; i++) {
		if (strcmp(oracle_sources[i], name) == 0)
			return i;
	}
	return -1;
}

bool oracle_fail(struct oracle *o, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(o->wrong, sizeof o->wrong, format, args);
	va_end(args);
	return false;
}

/* --- What a token means --- */

/* Small; or one in eight larger than a page and hard to compress; or so large that sealing takes steps. */
void oracle_record(uint64_t token, uint32_t n, struct bytes *ret_record)
{
	uint64_t state = token + n;
	uint32_t kind = (uint32_t)(token % 256), len = chance(&state, 100);

	bytes_printf(ret_record, "{\"token\":\"%016" PRIx64 "\",\"n\":%" PRIu32 ",\"pad\":\"", token, n);
	if (kind == ORACLE_NOISE && n % 8 == 0)
		len += 20000;
	else if (kind == ORACLE_LARGE)
		len += 60000;
	if (bytes_reserve(ret_record, len) < 0)
		abort();
	if (kind == ORACLE_LARGE)
		memset(ret_record->data + ret_record->len, 'x', len);
	else
		for (uint32_t i = 0; i < len; i++)
			ret_record->data[ret_record->len + i] = "0123456789abcdef"[chance_next(&state) >> 60];
	ret_record->len += len;
	bytes_add_text(ret_record, "\"}");
}

size_t oracle_state(uint64_t token, uint8_t ret_state[SINK_STATE_MAX])
{
	size_t len = token == 0 || token % 5 == 0 ? 0 : token % 31 == 1 ? SINK_STATE_MAX : 16;

	for (size_t i = 0; i < len; i++)
		ret_state[i] = (uint8_t)(token >> i % 8 * 8);
	return len;
}

/* --- Keeping --- */

void oracle_init(struct oracle *o)
{
	for (int i = 0; i < ORACLE_SOURCES; i++) {
		o->sources[i].seq = o->sources[i].unsealed = 1;
		o->sources[i].fetches = o->sources[i].token = o->sources[i].n = 0;
	}
	o->n_sealed = 0;
	o->open_ends = false;
	o->wrong[0] = '\0';
}

void oracle_done(struct oracle *o)
{
	for (size_t i = 0; i < o->n_sealed; i++)
		free(o->sealed[i].object);
	oracle_init(o);
}

bool oracle_is_full(const struct oracle *o)
{
	for (int i = 0; i < ORACLE_SOURCES; i++) {
		if (o->sources[i].n + 16 > ORACLE_FETCHES)
			return true;
	}
	return o->n_sealed + 4 > ORACLE_BATCHES;
}

void oracle_commit(struct oracle *o, int source, struct told *told)
{
	struct known *known = &o->sources[source];

	told->number = ++known->fetches;
	told->first_seq = known->seq;
	known->seq += told->records;
	known->token = told->token;
	known->told[known->n++] = *told;
}

struct sealed *oracle_batch(struct oracle *o, int64_t id)
{
	for (size_t i = o->n_sealed; i > 0; i--) {
		if (o->sealed[i - 1].batch.id == id)
			return &o->sealed[i - 1];
	}
	return NULL;
}

/* The fetch that has the seq; NULL: none has. */
static const struct told *find_told(const struct known *known, uint64_t seq)
{
	for (size_t i = known->n; i > 0; i--) {
		const struct told *told = &known->told[i - 1];

		if (seq >= told->first_seq && seq < told->first_seq + told->records)
			return told;
	}
	return NULL;
}

/* Its day and boot, if they are those of all its records. */
static bool judge_group(struct oracle *o, struct sealed *sealed)
{
	const struct known *known = &o->sources[sealed->source];
	uint64_t seq = sealed->batch.first_seq;
	const struct told *told = find_told(known, seq);

	if (!told)
		return oracle_fail(o, "batch %" PRId64 ": nobody committed its first record", sealed->batch.id);
	sealed->day = told->wall_ms / DAY_MS;
	memcpy(sealed->boot, told->boot, sizeof sealed->boot);
	for (const struct told *end = known->told + known->n; told < end && told->first_seq <= sealed->batch.last_seq;
	     told++) {
		if (told->records > 0 &&
		    (told->wall_ms / DAY_MS != sealed->day || strcmp(told->boot, sealed->boot) != 0))
			return oracle_fail(o, "batch %" PRId64 " crosses a day or a boot", sealed->batch.id);
	}
	return true;
}

static bool judge_key(struct oracle *o, const struct sealed *sealed)
{
	const struct batch *b = &sealed->batch;
	time_t day = (time_t)(sealed->day * (DAY_MS / 1000));
	char date[16], key[OBJECT_KEY_MAX];
	struct tm tm;

	strftime(date, sizeof date, "%Y-%m-%d", gmtime_r(&day, &tm));
	snprintf(key, sizeof key, "source=%s/dt=%s/%s-%s-%" PRIu64 "-%" PRIu64 "-%02x%02x%02x%02x.ndjson.gz", b->source,
	         date, ORACLE_DEVICE, sealed->boot, b->first_seq, b->last_seq, b->sha256[0], b->sha256[1], b->sha256[2],
	         b->sha256[3]);
	if (strcmp(key, b->key) != 0)
		return oracle_fail(o, "batch %" PRId64 " is called %s, and not %s", b->id, b->key, key);
	return true;
}

/* One that was sealed while another was imported has the next id, and is there before it. */
static void insert(struct oracle *o, const struct sealed *sealed)
{
	size_t at = o->n_sealed++;

	for (; at > 0 && o->sealed[at - 1].batch.id > sealed->batch.id; at--)
		o->sealed[at] = o->sealed[at - 1];
	o->sealed[at] = *sealed;
}

/* Of those that were sealed here: what is imported while one is being sealed may be done first, with a later id. */
static int64_t last_sealed(const struct oracle *o)
{
	for (size_t i = o->n_sealed; i > 0; i--) {
		if (!o->sealed[i - 1].batch.imported)
			return o->sealed[i - 1].batch.id;
	}
	return 0;
}

bool oracle_seal(struct oracle *o, const struct batch *batch)
{
	struct sealed sealed = { .source = find_source(batch->source), .batch = *batch };
	struct known *known;

	if (sealed.source < 0)
		return oracle_fail(o, "batch %" PRId64 " is of a source \"%s\"", batch->id, batch->source);
	known = &o->sources[sealed.source];
	/* After a salvage one may be there that nobody was told of, whose number others came after. */
	if (oracle_batch(o, batch->id) || (!o->open_ends && batch->id < last_sealed(o)))
		return oracle_fail(o, "batch %" PRId64 ": its id was used before", batch->id);
	if (batch->first_seq != known->unsealed || batch->last_seq < batch->first_seq || batch->last_seq >= known->seq)
		return oracle_fail(
		        o,
		        "batch %" PRId64 " of %s has %" PRIu64 " to %" PRIu64 ", unsealed are %" PRIu64 " to %" PRIu64,
		        batch->id, batch->source, batch->first_seq, batch->last_seq, known->unsealed, known->seq - 1);
	if (batch->records != batch->last_seq - batch->first_seq + 1)
		return oracle_fail(o, "batch %" PRId64 " has %" PRIu64 " records", batch->id, batch->records);
	if (!judge_group(o, &sealed) || !judge_key(o, &sealed))
		return false;
	known->unsealed = batch->last_seq + 1;
	insert(o, &sealed);
	return true;
}

/* --- From another Millrace --- */

static void add_foreign_lines(const struct foreign *f, uint64_t token, int64_t wall_ms, struct bytes *lines)
{
	time_t seconds = (time_t)(wall_ms / 1000);
	char time[32];
	struct tm tm;

	strftime(time, sizeof time, "%Y-%m-%dT%H:%M:%S", gmtime_r(&seconds, &tm));
	for (uint64_t seq = f->first_seq; seq <= f->last_seq; seq++) {
		bytes_printf(lines,
		             "{\"source\":\"%s\",\"device\":\"" ORACLE_FOREIGN_DEVICE
		             "\",\"boot\":\"" ORACLE_FOREIGN_BOOT "\",\"seq\":%" PRIu64
		             ",\"fetch\":1,\"fetched_at\":\"%s.%03dZ\",\"clock\":\"synced\",\"data\":",
		             oracle_sources[f->source], seq, time, (int)(wall_ms % 1000));
		oracle_record(token, (uint32_t)(seq - f->first_seq), lines);
		bytes_add_text(lines, "}\n");
	}
}

static void zip(const struct bytes *lines, struct bytes *object)
{
	z_stream z = { .next_in = lines->data, .avail_in = (uInt)lines->len };

	if (bytes_reserve(object, compressBound((uLong)lines->len) + 64) < 0 ||
	    deflateInit2(&z, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
		abort();
	z.next_out = object->data;
	z.avail_out = (uInt)compressBound((uLong)lines->len) + 64;
	if (deflate(&z, Z_FINISH) != Z_STREAM_END)
		abort();
	object->len = z.total_out;
	deflateEnd(&z);
}

void oracle_foreign(struct foreign *ret, uint64_t token, int source, uint64_t first_seq, uint32_t records,
                    int64_t wall_ms)
{
	time_t seconds = (time_t)(wall_ms / 1000);
	struct sha256 hash;
	struct bytes lines;
	char date[16];
	struct tm tm;

	ret->source = source;
	ret->first_seq = first_seq;
	ret->last_seq = first_seq + records - 1;
	bytes_init(&lines, CEILING);
	bytes_init(&ret->object, CEILING);
	add_foreign_lines(ret, token, wall_ms, &lines);
	zip(&lines, &ret->object);
	bytes_done(&lines);
	sha256_init(&hash);
	sha256_add(&hash, ret->object.data, ret->object.len);
	sha256_finish(&hash, ret->sha256);
	strftime(date, sizeof date, "%Y-%m-%d", gmtime_r(&seconds, &tm));
	snprintf(ret->key, sizeof ret->key, "source=%s/dt=%s/%s-%s-%" PRIu64 "-%" PRIu64 "-%02x%02x%02x%02x.ndjson.gz",
	         oracle_sources[source], date, ORACLE_FOREIGN_DEVICE, ORACLE_FOREIGN_BOOT, ret->first_seq,
	         ret->last_seq, ret->sha256[0], ret->sha256[1], ret->sha256[2], ret->sha256[3]);
}

bool oracle_import(struct oracle *o, const struct foreign *foreign, const struct batch *batch)
{
	struct sealed sealed = { .source = foreign->source, .batch = *batch };

	if (oracle_batch(o, batch->id) || !batch->imported || strcmp(batch->key, foreign->key) != 0 ||
	    batch->first_seq != foreign->first_seq || batch->last_seq != foreign->last_seq ||
	    batch->bytes != foreign->object.len || memcmp(batch->sha256, foreign->sha256, SHA256_SIZE) != 0)
		return oracle_fail(o, "batch %" PRId64 " is not what was imported", batch->id);
	sealed.object = malloc(foreign->object.len);
	if (!sealed.object)
		abort();
	memcpy(sealed.object, foreign->object.data, foreign->object.len);
	insert(o, &sealed);
	return true;
}

bool oracle_has(const struct oracle *o, const struct foreign *foreign)
{
	for (size_t i = 0; i < o->n_sealed; i++) {
		if (strcmp(o->sealed[i].batch.key, foreign->key) == 0 && o->sealed[i].fate != FATE_DROPPED)
			return true;
	}
	return false;
}

/* --- Their way --- */

void oracle_deliver(struct sealed *sealed, int store, int64_t wall_ms)
{
	unsigned route = oracle_route(sealed->source);

	sealed->done |= 1U << store;
	if ((sealed->done & route) == route)
		sealed->batch.delivered_ms = wall_ms;
}

static bool waits(const struct sealed *sealed)
{
	unsigned route = oracle_route(sealed->source);

	return sealed->fate == FATE_HERE && (sealed->done & route) != route;
}

struct sealed *oracle_next(struct oracle *o, int store, int64_t after)
{
	for (size_t i = 0; i < o->n_sealed; i++) {
		struct sealed *sealed = &o->sealed[i];

		if (sealed->batch.id > after && sealed->fate == FATE_HERE &&
		    (oracle_route(sealed->source) & ~sealed->done) >> store & 1)
			return sealed;
	}
	return NULL;
}

struct sealed *oracle_oldest(struct oracle *o)
{
	for (size_t i = 0; i < o->n_sealed; i++) {
		if (waits(&o->sealed[i]))
			return &o->sealed[i];
	}
	return NULL;
}

/*
 * One that was deleted may come back: done, if it is ours, by what its stores' books say; there are none of what came
 * from elsewhere.
 */
static void revive(struct sealed *sealed, struct queue *q)
{
	unsigned done = oracle_route(sealed->source);
	struct batch here, next;
	struct err err;

	if (queue_find_batch(q, sealed->batch.id, &here, &err) < 0 || strcmp(here.key, sealed->batch.key) != 0)
		return;
	for (int i = 0; i < ORACLE_STORES; i++) {
		if (queue_next_delivery(q, oracle_stores[i], here.id - 1, &next, &err) == 0 && next.id == here.id)
			done &= ~(1U << i);
	}
	if (!here.imported && done != oracle_route(sealed->source))
		return;
	sealed->fate = FATE_HERE;
	sealed->done = done;
	sealed->batch.delivered_ms = here.delivered_ms;
}

/* Of an import that was cut off: nobody knows its lines here, but it has to be whole. */
static void find_unheard_import(struct oracle *o, struct queue *q, const struct batch *batch)
{
	struct sealed sealed = { .source = find_source(batch->source), .batch = *batch };
	uint8_t sha256[SHA256_SIZE];
	struct sha256 hash;
	struct bytes object;
	struct err err;
	int r = 0;

	bytes_init(&object, CEILING);
	for (int n = 0; r == 0; n++)
		r = queue_read_part(q, batch->id, n, &object, &err);
	sha256_init(&hash);
	sha256_add(&hash, object.data, object.len);
	sha256_finish(&hash, sha256);
	if (sealed.source < 0 || object.len != batch->bytes || memcmp(sha256, batch->sha256, sizeof sha256) != 0) {
		oracle_fail(o, "batch %" PRId64 " was imported, and is not whole", batch->id);
		bytes_done(&object);
		return;
	}
	sealed.object = bytes_take(&object, &(size_t){ 0 });
	insert(o, &sealed);
}

/* What was cut off before anybody was told of it: if all of it is still there, it counts. */
static void find_unheard(struct oracle *o, struct queue *q)
{
	static struct batch batches[ORACLE_BATCHES];
	struct err err;

	for (int i = queue_batches(q, batches, ORACLE_BATCHES, &err); i > 0; i--) {
		const struct batch *batch = &batches[i - 1];

		if (oracle_batch(o, batch->id))
			continue;
		if (batch->imported)
			find_unheard_import(o, q, batch);
		else
			oracle_seal(o, batch);
	}
}

void oracle_salvaged(struct oracle *o, struct queue *q)
{
	find_unheard(o, q);
	for (size_t i = 0; i < o->n_sealed; i++) {
		struct sealed *sealed = &o->sealed[i];

		if (sealed->fate == FATE_HERE && !waits(sealed))
			sealed->fate = FATE_EXPIRED;
		if (sealed->fate != FATE_HERE)
			revive(sealed, q);
	}
	o->open_ends = true;
}

void oracle_expire(struct oracle *o, int64_t before_ms)
{
	int n = 0;

	for (size_t i = 0; i < o->n_sealed && n < 64; i++) {
		struct sealed *sealed = &o->sealed[i];

		if (sealed->fate != FATE_HERE || waits(sealed) || sealed->batch.delivered_ms > before_ms)
			continue;
		sealed->fate = FATE_EXPIRED;
		n++;
	}
}

/* --- Judging --- */

/* The lines of a source's records from `first` to `last`; *at is the fetch to begin at, and goes on. */
static void expect(const struct oracle *o, int source, uint64_t first, uint64_t last, size_t *at, struct bytes *lines)
{
	const struct known *known = &o->sources[source];

	for (; *at < known->n && known->told[*at].first_seq <= last; ++*at) {
		const struct told *told = &known->told[*at];
		time_t seconds = (time_t)(told->wall_ms / 1000);
		char time[32];
		struct tm tm;

		if (told->first_seq + told->records <= first)
			continue;
		strftime(time, sizeof time, "%Y-%m-%dT%H:%M:%S", gmtime_r(&seconds, &tm));
		for (uint32_t i = 0; i < told->records; i++) {
			uint64_t seq = told->first_seq + i;

			if (seq < first || seq > last)
				continue;
			bytes_printf(lines,
			             "{\"source\":\"%s\",\"device\":\"%s\",\"boot\":\"%s\",\"seq\":%" PRIu64
			             ",\"fetch\":%" PRIu64 ",\"fetched_at\":\"%s.%03dZ\",\"clock\":\"%s\",\"data\":",
			             oracle_sources[source], ORACLE_DEVICE, told->boot, seq, told->number, time,
			             (int)(told->wall_ms % 1000), clocks[told->clock]);
			oracle_record(told->token, i, lines);
			bytes_add_text(lines, "}\n");
		}
		if (told->first_seq + told->records > last + 1)
			return; /* the next range begins in it */
	}
}

static bool same(const struct bytes *a, const struct bytes *b)
{
	return a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

/* An object's lines, by zlib alone; false: it is no gzip of one member. */
static bool unzip(const struct bytes *object, struct bytes *lines)
{
	z_stream z = { .next_in = object->data, .avail_in = (uInt)object->len };
	int r = inflateInit2(&z, 15 + 16);

	while (r == Z_OK) {
		if (bytes_reserve(lines, 65536) < 0)
			abort();
		z.next_out = lines->data + lines->len;
		z.avail_out = 65536;
		r = inflate(&z, Z_NO_FLUSH);
		lines->len += 65536 - z.avail_out;
	}
	inflateEnd(&z);
	return r == Z_STREAM_END && z.avail_in == 0;
}

static bool judge_content(struct oracle *o, const struct sealed *sealed, const struct bytes *object)
{
	const struct batch *b = &sealed->batch;
	struct bytes lines, expected;
	uint8_t sha256[SHA256_SIZE];
	struct sha256 hash;
	size_t at = 0;
	bool right;

	bytes_init(&lines, CEILING);
	bytes_init(&expected, CEILING);
	sha256_init(&hash);
	sha256_add(&hash, object->data, object->len);
	sha256_finish(&hash, sha256);
	right = object->len == b->bytes && memcmp(sha256, b->sha256, sizeof sha256) == 0 && unzip(object, &lines);
	expect(o, sealed->source, b->first_seq, b->last_seq, &at, &expected);
	right = right && lines.len == b->raw_bytes && same(&lines, &expected);
	bytes_done(&lines);
	bytes_done(&expected);
	return right || oracle_fail(o, "batch %" PRId64 ": its object is not its records", b->id);
}

/* An object stays the same for ever: the first time it is taken apart, then it is compared. */
static bool judge_object(struct oracle *o, struct queue *q, struct sealed *sealed)
{
	struct bytes object;
	struct err err;
	bool right = true;
	int r = 0;

	bytes_init(&object, CEILING);
	for (int n = 0; r == 0; n++)
		r = queue_read_part(q, sealed->batch.id, n, &object, &err);
	if (r != -ENOENT)
		right = oracle_fail(o, "%s", err.text);
	else if (!sealed->object)
		right = judge_content(o, sealed, &object);
	else if (object.len != sealed->batch.bytes || memcmp(object.data, sealed->object, object.len) != 0)
		right = oracle_fail(o, "batch %" PRId64 ": its object has changed", sealed->batch.id);
	if (right && !sealed->object)
		sealed->object = bytes_take(&object, &(size_t){ 0 });
	bytes_done(&object);
	return right;
}

static bool judge_row(struct oracle *o, const struct sealed *sealed, const struct batch *b)
{
	const struct batch *known = &sealed->batch;
	unsigned route = oracle_route(sealed->source);

	if (b->id != known->id || strcmp(b->source, known->source) != 0 || strcmp(b->key, known->key) != 0 ||
	    b->first_seq != known->first_seq || b->last_seq != known->last_seq || b->records != known->records ||
	    b->raw_bytes != known->raw_bytes || b->bytes != known->bytes || b->imported != known->imported ||
	    memcmp(b->sha256, known->sha256, SHA256_SIZE) != 0 || b->sealed_ms != known->sealed_ms)
		return oracle_fail(o, "batch %" PRId64 " is not what it was, or %" PRId64 " is gone", b->id, known->id);
	if (b->delivered_ms != known->delivered_ms ||
	    b->stores_done != (size_t)__builtin_popcount(sealed->done & route) ||
	    b->stores_all != (size_t)__builtin_popcount(route))
		return oracle_fail(o, "batch %" PRId64 ": %zu of %zu stores have it, since %" PRId64, b->id,
		                   b->stores_done, b->stores_all, b->delivered_ms);
	return true;
}

static bool judge_batches(struct oracle *o, struct queue *q)
{
	static struct batch batches[ORACLE_BATCHES + 1];
	struct err err;
	int at = 0, n = queue_batches(q, batches, ORACLE_BATCHES + 1, &err);

	if (n < 0)
		return oracle_fail(o, "%s", err.text);
	for (size_t i = o->n_sealed; i > 0; i--) {
		struct sealed *sealed = &o->sealed[i - 1];

		if (sealed->fate != FATE_HERE)
			continue;
		if (at == n)
			return oracle_fail(o, "batch %" PRId64 " is gone", sealed->batch.id);
		if (!judge_row(o, sealed, &batches[at++]) || !judge_object(o, q, sealed))
			return false;
	}
	return at == n || oracle_fail(o, "batch %" PRId64 " should be gone", batches[at].id);
}

/* All lines of a source, as far as they are still here. */
static void expect_source(const struct oracle *o, int source, struct bytes *lines)
{
	const struct known *known = &o->sources[source];
	size_t at = 0;

	for (size_t i = 0; i < o->n_sealed; i++) {
		const struct sealed *sealed = &o->sealed[i];

		if (sealed->source == source && sealed->fate == FATE_HERE && !sealed->batch.imported)
			expect(o, source, sealed->batch.first_seq, sealed->batch.last_seq, &at, lines);
	}
	if (known->unsealed < known->seq)
		expect(o, source, known->unsealed, known->seq - 1, &at, lines);
}

static bool judge_lines(struct oracle *o, struct queue *q, int source)
{
	const char *name = oracle_sources[source];
	struct bytes lines, expected;
	uint64_t next = 0;
	struct err err;
	bool right = true;

	bytes_init(&lines, CEILING);
	bytes_init(&expected, CEILING);
	expect_source(o, source, &expected);
	if (queue_read(q, name, 1, SIZE_MAX, &lines, &next, &err) < 0)
		right = oracle_fail(o, "%s: %s", name, err.text);
	else if (!same(&lines, &expected))
		right = oracle_fail(o, "source %s: it has %zu bytes of lines, and should have %zu", name, lines.len,
		                    expected.len);
	else if (next != o->sources[source].seq)
		right = oracle_fail(o, "source %s: its next seq is %" PRIu64 ", and should be %" PRIu64, name, next,
		                    o->sources[source].seq);
	bytes_done(&lines);
	bytes_done(&expected);
	return right;
}

/* Each line of the one is a line of the other, in the same order. */
static bool is_among(const struct bytes *lines, const struct bytes *all)
{
	size_t at = 0, len;

	for (size_t i = 0; i < lines->len; i += len) {
		len = (size_t)((unsigned char *)memchr(lines->data + i, '\n', lines->len - i) - (lines->data + i)) + 1;
		while (at < all->len && (all->len - at < len || memcmp(all->data + at, lines->data + i, len) != 0))
			at += (size_t)((unsigned char *)memchr(all->data + at, '\n', all->len - at) -
			               (all->data + at)) +
			      1;
		if (at == all->len)
			return false;
		at += len;
	}
	return true;
}

bool oracle_keeps(const struct oracle *o, struct queue *q)
{
	struct bytes lines, expected;
	uint64_t next = 0;
	struct err err;
	bool right = true;

	bytes_init(&lines, CEILING);
	bytes_init(&expected, CEILING);
	for (int i = 0; right && i < ORACLE_SOURCES; i++) {
		bytes_clear(&lines);
		bytes_clear(&expected);
		expect_source(o, i, &expected);
		right = expected.len == 0 || (queue_read(q, oracle_sources[i], 1, SIZE_MAX, &lines, &next, &err) == 0 &&
		                              is_among(&expected, &lines));
	}
	bytes_done(&lines);
	bytes_done(&expected);
	return right;
}

static bool judge_state(struct oracle *o, struct queue *q, int source)
{
	uint8_t state[SINK_STATE_MAX], expected[SINK_STATE_MAX];
	size_t len = queue_source_state(q, oracle_sources[source], state);

	if (len != oracle_state(o->sources[source].token, expected) || memcmp(state, expected, len) != 0)
		return oracle_fail(o, "source %s: its state is not that of its last fetch", oracle_sources[source]);
	return true;
}

/* --- The books --- */

struct books {
	struct queue_range ranges[ORACLE_BATCHES + ORACLE_SOURCES * ORACLE_FETCHES];
	size_t n;
};

static void add_range(struct books *books, const struct queue_range *range)
{
	struct queue_range *last = books->n > 0 ? &books->ranges[books->n - 1] : NULL;

	if (last && last->kind == range->kind && last->last_seq + 1 == range->first_seq && last->day == range->day &&
	    strcmp(last->source, range->source) == 0 && strcmp(last->boot, range->boot) == 0)
		last->last_seq = range->last_seq;
	else
		books->ranges[books->n++] = *range;
}

static struct queue_range make_range(enum queue_range_kind kind, int source, int64_t day, const char *boot,
                                     uint64_t first, uint64_t last)
{
	struct queue_range range = { .kind = kind, .day = day, .first_seq = first, .last_seq = last };

	snprintf(range.source, sizeof range.source, "%s", oracle_sources[source]);
	snprintf(range.device, sizeof range.device, "%s", ORACLE_DEVICE);
	snprintf(range.boot, sizeof range.boot, "%s", boot);
	return range;
}

static void expect_books(const struct oracle *o, int store, int source, struct books *books)
{
	const struct known *known = &o->sources[source];

	for (size_t i = 0; i < o->n_sealed; i++) {
		const struct sealed *s = &o->sealed[i];
		bool done = s->done >> store & 1;
		struct queue_range range = make_range(done                      ? QUEUE_DELIVERED
		                                      : s->fate == FATE_DROPPED ? QUEUE_LOST
		                                                                : QUEUE_WAITING,
		                                      source, s->day, s->boot, s->batch.first_seq, s->batch.last_seq);

		if (s->source == source && !s->batch.imported)
			add_range(books, &range);
	}
	for (size_t i = 0; i < known->n; i++) {
		const struct told *told = &known->told[i];
		uint64_t first = told->first_seq < known->unsealed ? known->unsealed : told->first_seq;
		uint64_t end = told->first_seq + told->records;
		struct queue_range range =
		        make_range(QUEUE_UNSEALED, source, told->wall_ms / DAY_MS, told->boot, first, end - 1);

		if (first < end)
			add_range(books, &range);
	}
}

static bool same_range(const struct queue_range *a, const struct queue_range *b)
{
	return a->kind == b->kind && a->day == b->day && a->first_seq == b->first_seq && a->last_seq == b->last_seq &&
	       strcmp(a->source, b->source) == 0 && strcmp(a->device, b->device) == 0 && strcmp(a->boot, b->boot) == 0;
}

/* In pages that are small, so that ranges are cut and merged again. */
static bool read_books(struct oracle *o, struct queue *q, int store, struct books *books)
{
	struct queue_range page[7];
	struct err err;
	int n;

	books->n = 0;
	do {
		n = queue_books(q, oracle_stores[store], INT64_MIN, books->n > 0 ? &books->ranges[books->n - 1] : NULL,
		                page, sizeof page / sizeof *page, &err);
		for (int i = 0; i < n; i++) {
			if (books->n == sizeof books->ranges / sizeof *books->ranges)
				return oracle_fail(o, "the books of %s do not end", oracle_stores[store]);
			add_range(books, &page[i]);
		}
	} while (n > 0);
	return n == 0 || oracle_fail(o, "%s", err.text);
}

static bool judge_books(struct oracle *o, struct queue *q, int store)
{
	static struct books expected, found;

	expected.n = 0;
	for (int source = 0; source < ORACLE_SOURCES; source++) {
		if (oracle_route(source) >> store & 1)
			expect_books(o, store, source, &expected);
	}
	if (!read_books(o, q, store, &found))
		return false;
	for (size_t i = 0; i < found.n && i < expected.n; i++) {
		const struct queue_range *range = &found.ranges[i];

		if (!same_range(range, &expected.ranges[i]))
			return oracle_fail(
			        o, "the books of %s say %s %" PRIu64 " to %" PRIu64 " is of kind %d, and should not",
			        oracle_stores[store], range->source, range->first_seq, range->last_seq,
			        (int)range->kind);
	}
	return found.n == expected.n || oracle_fail(o, "the books of %s have %zu ranges, and should have %zu",
	                                            oracle_stores[store], found.n, expected.n);
}

/* --- What is to be delivered, and the figures --- */

static bool judge_deliveries(struct oracle *o, struct queue *q, int store)
{
	struct batch batch = { .id = 0 };
	struct sealed *sealed;
	struct err err;
	int r;

	do {
		sealed = oracle_next(o, store, batch.id);
		r = queue_next_delivery(q, oracle_stores[store], batch.id, &batch, &err);
		if (r < 0 && r != -ENOENT)
			return oracle_fail(o, "%s", err.text);
		if ((r == 0) != (sealed != NULL) || (r == 0 && batch.id != sealed->batch.id))
			return oracle_fail(o, "store %s gets batch %" PRId64 " next, and should get %" PRId64,
			                   oracle_stores[store], r == 0 ? batch.id : 0, sealed ? sealed->batch.id : 0);
	} while (r == 0);
	return true;
}

static bool judge_source_view(struct oracle *o, const struct queue_source_view *view)
{
	int source = find_source(view->source);
	const struct known *known = source >= 0 ? &o->sources[source] : NULL;
	uint64_t waiting = 0, records = 0, dropped = 0;

	if (!known)
		return oracle_fail(o, "there is a source \"%s\"", view->source);
	for (size_t i = 0; i < o->n_sealed; i++) {
		const struct sealed *sealed = &o->sealed[i];

		if (sealed->source != source)
			continue;
		waiting += waits(sealed);
		records += waits(sealed) ? sealed->batch.records : 0;
		dropped += sealed->fate == FATE_DROPPED && !sealed->batch.imported ? sealed->batch.records : 0;
	}
	if (view->records != known->seq - 1 || view->fetches != known->fetches ||
	    view->unsealed_records != known->seq - known->unsealed || view->waiting_batches != waiting ||
	    view->waiting_records != records || view->dropped_records != dropped || view->damaged_records != 0)
		return oracle_fail(o,
		                   "source %s: it has %" PRIu64 " records in %" PRIu64 " fetches, %" PRIu64
		                   " unsealed, %" PRIu64 " waiting, %" PRIu64 " dropped, %" PRIu64
		                   " damaged, and should have %" PRIu64 " in %" PRIu64 ", %" PRIu64 ", %" PRIu64
		                   ", %" PRIu64 ", 0",
		                   view->source, view->records, view->fetches, view->unsealed_records,
		                   view->waiting_records, view->dropped_records, view->damaged_records, known->seq - 1,
		                   known->fetches, known->seq - known->unsealed, records, dropped);
	return true;
}

static bool judge_view(struct oracle *o, struct queue *q)
{
	struct queue_view *view = queue_view(q);
	uint64_t batches = 0, known = 0;
	bool right = true;

	if (!view)
		return oracle_fail(o, "no memory for a view");
	for (size_t i = 0; i < o->n_sealed; i++)
		batches += o->sealed[i].fate == FATE_HERE;
	for (int i = 0; i < ORACLE_SOURCES; i++)
		known += o->sources[i].n > 0;
	if (view->n_sources < known)
		right = oracle_fail(o, "%zu sources are known, and should be %" PRIu64, view->n_sources, known);
	if (right && view->batches != batches)
		right = oracle_fail(o, "%" PRIu64 " batches are here, and should be %" PRIu64, view->batches, batches);
	for (size_t i = 0; right && i < view->n_sources; i++)
		right = judge_source_view(o, &view->sources[i]);
	queue_view_free(view);
	return right;
}

static bool judge_damage(struct oracle *o, struct queue *q)
{
	struct queue_damage damage;
	struct err err;
	int r = o->open_ends ? 0 : queue_next_damage(q, NULL, &damage, &err);

	if (r < 0)
		return oracle_fail(o, "%s", err.text);
	return r == 0 ||
	       oracle_fail(o, "source %s: damage is booked from seq %" PRIu64 " on", damage.source, damage.first_seq);
}

bool oracle_check(struct oracle *o, struct queue *q)
{
	bool right = judge_batches(o, q) && judge_view(o, q) && judge_damage(o, q);

	for (int i = 0; right && i < ORACLE_SOURCES; i++)
		right = o->sources[i].n == 0 || (judge_state(o, q, i) && judge_lines(o, q, i));
	for (int i = 0; right && i < ORACLE_STORES; i++)
		right = judge_books(o, q, i) && judge_deliveries(o, q, i);
	return right;
}
