# SPDX-License-Identifier: Apache-2.0
"""Reads a store, a folder or a bucket, as a stranger would, checks every object against its own name, and counts.

Knows interface.md's "Objects" and nothing of Millrace's code. Data is cut out of a line, never parsed and written
again. Standard library only: who reads a bucket brings boto3's client.
"""

import gzip
import hashlib
import itertools
import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

KEY = re.compile(
    r"source=(?P<source>[a-z_][a-z0-9_-]*)/dt=(?P<dt>\d{4}-\d\d-\d\d)/"
    r"(?P<device>[A-Za-z0-9._-]+)-(?P<boot>[0-9a-f]{8})-(?P<first>\d+)-(?P<last>\d+)-(?P<sha8>[0-9a-f]{8})\.ndjson\.gz"
)
ENVELOPE = ["source", "device", "boot", "seq", "fetch", "fetched_at", "clock"]
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00"  # no name, no time
MARKS = (".millrace-store", ".millrace-probe")
RUNS = "_runs/"  # manifests and logs of runs, which are no objects


@dataclass
class Record:
    source: str
    device: str
    boot: str
    seq: int
    fetch: int
    fetched_at: str
    clock: str
    data: bytes
    line: bytes


@dataclass
class Object:
    key: str
    records: list
    raw_bytes: int
    bytes: int


@dataclass
class Lake:
    objects: list = field(default_factory=list)  # by source and seq, but for those of the built-in sources
    built_in: list = field(default_factory=list)  # which are these: the daemon's own, no feed has served them
    problems: list = field(default_factory=list)

    def records(self, source=None):
        """By source and seq; what stands twice comes twice. Those of a built-in source, if it is named."""
        objects = self.built_in if source and source.startswith("_") else self.objects
        found = [r for o in objects for r in o.records if source in (None, r.source)]
        return sorted(found, key=lambda r: (r.source, r.device, r.seq))

    def data(self, source):
        return [r.data for r in self.records(source)]


@dataclass
class Count:
    served: int
    stored: int
    lost: int
    twice: int


def parse_line(line):
    head, found, data = line.partition(b',"data":')
    if not found or not data.endswith(b"}"):
        raise ValueError("no data at its end")
    envelope = json.loads(head + b"}")
    if list(envelope) != ENVELOPE:
        raise ValueError(f"its keys are {list(envelope)}")
    if not TIME.fullmatch(envelope["fetched_at"]) or envelope["clock"] not in ("synced", "corrected", "unsynced"):
        raise ValueError("fetched_at or clock is wrong")
    return Record(**envelope, data=data[:-1], line=line)


def read_object(stored, key, problems):
    """One object; what is wrong with it goes to problems."""
    named = KEY.fullmatch(key)
    if not named:
        problems.append(f"{key}: no name for an object")
        return None
    try:
        raw = gzip.decompress(stored)
        records = [parse_line(line) for line in raw.split(b"\n")[:-1]]
    except (OSError, EOFError, ValueError) as error:
        problems.append(f"{key}: {error}")
        return None
    for wrong in disagreements(named, stored, raw, records):
        problems.append(f"{key}: {wrong}")
    return Object(key, records, len(raw), len(stored))


def disagreements(named, stored, raw, records):
    """Where an object's content is not what its name says."""
    if not stored.startswith(GZIP_HEADER):
        yield "its gzip header has a name or a time"
    if hashlib.sha256(stored).hexdigest()[:8] != named["sha8"]:
        yield "its SHA-256 is another"
    if not raw.endswith(b"\n"):
        yield "its last line does not end"
    if [r.seq for r in records] != list(range(int(named["first"]), int(named["last"]) + 1)):
        yield f"it holds other seq than its name says: {[r.seq for r in records][:20]} …"
    for what in ("source", "device", "boot"):
        if {getattr(r, what) for r in records} != {named[what]}:
            yield f"{what} is not its name's"
    if {r.fetched_at[:10] for r in records} != {named["dt"]}:
        yield f"dt is not the date of {sorted({r.fetched_at for r in records})[:3]}"


def in_folder(folder, prefix=""):
    """Key below the prefix and bytes of everything in a `file` store."""
    root = Path(folder) / prefix
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def in_bucket(client, bucket, prefix=""):
    """The same of an `s3` store."""
    below = f"{prefix}/" if prefix else ""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=below)
    keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
    return {key[len(below) :]: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


def read(folder, prefix=""):
    """Everything in a `file` store, read and checked."""
    return check(in_folder(folder, prefix))


def read_bucket(client, bucket, prefix=""):
    """Everything in an `s3` store below a prefix, read and checked."""
    return check(in_bucket(client, bucket, prefix))


def check(stored):
    """Key -> bytes, read and checked."""
    lake = Lake()
    for key, content in stored.items():
        if key in MARKS or key.startswith(RUNS):
            continue
        found = read_object(content, key, lake.problems)
        if found:
            (lake.built_in if key.startswith("source=_") else lake.objects).append(found)
    for objects in (lake.objects, lake.built_in):
        objects.sort(key=lambda o: (o.records[0].source, o.records[0].seq) if o.records else ("", 0))
    check_seq(lake)
    return lake


def check_seq(lake):
    """Per source and device seq counts from 1, each once; fetch and time never go back."""
    by_source = defaultdict(list)
    for item in lake.objects + lake.built_in:
        for record in item.records:
            by_source[record.source, record.device].append(record)
    for records in by_source.values():
        records.sort(key=lambda r: r.seq)
    for (source, device), records in by_source.items():
        seqs = Counter(r.seq for r in records)
        twice = [seq for seq, n in seqs.items() if n > 1]
        gaps = sorted(set(range(1, max(seqs) + 1)) - set(seqs))
        if twice:
            lake.problems.append(f"{source} of {device}: seq {twice[:20]} stand more than once")
        if gaps:
            lake.problems.append(f"{source} of {device}: seq {gaps[:20]} are missing")
        if any(a.fetch > b.fetch for a, b in itertools.pairwise(records)):
            lake.problems.append(f"{source} of {device}: fetch goes back")


def compare(lake, served):
    """served: source -> the bytes of its records. Counts by content and by (source, device, boot, seq)."""
    lost = twice = 0
    for source, expected in served.items():
        want, have = Counter(expected), Counter(lake.data(source))
        lost += (want - have).total()
        twice += (have - want).total()
    names = Counter((r.source, r.device, r.boot, r.seq) for r in lake.records())
    twice = max(twice, sum(n - 1 for n in names.values()))
    return Count(sum(map(len, served.values())), len(lake.records()), lost, twice)
