/* SPDX-License-Identifier: Apache-2.0 */
#include "base/sink.h"

const char *const sink_outcome_names[] = {
	[SINK_COMMITTED] = "committed",
	[SINK_UNCHANGED] = "unchanged",
	[SINK_REFUSED] = "refused",
	[SINK_FAILED] = "failed",
};

void sink_begin(struct sink *sink)
{
	sink->status = 0;
	sink->bytes = 0;
	sink->ops->begin(sink);
}

int sink_record(struct sink *sink, const void *data, size_t len)
{
	return sink->ops->record(sink, data, len);
}

void sink_publish(struct sink *sink, int64_t wall_ms, int64_t mono_ms)
{
	sink->ops->publish(sink, wall_ms, mono_ms);
}

void sink_unchanged(struct sink *sink)
{
	sink->ops->unchanged(sink);
}

void sink_drop(struct sink *sink, enum sink_outcome outcome, const char *cause, const char *text,
               const struct sink_excerpt *excerpt)
{
	sink->ops->drop(sink, outcome, cause, text, excerpt);
}
