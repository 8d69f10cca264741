/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranges and objects are the same thing here, an item: some seqs of a source, with a place (device, boot, day). What is
 * delivered, waiting, early or missing comes from walking over one kind of them along the other.
 */
#include "buffer/tally.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DAY_MS    (INT64_C(24) * 60 * 60 * 1000)
#define LINES_MAX (4 * TALLY_MAX)

const char *const tally_kind_names[] = {
	[TALLY_DELIVERED] = "delivered", [TALLY_WAITING] = "waiting", [TALLY_LOST] = "lost",
	[TALLY_EARLY] = "early",         [TALLY_MISSING] = "missing", [TALLY_DOUBLE] = "double",
	[TALLY_CHANGED] = "changed",
};

enum state {
	RANGE_DELIVERED,
	RANGE_WAITING,
	RANGE_LOST,
	OBJECT_UNSEEN,
	OBJECT_SOUND,
	OBJECT_CHANGED,
};
#define ANY_RANGE  (1u << RANGE_DELIVERED | 1u << RANGE_WAITING | 1u << RANGE_LOST)
#define ANY_OBJECT (1u << OBJECT_SOUND | 1u << OBJECT_CHANGED)

struct item {
	uint64_t first, last;
	uint32_t source, origin; /* into the tally's lists */
	int32_t day;
	uint32_t sha8; /* an object's, as its key says */
	enum state state;
};

struct items {
	struct item *at;
	size_t n, capacity;
};

struct origin {
	char device[UNITS_NAME_MAX], boot[OBJECT_BOOT];
};

struct tally {
	int64_t since;
	char (*sources)[UNITS_NAME_MAX];
	struct origin *origins;
	size_t n_sources, n_origins;
	size_t source, origin; /* the last ones found: neighbours have them in common */
	struct items ranges, excuses, objects;
	uint64_t foreign;
};

struct tally *tally_new(int64_t since)
{
	struct tally *t = calloc(1, sizeof *t);

	if (t)
		t->since = since;
	return t;
}

void tally_free(struct tally *t)
{
	if (!t)
		return;
	free(t->sources);
	free(t->origins);
	free(t->ranges.at);
	free(t->excuses.at);
	free(t->objects.at);
	free(t);
}

/* --- Filling --- */

/* Room for one more of `size` bytes in an array of n; it doubles at powers of two. */
static void *grow(void *array, size_t n, size_t size)
{
	return n & (n - 1) ? array : realloc(array, (n ? 2 * n : 1) * size);
}

static int find_source(struct tally *t, const char *name, uint32_t *ret_source)
{
	size_t i = t->source;
	void *grown;

	if (i >= t->n_sources || strcmp(t->sources[i], name) != 0)
		for (i = 0; i < t->n_sources && strcmp(t->sources[i], name) != 0;)
			i++;
	if (i == t->n_sources) {
		grown = grow(t->sources, t->n_sources, sizeof *t->sources);
		if (!grown)
			return -ENOMEM;
		t->sources = grown;
		snprintf(t->sources[t->n_sources++], UNITS_NAME_MAX, "%s", name);
	}
	t->source = i;
	*ret_source = (uint32_t)i;
	return 0;
}

static bool is_origin(const struct origin *origin, const char *device, const char *boot)
{
	return strcmp(origin->boot, boot) == 0 && strcmp(origin->device, device) == 0;
}

/* Its place in the list; n_origins where it is not there. */
static size_t find_origin(struct tally *t, const char *device, const char *boot)
{
	size_t i = t->origin;

	if (i < t->n_origins && is_origin(&t->origins[i], device, boot))
		return i;
	for (i = 0; i < t->n_origins && !is_origin(&t->origins[i], device, boot);)
		i++;
	t->origin = i;
	return i;
}

static int add_origin(struct tally *t, const char *device, const char *boot, uint32_t *ret_origin)
{
	size_t i = find_origin(t, device, boot);
	void *grown;

	if (i == t->n_origins) {
		grown = grow(t->origins, t->n_origins, sizeof *t->origins);
		if (!grown)
			return -ENOMEM;
		t->origins = grown;
		snprintf(t->origins[i].device, sizeof t->origins[i].device, "%s", device);
		snprintf(t->origins[i].boot, sizeof t->origins[i].boot, "%s", boot);
		t->n_origins++;
	}
	*ret_origin = (uint32_t)i;
	return 0;
}

