"""AANets: two branches, and the passes of their levels' weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmcl.backbones.aggregated import AggregatedNetwork
from mmcl.backbones.cosine_network import CosineNetwork
from mmcl.backbones.scale_shift import ScaleShiftConv2d
from mmcl.config.compose import compose_run
from mmcl.engine.progress import Progress
from mmcl.engine.stages import fit_stage
from mmcl.errors import UserError
from mmcl.methods.aanets import Aanets
from mmcl.protocol import ClassTask
from tests.methods.toy import TOY, ToyBenchmark, begin, go_through, toy_method

SHORT = (
    "method.later_tasks.epochs=2",
    "method.later_tasks.batch_size=16",
    "method.later_tasks.lr=0.05",
    "method.aggregation.batch_size=24",
    "method.aggregation.per_class=6",
    "method.aggregation.weight_decay=0.0",
)


def _begun(*overrides: str, tasks: int = 1, classes: int = 4) -> tuple[Any, ToyBenchmark, ClassTask]:
    benchmark = ToyBenchmark(classes)
    method = toy_method("aanets", *SHORT, *overrides, benchmark=benchmark)
    go_through(method, benchmark, tasks)
    task = benchmark.task(tasks)
    begin(method, task)
    return method, benchmark, task


def _train(method: Any, benchmark: ToyBenchmark, task: ClassTask, folder: Path) -> None:
    """Train the representation as a run does."""
    fit_stage(
        method,
        benchmark,
        task,
        method.stages(task)[0],
        position=(0, 1),
        seed=0,
        trainer_config=compose_run(["+method=aanets", *TOY]).trainer,
        folder=folder,
        metrics=None,
        progress=Progress(2, False, False),
    )


def test_two_branches_answer_at_first_as_one_network_did() -> None:
    benchmark = ToyBenchmark()
    method = toy_method("aanets", *SHORT, benchmark=benchmark)
    go_through(method, benchmark, 1)
    assert type(method.network) is CosineNetwork
    (batch,) = benchmark.task(0).plain_batches(benchmark.task(0).test, torch.device("cpu"))
    before = method.eval().network(batch.images).features
    begin(method, benchmark.task(1))
    assert type(method.network) is AggregatedNetwork
    assert type(method.teacher) is CosineNetwork
    torch.testing.assert_close(method.eval().network(batch.images).features, before, rtol=1e-4, atol=1e-5)


def test_a_later_reference_has_both_branches_and_their_shares() -> None:
    method, _, _ = _begun(tasks=2, classes=6)
    assert type(method.teacher) is AggregatedNetwork
    assert torch.equal(method.teacher.shares, method.network.shares)
    assert method.teacher.shares is not method.network.shares


def test_shares_are_trained_by_an_optimiser_of_their_own() -> None:
    method, _, task = _begun()
    method.begin_stage(method.stages(task)[0], task)
    (branches, shares), schedulers = method.configure_optimizers()
    held = {id(parameter) for group in branches.param_groups for parameter in group["params"]}
    network = method.network
    assert [id(p) for group in shares.param_groups for p in group["params"]] == [id(network.shares)]
    assert id(network.shares) not in held
    assert id(network.head.weight_old) not in held
    assert {id(parameter) for parameter in network.plastic.parameters()} <= held
    convolutions = [part for part in network.stable.modules() if isinstance(part, ScaleShiftConv2d)]
    frozen = {id(weight) for part in convolutions for weight in (part.weight, part.bias)}
    assert {id(parameter) for parameter in network.stable.parameters()} - held == frozen
    assert len(schedulers) == 2


def test_the_first_task_and_the_balanced_stage_have_no_shares_to_train() -> None:
    benchmark, method = ToyBenchmark(), toy_method("aanets", *SHORT)
    first = benchmark.task(0)
    begin(method, first)
    method.begin_stage(method.stages(first)[0], first)
    assert len(method.configure_optimizers()[0]) == 1
    later, _, task = _begun("method.balanced.epochs=1")
    later.select(task)
    later.begin_stage(later.stages(task)[1], task)
    assert len(later.configure_optimizers()[0]) == 1


class _Watch:
    """Shares at every step, and the loss on the balanced set around every pass of the shares."""

    def __init__(self, method: Any, task: ClassTask, patch: pytest.MonkeyPatch) -> None:
        self.method, self.task = method, task
        self.at_steps: list[tuple[int, Tensor]] = []
        self.losses: list[tuple[float, float]] = []
        account, train_shares = Aanets._account, Aanets._train_shares

        def accounted(this: Any, *terms: Any) -> None:
            account(this, *terms)
            self.at_steps.append((this.current_epoch, this.network.shares.detach().clone()))

        def trained(this: Any, optimizer: Any) -> None:
            before = self._balanced_loss()
            train_shares(this, optimizer)
            self.losses.append((before, self._balanced_loss()))

        patch.setattr(Aanets, "_account", accounted)
        patch.setattr(Aanets, "_train_shares", trained)

    @torch.no_grad()
    def _balanced_loss(self) -> float:
        training = self.method.training
        self.method.eval()
        samples = self.method.balanced_set(self.task)
        draw = (self.method.ingredients.seed, self.task.index, "aggregation", self.method.current_epoch)
        (batch,) = self.task.augmented_batches(samples, len(samples), draw, torch.device("cpu"))
        loss = F.cross_entropy(self.method.network(batch.images).logits, batch.labels)
        self.method.train(training)
        return float(loss)


def test_shares_stay_while_a_step_of_the_branches_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method, benchmark, task = _begun("method.aggregation.lr=5.0")
    watch = _Watch(method, task, monkeypatch)
    _train(method, benchmark, task, tmp_path)
    first = [shares for epoch, shares in watch.at_steps if epoch == 0]
    second = [shares for epoch, shares in watch.at_steps if epoch == 1]
    assert len(first) > 1
    assert all(torch.equal(shares, torch.full_like(shares, 0.5)) for shares in first)
    assert all(torch.equal(shares, second[0]) for shares in second)
    assert not torch.equal(second[0], first[0])
    assert not torch.equal(method.network.shares, second[0])
    assert not method.network.shares.requires_grad
    assert method.network.shares.grad is None


def test_a_pass_lowers_the_loss_on_the_balanced_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method, benchmark, task = _begun("method.aggregation.lr=0.1", "method.aggregation.batch_size=1000")
    watch = _Watch(method, task, monkeypatch)
    _train(method, benchmark, task, tmp_path)
    assert len(watch.losses) == 2
    assert all(after < before for before, after in watch.losses)


def test_a_rate_of_zero_keeps_the_shares(tmp_path: Path) -> None:
    method, benchmark, task = _begun("method.aggregation.lr=0.0", "method.aggregation.weight_decay=0.1")
    _train(method, benchmark, task, tmp_path)
    assert torch.equal(method.network.shares, torch.full_like(method.network.shares, 0.5))


def test_a_pass_changes_nothing_but_the_shares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method, benchmark, task = _begun("method.aggregation.lr=5.0")
    changed: set[str] = set()
    train_shares = Aanets._train_shares

    def trained(this: Any, optimizer: Any) -> None:
        before = {name: value.clone() for name, value in this.network.state_dict().items()}
        train_shares(this, optimizer)
        changed.update(
            name for name, value in this.network.state_dict().items() if not torch.equal(value, before[name])
        )

    monkeypatch.setattr(Aanets, "_train_shares", trained)
    _train(method, benchmark, task, tmp_path)
    assert changed == {"shares"}


def test_the_balanced_set_is_drawn_once_from_new_images_and_has_all_old_exemplars() -> None:
    method, _, task = _begun()
    samples, again = method.balanced_set(task), method.balanced_set(task)
    kept = method.memory.samples()
    fresh = samples.select(torch.arange(12))
    assert len(samples) == 2 * 6 + len(kept)
    assert torch.equal(samples.sources, again.sources)
    assert set(fresh.sources.tolist()) <= set(task.train.sources.tolist())
    assert len(set(fresh.sources.tolist())) < 12  # with replacement
    assert torch.equal(samples.sources[12:], kept.sources)


@pytest.mark.parametrize(("base", "term"), [("lucir", "less_forget"), ("distillation", "distillation")])
def test_the_base_chooses_what_holds_old_classes(base: str, term: str) -> None:
    method, _, task = _begun(f"method.base={base}")
    method.begin_stage(method.stages(task)[0], task)
    (batch,) = task.plain_batches(task.train, torch.device("cpu"))
    assert term in method.losses(batch)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "method.aggregation.plastic=fre",
            "plastic=fre: expected .* Did you mean 'free'",
        ),
        ("method.aggregation.batch_size=0", "batch_size=0: expected .*at least 1 image"),
        ("method.aggregation.momentum=-1", r"momentum=-1\.0"),
        ("method.base=lucr", "base=lucr: expected one of lucir, distillation. Did you mean 'lucir'"),
    ],
)
def test_mistakes_are_told_before_the_first_task(override: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        toy_method("aanets", override)
