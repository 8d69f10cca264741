# SPDX-License-Identifier: Apache-2.0
"""The commands as a person and a script use them."""

import json

import pytest

import lake
from feed import Answer

PATH = "/feed.json"


@pytest.fixture
def running(daemon, server):
    server.route(PATH, Answer(b"[1,2,3]"))
    daemon.configure({"feed": {"url": server.url(PATH)}, "resting": {"url": server.url(PATH), "enabled": False}})
    daemon.start()
    daemon.poll("feed")
    return daemon


def ok(result):
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    return result.stdout


def test_version_and_help_need_no_configuration(daemon):
    for word in ("--version", "-V", "version"):
        assert ok(daemon.cli(word)).startswith("millrace 0.")
    told = ok(daemon.cli("--help"))
    assert ok(daemon.cli("help")) == told
    for command in ("run", "check", "status", "show", "tail", "poll", "flush"):
        assert command in told


def test_status_is_for_people_and_for_scripts(running):
    told = ok(running.cli("status"))
    assert "feed" in told
    assert "lake" in told
    assert "\033" not in told, "colour is for terminals"
    status = json.loads(ok(running.cli("status", "--json")))
    assert status["ok"] is True
    assert [s["name"] for s in status["sources"]] == ["feed", "resting"]
    assert [s["state"] for s in status["sources"]] == ["fresh", "disabled"]
    assert ok(running.cli("status", "--ready")) == ""


def test_show(running):
    running.flush()
    for what in ("sources", "batches", "stores"):
        assert "feed" in ok(running.cli("show", what)) or what == "stores"
        shown = json.loads(ok(running.cli("show", what, "--json")))
        assert len(shown[what]) >= 1
    (batch,) = json.loads(ok(running.cli("show", "batches", "--json")))["batches"]
    (item,) = lake.read(running.lake).objects
    assert batch["key"] == item.key
    assert (batch["records"], batch["raw_bytes"], batch["bytes"]) == (3, item.raw_bytes, item.bytes)


def test_tail_shows_the_lines_of_the_objects(running, server):
    before = ok(running.cli("tail", "feed"))
    running.flush()
    server.route(PATH, Answer(b"[4]"))
    running.poll_new("feed", server, PATH)
    after = ok(running.cli("tail", "feed"))
    assert after.startswith(before), "sealed or not, a line is the same"
    running.flush()
    lines = [r.line for r in lake.read(running.lake).records("feed")]
    assert after.encode().splitlines() == lines
    assert json.loads(ok(running.cli("tail", "-n", "1", "feed")))["data"] == 4


def test_poll_says_how_it_ended(running, server):
    assert "unchanged" in ok(running.cli("poll", "feed"))
    server.route(PATH, Answer(b"[5,6]"))
    assert "committed" in ok(running.cli("poll", "feed"))
    server.route(PATH, Answer(b"<html>"))
    result = running.cli("poll", "feed")
    assert result.returncode != 0
    assert "refused" in result.stdout + result.stderr


def test_poll_of_what_is_no_source(running):
    result = running.cli("poll", "fed")
    assert result.returncode != 0
    assert 'did you mean "feed"?' in result.stderr


@pytest.mark.parametrize(("word", "meant"), [("source", "sources"), ("batch", "batches"), ("stors", "stores")])
def test_show_of_what_is_nearly_a_word(daemon, word, meant):
    result = daemon.cli("show", word)
    assert result.returncode == 64
    assert f'did you mean "{meant}"?' in result.stderr


def test_retry_of_what_is_no_batch(running):
    running.flush()
    running.lake.rename(running.folder / "away")
    running.poll("feed")
    assert running.cli("flush", "--wait").returncode == 69, "the store is away, and would be tried for any batch"
    result = running.cli("retry", "4711")
    assert result.returncode == 64
    assert "there is no batch 4711" in result.stderr
    result = running.cli("retry", "1")
    assert result.returncode == 64
    assert "batch 1 is delivered everywhere; `millrace audit` looks whether it is still there" in result.stderr


def test_of_a_store_that_is_well_no_try_is_planned(running):
    running.flush()
    assert (running.store()["state"], running.store()["next_try"]) == ("ready", None)


def test_flush(running):
    ok(running.cli("flush", "--wait"))
    assert lake.read(running.lake).data("feed") == [b"1", b"2", b"3"]
    ok(running.cli("flush"))


def test_options_may_stand_before_or_after_arguments(running):
    assert ok(running.cli("tail", "feed", "-n", "1")) == ok(running.cli("tail", "-n", "1", "feed"))
    assert ok(running.cli("show", "--json", "stores")).startswith("{")
    assert ok(running.cli("show", "stores", "--json")).startswith("{")
    assert "feed" in ok(running.cli("poll", "feed", "--socket", str(running.socket)))


def test_the_socket_is_for_owner_and_group(running):
    assert running.socket.stat().st_mode & 0o777 == 0o660


def test_unknown_paths_are_problems(running):
    status, body = running.request("GET", "/v1/nonsense")
    assert status == 404
    assert json.loads(body)["status"] == 404