static int add_item(struct items *items, const struct item *item)
{
	struct item *grown;

	if (items->n == TALLY_MAX)
		return -ENOBUFS;
	grown = grow(items->at, items->n, sizeof *grown);
	if (!grown)
		return -ENOMEM;
	items->at = grown;
	items->at[items->n++] = *item;
	return 0;
}

static const enum state range_states[] = {
	[QUEUE_DELIVERED] = RANGE_DELIVERED,
	[QUEUE_WAITING] = RANGE_WAITING,
	[QUEUE_UNSEALED] = RANGE_WAITING,
	[QUEUE_LOST] = RANGE_LOST,
};

static int add_range(struct tally *t, struct items *items, const struct queue_range *range)
{
	struct item item = {
		.first = range->first_seq,
		.last = range->last_seq,
		.day = (int32_t)range->day,
		.state = range_states[range->kind],
	};
	int r = find_source(t, range->source, &item.source);

	if (r == 0)
		r = add_origin(t, range->device, range->boot, &item.origin);
	return r == 0 ? add_item(items, &item) : r;
}

int tally_expect(struct tally *t, const struct queue_range *range)
{
	return range->day < t->since ? 0 : add_range(t, &t->ranges, range);
}

int tally_excuse(struct tally *t, const struct queue_range *range)
{
	struct item item = { .first = range->first_seq, .last = range->last_seq, .state = RANGE_DELIVERED };
	int r = find_source(t, range->source, &item.source);

	return r == 0 ? add_item(&t->excuses, &item) : r;
}

int tally_find(struct tally *t, const char *key, size_t *ret_index)
{
	struct object_name name;
	size_t origin;
	int r = object_read_key(key, &name);

	if (r < 0)
		return r;
	origin = find_origin(t, name.device, name.boot);
	if (origin == t->n_origins || name.day < t->since) {
		t->foreign++;
		return -ENOENT;
	}
	struct item item = {
		.first = name.first_seq,
		.last = name.last_seq,
		.origin = (uint32_t)origin,
		.day = (int32_t)name.day,
		.sha8 = (uint32_t)strtoul(name.sha8, NULL, 16),
		.state = OBJECT_UNSEEN,
	};

	r = find_source(t, name.source, &item.source);
	if (r == 0)
		r = add_item(&t->objects, &item);
	if (r < 0)
		return r;
	*ret_index = t->objects.n - 1;
	return 0;
}

void tally_check(struct tally *t, size_t index, const uint8_t sha256[SHA256_SIZE])
{
	struct item *object = &t->objects.at[index];
	uint32_t begins = (uint32_t)sha256[0] << 24 | (uint32_t)sha256[1] << 16 | (uint32_t)sha256[2] << 8 | sha256[3];

	object->state = begins == object->sha8 ? OBJECT_SOUND : OBJECT_CHANGED;
}

static void write_key(const struct tally *t, const struct item *object, char ret_key[OBJECT_KEY_MAX])
{
	const struct origin *origin = &t->origins[object->origin];
	char date[UNITS_TEXT_MAX];

	snprintf(ret_key, OBJECT_KEY_MAX, "source=%s/dt=%s/%s-%s-%" PRIu64 "-%" PRIu64 "-%08" PRIx32 ".ndjson.gz",
	         t->sources[object->source], units_date(object->day * DAY_MS, date), origin->device, origin->boot,
	         object->first, object->last, object->sha8);
}

void tally_key(const struct tally *t, size_t index, char ret_key[OBJECT_KEY_MAX])
{
	write_key(t, &t->objects.at[index], ret_key);
}

/* --- Items in order --- */

/* Items sorted into groups, and by seq within each. */
struct order {
	int (*group)(const struct item *a, const struct item *b);
	const struct item **at;
	size_t n;
};

#define COMPARE(x, y) (((x) > (y)) - ((x) < (y)))

