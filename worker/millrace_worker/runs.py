# SPDX-License-Identifier: Apache-2.0
"""Runs, as their folders tell of them.

    STATE/runs/RUN/  manifest.json  as it came
                     run.json       job and agent: written last of what `start` writes
                     lock           held by the supervisor while it lives
                     started.json   from here on the job may have done something: it is never started again
                     cancel         somebody wants it to end
                     ended.json     how it ended; alone where it was cancelled before it was started
                     log            what the job said
                     work/          the job's own folder, removed at the end

Each file is written whole and on the disk before the next step is taken, so what a power cut leaves is a state. When
the folder goes, ended.json stays as STATE/ended/RUN.json: what has ended is not started again.
"""

import contextlib
import json
import os
import re
import signal
import sys
import time

from millrace_worker import durable, jobs, processes
from millrace_worker.refusal import BAD_DATA, NOT_NOW, Refusal

PATIENCE = 10  # seconds: for the lock of all, and for a supervisor to come up
GRACE = 4  # seconds that a job has to end by itself
MAX_RUNNING = 8
KEPT = 100  # folders of ended runs
ENDINGS = 10_000  # and how those ended whose folder is gone: from so many up to twice that
SHAPES = {  # what is in the files of a run, as far as it is used
    "run": {"job": str, "manifest": str},
    "started": {"started_at": str, "boot": str, "pid": int},
    "ended": {"state": str},
}
NAME = "[a-z0-9][a-z0-9-]{7,63}"


def boot():
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


class Run:
    def __init__(self, settings, name):
        self.settings = settings
        self.name = name
        self.folder = os.path.join(settings.runs, name)
        self.damage = None  # the first of its files that cannot be read

    def path(self, part):
        return os.path.join(self.folder, part)

    def read(self, part):
        """None where there is no such file; {} of a damaged one: that it is there says something all the same."""
        places = [self.path(f"{part}.json")]
        if part == "ended":
            places += [os.path.join(place, f"{self.name}.json") for place in endings(self.settings)]
        for path in places:
            found = self.read_file(path, SHAPES[part])
            if found is not None:
                return found
        return None

    def read_file(self, path, shape):
        try:
            with open(path, "rb") as file:
                found = json.load(file)
            if isinstance(found, dict) and all(isinstance(found.get(name), kind) for name, kind in shape.items()):
                return found
            wrong = "it says what nobody wrote"
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            if isinstance(error, OSError) and error.errno in durable.SCARCE:
                raise
            wrong = getattr(error, "strerror", None) or error
        self.damage = self.damage or f"{path} is damaged: {wrong}"
        return {}

    def write(self, part, value):
        durable.write_json(self.path(f"{part}.json"), value)

    def supervised(self):
        return durable.held(self.path("lock"))

    def status(self):
        """The order counts: what had started before nobody held its lock is at its end, told or not."""
        accepted, started = self.read("run"), self.read("started")
        if started is not None and self.supervised():
            return self.answer("running", accepted, started, {})
        ended = self.read("ended")
        if ended is None and started is None:
            return self.answer("unknown", accepted, started, {})
        if ended is None:
            ended = self.settle(started)
        return self.answer(ended.get("state", "lost"), accepted, started, ended)

    def answer(self, state, accepted, started, ended):
        known = ended | (accepted or {}) | (started or {})
        return {
            "run": self.name,
            "job": known.get("job"),
            "state": state,
            "exit": ended.get("exit"),
            "why": ended.get("why") or self.damage,
            "started_at": known.get("started_at"),
            "ended_at": ended.get("ended_at"),
            "log_bytes": self.log_bytes(),
        }

    def ended_at(self):
        try:
            return os.path.getmtime(self.path("ended.json"))
        except OSError:
            return 0

    def log_bytes(self):
        try:
            return os.path.getsize(self.path("log"))
        except OSError:
            return 0

    def keeps_awake(self):
        """Where its end cannot be told, what is left of it counts: nobody else is to be harmed by that."""
        try:
            return self.status()["state"] == "running"
        except (OSError, Refusal):
            return bool(processes.of_run(self.name))

    def settle(self, started):
        """The end of a run whose supervisor is gone without a word. Nothing of it runs when this returns, and where
        that cannot be written down, whoever looks next finds the same.
        """
        if not processes.kill_all(self.name):
            raise Refusal(NOT_NOW, f"processes of run {self.name} do not die: see ps on this machine")
        self.clear()
        if os.path.exists(self.path("cancel")):
            ended = self.ending("cancelled")
        elif not started:
            ended = self.ending("lost", why=self.damage)
        elif started["boot"] != boot():
            ended = self.ending("lost", why="the machine was started anew")
        else:
            ended = self.ending("lost", why="its supervisor was killed")
        with contextlib.suppress(OSError):
            self.write("ended", ended)
        return ended

    def ending(self, state, status=None, why=None):
        """With all that is known of it, for this may be what is left."""
        accepted, started = self.read("run") or {}, self.read("started") or {}
        ended = {"state": state, "exit": status, "why": why, "ended_at": durable.now()}
        return ended | {name: accepted.get(name) for name in SHAPES["run"]} | {"started_at": started.get("started_at")}

    def clear(self):
        """None, or what is in the way, which is no reason not to tell the run's end."""
        try:
            return durable.remove(self.path("work"))
        except OSError as error:
            return f"{self.path('work')} cannot be removed: {error}"

    def never_start(self):
        """While no `start` is under way. But its supervisor may be late: it starts nothing that has ended."""
        durable.folder(self.folder)
        lock = durable.lock(self.path("lock"), 1)
        if lock is None:
            raise Refusal(NOT_NOW, f"run {self.name} is just being started: ask again")
        with lock:
            if self.read("started") is None:
                self.write("ended", self.ending("cancelled"))

    def cancel(self):
        """Asks the supervisor first, for it knows how the job ended; then nobody is asked."""
        if self.status()["state"] != "running":
            return
        with contextlib.suppress(OSError):  # a job that has filled the disk is to be ended all the same
            durable.write(self.path("cancel"), b"")
        with contextlib.suppress(OSError, KeyError):
            os.kill(self.read("started")["pid"], signal.SIGTERM)
        deadline = time.monotonic() + GRACE + 2
        while self.supervised() and time.monotonic() < deadline:
            time.sleep(0.02)
        if self.supervised():
            processes.kill_all(self.name)


