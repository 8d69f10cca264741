# SPDX-License-Identifier: Apache-2.0
"""What tests have shown: each writes its figures here, and docs/durability.md is made of them. Standard library only.

`python tests/figures.py FOLDER FILE` puts the tables of all that FOLDER holds into FILE, between its two marks.
"""

import itertools
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

BEGIN = "<!-- figures: written by `make durability`, not by hand -->"
END = "<!-- end of the figures -->"
FOLDER = Path(os.environ.get("MILLRACE_FIGURES", "build/figures"))


def note(fault, test, **figures):
    """One row: what was done, by which test file, and what came of it, in the order given."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    row = {"fault": fault, "test": test, "date": f"{datetime.now(UTC):%Y-%m-%d}", "figures": figures}
    name = "".join(c if c.isalnum() else "-" for c in f"{test} {fault}".lower())
    (FOLDER / f"{name}.json").write_text(json.dumps(row, indent=1) + "\n")
    print(json.dumps(row))


def shown(value):
    return f"{value:,}" if isinstance(value, int) else str(value)


def line(cells):
    return "| " + " | ".join(cells) + " |"


def table(test, rows):
    """One test's rows; its columns are all that any of them has."""
    columns = list(dict.fromkeys(itertools.chain.from_iterable(r["figures"] for r in rows)))
    dates = " and ".join(sorted({r["date"] for r in rows}))
    yield from (f"### {test}, {dates}", "")
    yield line(["what was done", *(c.replace("_", " ") for c in columns)])
    yield line(["---"] * (len(columns) + 1))
    for row in rows:
        yield line([row["fault"], *(shown(row["figures"].get(c, "")) for c in columns)])
    yield ""


def tables(folder):
    def by(row):
        return row["test"]

    rows = sorted((json.loads(p.read_text()) for p in Path(folder).glob("*.json")), key=lambda r: (by(r), r["fault"]))
    return "\n".join(itertools.chain.from_iterable(table(test, list(g)) for test, g in itertools.groupby(rows, by)))


def main(folder, file):
    path = Path(file)
    before, rest = path.read_text().split(BEGIN)
    after = rest.split(END)[1]
    path.write_text(f"{before}{BEGIN}\n\n{tables(folder)}\n{END}{after}")


if __name__ == "__main__":
    main(*sys.argv[1:])