static int by_source(const struct item *a, const struct item *b)
{
	return COMPARE(a->source, b->source);
}

static int by_boot(const struct item *a, const struct item *b)
{
	return a->source != b->source ? by_source(a, b) : COMPARE(a->origin, b->origin);
}

static int by_place(const struct item *a, const struct item *b)
{
	int order = by_boot(a, b);

	return order ? order : COMPARE(a->day, b->day);
}

/* Equal seqs by what else is in the key, so that it does not hang on the sorting which of two is the second. */
static int by_seq(const struct item *a, const struct item *b)
{
	if (a->first != b->first)
		return COMPARE(a->first, b->first);
	if (a->last != b->last)
		return COMPARE(a->last, b->last);
	return a->day != b->day ? COMPARE(a->day, b->day) : COMPARE(a->sha8, b->sha8);
}

static int compare_items(const void *a, const void *b, void *arg)
{
	const struct item *x = *(const struct item *const *)a, *y = *(const struct item *const *)b;
	const struct order *order = arg;
	int group = order->group(x, y);

	return group ? group : by_seq(x, y);
}

static int sort_items(const struct items *items, int (*group)(const struct item *a, const struct item *b),
                      struct order *ret_order)
{
	*ret_order = (struct order){ .group = group, .n = items->n };
	ret_order->at = calloc(items->n + 1, sizeof *ret_order->at);
	if (!ret_order->at)
		return -ENOMEM;
	for (size_t i = 0; i < items->n; i++)
		ret_order->at[i] = &items->at[i];
	qsort_r(ret_order->at, ret_order->n, sizeof *ret_order->at, compare_items, ret_order);
	return 0;
}

/* The first item of the group that `like` belongs to. */
static size_t find_group(const struct order *order, const struct item *like)
{
	size_t low = 0, high = order->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (order->group(order->at[middle], like) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* --- Walking --- */

struct line {
	const struct item *object; /* that it is about, or NULL */
	uint64_t first, last;
	uint32_t source;
	enum tally_kind kind;
};

struct judge {
	struct tally *tally;
	struct order ranges, excuses;        /* by place, by source */
	struct order objects, gaps, doubles; /* objects by place, by source, by boot */
	struct line *lines;
	size_t n_lines;
	struct tally_sums sums;
};

static int add_line(struct judge *j, enum tally_kind kind, const struct item *piece, const struct item *object)
{
	struct line *grown;

	if (j->n_lines == LINES_MAX)
		return -ENOBUFS;
	grown = grow(j->lines, j->n_lines, sizeof *grown);
	if (!grown)
		return -ENOMEM;
	j->lines = grown;
	j->lines[j->n_lines++] = (struct line){
		.object = object, .first = piece->first, .last = piece->last, .source = piece->source, .kind = kind
	};
	j->sums.records[kind] += piece->last - piece->first + 1;
	return 0;
}

/* A piece of what is walked along, and the item that it is covered by: NULL in a hole. */
typedef int (*on_piece)(struct judge *j, const struct item *piece, const struct item *by);

static int call_piece(struct judge *j, on_piece call, const struct item *along, uint64_t first, uint64_t last,
                      const struct item *by)
{
	struct item piece = *along;

	piece.first = first;
	piece.last = last;
	return call ? call(j, &piece, by) : 0;
}

/*
 * Cuts `along` into the pieces that an item of its group with one of these states covers, and the holes between them;
 * where items overlap, the first one counts.
 */
static int walk(struct judge *j, const struct order *order, const struct item *along, unsigned states, on_piece covered,
                on_piece hole)
{
	uint64_t at = along->first;
	int r = 0;

	for (size_t i = find_group(order, along); r == 0 && i < order->n && at <= along->last; i++) {
		const struct item *by = order->at[i];
		uint64_t last = by->last < along->last ? by->last : along->last;

		if (order->group(by, along) != 0 || by->first > along->last)
			break;
		if (!(states >> by->state & 1) || by->last < at)
			continue;
		if (by->first > at) {
			r = call_piece(j, hole, along, at, by->first - 1, NULL);
			at = by->first;
		}
		if (r == 0)
			r = call_piece(j, covered, along, at, last, by);
		at = last + 1;
	}
	return r == 0 && at <= along->last ? call_piece(j, hole, along, at, along->last, NULL) : r;
}

/* --- What is what --- */

static int on_delivered(struct judge *j, const struct item *piece, const struct item *by)
{
	(void)by;
	return add_line(j, TALLY_DELIVERED, piece, NULL);
}

static int on_waiting(struct judge *j, const struct item *piece, const struct item *by)
{
	(void)by;
	return add_line(j, TALLY_WAITING, piece, NULL);
}

static int on_lost(struct judge *j, const struct item *piece, const struct item *by)
{
	(void)by;
	return add_line(j, TALLY_LOST, piece, NULL);
}

static int on_early(struct judge *j, const struct item *piece, const struct item *by)
{
	return add_line(j, TALLY_EARLY, piece, by);
}

static int on_missing(struct judge *j, const struct item *piece, const struct item *by)
{
	(void)by;
	return add_line(j, TALLY_MISSING, piece, NULL);
}

/* What is covered by a changed object is told with that object. */
static int on_absent(struct judge *j, const struct item *piece, const struct item *by)
{
	(void)by;
	return walk(j, &j->objects, piece, 1u << OBJECT_CHANGED, NULL, on_missing);
}

/* What stands in the store all the same is told as early. */
static int on_unexcused(struct judge *j, const struct item *piece, const struct item *by)
{
	(void)by;
	return walk(j, &j->gaps, piece, ANY_OBJECT, NULL, on_missing);
}

static int judge_ranges(struct judge *j)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < j->ranges.n; i++) {
		const struct item *range = j->ranges.at[i];

		if (range->state == RANGE_DELIVERED)
			r = walk(j, &j->objects, range, 1u << OBJECT_SOUND, on_delivered, on_absent);
		else if (range->state == RANGE_LOST)
			r = walk(j, &j->objects, range, 1u << OBJECT_SOUND, on_delivered, on_lost);
		else
			r = walk(j, &j->objects, range, 1u << OBJECT_SOUND, on_early, on_waiting);
	}
	return r;
}

