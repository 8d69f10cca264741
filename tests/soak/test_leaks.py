# SPDX-License-Identifier: Apache-2.0
"""A day in quick motion under what finds leaks and wrong accesses: polls, seals, deliveries, reloads, outages, readers
of all kinds, a restart; and the commands. All end clean, and nothing of what was served is lost or twice.

MILLRACE_SOAK_HOURS makes the day shorter; the outages begin in the fourth hour.
"""

import contextlib
import gzip
import itertools
import json
import os
import signal
from datetime import UTC, datetime

import pytest

import lake
from clock import Clock
from daemon import Daemon, UnixConnection, wait_until
from feed import JSON, Answer, Server, truncated
from object_store import Bucket, Minio
from proxy import Proxy

HOURS = int(os.environ.get("MILLRACE_SOAK_HOURS", "24"))
BEGIN = datetime(2031, 3, 14, 12, 3, tzinfo=UTC)
PATIENCE = 300  # everything takes its time under valgrind
UNCLEAN = 99  # the exit status of what is not clean
SERVED = ("parking", "large", "extra")
COMMANDS = (
    ["status"],
    ["status", "--json"],
    ["show", "config"],
    ["show", "rejected"],
    ["show", "stores"],
    ["tail", "parking", "-n", "20"],
    ["check"],
    ["poll", "parking"],
    ["audit"],
    ["audit", "--json"],
)


class Asan:
    """A build with AddressSanitizer, its leak check, and UndefinedBehaviorSanitizer."""

    def __init__(self, folder, request):
        program = request.getfixturevalue("millrace_asan_sim")
        assert b"__asan_init" in program.read_bytes(), f"{program} is built without sanitizers"
        self.program = program
        self._logs = folder / "asan"
        options = f"detect_leaks=1:exitcode={UNCLEAN}:log_path={self._logs}"
        self.env = {"ASAN_OPTIONS": options, "UBSAN_OPTIONS": f"print_stacktrace=1:log_path={folder / 'ubsan'}"}
        self._folder = folder

    def reports(self):
        """A process that was clean has left none."""
        found = [p for name in ("asan", "ubsan") for p in sorted(self._folder.glob(f"{name}.*"))]
        return [p.read_text() for p in found]


class Valgrind:
    """memcheck, with its leak check: what is lost for certain is an error."""

    def __init__(self, folder, request):
        program = request.getfixturevalue("millrace_sim")
        self.program = folder / "valgrind-millrace"
        self._folder = folder
        options = "--leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite --num-callers=25"
        log = f"--error-exitcode={UNCLEAN} --log-file={folder}/valgrind.%p.log"
        self.program.write_text(f'#!/bin/sh\nexec valgrind -q {options} {log} "{program}" "$@"\n')
        self.program.chmod(0o755)
        self.env = {}

    def reports(self):
        """One log a process, empty where all was well."""
        logs = sorted(self._folder.glob("valgrind.*.log"))
        assert logs, "valgrind has not run"
        return [text for text in (p.read_text() for p in logs) if text]


