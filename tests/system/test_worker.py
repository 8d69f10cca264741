# SPDX-License-Identifier: Apache-2.0
"""The worker on the machine that Millrace wakes, over a real sshd: its verbs, what it survives, when it lets sleep."""

import fcntl
import gzip
import hashlib
import json
import os
import platform
import shutil
import signal
import socket
import struct
import subprocess
import sysconfig
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from daemon import wait_until
from object_store import REGION
from worker_rig import ETC, HOME, SSHD, make_machine, new_run

USAGE, BAD_DATA, NO_JOB, NOT_NOW, NOT_SET_UP = 64, 65, 69, 75, 78

if not os.path.exists(SSHD):
    pytest.skip("NO SSHD: install openssh-server", allow_module_level=True)


@pytest.fixture(scope="module")
def machine():
    machine = make_machine()
    try:
        machine.start()
        machine.job("waits", "echo here; exec sleep 1000")
        machine.job("counts-itself", f"echo x >>{machine.open}/ran-$MILLRACE_RUN; sleep 0.3")
        # one that ignores SIGTERM, and one that has left its group and its environment
        stubborn = "trap '' TERM; sleep 1000 & sleep 1000"
        machine.job("stubborn", f"setsid sh -c '{stubborn}' & trap '' TERM; echo here; while :; do sleep 1; done")
        yield machine
    finally:
        machine.close()


@pytest.fixture
def whole(machine):
    if not machine.whole:
        pytest.skip("needs root, sudo, and the right to make namespaces")
    return machine


@pytest.fixture
def waiting(machine):
    """A run whose job waits to be ended."""
    run = new_run()
    machine.begin(run, "waits")
    wait_until("the job", lambda: machine.log_of(run) == b"here\n")
    yield run
    machine.ask("cancel", run)


def lines(first, last, source="parking", data=b'{"free":1e999}'):
    """An object's, as the Pi makes them."""
    text = b""
    for seq in range(first, last + 1):
        head = {"source": source, "device": "pi-test", "boot": "9f8e7d6c", "seq": seq, "fetch": seq, "fetched_at": "…"}
        text += json.dumps(head, separators=(",", ":")).encode()[:-1] + b',"clock":"synced","data":' + data + b"}\n"
    return gzip.compress(text, mtime=0)


def said(first, last, source="parking"):
    return {"source": source, "first_seq": first, "last_seq": last, "records": last - first + 1}


def two_objects(machine, run):
    return [
        machine.deliver(f"{run}/source=parking/a.gz", lines(1, 100), **said(1, 100)),
        machine.deliver(f"{run}/source=parking/b.gz", lines(101, 150), **said(101, 150)),
        machine.deliver(f"{run}/source=_polls/c.gz", lines(7, 7, "_polls"), **said(7, 7, "_polls")),
    ]


def refused(said, status, *words):
    """The one line that says why."""
    assert said.returncode == status, said
    assert said.stdout == b""
    text = said.stderr.decode()
    assert text.startswith("millrace-worker: ") and text.count("\n") == 1, text
    for word in words:
        assert word in text
    return text


# ---- the verbs -------------------------------------------------------------------------------------------------------


def test_health(machine, waiting):
    health = machine.ask("health")
    assert health.pop("uptime") > 0
    assert 0 < len(health.pop("awake")) < 64
    sessions = health.pop("sessions")
    assert sessions == 0 or not machine.whole
    jobs = ["count", "counts-itself", "stubborn", "waits"]
    assert set(jobs) <= set(health.pop("jobs"))
    assert health == {"protocol": 1, "worker": "0.1.0", "running": [waiting], "sleep_error": None}


def awake(machine, *before):
    """What health says of it, asked at the machine."""
    program = "/usr/local/lib/millrace-worker/millrace_worker"
    said = machine.run(*before, "sudo", "-n", "-u", machine.user, "--", "/usr/bin/python3", "-I", program, "health")
    assert said.returncode == 0, said.stderr
    return json.loads(said.stdout)["awake"]


def test_health_tells_whether_it_has_slept_since(whole):
    before = whole.ask("health")["awake"]
    assert awake(whole) == before
    other = ("unshare", "--time", "--fork", "--boottime")
    if whole.run(*other, "1", "true").returncode != 0:
        pytest.skip("NO TIME NAMESPACES: the kernel is older than 5.6")
    slept = [awake(whole, *other, seconds) for seconds in ("1", "2", "86400")]
    assert awake(whole, *other, "1") == slept[0]
    boot = whole.path("/run/boot")
    boot.write_text("00000000-0000-0000-0000-000000000000\n")
    bind = 'mount --bind /run/boot /proc/sys/kernel/random/boot_id && exec "$0" "$@"'
    started = awake(whole, "unshare", "--mount", "sh", "-c", bind)
    assert len({before, started, *slept}) == 5
    assert whole.ask("health")["awake"] == before


def test_a_run_from_start_to_end(machine):
    run = new_run()
    unknown = machine.ask("status", run)
    assert unknown == {
        "run": run,
        "job": None,
        "state": "unknown",
        "exit": None,
        "why": None,
        "started_at": None,
        "ended_at": None,
        "log_bytes": 0,
    }
    assert machine.log_of(run) == b""
    objects = two_objects(machine, run)
    begun = machine.begin(run, "count", machine.manifest(run, objects))
    assert begun["state"] in ("running", "done") and begun["job"] == "count"
    ended = machine.end_of(run)
    assert (ended["state"], ended["exit"], ended["why"]) == ("done", 0, None)
    assert ended["started_at"] <= ended["ended_at"]
    log = machine.log_of(run)
    assert len(log) == ended["log_bytes"]
    assert machine.log_of(run, 10) == log[10:]
    assert machine.log_of(run, 10**17) == b""
    assert json.loads(log) == {
        "objects": 3,
        "records": 151,
        "bytes": sum(what["bytes"] for what in objects),
        "sources": {"parking": {"objects": 2, "records": 150}, "_polls": {"objects": 1, "records": 1}},
    }
    assert not machine.run_path(run, "work").exists()


def test_what_a_job_gets(machine):
    script = 'env; echo "in $(pwd)"; echo "files $(ls)"; echo "arguments $*"; echo "input $(cat)"; '
    machine.job("tells", script + 'echo "open $(ls /proc/self/fd | tr "\\n" " ")"; umask; cat "$MILLRACE_MANIFEST"')
    run = new_run()
    manifest = machine.manifest(run)
    machine.say("start", run, "tells", data=manifest, options=["-oSetEnv=LC_ALL=C PYTHONPATH=/evil"], alone=True)
    machine.end_of(run)
    log = machine.log_of(run)
    assert log.endswith(manifest)
    told = log.decode().splitlines()
    env = dict(line.split("=", 1) for line in told[: told.index(next(line for line in told if " " in line))])
    env.pop("PWD", None)
    assert set(env) == {
        "MILLRACE_RUN",
        "MILLRACE_MANIFEST",
        "MILLRACE_JOB",
        "MILLRACE_ETC",
        "PYTHONPATH",
        "PATH",
        "HOME",
        "TMPDIR",
        "LANG",
    }
    assert env["MILLRACE_RUN"] == run
    assert f"in {env['TMPDIR']}" in told and "files " in told and "arguments " in told and "input " in told
    assert "open 0 1 2 3 " in told  # 3 is ls's own


@pytest.mark.parametrize(
    ("script", "status", "why"),
    [
        ("exit 7", 7, None),
        ("exit 255", 255, None),
        ("kill -9 $$", 137, "ended by signal 9"),
    ],
)
def test_exit_status_is_kept(machine, script, status, why):
    name = f"ends-{status}"
    machine.job(name, script)
    run = new_run()
    machine.begin(run, name)
    ended = machine.end_of(run)
    assert (ended["state"], ended["exit"], ended["why"]) == ("failed", status, why)


