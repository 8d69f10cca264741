#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""No C function is longer than 60 lines, from its name to its closing brace.

clang-format puts the braces of a function, and of nothing else, alone into the first column; so no parser is needed.
"""

import sys
from pathlib import Path

LIMIT = 60
FOLDERS = ("agent", "api", "base", "board", "buffer", "cli", "collectors", "mill", "tests")


def functions(lines):
    """(first line from 1, lines, the line that names it) of each function."""
    for at, line in enumerate(lines):
        if line != "{":
            continue
        first = at
        while first > 0 and lines[first - 1].strip() and lines[first - 1][0] not in "}/#" and lines[first - 1] != " */":
            first -= 1
        try:
            end = lines.index("}", at)
        except ValueError:
            end = len(lines) - 1
        yield first + 1, end - first + 1, lines[first]


def check(root):
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.[ch]")):
            for line, length, name in functions(path.read_text().splitlines()):
                if length > LIMIT:
                    yield f"{path.relative_to(root)}:{line}: {length} lines, {LIMIT} are allowed: {name}"


if __name__ == "__main__":
    wrong = list(check(Path(sys.argv[1] if len(sys.argv) > 1 else ".")))
    print("\n".join(wrong), end="\n" if wrong else "")
    sys.exit(bool(wrong))
