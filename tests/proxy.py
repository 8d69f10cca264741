# SPDX-License-Identifier: Apache-2.0
"""A fault proxy: stands on loopback between the daemon and a store (or a feed) and does to requests what networks do.

HTTP/1.1 as it is, byte for byte and with the client's Host, so that signatures stay valid; each connection of a client
has its own to the server. Every request is logged, with what befell it and what the client got. A fault is armed for
so many requests, for some requests only, or until it is lifted. Standard library only.
"""

import contextlib
import itertools
import random
import socket
import ssl
import struct
import threading
import time
from dataclasses import dataclass, field, replace

CHUNK = 64 * 1024
HEAD_MAX = 64 * 1024


class Ended(Exception):
    """This connection is over, as a peer or a fault wanted."""


@dataclass
class Message:
    """A request or an answer: the first line, the headers as they came, and the body as it is framed."""

    start: bytes
    headers: list
    body: bytes = b""

    def header(self, name):
        return next((v for n, v in self.headers if n.lower() == name.lower()), None)

    def drop(self, name):
        self.headers = [(n, v) for n, v in self.headers if n.lower() != name.lower()]

    def encoded(self):
        lines = [self.start] + [f"{n}: {v}".encode("latin-1") for n, v in self.headers]
        return b"\r\n".join(lines) + b"\r\n\r\n" + self.body


@dataclass
class Logged:
    """One request as the client sent it; status is what the client got, or None."""

    method: str
    path: str
    headers: dict
    bytes: int
    at: float  # time.monotonic()
    fault: str = ""
    status: int | None = None


@dataclass
class Fault:
    """What happens to a request. The proxy's makers below are the list of them."""

    name: str
    forward: bool = True  # the server gets it
    cut_request: int | None = None  # so many bytes of it reach the server, and then both connections are reset
    cut_answer: int | None = None  # so many bytes of the answer reach the client, and then its connection is reset
    stall_after: int | None = None  # so many bytes of the answer, and then nothing until the fault is lifted
    piece: int = 0  # the answer in pieces of so many bytes …
    pause: float = 0  # … with so many seconds between them
    answer: Message | None = None  # what the client gets instead
    change: object = None  # called with the request before it is sent on
    change_answer: object = None  # called with request and answer before that is handed back; returns the answer
    lifted: threading.Event = field(default_factory=threading.Event)


def reset_request(after=100):
    return Fault("reset in the request", cut_request=after)


def reset_answer(after=10):
    return Fault("reset in the answer", cut_answer=after)


def lose_answer():
    """The server has the whole request and has answered; the client never hears of it."""
    return Fault("answer lost", cut_answer=0)


def stall(after=0):
    return Fault("stalled", stall_after=after)


def trickle(piece=1, pause=0.01):
    return Fault("trickled", piece=piece, pause=pause)


def answer(status, body=b"", headers=None, reason="Fault"):
    """Any status with any body; the server sees nothing of the request."""
    fields = {"Content-Type": "text/plain"} | (headers or {}) | {"Content-Length": str(len(body))}
    message = Message(f"HTTP/1.1 {status} {reason}".encode(), list(fields.items()), body)
    return Fault(f"status {status}", forward=False, answer=message)


def s3_error(status, code, message, headers=None):
    """As S3 words its errors."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    return answer(status, body, {"Content-Type": "application/xml"} | (headers or {}))


def unavailable(retry_after=None):
    headers = {"Retry-After": str(retry_after)} if retry_after else {}
    return s3_error(503, "SlowDown", "Please reduce your request rate.", headers)


def too_skewed(date):
    """What S3 says to a clock that is off; date: the store's own, as HTTP writes it."""
    return s3_error(403, "RequestTimeTooSkewed", "The times of request and server differ too much.", {"Date": date})


def html(status=200):
    page = b"<!DOCTYPE html><html><title>Router login</title><form action='/login'></form></html>\n"
    return answer(status, page, {"Content-Type": "text/html"}, "OK")


def flip(at=-1):
    """One byte of the body is damaged on its way to the server."""

    def damage(request):
        if request.body:
            body = bytearray(request.body)
            body[at] ^= 0x01
            request.body = bytes(body)

    return Fault("byte flipped", change=damage)


def flip_answer(at):
    """The same of the answer's body on its way back."""

    def damage(_request, answer):
        body = bytearray(answer.body)
        body[at] ^= 0x01
        return Message(answer.start, answer.headers, bytes(body))

    return Fault("byte of the answer flipped", change_answer=damage)


