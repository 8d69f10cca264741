# SPDX-License-Identifier: Apache-2.0
"""kill -9 at random moments under load: no committed fetch is lost, none comes twice, seq has no gap."""

import os
import random
import time

import lake
from load import FreshAnswers, Load, check_committed, check_whole

KILLS = int(os.environ.get("MILLRACE_KILLS", "15"))
SOURCES = [f"s{i}" for i in range(6)]


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
    load = Load(daemon, SOURCES)
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
    assert len(load.committed) > 2 * KILLS, "there was hardly any load"
    check_committed(found, load.committed)
    check_whole(found)
    print(f"{KILLS} kills, {len(load.committed)} fetches reported, {len(found.records())} records")
