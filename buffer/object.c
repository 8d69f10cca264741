/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of sources, devices and boots hold no character that JSON would escape (base/units.h), so they stand in a line
 * as they are.
 */
#include "buffer/object.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
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

/* --- Keys, read --- */

/* The piece of text up to `end`, copied; false where it is too long. */
static bool take(const char *text, const char *end, char *piece, size_t size)
{
	if ((size_t)(end - text) >= size)
		return false;
	memcpy(piece, text, (size_t)(end - text));
	piece[end - text] = '\0';
	return true;
}

static bool is_hex(const char *text)
{
	return strspn(text, "0123456789abcdef") == 8 && text[8] == '\0';
}

/* Digits without a zero in front, 1 and more. */
static bool read_seq(const char *text, uint64_t *ret_seq)
{
	int64_t seq = 0;

	if (*text == '0' || !*text)
		return false;
	for (; *text >= '0' && *text <= '9'; text++) {
		if (__builtin_mul_overflow(seq, 10, &seq) || __builtin_add_overflow(seq, *text - '0', &seq))
			return false;
	}
	*ret_seq = (uint64_t)seq;
	return *text == '\0';
}

/* From the right, because a device may have a - in its name: <device>-<boot>-<first>-<last>-<sha8>. */
static bool read_stem(char *stem, struct object_name *name)
{
	char *pieces[4];

	for (int i = 3; i >= 0; i--) {
		char *dash = strrchr(stem, '-');

		if (!dash)
			return false;
		*dash = '\0';
		pieces[i] = dash + 1;
	}
	if (!units_is_device(stem) || !is_hex(pieces[0]) || !is_hex(pieces[3]))
		return false;
	memcpy(name->device, stem, strlen(stem) + 1);
	memcpy(name->boot, pieces[0], sizeof name->boot);
	memcpy(name->sha8, pieces[3], sizeof name->sha8);
	return read_seq(pieces[1], &name->first_seq) && read_seq(pieces[2], &name->last_seq) &&
	       name->first_seq <= name->last_seq;
}

int object_read_key(const char *key, struct object_name *ret_name)
{
	static const char ending[] = ".ndjson.gz", source[] = "source=", dt[] = "/dt=";
	char date[11], stem[OBJECT_KEY_MAX];
	size_t len = strlen(key);
	struct object_name name;
	const char *end, *at = strchr(key, '/');

	if (len >= OBJECT_KEY_MAX || len < strlen(ending) || !at || strncmp(key, source, strlen(source)) != 0)
		return -EINVAL;
	end = key + len - strlen(ending);
	if (strcmp(end, ending) != 0 || !take(key + strlen(source), at, name.source, sizeof name.source))
		return -EINVAL;
	if (!units_is_name(name.source + (name.source[0] == '_')) || strncmp(at, dt, strlen(dt)) != 0)
		return -EINVAL;
	key = at + strlen(dt);
	at = strchr(key, '/');
	if (!at || at > end || !take(key, at, date, sizeof date) || units_parse_date(date, &name.day) < 0)
		return -EINVAL;
	if (!take(at + 1, end, stem, sizeof stem) || !read_stem(stem, &name))
		return -EINVAL;
	*ret_name = name;
	return 0;
}

/* --- Boots --- */

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