/* In no range: the piece is of the object itself. */
static int judge_object(struct judge *j, const struct item *object)
{
	size_t before = j->n_lines;
	int r = walk(j, &j->ranges, object, ANY_RANGE, NULL, on_early);

	for (size_t i = before; i < j->n_lines; i++)
		j->lines[i].object = object;
	return r;
}

static int judge_objects(struct judge *j)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < j->objects.n; i++) {
		const struct item *object = j->objects.at[i];

		if (object->state == OBJECT_SOUND)
			r = judge_object(j, object);
		else if (object->state == OBJECT_CHANGED)
			r = add_line(j, TALLY_CHANGED, object, object);
	}
	return r;
}

/* Among objects by first seq, the one that reaches farthest covers all that a later one can share with any before. */
static int judge_doubles(struct judge *j)
{
	const struct item *far = NULL;
	int r = 0;

	for (size_t i = 0; r == 0 && i < j->doubles.n; i++) {
		const struct item *object = j->doubles.at[i];

		if (object->state == OBJECT_UNSEEN)
			continue;
		if (far && by_boot(far, object) == 0 && object->first <= far->last) {
			struct item piece = *object;

			if (piece.last > far->last)
				piece.last = far->last;
			r = add_line(j, TALLY_DOUBLE, &piece, object);
			if (object->last <= far->last)
				continue;
		}
		far = object;
	}
	return r;
}

/* Seqs between two ranges of a source, in no store's books. */
static int judge_gaps(struct judge *j, const struct order *ranges)
{
	int r = 0;

	for (size_t i = 1; r == 0 && i < ranges->n; i++) {
		const struct item *left = ranges->at[i - 1], *right = ranges->at[i];

		struct item gap = *left;

		if (left->source != right->source || left->last + 1 >= right->first)
			continue;
		gap.first = left->last + 1;
		gap.last = right->first - 1;
		r = walk(j, &j->excuses, &gap, ANY_RANGE, NULL, on_unexcused);
	}
	return r;
}

