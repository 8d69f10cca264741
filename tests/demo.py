#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make demo: a simulated feed with all its troubles, the daemon, and a reader that counts what arrived in the store.
STORE=minio: the store is a bucket of a MinIO that it starts for the while. MILL=1: a machine sleeps beside it, which is
woken for each batch, has a job run over it, and sleeps again (tests/mill_demo.py).

The last line, `demo: N records served, N in the store, 0 lost, 0 twice`, compares the objects with what the feed
served; the daemon's own counters are only shown. Exits with 1 when they differ or anything is left running.
"""

import shutil
import sys
import tempfile
import time
from pathlib import Path

import lake
from daemon import Daemon, TimedOut, wait_until
from feed import ParkingFeed, Server

SECONDS = 30
SOURCE = "parking"
PATH = "/parking.json"
PREFIX = "landing"
SCRIPT = [
    (4, "frozen"),
    (8, "thaw"),
    (10, "slow"),
    (15, "503"),
    (19, "truncated"),
    (23, "html"),
]
SETTINGS = {
    "device": "demo",
    "log": "text",
    "clock": "trust",
    "batch": {"max_age": "5s"},
}


def show_line(text, second):
    """One line that renews itself on a terminal, and else a line every few seconds."""
    if sys.stdout.isatty():
        print(f"\r\033[K{text[: shutil.get_terminal_size().columns - 1]}", end="", flush=True)
    elif second % 5 == 0:
        print(text, flush=True)


def show_progress(daemon, feed, second, more=""):
    status = daemon.status()
    source = next(s for s in status["sources"] if s["name"] == SOURCE)
    store = status["stores"][0]
    last = feed.happened[-1] if feed.happened else "fresh"
    text = (
        f"{second:2d} s  {source['polls']} polls: {source['unchanged']} unchanged, {source['refused']} refused, "
        f"{source['failed']} failed; {source['records']} records, {store['delivered_batches']} objects ({last}){more}"
    )
    show_line(text, second)


def run(daemon, feed, mill):
    """Lets it work for a while, then has it bring everything to the store; returns the source's last counters."""
    started = time.monotonic()
    for second in range(SECONDS):
        time.sleep(max(0, started + second - time.monotonic()))
        show_progress(daemon, feed, second, mill.now(daemon) if mill else "")
    print()
    feed.freeze()
    wait_until("the feed's last version to be in the buffer", lambda: daemon.poll(SOURCE)["outcome"] == "unchanged")
    flushed = daemon.cli("flush", "--wait")
    if flushed.returncode != 0:
        raise TimedOut(f"millrace flush --wait: {flushed.stdout}{flushed.stderr}")
    return daemon.source(SOURCE)


def table(source, found):
    rows = [
        ("polls", source["polls"]),
        ("  unchanged", source["unchanged"]),
        ("  refused", f"{source['refused']}  (cut short, or not what was promised)"),
        ("  failed", f"{source['failed']}  (no answer, or a status other than 200)"),
        ("records", len(found.records())),
        ("batches", len(found.objects)),
        ("bytes raw", f"{sum(o.raw_bytes for o in found.objects):,}"),
        ("bytes stored", f"{sum(o.bytes for o in found.objects):,}"),
    ]
    print()
    for name, value in rows:
        print(f"  {name:<14}{value}")


def show_objects(place, found):
    print(f"\nThe objects lie in {place}:")
    for item in found.objects[-3:]:
        print(f"  {item.key}")
    print("\nOne record, as zcat shows it:")
    print(f"  {found.objects[-1].records[-1].line.decode()}\n")


def judge(server, found):
    """The closing line; True when all is well."""
    count = lake.compare(found, {SOURCE: server.served(PATH)})
    for problem in found.problems:
        print(f"demo: {problem}")
    print(
        f"demo: {count.served} records served, {count.stored} in the store, {count.lost} lost, {count.twice} twice",
        flush=True,
    )
    return count.served == count.stored >= 50 and not (count.lost or count.twice or found.problems)


