# SPDX-License-Identifier: Apache-2.0
"""A web server in a process of its own, quick enough not to be what is measured: GET /NAME answers with the files of
FOLDER/NAME in turn, from memory; a NAME that ends in .gz is told to be gzip-encoded. GET /times/NAME: when the last
byte of each answer was handed to the kernel, as time.monotonic(), which all processes share.

As a script: web.py FOLDER [CERTIFICATE KEY]; prints its port, and ends with its standard input.
"""

import json
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from urllib.request import urlopen


class Feeds:
    """The server, driven. put() before the first request for a name."""

    def __init__(self, folder, certificate=None):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._scheme = "https" if certificate else "http"
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(self.folder), *map(str, certificate or [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self._process.stdout.readline())

    def put(self, name, bodies):
        (self.folder / name).mkdir()
        for i, content in enumerate(bodies):
            (self.folder / name / f"{i:06d}").write_bytes(content)

    def url(self, name):
        return f"{self._scheme}://127.0.0.1:{self.port}/{name}"

    def times(self, name):
        with urlopen(self.url(f"times/{name}")) as answer:
            return json.load(answer)

    def close(self):
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    disable_nagle_algorithm = True

    def __init__(self, folder, context):
        self.folder = folder
        self.context = context
        self.lock = threading.Lock()
        self.answers = {}
        self.given = defaultdict(int)
        self.times = defaultdict(list)
        super().__init__(("127.0.0.1", 0), Connection)

    def next_answer(self, name):
        with self.lock:
            if name not in self.answers:
                files = sorted((self.folder / name).iterdir())
                self.answers[name] = [head(len(f.read_bytes()), name) + f.read_bytes() for f in files]
            answers = self.answers[name]
            self.given[name] += 1
            return answers[(self.given[name] - 1) % len(answers)]

    def handle_error(self, *_):
        """A client that was killed is no news here."""


def head(length, name):
    encoding = "Content-Encoding: gzip\r\n" if name.endswith(".gz") else ""
    return f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{encoding}Content-Length: {length}\r\n\r\n".encode()


class Connection(socketserver.BaseRequestHandler):
    def handle(self):
        stream = (
            self.server.context.wrap_socket(self.request, server_side=True) if self.server.context else self.request
        )
        while self._answer(stream):
            pass

    def _answer(self, stream):
        request = b""
        while b"\r\n\r\n" not in request:
            data = stream.recv(65536)
            if not data:
                return False
            request += data
        path = request.split(b" ")[1].decode().lstrip("/")
        if path.startswith("times/"):
            told = json.dumps(self.server.times[path.removeprefix("times/")]).encode()
            stream.sendall(head(len(told), "") + told)
        else:
            stream.sendall(self.server.next_answer(path))
            self.server.times[path].append(time.monotonic())
        return True


def main(folder, *certificate):
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
    server = Server(Path(folder), context)
    print(server.server_address[1], flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
