"""How much a method keeps, by every kind of budget."""

from __future__ import annotations

import pytest
import torch

from mmcl.errors import UserError
from tests.methods.toy import ToyBenchmark, go_through, toy_method


class Cifar100Sized(ToyBenchmark):
    """As many classes and tasks as CIFAR-100 B0-10 has."""

    def __init__(self) -> None:
        super().__init__(classes=100, increment=10, per_class=1)


def test_memo_fills_the_budget_of_der_as_the_paper_does() -> None:
    overrides = ("recipe=paper", "backbone=resnet32", "backbone.width=16", "memory.size=2000", "memory.align_to=der")
    quota = toy_method("memo", *overrides, benchmark=Cifar100Sized()).ingredients.quota
    assert quota.total == 3312
    assert quota.per_class(100) == 33
    assert toy_method("der", *overrides, benchmark=Cifar100Sized()).ingredients.quota.total == 2000


@pytest.mark.parametrize(
    ("overrides", "exemplars"),
    [
        (["memory.size=10"], 8),
        (["memory.size=null", "memory.per_class=3"], 12),
        (["memory.size=null", "memory.per_class=50"], 48),
        (["memory.size=null", f"memory.bytes={20 * 3072 + 100}", "memory.count_model=false"], 20),
    ],
)
@pytest.mark.parametrize("select", ["herding", "random", "first"])
def test_budgets(overrides: list[str], exemplars: int, select: str) -> None:
    benchmark = ToyBenchmark()
    method = toy_method("replay", *overrides, f"memory.select={select}")
    task = go_through(method, benchmark, 2)
    assert len(method.memory) == exemplars
    assert method.memory.counts(4).tolist() == [exemplars // 4] * 4
    images = next(iter(task.plain_batches(task.test, torch.device("cpu")))).images
    scores = method.eval().scores(images)["nme"]
    assert scores.shape == (len(images), 4)
    assert torch.isfinite(scores).all()


def test_a_model_counts_against_the_bytes() -> None:
    free = toy_method("replay", "memory.size=null", "memory.bytes=100000", "memory.count_model=false")
    paid = toy_method("replay", "memory.size=null", "memory.bytes=100000")
    parameters = sum(parameter.numel() for parameter in paid.ingredients.make_backbone().parameters())
    assert free.ingredients.quota.total == 100000 // 3072
    assert paid.ingredients.quota.total == (100000 - 4 * parameters) // 3072


def test_a_memory_below_one_sample_a_class_is_refused_before_the_first_task() -> None:
    with pytest.raises(UserError, match="3 samples in all leave none for each of 4 classes"):
        toy_method("replay", "memory.size=3")
