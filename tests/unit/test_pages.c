/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Real buffers, damaged by hand. Which pages a row lies on is asked of SQLite's dbstat. What the queue does not write
 * by itself is written by SQL, past it.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <sys/uio.h>

#include "buffer/pages.h"
#include "buffer/queue_private.h"
#include "buffer/schema.h"
#include "tests/unit/queue_box.h"

#define PAGE         4096
#define FRAME_HEADER 24
#define FRAME        (FRAME_HEADER + PAGE)
#define WAL_HEADER   32
#define SECTOR       512
#define ALL_TABLES   ((1U << PAGES_TABLES) - 1)
#define ANY_LEN      (64 << 20)

static const char *const tables[PAGES_TABLES] = {
	[PAGES_BUFFER] = "buffer",     [PAGES_SOURCE] = "source",   [PAGES_CHUNK] = "chunk",
	[PAGES_BATCH] = "batch",       [PAGES_PART] = "part",       [PAGES_DELIVERY] = "delivery",
	[PAGES_STORE] = "store",       [PAGES_BOOK] = "book",       [PAGES_LOST] = "lost",
	[PAGES_DAMAGE] = "damage",     [PAGES_CLOCK] = "clock",     [PAGES_IMPORTED] = "imported",
	[PAGES_REJECTED] = "rejected", [PAGES_DUE] = "due",         [PAGES_JOB] = "job",
	[PAGES_RUN] = "run",           [PAGES_MACHINE] = "machine", [PAGES_DAY] = "machine_day",
};

#define RUN                                                                                                            \
	"id, job, store, first, last, edge, state, attempt, created, written, ready, started, ended, objects, "        \
	"records, bytes, counted, manifest, reason, remote, place, log"

/* In the order of the statements. */
static const char *const columns[PAGES_TABLES] = {
	[PAGES_BUFFER] = "id",
	[PAGES_SOURCE] = "id, name, seq, fetch, state, batch",
	[PAGES_CHUNK] = "id, source, device, boot, records, day, lines, last, wall, mono, fetch, state, plain, data",
	[PAGES_BATCH] = "id, source, object, first, last, raw, bytes, sha256, oldest, sealed, delivered, imported",
	[PAGES_PART] = "id, data",
	[PAGES_DELIVERY] = "batch, store, at",
	[PAGES_STORE] = "name, place",
	[PAGES_BOOK] = "store, source, first, last, day, device, boot",
	[PAGES_LOST] = "store, source, first, last, day, device, boot, at",
	[PAGES_DAMAGE] = "source, first, last, day, device, boot, at",
	[PAGES_CLOCK] = "boot, correction",
	[PAGES_IMPORTED] = "source, device, boot, first, last, at",
	[PAGES_REJECTED] = "source, at, cause, text, bytes, start, offset, excerpt",
	[PAGES_DUE] = "job, n, store, object, bytes, sha256, delivered",
	[PAGES_JOB] = "name, taken, cron, missed",
	[PAGES_RUN] = RUN,
	[PAGES_MACHINE] = "name, state, since, ours, reason, awake",
	[PAGES_DAY] = "day, machine, wakes, awake",
};

/* --- A card that does not give some of its pages: pread64 takes the place of the C library's --- */

static int64_t broken_at = -1;        /* reads of this byte of any file fail, */
static size_t broken_most = SIZE_MAX; /* if they are not longer */

ssize_t pread64(int fd, void *data, size_t len, off64_t at)
{
	struct iovec iov = { data, len };

	if (broken_at >= at && broken_at < at + (int64_t)len && len <= broken_most) {
		errno = EIO;
		return -1;
	}
	return preadv(fd, &iov, 1, at);
}

/* --- Random numbers, the same each time --- */

static uint64_t random_state;

static uint32_t pick(uint32_t below)
{
	random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(((random_state >> 32) * below) >> 32);
}

static void scribble(unsigned char *at, size_t len)
{
	for (size_t i = 0; i < len; i++)
		at[i] = (unsigned char)pick(256);
}

/* --- A buffer in memory, and back on the card as another one --- */

struct image {
	unsigned char *file, *wal;
	size_t file_len, wal_len;
};

static unsigned char *load(const char *path, const char *suffix, size_t *ret_len)
{
	char full[256];
	unsigned char *data;
	struct stat st;
	int fd;

	snprintf(full, sizeof full, "%s%s", path, suffix);
	fd = open(full, O_RDONLY);
	*ret_len = 0;
	if (fd < 0)
		return calloc(1, 1);
	assert_int_equal(fstat(fd, &st), 0);
	data = calloc(1, (size_t)st.st_size + 1);
	assert_int_equal(read(fd, data, (size_t)st.st_size), st.st_size);
	close(fd);
	*ret_len = (size_t)st.st_size;
	return data;
}

static struct image take(const struct box *box)
{
	struct image image;

	image.file = load(box->path, "", &image.file_len);
	image.wal = load(box->path, "-wal", &image.wal_len);
	return image;
}

static void drop(struct image *image)
{
	free(image->file);
	free(image->wal);
}

static void save(const char *path, const char *suffix, const unsigned char *data, size_t len)
{
	char full[256];
	int fd;

	snprintf(full, sizeof full, "%s%s", path, suffix);
	fd = open(full, O_WRONLY | O_CREAT, 0600);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, data, len, 0), len);
	assert_int_equal(ftruncate(fd, (off_t)len), 0);
	close(fd);
}

static void put(const struct image *image, const char *path)
{
	save(path, "", image->file, image->file_len);
	save(path, "-wal", image->wal, image->wal_len);
}

static const char *copy_path(const struct box *box)
{
	static char path[sizeof box->folder + 16];

	snprintf(path, sizeof path, "%s/copy.db", box->folder);
	return path;
}

static struct pages *open_image(const struct box *box, const struct image *image)
{
	struct pages *pages = NULL;
	struct err err;

	put(image, copy_path(box));
	assert_int_equal(pages_open(copy_path(box), &pages, &err), 0);
	return pages;
}

static enum pages_wal judge(const struct box *box, const struct image *image)
{
	struct pages *pages = open_image(box, image);
	enum pages_wal verdict = pages_judge_wal(pages);

	pages_close(pages);
	return verdict;
}

/* --- Rows that were found --- */

struct row {
	enum pages_table table;
	int64_t id; /* its first number, if it begins with one */
	uint32_t crc;
	size_t n;
	bool sure;
};

struct rows {
	struct row *rows;
	size_t n, capacity;
};

static void add_row(struct rows *rows, enum pages_table table, const struct cell *cells, size_t n)
{
	if (rows->n == rows->capacity) {
		rows->capacity = rows->capacity * 2 + 64;
		rows->rows = realloc(rows->rows, rows->capacity * sizeof *rows->rows);
		assert_non_null(rows->rows);
	}
	rows->rows[rows->n++] = (struct row){
		.table = table,
		.id = cells[0].type == SQLITE_INTEGER ? cells[0].number : 0,
		.crc = cell_crc(0, cells, n),
		.n = n,
	};
}

static int on_row(void *arg, const struct pages_row *row)
{
	struct rows *rows = arg;

	add_row(rows, row->table, row->cells, row->n);
	rows->rows[rows->n - 1].sure = row->sure;
	return 0;
}

static struct rows find_in(struct pages *pages, enum pages_where where)
{
	struct rows rows = { .n = 0 };

	assert_int_equal(pages_each(pages, where, ALL_TABLES, ANY_LEN, on_row, &rows), 0);
	return rows;
}

static struct rows find(const struct box *box, const struct image *image, enum pages_where where)
{
	struct pages *pages = open_image(box, image);
	struct rows rows = find_in(pages, where);

	pages_close(pages);
	return rows;
}

static bool has_row(const struct rows *rows, const struct row *row)
{
	for (size_t i = 0; i < rows->n; i++) {
		const struct row *r = &rows->rows[i];

		if (r->table == row->table && r->id == row->id && r->crc == row->crc && r->n == row->n)
			return true;
	}
	return false;
}

