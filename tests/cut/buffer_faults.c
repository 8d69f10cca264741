/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Single calls that fail, on the way from open over commit, stage, seal, import, deliver and expire to close, of a new
 * buffer, of one that has content and a WAL about to be brought into the file, of one with the first schema, and of one
 * that is damaged in a way that a salvage loses nothing of:
 *
 *     buffer_faults io EVERY    the n-th I/O call, for every EVERY-th n
 *     buffer_faults alloc N     the n-th allocation, N of them spread evenly over the way
 *
 * An I/O call fails once, for good until it is mended, or for good until a power cut; with an I/O error, or a write for
 * want of space. Each time the rest of the way has to hold once the fault is over, no acknowledged record may be lost,
 * and no fault may be taken for damage. Prints one line of JSON; exits with 1 at the first thing that is wrong.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/cut/alloc.h"
#include "tests/cut/chance.h"
#include "tests/cut/drive.h"
#include "tests/cut/shim.h"

#define SEED      20261121
#define HANGS     120                          /* seconds of one way */
#define NEARLY    (INT64_C(900) * (4096 + 24)) /* bytes of a WAL that is about to be brought into the file */
#define MAX_SIZE  (INT64_C(9) << 20)
#define TRIES     4
#define FILES     2
#define MANY_SEAL 64
#define SOME      60 /* calls that fill a buffer which is not full */

enum start { START_NEW, START_FULL, START_OLD, START_DAMAGED, STARTS };
enum course { COURSE_ONCE, COURSE_MENDED, COURSE_CUT, COURSES };

static const char *const start_names[STARTS] = { "new", "existing", "old", "damaged" };
static const char *const course_names[COURSES] = { "once", "for good", "for good, then a power cut" };

/* What a way begins with. */
struct template
{
	struct drive drive;
	struct file {
		char *data;
		size_t len;
	} files[FILES];
};

static struct drive drive;
static struct template templates[STARTS];
static struct {
	enum start start;
	enum course course;
	enum shim_fault fault;
	uint64_t n;
	bool allocates;
} now;

static const char *const suffixes[FILES] = { "", "-wal" };

static bool is_right(void)
{
	return drive.oracle.wrong[0] == '\0';
}

/* --- Where a way begins --- */

static void read_files(struct template *t)
{
	char path[200];
	struct stat st;

	for (int i = 0; i < FILES; i++) {
		struct file *file = &t->files[i];
		int fd;

		snprintf(path, sizeof path, "%s%s", drive.path, suffixes[i]);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		if (fstat(fd, &st) < 0 || !(file->data = malloc((size_t)st.st_size + 1)) ||
		    read(fd, file->data, (size_t)st.st_size) != st.st_size)
			abort();
		file->len = (size_t)st.st_size;
		close(fd);
	}
}

static void write_files(const struct template *t)
{
	char path[200];

	for (int i = 0; i < FILES; i++) {
		int fd;

		if (!t->files[i].data)
			continue;
		snprintf(path, sizeof path, "%s%s", drive.path, suffixes[i]);
		fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
		if (fd < 0 || write(fd, t->files[i].data, t->files[i].len) != (ssize_t)t->files[i].len)
			abort();
		close(fd);
	}
}

static int64_t wal_bytes(void)
{
	char path[200];
	struct stat st;

	snprintf(path, sizeof path, "%s-wal", drive.path);
	return stat(path, &st) == 0 ? st.st_size : 0;
}

/* The template's content follows from the seed; the bounds come later, because with them a new file has a large WAL. */
static void make_template(enum start start)
{
	struct template *t = &templates[start];

	drive_begin(&drive, SEED);
	if (start != START_NEW) {
		if (drive_open(&drive) < 0)
			oracle_fail(&drive.oracle, "%s", drive.err.text);
		for (int i = 0; is_right() && (start == START_FULL ? wal_bytes() < NEARLY : i < SOME); i++)
			drive_any(&drive, start == START_OLD);
		drive_close(&drive);
	}
	if (start != START_NEW && is_right() && drive_open(&drive) == 0)
		drive_close(&drive); /* now every object was judged, and all ways share it */
	if (start == START_OLD)
		drive_age(&drive, 1);
	if (start == START_DAMAGED && !drive_damage(&drive))
		oracle_fail(&drive.oracle, "there is nothing to damage");
	drive.max_size = MAX_SIZE;
	bytes_done(&drive.foreign.object);
	read_files(t);
	t->drive = drive;
	drive.oracle.n_sealed = 0; /* the template keeps the objects */
}

