/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Power cuts of the buffer alone: buffer_cuts CUTS SEED [ignore-sync].
 *
 * Life after life of a buffer, new or from an older schema, is driven at random and cut at a random write or sync, of
 * its recovery too; then it is opened again on what is left, and has to be what the oracle knows. Prints one line of
 * JSON. Exits with 1 at the first thing that is wrong: with the seed that it tells, the life that it was in comes
 * first.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "buffer/schema.h"
#include "tests/cut/chance.h"
#include "tests/cut/damage.h"
#include "tests/cut/drive.h"
#include "tests/cut/shim.h"

#define LIFE_MOST  40      /* cuts */
#define TIGHT      6300000 /* max_size: half a megabyte beside what the WAL may take */
#define GROWN      12000000
#define SHRUNK     7700000
#define STEPS_MOST 3000 /* without a cut, because nothing is taken */
#define EARLY_MOST 40   /* steps before an upgrade */

struct bench {
	struct drive drive;
	uint64_t cuts, seed;
	uint64_t lives, done, by_phase[PHASES];
	uint64_t opened, records, damages, compared;
};

static bool is_right(const struct bench *b)
{
	return b->drive.oracle.wrong[0] == '\0';
}

/* A failure that no cut explains. Only a buffer with bounds may refuse something, for want of room. */
static void judge_failure(struct bench *b, int r)
{
	struct drive *d = &b->drive;
	bool refused = d->max_size > 0 && (r == -EDQUOT || r == -ENOSPC || r == -EAGAIN || r == -EFBIG);

	if (r >= 0 || shim_is_dark() || !is_right(b))
		return;
	if (!refused)
		oracle_fail(&d->oracle, "%s: %s", phase_names[d->phase], d->err.text);
	drive_refused(d);
	for (int i = 0; i < ORACLE_SOURCES; i++) {
		if (d->large[i].fetch && chance(&d->chance, 2) == 0)
			judge_failure(b, drive_unstage(d, i));
	}
}

/* Anywhere, or in its last steps; if the last one is a measure. */
static uint64_t pick_moment_of_salvage(struct drive *d)
{
	uint32_t all = (uint32_t)drive_salvage_calls + 6;

	return 1 + (chance(&d->chance, 2) == 0 ? chance(&d->chance, all) : all - chance(&d->chance, 12) % all);
}

/* Early in a first start and in an upgrade, which come once in a life. */
static uint64_t pick_moment(struct drive *d)
{
	static const uint32_t within[] = { 12, 60, 60, 400, 400, 400, 400, 3000 };
	bool first = d->opening != PHASE_RECOVERY && chance(&d->chance, 4) > 0;

	if (d->damaged && chance(&d->chance, 4) > 0)
		return pick_moment_of_salvage(d);
	if (d->n_doubts > 0 && d->phase == PHASE_COMMIT && chance(&d->chance, 2) == 0)
		return 1 + chance(&d->chance, 8); /* what is torn may be adopted */
	return 1 + chance(&d->chance, first ? 30 : within[chance(&d->chance, 8)]);
}

/* From a start on to the cut; false: no cut came, because the life is full or the buffer. */
static bool live(struct bench *b)
{
	struct drive *d = &b->drive;
	int r;

	shim_cut_at(pick_moment(d));
	r = drive_open(d);
	judge_failure(b, r);
	b->opened += r == 0;
	for (int i = 0; i < STEPS_MOST && is_right(b) && !shim_is_dark() && !oracle_is_full(&d->oracle) && !d->over;
	     i++) {
		judge_failure(b, drive_any(d, false));
		if (is_right(b) && !shim_is_dark() && chance(&d->chance, 128) == 0)
			drive_judge(d); /* its memory too */
	}
	return shim_is_dark();
}

/* A new file is written larger with the one, and has to shrink with the other. */
static void pick_bound(struct drive *d)
{
	if (d->max_size != TIGHT)
		d->max_size = chance(&d->chance, 2) ? GROWN : SHRUNK;
}

static void count_cut(struct bench *b)
{
	b->done++;
	b->by_phase[shim_was_in_checkpoint() ? PHASE_CHECKPOINT : drive_phase(&b->drive)]++;
}

static void cut(struct bench *b)
{
	struct drive *d = &b->drive;

	count_cut(b);
	drive_close(d);
	shim_cut(chance_next(&d->chance));
	if (chance(&d->chance, 12) == 0)
		b->damages += drive_damage(d);
	if (chance(&d->chance, 3) == 0)
		drive_reboot(d);
	if (d->max_size > 0 && chance(&d->chance, 4) == 0)
		pick_bound(d);
}

