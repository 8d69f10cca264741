# SPDX-License-Identifier: Apache-2.0
"""What feeds beyond the first need: a record a line, compressed bodies, headers of our own, a way through a proxy."""

import gzip
import json
import os
import signal
import subprocess
import zlib

import pytest

import lake
from daemon import wait_until
from feed import JSON, Answer, RawServer, Server, make_certificate
from object_store import listens
from proxy import free_port

PATH = "/feed"
NDJSON = {"format": "ndjson", "records": None}
SECRET = "kEy/that+nobody=may~see"
PASSWORD = "pAss-w0rd-of-the-proxy"


def read_store(daemon):
    daemon.flush()
    found = lake.read(daemon.lake)
    assert found.problems == []
    return found


def ask(daemon, server, answer):
    """One poll that is sure to get this answer."""
    server.route(PATH, answer)
    return daemon.poll_new("feed", server, PATH)


@pytest.fixture
def settled(daemon, server):
    """Starts a daemon with one source of these settings; its first poll is over, and has brought a 0."""

    def start(answer=b"[0]", **settings):
        server.route(PATH, Answer(answer))
        daemon.configure({"feed": {"url": server.url(PATH)} | settings})
        daemon.start()
        daemon.poll("feed")
        daemon.wait_records("feed", 1)
        return daemon

    return start


# A record a line

LONG = b'{"long":"' + b"x" * ((1 << 20) - 11) + b'"}'  # max_record as it is by default
LINES = [
    b'{"n":123456789012345678901234567890,"n":1}',
    b'"a line \\n in a text"',
    b'{ "spaced" :\t[ 1 , 2 ]  }',
    b"null",
    '{"sted":"Jørnbanen 🚗"}'.encode(),
]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n\n\r\n \t\n", b" \t\r\n"], ids=["LF", "CRLF", "blank", "spaces"])
@pytest.mark.parametrize("piece", [None, 1, 7], ids=["whole", "byte by byte", "in sevens"])
def test_each_line_is_a_record_as_it_came(daemon, server, end, piece):
    server.route(PATH, Answer(end + end.join(LINES) + end, piece=piece))
    daemon.configure({"feed": {"url": server.url(PATH)} | NDJSON})
    daemon.start()
    daemon.poll("feed")
    found = read_store(daemon)
    assert found.data("feed") == LINES
    assert {r.fetch for r in found.records()} == {1}


def test_a_line_may_be_as_long_as_max_record_and_the_last_may_lack_its_end(settled, server):
    daemon = settled(b"0\n", **NDJSON)
    body = b"\xef\xbb\xbf" + b"\r\n".join([LONG, b"1", LONG, b"", b"2"])
    assert ask(daemon, server, Answer(body))["records"] == 4
    assert read_store(daemon).data("feed")[1:] == [LONG, b"1", LONG, b"2"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"n":1}\n{"n":}\n{"n":3}\n', "offset 13"),
        (b'{"n":1}\n{"n":2} {"n":3}\n', "offset 16"),
        (b'{"n":1}\n{"n":\n2}\n', "offset 13"),
        (b'{"n":1}\n"cut', "offset 12"),
        (b'{"n":1}\n' + LONG.replace(b"x", b"xx", 1) + b"\n", "more than 1048576 bytes"),
    ],
    ids=["no JSON", "two in a line", "one in two lines", "ends early", "too long"],
)
def test_one_bad_line_refuses_the_whole_answer(settled, server, body, told):
    daemon = settled(b"0\n", **NDJSON)
    report = ask(daemon, server, Answer(body))
    assert (report["outcome"], report["records"]) == ("refused", 0)
    assert told in report["text"]
    assert daemon.source("feed")["records"] == 1


def card(daemon):
    """When the buffer's files were written last."""
    return {p.name: p.stat().st_mtime_ns for p in daemon.folder.glob("buffer.db*")}


@pytest.mark.parametrize("settings", [NDJSON, {}], ids=["ndjson", "json"])
def test_an_unchanged_answer_writes_nothing(settled, server, settings):
    body = b"\n".join(LINES) if settings else b"[" + b",".join(LINES) + b"]"
    daemon = settled(b"0\n" if settings else b"[0]", **settings)
    assert ask(daemon, server, Answer(body))["outcome"] == "committed"
    before, unchanged = card(daemon), daemon.source("feed")["unchanged"]
    assert len(before) > 1
    for i in range(20):
        moving = Answer(gzip.compress(body), headers=JSON | {"Content-Encoding": "gzip", "ETag": f'"{i}"'})
        assert ask(daemon, server, moving if i % 2 else Answer(body))["outcome"] == "unchanged"
    assert card(daemon) == before
    source = daemon.source("feed")
    assert (source["records"], source["fetches"], source["unchanged"] - unchanged) == (6, 2, 20)


