/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mill on a real buffer, worker and loop. Time, the stores and what jobs run on are the test's: each step waits for
 * no more than what is under way, and for that not for ever.
 */
#include <jansson.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include "base/clock.h"
#include "base/container.h"
#include "base/random.h"
#include "buffer/ledger.h"
#include "buffer/queue_private.h"
#include "mill/mill_private.h"
#include "tests/unit/broken_card.h"
#include "tests/unit/queue_box.h"

#define SECOND  INT64_C(1000)
#define HOUR    (60 * MINUTE)
#define HANG_MS 30000 /* real ones; longer than anything that is under way here may take */
#define ID_MAX  (LEDGER_RUN + 16)
#define DEFAULT (-1)

/* --- Time: this stands before libc's --- */

static _Atomic int64_t mono_ms, wall_ms;

int clock_gettime(clockid_t id, struct timespec *time)
{
	int64_t ms = id == CLOCK_REALTIME ? wall_ms : mono_ms;

	*time = (struct timespec){ .tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000 * 1000000) };
	return 0;
}

/* --- The world --- */

/* What the mill has put into a store, or is putting. */
struct put_seen {
	char store[UNITS_NAME_MAX], key[OBJECT_KEY_MAX];
	struct bytes data;
	struct mill *mill;
	void *token;
	bool ended, cancelled;
	int status;
};

/* A run where the jobs run, by the id that it has there. */
struct there {
	char id[ID_MAX], job[UNITS_NAME_MAX], place[OBJECT_KEY_MAX];
	bool exists;
	enum driver_state state;
	unsigned starts, asks, cancels;
	struct bytes manifest;
};

struct said {
	char event[32], text[ERR_MAX + 256];
	bool bad;
};

static struct world {
	struct put_seen puts[64];
	size_t n_puts;
	bool hold_puts;
	unsigned put_fails; /* so many fail */

	unsigned flushes;
	bool flushing, hold_flush;

	struct there there[32];
	size_t n_there;
	unsigned starts, asks, logs, cancels, drivers;
	unsigned again;                  /* starts of what was started already */
	unsigned checked;                /* starts that were found in the ledger */
	int on_start, on_ask, on_cancel; /* what is answered; DEFAULT: what is so */
	bool start_is_lost;              /* one that is answered with AWAY never got there */
	bool refused_begins;             /* one that is answered with REFUSED did */
	bool hold_driver;                /* calls do not end */
	unsigned asks_to_end;            /* of each; 0: the test ends them */
	enum driver_state ends;          /* how */
	const char *log;                 /* NULL: it cannot be had */
	size_t log_piece;                /* bytes that are told of it at a time */
	const char *remote;              /* they are known there by this alone; NULL: by our id */
	bool noted_first;                /* whatever was asked by `remote` was in the ledger by then */

	struct said said[256];
	size_t n_said;

	char keys[64][OBJECT_KEY_MAX]; /* of what was delivered */
	size_t n_keys;
	unsigned closing; /* mills */
} world;

static struct box *box;
static uv_loop_t loop;
static struct worker *worker;
static struct alarms alarms;
static struct mill *mill;

static struct mill_job jobs[4];
static struct when whens[4];
static struct mill_machine machine;
static struct machine_settings settings;
static char woken[160]; /* the file that a wake leaves */
static size_t n_jobs, n_machines;

/* --- The machine's port --- */

static int reserve = -1, listener = -1;

static int bind_port(uint16_t *port)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
		                       .sin_addr = { htonl(INADDR_LOOPBACK) },
		                       .sin_port = htons(*port) };
	socklen_t len = sizeof address;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), yes = 1;

	assert_true(fd >= 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &yes, sizeof yes), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
	*port = ntohs(address.sin_port);
	return fd;
}

/* Bound and not listened to it answers nobody, and is nobody else's. */
static void make_port(void)
{
	uint16_t port = 0;

	reserve = bind_port(&port);
	settings.ready_port = port;
}

static void open_port(void)
{
	uint16_t port = (uint16_t)settings.ready_port;

	listener = bind_port(&port);
	assert_int_equal(listen(listener, 64), 0);
}

static void close_port(void)
{
	if (listener >= 0)
		close(listener);
	listener = -1;
}

static void drain_port(void)
{
	for (int fd; listener >= 0 && (fd = accept(listener, NULL, NULL)) >= 0;)
		close(fd);
}

/* --- What the mill asks of its daemon --- */

static void on_flush(void *arg)
{
	assert_ptr_equal(arg, &world);
	world.flushes++;
	world.flushing = true;
}

static int on_put(void *arg, const char *store, const char *key, const struct bytes *data, void *token)
{
	struct put_seen *put = &world.puts[world.n_puts++];

	assert_ptr_equal(arg, &world);
	assert_true(world.n_puts <= sizeof world.puts / sizeof *world.puts);
	*put = (struct put_seen){ .mill = mill, .token = token };
	snprintf(put->store, sizeof put->store, "%s", store);
	snprintf(put->key, sizeof put->key, "%s", key);
	bytes_init(&put->data, data->len);
	assert_int_equal(bytes_add(&put->data, data->data, data->len), 0);
	if (world.put_fails > 0) {
		world.put_fails--;
		put->status = -EIO;
	}
	return 0;
}

static void on_say(void *arg, const char *event, const char *text, bool bad)
{
	struct said *said = &world.said[world.n_said++];

	assert_ptr_equal(arg, &world);
	assert_true(world.n_said <= sizeof world.said / sizeof *world.said);
	snprintf(said->event, sizeof said->event, "%s", event);
	snprintf(said->text, sizeof said->text, "%s", text);
	said->bad = bad;
}

static struct put_seen *find_put_to_end(void)
{
	for (size_t i = 0; i < world.n_puts; i++) {
		struct put_seen *put = &world.puts[i];

		if (!put->ended && (put->cancelled || !world.hold_puts))
			return put;
	}
	return NULL;
}

static void end_put(struct put_seen *put)
{
	struct err err = { "the store is away" };

	put->ended = true;
	if (put->cancelled)
		put->status = -ECANCELED;
	mill_on_put(put->mill, put->token, put->status, put->status < 0 ? &err : NULL);
}

/* --- Steps --- */

static bool is_due(void)
{
	return alarms_next(&alarms) <= mono_ms;
}

static bool has_work(void)
{
	return is_due() || find_put_to_end() || (world.flushing && !world.hold_flush);
}

/* Nothing goes on by itself: but for what the test holds up, time alone brings more. */
static bool is_quiet(void)
{
	bool quiet = !has_work() && worker_idle(worker) && (world.closing == 0 || world.hold_puts);

	for (size_t i = 0; quiet && mill && i < mill->n_stands; i++)
		quiet = stand_is_idle(mill->stands[i]);
	return quiet;
}

static void run_loop(void)
{
	struct pollfd fd = { .fd = uv_backend_fd(&loop), .events = POLLIN };

	drain_port();
	uv_run(&loop, UV_RUN_NOWAIT);
	if (has_work() || is_quiet() || uv_backend_timeout(&loop) == 0)
		return;
	if (poll(&fd, 1, HANG_MS) == 0)
		fail_msg("something is under way, and does not end");
	uv_run(&loop, UV_RUN_NOWAIT);
}

/* The smallest piece in which things go on. */
static void turn(void)
{
	if (is_due()) {
		alarms_ring(&alarms, mono_ms);
	} else if (find_put_to_end()) {
		end_put(find_put_to_end());
	} else if (world.flushing && !world.hold_flush) {
		world.flushing = false;
		if (mill)
			mill_on_flushed(mill);
	} else {
		run_loop();
	}
}

/* Until so many of them were seen. */
static void turn_until(const unsigned *count, unsigned n)
{
	for (int i = 0; *count < n; i++) {
		assert_true(i < 10000);
		turn();
	}
}

static void settle(void)
{
	for (int i = 0; !is_quiet(); i++) {
		assert_true(i < 10000);
		turn();
	}
	if (mill && !world.hold_puts && !world.hold_flush && !world.hold_driver)
		assert_true(mill_idle(mill));
}

static void pass(int64_t by_ms)
{
	int64_t until_ms = mono_ms + by_ms;

	settle();
	for (int i = 0; mono_ms < until_ms; i++) {
		int64_t next_ms = alarms_next(&alarms) < until_ms ? alarms_next(&alarms) : until_ms;

		assert_true(i < 100000);
		wall_ms += next_ms - mono_ms;
		mono_ms = next_ms;
		settle();
	}
}

/* --- Where the jobs run --- */

struct fake {
	struct driver driver;
	char remote[LEDGER_REMOTE];
	struct bytes tail;
};

static struct there *find_there(const char *id)
{
	for (size_t i = 0; i < world.n_there; i++)
		if (strcmp(world.there[i].id, id) == 0)
			return &world.there[i];
	return NULL;
}

static struct there *add_there(const struct driver_run *run)
{
	struct there *t = find_there(run->id);

	if (t)
		return t;
	assert_null(run->remote); /* an attempt has its own */
	t = &world.there[world.n_there++];
	assert_true(world.n_there <= sizeof world.there / sizeof *world.there);
	snprintf(t->id, sizeof t->id, "%s", run->id);
	snprintf(t->job, sizeof t->job, "%s", run->job);
	snprintf(t->place, sizeof t->place, "%s", run->manifest_place);
	bytes_init(&t->manifest, MANIFEST_MAX);
	assert_int_equal(bytes_add(&t->manifest, run->manifest, run->manifest_len), 0);
	return t;
}

static struct ledger_run find_run(const char *id)
{
	struct ledger_run run;
	char own[LEDGER_RUN];

	snprintf(own, sizeof own, "%.*s", LEDGER_RUN - 1, id);
	assert_true(worker_idle(worker));
	if (ledger_find_run(box->q, own, &run, &box->err) < 0)
		fail_msg("%s", box->err.text);
	return run;
}

static void hash_of(const struct bytes *data, uint8_t ret_sha256[SHA256_SIZE])
{
	struct sha256 hash;

	sha256_init(&hash);
	sha256_add(&hash, data->data, data->len);
	sha256_finish(&hash, ret_sha256);
}

/* Whether this very object is in the store. */
static bool is_put(const char *key, const struct bytes *data)
{
	const struct put_seen *found = NULL;

	for (size_t i = 0; i < world.n_puts; i++)
		if (world.puts[i].ended && world.puts[i].status == 0 && strcmp(world.puts[i].key, key) == 0)
			found = &world.puts[i];
	return found && found->data.len == data->len && memcmp(found->data.data, data->data, data->len) == 0;
}

/* Nothing is started whose manifest is not in the store, and which the ledger does not know as started. */
static void check_start(const struct driver_run *run)
{
	struct there *t = add_there(run);
	uint8_t sha256[SHA256_SIZE];
	struct ledger_run row;
	char id[ID_MAX];

	assert_int_equal(run->manifest_len, t->manifest.len);
	assert_memory_equal(run->manifest, t->manifest.data, run->manifest_len);
	assert_true(is_put(run->manifest_place, &t->manifest));
	if (!worker_idle(worker))
		return;
	row = find_run(run->id);
	assert_int_equal(row.state, LEDGER_STARTED);
	hash_of(&t->manifest, sha256);
	assert_memory_equal(row.manifest, sha256, sizeof sha256);
	if (row.attempt > 1)
		snprintf(id, sizeof id, "%s-%u", row.id, row.attempt);
	else
		snprintf(id, sizeof id, "%s", row.id);
	assert_string_equal(run->id, id);
	assert_string_equal(run->job, row.job);
	world.checked++;
}

static void answer(struct fake *f, int state)
{
	static const char *const whys[] = { [DRIVER_FAILED] = "exit 3",
		                            [DRIVER_UNKNOWN] = "no such run is known there",
		                            [DRIVER_AWAY] = "it does not answer",
		                            [DRIVER_REFUSED] = "its key is refused" };
	struct err err;

	if (world.hold_driver)
		return;
	if (state == DRIVER_RUNNING || state == DRIVER_DONE) {
		driver_tell_soon(&f->driver, (enum driver_state)state, -1, NULL);
		return;
	}
	err_fail(&err, 0, "%s", whys[state]);
	driver_tell_soon(&f->driver, (enum driver_state)state, -1, &err);
}

static struct fake *fake_of(struct driver *driver)
{
	return container_of(driver, struct fake, driver);
}

static int fake_new(const struct driver_env *env, const struct driver_run *run, struct driver **ret_driver);

static void fake_start(struct driver *driver)
{
	struct fake *f = fake_of(driver);
	struct there *t;
	int state = world.on_start == DEFAULT ? DRIVER_RUNNING : world.on_start;

	check_start(&driver->run);
	t = find_there(driver->run.id);
	world.starts++;
	t->starts++;
	world.again += t->exists;
	if (state == DRIVER_RUNNING || state == DRIVER_DONE || (state == DRIVER_AWAY && !world.start_is_lost) ||
	    (state == DRIVER_REFUSED && world.refused_begins)) {
		t->exists = true;
		t->state = state == DRIVER_DONE ? DRIVER_DONE : DRIVER_RUNNING;
	}
	answer(f, state);
	if (world.remote && state == DRIVER_RUNNING) {
		snprintf(f->remote, sizeof f->remote, "%s", world.remote);
		driver->known.remote = f->remote;
	}
}

/* By what the run goes there; NULL: it is not known. */
static struct there *find_asked(struct fake *f)
{
	struct there *t = find_there(f->driver.run.id);

	if (!t || !t->exists || (world.remote && strcmp(f->remote, world.remote) != 0))
		return NULL;
	if (world.remote && worker_idle(worker) && strcmp(find_run(t->id).remote, world.remote) != 0)
		world.noted_first = false;
	return t;
}

