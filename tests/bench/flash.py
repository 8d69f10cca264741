# SPDX-License-Identifier: Apache-2.0
"""What reaches the card: sectors by the counter of a loop device with the buffer alone on it, ext4 with blocks of 4 KB.

Beside each figure stands its floor: the same bytes, appended to a file and fdatasynced at the same moments, on a second
such device.
"""

import ctypes
import os
import subprocess
import threading
import zlib
from contextlib import ExitStack
from pathlib import Path

from bench import bodies
from bench.memory import parking_body
from bench.report import NoRight, NotMeasured, at_most
from bench.rig import Rig, spaced
from bench.web import Feeds

SIZE = 512 * 1024 * 1024
SEAL = 8 * 1024 * 1024  # bytes of object lines, as max_bytes
QUIET = 720
QUIET_SPACED = 60
WARM_UP = 600  # polls: until what made the WAL grow has gone through a checkpoint
PER_SEAL = 30  # quiet polls; as in 15 minutes of a poll every 30 s
WAL_GROWN = 4_000_000  # bytes: SQLite's autocheckpoint of 1000 pages


class Card:
    """An ext4 of its own. written(): bytes that the device has taken, all that is on its way included."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.root = self.folder / "card"
        self.root.mkdir(parents=True)
        image = self.folder / "image"
        with image.open("wb") as file:
            file.truncate(SIZE)
        call("mkfs.ext4", "-q", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0", image)
        try:
            call("mount", "-o", "loop", image, self.root)
        except NotMeasured as error:
            raise NoRight(f"no file system can be mounted here: {error}") from error
        self._fd = os.open(self.root, os.O_RDONLY)
        device = os.stat(self.root).st_dev
        self._counter = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat")

    def sync(self):
        """Of this file system alone; sync() would be everybody's."""
        if ctypes.CDLL(None, use_errno=True).syncfs(self._fd) != 0:
            raise OSError(ctypes.get_errno(), "syncfs")

    def written(self):
        self.sync()
        return int(self._counter.read_text().split()[6]) * 512

    def close(self):
        os.close(self._fd)
        call("umount", self.root)


