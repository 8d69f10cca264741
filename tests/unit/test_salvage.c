/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Damage of every kind, and what is left after it. A buffer is filled by chance while a model notes what it was given
 * and what became of that; then its files are damaged, and an oracle compares. What lies outside the damage is told by
 * buffer/pages: a row that it still finds must not be lost.
 */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/random.h"
#include "buffer/pages.h"
#include "buffer/queue_private.h"
#include "buffer/salvage.h"
#include "tests/unit/broken_card.h"
#include "tests/unit/queue_box.h"

#define PAGE      4096
#define MAX_BYTES (INT64_C(8) << 20)
#define N_SOURCES 3
#define RECORDS   20000 /* of a source, at most */
#define LAKE      1
#define DISK      2
#define ALL       (LAKE | DISK)

static const char *const source_names[N_SOURCES] = { "a", "parking", "zoo" };
static const char *const store_names[2] = { "lake", "disk" };

/* --- Chance --- */

static uint64_t chance;

static uint32_t draw(uint32_t below)
{
	chance = chance * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(chance >> 33) % below;
}

/* --- The model --- */

struct record {
	uint32_t value;
	uint8_t stores; /* that have it */
	bool lost;      /* for those that have it not: it was dropped */
	bool safe;      /* its row is outside the damage */
	bool here;      /* it was read after the salvage */
};

struct world {
	struct box box;
	struct record records[N_SOURCES][RECORDS + 1]; /* by seq */
	uint64_t next[N_SOURCES];
	uint32_t values;
	int64_t at_ms;
	int64_t highest_batch;
	bool cut;     /* its WAL was damaged */
	bool at_once; /* it was salvaged before it was opened */
	char boots[64][OBJECT_BOOT];
	size_t n_boots;
};

static int set_up(void **state)
{
	struct world *w = calloc(1, sizeof *w);
	void *box;

	assert_non_null(w);
	card_errno = 0;
	box_set_up(&box);
	w->box = *(struct box *)box;
	free(box);
	for (int s = 0; s < N_SOURCES; s++)
		w->next[s] = 1;
	*state = w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;

	card_errno = 0;
	box_close(&w->box);
	nftw(w->box.folder, box_remove, 8, FTW_DEPTH | FTW_PHYS);
	free(w);
	return 0;
}

static int find_source(const char *name)
{
	for (int s = 0; s < N_SOURCES; s++) {
		if (strcmp(source_names[s], name) == 0)
			return s;
	}
	fail_msg("%s", name);
	return -1;
}

/* The text of a record: its value and some noise that compresses badly, a few of them long. */
static size_t write_text(char text[2400], uint32_t value)
{
	static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	uint64_t x = value * UINT64_C(0x9e3779b97f4a7c15) + 1;
	size_t len = (size_t)snprintf(text, 2400, "{\"v\":%u,\"x\":\"", value);
	size_t noise = value % 17 == 0 ? 2000 : value % 40;

	for (size_t i = 0; i < noise; i++) {
		x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		text[len++] = letters[x >> 58];
	}
	memcpy(text + len, "\"}", 3);
	return len + 2;
}

static struct fetch *make_fetch(struct world *w, int s, int n, size_t full)
{
	struct fetch *fetch = box_fetch(source_names[s], w->at_ms, 0, "");
	char text[2400];

	w->at_ms += 1000;
	for (int i = 0; i < n; i++) {
		size_t len = write_text(text, ++w->values);

		assert_int_equal(fetch_add(fetch, text, len, full), 0);
	}
	return fetch;
}

/* The values are those that were given out last. */
static void note_fetch(struct world *w, int s, const struct fetch *fetch)
{
	uint32_t value = w->values - (uint32_t)fetch->records;

	assert_true(fetch->records == 0 || fetch->first_seq >= w->next[s]);
	for (uint64_t i = 0; i < fetch->records; i++) {
		assert_true(fetch->first_seq + i <= RECORDS);
		value++;
		w->records[s][fetch->first_seq + i] = (struct record){ .value = value };
	}
	if (fetch->records > 0)
		w->next[s] = fetch->first_seq + fetch->records;
}

static void commit(struct world *w, int s, int n)
{
	struct fetch *fetch = make_fetch(w, s, n, CHUNK_FULL);

	if (queue_commit(w->box.q, fetch, &w->box.err) < 0)
		fail_msg("%s", w->box.err.text);
	note_fetch(w, s, fetch);
	fetch_free(fetch);
}

static void stage(struct world *w, struct fetch *fetch)
{
	struct fetch_piece *piece;

	while ((piece = fetch_take_piece(fetch))) {
		if (queue_stage(w->box.q, fetch->source, piece, &w->box.err) < 0)
			fail_msg("%s", w->box.err.text);
		fetch->staged += piece->n;
		fetch_piece_free(piece);
	}
}

static void commit_staged(struct world *w, int s, int n)
{
	struct fetch *fetch = make_fetch(w, s, n, 3000);

	stage(w, fetch);
	if (queue_commit(w->box.q, fetch, &w->box.err) < 0)
		fail_msg("%s", w->box.err.text);
	note_fetch(w, s, fetch);
	fetch_free(fetch);
}

static void give_up(struct world *w, int s, int n)
{
	struct fetch *fetch = make_fetch(w, s, n, 3000);

	stage(w, fetch);
	fetch_free(fetch);
	assert_int_equal(queue_unstage(w->box.q, source_names[s], &w->box.err), 0);
}

static void seal_all(struct world *w)
{
	int r;

	while ((r = box_seal(&w->box, w->at_ms, true)) == 1) {
		assert_true(w->box.batch.id > w->highest_batch);
		w->highest_batch = w->box.batch.id;
	}
	if (r < 0)
		fail_msg("%s", w->box.err.text);
}

static void seal_one(struct world *w)
{
	int r = box_seal(&w->box, w->at_ms, true);

	if (r < 0)
		fail_msg("%s", w->box.err.text);
	if (r == 1)
		w->highest_batch = w->box.batch.id;
}

/* The oldest one of a store. */
static bool deliver(struct world *w, int store)
{
	struct batch batch;
	bool done;
	int r = queue_next_delivery(w->box.q, store_names[store], 0, &batch, &w->box.err), s;

	if (r == -ENOENT)
		return false;
	if (r < 0 || queue_delivered(w->box.q, batch.id, store_names[store], NOON, &done, &w->box.err) < 0)
		fail_msg("%s", w->box.err.text);
	s = find_source(batch.source);
	for (uint64_t seq = batch.first_seq; seq <= batch.last_seq; seq++)
		w->records[s][seq].stores |= (uint8_t)(1 << store);
	return true;
}

static void drop(struct world *w)
{
	struct batch batch;
	int r = queue_drop(w->box.q, NULL, 0, &batch, &w->box.err), s;

	if (r < 0)
		fail_msg("%s", w->box.err.text);
	if (r == 0)
		return;
	s = find_source(batch.source);
	for (uint64_t seq = batch.first_seq; seq <= batch.last_seq; seq++)
		w->records[s][seq].lost = true;
}

static void configure(struct world *w)
{
	box_route(&w->box, 2, MAX_BYTES, 1000);
}

static void note_boot(struct world *w)
{
	struct queue_view *view = queue_view(w->box.q);

	assert_true(w->n_boots < 64);
	for (size_t i = 0; i < w->n_boots; i++) {
		if (strcmp(w->boots[i], view->boot) == 0) {
			queue_view_free(view);
			return;
		}
	}
	memcpy(w->boots[w->n_boots++], view->boot, OBJECT_BOOT);
	queue_view_free(view);
}

static void reopen(struct world *w)
{
	w->box.identity.kernel_boot_id = draw(2) ? BOOT_A : BOOT_B;
	box_reopen(&w->box);
	configure(w);
	note_boot(w);
}

