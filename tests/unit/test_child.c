/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Real programs. Time is this test's: it rings the alarms itself. It is the reaper of what its children leave behind,
 * so that it sees how that ended; teardown looks that nothing is left: no process, no alarm, no descriptor.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/child.h"
#include "base/clock.h"

#define LARGE ((size_t)1 << 20)

struct result {
	bool ended;
	int error, status;
	struct bytes out;
	char text[CHILD_TEXT_MAX + 1];
};

static uv_loop_t loop;
static struct alarms alarms;
static struct result result;
static struct child *child;
static char folder[] = "/tmp/test_child.XXXXXX";
static char fifo[64];
static size_t descriptors;
static int closed;

static size_t count_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	size_t n = 0;
	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static int group_setup(void **state)
{
	(void)state;
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	uv_loop_init(&loop); /* the first one opens what libuv never closes */
	uv_loop_close(&loop);
	if (!mkdtemp(folder))
		return -1;
	snprintf(fifo, sizeof fifo, "%s/fifo", folder);
	return mkfifo(fifo, 0600);
}

static int group_teardown(void **state)
{
	(void)state;
	unlink(fifo);
	return rmdir(folder);
}

static int setup(void **state)
{
	(void)state;
	memset(&result, 0, sizeof result);
	child = NULL;
	closed = 0;
	descriptors = count_descriptors();
	assert_int_equal(uv_loop_init(&loop), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
	assert_null(alarms.first);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
	assert_int_equal(count_descriptors(), descriptors);
	bytes_done(&result.out);
	return 0;
}

static void on_end(void *arg, const struct child_end *end)
{
	struct result *r = arg;
	assert_false(r->ended);
	r->ended = true;
	r->error = end->error;
	r->status = end->status;
	r->out = *end->out;
	bytes_init(end->out, 0); /* the memory is the result's now */
	snprintf(r->text, sizeof r->text, "%s", end->text);
}

static void on_closed(void *arg)
{
	assert_ptr_equal(arg, &closed);
	closed++;
}

static const struct child_command usual = {
	.max_out = 2 * LARGE,
	.timeout_ms = 60000,
	.on_end = on_end,
	.arg = &result,
};

static void start(const struct child_command *like, const char *script)
{
	const char *const argv[] = { "sh", "-c", script, NULL };
	char entry[80];
	const char *const own[] = { entry, NULL };
	struct child_command command = *like;
	struct err err = { "" };
	snprintf(entry, sizeof entry, "FIFO=%s", fifo);
	command.argv = argv;
	if (!command.environment)
		command.environment = own;
	assert_int_equal(child_start(&loop, &alarms, &command, &child, &err), 0);
	assert_string_equal(err.text, "");
	assert_false(result.ended);
}

static void run_to_end(void)
{
	while (!result.ended)
		assert_true(uv_run(&loop, UV_RUN_ONCE) || result.ended);
}

static void run(const struct child_command *like, const char *script)
{
	start(like, script);
	run_to_end();
}

static void assert_out(const char *text)
{
	bytes_add(&result.out, "", 1);
	assert_string_equal((const char *)result.out.data, text);
}

/* What a script has written to the fifo: that it has come that far. */
static void read_fifo(char *ret_text, size_t size)
{
	int fd = open(fifo, O_RDONLY | O_CLOEXEC);
	ssize_t n = 0;
	size_t len = 0;
	assert_true(fd >= 0);
	while ((n = read(fd, ret_text + len, size - 1 - len)) > 0)
		len += (size_t)n;
	ret_text[len] = '\0';
	close(fd);
}

static pid_t pid_from_fifo(void)
{
	char text[32];
	read_fifo(text, sizeof text);
	pid_t pid = (pid_t)atol(text);
	assert_true(pid > 1);
	return pid;
}

/* A process that has become ours since who started it is gone. */
static void assert_killed(pid_t pid)
{
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGKILL);
}

/* --- What it says and hears --- */

static void test_output_text_and_status(void **state)
{
	(void)state;
	run(&usual, "echo out; echo err >&2; echo more; exit 7");
	assert_int_equal(result.error, 0);
	assert_int_equal(result.status, 7);
	assert_out("out\nmore\n");
	assert_string_equal(result.text, "err");
}

