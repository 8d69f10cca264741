# SPDX-License-Identifier: Apache-2.0
"""Starts a process that outlives the ssh connection: a unit of the user's systemd where that answers (`setup` lets it
linger), else a process in a session of its own.
"""

import contextlib
import os
import subprocess

from millrace_worker.settings import PACKAGE

SAFE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# An OOM kill of the job is the job's failure: its supervisor stays to say so.
UNIT = ("--quiet", "--collect", "--property=KillMode=control-group", "--property=OOMPolicy=continue")


def by_systemd(command, runtime):
    """Whether the user's manager took it. One that hangs and takes it later does no harm: a run starts only once."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        asked = subprocess.run(
            command,
            env={"PATH": SAFE_PATH, "XDG_RUNTIME_DIR": runtime},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=10,
            check=False,
        )
        return asked.returncode == 0
    return False


def launch(etc, verb, unit, marks):
    """verb: of `millrace-worker`, with its arguments. marks: its environment beside PATH."""
    command = ["/usr/bin/python3", "-I", PACKAGE, "--etc", etc, *verb]
    env = {"PATH": SAFE_PATH, **marks}
    runtime = f"/run/user/{os.getuid()}"
    if os.path.exists(f"{runtime}/systemd/private"):
        settings = [f"--setenv={name}={value}" for name, value in env.items()]
        if by_systemd(["systemd-run", "--user", *UNIT, f"--unit={unit}", *settings, "--", *command], runtime):
            return
    subprocess.Popen(
        command,
        env=env,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
