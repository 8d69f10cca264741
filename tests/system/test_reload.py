# SPDX-License-Identifier: Apache-2.0
"""SIGHUP: everything but the device's name and the buffer's place changes while it runs, and no fetch is lost by it."""

import contextlib
import itertools
import json
import os
import random
import signal
import threading
import time

import pytest

import lake
import memory
from daemon import wait_until
from feed import Answer, RawServer
from large import Held, number
from load import FreshAnswers, Load, check_committed, check_whole

RELOADS = int(os.environ.get("MILLRACE_RELOADS", "60"))
PATIENCE = 60
counter = itertools.count(100_000)


def reload(daemon, sources, **top):
    """Writes the configuration anew, and returns once it is the one that runs: its max_records is like no other's."""
    batch = {"max_records": next(counter)} | top.pop("batch", {})
    daemon.configure(sources, batch=batch, **top)
    daemon.process.send_signal(signal.SIGHUP)
    wait_until("the reload", lambda: running(daemon) == batch["max_records"])


def running(daemon):
    return daemon.ask("GET", "/v1/config")["batch"]["max_records"]


def polled(daemon, name):
    """Whether it committed; a source whose last fetch by the settings before has not ended answers 503."""
    status, body = daemon.request("POST", f"/v1/sources/{name}/poll")
    assert status in (200, 503)
    return status == 200 and json.loads(body)["outcome"] == "committed"


def names(daemon):
    return {s["name"]: s["state"] for s in daemon.status()["sources"]}


class Counting:
    """A route whose every answer is one record that is new."""

    def __init__(self, start=0):
        self._count = itertools.count(start + 1)

    def __call__(self, _request):
        return Answer(b"[%d]" % next(self._count))


@pytest.fixture
def sources(server):
    server.route("/a", Counting())
    server.route("/b", Counting(1000))
    server.route("/other", Counting(2000))
    return {"a": {"url": server.url("/a")}, "b": {"url": server.url("/b")}}


@pytest.fixture
def both(daemon, sources):
    """A daemon with two sources, of which each has been asked once."""
    daemon.configure(sources)
    daemon.start()
    for name in sources:
        daemon.poll(name)
    return daemon


def numbers(daemon, name):
    """What is in the store, in order; seq has no gap, and nothing is twice."""
    daemon.flush(PATIENCE)
    found = lake.read(daemon.lake)
    assert found.problems == []
    return [int(data) for data in found.data(name)]


def test_a_source_that_is_added_is_polled(daemon, sources):
    daemon.configure({"a": sources["a"]})
    daemon.start()
    daemon.poll("a")
    reload(daemon, sources)
    daemon.wait_records("b", 1)
    before = daemon.source("a")["polls"]
    daemon.poll("a")
    assert daemon.source("a")["polls"] == before + 1, "what did not change goes on, its counts as well"
    assert set(numbers(daemon, "b")) == {1001}


def test_a_source_that_is_changed_asks_elsewhere_and_goes_on(both, sources, server):
    first = both.source("a")["records"]
    reload(both, sources | {"a": {"url": server.url("/other"), "every": "2h"}})
    assert both.source("a")["origin"] == server.url("/other")
    report = both.poll("a")
    assert report["outcome"] == "committed" and report["first_seq"] > first
    assert [n for n in numbers(both, "a") if n > 2000]
    assert both.ask("GET", "/v1/config")["sources"]["a"]["every"] == "2h"


def test_a_source_polls_at_its_new_pace(both, sources, server):
    before = len(server.requests("/a"))
    reload(both, sources | {"a": sources["a"] | {"every": "1s"}})
    wait_until("polls", lambda: len(server.requests("/a")) >= before + 3)


def test_what_waits_of_a_source_that_is_removed_is_delivered(both, sources):
    unmounted = both.folder / "unmounted"
    both.flush()
    both.lake.rename(unmounted)
    both.lake.mkdir()
    both.poll("a")
    both.cli("flush")
    both.poll("a")
    wait_until("a batch to wait", lambda: both.store()["waiting_batches"])
    reload(both, {"b": sources["b"]})
    assert names(both)["a"] == "gone"
    assert both.request("POST", "/v1/sources/a/poll")[0] == 404
    both.lake.rmdir()
    unmounted.rename(both.lake)
    wait_until("the store", lambda: both.cli("flush", "--wait").returncode == 0, PATIENCE)
    assert len(numbers(both, "a")) >= 3
    wait_until("it to be forgotten", lambda: "a" not in names(both))


