/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `millrace import DIR`: hands a folder of objects, as `export` writes it, to the daemon, one after the other. What the
 * daemon has taken over before is no news to it, so an import that was interrupted is just made again. What is no
 * object, or not what it was, is named and left out; the rest is taken.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/sha256.h"
#include "cli/answer.h"
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/commands.h"

#define LIST         ".millrace-export" /* written by export: a line of JSON for each object */
#define ENDING       ".ndjson.gz"
#define LINE_MAX_LEN 4096
#define LIST_MAX     (1 << 20) /* objects */
#define DEPTH        3         /* source=…/dt=…/object */
#define PATIENCE_S   15        /* for a daemon that has no room or no time */
#define REQUEST_MAX  1400
#define PIECE        ((size_t)64 * 1024)

struct import {
	const char *socket_path, *folder;
	json_t *list; /* key -> its line */
	bool json;
	int64_t taken, already, records;
	json_t *refused;
	int64_t n_refused;
	bool stopped; /* the daemon takes no more */
	int status;
	struct err *err;
};

/* Named at once, and counted. */
static void refuse(struct import *m, const char *path, const char *why)
{
	char text[2 * ERR_MAX];
	snprintf(text, sizeof text, "%.600s: %s", path, why);
	cli_complain(text);
	/* A name from a folder need not be UTF-8. */
	json_t *entry = json_pack("{s:s, s:s}", "path", path, "why", why);
	json_array_append_new(m->refused, entry ? entry : json_pack("{s:s, s:s}", "path", "?", "why", why));
	m->n_refused++;
}

static void stop(struct import *m, int status)
{
	m->stopped = true;
	m->status = status;
}

/* --- The list --- */

/* A line that is none was cut short, and says nothing. */
static void read_line(struct import *m, const char *line)
{
	json_t *entry = json_loads(line, 0, NULL);
	const char *key = json_string_value(json_object_get(entry, "key"));
	if (key && json_object_size(m->list) < LIST_MAX)
		json_object_set(m->list, key, entry);
	json_decref(entry);
}

static void read_list(struct import *m)
{
	char path[4096], line[LINE_MAX_LEN];
	if (snprintf(path, sizeof path, "%s/" LIST, m->folder) >= (int)sizeof path)
		return;
	FILE *file = fopen(path, "re");
	while (file && fgets(line, sizeof line, file))
		read_line(m, line);
	if (file)
		fclose(file);
}

/* --- An object --- */

static int hash_file(int fd, uint64_t *ret_bytes, char hex[SHA256_HEX])
{
	uint8_t sha256[SHA256_SIZE];
	char *piece = malloc(PIECE);
	struct sha256 hash;
	uint64_t bytes = 0;
	ssize_t n = -1;
	sha256_init(&hash);
	while (piece && ((n = read(fd, piece, PIECE)) > 0 || (n < 0 && errno == EINTR))) {
		sha256_add(&hash, piece, n > 0 ? (size_t)n : 0);
		bytes += n > 0 ? (uint64_t)n : 0;
	}
	free(piece);
	sha256_finish(&hash, sha256);
	sha256_hex(sha256, SHA256_HEX - 1, hex);
	*ret_bytes = bytes;
	return n < 0 || lseek(fd, 0, SEEK_SET) < 0 ? -1 : 0;
}

/* Where the list knows it, it is what the list says. It is done with there: what is left over is missing. */
static bool is_as_listed(struct import *m, const char *key, uint64_t bytes, const char *hex)
{
	const json_t *entry = json_object_get(m->list, key);
	bool same = !entry || ((uint64_t)answer_number(entry, "bytes") == bytes &&
	                       strcmp(answer_text(entry, "sha256"), hex) == 0);
	json_object_del(m->list, key);
	return same;
}

static bool is_plain(unsigned char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || strchr("-._=/", c);
}

