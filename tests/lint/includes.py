#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Includes go one way, and each library is known only where it belongs (docs/architecture.md).

Prints what is wrong, one line each, and exits with 1 if anything is. What a header brings along counts as well: a file
of buffer/ that includes base/worker.h would know libuv.
"""

import re
import sys
from pathlib import Path

GROUND = {"base"}
SIDES = {"collectors", "buffer", "board"}
MAY_INCLUDE = {
    "base": GROUND,
    "collectors": GROUND | {"collectors"},
    "buffer": GROUND | {"buffer"},
    "board": GROUND | {"board"},
    "mill": GROUND | SIDES | {"mill"},
    "api": GROUND | SIDES | {"mill", "api"},
    "cli": GROUND | {"cli"},
    "agent": GROUND | SIDES | {"mill", "api", "cli", "agent"},
}

# A library's header, and whose business it is.
LIBRARIES = {
    r"uv\.h": r"(agent|api|mill|collectors)/|base/(http|mqtt|child|worker)\.[ch]$",
    r"sqlite3\.h": r"buffer/",
    r"libconfig\.h": r"agent/",
    r"microhttpd\.h": r"api/",
    r"jansson\.h": r"(agent|api|cli|mill)/",
}

INCLUDE = re.compile(r'^\s*#\s*include\s+(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)
SPDX = "SPDX-License-Identifier: Apache-2.0"


def read_includes(root, files):
    """File -> the names that it includes, our own as paths from the root."""
    return {file: [own or system for own, system in INCLUDE.findall((root / file).read_text())] for file in files}


def all_reached(file, includes, reached=None):
    """Every name that the file includes, itself or through our own headers."""
    reached = set() if reached is None else reached
    for name in includes.get(file, []):
        if name not in reached:
            reached.add(name)
            all_reached(name, includes, reached)
    return reached


def check_folders(file, names):
    folder = file.split("/")[0]
    for name in names:
        other = name.split("/")[0]
        if "/" in name and other in MAY_INCLUDE and other not in MAY_INCLUDE[folder]:
            yield f"{file}: {folder}/ must not include {name}"


def check_libraries(file, reached):
    for library, owners in LIBRARIES.items():
        for name in reached:
            if re.fullmatch(library, name) and not re.match(owners, file):
                yield f"{file}: <{name}> is not its business (perhaps through a header)"


def check_cycle(file, includes):
    if file in all_reached(file, includes):
        yield f"{file}: includes itself, through others"


def check_spdx(root, file):
    lines = (root / file).read_text().splitlines()[:2]
    first = lines[1] if len(lines) > 1 and lines[0].startswith("#!") else "".join(lines[:1])
    if first not in (f"/* {SPDX} */", f"# {SPDX}"):
        yield f"{file}: does not begin with its SPDX line"


def check(root):
    sources = [str(p.relative_to(root)) for folder in MAY_INCLUDE for p in sorted((root / folder).rglob("*.[ch]"))]
    tests = [str(p.relative_to(root)) for p in sorted((root / "tests").rglob("*")) if p.suffix in (".c", ".h", ".py")]
    includes = read_includes(root, sources)
    for file in sources:
        yield from check_folders(file, includes[file])
        yield from check_libraries(file, all_reached(file, includes))
        yield from check_cycle(file, includes)
    for file in sources + tests:
        yield from check_spdx(root, file)


if __name__ == "__main__":
    wrong = list(check(Path(sys.argv[1] if len(sys.argv) > 1 else ".")))
    print("\n".join(wrong), end="\n" if wrong else "")
    sys.exit(bool(wrong))
