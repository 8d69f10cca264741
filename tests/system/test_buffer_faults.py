# SPDX-License-Identifier: Apache-2.0
"""Power cuts and failing calls of the buffer alone, a slice of what tests/soak/test_buffer_cuts.py does in full.

MILLRACE_SEED repeats the cuts of a run.
"""

import os
import random

from buffer_bench import program, red, sound

CUTS = 600
LIFE = 40
ONCE_RED = (471587774, 849647478, 594370761)  # of one in 50,000 cuts each, before what they found was mended
PHASES = ("create", "upgrade", "recovery", "commit", "stage", "seal", "delivery", "import", "salvage", "checkpoint")


def seed():
    return int(os.environ.get("MILLRACE_SEED", str(random.randrange(1 << 30))))


def test_nothing_is_lost_or_twice_after_power_cuts():
    figures = sound(program("buffer_cuts"), CUTS, seed())
    assert figures["cuts"] == CUTS
    assert all(figures["by_phase"][phase] > 0 for phase in PHASES), "a phase was never cut"


def test_what_was_once_red_is_well():
    for life in ONCE_RED:
        sound(program("buffer_cuts"), LIFE, life)


def test_a_card_that_forgets_what_was_synced_is_found():
    red(program("buffer_cuts"), CUTS, seed(), "ignore-sync")


def test_a_buffer_that_does_not_wait_for_the_card_is_found():
    red(program("buffer_cuts_off"), CUTS, seed())


def test_it_goes_on_after_a_failed_call():
    assert sound(program("buffer_faults"), "io", 97)["runs"] > 60


def test_it_goes_on_after_a_failed_allocation():
    assert sound(program("buffer_faults"), "alloc", 60)["runs"] == 60


def test_a_buffer_that_does_not_hear_of_failures_is_found():
    red(program("buffer_faults_deaf"), "io", 7)
