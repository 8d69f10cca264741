# SPDX-License-Identifier: Apache-2.0
"""Load on a daemon that may die at any moment, and whether all that it reported came through: once, and whole.

Standard library only.
"""

import json
import random
import threading
from collections import defaultdict
from http.client import HTTPException

from feed import Answer


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
    """Polls all these sources many times a second, and notes what was reported as committed (in a list that may be
    another load's)."""

    def __init__(self, daemon, sources, pause=0.01, committed=None):
        self._daemon = daemon
        self._pause = pause
        self._stop = threading.Event()
        self.committed = [] if committed is None else committed
        self._threads = [threading.Thread(target=self._poll, args=(s,), daemon=True) for s in sources]
        for thread in self._threads:
            thread.start()

    def _poll(self, source):
        while not self._stop.wait(self._pause):
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


def check_committed(found, committed):
    """What was reported as committed is there."""
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