/* Written by this program, and put into an older schema. */
static void grow_up(struct bench *b)
{
	struct drive *d = &b->drive;
	int r = drive_open(d), n = (int)chance(&d->chance, EARLY_MOST);

	judge_failure(b, r);
	for (int i = 0; r == 0 && is_right(b) && i < n; i++)
		judge_failure(b, drive_any(d, true));
	drive_close(d);
	if (is_right(b) && buffer_schema_count > 1)
		drive_age(d, 1 + (int)chance(&d->chance, (uint32_t)buffer_schema_count - 1));
}

static void end(struct bench *b)
{
	struct drive *d = &b->drive;

	drive_close(d);
	shim_cut_at(0);
	if (!is_right(b) || d->over)
		return;
	judge_failure(b, drive_open(d));
	for (int i = 0; i < ORACLE_SOURCES; i++)
		b->records += d->oracle.sources[i].seq - 1;
}

/* Damaged in any way, it is salvaged without a cut, and once more with cuts: there has to be the same. */
static void compare_salvages(struct bench *b)
{
	struct drive *d = &b->drive;
	struct damage damage;

	drive_close(d);
	shim_cut_at(0);
	if (!is_right(b) || d->damaged || d->opening != PHASE_RECOVERY || !damage_make(&damage, d))
		return;
	b->compared++;
	for (int i = 0, cuts = 1 + (int)chance(&d->chance, 4); i < cuts && b->done < b->cuts; i++) {
		shim_cut_at(pick_moment_of_salvage(d));
		drive_start(d);
		if (!shim_is_dark())
			break;
		count_cut(b);
		drive_close(d);
		shim_cut(chance_next(&d->chance));
	}
	drive_close(d);
	shim_cut_at(0);
	damage_judge(&damage, d);
	drive_close(d);
	damage_done(&damage);
}

static void run_life(struct bench *b, uint64_t seed)
{
	struct drive *d = &b->drive;
	int most;

	drive_begin(d, seed);
	most = 1 + (int)chance(&d->chance, LIFE_MOST);
	if (chance(&d->chance, 2) == 0)
		grow_up(b);
	else if (chance(&d->chance, 3) == 0)
		d->max_size = TIGHT;
	if (chance(&d->chance, 4) == 0)
		pick_bound(d);
	for (int i = 0; is_right(b) && i < most && b->done < b->cuts && live(b); i++)
		cut(b);
	end(b);
	if (chance(&d->chance, 3) == 0)
		compare_salvages(b);
	b->lives++;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void report(const struct bench *b, double seconds)
{
	printf("{\"cuts\": %" PRIu64 ", \"lives\": %" PRIu64 ", \"starts\": %" PRIu64 ", \"records\": %" PRIu64
	       ", \"damages\": %" PRIu64 ", \"compared\": %" PRIu64
	       ", \"seconds\": %.1f, \"cpu_seconds\": %.1f, \"by_phase\": {",
	       b->done, b->lives, b->opened, b->records, b->damages, b->compared, seconds,
	       (double)clock() / CLOCKS_PER_SEC);
	for (int i = 0; i < PHASES; i++)
		printf("%s\"%s\": %" PRIu64, i > 0 ? ", " : "", phase_names[i], b->by_phase[i]);
	printf("}, \"wrong\": %d", !is_right(b));
	if (!is_right(b))
		printf(", \"seed\": %" PRIu64, b->seed + b->lives - 1);
	printf("}\n");
	if (!is_right(b))
		fprintf(stderr, "%s\n", b->drive.oracle.wrong);
}

int main(int argc, char **argv)
{
	static struct bench b;
	double begun = now();
	int failed;

	if (argc < 3 || (argc > 3 && strcmp(argv[3], "ignore-sync") != 0)) {
		fprintf(stderr, "usage: %s CUTS SEED [ignore-sync]\n", argv[0]);
		return 2;
	}
	b.cuts = strtoull(argv[1], NULL, 10);
	b.seed = strtoull(argv[2], NULL, 10);
	shim_install();
	if (argc > 3)
		shim_ignore_sync();
	drive_init(&b.drive);
	while (is_right(&b) && b.done < b.cuts)
		run_life(&b, b.seed + b.lives);
	report(&b, now() - begun);
	failed = !is_right(&b);
	drive_done(&b.drive);
	return failed;
}
