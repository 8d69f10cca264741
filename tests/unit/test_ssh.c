/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What becomes of the words and the exit status of OpenSSH's client, which a script stands in for: it notes how it was
 * called and says what the real one (9.2) said. The real one is met in tests/system.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mill/ssh.h"
#include "tests/unit/driver_box.h"

static struct driver_box box;
static char folder[64], key[128], path_before[4096];
static struct machine_settings machine;
static struct ssh_call *call;

/* The last answer. */
static struct {
	unsigned n;
	enum ssh_end end;
	char why[ERR_MAX], word[64];
	size_t log_len;
} got;

static void on_answer(void *arg, const struct ssh_answer *answer)
{
	assert_ptr_equal(arg, &got);
	got.n++;
	got.end = answer->end;
	snprintf(got.why, sizeof got.why, "%s", answer->err.text);
	const char *word = json_string_value(json_object_get(answer->json, "state"));
	snprintf(got.word, sizeof got.word, "%s", word ? word : "");
	got.log_len = answer->out ? answer->out->len : 0;
}

static void write_file(const char *name, const char *text, mode_t mode)
{
	char path[128];
	snprintf(path, sizeof path, "%s/%s", folder, name);
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
	assert_int_equal(chmod(path, mode), 0);
}

static const char *read_file(const char *name)
{
	static char text[65536];
	char path[128];
	snprintf(path, sizeof path, "%s/%s", folder, name);
	FILE *file = fopen(path, "r");
	assert_non_null(file);
	text[fread(text, 1, sizeof text - 1, file)] = '\0';
	fclose(file);
	return text;
}

/* What stands in for ssh: prints out and err, and ends with status. */
static void play(int status, const char *out, const char *err)
{
	char script[1024];
	write_file("out", out, 0600);
	write_file("err", err, 0600);
	snprintf(script, sizeof script,
	         "#!/bin/sh\nprintf '%%s\\n' \"$@\" >%s/args\n/bin/cat >%s/in\n/bin/cat %s/out\n/bin/cat %s/err "
	         ">&2\nexit %d\n",
	         folder, folder, folder, folder, status);
	write_file("ssh", script, 0700);
}

static struct ssh_request request_of(const char *verb)
{
	return (struct ssh_request){
		.machine = &machine, .verb = verb, .timeout_ms = 20000, .on_answer = on_answer, .arg = &got
	};
}

static void run(const struct ssh_request *request)
{
	unsigned before = got.n;
	assert_int_equal(ssh_start(&box.loop, &box.alarms, request, &call), 0);
	assert_int_equal(got.n, before);
	while (got.n == before)
		driver_box_turn(&box);
	assert_int_equal(got.n, before + 1);
}

static void ask(const char *verb)
{
	struct ssh_request request = request_of(verb);
	run(&request);
}

static void assert_end(enum ssh_end end, const char *why)
{
	if (got.end != end || !strstr(got.why, why))
		fail_msg("%d: \"%s\" is not %d: \"%s\"", got.end, got.why, end, why);
	if (end != SSH_ANSWERED && strstr(got.why, "mill: "))
		fail_msg("\"%s\" names the machine, which its caller does", got.why);
}