/* Forgets the way before, whose first objects are its template's. */
static void forget(void)
{
	static const struct template *begun;

	for (size_t i = begun ? begun->drive.oracle.n_sealed : 0; i < drive.oracle.n_sealed; i++)
		free(drive.oracle.sealed[i].object);
	drive.oracle.n_sealed = 0;
	begun = &templates[now.start];
}

static void begin(void)
{
	forget();
	drive_begin(&drive, SEED);
	drive = templates[now.start].drive;
	write_files(&templates[now.start]);
}

/* --- The way --- */

static int seal_all(void)
{
	int r = 1;

	for (int i = 0; r > 0 && i < MANY_SEAL; i++)
		r = drive_seal(&drive, true);
	return r;
}

static int deliver_all(int store)
{
	int r;

	do
		r = drive_deliver(&drive, store);
	while (r > 0);
	return r;
}

static int stage_all(int source)
{
	int r;

	do
		r = drive_stage(&drive, source);
	while (r == 0);
	return r;
}

static int stage_and_give_up(void)
{
	int r = drive_stage(&drive, 1);

	if (r == 0)
		r = drive_stage(&drive, 1);
	return r < 0 ? r : drive_unstage(&drive, 1);
}

static int expire(void)
{
	drive_pass(&drive, 3600000);
	return drive_expire(&drive);
}

enum { OPEN = 0, STEPS = 15 };

static int take_step(int step)
{
	switch (step) {
	case OPEN:
		return drive_open(&drive);
	case 3:
		return stage_all(0);
	case 4:
		return stage_and_give_up();
	case 5:
	case 11:
		return seal_all();
	case 6:
	case 12:
		return deliver_all(0);
	case 7:
		return deliver_all(1);
	case 8:
	case 14:
		return expire();
	case 9:
		return drive_import(&drive);
	case 13:
		return drive_drop(&drive);
	default:
		return drive_commit(&drive);
	}
}

/* A fault is a state of the card or of the memory, and never says that the file is not ours or not sound. */
static bool judge_code(int r)
{
	bool known = now.allocates ? r == -ENOMEM : r == -EIO || r == -ENOSPC || r == -EDQUOT;

	return known || oracle_fail(&drive.oracle, "%s: error %d (%s)", phase_names[drive.phase], -r, drive.err.text);
}

static bool is_over(void)
{
	return now.course == COURSE_ONCE || !shim_has_failed();
}

/* While it lasts: everything is tried once, and nothing is known to hold. */
static void suffer(int from)
{
	for (int step = from; is_right() && drive.q && step < STEPS; step++) {
		int r = take_step(step);

		if (r < 0)
			judge_code(r);
	}
	if (now.course == COURSE_CUT) {
		drive_close(&drive);
		shim_cut_all();
	}
	shim_fail(0, false, SHIM_IOERR);
}

/* Step by step, each until it holds. */
static void go(void)
{
	int failed = 0;

	for (int step = OPEN; is_right() && step < STEPS; step++) {
		int r = take_step(step);

		if (r >= 0)
			continue;
		if (!judge_code(r))
			return;
		if (++failed > TRIES)
			oracle_fail(&drive.oracle, "%s: it goes on failing: %s", phase_names[drive.phase],
			            drive.err.text);
		if (!is_over()) {
			suffer(step);
			step = drive.q ? step : OPEN;
		}
		step--;
	}
}

/* Memory and file say the same at the end, and so does what a power cut leaves. */
static void end(void)
{
	shim_fail(0, false, SHIM_IOERR);
	alloc_fail(0);
	if (is_right())
		drive_judge(&drive);
	if (!is_right())
		return;
	drive_close(&drive);
	shim_cut_all();
	if (drive_open(&drive) < 0)
		oracle_fail(&drive.oracle, "it does not start again: %s", drive.err.text);
	if (is_right() && drive_commit(&drive) < 0)
		oracle_fail(&drive.oracle, "it takes nothing: %s", drive.err.text);
}

