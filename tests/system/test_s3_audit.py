# SPDX-License-Identifier: Apache-2.0
"""`millrace audit` finds what is missing, double or changed in a store, with the daemon and without, and has nothing to
say of a sound one."""

import gzip
import hashlib
import json
import os
import re

import pytest

import lake
import proxy as faults
from daemon import wait_until
from feed import Answer

PATH = "/feed.json"
BATCHES = 4  # of three records each


class Place:
    """A store under audit, whichever kind it is: its objects can be looked at and changed by hand."""

    def __init__(self, daemon, bucket):
        self._folder = daemon.lake
        self._bucket = bucket

    def settings(self):
        if self._bucket:
            return self._bucket.settings(prefix="landing")
        self._folder.mkdir()
        return {"kind": "file", "path": str(self._folder)}

    def objects(self):
        if self._bucket:
            return self._bucket.objects("landing")
        return {key: content for key, content in lake.in_folder(self._folder).items() if key not in lake.MARKS}

    def in_order(self):
        """The keys, by seq."""
        return sorted(self.objects(), key=lambda key: int(lake.KEY.fullmatch(key)["first"]))

    def put(self, key, content):
        if self._bucket:
            self._bucket.put(f"landing/{key}", content)
        else:
            path = self._folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def delete(self, key):
        if self._bucket:
            self._bucket.delete(f"landing/{key}")
        else:
            (self._folder / key).unlink()


@pytest.fixture(params=["s3", "file"])
def place(request, daemon, bucket):
    return Place(daemon, bucket if request.param == "s3" else None)


@pytest.fixture(params=["online", "offline"])
def audited(request, daemon, server, place):
    """A store with four objects, and a function that audits it."""
    deliver(daemon, server, place.settings(), BATCHES)
    if request.param == "offline":
        assert daemon.stop() == 0

    def audit(*options):
        told = daemon.cli("audit", *options)
        report = daemon.cli("audit", "--json", *options)
        assert told.returncode == report.returncode, told.stdout + told.stderr
        return Audit(report.returncode, told.stdout, json.loads(report.stdout))

    return audit


def deliver(daemon, server, settings, batches):
    server.route(PATH, Answer(b"[]"))
    daemon.configure({"feed": {"url": server.url(PATH)}}, stores={"lake": settings})
    daemon.start()
    for i in range(batches):
        server.route(PATH, Answer(b"[%d,%d,%d]" % (i, i, i)))
        daemon.poll_new("feed", server, PATH)
        assert daemon.cli("flush", "--wait").returncode == 0


class Audit:
    def __init__(self, status, text, report):
        self.status = status
        self.text = text
        (self.store,) = report["stores"]
        self.ok = report["ok"]

    def ranges(self, kind):
        """What is of this kind: first seq, last seq."""
        found = [r for s in self.store["sources"] for r in s["ranges"] if r["kind"] == kind]
        return [(r["first_seq"], r["last_seq"]) for r in found]

    def sound(self):
        return self.status == 0 and self.ok and self.store["sound"] and not self.store["error"]


def test_of_a_sound_store_it_has_nothing_to_say(audited):
    audit = audited()
    assert audit.sound(), audit.text
    assert audit.store["objects"] == BATCHES
    assert audit.ranges("delivered") == [(1, 3 * BATCHES)]
    assert not re.search(r"[1-9]\d* (missing|double|changed)", audit.text)


def test_a_deleted_object_is_missing(audited, place):
    place.delete(place.in_order()[1])
    audit = audited()
    assert (audit.status, audit.ok) == (1, False)
    assert audit.ranges("missing") == [(4, 6)]
    assert audit.ranges("delivered") == [(1, 3), (7, 12)]
    assert "missing" in audit.text


@pytest.mark.parametrize("how", ["cut", "other bytes", "empty"])
def test_a_changed_object_is_found(audited, place, how):
    key = place.in_order()[2]
    content = place.objects()[key]
    changed = {"cut": content[:-9], "other bytes": bytes([content[0]]) + content[:0:-1], "empty": b""}[how]
    place.put(key, changed)
    audit = audited()
    assert audit.status == 1
    assert audit.ranges("changed") == [(7, 9)]
    assert key in audit.text


def test_an_overlap_made_by_hand_is_found(audited, place):
    """seq 3 and 4 once more, in an object that is sound in itself."""
    first, second = (place.objects()[key] for key in place.in_order()[:2])
    lines = gzip.decompress(first).splitlines(True)[2:] + gzip.decompress(second).splitlines(True)[:1]
    content = gzip.compress(b"".join(lines), mtime=0)
    key = place.in_order()[0].replace("-1-3-", "-3-4-").rpartition("-")[0]
    place.put(f"{key}-{hashlib.sha256(content).hexdigest()[:8]}.ndjson.gz", content)
    audit = audited()
    assert audit.status == 1
    doubles = audit.ranges("double")
    assert {seq for first, last in doubles for seq in range(first, last + 1)} >= {3, 4}
    assert audit.ranges("missing") == []


def test_everything_gone_is_everything_missing(audited, place):
    for key in place.in_order():
        place.delete(key)
    audit = audited()
    assert audit.status == 1
    assert audit.ranges("missing") == [(1, 3 * BATCHES)]


