# SPDX-License-Identifier: Apache-2.0
"""Damages of the real program's buffer: MILLRACE_DAMAGES of them [2000], a tenth of that under a running daemon.

MILLRACE_DAMAGE_SEED repeats a run: damage n has the seed plus n. What failed lies in the test's folder: the state, and
`work`.
"""

import os
import random
from collections import Counter, defaultdict

import pytest

from damage import KINDS, PLACES, Bench
from figures import note

DAMAGES = int(os.environ.get("MILLRACE_DAMAGES", "2000"))
SEED = int(os.environ.get("MILLRACE_DAMAGE_SEED", str(random.randrange(1 << 30))))
NAMES = {"db": "buffer.db", "wal": "its WAL", "both": "both"}


@pytest.fixture
def bench(millrace, folder):
    bench = Bench(millrace, folder / "bench", SEED)
    yield bench
    bench.close()


def add(sums, outcome):
    sums.update(damages=1, salvages=outcome.salvaged, records=outcome.waited, lost=outcome.lost)
    sums.update(open_ended=outcome.open_ended, unbooked=outcome.unbooked)
    sums.update(delivered=outcome.delivered, came_back=outcome.came_back)


def share(part, whole):
    return f"{100 * part / whole:.2f} %" if whole else ""


def tell(fault, sums):
    """A damage whose run ended well has started, and has lost nothing that lay outside it."""
    note(
        fault,
        "test_damages.py",
        damages=sums["damages"],
        started=sums["damages"],
        salvages=sums["salvages"],
        records_that_waited=sums["records"],
        kept=share(sums["records"] - sums["lost"], sums["records"]),
        lost_outside_the_damage=0,
        lost_within_a_booking_without_end=sums["open_ended"],
        lost_with_the_end_of_the_WAL=sums["unbooked"],
        delivered_and_came_back=share(sums["came_back"], sums["delivered"]),
    )


def each(bench, n, run):
    """Runs n of them over all states: what fails says its seed."""
    states = bench.make_states()
    print(f"MILLRACE_DAMAGE_SEED={SEED} MILLRACE_DAMAGES={DAMAGES}")
    for seed in range(SEED, SEED + n):
        chance = random.Random(seed)
        state = chance.choice(states)
        try:
            run(state, chance)
        except AssertionError as error:
            raise AssertionError(f"MILLRACE_DAMAGE_SEED={seed}, {state.name}: {error}") from error


def test_damages(bench):
    sums = defaultdict(Counter)

    def run(state, chance):
        kind, where = chance.choice(KINDS), chance.choice(PLACES)
        add(sums[kind, where], bench.run(state, kind, where, chance))

    each(bench, DAMAGES, run)
    for (kind, where), found in sorted(sums.items()):
        tell(f"{kind} of {NAMES[where]}", found)


def test_damages_while_it_runs(bench):
    sums = Counter()

    def run(state, chance):
        outcome = bench.run_live(state, chance)
        if outcome:
            add(sums, outcome)

    each(bench, max(DAMAGES // 10, 5), run)
    tell("pages under a running daemon", sums)
