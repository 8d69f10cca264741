# SPDX-License-Identifier: Apache-2.0
"""The sleeping machine of the tests and the demo (tests/sleeper.py): what wakes it, and how it sleeps again; and what
Millrace puts on the wire to wake it."""

import contextlib
import json
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from daemon import wait_until
from sleeper import ETH_P_ALL, magic, six

SLEEPER = Path(__file__).resolve().parents[1] / "sleeper.py"
MAC = "02:4d:69:6c:6c:07"
SECURE_ON = "01:00:ff:7f:80:0a"
SERVICE = 8022
RESEND = 5  # seconds between two rounds of packets
ALL = b"\xff" * 6
# A service, and beside it something with a session of its own that is deaf to SIGTERM.
PROGRAM = f"""
setsid sh -c 'trap "" TERM; echo $$ >"$0"; while :; do sleep 1000; done' "$1" &
exec {sys.executable} -m http.server {SERVICE} --bind "$2"
"""


class Sleeper:
    def __init__(self, folder, *options, prefix=()):
        self.folder = folder
        self.job = folder / "job"
        program = ["sh", "-c", PROGRAM, "sh", str(self.job), "{host}"]
        command = [*prefix, sys.executable, str(SLEEPER), "run", str(folder), "--mac", MAC, *options, "--", *program]
        self.log = (folder / "log").open("w+")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.about = json.loads(self.process.stdout.readline())

    def state(self):
        return (self.folder / "state").read_text()

    def wait(self, state):
        wait_until(f"the machine to be {state}", lambda: self.state() == state)

    def book(self, name):
        """Without the times."""
        lines = [json.loads(line) for line in (self.folder / f"{name}.jsonl").read_text().splitlines()]
        return [{key: value for key, value in line.items() if key != "at"} for line in lines]

    def packets(self):
        return self.book("packets")

    def answers(self):
        try:
            socket.create_connection((self.about["host"], SERVICE), timeout=0.3).close()
        except OSError:
            return False
        return True

    def send(self, data, to="255.255.255.255", port=9):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self.about["interface"].encode())
            s.sendto(data, (to, port))

    def send_raw(self, data, to=b"\xff" * 6):
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:
            s.bind((self.about["interface"], 0x0842))
            s.send(to + six("02:00:00:00:00:01") + b"\x08\x42" + data)

    def job_runs(self):
        return self.job.exists() and Path(f"/proc/{self.job.read_text().strip()}/cmdline").exists()

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(20) == 0
        self.process.stdout.close()
        self.log.seek(0)
        text = self.log.read()
        self.log.close()
        return text


@pytest.fixture
def make_sleeper(tmp_path):
    made = []

    def make(*options, prefix=(), folder=tmp_path):
        made.append(Sleeper(folder, *options, prefix=prefix))
        return made[-1]

    yield make
    for sleeper in made:
        if sleeper.process.poll() is None:
            print(sleeper.end())


@pytest.fixture
def make_far(make_sleeper):
    """In a namespace of its own."""

    def make(*options):
        sleeper = make_sleeper(*options)
        if not sleeper.about["namespace"]:
            pytest.skip("NO RIGHT TO MAKE A NETWORK NAMESPACE: no machine sleeps at the far end of a wire")
        return sleeper

    return make


@pytest.fixture
def far(make_far):
    return make_far()


@pytest.mark.parametrize("port", [9, 7])
@pytest.mark.parametrize("to", ["255.255.255.255", "198.18.{}.255"])
def test_udp_wakes_it(far, to, port):
    to = to.format(far.about["host"].split(".")[2])
    assert far.state() == "asleep" and not far.answers()
    far.send(magic(six(MAC)), to, port)
    far.wait("awake")
    wait_until("its service to answer", far.answers)
    assert far.packets() == [{"state": "asleep", "to": to, "port": port}]


