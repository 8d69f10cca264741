/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Settings described as data. A module that can be configured has a plain struct and a table of these; agent/config
 * walks the table over a group of the file, and so unknown words, wrong types and wrong ranges are told in one way with
 * file and line, whoever the module is. Tables are const; values are owned by the struct that they are written to.
 */
#ifndef BASE_OPTION_H
#define BASE_OPTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum option_type {
	OPTION_TEXT,     /* char *, malloc'ed; NULL where left out and without a default */
	OPTION_DURATION, /* int64_t, milliseconds */
	OPTION_SIZE,     /* int64_t, bytes */
	OPTION_NUMBER,   /* int64_t */
	OPTION_BOOL,     /* bool */
	OPTION_CHOICE,   /* int, the index in `choices` */
	OPTION_NAMES,    /* struct option_names: an array of names; as text with commas between, "" is the empty list */
	OPTION_PAIRS,    /* struct option_pairs: a group of words with texts, each a reference to a secret; as text
	                    "Name: reference", one call of option_set each. Names differ in more than capitals */
};

#define OPTION_PAIRS_MAX 32

struct option_names {
	char **names; /* NULL where it was left out, which is not the same as an empty list */
	size_t n;
};

struct option_pair {
	char *name;
	char *reference; /* as it stands in the file (base/secret.h) */
	char *value;     /* what the reference refers to; NULL: not read. Freed by secret_free */
};

struct option_pairs {
	struct option_pair *pairs;
	size_t n;
};

struct option {
	const char *name; /* NULL ends a table */
	enum option_type type;
	size_t offset;              /* into the module's struct */
	bool required;              /* must stand in the file */
	const char *fallback;       /* the default, written as in the file; NULL: none */
	int64_t min, max;           /* of durations (ms), sizes (bytes) and numbers; 0, 0: no bound; max 0: no upper */
	const char *const *choices; /* of OPTION_CHOICE, ended by NULL */
	bool path;                  /* of OPTION_TEXT: of a file or a folder, meant from the configuration's folder */
	bool secret; /* of OPTION_TEXT: a reference to a secret (base/secret.h), whose value no message shows */
	/* Of OPTION_TEXT, or of a pair's value, once it is read: 0, or says what is wrong with it; NULL: any. */
	int (*check)(const char *value, struct err *err);
	/* Of a pair; NULL: any. Of OPTION_NAMES, each; NULL: units_is_name. */
	int (*check_name)(const char *name, struct err *err);
};

#define OPTION_END                                                                                                     \
	{                                                                                                              \
		.name = NULL                                                                                           \
	}

/* Writes the table's defaults into target, which was zeroed. 0 or -ENOMEM; a wrong default is our own bug. */
int option_defaults(const struct option *table, void *target);

/* Writes one value, given as text the way it stands in the file (numbers and booleans too). 0, -ENOMEM, or -EINVAL with
 * what is wrong and what would be right: `"10x" is no duration; write it like "90s", "2m" or "6h"`. */
int option_set(const struct option *option, void *target, const char *value, struct err *err);

/* Frees the texts and lists that the table owns in target. */
void option_done(const struct option *table, void *target);

/* A check for OPTION_TEXT that is a path: not empty, and no ~, which a shell would have replaced. */
int option_check_path(const char *value, struct err *err);

/*
 * Reads what a pair refers to, relative paths seen from `folder`, and has it checked; before that its value is NULL.
 * 0, -ENOMEM, or what secret_read and the check say; no message shows the value.
 */
int option_read_pair(const struct option *option, struct option_pair *pair, const char *folder, struct err *err);

/* Whether a and b have the same values throughout, secrets included. */
bool option_equal(const struct option *table, const void *a, const void *b);

const struct option *option_find(const struct option *table, const char *name);

#endif
