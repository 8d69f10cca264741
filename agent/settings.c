/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/settings.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/config_text.h"
#include "base/bytes.h"
#include "base/secret.h"
#include "base/units.h"

#define LINE_MAX_BYTES 1024
#define NAME           "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_*"
#define NUMBER_MAX     32
#define NAMES_MAX      65536 /* bytes of a list of names */

/* Two arguments for "%s%s": ` in source "parking"`, or nothing for the file itself. */
#define IN(where) (where) ? " in " : "", (where) ? (where) : ""

/* The path of an included file, which the caller frees; file: NULL for the configuration itself. NULL: no memory. */
static char *path_of(const struct settings *s, const char *file)
{
	if (!file)
		return strdup(s->path);
	char *folder = config_text_folder(s->path);
	char *path = folder ? config_text_join(folder, file) : NULL;
	free(folder);
	return path;
}

static void tell_place(struct settings *s, const char *file, unsigned line)
{
	char *path = path_of(s, file);
	fputs(path ? path : s->path, s->errors);
	if (line > 0)
		fprintf(s->errors, ":%u", line);
	fputs(": ", s->errors);
	free(path);
}

/* One line, whatever the file's words hold. */
static void tell(struct settings *s, const config_setting_t *at, const char *rank, const char *format, va_list args)
{
	char text[LINE_MAX_BYTES];
	if (!s->errors)
		return;
	vsnprintf(text, sizeof text, format, args);
	for (char *p = text; *p; p++)
		if (iscntrl((unsigned char)*p))
			*p = ' ';
	tell_place(s, at ? config_setting_source_file(at) : NULL, at ? config_setting_source_line(at) : 0);
	fprintf(s->errors, "%s%s\n", rank, text);
}

void settings_mistake(struct settings *s, const config_setting_t *at, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	tell(s, at, "", format, args);
	va_end(args);
	s->mistakes++;
}

void settings_warn(struct settings *s, const config_setting_t *at, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	tell(s, at, "warning: ", format, args);
	va_end(args);
}

bool settings_others_read(const struct settings *s, const config_setting_t *at, char **ret_path)
{
	struct stat st;
	char *path = path_of(s, config_setting_source_file(at));
	if (path && stat(path, &st) == 0 && st.st_mode & (S_IRGRP | S_IROTH)) {
		*ret_path = path;
		return true;
	}
	free(path);
	return false;
}

char *settings_place(const struct settings *s, const config_setting_t *at)
{
	char *path = path_of(s, at ? config_setting_source_file(at) : NULL), *place = NULL;
	if (!path || !at)
		return path;
	if (asprintf(&place, "%s:%u", path, config_setting_source_line(at)) < 0)
		place = NULL;
	free(path);
	return place;
}

/* Adds to a text that ends in a NUL; what does not fit is left out. */
static void append(char *text, size_t size, const char *first, const char *second, const char *third)
{
	size_t len = strlen(text);
	snprintf(text + len, size - len, "%s%s%s", first, second, third);
}

void settings_unknown(struct settings *s, const config_setting_t *at, const char *what, const char *word,
                      const char *where, const char *const *known, size_t n)
{
	const char *nearest = units_nearest(word, known, n);
	char list[LINE_MAX_BYTES / 2] = "";
	if (nearest) {
		settings_mistake(s, at, "unknown %s \"%.80s\"%s%s; did you mean \"%s\"?", what, word, IN(where),
		                 nearest);
		return;
	}
	for (size_t i = 0; i < n; i++)
		append(list, sizeof list, i > 0 ? ", " : "", known[i], "");
	settings_mistake(s, at, "unknown %s \"%.80s\"%s%s; known: %s", what, word, IN(where), list);
}

bool settings_is_known(struct settings *s, const config_setting_t *at, const char *what, const char *word,
                       const char *where, const char *const *known, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(known[i], word) == 0)
			return true;
	settings_unknown(s, at, what, word, where, known, n);
	return false;
}

