/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/cut/drive.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "buffer/chunk.h"
#include "buffer/queue_private.h"
#include "buffer/salvage.h"
#include "tests/cut/chance.h"
#include "tests/cut/shim.h"

#define NOON          INT64_C(1795262400000) /* 2026-11-21T12:00:00Z */
#define PIECE         2000                   /* bytes of one that is staged */
#define MAX_BYTES     40000                  /* of an object, where it is not one of the large ones */
#define SALVAGE_CALLS 60                     /* before a life has had one */
#define KEEP_MS       (5 * INT64_C(60000))

const char *const phase_names[PHASES] = {
	[PHASE_CREATE] = "create",   [PHASE_UPGRADE] = "upgrade",       [PHASE_RECOVERY] = "recovery",
	[PHASE_BOUND] = "bound",     [PHASE_COMMIT] = "commit",         [PHASE_STAGE] = "stage",
	[PHASE_SEAL] = "seal",       [PHASE_DELIVERY] = "delivery",     [PHASE_EXPIRE] = "expire",
	[PHASE_DROP] = "drop",       [PHASE_CHECKPOINT] = "checkpoint", [PHASE_IMPORT] = "import",
	[PHASE_SALVAGE] = "salvage", [PHASE_ADOPTION] = "adoption",
};

void (*drive_on_call)(bool under_way);
uint64_t drive_salvage_calls;

static enum phase part = PHASES; /* of a call that opens */
static struct err why;           /* of the last salvage */
static int64_t wall_ms;

static void begin_call(void)
{
	shim_inside(true);
	if (drive_on_call)
		drive_on_call(true);
}

static void enter(struct drive *d, enum phase phase)
{
	d->phase = phase;
	d->doubted = false;
	part = PHASES;
	wall_ms = d->wall_ms;
	begin_call();
}

static void leave(void)
{
	if (drive_on_call)
		drive_on_call(false);
	shim_inside(false);
}

enum phase drive_phase(const struct drive *d)
{
	return part == PHASES ? d->phase : part;
}

/* --- Inside the queue, by the linker's --wrap --- */

static void end_part(void)
{
	if (!shim_is_dark())
		part = PHASES;
}

int __real_salvage_run(const char *path, const struct queue_identity *identity, const struct salvage_known *known,
                       size_t n_known, struct queue_salvage *ret_salvage, struct err *err);
int __real_salvage_finish(const char *path, struct err *err);
int __real_queue_adopt_tail(struct queue *q, struct err *err);
int __wrap_salvage_run(const char *path, const struct queue_identity *identity, const struct salvage_known *known,
                       size_t n_known, struct queue_salvage *ret_salvage, struct err *err);
int __wrap_salvage_finish(const char *path, struct err *err);
int __wrap_queue_adopt_tail(struct queue *q, struct err *err);
int64_t __wrap_clock_wall_ms(void);
void __wrap_random_fill(void *data, size_t len);

int __wrap_salvage_run(const char *path, const struct queue_identity *identity, const struct salvage_known *known,
                       size_t n_known, struct queue_salvage *ret_salvage, struct err *err)
{
	int r;

	part = PHASE_SALVAGE;
	why = *err; /* what was found stands there */
	r = __real_salvage_run(path, identity, known, n_known, ret_salvage, err);
	if (r == 0)
		drive_salvage_calls = shim_changes();
	end_part();
	return r;
}

int __wrap_salvage_finish(const char *path, struct err *err)
{
	int r;

	part = PHASE_SALVAGE;
	r = __real_salvage_finish(path, err);
	end_part();
	return r;
}

int __wrap_queue_adopt_tail(struct queue *q, struct err *err)
{
	int r;

	if (part == PHASES)
		part = PHASE_ADOPTION;
	r = __real_queue_adopt_tail(q, err);
	if (part == PHASE_ADOPTION)
		end_part();
	return r;
}

