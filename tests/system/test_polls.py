# SPDX-License-Identifier: Apache-2.0
"""The built-in source `_polls`: what the lake hears of each hour's polls. In quick motion."""

import base64
import json
import random
import signal
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

import lake
from clock import Clock
from daemon import UnixConnection, wait_until
from feed import Answer, truncated

BEGIN = datetime(2031, 3, 14, 12, 2, tzinfo=UTC)  # no poll is due at a full hour
EVERY = "10m"
BODY = b'[{"free":1},{"free":2}]'
HTML = b"<!DOCTYPE html><p>gone</p>"
CUT = 9
POLLS = "_polls"
NONE = {"polls": 0, "unchanged": 0, "failed": 0, "refused": 0, "records": 0, "bytes": 0}
NONE |= {"slowest_ms": None, "last_status": None, "last_cause": None}


def fresh(n):
    return Answer(b'[{"free":%04d},{"free":2},{"free":3}]' % (1000 + n))


FRESH = len(fresh(1).body)


class Route:
    """Gives its answer, or the one that it makes for each number, and counts."""

    def __init__(self, answer):
        self._answer = answer
        self.n = 0

    def __call__(self, _request):
        self.n += 1
        return self._answer(self.n) if callable(self._answer) else self._answer


class Rig:
    def __init__(self, daemon, clock, server):
        self.daemon = daemon
        self.clock = clock
        self._server = server
        self.routes = {}

    def serve(self, **answers):
        """Each name is a source; returns the sources' settings."""
        for name, answer in answers.items():
            self.routes[name] = Route(answer)
            self._server.route(f"/{name}", self.routes[name])
        return {name: {"url": self._server.url(f"/{name}"), "every": EVERY} for name in answers}

    def start(self, sources, **top):
        self.daemon.configure(sources, **top)
        self.daemon.start()

    def reload(self, sources):
        before = len(self.daemon.events("agent.reloaded"))
        self.daemon.configure(sources)
        self.daemon.process.send_signal(signal.SIGHUP)
        wait_until("the reload", lambda: len(self.daemon.events("agent.reloaded")) > before)

    def run_to(self, hour, minute=0):
        now = self.clock.wall()
        left = now.replace(hour=hour, minute=minute, second=0, microsecond=0) - now
        self.clock.run(milliseconds=left // timedelta(milliseconds=1))

    def told(self):
        """What stands in the lake: the records of each fetch, as they came."""
        self.daemon.flush()
        found = lake.read(self.daemon.lake)
        assert found.problems == []
        fetches = {}
        for record in found.records(POLLS):
            fetches.setdefault(record.fetch, []).append(json.loads(record.data))
        return list(fetches.values())


@pytest.fixture
def rig(make_daemon, millrace_sim, server, tmp_path):
    clock = Clock(tmp_path / "clock", BEGIN)
    return Rig(make_daemon(program=millrace_sim, env={"MILLRACE_CLOCK": str(clock.path)}), clock, server)


def told_of(source, begin, end, **figures):
    """A record: of a source that was not polled, but for the figures given."""
    return {"source": source, "from": f"2031-03-14T{begin}.000Z", "to": f"2031-03-14T{end}.000Z"} | NONE | figures


def of_fresh(polls):
    return {"polls": polls, "records": 3 * polls, "bytes": FRESH * polls, "slowest_ms": 0, "last_status": 200}


def of_frozen(polls, changed=0):
    figures = {"polls": polls, "unchanged": polls - changed, "records": 2 * changed, "bytes": len(BODY) * polls}
    return figures | {"slowest_ms": 0, "last_status": 200}


def of_missing(polls):
    return {"polls": polls, "failed": polls, "last_status": 404, "last_cause": "http-404"}


def of_down(polls):
    return {"polls": polls, "failed": polls, "last_cause": "refused"}


def of_refused(polls, size, cause):
    return {"polls": polls, "refused": polls, "bytes": size * polls, "last_status": 200, "last_cause": cause}


def test_hours(rig):
    """Of one that is new with each poll, one that stands still, and each way to bring nothing."""
    sources = rig.serve(
        fresh=fresh,
        frozen=Answer(BODY),
        missing=Answer(b"gone", 404),
        html=Answer(HTML),
        short=truncated(BODY, CUT),
    )
    sources["down"] = {"url": "http://127.0.0.1:1/", "every": EVERY}
    rig.start(sources | {"resting": sources["fresh"] | {"enabled": False}})
    expected, before = [], Counter()
    for hour, begin in ((13, "12:02:00"), (14, "13:00:00"), (15, "14:00:00")):
        rig.run_to(hour)
        now = Counter({name: route.n for name, route in rig.routes.items()}, down=rig.daemon.source("down")["polls"])
        n, before = now - before, now
        assert n["fresh"] == n["frozen"] == 6
        assert all(n[name] > 6 for name in ("missing", "html", "short", "down")), "what fails is tried more often"
        figures = {
            "fresh": of_fresh(6),
            "frozen": of_frozen(6, changed=hour == 13),
            "missing": of_missing(n["missing"]),
            "html": of_refused(n["html"], len(HTML), "not-json"),
            "short": of_refused(n["short"], CUT, "truncated"),
            "down": of_down(n["down"]),
        }
        expected.append([told_of(name, begin, f"{hour}:00:00", **figures[name]) for name in sources])
    assert rig.told() == expected
    assert rig.daemon.cli("audit").returncode == 0


def test_the_slowest_answer(rig):
    """New or not; one that brings nothing is slow for other reasons."""
    takes = {1: 412, 3: 20, 7: 3, 8: 300, 14: 900}

    def slow(n):
        rig.clock.pass_by(milliseconds=takes.get(n, 0))
        return Answer(b"gone", 404) if n == 14 else Answer(BODY)

    rig.start(rig.serve(slow=slow))
    for hour in (13, 14, 15):
        rig.run_to(hour)
    assert [hour[0]["slowest_ms"] for hour in rig.told()] == [412, 300, 0]
    assert rig.told()[2][0]["failed"] == 1


def test_a_line(rig):
    """The bytes, since they are an interface; and it is seen as other sources are."""
    rig.start(rig.serve(frozen=Answer(BODY)))
    assert rig.daemon.records(POLLS) == []
    assert POLLS not in [s["name"] for s in rig.daemon.status()["sources"]]
    rig.run_to(13)
    (line,) = wait_until("the hour to be committed", lambda: rig.daemon.records(POLLS))
    boot = rig.daemon.status()["boot"].encode()
    assert line == (
        b'{"source":"_polls","device":"pi-test","boot":"' + boot + b'","seq":1,"fetch":1,'
        b'"fetched_at":"2031-03-14T13:00:00.000Z","clock":"synced","data":'
        b'{"source":"frozen","from":"2031-03-14T12:02:00.000Z","to":"2031-03-14T13:00:00.000Z","polls":6,'
        b'"unchanged":5,"failed":0,"refused":0,"records":2,"bytes":138,"slowest_ms":0,"last_status":200,'
        b'"last_cause":null}}'
    )
    assert rig.daemon.cli("tail", POLLS).stdout.encode() == line + b"\n"
    seen = rig.daemon.source(POLLS)
    assert (seen["kind"], seen["state"], seen["records"], seen["fetches"]) == ("polls", "fresh", 1, 1)
    assert (seen["last_answer"], seen["next_poll"]) == ("2031-03-14T13:00:00.000Z", "2031-03-14T14:00:00.000Z")
    shown = rig.daemon.cli("show", "sources")
    assert [row.split()[:3] for row in shown.stdout.splitlines()[1:]] == [
        ["frozen", "rest", "fresh"],
        ["_polls", "polls", "fresh"],
    ]
    refused = rig.daemon.cli("poll", POLLS)
    assert (refused.returncode, refused.stdout) == (64, "")
    assert 'source "_polls" is built in and cannot be polled' in refused.stderr
    assert rig.daemon.cli("status").returncode == 0


def test_it_can_be_followed(rig):
    rig.start(rig.serve(frozen=Answer(BODY)))
    connection = UnixConnection(rig.daemon.socket)
    connection.request("GET", f"/v1/sources/{POLLS}/records?last=0&follow=1")
    answer = connection.getresponse()
    sources = rig.serve(other=Answer(BODY))
    rig.reload(sources)
    rig.run_to(13)
    assert json.loads(answer.readline())["data"]["source"] == "frozen"
    assert json.loads(answer.readline())["data"]["source"] == "other"
    rig.run_to(14)
    assert json.loads(answer.readline())["data"]["source"] == "other"
    connection.close()


def test_hours_without_news_write_one_commit_each(rig):
    rig.start(rig.serve(frozen=Answer(BODY)))
    rig.run_to(13)
    buffer = rig.daemon.folder / "buffer.db-wal"
    hours = []
    for hour in range(13, 17):
        rig.run_to(hour, 30)
        half = buffer.read_bytes()
        rig.run_to(hour, 59)
        hours.append(buffer.read_bytes() == half)
    assert hours == [True] * 4
    assert (rig.daemon.source("frozen")["fetches"], rig.daemon.source(POLLS)["fetches"]) == (1, 4)


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_restart(rig, how):
    """What the first one has counted is lost, and that shows: its records do not go on where the next ones begin."""
    rig.start(rig.serve(fresh=fresh))
    rig.run_to(13, 25)
    assert rig.daemon.stop() == 0 if how == "stop" else rig.daemon.kill() is None
    later = timedelta(minutes=10)
    rig.clock.boot(rig.clock.wall() + later, rig.clock.mono() + later)
    rig.daemon.start()
    assert rig.daemon.source(POLLS)["state"] == "waiting", "since this start nothing was told"
    rig.run_to(15)
    assert rig.told() == [
        [told_of("fresh", "12:02:00", "13:00:00", **of_fresh(6))],
        [told_of("fresh", "13:35:00", "14:00:00", **of_fresh(3))],
        [told_of("fresh", "14:00:00", "15:00:00", **of_fresh(6))],
    ]


def test_a_start_just_before_the_hour(rig):
    rig.clock.boot(BEGIN.replace(minute=56), rig.clock.mono())
    rig.start(rig.serve(fresh=fresh))
    rig.run_to(14)
    assert rig.told() == [[told_of("fresh", "12:56:00", "14:00:00", **of_fresh(7))]]


def test_nobody_is_polled(rig):
    """Hours of an idle daemon: its buffer is as it was."""
    rig.start({"resting": rig.serve(fresh=fresh)["fresh"] | {"enabled": False}})
    files = [rig.daemon.folder / "buffer.db", rig.daemon.folder / "buffer.db-wal"]
    rig.clock.run(minutes=1)
    before = [f.read_bytes() for f in files]
    rig.run_to(16)
    assert [f.read_bytes() for f in files] == before
    assert rig.told() == []


def test_sources_come_and_go(rig):
    sources = rig.serve(first=fresh, second=fresh, third=fresh)
    rig.start({n: sources[n] for n in ("first", "second")})
    rig.run_to(12, 25)
    rig.reload({n: sources[n] for n in ("first", "third")})
    rig.run_to(13, 15)
    changed = {"first": sources["first"] | {"timeout": "20s"}, "third": sources["third"] | {"enabled": False}}
    rig.reload(changed)
    rig.run_to(15)
    polls = {name: route.n for name, route in rig.routes.items()}
    told = rig.told()
    assert told[:2] == [
        [
            told_of("first", "12:02:00", "13:00:00", **of_fresh(6)),
            told_of("second", "12:02:00", "12:25:00", **of_fresh(3)),
            told_of("third", "12:25:00", "13:00:00", **of_fresh(4)),
        ],
        [
            told_of("first", "13:00:00", "14:00:00", **of_fresh(7)),
            told_of("third", "13:00:00", "13:15:00", **of_fresh(2)),
        ],
    ]
    assert [record["source"] for record in told[2]] == ["first"]
    assert Counter(r["source"] for hour in told for r in hour) == {"first": 3, "second": 1, "third": 2}
    assert {n: sum(r["polls"] for hour in told for r in hour if r["source"] == n) for n in polls} == polls


def noise(size):
    """A route: each answer is a record that is new and does not compress."""
    chance = random.Random(7)
    return lambda _n: Answer(json.dumps([base64.b85encode(chance.randbytes(size * 3 // 4)).decode()]).encode())


def fill(rig, room=0):
    """Until there is only so much of it, or nothing is begun any more."""
    for _ in range(100):
        status, _ = rig.daemon.request("POST", "/v1/sources/small/poll")
        if status != 200 or rig.daemon.status()["buffer"]["room_bytes"] < room:
            return
        rig.daemon.request("POST", "/v1/flush")
    raise AssertionError("it took all that came")


def test_hours_in_which_the_buffer_is_full(rig):
    """They are told as one, once there is room; an answer that waited in memory for that is one poll."""
    sources = rig.serve(small=noise(700_000), large=noise(1_500_000), frozen=Answer(BODY))
    sources["small"]["every"] = sources["large"]["every"] = "7d"
    sources["large"]["max_record"] = "1536K"
    buffer = {"path": str(rig.daemon.folder / "buffer.db"), "max_size": "24M"}
    rig.start(sources, buffer=buffer, batch={"max_bytes": "512K"})
    rig.clock.run(minutes=1)
    away = rig.daemon.lake.rename(rig.daemon.lake.with_name("away"))
    fill(rig, 2_000_000)
    assert "waits in memory" in rig.daemon.poll("large")["text"]
    fill(rig)
    rig.run_to(14, 30)
    assert {s["state"] for s in rig.daemon.status()["sources"]} == {"paused"}
    away.rename(rig.daemon.lake)
    rig.clock.run(minutes=10)
    wait_until("room", lambda: {s["state"] for s in rig.daemon.status()["sources"]} == {"fresh"})
    assert rig.told() == []
    rig.run_to(15)
    (hours,) = rig.told()
    assert [(r["source"], r["from"][11:19], r["to"][11:19]) for r in hours] == [
        (name, "12:02:00", "15:00:00") for name in ("small", "large", "frozen")
    ]
    assert [r["polls"] for r in hours] == [route.n for route in rig.routes.values()]
    assert [r["failed"] + r["refused"] for r in hours] == [0, 0, 0]
    assert [r["records"] for r in hours] == [rig.routes["small"].n, rig.routes["large"].n, 2]
    assert hours[2]["polls"] < 10
