# SPDX-License-Identifier: Apache-2.0
"""Large bodies, made as they are sent: records of a known size that tell their number. Standard library only."""

import base64
import itertools
import random
import threading
import time
import zlib

RECORD = 500  # bytes, with the comma or line end behind it
PIECE = 256  # records sent at once
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"

# Some 10:1 when compressed, as JSON is.
TEXT = base64.b64encode(random.Random(5).randbytes(6 << 10)) * 2


def record(i):
    head = b'{"i":%d,"x":"' % (1_000_000 + i)
    at = i * 97 % (len(TEXT) // 2)
    return head + TEXT[at : at + RECORD - len(head) - 3] + b'"}'


def number(data):
    """Which one it is; it must be whole."""
    i = int(data[5:12]) - 1_000_000
    assert data == record(i)
    return i


def array(n):
    """Pieces of a JSON array."""
    yield b"["
    for start in range(0, n, PIECE):
        records = b",".join(record(i) for i in range(start, min(start + PIECE, n)))
        yield records + (b"," if start + PIECE < n else b"")
    yield b"]"


def lines(n):
    for start in range(0, n, PIECE):
        yield b"".join(record(i) + b"\n" for i in range(start, min(start + PIECE, n)))


def gzipped(pieces):
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    for piece in pieces:
        yield packer.compress(piece)
    yield packer.flush()


class Large:
    """A route of RawServer: a body in chunks. `ended`: the wall clock just before the last bytes went out."""

    def __init__(self, pieces, *headers):
        self._pieces = pieces
        self._headers = headers
        self.ended = None

    def __call__(self, _request):
        yield HEAD + b"".join(h + b"\r\n" for h in self._headers) + b"Transfer-Encoding: chunked\r\n\r\n"
        for piece in filter(None, self._pieces()):
            self.ended = time.time()
            yield b"%x\r\n%s\r\n" % (len(piece), piece)
        self.ended = time.time()
        yield b"0\r\n\r\n"


class Held:
    """A route of RawServer: an array of n records of which the first `before` come at once; the others come when the
    test says so, and until then one a time, slowly, for as long as there are any."""

    def __init__(self, n, before, trickle=0.02):
        self._n = n
        self._before = before
        self._trickle = trickle
        self.waiting = threading.Event()
        self.go = threading.Event()
        self.length = n * RECORD + 1

    def __call__(self, _request):
        yield HEAD + b"Content-Length: %d\r\n\r\n" % self.length
        yield b"["
        for start in range(0, self._before, PIECE):
            yield b"".join(record(i) + b"," for i in range(start, min(start + PIECE, self._before)))
        self.waiting.set()
        for i in itertools.count(self._before):
            yield record(i) + (b"," if i + 1 < self._n else b"]")
            if i + 1 == self._n:
                return
            self.go.wait(self._trickle)
