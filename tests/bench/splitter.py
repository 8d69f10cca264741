# SPDX-License-Identifier: Apache-2.0
"""How fast the splitter is, beside jansson on the same texts; of jansson it is the time to build and free its tree."""

import os
import random
from pathlib import Path

from bench import bodies
from bench.report import at_least_times

SIZE = 20_000_000


def noisy():
    """Distinct values of 2 MB, in other orders again and again: made once they would take half a minute."""
    some = [line.encode() for line in bodies.records(bodies.tangled, 5, 2_000_000)]
    source = random.Random(5)
    made = []
    for _ in range(SIZE // 2_000_000):
        source.shuffle(some)
        made += some
    return made


def samples():
    """The recorded answers, where they are at hand."""
    folder = Path(os.environ.get("MILLRACE_SAMPLES", Path(__file__).resolve().parents[3] / "shared" / "samples"))
    return [p for p in sorted(folder.rglob("*.json")) if not p.name.endswith(".meta.json")]


def measure(bench, name, form, *files, bound=None):
    got = bench.program("split", "speed", form, *files)
    bench.report.row(
        "split",
        name,
        got["split"],
        "MB/s",
        beside=("jansson", got["jansson"]),
        bound=bound,
        bytes=got["bytes"],
        records=got["records"],
    )


def run(bench):
    folder = bench.place("split")
    made = noisy()
    for name, ndjson in (("array.json", False), ("lines.ndjson", True)):
        (folder / name).write_bytes(bodies.body(made, ndjson))
    measure(bench, "splitter, an array", "json", folder / "array.json", bound=at_least_times(10))
    if bench.ndjson:
        measure(bench, "splitter, ndjson", "lines", folder / "lines.ndjson", bound=at_least_times(10))
    found = samples()
    if found:
        measure(bench, "splitter, recorded answers", "json", *found, bound=at_least_times(10))
    else:
        bench.report.leave_out("split, recorded answers", "MILLRACE_SAMPLES names no folder of them", failed=False)
