/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The buffer's file: is it ours, is it free, and is its schema one that we know? Each question is asked by reading
 * alone; only then anything is written.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "buffer/pages.h"
#include "buffer/queue_private.h"
#include "buffer/schema.h"

#define APPLICATION_ID 0x4d696c6c /* "Mill" */
#define MODE           0640
#define FUTURE_MOST    99 /* a schema with a higher number is a damaged one */
#define ROW_MAX        65536

/* The database header, https://sqlite.org/fileformat2.html §1.3. */
#define HEADER_SIZE        100
#define HEADER_VERSION     60
#define HEADER_APPLICATION 68

/* Where SQLite locks, https://sqlite.org/src/file?name=src/os.h: the pending byte, the reserved one, 510 shared ones.
 */
#define LOCK_START 0x40000000
#define LOCK_LEN   512

static uint32_t header_number(const unsigned char *header, int at)
{
	uint32_t value;

	memcpy(&value, header + at, sizeof value);
	return be32toh(value);
}

static int refuse_foreign(const struct queue *q, struct err *err)
{
	return err_fail(err, -EMEDIUMTYPE,
	                "\"%s\" is no buffer of Millrace, and was left as it is: set another path, or move it away to "
	                "begin anew",
	                q->path);
}

static int refuse_newer(const struct queue *q, int64_t version, struct err *err)
{
	return err_fail(err, -EPROTONOSUPPORT,
	                "buffer \"%s\" has schema %lld, this program knows %d: a newer Millrace wrote it", q->path,
	                (long long)version, buffer_schema_count);
}

/* --- SQLite --- */

