/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/driver_box.h"

static struct driver_box box;
static char folder[] = "/tmp/millrace-exec-XXXXXX";
static char *settings; /* the command: all that its settings are */

static void set_command(const char *command)
{
	struct err err;
	assert_int_equal(option_set(&driver_exec.options[0], &settings, command, &err), 0);
}

/* A script in the folder, and the command that names it. */
static void use_script(const char *script)
{
	char path[64];
	snprintf(path, sizeof path, "%s/job", folder);
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	fprintf(file, "#!/bin/sh\n%s\n", script);
	fclose(file);
	assert_int_equal(chmod(path, 0700), 0);
	set_command(path);
}

static int setup(void **state)
{
	(void)state;
	strcpy(folder, "/tmp/millrace-exec-XXXXXX");
	assert_non_null(mkdtemp(folder));
	driver_box_open(&box);
	box.run.settings = &settings;
	use_script("exit 0");
	driver_box_renew(&box, &driver_exec);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	char command[64];
	driver_box_close(&box);
	option_done(driver_exec.options, &settings);
	snprintf(command, sizeof command, "rm -r %s", folder);
	return system(command);
}

static void start(void)
{
	driver_box_call(&box, box.driver->ops->start);
	assert_int_equal(box.state, DRIVER_RUNNING);
	assert_string_equal(box.why, "");
}

static void ask(void)
{
	driver_box_call(&box, box.driver->ops->ask);
}

static void follow(void)
{
	do
		ask();
	while (box.state == DRIVER_RUNNING);
}

static void get_log(uint64_t offset)
{
	box.driver->ops->log(box.driver, offset);
	driver_box_wait(&box);
	assert_true(box.has_log);
}

static void test_a_job_that_ends_well(void **state)
{
	(void)state;
	use_script("echo \"$MILLRACE_RUN $MILLRACE_JOB $MILLRACE_MANIFEST\"; cat; echo; echo trouble >&2");
	ask();
	assert_int_equal(box.state, DRIVER_UNKNOWN);
	start();
	follow();
	assert_int_equal(box.state, DRIVER_DONE);
	assert_int_equal(box.exit, 0);
	get_log(0);
	assert_string_equal(box.log, "0198aa10f3b2c4d5e6f708192a3b4c5d parking _runs/parking/0198/manifest.json\n"
	                             "{\"version\":1}\n");
	get_log(box.log_len - 3);
	assert_string_equal(box.log, "1}\n");
	get_log(100000);
	assert_string_equal(box.log, "");
	/* the same run again is the same run */
	driver_box_call(&box, box.driver->ops->start);
	assert_int_equal(box.state, DRIVER_DONE);
}

static void test_its_arguments(void **state)
{
	(void)state;
	char command[128];
	use_script("printf '%s|' \"$@\"");
	snprintf(command, sizeof command, "%s/job  a $HOME;b  'c", folder);
	set_command(command);
	start();
	follow();
	get_log(0);
	assert_string_equal(box.log, "a|$HOME;b|'c|");
}

static void test_a_job_that_fails(void **state)
{
	(void)state;
	use_script("echo said; echo 'no such table' >&2; exit 3");
	start();
	get_log(0);
	follow();
	assert_int_equal(box.state, DRIVER_FAILED);
	assert_int_equal(box.exit, 3);
	assert_string_equal(box.why, "exit 3: no such table");
	get_log(0);
	assert_string_equal(box.log, "said\n");
	driver_box_renew(&box, &driver_exec);
	use_script("kill -9 $$");
	start();
	follow();
	assert_int_equal(box.state, DRIVER_FAILED);
	assert_int_equal(box.exit, 137);
}

static void test_a_job_that_says_too_much(void **state)
{
	(void)state;
	use_script("yes");
	start();
	follow();
	assert_int_equal(box.state, DRIVER_FAILED);
	assert_int_equal(box.exit, -1);
	assert_string_equal(box.why, "it was killed: it prints more than 256 KB");
	get_log(0);
	assert_true(box.log_len > 0 && box.log_len <= 256 * 1024);
}

