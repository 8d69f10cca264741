/* SPDX-License-Identifier: Apache-2.0 */
/* Machines, jobs and runs. */
#include <string.h>

#include "api/view.h"
#include "base/alarm.h"
#include "mill/manifest.h"

#define MS_PER_HOUR INT64_C(3600000)

static const char *const machine_states[] = {
	[LEDGER_ASLEEP] = "asleep",   [LEDGER_WAKING] = "waking", [LEDGER_UP] = "up",
	[LEDGER_RUNNING] = "running", [LEDGER_IDLE] = "idle",     [LEDGER_SLEEPING] = "sleeping",
};

static const char *const run_states[] = {
	[LEDGER_DUE] = "due",   [LEDGER_WRITTEN] = "written", [LEDGER_STARTED] = "started",
	[LEDGER_DONE] = "done", [LEDGER_PARKED] = "parked",   [LEDGER_CANCELLED] = "cancelled",
};

/* Rounded; null where nobody has told the watts. */
static json_t *energy_value(int64_t ms, int64_t watts)
{
	return watts ? json_integer((ms * watts + MS_PER_HOUR / 2) / MS_PER_HOUR) : json_null();
}

static json_t *machine_value(const struct mill_machine_view *view, int64_t wall_ms, int64_t mono_ms)
{
	const struct mill_machine_view nothing = { .name = view->name, .machine.next_try_ms = ALARM_NEVER };
	const struct mill_machine_view *v = view->known ? view : &nothing;
	const struct machine_view *m = &v->machine;
	return json_pack("{s:o, s:s, s:o, s:b, s:b, s:o, s:I, s:o, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o}", "name",
	                 view_text(v->name), "state", v->known ? machine_states[m->state] : "unknown", "since",
	                 view_time(m->since_ms), "ours", m->ours, "refuses", m->refuses, "reason", view_text(m->reason),
	                 "failures", (json_int_t)m->failures, "next_try",
	                 view_time(m->next_try_ms == ALARM_NEVER ? 0 : wall_ms + m->next_try_ms - mono_ms),
	                 "wakes_today", (json_int_t)v->wakes_today, "wakes_month", (json_int_t)v->wakes_month,
	                 "awake_today_seconds", (json_int_t)(v->awake_today_ms / 1000), "awake_month_seconds",
	                 (json_int_t)(v->awake_month_ms / 1000), "month_seconds", (json_int_t)(v->month_ms / 1000),
	                 "watts", v->watts ? json_integer(v->watts) : json_null(), "energy_wh",
	                 energy_value(v->awake_month_ms, v->watts), "always_on_wh",
	                 energy_value(v->month_ms, v->watts));
}

static json_t *job_value(const struct mill_job_view *v)
{
	const struct ledger_run *run = v->run;
	return json_pack("{s:o, s:o, s:I, s:o, s:I, s:I, s:o, s:o, s:I, s:I, s:o, s:o, s:b}", "name",
	                 view_text(v->name), "machine", v->machine ? view_text(v->machine) : json_null(), "batches",
	                 (json_int_t)v->due.batches, "oldest", view_time(v->due.oldest_ms), "others",
	                 (json_int_t)v->due.others, "missed", (json_int_t)v->due.missed, "run",
	                 run ? view_text(run->id) : json_null(), "run_state",
	                 run ? json_string(run_states[run->state]) : json_null(), "attempt",
	                 (json_int_t)(run ? run->attempt : 0), "parked", (json_int_t)v->parked, "last_parked",
	                 view_text(v->last_parked), "waits_for", view_text(v->waits_for), "trouble", v->trouble);
}

json_t *view_machines(const struct mill_view *view, int64_t wall_ms, int64_t mono_ms)
{
	json_t *machines = json_array(), *jobs = json_array();
	int rc = 0;
	for (size_t i = 0; i < view->n_machines; i++)
		rc += json_array_append_new(machines, machine_value(&view->machines[i], wall_ms, mono_ms));
	for (size_t i = 0; i < view->n_jobs; i++)
		rc += json_array_append_new(jobs, job_value(&view->jobs[i]));
	json_t *json = json_pack("{s:o, s:o, s:o}", "now", view_time(wall_ms), "machines", machines, "jobs", jobs);
	if (rc < 0) {
		json_decref(json);
		return NULL;
	}
	return json;
}

static json_t *run_value(const struct ledger_run *run)
{
	return json_pack("{s:o, s:o, s:s, s:I, s:o, s:o, s:o, s:o, s:o, s:I, s:I, s:I, s:o}", "id", view_text(run->id),
	                 "job", view_text(run->job), "state", run_states[run->state], "attempt",
	                 (json_int_t)run->attempt, "created_at", view_time(run->created_ms), "written_at",
	                 view_time(run->written_ms), "ready_at", view_time(run->ready_ms), "started_at",
	                 view_time(run->started_ms), "ended_at", view_time(run->ended_ms), "objects",
	                 (json_int_t)run->objects, "records", (json_int_t)run->records, "bytes", (json_int_t)run->bytes,
	                 "reason", view_text(run->reason));
}

json_t *view_runs(const struct ledger_run *runs, size_t n)
{
	json_t *array = json_array();
	int rc = 0;
	for (size_t i = 0; i < n; i++)
		rc += json_array_append_new(array, run_value(&runs[i]));
	json_t *json = json_pack("{s:o}", "runs", array);
	if (rc < 0) {
		json_decref(json);
		return NULL;
	}
	return json;
}

static json_t *manifest_value(const struct ledger_run *run)
{
	static const uint8_t none[SHA256_SIZE];
	char key[OBJECT_KEY_MAX], hex[SHA256_HEX];
	bool written = memcmp(run->manifest, none, sizeof none) != 0;
	manifest_key(run, "manifest.json", key);
	return json_pack("{s:o, s:o}", "key", view_text(key), "sha256",
	                 written ? json_string(sha256_hex(run->manifest, SHA256_HEX - 1, hex)) : json_null());
}

json_t *view_run(const struct ledger_run *run)
{
	json_t *json = run_value(run);
	int rc = json_object_set_new(json, "store", view_text(run->store));
	rc += json_object_set_new(json, "manifest", manifest_value(run));
	rc += json_object_set_new(json, "remote", *run->remote ? view_text(run->remote) : json_null());
	rc += json_object_set_new(json, "log", view_bytes(run->log, run->log_len));
	if (rc < 0) {
		json_decref(json);
		return NULL;
	}
	return json;
}