static void checkpoint(struct world *w)
{
	sqlite3_wal_checkpoint_v2(w->box.q->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
}

/* A life by chance. */
static void go_on(struct world *w, int steps)
{
	for (int i = 0; i < steps; i++) {
		int s = (int)draw(N_SOURCES);

		switch (draw(20)) {
		case 0:
			commit_staged(w, s, 20 + (int)draw(100));
			break;
		case 1:
			give_up(w, s, 20 + (int)draw(60));
			break;
		case 2:
			commit(w, s, 0);
			break;
		case 3:
			seal_all(w);
			break;
		case 4:
		case 5:
			seal_one(w);
			break;
		case 6:
		case 7:
			deliver(w, 0);
			break;
		case 8:
			deliver(w, 1);
			break;
		case 9:
			if (draw(4) == 0)
				drop(w);
			break;
		case 10:
			if (draw(3) == 0)
				queue_expire(w->box.q, NOON + DAY, 0, &w->box.err);
			break;
		case 11:
			if (draw(3) == 0)
				reopen(w);
			break;
		case 12:
			checkpoint(w);
			break;
		case 13:
			w->at_ms += draw(10) == 0 ? DAY / 2 : 0;
			break;
		default:
			commit(w, s, 1 + (int)draw(25));
		}
	}
}

static void begin(struct world *w, uint64_t seed)
{
	chance = seed;
	configure(w);
	note_boot(w);
}

/* --- Files --- */

static void copy_file(const char *from, const char *to)
{
	int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	char block[65536];
	ssize_t n;

	assert_true(out >= 0);
	while (in >= 0 && (n = read(in, block, sizeof block)) > 0)
		assert_int_equal(write(out, block, (size_t)n), n);
	if (in >= 0)
		close(in);
	close(out);
}

static void copy_buffer(const struct world *w, const char *name)
{
	char from[256], to[256];

	snprintf(to, sizeof to, "%s/%s", w->box.folder, name);
	copy_file(w->box.path, to);
	snprintf(from, sizeof from, "%s-wal", w->box.path);
	snprintf(to, sizeof to, "%s/%s-wal", w->box.folder, name);
	copy_file(from, to);
}

static void assert_same_files(const char *a, const char *b)
{
	int fa = open(a, O_RDONLY), fb = open(b, O_RDONLY);
	char block_a[4096], block_b[4096];
	ssize_t n;

	assert_true(fa >= 0 && fb >= 0);
	do {
		n = read(fa, block_a, sizeof block_a);
		assert_int_equal(read(fb, block_b, sizeof block_b), n);
		assert_memory_equal(block_a, block_b, (size_t)n);
	} while (n > 0);
	close(fa);
	close(fb);
}

static int64_t size_of(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 ? st.st_size : 0;
}

static void write_at(const char *path, int64_t at, const void *data, size_t len)
{
	int fd = open(path, O_WRONLY);

	assert_true(fd >= 0);
	assert_int_equal(syscall(SYS_pwrite64, fd, data, len, at), len);
	close(fd);
}

/* --- What is outside the damage --- */

/* Rows of an intact copy that matter: chunks and parts, with what they hold. */
struct live_row {
	int64_t id;
	uint32_t crc;
	int source;
	uint64_t first, n;
	int64_t batch; /* of a part */
	bool staged, found;
	int64_t closing; /* of a staged one, the chunk that ends its fetch */
};

struct live {
	struct live_row *rows;
	size_t n;
};

static void add_live(struct live *live, const struct live_row *row)
{
	live->rows = realloc(live->rows, (live->n + 1) * sizeof *row);
	assert_non_null(live->rows);
	live->rows[live->n++] = *row;
}

static uint32_t blob_crc(const void *data, size_t len)
{
	return (uint32_t)crc32(0, data, (uInt)len);
}

static void list_chunks(sqlite3 *db, struct live *live)
{
	sqlite3_stmt *stmt;

	assert_int_equal(
	        sqlite3_prepare_v2(db,
	                           "SELECT id, source, records, last = 0 AND wall = 0, data, (SELECT min(id) FROM "
	                           "chunk AS c WHERE c.id >= chunk.id AND c.id < (chunk.id >> 40 << 40) + (1 << "
	                           "40) AND last > 0) FROM chunk WHERE records > 0",
	                           -1, &stmt, NULL),
	        SQLITE_OK);
	while (sqlite3_step(stmt) == SQLITE_ROW) {
		struct live_row row = {
			.id = sqlite3_column_int64(stmt, 0),
			.source = find_source((const char *)sqlite3_column_text(stmt, 1)),
			.n = (uint64_t)sqlite3_column_int64(stmt, 2),
			.staged = sqlite3_column_int(stmt, 3),
			.crc = blob_crc(sqlite3_column_blob(stmt, 4), (size_t)sqlite3_column_bytes(stmt, 4)),
			.closing = sqlite3_column_int64(stmt, 5),
		};

		row.first = (uint64_t)(row.id & SEQ_MAX);
		add_live(live, &row);
	}
	sqlite3_finalize(stmt);
}

static void list_parts(sqlite3 *db, struct live *live)
{
	sqlite3_stmt *stmt;

	assert_int_equal(
	        sqlite3_prepare_v2(db,
	                           "SELECT part.id, source, first, last - first + 1, data, batch.id FROM part JOIN "
	                           "batch ON batch.id = part.id >> 16 WHERE delivered = 0",
	                           -1, &stmt, NULL),
	        SQLITE_OK);
	while (sqlite3_step(stmt) == SQLITE_ROW) {
		struct live_row row = {
			.id = sqlite3_column_int64(stmt, 0),
			.source = find_source((const char *)sqlite3_column_text(stmt, 1)),
			.first = (uint64_t)sqlite3_column_int64(stmt, 2),
			.n = (uint64_t)sqlite3_column_int64(stmt, 3),
			.crc = blob_crc(sqlite3_column_blob(stmt, 4), (size_t)sqlite3_column_bytes(stmt, 4)),
			.batch = sqlite3_column_int64(stmt, 5),
		};

		add_live(live, &row);
	}
	sqlite3_finalize(stmt);
}

/* The buffer is closed. */
static void list_live(struct world *w, struct live *live)
{
	char path[256];
	sqlite3 *db;

	copy_buffer(w, "look");
	snprintf(path, sizeof path, "%s/look", w->box.folder);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	*live = (struct live){ .n = 0 };
	list_chunks(db, live);
	list_parts(db, live);
	sqlite3_close(db);
}

struct batch_seen {
	int64_t ids[8192];
	size_t n;
};

struct search {
	struct live *live;
	struct batch_seen *batches;
};

static int on_found(void *arg, const struct pages_row *row)
{
	struct search *search = arg;
	const struct cell *data = row->table == PAGES_CHUNK ? &row->cells[13] : &row->cells[1];
	uint32_t crc;

	if (row->table == PAGES_BATCH) {
		if (search->batches->n < 8192)
			search->batches->ids[search->batches->n++] = row->cells[0].number;
		return 0;
	}
	crc = blob_crc(data->data, data->len);
	for (size_t i = 0; i < search->live->n; i++) {
		struct live_row *l = &search->live->rows[i];

		if ((l->batch == 0) == (row->table == PAGES_CHUNK) && l->id == row->cells[0].number && l->crc == crc)
			l->found = true;
	}
	return 0;
}

static bool chunk_found(const struct live *live, int64_t id)
{
	for (size_t i = 0; i < live->n; i++) {
		if (live->rows[i].batch == 0 && live->rows[i].id == id)
			return live->rows[i].found;
	}
	return false;
}

static bool batch_found(const struct live *live, const struct batch_seen *batches, int64_t id)
{
	bool row = false;

	for (size_t i = 0; i < batches->n; i++)
		row |= batches->ids[i] == id;
	for (size_t i = 0; row && i < live->n; i++)
		row &= live->rows[i].batch != id || live->rows[i].found;
	return row;
}

/* Marks the records whose rows can still be found. */
static void mark_safe(struct world *w, struct live *live)
{
	struct batch_seen *batches = calloc(1, sizeof *batches);
	struct search search = { live, batches };
	struct pages *pages;

	assert_non_null(batches);
	for (size_t i = 0; i < live->n; i++)
		live->rows[i].found = false;
	for (int s = 0; s < N_SOURCES; s++) {
		for (uint64_t seq = 1; seq < w->next[s]; seq++)
			w->records[s][seq].safe = w->records[s][seq].here = false;
	}
	assert_int_equal(pages_open(w->box.path, &pages, &w->box.err), 0);
	assert_int_equal(pages_each(pages, PAGES_ALL, 1U << PAGES_CHUNK | 1U << PAGES_PART | 1U << PAGES_BATCH, 1 << 27,
	                            on_found, &search),
	                 0);
	pages_close(pages);
	for (size_t i = 0; i < live->n; i++) {
		const struct live_row *l = &live->rows[i];
		bool safe = l->batch != 0 ? batch_found(live, batches, l->batch)
		                          : l->found && (!l->staged || chunk_found(live, l->closing));

		for (uint64_t seq = l->first; safe && seq < l->first + l->n; seq++)
			w->records[l->source][seq].safe = true;
	}
	free(batches);
}

/* --- The oracle --- */

/* One line, with what it must be. */
static void check_line(struct world *w, const char *line, size_t len, int s, uint64_t *after)
{
	char begin[128], text[2400], device[64];
	unsigned long long seq, fetch;
	const char *data = memmem(line, len, ",\"data\":", 8);
	char boot[16];
	size_t text_len;

	snprintf(begin, sizeof begin,
	         "{\"source\":\"%s\",\"device\":\"%%63[^\"]\",\"boot\":\"%%15[^\"]\",\"seq\":%%llu,\"fetch\":%%llu,",
	         source_names[s]);
	assert_int_equal(sscanf(line, begin, device, boot, &seq, &fetch), 4);
	assert_string_equal(device, "pi-01");
	assert_true(seq > *after && seq < w->next[s]);
	*after = seq;
	text_len = write_text(text, w->records[s][seq].value);
	assert_non_null(data);
	data += 8;
	assert_int_equal((size_t)(line + len - data), text_len + 1); /* and a brace */
	assert_memory_equal(data, text, text_len);
	w->records[s][seq].here = true;
}

/* 0, or -EBADMSG where it is damaged still. */
static int read_source(struct world *w, int s)
{
	struct bytes lines;
	uint64_t next = 1, after = 0;
	int r;

	bytes_init(&lines, 64 << 20);
	for (uint64_t seq = 1; seq < w->next[s]; seq++)
		w->records[s][seq].here = false;
	do {
		uint64_t from = next;

		bytes_clear(&lines);
		r = queue_read(w->box.q, source_names[s], from, 1 << 20, &lines, &next, &w->box.err);
		for (const char *at = (const char *)lines.data, *end = at + lines.len, *feed; r == 0 && at < end;
		     at = feed + 1) {
			feed = memchr(at, '\n', (size_t)(end - at));
			assert_non_null(feed);
			check_line(w, at, (size_t)(feed - at), s, &after);
		}
	} while (r == 0 && lines.len > 0);
	bytes_done(&lines);
	if (r == -ENOENT)
		return 0; /* nobody knows the source any more */
	if (r < 0 && r != -EBADMSG)
		fail_msg("%s", w->box.err.text);
	return r;
}

/* All that has to be delivered is whole. */
static int read_objects(struct world *w, int store)
{
	struct batch batch = { .id = 0 };
	struct sha256 hash;
	struct bytes part;
	uint8_t digest[SHA256_SIZE];
	int r, n;

	bytes_init(&part, 1 << 20);
	while ((r = queue_next_delivery(w->box.q, store_names[store], batch.id, &batch, &w->box.err)) == 0) {
		sha256_init(&hash);
		for (n = 0; r == 0; n++) {
			bytes_clear(&part);
			r = queue_read_part(w->box.q, batch.id, n, &part, &w->box.err);
			if (r == 0)
				sha256_add(&hash, part.data, part.len);
		}
		sha256_finish(&hash, digest);
		if (r != -ENOENT)
			break;
		assert_memory_equal(digest, batch.sha256, SHA256_SIZE);
	}
	bytes_done(&part);
	if (r < 0 && r != -EBADMSG && r != -ENOENT)
		fail_msg("%s", w->box.err.text);
	return r == -ENOENT ? 0 : r;
}

static int read_all(struct world *w)
{
	int r = 0;

	for (int s = 0; r == 0 && s < N_SOURCES; s++)
		r = read_source(w, s);
	for (int store = 0; r == 0 && store < 2; store++)
		r = read_objects(w, store);
	return r;
}

/* What the books of a store say of each seq; 0: nothing. */
static int read_books(struct world *w, int store, uint8_t (*kinds)[RECORDS + 1])
{
	struct queue_range ranges[16], after;
	int n, total = 0;

	memset(kinds, 0, N_SOURCES * sizeof *kinds);
	while ((n = queue_books(w->box.q, store_names[store], 0, total > 0 ? &after : NULL, ranges, 16, &w->box.err)) >
	       0) {
		for (int i = 0; i < n; i++) {
			int s = find_source(ranges[i].source);

			for (uint64_t seq = ranges[i].first_seq; seq <= ranges[i].last_seq; seq++) {
				assert_true(seq <= RECORDS);
				if (kinds[s][seq] != 0)
					fail_msg("%s %llu is in the books twice", source_names[s],
					         (unsigned long long)seq);
				kinds[s][seq] = (uint8_t)(1 + ranges[i].kind);
			}
		}
		after = ranges[n - 1];
		total += n;
	}
	if (n < 0 && n != -EBADMSG)
		fail_msg("%s", w->box.err.text);
	return n;
}

struct after {
	uint64_t lost, again, here, silent; /* records */
	uint64_t open_ends;
};

/* Is a loss without an end booked that begins no later? */
static bool has_open_end(struct world *w, int s, uint64_t seq)
{
	struct queue_damage damage, *after = NULL;

	while (queue_next_damage(w->box.q, after, &damage, &w->box.err) == 1) {
		after = &damage;
		if (strcmp(damage.source, source_names[s]) == 0 && damage.last_seq == 0 && damage.first_seq <= seq)
			return true;
	}
	return false;
}

static void check_record(struct world *w, int s, uint64_t seq, uint64_t next, uint8_t (*kinds)[N_SOURCES][RECORDS + 1],
                         bool began[2], struct after *after)
{
	const struct record *r = &w->records[s][seq];

	if (r->safe && !r->here && r->stores != ALL && !r->lost)
		fail_msg("%s %llu of %llu is lost, and its row is there", source_names[s], (unsigned long long)seq,
		         (unsigned long long)w->next[s]);
	after->here += r->here;
	after->lost += !r->here && r->stores != ALL && !r->lost;
	after->again += r->here && r->stores == ALL;
	if (seq >= next) {
		assert_true(!r->here);
		return;
	}
	for (int store = 0; store < 2; store++) {
		uint8_t kind = kinds[store][s][seq];

		began[store] |= kind != 0;
		/* Of a store that has never had anything nobody can tell since when it is one. */
		if (kind == 0 && (began[store] || kinds[!store][s][seq] == 0))
			fail_msg("%s %llu is in no book of %s (here: %d, stores: %d, lost: %d)", source_names[s],
			         (unsigned long long)seq, store_names[store], r->here, r->stores, r->lost);
		if (kind == 1 + QUEUE_DELIVERED)
			assert_true(r->stores >> store & 1);
		if (kind == 1 + QUEUE_WAITING || kind == 1 + QUEUE_UNSEALED)
			assert_true(r->here);
		if (kind == 1 + QUEUE_LOST && r->here && !(r->stores >> store & 1))
			fail_msg("%s %llu is here, and booked as lost for %s", source_names[s], (unsigned long long)seq,
			         store_names[store]);
	}
}

/* Three records more of each source. -EBADMSG: there is damage still. */
static int commit_more(struct world *w, bool salvaged)
{
	for (int s = 0; s < N_SOURCES; s++) {
		struct fetch *fetch = make_fetch(w, s, 3, CHUNK_FULL);
		uint64_t here = 0;
		int r = queue_commit(w->box.q, fetch, &w->box.err);
		bool safe = false;

		if (r < 0 && r != -EBADMSG)
			fail_msg("%s", w->box.err.text);
		for (uint64_t seq = 1; seq < w->next[s]; seq++) {
			here = w->records[s][seq].here ? seq : here;
			safe |= w->records[s][seq].safe;
		}
		for (uint64_t i = 0; r == 0 && i < 3; i++)
			w->records[s][fetch->first_seq + i] = (struct record){ .value = w->values - 2 + (uint32_t)i };
		if (r == 0)
			assert_true(fetch->first_seq > here);
		/* Where all that ever told of a source is gone, so is its name. */
		if (r == 0 && fetch->first_seq < w->next[s] && (salvaged || !w->cut) && (safe || fetch->first_seq > 1))
			assert_true(has_open_end(w, s, fetch->first_seq));
		if (r == 0)
			w->next[s] = fetch->first_seq + 3;
		fetch_free(fetch);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Goes on with it: nothing has a number twice, and no name comes again. 0, -EBADMSG. */
static int check_going_on(struct world *w, bool salvaged)
{
	struct queue_view *view = queue_view(w->box.q);
	struct batch newest = { .id = 0 };
	int r = queue_batches(w->box.q, &newest, 1, &w->box.err);

	for (size_t i = 0; salvaged && i < w->n_boots; i++)
		assert_string_not_equal(view->boot, w->boots[i]);
	queue_view_free(view);
	if (r < 0)
		return r;
	w->highest_batch = newest.id;
	r = commit_more(w, salvaged);
	w->at_ms += DAY; /* so that all is due */
	while (r == 0 && (r = box_seal(&w->box, w->at_ms, true)) == 1) {
		assert_true(w->box.batch.id > w->highest_batch);
		w->highest_batch = w->box.batch.id;
		r = 0;
	}
	return r == 0 ? read_all(w) : r;
}

/* Opens, reads, and opens again where reading finds what opening did not. How often it was salvaged. */
static int start(struct world *w, struct live *live)
{
	struct box *box = &w->box;
	int r, salvaged = 0;
	bool opened = false;

	box->q = queue_new(box->path, &box->identity);
	assert_non_null(box->q);
	configure(w);
	for (;;) {
		r = queue_start(box->q, true, &box->err);
		if (r < 0)
			fail_msg("%d %s", r, box->err.text);
		w->at_once = salvaged == 0 && r == 1 && queue_last_salvage(box->q)->at_ms > 0 && !opened;
		opened |= r == 0;
		salvaged += r;
		assert_true(salvaged <= 1);
		r = read_all(w);
		if (r == 0)
			return salvaged;
		assert_false(queue_is_sound(box->q));
		/* It has written since it was opened: over what was left of older frames, too. */
		if (live)
			mark_safe(w, live);
	}
}

static int check_books(struct world *w, bool salvaged, struct after *ret_after)
{
	static uint8_t kinds[2][N_SOURCES][RECORDS + 1];
	struct after after = { .open_ends = queue_last_salvage(w->box.q)->open_ends };

	for (int store = 0; store < 2; store++) {
		if (read_books(w, store, kinds[store]) < 0)
			return -EBADMSG;
	}
	for (int s = 0; s < N_SOURCES; s++) {
		const struct source *source = queue_find_source(w->box.q, source_names[s]);
		uint64_t next = source ? source->now.seq : 1;
		bool began[2] = { false };

		for (uint64_t seq = 1; seq < w->next[s]; seq++)
			check_record(w, s, seq, next, kinds, began, &after);
		assert_true(salvaged || next == w->next[s] || w->cut);
		after.silent += salvaged ? 0 : w->next[s] - next;
	}
	*ret_after = after;
	return 0;
}

/* How often it was salvaged: what neither opening nor reading has found may still turn up. */
static int check_after(struct world *w, int salvaged, struct live *live, struct after *ret_after)
{
	int r = check_books(w, salvaged > 0, ret_after);

	if (r == 0)
		r = check_going_on(w, salvaged > 0);
	if (r == -EBADMSG && salvaged == 0) {
		assert_false(queue_is_sound(w->box.q));
		if (live)
			mark_safe(w, live);
		assert_int_equal(queue_start(w->box.q, true, &w->box.err), 1);
		assert_int_equal(read_all(w), 0);
		salvaged = 1;
		r = check_books(w, true, ret_after);
		if (r == 0)
			r = check_going_on(w, true);
	}
	if (r < 0)
		fail_msg("%s", w->box.err.text);
	note_boot(w);
	return salvaged;
}

/* What was set aside is the damaged one, byte for byte. */
static void check_aside(struct world *w)
{
	const struct queue_salvage *salvage = queue_last_salvage(w->box.q);
	char path[1024], copy[256];

	assert_true(salvage->at_ms > 0);
	assert_non_null(strstr(salvage->aside, "buffer.db.damaged-"));
	snprintf(copy, sizeof copy, "%s/damaged", w->box.folder);
	assert_same_files(salvage->aside, copy);
	snprintf(path, sizeof path, "%s-wal", salvage->aside);
	snprintf(copy, sizeof copy, "%s/damaged-wal", w->box.folder);
	if (size_of(copy) > 0)
		assert_same_files(path, copy);
}

/* The buffer is closed and damaged: all that must hold then. */
static int survive(struct world *w, struct live *live, struct after *ret_after)
{
	int salvaged;

	mark_safe(w, live);
	copy_buffer(w, "damaged");
	salvaged = start(w, live);
	if (salvaged && w->at_once)
		check_aside(w);
	salvaged = check_after(w, salvaged, live, ret_after);
	free(live->rows);
	return salvaged;
}

/* --- Damage by chance --- */

static void wal_path(const struct world *w, char path[256])
{
	snprintf(path, 256, "%s-wal", w->box.path);
}

static void damage_bytes(const char *path, int n)
{
	int64_t size = size_of(path);
	unsigned char byte;

	for (int i = 0; size > 0 && i < n; i++) {
		byte = (unsigned char)draw(256);
		write_at(path, draw((uint32_t)size), &byte, 1);
	}
}

static void damage_pages(const char *path, int n, bool noise)
{
	int64_t pages = size_of(path) / PAGE;
	unsigned char page[PAGE] = { 0 };

	for (int i = 0; pages > 0 && i < n; i++) {
		for (size_t j = 0; noise && j < PAGE; j++)
			page[j] = (unsigned char)draw(256);
		write_at(path, (int64_t)draw((uint32_t)pages) * PAGE, page, PAGE);
	}
}

static void damage_length(const char *path)
{
	int64_t size = size_of(path);

	if (size > 0)
		assert_int_equal(truncate(path, draw((uint32_t)size)), 0);
}

/* True: it was the WAL, whose end can be cut off without a trace. */
static bool damage(struct world *w)
{
	char wal[256];
	uint32_t kind = draw(10);

	wal_path(w, wal);
	switch (kind) {
	case 0:
		damage_bytes(w->box.path, 1);
		break;
	case 1:
		damage_bytes(w->box.path, 64);
		break;
	case 2:
		damage_bytes(wal, 1);
		break;
	case 3:
		damage_bytes(wal, 64);
		break;
	case 4:
		damage_pages(w->box.path, 1 + (int)draw(5), false);
		break;
	case 5:
		damage_pages(w->box.path, 1 + (int)draw(5), true);
		break;
	case 6:
		damage_pages(wal, 1 + (int)draw(5), draw(2));
		break;
	case 7:
		damage_length(w->box.path);
		break;
	case 8:
		damage_length(wal);
		break;
	default:
		damage_pages(w->box.path, (int)(size_of(w->box.path) / PAGE / 2), draw(2));
		break;
	}
	return kind == 2 || kind == 3 || kind == 6 || kind == 8;
}

static void test_damage_by_chance(void **state)
{
	const char *rounds = getenv("MILLRACE_DAMAGES"), *first = getenv("MILLRACE_SEED");
	int n = rounds ? atoi(rounds) : 200, seed = first ? atoi(first) : 1, salvaged = 0;
	uint64_t lost = 0, again = 0, here = 0, silent = 0;
	struct live live;
	struct after after;

	for (int i = 0; i < n; i++, seed++) {
		struct world *w = *state;

		if (getenv("MILLRACE_VERBOSE"))
			printf("seed %d\n", seed);
		begin(w, (uint64_t)seed);
		go_on(w, 30 + (int)draw(200));
		box_close(&w->box);
		list_live(w, &live);
		w->cut = damage(w);
		salvaged += survive(w, &live, &after);
		lost += after.lost;
		again += w->at_once ? after.again : 0; /* what is kept after its delivery is not meant */
		here += after.here;
		silent += after.silent;
		tear_down(state);
		set_up(state);
	}
	print_message("%d damages, %d salvages; records: %llu here, %llu lost, %llu of them cut off, %llu again\n", n,
	              salvaged, (unsigned long long)here, (unsigned long long)lost, (unsigned long long)silent,
	              (unsigned long long)again);
}

/* What is booked as lost counts as lost for whoever has it not, from now on; and what was brought back is here. */
static void forget_lost(struct world *w)
{
	for (int s = 0; s < N_SOURCES; s++) {
		for (uint64_t seq = 1; seq < w->next[s]; seq++) {
			struct record *r = &w->records[s][seq];

			r->lost |= !r->here && r->stores != ALL;
		}
	}
}

/* --- Damage of each kind --- */

/* Numbers of pages, by SQL on a copy. */
static void ask_pages(const struct world *w, const char *sql, int64_t *ret_pages, size_t *ret_n, size_t most)
{
	char path[256];
	sqlite3_stmt *stmt;
	sqlite3 *db;

	copy_buffer(w, "pages");
	snprintf(path, sizeof path, "%s/pages", w->box.folder);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), SQLITE_OK);
	*ret_n = 0;
	while (*ret_n < most && sqlite3_step(stmt) == SQLITE_ROW)
		ret_pages[(*ret_n)++] = sqlite3_column_int64(stmt, 0);
	sqlite3_finalize(stmt);
	sqlite3_close(db);
}

/* A buffer with some of everything, all of it in the file itself, and nothing in the WAL; closed. */
static void fill(struct world *w, struct live *live)
{
	char wal[256];
	sqlite3 *db;

	begin(w, 99);
	for (int s = 0; s < N_SOURCES; s++) {
		for (int i = 0; i < 30; i++)
			commit(w, s, 8);
		seal_all(w);
		commit_staged(w, s, 60);
	}
	for (int i = 0; i < 2; i++)
		deliver(w, 0);
	deliver(w, 1);
	seal_one(w);
	seal_one(w);
	drop(w);
	for (int s = 0; s < N_SOURCES; s++) {
		for (int i = 0; i < 10; i++)
			commit(w, s, 8);
	}
	assert_int_equal(queue_set_store_place(w->box.q, "lake", "http://lake/", &w->box.err), 0);
	db = w->box.q->db;
	assert_int_equal(sqlite3_wal_checkpoint_v2(db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL), SQLITE_OK);
	box_close(&w->box);
	wal_path(w, wal);
	assert_int_equal(size_of(wal), 0);
	list_live(w, live);
}

static void zero_page(const struct world *w, int64_t page)
{
	static const char zeros[PAGE];

	write_at(w->box.path, (page - 1) * PAGE, zeros, PAGE);
}

/* Each leaf of each table and index, one after the other, and the first page of all. */
static void test_any_page_gone(void **state)
{
	struct world *w = *state;
	struct after after;
	struct live live;
	char backup[256];
	int64_t pages;

	fill(w, &live);
	free(live.rows);
	pages = size_of(w->box.path) / PAGE;
	assert_true(pages > 20);
	snprintf(backup, sizeof backup, "%s/backup", w->box.folder);
	copy_file(w->box.path, backup);
	for (int64_t page = 1; page <= pages; page++) {
		tear_down(state);
		set_up(state);
		w = *state;
		fill(w, &live);
		zero_page(w, page);
		if (survive(w, &live, &after) == 0)
			continue;
		assert_true(queue_last_salvage(w->box.q)->at_ms > 0);
	}
}

static void test_the_first_page_gone_loses_nothing(void **state)
{
	struct world *w = *state;
	struct after after;
	struct live live;

	fill(w, &live);
	zero_page(w, 1);
	assert_int_equal(survive(w, &live, &after), 1);
	assert_int_equal(after.lost, 0);
	assert_int_equal(after.again, 0);
	assert_int_equal(after.open_ends, N_SOURCES);
}

static void test_an_inner_page_gone_loses_nothing(void **state)
{
	struct world *w = *state;
	struct after after;
	struct live live;
	int64_t pages[64];
	size_t n;

	fill(w, &live);
	ask_pages(w, "SELECT rootpage FROM sqlite_schema WHERE name IN ('chunk', 'part')", pages, &n, 64);
	assert_int_equal(n, 2);
	zero_page(w, pages[0]);
	zero_page(w, pages[1]);
	assert_int_equal(survive(w, &live, &after), 1);
	assert_int_equal(after.lost, 0);
	assert_int_equal(after.again, 0);
}

/* Where the n-th such text stands in the file; -1: there are not so many. */
static int64_t find_text(const struct world *w, const char *text, int n)
{
	int64_t size = size_of(w->box.path), at = -1;
	char *file = malloc((size_t)size), *found = file;
	int fd = open(w->box.path, O_RDONLY);

	assert_non_null(file);
	assert_int_equal(pread(fd, file, (size_t)size, 0), size);
	close(fd);
	while (n-- > 0 && found && (found = memmem(found, (size_t)(file + size - found), text, strlen(text)))) {
		at = found - file;
		found++;
	}
	if (!found)
		at = -1;
	free(file);
	return at;
}

/* A key that is none any more hides all rows of its table, and SQLite finds nothing wrong with that. */
static void test_a_schema_that_says_something_else(void **state)
{
	struct world *w;
	struct after after;
	struct live live;
	int64_t at;
	int salvaged = 0;

	for (int n = 1;; n++) {
		w = *state;
		fill(w, &live);
		at = find_text(w, "INTEGER PRIMARY KEY", n);
		if (at < 0)
			break;
		write_at(w->box.path, at + 15, "\xff", 1);
		salvaged += survive(w, &live, &after); /* some stand where earlier versions of a table were */
		assert_int_equal(after.lost, 0);
		assert_int_equal(queue_last_salvage(w->box.q)->lost_records, 0);
		tear_down(state);
		set_up(state);
	}
	assert_true(salvaged >= 4); /* source, chunk, batch, part */
	free(live.rows);
}

/* Whatever a byte of the header says: it starts, and nothing is lost, since no record stands there. */
static void test_any_byte_of_the_header(void **state)
{
	static struct world filled;
	struct world *w = *state;
	struct after after;
	struct live live;
	unsigned char header[100], byte;
	char backup[256], wal[256];
	int fd;

	fill(w, &live);
	free(live.rows);
	filled = *w;
	wal_path(w, wal);
	snprintf(backup, sizeof backup, "%s/backup", w->box.folder);
	copy_file(w->box.path, backup);
	fd = open(backup, O_RDONLY);
	assert_int_equal(pread(fd, header, sizeof header, 0), sizeof header);
	close(fd);
	for (size_t at = 0; at < sizeof header; at++) {
		box_close(&w->box);
		*w = filled;
		assert_int_equal(unlink(wal), 0);
		copy_file(backup, w->box.path);
		list_live(w, &live);
		byte = header[at] ^ (unsigned char)(at % 2 ? 0xff : 0x01);
		write_at(w->box.path, (int64_t)at, &byte, 1);
		if (survive(w, &live, &after) > 0)
			assert_int_equal(unlink(queue_last_salvage(w->box.q)->aside), 0);
		if (after.lost > 0)
			fail_msg("byte %zu", at);
	}
}

/* Nothing but the pages of one table is left. */
static void test_one_table_left(void **state)
{
	static const char *const names[] = { "chunk", "part", "batch", "source", "book", "delivery" };
	struct world *w;
	struct after after;
	struct live live;
	unsigned char kept[PAGE];
	int64_t size;

	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		char sql[128];
		int64_t pages[256], page = 1;
		size_t n, k = 0;
		int fd;

		w = *state;
		fill(w, &live);
		snprintf(sql, sizeof sql, "SELECT pageno FROM dbstat WHERE name = '%s' ORDER BY pageno", names[i]);
		ask_pages(w, sql, pages, &n, 256);
		if (n == 0)
			skip(); /* SQLite without dbstat */
		size = size_of(w->box.path) / PAGE;
		fd = open(w->box.path, O_RDONLY);
		for (; page <= size; page++) {
			while (k < n && pages[k] < page)
				k++;
			assert_int_equal(pread(fd, kept, PAGE, (page - 1) * PAGE), PAGE);
			if (k == n || pages[k] != page)
				zero_page(w, page);
		}
		close(fd);
		assert_int_equal(survive(w, &live, &after), 1);
		tear_down(state);
		set_up(state);
	}
}