int64_t __wrap_clock_wall_ms(void)
{
	return wall_ms;
}

/* The buffer's random id, which all names of objects follow from, is the seed's too. */
static uint64_t random_state;

void __wrap_random_fill(void *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
		((unsigned char *)data)[i] = (unsigned char)chance(&random_state, 256);
}

/* --- Lives --- */

void drive_empty(const struct drive *d)
{
	DIR *dir = opendir(d->folder);
	struct dirent *entry;

	if (!dir)
		return;
	while ((entry = readdir(dir))) {
		if (entry->d_name[0] != '.')
			unlinkat(dirfd(dir), entry->d_name, 0);
	}
	closedir(dir);
}

void drive_init(struct drive *d)
{
	const char *tmp = getenv("TMPDIR");

	memset(d, 0, sizeof *d);
	if (!tmp)
		tmp = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
	snprintf(d->folder, sizeof d->folder, "%s/millrace-cut-XXXXXX", tmp);
	if (!mkdtemp(d->folder)) {
		perror(d->folder);
		exit(2);
	}
	snprintf(d->path, sizeof d->path, "%s/buffer.db", d->folder);
	oracle_init(&d->oracle);
}

static void forget_large(struct large *large)
{
	fetch_free(large->fetch);
	fetch_piece_free(large->piece);
	*large = (struct large){ .fetch = NULL };
}

static void forget_foreign(struct drive *d)
{
	bytes_done(&d->foreign.object);
	d->foreign = (struct foreign){ .source = 0 };
}

void drive_done(struct drive *d)
{
	drive_close(d);
	forget_foreign(d);
	oracle_done(&d->oracle);
	drive_empty(d);
	rmdir(d->folder);
}

void drive_begin(struct drive *d, uint64_t seed)
{
	drive_close(d);
	oracle_done(&d->oracle);
	drive_empty(d);
	shim_settle();
	shim_random(seed);
	random_state = d->chance = chance_mix(seed);
	d->wall_ms = NOON;
	d->mono_ms = 5000000;
	d->max_size = 0;
	d->kernel_boot = 0;
	memset(d->boots, 0, sizeof d->boots);
	d->opening = PHASE_CREATE;
	d->damaged = d->salvaged = d->over = false;
	forget_foreign(d);
	d->foreign_seq = 1;
	d->n_doubts = 0;
	drive_salvage_calls = SALVAGE_CALLS;
}

void drive_pass(struct drive *d, int64_t ms)
{
	d->wall_ms += ms;
	d->mono_ms += ms;
}

void drive_reboot(struct drive *d)
{
	d->kernel_boot = (int)chance(&d->chance, 8);
	d->mono_ms = 1000 + chance(&d->chance, 100000);
}

/* --- Doubts --- */

/* Whether its next fetch would still be what it was when this one failed. */
static bool goes_on(const struct drive *d, const struct doubt *doubt, int i)
{
	const struct known *known = &d->oracle.sources[doubt->source[i]];
	const struct told *told = &doubt->told[i];

	return told->number > known->fetches && told->first_seq >= known->seq;
}

/*
 * It has held, so what failed before cannot come back whole: its frames are where theirs were. But a fetch may, of
 * which all is left behind them, as long as its source has not gone on.
 */
static void hold(struct drive *d)
{
	int kept = 0;

	for (int i = 0; i < d->n_doubts; i++) {
		const struct doubt *doubt = &d->doubts[i];
		bool any = false;

		for (int j = 0; doubt->phase == PHASE_COMMIT && j < doubt->n; j++)
			any = any || goes_on(d, doubt, j);
		if (any)
			d->doubts[kept++] = *doubt;
	}
	d->n_doubts = kept;
}

