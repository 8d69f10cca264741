# SPDX-License-Identifier: Apache-2.0
"""Clocks that are wrong, and put right or not: what time the lake shows.

Each daemon runs in a mount namespace of its own, in which a folder of the test's is /run/systemd/timesync, where
timesyncd would leave its flag, or a script of the test's is timedatectl, and a file is the kernel's boot id.
"""

import itertools
import json
import os
import re
import stat
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import lake
from clock import EPOCH, Clock
from daemon import wait_until
from feed import Answer
from figures import note
from sandbox import CALLS

SANDBOX = Path(__file__).resolve().parents[1] / "sandbox.py"
PATH = "/feed.json"
BOOTED = datetime(2031, 3, 14, 23, 30, tzinfo=UTC)  # in truth, at mono 0
SOON = timedelta(seconds=20)  # after the boot the daemon starts
WRONG = EPOCH + timedelta(seconds=5)  # at boot, by the clock of a Pi without a battery
EVERY = timedelta(minutes=5)
WRAPPER = """#!/bin/sh
exec {sandbox} unshare {flags} sh -ec '
    if [ -d /run/systemd ]; then mount -t tmpfs tmpfs /run/systemd; else mount -t tmpfs tmpfs /run; fi
    if [ -e {folder}/timedatectl ]; then
        mount --bind {folder}/timedatectl /usr/bin/timedatectl
    else
        mkdir -p /run/systemd/timesync
        mount --bind {folder}/timesync /run/systemd/timesync
    fi
    mount --bind {folder}/boot_id /proc/sys/kernel/random/boot_id
    exec {program} "$@"' sh "$@"
"""


def span(times):
    """The first and the last of them."""
    ends = sorted(times)
    return " to ".join(dict.fromkeys(f"{at:%Y-%m-%dT%H:%M:%SZ}" for at in (ends[0], ends[-1])))


def words(clocks):
    return " and ".join(dict.fromkeys(clocks))


class Machine:
    """Where a daemon runs: its boot id, and timesyncd's flag."""

    def __init__(self, folder):
        self._folder = folder
        self._flag = folder / "timesync" / "synchronized"
        self._flag.parent.mkdir(parents=True)
        self.boot()

    def boot(self):
        (self._folder / "boot_id").write_text(f"{uuid.uuid4()}\n")
        self._flag.unlink(missing_ok=True)

    def synchronise(self):
        self._flag.touch()

    def say(self, answer):
        """There is no timesyncd; this is what timedatectl says, "" for nothing."""
        script = self._folder / "timedatectl"
        script.write_text(f"#!/bin/sh\necho NTPSynchronized={answer}\n" if answer else "#!/bin/sh\nexit 1\n")
        script.chmod(0o755)

    def wrap(self, program, sandbox=""):
        """A program that runs this one here."""
        wrapper = self._folder / f"wrapped-{Path(program).name}"
        flags = "-m" if os.geteuid() == 0 else "-rm"
        wrapper.write_text(
            WRAPPER.format(flags=flags, sandbox=sandbox, folder=self._folder, program=Path(program).resolve())
        )
        wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
        return wrapper