def test_a_source_that_comes_back_goes_on_where_it_was(both, sources):
    records = both.source("a")["records"]
    reload(both, {"b": sources["b"]})
    reload(both, sources)
    wait_until("an answer", lambda: both.poll("a")["outcome"] == "committed")
    assert len(numbers(both, "a")) > records


def test_a_source_that_is_disabled_rests(both, sources, server):
    reload(both, sources | {"a": sources["a"] | {"enabled": False, "every": "1s"}})
    assert names(both)["a"] == "disabled"
    before = len(server.requests("/a"))
    assert both.request("POST", "/v1/sources/a/poll")[0] == 409
    reload(both, sources)
    wait_until("polls again", lambda: len(server.requests("/a")) > before)
    both.poll("a")
    assert numbers(both, "a")


def test_a_store_that_is_added_gets_what_comes_from_then_on(both, sources):
    both.flush()
    disk = both.folder / "disk"
    disk.mkdir()
    stores = {"lake": {"kind": "file", "path": str(both.lake)}, "disk": {"kind": "file", "path": str(disk)}}
    reload(both, sources, stores=stores)
    seq = both.poll("a")["first_seq"]
    both.flush()
    assert seq in [r.seq for r in lake.read(disk).records("a")]
    assert numbers(both, "a")
    assert both.cli("audit").returncode == 0
    reload(both, sources)
    assert [s["name"] for s in both.status()["stores"]] == ["lake"]
    both.poll("a")
    assert numbers(both, "a")


def test_a_store_that_is_changed_is_the_new_one(both, sources):
    both.flush()
    moved = both.folder / "moved"
    moved.mkdir()
    reload(both, sources, stores={"second": {"kind": "file", "path": str(moved)}})
    seq = both.poll("b")["first_seq"]
    both.flush()
    assert seq in [r.seq for r in lake.read(moved).records("b")]
    assert seq not in [r.seq for r in lake.read(both.lake).records("b")]


def test_a_store_that_moves_under_its_name_is_warned_of(both, sources):
    """The books go by the name: what the old place has is missing at the new one."""
    both.flush()
    assert both.events("store.moved") == []
    moved = both.folder / "moved"
    moved.mkdir()
    reload(both, sources, stores={"lake": {"kind": "file", "path": str(moved)}})
    (warning,) = wait_until("the warning", lambda: both.events("store.moved"))
    assert all(word in warning["message"] for word in (str(both.lake), str(moved), "new name"))
    told = both.cli("audit")
    assert told.returncode == 1
    assert "missing" in told.stdout and "wants a new name" in told.stdout


def test_batches_end_by_the_new_age(both, sources):
    assert lake.read(both.lake).objects == []
    reload(both, sources, batch={"max_age": "1s"})
    wait_until("what waits to be delivered", lambda: len(lake.read(both.lake).objects) >= 2)


def test_on_full_and_the_log_change(both, sources):
    buffer = {"path": str(both.folder / "buffer.db"), "on_full": "drop-oldest", "max_size": "20M"}
    reload(both, sources, buffer=buffer, log="text")
    status = both.status()["buffer"]
    assert (status["on_full"], status["max_bytes"]) == ("drop-oldest", 20 << 20)
    last = both.log.read_text().splitlines()[-1]
    assert "sources: 2" in last and not last.startswith("{")


def test_the_socket_moves(both, sources):
    old, both.socket = both.socket, both.folder / "elsewhere.sock"
    both.configure(sources, socket=str(both.socket))
    both.process.send_signal(signal.SIGHUP)
    wait_until("the new socket", lambda: both.socket.exists())
    assert both.poll("a")["outcome"] == "committed"
    assert both.cli("status").returncode == 0
    wait_until("the old one to go", lambda: not old.exists())


@pytest.mark.parametrize("wrong", ["syntax", "mistake"])
def test_a_bad_file_is_refused_and_the_old_one_runs_on(both, sources, wrong):
    good = both.config.read_text()
    bad = good + ("sources = = ;\n" if wrong == "syntax" else 'batch = { max_age = "no time" };\n')
    both.config.write_text(bad)
    both.process.send_signal(signal.SIGHUP)
    wait_until("the refusal", lambda: both.events("config.refused"))
    line = bad.count("\n")
    assert f"{both.config}:{line}:" in both.events("config.refused")[0]["message"]
    assert both.poll("a")["outcome"] == "committed"
    assert both.events("agent.reloaded") == []
    check_refused(both, wrong, f"{both.config}:{line}:")
    reload(both, {"b": sources["b"]})
    assert names(both).get("a") in (None, "gone")
    status = both.status()
    assert status["ok"] and status["config"] == no_news(both)
    assert both.cli("status").returncode == 0


