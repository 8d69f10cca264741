# SPDX-License-Identifier: Apache-2.0
"""What a process costs, by /proc, while it runs. Standard library only."""

import re
import threading
from pathlib import Path

KB = 1024
MB = 1024 * 1024


def private_dirty(pid):
    """Bytes of memory that nobody but this process needs."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"Private_Dirty: +(\d+)", text)[1]) * KB


def is_telling(pid):
    """Whether its memory tells anything: a sanitizer keeps what was freed, and shadows the rest."""
    return "libasan" not in Path(f"/proc/{pid}/maps").read_text()


def resident(pid):
    return field(pid, "VmRSS")


def peak_resident(pid):
    """The most that was resident since forget_peak: kept by the kernel, so it misses nothing however short."""
    return field(pid, "VmHWM")


def forget_peak(pid):
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def field(pid, name):
    return int(re.search(rf"{name}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) * KB


def descriptors(pid):
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


class Sampler:
    """Looks at a process every few milliseconds, and remembers the most private dirty memory that it saw."""

    def __init__(self, pid, every=0.005):
        self._pid = pid
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.peak = private_dirty(pid)
        self.samples = 0

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        self.look()

    def _run(self):
        while not self._stop.wait(self._every):
            self.look()

    def look(self):
        try:
            self.peak = max(self.peak, private_dirty(self._pid))
            self.samples += 1
        except (OSError, TypeError):
            pass  # it is ending: an empty file
