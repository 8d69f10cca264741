# SPDX-License-Identifier: Apache-2.0
"""kill -9 at random moments under load: no committed fetch is lost, none comes twice, seq has no gap.

MILLRACE_KILLS: how many, in rounds of a hundred, each with a daemon of its own; MILLRACE_SEED repeats the moments.
"""

import os
import random
import time

import lake
from figures import note
from load import FreshAnswers, Load, check_committed, check_whole

KILLS = int(os.environ.get("MILLRACE_KILLS", "15"))
ROUND = 100
SOURCES = [f"s{i}" for i in range(6)]
BATCH = {"max_age": "1s", "max_bytes": "64K"}


def kill_again_and_again(daemon, sources, kills, chance):
    """What was reported as committed meanwhile."""
    daemon.configure(sources, batch=BATCH)
    daemon.start()
    load = Load(daemon, SOURCES)
    try:
        for _ in range(kills):
            time.sleep(chance.uniform(0.02, 1.2))  # the random moment
            daemon.kill()
            daemon.start()
    finally:
        load.end()
    daemon.kill()
    return load.committed


def deliver(daemon, sources):
    """All that is in the buffer, without a poll."""
    daemon.configure({s: settings | {"enabled": False} for s, settings in sources.items()}, batch=BATCH)
    daemon.start()
    daemon.flush()
    assert daemon.stop() == 0


def test_no_committed_fetch_is_lost_and_none_comes_twice(make_daemon, server):
    seed = int(os.environ.get("MILLRACE_SEED", str(random.randrange(1 << 30))))
    print(f"MILLRACE_SEED={seed} MILLRACE_KILLS={KILLS}")
    chance = random.Random(seed)
    fetches = records = 0
    for first in range(0, KILLS, ROUND):
        kills = min(ROUND, KILLS - first)
        daemon = make_daemon(f"from-{first}")
        for i, source in enumerate(SOURCES):
            server.route(f"/{source}", FreshAnswers(source, seed + first + i))
        sources = {s: {"url": server.url(f"/{s}"), "every": "1s"} for s in SOURCES}
        committed = kill_again_and_again(daemon, sources, kills, chance)
        deliver(daemon, sources)
        assert sorted(p.name for p in daemon.folder.glob("buffer.db.*")) == [], "a kill is no damage"
        found = lake.read(daemon.lake)
        assert found.problems == []
        assert len(committed) > 2 * kills, "there was hardly any load"
        check_committed(found, committed)
        check_whole(found)
        fetches += len(committed)
        records += len(found.records())
        print(f"{first + kills} kills, {fetches} fetches reported, {records} records", flush=True)
    note(
        "kill -9 under load, on ext4",
        "test_kill.py",
        kills=KILLS,
        fetches_reported=fetches,
        records=records,
        lost=0,
        twice=0,
        failed_starts=0,
        set_aside=0,
    )