/* What a fetch's number and first seq would have become. */
static void foresee(const struct drive *d, struct doubt *doubt)
{
	for (int i = 0; i < doubt->n; i++) {
		const struct known *known = &d->oracle.sources[doubt->source[i]];
		struct told *told = &doubt->told[i];

		told->number = known->fetches + 1;
		told->first_seq = known->seq;
		for (int j = 0; j < i; j++) {
			if (doubt->source[j] != doubt->source[i])
				continue;
			told->number++;
			told->first_seq += doubt->told[j].records;
		}
	}
}

static void doubt(struct drive *d, const struct doubt *doubt)
{
	if (d->n_doubts == DRIVE_DOUBTS)
		memmove(d->doubts, d->doubts + 1, --d->n_doubts * sizeof *d->doubts);
	d->doubts[d->n_doubts] = *doubt;
	foresee(d, &d->doubts[d->n_doubts++]);
	d->doubted = true;
}

void drive_refused(struct drive *d)
{
	d->n_doubts -= d->doubted;
	d->doubted = false;
}

static bool drop_oldest(struct oracle *o)
{
	struct sealed *oldest = oracle_oldest(o);

	if (oldest)
		oldest->fate = FATE_DROPPED;
	return oldest != NULL;
}

/* The newest batch of the buffer, which nobody was told of. */
static bool find_sealed(struct drive *d)
{
	struct batch batch;

	return queue_batches(d->q, &batch, 1, &d->err) == 1 && !oracle_batch(&d->oracle, batch.id) &&
	       oracle_seal(&d->oracle, &batch);
}

/*
 * In how many ways it may have been done, counted from 1. What is torn of a commit is taken over source by source, up
 * to its last whole fetch that stands there: two bits for each source say how many of its fetches that were.
 */
#define WAY_BITS 2

static unsigned count_ways(const struct doubt *doubt)
{
	return doubt->phase == PHASE_COMMIT ? (1U << WAY_BITS * ORACLE_SOURCES) - 1 : 1;
}

/* False: it has not so many of a source, and with fewer it is another way. */
static bool believe_commit(struct drive *d, const struct doubt *doubt, unsigned way)
{
	for (int i = 0; i < doubt->n; i++) {
		int shift = doubt->source[i] * WAY_BITS;
		struct told told = doubt->told[i];

		if ((way >> shift & ((1U << WAY_BITS) - 1)) == 0)
			continue;
		if (!goes_on(d, doubt, i) || told.number != d->oracle.sources[doubt->source[i]].fetches + 1)
			return false;
		oracle_commit(&d->oracle, doubt->source[i], &told);
		way -= 1U << shift;
	}
	return way == 0;
}

/* The newest one that came from elsewhere. */
static bool find_imported(struct drive *d, const struct foreign *foreign)
{
	struct batch batches[4];
	int n = queue_batches(d->q, batches, 4, &d->err);

	for (int i = 0; i < n; i++) {
		if (strcmp(batches[i].key, foreign->key) == 0)
			return !oracle_has(&d->oracle, foreign) && oracle_import(&d->oracle, foreign, &batches[i]);
	}
	return false;
}

/* What the oracle knows if that was done; false: it cannot have been. */
static bool believe(struct drive *d, const struct doubt *doubt, unsigned way)
{
	struct sealed *sealed;

	switch (doubt->phase) {
	case PHASE_COMMIT:
		return believe_commit(d, doubt, way);
	case PHASE_SEAL:
		return find_sealed(d);
	case PHASE_IMPORT:
		return find_imported(d, &d->foreign);
	case PHASE_DELIVERY:
		sealed = oracle_batch(&d->oracle, doubt->batch);
		oracle_deliver(sealed, doubt->store, doubt->wall_ms);
		return true;
	case PHASE_EXPIRE:
		oracle_expire(&d->oracle, doubt->wall_ms - KEEP_MS);
		return true;
	default:
		return drop_oldest(&d->oracle);
	}
}

