# SPDX-License-Identifier: Apache-2.0
"""Rows of figures, each beside a floor's or a peer's of the same run: a table as they come, and JSON at the end."""

import json
import os
import platform
import subprocess
import time


class NotMeasured(Exception):
    """A figure that this program or this machine does not give; says why."""


class NoRight(Exception):
    """What this user may not do; the section is left out, and nothing is wrong."""


def at_most(limit):
    return {"of": "value", "op": "at most", "limit": limit}


def at_least_times(limit):
    return {"of": "ratio", "op": "at least", "limit": limit}


def holds(bound, value, ratio):
    figure = value if bound["of"] == "value" else ratio
    return figure <= bound["limit"] if bound["op"] == "at most" else figure >= bound["limit"]


def short(value):
    """About three digits, and no more than whole numbers from 100 on."""
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


class Report:
    def __init__(self, binary):
        self.binary = binary
        self.begun = time.time()
        self.rows = []
        self.left_out = []
        self.seconds = {}

    def row(self, section, name, value, unit, beside=None, bound=None, **details):
        """beside: (name, value), in the same unit. details: how it was measured; they go into the JSON alone."""
        ratio = value / beside[1] if beside and beside[1] else None
        row = {"section": section, "name": name, "value": value, "unit": unit, "ratio": ratio} | details
        row["beside"] = {"name": beside[0], "value": beside[1]} if beside else None
        row["bound"] = bound | {"holds": holds(bound, value, ratio)} if bound else None
        self.rows.append(row)
        print(line(row), flush=True)

    def leave_out(self, section, why, failed=True):
        self.left_out.append({"section": section, "why": why, "failed": failed})
        print(f"  {section}: {'NOT MEASURED' if failed else 'left out'}: {why}", flush=True)

    @property
    def failed(self):
        return any(entry["failed"] for entry in self.left_out)

    def write(self, path):
        version = subprocess.run([self.binary, "--version"], capture_output=True, text=True, check=False).stdout.strip()
        content = {
            "program": version,
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.begun)),
            "machine": {"kernel": platform.release(), "arch": platform.machine(), "cores": os.cpu_count()},
            "seconds": self.seconds,
            "rows": self.rows,
            "left_out": self.left_out,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n")


WIDTHS = (50, 15, 34, 6)


def cells(*texts):
    return ("  " + " ".join(f"{text:<{width}}" for text, width in zip(texts, (*WIDTHS, 0), strict=True))).rstrip()


HEAD = cells("", "measured", "beside", "ratio", "bound")


def line(row):
    beside, bound = row["beside"], row["bound"]
    told = ""
    if bound:
        times = " times" if bound["of"] == "ratio" else ""
        told = f"{bound['op']} {short(bound['limit'])}{times}: {'holds' if bound['holds'] else 'DOES NOT HOLD'}"
    return cells(
        row["name"],
        f"{short(row['value'])} {row['unit']}",
        f"{short(beside['value'])}  {beside['name']}" if beside else "",
        "" if row["ratio"] is None else short(row["ratio"]),
        told,
    )
