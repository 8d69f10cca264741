/* SPDX-License-Identifier: Apache-2.0 */
#include "mill/when.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define MINUTE_MS   INT64_C(60000)
#define HOUR_MS     (60 * MINUTE_MS)
#define AGE_MAX_MS  (INT64_C(3650) * 24 * HOUR_MS)
#define DAY_MINUTES 1440
#define LOOK_BACK                                                                                                      \
	(INT64_C(9) * 366 * DAY_MINUTES) /* in minutes: from one 29 February to the next are 8 years at most */
#define QUARTER_S   900                  /* zones change their offset at a quarter of an hour */
#define FOLD_S      (3 * 3600)           /* no zone puts its clocks back by more */
#define WORD_MAX    UNITS_NAME_MAX
#define CRON_FIELDS 5
#define GRAMMAR                                                                                                        \
	"when is \"batches >= NUMBER\", \"age >= DURATION\", \"cron MINUTE HOUR DAY MONTH WEEKDAY\" or \"after "       \
	"JOB\", "                                                                                                      \
	"joined by and, or"

/* Reading */

struct reader {
	const char *text, *at;
	const char *word; /* the last one that was read, for errors; it ends before `at` */
	struct err *err;
};

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* What stands there is wrong. */
static int fail(const struct reader *r, const char *expected)
{
	int len = (int)(r->at - r->word);
	if (len == 0)
		return err_fail(r->err, -EINVAL, "it ends where %s must stand; " GRAMMAR, expected);
	return err_fail(r->err, -EINVAL, "at character %d stands \"%.*s\", where %s must stand; " GRAMMAR,
	                (int)(r->word - r->text) + 1, len < 40 ? len : 40, r->word, expected);
}

/* The next word: what goes up to a space, or to a >= that stands alone or not. Its length; 0 at the end. */
static size_t read_word(struct reader *r)
{
	while (is_space(*r->at))
		r->at++;
	r->word = r->at;
	bool sign = *r->at == '>' || *r->at == '=' || *r->at == '<';
	while (*r->at && !is_space(*r->at) && (strchr("<>=", *r->at) != NULL) == sign)
		r->at++;
	return (size_t)(r->at - r->word);
}

static bool word_is(const struct reader *r, const char *expected)
{
	size_t len = (size_t)(r->at - r->word);
	return strlen(expected) == len && memcmp(r->word, expected, len) == 0;
}

/* The word that was read as a string of its own; -EINVAL: it is longer than any that is taken. */
static int copy_word(const struct reader *r, char ret_word[WORD_MAX])
{
	size_t len = (size_t)(r->at - r->word);
	if (len >= WORD_MAX)
		return -EINVAL;
	memcpy(ret_word, r->word, len);
	ret_word[len] = '\0';
	return 0;
}

/* Behind a condition's name: >= and what is to be compared with. */
static int read_bound(struct reader *r, char ret_word[WORD_MAX], const char *expected)
{
	read_word(r);
	if (!word_is(r, ">="))
		return fail(r, "\">=\"");
	if (read_word(r) == 0 || copy_word(r, ret_word) < 0)
		return fail(r, expected);
	return 0;
}

static int read_batches(struct reader *r, struct when_condition *c)
{
	static const char expected[] = "a number from 1 on";
	char word[WORD_MAX];
	int64_t number;
	int rc = read_bound(r, word, expected);
	if (rc < 0)
		return rc;
	/* a size without its letter is a whole number */
	if (strspn(word, "0123456789") != strlen(word) || units_parse_size(word, &number) < 0 || number < 1)
		return fail(r, expected);
	c->batches = (uint64_t)number;
	return 0;
}

static int read_age(struct reader *r, struct when_condition *c)
{
	static const char expected[] = "a duration like \"90s\", \"2m\" or \"6h\", up to 3650d,";
	char word[WORD_MAX];
	int rc = read_bound(r, word, expected);
	if (rc < 0)
		return rc;
	return units_parse_duration(word, &c->age_ms) < 0 || c->age_ms > AGE_MAX_MS ? fail(r, expected) : 0;
}