/* Back to what was known before; the objects that were judged meanwhile stay. */
static void go_back(struct oracle *o, struct oracle *before)
{
	for (size_t i = 0; i < o->n_sealed; i++) {
		struct sealed *sealed = oracle_batch(before, o->sealed[i].batch.id);

		if (sealed)
			sealed->object = o->sealed[i].object;
		else
			free(o->sealed[i].object);
	}
	*o = *before;
}

static bool check(struct drive *d)
{
	if (d->salvaged)
		oracle_salvaged(&d->oracle, d->q);
	return oracle_check(&d->oracle, d->q);
}

bool drive_judge(struct drive *d)
{
	static struct oracle before;
	bool right;

	before = d->oracle;
	right = check(d);
	if (d->n_doubts == 0)
		return right;
	memcpy(before.wrong, d->oracle.wrong, sizeof before.wrong);
	for (int i = 0; !right && i < d->n_doubts; i++) {
		for (unsigned way = count_ways(&d->doubts[i]); !right && way > 0; way--) {
			go_back(&d->oracle, &before);
			right = believe(d, &d->doubts[i], way) && check(d);
		}
	}
	if (!right && d->salvaged) {
		go_back(&d->oracle, &before);
		oracle_salvaged(&d->oracle, d->q);
		d->over = right = oracle_keeps(&d->oracle, d->q);
	}
	if (!right)
		oracle_fail(&d->oracle, "%.800s; and none of the %d calls that were in doubt explains it", before.wrong,
		            d->n_doubts);
	if (right) {
		d->oracle.wrong[0] = '\0';
		hold(d);
	}
	return right;
}

/* --- Opening and closing --- */

static int configure(struct drive *d)
{
	struct queue_route routes[ORACLE_SOURCES];
	const char *stores[ORACLE_SOURCES][ORACLE_STORES];

	for (int i = 0; i < ORACLE_SOURCES; i++) {
		routes[i] = (struct queue_route){
			.max_bytes = MAX_BYTES, .max_records = 300, .max_age_ms = 900000, .stores = stores[i]
		};
		snprintf(routes[i].source, sizeof routes[i].source, "%s", oracle_sources[i]);
		for (int store = 0; store < ORACLE_STORES; store++) {
			if (oracle_route(i) >> store & 1)
				stores[i][routes[i].n_stores++] = oracle_stores[store];
		}
	}
	routes[1].max_bytes = 8 << 20;
	return queue_configure(d->q, oracle_stores, ORACLE_STORES, routes, ORACLE_SOURCES, &routes[0], &d->err);
}

/* One kernel boot has one name, as long as the buffer keeps its id. */
static bool judge_boot(struct drive *d)
{
	struct queue_view *view = queue_view(d->q);
	char *known = d->boots[d->kernel_boot];
	bool right;

	if (!view)
		return oracle_fail(&d->oracle, "no memory for a view");
	right = known[0] == '\0' || strcmp(known, view->boot) == 0;
	memcpy(known, view->boot, OBJECT_BOOT);
	queue_view_free(view);
	for (int i = 0; i < 8; i++)
		right = right && (i == d->kernel_boot || strcmp(known, d->boots[i]) != 0);
	return right || oracle_fail(&d->oracle, "the boot's name is another one, or that of another boot");
}

/*
 * A cut or a failed call is no damage: nothing is set aside for it, and nothing of a salvage is left. What was damaged
 * is set aside; nobody needs it any more.
 */
static bool judge_folder(struct drive *d)
{
	static const char *const ours[] = { ".", "..", "buffer.db", "buffer.db-wal", "buffer.db-journal" };
	DIR *dir = opendir(d->folder);
	struct dirent *entry;
	bool right = true, aside = false;

	while (right && dir && (entry = readdir(dir))) {
		size_t i = 0;

		while (i < sizeof ours / sizeof *ours && strcmp(ours[i], entry->d_name) != 0)
			i++;
		if (i < sizeof ours / sizeof *ours)
			continue;
		right = d->damaged && strncmp(entry->d_name, "buffer.db.damaged-", 18) == 0;
		if (!right)
			oracle_fail(&d->oracle, "there is a file \"%s\": %s", entry->d_name, why.text);
		else
			unlinkat(dirfd(dir), entry->d_name, 0);
		aside = true;
	}
	if (dir)
		closedir(dir);
	if (right && d->damaged && !aside)
		return oracle_fail(&d->oracle, "it was damaged, and nothing was set aside");
	return right;
}

