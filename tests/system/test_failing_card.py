# SPDX-License-Identifier: Apache-2.0
"""A card that fills up, turns read-only, fails or is damaged: a state with a name, and nothing acknowledged is lost."""

import base64
import contextlib
import itertools
import json
import random
import shutil
import sqlite3
import threading
from collections import Counter

import pytest

import lake
from bench.report import NoRight
from cards import MB, Card
from cut import CutFS
from daemon import wait_until
from feed import Answer, RawServer
from figures import note
from large import Held, Large, array

NOISE = base64.b64encode(random.Random(3).randbytes(MB)).decode()
SMALL = 40
PATIENCE = 60  # a retry comes after 30 s at the latest


@pytest.fixture
def card(tmp_path):
    try:
        card = Card(tmp_path / "loop")
    except NoRight as error:
        pytest.skip(f"NO SMALL FILE SYSTEM: {error}")
    yield card
    card.close()


@pytest.fixture
def failing(cut_programs, tmp_path):
    """The file system whose calls fail at a word."""
    try:
        fs = CutFS(cut_programs / "cutfs", tmp_path / "cutfs")
    except NoRight as error:
        pytest.skip(f"NO FILE SYSTEM THAT FAILS: {error}")
    yield fs
    fs.close()


class Feed:
    """A route whose every answer is new: nine records with so many bytes of noise each."""

    def __init__(self, name):
        self.name = name
        self.filling = SMALL
        self.last = []
        self._count = itertools.count(1)
        self._chance = random.Random(name)

    def __call__(self, _request):
        n = next(self._count)
        starts = [self._chance.randrange(len(NOISE) - self.filling) for _ in range(9)]
        records = [f'{{"n":{n},"i":{i},"x":"{NOISE[at : at + self.filling]}"}}' for i, at in enumerate(starts)]
        self.last = [r.encode() for r in records]
        return Answer(b"[" + b",".join(self.last) + b"]")


class Trial:
    """A daemon with its buffer on a card, the store and the socket elsewhere; knows what was acknowledged."""

    def __init__(self, daemon, server, root, names=("a", "b"), **top):
        self.daemon = daemon
        self.server = server
        self.feeds = {name: Feed(name) for name in names}
        self.acknowledged = Counter()
        for name, feed in self.feeds.items():
            server.route(f"/{name}.json", feed)
        daemon.configure(
            {name: {"url": server.url(f"/{name}.json")} for name in names},
            **{
                "buffer": {"path": str(root / "buffer.db"), "keep_delivered": "0s"},
                "socket": str(daemon.socket),
            }
            | top,
        )

    def poll(self, name="a"):
        """Its report, or the problem."""
        status, body = self.daemon.request("POST", f"/v1/sources/{name}/poll")
        report = json.loads(body)
        if report.get("outcome") == "committed":
            self.acknowledged.update(self.feeds[name].last)
        return report if status == 200 else {"outcome": "refused", "text": report["detail"]}

    def poll_until_it_waits(self, name="a", most=2000):
        """How many were committed before."""
        for n in range(most):
            report = self.poll(name)
            if report["outcome"] != "committed":
                assert "waits in memory" in report["text"], report
                return n
        raise AssertionError(f"{most} answers were committed")

    def commit(self, n, name="a"):
        for _ in range(n):
            assert self.poll(name)["outcome"] == "committed"

    def state(self):
        return self.daemon.status()["buffer"]["state"]

    def wait_state(self, state):
        wait_until(f"state {state}", lambda: self.state() == state, PATIENCE)

    def wait_delivered(self):
        wait_until("all that was acknowledged in the store", lambda: not self.missing(), PATIENCE)

    def missing(self):
        found = lake.read(self.daemon.lake)
        return self.acknowledged - Counter(r.data for r in found.records())

    def check(self, all_served=True):
        """What the store has of all that was served; and that nothing acknowledged is missing."""
        found = lake.read(self.daemon.lake)
        assert found.problems == []
        assert self.missing() == Counter()
        assert {r.clock for r in found.records()} == {"synced"}, "a buffer opened late was not told of the clock"
        count = lake.compare(found, {name: self.server.served(f"/{name}.json") for name in self.feeds})
        assert count.twice == 0
        assert not all_served or count.lost == 0
        return {"records acknowledged": self.acknowledged.total(), "in the store": count.stored, "lost": 0, "twice": 0}

    def edges(self):
        """The buffer's states, as the log tells them."""
        states = ("no-space", "read-only", "failing", "damaged", "salvaging", "hung", "ready")
        return [e["event"].removeprefix("buffer.") for e in self.daemon.events(*(f"buffer.{s}" for s in states))]

    def told(self, text):
        """One problem of the buffer's, which says so and what to do."""
        problems = [p for p in self.daemon.status()["problems"] if p["what"].startswith("buffer: ")]
        assert len(problems) == 1 and text in problems[0]["what"] and problems[0]["remedy"], problems
        shown = self.daemon.cli("status")
        assert shown.returncode == 1 and f"\nbuffer {self.state()}: " in shown.stdout


