/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/config_options.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "agent/config.h"
#include "agent/config_mill_private.h"
#include "base/units.h"

#define SECOND INT64_C(1000)
#define DAY    (24 * 3600 * SECOND)
#define KIB    INT64_C(1024)

static int check_device(const char *value, struct err *err)
{
	if (units_is_device(value))
		return 0;
	return err_fail(err, -EINVAL, "\"%.80s\" is no name for a device; it has letters, digits, . _ -, up to %d",
	                value, UNITS_NAME_MAX - 1);
}

static const char *const clocks[] = { [CONFIG_CLOCK_AUTO] = "auto", [CONFIG_CLOCK_TRUST] = "trust", NULL };
static const char *const log_formats[] = { [LOG_TEXT] = "text", [LOG_JSON] = "json", NULL };

const struct option config_top_options[] = {
	{ .name = "device", .type = OPTION_TEXT, .offset = offsetof(struct config, device), .check = check_device },
	{ .name = "socket",
	  .type = OPTION_TEXT,
	  .offset = offsetof(struct config, socket),
	  .path = true,
	  .check = option_check_path },
	{ .name = "log",
	  .type = OPTION_CHOICE,
	  .offset = offsetof(struct config, log),
	  .fallback = "text",
	  .choices = log_formats },
	{ .name = "clock",
	  .type = OPTION_CHOICE,
	  .offset = offsetof(struct config, clock),
	  .fallback = "auto",
	  .choices = clocks },
	{ .name = "clock_wait",
	  .type = OPTION_DURATION,
	  .offset = offsetof(struct config, clock_wait_ms),
	  .fallback = "1h",
	  .min = 0,
	  .max = 7 * DAY },
	OPTION_END,
};

static const char *const on_full[] = { [CONFIG_PAUSE] = "pause", [CONFIG_DROP_OLDEST] = "drop-oldest", NULL };

const struct option config_buffer_options[] = {
	{ .name = "path",
	  .type = OPTION_TEXT,
	  .offset = offsetof(struct config, buffer_path),
	  .fallback = "/var/lib/millrace/buffer.db",
	  .path = true,
	  .check = option_check_path },
	{ .name = "max_size",
	  .type = OPTION_SIZE,
	  .offset = offsetof(struct config, max_size),
	  .fallback = "512M",
	  .min = 16 * KIB * KIB,
	  .max = KIB * KIB * KIB * KIB },
	{ .name = "on_full",
	  .type = OPTION_CHOICE,
	  .offset = offsetof(struct config, on_full),
	  .fallback = "pause",
	  .choices = on_full },
	{ .name = "keep_delivered",
	  .type = OPTION_DURATION,
	  .offset = offsetof(struct config, keep_delivered_ms),
	  .fallback = "24h",
	  .min = 0,
	  .max = 365 * DAY },
	OPTION_END,
};

/* The defaults are the file's; a source's own batch takes from the file's what it leaves out. */
const struct option config_batch_options[] = {
	{ .name = "max_bytes",
	  .type = OPTION_SIZE,
	  .offset = offsetof(struct config_batch, max_bytes),
	  .fallback = "8M",
	  .min = 64 * KIB,
	  .max = 64 * KIB * KIB },
	{ .name = "max_records",
	  .type = OPTION_NUMBER,
	  .offset = offsetof(struct config_batch, max_records),
	  .fallback = "100000",
	  .min = 1,
	  .max = 10000000 },
	{ .name = "max_age",
	  .type = OPTION_DURATION,
	  .offset = offsetof(struct config_batch, max_age_ms),
	  .fallback = "15m",
	  .min = SECOND,
	  .max = 7 * DAY },
	OPTION_END,
};

const struct option config_source_options[] = {
	{ .name = "stores", .type = OPTION_NAMES, .offset = offsetof(struct config_source, stores) },
	{ .name = "enabled",
	  .type = OPTION_BOOL,
	  .offset = offsetof(struct config_source, enabled),
	  .fallback = "true" },
	OPTION_END,
};

static int check_job_source(const char *name, struct err *err)
{
	if (strcmp(name, UNITS_POLLS) == 0 || units_is_name(name))
		return 0;
	return err_fail(err, -EINVAL, "\"%.80s\" is no name of a source, nor \"" UNITS_POLLS "\"", name);
}

static int check_when(const char *value, struct err *err)
{
	struct when when;
	return when_parse(value, &when, err);
}

/* The manifest, which is JSON, tells it to the machine. */
static int check_path_there(const char *value, struct err *err)
{
	if (*value != '/')
		return err_fail(err, -EINVAL,
		                "\"%.80s\" does not begin with /; it is where the machine finds the store, as in "
		                "\"/mnt/lake\"",
		                value);
	json_t *text = json_string(value);
	json_decref(text);
	return text ? 0 : err_fail(err, -EINVAL, "the path is not UTF-8");
}

const struct option config_job_options[] = {
	{ .name = "machine", .type = OPTION_TEXT, .offset = offsetof(struct config_job, machine) },
	{ .name = "store", .type = OPTION_TEXT, .offset = offsetof(struct config_job, store) },
	{ .name = "sources",
	  .type = OPTION_NAMES,
	  .offset = offsetof(struct config_job, sources),
	  .check_name = check_job_source },
	{ .name = "when",
	  .type = OPTION_TEXT,
	  .offset = offsetof(struct config_job, when_text),
	  .required = true,
	  .check = check_when },
	{ .name = "timeout",
	  .type = OPTION_DURATION,
	  .offset = offsetof(struct config_job, timeout_ms),
	  .fallback = "1h",
	  .min = SECOND,
	  .max = 7 * DAY },
	{ .name = "retries",
	  .type = OPTION_NUMBER,
	  .offset = offsetof(struct config_job, retries),
	  .fallback = "3",
	  .min = 0,
	  .max = 100 },
	{ .name = "path_there",
	  .type = OPTION_TEXT,
	  .offset = offsetof(struct config_job, path_there),
	  .check = check_path_there },
	OPTION_END,
};