static void test_nothing_said(void **state)
{
	(void)state;
	run(&usual, ":");
	assert_int_equal(result.error, 0);
	assert_int_equal(result.status, 0);
	assert_int_equal(result.out.len, 0);
	assert_string_equal(result.text, "");
}

static void test_ended_by_a_signal(void **state)
{
	(void)state;
	run(&usual, "kill -TERM $$");
	assert_int_equal(result.error, 0);
	assert_int_equal(result.status, 128 + SIGTERM);
}

static void test_input_comes_back_whole(void **state)
{
	(void)state;
	unsigned char *in = malloc(LARGE);
	struct child_command command = usual;
	assert_non_null(in);
	for (size_t i = 0; i < LARGE; i++)
		in[i] = (unsigned char)(i * 2654435761U >> 13);
	command.in = in;
	command.in_len = LARGE;
	command.max_out = LARGE; /* exactly */
	start(&command, "exec cat");
	unsigned char *sent = malloc(LARGE);
	assert_non_null(sent);
	memcpy(sent, in, LARGE);
	memset(in, 0, LARGE); /* it was copied */
	free(in);
	run_to_end();
	assert_int_equal(result.error, 0);
	assert_int_equal(result.out.len, LARGE);
	assert_memory_equal(result.out.data, sent, LARGE);
	free(sent);
}

static void test_input_is_nothing(void **state)
{
	(void)state;
	run(&usual, "cat; echo end");
	assert_out("end\n");
}

static void test_input_is_not_read(void **state)
{
	static const char in[LARGE];
	struct child_command command = usual;
	(void)state;
	command.in = in;
	command.in_len = sizeof in;
	run(&command, "exec <&-; echo closed; exit 3");
	assert_int_equal(result.error, 0);
	assert_int_equal(result.status, 3);
	assert_out("closed\n");
}