def test_a_job_that_is_no_program_fails(machine):
    machine.job("no-program", "")
    (machine.path(f"{ETC}/jobs/no-program/run")).write_text("neither #! nor ELF")
    run = new_run()
    machine.begin(run, "no-program")
    ended = machine.end_of(run)
    assert (ended["state"], ended["exit"]) == ("failed", 126)
    assert "Exec format error" in ended["why"]


def test_what_a_job_leaves_behind_ends_with_it(machine):
    machine.job("leaves", f"setsid sh -c 'echo $$ >{machine.open}/left; exec sleep 1000' & sleep 0.2; echo well")
    run = new_run()
    machine.begin(run, "leaves")
    assert machine.end_of(run)["state"] == "done"
    assert machine.log_of(run) == b"well\n"
    assert (machine.open / "left").read_text().strip().isdigit()
    assert machine.pids(run) == set()


def test_the_log_has_a_bound_and_keeps_both_ends(machine):
    machine.job("noisy", "seq -f '%015.0f' 1 4800000")
    run = new_run()
    machine.begin(run, "noisy")
    size = machine.end_of(run)["log_bytes"]
    assert 64 << 20 <= size < (64 << 20) + 100
    left_out = 4800000 * 16 - (64 << 20)
    assert f"\nmillrace-worker: {left_out} bytes are left out here\n".encode() in machine.log_of(run, (60 << 20) - 16)
    assert machine.log_of(run, size - 16) == b"%015d\n" % 4800000
    assert machine.log_of(run) == b"".join(b"%015d\n" % n for n in range(1, 16385))


def test_cancel(machine, waiting):
    pids = machine.pids(waiting)
    assert pids
    cancelled = machine.ask("cancel", waiting)
    assert (cancelled["state"], cancelled["exit"], cancelled["why"]) == ("cancelled", None, None)
    assert machine.pids(waiting) == set()
    assert machine.ask("cancel", waiting) == cancelled
    assert machine.ask("status", waiting) == cancelled
    assert machine.begin(waiting, "waits") == cancelled


def test_cancel_of_what_does_not_want_to_end(machine):
    run = new_run()
    machine.begin(run, "stubborn")
    wait_until("the job", lambda: machine.log_of(run) == b"here\n")
    wait_until("its processes", lambda: len(machine.pids(run)) >= 4)
    assert machine.ask("cancel", run)["state"] == "cancelled"
    assert machine.pids(run) == set()


def test_cancel_past_a_supervisor_that_hangs(machine, waiting):
    machine.kill(machine.read(waiting, "started")["pid"], signal.SIGSTOP)
    assert machine.ask("cancel", waiting)["state"] == "cancelled"
    assert machine.pids(waiting) == set()


def test_an_unknown_run_that_is_cancelled_never_starts(machine):
    run = new_run()
    cancelled = machine.ask("cancel", run)
    assert (cancelled["state"], cancelled["job"], cancelled["started_at"]) == ("cancelled", None, None)
    assert machine.begin(run, "counts-itself") == cancelled
    assert machine.ask("status", run) == machine.ask("cancel", run) == cancelled
    assert not (machine.open / f"ran-{run}").exists()


def test_cancel_of_a_run_whose_start_still_waits(machine):
    run = new_run()
    with ThreadPoolExecutor(2) as pool:
        with open(machine.path(f"{HOME}/state/lock"), "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            start = pool.submit(machine.begin, run, "waits")
            wait_until("the start", lambda: commands(machine, "forced"))
            before = len(commands(machine, "forced"))
            cancel = pool.submit(machine.ask, "cancel", run)
            wait_until("the cancel", lambda: cancel.done() or len(commands(machine, "forced")) > before)
        assert cancel.result()["state"] == "cancelled"
        assert start.result()["state"] in ("cancelled", "running")  # whoever came first
    assert machine.ask("status", run)["state"] == "cancelled"
    if machine.run_path(run, "started.json").exists():
        assert machine.pids(run) == set()


def test_a_supervisor_that_comes_up_after_a_cancel_starts_nothing(machine):
    """What a start leaves that says 75."""
    run = new_run()
    manifest = machine.manifest(run)
    leave(machine, run, {"manifest.json": manifest, "run.json": json.dumps(accepted(manifest)).encode()})
    assert machine.ask("cancel", run)["state"] == "cancelled"
    late = at_machine(machine, f"supervise.supervise(settings.load(etc), {run!r})")
    assert late.returncode == 0, late.stderr
    assert machine.begin(run, "counts-itself", manifest)["state"] == "cancelled"
    assert not (machine.open / f"ran-{run}").exists()


# ---- once only -------------------------------------------------------------------------------------------------------


def test_started_at_once_from_several_connections(machine):
    run = new_run()
    manifest = machine.manifest(run)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(machine.ask, "start", run, "counts-itself", data=manifest, alone=True) for _ in range(4)]
        begun = [answer.result() for answer in asked]
    assert {answer["state"] for answer in begun} <= {"running", "done"}
    assert len({answer["started_at"] for answer in begun}) == 1
    ended = machine.end_of(run)
    assert ended["state"] == "done"
    assert machine.begin(run, "counts-itself", manifest) == ended
    assert (machine.open / f"ran-{run}").read_text() == "x\n"


def test_a_run_has_one_manifest_and_one_job(machine):
    run = new_run()
    manifest = machine.manifest(run)
    machine.begin(run, "count", manifest)
    before = machine.end_of(run)
    refused(machine.say("start", run, "count", data=manifest + b"\n"), BAD_DATA, "another manifest")
    refused(machine.say("start", run, "waits", data=manifest), BAD_DATA, "job count")
    assert machine.ask("status", run) == before


def test_a_later_try_has_the_same_manifest(machine):
    run = new_run()
    manifest = machine.manifest(run)
    machine.begin(f"{run}-2", "count", manifest)
    assert machine.end_of(f"{run}-2")["state"] == "done"
    assert machine.ask("status", run)["state"] == "unknown"