static int execute(struct queue *q, const char *sql, struct err *err)
{
	return sqlite3_exec(q->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : queue_fail(q, err, "open");
}

/* The number that a PRAGMA answers with; 0 where its answer is "wal". */
static int ask(struct queue *q, const char *pragma, int64_t *ret_number, struct err *err)
{
	sqlite3_stmt *stmt = NULL;
	int r = 0;

	if (sqlite3_prepare_v2(q->db, pragma, -1, &stmt, NULL) != SQLITE_OK || sqlite3_step(stmt) != SQLITE_ROW)
		r = queue_fail(q, err, "open");
	else if (sqlite3_column_type(stmt, 0) == SQLITE_INTEGER)
		*ret_number = sqlite3_column_int64(stmt, 0);
	else
		*ret_number = strcmp((const char *)sqlite3_column_text(stmt, 0), "wal") == 0 ? 0 : -1;
	sqlite3_finalize(stmt);
	return r;
}

/*
 * locking_mode comes before all that reads: only then the WAL needs no shared memory, and the first read takes the file
 * for us. secure_delete is on in Debian's SQLite and would write every freed page once more.
 */
static const char settings[] = "PRAGMA locking_mode = EXCLUSIVE;"
                               "PRAGMA page_size = 4096;"
                               "PRAGMA temp_store = MEMORY;"
                               "PRAGMA mmap_size = 0;"
                               "PRAGMA cache_size = -1000;"
                               "PRAGMA auto_vacuum = NONE;"
                               "PRAGMA secure_delete = OFF;"
                               "PRAGMA synchronous = FULL;"
                               "PRAGMA trusted_schema = OFF;";

static int open_database(struct queue *q, struct err *err)
{
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
	int on = 1;

	if (sqlite3_open_v2(q->path, &q->db, flags, NULL) != SQLITE_OK)
		return q->db ? queue_fail(q, err, "open") : err_fail(err, -ENOMEM, "buffer: no memory");
	sqlite3_db_config(q->db, SQLITE_DBCONFIG_LOOKASIDE, NULL, 256, 32);
	/*
	 * A close only closes: a file that is refused stays as it is, and the daemon's end does not wait for a slow
	 * card. The WAL is bounded without it.
	 */
	sqlite3_db_config(q->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	sqlite3_file_control(q->db, NULL, SQLITE_FCNTL_PERSIST_WAL, &on);
	sqlite3_wal_autocheckpoint(q->db, WAL_PAGES);
	return execute(q, settings, err);
}

/* What the WAL says may be newer than the header that check_header saw. */
static int check_schema(struct queue *q, int64_t *ret_version, struct err *err)
{
	int64_t application = 0, version = 0, pages = 0;
	int r = ask(q, "PRAGMA application_id", &application, err);

	if (r == 0)
		r = ask(q, "PRAGMA user_version", &version, err);
	if (r == 0)
		r = ask(q, "PRAGMA page_count", &pages, err);
	if (r < 0)
		return r;
	if (pages > 0 && application != APPLICATION_ID)
		return refuse_foreign(q, err);
	if (version < 0 || version > buffer_schema_count)
		return refuse_newer(q, version, err);
	*ret_version = version;
	return 0;
}

/* One schema file together with its number; the first also brings the application's id, and so there is no moment at
 * which the file has content and is not ours. */
static int apply_schema(struct queue *q, int version, struct err *err)
{
	char numbers[96];
	int r;

	snprintf(numbers, sizeof numbers, "PRAGMA application_id = %d; PRAGMA user_version = %d; COMMIT;",
	         APPLICATION_ID, version);
	r = execute(q, "BEGIN EXCLUSIVE", err);
	if (r == 0)
		r = execute(q, buffer_schema[version - 1], err);
	if (r == 0)
		r = execute(q, numbers, err);
	if (r < 0 && !sqlite3_get_autocommit(q->db))
		sqlite3_exec(q->db, "ROLLBACK", NULL, NULL, NULL);
	return r;
}

/* --- The tables --- */

/*
 * Names and columns of all tables and indices, as SQLite reads them out of the schema's text; not of its own ones, some
 * of which a VACUUM takes away.
 */
static const char shape_sql[] = "SELECT m.type, m.name, m.tbl_name, x.cid, x.name, x.type, x.\"notnull\", x.pk "
                                "FROM sqlite_master AS m LEFT JOIN pragma_table_xinfo(m.name) AS x "
                                "WHERE m.name NOT LIKE 'sqlite_%' ORDER BY m.type, m.name, x.cid";

static int read_shape(struct queue *q, uint32_t *ret_shape, struct err *err)
{
	sqlite3_stmt *stmt = NULL;
	uint32_t shape = 0;
	int code = sqlite3_prepare_v2(q->db, shape_sql, -1, &stmt, NULL);

	while (code == SQLITE_OK && (code = sqlite3_step(stmt)) == SQLITE_ROW) {
		for (int i = 0; i < sqlite3_column_count(stmt); i++) {
			const void *text = sqlite3_column_text(stmt, i);

			shape = (uint32_t)crc32(shape, text, (uInt)sqlite3_column_bytes(stmt, i));
			shape = (uint32_t)crc32(shape, (const Bytef *)",", 1);
		}
		code = SQLITE_OK;
	}
	sqlite3_finalize(stmt);
	*ret_shape = shape;
	return code == SQLITE_DONE ? 0 : queue_fail(q, err, "open");
}

/* Of a buffer as this program makes it. */
static int make_shape(uint32_t *ret_shape, struct err *err)
{
	const struct queue_identity nobody = { .device = "", .kernel_boot_id = "" };
	struct queue *q = queue_new(":memory:", &nobody);
	int r = q ? open_database(q, err) : err_fail(err, -ENOMEM, "buffer: no memory");

	if (r == 0)
		r = queue_add_functions(q, err);
	for (int version = 0; r == 0 && version < buffer_schema_count; version++)
		r = apply_schema(q, version + 1, err);
	if (r == 0)
		r = read_shape(q, ret_shape, err);
	queue_close(q);
	return r;
}

/* The file's own, whatever its number says, without the WAL: nothing is written, and nothing made beside it. */
static bool has_our_shape(struct queue *q)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._/";
	char uri[3 * 4096 + 32] = "file:";
	uint32_t ours, shape;
	size_t len = strlen(uri);
	struct err ignored;
	bool damaged = q->damaged, same;

	for (const char *c = q->path; *c && len < sizeof uri - 16; c++)
		len += (size_t)sprintf(uri + len, strchr(plain, *c) ? "%c" : "%%%02X", (unsigned char)*c);
	strcpy(uri + len, "?immutable=1");
	same = sqlite3_open_v2(uri, &q->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, NULL) == SQLITE_OK &&
	       read_shape(q, &shape, &ignored) == 0 && make_shape(&ours, &ignored) == 0 && shape == ours;
	sqlite3_close(q->db);
	q->db = NULL;
	q->damaged = damaged;
	return same;
}

/*
 * The text of the schema has no checksum. Where it says by a single byte that an id is no key, SQLite finds no row any
 * more, without an error.
 */
static int check_shape(struct queue *q, struct err *err)
{
	uint32_t ours = 0, shape = 0;
	int r = make_shape(&ours, err);

	if (r == 0)
		r = read_shape(q, &shape, err);
	if (r < 0)
		return r;
	return shape == ours ? 0 : queue_damaged(q, err, "schema", buffer_schema_count, "its tables are not ours");
}

/* --- What SQLite must not see --- */

static int on_any_row(void *arg, const struct pages_row *row)
{
	bool *any = arg;

	(void)row;
	*any = true;
	return 1;
}

/* It is damaged if any row in it is one of ours. */
static int look_for_rows(struct queue *q, struct err *err)
{
	struct pages *pages;
	bool any = false;
	int r = pages_open(q->path, &pages, err);

	if (r < 0)
		return r;
	r = pages_each(pages, PAGES_ALL, ~0U, ROW_MAX, on_any_row, &any);
	if (r == 0 && !any)
		r = pages_each(pages, PAGES_ALL, ~0U, CHUNK_PLAIN_MAX, on_any_row, &any);
	pages_close(pages);
	if (r < 0)
		return err_fail(err, r, "buffer: no memory");
	return any ? queue_damaged(q, err, "header", 1, "it is none") : refuse_foreign(q, err);
}

static int look_at_wal(struct queue *q, struct err *err)
{
	struct pages *pages;
	int r = pages_open(q->path, &pages, err);

	if (r < 0)
		return r;
	switch (pages_judge_wal(pages)) {
	case PAGES_WAL_DAMAGED:
		r = queue_damaged(q, err, "write-ahead log", 1, "its checksums are wrong");
		break;
	case PAGES_WAL_TORN:
	case PAGES_WAL_SOUND:
		r = queue_note_tail(q, pages, err);
		break;
	}
	pages_close(pages);
	return r;
}

/* A file without content: a new one, or all that is left is a WAL. */
static int look_beside(struct queue *q, struct err *err)
{
	struct err ignored;

	if (queue_file_size(q, "-wal") == 0 || look_for_rows(q, &ignored) == -EMEDIUMTYPE)
		return 0;
	return queue_damaged(q, err, "header", 1, "it is gone");
}

/*
 * What stands in the header of every buffer, fileformat2.html §1.3. SQLite takes other values there for a file that it
 * may only read, or whose pages have other uses, for ever.
 */
static bool header_is_ours(const unsigned char *header)
{
	static const struct {
		int at, len;
		unsigned char bytes[20];
	} fixed[] = {
		{ 16, 2, { 4096 >> 8, 0 } }, { 20, 4, { 0, 64, 32, 32 } }, /* bytes kept of a page, fractions */
		{ 44, 4, { 0, 0, 0, 4 } },                                 /* format */
		{ 52, 4, { 0, 0, 0, 0 } },                                 /* auto_vacuum */
		{ 56, 4, { 0, 0, 0, 1 } },                                 /* UTF-8 */
		{ 64, 4, { 0, 0, 0, 0 } },                                 /* incremental vacuum */
		{ 72, 20, { 0 } },
	};

	for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
		if (memcmp(header + fixed[i].at, fixed[i].bytes, (size_t)fixed[i].len) != 0)
			return false;
	}
	/* A WAL; or none yet. */
	return header[18] == header[19] && (header[18] == 1 || header[18] == 2);
}

