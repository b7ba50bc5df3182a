from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmcl.benchmarks.memory_splits import (
    class_halves,
    class_targets,
    first_rows,
    keyed_orders,
    list_web_folders,
    noisy_labels,
    query_shot_rows,
    read_web_list,
    shuffled_classes,
    web_rows,
)
from mmcl.errors import MissingFileError, UserError
from mmcl.images import FileImages

SIZES = st.lists(st.integers(4, 12), min_size=1, max_size=4)


def grouped(sizes: list[int]) -> torch.Tensor:
    return torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


@given(SIZES, st.integers(0, 6), st.integers(0, 3), st.integers(0, 2**20))
def test_queries_and_shots_share_no_image(sizes: list[int], queries: int, shots: int, seed: int) -> None:
    labels = grouped(sizes)
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    orders = keyed_orders(labels, [f"c{label}" for label in range(len(sizes))], seed, "val")
    rows = query_shot_rows(labels, orders, queries, shots)
    assert len({*rows.queries.tolist(), *rows.shots.tolist()}) == len(rows.queries) + len(rows.shots)
    expected = [min(queries or size, size - shots) for size in sizes]
    assert torch.bincount(labels[rows.queries], minlength=len(sizes)).tolist() == expected
    assert labels[rows.shots].tolist() == sorted(list(range(len(sizes))) * shots)


def test_the_draw_of_a_class_depends_on_its_key_alone() -> None:
    alone = keyed_orders(grouped([30]), ["heron"], 7, "val")[0]
    among = keyed_orders(grouped([9, 30]), ["kettle", "heron"], 7, "val")
    assert torch.equal(alone, among[1])
    for other in (keyed_orders(grouped([30]), ["heron"], 8, "val"), keyed_orders(grouped([30]), ["heron"], 7, "tst")):
        assert not torch.equal(alone, other[0])
    assert not torch.equal(alone, keyed_orders(grouped([30]), ["stork"], 7, "val")[0])


def test_a_class_without_a_query_is_named() -> None:
    labels = grouped([5, 4])
    with pytest.raises(UserError, match=r"4 shots.*class 1 \('kettle'\) has 4 images"):
        query_shot_rows(labels, keyed_orders(labels, ["heron", "kettle"]), 0, 4, ["heron", "kettle"])
    with pytest.raises(UserError, match="class 2 has 0"):
        query_shot_rows(labels, keyed_orders(labels, ["a", "b", "c"]), 0, 0)


def test_the_first_rows_of_each_class() -> None:
    assert first_rows(torch.tensor([1, 0, 1, 1, 0, 3]), 2).tolist() == [1, 4, 0, 2, 5]
    assert first_rows(torch.tensor([], dtype=torch.int64), 2).shape == (0,)


def test_labels_are_positions_of_sorted_folders_or_those_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "val_label.json"
    assert class_targets(file, ["b", "c", "a"]) == {"a": 0, "b": 1, "c": 2}
    file.write_text('{"c": 1, "a": 0}')
    assert list(class_targets(file, ["a", "b", "c"]).items()) == [("c", 1), ("a", 0)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (["a"], "is no object"),
        ({"a": "0"}, "is no object"),
        ({"a": True}, "is no object"),
        ({}, "labels are not"),
        ({"a": 0, "b": 2}, "labels are not 0 to 1"),
        ({"a": 0, "b": 0}, "labels are not 0 to 1"),
        ({"a": 0, "bb": 1}, "1 of 2 classes have no folder, 'bb'.*Did you mean 'b'"),
    ],
)
def test_bad_label_files_are_named(content: object, message: str, tmp_path: Path) -> None:
    file = tmp_path / "val_label.json"
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"val_label.json.*{message}"):
        class_targets(file, ["a", "b"])


@given(st.sets(st.text("abc", min_size=1), min_size=1, max_size=20), st.integers(0, 99))
def test_every_class_trains_or_is_held_out(class_ids: set[str], seed: int) -> None:
    halves = class_halves(class_ids, seed)
    assert sorted([*halves.train, *halves.held_out]) == sorted(class_ids)
    assert len(halves.held_out) == (len(class_ids) + 3) // 4
    assert sorted(shuffled_classes(class_ids, seed)) == sorted(class_ids)