static int read_after(struct reader *r, struct when_condition *c)
{
	if (read_word(r) == 0 || copy_word(r, c->job) < 0 || !units_is_name(c->job))
		return fail(r, "the name of a job");
	return 0;
}

/* Reading cron's fields */

static const char *const months[] = { "jan", "feb", "mar", "apr", "may", "jun", "jul",
	                              "aug", "sep", "oct", "nov", "dec", NULL };
static const char *const weekdays[] = { "sun", "mon", "tue", "wed", "thu", "fri", "sat", NULL };

struct cron_field {
	int min, max;
	const char *const *names; /* the first is min; NULL: it has none */
	const char *expected;
};

enum { FIELD_MINUTE, FIELD_HOUR, FIELD_DAY, FIELD_MONTH, FIELD_WEEKDAY };

#define FORMS ", like *, 5, 1-5, */2 or 1,3,"
static const struct cron_field cron_fields[CRON_FIELDS] = {
	[FIELD_MINUTE] = { 0, 59, NULL, "cron's minute, 0 to 59" FORMS },
	[FIELD_HOUR] = { 0, 23, NULL, "cron's hour, 0 to 23" FORMS },
	[FIELD_DAY] = { 1, 31, NULL, "cron's day, 1 to 31" FORMS },
	[FIELD_MONTH] = { 1, 12, months, "cron's month, 1 to 12 or jan to dec" FORMS },
	[FIELD_WEEKDAY] = { 0, 7, weekdays, "cron's weekday, 0 to 7 or sun to sat" FORMS },
};

/* A number of at most two digits at *at, which moves on; -1: there is none. */
static int read_digits(const char **at, const char *end)
{
	int value = 0, n = 0;
	for (; *at < end && **at >= '0' && **at <= '9' && n < 3; n++)
		value = 10 * value + *(*at)++ - '0';
	return n == 1 || n == 2 ? value : -1;
}

/* A number or name of the field; -1: it is none. */
static int read_value(const struct cron_field *field, const char **at, const char *end)
{
	for (int i = 0; field->names && field->names[i]; i++)
		if (end - *at >= 3 && strncasecmp(*at, field->names[i], 3) == 0) {
			*at += 3;
			return field->min + i;
		}
	int value = read_digits(at, end);
	return value >= field->min && value <= field->max ? value : -1;
}

/* `*`, `5`, `1-5`, with `/2` behind all but the second. false: it is none of them. */
static bool read_span(const struct cron_field *field, const char *at, const char *end, uint64_t *bits)
{
	int low = field->min, high = field->max, step = 1;
	bool one = false;
	if (at < end && *at == '*') {
		at++;
	} else {
		low = high = read_value(field, &at, end);
		one = at == end || *at != '-';
		if (!one) {
			at++;
			high = read_value(field, &at, end);
			if (field->max == 7 && high == 0 && low > 0)
				high = 7; /* sat-sun */
		}
	}
	if (at < end && *at == '/' && !one) {
		at++;
		step = read_digits(&at, end);
	}
	if (at != end || low < 0 || high < low || step < 1)
		return false;
	for (int i = low; i <= high; i += step)
		*bits |= UINT64_C(1) << i;
	return true;
}

/* The next word as one of cron's fields. */
static int read_field(struct reader *r, const struct cron_field *field, uint64_t *ret_bits)
{
	uint64_t bits = 0;
	bool good = read_word(r) > 0;
	for (const char *at = r->word; good; at++) {
		const char *end = memchr(at, ',', (size_t)(r->at - at));
		good = read_span(field, at, end ? end : r->at, &bits);
		if (!end)
			break;
		at = end;
	}
	if (!good)
		return fail(r, field->expected);
	*ret_bits = bits;
	return 0;
}

