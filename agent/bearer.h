/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a carrier brings objects to one kind of store: bearer_file.c by jobs of a worker of its own, bearer_s3.c by
 * base/http. The carrier says what goes where and when; the bearer moves the bytes and says how it ended. Private to
 * agent/carrier*.c and agent/bearer*.c. Loop thread only.
 */
#ifndef AGENT_BEARER_H
#define AGENT_BEARER_H

#include "agent/carrier.h"

/* One batch on its way. */
struct load {
	struct carrier *carrier;
	struct batch batch;
	struct bytes data; /* the part at hand, borrowed by the bearer from on_part to its next load_read */
	struct err err;
	void *own; /* the bearer's, for the load's whole life */

	/* The carrier's. */
	struct job job; /* of the buffer's worker */
	bool busy;      /* the job is under way */
	bool stale;     /* what it reads was asked for before load_rewind */
	bool used;
	int part;
	uint64_t read; /* bytes of the object so far */
	int status;
	bool dropped;    /* the batch is no longer in the buffer */
	bool done_early; /* the bearer has ended while the job was under way */
	int verdict;
	int64_t retry_after_ms;
	struct queue_view *fresh;
};

enum load_verdict {
	LOAD_DELIVERED, /* durable in the store under its key */
	LOAD_AWAY,      /* the store does not take it now: the same again after a while */
	LOAD_DENIED,    /* a person must mend something at the store or in the configuration: again slowly */
	LOAD_PARKED,    /* this batch cannot be brought there, others can */
};

struct bearer; /* begins the struct of each kind */

struct bearer_ops {
	int64_t probe_every_ms; /* how often a store that is ready and has nothing to do is looked after */

	/* 0 or -errno. ret_loads: how many objects it brings at once, 1 to LOADS_MAX. */
	int (*new)(const struct carrier_env *env, const struct config_store *store, struct carrier *carrier,
	           struct bearer **ret_bearer, size_t *ret_loads);

	/* Sees whether the store is there; known: it was used before at this place. Ends in carrier_probed. */
	void (*probe)(struct bearer *bearer, bool known);

	/* Brings a load: asks for its parts by load_read, one at a time, and ends in load_done exactly once. */
	void (*bring)(struct bearer *bearer, struct load *load);

	/* How long it has waited for a disk that does not answer, in milliseconds; NULL: its kind never does. */
	int64_t (*busy_ms)(const struct bearer *bearer);

	/* A part is in load->data. */
	void (*on_part)(struct bearer *bearer, struct load *load);

	/* Drops what is under way without a word, then on_closed, perhaps from within. Then free. */
	void (*close)(struct bearer *bearer, void (*on_closed)(void *arg), void *arg);
	void (*free)(struct bearer *bearer);
};

struct bearer {
	const struct bearer_ops *ops;
};

#define LOADS_MAX 16

extern const struct bearer_ops bearer_file_ops, bearer_s3_ops;

/* --- What a bearer tells its carrier, from within the calls above too --- */

/*
 * 0: it is there. -EACCES and -EPROTO: a person must mend it; anything else: away, and retry_after_ms is what the store
 * asked for, or -1. err is copied.
 */
void carrier_probed(struct carrier *carrier, int status, int64_t retry_after_ms, const struct err *err);

/* Reads the next part of the load's object; on_part follows, or the load ends where the buffer cannot give it. */
void load_read(struct load *load);

/* Begins with the first part again. */
void load_rewind(struct load *load);

/* All parts were read. */
bool load_is_read(const struct load *load);

/* load->err says why, where it was not delivered. retry_after_ms: what the store asked for, or -1. */
void load_done(struct load *load, enum load_verdict verdict, int64_t retry_after_ms);

#endif
