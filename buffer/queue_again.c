/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store that has lost what it had: a batch that is still here is brought there once more. Its row, the rows of its
 * deliveries and the store's book are put back to where they were before this store had it.
 */
#include <errno.h>
#include <inttypes.h>

#include "buffer/queue_private.h"

/* The batch that holds the seq or, where none does, the first that comes after it. 1, 0: there is none, -errno. */
static int find_batch(struct queue *q, const char *source, uint64_t seq, struct batch_row *ret_row, struct err *err)
{
	const struct cell cells[] = { cell_text(source), cell_number((int64_t)seq) };
	int found, r = queue_query(q, SQL_BATCHES_OF, CELLS(cells), err);

	if (r < 0)
		return r;
	found = queue_step(q, SQL_BATCHES_OF, err);
	if (found == 1)
		r = queue_read_batch(q, SQL_BATCHES_OF, ret_row, err);
	queue_reset(q, SQL_BATCHES_OF);
	return r < 0 ? r : found;
}

/* Once all had it, the batch's row said so for the last of them. */
static int put_deliveries(struct queue *q, const struct batch_row *row, uint64_t done, struct err *err)
{
	int r = 0;

	for (; r == 0 && done != 0; done &= done - 1) {
		const struct cell cells[] = { cell_number(row->batch.id),
			                      cell_text(q->stores[__builtin_ctzll(done)].name),
			                      cell_number(row->batch.delivered_ms) };

		r = queue_put(q, SQL_DELIVERY_PUT, CELLS(cells), err);
	}
	return r;
}

/* In a transaction. ret_done: the stores that have it from now on. */
static int take_back(struct queue *q, const struct source *source, int bit, struct batch_row *row, uint64_t *ret_done,
                     struct err *err)
{
	const struct cell key[] = { cell_number(row->batch.id), cell_text(q->stores[bit].name) };
	uint64_t others = source->route.stores & ~(UINT64_C(1) << bit);
	int64_t ignored;
	int r = queue_unbook(q, q->stores[bit].name, &row->batch, err);

	if (r == 0 && row->batch.delivered_ms > 0) {
		r = put_deliveries(q, row, others, err);
		row->batch.delivered_ms = 0;
		if (r == 0)
			r = queue_put_batch(q, row, err);
	}
	if (r == 0)
		r = queue_run(q, SQL_DELIVERY_DELETE, CELLS(key), err);
	return r == 0 ? queue_deliveries(q, row->batch.id, ret_done, &ignored, err) : r;
}

static int deliver_again(struct queue *q, struct source *source, int bit, struct batch_row *row, struct err *err)
{
	struct waiting *w = queue_find_waiting(q, row->batch.id);
	uint64_t done = 0;
	int r = w ? 0 : queue_grow_waiting(q, err);

	if (r == 0)
		r = queue_begin(q, err);
	if (r == 0)
		r = queue_end(q, take_back(q, source, bit, row, &done, err), err);
	if (r < 0)
		return r;
	if (!w)
		queue_add_waiting(q, source, row);
	queue_find_waiting(q, row->batch.id)->done = done;
	return 0;
}

static uint64_t count_common(const struct batch *batch, uint64_t first_seq, uint64_t last_seq)
{
	uint64_t first = batch->first_seq > first_seq ? batch->first_seq : first_seq;
	uint64_t last = batch->last_seq < last_seq ? batch->last_seq : last_seq;

	return last - first + 1;
}

int queue_deliver_again(struct queue *q, const char *store, const char *name, uint64_t first_seq, uint64_t last_seq,
                        uint64_t *ret_records, struct err *err)
{
	struct source *source = queue_find_source(q, name);
	int bit = queue_find_store(q, store), r = queue_check(q, err);
	struct batch_row row = { .oldest_ms = 0 };
	uint64_t records = 0;

	if (r < 0)
		return r;
	if (!source || bit < 0 || !(source->route.stores >> bit & 1))
		return err_fail(err, -EINVAL, "source \"%s\" does not go to store \"%s\" any more", name, store);
	while (r == 0 && first_seq <= last_seq) {
		int found = find_batch(q, name, first_seq, &row, err);

		if (found <= 0 || row.batch.first_seq > last_seq) {
			r = found < 0 ? found : 0;
			break;
		}
		records += count_common(&row.batch, first_seq, last_seq);
		first_seq = row.batch.last_seq + 1;
		r = deliver_again(q, source, bit, &row, err);
	}
	queue_sum_waiting(q);
	if (r == 0)
		*ret_records = records;
	return r;
}