static void tell(void)
{
	fprintf(stderr, "%s file, n = %" PRIu64 ", ", start_names[now.start], now.n);
	if (now.allocates)
		fprintf(stderr, "an allocation");
	else
		fprintf(stderr, "%s (%s), %s", shim_failed_call(), now.fault == SHIM_FULL ? "full" : "I/O error",
		        course_names[now.course]);
	fprintf(stderr, ": %s\n", is_right() ? "it hangs or crashes" : drive.oracle.wrong);
}

/* Whether it came so far that the n-th call failed. */
static bool run_io(void)
{
	begin();
	alarm(HANGS);
	shim_fail(now.n, now.course != COURSE_ONCE, now.fault);
	go();
	end();
	return shim_failed_call()[0] != '\0';
}

static uint64_t run_alloc(void)
{
	uint64_t count;

	begin();
	alarm(HANGS);
	alloc_fail(now.n);
	go();
	count = alloc_count();
	end();
	return count;
}

/* --- All of them --- */

static int io(uint64_t every)
{
	uint64_t runs = 0, counts[STARTS][2] = { { 0 } }, before = shim_checkpointed();

	for (int i = 0; is_right() && i < STARTS * COURSES * 2; i++) {
		now.start = (enum start)(i / 2 / COURSES);
		now.course = (enum course)(i / 2 % COURSES);
		now.fault = i % 2 ? SHIM_FULL : SHIM_IOERR;
		for (now.n = 1 + (uint64_t)i % every; run_io() && is_right(); now.n += every)
			runs++;
		counts[now.start][now.fault] = shim_calls();
	}
	if (is_right() && shim_checkpointed() == before)
		oracle_fail(&drive.oracle, "no way had a checkpoint");
	printf("{\"runs\": %" PRIu64, runs);
	for (int i = 0; i < STARTS; i++)
		printf(", \"%s\": {\"calls\": %" PRIu64 ", \"writes\": %" PRIu64 "}", start_names[i],
		       counts[i][SHIM_IOERR], counts[i][SHIM_FULL]);
	printf(", \"wrong\": %d}\n", !is_right());
	return !is_right();
}

static int alloc(uint64_t sample)
{
	uint64_t counts[STARTS], runs = 0;

	now.allocates = true;
	for (int i = 0; i < STARTS; i++) {
		now.start = (enum start)i;
		now.n = 0;
		counts[i] = run_alloc();
	}
	for (; is_right() && runs < sample; runs++) {
		now.start = (enum start)(runs % STARTS);
		now.n = 1 + counts[now.start] * runs / sample;
		run_alloc();
	}
	printf("{\"runs\": %" PRIu64, runs);
	for (int i = 0; i < STARTS; i++)
		printf(", \"%s\": {\"allocations\": %" PRIu64 "}", start_names[i], counts[i]);
	printf(", \"wrong\": %d}\n", !is_right());
	return !is_right();
}

/* Too long, or a sanitizer's end. */
static void on_signal(int signal)
{
	tell();
	_exit(128 + signal);
}

static void done(void)
{
	if (!is_right())
		tell();
	forget();
	drive_done(&drive);
	for (int i = 0; i < STARTS; i++) {
		for (int j = 0; j < FILES; j++)
			free(templates[i].files[j].data);
		oracle_done(&templates[i].drive.oracle);
	}
}

int main(int argc, char **argv)
{
	bool allocates = argc == 3 && strcmp(argv[1], "alloc") == 0;
	uint64_t n = argc == 3 ? strtoull(argv[2], NULL, 10) : 0;
	int r;

	if (n == 0 || (!allocates && strcmp(argv[1], "io") != 0)) {
		fprintf(stderr, "usage: %s io EVERY | alloc N\n", argv[0]);
		return 2;
	}
	signal(SIGALRM, on_signal);
	signal(SIGABRT, on_signal);
	alloc_install();
	shim_install();
	drive_init(&drive);
	for (int i = 0; is_right() && i < STARTS; i++)
		make_template((enum start)i);
	drive_on_call = allocates ? alloc_arm : shim_arm;
	r = !is_right() ? 1 : allocates ? alloc(n) : io(n);
	done();
	return r;
}
