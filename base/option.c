/* SPDX-License-Identifier: Apache-2.0 */
#include "base/option.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/bytes.h"
#include "base/secret.h"
#include "base/units.h"
#include "base/utf8.h"

#define SHOWN_MAX 80 /* bytes of a wrong value that a message repeats, so that the advice behind it is still read */

/* Cut between two characters of UTF-8. */
static const char *shown(const char *value, char text[SHOWN_MAX])
{
	size_t len = strlen(value);
	if (len < SHOWN_MAX)
		return strcpy(text, value);
	len = utf8_cut(value, SHOWN_MAX - sizeof "…");
	memcpy(text, value, len);
	strcpy(text + len, "…");
	return text;
}

/* A bound as it would be written in the file. */
static const char *bound(enum option_type type, int64_t value, char text[UNITS_TEXT_MAX])
{
	char number[UNITS_TEXT_MAX];
	if (type == OPTION_NUMBER)
		snprintf(text, UNITS_TEXT_MAX, "%" PRId64, value);
	else
		snprintf(text, UNITS_TEXT_MAX, "\"%.24s\"",
		         type == OPTION_SIZE ? units_size(value, number) : units_duration(value, number));
	return text;
}

static int check_range(const struct option *option, int64_t number, const char *value, struct err *err)
{
	bool no_upper = option->max == INT64_MAX || (option->max == 0 && option->min >= 0);
	if ((option->min == 0 && option->max == 0) || (number >= option->min && (no_upper || number <= option->max)))
		return 0;
	char text[SHOWN_MAX], min[UNITS_TEXT_MAX], max[UNITS_TEXT_MAX];
	shown(value, text);
	bound(option->type, option->min, min);
	bound(option->type, option->max, max);
	if (no_upper)
		return err_fail(err, -EINVAL, "\"%s\" is too little; it must be at least %s", text, min);
	return err_fail(err, -EINVAL, "\"%s\" is out of range; it must be between %s and %s", text, min, max);
}

static int parse_number(const char *text, int64_t *ret_number)
{
	const char *digits = text + (*text == '-');
	if (*digits == '\0' || strspn(digits, "0123456789") != strlen(digits))
		return -EINVAL;
	errno = 0;
	long long number = strtoll(text, NULL, 10);
	if (errno != 0)
		return -EINVAL;
	*ret_number = number;
	return 0;
}

/* Durations, sizes and numbers: what reads each, and how it is to be written. */
static const struct {
	int (*parse)(const char *text, int64_t *ret_value);
	const char *advice;
} quantities[] = {
	[OPTION_DURATION] = { units_parse_duration, "no duration; write it like \"90s\", \"2m\" or \"6h\"" },
	[OPTION_SIZE] = { units_parse_size, "no size; write it in bytes, or like \"64K\", \"8M\" or \"2G\"" },
	[OPTION_NUMBER] = { parse_number, "no whole number; write it like 100" },
};

static int set_quantity(const struct option *option, int64_t *field, const char *value, struct err *err)
{
	int64_t number;
	char text[SHOWN_MAX];
	if (quantities[option->type].parse(value, &number) < 0)
		return err_fail(err, -EINVAL, "\"%s\" is %s", shown(value, text), quantities[option->type].advice);
	int rc = check_range(option, number, value, err);
	if (rc == 0)
		*field = number;
	return rc;
}

/* A check may repeat what it refuses, as it does in any other option; of a literal secret nobody may read that. */
static int check_text(const struct option *option, const char *value, struct err *err)
{
	bool hide = option->secret && secret_is_literal(value);
	int rc = option->check ? option->check(value, hide ? NULL : err) : 0;
	if (rc == -EINVAL && hide)
		return err_fail(err, rc, "the secret that stands here is not taken; it is not shown");
	return rc;
}

static int set_text(const struct option *option, char **field, const char *value, struct err *err)
{
	int rc = check_text(option, value, err);
	if (rc < 0)
		return rc;
	char *copy = strdup(value);
	if (!copy)
		return err_fail(err, -ENOMEM, "out of memory");
	free(*field);
	*field = copy;
	return 0;
}

static int set_bool(bool *field, const char *value, struct err *err)
{
	char text[SHOWN_MAX];
	bool yes = strcmp(value, "true") == 0;
	if (!yes && strcmp(value, "false") != 0)
		return err_fail(err, -EINVAL, "\"%s\" is neither true nor false", shown(value, text));
	*field = yes;
	return 0;
}