/* --- Lines --- */

static int compare_by_kind(const void *a, const void *b)
{
	const struct line *x = a, *y = b;

	if (x->kind != y->kind)
		return COMPARE(x->kind, y->kind);
	return x->source != y->source ? COMPARE(x->source, y->source) : COMPARE(x->first, y->first);
}

static int compare_lines(const void *a, const void *b, void *arg)
{
	const struct tally *t = arg;
	const struct line *x = a, *y = b;

	if (x->source != y->source)
		return strcmp(t->sources[x->source], t->sources[y->source]);
	if (x->first != y->first)
		return COMPARE(x->first, y->first);
	if (x->kind != y->kind || !x->object)
		return COMPARE(x->kind, y->kind);
	return x->object->origin != y->object->origin ? COMPARE(x->object->origin, y->object->origin)
	                                              : by_seq(x->object, y->object);
}

/* Neighbours of one kind that are about no object become one. */
static void merge_lines(struct judge *j)
{
	size_t kept = 0;

	qsort(j->lines, j->n_lines, sizeof *j->lines, compare_by_kind);
	for (size_t i = 0; i < j->n_lines; i++) {
		struct line *last = kept > 0 ? &j->lines[kept - 1] : NULL, *line = &j->lines[i];

		if (last && !last->object && !line->object && last->kind == line->kind &&
		    last->source == line->source && last->last + 1 == line->first)
			last->last = line->last;
		else
			j->lines[kept++] = *line;
	}
	j->n_lines = kept;
}

static int tell_lines(struct judge *j, int (*on_line)(void *arg, const struct tally_line *line), void *arg)
{
	char key[OBJECT_KEY_MAX];
	int r = 0;

	if (j->n_lines == 0)
		return 0;
	merge_lines(j);
	qsort_r(j->lines, j->n_lines, sizeof *j->lines, compare_lines, j->tally);
	for (size_t i = 0; r == 0 && i < j->n_lines; i++) {
		const struct line *line = &j->lines[i];

		key[0] = '\0';
		if (line->object)
			write_key(j->tally, line->object, key);
		r = on_line(arg, &(struct tally_line){
		                         .kind = line->kind,
		                         .source = j->tally->sources[line->source],
		                         .first_seq = line->first,
		                         .last_seq = line->last,
		                         .key = key,
		                 });
	}
	return r;
}

static int sort_all(struct judge *j, struct order *ret_ranges)
{
	const struct tally *t = j->tally;
	int r = sort_items(&t->ranges, by_place, &j->ranges);

	if (r == 0)
		r = sort_items(&t->ranges, by_source, ret_ranges);
	if (r == 0)
		r = sort_items(&t->excuses, by_source, &j->excuses);
	if (r == 0)
		r = sort_items(&t->objects, by_place, &j->objects);
	if (r == 0)
		r = sort_items(&t->objects, by_source, &j->gaps);
	return r == 0 ? sort_items(&t->objects, by_boot, &j->doubles) : r;
}

int tally_judge(struct tally *t, int (*on_line)(void *arg, const struct tally_line *line), void *arg,
                struct tally_sums *ret_sums)
{
	struct judge j = { .tally = t, .sums = { .objects = t->objects.n, .foreign = t->foreign } };
	struct order ranges = { .at = NULL };
	int r = sort_all(&j, &ranges);

	if (r == 0)
		r = judge_ranges(&j);
	if (r == 0)
		r = judge_objects(&j);
	if (r == 0)
		r = judge_doubles(&j);
	if (r == 0 && t->since == INT64_MIN)
		r = judge_gaps(&j, &ranges);
	if (r == 0)
		r = tell_lines(&j, on_line, arg);
	free(ranges.at);
	free(j.ranges.at);
	free(j.excuses.at);
	free(j.objects.at);
	free(j.gaps.at);
	free(j.doubles.at);
	free(j.lines);
	if (r < 0)
		return r;
	j.sums.sound =
	        j.sums.records[TALLY_MISSING] + j.sums.records[TALLY_DOUBLE] + j.sums.records[TALLY_CHANGED] == 0;
	*ret_sums = j.sums;
	return 0;
}
