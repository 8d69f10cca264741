# SPDX-License-Identifier: Apache-2.0
"""`max_size`: whatever the store does, the buffer's files never take more; both ways of `on_full` keep their word; and
all goes on by itself when the store is back.

A thread looks at the sizes of buffer.db and all that stands beside it every millisecond; one test puts the buffer on a
file system that has no more room than that.
"""

import base64
import itertools
import json
import os
import random
import signal
import subprocess
import threading
from datetime import UTC, datetime

import pytest

import lake
import proxy as faults
from clock import Clock
from daemon import wait_until
from feed import Answer, RawServer

MAX_SIZE = 16 << 20
RAW = 256 << 10  # of one answer
RECORDS = 8  # in it
PATIENCE = 60
POLLS_MAX = 400  # 100 MB


class Watch:
    """The most that the buffer's files took together, and on the card."""

    def __init__(self, folder):
        self._folder = folder
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.peak = self.peak_on_card = self.looks = 0

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _run(self):
        while not self._stop.wait(0.001):
            sizes = [s for s in map(self._stat, ("buffer.db", "buffer.db-wal", "buffer.db-journal")) if s]
            self.peak = max(self.peak, sum(s.st_size for s in sizes))
            self.peak_on_card = max(self.peak_on_card, sum(s.st_blocks * 512 for s in sizes))
            self.looks += 1

    def _stat(self, name):
        try:
            return os.stat(self._folder / name)
        except OSError:
            return None

    def check(self):
        assert self.looks > 100
        print(f"at most {self.peak} bytes in {self.looks} looks ({self.peak_on_card} on the card)")
        assert 0 < self.peak <= MAX_SIZE
        assert self.peak_on_card <= MAX_SIZE


class Noise:
    """A route whose every answer is new and does not compress; the records tell which answer they came with."""

    def __init__(self, raw=RAW):
        self._random = random.Random(7)
        self._raw = raw
        self.n = 0

    def __call__(self, _request):
        self.n += 1
        size = self._raw // RECORDS * 3 // 4
        texts = [base64.b85encode(self._random.randbytes(size)).decode() for _ in range(RECORDS)]
        return Answer(json.dumps([{"answer": self.n, "i": i, "x": text} for i, text in enumerate(texts)]).encode())


class S3Store:
    """Behind a proxy that can be shut."""

    def __init__(self, bucket, proxy):
        self._bucket = bucket
        self._proxy = proxy
        self.settings = bucket.settings(proxy)

    def leave(self):
        self._proxy.arm(faults.unavailable())

    def come_back(self):
        self._proxy.lift()

    def read(self):
        return self._bucket.read()


class FileStore:
    """A disk that can be unmounted: an empty folder then, without the mark."""

    def __init__(self, folder):
        self._folder = folder
        self._away = folder.with_name("unmounted")
        folder.mkdir()
        self.settings = {"kind": "file", "path": str(folder)}

    def leave(self):
        self._folder.rename(self._away)
        self._folder.mkdir()

    def come_back(self):
        self._folder.rmdir()
        self._away.rename(self._folder)

    def read(self):
        return lake.read(self._folder)


@pytest.fixture(params=["s3", "file"])
def store(request, daemon, bucket, proxy):
    return FileStore(daemon.lake) if request.param == "file" else S3Store(bucket, proxy)


def configure(daemon, server, store, on_full, path=None, max_bytes="64K", **feed):
    server.route("/noise", Noise())
    buffer = {"path": str(path or daemon.folder / "buffer.db"), "max_size": "16M", "on_full": on_full}
    sources = {"noise": {"url": server.url("/noise")} | feed}
    daemon.configure(
        sources,
        buffer=buffer,
        stores={"lake": store.settings},
        batch={"max_bytes": max_bytes},
        socket=str(daemon.socket),
    )
    daemon.lake.mkdir(exist_ok=True)


def poll(daemon):
    """Whether an answer was committed; if not, the buffer is full, or makes room for one that waits in memory."""
    status, body = daemon.request("POST", "/v1/sources/noise/poll")
    report = json.loads(body)
    if status == 200 and report["outcome"] == "committed":
        return True
    told = report["detail"] if status == 503 else report["text"]
    assert "full" in told or "waits in memory" in told, body
    return False


