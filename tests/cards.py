# SPDX-License-Identifier: Apache-2.0
"""A card of its own for a test: a small ext4 on a loop device, which can be filled, stopped and mended.

Standard library only. Needs root; NoRight where it may not be mounted.
"""

import os
import subprocess
from pathlib import Path

from bench.report import NoRight

MB = 1 << 20


def call(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")


class Card:
    """Mounted at `root`."""

    def __init__(self, folder, megabytes=16):
        self.root = Path(folder) / "card"
        self.root.mkdir(parents=True)
        self._image = Path(folder) / "image"
        with self._image.open("wb") as file:
            file.truncate(megabytes * MB)
        call("mkfs.ext4", "-q", "-b", "4096", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", self._image)
        try:
            self.mount()
        except OSError as error:
            raise NoRight(f"no file system can be mounted here: {error}") from error

    def mount(self, how="rw"):
        call("mount", "-o", f"loop,errors=remount-ro,{how}", self._image, self.root)

    def unmount(self):
        call("umount", self.root)

    def remount(self, how):
        """Read-only it is refused while somebody writes."""
        call("mount", "-o", f"remount,{how}", self.root)

    def free(self):
        """Bytes."""
        fs = os.statvfs(self.root)
        return fs.f_bavail * fs.f_frsize

    def fill(self):
        """To its last block, by somebody else."""
        with (self.root / "somebody-else").open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                os.fsync(file.fileno())

    def empty(self):
        (self.root / "somebody-else").unlink()

    def stop(self):
        """As the kernel does where it finds that the card fails: read-only, until it was unmounted and mended."""
        device = Path(os.path.realpath(f"/sys/dev/block/{self._number()}")).name
        trigger = Path(f"/sys/fs/ext4/{device}/trigger_fs_error")
        if not trigger.exists():
            raise NoRight(f"{trigger} is missing")
        trigger.write_text("a test")

    def _number(self):
        device = os.stat(self.root).st_dev
        return f"{os.major(device)}:{os.minor(device)}"

    def mend(self):
        """While nobody has a file open there."""
        self.unmount()
        done = subprocess.run(["e2fsck", "-fy", str(self._image)], capture_output=True, text=True, check=False)
        if done.returncode > 1:
            raise OSError(f"e2fsck: {done.stdout}")
        self.mount()

    def close(self):
        if self.root.is_mount():
            subprocess.run(["umount", "-l", str(self.root)], check=False)
