/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A collector fetches from one kind of source and pushes what comes into a sink; it knows nothing of what happens
 * there. Each kind is one const ops table and one settings table, listed in collectors/kinds.c; agent/ makes one
 * collector per source. Loop thread only.
 */
#ifndef COLLECTORS_COLLECTOR_H
#define COLLECTORS_COLLECTOR_H

#include "base/alarm.h"
#include "base/http.h"
#include "base/option.h"
#include "base/sink.h"

struct collector; /* begins the struct of each kind */

/* What every collector may use; borrowed from agent/ for the collector's whole life. */
struct collector_env {
	struct http *http;
	struct alarms *alarms;
};

struct collector_ops {
	const char *kind; /* the word in the configuration: "rest" */

	const struct option *options; /* settings of this kind alone, into a struct of settings_size bytes */
	size_t settings_size;

	/* What no single setting can tell is wrong. 0, or -EINVAL with what would be right. May be NULL. */
	int (*check)(const void *settings, struct err *err);

	/* Bytes of the longest record that one with these settings pushes: the buffer must be able to hold it. */
	int64_t (*max_record)(const void *settings);

	/*
	 * Makes one, at rest. settings and sink are borrowed for its whole life. 0 or -ENOMEM. Does not block.
	 */
	int (*new)(const struct collector_env *env, const void *settings, struct sink *sink,
	           struct collector **ret_collector);

	/* Goes to work, for the first time or after a stop; the first poll comes after delay_ms. Does not block. */
	void (*start)(struct collector *collector, int64_t delay_ms);

	/* Begins no other poll; one that is under way goes on to its end in the sink. */
	void (*stop)(struct collector *collector);

	/* Nothing is under way and nothing is unsettled: after a stop, free loses nothing. */
	bool (*idle)(const struct collector *collector);

	/* A person asks for an answer now; where a fetch is under way this does nothing, where the sink is full it
	 * begins once there is room. Ends in the sink like any other. Not after a stop. */
	void (*poll)(struct collector *collector);

	/* When the next poll is due (monotonic), or ALARM_NEVER while one is under way. */
	int64_t (*next_ms)(const struct collector *collector);

	/* The longest that a healthy source goes without a complete answer, in milliseconds: what `status` judges by.
	 */
	int64_t (*patience_ms)(const struct collector *collector);

	/* Where it fetches from, for people, without secrets; borrowed. */
	const char *(*origin)(const struct collector *collector);

	/* Drops a fetch under way without a word to the sink, and frees itself. NULL is fine. */
	void (*free)(struct collector *collector);
};

struct collector {
	const struct collector_ops *ops;
};

/* All kinds, ended by NULL. */
extern const struct collector_ops *const collector_kinds[];

#endif