/*
 * SQLite itself writes to a file that it only looks at (it makes a WAL, or rolls a journal back), so a foreign one must
 * be known before SQLite sees it. Zeros with a journal beside them are our own first transaction, cut short.
 */
static int check_header(struct queue *q, const unsigned char *header, struct err *err)
{
	static const unsigned char zeros[HEADER_SIZE];
	char journal[4096];
	struct stat st;

	snprintf(journal, sizeof journal, "%s-journal", q->path);
	if (memcmp(header, zeros, HEADER_SIZE) == 0 && stat(journal, &st) == 0 && st.st_size > 0)
		return 0;
	if (memcmp(header, "SQLite format 3", 16) != 0 || header_number(header, HEADER_APPLICATION) != APPLICATION_ID)
		return look_for_rows(q, err);
	if (!header_is_ours(header))
		return queue_damaged(q, err, "header", 1, "it says what no buffer's does");
	if (header_number(header, HEADER_VERSION) > FUTURE_MOST)
		return queue_damaged(q, err, "header", 1, "no schema has that number");
	if (header_number(header, HEADER_VERSION) > (uint32_t)buffer_schema_count && has_our_shape(q))
		return queue_damaged(q, err, "header", 1, "it has another schema's number");
	if (header_number(header, HEADER_VERSION) > (uint32_t)buffer_schema_count)
		return refuse_newer(q, header_number(header, HEADER_VERSION), err);
	return look_at_wal(q, err);
}