static size_t count(const struct rows *rows, enum pages_table table)
{
	size_t n = 0;

	for (size_t i = 0; i < rows->n; i++)
		n += rows->rows[i].table == table;
	return n;
}

static bool has_id(const struct rows *rows, enum pages_table table, int64_t id)
{
	for (size_t i = 0; i < rows->n; i++) {
		if (rows->rows[i].table == table && rows->rows[i].id == id)
			return true;
	}
	return false;
}

/* A chunk that was committed. */
static bool is_sure(const struct rows *rows, int64_t id)
{
	for (size_t i = 0; i < rows->n; i++) {
		if (rows->rows[i].table == PAGES_CHUNK && rows->rows[i].id == id && rows->rows[i].sure)
			return true;
	}
	return false;
}

/* --- SQL past the queue, which is closed --- */

static int64_t ask(sqlite3 *db, const char *sql)
{
	sqlite3_stmt *stmt;
	int64_t number = -1;

	if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) != SQLITE_OK)
		fail_msg("%s: %s", sql, sqlite3_errmsg(db));
	if (sqlite3_step(stmt) == SQLITE_ROW)
		number = sqlite3_column_int64(stmt, 0);
	if (sqlite3_finalize(stmt) != SQLITE_OK)
		fail_msg("%s: %s", sql, sqlite3_errmsg(db));
	return number;
}

/* As queue_open.c sets it, but that nothing is checkpointed unasked. */
static sqlite3 *open_sql(const char *path)
{
	struct queue q = { .db = NULL };
	int on = 1;

	assert_int_equal(sqlite3_open(path, &q.db), SQLITE_OK);
	sqlite3_db_config(q.db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	sqlite3_file_control(q.db, NULL, SQLITE_FCNTL_PERSIST_WAL, &on);
	sqlite3_wal_autocheckpoint(q.db, 0);
	ask(q.db, "PRAGMA locking_mode = EXCLUSIVE");
	ask(q.db, "PRAGMA page_size = 4096");
	ask(q.db, "PRAGMA synchronous = FULL");
	ask(q.db, "PRAGMA secure_delete = OFF");
	assert_int_equal(queue_add_functions(&q, &(struct err){ .text = "" }), 0);
	return q.db;
}

static void run(sqlite3 *db, const char *format, ...)
{
	va_list args;
	char *sql;

	va_start(args, format);
	sql = sqlite3_vmprintf(format, args);
	va_end(args);
	if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
		fail_msg("%s: %s", sql, sqlite3_errmsg(db));
	sqlite3_free(sql);
}

/* A row of any table; the values in the order of the statement. */
static void insert(sqlite3 *db, enum pages_table table, const char *values)
{
	run(db,
	    "WITH v (%s) AS MATERIALIZED (VALUES (%s)) "
	    "INSERT OR REPLACE INTO %s (%s, crc) SELECT %s, row_crc(%s) FROM v",
	    columns[table], values, tables[table], columns[table], columns[table], columns[table]);
}

static void insert_chunk(sqlite3 *db, int64_t id, int bytes)
{
	char values[256];

	snprintf(values, sizeof values,
	         "%" PRId64 ", 'sql', 'pi-01', '01234567', 1, 20000, 100, 1, 5, 6, 7, x'', 99, randomblob(%d)", id,
	         bytes);
	insert(db, PAGES_CHUNK, values);
}

static void checkpoint(const struct box *box)
{
	sqlite3 *db;

	assert_null(box->q);
	db = open_sql(box->path);
	ask(db, "PRAGMA wal_checkpoint(TRUNCATE)");
	sqlite3_close(db);
}

/* Every row that SQLite reads out of a table. */
static void read_table(sqlite3 *db, enum pages_table table, struct rows *rows)
{
	sqlite3_stmt *stmt;
	char sql[256];

	snprintf(sql, sizeof sql, "SELECT %s FROM %s", columns[table], tables[table]);
	assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), SQLITE_OK);
	while (sqlite3_step(stmt) == SQLITE_ROW) {
		struct cell cells[PAGES_CELLS_MAX];
		int n = sqlite3_column_count(stmt);

		for (int i = 0; i < n; i++) {
			cells[i] = (struct cell){ .type = sqlite3_column_type(stmt, i) };
			if (cells[i].type == SQLITE_INTEGER) {
				cells[i].number = sqlite3_column_int64(stmt, i);
			} else {
				cells[i].data = sqlite3_column_blob(stmt, i);
				cells[i].len = (size_t)sqlite3_column_bytes(stmt, i);
			}
		}
		add_row(rows, table, cells, (size_t)n);
	}
	assert_int_equal(sqlite3_finalize(stmt), SQLITE_OK);
}

static struct rows read_all(const struct box *box)
{
	struct rows rows = { .n = 0 };
	sqlite3 *db = open_sql(box->path);

	for (int table = 0; table < PAGES_TABLES; table++)
		read_table(db, (enum pages_table)table, &rows);
	sqlite3_close(db);
	return rows;
}

/* --- A buffer with rows of every table --- */

/* n records of so many random digits, which deflate to half of that. */
static void add_noise(struct box *box, const char *source, int64_t after_ms, int n, size_t digits)
{
	struct fetch *fetch = box_fetch(source, after_ms, 0, "");
	char *record = malloc(digits + 3);

	for (int i = 0; i < n; i++) {
		record[0] = record[digits + 1] = '"';
		record[digits + 2] = '\0';
		for (size_t k = 1; k <= digits; k++)
			record[k] = "0123456789abcdef"[pick(16)];
		assert_int_equal(fetch_add(fetch, record, digits + 2, CHUNK_FULL), 0);
	}
	free(record);
	assert_int_equal(box_commit(box, fetch), 0);
}

static void seal_and_deliver(struct box *box, int64_t after_ms)
{
	bool done;

	while (box_seal(box, after_ms, true) == 1)
		assert_int_equal(queue_delivered(box->q, box->batch.id, "lake", NOON + after_ms, &done, &box->err), 0);
}

static void fill_queue(struct box *box)
{
	struct queue_rejected rejected = { .source = "small", .cause = "json", .text = "no JSON", .at_ms = NOON };

	box_route(box, 2, 1 << 20, 100000);
	assert_int_equal(queue_set_store_place(box->q, "lake", "https://lake", &box->err), 0);
	assert_int_equal(queue_set_store_place(box->q, "disk", "/mnt/disk", &box->err), 0);
	rejected.len = sizeof rejected.data;
	scribble(rejected.data, rejected.len);
	assert_int_equal(queue_reject(box->q, &rejected, &box->err), 0);
	for (int i = 0; i < 30; i++) {
		add_noise(box, "small", i * 1000, 2, 40);
		add_noise(box, "middle", i * 1000, 3, 300 + 100 * (size_t)i);
		if (i % 10 == 5)
			add_noise(box, "large", i * 1000, 40, 9000);
		if (i % 10 == 9)
			seal_and_deliver(box, i * 1000 + 1);
	}
	for (int i = 30; i < 50; i++) {
		add_noise(box, "small", i * 1000, 1 + i % 3, 100);
		add_noise(box, "middle", i * 1000, 4, 100 * (size_t)i);
	}
	add_noise(box, "large", 50000, 40, 9000);
	box_add(box, "empty", 51000, 0);
}

