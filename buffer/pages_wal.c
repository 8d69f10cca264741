/* SPDX-License-Identifier: Apache-2.0 */
/* The WAL, https://sqlite.org/fileformat2.html §4: its frames, and how it ends. */
#include <errno.h>
#include <stdlib.h>

#include "buffer/pages_private.h"

#define WAL_MAGIC   0x377f0682 /* the lowest bit: its checksums are over big-endian words */
#define WAL_VERSION 3007000
#define SUM_AT      16        /* of a frame's checksum in its header */
#define FRAMES_MAX  (1 << 22) /* 16 GB; what lies behind is not read */
#define SECTOR      512       /* what a power cut leaves whole, or as it was */
#define GENERATIONS 1000      /* WALs before this one of which something may be left */

/* --- Checksums, §4.2 --- */

struct sum {
	uint32_t s[2];
};

static bool sum_is(const struct sum *a, const struct sum *b)
{
	return a->s[0] == b->s[0] && a->s[1] == b->s[1];
}

static struct sum stored_sum(const unsigned char *at)
{
	return (struct sum){ { pages_number(at), pages_number(at + 4) } };
}

static uint32_t word_at(const struct pages *p, const unsigned char *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof value);
	return p->big_endian ? be32toh(value) : le32toh(value);
}

static struct sum sum_add(const struct pages *p, struct sum sum, const unsigned char *data, size_t len)
{
	for (size_t i = 0; i < len; i += 8) {
		sum.s[0] += word_at(p, data + i) + sum.s[1];
		sum.s[1] += word_at(p, data + i + 4) + sum.s[0];
	}
	return sum;
}

static struct sum frame_sum(const struct pages *p, struct sum before, const unsigned char *raw)
{
	return sum_add(p, sum_add(p, before, raw, 8), raw + FRAME_HEADER, PAGE);
}

/* --- Frames --- */

/* What the next frame's checksum goes on from: what stands in this one and, where that is wrong, what ought to. */
struct chain {
	struct sum stored, computed;
};

/* As SQLite takes it; `chain` is untouched where it would not. false: the card does not give it. */
static bool read_header(struct pages *p, struct chain *chain)
{
	unsigned char header[WAL_HEADER];
	bool read = pages_read_at(p, p->wal, header, sizeof header, 0);
	struct sum sum, stored;

	p->big_endian = pages_number(header) & 1;
	sum = sum_add(p, (struct sum){ { 0, 0 } }, header, WAL_HEADER - 8);
	stored = stored_sum(header + WAL_HEADER - 8);
	p->header = (pages_number(header) & ~1U) == WAL_MAGIC && pages_number(header + 4) == WAL_VERSION &&
	            pages_number(header + 8) == PAGE && sum_is(&sum, &stored);
	if (!p->header) {
		p->big_endian = BYTE_ORDER == BIG_ENDIAN; /* as SQLite writes it */
		return read;
	}
	p->salt[0] = pages_number(header + 16);
	p->salt[1] = pages_number(header + 20);
	*chain = (struct chain){ sum, sum };
	return true;
}

/*
 * Does its checksum follow from the frame before? Either from what stands there or, where only that is damaged, from
 * what ought to. Where it does not, one thing more can be told: a mark of a commit that is itself the damage.
 */
static struct sum check_sum(const struct pages *p, struct frame *f, unsigned char *raw, const struct chain *before)
{
	const struct sum stored = stored_sum(raw + SUM_AT);
	struct sum sum = frame_sum(p, before->stored, raw), other;

	f->chained = sum_is(&sum, &stored);
	if (!f->chained && !sum_is(&before->stored, &before->computed)) {
		other = frame_sum(p, before->computed, raw);
		f->chained = sum_is(&other, &stored);
	}
	if (f->chained)
		return stored;
	if (f->commit > 0) {
		memset(raw + 4, 0, 4);
		other = frame_sum(p, before->stored, raw);
		if (sum_is(&other, &stored))
			f->commit = 0;
	}
	return sum;
}

static void load_frame(struct pages *p, size_t i, struct chain *chain)
{
	struct frame *f = &p->frames[i];
	unsigned char raw[FRAME];
	struct chain now;

	f->unread = !pages_read_at(p, p->wal, raw, sizeof raw, pages_frame_at(i));
	f->page = pages_number(raw);
	f->commit = pages_number(raw + 4);
	f->salt[0] = pages_number(raw + 8);
	f->salt[1] = pages_number(raw + 12);
	now.stored = now.computed = stored_sum(raw + SUM_AT);
	if (!f->unread && pages_frame_at(i + 1) <= p->wal_size)
		now.computed = check_sum(p, f, raw, chain);
	*chain = now;
}