def change(name, request=None, answer=None):
    """Whatever else: request(request) edits it in place; answer(request, answer) returns the client's answer."""
    return Fault(name, change=request, change_answer=answer)


def free_port():
    """One that stays free while nobody listens there: below those that the kernel gives to outgoing connections."""
    while True:
        port = random.randrange(20000, 32000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class Proxy:
    """Listens on a port of its own from the start; refuse() closes it, accept() opens the same one again."""

    def __init__(self, target, certificate=None):
        """target: (host, port) of the server. certificate: (file, key file), for https on the clients' side alone; it
        may be changed at any time, for the connections that come then."""
        self.target = target
        self.certificate = certificate
        self.port = free_port()
        self._lock = threading.Lock()
        self._requests = []
        self._armed = []  # (fault, when, requests left or None)
        self._open = set()
        self._listener = None
        self.accept()

    @property
    def url(self):
        return self.url_at("127.0.0.1")

    def url_at(self, host):
        return f"{'https' if self.certificate else 'http'}://{host}:{self.port}"

    def requests(self, method=None, path=None):
        """The log; path: some part of it."""
        with self._lock:
            return [r for r in self._requests if method in (None, r.method) and (path is None or path in r.path)]

    def arm(self, fault, count=None, when=None, first=False):
        """For the next `count` requests (None: until it is lifted) for which when(request, without its body) is true.

        Of several that are armed the first that fits is taken; first: this one before the others."""
        fault = replace(fault, lifted=threading.Event())  # it may have been lifted before
        with self._lock:
            self._armed.insert(0 if first else len(self._armed), [fault, when or (lambda _request: True), count])

    def lift(self):
        """All faults are over, those too that hold a connection."""
        with self._lock:
            for fault, _, _ in self._armed:
                fault.lifted.set()
            self._armed = []

    def refuse(self):
        """Nobody listens any more, and what is open is reset."""
        if self._listener:
            # shutdown: close alone would leave accept() waiting, and the port open with it
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._thread.join()
            self._listener = None
        self.cut()

    def accept(self):
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self._thread = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        self._thread.start()

    def cut(self):
        """Resets every connection that is open."""
        with self._lock:
            sockets = list(self._open)
        for each in sockets:
            reset(each)

    def close(self):
        self.lift()
        self.refuse()

    def _accept(self, listener):
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self._open.add(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        """One client's connection, to its end."""
        upstream = Upstream(self.target)
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client = self._secured(client)
            stream = Stream(client)
            while True:
                self._one_request(stream, upstream)
        except (Ended, OSError):
            pass
        finally:
            with self._lock:
                self._open.discard(client)
            upstream.close()
            client.close()

    def _secured(self, client):
        """The connection as requests come on it."""
        if not self.certificate:
            return client
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.certificate)
        secured = context.wrap_socket(client, server_side=True)  # takes the descriptor over
        with self._lock:
            self._open.remove(client)
            self._open.add(secured)
        return secured

    def _one_request(self, stream, upstream):
        request = stream.head()
        fault = self._take(request)
        if fault and fault.cut_request is not None:
            self._log(request, fault)
            self._cut_request(stream, upstream, request, fault.cut_request)
        if (request.header("Expect") or "").lower() == "100-continue":
            stream.socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.drop("Expect")
        request.body = stream.body(request)
        logged = self._log(request, fault)
        answer = self._answer(request, fault, upstream)
        self._hand_back(stream.socket, answer, fault, logged)
        if "close" in (request.header("Connection") or "").lower() + (answer.header("Connection") or "").lower():
            raise Ended

    def _take(self, request):
        with self._lock:
            for entry in self._armed:
                fault, when, left = entry
                if left == 0 or not when(request):
                    continue
                if left is not None:
                    entry[2] -= 1
                return fault
        return None

    def _log(self, request, fault):
        method, path, _ = request.start.decode("latin-1").split(" ", 2)
        entry = Logged(method, path, {n.lower(): v for n, v in request.headers}, len(request.body), time.monotonic())
        entry.fault = fault.name if fault else ""
        with self._lock:
            self._requests.append(entry)
        return entry

    def _cut_request(self, stream, upstream, request, after):
        length = int(request.header("Content-Length") or 0)
        if (request.header("Expect") or "").lower() == "100-continue":
            stream.socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.drop("Expect")
        request.body = stream.exactly(min(after, length))
        with contextlib.suppress(OSError):
            upstream.connected().sendall(request.encoded())
        upstream.reset()
        reset(stream.socket)
        raise Ended

    def _answer(self, request, fault, upstream):
        if fault and not fault.forward:
            return fault.answer
        if fault and fault.change:
            fault.change(request)
        try:
            answer = upstream.ask(request)
        except OSError as error:
            return gateway_error(error)
        if fault and fault.change_answer:
            answer = fault.change_answer(request, answer)
        return answer

    def _hand_back(self, client, answer, fault, logged):
        data = answer.encoded()
        if fault and fault.cut_answer is not None:
            client.sendall(data[: fault.cut_answer])
            reset(client)
            raise Ended
        logged.status = int(answer.start.split(b" ")[1])
        if fault and fault.stall_after is not None:
            client.sendall(data[: fault.stall_after])
            data = data[fault.stall_after :]
            fault.lifted.wait()
        if fault and fault.piece:
            for at in range(0, len(data), fault.piece):
                client.sendall(data[at : at + fault.piece])
                fault.lifted.wait(fault.pause)
            return
        client.sendall(data)


def gateway_error(error):
    """The server itself is away: said as a gateway says it."""
    body = f"the server is away: {error}\n".encode()
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body))), ("Connection", "close")]
    return Message(b"HTTP/1.1 502 Bad Gateway", headers, body)


