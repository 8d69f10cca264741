/* SPDX-License-Identifier: Apache-2.0 */
/* Pages of b-trees, the cells in them, and the rows in those: https://sqlite.org/fileformat2.html §1.6 and §2. */
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buffer/pages_private.h"

#define PATH_LONGEST 4096

/* A page's first byte, and its header's length. An inner page of an index holds rows as well. */
#define TABLE_LEAF   0x0d
#define INDEX_LEAF   0x0a
#define INDEX_INNER  0x02
#define LEAF_HEADER  8
#define INNER_HEADER 12

/* How much of a payload stays in its cell. */
#define LINKED      (PAGE - 4) /* bytes of it in an overflow page, behind the number of the next one */
#define LOCAL_LEAST ((PAGE - 12) * 32 / 255 - 23)
#define TABLE_MOST  (PAGE - 35)
#define INDEX_MOST  ((PAGE - 12) * 64 / 255 - 23)

/* --- Reading --- */

/* Bytes behind the end are zeros. */
bool pages_read_at(struct pages *p, int fd, unsigned char *ret_data, size_t len, int64_t at)
{
	size_t done = 0;
	ssize_t n = 1;

	while (done < len && n > 0) {
		n = pread(fd, ret_data + done, len - done, at + (int64_t)done);
		done += n > 0 ? (size_t)n : 0;
	}
	memset(ret_data + done, 0, len - done);
	p->unread += n < 0;
	return n >= 0;
}

bool pages_read_page(struct pages *p, uint32_t page, unsigned char ret_page[PAGE])
{
	return page > 0 && page <= p->n_pages && pages_read_at(p, p->file, ret_page, PAGE, ((int64_t)page - 1) * PAGE);
}

static bool read_frame(struct pages *p, size_t i, unsigned char ret_page[PAGE])
{
	return pages_read_at(p, p->wal, ret_page, PAGE, pages_frame_at(i) + FRAME_HEADER);
}

/* --- Opening --- */

static int open_file(const char *path, int *ret_fd, int64_t *ret_size, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return errno == ENOENT ? 0 : err_place(err, -errno, "buffer", path);
	if (fstat(fd, &st) < 0) {
		close(fd);
		return err_place(err, -errno, "buffer", path);
	}
	*ret_fd = fd;
	*ret_size = S_ISREG(st.st_mode) ? st.st_size : 0;
	return 0;
}

static int open_both(struct pages *p, const char *path, struct err *err)
{
	char wal[PATH_LONGEST];
	int64_t size = 0, n_pages;
	int r = open_file(path, &p->file, &size, err);

	snprintf(wal, sizeof wal, "%s-wal", path);
	if (r == 0)
		r = open_file(wal, &p->wal, &p->wal_size, err);
	if (r == 0 && p->file < 0 && p->wal < 0)
		return err_fail(err, -ENOENT, "there is no buffer \"%s\"", path);
	n_pages = (size + PAGE - 1) / PAGE;
	p->n_pages = n_pages < UINT32_MAX ? (uint32_t)n_pages : UINT32_MAX;
	return r;
}

int pages_open(const char *path, struct pages **ret_pages, struct err *err)
{
	struct pages *p = calloc(1, sizeof *p);
	int r;

	if (!p)
		return err_fail(err, -ENOMEM, "buffer: no memory");
	p->file = p->wal = -1;
	r = open_both(p, path, err);
	if (r == 0 && pages_load_wal(p) < 0)
		r = err_fail(err, -ENOMEM, "buffer: no memory");
	if (r < 0) {
		pages_close(p);
		return r;
	}
	*ret_pages = p;
	return 0;
}

enum pages_wal pages_judge_wal(const struct pages *p)
{
	return p->verdict;
}

void pages_close(struct pages *p)
{
	if (!p)
		return;
	if (p->file >= 0)
		close(p->file);
	if (p->wal >= 0)
		close(p->wal);
	free(p->frames);
	free(p->by_page);
	free(p->payload);
	free(p);
}

uint64_t pages_unread(const struct pages *p)
{
	return p->unread;
}

/* --- Rows --- */

/*
 * The columns of a row as they stand in a record, which is CREATE TABLE's order, then ALTER TABLE's; in a table WITHOUT
 * ROWID those of the key come first. k: the row's id, which is not in the record; i: number; t: text; b: blob; c: the
 * checksum.
 */
struct form {
	enum pages_table table;
	const char *columns;
	const char *places; /* of each column but the checksum in a statement; NULL: as they stand */
	size_t lacks;       /* numbers that later schemas put behind, 0 where they were not known */
};

