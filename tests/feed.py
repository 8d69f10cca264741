# SPDX-License-Identifier: Apache-2.0
"""Sources on loopback that answer by a script and remember what they served; for the system tests and the demo.

Server is the web server: each path has a route, which says what a GET gets. ParkingFeed is a route: nine car parks in
the shape of the Stavanger feed, with its quirks, sped up. RawServer sends whatever bytes it is told, over TLS too.
Standard library only.
"""

import contextlib
import json
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

JSON = {"Content-Type": "application/json"}


@dataclass
class Answer:
    """One answer. `promise` is the Content-Length told where it is not the body's; `piece`: sent in chunks of so many
    bytes; `delay`: seconds that pass in the middle of the body."""

    body: bytes = b""
    status: int = 200
    headers: dict = field(default_factory=lambda: dict(JSON))
    delay: float = 0
    promise: int | None = None
    piece: int | None = None

    @property
    def complete(self):
        return self.promise is None


def truncated(body, cut):
    """An answer that promises the whole body and ends before."""
    return Answer(body[:cut], promise=len(body))


def elements(body):
    """The exact bytes of each element of a JSON array, found by the standard library's parser and not by Millrace's.

    None where the body is no JSON array. The text between elements may be any white space.
    """
    decoder = json.JSONDecoder()
    try:
        text = body.decode("utf-8-sig")
        at = skip_space(text, 0)
        if text[at] != "[":
            return None
        found, at = [], skip_space(text, at + 1)
        while text[at] != "]":
            _, end = decoder.raw_decode(text, at)
            found.append(text[at:end].encode())
            at = skip_space(text, end)
            if text[at] == ",":
                at = skip_space(text, at + 1)
        return found if not text[at + 1 :].strip(" \t\r\n") else None
    except (ValueError, IndexError):
        return None


def skip_space(text, at):
    while text[at] in " \t\r\n":
        at += 1
    return at


@dataclass
class Request:
    path: str
    at: float  # time.monotonic()
    headers: dict


class QuietHTTPServer(ThreadingHTTPServer):
    def handle_error(self, *_):
        """A client that was killed is no news here."""


class Server:
    """Answers GET on 127.0.0.1 by its routes, logs every request, and remembers the records that it served.

    A route is an Answer, or something callable that takes the Request and returns one. Thread-safe.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._quiet = threading.Condition(self._lock)
        self._busy = 0
        self._routes = {}
        self._requests = []
        self._last = {}
        self._served = defaultdict(list)
        self._http = QuietHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def _handler(self):
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self):
                server._answer(self)

            def log_message(self, *_):
                pass

        return Handler

    def url(self, path):
        return f"http://127.0.0.1:{self._http.server_port}{path}"

    def route(self, path, answer):
        with self._lock:
            self._routes[path] = answer

    def requests(self, path=None):
        with self._lock:
            return [r for r in self._requests if path in (None, r.path)]

    def served(self, path):
        """The records of complete 200 answers that differ from the path's previous complete answer, in order.

        Waits for answers that are under way: a client may have the last byte before this side has counted it.
        """
        with self._quiet:
            self._quiet.wait_for(lambda: self._busy == 0, timeout=10)
            return list(self._served[path])

    def close(self):
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _answer(self, handler):
        with self._lock:
            self._busy += 1
        try:
            self._answer_by_route(handler)
        finally:
            with self._quiet:
                self._busy -= 1
                self._quiet.notify_all()

    def _answer_by_route(self, handler):
        request = Request(handler.path, time.monotonic(), dict(handler.headers))
        with self._lock:
            self._requests.append(request)
            route = self._routes.get(handler.path, Answer(b"not here\n", 404, {"Content-Type": "text/plain"}))
        answer = route(request) if callable(route) else route
        try:
            self._send(handler, answer)
        except OSError:
            handler.close_connection = True
            return
        if answer.status == 200 and answer.complete:
            self._book(handler.path, answer.body)

    def _book(self, path, body):
        """An answer that is no array of records is none of the source's answers: nothing was promised to be kept."""
        records = elements(body)
        with self._lock:
            if records is not None and self._last.get(path) != body:
                self._last[path] = body
                self._served[path] += records

    def _send(self, handler, answer):
        handler.send_response(answer.status)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        if answer.piece:
            handler.send_header("Transfer-Encoding", "chunked")
        else:
            handler.send_header("Content-Length", str(answer.promise or len(answer.body)))
        handler.end_headers()
        half = len(answer.body) // 2 if answer.delay else 0
        self._send_body(handler, answer.body[:half], answer.piece)
        if answer.delay:
            time.sleep(answer.delay)
        self._send_body(handler, answer.body[half:], answer.piece)
        if answer.piece:
            handler.wfile.write(b"0\r\n\r\n")
        if not answer.complete:
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _send_body(handler, body, piece):
        if not piece:
            handler.wfile.write(body)
            return
        for at in range(0, len(body), piece):
            part = body[at : at + piece]
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))


HEAD_MAX = 64 * 1024
TLS_HANDSHAKE = b"\x16"
NOT_HERE = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


class Reset(Exception):
    """Raised by a route of RawServer: the connection ends with a reset, not with a close."""


@dataclass
class RawRequest:
    path: str
    head: bytes
    sent: int = 0  # bytes of the answer that went out before the client left
    over: bool = False


