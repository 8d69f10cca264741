# SPDX-License-Identifier: Apache-2.0
"""Runs, as their folders tell of them.

    STATE/runs/RUN/  manifest.json  as it came
                     run.json       job and agent: written last of what `start` writes
                     lock           held by the supervisor while it lives
                     started.json   from here on the job may have done something: it is never started again
                     cancel         somebody wants it to end
                     ended.json     how it ended
                     log            what the job said
                     work/          the job's own folder, removed at the end

Each file is written whole and on the disk before the next step is taken, so what a power cut leaves is a state.
"""

import contextlib
import os
import re
import signal
import time

from millrace_worker import durable, jobs, processes
from millrace_worker.refusal import BAD_DATA, NOT_NOW, Refusal

PATIENCE = 10  # seconds: for the lock of all, and for a supervisor to come up
GRACE = 4  # seconds that a job has to end by itself
MAX_RUNNING = 8
KEPT = 100  # ended runs
NAME = "[a-z0-9][a-z0-9-]{7,63}"


def boot():
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


class Run:
    def __init__(self, settings, name):
        self.settings = settings
        self.name = name
        self.folder = os.path.join(settings.runs, name)

    def path(self, part):
        return os.path.join(self.folder, part)

    def read(self, part):
        return durable.read_json(self.path(f"{part}.json"))

    def write(self, part, value):
        durable.write_json(self.path(f"{part}.json"), value)

    def supervised(self):
        return durable.held(self.path("lock"))

    def status(self):
        """The order counts: what had started before nobody held its lock is at its end, told or not."""
        accepted, started = self.read("run"), self.read("started")
        if not (accepted and started):
            return self.answer("unknown", accepted, started, {})
        if self.supervised():
            return self.answer("running", accepted, started, {})
        ended = self.read("ended") or self.settle(started)
        return self.answer(ended["state"], accepted, started, ended)

    def answer(self, state, accepted, started, ended):
        return {
            "run": self.name,
            "job": accepted and accepted["job"],
            "state": state,
            "exit": ended.get("exit"),
            "why": ended.get("why"),
            "started_at": started and started["started_at"],
            "ended_at": ended.get("ended_at"),
            "log_bytes": self.log_bytes(),
        }

    def log_bytes(self):
        try:
            return os.path.getsize(self.path("log"))
        except FileNotFoundError:
            return 0

    def settle(self, started):
        """The end of a run whose supervisor is gone without a word. Nothing of it runs when this returns."""
        if not processes.kill_all(self.name):
            raise Refusal(NOT_NOW, f"processes of run {self.name} do not die: see ps on this machine")
        if os.path.exists(self.path("cancel")):
            return self.end("cancelled")
        rebooted = started["boot"] != boot()
        return self.end("lost", why="the machine was started anew" if rebooted else "its supervisor was killed")

    def end(self, state, status=None, why=None):
        ended = {"state": state, "exit": status, "why": why, "ended_at": durable.now()}
        self.clear()
        self.write("ended", ended)
        return ended

    def clear(self):
        import shutil

        shutil.rmtree(self.path("work"), ignore_errors=True)

    def cancel(self):
        """Asks the supervisor first, for it knows how the job ended; then nobody is asked."""
        if self.status()["state"] != "running":
            return
        with contextlib.suppress(OSError):  # a job that has filled the disk is to be ended all the same
            durable.write(self.path("cancel"), b"")
        with contextlib.suppress(OSError):
            os.kill(self.read("started")["pid"], signal.SIGTERM)
        deadline = time.monotonic() + GRACE + 2
        while self.supervised() and time.monotonic() < deadline:
            time.sleep(0.02)
        if self.supervised():
            processes.kill_all(self.name)


def every(settings):
    return [Run(settings, name) for name in sorted(os.listdir(settings.runs)) if re.fullmatch(NAME, name)]


def running(settings):
    return [run for run in every(settings) if run.status()["state"] == "running"]


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
    accepted = run.read("run")
    if accepted and accepted["job"] != job:
        raise Refusal(BAD_DATA, f"run {run.name} is one of job {accepted['job']}: a new run wants a new name")
    if accepted and accepted["manifest"] != digest(manifest):
        raise Refusal(BAD_DATA, f"run {run.name} has another manifest: a new manifest wants a new run")


def start(settings, name, job, manifest, agent):
    """The status of the run, which is running or has been."""
    from millrace_worker.launch import launch

    run = Run(settings, name)
    with exclusively(settings):
        check_same(run, job, manifest)
        if run.status()["state"] == "unknown":
            jobs.find(settings, job)
            make_room(settings)
            accept(run, job, manifest, agent)
            launch(settings.etc, ["supervise", name], f"millrace-run-{name}", {processes.MARK: name})
            await_start(run)
        return run.status()


def await_start(run):
    deadline = time.monotonic() + PATIENCE
    while not run.read("started"):
        if time.monotonic() > deadline:
            raise Refusal(NOT_NOW, f"the supervisor of run {run.name} does not come up: ask again, or see the journal")
        time.sleep(0.01)


def make_room(settings):
    import shutil

    if len(running(settings)) >= MAX_RUNNING:
        raise Refusal(NOT_NOW, f"{MAX_RUNNING} runs are running: ask again when one has ended")
    ended = [run for run in every(settings) if os.path.exists(run.path("ended.json"))]
    ended.sort(key=lambda run: os.path.getmtime(run.path("ended.json")))
    for run in ended[:-KEPT]:
        shutil.rmtree(run.folder)
