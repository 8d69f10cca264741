# SPDX-License-Identifier: Apache-2.0
"""Drives the time of a daemon that was built with O=build/sim. Standard library only."""

import mmap
import struct
from datetime import UTC, datetime, timedelta

from daemon import wait_until


class Clock:
    """base/clock_sim.c's file: wall_ms, mono_ms, until_ms."""

    def __init__(self, path, wall):
        self.path = path
        self._start_ms = 1_000_000
        path.write_bytes(struct.pack("=3q", int(wall.timestamp() * 1000), self._start_ms, self._start_ms))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 24)

    def _get(self, i):
        return struct.unpack_from("=q", self._map, 8 * i)[0]

    def wall(self):
        return datetime.fromtimestamp(self._get(0) / 1000, UTC)

    def run(self, **delta):
        """Lets it go on for so long, and returns once everything until then is done."""
        until = self._get(2) + int(timedelta(**delta).total_seconds() * 1000)
        struct.pack_into("=q", self._map, 16, until)
        wait_until("the driven clock", lambda: self._get(1) == until, patience=60)