/* 31 February: no year has it. */
static bool is_day_possible(const struct when_cron *cron)
{
	static const int lengths[] = { 0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	bool either = !cron->any_day && !cron->any_weekday;
	for (int month = 1; month <= 12; month++)
		for (int day = 1; cron->months & 1U << month && day <= lengths[month]; day++)
			if (either || cron->days & 1U << day)
				return true;
	return false;
}

static int read_cron(struct reader *r, struct when_condition *c)
{
	uint64_t bits[CRON_FIELDS];
	char first[CRON_FIELDS];
	const char *day = NULL;
	for (size_t i = 0; i < CRON_FIELDS; i++) {
		int rc = read_field(r, &cron_fields[i], &bits[i]);
		if (rc < 0)
			return rc;
		first[i] = *r->word;
		if (i == FIELD_DAY)
			day = r->word;
	}
	c->cron = (struct when_cron){
		.minutes = bits[FIELD_MINUTE],
		.hours = (uint32_t)bits[FIELD_HOUR],
		.days = (uint32_t)bits[FIELD_DAY],
		.months = (uint16_t)bits[FIELD_MONTH],
		.weekdays = (uint8_t)(bits[FIELD_WEEKDAY] | bits[FIELD_WEEKDAY] >> 7), /* 7 is 0 */
		.any_day = first[FIELD_DAY] == '*',
		.any_weekday = first[FIELD_WEEKDAY] == '*',
	};
	r->word = day;
	return is_day_possible(&c->cron) ? 0 : fail(r, "a day that its month has");
}

/* Reading a whole one */

static int read_condition(struct reader *r, struct when_condition *c)
{
	static const struct {
		const char *name;
		int (*read)(struct reader *r, struct when_condition *c);
	} kinds[] = {
		[WHEN_BATCHES] = { "batches", read_batches },
		[WHEN_AGE] = { "age", read_age },
		[WHEN_CRON] = { "cron", read_cron },
		[WHEN_AFTER] = { "after", read_after },
	};
	read_word(r);
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
		if (word_is(r, kinds[i].name)) {
			c->kind = (enum when_kind)i;
			return kinds[i].read(r, c);
		}
	return fail(r, "batches, age, cron or after");
}

/* 1: another condition follows, 0: it is the end. */
static int read_joint(struct reader *r, bool *ret_first)
{
	if (read_word(r) == 0)
		return 0;
	*ret_first = word_is(r, "or");
	return *ret_first || word_is(r, "and") ? 1 : fail(r, "and, or, or nothing more");
}

int when_parse(const char *text, struct when *ret_when, struct err *err)
{
	struct reader r = { .text = text, .at = text, .word = text, .err = err };
	struct when when = { .n = 0 };
	bool first = true;
	int rc;
	do {
		if (when.n == WHEN_CONDITIONS)
			return err_fail(err, -EINVAL, "it has more than %d conditions", WHEN_CONDITIONS);
		struct when_condition *c = &when.conditions[when.n++];
		c->first = first;
		rc = read_condition(&r, c);
		if (rc == 0)
			rc = read_joint(&r, &first);
	} while (rc > 0);
	snprintf(when.text, sizeof when.text, "%s", text);
	if (rc == 0)
		*ret_when = when;
	return rc;
}

/*
 * Cron. Minutes of local time are counted as if every day had 24 hours; their watermark is the highest that any clock
 * on the wall has shown so far. What is due between two moments is what lies between their watermarks: over the gap in
 * spring it leaps, and so takes what was skipped along; in autumn it stands still until the repeated hour is over.
 */

static int64_t floor_div(int64_t a, int64_t b)
{
	return a / b - (a % b < 0);
}

static int64_t local_minute(int64_t wall_s)
{
	time_t t = (time_t)wall_s;
	struct tm tm;
	return localtime_r(&t, &tm) ? floor_div(wall_s + tm.tm_gmtoff, 60) : floor_div(wall_s, 60);
}

static int64_t watermark(int64_t wall_ms)
{
	int64_t now_s = floor_div(wall_ms, 1000);
	int64_t highest = local_minute(now_s);
	int64_t quarter_s = floor_div(now_s, QUARTER_S) * QUARTER_S;
	for (int64_t s = quarter_s; s > quarter_s - FOLD_S; s -= QUARTER_S) {
		int64_t before = local_minute(s - 1);
		highest = before > highest ? before : highest;
	}
	return highest;
}

static bool day_matches(const struct when_cron *cron, int64_t day)
{
	time_t t = (time_t)(day * 86400);
	struct tm tm;
	if (!gmtime_r(&t, &tm) || !(cron->months & 1U << (tm.tm_mon + 1)))
		return false;
	bool by_day = cron->days & 1U << tm.tm_mday;
	bool by_weekday = cron->weekdays & 1U << tm.tm_wday;
	return cron->any_day || cron->any_weekday ? by_day && by_weekday : by_day || by_weekday;
}

/* Whether one of its times lies in the minutes (after, until]. */
static bool cron_lies_in(const struct when_cron *cron, int64_t after, int64_t until)
{
	int64_t minute = until - after > LOOK_BACK ? until - LOOK_BACK : after + 1;
	while (minute <= until) {
		int64_t day = floor_div(minute, DAY_MINUTES);
		int of_day = (int)(minute - day * DAY_MINUTES);
		if (!day_matches(cron, day))
			minute = (day + 1) * DAY_MINUTES;
		else if (!(cron->hours & 1U << of_day / 60))
			minute += 60 - of_day % 60;
		else if (!(cron->minutes & UINT64_C(1) << of_day % 60))
			minute++;
		else
			return true;
	}
	return false;
}

static bool cron_is_due(const struct when_cron *cron, const struct when_facts *facts)
{
	int64_t now = watermark(facts->wall_ms);
	bool known = facts->looked_ms > 0 && facts->looked_ms <= facts->wall_ms;
	return cron_lies_in(cron, known ? watermark(facts->looked_ms) : watermark(facts->wall_ms - MINUTE_MS), now);
}

/* The beginning of the first minute at which it is due, HOUR_MS at most. */
static int64_t cron_next_ms(const struct when_cron *cron, int64_t wall_ms)
{
	int64_t now = watermark(wall_ms);
	for (int64_t next_ms = MINUTE_MS - (wall_ms - floor_div(wall_ms, MINUTE_MS) * MINUTE_MS); next_ms < HOUR_MS;
	     next_ms += MINUTE_MS)
		if (cron_lies_in(cron, now, watermark(wall_ms + next_ms)))
			return next_ms;
	return HOUR_MS;
}

/* Judging */

static bool holds(const struct when_condition *c, const struct when_facts *facts)
{
	switch (c->kind) {
	case WHEN_BATCHES:
		return facts->batches >= c->batches;
	case WHEN_AGE:
		return facts->oldest_ms > 0 && facts->wall_ms - facts->oldest_ms >= c->age_ms;
	case WHEN_CRON:
		return facts->batches > 0 && cron_is_due(&c->cron, facts);
	case WHEN_AFTER:
		return facts->ended_since(facts->arg, c->job);
	}
	return false;
}

bool when_is_due(const struct when *when, const struct when_facts *facts)
{
	bool all = false;
	for (size_t i = 0; i < when->n; i++) {
		const struct when_condition *c = &when->conditions[i];
		if (c->first && all)
			return true;
		all = (c->first || all) && holds(c, facts);
	}
	return all;
}

/* INT64_MAX: time changes nothing of it. */
static int64_t condition_next_ms(const struct when_condition *c, const struct when_facts *facts)
{
	if (c->kind == WHEN_CRON)
		return cron_next_ms(&c->cron, facts->wall_ms);
	if (c->kind != WHEN_AGE || facts->oldest_ms == 0)
		return INT64_MAX;
	int64_t left_ms = c->age_ms - (facts->wall_ms - facts->oldest_ms);
	return left_ms <= 0 ? INT64_MAX : left_ms < HOUR_MS ? left_ms : HOUR_MS;
}

int64_t when_next_ms(const struct when *when, const struct when_facts *facts)
{
	int64_t next_ms = INT64_MAX;
	for (size_t i = 0; i < when->n; i++) {
		int64_t of_one_ms = condition_next_ms(&when->conditions[i], facts);
		next_ms = of_one_ms < next_ms ? of_one_ms : next_ms;
	}
	return next_ms;
}

bool when_wants_nothing(const struct when *when)
{
	for (size_t i = 0; i < when->n; i++)
		if (when->conditions[i].kind == WHEN_AFTER)
			return true;
	return false;
}