def call(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NotMeasured(f"{command[0]}: {done.stderr.strip()}")


def tidy(folder):
    """What a run that was killed has left mounted."""
    for root in Path(folder).glob("**/card"):
        if root.is_mount():
            call("umount", root)


class Appender:
    """The floor: files that only grow."""

    def __init__(self, card):
        self._files = {n: os.open(card.root / n, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for n in ("log", "objects")}

    def append(self, data, to="log"):
        os.write(self._files[to], data)
        os.fdatasync(self._files[to])

    def close(self):
        for fd in self._files.values():
            os.close(fd)


def beside(ours, theirs):
    """Both at the same time, each on its own card."""
    wrong = []

    def work():
        try:
            theirs()
        except OSError as error:
            wrong.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    ours()
    thread.join()
    if wrong:
        raise NotMeasured(f"the floor: {wrong[0]}")


class Trial:
    """A daemon with its buffer on a card, the floor's card, and a feed."""

    def __init__(self, bench, folder):
        self.bench = bench
        self.feeds = Feeds(folder / "web")
        self.rig = Rig(bench, folder)
        self.cards = []
        self.appender = None
        self._folder = folder
        self._ends = ExitStack()

    def __enter__(self):
        with self._ends:
            self._ends.callback(self.feeds.close)
            for name in ("ours", "floor"):
                self.cards.append(Card(self._folder / name))
                self._ends.callback(self.cards[-1].close)
            self.appender = Appender(self.cards[1])
            self._ends.callback(self.appender.close)
            self._ends.callback(self.rig.end)
            self._ends = self._ends.pop_all()
        return self

    def __exit__(self, *_):
        self._ends.close()

    def start(self, names, batch=None):
        """With a WAL that has grown, and batches that were delivered."""
        growth = [bodies.body(bodies.records(bodies.noise, i, 250_000), self.bench.ndjson) for i in range(40)]
        self.feeds.put("growth", growth)
        self.rig.configure(
            {name: self.bench.source(self.feeds.url(name)) for name in ("growth", *names)},
            socket=str(self._folder / "millrace.sock"),
            buffer={"path": str(self.cards[0].root / "buffer.db"), "keep_delivered": "0s"},
            batch=batch or {},
        )
        self.rig.start()
        for name in ("growth", *names):
            self.rig.first_poll(name)
        for _ in growth:
            self.rig.commit("growth")
        self.rig.flush()
        grown = self.rig.status()["buffer"]["wal_bytes"]
        if grown < WAL_GROWN:
            raise NotMeasured(f"the WAL has not grown: {grown} bytes")

    def measure(self, ours, theirs):
        """Bytes that each card took."""
        before = [card.written() for card in self.cards]
        beside(ours, theirs)
        return [card.written() - was for card, was in zip(self.cards, before, strict=True)]


class LoadFloor:
    """Each commit's records deflated once as the chunk, and once more in an object of 8 MB."""

    def __init__(self, appender, sets, ndjson):
        self.appender = appender
        self.chunks = [zlib.compress(bodies.body(made, ndjson), 1) for made in sets]
        self.lines = [bodies.lines(made, 1) for made in sets]
        self.at = 0
        self.raw = b""

    def commit(self):
        i = self.at % len(self.chunks)
        self.at += 1
        self.appender.append(self.chunks[i])
        self.raw += self.lines[i]
        if len(self.raw) >= SEAL:
            self.appender.append(zlib.compress(self.raw, 6), "objects")
            self.raw = b""


def load(bench, folder, what, make, size, commits, pause, bound=None):
    """Flash bytes per byte that the feed gave."""
    with Trial(bench, folder) as trial:
        sets = [bodies.records(make, i, size) for i in range(40)]
        made = [bodies.body(s, bench.ndjson) for s in sets]
        trial.feeds.put("load", made)
        trial.start(["load"])
        floor = LoadFloor(trial.appender, sets, bench.ndjson)
        for _ in range(20):
            trial.rig.commit("load")
        ours, theirs = trial.measure(
            lambda: spaced(pause, commits, lambda: trial.rig.commit("load")),
            lambda: spaced(pause, commits, floor.commit),
        )
        given = sum(map(len, made)) / len(made) * commits
        bench.report.row(
            "flash",
            f"load, {what}",
            ours / given,
            "flash B/B",
            ("append + fdatasync", theirs / given),
            bound,
            bytes=given,
            shrinks=bodies.shrinks(b"".join(made[:10])),
        )


def quiet(bench, folder):
    """In quick motion, with the journal written after each poll as it is when polls are minutes apart; and a second
    apart, where ext4's own 5 s gather the journal of some of them."""
    with Trial(bench, folder) as trial:
        versions = [parking_body(bench, i) for i in range(WARM_UP + QUIET + QUIET_SPACED + 10)]
        trial.feeds.put("quiet", versions)
        trial.feeds.put("still", versions[:1])
        trial.start(["quiet", "still"], {"max_records": 9 * PER_SEAL})
        chunks = [zlib.compress(v, 1) for v in versions]
        for _ in range(WARM_UP):
            trial.rig.commit("quiet")
        quiet_polls(bench, trial, chunks, "minutes apart", QUIET, 0.03, Card.sync)
        quiet_polls(bench, trial, chunks, "a second apart", QUIET_SPACED, 1, lambda card: None)
        unchanged_polls(bench, trial)


def quiet_polls(bench, trial, chunks, what, times, pause, after):
    ours_card, floor_card = trial.cards

    def poll():
        trial.rig.commit("quiet")
        after(ours_card)

    def append():
        trial.appender.append(chunks.pop())
        after(floor_card)

    taken = trial.measure(lambda: spaced(pause, times, poll), lambda: spaced(pause, times, append))
    ours, theirs = (n / 1024 / times for n in taken)
    floor = ("append + fdatasync", theirs)
    bench.report.row("flash", f"a quiet poll, {what}", ours, "KB", floor, at_most(28), polls=times)


def unchanged_polls(bench, trial, times=120, pause=0.1):
    """Beside the same daemon idle for as long: what the system itself writes meanwhile."""

    def poll():
        if trial.rig.poll("still")["outcome"] != "unchanged":
            raise NotMeasured("a poll was not unchanged")
        trial.cards[0].sync()

    trial.rig.flush()
    trial.rig.wait_delivered()
    ours, _ = trial.measure(lambda: spaced(pause, times, poll), lambda: None)
    idle, _ = trial.measure(lambda: spaced(pause, times, trial.cards[0].sync), lambda: None)
    kb = [n / 1024 / times for n in (ours, idle)]
    bench.report.row("flash", "an unchanged poll", kb[0], "KB", ("idle for as long", kb[1]), at_most(0), polls=times)


def run(bench):
    if os.geteuid() != 0:
        raise NoRight("a loop device needs root")
    bench.place("flash")
    load(bench, bench.place("flash/200"), "200 KB a commit", bodies.city, 200_000, 120, 0.1, at_most(0.6))
    load(bench, bench.place("flash/20"), "20 KB a commit", bodies.city, 20_000, 400, 0.03)
    load(bench, bench.place("flash/noise"), "200 KB a commit, incompressible", bodies.noise, 200_000, 100, 0.1)
    quiet(bench, bench.place("flash/quiet"))
