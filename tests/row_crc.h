/* SPDX-License-Identifier: Apache-2.0 */
/* A row's checksum, reckoned apart from the buffer's own code: for tests that write a buffer's rows by themselves. */
#ifndef TESTS_ROW_CRC_H
#define TESTS_ROW_CRC_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>
#include <zlib.h>

/* The checksum that a row of any version has over its other columns. */
static void row_crc(sqlite3_context *context, int n, sqlite3_value **values)
{
	uLong crc = 0;

	for (int i = 0; i < n; i++) {
		bool number = sqlite3_value_type(values[i]) == SQLITE_INTEGER;
		uint8_t head[9] = { (uint8_t)sqlite3_value_type(values[i]) };
		const void *data = number ? NULL : sqlite3_value_blob(values[i]);
		int len = number ? 0 : sqlite3_value_bytes(values[i]);
		int64_t value = number ? sqlite3_value_int64(values[i]) : len;

		for (int at = 0; at < 8; at++)
			head[1 + at] = (uint8_t)(value >> 8 * at);
		crc = crc32(crc, head, sizeof head);
		crc = len > 0 ? crc32(crc, data, (uInt)len) : crc;
	}
	sqlite3_result_int64(context, (int64_t)crc);
}

#endif
