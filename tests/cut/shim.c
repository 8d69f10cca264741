/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/cut/shim.h"

#include <assert.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/cut/chance.h"

#define FILES   16
#define SECTOR  512
#define LOG_MAX ((size_t)1 << 30) /* bytes of one file; only a sabotage comes near */

/* A write or a truncation that was not synced. What it takes to undo it lies in the file's log; see swap. */
struct change {
	bool truncates;
	uint64_t serial; /* over all files */
	int64_t offset;  /* of the write; or the new size */
	int64_t old_size;
	size_t at, len; /* in the log */
};

struct file {
	char path[256];
	int64_t size;
	struct change *changes;
	size_t n, capacity;
	unsigned char *log;
	size_t log_len, log_capacity;
};

struct handle {
	sqlite3_file base;
	struct file *file; /* NULL: a temporary one, which nobody finds after a cut */
	int flags;         /* as it was opened */
	sqlite3_file *real;
};

static sqlite3_vfs *unix_vfs;
static struct file files[FILES];
static uint64_t serial, random_state, checkpointed;
static bool ignores_sync;
static int wals; /* open ones */

/* --- The power --- */

static struct {
	uint64_t calls, cut_at;
	bool dark, in_checkpoint;
} power;

void shim_cut_at(uint64_t n)
{
	power.calls = 0;
	power.cut_at = n;
}

uint64_t shim_changes(void)
{
	return power.calls;
}

bool shim_is_dark(void)
{
	return power.dark;
}

bool shim_was_in_checkpoint(void)
{
	return power.in_checkpoint;
}

uint64_t shim_checkpointed(void)
{
	return checkpointed;
}

static bool is_checkpoint(const struct handle *handle)
{
	return handle && handle->flags & SQLITE_OPEN_MAIN_DB && wals > 0;
}

/* Before each call that changes or syncs: whether there is no power for it. */
static bool goes_dark(const struct handle *handle)
{
	if (power.dark)
		return true;
	if (++power.calls != power.cut_at)
		return false;
	power.dark = true;
	power.in_checkpoint = is_checkpoint(handle);
	return true;
}

/* --- Faults --- */

static struct {
	uint64_t calls, n;
	bool for_good;
	enum shim_fault fault;
	const char *call;
	bool disarmed;
} plan = { .call = "" };

void shim_fail(uint64_t n, bool for_good, enum shim_fault fault)
{
	plan.n = n;
	if (n == 0)
		return;
	plan.calls = 0;
	plan.for_good = for_good;
	plan.fault = fault;
	plan.call = "";
}

void shim_arm(bool on)
{
	plan.disarmed = !on;
}

uint64_t shim_calls(void)
{
	return plan.calls;
}

bool shim_has_failed(void)
{
	return plan.n > 0 && plan.calls >= plan.n;
}

const char *shim_failed_call(void)
{
	return plan.call;
}

static bool fails(const char *call)
{
	if (plan.n == 0 || plan.disarmed || (plan.fault == SHIM_FULL && strcmp(call, "xWrite") != 0))
		return false;
	plan.calls++;
	if (plan.calls == plan.n)
		plan.call = call;
	return plan.for_good ? plan.calls >= plan.n : plan.calls == plan.n;
}

/* --- What was not synced --- */

static void *grown(void *array, size_t *capacity, size_t need, size_t size)
{
	size_t now = *capacity ? *capacity : 64;
	void *larger;

	if (need <= *capacity)
		return array;
	while (now < need)
		now *= 2;
	larger = realloc(array, now * size);
	if (!larger || now * size > LOG_MAX) {
		fprintf(stderr, "shim: too much was written without a sync\n");
		abort();
	}
	*capacity = now;
	return larger;
}

/* NULL: SQLite has not written to it. */
static struct file *known_file(const char *path)
{
	for (int i = 0; i < FILES; i++) {
		if (strcmp(files[i].path, path) == 0)
			return &files[i];
	}
	return NULL;
}

static struct file *find_file(const char *path)
{
	struct file *file = known_file(path);

	if (file)
		return file;
	for (int i = 0; i < FILES; i++) {
		if (files[i].path[0] == '\0') {
			assert(strlen(path) < sizeof files[i].path);
			memcpy(files[i].path, path, strlen(path) + 1);
			return &files[i];
		}
	}
	abort();
}

static void forget_changes(struct file *file)
{
	file->n = 0;
	file->log_len = 0;
}