/* The salvaged buffer has another id, and so all boots have other names. */
static void note_salvage(struct drive *d)
{
	shim_settle();
	d->salvaged = d->damaged;
	if (d->damaged)
		memset(d->boots, 0, sizeof d->boots);
	d->damaged = false;
}

bool drive_damage(struct drive *d)
{
	static const char zeros[4096];
	struct stat st;
	int fd;

	if (d->damaged || d->opening != PHASE_RECOVERY || stat(d->path, &st) < 0 ||
	    st.st_size < 2 * (off_t)sizeof zeros)
		return false;
	fd = open(d->path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || pwrite(fd, zeros, sizeof zeros, 0) != (ssize_t)sizeof zeros)
		abort();
	close(fd);
	d->damaged = true;
	return true;
}

/* A queue whose start has failed starts again, or another one does. */
static int start(struct drive *d, const struct queue_identity *identity)
{
	struct queue *q = d->closed ? d->closed : queue_new(d->path, identity);
	int r = q ? queue_start(q, true, &d->err) : -ENOMEM;

	d->closed = NULL;
	if (r >= 0)
		d->q = q;
	else if (q && chance(&d->chance, 2) == 0)
		d->closed = q;
	else
		queue_close(q);
	return r < 0 ? r : 0;
}

static int open_it(struct drive *d)
{
	struct queue_bounds bounds = { .max_size = d->max_size, .max_record = 80000 };
	struct queue_identity identity = { .device = ORACLE_DEVICE };
	char kernel_boot_id[32];
	int r;

	snprintf(kernel_boot_id, sizeof kernel_boot_id, "boot-%d", d->kernel_boot);
	identity.kernel_boot_id = kernel_boot_id;
	enter(d, d->opening);
	r = start(d, &identity);
	if (r == 0) {
		d->opening = PHASE_RECOVERY;
		r = configure(d);
	}
	if (r == 0 && d->max_size > 0) {
		d->phase = PHASE_BOUND;
		r = queue_bound(d->q, &bounds, &d->err);
	}
	leave();
	if (r == 0 && shim_is_dark())
		r = -EIO; /* in what may fail: there is nothing to look at */
	if (r < 0 && d->q)
		drive_close(d);
	return r;
}

int drive_start(struct drive *d)
{
	random_state = 1;
	return open_it(d);
}

int drive_open(struct drive *d)
{
	int r = open_it(d);

	if (r < 0)
		return r;
	if (!judge_folder(d))
		return 0;
	note_salvage(d);
	if (judge_boot(d) && drive_judge(d))
		d->salvaged = false;
	return 0;
}

void drive_close(struct drive *d)
{
	begin_call();
	queue_close(d->q);
	queue_close(d->closed);
	leave();
	d->q = d->closed = NULL;
	for (int i = 0; i < ORACLE_SOURCES; i++)
		forget_large(&d->large[i]);
}

/* --- Fetches --- */

static struct fetch *make_fetch(struct drive *d, int source, const struct told *told)
{
	struct fetch *fetch = fetch_new(oracle_sources[source]);
	struct bytes record;
	int r = fetch ? 0 : -ENOMEM;

	bytes_init(&record, 1 << 20);
	for (uint32_t i = 0; r == 0 && i < told->records; i++) {
		bytes_clear(&record);
		oracle_record(told->token, i, &record);
		r = fetch_add(fetch, record.data, record.len, PIECE);
	}
	bytes_done(&record);
	if (r < 0)
		abort();
	fetch->wall_ms = told->wall_ms;
	fetch->mono_ms = d->mono_ms;
	fetch->clock = told->clock;
	fetch->state_len = oracle_state(told->token, fetch->state);
	return fetch;
}

