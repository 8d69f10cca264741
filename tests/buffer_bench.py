# SPDX-License-Identifier: Apache-2.0
"""Runs the programs of tests/cut: power cuts and failing calls of the buffer alone."""

import json
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# A sanitizer's end comes by SIGABRT, at which the program still says where it was.
ENV = os.environ | {"ASAN_OPTIONS": "abort_on_error=1:detect_leaks=1", "UBSAN_OPTIONS": "abort_on_error=1"}


def program(name, variable="MILLRACE_CUT", default="build/cut"):
    path = ROOT / os.environ.get(variable, default) / name
    assert path.exists(), f"{path} is missing: `make cut` builds it, or let {variable} name its folder"
    return path


def run(program, *args, timeout=300):
    """Exit status, the figures, and what it says is wrong."""
    command = [program, *map(str, args)]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, timeout=timeout, check=False)
    print(f"{program.name} {' '.join(command[1:])}: exit {done.returncode}: {done.stdout}{done.stderr}", flush=True)
    lines = done.stdout.splitlines()
    return done.returncode, json.loads(lines[-1]) if lines else {}, done.stderr


def sound(program, *args, timeout=300):
    """The figures of a run that has to find nothing."""
    status, figures, said = run(program, *args, timeout=timeout)
    assert status == 0, f"{program.name} {' '.join(map(str, args))}: {figures}: {said[-4000:]}"
    return figures


def red(program, *args):
    """A sabotage has to be found, by what it does and not by a crash of the bench."""
    status, figures, said = run(program, *args)
    assert (status, figures.get("wrong")) == (1, 1), f"{program.name}: the sabotage was not found: {status}: {said}"
    return figures