static void fill_tables(sqlite3 *db)
{
	char values[128];

	insert(db, PAGES_LOST, "'lake', 'small', 1, 9, 20000, 'pi-01', '01234567', 5");
	insert(db, PAGES_DAMAGE, "'small', 10, 0, 20000, 'pi-01', '01234567', -1");
	insert(db, PAGES_DAMAGE, "'small', 70000, 80000, 20000, 'pi-01', '', 9223372036854775807");
	insert(db, PAGES_CLOCK, "'01234567', -86400000");
	insert(db, PAGES_STORE, "'far', printf('%.3000c', 'x')"); /* more than a page of an index holds of a row */
	insert(db, PAGES_IMPORTED, "'small', 'pi-02', '89abcdef', 1, 1, 0");
	insert(db, PAGES_DUE, "'parking', 1, 'lake', 'key', 2, zeroblob(32), 3");
	insert(db, PAGES_JOB, "'parking', 1, 0, 0");
	insert(db, PAGES_RUN,
	       "'0123', 'parking', 'lake', 1, 1, 3, 2, 1, 5, 6, 7, 8, 0, 1, 9, 99, 0, zeroblob(32), '', '', 'ssh', "
	       "randomblob(4096)");
	insert(db, PAGES_MACHINE, "'mill', 4, 5, 1, 'job parking', ''");
	insert(db, PAGES_DAY, "20000, 'mill', 2, 3600000");
	/* Enough for inner pages of the tree, which hold rows too. */
	run(db, "BEGIN");
	for (int i = 0; i < 300; i++) {
		snprintf(values, sizeof values, "'disk', 'small', %d, %d, %d, 'pi-01', '%08x'", 1000 + 10 * i,
		         1009 + 10 * i, i, i);
		insert(db, PAGES_BOOK, values);
	}
	run(db, "COMMIT");
}

static void fill(struct box *box)
{
	sqlite3 *db;

	random_state = 1;
	fill_queue(box);
	box_close(box);
	db = open_sql(box->path);
	fill_tables(db);
	sqlite3_close(db);
}

/* --- Rows --- */

static void assert_all_found(const struct rows *want, const struct rows *found)
{
	size_t seen[PAGES_TABLES] = { 0 };

	for (size_t i = 0; i < want->n; i++) {
		if (!has_row(found, &want->rows[i]))
			fail_msg("row %" PRId64 " of %s is missing", want->rows[i].id, tables[want->rows[i].table]);
		seen[want->rows[i].table]++;
	}
	for (int table = 0; table < PAGES_TABLES; table++)
		assert_true(seen[table] > 0);
}

static void test_rows_of_every_table(void **state)
{
	struct box *box = *state;
	struct image image;
	struct rows want, found;

	fill(box);
	want = read_all(box);
	image = take(box);
	assert_true(image.wal_len > WAL_HEADER);
	found = find(box, &image, PAGES_ALL); /* most of them in the WAL */
	assert_all_found(&want, &found);
	assert_int_equal(judge(box, &image), PAGES_WAL_SOUND);
	drop(&image);
	free(found.rows);

	checkpoint(box);
	image = take(box);
	assert_int_equal(image.wal_len, 0);
	found = find(box, &image, PAGES_ALL); /* all of them in the file */
	assert_all_found(&want, &found);
	assert_int_equal(judge(box, &image), PAGES_WAL_SOUND);
	free(found.rows);

	found = find(box, &image, PAGES_TAIL);
	assert_int_equal(found.n, 0);
	free(found.rows);
	memset(image.file, 0, PAGE); /* without a header */
	found = find(box, &image, PAGES_ALL);
	assert_all_found(&want, &found);
	free(found.rows);
	free(want.rows);
	drop(&image);
}

static int stop_at_once(void *arg, const struct pages_row *row)
{
	assert_true(row->n > 0);
	return *(int *)arg;
}

static int measure(void *arg, const struct pages_row *row)
{
	size_t len = 0;

	for (size_t i = 0; i < row->n; i++)
		len += row->cells[i].len;
	assert_int_equal(row->table, PAGES_CHUNK);
	if (*(size_t *)arg < len)
		*(size_t *)arg = len;
	return 0;
}

static void test_only_what_was_asked_for(void **state)
{
	struct box *box = *state;
	struct image image;
	struct pages *pages;
	size_t longest = 0;
	int answer = -ENOSPC;

	fill(box);
	checkpoint(box);
	image = take(box);
	pages = open_image(box, &image);
	assert_int_equal(pages_each(pages, PAGES_ALL, ALL_TABLES, ANY_LEN, stop_at_once, &answer), -ENOSPC);
	answer = 1;
	assert_int_equal(pages_each(pages, PAGES_ALL, ALL_TABLES, ANY_LEN, stop_at_once, &answer), 0);
	assert_int_equal(pages_each(pages, PAGES_ALL, 1 << PAGES_CHUNK, ANY_LEN, measure, &longest), 0);
	assert_true(longest > 100000);
	longest = 0;
	assert_int_equal(pages_each(pages, PAGES_ALL, 1 << PAGES_CHUNK, 20000, measure, &longest), 0);
	assert_true(longest > 10000 && longest < 20000);
	pages_close(pages);
	drop(&image);
}

static int on_old_row(void *arg, const struct pages_row *row)
{
	unsigned *seen = arg;

	*seen |= 1U << row->table;
	if (row->table == PAGES_SOURCE) {
		assert_int_equal(row->n, 6);
		assert_int_equal(row->cells[5].type, SQLITE_INTEGER);
		assert_int_equal(row->cells[5].number, 0);
	} else if (row->table == PAGES_BATCH) {
		assert_int_equal(row->n, 12);
		assert_true(row->cells[0].number == 77);
		assert_int_equal(row->cells[11].number, 0);
	} else {
		assert_int_equal(row->n, 7);
	}
	return 0;
}

static void test_rows_of_earlier_schemas(void **state)
{
	struct box *box = *state;
	struct pages *pages = NULL;
	unsigned seen = 0;
	sqlite3 *db;

	remove(copy_path(box));
	db = open_sql(copy_path(box));
	for (int i = 0; i < 3; i++)
		run(db, "%s", buffer_schema[i]);
	run(db, "INSERT INTO source SELECT *, row_crc(1, 'a', 2, 3, x'01') FROM (VALUES (1, 'a', 2, 3, x'01'))");
	run(db, "INSERT INTO batch VALUES (77, 'a', 'key', 1, 2, 3, 4, x'05', 6, 7, 8, "
	        "row_crc(77, 'a', 'key', 1, 2, 3, 4, x'05', 6, 7, 8))");
	run(db, "INSERT INTO lost VALUES ('lake', 'a', 1, 2, 3, 'pi-01', '01234567', "
	        "row_crc('lake', 'a', 1, 2, 3, 'pi-01', '01234567'))");
	sqlite3_close(db);
	assert_int_equal(pages_open(copy_path(box), &pages, &box->err), 0);
	assert_int_equal(pages_each(pages, PAGES_ALL, ALL_TABLES, ANY_LEN, on_old_row, &seen), 0);
	assert_int_equal(seen, 1U << PAGES_SOURCE | 1U << PAGES_BATCH | 1U << PAGES_BOOK);
	pages_close(pages);
}

/* Right checksums do not make them ours. */
static void test_values_that_no_row_of_ours_has(void **state)
{
	struct box *box = *state;
	struct pages *pages = NULL;
	struct rows found;
	sqlite3 *db;

	remove(copy_path(box));
	db = open_sql(copy_path(box));
	run(db, "CREATE TABLE t (a, b); CREATE TABLE u (a, b, c, PRIMARY KEY (a, b)) WITHOUT ROWID");
	run(db, "INSERT INTO t VALUES (NULL, row_crc(NULL)), (2.5, row_crc(2.5)), (x'', row_crc(x'')), "
	        "('id', row_crc('id') + 1), ('id', CAST(row_crc('id') AS TEXT)), ('id', NULL), ('id', 1e300)");
	run(db, "INSERT INTO u VALUES ('boot', 2.5, row_crc('boot', 2.5)), (1, 'place', row_crc(1, 'place'))");
	run(db, "INSERT INTO t VALUES ('good', row_crc('good'))");
	run(db, "INSERT INTO u VALUES ('boot', -2, row_crc('boot', -2))");
	sqlite3_close(db);
	assert_int_equal(pages_open(copy_path(box), &pages, &box->err), 0);
	found = find_in(pages, PAGES_ALL);
	assert_int_equal(found.n, 2);
	assert_int_equal(count(&found, PAGES_BUFFER), 1);
	assert_int_equal(count(&found, PAGES_CLOCK), 1);
	free(found.rows);
	pages_close(pages);
}

