# SPDX-License-Identifier: Apache-2.0
"""The file system that forgets: what was synced stays, what was not may go, and a seed repeats a cut."""

import errno
import os

import pytest

from bench.report import NoRight
from cut import MODELS, CutFS

SEEDS = range(200)
OLD = b"o" * 4096
NEW = b"n" * 4096


@pytest.fixture
def fs(cut_programs, tmp_path):
    try:
        fs = CutFS(cut_programs / "cutfs", tmp_path / "card")
    except NoRight as error:
        pytest.skip(f"NO FILE SYSTEM THAT FORGETS: {error}")
    yield fs
    fs.close()


def sync(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def put(path, content, at=0, synced=True):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.pwrite(fd, content, at)
        if synced:
            os.fsync(fd)
    finally:
        os.close(fd)


def names(fs):
    return {p.name for p in fs.root.iterdir()}


def begin(fs):
    """One file, durable."""
    fs.wipe()
    put(fs.root / "a", OLD)
    sync(fs.root)


@pytest.mark.parametrize("model", MODELS)
def test_what_was_synced_stays(fs, model):
    for seed in SEEDS:
        begin(fs)
        fs.cut(seed, model)
        assert names(fs) == {"a"} and (fs.root / "a").read_bytes() == OLD


def outcomes(fs, model, change, see):
    """What `see` sees after the change and a cut, of all seeds."""
    seen = set()
    for seed in SEEDS:
        begin(fs)
        change()
        fs.cut(seed, model)
        seen.add(see())
    return seen


@pytest.mark.parametrize("model", MODELS)
def test_a_write_is_kept_lost_or_torn_at_512_bytes(fs, model):
    a = fs.root / "a"
    seen = outcomes(fs, model, lambda: put(a, NEW, synced=False), a.read_bytes)
    assert {OLD, NEW} < seen
    for content in seen:
        assert all(content[i : i + 512] in (OLD[:512], NEW[:512]) for i in range(0, 4096, 512))


def test_a_sector_is_whole_where_a_write_begins_within_it(fs):
    a = fs.root / "a"
    seen = outcomes(fs, "strict", lambda: put(a, NEW[:1000], at=700, synced=False), a.read_bytes)
    pieces = [(700, 1024), (1024, 1536), (1536, 1700)]
    for content in seen:
        assert all(content[i:j] in (OLD[i:j], NEW[i:j]) for i, j in pieces)
        assert content[:700] == OLD[:700] and content[1700:] == OLD[1700:]
    assert len(seen) > 4


def test_later_writes_may_overtake(fs):
    a = fs.root / "a"

    def write_twice():
        put(a, b"1" * 512, synced=False)
        put(a, b"2" * 512, synced=False)

    assert outcomes(fs, "strict", write_twice, lambda: a.read_bytes()[:1]) == {b"o", b"1", b"2"}


def test_a_length_may_stay(fs):
    a = fs.root / "a"
    assert outcomes(fs, "ordered", lambda: os.truncate(a, 100), lambda: a.stat().st_size) == {4096, 100}


def test_a_new_name_needs_its_folders_fsync_or_an_ordered_journal(fs):
    def make():
        put(fs.root / "b", NEW)

    seen = {model: outcomes(fs, model, make, lambda: "b" in names(fs)) for model in MODELS}
    assert seen == {"strict": {False, True}, "ordered": {True}}


def test_names_come_in_order_only_where_they_are_ordered(fs):
    def make():
        for name in "bcd":
            (fs.root / name).mkdir()

    ordered = outcomes(fs, "ordered", make, lambda: "".join(sorted(names(fs))))
    assert ordered == {"a", "ab", "abc", "abcd"}
    assert outcomes(fs, "strict", make, lambda: "".join(sorted(names(fs)))) > ordered


@pytest.mark.parametrize("model", MODELS)
def test_a_rename_happens_or_not(fs, model):
    assert outcomes(fs, model, lambda: (fs.root / "a").rename(fs.root / "b"), lambda: tuple(names(fs))) == {
        ("a",),
        ("b",),
    }


@pytest.mark.parametrize("model", MODELS)
def test_a_link_and_an_unlink(fs, model):
    def move():
        os.link(fs.root / "a", fs.root / "b")
        (fs.root / "a").unlink()

    seen = outcomes(fs, model, move, lambda: "".join(sorted(names(fs))))
    assert {"a", "ab", "b"} <= seen and ("" in seen) == (model == "strict")


def test_a_name_is_nothing_without_its_folder(fs):
    def make():
        (fs.root / "f").mkdir()
        put(fs.root / "f" / "x", NEW)
        sync(fs.root / "f")

    assert outcomes(fs, "strict", make, lambda: (fs.root / "f" / "x").exists()) == {False, True}
    assert outcomes(fs, "ordered", make, lambda: (fs.root / "f" / "x").exists()) == {True}


def test_what_stands_in_a_folder_that_somebody_holds_open_stays(fs):
    """A dying program may hold one for a moment longer."""
    folder = fs.root / "folder"
    folder.mkdir()
    put(folder / "a", OLD)
    sync(folder)
    sync(fs.root)
    held = os.open(folder, os.O_RDONLY)
    fs.cut(1, "strict")
    put(fs.root / "b", NEW)
    os.close(held)
    assert names(fs) == {"folder", "b"} and (folder / "a").read_bytes() == OLD


@pytest.mark.parametrize("model", MODELS)
def test_a_seed_repeats_a_cut(fs, model):
    def after(seed):
        begin(fs)
        for i in range(20):
            put(fs.root / "a", bytes([i]) * 3000, at=i * 700, synced=False)
            put(fs.root / f"n{i}", b"x", synced=i % 3 == 0)
        report = fs.cut(seed, model)
        return report, {n: (fs.root / n).read_bytes() for n in names(fs)}

    seeds = SEEDS[:30]
    assert all(after(seed) == after(seed) for seed in seeds)
    assert len({str(after(seed)) for seed in seeds}) > len(seeds) // 2


def code(call, *args):
    with pytest.raises(OSError) as told:
        call(*args)
    return told.value.errno


def test_all_fails_while_it_is_frozen(fs):
    begin(fs)
    held = (fs.root / "a").open("r+b", buffering=0)
    fs.freeze()
    assert fs.frozen()
    calls = [lambda: held.read(1), lambda: held.write(b"x"), lambda: os.fsync(held.fileno())]
    calls += [lambda: os.stat(fs.root / "a"), lambda: os.listdir(fs.root), lambda: os.mkdir(fs.root / "b")]
    assert {code(call) for call in calls} == {errno.EIO}
    held.close()
    fs.cut(1, "strict")
    assert not fs.frozen() and (fs.root / "a").read_bytes() == OLD


def test_it_freezes_at_the_call_that_was_named(fs):
    begin(fs)
    fs.freeze(2, "=/a")
    put(fs.root / "ab", OLD)
    put(fs.root / "a", NEW, synced=False)
    assert not fs.frozen()
    assert code(put, fs.root / "a", NEW, 0, False) == errno.EIO
    assert fs.frozen()
    fs.cut(1, "strict")
    fs.freeze(1)
    assert not fs.freeze_off()
    put(fs.root / "a", NEW)


def test_a_call_fails_once(fs):
    begin(fs)
    fs.fail(2, "once", "ENOSPC")
    put(fs.root / "a", OLD, synced=False)
    assert code(put, fs.root / "a", NEW) == errno.ENOSPC
    put(fs.root / "a", NEW, synced=False)
    stats = fs.stats()
    assert (stats["failed"], stats["since"]) == (1, 3)
    assert stats["unsynced"] == 2 * 4096


def test_calls_fail_from_one_on(fs):
    begin(fs)
    fs.fail(1, "forever", "EROFS", "/a")
    assert [code(put, fs.root / "a", NEW) for _ in range(3)] == [errno.EROFS] * 3
    put(fs.root / "b", NEW)
    fs.fail_off()
    put(fs.root / "a", NEW)
    assert fs.stats()["failed"] == 3


def test_a_full_card_says_so(fs):
    begin(fs)
    assert os.statvfs(fs.root).f_bavail > 0
    fs.fail(1, "forever", "ENOSPC")
    assert code(put, fs.root / "a", NEW) == errno.ENOSPC
    assert os.statvfs(fs.root).f_bavail == 0


def test_readonly(fs):
    begin(fs)
    fs.readonly(True)
    assert code(put, fs.root / "a", NEW) == errno.EROFS
    assert code(os.mkdir, fs.root / "b") == errno.EROFS
    assert (fs.root / "a").read_bytes() == OLD
    fs.readonly(False)
    put(fs.root / "a", NEW)


def test_what_is_no_command_is_refused(fs):
    for text in ("", "cut", "cut x strict", "fail 1 once ENOENT", "freeze x"):
        assert code(fs.command, text or " ") == errno.EINVAL
