# SPDX-License-Identifier: Apache-2.0
"""Drives the time of a daemon that was built with O=build/sim. Standard library only."""

import mmap
import struct
from datetime import UTC, datetime, timedelta

from daemon import wait_until

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def milliseconds(wall):
    return (wall - EPOCH) // timedelta(milliseconds=1)


class Clock:
    """base/clock_sim.c's file: wall_ms, mono_ms, until_ms."""

    def __init__(self, path, wall, mono_ms=1_000_000):
        self.path = path
        path.write_bytes(struct.pack("=3q", milliseconds(wall), mono_ms, mono_ms))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 24)

    def _get(self, i):
        return struct.unpack_from("=q", self._map, 8 * i)[0]

    def wall(self):
        return EPOCH + timedelta(milliseconds=self._get(0))

    def mono(self):
        return timedelta(milliseconds=self._get(1))

    def set(self, wall):
        """The wall clock jumps; while the driven clock stands still."""
        struct.pack_into("=q", self._map, 0, milliseconds(wall))

    def pass_by(self, **delta):
        """So much passes at once; while the driven clock stands still, as it does during a fetch."""
        ms = timedelta(**delta) // timedelta(milliseconds=1)
        struct.pack_into("=2q", self._map, 0, self._get(0) + ms, self._get(1) + ms)

    def boot(self, wall, after):
        """The machine has started anew, so long ago; while no daemon runs."""
        mono_ms = after // timedelta(milliseconds=1)
        struct.pack_into("=3q", self._map, 0, milliseconds(wall), mono_ms, mono_ms)

    def run(self, **delta):
        """Lets it go on for so long, and returns once everything until then is done."""
        until = self._get(2) + timedelta(**delta) // timedelta(milliseconds=1)
        struct.pack_into("=q", self._map, 16, until)
        wait_until("the driven clock", lambda: self._get(1) == until, patience=60)