# Compressed bodies


def raw_deflate(body):
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


ENCODINGS = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-GZip", gzip.compress),
    "two members": ("gzip", lambda body: gzip.compress(body[:40]) + gzip.compress(body[40:])),
    "deflate": ("deflate", zlib.compress),
    "deflate without a header": ("deflate", raw_deflate),
    "identity": ("identity", bytes),
}


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("piece", [None, 1], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("settings", [NDJSON, {}], ids=["ndjson", "json"])
def test_a_compressed_body_comes_out_as_it_was(daemon, server, name, piece, settings):
    encoding, pack = ENCODINGS[name]
    body = b"\n".join(LINES) if settings else b"[" + b",".join(LINES) + b"]"
    server.route(PATH, Answer(pack(body), headers=JSON | {"Content-Encoding": encoding}, piece=piece))
    daemon.configure({"feed": {"url": server.url(PATH)} | settings})
    daemon.start()
    daemon.poll("feed")
    assert read_store(daemon).data("feed") == LINES
    assert server.requests(PATH)[0].headers["Accept-Encoding"] == "gzip, deflate"


GZIP = gzip.compress(b"[1,2,3]")


@pytest.mark.parametrize(
    ("encoding", "body"),
    [("gzip", GZIP[:-3]), ("gzip", b"[1,2,3]"), ("gzip", GZIP + b"x"), ("br", b"[1,2,3]"), ("gzip, gzip", GZIP)],
    ids=["cut", "plain", "something behind it", "br", "twice"],
)
def test_what_is_not_what_its_encoding_says_is_refused(settled, server, encoding, body):
    daemon = settled()
    report = ask(daemon, server, Answer(body, headers=JSON | {"Content-Encoding": encoding}))
    assert report["outcome"] == "refused" and report["text"]
    assert daemon.source("feed")["records"] == 1


# Headers of our own


def everything_told(daemon):
    """Whatever somebody may come to see who is not meant to know a secret."""
    told = [daemon.log.read_text()]
    for path in ("status", "stores", "sources", "batches", "config", "rejected"):
        told.append(json.dumps(daemon.ask("GET", f"/v1/{path}")))
    for words in (
        ["status"],
        ["status", "--json"],
        ["show", "config"],
        ["show", "rejected"],
        ["check"],
        ["poll", "feed"],
    ):
        done = daemon.cli(*words)
        told += [done.stdout, done.stderr]
    return "\n".join(told)


REFERENCES = {
    "file": (lambda folder: f"file:{folder / 'key'}", lambda folder: f"file:{folder / 'key'}"),
    "env": (lambda folder: "env:FEED_KEY", lambda folder: "env:FEED_KEY"),
    "literal": (lambda folder: SECRET, lambda folder: "(hidden)"),
}


@pytest.fixture
def keyed(make_daemon, server, tmp_path):
    """Starts a daemon whose source sends the secret, by that reference; gives what may be shown of it too."""

    def start(how, url=None):
        reference, shown = (make(tmp_path) for make in REFERENCES[how])
        (tmp_path / "key").write_text(SECRET + "\n")
        daemon = make_daemon(env={"FEED_KEY": SECRET})
        headers = {"X-Api-Key": reference, "Accept": "application/json"}
        daemon.configure({"feed": {"url": url or server.url(PATH), "headers": headers}})
        daemon.config.chmod(0o600)
        daemon.start()
        return daemon, shown

    return start


@pytest.mark.parametrize("how", REFERENCES)
def test_headers_are_sent_and_their_secrets_told_to_nobody(keyed, server, how):
    server.route(PATH, Answer(b"[1]"))
    daemon, shown = keyed(how)
    assert daemon.poll("feed")["outcome"] in ("committed", "unchanged")
    for request in server.requests(PATH):
        assert (request.headers["X-Api-Key"], request.headers["Accept"]) == (SECRET, "application/json")
    told = everything_told(daemon)
    assert daemon.ask("GET", "/v1/config")["sources"]["feed"]["headers"]["X-Api-Key"] == shown
    assert f"sources.feed.headers.X-Api-Key = {json.dumps(shown)}" in daemon.cli("show", "config").stdout
    refused = Answer(f"the key {SECRET} is no good".encode(), 401, {"X-Why": SECRET, "Content-Type": "text/html"})
    server.route(PATH, refused)
    assert "401" in daemon.poll_new("feed", server, PATH)["text"]
    told += everything_told(daemon)
    for part in (SECRET, SECRET[:12], SECRET[-12:]):
        assert part not in told


def test_headers_stay_with_their_origin(keyed, server):
    other = Server()
    try:
        server.route(PATH, Answer(status=302, headers={"Location": "/near"}))
        server.route("/near", Answer(status=302, headers={"Location": other.url("/far")}))
        other.route("/far", Answer(status=302, headers={"Location": server.url("/back")}))
        server.route("/back", Answer(b"[1]"))
        daemon, _ = keyed("file")
        daemon.poll("feed")
        assert read_store(daemon).data("feed") == [b"1"]
        assert [server.requests(p)[0].headers.get("X-Api-Key") for p in (PATH, "/near")] == [SECRET, SECRET]
        for request in [*other.requests(), *server.requests("/back")]:
            assert SECRET not in str(request.headers)
        other.route("/far", Answer(b"no", 403))
        assert "403" in daemon.poll_new("feed", server, PATH)["text"]
        assert SECRET not in everything_told(daemon)
    finally:
        other.close()


def test_a_reload_reads_the_secret_anew(keyed, server, tmp_path):
    server.route(PATH, Answer(b"[1]"))
    daemon, _ = keyed("file")
    daemon.poll("feed")
    (tmp_path / "key").write_text("another")
    daemon.process.send_signal(signal.SIGHUP)

    def sent():
        status, body = daemon.request("POST", "/v1/sources/feed/poll")
        assert status == 200 or (status == 503 and b"is changing" in body), body
        return server.requests(PATH)[-1].headers["X-Api-Key"] == "another"

    wait_until("the new key to be sent", sent)


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"X-Key": "a\r\nX-Evil: b"}, "control character"),
        ({"Host": "elsewhere"}, "Millrace sets this header itself"),
        ({"Proxy-Authorization": "Basic cGk6cGk="}, "write user and password into"),
        ({"X-Key": "file:not-there"}, "not-there"),
        ({"X-Key": "env:NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE"),
    ],
    ids=["line break", "ours", "the proxy's", "no file", "not set"],
)
def test_a_header_that_cannot_be_sent_is_told_before_the_start(daemon, server, headers, said):
    daemon.configure({"feed": {"url": server.url(PATH), "headers": headers}})
    for command in ("check", "run"):
        done = daemon.cli(command)
        assert done.returncode == os.EX_CONFIG
        assert said in done.stderr


