# SPDX-License-Identifier: Apache-2.0
"""What the sections share: the daemon with a connection that stays open, its memory, and medians."""

import json
import re
import statistics
import subprocess
import threading
import time
from pathlib import Path

from bench.report import NotMeasured
from daemon import PATIENCE, Daemon, UnixConnection, wait_until

SLOW = 120  # seconds that one request may take here


class Bench:
    """One run: where the programs are, where there is room, and whom to tell."""

    def __init__(self, binary, programs, folder, report):
        self.binary = binary
        self.programs = Path(programs)
        self.folder = folder
        self.report = report
        self.ndjson = knows_ndjson(binary, folder)

    def place(self, name):
        """A new folder."""
        path = self.folder / name
        path.mkdir(parents=True)
        return path

    def program(self, name, *args):
        """Runs one of tests/bench/*.c, which answers in JSON."""
        command = [str(self.programs / name), *map(str, args)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NotMeasured(f"{name}: {done.stderr.strip() or done.returncode}")
        return json.loads(done.stdout)

    def source(self, url, **more):
        """Settings of a source whose records are one a line."""
        format_ = {"format": "ndjson", "records": None} if self.ndjson else {"records": "$"}
        return {"url": url, "timeout": "2m", "max_body": "64M"} | format_ | more


def knows_ndjson(binary, folder):
    """An earlier build may be measured too: then the same records come in an array."""
    daemon = Daemon(binary, folder)
    daemon.configure({"feed": {"url": "http://127.0.0.1/", "format": "ndjson", "records": None}})
    return daemon.cli("check").returncode == 0


class Rig(Daemon):
    """A daemon whose API connection stays open."""

    def __init__(self, bench, folder, env=None):
        super().__init__(bench.binary, folder, env)
        self._local = threading.local()

    @property
    def pid(self):
        return self.process.pid

    def ask(self, method, path, _patience=SLOW):
        connection = getattr(self._local, "connection", None)
        if not connection:
            connection = self._local.connection = UnixConnection(self.socket, SLOW)
        connection.request(method, path)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise NotMeasured(f"{method} {path}: {answer.status} {body.decode()}")
        return json.loads(body)

    def commit(self, source):
        """Polls until committed, and returns its report."""
        report = self.poll(source)
        if report["outcome"] != "committed":
            raise NotMeasured(f"a poll ended {report['outcome']}: {report['text']}")
        return report

    def first_poll(self, source):
        """The one that every source makes by itself after the start is over."""
        wait_until("the first poll", lambda: self.source(source)["polls"] > 0)
        self.poll(source)

    def wait_delivered(self):
        wait_until("delivery", lambda: self.status()["buffer"]["waiting_batches"] == 0, SLOW)

    def stop(self, patience=PATIENCE):
        self._local = threading.local()
        return super().stop(patience)


def memory_kb(pid):
    """Sums over all mappings. What is shared is shared with other processes that run the same libraries: `alone` counts
    it in full, as it would be without them."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kb = {name: int(value) for name, value in re.findall(r"^(\w+): +(\d+) kB", text, re.MULTILINE)}
    return {
        "private_dirty": kb["Private_Dirty"],
        "private_dirty_alone": kb["Private_Dirty"] + kb["Shared_Dirty"],
        "pss": kb["Pss"],
        "pss_alone": kb["Private_Dirty"] + kb["Private_Clean"] + kb["Shared_Dirty"] + kb["Shared_Clean"],
    }


class Watch:
    """Looks at a process's private dirty memory while the `with` lasts."""

    def __init__(self, pid, pause=0.002):
        self._pid = pid
        self._pause = pause
        self._end = threading.Event()
        self.seen = []
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self):
        while not self._end.wait(self._pause):
            self.seen.append(memory_kb(self._pid)["private_dirty"])

    def __enter__(self):
        self.seen.append(memory_kb(self._pid)["private_dirty"])
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self._thread.join()

    @property
    def peak(self):
        return max(self.seen)

    @property
    def median(self):
        return statistics.median(self.seen)


def spaced(seconds, times, what):
    """Calls what() so many times, each so long after the begin of the one before."""
    begun = time.monotonic()
    for i in range(times):
        time.sleep(max(0, begun + i * seconds - time.monotonic()))
        what()
