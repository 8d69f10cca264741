#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make bench: what Millrace costs, each figure beside a floor's or a peer's in the same run. docs/bench.md tells what
each row means. A bound that does not hold is shown and no failure; what could not be measured is one."""

import argparse
import os
import shutil
import signal
import sys
import time
from http.client import HTTPException
from pathlib import Path
from subprocess import SubprocessError

from bench import durable, flash, latency, memory, mill, splitter, upload
from bench.report import HEAD, NoRight, NotMeasured, Report
from bench.rig import Bench

SECTIONS = {
    "memory": memory.run,
    "split": splitter.run,
    "durable": durable.run,
    "latency": latency.run,
    "flash": flash.run,
    "upload": upload.run,
    "mill": mill.run,
}


def section(bench, name):
    """A section that fails takes no other with it."""
    begun = time.monotonic()
    print(f"\n{name}", flush=True)
    try:
        SECTIONS[name](bench)
    except NoRight as error:
        bench.report.leave_out(name, str(error), failed=False)
    except (NotMeasured, AssertionError, OSError, RuntimeError, SubprocessError, HTTPException) as error:
        bench.report.leave_out(name, f"{type(error).__name__}: {error}")
    bench.report.seconds[name] = round(time.monotonic() - begun, 1)


def main(arguments):
    folder = Path(arguments.folder).resolve()
    flash.tidy(folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    report = Report(arguments.binary)
    bench = Bench(arguments.binary, Path(arguments.programs).resolve(), folder, report)
    print(HEAD)
    for name in arguments.only or SECTIONS:
        section(bench, name)
    report.write(Path(arguments.json))
    shutil.rmtree(folder, ignore_errors=True)
    print(f"\nbench: {len(report.rows)} figures, {sum(report.seconds.values()):.0f} s, also in {arguments.json}")
    return int(report.failed)


def parsed():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary")
    parser.add_argument("programs", help="folder of what was built of tests/bench/*.c")
    parser.add_argument("folder", help="to work in, on the file system that is to be measured; made anew")
    parser.add_argument("json", help="file for the figures")
    parser.add_argument("only", nargs="*", help=f"sections [all]: {', '.join(SECTIONS)}")
    arguments = parser.parse_args()
    unknown = set(arguments.only) - set(SECTIONS)
    if unknown:
        parser.error(f"no such section: {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    return arguments


if __name__ == "__main__":
    os.environ.pop("http_proxy", None)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was mounted and started is ended
    sys.exit(main(parsed()))