static void fake_ask(struct driver *driver)
{
	struct fake *f = fake_of(driver);
	struct there *t = find_asked(f);
	int state = t ? (int)t->state : DRIVER_UNKNOWN;

	world.asks++;
	if (t && ++t->asks == world.asks_to_end)
		state = (int)(t->state = world.ends);
	answer(f, world.on_ask == DEFAULT ? state : world.on_ask);
}

/* In pieces. */
static void fake_log(struct driver *driver, uint64_t offset)
{
	struct fake *f = fake_of(driver);
	size_t len = world.log ? strlen(world.log) : 0;

	world.logs++;
	assert_true(offset <= len);
	answer(f, world.log ? DRIVER_RUNNING : DRIVER_AWAY);
	if (!world.log)
		return;
	len -= (size_t)offset;
	f->tail = (struct bytes){ .data = (unsigned char *)world.log + offset,
		                  .len = len < world.log_piece ? len : world.log_piece };
	driver->known.log = &f->tail;
}

static void fake_cancel(struct driver *driver)
{
	struct fake *f = fake_of(driver);
	struct there *t = find_asked(f);
	int state = world.on_cancel;

	world.cancels++;
	if (t)
		t->cancels++;
	if (state == DEFAULT && t && t->state == DRIVER_RUNNING)
		t->state = DRIVER_FAILED;
	if (state == DEFAULT)
		state = t ? (int)t->state : DRIVER_UNKNOWN;
	answer(f, state);
}

static void fake_free(struct driver *driver)
{
	world.drivers--;
	driver_done(driver);
	free(fake_of(driver));
}

static const struct driver_ops fake = {
	.kind = "fake",
	.of_machine = true,
	.new = fake_new,
	.start = fake_start,
	.ask = fake_ask,
	.log = fake_log,
	.cancel = fake_cancel,
	.free = fake_free,
};

static int fake_new(const struct driver_env *env, const struct driver_run *run, struct driver **ret_driver)
{
	struct fake *f = calloc(1, sizeof *f);

	assert_non_null(f);
	driver_init(&f->driver, &fake, env, run);
	snprintf(f->remote, sizeof f->remote, "%s", run->remote ? run->remote : "");
	world.drivers++;
	*ret_driver = &f->driver;
	return 0;
}

/* --- Beginning and ending --- */

static const struct driver_ops *fake_ops = &fake;
static const char *this_device = "pi-01";

static void add_job(const char *name, const char *when)
{
	struct mill_job *job = &jobs[n_jobs];

	if (when_parse(when, &whens[n_jobs], &box->err) < 0)
		fail_msg("%s", box->err.text);
	*job = (struct mill_job){
		.name = name,
		.driver = fake_ops,
		.settings = &settings,
		.store = "lake",
		.there = { .kind = "s3", .endpoint = "http://minio:9000", .bucket = "lake", .prefix = "pi" },
		.when = &whens[n_jobs++],
		.timeout_ms = 7 * DAY,
		.retries = 2,
	};
}

static void add_machine(void)
{
	n_machines = 1;
	for (size_t i = 0; i < n_jobs; i++)
		jobs[i].machine = "mill";
}

/* All of them take what comes from "a" and from _polls; "after" is for what comes from nowhere. */
static void tell_jobs(struct queue *queue)
{
	static const char *const sources[] = { "a", "_polls" }, *const none[] = { "nowhere" };
	struct ledger_job told[4];

	for (size_t i = 0; i < n_jobs; i++) {
		bool after = whens[i].conditions[0].kind == WHEN_AFTER;

		told[i] = (struct ledger_job){ jobs[i].name, jobs[i].store, after ? none : sources, after ? 1 : 2 };
	}
	assert_int_equal(ledger_configure(queue, told, n_jobs, &box->err), 0);
}

static struct mill *new_mill(void)
{
	const struct mill_env env = {
		.driver = { .loop = &loop, .alarms = &alarms },
		.queue = box->q,
		.worker = worker,
		.device = this_device,
		.flush = on_flush,
		.put = on_put,
		.say = on_say,
		.arg = &world,
	};
	struct mill *m = mill_new(&env, &machine, n_machines, jobs, n_jobs);

	assert_non_null(m);
	return m;
}

static void begin(void)
{
	tell_jobs(box->q);
	mill = new_mill();
	settle();
}

static void on_closed(void *arg)
{
	assert_ptr_equal(arg, &world);
	world.closing--;
}

/* As the daemon does it: what is being put is given up. */
static void close_mill(struct mill *m)
{
	for (size_t i = 0; i < world.n_puts; i++)
		if (world.puts[i].mill == m && !world.puts[i].ended)
			world.puts[i].cancelled = true;
	world.closing++;
	mill_close(m, on_closed, &world);
}

static void end(void)
{
	struct mill *was = mill;

	mill = NULL;
	world.flushing = false;
	close_mill(was);
	for (int i = 0; world.closing > 0; i++) {
		assert_true(i < 10000);
		turn();
	}
	assert_int_equal(world.drivers, 0);
	assert_int_equal(alarms_next(&alarms), ALARM_NEVER);
}

/* As a new configuration: the next one begins before the one before has ended. */
static void reload(void)
{
	struct mill *was = mill;

	mill = new_mill();
	close_mill(was);
	settle();
	assert_int_equal(world.closing, 0);
}

static void start_again(void)
{
	end();
	begin();
}

static void set_up_world(void)
{
	world = (struct world){ .on_start = DEFAULT,
		                .on_ask = DEFAULT,
		                .on_cancel = DEFAULT,
		                .ends = DRIVER_DONE,
		                .log = "a line\nand another line\n",
		                .log_piece = 7,
		                .noted_first = true };
	alarms = (struct alarms){ NULL };
	n_jobs = n_machines = 0;
	snprintf(woken, sizeof woken, "touch %s/woken", box->folder);
	settings = (struct machine_settings){ .wake = MACHINE_EXEC,
		                              .command = woken,
		                              .host = "127.0.0.1",
		                              .ready = MACHINE_TCP,
		                              .ready_timeout_ms = 3 * MINUTE,
		                              .idle_ms = 10 * MINUTE,
		                              .wakes_per_day = 12,
		                              .watts = 90 };
	machine = (struct mill_machine){ .name = "mill", .settings = &settings };
}

static int set_up(void **state)
{
	card_errno = 0;
	mono_ms = 5 * MINUTE;
	wall_ms = NOON;
	box_set_up(state);
	box = *state;
	sqlite3_exec(box->q->db, "PRAGMA synchronous = OFF", NULL, NULL, NULL);
	box_route(box, 2, INT64_C(8) << 20, 1000);
	set_up_world();
	assert_int_equal(uv_loop_init(&loop), 0);
	assert_int_equal(worker_start(&loop, "test", &worker), 0);
	make_port();
	return 0;
}

static void on_worker_closed(void *arg)
{
	(void)arg;
	worker = NULL;
}