# --- Full of others' files -------------------------------------------------------------------------------------------


def fill_at_commit(_trial, card):
    """Of a buffer that holds next to nothing."""
    card.fill()


def fill_at_seal(trial, card):
    """Of one whose unsealed records take more than what there is of the WAL."""
    trial.feeds["b"].filling = 40_000
    trial.commit(8, "b")
    card.fill()


def fill_at_checkpoint(trial, card):
    """While the WAL holds what the file has no pages for yet."""
    trial.feeds["a"].filling = 10_000
    grown = trial.daemon.status()["buffer"]["wal_bytes"]
    while trial.daemon.status()["buffer"]["wal_bytes"] <= max(grown, 3 * MB):
        trial.commit(1)
    card.fill()


def go_on_without_room(trial, card):
    """What is there is sealed, delivered and deleted, and that makes room for more."""
    trial.daemon.flush(PATIENCE)
    trial.wait_delivered()
    trial.wait_state("ready")
    trial.feeds["a"].filling = SMALL
    trial.commit(20)
    assert card.free() == 0


@pytest.mark.parametrize("fill", [fill_at_commit, fill_at_seal, fill_at_checkpoint])
def test_full_of_somebody_elses_files(daemon, server, card, fill):
    trial = Trial(daemon, server, card.root)
    daemon.start()
    trial.commit(20)
    trial.commit(1, "b")
    fill(trial, card)
    assert card.free() == 0
    trial.feeds["a"].filling = 4000
    taken = trial.poll_until_it_waits()
    assert trial.state() == "no-space"
    trial.told("no space is left")
    if fill is fill_at_commit:
        go_on_without_room(trial, card)
    else:
        status, body = daemon.request("POST", "/v1/flush?wait=1", PATIENCE)
        assert status == 200 or (status == 503 and b"no space is left" in body)
    card.empty()
    trial.wait_state("ready")
    trial.commit(20)
    daemon.flush(PATIENCE)
    assert trial.edges().count("no-space") == trial.edges().count("ready")
    figures = trial.check()
    what = fill.__doc__.rstrip(".").split(" ", 1)[1]
    note(f"card filled by others, {what}", "test_failing_card.py", **{"answers taken after": taken} | figures)


# --- Read-only -------------------------------------------------------------------------------------------------------


def test_read_only_and_back(daemon, server, failing):
    trial = Trial(daemon, server, failing.root)
    daemon.start()
    trial.commit(20)
    trial.commit(1, "b")
    failing.fail(1, "forever", "EROFS")
    assert trial.poll_until_it_waits() == 0
    assert trial.state() == "read-only"
    trial.told("read-only")
    failing.fail_off()
    trial.wait_state("ready")
    trial.commit(20)
    daemon.flush(PATIENCE)
    assert trial.edges() == ["read-only", "ready"]
    note("card turned read-only and back", "test_failing_card.py", **trial.check())


def test_stopped_by_the_kernel(daemon, server, card):
    """No way leads back but unmounting, for which the daemon must end: the answer in memory was never acknowledged."""
    trial = Trial(daemon, server, card.root)
    daemon.start()
    trial.commit(20)
    trial.commit(1, "b")
    daemon.flush(PATIENCE)
    trial.commit(20)
    try:
        card.stop()
    except NoRight as error:
        pytest.skip(f"NO WAY TO STOP A FILE SYSTEM: {error}")
    assert trial.poll_until_it_waits() == 0
    assert trial.state() == "read-only"
    trial.told("read-only")
    assert daemon.stop() == 0
    card.mend()
    daemon.start()
    assert trial.state() == "ready"
    trial.commit(20)
    trial.commit(1, "b")
    daemon.flush(PATIENCE)
    assert trial.edges() == ["read-only"]
    note("card stopped by the kernel (errors=remount-ro)", "test_failing_card.py", **trial.check(all_served=False))