static void test_output_closed_before_the_end(void **state)
{
	char text[8];
	(void)state;
	start(&usual, "echo a; echo b >&2; exec >&- 2>&-; echo x >$FIFO; read x <$FIFO; exit 4");
	read_fifo(text, sizeof text);
	for (int i = 0; i < 3; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
	int fd = open(fifo, O_WRONLY | O_CLOEXEC);
	assert_int_equal(write(fd, "x\n", 2), 2);
	close(fd);
	run_to_end();
	assert_int_equal(result.error, 0);
	assert_int_equal(result.status, 4);
	assert_out("a\n");
	assert_string_equal(result.text, "b");
}

/* libuv looks after all of its processes when one has ended, and after the signal of that last. */
static void end_the_other(uv_poll_t *poll, int status, int events)
{
	siginfo_t info;
	int fd = open(fifo, O_WRONLY | O_CLOEXEC);
	assert_int_equal(status, 0);
	assert_int_equal(events, UV_READABLE);
	assert_int_equal(write(fd, "x\n", 2), 2);
	close(fd);
	assert_int_equal(waitid(P_PID, *(const id_t *)poll->data, &info, WEXITED | WNOWAIT), 0);
	uv_close((uv_handle_t *)poll, NULL);
}

static void on_first_end(void *arg, const struct child_end *end)
{
	(void)arg;
	assert_int_equal(end->error, 0);
}

static void test_output_that_stands_in_the_pipe_at_the_end(void **state)
{
	struct child_command command = usual;
	siginfo_t info;
	uv_poll_t poll;
	int ends[2];
	(void)state;
	start(&usual, "echo $$ >$FIFO; read x <$FIFO; head -c 50000 /dev/zero; echo text >&2");
	id_t other = (id_t)pid_from_fifo();
	command.on_end = on_first_end;
	start(&command, ":");
	assert_int_equal(waitid(P_ALL, 0, &info, WEXITED | WNOWAIT), 0);
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(write(ends[1], "x", 1), 1);
	uv_poll_init(&loop, &poll, ends[0]);
	poll.data = &other;
	uv_poll_start(&poll, UV_READABLE, end_the_other);
	run_to_end();
	uv_run(&loop, UV_RUN_DEFAULT);
	close(ends[0]);
	close(ends[1]);
	assert_int_equal(result.error, 0);
	assert_int_equal(result.out.len, 50000);
	assert_string_equal(result.text, "text");
}

static void test_too_much_output(void **state)
{
	struct child_command command = usual;
	(void)state;
	command.max_out = 10000;
	run(&command, "exec yes");
	assert_int_equal(result.error, -EMSGSIZE);
	assert_int_equal(result.status, 128 + SIGKILL);
	assert_in_range(result.out.len, 1, 10000);
}

static void test_output_to_the_byte(void **state)
{
	struct child_command command = usual;
	(void)state;
	command.max_out = 5;
	run(&command, "printf 12345");
	assert_int_equal(result.error, 0);
	assert_int_equal(result.out.len, 5);
	bytes_done(&result.out);
	result.ended = false;
	run(&command, "printf 123456");
	assert_int_equal(result.error, -EMSGSIZE);
}

static void assert_text(const char *printf_argument, const char *text)
{
	char script[2048];
	result.ended = false;
	snprintf(script, sizeof script, "printf '%s' >&2", printf_argument);
	run(&usual, script);
	assert_string_equal(result.text, text);
}

static void test_text_is_one_printable_line(void **state)
{
	(void)state;
	assert_text("one\\r\\ntwo\\n", "one two");
	assert_text("\\n\\t a  b \\000c\\177\\033[31md\\n\\n", "a b c [31md");
	assert_text("bl\\303\\245b\\303\\246r \\342\\234\\223", "bl\303\245b\303\246r \342\234\223");
	assert_text("\\360\\237\\230\\200", "\360\237\230\200");
	assert_text("a\\377b\\303", "a?b?");
	assert_text("a\\300\\257b", "a??b");                     /* "/", too long by one */
	assert_text("a\\355\\240\\200b", "a???b");               /* a surrogate */
	assert_text("a\\302\\205b\\342\\200\\250c", "a??b???c"); /* NEL and LINE SEPARATOR end lines elsewhere */
	assert_text("a\\364\\220\\200\\200b\\370", "a????b?");
}

static void test_text_is_the_last_of_it(void **state)
{
	char expected[CHILD_TEXT_MAX + 1];
	(void)state;
	run(&usual, "i=0; while [ $i -lt 9000 ]; do printf a; i=$((i + 1)); done >&2; printf end >&2");
	memset(expected, 'a', CHILD_TEXT_MAX);
	memcpy(expected + CHILD_TEXT_MAX - 3, "end", 4);
	assert_string_equal(result.text, expected);
}

/* 256 characters of two bytes and one of one: the first one's second byte is where the text would begin. */
static void test_text_begins_with_a_whole_character(void **state)
{
	(void)state;
	run(&usual, "i=0; while [ $i -lt 256 ]; do printf '\\303\\245'; i=$((i + 1)); done >&2; printf x >&2");
	assert_int_equal(strlen(result.text), CHILD_TEXT_MAX - 1);
	assert_memory_equal(result.text, "\303\245", 2);
	assert_string_equal(result.text + CHILD_TEXT_MAX - 2, "x");
}

/* --- What it is given --- */

static void test_environment(void **state)
{
	static const char *const own[] = { "RUN=r-1", "TZ=Europe/Oslo", "EMPTY=", NULL };
	struct child_command command = usual;
	(void)state;
	setenv("LAKE_SECRET", "do not tell", 1);
	setenv("PATHS", "like PATH", 1);
	setenv("LANG", "C.UTF-8", 1);
	setenv("TZ", "UTC", 1);
	setenv("HOME", "/nowhere", 1);
	unsetenv("SSL_CERT_FILE");
	command.environment = own;
	run(&command, "env | grep -v -e ^PATH= -e ^_= -e ^PWD= -e ^SHLVL= -e ^OLDPWD= | sort");
	assert_out("EMPTY=\nHOME=/nowhere\nLANG=C.UTF-8\nRUN=r-1\nTZ=Europe/Oslo\n");
	result.ended = false;
	bytes_done(&result.out);
	run(&command, "printf %s \"$PATH\"");
	assert_out(getenv("PATH"));
	unsetenv("TZ");
}

/* Opened as a library may: not closed on exec, with a gap before it. */
static void test_descriptors(void **state)
{
	int fd = open("/dev/null", O_RDONLY);
	int far = fcntl(fd, F_DUPFD, 200);
	(void)state;
	assert_true(far >= 200);
	run(&usual, "ls /proc/self/fd; for f in 0 1 2; do readlink /proc/self/fd/$f | cut -d: -f1; done");
	close(fd);
	close(far);
	assert_out("0\n1\n2\n3\npipe\npipe\npipe\n"); /* 3: ls reads the folder by it */
}

static void test_streams_can_be_opened_by_name(void **state)
{
	struct child_command command = usual;
	(void)state;
	command.in = "in";
	command.in_len = 2;
	run(&command, "cat /dev/stdin >/dev/stdout; echo text >/dev/stderr");
	assert_int_equal(result.status, 0);
	assert_out("in");
	assert_string_equal(result.text, "text");
}

/* Those from 32 on are glibc's own, and some makes ignore them. */
static void test_signals(void **state)
{
	unsigned long long block = 1, ignore = 1;
	sigset_t blocked, before;
	char text[128];
	(void)state;
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGTERM);
	sigaddset(&blocked, SIGUSR1);
	sigprocmask(SIG_BLOCK, &blocked, &before);
	signal(SIGUSR2, SIG_IGN);
	run(&usual, "grep -E 'Sig(Blk|Ign)' /proc/self/status");
	signal(SIGUSR2, SIG_DFL);
	sigprocmask(SIG_SETMASK, &before, NULL);
	bytes_add(&result.out, "", 1);
	snprintf(text, sizeof text, "%s", (const char *)result.out.data);
	assert_int_equal(sscanf(text, "SigBlk: %llx\nSigIgn: %llx\n", &block, &ignore), 2);
	assert_true(block == 0);
	assert_true((ignore & 0x7fffffff) == 0);
}

