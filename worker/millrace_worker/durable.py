# SPDX-License-Identifier: Apache-2.0
"""Files that a power cut leaves as they were or as they were to be, and locks that end with their holder."""

import contextlib
import errno
import fcntl
import json
import os
import time

SCARCE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}  # not the file's fault, and not for long


def sync_folder(path):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write(path, data, mode=0o640):
    """On return data is on the disk below that name, and on failure nothing has changed."""
    new = f"{path}.{os.getpid()}.tmp"
    try:
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        os.rename(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise
    sync_folder(os.path.dirname(path))


def write_json(path, value):
    write(path, json.dumps(value).encode())


def read_json(path):
    """None where there is no such file."""
    try:
        with open(path, "rb") as file:
            return json.load(file)
    except FileNotFoundError:
        return None


def folder(path):
    """Makes it, durably, where it is missing."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)
        sync_folder(os.path.dirname(path))


def remove(path):
    """A folder with all that is in it, however deep and whatever the modes. None, or what is in the way of that."""
    import subprocess

    def do(*command):
        command = [*command, "--", path]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env={"LC_ALL": "C"}, check=False)

    if not os.path.lexists(path):
        return None
    done = do("/bin/rm", "-rf")
    if done.returncode and not os.path.islink(path):  # that chmod would follow
        do("/bin/chmod", "-R", "u+rwx")
        done = do("/bin/rm", "-rf")
    said = done.stderr.decode(errors="replace").splitlines()
    return None if done.returncode == 0 else f"{path} cannot be removed: {said[0] if said else done.returncode}"


def lock(path, patience):
    """The file whose closing gives the lock back, or None when others held it for so many seconds."""
    file = open(path, "ab")  # noqa: SIM115 (it is the lock)
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            if time.monotonic() >= deadline:
                file.close()
                return None
        time.sleep(0.01)


def held(path):
    """Whether somebody holds it. A shared look, so that two who look at once do not see each other."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno in SCARCE:
            raise
    return False


def now():
    """UTC, as Millrace writes times."""
    seconds = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"
