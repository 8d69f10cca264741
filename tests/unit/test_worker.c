/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>
#include <unistd.h>

#include "base/container.h"
#include "base/worker.h"

#define JOBS 200

static uv_loop_t loop;
static struct worker *worker;
static uv_thread_t loop_thread;
static char order[2 * JOBS + 1]; /* what happened, on the loop's thread */
static int closed;
static uv_sem_t begun, go_on;

struct task {
	struct job job;
	char letter;
	bool worked;
	bool on_other_thread;
	int again; /* submit it this often from done */
	bool owned;
};

static void note(char letter)
{
	order[strlen(order)] = letter;
}

static void work(struct job *job)
{
	struct task *task = container_of(job, struct task, job);
	uv_thread_t self = uv_thread_self();
	task->worked = true;
	task->on_other_thread = !uv_thread_equal(&self, &loop_thread);
}

static void work_until_told(struct job *job)
{
	uv_sem_post(&begun);
	uv_sem_wait(&go_on);
	work(job);
}

static void done(struct job *job)
{
	struct task *task = container_of(job, struct task, job);
	uv_thread_t self = uv_thread_self();
	assert_true(uv_thread_equal(&self, &loop_thread));
	assert_int_equal(task->worked, !worker_closing(worker));
	note(worker_closing(worker) ? '-' : '+');
	note(task->letter);
	if (task->again > 0) {
		task->again--;
		worker_submit(worker, job);
	} else if (task->owned) {
		free(task);
	}
}

static void on_closed(void *arg)
{
	assert_ptr_equal(arg, &loop);
	closed++;
}

static int setup(void **state)
{
	(void)state;
	memset(order, 0, sizeof order);
	closed = 0;
	loop_thread = uv_thread_self();
	uv_sem_init(&begun, 0);
	uv_sem_init(&go_on, 0);
	assert_int_equal(uv_loop_init(&loop), 0);
	assert_int_equal(worker_start(&loop, "a-name-that-is-far-too-long", &worker), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(closed, 1);
	assert_int_equal(uv_loop_close(&loop), 0);
	uv_sem_destroy(&begun);
	uv_sem_destroy(&go_on);
	return 0;
}

static void run_until_idle(void)
{
	while (!worker_idle(worker))
		uv_run(&loop, UV_RUN_ONCE);
}

static void test_works_in_order_on_its_own_thread(void **state)
{
	(void)state;
	static struct task tasks[JOBS];
	memset(tasks, 0, sizeof tasks);
	assert_true(worker_idle(worker));
	for (int i = 0; i < JOBS; i++) {
		tasks[i] = (struct task){ .job = { .work = work, .done = done }, .letter = (char)('a' + i % 26) };
		worker_submit(worker, &tasks[i].job);
		assert_false(worker_idle(worker));
	}
	run_until_idle();
	for (int i = 0; i < JOBS; i++) {
		assert_true(tasks[i].on_other_thread);
		assert_int_equal(order[2 * i], '+');
		assert_int_equal(order[2 * i + 1], 'a' + i % 26);
	}
	worker_close(worker, on_closed, &loop);
}

static void test_done_may_submit_and_free(void **state)
{
	(void)state;
	struct task *task = calloc(1, sizeof *task);
	*task = (struct task){ .job = { .work = work, .done = done }, .letter = 'x', .again = 2, .owned = true };
	worker_submit(worker, &task->job);
	run_until_idle();
	assert_string_equal(order, "+x+x+x");
	worker_close(worker, on_closed, &loop);
}

static void test_close_waits_for_the_running_and_gives_back_the_rest(void **state)
{
	(void)state;
	struct task a = { .job = { .work = work_until_told, .done = done }, .letter = 'a' };
	struct task b = { .job = { .work = work, .done = done }, .letter = 'b', .again = 1 };
	struct task c = { .job = { .work = work, .done = done }, .letter = 'c' };
	worker_submit(worker, &a.job);
	worker_submit(worker, &b.job);
	worker_submit(worker, &c.job);
	uv_sem_wait(&begun);
	worker_close(worker, on_closed, &loop);
	assert_string_equal(order, ""); /* nothing from within */
	uv_run(&loop, UV_RUN_NOWAIT);
	assert_int_equal(closed, 0);
	uv_sem_post(&go_on);
	uv_run(&loop, UV_RUN_DEFAULT);
	/* What done submits during the close comes back as well. */
	assert_string_equal(order, "+a-b-c-b");
	assert_false(b.worked || c.worked);
}

static void close_in_done(struct job *job)
{
	done(job);
	worker_close(worker, on_closed, &loop);
}

static void test_close_from_done(void **state)
{
	(void)state;
	struct task a = { .job = { .work = work_until_told, .done = close_in_done }, .letter = 'a' };
	struct task b = { .job = { .work = work_until_told, .done = done }, .letter = 'b' };
	uv_sem_post(&go_on);
	uv_sem_post(&go_on);
	worker_submit(worker, &a.job);
	worker_submit(worker, &b.job);
	uv_sem_wait(&begun);
	uv_sem_wait(&begun); /* b has begun: it must be done as worked, although a closes */
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_string_equal(order, "+a+b");
}

static void test_closes_when_it_never_worked(void **state)
{
	(void)state;
	worker_close(worker, on_closed, &loop);
}

static void work_name(struct job *job)
{
	char name[16];
	struct task *task = container_of(job, struct task, job);
	task->worked =
	        pthread_getname_np(pthread_self(), name, sizeof name) == 0 && strcmp(name, "a-name-that-is-") == 0;
}

static void test_thread_has_the_name(void **state)
{
	(void)state;
	struct task task = { .job = { .work = work_name, .done = done }, .letter = 'n' };
	worker_submit(worker, &task.job);
	run_until_idle();
	assert_true(task.worked);
	worker_close(worker, on_closed, &loop);
}

int main(void)
{
	alarm(60); /* a hang fails */
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_works_in_order_on_its_own_thread),
		TEST(test_done_may_submit_and_free),
		TEST(test_close_waits_for_the_running_and_gives_back_the_rest),
		TEST(test_close_from_done),
		TEST(test_closes_when_it_never_worked),
		TEST(test_thread_has_the_name),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
