# SPDX-License-Identifier: Apache-2.0
"""A damaged buffer: it starts, what lies outside the damage is delivered, what is lost is booked, and it goes on.

test_damages.py in the soak does the same thousands of times; test_salvage.c has the buffer alone.
"""

import itertools
import random

import pytest

from damage import KINDS, PLACES, Bench

ROUNDS = 2


@pytest.fixture
def bench(millrace, tmp_path):
    bench = Bench(millrace, tmp_path / "bench")
    yield bench
    bench.close()


def test_damage_at_rest(bench):
    states = itertools.cycle(bench.make_states())
    salvages = 0
    for seed, (kind, where) in enumerate(list(itertools.product(KINDS, PLACES)) * ROUNDS):
        state = next(states)
        try:
            salvages += bench.run(state, kind, where, random.Random(seed)).salvaged
        except AssertionError as error:
            raise AssertionError(f"{state.name}, {kind}, {where}, seed {seed}: {error}") from error
    assert salvages > ROUNDS


def test_damage_under_a_running_daemon(bench):
    grown = next(s for s in bench.make_states() if s.name == "grown")
    outcomes = [bench.run_live(grown, random.Random(seed)) for seed in range(3)]
    assert all(o.salvaged for o in outcomes if o.lost)
    assert any(o.salvaged for o in outcomes)


def test_a_byte_of_a_chunk(bench):
    """SQLite finds nothing wrong with it."""
    for state in bench.make_states():
        if state.name in ("young", "worn"):
            records, outcome = bench.run_chunk(state)
            assert (outcome.lost, outcome.unbooked, outcome.open_ended) == (records, 0, 0)
            assert outcome.salvaged == 1


def test_a_key_of_the_tree_of_parts(bench):
    """SQLite finds nothing wrong with it, and not what it leads to."""
    worn = next(s for s in bench.make_states() if s.name == "worn")
    outcome = bench.run_key(worn)
    assert (outcome.lost, outcome.unbooked, outcome.salvaged) == (0, 0, 1)
