# SPDX-License-Identifier: Apache-2.0
"""A Pi that dies: what no store has goes into a folder, with its daemon or without, and from there to another Millrace,
once."""

import hashlib
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
from contextlib import contextmanager

import pytest

import lake
from daemon import wait_until
from feed import Answer

AWAY = {"kind": "s3", "endpoint": "http://127.0.0.1:9", "bucket": "lake", "access_key": "a", "secret_key": "secret-b"}
LIST = ".millrace-export"


def body(start, n=5):
    return b"[" + b",".join(b'{"n":%d}' % i for i in range(start, start + n)) + b"]"


def expected(start, n=5):
    return [b'{"n":%d}' % i for i in range(start, start + n)]


def objects(folder):
    """Key -> bytes of an export."""
    return {k: v for k, v in lake.in_folder(folder).items() if not k.startswith(".millrace-")}


def listed(folder):
    return [json.loads(line) for line in (folder / LIST).read_text().splitlines()]


@pytest.fixture
def dying(make_daemon, server):
    """A Pi whose store is out of reach: poll(n) brings five records more."""
    daemon = make_daemon("dying")
    daemon.configure({"feed": {"url": server.url("/feed")}}, device="pi-old", clock="trust", stores={"lake": AWAY})
    server.route("/feed", Answer(body(0)))
    daemon.start()

    def poll(start):
        server.route("/feed", Answer(body(start)))
        return daemon.poll_new("feed", server, "/feed")

    daemon.poll_five = poll
    return daemon


@pytest.fixture
def stick(tmp_path):
    (tmp_path / "stick").mkdir()
    return tmp_path / "stick"


@pytest.fixture
def fresh(make_daemon, server):
    """The Pi that takes its place, with a folder as its store."""
    daemon = make_daemon("fresh")
    server.route("/other", Answer(b"[1]"))
    daemon.configure({"feed": {"url": server.url("/other")}}, device="pi-new", clock="trust")
    daemon.start()
    return daemon


def export(daemon, folder, *options):
    return daemon.cli("export", str(folder), *options)


def test_with_its_daemon(dying, stick):
    dying.poll_five(0)
    dying.poll_five(5)
    told = export(dying, stick)
    assert told.returncode == 0, told.stderr
    assert "exported 1 batch (10 records" in told.stdout
    assert "nothing was deleted here" in told.stdout
    found = lake.check(objects(stick))
    assert found.problems == []
    assert found.data("feed") == expected(0, 10)
    (entry,) = listed(stick)
    (key,) = objects(stick)
    assert entry["key"] == key
    assert entry["records"] == 10
    assert entry["bytes"] == len(objects(stick)[key])

    # Again: what is there is passed over, what came since comes along; and the daemon still has all of it.
    dying.poll_five(10)
    again = export(dying, stick, "--json")
    assert again.returncode == 0, again.stderr
    report = json.loads(again.stdout)
    assert (report["batches"], report["records"], report["already"]) == (1, 5, 1)
    assert lake.check(objects(stick)).data("feed") == expected(0, 15)
    assert len(listed(stick)) == 2
    assert dying.status()["buffer"]["waiting_batches"] == 2


def test_without_its_daemon(dying, stick):
    dying.poll_five(0)
    dying.cli("flush")
    dying.poll_five(5)
    dying.kill()
    told = export(dying, stick)
    assert told.returncode == 0, told.stderr
    assert "exported 2 batches (10 records" in told.stdout
    found = lake.check(objects(stick))
    assert found.problems == []
    assert found.data("feed") == expected(0, 10)
    # Nothing is gone: the daemon, if it comes back, has the same batches under the same keys.
    dying.start()
    assert {b["key"] for b in dying.ask("GET", "/v1/batches")["batches"]} == set(objects(stick))


def test_where_no_secret_can_be_read_any_more(dying, stick, tmp_path):
    """Only the stores want them."""
    dying.poll_five(0)
    dying.stop()
    store = AWAY | {"secret_key": f"file:{tmp_path}/gone"}
    text = dying.config.read_text().replace('"secret-b"', json.dumps(store["secret_key"]))
    dying.config.write_text(text)
    assert export(dying, stick).returncode == 0