/* Room for len bytes in the file's log, and a change that has them. */
static unsigned char *note(struct file *file, bool truncates, int64_t offset, size_t len)
{
	file->changes = grown(file->changes, &file->capacity, file->n + 1, sizeof *file->changes);
	file->log = grown(file->log, &file->log_capacity, file->log_len + len, 1);
	serial++;
	file->changes[file->n++] = (struct change){
		.truncates = truncates,
		.serial = serial,
		.offset = offset,
		.old_size = file->size,
		.at = file->log_len,
		.len = len,
	};
	file->log_len += len;
	return file->log + file->log_len - len;
}

static int read_old(const struct handle *handle, unsigned char *to, size_t len, int64_t offset)
{
	int r;

	memset(to, 0, len);
	if (len == 0 || offset >= handle->file->size)
		return SQLITE_OK;
	r = handle->real->pMethods->xRead(handle->real, to, (int)len, offset);
	return r == SQLITE_IOERR_SHORT_READ ? SQLITE_OK : r;
}

static int note_write(const struct handle *handle, int n, int64_t offset)
{
	struct file *file = handle->file;
	int r;

	if (!file)
		return SQLITE_OK;
	r = read_old(handle, note(file, false, offset, (size_t)n), (size_t)n, offset);
	if (offset + n > file->size)
		file->size = offset + n;
	return r;
}

static int note_truncate(const struct handle *handle, int64_t size)
{
	struct file *file = handle->file;
	size_t tail = file && file->size > size ? (size_t)(file->size - size) : 0;
	int r;

	if (!file)
		return SQLITE_OK;
	r = read_old(handle, note(file, true, size, tail), tail, size);
	file->size = size;
	return r;
}

/* --- The cut --- */

static void put(int fd, const unsigned char *data, size_t len, int64_t offset)
{
	if (pwrite(fd, data, len, offset) != (ssize_t)len) {
		perror("shim: pwrite");
		abort();
	}
}

static void resize(int fd, int64_t size)
{
	if (ftruncate(fd, size) < 0) {
		perror("shim: ftruncate");
		abort();
	}
}

/* Takes the last change back that is still there; of a write the log then has what it wrote. */
static void undo(struct file *file, int fd, const struct change *change)
{
	unsigned char *log = file->log + change->at, *wrote;
	int64_t old = change->old_size - change->offset; /* so much of it was there before */

	if (change->truncates) {
		resize(fd, change->old_size);
		if (change->len > 0)
			put(fd, log, change->len, change->offset);
		return;
	}
	wrote = malloc(change->len);
	if (!wrote || pread(fd, wrote, change->len, change->offset) != (ssize_t)change->len)
		abort();
	if (old > 0)
		put(fd, log, old < (int64_t)change->len ? (size_t)old : change->len, change->offset);
	if (old < (int64_t)change->len)
		resize(fd, change->old_size);
	memcpy(log, wrote, change->len);
	free(wrote);
}

static void redo(const struct file *file, int fd, const struct change *change)
{
	if (change->truncates)
		resize(fd, change->offset);
	else
		put(fd, file->log + change->at, change->len, change->offset);
}

/* Some of the sectors that it wrote. */
static void redo_torn(const struct file *file, int fd, const struct change *change, uint64_t *state)
{
	size_t done = 0, len;

	for (; done < change->len; done += len) {
		len = SECTOR - (size_t)((change->offset + (int64_t)done) % SECTOR);
		if (len > change->len - done)
			len = change->len - done;
		if (chance(state, 2) == 0)
			put(fd, file->log + change->at + done, len, change->offset + (int64_t)done);
	}
}

enum cut { CUT_ALL, CUT_BEHIND, CUT_ANY, CUT_SHUFFLED, CUTS };

static void shuffle(struct file *file, uint64_t *state)
{
	for (size_t i = file->n; i > 1; i--) {
		size_t j = chance(state, (uint32_t)i);
		struct change other = file->changes[j];

		file->changes[j] = file->changes[i - 1];
		file->changes[i - 1] = other;
	}
}

static void leave_any(struct file *file, int fd, uint64_t *state)
{
	uint32_t kept = 1 + chance(state, 7); /* of eight */

	for (size_t i = 0; i < file->n; i++) {
		if (chance(state, 8) >= kept)
			continue;
		if (!file->changes[i].truncates && chance(state, 4) == 0)
			redo_torn(file, fd, &file->changes[i], state);
		else
			redo(file, fd, &file->changes[i]);
	}
}

