# SPDX-License-Identifier: Apache-2.0
"""The verbs, as PROTOCOL.md describes them. What the client says is split at single spaces, each word is held against a
pattern, and none of it ever meets a shell.
"""

import errno
import json
import os
import re
import select
import sys

from millrace_worker import PROTOCOL, VERSION, durable, jobs, manifest, runs
from millrace_worker import settings as where
from millrace_worker.refusal import BAD_DATA, NOT_NOW, NOT_SET_UP, USAGE, Refusal

MAX_COMMAND = 256
LOG_CHUNK = 256 * 1024
SILENCE = 60  # seconds without a byte of the manifest: the client is gone
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}


def read_manifest():
    data = bytearray()
    while select.select([0], [], [], SILENCE)[0]:
        chunk = os.read(0, 1 << 16)
        data += chunk
        if len(data) > manifest.MAX_BYTES:
            raise Refusal(BAD_DATA, f"the manifest is larger than {manifest.MAX_BYTES >> 20} MB: make runs smaller")
        if not chunk:
            return bytes(data)
    raise Refusal(NOT_NOW, "the manifest did not come to its end: send it again")


def sleep_error(settings):
    try:
        return durable.read_json(settings.sleep_error)
    except (OSError, ValueError) as error:
        return f"{settings.sleep_error} is damaged: {error}"


def health(settings, agent):
    from millrace_worker import awake

    try:
        sessions = len(awake.sessions(settings))
    except Refusal:  # logind does not answer: that keeps awake, and nothing else
        sessions = None
    with open("/proc/uptime") as file:
        uptime = int(float(file.read().split()[0]))
    return {
        "protocol": PROTOCOL,
        "worker": VERSION,
        "jobs": jobs.names(settings),
        "running": [run.name for run in runs.running(settings)],
        "sessions": sessions,
        "uptime": uptime,
        "awake": awake.since(),
        "sleep_error": sleep_error(settings),
    }


def start(settings, agent, run, job):
    data = read_manifest()
    try:
        manifest.parse(data, run)
    except manifest.Bad as error:
        raise Refusal(BAD_DATA, f"the manifest of run {run} is none: {error}") from None
    return runs.start(settings, run, job, data, agent)


def status(settings, agent, run):
    return runs.Run(settings, run).status()


def log(settings, agent, run, offset):
    try:
        with open(runs.Run(settings, run).path("log"), "rb") as file:
            file.seek(min(int(offset), os.fstat(file.fileno()).st_size))
            return file.read(LOG_CHUNK)
    except FileNotFoundError:
        return b""


def cancel(settings, agent, run):
    return runs.cancel(settings, run)


def sleep(settings, agent):
    from millrace_worker import awake
    from millrace_worker.launch import launch

    if not settings.sleep:
        return {"asleep": False, "because": "no sleep command is set up here: millrace-worker setup --sleep-command"}
    with runs.exclusively(settings):
        because = awake.reasons(settings, agent)
        if because:
            return {"asleep": False, "because": because[0]}
        launch(settings.etc, ["--agent", agent, "sleep-now"], "millrace-sleep", {})
    return {"asleep": True}


RUN = ("RUN", runs.NAME)
JOB = ("JOB", jobs.NAME)
VERBS = {
    "health": (health, ()),
    "start": (start, (RUN, JOB)),
    "status": (status, (RUN,)),
    "log": (log, (RUN, ("OFFSET", "[0-9]{1,18}"))),
    "cancel": (cancel, (RUN,)),
    "sleep": (sleep, ()),
}


def parse(command):
    """The verb's function and its arguments. command: bytes, or None where the client gave none."""
    if command is None or len(command) > MAX_COMMAND or not command.isascii():
        raise Refusal(USAGE, f"this key is for the words {', '.join(VERBS)}, and for nothing else")
    verb, *words = command.decode("ascii").split(" ")
    if verb not in VERBS:
        raise Refusal(USAGE, f"{verb!r} is no verb here: {', '.join(VERBS)} are")
    function, wanted = VERBS[verb]
    if len(words) != len(wanted):
        raise Refusal(USAGE, f"it is: {' '.join([verb, *(name for name, _ in wanted)])}")
    for word, (name, pattern) in zip(words, wanted, strict=True):
        if not re.fullmatch(pattern, word):
            raise Refusal(USAGE, f"{word!r} is no {name}: that is {pattern}")
    return function, words


def say(data):
    """To a client that may be gone: what was done stays done."""
    try:
        while data:
            data = data[os.write(1, data) :]
    except OSError:
        pass


def lease(path, function):
    """Who asks for a run keeps the machine awake for a while, and who asks for sleep gives that back. Merely to look
    counts for nothing: two agents that look now and then would keep each other's machine awake for ever.
    """
    try:
        if function in (start, status, cancel):
            with open(path, "ab"):
                os.utime(path)
        elif function is sleep and os.path.exists(path):
            os.unlink(path)
    except OSError as error:  # on a full disk a run can still be asked for, and cancelled
        if error.errno not in DISK:
            raise


def perform(etc, agent, command):
    function, words = parse(command)
    settings = where.load(etc)
    if agent:
        lease(os.path.join(settings.agents, agent), function)
    answer = function(settings, agent or "", *words)
    say(answer if isinstance(answer, bytes) else json.dumps(answer).encode() + b"\n")


def answer(etc, agent, command):
    """The exit status."""
    os.umask(0o027)
    try:
        perform(etc, agent, command)
        return 0
    except Refusal as refusal:
        wrong, code = str(refusal), refusal.status
    except OSError as error:
        code = NOT_NOW if error.errno in DISK | durable.SCARCE else NOT_SET_UP
        advice = "see to the disk" if error.errno in DISK else "ask again" if code == NOT_NOW else "run setup again"
        wrong = f"{error}: {advice} on this machine"
    except Exception as error:
        wrong, code = f"a fault of its own: {error!r}: please report it", NOT_SET_UP
    print(f"millrace-worker: {wrong}", file=sys.stderr)
    return code
