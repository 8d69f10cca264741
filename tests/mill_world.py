# SPDX-License-Identifier: Apache-2.0
"""A feed, a daemon with a `file` store, and the working machine of mill_rig.py: from a poll to a machine asleep again.

The oracle stands outside: it counts what the machine was told to do, what it did, and when it was awake.
"""

import json
import random

from daemon import TimedOut, wait_until
from load import FreshAnswers

JOB = "parking"
SOURCE = "feed"
PATIENCE = 90  # seconds of the real clock for a wake, a run and ten idle seconds, on a busy machine


class World:
    """The machine's job writes down that it was started, works for `seconds`, then counts what the manifest lists."""

    def __init__(self, mill, daemon, server, seconds=0, seed=0):
        self.mill = mill
        self.daemon = daemon
        self.started = mill.open / "started"
        self.started.touch()
        self.started.chmod(0o666)
        count = mill.folder / "worker/millrace_worker/jobs/count/run"
        mill.job("work", f"echo $MILLRACE_RUN >> {self.started}\nsleep {seconds}\nexec /usr/bin/python3 -s {count}")
        server.route("/feed", FreshAnswers(SOURCE, seed))
        self.url = server.url("/feed")

    def configure(self, machine=None, job=None, **top):
        sources = {SOURCE: {"url": self.url}}
        said = self.mill.job_settings(self.daemon.lake, [SOURCE], **({"run": "work", "timeout": "1m"} | (job or {})))
        self.daemon.configure(
            sources,
            machines={self.mill.name: self.mill.machine_settings(**(machine or {}))},
            jobs={JOB: said},
            **top,
        )

    def bring(self):
        """Something new in the store."""
        assert self.daemon.poll(SOURCE)["outcome"] == "committed"
        self.daemon.flush()

    # ---- as the daemon says

    def machine(self):
        return self.daemon.ask("GET", "/v1/machines")["machines"][0]

    def job(self):
        return next(j for j in self.daemon.ask("GET", "/v1/machines")["jobs"] if j["name"] == JOB)

    def runs(self):
        """The oldest first."""
        return self.daemon.ask("GET", "/v1/runs")["runs"][::-1]

    def run(self, run):
        return self.daemon.ask("GET", f"/v1/runs/{run}")

    def wait_run(self, state, patience=PATIENCE):
        def found():
            runs = self.runs()
            return runs and runs[-1]["state"] == state and runs[-1]

        return wait_until(f"the newest run to be {state}", found, patience)

    def is_settled(self):
        """Nothing waits, nothing runs, and the machine sleeps."""
        job = self.job()
        at_rest = job["run"] is None and job["batches"] == 0
        return at_rest and self.machine()["state"] == "asleep" and self.mill.state() == "asleep"

    def settle(self, patience=PATIENCE):
        try:
            wait_until("all to be done and the machine to sleep", self.is_settled, patience)
        except TimedOut as error:
            raise TimedOut(f"{error}: {self.machine()}, {self.job()}, {self.runs()[:2]}") from None

    # ---- as the world saw it

    def objects(self):
        """Of the job's source; the hours' `_polls` are not for it."""
        return {str(p.relative_to(self.daemon.lake)) for p in self.daemon.lake.glob(f"source={SOURCE}/**/*.ndjson.gz")}

    def manifest(self, run):
        return json.loads((self.daemon.lake / "_runs" / JOB / run / "manifest.json").read_bytes())

    def attempts(self, run):
        """The states that the machine's attempts of a run have come to, by their ids there."""
        folders = [f for f in self.mill.run_path("x").parent.glob(f"{run}*") if (f / "ended.json").exists()]
        return {f.name: json.loads((f / "ended.json").read_bytes())["state"] for f in folders}

    def failed(self):
        """How many attempts came to another end than done."""
        states = [state for run in self.runs() for state in self.attempts(run["id"]).values()]
        return len(states) - states.count("done")

    def wakes(self):
        """How often it began to be awake."""
        return [s["state"] for s in self.mill.states()].count("awake")

    def check(self):
        """Each object is in one run, each run was done once, and nothing else was started. Needs a settled world."""
        listed, told = [], []
        for run in self.runs():
            assert run["state"] == "done", run
            listed += [o["key"] for o in self.manifest(run["id"])["objects"]]
            states = self.attempts(run["id"])
            assert list(states.values()).count("done") == 1, (run["id"], states)
            told += states
        assert sorted(listed) == sorted(self.objects()), "each delivered object is in one run"
        begun = self.started.read_text().split()
        assert sorted(begun) == sorted(set(begun)), "no attempt was started twice"
        assert set(begun) <= set(told), "nothing ran that is no run's attempt"


def chance_of(seed):
    print(f"MILLRACE_SEED={seed}")
    return random.Random(seed)
