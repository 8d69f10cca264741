/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the daemon's JSON: what is missing or of another type reads as empty, so that no answer can crash a client.
 */
#ifndef CLI_ANSWER_H
#define CLI_ANSWER_H

#include <jansson.h>
#include <stdint.h>

#include "base/units.h"

/* Text for a time that is null, and for a cell with nothing to say. */
#define ANSWER_NONE "-"

const char *answer_text(const json_t *object, const char *key); /* "" */
int64_t answer_number(const json_t *object, const char *key);   /* 0 */
int64_t answer_time(const json_t *object, const char *key);     /* wall milliseconds; 0: null */

/* How long before now_ms (at least 0), and how long after; ANSWER_NONE where it is null. */
const char *answer_age(const json_t *object, const char *key, int64_t now_ms, char text[UNITS_TEXT_MAX]);
const char *answer_until(const json_t *object, const char *key, int64_t now_ms, char text[UNITS_TEXT_MAX]);

/* "1 batch", "2 batches": plural is what is put to the end of the word. */
const char *answer_plural(int64_t n, const char *word, const char *plural, char text[UNITS_TEXT_MAX]);

#endif
