# SPDX-License-Identifier: Apache-2.0
"""Mounts the file system that forgets what was not synced (tests/cut/cutfs.c), and commands it.

Standard library only.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

from bench.report import NoRight
from daemon import wait_until

MODELS = ("strict", "ordered")
CONTROL = ".cutfs"
NAME = "millrace-cutfs"
MOUNT_FAILED = 4  # fuse_main's exit status


class CutFS:
    """The mounted file system: `root` is its folder, the methods are cutfs.c's commands.

    NoRight where this user may mount none.
    """

    def __init__(self, binary, folder):
        if not os.access("/dev/fuse", os.R_OK | os.W_OK):
            raise NoRight("/dev/fuse is missing or not ours to use")
        self.root = Path(folder)
        tidy(self.root)
        self.root.mkdir(parents=True, exist_ok=True)
        self._log = self.root.with_name(self.root.name + ".log")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(binary), "-f", "-s", "-o", f"fsname={NAME}", str(self.root)], stdout=log, stderr=log
            )
        try:
            wait_until("the file system to be mounted", self._is_mounted)
        except BaseException:
            self._end()
            raise
        self._fd = os.open(self.root / CONTROL, os.O_RDWR)

    def _is_mounted(self):
        status = self._process.poll()
        if status == MOUNT_FAILED:
            raise NoRight(f"FUSE may not be mounted here: {self._log.read_text().strip()}")
        if status is not None:
            raise AssertionError(f"cutfs ended with {status}: {self._log.read_text().strip()}")
        return (self.root / CONTROL).exists()

    def command(self, text):
        """OSError where it is none."""
        os.pwrite(self._fd, text.encode(), 0)
        return json.loads(os.pread(self._fd, 65536, 0))

    def freeze(self, n=None, where=""):
        self.command("freeze" if n is None else f"freeze {n} {where}")

    def freeze_off(self):
        """Forgets a moment that has not come; true where it has."""
        return self.command("freeze off")["frozen"]

    def cut(self, seed, model):
        return self.command(f"cut {seed} {model}")

    def fail(self, n, how, code, where=""):
        """how: once, forever."""
        self.command(f"fail {n} {how} {code} {where}")

    def fail_off(self):
        self.command("fail off")

    def readonly(self, on):
        self.command(f"readonly {'on' if on else 'off'}")

    def hang(self, on):
        """No call comes back any more, until it is off."""
        self._process.send_signal(signal.SIGSTOP if on else signal.SIGCONT)

    def wipe(self):
        self.command("wipe")

    def stats(self):
        return self.command("stats")

    def frozen(self):
        return self.stats()["frozen"]

    def close(self):
        os.close(self._fd)
        self._end()

    def _end(self):
        self.hang(False)
        unmount(self.root)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def unmount(root):
    """Also where somebody still has a file open there."""
    for command in (
        ["umount", root],
        ["fusermount3", "-u", root],
        ["umount", "-l", root],
        ["fusermount3", "-uz", root],
    ):
        if not shutil.which(command[0]):
            continue
        if subprocess.run([*map(str, command)], capture_output=True, check=False).returncode == 0:
            return


def tidy(folder):
    """Unmounts what a run that was killed has left below a folder."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        name, root = line.split(" ")[:2]
        if name == NAME and Path(root).is_relative_to(Path(folder).resolve()):
            unmount(root)