static int tear_down(void **state)
{
	if (mill)
		end();
	worker_close(worker, on_worker_closed, NULL);
	for (int i = 0; uv_loop_alive(&loop); i++) {
		struct pollfd fd = { .fd = uv_backend_fd(&loop), .events = POLLIN };

		assert_true(i < 1000);
		if (uv_backend_timeout(&loop) != 0)
			assert_int_not_equal(poll(&fd, 1, HANG_MS), 0);
		uv_run(&loop, UV_RUN_NOWAIT);
	}
	assert_int_equal(uv_loop_close(&loop), 0);
	for (size_t i = 0; i < world.n_puts; i++)
		bytes_done(&world.puts[i].data);
	for (size_t i = 0; i < world.n_there; i++)
		bytes_done(&world.there[i].manifest);
	close_port();
	close(reserve);
	return box_tear_down(state);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

/* --- What happens, and what came of it --- */

/* A batch of that source is in the store now; the mill is not told yet. */
static void deliver(const char *source, const char *store)
{
	bool done;

	box_add(box, source, wall_ms - NOON, 9);
	assert_int_equal(box_seal(box, wall_ms - NOON, true), 1);
	assert_int_equal(queue_delivered(box->q, box->batch.id, store, wall_ms, &done, &box->err), 0);
	snprintf(world.keys[world.n_keys++], OBJECT_KEY_MAX, "%s", box->batch.key);
	assert_true(world.n_keys <= sizeof world.keys / sizeof *world.keys);
}

static void bring_quietly(const char *source, const char *store)
{
	assert_true(worker_idle(worker));
	deliver(source, store);
}

static void bring(const char *source)
{
	bring_quietly(source, "lake");
	mill_nudge(mill);
	settle();
}

/* All runs, the newest first; how many. */
static size_t list_runs(struct ledger_run ret_runs[32])
{
	int n;

	assert_true(worker_idle(worker));
	n = ledger_runs(box->q, NULL, ret_runs, 32, &box->err);
	assert_in_range(n, 0, 31);
	return (size_t)n;
}

static size_t count_runs(void)
{
	struct ledger_run runs[32];

	return list_runs(runs);
}

/* The newest one of a job. */
static struct ledger_run run_of(const char *job)
{
	struct ledger_run runs[32];
	size_t n = list_runs(runs);

	for (size_t i = 0; i < n; i++)
		if (strcmp(runs[i].job, job) == 0)
			return runs[i];
	fail_msg("%s has no run", job);
	return runs[0];
}

static int count_objects(const struct ledger_run *run)
{
	struct ledger_object objects[64];

	return ledger_objects(box->q, run->id, 0, objects, 64, &box->err);
}

static struct ledger_run assert_run(const char *job, enum ledger_state state)
{
	struct ledger_run run = run_of(job);

	if (run.state != state)
		fail_msg("run of %s: state %d, not %d, attempt %u: %s", job, run.state, state, run.attempt, run.reason);
	return run;
}

static unsigned count_said(const char *event)
{
	unsigned n = 0;

	for (size_t i = 0; i < world.n_said; i++)
		n += strcmp(world.said[i].event, event) == 0;
	return n;
}

static const struct said *find_said(const char *event)
{
	for (size_t i = world.n_said; i > 0; i--)
		if (strcmp(world.said[i - 1].event, event) == 0)
			return &world.said[i - 1];
	fail_msg("nobody was told of %s", event);
	return NULL;
}

static struct put_seen *last_put(void)
{
	assert_true(world.n_puts > 0);
	return &world.puts[world.n_puts - 1];
}

static void assert_key(const struct put_seen *put, const struct ledger_run *run, const char *name)
{
	char key[OBJECT_KEY_MAX];

	snprintf(key, sizeof key, "_runs/%s/%s/%s", run->job, run->id, name);
	assert_string_equal(put->key, key);
	assert_string_equal(put->store, run->store);
}

/* The job's, of this moment. */
static struct mill_job_view view_job(const char *job)
{
	static struct ledger_run run;
	static char texts[2][ERR_MAX];
	struct mill_view *view = mill_view(mill);
	struct mill_job_view found = { .name = NULL };

	assert_non_null(view);
	assert_int_equal(view->n_jobs, n_jobs);
	for (size_t i = 0; i < view->n_jobs; i++)
		if (strcmp(view->jobs[i].name, job) == 0)
			found = view->jobs[i];
	assert_non_null(found.name);
	if (found.run) {
		run = *found.run;
		found.run = &run;
	}
	snprintf(texts[0], sizeof texts[0], "%s", found.last_parked);
	snprintf(texts[1], sizeof texts[1], "%s", found.waits_for);
	found.last_parked = texts[0];
	found.waits_for = texts[1];
	mill_view_free(view);
	return found;
}

static void assert_waits_for(const char *job, const char *text, bool trouble)
{
	struct mill_job_view view = view_job(job);

	if (*text ? !strstr(view.waits_for, text) : *view.waits_for != '\0')
		fail_msg("%s waits for \"%s\", not for \"%s\"", job, view.waits_for, text);
	assert_int_equal(view.trouble, trouble);
}

/* How a run ends there; the mill sees it with its next question. */
static void end_there(const char *id, enum driver_state state)
{
	struct there *t = find_there(id);

	assert_non_null(t);
	assert_true(t->exists);
	t->state = state;
	pass(5 * SECOND);
}

static void unpack_gzip(const struct bytes *packed, char *ret_text, size_t size)
{
	z_stream z = { .next_in = packed->data, .avail_in = (uInt)packed->len };

	assert_int_equal(inflateInit2(&z, 15 + 16), Z_OK);
	z.next_out = (unsigned char *)ret_text;
	z.avail_out = (uInt)size - 1;
	assert_int_equal(inflate(&z, Z_FINISH), Z_STREAM_END);
	assert_int_equal(z.avail_in, 0);
	ret_text[size - 1 - z.avail_out] = '\0';
	inflateEnd(&z);
}

/* The manifest lists these deliveries, and no others. */
static void assert_lists(const struct bytes *manifest, const struct ledger_run *run, size_t first, size_t n)
{
	json_t *root = json_loadb((const char *)manifest->data, manifest->len, 0, NULL), *objects;
	char key[OBJECT_KEY_MAX + 8];

	assert_non_null(root);
	assert_string_equal(json_string_value(json_object_get(root, "run")), run->id);
	assert_string_equal(json_string_value(json_object_get(root, "job")), run->job);
	assert_string_equal(json_string_value(json_object_get(root, "device")), "pi-01");
	objects = json_object_get(root, "objects");
	assert_int_equal(json_array_size(objects), n);
	for (size_t i = 0; i < n; i++) {
		snprintf(key, sizeof key, "pi/%s", world.keys[first + i]);
		assert_string_equal(json_string_value(json_object_get(json_array_get(objects, i), "key")), key);
	}
	json_decref(root);
}

/* One job, and a run of it that is under way. */
static struct ledger_run begin_and_run(void)
{
	add_job("parking", "batches >= 1");
	begin();
	bring("a");
	assert_int_equal(world.starts, 1);
	return assert_run("parking", LEDGER_STARTED);
}

/* --- Due --- */

static void test_a_run(void **state)
{
	struct ledger_run run;
	char text[256];

	(void)state;
	add_job("parking", "batches >= 2");
	begin();
	bring("a");
	assert_int_equal(count_runs() + world.n_puts + world.starts + world.asks, 0);
	assert_int_equal(view_job("parking").due.batches, 1);
	world.hold_puts = true;
	bring("a");
	run = assert_run("parking", LEDGER_DUE);
	assert_int_equal(world.n_puts, 1);
	assert_key(&world.puts[0], &run, "manifest.json");
	assert_lists(&world.puts[0].data, &run, 0, 2);
	assert_false(mill_idle(mill));
	assert_int_equal(world.starts, 0);
	world.hold_puts = false;
	settle();
	run = assert_run("parking", LEDGER_STARTED);
	assert_int_equal(run.attempt, 1);
	assert_int_equal(world.starts, 1);
	assert_int_equal(world.checked, 1);
	assert_string_equal(world.there[0].id, run.id);
	assert_string_equal(world.there[0].place, world.puts[0].key);
	assert_int_equal(world.asks, 0);
	pass(MINUTE);
	assert_in_range(world.asks, 10, 13);
	end_there(run.id, DRIVER_DONE);
	run = assert_run("parking", LEDGER_DONE);
	assert_int_equal(world.n_puts, 2);
	assert_key(&world.puts[1], &run, "log.gz");
	unpack_gzip(&world.puts[1].data, text, sizeof text);
	assert_string_equal(text, world.log);
	assert_int_equal(run.log_len, strlen(world.log));
	assert_memory_equal(run.log, world.log, run.log_len);
	assert_int_equal(count_objects(&run), 0);
	assert_int_equal(view_job("parking").due.batches, 0);
	assert_false(find_said("run.made")->bad || find_said("run.started")->bad || find_said("run.done")->bad);
	pass(DAY);
	assert_int_equal(count_runs(), 1);
	assert_int_equal(world.starts, 1);
	assert_int_equal(world.n_puts, 2);
	assert_int_equal(world.again, 0);
}

static void test_time_makes_it_due(void **state)
{
	struct ledger_run run;

	(void)state;
	add_job("parking", "age >= 6h");
	begin();
	pass(DAY);
	bring("a");
	pass(2 * HOUR);
	bring("a"); /* the first one counts */
	pass(4 * HOUR - 1);
	assert_int_equal(count_runs() + world.n_puts + world.starts, 0);
	pass(1);
	assert_int_equal(world.starts, 1);
	run = assert_run("parking", LEDGER_STARTED);
	assert_lists(&world.there[0].manifest, &run, 0, 2);
}

static void test_cron(void **state)
{
	(void)state;
	add_job("parking", "cron 0 15 * * *");
	begin();
	bring("a");
	pass(3 * HOUR - 1);
	assert_int_equal(world.starts, 0);
	pass(1);
	assert_int_equal(world.starts, 1);
	world.asks_to_end = 1;
	pass(3 * DAY); /* nothing waits */
	assert_run("parking", LEDGER_DONE);
	assert_int_equal(world.starts, 1);
	pass(MINUTE);
	bring("a");
	pass(DAY - MINUTE - 1);
	assert_int_equal(world.starts, 1);
	pass(1);
	assert_int_equal(world.starts, 2);
	pass(DAY);
	assert_int_equal(world.starts, 2);
}

/* What it was asked for while nobody ran is made up for. */
static void test_cron_across_a_start(void **state)
{
	(void)state;
	add_job("parking", "cron 0 15 * * *");
	begin();
	bring("a");
	world.asks_to_end = 1;
	pass(4 * HOUR);
	assert_int_equal(world.starts, 1);
	bring("a");
	start_again();
	pass(HOUR);
	assert_int_equal(world.starts, 1); /* it was looked at before */
	end();
	wall_ms += DAY;
	mono_ms += DAY;
	begin();
	assert_int_equal(world.starts, 2);
}

static void test_after(void **state)
{
	struct ledger_run run;

	(void)state;
	add_job("parking", "batches >= 1");
	add_job("gold", "after parking");
	begin();
	pass(DAY);
	assert_int_equal(count_runs(), 0);
	bring("a");
	world.ends = DRIVER_FAILED;
	world.asks_to_end = 1;
	pass(SECOND * 30);
	assert_int_equal(world.starts, 1); /* it failed */
	world.ends = DRIVER_DONE;
	pass(HOUR);
	assert_run("parking", LEDGER_DONE);
	run = assert_run("gold", LEDGER_DONE);
	assert_int_equal(world.starts, 3);
	assert_int_equal(run.objects, 0);
	assert_string_equal(world.there[2].id, run.id);
	assert_lists(&world.there[2].manifest, &run, 0, 0);
	start_again();
	pass(DAY);
	assert_int_equal(count_runs(), 2);
	bring("a");
	pass(HOUR);
	assert_int_equal(world.starts, 5);
	assert_int_equal(count_runs(), 4);
}

/* The clock is put back while it runs, and was far ahead once: one end, one run. */
static void test_after_a_clock_that_jumps(void **state)
{
	(void)state;
	add_job("parking", "batches >= 1");
	add_job("gold", "after parking");
	world.asks_to_end = 1;
	begin();
	bring("a");
	wall_ms -= HOUR;
	pass(2 * HOUR);
	assert_int_equal(count_runs(), 2);
	wall_ms += 300 * DAY;
	bring("a");
	pass(HOUR);
	assert_int_equal(count_runs(), 4);
	wall_ms -= 300 * DAY;
	bring("a");
	pass(HOUR);
	assert_int_equal(count_runs(), 6);
	start_again();
	pass(HOUR);
	assert_int_equal(count_runs(), 6);
	bring("a");
	pass(HOUR);
	assert_int_equal(count_runs(), 8);
}

/* Delivered while the clock was ahead. */
static void test_age_of_what_came_from_the_future(void **state)
{
	(void)state;
	add_job("parking", "age >= 6h");
	begin();
	wall_ms += 300 * DAY;
	bring("a");
	wall_ms -= 300 * DAY;
	pass(5 * HOUR);
	assert_int_equal(count_runs(), 0);
	pass(2 * HOUR);
	assert_int_equal(count_runs(), 1);
}

/* Its time passed, nothing waited; what came later waits for the next time, also across a start. */
static void test_cron_before_anything_waited(void **state)
{
	(void)state;
	add_job("parking", "cron 0 15 * * *");
	begin();
	pass(4 * HOUR);
	bring("a");
	start_again();
	pass(DAY - 2 * HOUR);
	assert_int_equal(world.starts, 0);
	pass(HOUR);
	assert_int_equal(world.starts, 1);
}

/* One that did not end well is none, before a start and after it. */
static void test_after_one_that_failed(void **state)
{
	(void)state;
	add_job("parking", "batches >= 1");
	add_job("gold", "after parking");
	jobs[0].retries = 0;
	world.ends = DRIVER_FAILED;
	world.asks_to_end = 1;
	begin();
	bring("a");
	pass(HOUR);
	assert_run("parking", LEDGER_PARKED);
	bring("a");
	assert_int_equal(mill_cancel(mill, view_job("parking").run->id, &box->err), 0);
	pass(HOUR);
	assert_run("parking", LEDGER_CANCELLED);
	start_again();
	pass(HOUR);
	assert_int_equal(count_runs(), 2);
}

static void test_polls_alone_make_nothing_due(void **state)
{
	(void)state;
	add_job("parking", "batches >= 1 or age >= 1h or cron * * * * *");
	begin();
	bring("_polls");
	pass(2 * HOUR);
	assert_int_equal(count_runs(), 0);
	assert_int_equal(view_job("parking").due.others, 1);
	bring("a");
	assert_int_equal(world.starts, 1);
	assert_int_equal(run_of("parking").objects, 2);
}

/* What is delivered while a run is on its way is the next one's. */
static void test_the_next_run(void **state)
{
	struct ledger_run first = begin_and_run(), second;

	(void)state;
	bring("a");
	bring("a");
	pass(MINUTE);
	assert_int_equal(world.starts, 1);
	assert_int_equal(view_job("parking").due.batches, 2);
	end_there(first.id, DRIVER_DONE);
	assert_int_equal(world.starts, 2);
	second = assert_run("parking", LEDGER_STARTED);
	assert_string_not_equal(second.id, first.id);
	assert_lists(&world.there[1].manifest, &second, 1, 2);
}

/* It comes when the look for what is due has been made, and nobody has heard of that yet. */
static void test_a_delivery_while_it_looks(void **state)
{
	struct pollfd fd = { .events = POLLIN };

	(void)state;
	add_job("parking", "batches >= 1");
	begin();
	uv_run(&loop, UV_RUN_NOWAIT);
	fd.fd = uv_backend_fd(&loop);
	mill_nudge(mill);
	assert_int_equal(poll(&fd, 1, HANG_MS), 1);
	assert_false(mill_idle(mill));
	deliver("a", "lake");
	mill_nudge(mill);
	settle();
	assert_int_equal(world.starts, 1);
}

/* Deliveries come all day long; each would be a question more. */
static void test_deliveries_hurry_nothing(void **state)
{
	struct ledger_run run = begin_and_run();

	(void)state;
	for (int i = 0; i < 4; i++) {
		pass(SECOND);
		bring("a");
	}
	assert_int_equal(world.asks, 0);
	world.on_ask = DRIVER_REFUSED;
	pass(SECOND);
	assert_int_equal(world.asks, 1);
	for (int i = 0; i < 4; i++) {
		pass(SECOND);
		bring("a");
	}
	assert_int_equal(world.asks, 1);
	assert_waits_for("parking", "its key is refused", true);
	assert_int_equal(mill_cancel(mill, run.id, &box->err), 0); /* a person does */
	settle();
	assert_int_equal(world.cancels, 1);
}

/* --- Attempts that fail --- */

static void assert_attempt(const struct ledger_run *run, unsigned attempt)
{
	const struct there *t = &world.there[attempt - 1];
	char id[ID_MAX + 16];

	assert_int_equal(world.starts, attempt);
	assert_int_equal(world.n_there, attempt);
	snprintf(id, sizeof id, attempt > 1 ? "%s-%u" : "%s", run->id, attempt);
	assert_string_equal(t->id, id);
	assert_int_equal(t->manifest.len, world.there[0].manifest.len);
	assert_memory_equal(t->manifest.data, world.there[0].manifest.data, t->manifest.len);
}

static void assert_log_put(const struct ledger_run *run, const char *name, const char *expected)
{
	char text[256];

	assert_key(last_put(), run, name);
	unpack_gzip(&last_put()->data, text, sizeof text);
	assert_string_equal(text, expected);
}

/* All three attempts; it is parked afterwards. */
static struct ledger_run fail_thrice(void)
{
	struct ledger_run run = begin_and_run();

	world.log = "first";
	end_there(run.id, DRIVER_FAILED);
	run = assert_run("parking", LEDGER_WRITTEN);
	assert_string_equal(run.reason, "exit 3");
	assert_log_put(&run, "log-1.gz", "first");
	assert_memory_equal(run.log, "first", run.log_len);
	assert_true(find_said("run.failed")->bad);
	assert_waits_for("parking", "exit 3", false);
	pass(MINUTE - 1);
	assert_int_equal(world.starts, 1);
	pass(1);
	assert_attempt(&run, 2);
	run = assert_run("parking", LEDGER_STARTED);
	assert_int_equal(run.attempt, 2);
	assert_int_equal(run.log_len, 0);
	assert_string_equal(run.reason, "");
	world.log = "second";
	end_there(world.there[1].id, DRIVER_FAILED);
	assert_log_put(&run, "log-2.gz", "second");
	pass(2 * MINUTE - 1);
	assert_int_equal(world.starts, 2);
	pass(1);
	assert_attempt(&run, 3);
	assert_int_equal(count_said("run.parked"), 0);
	world.log = "third";
	end_there(world.there[2].id, DRIVER_FAILED);
	assert_log_put(&run, "log-3.gz", "third");
	return assert_run("parking", LEDGER_PARKED);
}

static void test_a_run_that_fails(void **state)
{
	struct ledger_run run = fail_thrice();
	struct mill_job_view view = view_job("parking");

	(void)state;
	assert_true(find_said("run.parked")->bad);
	assert_non_null(strstr(find_said("run.parked")->text, "exit 3"));
	assert_string_equal(run.reason, "exit 3");
	assert_int_equal(count_objects(&run), 1);
	assert_null(view.run);
	assert_int_equal(view.parked, 1);
	assert_string_equal(view.last_parked, run.id);
	assert_int_equal(world.n_puts, 4);
	pass(7 * DAY);
	assert_int_equal(world.starts, 3);
	assert_int_equal(count_runs(), 1);
}

static void test_a_parked_run_is_retried(void **state)
{
	struct ledger_run run = fail_thrice();

	(void)state;
	assert_int_equal(mill_retry(mill, run.id, &box->err), 0);
	settle();
	assert_attempt(&run, 4);
	assert_int_equal(view_job("parking").parked, 0);
	assert_string_equal(view_job("parking").last_parked, "");
	for (unsigned attempt = 4; attempt < 6; attempt++) { /* attempts anew */
		end_there(world.there[attempt - 1].id, DRIVER_FAILED);
		assert_run("parking", LEDGER_WRITTEN);
		pass(2 * MINUTE);
		assert_attempt(&run, attempt + 1);
	}
	world.log = "at last";
	end_there(world.there[5].id, DRIVER_DONE);
	run = assert_run("parking", LEDGER_DONE);
	assert_log_put(&run, "log.gz", "at last");
	assert_int_equal(count_objects(&run), 0);
	assert_int_equal(count_runs(), 1);
	assert_int_equal(mill_retry(mill, run.id, &box->err), -ENOENT);
}

static void test_a_parked_run_is_cancelled(void **state)
{
	struct ledger_run run = fail_thrice();

	(void)state;
	pass(HOUR);
	assert_int_equal(mill_cancel(mill, run.id, &box->err), 0);
	settle();
	run = assert_run("parking", LEDGER_CANCELLED);
	assert_true(run.ended_ms == wall_ms);
	assert_int_equal(count_objects(&run), 0);
	assert_int_equal(view_job("parking").parked, 0);
	assert_int_equal(view_job("parking").due.batches, 0);
	assert_int_equal(count_said("run.cancelled"), 1);
	assert_int_equal(mill_cancel(mill, run.id, &box->err), -ENOENT);
	pass(DAY);
	assert_int_equal(world.starts, 3);
	assert_int_equal(count_runs(), 1);
}

static void test_five_parked_runs(void **state)
{
	struct ledger_run runs[32];

	(void)state;
	add_job("parking", "batches >= 1");
	jobs[0].retries = 0;
	world.ends = DRIVER_FAILED;
	world.asks_to_end = 1;
	begin();
	for (unsigned i = 1; i <= 5; i++) {
		assert_waits_for("parking", "batches >= 1", false);
		bring("a");
		pass(MINUTE);
		assert_int_equal(world.starts, i);
	}
	assert_waits_for("parking", "millrace show runs", true);
	bring("a");
	pass(DAY);
	assert_int_equal(world.starts, 5);
	start_again();
	pass(DAY);
	assert_int_equal(world.starts, 5);
	assert_int_equal(view_job("parking").parked, 5);
	assert_waits_for("parking", "millrace show runs", true);
	assert_int_equal(list_runs(runs), 5);
	assert_string_equal(view_job("parking").last_parked, runs[0].id);
	assert_int_equal(mill_cancel(mill, runs[3].id, &box->err), 0);
	settle();
	assert_int_equal(world.starts, 6); /* it goes on */
	assert_waits_for("parking", "", false);
	pass(MINUTE);
	assert_int_equal(view_job("parking").parked, 5);
	assert_int_equal(mill_start(mill, "parking", &box->err), 0); /* a person may all the same */
	settle();
	assert_int_equal(world.starts, 7);
}

/* --- Starting again --- */

static void test_start_again_while_it_runs(void **state)
{
	struct ledger_run run = begin_and_run();

	(void)state;
	pass(MINUTE);
	start_again();
	assert_int_equal(world.there[0].asks, 13);
	pass(MINUTE);
	assert_run("parking", LEDGER_STARTED);
	end();
	world.there[0].state = DRIVER_DONE; /* meanwhile */
	begin();
	run = assert_run("parking", LEDGER_DONE);
	assert_log_put(&run, "log.gz", world.log);
	assert_int_equal(world.starts, 1);
	assert_int_equal(world.n_puts, 2);
}

static void test_start_again_where_it_never_got_there(void **state)
{
	struct ledger_run run;

	(void)state;
	world.hold_driver = world.start_is_lost = true;
	world.on_start = DRIVER_AWAY;
	run = begin_and_run();
	end();
	world.hold_driver = world.start_is_lost = false;
	world.on_start = DEFAULT;
	begin(); /* with the same manifest, which is listed again: check_start looks */
	assert_int_equal(world.asks, 1);
	assert_int_equal(world.starts, 2);
	assert_int_equal(world.checked, 2);
	assert_int_equal(world.there[0].starts, 2);
	assert_int_equal(world.n_puts, 1);
	assert_int_equal(world.again, 0);
	end_there(run.id, DRIVER_DONE);
	assert_run("parking", LEDGER_DONE);
}

static void test_start_again_before_its_next_attempt(void **state)
{
	struct ledger_run run = begin_and_run();

	(void)state;
	end_there(run.id, DRIVER_FAILED);
	start_again();
	assert_attempt(&run, 2);
	assert_int_equal(world.n_puts, 2); /* the manifest was written before */
	end_there(world.there[1].id, DRIVER_FAILED);
	pass(2 * MINUTE);
	assert_attempt(&run, 3);
	end_there(world.there[2].id, DRIVER_FAILED);
	assert_run("parking", LEDGER_PARKED);
}

static void test_start_again_with_a_parked_one(void **state)
{
	struct ledger_run run = fail_thrice();

	(void)state;
	start_again();
	pass(DAY);
	assert_int_equal(world.starts, 3);
	assert_int_equal(view_job("parking").parked, 1);
	assert_string_equal(view_job("parking").last_parked, run.id);
	assert_int_equal(mill_retry(mill, run.id, &box->err), 0);
	settle();
	assert_attempt(&run, 4);
}

/* Its manifest is in the store already, and its bytes would be other ones. */
static void test_a_manifest_that_would_be_another_one(void **state)
{
	struct ledger_run run = begin_and_run();

	(void)state;
	end_there(run.id, DRIVER_FAILED);
	end();
	jobs[0].there.bucket = "other";
	begin();
	run = assert_run("parking", LEDGER_STARTED);
	assert_int_equal(run.attempt, 2);
	assert_int_equal(count_objects(&run), 1);
	assert_key(last_put(), &run, "manifest.json");
	assert_non_null(strstr((const char *)last_put()->data.data, "\"bucket\":\"other\""));
	assert_int_equal(last_put()->data.len, world.there[1].manifest.len);
	assert_memory_equal(last_put()->data.data, world.there[1].manifest.data, last_put()->data.len);
	end_there(run.id, DRIVER_FAILED);
}

/* What is at work has the one that it was started with. */
static void test_a_manifest_that_changes_under_its_run(void **state)
{
	struct ledger_run run;

	(void)state;
	add_job("parking", "batches >= 1");
	world.on_start = DRIVER_AWAY;
	world.start_is_lost = true;
	begin();
	bring("a");
	run = assert_run("parking", LEDGER_STARTED);
	end();
	jobs[0].there.bucket = "other";
	begin();
	pass(MINUTE);
	run = assert_run("parking", LEDGER_PARKED);
	assert_non_null(strstr(run.reason, "manifest"));
	world.on_start = DEFAULT;
	assert_int_equal(mill_retry(mill, run.id, &box->err), 0);
	settle();
	assert_run("parking", LEDGER_STARTED);
}

/* A run of before is nobody's that works elsewhere, by another driver or on another machine. */
static void test_a_job_that_moves(void **state)
{
	static struct driver_ops other;
	struct ledger_run run = begin_and_run();

	(void)state;
	end();
	other = fake;
	other.kind = "other";
	jobs[0].driver = &other;
	begin();
	run = assert_run("parking", LEDGER_PARKED);
	assert_non_null(strstr(run.reason, "it was started by fake"));
	assert_non_null(strstr(run.reason, "of other now"));
	assert_int_equal(world.starts, 1);
	assert_int_equal(mill_retry(mill, run.id, &box->err), 0);
	settle();
	run = assert_run("parking", LEDGER_STARTED);
	assert_int_equal(run.attempt, 2);
	assert_string_equal(run.place, "other");
}

/* A whole life of a run, and whatever is done to it in between: what must be so at its end. */
struct life {
	enum driver_state ends;
	bool machine;
	const char *remote;
};

static void begin_life(const struct life *life)
{
	add_job("parking", "batches >= 2");
	jobs[0].retries = 1;
	world.ends = life->ends;
	world.remote = life->remote;
	world.asks_to_end = 2;
	if (life->machine) {
		add_machine();
		open_port();
	}
	begin();
	bring("a");
	bring_quietly("a", "lake");
	mill_nudge(mill);
}

/* So many turns of it; false: it was over before. */
static bool go_on(unsigned turns)
{
	for (unsigned i = 0; i < turns; i++) {
		if (is_quiet() && !view_job("parking").run)
			return false;
		if (is_quiet()) {
			wall_ms += alarms_next(&alarms) - mono_ms;
			mono_ms = alarms_next(&alarms);
		}
		turn();
	}
	return true;
}

static void check_life(const struct life *life)
{
	bool well = life->ends == DRIVER_DONE;
	struct ledger_run run;

	pass(HOUR);
	assert_int_equal(count_runs(), 1);
	run = assert_run("parking", well ? LEDGER_DONE : LEDGER_PARKED);
	assert_int_equal(run.attempt, well ? 1 : 2);
	assert_int_equal(run.objects, 2);
	assert_int_equal(count_objects(&run), well ? 0 : 2);
	assert_int_equal(world.n_there, run.attempt);
	assert_lists(&world.there[0].manifest, &run, 0, 2);
	/* By what it is known there was lost with the answer; our own id makes another start of it harmless. */
	assert_in_range(world.again, 0, life->remote != NULL);
	assert_true(world.noted_first);
	assert_log_put(&run, well ? "log.gz" : "log-2.gz", world.log);
	assert_int_equal(view_job("parking").parked, !well);
	if (life->machine) {
		struct ledger_machine row;

		assert_int_equal(ledger_find_machine(box->q, "mill", &row, &box->err), 0);
		assert_int_equal(row.state, LEDGER_IDLE);
	}
}

static const struct life lives[] = {
	{ .ends = DRIVER_DONE },
	{ .ends = DRIVER_FAILED },
	{ .ends = DRIVER_DONE, .machine = true },
	{ .ends = DRIVER_FAILED, .machine = true },
	{ .ends = DRIVER_DONE, .remote = "42" },
};

/* Disturbs each life after each of its turns, in worlds of their own. */
static void live(void **state, void (*disturb)(const struct life *life), void (*check)(const struct life *life))
{
	unsigned all = 0;

	for (size_t i = 0; i < sizeof lives / sizeof *lives; i++) {
		bool goes_on = true;

		for (unsigned turns = 0; goes_on; turns++, all++) {
			begin_life(&lives[i]);
			goes_on = go_on(turns);
			disturb(&lives[i]);
			check(&lives[i]);
			tear_down(state);
			set_up(state);
		}
	}
	assert_true(all > 50);
}

static void stop_and_start(const struct life *life)
{
	(void)life;
	start_again();
}

static void test_start_again_at_each_turn(void **state)
{
	live(state, stop_and_start, check_life);
}

static void reload_once(const struct life *life)
{
	(void)life;
	reload();
}

static void test_reload_at_each_turn(void **state)
{
	live(state, reload_once, check_life);
}

/* What is begun from here on for half a minute cannot be written down. */
static void break_the_card(const struct life *life)
{
	(void)life;
	while (!worker_idle(worker))
		turn();
	card_errno = EIO;
	pass(30 * SECOND);
	while (!worker_idle(worker))
		turn();
	card_errno = 0;
}

static void test_the_card_fails_at_each_turn(void **state)
{
	live(state, break_the_card, check_life);
}

static void break_the_store(const struct life *life)
{
	(void)life;
	world.put_fails = 2;
}

static void test_the_store_fails_at_each_turn(void **state)
{
	live(state, break_the_store, check_life);
}

static void cut_the_link(const struct life *life)
{
	world.on_ask = world.on_start = DRIVER_AWAY;
	if (life->machine)
		close_port();
	pass(MINUTE + 30 * SECOND);
	world.on_ask = world.on_start = DEFAULT;
	if (life->machine)
		open_port();
}

/* A start may get there, and its answer not. */
static void test_the_link_fails_at_each_turn(void **state)
{
	live(state, cut_the_link, check_life);
}

static bool was_cancelled;

static void cancel_it(const struct life *life)
{
	struct mill_job_view view = view_job("parking");

	(void)life;
	was_cancelled = view.run != NULL;
	if (was_cancelled)
		assert_int_equal(mill_cancel(mill, view.run->id, &box->err), 0);
}

static void check_cancelled(const struct life *life)
{
	struct ledger_run run;
	unsigned starts = world.starts;

	if (!was_cancelled) {
		check_life(life);
		return;
	}
	pass(HOUR);
	run = run_of("parking");
	if (run.state != LEDGER_DONE || life->ends != DRIVER_DONE)
		assert_run("parking", LEDGER_CANCELLED);
	assert_int_equal(world.starts, starts);
	assert_int_equal(count_objects(&run), 0);
	assert_int_equal(view_job("parking").parked, 0);
	assert_int_equal(view_job("parking").due.batches, 0);
}

static void test_cancelled_at_each_turn(void **state)
{
	live(state, cancel_it, check_cancelled);
}

/* --- Stores that fail --- */

static void test_a_manifest_that_cannot_be_put(void **state)
{
	(void)state;
	add_job("parking", "batches >= 1");
	world.put_fails = 4;
	begin();
	bring("a");
	for (unsigned i = 1; i <= 4; i++) {
		int64_t wait_ms = 5 * SECOND << (i - 1);

		assert_int_equal(world.n_puts, i);
		assert_run("parking", LEDGER_DUE);
		assert_waits_for("parking", "the store is away", false);
		pass(wait_ms - 1);
		assert_int_equal(world.n_puts, i);
		assert_int_equal(world.starts, 0);
		pass(1);
	}
	assert_int_equal(world.n_puts, 5);
	for (size_t i = 1; i < 5; i++) {
		assert_string_equal(world.puts[i].key, world.puts[0].key);
		assert_int_equal(world.puts[i].data.len, world.puts[0].data.len);
		assert_memory_equal(world.puts[i].data.data, world.puts[0].data.data, world.puts[0].data.len);
	}
	assert_run("parking", LEDGER_STARTED);
	assert_int_equal(world.starts, 1);
	assert_waits_for("parking", "", false);
}

/* What failed is forgotten once it went well, and it does not wait for ever longer. */
static void test_a_store_that_is_away_for_long(void **state)
{
	(void)state;
	add_job("parking", "batches >= 1");
	world.put_fails = 60;
	begin();
	bring("a");
	pass(HOUR);
	assert_in_range(world.n_puts, 10, 20);
	world.put_fails = 0;
	pass(5 * MINUTE);
	assert_int_equal(world.starts, 1);
	world.put_fails = 1;
	end_there(run_of("parking").id, DRIVER_DONE);
	assert_run("parking", LEDGER_STARTED);
	pass(5 * SECOND);
	assert_run("parking", LEDGER_DONE);
	assert_int_equal(world.starts, 1);
}

static void test_a_log_that_cannot_be_had(void **state)
{
	struct ledger_run run = begin_and_run();

	(void)state;
	world.log = NULL;
	end_there(run.id, DRIVER_DONE);
	run = assert_run("parking", LEDGER_DONE);
	assert_int_equal(run.log_len, 0);
	assert_int_equal(world.n_puts, 1);
	assert_int_equal(world.logs, 1);
}

/* Retries are counted from the last one that a person asked for, whatever was in between. */
static void test_start_again_after_a_retry(void **state)
{
	struct ledger_run run = begin_and_run();

	(void)state;
	for (int i = 0; i < 3; i++) {
		end_there(world.there[i].id, DRIVER_FAILED);
		pass(5 * MINUTE);
	}
	run = assert_run("parking", LEDGER_PARKED);
	assert_int_equal(run.attempt, 3);
	assert_int_equal(mill_retry(mill, run.id, &box->err), 0);
	settle();
	start_again();
	for (int i = 3; i < 6; i++) {
		assert_run("parking", LEDGER_STARTED);
		end_there(world.there[i].id, DRIVER_FAILED);
		pass(5 * MINUTE);
	}
	assert_int_equal(assert_run("parking", LEDGER_PARKED).attempt, 6);
}

/* The ledger keeps its end. */
static void test_a_long_log(void **state)
{
	struct ledger_run run = begin_and_run();
	char *log = malloc(10001);

	(void)state;
	assert_non_null(log);
	for (int i = 0; i < 10000; i += 5)
		snprintf(log + i, 6, "%04d ", i / 5);
	world.log = log;
	end_there(run.id, DRIVER_DONE);
	run = assert_run("parking", LEDGER_DONE);
	assert_int_equal(run.log_len, LEDGER_LOG);
	assert_memory_equal(run.log, log + 10000 - LEDGER_LOG, LEDGER_LOG);
	free(log);
}

/* A long log, of `len` bytes from 1 to 255: what comes into the store of it, which says that there is more. */
static size_t put_long_log(char *log, size_t len)
{
	static const char rest[] = "\n[the rest of the log is on the machine]\n";
	struct ledger_run run = begin_and_run();
	char *text = malloc(len);
	size_t kept;

	assert_non_null(text);
	log[len] = '\0';
	world.log = log;
	world.log_piece = RUN_LOG_PIECE;
	end_there(run.id, DRIVER_DONE);
	run = assert_run("parking", LEDGER_DONE);
	assert_key(last_put(), &run, "log.gz");
	unpack_gzip(&last_put()->data, text, len);
	kept = strlen(text) - strlen(rest);
	assert_string_equal(text + kept, rest);
	assert_memory_equal(text, log, kept);
	assert_memory_equal(run.log + run.log_len - strlen(rest), rest, strlen(rest));
	free(text);
	return kept;
}

static void test_a_log_without_end(void **state)
{
	const size_t len = RUN_LOG_MAX + (1 << 20);
	char *log = malloc(len + 1);

	(void)state;
	assert_non_null(log);
	memset(log, 'x', len);
	assert_int_equal(put_long_log(log, len), RUN_LOG_MAX);
	free(log);
}

static void test_a_log_that_does_not_compress(void **state)
{
	const size_t len = 4 << 20;
	char *log = malloc(len + 1);

	(void)state;
	assert_non_null(log);
	random_fill(log, len);
	for (size_t i = 0; i < len; i++)
		log[i] = log[i] ? log[i] : '0';
	assert_in_range(put_long_log(log, len), RUN_LOG_PACKED_MAX, RUN_LOG_PACKED_MAX + 2 * RUN_LOG_PIECE);
	assert_in_range(last_put()->data.len, RUN_LOG_PACKED_MAX, RUN_LOG_PACKED_MAX + 2 * RUN_LOG_PIECE);
	free(log);
}

static void test_a_driver_without_logs(void **state)
{
	static struct driver_ops mute;
	struct ledger_run run;

	(void)state;
	mute = fake;
	mute.log = NULL;
	add_job("parking", "batches >= 1");
	jobs[0].driver = &mute;
	begin();
	bring("a");
	run = assert_run("parking", LEDGER_STARTED);
	end_there(run.id, DRIVER_DONE);
	assert_run("parking", LEDGER_DONE);
	assert_int_equal(world.n_puts, 1);
}

/* --- Timeouts, refusals --- */

/* Its time is over; answers to its cancel are the test's. */
static struct ledger_run run_late(int on_cancel)
{
	struct ledger_run run;

	add_job("parking", "batches >= 1");
	jobs[0].timeout_ms = HOUR;
	world.on_cancel = on_cancel;
	begin();
	bring("a");
	run = assert_run("parking", LEDGER_STARTED);
	pass(HOUR - SECOND);
	assert_int_equal(world.cancels, 0);
	pass(6 * SECOND);
	assert_true(world.cancels >= 1);
	return run;
}

static void test_one_that_takes_too_long(void **state)
{
	struct ledger_run run = run_late(DEFAULT);

	(void)state;
	assert_int_equal(world.cancels, 1);
	run = assert_run("parking", LEDGER_WRITTEN);
	assert_non_null(strstr(run.reason, "timeout"));
	assert_log_put(&run, "log-1.gz", world.log);
	pass(MINUTE);
	assert_attempt(&run, 2);
	pass(HOUR - 10 * SECOND); /* this one has its own */
	assert_int_equal(world.cancels, 1);
	end_there(world.there[1].id, DRIVER_DONE);
	assert_run("parking", LEDGER_DONE);
}

static void test_one_that_is_done_at_the_last_moment(void **state)
{
	struct ledger_run run = run_late(DRIVER_DONE);

	(void)state;
	run = assert_run("parking", LEDGER_DONE);
	assert_string_equal(run.reason, "");
	assert_int_equal(world.starts, 1);
}

static void test_one_that_cannot_be_ended(void **state)
{
	struct ledger_run run = run_late(DRIVER_REFUSED);

	(void)state;
	run = assert_run("parking", LEDGER_PARKED);
	assert_non_null(strstr(run.reason, "timeout"));
	assert_non_null(strstr(run.reason, "its key is refused"));
	pass(DAY);
	assert_int_equal(world.starts, 1); /* for it may go on there */
}

static void test_one_that_ends_slowly(void **state)
{
	struct ledger_run run = run_late(DRIVER_RUNNING);

	(void)state;
	pass(MINUTE);
	assert_in_range(world.cancels, 10, 15);
	world.on_cancel = DRIVER_AWAY;
	pass(MINUTE);
	assert_run("parking", LEDGER_STARTED);
	assert_waits_for("parking", "it does not answer", false);
	world.on_cancel = DRIVER_UNKNOWN;
	pass(6 * SECOND);
	run = assert_run("parking", LEDGER_WRITTEN);
	assert_non_null(strstr(run.reason, "timeout"));
}

/* The clock that people see tells how long it has run. */
static void test_its_time_goes_on_across_a_start(void **state)
{
	struct ledger_run run;

	(void)state;
	add_job("parking", "batches >= 1");
	jobs[0].timeout_ms = HOUR;
	begin();
	bring("a");
	run = assert_run("parking", LEDGER_STARTED);
	pass(30 * MINUTE);
	end();
	mono_ms = MINUTE; /* the device, too */
	begin();
	pass(29 * MINUTE);
	assert_int_equal(world.cancels, 0);
	pass(2 * MINUTE);
	assert_int_equal(world.cancels, 1);
	assert_string_equal(world.there[0].id, run.id);
}

static void test_a_start_that_is_refused(void **state)
{
	(void)state;
	add_job("parking", "batches >= 1");
	world.on_start = DRIVER_REFUSED;
	world.log = NULL;
	begin();
	bring("a");
	assert_waits_for("parking", "its key is refused", true);
	pass(5 * SECOND); /* it is asked for first: nothing began */
	assert_string_equal(assert_run("parking", LEDGER_WRITTEN).reason, "its key is refused");
	pass(MINUTE + 5 * SECOND);
	assert_int_equal(world.starts, 2);
	pass(2 * MINUTE + 5 * SECOND);
	assert_int_equal(world.starts, 3);
	assert_string_equal(assert_run("parking", LEDGER_PARKED).reason, "its key is refused");
	assert_int_equal(world.asks, 3);
	assert_int_equal(world.n_puts, 1);
}

/* Its answer was broken, and it began all the same. */
static void test_a_start_that_is_refused_and_begins(void **state)
{
	struct ledger_run run;

	(void)state;
	add_job("parking", "batches >= 1");
	world.on_start = DRIVER_REFUSED;
	world.refused_begins = true;
	begin();
	bring("a");
	pass(5 * SECOND);
	assert_waits_for("parking", "", false);
	run = assert_run("parking", LEDGER_STARTED);
	end_there(run.id, DRIVER_DONE);
	assert_run("parking", LEDGER_DONE);
	assert_int_equal(world.starts, 1);
}

/* For a person one waits longer than any timeout. */
static void test_all_is_refused_for_days(void **state)
{
	(void)state;
	add_job("parking", "batches >= 1");
	jobs[0].timeout_ms = 10 * SECOND;
	world.on_start = world.on_ask = world.on_cancel = DRIVER_REFUSED;
	begin();
	bring("a");
	pass(2 * DAY);
	assert_run("parking", LEDGER_STARTED);
	assert_waits_for("parking", "its key is refused", true);
	assert_int_equal(world.cancels, 0);
	assert_int_equal(world.starts, 1);
	world.on_start = world.on_ask = world.on_cancel = DEFAULT;
	world.asks_to_end = 1;
	pass(4 * MINUTE);
	assert_int_equal(world.starts, 2);
	assert_run("parking", LEDGER_DONE);
}

/* An attempt that is forgotten there has failed, and another one follows, later. */
static void test_forgotten_while_it_runs(void **state)
{
	struct ledger_run run = begin_and_run();

	(void)state;
	world.on_ask = DRIVER_UNKNOWN;
	pass(5 * SECOND);
	run = assert_run("parking", LEDGER_WRITTEN);
	assert_non_null(strstr(run.reason, "not known there any more"));
	assert_int_equal(world.starts, 1);
	pass(HOUR);
	run = assert_run("parking", LEDGER_PARKED);
	assert_int_equal(run.attempt, 3);
	assert_int_equal(world.starts, 3);
}

/* The end of a run does not wait for a store. */
static void test_a_log_that_no_store_takes(void **state)
{
	struct ledger_run run = begin_and_run();

	(void)state;
	world.put_fails = 60;
	end_there(run.id, DRIVER_DONE);
	assert_run("parking", LEDGER_STARTED);
	pass(MINUTE);
	run = assert_run("parking", LEDGER_DONE);
	assert_int_equal(world.n_puts, 1 + 3);
	assert_true(find_said("run.unsaved")->bad);
	assert_memory_equal(run.log, world.log, run.log_len);
	assert_true(run.log_len > 0);
}

/* The configuration that it was made with may be freed. */
static void test_the_device_is_kept(void **state)
{
	char device[] = "pi-01";

	(void)state;
	add_job("parking", "batches >= 1");
	this_device = device;
	begin();
	memset(device, 'x', sizeof device - 1);
	this_device = "pi-01";
	bring("a");
	assert_non_null(strstr((const char *)world.there[0].manifest.data, "\"device\":\"pi-01\""));
}

static void test_a_question_that_is_refused(void **state)
{
	struct ledger_run run = begin_and_run();

	(void)state;
	world.on_ask = DRIVER_REFUSED;
	pass(5 * SECOND);
	assert_int_equal(world.asks, 1);
	assert_waits_for("parking", "its key is refused", true);
	pass(MINUTE - 1);
	assert_int_equal(world.asks, 1);
	pass(1);
	assert_int_equal(world.asks, 2);
	assert_run("parking", LEDGER_STARTED);
	world.on_ask = DEFAULT;
	pass(MINUTE);
	assert_waits_for("parking", "", false);
	world.on_ask = DRIVER_REFUSED;
	pass(5 * SECOND);
	assert_waits_for("parking", "its key is refused", true);
	world.on_ask = DEFAULT;
	find_there(run.id)->state = DRIVER_FAILED;
	pass(MINUTE);
	assert_run("parking", LEDGER_WRITTEN);
	assert_waits_for("parking", "exit 3", false); /* no person has to mend that */
}

static void test_one_that_does_not_answer(void **state)
{
	struct ledger_run run = begin_and_run();

	(void)state;
	world.on_ask = DRIVER_AWAY;
	pass(HOUR);
	assert_waits_for("parking", "it does not answer", false);
	assert_run("parking", LEDGER_STARTED);
	world.on_ask = DEFAULT;
	end_there(run.id, DRIVER_DONE);
	assert_run("parking", LEDGER_DONE);
	assert_int_equal(world.starts, 1);
}

/* --- What people ask for --- */

static void test_cancelled_before_it_is_started(void **state)
{
	struct ledger_run run;

	(void)state;
	add_job("parking", "batches >= 1");
	world.hold_puts = true;
	begin();
	bring("a");
	run = assert_run("parking", LEDGER_DUE);
	assert_int_equal(mill_cancel(mill, run.id, &box->err), 0);
	settle();
	world.hold_puts = false;
	settle();
	run = assert_run("parking", LEDGER_CANCELLED);
	assert_int_equal(count_objects(&run), 0);
	assert_int_equal(world.starts, 0);
	pass(DAY);
	assert_int_equal(count_runs(), 1);
}

static void test_cancelled_while_its_store_is_away(void **state)
{
	struct ledger_run run;

	(void)state;
	add_job("parking", "batches >= 1");
	world.put_fails = 100;
	begin();
	bring("a");
	run = run_of("parking");
	pass(10 * MINUTE);
	assert_int_equal(mill_cancel(mill, run.id, &box->err), 0);
	settle(); /* at once */
	assert_run("parking", LEDGER_CANCELLED);
}

static void test_cancelled_before_its_next_attempt(void **state)
{
	struct ledger_run run = begin_and_run();

	(void)state;
	end_there(run.id, DRIVER_FAILED);
	assert_int_equal(mill_cancel(mill, run.id, &box->err), 0);
	settle();
	assert_run("parking", LEDGER_CANCELLED);
	assert_false(find_said("run.cancelled")->bad);
	pass(DAY);
	assert_int_equal(world.starts, 1);
}

static void test_cancelled_while_it_runs(void **state)
{
	struct ledger_run run = begin_and_run();

	(void)state;
	assert_int_equal(mill_cancel(mill, run.id, &box->err), 0);
	assert_int_equal(mill_cancel(mill, run.id, &box->err), 0); /* twice is no harm */
	settle();
	assert_int_equal(world.cancels, 1);
	run = assert_run("parking", LEDGER_CANCELLED);
	assert_string_equal(run.reason, "cancelled");
	assert_log_put(&run, "log-1.gz", world.log);
	assert_int_equal(count_objects(&run), 0);
	bring("a"); /* the next one is not */
	assert_int_equal(world.starts, 2);
	assert_int_equal(world.cancels, 1);
}

static void test_cancelled_too_late(void **state)
{
	struct ledger_run run = begin_and_run();

	(void)state;
	world.there[0].state = DRIVER_DONE;
	assert_int_equal(mill_cancel(mill, run.id, &box->err), 0);
	settle();
	run = assert_run("parking", LEDGER_DONE);
	assert_string_equal(run.reason, "");
}

static void test_one_that_may_go_on_is_cancelled(void **state)
{
	struct ledger_run run = begin_and_run();

	(void)state;
	world.on_cancel = DRIVER_REFUSED;
	assert_int_equal(mill_cancel(mill, run.id, &box->err), 0);
	settle();
	run = assert_run("parking", LEDGER_CANCELLED);
	assert_non_null(strstr(run.reason, "may go on there: its key is refused"));
}

static void test_cancelled_while_it_does_not_answer(void **state)
{
	struct ledger_run run = begin_and_run();

	(void)state;
	world.on_cancel = DRIVER_AWAY;
	assert_int_equal(mill_cancel(mill, run.id, &box->err), 0);
	pass(MINUTE);
	assert_run("parking", LEDGER_STARTED);
	assert_waits_for("parking", "it does not answer", false);
	world.on_cancel = DEFAULT;
	pass(5 * SECOND);
	assert_run("parking", LEDGER_CANCELLED);
}

static void test_a_start_that_a_person_asks_for(void **state)
{
	struct ledger_run run;

	(void)state;
	add_job("parking", "batches >= 3");
	add_job("gold", "age >= 6h");
	begin();
	assert_int_equal(mill_start(mill, "nobody", &box->err), -ENOENT);
	assert_non_null(strstr(box->err.text, "nobody"));
	assert_int_equal(mill_start(mill, "gold", &box->err), 0);
	settle();
	run = assert_run("gold", LEDGER_STARTED); /* of nothing */
	assert_int_equal(run.objects, 0);
	assert_lists(&world.there[0].manifest, &run, 0, 0);
	assert_int_equal(mill_start(mill, "gold", &box->err), -EBUSY);
	assert_non_null(strstr(box->err.text, run.id));
	end_there(run.id, DRIVER_DONE);
	assert_run("gold", LEDGER_DONE);
	pass(HOUR);
	assert_int_equal(world.starts, 1); /* once */
	bring("a");
	bring("a");
	assert_int_equal(world.starts, 1);
	assert_int_equal(mill_start(mill, "parking", &box->err), 0);
	settle();
	run = assert_run("parking", LEDGER_STARTED); /* of what is there */
	assert_lists(&world.there[1].manifest, &run, 0, 2);
	assert_int_equal(world.starts, 2);
}

static void test_what_nobody_knows(void **state)
{
	struct ledger_run run = begin_and_run();

	(void)state;
	assert_int_equal(mill_cancel(mill, "0123456789abcdef0123456789abcdef", &box->err), -ENOENT);
	assert_int_equal(mill_cancel(mill, "", &box->err), -ENOENT);
	assert_int_equal(mill_retry(mill, "0123456789abcdef0123456789abcdef", &box->err), -ENOENT);
	assert_int_equal(mill_retry(mill, "", &box->err), -ENOENT);
	assert_int_equal(mill_wake(mill, "nobody", &box->err), -ENOENT);
	assert_int_equal(mill_retry(mill, run.id, &box->err), -EBUSY); /* it runs */
	end_there(run.id, DRIVER_DONE);
	assert_int_equal(mill_cancel(mill, run.id, &box->err), -ENOENT);
}

/* Of a job that has another one on its way. */
static void test_a_parked_run_beside_another_one(void **state)
{
	struct ledger_run run = fail_thrice(), next;

	(void)state;
	bring("a");
	next = assert_run("parking", LEDGER_STARTED);
	assert_int_equal(mill_retry(mill, run.id, &box->err), -EBUSY);
	assert_non_null(strstr(box->err.text, next.id));
	assert_int_equal(mill_cancel(mill, run.id, &box->err), 0);
	settle();
	assert_int_equal(find_run(run.id).state, LEDGER_CANCELLED);
	assert_int_equal(find_run(next.id).state, LEDGER_STARTED);
	end_there(next.id, DRIVER_DONE);
	assert_int_equal(find_run(next.id).state, LEDGER_DONE);
}

/* One that waits for its next attempt need not. */
static void test_a_retry_at_once(void **state)
{
	struct ledger_run run = begin_and_run();

	(void)state;
	end_there(run.id, DRIVER_FAILED);
	assert_int_equal(mill_retry(mill, run.id, &box->err), 0);
	settle();
	assert_attempt(&run, 2);
}

/* --- What is not as it was --- */

static void test_a_job_with_another_store(void **state)
{
	struct ledger_run run;

	(void)state;
	add_job("parking", "batches >= 1");
	begin();
	end();
	bring_quietly("a", "lake");
	jobs[0].store = "disk";
	begin();
	run = assert_run("parking", LEDGER_PARKED);
	assert_string_equal(run.store, "lake");
	assert_non_null(strstr(run.reason, "\"lake\""));
	assert_non_null(strstr(run.reason, "\"disk\""));
	assert_int_equal(world.n_puts + world.starts, 0);
	assert_int_equal(count_objects(&run), 1);
	end();
	jobs[0].store = "lake";
	begin();
	assert_int_equal(mill_retry(mill, run.id, &box->err), 0);
	settle();
	assert_int_equal(world.starts, 1);
	assert_run("parking", LEDGER_STARTED);
}

/* What a damaged buffer has lost does not hold up its job. */
static void test_a_run_that_is_gone(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct ledger_run run = begin_and_run();

		if (i == 0) { /* while it runs, and while its manifest is listed again */
			sqlite3_exec(box->q->db, "DELETE FROM run", NULL, NULL, NULL);
		} else {
			end();
			world.on_ask = DRIVER_UNKNOWN;
			mill = new_mill();
			turn_until(&world.asks, 1);
			sqlite3_exec(box->q->db, "DELETE FROM run", NULL, NULL, NULL);
			settle();
			world.on_ask = DEFAULT;
		}
		bring("a");
		end_there(run.id, DRIVER_DONE);
		assert_int_equal(count_said("run.gone"), 1);
		assert_true(find_said("run.gone")->bad);
		pass(MINUTE);
		assert_int_equal(world.starts, 2);
		tear_down(state);
		set_up(state);
	}
}

