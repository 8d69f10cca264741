/* SPDX-License-Identifier: Apache-2.0 */
#include "buffer/cell.h"

#include <endian.h>
#include <sqlite3.h>
#include <string.h>
#include <zlib.h>

struct cell cell_number(int64_t number)
{
	return (struct cell){ .type = SQLITE_INTEGER, .number = number };
}

struct cell cell_text(const char *text)
{
	return (struct cell){ .type = SQLITE_TEXT, .data = text, .len = strlen(text) };
}

/* "" where there is nothing, because SQLite takes a blob at NULL for a NULL. */
struct cell cell_blob(const void *data, size_t len)
{
	return (struct cell){ .type = SQLITE_BLOB, .data = len > 0 ? data : "", .len = len };
}

uint32_t cell_crc(uint32_t crc, const struct cell *cells, size_t n)
{
	uLong sum = crc;

	for (size_t i = 0; i < n; i++) {
		const struct cell *cell = &cells[i];
		unsigned char head[9] = { (unsigned char)cell->type };
		uint64_t value = htole64(cell->type == SQLITE_INTEGER ? (uint64_t)cell->number : cell->len);

		memcpy(head + 1, &value, sizeof value);
		sum = crc32(sum, head, sizeof head);
		if (cell->type != SQLITE_INTEGER && cell->len > 0)
			sum = crc32(sum, cell->data, (uInt)cell->len);
	}
	return (uint32_t)sum;
}
