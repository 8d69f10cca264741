/* SPDX-License-Identifier: Apache-2.0 */
/* A buffer's rows in a file of an older schema, made from that schema's own files. */
#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "buffer/schema.h"
#include "tests/cut/chance.h"
#include "tests/cut/drive.h"
#include "tests/cut/shim.h"
#include "tests/row_crc.h"

#define COLUMNS 512

static bool run(struct drive *d, sqlite3 *db, const char *sql)
{
	return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK ||
	       oracle_fail(&d->oracle, "an older file: %s: %s", sql, sqlite3_errmsg(db));
}

/* The columns of a table of the new file but for its crc, with commas between. */
static bool list_columns(sqlite3 *db, const char *table, char list[COLUMNS])
{
	static const char sql[] = "SELECT group_concat(name, ', ') FROM pragma_table_info(?, 'main') WHERE name != "
	                          "'crc'";
	sqlite3_stmt *stmt;
	bool found = false;

	if (sqlite3_prepare_v2(db, sql, -1, &stmt, NULL) != SQLITE_OK)
		return false;
	sqlite3_bind_text(stmt, 1, table, -1, SQLITE_STATIC);
	if (sqlite3_step(stmt) == SQLITE_ROW && sqlite3_column_text(stmt, 0)) {
		snprintf(list, COLUMNS, "%s", (const char *)sqlite3_column_text(stmt, 0));
		found = true;
	}
	sqlite3_finalize(stmt);
	return found;
}

static bool copy_tables(struct drive *d, sqlite3 *db)
{
	static const char *const tables[] = { "buffer",   "source", "chunk", "batch", "part",
		                              "delivery", "store",  "book",  "lost" };
	char columns[COLUMNS], sql[4 * COLUMNS];

	for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
		if (!list_columns(db, tables[i], columns))
			continue; /* it came later */
		snprintf(sql, sizeof sql, "INSERT INTO main.%s (%s, crc) SELECT %s, row_crc(%s) FROM now.%s", tables[i],
		         columns, columns, columns, tables[i]);
		if (!run(d, db, sql))
			return false;
	}
	return true;
}

static bool fill(struct drive *d, sqlite3 *db, int version, const char *now)
{
	char sql[512];

	if (sqlite3_create_function(db, "row_crc", -1, SQLITE_UTF8, NULL, row_crc, NULL, NULL) != SQLITE_OK)
		return false;
	for (int i = 0; i < version; i++) {
		if (!run(d, db, buffer_schema[i]))
			return false;
	}
	snprintf(sql, sizeof sql,
	         "PRAGMA application_id = 0x4d696c6c; PRAGMA user_version = %d; PRAGMA locking_mode = EXCLUSIVE; "
	         "PRAGMA journal_mode = WAL; ATTACH '%s' AS now",
	         version, now);
	return run(d, db, sql) && copy_tables(d, db);
}

bool drive_age(struct drive *d, int version)
{
	bool in_wal = chance(&d->chance, 2) == 0, right;
	char now[200], wal[200], now_wal[210];
	sqlite3 *db;

	snprintf(now, sizeof now, "%s.now", d->path);
	snprintf(wal, sizeof wal, "%s-wal", d->path);
	snprintf(now_wal, sizeof now_wal, "%s-wal", now);
	if (rename(d->path, now) < 0 || rename(wal, now_wal) < 0 || sqlite3_open(d->path, &db) != SQLITE_OK)
		return oracle_fail(&d->oracle, "an older file: it cannot be made");
	right = fill(d, db, version, now);
	sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, in_wal, NULL);
	if (sqlite3_close(db) != SQLITE_OK)
		right = oracle_fail(&d->oracle, "an older file: it is still in use");
	unlink(now);
	unlink(now_wal);
	shim_settle();
	d->opening = PHASE_UPGRADE;
	return right;
}