/* A buffer that is out of reach has not lost the run. */
static void test_a_folder_that_is_gone_for_a_while(void **state)
{
	struct ledger_run run = begin_and_run();
	char aside[160];

	(void)state;
	snprintf(aside, sizeof aside, "%s-aside", box->folder);
	box->q->damaged = true;
	assert_int_equal(rename(box->folder, aside), 0);
	assert_int_equal(queue_start(box->q, true, &box->err), -ENOENT);
	world.there[0].state = DRIVER_DONE;
	pass(MINUTE);
	assert_int_not_equal(*view_job("parking").waits_for, '\0');
	assert_int_equal(rename(aside, box->folder), 0);
	assert_int_equal(queue_start(box->q, true, &box->err), 1);
	pass(5 * MINUTE);
	assert_int_equal(count_said("run.gone"), 0);
	assert_string_equal(assert_run("parking", LEDGER_DONE).id, run.id);
}

/* Nothing is started that the ledger does not know as started. */
static void test_a_card_that_takes_nothing(void **state)
{
	struct ledger_run run;

	(void)state;
	add_job("parking", "batches >= 1");
	begin();
	bring_quietly("a", "lake");
	card_errno = EIO;
	mill_nudge(mill);
	pass(HOUR);
	assert_int_equal(world.n_puts + world.starts, 0);
	assert_int_not_equal(*view_job("parking").waits_for, '\0');
	card_errno = 0;
	world.put_fails = 1;
	world.hold_puts = true;
	pass(5 * MINUTE);
	assert_int_equal(world.n_puts, 1);
	world.hold_puts = false;
	settle();
	world.hold_puts = true;
	pass(5 * SECOND); /* the store has not failed for an hour */
	run = assert_run("parking", LEDGER_DUE);
	assert_int_equal(world.n_puts, 2);
	card_errno = EROFS;
	world.hold_puts = false;
	pass(HOUR);
	assert_int_equal(world.starts, 0);
	assert_run("parking", LEDGER_DUE);
	card_errno = 0;
	pass(5 * MINUTE);
	assert_int_equal(world.starts, 1);
	assert_string_equal(assert_run("parking", LEDGER_STARTED).id, run.id);
}