@given(st.integers(0, 40), st.floats(0, 1), st.integers(1, 5))
def test_noise_touches_a_share_of_the_labels(count: int, ratio: float, classes: int) -> None:
    labels = torch.full((count,), 99)
    noisy = noisy_labels(labels, ratio, classes, 7)
    assert int((noisy != labels).sum()) == int(ratio * count)
    assert set(noisy.tolist()) <= {99, *range(classes)}
    assert labels.tolist() == [99] * count
    assert torch.equal(noisy, noisy_labels(labels, ratio, classes, 7))


def test_noise_is_uniform_over_classes_and_keyed() -> None:
    labels = torch.zeros(4000, dtype=torch.int64)
    noisy = noisy_labels(labels, 1.0, 4, 7)
    assert (torch.bincount(noisy) - 1000).abs().max() < 120
    assert not torch.equal(noisy, noisy_labels(labels, 1.0, 4, 8))


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_a_share_outside_0_to_1_is_refused(ratio: float) -> None:
    with pytest.raises(UserError, match="label_noise"):
        noisy_labels(torch.zeros(3, dtype=torch.int64), ratio, 2)


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(0, 5))
def test_web_images_are_the_first_of_each_class(web_labels: list[int], per_class: int) -> None:
    targets = {"s3": 0, "s1": 1}
    lines = [f"google/{number} x.jpg {label}\n" for number, label in enumerate(web_labels)]
    expected = []
    for number, label in enumerate(web_labels):
        target = targets.get(f"s{label}")
        if target is not None and (per_class == 0 or web_labels[:number].count(label) < per_class):
            expected.append((f"google/{number} x.jpg", target))
    paths, labels = web_rows(lines, ["s0", "s1", "s2", "s3"], targets, per_class, "list")
    assert list(zip(paths, labels, strict=True)) == expected


@pytest.mark.parametrize("line", ["a.jpg", "a.jpg x", "a.jpg 2", " 1"])
def test_a_bad_line_of_a_web_list_is_named(line: str) -> None:
    with pytest.raises(UserError, match="list, line 3"):
        web_rows(["a.jpg 0", "", line], ["s0", "s1"], {"s0": 0}, 0, "list")


def webvision(root: Path) -> Path:
    (root / "info").mkdir()
    (root / "info" / "synsets.txt").write_text("n01 tench, Tinca tinca\nn02 goldfish\nn03 shark\n")
    (root / "info" / "train_filelist_google.txt").write_text("google/a.jpg 1\ngoogle/b.jpg 0\ngoogle/c.jpg 1\n")
    return root


def test_web_lists_become_samples(tmp_path: Path) -> None:
    samples = read_web_list(webvision(tmp_path), "google", {"n02": 0, "n01": 1}, 1)
    assert isinstance(samples.images, FileImages)
    assert samples.images.paths == ("google/a.jpg", "google/b.jpg")
    assert samples.labels.tolist() == [0, 1]
    assert samples.labels.dtype == torch.int64


def test_bad_web_lists_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="synsets.txt is missing"):
        read_web_list(tmp_path, "google", {"n01": 0}, 1)
    root = webvision(tmp_path)
    with pytest.raises(UserError, match="web_source=gogle.*Did you mean 'google'"):
        read_web_list(root, "gogle", {"n01": 0}, 1)
    with pytest.raises(MissingFileError, match="train_filelist_flickr.txt is missing"):
        read_web_list(root, "flickr", {"n01": 0}, 1)
    with pytest.raises(UserError, match="lacks 1 of 2 class ids, 'x'"):
        read_web_list(root, "google", {"n01": 0, "x": 1}, 1)
    with pytest.raises(UserError, match="no image of any of 1 classes"):
        read_web_list(root, "google", {"n03": 0}, 1)
    (root / "info" / "synsets.txt").write_bytes(b"n01 \xff")
    with pytest.raises(UserError, match="cannot read"):
        read_web_list(root, "google", {"n01": 0}, 1)


def test_web_folders_are_sorted_and_have_one_extension(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "b/1.jpg", "b/3.JPG", "b/._1.jpg", "a/x.jpg", "d/y.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    targets = {"b": 0, "absent": 1, "a": 2, "d": 3}
    samples = list_web_folders(tmp_path, targets, 0)
    assert isinstance(samples.images, FileImages)
    assert samples.images.paths == ("b/1.jpg", "b/2.jpg", "a/x.jpg")
    assert samples.labels.tolist() == [0, 0, 2]
    assert list_web_folders(tmp_path, targets, 1).labels.tolist() == [0, 2]
    with pytest.raises(MissingFileError, match="of 1 classes"):
        list_web_folders(tmp_path, {"d": 0}, 0)
