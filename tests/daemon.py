# SPDX-License-Identifier: Apache-2.0
"""Drives the real binary: writes its configuration, starts and stops it, asks it. For the system tests and the demo.

Standard library only.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

PATIENCE = 20  # seconds that anything may take before a test gives up on it


class TimedOut(AssertionError):
    pass


def wait_until(what, condition, patience=PATIENCE):
    """The first true value of condition(); asks again and again instead of sleeping for long enough."""
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimedOut(f"waited {patience} s for {what}")
        time.sleep(0.02)


def libconfig(value, indent=0):
    """A Python value as libconfig writes it; a dict is a group."""
    if isinstance(value, dict):
        inner = "".join(f"{'  ' * (indent + 1)}{k} = {libconfig(v, indent + 1)};\n" for k, v in value.items())
        return "{\n" + inner + "  " * indent + "}"
    if isinstance(value, list):
        return "[ " + ", ".join(libconfig(v) for v in value) + " ]"
    return json.dumps(value, ensure_ascii=False)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, patience=PATIENCE):
        super().__init__("localhost", timeout=patience)
        self._path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def written_back(path):
    """A program that was just linked would count as dirty memory of whoever runs it."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


class Daemon:
    """One Millrace in a folder of its own: millrace.conf, buffer.db, millrace.sock, log, and the store `lake`."""

    def __init__(self, binary, folder, env=None):
        self.binary = str(Path(binary).resolve())
        self.folder = Path(folder)
        self.config = self.folder / "millrace.conf"
        self.socket = self.folder / "millrace.sock"
        self.log = self.folder / "log"
        self.lake = self.folder / "lake"
        self.env = os.environ | (env or {})
        self.process = None

    def configure(self, sources, **top):
        """sources: name -> settings; kind, records and a long `every` are filled in. top: what else stands there."""
        self.lake.mkdir(exist_ok=True)
        filled = {n: {"kind": "rest", "every": "1h", "records": "$"} | s for n, s in sources.items()}
        settings = {
            "device": "pi-test",
            "log": "json",
            "clock": "trust",
            "buffer": {"path": str(self.folder / "buffer.db")},
            "stores": {"lake": {"kind": "file", "path": str(self.lake)}},
        } | top
        settings["sources"] = {n: {k: v for k, v in s.items() if v is not None} for n, s in filled.items()}
        self.config.write_text("".join(f"{k} = {libconfig(v)};\n" for k, v in settings.items()))

    def start(self):
        self.spawn()
        self.wait_started()

    def wait_started(self, patience=PATIENCE):
        wait_until("the API to answer", self._answers, patience)

    def spawn(self):
        """Without waiting for it."""
        written_back(self.binary)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [self.binary, "-c", str(self.config), "run"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.env,
                cwd=self.folder,
            )

    def _answers(self):
        if self.process.poll() is not None:
            raise AssertionError(f"the daemon ended with {self.process.returncode}:\n{self.log.read_text()}")
        try:
            return self.request("GET", "/v1/status")
        except OSError:
            return None

    def request(self, method, path, patience=PATIENCE, body=None):
        """(status, body) of one request on the socket."""
        connection = UnixConnection(self.socket, patience)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def ask(self, method, path, patience=PATIENCE):
        """The JSON of an answer that must be 200."""
        status, body = self.request(method, path, patience)
        assert status == 200, f"{method} {path}: {status} {body.decode()}"
        return json.loads(body)

    def status(self):
        return self.ask("GET", "/v1/status")

    def source(self, name):
        return next(s for s in self.status()["sources"] if s["name"] == name)

    def wait_records(self, source, n):
        """Status tells what was committed a moment after the poll has."""

        def there():
            return (source, n) in [(s["name"], s["records"]) for s in self.status()["sources"]]

        wait_until(f"{n} records of {source}", there)

    def store(self, name="lake"):
        return next(s for s in self.status()["stores"] if s["name"] == name)

    def poll(self, source, patience=PATIENCE):
        """A source that has just come says to try again."""
        path = f"/v1/sources/{source}/poll"
        deadline = time.monotonic() + patience
        while True:
            status, body = self.request("POST", path, patience)
            if status != 503 or b"try again" not in body or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        assert status == 200, f"POST {path}: {status} {body.decode()}"
        return json.loads(body)

    def poll_new(self, source, server, path):
        """A poll whose answer was surely asked for after this call: one that is under way is waited for."""
        before = len(server.requests(path))
        while True:
            report = self.poll(source)
            if len(server.requests(path)) > before:
                return report

    def flush(self, patience=PATIENCE):
        return self.ask("POST", "/v1/flush?wait=1", patience)

    def records(self, source, last=1000):
        """The object lines that `tail` shows."""
        status, body = self.request("GET", f"/v1/sources/{source}/records?last={last}")
        assert status == 200, body.decode()
        return body.splitlines()

    def cli(self, *args, timeout=PATIENCE):
        """Runs a command as a user would."""
        return subprocess.run(
            [self.binary, "-c", str(self.config), *args],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=self.env,
            cwd=self.folder,
            check=False,
        )

    def events(self, *ids):
        """What the log has of these events; the log must be JSON."""
        found = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [e for e in found if not ids or e["event"] in ids]

    def stop(self, patience=PATIENCE):
        """SIGTERM; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(patience)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def end(self):
        """Whatever a test did: nothing is left running."""
        if self.process and self.process.poll() is None:
            self.kill()
