/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the configuration share: a folder for the run, files in it, and what config_load says of them. */
#ifndef TESTS_UNIT_CONFIG_BOX_H
#define TESTS_UNIT_CONFIG_BOX_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/config.h"

static char folder[200]; /* a new one for the run, without symbolic links */

static inline const char *in_folder(const char *name)
{
	static char path[300];
	snprintf(path, sizeof path, "%s/%s", folder, name);
	return path;
}

static inline void write_bytes(const char *name, const void *data, size_t len)
{
	FILE *f = fopen(in_folder(name), "w");
	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
}

static inline void write_file(const char *name, const char *text)
{
	write_bytes(name, text, strlen(text));
}

/* Replaces the folder by DIR and the file by FILE, wherever they stand; the result is freed by the caller. */
static inline char *neutral(char *text)
{
	static const char file[] = "/x.conf";
	char *out = calloc(1, 4 * strlen(text) + 1), *to = out;
	assert_non_null(out);
	for (const char *p = text; *p;) {
		size_t n = strncmp(p, folder, strlen(folder)) == 0 ? strlen(folder) : 0;
		bool whole = n > 0 && strncmp(p + n, file, strlen(file)) == 0;
		if (n == 0) {
			*to++ = *p++;
			continue;
		}
		to = stpcpy(to, whole ? "FILE" : "DIR");
		p += whole ? n + strlen(file) : n;
	}
	free(text);
	return out;
}

/* What config_load says; the result is freed by the caller. */
static inline char *told_for(enum config_use use, const char *path, int expected, struct config **ret_config)
{
	char *text = NULL;
	size_t len = 0;
	struct config *config = NULL;
	FILE *errors = open_memstream(&text, &len);
	assert_non_null(errors);
	int r = config_load(path, use, errors, &config);
	fclose(errors);
	if (r != expected)
		print_error("%s", text);
	assert_int_equal(r, expected);
	assert_true((r == 0) == (config != NULL));
	if (ret_config)
		*ret_config = config;
	else
		config_free(config);
	return neutral(text);
}

static inline char *told(const char *path, int expected, struct config **ret_config)
{
	return told_for(CONFIG_ASK, path, expected, ret_config);
}

static inline struct config *load(const char *text)
{
	struct config *config;
	write_file("x.conf", text);
	char *lines = told(in_folder("x.conf"), 0, &config);
	assert_string_equal(lines, "");
	free(lines);
	return config;
}

static inline void assert_told(const char *text, const char *expected)
{
	write_file("x.conf", text);
	char *lines = told(in_folder("x.conf"), -EINVAL, NULL);
	assert_string_equal(lines, expected);
	free(lines);
}

static inline struct config *load_for_run(const char *text)
{
	struct config *config;
	write_file("x.conf", text);
	char *lines = told_for(CONFIG_RUN, in_folder("x.conf"), 0, &config);
	assert_string_equal(lines, "");
	free(lines);
	return config;
}

static inline void assert_changes(const char *before_text, const char *now_text, const char *expected)
{
	char text[CONFIG_CHANGES_MAX];
	struct config *before = load(before_text), *now = load(now_text);
	config_changes(now, before, text);
	assert_string_equal(text, expected);
	config_free(before);
	config_free(now);
}

static inline char *printed(struct config *config)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);
	assert_non_null(out);
	config_print(config, out);
	fclose(out);
	config_free(config);
	return neutral(text);
}

static inline void write_keys(const char *access)
{
	(void)mkdir(in_folder("keys"), 0700);
	write_file("keys/access", access);
}

static inline int make_folder(void **state)
{
	(void)state;
	const char *tmp = getenv("TMPDIR");
	char name[150];
	snprintf(name, sizeof name, "%s/millrace-config-XXXXXX", tmp ? tmp : "/tmp");
	char *real = mkdtemp(name) ? realpath(name, NULL) : NULL;
	if (!real)
		return -1;
	snprintf(folder, sizeof folder, "%s", real);
	free(real);
	return 0;
}

static inline int remove_folder(void **state)
{
	(void)state;
	static const char *const names[] = { "x.conf", "inc.conf", "sub", "keys/access", "keys/mill", "keys" };
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		(void)remove(in_folder(names[i]));
	return rmdir(folder);
}

#endif