# --- Failing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["/buffer.db", "=/buffer.db", "=/buffer.db-wal"])
def test_input_output_errors(daemon, server, failing, where):
    trial = Trial(daemon, server, failing.root)
    daemon.start()
    trial.commit(20)
    trial.commit(1, "b")
    failing.fail(1, "forever", "EIO", where)
    if where == "=/buffer.db":  # which is only written when the WAL is full, or a batch has gone
        trial.feeds["a"].filling = 40_000
        trial.commit(20)
    else:
        assert trial.poll_until_it_waits() == 0
        assert trial.state() == "failing"
        trial.told("disk I/O error")
    failing.fail_off()
    trial.wait_state("ready")
    trial.commit(20)
    daemon.flush(PATIENCE)
    assert trial.edges() in ([], ["failing", "ready"])
    what = {"/buffer.db": "buffer", "=/buffer.db": "database", "=/buffer.db-wal": "WAL"}[where]
    note(f"EIO from every write of the {what}", "test_failing_card.py", **trial.check())


def test_a_card_that_does_not_answer(daemon, server, failing):
    trial = Trial(daemon, server, failing.root)
    daemon.start()
    trial.commit(20)
    trial.commit(1, "b")
    failing.hang(True)
    held = threading.Thread(target=trial.poll)
    held.start()
    trial.wait_state("hung")
    trial.told("does not answer")
    failing.hang(False)
    held.join()
    trial.wait_state("ready")
    trial.commit(20)
    daemon.flush(PATIENCE)
    assert trial.edges() == ["hung", "ready"]
    note("card that does not answer for ten seconds", "test_failing_card.py", **trial.check())


# --- From the start on -----------------------------------------------------------------------------------------------


def begin_anew(_trial):
    pass


def begin_again(trial):
    """With a buffer that holds something."""
    trial.daemon.start()
    trial.commit(20)
    trial.commit(1, "b")
    assert trial.daemon.stop() == 0


def check_goes_on(trial, what):
    trial.wait_state("ready")
    trial.commit(20)
    trial.commit(1, "b")
    trial.daemon.flush(PATIENCE)
    note(f"start on a card that is {what}", "test_failing_card.py", **trial.check())


@pytest.mark.parametrize("begin", [begin_anew, begin_again])
def test_start_on_a_full_card(daemon, server, card, begin):
    trial = Trial(daemon, server, card.root)
    begin(trial)
    card.fill()
    before = len(server.requests())
    daemon.start()
    if begin is begin_anew:
        trial.wait_state("no-space")
        trial.told("no space")
        assert len(server.requests()) == before
    else:
        trial.poll_until_it_waits()
        trial.wait_state("no-space")
    card.empty()
    check_goes_on(trial, f"full, {'with a buffer' if begin is begin_again else 'without a buffer'}")


@pytest.mark.parametrize("begin", [begin_anew, begin_again])
def test_start_on_a_read_only_card(daemon, server, card, begin):
    trial = Trial(daemon, server, card.root)
    begin(trial)
    card.remount("ro")
    before = len(server.requests())
    daemon.start()
    trial.wait_state("read-only")
    trial.told("read-only")
    assert len(server.requests()) == before, "what it cannot keep is not polled"
    card.remount("rw")
    check_goes_on(trial, f"read-only, {'with a buffer' if begin is begin_again else 'without a buffer'}")
    assert trial.edges() == ["read-only", "ready"]


def test_start_with_the_socket_on_a_read_only_card(daemon, server, card):
    daemon.socket = card.root / "millrace.sock"
    trial = Trial(daemon, server, card.root, socket=str(daemon.socket))
    card.remount("ro")
    daemon.spawn()
    wait_until("the state in the log", lambda: trial.edges() == ["read-only"])
    assert daemon.process.poll() is None
    assert daemon.cli("status").returncode == 69
    (shut,) = daemon.events("api.shut")
    assert "no command reaches the daemon until then" in shut["message"]
    card.remount("rw")
    daemon.wait_started(PATIENCE)
    trial.commit(5)
    daemon.flush()
    trial.check()


@pytest.mark.parametrize("begin", [begin_anew, begin_again])
def test_start_on_a_card_that_fails(daemon, server, failing, begin):
    trial = Trial(daemon, server, failing.root)
    begin(trial)
    failing.fail(1, "forever", "EIO")
    before = len(server.requests())
    daemon.start()
    trial.wait_state("failing")
    trial.told("")
    assert len(server.requests()) == before
    failing.fail_off()
    check_goes_on(trial, f"failing with EIO, {'with a buffer' if begin is begin_again else 'without a buffer'}")
    assert trial.edges() == ["failing", "ready"]


