/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of sources, devices and boots hold no character that JSON would escape (base/units.h), so they stand in a line
 * as they are.
 */
#include "buffer/object.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define TIME_LEN 24 /* 2026-11-21T10:02:00.123Z */

/* The line without its values: what object_line writes and object_line_len counts. */
#define FORMAT                                                                                                         \
	"{\"source\":\"%s\",\"device\":\"%s\",\"boot\":\"%s\",\"seq\":%" PRIu64 ",\"fetch\":%" PRIu64                  \
	",\"fetched_at\":\"%s\",\"clock\":\"%s\",\"data\":"
#define FIXED                                                                                                          \
	(sizeof "{\"source\":\"\",\"device\":\"\",\"boot\":\"\",\"seq\":,\"fetch\":,\"fetched_at\":\"\",\"clock\":"    \
	        "\"\",\"data\":}\n" -                                                                                  \
	 1)

static size_t digits(uint64_t value)
{
	size_t n = 1;

	for (; value > 9; value /= 10)
		n++;
	return n;
}

size_t object_line_len(const struct envelope *e, size_t len)
{
	return FIXED + strlen(e->source) + strlen(e->device) + strlen(e->boot) + digits(e->seq) + digits(e->fetch) +
	       TIME_LEN + strlen(e->clock) + len;
}

int object_line(struct bytes *out, const struct envelope *e, const void *data, size_t len)
{
	char time[UNITS_TEXT_MAX];
	size_t before = out->len;
	int r = bytes_reserve(out, object_line_len(e, len));

	if (r < 0)
		return r;
	r = bytes_printf(out, FORMAT, e->source, e->device, e->boot, e->seq, e->fetch, units_time(e->wall_ms, time),
	                 e->clock);
	if (r == 0)
		r = bytes_add(out, data, len);
	if (r == 0)
		r = bytes_add(out, "}\n", 2);
	if (r < 0)
		out->len = before;
	return r;
}

void object_key(char ret_key[OBJECT_KEY_MAX], const struct envelope *first, uint64_t last_seq,
                const uint8_t sha256[SHA256_SIZE])
{
	char date[UNITS_TEXT_MAX], sha8[9];
	int n = snprintf(ret_key, OBJECT_KEY_MAX, "source=%s/dt=%s/%s-%s-%" PRIu64 "-%" PRIu64 "-%s.ndjson.gz",
	                 first->source, units_date(first->wall_ms, date), first->device, first->boot, first->seq,
	                 last_seq, sha256_hex(sha256, 8, sha8));

	assert(n > 0 && n < OBJECT_KEY_MAX);
	(void)n;
}

void object_boot(char ret_boot[OBJECT_BOOT], const char *kernel_boot_id, const char *buffer_id)
{
	struct sha256 h;
	uint8_t digest[SHA256_SIZE];

	sha256_init(&h);
	sha256_add(&h, kernel_boot_id, strlen(kernel_boot_id));
	sha256_add(&h, buffer_id, strlen(buffer_id));
	sha256_finish(&h, digest);
	sha256_hex(digest, OBJECT_BOOT - 1, ret_boot);
}