const char **settings_names(const struct settings *s, const char *group, size_t *ret_n)
{
	const config_setting_t *setting = config_lookup(&s->tree, group);
	size_t n = setting && config_setting_is_group(setting) ? (size_t)config_setting_length(setting) : 0;
	const char **names = calloc(n + 1, sizeof *names);
	for (size_t i = 0; names && i < n; i++)
		names[i] = config_setting_name(config_setting_get_elem(setting, (unsigned)i));
	*ret_n = n;
	return names;
}

bool settings_is_name(struct settings *s, const config_setting_t *setting, const char *what)
{
	const char *name = config_setting_name(setting);
	if (units_is_name(name))
		return true;
	settings_mistake(
	        s, setting,
	        "\"%.80s\" is no name for a %s; it has small letters, digits, _ and -, a letter first, up to %d", name,
	        what, UNITS_NAME_MAX - 1);
	return false;
}

static const char *shape(const config_setting_t *setting)
{
	switch (config_setting_type(setting)) {
	case CONFIG_TYPE_GROUP:
		return "a group { ... }";
	case CONFIG_TYPE_LIST:
		return "a list ( ... )";
	case CONFIG_TYPE_ARRAY:
		return "an array [ ... ]";
	case CONFIG_TYPE_FLOAT:
		return "a number with a point";
	case CONFIG_TYPE_STRING:
		return "text";
	case CONFIG_TYPE_BOOL:
		return "true or false";
	default:
		return "a number";
	}
}

bool settings_is_group(struct settings *s, const config_setting_t *setting, const char *where)
{
	const char *name = config_setting_name(setting);
	if (config_setting_is_group(setting))
		return true;
	settings_mistake(s, setting, "\"%.80s\"%s%s wants a group, %.80s = { ... }, not %s", name, IN(where), name,
	                 shape(setting));
	return false;
}

static void tell_wrong_type(struct settings *s, const config_setting_t *setting, const char *where,
                            const struct option *option)
{
	static const char *const wanted[] = {
		[OPTION_TEXT] = "text in quotes",
		[OPTION_DURATION] = "a duration such as \"90s\", \"2m\" or \"6h\"",
		[OPTION_SIZE] = "a size such as \"64K\", \"8M\" or \"2G\"",
		[OPTION_NUMBER] = "a whole number",
		[OPTION_BOOL] = "true or false",
		[OPTION_NAMES] = "an array of names such as [ \"one\", \"two\" ]",
		[OPTION_PAIRS] = "a group of texts such as { Name = \"file:PATH\" }",
	};
	char choices[LINE_MAX_BYTES / 2] = "";
	if (option->type == OPTION_CHOICE)
		for (size_t i = 0; option->choices[i]; i++)
			append(choices, sizeof choices, i > 0 ? " or \"" : "\"", option->choices[i], "\"");
	settings_mistake(s, setting, "\"%s\"%s%s wants %s, not %s", option->name, IN(where),
	                 option->type == OPTION_CHOICE ? choices : wanted[option->type], shape(setting));
}

/* The value as text, as option_set takes it; NULL: not of the type. */
static const char *value_text(const config_setting_t *setting, enum option_type type, char number[NUMBER_MAX])
{
	switch (config_setting_type(setting)) {
	case CONFIG_TYPE_STRING:
		return type != OPTION_NUMBER && type != OPTION_BOOL ? config_setting_get_string(setting) : NULL;
	case CONFIG_TYPE_INT:
	case CONFIG_TYPE_INT64:
		snprintf(number, NUMBER_MAX, "%lld", config_setting_get_int64(setting));
		return type == OPTION_NUMBER || type == OPTION_SIZE ? number : NULL;
	case CONFIG_TYPE_BOOL:
		return type != OPTION_BOOL ? NULL : config_setting_get_bool(setting) ? "true" : "false";
	default:
		return NULL;
	}
}

