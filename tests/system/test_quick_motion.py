# SPDX-License-Identifier: Apache-2.0
"""Hours in seconds: the build whose clock the test drives."""

import itertools
import os
import signal
from collections import defaultdict
from datetime import UTC, datetime, timedelta

import pytest

import lake
from clock import Clock
from daemon import wait_until
from feed import Answer

PATH = "/feed.json"
NOON = datetime(2031, 3, 14, 12, 0, tzinfo=UTC)


class Counter:
    """A route whose every answer is new."""

    def __init__(self):
        self.n = 0

    def __call__(self, _request):
        self.n += 1
        return Answer(b"[%d]" % self.n)


@pytest.fixture
def start(make_daemon, millrace_sim, server, tmp_path):
    """Starts a daemon at this time of day, with one source that is new every 5 minutes."""

    def start(wall, **top):
        clock = Clock(tmp_path / "clock", wall)
        daemon = make_daemon(program=millrace_sim, env={"MILLRACE_CLOCK": str(clock.path)})
        server.route(PATH, Counter())
        daemon.configure({"feed": {"url": server.url(PATH), "every": "5m"}}, **top)
        daemon.start()
        return daemon, clock

    return start


def times(found):
    return [datetime.fromisoformat(r.fetched_at) for r in found.records()]


def test_it_polls_when_it_is_due(start):
    daemon, clock = start(NOON)
    clock.run(hours=2)
    daemon.flush()
    found = lake.read(daemon.lake)
    assert found.problems == []
    at = times(found)
    assert len(at) == 25
    assert {b - a for a, b in itertools.pairwise(at)} == {timedelta(minutes=5)}


def test_a_buffer_that_cannot_be_opened_is_tried_every_few_seconds(make_daemon, millrace_sim, tmp_path):
    clock = Clock(tmp_path / "clock", NOON)
    daemon = make_daemon(program=millrace_sim, env={"MILLRACE_CLOCK": str(clock.path)})
    daemon.configure({})
    buffer = daemon.folder / "buffer.db"
    os.mkfifo(buffer)
    daemon.start()
    clock.run(seconds=1)
    buffer.unlink()
    assert {daemon.status()["buffer"]["state"] for _ in range(50)} == {"failing"}, "nothing is tried while time stands"
    clock.run(seconds=5)
    wait_until("it to be open", lambda: daemon.status()["buffer"]["state"] == "ready")


def test_a_batch_is_sealed_after_a_quarter_of_an_hour(start):
    daemon, clock = start(NOON)
    clock.run(minutes=14, seconds=30)
    assert lake.read(daemon.lake).objects == []
    clock.run(hours=2)
    found = lake.read(daemon.lake)
    assert found.problems == []
    assert len(found.objects) >= 8
    for item in found.objects:
        at = [datetime.fromisoformat(r.fetched_at) for r in item.records]
        assert max(at) - min(at) <= timedelta(minutes=15)
    newest = max(times(found))
    assert clock.wall() - newest <= timedelta(minutes=20), "an object is in the store within a quarter of an hour"


def test_a_batch_never_crosses_midnight_utc(start):
    daemon, clock = start(NOON.replace(hour=23, minute=52), batch={"max_age": "6h"})
    clock.run(minutes=20)
    found = lake.read(daemon.lake)
    assert [len(o.records) for o in found.objects] == [2], "midnight seals what the day has brought"
    daemon.flush()
    found = lake.read(daemon.lake)
    assert found.problems == []
    by_day = defaultdict(int)
    for item in found.objects:
        by_day[item.key.split("/")[1]] += len(item.records)
    assert by_day == {"dt=2031-03-14": 2, "dt=2031-03-15": 3}


def test_a_source_that_never_answered_needs_a_person_after_a_minute(make_daemon, millrace_sim, server, tmp_path):
    clock = Clock(tmp_path / "clock", NOON)
    daemon = make_daemon(program=millrace_sim, env={"MILLRACE_CLOCK": str(clock.path)})
    server.route(PATH, Answer(b"gone", 404))
    url = server.url(PATH)
    daemon.configure({"feed": {"url": url, "every": "1h"}, "secret": {"url": url + "?key=secret", "every": "1h"}})
    daemon.start()
    clock.run(seconds=50)
    young = daemon.cli("status")
    assert (daemon.source("feed")["state"], young.returncode) == ("failing", 0)
    assert "no action needed yet: 2 sources failing" in young.stdout
    clock.run(seconds=30)
    old = daemon.cli("status")
    assert (daemon.source("feed")["state"], old.returncode) == ("stale", 1)
    assert old.stdout.count("curl") == old.stdout.count(f"curl -v {url}\n") == 1
    assert "own query, headers and proxy" in old.stdout
    assert "show rejected" not in old.stdout, "nothing came that could be shown"


def test_sources_that_a_reload_adds_are_spread(make_daemon, millrace_sim, server, tmp_path):
    clock = Clock(tmp_path / "clock", NOON)
    daemon = make_daemon(program=millrace_sim, env={"MILLRACE_CLOCK": str(clock.path)})
    server.route(PATH, Answer(b"[1]"))
    feed = {"url": server.url(PATH), "every": "1h"}
    daemon.configure({"first": feed})
    daemon.start()
    clock.run(seconds=1)
    daemon.configure({"first": feed} | {f"added-{i}": feed for i in range(10)})
    daemon.process.send_signal(signal.SIGHUP)
    wait_until("the reload", lambda: len(daemon.status()["sources"]) == 11)
    clock.run(seconds=10)
    asked = [s["name"] for s in daemon.status()["sources"] if s["polls"]]
    assert asked == ["first", "added-0", "added-1", "added-2", "added-3"]
    clock.run(seconds=20)
    assert all(s["polls"] for s in daemon.status()["sources"])


def test_a_source_that_has_answered_is_given_its_time(make_daemon, millrace_sim, server, tmp_path):
    clock = Clock(tmp_path / "clock", NOON)
    daemon = make_daemon(program=millrace_sim, env={"MILLRACE_CLOCK": str(clock.path)})
    server.route(PATH, Answer(b"[1]"))
    daemon.configure({"feed": {"url": server.url(PATH), "every": "1h"}})
    daemon.start()
    daemon.poll("feed")
    server.route(PATH, Answer(b"gone", 404))
    clock.run(minutes=70)
    assert daemon.source("feed")["state"] == "failing"


def test_a_failing_source_is_tried_again_within_backoff_max(start, server):
    daemon, clock = start(NOON)
    server.route(PATH, Answer(b"gone", 404))
    before = len(server.requests(PATH))
    clock.run(hours=1)
    tries = len(server.requests(PATH)) - before
    assert 12 <= tries <= 60, "backoff grows to 5 minutes and no further"
    assert daemon.source("feed")["state"] in ("failing", "stale")
    server.route(PATH, Answer(b"[0]"))
    clock.run(minutes=6)
    assert daemon.source("feed")["state"] == "fresh"
