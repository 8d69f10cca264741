/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A command on this device, with the run in its environment (MILLRACE_RUN, MILLRACE_JOB, MILLRACE_MANIFEST: where that
 * stands in the store) and the manifest on its standard input; what it prints is its log. It ends with Millrace: one
 * that outlived it, because Millrace was killed, is found by its environment and killed before it is started again, for
 * nobody can tell how it ends.
 */
#include <assert.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/child.h"
#include "base/container.h"
#include "mill/command.h"
#include "mill/driver.h"

#define LOG_MAX         (256 * 1024)
#define LONGEST_MS      (INT64_C(366) * 86400000) /* the job's timeout is the mill's to keep */
#define ENVIRONMENT_MAX (64 * 1024)

struct exec_settings {
	char *command;
};

static const struct option options[] = {
	{ .name = "command",
	  .type = OPTION_TEXT,
	  .offset = offsetof(struct exec_settings, command),
	  .required = true,
	  .check = command_check },
	OPTION_END,
};

struct exec_driver {
	struct driver driver;
	struct child *child; /* NULL: it does not run */
	bool ended;
	enum driver_state state; /* how */
	int status;
	struct err err;
	struct bytes log;
	struct bytes tail; /* what is told of it; borrowed from log */
};

static struct exec_driver *self_of(struct driver *driver)
{
	return container_of(driver, struct exec_driver, driver);
}

/* What outlived us */

/* Whether a process was started for this run: one of ours, which has the run in its environment. */
static bool is_of_run(const char *pid, const char *entry, char *buffer)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%.20s/environ", pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t len = 0;
	ssize_t n = fd < 0 ? 0 : 1;
	while (n > 0 && len < ENVIRONMENT_MAX) {
		n = read(fd, buffer + len, ENVIRONMENT_MAX - len);
		len += n > 0 ? (size_t)n : 0;
	}
	if (fd >= 0)
		close(fd);
	return len > 0 && memmem(buffer, len, entry, strlen(entry) + 1);
}

/* Kills what is left of a run; how many there were. */
static unsigned sweep(const char *run)
{
	char entry[128];
	unsigned found = 0;
	char *buffer = malloc(ENVIRONMENT_MAX);
	DIR *processes = buffer ? opendir("/proc") : NULL;
	struct dirent *process;
	snprintf(entry, sizeof entry, "MILLRACE_RUN=%s", run);
	while (processes && (process = readdir(processes))) {
		if (!isdigit((unsigned char)*process->d_name) || !is_of_run(process->d_name, entry, buffer))
			continue;
		found++;
		kill((pid_t)strtol(process->d_name, NULL, 10), SIGKILL);
	}
	if (processes)
		closedir(processes);
	free(buffer);
	return found;
}

/* Its end */

__attribute__((format(printf, 3, 4))) static void end(struct exec_driver *d, int status, const char *format, ...)
{
	va_list args;
	d->ended = true;
	d->status = status;
	d->state = status == 0 ? DRIVER_DONE : DRIVER_FAILED;
	va_start(args, format);
	vsnprintf(d->err.text, sizeof d->err.text, format, args);
	va_end(args);
}

static void on_end(void *arg, const struct child_end *e)
{
	struct exec_driver *d = arg;
	d->child = NULL;
	if (e->error == -EMSGSIZE)
		end(d, -1, "it was killed: it prints more than %d KB", LOG_MAX / 1024);
	else if (e->error)
		end(d, -1, "it was killed: %s", strerror(-e->error));
	else
		end(d, e->status, "exit %d%s%s", e->status, *e->text ? ": " : "", e->text);
	d->log.len = 0;
	d->log.data = bytes_take(e->out, &d->log.len);
}

static void on_killed(void *arg)
{
	struct exec_driver *d = arg;
	d->child = NULL;
	driver_tell_state(&d->driver, d->state, d->status, &d->err);
}

/* Calls */