static int set_choice(const struct option *option, int *field, const char *value, struct err *err)
{
	struct bytes list;
	bytes_init(&list, ERR_MAX);
	int n = 0;
	for (; option->choices[n]; n++) {
		if (strcmp(option->choices[n], value) == 0) {
			bytes_done(&list);
			*field = n;
			return 0;
		}
		bytes_printf(&list, "%s\"%s\"", n ? ", " : "", option->choices[n]);
	}
	char text[SHOWN_MAX];
	const char *nearest = units_nearest(value, option->choices, (size_t)n);
	int rc = err_fail(err, -EINVAL, "\"%s\" is not %s%.*s%s%s%s", shown(value, text), n > 1 ? "one of " : "",
	                  (int)list.len, list.data ? (char *)list.data : "", nearest ? "; did you mean \"" : "",
	                  nearest ? nearest : "", nearest ? "\"?" : "");
	bytes_done(&list);
	return rc;
}

static void free_names(struct option_names *list)
{
	for (size_t i = 0; i < list->n; i++)
		free(list->names[i]);
	free(list->names);
	*list = (struct option_names){ 0 };
}

static int check_usual_name(const char *name, struct err *err)
{
	char text[SHOWN_MAX];
	if (units_is_name(name))
		return 0;
	return err_fail(err, -EINVAL,
	                "\"%s\" is no name; write small letters, digits, _ and -, a letter first, up to %d",
	                shown(name, text), UNITS_NAME_MAX - 1);
}

/* One element, which the list owns from then on. */
static int add_name(const struct option *option, struct option_names *list, const char *start, size_t len,
                    struct err *err)
{
	char *name = strndup(start, len);
	if (!name)
		return err_fail(err, -ENOMEM, "out of memory");
	list->names[list->n] = name;
	int rc = (option->check_name ? option->check_name : check_usual_name)(name, err);
	for (size_t i = 0; rc == 0 && i < list->n; i++) {
		if (strcmp(list->names[i], name) == 0)
			rc = err_fail(err, -EINVAL, "\"%s\" stands there twice", name);
	}
	list->n++;
	return rc;
}

static int split_names(const struct option *option, struct option_names *list, const char *value, struct err *err)
{
	value += strspn(value, " ");
	if (*value == '\0')
		return 0;
	for (;;) {
		size_t len = strcspn(value, ","), kept = len;
		while (kept > 0 && value[kept - 1] == ' ')
			kept--;
		int rc = add_name(option, list, value, kept, err);
		if (rc < 0 || value[len] == '\0')
			return rc;
		value += len + 1;
		value += strspn(value, " ");
	}
}

static int set_names(const struct option *option, struct option_names *field, const char *value, struct err *err)
{
	size_t most = 1;
	for (const char *at = value; *at; at++)
		most += *at == ',';
	struct option_names list = { .names = calloc(most, sizeof *list.names) };
	if (!list.names)
		return err_fail(err, -ENOMEM, "out of memory");
	int rc = split_names(option, &list, value, err);
	if (rc < 0) {
		free_names(&list);
		return rc;
	}
	free_names(field);
	*field = list;
	return 0;
}

static void free_pair(struct option_pair *pair)
{
	free(pair->name);
	secret_free(pair->reference);
	secret_free(pair->value);
}

static void free_pairs(struct option_pairs *list)
{
	for (size_t i = 0; i < list->n; i++)
		free_pair(&list->pairs[i]);
	free(list->pairs);
	*list = (struct option_pairs){ 0 };
}

static int check_pair_name(const struct option *option, const struct option_pairs *list, const char *name,
                           struct err *err)
{
	if (list->n == OPTION_PAIRS_MAX)
		return err_fail(err, -EINVAL, "it is one too many; up to %d are taken", OPTION_PAIRS_MAX);
	for (size_t i = 0; i < list->n; i++)
		if (strcasecmp(list->pairs[i].name, name) == 0)
			return err_fail(err, -EINVAL, "the name stands there twice; capitals make no difference");
	return option->check_name ? option->check_name(name, err) : 0;
}

static int add_pair(const struct option *option, struct option_pairs *list, const char *value, struct err *err)
{
	const char *colon = strstr(value, ": ");
	assert(colon);
	struct option_pair *grown = realloc(list->pairs, (list->n + 1) * sizeof *grown);
	if (!grown)
		return err_fail(err, -ENOMEM, "out of memory");
	list->pairs = grown;
	struct option_pair *pair = &grown[list->n];
	*pair = (struct option_pair){ .name = strndup(value, (size_t)(colon - value)), .reference = strdup(colon + 2) };
	int rc = pair->name && pair->reference ? check_pair_name(option, list, pair->name, err)
	                                       : err_fail(err, -ENOMEM, "out of memory");
	if (rc < 0)
		free_pair(pair);
	else
		list->n++;
	return rc;
}

