from __future__ import annotations

import copy
import io
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcl.images import FileImages, FloatPixels
from mmcl.memory.row_store import RowStore
from mmcl.protocol import Samples

Labels = st.lists(st.integers(0, 4), min_size=0, max_size=12)


def pixels(labels: list[int], first_source: int = 0) -> Samples:
    sources = torch.arange(first_source, first_source + len(labels))
    images = (sources % 256).to(torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2)
    return Samples(images, torch.tensor(labels, dtype=torch.int64), sources)


def files(root: Path, labels: list[int]) -> Samples:
    paths = tuple(f"{number}.png" for number in range(len(labels)))
    for number, path in enumerate(paths):
        (root / path).write_bytes(b"x" * (number + 1))
    return Samples(FileImages(root, paths), torch.tensor(labels), torch.arange(len(labels)))


def float_pixels(labels: list[int]) -> Samples:
    whole = pixels(labels)
    return Samples(FloatPixels(whole.images + 0.25), whole.labels, whole.sources)  # type: ignore[operator]


def saved_and_loaded(store: RowStore) -> RowStore:
    file = io.BytesIO()
    torch.save(store.state_dict(), file)
    file.seek(0)
    restored = RowStore()
    restored.load_state_dict(torch.load(file, weights_only=True))
    return restored


def assert_same_rows(left: Samples, right: Samples) -> None:
    assert left.labels.tolist() == right.labels.tolist()
    assert left.sources.tolist() == right.sources.tolist()
    if isinstance(left.images, FileImages):
        assert left.images == right.images
    elif isinstance(left.images, FloatPixels):
        assert torch.equal(left.images.values, right.images.values)  # type: ignore[union-attr]
    else:
        assert torch.equal(left.images, right.images)


@settings(max_examples=50, deadline=None)
@given(Labels, Labels, st.integers(0, 5))
def test_rows_stay_grouped_and_a_smaller_memory_is_a_prefix(first: list[int], second: list[int], count: int) -> None:
    store = RowStore()
    store.append(pixels(first))
    store.append(pixels(second, first_source=100))
    whole = {label: store.rows(label).sources.tolist() for label in store.classes}
    everything = list(enumerate(first)) + list(enumerate(second, start=100))
    present = sorted(set(first + second))
    assert whole == {label: [source for source, its in everything if its == label] for label in present}
    store.keep_first(count)
    assert {label: store.rows(label).sources.tolist() for label in store.classes} == {
        label: sources[:count] for label, sources in whole.items() if count
    }
    assert store.counts(5).tolist() == [min(count, len(whole.get(label, []))) for label in range(5)]
    assert len(store) == int(store.counts(5).sum())
    if len(store):
        labels = store.samples().labels.tolist()
        assert labels == sorted(labels)
        assert_same_rows(saved_and_loaded(store).samples(), store.samples())


def test_payload_bytes_are_those_of_the_kept_pixels() -> None:
    training = Samples(
        torch.zeros(1000, 3, 32, 32, dtype=torch.uint8),
        torch.zeros(1000, dtype=torch.int64),
        torch.arange(1000),
    )
    store = RowStore()
    store.append(training.select(torch.arange(20)))
    store.keep_first(7)
    kept = store.samples().images
    assert isinstance(kept, torch.Tensor)
    assert store.payload_bytes == 7 * 3072 == store.rows(0).images.untyped_storage().nbytes()  # type: ignore[union-attr]
    assert store.memory_bytes == 7 * (3072 + 8 + 8)


def test_rows_are_copies() -> None:
    fresh = Samples(torch.ones(2, 3), torch.tensor([0, 1]), torch.arange(2))
    store = RowStore()
    store.append(fresh)
    fresh.images.zero_()  # type: ignore[union-attr]
    assert store.samples().images.sum() == 6  # type: ignore[union-attr]


def test_float_rows_can_be_taken_out_changed_and_put_back() -> None:
    store = RowStore()
    store.append(Samples(torch.zeros(4, 3, 2, 2), torch.tensor([0, 0, 1, 1]), torch.arange(4)))
    taken = store.rows(1)
    store.replace_class(1, Samples(taken.images + 0.5, taken.labels, taken.sources))  # type: ignore[operator]
    assert store.rows(1).images.mean() == 0.5  # type: ignore[union-attr]
    assert store.rows(0).images.mean() == 0  # type: ignore[union-attr]


def test_replacing_a_class_by_rows_of_another_is_refused() -> None:
    store = RowStore()
    store.append(pixels([0, 1]))
    with pytest.raises(ValueError, match=r"rows for class 0 carry labels \[0, 1\]"):
        store.replace_class(0, pixels([0, 1]))
    assert len(store) == 2


