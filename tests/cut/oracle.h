/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a buffer has to hold, kept beside it and judged without its code: each fetch that it acknowledged, each batch
 * that it told of, and what became of them. Plain memory: a copy of the struct is a copy of what it knows, but for the
 * objects' bytes, which all copies share. One thread.
 */
#ifndef TESTS_CUT_ORACLE_H
#define TESTS_CUT_ORACLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/sink.h"
#include "buffer/queue.h"

#define ORACLE_DEVICE  "pi-01"
#define ORACLE_SOURCES 3
#define ORACLE_STORES  2
#define ORACLE_FETCHES 1500 /* of one source */
#define ORACLE_BATCHES 700

extern const char *const oracle_sources[ORACLE_SOURCES];
extern const char *const oracle_stores[ORACLE_STORES];

/* The stores of a source, as bits. */
unsigned oracle_route(int source);

/* What a fetch brings follows from its token. */
struct told {
	uint64_t token;
	uint32_t records;
	int64_t wall_ms;
	uint8_t clock; /* enum chunk_clock */
	char boot[OBJECT_BOOT];
	uint64_t number, first_seq;
};

enum fate { FATE_HERE, FATE_EXPIRED, FATE_DROPPED };

struct sealed {
	int source;
	enum fate fate;
	struct batch batch; /* as it was told first, but for what delivery changes */
	int64_t day;
	char boot[OBJECT_BOOT];
	unsigned done;         /* stores that have it */
	unsigned char *object; /* once it was judged; NULL: not yet */
};

struct known {
	uint64_t seq, fetches; /* the next record's; committed so far */
	uint64_t unsealed;     /* the first seq that no batch has */
	uint64_t token;        /* of the fetch that left the state; 0: none */
	size_t n;
	struct told told[ORACLE_FETCHES];
};

/* An object of another Millrace. */
#define ORACLE_FOREIGN_DEVICE "pi-02"
#define ORACLE_FOREIGN_BOOT   "0000beef"
struct foreign {
	int source;
	char key[OBJECT_KEY_MAX];
	uint64_t first_seq, last_seq;
	uint8_t sha256[SHA256_SIZE];
	struct bytes object;
};

struct oracle {
	struct known sources[ORACLE_SOURCES];
	size_t n_sealed;
	struct sealed sealed[ORACLE_BATCHES]; /* by id */
	bool open_ends;                       /* a salvage may have left some; else no damage is booked */
	char wrong[1024];                     /* the first thing that was */
};

/* The last eight bits say of what size its records are; most are small ones. */
enum { ORACLE_NOISE, ORACLE_LARGE, ORACLE_SMALL };

/* Record n of the fetch, appended; and the state that it leaves, whose length is returned. */
void oracle_record(uint64_t token, uint32_t n, struct bytes *ret_record);
size_t oracle_state(uint64_t token, uint8_t ret_state[SINK_STATE_MAX]);

void oracle_init(struct oracle *o);

/* Frees the objects' bytes, of all copies. */
void oracle_done(struct oracle *o);

/* Whether it has room for some more. */
bool oracle_is_full(const struct oracle *o);

/* What was acknowledged. False: it contradicts what is known, and `wrong` says how. */
void oracle_commit(struct oracle *o, int source, struct told *told); /* gives it number and first_seq */
bool oracle_seal(struct oracle *o, const struct batch *batch);
struct sealed *oracle_batch(struct oracle *o, int64_t id); /* NULL: none has the id */
void oracle_deliver(struct sealed *sealed, int store, int64_t wall_ms);

/* Makes an object; the caller frees its bytes. And it was taken over as that batch: false as above. */
void oracle_foreign(struct foreign *ret, uint64_t token, int source, uint64_t first_seq, uint32_t records,
                    int64_t wall_ms);
bool oracle_import(struct oracle *o, const struct foreign *foreign, const struct batch *batch);

/* Whether it was taken over, and not dropped. */
bool oracle_has(const struct oracle *o, const struct foreign *foreign);

/* After a salvage that found every row: what all stores have was left. */
void oracle_salvaged(struct oracle *o, struct queue *q);

/* The first batch that waits for the store, with an id above `after`; NULL: none does. */
struct sealed *oracle_next(struct oracle *o, int store, int64_t after);

/* The oldest one that some store has not; NULL: there is none. */
struct sealed *oracle_oldest(struct oracle *o);
void oracle_expire(struct oracle *o, int64_t before_ms);

/* Looks at all of the buffer: whether it is what is known. */
bool oracle_check(struct oracle *o, struct queue *q);

/* Whether all lines are there that are known to be in the buffer, whatever else is. */
bool oracle_keeps(const struct oracle *o, struct queue *q);

bool oracle_fail(struct oracle *o, const char *format, ...) __attribute__((format(printf, 2, 3))); /* false */

#endif