def test_what_others_put_there_is_not_ours_to_judge(audited, place):
    key = place.in_order()[0]
    content = place.objects()[key]
    place.put(key.replace("pi-test-", "pi-other-"), content)
    folder = key.rpartition("/")[0]
    place.put(f"{folder}/README.md", b"by hand")
    audit = audited()
    assert audit.sound(), audit.text
    assert audit.store["objects"] == BATCHES


def test_since_looks_at_no_day_before(audited, place):
    place.delete(place.in_order()[0])
    day = place.in_order()[0].split("dt=")[1][:10]
    assert audited("--since", day).status == 1
    assert audited("--since", "2999-01-01").status == 0


def test_what_waits_is_not_missing(daemon, server, bucket, proxy):
    deliver(daemon, server, bucket.settings(proxy), 1)
    proxy.arm(faults.unavailable(), when=lambda r: r.start.startswith(b"PUT "))
    server.route(PATH, Answer(b"[7]"))
    daemon.poll_new("feed", server, PATH)
    daemon.cli("flush")
    server.route(PATH, Answer(b"[8]"))
    daemon.poll_new("feed", server, PATH)
    report = daemon.cli("audit", "--json")
    audit = Audit(report.returncode, report.stdout, json.loads(report.stdout))
    assert audit.sound(), audit.text
    assert audit.ranges("waiting") == [(4, 5)]
    assert audit.ranges("delivered") == [(1, 3)]


def test_an_object_that_is_not_booked_yet_is_early_and_not_double(daemon, server, bucket, proxy):
    deliver(daemon, server, bucket.settings(proxy), 1)
    lost = []

    def brings_it(request):
        if not request.start.startswith(b"PUT ") or b"feed" not in request.start:
            return False
        lost.append(request)
        return True

    proxy.arm(faults.lose_answer(), count=1, when=brings_it)
    proxy.arm(faults.unavailable(retry_after=60), when=lambda r: lost and not r.start.startswith(b"GET "))
    server.route(PATH, Answer(b"[7]"))
    daemon.poll_new("feed", server, PATH)
    daemon.cli("flush")
    wait_until("the answer to be lost", lambda: [r for r in proxy.requests() if r.fault == "answer lost"])
    wait_until("the store to be away", lambda: daemon.store()["state"] == "away")
    daemon.kill()
    proxy.lift()
    report = daemon.cli("audit", "--json")
    audit = Audit(report.returncode, report.stdout, json.loads(report.stdout))
    assert audit.sound(), audit.text
    assert audit.ranges("early") == [(4, 4)]


def test_what_is_no_object_is_none_of_others_either(audited, place):
    """A run's manifest and log, and what people leave beside objects."""
    folder = place.in_order()[0].rpartition("/")[0]
    for key in ("_runs/parking/0198aa10/manifest.json", "_runs/parking/0198aa10/log.gz", f"{folder}/notes.txt"):
        place.put(key, b"{}")
    audit = audited()
    assert audit.sound(), audit.text
    assert (audit.store["objects"], audit.store["foreign"]) == (BATCHES, 0)


def test_it_reads_all_pages_of_a_list(daemon, server, bucket):
    deliver(daemon, server, bucket.settings(), 1)
    (key,) = bucket.objects()
    for i in range(1005):
        bucket.put(key.replace("pi-test-", f"another-{i}-"), b"x")
    report = daemon.cli("audit", "--json")
    audit = Audit(report.returncode, report.stdout, json.loads(report.stdout))
    assert audit.sound(), audit.text
    assert (audit.store["objects"], audit.store["foreign"]) == (1, 1005)


def test_a_store_out_of_reach_is_not_called_sound(daemon, server, bucket, proxy):
    deliver(daemon, server, bucket.settings(proxy), 1)
    proxy.refuse()
    for _ in ("online", "offline"):
        told = daemon.cli("audit")
        assert told.returncode == os.EX_UNAVAILABLE, told.stdout + told.stderr
        assert "refused" in told.stdout + told.stderr
        daemon.end()


def test_each_store_is_judged_by_itself(daemon, server, bucket):
    daemon.lake.mkdir()
    stores = {"lake": bucket.settings(), "disk": {"kind": "file", "path": str(daemon.lake)}}
    server.route(PATH, Answer(b"[1,2,3]"))
    daemon.configure({"feed": {"url": server.url(PATH)}}, stores=stores)
    daemon.start()
    daemon.poll("feed")
    assert daemon.cli("flush", "--wait").returncode == 0
    bucket.delete(next(iter(bucket.objects())))
    report = daemon.cli("audit", "--json")
    assert report.returncode == 1
    assert {s["store"]: s["sound"] for s in json.loads(report.stdout)["stores"]} == {"lake": False, "disk": True}


def test_what_left_the_buffer_long_ago_is_still_known(daemon, server, bucket):
    """Delivered ranges are kept for ever, not the batches."""
    server.route(PATH, Answer(b"[1,2,3]"))
    buffer = {"path": str(daemon.folder / "buffer.db"), "keep_delivered": "0s"}
    daemon.configure({"feed": {"url": server.url(PATH)}}, stores={"lake": bucket.settings()}, buffer=buffer)
    daemon.start()
    daemon.poll("feed")
    assert daemon.cli("flush", "--wait").returncode == 0
    assert daemon.stop() == 0
    daemon.start()
    wait_until("the batch to leave the buffer", lambda: daemon.ask("GET", "/v1/batches")["batches"] == [])
    assert daemon.cli("audit").returncode == 0
    bucket.delete(next(iter(bucket.objects())))
    assert daemon.cli("audit").returncode == 1
