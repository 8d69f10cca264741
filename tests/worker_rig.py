# SPDX-License-Identifier: Apache-2.0
"""A working machine for tests: the worker as `setup` makes it, behind a real sshd on loopback.

As root, where namespaces can be made, it is a machine of its own as far as files and processes go: it begins as this
one, and whatever is done there stays there. Else the worker stands below one folder, as whoever runs the tests.
"""

import contextlib
import hashlib
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
from pathlib import Path

from daemon import PATIENCE, wait_until
from proxy import free_port

WORKER = Path(__file__).resolve().parents[1] / "worker"
SSHD = "/usr/sbin/sshd"
ETC = "/etc/millrace-worker"
HOME = "/var/lib/millrace-worker"

# Whatever an sshd may allow: the key's own line has to refuse it.
SSHD_CONFIG = """\
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
AcceptEnv LC_* PYTHON* MILLRACE_* SSH_ORIGINAL_COMMAND ENV BASH_ENV PATH
PermitUserEnvironment yes
PermitTunnel yes
X11Forwarding yes
Subsystem sftp internal-sftp
MaxStartups 100
LogLevel VERBOSE
"""

# A machine within this one; $1: a folder to share, $2: Python packages for the jobs
INIT = """
set -e
mount --make-rprivate /
mkdir "$1/box"
mount -t tmpfs -o mode=755 box "$1/box"
cd "$1/box"
mkdir upper work root
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
cd root
mount -t proc proc proc
mount --rbind /dev dev
mount -t tmpfs -o mode=755 run run
mount -t tmpfs tmp tmp
mkdir -p run/sshd ".$1" opt/packages
mount --bind "$1" ".$1"
mount --bind "$2" opt/packages
pivot_root . mnt
umount -l mnt
exec /usr/bin/python3 -Ic 'import signal as s; s.signal(s.SIGCHLD, s.SIG_IGN); print("up", flush=True); s.pause()'
"""


def can_make_namespaces():
    """And has its system on one file system, and sudo, which `setup` wants as root."""
    if os.geteuid() != 0 or not shutil.which("sudo") or os.stat("/usr").st_dev != os.stat("/").st_dev:
        return False
    probe = ["unshare", "--mount", "--pid", "--fork", "mount", "-t", "tmpfs", "probe", "/mnt"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


class Machine:
    """What both kinds have. `pi` is the agent whose key it knows from the start."""

    whole = False
    host = "127.0.0.1"
    user = pwd.getpwuid(os.geteuid()).pw_name

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="millrace-worker-"))
        self.folder.chmod(0o755)
        self.open = self.folder / "open"  # anybody may write there
        self.open.mkdir()
        self.open.chmod(0o1777)
        self.slept = self.open / "slept"
        self.store = self.folder / "store"
        self.store.mkdir()
        (self.store / ".millrace-store").touch()
        shutil.copytree(WORKER, self.folder / "worker", ignore=shutil.ignore_patterns("__pycache__"))
        self.port = free_port()
        self.sshd = self.master = None
        self.make_key("host")
        self.make_key("pi")
        self.know_host()

    def know_host(self):
        known = f"[{self.host}]:{self.port} {(self.folder / 'host.pub').read_text()}"
        (self.folder / "known_hosts").write_text(known)

    def make_key(self, name):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", self.folder / name]
        subprocess.run(command, check=True)

    def run(self, *command, user=None, **options):
        """On the machine; as root, or else as user."""
        asked = ["sudo", "-n", "-u", user, "--"] if user and self.whole else []
        options = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": PATIENCE} | options
        return subprocess.run([*self.inside(), *asked, *map(str, command)], check=False, **options)

    def setup(self, *options, agent="pi", key=None):
        """As a person at the machine would type it."""
        words = ("--key", key or self.folder / f"{agent}.pub", "--agent", agent, *self.prefix(), *options)
        return self.run("/usr/bin/python3", self.folder / "worker/millrace_worker", "setup", *words)

    def start(self):
        done = self.setup("--sleep-command", f"/usr/bin/touch {self.slept}")
        assert done.returncode == 0, done.stderr
        self.start_sshd()
        return self

    def sshd_command(self, host):
        config = self.folder / "sshd_config"
        own = f"Port {self.port}\nHostKey {self.folder}/host\nPidFile {self.folder}/sshd.pid\n"
        config.write_text(SSHD_CONFIG + own + self.sshd_settings())
        return [SSHD, "-D", "-f", str(config), "-E", str(self.folder / "sshd.log"), f"-oListenAddress={host}"]

    def start_sshd(self):
        self.sshd = subprocess.Popen([*self.inside(), *self.sshd_command(self.host)], stdin=subprocess.DEVNULL)
        wait_until("sshd to listen", self.listens)
        self.connect()

    def connect(self):
        """One connection for all that needs none of its own: a session on it is ten times as quick."""
        self.hang_up()
        self.master = subprocess.Popen(
            self.ssh(alone=True, options=["-MN", f"-oControlPath={self.folder}/master"]), stdin=subprocess.DEVNULL
        )
        wait_until("a connection", lambda: (self.folder / "master").exists())

    def hang_up(self):
        if self.master:
            self.master.kill()
            self.master.wait()
            (self.folder / "master").unlink(missing_ok=True)

    def listens(self):
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port)) as there:
            return there.recv(4) == b"SSH-"

    def ssh(self, *words, agent="pi", options=(), alone=False):
        """The command line of a client; alone: with a connection of its own."""
        settings = {
            "BatchMode": "yes",
            "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": self.folder / "known_hosts",
            "LogLevel": "ERROR",
        }
        if agent == "pi" and not alone:
            settings["ControlPath"] = self.folder / "master"
        named = [f"-o{name}={value}" for name, value in settings.items()]
        login = f"{self.user}@{self.host}"
        key = str(self.folder / agent)
        return ["ssh", "-F", "none", "-p", str(self.port), "-i", key, *options, *named, login, "--", *words]

    def say(self, *words, data=b"", agent="pi", options=(), alone=False, **more):
        """What ssh brings back; stdout and stderr are bytes."""
        command = self.ssh(*words, agent=agent, options=options, alone=alone)
        return subprocess.run(command, input=data, capture_output=True, timeout=PATIENCE, check=False, **more)

    def ask(self, *words, **more):
        """The JSON of an answer that must be one."""
        said = self.say(*words, **more)
        assert said.returncode == 0, said.stderr.decode()
        assert said.stdout.count(b"\n") == 1 and said.stdout.endswith(b"\n")
        return json.loads(said.stdout)

    def begin(self, run, job, manifest=None):
        return self.ask("start", run, job, data=manifest or self.manifest(run))

    def end_of(self, run):
        """The status, once the run has come to its end."""

        def ended():
            status = self.ask("status", run)
            return status["state"] != "running" and status

        return wait_until(f"run {run} to end", ended)

    def log_of(self, run, offset=0):
        said = self.say("log", run, str(offset))
        assert said.returncode == 0, said.stderr.decode()
        return said.stdout

    def job(self, name, script, mode=0o755):
        """A job of the machine's owner."""
        folder = self.path(f"{ETC}/jobs/{name}")
        folder.mkdir(mode=0o755)
        (folder / "run").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "run").chmod(mode)

    def deliver(self, key, data, **said):
        """An object in the file store; its entry in a manifest."""
        path = self.store / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return {"key": key, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "dt": "2026-11-21"} | said

    def manifest(self, run, /, objects=(), **other):
        said = {
            "version": 1,
            "run": run,
            "job": "parking",
            "device": "pi-test",
            "created_at": "2026-11-21T10:02:00.123Z",
            "store": {"kind": "file", "path": str(self.store)},
            "objects": objects,
        }
        return json.dumps(said | other).encode()

    def run_path(self, run, part=""):
        return self.path(f"{HOME}/state/runs/{run}") / part

    def read(self, run, part):
        return json.loads(self.run_path(run, f"{part}.json").read_text())

    def pids(self, run):
        """Of all processes of a run but the supervisor's."""
        script = "import sys; sys.path.insert(0, sys.argv[1]); from millrace_worker import processes as p; "
        script += "print(*p.of_run(sys.argv[2]))"
        found = self.run("/usr/bin/python3", "-Ic", script, self.folder / "worker", run).stdout.split()
        return {int(pid) for pid in found} - {self.read(run, "started")["pid"]}

    def quiet(self):
        """As if nobody had asked for anything for long."""
        for folder in ("state/agents", "leases"):
            for path in self.path(f"{HOME}/{folder}").iterdir():
                path.unlink()
        self.slept.unlink(missing_ok=True)

    def stop_sshd(self):
        """The listener; and our connection, but nobody else's."""
        self.hang_up()
        if self.sshd and self.sshd.poll() is None:
            self.kill(int((self.folder / "sshd.pid").read_text()))
            self.sshd.wait()

    def close(self):
        self.stop_sshd()
        self.end()
        shutil.rmtree(self.folder)