static struct told tell(struct drive *d, uint32_t records)
{
	struct told told = {
		.token = chance_next(&d->chance) | 256, /* 0 stands for none */
		.records = records,
		.wall_ms = d->wall_ms,
		.clock = (uint8_t)chance(&d->chance, 3),
	};

	memcpy(told.boot, d->boots[d->kernel_boot], sizeof told.boot);
	return told;
}

/* Many small records or, now and then, so much that a batch of them takes several steps. */
static struct told tell_large(struct drive *d, int source)
{
	bool very = source == 1 && chance(&d->chance, 12) == 0;
	struct told told = tell(d, very ? 20 + chance(&d->chance, 15) : 20 + chance(&d->chance, 150));

	told.token = (told.token & ~UINT64_C(255)) | (very ? ORACLE_LARGE : ORACLE_SMALL);
	return told;
}

/* What the queue says of the fetches that it has taken. */
static void take_committed(struct drive *d, struct doubt *doubt, const struct fetch *fetch)
{
	hold(d);
	for (int i = 0; i < doubt->n; i++, fetch = fetch->next) {
		struct told *told = &doubt->told[i];

		oracle_commit(&d->oracle, doubt->source[i], told);
		if (fetch->number != told->number || (told->records > 0 && fetch->first_seq != told->first_seq))
			oracle_fail(&d->oracle,
			            "fetch %" PRIu64 " of %s has seq %" PRIu64 ", and should be %" PRIu64
			            " with %" PRIu64,
			            fetch->number, fetch->source, fetch->first_seq, told->number, told->first_seq);
	}
}

int drive_commit(struct drive *d)
{
	struct doubt together = { .phase = PHASE_COMMIT, .n = 1 + (int)chance(&d->chance, DRIVE_TOGETHER - 1) };
	struct fetch *list = NULL, **end = &list, *next;
	int r;

	for (int i = 0; i < together.n; i++, end = &(*end)->next) {
		int source = (int)chance(&d->chance, ORACLE_SOURCES);

		if (d->large[source].fetch)
			source = ORACLE_SOURCES - 1; /* it never comes in pieces */
		together.source[i] = source;
		together.told[i] = tell(d, chance(&d->chance, 10));
		*end = make_fetch(d, source, &together.told[i]);
	}
	enter(d, PHASE_COMMIT);
	r = queue_commit(d->q, list, &d->err);
	leave();
	if (r == 0)
		take_committed(d, &together, list);
	else
		doubt(d, &together);
	for (; list; list = next) {
		next = list->next;
		fetch_free(list);
	}
	return r;
}

/* Its last piece is committed, and all that was staged with it. */
static int publish(struct drive *d, int source)
{
	struct large *large = &d->large[source];
	struct doubt alone = { .phase = PHASE_COMMIT, .n = 1, .source = { source }, .told = { large->told } };
	int r;

	large->fetch->wall_ms = alone.told[0].wall_ms = d->wall_ms;
	large->fetch->mono_ms = d->mono_ms;
	enter(d, PHASE_COMMIT);
	r = queue_commit(d->q, large->fetch, &d->err);
	leave();
	if (r < 0) {
		doubt(d, &alone);
		return r;
	}
	take_committed(d, &alone, large->fetch);
	forget_large(large);
	return 1;
}

int drive_stage(struct drive *d, int source)
{
	struct large *large = &d->large[source];
	int r;

	if (!large->fetch) {
		large->told = tell_large(d, source);
		large->fetch = make_fetch(d, source, &large->told);
	}
	if (!large->piece)
		large->piece = fetch_take_piece(large->fetch);
	if (!large->piece)
		return publish(d, source);
	enter(d, PHASE_STAGE);
	r = queue_stage(d->q, oracle_sources[source], large->piece, &d->err);
	leave();
	if (r < 0)
		return r;
	hold(d);
	large->fetch->staged += large->piece->n;
	fetch_piece_free(large->piece);
	large->piece = NULL;
	return 0;
}