static void test_folder_session_and_group(void **state)
{
	long pid, group, session;
	char line[64];
	(void)state;
	run(&usual, "pwd; echo $$ $(cut -d' ' -f5,6 /proc/$$/stat)");
	bytes_add(&result.out, "", 1);
	snprintf(line, sizeof line, "%s", (const char *)result.out.data);
	assert_int_equal(sscanf(line, "/\n%ld %ld %ld\n", &pid, &group, &session), 3);
	assert_int_equal(group, pid);
	assert_int_equal(session, pid);
	assert_int_not_equal(session, getsid(0));
}

/* --- What cannot begin --- */

static int refused(const char *program, char *ret_text)
{
	const char *const argv[] = { program, NULL };
	struct child_command command = usual;
	struct err err = { "" };
	command.argv = argv;
	command.in = "in";
	command.in_len = 2;
	int rc = child_start(&loop, &alarms, &command, &child, &err);
	assert_null(child);
	strcpy(ret_text, err.text);
	return rc;
}

static void test_no_such_program(void **state)
{
	char text[ERR_MAX], path[80];
	(void)state;
	assert_int_equal(refused("millrace-no-such", text), -ENOENT);
	assert_string_equal(text, "no program \"millrace-no-such\" in PATH: install it, or write its whole path");
	assert_int_equal(refused("/no/such", text), -ENOENT);
	assert_non_null(strstr(text, "no program \"/no/such\""));
	assert_int_equal(refused(folder, text), -EACCES);
	assert_non_null(strstr(text, folder));
	snprintf(path, sizeof path, "%s/script", folder);
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	fputs("#!/no/such/shell\n", file);
	fclose(file);
	assert_int_equal(refused(path, text), -EACCES);
	assert_non_null(strstr(text, "chmod +x"));
	chmod(path, 0700);
	assert_int_equal(refused(path, text), -ENOENT);
	assert_non_null(strstr(text, "first line (#!)"));
	unlink(path);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_false(result.ended);
}

/* With 0, 1, 2 … descriptors left it is refused as a whole, or works; teardown counts them. */
static void test_out_of_descriptors(void **state)
{
	int taken[2048], n = 0, works = 0;
	(void)state;
	while (n < 2048 && (taken[n] = dup(0)) >= 0)
		n++;
	assert_in_range(n, 16, 2047); /* `ulimit -n` is set to less than that in main */
	for (int left = 0; left < 16; left++) {
		const char *const argv[] = { "true", NULL };
		struct child_command command = usual;
		struct err err = { "" };
		command.argv = argv;
		result.ended = false;
		int rc = child_start(&loop, &alarms, &command, &child, &err);
		if (rc == 0) {
			run_to_end();
			assert_int_equal(result.error, 0);
			works++;
		} else {
			assert_int_equal(rc, -EMFILE);
			assert_string_equal(err.text, "cannot run \"true\": Too many open files");
			uv_run(&loop, UV_RUN_DEFAULT);
		}
		close(taken[--n]);
	}
	while (n > 0)
		close(taken[--n]);
	assert_in_range(works, 1, 15);
}

