# SPDX-License-Identifier: Apache-2.0
"""Power cuts of the real program: lives of a daemon whose buffer and store lie on the file system that forgets.

A life begins with an empty file system and has some cuts, each in a scene that its seed chose: who is at work, and at
which call the power goes. After each cut the oracle reads what is left, the daemon starts again, perhaps under another
cut, and is asked itself. At the end all is delivered, and the store alone must have it.
"""

import base64
import contextlib
import itertools
import json
import os
import random
import shutil
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from http.client import HTTPException

from cut import MODELS, CutFS
from cut_oracle import Found, Oracle, Violation, has_books, versions, write_older
from daemon import Daemon, UnixConnection
from feed import Answer, Server

CUTS_A_LIFE = 12
QUIET = ("c0", "c1", "c2")  # sealed by a flush alone
BUSY = ("s0", "s1")  # sealed all the time
LARGE = "big"
SOURCES = (*QUIET, *BUSY, LARGE)
NOISE = base64.b64encode(random.Random(7).randbytes(3 << 20)).decode()
SIZES = {  # records, bytes of noise in each
    "small": lambda chance: (chance.choice((1, 3, 9, 9, 9, 40)), 40),
    "noise": lambda _: (50, 4000),
    "large": lambda chance: (chance.randint(300, 500), 2000),
}
FOREIGN = "x0"  # of another Millrace
AWAY = {"kind": "s3", "endpoint": "http://127.0.0.1:9", "bucket": "lake", "access_key": "a", "secret_key": "secret-b"}
PAGE = 4096
STARTING = ("creation", "upgrade", "recovery", "salvage")  # phases in which a daemon without power may refuse to start
SALVAGING = (20, 200, 1000)  # its last steps come after what it writes
GROWING = (40, 80, 1700)  # calls of a start: the schema, what follows at once, and the growing of a new file
PATIENCE = 30


class Answers:
    """A route whose every answer is new; the oracle gets to know its records. `size` says how large the next is."""

    def __init__(self, source, oracle, seed):
        self.size = "small"
        self._source = source
        self._oracle = oracle
        self._chance = random.Random(seed)
        self._count = itertools.count(1)
        self._lock = threading.Lock()

    def __call__(self, _request):
        with self._lock:
            answer = next(self._count)
            n, filling = SIZES[self.size](self._chance)
            records = [self._record(answer, i, n, filling) for i in range(n)]
        self._oracle.served[self._source, answer] = records
        return Answer(b"[" + b",".join(records) + b"]")

    def _record(self, answer, i, n, filling):
        at = self._chance.randrange(len(NOISE) - filling)
        text = f'{{"s":"{self._source}","answer":{answer},"i":{i},"n":{n},"x":"{NOISE[at : at + filling]}"}}'
        return text.encode()


class Figures:
    """Of all lives: cuts by model and phase, what was promised, and what came of it."""

    def __init__(self):
        self.cuts = Counter()
        self.lives = self.promised = self.stored = self.starts = 0
        self.lost = self.twice = self.failed_starts = self.set_aside = 0
        self.begun = time.monotonic()

    def note(self, error):
        """What a life ended with: a Violation, or a daemon that did not answer."""
        self.lost += getattr(error, "lost", 0)
        self.twice += getattr(error, "twice", 0)
        self.failed_starts += getattr(error, "failed", 0)
        self.set_aside += getattr(error, "aside", 0)

    def total(self):
        return self.cuts.total()

    def rows(self):
        phases = sorted({phase for _, phase in self.cuts})
        return {phase: {model: self.cuts[model, phase] for model in MODELS} for phase in phases}

    def as_json(self):
        names = ("lives", "starts", "promised", "stored", "lost", "twice", "failed_starts", "set_aside")
        figures = {name: getattr(self, name) for name in names}
        return {
            "cuts": self.total(),
            **figures,
            "seconds": round(time.monotonic() - self.begun, 1),
            "phases": self.rows(),
        }

    def show(self):
        seconds = time.monotonic() - self.begun
        print(f"\n{'phase':14}" + "".join(f"{model:>10}" for model in MODELS))
        for phase, row in self.rows().items():
            print(f"{phase:14}" + "".join(f"{row[model]:10}" for model in MODELS))
        print(
            f"{self.total()} power cuts in {seconds:.0f} s, {self.lives} lives, {self.starts} starts, "
            f"{self.promised} records promised: {self.lost} lost, {self.twice} twice, "
            f"{self.failed_starts} failed starts, {self.set_aside} set aside",
            flush=True,
        )


