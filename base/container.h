/* SPDX-License-Identifier: Apache-2.0 */
/* From a member back to the struct that embeds it: how callbacks find themselves. */
#ifndef BASE_CONTAINER_H
#define BASE_CONTAINER_H

#include <stddef.h>

#define container_of(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))

#endif
