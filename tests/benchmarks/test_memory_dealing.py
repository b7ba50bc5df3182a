"""Classes get roles and images get uses by keyed draws, none twice."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmcl.benchmarks.memory_dealing import (
    Counts,
    Pool,
    class_roles,
    deal,
    deal_pool,
    roles_beside,
    rows_of_classes,
)
from mmcl.errors import UserError
from mmcl.images import FileImages
from mmcl.protocol import Samples


def samples(sizes: list[int], name: str) -> Samples:
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    files = tuple(f"{name}/{row}" for row in range(len(labels)))
    return Samples(FileImages(Path(), files), labels, torch.arange(len(labels)))


def ids(sizes: list[int]) -> tuple[str, ...]:
    return tuple(f"c{number}" for number in range(len(sizes)))


def counts_of(part: Samples, classes: int) -> list[int]:
    return torch.bincount(part.labels, minlength=classes).tolist()


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_every_class_has_one_role(seen: int, validation: int, unseen: int, seed: int) -> None:
    roles = class_roles(seen + validation + unseen, validation, unseen, seed)
    assert [len(part) for part in roles] == [seen, validation, unseen]
    assert sorted(position for part in roles for position in part) == list(range(seen + validation + unseen))
    if seen > 1:
        assert class_roles(seen + validation + unseen, validation + 1, unseen, seed).unseen == roles.unseen


def test_unseen_classes_may_be_given() -> None:
    roles = roles_beside(6, (1, 4), 1, 0)
    assert roles.unseen == (1, 4)
    assert sorted((*roles.seen, *roles.validation)) == [0, 2, 3, 5]
    with pytest.raises(UserError, match="4 classes are too few: 3 are unseen, 1 or more"):
        class_roles(4, 1, 3, 0)


@given(st.lists(st.integers(0, 7), min_size=1, max_size=4), st.integers(0, 4), st.integers(0, 4), st.integers(0, 9))
def test_every_image_is_dealt_once(sizes: list[int], training: int, shots: int, seed: int) -> None:
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    dealt = deal(labels, ids(sizes), [training] * len(sizes), [shots] * len(sizes), seed)
    assert sorted(row for part in dealt for row in part.tolist()) == list(range(len(labels)))
    for part, wanted in (
        (dealt.shots, [min(shots, size) for size in sizes]),
        (dealt.training, [min(training, size - min(shots, size)) for size in sizes]),
    ):
        assert labels[part].tolist() == sorted(labels[part].tolist())
        assert torch.bincount(labels[part], minlength=len(sizes)).tolist() == wanted


@given(st.lists(st.integers(8, 12), min_size=1, max_size=3), st.booleans(), st.booleans(), st.integers(0, 9))
def test_a_pool_serves_every_use(sizes: list[int], has_test: bool, has_web: bool, seed: int) -> None:
    asked = samples([3] * len(sizes), "test") if has_test else None
    web = samples([5] * len(sizes), "web") if has_web else None
    dealt = deal_pool(Pool(ids(sizes), samples(sizes, "train"), asked, web), Counts(2, 2, 3, 1), seed)
    listed = [path for part in dealt for path in part.images.paths]  # type: ignore[union-attr]
    assert len(set(listed)) == len(listed)
    for part, wanted in zip(dealt, (2, 2, 3, 1), strict=True):
        assert counts_of(part, len(sizes)) == [wanted] * len(sizes)
    sources = [part.images.paths[0].split("/")[0] for part in dealt]  # type: ignore[union-attr]
    assert sources == ["train", "test" if has_test else "train", "web" if has_web else "train", "train"]


def test_a_class_is_dealt_whatever_others_there_are() -> None:
    pools = [Pool(("c0",), samples([9], "x"), None, None), Pool(("c0", "c1"), samples([9, 4], "x"), None, None)]
    alone, among = (deal_pool(pool, Counts(1, None, 2, 0), 3) for pool in pools)
    for one, other in zip(alone, among, strict=True):
        assert one.images.paths == other.select(other.labels == 0).images.paths  # type: ignore[union-attr]


def test_too_few_images_are_named() -> None:
    pool = Pool(("a", "b"), samples([9, 3], "x"), None, None)
    with pytest.raises(UserError, match="no image of class 'b' is left to ask about"):
        deal_pool(pool, Counts(1, 5, 2, 0), 0)
    with pytest.raises(UserError, match="benchmark.memory_images=null"):
        deal_pool(pool, Counts(1, 5, None, 0), 0)


def test_rows_of_classes_come_in_their_order() -> None:
    rows, labels = rows_of_classes(torch.tensor([0, 2, 1, 2, 0]), [2, 0], 3)
    assert rows.tolist() == [1, 3, 0, 4]
    assert labels.tolist() == [0, 0, 1, 1]