int drive_unstage(struct drive *d, int source)
{
	int r;

	enter(d, PHASE_STAGE);
	r = queue_unstage(d->q, oracle_sources[source], &d->err);
	leave();
	forget_large(&d->large[source]);
	return r;
}

/* --- Batches --- */

int drive_seal(struct drive *d, bool all)
{
	struct doubt sealing = { .phase = PHASE_SEAL };
	struct batch batch;
	int r;

	enter(d, PHASE_SEAL);
	r = queue_seal(d->q, d->wall_ms, d->mono_ms, all, &batch, &d->err);
	leave();
	if (r < 0) {
		doubt(d, &sealing);
		drive_pass(d, 61000); /* the source rests for a minute */
	} else if (r > 0) {
		hold(d);
	}
	if (r == 1 && oracle_seal(&d->oracle, &batch) && batch.sealed_ms != d->wall_ms)
		oracle_fail(&d->oracle, "batch %" PRId64 " was sealed at another time", batch.id);
	return r;
}

int drive_deliver(struct drive *d, int store)
{
	struct sealed *sealed = oracle_next(&d->oracle, store, 0);
	struct doubt delivery = { .phase = PHASE_DELIVERY, .store = store, .wall_ms = d->wall_ms };
	unsigned route, done;
	bool all = false;
	int r;

	if (!sealed)
		return 0;
	route = oracle_route(sealed->source);
	done = sealed->done | 1U << store;
	delivery.batch = sealed->batch.id;
	enter(d, PHASE_DELIVERY);
	r = queue_delivered(d->q, sealed->batch.id, oracle_stores[store], d->wall_ms, &all, &d->err);
	leave();
	if (r < 0) {
		doubt(d, &delivery);
		return r;
	}
	hold(d);
	oracle_deliver(sealed, store, d->wall_ms);
	if (all != ((done & route) == route))
		oracle_fail(&d->oracle, "batch %" PRId64 ": whether all have it is wrong", sealed->batch.id);
	return 1;
}

/* --- Imports --- */

static void make_foreign(struct drive *d)
{
	bool large = chance(&d->chance, 4) == 0;
	uint32_t n = large ? 100 + chance(&d->chance, 400) : 1 + chance(&d->chance, 40);
	uint64_t token = chance_next(&d->chance) | 256;

	token = (token & ~UINT64_C(255)) | (large ? ORACLE_NOISE : ORACLE_SMALL);
	oracle_foreign(&d->foreign, token, (int)chance(&d->chance, ORACLE_SOURCES), d->foreign_seq, n, d->wall_ms);
	d->foreign_seq += n + chance(&d->chance, 2);
}

/* Its bytes in pieces; now and then something is sealed in between. */
static int send_foreign(struct drive *d)
{
	const struct bytes *object = &d->foreign.object;
	size_t len;
	int r = 0;

	for (size_t at = 0; r >= 0 && at < object->len; at += len) {
		len = 1 + chance(&d->chance, 200000);
		if (len > object->len - at)
			len = object->len - at;
		enter(d, PHASE_IMPORT);
		r = queue_import_write(d->q, object->data + at, len, &d->err);
		leave();
		if (r == 0 && chance(&d->chance, 8) == 0)
			drive_seal(d, true);
		if (shim_is_dark())
			return -EIO;
	}
	return r < 0 ? r : 0;
}

static int finish_foreign(struct drive *d)
{
	struct doubt importing = { .phase = PHASE_IMPORT };
	struct batch batch;
	int r;

	enter(d, PHASE_IMPORT);
	r = queue_import_finish(d->q, d->wall_ms, &batch, &d->err);
	leave();
	if (r < 0) {
		doubt(d, &importing);
		return r;
	}
	hold(d);
	oracle_import(&d->oracle, &d->foreign, &batch);
	return 1;
}

