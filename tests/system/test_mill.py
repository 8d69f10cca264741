# SPDX-License-Identifier: Apache-2.0
"""The whole way: a batch is delivered, the machine is woken, the job runs over it, and the machine sleeps again."""

import gzip
import hashlib
import json
import time

import pytest

import lake
from daemon import wait_until
from mill_rig import Mill
from mill_world import JOB, PATIENCE, SOURCE, World

IDLE = 10  # seconds, of mill_rig.py's settings


@pytest.fixture
def mill():
    mill = Mill()
    yield mill
    mill.close()


@pytest.fixture
def make_world(mill, make_daemon, server):
    def make(seconds=0, **more):
        world = World(mill, make_daemon(), server, seconds)
        world.configure(**more)
        world.daemon.start()
        return world

    return make


def test_from_a_batch_to_a_machine_asleep_again(make_world, mill):
    world = make_world()
    world.bring()
    run = world.wait_run("done")
    world.settle()
    assert [s["state"] for s in mill.states()] == ["asleep", "booting", "awake", "asleep"]
    world.check()
    assert world.wakes() == 1
    found = world.run(run["id"])
    times = [found[name] for name in ("created_at", "written_at", "ready_at", "started_at", "ended_at")]
    assert all(times) and times == sorted(times)
    manifest = (world.daemon.lake / found["manifest"]["key"]).read_bytes()
    assert hashlib.sha256(manifest).hexdigest() == found["manifest"]["sha256"]
    log = gzip.decompress((world.daemon.lake / "_runs" / JOB / run["id"] / "log.gz").read_bytes()).decode()
    assert json.loads(log.splitlines()[-1])["records"] == run["records"] == len(lake.read(world.daemon.lake).records())
    assert found["log"].splitlines()[-1] == log.splitlines()[-1]
    assert world.machine()["wakes_today"] == 1 and world.job()["parked"] == 0


def test_nothing_due_wakes_nobody(make_world, mill):
    world = make_world(job={"when": "batches >= 2"})
    world.bring()
    wait_until("the batch to be seen", lambda: world.job()["batches"] == 1)
    assert world.runs() == [] and mill.packets() == []
    world.bring()
    world.wait_run("done")
    assert world.runs()[0]["objects"] == 2


def test_a_job_that_fails_is_retried_with_the_same_manifest_and_parked(make_world, mill):
    world = make_world(job={"retries": 0})
    mill.path("/etc/millrace-worker/jobs/work/run").write_text("#!/bin/sh\necho woe\nexit 3\n")
    world.bring()
    run = world.wait_run("parked")
    found = world.run(run["id"])
    assert "exit 3" in found["reason"] and found["log"] == "woe\n"
    log = world.daemon.lake / "_runs" / JOB / run["id"] / "log-1.gz"
    assert gzip.decompress(log.read_bytes()) == b"woe\n"
    status = world.daemon.status()
    assert any(run["id"] in p["what"] for p in status["problems"])
    before = world.manifest(run["id"])
    mill.path("/etc/millrace-worker/jobs/work/run").write_text("#!/bin/sh\nexit 0\n")
    done = world.daemon.cli("retry", run["id"])
    assert done.returncode == 0, done.stderr
    world.wait_run("done")
    assert world.manifest(run["id"]) == before
    assert world.attempts(run["id"]) == {run["id"]: "failed", f"{run['id']}-2": "done"}


def test_a_run_is_cancelled(make_world):
    world = make_world(seconds=60)
    world.bring()
    run = world.wait_run("started")
    wait_until("the job to run", lambda: world.started.read_text())
    done = world.daemon.cli("cancel", run["id"])
    assert done.returncode == 0, done.stderr
    world.wait_run("cancelled")
    assert list(world.attempts(run["id"]).values()) == ["cancelled"]


def test_a_run_that_hangs_past_its_timeout_is_ended(make_world):
    world = make_world(seconds=60, job={"timeout": "3s", "retries": 0})
    world.bring()
    run = world.wait_run("parked")
    assert "timeout" in run["reason"]
    assert list(world.attempts(run["id"]).values()) == ["cancelled"]


def test_a_machine_that_somebody_else_woke_is_not_put_to_sleep(make_world, mill):
    world = make_world()
    mill.wake()
    mill.wait("awake")
    wait_until("sshd to answer", mill.answers)
    world.bring()
    world.wait_run("done")
    wait_until("it to be idle", lambda: world.machine()["state"] == "idle")
    assert not world.machine()["ours"]
    time.sleep(IDLE + 3)
    assert mill.state() == "awake" and world.machine()["state"] == "idle" and world.machine()["wakes_today"] == 0


def test_the_daemon_starts_again_in_the_middle(make_world):
    world = make_world(seconds=3)
    world.bring()
    world.wait_run("started")
    world.daemon.kill()
    world.daemon.start()
    world.wait_run("done")
    world.settle()
    world.check()
    assert world.wakes() == 1


def test_a_refused_key_is_told_with_the_remedy(make_world, mill):
    mill.path("/var/lib/millrace-worker/.ssh/authorized_keys").unlink()
    world = make_world()
    world.bring()

    def told():
        return [p for p in world.daemon.status()["problems"] if "setup" in p["what"] + p["remedy"]]

    wait_until("the key to be told", told, PATIENCE)
    assert world.daemon.poll(SOURCE)["outcome"] == "committed"
    assert mill.setup("--sleep-command", f"/usr/bin/touch {mill.bed}/sleep").returncode == 0
    world.wait_run("done", 2 * PATIENCE)