# --- Damage under a large answer -------------------------------------------------------------------------------------


def chunks(root, source):
    """The stored bytes of a source's chunks, by a copy of the buffer. None where that was written meanwhile."""
    copy = root.with_name("copy")
    copy.mkdir()
    for name in ("buffer.db", "buffer.db-wal"):
        shutil.copy(root / name, copy)
    try:
        with contextlib.closing(sqlite3.connect(copy / "buffer.db")) as db:
            return [row[0] for row in db.execute("SELECT data FROM chunk WHERE source = ?", (source,))]
    except sqlite3.DatabaseError:
        return None
    finally:
        shutil.rmtree(copy)


def damage(root, data):
    """One byte in the middle of it, wherever it stands."""
    middle = len(data) // 2
    piece = data[max(0, middle - 20) : middle + 20]
    n = 0
    for name in ("buffer.db", "buffer.db-wal"):
        content = (root / name).read_bytes()
        at = content.find(piece)
        while at >= 0:
            with (root / name).open("r+b") as file:
                file.seek(at + len(piece) // 2)
                file.write(bytes([content[at + len(piece) // 2] ^ 0x55]))
            n += 1
            at = content.find(piece, at + 1)
    assert n > 0, "it is not there"


@pytest.fixture
def raw():
    server = RawServer()
    yield server
    server.close()


def test_a_fetch_whose_first_part_is_lost_is_dropped_alone(daemon, server, raw, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    held = Held(40_000, 30_000)
    raw.route("/large", held)
    feeds = {name: Feed(name) for name in ("victim", "other")}
    feeds["victim"].filling = 3000  # several pages, which no commit of others writes again
    for name, feed in feeds.items():
        server.route(f"/{name}.json", feed)
    daemon.configure(
        {
            "large": {"url": raw.url("/large"), "timeout": "5m", "max_body": "64M"},
            "victim": {"url": server.url("/victim.json")},
            "other": {"url": server.url("/other.json")},
        },
        buffer={"path": str(root / "buffer.db")},
        socket=str(daemon.socket),
    )
    daemon.start()
    for name in ("victim", "other"):
        daemon.poll(name)
    daemon.flush()
    assert daemon.poll("victim")["outcome"] == "committed"
    first = daemon.poll("other")["first_seq"]
    wait_until("the large answer to be under way", held.waiting.is_set, PATIENCE)
    staged = wait_until("staged pieces", lambda: chunks(root, "large"), PATIENCE)
    # before SQLite, asked for it, finds a frame of the WAL damaged
    victim = wait_until("a whole copy", lambda: chunks(root, "victim"))
    damage(root, staged[0])
    damage(root, victim[0])
    feeds["other"].filling = 60_000  # more than is kept in memory: what is damaged is read again
    assert daemon.poll("other")["outcome"] == "committed"
    daemon.request("POST", "/v1/flush", PATIENCE)
    wait_until("the salvage", lambda: daemon.status()["buffer"]["salvaged"], PATIENCE)
    held.go.set()
    wait_until("the drop", lambda: daemon.source("large")["failed"] == 1, PATIENCE)
    (dropped,) = [e for e in daemon.events("source.failed") if '"large"' in e["message"]]
    assert "lost with a damaged buffer" in dropped["message"]
    assert daemon.source("large")["records"] == 0
    raw.route("/large", Large(lambda: array(20_000)))
    assert daemon.poll("large", PATIENCE)["outcome"] == "committed"
    assert daemon.poll("other")["outcome"] == "committed"
    daemon.flush(PATIENCE)
    found = lake.read(daemon.lake)
    assert len(found.data("large")) == 20_000
    assert first in [r.seq for r in found.records("other")]
    assert daemon.source("victim")["damaged_records"] == 9
    assert len(daemon.events("buffer.salvaged")) == 1
    assert len(daemon.events("buffer.ready")) == 1
    unwell = [e["event"] for e in daemon.events("buffer.damaged", "buffer.salvaging")]
    assert unwell and len(unwell) == len(set(unwell)), "which of them is seen depends on how long it takes; each once"
    status = daemon.status()
    assert status["buffer"]["state"] == "ready"
    (problem,) = status["problems"]
    assert "salvaged at" in problem["what"] and "records known to be lost: 9," in problem["what"]
    assert status["buffer"]["aside"] in problem["remedy"]