static void cut_file(struct file *file, enum cut cut, uint64_t last, uint64_t *state)
{
	int fd;

	if (file->n == 0)
		return;
	fd = open(file->path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return; /* set aside by the program */
	for (size_t i = file->n; i > 0; i--)
		undo(file, fd, &file->changes[i - 1]);
	if (cut == CUT_SHUFFLED)
		shuffle(file, state);
	if (cut >= CUT_ANY)
		leave_any(file, fd, state);
	for (size_t i = 0; cut == CUT_BEHIND && i < file->n && file->changes[i].serial <= last; i++)
		redo(file, fd, &file->changes[i]);
	close(fd);
}

static void cut_files(enum cut cut, uint64_t *state)
{
	uint64_t first = UINT64_MAX, last;

	for (int i = 0; i < FILES; i++) {
		if (files[i].n > 0 && files[i].changes[0].serial < first)
			first = files[i].changes[0].serial;
	}
	last = first > serial ? 0 : first + chance(state, (uint32_t)(serial - first + 1));
	for (int i = 0; i < FILES; i++)
		cut_file(&files[i], cut, last, state);
	shim_settle();
	power.dark = power.in_checkpoint = false;
	power.cut_at = 0;
}

void shim_cut(uint64_t seed)
{
	uint64_t state = seed;

	cut_files((enum cut)chance(&state, CUTS), &state);
}

void shim_cut_all(void)
{
	uint64_t state = 0;

	cut_files(CUT_ALL, &state);
}

void shim_settle(void)
{
	for (int i = 0; i < FILES; i++) {
		forget_changes(&files[i]);
		if (files[i].path[0] != '\0' && access(files[i].path, F_OK) < 0)
			files[i].path[0] = '\0';
	}
}

void shim_ignore_sync(void)
{
	ignores_sync = true;
}

/* --- Calls past SQLite --- */

static bool inside;

void shim_inside(bool yes)
{
	inside = yes;
}

bool shim_call(const char *call, bool changes)
{
	if (!inside)
		return true;
	return !(changes ? goes_dark(NULL) : power.dark) && !fails(call);
}

void shim_synced(const char *path)
{
	struct file *file = known_file(path);

	if (file && !ignores_sync)
		forget_changes(file);
}

void shim_unlinked(const char *path)
{
	struct file *file = known_file(path);

	if (file) {
		forget_changes(file);
		file->path[0] = '\0';
	}
}

void shim_renamed(const char *from, const char *to)
{
	struct file *file = known_file(from);

	shim_unlinked(to);
	if (!file)
		return;
	assert(strlen(to) < sizeof file->path);
	memcpy(file->path, to, strlen(to) + 1);
}

/* --- Files --- */

static int close_file(sqlite3_file *base)
{
	struct handle *handle = (struct handle *)base;

	if (handle->flags & SQLITE_OPEN_WAL)
		wals--;
	return handle->real->pMethods->xClose(handle->real);
}

static int read_file(sqlite3_file *base, void *to, int n, sqlite3_int64 offset)
{
	struct handle *handle = (struct handle *)base;

	if (power.dark || fails("xRead"))
		return SQLITE_IOERR_READ;
	return handle->real->pMethods->xRead(handle->real, to, n, offset);
}

static int write_file(sqlite3_file *base, const void *from, int n, sqlite3_int64 offset)
{
	struct handle *handle = (struct handle *)base;
	int r, failed = SQLITE_OK;

	if (goes_dark(handle))
		return SQLITE_IOERR_WRITE;
	if (fails("xWrite")) {
		failed = plan.fault == SHIM_FULL ? SQLITE_FULL : SQLITE_IOERR_WRITE;
		n = n / 2 / SECTOR * SECTOR; /* a disk that fills up takes what still fits */
		if (n == 0 || failed == SQLITE_IOERR_WRITE)
			return failed;
	}
	r = note_write(handle, n, offset);
	if (r == SQLITE_OK)
		r = handle->real->pMethods->xWrite(handle->real, from, n, offset);
	checkpointed += is_checkpoint(handle);
	return r == SQLITE_OK ? failed : r;
}

static int truncate_file(sqlite3_file *base, sqlite3_int64 size)
{
	struct handle *handle = (struct handle *)base;
	int r;

	if (goes_dark(handle) || fails("xTruncate"))
		return SQLITE_IOERR_TRUNCATE;
	r = note_truncate(handle, size);
	return r == SQLITE_OK ? handle->real->pMethods->xTruncate(handle->real, size) : r;
}

/* The real one would have nothing to do: the files are no longer needed after the program's end. */
static int sync_file(sqlite3_file *base, int flags)
{
	struct handle *handle = (struct handle *)base;

	(void)flags;
	if (goes_dark(handle) || fails("xSync"))
		return SQLITE_IOERR_FSYNC;
	if (handle->file && !ignores_sync)
		forget_changes(handle->file);
	return SQLITE_OK;
}

static int size_file(sqlite3_file *base, sqlite3_int64 *ret_size)
{
	struct handle *handle = (struct handle *)base;

	return fails("xFileSize") ? SQLITE_IOERR_FSTAT : handle->real->pMethods->xFileSize(handle->real, ret_size);
}

static int lock_file(sqlite3_file *base, int level)
{
	struct handle *handle = (struct handle *)base;

	return fails("xLock") ? SQLITE_IOERR_LOCK : handle->real->pMethods->xLock(handle->real, level);
}

static int unlock_file(sqlite3_file *base, int level)
{
	struct handle *handle = (struct handle *)base;

	return fails("xUnlock") ? SQLITE_IOERR_UNLOCK : handle->real->pMethods->xUnlock(handle->real, level);
}

static int check_reserved(sqlite3_file *base, int *ret_reserved)
{
	struct handle *handle = (struct handle *)base;

	if (fails("xCheckReservedLock"))
		return SQLITE_IOERR_CHECKRESERVEDLOCK;
	return handle->real->pMethods->xCheckReservedLock(handle->real, ret_reserved);
}

/* COMMIT_PHASETWO comes when the commit has held already, and no VFS of SQLite's ever fails it. */
static int control_file(sqlite3_file *base, int op, void *arg)
{
	struct handle *handle = (struct handle *)base;

	if (op != SQLITE_FCNTL_COMMIT_PHASETWO && fails("xFileControl"))
		return SQLITE_IOERR;
	return handle->real->pMethods->xFileControl(handle->real, op, arg);
}

static int sector_size(sqlite3_file *base)
{
	struct handle *handle = (struct handle *)base;

	return handle->real->pMethods->xSectorSize(handle->real);
}

static int characteristics(sqlite3_file *base)
{
	struct handle *handle = (struct handle *)base;

	return handle->real->pMethods->xDeviceCharacteristics(handle->real);
}

/* Version 1: without shared memory and without mapping, as a locking_mode of EXCLUSIVE has it. */
static const sqlite3_io_methods methods = {
	.iVersion = 1,
	.xClose = close_file,
	.xRead = read_file,
	.xWrite = write_file,
	.xTruncate = truncate_file,
	.xSync = sync_file,
	.xFileSize = size_file,
	.xLock = lock_file,
	.xUnlock = unlock_file,
	.xCheckReservedLock = check_reserved,
	.xFileControl = control_file,
	.xSectorSize = sector_size,
	.xDeviceCharacteristics = characteristics,
};

/* --- The VFS --- */

static int open_file(sqlite3_vfs *vfs, const char *name, sqlite3_file *base, int flags, int *ret_flags)
{
	struct handle *handle = (struct handle *)base;
	int r;

	(void)vfs;
	base->pMethods = NULL;
	if (power.dark || fails("xOpen"))
		return SQLITE_CANTOPEN;
	handle->real = (sqlite3_file *)(handle + 1);
	r = unix_vfs->xOpen(unix_vfs, name, handle->real, flags, ret_flags);
	if (r != SQLITE_OK)
		return r;
	handle->flags = flags;
	handle->file = !name || flags & SQLITE_OPEN_DELETEONCLOSE ? NULL : find_file(name);
	if (handle->file)
		r = handle->real->pMethods->xFileSize(handle->real, (sqlite3_int64 *)&handle->file->size);
	if (flags & SQLITE_OPEN_WAL)
		wals++;
	base->pMethods = &methods;
	return r;
}

static int delete_file(sqlite3_vfs *vfs, const char *name, int sync_folder)
{
	(void)vfs;
	if (goes_dark(NULL) || fails("xDelete"))
		return SQLITE_IOERR_DELETE;
	forget_changes(find_file(name));
	return unix_vfs->xDelete(unix_vfs, name, sync_folder);
}

static int access_file(sqlite3_vfs *vfs, const char *name, int flags, int *ret_is)
{
	(void)vfs;
	return fails("xAccess") ? SQLITE_IOERR_ACCESS : unix_vfs->xAccess(unix_vfs, name, flags, ret_is);
}

static int randomness(sqlite3_vfs *vfs, int n, char *to)
{
	(void)vfs;
	for (int i = 0; i < n; i++)
		to[i] = (char)chance(&random_state, 256);
	return n;
}

void shim_random(uint64_t seed)
{
	random_state = seed;
	sqlite3_randomness(0, NULL); /* SQLite's own generator asks for a new seed */
}

void shim_install(void)
{
	static sqlite3_vfs shim;

	unix_vfs = sqlite3_vfs_find(NULL);
	shim = *unix_vfs;
	shim.iVersion = 1;
	shim.zName = "shim";
	shim.szOsFile = (int)sizeof(struct handle) + unix_vfs->szOsFile;
	shim.xOpen = open_file;
	shim.xDelete = delete_file;
	shim.xAccess = access_file;
	shim.xRandomness = randomness;
	sqlite3_vfs_register(&shim, 1);
}
