# SPDX-License-Identifier: Apache-2.0
"""Since when this machine is awake, and whether anybody needs that: a run, a login, an inhibitor, another agent, a
lease.
"""

import contextlib
import json
import os
import subprocess
import time

from millrace_worker import durable, runs
from millrace_worker.refusal import NOT_NOW, Refusal

LEASE = 15 * 60  # seconds after an agent last asked for a run
LOGIN1 = ("org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager")
HOLDS = {"sleep", "idle"}  # inhibitors of shutdown, or of a key, let a machine sleep


def since():
    """A text that stays the same while the machine stays awake, and is another one once it has slept, or was started
    anew. The two clocks differ by the time asleep; of several looks the one that nothing came between is right.
    """
    clock = time.clock_gettime
    slept = max(clock(time.CLOCK_BOOTTIME) - clock(time.CLOCK_MONOTONIC) for _ in range(5))
    return f"{runs.boot()}+{round(slept)}"


def ask(*command):
    try:
        env = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env=env, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Refusal(NOT_NOW, f"{command[0]}: {error}") from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise Refusal(NOT_NOW, f"{' '.join(command[:3])} failed: {said.splitlines()[-1] if said else done.returncode}")
    return done.stdout.decode(errors="replace")


def ask_bus(*command):
    return json.loads(ask("busctl", "--json=short", *command))["data"]


def has_logind():
    return os.path.isdir("/run/systemd/system")


def logind_sessions(user):
    """By user. Ours logs in by the forced command alone; who has logged out and left processes is `closing`."""
    found = {}
    for number, _, who, _, path in ask_bus("call", *LOGIN1, "ListSessions")[0]:
        if who == user:
            continue
        with contextlib.suppress(Refusal):  # it ended meanwhile
            what = ask_bus("get-property", LOGIN1[0], path, "org.freedesktop.login1.Session", "Class")
            state = ask_bus("get-property", LOGIN1[0], path, "org.freedesktop.login1.Session", "State")
            if what.startswith("user") and state != "closing":
                found[who] = f"{who} is logged in (session {number})"
    return found


def sessions(settings):
    """logind's, and those that only utmp has: logins that went past PAM."""
    found = logind_sessions(settings.user) if has_logind() else {}
    for line in ask("who").splitlines():
        who, where = line.split()[:2]
        found.setdefault(who, f"{who} is logged in on {where}")
    return sorted(found.values())


def inhibitors():
    if not has_logind():
        return []
    held = ask_bus("call", *LOGIN1, "ListInhibitors")[0]
    return [
        f"{who} holds an inhibitor: {why}"
        for what, who, why, mode, _, _ in held
        if mode.startswith("block") and HOLDS & set(what.split(":"))
    ]


def leases(settings, agent):
    now = time.time()
    found = []
    for entry in os.scandir(settings.agents):
        age = now - entry.stat().st_mtime
        if entry.name != agent and abs(age) < LEASE:
            found.append(f"agent {entry.name} asked for a run {max(0, int(age)) // 60} minutes ago")
    for entry in os.scandir(settings.leases):
        until = entry.stat(follow_symlinks=False).st_mtime
        if until > now:
            shown = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(min(until, 253402300799)))
            found.append(f"lease {entry.name!r} lasts until {shown}: {entry.path!r}")
        else:
            with contextlib.suppress(OSError):
                os.unlink(entry.path)
    return found


def reasons(settings, agent):
    """Why the machine must not sleep now; empty when it may."""
    found = [f"run {run.name} is running" for run in runs.running(settings)]
    return found + sessions(settings) + inhibitors() + leases(settings, agent)


def sleep_now(settings, agent):
    """Runs beside the connection that was promised sleep, a second after: so its answer gets out."""
    lock = durable.lock(settings.lock, runs.PATIENCE)
    if lock is None:
        return
    time.sleep(1)
    because = reasons(settings, agent)
    error = because[0] if because else sleep_command(settings.sleep)
    durable.write_json(settings.sleep_error, error and f"{durable.now()}: {error}")
    time.sleep(1)  # the command may return before the machine sleeps, and nobody is to start something now


def sleep_command(command):
    """What went wrong, or None."""
    try:
        asked = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    said = (asked.stderr + asked.stdout).decode(errors="replace").strip()[:500]
    return f"{' '.join(command)}: {said or asked.returncode}" if asked.returncode else None
