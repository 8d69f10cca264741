# SPDX-License-Identifier: Apache-2.0
"""An object that stands in a batch's place already is looked at, and never overwritten."""

import gzip
import hashlib
import json

import pytest

import lake
import proxy as faults
from daemon import wait_until
from feed import Answer

PATH = "/feed.json"


def is_upload(request):
    return request.start.startswith(b"PUT ") and b".ndjson.gz" in request.start


@pytest.fixture
def sealed(daemon, server, bucket, proxy):
    """A daemon whose S3 is away, with one batch for it, that a folder has already; returns the daemon and the batch."""
    server.route(PATH, Answer(b"[1,2,3]"))
    daemon.lake.mkdir()
    stores = {"lake": bucket.settings(proxy), "disk": {"kind": "file", "path": str(daemon.lake)}}
    daemon.configure({"feed": {"url": server.url(PATH)}}, stores=stores)
    proxy.refuse()
    daemon.start()
    daemon.poll("feed")
    daemon.cli("flush")
    wait_until("the folder to have it", lambda: daemon.store("disk")["delivered_batches"] == 1)
    (batch,) = daemon.ask("GET", "/v1/batches")["batches"]
    return daemon, batch


def parked(daemon, problem):
    """Once the batch is parked: what status says of it."""
    wait_until("the batch to be parked", lambda: problem in str(daemon.status()["problems"]))
    assert daemon.store()["delivered_batches"] == 0
    assert daemon.store()["waiting_batches"] == 1
    told = daemon.cli("status")
    assert told.returncode == 1
    return str(daemon.status()["problems"]) + daemon.log.read_text()


@pytest.mark.parametrize("other", [b"somebody else's", b""], ids=["other bytes", "empty"])
def test_other_content_under_the_same_key_is_a_conflict(sealed, bucket, proxy, other):
    daemon, batch = sealed
    bucket.put(batch["key"], other)
    proxy.accept()
    said = parked(daemon, batch["key"])
    assert str(len(other)) in said and str(batch["bytes"]) in said, "both are described"
    assert bucket.objects() == {batch["key"]: other}
    assert daemon.cli("flush", "--wait").returncode != 0
    assert bucket.objects() == {batch["key"]: other}
    bucket.delete(batch["key"])
    assert daemon.cli("retry", str(batch["id"])).returncode == 0
    wait_until("the batch to be delivered", lambda: daemon.store()["delivered_batches"] == 1)
    found = bucket.read()
    assert found.problems == []
    assert found.data("feed") == [b"1", b"2", b"3"]
    assert daemon.status()["problems"] == []


@pytest.fixture(params=["lake", "disk"])
def at_odds(request, daemon, server, bucket, proxy):
    """A daemon with a batch of three records for that store; put(bytes) lays something else in its place, which parks
    it, and tells what retry says."""
    server.route(PATH, Answer(b"[1,2,3]"))
    daemon.lake.mkdir()
    stores = {"lake": bucket.settings(proxy), "disk": {"kind": "file", "path": str(daemon.lake)}}
    daemon.configure({"feed": {"url": server.url(PATH)}}, clock="trust", stores={request.param: stores[request.param]})
    proxy.refuse()
    daemon.lake.rmdir()
    daemon.start()
    daemon.poll("feed")
    daemon.cli("flush")
    (batch,) = daemon.ask("GET", "/v1/batches")["batches"]

    def parked():
        return daemon.store(request.param)["parked_batches"] == 1

    def put(content):
        daemon.lake.mkdir()
        if request.param == "lake":
            bucket.put(batch["key"], content)
            proxy.accept()
        else:
            path = daemon.lake / batch["key"]
            path.parent.mkdir(parents=True)
            path.write_bytes(content)
        wait_until("it to be parked", lambda: parked() or not daemon.cli("flush"))  # a flush tries what is parked again
        return [retry(*options) for options in ([], ["--json"])]

    def retry(*options):
        told = daemon.cli("retry", str(batch["id"]), *options)
        wait_until("it to be parked again", parked)
        return told

    def take_away():
        if request.param == "lake":
            bucket.delete(batch["key"])
        else:
            (daemon.lake / batch["key"]).unlink()

    return daemon, request.param, batch, put, take_away


