# SPDX-License-Identifier: Apache-2.0
"""What must be there after a power cut, and a reading of buffer and store of its own: nothing here asks Millrace.

The buffer is read as a copy, with SQLite and by what its schema and buffer/chunk.h say. Standard library only.
"""

import hashlib
import json
import sqlite3
import struct
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import lake
from load import check_whole

SEQ_BITS = 40
PART_BITS = 16
SPAN = struct.Struct("<QqqBBI")
SCHEMA = Path(__file__).resolve().parents[1] / "buffer" / "schema"
APPLICATION_ID = 0x4D696C6C


class Violation(AssertionError):
    """A promise is broken: how many records were lost, how many stand twice; `failed`: the daemon did not start;
    `aside`: a buffer that is not damaged was taken for one."""

    def __init__(self, text, lost=0, twice=0, failed=0, aside=0):
        super().__init__(text)
        self.lost = lost
        self.twice = twice
        self.failed = failed
        self.aside = aside


# --- The buffer's file ---


def chunk_records(plain):
    """The records of a chunk's plain text; buffer/chunk.h has its form."""
    at = 1
    while at < len(plain):
        *_, n = SPAN.unpack_from(plain, at)
        at += SPAN.size
        for _ in range(n):
            (length,) = struct.unpack_from("<I", plain, at)
            yield plain[at + 4 : at + 4 + length]
            at += 4 + length


def committed_chunks(db):
    """(source, first seq, records) of each chunk whose fetch was committed: those behind a source's last closing one
    are staged, and promised to nobody."""
    rows = db.execute("SELECT id, source, last, plain, data FROM chunk ORDER BY id").fetchall()
    closed = {source: number for number, source, last, _, _ in rows if last > 0}
    for number, source, _, length, data in rows:
        if number > closed.get(source, -1):
            continue
        plain = zlib.decompress(data, -15)
        if len(plain) != length:
            raise Violation(f"chunk {number} of the buffer is not as long as it says")
        yield source, number & ((1 << SEQ_BITS) - 1), list(chunk_records(plain))


def sealed_batches(db):
    """(key, object's bytes) of each."""
    for number, key in db.execute("SELECT id, object FROM batch ORDER BY id").fetchall():
        first = number << PART_BITS
        parts = db.execute("SELECT data FROM part WHERE id BETWEEN ? AND ? ORDER BY id", (first, first | 0xFFFF))
        yield key, b"".join(data for (data,) in parts)


def open_copy(path):
    db = sqlite3.connect(path)
    (result,) = db.execute("PRAGMA integrity_check").fetchone()
    if result != "ok":
        raise Violation(f"the buffer's file is damaged: {result}", failed=1)
    return db


# --- An older buffer ---


def row_crc(*cells):
    """buffer/queue_sql.c, at its head."""
    crc = 0
    for cell in cells:
        if isinstance(cell, int):
            crc = zlib.crc32(struct.pack("<Bq", 1, cell), crc)
        else:
            data = cell.encode() if isinstance(cell, str) else cell
            crc = zlib.crc32(data, zlib.crc32(struct.pack("<Bq", 3 if isinstance(cell, str) else 4, len(data)), crc))
    return crc


def versions():
    return len(list(SCHEMA.glob("*.sql")))


def has_books(version):
    return any("CREATE TABLE book" in file.read_text() for file in sorted(SCHEMA.glob("*.sql"))[:version])


def write_older(now, path, version):
    """What the buffer `now`, a file at rest, holds, as a program wrote it whose newest schema was `version`."""
    db = sqlite3.connect(path, isolation_level=None)
    db.create_function("row_crc", -1, row_crc)
    for file in sorted(SCHEMA.glob("*.sql"))[:version]:
        db.executescript(file.read_text())
    db.executescript(
        f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {version}; PRAGMA journal_mode = WAL;"
    )
    db.execute("ATTACH ? AS now", (str(now),))
    tables = "SELECT name FROM main.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    for (table,) in db.execute(tables).fetchall():
        copy_table(db, table)
    if db.execute("SELECT 1 FROM main.sqlite_master WHERE name = 'sqlite_sequence'").fetchone():
        keep_sequence(db)
    db.close()


def copy_table(db, table):
    """The older table's columns, in their order, which is that of its checksum."""
    old = [row[1] for row in db.execute(f"PRAGMA main.table_info({table})")]
    now = [row[1] for row in db.execute(f"PRAGMA now.table_info({table})")]
    crc = f"row_crc({', '.join(name for name in old if name != 'crc')})"
    values = old if old == now else [crc if name == "crc" else name for name in old]
    db.execute(f"INSERT INTO main.{table} ({', '.join(old)}) SELECT {', '.join(values)} FROM now.{table}")


def keep_sequence(db):
    """AUTOINCREMENT's: no id of a batch is used again, also where none is left."""
    db.execute("DELETE FROM main.sqlite_sequence WHERE name = 'batch'")
    db.execute("INSERT INTO main.sqlite_sequence SELECT 'batch', ifnull(max(batch), 0) FROM now.source")