/* A byte of a chunk: that chunk is gone, and booked; all others are there. */
static void test_a_chunks_byte(void **state)
{
	struct world *w = *state;
	const struct live_row *row = NULL;
	struct queue_damage damage;
	struct after after;
	struct live live;
	unsigned char *file;
	sqlite3_stmt *stmt;
	sqlite3 *db;
	char path[256];
	int64_t size;
	uint64_t n;
	int fd;

	fill(w, &live);
	for (size_t i = 0; i < live.n; i++) {
		if (live.rows[i].batch == 0 && !live.rows[i].staged && live.rows[i].source == 1 && !row)
			row = &live.rows[i];
	}
	assert_non_null(row);
	n = row->n;
	snprintf(path, sizeof path, "%s/look", w->box.folder);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(db, "SELECT data FROM chunk WHERE id = ?", -1, &stmt, NULL), SQLITE_OK);
	sqlite3_bind_int64(stmt, 1, row->id);
	assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
	size = size_of(w->box.path);
	file = malloc((size_t)size);
	assert_non_null(file);
	fd = open(w->box.path, O_RDWR);
	assert_int_equal(pread(fd, file, (size_t)size, 0), size);
	for (unsigned char *at = file; (at = memmem(at, (size_t)(file + size - at), sqlite3_column_blob(stmt, 0), 40));
	     at++)
		write_at(w->box.path, at - file + 20, "\xff\xff", 2);
	close(fd);
	free(file);
	sqlite3_finalize(stmt);
	sqlite3_close(db);
	assert_int_equal(survive(w, &live, &after), 1);
	assert_int_equal(after.lost, n);
	assert_int_equal(after.again, 0);
	assert_int_equal(queue_last_salvage(w->box.q)->lost_records, n);
	assert_int_equal(box_view(&w->box, "parking").damaged_records, n);
	damage.last_seq = 0;
	for (const struct queue_damage *before = NULL; damage.last_seq == 0; before = &damage)
		assert_int_equal(queue_next_damage(w->box.q, before, &damage, &w->box.err), 1);
	assert_string_equal(damage.source, "parking");
	assert_int_equal(damage.last_seq - damage.first_seq + 1, n);
}