class Bench:
    """run() lives until there were so many cuts, or for so long. What a violation leaves is in `folder`/evidence."""

    def __init__(self, binary, cutfs, folder):
        self.binary = binary
        self.folder = folder
        self.fs = CutFS(cutfs, folder / "card")
        self.figures = Figures()
        self.foreign = None

    def another(self):
        """What another Millrace has exported: the folder, its fetches, what its feed served. Made once."""
        if not self.foreign:
            self.foreign = export_another(self.binary, self.folder / "another")
        return self.foreign

    def run(self, seed, cuts=None, seconds=None, models=MODELS):
        until = time.monotonic() + (seconds or 1e9)
        aim = self.figures.total() + (cuts or 10**9)
        for number in itertools.count(seed):
            if self.figures.total() >= aim or time.monotonic() > until:
                return
            self._live(number, models[number % len(models)])

    def _live(self, seed, model):
        life = Life(self, seed, model)
        try:
            life.live()
        except (AssertionError, OSError, HTTPException, sqlite3.Error) as error:
            self.figures.note(error)
            life.keep_evidence(error)
            raise Violation(
                f"MILLRACE_CUT_SEED={seed} repeats it ({model}, cut {life.n_cuts}, {life.scene}): {error!r}\n"
                f"{json.dumps(life.report)}"
            ) from error
        finally:
            life.end()

    def close(self):
        self.fs.close()