int option_read_pair(const struct option *option, struct option_pair *pair, const char *folder, struct err *err)
{
	char *value = NULL;
	int rc = secret_read(pair->reference, folder, &value, err);
	if (rc == 0 && option->check && (rc = option->check(value, NULL)) < 0) /* its words may repeat the value */
		err_fail(err, rc, "%s: its value is not taken there; it is not shown", secret_show(pair->reference));
	if (rc < 0) {
		secret_free(value);
		return rc;
	}
	secret_free(pair->value);
	pair->value = value;
	return 0;
}

int option_set(const struct option *option, void *target, const char *value, struct err *err)
{
	void *field = (char *)target + option->offset;
	/* the others repeat what they refuse */
	assert(!option->secret || option->type == OPTION_TEXT || option->type == OPTION_PAIRS);
	switch (option->type) {
	case OPTION_TEXT:
		return set_text(option, field, value, err);
	case OPTION_DURATION:
	case OPTION_SIZE:
	case OPTION_NUMBER:
		return set_quantity(option, field, value, err);
	case OPTION_BOOL:
		return set_bool(field, value, err);
	case OPTION_CHOICE:
		return set_choice(option, field, value, err);
	case OPTION_NAMES:
		return set_names(option, field, value, err);
	case OPTION_PAIRS:
		return add_pair(option, field, value, err);
	}
	abort(); /* a type that the enum does not have */
}

int option_defaults(const struct option *table, void *target)
{
	for (const struct option *option = table; option->name; option++) {
		if (!option->fallback)
			continue;
		int rc = option_set(option, target, option->fallback, NULL);
		assert(rc == 0 || rc == -ENOMEM);
		if (rc < 0) {
			option_done(table, target);
			return rc;
		}
	}
	return 0;
}

void option_done(const struct option *table, void *target)
{
	for (; table->name; table++) {
		void *field = (char *)target + table->offset;
		if (table->type == OPTION_TEXT) {
			free(*(char **)field);
			*(char **)field = NULL;
		} else if (table->type == OPTION_NAMES) {
			free_names(field);
		} else if (table->type == OPTION_PAIRS) {
			free_pairs(field);
		}
	}
}

static bool same_text(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool same_names(const struct option_names *a, const struct option_names *b)
{
	bool same = !a->names == !b->names && a->n == b->n;
	for (size_t i = 0; same && i < a->n; i++)
		same = strcmp(a->names[i], b->names[i]) == 0;
	return same;
}

static bool same_pairs(const struct option_pairs *a, const struct option_pairs *b)
{
	bool same = a->n == b->n;
	for (size_t i = 0; same && i < a->n; i++)
		same = strcmp(a->pairs[i].name, b->pairs[i].name) == 0 &&
		       strcmp(a->pairs[i].reference, b->pairs[i].reference) == 0 &&
		       same_text(a->pairs[i].value, b->pairs[i].value);
	return same;
}

static bool same_field(enum option_type type, const void *a, const void *b)
{
	switch (type) {
	case OPTION_TEXT:
		return same_text(*(char *const *)a, *(char *const *)b);
	case OPTION_DURATION:
	case OPTION_SIZE:
	case OPTION_NUMBER:
		return *(const int64_t *)a == *(const int64_t *)b;
	case OPTION_BOOL:
		return *(const bool *)a == *(const bool *)b;
	case OPTION_CHOICE:
		return *(const int *)a == *(const int *)b;
	case OPTION_NAMES:
		return same_names(a, b);
	case OPTION_PAIRS:
		return same_pairs(a, b);
	}
	abort(); /* a type that the enum does not have */
}

bool option_equal(const struct option *table, const void *a, const void *b)
{
	for (; table->name; table++)
		if (!same_field(table->type, (const char *)a + table->offset, (const char *)b + table->offset))
			return false;
	return true;
}

const struct option *option_find(const struct option *table, const char *name)
{
	for (; table->name; table++) {
		if (strcmp(table->name, name) == 0)
			return table;
	}
	return NULL;
}

int option_check_path(const char *value, struct err *err)
{
	if (!*value)
		return err_fail(err, -EINVAL, "the path is empty");
	if (*value == '~')
		return err_fail(err, -EINVAL,
		                "\"%.80s\": ~ stands for nothing here; write the whole path, as in \"/home/pi/...\"",
		                value);
	return 0;
}