/* The page, from 1, that holds these bytes. */
static uint32_t find_page(const struct world *w, const void *bytes, size_t len)
{
	int64_t size = size_of(w->box.path), page = 0;
	unsigned char *file = malloc((size_t)size);
	int fd = open(w->box.path, O_RDONLY);

	assert_non_null(file);
	assert_int_equal(pread(fd, file, (size_t)size, 0), size);
	close(fd);
	for (int64_t at = 0; page == 0 && at < size; at += PAGE) {
		if (memmem(file + at, PAGE, bytes, len))
			page = at / PAGE + 1;
	}
	free(file);
	assert_true(page > 0);
	return (uint32_t)page;
}

/* Where pages of a batch that all stores have are others' now, its end is not the end of these. */
static void test_a_chain_that_leads_elsewhere(void **state)
{
	struct world *w = *state;
	struct box *box = &w->box;
	struct live live;
	struct bytes part;
	struct after after;
	uint32_t page, other;
	sqlite3_stmt *stmt;
	sqlite3 *db;
	char path[256];

	begin(w, 3);
	commit(w, 0, 300);
	seal_all(w);
	bytes_init(&part, 1 << 20);
	assert_int_equal(queue_read_part(box->q, 1, 0, &part, &box->err), 0);
	assert_true(deliver(w, 0) && deliver(w, 1));
	commit(w, 1, 300);
	commit(w, 2, 3);
	sqlite3_wal_checkpoint_v2(box->q->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
	box_close(box);
	list_live(w, &live);
	snprintf(path, sizeof path, "%s/look", box->folder);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(db, "SELECT data FROM chunk WHERE source = 'parking'", -1, &stmt, NULL),
	                 SQLITE_OK);
	assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
	assert_true(sqlite3_column_bytes(stmt, 0) > 4 * PAGE);
	other = htobe32(find_page(w, (const char *)sqlite3_column_blob(stmt, 0) + 2 * PAGE, 64));
	sqlite3_finalize(stmt);
	sqlite3_close(db);
	page = find_page(w, part.data + 2 * PAGE, 64);
	bytes_done(&part);
	write_at(box->path, (page - 1) * (int64_t)PAGE, &other, sizeof other);
	mark_safe(w, &live);
	box_open(box);
	configure(w);
	assert_int_equal(queue_last_salvage(box->q)->at_ms, 0);
	queue_expire(box->q, NOON + DAY, 0, &box->err);
	for (int i = 0; i < 20 && queue_is_sound(box->q); i++)
		commit(w, 2, 50);
	if (!queue_is_sound(box->q))
		assert_int_equal(queue_start(box->q, true, &box->err), 1);
	assert_int_equal(read_all(w), 0);
	assert_int_equal(check_books(w, true, &after), 0);
	assert_int_equal(after.lost, 0);
	free(live.rows);
}

