# SPDX-License-Identifier: Apache-2.0
"""What the daemon takes of the machine's memory: idle, at work, and while a large body comes in."""

import gzip
import subprocess
import time

import object_store
from bench import bodies
from bench.report import NotMeasured, at_most
from bench.rig import Rig, Watch, memory_kb
from bench.web import Feeds
from daemon import wait_until
from feed import parking

MB = 1024  # KB
RECORDS = 100_000
WORK_SECONDS = 15
ROUNDS = 3


def libraries(bench):
    """A process with the daemon's libraries and nothing else."""
    process = subprocess.Popen([str(bench.programs / "libs")])
    try:
        time.sleep(0.3)
        return memory_kb(process.pid)
    finally:
        process.kill()
        process.wait()


def tell(bench, what, kb, floor, bound):
    for key, name in (
        ("private_dirty", "private dirty"),
        ("private_dirty_alone", "private dirty, none shared"),
        ("pss", "PSS"),
        ("pss_alone", "PSS, none shared"),
    ):
        limit = at_most(bound * MB) if key.startswith("private_dirty") else None
        bench.report.row("memory", f"{what}: {name}", kb[key], "KB", ("libraries alone", floor[key]), limit)


def idle(bench, folder, feeds, store, floor):
    """One source, after a poll, an audit and a tail."""
    rig = Rig(bench, folder)
    rig.configure({"feed": bench.source(feeds.url("small"))}, stores=store)
    try:
        rig.start()
        rig.first_poll("feed")
        rig.flush()
        for command in (("audit",), ("tail", "feed")):
            done = rig.cli(*command)
            if done.returncode != 0:
                raise NotMeasured(f"{command[0]}: {done.stdout} {done.stderr}")
        time.sleep(2)
        tell(bench, "idle", memory_kb(rig.pid), floor, 3)
    finally:
        rig.end()


def at_work(bench, folder, feeds, store, floor, name, what):
    """A poll a second, each answer new, and an object to the store every two seconds."""
    rig = Rig(bench, folder)
    rig.configure({"feed": bench.source(feeds.url(name), every="1s")}, stores=store, batch={"max_age": "2s"})
    try:
        rig.start()
        wait_until("an object", lambda: rig.store()["delivered_batches"] > 0)
        with Watch(rig.pid, 0.005) as watch:
            time.sleep(WORK_SECONDS)
        seen = rig.source("feed")
        if seen["failed"] or seen["refused"] or seen["unchanged"] or rig.store()["delivered_batches"] < 3:
            raise NotMeasured(f"the daemon was not at work: {seen}")
        row = ("libraries alone", floor["private_dirty"])
        bench.report.row("memory", f"{what}: private dirty, median", watch.median, "KB", row)
        bench.report.row("memory", f"{what}: private dirty, peak", watch.peak, "KB", row, at_most(5 * MB))
        tell(bench, what, memory_kb(rig.pid), floor, 5)
    finally:
        rig.end()


def make_certificate(folder):
    names = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=feed", "-addext", "subjectAltName=IP:127.0.0.1", "-out", names[0], "-keyout", names[1]]
    subprocess.run(command, check=True, capture_output=True)
    return names


def add_body(bench, folder, url, env):
    """How much more private dirty memory there is, at most, while the body comes in: in a new daemon each time, whose
    first poll got a small one."""
    rig = Rig(bench, folder, env)
    rig.configure({"feed": bench.source(url)})
    try:
        rig.start()
        wait_until("the small body", lambda: rig.source("feed")["records"] > 0 or rig.source("feed")["last_error"])
        if rig.source("feed")["last_error"]:
            raise NotMeasured(rig.source("feed")["last_error"])
        before = memory_kb(rig.pid)["private_dirty"]
        with Watch(rig.pid) as watch:
            begun = time.monotonic()
            report = rig.commit("feed")
            seconds = time.monotonic() - begun
        if report["records"] != RECORDS:
            raise NotMeasured(f"{report['records']} records instead of {RECORDS}")
        return {"kb": watch.peak - before, "left": memory_kb(rig.pid)["private_dirty"] - before, "seconds": seconds}
    finally:
        rig.end()


def large_bodies(bench, folder):
    made = bodies.records(bodies.wide, 7, count=RECORDS)
    answers = [parking_body(bench, 0), bodies.body(made, bench.ndjson)]
    (folder / "tree").write_bytes(bodies.body(made, True))
    tree = bench.program("split", "tree", "lines", folder / "tree")["kb"]
    certificate = make_certificate(folder)
    plain, secure = Feeds(folder / "web"), Feeds(folder / "secure", certificate)
    try:
        plain.put("large", answers)
        plain.put("large.gz", [gzip.compress(answer, 6, mtime=0) for answer in answers])
        secure.put("large", answers)
        env = {"SSL_CERT_FILE": str(certificate[0])}
        ways = (("plain", plain.url("large")), ("gzip", plain.url("large.gz")), ("HTTPS", secure.url("large")))
        for what, url in ways:
            try:
                tell_body(bench, folder, what, url, env, ("jansson's tree of it", tree))
            except (NotMeasured, AssertionError) as error:
                bench.report.leave_out(f"memory, body of 50 MB, {what}", str(error))
    finally:
        plain.close()
        secure.close()


def tell_body(bench, folder, what, url, env, peer):
    got = [add_body(bench, bench.place(folder / f"{what}-{i}"), url, env) for i in range(ROUNDS)]
    middle = sorted(got, key=lambda g: g["kb"])[ROUNDS // 2]
    bench.report.row("memory", f"a body of 50 MB, {what}: added", middle["kb"], "KB", peer, at_most(2 * MB), **middle)


def parking_body(bench, version):
    parts = parking(version).replace(b"},{", b"}\n{").strip(b"[]").split(b"\n")
    return bodies.body(parts, bench.ndjson)


def run(bench):
    folder = bench.place("memory")
    floor = libraries(bench)
    minio = object_store.Minio(folder / "minio")
    feeds = Feeds(folder / "web-work")
    try:
        bucket = object_store.Bucket(minio.start(), "lake")
        feeds.put("small", [parking_body(bench, i) for i in range(200)])
        feeds.put("full", [bodies.body(bodies.records(bodies.city, i, 200_000), bench.ndjson) for i in range(40)])
        for name in ("idle", "small", "full"):
            bench.place(folder / name)
        settings = {name: {"lake": bucket.settings(prefix=name)} for name in ("idle", "small", "full")}
        idle(bench, folder / "idle", feeds, settings["idle"], floor)
        at_work(bench, folder / "small", feeds, settings["small"], floor, "small", "at work, 1.2 KB a poll")
        at_work(bench, folder / "full", feeds, settings["full"], floor, "full", "at work, 200 KB a poll")
    finally:
        feeds.close()
        minio.end()
    large_bodies(bench, bench.place("memory-large"))
