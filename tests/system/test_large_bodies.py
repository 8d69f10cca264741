# SPDX-License-Identifier: Apache-2.0
"""A body of 50 MB costs hardly any memory, holds up nobody, and is there as a whole or not at all."""

import itertools
import threading
from datetime import UTC, datetime

import pytest

import lake
import memory
from daemon import wait_until
from feed import Answer, RawServer, make_certificate
from large import RECORD, Held, Large, array, gzipped, lines, number

N = 100_000  # records; 50 MB
BOUND = 2 * memory.MB
PATIENCE = 120
SLOW = {"timeout": "5m", "max_body": "64M"}
MANY = 40_000  # 20 MB: enough to be staged again and again
SOME = 10_000


@pytest.fixture
def raw():
    server = RawServer()
    yield server
    server.close()


@pytest.fixture
def poll():
    """Begins a poll that takes its time, and returns a function that gives its report."""

    def begin(daemon, source):
        report = []

        def run():
            try:
                report.append(daemon.poll(source, PATIENCE))
            except Exception as error:  # the daemon was killed
                report.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()

        def end():
            thread.join(PATIENCE)
            return report[0]

        return end

    return begin


def held_in_buffer(daemon):
    """Bytes of the buffer's files; status tells them as of the last commit."""
    return sum(file.stat().st_size for file in daemon.folder.glob("buffer.db*"))


