/* SPDX-License-Identifier: Apache-2.0 */
#include "buffer/store.h"

#include <stddef.h>

const struct store_kind *const store_kinds[] = { &store_kind_file, &store_kind_s3, NULL };
