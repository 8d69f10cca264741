/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon's parts, as agent/agent.c wires them and agent/backend.c shows them to the API. Private to agent/.
 */
#ifndef AGENT_DAEMON_H
#define AGENT_DAEMON_H

#include <uv.h>

#include "agent/audit.h"
#include "agent/clockwork.h"
#include "agent/config.h"
#include "agent/courier.h"
#include "agent/examine.h"
#include "agent/intake.h"
#include "agent/summary.h"
#include "api/api.h"

/* The state of the buffer, the words of docs/api.md (agent/health.c). */
enum health {
	HEALTH_READY,
	HEALTH_FULL,      /* of max_size */
	HEALTH_NO_SPACE,  /* others have filled the card */
	HEALTH_READ_ONLY, /* the kernel, or somebody, has made the card so */
	HEALTH_FAILING,   /* it takes nothing, for any other reason */
	HEALTH_DAMAGED,   /* about to be salvaged, or that failed */
	HEALTH_SALVAGING,
	HEALTH_HUNG, /* it does not even say that it fails */
};

/* A source from the day that it is configured until its last fetch has ended. */
struct agent_source {
	const struct config_source *config;
	struct config_source *own; /* what `config` is, once it is gone from the configuration; else NULL */
	struct sink *sink;
	struct collector *collector; /* NULL: disabled */
	int64_t since_ms;            /* monotonic; when it was configured */
	struct agent_source *next;
};

struct poll_wait; /* somebody who waits for the end of a poll; backend.c's */
struct object_in; /* an object that is being taken over; object_in.c's */
struct reading;   /* somebody who reads records; records.c's */
struct mill_put;  /* an object of the mill's on its way to a store; miller.c's */

/* A reload under way (agent/reload.c). */
struct reload {
	struct job job;
	struct config *now; /* NULL: none is under way */
	bool due;           /* one more was asked for, or this one waits for the end of an audit */
	int status;
	struct err err;
	int64_t taken; /* bytes that the buffer takes, where that is too much for a new max_size; else 0 */

	/* For people. */
	int64_t refused_ms;    /* wall; the last one was refused then; 0: it was not */
	char refused[ERR_MAX]; /* its first mistake */
	char restart[ERR_MAX]; /* what of the file only a restart brings; "": nothing */
};

struct agent {
	struct config *config;
	uv_loop_t loop;
	struct alarms alarms;
	uv_prepare_t prepare; /* rings the alarms before the loop sleeps */
	uv_timer_t tick;      /* wakes the loop for the next alarm */
	uv_signal_t sigterm, sigint, sighup;
	uv_timer_t deadline; /* of the stop */

	struct queue *queue;
	struct worker *worker; /* the buffer's */
	struct http *http;
	struct collector_env env; /* what collectors borrow for their life */
	struct intake *intake;
	struct summary *summary;
	struct courier *courier;
	struct clockwork *clockwork;
	struct mill *mill;
	struct mill_put *mill_puts;
	struct api *api;
	struct agent_source *sources;
	struct alarm sweep; /* looks for sources that are gone and at rest */
	struct reload reload;
	bool full;        /* the buffer is, and polls wait for room */
	bool clock_asked; /* whether the clock is right is known */
	bool polling;     /* the sources were begun */

	enum health health;  /* as it was noted last */
	int64_t unwell_ms;   /* monotonic; since when it is neither ready nor full */
	int64_t salvaged_ms; /* monotonic; the last salvage; where its view has one */
	int trouble;         /* the intake's, as it was noted last */

	int64_t started_ms; /* wall */
	struct poll_wait *waits;
	struct reading *readings;
	unsigned reads;          /* API reads that wait for the buffer's worker */
	struct examine *examine; /* NULL: no conflict is being looked at */
	struct api_call *examine_call;
	int64_t examine_batch;
	bool examine_ending;      /* it is one of the open parts */
	struct object_in *taking; /* NULL: no object of another Millrace is being taken over */
	struct audit *audit;      /* NULL: none is under way */
	struct api_call *audit_call;
	bool audit_ending; /* it is one of the open parts */

	struct job close_job; /* closes the queue */
	bool stopping;
	unsigned open; /* parts that are not closed yet */
};

/* The one that is configured under this name; NULL: there is none. */
struct agent_source *agent_find_source(const struct agent *agent, const char *name);

/* Whether anything may still come from one of this name: it is configured, or its last fetch has not ended. */
bool agent_has_source(const struct agent *agent, const char *name);

/*
 * Sources as the configuration has them now: what is gone or changed stops, what is new starts, a changed one once its
 * predecessor's fetch has ended. Those that are gone are taken out of `before`; NULL at the start. 0 or -ENOMEM: the
 * others start all the same.
 */
int agent_configure_sources(struct agent *agent, struct config *before);

/* The mill goes on from what the ledger says. 0 or -ENOMEM. */
int miller_start(struct agent *agent);

/* Another configuration, after config_keep; `before` loses its mill where that is gone. */
void miller_configure(struct agent *agent, struct config *before);

/* Ends it, as one of the open parts. */
void miller_stop(struct agent *agent);

/* Drops fetches under way. */
void agent_free_sources(struct agent *agent);

/* Reads the configuration again; what is wrong with it is logged, and the old one stays. */
void reload_begin(struct agent *agent);

/* What was waited for has ended. */
void reload_go_on(struct agent *agent);

/* What the API asks; the ctx of each call is the struct agent. */
extern const struct api_backend agent_backend;

/* The end of each poll, as the intake tells it. */
void backend_on_report(void *agent, const char *source, const struct intake_report *report);

/* Answers with the source's last n records, and with follow with all that come while it is configured. */
void records_answer(struct agent *agent, const char *source, size_t last, bool follow, struct api_call *call);

/* Answers with the bytes of a batch's object. */
void object_out(struct agent *agent, int64_t batch, struct api_call *call);

/* Takes over an object of another Millrace, and answers what came of it. */
void object_in(struct agent *agent, const struct api_object *object, struct api_call *call);

/* There are new figures: perhaps new records for those who follow. */
void records_note(struct agent *agent, const struct queue_view *view);

/* Sources may have gone for good: who follows one is given what there is of it, and the end. */
void records_end_gone(struct agent *agent);

/* Answers those who still wait for a poll, and ends an audit, as one of the open parts; before the API closes. */
void backend_stop(struct agent *agent);

/* Of this moment; ret_text: why, "" where there is nothing to say. Borrowed until the loop goes on. */
enum health health_judge(const struct agent *agent, const char **ret_text);
const char *health_name(enum health health);
const char *health_remedy(enum health health);

/* Before the loop sleeps: logs what has changed. */
void health_note(struct agent *agent);

/* Fills a status view from memory (agent/status.c). 0 or -ENOMEM. */
int status_fill(const struct agent *agent, struct status_view *ret_view);

#endif