/* --- Its time --- */

/* The moment of the first alarm. */
static int64_t ring(void)
{
	int64_t at_ms = alarms_next(&alarms);
	assert_int_not_equal(at_ms, ALARM_NEVER);
	alarms_ring(&alarms, at_ms);
	return at_ms;
}

static void test_timeout_ends_it(void **state)
{
	char text[8];
	(void)state;
	start(&usual, "trap 'echo bye; exit 3' TERM; echo up; echo x >$FIFO; sleep 1000 & wait");
	read_fifo(text, sizeof text);
	ring();
	run_to_end();
	assert_int_equal(result.error, -ETIMEDOUT);
	assert_int_equal(result.status, 3);
	assert_out("up\nbye\n");
	waitpid(-1, NULL, 0); /* the sleep, which got the same signal */
}

static void test_timeout_kills_what_goes_on(void **state)
{
	char text[8];
	(void)state;
	int64_t before_ms = clock_mono_ms();
	start(&usual, "trap '' TERM; echo x >$FIFO; while :; do sleep 1000; done");
	assert_in_range(alarms_next(&alarms), before_ms + 60000, clock_mono_ms() + 60000);
	read_fifo(text, sizeof text);
	before_ms = clock_mono_ms();
	ring();
	assert_in_range(alarms_next(&alarms), before_ms + 2000, clock_mono_ms() + 2000);
	uv_run(&loop, UV_RUN_NOWAIT);
	assert_false(result.ended);
	ring();
	run_to_end();
	assert_int_equal(result.error, -ETIMEDOUT);
	assert_int_equal(result.status, 128 + SIGKILL);
	while (waitpid(-1, NULL, 0) > 0) /* the sleep */
		;
}

static void test_timeout_of_a_stopped_one(void **state)
{
	siginfo_t info;
	(void)state;
	start(&usual, "echo $$ >$FIFO; kill -STOP $$");
	assert_int_equal(waitid(P_PID, (id_t)pid_from_fifo(), &info, WSTOPPED), 0);
	ring();
	ring();
	run_to_end();
	assert_int_equal(result.error, -ETIMEDOUT);
	assert_int_equal(result.status, 128 + SIGKILL);
}

/* --- What it leaves behind --- */

static void test_what_stays_in_the_group_is_killed(void **state)
{
	(void)state;
	run(&usual, "trap '' HUP TERM; sleep 1000 & echo $!");
	assert_int_equal(result.error, 0);
	assert_int_equal(result.status, 0);
	bytes_add(&result.out, "", 1);
	assert_killed((pid_t)atol((const char *)result.out.data));
}

static void test_what_has_its_own_session_goes_on(void **state)
{
	(void)state;
	run(&usual, "setsid sh -c 'echo $$ >$FIFO; exec sleep 1000' & read pid <$FIFO; echo $pid");
	assert_int_equal(result.error, 0);
	bytes_add(&result.out, "", 1);
	pid_t pid = (pid_t)atol((const char *)result.out.data);
	assert_true(pid > 1);
	assert_int_equal(waitpid(pid, NULL, WNOHANG), 0); /* alive, its standard output the pipe that we have left */
	kill(pid, SIGKILL);
	assert_killed(pid);
}

static void test_what_has_its_own_session_writes_for_ever(void **state)
{
	int status;
	(void)state;
	run(&usual, "setsid sh -c 'echo $$ >$FIFO; exec yes >&2' & read pid <$FIFO; echo $pid");
	assert_int_equal(result.error, 0);
	bytes_add(&result.out, "", 1);
	pid_t pid = (pid_t)atol((const char *)result.out.data);
	assert_int_equal(waitpid(pid, &status, 0), pid); /* its pipe is broken */
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGPIPE);
}

/* --- Cancelling --- */

static void test_cancel(void **state)
{
	static const char in[LARGE];
	struct child_command command = usual;
	(void)state;
	command.in = in;
	command.in_len = sizeof in;
	start(&command, "trap '' TERM; sleep 1000 & echo $! >$FIFO; wait");
	pid_t sleeper = pid_from_fifo();
	child_cancel(child, on_closed, &closed);
	assert_int_equal(closed, 0);
	assert_null(alarms.first);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(closed, 1);
	assert_false(result.ended);
	assert_killed(sleeper);
}