def reset(sock):
    """Ends it with RST instead of FIN, for whoever waits in it too."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.shutdown(socket.SHUT_RD)
        sock.close()


class Upstream:
    """The connection to the server, made when it is needed and made again when the server had closed it."""

    def __init__(self, target):
        self._target = target
        self._stream = None

    def connected(self):
        if not self._stream:
            sock = socket.create_connection(self._target, timeout=60)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._stream = Stream(sock)
        return self._stream.socket

    def ask(self, request):
        for attempt in itertools.count():
            known = self._stream is not None
            try:
                return self._ask(request)
            except (Ended, OSError) as error:
                self.close()
                if not known or attempt:
                    raise ConnectionError("it closed the connection") from error

    def _ask(self, request):
        self.connected().sendall(request.encoded())
        while True:
            answer = self._stream.head()
            status = int(answer.start.split(b" ")[1])
            if status >= 200:
                break
        bare = request.start.startswith(b"HEAD ") or status in (204, 304)
        answer.body = b"" if bare else self._stream.body(answer, to_the_end=True)
        if (answer.header("Connection") or "").lower() == "close":
            self.close()
        return answer

    def reset(self):
        if self._stream:
            reset(self._stream.socket)
            self._stream = None

    def close(self):
        if self._stream:
            self._stream.socket.close()
            self._stream = None


class Stream:
    """Reads messages from a socket."""

    def __init__(self, sock):
        self.socket = sock
        self._data = b""

    def _more(self):
        data = self.socket.recv(CHUNK)
        if not data:
            raise Ended
        self._data += data

    def head(self):
        while b"\r\n\r\n" not in self._data:
            if len(self._data) > HEAD_MAX:
                raise Ended
            self._more()
        head, self._data = self._data.split(b"\r\n\r\n", 1)
        start, *lines = head.split(b"\r\n")
        pairs = (line.decode("latin-1").partition(":") for line in lines)
        return Message(start, [(name, value.strip()) for name, _, value in pairs])

    def exactly(self, length):
        parts = [self._data[:length]]
        self._data = self._data[length:]
        missing = length - len(parts[0])
        while missing:
            data = self.socket.recv(min(CHUNK, missing))
            if not data:
                raise Ended
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def body(self, message, to_the_end=False):
        """The body as it is framed. to_the_end: without a length it lasts until the connection ends."""
        if (message.header("Transfer-Encoding") or "").lower() == "chunked":
            return self._chunks()
        length = message.header("Content-Length")
        if length is not None:
            return self.exactly(int(length))
        return self._rest(message) if to_the_end else b""

    def _chunks(self):
        parts = []
        while True:
            line = self._line()
            parts.append(line)
            size = int(line.split(b";")[0], 16)
            if size == 0:
                break
            parts.append(self.exactly(size + 2))
        while parts[-1] != b"\r\n":
            parts.append(self._line())
        return b"".join(parts)

    def _line(self):
        while b"\r\n" not in self._data:
            self._more()
        line, self._data = self._data.split(b"\r\n", 1)
        return line + b"\r\n"

    def _rest(self, message):
        """Told to the client as a length."""
        parts = [self._data]
        self._data = b""
        while parts[-1] or len(parts) == 1:
            parts.append(self.socket.recv(CHUNK))
        body = b"".join(parts)
        message.headers += [("Content-Length", str(len(body))), ("Connection", "close")]
        return body
