# SPDX-License-Identifier: Apache-2.0
"""Damages the buffer of the real program, starts it, and judges what became of each record.

The states are made by the program itself: it polls, delivers, loses its store, polls on, and is killed. `rows_of` finds
the pages of each row by a reading of its own, so that of each loss it can be said whether the damage was there.
Standard library only.
"""

import contextlib
import json
import random
import shutil
import sqlite3
import struct
import threading
import zlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import lake
from cut_oracle import PART_BITS, SEQ_BITS, chunk_records, open_copy
from daemon import Daemon, wait_until
from feed import Answer, RawServer, Server

PAGE = 4096
WAL_HEADER = 32
FRAME_HEADER = 24
FRAME = FRAME_HEADER + PAGE
LEAF, INNER = 13, 5  # of a table
SOURCES = ["a", "noise", "parking", "zoo"]
LARGE = "large"
BATCH = {"max_bytes": "256K", "max_age": "1h"}
KINDS = ("bytes", "pages", "truncation")
PLACES = ("db", "wal", "both")
OBJECTS = 2000  # that are kept unpacked
KEEPS = ("24h", "0s")  # what is kept for a while is not read again until it is deleted
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


# --- The feed ---


class Answers:
    """A route whose every answer is new and remembered: (answer, i) -> the record's bytes. Some compress badly."""

    def __init__(self, source, seed):
        self.source = source
        self.served = {}
        self._chance = random.Random(seed)
        self._answers = 0
        self._lock = threading.Lock()

    def __call__(self, _request):
        with self._lock:
            self._answers += 1
            return Answer(b"[" + b",".join(self.make(self._answers)) + b"]")

    def make(self, answer):
        long = self.source == "noise"  # a chunk of that has pages of its own
        n = self._chance.choice((9, 9, 9, 20) if long else (1, 3, 9, 9, 9, 40))
        records = []
        for i in range(n):
            length = self._chance.choice((2000, 4000) if long else (0, 10, 40))
            text = "".join(self._chance.choices(LETTERS, k=length))
            records.append(json.dumps({"s": self.source, "answer": answer, "i": i, "x": text}).encode())
            self.served[answer, i] = records[-1]
        return records


def ident(data):
    record = json.loads(data)
    return record["s"], record["answer"], record["i"]


# --- Where a row lies ---


def varint(data, at):
    value = 0
    for n in range(9):
        byte = data[at + n]
        if n == 8:
            return value << 8 | byte, at + 9
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + n + 1
    raise AssertionError


