# SPDX-License-Identifier: Apache-2.0
"""Power cuts of the real program on a file system that forgets what was not synced; make soak has many more of them.

MILLRACE_CUT_SECONDS: for how long; MILLRACE_CUT_SEED repeats a run.
"""

import os
import random

import pytest

from bench.report import NoRight
from cut_bench import Bench, Life
from cut_oracle import Violation

SECONDS = float(os.environ.get("MILLRACE_CUT_SECONDS", "45"))
CUTS_MAX = 250  # before a program that must lose has lost; 40 were enough in every trial


@pytest.fixture
def make_bench(cut_programs, tmp_path):
    made = []

    def make(program):
        try:
            made.append(Bench(program, cut_programs / "cutfs", tmp_path))
        except NoRight as error:
            pytest.skip(f"NO FILE SYSTEM THAT FORGETS: {error}")
        return made[-1]

    yield make
    for bench in made:
        bench.close()


def seed():
    return int(os.environ.get("MILLRACE_CUT_SEED", str(random.randrange(1 << 30))))


def test_a_power_cut_loses_nothing_and_doubles_nothing(make_bench, millrace):
    bench = make_bench(millrace)
    first = seed()
    print(f"MILLRACE_CUT_SEED={first}")
    bench.run(first, seconds=SECONDS)
    bench.figures.show()
    assert bench.figures.total() >= 20 and bench.figures.promised > 0


@pytest.mark.parametrize("sabotage", ["sync", "folder", "objects"])
def test_what_is_not_synced_is_missed(make_bench, cut_programs, sabotage):
    """synchronous = OFF; the buffer's folder never synced; the folders of the store never synced."""
    bench = make_bench(cut_programs / sabotage / "millrace")
    with pytest.raises(Violation) as told:
        bench.run(seed(), cuts=CUTS_MAX, models=("strict",))
    print(f"red after {bench.figures.total()} cuts: {told.value}")


def rename_twice(objects):
    objects[0].rename(objects[0].with_name(objects[0].name.replace("pi-test-", "pi-test2-")))


def cut_short(objects):
    content = objects[0].read_bytes()
    objects[0].unlink()
    objects[0].write_bytes(content[:-1])


def copy_to_another_day(objects):
    folder = objects[0].parent.with_name("dt=2031-01-01")
    folder.mkdir()
    (folder / objects[0].name).write_bytes(objects[0].read_bytes())


DAMAGES = {
    "an object is gone": (lambda objects: objects[0].unlink(), "is lost"),
    "an object is cut short": (cut_short, "Compressed file ended"),
    "an object stands twice": (copy_to_another_day, "stands twice in the store"),
    "an object has another name": (rename_twice, "device is not its name's"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_oracle_sees(make_bench, millrace, damage):
    life = Life(make_bench(millrace), 1, "strict")
    try:
        life.configure()
        life.start()
        for _ in range(3):
            life.poll("c0")
        life.daemon.flush()
        life.daemon.stop()
        life.join()
        life.look()
        (life.fs.root / "buffer.db-wal").unlink()
        (life.fs.root / "buffer.db").unlink()
        life.look()
        change, told = DAMAGES[damage]
        change(sorted((life.daemon.lake / "source=c0").rglob("*.gz")))
        with pytest.raises(Violation, match=told):
            life.look()
    finally:
        life.end()


def test_the_oracle_sees_a_loss_in_the_buffer(make_bench, millrace):
    life = Life(make_bench(millrace), 1, "strict")
    try:
        life.configure()
        life.start()
        life.poll("c0")
        life.daemon.stop()
        life.join()
        life.look()
        (life.fs.root / "buffer.db-wal").unlink()
        with pytest.raises(Violation, match="is lost"):
            life.look()
    finally:
        life.end()
