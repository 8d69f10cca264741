# SPDX-License-Identifier: Apache-2.0
"""What the source said stands in the bucket, byte for byte, under the names that a folder store would give it."""

import base64
import hashlib

import pytest

import lake
from feed import Answer, elements

PATH = "/feed.json"

NASTY_PREFIXES = [
    "landing",
    "deep/er",
    "with space",
    "a=b",
    "1+1",
    "100%",
    "%41",
    "10:02:00",
    "Ærlighet/測試/🚗",
    "(a)!'*,;@&$~^[x]",
]


def deliver(daemon, server, bodies):
    """Each of them polled, and all in the stores."""
    daemon.start()
    for body in bodies:
        server.route(PATH, Answer(body))
        daemon.poll_new("feed", server, PATH)
    flushed = daemon.cli("flush", "--wait")
    assert flushed.returncode == 0, flushed.stderr


def test_recorded_answers_are_the_same_in_bucket_and_folder(daemon, server, bucket, samples):
    server.route(PATH, Answer(samples[0]))
    daemon.lake.mkdir()
    stores = {"folder": {"kind": "file", "path": str(daemon.lake)}, "lake": bucket.settings(prefix="landing")}
    daemon.configure({"feed": {"url": server.url(PATH)}}, stores=stores)
    deliver(daemon, server, samples)
    found = bucket.read("landing")
    assert found.problems == []
    assert found.data("feed") == [element for body in samples for element in elements(body)]
    assert len(found.records()) == 45
    in_folder = {key: content for key, content in lake.in_folder(daemon.lake).items() if key not in lake.MARKS}
    assert bucket.objects("landing") == in_folder


@pytest.mark.parametrize("prefix", NASTY_PREFIXES)
def test_any_prefix_is_a_name_like_others(daemon, server, bucket, prefix):
    server.route(PATH, Answer(b'["x"]'))
    daemon.configure({"feed": {"url": server.url(PATH)}}, stores={"lake": bucket.settings(prefix=prefix)})
    deliver(daemon, server, [b'["y"]'])
    found = bucket.read(prefix)
    assert found.problems == []
    assert found.data("feed")[-1] == b'"y"'
    assert set(bucket.objects()) == {f"{prefix}/{item.key}" for item in found.objects} | {f"{prefix}/.millrace-probe"}


def test_without_a_prefix_names_begin_with_the_source(daemon, server, bucket):
    server.route(PATH, Answer(b'["x"]'))
    daemon.configure({"feed": {"url": server.url(PATH)}}, stores={"lake": bucket.settings()})
    deliver(daemon, server, [b'["x"]'])
    assert bucket.read().problems == []
    assert all(key.startswith("source=feed/dt=") for key in bucket.objects())


def test_the_store_knows_what_it_has(daemon, server, bucket):
    server.route(PATH, Answer(b"[1,2,3]"))
    daemon.configure({"feed": {"url": server.url(PATH)}}, stores={"lake": bucket.settings(prefix="p")})
    deliver(daemon, server, [b"[1,2,3]"])
    ((key, content),) = bucket.objects("p").items()
    head = bucket.client.head_object(Bucket=bucket.name, Key=f"p/{key}", ChecksumMode="ENABLED")
    digest = hashlib.sha256(content)
    assert head["ChecksumSHA256"] == base64.b64encode(digest.digest()).decode()
    assert head["ContentType"] == "application/gzip"
    assert "ContentEncoding" not in head
    assert head["Metadata"]["millrace-records"] == "3"
    assert head["Metadata"]["millrace-sha256"] == digest.hexdigest()


def test_a_large_batch_arrives_whole(daemon, server, bucket):
    noise = [hashlib.sha512(b"%d" % i).hexdigest() for i in range(60000)]
    body = b"[" + b",".join(b'"%s"' % n.encode() for n in noise) + b"]"
    server.route(PATH, Answer(body))
    daemon.configure({"feed": {"url": server.url(PATH)}}, stores={"lake": bucket.settings()})
    deliver(daemon, server, [body])
    found = bucket.read()
    assert found.problems == []
    assert found.data("feed") == elements(body)
    assert max(o.bytes for o in found.objects) > 2 << 20
