# SPDX-License-Identifier: Apache-2.0
"""Answers that no source should give, and what must become of each. For test_hostile_answers.py.

An answer is raw bytes for feed.RawServer, or a function that makes them piece by piece, for ever where that is what it
is about: nothing large is ever held in memory here.
"""

import gzip
import time
import zlib
from dataclasses import dataclass, field
from email.utils import formatdate

from feed import Reset

BODY = b'[{"n":1,"t":"a\\u00e9"},{"n":-2.5e3,"o":[true,null]}]'
RECORDS = 2
LINES = b'{"n":1,"t":"a\\u00e9"}\n{"n":-2.5e3,"o":[true,null]}\n'
INNER = b'{"data":{"items":' + BODY + b'},"page":1}'
GZIP = gzip.compress(BODY, mtime=0)

MAX_BODY = 1 << 20
MAX_RECORD = 4096
TIMEOUT = "400ms"  # of the slow ones
SETTINGS = {"every": "1h", "max_body": "1M", "max_record": "4K", "timeout": "10s", "records": "$"}
SLOW = SETTINGS | {"timeout": TIMEOUT}
NDJSON = SETTINGS | {"format": "ndjson", "records": None}
DEEP = SETTINGS | {"records": "data.items"}
WHOLE = SETTINGS | {"records": None}
LARGE = SETTINGS | {"max_body": "1G"}  # where a bound other than max_body is meant to bite

FIRST = b"HTTP/1.1 200 OK\r\n"
TYPE = b"Content-Type: application/json\r\n"


@dataclass
class Case:
    """outcome, cause (of a refused one) and told, which the text must have, are what must become of it."""

    name: str
    answer: object
    outcome: str | None = None  # None: refused or failed
    cause: str | None = None
    told: str = ""
    settings: dict = field(default_factory=lambda: SETTINGS)
    where: str = "http"  # which server: "http", "https", or another address in full
    most_sent: int | None = None  # bytes that may have left the server: so early it is given up
    next_poll_s: tuple = (0, 3700)

    @property
    def good(self):
        """What the source answers once it has come to its senses."""
        if self.settings.get("format") == "ndjson":
            return answer(LINES)
        return answer(INNER if self.settings["records"] == "data.items" else BODY)

    @property
    def can_recover(self):
        """Whether another answer would help; of a server that cannot be talked to there is none."""
        return self.where in ("http", "https")

    @property
    def records(self):
        return 1 if self.settings == WHOLE else RECORDS


CASES = {}


def case(name, *args, **kwargs):
    assert name not in CASES, name
    CASES[name] = Case(name, *args, **kwargs)


def answer(body, *headers, length=None, first=FIRST):
    """A whole answer; length: the Content-Length that it tells, where that is not the body's."""
    length = len(body) if length is None else length
    return b"".join([first, TYPE, *(h + b"\r\n" for h in headers), b"Content-Length: %d\r\n\r\n" % length, body])


def unsized(body, *headers):
    """It ends where the connection does."""
    return b"".join([FIRST, TYPE, *(h + b"\r\n" for h in headers), b"\r\n", body])


def chunked(rest, *headers):
    return unsized(rest, b"Transfer-Encoding: chunked", *headers)


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def forever(start, again, pause=0):
    """The bytes of `start`, and then `again` for as long as somebody reads."""

    def pieces(_request):
        yield start
        while True:
            yield again
            if pause:
                time.sleep(pause)

    return pieces


def broken(start):
    """The connection is reset after these bytes."""

    def pieces(_request):
        yield start
        time.sleep(0.05)  # a reset overtakes what lies before it
        raise Reset

    return pieces


def silent(_request):
    time.sleep(1.5)
    yield b""


def each_truncation():
    for cut in range(len(BODY)):
        part = BODY[:cut]
        told = f"ended after {cut} of {len(BODY)} bytes"
        case(f"cut at {cut}", answer(part, length=len(BODY)), "refused", "truncated", told)
        case(f"broken off at {cut}", answer(part), "refused", "truncated" if cut else "empty", f"offset {cut}")
        told = f"ended after {cut} bytes, before its last chunk"
        case(f"chunk cut at {cut}", chunked(b"%x\r\n" % len(BODY) + part), "refused", "truncated", told)
    case("cut between chunks", chunked(chunk(BODY[:9]) + chunk(BODY[9:])), "refused", "truncated", "its last chunk")
    for cut in range(len(GZIP)):
        case(f"gzip cut at {cut}", encoded(GZIP[:cut]), "refused", ENCODING)
    for cut in range(len(LINES)):
        if LINES[:cut].rpartition(b"\n")[2] not in (b"", *LINES.split(b"\n")):  # whole lines are a fine answer
            case(f"ndjson broken off at {cut}", answer(LINES[:cut]), "refused", "truncated", "", settings=NDJSON)