static void test_files_that_are_missing_or_foreign(void **state)
{
	struct box *box = *state;
	struct image image = { .file = calloc(1, 3 * PAGE), .wal = calloc(1, 3 * PAGE) };
	struct pages *pages = NULL;
	struct rows found;

	assert_int_equal(pages_open("/nowhere/buffer.db", &pages, &box->err), -ENOENT);
	assert_null(pages);
	pages_close(NULL);
	save(copy_path(box), "-wal", image.wal, 0); /* alone */
	assert_int_equal(pages_open(copy_path(box), &pages, &box->err), 0);
	assert_int_equal(pages_judge_wal(pages), PAGES_WAL_SOUND);
	found = find_in(pages, PAGES_ALL);
	assert_int_equal(found.n, 0);
	pages_close(pages);
	for (int i = 0; i < 50; i++) {
		image.file_len = pick(3 * PAGE);
		image.wal_len = pick(3 * PAGE);
		scribble(image.file, image.file_len);
		image.file[0] = "\x0d\x0a\x02"[i % 3];
		scribble(image.wal, image.wal_len);
		found = find(box, &image, PAGES_ALL);
		assert_int_equal(found.n, 0);
		assert_int_equal(judge(box, &image), image.wal_len > WAL_HEADER ? PAGES_WAL_DAMAGED : PAGES_WAL_SOUND);
	}
	drop(&image);
}

/* Cells at the end of a page, made to lead astray; `len` bytes of each, with dots behind what stands here. */
#define LIE(type, cell, len)                                                                                           \
	{                                                                                                              \
		type, len, sizeof(cell) - 1, cell                                                                      \
	}

static const struct {
	unsigned char type;
	size_t len, n;
	const char *cell;
} lies[] = {
	/* Lengths whose sum is right only because it wraps: a row of `imported`, by its columns. */
	LIE(0x0a,
	    "\x3c\x19\xff\xff\xff\xff\xff\xff\xff\xff\xed\xff\xff\xff\xff\xff\xff\xff\xff\xed\x81\x0b\x01\x01\x01\x01",
	    61),
	LIE(0x0a, "\x14\x7f\x0f\x0f\x01", 21),     /* a header longer than its payload */
	LIE(0x0d, "\x14\x01\x14\x0f\x01", 22),     /* one that is all of it */
	LIE(0x0d, "\xff\xff\xff", 3),              /* numbers that go on behind the page's end */
	LIE(0x0d, "\x03", 1),                      /* a cell that does */
	LIE(0x0d, "\x82\x00\x01\x03\x0f\x01", 99), /* a payload that does */
	LIE(0x02, "\x00\x00", 2),
	/* A part of 64 KB, whose overflow page is its own next one. */
	LIE(0x0d, "\x84\x80\x0a\x01\x06\x00\x04\x88\x80\x0c", 497),
};

static void test_cells_that_lie(void **state)
{
	struct box *box = *state;
	struct image image = { .file = calloc(1, 20 * PAGE), .file_len = 20 * PAGE, .wal = calloc(1, 1) };
	unsigned char *page = image.file + PAGE;
	struct rows found;

	page[PAGE + 3] = 3;
	for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
		size_t at = PAGE - lies[i].len;

		memset(page, '.', PAGE);
		memcpy(page + PAGE - 4, "\0\0\0\3", 4);
		page[0] = lies[i].type;
		page[3] = page[4] = 0xff; /* as many as there can be, and more */
		for (size_t k = lies[i].type == 0x02 ? 12 : 8; k + 2 < at; k += 2) {
			page[k] = (unsigned char)(at >> 8);
			page[k + 1] = (unsigned char)at;
		}
		memcpy(page + at, lies[i].cell, lies[i].n);
		found = find(box, &image, PAGES_ALL);
		assert_int_equal(found.n, 0);
		free(found.rows);
	}
	drop(&image);
}

static void test_pages_that_the_card_does_not_give(void **state)
{
	struct box *box = *state;
	struct rows want, found, less;
	struct pages *pages;
	struct image image;
	size_t missing = 0;

	fill(box);
	checkpoint(box);
	want = read_all(box);
	image = take(box);
	found = find(box, &image, PAGES_ALL);
	for (size_t page = 0; page < image.file_len / PAGE; page++) {
		pages = open_image(box, &image);
		broken_at = (int64_t)page * PAGE + 77;
		less = find_in(pages, PAGES_ALL);
		broken_at = -1;
		assert_true(pages_unread(pages) >= 1);
		assert_true(less.n <= found.n);
		missing += found.n - less.n;
		pages_close(pages);
		free(less.rows);
	}
	assert_true(missing >= want.n); /* each lies somewhere */
	free(want.rows);
	free(found.rows);
	drop(&image);
}

/* --- Damage at random --- */

#define ROWS_MAX 512

/* A row of chunk or part, and the pages that it lies on. */
struct own {
	struct row row;
	unsigned char *pages;
};

struct owns {
	struct own owns[ROWS_MAX];
	size_t n, n_pages;
};

/* Of a table's row number `n` in the order of its ids: the leaf and the overflow pages. */
static void note_pages(sqlite3 *db, const char *table, const char *path, int cell, int64_t leaf, struct own *own)
{
	sqlite3_stmt *stmt;
	char *sql = sqlite3_mprintf("SELECT pageno FROM stat WHERE name = %Q AND path GLOB '%s%03x+*'", table, path,
	                            (unsigned)cell);

	own->pages[leaf - 1] = 1;
	assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), SQLITE_OK);
	while (sqlite3_step(stmt) == SQLITE_ROW)
		own->pages[sqlite3_column_int64(stmt, 0) - 1] = 1;
	sqlite3_finalize(stmt);
	sqlite3_free(sql);
}

static void note_table(sqlite3 *db, enum pages_table table, struct owns *owns)
{
	struct rows rows = { .n = 0 };
	sqlite3_stmt *stmt;
	size_t at = 0;
	char *sql = sqlite3_mprintf("SELECT path, pageno, ncell FROM stat WHERE name = %Q AND pagetype = 'leaf' "
	                            "ORDER BY path",
	                            tables[table]);

	read_table(db, table, &rows);
	assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &stmt, NULL), SQLITE_OK);
	while (sqlite3_step(stmt) == SQLITE_ROW) {
		for (int cell = 0; cell < sqlite3_column_int(stmt, 2); cell++) {
			struct own *own = &owns->owns[owns->n++];

			assert_true(owns->n <= ROWS_MAX && at < rows.n);
			own->row = rows.rows[at++];
			own->pages = calloc(owns->n_pages, 1);
			note_pages(db, tables[table], (const char *)sqlite3_column_text(stmt, 0), cell,
			           sqlite3_column_int64(stmt, 1), own);
		}
	}
	assert_int_equal(at, rows.n);
	assert_true(at > 3);
	sqlite3_finalize(stmt);
	sqlite3_free(sql);
	free(rows.rows);
}

static void note_rows(const struct box *box, const struct image *image, struct owns *ret_owns)
{
	sqlite3 *db = open_sql(box->path);

	*ret_owns = (struct owns){ .n_pages = image->file_len / PAGE };
	run(db, "CREATE TEMP TABLE stat AS SELECT * FROM dbstat");
	note_table(db, PAGES_CHUNK, ret_owns);
	note_table(db, PAGES_PART, ret_owns);
	sqlite3_close(db);
}

static void forget_rows(struct owns *owns)
{
	for (size_t i = 0; i < owns->n; i++)
		free(owns->owns[i].pages);
}

static void touch(unsigned char *touched, size_t at, size_t len)
{
	for (size_t page = at / PAGE; page <= (at + len - 1) / PAGE; page++)
		touched[page] = 1;
}

static void damage_bytes(struct image *image, unsigned char *touched, size_t len)
{
	size_t at = pick((uint32_t)(image->file_len - len));

	scribble(image->file + at, len);
	touch(touched, at, len);
}

