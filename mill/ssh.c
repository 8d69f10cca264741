/* SPDX-License-Identifier: Apache-2.0 */
#include "mill/ssh.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/child.h"
#include "base/clock.h"
#include "base/container.h"
#include "base/units.h"
#include "base/utf8.h"

#define ANSWER_MAX  (64 * 1024)
#define ARGUMENTS   40
#define FAILED      255 /* ssh itself, and not what it was to start there */
#define PATH_LENGTH 1024
#define SAID_MAX    120 /* bytes of what came in a worker's place */

struct ssh_call {
	struct ssh_request request;
	struct child *child;   /* NULL: it could not be started */
	struct alarms *alarms; /* for what is told without it */
	struct alarm alarm;
	struct ssh_answer answer;
};

static const char *key_path(const struct machine_settings *machine)
{
	const char *prefix = "file:";
	bool has = strncmp(machine->key, prefix, strlen(prefix)) == 0;
	return machine->key + (has ? strlen(prefix) : 0);
}

/* Bytes of the private key's path where the path is its public key's, by its name; 0: it is not. */
static size_t private_len(const char *path)
{
	size_t len = strlen(path), end = strlen(".pub");
	return len > end && strcmp(path + len - end, ".pub") == 0 ? len - end : 0;
}

/* ssh itself would say so in many lines, and then ask for a password. */
int ssh_check_key(const struct machine_settings *machine, struct err *err)
{
	const char *path = key_path(machine);
	struct stat st;
	if (private_len(path) > 0)
		return err_fail(err, -EINVAL, "%s is the public key; name the private one, which stays here: %.*s",
		                path, (int)private_len(path), path);
	if (stat(path, &st) < 0)
		return err_fail(err, -errno,
		                "the key %s is not there (%s); make one: ssh-keygen -t ed25519 -N '' -f %s", path,
		                strerror(errno), path);
	if (!S_ISREG(st.st_mode))
		return err_fail(err, -EINVAL, "the key %s is no file", path);
	if (st.st_mode & 077)
		return err_fail(err, -EPERM, "the key %s may be read by others; type: chmod 600 %s", path, path);
	if (access(path, R_OK) < 0)
		return err_fail(err, -errno,
		                "the key %s cannot be read (%s); it must belong to the user that Millrace runs as",
		                path, strerror(errno));
	return 0;
}

/* What a person is to type */

#define HOST_KEY "/etc/ssh/ssh_host_ed25519_key.pub on that machine"

/* Where ssh looks for host keys: ours, or that of the user who asks, whatever HOME says. */
static void known_hosts_path(const struct machine_settings *machine, char path[PATH_LENGTH])
{
	const struct passwd *user = machine->known_hosts ? NULL : getpwuid(geteuid());
	if (machine->known_hosts)
		snprintf(path, PATH_LENGTH, "%s", machine->known_hosts);
	else
		snprintf(path, PATH_LENGTH, "%s/.ssh/known_hosts", user ? user->pw_dir : "~");
}

static void explain_unknown(const struct ssh_request *r, struct err *err)
{
	char path[PATH_LENGTH];
	known_hosts_path(r->machine, path);
	err_fail(err, 0,
	         "its host key is not known here; ssh-keyscan -t ed25519 -p %" PRId64
	         " %s shows it: where it is that of " HOST_KEY ", add it with >> %s",
	         r->machine->port, r->machine->host, path);
}

static void explain_changed(const struct ssh_request *r, struct err *err)
{
	char path[PATH_LENGTH], name[300];
	known_hosts_path(r->machine, path);
	if (r->machine->port == 22)
		snprintf(name, sizeof name, "%s", r->machine->host);
	else
		snprintf(name, sizeof name, "[%s]:%" PRId64, r->machine->host, r->machine->port);
	err_fail(err, 0,
	         "its host key has changed: it was set up anew, or this is another machine. Where ssh-keyscan -t "
	         "ed25519 -p %" PRId64 " %s shows that of " HOST_KEY ", type: ssh-keygen -f %s -R '%s', and add it "
	         "with >> %s",
	         r->machine->port, r->machine->host, path, name, path);
}

