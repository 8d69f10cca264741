# SPDX-License-Identifier: Apache-2.0
"""What a backlog has left of the buffer's file goes back to the card within an hour, for a tenth of it in flash.

In quick motion; flash is what a loop device with the buffer alone on it has taken.
"""

import itertools
from datetime import UTC, datetime

import pytest

import lake
from bench import bodies
from bench.flash import Card, NoRight
from clock import Clock
from daemon import Daemon, wait_until
from feed import Answer, Server
from figures import note

MB = 1 << 20
BEGIN = datetime(2031, 3, 1, 8, 0, 30, tzinfo=UTC)
ANSWER = 240_000  # bytes of noise, three quarters of it on the card
VERSIONS = 40
PATIENCE = 60


@pytest.fixture
def card(folder):
    try:
        card = Card(folder / "flash")
    except NoRight as error:
        pytest.skip(f"NO LOOP DEVICE: {error}")
    yield card
    card.close()


@pytest.fixture
def trial(folder, millrace_sim, card):
    """A daemon whose store is away, and a feed of noise."""
    clock = Clock(folder / "clock", BEGIN)
    server = Server()
    answers = [bodies.body(bodies.records(bodies.noise, i, ANSWER), False) for i in range(VERSIONS)]
    count = itertools.count()
    server.route("/noise.json", lambda _request: Answer(answers[next(count) % VERSIONS]))
    daemon = Daemon(millrace_sim, folder, {"MILLRACE_CLOCK": str(clock.path)})
    daemon.configure(
        {"noise": {"url": server.url("/noise.json"), "every": "7d"}},
        socket=str(daemon.socket),
        buffer={"path": str(card.root / "buffer.db"), "keep_delivered": "0s"},
    )
    daemon.start()
    clock.run(minutes=1)
    daemon.flush()
    clock.run(hours=2)
    yield daemon, clock, server
    daemon.end()
    server.close()


def size(daemon):
    return daemon.status()["buffer"]["file_bytes"]


def outage(daemon, backlog):
    """Of the store, until the buffer is that large."""
    away = daemon.lake.rename(daemon.lake.with_name("away"))
    while size(daemon) < backlog:
        assert daemon.poll("noise")["outcome"] == "committed"
    daemon.request("POST", "/v1/flush")
    away.rename(daemon.lake)


def deliver(daemon, clock):
    daemon.flush(PATIENCE)
    clock.run(minutes=2)
    wait_until("delivery", lambda: daemon.status()["buffer"]["waiting_records"] == 0, PATIENCE)


@pytest.mark.parametrize("megabytes", [32, 60])
def test_a_backlog_gives_back_what_it_took(trial, card, megabytes):
    daemon, clock, server = trial
    outage(daemon, megabytes * MB)
    deliver(daemon, clock)
    before = size(daemon)
    assert before >= megabytes * MB
    begun = card.written()
    clock.run(hours=1)
    after, written = size(daemon), card.written() - begun
    begun = card.written()
    clock.run(hours=1)
    quiet = card.written() - begun
    found = lake.read(daemon.lake)
    assert found.problems == []
    count = lake.compare(found, {"noise": server.served("/noise.json")})
    assert (count.lost, count.twice) == (0, 0)
    given = before - after
    note(
        f"a backlog of {megabytes} MB delivered, then an hour",
        "test_give_back.py",
        file_before=before,
        file_after=after,
        flash_bytes_of_that_hour=written,
        of_the_next_hour=quiet,
        flash_bytes_per_byte_given_back=round(written / given, 3) if given else "none",
        records=count.stored,
        lost=0,
        twice=0,
    )
    assert after < 2 * MB
    assert written <= given / 10
    daemon.poll("noise")
    daemon.flush(PATIENCE)