def wait_staged(daemon, held, before):
    """Until the larger part of what came lies on the card."""
    assert held.waiting.wait(PATIENCE)
    wait_until("pieces on the card", lambda: held_in_buffer(daemon) > before + MANY * RECORD // 40)


@pytest.mark.parametrize("how", ["plain", "gzip", "https", "ndjson"])
def test_it_costs_under_2_mb_and_comes_whole(make_daemon, tmp_path, how):
    certificate = make_certificate(tmp_path)
    server = RawServer(certificate if how == "https" else None)
    daemon = make_daemon(env={"SSL_CERT_FILE": str(certificate[0])})
    body = {"gzip": lambda: gzipped(array(N)), "ndjson": lambda: lines(N)}.get(how, lambda: array(N))
    large = Large(body, *([b"Content-Encoding: gzip"] if how == "gzip" else []))
    server.route("/large", large)
    server.route("/small", Large(lambda: array(3) if how != "ndjson" else lines(3)))
    shape = {"format": "ndjson", "records": None} if how == "ndjson" else {}
    sources = {name: {"url": server.url(f"/{name}")} | SLOW | shape for name in ("small", "large")}
    sources["large"]["enabled"] = False
    daemon.configure(sources)
    daemon.start()
    daemon.poll("small")
    daemon.flush()
    daemon.stop()
    sources["large"]["enabled"] = True
    daemon.configure(sources)
    daemon.start()
    try:
        daemon.poll("small")
        with memory.Sampler(daemon.process.pid) as sampler:
            idle = sampler.peak
            report = daemon.poll("large", PATIENCE)
            done = datetime.now(UTC)
            daemon.flush(PATIENCE)
    finally:
        server.close()
    assert (report["outcome"], report["records"], report["first_seq"]) == ("committed", N, 1), report["text"]
    grown = sampler.peak - idle
    print(f"{how}: idle {idle >> 10} KB private dirty, at most {grown >> 10} KB more in {sampler.samples} samples")
    check_whole(daemon, large.ended, done)
    assert grown < BOUND or not memory.is_telling(daemon.process.pid)


def check_whole(daemon, ended, done):
    found = lake.read(daemon.lake)
    assert found.problems == []
    records = found.records("large")
    assert [number(r.data) for r in records] == list(range(N))
    assert {r.fetch for r in records} == {1}
    (at,) = {r.fetched_at for r in records}
    assert round(ended - 0.001, 3) <= datetime.fromisoformat(at).timestamp() <= done.timestamp()
    assert daemon.cli("audit").returncode == 0


def test_a_slow_one_holds_up_nobody(daemon, raw, server, poll):
    """The other source's polls are all over before the server has given the large one's end."""
    held = Held(MANY, MANY - SOME)
    raw.route("/large", held)
    count = itertools.count(1)
    server.route("/small", lambda _request: Answer(b"[%d]" % next(count)))
    daemon.configure({"large": {"url": raw.url("/large")} | SLOW, "small": {"url": server.url("/small")}})
    daemon.start()
    before = held_in_buffer(daemon)
    end = poll(daemon, "large")
    wait_staged(daemon, held, before)
    for _ in range(50):
        assert daemon.poll("small")["outcome"] == "committed"
        assert daemon.source("large")["records"] == 0
    assert daemon.records("large") == []
    daemon.flush()
    assert daemon.records("small", 50) != []
    held.go.set()
    assert (end()["outcome"], end()["records"]) == ("committed", MANY)
    daemon.flush(PATIENCE)
    found = lake.read(daemon.lake)
    assert found.problems == []
    assert [number(data) for data in found.data("large")] == list(range(MANY))


@pytest.fixture
def settled(daemon, raw):
    """Three records of an earlier fetch are in the store; the next answer is what the test routes."""
    raw.route("/large", Large(lambda: array(3)))
    daemon.configure({"large": {"url": raw.url("/large")} | SLOW})
    daemon.start()
    daemon.poll("large")
    daemon.flush()
    return daemon


def check_nothing_remains(daemon, raw, fetches=1):
    """And what comes next goes on where the last whole fetch ended."""
    assert (daemon.source("large")["records"], daemon.source("large")["fetches"]) == (3, fetches)
    assert len(daemon.records("large")) == 3
    raw.route("/large", Large(lambda: array(5)))
    wait_until("a new answer", lambda: daemon.poll("large")["outcome"] != "failed")
    daemon.wait_records("large", 8)
    daemon.flush()
    found = lake.read(daemon.lake)
    assert found.problems == []
    assert [(r.seq, r.fetch) for r in found.records()] == [(i + 1, 1 if i < 3 else fetches + 1) for i in range(8)]
    assert daemon.cli("audit").returncode == 0


def test_killed_in_the_middle_nothing_of_it_remains(settled, raw, poll):
    for before in (MANY - SOME, MANY // 3, MANY // 2):
        held = Held(MANY, before)
        raw.route("/large", held)
        lies = held_in_buffer(settled)
        end = poll(settled, "large")
        if before == MANY - SOME:
            wait_staged(settled, held, lies)
        else:
            assert held.waiting.wait(PATIENCE)
        settled.kill()
        assert isinstance(end(), Exception)
        raw.route("/large", Large(lambda: array(3)))
        settled.start()
        assert settled.cli("audit").returncode == 0
    check_nothing_remains(settled, raw)


def test_ended_in_the_middle_nothing_of_it_remains(settled, raw, poll):
    held = Held(MANY, MANY - SOME)
    raw.route("/large", held)
    lies = held_in_buffer(settled)
    poll(settled, "large")
    wait_staged(settled, held, lies)
    assert settled.stop() == 0
    assert settled.events("agent.hung") == [], "it did not end within its second"
    raw.route("/large", Large(lambda: array(3)))
    settled.start()
    check_nothing_remains(settled, raw)


# name: (what the source is set to, the answer, how it ends, what is told)
BOUNDS = {
    "max_body": ({"max_body": "16M"}, lambda: array(MANY), "refused", "16777216"),
    "max_body, inflated": ({"max_body": "16M"}, lambda: gzipped(array(MANY)), "refused", "16777216"),
    "max_record": (
        {"max_record": "4K"},
        lambda: itertools.chain(itertools.islice(array(MANY), MANY // 257), [b'"' + b"x" * 5000 + b'"]']),
        "refused",
        "4096",
    ),
    "broken": ({}, lambda: itertools.islice(array(MANY), MANY // 257), "refused", "offset"),
    "not JSON": ({}, lambda: itertools.chain(array(MANY), [b"]"]), "refused", "offset"),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_what_is_refused_late_leaves_nothing(settled, raw, name):
    settings, body, outcome, told = BOUNDS[name]
    settled.stop()
    settled.configure({"large": {"url": raw.url("/large")} | SLOW | settings})
    headers = [b"Content-Encoding: gzip"] if "inflated" in name else []
    raw.route("/large", Large(body, *headers))
    settled.start()
    sizes = []
    for _ in range(3):
        report = settled.poll("large", PATIENCE)
        assert report["outcome"] == outcome and told in report["text"]
        sizes.append(held_in_buffer(settled))
    assert sizes[2] - sizes[1] < memory.MB, "what was given up does not come back as room"
    check_nothing_remains(settled, raw)


def test_a_timeout_in_the_middle_leaves_nothing(settled, raw):
    settled.stop()
    settled.configure({"large": {"url": raw.url("/large")} | SLOW | {"timeout": "3s"}})
    raw.route("/large", Held(MANY, MANY - SOME))
    settled.start()
    report = settled.poll("large", PATIENCE)
    assert report["outcome"] == "failed" and "did not end within 3s" in report["text"]
    check_nothing_remains(settled, raw)
