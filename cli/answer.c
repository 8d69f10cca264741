/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/answer.h"

#include <inttypes.h>
#include <stdio.h>

const char *answer_text(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));
	return text ? text : "";
}

int64_t answer_number(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

int64_t answer_time(const json_t *object, const char *key)
{
	int64_t wall_ms = 0;
	const char *text = answer_text(object, key);
	return *text && units_parse_time(text, &wall_ms) == 0 ? wall_ms : 0;
}

const char *answer_age(const json_t *object, const char *key, int64_t now_ms, char text[UNITS_TEXT_MAX])
{
	int64_t at_ms = answer_time(object, key);
	return at_ms ? units_age(now_ms - at_ms, text) : ANSWER_NONE;
}

const char *answer_until(const json_t *object, const char *key, int64_t now_ms, char text[UNITS_TEXT_MAX])
{
	int64_t at_ms = answer_time(object, key);
	if (!at_ms)
		return ANSWER_NONE;
	return at_ms > now_ms ? units_age(at_ms - now_ms, text) : "now";
}

const char *answer_plural(int64_t n, const char *word, const char *plural, char text[UNITS_TEXT_MAX])
{
	snprintf(text, UNITS_TEXT_MAX, "%" PRId64 " %s%s", n, word, n == 1 ? "" : plural);
	return text;
}