@pytest.mark.parametrize("to", [b"\xff" * 6, six(MAC)])
def test_a_frame_wakes_it(far, to):
    def awake():
        if far.state() == "asleep":
            far.send_raw(b"anything" + magic(six(MAC)) + b"more", to)
        return far.state() == "awake"

    wait_until("the machine to be awake", awake)
    assert far.packets()[0] == {"state": "asleep", "to": None, "port": 0}


def test_what_is_not_for_it_does_not_wake_it(far):
    """What wakes it comes last, and is the only one in its book."""
    mac = six(MAC)
    far.send(magic(six("02:4d:69:6c:6c:08")))
    far.send(magic(mac)[:-1])
    far.send(b"\xff" * 5 + mac * 16)
    far.send_raw(magic(mac), six("02:4d:69:6c:6c:08"))
    far.send(magic(mac), port=4242)
    far.wait("awake")
    assert far.packets() == [{"state": "asleep", "to": "255.255.255.255", "port": 4242}]


def test_secure_on(make_far):
    far = make_far("--secure-on", "01:02:03:04:05:06")
    far.send(magic(six(MAC)))
    far.send(magic(six(MAC), b"\1\2\3\4\5\7"))
    far.send(magic(six(MAC), b"\1\2\3\4\5\6"), port=7)
    far.wait("awake")
    assert [p["port"] for p in far.packets()] == [7]


@pytest.mark.parametrize("word", ["sleep", "off"])
def test_it_sleeps_and_wakes_again(far, word):
    far.send(magic(six(MAC)))
    wait_until("its service to answer", far.answers)
    wait_until("its job to run", far.job_runs)
    far.send(magic(six(MAC)), port=7)
    wait_until("the packet to be in its book", lambda: len(far.packets()) == 2)
    assert far.packets()[1] == {"state": "awake", "to": "255.255.255.255", "port": 7}
    with socket.create_connection((far.about["host"], SERVICE)) as peer:
        (far.folder / word).touch()
        far.wait("asleep")
        assert not far.answers() and not far.job_runs() and not (far.folder / word).exists()
        peer.settimeout(0.3)
        with pytest.raises(TimeoutError):
            peer.recv(1)  # no end was sent: the machine has gone
    far.send(magic(six(MAC)))
    wait_until("its service to answer again", far.answers)
    far.wait("awake")
    assert [line["state"] for line in far.book("states")] == ["asleep", "booting", "awake"] * 2


def test_it_takes_its_time_to_boot(make_far):
    far = make_far("--boot", "1")
    for _ in range(3):
        far.send(magic(six(MAC)))
    far.wait("awake")
    assert [p["state"] for p in far.packets()] == ["asleep", "booting", "booting"]


def test_nothing_of_it_stays(far):
    far.send(magic(six(MAC)))
    wait_until("its job to run", far.job_runs)
    interface = Path("/sys/class/net", far.about["interface"])
    assert interface.exists()
    far.end()
    assert not interface.exists() and not far.job_runs()


def test_on_loopback(make_sleeper):
    sleeper = make_sleeper("--loopback")
    assert sleeper.about["host"] == "127.0.0.1" and not sleeper.about["namespace"]
    subprocess.run([sys.executable, SLEEPER, "wake", sleeper.folder], check=True)
    sleeper.wait("awake")
    wait_until("its service to answer", sleeper.answers)
    wait_until("its job to run", sleeper.job_runs)
    (sleeper.folder / "sleep").touch()
    sleeper.wait("asleep")
    assert not sleeper.answers() and not sleeper.job_runs()


def test_without_the_right_it_says_so(make_sleeper, tmp_path):
    """Run by root it gives its rights up; else it has none, as it is."""
    prefix = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
    if subprocess.run([*prefix, "true"], stderr=subprocess.DEVNULL, check=False).returncode != 0:
        prefix = []
    sleeper = make_sleeper(prefix=prefix)
    assert not sleeper.about["namespace"]
    assert set(sleeper.about["ports"]).isdisjoint({9, 7})
    subprocess.run([sys.executable, SLEEPER, "wake", tmp_path], check=True)
    sleeper.wait("awake")
    assert "NO RIGHT TO MAKE A NETWORK NAMESPACE" in sleeper.end()


