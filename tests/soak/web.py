# SPDX-License-Identifier: Apache-2.0
"""A feed for many sources that costs little of a machine that it shares with what is measured: one thread, no parsing.

GET /NAME: an array of records, new with every second request for that name. Standard library only.
"""

import asyncio
import json
import threading
from collections import Counter

RECORDS = 5
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
PLACES = ("Jernbanen", "Valberget", "Posten", "Jorenholmen", "St Olav")


def records(name, version):
    """Of one version, as they stand in the answer."""
    places = [(i, PLACES[i], (version * (7 + i)) % 400) for i in range(RECORDS)]
    made = [{"feed": name, "version": version, "i": i, "Sted": place, "ledige": str(n)} for i, place, n in places]
    return [json.dumps(r, separators=(",", ":")).encode() for r in made]


class Connection(asyncio.Protocol):
    def __init__(self, feed):
        self._feed = feed
        self._head = b""

    def connection_made(self, transport):
        self._transport = transport

    def data_received(self, data):
        self._head += data
        if self._head.endswith(b"\r\n\r\n"):
            path = self._head.split(b" ", 2)[1]
            self._head = b""
            self._transport.write(self._feed.answer(path.decode().lstrip("/")))


class Feed:
    """away: answers 503 until it is false again."""

    def __init__(self):
        self.asked = Counter()
        self.away = False
        self._loop = asyncio.new_event_loop()
        listening = self._loop.create_server(lambda: Connection(self), "127.0.0.1", 0, backlog=512)
        self._server = self._loop.run_until_complete(listening)
        self._port = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def url(self, name):
        return f"http://127.0.0.1:{self._port}/{name}"

    def answer(self, name):
        if self.away:
            return b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
        body = b"[" + b",".join(records(name, self.asked[name] // 2)) + b"]"
        self.asked[name] += 1
        return HEAD % (len(body), body)

    def served(self, name):
        """All records that a daemon was given, each once."""
        return [r for version in range((self.asked[name] + 1) // 2) for r in records(name, version)]

    def close(self):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._server.close()
        self._loop.close()
