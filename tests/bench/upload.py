# SPDX-License-Identifier: Apache-2.0
"""Bringing a backlog to MinIO: the daemon's upload (parallel = 2, each object conditional, checked and booked) beside
curl putting the same objects with two connections to presigned addresses, which neither signs nor books."""

import base64
import json
import random
import subprocess
import time

import object_store
from bench.report import NotMeasured
from bench.rig import Rig, Watch, memory_kb
from daemon import wait_until
from feed import Answer, Server
from proxy import free_port

BATCHES = 1000
RAW = 80_000  # of each answer; more than max_bytes, so each makes a batch
PATH = "/feed.json"
ROUNDS = 3


def fresh_answers():
    """Each new, and as incompressible as text can be."""
    source = random.Random(1)
    return lambda _request: Answer(json.dumps([base64.b64encode(source.randbytes(RAW * 3 // 4)).decode()]).encode())


def configure(rig, server, bucket, endpoint):
    settings = bucket.settings() | {"endpoint": endpoint}
    rig.configure(
        {"feed": {"url": server.url(PATH), "every": "1h"}}, stores={"lake": settings}, batch={"max_bytes": "64K"}
    )


def collect(rig, server, bucket):
    """A backlog: the store is away while it grows."""
    configure(rig, server, bucket, f"http://127.0.0.1:{free_port()}")
    rig.start()
    for _ in range(BATCHES):
        rig.poll("feed")
    rig.cli("flush")
    rig.stop()


def upload(rig, server, bucket):
    """Seconds until the store has the backlog, and the memory that it took."""
    configure(rig, server, bucket, bucket.store.url)
    begun = time.monotonic()
    rig.start()
    with Watch(rig.pid, 0.02) as watch:
        wait_until("delivery", lambda: rig.store()["delivered_batches"] >= BATCHES, 120)
        seconds = time.monotonic() - begun
    rig.wait_delivered()
    idle = min(watch.seen[0], memory_kb(rig.pid)["private_dirty"])
    rig.stop()
    return seconds, idle, watch.peak


def upload_by_curl(bucket, files, to):
    lines = []
    for file in files:
        url = bucket.client.generate_presigned_url(
            "put_object", Params={"Bucket": bucket.name, "Key": f"{to}/{file.name}"}
        )
        lines.append(f'url = "{url}"\nupload-file = "{file}"\n')
    config = files[0].parent / "curl.conf"
    config.write_text("".join(lines))
    begun = time.monotonic()
    command = ["curl", "-sSf", "--parallel", "--parallel-max", "2", "-K", str(config)]
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - begun


def keep(objects, folder):
    files = []
    for i, content in enumerate(objects.values()):
        files.append(folder / f"{i}.gz")
        files[-1].write_bytes(content)
    return files


def run(bench):
    folder = bench.place("upload")
    store = object_store.Minio(folder / "minio")
    server = Server()
    server.route(PATH, fresh_answers())
    rig = Rig(bench, folder)
    try:
        bucket = object_store.Bucket(store.start(), "lake")
        collect(rig, server, bucket)
        seconds, idle, peak = upload(rig, server, bucket)
        objects = bucket.objects()
        if not BATCHES <= len(objects) <= BATCHES + 2:  # each start polls once
            raise NotMeasured(f"{len(objects)} objects instead of {BATCHES}")
        files = keep(objects, bench.place("upload/files"))
        curl = sorted(upload_by_curl(bucket, files, f"curl-{n}") for n in range(ROUNDS))[ROUNDS // 2]
    finally:
        rig.end()
        store.end()
        server.close()
    size = sum(map(len, objects.values())) / 1e6
    bench.report.row(
        "upload", "a backlog to MinIO", size / seconds, "MB/s", ("curl", size / curl), batches=len(objects)
    )
    bench.report.row("upload", "private dirty meanwhile: peak", peak, "KB", ("before or after", idle))
