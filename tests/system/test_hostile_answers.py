# SPDX-License-Identifier: Apache-2.0
"""Hundreds of hostile answers (tests/hostile.py): each ends as it must, commits nothing, uses nothing up, and costs no
more than its bound.

One daemon and a source for each answer. A source's first poll meets a 503 that puts off the next one for an hour, so
that from then on every poll is one of ours. Then the hostile answer, and then a good one.

Memory: one thread reads the daemon's smaps_rollup every 5 ms from the first hostile answer to the last; and for each
answer the kernel's own high-water mark of what is resident (VmHWM, reset before each) is held against what was resident
before, which no peak escapes however short it is.
"""

from datetime import datetime

import pytest
from conftest import binary

import hostile
import lake
import memory
from daemon import Daemon
from feed import RawServer, make_certificate
from hostile import CASES, answer

BOUND = 2 * memory.MB
LATER = answer(b"later", b"Retry-After: 3600", first=b"HTTP/1.1 503 Later\r\n")
NAMES = {case: f"s{i}" for i, case in enumerate(CASES)}
CASE_OF = {source: case for case, source in NAMES.items()}


class Victim:
    """The daemon, the servers it asks, and what was seen of it."""

    def __init__(self, folder):
        certificate, strange = folder / "ours", folder / "strange"
        certificate.mkdir()
        strange.mkdir()
        files = make_certificate(certificate)
        self.servers = {
            "http": RawServer(),
            "https": RawServer(files),
            "untrusted": RawServer(make_certificate(strange)),
        }
        self.servers["plain https"] = self.servers["http"]
        self.daemon = Daemon(binary("MILLRACE_BIN", "build/millrace"), folder, {"SSL_CERT_FILE": str(files[0])})
        self.judged = {}
        self.sampler = None
        hostile.PLAIN["url"] = self.servers["http"].url("/fine")
        self.servers["http"].route("/fine", answer(hostile.BODY))

    def start(self):
        sources = {}
        for case in CASES.values():
            self.route(case, LATER)
            url = self.servers[case.where].url(self.path(case))
            if case.where == "plain https":
                url = url.replace("http:", "https:")
            sources[NAMES[case.name]] = {"url": url} | case.settings
        self.warm_up(sources)
        self.daemon.configure(sources)
        self.daemon.start()
        for name in sources:
            self.daemon.poll(name)
        self.pid = self.daemon.process.pid
        self.sampler = memory.Sampler(self.pid)
        self.sampler.__enter__()
        self.idle = self.measure_idle()
        return self

    def measure_idle(self):
        """With what a good answer and a look at all the sources take."""
        for _ in range(3):
            self.daemon.poll("warm")
            self.rejected()
            self.daemon.status()
            self.sampler.look()
        return self.sampler.peak

    def warm_up(self, sources):
        """What is made once, whoever asks: TLS, zlib, SQLite's pages."""
        sources["warm"] = {"url": self.servers["https"].url("/warm"), "records": "$"}
        self.servers["https"].route("/warm", answer(hostile.BODY))

    def path(self, case):
        return f"/{NAMES[case.name]}"

    def route(self, case, what):
        self.servers[case.where].route(self.path(case), what)

    def requests(self, case):
        return self.servers[case.where].requests(self.path(case))

    def poll(self, case):
        return self.daemon.poll(NAMES[case.name])

    def rejected(self):
        return {r["source"]: r for r in self.daemon.ask("GET", "/v1/rejected")["rejected"]}

    def end(self):
        if self.sampler:
            self.sampler.__exit__()
        self.daemon.end()
        for server in set(self.servers.values()):
            server.close()


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    victim = Victim(tmp_path_factory.mktemp("hostile"))
    try:
        yield victim.start()
    finally:
        victim.end()


def check_not_taken(victim, case, report):
    """It is counted as what it was called, told, and nothing of it is there."""
    status = victim.daemon.status()
    after = next(s for s in status["sources"] if s["name"] == NAMES[case.name])
    assert after[report["outcome"]] >= (1 if report["outcome"] == "refused" else 2)  # the first one failed
    assert after["refused"] + after["failed"] == after["polls"]
    assert case.told in report["text"]
    assert after["last_error"] == report["text"] != ""
    assert (after["records"], after["fetches"]) == (0, 0)
    assert after["state"] in ("failing", "stale")
    wait = datetime.fromisoformat(after["next_poll"]) - datetime.fromisoformat(status["now"])
    least, most = case.next_poll_s
    assert least <= wait.total_seconds() <= most


@pytest.mark.parametrize("name", CASES)
def test_it_ends_as_it_must_and_costs_no_more(victim, name):
    case = CASES[name]
    victim.route(case, case.answer)
    resident = memory.resident(victim.pid)
    memory.forget_peak(victim.pid)
    report = victim.poll(case)
    cost = memory.peak_resident(victim.pid) - resident
    victim.sampler.look()
    print(f"{name}: {report['outcome']}: {report['text']}")
    assert report["outcome"] in ([case.outcome] if case.outcome else ["refused", "failed"]), report["text"]
    if memory.is_telling(victim.pid):
        assert cost < BOUND, f"{cost >> 10} KB more were resident"
        assert victim.sampler.peak - victim.idle < BOUND
    if report["outcome"] == "committed":
        assert (report["records"], report["first_seq"]) == (case.records, 1)
    else:
        check_not_taken(victim, case, report)
    if report["outcome"] != "committed" and case.can_recover:
        victim.route(case, case.good)
        again = victim.poll(case)
        assert (again["outcome"], again["records"], again["first_seq"]) == ("committed", case.records, 1), again["text"]
    if case.most_sent:
        assert sum(r.sent for r in victim.requests(case)) < case.most_sent
    assert victim.daemon.process.poll() is None
    victim.judged[name] = report


def test_at_least_300_were_judged_and_only_what_was_good_is_there(victim):
    if not victim.judged:
        pytest.skip("no answer was judged in this run")
    victim.daemon.flush()
    found = lake.read(victim.daemon.lake)
    assert found.problems == []
    for name in (n for n in victim.judged if CASES[n].can_recover):
        records = found.records(NAMES[name])
        assert [(r.seq, r.fetch) for r in records] == [(i + 1, 1) for i in range(CASES[name].records)], name
    assert victim.daemon.cli("audit").returncode == 0
    victim.sampler.look()
    grown = victim.sampler.peak - victim.idle
    bad = [r for r in victim.judged.values() if r["outcome"] != "committed"]
    print(
        f"{len(victim.judged)} answers, {len(bad)} of them hostile; idle {victim.idle >> 10} KB private dirty, at most"
    )
    print(f"{grown >> 10} KB more in {victim.sampler.samples} samples")
    assert grown < BOUND or not memory.is_telling(victim.pid)
    if len(victim.judged) == len(CASES):
        assert len(bad) >= 300
    check_rejected(victim)


def check_rejected(victim):
    """Of the newest ones what each was called is kept."""
    shown = victim.rejected()
    refused = {NAMES[n]: (CASES[n], r) for n, r in victim.judged.items() if r["outcome"] == "refused"}
    assert set(shown) <= set(refused)
    assert len(shown) == min(256, len(refused))
    kept = [(CASE_OF[source], r["cause"], r["text"]) for source, r in shown.items()]
    expected = [(c.name, c.cause or shown[s]["cause"], r["text"]) for s, (c, r) in refused.items() if s in shown]
    assert sorted(kept) == sorted(expected)
