# SPDX-License-Identifier: Apache-2.0
"""From the socket to durable: how many records a second, beside a bare SQLite program on the same file system."""

import statistics
import threading
import time

from bench import bodies
from bench.report import NotMeasured
from bench.rig import Rig
from bench.web import Feeds

RECORDS = 1000
FETCHES = 80
ROUNDS = 3


def peer(bench, folder, feeds, name, fetches, how):
    """Records a second of the bare program: the median of some runs, each on a new database."""
    rates = []
    for i in range(ROUNDS):
        got = bench.program("sqlite", folder / f"{name}-{how}-{i}.db", feeds.port, name, fetches, how)
        rates.append(got["records"] / got["seconds"])
    return statistics.median(rates)


def poll_all(rig, sources, each):
    """Records a second over all these sources, each polled by a thread of its own."""
    records, wrong = [], []

    def work(source):
        try:
            for _ in range(each):
                records.append(rig.commit(source)["records"])
        except (NotMeasured, OSError) as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(source,)) for source in sources]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise NotMeasured(f"{wrong[0]}")
    return sum(records) / (time.monotonic() - begun)


def rate(bench, folder, feeds, name, sources, each):
    rig = Rig(bench, folder)
    rig.configure({f"s{i}": bench.source(feeds.url(name), dedupe="none") for i in range(sources)})
    try:
        rig.start()
        for i in range(sources):
            rig.first_poll(f"s{i}")
        rates = [poll_all(rig, [f"s{i}" for i in range(sources)], each // sources) for _ in range(ROUNDS)]
    finally:
        rig.end()
    return statistics.median(rates)


def rates(bench, folder):
    feeds = Feeds(folder / "web")
    try:
        sets = [bodies.records(bodies.city, i, count=RECORDS) for i in range(20)]
        feeds.put("fetch", [bodies.body(made, bench.ndjson) for made in sets])
        feeds.put("large", [bodies.body(bodies.records(bodies.wide, i, count=100_000), bench.ndjson) for i in (1, 2)])
        for name, what, sources, each in (
            ("fetch", f"fetches of {RECORDS}, one source", 1, FETCHES),
            ("fetch", f"fetches of {RECORDS}, four sources", 4, FETCHES),
            ("large", "one fetch of 100,000 (50 MB)", 1, 1),
        ):
            ours = rate(bench, bench.place(folder / f"{name}-{sources}"), feeds, name, sources, each)
            for how, told in (("rows", "SQLite, row per record"), ("chunk", "SQLite, one chunk a commit")):
                theirs = peer(bench, bench.place(folder / f"{name}-{sources}-{how}"), feeds, name, each, how)
                bench.report.row("durable", what, ours, "rec/s", (told, theirs))
    finally:
        feeds.close()


def run(bench):
    rates(bench, bench.place("durable"))
