/* SPDX-License-Identifier: Apache-2.0 */
#include "base/units.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define SECOND_MS   INT64_C(1000)
#define MINUTE_MS   (60 * SECOND_MS)
#define HOUR_MS     (60 * MINUTE_MS)
#define DAY_MS      (24 * HOUR_MS)

#define TIME_MIN_MS INT64_C(-62167219200000) /* 0000-01-01T00:00:00.000Z */
#define TIME_MAX_MS INT64_C(253402300799999) /* 9999-12-31T23:59:59.999Z */

struct unit {
	const char *name;
	int64_t factor;
};

/* From large to small: the first that divides without a rest gives the shortest text. */
static const struct unit durations[] = {
	{ "d", DAY_MS }, { "h", HOUR_MS }, { "m", MINUTE_MS }, { "s", SECOND_MS }, { "ms", 1 }, { NULL, 0 },
};

static const struct unit sizes[] = {
	{ "G", INT64_C(1) << 30 }, { "M", INT64_C(1) << 20 }, { "K", INT64_C(1) << 10 }, { "", 1 }, { NULL, 0 },
};

/* Own character classes: those of ctype.h depend on the locale. */
static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_lower(char c)
{
	return c >= 'a' && c <= 'z';
}

static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static int parse(const struct unit *units, const char *text, int64_t *ret_value)
{
	if (!is_digit(*text))
		return -EINVAL;
	int64_t value = 0;
	for (; is_digit(*text); text++) {
		if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, *text - '0', &value))
			return -EINVAL;
	}
	for (; units->name; units++) {
		if (strcmp(units->name, text) != 0)
			continue;
		if (__builtin_mul_overflow(value, units->factor, &value))
			return -EINVAL;
		*ret_value = value;
		return 0;
	}
	return -EINVAL;
}

int units_parse_duration(const char *text, int64_t *ret_ms)
{
	return parse(durations, text, ret_ms);
}

int units_parse_size(const char *text, int64_t *ret_bytes)
{
	return parse(sizes, text, ret_bytes);
}

static const char *shortest(const struct unit *units, int64_t value, char text[UNITS_TEXT_MAX])
{
	while (value % units->factor != 0)
		units++;
	snprintf(text, UNITS_TEXT_MAX, "%" PRId64 "%s", value / units->factor, units->name);
	return text;
}

const char *units_duration(int64_t ms, char text[UNITS_TEXT_MAX])
{
	return ms == 0 ? strcpy(text, "0s") : shortest(durations, ms, text);
}

const char *units_size(int64_t bytes, char text[UNITS_TEXT_MAX])
{
	return bytes == 0 ? strcpy(text, "0") : shortest(sizes, bytes, text);
}

/* To the nearest, without the overflow of adding half a unit first. */
static int64_t rounded(int64_t value, int64_t unit)
{
	return value / unit + (value % unit >= unit / 2);
}

static const char *two_units(int64_t large, const char *large_name, int64_t small, const char *small_name, char *text)
{
	int len = snprintf(text, UNITS_TEXT_MAX, "%" PRId64 "%s", large, large_name);
	if (small)
		snprintf(text + len, UNITS_TEXT_MAX - (size_t)len, " %" PRId64 "%s", small, small_name);
	return text;
}

/* Each step is chosen by the rounded value: 59.6 s is "1m", never "60s". */
const char *units_age(int64_t ms, char text[UNITS_TEXT_MAX])
{
	if (ms < 0)
		ms = 0;
	if (rounded(ms, SECOND_MS) < 60)
		return two_units(rounded(ms, SECOND_MS), "s", 0, "", text);
	int64_t minutes = rounded(ms, MINUTE_MS);
	if (minutes < 60)
		return two_units(minutes, "m", 0, "", text);
	if (minutes < 24 * 60)
		return two_units(minutes / 60, "h", minutes % 60, "m", text);
	int64_t hours = rounded(ms, HOUR_MS);
	return two_units(hours / 24, "d", hours % 24, "h", text);
}

const char *units_volume(int64_t bytes, char text[UNITS_TEXT_MAX])
{
	static const char *const names[] = { "KB", "MB", "GB", "TB", "PB", "EB" };
	if (bytes < 1024) {
		snprintf(text, UNITS_TEXT_MAX, "%" PRId64 " B", bytes);
		return text;
	}
	double volume = (double)bytes / 1024;
	size_t i = 0;
	for (; volume >= 1023.95; i++) /* would be shown as 1024.0 */
		volume /= 1024;
	snprintf(text, UNITS_TEXT_MAX, "%.1f %s", volume, names[i]);
	return text;
}

static int64_t floor_div(int64_t value, int64_t by)
{
	return value / by - (value % by < 0);
}

static int64_t clamped(int64_t wall_ms)
{
	if (wall_ms < TIME_MIN_MS)
		return TIME_MIN_MS;
	return wall_ms > TIME_MAX_MS ? TIME_MAX_MS : wall_ms;
}

static struct tm broken_down(int64_t wall_ms)
{
	time_t seconds = (time_t)floor_div(wall_ms, SECOND_MS);
	struct tm tm = { 0 };
	gmtime_r(&seconds, &tm);
	return tm;
}