static void test_cancel_at_once_and_untold(void **state)
{
	(void)state;
	start(&usual, "sleep 1000");
	child_cancel(child, NULL, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_false(result.ended);
	while (waitpid(-1, NULL, 0) > 0) /* the sleep, where the shell got as far */
		;
}

static void test_cancel_while_it_is_timed_out(void **state)
{
	char text[8];
	(void)state;
	start(&usual, "trap '' TERM; echo x >$FIFO; while :; do :; done");
	read_fifo(text, sizeof text);
	ring();
	child_cancel(child, on_closed, &closed);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(closed, 1);
	assert_false(result.ended);
}

/* libuv's check handles run between the one and the other. */
static void cancel_the_ended(uv_check_t *check)
{
	if (alarms.first)
		return; /* it has not ended yet */
	child_cancel(child, on_closed, &closed);
	uv_close((uv_handle_t *)check, NULL);
}

static void test_cancel_between_its_end_and_the_news(void **state)
{
	uv_check_t check;
	(void)state;
	uv_check_init(&loop, &check);
	uv_check_start(&check, cancel_the_ended);
	start(&usual, "echo out");
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(closed, 1);
	assert_false(result.ended);
}

/* --- Many --- */

static int left;

static void on_one_of_many(void *arg, const struct child_end *end)
{
	const int *status = arg;
	assert_int_equal(end->error, 0);
	assert_int_equal(end->status, *status);
	assert_int_equal(end->out->len, 2);
	left--;
}

static void test_many_at_once(void **state)
{
	int statuses[20];
	(void)state;
	left = 20;
	for (int i = 0; i < 20; i++) {
		struct child_command command = usual;
		char script[32];
		snprintf(script, sizeof script, "echo x; exit %d", i);
		statuses[i] = i;
		command.on_end = on_one_of_many;
		command.arg = &statuses[i];
		start(&command, script);
	}
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(left, 0);
}

static void on_end_start_another(void *arg, const struct child_end *end)
{
	struct child_command command = usual;
	assert_int_equal(end->status, left);
	command.on_end = on_end_start_another;
	command.arg = arg;
	if (--left > 0)
		start(&command, left == 2 ? "exit 2" : "exit 1");
}

static void test_one_starts_the_next(void **state)
{
	struct child_command command = usual;
	(void)state;
	left = 3;
	command.on_end = on_end_start_another;
	start(&command, "exit 3");
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(left, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct rlimit few = { 512, 512 };
	const struct CMUnitTest tests[] = {
		TEST(test_output_text_and_status),
		TEST(test_nothing_said),
		TEST(test_ended_by_a_signal),
		TEST(test_input_comes_back_whole),
		TEST(test_input_is_nothing),
		TEST(test_input_is_not_read),
		TEST(test_output_closed_before_the_end),
		TEST(test_output_that_stands_in_the_pipe_at_the_end),
		TEST(test_too_much_output),
		TEST(test_output_to_the_byte),
		TEST(test_text_is_one_printable_line),
		TEST(test_text_is_the_last_of_it),
		TEST(test_text_begins_with_a_whole_character),
		TEST(test_environment),
		TEST(test_descriptors),
		TEST(test_streams_can_be_opened_by_name),
		TEST(test_signals),
		TEST(test_folder_session_and_group),
		TEST(test_no_such_program),
		TEST(test_out_of_descriptors),
		TEST(test_timeout_ends_it),
		TEST(test_timeout_kills_what_goes_on),
		TEST(test_timeout_of_a_stopped_one),
		TEST(test_what_stays_in_the_group_is_killed),
		TEST(test_what_has_its_own_session_goes_on),
		TEST(test_what_has_its_own_session_writes_for_ever),
		TEST(test_cancel),
		TEST(test_cancel_at_once_and_untold),
		TEST(test_cancel_while_it_is_timed_out),
		TEST(test_cancel_between_its_end_and_the_news),
		TEST(test_many_at_once),
		TEST(test_one_starts_the_next),
	};
	setrlimit(RLIMIT_NOFILE, &few);
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
