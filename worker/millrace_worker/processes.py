# SPDX-License-Identifier: Apache-2.0
"""The processes of a run, wherever they have gone: each was started with MILLRACE_RUN in its environment."""

import contextlib
import os
import signal
import time

MARK = "MILLRACE_RUN"


def of_run(run):
    """The pids, less this process's own."""
    mark = f"{MARK}={run}".encode()
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:
            if mark in file.read().split(b"\0"):
                found.append(int(name))
    return found


def send(pids, number):
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, number)


def kill_all(run, patience=5):
    """Whether none is left. Again and again, for one that was just forked is seen only the next time."""
    deadline = time.monotonic() + patience
    while left := of_run(run):
        send(left, signal.SIGKILL)
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
