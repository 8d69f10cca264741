/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "mill/mill.h"

void mill_view_free(struct mill_view *view)
{
	if (!view)
		return;
	free(view->machines);
	free(view->jobs);
	free(view);
}
