# SPDX-License-Identifier: Apache-2.0
"""Where things are on this machine; `setup` writes it down in worker.json, and the forced command names its folder.

ETC/worker.json     user (null: whoever runs it), state (a folder), sleep (a command; null: never)
ETC/s3.json         credentials of the object store, for the worker's user alone
ETC/jobs/NAME/run   jobs of the machine's owner
STATE/state/        lock, sleep_error.json, agents/NAME (its mtime: when it last asked for a run), runs/RUN/,
                    order.json (ended runs, oldest first), ended/RUN.json and ended.old/RUN.json (of those whose
                    folder is gone)
STATE/home/         the jobs' HOME
STATE/leases/       anyone may put a file here: until its mtime the machine stays awake
"""

import os
import stat

from millrace_worker import durable
from millrace_worker.refusal import NOT_SET_UP, Refusal

ETC = "/etc/millrace-worker"
PACKAGE = os.path.dirname(os.path.abspath(__file__))


class Settings:
    def __init__(self, etc, said, owner):
        self.etc = etc
        self.owner = owner  # the uid that may change what runs here: root, but in a trial
        self.user = said["user"]
        self.sleep = said["sleep"]
        self.home = os.path.join(said["state"], "home")
        self.leases = os.path.join(said["state"], "leases")
        self.state = os.path.join(said["state"], "state")
        self.runs = os.path.join(self.state, "runs")
        self.agents = os.path.join(self.state, "agents")
        self.order = os.path.join(self.state, "order.json")
        self.ended = os.path.join(self.state, "ended")
        self.lock = os.path.join(self.state, "lock")
        self.sleep_error = os.path.join(self.state, "sleep_error.json")
        self.job_folders = (os.path.join(etc, "jobs"), os.path.join(PACKAGE, "jobs"))


def load(etc):
    path = os.path.join(etc, "worker.json")
    try:
        said = durable.read_json(path)
        if said is None:
            raise Refusal(NOT_SET_UP, f"{path} is missing: run `millrace-worker setup` on this machine, as root")
        found = os.stat(path)
        settings = Settings(etc, said, found.st_uid)
        state = os.stat(settings.runs)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refusal(NOT_SET_UP, f"{path}: {error}: run `millrace-worker setup` again, as root") from None
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Refusal(NOT_SET_UP, f"{path} can be written by others than its owner: chmod 644 {path}")
    if state.st_uid != os.geteuid():
        raise Refusal(NOT_SET_UP, f"this is for user {settings.user}: sudo -u {settings.user} and so on")
    return settings
