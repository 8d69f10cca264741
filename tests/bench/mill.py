# SPDX-License-Identifier: Apache-2.0
"""From a batch that is in the store to a job that runs, on a machine that is awake, stage by stage."""

import statistics
import time
from datetime import datetime

from bench.rig import Rig
from daemon import wait_until
from feed import Server
from mill_rig import Mill
from mill_world import SOURCE, World

ROUNDS = 9
STAGES = {
    "delivered to due": ("delivered", "created_at"),
    "due to manifest written": ("created_at", "written_at"),
    "manifest written to machine ready": ("written_at", "ready_at"),
    "machine ready to started, as noted": ("ready_at", "started_at"),
    "started, as noted, to job at work": ("started_at", "work"),
    "delivered to job at work, in all": ("delivered", "work"),
}
TOLD = ("created_at", "written_at", "ready_at", "started_at")


def ms_of(text):
    return datetime.fromisoformat(text).timestamp() * 1000


def stamp(mill):
    """The job tells when it is at work, before all else."""
    script = mill.path("/etc/millrace-worker/jobs/work/run")
    begun = mill.open / "begun"
    note = f"\ndate +%s%3N >{begun}.tmp && mv {begun}.tmp {begun}\n"
    script.write_text(script.read_text().replace("\n", note, 1))
    return begun


def one_run(rig, world, begun):
    """When each step of it was taken, in milliseconds."""
    begun.unlink(missing_ok=True)
    before = len(world.runs())
    world.bring()
    wait_until("the run to be made", lambda: len(world.runs()) > before)
    run = world.wait_run("done")
    found = world.run(run["id"])
    delivered = [e for e in rig.events("batch.delivered") if f"source={SOURCE}" in e["message"]]
    times = {name: ms_of(found[name]) for name in TOLD}
    return times | {"delivered": ms_of(delivered[-1]["time"]), "work": int(begun.read_text())}


def round_trip(mill):
    """Of an ssh that asks the worker for nothing but a line, with a connection of its own as Millrace's have."""
    begun = time.monotonic()
    mill.ask("health", alone=True)
    return (time.monotonic() - begun) * 1000


def measure(bench, mill, server):
    rig = Rig(bench, bench.place("mill"))
    try:
        world = World(mill, rig, server)
        begun = stamp(mill)
        world.configure(machine={"idle": "1h"})
        mill.wake()
        wait_until("sshd to answer", mill.answers)
        rig.start()
        one_run(rig, world, begun)  # in which it is found to be awake
        pairs = [(one_run(rig, world, begun), round_trip(mill)) for _ in range(ROUNDS)]
        return [run for run, _ in pairs], [trip for _, trip in pairs]
    finally:
        rig.end()


def run(bench):
    mill, server = Mill(), Server()
    try:
        runs, trips = measure(bench, mill, server)
    finally:
        server.close()
        mill.close()
    beside = ("ssh … health", statistics.median(trips))
    for name, (since, until) in STAGES.items():
        taken = [run[until] - run[since] for run in runs]
        bench.report.row("mill", name, statistics.median(taken), "ms", beside, runs=len(runs), most=max(taken))