/* option_set takes names as one text with commas between them. */
static int join_names(const config_setting_t *setting, struct bytes *joined)
{
	int r = bytes_add_text(joined, "");
	for (int i = 0; r == 0 && i < config_setting_length(setting); i++) {
		const char *name = config_setting_get_string_elem(setting, i);
		r = bytes_printf(joined, "%s%s", i > 0 ? "," : "", name && *name ? name : "-");
	}
	return r < 0 ? r : bytes_add(joined, "", 1);
}

static bool is_names(const config_setting_t *setting)
{
	if (!config_setting_is_array(setting))
		return false;
	const config_setting_t *first = config_setting_get_elem(setting, 0); /* the others are of its type */
	return !first || config_setting_type(first) == CONFIG_TYPE_STRING;
}

/* Makes a path absolute that was given relative to the configuration's folder; path is freed and replaced. */
static int resolve_path(struct settings *s, const config_setting_t *at, char **path)
{
	const char *name = *path;
	while (strncmp(name, "./", 2) == 0)
		name += 2 + strspn(name + 2, "/");
	char *joined = config_text_join(s->folder, strcmp(name, ".") == 0 ? "" : name);
	if (!joined)
		return -ENOMEM;
	size_t len = strlen(joined);
	while (len > 1 && joined[len - 1] == '/')
		joined[--len] = '\0';
	if (len > SETTINGS_PLACE_MAX)
		settings_mistake(s, at, "the path has %zu bytes; up to %d are taken", len, SETTINGS_PLACE_MAX);
	free(*path);
	*path = joined;
	return 0;
}

/* The same for a reference to a secret, where it names a file. */
static int resolve_secret(struct settings *s, const config_setting_t *at, char **reference)
{
	static const char prefix[] = "file:";
	const size_t len = sizeof prefix - 1;
	if (strncmp(*reference, prefix, len) != 0 || !(*reference)[len])
		return 0;
	char *path = strdup(*reference + len), *resolved = NULL;
	int r = path ? resolve_path(s, at, &path) : -ENOMEM;
	if (r == 0 && asprintf(&resolved, "%s%s", prefix, path) < 0)
		r = -ENOMEM;
	free(path);
	if (r == 0) {
		free(*reference);
		*reference = resolved;
	}
	return r;
}

static int resolve(struct settings *s, const config_setting_t *at, const struct option *option, void *target)
{
	char **text = (char **)(void *)((char *)target + option->offset);
	if (option->path && **text) /* "" is refused or means none, by the option's own check */
		return resolve_path(s, at, text);
	return option->secret ? resolve_secret(s, at, text) : 0;
}

static int read_pair(struct settings *s, const config_setting_t *setting, const char *where,
                     const struct option *option, void *target)
{
	const struct option_pairs *list = (const void *)((const char *)target + option->offset);
	const char *name = config_setting_name(setting), *reference = config_setting_get_string(setting);
	struct err err;
	char *text = NULL;
	if (!reference) {
		settings_mistake(s, setting, "\"%.80s\" in \"%s\"%s%s wants text in quotes, not %s", name, option->name,
		                 IN(where), shape(setting));
		return 0;
	}
	if (asprintf(&text, "%s: %s", name, reference) < 0)
		return -ENOMEM;
	int r = option_set(option, target, text, &err);
	secret_free(text);
	if (r == 0)
		return resolve_secret(s, setting, &list->pairs[list->n - 1].reference);
	if (r != -EINVAL)
		return r;
	settings_mistake(s, setting, "\"%.80s\" in \"%s\"%s%s: %s", name, option->name, IN(where), err.text);
	return 0;
}

static int read_pairs(struct settings *s, const config_setting_t *setting, const char *where,
                      const struct option *option, void *target)
{
	int n = config_setting_length(setting), r = 0;
	if (!config_setting_is_group(setting)) {
		tell_wrong_type(s, setting, where, option);
		return 0;
	}
	for (int i = 0; i < n && i <= OPTION_PAIRS_MAX && r == 0; i++) /* of what is too many the first is told */
		r = read_pair(s, config_setting_get_elem(setting, (unsigned)i), where, option, target);
	return r;
}

