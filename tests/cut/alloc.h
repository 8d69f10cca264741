/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Allocations that fail: those of the program's objects, through the linker's --wrap, and SQLite's, through
 * SQLITE_CONFIG_MALLOC. zlib's and mbedTLS's own are not among them. One thread.
 */
#ifndef TESTS_CUT_ALLOC_H
#define TESTS_CUT_ALLOC_H

#include <stdbool.h>
#include <stdint.h>

/* Before SQLite is used. */
void alloc_install(void);

/* The n-th allocation from now on fails, of those made while armed; 0: none does. */
void alloc_fail(uint64_t n);
void alloc_arm(bool on);

/* How many were made since then, armed. */
uint64_t alloc_count(void);

#endif
