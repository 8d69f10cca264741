# SPDX-License-Identifier: Apache-2.0
"""kill -9 at random moments under load: no committed fetch is lost, none comes twice, seq has no gap."""

import json
import os
import random
import threading
import time
from collections import defaultdict
from http.client import HTTPException

import lake
from feed import Answer

KILLS = int(os.environ.get("MILLRACE_KILLS", "15"))
SOURCES = [f"s{i}" for i in range(6)]


class FreshAnswers:
    """A route whose every answer is new: each record says which answer it came with, and of how many."""

    def __init__(self, source, seed):
        self._source = source
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._answers = 0

    def __call__(self, _request):
        with self._lock:
            self._answers += 1
            n = self._random.choice((1, 3, 9, 9, 9, 9, 40, 400))
            records = [{"s": self._source, "answer": self._answers, "i": i, "n": n, "x": "y" * 50} for i in range(n)]
        return Answer(json.dumps(records).encode())


class Load:
    """Polls all sources many times a second, and notes what was reported as committed."""

    def __init__(self, daemon):
        self._daemon = daemon
        self._stop = threading.Event()
        self.committed = []
        self._threads = [threading.Thread(target=self._poll, args=(s,), daemon=True) for s in SOURCES]
        for thread in self._threads:
            thread.start()

    def _poll(self, source):
        while not self._stop.wait(0.01):
            try:
                report = self._daemon.poll(source)
            except (OSError, AssertionError, ValueError):
                continue  # it is dead or not yet there
            except HTTPException:
                continue  # it died while it answered
            if report["outcome"] == "committed":
                self.committed.append((source, report["first_seq"], report["records"]))

    def end(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_no_committed_fetch_is_lost_and_none_comes_twice(daemon, server):
    seed = int(os.environ.get("MILLRACE_SEED", str(random.randrange(1 << 30))))
    print(f"MILLRACE_SEED={seed} MILLRACE_KILLS={KILLS}")
    chance = random.Random(seed)
    for i, source in enumerate(SOURCES):
        server.route(f"/{source}", FreshAnswers(source, seed + i))
    sources = {s: {"url": server.url(f"/{s}"), "every": "1s"} for s in SOURCES}
    batch = {"max_age": "1s", "max_bytes": "64K"}
    daemon.configure(sources, batch=batch)
    daemon.start()
    load = Load(daemon)
    try:
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.02, 1.2))  # the random moment
            daemon.kill()
            daemon.start()
    finally:
        load.end()
    daemon.kill()
    daemon.configure({s: settings | {"enabled": False} for s, settings in sources.items()}, batch=batch)
    daemon.start()
    daemon.flush()
    assert daemon.stop() == 0
    found = lake.read(daemon.lake)
    assert found.problems == []
    check_committed(found, load.committed)
    check_whole(found)
    print(f"{KILLS} kills, {len(load.committed)} fetches reported, {len(found.records())} records")


def check_committed(found, committed):
    """What was reported as committed is there."""
    assert len(committed) > 2 * KILLS, "there was hardly any load"
    seqs = {(r.source, r.seq) for r in found.records()}
    lost = [(source, first + i) for source, first, n in committed for i in range(n) if (source, first + i) not in seqs]
    assert lost == []


def check_whole(found):
    """Of each answer all records or none, in one fetch, in their order, once."""
    fetches = defaultdict(list)
    for record in found.records():
        fetches[record.source, record.fetch].append(json.loads(record.data))
    answers = set()
    for (source, fetch), records in fetches.items():
        first = records[0]
        assert [r["i"] for r in records] == list(range(first["n"])), (source, fetch)
        assert {(r["s"], r["answer"]) for r in records} == {(source, first["answer"])}
        assert (source, first["answer"]) not in answers, f"answer {first['answer']} of {source} came twice"
        answers.add((source, first["answer"]))