class RawServer:
    """Sends exactly the bytes that a route gives and closes: answers that no HTTP library would write.

    A route is bytes, or something callable that takes the RawRequest and gives pieces of bytes one by one, for as long
    as the client reads. certificate: (file, key file), for https. Thread-safe.
    """

    def __init__(self, certificate=None):
        self._lock = threading.Lock()
        self._routes = {}
        self._requests = []
        self._open = set()
        self._tls = None
        if certificate:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(*certificate)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def url(self, path):
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}{path}"

    def route(self, path, answer):
        with self._lock:
            self._routes[path] = answer

    def requests(self, path=None):
        with self._lock:
            return [r for r in self._requests if path in (None, r.path)]

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, plain):
        with self._lock:
            self._open.add(plain)
        connection = plain
        try:
            if self._tls:
                connection = self._tls.wrap_socket(plain, server_side=True)
            self._answer(connection)
        except Reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass  # the client had enough of it
        finally:
            with self._lock:
                self._open.discard(plain)
            connection.close()

    def _answer(self, connection):
        connection.settimeout(60)
        head = b""
        while b"\r\n\r\n" not in head and len(head) < HEAD_MAX and not head.startswith(TLS_HANDSHAKE):
            more = connection.recv(HEAD_MAX)
            if not more:
                return
            head += more
        path = head.split(b" ")[1] if head.startswith(b"GET ") else b""  # else TLS at a plain port
        request = RawRequest(path.decode("latin-1"), head)
        with self._lock:
            self._requests.append(request)
            route = self._routes.get(request.path, NOT_HERE)
        try:
            for piece in route(request) if callable(route) else [route]:
                connection.sendall(piece)
                request.sent += len(piece)
            self._end(connection)
        finally:
            request.over = True

    def _end(self, connection):
        if self._tls:
            connection.unwrap()
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(HEAD_MAX):  # a close with something unread would be a reset
            pass


def make_certificate(folder):
    """A certificate of its own for 127.0.0.1, for RawServer: (file, key file)."""
    files = folder / "server.crt", folder / "server.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=feed", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    out = ["-out", str(files[0]), "-keyout", str(files[1])]
    subprocess.run([*command, *names, *out], check=True, capture_output=True)
    return files


# Latitude, longitude and about how many places are free; two of them never count.
PARKS = [
    ("Jernbanen", "58.966341", "5.732047", 285),
    ("Valberget", "58.9721884", "5.7299647", 112),
    ("Posten", "58.969721", "5.729923", None),
    ("Jorenholmen", "58.971964", "5.736688", 308),
    ("St Olav", "58.966764", "5.730807", 214),
    ("Siddis", "58.954126", "5.694017", 229),
    ("Forum", "58.9523279", "5.7046637", 292),
    ("Kyrre", "58.969491", "5.726946", None),
    ("Parketten", "58.975601", "5.721537", 144),
]


class ParkingFeed:
    """A route: nine car parks, a new version every `every` seconds, ETag and Last-Modified moving with every answer.

    `script` holds (second, what), in order: "frozen" and "thaw" begin and end a spell in which the content stands
    still; "slow", "503", "truncated" and "html" befall the first request from then on.
    """

    def __init__(self, every, script=()):
        self._lock = threading.Lock()
        self._every = every
        self._started = time.monotonic()
        self._script = list(script)
        self._version = -1
        self._frozen = False
        self._body = b""
        self._answers = 0
        self.happened = []

    def freeze(self):
        """From now on nothing new: what has come is all that there will be."""
        with self._lock:
            self._script = []
            self._frozen = True

    def __call__(self, _request):
        with self._lock:
            now = time.monotonic() - self._started
            trouble = self._step(now)
            self._answers += 1
            moving = {"ETag": f'"{self._answers:x}"', "Last-Modified": formatdate(usegmt=True)}
        return self._troubled(trouble, Answer(self._body, headers=JSON | moving))

    def _step(self, now):
        """Brings the content up to date; returns what shall befall this answer, if anything."""
        trouble = None
        while self._script and self._script[0][0] <= now and trouble is None:
            what = self._script.pop(0)[1]
            self.happened.append(what)
            if what in ("frozen", "thaw"):
                self._frozen = what == "frozen"
            else:
                trouble = what
        version = int(now / self._every)
        if version > self._version and not (self._frozen and self._body):
            self._version = version
            self._body = parking(version)
        return trouble

    @staticmethod
    def _troubled(trouble, answer):
        if trouble == "slow":
            answer.delay = 2.5
        elif trouble == "503":
            return Answer(b"Service Unavailable\n", 503, {"Content-Type": "text/plain", "Retry-After": "1"})
        elif trouble == "truncated":
            return truncated(answer.body, len(answer.body) * 2 // 3)
        elif trouble == "html":
            return Answer(b"<!DOCTYPE html><title>Maintenance</title>\n", 200, {"Content-Type": "text/html"})
        return answer


def parking(version):
    """One version of the feed: compact JSON, every value a string, two minutes from one version to the next."""
    at = datetime(2026, 10, 25, 0, 0, tzinfo=UTC) + timedelta(minutes=2 * version)
    parks = [(name, lat, lon, free) for name, lat, lon, free in PARKS]
    if version % 5 == 3:  # the same place twice, with different counts
        parks[8] = (parks[7][0], *parks[7][1:3], 97)
    if version % 7 == 4:
        parks[6] = ("", *parks[6][1:])
    records = [
        {
            "Dato": f"{at:%d.%m.%Y}",
            "Klokkeslett": f"{at:%H:%M}",
            "Sted": name,
            "Latitude": lat,
            "Longitude": lon,
            "Antall_ledige_plasser": "Open" if free is None else str(free - (version * (3 + i)) % 90),
        }
        for i, (name, lat, lon, free) in enumerate(parks)
    ]
    return json.dumps(records, ensure_ascii=False, separators=(",", ":")).encode()