static const struct form forms[] = {
	{ PAGES_BUFFER, "tc", NULL, 0 },
	{ PAGES_SOURCE, "ktiibci", NULL, 0 },
	{ PAGES_SOURCE, "ktiibc", NULL, 1 },
	{ PAGES_CHUNK, "ktttiiiiiiibicb", NULL, 0 },
	{ PAGES_BATCH, "kttiiiibiiici", NULL, 0 },
	{ PAGES_BATCH, "kttiiiibiiic", NULL, 1 },
	{ PAGES_PART, "kcb", NULL, 0 },
	{ PAGES_DELIVERY, "itic", NULL, 0 },
	{ PAGES_STORE, "ttc", NULL, 0 },
	{ PAGES_BOOK, "ttiiittc", NULL, 0 }, /* and rows of `lost` before schema 5: nothing tells them apart */
	{ PAGES_LOST, "ttiiittic", NULL, 0 },
	{ PAGES_DAMAGE, "titiitic", "0152346", 0 },
	{ PAGES_CLOCK, "tic", NULL, 0 },
	{ PAGES_IMPORTED, "tttiiic", NULL, 0 },
	{ PAGES_REJECTED, "tittiiibc", NULL, 0 },
	{ PAGES_DUE, "tittibic", NULL, 0 },
	{ PAGES_JOB, "tiiic", NULL, 0 },
	{ PAGES_RUN, "tttiiiiiiiiiiiiiibtttbc", NULL, 0 },
	{ PAGES_MACHINE, "tiiittc", NULL, 0 },
	{ PAGES_DAY, "itiic", NULL, 0 },
};

/* A record's header, §2.1. */
struct record {
	size_t len; /* of the header */
	size_t n;
	uint64_t serials[PAGES_CELLS_MAX];
};

struct cursor {
	const unsigned char *at, *end;
};

static bool take_varint(struct cursor *c, uint64_t *ret_value)
{
	uint64_t value = 0;

	for (int i = 0; i < 9 && c->at < c->end; i++) {
		unsigned char byte = *c->at++;

		if (i == 8 || byte < 0x80) {
			*ret_value = i == 8 ? value << 8 | byte : value << 7 | byte;
			return true;
		}
		value = value << 7 | (byte & 0x7f);
	}
	return false;
}

static uint64_t serial_len(uint64_t serial)
{
	static const unsigned char lens[] = { 0, 1, 2, 3, 4, 6, 8, 8, 0, 0, 0, 0 };

	return serial < sizeof lens ? lens[serial] : (serial - 12) / 2;
}

/* As in a form; '?': a floating-point number, which no row of ours has, or nothing that is known. */
static char serial_letter(uint64_t serial)
{
	return serial >= 12 ? "bt"[serial & 1] : "kiiiiii?ii??"[serial];
}

/* The header is all in the cell, and its columns make up the payload. */
static bool take_record(const unsigned char *local, size_t local_len, uint64_t payload_len, struct record *ret_record)
{
	struct cursor c = { local, local + local_len };
	struct record record = { .n = 0 };
	uint64_t len, sum;

	if (!take_varint(&c, &len) || len > local_len)
		return false;
	c.end = local + len;
	for (sum = len; c.at < c.end && record.n < PAGES_CELLS_MAX; record.n++) {
		if (!take_varint(&c, &record.serials[record.n]) ||
		    serial_len(record.serials[record.n]) > payload_len - sum)
			return false;
		sum += serial_len(record.serials[record.n]);
	}
	record.len = (size_t)len;
	*ret_record = record;
	return sum == payload_len;
}

static const struct form *find_form(const struct record *record)
{
	for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
		size_t n = 0;

		while (n < record->n && forms[i].columns[n] != '\0' &&
		       (forms[i].columns[n] == 'c' ? 'i' : forms[i].columns[n]) == serial_letter(record->serials[n]))
			n++;
		if (n == record->n && forms[i].columns[n] == '\0')
			return &forms[i];
	}
	return NULL;
}

static int64_t take_number(const unsigned char *at, uint64_t serial)
{
	uint64_t value = serial == 9;

	if (serial < 8)
		value = at[0] & 0x80 ? UINT64_MAX : 0;
	for (uint64_t i = 0; i < serial_len(serial); i++)
		value = value << 8 | at[i];
	return (int64_t)value;
}

static struct cell take_cell(const unsigned char *at, uint64_t serial)
{
	if (serial < 12)
		return cell_number(take_number(at, serial));
	return (struct cell){
		.type = serial & 1 ? SQLITE_TEXT : SQLITE_BLOB,
		.data = at,
		.len = (size_t)serial_len(serial),
	};
}