BROKEN = {
    "empty": (b"", "no JSON"),
    "cut short": (b'{"version":1', "no JSON"),
    "deep": (b"[" * 100000, "no JSON"),
    "a list": (b"[]", "version"),
    "no version": (b"{}", "version"),
    "not UTF-8": (b'{"version":1,"run":"\xff"}', "no JSON"),
    "too large": (b" " * ((16 << 20) + 1), "16 MB"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_manifest_that_is_none(machine, kind):
    data, word = BROKEN[kind]
    run = new_run()
    refused(machine.say("start", run, "count", data=data), BAD_DATA, word)
    assert not machine.run_path(run).exists()


def wrong_manifests():
    good = {"key": "a/b.gz", "bytes": 1, "sha256": "0" * 64} | said(1, 1)
    for name, what in {
        "a newer version": ({"version": 2}, "its version is 2"),
        "another run's": ({"run": "another-run"}, "another-run"),
        "no store": ({"store": None}, "store"),
        "a strange store": ({"store": {"kind": "ftp"}}, "file"),
        "a store beside": ({"store": {"kind": "file", "path": "lake"}}, "path"),
        "half a bucket": ({"store": {"kind": "s3", "bucket": "lake"}}, "endpoint"),
        "no objects": ({"objects": {}}, "objects"),
    }.items():
        yield pytest.param(*what, id=name)
    for entry in (
        {"key": "../secret"},
        {"key": "/etc/passwd"},
        {"key": "a//b"},
        {"key": "a/./b"},
        {"key": "a\nb"},
        {"key": ""},
        {"bytes": -1},
        {"bytes": True},
        {"bytes": (64 << 20) + 1},
        {"sha256": "0" * 63 + "g"},
        {"sha256": ["0"]},
        {"records": "1"},
        {"first_seq": 2},
        {"last_seq": 1 << 63},
        {"source": None},
    ):
        yield pytest.param({"objects": [good, good | entry]}, "object 2", id=f"an object with {entry}")


@pytest.mark.parametrize(("other", "word"), list(wrong_manifests()))
def test_a_manifest_that_says_what_cannot_be(machine, other, word):
    run = new_run()
    refused(machine.say("start", run, "count", data=machine.manifest(run, **other)), BAD_DATA, word)
    assert not machine.run_path(run).exists()


# ---- jobs ------------------------------------------------------------------------------------------------------------


def test_there_is_no_such_job(machine):
    run = new_run()
    refused(machine.say("start", run, "nosuch", data=machine.manifest(run)), NO_JOB, "nosuch")
    assert not machine.run_path(run).exists()


def spoil_mode(machine, folder):
    (folder / "run").chmod(0o777)


def spoil_folder(machine, folder):
    folder.chmod(0o775)


def spoil_beside(machine, folder):
    (folder / "deeper").mkdir()
    (folder / "deeper" / "helper.py").touch()
    (folder / "deeper" / "helper.py").chmod(0o666)


def spoil_link(machine, folder):
    (folder / "run").rename(folder / "other")
    (folder / "run").symlink_to("other")


def spoil_entry(machine, folder):
    (folder / "run").chmod(0o644)


def spoil_owner(machine, folder):
    if not machine.whole:
        pytest.skip("needs root")
    machine.run("chown", "millrace", f"{ETC}/jobs/{folder.name}/run")


@pytest.mark.parametrize("spoil", [spoil_mode, spoil_folder, spoil_beside, spoil_link, spoil_entry, spoil_owner])
def test_a_job_that_others_may_change_is_none(machine, spoil):
    name = spoil.__name__.replace("_", "-")
    machine.job(name, f"touch {machine.open}/{name}")
    assert name in machine.ask("health")["jobs"]
    spoil(machine, machine.path(f"{ETC}/jobs/{name}"))
    assert name not in machine.ask("health")["jobs"]
    run = new_run()
    refused(machine.say("start", run, name, data=machine.manifest(run)), NOT_SET_UP, f"jobs/{name}")
    assert not (machine.open / name).exists()


# ---- the job that counts ---------------------------------------------------------------------------------------------


def lose(machine, objects):
    (machine.store / objects[1]["key"]).unlink()
    return "it is gone"


def flip(machine, objects):
    path = machine.store / objects[1]["key"]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return "SHA-256"


def cut(machine, objects):
    path = machine.store / objects[1]["key"]
    path.write_bytes(path.read_bytes()[:-1])
    return "it was changed"


def lengthen(machine, objects):
    path = machine.store / objects[1]["key"]
    path.write_bytes(path.read_bytes() + b"x")
    return "it was changed"


def other_object(*args, **names):
    def change(machine, objects):
        objects[1] = machine.deliver(objects[1]["key"], lines(*args, **names), **said(101, 150))
        return "records" if args == (101, 149) else "line 1" if names else "seq"

    return change


def no_gzip(machine, objects):
    objects[1] = machine.deliver(objects[1]["key"], b"plain", **said(101, 150))
    return "unpacked"


def too_few_said(machine, objects):
    objects[1]["records"] = 49
    return "50 records"


FAULTS = {
    "gone": lose,
    "changed": flip,
    "cut short": cut,
    "longer": lengthen,
    "a record less": other_object(101, 149),
    "other records": other_object(102, 151),
    "twice the same": other_object(1, 50),
    "another source's": other_object(101, 150, source="other"),
    "no gzip": no_gzip,
    "another count": too_few_said,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_count_names_the_object_that_is_not_as_said(machine, fault):
    run = new_run()
    objects = two_objects(machine, run)
    word = FAULTS[fault](machine, objects)
    machine.begin(run, "count", machine.manifest(run, objects))
    ended = machine.end_of(run)
    assert (ended["state"], ended["exit"]) == ("failed", 1)
    log = machine.log_of(run).decode()
    assert log.startswith(f"count: {objects[1]['key']}: ") and word in log, log


def test_count_wants_the_disk_that_the_store_is_on(machine):
    run = new_run()
    manifest = machine.manifest(run, store={"kind": "file", "path": str(machine.open)})
    machine.begin(run, "count", manifest)
    assert machine.end_of(run)["state"] == "failed"
    assert b"is its disk mounted?" in machine.log_of(run)


def test_count_takes_what_sources_say(machine):
    run = new_run()
    nasty = [b'"a\\",\\"data\\":1"', b"[" * 5000 + b"]" * 5000, b'"\\ud800"', b"1" * 400, b'{"data":1,"data":2}']
    packed = b"".join(lines(n, n, data=data) for n, data in enumerate(nasty, 1))  # members one after another
    objects = [machine.deliver(f"{run}/nasty.gz", packed, **said(1, len(nasty)))]
    machine.begin(run, "count", machine.manifest(run, objects))
    ended = machine.end_of(run)
    assert ended["state"] == "done", machine.log_of(run)
    assert json.loads(machine.log_of(run))["records"] == len(nasty)


def test_count_fetches_by_name_and_lists_nothing(machine):
    if not machine.whole and os.geteuid() == 0:
        pytest.skip("root may list everything")
    run = new_run()
    objects = two_objects(machine, run)
    folders = [machine.store, *(path for path in machine.store.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o311)
    try:
        machine.begin(run, "count", machine.manifest(run, objects))
        ended = machine.end_of(run)
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert ended["state"] == "done", machine.log_of(run)


def test_count_reads_a_bucket(machine, minio, bucket):
    """As a user who may get objects by their names, and nothing else."""
    statement = {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": [f"arn:aws:s3:::{bucket.name}/*"]}
    minio.make_user(f"worker-{bucket.name}", "worker-secret", {"Version": "2012-10-17", "Statement": [statement]})
    credentials = {"access_key": f"worker-{bucket.name}", "secret_key": "worker-secret", "endpoint": minio.url}
    (machine.folder / "s3.json").write_text(json.dumps(credentials))
    done = machine.setup("--s3", machine.folder / "s3.json")
    assert done.returncode == 0, done.stderr
    assert machine.path(f"{ETC}/s3.json").stat().st_mode & 0o777 == 0o600
    packages = "/opt/packages" if machine.whole else sysconfig.get_path("purelib")
    command = f"PYTHONPATH=$lib:{packages} exec python3 $lib/millrace_worker/jobs/count/run"
    machine.job("count-there", f"lib=$PYTHONPATH; {command}")
    store = {"kind": "s3", "endpoint": "http://nowhere.invalid", "region": REGION, "bucket": bucket.name, "path": None}
    run = new_run()
    objects = two_objects(machine, run)
    for what in objects:
        bucket.put(what["key"], (machine.store / what["key"]).read_bytes())
    machine.begin(run, "count-there", machine.manifest(run, objects, store=store))
    assert machine.end_of(run)["state"] == "done", machine.log_of(run)
    assert json.loads(machine.log_of(run))["records"] == 151
    bucket.delete(objects[1]["key"])
    again = new_run()
    machine.begin(again, "count-there", machine.manifest(again, objects, store=store))
    assert machine.end_of(again)["state"] == "failed"
    assert machine.log_of(again).startswith(f"count: {objects[1]['key']}: ".encode())


# ---- what it survives ------------------------------------------------------------------------------------------------


def at_machine(machine, script, **options):
    """The worker's own modules, as its user."""
    lib = "/usr/local/lib/millrace-worker"
    there, etc = (lib, ETC) if machine.whole else (machine.path(lib), machine.path(ETC))
    names = "durable, forced, launch, runs, settings, supervise"
    head = f"import os, sys\nsys.path.insert(0, {str(there)!r})\nfrom millrace_worker import {names}\n"
    text = f"{head}etc = {str(etc)!r}\n{textwrap.dedent(script)}\n"
    return machine.run("/usr/bin/python3", "-Ic", text, user=machine.user, **options)


def leave(machine, run, files):
    """A run's folder, as the worker would have written it."""
    script = f"folder = os.path.join(settings.load(etc).runs, {run!r})\nos.makedirs(folder, exist_ok=True)\n"
    script += f"for name, data in {files!r}.items():\n"
    script += "    with open(os.path.join(folder, name), 'wb') as file:\n        file.write(data)"
    done = at_machine(machine, script)
    assert done.returncode == 0, done.stderr


def test_a_client_that_vanishes_before_its_manifest_is_whole_starts_nothing(machine):
    run = new_run()
    client = subprocess.Popen(machine.ssh("start", run, "counts-itself", alone=True), stdin=subprocess.PIPE)
    client.stdin.write(machine.manifest(run)[:-1])
    client.stdin.flush()
    wait_until("the verb to come up", lambda: commands(machine, "forced"))
    client.kill()
    client.wait()
    wait_until("the verb to end", lambda: not commands(machine, "forced"))
    assert machine.ask("status", run)["state"] == "unknown"
    assert not (machine.open / f"ran-{run}").exists()


def commands(machine, word):
    """pids of processes of the machine's with this word in their command line."""
    found = machine.run("pgrep", "-f", f"millrace_worker .*{word}" if word == "forced" else word).stdout.split()
    return [int(pid) for pid in found]


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.1])
def test_a_connection_that_dies_anywhere_in_a_start(machine, delay):
    """The client, and the machine's sshd for this session; then it is asked again."""
    run = new_run()
    manifest = machine.manifest(run)
    client = subprocess.Popen(
        machine.ssh("start", run, "counts-itself", alone=True), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    wait_until("the verb to come up", lambda: commands(machine, "forced"))
    client.stdin.write(manifest)
    client.stdin.close()
    time.sleep(delay)
    client.kill()
    for pid in commands(machine, f"^sshd: {machine.user}")[2:]:
        machine.kill(pid)
    client.wait()
    machine.connect()
    machine.begin(run, "counts-itself", manifest)
    assert machine.end_of(run)["state"] == "done"
    assert (machine.open / f"ran-{run}").read_text() == "x\n"


def test_a_run_goes_on_without_sshd(machine):
    machine.job("until-told", f"while ! test -e {machine.open}/told; do sleep 0.02; done; echo told")
    run = new_run()
    machine.begin(run, "until-told")
    machine.stop_sshd()
    for pid in commands(machine, "^sshd: "):
        machine.kill(pid)
    wait_until("no sshd", lambda: not commands(machine, "^sshd: "))
    (machine.open / "told").touch()
    wait_until("its end", lambda: machine.run_path(run, "ended.json").exists())
    machine.start_sshd()
    assert machine.end_of(run)["state"] == "done"
    assert machine.log_of(run) == b"told\n"


def test_a_run_whose_supervisor_was_killed_is_lost(machine):
    run = new_run()
    machine.begin(run, "stubborn")
    wait_until("its processes", lambda: len(machine.pids(run)) >= 4)
    machine.kill(machine.read(run, "started")["pid"])
    lost = wait_until("its loss", lambda: (s := machine.ask("status", run))["state"] != "running" and s)
    assert (lost["state"], lost["exit"], lost["why"]) == ("lost", None, "its supervisor was killed")
    assert machine.pids(run) == set()
    assert machine.begin(run, "stubborn") == lost
    assert machine.ask("cancel", run) == lost


def test_a_run_that_the_machine_was_restarted_under_is_lost(machine, waiting):
    machine.kill(machine.read(waiting, "started")["pid"])
    for pid in machine.pids(waiting):
        machine.kill(pid)
    started = machine.read(waiting, "started") | {"boot": "of-another-day"}
    machine.run_path(waiting, "started.json").write_text(json.dumps(started))
    lost = machine.ask("status", waiting)
    assert (lost["state"], lost["why"]) == ("lost", "the machine was started anew")


def test_a_machine_that_is_shut_down_says_so(machine, waiting):
    machine.kill(machine.read(waiting, "started")["pid"], signal.SIGTERM)
    lost = machine.end_of(waiting)
    assert (lost["state"], lost["exit"]) == ("lost", None)
    assert "shut down" in lost["why"]


@pytest.mark.parametrize("left", [[], ["manifest.json"], ["manifest.json", "run.json"], ["run.json.7.tmp", "work/x"]])
def test_a_power_cut_in_a_start_leaves_what_can_be_started(machine, left):
    pattern, run = new_run(), new_run()
    manifest = machine.manifest(run)
    machine.begin(pattern, "counts-itself", machine.manifest(pattern))
    machine.end_of(pattern)
    machine.run("mkdir", "-p", machine.run_path(run, "work") if not machine.whole else f"{HOME}/state/runs/{run}/work")
    for part in left:
        machine.run_path(run, part).write_bytes(manifest[: len(manifest) // 2])
    if "run.json" in left:
        machine.run_path(run, "run.json").write_text(json.dumps(accepted(manifest)))
    if machine.whole:
        machine.run("chown", "-R", "millrace:millrace", f"{HOME}/state/runs/{run}")
    assert machine.ask("status", run)["state"] == "unknown"
    machine.begin(run, "counts-itself", manifest)
    assert machine.end_of(run)["state"] == "done"
    assert (machine.open / f"ran-{run}").read_text() == "x\n"


def accepted(manifest):
    return {"job": "counts-itself", "agent": "pi", "manifest": hashlib.sha256(manifest).hexdigest()}


def test_a_full_disk_is_a_matter_of_time(whole):
    runs = f"{HOME}/state/runs"
    whole.run("mount", "-t", "tmpfs", "-o", "size=32k,mode=750,uid=millrace,gid=millrace", "full", runs)
    try:
        run = new_run()
        manifest = whole.manifest(run, note="x" * 40000)
        refused(whole.say("start", run, "count", data=manifest), NOT_NOW, "No space left", "disk")
        assert whole.ask("status", run)["state"] == "unknown"
        whole.run("mount", "-o", "remount,size=1m", runs)
        whole.begin(run, "count", manifest)
        assert whole.end_of(run)["state"] == "done"
    finally:
        whole.run("umount", runs)


def test_ended_runs_are_kept_by_the_hundred(machine):
    runs = machine.run_path("x").parent
    template = new_run()
    machine.begin(template, "count")
    machine.end_of(template)
    script = "import os, shutil, sys\nfor n in range(150):\n there = f'old-run-{n:04}'\n"
    script += " shutil.copytree(sys.argv[1], there)\n os.utime(there + '/ended.json', (n, n))\n"
    folder = f"{HOME}/state/runs" if machine.whole else runs
    done = machine.run("/usr/bin/python3", "-Ic", f"import os; os.chdir({str(folder)!r})\n{script}", template)
    assert done.returncode == 0, done.stderr
    if machine.whole:
        machine.run("chown", "-R", "millrace:millrace", folder)
    newest = new_run()
    machine.begin(newest, "count")
    machine.end_of(newest)
    left = {path.name for path in runs.iterdir()}
    assert len(left) == 101 and {newest, template, "old-run-0149"} <= left and "old-run-0000" not in left
    assert machine.ask("status", "old-run-0000")["state"] == "done"


def leave_ended(machine, count, age):
    """Runs of others that ended so many seconds ago; their names."""
    ended = {"state": "done", "exit": 0, "why": None, "ended_at": "2026-11-21T10:00:00.000Z"}
    started = {"started_at": "2026-11-21T10:00:00.000Z", "boot": "x", "pid": 1}
    mark = new_run()
    script = f"""
        import json, time
        os.chdir(settings.load(etc).runs)
        for n in range({count}):
            there = f"{mark}-{{n:05}}"
            os.mkdir(there)
            for name, value in (("started", {started!r}), ("ended", {ended!r})):
                with open(f"{{there}}/{{name}}.json", "w") as file:
                    json.dump(value, file)
            os.utime(f"{{there}}/ended.json", (time.time() - {age}, time.time() - {age}))
    """
    done = at_machine(machine, script)
    assert done.returncode == 0, done.stderr
    return [f"{mark}-{n:05}" for n in range(count)]


def test_a_run_that_ended_by_a_clock_that_was_behind_is_the_newest_all_the_same(machine):
    leave_ended(machine, 100, 86400)
    machine.begin(new_run(), "count")
    run = new_run()
    manifest = machine.manifest(run)
    machine.begin(run, "counts-itself", manifest)
    ended = machine.end_of(run)
    os.utime(machine.run_path(run, "ended.json"), (946684800, 946684800))
    for _ in range(2):
        other = new_run()
        machine.begin(other, "count")
        machine.end_of(other)
        assert machine.ask("status", run) == ended
    # by their clocks these are the oldest, and yet the last to have ended
    leave_ended(machine, 99, 2000000000)
    machine.begin(new_run(), "count")
    assert machine.begin(run, "counts-itself", manifest)["state"] == "done"
    assert (machine.open / f"ran-{run}").read_text() == "x\n"


def test_how_a_run_ended_outlives_its_folder(machine):
    run = new_run()
    manifest = machine.manifest(run)
    machine.begin(run, "counts-itself", manifest)
    ended = machine.end_of(run)
    leave_ended(machine, 101, -5)
    machine.begin(new_run(), "count")
    assert not machine.run_path(run).exists()
    assert machine.ask("status", run) == machine.ask("cancel", run) == ended
    assert machine.begin(run, "counts-itself", manifest) == ended
    refused(machine.say("start", run, "count", data=manifest), BAD_DATA, "job counts-itself")
    refused(machine.say("start", run, "counts-itself", data=manifest + b" "), BAD_DATA, "another manifest")
    assert (machine.open / f"ran-{run}").read_text() == "x\n"


def test_how_runs_ended_is_kept_by_the_ten_thousand(machine):
    fill = """
        folder = settings.load(etc).ended
        for n in range(10000):
            open(f"{folder}/filler-{n}.json", "a").close()
    """
    states = []
    first = leave_ended(machine, 1, 86400)[0]
    for _ in range(3):
        leave_ended(machine, 101, -5)
        machine.begin(new_run(), "count")
        states.append(machine.ask("status", first)["state"])
        assert at_machine(machine, fill).returncode == 0
    assert states == ["done", "done", "unknown"]


@pytest.mark.parametrize("mess", ["mkdir -p x/y && touch x/y/z && chmod 555 x/y && chmod 000 x", "chmod 000 ."])
def test_what_a_job_makes_hard_to_remove_is_removed(machine, mess):
    name = "mess-" + hashlib.sha256(mess.encode()).hexdigest()[:8]
    machine.job(name, mess)
    run = new_run()
    machine.begin(run, name)
    assert machine.end_of(run)["state"] == "done"
    assert machine.log_of(run) == b""
    assert not machine.run_path(run, "work").exists()


def test_what_cannot_be_removed_is_in_nobodys_way(whole):
    run = new_run()
    there = f"{HOME}/state/runs/{run}/work/roots"
    whole.job("keeps", f"until test -e {there}; do sleep 0.02; done")
    whole.begin(run, "keeps")
    wait_until("its folder", lambda: whole.run_path(run, "work").exists())
    whole.run("sh", "-c", f"mkdir -m 755 {there} && touch {there}/file")
    ended = whole.end_of(run)
    assert ended["state"] == "done"
    log = whole.log_of(run).decode()
    assert log.startswith("millrace-worker: ") and there in log and log.count("\n") == 1
    try:
        leave_ended(whole, 101, -5)
        for _ in range(2):
            other = new_run()
            said = whole.say("start", other, "count", data=whole.manifest(other))
            assert said.returncode == 0, said.stderr
            assert f"{there}/file".encode() in said.stderr and said.stderr.count(b"\n") == 1
            assert whole.end_of(other)["state"] == "done"
        assert whole.ask("status", run) == ended | {"log_bytes": 0}
        assert run not in whole.ask("health")["running"]
    finally:
        whole.run("rm", "-r", there)
    again = new_run()
    assert whole.say("start", again, "count", data=whole.manifest(again)).stderr == b""
    assert not whole.run_path(run).exists()


@pytest.mark.parametrize(
    ("part", "state", "damage"),
    [
        ("run", "done", b""),
        ("started", "done", b""),
        ("ended", "lost", b""),
        ("started of a lost run", "lost", b""),
        ("started", "done", b"{}"),
        ("ended", "lost", b'{"state":"do'),
        ("ended", "lost", b"[]"),
        ("ended", "lost", b'{"state":3}'),
        ("started of a lost run", "lost", b"\xff\x00"),
    ],
)
def test_a_damaged_file_harms_its_own_run_alone(quiet, part, state, damage):
    run, other = new_run(), new_run()
    manifest = quiet.manifest(run)
    quiet.begin(run, "counts-itself", manifest)
    quiet.end_of(run)
    if part.endswith("lost run"):
        quiet.run_path(run, "ended.json").unlink()
    path = quiet.run_path(run, f"{part.split()[0]}.json")
    path.write_bytes(damage)
    assert run not in quiet.ask("health")["running"]
    status = quiet.ask("status", run)
    assert status["state"] == state and f"runs/{run}/{path.name} is damaged: " in status["why"]
    assert quiet.begin(other, "count")["state"] in ("running", "done")
    assert quiet.end_of(other)["state"] == "done"
    (quiet.path(f"{HOME}/leases") / "mine").touch()
    os.utime(quiet.path(f"{HOME}/leases") / "mine", (2000000000, 2000000000))
    stays_awake(quiet, "lease 'mine'")
    assert quiet.begin(run, "counts-itself", manifest) == quiet.ask("cancel", run) == status
    assert (quiet.open / f"ran-{run}").read_text() == "x\n"


def test_a_run_that_cannot_be_read_harms_no_other(quiet):
    run, other = new_run(), new_run()
    quiet.begin(run, "count")
    quiet.end_of(run)
    for part in ("run", "started", "ended"):
        quiet.run_path(run, f"{part}.json").unlink()
        quiet.run_path(run, f"{part}.json").mkdir()
    assert quiet.ask("status", run)["state"] == "lost"
    quiet.begin(other, "count")
    assert quiet.end_of(other)["state"] == "done"
    falls_asleep(quiet)


def test_a_damaged_run_can_be_cancelled(machine, waiting):
    machine.run_path(waiting, "started.json").write_bytes(b"")
    assert waiting in machine.ask("health")["running"]
    cancelled = machine.ask("cancel", waiting)
    assert cancelled["state"] == "cancelled" and "started.json is damaged" in cancelled["why"]
    assert left(machine, waiting) == []


def left(machine, run):
    return at_machine(
        machine, f"from millrace_worker import processes; print(*processes.of_run({run!r}))"
    ).stdout.split()


def test_a_damaged_note_of_why_it_did_not_sleep_is_told(quiet):
    path = quiet.path(f"{HOME}/state/sleep_error.json")
    path.write_bytes(b"{")
    assert "sleep_error.json is damaged" in quiet.ask("health")["sleep_error"]
    falls_asleep(quiet)
    wait_until("no failure", lambda: quiet.ask("health")["sleep_error"] is None)


@pytest.mark.parametrize("fault", ["OSError(13, 'fault')", "KeyError('fault')"])
def test_a_fault_once_it_may_have_begun_is_a_matter_of_time(machine, fault):
    run = new_run()
    manifest = machine.manifest(run)
    (machine.open / "manifest").write_bytes(manifest)
    script = f"""
        real = launch.launch
        def faulty(*args):
            real(*args)
            raise {fault}
        launch.launch = faulty
        os.dup2(os.open({str(machine.open / "manifest")!r}, os.O_RDONLY), 0)
        sys.exit(forced.answer(etc, "pi", b"start {run} counts-itself"))
    """
    refused(at_machine(machine, script, text=False), NOT_NOW, run, "fault")
    assert machine.begin(run, "counts-itself", manifest)["state"] in ("running", "done")
    assert machine.end_of(run)["state"] == "done"
    assert (machine.open / f"ran-{run}").read_text() == "x\n"


def test_no_more_than_eight_at_once(machine):
    runs = [new_run() for _ in range(8)]
    try:
        for run in runs:
            machine.begin(run, "waits")
        ninth = new_run()
        refused(machine.say("start", ninth, "waits", data=machine.manifest(ninth)), NOT_NOW, "8 runs")
    finally:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda run: machine.ask("cancel", run), runs))


# ---- sleep -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def quiet(machine):
    if not machine.whole and subprocess.run(["who"], capture_output=True, check=False).stdout:
        pytest.skip("somebody is logged in here")
    machine.quiet()
    return machine


def stays_awake(machine, *words, agent="pi"):
    answer = machine.ask("sleep", agent=agent)
    assert answer["asleep"] is False
    for word in words:
        assert word in answer["because"]
    assert not machine.slept.exists()
    return answer["because"]


def falls_asleep(machine):
    machine.slept.unlink(missing_ok=True)
    assert machine.ask("sleep") == {"asleep": True}
    wait_until("sleep", machine.slept.exists)


def test_sleep(quiet):
    falls_asleep(quiet)
    if quiet.whole:
        assert quiet.slept.stat().st_uid == 0  # by sudo
    # whoever starts something meanwhile waits, and finds the machine as it is then
    run = new_run()
    quiet.begin(run, "count")
    assert quiet.end_of(run)["state"] == "done"
    assert quiet.ask("health")["sleep_error"] is None


def test_a_run_keeps_awake(quiet, waiting):
    stays_awake(quiet, f"run {waiting} is running")


def test_a_lease_keeps_awake(quiet):
    there = f"{HOME}/leases" if quiet.whole else quiet.path(f"{HOME}/leases")
    done = quiet.run("touch", "-d", "2 hours", f"{there}/backup of photos", user="nobody" if quiet.whole else None)
    assert done.returncode == 0, done.stderr
    stays_awake(quiet, "lease 'backup of photos' lasts until ")
    # and a name that is no text
    os.rename(f"{quiet.path(HOME)}/leases/backup of photos", os.fsencode(quiet.path(HOME)) + b"/leases/\xff\x1b\n")
    stays_awake(quiet, "lease '\\udcff\\x1b\\n' lasts until ")
    past = next(quiet.path(f"{HOME}/leases").iterdir())
    os.utime(past, (1, 1))
    falls_asleep(quiet)
    assert not past.exists()


@pytest.fixture(scope="module")
def second(machine):
    """The name of another agent."""
    machine.make_key("second")
    assert machine.setup(agent="second").returncode == 0
    return "second"


def test_another_agent_keeps_awake(quiet, second):
    run = new_run()
    quiet.ask("status", run, agent=second)
    stays_awake(quiet, "agent second asked for a run 0 minutes ago")
    quarter = time.time() - 15 * 60
    quiet.ask("status", run)
    os.utime(quiet.path(f"{HOME}/state/agents/pi"), (quarter + 30, quarter + 30))
    stays_awake(quiet, "agent pi asked for a run 14 minutes ago", agent=second)
    # who asks for sleep needs it no longer: two who do so do not keep each other awake
    falls_asleep(quiet)
    quiet.ask("status", run, agent=second)
    os.utime(quiet.path(f"{HOME}/state/agents/second"), (quarter, quarter))
    falls_asleep(quiet)


@pytest.mark.parametrize("verb", ["start", "status", "cancel"])
def test_what_concerns_a_run_keeps_awake(quiet, second, verb):
    run = new_run()
    words = (run, "count") if verb == "start" else (run,)
    quiet.ask(verb, *words, data=quiet.manifest(run), agent=second)
    if verb == "start":
        quiet.end_of(run)
    stays_awake(quiet, "agent second asked for a run 0 minutes ago")


def test_who_merely_looks_keeps_nobody_awake(quiet, second):
    quiet.ask("health", agent=second)
    assert quiet.say("log", new_run(), "0", agent=second).returncode == 0
    assert list(quiet.path(f"{HOME}/state/agents").iterdir()) == []
    falls_asleep(quiet)
    # nor does a lease of long ago begin anew
    quiet.ask("status", new_run(), agent=second)
    lease = quiet.path(f"{HOME}/state/agents/second")
    os.utime(lease, (1, 1))
    quiet.ask("health", agent=second)
    quiet.say("log", new_run(), "0", agent=second)
    assert lease.stat().st_mtime == 1
    falls_asleep(quiet)


def utmp_entry(user, line):
    """As login writes one, of a process that lives."""
    size = 400 if platform.machine() in ("aarch64", "riscv64") else 384
    return struct.pack("hxxi32s4s32s", 7, 1, line, b"ts/0", user).ljust(size, b"\0")


def test_a_login_keeps_awake(whole):
    whole.quiet()
    utmp = whole.path("/run/utmp")
    utmp.write_bytes(utmp_entry(b"alice", b"tty2"))
    try:
        stays_awake(whole, "alice is logged in on tty2")
        assert whole.ask("health")["sessions"] == 1
    finally:
        utmp.unlink()
    assert whole.ask("health")["sessions"] == 0


def test_an_inhibitor_keeps_awake(whole):
    """A real logind, on a real bus."""
    programs = ("/usr/bin/dbus-daemon", "/lib/systemd/systemd-logind", "/usr/bin/systemd-inhibit")
    if not all(os.path.exists(program) for program in programs):
        pytest.skip("NO LOGIND: install dbus and systemd")
    whole.quiet()
    whole.run("mkdir", "-p", "/run/dbus", "/run/systemd/system", "/run/systemd/seats", "/run/systemd/users")
    started = whole.run(programs[0], "--system", "--fork", "--nopidfile")
    assert started.returncode == 0, started.stderr
    daemons = [subprocess.Popen([*whole.inside(), programs[1]], stderr=subprocess.DEVNULL)]
    try:
        wait_until("logind", lambda: whole.say("health").returncode == 0)
        for what, mode, awake in (("sleep", "block", True), ("idle", "block", True), ("sleep", "delay", False)):
            words = (f"--what={what}", f"--mode={mode}", "--who=rsync", "--why=backup", "sleep", "1000")
            held = subprocess.Popen([*whole.inside(), programs[2], *words])
            wait_until("the inhibitor", lambda: "rsync" in whole.run(programs[2], "--list").stdout)
            if awake:
                stays_awake(whole, "rsync holds an inhibitor: backup")
            else:
                falls_asleep(whole)
            for pid in commands(whole, "^sleep 1000"):
                whole.kill(pid)
            held.wait()
            wait_until("its end", lambda: "rsync" not in whole.run(programs[2], "--list").stdout)
    finally:
        for pid in [*commands(whole, "systemd-logind"), *commands(whole, "dbus-daemon")]:
            whole.kill(pid)
        for daemon in daemons:
            daemon.wait()
        whole.run("rmdir", "/run/systemd/system")


def test_a_logind_that_does_not_answer_keeps_awake(whole):
    whole.quiet()
    whole.run("mkdir", "-p", "/run/systemd/system")
    try:
        refused(whole.say("sleep"), NOT_NOW, "busctl")
        assert whole.ask("health")["sessions"] is None
    finally:
        whole.run("rmdir", "/run/systemd/system")
    assert not whole.slept.exists()


def test_a_sleep_command_that_fails_is_told(quiet):
    settings = quiet.path(f"{ETC}/worker.json")
    before = settings.read_text()
    settings.write_text(json.dumps(json.loads(before) | {"sleep": ["/bin/sh", "-c", "echo no right >&2; exit 4"]}))
    try:
        assert quiet.ask("sleep") == {"asleep": True}
        error = wait_until("the failure", lambda: quiet.ask("health")["sleep_error"])
        assert error.endswith("no right")
        settings.write_text(json.dumps(json.loads(before) | {"sleep": None}))
        stays_awake(quiet, "no sleep command")
    finally:
        settings.write_text(before)
    quiet.quiet()
    falls_asleep(quiet)
    wait_until("no failure", lambda: quiet.ask("health")["sleep_error"] is None)


# ---- what the key does not open --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def canary(machine):
    """Where the user of the worker may make files; each attack would make one."""
    folder = machine.open / "canary"
    folder.mkdir()
    folder.chmod(0o1777)
    made = machine.run("touch", folder / "control", user=machine.user if machine.whole else None)
    assert made.returncode == 0
    (folder / "control").unlink()
    return folder


RUN = "run-0123456789abcdef"


def hostile(touch):
    """touch: a command that would make the canary."""
    yield "nothing", ""
    yield "a space", " "
    yield "a command", touch
    yield "a shell", f"sh -c '{touch}'"
    yield "semicolon", f"health;{touch}"
    yield "semicolon and spaces", f"health ; {touch}"
    yield "and", f"health&&{touch}"
    yield "or", f"nosuch||{touch}"
    yield "background", f"health&{touch}"
    yield "pipe", f"health|{touch}"
    yield "newline", f"health\n{touch}"
    yield "carriage return", f"health\r{touch}"
    yield "newline at the end", f"status {RUN}\n"
    yield "dollar", f"status $({touch})"
    yield "backticks", f"status `{touch}`"
    yield "dollar alone", f"$({touch})"
    yield "quotes", f"status '{RUN}' '; {touch} '"
    yield "double quotes", f'status "{RUN}";"{touch}"'
    yield "closing quotes", f"\"'; {touch}; '\""
    yield "backslash", f"health\\;{touch}"
    yield "redirection", f"health >{touch.split()[-1]}"
    yield "reading", "status </etc/passwd"
    yield "a variable", "status $HOME"
    yield "IFS", f"{touch.replace(' ', '${IFS}')}"
    yield "braces", "{" + touch.replace(" ", ",") + "}"
    yield "a glob", "log * 0"
    yield "unicode", f"status {RUN[:-1]}\N{FULLWIDTH DIGIT ONE}"
    yield "a unicode space", f"health\N{NO-BREAK SPACE}{touch}"
    yield "not UTF-8", os.fsdecode(b"health \xff\xfe")
    yield "escapes", "health \x1b[2J\x07"
    yield "a tab", f"status\t{RUN}"
    yield "two spaces", f"status  {RUN}"
    yield "a space before", " health"
    yield "a space behind", "health "
    yield "very long", "status " + "a" * 60000
    yield "many words", "status " + " ".join(["x"] * 30000)
    yield "an option", "--etc /tmp health"
    yield "an option as a run", "status --help-me-please"
    yield "ssh's option", f"status -oProxyCommand={touch.replace(' ', '+')}"
    yield "a path as a run", "status ../../../../etc/passwd"
    yield "a path as a job", f"start {RUN} ../../../../bin/sh"
    yield "a full path as a job", f"start {RUN} /bin/sh"
    yield "a path in an offset", f"log {RUN} ../0"
    yield "a negative offset", f"log {RUN} -1"
    yield "a huge offset", f"log {RUN} {'9' * 19}"
    yield "capitals", "HEALTH"
    yield "a word too many", f"health {touch}"
    yield "a word too few", "start"
    yield "what setup calls", f"supervise {RUN}"
    yield "what sleep calls", "sleep-now"
    yield "setup", "setup --key x"
    yield "forced", "forced"
    yield "python", f"-c import\x20os;os.system('{touch}')"
    yield "sftp's server", "/usr/lib/openssh/sftp-server"
    yield "internal-sftp", "internal-sftp"
    yield "scp", "scp -t /tmp"
    yield "rsync", "rsync --server . /tmp"


def test_hostile_command_lines_run_nothing(machine, canary):
    told = {}
    attacks = [(name, command) for name, command in hostile(f"touch {canary}/x")]
    assert len({name for name, _ in attacks}) == len(attacks) >= 50
    before = sorted(os.listdir(machine.run_path("x").parent))
    with ThreadPoolExecutor(2) as pool:
        for (name, _), answer in zip(attacks, pool.map(lambda a: machine.say(a[1]), attacks), strict=True):
            told[name] = answer
    for name, answer in told.items():
        print(name, answer.returncode, answer.stderr[:100])
        refused(answer, USAGE)
        assert answer.stderr.decode("ascii").rstrip("\n").isprintable()
        assert len(answer.stderr) < 400
    assert os.listdir(canary) == []
    assert sorted(os.listdir(machine.run_path("x").parent)) == before


def test_hostile_environments_run_nothing(machine, canary):
    touch = f"touch {canary}/x"
    evil = machine.open / "evil"
    evil.mkdir()
    for name in ("json", "sitecustomize", "usercustomize", "encodings", "os", "re", "millrace_worker"):
        (evil / f"{name}.py").write_text(f"import posix\nposix.open('{canary}/{name}', 65)\n")
    (evil / "rc").write_text(f"{touch}\n")
    values = {
        "PYTHONPATH": evil,
        "PYTHONHOME": evil,
        "PYTHONSTARTUP": evil / "rc",
        "PYTHONINSPECT": "1",
        "PYTHONUSERBASE": evil,
        "PYTHONBREAKPOINT": "os.system",
        "PYTHONIOENCODING": "utf-16",
        "ENV": evil / "rc",
        "BASH_ENV": evil / "rc",
        "PATH": evil,
        "SSH_ORIGINAL_COMMAND": touch,
        "MILLRACE_ETC": evil,
        "LC_ALL": f"$({touch})",
        "LC_ALL2": "() { :; }; " + touch,
    }
    # each one or all at once; a session on a connection that is there already would not bring them
    for names in (["PYTHONHOME"], ["PYTHONPATH"], values):
        quoted = " ".join(f'"{name}={values[name]}"' for name in names)
        assert machine.ask("health", options=[f"-oSetEnv={quoted}"], alone=True)["protocol"] == 1
    assert os.listdir(canary) == []


def test_no_subsystem_and_no_terminal(machine, canary):
    for name in ("sftp", "netconf"):
        said = machine.say(name, options=["-s"])
        assert said.returncode != 0 and said.stdout == b""
    login = machine.ssh()[1:-2]
    port = login.index("-p")
    common = [*login[:port], "-P", *login[port + 1 :]]
    (canary.parent / "put").write_text("x")
    target = f"{machine.user}@127.0.0.1"
    for copy in (["scp", *common], ["scp", "-O", *common]):
        done = subprocess.run([*copy, f"{canary.parent}/put", f"{target}:{canary}/x"], capture_output=True, check=False)
        assert done.returncode != 0
    batch = f"put {canary.parent}/put {canary}/x\n"
    done = subprocess.run(
        ["sftp", "-b", "-", *common, target], input=batch, text=True, capture_output=True, check=False
    )
    assert done.returncode != 0
    refused(machine.say(), USAGE)  # no command at all: a login
    shell = machine.say(data=f"touch {canary}/x\n".encode(), options=["-tt"])
    assert shell.returncode == USAGE and b"PTY allocation request failed" in shell.stderr
    assert os.listdir(canary) == []


def test_no_forwarding(machine, canary):
    verbose = ["-oLogLevel=DEBUG1", "-oExitOnForwardFailure=yes"]
    with socket.create_server(("127.0.0.1", 0)) as inner:
        inner.settimeout(0.2)
        there = f"127.0.0.1:{inner.getsockname()[1]}"
        said = machine.say(options=[*verbose, "-W", there], alone=True, data=b"x")
        assert said.returncode != 0 and b"administratively prohibited" in said.stderr
        for way in (["-R", f"0:{there}"], ["-R", f"{canary}/x:{there}"], ["-R", "0"]):
            said = machine.say("health", options=[*verbose, *way], alone=True)
            assert said.returncode == 255 and b"remote port forwarding failed" in said.stderr.lower(), said.stderr
        with pytest.raises(TimeoutError):
            inner.accept()
    goal, local = machine.open / "goal", machine.open / "local"
    with socket.socket(socket.AF_UNIX) as inner, socket.socket(socket.AF_UNIX) as way:
        inner.bind(str(goal))
        goal.chmod(0o777)
        inner.listen()
        inner.settimeout(0.2)
        words = machine.ssh(alone=True, options=["-N", f"-L{local}:{goal}"])
        client = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until("the way in", local.exists)
        way.connect(str(local))
        assert way.recv(1) == b""
        client.kill()
        client.wait()
        with pytest.raises(TimeoutError):
            inner.accept()
    agent = machine.folder / "agent"
    keeper = subprocess.Popen(["ssh-agent", "-D", "-a", agent], stdout=subprocess.DEVNULL)
    wait_until("ssh-agent", agent.exists)
    try:
        env = os.environ | {"SSH_AUTH_SOCK": str(agent)}
        options = ["-A", "-w", "any", *verbose[:1]]
        machine.say("health", options=options, alone=True, env=env)
        log = (machine.folder / "sshd.log").read_text()
        assert "Starting session: forced-command (key-option)" in log
        assert "session: shell" not in log and "session: command" not in log and "session: subsystem" not in log
        sockets = machine.run("find", "/tmp", "-maxdepth", "2", "-name", "agent.*", "-user", machine.user)
        assert sockets.stdout == "" or not machine.whole
    finally:
        keeper.kill()
        keeper.wait()
    assert os.listdir(canary) == []


# ---- setup -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def untouched():
    """A machine on which setup refuses all that it is asked for."""
    yield from before_setup()


@pytest.fixture
def bare():
    yield from before_setup()


def before_setup():
    machine = make_machine()
    yield machine
    machine.close()


def everything(machine):
    """Of each file that setup makes: mode, owner and content."""
    found = {}
    places = (ETC, HOME, "/usr/local/lib/millrace-worker")
    for place in places:
        root = machine.path(place)
        for path in [root, *sorted(root.rglob("*"))]:
            what = path.lstat()
            content = path.read_bytes() if path.is_file() else None
            found[f"{place}/{path.relative_to(root)}"] = (oct(what.st_mode), what.st_uid, what.st_gid, content)
    if machine.whole:
        found |= {name: machine.path(name).read_bytes() for name in ("/etc/passwd", "/etc/shadow", "/etc/group")}
        sudoers = machine.path("/etc/sudoers.d/millrace-worker")
        found["sudoers"] = (sudoers.stat().st_mode, sudoers.read_bytes())
        found["beside"] = os.listdir(sudoers.parent)
    return found


def test_setup_twice_makes_the_same(bare):
    (bare.folder / "s3.json").write_text('{"access_key": "a", "secret_key": "b"}')
    options = ("--sleep-command", f"/usr/bin/touch {bare.slept}", "--s3", bare.folder / "s3.json")
    first = bare.setup(*options)
    assert first.returncode == 0, first.stderr
    made = everything(bare)
    assert len(made) > 20
    second = bare.setup(*options)
    assert second.returncode == 0, second.stderr
    assert everything(bare) == made
    # without the options: what was set stays
    assert bare.setup().returncode == 0
    assert everything(bare) == made
    # by itself, from where it was put
    package = "/usr/local/lib/millrace-worker/millrace_worker"
    program = package if bare.whole else bare.path(package)
    words = ("--key", bare.folder / "pi.pub", "--agent", "pi", *bare.prefix())
    assert bare.run("/usr/bin/python3", program, "setup", *words).returncode == 0
    assert everything(bare) == made


def test_setup_keeps_one_line_for_each_key_and_agent(bare):
    for name in ("second", "new"):
        bare.make_key(name)
    keys = bare.path(f"{HOME}/.ssh/authorized_keys")
    bare.setup()
    bare.setup(agent="second")
    bare.setup(agent="pi", key=bare.folder / "new.pub")
    bare.setup(agent="third", key=(bare.folder / "second.pub").read_text())
    found = keys.read_text().splitlines()
    assert [line.split()[-1] for line in found] == ["pi", "third"]
    for line, key in zip(found, ("new", "second"), strict=True):
        assert line.startswith('restrict,command="/usr/bin/python3 -I ')
        assert f" --agent {line.split()[-1]} forced" in line
        assert line.split()[-2] == (bare.folder / f"{key}.pub").read_text().split()[1]


@pytest.mark.parametrize("kind", ["private", "none", "two", "options", "newline", "cut"])
def test_setup_takes_a_public_key_and_nothing_else(untouched, kind):
    public = (untouched.folder / "pi.pub").read_text()
    given = {
        "private": str(untouched.folder / "pi"),
        "none": "/nowhere",
        "two": public + public,
        "options": f'command="/bin/sh" {public}',
        "newline": public.strip() + "\n\nssh-ed25519 AAAA",
        "cut": public.split()[0] + " " + public.split()[1][4:],
    }[kind]
    done = untouched.setup(key=given)
    assert done.returncode == 78
    assert "public" in done.stderr
    assert "Traceback" not in done.stderr
    assert not untouched.path(f"{HOME}/.ssh").exists()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--agent", 'pi" evil="'), "--agent"),
        (("--user", "root"), "--user"),
        (("--user", "a b"), "--user"),
        (("--sleep-command", "systemctl suspend"), "full path"),
        (("--sleep-command", "/bin/sh 'x"), "quot"),
        (("--sleep-command", "/bin/sh -c 'reboot; x'"), "letters"),
        (("--s3", "/nowhere"), "--s3"),
    ],
)
def test_setup_says_what_it_cannot_take(untouched, options, word):
    done = untouched.setup(*options)
    assert done.returncode == 78
    assert done.stderr.startswith("millrace-worker setup: ") and word in done.stderr
    assert not untouched.path(f"{HOME}/.ssh/authorized_keys").exists()


def test_setup_lets_the_user_sleep_and_nothing_else(whole):
    assert whole.run("sudo", "-n", "/usr/bin/touch", whole.slept, user="millrace").returncode == 0
    for words in (
        ("/usr/bin/touch", "/etc/evil"),
        ("/usr/bin/touch", whole.slept, "/etc/evil"),
        ("/usr/bin/touch",),
        ("/bin/sh",),
        ("-u", "nobody", "/usr/bin/touch", whole.slept),
        ("-i",),
    ):
        done = whole.run("sudo", "-n", *words, user="millrace")
        assert done.returncode == 1 and "password" in done.stderr
    assert not whole.path("/etc/evil").exists()
    for path in (ETC, f"{ETC}/worker.json", f"{HOME}/.ssh/authorized_keys", HOME, "/usr/local/lib/millrace-worker"):
        assert whole.run("test", "-w", path, user="millrace").returncode == 1, path
    shadow = whole.path("/etc/shadow").read_text()
    assert "\nmillrace:*:" in shadow  # no password, and not locked either
    assert "\nmillrace:" in whole.path("/etc/passwd").read_text()


@pytest.mark.parametrize(
    ("command", "other"), [("/usr/bin/true", "/usr/bin/true x"), ("/usr/bin/true a=b,c:d", "/usr/bin/true a")]
)
def test_setup_allows_a_command_with_its_arguments_alone(bare, command, other):
    if not bare.whole:
        pytest.skip("needs root, sudo, and the right to make namespaces")
    assert bare.setup("--sleep-command", command).returncode == 0
    assert bare.run("sudo", "-n", *command.split(), user="millrace").returncode == 0
    assert bare.run("sudo", "-n", *other.split(), user="millrace").returncode == 1


def test_setup_follows_no_link_that_a_job_has_laid(bare):
    if not bare.whole:
        pytest.skip("needs root, sudo, and the right to make namespaces")
    bare.setup()
    state = f"{HOME}/state"
    bare.run("mv", f"{state}/runs", f"{state}/moved", user="millrace")
    assert bare.run("ln", "-s", "/etc/ssh", f"{state}/runs", user="millrace").returncode == 0
    done = bare.setup()
    assert done.returncode == 78 and f"{state}/runs" in done.stderr
    found = bare.path("/etc/ssh").stat()
    assert (found.st_uid, found.st_mode & 0o777) == (0, 0o755)


def test_without_setup_it_says_so(machine):
    settings = machine.path(f"{ETC}/worker.json")
    kept = settings.with_name("kept")
    settings.rename(kept)
    try:
        refused(machine.say("health"), NOT_SET_UP, "setup")
        settings.write_text("{}")
        refused(machine.say("health"), NOT_SET_UP, "setup")
        shutil.copy(kept, settings)
        settings.chmod(0o666)
        refused(machine.say("health"), NOT_SET_UP, "chmod")
    finally:
        kept.rename(settings)
    assert machine.ask("health")["protocol"] == 1