def fill(daemon):
    """Polls until the buffer takes no more."""
    for _ in range(POLLS_MAX):
        if poll(daemon):
            continue
        daemon.cli("flush")  # sealing makes some room once more
        if daemon.status()["buffer"]["state"] == "full":
            return
    raise AssertionError("it took all that came")


def poll_on(daemon, times=1):
    for _ in range(times):
        wait_until("a poll", lambda: poll(daemon), PATIENCE)


def deliver_all(daemon, store):
    store.come_back()
    wait_until("the store to have all", lambda: daemon.cli("flush", "--wait").returncode == 0, PATIENCE)


def check_all_there(daemon, server, store):
    """What was served is in the store, once, and the books agree."""
    daemon.flush()
    found = store.read()
    assert found.problems == []
    count = lake.compare(found, {"noise": server.served("/noise")})
    assert (count.lost, count.twice) == (0, 0)
    status, told = audit(daemon)
    assert status == 0 and told["sound"]
    assert lost_ranges(told) == []
    assert dropped(daemon) == 0


def audit(daemon):
    done = daemon.cli("audit", "--json")
    (told,) = json.loads(done.stdout)["stores"]
    return done.returncode, told


def lost_ranges(told):
    return [(r["first_seq"], r["last_seq"]) for s in told["sources"] for r in s["ranges"] if r["kind"] == "lost"]


def is_full_for_good(daemon):
    """Sealing makes some room once more: then polls go on, until all is sealed."""
    poll(daemon)
    status = daemon.status()
    buffer, source = status["buffer"], status["sources"][0]
    return buffer["state"] == "full" and buffer["room_bytes"] < MAX_SIZE // 8 and source["unsealed_records"] == 0


def check_full(daemon):
    """A person sees it, and what to do."""
    wait_until("status to say so", lambda: is_full_for_good(daemon))
    told = daemon.cli("status")
    assert told.returncode == 1
    assert "full" in told.stdout and "paused" in told.stdout and "no room" in told.stdout
    status = daemon.status()
    assert (status["ok"], status["sources"][0]["state"]) == (False, "paused")
    assert status["sources"][0]["next_poll"] is None
    about = [p for p in status["problems"] if "full" in p["what"] or "max_size" in p["what"]]
    assert about and about[0]["remedy"]
    assert (status["buffer"]["on_full"], status["buffer"]["max_bytes"]) == ("pause", MAX_SIZE)


def errors(daemon):
    return [e for e in daemon.events() if e["level"] == "error"]


@pytest.mark.parametrize("on_full", ["pause", "drop-oldest"])
def test_a_bound_that_is_lowered_by_a_reload_is_no_failure(daemon, server, on_full):
    """The file is larger than it may be, and has no free page: it is full, and nothing is wrong with the card."""
    store = FileStore(daemon.lake)
    configure(daemon, server, store, on_full)
    lower = daemon.config.read_text()
    daemon.config.write_text(lower.replace('max_size = "16M"', 'max_size = "64M"'))
    daemon.start()
    poll_on(daemon)
    daemon.flush()
    store.leave()
    poll_on(daemon, 120)
    daemon.config.write_text(lower)
    daemon.process.send_signal(signal.SIGHUP)
    wait_until("the reload", lambda: daemon.status()["buffer"]["max_bytes"] == MAX_SIZE)
    states = set()
    for _ in range(20):
        poll(daemon)
        daemon.cli("flush")
        states.add(daemon.status()["buffer"]["state"])
    assert states <= {"full", "ready"}, states
    if on_full == "pause":
        assert states == {"full"}
        told = daemon.cli("status")
        assert told.returncode == 1 and "full" in told.stdout and "failing" not in told.stdout
    deliver_all(daemon, store)
    wait_until("room", lambda: daemon.status()["buffer"]["state"] == "ready", PATIENCE)
    poll_on(daemon)
    wait_until("all well", lambda: daemon.source("noise")["state"] == "fresh")
    assert errors(daemon) == []