# ---- Millrace's own packets


class Wire:
    """What leaves by an interface, as it is on the wire: the kernel shows each frame that it hands to the card."""

    def __init__(self, interface):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.socket.bind((interface, ETH_P_ALL))
        self.socket.setblocking(False)
        self.found = []

    def packets(self):
        """(MAC, address, port, data) of each datagram since the beginning."""
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, address = self.socket.recvfrom(65536)
                udp = frame[12:15] == b"\x08\x00\x45" and frame[23] == socket.IPPROTO_UDP
                if udp and address[2] == socket.PACKET_OUTGOING:
                    to = socket.inet_ntoa(frame[30:34])
                    port, size = struct.unpack_from("!HH", frame, 36)
                    assert len(frame) == 34 + size
                    self.found.append((frame[:6], to, port, frame[42:]))
        return self.found


@pytest.fixture
def make_wire():
    made = []

    def make(interface):
        made.append(Wire(interface))
        return made[-1]

    yield make
    for wire in made:
        wire.socket.close()


def a_round(far, data, unicast=True):
    host = far.about["host"]
    to = [(ALL, f"{host.rpartition('.')[0]}.255"), (ALL, "255.255.255.255"), (six(MAC), host)]
    return [(mac, address, port, data) for mac, address in to[: 3 if unicast else 2] for port in (9, 7)]


def know_neighbour(far):
    """For nobody answers, while it sleeps, when the kernel asks who has its address."""
    words = f"neighbour replace {far.about['host']} lladdr {MAC} dev {far.about['interface']} nud permanent"
    subprocess.run(["ip", *words.split()], check=True)


def start(daemon, far, **more):
    there = {"mac": MAC, "interface": far.about["interface"], "host": far.about["host"], "sleep": False}
    daemon.configure({}, machines={"mill": there | {"ready": "tcp", "ready_port": SERVICE} | more})
    daemon.start()


def machine(daemon):
    return daemon.ask("GET", "/v1/machines")["machines"][0]


def wake(daemon):
    done = daemon.cli("wake", "mill")
    assert done.returncode == 0, done.stderr


def wait_awake(daemon):
    wait_until("the machine to be seen awake", lambda: machine(daemon)["state"] == "idle", 60)


def test_six_packets_each_round_until_it_answers(daemon, make_far, make_wire):
    far = make_far("--boot", str(RESEND + 1), "--secure-on", SECURE_ON)
    know_neighbour(far)
    wire = make_wire(far.about["interface"])
    start(daemon, far, secure_on=SECURE_ON)
    wake(daemon)
    wait_awake(daemon)
    sent = list(wire.packets())
    rounds = len(sent) // 6
    assert rounds >= 2 and sent == rounds * a_round(far, magic(six(MAC), six(SECURE_ON)))
    assert machine(daemon)["wakes_today"] == 1
    wake(daemon)
    time.sleep(RESEND + 1)  # one more round would be there by now
    assert wire.packets() == sent, "it is awake"


def test_without_a_neighbour_entry_the_broadcasts_wake_it(daemon, far, make_wire):
    """What is for its address alone waits for its MAC, which nobody tells while it sleeps, and never leaves."""
    wire = make_wire(far.about["interface"])
    start(daemon, far)
    wake(daemon)
    far.wait("awake")
    assert wire.packets()[:4] == a_round(far, magic(six(MAC)), unicast=False)
    wait_awake(daemon)
    assert machine(daemon)["ours"]


def test_no_packet_for_one_that_is_awake(daemon, far, make_wire):
    far.send(magic(six(MAC)))
    wait_until("its service to answer", far.answers)
    wire = make_wire(far.about["interface"])
    start(daemon, far)
    wake(daemon)
    wait_awake(daemon)
    assert wire.packets() == []
    assert machine(daemon)["wakes_today"] == 0 and not machine(daemon)["ours"]
