#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A sleeping machine: it waits for its own magic packet, then runs the program that it was told to (sshd), and ends all
that this began when it is told to sleep.

    sleeper.py run FOLDER [--mac MAC] [--secure-on SIX] [--boot SECONDS] [--loopback] -- PROGRAM ARGUMENT…
    sleeper.py wake FOLDER      sends it its packet; for where Millrace cannot: see "ports"

It lives in a network namespace of its own, at the far end of a veth pair whose near end stays here. Asleep it has no
address and answers nothing, but its card listens: to any frame to it or to all that holds the packet, as cards do. Both
vanish with this process. Without the right to make a namespace, or with --loopback, it says so and waits for UDP on
127.0.0.1, where nothing hides that it sleeps but that its program does not run.

Once it is there it prints one line of JSON, which FOLDER/machine.json has too:

    {"mac": …, "secure_on": …, "namespace": true, "interface": "mill4711", "host": "198.18.103.2",
     "near": "198.18.103.1", "ports": [9, 7]}

"interface" and "near" are the near end and its address, "host" is the machine's when it is awake; {host} in an argument
stands for it, {near} for the other. "ports" are what it waits on: others than 9 and 7 where those may not be had.

    FOLDER/state            asleep, booting or awake
    FOLDER/states.jsonl     each of its states, as it begins: {"at": 1795255200.123, "state": "asleep"}
    FOLDER/packets.jsonl    each magic packet for it, as it came: {"at": 1795255201.456, "state": "asleep",
                            "to": "255.255.255.255", "port": 9}; to is null and port 0 for one without UDP
    touch FOLDER/sleep      it sleeps half a second later, and what it runs ends: SIGTERM, and SIGKILL for what goes on
    touch FOLDER/off        its power fails: SIGKILL at once

To its peers both look like a machine that has gone: no connection is ended, nothing answers any more.

Standard library only; needs `ip`, `nsenter` and `setpriv`.
"""

import argparse
import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

CLONE_NEWNET, PR_SET_CHILD_SUBREAPER = 0x40000000, 36
ETH_P_ALL, ETH_P_IP = 0x0003, 0x0800
PORTS = (9, 7)
BOOKS = ("packets.jsonl", "states.jsonl")
TICK = 0.05
LINGER = 0.5  # seconds: whoever told it to sleep, by ssh, still hears the answer
GRACE = 2.0  # seconds between SIGTERM and SIGKILL

libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """No right to make a namespace."""


def six(text):
    found = bytes.fromhex(text.replace("-", ":").replace(":", ""))
    if len(found) != 6:
        raise ValueError(f"{text}: not six bytes")
    return found


def magic(mac, secure_on=b""):
    return b"\xff" * 6 + mac * 16 + secure_on


def call(name, *arguments):
    if getattr(libc, name)(*arguments) != 0:
        raise Refused(f"{name}: {os.strerror(ctypes.get_errno())}")


class Namespace:
    """The machine's own network. This process is in it from here on."""

    namespace = True

    def __init__(self, mac):
        number = os.getpid()
        self.interface = f"mill{number}"
        self.ports = PORTS
        self.here = os.open("/proc/self/ns/net", os.O_RDONLY)
        call("unshare", CLONE_NEWNET)
        try:
            veth = f"link add {self.interface} type veth peer name eth0 address {mac.hex(':')} netns {number}"
            self.ip_near(veth)
            self.near, self.host = self.free_network(number)
        except Refused:
            call("setns", self.here, CLONE_NEWNET)
            raise
        self.ip_near(f"address add {self.near}/24 dev {self.interface}")
        self.ip_near(f"link set {self.interface} up")
        self.ip("link set lo up")
        self.ip("link set eth0 up")
        self.card = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.card.bind(("eth0", ETH_P_ALL))
        self.sockets = [self.card]

    def free_network(self, number):
        """Both ends of one that no other machine beside this one has, of RFC 2544's, nobody's networks."""
        taken = self.ip_near("-4 -o address show")
        for i in range(number, number + 256):
            if f" 198.18.{i % 256}.1/" not in taken:
                return f"198.18.{i % 256}.1", f"198.18.{i % 256}.2"
        raise Refused("all of 198.18.0.0/16 is taken")

    @staticmethod
    def ip(arguments, *before, **how):
        done = subprocess.run([*before, "ip", *arguments.split()], capture_output=True, text=True, check=False, **how)
        if done.returncode != 0:
            raise Refused(f"ip {arguments}: {done.stderr.strip()}")
        return done.stdout

    def ip_near(self, arguments):
        return self.ip(arguments, "nsenter", f"--net=/proc/self/fd/{self.here}", pass_fds=[self.here])

    def be_there(self, there):
        with contextlib.suppress(Refused):  # it has the address already, or not any more
            self.ip(f"address {'add' if there else 'del'} {self.host}/24 dev eth0")

    def receive(self, _socket):
        """A frame, whom it is for and by which port; the frames that this machine sends are not its own."""
        frame, address = self.card.recvfrom(65536)
        if address[2] not in (socket.PACKET_HOST, socket.PACKET_BROADCAST, socket.PACKET_MULTICAST):
            return b"", None, 0
        protocol = struct.unpack_from("!H", frame, 12)[0] if len(frame) >= 38 else 0
        if protocol != ETH_P_IP or frame[14] != 0x45 or frame[23] != socket.IPPROTO_UDP:
            return frame, None, 0
        return frame, socket.inet_ntoa(frame[30:34]), struct.unpack_from("!H", frame, 36)[0]

    def close(self):
        with contextlib.suppress(Refused):
            self.ip_near(f"link del {self.interface}")


