# SPDX-License-Identifier: Apache-2.0
"""How long after an answer's last byte its poll is told to be committed, alone and while batches of 8 MB are sealed."""

import os
import threading
import time
from bisect import bisect_right

from bench import bodies
from bench.memory import parking_body
from bench.report import NotMeasured
from bench.rig import Rig, spaced
from bench.web import Feeds

LOAD_SECONDS = 20


def percentiles(times):
    """p50, p99 and max, in milliseconds."""
    times = sorted(times)
    return [t * 1000 for t in (times[len(times) // 2], times[len(times) * 99 // 100], times[-1])]


def bare(folder, times):
    """How long an append and its fdatasync take."""
    taken = []
    fd = os.open(folder / "bare", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def once():
        begun = time.monotonic()
        os.write(fd, b"x" * 1000)
        os.fdatasync(fd)
        taken.append(time.monotonic() - begun)

    spaced(0.025, times, once)
    os.close(fd)
    return taken


def measure(bench, folder):
    """A small source polled 40 times a second while another brings 2 MB a second, which are sealed as they come."""
    feeds = Feeds(folder / "web")
    rig = Rig(bench, folder)
    ended = threading.Event()

    def load():
        spaced(0.1, LOAD_SECONDS * 10, lambda: rig.commit("load"))
        ended.set()

    try:
        feeds.put("small", [parking_body(bench, i) for i in range(200)])
        feeds.put("load", [bodies.body(bodies.records(bodies.city, i, 200_000), bench.ndjson) for i in range(40)])
        rig.configure({name: bench.source(feeds.url(name)) for name in ("small", "load")})
        rig.start()
        for name in ("small", "load"):
            rig.first_poll(name)
        alone = committed(rig, 200)
        thread = threading.Thread(target=load)
        thread.start()
        under_load = committed(rig, LOAD_SECONDS * 40, ended)
        thread.join()
        rig.wait_delivered()
        batches = rig.store()["delivered_batches"]
        if not ended.is_set() or batches < 3:
            raise NotMeasured(f"only {batches} batches were sealed")
        sent = feeds.times("small")
    finally:
        rig.end()
        feeds.close()
    floor = percentiles(bare(folder, 400))
    for what, times in (("alone", alone), ("while 8 MB are sealed", under_load)):
        taken = percentiles([t - sent[bisect_right(sent, t) - 1] for t in times])
        for name, ours, theirs in zip(("p50", "p99", "max"), taken, floor, strict=True):
            row = f"answer to committed, {what}, {name}"
            bench.report.row(
                "latency", row, ours, "ms", (f"append + fdatasync, {name}", theirs), polls=len(times), batches=batches
            )


def committed(rig, times, ended=None):
    """When polls of the small source were told to be committed."""
    when = []

    def once():
        if not (ended and ended.is_set()):
            rig.commit("small")
            when.append(time.monotonic())

    spaced(0.025, times, once)
    return when


def run(bench):
    measure(bench, bench.place("latency"))