@pytest.fixture
def machine(tmp_path):
    machine = Machine(tmp_path / "machine")
    probe = subprocess.run([machine.wrap("/bin/true")], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        pytest.skip(f"needs a mount namespace of its own: {probe.stderr.strip()}")
    return machine


class Feed:
    """A route whose every answer is new; when each was given, by the boot's clock."""

    def __init__(self, clock):
        self._clock = clock
        self.given = []

    def __call__(self, _request):
        self.given.append(self._clock.mono())
        return Answer(b"[%d]" % len(self.given))


class Rig:
    def __init__(self, daemon, machine, clock, feed):
        self.daemon = daemon
        self.machine = machine
        self.clock = clock
        self.feed = feed
        self.booted = BOOTED
        self.boots = 1

    def truth(self, mono=None):
        return self.booted + (self.clock.mono() if mono is None else mono)

    def put_right(self):
        """What timesyncd does; the daemon hears of it within seconds."""
        self.clock.set(self.truth())
        self.machine.synchronise()
        self.clock.run(seconds=10)

    def cut_power(self, wall):
        """The machine boots half a minute later, when it is this time by its clock."""
        self.daemon.kill()
        self.boots += 1
        self.booted = self.truth() + timedelta(seconds=30)
        self.machine.boot()
        self.clock.boot(wall + SOON, SOON)
        self.daemon.start()

    def objects(self):
        """What stands in the lake: (dt, [(fetched_at, clock)]) of each object, in the order of seq."""
        found = lake.read(self.daemon.lake)
        assert found.problems == []
        at = [(re.search(r"/dt=([0-9-]+)/", o.key)[1], o.records) for o in found.objects]
        return [(dt, [(datetime.fromisoformat(r.fetched_at), r.clock) for r in records]) for dt, records in at]

    def days(self):
        """As objects follow one another, each once in a row."""
        return [dt for dt, _ in itertools.groupby(dt for dt, _ in self.objects())]

    def times(self):
        return [time for _, records in self.objects() for time in records]

    def unsealed(self):
        return self.daemon.source("feed")["unsealed_records"]

    def row(self, what, shows):
        """A row of the table: when it was in truth, and what the lake says of that."""
        objects = [
            f"dt={dt}: {span(r[0] for r in records)} {words(r[1] for r in records)}" for dt, records in self.objects()
        ]
        truth = span(self.truth(mono) for mono in self.feed.given) if self.boots == 1 else "two boots"
        note(what, "test_clocks.py", lake=shows, in_truth=truth, objects="; ".join(objects))


@pytest.fixture
def start(make_daemon, millrace_sim, server, machine, tmp_path):
    """A machine that booted when it was `booted` in truth and `wall` by its clock, and a while later a daemon."""

    def start(wall, booted=BOOTED, after=SOON, synced=False, sandbox="", **top):
        clock = Clock(tmp_path / "clock", wall + after, after // timedelta(milliseconds=1))
        if synced:
            machine.synchronise()
        daemon = make_daemon(program=machine.wrap(millrace_sim, sandbox), env={"MILLRACE_CLOCK": str(clock.path)})
        rig = Rig(daemon, machine, clock, Feed(clock))
        rig.booted = booted
        server.route(PATH, rig.feed)
        daemon.configure({"feed": {"url": server.url(PATH), "every": "5m"}}, **{"clock": "auto"} | top)
        daemon.start()
        return rig

    return start


def test_an_unsynchronised_start_that_is_corrected(start, tmp_path):
    rig = start(WRONG)
    rig.clock.run(minutes=12)
    assert rig.daemon.flush() == {"batches": 0, "kept_back": 3, "delivered": False}
    assert (rig.unsealed(), rig.objects()) == (3, [])
    told = rig.daemon.cli("flush", "--wait")
    assert told.returncode == 69
    assert told.stdout == "sealed 0 batches; not sealed: 3 records, until the clock is right\n"
    (tmp_path / "stick").mkdir()
    told = rig.daemon.cli("export", str(tmp_path / "stick"))
    assert told.returncode == 0
    assert "not exported, until the clock is right: 3 records; to have them now stop the daemon" in told.stdout
    assert [r["event"] for r in rig.daemon.events() if r["event"].startswith("clock")] == ["clock.waiting"]
    rig.put_right()
    rig.clock.run(minutes=5)
    rig.daemon.flush()
    assert rig.times() == [
        (rig.truth(mono), "corrected" if i < 3 else "synced") for i, mono in enumerate(rig.feed.given)
    ]
    events = [r["event"] for r in rig.daemon.events() if r["event"].startswith("clock")]
    assert events == ["clock.waiting", "clock.synced"]
    assert rig.daemon.cli("audit").returncode == 0
    rig.row("it is 1970 at the start, and synchronised after 12 minutes", "times corrected")


def test_midnight_is_where_the_corrected_time_has_it(start):
    rig = start(WRONG)
    rig.clock.run(minutes=42)
    rig.put_right()
    rig.clock.run(minutes=1)
    assert [dt for dt, _ in rig.objects()] == ["2031-03-14"], "the day that is over is sealed at once"
    rig.daemon.flush()
    assert rig.times() == [(rig.truth(mono), "corrected") for mono in rig.feed.given]
    assert [dt for dt, _ in rig.objects()] == ["2031-03-14", "2031-03-15"]
    rig.row("the same across a midnight UTC that the clock did not know of", "dt= by the corrected time")


def test_a_clock_that_never_comes_right(start):
    rig = start(WRONG, clock_wait="30m")
    given = rig.feed.given
    rig.clock.run(minutes=29)
    assert rig.objects() == []
    rig.clock.run(minutes=2)
    assert rig.times() == [(WRONG + mono, "unsynced") for mono in given[:6]]
    rig.clock.run(minutes=20)
    rig.daemon.flush()
    assert rig.times() == [(WRONG + mono, "unsynced") for mono in given]
    events = [r["event"] for r in rig.daemon.events() if r["event"].startswith("clock")]
    assert events == ["clock.waiting", "clock.unsynced"]
    assert rig.daemon.cli("status").returncode == 1
    rig.row("it is 1970 and is never synchronised", "sealed after clock_wait by the clock's own time")


def test_it_comes_right_after_the_wait(start):
    rig = start(WRONG, clock_wait="30m", batch={"max_age": "1h"})
    given = rig.feed.given
    rig.clock.run(minutes=31)
    rig.daemon.flush()
    n = len(given)
    rig.clock.run(minutes=10)
    rig.put_right()
    rig.clock.run(minutes=5)
    rig.daemon.flush()
    late = [(WRONG + mono, "unsynced") for mono in given[:n]]
    assert len(given) == n + 3
    right = [(rig.truth(mono), "corrected") for mono in given[n:-1]] + [(rig.truth(given[-1]), "synced")]
    assert rig.times() == late + right
    rig.row("the same, and synchronised when clock_wait is over", "what is not sealed yet is corrected")


def test_a_machine_that_has_been_up_for_longer_waits_no_more(start):
    rig = start(BOOTED, after=timedelta(hours=1))
    rig.daemon.wait_records("feed", 1)
    assert rig.daemon.flush()["batches"] == 1
    assert rig.times() == [(rig.truth(rig.feed.given[0]), "unsynced")]
    rig.row("it has been up for an hour, and is not synchronised", "sealed at once by the clock's own time")


@pytest.mark.parametrize("hours", [5, -5])
def test_jumps_while_synchronised(start, hours):
    noon = datetime(2031, 3, 14, 12, 0, tzinfo=UTC)
    rig = start(noon, booted=noon, synced=True)
    rig.clock.run(minutes=6)
    jump = timedelta(hours=hours)
    rig.clock.set(rig.clock.wall() + jump)
    rig.clock.run(minutes=20)
    rig.daemon.flush()
    given = rig.feed.given
    assert rig.times() == [
        (rig.truth(mono) + (jump if i > 1 else timedelta()), "synced") for i, mono in enumerate(given)
    ]
    polled = {b - a for a, b in itertools.pairwise(given)}
    assert polled == {EVERY}, "polls go on as if nothing had happened"
    assert rig.daemon.source("feed")["state"] == "fresh"
    rig.row(f"a synchronised clock jumps by {hours} hours", "the clock's own time, seq in order")


def hours_of(rig):
    """What `_polls` has told of the feed's: when, by the line, and its from, to and polls."""
    rig.daemon.flush()
    found = lake.read(rig.daemon.lake)
    assert found.problems == []
    told = [(r, json.loads(r.data)) for r in found.records("_polls")]
    return [
        (*map(datetime.fromisoformat, (r.fetched_at, data["from"], data["to"])), data["polls"], r.clock)
        for r, data in told
    ]


def test_hours_are_told_by_the_right_clock(start):
    """The wrong one passes a full hour, of which nothing is told."""
    rig = start(EPOCH + timedelta(minutes=55))
    rig.clock.run(minutes=12)
    rig.put_right()
    assert hours_of(rig) == []
    rig.clock.run(minutes=20)
    midnight = datetime(2031, 3, 15, tzinfo=UTC)
    polls = sum(rig.truth(mono) < midnight for mono in rig.feed.given)
    assert hours_of(rig) == [(midnight, rig.truth(SOON), midnight, polls, "synced")]


def test_hours_of_a_clock_that_nobody_puts_right(start):
    """They are told by what it shows, once it is not waited for any more; and when it is put right it goes on."""
    rig = start(WRONG, clock_wait="10m")
    rig.clock.run(minutes=70)
    one = EPOCH + timedelta(hours=1)
    assert hours_of(rig) == [(one, WRONG + SOON, one, 12, "unsynced")]
    rig.put_right()
    rig.clock.run(minutes=30)
    (second,) = hours_of(rig)[1:]
    told = rig.booted + (one - WRONG)
    assert second == (datetime(2031, 3, 15, 1, tzinfo=UTC), told, datetime(2031, 3, 15, 1, tzinfo=UTC), 6, "synced")


def test_a_jump_back_past_midnight(start):
    wall = datetime(2031, 3, 14, 23, 53, tzinfo=UTC)
    rig = start(wall, booted=wall, synced=True)
    rig.clock.run(minutes=11)
    rig.clock.set(rig.clock.wall() - timedelta(hours=2))
    rig.clock.run(minutes=21)
    rig.daemon.flush()
    assert rig.days() == ["2031-03-14", "2031-03-15", "2031-03-14"]
    rig.row("a synchronised clock jumps back past midnight", "an object for each run of a day")


def test_a_synchronised_clock_that_falls_to_1970(start):
    rig = start(BOOTED, synced=True)
    rig.clock.run(minutes=6)
    rig.clock.set(WRONG)
    rig.clock.run(minutes=10)
    rig.daemon.flush()
    given = rig.feed.given
    assert rig.times() == [(rig.truth(mono), "synced" if i < 2 else "corrected") for i, mono in enumerate(given)]
    rig.row("a synchronised clock falls to 1970", "corrected: a time before the program was built is not believed")


def test_years_beyond_2038(start):
    end = datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC)  # 2^31 seconds since 1970
    begin = end - timedelta(minutes=7)
    rig = start(begin, booted=begin, synced=True)
    rig.clock.run(minutes=17)
    far = datetime(2106, 2, 7, 6, 28, 16, tzinfo=UTC)  # 2^32
    rig.clock.set(far)
    rig.clock.run(minutes=5)
    rig.daemon.flush()
    assert rig.days() == ["2038-01-19", "2106-02-07"]
    at = [at for at, _ in rig.times()]
    assert min(at) < end < at[2] < far < max(at)
    rig.row("2038-01-19T03:14:08Z passes, then 2106", "as any other time")


def test_two_boots_and_no_synchronisation_between(start):
    rig = start(WRONG)
    rig.clock.run(minutes=11)
    first = list(rig.feed.given)
    rig.cut_power(WRONG)
    rig.clock.run(minutes=11)
    rig.put_right()
    rig.daemon.flush()
    second = rig.feed.given[len(first) :]
    assert (len(first), len(second)) == (3, 3)
    assert rig.times() == [(WRONG + m, "unsynced") for m in first] + [(rig.truth(m), "corrected") for m in second]
    rig.row("two boots, and synchronised in the second only", "the first as it was, the second corrected")


def test_power_is_cut_between_synchronisation_and_sealing(start):
    rig = start(WRONG, batch={"max_age": "6h"})
    rig.clock.run(minutes=42)
    rig.put_right()
    wait_until("the day that is over to be sealed", lambda: len(rig.objects()) == 1)
    truths = [(rig.truth(mono), "corrected") for mono in rig.feed.given]
    assert rig.unsealed() == 3
    rig.cut_power(WRONG)
    rig.clock.run(seconds=10)
    rig.daemon.flush()
    assert rig.times() == truths
    assert [dt for dt, _ in rig.objects()] == ["2031-03-14", "2031-03-15"]
    rig.row("synchronised, then a power cut before sealing", "the correction is remembered for its boot")


def test_a_restart_seals_nothing_sooner(start):
    rig = start(WRONG)
    rig.clock.run(minutes=6)
    rig.daemon.kill()
    rig.daemon.start()
    rig.clock.run(minutes=5)
    assert rig.daemon.flush()["batches"] == 0
    rig.put_right()
    rig.daemon.flush()
    assert rig.times() == [(rig.truth(mono), "corrected") for mono in rig.feed.given]
    rig.row("the daemon is killed and starts again before the clock is right", "times corrected")


def test_without_timesyncd_timedatectl_is_asked(start, machine):
    machine.say("no")
    rig = start(WRONG)
    rig.clock.run(minutes=6)
    assert rig.daemon.status()["clock"]["state"] == "waiting"
    machine.say("yes")
    rig.put_right()
    rig.clock.run(minutes=5)
    rig.daemon.flush()
    given = rig.feed.given
    assert rig.times() == [(rig.truth(mono), "corrected" if i < 2 else "synced") for i, mono in enumerate(given)]
    rig.row("no timesyncd; timedatectl says no, and later yes", "times corrected")


@pytest.mark.skipif(os.uname().machine not in CALLS, reason="the sandbox knows not this machine's system calls")
def test_where_nobody_can_be_asked_a_time_that_can_be_right_is(start, machine):
    machine.say("")
    rig = start(WRONG, sandbox=f"{sys.executable} {SANDBOX}")
    rig.clock.run(minutes=6)
    assert rig.daemon.status()["clock"]["state"] == "waiting"
    rig.clock.set(rig.truth())
    rig.clock.run(minutes=10)
    rig.daemon.flush()
    given = rig.feed.given
    assert rig.times() == [(rig.truth(mono), "corrected" if i < 2 else "synced") for i, mono in enumerate(given)]
    rig.row("nobody can be asked; it is 1970, and then it is not", "a time after the program was built is believed")


def test_trust_waits_for_nobody(start):
    rig = start(BOOTED, clock="trust")
    rig.daemon.wait_records("feed", 1)
    assert rig.daemon.flush()["batches"] == 1
    assert rig.times() == [(rig.truth(rig.feed.given[0]), "synced")]
    assert rig.daemon.status()["clock"] == {"state": "synced", "unsynced_records": 0, "wait_until": None}
    rig.row('clock = "trust"', "the clock's own time")


def test_a_reload_can_end_the_wait(start, server):
    rig = start(WRONG)
    rig.clock.run(minutes=6)
    rig.clock.set(rig.truth())
    rig.daemon.configure({"feed": {"url": server.url(PATH), "every": "5m"}}, clock="trust")
    rig.daemon.process.send_signal(1)
    wait_until("the reload", lambda: rig.daemon.status()["clock"]["state"] == "synced")
    assert rig.daemon.flush()["batches"] == 1
    assert rig.times() == [(rig.truth(mono), "corrected") for mono in rig.feed.given]


def test_status_tells_how_long_it_waits(start):
    rig = start(WRONG)
    rig.clock.run(minutes=1)
    status = rig.daemon.status()
    assert (status["clock"]["state"], status["clock"]["unsynced_records"], status["ok"]) == ("waiting", 1, True)
    until = datetime.fromisoformat(status["clock"]["wait_until"])
    assert until == WRONG + timedelta(hours=1)
    assert (
        "clock waiting: not synchronised; 1 record kept back until it is, for 59m at most"
        in rig.daemon.cli("status").stdout
    )
    rig.clock.run(minutes=5)
    page = rig.daemon.cli("status")
    assert page.returncode == 1
    assert "! clock: it is not synchronised; 2 records are kept back for 54m at most" in page.stdout
    assert 'set clock = "trust" and reload' in page.stdout
    rig.put_right()
    assert rig.daemon.status()["ok"]
    assert "clock" not in rig.daemon.cli("status").stdout


def test_the_real_clock_and_timesyncds_flag(make_daemon, millrace, server, machine):
    """Without a driven clock: only whether it is right is the test's to say."""
    with Path("/proc/uptime").open(encoding="ascii") as uptime:
        if float(uptime.read().split()[0]) > 6 * 86400:
            pytest.skip("this machine has been up for longer than any clock_wait")
    server.route(PATH, Answer(b"[1,2]"))
    daemon = make_daemon(program=machine.wrap(millrace))
    daemon.configure({"feed": {"url": server.url(PATH)}}, clock="auto", clock_wait="7d")
    before = datetime.now(UTC) - timedelta(seconds=1)
    daemon.start()
    daemon.wait_records("feed", 2)
    assert daemon.flush()["batches"] == 0
    assert daemon.status()["clock"]["state"] == "waiting"
    machine.synchronise()
    wait_until("the clock to be right", lambda: daemon.status()["clock"]["state"] == "synced")
    daemon.flush()
    found = lake.read(daemon.lake)
    assert found.problems == []
    assert [r.clock for r in found.records()] == ["corrected", "corrected"]
    assert before < datetime.fromisoformat(found.records()[0].fetched_at) < datetime.now(UTC)
