/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VFS around SQLite's own one, with two talents. It forgets: of each write and truncation it keeps what was there
 * before, until the file is synced, so that a power cut can take back, tear at 512 bytes and reorder what was not.
 * And it fails: the n-th call, once or for good.
 *
 * Files are real. A file's making and its unlinking count as durable at once: more than POSIX promises, but a model
 * that forgets them while it keeps the content would lose what SQLite did not.
 *
 * One thread. What SQLite does passes through here, and by calls.c what the queue does to its files besides.
 */
#ifndef TESTS_CUT_SHIM_H
#define TESTS_CUT_SHIM_H

#include <stdbool.h>
#include <stdint.h>

/* Makes it the default VFS: before the first file is opened. */
void shim_install(void);

/* What SQLite gets as random bytes from now on (the salts of a WAL), so that a seed repeats them too. */
void shim_random(uint64_t seed);

/* --- Power cuts --- */

/* The power goes just before the n-th call (from 1) that changes something or syncs; 0: it stays. */
void shim_cut_at(uint64_t n);

/* How many such calls there were since then. */
uint64_t shim_changes(void);

/* It is gone: whatever is called fails. */
bool shim_is_dark(void);

/* It went while the WAL was being brought into the file. */
bool shim_was_in_checkpoint(void);

/* Pages written into the file while there is a WAL, since shim_install. */
uint64_t shim_checkpointed(void);

/*
 * The power is back, and of what was not synced the files hold what the seed leaves: nothing, all up to a moment, or
 * any of it, torn or in any order. All handles must be closed.
 */
void shim_cut(uint64_t seed);

/* The same, but all of it is lost. */
void shim_cut_all(void);

/* All that is written is durable; files that are no longer there are forgotten. All handles must be closed. */
void shim_settle(void);

/* A sabotage: from now on xSync does nothing. */
void shim_ignore_sync(void);

/* --- For calls.c --- */

/* Whether a call of the queue is under way; what others do to the files does not count. */
void shim_inside(bool yes);

/* Whether there is power for a call, and it does not fail. */
bool shim_call(const char *call, bool changes);

/* It was: the file is durable; what is to be forgotten of it goes along; nothing of it is left. */
void shim_synced(const char *path);
void shim_renamed(const char *from, const char *to);
void shim_unlinked(const char *path);

/* --- Failing calls --- */

enum shim_fault { SHIM_IOERR, SHIM_FULL };

/* The n-th call from now on (from 1; of SHIM_FULL: the n-th xWrite) fails, or it and all after it. 0: none does. */
void shim_fail(uint64_t n, bool for_good, enum shim_fault fault);

/* Whether calls count and fail at all: at first they do. */
void shim_arm(bool on);

/* How many calls have counted since then. */
uint64_t shim_calls(void);

/* Whether the n-th call has come since then. */
bool shim_has_failed(void);

/* The name of the call that failed first, of the last plan; "": none did. */
const char *shim_failed_call(void);

#endif
