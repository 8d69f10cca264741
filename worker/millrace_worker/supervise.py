# SPDX-License-Identifier: Apache-2.0
"""The process that stays with a job from its start to its end: keeps its log within bounds, ends it when asked to, and
writes down how it ended.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import time
import traceback

from millrace_worker import durable, jobs, processes, runs
from millrace_worker.launch import SAFE_PATH
from millrace_worker.settings import PACKAGE

LOG_HEAD = 60 << 20
LOG_TAIL = 4 << 20


class Log:
    """The first 60 MB and the last 4 MB of what is written. It only ever grows at its end: readers go by offsets."""

    def __init__(self, path):
        self.file = open(path, "ab", buffering=0)  # noqa: SIM115 (for as long as the run)
        self.room = LOG_HEAD - self.file.tell()
        self.tail = bytearray()
        self.dropped = 0

    def write(self, data):
        self._put(data[: self.room])
        self.tail += data[self.room :]
        self.room = max(0, self.room - len(data))
        if len(self.tail) > 2 * LOG_TAIL:
            self._drop(len(self.tail) - LOG_TAIL)

    def _drop(self, size):
        del self.tail[:size]
        self.dropped += size

    def _put(self, data):
        """A full disk ends the log and not the job."""
        with contextlib.suppress(OSError):
            self.file.write(data)

    def say(self, text):
        self.write(f"millrace-worker: {text}\n".encode())

    def close(self):
        self._drop(max(0, len(self.tail) - LOG_TAIL))
        if self.dropped:
            self._put(f"\nmillrace-worker: {self.dropped} bytes are left out here\n".encode())
        self._put(self.tail)
        with contextlib.suppress(OSError):
            os.fsync(self.file.fileno())
        self.file.close()


def environment(run, job_folder):
    """All that a job gets of one."""
    settings = run.settings
    return {
        processes.MARK: run.name,
        "MILLRACE_MANIFEST": run.path("manifest.json"),
        "MILLRACE_JOB": job_folder,
        "MILLRACE_ETC": settings.etc,
        "PYTHONPATH": os.path.dirname(PACKAGE),
        "PATH": SAFE_PATH,
        "HOME": settings.home,
        "TMPDIR": run.path("work"),
        "LANG": "C.UTF-8",
    }


class Supervisor:
    def __init__(self, run, log):
        self.run = run
        self.log = log
        self.asked = False  # to end, by SIGTERM
        self.deadline = None
        self.selector = selectors.DefaultSelector()
        self.wake, told = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(told, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.signal(signal.SIGTERM, self.on_term)

    def on_term(self, number, frame):
        self.asked = True

    def follow(self, folder):
        """Runs the job; its exit status as a shell would tell it."""
        process = subprocess.Popen(
            [os.path.join(folder, "run")],
            cwd=self.run.path("work"),
            env=environment(self.run, folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.selector.register(self.wake, selectors.EVENT_READ)
        self.selector.register(process.stdout, selectors.EVENT_READ)
        while process.poll() is None:
            self.step(process)
        processes.kill_all(self.run.name)
        os.set_blocking(process.stdout.fileno(), False)
        while data := process.stdout.read(1 << 16):
            self.log.write(data)
        return process.returncode

    def step(self, process):
        left = None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
        for key, _ in self.selector.select(left):
            data = os.read(key.fd, 1 << 16)
            if key.fd == self.wake:
                continue
            if not data:
                self.selector.unregister(key.fileobj)
            self.log.write(data)
        if self.asked and self.deadline is None:
            self.deadline = time.monotonic() + runs.GRACE
            self.signal_all(process, signal.SIGTERM)
        if self.deadline is not None and time.monotonic() >= self.deadline:
            self.signal_all(process, signal.SIGKILL)
            self.deadline = time.monotonic() + 1

    def signal_all(self, process, number):
        """Its group too, for what has thrown its environment away."""
        processes.send(processes.of_run(self.run.name), number)
        with contextlib.suppress(OSError):
            os.killpg(process.pid, number)


def outcome(run, supervisor, status):
    """(state, exit, why)"""
    if supervisor.asked:
        if os.path.exists(run.path("cancel")):
            return "cancelled", None, None
        return "lost", None, "the machine was shut down, or its supervisor was"
    if status < 0:
        return "failed", 128 - status, f"ended by signal {-status}"
    return ("failed" if status else "done"), status, None


def carry(run, job):
    """From the supervisor's lock to the end."""
    run.write("started", {"started_at": durable.now(), "boot": runs.boot(), "pid": os.getpid()})
    os.makedirs(run.path("work"), exist_ok=True)
    log = Log(run.path("log"))
    supervisor = Supervisor(run, log)
    try:
        state, status, why = outcome(run, supervisor, supervisor.follow(jobs.find(run.settings, job)))
    except Exception as error:
        log.say(traceback.format_exc())
        processes.kill_all(run.name)
        state, status, why = "failed", 126, f"the job cannot be run: {error}"
    left = run.clear()
    if left:
        log.say(left)
    log.close()
    end(run, state, status, why)


def end(run, state, status, why):
    """A full disk does not make a run lost: it is tried until there is room."""
    while True:
        try:
            return run.write("ended", run.ending(state, status, why))
        except OSError:
            time.sleep(5)


def supervise(settings, name):
    os.umask(0o027)
    run = runs.Run(settings, name)
    lock = durable.lock(run.path("lock"), runs.PATIENCE)
    if lock and run.read("started") is None and run.read("ended") is None:
        carry(run, run.read("run")["job"])
