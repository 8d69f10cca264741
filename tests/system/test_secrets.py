# SPDX-License-Identifier: Apache-2.0
"""A secret stands in the request to the store and nowhere else: no log, no answer, no error, no process list."""

import os
from pathlib import Path

import pytest

import proxy as faults
from daemon import wait_until
from feed import Answer
from object_store import ROOT_SECRET, below_alone

PATH = "/feed.json"
SECRET = "sEcReT/that+nobody=may~see"


def everything_told(daemon):
    """Whatever somebody may come to see who is not meant to know the secret."""
    told = [daemon.log.read_text()]
    for path in ("status", "stores", "sources", "batches", "config"):
        status, body = daemon.request("GET", f"/v1/{path}")
        assert status == 200
        told.append(body.decode())
    for words in (["status"], ["status", "--json"], ["show", "stores"], ["show", "config"], ["check"], ["flush"]):
        result = daemon.cli(*words)
        told += [result.stdout, result.stderr]
    told.append(Path(f"/proc/{daemon.process.pid}/cmdline").read_text())
    return "\n".join(told)


def references(folder, how, key):
    """Access and secret key in the configuration, and the daemon's environment."""
    if how == "file":
        for name, content in (("key", key), ("secret", SECRET)):
            (folder / name).write_text(content + "\n")
            (folder / name).chmod(0o600)
        return {"access_key": f"file:{folder}/key", "secret_key": f"file:{folder}/secret"}, {}
    if how == "env":
        return {"access_key": "env:LAKE_KEY", "secret_key": "env:LAKE_SECRET"}, {"LAKE_KEY": key, "LAKE_SECRET": SECRET}
    return {"access_key": key, "secret_key": SECRET}, {}


@pytest.mark.parametrize("how", ["file", "env", "literal"])
@pytest.mark.parametrize("known", [True, False], ids=["accepted", "refused"])
def test_a_secret_is_told_to_nobody(make_daemon, server, bucket, minio, proxy, tmp_path, how, known):
    """Refused: by errors that quote what they got."""
    key = f"pi-{bucket.name}"
    if known:
        minio.make_user(key, SECRET, below_alone(bucket.name, "landing"))
    keys, env = references(tmp_path, how, key)
    if not known:
        echo(proxy)
    daemon = make_daemon(env=env)
    server.route(PATH, Answer(b"[1,2,3]"))
    settings = bucket.settings(proxy, prefix="landing", **keys)
    daemon.configure({"feed": {"url": server.url(PATH)}}, stores={"lake": settings})
    daemon.config.chmod(0o600)
    daemon.start()
    daemon.poll("feed")
    daemon.cli("flush")
    want = "ready" if known else "denied"
    wait_until(f"the store to be {want}", lambda: daemon.store()["state"] == want)
    told = everything_told(daemon)
    assert SECRET not in told
    if known:
        wait_until("the delivery", lambda: daemon.store()["delivered_batches"] == 1)
    else:
        online = daemon.cli("check", "--online")
        told += online.stdout + online.stderr
        assert SECRET not in told
    for part in (SECRET[:12], SECRET[-12:]):
        assert part not in told


def echo(proxy):
    """A store that says everything that it knows, once it refuses."""
    proxy.arm(faults.s3_error(403, "AccessDenied", f"You with {SECRET} may not do this; {SECRET} is wrong"))


@pytest.mark.parametrize("mode", [0o644, 0o600], ids=oct)
def test_check_warns_of_a_literal_that_others_can_read(daemon, server, bucket, mode):
    daemon.configure({"feed": {"url": server.url(PATH)}}, stores={"lake": bucket.settings(secret_key=SECRET)})
    daemon.config.chmod(mode)
    checked = daemon.cli("check")
    assert checked.returncode == 0
    assert ("warning" in checked.stderr and "secret_key" in checked.stderr) == (mode == 0o644)
    assert SECRET not in checked.stdout + checked.stderr


@pytest.mark.parametrize(
    ("reference", "said"),
    [("env:NOT_SET_ANYWHERE", "NOT_SET_ANYWHERE"), ("file:not-there", "not-there"), ("file:empty", "empty")],
)
def test_a_secret_that_is_not_there_is_named_before_the_start(daemon, server, bucket, reference, said):
    (daemon.folder / "empty").write_text("\n")
    settings = bucket.settings(secret_key=reference)
    daemon.configure({"feed": {"url": server.url(PATH)}}, stores={"lake": settings})
    for command in ("check", "run"):
        told = daemon.cli(command)
        assert told.returncode == os.EX_CONFIG
        assert said in told.stderr and "secret_key" in told.stderr


def test_clients_read_no_secrets(daemon, server, bucket):
    """Whoever asks for the status need not be able to read them."""
    secret = daemon.folder / "secret"
    secret.write_text(ROOT_SECRET)
    server.route(PATH, Answer(b"[1]"))
    settings = bucket.settings(secret_key=f"file:{secret}")
    daemon.configure({"feed": {"url": server.url(PATH)}}, stores={"lake": settings})
    daemon.start()
    secret.unlink()
    daemon.poll("feed")
    assert daemon.cli("flush", "--wait").returncode == 0
    assert daemon.cli("status").returncode == 0