static void test_no_such_command(void **state)
{
	(void)state;
	set_command("/nowhere/job");
	driver_box_call(&box, box.driver->ops->start);
	assert_int_equal(box.state, DRIVER_REFUSED);
	assert_non_null(strstr(box.why, "/nowhere/job"));
	use_script("exit 0"); /* once it is mended it goes on */
	start();
	follow();
	assert_int_equal(box.state, DRIVER_DONE);
}

static void test_cancel(void **state)
{
	(void)state;
	use_script("sleep 1000");
	start();
	driver_box_call(&box, box.driver->ops->cancel);
	assert_int_equal(box.state, DRIVER_FAILED);
	assert_string_equal(box.why, "it was cancelled");
	ask();
	assert_int_equal(box.state, DRIVER_FAILED);
	/* again, and one that was never started */
	driver_box_call(&box, box.driver->ops->cancel);
	assert_int_equal(box.state, DRIVER_FAILED);
	driver_box_renew(&box, &driver_exec);
	driver_box_call(&box, box.driver->ops->cancel);
	assert_int_equal(box.state, DRIVER_FAILED);
}

/* A process of ours that has the run in its environment, as a job that outlived us. */
static pid_t leave_one_behind(const char *run)
{
	int ready[2];
	char byte, entry[128];
	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	snprintf(entry, sizeof entry, "MILLRACE_RUN=%s", run);
	char *const environment[] = { entry, NULL };
	char *const argv[] = { "sleep", "1000", NULL };
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		execve("/bin/sleep", argv, environment);
		_exit(127);
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 0); /* it was executed */
	close(ready[0]);
	return pid;
}

static void test_one_that_outlived_us(void **state)
{
	(void)state;
	char other[64];
	snprintf(other, sizeof other, "%s-2", box.run.id); /* another attempt of it */
	pid_t pid = leave_one_behind(box.run.id), bystander = leave_one_behind(other);
	int status;
	ask();
	assert_int_equal(box.state, DRIVER_RUNNING);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	ask();
	assert_int_equal(box.state, DRIVER_UNKNOWN);
	assert_int_equal(waitpid(bystander, &status, WNOHANG), 0);
	kill(bystander, SIGKILL);
	waitpid(bystander, &status, 0);
	start();
	follow();
	assert_int_equal(box.state, DRIVER_DONE);
}

static void test_freed_while_it_runs(void **state)
{
	(void)state;
	use_script("sleep 1000");
	box.driver->ops->start(box.driver);
	driver_box_renew(&box, &driver_exec); /* before it was told */
	start();
	box.driver->ops->cancel(box.driver);
	driver_box_renew(&box, &driver_exec);
	start();
	unsigned answers = box.answers;
	driver_box_renew(&box, &driver_exec);
	driver_box_turn(&box);
	assert_int_equal(box.answers, answers);
}

static void test_commands_are_judged(void **state)
{
	(void)state;
	struct err err;
	char many[512] = "x";
	for (int i = 0; i < 32; i++)
		strcat(many, " x");
	assert_int_equal(driver_exec.options[0].check("", &err), -EINVAL);
	assert_int_equal(driver_exec.options[0].check("   ", &err), -EINVAL);
	assert_int_equal(driver_exec.options[0].check(many, &err), -EINVAL);
	assert_non_null(strstr(err.text, "up to 31 arguments"));
	assert_int_equal(driver_exec.options[0].check("bin/job", &err), -EINVAL);
	assert_non_null(strstr(err.text, "\"bin/job\": write the whole path"));
	assert_int_equal(driver_exec.options[0].check("sh job", &err), 0);
	many[strlen(many) - 2] = '\0';
	assert_int_equal(driver_exec.options[0].check(many, &err), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_a_job_that_ends_well),     TEST(test_its_arguments),       TEST(test_a_job_that_fails),
		TEST(test_a_job_that_says_too_much), TEST(test_no_such_command),     TEST(test_cancel),
		TEST(test_one_that_outlived_us),     TEST(test_freed_while_it_runs), TEST(test_commands_are_judged),
	};
	alarm(60); /* a hang fails */
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
