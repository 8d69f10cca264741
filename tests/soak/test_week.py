# SPDX-License-Identifier: Apache-2.0
"""A week without the store, in quick motion: 10,080 polls of a feed like Stavanger's are kept, sealed and compressed.

Then the store is back, and what has waited is drained at `upload_rate`. That is real time, of the same buffer under the
program as it is: curl keeps no driven clock. Polls are a second apart then, so that a drain of a minute would show in
them. MILLRACE_WEEK_DAYS makes it shorter.
"""

import itertools
import os
import time
from datetime import UTC, datetime, timedelta

import pytest

from clock import Clock
from daemon import Daemon, wait_until
from feed import JSON, Answer, Server, elements, parking
from figures import note
from lake import KEY
from object_store import Bucket, Minio
from proxy import Proxy

DAYS = int(os.environ.get("MILLRACE_WEEK_DAYS", "7"))
POLLS = DAYS * 1440
RATE = 16 << 10  # bytes a second: about a minute for a week
ALONE = 15  # seconds of polls without a drain, to have something beside which to put those that are amid it
PATH = "/parking.json"


class Feed:
    """A route: nine answers of ten are a new version, the tenth is the one before, until it is frozen."""

    def __init__(self):
        self.asked = []  # when, by time.monotonic()
        self.version = 0
        self.frozen = False

    def __call__(self, _request):
        self.asked.append(time.monotonic())
        if len(self.asked) % 10 and not self.frozen:
            self.version += 1
        return Answer(parking(self.version), headers=JSON | {"ETag": f'"{len(self.asked)}"'})

    def records(self):
        """Of all versions that were given, in order."""
        return [record for version in range(1, self.version + 1) for record in elements(parking(version))]


@pytest.fixture
def feed():
    server, feed = Server(), Feed()
    server.route(PATH, feed)
    yield feed, server.url(PATH)
    server.close()


@pytest.fixture
def bucket(folder):
    store = Minio(folder / "store").start()
    yield Bucket(store, "lake")
    store.end()


@pytest.fixture
def proxy(bucket):
    proxy = Proxy(bucket.store.target)
    yield proxy
    proxy.close()


@pytest.fixture
def daemons(folder, millrace, millrace_sim):
    """On one buffer, one after the other: that of the week, and that of the drain."""
    clock = Clock(folder / "clock", datetime.now(UTC) - timedelta(days=DAYS))
    made = Daemon(millrace_sim, folder, {"MILLRACE_CLOCK": str(clock.path)}), Daemon(millrace, folder)
    yield *made, clock
    for daemon in made:
        daemon.end()


def configure(daemon, url, every, store):
    daemon.configure({"parking": {"url": url, "every": every}}, stores={"lake": store}, socket=str(daemon.socket))


def live_a_week(daemon, clock, feed):
    """Ends half a minute after the last poll; returns what status says of the buffer then."""
    daemon.start()
    for _ in range(24 * DAYS - 1):
        clock.run(hours=1)
    clock.run(minutes=59, seconds=30)
    source = daemon.source("parking")
    assert (len(feed.asked), source["polls"], source["failed"], source["refused"]) == (POLLS, POLLS, 0, 0)
    assert daemon.store()["state"] == "away"
    assert daemon.store()["delivered_batches"] == 0
    daemon.cli("flush")
    return daemon.status()["buffer"]


def uploads(proxy):
    return [r for r in proxy.requests("PUT") if ".ndjson.gz" in r.path]


def drain(daemon, proxy):
    """Polls go on alone for a while, then the store is back. Returns once all is there that has waited."""
    daemon.start()
    begun = time.monotonic()
    wait_until("polls alone", lambda: time.monotonic() - begun >= ALONE, patience=2 * ALONE)
    proxy.accept()
    wait_until("the store to be ready", lambda: uploads(proxy), patience=90)
    wait_until("it to be drained", lambda: daemon.store()["waiting_batches"] == 0, patience=600)


def key_of(request):
    return KEY.search(request.path.replace("%3D", "="))


def check_order(requests):
    """Oldest first."""
    keys = [key for key in map(key_of, requests) if key["source"] == "parking"]
    firsts = [int(key["first"]) for key in keys]
    assert firsts == sorted(set(firsts))
    days = [key["dt"] for key in keys]
    assert days == sorted(days)


def check_rate(requests):
    """At no moment has more come than the rate allows, but for what a second's pause may have left."""
    begun, sent = requests[0].at, 0
    for request in requests[1:]:
        sent += request.bytes
        assert sent <= RATE * (1.05 * (request.at - begun) + 1), f"{sent} bytes in {request.at - begun:.1f} s"


def misses(times):
    """Polls that did not come, of those a second apart, and by how much of a second the worst that came was late."""
    gaps = [b - a for a, b in itertools.pairwise(times)]
    return sum(round(gap) - 1 for gap in gaps), max(gaps) - 1


def test_a_week_without_the_store(daemons, feed, bucket, proxy):
    week, after, clock = daemons
    feed, url = feed
    proxy.refuse()
    store = bucket.settings(proxy, upload_rate=str(RATE))
    configure(week, url, "1m", store)
    begun = time.monotonic()
    buffer = live_a_week(week, clock, feed)
    objects, waiting = week.store()["waiting_batches"], week.store()["waiting_bytes"]
    kept = week.source("parking")["records"]
    print(f"{POLLS} polls in {time.monotonic() - begun:.0f} s: {buffer}")
    assert kept == len(feed.records())
    assert week.stop() == 0
    configure(after, url, "1s", store)
    drain(after, proxy)
    sent = uploads(proxy)[:objects]
    first, last = sent[0].at, sent[-1].at
    alone = [t for t in feed.asked[POLLS:] if t < first]
    amid = [t for t in feed.asked[POLLS:] if first <= t <= last]
    feed.frozen = True
    wait_until("the last version", lambda: after.poll("parking")["outcome"] == "unchanged")
    after.flush(patience=60)
    check_order(uploads(proxy))
    check_rate(sent)
    assert sum(r.bytes for r in sent) == waiting
    assert misses(amid)[0] == 0
    found = bucket.read()
    assert found.problems == []
    assert found.data("parking") == feed.records(), "lost, or twice"
    audit = after.cli("audit", timeout=120)
    assert audit.returncode == 0, audit.stdout
    keys = {key_of(r)[0] for r in sent}
    lines = sum(o.raw_bytes for o in found.objects + found.built_in if o.key in keys)
    note(
        "a week without the store",
        "test_week.py",
        polls=POLLS,
        records=kept,
        megabytes_on_the_card=f"{(buffer['file_bytes'] + buffer['wal_bytes']) / 1e6:.1f}",
        objects=objects,
        megabytes_of_lines=f"{lines / 1e6:.1f}",
        megabytes_of_objects=f"{waiting / 1e6:.2f}",
        seconds_to_drain=f"{last - first:.1f}",
        seconds_that_the_rate_takes=f"{waiting / RATE:.1f}",
        polls_amid_it=len(amid),
        missed=misses(amid)[0],
        latest_by_ms=f"{1000 * misses(amid)[1]:.0f}",
        latest_alone_by_ms=f"{1000 * misses(alone)[1]:.0f}",
    )