class Whole(Machine):
    """Ends with its init, and all that is on it does; nobody waits for the second or two that the kernel takes."""

    whole = True
    user = "millrace"

    def __init__(self):
        super().__init__()
        make = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", INIT, "init"]
        packages = sysconfig.get_path("purelib")
        self.box = subprocess.Popen([*make, self.folder, packages], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        if self.box.stdout.readline() != b"up\n":
            raise RuntimeError("no machine of its own could be made")
        children = Path(f"/proc/{self.box.pid}/task/{self.box.pid}/children")
        self.init = int(children.read_text())
        (self.folder / "box").chmod(0o755)

    def inside(self):
        return ["nsenter", "-t", str(self.init), "-m", "-p", "-r", "-w", "--"]

    def prefix(self):
        return ()

    def sshd_settings(self):
        return ""

    def path(self, there):
        return Path(f"/proc/{self.init}/root{there}")

    def kill(self, pid, number=signal.SIGKILL):
        self.run("kill", f"-{int(number)}", str(pid))

    def end(self):
        self.box.kill()
        self.box.wait()
        self.box.stdout.close()


class Trial(Machine):
    """Below one folder. What is left of a run is ended by its pid."""

    def inside(self):
        return []

    def prefix(self):
        return ("--prefix", self.folder / "trial")

    def sshd_settings(self):
        return f"StrictModes no\nAuthorizedKeysFile {self.path(HOME)}/.ssh/authorized_keys\n"

    def start_sshd(self):
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)
        super().start_sshd()

    def path(self, there):
        places = {ETC: "etc", HOME: "home", "/usr/local/lib/millrace-worker": "lib"}
        known = next(known for known in places if there.startswith(known))
        return self.folder / "trial" / (places[known] + there[len(known) :])

    def kill(self, pid, number=signal.SIGKILL):
        os.kill(pid, number)

    def end(self):
        for folder in self.path(f"{HOME}/state/runs").glob("*"):
            if (folder / "started.json").exists() and not (folder / "ended.json").exists():
                pids = self.pids(folder.name) | {self.read(folder.name, "started")["pid"]}
                for pid in pids:
                    with contextlib.suppress(OSError):
                        os.kill(pid, signal.SIGKILL)


def make_machine():
    return (Whole if can_make_namespaces() else Trial)()


def new_run():
    return f"run-{secrets.token_hex(8)}"
