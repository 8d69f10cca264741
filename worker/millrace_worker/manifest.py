# SPDX-License-Identifier: Apache-2.0
"""The list of objects that a run works on (docs: interface.md, Manifest). Whoever reads one has it checked first."""

import json
import re

VERSION = 1
MAX_BYTES = 16 << 20
MAX_OBJECT = 64 << 20
NUMBERS = ("bytes", "first_seq", "last_seq", "records")


class Bad(ValueError):
    pass


def check(condition, what):
    if not condition:
        raise Bad(what)


def is_text(value):
    return isinstance(value, str) and value != "" and value.isprintable()


def is_number(value):
    return type(value) is int and 0 <= value < 1 << 63


def check_object(number, what):
    here = f"object {number}"
    check(isinstance(what, dict), f"{here} is no JSON object")
    key = what.get("key")
    steps = key.split("/") if is_text(key) else [""]
    check(not {"", ".", ".."} & set(steps), f"{here}: its key is none")
    for name in NUMBERS:
        check(is_number(what.get(name)), f"{here}, {key}: its {name} is none")
    check(what["bytes"] <= MAX_OBJECT, f"{here}, {key}: more than 64 MB")
    check(re.fullmatch("[0-9a-f]{64}", str(what.get("sha256"))), f"{here}, {key}: its sha256 is none")
    check(is_text(what.get("source")), f"{here}, {key}: its source is none")
    check(what["first_seq"] <= what["last_seq"], f"{here}, {key}: first_seq comes after last_seq")


def check_store(store):
    check(isinstance(store, dict), "its store is no JSON object")
    kind = store.get("kind")
    check(kind in ("file", "s3"), 'its store is neither of kind "file" nor "s3"')
    if kind == "file":
        path = store.get("path")
        check(is_text(path) and path.startswith("/"), "its store's path does not begin with /")
    else:
        for name in ("endpoint", "region", "bucket"):
            check(is_text(store.get(name)), f"its store's {name} is missing")


def parse(data, run=None):
    """The manifest; Bad says what is wrong. run: what it must be for, itself or, as RUN-2, a later try of it."""
    try:
        said = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Bad(f"no JSON: {error}") from None
    check(isinstance(said, dict) and type(said.get("version")) is int, "it has no version")
    if said["version"] != VERSION:
        raise Bad(f"its version is {said['version']}, and this worker knows {VERSION}: install a newer one")
    check(is_text(said.get("run")), "it has no run")
    if run is not None and not re.fullmatch(re.escape(said["run"]) + "(-[0-9]{1,6})?", run):
        raise Bad(f"it is the manifest of run {said['run']}")
    check_store(said.get("store"))
    check(isinstance(said.get("objects"), list), "it has no list of objects")
    for number, what in enumerate(said["objects"], 1):
        check_object(number, what)
    return said