const char *units_time(int64_t wall_ms, char text[UNITS_TEXT_MAX])
{
	wall_ms = clamped(wall_ms);
	struct tm tm = broken_down(wall_ms);
	int ms = (int)(wall_ms - floor_div(wall_ms, SECOND_MS) * SECOND_MS);
	char wide[96]; /* gcc does not know the ranges in a struct tm and warns of 85 bytes */
	snprintf(wide, sizeof wide, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday,
	         tm.tm_hour, tm.tm_min, tm.tm_sec, ms);
	memcpy(text, wide, sizeof "2026-11-21T10:02:00.123Z");
	return text;
}

const char *units_date(int64_t wall_ms, char text[UNITS_TEXT_MAX])
{
	units_time(wall_ms, text);
	text[strlen("2026-11-21")] = '\0';
	return text;
}

int64_t units_day(int64_t wall_ms)
{
	return floor_div(wall_ms, DAY_MS);
}

static int digits(const char *text, int n)
{
	int value = 0;
	for (int i = 0; i < n; i++)
		value = value * 10 + (text[i] - '0');
	return value;
}

int units_parse_time(const char *text, int64_t *ret_wall_ms)
{
	static const char form[] = "0000-00-00T00:00:00.000Z";
	if (strlen(text) != strlen(form))
		return -EINVAL;
	for (size_t i = 0; form[i]; i++) {
		if (form[i] == '0' ? !is_digit(text[i]) : text[i] != form[i])
			return -EINVAL;
	}
	struct tm tm = {
		.tm_year = digits(text, 4) - 1900,
		.tm_mon = digits(text + 5, 2) - 1,
		.tm_mday = digits(text + 8, 2),
		.tm_hour = digits(text + 11, 2),
		.tm_min = digits(text + 14, 2),
		.tm_sec = digits(text + 17, 2),
	};
	int64_t wall_ms = (int64_t)timegm(&tm) * 1000 + digits(text + 20, 3);
	char again[UNITS_TEXT_MAX];
	if (strcmp(units_time(wall_ms, again), text) != 0)
		return -EINVAL; /* timegm takes 30 February for 2 March */
	*ret_wall_ms = wall_ms;
	return 0;
}

int units_parse_date(const char *text, int64_t *ret_day)
{
	char time[UNITS_TEXT_MAX];
	int64_t wall_ms;
	if (strlen(text) != strlen("2026-11-21"))
		return -EINVAL;
	snprintf(time, sizeof time, "%.10sT00:00:00.000Z", text);
	if (units_parse_time(time, &wall_ms) < 0)
		return -EINVAL;
	*ret_day = units_day(wall_ms);
	return 0;
}

bool units_is_name(const char *text)
{
	if (!is_lower(text[0]) || strcmp(text, "true") == 0 || strcmp(text, "false") == 0)
		return false;
	size_t n = 1;
	while (is_lower(text[n]) || is_digit(text[n]) || text[n] == '_' || text[n] == '-')
		n++;
	return n < UNITS_NAME_MAX && text[n] == '\0';
}

bool units_is_device(const char *text)
{
	if (strcmp(text, ".") == 0 || strcmp(text, "..") == 0)
		return false;
	size_t n = 0;
	while (is_lower(lower(text[n])) || is_digit(text[n]) || (text[n] && strchr("._-", text[n])))
		n++;
	return text[n] == '\0' && n > 0 && n < UNITS_NAME_MAX;
}

static size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

/*
 * Insertions, deletions, substitutions and swaps of neighbours (optimal string alignment); "URL" is "url". Both texts
 * are shorter than UNITS_NAME_MAX.
 */
static size_t distance(const char *a, const char *b)
{
	size_t rows[3][UNITS_NAME_MAX];
	size_t *before = rows[0], *above = rows[1], *row = rows[2];
	size_t len = strlen(b);
	for (size_t j = 0; j <= len; j++)
		row[j] = j;
	for (size_t i = 1; a[i - 1]; i++) {
		size_t *spare = before;
		before = above;
		above = row;
		row = spare;
		row[0] = i;
		for (size_t j = 1; j <= len; j++) {
			char x = lower(a[i - 1]), y = lower(b[j - 1]);
			row[j] = least(above[j - 1] + (x != y), least(above[j], row[j - 1]) + 1);
			if (i > 1 && j > 1 && x == lower(b[j - 2]) && y == lower(a[i - 2]))
				row[j] = least(row[j], before[j - 2] + 1);
		}
	}
	return row[len];
}

const char *units_nearest(const char *text, const char *const *candidates, size_t n)
{
	size_t len = strlen(text);
	if (len >= UNITS_NAME_MAX)
		return NULL;
	const char *nearest = NULL;
	size_t best = least(len, (len + 2) / 3 + 1); /* a third of it may be wrong, but not all */
	for (size_t i = 0; i < n; i++) {
		if (strlen(candidates[i]) >= UNITS_NAME_MAX)
			continue;
		size_t d = distance(text, candidates[i]);
		if (d < best) {
			best = d;
			nearest = candidates[i];
		}
	}
	return nearest;
}