/* Whether its checksum is right. */
static bool build_row(const struct form *form, const struct record *record, int64_t id, const unsigned char *payload,
                      struct pages_row *ret_row)
{
	const unsigned char *at = payload + record->len;
	struct pages_row row = { .table = form->table };
	int64_t crc = -1;

	for (size_t i = 0; i < record->n; i++) {
		uint64_t serial = record->serials[i];
		struct cell cell = form->columns[i] == 'k' ? cell_number(id) : take_cell(at, serial);

		if (form->columns[i] == 'c') {
			crc = cell.number;
		} else {
			row.cells[form->places ? (size_t)(form->places[row.n] - '0') : row.n] = cell;
			row.n++;
		}
		at += serial_len(serial);
	}
	if (crc != cell_crc(0, row.cells, row.n))
		return false;
	for (size_t i = 0; i < form->lacks; i++)
		row.cells[row.n++] = cell_number(0);
	*ret_row = row;
	return true;
}

/* --- Walking --- */

struct walk {
	struct pages *p;
	unsigned tables;
	size_t max_len;
	pages_on_row on_row;
	void *arg;

	bool sure; /* the page at hand was committed */
	/* Where its overflow pages are looked for: in these frames, or in the file, first. */
	bool frames_first;
	size_t last;
	uint32_t salt[2];
};

static int hand_out(struct walk *w, struct pages_row *row)
{
	row->sure = w->sure;
	return w->on_row(w->arg, row);
}

/* *other: it can be had elsewhere as well. */
static bool read_linked(struct walk *w, uint32_t page, bool frames_first, unsigned char ret_page[PAGE], bool *other)
{
	struct pages *p = w->p;
	int64_t frame = pages_find_frame(p, page, w->last, w->salt);
	bool in_file = page > 0 && page <= p->n_pages;

	*other = *other || (frame >= 0 && in_file);
	if (frame >= 0 && (frames_first || !in_file))
		return read_frame(p, (size_t)frame, ret_page);
	return in_file && pages_read_page(p, page, ret_page);
}

static bool read_chain(struct walk *w, uint32_t next, size_t from, size_t to, bool frames_first, bool *other)
{
	unsigned char page[PAGE];

	while (from < to) {
		size_t len = to - from < LINKED ? to - from : LINKED;

		if (!read_linked(w, next, frames_first, page, other))
			return false;
		next = pages_number(page);
		memcpy(w->p->payload + from, page + 4, len);
		from += len;
	}
	return true;
}

static int grow_payload(struct pages *p, size_t len)
{
	unsigned char *grown;

	if (len <= p->payload_capacity)
		return 0;
	grown = realloc(p->payload, len);
	if (!grown)
		return -ENOMEM;
	p->payload = grown;
	p->payload_capacity = len;
	return 0;
}

/* Bytes of a payload that are in its cell. */
static size_t local_len(uint64_t len, bool index)
{
	size_t most = index ? INDEX_MOST : TABLE_MOST;
	size_t kept = LOCAL_LEAST + (size_t)((len - LOCAL_LEAST) % LINKED);

	if (len <= most)
		return (size_t)len;
	return kept <= most ? kept : LOCAL_LEAST;
}

/* A cell's payload: `len` bytes, of which `local` are here. */
struct payload {
	const unsigned char *at;
	size_t local, len;
};

static int walk_linked(struct walk *w, const struct form *form, const struct record *record, int64_t id,
                       const struct payload *payload)
{
	uint32_t next = pages_number(payload->at + payload->local);
	struct pages_row row;
	bool other = false;
	int r = grow_payload(w->p, payload->len);

	if (r < 0)
		return r;
	memcpy(w->p->payload, payload->at, payload->local);
	for (int i = 0; i < 2; i++) {
		if (read_chain(w, next, payload->local, payload->len, w->frames_first == (i == 0), &other) &&
		    build_row(form, record, id, w->p->payload, &row))
			return hand_out(w, &row);
		if (!other)
			break;
	}
	return 0;
}

