# SPDX-License-Identifier: Apache-2.0
"""What the feeds of the bench answer: made by seed, so that every run measures the same bytes. Records are one a line,
in NDJSON or in an array, so that a peer may cut them at line breaks."""

import base64
import json
import random
import string
import zlib

PLACES = ["Jernbanen", "Valberget", "Posten", "Jorenholmen", "Parketten", "Kyrre", "Siddis", "St. Olav", "Forum"]
LETTERS = string.ascii_letters + string.digits + "+/"


def city(source, i):
    """A count that a sensor gave; a body of them compresses 12:1."""
    i //= 1000
    return (
        f'{{"Dato":"05.10.2026","Klokkeslett":"{i // 60 % 24:02d}:{i % 60:02d}","Sted":"{PLACES[i % 9]}",'
        f'"Latitude":"58.9{source.randrange(100000):05d}","Longitude":"5.7{source.randrange(100000):05d}",'
        f'"Antall_ledige_plasser":"{source.randrange(500)}"}}'
    ).encode()


def noise(source, _):
    """As incompressible as text can be."""
    return b'{"v":"%s"}' % base64.b64encode(source.randbytes(90))


def wide(source, i):
    """A record of about 500 bytes with some of everything."""
    tags = [source.choice(PLACES) for _ in range(8)]
    value = {"id": i, "name": f"Målestasjon {i}", "at": [source.random() * 90, source.random() * 180], "tags": tags}
    value |= {"note": '\\"quoted\\" ' + "".join(source.choices(LETTERS, k=180)), "nested": {"a": [1, None, True, i]}}
    return json.dumps(value, ensure_ascii=False).encode().ljust(499)


def tangled(source, i, depth=0):
    """An object with deep and flat parts, long numbers, escapes, and white space between tokens."""
    what = source.randrange(0 if depth else 6, 9 if depth < 5 else 5)
    space = " " * source.randrange(3)
    if what == 0:
        return f"{source.randrange(-(10**9), 10**9)}"
    if what == 1:
        return f"{source.uniform(-1e6, 1e6)!r}" + source.choice(["", "e10", "E-7"])
    if what == 2:
        return source.choice(["true", "false", "null"])
    if what in (3, 4):
        text = "".join(source.choices(LETTERS + " æøå", k=source.randrange(60)))
        return f'"{text}{source.choice(["", "", chr(92) + "n", chr(92) + "u00e6", chr(92) * 2])}"'
    parts = [tangled(source, i, depth + 1) for _ in range(source.randrange(1, 7))]
    if what == 5:
        return f"[{space}" + f",{space}".join(parts) + f"{space}]"
    named = [f'"{source.choice(PLACES)}_{k}":{space}{part}' for k, part in enumerate(parts)]
    return f"{{{space}" + f",{space}".join(named) + "}"


def records(make, seed, size=None, count=None):
    """So many, or so many bytes of them."""
    source = random.Random(seed)
    made, total = [], 0
    while (len(made) < count) if count else (total < size):
        made.append(make(source, seed * 1000 + len(made)))
        total += len(made[-1]) + 1
    return made


def body(made, ndjson):
    return b"\n".join(made) + b"\n" if ndjson else b"[\n" + b",\n".join(made) + b"\n]"


def lines(made, seq):
    """The object lines that a batch has for these records, from this seq on."""
    head = b'{"source":"feed","device":"pi-test","boot":"9f8e7d6c","seq":%d,"fetch":%d,'
    head += b'"fetched_at":"2026-11-21T10:02:00.123Z","clock":"synced","data":%s}\n'
    return b"".join(head % (seq + i, seq, record) for i, record in enumerate(made))


def shrinks(data):
    """How many bytes of it become one."""
    return len(data) / len(zlib.compress(data, 6))
