# SPDX-License-Identifier: Apache-2.0
"""`show rejected`: of each source the newest answer that was refused, what was wrong with it, and where."""

import gzip
import json

import pytest

from daemon import wait_until
from feed import Answer, truncated

PATH = "/feed.json"
EXCERPT_MAX = 4096


@pytest.fixture
def feed(daemon, server):
    server.route(PATH, Answer(b"[1]"))
    server.route("/other", Answer(b"[2]"))
    daemon.configure({"feed": {"url": server.url(PATH)}, "other": {"url": server.url("/other")}})
    daemon.start()
    for source in ("feed", "other"):
        daemon.poll(source)
    return daemon


def refuse(daemon, server, answer, path=PATH, source="feed"):
    server.route(path, answer)
    report = daemon.poll_new(source, server, path)
    assert report["outcome"] == "refused", report["text"]
    wait_until("it to be kept", lambda: any(r["text"] == report["text"] for r in kept(daemon)))
    return report


def kept(daemon):
    return daemon.ask("GET", "/v1/rejected")["rejected"]


def one(daemon, source="feed"):
    (found,) = [r for r in kept(daemon) if r["source"] == source]
    return found


def test_at_first_there_is_none(feed):
    assert kept(feed) == []
    shown = feed.cli("show", "rejected")
    assert shown.returncode == 0 and shown.stdout


def test_it_shows_what_came_and_where_it_is_wrong(feed, server):
    report = refuse(feed, server, Answer(b'[{"name":"Forum"},{"free":}]'))
    shown = one(feed)
    assert (shown["cause"], shown["offset"], shown["start"], shown["bytes"]) == ("not-json", 26, 0, 28)
    assert shown["excerpt"] == '[{"name":"Forum"},{"free":}]'
    assert shown["excerpt"][shown["mark"]] == "}"
    assert shown["text"] == report["text"]
    text = feed.cli("show", "rejected").stdout
    for part in ("feed", "offset 26", '{"name":"Forum"}'):
        assert part in text
    assert json.loads(feed.cli("show", "rejected", "--json").stdout)["rejected"] == [shown]


def test_the_newest_of_each_source_is_kept(feed, server):
    refuse(feed, server, Answer(b"[first"))
    refuse(feed, server, Answer(b"{other", headers={}), "/other", "other")
    refuse(feed, server, Answer(b"[second"))
    assert one(feed)["excerpt"] == "[second"
    assert one(feed, "other")["excerpt"] == "{other"
    server.route(PATH, Answer(b"[3]"))
    assert feed.poll_new("feed", server, PATH)["outcome"] == "committed"
    assert one(feed)["excerpt"] == "[second", "also when good answers follow"


def test_it_survives_a_kill(feed, server):
    refuse(feed, server, Answer(b"<!DOCTYPE html><title>Login</title>", headers={"Content-Type": "text/html"}))
    before = one(feed)
    feed.kill()
    server.route(PATH, Answer(b"[1]"))
    feed.start()
    assert one(feed) == before
    assert "Login" in feed.cli("show", "rejected").stdout


@pytest.mark.parametrize("how", ["plain", "gzip", "chunks"])
def test_of_a_large_one_the_part_that_tells_most_is_kept(feed, server, how):
    good = b"[" + b",".join(b'{"n":%06d}' % (100_000 + i) for i in range(20_000))
    body = good + b",{broken" + b"}" * 30_000
    answer = Answer(body)
    if how == "gzip":
        answer = Answer(gzip.compress(body), headers={"Content-Encoding": "gzip"})
    if how == "chunks":
        answer.piece = 777
    refuse(feed, server, answer)
    shown = one(feed)
    assert shown["offset"] == len(good) + 2
    assert len(shown["excerpt"]) <= EXCERPT_MAX
    assert shown["start"] <= shown["offset"] < shown["start"] + len(shown["excerpt"])
    assert body[shown["start"] :].startswith(shown["excerpt"].encode())
    assert shown["excerpt"][shown["mark"] :].startswith("broken")
    assert shown["offset"] < shown["bytes"] <= len(body)


def test_a_large_one_that_is_wrong_as_a_whole_is_capped(feed, server):
    refuse(feed, server, truncated(b"[" + b"1," * 60_000, 100_000))
    shown = one(feed)
    assert (shown["cause"], shown["bytes"]) == ("truncated", 100_000)
    assert 0 < len(shown["excerpt"]) <= EXCERPT_MAX


@pytest.mark.parametrize(
    ("body", "encoding", "excerpt"),
    [
        (b"<html>\n\xe5", "gzip", r"<html>\x0a\xe5"),
        (b"\x1f\x8b\x08\0", "gzip", r"\x1f\x8b\x08\x00"),
        (b"br?", "br", "br?"),
    ],
    ids=["no gzip", "cut short", "brotli"],
)
def test_of_what_could_not_be_inflated_it_shows_what_came(feed, server, body, encoding, excerpt):
    refuse(feed, server, Answer(body, headers={"Content-Encoding": encoding}))
    shown = one(feed)
    assert (shown["bytes"], shown["offset"], shown["excerpt"]) == (0, None, excerpt)
    told = feed.cli("show", "rejected").stdout
    assert "as it came, it begins:" in told and excerpt in told


@pytest.mark.parametrize(
    ("setting", "value", "body"),
    [("max_body", "1K", b'["' + b"x" * 2000 + b'"]'), ("max_record", "16", b'["' + b"x" * 20 + b'"]')],
)
def test_what_is_too_large_names_the_setting(daemon, server, setting, value, body):
    server.route("/plain", Answer(body))
    server.route("/gzip", Answer(gzip.compress(body), headers={"Content-Encoding": "gzip"}))
    names = ("plain", "gzip")
    daemon.configure({name: {"url": server.url("/" + name), setting: value} for name in names})
    daemon.start()
    for name in names:
        report = daemon.poll(name)
        assert report["outcome"] == "refused" and f"raise {setting}" in report["text"]
    wait_until("both", lambda: daemon.cli("show", "rejected").stdout.count(f"raise {setting}") == len(names))


def test_bytes_that_are_no_text_do_no_harm(feed, server):
    refuse(feed, server, Answer(b'["ok","' + bytes(range(128, 256)) + b'\x1b[2J"]'))
    shown = one(feed)
    assert shown["cause"] == "not-utf-8"
    assert shown["excerpt"].startswith('["ok","\ufffd')
    assert shown["excerpt"][: shown["mark"]].startswith('["ok"')
    assert "\x1b" not in feed.cli("show", "rejected").stdout


def test_an_answer_that_did_not_come_is_none(feed, server):
    server.route(PATH, Answer(b"Service Unavailable", 503))
    assert feed.poll_new("feed", server, PATH)["outcome"] == "failed"
    assert kept(feed) == []