static int read_option(struct settings *s, const config_setting_t *setting, const char *where,
                       const struct option *option, void *target)
{
	if (option->type == OPTION_PAIRS)
		return read_pairs(s, setting, where, option, target);
	struct err err;
	char number[NUMBER_MAX];
	struct bytes joined;
	bytes_init(&joined, NAMES_MAX);
	const char *value = NULL;
	int r = 0;
	if (option->type != OPTION_NAMES)
		value = value_text(setting, option->type, number);
	else if (is_names(setting) && (r = join_names(setting, &joined)) == 0)
		value = (const char *)joined.data;
	if (value)
		r = option_set(option, target, value, &err);
	else if (r == 0)
		tell_wrong_type(s, setting, where, option);
	else if (r == -ENOBUFS)
		r = err_fail(&err, -EINVAL, "more names than are taken");
	bytes_done(&joined);
	if (r == 0 && value)
		return resolve(s, setting, option, target);
	if (r != -EINVAL)
		return r;
	settings_mistake(s, setting, "\"%s\"%s%s: %s", option->name, IN(where), err.text);
	return 0;
}

static void tell_missing(struct settings *s, const config_setting_t *setting, const struct settings_group *group)
{
	static const char *const example[] = {
		[OPTION_TEXT] = "\"...\"",      [OPTION_DURATION] = "\"2m\"",
		[OPTION_SIZE] = "\"8M\"",       [OPTION_NUMBER] = "1",
		[OPTION_BOOL] = "true",         [OPTION_CHOICE] = "\"...\"",
		[OPTION_NAMES] = "[ \"...\" ]", [OPTION_PAIRS] = "{ Name = \"file:PATH\" }",
	};
	for (int t = 0; t < 2; t++)
		for (const struct option *o = group->options[t]; o && o->name; o++)
			if (o->required && !config_setting_get_member(setting, o->name))
				settings_mistake(s, setting, "%s has no %s; add %s = %s", group->where, o->name,
				                 o->name, o->secret ? "\"file:PATH\"" : example[o->type]);
}

static void tell_unknown(struct settings *s, const config_setting_t *setting, const struct settings_group *group)
{
	const char *known[SETTINGS_GROUP_MAX];
	size_t n = 0;
	for (const struct settings_section *section = group->sections; section && section->name; section++) {
		assert(n < SETTINGS_GROUP_MAX);
		known[n++] = section->name;
	}
	for (int t = 0; t < 2; t++)
		for (const struct option *o = group->options[t]; o && o->name; o++) {
			assert(n < SETTINGS_GROUP_MAX);
			known[n++] = o->name;
		}
	settings_unknown(s, setting, "setting", config_setting_name(setting), group->where, known, n);
}

static int read_member(struct settings *s, const config_setting_t *setting, const struct settings_group *group)
{
	const char *name = config_setting_name(setting);
	for (int t = 0; t < 2; t++) {
		const struct option *option = group->options[t] ? option_find(group->options[t], name) : NULL;
		if (option)
			return read_option(s, setting, group->where, option, group->targets[t]);
	}
	for (const struct settings_section *section = group->sections; section && section->name; section++)
		if (strcmp(section->name, name) == 0)
			return section->read ? section->read(s, setting, group->arg) : 0;
	if (!group->any)
		tell_unknown(s, setting, group);
	return 0;
}

int settings_read(struct settings *s, const config_setting_t *setting, const struct settings_group *group)
{
	tell_missing(s, setting, group);
	for (int i = 0; i < config_setting_length(setting); i++) {
		int r = read_member(s, config_setting_get_elem(setting, (unsigned)i), group);
		if (r < 0)
			return r;
	}
	return 0;
}

static unsigned count_lines(const char *text)
{
	unsigned lines = 0;
	for (; *text; text += strcspn(text, "\n"), text += *text == '\n')
		lines++;
	return lines;
}

