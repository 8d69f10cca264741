# SPDX-License-Identifier: Apache-2.0
"""Power cuts of the buffer alone, and every single one of its I/O calls failing, under the sanitizers.

MILLRACE_BUFFER_CUTS (100,000) cuts, MILLRACE_FAULTS (500) allocations, every MILLRACE_FAULTS_EVERY-th (1) I/O call,
MILLRACE_SEED to repeat a run; the figures go to buffer_cuts.json below MILLRACE_SOAK, and to docs/durability.md's.
"""

import json
import os
import random

from buffer_bench import program, red, sound
from figures import note
from soak.conftest import place

CUTS = int(os.environ.get("MILLRACE_BUFFER_CUTS", "100000"))
FAULTS = int(os.environ.get("MILLRACE_FAULTS", "500"))
SEED = int(os.environ.get("MILLRACE_SEED", str(random.randrange(1 << 30))))
FAULTS_EVERY = int(os.environ.get("MILLRACE_FAULTS_EVERY", "1"))
TEST = "test_buffer_cuts.py"
PATIENCE = 3600  # seconds, on a machine that others use too


def sanitized(name):
    path = program(name, "MILLRACE_ASAN_CUT", "build/asan/cut")
    assert b"__asan_init" in path.read_bytes(), f"{path} is built without sanitizers"
    return path


def keep(name, figures):
    file = place("MILLRACE_SOAK", "build/soak") / "buffer_cuts.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(known | {name: figures}, indent=2) + "\n")


def test_power_cuts():
    figures = sound(program("buffer_cuts"), CUTS, SEED, timeout=PATIENCE)
    assert figures["cuts"] == CUTS
    keep("cuts", figures)
    phases = {phase: n for phase, n in figures["by_phase"].items() if n}
    note("power cuts of the buffer alone, by phase", TEST, **phases)
    note(
        "power cuts of the buffer alone",
        TEST,
        cuts=figures["cuts"],
        starts=figures["starts"],
        damaged_between=figures["damages"] + figures["compared"],
        records=figures["records"],
        lost=0,
        twice=0,
        failed_starts=0,
        set_aside=0,
    )


def test_power_cuts_under_the_sanitizers():
    figures = sound(sanitized("buffer_cuts"), max(CUTS // 50, 1), SEED, timeout=PATIENCE)
    keep("cuts_sanitized", figures)
    note("power cuts of the buffer alone, under sanitizers", TEST, cuts=figures["cuts"], starts=figures["starts"])


def test_sabotages_are_found():
    keep("red_ignored_sync", red(program("buffer_cuts"), 1000, SEED, "ignore-sync"))
    keep("red_synchronous_off", red(program("buffer_cuts_off"), 1000, SEED))
    keep("red_deaf_to_failures", red(program("buffer_faults_deaf"), "io", 1))
    note("builds that must lose: ignored sync, synchronous=OFF, deaf to failures", TEST, built=3, found_red=3)


def test_every_io_call_fails():
    figures = sound(sanitized("buffer_faults"), "io", FAULTS_EVERY, timeout=PATIENCE)
    keep("io_faults", figures)
    note("each I/O call fails, under sanitizers", TEST, faults=figures["runs"], lost=0, set_aside=0)


def test_allocations_fail():
    figures = sound(sanitized("buffer_faults"), "alloc", FAULTS, timeout=PATIENCE)
    assert figures["runs"] == FAULTS
    keep("allocation_faults", figures)
    note("allocations fail, under sanitizers", TEST, faults=figures["runs"], lost=0, set_aside=0)
