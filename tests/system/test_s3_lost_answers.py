# SPDX-License-Identifier: Apache-2.0
"""Whatever the network between daemon and store does to one upload: it is delivered in the end, once."""

import pytest

import proxy as faults
from daemon import wait_until
from feed import Answer

PATH = "/feed.json"


def is_upload(request):
    return request.start.startswith(b"PUT ") and b".ndjson.gz" in request.start


@pytest.fixture
def deliver(daemon, server, bucket, proxy):
    """Starts a daemon behind the proxy, arms the fault, and returns the uploads once all is delivered."""

    def deliver(fault, count=1, **settings):
        server.route(PATH, Answer(b"[1,2,3]"))
        daemon.configure({"feed": {"url": server.url(PATH)}}, stores={"lake": bucket.settings(proxy, **settings)})
        daemon.start()
        daemon.poll("feed")
        if fault:
            proxy.arm(fault, count, when=is_upload)
        daemon.cli("flush")
        wait_until("the batch to be delivered", lambda: daemon.store()["delivered_batches"] == 1, patience=40)
        found = bucket.read()
        assert found.problems == []
        assert found.data("feed") == [b"1", b"2", b"3"]
        assert len(found.objects) == 1
        assert daemon.store()["state"] == "ready"
        assert daemon.status()["problems"] == []
        return [r for r in proxy.requests("PUT") if ".ndjson.gz" in r.path]

    return deliver


def test_an_upload_whose_answer_is_lost_is_delivered_once(deliver, proxy):
    uploads = deliver(faults.lose_answer())
    assert [u.fault for u in uploads] == ["answer lost", ""]
    assert uploads[1].status == 412, "the store had it already"
    assert len(proxy.requests("HEAD")) == 1, "and what it has was looked at"


@pytest.mark.parametrize(
    "fault",
    [
        faults.reset_request(after=0),
        faults.reset_request(after=50),
        faults.reset_answer(after=10),
        faults.unavailable(),
        faults.answer(500),
        faults.answer(502, b"<html>Bad Gateway</html>", {"Content-Type": "text/html"}),
        faults.answer(429),
        faults.answer(408),
        faults.s3_error(409, "ConditionalRequestConflict", "Try again."),
        faults.flip(),
    ],
    ids=lambda f: f.name,
)
def test_what_goes_wrong_twice_is_tried_a_third_time(deliver, fault):
    uploads = deliver(fault, count=2)
    assert [u.fault for u in uploads] == [fault.name, fault.name, ""]


def test_a_stalled_answer_is_given_up(deliver):
    uploads = deliver(faults.stall(), timeout="1s")
    assert [u.fault for u in uploads] == ["stalled", ""]


def test_a_slow_answer_is_waited_for(deliver):
    uploads = deliver(faults.trickle(piece=20, pause=0.05), timeout="1s")
    assert [u.fault for u in uploads] == ["trickled"]


def test_retry_after_is_kept(deliver):
    first, second = deliver(faults.unavailable(retry_after=3))
    assert 3 <= second.at - first.at < 6


@pytest.mark.parametrize("etag", [{}, {"ETag": '"5f3-abc"'}], ids=["without ETag", "with ETag"])
def test_a_web_page_is_no_delivery(daemon, server, bucket, proxy, etag):
    """A router's login page says 200 to everything."""
    server.route(PATH, Answer(b"[1,2,3]"))
    daemon.configure({"feed": {"url": server.url(PATH)}}, stores={"lake": bucket.settings(proxy)})
    daemon.start()
    daemon.poll("feed")
    page = b"<!DOCTYPE html><html><title>Router login</title></html>\n"
    proxy.arm(faults.answer(200, page, {"Content-Type": "text/html"} | etag), when=is_upload)
    daemon.cli("flush")
    wait_until("the page to be seen", lambda: daemon.store()["parked_batches"] == 1)
    assert daemon.store()["delivered_batches"] == 0
    assert "no S3" in daemon.store()["last_error"]
    proxy.lift()
    assert daemon.cli("flush", "--wait").returncode == 0
    assert bucket.read().data("feed") == [b"1", b"2", b"3"]


def test_a_store_that_comes_late_gets_all(daemon, server, bucket, proxy):
    proxy.refuse()
    server.route(PATH, Answer(b"[1,2,3]"))
    daemon.configure({"feed": {"url": server.url(PATH)}}, stores={"lake": bucket.settings(proxy)})
    daemon.start()
    daemon.poll("feed")
    daemon.cli("flush")
    wait_until("the store to be away", lambda: daemon.store()["state"] == "away")
    assert daemon.status()["problems"] != []
    proxy.accept()
    wait_until("the batch to be delivered", lambda: daemon.store()["delivered_batches"] == 1)
    assert bucket.read().data("feed") == [b"1", b"2", b"3"]