/* The bytes of a name that begins a setting here, or 0. */
static size_t setting_length(const char *text)
{
	size_t len = strspn(text, NAME), blanks = strspn(text + len, " \t\r");
	return len > 0 && strchr("=:", text[len + blanks]) && text[len + blanks] ? len : 0;
}

static bool is_line_end(const char *text)
{
	return *text == '\0' || *text == '\n';
}

/* Whether the setting that begins here stands once more in its group, in this line. */
static bool is_double(const char *setting, size_t len)
{
	int depth = 0;
	for (const char *at = setting + len; !is_line_end(at) && depth >= 0; at += config_text_token(at)) {
		depth += (*at == '{') - (*at == '}');
		if (depth == 0 && setting_length(at) == len && strncmp(at, setting, len) == 0)
			return true;
	}
	return false;
}

/*
 * The setting that stands twice: one that is twice in the line, else the line's only one; 0: of several none can be
 * told from the line alone.
 */
static size_t find_double(const char *line, const char **ret_name)
{
	size_t only = 0, len;
	unsigned n = 0;
	for (; !is_line_end(line); line += config_text_token(line)) {
		len = setting_length(line);
		if (len == 0)
			continue;
		*ret_name = line;
		if (is_double(line, len))
			return len;
		only = len;
		n++;
	}
	return n == 1 ? only : 0;
}

static void tell_double(struct settings *s, const char *line)
{
	const char *name = "";
	size_t len = line ? find_double(line, &name) : 0;
	fprintf(s->errors, "the setting %s%.*s%sstands there twice; what is behind it was not checked\n",
	        len > 0 ? "\"" : "", (int)len, name, len > 0 ? "\" " : "of this line ");
}

/* The text's line of that number, from 1 on; NULL: there is none. */
static const char *find_line(const char *text, unsigned line)
{
	for (; text && line > 1; line--) {
		text = strchr(text, '\n');
		text = text ? text + 1 : NULL;
	}
	return text;
}

/* libconfig's words tell the place and little more; what is missing at the end it finds in a line behind the last. */
static void tell_syntax(struct settings *s, const char *text)
{
	const char *file = config_error_file(&s->tree), *what = config_error_text(&s->tree);
	unsigned line = (unsigned)config_error_line(&s->tree), last = count_lines(text);
	s->mistakes++;
	tell_place(s, file, !file && line > last ? last : line);
	if (strcmp(what, "syntax error") == 0)
		what = "syntax error here or just before: a word without quotes, or a bracket or brace missing or too "
		       "many; names are bare words like stavanger-parking, text stands in \"double quotes\"";
	if (strcmp(what, "duplicate setting name") == 0)
		tell_double(s, file ? NULL : find_line(text, line));
	else
		fprintf(s->errors, "%s\n", what);
}

static int parse(struct settings *s, const char *text)
{
	char *folder = config_text_folder(s->path);
	if (!folder)
		return -ENOMEM;
	config_set_include_dir(&s->tree, folder);
	s->folder = realpath(folder, NULL);
	int r = s->folder ? 0 : -errno;
	free(folder);
	if (r == 0 && !config_read_string(&s->tree, text)) {
		tell_syntax(s, text);
		r = -EINVAL;
	} else if (r < 0) {
		settings_mistake(s, NULL, "its folder cannot be found: %s", strerror(-r));
	}
	return r;
}

int settings_open(struct settings *s, const char *path, FILE *errors)
{
	struct err err;
	char *text;
	*s = (struct settings){ .path = path, .errors = errors };
	int r = config_text_read(path, &text, &err);
	if (r < 0) {
		fprintf(errors, "%s\n", err.text);
		return r;
	}
	config_init(&s->tree);
	r = parse(s, text);
	free(text);
	if (r < 0)
		settings_close(s);
	return r;
}

void settings_close(struct settings *s)
{
	config_destroy(&s->tree);
	free(s->folder);
	s->folder = NULL;
}
