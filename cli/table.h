/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Aligned columns for people, and the colours of states. Texts come from outside: control characters come out as `?`,
 * so that no feed's error can steer a terminal. Embedded, made and printed by one command.
 */
#ifndef CLI_TABLE_H
#define CLI_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define TABLE_COLUMNS_MAX 12

/* Where a command prints, and how. */
struct page {
	FILE *out;
	bool colour;
	size_t width; /* columns of the terminal; 0: as wide as it gets */
};

/* Standard output; colour on a terminal without NO_COLOR (no-color.org). */
struct page page_stdout(void);

/* The text without what steers terminals, in the colour of this state ("fresh", "away", …) where it has one. */
void page_text(const struct page *page, const char *text);
void page_state(const struct page *page, const char *state, const char *text);

enum table_align {
	TABLE_LEFT,
	TABLE_RIGHT,
	TABLE_STATE, /* left, in the colour of the state that it names */
	TABLE_CUT,   /* left, cut where the page is too narrow; one column at most */
};

struct table_column {
	const char *title;
	enum table_align align;
};

struct table {
	const struct table_column *columns; /* const data of the caller, ended by a NULL title */
	size_t n_columns;
	char **cells;
	size_t n_cells;
	bool failed; /* no memory: table_print says so */
};

void table_init(struct table *table, const struct table_column *columns);
void table_done(struct table *table);

/* The next cell, from left to right and row by row. */
void table_add(struct table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));

void table_print(const struct table *table, const struct page *page);

#endif