static void test_a_remote_id(void **state)
{
	struct ledger_run run;

	(void)state;
	world.remote = "spark-42";
	run = begin_and_run();
	assert_string_equal(run.remote, "spark-42");
	pass(MINUTE);
	assert_true(world.there[0].asks > 10);
	start_again();
	pass(MINUTE);
	assert_true(world.there[0].asks > 20);
	end_there(run.id, DRIVER_FAILED);
	world.remote = "spark-43";
	pass(MINUTE);
	run = assert_run("parking", LEDGER_STARTED); /* each attempt has its own */
	assert_string_equal(run.remote, "spark-43");
	assert_int_equal(mill_cancel(mill, run.id, &box->err), 0);
	settle();
	assert_int_equal(world.there[1].cancels, 1);
	assert_run("parking", LEDGER_CANCELLED);
	assert_int_equal(world.again, 0);
	assert_true(world.noted_first);
}

/* It cannot be written down, and so nothing is asked by it. */
static void test_a_remote_id_on_a_card_that_takes_nothing(void **state)
{
	(void)state;
	world.remote = "spark-42";
	world.hold_driver = true;
	begin_and_run();
	start_again(); /* it got there, and nobody heard of it */
	world.hold_driver = false;
	end();
	mill = new_mill();
	turn_until(&world.starts, 2);
	card_errno = EIO;
	pass(MINUTE);
	assert_int_equal(world.there[0].asks, 0);
	card_errno = 0;
	pass(MINUTE);
	assert_true(world.there[0].asks > 0);
	assert_true(world.noted_first);
	assert_string_equal(run_of("parking").remote, "spark-42");
}

