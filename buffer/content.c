/* SPDX-License-Identifier: Apache-2.0 */
#include "buffer/content.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buffer/chunk.h"
#include "buffer/pack.h"

#define TIME_LEN 24  /* 2026-11-21T10:02:00.123Z */
#define HEAD_MAX 512 /* of a line: all that stands before its data */

struct content {
	struct content_facts facts;
	struct unpack unpack;
	struct sha256 hash;
	uint64_t line; /* its bytes so far; 0: none has begun */
	char head[HEAD_MAX];
	size_t head_len;
	bool judged; /* the head is right */
	char last;   /* byte of the line */
};

/* The first thing that is wrong tells most. */
static int refuse(struct content *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int refuse(struct content *c, const char *format, ...)
{
	va_list args;

	if (!c->facts.why[0]) {
		va_start(args, format);
		vsnprintf(c->facts.why, sizeof c->facts.why, format, args);
		va_end(args);
	}
	return -EBADMSG;
}

/* --- A line's head --- */

/* Where the text goes on behind `expected`; NULL: it is not what stands there. */
static const char *pass(const char *at, const char *expected)
{
	size_t len = strlen(expected);

	return at && strncmp(at, expected, len) == 0 ? at + len : NULL;
}

/* A value up to the next quotation mark. */
static const char *pass_value(const char *at, char *value, size_t size)
{
	size_t len = at ? strcspn(at, "\"") : 0;

	if (!at || at[len] != '"' || len >= size)
		return NULL;
	memcpy(value, at, len);
	value[len] = '\0';
	return at + len + 1;
}

static const char *pass_number(const char *at, uint64_t *ret_number)
{
	size_t digits = at ? strspn(at, "0123456789") : 0;

	if (digits == 0 || digits > 18 || *at == '0')
		return NULL;
	*ret_number = strtoull(at, NULL, 10);
	return at + digits;
}

struct head {
	char source[UNITS_NAME_MAX], device[UNITS_NAME_MAX], boot[OBJECT_BOOT];
	uint64_t seq, fetch;
	char time[TIME_LEN + 1], clock[16];
};

/* As object_line writes it, up to the comma behind the clock. */
static bool read_head(const char *text, struct head *head)
{
	const char *at = pass_value(pass(text, "{\"source\":\""), head->source, sizeof head->source);

	at = pass_value(pass(at, ",\"device\":\""), head->device, sizeof head->device);
	at = pass_value(pass(at, ",\"boot\":\""), head->boot, sizeof head->boot);
	at = pass_number(pass(at, ",\"seq\":"), &head->seq);
	at = pass_number(pass(at, ",\"fetch\":"), &head->fetch);
	at = pass_value(pass(at, ",\"fetched_at\":\""), head->time, sizeof head->time);
	at = pass_value(pass(at, ",\"clock\":\""), head->clock, sizeof head->clock);
	return pass(at, ",\"") != NULL;
}

static bool is_clock(const char *text)
{
	for (int i = CHUNK_SYNCED; i <= CHUNK_UNSYNCED; i++) {
		if (strcmp(text, chunk_clock_names[i]) == 0)
			return true;
	}
	return false;
}

static void begin(struct content_facts *f, const struct head *head, int64_t wall_ms)
{
	memcpy(f->source, head->source, sizeof f->source);
	memcpy(f->device, head->device, sizeof f->device);
	memcpy(f->boot, head->boot, sizeof f->boot);
	f->first_seq = head->seq;
	f->first_ms = wall_ms;
	f->day = units_day(wall_ms);
}

static int judge_head(struct content *c)
{
	struct content_facts *f = &c->facts;
	struct head head;
	int64_t wall_ms;

	c->head[c->head_len] = '\0';
	if (strlen(c->head) != c->head_len || !read_head(c->head, &head) || !is_clock(head.clock) ||
	    units_parse_time(head.time, &wall_ms) < 0)
		return refuse(c, "line %" PRIu64 " is no record of Millrace", f->records + 1);
	if (f->records == 0)
		begin(f, &head, wall_ms);
	if (strcmp(f->source, head.source) != 0 || strcmp(f->device, head.device) != 0 ||
	    strcmp(f->boot, head.boot) != 0)
		return refuse(c, "line %" PRIu64 " is of another source, device or boot", f->records + 1);
	if (head.seq != f->first_seq + f->records)
		return refuse(c, "seq %" PRIu64 " does not follow %" PRIu64, head.seq, f->last_seq);
	if (units_day(wall_ms) != f->day)
		return refuse(c, "line %" PRIu64 " is of another day", f->records + 1);
	f->last_seq = head.seq;
	f->last_ms = wall_ms;
	c->judged = true;
	return 0;
}

/* --- Lines --- */

/* A part of a line without its line feed. */
static int add_text(struct content *c, const char *text, size_t len)
{
	size_t room = HEAD_MAX - 1 - c->head_len, n = len < room ? len : room;

	if (len == 0)
		return 0;
	c->line += len;
	c->last = text[len - 1];
	if (c->judged)
		return 0;
	memcpy(c->head + c->head_len, text, n);
	c->head_len += n;
	return c->head_len == HEAD_MAX - 1 ? judge_head(c) : 0;
}

static int end_line(struct content *c)
{
	int r = c->judged ? 0 : judge_head(c);

	if (r == 0 && c->last != '}')
		r = refuse(c, "line %" PRIu64 " is no record of Millrace", c->facts.records + 1);
	if (r < 0)
		return r;
	c->facts.records++;
	c->facts.line_bytes += c->line + 1;
	c->line = c->head_len = 0;
	c->judged = false;
	return 0;
}

static int on_piece(void *arg, const void *data, size_t len)
{
	struct content *c = arg;
	const char *at = data, *end = at + len;
	int r = 0;

	while (r == 0 && at < end) {
		const char *feed = memchr(at, '\n', (size_t)(end - at));

		r = add_text(c, at, (size_t)((feed ? feed : end) - at));
		if (r == 0 && feed)
			r = end_line(c);
		at = feed ? feed + 1 : end;
	}
	if (r == 0 && c->facts.line_bytes + c->line > CONTENT_LINES_MAX)
		r = refuse(c, "it is larger than any object of Millrace");
	return r;
}

/* --- Public functions --- */

struct content *content_new(void)
{
	struct content *c = calloc(1, sizeof *c);

	if (!c || unpack_init(&c->unpack, on_piece, c) < 0) {
		free(c);
		return NULL;
	}
	sha256_init(&c->hash);
	return c;
}

void content_free(struct content *c)
{
	if (!c)
		return;
	unpack_done(&c->unpack);
	sha256_drop(&c->hash);
	free(c);
}

void content_add(struct content *c, const void *data, size_t len)
{
	if (len == 0)
		return;
	c->facts.bytes += len;
	sha256_add(&c->hash, data, len);
	if (!c->facts.why[0] && unpack_write(&c->unpack, data, len) < 0)
		refuse(c, "it is no gzip file"); /* where on_piece has not said it better */
}

const struct content_facts *content_facts(const struct content *c)
{
	return &c->facts;
}

const struct content_facts *content_finish(struct content *c)
{
	sha256_finish(&c->hash, c->facts.sha256);
	if (!c->unpack.ended)
		refuse(c, c->facts.bytes ? "it is cut short" : "it is empty");
	else if (c->line > 0 || c->facts.records == 0)
		refuse(c, "its last line is not whole");
	return &c->facts;
}
