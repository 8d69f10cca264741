/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The collector for REST sources: polls a URL, validates and splits the answer as it arrives, and publishes it whole
 * unless it is equal to the one before (design.md "Collecting (rest)"). One transfer at a time; a fetch that is
 * published and not yet settled holds the next poll back.
 */
#ifndef COLLECTORS_REST_H
#define COLLECTORS_REST_H

#include "collectors/collector.h"

enum rest_format { REST_JSON, REST_NDJSON };
enum rest_dedupe { REST_DEDUPE_BODY, REST_DEDUPE_NONE };

struct rest_settings {
	char *url;
	struct option_pairs headers; /* of the request, behind our own */
	char *proxy;                 /* NULL or "": none */
	int64_t every_ms;
	int format;    /* enum rest_format */
	char *records; /* a splitter's path, NULL: the whole body; with json alone */
	int dedupe;    /* enum rest_dedupe */
	int64_t timeout_ms;
	int64_t connect_timeout_ms;
	int64_t max_body;   /* bytes */
	int64_t max_record; /* bytes */
	int64_t backoff_max_ms;
};

extern const struct collector_ops rest_ops;

#endif