/* --- Machines --- */

static struct mill_machine_view view_machine(void)
{
	static char reason[ERR_MAX];
	struct mill_view *view = mill_view(mill);
	struct mill_machine_view found;

	assert_non_null(view);
	assert_int_equal(view->n_machines, 1);
	found = view->machines[0];
	assert_string_equal(found.name, "mill");
	if (found.known) {
		snprintf(reason, sizeof reason, "%s", found.machine.reason);
		found.machine.reason = reason;
	}
	mill_view_free(view);
	return found;
}

/* As people see it, and as the ledger has it. */
static void assert_machine(enum ledger_machine_state state)
{
	struct mill_machine_view view = view_machine();
	struct ledger_machine row = { .state = LEDGER_ASLEEP }; /* a new one's */
	int r = ledger_find_machine(box->q, "mill", &row, &box->err);

	if (view.machine.state != state)
		fail_msg("machine: state %d, not %d: %s", view.machine.state, state, view.machine.reason);
	assert_true(r == 0 || r == -ENOENT);
	assert_int_equal(row.state, state);
}

static uint64_t count_wakes(void)
{
	struct ledger_day days[LEDGER_DAYS];
	int n = ledger_days(box->q, "mill", days, LEDGER_DAYS, &box->err);
	uint64_t wakes = 0;

	for (int i = 0; i < n; i++)
		wakes += days[i].wakes;
	return wakes;
}

static bool take_woken(void)
{
	return remove(woken + strlen("touch ")) == 0;
}

/* Both jobs want the machine, which sleeps; what waits is flushed as the test says. */
static void begin_two_jobs(bool hold_flush)
{
	add_job("parking", "batches >= 1");
	add_job("weather", "batches >= 1");
	add_machine();
	world.hold_flush = hold_flush;
	begin();
	bring("a");
}