static int walk_cell(struct walk *w, struct cursor c, bool index)
{
	const struct form *form;
	struct payload payload;
	struct pages_row row;
	struct record record;
	uint64_t len, id = 0;

	if (!take_varint(&c, &len) || (!index && !take_varint(&c, &id)))
		return 0;
	if (len > w->max_len || len > (w->p->n_pages + (uint64_t)w->p->n_frames) * PAGE)
		return 0;
	payload = (struct payload){ .at = c.at, .local = local_len(len, index), .len = (size_t)len };
	if (payload.local + (payload.local < len ? 4 : 0) > (size_t)(c.end - c.at) ||
	    !take_record(payload.at, payload.local, len, &record))
		return 0;
	form = find_form(&record);
	if (!form || !(w->tables & 1U << form->table))
		return 0;
	if (payload.local < len)
		return walk_linked(w, form, &record, (int64_t)id, &payload);
	return build_row(form, &record, (int64_t)id, payload.at, &row) ? hand_out(w, &row) : 0;
}

static int walk_page(struct walk *w, const unsigned char *page)
{
	bool inner = page[0] == INDEX_INNER, index = inner || page[0] == INDEX_LEAF;
	size_t header = inner ? INNER_HEADER : LEAF_HEADER, n = (size_t)page[3] << 8 | page[4];
	int r = 0;

	if (!index && page[0] != TABLE_LEAF)
		return 0;
	for (size_t i = header; r == 0 && n > 0 && i + 2 <= PAGE; i += 2, n--) {
		size_t at = ((size_t)page[i] << 8 | page[i + 1]) + (inner ? 4 : 0); /* behind the child's number */

		if (at < PAGE)
			r = walk_cell(w, (struct cursor){ page + at, page + PAGE }, index);
	}
	return r;
}

static int walk_file(struct walk *w)
{
	struct pages *p = w->p;
	unsigned char page[PAGE];
	int r = 0;

	w->sure = true;
	w->frames_first = false;
	w->last = p->n_frames;
	memcpy(w->salt, p->salt, sizeof w->salt);
	for (uint32_t i = 1; r == 0 && i <= p->n_pages; i++) {
		if (pages_read_page(p, i, page))
			r = walk_page(w, page);
	}
	return r;
}

static int walk_frame(struct walk *w, size_t i)
{
	const struct frame *f = &w->p->frames[i];
	unsigned char page[PAGE];

	w->sure = f->own && i < w->p->sure;
	w->frames_first = true;
	w->last = f->last;
	memcpy(w->salt, f->salt, sizeof w->salt);
	return read_frame(w->p, i, page) ? walk_page(w, page) : 0;
}

static int walk_own(struct walk *w, size_t first)
{
	int r = 0;

	for (size_t i = first; r == 0 && i < w->p->n_frames; i++) {
		if (w->p->frames[i].own)
			r = walk_frame(w, i);
	}
	return r;
}

static int walk_under(struct walk *w)
{
	struct pages *p = w->p;
	unsigned char page[PAGE];
	uint32_t before = 0;
	int r = 0;

	w->frames_first = false;
	w->sure = true;
	w->last = p->n_frames;
	memcpy(w->salt, p->salt, sizeof w->salt);
	for (size_t i = 0; r == 0 && i < p->n_frames; i++) {
		const struct frame *f = &p->frames[p->by_page[i]];

		if (f->own && f->page != before && pages_read_page(p, f->page, page))
			r = walk_page(w, page);
		before = f->own ? f->page : before;
	}
	for (uint32_t i = p->end > 0 ? p->frames[p->end - 1].commit : p->n_pages; r == 0 && i < p->n_pages; i++) {
		if (pages_read_page(p, i + 1, page))
			r = walk_page(w, page);
	}
	return r;
}

/* What was overwritten least lies last, and is the oldest. */
static int walk_older(struct walk *w)
{
	const struct frame *frames = w->p->frames;
	int r = 0;

	for (size_t first, last = w->p->n_frames; r == 0 && last > 0; last = first) {
		first = last - 1;
		while (first > 0 && pages_same_salt(frames[first - 1].salt, frames[last - 1].salt))
			first--;
		for (size_t i = first; r == 0 && i < last; i++) {
			if (!frames[i].own)
				r = walk_frame(w, i);
		}
	}
	return r;
}

int pages_each(struct pages *p, enum pages_where where, unsigned tables, size_t max_len, pages_on_row on_row, void *arg)
{
	struct walk w = { .p = p, .tables = tables, .max_len = max_len, .on_row = on_row, .arg = arg };
	int r = where == PAGES_UNDER ? walk_under(&w) : 0;

	if (where == PAGES_ALL)
		r = walk_older(&w);
	if (r == 0 && where == PAGES_ALL)
		r = walk_file(&w);
	if (r == 0 && where != PAGES_UNDER)
		r = walk_own(&w, where == PAGES_TAIL ? p->end : 0);
	return r < 0 ? r : 0;
}
