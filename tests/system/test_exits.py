# SPDX-License-Identifier: Apache-2.0
"""How it ends and what it says then: exit statuses, mistakes in the configuration, SIGTERM, stores that are away."""

import json
import os
import subprocess
import time

import pytest

import lake
from daemon import PATIENCE, wait_until
from feed import Answer

PATH = "/feed.json"


def run(daemon):
    """`millrace run` that is expected to end by itself."""
    return daemon.cli("run")


@pytest.fixture
def configured(daemon, server):
    server.route(PATH, Answer(b"[1,2,3]"))
    daemon.configure({"feed": {"url": server.url(PATH)}})
    return daemon


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["nonsense"],
        ["poll"],
        ["tail"],
        ["show"],
        ["show", "nonsense"],
        ["status", "--nonsense"],
        ["poll", "a", "b"],
    ],
    ids=" ".join,
)
def test_64_for_what_is_no_command(configured, args):
    result = configured.cli(*args)
    assert result.returncode == 64
    assert result.stderr != ""


@pytest.mark.parametrize("args", [["status"], ["show", "sources"], ["poll", "feed"], ["flush"]], ids=" ".join)
def test_69_where_no_daemon_runs(configured, args):
    result = configured.cli(*args)
    assert result.returncode == 69
    assert str(configured.socket) in result.stderr


def test_69_names_the_socket_of_the_command_line(configured, tmp_path):
    result = configured.cli("--socket", str(tmp_path / "elsewhere.sock"), "status")
    assert result.returncode == 69
    assert str(tmp_path / "elsewhere.sock") in result.stderr


@pytest.mark.parametrize("kind", ["missing", "file", "forbidden"])
def test_73_where_the_buffer_has_no_folder(configured, server, tmp_path, kind):
    folder = tmp_path / "nowhere"
    if kind == "file":
        folder.write_text("")
    if kind == "forbidden":
        if os.geteuid() == 0:
            pytest.skip("nothing is forbidden to root")
        folder.mkdir(mode=0o500)
    configured.configure({"feed": {"url": server.url(PATH)}}, buffer={"path": str(folder / "buffer.db")})
    result = run(configured)
    assert result.returncode == 73
    assert str(folder) in result.stderr
    check_tells_the_same(configured, result)


def check_tells_the_same(daemon, run):
    """Beforehand, and with the line; without making anything."""
    text = daemon.config.read_text()
    line = next(i for i, t in enumerate(text.splitlines(), 1) if "buffer.db" in t)
    before = sorted(daemon.folder.rglob("*"))
    result = daemon.cli("check")
    assert result.returncode == 73
    place = f"{daemon.config}:{line}: "
    assert result.stderr.startswith(place)
    told = json.loads(run.stderr.splitlines()[-1])["message"] if run.stderr.startswith("{") else run.stderr
    assert result.stderr.removeprefix(place).strip() in told
    assert sorted(daemon.folder.rglob("*")) == before


def test_75_where_the_buffer_is_another_process_s(configured):
    configured.start()
    result = run(configured)
    assert result.returncode == 75
    assert str(configured.process.pid) in result.stderr
    assert configured.poll("feed")["outcome"] in ("committed", "unchanged"), "the first one goes on"


def test_78_tells_all_mistakes_at_once(daemon):
    daemon.config.write_text(
        """device = "pi 01";
buffer = { path = "buffer.db"; };
stores = {
  lake = { kind = "file"; path = "lake"; };
};
sources = {
  parking = {
    kind = "rest";
    url = "https://example.org/parking.json";


    evry = "1m";
    records = "$";
  };
  river = { kind = "rest"; every = 60; };
  tide = { kind = "rest"; url = "ftp://example.org/tide.json"; every = "0s"; };
  Wind = { kind = "rest"; url = "http://example.org/"; every = "1m"; };
  sun = { kind = "rust"; url = "http://example.org/"; stores = [ "lak" ]; };
};
"""
    )
    for command in ("check", "run"):
        result = daemon.cli(command)
        assert result.returncode == 78
        told = result.stderr.splitlines()
        assert f'{daemon.config}:12: unknown setting "evry" in source "parking"; did you mean "every"?' in told
        for line in (1, 15, 16, 17, 18):
            assert any(t.startswith(f"{daemon.config}:{line}: ") for t in told), f"nothing is told of line {line}"


