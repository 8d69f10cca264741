/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The peer of the way from socket to durable: a bare SQLite program of the daemon's durability (WAL, synchronous=FULL,
 * EXCLUSIVE). It GETs a body over and over on one connection, cuts it at its line breaks without looking at it, and
 * commits it once a fetch: as a row per record, or deflated into one row.
 *
 *     sqlite DATABASE PORT PATH FETCHES rows|chunk
 *
 * Answers in JSON: seconds and records.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

#define HEAD_MAX 4096
#define LEVEL    1 /* as the daemon's chunks */

static sqlite3 *db;
static sqlite3_stmt *insert;

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "%s%s%s\n", what, db ? ": " : "", db ? sqlite3_errmsg(db) : "");
	exit(1);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void execute(const char *sql)
{
	if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
		die(sql);
}

static void open_database(const char *path)
{
	if (sqlite3_open(path, &db) != SQLITE_OK)
		die(path);
	execute("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
	        "CREATE TABLE record (seq INTEGER PRIMARY KEY, fetch INTEGER NOT NULL, data BLOB NOT NULL);");
	if (sqlite3_prepare_v2(db, "INSERT INTO record (fetch, data) VALUES (?, ?)", -1, &insert, NULL) != SQLITE_OK)
		die("prepare");
}

static void add(int fetch, const void *data, size_t len)
{
	sqlite3_bind_int(insert, 1, fetch);
	sqlite3_bind_blob64(insert, 2, data, len, SQLITE_STATIC);
	if (sqlite3_step(insert) != SQLITE_DONE)
		die("insert");
	sqlite3_reset(insert);
}

static int connect_to(int port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
		die("connect");
	return fd;
}

static size_t receive(int fd, char *to, size_t size)
{
	ssize_t n = recv(fd, to, size, 0);

	if (n <= 0)
		die("the feed is gone");
	return (size_t)n;
}

/* The body of one GET, grown into *body. */
static size_t get(int fd, const char *path, char **body)
{
	char head[HEAD_MAX + 1];
	size_t have = 0, len, early;
	char *end, *length;
	int n = snprintf(head, sizeof head, "GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n", path);

	if (send(fd, head, (size_t)n, 0) != n)
		die("send");
	do {
		have += receive(fd, head + have, HEAD_MAX - have);
		head[have] = '\0';
	} while (!(end = strstr(head, "\r\n\r\n")) && have < HEAD_MAX);
	length = strstr(head, "Content-Length: ");
	if (!end || !length)
		die("no head of an answer");
	len = strtoul(length + strlen("Content-Length: "), NULL, 10);
	*body = realloc(*body, len);
	if (!*body)
		die("no memory");
	early = have - (size_t)(end + 4 - head);
	memcpy(*body, end + 4, early);
	while (early < len)
		early += receive(fd, *body + early, len - early);
	return len;
}

/* What stands alone on a line and is no bracket of the array around it. Adds it where rows are wanted. */
static long cut(int fetch, const char *body, size_t len, int rows)
{
	long records = 0;

	for (const char *at = body, *end = body + len; at < end;) {
		const char *next = memchr(at, '\n', (size_t)(end - at));
		size_t n = (size_t)((next ? next : end) - at);
		size_t bare = n > 1 && at[n - 1] == ',' ? n - 1 : n;

		if (bare > 1) {
			if (rows)
				add(fetch, at, bare);
			records++;
		}
		at += n + 1;
	}
	return records;
}

static void add_deflated(int fetch, const char *body, size_t len)
{
	uLongf size = compressBound(len);
	unsigned char *deflated = malloc(size);

	if (!deflated || compress2(deflated, &size, (const unsigned char *)body, len, LEVEL) != Z_OK)
		die("deflate");
	add(fetch, deflated, size);
	free(deflated);
}

int main(int argc, char **argv)
{
	char *body = NULL;
	long records = 0;
	int fd, fetches, rows;
	double begun;

	if (argc != 6)
		die("usage: sqlite DATABASE PORT PATH FETCHES rows|chunk");
	fd = connect_to(atoi(argv[2]));
	fetches = atoi(argv[4]);
	rows = strcmp(argv[5], "rows") == 0;
	open_database(argv[1]);
	begun = now();
	for (int i = 0; i < fetches; i++) {
		size_t len = get(fd, argv[3], &body);

		execute("BEGIN IMMEDIATE");
		records += cut(i, body, len, rows);
		if (!rows)
			add_deflated(i, body, len);
		execute("COMMIT");
	}
	printf("{\"seconds\":%.6f,\"records\":%ld}\n", now() - begun, records);
	free(body);
	close(fd);
	return 0;
}
