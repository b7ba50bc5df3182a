"""Parity with Mnemonics' vectors: losses with their gradients, and an epoch of AANets through the engine."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from torch import Tensor, nn

from mmcl.backbones.aggregated import AggregatedNetwork
from mmcl.backbones.cosine_head import CosineHead
from mmcl.backbones.cosine_network import CosineOutput
from mmcl.benchmarks.class_incremental import RawData
from mmcl.config.components import build
from mmcl.config.compose import compose_run
from mmcl.engine.progress import Progress
from mmcl.engine.stages import fit_stage
from mmcl.memory.quota import MemoryConfig, Quota
from mmcl.methods import aanets
from mmcl.methods.aanets import Aanets
from mmcl.methods.class_incremental import ClassIncrementalIngredients
from mmcl.methods.cosine_losses import (
    LessForgetConfig,
    SoftTargetsConfig,
    less_forget_weight,
    lucir_terms,
    soft_target_terms,
)
from mmcl.pixels import PixelScale
from mmcl.protocol import Batch, ClassTask, Samples
from tests.parity import Golden, parity
from tests.parity.official_nets import (
    backbone_tensors,
    load_official,
    near,
    official_arrays,
    official_tensors,
    tiny_backbone,
)
from tests.parity.recorded_batches import RecordedBatches, batches_of

Terms = dict[str, Tensor]


def tensor(golden: Golden, name: str) -> Tensor:
    return torch.from_numpy(golden[name])


def cases(golden: Golden) -> Iterator[Golden]:
    for case in range(int(golden["n_cases"])):
        yield official_arrays(golden, f"case{case}")


class Forward:
    """Recorded features classified by a recorded head, ready for gradients."""

    def __init__(self, case: Golden) -> None:
        self.features = tensor(case, "features").requires_grad_()
        self.head = CosineHead(self.features.shape[1])
        for name in ("weight_old", "weight_new", "sigma"):
            setattr(self.head, name, nn.Parameter(tensor(case, name)))
        scores = self.head(self.features)
        self.output = CosineOutput(self.head.sigma * scores, scores, self.features)
        self.known = len(self.head.weight_old)
        self.labels = tensor(case, "targets")

    def check(self, case: Golden, terms: Terms, expected: dict[str, str]) -> None:
        """Compare every term, their sum with the cross-entropy, and its gradients."""
        assert terms.keys() == expected.keys()
        for name, recorded in expected.items():
            near(terms[name].detach(), case[recorded])
        cross_entropy = F.cross_entropy(self.output.logits, self.labels)
        near(cross_entropy.detach(), case["loss_ce"])
        loss = cross_entropy + sum(terms.values())
        near(loss.detach(), case["loss"])
        loss.backward()
        near(self.features.grad, case["grad_features"])
        for name in ("weight_old", "weight_new", "sigma"):
            near(getattr(self.head, name).grad, case[f"grad_{name}"])


@parity("lucir_losses")
def check_lucir_losses(golden: Golden) -> None:
    """Less-forget, cross-entropy and margin ranking: mixed batches, without old samples, of old ones alone."""
    for case in cases(golden):
        forward = Forward(case)
        near(forward.output.scores.detach(), case["cosine_scores"])
        new = len(forward.head.weight_new)
        config = LessForgetConfig(
            lambda_base=float(case["lambda"]) / less_forget_weight(1.0, forward.known, new),
            hard_negatives=int(case["K"]),
            margin=float(case["margin"]),
            margin_weight=float(case["lw_mr"]),
        )
        reference = CosineOutput(torch.empty(0), torch.empty(0), tensor(case, "ref_features"))
        terms = lucir_terms(forward.output, reference, forward.labels, forward.known, config)
        forward.check(case, terms, {"less_forget": "loss_lf", "margin_ranking": "loss_mr"})


@parity("kd_loss")
def check_kd_loss(golden: Golden) -> None:
    """Distillation of old logits."""
    for case in cases(golden):
        forward = Forward(case)
        near(forward.output.logits.detach(), case["logits"])
        reference = CosineOutput(tensor(case, "ref_logits"), torch.empty(0), torch.empty(0))
        config = SoftTargetsConfig(temperature=float(case["T"]), beta=float(case["beta"]))
        terms = soft_target_terms(forward.output, reference, forward.labels, forward.known, config)
        forward.check(case, terms, {"distillation": "loss_kd"})


# ---------------------------------------------------------------------- an epoch of AANets


class RecordedAanets(Aanets):
    """Keeps the value of every term; gradients of the levels' weights may add up from the first batch on."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.recorded: dict[str, list[float]] = {}
        self.adds_up = False

    def losses(self, batch: Batch) -> Terms:
        """Return the terms."""
        self.network.shares.requires_grad_(self.adds_up)
        terms = super().losses(batch)
        for name, value in terms.items():
            self.recorded.setdefault(name, []).append(value.item())
        return terms


