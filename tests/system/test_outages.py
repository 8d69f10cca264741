# SPDX-License-Identifier: Apache-2.0
"""Outages of a feed and of a store, of every kind: what was served whole is in the store once they are over, once.

Minutes in seconds, by the driven clock; what the network takes its time for, a stall and a trickle, is real time. A
fault befalls all that is asked while it lasts, and nobody asks for anything when it is over: it goes on by itself.
"""

import contextlib
import gzip
import itertools
import os
import random
import re
import subprocess
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest

import lake
import proxy as faults
from clock import Clock
from daemon import Daemon
from feed import JSON, Answer
from figures import note

OUTAGES = int(os.environ.get("MILLRACE_OUTAGES", "20"))
PATH = "/feed.json"
LASTS = timedelta(minutes=4, seconds=20)
RETRY_AFTER = timedelta(seconds=100)
NAME = "lake.invalid"  # which no resolver knows (RFC 6761)
WRAPPER = """#!/bin/sh
exec unshare {flags} sh -ec '
    mount --bind {folder}/hosts /etc/hosts
    mount --bind {folder}/resolv.conf /etc/resolv.conf
    exec {program} "$@"' sh "$@"
"""


class Counting:
    """A route: every answer is a new version, of three records. `faulty`: none of them arrives whole."""

    def __init__(self):
        self.versions = 0
        self.whole = []
        self.faulty = False

    def __call__(self, _request):
        self.versions += 1
        records = [b'{"version":%d,"i":%d}' % (self.versions, i) for i in range(3)]
        if not self.faulty:
            self.whole += records
        return Answer(gzip.compress(b"[" + b",".join(records) + b"]"), headers=JSON | {"Content-Encoding": "gzip"})


