/* SPDX-License-Identifier: Apache-2.0 */
/* Random numbers from the kernel (getrandom(2)): ids and jitter. Any thread. */
#ifndef BASE_RANDOM_H
#define BASE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

void random_fill(void *data, size_t len);

/* Evenly in [0, below); below > 0. */
int64_t random_below(int64_t below);

#endif
