/* SPDX-License-Identifier: Apache-2.0 */
/* All kinds of collectors. */
#include <stddef.h>

#include "collectors/collector.h"
#include "collectors/rest.h"

const struct collector_ops *const collector_kinds[] = { &rest_ops, NULL };