def test_retry_describes_both(at_odds):
    daemon, store, batch, put, take_away = at_odds
    told, as_json = put(b"somebody else's")
    assert told.returncode == 1
    assert f"! store {store}: other bytes stand under {batch['key']}" in told.stdout
    assert f"  ours : {batch['bytes']} bytes, 3 records of feed by pi-test, seq 1 to 3, 20" in told.stdout
    assert f"SHA-256 {batch['sha256']}\n" in told.stdout
    theirs = hashlib.sha256(b"somebody else's").hexdigest()
    assert f"  there: 15 bytes, SHA-256 {theirs}: it is no gzip file\n" in told.stdout
    assert "move it away or delete it, and retry" in told.stdout
    (conflict,) = json.loads(as_json.stdout)["conflicts"]
    assert conflict["theirs"]["bytes"] == 15
    assert conflict["ours"]["sha256"] == batch["sha256"]
    assert conflict["ours"]["wrong"] == ""
    # It does as it was told.
    take_away()
    told = daemon.cli("retry", str(batch["id"]))
    assert told.returncode == 0
    assert told.stdout == f"batch {batch['id']}: tried again at 1 store\n"
    wait_until("it to be delivered", lambda: daemon.store(store)["delivered_batches"] == 1)


def test_retry_knows_an_object_of_ours_that_was_packed_anew(at_odds):
    daemon, _, _, put, _ = at_odds
    lines = b"\n".join(daemon.records("feed")) + b"\n"
    told, _ = put(gzip.compress(lines, 1))
    assert told.returncode == 1
    there = next(line for line in told.stdout.splitlines() if line.startswith("  there: "))
    assert "3 records of feed by pi-test, seq 1 to 3, 20" in there
    assert "has these records too, perhaps compressed anew" in told.stdout


def test_retry_sees_where_what_stands_there_ends(at_odds):
    daemon, _, _, put, _ = at_odds
    first, *_ = daemon.records("feed")
    told, _ = put(gzip.compress(first + b"\n" + b"hello\n"))
    there = next(line for line in told.stdout.splitlines() if line.startswith("  there: "))
    assert "1 record of feed by pi-test, seq 1 to 1, " in there
    assert there.endswith(": line 2 is no record of Millrace")


def test_a_conflict_of_the_same_size_is_seen(sealed, bucket, proxy):
    daemon, batch = sealed
    bucket.put(batch["key"], b"x" * batch["bytes"])
    proxy.accept()
    parked(daemon, batch["key"])
    assert bucket.objects() == {batch["key"]: b"x" * batch["bytes"]}


def test_a_parked_batch_holds_back_no_other(sealed, bucket, proxy, server):
    daemon, batch = sealed
    bucket.put(batch["key"], b"somebody else's")
    proxy.accept()
    parked(daemon, batch["key"])
    server.route(PATH, Answer(b"[4]"))
    daemon.poll_new("feed", server, PATH)
    daemon.cli("flush")
    wait_until("the next to be delivered", lambda: daemon.store()["delivered_batches"] == 1)
    assert daemon.store()["waiting_batches"] == 1


@pytest.mark.parametrize("checksum", ["SHA256", "CRC32"], ids=["told by its checksum", "read back"])
def test_the_same_content_put_there_by_hand_is_a_delivery(sealed, bucket, proxy, checksum):
    daemon, batch = sealed
    content = lake.in_folder(daemon.lake)[batch["key"]]
    bucket.client.put_object(Bucket=bucket.name, Key=batch["key"], Body=content, ChecksumAlgorithm=checksum)
    proxy.accept()
    wait_until("the batch to be delivered", lambda: daemon.store()["delivered_batches"] == 1)
    assert bucket.objects() == {batch["key"]: content}


