/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon's parts, as agent/agent.c wires them and agent/backend.c shows them to the API. Private to agent/.
 */
#ifndef AGENT_DAEMON_H
#define AGENT_DAEMON_H

#include <uv.h>

#include "agent/audit.h"
#include "agent/config.h"
#include "agent/courier.h"
#include "agent/intake.h"
#include "api/api.h"

struct agent_source {
	const struct config_source *config;
	struct sink *sink;
	struct collector *collector; /* NULL: disabled */
};

struct poll_wait; /* somebody who waits for the end of a poll; backend.c's */

struct agent {
	const struct config *config;
	uv_loop_t loop;
	struct alarms alarms;
	uv_prepare_t prepare; /* rings the alarms before the loop sleeps */
	uv_timer_t tick;      /* wakes the loop for the next alarm */
	uv_signal_t sigterm, sigint;
	uv_timer_t deadline; /* of the stop */

	struct queue *queue;
	struct worker *worker; /* the buffer's */
	struct http *http;
	struct collector_env env; /* what collectors borrow for their life */
	struct intake *intake;
	struct courier *courier;
	struct api *api;
	struct agent_source *sources; /* as many as the configuration has */

	int64_t started_ms; /* wall */
	struct poll_wait *waits;
	unsigned reads;      /* API reads that wait for the buffer's worker */
	struct audit *audit; /* NULL: none is under way */
	struct api_call *audit_call;
	bool audit_ending; /* it is one of the open parts */

	struct job close_job; /* closes the queue */
	bool stopping;
	unsigned open; /* parts that are not closed yet */
};

/* What the API asks; the ctx of each call is the struct agent. */
extern const struct api_backend agent_backend;

/* The intake tells the end of each poll. */
void backend_on_report(void *agent, const char *source, const struct intake_report *report);

/* Answers those who still wait for a poll, and ends an audit, as one of the open parts; before the API closes. */
void backend_stop(struct agent *agent);

/* Fills a status view from memory (agent/status.c). 0 or -ENOMEM. */
int status_fill(const struct agent *agent, struct status_view *ret_view);

#endif