/* What failed is sent again as it was. */
int drive_import(struct drive *d)
{
	const struct foreign *f = &d->foreign;
	int r;

	if (f->object.len == 0)
		make_foreign(d);
	enter(d, PHASE_IMPORT);
	r = queue_import_begin(d->q, f->key, f->object.len, f->sha256, &d->err);
	leave();
	/* A salvage may find an older row of what was delivered, take it for what is gone, and let it come again. */
	if (r >= 0 && (r == 1) != oracle_has(&d->oracle, f) && (r == 1 || !d->oracle.open_ends))
		oracle_fail(&d->oracle, "whether %s was taken over before is wrong: %d", f->key, r);
	if (r == 0) {
		r = send_foreign(d);
		if (r == 0)
			return finish_foreign(d);
		enter(d, PHASE_IMPORT);
		queue_import_abort(d->q);
		leave();
	}
	if (r == 1)
		forget_foreign(d);
	return r;
}

/* --- What goes --- */

int drive_expire(struct drive *d)
{
	struct doubt expiry = { .phase = PHASE_EXPIRE, .wall_ms = d->wall_ms };
	int r;

	enter(d, PHASE_EXPIRE);
	r = queue_expire(d->q, d->wall_ms, KEEP_MS, &d->err);
	leave();
	if (r < 0)
		doubt(d, &expiry);
	else
		oracle_expire(&d->oracle, d->wall_ms - KEEP_MS);
	return r;
}

int drive_drop(struct drive *d)
{
	struct sealed *oldest = oracle_oldest(&d->oracle);
	struct doubt dropping = { .phase = PHASE_DROP };
	struct batch batch = { .id = 0 };
	int r;

	enter(d, PHASE_DROP);
	r = queue_drop(d->q, NULL, 0, &batch, &d->err);
	leave();
	if (r < 0) {
		doubt(d, &dropping);
		return r;
	}
	if (r != (oldest != NULL) || (oldest && batch.id != oldest->batch.id))
		oracle_fail(&d->oracle, "batch %" PRId64 " was dropped, and should be %" PRId64, batch.id,
		            oldest ? oldest->batch.id : 0);
	if (r == 1)
		hold(d);
	drop_oldest(&d->oracle);
	return r;
}

/* --- At random --- */

static int any_large(struct drive *d)
{
	int source = (int)chance(&d->chance, ORACLE_SOURCES - 1);

	return d->large[source].fetch && chance(&d->chance, 12) == 0 ? drive_unstage(d, source)
	                                                             : drive_stage(d, source);
}

/* Until room is made again nothing else would hold for long. */
static int make_room(struct drive *d)
{
	int r = drive_drop(d);

	while (r >= 0 && oracle_next(&d->oracle, 0, 0))
		r = drive_deliver(d, 0);
	while (r >= 0 && oracle_next(&d->oracle, 1, 0))
		r = drive_deliver(d, 1);
	drive_pass(d, 2 * KEEP_MS);
	return r < 0 ? r : drive_expire(d);
}

int drive_any(struct drive *d, bool early)
{
	uint32_t dice = chance(&d->chance, 128);

	drive_pass(d, dice == 0 ? 13 * INT64_C(3600000) : chance(&d->chance, 30000));
	if (dice < 44)
		return drive_commit(d);
	if (dice < 64)
		return any_large(d);
	if (dice < 79)
		return drive_seal(d, dice < 74);
	if (dice < 89)
		return drive_deliver(d, 0);
	if (early)
		return drive_commit(d);
	if (dice < 112)
		return drive_deliver(d, (int)(dice & 1));
	if (dice < 116)
		return drive_import(d);
	if (dice < 125)
		return drive_expire(d);
	if (dice < 127)
		return drive_drop(d);
	return make_room(d);
}