class Loopback:
    namespace = False
    interface, near, host = "lo", "127.0.0.1", "127.0.0.1"

    def __init__(self):
        try:
            self.sockets = [self.listen(port) for port in PORTS]
        except OSError:
            self.sockets = [self.listen(0)]
        self.ports = [s.getsockname()[1] for s in self.sockets]

    def listen(self, port):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.bind((self.host, port))
        return s

    def be_there(self, there):
        pass

    def receive(self, s):
        return s.recv(65536), self.host, s.getsockname()[1]

    def close(self):
        pass


def make_network(mac, loopback):
    if not loopback:
        try:
            return Namespace(mac)
        except (Refused, OSError) as why:
            print(f"sleeper: NO RIGHT TO MAKE A NETWORK NAMESPACE ({why}): it sleeps on loopback", file=sys.stderr)
    return Loopback()


def children():
    """What this process began and what was left to it: it is its descendants' reaper."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == os.getpid() and state != "Z":
                found.append(int(stat.parent.name))
    return found


def reap():
    """The statuses of those that have ended, by number."""
    ended = {}
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG)) != (0, 0):
            ended[found[0]] = os.waitstatus_to_exitcode(found[1])
    return ended


class Machine:
    def __init__(self, arguments):
        self.folder = arguments.folder
        self.magic = magic(arguments.mac, arguments.secure_on)
        self.boot = arguments.boot
        self.network = make_network(arguments.mac, arguments.loopback)
        places = {"host": self.network.host, "near": self.network.near}
        self.program = [
            a.replace("{host}", places["host"]).replace("{near}", places["near"]) for a in arguments.program
        ]
        self.pid = None
        self.awake_at = None  # while it boots
        self.packets, self.states = ((self.folder / name).open("w", buffering=1) for name in BOOKS)
        self.describe(arguments)
        self.set_state("asleep")

    def describe(self, arguments):
        network = self.network
        self.about = {
            "mac": arguments.mac.hex(":"),
            "secure_on": arguments.secure_on.hex(":"),
            "namespace": network.namespace,
            "interface": network.interface,
            "host": network.host,
            "near": network.near,
            "ports": list(network.ports),
        }
        (self.folder / "machine.json").write_text(json.dumps(self.about) + "\n")

    def note(self, book, **what):
        book.write(json.dumps({"at": round(time.time(), 3)} | what) + "\n")

    def set_state(self, state):
        self.state = state
        self.note(self.states, state=state)
        fresh = self.folder / "state.tmp"
        fresh.write_text(state)
        fresh.rename(self.folder / "state")

    def on_packet(self, s):
        frame, to, port = self.network.receive(s)
        if self.magic not in frame:
            return
        self.note(self.packets, state=self.state, to=to, port=port)
        if self.state == "asleep":
            self.awake_at = time.monotonic() + self.boot
            self.set_state("booting")

    def wake(self):
        self.network.be_there(True)
        command = ["setpriv", "--pdeathsig", "KILL", *self.program]
        nothing = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)]
        self.pid = os.posix_spawnp(command[0], command, os.environ, file_actions=nothing, setsid=True)
        self.set_state("awake")

    def fall_asleep(self, grace):
        """It is gone from its network at once, so that no peer hears an end; then all that it began ends, whatever
        sessions that has made."""
        self.network.be_there(False)
        until, asked = time.monotonic() + grace, set()
        while running := set(children()):
            late = time.monotonic() >= until
            for pid in running if late else running - asked:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
            asked |= running
            reap()
            time.sleep(TICK)
        reap()
        self.pid = None
        self.hear(0)  # what came while it was awake does not wake it
        self.set_state("asleep")

    def hear(self, seconds):
        while ready := select.select(self.network.sockets, [], [], seconds)[0]:
            for s in ready:
                self.on_packet(s)
            seconds = 0

    def told(self, word):
        try:
            (self.folder / word).unlink()
        except FileNotFoundError:
            return False
        return True

    def step(self):
        self.hear(TICK)
        if self.state == "booting" and time.monotonic() >= self.awake_at:
            self.wake()
        ended = reap()
        if self.pid in ended:
            print(f"sleeper: {self.program[0]} ended with {ended[self.pid]}: asleep", file=sys.stderr, flush=True)
            self.fall_asleep(0)
        if self.told("off"):
            self.fall_asleep(0)
        if self.told("sleep") and self.state != "asleep":
            time.sleep(LINGER)
            self.fall_asleep(GRACE)


def on_term(_number, _frame):
    raise SystemExit(0)


def run(arguments):
    signal.signal(signal.SIGTERM, on_term)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    machine = Machine(arguments)
    try:
        print(json.dumps(machine.about), flush=True)
        while True:
            machine.step()
    except KeyboardInterrupt:
        pass
    finally:
        machine.fall_asleep(0)
        machine.network.close()


def wake(arguments):
    machine = json.loads((arguments.folder / "machine.json").read_text())
    packet = magic(six(machine["mac"]), bytes.fromhex(machine["secure_on"].replace(":", "")))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if machine["namespace"]:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, machine["interface"].encode())
        for port in machine["ports"]:
            s.sendto(packet, ("255.255.255.255" if machine["namespace"] else machine["host"], port))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True, metavar="run|wake")
    one = verbs.add_parser("run")
    one.set_defaults(act=run)
    one.add_argument("folder", type=Path)
    one.add_argument("--mac", type=six, default=six("02:4d:69:6c:6c:01"))
    one.add_argument("--secure-on", type=six, default=b"")
    one.add_argument("--boot", type=float, default=0, metavar="SECONDS")
    one.add_argument("--loopback", action="store_true")
    one.add_argument("program", nargs="+")
    one = verbs.add_parser("wake")
    one.set_defaults(act=wake)
    one.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    arguments.act(arguments)


if __name__ == "__main__":
    main()