static int setup(void **state)
{
	(void)state;
	strcpy(folder, "/tmp/millrace-ssh-XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(key, sizeof key, "file:%s/key", folder);
	write_file("key", "key", 0600);
	machine = (struct machine_settings){ .host = "mill.lan", .user = "millrace", .port = 22, .key = key };
	snprintf(path_before, sizeof path_before, "%s", getenv("PATH"));
	setenv("PATH", folder, 1);
	memset(&got, 0, sizeof got);
	driver_box_open(&box);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	char command[128];
	driver_box_close(&box);
	setenv("PATH", path_before, 1);
	snprintf(command, sizeof command, "rm -r %s", folder);
	return system(command);
}

static void test_how_it_is_called(void **state)
{
	(void)state;
	char known[128];
	snprintf(known, sizeof known, "%s/known %%h", folder);
	machine.known_hosts = known;
	machine.port = 2222;
	play(0, "{\"state\":\"running\"}\n", "");
	struct ssh_request request = request_of("start 0198aa10f3b2 count");
	request.in = "{\"version\":1}";
	request.in_len = strlen(request.in);
	run(&request);
	assert_end(SSH_ANSWERED, "");
	assert_string_equal(got.word, "running");
	assert_string_equal(read_file("in"), "{\"version\":1}");
	const char *args = read_file("args");
	static const char *const wanted[] = { "-oBatchMode=yes\n",
		                              "-F\nnone\n",
		                              "-oStrictHostKeyChecking=yes\n",
		                              "-oIdentitiesOnly=yes\n",
		                              "-oIdentityAgent=none\n",
		                              "-aTx\n",
		                              "/known %%h\"\n",
		                              "/key\"\n",
		                              "-p2222\n-lmillrace\n--\nmill.lan\nstart 0198aa10f3b2 count\n" };
	for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
		if (!strstr(args, wanted[i]))
			fail_msg("\"%s\" is not in %s", wanted[i], args);
}

static void test_what_a_person_must_mend(void **state)
{
	(void)state;
	static const struct {
		enum ssh_end end;
		const char *err, *says;
	} cases[] = {
		{ SSH_REFUSED,
		  "No ED25519 host key is known for mill.lan and you have requested strict checking.\r\n"
		  "Host key verification failed.\r\n",
		  "its host key is not known here; ssh-keyscan -t ed25519 -p 22 mill.lan shows it: where it is that "
		  "of /etc/ssh/ssh_host_ed25519_key.pub on that machine, add it with >> " },
		{ SSH_REFUSED,
		  "@@@@@@@@@@\r\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\r\n@@@@@@@@@@\r\n"
		  "Offending ED25519 key in /k:1\r\nHost key for mill.lan has changed and you have requested strict "
		  "checking.\r\nHost key verification failed.\r\n",
		  "its host key has changed: it was set up anew, or this is another machine. Where ssh-keyscan -t "
		  "ed25519 -p 22 mill.lan shows that of /etc/ssh/ssh_host_ed25519_key.pub on that machine, type: "
		  "ssh-keygen -f " },
		{ SSH_REFUSED,
		  "ED25519 host key for mill.lan was revoked and you have requested strict checking.\r\n"
		  "Host key verification failed.\r\n",
		  "its host key is revoked" },
		{ SSH_REFUSED, "millrace@mill.lan: Permission denied (publickey).\r\n",
		  "/key.pub to that machine, and type there: millrace-worker setup --key key.pub" },
		{ SSH_BLOCKED,
		  "Load key \"/x\": error in libcrypto\r\nmillrace@mill.lan: Permission denied (publickey).\r\n",
		  "/key is no private key, or has a passphrase: ssh-keygen -p -f /tmp/millrace-ssh-" },
		{ SSH_REFUSED,
		  "Unable to negotiate with 10.0.0.2 port 22: no matching host key type found. Their offer: "
		  "ssh-rsa\r\n",
		  "no matching host key type" },
		{ SSH_BLOCKED, "command-line: line 0: Bad configuration option: identityagent\r\n",
		  "Bad configuration option" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		play(255, "", cases[i].err);
		ask("health");
		assert_end(cases[i].end, cases[i].says);
		assert_null(strstr(got.why, "ssh-keygen -t")); /* which would write over what is there */
		assert_null(strstr(got.why, "--agent"));
		assert_true(strlen(got.why) < ERR_MAX - 100); /* longer hosts and paths */
	}
	machine.port = 2222;
	play(255, "", cases[1].err);
	ask("health");
	assert_end(SSH_REFUSED, "-R '[mill.lan]:2222', and add it with >> ");
	machine.known_hosts = (char *)"/etc/millrace/known_hosts";
	ask("health");
	assert_end(SSH_REFUSED, "with >> /etc/millrace/known_hosts");
	machine.known_hosts = NULL;
}

static void test_what_passes(void **state)
{
	(void)state;
	static const char *const cases[] = {
		"ssh: connect to host 10.0.0.2 port 22: Connection refused\r\n",
		"ssh: connect to host 10.0.0.2 port 22: No route to host\r\n",
		"ssh: connect to host 10.0.0.2 port 22: Connection timed out\r\n",
		"ssh: connect to host 10.0.0.2 port 22: Permission denied\r\n", /* a firewall of our own */
		"ssh: Could not resolve hostname mill.lan: Name or service not known\r\n",
		"kex_exchange_identification: Connection closed by remote host\r\n",
		"Connection timed out during banner exchange\r\n",
		"Timeout, server 10.0.0.2 not responding.\r\n",
		"pam: System is booting up. Connection closed by 10.0.0.2 port 22\r\n",
		"Connection to 10.0.0.2 closed by remote host.\r\n",
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		play(255, "", cases[i]);
		ask("status 0198aa10f3b2");
		assert_end(SSH_AWAY, "");
		assert_null(strstr(got.why, "ssh: "));
	}
	play(255, "", "");
	ask("health");
	assert_end(SSH_AWAY, "the connection broke");
	write_file("ssh", "#!/bin/sh\nkill -9 $$\n", 0700);
	ask("health");
	assert_end(SSH_AWAY, "ssh was ended by signal 9");
	write_file("ssh", "#!/bin/sh\nexec /bin/sleep 1000\n", 0700);
	struct ssh_request request = request_of("health");
	request.timeout_ms = 100;
	run(&request);
	assert_end(SSH_AWAY, "no answer within 100ms");
}

static void test_what_the_worker_says(void **state)
{
	(void)state;
	static const int refused[] = { 64, 65, 69, 78 };
	for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
		play(refused[i], "", "millrace-worker: there is no job nojob here\n");
		ask("status 0198aa10f3b2");
		assert_end(SSH_REFUSED, "millrace-worker: there is no job nojob here");
	}
	play(75, "", "millrace-worker: the disk is full\n");
	ask("status 0198aa10f3b2");
	assert_end(SSH_LATER, "the disk is full");
	/* no worker at all, or what is none */
	play(127, "", "bash: line 1: health: command not found\n");
	ask("health");
	assert_end(SSH_REFUSED,
	           "no millrace-worker answers to the user millrace with this key (bash: line 1: health: command");
	play(1, "This account is currently not available.\n", "");
	ask("health");
	assert_end(SSH_REFUSED, "with this key (This account is currently not available.); copy /tmp");
	play(0, "\r\n  Welcome\tto \xc3\xa5ttic \033[1m\xff\nsecond line\n", "");
	ask("health");
	assert_end(SSH_REFUSED, "with this key (Welcome?to \xc3\xa5ttic ?[1m?); copy /tmp");
	static const char much[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	                           "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
	for (int i = 0; i < 2; i++) {
		play(0, i == 0 ? much : "", i == 1 ? much : "");
		ask("health");
		assert_end(SSH_REFUSED, "aaa); copy /tmp");
		assert_int_equal(strspn(strchr(got.why, '(') + 1, "a"), 120);
	}
	play(0, "", "");
	ask("health");
	assert_end(SSH_REFUSED, "with this key; copy /tmp");
	static const char *const nonsense[] = { "", "hello\n", "[1]\n", "{\"a\":1,\"a\":2}", "{} {}" };
	for (size_t i = 0; i < sizeof nonsense / sizeof *nonsense; i++) {
		play(0, nonsense[i], "");
		ask("health");
		assert_end(SSH_REFUSED, "no millrace-worker answers");
	}
	write_file("ssh", "#!/bin/sh\nwhile :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; done\n",
	           0700);
	ask("health");
	assert_end(SSH_REFUSED, "it answers without end");
}

static void test_protocol(void **state)
{
	(void)state;
	play(0, "{\"protocol\":1}\n", "");
	ask("health");
	assert_end(SSH_ANSWERED, "");
	play(0, "{\"protocol\":2}\n", "");
	ask("health");
	assert_end(SSH_REFUSED,
	           "its millrace-worker speaks protocol 2, and this Millrace 1: install a newer Millrace here");
	play(0, "{\"protocol\":0}\n", "");
	ask("health");
	assert_end(SSH_REFUSED, "install a newer millrace-worker there");
}

static void test_log(void **state)
{
	(void)state;
	struct ssh_request request = request_of("log 0198aa10f3b2 0");
	request.log = true;
	play(0, "no JSON\n{", "");
	run(&request);
	assert_end(SSH_ANSWERED, "");
	assert_int_equal(got.log_len, strlen("no JSON\n{"));
	play(0, "", "");
	run(&request);
	assert_end(SSH_ANSWERED, "");
	/* as much as the worker gives at once */
	write_file("ssh", "#!/bin/sh\nexec /bin/dd if=/dev/zero bs=65536 count=4 2>/dev/null\n", 0700);
	run(&request);
	assert_end(SSH_ANSWERED, "");
	assert_int_equal(got.log_len, SSH_LOG_MAX);
}

static void test_key_is_looked_at_first(void **state)
{
	(void)state;
	play(0, "{}", "");
	write_file("key", "key", 0640);
	ask("health");
	assert_end(SSH_BLOCKED, "/key may be read by others; type: chmod 600 /tmp");
	char path[128];
	snprintf(path, sizeof path, "%s/key", folder);
	assert_int_equal(unlink(path), 0);
	ask("health");
	assert_end(SSH_BLOCKED, "/key is not there");
	assert_int_equal(mkdir(path, 0700), 0);
	ask("health");
	assert_end(SSH_BLOCKED, "/key is no file");
	assert_int_equal(rmdir(path), 0);
	snprintf(path, sizeof path, "%s/args", folder);
	assert_int_equal(access(path, F_OK), -1); /* ssh was not called */
	snprintf(key, sizeof key, "file:%s/key.pub", folder);
	for (int i = 0; i < 2; i++) { /* there or not, and whatever its mode */
		ask("health");
		assert_end(SSH_BLOCKED, "/key.pub is the public key; name the private one, which stays here: /tmp");
		assert_string_equal(got.why + strlen(got.why) - 4, "/key");
		assert_null(strstr(got.why, "chmod"));
		write_file("key.pub", "ssh-ed25519 AAAA", 0644);
	}
	assert_int_equal(access(path, F_OK), -1);
	key[strlen(key) - 4] = '\0';
	write_file("key", "key", 0400);
	ask("health");
	assert_end(SSH_ANSWERED, "");
}

static void test_no_ssh(void **state)
{
	(void)state;
	ask("health");
	assert_end(SSH_BLOCKED, "there is no ssh on PATH");
}

static void test_cancel(void **state)
{
	(void)state;
	struct ssh_request request = request_of("health");
	write_file("ssh", "#!/bin/sh\nexec /bin/sleep 1000\n", 0700);
	assert_int_equal(ssh_start(&box.loop, &box.alarms, &request, &call), 0);
	driver_box_turn(&box);
	ssh_cancel(call);
	write_file("key", "key", 0644);
	assert_int_equal(ssh_start(&box.loop, &box.alarms, &request, &call), 0);
	ssh_cancel(call); /* what was to be told soon */
	ssh_cancel(NULL);
	assert_int_equal(got.n, 0);
}

/* The driver on top of it. */

static void drive(int status, const char *out, void (*how)(struct driver *driver))
{
	play(status, out, status ? "millrace-worker: because\n" : "");
	driver_box_call(&box, how);
}

static void use_driver(char **settings)
{
	box.run.settings = settings;
	box.run.machine = &machine;
	box.run.machine_name = "mill";
	driver_box_renew(&box, &driver_ssh);
}

#define RUN "{\"run\":\"0198aa10f3b2c4d5e6f708192a3b4c5d\","

static void test_states_of_a_run(void **state)
{
	(void)state;
	char *settings = NULL;
	static const struct {
		const char *answer;
		enum driver_state state;
		int exit;
		const char *why;
	} cases[] = {
		{ RUN "\"state\":\"running\",\"exit\":null}", DRIVER_RUNNING, -1, "" },
		{ RUN "\"state\":\"done\",\"exit\":0}", DRIVER_DONE, 0, "" },
		{ RUN "\"state\":\"failed\",\"exit\":3}", DRIVER_FAILED, 3, "the job failed, exit 3" },
		{ RUN "\"state\":\"cancelled\",\"exit\":143}", DRIVER_FAILED, 143, "it was cancelled there, exit 143" },
		{ RUN "\"state\":\"lost\",\"exit\":null}", DRIVER_FAILED, -1, "it vanished without an end" },
		{ RUN "\"state\":\"unknown\",\"exit\":null}", DRIVER_UNKNOWN, -1, "no such run" },
		{ RUN "\"state\":\"dreaming\"}", DRIVER_REFUSED, -1, "mill: its millrace-worker tells a state" },
		{ RUN "\"x\":0}", DRIVER_REFUSED, -1, "mill: its millrace-worker tells a state" },
		{ "{\"run\":\"0198aa10f3b2\",\"state\":\"done\"}", DRIVER_REFUSED, -1,
		  "mill: its millrace-worker answers of another run" },
		{ "{\"state\":\"done\"}", DRIVER_REFUSED, -1, "mill: its millrace-worker answers of another run" },
		{ "hello", DRIVER_REFUSED, -1, "mill: no millrace-worker answers" },
	};
	use_driver(&settings);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		drive(0, cases[i].answer, box.driver->ops->ask);
		assert_int_equal(box.state, cases[i].state);
		assert_int_equal(box.exit, cases[i].exit);
		assert_memory_equal(box.why, cases[i].why, strlen(cases[i].why));
		assert_int_equal(!*box.why, !*cases[i].why);
	}
	assert_non_null(strstr(read_file("args"), "\nstatus 0198aa10f3b2c4d5e6f708192a3b4c5d\n"));
	assert_string_equal(read_file("in"), "");
	driver_box_renew(&box, &driver_ssh);
}

static void test_driver(void **state)
{
	(void)state;
	char *settings = NULL;
	use_driver(&settings);
	drive(75, "", box.driver->ops->ask);
	assert_int_equal(box.state, DRIVER_AWAY);
	drive(69, "", box.driver->ops->start);
	assert_int_equal(box.state, DRIVER_REFUSED);
	assert_string_equal(box.why, "mill: millrace-worker: because");
	drive(0, RUN "\"state\":\"running\"}", box.driver->ops->start);
	assert_int_equal(box.state, DRIVER_RUNNING);
	assert_non_null(strstr(read_file("args"), "\nstart 0198aa10f3b2c4d5e6f708192a3b4c5d parking\n"));
	assert_string_equal(read_file("in"), "{\"version\":1}");
	settings = (char *)"count";
	assert_int_equal(driver_ssh.options[0].check(settings, NULL), 0);
	assert_int_equal(driver_ssh.options[0].check("count x", NULL), -EINVAL);
	drive(0, RUN "\"state\":\"running\"}", box.driver->ops->start);
	assert_non_null(strstr(read_file("args"), "\nstart 0198aa10f3b2c4d5e6f708192a3b4c5d count\n"));
	drive(0, RUN "\"state\":\"cancelled\",\"exit\":null}", box.driver->ops->cancel);
	assert_int_equal(box.state, DRIVER_FAILED);
	assert_non_null(strstr(read_file("args"), "\ncancel 0198aa10f3b2c4d5e6f708192a3b4c5d\n"));
	play(0, "the log\n", "");
	box.driver->ops->log(box.driver, 712);
	driver_box_wait(&box);
	assert_true(box.has_log);
	assert_string_equal(box.log, "the log\n");
	assert_non_null(strstr(read_file("args"), "\nlog 0198aa10f3b2c4d5e6f708192a3b4c5d 712\n"));
	play(75, "", "");
	box.driver->ops->log(box.driver, 712);
	driver_box_wait(&box);
	assert_false(box.has_log);
	assert_int_equal(box.state, DRIVER_AWAY);
	/* freed while a call is under way */
	box.driver->ops->ask(box.driver);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_how_it_is_called),
		TEST(test_what_a_person_must_mend),
		TEST(test_what_passes),
		TEST(test_what_the_worker_says),
		TEST(test_protocol),
		TEST(test_log),
		TEST(test_key_is_looked_at_first),
		TEST(test_no_ssh),
		TEST(test_cancel),
		TEST(test_states_of_a_run),
		TEST(test_states_of_a_run),
		TEST(test_driver),
	};
	alarm(60); /* a hang fails */
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
