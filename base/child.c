/* SPDX-License-Identifier: Apache-2.0 */
#include "base/child.h"

#include <errno.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/container.h"
#include "base/utf8.h"

#define GRACE_MS 2000

enum { IN, OUT, ERROR, STREAMS };

struct child {
	uv_process_t process;
	uv_pipe_t streams[STREAMS]; /* our ends */
	int open;                   /* handles that are not closed yet */
	struct alarms *alarms;
	struct alarm alarm;

	uv_write_t write;
	char *in;           /* NULL once it is written */
	char **environment; /* NULL once it runs; the entries are others' */

	struct bytes out;
	char tail[CHILD_TEXT_MAX];
	size_t tail_len;
	char text[CHILD_TEXT_MAX + 1];
	char chunk[4096]; /* what was just read */

	struct child_end end;
	void (*on_end)(void *arg, const struct child_end *end); /* NULL: cancelled, or never begun */
	void (*on_closed)(void *arg);
	void *arg;
};

/* --- Text --- */

/* Length of the character, one that takes a place on a line, with which text begins; 0: there is none. */
static size_t printable(const unsigned char *text, size_t len)
{
	uint32_t code = 0;
	size_t n = utf8_decode(text, len, &code);
	return code == ' ' || utf8_breaks_line(code) ? 0 : n;
}

static void make_text(struct child *c)
{
	const unsigned char *from = (const unsigned char *)c->tail;
	size_t len = 0, n;
	size_t i = 0;
	while (i < c->tail_len && (from[i] & 0xc0) == 0x80)
		i++; /* the rest of a character that was cut */
	for (; i < c->tail_len; i += n) {
		n = printable(from + i, c->tail_len - i);
		if (n > 0) {
			memcpy(c->text + len, from + i, n);
			len += n;
			continue;
		}
		n = 1;
		if (from[i] > ' ' && from[i] != 0x7f)
			c->text[len++] = '?';
		else if (len > 0 && c->text[len - 1] != ' ')
			c->text[len++] = ' ';
	}
	if (len > 0 && c->text[len - 1] == ' ')
		len--;
	c->text[len] = '\0';
}

/* --- Handles --- */

static void finish(struct child *c)
{
	if (c->on_end) {
		make_text(c);
		c->end.out = &c->out;
		c->end.text = c->text;
		c->on_end(c->arg, &c->end);
	} else if (c->on_closed) {
		c->on_closed(c->arg);
	}
	bytes_done(&c->out);
	free(c);
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct child *c = handle->data;
	if (--c->open == 0)
		finish(c);
}

static void close_stream(struct child *c, int which)
{
	uv_handle_t *handle = (uv_handle_t *)&c->streams[which];
	if (!uv_is_closing(handle))
		uv_close(handle, on_handle_closed);
}

static void close_streams(struct child *c)
{
	for (int i = 0; i < STREAMS; i++)
		close_stream(c, i);
}

static void signal_group(const struct child *c, int number)
{
	kill(-c->process.pid, number); /* ESRCH: they have all gone by themselves */
}

static void kill_for(struct child *c, int error)
{
	if (c->end.error == 0)
		c->end.error = error;
	signal_group(c, SIGKILL);
	alarm_cancel(&c->alarm);
}

/* --- What it says and hears --- */

static void take(struct child *c, int which, size_t len)
{
	if (which == OUT) {
		int rc = bytes_add(&c->out, c->chunk, len);
		if (rc < 0) {
			kill_for(c, rc == -ENOBUFS ? -EMSGSIZE : rc); /* first: a broken pipe would end it otherwise */
			close_stream(c, OUT);
		}
		return;
	}
	size_t fresh = len < CHILD_TEXT_MAX ? len : CHILD_TEXT_MAX;
	size_t kept = c->tail_len < CHILD_TEXT_MAX - fresh ? c->tail_len : CHILD_TEXT_MAX - fresh;
	memmove(c->tail, c->tail + c->tail_len - kept, kept);
	memcpy(c->tail + kept, c->chunk + len - fresh, fresh);
	c->tail_len = kept + fresh;
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	struct child *c = handle->data;
	(void)suggested;
	*buf = uv_buf_init(c->chunk, sizeof c->chunk);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct child *c = stream->data;
	int which = stream == (uv_stream_t *)&c->streams[OUT] ? OUT : ERROR;
	(void)buf;
	if (n < 0)
		close_stream(c, which);
	else if (n > 0)
		take(c, which, (size_t)n);
}

