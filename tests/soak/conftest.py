# SPDX-License-Identifier: Apache-2.0
"""Programs by MILLRACE_BIN, _SIM_BIN, _ASAN_SIM_BIN and _CUT; folders below MILLRACE_SOAK, emptied before each run."""

import os
import shutil
from pathlib import Path

import pytest

import cut
from bench.flash import tidy

ROOT = Path(__file__).resolve().parents[2]


def place(name, default):
    return ROOT / os.environ.get(name, default)


def binary(name, default):
    path = place(name, default)
    if not path.exists():
        pytest.fail(f"{path} is missing: build it first, or let {name} name it")
    return path


@pytest.fixture
def millrace():
    return binary("MILLRACE_BIN", "build/millrace")


@pytest.fixture
def cut_programs():
    """The folder of the file system that forgets, cutfs, and of the sabotaged programs."""
    return binary("MILLRACE_CUT", "build/cut")


@pytest.fixture
def millrace_sim():
    return binary("MILLRACE_SIM_BIN", "build/sim/millrace")


@pytest.fixture
def millrace_asan_sim():
    return binary("MILLRACE_ASAN_SIM_BIN", "build/asan-sim/millrace")


@pytest.fixture
def folder(request):
    folder = place("MILLRACE_SOAK", "build/soak") / request.node.name.replace("test_", "", 1)
    tidy(folder)
    cut.tidy(folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
