/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/units.h"
#include "base/utf8.h"

#define LINE_MAX_BYTES 1024 /* with the line break */
#define ID_MAX         40
#define BUCKETS        64                    /* ids; those beyond share the last one */
#define HOUR_MS        INT64_C(3600000)      /* a full bucket */
#define LINE_MS        (HOUR_MS / LOG_BURST) /* what a line takes out of it */

static const char *const level_names[] = {
	[LOG_LEVEL_ERROR] = "error",
	[LOG_LEVEL_WARNING] = "warning",
	[LOG_LEVEL_NOTICE] = "notice",
	[LOG_LEVEL_INFO] = "info",
};

static enum { OUTPUT_UNKNOWN, OUTPUT_TEXT, OUTPUT_JOURNAL, OUTPUT_JSON } output;

struct bucket {
	char id[ID_MAX]; /* "": free */
	int64_t filled_ms, at_ms;
	uint64_t left_out; /* since the last line */
};

static struct bucket buckets[BUCKETS];

struct line {
	char data[LINE_MAX_BYTES];
	size_t len;
	size_t room; /* what is left of data for the text, its end excepted */
};

/* systemd.exec(5), JOURNAL_STREAM: a stderr that was redirected since is another device and inode. */
static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	struct stat st;
	if (!stream || fstat(STDERR_FILENO, &st) < 0)
		return false;
	char own[64];
	snprintf(own, sizeof own, "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
	return strcmp(stream, own) == 0;
}

void log_init(enum log_format format)
{
	if (format == LOG_JSON)
		output = OUTPUT_JSON;
	else
		output = stderr_is_journal() ? OUTPUT_JOURNAL : OUTPUT_TEXT;
}

static bool put(struct line *line, const char *data, size_t len)
{
	if (len > line->room)
		return false;
	memcpy(line->data + line->len, data, len);
	line->len += len;
	line->room -= len;
	return true;
}

/* Character by character, so that a cut falls between two of them. */
static void put_text(struct line *line, const char *text)
{
	for (size_t n; *text; text += n) {
		uint32_t code = 0;
		n = utf8_decode(text, UTF8_MAX, &code);
		bool fits;
		if (n == 0) {
			n = 1;
			fits = put(line, "\xef\xbf\xbd", 3);
		} else if (utf8_breaks_line(code)) {
			fits = put(line, " ", 1);
		} else if (output == OUTPUT_JSON && (code == '"' || code == '\\')) {
			fits = put(line, code == '"' ? "\\\"" : "\\\\", 2);
		} else {
			fits = put(line, text, n);
		}
		if (!fits)
			return;
	}
}

static void put_head(struct line *line, enum log_level level, const char *id)
{
	char time[UNITS_TEXT_MAX];
	int len;
	if (output == OUTPUT_JOURNAL)
		len = snprintf(line->data, sizeof line->data, "<%d>%s: ", level, id);
	else if (output == OUTPUT_TEXT)
		len = snprintf(line->data, sizeof line->data, "%s %s %s: ", units_time(clock_wall_ms(), time),
		               level_names[level], id);
	else
		len = snprintf(line->data, sizeof line->data,
		               "{\"time\":\"%s\",\"level\":\"%s\",\"event\":\"%s\",\"message\":\"",
		               units_time(clock_wall_ms(), time), level_names[level], id);
	assert(len > 0 && len < LINE_MAX_BYTES / 2); /* ids are short words of our own */
	line->len = (size_t)len;
}

static struct bucket *bucket_of(const char *id, int64_t now_ms)
{
	struct bucket *bucket = buckets;
	assert(strlen(id) < ID_MAX);
	while (bucket->id[0] && strcmp(bucket->id, id) != 0 && bucket < &buckets[BUCKETS - 1])
		bucket++;
	if (!bucket->id[0]) {
		snprintf(bucket->id, sizeof bucket->id, "%s", id);
		bucket->filled_ms = HOUR_MS;
		bucket->at_ms = now_ms;
	}
	return bucket;
}

/* Whether one more line may be written. */
static bool bucket_take(struct bucket *bucket, int64_t now_ms)
{
	int64_t since_ms = now_ms - bucket->at_ms;
	bucket->filled_ms = since_ms < HOUR_MS - bucket->filled_ms ? bucket->filled_ms + since_ms : HOUR_MS;
	bucket->at_ms = now_ms;
	if (bucket->filled_ms < LINE_MS) {
		bucket->left_out++;
		return false;
	}
	bucket->filled_ms -= LINE_MS;
	return true;
}

/* One write(2) a line, so that lines of other processes on the same pipe stay apart. Nobody can be told of a failure.
 */
static void write_line(const struct line *line)
{
	struct pollfd out = { .fd = STDERR_FILENO, .events = POLLOUT };
	ssize_t n;
	/* A pipe that nobody reads must not hold up what is logged about. */
	if (poll(&out, 1, 0) == 0)
		return;
	do
		n = write(STDERR_FILENO, line->data, line->len);
	while (n < 0 && errno == EINTR);
}

/* What ends the line: the news of those that were left out, and what its form wants. */
static void format_end(struct bucket *bucket, char *ret_end, size_t size)
{
	char news[80] = "";
	if (bucket->left_out)
		snprintf(news, sizeof news, " (%" PRIu64 " more like it %s left out)", bucket->left_out,
		         bucket->left_out == 1 ? "was" : "were");
	bucket->left_out = 0;
	snprintf(ret_end, size, "%s%s\n", news, output == OUTPUT_JSON ? "\"}" : "");
}

void log_event(enum log_level level, const char *id, const char *format, ...)
{
	char text[3 * LINE_MAX_BYTES]; /* three bytes (U+2028) may become one, so no cut here shows in the line */
	int64_t now_ms = clock_mono_ms();
	struct bucket *bucket = bucket_of(id, now_ms);
	if (!bucket_take(bucket, now_ms))
		return;
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);

	if (output == OUTPUT_UNKNOWN)
		log_init(LOG_TEXT);
	struct line line;
	char end[96];
	put_head(&line, level, id);
	format_end(bucket, end, sizeof end);
	line.room = sizeof line.data - line.len - strlen(end);
	put_text(&line, text);
	line.room = strlen(end);
	put(&line, end, strlen(end));
	write_line(&line);
}