def test_a_lower_bound_holds_up_no_sealing_and_a_flush_says_what_is_so(daemon, server):
    store = FileStore(daemon.lake)
    configure(daemon, server, store, "pause", max_bytes="4M")
    lower = daemon.config.read_text()
    daemon.config.write_text(lower.replace('max_size = "16M"', 'max_size = "64M"'))
    daemon.start()
    poll_on(daemon)
    daemon.flush()
    store.leave()
    poll_on(daemon, 95)  # 24 MB, of which 4 MB are not sealed, and fill what was free
    daemon.config.write_text(lower)
    daemon.process.send_signal(signal.SIGHUP)
    wait_until("the reload", lambda: daemon.status()["buffer"]["max_bytes"] == MAX_SIZE)
    (over,) = wait_until("the warning", lambda: daemon.events("buffer.over"))
    assert 'max_size = "16M"' in over["message"] and "polls wait" in over["message"]
    told = daemon.cli("flush")
    assert told.returncode == 0, told.stderr
    assert daemon.source("noise")["unsealed_records"] == 0
    told = daemon.cli("flush", "--wait")
    assert told.returncode == 69
    assert "not delivered" in told.stderr, told.stderr
    store.come_back()
    told = daemon.cli("flush", "--wait", timeout=PATIENCE)
    assert told.returncode == 0, told.stderr
    assert "all delivered" in told.stdout
    assert daemon.status()["buffer"]["waiting_records"] == 0
    check_all_there(daemon, server, store)
    assert errors(daemon) == []


def test_nothing_is_dropped_once_the_store_is_back(make_daemon, millrace_sim, server, tmp_path):
    """However long the store has been away, and so is asked rarely: it is asked before a batch goes."""
    clock = Clock(tmp_path / "clock", datetime(2031, 3, 14, 12, 0, tzinfo=UTC))
    daemon = make_daemon("sim", millrace_sim, {"MILLRACE_CLOCK": str(clock.path)})
    store = FileStore(daemon.lake)
    configure(daemon, server, store, "drop-oldest", every="5s")
    daemon.start()
    clock.run(minutes=1)
    store.leave()
    clock.run(minutes=6)
    lost = dropped(daemon)
    assert lost > 0
    assert f"{lost} records were dropped since the start" in daemon.cli("status").stdout
    while until_next_try(daemon) < 30:
        clock.run(seconds=1)
    lost = dropped(daemon)
    store.come_back()
    clock.run(seconds=25)
    assert dropped(daemon) == lost
    assert daemon.store()["state"] == "ready"
    server.route("/noise", Answer(b"[]"))
    clock.run(minutes=1)
    told = daemon.cli("status")
    assert told.returncode == 1
    assert "it has room again" in told.stdout and "it is full" not in told.stdout
    clock.run(minutes=10)
    assert daemon.cli("status").returncode == 0


def until_next_try(daemon):
    """Seconds, of a store that is away; none is told while it is being asked."""
    times = wait_until("a next try", lambda: daemon.store()["next_try"]), daemon.status()["now"]
    then, now = (datetime.fromisoformat(t) for t in times)
    return (then - now).total_seconds()


def test_paused_nothing_is_lost_and_all_goes_on_by_itself(daemon, server, store):
    configure(daemon, server, store, "pause")
    daemon.start()
    poll_on(daemon)
    daemon.flush()
    store.leave()
    with Watch(daemon.folder) as watch:
        for _ in range(3):
            fill(daemon)
            check_full(daemon)
            before = len(server.requests("/noise"))
            assert not poll(daemon)
            assert len(server.requests("/noise")) == before, "what nobody can keep is not asked for"
            deliver_all(daemon, store)
            wait_until("room", lambda: daemon.status()["buffer"]["state"] == "ready")
            wait_until("polls again", lambda: daemon.source("noise")["state"] == "fresh", PATIENCE)
            poll_on(daemon)
            store.leave()
    deliver_all(daemon, store)
    watch.check()
    check_all_there(daemon, server, store)
    assert 3 <= len(daemon.events("buffer.full")) < 20
    assert 'store "lake": ' in daemon.events("buffer.full")[0]["message"], "it says who keeps the room"
    assert errors(daemon) == []
    wait_until("all well", lambda: daemon.cli("status").returncode == 0)


