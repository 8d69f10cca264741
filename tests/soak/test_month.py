# SPDX-License-Identifier: Apache-2.0
"""A month with many sources in quick motion: what the daemon takes on the last day is what it took on the second.

MILLRACE_SOAK_DAYS, _SOURCES and _EVERY (minutes) make it shorter; the figures of all days go to month.json below
MILLRACE_SOAK. Flash is what a loop device with the buffer alone on it has taken; where none can be mounted, what
/proc/PID/io says of all that the daemon writes.
"""

import json
import os
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

import lake
from bench.flash import Card, NoRight
from bench.rig import memory_kb
from clock import Clock
from daemon import Daemon
from soak.web import Feed

DAYS = int(os.environ.get("MILLRACE_SOAK_DAYS", "30"))
SOURCES = int(os.environ.get("MILLRACE_SOAK_SOURCES", "100"))
EVERY = int(os.environ.get("MILLRACE_SOAK_EVERY", "15"))
BEGIN = datetime(2031, 3, 1, 0, 0, 30, tzinfo=UTC)
EARLY = 2  # the day with which the last one is compared: by then batches are deleted as fast as they come
PATHS = ("/v1/status", "/v1/sources")
ASKED = 50

# Of the last day beside the early one: how many times as much, and how much more, is no growth.
BOUNDS = {
    "private_dirty_kb": (1.15, 256),
    "pss_alone_kb": (1.15, 256),  # what is shared counts in full: others that come and go do not move it
    "buffer_kb": (1.1, 256),
    "flash_kb_per_poll": (1.15, 0),
    "cpu_ms_per_poll": (1.5, 0),
    "/v1/status_ms": (2, 0),
    "/v1/sources_ms": (2, 0),
}


class Month:
    """The daemon and its days: row() is one day's figures."""

    def __init__(self, daemon, clock, feed, card):
        self.daemon = daemon
        self._clock = clock
        self._feed = feed
        self._card = card
        self._before = (0, 0.0, 0)

    def day(self):
        begun = time.monotonic()
        for _ in range(24):
            self._clock.run(hours=1)
        return self._row(time.monotonic() - begun)

    def totals(self):
        """Polls, seconds of processor time, bytes written: since the start."""
        pid = self.daemon.process.pid
        ticks = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
        written = self._card.written() if self._card else written_by(pid)
        return self._feed.asked.total(), sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"), written

    def _row(self, seconds):
        now = self.totals()
        polls, cpu, written = (b - a for a, b in zip(self._before, now, strict=True))
        memory = memory_kb(self.daemon.process.pid)
        status = self.daemon.status()
        sizes = status["buffer"]["file_bytes"] + status["buffer"]["wal_bytes"]
        row = {
            "polls": polls,
            "private_dirty_kb": memory["private_dirty"],
            "pss_kb": memory["pss"],
            "pss_alone_kb": memory["pss_alone"],
            "buffer_kb": sizes / 1024,
            "flash_kb_per_poll": written / 1024 / polls,
            "cpu_ms_per_poll": 1000 * cpu / polls,
        }
        row |= {f"{path}_ms": self._answer_ms(path) for path in PATHS} | {"seconds": seconds}
        self._before = self.totals()  # what the questions cost is no poll's
        return row

    def _answer_ms(self, path):
        times = []
        for _ in range(ASKED):
            begun = time.perf_counter()
            self.daemon.ask("GET", path)
            times.append(time.perf_counter() - begun)
        return 1000 * statistics.median(times)


def written_by(pid):
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))


@pytest.fixture
def card(folder):
    try:
        card = Card(folder / "flash")
    except NoRight as error:
        print(f"no loop device: {error}")
        yield None
        return
    yield card
    card.close()


@pytest.fixture
def month(folder, millrace_sim, card):
    clock = Clock(folder / "clock", BEGIN)
    feed = Feed()
    daemon = Daemon(millrace_sim, folder, {"MILLRACE_CLOCK": str(clock.path)})
    daemon.configure(
        {name: {"url": feed.url(name), "every": f"{EVERY}m"} for name in names()},
        socket=str(daemon.socket),
        buffer={"path": str((card.root if card else folder) / "buffer.db")},
        batch={"max_age": "6h"},
    )
    daemon.start()
    yield Month(daemon, clock, feed, card), feed
    daemon.end()
    feed.close()


def names():
    return [f"s{i:03d}" for i in range(SOURCES)]


def show(rows):
    early, last = rows[EARLY - 1], rows[-1]
    print(f"\n{'':20} {f'day {EARLY}':>10} {f'day {len(rows)}':>10} {'times':>8} {'at most':>8}")
    for name, value in early.items():
        bound = f"{BOUNDS[name][0]:8.2f}" if name in BOUNDS else ""
        print(f"{name:20} {value:10.2f} {last[name]:10.2f} {last[name] / value:8.2f} {bound}")


def test_a_month_is_as_its_second_day(month, folder):
    assert DAYS > EARLY
    month, feed = month
    rows = []
    for _ in range(DAYS):
        rows.append(month.day())
        print(f"day {len(rows):2}: " + ", ".join(f"{k} {v:.2f}" for k, v in rows[-1].items()), flush=True)
    content = {"days": DAYS, "sources": SOURCES, "every_minutes": EVERY, "rows": rows}
    (folder.parent / "month.json").write_text(json.dumps(content, indent=2) + "\n")
    show(rows)
    month.daemon.flush()
    check_lake(month.daemon, feed)
    assert grown(rows) == {}


def grown(rows):
    """What is over its bound. Of three days the least, early and late: who else works here only adds."""
    early, last = ({n: min(row[n] for row in days) for n in BOUNDS} for days in (rows[EARLY - 1 :][:3], rows[-3:]))
    return {n: (early[n], last[n]) for n, (times, more) in BOUNDS.items() if last[n] > times * early[n] + more}


def check_lake(daemon, feed):
    """Source by source: a month in one piece would be gigabytes of Python's objects."""
    audit = daemon.cli("audit", timeout=300)
    assert audit.returncode == 0, audit.stdout + audit.stderr
    counts = {"records": 0, "objects": 0, "bytes": 0}
    for name in names():
        files = [p for p in sorted((daemon.lake / f"source={name}").rglob("*")) if p.is_file()]
        found = lake.check({str(p.relative_to(daemon.lake)): p.read_bytes() for p in files})
        assert found.problems == []
        assert found.data(name) == feed.served(name), f"{name}: lost or twice"
        counts["records"] += len(found.records())
        counts["objects"] += len(found.objects)
        counts["bytes"] += sum(o.bytes for o in found.objects)
    print(f"0 lost, 0 twice: {counts}")