def no_news(daemon):
    return {"path": str(daemon.config), "refused": None, "last_error": "", "restart": ""}


def check_refused(daemon, wrong, place):
    """It is told until a reload is well, and a file with mistakes keeps no client from asking."""
    status = daemon.status()
    assert not status["ok"]
    assert status["config"]["refused"] and status["config"]["last_error"].startswith(place)
    assert any(place in p["what"] and "reload" in p["remedy"] for p in status["problems"])
    told = daemon.cli("status")
    if wrong == "syntax":
        assert (told.returncode, told.stdout) == (78, "") and place in told.stderr
        return
    assert (told.returncode, told.stderr) == (1, "") and place in told.stdout
    for command in (["tail", "a"], ["poll", "a"], ["show", "config"], ["flush"], ["audit"]):
        done = daemon.cli(*command)
        assert (done.returncode, done.stderr) == (0, ""), command
    assert daemon.cli("check").returncode == 78


def test_it_says_what_has_changed(both, sources, server):
    reload(both, {"b": sources["b"] | {"every": "2h"}, "c": {"url": server.url("/other")}}, log="json")
    told = both.events("agent.reloaded")[-1]["message"]
    assert told.endswith("; added: source c; changed: batch.max_records, source b; removed: source a")
    both.process.send_signal(signal.SIGHUP)
    wait_until("one more", lambda: len(both.events("agent.reloaded")) == 2)
    assert both.events("agent.reloaded")[-1]["message"].endswith("; nothing changed")


def check_restart(daemon, words):
    status = daemon.status()
    assert status["config"]["refused"] is None
    for word in words:
        assert word in status["config"]["restart"]
        assert any(word in p["what"] and "restart" in p["remedy"] for p in status["problems"])
        assert word in daemon.cli("status").stdout


def test_the_device_and_the_buffers_place_want_a_restart(both, sources, server):
    elsewhere = both.folder / "elsewhere.db"
    server.route("/c", Counting(3000))
    added = sources | {"c": {"url": server.url("/c")}}
    reload(both, added, device="pi-other", buffer={"path": str(elsewhere)}, socket=str(both.socket))
    both.wait_records("c", 1)
    told = " ".join(e["message"] for e in both.events("config.restart"))
    assert "restart" in told and "pi-other" in told and str(elsewhere) in told
    assert both.ask("GET", "/v1/config")["device"] == both.status()["device"] == "pi-test"
    assert not elsewhere.exists()
    check_restart(both, ["pi-other", str(elsewhere)])
    reload(both, added)
    assert both.status()["config"] == no_news(both)
    both.flush()
    assert {r.device for r in lake.read(both.lake).records()} == {"pi-test"}


@pytest.fixture
def raw():
    server = RawServer()
    yield server
    server.close()


@pytest.mark.parametrize("what", ["kept", "changed", "removed", "disabled", "removed and back"])
@pytest.mark.parametrize("size", [50, 20_000])
def test_a_fetch_under_way_is_not_lost(daemon, sources, raw, server, what, size):
    """One that waits in memory, and one that is being staged on the card."""
    held = Held(size, size - 10)
    raw.route("/slow", held)
    slow = {"url": raw.url("/slow"), "timeout": "5m"}
    now = {
        "kept": slow,
        "changed": slow | {"url": server.url("/other"), "every": "3h"},
        "disabled": slow | {"enabled": False},
    }.get(what)
    daemon.configure(sources | {"slow": slow})
    daemon.start()
    assert_begun(daemon, held)
    reload(daemon, sources | ({"slow": now} if now else {}))
    if what == "removed and back":
        reload(daemon, sources | {"slow": slow})
    held.go.set()
    wait_until("all of it", lambda: recorded(daemon, "slow") >= size, PATIENCE)
    if what == "changed":
        wait_until("the new address", lambda: server.requests("/other"))
        daemon.wait_records("slow", size + 1)
    daemon.flush(PATIENCE)
    found = lake.read(daemon.lake)
    assert found.problems == []
    first = [r for r in found.records("slow") if r.fetch == 1]
    assert [number(r.data) for r in first] == list(range(size))
    if what not in ("changed", "removed and back"):
        assert len(found.records("slow")) == size
    assert daemon.cli("audit").returncode == 0


def assert_begun(daemon, held):
    threading.Thread(target=lambda: try_poll(daemon, "slow"), daemon=True).start()
    assert held.waiting.wait(PATIENCE)