def test_while_it_is_full_nobody_is_asked_and_then_it_goes_on(make_daemon, millrace_sim, server, store, tmp_path):
    """An hour of it, in quick motion."""
    clock = Clock(tmp_path / "clock", datetime(2031, 3, 14, 12, 0, tzinfo=UTC))
    daemon = make_daemon("sim", millrace_sim, {"MILLRACE_CLOCK": str(clock.path)})
    configure(daemon, server, store, "pause", every="1m")
    daemon.start()
    clock.run(minutes=2)
    daemon.flush()
    store.leave()
    fill(daemon)
    check_full(daemon)
    before = len(server.requests("/noise"))
    clock.run(hours=1)
    assert len(server.requests("/noise")) == before
    store.come_back()
    clock.run(minutes=30)
    assert len(server.requests("/noise")) > before
    assert daemon.status()["buffer"]["state"] == "ready"
    assert daemon.source("noise")["state"] == "fresh"


def test_what_the_store_has_makes_room_before_polls_wait(daemon, server, store):
    configure(daemon, server, store, "pause")
    daemon.start()
    with Watch(daemon.folder) as watch:
        for i in range(150):  # 38 MB
            poll_on(daemon)
            if i % 10 == 9:
                daemon.flush()
    watch.check()
    check_all_there(daemon, server, store)


def test_the_oldest_are_dropped_and_booked(daemon, server, store):
    configure(daemon, server, store, "drop-oldest")
    daemon.start()
    poll_on(daemon, 20)
    daemon.flush()
    delivered = daemon.source("noise")["records"]
    store.leave()
    with Watch(daemon.folder) as watch:
        while not dropped(daemon):
            poll_on(daemon)
            assert len(server.requests("/noise")) < POLLS_MAX
        assert [b for b in daemon.ask("GET", "/v1/batches")["batches"] if b["delivered"]] == [], "the store had these"
        before = daemon.source("noise")["records"]
        poll_on(daemon, 120)
    daemon.wait_records("noise", len(server.requests("/noise")) * RECORDS)
    assert daemon.source("noise")["records"] >= before + 100 * RECORDS, "collecting goes on"
    wait_until("status to tell", lambda: f"{dropped(daemon)} records dropped" in daemon.cli("status").stdout)
    assert 0 < len(daemon.events("buffer.dropped")) <= 121
    assert errors(daemon) == []
    daemon.kill()  # the books outlive it
    daemon.start()
    poll_on(daemon)
    deliver_all(daemon, store)
    watch.check()
    check_books(daemon, store, delivered)


def dropped(daemon):
    return daemon.source("noise")["dropped_records"]


def check_books(daemon, store, delivered):
    """What is not in the store is what the books call lost: whole batches, the oldest that the store had not."""
    found = store.read()
    status, told = audit(daemon)
    assert status == 0, told
    lost = lost_ranges(told)
    missing = set(range(1, daemon.source("noise")["records"] + 1)) - {r.seq for r in found.records()}
    assert {seq for first, last in lost for seq in range(first, last + 1)} == missing
    assert dropped(daemon) == told["records"]["lost"] == len(missing) > 0
    assert len(lost) == 1 and lost[0][0] == delivered + 1
    assert [p for p in found.problems if "are missing" not in p] == []
    firsts = [o.records[0].seq for o in found.objects]
    assert lost[0][1] + 1 in firsts
    assert f"{lost[0][0]} to {lost[0][1]}" in daemon.cli("audit").stdout
    daemon.stop()
    assert daemon.cli("audit").returncode == 0, "and without the daemon"
    daemon.start()


def test_a_source_of_two_stores_loses_only_what_one_has_not(daemon, server, bucket, proxy):
    store = S3Store(bucket, proxy)
    configure(daemon, server, store, "drop-oldest")
    text = daemon.config.read_text()
    disk = f'stores = {{ disk = {{ kind = "file"; path = "{daemon.lake}"; }};\n'
    daemon.config.write_text(text.replace("stores = {", disk, 1))
    daemon.start()
    store.leave()
    while not dropped(daemon):
        poll_on(daemon)
        assert len(server.requests("/noise")) < POLLS_MAX
        wait_until("the disk", lambda: daemon.store("disk")["waiting_batches"] < 8)
    deliver_all(daemon, store)
    by_store = {s["store"]: s for s in json.loads(daemon.cli("audit", "--json").stdout)["stores"]}
    assert lost_ranges(by_store["disk"]) == []
    assert [r.seq for r in lake.read(daemon.lake).records()] == list(range(1, daemon.source("noise")["records"] + 1))
    assert lost_ranges(by_store["lake"]) != []
    assert all(s["sound"] for s in by_store.values())


