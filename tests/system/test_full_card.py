# SPDX-License-Identifier: Apache-2.0
"""A card without room: what does not fit waits, and holds back nobody else."""

import base64
import itertools
import json
import random
import subprocess

import pytest

from daemon import wait_until
from feed import Answer


@pytest.fixture
def card(tmp_path):
    """A file system of 4 MB."""
    folder = tmp_path / "card"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "card", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"NO SMALL FILE SYSTEM: only root may mount one ({mounted.stderr.decode().strip()})")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


COUNT = itertools.count(1)


def numbered(_request):
    return Answer(json.dumps([next(COUNT)]).encode())


def test_an_answer_that_does_not_fit_holds_back_no_other_source(daemon, server, card):
    large = json.dumps([base64.b64encode(random.Random(1).randbytes(75_000)).decode() for _ in range(100)])
    server.route("/small.json", numbered)
    server.route("/large.json", Answer(large.encode()))
    daemon.configure(
        {name: {"url": server.url(f"/{name}.json")} for name in ("small", "large")},
        buffer={"path": str(card / "buffer.db")},
        socket=str(daemon.socket),
    )
    daemon.start()
    assert daemon.poll("small")["outcome"] in ("committed", "unchanged")
    report = json.loads(daemon.request("POST", "/v1/sources/large/poll")[1])
    assert report["outcome"] == "failed" and "waits in memory" in report["text"]
    assert daemon.status()["buffer"]["state"] == "no-space"
    problem = daemon.status()["problems"][0]
    assert "no space" in problem["what"] and "room" in problem["remedy"]
    before = daemon.source("small")["records"]
    for _ in range(20):
        status, body = daemon.request("POST", "/v1/sources/small/poll")
        assert status == 200 and json.loads(body)["outcome"] == "committed", body
    assert daemon.source("small")["records"] == before + 20
    assert daemon.source("large")["records"] == 0


def test_what_waits_is_committed_once_there_is_room(daemon, server, card):
    server.route("/small.json", numbered)
    daemon.configure(
        {"small": {"url": server.url("/small.json")}},
        buffer={"path": str(card / "buffer.db")},
        socket=str(daemon.socket),
    )
    daemon.start()
    daemon.poll("small")
    before = daemon.source("small")["records"]
    rest = card / "somebody-else"
    with rest.open("wb", buffering=0) as full, pytest.raises(OSError, match="No space"):
        while True:
            full.write(bytes(4096))
    report = json.loads(daemon.request("POST", "/v1/sources/small/poll")[1])
    while report.get("outcome") == "committed":  # into what SQLite still has
        report = json.loads(daemon.request("POST", "/v1/sources/small/poll")[1])
        before += 1
    assert "waits in memory" in report["text"]
    rest.unlink()
    wait_until("the answer to be committed", lambda: daemon.source("small")["records"] == before + 1)
    assert daemon.status()["buffer"]["state"] == "ready"