class Life:
    def __init__(self, bench, seed, model):
        self.bench = bench
        self.fs = bench.fs
        self.figures = bench.figures
        self.seed = seed
        self.model = model
        self.chance = random.Random(seed)
        self.oracle = Oracle()
        self.server = Server()
        self.folder = bench.folder / "life"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.daemon = Daemon(bench.binary, self.folder)
        self.daemon.lake = self.fs.root / "lake"
        self.routes = {s: Answers(s, self.oracle, f"{seed} {s}") for s in SOURCES}
        self.over = threading.Event()  # the power is gone: nobody asks any more
        self.threads = []
        self.reported = Counter()
        self.n_cuts = self.draws = 0
        self.scene = "creation"
        self.report = None
        self.links = 0
        self.damaged = False  # by this bench, and not salvaged yet
        self.kept_books = True  # from the first delivery on, so that a salvage knows what is delivered
        self.exported = set()  # what `export` said it had written

    # --- The daemon ---

    def configure(self):
        self.fs.wipe()
        for name, route in self.routes.items():
            self.server.route(f"/{name}", route)
        sources = {name: {"url": self.server.url(f"/{name}")} for name in SOURCES}
        for name in BUSY:
            sources[name]["batch"] = {"max_records": 20, "max_bytes": "256K"}
        sources[LARGE]["batch"] = {"max_bytes": "256K"}
        buffer = {"path": str(self.fs.root / "buffer.db"), "keep_delivered": "0s", "max_size": "64M"}
        self.daemon.configure(sources, buffer=buffer, socket=str(self.daemon.socket), clock="trust")
        sync(self.fs.root)

    def start(self, freeze_at=None, phase="recovery"):
        """None: it runs; else the phase in which the power went, at the call that freeze_at says."""
        self.over.clear()
        if freeze_at:
            self.fs.freeze(freeze_at)
        self.figures.starts += 1
        self.spawn()
        deadline = time.monotonic() + PATIENCE
        while not self.answers():
            if self.fs.frozen():
                return phase
            if time.monotonic() > deadline:
                raise Violation(f"the daemon did not start within {PATIENCE} s\n{self.log()}", failed=1)
            time.sleep(0.002)
        if freeze_at and (self.wait_frozen(0.06) or self.fs.freeze_off()):
            return "recovery"  # what it does when all is open
        if self.damaged:
            self.end_salvage()
        for source in (QUIET[0], BUSY[0]):
            self.run_thread(self.follow, source)
        return None

    def end_salvage(self):
        """The damaged file is aside; nobody needs it any more."""
        aside = set_aside(self.fs.root)
        if not aside:
            raise Violation("the damaged buffer was not set aside")
        for path in aside:
            path.unlink()
        sync(self.fs.root)
        self.damaged = False

    def spawn(self):
        self.daemon.log.write_bytes(b"")
        self.daemon.spawn()

    def runs(self):
        return self.daemon.process is not None and self.daemon.process.poll() is None

    def answers(self):
        ended = not self.runs()
        if ended and not self.fs.frozen():
            raise Violation(f"the daemon ended with {self.daemon.process.returncode}\n{self.log()}", failed=1)
        try:
            return not ended and self.is_ready()
        except (OSError, HTTPException):
            return False

    def is_ready(self):
        """The API answers before the buffer is open."""
        status, body = self.daemon.request("GET", "/v1/status", 2)
        return status == 200 and json.loads(body)["buffer"]["state"] == "ready"

    def log(self):
        return self.daemon.log.read_text(errors="replace")[-3000:]

    def stop(self):
        self.over.set()
        if self.daemon.stop() != 0:
            raise Violation(f"SIGTERM: it ended with {self.daemon.process.returncode}\n{self.log()}")
        self.join()

    # --- Those who ask it, each in a thread ---

    def run_thread(self, call, *args):
        thread = threading.Thread(target=self.quietly, args=(call, *args), daemon=True)
        self.threads.append(thread)
        thread.start()

    def quietly(self, call, *args):
        """Until the power goes; an answer that did not come promised nothing."""
        while not self.over.is_set():
            try:
                if not call(*args):
                    return
            except (OSError, HTTPException, ValueError):
                self.over.wait(0.005)

    def poll(self, source):
        status, body = self.daemon.request("POST", f"/v1/sources/{source}/poll")
        report = json.loads(body)
        if status == 200 and report["outcome"] == "committed":
            self.oracle.fetches.append((source, report["first_seq"], report["records"]))
            self.reported[source] += 1
        return True

    def poll_once(self, source):
        return self.poll(source) and False

    def flush(self):
        self.daemon.request("POST", "/v1/flush")
        return not self.over.wait(0.05)

    def flush_once(self):
        return self.flush() and False

    def follow(self, source):
        connection = UnixConnection(self.daemon.socket, 5)
        try:
            connection.request("GET", f"/v1/sources/{source}/records?last=0&follow=1")
            for line in connection.getresponse():
                if not line.endswith(b"}\n"):
                    return  # the daemon died meanwhile
                head, _, data = line[:-1].partition(b',"data":')
                self.oracle.lines[source, json.loads(head + b"}")["seq"]] = data[:-1]
        finally:
            connection.close()

    # --- Scenes: who is at work, and at which call the power goes ---

    def scene_commit(self):
        self.fs.freeze(self.chance.randint(1, 40), "/buffer.db")
        for source in QUIET:
            self.run_thread(self.poll, source)

    def scene_stage(self):
        self.routes[LARGE].size = "large"
        self.fs.freeze(self.chance.randint(1, 500), "/buffer.db")
        self.run_thread(self.poll_once, LARGE)

    def scene_seal(self):
        for source in QUIET:
            self.poll(source)
        self.fs.freeze(self.chance.randint(1, 24), "/buffer.db")
        self.run_thread(self.flush_once)

    def scene_delivery(self):
        for source in QUIET:
            self.poll(source)
        self.fs.freeze(self.chance.randint(1, 30), "/lake")
        self.run_thread(self.flush_once)

    def scene_booking(self):
        for source in QUIET:
            self.poll(source)
        self.run_thread(self.flush_once)
        retry(lambda: self.fs.stats()["calls"]["link"] > self.links, 0.5)
        self.fs.freeze(self.chance.randint(1, 12), "/buffer.db")

    def scene_checkpoint(self):
        for source in BUSY:
            self.routes[source].size = "noise"
            self.run_thread(self.poll, source)
        self.fs.freeze(self.chance.randint(1, 300), "=/buffer.db")

    def scene_load(self):
        self.routes[self.chance.choice(SOURCES)].size = "noise"
        self.routes[LARGE].size = self.chance.choice(("small", "noise", "large"))
        self.fs.freeze(self.chance.randint(1, 1500))
        for source in SOURCES:
            self.run_thread(self.poll, source)
        self.run_thread(self.flush)

    def scene_import(self):
        folder, fetches, served = self.bench.another()
        self.oracle.served.update(served)
        self.fs.freeze(self.chance.randint(1, 60), "/buffer.db")
        self.run_thread(self.take_in, folder, fetches)

    def take_in(self, folder, fetches):
        if self.command("import", folder) == 0:
            self.oracle.fetches += fetches
        return False

    def scene_export(self):
        self.fs.fail(1, "forever", "EIO", "/lake")
        for source in QUIET:
            self.poll(source)
            self.flush()
        (self.fs.root / "export").mkdir(exist_ok=True)
        sync(self.fs.root)  # export does not make it
        self.fs.freeze(self.chance.randint(1, 60), "/export")
        self.run_thread(self.give_out)

    def give_out(self):
        folder = self.fs.root / "export"
        if self.command("export", folder) == 0:
            self.exported |= {str(p.relative_to(folder)) for p in folder.rglob("*.gz")}
        return False

    def command(self, *args):
        """Its exit status; it ends when the power goes."""
        process = subprocess.Popen(
            [self.daemon.binary, "-c", str(self.daemon.config), *map(str, args)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and not self.over.wait(0.005):
            pass
        process.kill()
        return process.wait() if not self.over.is_set() else None

    SCENES = (
        "commit",
        "stage",
        "seal",
        "delivery",
        "booking",
        "checkpoint",
        "load",
        "import",
        "export",
        "upgrade",
        "salvage",
    )

    def wait_frozen(self, seconds):
        return retry(self.fs.frozen, seconds)

    def play(self, scene):
        """Up to the cut."""
        self.links = self.fs.stats()["calls"]["link"]
        self.reported.clear()
        getattr(self, f"scene_{scene}")()
        fired = self.wait_frozen(2.5 if scene == "checkpoint" else 0.5)
        for route in self.routes.values():
            route.size = "small"
        self.cut(self.phase(scene, fired))
        self.fs.fail_off()

    def phase(self, scene, fired):
        """What was really under way, by the last call and by what was reported. Where the call never came at which the
        power was to go, it goes now: between polls, or in quiet."""
        stats = self.fs.stats()
        path = stats["last"][-1].split(" ")[1]
        if scene in ("commit", "load", "checkpoint"):
            scene = scene if scene == "commit" else "load"
        elif not fired:
            return "quiet"
        elif scene in ("import", "export"):
            return scene
        elif scene != "stage" or self.reported[LARGE]:
            scene = "booking" if stats["calls"]["link"] > self.links else "seal"
        if path.startswith("/lake"):
            return "delivery"
        return "checkpoint" if path == "/buffer.db" else scene

    def upgrade(self):
        """From the buffer as an older program had it."""
        self.stop()
        version = self.chance.randint(1, versions() - 1)
        self.kept_books = self.kept_books and has_books(version)
        now, older = self.folder / "now.db", self.folder / "older.db"
        older.unlink(missing_ok=True)
        copy_buffer(self.fs.root, now)
        come_to_rest(now)
        write_older(now, older, version)
        shutil.copyfile(older, self.fs.root / "buffer.db")
        (self.fs.root / "buffer.db-wal").unlink()
        sync(self.fs.root / "buffer.db")
        sync(self.fs.root)
        self.start_under_a_cut("upgrade", *GROWING)

    def salvage(self):
        """The first page is gone, and with it SQLite's way to all others: every row is to be found without it."""
        self.stop()
        with (self.fs.root / "buffer.db").open("r+b") as file:
            if file.seek(0, os.SEEK_END) < 2 * PAGE:
                return
            file.seek(0)
            file.write(bytes(PAGE))
            file.flush()
            os.fsync(file.fileno())
        self.damaged = True
        self.start_under_a_cut("salvage", *SALVAGING)

    # --- The cut and what comes after ---

    def start_under_a_cut(self, phase, *calls):
        """True: the power went before all was done; calls: which of the first so many it may be."""
        phase = self.start(self.chance.randint(1, self.chance.choice(calls)), phase)
        if phase:
            self.cut(phase)
        return phase is not None

    def cut(self, phase):
        self.scene = phase
        self.fs.freeze()
        self.over.set()
        self.daemon.process.poll()
        ended = self.daemon.process.returncode
        self.daemon.kill()
        self.join()
        if ended is not None and (ended < 0 or phase not in STARTING):
            raise Violation(f"the daemon ended by itself, with {ended}\n{self.log()}")
        self.n_cuts += 1
        self.figures.cuts[self.model, phase] += 1
        self.report = self.fs.cut(self.chance.randrange(1 << 32), self.model)
        self.look()

    def join(self):
        for thread in self.threads:
            thread.join()
        self.threads.clear()

    def look(self):
        """The oracle's own reading of what is left; a damaged buffer's only once it is salvaged."""
        self.look_at_export()
        if self.damaged:
            return
        copy = self.folder / "left.db"
        copy_buffer(self.fs.root, copy)
        found = Found()
        try:
            self.oracle.read_buffer(copy, found)
        except sqlite3.DatabaseError as error:
            raise Violation(f"the buffer cannot be read: {error}", failed=1) from error
        self.oracle.read_store(self.fs.root / "lake", found)
        self.oracle.judge(found, f"after a cut in phase {self.scene}")
        aside = set_aside(self.fs.root)
        if aside:
            raise Violation(f"a power cut is no damage, but the buffer was set aside: {aside}", aside=1)

    def look_at_export(self):
        """Under its name each object is whole, and what was said to be there is."""
        folder = self.fs.root / "export"
        found = Found()
        self.oracle.read_store(folder, found)
        self.oracle.judge(found, "in what was exported", set())
        lost = {key for key in self.exported if not (folder / key).exists()}
        if lost:
            raise Violation(f"export: {sorted(lost)[:20]} are gone", lost=len(lost))

    def come_back(self):
        for _ in range(2):
            self.draw_anew()
            if self.chance.random() < 0.35 and self.start_under_a_cut(*self.recovery()):
                continue
            if self.runs():
                return
        self.start()

    def recovery(self):
        return ("salvage", *SALVAGING) if self.damaged else ("recovery", 40)

    def ask_daemon(self):
        """What it shows itself, and what its books say of the store. First the buffer: records only leave it for the
        store."""
        promised = {(source, seq) for source, seq in self.oracle.promised() if source != FOREIGN}
        found = Found()
        for source in SOURCES:
            for line in self.daemon.records(source, 100_000):
                head, _, data = line.partition(b',"data":')
                found.add(source, json.loads(head + b"}")["seq"], data[:-1], "daemon's answer")
        self.oracle.read_store(self.fs.root / "lake", found)
        self.oracle.judge(found, f"as the daemon shows it, after a cut in phase {self.scene}", promised)
        judge_audit(self.daemon.ask("POST", "/v1/audit"))
        if self.daemon.status()["buffer"]["state"] != "ready":
            raise Violation(f"the buffer is not ready: {self.daemon.status()['buffer']}")

    def draw_anew(self):
        """So that what was drawn before, which may depend on who was faster, does not count."""
        self.draws += 1
        self.chance = random.Random(f"{self.seed} {self.draws}")

    def live(self):
        self.configure()
        if self.chance.random() < 0.5:
            self.start_under_a_cut("creation", *GROWING)
        if not self.runs():
            self.come_back()
        while self.n_cuts < CUTS_A_LIFE:
            self.ask_daemon()
            self.draw_anew()
            scene = self.chance.choice(self.SCENES)
            if scene == "salvage" and not self.kept_books:
                scene = "load"
            if scene in ("upgrade", "salvage"):
                getattr(self, scene)()
            else:
                self.play(scene)
            if not self.runs():
                self.come_back()
        self.finish()

    def finish(self):
        self.ask_daemon()
        self.daemon.flush()
        audit = self.daemon.cli("audit")
        if audit.returncode != 0:
            raise Violation(f"audit: {audit.stdout}{audit.stderr}")
        self.stop()
        self.figures.stored += self.oracle.judge_lake(self.fs.root / "lake")
        self.figures.promised += len(self.oracle.promised())
        self.figures.lives += 1

    def keep_evidence(self, violation):
        """What the next life does not sweep away."""
        evidence = self.bench.folder / "evidence"
        shutil.rmtree(evidence, ignore_errors=True)
        shutil.copytree(self.folder, evidence, ignore=lambda folder, names: [n for n in names if n.endswith(".sock")])
        self.daemon.end()
        with contextlib.suppress(OSError):  # as far as it can be read
            copy_buffer(self.fs.root, evidence / "buffer.db")
            shutil.copytree(self.fs.root / "lake", evidence / "lake")
        told = {"seed": self.seed, "model": self.model, "cut": self.report, "phase": self.scene, "what": str(violation)}
        (evidence / "violation.json").write_text(json.dumps(told, indent=2) + "\n")

    def end(self):
        self.over.set()
        self.daemon.end()
        self.join()
        self.server.close()
        self.fs.cut(0, self.model)  # a freeze that is still to come, too


def export_another(binary, folder):
    """A Millrace whose store is away, and what it has."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    oracle = Oracle()
    server = Server()
    answers = Answers(FOREIGN, oracle, FOREIGN)
    server.route(f"/{FOREIGN}", answers)
    daemon = Daemon(binary, folder)
    daemon.configure(
        {FOREIGN: {"url": server.url(f"/{FOREIGN}")}}, device="another", stores={"lake": AWAY}, clock="trust"
    )
    try:
        daemon.start()
        for size in ("small", "noise", "large", "small"):
            answers.size = size
            report = daemon.poll(FOREIGN)
            oracle.fetches.append((FOREIGN, report["first_seq"], report["records"]))
            daemon.cli("flush")
        (folder / "export").mkdir()
        assert daemon.cli("export", str(folder / "export")).returncode == 0
    finally:
        daemon.end()
        server.close()
    return folder / "export", oracle.fetches, oracle.served


def set_aside(root):
    """Of a damaged buffer, and what a salvage has left on its way."""
    return sorted(root.glob("buffer.db.*"))


def retry(condition, seconds):
    """Whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def judge_audit(audit):
    for store in audit["stores"]:
        wrong = {kind: store["records"][kind] for kind in ("missing", "double", "changed", "lost")}
        if store["error"] or any(wrong.values()):
            raise Violation(f"audit: {json.dumps(store)[:2000]}", lost=wrong["missing"], twice=wrong["double"])


def copy_buffer(root, to):
    for suffix in ("", "-wal", "-journal"):
        from_, to_ = root / f"buffer.db{suffix}", to.with_name(to.name + suffix)
        to_.unlink(missing_ok=True)
        if from_.exists():
            shutil.copyfile(from_, to_)


def come_to_rest(path):
    """All in one file."""
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode = DELETE")
    db.close()


def sync(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