def try_poll(daemon, source):
    with contextlib.suppress(OSError, AssertionError):  # whoever asks for a source that goes is told so
        daemon.poll(source, PATIENCE)


def recorded(daemon, source):
    """Its records, also where it is gone and only its batches tell."""
    found = [s["records"] for s in daemon.status()["sources"] if s["name"] == source]
    return found[0] if found else 0


def test_many_signals_at_once_end_with_the_last_file(both, sources):
    for _ in range(100):
        both.configure(sources, batch={"max_records": next(counter)})
        both.process.send_signal(signal.SIGHUP)
    last = next(counter)
    both.configure(sources, batch={"max_records": last})
    both.process.send_signal(signal.SIGHUP)
    wait_until("the last one", lambda: running(both) == last)
    wait_until("a poll by the last settings", lambda: polled(both, "a"))


POOL = [f"s{i}" for i in range(8)]


class Closing(FreshAnswers):
    """Keeps no connection open, of which there would be now more and now fewer."""

    def __call__(self, request):
        answer = super().__call__(request)
        answer.headers["Connection"] = "close"
        return answer


class Changes:
    """Random configurations: sources come, change and go, stores and batches change."""

    def __init__(self, daemon, server, chance):
        self._daemon = daemon
        self._server = server
        self._chance = chance
        self._disk = daemon.folder / "disk"
        self._disk.mkdir()
        for i, source in enumerate(POOL):
            route = Closing(source, i)
            for version in range(3):
                server.route(f"/{source}?v={version}", route)

    def source(self, name, enabled=True):
        version = self._chance.randrange(3)
        every = self._chance.choice(("1s", "2s", "1h"))
        return {"url": self._server.url(f"/{name}?v={version}"), "every": every, "enabled": enabled}

    def random(self):
        sources = {n: self.source(n, self._chance.random() < 0.9) for n in POOL if self._chance.random() < 0.75}
        batch = {"max_age": self._chance.choice(("1s", "2s", "5s")), "max_bytes": self._chance.choice(("64K", "256K"))}
        return sources, batch

    def reload(self):
        sources, batch = self.random()
        reload(self._daemon, sources, batch=batch)

    def rest(self):
        """All sources are there and none polls: what there is, is all there will be."""
        reload(self._daemon, {n: self.source(n, False) for n in POOL})
        wait_until("the last answers", lambda: all(s == "disabled" for s in names(self._daemon).values()), PATIENCE)
        self._daemon.flush(PATIENCE)


class Figures:
    def __init__(self, daemon):
        pid = daemon.process.pid
        self.descriptors = memory.descriptors(pid)
        self.private = memory.private_dirty(pid)
        self.telling = memory.is_telling(pid)


def test_reloads_under_load_lose_nothing_and_leave_nothing_behind(daemon, server):
    seed = int(os.environ.get("MILLRACE_SEED", str(random.randrange(1 << 30))))
    print(f"MILLRACE_SEED={seed} MILLRACE_RELOADS={RELOADS}")
    chance = random.Random(seed)
    changes = Changes(daemon, server, chance)
    sources, batch = changes.random()
    daemon.configure(sources, batch=batch)
    daemon.start()
    load = Load(daemon, POOL, pause=0.05)
    warm = None
    for i in range(RELOADS):
        changes.reload()
        time.sleep(chance.uniform(0, 0.1))  # the random moment
        if i == RELOADS // 3:
            warm = pause(daemon, changes, load)
            load = Load(daemon, POOL, pause=0.05, committed=load.committed)
    end = pause(daemon, changes, load)
    assert daemon.stop() == 0
    found = lake.read(daemon.lake)
    assert found.problems == []
    check_committed(found, load.committed)
    check_whole(found)
    served = {s: [r for v in range(3) for r in server.served(f"/{s}?v={v}")] for s in POOL}
    count = lake.compare(found, served)
    print(f"{RELOADS} reloads, {len(load.committed)} fetches reported, {json.dumps(vars(count))}")
    print(f"descriptors {warm.descriptors} and {end.descriptors}, private dirty {warm.private} and {end.private}")
    assert (count.lost, count.twice) == (0, 0)
    assert len(load.committed) > RELOADS
    assert end.descriptors <= warm.descriptors + 2  # idle connections to feeds and stores
    assert end.private - warm.private < 300 * memory.KB or not end.telling


def pause(daemon, changes, load):
    load.end()
    changes.rest()
    return Figures(daemon)
