# SPDX-License-Identifier: Apache-2.0
"""The reader that judges Millrace is judged itself: it must see what is lost, doubled, or not what its name says."""

import gzip
import hashlib

import pytest

import lake

SERVED = {"feed": [b"1", b"2", b"3", b"4"]}


def line(seq, data, day="21"):
    return (
        b'{"source":"feed","device":"pi-1","boot":"9f8e7d6c","seq":%d,"fetch":%d,'
        b'"fetched_at":"2026-11-%sT10:02:00.123Z","clock":"synced","data":%s}\n'
    ) % (seq, seq, day.encode(), data)


def put(folder, first, last, lines, day="21"):
    stored = gzip.compress(b"".join(lines), mtime=0)
    sha8 = hashlib.sha256(stored).hexdigest()[:8]
    path = folder / f"source=feed/dt=2026-11-{day}/pi-1-9f8e7d6c-{first}-{last}-{sha8}.ndjson.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(stored)
    return path


@pytest.fixture
def store(tmp_path):
    (tmp_path / lake.MARKS[0]).write_text("")
    put(tmp_path, 1, 2, [line(1, b"1"), line(2, b"2")])
    return tmp_path


def judge(store):
    found = lake.read(store)
    count = lake.compare(found, SERVED)
    return count.lost, count.twice, len(found.problems)


def test_a_good_store_is_good(store):
    put(store, 3, 4, [line(3, b"3"), line(4, b"4")])
    assert judge(store) == (0, 0, 0)


def test_what_runs_leave_is_no_object(store):
    put(store, 3, 4, [line(3, b"3"), line(4, b"4")])
    run = store / "_runs/parking/0198aa10f3b2c4d5e6f708192a3b4c5d"
    run.mkdir(parents=True)
    (run / "manifest.json").write_text("{}")
    (run / "log.gz").write_bytes(gzip.compress(b"done\n", mtime=0))
    assert judge(store) == (0, 0, 0)
    (store / "_runs.gz").write_bytes(b"")
    assert judge(store) == (0, 0, 1)


def test_a_missing_object_is_lost(store):
    put(store, 4, 4, [line(4, b"4")])
    assert judge(store) == (1, 0, 1)


def test_a_missing_last_object_is_lost(store):
    assert judge(store) == (2, 0, 0)


def test_the_same_seq_in_two_objects_is_twice(store):
    put(store, 2, 4, [line(2, b"2"), line(3, b"3"), line(4, b"4")])
    assert judge(store) == (0, 1, 1)


def test_the_same_records_under_other_seqs_are_twice(store):
    put(store, 3, 5, [line(3, b"3"), line(4, b"4"), line(5, b"4")])
    assert judge(store) == (0, 1, 0)


def test_changed_bytes_are_lost_and_alien(store):
    put(store, 3, 4, [line(3, b"3.0"), line(4, b"4")])
    assert judge(store) == (1, 1, 0)


@pytest.mark.parametrize(
    "lines",
    [
        [line(3, b"3"), line(5, b"4")],
        [line(3, b"3", day="22"), line(4, b"4")],
        [line(3, b"3").replace(b"9f8e7d6c", b"00000000"), line(4, b"4")],
        [line(3, b"3"), line(4, b"4")[:-1]],
        [line(3, b"3").replace(b'"seq"', b'"sec"'), line(4, b"4")],
    ],
    ids=["seq", "day", "boot", "end of line", "key"],
)
def test_content_that_is_not_its_name_s_is_a_problem(store, lines):
    put(store, 3, 4, lines)
    assert judge(store)[2] >= 1


def test_a_flipped_byte_and_a_left_over_file_are_problems(store):
    path = put(store, 3, 4, [line(3, b"3"), line(4, b"4")])
    stored = bytearray(path.read_bytes())
    stored[9] ^= 1  # the gzip header's operating system, which no checksum of gzip's covers
    path.write_bytes(stored)
    assert judge(store) == (0, 0, 1)
    (store / "source=feed/something.tmp").write_bytes(b"")
    assert judge(store) == (0, 0, 2)
