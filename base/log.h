/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log: one line an event to standard error, as text (with <N> priorities where journald reads it, see sd-daemon(3);
 * else with the time) or as JSON lines. Leaf modules do not log: agent/ does, once, where it decides. Loop thread only.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

/* The numbers are syslog's (RFC 5424 §6.2.1). */
enum log_level { LOG_LEVEL_ERROR = 3, LOG_LEVEL_WARNING = 4, LOG_LEVEL_NOTICE = 5, LOG_LEVEL_INFO = 6 };

enum log_format { LOG_TEXT, LOG_JSON };

/* Text is the format before the first call. */
void log_init(enum log_format format);

/*
 * One event. id is a dotted word that never changes from one release to the next ("source.failed"); the text may.
 * Line breaks and control characters in the text come out as spaces; a line has at most 1,024 bytes.
 *
 * An event that comes too often is counted and not written: of one id at most LOG_BURST lines at once and LOG_BURST an
 * hour after that (a token bucket by base/clock's monotonic time); the next line of that id that is written says how
 * many were left out: "(12 more like it were left out)". Errors of other ids are not held up by it.
 */
#define LOG_BURST 120

void log_event(enum log_level level, const char *id, const char *format, ...) __attribute__((format(printf, 3, 4)));

#define log_error(...)   log_event(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_event(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_notice(...)  log_event(LOG_LEVEL_NOTICE, __VA_ARGS__)
#define log_info(...)    log_event(LOG_LEVEL_INFO, __VA_ARGS__)

#endif
