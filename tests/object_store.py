# SPDX-License-Identifier: Apache-2.0
"""Real object stores on loopback: MinIO, and versitygw as a second opinion, each with a data folder of its own.

`make` builds both into .deps/go; MILLRACE_GO names another folder. Looks at them with boto3, and makes MinIO's users
and policies with the minio package: both stand in the tests' environment.
"""

import contextlib
import json
import os
import socket
import subprocess
import time
from pathlib import Path
from urllib.request import urlopen

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from minio import MinioAdmin
from minio.credentials import StaticProvider

import lake
from daemon import wait_until
from proxy import free_port

ROOT_USER = "millrace-tests"
ROOT_SECRET = "not-a-secret-on-loopback"
REGION = "us-east-1"
PATIENCE = 30


def program(name):
    folder = Path(__file__).resolve().parents[1] / os.environ.get("MILLRACE_GO", ".deps/go")
    path = folder / name
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: `make {path.relative_to(folder.parents[1])}` builds it")
    return str(path)


class ObjectStore:
    """One server. The port and the data stay over kill() and start(). What it says goes to `log` beside the data."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.data = self.folder / "data"
        self.data.mkdir(parents=True)
        self.log = self.folder / "log"
        self.port = free_port()
        self.process = None

    @property
    def host(self):
        return f"127.0.0.1:{self.port}"

    @property
    def url(self):
        return f"http://{self.host}"

    @property
    def target(self):
        """Where a proxy before it connects to."""
        return "127.0.0.1", self.port

    def start(self):
        command, env = self._command()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=os.environ | {"HOME": str(self.folder)} | env,
            )
        deadline = time.monotonic() + PATIENCE
        while not self._healthy():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} does not come up:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.05)
        return self

    def kill(self):
        self.process.kill()
        self.process.wait()

    def end(self):
        if self.process and self.process.poll() is None:
            self.kill()

    def client(self, access_key=ROOT_USER, secret_key=ROOT_SECRET, ca_file=None):
        """boto3's, that tries everything once."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            region_name=REGION,
            verify=ca_file,
            config=Config(
                s3={"addressing_style": "path"},
                connect_timeout=5,
                read_timeout=PATIENCE,
                retries={"total_max_attempts": 1},
            ),
        )


class Bucket:
    """A new bucket, and a daemon's way to it."""

    def __init__(self, store, name, ca_file=None):
        self.store = store
        self.name = name
        self.client = store.client(ca_file=ca_file)
        wait_until(f"{store.url} to make a bucket", self._make)

    def _make(self):
        """A store that listens may not be there yet."""
        try:
            self.client.create_bucket(Bucket=self.name)
        except ClientError as error:
            if error.response["Error"]["Code"] != "XMinioServerNotInitialized":
                raise
            return False
        return True

    def settings(self, proxy=None, **more):
        """Of a store of the daemon's; proxy stands before it."""
        return {
            "kind": "s3",
            "endpoint": proxy.url if proxy else self.store.url,
            "bucket": self.name,
            "access_key": ROOT_USER,
            "secret_key": ROOT_SECRET,
        } | more

    def read(self, prefix=""):
        """Everything below the prefix, read and checked."""
        return lake.read_bucket(self.client, self.name, prefix)

    def objects(self, prefix=""):
        """Key below the prefix -> bytes; the probe is none."""
        found = lake.in_bucket(self.client, self.name, prefix)
        return {key: content for key, content in found.items() if key not in lake.MARKS}

    def put(self, key, content):
        self.client.put_object(Bucket=self.name, Key=key, Body=content)

    def delete(self, key):
        self.client.delete_object(Bucket=self.name, Key=key)


class Minio(ObjectStore):
    """certs: a folder with public.crt and private.key, for https."""

    kind = "minio"

    def __init__(self, folder, certs=None):
        super().__init__(folder)
        self._certs = Path(certs or self.folder / "no-certs")
        self._certs.mkdir(exist_ok=True)
        self._https = certs is not None

    @property
    def url(self):
        return f"https://{self.host}" if self._https else f"http://{self.host}"

    def _command(self):
        env = {"MINIO_ROOT_USER": ROOT_USER, "MINIO_ROOT_PASSWORD": ROOT_SECRET, "MINIO_BROWSER": "off"}
        command = [program("minio"), "server", "--quiet", "--address", self.host, "--certs-dir", str(self._certs)]
        return [*command, str(self.data)], env | {"MINIO_UPDATE": "off"}

    def _healthy(self):
        if self._https:
            return listens(self.target)
        with contextlib.suppress(OSError), urlopen(f"{self.url}/minio/health/cluster", timeout=2) as answer:
            return answer.status == 200
        return False

    def make_user(self, name, secret, policy):
        """A user who may do what this policy says, a dict as AWS writes them, and nothing else."""
        self._admin().user_add(name, secret)
        self.set_policy(name, policy)
        self._admin().attach_policy([name], name)

    def set_policy(self, user, policy):
        path = self.folder / f"{user}.json"
        path.write_text(json.dumps(policy))
        self._admin().policy_add(user, str(path))

    def _admin(self):
        credentials = StaticProvider(ROOT_USER, ROOT_SECRET)
        return MinioAdmin(endpoint=self.host, credentials=credentials, region=REGION, secure=False)


class Versitygw(ObjectStore):
    kind = "versitygw"

    def _command(self):
        env = {"ROOT_ACCESS_KEY": ROOT_USER, "ROOT_SECRET_KEY": ROOT_SECRET}
        command = [program("versitygw"), "--quiet", "--port", self.host, "--region", REGION, "posix", str(self.data)]
        return command, env

    def _healthy(self):
        with contextlib.suppress(BotoCoreError, ClientError):
            self.client().list_buckets()
            return True
        return False


def listens(target):
    with contextlib.suppress(OSError), socket.create_connection(target, timeout=1):
        return True
    return False


STORES = {"minio": Minio, "versitygw": Versitygw}


def below_alone(bucket, prefix):
    """The policy that docs/minio.md gives, for this bucket and prefix."""
    text = (Path(__file__).resolve().parents[1] / "docs" / "minio.md").read_text()
    policy = text[text.index('    {\n      "Version"') :]
    policy = json.dumps(json.JSONDecoder().raw_decode(policy.lstrip())[0])
    assert "s3:::lake/landing/*" in policy
    return json.loads(policy.replace("lake", bucket).replace("landing", prefix))
