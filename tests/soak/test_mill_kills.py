# SPDX-License-Identifier: Apache-2.0
"""kill -9 between due and asleep, of whoever is at work: each run ends once, and no machine is left awake.

MILLRACE_MILL_KILLS: of the agent [100], and a fifth as many of the worker, of sshd and of the link; MILLRACE_SEED.
"""

import contextlib
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from daemon import Daemon, wait_until
from feed import Server
from figures import note
from mill_rig import Mill
from mill_world import PATIENCE, World, chance_of

KILLS = int(os.environ.get("MILLRACE_MILL_KILLS", "100"))
OTHERS = KILLS // 5
SEED = int(os.environ.get("MILLRACE_SEED", str(random.randrange(1 << 30))))
A_ROUND = 6  # kills between two machines asleep
RETRY = 60  # seconds before a second attempt


@pytest.fixture
def world(millrace, tmp_path):
    mill, server, daemon = Mill(), Server(), Daemon(millrace, tmp_path)
    world = World(mill, daemon, server, seconds=1.5, seed=SEED)
    world.configure(machine={"wakes_per_day": 1000}, job={"retries": 10})
    daemon.start()
    yield world
    daemon.end()
    server.close()
    mill.close()


def told(world, what, harmed, rounds):
    print(f"{harmed} times, {len(world.runs())} runs, {world.wakes()} wakes", flush=True)
    assert world.wakes() <= rounds, "no wake beyond need"
    seen = {"times": harmed, "runs": len(world.runs()), "wakes": world.wakes()}
    note(what, "test_mill_kills.py", **seen, run_twice=0, left_awake=0)


def test_kills_of_the_agent(world):
    chance, kills, rounds = chance_of(SEED), 0, 0
    while kills < KILLS:
        rounds += 1
        world.bring()
        for _ in range(min(A_ROUND, KILLS - kills)):
            time.sleep(chance.uniform(0.05, 4))  # the random moment
            world.daemon.kill()
            world.daemon.start()
            kills += 1
        world.settle()
        world.check()
    told(world, "kill -9 of the agent between due and asleep", kills, rounds)


def run_on_its_way(world):
    """The id of what the machine is at."""
    begun = wait_until("the job to begin", lambda: set(world.started.read_text().split()) - set(world.seen), PATIENCE)
    world.seen |= begun
    return begun.pop()


def test_kills_of_the_worker(world):
    """The supervisor, or the job: the attempt fails or is lost, and another one follows with the same manifest."""
    chance, rounds, world.seen = chance_of(SEED), 0, set()
    for _ in range(OTHERS):
        rounds += 1
        world.bring()
        run = run_on_its_way(world)
        time.sleep(chance.uniform(0, 1))
        supervisor = world.mill.read(run, "started")["pid"]
        victims = [supervisor] if chance.random() < 0.5 else sorted(world.mill.pids(run))
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        world.settle(PATIENCE + RETRY)
        world.seen |= set(world.started.read_text().split())
        world.check()
    told(world, "kill -9 of the worker or its job", rounds, 2 * rounds)


def sessions(world):
    """The sshds of connections, below the one that listens."""
    listener = (world.mill.folder / "sshd.pid").read_text().strip()
    return [int(pid) for pid in Path(f"/proc/{listener}/task/{listener}/children").read_text().split()]


def test_kills_of_sshd(world):
    chance, kills, rounds = chance_of(SEED), 0, 0
    while kills < OTHERS:
        rounds += 1
        world.bring()
        wait_until("the run to be started", lambda: world.job()["run_state"] == "started", PATIENCE)
        until = time.monotonic() + 8
        while time.monotonic() < until and kills < OTHERS:
            for pid in sessions(world):
                time.sleep(chance.uniform(0, 0.1))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    kills += 1
        world.settle()
        world.check()
    told(world, "kill -9 of the sshd of a connection", kills, rounds)


def test_the_link_goes_down(world):
    if not world.mill.about["namespace"]:
        pytest.skip("NO RIGHT TO MAKE A NETWORK NAMESPACE")
    chance, rounds = chance_of(SEED), 0
    for _ in range(OTHERS):
        rounds += 1
        world.bring()
        time.sleep(chance.uniform(0.5, 10))
        link = ["ip", "link", "set", world.mill.about["interface"]]
        subprocess.run([*link, "down"], check=True)
        time.sleep(chance.uniform(1, 15))
        subprocess.run([*link, "up"], check=True)
        world.settle(2 * PATIENCE)
        world.check()
    told(world, "the link to the machine went down", rounds, 2 * rounds)
