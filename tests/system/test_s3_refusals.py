# SPDX-License-Identifier: Apache-2.0
"""What a person has to mend: the store is denied, status says what to do, nothing is dropped, and once it is mended
everything is delivered, at once where somebody asks."""

import pytest

import lake
from daemon import wait_until
from feed import Answer
from object_store import ROOT_SECRET, below_alone

PATH = "/feed.json"


@pytest.fixture
def collect(daemon, server):
    """A daemon that has one batch for these stores."""

    def collect(**stores):
        server.route(PATH, Answer(b"[1,2,3]"))
        daemon.configure({"feed": {"url": server.url(PATH)}}, stores=stores)
        daemon.start()
        daemon.poll("feed")
        daemon.cli("flush")
        return daemon

    return collect


def denied(daemon, store="lake"):
    """What status says once the store is denied."""
    wait_until("the store to be denied", lambda: daemon.store(store)["state"] == "denied")
    told = daemon.cli("status")
    assert told.returncode == 1, "status: something needs a person"
    assert daemon.store(store)["waiting_batches"] == 1, "the batch is kept"
    problems = [p for p in daemon.status()["problems"] if f'store "{store}"' in p["what"]]
    assert len(problems) == 1
    assert problems[0]["remedy"]
    return problems[0]["what"] + " " + problems[0]["remedy"]


def mend(daemon, server, **stores):
    """The configuration is put right."""
    daemon.configure({"feed": {"url": server.url(PATH)}}, stores=stores)
    assert daemon.stop() == 0
    daemon.start()


def delivered(daemon, bucket, prefix=""):
    wait_until("the batch to be delivered", lambda: daemon.store()["delivered_batches"] == 1)
    found = bucket.read(prefix)
    assert found.problems == []
    assert found.data("feed") == [b"1", b"2", b"3"]
    assert daemon.status()["problems"] == []
    assert daemon.cli("status").returncode == 0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"secret_key": "not the one"}, "secret_key"),
        ({"access_key": "nobody-knows-me"}, "access_key"),
        ({"bucket": "not-there"}, "bucket"),
    ],
    ids=["secret key", "access key", "bucket"],
)
def test_a_wrong_setting_is_named_and_can_be_put_right(collect, server, bucket, wrong, said):
    daemon = collect(lake=bucket.settings(**wrong))
    assert said in denied(daemon)
    mend(daemon, server, lake=bucket.settings())
    delivered(daemon, bucket)


def test_a_bucket_that_was_missing_is_found_when_somebody_asks(collect, bucket):
    missing = f"{bucket.name}-later"
    daemon = collect(lake=bucket.settings(bucket=missing))
    assert missing in denied(daemon)
    bucket.client.create_bucket(Bucket=missing)
    bucket.name = missing
    assert daemon.cli("flush", "--wait").returncode == 0
    delivered(daemon, bucket)


def test_retry_brings_a_batch_at_once(collect, bucket):
    missing = f"{bucket.name}-later"
    daemon = collect(lake=bucket.settings(bucket=missing))
    denied(daemon)
    (batch,) = daemon.ask("GET", "/v1/batches")["batches"]
    bucket.client.create_bucket(Bucket=missing)
    bucket.name = missing
    retried = daemon.cli("retry", str(batch["id"]))
    assert retried.returncode == 0, retried.stderr
    delivered(daemon, bucket)


def test_a_forbidden_prefix_is_named_and_may_be_allowed_later(collect, bucket, minio):
    minio.make_user("pi-lost", "pi-lost-secret", below_alone(bucket.name, "elsewhere"))
    daemon = collect(lake=bucket.settings(prefix="landing", access_key="pi-lost", secret_key="pi-lost-secret"))
    said = denied(daemon)
    assert "s3:PutObject" in said and f"arn:aws:s3:::{bucket.name}/landing/" in said
    minio.set_policy("pi-lost", below_alone(bucket.name, "landing"))
    assert daemon.cli("flush", "--wait").returncode == 0
    delivered(daemon, bucket, "landing")


def test_the_policy_of_the_readme_is_enough(collect, bucket, minio):
    """Put, read and list below the prefix: for delivery, for `check --online` and for `audit`."""
    minio.make_user("pi-user", "pi-user-secret", below_alone(bucket.name, "landing"))
    daemon = collect(lake=bucket.settings(prefix="landing", access_key="pi-user", secret_key="pi-user-secret"))
    delivered(daemon, bucket, "landing")
    for command in (["check", "--online"], ["audit"]):
        told = daemon.cli(*command)
        assert told.returncode == 0, told.stdout + told.stderr
    client = minio.client("pi-user", "pi-user-secret")
    for attempt in (
        lambda: client.put_object(Bucket=bucket.name, Key="outside", Body=b""),
        lambda: client.list_objects_v2(Bucket=bucket.name),
        lambda: client.delete_object(Bucket=bucket.name, Key="landing/.millrace-probe"),
    ):
        with pytest.raises(client.exceptions.ClientError, match="AccessDenied"):
            attempt()


def test_what_is_no_s3_is_named(collect, bucket, server):
    daemon = collect(lake=bucket.settings(endpoint=server.url("")))
    assert "no S3" in denied(daemon)
    mend(daemon, server, lake=bucket.settings())
    delivered(daemon, bucket)


def test_check_online_finds_it_before_the_first_record(daemon, server, bucket):
    def check(**wrong):
        daemon.configure({"feed": {"url": server.url(PATH)}}, stores={"lake": bucket.settings(**wrong)})
        return daemon.cli("check", "--online")

    assert check().returncode == 0
    assert check(secret_key="not the one").returncode == 69
    assert "not-there" in check(bucket="not-there").stderr
    assert "no S3" in check(endpoint=server.url("")).stderr
    assert check(endpoint="http://127.0.0.1:1").returncode == 69
    assert lake.in_bucket(bucket.client, bucket.name).keys() <= set(lake.MARKS)


def test_the_other_store_has_it_meanwhile(collect, bucket, tmp_path):
    (tmp_path / "disk").mkdir()
    daemon = collect(
        lake=bucket.settings(secret_key="not the one"), disk={"kind": "file", "path": str(tmp_path / "disk")}
    )
    denied(daemon)
    wait_until("the folder to have it", lambda: daemon.store("disk")["delivered_batches"] == 1)
    assert lake.read(tmp_path / "disk").data("feed") == [b"1", b"2", b"3"]
    assert ROOT_SECRET not in daemon.log.read_text()
