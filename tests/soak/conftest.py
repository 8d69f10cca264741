# SPDX-License-Identifier: Apache-2.0
"""Programs by MILLRACE_SIM_BIN and MILLRACE_ASAN_SIM_BIN; folders below MILLRACE_SOAK, emptied before each run."""

import os
import shutil
from pathlib import Path

import pytest

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
def millrace_sim():
    return binary("MILLRACE_SIM_BIN", "build/sim/millrace")


@pytest.fixture
def millrace_asan_sim():
    return binary("MILLRACE_ASAN_SIM_BIN", "build/asan-sim/millrace")


@pytest.fixture
def folder(request):
    folder = place("MILLRACE_SOAK", "build/soak") / request.node.name.replace("test_", "", 1)
    tidy(folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