static void damage_pages(struct image *image, unsigned char *touched, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		size_t at = pick((uint32_t)(image->file_len / PAGE)) * (size_t)PAGE;

		memset(image->file + at, 0, PAGE);
		if (pick(2) == 0)
			scribble(image->file + at, PAGE);
		if (pick(4) == 0)
			image->file[at] = "\x0d\x0a\x02"[pick(3)];
		touch(touched, at, PAGE);
	}
}

/* As a card does that loses track: one page's bytes in another's place. */
static void swap_pages(struct image *image, unsigned char *touched)
{
	size_t a = pick((uint32_t)(image->file_len / PAGE)) * (size_t)PAGE;
	size_t b = pick((uint32_t)(image->file_len / PAGE)) * (size_t)PAGE;
	unsigned char page[PAGE];

	memcpy(page, image->file + a, PAGE);
	memcpy(image->file + a, image->file + b, PAGE);
	memcpy(image->file + b, page, PAGE);
	touch(touched, a, PAGE);
	touch(touched, b, PAGE);
}

static void damage(struct image *image, unsigned char *touched, int i)
{
	uint32_t times = 1 + pick(6);

	for (uint32_t k = 0; i % 5 < 2 && k < times; k++)
		damage_bytes(image, touched, i % 5 == 0 ? 1 : 64);
	if (i % 5 == 2)
		damage_pages(image, touched, 1 + pick((uint32_t)(image->file_len / PAGE / 2)));
	if (i % 5 == 3)
		swap_pages(image, touched);
	if (i % 5 == 4) {
		image->file_len = pick((uint32_t)image->file_len);
		for (size_t page = image->file_len / PAGE; page < ROWS_MAX * 4; page++)
			touched[page] = 1;
	}
}

static void check_found(const struct owns *owns, const unsigned char *touched, const struct rows *found)
{
	for (size_t i = 0; i < owns->n; i++) {
		bool whole = true;

		for (size_t page = 0; page < owns->n_pages; page++)
			whole = whole && !(touched[page] && owns->owns[i].pages[page]);
		if (whole && !has_row(found, &owns->owns[i].row))
			fail_msg("%s %" PRId64 " is missing", tables[owns->owns[i].row.table], owns->owns[i].row.id);
	}
}

/* Whatever happened: what is found is as it was written. */
static void check_sound(const struct rows *known, const struct rows *found)
{
	for (size_t i = 0; i < found->n; i++)
		assert_true(has_row(known, &found->rows[i]));
}

static void test_rows_on_sound_pages_are_found(void **state)
{
	struct box *box = *state;
	struct image image, hurt;
	struct rows known, found;
	struct owns owns;

	fill(box);
	checkpoint(box);
	image = take(box);
	note_rows(box, &image, &owns);
	known = find(box, &image, PAGES_ALL);
	hurt.file = malloc(image.file_len);
	hurt.wal = image.wal;
	hurt.wal_len = 0;
	assert_true(owns.n_pages < ROWS_MAX * 4);
	for (int i = 0; i < 2000; i++) {
		unsigned char touched[ROWS_MAX * 4] = { 0 };

		memcpy(hurt.file, image.file, image.file_len);
		hurt.file_len = image.file_len;
		damage(&hurt, touched, i);
		found = find(box, &hurt, PAGES_ALL);
		check_found(&owns, touched, &found);
		check_sound(&known, &found);
		free(found.rows);
	}
	free(hurt.file);
	free(known.rows);
	forget_rows(&owns);
	drop(&image);
}

/* A WAL that is damaged as one likes takes nothing from the file. */
static void test_random_damage_of_the_wal(void **state)
{
	static const unsigned char untouched[ROWS_MAX * 4];
	struct box *box = *state;
	struct image image, hurt;
	struct rows known, found;
	struct owns owns;
	sqlite3 *db;

	fill(box);
	checkpoint(box);
	image = take(box);
	note_rows(box, &image, &owns);
	drop(&image);
	db = open_sql(box->path);
	for (int i = 0; i < 10; i++)
		insert_chunk(db, 1 + i, 100 + 2000 * i);
	sqlite3_close(db);
	image = take(box);
	known = find(box, &image, PAGES_ALL);
	hurt = image;
	hurt.wal = malloc(image.wal_len);
	for (int i = 0; i < 500; i++) {
		uint32_t times = 1 + pick(20);

		memcpy(hurt.wal, image.wal, image.wal_len);
		hurt.wal_len = pick(3) == 0 ? pick((uint32_t)image.wal_len) : image.wal_len;
		for (uint32_t k = 0; k < times && hurt.wal_len > 64; k++)
			scribble(hurt.wal + pick((uint32_t)hurt.wal_len - 64), 1 + pick(64));
		found = find(box, &hurt, PAGES_ALL);
		check_found(&owns, untouched, &found);
		check_sound(&known, &found);
		free(found.rows);
	}
	free(hurt.wal);
	free(known.rows);
	forget_rows(&owns);
	drop(&image);
}

/* --- The WAL --- */

