# SPDX-License-Identifier: Apache-2.0
"""For jobs: the objects of a manifest, each fetched by its name, held against its size and SHA-256, and unpacked. No
store is ever listed.

    for what, lines in objects.of_run():
        for line in lines: …
"""

import gzip
import hashlib
import io
import json
import os
import zlib

from millrace_worker import manifest


class Missing(Exception):
    """Names the object, and what is wrong with it."""


class Folder:
    def __init__(self, store):
        self.path = store["path"]
        if not os.path.exists(os.path.join(self.path, ".millrace-store")):
            raise Missing(f"{self.path} is no store of Millrace's, for it has no .millrace-store: is its disk mounted?")

    def get(self, key, limit):
        try:
            with open(os.path.join(self.path, key), "rb") as file:
                return file.read(limit)
        except FileNotFoundError:
            raise Missing("it is gone") from None
        except OSError as error:
            raise Missing(error.strerror) from None


class Bucket:
    """Credentials, and where the machine finds the store if not where the Pi does, are in s3.json."""

    def __init__(self, store):
        try:
            import boto3
            from botocore.config import Config
        except ImportError:
            raise Missing("boto3 is missing on the working machine: apt install python3-boto3") from None
        path = os.path.join(os.environ["MILLRACE_ETC"], "s3.json")
        try:
            with open(path, "rb") as file:
                own = json.load(file)
        except FileNotFoundError:
            raise Missing(f"{path} is missing: millrace-worker setup --s3 FILE makes it") from None
        self.bucket = store["bucket"]
        self.client = boto3.client(
            "s3",
            endpoint_url=own.get("endpoint", store["endpoint"]),
            region_name=store["region"],
            aws_access_key_id=own["access_key"],
            aws_secret_access_key=own["secret_key"],
            verify=own.get("ca_file"),
            config=Config(s3={"addressing_style": "path"}, retries={"mode": "standard", "total_max_attempts": 5}),
        )

    def get(self, key, limit):
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read(limit)
        except self.client.exceptions.NoSuchKey:
            raise Missing("it is gone") from None
        except (BotoCoreError, ClientError) as error:
            raise Missing(str(error)) from None


def fetch(store, what):
    """The gzip bytes of one entry of the manifest, verified."""
    data = store.get(what["key"], what["bytes"] + 1)
    if len(data) != what["bytes"]:
        raise Missing(f"it was changed: {what['bytes']} bytes were delivered")
    if hashlib.sha256(data).hexdigest() != what["sha256"]:
        raise Missing("it was changed: its SHA-256 is another")
    return data


def lines(store, what):
    """Of one object, without their ends; as bytes, for what a source said is kept as it was."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(fetch(store, what))) as file:
            for line in file:
                yield line.removesuffix(b"\n")
    except Missing as error:
        raise Missing(f"{what['key']}: {error}") from None
    except (EOFError, OSError, zlib.error) as error:
        raise Missing(f"{what['key']}: it cannot be unpacked: {error}") from None


def envelope(line):
    """What stands before the data, which is the last of a line and is not read; None where that is not so."""
    head, found, _ = line.partition(b',"data":')
    try:
        return json.loads(head + b"}") if found else None
    except ValueError:
        return None


def of_run():
    """The manifest's objects as (entry, lines); each is fetched when its first line is asked for."""
    with open(os.environ["MILLRACE_MANIFEST"], "rb") as file:
        said = manifest.parse(file.read())
    store = {"file": Folder, "s3": Bucket}[said["store"]["kind"]](said["store"])
    for what in said["objects"]:
        yield what, lines(store, what)
