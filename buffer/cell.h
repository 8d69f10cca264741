/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A value of a row of the buffer's file, and the checksum that every row carries: the CRC-32 over its other columns in
 * the order of buffer/queue_sql.c's statements; for each its type, and a number as 8 bytes, a text or blob as its
 * length in 8 bytes and its bytes, all little-endian. Pure; any thread.
 */
#ifndef BUFFER_CELL_H
#define BUFFER_CELL_H

#include <stddef.h>
#include <stdint.h>

/* type is one of SQLITE_INTEGER, SQLITE_TEXT, SQLITE_BLOB, SQLITE_NULL, SQLITE_FLOAT. Data is borrowed. */
struct cell {
	int type;
	int64_t number;
	const void *data;
	size_t len;
};

struct cell cell_number(int64_t number);
struct cell cell_text(const char *text);
struct cell cell_blob(const void *data, size_t len);

#define CELLS(array) (array), sizeof(array) / sizeof *(array)

/* Begin with crc = 0 and go on with what came out. */
uint32_t cell_crc(uint32_t crc, const struct cell *cells, size_t n);

#endif