/*
 * Of the WAL before, though its checksum may follow from an own frame whose header was torn: each WAL has a salt of its
 * own that all its frames share, whose first half goes up by one.
 */
static bool is_older(const struct pages *p, size_t i)
{
	const uint32_t *salt = p->frames[i].salt;

	if (pages_same_salt(salt, p->salt))
		return false;
	return (i > 0 && pages_same_salt(salt, p->frames[i - 1].salt)) ||
	       (i + 1 < p->n_frames && pages_same_salt(salt, p->frames[i + 1].salt)) ||
	       (salt[1] != p->salt[1] && p->salt[0] - salt[0] - 1 < GENERATIONS);
}

/*
 * Of an own frame: whether its mark of a commit is what was written. A power cut may have left the older words before
 * the salt, or before the checksum, where a sector ends there.
 */
static bool is_commit(const struct pages *p, size_t i)
{
	const struct frame *f = &p->frames[i];

	return f->commit > 0 && (f->chained || pages_frame_at(i) % SECTOR <= SECTOR - FRAME_HEADER);
}

/* Whose they are, and how far SQLite will take them. */
static void mark_frames(struct pages *p)
{
	bool whole = p->header, own = whole;

	for (size_t i = 0; i < p->n_frames; i++) {
		struct frame *f = &p->frames[i];
		bool salted = pages_same_salt(f->salt, p->salt);
		bool follows = own && f->chained && !is_older(p, i);

		whole = whole && salted && f->chained;
		if (whole)
			p->taken = i + 1;
		if (whole && f->commit > 0)
			p->end = p->sure = i + 1;
		if (follows && i > 0 && is_commit(p, i - 1))
			p->sure = i > p->sure ? i : p->sure;
		own = salted || follows;
		f->own = own;
		if (own)
			memcpy(f->salt, p->salt, sizeof f->salt);
	}
}

static int compare_frames(const void *left, const void *right, void *arg)
{
	const struct frame *frames = arg;
	uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;

	if (frames[a].page != frames[b].page)
		return frames[a].page < frames[b].page ? -1 : 1;
	return a < b ? -1 : a > b;
}

int64_t pages_find_frame(const struct pages *p, uint32_t page, size_t last, const uint32_t salt[2])
{
	size_t low = 0, high = p->n_frames;

	while (low < high) {
		size_t middle = low + (high - low) / 2, i = p->by_page[middle];

		if (p->frames[i].page < page || (i <= last && p->frames[i].page == page))
			low = middle + 1;
		else
			high = middle;
	}
	while (low > 0 && p->frames[p->by_page[low - 1]].page == page) {
		low--;
		if (pages_same_salt(p->frames[p->by_page[low]].salt, salt))
			return p->by_page[low];
	}
	return -1;
}

/* --- The verdict --- */

/*
 * Was the frame brought into the file? Then the file's page is what was written, and has the frame's checksum, whatever
 * has become of the frame's own page since. 1: it was, 0: it was not; -1: it is the same page, and nothing of its
 * checksum: a new frame's header before an older frame's page, or a frame whose header is damaged.
 */
static int file_has(struct pages *p, size_t i)
{
	unsigned char raw[FRAME], page[PAGE], before[8];
	struct sum sum, stored;

	if (!pages_read_page(p, p->frames[i].page, page) ||
	    !pages_read_at(p, p->wal, raw, sizeof raw, pages_frame_at(i)))
		return 0;
	if (memcmp(page, raw + FRAME_HEADER, PAGE) == 0)
		return p->frames[i].chained || !p->header ? 1 : -1;
	if (!pages_read_at(p, p->wal, before, sizeof before, i == 0 ? WAL_HEADER - 8 : pages_frame_at(i - 1) + SUM_AT))
		return 0;
	memcpy(raw + FRAME_HEADER, page, PAGE);
	sum = frame_sum(p, stored_sum(before), raw);
	stored = stored_sum(raw + SUM_AT);
	return sum_is(&sum, &stored);
}

/* The newest own frame of every page up to max_page among those from first to last was brought into the file. */
static bool file_has_all(struct pages *p, size_t first, size_t last, uint32_t max_page)
{
	bool any = false;
	int has;

	for (size_t i = first; i <= last; i++) {
		uint32_t page = p->frames[i].page;

		if (page > max_page || pages_find_frame(p, page, last, p->salt) != (int64_t)i)
			continue;
		has = file_has(p, i);
		if (has == 0)
			return false;
		any = any || has == 1;
	}
	return any;
}