@pytest.mark.parametrize("on_full", ["pause", "drop-oldest"])
def test_an_answer_larger_than_all_of_it_is_given_up(daemon, server, on_full):
    raw = RawServer()
    try:
        configure(daemon, server, FileStore(daemon.lake), on_full)
        text = daemon.config.read_text().replace("sources = {", "sources = {\nlarge = " + large(raw), 1)
        daemon.config.write_text(text)
        raw.route("/large", noise_without_end)
        daemon.start()
        with Watch(daemon.folder) as watch:
            status, body = daemon.request("POST", "/v1/sources/large/poll", PATIENCE)
            report = json.loads(body)
            assert status != 200 or report["outcome"] in ("failed", "refused"), body
            wait_until("the other source", lambda: poll(daemon), PATIENCE)
        watch.check()
        assert daemon.source("large")["records"] == 0
        assert dropped(daemon) == 0
        daemon.flush()
        assert daemon.cli("audit").returncode == 0
    finally:
        raw.close()


def large(raw):
    return (
        f'{{ kind = "rest"; every = "1h"; records = "$"; max_body = "512M"; timeout = "10s"; '
        f'url = "{raw.url("/large")}"; }};\n'
    )


def noise_without_end(_request):
    source = random.Random(9)
    yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n["
    for _ in itertools.count():
        yield b'"' + base64.b64encode(source.randbytes(48 << 10)) + b'",'


@pytest.fixture
def card(tmp_path):
    """A file system of its own, ext4 on a loop device, with room for 16 MB and 64 KB more."""
    image, folder = tmp_path / "card.img", tmp_path / "card"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(24 << 20)
    options = ["-q", "-F", "-b", "4096", "-m", "0", "-O", "^has_journal", "-E", "lazy_itable_init=0"]
    made = subprocess.run(["mkfs.ext4", *options, str(image)], capture_output=True)
    mounted = made.returncode == 0 and subprocess.run(
        ["mount", "-o", "loop", str(image), str(folder)], capture_output=True
    )
    if not mounted or mounted.returncode != 0:
        pytest.skip("NO FILE SYSTEM OF ITS OWN: only root may mount one, and it takes mkfs.ext4 and a loop device")
    free = os.statvfs(folder)
    ballast = free.f_bavail * free.f_frsize - MAX_SIZE - (64 << 10)
    with (folder / "ballast").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, ballast)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("on_full", ["pause", "drop-oldest"])
def test_a_card_that_has_no_more_room_than_that_is_enough(daemon, server, card, on_full):
    store = FileStore(daemon.lake)
    configure(daemon, server, store, on_full, path=card / "buffer.db")
    daemon.start()
    poll_on(daemon)
    daemon.flush()
    store.leave()
    if on_full == "pause":
        fill(daemon)
    else:
        poll_on(daemon, 120)
    assert errors(daemon) == [], "the card was full before the buffer was"
    deliver_all(daemon, store)
    there = len(store.read().records())
    assert there + dropped(daemon) == daemon.source("noise")["records"]
    assert (dropped(daemon) > 0) == (on_full == "drop-oldest")
    assert audit(daemon)[0] == 0


def test_many_small_answers_fit_as_well(daemon, server):
    """Rows, and not bytes, are what fills it."""
    store = FileStore(daemon.lake)
    configure(daemon, server, store, "pause", max_bytes="64K")
    server.route("/noise", Noise(raw=2048))
    daemon.start()
    poll_on(daemon)
    daemon.flush()
    store.leave()
    with Watch(daemon.folder) as watch:
        for _ in range(1500):
            if not poll(daemon):
                break
    deliver_all(daemon, store)
    watch.check()
    check_all_there(daemon, server, store)
