# SPDX-License-Identifier: Apache-2.0
"""An answer that is not what was promised commits nothing, is counted, and is told once per change, with the offset."""

from datetime import datetime, timedelta

import pytest

import lake
from feed import Answer, truncated

PATH = "/feed.json"
GOOD = b'[{"n":1},{"n":2},{"n":3}]'
BETTER = b'[{"n":4}]'
HTML = b"<!DOCTYPE html><title>Maintenance</title>"

# name: (the answer, how it is counted, what the log says of it)
BAD = {
    "html": (Answer(HTML, headers={"Content-Type": "text/html"}), "refused", "offset 0"),
    "empty": (Answer(b""), "refused", ""),
    "no json": (Answer(b'[{"n":4},{"n":}]'), "refused", "offset 14"),
    "trailing": (Answer(b'[{"n":4}] x'), "refused", "offset 10"),
    "no array": (Answer(b'{"n":4}'), "refused", "offset 0"),
    "ends early, says so": (Answer(b'[{"n":4},{"n":5'), "refused", "offset 15"),
    "cut by the network": (truncated(b'[{"n":4},{"n":5}]', 9), "refused", "after 9 of 17 bytes"),
    "over max_body": (Answer(b"[" + b" " * 70000 + b"4]"), "refused", ""),
    "over max_body, in chunks": (Answer(b"[" + b" " * 70000 + b"4]", piece=1000), "refused", ""),
    "too deep": (Answer(b"[" * 513 + b"]" * 513), "refused", "offset 512"),
    "not utf-8": (Answer(b'[{"n":4},"\xc3\x28"]'), "refused", "offset 1"),
    "over max_record": (Answer(b'[4,"%s"]' % (b"x" * 5000)), "refused", ""),
    "503": (Answer(b"[5]", 503, {"Retry-After": "1800"}), "failed", "503"),
    "404": (Answer(b"[5]", 404), "failed", "404"),
    "redirect loop": (Answer(b"", 302, {"Location": PATH}), "failed", ""),
}


@pytest.fixture
def settled(daemon, server):
    """A daemon that has had one good answer."""
    server.route(PATH, Answer(GOOD))
    daemon.configure(
        {"feed": {"url": server.url(PATH), "max_body": "64K", "max_record": "4K"}},
    )
    daemon.start()
    daemon.poll("feed")
    daemon.wait_records("feed", 3)
    return daemon


@pytest.mark.parametrize("name", BAD)
def test_nothing_of_it_is_kept_and_it_is_told_once(settled, server, name):
    answer, counted, told = BAD[name]
    before = settled.source("feed")
    server.route(PATH, answer)
    reports = [settled.poll_new("feed", server, PATH) for _ in range(3)]
    after = settled.source("feed")
    assert {r["outcome"] for r in reports} == {counted}
    assert after[counted] - before[counted] == 3
    assert (after["records"], after["fetches"]) == (3, 1)
    assert after["state"] == "failing"
    assert after["last_error"] == reports[-1]["text"] != ""
    warnings = settled.events("source.refused", "source.failed")
    assert [w["event"] for w in warnings] == [f"source.{counted}"]
    assert '"feed"' in warnings[0]["message"]
    assert told in warnings[0]["message"]

    server.route(PATH, Answer(BETTER))
    assert settled.poll_new("feed", server, PATH)["outcome"] == "committed"
    assert len(settled.events("source.recovered")) == 1
    assert settled.source("feed")["last_error"] == ""
    settled.flush()
    found = lake.read(settled.lake)
    assert found.problems == []
    assert found.data("feed") == [b'{"n":1}', b'{"n":2}', b'{"n":3}', b'{"n":4}']


def test_each_change_of_what_is_wrong_is_told(settled, server):
    for name in ("html", "503", "503", "html", "too deep"):
        server.route(PATH, BAD[name][0])
        settled.poll_new("feed", server, PATH)
    assert [e["event"] for e in settled.events("source.refused", "source.failed")] == [
        "source.refused",
        "source.failed",
        "source.refused",
        "source.refused",
    ]


def test_an_answer_that_came_back_unchanged_after_trouble_adds_nothing(settled, server):
    server.route(PATH, BAD["html"][0])
    settled.poll_new("feed", server, PATH)
    server.route(PATH, Answer(GOOD))
    assert settled.poll_new("feed", server, PATH)["outcome"] == "unchanged"
    assert settled.source("feed")["state"] == "fresh"


def test_retry_after_is_honoured(settled, server):
    server.route(PATH, BAD["503"][0])
    settled.poll_new("feed", server, PATH)
    status = settled.status()
    wait = datetime.fromisoformat(status["sources"][0]["next_poll"]) - datetime.fromisoformat(status["now"])
    assert timedelta(minutes=29) < wait <= timedelta(minutes=31)


def test_after_a_failure_it_is_tried_again_soon(settled, server):
    server.route(PATH, BAD["404"][0])
    settled.poll_new("feed", server, PATH)
    status = settled.status()
    wait = datetime.fromisoformat(status["sources"][0]["next_poll"]) - datetime.fromisoformat(status["now"])
    assert wait <= timedelta(seconds=5)


def test_a_source_that_does_not_answer_is_told(daemon):
    daemon.configure({"feed": {"url": "http://127.0.0.1:1/feed.json"}})
    daemon.start()
    report = daemon.poll("feed")
    assert report["outcome"] == "failed"
    assert "127.0.0.1" in report["text"]


def test_an_answer_that_takes_too_long_is_given_up(daemon, server):
    server.route(PATH, Answer(GOOD, delay=3))
    daemon.configure({"feed": {"url": server.url(PATH), "timeout": "1s"}})
    daemon.start()
    assert daemon.poll("feed")["outcome"] == "failed"
    assert daemon.source("feed")["records"] == 0


def test_one_bad_source_does_not_hold_up_another(settled, server):
    server.route(PATH, BAD["html"][0])
    settled.poll_new("feed", server, PATH)
    settled.stop()
    server.route("/other", Answer(b"[1]"))
    settled.configure({"feed": {"url": server.url(PATH)}, "other": {"url": server.url("/other")}})
    settled.start()
    settled.poll("feed")
    assert settled.poll("other")["outcome"] in ("committed", "unchanged")
    settled.wait_records("other", 1)


def test_a_redirect_is_followed(daemon, server):
    server.route("/old", Answer(b"moved", 301, {"Location": PATH}))
    server.route(PATH, Answer(GOOD))
    daemon.configure({"feed": {"url": server.url("/old")}})
    daemon.start()
    daemon.poll("feed")
    daemon.wait_records("feed", 3)
