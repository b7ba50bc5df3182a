"""Entries are whole or not there, found by their content alone."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmcl.errors import UserError
from mmcl.features.cache import FeatureCache, PartWriter, Wanted
from mmcl.whole_files import disk_space

WANTED = Wanted("dtd/test", {"encoder": "abc"}, (5, 2, 3), "float16")
FEATURES = torch.arange(30.0).view(5, 2, 3)
ARRAYS = {"labels": torch.tensor([0, 0, 1, 1, 2])}


def write(cache: FeatureCache, wanted: Wanted = WANTED, processes: int = 1) -> None:
    part = cache.begin(wanted)
    fill(part, wanted, processes)
    cache.commit(wanted, part, ARRAYS, processes)


def fill(part: Path, wanted: Wanted, processes: int = 1) -> None:
    for rank in range(processes):
        rows = FEATURES[rank::processes]
        writer = PartWriter(part / f"part-{rank}.npy", tuple(rows.shape), wanted.dtype)
        for batch in rows.split(2):
            writer.write(batch)
        writer.close()


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "cache")


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_what_was_written_is_read(cache: FeatureCache, processes: int) -> None:
    assert not cache.find(WANTED)
    write(cache, processes=processes)
    assert cache.find(WANTED)
    stored = cache.read(WANTED)
    assert torch.equal(stored.features, FEATURES.half())
    assert torch.equal(stored.arrays["labels"], ARRAYS["labels"])
    (entry,) = cache.list_entries()
    assert (entry.shape, entry.dtype) == ((5, 2, 3), "float16")
    assert entry.name.startswith("dtd_test-")
    assert sorted(path.name for path in entry.path.iterdir()) == ["features.npy", "labels.npy", "meta.json"]
    assert entry.nbytes == sum(path.stat().st_size for path in entry.path.iterdir())
    assert cache.verify(entry.name)


@pytest.mark.parametrize(
    "other",
    [
        Wanted("dtd/test", {"encoder": "abd"}, (5, 2, 3), "float16"),
        Wanted("dtd/test", {"encoder": "abc"}, (5, 3, 2), "float16"),
        Wanted("dtd/test", {"encoder": "abc"}, (5, 2, 3), "float32"),
    ],
)
def test_another_content_is_another_entry(cache: FeatureCache, other: Wanted) -> None:
    write(cache)
    assert not cache.find(other)
    assert cache.find(WANTED)


def truncate(entry: Path) -> None:
    os.truncate(entry / "features.npy", 130)


def lose_labels(entry: Path) -> None:
    (entry / "labels.npy").unlink()


def garble(entry: Path) -> None:
    (entry / "meta.json").write_text("{")


def swap(entry: Path) -> None:
    meta = json.loads((entry / "meta.json").read_text())
    (entry / "meta.json").write_text(json.dumps({**meta, "key": "0" * 64}))


def reshape(entry: Path) -> None:
    np.save(entry / "features.npy", np.zeros((5, 3, 2), np.float16))


@pytest.mark.parametrize("damage", [truncate, lose_labels, garble, swap, reshape])
def test_a_damaged_entry_is_made_again(cache: FeatureCache, damage: object) -> None:
    write(cache)
    damage(cache.folder / WANTED.folder_name)  # type: ignore[operator]
    assert not cache.find(WANTED)
    write(cache)
    assert torch.equal(cache.read(WANTED).features, FEATURES.half())


def test_a_changed_bit_is_noticed_at_once_or_in_a_large_entry_by_verify(
    cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(cache)
    path = cache.folder / WANTED.folder_name / "features.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert not cache.verify(WANTED.folder_name)
    with monkeypatch.context() as patch:
        patch.setattr("mmcl.features.cache.VERIFIED_BYTES", 0)
        assert cache.find(WANTED)
    assert not cache.find(WANTED)
    assert not path.exists()


def test_the_first_to_finish_wins(cache: FeatureCache) -> None:
    slow = cache.begin(WANTED)
    moved = slow.with_name(".other.part")
    slow.rename(moved)  # as if of another process
    write(cache)
    written = (cache.folder / WANTED.folder_name).stat().st_mtime_ns
    fill(moved, WANTED)
    cache.commit(WANTED, moved, ARRAYS)
    assert (cache.folder / WANTED.folder_name).stat().st_mtime_ns == written
    assert [path.name for path in cache.folder.iterdir()] == [WANTED.folder_name]


def test_what_a_killed_run_left_is_removed(cache: FeatureCache) -> None:
    killed = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    ours = cache.begin(WANTED)
    leftover = ours.with_name(ours.name.replace(str(os.getpid()), killed.stdout.strip()))
    leftover.mkdir()
    (leftover / "part-0.npy").write_bytes(b"half")
    cache.begin(WANTED)
    assert [path.name for path in cache.folder.iterdir()] == [ours.name]


def test_clear(cache: FeatureCache) -> None:
    other = Wanted("cub-test", {}, (5, 2, 3), "float16")
    write(cache)
    write(cache, other)
    with pytest.raises(UserError, match="no entry 'cub'"):
        cache.clear(["cub"])
    assert [entry.name for entry in cache.clear(["cub-*"])] == [other.folder_name]
    assert [entry.name for entry in cache.list_entries()] == [WANTED.folder_name]
    (cache.folder / "mine").mkdir()
    assert len(cache.clear()) == 1
    assert [path.name for path in cache.folder.iterdir()] == ["mine"]


def test_numbers_that_half_precision_cannot_hold(tmp_path: Path) -> None:
    writer = PartWriter(tmp_path / "part-0.npy", (1, 2), "float16")
    with pytest.raises(UserError, match="features_precision=float32"):
        writer.write(torch.tensor([[1.0, 1e6]]))


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no space left"), disk_space(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(UserError, match=r"paths.cache"):
        FeatureCache(tmp_path / "cache").begin(WANTED)
