#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs every check of `make lint`, shows what the failed ones said, and closes with `lint: N passed, N failed`."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("agent", "api", "base", "board", "buffer", "cli", "collectors", "mill")
C_FLAGS = ["-std=c11", "-D_GNU_SOURCE", '-DMILLRACE_VERSION="0"', "-DMILLRACE_BUILD_EPOCH=0LL", "-I."]
CPPCHECK = ["--enable=warning,performance,portability", "--inline-suppr", "--error-exitcode=1", "--quiet"]


def find(pattern, *folders):
    return sorted(str(p.relative_to(ROOT)) for folder in folders for p in (ROOT / folder).rglob(pattern))


def shell_scripts():
    """Files of ours that begin with a shell's name; no list to keep."""
    places = [p for top in (".ci", "tests", "docs", "systemd") for p in sorted((ROOT / top).rglob("*")) if p.is_file()]
    return [str(p.relative_to(ROOT)) for p in places if p.read_bytes()[:40].startswith((b"#!/bin/sh", b"#!/bin/bash"))]


def checks():
    """Name -> command lines; the check passes when all of them do."""
    python = sys.executable
    sources = find("*.c", *FOLDERS)
    unit = find("*.c", "tests")
    headers = find("*.h", *FOLDERS, "tests")
    return {
        "includes": [[python, "tests/lint/includes.py"]],
        "functions": [[python, "tests/lint/functions.py"]],
        "clang-format": [["clang-format", "--dry-run", "-Werror", *sources, *unit, *headers]],
        "cppcheck": [["cppcheck", *CPPCHECK, "--std=c11", "-j2", "-I.", *sources, *unit]],
        "clang-tidy": [["clang-tidy", "--quiet", file, "--", *C_FLAGS] for file in sources],
        "shellcheck": [["shellcheck", *shell_scripts()]],
        "ruff check": [[python, "-m", "ruff", "check", "--quiet", "--no-cache", "tests", "worker"]],
        "ruff format": [[python, "-m", "ruff", "format", "--quiet", "--no-cache", "--check", "tests", "worker"]],
    }


def run(command):
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


def main():
    failed = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, commands in checks().items():
            started = time.monotonic()
            bad = [result for result in pool.map(run, commands) if result.returncode != 0]
            print(f"  {'FAIL' if bad else 'ok  '}  {name} ({time.monotonic() - started:.0f} s)", flush=True)
            for result in bad:
                print(result.stdout.rstrip() or f"{result.args[0]} failed without a word")
            failed += bool(bad)
    print(f"lint: {len(checks()) - failed} passed, {failed} failed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