static void explain_revoked(const struct ssh_request *r, struct err *err)
{
	char path[PATH_LENGTH];
	known_hosts_path(r->machine, path);
	err_fail(err, 0, "its host key is revoked, by %s or the system's known_hosts: somebody has put it there", path);
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}

static void explain_denied(const struct ssh_request *r, struct err *err)
{
	const char *path = key_path(r->machine);
	err_fail(err, 0,
	         "it refuses the key %s (which must have no passphrase) for the user %s; copy %s.pub to that machine, "
	         "and type there: millrace-worker setup --key %s.pub",
	         path, r->machine->user, path, base_name(path));
}

static void explain_key(const struct ssh_request *r, struct err *err)
{
	err_fail(err, 0,
	         "%s is no private key, or has a passphrase: ssh-keygen -p -f %s takes that off; else name another key",
	         key_path(r->machine), key_path(r->machine));
}

static void explain_no_worker(const struct ssh_request *r, const char *said, struct err *err)
{
	const char *path = key_path(r->machine);
	size_t whole = strlen(said);
	int len = (int)(whole > SAID_MAX ? utf8_cut(said, SAID_MAX) : whole);
	err_fail(err, 0,
	         "no millrace-worker answers to the user %s with this key%s%.*s%s; copy %s.pub to that machine, and "
	         "type there: millrace-worker setup --key %s.pub",
	         r->machine->user, *said ? " (" : "", len, said, *said ? ")" : "", path, base_name(path));
}

/* What ssh says that a person must mend; all else is a network that is not there, or not now. */
static const struct {
	const char *says;
	enum ssh_end end;
	void (*explain)(const struct ssh_request *r, struct err *err); /* NULL: as ssh says it */
} refusals[] = {
	{ "has changed and you have requested strict checking", SSH_REFUSED, explain_changed },
	{ "was revoked", SSH_REFUSED, explain_revoked },
	{ "key is known for", SSH_REFUSED, explain_unknown },
	{ "Host key verification failed", SSH_REFUSED, explain_unknown },
	{ "Load key", SSH_BLOCKED, explain_key },
	{ "Permission denied (", SSH_REFUSED, explain_denied },
	{ "Too many authentication failures", SSH_REFUSED, explain_denied },
	{ "Unable to negotiate", SSH_REFUSED, NULL },
	{ "command-line", SSH_BLOCKED, NULL },
};

static enum ssh_end judge_failure(const struct ssh_request *r, const char *text, struct err *err)
{
	const char *said = strncmp(text, "ssh: ", 5) == 0 ? text + 5 : text;
	err_fail(err, 0, "%s", *said ? said : "the connection broke");
	for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
		if (!strstr(text, refusals[i].says))
			continue;
		if (refusals[i].explain)
			refusals[i].explain(r, err);
		return refusals[i].end;
	}
	return SSH_AWAY;
}

/* Its end */

/* What came in a worker's place: what stands on standard error, or else the first line of standard output. */
static const char *said_instead(const struct child_end *end, char line[SAID_MAX + 1])
{
	const char *out = (const char *)end->out->data;
	size_t left = end->out->len, len = 0;
	if (*end->text)
		return end->text;
	while (left > 0 && isspace((unsigned char)*out)) {
		out++;
		left--;
	}
	for (size_t n = 0; left > 0 && *out != '\n' && *out != '\r'; out += n, left -= n) {
		uint32_t code = 0;
		n = utf8_decode((const unsigned char *)out, left, &code);
		bool shown = n > 0 && !utf8_breaks_line(code);
		if (len + (shown ? n : 1) > SAID_MAX)
			break;
		memcpy(line + len, shown ? out : "?", shown ? n : 1);
		len += shown ? n : 1;
		n = n > 0 ? n : 1;
	}
	line[len] = '\0';
	return line;
}