# --- What was promised ---


@dataclass
class Found:
    """(source, seq) -> data of what is there, and what is wrong with it."""

    records: dict = field(default_factory=dict)
    store: set = field(default_factory=set)  # (source, seq)
    problems: list = field(default_factory=list)
    twice: int = 0

    def add(self, source, seq, data, place):
        before = self.records.setdefault((source, seq), data)
        if before != data:
            self.twice += 1
            self.problems.append(f"{source}: seq {seq} is {data[:80]!r} in the {place} and {before[:80]!r} besides")


class Oracle:
    """What the feed served and the daemon said was durable. Thread-safe where it is told of promises."""

    def __init__(self):
        self.fetches = []  # (source, first seq, records): what `poll` called committed
        self.lines = {}  # (source, seq) -> data: what a follower got to read
        self.served = {}  # (source, answer) -> its records
        self._objects = {}

    def promised(self):
        """(source, seq) of all that must be there."""
        return {(source, first + i) for source, first, n in list(self.fetches) for i in range(n)} | set(self.lines)

    def read_buffer(self, path, found):
        """From a copy of the file, with its WAL beside it."""
        if not path.exists() or path.stat().st_size == 0:
            return
        db = open_copy(path)
        try:
            if db.execute("PRAGMA user_version").fetchone()[0] == 0:
                return
            for source, first, records in committed_chunks(db):
                for i, data in enumerate(records):
                    found.add(source, first + i, data, "buffer")
            for key, content in sealed_batches(db):
                for record in self._object(key, content, found):
                    found.add(record.source, record.seq, record.data, "buffer")
        finally:
            db.close()

    def read_store(self, folder, found):
        """All under final names must be whole; what else lies there is judged at the end."""
        for path in sorted(folder.glob("source=*/**/*.gz")):
            for record in self._object(str(path.relative_to(folder)), path.read_bytes(), found):
                if (record.source, record.seq) in found.store:
                    found.twice += 1
                    found.problems.append(f"{record.source}: seq {record.seq} stands twice in the store")
                found.store.add((record.source, record.seq))
                found.add(record.source, record.seq, record.data, "store")

    def _object(self, key, content, found):
        """Its records; each content is unpacked once only."""
        name = key, hashlib.sha256(content).digest()
        if name not in self._objects:
            problems = []
            read = lake.read_object(content, key, problems)
            if problems:
                found.problems += problems
                return read.records if read else []
            self._objects[name] = read.records
        return self._objects[name]

    def judge(self, found, where, promised=None):
        """Violation where something is lost, twice, or not what was served. promised: as of before `found` was read,
        where the daemon goes on."""
        missing = sorted((self.promised() if promised is None else promised) - found.records.keys())
        problems = list(found.problems)
        twice = found.twice + self._judge_contents(found, problems)
        problems += [f"{s}: seq {q} is lost" for s, q in missing]
        if problems or twice:
            shown = "\n  ".join(problems[:20])
            text = f"{where}: {len(missing)} lost, {twice} twice, {len(problems)} problems\n  {shown}"
            raise Violation(text, lost=len(missing), twice=twice)

    def _judge_contents(self, found, problems):
        """Each record that is there was served, and stands under one seq; returns how many come twice."""
        places = Counter()
        for (source, seq), data in found.records.items():
            if source.startswith("_"):
                continue  # the daemon's own: no feed has served it
            answer, i = where_served(data)
            places[source, answer, i] += 1
            expected = self.served.get((source, answer), [])
            if not (0 <= i < len(expected)) or expected[i] != data:
                problems.append(f"{source}: seq {seq} is not what was served: {data[:80]!r}")
        for (source, seq), data in self.lines.items():
            if found.records.get((source, seq), data) != data:
                problems.append(f"{source}: seq {seq} is another record than a follower got")
        self._judge_fetches(found, problems)
        twice = [place for place, n in places.items() if n > 1]
        problems += [f"record {i} of answer {a} of {s} stands twice" for s, a, i in twice[:20]]
        return len(twice)

    def _judge_fetches(self, found, problems):
        """Of a committed answer all records, in their order."""
        for source, first, n in list(self.fetches):
            seqs = [(source, first + i) for i in range(n)]
            if not all(seq in found.records for seq in seqs):
                continue  # told as lost
            got = [where_served(found.records[seq]) for seq in seqs]
            if n and got != [(got[0][0], i) for i in range(n)]:
                problems.append(f"{source}: seq {first} to {first + n - 1} are not one answer: {got[:20]}")

    def judge_lake(self, folder):
        """At the end, when all is delivered: the store alone."""
        found = Found()
        self.read_store(folder, found)
        self.judge(found, "in the store, with all delivered")
        whole = lake.read(folder)
        if whole.problems:
            raise Violation(f"in the store, with all delivered: {whole.problems[:20]}")
        check_whole(whole)
        return sum(not source.startswith("_") for source, _ in found.store)


def where_served(data):
    record = json.loads(data)
    return record["answer"], record["i"]
