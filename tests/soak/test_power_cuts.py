# SPDX-License-Identifier: Apache-2.0
"""Power cuts of the real program: MILLRACE_CUTS of them [1000], under both models. MILLRACE_CUT_SEED repeats a run.

The figures go to power-cuts.json below MILLRACE_SOAK, and what a violation leaves to evidence in the test's folder.
"""

import json
import os
import random

import pytest

from bench.report import NoRight
from cut import MODELS
from cut_bench import Bench
from figures import note

CUTS = int(os.environ.get("MILLRACE_CUTS", "1000"))
PHASES = {
    "booking",
    "checkpoint",
    "commit",
    "creation",
    "delivery",
    "export",
    "import",
    "load",
    "recovery",
    "salvage",
    "seal",
    "stage",
    "upgrade",
}


@pytest.fixture
def bench(millrace, cut_programs, folder):
    try:
        bench = Bench(millrace, cut_programs / "cutfs", folder)
    except NoRight as error:
        pytest.skip(f"NO FILE SYSTEM THAT FORGETS: {error}")
    yield bench
    bench.close()


def tell(figures):
    for model in MODELS:
        cuts = {phase: row[model] for phase, row in figures.rows().items()}
        note(f"power cuts of the daemon, a file system that forgets: {model}", "test_power_cuts.py", **cuts)
    note(
        "power cuts of the daemon, both models",
        "test_power_cuts.py",
        cuts=figures.total(),
        starts=figures.starts,
        records_promised=figures.promised,
        lost=figures.lost,
        twice=figures.twice,
        failed_starts=figures.failed_starts,
        set_aside=figures.set_aside,
    )


def test_power_cuts(bench, folder):
    seed = int(os.environ.get("MILLRACE_CUT_SEED", str(random.randrange(1 << 30))))
    print(f"MILLRACE_CUT_SEED={seed} MILLRACE_CUTS={CUTS}")
    try:
        bench.run(seed, cuts=CUTS)
    finally:
        bench.figures.show()
        (folder.parent / "power-cuts.json").write_text(json.dumps(bench.figures.as_json(), indent=2) + "\n")
    tell(bench.figures)
    if CUTS >= 500:
        assert set(bench.figures.rows()) >= PHASES
