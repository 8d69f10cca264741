# SPDX-License-Identifier: Apache-2.0
"""The fault proxy does what it says, so that a test that passes behind it has seen the fault."""

import http.client
import threading
import time
from http.server import BaseHTTPRequestHandler

import pytest

import proxy as faults
from feed import QuietHTTPServer
from proxy import Proxy

BODY = bytes(range(256)) * 2000


class Shelf(QuietHTTPServer):
    """Keeps what is PUT and gives it back; remembers the headers of the last request."""

    daemon_threads = True

    def __init__(self):
        self.kept = {}
        self.headers = {}
        super().__init__(("127.0.0.1", 0), ShelfHandler)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()


class ShelfHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        self.server.kept[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(b"")

    def do_GET(self):
        self._answer(self.server.kept.get(self.path, b""))

    def do_HEAD(self):
        self._answer(b"", len(self.server.kept[self.path]))

    def _answer(self, body, length=None):
        self.server.headers = dict(self.headers)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def shelf():
    shelf = Shelf()
    yield shelf
    shelf.shutdown()
    shelf.server_close()


@pytest.fixture
def proxy(shelf):
    proxy = Proxy(shelf.server_address)
    yield proxy
    proxy.close()


@pytest.fixture
def client(proxy):
    client = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=5)
    yield client
    client.close()


def ask(client, method="GET", path="/a", body=None, headers=None):
    client.request(method, path, body, headers or {})
    answer = client.getresponse()
    return answer.status, answer.read()


def test_it_passes_everything_as_it_came(proxy, shelf, client):
    assert ask(client, "PUT", "/a=%20?x=1", BODY, {"Host": "lake.example:9000", "X-Odd": "a  b"}) == (200, b"")
    assert shelf.kept == {"/a=%20?x=1": BODY}
    assert (shelf.headers["Host"], shelf.headers["X-Odd"]) == ("lake.example:9000", "a  b")
    assert ask(client, path="/a=%20?x=1") == (200, BODY)
    client.request("HEAD", "/a=%20?x=1")
    answer = client.getresponse()
    assert (answer.read(), answer.headers["Content-Length"]) == (b"", str(len(BODY)))
    log = [(r.method, r.path, r.bytes, r.status) for r in proxy.requests()]
    assert log[:2] == [("PUT", "/a=%20?x=1", len(BODY), 200), ("GET", "/a=%20?x=1", 0, 200)]


def test_it_refuses_and_accepts_again_on_the_same_port(proxy, client):
    assert ask(client)[0] == 200
    proxy.refuse()
    with pytest.raises(OSError):
        ask(client)
    client.close()
    with pytest.raises(ConnectionRefusedError):
        ask(client)
    proxy.accept()
    client.close()
    assert ask(client)[0] == 200


def test_a_reset_in_the_request_leaves_the_server_without_it(proxy, shelf, client):
    proxy.arm(faults.reset_request(after=1000), count=1)
    with pytest.raises(OSError):
        ask(client, "PUT", "/a", BODY)
    client.close()
    assert ask(client) == (200, b"")
    assert shelf.kept == {}
    assert [r.fault for r in proxy.requests()] == ["reset in the request", ""]


def test_a_reset_in_the_answer_cuts_it(proxy, shelf, client):
    shelf.kept["/a"] = BODY
    proxy.arm(faults.reset_answer(after=5000), count=1)
    with pytest.raises((OSError, http.client.IncompleteRead)):
        ask(client)


def test_a_lost_answer_leaves_the_object_with_the_server(proxy, shelf, client):
    proxy.arm(faults.lose_answer(), count=1)
    with pytest.raises((OSError, http.client.RemoteDisconnected)):
        ask(client, "PUT", "/a", BODY)
    assert shelf.kept == {"/a": BODY}
    client.close()
    assert ask(client) == (200, BODY)


def test_it_stalls_until_it_is_lifted(proxy, shelf, client):
    shelf.kept["/a"] = BODY
    proxy.arm(faults.stall(after=10))
    client.timeout = 0.3
    with pytest.raises(TimeoutError):
        ask(client)
    client.close()
    client.timeout = 5
    threading.Timer(0.2, proxy.lift).start()
    assert ask(client) == (200, BODY)


def test_it_trickles(proxy, shelf, client):
    shelf.kept["/a"] = b"x" * 100
    proxy.arm(faults.trickle(piece=50, pause=0.05), count=1)
    began = time.monotonic()
    assert ask(client) == (200, b"x" * 100)
    assert time.monotonic() - began > 0.1


def test_it_answers_by_itself(proxy, shelf, client):
    proxy.arm(faults.unavailable(retry_after=7), count=1, when=lambda r: r.start.startswith(b"PUT"))
    proxy.arm(faults.too_skewed("Sun, 22 Nov 2026 10:00:00 GMT"), count=1)
    client.request("PUT", "/a", BODY)
    answer = client.getresponse()
    assert (answer.status, answer.headers["Retry-After"]) == (503, "7")
    assert b"SlowDown" in answer.read()
    client.request("GET", "/a")
    answer = client.getresponse()
    assert (answer.status, answer.headers["Date"]) == (403, "Sun, 22 Nov 2026 10:00:00 GMT")
    assert b"RequestTimeTooSkewed" in answer.read()
    assert ask(client, "PUT", "/a", b"") == (200, b"")
    proxy.arm(faults.html())
    assert b"<html>" in ask(client)[1]
    proxy.lift()
    assert ask(client) == (200, b"")
    assert shelf.kept == {"/a": b""}


def test_it_damages_and_changes_requests(proxy, shelf, client):
    proxy.arm(faults.flip(), count=1)
    ask(client, "PUT", "/a", b"abc")
    assert shelf.kept["/a"] == b"abb"
    proxy.arm(faults.change("stripped", request=lambda r: r.drop("If-None-Match")))
    ask(client, "PUT", "/a", b"abc", {"If-None-Match": "*"})
    assert "If-None-Match" not in shelf.headers
    assert proxy.requests()[-1].headers["if-none-match"] == "*"


def test_a_server_that_is_away_is_a_bad_gateway(proxy, shelf, client):
    shelf.shutdown()
    shelf.server_close()
    assert ask(client)[0] == 502