def test_removed_classes_are_gone() -> None:
    store = RowStore()
    store.append(pixels([0, 1, 2]))
    store.remove_classes([1, 7])
    assert store.classes == [0, 2]
    with pytest.raises(KeyError):
        store.rows(1)


def test_every_change_and_every_load_makes_derived_views_out_of_date() -> None:
    store = RowStore()
    versions = [store.version]
    store.append(pixels([0, 0, 1]))
    versions.append(store.version)
    store.keep_first(1)
    versions.append(store.version)
    store.replace_class(1, pixels([1]))
    versions.append(store.version)
    store.remove_classes([0])
    versions.append(store.version)
    saved = store.get_extra_state()
    store.set_extra_state(saved)
    versions.append(store.version)
    assert versions == sorted(set(versions))


def test_an_empty_store_saves_loads_and_follows_nothing() -> None:
    store = saved_and_loaded(RowStore())
    fresh = pixels([3, 3])
    assert len(store) == 0
    assert_same_rows(store.join_after(fresh), fresh)
    with pytest.raises(LookupError, match="empty"):
        store.samples()


def test_loading_into_a_filled_store_replaces_its_rows() -> None:
    saved, store = RowStore(), RowStore()
    saved.append(pixels([0]))
    store.append(pixels([4, 4]))
    store.load_state_dict(saved.state_dict())
    assert store.classes == [0]


def test_files_are_kept_as_names_and_measured_by_their_size(tmp_path: Path) -> None:
    store = RowStore()
    store.append(files(tmp_path, [1, 0, 1]))
    assert store.payload_bytes == 1 + 2 + 3
    assert_same_rows(saved_and_loaded(store).samples(), store.samples())
    assert_same_rows(copy.deepcopy(store).samples(), store.samples())
    assert store.samples().images == FileImages(tmp_path, ("1.png", "0.png", "2.png"))


def test_files_follow_the_data_to_another_folder(tmp_path: Path) -> None:
    store = RowStore()
    store.append(files(tmp_path, [0, 1]))
    moved = tmp_path / "moved"
    moved.mkdir()
    store.append(files(moved, [2]))
    assert all(store.rows(label).images.root == moved for label in store.classes)  # type: ignore[union-attr]


def test_float_pixels_are_kept_measured_saved_and_copied() -> None:
    store = RowStore()
    store.append(float_pixels([1, 0, 1]))
    store.append(float_pixels([2]))
    assert store.payload_bytes == 4 * 3 * 2 * 2 * 4
    assert store.samples().images.values[:, 0, 0, 0].tolist() == [1.25, 0.25, 2.25, 0.25]  # type: ignore[union-attr]
    assert_same_rows(saved_and_loaded(store).samples(), store.samples())
    assert_same_rows(copy.deepcopy(store).samples(), store.samples())
    store.keep_first(1)
    assert store.rows(1).sources.tolist() == [0]


def test_new_images_of_any_kind_come_before_kept_float_pixels(tmp_path: Path) -> None:
    store = RowStore()
    store.append(float_pixels([1, 0]))
    for fresh in (pixels([2, 2, 2]), files(tmp_path, [2, 2, 2])):
        joined = store.join_after(fresh)
        assert joined.labels.tolist() == [2, 2, 2, 0, 1]
        rows = torch.arange(5)
        assert_same_rows(joined.select(rows[:3]), fresh)
        assert_same_rows(joined.select(rows[3:]), store.samples())
        assert_same_rows(store.join_after(fresh.select(rows[:0])), store.samples())


def test_a_copy_changes_alone() -> None:
    store = RowStore()
    store.append(pixels([0, 0]))
    other = copy.deepcopy(store)
    other.keep_first(1)
    assert (len(store), len(other)) == (2, 1)


def test_payloads_of_two_kinds_are_refused(tmp_path: Path) -> None:
    store = RowStore()
    store.append(pixels([0, 1]))
    with pytest.raises(TypeError, match="the added rows are files"):
        store.append(files(tmp_path, [1]))
    with pytest.raises(TypeError, match="files"):
        store.replace_class(1, files(tmp_path, [1]))
    with pytest.raises(TypeError, match="float32"):
        store.append(Samples(torch.zeros(1, 3, 2, 2), torch.tensor([1]), torch.tensor([9])))
    with pytest.raises(TypeError, match="float pixels of shape"):
        store.append(float_pixels([1]))
    with pytest.raises(TypeError, match="of one kind"):
        RowStore().append(Samples.concatenate([pixels([0]), float_pixels([1])]))
    assert store.classes == [0, 1]