static void test_two_jobs_share_a_wake(void **state)
{
	(void)state;
	begin_two_jobs(true);
	assert_int_equal(world.flushes, 1);
	assert_int_equal(count_runs(), 0);
	assert_waits_for("parking", "sealed and delivered first", false);
	bring("a"); /* what the flush brings is theirs, too */
	assert_int_equal(count_runs(), 0);
	assert_false(take_woken());
	world.hold_flush = false;
	settle();
	assert_int_equal(world.flushes, 1);
	assert_int_equal(count_runs(), 2);
	assert_int_equal(assert_run("parking", LEDGER_WRITTEN).objects, 2);
	assert_int_equal(assert_run("weather", LEDGER_WRITTEN).objects, 2);
	assert_machine(LEDGER_WAKING);
	assert_true(take_woken());
	pass(MINUTE);
	assert_int_equal(world.starts, 0);
	assert_waits_for("parking", "waits for machine mill", false);
	open_port();
	pass(5 * SECOND);
	assert_int_equal(world.starts, 2);
	assert_machine(LEDGER_RUNNING);
	assert_waits_for("parking", "", false);
	end_there(run_of("parking").id, DRIVER_DONE);
	assert_machine(LEDGER_RUNNING);
	end_there(run_of("weather").id, DRIVER_DONE);
	assert_machine(LEDGER_IDLE);
	pass(DAY);
	assert_machine(LEDGER_IDLE); /* sleep = false */
	assert_int_equal(count_wakes(), 1);
	assert_false(take_woken());
}

static void test_a_flush_that_never_ends(void **state)
{
	(void)state;
	begin_two_jobs(true);
	pass(30 * SECOND - 1);
	assert_int_equal(count_runs(), 0);
	pass(1);
	assert_int_equal(count_runs(), 2);
	assert_machine(LEDGER_WAKING);
	world.hold_flush = false; /* late */
	open_port();
	pass(10 * SECOND);
	assert_int_equal(world.flushes, 1);
	assert_int_equal(count_runs(), 2);
	assert_int_equal(world.starts, 2);
}

/* One that is awake for somebody else is not held up. */
static void test_a_machine_that_is_ready(void **state)
{
	(void)state;
	add_job("parking", "batches >= 1");
	add_job("weather", "batches >= 2");
	add_machine();
	open_port();
	begin();
	world.hold_flush = true;
	bring("a");
	assert_int_equal(world.starts, 0);
	world.hold_flush = false;
	settle();
	assert_int_equal(world.starts, 1);
	assert_machine(LEDGER_RUNNING);
	assert_false(view_machine().machine.ours);
	world.hold_flush = true;
	bring("a");
	assert_int_equal(world.starts, 2);
	assert_int_equal(world.flushes, 1);
	end_there(run_of("weather").id, DRIVER_DONE);
	assert_machine(LEDGER_RUNNING);
	end_there(run_of("parking").id, DRIVER_DONE);
	assert_int_equal(world.starts, 3);
	end_there(run_of("parking").id, DRIVER_DONE);
	assert_machine(LEDGER_IDLE);
	bring("a"); /* it may have gone to sleep unseen */
	assert_int_equal(world.flushes, 2);
	world.hold_flush = false;
	settle();
	assert_int_equal(world.starts, 4);
	assert_int_equal(count_wakes(), 0);
}

static struct ledger_run begin_and_run_there(void)
{
	struct ledger_run run;

	add_job("parking", "batches >= 1");
	add_machine();
	begin();
	bring("a");
	open_port();
	pass(5 * SECOND);
	run = assert_run("parking", LEDGER_STARTED);
	assert_machine(LEDGER_RUNNING);
	assert_int_equal(count_wakes(), 1);
	return run;
}

static void test_a_machine_that_is_lost(void **state)
{
	struct ledger_run run = begin_and_run_there();
	unsigned asks;

	(void)state;
	assert_true(take_woken());
	close_port();
	world.on_ask = DRIVER_AWAY;
	pass(4 * MINUTE);
	assert_machine(LEDGER_WAKING); /* it is wanted */
	assert_true(take_woken());
	asks = world.asks;
	pass(HOUR);
	assert_int_equal(world.asks, asks);
	assert_waits_for("parking", "waits for machine mill", false);
	assert_run("parking", LEDGER_STARTED);
	world.on_ask = DEFAULT;
	open_port();
	pass(2 * MINUTE);
	assert_machine(LEDGER_RUNNING);
	assert_true(world.asks > asks);
	end_there(run.id, DRIVER_DONE);
	assert_run("parking", LEDGER_DONE);
	assert_machine(LEDGER_IDLE);
	assert_int_equal(world.starts, 1);
}

/* What is answered by another way tells that it is there. */
static void test_a_port_that_is_closed_while_it_answers(void **state)
{
	struct ledger_run run = begin_and_run_there();

	(void)state;
	close_port();
	pass(HOUR);
	assert_machine(LEDGER_RUNNING);
	end_there(run.id, DRIVER_DONE);
	assert_run("parking", LEDGER_DONE);
}

/* But where others answer than the machine. */
static void test_a_port_that_is_closed_while_others_answer(void **state)
{
	static struct driver_ops elsewhere;

	(void)state;
	elsewhere = fake;
	elsewhere.of_machine = false;
	fake_ops = &elsewhere;
	begin_and_run_there();
	fake_ops = &fake;
	close_port();
	pass(MACHINE_LOST_MS + 2 * MINUTE);
	assert_machine(LEDGER_WAKING);
}

static void test_start_again_with_a_machine(void **state)
{
	struct ledger_run run = begin_and_run_there();

	(void)state;
	start_again();
	pass(MINUTE);
	assert_machine(LEDGER_RUNNING);
	assert_true(world.there[0].asks > 10);
	end_there(run.id, DRIVER_DONE);
	assert_machine(LEDGER_IDLE);
	assert_true(view_machine().machine.ours);
	assert_int_equal(count_wakes(), 1);
	assert_int_equal(world.starts, 1);
}

static void test_wake_commands_that_fail(void **state)
{
	(void)state;
	settings.command = "sh -c exit";
	begin_two_jobs(false);
	assert_machine(LEDGER_WAKING);
	end();
	settings.command = "/bin/false";
	begin();
	assert_waits_for("parking", "its wake command ended with 1", false);
	assert_null(strstr(view_job("parking").waits_for, "with 1:")); /* it has said nothing */
	assert_int_equal(count_wakes(), 1);
	end();
	settings.command = "cat /nowhere/wake";
	begin();
	assert_waits_for("parking", "its wake command ended with 1: cat: ", false);
	end();
	settings.command = "/nowhere/wake";
	begin();
	assert_waits_for("parking", "/nowhere/wake", false);
	pass(4 * MINUTE);
	assert_machine(LEDGER_ASLEEP);
	assert_waits_for("parking", "did not answer within 3m", false);
	pass(5 * MINUTE);
	assert_machine(LEDGER_WAKING);
	assert_int_equal(world.starts, 0);
	assert_int_equal(count_wakes(), 2);
}

/* What happens to it is told before the machine counts as late, and with that. */
static void test_a_wake_command_that_hangs(void **state)
{
	(void)state;
	settings.command = "sleep 1000";
	add_job("parking", "batches >= 1");
	add_machine();
	begin();
	bring_quietly("a", "lake");
	mill_nudge(mill);
	for (int i = 0; !mill->stands[0]->child; i++) {
		assert_true(i < 10000);
		turn();
	}
	mono_ms += 3 * MINUTE - SECOND; /* at once: nothing is quiet while it runs */
	wall_ms += 3 * MINUTE - SECOND;
	settle();
	assert_machine(LEDGER_WAKING);
	assert_waits_for("parking", "its wake command did not end by itself, and was killed", false);
	pass(SECOND);
	assert_machine(LEDGER_ASLEEP);
	assert_waits_for("parking", "did not answer within 3m of its wake: its wake command did not end", false);
	end();
	settings.command = woken;
}

static void test_a_wake_command_that_prints_without_end(void **state)
{
	(void)state;
	settings.command = "yes";
	begin_two_jobs(false);
	assert_machine(LEDGER_WAKING);
	assert_waits_for("parking", "its wake command was killed: it prints more than 4 KB", false);
	end();
	settings.command = woken;
}

/* Its look is under way, and its command. */
static void test_closed_while_it_wakes(void **state)
{
	(void)state;
	settings.command = "sleep 60";
	add_job("parking", "batches >= 1");
	add_machine();
	begin();
	bring_quietly("a", "lake");
	mill_nudge(mill);
	for (int i = 0; !mill->stands[0]->child; i++) {
		assert_true(i < 10000);
		turn();
	}
	assert_false(mill_idle(mill));
	end();
	settings.command = woken;
	begin();
	assert_machine(LEDGER_WAKING);
	assert_true(take_woken());
	assert_int_equal(count_wakes(), 1);
}

static void test_a_wake_that_a_person_asks_for(void **state)
{
	(void)state;
	add_job("parking", "batches >= 1");
	add_machine();
	begin();
	assert_int_equal(view_machine().machine.state, LEDGER_ASLEEP);
	assert_int_equal(mill_wake(mill, "mill", &box->err), 0);
	settle();
	assert_machine(LEDGER_WAKING);
	assert_true(take_woken());
	open_port();
	pass(5 * SECOND);
	assert_machine(LEDGER_IDLE);
	assert_int_equal(world.flushes + world.starts, 0);
	end();
	settings.wake = MACHINE_NONE;
	begin();
	assert_int_equal(mill_wake(mill, "mill", &box->err), -ENOTSUP);
	assert_non_null(strstr(box->err.text, "never woken"));
}

static void test_a_machine_that_is_always_on(void **state)
{
	(void)state;
	settings.wake = MACHINE_NONE;
	begin_two_jobs(false);
	pass(HOUR);
	assert_machine(LEDGER_ASLEEP);
	assert_int_equal(world.starts, 0);
	assert_waits_for("parking", "port", false);
	open_port();
	pass(MINUTE);
	assert_int_equal(world.starts, 2);
	assert_false(take_woken());
	assert_int_equal(count_wakes(), 0);
}

static void test_cancelled_while_its_machine_sleeps(void **state)
{
	struct ledger_run one, other;

	(void)state;
	begin_two_jobs(false);
	assert_machine(LEDGER_WAKING);
	one = run_of("parking");
	other = run_of("weather");
	assert_int_equal(mill_cancel(mill, one.id, &box->err), 0);
	assert_int_equal(mill_cancel(mill, other.id, &box->err), 0);
	settle();
	assert_run("parking", LEDGER_CANCELLED);
	assert_run("weather", LEDGER_CANCELLED);
	pass(DAY);
	assert_machine(LEDGER_ASLEEP);
	assert_int_equal(count_wakes(), 1);
}

/* --- Machines behind ssh, for which a script stands in --- */

static char path_before[4096];

static void write_script(const char *health, const char *sleep, int status)
{
	char path[160];
	FILE *file;

	snprintf(path, sizeof path, "%s/ssh", box->folder);
	file = fopen(path, "w");
	assert_non_null(file);
	fprintf(file,
	        "#!/bin/sh\nfor verb; do :; done\n[ \"$verb\" = sleep ] && echo '%s' || echo '%s'\n"
	        "[ %d = 0 ] || echo 'millrace-worker: it is not set up' >&2\nexit %d\n",
	        sleep, health, status, status);
	assert_int_equal(fchmod(fileno(file), 0700), 0);
	fclose(file);
}

#define HEALTH                                                                                                         \
	"{\"protocol\":1,\"worker\":\"0.1.0\",\"jobs\":[],\"running\":[],\"sessions\":0,\"awake\":\"1\",\"sleep_"      \
	"error\":"                                                                                                     \
	"null}"

static int set_up_ssh(void **state)
{
	static char key[160];
	char path[4096 + 160];
	int fd;

	set_up(state);
	snprintf(path_before, sizeof path_before, "%s", getenv("PATH"));
	snprintf(path, sizeof path, "%s:%s", box->folder, path_before);
	setenv("PATH", path, 1);
	snprintf(key, sizeof key, "file:%s/key", box->folder);
	fd = creat(key + strlen("file:"), 0600);
	assert_true(fd >= 0);
	close(fd);
	settings.key = key;
	settings.user = "millrace";
	settings.port = 22;
	settings.sleep = true;
	return 0;
}

static int tear_down_ssh(void **state)
{
	setenv("PATH", path_before, 1);
	return tear_down(state);
}

static void test_a_machine_that_is_put_to_sleep(void **state)
{
	struct ledger_run run;

	(void)state;
	write_script(HEALTH, "{\"asleep\":false,\"because\":\"somebody is logged in\"}", 0);
	run = begin_and_run_there();
	end_there(run.id, DRIVER_DONE);
	assert_machine(LEDGER_IDLE);
	pass(11 * MINUTE);
	assert_machine(LEDGER_IDLE);
	assert_non_null(strstr(view_machine().machine.reason, "somebody is logged in"));
	write_script(HEALTH, "{\"asleep\":true}", 0);
	pass(10 * MINUTE);
	assert_machine(LEDGER_SLEEPING);
	close_port();
	pass(MINUTE);
	assert_machine(LEDGER_ASLEEP);
	assert_false(view_machine().machine.ours);
	assert_int_equal(count_wakes(), 1);
}