class Names:
    """A daemon's own /etc/hosts, and a resolver that nobody is."""

    def __init__(self, folder):
        folder.mkdir()
        self._folder = folder
        (folder / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        self.gone(False)

    def gone(self, gone):
        (self._folder / "hosts").write_text("" if gone else f"127.0.0.1 {NAME}\n")

    def wrap(self, program):
        wrapper = self._folder / "millrace"
        flags = "-m" if os.geteuid() == 0 else "-rm"
        wrapper.write_text(WRAPPER.format(flags=flags, folder=self._folder, program=program))
        wrapper.chmod(0o755)
        return wrapper


@dataclass
class Rig:
    """One daemon with one source and one store, and the proxy before one of the two."""

    daemon: Daemon
    clock: Clock
    feed: Counting
    proxy: faults.Proxy
    names: Names
    certificates: dict
    asked: list = field(default_factory=list)  # when, while a fault was armed

    def source(self):
        return self.daemon.source("feed")

    def store(self):
        return self.daemon.store()

    def failed(self):
        return self.source()["failed"] + self.source()["refused"]


# What happens to everything that is asked, while it lasts


def armed(fault, when=lambda _request: True):
    @contextlib.contextmanager
    def lasts(rig):
        rig.proxy.arm(fault, when=lambda request: when(request) and (rig.asked.append(rig.clock.mono()) or True))
        yield
        rig.proxy.lift()

    return lasts


@contextlib.contextmanager
def refused(rig):
    rig.proxy.refuse()
    yield
    rig.proxy.accept()


@contextlib.contextmanager
def expired(rig):
    rig.proxy.certificate = rig.certificates["expired"]
    rig.proxy.cut()
    yield
    rig.proxy.certificate = rig.certificates["good"]


@contextlib.contextmanager
def nameless(rig):
    """From a start on: curl remembers a name for a minute of its own."""
    rig.daemon.stop()
    rig.names.gone(True)
    rig.daemon.start()
    yield
    rig.names.gone(False)


def every_first():
    """Of each object the first answer: the store had it all the same."""
    seen = set()
    return lambda r: b".ndjson.gz" in r.start and r.start not in seen and (seen.add(r.start) or True)


@dataclass
class Outage:
    lasts: object
    said: str  # by status, of its cause; a pattern
    state: tuple
    settings: dict = None
    well_after: timedelta = timedelta(minutes=7)


STALLED = {"timeout": "1s"}
FAILING = ("failing", "stale")
AWAY = ("away",)
BUSY = armed(faults.answer(429, headers={"Retry-After": str(RETRY_AFTER.seconds)}))
IN_CRC = -6  # of gzip's last eight bytes, before the length
PARKED = timedelta(minutes=70)  # an object that is refused eight times while the store answers rests for an hour

FEED = {
    "connection refused": Outage(refused, "connection refused", FAILING),
    "reset in the middle": Outage(armed(faults.reset_answer(-20)), "the answer ended after", FAILING),
    "500": Outage(armed(faults.answer(500)), "HTTP 500", FAILING),
    "503": Outage(armed(faults.unavailable()), "HTTP 503", FAILING),
    "429 with Retry-After": Outage(BUSY, "too many requests", FAILING),
    "stall": Outage(armed(faults.stall(200)), "did not end within 1s", FAILING, STALLED),
    "trickle": Outage(armed(faults.trickle(10, 0.1)), "within 1s", FAILING, STALLED),
    "lost answers": Outage(armed(faults.lose_answer()), "reset by peer", FAILING),
    "wrong checksum": Outage(armed(faults.flip_answer(IN_CRC)), "incorrect data check", FAILING),
    "expired certificate": Outage(expired, "certificate has expired", FAILING),
    "DNS gone": Outage(nameless, f"resolve host: {NAME}", FAILING),
}
STORE = {
    "connection refused": Outage(refused, "connection refused", AWAY),
    "reset in the middle": Outage(armed(faults.reset_request(5)), "reset by peer|Broken pipe", AWAY),
    "500": Outage(armed(faults.answer(500)), "500 from the store", AWAY),
    "503": Outage(armed(faults.unavailable()), "503 SlowDown", AWAY),
    "429 with Retry-After": Outage(BUSY, "429 from the store", AWAY),
    "stall": Outage(armed(faults.stall()), "no answer within 1s", AWAY, STALLED),
    "trickle": Outage(armed(faults.trickle(100, 0.05)), "", ("ready",), STALLED),
    "lost answers": Outage(armed(faults.lose_answer(), every_first()), "", ("away", "ready")),
    "wrong checksum": Outage(armed(faults.flip()), "damaged on the way", ("away", "ready"), well_after=PARKED),
    "expired certificate": Outage(expired, "certificate has expired", ("denied",)),
    "DNS gone": Outage(nameless, f"resolve host: {NAME}", AWAY),
}


@pytest.fixture(scope="module")
def rows():
    """Fault -> its figures; they are noted when all have been through."""
    rows = defaultdict(dict)
    yield rows
    for fault, figures in rows.items():
        note(fault, "test_outages.py", **figures)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A CA of our own, and what it has signed for 127.0.0.1: a certificate that is good, and one that is no more."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*args):
        subprocess.run(["openssl", *args], check=True, capture_output=True, cwd=folder)

    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *new_key, "-days", "2", "-subj", "/CN=Test CA", "-keyout", "ca.key", "-out", "ca.crt")
    openssl("req", *new_key, "-subj", "/CN=test", "-keyout", "key", "-out", "request")
    sign = ("x509", "-req", "-in", "request", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial")
    for name, days in (("good", "2"), ("expired", "-1")):
        openssl(*sign, "-extfile", "names", "-days", days, "-out", name)
    made = {name: (folder / name, folder / "key") for name in ("good", "expired")}
    return made | {"ca": str(folder / "ca.crt")}


@pytest.fixture
def start(make_daemon, make_proxy, millrace_sim, server, certificates, tmp_path):
    """Starts the daemon of a rig; behind: where the proxy leads."""

    def start(outage, behind):
        feed, names, program = Counting(), None, millrace_sim
        server.route(PATH, feed)
        proxy = make_proxy(behind)
        if outage.lasts is expired:
            proxy.certificate = certificates["good"]
        if outage.lasts is nameless:
            names = Names(tmp_path / "names")
            program = in_namespace(names, millrace_sim)
        clock = Clock(tmp_path / "clock", datetime.now(UTC))
        env = {"MILLRACE_CLOCK": str(clock.path), "SSL_CERT_FILE": certificates["ca"]}
        daemon = make_daemon(program=program, env=env)
        return Rig(daemon, clock, feed, proxy, names, certificates)

    return start


def in_namespace(names, program):
    probe = subprocess.run([names.wrap("/bin/true")], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        pytest.skip(f"needs a mount namespace of its own: {probe.stderr.strip()}")
    return names.wrap(program)


def run(rig, source, stores=None):
    """The daemon is well, and has polled and delivered for some minutes."""
    top = {"stores": stores} if stores else {}
    rig.daemon.configure({"feed": {"every": "1m"} | source}, batch={"max_age": "1m"}, **top)
    rig.daemon.start()
    rig.clock.run(minutes=3, seconds=10)  # between two polls
    assert (rig.source()["state"], rig.store()["state"]) == ("fresh", "ready")


def address(server):
    url = urlsplit(server.url(""))
    return url.hostname, url.port


def url_of(rig, outage):
    return rig.proxy.url_at(NAME) if outage.lasts is nameless else rig.proxy.url


def check(rig, found):
    assert found.problems == []
    assert found.data("feed") == rig.feed.whole, "lost, or twice"
    audit = rig.daemon.cli("audit")
    assert audit.returncode == 0, audit.stdout


def check_retry_after(rig, outage):
    if outage.lasts is BUSY:
        gaps = [b - a for a, b in itertools.pairwise(rig.asked)]
        assert min(gaps) >= RETRY_AFTER, gaps


def figures(side, what, n, rig, found):
    counts = {what: n, "records in": len(rig.feed.whole), "records out": len(found.data("feed"))}
    return {f"{side}: {name}": count for name, count in counts.items()}


@pytest.mark.parametrize("name", FEED)
def test_a_feed_that_is_out_for_a_while(start, server, rows, name):
    outage = FEED[name]
    rig = start(outage, address(server))
    run(rig, {"url": url_of(rig, outage) + PATH} | (outage.settings or {}))
    rig.feed.faulty = True
    with outage.lasts(rig):
        before = 0 if outage.lasts is nameless else rig.failed()
        rig.clock.run(seconds=LASTS.seconds)
        polls = rig.failed() - before
        source = rig.source()
        assert source["state"] in outage.state
        assert re.search(outage.said, source["last_error"])
        assert polls >= 2
    rig.feed.faulty = False
    check_retry_after(rig, outage)
    rig.clock.run(seconds=outage.well_after.seconds)
    assert (rig.source()["state"], rig.source()["last_error"]) == ("fresh", "")
    rig.daemon.flush()
    found = lake.read(rig.daemon.lake)
    check(rig, found)
    assert rig.source()["records"] == len(rig.feed.whole)
    rows[name] |= figures("feed", "polls failed", polls, rig, found)


@pytest.mark.parametrize("name", STORE)
def test_a_store_that_is_out_for_a_while(start, server, bucket, rows, name):
    outage = STORE[name]
    rig = start(outage, bucket.store.target)
    settings = bucket.settings(rig.proxy, endpoint=url_of(rig, outage)) | (outage.settings or {})
    run(rig, {"url": server.url(PATH)}, {"lake": settings})
    with outage.lasts(rig):
        polls = rig.feed.versions
        rig.clock.run(seconds=LASTS.seconds)
        assert rig.feed.versions - polls >= LASTS.seconds // 60, "polling goes on"
        store = rig.store()
        assert store["state"] in outage.state
        assert re.search(outage.said, store["last_error"])
        assert outage.said or len(rig.asked) >= 2
    check_retry_after(rig, outage)
    rig.clock.run(seconds=outage.well_after.seconds)
    assert (rig.store()["state"], rig.store()["last_error"]) == ("ready", "")
    assert rig.store()["waiting_batches"] == 0, "by itself"
    rig.daemon.flush()
    found = bucket.read()
    check(rig, found)
    rows[name] |= figures("store", "batches waiting at its end", store["waiting_batches"], rig, found)


REAL_TIME = ("stall", "trickle", "DNS gone")


def strike(stack, chance, rig, outages):
    """One of them, or none. Its name."""
    name = chance.choice([None, *(n for n in outages if n not in REAL_TIME)])
    if name:
        stack.enter_context(outages[name].lasts(rig))
    return name


def test_outages_of_both_one_after_the_other(start, server, bucket, make_proxy):
    """MILLRACE_OUTAGES of them, up to a quarter of an hour each, over https. MILLRACE_SEED repeats a run."""
    seed = int(os.environ.get("MILLRACE_SEED", str(random.randrange(1 << 30))))
    print(f"MILLRACE_SEED={seed}")
    chance = random.Random(seed)
    rig = start(FEED["expired certificate"], address(server))
    store = replace(rig, proxy=make_proxy(bucket.store.target))
    store.proxy.certificate = rig.certificates["good"]
    run(rig, {"url": rig.proxy.url + PATH}, {"lake": bucket.settings(store.proxy)})
    for _ in range(OUTAGES):
        with contextlib.ExitStack() as stack:
            rig.feed.faulty = strike(stack, chance, rig, FEED) is not None
            strike(stack, chance, store, STORE)
            rig.clock.run(seconds=chance.randrange(5, 900))
        rig.feed.faulty = False
        rig.clock.run(seconds=chance.randrange(5, 300))
    failed = rig.failed()
    rig.clock.run(seconds=PARKED.seconds)
    assert rig.store()["waiting_batches"] <= 1, "but for what was sealed this moment"
    rig.daemon.flush()
    found = bucket.read()
    check(rig, found)
    note(f"{OUTAGES} of both, at random", "test_outages.py", **figures("feed", "polls failed", failed, rig, found))