static int refuse_path(const char *path, int code, struct err *err)
{
	if (code == -EROFS)
		return err_fail(err, code,
		                "the buffer \"%s\" is on a file system that is read-only: remount it for writing, or "
		                "replace a card that no longer takes any",
		                path);
	return err_place(err, code, "buffer", path);
}

/* SQLite makes a WAL beside the file, so the folder must be writable though the file is there. */
int queue_check_path(const char *path, struct err *err)
{
	const char *slash = strrchr(path, '/');
	char folder[4096];

	snprintf(folder, sizeof folder, "%.*s.", slash ? (int)(slash - path) + 1 : 0, path);
	if (access(folder, W_OK | X_OK) < 0)
		return refuse_path(path, -errno, err);
	if (access(path, R_OK | W_OK) < 0 && errno != ENOENT)
		return refuse_path(path, -errno, err);
	return 0;
}

int queue_look(struct queue *q, struct err *err)
{
	unsigned char header[HEADER_SIZE] = { 0 };
	int fd = open(q->path, O_RDWR | O_CREAT | O_CLOEXEC, MODE);
	ssize_t n;
	int r = 0;

	if (fd < 0)
		return refuse_path(q->path, -errno, err);
	n = pread(fd, header, sizeof header, 0);
	if (n < 0)
		r = err_fail(err, -errno, "buffer \"%s\": %s", q->path, strerror(errno));
	close(fd);
	if (r == 0)
		r = n > 0 ? check_header(q, header, err) : look_beside(q, err);
	return r;
}

/* --- Opening --- */

int queue_sync_folder(const char *path, struct err *err)
{
	const char *slash = strrchr(path, '/');
	char folder[4096];
	int fd, r = 0;

	snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0)
		r = err_fail(err, -errno, "buffer's folder \"%s\": %s", folder, strerror(errno));
	if (fd >= 0)
		close(fd);
	return r;
}

static int make_ready(struct queue *q, struct err *err)
{
	int64_t version = 0, wal = 0;
	int r = check_schema(q, &version, err);

	if (r == 0)
		r = queue_add_functions(q, err);
	for (; r == 0 && version < buffer_schema_count; version++)
		r = apply_schema(q, (int)version + 1, err);
	if (r == 0)
		r = check_shape(q, err);
	if (r == 0)
		r = ask(q, "PRAGMA journal_mode = WAL", &wal, err);
	if (r == 0 && wal != 0)
		r = err_fail(err, -EIO, "buffer \"%s\": this file system takes no write-ahead log", q->path);
	if (r == 0)
		r = queue_sync_folder(q->path, err); /* each time: the run that made it may have been killed before */
	return r;
}

