# SPDX-License-Identifier: Apache-2.0
"""`tail --follow`: each record once and in order, and no reader, however slow, costs memory or holds up anybody."""

import itertools
import json
import os
import signal
import socket
import subprocess
import threading

import pytest

import lake
import memory
from daemon import UnixConnection, wait_until
from feed import Answer

RECORDS = 5  # of each answer
READERS = 4  # that may follow at a time


class Numbers:
    """A route whose every answer has the next numbers; large ones are some 5 KB each."""

    def __init__(self, filling=0):
        self._count = itertools.count(1)
        self._filling = "x" * filling

    def __call__(self, _request):
        return Answer(json.dumps([[next(self._count), self._filling] for _ in range(RECORDS)]).encode())


@pytest.fixture
def feed(daemon, server):
    server.route("/feed", Numbers())
    daemon.configure({"feed": {"url": server.url("/feed")}})
    daemon.start()
    daemon.poll("feed")
    return daemon


class Follower:
    """`millrace tail --follow`, and the seq of what it has printed so far."""

    def __init__(self, daemon, last=1000):
        command = [daemon.binary, "-c", str(daemon.config), "tail", "feed", "--follow", "-n", str(last)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=daemon.folder)
        self.seqs = []
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        for line in self.process.stdout:
            self.seqs.append(lake.parse_line(line.rstrip(b"\n")).seq)

    def wait(self, last):
        wait_until(f"seq {last}", lambda: self.seqs and self.seqs[-1] >= last)

    def end(self):
        self.process.kill()
        self.process.wait()
        self.thread.join()


@pytest.fixture
def follow():
    made = []

    def make(daemon, last=1000):
        made.append(Follower(daemon, last))
        return made[-1]

    yield make
    for follower in made:
        follower.end()


def test_each_record_comes_once_and_in_order_whatever_becomes_of_it(feed, follow):
    """Read before it is sealed and after, delivered or not."""
    first = follow(feed)
    first.wait(feed.source("feed")["records"])
    for i in range(40):
        feed.poll("feed")
        if i % 4 == 1:
            feed.cli("flush")
        if i % 8 == 3:
            feed.flush()
    second = follow(feed)
    feed.poll("feed")
    last = feed.source("feed")["records"]
    for follower in (first, second):
        follower.wait(last)
        assert follower.seqs == list(range(1, last + 1))


def test_it_begins_with_the_last_ones_that_were_asked_for(feed, follow):
    for _ in range(3):
        feed.poll("feed")
    before = feed.source("feed")["records"]
    follower = follow(feed, last=2)
    follower.wait(before)
    feed.poll("feed")
    follower.wait(before + RECORDS)
    assert follower.seqs == list(range(before - 1, before + RECORDS + 1))


def test_what_has_left_the_buffer_is_passed_over(daemon, server, follow):
    server.route("/feed", Numbers())
    buffer = {"path": str(daemon.folder / "buffer.db"), "keep_delivered": "0s"}
    daemon.configure({"feed": {"url": server.url("/feed")}}, buffer=buffer)
    daemon.start()
    daemon.poll("feed")
    daemon.flush()
    daemon.stop()
    daemon.start()
    wait_until("the batch to leave", lambda: daemon.ask("GET", "/v1/batches")["batches"] == [])
    daemon.poll("feed")
    follower = follow(daemon)
    last = daemon.source("feed")["records"]
    follower.wait(last)
    assert follower.seqs == list(range(follower.seqs[0], last + 1)) and follower.seqs[0] > RECORDS


def test_it_ends_with_the_daemon(feed, follow):
    follower = follow(feed)
    follower.wait(RECORDS)
    assert feed.stop() == 0
    assert follower.process.wait(20) == os.EX_UNAVAILABLE
    assert feed.events("agent.hung") == []


def without_the_feed(daemon, server):
    """The same configuration with another source; taken up when this returns."""
    daemon.configure({"other": {"url": server.url("/feed")}})
    daemon.process.send_signal(signal.SIGHUP)
    wait_until("the reload", lambda: daemon.events("agent.reloaded"))


def test_it_ends_with_its_source(feed, server, follow):
    follower = follow(feed)
    follower.wait(RECORDS)
    feed.poll("feed")
    last = feed.source("feed")["records"]
    without_the_feed(feed, server)
    assert follower.process.wait(20) == 0
    follower.thread.join()
    assert follower.seqs == list(range(1, last + 1))
    assert "gone from the configuration" in follower.process.stderr.read().decode()
    again = feed.cli("tail", "--follow", "feed")  # what waits of it is shown, and that was all
    assert again.returncode == 0 and len(again.stdout.splitlines()) == min(last, 10)