/*
 * Behind the end are newer pages than those that SQLite would take from the WAL. A page may also be written as it was
 * before, and so be in the file by chance.
 */
static bool hides_newer(struct pages *p)
{
	unsigned char newer[PAGE], taken[PAGE];

	for (size_t i = p->end; i < p->n_frames; i++) {
		uint32_t page = p->frames[i].page;
		int64_t before = p->end > 0 ? pages_find_frame(p, page, p->end - 1, p->salt) : -1;

		if (before < 0 || pages_find_frame(p, page, p->n_frames - 1, p->salt) != (int64_t)i)
			continue;
		if (pages_read_at(p, p->wal, newer, PAGE, pages_frame_at(i) + FRAME_HEADER) &&
		    pages_read_at(p, p->wal, taken, PAGE, pages_frame_at((size_t)before) + FRAME_HEADER) &&
		    memcmp(newer, taken, PAGE) != 0)
			return true;
	}
	return false;
}

/*
 * A power cut can tear the header only where the WAL begins: the first one, when nothing is behind it, or a later one,
 * when everything is in the file.
 */
static enum pages_wal judge_headless(struct pages *p)
{
	uint32_t most = (uint32_t)(p->n_pages + p->n_frames);
	size_t first = 0, last = SIZE_MAX;

	while (first < p->n_frames && (p->frames[first].page - 1 >= most || p->frames[first].commit > most))
		first++;
	if (first == p->n_frames)
		return PAGES_WAL_DAMAGED;
	memcpy(p->salt, p->frames[first].salt, sizeof p->salt);
	mark_frames(p);
	for (size_t i = first; i < p->n_frames; i++) {
		if (p->frames[i].own && p->frames[i].commit > 0)
			last = i;
	}
	if (last != SIZE_MAX && !file_has_all(p, first, last, p->frames[last].commit))
		return PAGES_WAL_DAMAGED;
	p->end = p->n_frames;
	return PAGES_WAL_SOUND;
}

/*
 * Behind the end there can be, of this WAL, without any damage: what of the last transaction was written when the power
 * went; and what failed or was rolled back, as far as later ones have not overwritten it. None of that holds a commit
 * that another transaction was built on: such a one was durable. Nor was any of it brought into the file; what was is
 * damaged now, and SQLite would mix older pages from the WAL with newer ones from the file. A power cut leaves one
 * commit at most, and a second one in a row may leave its own before that.
 */
static enum pages_wal judge(struct pages *p)
{
	bool tail = false;
	int commits = 0;

	if (!p->header)
		return judge_headless(p);
	if (p->taken < p->n_frames && p->frames[p->taken].unread)
		return PAGES_WAL_DAMAGED; /* SQLite comes that far, and opens nothing then */
	if (p->sure > p->end)
		return PAGES_WAL_DAMAGED;
	for (size_t i = p->end; i < p->n_frames; i++) {
		tail = tail || p->frames[i].own;
		commits += p->frames[i].own && p->frames[i].commit > 0;
	}
	if (!tail)
		return PAGES_WAL_SOUND;
	if (commits > 2 || (hides_newer(p) && file_has_all(p, 0, p->n_frames - 1, UINT32_MAX)))
		return PAGES_WAL_DAMAGED;
	return PAGES_WAL_TORN;
}

static void mark_transactions(struct pages *p)
{
	for (size_t i = p->n_frames; i-- > 0;) {
		struct frame *f = &p->frames[i];

		f->last = f->commit == 0 && i + 1 < p->n_frames ? f[1].last : (uint32_t)i;
	}
}

int pages_load_wal(struct pages *p)
{
	struct chain chain = { .stored = { { 0, 0 } } };
	int64_t n = p->wal_size > WAL_HEADER ? (p->wal_size - WAL_HEADER + FRAME - 1) / FRAME : 0;
	bool readable;

	if (n == 0)
		return 0;
	n = n < FRAMES_MAX ? n : FRAMES_MAX;
	p->frames = calloc((size_t)n, sizeof *p->frames);
	p->by_page = calloc((size_t)n, sizeof *p->by_page);
	if (!p->frames || !p->by_page)
		return -ENOMEM;
	p->n_frames = (size_t)n;
	readable = read_header(p, &chain);
	for (size_t i = 0; i < p->n_frames; i++) {
		load_frame(p, i, &chain);
		p->by_page[i] = (uint32_t)i;
	}
	qsort_r(p->by_page, p->n_frames, sizeof *p->by_page, compare_frames, p->frames);
	if (p->header)
		mark_frames(p);
	p->verdict = readable ? judge(p) : PAGES_WAL_DAMAGED;
	mark_transactions(p);
	return 0;
}
