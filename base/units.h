/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Durations, sizes, times and names as people write them, both ways. Pure functions, any thread. The forms are
 * interface.md's: "90s", "2m", "6h", "1d"; bytes, "64K", "8M", "2G" in powers of 1024.
 */
#ifndef BASE_UNITS_H
#define BASE_UNITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* 0 or -EINVAL; nothing but digits and one unit ("ms", "s", "m", "h", "d") is taken. No overflow passes. */
int units_parse_duration(const char *text, int64_t *ret_ms);

/* 0 or -EINVAL; digits and at most one of K, M, G. */
int units_parse_size(const char *text, int64_t *ret_bytes);

#define UNITS_TEXT_MAX 32 /* holds every text below */

/* The shortest text that says the same: 120000 is "2m", 1500 is "1500ms". */
const char *units_duration(int64_t ms, char text[UNITS_TEXT_MAX]);
const char *units_size(int64_t bytes, char text[UNITS_TEXT_MAX]);

/* For the eye, rounded: "4s", "12m", "3h 5m", "2d 4h"; "812 B", "1.2 MB". */
const char *units_age(int64_t ms, char text[UNITS_TEXT_MAX]);
const char *units_volume(int64_t bytes, char text[UNITS_TEXT_MAX]);

/* RFC 3339 in UTC with milliseconds, 2026-11-21T10:02:00.123Z, for the years 0000 to 9999 (others are clamped). */
const char *units_time(int64_t wall_ms, char text[UNITS_TEXT_MAX]);

/* The UTC date of it, 2026-11-21, and its number of days since 1970. */
const char *units_date(int64_t wall_ms, char text[UNITS_TEXT_MAX]);
int64_t units_day(int64_t wall_ms);

/* The inverse of units_time; 0 or -EINVAL. */
int units_parse_time(const char *text, int64_t *ret_wall_ms);

/* The days since 1970 of a date like units_date's; 0 or -EINVAL. */
int units_parse_date(const char *text, int64_t *ret_day);

#define UNITS_POLLS    "_polls" /* the built-in source, which no file names */
#define UNITS_NAME_MAX 64       /* bytes of a name with the final NUL */

/* [a-z][a-z0-9_-]{0,62} and neither true nor false: sources, stores. A leading _ is ours and not a name to configure.
 */
bool units_is_name(const char *text);

/* Letters, digits, . _ -, 1 to 63 of them, and not "." or "..": devices. */
bool units_is_device(const char *text);

/*
 * Which of the n candidates text was probably meant to be (by edit distance), or NULL where none is near. The result is
 * one of the candidates.
 */
const char *units_nearest(const char *text, const char *const *candidates, size_t n);

#endif