/* The request's path: a name from a folder may hold anything. false: it is too long for any key. */
static bool write_path(const char *key, const char *hex, char path[REQUEST_MAX])
{
	int len = snprintf(path, REQUEST_MAX, "/v1/objects/");
	for (const unsigned char *c = (const unsigned char *)key; *c && len < REQUEST_MAX - 100; c++)
		len += snprintf(path + len, 4, is_plain(*c) ? "%c" : "%%%02X", *c);
	snprintf(path + len, (size_t)(REQUEST_MAX - len), "?sha256=%s", hex);
	return len < REQUEST_MAX - 100;
}

static void note_answer(struct import *m, const json_t *answer)
{
	if (!json_is_true(json_object_get(answer, "taken"))) {
		m->already++;
		return;
	}
	m->taken++;
	m->records += answer_number(answer, "records");
}

/* No room, another import, too many calls: it may pass. */
static bool may_pass(long status)
{
	return status == 409 || status == 503 || status == 507;
}

static void send_object(struct import *m, const char *key, int fd, uint64_t bytes, const char *hex)
{
	char path[REQUEST_MAX];
	json_t *answer = NULL;
	long status = 0;
	int rc = CLI_OK;
	if (!write_path(key, hex, path)) {
		refuse(m, key, "its name is none of an object of Millrace");
		return;
	}
	for (int tries = 0; tries < PATIENCE_S; tries++) {
		rc = client_put(m->socket_path, path, fd, bytes, &status, &answer, m->err);
		if (!may_pass(status))
			break;
		sleep(1);
		lseek(fd, 0, SEEK_SET);
	}
	if (rc == CLI_OK)
		note_answer(m, answer);
	else if (rc == CLI_DATA || (status >= 400 && !may_pass(status) && status < 500))
		refuse(m, key, m->err->text);
	else
		stop(m, CLI_UNAVAILABLE);
	if (!m->stopped)
		m->err->text[0] = '\0';
	json_decref(answer);
}

static void take_object(struct import *m, int folder, const char *name, const char *key)
{
	char hex[SHA256_HEX];
	uint64_t bytes = 0;
	struct stat st;
	int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		refuse(m, key, errno == ELOOP ? "it is a link" : strerror(errno));
	else if (!S_ISREG(st.st_mode))
		refuse(m, key, "it is no file");
	else if (hash_file(fd, &bytes, hex) < 0)
		refuse(m, key, strerror(errno));
	else if (!is_as_listed(m, key, bytes, hex))
		refuse(m, key, "it was changed since it was exported: " LIST " tells other bytes of it");
	else
		send_object(m, key, fd, bytes, hex);
	if (fd >= 0)
		close(fd);
}

/* --- The folder --- */

static bool ends_in(const char *name, const char *ending)
{
	size_t len = strlen(name), n = strlen(ending);
	return len > n && strcmp(name + len - n, ending) == 0;
}

/* What a disk or a desktop leaves about, an export that was interrupted, and a store's runs. */
static bool is_litter(const char *name)
{
	return name[0] == '.' || ends_in(name, ".tmp") || strcmp(name, "_runs") == 0 ||
	       strcmp(name, "lost+found") == 0 || strcmp(name, "System Volume Information") == 0 ||
	       strcmp(name, "$RECYCLE.BIN") == 0;
}

static int keep_entry(const struct dirent *entry)
{
	return !is_litter(entry->d_name);
}

static void walk(struct import *m, int folder, const char *path, int depth);

static void look_at(struct import *m, int folder, const char *name, const char *path, int depth)
{
	static const char *const prefixes[] = { "source=", "dt=" };
	struct stat st;
	if (fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		refuse(m, path, strerror(errno));
	} else if (depth == DEPTH && ends_in(name, ENDING)) {
		take_object(m, folder, name, path);
	} else if (depth < DEPTH && S_ISDIR(st.st_mode) &&
	           strncmp(name, prefixes[depth - 1], strlen(prefixes[depth - 1])) == 0) {
		int below = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (below < 0)
			refuse(m, path, strerror(errno));
		else
			walk(m, below, path, depth + 1);
	} else {
		refuse(m, path, "it is no object of Millrace");
	}
}

