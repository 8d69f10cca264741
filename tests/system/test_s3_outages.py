# SPDX-License-Identifier: Apache-2.0
"""A store that dies, or refuses for a while, under load: in the end it has everything, once."""

import os
import random
import time

import proxy as faults
from daemon import wait_until
from load import FreshAnswers, Load, check_committed, check_whole
from object_store import Bucket

KILLS = int(os.environ.get("MILLRACE_STORE_KILLS", "5"))
OUTAGE = float(os.environ.get("MILLRACE_OUTAGE", "10"))  # seconds
POLLS = 150
SOURCES = [f"s{i}" for i in range(4)]


def configure(daemon, server, stores, seed=0, every="1h"):
    """Sources that are new with every answer, and batches that end early."""
    for i, source in enumerate(SOURCES):
        server.route(f"/{source}", FreshAnswers(source, seed + i))
    sources = {s: {"url": server.url(f"/{s}"), "every": every} for s in SOURCES}
    daemon.configure(sources, stores=stores, batch={"max_age": "1s", "max_bytes": "64K"})


def deliver_all(daemon):
    wait_until("the store to be ready", lambda: daemon.cli("flush", "--wait").returncode == 0, patience=90)


def check(found, load):
    assert found.problems == []
    check_committed(found, load.committed)
    check_whole(found)


def test_a_store_killed_under_load_has_all_in_the_end(daemon, server, own_store):
    bucket = Bucket(own_store, "lake")
    seed = int(os.environ.get("MILLRACE_SEED", str(random.randrange(1 << 30))))
    chance = random.Random(seed)
    configure(daemon, server, {"lake": bucket.settings(parallel=4)}, seed)
    daemon.start()
    load = Load(daemon, SOURCES, pause=0.02)
    try:
        for _ in range(KILLS):
            before = daemon.store()["delivered_batches"]
            wait_until("something to be delivered", lambda n=before: daemon.store()["delivered_batches"] > n, 90)
            time.sleep(chance.uniform(0, 1))  # the random moment
            own_store.kill()
            time.sleep(chance.uniform(0, 1))
            own_store.start()
    finally:
        load.end()
    deliver_all(daemon)
    assert daemon.stop() == 0
    found = bucket.read()
    print(f"MILLRACE_SEED={seed}: {KILLS} kills, {len(found.objects)} objects, {len(found.records())} records")
    check(found, load)
    assert len(found.objects) > KILLS


def test_a_store_that_is_overloaded_for_a_while_has_all_in_the_end(daemon, server, bucket, proxy):
    configure(daemon, server, {"lake": bucket.settings(proxy)})
    daemon.start()
    daemon.poll(SOURCES[0])
    deliver_all(daemon)
    proxy.arm(faults.unavailable())
    load = Load(daemon, SOURCES, pause=len(SOURCES) * OUTAGE / POLLS)
    try:
        wait_until("the polls", lambda: len(load.committed) >= POLLS, patience=OUTAGE + 60)
        refused = proxy.requests()
    finally:
        load.end()
    assert daemon.store()["state"] == "away"
    proxy.lift()
    deliver_all(daemon)
    print(f"{len(load.committed)} polls, {sum(r.status == 503 for r in refused)} requests answered with 503")
    assert sum(r.status == 503 for r in refused) >= 2
    check(bucket.read(), load)


def test_a_daemon_killed_while_it_delivers_delivers_once(daemon, server, bucket, proxy):
    """Whatever the store had of it by then."""
    configure(daemon, server, {"lake": bucket.settings(proxy, parallel=4)})
    daemon.start()
    for fault in (faults.stall(), faults.lose_answer(), faults.reset_request(1000)):
        for source in SOURCES:
            daemon.poll(source)
        proxy.arm(fault, when=lambda r: b".ndjson.gz" in r.start)
        daemon.cli("flush")
        wait_until("an upload", lambda f=fault: any(r.fault == f.name for r in proxy.requests("PUT")))
        daemon.kill()
        proxy.lift()
        proxy.cut()
        daemon.start()
    deliver_all(daemon)
    found = bucket.read()
    assert found.problems == []
    check_whole(found)
    assert {r.source for r in found.records()} == set(SOURCES)
    assert len({(r.source, r.fetch) for r in found.records()}) >= 3 * len(SOURCES)


def test_a_store_that_is_away_holds_back_no_other(daemon, server, bucket, make_proxy, shared_store):
    away = make_proxy(shared_store.target)
    away.arm(faults.stall())
    daemon.lake.mkdir()
    stores = {
        "slow": bucket.settings(away, prefix="slow"),
        "lake": bucket.settings(prefix="lake"),
        "disk": {"kind": "file", "path": str(daemon.lake)},
    }
    configure(daemon, server, stores)
    daemon.start()
    for _ in range(3):
        for source in SOURCES:
            daemon.poll(source)
        daemon.cli("flush")
    wait_until("the others to have all", lambda: all(has_all(daemon, s) for s in ("lake", "disk")))
    waiting = daemon.store("slow")["waiting_batches"]
    assert waiting >= len(SOURCES)
    assert daemon.store("slow")["delivered_batches"] == 0
    away.lift()
    deliver_all(daemon)
    assert bucket.read("slow").problems == []
    assert bucket.objects("slow") == bucket.objects("lake")


def has_all(daemon, store):
    return daemon.store(store)["waiting_batches"] == 0 and daemon.status()["buffer"]["waiting_records"] > 0