static enum ssh_end check_protocol(const json_t *json, struct err *err)
{
	const json_t *protocol = json_object_get(json, "protocol");
	json_int_t number = json_integer_value(protocol);
	if (!protocol || number == SSH_PROTOCOL)
		return SSH_ANSWERED;
	err_fail(err, 0,
	         "its millrace-worker speaks protocol %" JSON_INTEGER_FORMAT
	         ", and this Millrace %d: install a newer %s",
	         number, SSH_PROTOCOL, number > SSH_PROTOCOL ? "Millrace here" : "millrace-worker there");
	return SSH_REFUSED;
}

static enum ssh_end judge_answer(struct ssh_call *call, const struct child_end *end)
{
	struct ssh_answer *a = &call->answer;
	char line[SAID_MAX + 1];
	if (call->request.log) {
		a->out = end->out;
		return SSH_ANSWERED;
	}
	a->json = json_loadb((const char *)end->out->data, end->out->len, JSON_REJECT_DUPLICATES, NULL);
	if (json_is_object(a->json))
		return check_protocol(a->json, &a->err);
	json_decref(a->json);
	a->json = NULL;
	explain_no_worker(&call->request, said_instead(end, line), &a->err);
	return SSH_REFUSED;
}

static enum ssh_end judge_status(struct ssh_call *call, const struct child_end *end)
{
	struct err *err = &call->answer.err;
	char line[SAID_MAX + 1];
	switch (end->status) {
	case 0:
		return judge_answer(call, end);
	case FAILED:
		return judge_failure(&call->request, end->text, err);
	case 75:
		err_fail(err, 0, "%s", end->text);
		return SSH_LATER;
	case 64:
	case 65:
	case 69:
	case 78:
		err_fail(err, 0, "%s", end->text);
		return SSH_REFUSED;
	default:
		if (end->status > 128) {
			err_fail(err, 0, "ssh was ended by signal %d", end->status - 128);
			return SSH_AWAY;
		}
		explain_no_worker(&call->request, said_instead(end, line), err);
		return SSH_REFUSED;
	}
}

static enum ssh_end judge(struct ssh_call *call, const struct child_end *end)
{
	struct err *err = &call->answer.err;
	char text[UNITS_TEXT_MAX];
	switch (end->error) {
	case 0:
		return judge_status(call, end);
	case -ETIMEDOUT:
		err_fail(err, 0, "no answer within %s", units_duration(call->request.timeout_ms, text));
		return SSH_AWAY;
	case -EMSGSIZE:
		explain_no_worker(&call->request, "it answers without end", err);
		return SSH_REFUSED;
	default:
		err_fail(err, 0, "%s", strerror(-end->error));
		return SSH_AWAY;
	}
}

static void tell(struct ssh_call *call)
{
	struct ssh_answer *a = &call->answer;
	call->request.on_answer(call->request.arg, a);
	json_decref(a->json);
	free(call);
}

static void on_end(void *arg, const struct child_end *end)
{
	struct ssh_call *call = arg;
	call->answer.end = judge(call, end);
	tell(call);
}

static void on_ring(struct alarm *alarm)
{
	tell(container_of(alarm, struct ssh_call, alarm));
}

/* Its beginning */

struct arguments {
	char *list[ARGUMENTS]; /* malloc'ed */
	size_t n;
	bool failed;
};

__attribute__((format(printf, 2, 3))) static void add(struct arguments *args, const char *format, ...)
{
	va_list list;
	char *text;
	va_start(list, format);
	int len = args->n + 1 < ARGUMENTS ? vasprintf(&text, format, list) : -1;
	va_end(list);
	if (len < 0)
		args->failed = true;
	else
		args->list[args->n++] = text;
}

