/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers that a seed repeats: splitmix64. */
#ifndef TESTS_CUT_CHANCE_H
#define TESTS_CUT_CHANCE_H

#include <stdint.h>

static inline uint64_t chance_mix(uint64_t x)
{
	x += UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

static inline uint64_t chance_next(uint64_t *state)
{
	*state += UINT64_C(0x9e3779b97f4a7c15);
	return chance_mix(*state);
}

/* From 0 on, below `below`. */
static inline uint32_t chance(uint64_t *state, uint32_t below)
{
	return (uint32_t)((chance_next(state) >> 32) * below >> 32);
}

#endif