/* status is not looked at: what does not read its input, or not all of it, may be right. */
static void on_fed(uv_write_t *write, int status)
{
	struct child *c = container_of(write, struct child, write);
	(void)status;
	free(c->in);
	c->in = NULL;
	close_stream(c, IN);
}

static void feed(struct child *c, size_t len)
{
	uv_buf_t buf = uv_buf_init(c->in, (unsigned)len);
	if (len == 0 || uv_write(&c->write, (uv_stream_t *)&c->streams[IN], &buf, 1, on_fed) < 0)
		on_fed(&c->write, 0);
}

/* --- Its end --- */

/* What stands in the pipe at this moment and no more: whoever holds its other end may write for ever. */
static void drain(struct child *c, int which)
{
	uv_handle_t *handle = (uv_handle_t *)&c->streams[which];
	int fd, left = 0;
	if (uv_is_closing(handle) || uv_fileno(handle, &fd) < 0 || ioctl(fd, FIONREAD, &left) < 0)
		return;
	while (left > 0 && !uv_is_closing(handle)) {
		size_t most = (size_t)left < sizeof c->chunk ? (size_t)left : sizeof c->chunk;
		ssize_t n = read(fd, c->chunk, most);
		if (n <= 0)
			return;
		take(c, which, (size_t)n);
		left -= (int)n;
	}
}

/* It was reaped a moment ago; its number cannot be another group's yet, but later it can. */
static void on_ended(uv_process_t *process, int64_t status, int number)
{
	struct child *c = process->data;
	signal_group(c, SIGKILL);
	drain(c, OUT);
	drain(c, ERROR);
	c->end.status = number ? 128 + number : (int)status;
	alarm_cancel(&c->alarm);
	close_streams(c);
	uv_close((uv_handle_t *)process, on_handle_closed);
}

static void on_alarm(struct alarm *alarm)
{
	struct child *c = container_of(alarm, struct child, alarm);
	if (c->end.error) {
		signal_group(c, SIGKILL);
		return;
	}
	c->end.error = -ETIMEDOUT;
	signal_group(c, SIGTERM);
	alarm_set(c->alarms, &c->alarm, clock_mono_ms() + GRACE_MS);
}

void child_cancel(struct child *child, void (*on_closed)(void *arg), void *arg)
{
	child->on_end = NULL;
	child->on_closed = on_closed;
	child->arg = arg;
	if (uv_is_closing((uv_handle_t *)&child->process))
		return;
	signal_group(child, SIGKILL);
	alarm_cancel(&child->alarm);
	close_streams(child);
}

/* --- Its beginning --- */

static bool same_name(const char *a, const char *b)
{
	size_t len = strcspn(a, "=");
	return strncmp(a, b, len) == 0 && b[len] == '=';
}

static bool names(const char *const *list, const char *entry)
{
	while (list && *list && !same_name(*list, entry))
		list++;
	return list && *list;
}

/* Only the list is the caller's to free. NULL: no memory. */
static char **make_environment(const char *const *own)
{
	static const char *const kept[] = { "PATH=", "HOME=", "LANG=", "TZ=", "SSL_CERT_FILE=", NULL };
	size_t n = 1;
	for (char **entry = environ; entry && *entry; entry++)
		n++;
	for (const char *const *entry = own; entry && *entry; entry++)
		n++;
	char **list = malloc(n * sizeof *list);
	if (!list)
		return NULL;
	n = 0;
	for (; own && own[n]; n++)
		list[n] = (char *)own[n];
	for (char **entry = environ; entry && *entry; entry++)
		if (names(kept, *entry) && !names(own, *entry))
			list[n++] = *entry;
	list[n] = NULL;
	return list;
}