static ino_t file_number(const struct queue *q, const char *suffix, dev_t *ret_dev)
{
	char path[4096];
	struct stat st;

	snprintf(path, sizeof path, "%s%s", q->path, suffix);
	if (stat(path, &st) < 0)
		return 0;
	*ret_dev = st.st_dev;
	return st.st_ino;
}

void queue_note_files(struct queue *q)
{
	q->files.file = file_number(q, "", &q->files.dev);
	q->files.wal = file_number(q, "-wal", &q->files.dev);
}

/* What is written into a file that has no name any more ends with the process. */
int queue_check_files(const struct queue *q, struct err *err)
{
	dev_t dev = q->files.dev;

	if ((q->files.file == 0 || file_number(q, "", &dev) == q->files.file) &&
	    (q->files.wal == 0 || file_number(q, "-wal", &dev) == q->files.wal) && dev == q->files.dev)
		return 0;
	return err_fail(err, -EIO,
	                "the buffer \"%s\" or its -wal was removed or replaced while it is in use: put back what was "
	                "there, or save what no store has (millrace export) and restart the daemon",
	                q->path);
}

/*
 * Whose lock keeps us out. Only after our own handle is closed: closing any descriptor of a file drops all locks that
 * the process has on it (fcntl(2)).
 */
int queue_name_owner(const char *path, struct err *err)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LOCK_START, .l_len = LOCK_LEN };
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0 || fcntl(fd, F_GETLK, &lock) < 0 || lock.l_type == F_UNLCK)
		lock.l_pid = 0;
	if (fd >= 0)
		close(fd);
	if (lock.l_pid > 0)
		return err_fail(err, -EBUSY, "buffer \"%s\" is in use by process %ld", path, (long)lock.l_pid);
	return err_fail(err, -EBUSY, "buffer \"%s\" is in use by another process", path);
}

/*
 * Keeps other processes from the file while it is looked at or salvaged, as SQLite does while it is open: with a lock
 * that is the descriptor's, which other descriptors of this process do not drop when they are closed; and which would
 * keep out SQLite's own. *ret_fd: to be closed; -1: there is no file yet.
 */
int queue_lock(const struct queue *q, int *ret_fd, struct err *err)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LOCK_START, .l_len = LOCK_LEN };
	int fd = open(q->path, O_RDWR | O_CLOEXEC);

	if (fd >= 0 && fcntl(fd, F_OFD_SETLK, &lock) < 0 && (errno == EAGAIN || errno == EACCES)) {
		close(fd);
		return queue_name_owner(q->path, err);
	}
	*ret_fd = fd;
	return 0;
}

void queue_shut(struct queue *q)
{
	queue_seal_free(q);
	queue_import_free(q);
	for (int i = 0; i < SQL_STATEMENTS; i++) {
		sqlite3_finalize(q->statements[i]);
		q->statements[i] = NULL;
	}
	sqlite3_close(q->db);
	q->db = NULL;
}

int queue_open_file(struct queue *q, struct err *err)
{
	int r = open_database(q, err);

	if (r == 0)
		r = make_ready(q, err);
	return r == 0 ? queue_prepare(q, err) : r;
}

/* No journal and no fsync: where it comes to nothing it is deleted. */
int queue_open_fresh(struct queue *q, struct err *err)
{
	int r = queue_look(q, err);

	if (r == 0)
		r = open_database(q, err);
	if (r == 0)
		r = execute(q, "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;", err);
	if (r == 0)
		r = queue_add_functions(q, err);
	for (int version = 0; r == 0 && version < buffer_schema_count; version++)
		r = apply_schema(q, version + 1, err);
	if (r == 0)
		r = queue_prepare(q, err);
	return r == 0 ? queue_load(q, err) : r;
}
