# SPDX-License-Identifier: Apache-2.0
"""What system tests share: a daemon and a web server of their own, object stores, and the recorded answers."""

import itertools
import os
from pathlib import Path

import pytest

from daemon import Daemon
from feed import Server
from object_store import STORES, Bucket
from proxy import Proxy

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
def cut_programs():
    """The folder of the file system that forgets, cutfs, and of the programs that must lose on it."""
    return binary("MILLRACE_CUT", "build/cut")


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


KINDS = os.environ.get("MILLRACE_STORES", "minio").split(",")
numbers = itertools.count(1)


@pytest.fixture(scope="session", params=KINDS)
def shared_store(request, tmp_path_factory):
    store = STORES[request.param](tmp_path_factory.mktemp(request.param))
    yield store.start()
    store.end()


@pytest.fixture
def bucket(shared_store):
    """A bucket that no other test has."""
    return Bucket(shared_store, f"lake-{next(numbers)}")


@pytest.fixture(params=KINDS)
def own_store(request, tmp_path):
    """For tests that kill it."""
    store = STORES[request.param](tmp_path / "store")
    yield store.start()
    store.end()


@pytest.fixture
def minio(shared_store):
    """Where only MinIO can do what a test wants, users and policies."""
    if shared_store.kind != "minio":
        pytest.skip("needs MinIO")
    return shared_store


@pytest.fixture
def make_proxy():
    made = []

    def make(target):
        made.append(Proxy(target))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


@pytest.fixture
def proxy(shared_store, make_proxy):
    """Stands before the store."""
    return make_proxy(shared_store.target)
