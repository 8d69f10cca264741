# SPDX-License-Identifier: Apache-2.0
"""kill -9 and power cuts between due and asleep, of whoever is at work: each run ends once, no machine stays awake.

MILLRACE_MILL_KILLS: of the agent [100], half as many cuts of its power, and a fifth as many kills of the worker, of
sshd and of the link; MILLRACE_SEED.
"""

import contextlib
import os
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from bench.report import NoRight
from cut import MODELS, CutFS
from cut_bench import retry, sync
from daemon import Daemon, wait_until
from feed import Server
from figures import note
from mill_rig import Mill
from mill_world import PATIENCE, World, chance_of

KILLS = int(os.environ.get("MILLRACE_MILL_KILLS", "100"))
CUTS = KILLS // 2
OTHERS = KILLS // 5
SEED = int(os.environ.get("MILLRACE_SEED", str(random.randrange(1 << 30))))
A_ROUND = 6  # kills between two machines asleep
CALLS = 12  # that change the card: a start makes six, each step of a run or of the machine two or more
BOOT = 12  # seconds within which it is awake: it is looked at for three before the first packet
RETRY = 60  # seconds before a second attempt


@contextlib.contextmanager
def made_world(daemon, **top):
    mill, server = Mill(), Server()
    world = World(mill, daemon, server, seconds=1.5, seed=SEED)
    world.configure(machine={"wakes_per_day": 1000}, job={"retries": 10}, **top)
    try:
        yield world
    finally:
        daemon.end()
        server.close()
        mill.close()


@pytest.fixture
def world(millrace, tmp_path):
    with made_world(Daemon(millrace, tmp_path)) as world:
        world.daemon.start()
        yield world


@pytest.fixture
def card(cut_programs, tmp_path):
    """The file system that forgets."""
    try:
        card = CutFS(cut_programs / "cutfs", tmp_path / "card")
    except NoRight as error:
        pytest.skip(f"NO FILE SYSTEM THAT FORGETS: {error}")
    yield card
    card.close()


@pytest.fixture
def world_on_card(millrace, tmp_path, card):
    """Buffer and store lie there; the machine sees the store where the agent does."""
    daemon = Daemon(millrace, tmp_path)
    daemon.lake = card.root / "lake"
    there = {"buffer": {"path": str(card.root / "buffer.db")}, "socket": str(daemon.socket)}
    with made_world(daemon, **there) as world:
        sync(card.root)
        world.daemon.start()
        yield world


def told(world, what, harmed, needed, **more):
    print(f"{harmed} times, {len(world.runs())} runs, {world.wakes()} wakes", flush=True)
    assert world.wakes() <= needed, "no wake beyond need"
    seen = {"times": harmed, "runs": len(world.runs()), "wakes": world.wakes()}
    note(what, "test_mill_kills.py", **seen, run_twice=0, left_awake=0, **more)


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


def lose_power(world, card, chance, model):
    """At one of the next calls that change the card, those of a start among them, or at any moment."""
    at_start = chance.random() < 0.4
    if at_start:
        card.freeze(chance.randint(1, CALLS))
    if world.daemon.process.poll() is not None:
        world.daemon.spawn()
    if not at_start and chance.random() < 0.7:
        retry(lambda: world.mill.state() == "awake", BOOT)
        if chance.random() < 0.8:
            card.freeze(chance.randint(1, CALLS))
    retry(card.frozen, chance.uniform(0.05, chance.choice((4, 14))))
    card.freeze()
    world.daemon.kill()
    report = card.cut(chance.randrange(1 << 32), model)
    print(f"{world.mill.state()}: {report}", flush=True)
    undone = any(what["lost"] or what["torn"] for what in report["lost"])
    return {model: 1, "while_it_was_awake": int(world.mill.state() == "awake"), "something_undone": int(undone)}


def test_power_cuts_of_the_agent(world_on_card, card):
    """What a run was at may come undone, but nothing that its machine was told."""
    world, chance, cuts, rounds = world_on_card, chance_of(SEED), 0, 0
    seen = Counter(dict.fromkeys(MODELS, 0))
    while cuts < CUTS:
        rounds += 1
        world.bring()
        for _ in range(min(A_ROUND, CUTS - cuts)):
            seen.update(lose_power(world, card, chance, MODELS[cuts % len(MODELS)]))
            cuts += 1
        world.daemon.start()
        world.settle(PATIENCE + 7 * RETRY)  # a job that reads its objects in such a moment fails, perhaps thrice
        world.check()
    told(world, "power cuts of the agent between due and asleep", cuts, rounds + world.failed(), **seen)


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
