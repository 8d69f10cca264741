# SPDX-License-Identifier: Apache-2.0
"""What system tests share: a daemon and a web server of their own, and the recorded answers."""

import os
from pathlib import Path

import pytest

from daemon import Daemon
from feed import Server

ROOT = Path(__file__).resolve().parents[2]


def binary(name, default):
    path = ROOT / os.environ.get(name, default)
    if not path.exists():
        pytest.fail(f"{path} is missing: build it first, or let {name} name it")
    return path


@pytest.fixture
def millrace():
    """The program's path."""
    return binary("MILLRACE_BIN", "build/millrace")


@pytest.fixture
def millrace_sim():
    """The program with the driven clock."""
    return binary("MILLRACE_SIM_BIN", "build/sim/millrace")


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture
def make_daemon(millrace, tmp_path):
    """Makes daemons, each in a folder of its own; ends them, and shows their logs where the test failed."""
    made = []

    def make(name="daemon", program=None, env=None):
        folder = tmp_path / name
        folder.mkdir()
        made.append(Daemon(program or millrace, folder, env))
        return made[-1]

    yield make
    for daemon in made:
        daemon.end()
        if daemon.log.exists():
            print(f"---- {daemon.log}\n{daemon.log.read_text()[-8000:]}")


@pytest.fixture
def daemon(make_daemon):
    return make_daemon()


@pytest.fixture
def samples():
    """The recorded answers of the Stavanger feed, oldest first."""
    folder = ROOT / os.environ.get("MILLRACE_SAMPLES", "../shared/samples") / "stavanger"
    found = [p for p in sorted(folder.glob("*.json")) if not p.name.endswith(".meta.json")]
    if not found:
        pytest.skip(f"NO RECORDED ANSWERS in {folder}: set MILLRACE_SAMPLES to the folder that has stavanger/")
    return [p.read_bytes() for p in found]
