# SPDX-License-Identifier: Apache-2.0
"""Power cuts of the buffer alone, and every single one of its I/O calls failing, under the sanitizers.

MILLRACE_BUFFER_CUTS (100,000) cuts, MILLRACE_FAULTS (500) allocations, MILLRACE_SEED to repeat a run; the figures go to
buffer_cuts.json below MILLRACE_SOAK.
"""

import json
import os
import random

from buffer_bench import program, red, sound
from soak.conftest import place

CUTS = int(os.environ.get("MILLRACE_BUFFER_CUTS", "100000"))
FAULTS = int(os.environ.get("MILLRACE_FAULTS", "500"))
SEED = int(os.environ.get("MILLRACE_SEED", str(random.randrange(1 << 30))))
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


def test_power_cuts_under_the_sanitizers():
    keep("cuts_sanitized", sound(sanitized("buffer_cuts"), max(CUTS // 50, 1), SEED, timeout=PATIENCE))


def test_sabotages_are_found():
    keep("red_ignored_sync", red(program("buffer_cuts"), 1000, SEED, "ignore-sync"))
    keep("red_synchronous_off", red(program("buffer_cuts_off"), 1000, SEED))
    keep("red_deaf_to_failures", red(program("buffer_faults_deaf"), "io", 1))


def test_every_io_call_fails():
    keep("io_faults", sound(sanitized("buffer_faults"), "io", 1, timeout=PATIENCE))


def test_allocations_fail():
    figures = sound(sanitized("buffer_faults"), "alloc", FAULTS, timeout=PATIENCE)
    assert figures["runs"] == FAULTS
    keep("allocation_faults", figures)
