/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/cut/alloc.h"

#include <sqlite3.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static uint64_t count, failing;
static bool armed;
static sqlite3_mem_methods real;

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *old, size_t size);
char *__real_strdup(const char *text);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *old, size_t size);
char *__wrap_strdup(const char *text);

void alloc_fail(uint64_t n)
{
	count = 0;
	failing = n;
}

void alloc_arm(bool on)
{
	armed = on;
}

uint64_t alloc_count(void)
{
	return count;
}

static bool fails(void)
{
	return armed && ++count == failing;
}

void *__wrap_malloc(size_t size)
{
	return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *old, size_t size)
{
	return fails() ? NULL : __real_realloc(old, size);
}

char *__wrap_strdup(const char *text)
{
	return fails() ? NULL : __real_strdup(text);
}

static void *sqlite_malloc(int size)
{
	return fails() ? NULL : real.xMalloc(size);
}

static void *sqlite_realloc(void *old, int size)
{
	return fails() ? NULL : real.xRealloc(old, size);
}

void alloc_install(void)
{
	static sqlite3_mem_methods methods;

	sqlite3_config(SQLITE_CONFIG_GETMALLOC, &real);
	methods = real;
	methods.xMalloc = sqlite_malloc;
	methods.xRealloc = sqlite_realloc;
	sqlite3_config(SQLITE_CONFIG_MALLOC, &methods);
}