/* The closed buffer's first batch is broken in the middle. */
static void break_batch(struct world *w, struct live *live, struct batch *ret_whole)
{
	struct bytes part;
	int64_t size;
	unsigned char *file;
	int fd;

	begin(w, 7);
	box_route(&w->box, 2, MAX_BYTES, 100000);
	for (int i = 0; i < 900; i++)
		commit(w, 0, 20);
	seal_all(w);
	assert_int_equal(queue_next_delivery(w->box.q, "lake", 0, ret_whole, &w->box.err), 0);
	bytes_init(&part, 1 << 20);
	assert_int_equal(queue_read_part(w->box.q, ret_whole->id, 1, &part, &w->box.err), 0);
	sqlite3_wal_checkpoint_v2(w->box.q->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
	box_close(&w->box);
	list_live(w, live);
	size = size_of(w->box.path);
	file = malloc((size_t)size);
	assert_non_null(file);
	fd = open(w->box.path, O_RDONLY);
	assert_int_equal(pread(fd, file, (size_t)size, 0), size);
	close(fd);
	/* Its chunks are still there in free pages, and would do as well. */
	for (int64_t page = 0; page < size / PAGE; page++) {
		if (file[page * PAGE] == 0x0d && page > 0 && memmem(file + page * PAGE, PAGE, "pi-01", 5) &&
		    !memmem(file + page * PAGE, PAGE, "source=", 7))
			zero_page(w, page + 1);
	}
	for (int64_t at = 0; at + 2000 < size; at++) {
		if (memcmp(file + at, part.data + 60000, 512) == 0)
			write_at(w->box.path, at, "wrong", 5);
	}
	free(file);
	bytes_done(&part);
}

/* What is before the place is still delivered, under a name of its own. */
static void test_a_broken_batch(void **state)
{
	struct world *w = *state;
	struct batch batch = { .id = 0 }, whole;
	struct after after;
	struct live live;

	break_batch(w, &live, &whole);
	assert_int_equal(survive(w, &live, &after), 1);
	assert_int_equal(queue_next_delivery(w->box.q, "lake", 0, &batch, &w->box.err), 0);
	assert_true(batch.id > whole.id);
	assert_int_equal(batch.first_seq, whole.first_seq);
	assert_true(batch.last_seq > whole.first_seq + 100 && batch.last_seq < whole.last_seq);
	assert_string_not_equal(batch.key, whole.key);
	assert_true(after.here > 100 && after.lost > 100);
}

/* Nor is the id of what the salvage itself made used again, once that is delivered and deleted. */
static void test_an_id_is_used_once(void **state)
{
	struct world *w = *state;
	struct batch whole, newest;
	struct live live;

	break_batch(w, &live, &whole);
	mark_safe(w, &live);
	assert_int_equal(start(w, &live), 1);
	free(live.rows);
	assert_int_equal(queue_batches(w->box.q, &newest, 1, &w->box.err), 1);
	assert_true(newest.id > whole.id);
	while (deliver(w, 0) || deliver(w, 1))
		;
	while (queue_expire(w->box.q, NOON + DAY, 0, &w->box.err) == 1)
		;
	box_reopen(&w->box);
	configure(w);
	assert_int_equal(queue_batches(w->box.q, &whole, 1, &w->box.err), 0);
	commit(w, 1, 3);
	assert_int_equal(box_seal(&w->box, w->at_ms, true), 1);
	assert_true(w->box.batch.id > newest.id);
}

/* --- The WAL --- */

/* Where its n-th frame begins. */
static int64_t frame_at(int64_t n)
{
	return 32 + n * (24 + PAGE);
}

/* SQLite would drop what comes behind it without a word. */
static void test_a_flip_in_the_middle_of_the_wal(void **state)
{
	struct world *w = *state;
	struct after after;
	struct live live;
	char wal[256];

	begin(w, 3);
	wal_path(w, wal);
	for (int i = 0; i < 60; i++)
		commit(w, i % N_SOURCES, 5);
	box_close(&w->box);
	list_live(w, &live);
	write_at(wal, frame_at(60) + 2000, "\x55\xaa\x55", 3);
	assert_int_equal(survive(w, &live, &after), 1);
	assert_true(after.lost <= 5);
	assert_true(after.here >= 60 * 5 - 5);
}

/* The last transaction was acknowledged: nothing tells it from one that was cut off but its rows. */
static void test_a_flip_in_the_last_transaction(void **state)
{
	for (int large = 0; large < 2; large++) {
		struct world *w = *state;
		struct queue_source_view view;
		char wal[256];
		int64_t last;

		begin(w, 3);
		wal_path(w, wal);
		commit(w, 0, 5);
		commit(w, 1, 5);
		if (large)
			commit_staged(w, 0, 60);
		else
			commit(w, 0, 5);
		box_close(&w->box);
		/* The last frame that is not of the chunk's leaf: its checksum alone. */
		for (last = (size_of(wal) - 32) / (24 + PAGE) - 1; last > 0; last--) {
			unsigned char head[24];
			int fd = open(wal, O_RDONLY);

			assert_int_equal(pread(fd, head, 24, frame_at(last)), 24);
			close(fd);
			if (head[7] != 0)
				break;
		}
		write_at(wal, frame_at(last) + 16, "\x55\xaa\x55", 3);
		assert_int_equal(start(w, NULL), 0);
		view = box_view(&w->box, "a");
		assert_int_equal(view.records, w->next[0] - 1);
		assert_int_equal(view.fetches, 2);
		for (uint64_t seq = 1; seq < w->next[0]; seq++)
			assert_true(w->records[0][seq].here);
		box_reopen(&w->box);
		assert_int_equal(box_view(&w->box, "a").records, w->next[0] - 1);
		tear_down(state);
		set_up(state);
	}
}

/* Puts the first `len` bytes of `from` over those of the WAL. */
static void lay_over(struct world *w, const char *from, int64_t len)
{
	char wal[256];
	char *data = malloc((size_t)len);
	int fd = open(from, O_RDONLY);

	assert_non_null(data);
	assert_int_equal(pread(fd, data, (size_t)len, 0), len);
	close(fd);
	wal_path(w, wal);
	write_at(wal, 0, data, (size_t)len);
	free(data);
}

/*
 * Two power cuts, one after the other: behind what is left of the second one's transaction stands the first one's, with
 * the ids and the number that would follow. A fetch is not made of two answers.
 */
static void test_a_torn_tail_of_two_power_cuts(void **state)
{
	struct world *w = *state;
	char wal[256], before[256], first[256], second[256];
	struct fetch *fetch;
	int64_t len;
	int n;

	begin(w, 3);
	wal_path(w, wal);
	snprintf(before, sizeof before, "%s/before-wal", w->box.folder);
	snprintf(first, sizeof first, "%s/first", w->box.folder);
	snprintf(second, sizeof second, "%s/second", w->box.folder);
	commit(w, 0, 5);
	copy_file(wal, before);
	fetch = make_fetch(w, 0, 200, 3000);
	n = (int)(fetch->first->n + fetch->first->next->n);
	assert_int_equal(queue_commit(w->box.q, fetch, &w->box.err), 0);
	fetch_free(fetch);
	w->values -= 200;
	box_close(&w->box);
	copy_file(wal, first);
	/* The same moment again, and an answer that ends where a chunk of the first one's did. */
	copy_file(before, wal);
	box_open(&w->box);
	configure(w);
	fetch = make_fetch(w, 0, n, 3000);
	assert_int_equal(queue_commit(w->box.q, fetch, &w->box.err), 0);
	note_fetch(w, 0, fetch);
	fetch_free(fetch);
	box_close(&w->box);
	copy_file(wal, second);
	/* Its frames over those of the first one; and the mark of its commit is torn. */
	len = size_of(second);
	assert_true(len < size_of(first));
	copy_file(first, wal);
	lay_over(w, second, len);
	write_at(wal, len - 24 - PAGE + 16, "\x55\xaa\x55", 3);
	assert_int_equal(start(w, NULL), 0);
	assert_int_equal(box_view(&w->box, "a").records, w->next[0] - 1);
	for (uint64_t seq = 1; seq < w->next[0]; seq++)
		assert_true(w->records[0][seq].here);
}

/* The text of a row no longer is what its checksum says, wherever it stands. */
static void damage_text(const char *path, const char *text)
{
	int64_t size = size_of(path);
	char *data = malloc((size_t)size), *at = data;
	int fd = open(path, O_RDONLY);

	assert_non_null(data);
	assert_int_equal(pread(fd, data, (size_t)size, 0), size);
	close(fd);
	while ((at = memmem(at, (size_t)(size - (at - data)), text, strlen(text)))) {
		write_at(path, at - data, "\x55", 1);
		at++;
	}
	free(data);
}

/* Two new sources in one transaction that is torn: the second one's rows are there, and its id is not the next one. */
static void test_a_torn_tail_of_new_sources(void **state)
{
	struct world *w = *state;
	struct fetch *first;
	char wal[256];

	begin(w, 3);
	wal_path(w, wal);
	first = make_fetch(w, 2, 5, CHUNK_FULL);
	first->next = make_fetch(w, 0, 5, CHUNK_FULL);
	assert_int_equal(queue_commit(w->box.q, first, &w->box.err), 0);
	fetch_free(first->next);
	fetch_free(first);
	box_close(&w->box);
	damage_text(wal, source_names[2]);
	assert_int_equal(start(w, NULL), 0);
	for (int s = N_SOURCES - 1; s >= 0; s--)
		commit(w, s, 5);
	box_reopen(&w->box);
	for (int s = 0; s < N_SOURCES; s++)
		assert_int_equal(box_view(&w->box, source_names[s]).records, 5);
}

/* Two power cuts: the first one's batch was never committed, and its id is of another source's batch now. */
static void test_a_batch_of_the_power_cut_before(void **state)
{
	struct world *w = *state;
	char wal[256], before[256], first[256], second[256];

	begin(w, 3);
	wal_path(w, wal);
	snprintf(before, sizeof before, "%s/before-wal", w->box.folder);
	snprintf(first, sizeof first, "%s/first", w->box.folder);
	snprintf(second, sizeof second, "%s/second", w->box.folder);
	commit(w, 2, 0);
	commit(w, 0, 5);
	copy_file(wal, before);
	for (int i = 0; i < 30; i++)
		commit(w, 2, 0);
	seal_one(w);
	assert_string_equal(w->box.batch.source, source_names[0]);
	box_close(&w->box);
	copy_file(wal, first);
	copy_file(before, wal);
	box_open(&w->box);
	configure(w);
	commit(w, 2, 5);
	seal_one(w);
	assert_string_equal(w->box.batch.source, source_names[2]);
	box_close(&w->box);
	copy_file(wal, second);
	assert_true(size_of(second) < size_of(first));
	copy_file(first, wal);
	lay_over(w, second, size_of(second));
	write_at(wal, frame_at(1) + 2000, "\x55\xaa\x55", 3);
	assert_int_equal(start(w, NULL), 1);
	for (uint64_t seq = 1; seq < w->next[0]; seq++)
		assert_true(w->records[0][seq].here);
}

/* --- While it runs --- */

static void break_table(struct world *w, const char *sql)
{
	assert_int_equal(sqlite3_exec(w->box.q->db, sql, NULL, NULL, NULL), SQLITE_OK);
	/* Twice: the WAL begins anew, so that what was there before is in no older frame of it. */
	for (int i = 0; i < 2; i++)
		assert_int_equal(sqlite3_wal_checkpoint_v2(w->box.q->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL),
		                 SQLITE_OK);
}

static void test_damage_while_it_runs(void **state)
{
	struct world *w = *state;
	struct box *box = &w->box;
	struct source *source;
	struct queue_damage damage;
	struct fetch *fetch;
	struct after after;
	bool done;

	begin(w, 5);
	for (int i = 0; i < 20; i++)
		commit(w, i % N_SOURCES, 5);
	seal_all(w);
	deliver(w, 0);
	for (int i = 0; i < 20; i++)
		commit(w, i % N_SOURCES, 5);
	source = queue_find_source(box->q, "a");
	/* The newest chunk of a: its bytes are gone. */
	break_table(w, "UPDATE chunk SET lines = 1 WHERE id = (SELECT max(id) FROM chunk WHERE source = 'a')");
	assert_true(queue_is_sound(box->q));
	assert_int_equal(read_all(w), -EBADMSG);
	assert_false(queue_is_sound(box->q));
	fetch = make_fetch(w, 0, 1, CHUNK_FULL);
	assert_int_equal(queue_commit(box->q, fetch, &box->err), -EBADMSG);
	fetch_free(fetch);
	w->values--;
	assert_int_equal(queue_delivered(box->q, 2, "lake", NOON, &done, &box->err), -EBADMSG);
	assert_int_equal(queue_start(box->q, false, &box->err), -EBADMSG);
	assert_int_equal(queue_start(box->q, true, &box->err), 1);
	assert_int_equal(queue_start(box->q, true, &box->err), 0);
	assert_ptr_equal(queue_find_source(box->q, "a"), source);
	assert_int_equal(source->now.seq, w->next[0]); /* memory knew it */
	assert_int_equal(queue_last_salvage(box->q)->open_ends, 0);
	assert_int_equal(queue_last_salvage(box->q)->lost_records, 5);
	assert_int_equal(queue_next_damage(box->q, NULL, &damage, &box->err), 1);
	assert_string_equal(damage.source, "a");
	assert_int_equal(damage.last_seq, w->next[0] - 1);
	assert_int_equal(damage.first_seq, w->next[0] - 5);
	assert_int_equal(queue_next_damage(box->q, &damage, &damage, &box->err), 0);
	assert_int_equal(read_all(w), 0);
	check_after(w, 1, NULL, &after);
	assert_int_equal(after.lost, 5);
	assert_int_equal(after.again, 0);
}

/* A fetch that is on its way goes on, where all of it outlasts the salvage. */
static void test_a_staged_fetch_outlasts_a_salvage(void **state)
{
	struct world *w = *state;
	struct box *box = &w->box;
	struct fetch *fetch;

	begin(w, 5);
	commit(w, 0, 5);
	commit(w, 1, 5);
	fetch = make_fetch(w, 0, 60, 3000);
	stage(w, fetch);
	assert_true(fetch->staged > 20);
	break_table(w, "UPDATE chunk SET lines = 1 WHERE source = 'parking'");
	assert_int_equal(read_all(w), -EBADMSG);
	assert_int_equal(queue_start(box->q, true, &box->err), 1);
	assert_int_equal(queue_commit(box->q, fetch, &box->err), 0);
	note_fetch(w, 0, fetch);
	fetch_free(fetch);
	assert_int_equal(read_all(w), 0);
	for (uint64_t seq = 1; seq < w->next[0]; seq++)
		assert_true(w->records[0][seq].here);
	seal_all(w);
	assert_int_equal(read_all(w), 0);
}

/* Where it does not, that fetch alone is dropped. */
static void test_a_staged_fetch_that_is_lost(void **state)
{
	struct world *w = *state;
	struct box *box = &w->box;
	struct fetch *fetch, *other;
	struct fetch_piece *piece;

	begin(w, 5);
	commit(w, 0, 5);
	fetch = make_fetch(w, 0, 200, 3000);
	for (int i = 0; i < 4; i++) {
		piece = fetch_take_piece(fetch);
		assert_int_equal(queue_stage(box->q, "a", piece, &box->err), 0);
		fetch->staged += piece->n;
		fetch_piece_free(piece);
	}
	break_table(w, "UPDATE chunk SET lines = 1 WHERE id = (SELECT max(id) FROM chunk)");
	break_table(w, "UPDATE chunk SET lines = 1 WHERE id = (SELECT min(id) FROM chunk)");
	assert_int_equal(read_all(w), -EBADMSG);
	assert_int_equal(queue_start(box->q, true, &box->err), 1);
	piece = fetch_take_piece(fetch);
	assert_int_equal(queue_stage(box->q, "a", piece, &box->err), -ESTALE);
	fetch->staged += piece->n;
	fetch_piece_free(piece);
	w->values = 1000;
	other = make_fetch(w, 1, 3, CHUNK_FULL);
	other->next = fetch;
	assert_int_equal(queue_commit(box->q, other, &box->err), -ESTALE);
	assert_true(fetch->stale);
	assert_false(other->stale);
	other->next = NULL;
	assert_int_equal(queue_commit(box->q, other, &box->err), 0);
	note_fetch(w, 1, other);
	fetch_free(other);
	fetch_free(fetch);
	assert_int_equal(queue_unstage(box->q, "a", &box->err), 0);
	w->next[0] = queue_find_source(box->q, "a")->now.seq;
	commit_staged(w, 0, 60);
	commit(w, 0, 3);
	assert_int_equal(read_all(w), 0);
	for (uint64_t seq = 6; seq < w->next[0]; seq++)
		assert_true(w->records[0][seq].here);
}

/* --- A salvage that is cut short, and one without room --- */

/* The states that a power cut leaves of its last steps: all are brought to their end by the next start. */
static void test_a_salvage_is_finished(void **state)
{
	static const char aside[] = ".damaged-20261121T102030Z";

	for (int step = 0; step < 4; step++) {
		struct world *w = *state;
		char wal[256], fresh[256], moved[256], moved_wal[256];

		begin(w, 1);
		commit(w, 0, 5);
		box_close(&w->box);
		wal_path(w, wal);
		snprintf(fresh, sizeof fresh, "%s.%s", w->box.path, step == 0 ? "salvaging" : "salvaged");
		snprintf(moved, sizeof moved, "%s%s", w->box.path, aside);
		snprintf(moved_wal, sizeof moved_wal, "%s%s-wal", w->box.path, aside);
		copy_buffer(w, "damaged");
		/* The fresh one is another buffer's file here, so that it can be told which it is. */
		box_ask(&w->box, "PRAGMA journal_mode = DELETE");
		copy_file(w->box.path, fresh);
		if (step == 0) {
			/* Not complete: the damaged one has its place. */
			write_at(fresh, 0, "garbage", 7);
			assert_int_equal(start(w, NULL), 0);
			assert_int_equal(access(fresh, F_OK), -1);
		} else {
			assert_int_equal(rename(w->box.path, moved), 0);
			copy_file(fresh, wal); /* whatever it holds, it is not to be read again */
			if (step >= 2)
				assert_int_equal(rename(wal, moved_wal), 0);
			if (step == 3)
				assert_int_equal(rename(fresh, w->box.path), 0);
			assert_int_equal(start(w, NULL), 0);
			assert_int_equal(access(moved, F_OK), 0);
			assert_int_equal(access(moved_wal, F_OK), 0);
			assert_int_equal(access(fresh, F_OK), -1);
			if (step < 3)
				assert_same_files(moved_wal, moved); /* both are the fresh one's bytes */
		}
		assert_int_equal(box_view(&w->box, "a").records, 5);
		tear_down(state);
		set_up(state);
	}
}

/* Somebody has moved the damaged file away: what was taken over of it by then is no buffer. */
static void test_half_a_salvage(void **state)
{
	struct world *w = *state;
	char fresh[256], away[256], wal[256];

	begin(w, 1);
	commit(w, 0, 5);
	box_close(&w->box);
	snprintf(fresh, sizeof fresh, "%s.salvaging", w->box.path);
	snprintf(away, sizeof away, "%s.away", w->box.path);
	wal_path(w, wal);
	copy_file(w->box.path, fresh);
	assert_int_equal(rename(w->box.path, away), 0);
	assert_int_equal(unlink(wal), 0);
	assert_int_equal(start(w, NULL), 0);
	assert_int_equal(box_view(&w->box, "a").records, 0);
	assert_int_equal(access(fresh, F_OK), -1);
}

static void test_a_salvage_without_room(void **state)
{
	struct world *w = *state;
	struct box *box = &w->box;
	struct after after;
	struct live live;
	char fresh[256], copy[256];

	fill(w, &live);
	mark_safe(w, &live);
	zero_page(w, 1);
	copy_buffer(w, "damaged");
	snprintf(copy, sizeof copy, "%s/damaged", box->folder);
	snprintf(fresh, sizeof fresh, "%s.salvaging", box->path);
	box->q = queue_new(box->path, &box->identity);
	configure(w);
	for (int i = 0; i < 2; i++) {
		card_errno = ENOSPC;
		assert_true(queue_start(box->q, true, &box->err) < 0);
		assert_int_equal(queue_commit(box->q, NULL, &box->err),
		                 queue_start(box->q, false, &box->err) < 0 ? -EBADMSG : 0);
		card_errno = 0;
		assert_same_files(box->path, copy);
		assert_int_equal(access(fresh, F_OK), -1);
	}
	assert_int_equal(queue_start(box->q, true, &box->err), 1);
	assert_int_equal(read_all(w), 0);
	check_aside(w);
	check_after(w, 1, NULL, &after);
	assert_int_equal(after.lost, 0);
	free(live.rows);
}

/* A card that damages all that it is given is not filled with what was set aside. */
static void test_many_in_a_day(void **state)
{
	struct world *w = *state;
	struct box *box = &w->box;
	char path[256];

	begin(w, 1);
	for (int i = 0; i <= 16; i++) {
		snprintf(path, sizeof path, "%s.damaged-20261121T1020%02dZ%s", box->path, i, i == 5 ? "-wal" : "");
		copy_file("/dev/null", path);
	}
	commit(w, 0, 5);
	box_close(box);
	copy_buffer(w, "damaged");
	zero_page(w, 1);
	wal_path(w, path);
	write_at(path, 0, "none", 4);
	box->q = queue_new(box->path, &box->identity);
	assert_int_equal(queue_start(box->q, true, &box->err), -EBADMSG);
	assert_non_null(strstr(box->err.text, "salvaged 16 times"));
	assert_false(queue_is_sound(box->q));
	snprintf(path, sizeof path, "%s.damaged-20261121T102003Z", box->path);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(queue_start(box->q, true, &box->err), 1);
	assert_int_equal(box_view(box, "a").records, 5);
}

/* Twice in a row, the second time with what the first has left: what was booked stays so. */
static void test_one_after_the_other(void **state)
{
	struct world *w = *state;
	struct after after;
	struct live live;

	for (int seed = 1; seed <= 8; seed++) {
		w = *state;
		begin(w, (uint64_t)seed * 1000);
		for (int i = 0; i < 5; i++) {
			int salvaged;

			go_on(w, 60);
			box_close(&w->box);
			list_live(w, &live);
			damage_pages(w->box.path, 2, i % 2);
			zero_page(w, 1);
			salvaged = survive(w, &live, &after);
			assert_int_equal(salvaged, 1);
			forget_lost(w);
		}
		tear_down(state);
		set_up(state);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_any_page_gone, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_the_first_page_gone_loses_nothing, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_an_inner_page_gone_loses_nothing, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_schema_that_says_something_else, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_any_byte_of_the_header, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_one_table_left, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_chunks_byte, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_chain_that_leads_elsewhere, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_broken_batch, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_an_id_is_used_once, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_flip_in_the_middle_of_the_wal, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_flip_in_the_last_transaction, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_torn_tail_of_two_power_cuts, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_torn_tail_of_new_sources, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_batch_of_the_power_cut_before, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_damage_while_it_runs, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_staged_fetch_outlasts_a_salvage, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_staged_fetch_that_is_lost, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_salvage_is_finished, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_half_a_salvage, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_salvage_without_room, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_many_in_a_day, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_one_after_the_other, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_damage_by_chance, set_up, tear_down),
	};

	if (getenv("MILLRACE_TEST"))
		cmocka_set_test_filter(getenv("MILLRACE_TEST"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