/* A path where ssh would take % for a token; in quotes it may have spaces. */
static void add_path(struct arguments *args, const char *before, const char *path, const char *behind)
{
	char text[PATH_LENGTH];
	size_t len = 0;
	for (; *path && len + 3 < sizeof text; path++) {
		text[len++] = *path;
		if (*path == '%')
			text[len++] = '%';
	}
	text[len] = '\0';
	args->failed = args->failed || *path;
	add(args, "%s%s%s", before, text, behind);
}

/* Nothing of the system's or the user's own configuration counts: what works for one works for all. */
static void make_arguments(const struct ssh_request *r, struct arguments *args)
{
	static const char *const options[] = {
		"BatchMode=yes",
		"StrictHostKeyChecking=yes",
		"UpdateHostKeys=no",
		"IdentitiesOnly=yes",
		"IdentityAgent=none",
		"ConnectTimeout=10",
		"ConnectionAttempts=1",
		"ServerAliveInterval=10",
		"ServerAliveCountMax=3",
		"ClearAllForwardings=yes",
		"ControlMaster=no",
		"ControlPath=none",
		"PreferredAuthentications=publickey",
		"LogLevel=ERROR",
	};
	const struct machine_settings *m = r->machine;
	add(args, "ssh");
	add(args, "-aTx");
	add(args, "-F");
	add(args, "none");
	for (size_t i = 0; i < sizeof options / sizeof *options; i++)
		add(args, "-o%s", options[i]);
	if (m->known_hosts)
		add_path(args, "-oUserKnownHostsFile=\"", m->known_hosts, "\"");
	add_path(args, "-oIdentityFile=\"", key_path(m), "\"");
	add(args, "-p%" PRId64, m->port);
	add(args, "-l%s", m->user);
	add(args, "--");
	add(args, "%s", m->host);
	add(args, "%s", r->verb);
	args->list[args->n] = NULL;
}

static void free_arguments(struct arguments *args)
{
	for (size_t i = 0; i < args->n; i++)
		free(args->list[i]);
}

/* 0, or err says why it was not started. */
static int spawn(uv_loop_t *loop, struct ssh_call *call, struct err *err)
{
	static const char *const environment[] = { "LC_ALL=C", NULL };
	const struct ssh_request *r = &call->request;
	struct arguments args = { .n = 0 };
	int rc = ssh_check_key(r->machine, err);
	if (rc < 0)
		return rc;
	make_arguments(r, &args);
	const struct child_command command = {
		.argv = (const char *const *)args.list,
		.environment = environment,
		.in = r->in,
		.in_len = r->in_len,
		.max_out = r->log ? SSH_LOG_MAX : ANSWER_MAX,
		.timeout_ms = r->timeout_ms,
		.on_end = on_end,
		.arg = call,
	};
	rc = args.failed ? err_fail(err, -ENOMEM, "out of memory")
	                 : child_start(loop, call->alarms, &command, &call->child, err);
	free_arguments(&args);
	if (rc == -ENOENT)
		err_fail(err, rc, "there is no ssh on PATH; type: apt install openssh-client");
	return rc;
}

int ssh_start(uv_loop_t *loop, struct alarms *alarms, const struct ssh_request *request, struct ssh_call **ret_call)
{
	struct ssh_call *call = calloc(1, sizeof *call);
	if (!call)
		return -ENOMEM;
	call->request = *request;
	call->alarms = alarms;
	call->alarm.on_ring = on_ring;
	int rc = spawn(loop, call, &call->answer.err);
	if (rc < 0) {
		bool passes = rc == -ENOMEM || rc == -EAGAIN || rc == -EMFILE || rc == -ENFILE;
		call->answer.end = passes ? SSH_AWAY : SSH_BLOCKED;
		call->child = NULL;
		alarm_set(alarms, &call->alarm, clock_mono_ms());
	}
	*ret_call = call;
	return 0;
}

void ssh_cancel(struct ssh_call *call)
{
	if (!call)
		return;
	alarm_cancel(&call->alarm);
	if (call->child)
		child_cancel(call->child, NULL, NULL);
	free(call);
}