/* Its entries in the order of their names, numbers by their value: the oldest first. Closes the folder. */
static void walk(struct import *m, int folder, const char *path, int depth)
{
	struct dirent **entries = NULL;
	char below[4096];
	int n = scandirat(folder, ".", &entries, keep_entry, versionsort);
	if (n < 0)
		refuse(m, *path ? path : m->folder, strerror(errno));
	for (int i = 0; i < n; i++) {
		const char *name = entries[i]->d_name;
		if (!m->stopped &&
		    snprintf(below, sizeof below, "%s%s%s", path, *path ? "/" : "", name) < (int)sizeof below)
			look_at(m, folder, name, below, depth);
		free(entries[i]);
	}
	free(entries);
	close(folder);
}

static int keep_source(const struct dirent *entry)
{
	return strncmp(entry->d_name, "source=", strlen("source=")) == 0;
}

/* One above or below the right one has neither list nor sources; to name all that is in it would say nothing. */
static bool holds_objects(const struct import *m, int folder)
{
	struct dirent **entries = NULL;
	int n = scandirat(folder, ".", &entries, keep_source, NULL);
	for (int i = 0; i < n; i++)
		free(entries[i]);
	free(entries);
	return n != 0 || json_object_size(m->list) > 0;
}

/* What the list has and the folder has not. */
static void tell_missing(struct import *m)
{
	const char *key;
	json_t *entry;
	void *next;
	if (m->stopped)
		return;
	json_object_foreach_safe(m->list, next, key, entry)
	{
		refuse(m, key, "it was exported, by " LIST ", and is not in the folder any more");
	}
}

/* --- The end --- */

void import_print(const json_t *report, const struct page *page)
{
	char objects[UNITS_TEXT_MAX], records[UNITS_TEXT_MAX];
	int64_t already = answer_number(report, "already");
	size_t refused = json_array_size(json_object_get(report, "refused"));
	fprintf(page->out, "took over %s (%s)", answer_plural(answer_number(report, "taken"), "object", "s", objects),
	        answer_plural(answer_number(report, "records"), "record", "s", records));
	if (already)
		fprintf(page->out, "; already here: %" PRId64, already);
	if (refused)
		fprintf(page->out, "; refused: %zu", refused);
	fputc('\n', page->out);
}

/* With nothing to tell err alone speaks. */
static void report(struct import *m)
{
	bool any = m->taken + m->already + m->n_refused > 0;
	json_t *json = json_pack("{s:I, s:I, s:I, s:O}", "taken", (json_int_t)m->taken, "records",
	                         (json_int_t)m->records, "already", (json_int_t)m->already, "refused", m->refused);
	struct page page = page_stdout();
	if (json && m->json)
		fputs(json_dumpf(json, stdout, JSON_COMPACT) == 0 ? "\n" : "", stdout);
	else if (json && any)
		import_print(json, &page);
	json_decref(json);
}

int command_import(const char *socket_path, const struct command_arguments *arguments, struct err *err)
{
	struct import m = { .socket_path = socket_path,
		            .folder = arguments->word,
		            .list = json_object(),
		            .refused = json_array(),
		            .json = arguments->json,
		            .status = CLI_OK,
		            .err = err };
	int folder = open(m.folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (folder < 0) {
		m.status = err_fail(err, CLI_DATA, "%s: %s", m.folder, strerror(errno));
	} else {
		read_list(&m);
		if (holds_objects(&m, folder)) {
			walk(&m, folder, "", 1);
			tell_missing(&m);
		} else {
			close(folder);
		}
		report(&m);
	}
	if (m.status == CLI_OK && m.n_refused > 0)
		m.status = CLI_DATA;
	if (m.status == CLI_OK && m.taken + m.already == 0)
		m.status = err_fail(err, CLI_DATA,
		                    "%s: there are no objects of Millrace in it; name the folder that has source=… in "
		                    "it",
		                    m.folder);
	json_decref(m.list);
	json_decref(m.refused);
	return m.status;
}
