# SPDX-License-Identifier: Apache-2.0
"""A day of the parking feed in quick motion: 1,440 polls of 720 versions, midnight among them."""

import gzip
import itertools
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import lake
from clock import Clock
from feed import JSON, Answer, elements, parking

PATH = "/parking.json"
BEGIN = datetime(2031, 3, 14, 12, 3, tzinfo=UTC)  # midnight finds a batch half full
POLLS = 1440
VERSIONS = 720
EVERY = timedelta(minutes=2)
MAX_AGE = timedelta(minutes=15)
FOLDER = Path(__file__).resolve().parents[2] / os.environ.get("MILLRACE_SAMPLES", "../shared/samples") / "stavanger"


def version_of(recorded, version):
    """A recorded answer as it would be at this version's time, with other counts; without one a made answer."""
    if not recorded:
        return parking(version)
    at = BEGIN + version * EVERY
    body = recorded[version * len(recorded) // VERSIONS]
    body = re.sub(rb'"Dato":"[^"]*"', f'"Dato":"{at:%d.%m.%Y}"'.encode(), body)
    body = re.sub(rb'"Klokkeslett":"[^"]*"', f'"Klokkeslett":"{at:%H:%M}"'.encode(), body)
    steps = itertools.count(3)
    return re.sub(rb'plasser":"(\d+)"', lambda m: b'plasser":"%d"' % ((int(m[1]) + version * next(steps)) % 400), body)


class Feed:
    """A route: a new version every two minutes of the driven clock; ETag and Last-Modified move with each answer."""

    def __init__(self, clock, versions):
        self._clock = clock
        self._versions = versions
        self.given = []

    def __call__(self, _request):
        version = (self._clock.wall() - BEGIN) // EVERY
        self.given.append(version)
        moving = {"ETag": f'"{len(self.given)}"', "Last-Modified": f"{self._clock.wall():%a, %d %b %Y %H:%M:%S GMT}"}
        return Answer(self._versions[version], headers=JSON | moving)


def expected_batches(times):
    """How many fetches each object has when a batch ends at max_age and at midnight, and at nothing else."""
    batches = []
    for at in times:
        if not batches or at.date() != batches[-1][0].date() or at - batches[-1][0] >= MAX_AGE:
            batches.append([])
        batches[-1].append(at)
    return [len(b) for b in batches]


@pytest.fixture
def versions():
    recorded = [p.read_bytes() for p in sorted(FOLDER.glob("*.json")) if not p.name.endswith(".meta.json")]
    if not recorded:
        print(f"NO RECORDED ANSWERS in {FOLDER}: made ones stand for them")
    made = [version_of(recorded, v) for v in range(VERSIONS)]
    assert all(a != b for a, b in itertools.pairwise(made))
    return made


@pytest.fixture
def day(make_daemon, millrace_sim, server, tmp_path, versions):
    """The daemon when the day is over, and its feed."""
    clock = Clock(tmp_path / "clock", BEGIN)
    daemon = make_daemon(program=millrace_sim, env={"MILLRACE_CLOCK": str(clock.path)})
    feed = Feed(clock, versions)
    server.route(PATH, feed)
    daemon.configure({"parking": {"url": server.url(PATH), "every": "1m"}})
    daemon.start()
    for _ in range(23):
        clock.run(hours=1)
    clock.run(minutes=59)
    return daemon, feed


def test_every_version_of_a_day_is_kept_once(day, versions):
    daemon, feed = day
    assert feed.given == [v for v in range(VERSIONS) for _ in range(2)]
    source = daemon.source("parking")
    assert (source["polls"], source["fetches"], source["unchanged"]) == (POLLS, VERSIONS, POLLS - VERSIONS)
    assert (source["failed"], source["refused"]) == (0, 0)
    daemon.flush()
    found = lake.read(daemon.lake)
    assert found.problems == []
    records = found.records("parking")
    served = [(v + 1, element) for v, body in enumerate(versions) for element in elements(body)]
    assert [(r.fetch, r.data) for r in records] == served
    check_times(records)
    check_objects(found)
    assert daemon.cli("audit").returncode == 0


def check_times(records):
    """Each record tells when its version was new."""
    for record in records:
        late = datetime.fromisoformat(record.fetched_at) - (BEGIN + (record.fetch - 1) * EVERY)
        assert timedelta(0) <= late < timedelta(seconds=1), record.line


def check_objects(found):
    expected = expected_batches([BEGIN + v * EVERY for v in range(VERSIONS)])
    assert [len({r.fetch for r in o.records}) for o in found.objects] == expected
    assert 0 < expected[-1] < max(expected) == 8, "a quarter of an hour has eight versions"
    days = sorted({o.key.split("/")[1] for o in found.objects})
    assert days == ["dt=2031-03-14", "dt=2031-03-15"]
    raw, packed = (sum(sizes) for sizes in zip(*((o.raw_bytes, o.bytes) for o in found.objects), strict=True))
    floor = sum(len(gzip.compress(b"".join(r.line + b"\n" for r in o.records), 6)) for o in found.objects)
    print(
        f"a day: {POLLS} polls, {VERSIONS} versions, {len(found.records())} records, {len(found.objects)} objects of "
        f"{packed // len(found.objects)} bytes, {packed} bytes in all, {raw} unpacked; gzip -6 makes them {floor}"
    )
    assert packed <= 1.1 * floor
