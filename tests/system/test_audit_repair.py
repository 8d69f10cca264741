# SPDX-License-Identifier: Apache-2.0
"""What a store has lost is sent again, as far as the buffer still has it."""

import json

import pytest

import lake
from daemon import wait_until
from feed import Answer


@pytest.fixture
def filled(daemon, server):
    """A daemon that has delivered four batches of three records, 1 to 12, and keeps them."""
    daemon.configure({"feed": {"url": server.url("/feed")}}, clock="trust")
    server.route("/feed", Answer(b"[0, 1, 2]"))
    daemon.start()
    for i in range(4):
        server.route("/feed", Answer(json.dumps([3 * i, 3 * i + 1, 3 * i + 2]).encode()))
        daemon.poll_new("feed", server, "/feed")
        daemon.flush()
    return daemon


def objects(daemon):
    return {k: v for k, v in lake.in_folder(daemon.lake).items() if k not in lake.MARKS}


def delete(daemon, first):
    (path,) = daemon.lake.rglob(f"*-{first}-{first + 2}-*.gz")
    path.unlink()


@pytest.mark.parametrize("running", [True, False], ids=["with its daemon", "without"])
def test_what_is_still_here_is_sent_again(filled, running):
    before = objects(filled)
    assert len(before) == 4
    delete(filled, 4)
    delete(filled, 7)
    if not running:
        filled.stop()
    told = filled.cli("audit")
    assert told.returncode == 1, "without --repair nothing is sent"
    assert "`millrace audit --repair` sends again what is still here" in told.stdout
    told = filled.cli("audit", "--repair")
    assert told.returncode == 0, told.stderr
    assert "! feed  seq 4 to 9  missing, sent again\n" in told.stdout
    assert told.stdout.endswith("sent again: 6 records\n")
    if not running:
        assert objects(filled) != before
        filled.start()
    wait_until("them to be back", lambda: objects(filled) == before)
    filled.flush()
    told = filled.cli("audit")
    assert told.returncode == 0
    assert "feed  seq 1 to 12  delivered" in told.stdout


def test_what_is_gone_is_told(filled, server):
    filled.stop()
    filled.configure(
        {"feed": {"url": server.url("/feed")}},
        clock="trust",
        buffer={"path": str(filled.folder / "buffer.db"), "keep_delivered": "0s"},
    )
    filled.start()
    wait_until("the batches to go", lambda: filled.ask("GET", "/v1/batches")["batches"] == [])
    delete(filled, 4)
    told = filled.cli("audit", "--repair")
    assert told.returncode == 1
    assert "! feed  seq 4 to 6  missing, gone: the buffer has it no more\n" in told.stdout
    assert told.stdout.endswith("sent again: 0 records, gone for good: 3\n")


def test_an_object_that_was_changed_is_left(filled):
    (path,) = filled.lake.rglob("*-1-3-*.gz")
    good = path.read_bytes()
    path.write_bytes(b"x" * len(good))
    delete(filled, 10)
    told = filled.cli("audit", "--repair")
    assert told.returncode == 1
    assert "move it away and repair once more" in told.stdout
    wait_until("the other to be back", lambda: len(objects(filled)) == 4)
    assert path.read_bytes() == b"x" * len(good)
    path.unlink()
    assert filled.cli("audit", "--repair").returncode == 0
    wait_until("it to be back", lambda: path.exists() and path.read_bytes() == good)
    assert filled.cli("audit").returncode == 0


def test_only_the_store_that_lost_it_gets_it(daemon, server, bucket):
    server.route("/feed", Answer(b"[1,2,3]"))
    daemon.lake.mkdir()
    stores = {"lake": bucket.settings(), "disk": {"kind": "file", "path": str(daemon.lake)}}
    daemon.configure({"feed": {"url": server.url("/feed")}}, clock="trust", stores=stores)
    daemon.start()
    daemon.poll("feed")
    daemon.flush()
    (key,) = bucket.objects()
    bucket.delete(key)
    told = json.loads(daemon.cli("audit", "--repair", "--json").stdout)
    assert {s["store"]: s["again"] for s in told["stores"]} == {"lake": 3, "disk": 0}
    wait_until("it to be back", lambda: set(bucket.objects()) == {key})
    daemon.flush()
    assert daemon.cli("audit").returncode == 0