def lengths():
    def told(name, header, *expected, body=BODY):
        case(f"length {name}", unsized(body, b"Content-Length: " + header), *expected)

    told("too short", b"%d" % (len(BODY) - 1), "refused", "truncated", "offset")
    told("zero", b"0", "refused", "empty")
    told("over max_body", b"%d" % (MAX_BODY + 1), "refused", "too-large", str(MAX_BODY))
    told("2^63 - 1", b"%d" % (2**63 - 1), "refused", "too-large")
    told("2^64", b"%d" % 2**64, "refused", "too-large")
    told("of 100 digits", b"9" * 100, "refused", "too-large")
    told("negative", b"-5", "failed", None, "Content-Length")
    told("a word", b"many", "failed", None, "Content-Length")
    told("empty", b"", "failed", None, "Content-Length")
    case("longer than max_body, unsized", forever(unsized(b"["), b" " * 65536), "refused", "too-large", str(MAX_BODY))
    case("longer than max_body, chunked", forever(chunked(chunk(b"[")), chunk(b" " * 65536)), "refused", "too-large")
    for name, settings in (("split", SETTINGS), ("whole", WHOLE), ("ndjson", NDJSON), ("deep", DEEP)):
        case(f"endless, {name}", forever(unsized(b""), b" \n" * 9999), "refused", "too-large", settings=settings)


def chunks():
    def bad(name, rest, told=""):
        case(f"chunk {name}", chunked(chunk(BODY[:9]) + rest), "failed", None, told)

    bad("size no number", b"zz\r\n" + BODY[9:] + b"\r\n0\r\n\r\n")
    bad("size negative", b"-1\r\n" + BODY[9:] + b"\r\n0\r\n\r\n")
    bad("size empty", b"\r\n" + BODY[9:] + b"\r\n0\r\n\r\n")
    bad("size of 17 digits", b"1" + b"0" * 16 + b"\r\n" + BODY[9:])
    bad("size with a NUL", b"\x00\r\n" + BODY[9:] + b"\r\n0\r\n\r\n")
    bad("size of a thousand digits", b"0" * 1000 + b"3\r\n" + BODY[9:])
    bad("without its line end", b"1\r\n" + BODY[9:] + b"\r\n0\r\n\r\n")
    for name, size in (("2^31 - 1", b"7fffffff"), ("2^32", b"100000000"), ("2^63 - 1", b"7" + b"f" * 15)):
        rest = chunk(BODY[:9]) + size + b"\r\n" + BODY[9:]
        case(f"chunk of {name} that ends early", chunked(rest), "refused", "truncated", "before its last chunk")
        endless = forever(chunked(chunk(BODY[:9]) + size + b"\r\n" + b"1," * 9), b" " * 65536)
        case(f"chunk of {name}", endless, "refused", "record-too-large", "offset")
    endless = forever(chunked(b"7fffffff\r\n["), b" " * 65536)
    case("chunk larger than max_body", endless, "refused", "too-large", settings=SETTINGS)
    endless = forever(chunked(chunk(b"[") + b"5;"), b"x" * 4096, pause=0.001)
    case("chunk extension without end", endless, "failed", None, "400ms", settings=SLOW)
    endless = forever(chunked(chunk(b"[1]")), b"1;" + b"x" * 9000 + b"\r\n \r\n", pause=0.001)
    case("chunk extensions for ever", endless, "failed", None, "400ms", settings=SLOW)
    endless = forever(chunked(chunk(BODY) + b"0\r\n"), b"X-Trailer: again\r\n" * 50)
    case("trailers without end", endless, "refused", "too-large", "headers")
    endless = forever(chunked(chunk(BODY) + b"0\r\nX-Trailer: "), b"y" * 4096)
    case("trailer line without end", endless)
    case("last chunk and nothing", chunked(chunk(BODY) + b"0\r\n"), "refused", "truncated")


