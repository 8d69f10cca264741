#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make bench: what it costs, each figure beside a peer's in the same run. So far: bringing a backlog to MinIO.

The daemon's upload (parallel = 2, each object conditional, checked and booked) stands beside curl putting the same
objects with two connections to presigned addresses, which neither signs nor books.
"""

import base64
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import object_store
from daemon import Daemon, wait_until
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


def private_dirty_kb(pid):
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"Private_Dirty: +(\d+)", text)[1])


def configure(daemon, server, bucket, endpoint):
    settings = bucket.settings() | {"endpoint": endpoint}
    daemon.configure(
        {"feed": {"url": server.url(PATH), "every": "1h"}}, stores={"lake": settings}, batch={"max_bytes": "64K"}
    )


def collect(daemon, server, bucket):
    """A backlog: the store is away while it grows."""
    configure(daemon, server, bucket, f"http://127.0.0.1:{free_port()}")
    daemon.start()
    for _ in range(BATCHES):
        daemon.poll("feed")
    daemon.cli("flush")
    daemon.stop()


def upload(daemon, server, bucket):
    """Seconds until the store has the backlog, and the memory that it took."""
    configure(daemon, server, bucket, bucket.store.url)
    begun = time.monotonic()
    daemon.start()
    idle = peak = private_dirty_kb(daemon.process.pid)
    while daemon.store()["delivered_batches"] < BATCHES:
        peak = max(peak, private_dirty_kb(daemon.process.pid))
        time.sleep(0.02)
    seconds = time.monotonic() - begun
    wait_until("nothing to wait", lambda: daemon.status()["buffer"]["waiting_batches"] == 0)
    idle = min(idle, private_dirty_kb(daemon.process.pid))
    daemon.stop()
    return seconds, idle, peak


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


def bench_upload(binary, folder):
    store = object_store.Minio(folder / "minio")
    server = Server()
    server.route(PATH, fresh_answers())
    daemon = Daemon(binary, folder)
    try:
        bucket = object_store.Bucket(store.start(), "lake")
        collect(daemon, server, bucket)
        seconds, idle, peak = upload(daemon, server, bucket)
        objects = bucket.objects()
        assert BATCHES <= len(objects) <= BATCHES + 2  # each start polls once
        files = []
        (folder / "files").mkdir()
        for i, content in enumerate(objects.values()):
            files.append(folder / "files" / f"{i}.gz")
            files[-1].write_bytes(content)
        curl = sorted(upload_by_curl(bucket, files, f"curl-{n}") for n in range(ROUNDS))[ROUNDS // 2]
    finally:
        daemon.end()
        store.end()
        server.close()
    size = sum(map(len, objects.values())) / 1e6
    return {
        "batches": len(objects),
        "megabytes": round(size, 1),
        "upload_mb_s": round(size / seconds, 1),
        "curl_mb_s": round(size / curl, 1),
        "upload_beside_curl": round(curl / seconds, 2),
        "private_dirty_idle_kb": idle,
        "private_dirty_added_kb": peak - idle,
    }


def main(binary, folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    figures = {"upload": bench_upload(binary, folder)}
    for name, value in figures["upload"].items():
        print(f"  upload  {name:<24}{value}")
    (folder / "bench.json").write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    os.environ.pop("http_proxy", None)
    main(sys.argv[1], Path(sys.argv[2]).resolve())
