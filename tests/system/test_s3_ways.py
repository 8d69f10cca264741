# SPDX-License-Identifier: Apache-2.0
"""The ways to a store: https with a CA of one's own, a limit on the upload's rate, some uploads at a time, IPv6."""

import hashlib
import subprocess
import threading
import time

import pytest

import proxy as faults
from daemon import wait_until
from feed import Answer
from object_store import Bucket, Minio

PATH = "/feed.json"


def openssl(*args):
    subprocess.run(["openssl", *args], check=True, capture_output=True)


def make_ca(folder):
    """ca.crt, and public.crt and private.key for 127.0.0.1 that it has signed."""
    folder.mkdir()
    names = folder / "names"
    names.write_text("subjectAltName=IP:127.0.0.1\n")
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    ca, key = str(folder / "ca.crt"), str(folder / "ca.key")
    openssl("req", "-x509", *new_key, "-days", "2", "-subj", "/CN=Test CA", "-keyout", key, "-out", ca)
    request = str(folder / "request")
    openssl("req", *new_key, "-subj", "/CN=minio", "-keyout", str(folder / "private.key"), "-out", request)
    openssl(
        *("x509", "-req", "-days", "2", "-in", request, "-CA", ca, "-CAkey", key, "-CAcreateserial"),
        *("-extfile", str(names), "-out", str(folder / "public.crt")),
    )
    return ca


@pytest.fixture
def secure(tmp_path):
    """MinIO on https, and the CA's file."""
    ca = make_ca(tmp_path / "certs")
    store = Minio(tmp_path / "secure", certs=tmp_path / "certs")
    store.start()
    yield store, ca
    store.end()


def collect(daemon, server, settings, body=b"[1,2,3]"):
    server.route(PATH, Answer(body))
    daemon.configure({"feed": {"url": server.url(PATH)}}, stores={"lake": settings})
    daemon.start()
    daemon.poll("feed")


def test_https_with_a_ca_of_ones_own(daemon, server, secure):
    store, ca = secure
    bucket = Bucket(store, "lake", ca)
    collect(daemon, server, bucket.settings(ca_file=ca))
    assert daemon.cli("flush", "--wait").returncode == 0
    assert bucket.read().data("feed") == [b"1", b"2", b"3"]


def test_https_without_it_is_refused_and_says_what_to_set(daemon, server, secure):
    store, ca = secure
    bucket = Bucket(store, "lake", ca)
    collect(daemon, server, bucket.settings())
    daemon.cli("flush")
    wait_until("the store to be denied", lambda: daemon.store()["state"] == "denied")
    assert "ca_file" in str(daemon.status()["problems"])
    assert bucket.objects() == {}


def noise(n):
    """A JSON array that hardly shrinks: about 1 MB of gzip for every 14,000 of n."""
    return b"[" + b",".join(b'"%s"' % hashlib.sha512(b"%d" % i).hexdigest().encode() for i in range(n)) + b"]"


def test_upload_rate_is_kept(daemon, server, bucket, proxy):
    collect(daemon, server, bucket.settings(proxy, upload_rate="128K"), noise(7000))
    began = time.monotonic()
    assert daemon.cli("flush", "--wait", timeout=60).returncode == 0
    took = time.monotonic() - began
    sent = sum(r.bytes for r in proxy.requests("PUT") if ".ndjson.gz" in r.path)
    assert sent > 384 << 10
    assert took > 0.7 * (sent / (128 << 10)), f"{sent} bytes took {took:.1f} s"
    assert bucket.read().problems == []


@pytest.mark.parametrize("parallel", [1, 3])
def test_so_many_uploads_are_under_way_and_no_more(daemon, server, bucket, proxy, parallel):
    most, now, lock = [0], [0], threading.Lock()

    def begin(_request):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])

    def end(_request, answer):
        time.sleep(0.1)  # so that others would come in between
        with lock:
            now[0] -= 1
        return answer

    counting = faults.change("counted", request=begin, answer=end)
    proxy.arm(counting, when=lambda r: r.start.startswith(b"PUT ") and b".ndjson.gz" in r.start)
    server.route(PATH, Answer(noise(12000)))
    stores = {"lake": bucket.settings(proxy, parallel=parallel)}
    daemon.configure({"feed": {"url": server.url(PATH)}}, stores=stores, batch={"max_bytes": "64K"})
    daemon.start()
    daemon.poll("feed")
    assert daemon.cli("flush", "--wait").returncode == 0
    assert daemon.store()["delivered_batches"] > 10
    assert most[0] == parallel
    assert bucket.read().problems == []


def test_a_daemon_that_stops_amid_an_upload_stops_within_a_second(daemon, server, bucket, proxy):
    collect(daemon, server, bucket.settings(proxy))
    proxy.arm(faults.stall())
    daemon.cli("flush")
    wait_until("a request", lambda: proxy.requests())
    began = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - began < 1
    proxy.lift()
    daemon.start()
    assert daemon.cli("flush", "--wait").returncode == 0
    assert bucket.read().data("feed") == [b"1", b"2", b"3"]
