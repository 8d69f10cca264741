# SPDX-License-Identifier: Apache-2.0
"""What a run costs the Pi's memory while it is woken for, started and followed; ssh, a process of its own, apart."""

import os
from pathlib import Path

import pytest

import memory
from mill_rig import Mill
from mill_world import World
from worker_rig import SSHD

if not os.path.exists(SSHD):
    pytest.skip("NO SSHD: install openssh-server", allow_module_level=True)

BOUND = memory.MB
SECONDS = 12  # of the job: it is asked about twice


@pytest.fixture
def world(daemon, server):
    mill = Mill()
    try:
        world = World(mill, daemon, server, SECONDS)
        world.configure()
        daemon.start()
        yield world
    finally:
        daemon.end()
        mill.close()


class Children(memory.Sampler):
    """The most that any child of a process has had."""

    def __init__(self, pid):
        self.children = Path(f"/proc/{pid}/task/{pid}/children")
        super().__init__(pid)
        self.peak = 0

    def look(self):
        for pid in self.children.read_text().split():
            self._pid = pid
            super().look()


def test_a_run_that_is_followed_takes_less_than_a_megabyte(world):
    assert world.daemon.poll("feed")["outcome"] == "committed"
    pid = world.daemon.process.pid
    idle = memory.private_dirty(pid)
    with memory.Sampler(pid) as own, Children(pid) as ssh:
        world.daemon.flush()
        world.wait_run("done")
    grown = own.peak - idle
    print(f"idle {idle >> 10} KB private dirty, at most {grown >> 10} KB more; ssh at most {ssh.peak >> 10} KB")
    assert world.runs()[-1]["objects"] > 0 and ssh.peak > 0
    assert grown < BOUND or not memory.is_telling(pid)
