/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The splitter beside jansson, over the same texts in the same process, in turn:
 *
 *     split speed json|lines FILE…   MB/s of either, the median of some rounds; the splitter gets pieces of 16 KB
 *     split tree lines FILE          KB of private dirty memory that jansson's values of the text take
 *
 * Answers in JSON.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "collectors/split.h"

#define PIECE      (16 * 1024)
#define ROUNDS     7
#define TEXTS_MAX  64
#define LEAST      (20 * 1000 * 1000) /* bytes of a round */
#define RECORD_MAX (64 * 1024 * 1024)

struct text {
	char *data;
	size_t len;
};

struct corpus {
	struct text texts[TEXTS_MAX];
	size_t n, bytes, times;
	int lines;
};

static _Noreturn void die(const char *what, const char *why)
{
	fprintf(stderr, "%s: %s\n", what, why);
	exit(1);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct text read_text(const char *path)
{
	FILE *file = fopen(path, "rb");
	struct text text = { NULL, 0 };
	long size;

	if (!file || fseek(file, 0, SEEK_END) < 0 || (size = ftell(file)) <= 0)
		die(path, "cannot be read");
	rewind(file);
	text.len = (size_t)size;
	text.data = malloc(text.len);
	if (!text.data || fread(text.data, 1, text.len, file) != text.len)
		die(path, "cannot be read");
	fclose(file);
	return text;
}

static int count_record(void *arg, const void *data, size_t len)
{
	(void)data;
	(void)len;
	++*(size_t *)arg;
	return 0;
}

static size_t split_text(const struct text *text, int lines)
{
	struct split *split;
	struct err err = { "" };
	size_t records = 0;
	int r = lines ? split_new_lines(RECORD_MAX, count_record, &records, &split)
	              : split_new("$", RECORD_MAX, count_record, &records, &split, &err);

	for (size_t at = 0; r == 0 && at < text->len; at += PIECE)
		r = split_feed(split, text->data + at, text->len - at < PIECE ? text->len - at : PIECE, &err);
	if (r == 0)
		r = split_finish(split, &err);
	if (r < 0)
		die("the splitter", err.text);
	split_free(split);
	return records;
}

static json_t *load(const char *data, size_t len)
{
	json_error_t error;
	json_t *json = json_loadb(data, len, JSON_DECODE_ANY, &error);

	if (!json)
		die("jansson", error.text);
	return json;
}

/* Each line a value; they go into `all` where there is one. */
static size_t load_lines(const struct text *text, json_t *all)
{
	const char *at = text->data, *end = text->data + text->len;
	size_t records = 0;

	while (at < end) {
		const char *line_end = memchr(at, '\n', (size_t)(end - at));
		size_t len = (size_t)((line_end ? line_end : end) - at);
		json_t *json = load(at, len);

		if (all)
			json_array_append(all, json);
		json_decref(json);
		at += len + 1;
		records++;
	}
	return records;
}

static size_t load_text(const struct text *text, int lines)
{
	json_t *json;
	size_t records;

	if (lines)
		return load_lines(text, NULL);
	json = load(text->data, text->len);
	records = json_array_size(json);
	json_decref(json);
	return records;
}

/* MB/s of one round over the corpus. */
static double run(const struct corpus *c, size_t (*parse)(const struct text *, int), size_t *ret_records)
{
	double begun = now();

	*ret_records = 0;
	for (size_t i = 0; i < c->times; i++)
		for (size_t k = 0; k < c->n; k++)
			*ret_records += parse(&c->texts[k], c->lines);
	return (double)(c->bytes * c->times) / 1e6 / (now() - begun);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static int speed(const struct corpus *c)
{
	double ours[ROUNDS], theirs[ROUNDS];
	size_t n = 0, m = 0;

	for (int i = 0; i < ROUNDS; i++) {
		ours[i] = run(c, split_text, &n);
		theirs[i] = run(c, load_text, &m);
		if (n != m)
			die("the two", "found different numbers of records");
	}
	qsort(ours, ROUNDS, sizeof *ours, compare);
	qsort(theirs, ROUNDS, sizeof *theirs, compare);
	printf("{\"split\":%.1f,\"jansson\":%.1f,\"bytes\":%zu,\"records\":%zu}\n", ours[ROUNDS / 2],
	       theirs[ROUNDS / 2], c->bytes, n / c->times);
	return 0;
}

static long private_dirty_kb(void)
{
	FILE *file = fopen("/proc/self/smaps_rollup", "r");
	char line[128];
	long kb = -1;

	while (file && kb < 0 && fgets(line, sizeof line, file))
		if (sscanf(line, "Private_Dirty: %ld", &kb) != 1)
			kb = -1;
	if (kb < 0)
		die("/proc/self/smaps_rollup", "does not say");
	fclose(file);
	return kb;
}

static int tree(const struct corpus *c)
{
	long before = private_dirty_kb();
	json_t *all = json_array();

	load_lines(&c->texts[0], all);
	printf("{\"kb\":%ld,\"records\":%zu}\n", private_dirty_kb() - before, json_array_size(all));
	json_decref(all);
	return 0;
}

int main(int argc, char **argv)
{
	static struct corpus c;

	if (argc < 4 || argc - 3 > TEXTS_MAX)
		die("usage", "split speed|tree json|lines FILE...");
	c.lines = strcmp(argv[2], "lines") == 0;
	for (int i = 3; i < argc; i++) {
		c.texts[c.n] = read_text(argv[i]);
		c.bytes += c.texts[c.n++].len;
	}
	c.times = (LEAST + c.bytes - 1) / c.bytes;
	return strcmp(argv[1], "tree") == 0 ? tree(&c) : speed(&c);
}
