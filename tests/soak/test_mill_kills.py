# SPDX-License-Identifier: Apache-2.0
"""kill -9 between due and asleep, of whoever is at work: each run ends once, and no machine is left awake.

MILLRACE_MILL_KILLS: of the agent [100], and a fifth as many of the worker, of sshd and of the link; MILLRACE_SEED.
"""

import os
import random
import time

import pytest

from daemon import wait_until
from figures import note
from mill_rig import Mill
from mill_world import PATIENCE, World, chance_of

KILLS = int(os.environ.get("MILLRACE_MILL_KILLS", "100"))
SEED = int(os.environ.get("MILLRACE_SEED", str(random.randrange(1 << 30))))
A_ROUND = 6  # kills between two machines asleep


@pytest.fixture
def world(make_daemon, server):
    mill = Mill()
    world = World(mill, make_daemon(), server, seconds=1.5, seed=SEED)
    world.configure(job={"retries": 10})
    world.daemon.start()
    yield world
    mill.close()


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
        assert world.wakes() <= rounds, "no wake beyond need"
        print(f"{kills} kills, {len(world.runs())} runs, {world.wakes()} wakes", flush=True)
    note("kill -9 of the agent between due and asleep", "test_mill_kills.py", kills=kills, runs=len(world.runs()),
         wakes=world.wakes(), run_twice=0, left_awake=0)
