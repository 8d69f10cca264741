# SPDX-License-Identifier: Apache-2.0
"""`millrace-worker setup`: makes a machine ready, says each step, and may run again at any time.

As root it makes the user. With --prefix everything stands below one folder and works as whoever calls it, for trials
and tests with an sshd of one's own.
"""

import argparse
import base64
import binascii
import compileall
import contextlib
import hashlib
import json
import os
import pwd
import re
import shlex
import shutil
import subprocess
import sys

from millrace_worker import durable
from millrace_worker.forced import VERBS
from millrace_worker.settings import ETC, PACKAGE

HOME = "/var/lib/millrace-worker"
LIB = "/usr/local/lib/millrace-worker"
SUDOERS = "/etc/sudoers.d/millrace-worker"
SUSPEND = "/usr/bin/systemctl suspend"
KEY_TYPES = "ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)|sk-(?:ssh-ed25519|ecdsa-sha2-nistp256)@openssh\\.com"
AS_ROOT = ["/usr/bin/sudo", "-n", "--"]


class Trouble(Exception):
    """What a person has to put right first."""


def say(text):
    print(f"  {text}", flush=True)


def systemd_runs():
    return os.path.isdir("/run/systemd/system")


def run(*command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Trouble(f"{' '.join(command)}: {(done.stderr or done.stdout).strip() or done.returncode}")


def read_key(given):
    """(type, base64) of a public key, out of a file or of the argument itself."""
    text = given
    if os.path.isfile(given):
        with open(given, encoding="ascii", errors="replace") as file:
            text = file.read()
    if "PRIVATE KEY" in text:
        raise Trouble(f"{given} is the private key: give the public one, {given}.pub")
    found = re.fullmatch(rf"\s*({KEY_TYPES}) ([A-Za-z0-9+/]+=*)( [^\n]*)?\n?", text)
    try:
        blob = base64.b64decode(found[2] if found else "", validate=True)
    except binascii.Error:
        blob = b""
    if not found or blob[4 : 4 + len(found[1])] != found[1].encode():
        raise Trouble(f"--key: {given!r} is neither a file with one public key nor one: ssh-ed25519 AAAA…")
    return found[1], found[2]


class Place:
    """Where everything goes, and to whom it belongs."""

    def __init__(self, prefix, user):
        self.prefix = prefix
        self.user = None if prefix else user
        self.etc = os.path.join(prefix, "etc") if prefix else ETC
        self.home = os.path.join(prefix, "home") if prefix else HOME
        self.lib = os.path.join(prefix, "lib") if prefix else LIB
        self.keys = os.path.join(self.home, ".ssh", "authorized_keys")

    def folder(self, path, mode, owned=False):
        """What stands below a folder of the worker's user may be a trap by now: no link is followed."""
        if not os.path.lexists(path):
            os.makedirs(path)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            os.fchmod(fd, mode)
            self.give(fd, owned)
        finally:
            os.close(fd)

    def file(self, path, data, mode, owned=False):
        if data != content(path):
            durable.write(path, data)
        os.chmod(path, mode)
        self.give(path, owned)

    def give(self, path, owned):
        """To the worker's user, or else to root."""
        if self.user:
            entry = pwd.getpwnam(self.user if owned else "root")
            os.chown(path, entry.pw_uid, entry.pw_gid)


def content(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def make_user(place):
    try:
        entry = pwd.getpwnam(place.user)
    except KeyError:
        # `*` and not useradd's own `!`: without PAM, sshd takes that for a locked account
        words = ("--system", "--user-group", "--no-create-home", "--shell", "/bin/sh", "--password", "*")
        run("useradd", *words, "--home-dir", place.home, place.user)
        say(f"made user {place.user}: no password, home {place.home}")
        return
    if entry.pw_dir != place.home:
        raise Trouble(f"user {place.user} is somebody else's, with home {entry.pw_dir}: give another --user")
    say(f"user {place.user} is there")


def make_folders(place):
    place.folder(place.etc, 0o755)
    place.folder(os.path.join(place.etc, "jobs"), 0o755)
    place.folder(place.home, 0o755)
    place.folder(os.path.dirname(place.keys), 0o755)
    for name in ("state", "state/runs", "state/agents", "home"):
        place.folder(os.path.join(place.home, name), 0o750, owned=True)
    place.folder(os.path.join(place.home, "leases"), 0o1777, owned=True)
    say(f"folders: {place.etc}, with jobs of your own below jobs/; {place.home}")


def copy_program(place):
    """A copy that only root can change, whatever becomes of the folder that setup was called from."""
    target = os.path.join(place.lib, "millrace_worker")
    if os.path.realpath(target) != os.path.realpath(PACKAGE):
        place.folder(place.lib, 0o755)
        for rest in ("new", "old"):
            shutil.rmtree(f"{target}.{rest}", ignore_errors=True)
        shutil.copytree(PACKAGE, f"{target}.new", ignore=shutil.ignore_patterns("__pycache__"))
        for folder, _, files in os.walk(f"{target}.new"):
            place.folder(folder, 0o755)
            for path in (os.path.join(folder, name) for name in files):
                os.chmod(path, 0o755 if os.access(path, os.X_OK) else 0o644)
                place.give(path, owned=False)
        if os.path.exists(target):
            os.rename(target, f"{target}.old")
        os.rename(f"{target}.new", target)
        shutil.rmtree(f"{target}.old", ignore_errors=True)
        compileall.compile_dir(target, quiet=2)
    say(f"program: {target}")


def read_credentials(path):
    """Of the object store, checked, as the worker keeps them."""
    try:
        with open(path, "rb") as file:
            found = json.load(file)
        kept = {name: found[name] for name in ("access_key", "secret_key", "endpoint", "ca_file") if name in found}
    except (OSError, ValueError, TypeError) as error:
        raise Trouble(f"--s3 {path}: {error}") from None
    if kept != found or not {"access_key", "secret_key"} <= set(kept):
        raise Trouble(f"--s3 {path}: it wants access_key, secret_key and, if need be, endpoint and ca_file")
    return json.dumps(kept).encode()


def keep_credentials(place, given):
    path = os.path.join(place.etc, "s3.json")
    if given:
        place.file(path, read_credentials(given), 0o600, owned=True)
    if os.path.exists(path):
        say(f"credentials of the object store: {path}, for {place.user or 'you'} alone")


def sleep_words(given, place):
    """The command of --sleep-command, or the one of last time, or the default where that can work; [] for never."""
    before = durable.read_json(os.path.join(place.etc, "worker.json"))
    if given is None and before:
        words = (before.get("sleep") or [])[0 if place.prefix else len(AS_ROOT) :]
    elif given is None and not systemd_runs():
        say("sleep: left out, for systemd does not run here; --sleep-command gives another way")
        return []
    else:
        words = shlex.split(SUSPEND if given is None else given)
    if words and not (os.path.isabs(words[0]) and os.access(words[0], os.X_OK)):
        raise Trouble(f"--sleep-command: {words[0]} is no program's full path")
    if not all(re.fullmatch("[A-Za-z0-9_./=:,@%+-]+", word) for word in words):
        raise Trouble("--sleep-command: letters, digits and _./=:,@%+- only; put the rest into a script")
    return words


def rule(user, words):
    """One line of sudo's. A command without arguments would take any, hence the empty ones."""
    escaped = [re.sub("([,:=])", r"\\\1", word) for word in words] + ([] if words[1:] else ['""'])
    return f"# Made by millrace-worker setup.\n{user} ALL=(root) NOPASSWD: {' '.join(escaped)}\n"


def allow_sleep(place, words):
    """The command as the worker is to call it. sudo needs neither a terminal nor a session nor an agent that asks."""
    if place.prefix:
        return words or None
    if not words:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(SUDOERS)
        say("sleep: never")
        return None
    if not shutil.which("visudo"):
        raise Trouble("sudo is missing, by which the worker may suspend the machine and nothing else: apt install sudo")
    new = f"{SUDOERS}.new"  # sudo reads no file with a dot in its name
    durable.write(new, rule(place.user, words).encode(), 0o440)
    try:
        run("visudo", "-cqf", new)
    except Trouble:
        os.unlink(new)
        raise
    os.rename(new, SUDOERS)
    say(f"sleep: {SUDOERS} lets {place.user} run this as root and nothing else: {shlex.join(words)}")
    return [*AS_ROOT, *words]


def write_settings(place, sleep):
    said = {"user": place.user, "state": place.home, "sleep": sleep}
    place.file(os.path.join(place.etc, "worker.json"), json.dumps(said, indent=1).encode() + b"\n", 0o644)


def allow_key(place, key, agent):
    """One line for each agent. A key or an agent that is there already gets the new line in its place."""
    package = os.path.join(place.lib, "millrace_worker")
    forced = f"/usr/bin/python3 -I {package} --etc {place.etc} --agent {agent} forced"
    line = f'restrict,command="{forced}" {key[0]} {key[1]} {agent}'
    kept = [
        old
        for old in (content(place.keys) or b"").decode(errors="surrogateescape").splitlines()
        if f" --agent {agent} forced" not in old and key[1] not in old.split(" ")
    ]
    place.file(place.keys, "".join(f"{old}\n" for old in [*kept, line]).encode(errors="surrogateescape"), 0o644)
    say(f"key: agent {agent} may say {'/'.join(VERBS)}, and nothing else: {place.keys}")
    strange = [old for old in kept if 'command="/usr/bin/python3 -I ' not in old]
    if strange:
        say(f"warning: {len(strange)} other lines of {place.keys} are not setup's, and may allow anything")


def let_linger(place):
    if place.prefix:
        return
    if systemd_runs():
        run("loginctl", "enable-linger", place.user)
        say(f"runs are units of {place.user}'s own systemd: systemctl --user -M {place.user}@ list-units")
    else:
        say("systemd does not run here: a run will be a process in a session of its own")


def tell_of_sshd(place):
    if place.prefix:
        return
    if not os.path.exists("/usr/sbin/sshd"):
        say("sshd is missing: apt install openssh-server")
    path = "/etc/ssh/ssh_host_ed25519_key.pub"
    if os.path.exists(path):
        say(f"for the Pi's known_hosts: THIS-HOST {' '.join(content(path).decode().split()[:2])}")


def options(words):
    parser = argparse.ArgumentParser(prog="millrace-worker setup", description=__doc__.split("\n\n")[0])
    parser.add_argument("--key", required=True, metavar="FILE|TEXT", help="the Pi's public ssh key")
    parser.add_argument("--agent", metavar="NAME", help="what the Pi is called here [key-, and 8 digits of its hash]")
    parser.add_argument("--user", default="millrace", help="whom runs belong to [%(default)s]; made if need be")
    parser.add_argument("--sleep-command", metavar="COMMAND", help=f'[{SUSPEND}]; "" for never')
    parser.add_argument("--s3", metavar="FILE", help="JSON: access_key, secret_key, perhaps endpoint and ca_file")
    parser.add_argument("--prefix", default="", metavar="FOLDER", help="a trial there, as oneself: see README.md")
    return parser.parse_args(words)


def check(given):
    if not re.fullmatch("[a-z][a-z0-9-]{0,30}", given.user) or given.user == "root":
        raise Trouble(f"--user: {given.user!r} is no name for it: small letters, digits and -")
    if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9._-]{0,62}", given.agent):
        raise Trouble(f"--agent: {given.agent!r} is no name for it: letters, digits, . _ and -")
    if given.prefix and not re.fullmatch("/[A-Za-z0-9_./-]+", given.prefix):
        raise Trouble("--prefix: a full path of letters, digits, _ . / and -")
    if not given.prefix and os.geteuid() != 0:
        raise Trouble("setup makes a user and a line for sudo: run it as root (--prefix FOLDER for a trial without)")


def steps(given):
    key = read_key(given.key)
    given.agent = given.agent or "key-" + hashlib.sha256(key[1].encode()).hexdigest()[:8]
    check(given)
    os.umask(0o022)
    place = Place(given.prefix.rstrip("/"), given.user)
    words = sleep_words(given.sleep_command, place)
    if place.user:
        make_user(place)
    make_folders(place)
    copy_program(place)
    keep_credentials(place, given.s3)
    write_settings(place, allow_sleep(place, words))
    let_linger(place)
    allow_key(place, key, given.agent)
    tell_of_sshd(place)


def setup(words):
    try:
        steps(options(words))
    except (Trouble, OSError, ValueError) as error:
        print(f"millrace-worker setup: {error}", file=sys.stderr)
        return 78
    return 0
