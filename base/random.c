/* SPDX-License-Identifier: Apache-2.0 */
#include "base/random.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

void random_fill(void *data, size_t len)
{
	unsigned char *at = data;
	while (len > 0) {
		ssize_t n = getrandom(at, len, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			abort(); /* no kernel that we run on; ids that repeat would be worse */
		at += n;
		len -= (size_t)n;
	}
}

int64_t random_below(int64_t below)
{
	assert(below > 0);
	uint64_t range = (uint64_t)below;
	uint64_t uneven = (0 - range) % range; /* 2^64 modulo range: so many low values would come once too often */
	uint64_t value;
	do
		random_fill(&value, sizeof value);
	while (value < uneven);
	return (int64_t)(value % range);
}
