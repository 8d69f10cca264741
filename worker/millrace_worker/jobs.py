# SPDX-License-Identifier: Apache-2.0
"""A job is a folder with an executable file `run` in it. It may do whatever the worker may, so it has to belong, with
everything in it, to who set the worker up, and to be theirs alone to write.
"""

import os
import re
import stat

from millrace_worker.refusal import NO_JOB, NOT_SET_UP, Refusal

NAME = "[a-z][a-z0-9_-]{0,62}"


def fault(path, owner):
    """What is wrong with a file or folder of a job, or None."""
    found = os.lstat(path)
    if stat.S_ISLNK(found.st_mode):
        return f"{path} is a symbolic link: put what it names in its place"
    if found.st_uid not in (0, owner):
        return f"{path} belongs to user {found.st_uid}: chown root {path}"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"{path} can be written by others than its owner: chmod go-w {path}"
    return None


def fail(error):
    raise error


def faults(folder, owner):
    yield fault(os.path.dirname(folder), owner)
    for place, folders, files in os.walk(folder, onerror=fail):
        for name in [".", *folders, *files]:
            yield fault(os.path.normpath(os.path.join(place, name)), owner)
    entry = os.path.join(folder, "run")
    if not (os.path.isfile(entry) and os.access(entry, os.X_OK)):
        yield f"{entry} is no executable file: chmod 755 {entry}"


def find(settings, job):
    """The folder of a job that may be run."""
    for place in settings.job_folders:
        folder = os.path.join(place, job)
        try:
            if not os.path.lexists(folder):
                continue
            wrong = next((text for text in faults(folder, settings.owner) if text), None)
        except OSError as error:
            wrong = f"{error.filename}: {error.strerror}"
        if wrong:
            raise Refusal(NOT_SET_UP, f"job {job}: {wrong}")
        return folder
    raise Refusal(NO_JOB, f"there is no job {job} here: {settings.job_folders[0]}/{job}/run is to be a program")


def names(settings):
    """Those that may be run, sorted."""
    found = set()
    for place in settings.job_folders:
        found.update(os.listdir(place) if os.path.isdir(place) else ())
    return [name for name in sorted(found) if re.fullmatch(NAME, name) and usable(settings, name)]


def usable(settings, job):
    try:
        return bool(find(settings, job))
    except Refusal:
        return False