class Numbered:
    """A route whose every second answer is new, and tells its number; made by make(number)."""

    def __init__(self, make):
        self._make = make
        self._asked = itertools.count()

    def __call__(self, _request):
        return self._make(next(self._asked) // 2)


def parking(version):
    return Answer(
        json.dumps([{"version": version, "park": i, "free": str(version * i % 300)} for i in range(9)]).encode()
    )


def large(version):
    """More than waits in memory: it goes to the card in pieces before it is complete."""
    return Answer(json.dumps([{"version": version, "i": i, "x": "y" * 900} for i in range(600)]).encode(), piece=20_000)


def lines(version):
    content = b"".join(b'{"version":%d,"i":%d}\r\n\n' % (version, i) for i in range(20))
    return Answer(gzip.compress(content), headers=JSON | {"Content-Encoding": "gzip"})


class Day:
    def __init__(self, folder, tool):
        self.clock = Clock(folder / "clock", BEGIN)
        self.daemon = Daemon(tool.program, folder, tool.env | {"MILLRACE_CLOCK": str(self.clock.path)})
        self.server = Server()
        self.minio = Minio(folder / "minio").start()
        self.bucket = Bucket(self.minio, "day")
        self.proxy = Proxy(self.minio.target)
        self._followers = []
        self._routes()

    def end(self):
        for connection in self._followers:
            connection.close()
        self.daemon.end()
        self.proxy.close()
        self.minio.end()
        self.server.close()

    def _routes(self):
        for name, make in {"parking": parking, "large": large, "lines": lines, "extra": parking}.items():
            self.server.route(f"/{name}", Numbered(make))
        self.server.route("/html", Answer(b"<!DOCTYPE html><p>gone</p>", headers={"Content-Type": "text/html"}))
        self.server.route("/short", truncated(b'[{"a":1},{"b":2}]', 9))
        self.server.route("/bomb", Answer(gzip.compress(bytes(4 << 20)), headers=JSON | {"Content-Encoding": "gzip"}))

    def configure(self, hour):
        """Sources come, go and change with the hours; a store as well."""
        url = self.server.url
        sources = {
            "parking": {"url": url("/parking"), "every": "1m", "headers": {"X-Hour": f"{hour}"}},
            "large": {"url": url("/large"), "every": f"{30 + hour}m"},
            "lines": {"url": url("/lines"), "every": "7m", "format": "ndjson", "records": None},
            "bomb": {"url": url("/bomb"), "every": "20m"},
            "down": {"url": "http://127.0.0.1:1/", "every": "10m", "proxy": "http://u:p@127.0.0.1:1"},
        }
        sources |= {name: {"url": url(f"/{name}"), "every": "15m"} for name in ("html", "short", "none")}
        if hour % 2:
            sources["extra"] = {"url": url("/extra"), "every": "5m"}
            sources["large"]["enabled"] = hour % 3 != 0
        disk = {"kind": "file", "path": str(self.daemon.lake)}
        stores = {"disk": disk, "s3": self.bucket.settings(self.proxy, prefix="landing", parallel=1 + hour % 3)}
        self.daemon.configure(sources, stores=stores)

    def reload(self, hour):
        self.configure(hour)
        if hour == 5:
            self.daemon.config.write_text("device = \n")
        self.daemon.process.send_signal(signal.SIGHUP)

    def trouble(self, hour):
        """The S3 store is away for two hours, the feed for one, the disk for two."""
        mark = self.daemon.lake / ".millrace-store"
        if hour == 4:
            self.proxy.refuse()
            self.server.route("/parking", Answer(b"", 503))
        elif hour == 5:
            self.server.route("/parking", Numbered(lambda n: parking(1_000_000 + n)))
            mark.rename(self.daemon.folder / "unmounted")
        elif hour == 6:
            self.proxy.accept()
        elif hour == 7:
            (self.daemon.folder / "unmounted").rename(mark)

    def read(self):
        """All that can be asked, and readers that stay or leave."""
        for path in ("status", "sources", "stores", "batches", "config", "rejected", "nothing"):
            self.daemon.request("GET", f"/v1/{path}", PATIENCE)
        for name in ("parking", "lines"):
            self.daemon.request("GET", f"/v1/sources/{name}/records?last=500", PATIENCE)
        for name in ("parking", "html", "down"):
            self.daemon.request("POST", f"/v1/sources/{name}/poll", PATIENCE)
        self.daemon.request("POST", "/v1/flush", PATIENCE)
        self.daemon.request("POST", "/v1/audit", PATIENCE)
        self._followers.append(self._follow())
        if len(self._followers) > 2:
            self._followers.pop(0).close()

    def _follow(self):
        connection = UnixConnection(self.daemon.socket, PATIENCE)
        connection.request("GET", "/v1/sources/parking/records?last=3&follow=1")
        connection.getresponse().read(10)
        return connection

    def hour(self, hour):
        self.trouble(hour)
        if hour:
            self.reload(hour)
        for _ in range(12):
            self.clock.run(minutes=5)
        self.read()
        if hour == HOURS // 2:
            self.stop()
            self.daemon.start()

    def commands(self):
        """Nothing is wrong with a 1: sources that fail are part of the day."""
        for words in COMMANDS:
            done = self.daemon.cli(*words, timeout=PATIENCE)
            assert done.returncode in (0, 1), (words, done.returncode, done.stdout, done.stderr)

    def deliver(self):
        """Whatever a store still waits for is tried at once by a flush."""

        def delivered():
            with contextlib.suppress(AssertionError):
                return self.daemon.flush(PATIENCE)["delivered"]

        wait_until("all to be delivered", delivered, PATIENCE)

    def stop(self):
        assert self.daemon.stop(PATIENCE) == 0


@pytest.mark.parametrize("tool", [Asan, Valgrind], ids=["asan", "valgrind"])
def test_a_day_ends_clean(folder, request, tool):
    tool = tool(folder, request)
    day = Day(folder, tool)
    try:
        day.configure(0)
        day.daemon.start()
        for hour in range(HOURS):
            day.hour(hour)
            print(f"hour {hour + 1}: {len(day.server.requests())} polls", flush=True)
        day.commands()
        day.deliver()
        day.stop()
        assert tool.reports() == []
        check_stores(day)
    finally:
        for report in tool.reports():
            print(report[:20_000])
        day.end()


def check_stores(day):
    for found in (lake.read(day.daemon.lake), day.bucket.read("landing")):
        assert found.problems == []
        served = {name: day.server.served(f"/{name}") for name in SERVED}
        assert all(served.values())
        count = lake.compare(found, served | {"lines": expected_lines(day)})
        print(f"{len(found.objects)} objects: {count}")
        assert (count.lost, count.twice) == (0, 0)
    assert day.daemon.events("config.refused"), "the bad file was not refused"
    assert day.daemon.events("store.away"), "no store was away"


def expected_lines(day):
    asked = len(day.server.requests("/lines"))
    return [b'{"version":%d,"i":%d}' % (v, i) for v in range((asked + 1) // 2) for i in range(20)]