# Through a proxy


class Tinyproxy:
    """Debian's, that wants a user and a password; connects is where it lets https go."""

    def __init__(self, folder, connects):
        self.port = free_port()
        self.log = folder / "tinyproxy.log"
        settings = ["Listen 127.0.0.1", f"Port {self.port}", f'LogFile "{self.log}"', "LogLevel Connect"]
        settings += ["Timeout 60", f"BasicAuth pi {PASSWORD}", f"ConnectPort {connects}"]
        file = folder / "tinyproxy.conf"
        file.write_text("\n".join(settings) + "\n")
        command = ["tinyproxy", "-d", "-c", str(file)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until("tinyproxy to listen", lambda: listens(("127.0.0.1", self.port)))

    def url(self, password=PASSWORD):
        return f"http://pi:{password}@127.0.0.1:{self.port}"

    def end(self):
        self._process.terminate()
        self._process.wait()


@pytest.fixture
def tls(tmp_path):
    """A web server that speaks https, and its certificate."""
    certificate = make_certificate(tmp_path)
    server = RawServer(certificate)
    server.route(PATH, b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n[1,2,3]")
    yield server, certificate[0]
    server.close()


@pytest.fixture
def tinyproxy(tmp_path, tls):
    proxy = Tinyproxy(tmp_path, tls[0].port)
    yield proxy
    proxy.end()


def start_behind(make_daemon, url, proxy, **env):
    daemon = make_daemon(env={"http_proxy": "http://127.0.0.1:1", "no_proxy": "*"} | env)
    daemon.configure({"feed": {"url": url, "proxy": proxy, "headers": {"X-Api-Key": "env:FEED_KEY"}}})
    daemon.env["FEED_KEY"] = SECRET
    daemon.start()
    return daemon


def test_http_goes_through_the_proxy(make_daemon, server, tinyproxy):
    server.route(PATH, Answer(b"[1,2,3]"))
    daemon = start_behind(make_daemon, server.url(PATH), tinyproxy.url())
    daemon.poll("feed")
    assert read_store(daemon).data("feed") == [b"1", b"2", b"3"]
    for request in server.requests(PATH):
        assert "tinyproxy" in request.headers["Via"]
        assert request.headers["X-Api-Key"] == SECRET
        assert "Proxy-Authorization" not in request.headers
    assert PASSWORD not in everything_told(daemon)
    assert daemon.ask("GET", "/v1/config")["sources"]["feed"]["proxy"] == f"http://(hidden)@127.0.0.1:{tinyproxy.port}"


def test_https_goes_through_a_tunnel_of_the_proxy(make_daemon, tls, tinyproxy):
    feed, certificate = tls
    daemon = start_behind(make_daemon, feed.url(PATH), tinyproxy.url(), SSL_CERT_FILE=str(certificate))
    daemon.poll("feed")
    assert read_store(daemon).data("feed") == [b"1", b"2", b"3"]
    assert f"CONNECT 127.0.0.1:{feed.port}" in tinyproxy.log.read_text()
    assert SECRET.encode() in feed.requests(PATH)[0].head
    assert b"proxy" not in feed.requests(PATH)[0].head.lower()
    assert PASSWORD not in everything_told(daemon)


def refusals(tinyproxy, server, feed):
    """name: (the source's URL, the proxy, what the error says)."""
    port, other = tinyproxy.port, free_port()
    wrong = tinyproxy.url("wr0ng-" + PASSWORD)
    return {
        "http, wrong password": (server.url(PATH), wrong, port, "HTTP 401"),
        "http, no password": (server.url(PATH), f"http://127.0.0.1:{port}", port, "wants a user and a password"),
        "https, wrong password": (feed.url(PATH), wrong, port, "did not connect, it answered 401"),
        "https, no password": (feed.url(PATH), f"http://127.0.0.1:{port}", port, "wants a user and a password"),
        "https, a port that it does not serve": (
            f"https://127.0.0.1:{other}{PATH}",
            tinyproxy.url(),
            port,
            "did not connect, it answered 403",
        ),
        "nobody there": (server.url(PATH), f"http://pi:{PASSWORD}@127.0.0.1:{other}", other, "refused by the proxy"),
    }


def test_a_proxy_that_refuses_is_named_without_its_password(make_daemon, server, tls, tinyproxy):
    feed, certificate = tls
    server.route(PATH, Answer(b"[1,2,3]"))
    for i, (name, (url, proxy, port, said)) in enumerate(refusals(tinyproxy, server, feed).items()):
        daemon = make_daemon(str(i), env={"SSL_CERT_FILE": str(certificate)})
        daemon.configure({"feed": {"url": url, "proxy": proxy, "headers": {"X-Api-Key": SECRET}}})
        daemon.start()
        report = daemon.poll("feed")
        assert (report["outcome"], report["records"]) == ("failed", 0), name
        assert f"through the proxy http://127.0.0.1:{port}: " in report["text"], name
        assert said in report["text"], name
        told = everything_told(daemon)
        assert PASSWORD not in told and SECRET not in told, name
        daemon.end()
    assert (server.requests(), feed.requests()) == ([], [])


def test_what_the_source_may_know_is_not_told_to_the_proxy(make_daemon):
    """Of https it gets CONNECT alone: no header of ours, no path, no query."""
    proxy = RawServer()
    try:
        proxy.route("", b"HTTP/1.1 200 OK\r\n\r\nno TLS at all")
        url = f"https://feed.invalid{PATH}?token={SECRET}"
        daemon = start_behind(make_daemon, url, f"http://pi:{PASSWORD}@127.0.0.1:{proxy.port}")
        assert daemon.poll("feed")["outcome"] == "failed"
        head = proxy.requests()[0].head
        assert head.startswith(b"CONNECT feed.invalid:443 HTTP/1.1\r\n")
        assert b"Proxy-Authorization: Basic " in head
        assert SECRET.encode() not in head and PATH.encode() not in head
        told = everything_told(daemon)
        assert PASSWORD not in told and SECRET not in told
    finally:
        proxy.close()