def test_78_for_a_syntax_error_and_a_missing_file(daemon):
    daemon.config.write_text('device = "pi";\nsources = {\n  a = { kind = = "rest"; };\n};\n')
    result = daemon.cli("check")
    assert result.returncode == 78
    assert f"{daemon.config}:3: " in result.stderr
    daemon.config.unlink()
    result = daemon.cli("run")
    assert result.returncode == 78
    assert f"{daemon.config}: no such file; name another with -c FILE" in result.stderr


def test_check_is_content_with_a_good_file(configured):
    result = configured.cli("check")
    assert (result.returncode, result.stderr) == (0, "")


def test_check_warns_of_a_store_s_folder(configured):
    """No mistake: its disk may come later."""
    line = next(i for i, t in enumerate(configured.config.read_text().splitlines(), 1) if "/lake" in t)
    configured.lake.rmdir()
    result = configured.cli("check")
    assert result.returncode == 0
    warning = f'{configured.config}:{line}: warning: the folder of store "lake" cannot be written: '
    assert result.stderr == f"{warning}No such file or directory; create it, or mount its disk\n"
    configured.lake.write_text("")
    result = configured.cli("check")
    assert (result.returncode, result.stderr) == (0, f"{warning}Not a directory\n")


@pytest.mark.parametrize("during", ["rest", "a slow answer"])
def test_sigterm_ends_it_within_a_second_and_loses_nothing(configured, server, during):
    configured.start()
    configured.poll("feed")
    if during != "rest":
        server.route(PATH, Answer(b"[4,5,6]", delay=3))
        before = len(server.requests())
        poll = subprocess.Popen(
            [configured.binary, "-c", str(configured.config), "poll", "feed"], stderr=subprocess.DEVNULL
        )
        wait_until("the poll", lambda: len(server.requests()) > before)
    started = time.monotonic()
    assert configured.stop() == 0
    assert time.monotonic() - started < 1.0
    assert not configured.socket.exists()
    assert list(configured.lake.rglob("*.gz")) == [], "a stop seals nothing"
    if during != "rest":
        assert poll.wait(PATIENCE) == 69
    server.route(PATH, Answer(b"[1,2,3]"))
    configured.start()
    configured.flush()
    assert lake.read(configured.lake).data("feed") == [b"1", b"2", b"3"]


def test_a_store_that_is_not_mounted_stops_nothing(configured, server):
    configured.start()
    configured.poll("feed")
    configured.flush()
    assert configured.stop() == 0

    mounted = configured.lake.rename(configured.folder / "mounted")
    configured.lake.mkdir()  # the mount point alone
    configured.start()
    server.route(PATH, Answer(b"[4]"))
    assert configured.poll_new("feed", server, PATH)["outcome"] == "committed"
    flushed = configured.cli("flush", "--wait")
    assert flushed.returncode == 69
    assert "sealed 1 batch;" in flushed.stderr
    status = configured.cli("status")
    assert status.returncode == 1
    assert str(configured.lake) in status.stdout
    assert configured.store()["state"] == "away"
    assert configured.source("feed")["waiting_records"] == 1
    assert list(configured.lake.iterdir()) == [], "nothing is written beside a disk that is not there"

    configured.lake.rmdir()
    mounted.rename(configured.lake)
    assert configured.cli("flush", "--wait").returncode == 0
    assert configured.cli("status").returncode == 0
    found = lake.read(configured.lake)
    assert found.problems == []
    assert found.data("feed") == [b"1", b"2", b"3", b"4"]


def test_a_store_whose_folder_was_never_there_stops_nothing(configured):
    configured.lake.rmdir()
    configured.start()
    configured.poll("feed")
    wait_until("the store to be found away", lambda: configured.store()["state"] == "away")
    configured.wait_records("feed", 3)
    assert configured.cli("status").returncode == 1
    assert not configured.lake.exists()
    assert len(configured.events("store.away")) == 1


def test_an_audit_before_the_first_run_says_so(configured):
    told = configured.cli("audit")
    assert told.returncode == 73
    assert "is not there, so there is nothing to audit" in told.stderr


def test_the_embedded_store_is_made_beside_the_buffer(configured, server):
    configured.configure({"feed": {"url": server.url(PATH)}}, stores={})
    configured.config.write_text(configured.config.read_text().replace("stores = {\n};\n", ""))
    configured.start()
    configured.poll("feed")
    configured.flush()
    assert lake.read(configured.folder / "objects").data("feed") == [b"1", b"2", b"3"]
