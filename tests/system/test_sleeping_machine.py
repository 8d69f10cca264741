# SPDX-License-Identifier: Apache-2.0
"""The working machine of tests and demo (tests/mill_rig.py), without Millrace: what wakes it, what its sleep leaves."""

import os
import subprocess

import pytest

from daemon import wait_until
from mill_rig import Mill
from sleeper import six
from worker_rig import SSHD, new_run

if not os.path.exists(SSHD):
    pytest.skip("NO SSHD: install openssh-server", allow_module_level=True)


@pytest.fixture
def make_mill():
    made = []

    def make(**how):
        made.append(Mill(**how))
        return made[-1]

    yield make
    for mill in made:
        mill.close()


@pytest.fixture(params=[False, True], ids=["namespace", "loopback"])
def mill(make_mill, request):
    mill = make_mill(loopback=request.param)
    if not (mill.apart or subprocess.run(["who"], capture_output=True, check=False).stdout == b""):
        pytest.skip("somebody is logged in here, and it cannot be kept from knowing that")
    return mill


@pytest.fixture
def awake(mill):
    mill.wake()
    mill.wait("awake")
    wait_until("sshd", mill.answers)
    return mill


def test_it_wakes_runs_and_sleeps(mill):
    assert mill.state() == "asleep" and not mill.answers()
    mill.wake()
    mill.wait("awake")
    wait_until("sshd", mill.answers)
    health = mill.ask("health")
    assert (health["protocol"], health["jobs"], health["sessions"]) == (1, ["count"], 0)
    run = new_run()
    assert mill.ask("status", run)["state"] == "unknown"
    assert mill.begin(run, "count")["state"] in ("running", "done")
    assert mill.end_of(run)["state"] == "done"
    assert b'"objects": 0' in mill.log_of(run)
    assert mill.ask("cancel", run)["state"] == "done"
    assert mill.ask("sleep") == {"asleep": True}
    mill.wait("asleep")
    assert not mill.answers()
    assert [line["state"] for line in mill.states()] == ["asleep", "booting", "awake", "asleep"]
    packets = mill.packets()
    assert {packet["port"] for packet in packets} == set(mill.about["ports"])
    assert packets[0]["state"] == "asleep"


def test_it_remembers_runs_over_its_sleep(awake):
    run = new_run()
    awake.begin(run, "count")
    ended = awake.end_of(run)
    before = awake.ask("health")["awake"]
    assert awake.ask("health")["awake"] == before
    awake.put_to_sleep()
    awake.wait("asleep")
    awake.wake()
    wait_until("sshd", awake.answers)
    assert awake.ask("status", run) == ended
    if awake.apart:
        assert awake.ask("health")["awake"] != before


def test_its_plug_is_pulled_amid_a_run(awake):
    awake.job("waits", "echo here; exec sleep 1000")
    run = new_run()
    awake.begin(run, "waits")
    wait_until("the job", lambda: awake.log_of(run) == b"here\n")
    pids = awake.pids(run)
    awake.pull_the_plug()
    awake.wait("asleep")
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    awake.wake()
    wait_until("sshd", awake.answers)
    lost = awake.ask("status", run)
    assert lost["state"] == "lost"
    if awake.apart:
        assert lost["why"] == "the machine was started anew"


def test_what_millrace_is_told(make_mill):
    far, near = make_mill(), make_mill(loopback=True)
    if far.about["namespace"]:
        assert far.machine_settings()["wake"] == "wol" and far.machine_settings()["host"].startswith("198.18.")
        assert six(far.machine_settings()["mac"]) == six(far.about["mac"])
    assert near.machine_settings()["host"] == "127.0.0.1"
    assert near.machine_settings()["interface" if near.machine_settings()["wake"] == "wol" else "command"]
    command = {"wake": "exec", "command": f"/usr/bin/python3 {near.folder}/sleeper.py wake {near.bed}"}
    near.about["ports"] = [40000, 40001]
    assert near.waker() == command
    assert near.machine_settings(idle="1h")["idle"] == "1h"
    assert near.job_settings("/lake", ["parking"], store="local")["path_there"] == "/lake"


def test_who_may_make_a_namespace_has_a_boot_of_its_own(make_mill):
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("NO RIGHT TO MAKE A MOUNT NAMESPACE")
    assert make_mill().apart