static void close_all(const int fds[STREAMS])
{
	for (int i = 0; i < STREAMS; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

/*
 * Pipes and not libuv's own, which are sockets: a script's `echo … >/dev/stderr` fails on a socket (proc(5)). All are
 * closed on exec.
 */
static int make_pipes(int ret_ours[STREAMS], int ret_theirs[STREAMS])
{
	for (int i = 0; i < STREAMS; i++)
		ret_ours[i] = ret_theirs[i] = -1;
	for (int i = 0; i < STREAMS; i++) {
		int ends[2];
		int rc = uv_pipe(ends, 0, 0);
		if (rc < 0) {
			close_all(ret_ours);
			close_all(ret_theirs);
			return rc;
		}
		ret_ours[i] = ends[i == IN];
		ret_theirs[i] = ends[i != IN];
	}
	return 0;
}

/* Whatever a library, or who started us, has opened without closing it on exec. Linux before 5.11 takes the long way.
 */
static void close_on_exec(void)
{
	if (close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
		uv_disable_stdio_inheritance();
}

static int spawn(struct child *c, uv_loop_t *loop, const struct child_command *command, const int fds[STREAMS])
{
	uv_stdio_container_t stdio[STREAMS];
	for (int i = 0; i < STREAMS; i++)
		stdio[i] = (uv_stdio_container_t){ .flags = UV_INHERIT_FD, .data.fd = fds[i] };
	uv_process_options_t options = {
		.exit_cb = on_ended,
		.file = command->argv[0],
		.args = (char **)command->argv,
		.env = c->environment,
		.cwd = "/",
		.flags = UV_PROCESS_DETACHED,
		.stdio_count = STREAMS,
		.stdio = stdio,
	};
	close_on_exec();
	int rc = uv_spawn(loop, &c->process, &options);
	c->process.data = c;
	free(c->environment);
	c->environment = NULL;
	return rc;
}

static int refuse(struct err *err, int code, const char *program)
{
	if (code == -ENOENT && !strchr(program, '/'))
		return err_fail(err, code, "no program \"%s\" in PATH: install it, or write its whole path", program);
	if (code == -ENOENT)
		return err_fail(err, code, "no program \"%s\", or not the one that its first line (#!) names", program);
	if (code == -EACCES)
		return err_fail(err, code,
		                "this user may not run \"%s\": it, or a folder above it, forbids it (chmod +x)",
		                program);
	return err_fail(err, code, "cannot run \"%s\": %s", program, strerror(-code));
}

/* NULL: no memory. */
static struct child *make(const struct child_command *command)
{
	struct child *c = calloc(1, sizeof *c);
	if (!c)
		return NULL;
	c->in = malloc(command->in_len + 1); /* + 1: where there is none, NULL is still no memory */
	c->environment = make_environment(command->environment);
	if (!c->in || !c->environment) {
		free(c->in);
		free(c->environment);
		free(c);
		return NULL;
	}
	if (command->in_len > 0)
		memcpy(c->in, command->in, command->in_len);
	c->alarm.on_ring = on_alarm;
	c->arg = command->arg;
	bytes_init(&c->out, command->max_out);
	return c;
}

/* Never begun: the handles are closed by the loop, and nobody is told. */
static void abandon(struct child *c)
{
	free(c->in);
	close_streams(c);
	uv_close((uv_handle_t *)&c->process, on_handle_closed);
}

/* The descriptors are the streams' from here on. */
static void open_streams(struct child *c, uv_loop_t *loop, const int fds[STREAMS])
{
	for (int i = 0; i < STREAMS; i++) {
		uv_pipe_init(loop, &c->streams[i], 0);
		uv_pipe_open(&c->streams[i], fds[i]); /* fails for what is no pipe alone */
		c->streams[i].data = c;
	}
}

static void listen_and_feed(struct child *c, size_t in_len)
{
	uv_read_start((uv_stream_t *)&c->streams[OUT], on_alloc, on_read);
	uv_read_start((uv_stream_t *)&c->streams[ERROR], on_alloc, on_read);
	feed(c, in_len);
}

int child_start(uv_loop_t *loop, struct alarms *alarms, const struct child_command *command, struct child **ret_child,
                struct err *err)
{
	int ours[STREAMS], theirs[STREAMS];
	int rc = make_pipes(ours, theirs);
	if (rc < 0)
		return refuse(err, rc, command->argv[0]);
	struct child *c = make(command);
	if (!c) {
		close_all(ours);
		close_all(theirs);
		return refuse(err, -ENOMEM, command->argv[0]);
	}
	open_streams(c, loop, ours);
	c->open = STREAMS + 1;
	rc = spawn(c, loop, command, theirs);
	close_all(theirs);
	if (rc < 0) {
		abandon(c);
		return refuse(err, rc, command->argv[0]);
	}
	c->on_end = command->on_end;
	c->alarms = alarms;
	alarm_set(alarms, &c->alarm, clock_mono_ms() + command->timeout_ms);
	listen_and_feed(c, command->in_len);
	*ret_child = c;
	return 0;
}
