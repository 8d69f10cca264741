# SPDX-License-Identifier: Apache-2.0
"""What `make demo MILL=1` adds to the demo: a machine that sleeps, a job on it, and what became of both. Millrace is
asked by its API; the machine's own book says when it was woken and slept; the manifests in the store say what ran.
"""

import gzip
import json
import subprocess
import time
from datetime import datetime

from daemon import TimedOut
from mill_rig import Mill

JOB = "parking"
BOOT = 3  # seconds
PATIENCE = 180  # seconds for its last runs and its sleep, in which a failed attempt is made again


def seconds_of(text):
    return datetime.fromisoformat(text).timestamp()


class MillDemo:
    def __init__(self, source, place):
        self.place = place
        self.began = time.time()
        self.mill = Mill(boot=BOOT)
        if not self.mill.apart and (who := subprocess.run(["who"], capture_output=True, text=True, check=False).stdout):
            self.mill.close()
            raise RuntimeError(f"{who.split()[0]} is logged in here, which keeps the machine awake: run it as root")
        self.settings = {
            "machines": {self.mill.name: self.mill.machine_settings()},
            "jobs": {JOB: self.mill.job_settings(place, [source])},
        }
        where = "with a network of its own" if self.mill.about["namespace"] else "on loopback"
        print(f"A machine sleeps, {where}. A magic packet wakes it within {BOOT} s, then sshd answers.")
        self.runs = []

    def end(self):
        self.mill.close()

    # ---- as it goes

    def ask(self, daemon):
        """Machine, job and runs, oldest first, as Millrace tells of them."""
        answer = daemon.ask("GET", "/v1/machines")
        self.runs = daemon.ask("GET", "/v1/runs")["runs"][::-1]
        return answer["machines"][0], answer["jobs"][0]

    def now(self, daemon):
        machine, _ = self.ask(daemon)
        done = sum(run["state"] == "done" for run in self.runs)
        return f"; the machine is {machine['state']}, {done} of {len(self.runs)} runs done"

    def wait(self, daemon, show_line):
        """Until nothing waits, no run is on its way, and the machine sleeps."""
        started, second = time.monotonic(), 0
        while True:
            machine, job = self.ask(daemon)
            rests = not job["batches"] and not job["run"] and machine["state"] == "asleep"
            if any(run["state"] == "parked" for run in self.runs) or (rests and self.mill.state() == "asleep"):
                break
            if second > PATIENCE:
                said = (
                    f"machine {machine['state']}: {machine['reason']}; job: {job['waits_for'] or 'waits for nothing'}"
                )
                raise TimedOut(f"after {PATIENCE} s the machine is not asleep with its work done ({said})")
            text = f"{second:2d} s  waiting for its last run, and its sleep{self.now(daemon)}"
            show_line(text, second)
            second += 1
            time.sleep(max(0, started + second - time.monotonic()))
        print()

    # ---- what came of it

    def of_the_machine(self):
        """(time, words)"""
        woken = awake = None
        packets = self.mill.packets()
        for line in self.mill.states()[1:]:
            at, state = line["at"], line["state"]
            if state == "booting":
                woken = at
                yield at, "woken: its magic packet has come"
            elif state == "awake":
                awake = at
                sent = sum(woken - 0.5 <= packet["at"] <= at for packet in packets)
                yield at, f"awake: its sshd starts; packets until now: {sent}"
                yield from self.first_ready(at)
            else:
                yield at, f"asleep: it was awake for {at - awake:.0f} s"

    def first_ready(self, awake):
        ready = [seconds_of(run["ready_at"]) for run in self.runs if run["ready_at"]]
        for at in sorted(at for at in ready if at >= awake)[:1]:
            yield at, "ready: its worker answers"

    def of_the_runs(self):
        for run in self.runs:
            name = f"run {run['id'][:12]}…{run['id'][-4:]}"
            yield seconds_of(run["created_at"]), f"due: {name}, objects {run['objects']}, records {run['records']}"
            if run["started_at"]:
                yield seconds_of(run["started_at"]), f"started: {name}"
            if run["ended_at"]:
                yield seconds_of(run["ended_at"]), f"{run['state']}: {name} {run['reason']}".rstrip()

    def show(self):
        print("What happened, in seconds since the beginning:\n")
        for at, words in sorted([*self.of_the_machine(), *self.of_the_runs()], key=lambda one: one[0]):
            print(f"  {at - self.began:6.1f}  {words}")
        print()

    def problems(self, found):
        """Where runs and objects do not agree, and what did not end as it should."""
        listed = []
        for run in self.runs:
            if run["state"] != "done":
                yield f"run {run['id']} is {run['state']}: {run['reason']}"
                continue
            folder = self.place / "_runs" / JOB / run["id"]
            manifest = json.loads((folder / "manifest.json").read_text())
            counted = json.loads(gzip.decompress((folder / "log.gz").read_bytes()).splitlines()[-1])
            listed += [what["key"] for what in manifest["objects"]]
            said = (run["objects"], run["records"])
            if (counted["objects"], counted["records"]) != said:
                yield f"run {run['id']} counted {counted['objects']} objects and {counted['records']} records of {said}"
        delivered = sorted(one.key for one in found.objects)
        if sorted(listed) != delivered:
            yield f"the runs were over {len(listed)} objects, and {len(delivered)} were delivered, or others"
        if self.mill.state() != "asleep":
            yield f"the machine is {self.mill.state()}"

    def judge(self, found):
        """True when all is well."""
        self.show()
        wrong = list(self.problems(found))
        for problem in wrong:
            print(f"demo: {problem}")
        if not self.runs:
            print("demo: no run was made")
        elif not wrong:
            records = sum(run["records"] for run in self.runs)
            print(f"{len(self.runs)} runs counted {records} records, each delivered object in one of them, once.\n")
        return bool(self.runs) and not wrong
