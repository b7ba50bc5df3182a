from __future__ import annotations

import pytest
import torch
from torch import nn

from mmcl.errors import UserError
from mmcl.memory.accounting import (
    CIFAR_IMAGE_BYTES,
    IMAGENET_IMAGE_BYTES,
    BlockParameters,
    ByteReport,
    aligned_exemplars,
    budget_mebibytes,
    counted_parameters,
    exemplars_worth,
    module_bytes,
)
from mmcl.memory.row_store import RowStore
from mmcl.protocol import Samples

RESNET32 = BlockParameters(463_504, 112_016, 351_488)
RESNET18 = BlockParameters(11_176_512, 2_782_784, 8_393_728)


def test_a_model_or_603_exemplars() -> None:
    assert exemplars_worth(RESNET32.plain, CIFAR_IMAGE_BYTES) == 603
    assert exemplars_worth(RESNET18.plain, IMAGENET_IMAGE_BYTES) == 296


@pytest.mark.parametrize(("tasks", "single", "memo"), [(20, 13466, 4771), (10, 7431, 3312), (26, 17088, 5646)])
def test_fair_exemplars_on_cifar(tasks: int, single: int, memo: int) -> None:
    budget = counted_parameters("der", RESNET32, tasks)
    for growth, expected in (("single", single), ("memo", memo), ("der", 2000)):
        own = counted_parameters(growth, RESNET32, tasks)
        assert aligned_exemplars(2000, budget, own, CIFAR_IMAGE_BYTES) == expected


def test_fair_exemplars_on_imagenet_1000_start_from_20000() -> None:
    budget = counted_parameters("der", RESNET18, 10)
    own = counted_parameters("memo", RESNET18, 10)
    assert aligned_exemplars(20_000, budget, own, IMAGENET_IMAGE_BYTES) == 20_665


def test_budget_of_the_tables() -> None:
    parameters = counted_parameters("memo", RESNET32, 10)
    assert round(budget_mebibytes(parameters, 3312, CIFAR_IMAGE_BYTES), 2) == 23.54


def test_unknown_growth_names_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"expected one of single, der, memo.*'memo'"):
        counted_parameters("memoo", RESNET32, 2)


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))
        self.head = nn.Linear(4, 5)
        self.auxiliary_head = nn.Linear(4, 2)


def test_report_measures_each_part_once() -> None:
    model, teacher, store = TwoHeads(), TwoHeads().half(), RowStore()
    store.append(Samples(torch.zeros(3, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 1]), torch.arange(3)))
    report = ByteReport.measure(model, image_bytes=100, memory=store, teacher=teacher)
    body = 3 * 4 * 9 + 4 + 4
    assert report.model_bytes == report.paper_model_bytes == 4 * body
    assert report.head_bytes == 4 * (4 * 5 + 5 + 4 * 2 + 2)
    assert report.buffer_bytes == 4 * (4 + 4) + 8
    assert report.memory_bytes == 3 * (3 * 8 * 8 + 8 + 8)
    assert report.teacher_bytes == module_bytes(teacher).total == 2 * (body + 35) + 2 * 8 + 8
    assert report.paper_memory_bytes == 300
    assert report.exemplars == 3
    assert report.equals_exemplars == 4 * body // 100
    parts = (
        report.model_bytes,
        report.head_bytes,
        report.buffer_bytes,
        report.memory_bytes,
        report.teacher_bytes,
    )
    assert report.total_bytes == sum(parts)
    assert report.paper_bytes == 4 * body + 300


def test_the_papers_bytes_do_not_follow_the_precision() -> None:
    model = TwoHeads().half()
    report = ByteReport.measure(model, image_bytes=100)
    assert report.paper_model_bytes == 2 * report.model_bytes
    assert report.exemplars == report.memory_bytes == report.teacher_bytes == 0
