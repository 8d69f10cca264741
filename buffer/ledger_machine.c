/* SPDX-License-Identifier: Apache-2.0 */
/* Machines and their days. */
#include <errno.h>

#include "buffer/ledger_private.h"

#define MACHINES_MOST 256 /* names ever used that are kept, by their last edge */

/* --- Rows --- */

static int read_day(struct queue *q, enum sql sql, struct ledger_day *ret_day)
{
	ret_day->day = queue_number(q, sql, 0);
	ret_day->wakes = (uint64_t)queue_number(q, sql, 2);
	ret_day->awake_ms = queue_number(q, sql, 3);
	return 0;
}

int ledger_find_machine(struct queue *q, const char *name, struct ledger_machine *ret_machine, struct err *err)
{
	const struct cell key[] = { cell_text(name) };
	struct ledger_machine machine;
	int64_t state;
	int r = queue_query(q, SQL_MACHINE_GET, CELLS(key), err);

	if (r == 0)
		r = queue_step(q, SQL_MACHINE_GET, err);
	if (r == 0)
		r = err_fail(err, -ENOENT, "there is no machine \"%s\"", name);
	else if (r > 0)
		r = queue_text(q, SQL_MACHINE_GET, 0, machine.name, sizeof machine.name, err);
	if (r == 0)
		r = queue_text(q, SQL_MACHINE_GET, 4, machine.reason, sizeof machine.reason, err);
	if (r == 0)
		r = queue_text(q, SQL_MACHINE_GET, 5, machine.awake, sizeof machine.awake, err);
	if (r == 0) {
		state = queue_number(q, SQL_MACHINE_GET, 1);
		machine.since_ms = queue_number(q, SQL_MACHINE_GET, 2);
		machine.ours = queue_number(q, SQL_MACHINE_GET, 3) != 0;
		machine.state = (enum ledger_machine_state)state;
		if (state < 0 || state > LEDGER_SLEEPING)
			r = queue_damaged(q, err, "machine", state, "there is no such state");
	}
	queue_reset(q, SQL_MACHINE_GET);
	if (r == 0)
		*ret_machine = machine;
	return r;
}

int ledger_days(struct queue *q, const char *machine, struct ledger_day *ret_days, size_t n, struct err *err)
{
	const struct cell cells[] = { cell_text(machine), cell_number((int64_t)n) };
	int r = queue_query(q, SQL_DAYS, CELLS(cells), err);
	size_t found = 0;

	while (r == 0 && found < n && (r = queue_step(q, SQL_DAYS, err)) > 0)
		r = read_day(q, SQL_DAYS, &ret_days[found++]);
	queue_reset(q, SQL_DAYS);
	return r < 0 ? r : (int)found;
}

/* --- Edges --- */

static int put_machine(struct queue *q, const struct ledger_machine *machine, struct err *err)
{
	const struct cell row[] = {
		cell_text(machine->name),   cell_number(machine->state), cell_number(machine->since_ms),
		cell_number(machine->ours), cell_text(machine->reason),  cell_text(machine->awake),
	};

	return queue_put(q, SQL_MACHINE_PUT, CELLS(row), err);
}

static int add_day(struct queue *q, const char *machine, const struct ledger_day *add, struct err *err)
{
	const struct cell key[] = { cell_number(add->day), cell_text(machine) };
	struct ledger_day sum = { .day = add->day };
	int r = queue_query(q, SQL_DAY_GET, CELLS(key), err);

	if (r == 0)
		r = queue_step(q, SQL_DAY_GET, err);
	if (r == 1)
		r = read_day(q, SQL_DAY_GET, &sum);
	queue_reset(q, SQL_DAY_GET);
	if (r < 0)
		return r;
	const struct cell row[] = {
		key[0],
		key[1],
		cell_number((int64_t)(sum.wakes + add->wakes)),
		cell_number(sum.awake_ms + add->awake_ms),
	};
	return queue_put(q, SQL_DAY_PUT, CELLS(row), err);
}

static int trim(struct queue *q, const char *machine, struct err *err)
{
	const struct cell machines[] = { cell_number(MACHINES_MOST) };
	const struct cell days[] = { cell_text(machine), cell_number(LEDGER_DAYS) };
	int r = queue_run(q, SQL_MACHINES_TRIM, CELLS(machines), err);

	if (r == 0)
		r = queue_run(q, SQL_DAYS_TRIM, CELLS(days), err);
	return r == 0 ? queue_run(q, SQL_DAYS_TRIM_ALL, NULL, 0, err) : r;
}

int ledger_put_machine(struct queue *q, const struct ledger_machine *machine, const struct ledger_day *add,
                       struct err *err)
{
	int r = queue_begin(q, err);

	if (r < 0)
		return r;
	r = put_machine(q, machine, err);
	if (r == 0 && add)
		r = add_day(q, machine->name, add, err);
	if (r == 0)
		r = trim(q, machine->name, err);
	return queue_end(q, r, err);
}