def test_other_bytes_of_the_same_size_without_a_checksum_are_a_conflict(sealed, bucket, proxy):
    daemon, batch = sealed
    other = b"x" * len(lake.in_folder(daemon.lake)[batch["key"]])
    bucket.client.put_object(Bucket=bucket.name, Key=batch["key"], Body=other, ChecksumAlgorithm="CRC32")
    proxy.accept()
    wait_until("the batch to be parked", lambda: daemon.store()["parked_batches"] == 1)
    assert bucket.objects() == {batch["key"]: other}


@pytest.fixture
def deaf(bucket, proxy):
    """The store as one that ignores If-None-Match and overwrites."""

    def overwrite(request, answer):
        if not answer.start.startswith(b"HTTP/1.1 412 "):
            return answer
        key = request.start.split(b" ")[1].decode().partition(f"/{bucket.name}/")[2].replace("%3D", "=")
        bucket.put(key, request.body)
        headers = [("ETag", '"overwritten"'), ("Content-Length", "0")]
        return faults.Message(b"HTTP/1.1 200 OK", headers)

    proxy.arm(faults.change("deaf", answer=overwrite), when=lambda r: r.start.startswith(b"PUT "))
    return proxy


def test_a_store_that_ignores_if_none_match_is_asked_first(daemon, server, bucket, deaf):
    server.route(PATH, Answer(b"[1]"))
    daemon.configure({"feed": {"url": server.url(PATH)}}, stores={"lake": bucket.settings(deaf)})
    for body in (b"[1]", b"[2]"):
        daemon.start()
        server.route(PATH, Answer(body))
        daemon.poll_new("feed", server, PATH)
        assert daemon.cli("flush", "--wait").returncode == 0
        assert daemon.stop() == 0
    uploads = [(r.method, r.path) for r in deaf.requests() if ".ndjson.gz" in r.path]
    assert [m for m, _ in uploads] == ["HEAD", "PUT"] * 2
    assert uploads[0][1] == uploads[1][1]
    assert len(daemon.events("store.unconditional")) == 2, "once each time it was started"
    assert bucket.read().data("feed") == [b"1", b"2"]


def test_nor_is_a_conflict_overwritten_there(sealed, bucket, deaf):
    daemon, batch = sealed
    bucket.put(batch["key"], b"somebody else's")
    deaf.accept()
    parked(daemon, batch["key"])
    assert bucket.objects() == {batch["key"]: b"somebody else's"}


def test_nor_is_it_uploaded_twice_where_the_answer_is_lost(sealed, bucket, deaf):
    daemon, _ = sealed
    deaf.arm(faults.lose_answer(), 1, is_upload, first=True)
    deaf.accept()
    wait_until("the batch to be delivered", lambda: daemon.store()["delivered_batches"] == 1)
    assert [r.fault for r in deaf.requests("PUT") if is_upload_path(r)] == ["answer lost"]
    assert bucket.read().data("feed") == [b"1", b"2", b"3"]


def is_upload_path(request):
    return ".ndjson.gz" in request.path


def test_an_object_that_is_refused_holds_back_no_other(daemon, server, bucket, proxy):
    """A policy that leaves out one source, a proxy that takes no large bodies: one object is not taken."""
    refused = faults.answer(403, b"<Error><Code>AccessDenied</Code></Error>", {"Content-Type": "application/xml"})
    proxy.arm(refused, when=lambda r: r.start.startswith(b"PUT ") and b"source%3Dbad/" in r.start)
    for source in ("bad", "good"):
        server.route(f"/{source}.json", Answer(b"[1,2,3]"))
    daemon.configure(
        {source: {"url": server.url(f"/{source}.json")} for source in ("bad", "good")},
        stores={"lake": bucket.settings(proxy, parallel=1)},
    )
    daemon.start()
    daemon.poll("bad")
    daemon.poll("good")
    daemon.cli("flush")
    wait_until("the good one to be delivered", lambda: daemon.store()["delivered_batches"] == 1)
    assert daemon.store()["parked_batches"] == 1
    assert "AccessDenied" in daemon.store()["last_error"]
    proxy.lift()
    assert daemon.cli("flush", "--wait").returncode == 0
    assert set(bucket.read().data("bad")) == {b"1", b"2", b"3"}