def test_a_socket_that_was_named_is_asked_alone(dying, stick):
    dying.poll_five(0)
    dying.stop()
    told = subprocess.run(
        [dying.binary, "--socket", str(dying.socket), "export", str(stick)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 69
    assert "no daemon answers" in told.stderr


def test_no_buffer_is_made_for_it(make_daemon, stick):
    daemon = make_daemon()
    daemon.configure({})
    told = export(daemon, stick)
    assert told.returncode == 73
    assert "buffer.db" in told.stderr
    assert not (daemon.folder / "buffer.db").exists()


@pytest.mark.parametrize("running", [True, False], ids=["with its daemon", "without"])
def test_folders_that_cannot_be_written(dying, stick, tmp_path, running):
    dying.poll_five(0)
    if not running:
        dying.stop()
    a_file = tmp_path / "file"
    a_file.write_text("")
    for folder in (a_file, tmp_path / "no"):
        told = export(dying, folder)
        assert told.returncode == 73
        assert str(folder) in told.stderr
    assert "does not exist: create it, or mount its disk" in told.stderr
    assert not (tmp_path / "no").exists(), "a stick that is not mounted must not become a folder of the card"
    # Something else under a key is left, and the rest is written.
    assert export(dying, stick).returncode == 0
    (key,) = objects(stick)
    (stick / key).write_text("somebody else's")
    told = export(dying, stick)
    assert told.returncode == 73
    assert key in told.stderr
    assert "stands in the way of: 1" in told.stdout
    assert (stick / key).read_text() == "somebody else's"


@contextmanager
def mounted(folder, size):
    """A file system of that size; skips where none can be mounted."""
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=False)
    if made.returncode != 0:
        pytest.skip("NOTHING CAN BE MOUNTED HERE: run it as root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("running", [True, False], ids=["with its daemon", "without"])
def test_a_stick_that_is_too_small(dying, server, stick, tmp_path, running):
    noise = [os.urandom(30000).hex() for _ in range(6)]
    for one in noise:
        server.route("/feed", Answer(json.dumps([one]).encode()))
        dying.poll_new("feed", server, "/feed")
        dying.cli("flush")
    server.route("/feed", Answer(b"[[9]]"))
    dying.poll_new("feed", server, "/feed")
    dying.cli("flush")
    total = dying.status()["buffer"]["waiting_batches"]
    if not running:
        dying.stop()
    with mounted(tmp_path / "small", "150k") as small:
        told = export(dying, small)
        assert told.returncode == 73
        assert told.stderr.count(f'"{small}" is full') == 1
        found = lake.check(objects(small))
        assert all("missing" in p for p in found.problems), "what is written is whole"
        assert b"[9]" in found.data("feed"), "what is smaller and comes last still fits"
        left_out = total - len(found.objects)
        assert 0 < left_out < total - 1
        assert re.search(rf"left out for want of room: {left_out} batch(es)? of \d+\.\d KB", told.stdout)
        again = json.loads(export(dying, small, "--json").stdout)
        assert (again["left_out"], again["already"]) == (left_out, len(found.objects))
        assert 30000 * left_out < again["left_out_bytes"] < 60000 * left_out
        # The rest goes elsewhere.
        assert export(dying, stick).returncode == 0
    brought = lake.check(objects(stick))
    assert brought.problems == []
    assert {json.dumps(one).encode() for one in noise} <= set(brought.data("feed"))


def test_a_folder_on_the_card_itself(dying, stick, tmp_path):
    dying.poll_five(0)
    told = export(dying, stick)
    assert told.returncode == 0
    assert f'"{stick}" is on the buffer\'s own file system' in told.stderr
    with mounted(tmp_path / "real", "1m") as real:
        told = export(dying, real)
        assert (told.returncode, told.stderr) == (0, "")


def test_a_card_that_is_read_only(dying, stick, tmp_path):
    """The case of a card that fails: the way out is told, and is one."""
    dying.stop()
    with mounted(tmp_path / "card", "8m") as card:
        for file in dying.folder.glob("buffer.db*"):
            shutil.copy(file, card)
        dying.configure({}, device="pi-old", buffer={"path": str(card / "buffer.db")}, stores={"lake": AWAY})
        subprocess.run(["mount", "-o", "remount,ro", str(card)], check=True)
        for told in (export(dying, stick), dying.cli("audit")):
            assert told.returncode != 0
            assert "copy it, and the file with -wal behind its name, into a folder" in told.stderr
        for file in card.glob("buffer.db*"):
            shutil.copy(file, tmp_path)
    dying.configure({}, device="pi-old", buffer={"path": str(tmp_path / "buffer.db")}, stores={"lake": AWAY})
    assert export(dying, stick).returncode == 0
    assert lake.check(objects(stick)).data("feed") == expected(0)


@pytest.mark.parametrize("command", ["export", "audit"])
def test_a_damaged_buffer_is_salvaged_and_that_is_told(dying, stick, command):
    dying.poll_five(0)
    dying.stop()
    dying.configure({"feed": {"url": "http://127.0.0.1:9/"}}, device="pi-old", clock="trust")
    buffer = dying.folder / "buffer.db"
    with sqlite3.connect(buffer) as db:  # so that all of it is in the one file
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(buffer.read_bytes())
    content[100:200] = bytes(100)  # the schema's page
    buffer.write_bytes(content)
    told = dying.cli(*([command, str(stick)] if command == "export" else [command]))
    assert told.returncode == 0, told.stderr
    assert "millrace: the buffer was damaged: " in told.stderr
    assert "lost for certain: 0 records" in told.stderr
    assert f'what is left of the damaged one is "{dying.folder}/buffer.db.damaged-' in told.stderr
    if command == "export":
        assert lake.check(objects(stick)).data("feed") == expected(0)


def test_a_configuration_that_names_another_buffer(dying, stick, tmp_path):
    """A copy of a dead card's, and the socket of the daemon that runs: it is not the daemon that is asked."""
    dying.poll_five(0)
    dying.cli("flush")
    for file in dying.folder.glob("buffer.db*"):
        shutil.copy(file, tmp_path)
    dying.poll_five(5)
    copy = dying.folder / "copy.conf"
    text = dying.config.read_text().replace(str(dying.folder / "buffer.db"), str(tmp_path / "buffer.db"))
    copy.write_text(f'{text}socket = "{dying.socket}";\n')
    for words in (["export", str(stick)], ["audit"]):
        told = dying.cli("-c", str(copy), *words)
        assert f'has the buffer "{dying.folder}/buffer.db"' in told.stderr
        assert f'names "{tmp_path}/buffer.db", which is read without it' in told.stderr
    assert lake.check(objects(stick)).data("feed") == expected(0)
    # One that is not there: the daemon may only want a restart.
    (tmp_path / "buffer.db").unlink()
    told = dying.cli("-c", str(copy), "export", str(stick))
    assert told.returncode == 0
    assert f'names "{tmp_path}/buffer.db", which is not there' in told.stderr
    assert lake.check(objects(stick)).data("feed") == expected(0, 10)
    # Its own, by another name.
    (tmp_path / "link.db").symlink_to(dying.folder / "buffer.db")
    copy.write_text(copy.read_text().replace(str(tmp_path / "buffer.db"), str(tmp_path / "link.db")))
    assert "has the buffer" not in dying.cli("-c", str(copy), "export", str(stick)).stderr


def test_a_stick_that_is_read_only(dying, tmp_path):
    dying.poll_five(0)
    with mounted(tmp_path / "locked", "1m") as locked:
        subprocess.run(["mount", "-o", "remount,ro", str(locked)], check=True)
        told = export(dying, locked)
        assert told.returncode == 73
        assert "Read-only" in told.stderr


def exported(dying, stick, batches=3):
    for i in range(batches):
        dying.poll_five(5 * i)
        dying.cli("flush")
    assert export(dying, stick).returncode == 0
    return objects(stick)


def take(daemon, folder, *options):
    return daemon.cli("import", str(folder), *options)


def test_another_millrace_takes_it_once(dying, fresh, stick):
    brought = exported(dying, stick)
    fresh.poll("feed")
    told = take(fresh, stick)
    assert told.returncode == 0, told.stderr
    assert told.stdout == "took over 3 objects (15 records)\n"
    fresh.flush()
    in_lake = lake.in_folder(fresh.lake)
    assert {k: in_lake[k] for k in brought} == brought, "the same names, the same bytes"
    found = lake.check(objects(fresh.lake))
    assert found.problems == []
    assert [r.data for r in found.records("feed") if r.device == "pi-old"] == expected(0, 15)

    again = take(fresh, stick, "--json")
    assert again.returncode == 0
    assert json.loads(again.stdout) == {"taken": 0, "records": 0, "already": 3, "refused": []}
    # Also when it is long delivered, and gone from the buffer.
    fresh.stop()
    fresh.configure(
        {"feed": {"url": "http://127.0.0.1:9/"}},
        device="pi-new",
        buffer={"path": str(fresh.folder / "buffer.db"), "keep_delivered": "0s"},
    )
    fresh.start()
    wait_until("the batches to go", lambda: fresh.ask("GET", "/v1/batches")["batches"] == [])
    assert take(fresh, stick).stdout == "took over 0 objects (0 records); already here: 3\n"

    # The books of either side speak of its own records alone.
    audit = json.loads(fresh.cli("audit", "--json").stdout)
    assert audit["ok"] is True
    assert audit["stores"][0]["records"]["delivered"] == 1
    assert audit["stores"][0]["foreign"] == 3


def test_into_an_s3(dying, fresh, bucket, stick):
    brought = exported(dying, stick)
    fresh.stop()
    fresh.configure({}, device="pi-new", stores={"lake": bucket.settings()})
    fresh.start()
    assert take(fresh, stick).returncode == 0
    wait_until("all to be delivered", lambda: fresh.store()["delivered_batches"] == 3)
    assert bucket.objects() == brought
    # The old one gets well again: what is there already is what it wanted to bring.
    dying.stop()
    dying.configure({}, device="pi-old", clock="trust", stores={"lake": bucket.settings()})
    dying.start()
    dying.flush()
    assert bucket.objects() == brought
    assert dying.cli("audit").returncode == 0


def test_into_the_one_that_it_came_from(dying, stick):
    exported(dying, stick)
    told = take(dying, stick)
    assert told.returncode == 0
    assert told.stdout == "took over 0 objects (0 records); already here: 3\n"


def taken(daemon):
    return len(daemon.events("batch.imported"))


def test_it_is_killed_in_the_middle(dying, fresh, server, stick):
    """The daemon, while it takes over an object, and between two."""
    for _ in range(6):
        server.route("/feed", Answer(json.dumps([os.urandom(400000).hex()]).encode()))
        dying.poll_new("feed", server, "/feed")
        dying.cli("flush")
    assert export(dying, stick).returncode == 0
    brought = objects(stick)
    for _ in range(3):
        client = subprocess.Popen(
            [fresh.binary, "-c", str(fresh.config), "import", str(stick)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        before = taken(fresh)
        wait_until("one to be taken, or all", lambda c=client, n=before: c.poll() is not None or taken(fresh) > n)
        fresh.kill()
        client.wait(20)
        fresh.start()
    assert take(fresh, stick).returncode == 0
    assert take(fresh, stick).stdout == f"took over 0 objects (0 records); already here: {len(brought)}\n"
    fresh.flush()
    in_lake = lake.in_folder(fresh.lake)
    assert {k: v for k, v in in_lake.items() if "pi-old" in k} == brought
    batches = fresh.ask("GET", "/v1/batches")["batches"]
    assert sum("pi-old" in b["key"] for b in batches) == len(brought)
    assert fresh.stop() == 0


@pytest.mark.parametrize("end", ["client", "daemon"])
def test_one_end_goes_in_the_middle_of_an_object(dying, fresh, server, stick, end):
    server.route("/feed", Answer(json.dumps([os.urandom(900000).hex(), os.urandom(900000).hex()]).encode()))
    dying.stop()
    dying.configure(
        {"feed": {"url": server.url("/feed"), "max_record": "4M"}},
        device="pi-old",
        clock="trust",
        stores={"lake": AWAY},
    )
    dying.start()
    dying.poll_new("feed", server, "/feed")
    assert export(dying, stick).returncode == 0
    key, content = max(objects(stick).items(), key=lambda o: len(o[1]))
    half = len(content) // 2
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(fresh.socket))
        head = f"PUT /v1/objects/{key}?sha256={hashlib.sha256(content).hexdigest()} HTTP/1.1\r\nHost: m\r\n"
        client.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content[:half])
        busy = fresh.request("PUT", f"/v1/objects/{key}?sha256={'0' * 64}", body=content)
        assert busy[0] == 409, busy
        if end == "daemon":
            assert fresh.stop() == 0
            fresh.start()
    # Nothing of it is held against the next one.
    assert take(fresh, stick).returncode == 0
    fresh.flush()
    assert lake.in_folder(fresh.lake)[key] == content
    assert fresh.stop() == 0


def test_what_is_foreign_or_changed_is_named_and_the_rest_taken(dying, fresh, stick):
    first, third, second = exported(dying, stick)  # by name: 1-5, 11-15, 6-10
    (stick / "notes.txt").write_text("call mother")
    (stick / "source=feed" / "notes.txt").write_text("call mother")
    (stick / "lost+found").mkdir()
    (stick / "_runs/parking/01a2").mkdir(parents=True)
    (stick / "_runs/parking/01a2/manifest.json").write_text("{}")
    (stick / f"{first}.tmp").write_text("half of it")
    (stick / second).write_bytes((stick / second).read_bytes() + b"\n")
    shutil.copy(stick / third, stick / third.replace("-11-15-", "-11-16-"))
    (stick / third.replace("pi-old", "pi-x")).symlink_to(stick / third)
    told = take(fresh, stick)
    assert told.returncode == 65
    assert told.stdout == "took over 2 objects (10 records); refused: 5\n"
    for line in (
        "notes.txt: it is no object of Millrace",
        "source=feed/notes.txt: it is no object of Millrace",
        f"{second}: it was changed since it was exported",
        f'{third.replace("-11-15-", "-11-16-")}: a part of seq 11 to 16 of source "feed" was taken over before',
        f"{third.replace('pi-old', 'pi-x')}: it is a link",
    ):
        assert line in told.stderr
    # Without the list it is the daemon that tells.
    (stick / LIST).unlink()
    told = take(fresh, stick)
    assert told.returncode == 65
    assert f"{second}: its SHA-256 begins with" in told.stderr


def test_what_the_list_has_and_the_folder_has_not(dying, fresh, stick):
    first, *_ = exported(dying, stick)
    (stick / first).unlink()
    told = take(fresh, stick)
    assert told.returncode == 65
    assert "took over 2 objects" in told.stdout
    assert f"{first}: it was exported" in told.stderr


def test_folders_with_nothing_in_them(dying, fresh, stick, tmp_path):
    assert take(fresh, tmp_path / "none").returncode == 65
    exported(dying, stick)
    (tmp_path / "notes.txt").write_text("call mother")
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path, stick / "source=feed", next(stick.glob("source=*/dt=*"))):
        told = take(fresh, folder)
        assert (told.returncode, told.stdout) == (65, "")
        assert told.stderr == (
            f"millrace: {folder}: there are no objects of Millrace in it; name the folder that has source=… in it\n"
        )


def test_where_nobody_takes_it(dying, stick):
    exported(dying, stick)
    dying.stop()
    told = take(dying, stick)
    assert (told.returncode, told.stdout) == (69, "")
    assert told.stderr.count("\n") == 1
    assert "no daemon answers" in told.stderr


def test_what_was_imported_is_marked_and_counted(dying, fresh, stick):
    """Its source is none of the configuration's, and it is in no books."""
    exported(dying, stick)
    fresh.stop()
    fresh.configure({}, device="pi-new", clock="trust")
    fresh.start()
    assert take(fresh, stick).returncode == 0
    fresh.flush()
    shown = fresh.cli("show", "batches").stdout.splitlines()
    assert [line.split()[-1] for line in shown if "-" in line] == ["1/1"] + ["imported"] * 3
    told = fresh.cli("audit")
    assert told.returncode == 0
    assert told.stdout.endswith("nothing is double; in no books here: 3 objects of others\n")


def test_imports_wait_for_each_other(dying, fresh, stick):
    exported(dying, stick)
    command = [fresh.binary, "-c", str(fresh.config), "import", str(stick), "--json"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    told = [json.loads(p.communicate(timeout=60)[0]) for p in both]
    assert [p.returncode for p in both] == [0, 0]
    assert sum(t["taken"] for t in told) == 3
    assert sum(t["already"] for t in told) == 3


def test_a_buffer_with_little_room(dying, fresh, server, stick):
    """What all stores have makes room; an import that finds none says so, and goes on when it is made again."""
    for _ in range(20):
        server.route("/feed", Answer(json.dumps([os.urandom(450000).hex()]).encode()))
        dying.poll_new("feed", server, "/feed")
        dying.cli("flush")
    assert export(dying, stick).returncode == 0
    fresh.stop()
    buffer = {"path": str(fresh.folder / "small.db"), "max_size": "16M", "on_full": "drop-oldest"}
    fresh.configure({"feed": {"url": server.url("/other")}}, device="pi-new", buffer=buffer)
    fresh.start()
    told = take(fresh, stick)
    assert told.returncode == 0, told.stderr
    fresh.flush()
    assert {k: v for k, v in lake.in_folder(fresh.lake).items() if "pi-old" in k} == objects(stick)
    assert fresh.source("feed")["dropped_records"] == 0
    server.route("/other", Answer(b"[2]"))
    assert fresh.poll("feed")["outcome"] == "committed"

    # No store has anything: what is here already stays, and what is left of the room is left to the polls.
    fresh.stop()
    buffer["path"] = str(fresh.folder / "other.db")
    fresh.configure({"feed": {"url": server.url("/other")}}, buffer=buffer, stores={"lake": AWAY})
    fresh.start()
    told = take(fresh, stick)
    assert told.returncode == 69
    assert "no room" in told.stderr
    status = fresh.status()
    assert 0 < status["buffer"]["waiting_batches"] < len(objects(stick))
    assert status["buffer"]["state"] == "ready"
    server.route("/other", Answer(b"[3]"))
    assert fresh.poll("feed")["outcome"] == "committed"
    assert fresh.source("feed")["dropped_records"] == 0
