# SPDX-License-Identifier: Apache-2.0
"""A working machine that sleeps, as Millrace finds it: the worker as `setup` makes it below one folder, behind an sshd
that runs while the machine is awake (tests/sleeper.py). For the system tests and the demo.

Where it may have namespaces it has a network of its own, nobody is logged in on it, and it tells another boot after
each sleep; where it may not, it says so, and lives on loopback. Standard library only; needs what MILL_DEPS of the
Makefile names.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

from daemon import PATIENCE, wait_until
from worker_rig import SSHD, Trial

SLEEPER = Path(__file__).resolve().with_name("sleeper.py")
PYTHON = "/usr/bin/python3"
MAC = "02:4d:69:6c:6c:42"

# What is awake is a boot of its own, without who is logged in here, without this machine's systemd, and without the
# disks of other tests, which could not be unmounted while it is awake. $1: a folder, then what runs in it.
BOOT = """
awk '$1 ~ "^/dev/loop" { print $2 }' /proc/mounts | xargs -r -n 1 umount -l || true
mount -t tmpfs -o mode=755 run /run && mkdir /run/sshd && cat /proc/sys/kernel/random/uuid >"$1/boot" &&
mount --bind "$1/boot" /proc/sys/kernel/random/boot_id && shift && exec "$@"
"""


class Mill(Trial):
    """Asleep from the start. boot: seconds that it takes to wake up."""

    name = "mill"

    def __init__(self, boot=0.5, loopback=False):
        if not os.path.exists(SSHD):
            raise RuntimeError(f"there is no {SSHD}: apt install openssh-server")
        super().__init__()
        self.bed = self.folder / "sleeper"
        self.bed.mkdir()
        self.process = None
        try:
            self.lie_down(boot, loopback)
        except BaseException:
            self.close()
            raise

    def lie_down(self, boot, loopback):
        shutil.copy(SLEEPER, self.folder / "sleeper.py")
        done = self.setup("--sleep-command", f"/usr/bin/touch {self.bed}/sleep")
        if done.returncode != 0:
            raise RuntimeError(f"millrace-worker setup: {done.stderr}")
        options = ["--mac", MAC, "--boot", str(boot), *(["--loopback"] if loopback else [])]
        program = [*self.box(), *self.sshd_command("{host}")]
        command = [PYTHON, str(self.folder / "sleeper.py"), "run", str(self.bed), *options, "--", *program]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{SLEEPER.name} ended with {self.process.wait()}")
        self.about = json.loads(line)
        self.host = self.about["host"]
        self.know_host()

    def box(self):
        """What makes a boot of its own, with the right to; else says so."""
        rights, back = [], []
        if os.geteuid() != 0:  # root for the mounts, and nobody else than before from then on
            rights = ["--user", "--map-root-user"]
            back = ["unshare", "--user", f"--map-user={os.geteuid()}", f"--map-group={os.getegid()}"]
        box = ["unshare", *rights, "--mount", "sh", "-ec", BOOT, "sh", str(self.folder), *back]
        self.apart = subprocess.run([*box, "true"], capture_output=True, check=False).returncode == 0
        if self.apart:
            return box
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)
        print("mill: NO RIGHT TO MAKE A MOUNT NAMESPACE: who is logged in here keeps it awake", file=sys.stderr)
        return []

    # ---- what Millrace is told of it

    def machine_settings(self, **changes):
        """The settings of `machines.mill`."""
        there = {
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "key": f"file:{self.folder}/pi",
            "known_hosts": str(self.folder / "known_hosts"),
            "ready_timeout": "60s",
            "idle": "10s",
        }
        return self.waker() | there | changes

    def waker(self):
        """Packets, or a command where the machine cannot listen on the ports that packets go to."""
        if self.about["ports"] == [9, 7]:
            return {"wake": "wol", "mac": self.about["mac"], "interface": self.about["interface"]}
        return {"wake": "exec", "command": f"{PYTHON} {self.folder}/sleeper.py wake {self.bed}"}

    def job_settings(self, path_there, sources, **changes):
        """The settings of a job: `count`, over what a `file` store has, which is there as it is here."""
        settings = {
            "machine": self.name,
            "driver": "ssh",
            "run": "count",
            "path_there": str(path_there),
            "sources": sources,
            "when": "batches >= 1",
        }
        return settings | changes

    # ---- what befalls it

    def wake(self):
        """A packet by other hands than Millrace's."""
        subprocess.run([PYTHON, self.folder / "sleeper.py", "wake", self.bed], check=True)

    def put_to_sleep(self):
        """By other hands than Millrace's."""
        (self.bed / "sleep").touch()

    def pull_the_plug(self):
        (self.bed / "off").touch()

    # ---- what can be seen of it

    def state(self):
        return (self.bed / "state").read_text()

    def wait(self, state, patience=PATIENCE):
        wait_until(f"the machine to be {state}", lambda: self.state() == state, patience)

    def packets(self):
        """All magic packets for it, oldest first: "at" (time.time()), "state" that it had then, "to", "port"."""
        return self.book("packets")

    def states(self):
        """All that it had, oldest first: "at" and "state"."""
        return self.book("states")

    def book(self, name):
        return [json.loads(line) for line in (self.bed / f"{name}.jsonl").read_text().splitlines()]

    def answers(self):
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), timeout=1) as there:
            return there.recv(4) == b"SSH-"

    def ssh(self, *words, agent="pi", options=(), alone=True):
        """Each with a connection of its own: they do not outlive its sleep."""
        return super().ssh(*words, agent=agent, options=options, alone=alone)

    def end(self):
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait()
            self.process.stdout.close()
        super().end()