class Pages:
    """A buffer's pages as SQLite sees them, each with its place: ("db", page) or ("wal", frame), both from 0."""

    def __init__(self, path):
        self.db = path.read_bytes()
        wal = path.with_name(path.name + "-wal")
        self.wal = wal.read_bytes() if wal.exists() else b""
        self.frames = {}
        self._read_wal()

    def _read_wal(self):
        salt, pending = self.wal[16:24], {}
        for n in range((len(self.wal) - WAL_HEADER) // FRAME):
            head = self.wal[WAL_HEADER + n * FRAME :][:FRAME_HEADER]
            page, commit = struct.unpack(">II", head[:8])
            if head[8:16] != salt:
                return
            pending[page] = n
            if commit:
                self.frames |= pending
                pending = {}

    def get(self, page):
        if page in self.frames:
            n = self.frames[page]
            return self.wal[WAL_HEADER + n * FRAME + FRAME_HEADER :][:PAGE], ("wal", n)
        return self.db[(page - 1) * PAGE : page * PAGE], ("db", page - 1)

    def rows(self, root):
        """(rowid, places) of each row of a table."""
        page, place = self.get(root)
        head = 100 if root == 1 else 0
        n = struct.unpack_from(">H", page, head + 3)[0]
        if page[head] == INNER:
            cells = struct.unpack_from(f">{n}H", page, head + 12)
            for cell in (*cells, head + 8):
                yield from self.rows(*struct.unpack_from(">I", page, cell))
            return
        assert page[head] == LEAF
        for cell in struct.unpack_from(f">{n}H", page, head + 8):
            size, at = varint(page, cell)
            rowid, at = varint(page, at)
            yield rowid, {place, *self._overflow(page, at, size)}

    def _overflow(self, page, at, size):
        most, least = PAGE - 35, (PAGE - 12) * 32 // 255 - 23
        if size <= most:
            return
        kept = least + (size - least) % (PAGE - 4)
        kept = kept if kept <= most else least
        (following,) = struct.unpack_from(">I", page, at + kept)
        while following:
            page, place = self.get(following)
            yield place
            (following,) = struct.unpack_from(">I", page)


@dataclass
class Row:
    """Records that stand or fall together: a chunk, with the one that ends its fetch, or a batch with its parts."""

    records: dict  # ident -> (source, seq)
    places: set
    kind: str


def rows_of(path, scratch):
    """All committed rows of an intact buffer that hold records."""
    copy = copy_buffer(path, scratch)
    db = open_copy(copy)
    pages = Pages(copy)
    roots = dict(db.execute("SELECT name, rootpage FROM sqlite_master WHERE type = 'table'"))
    found = [*chunk_rows(db, dict(pages.rows(roots["chunk"]))), *batch_rows(db, pages, roots)]
    db.close()
    return found


def chunk_rows(db, places):
    rows = db.execute("SELECT id, source, last, wall, plain, data FROM chunk ORDER BY id").fetchall()
    closing = {}
    for number, source, last, *_ in reversed(rows):
        if last > 0:
            closing[source] = number
        if source not in closing:
            continue  # staged, and promised to nobody
        *_, wall, _, data = next(r for r in rows if r[0] == number)
        records = chunk_records(zlib.decompress(data, -15))
        first = number & ((1 << SEQ_BITS) - 1)
        needed = places[number] | (places[closing[source]] if wall == 0 else set())
        yield Row({ident(d): (source, first + i) for i, d in enumerate(records)}, needed, "chunk")


def batch_rows(db, pages, roots):
    batches, parts = dict(pages.rows(roots["batch"])), defaultdict(set)
    for rowid, places in pages.rows(roots["part"]):
        parts[rowid >> PART_BITS] |= places
    for number, key in db.execute("SELECT id, object FROM batch").fetchall():
        first = number << PART_BITS
        found = db.execute("SELECT data FROM part WHERE id BETWEEN ? AND ? ORDER BY id", (first, first | 0xFFFF))
        problems = []
        read = lake.read_object(b"".join(d for (d,) in found), key, problems)
        assert problems == []
        yield Row({ident(r.data): (r.source, r.seq) for r in read.records}, batches[number] | parts[number], "batch")


def copy_buffer(path, folder):
    folder.mkdir(exist_ok=True)
    for end in ("", "-wal"):
        target = folder / (path.name + end)
        target.unlink(missing_ok=True)
        if path.with_name(path.name + end).exists():
            shutil.copyfile(path.with_name(path.name + end), target)
    return folder / path.name


# --- Damage ---


def unit_size(name):
    return PAGE if name == "db" else FRAME


def units(name, data):
    start = 0 if name == "db" else WAL_HEADER
    return [data[at : at + unit_size(name)] for at in range(start, len(data), unit_size(name))]


def damage_bytes(data, chance, _start, _size):
    for _ in range(chance.choice((1, 1, 2, 4, 16, 64))):
        data[chance.randrange(len(data))] ^= chance.randrange(1, 256)
    return data


def damage_pages(data, chance, start, size):
    n = (len(data) - start) // size
    how = chance.choice(("zeros", "noise", "swap"))
    for _ in range(chance.choice((1, 1, 2, 5, 20)) if n else 0):
        at, other = (start + chance.randrange(n) * size for _ in range(2))
        if how == "swap":
            data[at : at + size], data[other : other + size] = data[other : other + size], data[at : at + size]
        else:
            data[at : at + size] = bytes(size) if how == "zeros" else chance.randbytes(size)
    return data


def damage_length(data, chance, _start, _size):
    return data[: chance.randrange(len(data))]


HOW = {"bytes": damage_bytes, "pages": damage_pages, "truncation": damage_length}


def damage(path, kind, where, chance):
    """Damages the files; the places, as Pages names them, of all that is not as it was."""
    touched = set()
    for name in ("db", "wal") if where == "both" else (where,):
        file = path if name == "db" else path.with_name(path.name + "-wal")
        before = file.read_bytes() if file.exists() else b""
        start = 0 if name == "db" else WAL_HEADER
        after = bytes(HOW[kind](bytearray(before), chance, start, unit_size(name))) if before else before
        if before:
            file.write_bytes(after)
        old, new = units(name, before), units(name, after)
        touched |= {(name, n) for n, unit in enumerate(old) if n >= len(new) or new[n] != unit}
    return touched


# --- States ---


@dataclass
class State:
    name: str
    folder: Path
    rows: list
    served: dict  # source -> what was by then
    stored: set  # idents
    records: dict = field(default_factory=dict)  # ident -> (source, seq): what was durable

    def __post_init__(self):
        for row in self.rows:
            self.records |= row.records

    def waiting(self):
        return {i: where for i, where in self.records.items() if i not in self.stored}


class Bench:
    """A feed, the states, and the folder in which one after the other lives: a store's path is part of a state."""

    def __init__(self, binary, folder, seed=1):
        self.folder = Path(folder)
        self.work = self.folder / "work"
        self.work.mkdir(parents=True)
        self.server = Server()
        self.raw = RawServer()
        self.release = threading.Event()
        self._objects = {}
        self.answers = {s: Answers(s, f"{seed} {s}") for s in SOURCES}
        for source, route in self.answers.items():
            self.server.route(f"/{source}", route)
        self.raw.route("/large", self._large)
        self.buffer = self.work / "buffer.db"
        self.daemon = Daemon(binary, self.work)

    def close(self):
        self.release.set()
        self.daemon.end()
        self.server.close()
        self.raw.close()

    def configure(self, large=False, keep="24h"):
        sources = {s: {"url": self.server.url(f"/{s}")} for s in SOURCES}
        # It belongs to every state, so that what is staged of it has a source that goes on.
        sources[LARGE] = {"url": self.raw.url("/large"), "enabled": large, "timeout": "60s"}
        self.daemon.configure(sources, batch=BATCH, buffer={"path": str(self.buffer), "keep_delivered": keep})

    def _large(self, _request):
        """An answer that has begun, and never ends."""
        yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9000000\r\n\r\n["
        chance = random.Random(7)
        for i in range(400):
            yield json.dumps({"s": LARGE, "answer": 1, "i": i, "x": "".join(chance.choices(LETTERS, k=4000))}).encode()
            yield b","
        self.release.wait(60)

    def poll_all(self, times):
        """The (source, seq) of what was committed."""
        seqs = set()
        for _ in range(times):
            for source in SOURCES:
                report = wait_until(f"a poll of {source}", lambda s=source: self._poll(s))
                seqs |= {(source, report["first_seq"] + i) for i in range(report["records"])}
        return seqs

    def _poll(self, source):
        status, body = self.daemon.request("POST", f"/v1/sources/{source}/poll")
        report = json.loads(body) if status == 200 else {"outcome": ""}  # 503: not open yet, or being salvaged
        return report if report["outcome"] == "committed" else None

    def store_away(self):
        self.daemon.lake.rename(self.work / "lake.kept")
        self.daemon.lake.write_bytes(b"")

    def store_back(self):
        self.daemon.lake.unlink()
        (self.work / "lake.kept").rename(self.daemon.lake)

    # --- Making them ---

    def _live(self, times=2, large=False, checkpoint=False):
        """Delivers, loses its store, seals, polls on."""
        for _ in range(2):
            self.poll_all(times)
            self.daemon.flush()
        self.store_away()
        before = self._wal_salt()
        while True:
            self.poll_all(times)
            self.daemon.ask("POST", "/v1/flush")
            if not checkpoint or self._wal_salt() != before:
                break
        self.poll_all(max(times, 2))
        if large:
            threading.Thread(target=self._poll_large, daemon=True).start()
            wait_until("a piece to be staged", self._is_staged)

    def _wal_salt(self):
        """Another one: the WAL began anew, and what it held is in the file."""
        with self.buffer.with_name("buffer.db-wal").open("rb") as file:
            return file.read(WAL_HEADER)[16:24]

    def _poll_large(self):
        with contextlib.suppress(OSError, ValueError, AssertionError):  # it is killed meanwhile
            self.daemon.poll(LARGE, patience=60)

    def _is_staged(self):
        db = sqlite3.connect(copy_buffer(self.buffer, self.folder / "scratch"))
        try:
            return db.execute("SELECT count(*) FROM chunk WHERE source = ?", (LARGE,)).fetchone()[0] > 2
        except sqlite3.DatabaseError:
            return False  # it was copied while it was written
        finally:
            db.close()

    def _keep(self, name):
        self.daemon.kill()
        for aside in self.work.glob("*.damaged-*"):
            aside.unlink()
        if self.daemon.lake.is_file():
            self.store_back()
        self.release.set()
        self.release = threading.Event()
        folder = self.folder / name
        shutil.copytree(self.work, folder, ignore=shutil.ignore_patterns("millrace.sock"))
        stored = {ident(r.data) for r in lake.read(self.daemon.lake).records()}
        served = {s: dict(route.served) for s, route in self.answers.items()}
        return State(name, folder, rows_of(self.buffer, self.folder / "scratch"), served, stored)

    def make_states(self):
        """young: all is in the WAL. grown: the file has most of it, and the WAL began anew. staged: the same, with an
        answer half there. worn: it was damaged and salvaged before. alone: the same, and no WAL has any of it
        twice."""
        self.configure()
        self.daemon.start()
        self._live(times=1)
        states = [self._keep("young")]
        self.daemon.start()
        self._live(checkpoint=True)
        states.append(self._keep("grown"))
        self.configure(large=True)
        self.daemon.start()
        self._live(large=True)
        states.append(self._keep("staged"))
        self.configure()
        with self.buffer.open("r+b") as file:
            file.write(bytes(PAGE))
        self.daemon.start()
        self._live(checkpoint=True)
        states.append(self._keep("worn"))
        db = sqlite3.connect(self.buffer)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.close()
        states.append(self._keep("alone"))
        return states

    def put(self, state, keep="24h"):
        shutil.rmtree(self.work)
        shutil.copytree(state.folder, self.work)
        self.configure(keep=keep)
        for source, route in self.answers.items():
            route.served = dict(state.served[source])

    # --- What became of it ---

    def read_object(self, key, content):
        """(record, its ident) of each; what is the same in all runs is unpacked once."""
        name = key, zlib.crc32(content)
        if len(self._objects) > OBJECTS:
            self._objects.clear()
        if name not in self._objects:
            problems = []
            read = lake.read_object(content, key, problems) if key not in lake.MARKS else None
            assert problems == []
            self._objects[name] = [(r, ident(r.data)) for r in read.records] if read else []
        return self._objects[name]

    def deliver_all(self):
        """Until nothing waits: damage that is found on the way is salvaged first."""

        def done():
            try:
                self.daemon.flush()
            except AssertionError:
                return False
            buffer = self.daemon.status()["buffer"]
            return buffer["state"] == "ready" and buffer["waiting_records"] == 0

        wait_until("all to be delivered", done, patience=60)

    def run(self, state, kind, where, chance):
        """One damage of a buffer at rest; its Outcome. AssertionError says what is wrong."""
        self.put(state, chance.choice(KEEPS))
        touched = damage(self.buffer, kind, where, chance)
        self.daemon.start()
        return self.end(state, touched)

    def run_live(self, state, chance):
        """Pages are overwritten under the daemon, while its store is away; None: the state has none in the file."""
        pages = sorted({n for row in state.rows for name, n in row.places if name == "db"})
        if not pages:
            return None
        self.put(state, chance.choice(KEEPS))
        self.store_away()
        self.daemon.start()
        committed = self.poll_all(1)
        touched = set(chance.sample(pages, min(len(pages), chance.choice((1, 2, 5, 20)))))
        with self.buffer.open("r+b") as file:
            for page in touched:
                file.seek(page * PAGE)
                file.write(chance.choice((bytes(PAGE), chance.randbytes(PAGE))))
        self.store_back()
        return self.end(state, {("db", n) for n in touched}, committed)

    def run_chunk(self, state):
        """One byte of a chunk that has pages of its own, with others of its source behind it; how many records that is,
        and the Outcome."""
        self.put(state)
        chunks = {min(row.records.values()): row for row in state.rows if row.kind == "chunk"}
        source, first = min(key for key in chunks if key[0] == "noise")
        row = chunks[source, first]
        name, at = self._find_payload(source, first)
        file = self.buffer if name == "db" else self.buffer.with_name("buffer.db-wal")
        data = bytearray(file.read_bytes())
        data[at] ^= 0x10
        file.write_bytes(data)
        self.daemon.start()
        start = 0 if name == "db" else WAL_HEADER
        return len(row.records), self.end(state, {(name, (at - start) // unit_size(name))})

    def run_key(self, state):
        """The keys in the tree that lead to the parts: most are not found. Nothing of them is damaged itself."""
        self.put(state)
        db = sqlite3.connect(self.buffer)
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'part'").fetchone()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.close()
        pages = Pages(self.buffer)
        page, (_, n) = pages.get(root)
        assert page[0] == INNER, "too few parts"
        cells = struct.unpack_from(f">{struct.unpack_from('>H', page, 3)[0]}H", page, 12)
        with self.buffer.open("r+b") as file:
            for cell in cells:
                file.seek(n * PAGE + cell + 4)
                file.write(b"\x81")  # the first byte of a key of four: none is below it
        self.daemon.start()
        return self.end(state, set())

    def _find_payload(self, source, first):
        db = sqlite3.connect(copy_buffer(self.buffer, self.folder / "scratch"))
        sql = "SELECT data FROM chunk WHERE source = ? AND id & 1099511627775 = ?"
        (payload,) = db.execute(sql, (source, first)).fetchone()
        db.close()
        pages = Pages(self.buffer)
        places = [(n, "wal") for n in pages.frames.values()] + [(n, "db") for n in range(len(pages.db) // PAGE)]
        for n, name in places:
            start = WAL_HEADER + n * FRAME + FRAME_HEADER if name == "wal" else n * PAGE
            data = pages.wal if name == "wal" else pages.db
            at = data.find(payload[-60:-20], start, start + PAGE)
            if at >= 0:
                return name, at
        raise AssertionError

    def end(self, state, touched, committed=frozenset()):
        """It polls on, delivers all, and is judged."""
        committed = self.poll_all(1) | committed
        self.deliver_all()
        audit = self.daemon.ask("POST", "/v1/audit")
        status = self.daemon.status()
        assert self.daemon.stop() == 0
        outcome = judge(self, state, touched, committed)
        check_audit(audit, outcome)
        told = sorted((d["source"], d["first_seq"], d["last_seq"] or 0) for d in audit["damage"])
        assert told == sorted(bookings(self.buffer, self.folder / "scratch"))
        self._check_told(status, outcome)
        return outcome

    def asides(self):
        return sorted(self.work.glob("buffer.db.damaged-*[Z0-9]"))

    def _check_told(self, status, outcome):
        """A salvage is told, and what was damaged stands where it says."""
        buffer, asides = status["buffer"], self.asides()
        outcome.salvaged = len(asides)
        assert (buffer["salvaged"] is not None) == bool(asides)
        if asides:
            assert Path(buffer["aside"]) in asides
            assert any("it was damaged, and salvaged" in p["what"] for p in status["problems"]), status["problems"]


@dataclass
class Outcome:
    waited: int = 0  # records that were durable, and in no store
    lost: int = 0
    unbooked: int = 0  # of them: only where the WAL has lost its end, as after a power cut
    open_ended: int = 0  # of them: within a booking without an end
    came_back: int = 0  # delivered before, and once more
    delivered: int = 0  # before
    reused: int = 0  # numbers that two records of one boot have
    salvaged: int = 0  # times


def bookings(path, scratch):
    """(source, first, last) of what was booked as damage; last 0: without an end."""
    db = sqlite3.connect(copy_buffer(path, scratch))
    found = db.execute("SELECT source, first, last FROM damage").fetchall()
    db.close()
    return found


def judge(bench, state, touched, committed):
    """What stands in the store, against what was durable and what was served."""
    found = [pair for item in lake.in_folder(bench.daemon.lake).items() for pair in bench.read_object(*item)]
    there = Counter(who for _, who in found)
    check_contents(bench, found)
    waiting = state.waiting()
    lost = {i: where for i, where in waiting.items() if i not in there}
    safe = {i for row in state.rows if not row.places & touched for i in row.records}
    wrong = sorted(safe & lost.keys())
    assert not wrong, f"{len(wrong)} records are lost whose rows are outside the damage: {wrong[:10]}"
    twice = {i for i, n in there.items() if n > 1}
    assert twice <= state.stored, f"delivered twice: {sorted(twice - state.stored)[:10]}"
    new = {(r.source, r.seq) for r, who in found if who[1:] not in state.served.get(r.source, ())}
    assert committed <= new, f"committed after the damage, and lost: {sorted(committed - new)[:10]}"
    outcome = Outcome(len(waiting), len(lost), came_back=len(twice), delivered=len(state.stored))
    count_losses(outcome, lost, bookings(bench.buffer, bench.folder / "scratch"))
    names = defaultdict(set)
    for r, _ in found:
        names[r.source, r.device, r.boot, r.seq].add(r.data)
    outcome.reused = sum(len(data) > 1 for data in names.values())
    cut = any(name == "wal" for name, _ in touched)
    assert cut or not outcome.unbooked, f"{outcome.unbooked} lost records are booked nowhere"
    assert cut or not outcome.reused, f"{outcome.reused} numbers were given out twice"
    return outcome


def check_contents(bench, found):
    for r, (source, answer, i) in found:
        assert source == r.source, r.line
        if source != LARGE:
            assert bench.answers[source].served.get((answer, i)) == r.data, f"nobody served {r.line[:200]!r}"


def count_losses(outcome, lost, booked):
    for source, seq in lost.values():
        if any(s == source and first <= seq <= last for s, first, last in booked):
            continue
        if any(s == source and last == 0 and first <= seq for s, first, last in booked):
            outcome.open_ended += 1
        else:
            outcome.unbooked += 1


def check_audit(audit, outcome):
    (store,) = audit["stores"]
    assert store["error"] == ""
    counts = store["records"]
    assert counts["missing"] == counts["changed"] == counts["waiting"] == 0, counts
    assert counts["double"] <= outcome.came_back + outcome.reused, counts