def every(settings):
    return [Run(settings, name) for name in sorted(os.listdir(settings.runs)) if re.fullmatch(NAME, name)]


def running(settings):
    return [run for run in every(settings) if run.keeps_awake()]


def exclusively(settings):
    """What starts, and what sleeps, is alone; also while the machine falls asleep."""
    lock = durable.lock(settings.lock, PATIENCE)
    if lock is None:
        raise Refusal(NOT_NOW, "the machine is about to sleep, or another start hangs: ask again")
    return lock


def digest(data):
    import hashlib

    return hashlib.sha256(data).hexdigest()


def accept(run, job, manifest, agent):
    """Once run.json is there, the run is. What an earlier try left before that is written over."""
    durable.folder(run.folder)
    durable.write(run.path("manifest.json"), manifest)
    run.write("run", {"job": job, "agent": agent, "manifest": digest(manifest)})


def check_same(run, job, manifest):
    """As far as it is known what it was."""
    known = run.read("run") or run.read("ended") or {}
    if known.get("job") not in (None, job):
        raise Refusal(BAD_DATA, f"run {run.name} is one of job {known['job']}: a new run wants a new name")
    if known.get("manifest") not in (None, digest(manifest)):
        raise Refusal(BAD_DATA, f"run {run.name} has another manifest: a new manifest wants a new run")


def start(settings, name, job, manifest, agent):
    """The status of the run, which is running or has been."""
    run = Run(settings, name)
    with exclusively(settings):
        check_same(run, job, manifest)
        status = run.status()
        if status["state"] != "unknown":
            return status
        jobs.find(settings, job)
        if len(running(settings)) >= MAX_RUNNING:
            raise Refusal(NOT_NOW, f"{MAX_RUNNING} runs are running: ask again when one has ended")
        make_room(settings)
        accept(run, job, manifest, agent)
        try:
            return begin(run)
        except Refusal:
            raise
        except Exception as error:  # whatever it is: the job may run by now
            raise Refusal(NOT_NOW, f"run {name} may have begun: {error!r}: ask again") from None


def begin(run):
    from millrace_worker.launch import launch

    launch(run.settings.etc, ["supervise", run.name], f"millrace-run-{run.name}", {processes.MARK: run.name})
    deadline = time.monotonic() + PATIENCE
    while run.read("started") is None:
        if time.monotonic() > deadline:
            raise Refusal(NOT_NOW, f"the supervisor of run {run.name} does not come up: ask again, or see the journal")
        time.sleep(0.01)
    return run.status()


def cancel(settings, name):
    """The status of the run, which does not run any more, and never will."""
    run = Run(settings, name)
    if run.status()["state"] == "unknown":
        with exclusively(settings):
            if run.status()["state"] == "unknown":
                run.never_start()
                make_room(settings)
    run.cancel()
    return run.status()


def endings(settings):
    return settings.ended, f"{settings.ended}.old"


def in_order(settings):
    """Ended runs whose folder is there, in the order in which they ended. A clock that is wrong mixes up no more than
    what has ended since somebody last looked, and that is a few.
    """
    ended = {run.name: run for run in every(settings) if run.read("ended") is not None}
    try:
        order = [name for name in dict.fromkeys(durable.read_json(settings.order) or ()) if name in ended]
    except (OSError, ValueError, TypeError):
        order = []
    new = ended.keys() - set(order)
    order += sorted(new, key=lambda name: (ended[name].ended_at(), name))
    if new:
        durable.write_json(settings.order, order)
    return [ended[name] for name in order]


def make_room(settings):
    """What cannot be removed is told, and tried again the next time."""
    for run in in_order(settings)[:-KEPT]:
        try:
            left = bury(run)
        except OSError as error:
            left = f"run {run.name} cannot be removed: {error}"
        if left:
            print(f"millrace-worker: {left}", file=sys.stderr)


def bury(run):
    """Keeps how it ended. None, or what is in the way."""
    new, old = endings(run.settings)
    durable.folder(new)
    if len(os.listdir(new)) >= ENDINGS and not durable.remove(old):
        os.rename(new, old)
        durable.folder(new)
    with contextlib.suppress(OSError):
        os.chmod(run.folder, 0o750)
    with contextlib.suppress(FileExistsError, FileNotFoundError):  # it was not removed whole the last time
        os.link(run.path("ended.json"), os.path.join(new, f"{run.name}.json"))
    durable.sync_folder(new)
    return durable.remove(run.folder)