def stop(daemon):
    """True when it ended by itself, well, and left no socket."""
    status = daemon.stop(patience=5)
    if status != 0 or daemon.socket.exists():
        print(f"demo: the daemon ended with {status}" + (", its socket is left" if daemon.socket.exists() else ""))
    return status == 0 and not daemon.socket.exists()


class Folder:
    """The store that needs nothing."""

    def __init__(self, folder):
        self.place = folder / "lake"
        self.place.mkdir()
        self.settings = {"kind": "file", "path": str(self.place)}

    def read(self):
        stored = lake.in_folder(self.place)
        return lake.check({key: content for key, content in stored.items() if not key.startswith("_runs/")})

    def end(self):
        pass


class Minio:
    """A bucket of a MinIO, below a prefix that the daemon's user is bound to."""

    def __init__(self, folder):
        # Of all demos this one alone needs more than the standard library.
        import object_store

        self._minio = object_store.Minio(folder / "minio")
        try:
            self._minio.start()
            self._bucket = object_store.Bucket(self._minio, "lake")
            self._minio.make_user("demo", "demo-secret", object_store.below_alone("lake", PREFIX))
        except BaseException:
            self._minio.end()
            raise
        self.place = f"bucket lake below {PREFIX}/, and MinIO, now stopped, keeps its data in {self._minio.data}"
        self.settings = self._bucket.settings(prefix=PREFIX, access_key="demo", secret_key="demo-secret")

    def read(self):
        return self._bucket.read(PREFIX)

    def end(self):
        self._minio.end()


STORES = {"file": Folder, "minio": Minio}


def main(binary, folder, kind, with_mill):
    if with_mill and kind != "file":
        raise RuntimeError(f"MILL=1 reads the objects out of a folder: leave STORE={kind} out")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    store = STORES[kind](folder)
    mill = None
    try:
        if with_mill:
            import mill_demo

            mill = mill_demo.MillDemo(SOURCE, store.place)
        return demonstrate(binary, folder, store, mill)
    finally:
        if mill:
            mill.end()
        store.end()


def demonstrate(binary, folder, store, mill):
    # A Unix socket's path has at most 107 bytes; that of a folder may have more.
    with tempfile.TemporaryDirectory(prefix="millrace-demo-") as short:
        server = Server()
        feed = ParkingFeed(every=2, script=SCRIPT)
        server.route(PATH, feed)
        daemon = Daemon(binary, folder)
        daemon.socket = Path(short) / "millrace.sock"
        daemon.configure(
            {SOURCE: {"url": server.url(PATH), "every": "1s", "timeout": "10s"}},
            socket=str(daemon.socket),
            stores={"lake": store.settings},
            **SETTINGS,
            **(mill.settings if mill else {}),
        )
        print(f"A feed of nine car parks on {server.url(PATH)}, new every 2 s, and `millrace run -c {daemon.config}`.")
        patience = "About a minute" if mill else "Half a minute"
        print(f"It freezes, answers slowly, with 503, cut short, and with HTML. {patience}, please.\n", flush=True)
        try:
            daemon.start()
            source = run(daemon, feed, mill)
            if mill:
                mill.wait(daemon, show_line)
            stopped = stop(daemon)
            found = store.read()
            table(source, found)
            show_objects(store.place, found)
            milled = mill.judge(found) if mill else True
            return judge(server, found) and milled and stopped
        finally:
            daemon.end()
            server.close()


if __name__ == "__main__":
    try:
        sys.exit(0 if main(sys.argv[1], Path(sys.argv[2]).resolve(), sys.argv[3], sys.argv[4:] == ["mill"]) else 1)
    except KeyboardInterrupt:
        sys.exit("\ndemo: stopped; nothing is left running")
    except (AssertionError, OSError, RuntimeError) as error:
        sys.exit(f"demo: {error}")