def test_it_goes_on_while_its_source_changes_or_rests(feed, server, follow):
    follower = follow(feed)
    follower.wait(RECORDS)
    for settings in ({"every": "2h"}, {"enabled": False}, {"every": "3h"}):
        feed.configure({"feed": {"url": server.url("/feed")} | settings})
        before = len(feed.events("agent.reloaded"))
        feed.process.send_signal(signal.SIGHUP)
        wait_until("the reload", lambda n=before: len(feed.events("agent.reloaded")) > n)
    wait_until("a poll", lambda: feed.request("POST", "/v1/sources/feed/poll")[0] == 200)
    follower.wait(feed.source("feed")["records"])
    assert follower.process.poll() is None


def test_it_ends_with_the_last_fetch_of_its_source(feed, server, follow):
    """One that is under way when the source goes is still shown."""
    answer = Answer(b"[[7000, 0]]", delay=1)
    server.route("/feed", answer)
    follower = follow(feed)
    follower.wait(RECORDS)
    asked = len(server.requests("/feed"))
    poll = threading.Thread(target=lambda: feed.request("POST", "/v1/sources/feed/poll"), daemon=True)
    poll.start()
    wait_until("the request", lambda: len(server.requests("/feed")) > asked)
    without_the_feed(feed, server)
    assert follower.process.wait(20) == 0
    follower.thread.join()
    poll.join()
    assert len(follower.seqs) % RECORDS == 1


def test_of_a_source_that_is_none_it_says_so(feed):
    told = feed.cli("tail", "--follow", "fed")
    assert told.returncode == os.EX_USAGE and '"feed"' in told.stderr


class Connection:
    """One that follows; its answer is not read beyond the status, and that only where asked for."""

    def __init__(self, daemon):
        self._connection = UnixConnection(daemon.socket)
        self._connection.connect()
        self._socket = self._connection.sock
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._connection.request("GET", "/v1/sources/feed/records?last=1&follow=1")
        self._answer = None

    def status(self):
        self._answer = self._connection.getresponse()
        return self._answer.status

    def close(self):
        if self._answer:
            self._answer.close()
        self._connection.close()


def test_a_reader_that_does_not_read_costs_nothing_and_holds_up_nobody(daemon, server):
    server.route("/feed", Numbers(filling=5000))
    daemon.configure({"feed": {"url": server.url("/feed")}}, batch={"max_bytes": "256K"})
    daemon.start()
    for _ in range(200):  # 5 MB: what the daemon needs for that it has
        daemon.poll("feed")
    slow = [Connection(daemon) for _ in range(READERS)]
    with memory.Sampler(daemon.process.pid) as sampler:
        idle = sampler.peak
        for _ in range(400):  # 10 MB more
            assert daemon.poll("feed")["outcome"] == "committed"
        daemon.flush()
        assert daemon.status()["ok"]
    grown = sampler.peak - idle
    print(f"{READERS} readers, at most {grown >> 10} KB more in {sampler.samples} samples")
    for connection in slow:
        connection.close()
    assert grown < 2 * memory.MB or not memory.is_telling(daemon.process.pid)


def is_taken(daemon):
    connection = Connection(daemon)
    try:
        return connection.status() == 200
    finally:
        connection.close()


def test_a_reader_that_is_gone_leaves_its_place(feed):
    held = [Connection(feed) for _ in range(READERS)]
    assert [connection.status() for connection in held] == [200] * READERS
    assert not is_taken(feed)
    held.pop().close()
    wait_until("a free place", lambda: is_taken(feed))
    for connection in held:
        connection.close()


def test_readers_that_are_killed_leave_their_places(feed, follow):
    readers = [follow(feed) for _ in range(READERS)]
    for reader in readers:
        reader.wait(RECORDS)
    assert not is_taken(feed)
    for reader in readers:
        reader.end()
    wait_until("a free place", lambda: is_taken(feed))


@pytest.mark.parametrize("what", [b"", b"GET /v1/status HTTP/1.1\r\nHost: x\r\n"], ids=["silent", "half a request"])
def test_idle_connections_do_not_hold_up_status(feed, what):
    idle = []
    for _ in range(20):
        idle.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        idle[-1].connect(str(feed.socket))
        idle[-1].sendall(what)
    for _ in range(20):
        assert feed.status()["ok"]
        assert feed.poll("feed")["outcome"] == "committed"
    for connection in idle:
        connection.close()
