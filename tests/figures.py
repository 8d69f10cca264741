# SPDX-License-Identifier: Apache-2.0
"""What long runs have shown: each writes its figures here, and docs/durability.md is made of them. Standard library only.

`python tests/figures.py FOLDER FILE` puts the table of all that FOLDER holds into FILE, between its two marks.
"""

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

BEGIN = "<!-- figures: written by `make durability`, not by hand -->"
END = "<!-- end of the figures -->"
FOLDER = Path(os.environ.get("MILLRACE_FIGURES", "build/figures"))


def note(fault, test, **figures):
    """One row: what was done to it, by which test, and what came of it, in the order given."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    row = {"fault": fault, "test": test, "date": f"{datetime.now(UTC):%Y-%m-%d}", "figures": figures}
    name = "".join(c if c.isalnum() else "-" for c in fault.lower())
    (FOLDER / f"{name}.json").write_text(json.dumps(row, indent=1) + "\n")
    print(json.dumps(row))


def shown(value):
    return f"{value:,}" if isinstance(value, int) else str(value)


def table(folder):
    rows = sorted((json.loads(p.read_text()) for p in Path(folder).glob("*.json")), key=lambda r: (r["test"], r["fault"]))
    lines = ["| what was done | what came of it | test | measured |", "|---|---|---|---|"]
    for row in rows:
        figures = ", ".join(f"{name.replace('_', ' ')}: {shown(value)}" for name, value in row["figures"].items())
        lines.append(f"| {row['fault']} | {figures} | {row['test']} | {row['date']} |")
    return "\n".join(lines)


def main(folder, file):
    path = Path(file)
    before, rest = path.read_text().split(BEGIN)
    after = rest.split(END)[1]
    path.write_text(f"{before}{BEGIN}\n\n{table(folder)}\n\n{END}{after}")


if __name__ == "__main__":
    main(*sys.argv[1:])