static uint32_t number_at(const unsigned char *at)
{
	return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static unsigned char *frame(const struct image *image, size_t i)
{
	return image->wal + WAL_HEADER + i * FRAME;
}

static size_t frames(const struct image *image)
{
	return (image->wal_len - WAL_HEADER) / FRAME;
}

/* The first frame of the last transaction. */
static size_t last_transaction(const struct image *image)
{
	size_t i = frames(image) - 1;

	assert_true(number_at(frame(image, i) + 4) > 0);
	while (i > 0 && number_at(frame(image, i - 1) + 4) == 0)
		i--;
	return i;
}

static struct image copy_image(const struct image *image)
{
	struct image copy = *image;

	copy.file = malloc(image->file_len + 1);
	memcpy(copy.file, image->file, image->file_len);
	copy.wal = malloc(image->wal_len + 1);
	memcpy(copy.wal, image->wal, image->wal_len);
	return copy;
}

/* Some transactions, the last one with chunks 101, 102 (which has overflow pages) and 103. */
static struct image make_wal(struct box *box)
{
	sqlite3 *db;
	struct image image;

	box_close(box);
	checkpoint(box);
	db = open_sql(box->path);
	insert_chunk(db, 1, 5000);
	insert_chunk(db, 2, 9000);
	insert_chunk(db, 3, 50);
	insert_chunk(db, 4, 30);
	run(db, "BEGIN");
	insert_chunk(db, 101, 300);
	insert_chunk(db, 102, 30000);
	insert_chunk(db, 103, 200);
	run(db, "COMMIT");
	sqlite3_close(db);
	image = take(box);
	assert_int_equal(judge(box, &image), PAGES_WAL_SOUND);
	return image;
}

static void flip(struct image *image, size_t i, size_t at)
{
	frame(image, i)[at] ^= 0x41;
}

static void test_one_flipped_byte(void **state)
{
	static const size_t places[] = { 0,  3,  4,  7,  8,  11, 12, 15,   16,   17,   19,
		                         20, 23, 24, 25, 27, 28, 99, 1000, 2000, 4118, 4119 };
	struct box *box = *state;
	struct image image = make_wal(box);
	size_t last = last_transaction(&image);

	assert_true(last >= 4 && frames(&image) - last > 7);
	for (size_t i = 0; i < frames(&image); i++) {
		for (size_t k = 0; k < sizeof places / sizeof *places; k++) {
			enum pages_wal verdict;

			flip(&image, i, places[k]);
			verdict = judge(box, &image);
			if (verdict != (i < last ? PAGES_WAL_DAMAGED : PAGES_WAL_TORN))
				fail_msg("frame %zu of %zu (the last transaction's first is %zu), byte %zu: %d", i,
				         frames(&image), last, places[k], verdict);
			flip(&image, i, places[k]);
		}
	}
	for (size_t at = 0; at < WAL_HEADER; at++) {
		image.wal[at] ^= 0x41;
		assert_int_equal(judge(box, &image), PAGES_WAL_DAMAGED);
		image.wal[at] ^= 0x41;
	}
	assert_int_equal(judge(box, &image), PAGES_WAL_SOUND);
	drop(&image);
}

static void test_the_tails_other_rows(void **state)
{
	struct box *box = *state;
	struct image image = make_wal(box);
	size_t last = last_transaction(&image), overflow = 0;
	struct rows found;

	for (size_t i = last; i < frames(&image); i++) {
		size_t at = 8 + (i - last) % 16; /* salts, checksum: its rows are whole */

		flip(&image, i, at);
		found = find(box, &image, PAGES_TAIL);
		for (int64_t id = 101; id <= 103; id++)
			assert_true(has_id(&found, PAGES_CHUNK, id));
		free(found.rows);
		flip(&image, i, at);
		if (frame(&image, i)[FRAME_HEADER] != 0)
			continue;
		flip(&image, i, 1000);
		found = find(box, &image, PAGES_TAIL);
		assert_true(has_id(&found, PAGES_CHUNK, 101));
		assert_false(has_id(&found, PAGES_CHUNK, 102));
		assert_true(has_id(&found, PAGES_CHUNK, 103));
		free(found.rows);
		flip(&image, i, 1000);
		overflow++;
	}
	assert_int_equal(overflow, 7);
	found = find(box, &image, PAGES_TAIL);
	assert_int_equal(found.n, 0);
	drop(&image);
}

static void assert_sure(const struct box *box, const struct image *image, int64_t id, bool sure)
{
	struct rows found = find(box, image, PAGES_ALL);

	assert_true(has_id(&found, PAGES_CHUNK, id));
	assert_int_equal(is_sure(&found, id), sure);
	free(found.rows);
}

static void test_what_was_committed(void **state)
{
	struct box *box = *state;
	struct image image = make_wal(box);
	size_t last = last_transaction(&image);

	assert_sure(box, &image, 4, true);
	assert_sure(box, &image, 101, true);
	flip(&image, last, 1000); /* torn */
	assert_sure(box, &image, 4, true);
	assert_sure(box, &image, 103, false);
	flip(&image, last, 1000);
	flip(&image, 0, 1000); /* damaged */
	assert_sure(box, &image, 4, true);
	assert_sure(box, &image, 103, false);
	flip(&image, 0, 1000);
	memset(image.wal, 0, WAL_HEADER);
	assert_sure(box, &image, 4, true);
	assert_sure(box, &image, 103, false);
	drop(&image);
	checkpoint(box);
	image = take(box);
	assert_sure(box, &image, 103, true);
	drop(&image);
}

static int on_clock(void *arg, const struct pages_row *row)
{
	*(int64_t *)arg = row->cells[1].number;
	return 0;
}

static void test_later_versions_come_later(void **state)
{
	struct box *box = *state;
	struct image image = make_wal(box);
	sqlite3 *db = open_sql(box->path);
	struct pages *pages;
	int64_t correction;
	char values[32];

	drop(&image);
	for (int i = 0; i < 20; i++) {
		snprintf(values, sizeof values, "'01234567', %d", i);
		insert(db, PAGES_CLOCK, values);
		image = take(box);
		pages = open_image(box, &image);
		correction = -1;
		assert_int_equal(pages_each(pages, PAGES_ALL, 1 << PAGES_CLOCK, 99, on_clock, &correction), 0);
		assert_int_equal(correction, i);
		pages_close(pages);
		drop(&image);
		if (i == 8 || i == 13 || i == 16) /* the WAL begins anew, with fewer frames each time */
			ask(db, "PRAGMA wal_checkpoint(PASSIVE)");
	}
	sqlite3_close(db);
}

static void test_what_lies_under_the_wal(void **state)
{
	struct box *box = *state;
	struct image image = make_wal(box);
	struct rows found;
	sqlite3 *db;

	drop(&image);
	checkpoint(box);
	db = open_sql(box->path);
	insert_chunk(db, 4, 31);
	insert_chunk(db, 104, 32);
	sqlite3_close(db);
	image = take(box);
	found = find(box, &image, PAGES_UNDER);
	assert_true(is_sure(&found, 4));
	assert_true(is_sure(&found, 102));
	assert_false(has_id(&found, PAGES_CHUNK, 104));
	assert_int_equal(count(&found, PAGES_BUFFER), 0); /* that page has no frame */
	free(found.rows);
	drop(&image);
}

/* A page that was used again has frames of both. */
static void test_rows_that_were_deleted(void **state)
{
	struct box *box = *state;
	struct image image = make_wal(box);
	sqlite3 *db = open_sql(box->path);
	struct rows found;

	drop(&image);
	insert_chunk(db, 700, 30000);
	run(db, "DELETE FROM chunk WHERE id = 700");
	insert_chunk(db, 701, 30000);
	sqlite3_close(db);
	image = take(box);
	found = find(box, &image, PAGES_ALL);
	assert_true(has_id(&found, PAGES_CHUNK, 700));
	assert_true(has_id(&found, PAGES_CHUNK, 701));
	free(found.rows);
	drop(&image);
}

static void assert_chunk(const struct box *box, const struct image *image, int64_t id)
{
	struct rows found = find(box, image, PAGES_ALL);

	assert_true(has_id(&found, PAGES_CHUNK, id));
	free(found.rows);
}

/* Chunk 102's overflow page in frame i: not in the WAL; not in the file, which has the leaf; beyond the file's end. */
static void check_overflow_page(const struct box *box, const struct image *image, size_t i)
{
	size_t page = number_at(frame(image, i));
	struct image hurt = copy_image(image);

	flip(&hurt, i, 1000);
	assert_chunk(box, &hurt, 102);
	flip(&hurt, i, 1000);
	for (size_t k = 0; k < frames(&hurt); k++) {
		if (frame(&hurt, k)[FRAME_HEADER] == 0x0d)
			memset(frame(&hurt, k) + FRAME_HEADER, 0, PAGE);
	}
	memset(hurt.file + (page - 1) * PAGE, 0, PAGE);
	assert_chunk(box, &hurt, 102);
	hurt.file_len = (page - 1) * PAGE;
	assert_chunk(box, &hurt, 102);
	drop(&hurt);
}

static void test_overflow_pages_are_looked_for_in_both(void **state)
{
	struct box *box = *state;
	struct image image = make_wal(box);
	sqlite3 *db = open_sql(box->path);
	size_t n = 0;

	drop(&image);
	ask(db, "PRAGMA wal_checkpoint(PASSIVE)");
	sqlite3_close(db);
	image = take(box);
	for (size_t i = last_transaction(&image); i < frames(&image); i++) {
		if (frame(&image, i)[FRAME_HEADER] != 0)
			continue;
		check_overflow_page(box, &image, i);
		n++;
	}
	assert_int_equal(n, 7);
	drop(&image);
}

static void test_no_header(void **state)
{
	struct box *box = *state;
	struct image image = make_wal(box);
	struct pages *pages = NULL;
	struct rows found;
	sqlite3 *db;

	/* The first WAL of all, cut short before its header was durable. */
	for (size_t len = 0; len <= WAL_HEADER; len += 8) {
		struct image cut = copy_image(&image);

		cut.wal_len = len;
		assert_int_equal(judge(box, &cut), PAGES_WAL_SOUND);
		memset(cut.wal, 0, len);
		assert_int_equal(judge(box, &cut), PAGES_WAL_SOUND);
		scribble(cut.wal, len);
		assert_int_equal(judge(box, &cut), PAGES_WAL_SOUND);
		drop(&cut);
	}
	memset(image.wal, 0, WAL_HEADER);
	assert_int_equal(judge(box, &image), PAGES_WAL_DAMAGED);
	memset(image.wal, 0, PAGE);
	assert_int_equal(judge(box, &image), PAGES_WAL_DAMAGED);
	drop(&image);

	/* With everything in the file it says nothing; that is where it begins anew. */
	db = open_sql(box->path);
	ask(db, "PRAGMA wal_checkpoint(PASSIVE)");
	sqlite3_close(db);
	image = take(box);
	assert_true(image.wal_len > WAL_HEADER);
	assert_int_equal(judge(box, &image), PAGES_WAL_SOUND);
	put(&image, copy_path(box));
	broken_at = 3;
	broken_most = WAL_HEADER;
	assert_int_equal(pages_open(copy_path(box), &pages, &box->err), 0);
	broken_at = -1;
	broken_most = SIZE_MAX;
	assert_int_equal(pages_judge_wal(pages), PAGES_WAL_DAMAGED); /* SQLite would not open it */
	pages_close(pages);
	memset(image.wal, 0, WAL_HEADER);
	assert_int_equal(judge(box, &image), PAGES_WAL_SOUND);
	found = find(box, &image, PAGES_TAIL);
	assert_int_equal(found.n, 0);
	free(found.rows);
	scribble(image.wal, PAGE);
	assert_int_equal(judge(box, &image), PAGES_WAL_SOUND);
	memset(image.wal, 0, image.wal_len);
	assert_int_equal(judge(box, &image), PAGES_WAL_DAMAGED);
	drop(&image);
}

/* All that is this WAL's own. */
static void check_behind_checkpoint(const struct box *box)
{
	static const size_t places[] = { 8, 12, 16, 23, 24, 1000, 4119 };
	struct image image = take(box);
	size_t own = 0;

	while (own < frames(&image) && memcmp(frame(&image, own) + 8, image.wal + 16, 8) == 0)
		own++;
	assert_true(own > 8);
	assert_int_equal(judge(box, &image), PAGES_WAL_SOUND);
	for (size_t i = 0; i < own; i++) {
		for (size_t k = 0; k < sizeof places / sizeof *places; k++) {
			flip(&image, i, places[k]);
			assert_int_equal(judge(box, &image), PAGES_WAL_DAMAGED);
			flip(&image, i, places[k]);
		}
	}
	drop(&image);
}

/* SQLite would take older pages from the WAL's beginning, and newer ones from the file. */
static void test_damage_behind_a_checkpoint(void **state)
{
	struct box *box = *state;
	struct image image = make_wal(box);
	sqlite3 *db = open_sql(box->path);

	drop(&image);
	ask(db, "PRAGMA wal_checkpoint(PASSIVE)");
	check_behind_checkpoint(box);
	insert_chunk(db, 1,
	             10000); /* a WAL that goes on: SQLite knows of no checkpoint that was made before its start */
	ask(db, "PRAGMA wal_checkpoint(PASSIVE)");
	insert_chunk(db, 1, 11000); /* one that begins anew */
	insert_chunk(db, 2, 12000);
	insert_chunk(db, 102, 13000);
	insert_chunk(db, 4, 31); /* one page, and older frames of it lie behind */
	ask(db, "PRAGMA wal_checkpoint(PASSIVE)");
	check_behind_checkpoint(box);
	sqlite3_close(db);
}

static void test_frames_that_the_card_does_not_give(void **state)
{
	struct box *box = *state;
	struct image image = make_wal(box);

	put(&image, copy_path(box));
	for (size_t i = 0; i <= frames(&image); i++) {
		struct pages *pages = NULL;
		struct rows found;

		broken_at = i == 0 ? 3 : WAL_HEADER + (int64_t)(i - 1) * FRAME + 500;
		image.file_len = 0; /* the file's pages of the same place are not meant */
		pages = open_image(box, &image);
		found = find_in(pages, PAGES_ALL);
		broken_at = -1;
		assert_int_equal(pages_judge_wal(pages), PAGES_WAL_DAMAGED);
		assert_true(pages_unread(pages) > 0);
		assert_true(has_id(&found, PAGES_CHUNK, 4));
		free(found.rows);
		pages_close(pages);
	}
	drop(&image);
}

/* Where the last transaction's first frame lies. */
static size_t first_difference(const struct image *before, const struct image *after)
{
	size_t i = WAL_HEADER;

	while (i < before->wal_len && memcmp(before->wal + i, after->wal + i, FRAME) == 0)
		i += FRAME;
	assert_true(i < after->wal_len);
	return i;
}

static void before_again(struct image *torn, const struct image *before, size_t from, size_t to)
{
	size_t there = from < before->wal_len ? before->wal_len - from : 0;

	there = there < to - from ? there : to - from;
	memcpy(torn->wal + from, before->wal + from, there);
	memset(torn->wal + from + there, 0, to - from - there);
}

/* Of each sector, or page, what was there before, or what was to be there. */
static void tear(struct image *torn, const struct image *before, const struct image *after, size_t from)
{
	uint32_t lost = pick(6);
	size_t grain = pick(2) == 0 ? SECTOR : PAGE, to;

	memcpy(torn->wal, after->wal, after->wal_len);
	torn->wal_len = after->wal_len;
	for (size_t at = from; at < after->wal_len; at = to) {
		to = at - at % grain + grain;
		to = to < after->wal_len ? to : after->wal_len;
		if (pick(5) < lost)
			before_again(torn, before, at, to);
	}
	if (before->wal_len < after->wal_len && pick(2) == 0)
		torn->wal_len = before->wal_len + pick((uint32_t)(after->wal_len - before->wal_len));
}

static void check_cuts(const struct box *box, const struct image *before, const struct image *after)
{
	size_t from = first_difference(before, after);
	struct image torn = copy_image(after);
	int seen[3] = { 0 };

	for (int i = 0; i < 300; i++) {
		enum pages_wal verdict;

		tear(&torn, before, after, from);
		verdict = judge(box, &torn);
		assert_int_not_equal(verdict, PAGES_WAL_DAMAGED);
		seen[verdict]++;
	}
	assert_true(seen[PAGES_WAL_TORN] > 100 && seen[PAGES_WAL_SOUND] > 0);
	drop(&torn);
}

static void commit_some(sqlite3 *db, int64_t id)
{
	run(db, "BEGIN");
	for (int i = 0; i < 4; i++)
		insert_chunk(db, id + i, 4000 * i);
	run(db, "COMMIT");
}

/* SQLite passes over a frame that is not all there, also where nothing but zeros is missing. */
static void test_a_frame_cut_short(void **state)
{
	struct box *box = *state;
	struct image image = make_wal(box);
	sqlite3 *db = open_sql(box->path);

	/* Its leaf is there, and free pages do not suffice: the last one is a new overflow page, full of zeros. */
	insert_chunk(db, 1000, 50);
	insert(db, PAGES_CHUNK,
	       "1001, 'sql', 'pi-01', '01234567', 1, 20000, 100, 1, 5, 6, 7, x'', 99, zeroblob(99000)");
	sqlite3_close(db);
	drop(&image);
	image = take(box);
	assert_int_equal(image.wal[image.wal_len - 1], 0);
	assert_int_equal(judge(box, &image), PAGES_WAL_SOUND);
	image.wal_len--;
	assert_int_equal(judge(box, &image), PAGES_WAL_TORN);
	assert_sure(box, &image, 1001, false);
	drop(&image);
}

/* In the first WAL, which only grows, and in those that began anew over it. */
static void test_power_cuts(void **state)
{
	struct box *box = *state;
	struct image before, after;
	sqlite3 *db;

	box_close(box);
	checkpoint(box);
	db = open_sql(box->path);
	for (int round = 0; round < 6; round++) {
		for (int i = 0; i < 4; i++)
			insert_chunk(db, round * 100 + i, 100 + 700 * i * round);
		before = take(box);
		commit_some(db, round * 100 + 10);
		after = take(box);
		assert_int_equal(judge(box, &after), PAGES_WAL_SOUND);
		assert_int_equal(before.wal_len < after.wal_len, round < 3);
		check_cuts(box, &before, &after);
		drop(&before);
		drop(&after);
		if (round >= 2)
			ask(db, "PRAGMA wal_checkpoint(PASSIVE)"); /* the next commit begins anew */
	}
	sqlite3_close(db);
}

/* First the header, made durable by itself, then the frames. */
static void test_power_cuts_where_the_wal_begins_anew(void **state)
{
	struct box *box = *state;
	struct image before, after, torn;
	sqlite3 *db;

	before = make_wal(box);
	drop(&before);
	db = open_sql(box->path);
	insert_chunk(db, 5, 100);
	ask(db, "PRAGMA wal_checkpoint(PASSIVE)");
	before = take(box);
	commit_some(db, 200);
	after = take(box);
	sqlite3_close(db);
	assert_int_equal(before.wal_len, after.wal_len);
	assert_memory_not_equal(before.wal, after.wal, WAL_HEADER);

	torn = copy_image(&before);
	for (int i = 0; i < 100; i++) {
		for (size_t at = 0; at < WAL_HEADER; at++)
			torn.wal[at] = i % 3 == 0 ? (unsigned char)pick(256) : (pick(2) ? &before : &after)->wal[at];
		assert_int_equal(judge(box, &torn), PAGES_WAL_SOUND);
	}
	memcpy(torn.wal, after.wal, WAL_HEADER);
	assert_int_equal(judge(box, &torn), PAGES_WAL_SOUND);
	drop(&torn);
	memcpy(before.wal, after.wal, WAL_HEADER);
	check_cuts(box, &before, &after);

	/* Its one transaction is not in the file; all that lies behind is. */
	memset(after.wal, 0, WAL_HEADER);
	assert_int_equal(judge(box, &after), PAGES_WAL_DAMAGED);
	drop(&before);
	drop(&after);
}

/* Chunks from 1000 on are there, and none of them was committed. */
static void assert_rolled_back(const struct box *box, const struct image *image)
{
	struct rows found = find(box, image, PAGES_ALL);
	size_t n = 0;

	for (size_t i = 0; i < found.n; i++) {
		if (found.rows[i].table != PAGES_CHUNK || found.rows[i].id < 1000)
			continue;
		assert_false(found.rows[i].sure);
		n++;
	}
	assert_true(n > 0);
	free(found.rows);
}

static void test_what_was_rolled_back(void **state)
{
	struct box *box = *state;
	struct image image = make_wal(box);
	sqlite3 *db = open_sql(box->path);
	struct rows found;

	run(db, "PRAGMA cache_size = 10");
	for (int round = 0; round < 5; round++) {
		run(db, "BEGIN");
		for (int i = 0; i < 30 - 5 * round; i++)
			insert_chunk(db, 1000 + i, 10000);
		run(db, "ROLLBACK");
		drop(&image);
		image = take(box);
		assert_int_equal(judge(box, &image), PAGES_WAL_TORN);
		assert_rolled_back(box, &image);
		insert_chunk(db, 500 + round, 5000);
		drop(&image);
		image = take(box);
		assert_int_equal(judge(box, &image), PAGES_WAL_TORN);
	}
	found = find(box, &image, PAGES_TAIL);
	assert_true(count(&found, PAGES_CHUNK) > 0);
	free(found.rows);
	assert_sure(box, &image, 504, true);
	assert_rolled_back(box, &image);
	drop(&image);
	ask(db, "PRAGMA wal_checkpoint(PASSIVE)");
	image = take(box);
	assert_int_equal(judge(box, &image), PAGES_WAL_TORN);
	insert_chunk(db, 600, 50); /* begins anew: all that lies behind is older */
	drop(&image);
	image = take(box);
	assert_int_equal(judge(box, &image), PAGES_WAL_SOUND);
	assert_sure(box, &image, 600, true);
	assert_rolled_back(box, &image);
	sqlite3_close(db);
	drop(&image);
}

/* What two runs make of the same WAL, the second one laid over the first. */
static struct image overlay(struct box *box, const struct image *base, int n_first)
{
	struct image first, second;
	sqlite3 *db;

	put(base, box->path);
	db = open_sql(box->path);
	for (int i = 0; i < n_first; i++)
		commit_some(db, 2000 + 10 * i);
	sqlite3_close(db);
	first = take(box);
	put(base, box->path);
	db = open_sql(box->path);
	insert_chunk(db, 3000, 50);
	sqlite3_close(db);
	second = take(box);
	assert_true(second.wal_len < first.wal_len);
	memcpy(first.wal, second.wal, second.wal_len);
	drop(&second);
	return first;
}

/* A commit that was all written, but never durable, and so was rolled back: the next one begins where it began. */
static void test_a_commit_that_failed(void **state)
{
	struct box *box = *state;
	struct image base = make_wal(box), laid = overlay(box, &base, 1);

	assert_true(number_at(frame(&laid, frames(&laid) - 1) + 4) > 0);
	assert_int_equal(judge(box, &laid), PAGES_WAL_TORN);
	drop(&laid);
	laid = overlay(box, &base, 2); /* another one was built on it: it was durable */
	assert_int_equal(judge(box, &laid), PAGES_WAL_DAMAGED);
	drop(&laid);
	drop(&base);
}

/* What kill -9 leaves between two calls. */
static void check_running(const struct box *box, size_t *longest, unsigned char header[WAL_HEADER], int *begun)
{
	struct image image = take(box);

	assert_int_equal(judge(box, &image), PAGES_WAL_SOUND);
	if (*longest < image.wal_len)
		*longest = image.wal_len;
	*begun += memcmp(image.wal, header, WAL_HEADER) != 0;
	memcpy(header, image.wal, WAL_HEADER);
	drop(&image);
}

/* With WALs that grow, are full, are all in the file, and begin anew. */
static void test_a_running_workload_is_sound(void **state)
{
	struct box *box = *state;
	unsigned char header[WAL_HEADER] = { 0 };
	size_t longest = 0;
	int begun = 0, r;
	bool done;

	random_state = 7;
	box_route(box, 1, 1 << 20, 100000);
	for (int i = 0; i < 90; i++) {
		add_noise(box, i % 3 == 0 ? "a" : "b", i * 1000, 4, 16000);
		check_running(box, &longest, header, &begun);
		for (r = QUEUE_STEP; i % 10 == 9 && r > 0;) {
			r = box_step(box, i * 1000, true);
			assert_true(r >= 0);
			check_running(box, &longest, header, &begun);
			if (r == 1)
				assert_int_equal(queue_delivered(box->q, box->batch.id, "lake", NOON, &done, &box->err),
				                 0);
		}
		if (i % 20 == 19)
			assert_true(queue_expire(box->q, NOON + DAY, 0, &box->err) >= 0);
		if (i == 50)
			box_reopen(box);
	}
	assert_true(longest > (size_t)1000 * FRAME);
	assert_true(begun > 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOX_TEST(test_rows_of_every_table),
		BOX_TEST(test_only_what_was_asked_for),
		BOX_TEST(test_rows_of_earlier_schemas),
		BOX_TEST(test_values_that_no_row_of_ours_has),
		BOX_TEST(test_files_that_are_missing_or_foreign),
		BOX_TEST(test_cells_that_lie),
		BOX_TEST(test_pages_that_the_card_does_not_give),
		BOX_TEST(test_rows_on_sound_pages_are_found),
		BOX_TEST(test_random_damage_of_the_wal),
		BOX_TEST(test_one_flipped_byte),
		BOX_TEST(test_the_tails_other_rows),
		BOX_TEST(test_what_was_committed),
		BOX_TEST(test_later_versions_come_later),
		BOX_TEST(test_what_lies_under_the_wal),
		BOX_TEST(test_rows_that_were_deleted),
		BOX_TEST(test_overflow_pages_are_looked_for_in_both),
		BOX_TEST(test_no_header),
		BOX_TEST(test_damage_behind_a_checkpoint),
		BOX_TEST(test_frames_that_the_card_does_not_give),
		BOX_TEST(test_a_frame_cut_short),
		BOX_TEST(test_power_cuts),
		BOX_TEST(test_power_cuts_where_the_wal_begins_anew),
		BOX_TEST(test_what_was_rolled_back),
		BOX_TEST(test_a_commit_that_failed),
		BOX_TEST(test_a_running_workload_is_sound),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