@parity("aanets_step")
def check_aanets_step(golden: Golden) -> None:
    """One epoch of both branches and one pass of the levels' weights, as a later task has it."""
    config = _config(golden)
    method = _method(golden, config)
    task = _grown(golden, method)
    cross_entropies: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "cross_entropy", recording(F.cross_entropy, cross_entropies))
        if not int(golden["zero_alpha_grad"]):  # as one release has it, by mistake
            method.adds_up = True
            patch.setattr(aanets, "share_gradient", added_up(aanets.share_gradient))
        _train_representation(golden, config, method, task)
    near(cross_entropies, golden["loss/CrossEntropyLoss"])
    _check_terms(golden, method.recorded)
    _check_branches(golden, method.network)
    near(method.network.shares.detach(), golden["alpha_after"])


def added_up(gradient_of: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the function with what is there already added to the gradient."""

    def gradient(network: AggregatedNetwork, images: Tensor, labels: Tensor) -> Tensor:
        assert network.shares.grad is not None
        return network.shares.grad + gradient_of(network, images, labels)

    return gradient


def recording(function: Callable[..., Tensor], values: list[float]) -> Callable[..., Tensor]:
    """Return the function, which then also appends its values."""

    def record(*arguments: Any, **keywords: Any) -> Tensor:
        value = function(*arguments, **keywords)
        values.append(value.item())
        return value

    return record


def _config(golden: Golden) -> DictConfig:
    known, new = int(golden["n_old"]), int(golden["n_new"])
    values = {
        "base": "lucir" if "loss/CosineEmbeddingLoss" in golden else "distillation",
        "projection_shortcuts": False,  # the recorded network has its own
        "less_forget.lambda_base": float(golden["lambda_"]) / less_forget_weight(1.0, known, new),
        "less_forget.hard_negatives": golden["K"],
        "less_forget.margin": golden["margin"],
        "less_forget.margin_weight": golden["lw_mr"],
        "aggregation.lr": golden["alpha_lr"],
        "aggregation.momentum": golden["momentum"],
        "aggregation.weight_decay": golden["wd"],
        "aggregation.batch_size": len(golden["balanced/y0"]),
        "later_tasks.epochs": 1,
        "later_tasks.milestones": [],
        "later_tasks.batch_size": len(golden["train/y0"]),
        "later_tasks.lr": golden["lr"],
        "later_tasks.momentum": golden["momentum"],
        "later_tasks.weight_decay": golden["wd"],
    }
    overrides = [f"method.{name}={value}" for name, value in values.items()]
    config = compose_run(["method=aanets", "benchmark=digits", "recipe=paper", *overrides])
    config.trainer = {**config.trainer, "accelerator": "cpu", "progress": False}
    config.method["_target_"] = f"{__name__}.RecordedAanets"
    return config


def _method(golden: Golden, config: DictConfig) -> RecordedAanets:
    """Build the method before its first task."""
    known, new = int(golden["n_old"]), int(golden["n_new"])
    sizes = (known - new, new, new) if int(golden["reference_is_dual"]) else (known, new)
    quota = Quota(MemoryConfig(None, 1, None, True, None, "first"), 1, own_parameters=0)
    state = official_arrays(golden, "b2_before")
    method: RecordedAanets = build(
        config.method,
        ClassIncrementalIngredients(
            seed=0,
            task_count=len(sizes),
            make_backbone=lambda: tiny_backbone(state),
            quota=quota,
            select=lambda features, labels, count: torch.arange(0),
            image_bytes=1,
            task_sizes=sizes,
            fewest_images=1,
        ),
    )
    return method


def _grown(golden: Golden, method: RecordedAanets) -> ClassTask:
    """Let the method grow to the recorded task as in a run: the references are what it was before."""
    train = _recorded(golden, "train")
    images, labels = (torch.cat([getattr(batch, part) for batch in train]) for part in ("images", "labels"))
    samples = Samples(images, labels, torch.arange(len(labels)))

    def balanced(served: Samples, batch_size: int, *arguments: Any) -> Iterator[Batch]:
        assert len(served) == method.config.aggregation.per_class * int(golden["n_new"])  # the memory is empty
        assert batch_size == len(golden["balanced/y0"])
        yield from _recorded(golden, "balanced")

    def plain(served: Samples, device: torch.device) -> Iterator[Batch]:
        yield Batch(served.images, served.labels, served.sources)  # type: ignore[arg-type]

    seen, scale = 0, PixelScale(RecordedBatches.mean, RecordedBatches.std)
    for index, size in enumerate(method.ingredients.task_sizes):
        task = ClassTask(index, seen, seen + size, samples, samples, lambda: samples, plain, balanced, scale)
        method.grow(task)
        seen += size
        if seen == int(golden["n_old"]):
            _load_reference(golden, method.network)
    _load_branches(golden, method.network, ("b1_before", "b2_before", "alpha_before"))
    return task


def _load_reference(golden: Golden, network: Any) -> None:
    if int(golden["reference_is_dual"]):
        _load_branches(golden, network, ("ref1", "ref2", "ref_alpha"))
    else:
        load_official(network, official_arrays(golden, "ref"))


def _load_branches(golden: Golden, network: AggregatedNetwork, names: tuple[str, str, str]) -> None:
    """Load both branches, the head of the first and the levels' weights."""
    stable, plastic, shares = names
    tensors = {f"{stable}/{name}": found for name, found in official_tensors(network).items()}
    tensors |= {f"{plastic}/{name}": found for name, found in backbone_tensors(network.plastic).items()}
    with torch.no_grad():
        for name, found in {**tensors, shares: network.shares}.items():
            found.copy_(tensor(golden, name))


def _recorded(golden: Golden, name: str) -> list[Batch]:
    """Return the two recorded batches of a kind."""
    images, labels = ([tensor(golden, f"{name}/{part}{step}") for step in range(2)] for part in "xy")
    return batches_of(images, labels)


def _train_representation(golden: Golden, config: DictConfig, method: RecordedAanets, task: ClassTask) -> None:
    """Train the one stage of the task on the recorded batches."""
    classes = list(range(task.seen))
    data = RawData(task.train, task.test, list(map(str, classes)))
    benchmark = RecordedBatches(data, [task.seen], classes, lambda *stage: [_recorded(golden, "train")])
    (stage,) = method.stages(task)
    with tempfile.TemporaryDirectory() as folder:
        fit_stage(
            method,
            benchmark,
            task,
            stage,
            position=(0, 1),
            seed=0,
            trainer_config=config.trainer,
            folder=Path(folder),
            metrics=None,
            progress=Progress(1, False, False),
        )


def _check_terms(golden: Golden, recorded: dict[str, list[float]]) -> None:
    """Compare the terms of the training batches without their weights."""
    weights = {
        "less_forget": (golden["lambda_"], "CosineEmbeddingLoss"),
        "margin_ranking": (golden["lw_mr"], "MarginRankingLoss"),
        # T^2 beta is 1, and the recorded mean is over the old classes, too.
        "distillation": (golden["n_old"], "KLDivLoss"),
    }
    expected = {name for name, (_, loss) in weights.items() if f"loss/{loss}" in golden}
    assert recorded.keys() == {"classification", *expected}
    for name in expected:
        weight, loss = weights[name]
        near([value / float(weight) for value in recorded[name]], golden[f"loss/{loss}"])


def _check_branches(golden: Golden, network: AggregatedNetwork) -> None:
    """Compare weights and statistics of both branches and the head."""
    tensors = {f"b1_after/{name}": found for name, found in official_tensors(network).items()}
    tensors |= {f"b2_after/{name}": found for name, found in backbone_tensors(network.plastic).items()}
    for name, found in tensors.items():
        near(found.detach(), golden[name])