def headers():
    endless = forever(FIRST, b"X-Header: again\r\n" * 50)
    case("headers without end", endless, "refused", "too-large", "headers", most_sent=8 << 20)
    endless = forever(FIRST + b"X-Header: ", b"y" * 4096)
    case("header line without end", endless, told="header", most_sent=8 << 20)
    endless = forever(b"HTTP/1.1 200 ", b"y" * 4096)
    case("status line without end", endless, told="header", most_sent=8 << 20)
    endless = forever(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 50)
    case("1xx without end", endless, "refused", "too-large", "headers", most_sent=8 << 20)
    endless = forever(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 50)
    case("100 without end", endless, "refused", "too-large", "headers", most_sent=8 << 20)
    case("ended within its headers", FIRST + TYPE, "refused", "truncated", "within its headers")
    case("ended within a header line", FIRST + b"Content-Ty", "refused", "truncated", "within its headers")
    case("ended within the status line", b"HTTP/1.", "failed")
    case("nothing at all", b"", "failed")
    case("bytes that are no HTTP", bytes(range(256)) * 8, "failed")
    case("JSON that is no HTTP", BODY, "failed")
    case("another protocol", b"SSH-2.0-OpenSSH_9.2p1\r\n", "failed")
    case("HTTP/9.9", answer(BODY, first=b"HTTP/9.9 200 OK\r\n"), "failed")
    case("status no number", answer(BODY, first=b"HTTP/1.1 abc OK\r\n"), "failed")
    case("status of four digits", answer(BODY, first=b"HTTP/1.1 2000 OK\r\n"), "failed")
    case("NUL in a header", answer(BODY, b"X-Header: a\x00b"), "failed")
    case("header without a colon", unsized(BODY, b"nonsense"), "failed")
    case("reset before the answer", broken(b""), "failed")
    case("reset within the headers", broken(FIRST), "failed")
    case("reset within the body", broken(answer(BODY[:20], length=len(BODY))), "refused", "truncated")
    case("reset in an unsized body", broken(unsized(BODY)), "refused", "truncated")
    case("1xx and then an answer", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 3 + answer(BODY), "committed")
    case("status without a reason", answer(BODY, first=b"HTTP/1.1 200\r\n"), "committed")
    case("no length, ended by closing", unsized(BODY), "committed")
    case(
        "chunk by chunk", chunked(b"".join(chunk(BODY[i : i + 1]) for i in range(len(BODY))) + chunk(b"")), "committed"
    )
    case("101", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n" + BODY)


def slow():
    case("silence", silent, "failed", None, "no answer within 400ms", settings=SLOW)
    endless = forever(unsized(b"["), b" ", pause=0.02)
    case("body that trickles for ever", endless, "failed", None, "did not end within 400ms", settings=SLOW)
    endless = forever(chunked(b""), chunk(b" "), pause=0.02)
    case("chunks that trickle for ever", endless, "failed", None, "did not end within 400ms", settings=SLOW)
    endless = forever(FIRST, b"X: y\r\n", pause=0.02)
    case("headers that trickle for ever", endless, "failed", None, "400ms", settings=SLOW)
    endless = forever(b"", b"H", pause=0.02)
    case("nonsense that trickles for ever", endless, "failed", settings=SLOW)
    endless = forever(unsized(zlib_start(), b"Content-Encoding: gzip"), STORED_NOTHING, pause=0.02)
    case("gzip that trickles nothing for ever", endless, "failed", None, "400ms", settings=SLOW)
    endless = forever(unsized(b"", b"Content-Encoding: gzip"), b"", pause=0.02)
    case("gzip of which nothing comes", endless, "failed", None, "400ms", settings=SLOW)
    lines = forever(unsized(LINES), b"\n", pause=0.02)
    case("lines that trickle for ever", lines, "failed", None, "400ms", settings=NDJSON | {"timeout": TIMEOUT})


def redirect(to, status=302, body=b"moved"):
    return answer(body, b"Location: " + to, first=b"HTTP/1.1 %d Found\r\n" % status)


def hops(n):
    """A route that redirects to itself n times, and then answers."""
    seen = {}

    def pieces(request):
        seen[request.path] = seen.get(request.path, 0) + 1
        yield redirect(request.path.encode()) if seen[request.path] <= n else answer(BODY)

    return pieces


def redirects():
    for status in (301, 302, 303, 307, 308):
        case(f"{status} in a circle", lambda r, s=status: [redirect(r.path.encode(), s)], "failed", None, "redirects")
    case("more redirects than are followed", hops(6), "failed", None, "more than 5 redirects")
    case("as many redirects as are followed", hops(5), "committed")
    for to in (
        "file:///etc/passwd",
        "ftp://127.0.0.1/feed.json",
        "gopher://127.0.0.1:70/",
        "dict://127.0.0.1:2628/",
        "javascript:alert(1)",
        "data:application/json,[1]",
        "ldap://127.0.0.1/",
        "unix:/run/docker.sock",
        "http://",
        "http:///etc/passwd",
        "http://127.0.0.1:99999/",
        "http://[::1/",
    ):
        case(f"redirect to {to}", redirect(to.encode()), "failed", None, "redirect")
    case("redirect to nowhere", answer(b"", first=b"HTTP/1.1 302 Found\r\n"), "failed", None, "HTTP 302")
    case("redirect to a closed port", redirect(b"http://127.0.0.1:1/"), "failed", None, "127.0.0.1:1")
    case(
        "redirect with a body that is cut",
        answer(b"x", b"Location: /x", length=9, first=b"HTTP/1.1 302 F\r\n"),
        "refused",
        "truncated",
    )
    endless = forever(unsized(b"").replace(FIRST, b"HTTP/1.1 302 F\r\nLocation: /x\r\n"), b"x" * 65536)
    case("redirect with a body without end", endless, "refused", "too-large", most_sent=16 << 20)
    case("https to http", lambda _r: [redirect(PLAIN["url"].encode())], "failed", None, "redirect", where="https")
    case("300", answer(BODY, first=b"HTTP/1.1 300 Multiple Choices\r\n"), "failed", None, "HTTP 300")


PLAIN = {"url": "http://127.0.0.1:1/"}  # where "https to http" leads; the test puts an address there that would answer


# What rest.c calls an answer whose inside is not what Content-Encoding says.
ENCODING = None
STORED_NOTHING = b"\x00\x00\x00\xff\xff"  # deflate: a stored block of no bytes


def zlib_start():
    return b"\x1f\x8b\x08" + bytes(7)


def encoded(body, name=b"gzip"):
    return answer(body, b"Content-Encoding: " + name)


def raw_deflate(data):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def bomb(start, again, total, header=b"Content-Encoding: gzip"):
    """`total` bytes of `again` inside gzip, made from one block that is sent again and again."""
    step = 10 << 20
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(again * (step // len(again))) + packer.flush(zlib.Z_FULL_FLUSH)

    def pieces(_request):
        yield unsized(b"", header)
        yield zlib_start() + first
        for _ in range(total // step):
            yield block
        yield packer.copy().flush() + bytes(8)

    return pieces


def members(member, n):
    def pieces(_request):
        yield unsized(b"", b"Content-Encoding: gzip")
        for _ in range(n):
            yield member

    return pieces


TEN_GB = 10 << 30


def bombs():
    """Each is some 10 MB on the wire and 10 GB inside: the server must get rid of next to nothing of it."""
    most = 6 << 20  # what sockets hold is sent, too
    for name, settings in (("", LARGE), (" and max_body small", SETTINGS)):
        for what, start, again in (
            ("zeros", b"", b"\x00"),
            ("white space", b"[", b" "),
            ("one record", b'["', b"x"),
            ("small records", b"[1", b",1"),
            ("deep arrays", b"[", b"["),
        ):
            case(
                f"gzip bomb of {what}{name}",
                bomb(start, again, TEN_GB),
                "refused",
                settings=settings,
                most_sent=most,
            )
    case("gzip bomb of lines", bomb(b"", b"1\n", TEN_GB), "refused", settings=NDJSON, most_sent=most)
    case("gzip bomb of blank lines", bomb(b"", b"\n", TEN_GB), "refused", settings=NDJSON, most_sent=most)
    case("gzip bomb, the whole a record", bomb(b'"', b"x", TEN_GB), "refused", settings=WHOLE, most_sent=most)
    space = gzip.compress(b" " * (10 << 20), mtime=0)
    case("gzip bomb of members", members(space, 1024), "refused", settings=LARGE, most_sent=most)
    empty = gzip.compress(b"", mtime=0) * 1000
    case("gzip of empty members", members(empty, 4096), "refused", settings=SETTINGS, most_sent=most)
    name = forever(unsized(b"\x1f\x8b\x08\x08" + bytes(6), b"Content-Encoding: gzip"), b"n" * 65536)
    case("gzip with a file name without end", name, "refused", "too-large", most_sent=most)
    nothing = forever(unsized(zlib_start(), b"Content-Encoding: gzip"), STORED_NOTHING * 9999)
    case("gzip of empty blocks without end", nothing, "refused", "too-large", most_sent=most)


def encodings():
    for at in range(10, len(GZIP)):
        flipped = GZIP[:at] + bytes([GZIP[at] ^ 0xFF]) + GZIP[at + 1 :]
        case(f"gzip with a byte changed at {at}", encoded(flipped), "refused")
    case("gzip and garbage behind", encoded(GZIP + b"garbage"), "refused")
    case("gzip and zeros behind", encoded(GZIP + bytes(20)), "refused")
    case("gzip and half a member behind", encoded(GZIP + gzip.compress(b" ", mtime=0)[:12]), "refused")
    case("gzip with reserved flags", encoded(GZIP[:3] + b"\xe0" + GZIP[4:]), "refused")
    case("gzip of another method", encoded(GZIP[:2] + b"\x07" + GZIP[3:]), "refused")
    case("plain called gzip", encoded(BODY), "refused")
    case("plain called deflate", encoded(BODY, b"deflate"), "refused")
    case("gzip called deflate", encoded(GZIP, b"deflate"), "refused")
    case("deflate called gzip", encoded(zlib.compress(BODY)), "refused")
    case("gzip called nothing", answer(GZIP), "refused", "not-json", "offset 0")
    case("empty called gzip", encoded(b""), "refused")
    case("gzip of nothing", encoded(gzip.compress(b"", mtime=0)), "refused", "empty")
    case("gzip of HTML", encoded(gzip.compress(HTML, mtime=0)), "refused", "not-json", "offset 0")
    for cut in (1, 2, 9):
        case(f"gzip of {cut} bytes less", encoded(gzip.compress(BODY[:-cut], mtime=0)), "refused", "truncated")
    for name in (b"br", b"zstd", b"compress", b"gzipped", b"gzi", b"aes128gcm", b"gzip, gzip", b"gzip, br", b"x" * 999):
        told = "Content-Encoding"
        case(f"encoding {name.decode()[:20]}", encoded(GZIP, name), "refused", None, told)
    case("gzip twice", encoded(gzip.compress(GZIP, mtime=0), b"gzip, gzip"), "refused", None, "Content-Encoding")
    case("gzip twice, told once", encoded(gzip.compress(GZIP, mtime=0)), "refused", "not-json", "offset 0")
    case("gzip in two headers", answer(GZIP, b"Content-Encoding: br", b"Content-Encoding: gzip"))
    case("zlib with a preset dictionary", encoded(b"\x78\xbb\x00\x00\x00\x01" + bytes(9), b"deflate"), "refused")
    case("deflate with a bad checksum", encoded(zlib.compress(BODY)[:-1] + b"\x00", b"deflate"), "refused")
    case("deflate, raw, cut", encoded(raw_deflate(BODY)[:-3], b"deflate"), "refused")
    case("deflate, zlib, cut", encoded(zlib.compress(BODY)[:-3], b"deflate"), "refused")
    for name in (b"gzip", b"GZIP", b"x-gzip", b"Gzip"):
        case(f"fine: {name.decode()}", encoded(GZIP, name), "committed")
    case(
        "fine: gzip in chunks",
        chunked(chunk(GZIP[:5]) + chunk(GZIP[5:]) + chunk(b""), b"Content-Encoding: gzip"),
        "committed",
    )
    case("fine: gzip of two members", encoded(gzip.compress(BODY[:9]) + gzip.compress(BODY[9:])), "committed")
    case("fine: deflate with zlib's header", encoded(zlib.compress(BODY), b"deflate"), "committed")
    case("fine: deflate, raw", encoded(raw_deflate(BODY), b"deflate"), "committed")
    case("fine: identity", encoded(BODY, b"identity"), "committed")
    case("fine: gzip of lines", encoded(gzip.compress(LINES), b"gzip"), "committed", settings=NDJSON)


HTML = b"<!DOCTYPE html><html><title>Maintenance</title></html>\n"

BAD_UTF_8 = {
    "a lone continuation": b"\x80",
    "a two-byte sequence cut": b"\xc3",
    "a three-byte sequence cut": b"\xe2\x82",
    "a four-byte sequence cut": b"\xf0\x9f\x98",
    "two bytes too long for /": b"\xc0\xaf",
    "two bytes too long for DEL": b"\xc1\xbf",
    "three bytes too long": b"\xe0\x9f\xbf",
    "four bytes too long": b"\xf0\x8f\xbf\xbf",
    "a surrogate": b"\xed\xa0\x80",
    "two surrogates (CESU-8)": b"\xed\xa0\xbd\xed\xb8\x80",
    "U+110000": b"\xf4\x90\x80\x80",
    "0xf5": b"\xf5\x80\x80\x80",
    "0xf8": b"\xf8\x88\x80\x80\x80",
    "0xfe": b"\xfe",
    "0xff": b"\xff",
    "Latin-1": b"K\xf8benhavn",
}

BAD_JSON = {
    "comma at the end": b"[1,]",
    "comma at the start": b"[,1]",
    "two commas": b"[1,,2]",
    "no comma": b"[1 2]",
    "colon in an array": b"[1:2]",
    "object without a colon": b'[{"a" 1}]',
    "object with a bare key": b"[{a:1}]",
    "object with a number as key": b"[{1:1}]",
    "object with a comma at the end": b'[{"a":1,}]',
    "object without a value": b'[{"a":}]',
    "brackets crossed": b'[{"a":1]}',
    "one bracket too many": b"[1]]",
    "two texts": b"[1][2]",
    "garbage behind": b"[1] x",
    "single quotes": b"['a']",
    "a comment": b"[1 /* one */]",
    "a line comment": b"[1] // one",
    "NaN": b"[NaN]",
    "Infinity": b"[-Infinity]",
    "True": b"[True]",
    "nul": b"[nul]",
    "nulll": b"[nulll]",
    "01": b"[01]",
    "1.": b"[1.]",
    ".5": b"[.5]",
    "+1": b"[+1]",
    "-": b"[-]",
    "1e": b"[1e]",
    "1e+": b"[1e+]",
    "0x1": b"[0x1]",
    "an escape that is none": b'["\\x41"]',
    "an escape of three digits": b'["\\u123"]',
    "an escape of no digits": b'["\\u12g4"]',
    "a tab in a string": b'["a\tb"]',
    "a line break in a string": b'["a\nb"]',
    "0x1f in a string": b'["a\x1fb"]',
    "a NUL in a string": b'["a\x00b"]',
    "a NUL in a key": b'[{"a\x00":1}]',
    "a NUL between": b"[1,\x002]",
    "a NUL in a number": b"[1\x002]",
    "a NUL first": b"\x00[1]",
    "a NUL last": b"[1]\x00",
    "nothing but NULs": b"\x00" * 5000,
    "a form feed between": b"[1,\x0c2]",
    "a no-break space between": b"[1,\xc2\xa02]",
    "a byte order mark twice": b"\xef\xbb\xbf\xef\xbb\xbf[1]",
    "a byte order mark inside": b"[\xef\xbb\xbf1]",
    "UTF-16": '[{"n":1}]'.encode("utf-16"),
    "UTF-16 without a mark": '[{"n":1}]'.encode("utf-16-le"),
    "UTF-32": '[{"n":1}]'.encode("utf-32"),
    "XML": b'<?xml version="1.0"?><feed/>',
    "plain text": b"Service temporarily unavailable\n",
    "a login page": HTML,
    "CSV": b"name,free\nForum,12\n",
    "JSONP": b"callback([1]);",
    "a hijack guard": b")]}',\n[1]",
    "a whole number": b"17",
    "null": b"null",
    "a string": b'"closed"',
    "an object": b'{"error":"maintenance"}',
}


def inside():
    for name, text in BAD_JSON.items():
        case(f"JSON: {name}", answer(text), "refused", None, "offset")
    for name, text in BAD_UTF_8.items():
        cause = None if name == "Latin-1" else "not-utf-8"
        case(f"UTF-8: {name}", answer(b'["' + text + b'"]'), "refused", cause, "offset")
        case(f"UTF-8 in a key: {name}", answer(b'[{"' + text + b'":1}]'), "refused", cause, "offset")
        case(f"UTF-8 in a line: {name}", answer(b'1\n"' + text + b'"\n'), "refused", cause, settings=NDJSON)
    deep = 100_000
    told = "offset 512"
    case("arrays 100,000 deep", answer(b"[" * deep + b"]" * deep), "refused", "too-deep", told)
    case("arrays 100,000 deep and open", answer(b"[" * deep), "refused", "too-deep", told)
    case("objects 100,000 deep", answer(b'[{"a":' + b'{"a":' * deep), "refused", "too-deep")
    case("both 100,000 deep", answer(b'[{"a":' * deep), "refused", "too-deep")
    case("arrays 100,000 deep, the whole a record", answer(b"[" * deep), "refused", "too-deep", settings=WHOLE)
    case("a line 100,000 deep", answer(b"1\n" + b"[" * deep), "refused", "too-deep", settings=NDJSON)
    case("100,000 deep beside the path", answer(b'{"x":' + b"[" * deep), "refused", "too-deep", settings=DEEP)
    case("arrays without end", forever(unsized(b""), b"[" * 65536), "refused", "too-deep", told)
    large = b"x" * MAX_RECORD
    case("a record too large", answer(b'[1,"' + large + b'"]'), "refused", "record-too-large")
    case("a number too large", answer(b"[1," + b"9" * 5000 + b"]"), "refused", "record-too-large")
    case("a key too large", answer(b'[{"' + large + b'":1}]'), "refused", "record-too-large")
    case("a record of white space too large", answer(b"[[" + b" " * 5000 + b"]]"), "refused", "record-too-large")
    case("a record without end", forever(unsized(b'["'), b"x" * 65536), "refused", "record-too-large")
    case("a whole too large", answer(b'"' + large + b'"'), "refused", "record-too-large", settings=WHOLE)
    html = answer(HTML).replace(b"application/json", b"text/html; charset=utf-8")
    case("a web page", html, "refused", "not-json", "web page")
    case(
        "a web page without end", forever(html.split(b"Content-Length")[0] + b"\r\n", HTML * 99), "refused", "not-json"
    )


def paths():
    def bad(name, body, cause="no-records"):
        case(f"path {name}", answer(body), "refused", cause, settings=DEEP)

    bad("missing", b'{"page":1}')
    bad("missing below", b'{"data":{"page":1}}')
    bad("in an array", b"[" + INNER + b"]")
    bad("of another case", b'{"Data":{"Items":[1]}}')
    bad("on another level", b'{"items":[1],"data":{}}')
    for name, value in (("an object", b'{"a":1}'), ("text", b'"x"'), ("null", b"null"), ("a number", b"1")):
        bad(f"leads to {name}", b'{"data":{"items":' + value + b"}}")
        bad(f"leads through {name}", b'{"data":' + (value if name != "an object" else b"[1]") + b"}")
    bad("twice", b'{"data":{"items":[1],"items":[2]}}', None)
    bad("twice, the first part", b'{"data":{"items":[1]},"data":{"items":[2]}}', None)
    bad("twice, once in escapes", b'{"data":{"items":[1],"\\u0069tems":[2]}}', None)
    bad("there and then broken", INNER[:-4], "truncated")
    bad("there and garbage behind", INNER + b"}", "not-json")


def lines():
    def bad(name, body, cause, told="offset"):
        case(f"ndjson {name}", answer(body), "refused", cause, told, settings=NDJSON)

    large = b'"' + b"x" * MAX_RECORD + b'"\n'
    bad("line too long", LINES + large, "record-too-large")
    bad("line too long and last", LINES + large[:-1], "record-too-large")
    bad("two values a line", LINES + b"1 2\n", "not-json")
    bad("two objects a line", LINES + b"{}{}\n", "not-json")
    bad("comma behind", b"1,\n2\n", "not-json")
    bad("last line broken", LINES + b'{"n":3', "truncated")
    bad("middle line broken", b'{"n":1\n' + LINES, None)
    bad("a value over two lines", b'{"n":\n1}\n', None)
    bad("NUL line", LINES + b"\x00\n", "not-json")
    bad("web page", HTML, "not-json")
    bad("string over two lines", b'"a\nb"\n', None)
    endless = forever(unsized(b'"'), b"x" * 65536)
    case("ndjson line without end", endless, "refused", "record-too-large", settings=NDJSON)
    case("fine: ndjson without its last line end", answer(LINES[:-1]), "committed", settings=NDJSON)
    case("fine: ndjson with CR LF", answer(LINES.replace(b"\n", b"\r\n")), "committed", settings=NDJSON)


def statuses():
    for status in (
        201,
        202,
        203,
        205,
        206,
        400,
        401,
        402,
        403,
        404,
        405,
        406,
        407,
        408,
        409,
        410,
        413,
        414,
        416,
        418,
        421,
        422,
        423,
        425,
        426,
        428,
        429,
        431,
        451,
        500,
        501,
        502,
        503,
        504,
        505,
        507,
        508,
        511,
        520,
        599,
        600,
        777,
        999,
    ):
        reply = answer(BODY, first=b"HTTP/1.1 %d Whatever\r\n" % status)
        case(f"{status} with a body", reply, "failed", None, f"HTTP {status}")
    for status in (204, 304):
        case(f"{status}", b"HTTP/1.1 %d Nothing\r\n\r\n" % status, "failed", None, f"HTTP {status}")
        reply = answer(BODY, first=b"HTTP/1.1 %d Nothing\r\n" % status)
        case(f"{status} with a body", reply, "failed", None, f"HTTP {status}")
    case(
        "206 in parts",
        answer(BODY, b"Content-Range: bytes 0-9/999", first=b"HTTP/1.1 206 P\r\n"),
        "failed",
        None,
        "206",
    )
    cut = answer(BODY[:9], length=len(BODY), first=b"HTTP/1.1 503 Down\r\n")
    case("503 cut short", cut, "failed", None, "HTTP 503")
    endless = forever(unsized(b"").replace(b"200 OK", b"500 Down"), b"x" * 65536)
    case("500 without end", endless, "failed", None, "HTTP 500", most_sent=16 << 20)
    endless = forever(unsized(b"").replace(b"200 OK", b"404 Gone"), b"x", pause=0.02)
    case("404 that trickles for ever", endless, "failed", None, "HTTP 404", settings=SLOW)
    coded = answer(b"no gzip", b"Content-Encoding: gzip", first=b"HTTP/1.1 502 Bad\r\n")
    case("502 with a broken encoding", coded, "failed", None, "HTTP 502")
    coded = answer(b"moved", b"Content-Encoding: br", b"Location: /x", first=b"HTTP/1.1 302 Found\r\n")
    case("302 with a broken encoding", coded, "failed", None, "HTTP 404")
    now = time.time()
    for name, value, least, most in (
        ("in seconds", "1800", 1700, 1900),
        ("of zero", "0", 0, 3700),
        ("huge", "9" * 30, 3000, 3700),
        ("negative", "-1", 0, 3700),
        ("no number", "soon", 0, 3700),
        ("with a fraction", "1.5", 0, 3700),
        ("a date", formatdate(now + 3000, usegmt=True), 600, 3100),
        ("a date long ago", formatdate(0, usegmt=True), 0, 3700),
        ("a date far off", formatdate(now + 10 * 365 * 86400, usegmt=True), 3000, 3700),
        ("a date that is none", "Foo, 99 Bar 2031 25:61:61 GMT", 0, 3700),
        ("empty", "", 0, 3700),
    ):
        for status in (429, 503):
            reply = answer(BODY, b"Retry-After: " + value.encode(), first=b"HTTP/1.1 %d Slow\r\n" % status)
            told = f"HTTP {status}"
            case(f"{status}, Retry-After {name}", reply, "failed", None, told, next_poll_s=(least, most))


def tls():
    case("https to a plain port", answer(BODY), "failed", None, "https", where="plain https")
    case("a certificate of somebody else", answer(BODY), "failed", None, "certificate", where="untrusted")
    case("cut over TLS", answer(BODY[:20], length=len(BODY)), "refused", "truncated", "20 of", where="https")
    case("reset over TLS", broken(answer(BODY[:20], length=len(BODY))), "refused", "truncated", where="https")
    case("gzip bomb over TLS", bomb(b"[", b" ", TEN_GB), "refused", settings=LARGE, where="https", most_sent=6 << 20)
    case("fine: https", answer(BODY), "committed", where="https")


# The buffer keeps the newest refused answers of 256 sources: what is like the others comes first.
MAKERS = (each_truncation, encodings, lengths, chunks, headers, slow, redirects, bombs, inside, paths, lines, statuses)
for make in (*MAKERS, tls):
    make()