static void tell_end_soon(struct exec_driver *d)
{
	driver_tell_soon(&d->driver, d->state, d->status, d->state == DRIVER_DONE ? NULL : &d->err);
}

static int spawn(struct exec_driver *d, struct err *err)
{
	const struct driver_run *run = &d->driver.run;
	const struct exec_settings *settings = run->settings;
	struct command words;
	char id[128], job[128], *place = NULL;
	int rc = command_init(&words, settings->command, err);
	if (rc < 0)
		return rc;
	snprintf(id, sizeof id, "MILLRACE_RUN=%s", run->id);
	snprintf(job, sizeof job, "MILLRACE_JOB=%s", run->job);
	if (asprintf(&place, "MILLRACE_MANIFEST=%s", run->manifest_place ? run->manifest_place : "") < 0)
		place = NULL;
	const char *const environment[] = { id, job, place, NULL };
	const struct child_command command = {
		.argv = words.argv,
		.environment = environment,
		.in = run->manifest,
		.in_len = run->manifest_len,
		.max_out = LOG_MAX,
		.timeout_ms = LONGEST_MS,
		.on_end = on_end,
		.arg = d,
	};
	rc = place ? child_start(d->driver.env.loop, d->driver.env.alarms, &command, &d->child, err)
	           : err_fail(err, -ENOMEM, "out of memory");
	free(place);
	command_done(&words);
	return rc;
}

static void start(struct driver *driver)
{
	struct exec_driver *d = self_of(driver);
	struct err err = { "" };
	if (d->ended) {
		tell_end_soon(d);
		return;
	}
	int rc = d->child ? 0 : spawn(d, &err);
	bool passes = rc == -ENOMEM || rc == -EAGAIN || rc == -EMFILE || rc == -ENFILE;
	if (rc == 0)
		driver_tell_soon(driver, DRIVER_RUNNING, -1, NULL);
	else
		driver_tell_soon(driver, passes ? DRIVER_AWAY : DRIVER_REFUSED, -1, &err);
	if (rc < 0)
		d->child = NULL;
}

static void ask(struct driver *driver)
{
	struct exec_driver *d = self_of(driver);
	struct err err = { "it is not running" };
	if (d->ended)
		tell_end_soon(d);
	else if (d->child || sweep(driver->run.id) > 0)
		driver_tell_soon(driver, DRIVER_RUNNING, -1, NULL);
	else
		driver_tell_soon(driver, DRIVER_UNKNOWN, -1, &err);
}

static void get_log(struct driver *driver, uint64_t offset)
{
	struct exec_driver *d = self_of(driver);
	size_t from = offset < d->log.len ? (size_t)offset : d->log.len;
	d->tail = (struct bytes){ .data = d->log.data ? d->log.data + from : NULL, .len = d->log.len - from };
	driver_tell_soon(driver, DRIVER_RUNNING, -1, NULL);
	driver->known.log = &d->tail;
}

static void cancel(struct driver *driver)
{
	struct exec_driver *d = self_of(driver);
	if (!d->ended) {
		end(d, -1, "it was cancelled");
		sweep(driver->run.id);
	}
	if (d->child)
		child_cancel(d->child, on_killed, d);
	else
		tell_end_soon(d);
}

static void free_driver(struct driver *driver)
{
	struct exec_driver *d = self_of(driver);
	if (d->child)
		child_cancel(d->child, NULL, NULL);
	driver_done(driver);
	free(d->log.data);
	free(d);
}

static int new (const struct driver_env *env, const struct driver_run *run, struct driver **ret_driver)
{
	struct exec_driver *d = calloc(1, sizeof *d);
	if (!d)
		return -ENOMEM;
	driver_init(&d->driver, &driver_exec, env, run);
	*ret_driver = &d->driver;
	return 0;
}

const struct driver_ops driver_exec = {
	.kind = "exec",
	.options = options,
	.settings_size = sizeof(struct exec_settings),
	.new = new,
	.start = start,
	.ask = ask,
	.log = get_log,
	.cancel = cancel,
	.free = free_driver,
};