static void test_it_sleeps_between_attempts(void **state)
{
	struct ledger_run run;

	(void)state;
	settings.idle_ms = 10 * SECOND;
	write_script(HEALTH, "{\"asleep\":true}", 0);
	run = begin_and_run_there();
	assert_true(take_woken());
	end_there(run.id, DRIVER_FAILED);
	pass(10 * SECOND);
	assert_machine(LEDGER_SLEEPING);
	close_port();
	pass(20 * SECOND);
	assert_machine(LEDGER_ASLEEP);
	pass(30 * SECOND);
	assert_machine(LEDGER_WAKING);
	assert_true(take_woken());
	assert_int_equal(count_wakes(), 2);
	assert_int_equal(world.starts, 1);
	open_port();
	pass(5 * SECOND);
	assert_attempt(&run, 2);
}

static void test_a_machine_that_answers_by_ssh(void **state)
{
	(void)state;
	settings.ready = MACHINE_SSH;
	write_script("", "", 255);
	begin_two_jobs(false);
	assert_machine(LEDGER_WAKING);
	write_script(HEALTH, "", 78);
	pass(10 * SECOND);
	assert_machine(LEDGER_UP);
	assert_int_equal(world.starts, 0);
	assert_waits_for("parking", "it is not set up", false); /* the machine's trouble, and told with it */
	assert_true(view_machine().machine.refuses);
	assert_true(find_said("machine.changed")->bad);
	write_script(HEALTH, "", 0);
	pass(MINUTE);
	assert_machine(LEDGER_RUNNING);
	assert_int_equal(world.starts, 2);
	assert_waits_for("parking", "", false);
}

#define SSH_TEST(test) cmocka_unit_test_setup_teardown(test, set_up_ssh, tear_down_ssh)

/* --- A buffer that is not open yet --- */

static void close_box(void)
{
	box_close(box);
	box->q = queue_new(box->path, &box->identity);
	assert_non_null(box->q);
	box_route(box, 2, INT64_C(8) << 20, 1000);
	tell_jobs(box->q);
}

static void test_a_buffer_that_is_not_open(void **state)
{
	struct ledger_run run = begin_and_run_there();

	(void)state;
	end();
	close_box();
	mill = new_mill();
	assert_int_equal(mill_wake(mill, "mill", &box->err), -EAGAIN);
	pass(HOUR);
	assert_int_equal(mill_start(mill, "parking", &box->err), -EAGAIN);
	assert_int_equal(mill_cancel(mill, run.id, &box->err), -EAGAIN);
	assert_int_equal(mill_retry(mill, run.id, &box->err), -EAGAIN);
	assert_false(view_machine().known);
	assert_null(view_job("parking").run);
	mill_nudge(mill);
	settle();
	assert_false(view_machine().known);
	assert_int_equal(world.asks, 0);
	assert_int_equal(queue_start(box->q, true, &box->err), 0);
	mill_nudge(mill);
	settle();
	assert_true(view_machine().known);
	assert_machine(LEDGER_RUNNING);
	assert_string_equal(view_job("parking").run->id, run.id);
	assert_int_equal(world.asks, 1);
	end_there(run.id, DRIVER_DONE);
	assert_run("parking", LEDGER_DONE);
	bring("a");
	assert_run("parking", LEDGER_STARTED);
}

/* Nobody told it. */
static void test_a_buffer_that_is_opened_unseen(void **state)
{
	(void)state;
	begin_and_run();
	end();
	close_box();
	mill = new_mill();
	pass(HOUR);
	assert_int_equal(queue_start(box->q, true, &box->err), 0);
	pass(5 * MINUTE);
	assert_true(world.asks > 0);
}

static void test_closed_before_it_is_loaded(void **state)
{
	(void)state;
	add_job("parking", "batches >= 1");
	add_machine();
	tell_jobs(box->q);
	mill = new_mill();
	assert_false(mill_idle(mill));
	end();
	close_box();
	for (int i = 0; i < 2; i++) { /* while it reads, and while it waits to read again */
		mill = new_mill();
		if (i == 1)
			settle();
		end();
	}
	box_close(box);
	box_open(box);
}

/* --- What people see --- */

static void test_a_view_of_jobs(void **state)
{
	struct mill_job_view view;
	struct ledger_run run;

	(void)state;
	add_job("parking", "batches >= 3");
	begin();
	view = view_job("parking");
	assert_null(view.machine);
	assert_null(view.run);
	assert_int_equal(view.parked, 0);
	assert_string_equal(view.last_parked, "");
	bring("_polls");
	bring("a");
	pass(HOUR);
	bring("a");
	view = view_job("parking");
	assert_int_equal(view.due.batches, 2);
	assert_int_equal(view.due.others, 1);
	assert_true(view.due.oldest_ms == NOON);
	assert_null(view.run);
	bring("a");
	view = view_job("parking");
	run = run_of("parking");
	assert_int_equal(view.due.batches, 0);
	assert_int_equal(view.due.others, 0);
	assert_string_equal(view.run->id, run.id);
	assert_int_equal(view.run->state, LEDGER_STARTED);
	assert_int_equal(view.run->attempt, 1);
	assert_int_equal(view.run->objects, 4);
	assert_true(view.run->started_ms == NOON + HOUR);
	assert_string_equal(view.waits_for, "");
	end_there(run.id, DRIVER_DONE);
	assert_null(view_job("parking").run);
}

/* Of four days in all, of which two belong to the month before. */
static void test_a_view_of_days(void **state)
{
	const int64_t first = NOON / DAY - 20; /* 2026-11-01 */
	struct ledger_machine row = { .name = "mill", .since_ms = NOON - HOUR };
	struct mill_machine_view view;

	(void)state;
	wall_ms += 8 * DAY; /* 2026-11-29 */
	for (int64_t day = first - 2; day < first + 2; day++) {
		const struct ledger_day add = { .day = day, .wakes = 3, .awake_ms = HOUR };

		assert_int_equal(ledger_put_machine(box->q, &row, &add, &box->err), 0);
	}
	add_job("parking", "batches >= 1");
	add_machine();
	begin();
	view = view_machine();
	assert_int_equal(view.watts, 90);
	assert_true(view.machine.since_ms == NOON - HOUR);
	assert_int_equal(view.wakes_today, 0);
	assert_true(view.awake_today_ms == 0);
	assert_int_equal(view.wakes_month, 6);
	assert_true(view.awake_month_ms == 2 * HOUR);
	assert_true(view.month_ms == 28 * DAY + 12 * HOUR);
	bring("a");
	pass(5 * SECOND);
	open_port();
	pass(5 * SECOND);
	assert_machine(LEDGER_RUNNING);
	end_there(run_of("parking").id, DRIVER_DONE);
	pass(2 * HOUR - 5 * SECOND);
	view = view_machine();
	assert_int_equal(view.wakes_today, 1);
	assert_int_equal(view.wakes_month, 7);
	assert_true(view.awake_today_ms >= HOUR && view.awake_today_ms <= 2 * HOUR);
	assert_true(view.awake_month_ms == view.awake_today_ms + 2 * HOUR);
	start_again();
	assert_true(view_machine().awake_month_ms == view.awake_month_ms);
	assert_int_equal(view_machine().wakes_month, 7);
	pass(10 * HOUR);
	assert_int_equal(view_machine().wakes_today, 0); /* it is the next day */
	assert_int_equal(view_machine().wakes_month, 7);
	assert_true(view_machine().awake_month_ms > 12 * HOUR);
	pass(DAY + 22 * HOUR);
	assert_int_equal(view_machine().wakes_month, 0); /* it is December */
	assert_true(view_machine().month_ms == 22 * HOUR + 10 * SECOND);
	assert_true(view_machine().awake_month_ms >= 21 * HOUR);
	assert_true(view_machine().awake_month_ms <= view_machine().month_ms);
}

static void test_a_machine_that_is_new_this_month(void **state)
{
	(void)state;
	add_job("parking", "batches >= 1");
	add_machine();
	begin();
	assert_true(view_machine().month_ms == 0);
	assert_int_equal(mill_wake(mill, "mill", &box->err), 0);
	settle();
	assert_true(view_machine().month_ms == 12 * HOUR);
	pass(2 * DAY);
	assert_true(view_machine().month_ms == 60 * HOUR);
}

/* A list that is full loses what comes, and that is told. */
static void test_objects_that_no_run_will_have(void **state)
{
	bool done;

	(void)state;
	add_job("parking", "batches >= 100");
	begin();
	for (int i = 0; i < 4; i++) {
		box_add(box, "a", i, 9);
		assert_int_equal(box_seal(box, i, true), 1);
		box->q->bounds.max_size = 2 * 8 * 512; /* two rows */
		assert_int_equal(queue_delivered(box->q, box->batch.id, "lake", wall_ms, &done, &box->err), 0);
		box->q->bounds.max_size = 0;
		mill_nudge(mill);
		settle();
		assert_int_equal(count_said("job.missed"), i < 2 ? 0 : i - 1);
	}
	assert_true(find_said("job.missed")->bad);
	assert_int_equal(view_job("parking").due.missed, 2);
	start_again();
	assert_int_equal(count_said("job.missed"), 2);
}

static const struct CMUnitTest tests[] = {
	TEST(test_a_run),
	TEST(test_time_makes_it_due),
	TEST(test_cron),
	TEST(test_cron_across_a_start),
	TEST(test_after),
	TEST(test_after_one_that_failed),
	TEST(test_polls_alone_make_nothing_due),
	TEST(test_the_next_run),
	TEST(test_a_delivery_while_it_looks),
	TEST(test_deliveries_hurry_nothing),
	TEST(test_a_run_that_fails),
	TEST(test_a_parked_run_is_retried),
	TEST(test_a_parked_run_is_cancelled),
	TEST(test_five_parked_runs),
	TEST(test_start_again_while_it_runs),
	TEST(test_start_again_where_it_never_got_there),
	TEST(test_start_again_before_its_next_attempt),
	TEST(test_start_again_with_a_parked_one),
	TEST(test_a_manifest_that_would_be_another_one),
	TEST(test_start_again_at_each_turn),
	TEST(test_reload_at_each_turn),
	TEST(test_the_card_fails_at_each_turn),
	TEST(test_the_store_fails_at_each_turn),
	TEST(test_the_link_fails_at_each_turn),
	TEST(test_cancelled_at_each_turn),
	TEST(test_a_manifest_that_cannot_be_put),
	TEST(test_a_store_that_is_away_for_long),
	TEST(test_a_log_that_cannot_be_had),
	TEST(test_a_long_log),
	TEST(test_a_log_without_end),
	TEST(test_a_manifest_that_changes_under_its_run),
	TEST(test_a_job_that_moves),
	TEST(test_a_start_that_is_refused_and_begins),
	TEST(test_all_is_refused_for_days),
	TEST(test_forgotten_while_it_runs),
	TEST(test_a_log_that_no_store_takes),
	TEST(test_the_device_is_kept),
	TEST(test_start_again_after_a_retry),
	TEST(test_after_a_clock_that_jumps),
	TEST(test_age_of_what_came_from_the_future),
	TEST(test_cron_before_anything_waited),
	TEST(test_a_port_that_is_closed_while_others_answer),
	TEST(test_a_log_that_does_not_compress),
	TEST(test_a_driver_without_logs),
	TEST(test_one_that_takes_too_long),
	TEST(test_one_that_is_done_at_the_last_moment),
	TEST(test_one_that_cannot_be_ended),
	TEST(test_one_that_ends_slowly),
	TEST(test_its_time_goes_on_across_a_start),
	TEST(test_a_start_that_is_refused),
	TEST(test_a_question_that_is_refused),
	TEST(test_one_that_does_not_answer),
	TEST(test_cancelled_before_it_is_started),
	TEST(test_cancelled_while_its_store_is_away),
	TEST(test_cancelled_before_its_next_attempt),
	TEST(test_cancelled_while_it_runs),
	TEST(test_cancelled_too_late),
	TEST(test_one_that_may_go_on_is_cancelled),
	TEST(test_cancelled_while_it_does_not_answer),
	TEST(test_a_start_that_a_person_asks_for),
	TEST(test_what_nobody_knows),
	TEST(test_a_parked_run_beside_another_one),
	TEST(test_a_retry_at_once),
	TEST(test_a_job_with_another_store),
	TEST(test_a_run_that_is_gone),
	TEST(test_a_folder_that_is_gone_for_a_while),
	TEST(test_a_card_that_takes_nothing),
	TEST(test_a_remote_id),
	TEST(test_a_remote_id_on_a_card_that_takes_nothing),
	TEST(test_two_jobs_share_a_wake),
	TEST(test_a_flush_that_never_ends),
	TEST(test_a_machine_that_is_ready),
	TEST(test_a_machine_that_is_lost),
	TEST(test_a_port_that_is_closed_while_it_answers),
	TEST(test_start_again_with_a_machine),
	TEST(test_wake_commands_that_fail),
	TEST(test_a_wake_command_that_hangs),
	TEST(test_a_wake_command_that_prints_without_end),
	TEST(test_closed_while_it_wakes),
	TEST(test_a_wake_that_a_person_asks_for),
	TEST(test_a_machine_that_is_always_on),
	TEST(test_cancelled_while_its_machine_sleeps),
	SSH_TEST(test_a_machine_that_is_put_to_sleep),
	SSH_TEST(test_it_sleeps_between_attempts),
	SSH_TEST(test_a_machine_that_answers_by_ssh),
	TEST(test_a_buffer_that_is_not_open),
	TEST(test_a_buffer_that_is_opened_unseen),
	TEST(test_closed_before_it_is_loaded),
	TEST(test_a_view_of_jobs),
	TEST(test_a_view_of_days),
	TEST(test_a_machine_that_is_new_this_month),
	TEST(test_objects_that_no_run_will_have),
};

int main(void)
{
	setenv("TZ", "UTC", 1);
	if (access("/dev/shm", W_OK) == 0)
		setenv("TMPDIR", "/dev/shm", 0); /* what a power cut leaves is asked elsewhere */
	tzset();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
