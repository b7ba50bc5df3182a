"""Whole runs on toy data, the losses, and the modes and schedules of every stage, against golden values.

The runs go through the engine that real runs use; only data, initial weights and shuffles are recorded ones.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmcl import randomness
from mmcl.backbones.freezing import is_frozen
from mmcl.benchmarks.augmentation import Augmentation
from mmcl.benchmarks.class_incremental import ClassIncrementalBenchmark, ClassIncrementalBenchmarkConfig, RawData
from mmcl.config.components import build
from mmcl.config.compose import compose_run
from mmcl.engine import ingredients as engine_ingredients
from mmcl.engine.assemble import build_method
from mmcl.engine.run_directory import RunDirectory
from mmcl.engine.sequence import Sequence
from mmcl.methods.base import sgd
from mmcl.methods.class_incremental import ClassIncrementalIngredients
from mmcl.methods.losses import (
    auxiliary_targets,
    distillation_loss,
    expansion_losses,
    new_class_loss,
    old_share,
    weighted_distillation_losses,
)
from mmcl.protocol import Batch, ClassTask, Samples
from tests.parity import Golden, close, parity
from tests.parity.names import build_arch, load_golden, to_golden

STATE_TOLERANCE = 1e-4


class RecordedBenchmark(ClassIncrementalBenchmark):
    """The toy data of a golden run: no augmentation, recorded shuffles, labels already in class order."""

    augmentation = Augmentation(pad=0, flip=False, brightness=0.0)

    def __init__(self, golden: Golden) -> None:
        sizes = golden["task_sizes"].tolist()
        base, increment = sizes[0], sizes[-1]
        super().__init__(
            ClassIncrementalBenchmarkConfig("", "golden", "", base, increment, 0, list(range(sum(sizes))), False, 0, 3)
        )
        self.golden = golden
        self.mean, self.std = tuple(golden["norm_mean"].tolist()), tuple(golden["norm_std"].tolist())

    def read(self) -> RawData:
        """Return the recorded images."""
        train, test = (self._samples(split) for split in ("train", "test"))
        return RawData(train, test, [str(label) for label in range(int(self.golden["task_sizes"].sum()))])

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Give images as float64."""
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        return _float64(batch) if isinstance(batch, Batch) else [_float64(step) for step in batch]

    def plain_batches(self, samples: Samples, device: torch.device) -> Iterator[Batch]:
        """Give images as float64."""
        return map(_float64, super().plain_batches(samples, device))

    def _samples(self, split: str) -> Samples:
        images = torch.from_numpy(self.golden[f"{split}_x"]).permute(0, 3, 1, 2).contiguous()
        return Samples(images, torch.from_numpy(self.golden[f"{split}_y"]), torch.arange(len(images)))


def _float64(batch: Batch) -> Batch:
    return batch._replace(images=batch.images.double())


class RecordedSequence(Sequence):
    """Begins every task with the recorded weights and compares what comes out of it."""

    def __init__(self, golden: Golden, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.golden = golden
        self.cross_entropies: list[float] = []

    def _grow(self, task: ClassTask) -> None:
        super()._grow(task)
        load_golden(self.method.network, self.golden, f"t{task.index}.init.")
        self.cross_entropies.clear()

    def _finish_task(self, task: ClassTask) -> None:
        super()._finish_task(task)
        at = f"t{task.index}."
        close(self.cross_entropies, self.golden[f"{at}ce_values"], STATE_TOLERANCE)
        for name, value in to_golden(self.method.network).items():
            close(value, self.golden[f"{at}trained.{name}"], STATE_TOLERANCE)
        if f"{at}fc_weight_after_align" in self.golden:
            close(self.method.network.head.weight.detach(), self.golden[f"{at}fc_weight_after_align"], STATE_TOLERANCE)
        self._check_memory(task)
        self._check_answers(task)

    def _check_memory(self, task: ClassTask) -> None:
        at = f"t{task.index}."
        if f"{at}memory_indices" in self.golden:
            kept = self.method.memory.samples()
            np.testing.assert_array_equal(kept.sources, self.golden[f"{at}memory_indices"])
            np.testing.assert_array_equal(kept.labels, self.golden[f"{at}memory_targets"])
            close(self.method.nearest_mean.means, self.golden[f"{at}class_means"], STATE_TOLERANCE)

    def _check_answers(self, task: ClassTask) -> None:
        at, k = f"t{task.index}.", int(self.golden["topk"])
        self.method.eval()
        with torch.no_grad():
            images = next(iter(task.plain_batches(task.test, torch.device("cpu")))).images
            scores = self.method.scores(images)
        np.testing.assert_array_equal(task.test.labels, self.golden[f"{at}y_true"])
        close(scores["cnn"], self.golden[f"{at}test_logits"], STATE_TOLERANCE)
        for readout, values in scores.items():
            np.testing.assert_array_equal(values.topk(k, dim=1).indices, self.golden[f"{at}{readout}_topk"])
            top1 = 100 * (values.argmax(1) == task.test.labels).double().mean()
            close(np.around(top1, 2), self.golden[f"{at}{readout}_top1"])


def run_recorded(method_name: str, golden: Golden, extra: list[str]) -> None:
    """Run a method through the engine on a golden file and check every task."""
    config = compose_run([f"method={method_name}", "benchmark=digits", "recipe=paper", *_overrides(golden), *extra])
    # In float32 a unit on the edge of its ReLU falls on either side, depending on the processor's kernels, and from
    # there on a run is another run. In float64 it falls on the recorded side.
    config.trainer = {**config.trainer, "accelerator": "cpu", "progress": False, "precision": "64-true"}
    benchmark = RecordedBenchmark(golden)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        # The golden file's backbone takes the place of the configured one.
        patch.setattr(engine_ingredients, "build", lambda node: build_arch(str(golden["arch"])))
        method = build_method(config, benchmark)
        sequence = RecordedSequence(golden, config, benchmark, method, RunDirectory(Path(folder), "golden"), "")
        patch.setattr(randomness, "permutation", lambda count, *draw: _shuffle(golden, count, draw))
        patch.setattr(F, "cross_entropy", _recording(F.cross_entropy, sequence.cross_entropies))
        sequence.run()


def _shuffle(golden: Golden, count: int, draw: tuple[int | str, ...]) -> torch.Tensor:
    task, epoch = draw[1], draw[-1]
    order = torch.from_numpy(golden[f"t{task}.perm"][epoch])
    assert len(order) == count
    return order


def _recording(cross_entropy: Any, values: list[float]) -> Any:
    def record(*arguments: Any, **keywords: Any) -> torch.Tensor:
        value = cross_entropy(*arguments, **keywords)
        values.append(value.item())
        return value

    return record


def _overrides(golden: Golden) -> list[str]:
    first = {"epochs": "init_epochs", "lr": "init_lr", "lr_decay": "init_lr_decay", "weight_decay": "init_weight_decay"}
    later = {"epochs": "epochs", "lr": "lrate", "lr_decay": "lrate_decay", "weight_decay": "weight_decay"}
    given = [f"method.first_task.{ours}={golden[theirs]}" for ours, theirs in first.items()]
    given += [f"method.later_tasks.{ours}={golden[theirs]}" for ours, theirs in later.items()]
    given += [f"method.{stage}.batch_size={golden['batch_size']}" for stage in ("first_task", "later_tasks")]
    given += [f"method.first_task.milestones={golden['init_milestones'].tolist()}".replace(" ", "")]
    given += [f"method.later_tasks.milestones={golden['milestones'].tolist()}".replace(" ", "")]
    return [*given, f"memory.size={golden['memory_size']}"]


@parity("minirun_memo")
def check_memo(golden: Golden) -> None:
    """A whole run of MEMO."""
    flags = [f"method.{name}={bool(golden[name])}" for name in ("train_base", "train_adaptive")]
    run_recorded("memo", golden, [*flags, f"method.alpha_aux={golden['alpha_aux']}", *_scheduler(golden)])


def _scheduler(golden: Golden) -> list[str]:
    name = {"steplr": "multistep"}.get(str(golden["scheduler"]), str(golden["scheduler"]))
    t_max = int(golden["t_max"])
    return [
        *(f"method.{stage}.scheduler={name}" for stage in ("first_task", "later_tasks")),
        f"method.later_tasks.t_max={'null' if t_max < 0 else t_max}",
    ]


@parity("minirun_finetune")
def check_finetune(golden: Golden) -> None:
    """A whole run of the finetune baseline."""
    run_recorded("finetune", golden, [])


@parity("minirun_replay")
def check_replay(golden: Golden) -> None:
    """A whole run of the replay baseline."""
    run_recorded("replay", golden, [])


@parity("minirun_icarl")
def check_icarl(golden: Golden) -> None:
    """A whole run of iCaRL."""
    run_recorded("icarl", golden, [])


@parity("minirun_wa")
def check_wa(golden: Golden) -> None:
    """A whole run of WA."""
    run_recorded("wa", golden, [])


@parity("minirun_der")
def check_der(golden: Golden) -> None:
    """A whole run of DER."""
    run_recorded("der", golden, [])


@parity("losses")
def check_losses(golden: Golden) -> None:
    """MEMO's loss and its gradients."""
    for case in range(int(golden["n_cases"])):
        at = f"c{case}."
        logits, auxiliary = (torch.tensor(golden[f"{at}{n}"], requires_grad=True) for n in ("logits", "aux_logits"))
        targets, known = torch.from_numpy(golden[f"{at}targets"]), int(golden[f"{at}known_classes"])
        alpha = float(golden[f"{at}alpha_aux"])
        terms = expansion_losses(logits, auxiliary, targets, known, alpha)
        total = sum(terms.values())
        total.backward()
        close(terms["classification"].detach(), golden[f"{at}loss_clf"])
        close(logits.grad, golden[f"{at}grad_logits"])
        assert ("auxiliary" in terms) == (known > 0)
        if known:
            np.testing.assert_array_equal(auxiliary_targets(targets, known), golden[f"{at}aux_targets"])
            close(terms["auxiliary"].detach(), alpha * golden[f"{at}loss_aux"])
            close(total.detach(), golden[f"{at}loss"])
            close(auxiliary.grad, golden[f"{at}grad_aux_logits"])


@parity("baseline_losses")
def check_baseline_losses(golden: Golden) -> None:
    """The losses of finetune, iCaRL and WA."""
    for case in range(int(golden["n_cases"])):
        at = f"c{case}."
        logits = torch.tensor(golden[f"{at}logits"], requires_grad=True)
        logits_old, targets = (torch.from_numpy(golden[f"{at}{n}"]) for n in ("old_logits", "targets"))
        known, temperature = int(golden[f"{at}known_classes"]), float(golden[f"{at}temperature"])
        distillation = distillation_loss(logits, logits_old, temperature)
        close(torch.autograd.grad(distillation, logits, retain_graph=True)[0], golden[f"{at}kd_grad"])
        close(distillation.detach(), golden[f"{at}kd"])
        classification = F.cross_entropy(logits, targets).detach()
        new_targets = torch.from_numpy(golden[f"{at}new_targets"])
        close(classification, golden[f"{at}ce"])
        close(new_class_loss(logits, new_targets, known).detach(), golden[f"{at}finetune_loss"])
        close(old_share(known, logits.shape[1]), golden[f"{at}wa_lambda"])
        weighted = weighted_distillation_losses(logits, logits_old, targets, temperature)
        close(sum(weighted.values()).detach(), golden[f"{at}wa_loss"])
        close(classification + distillation.detach(), golden[f"{at}icarl_loss"])


@parity("modes_schedules")
def check_modes_and_schedules(golden: Golden) -> None:
    """What is trained, in which mode and at which rate, in every task."""
    for case in range(int(golden["n_cases"])):
        _check_case(golden, f"c{case}.")


def _check_case(golden: Golden, at: str) -> None:
    overrides = [
        "method=memo",
        "recipe=paper",
        *(f"method.{name}={bool(golden[at + name])}" for name in ("train_base", "train_adaptive")),
        f"method.first_task.epochs={golden[at + 'init_epochs']}",
        f"method.later_tasks.epochs={golden[at + 'epochs']}",
        f"method.first_task.milestones={golden[at + 'init_milestones'].tolist()}".replace(" ", ""),
        f"method.later_tasks.milestones={golden[at + 'milestones'].tolist()}".replace(" ", ""),
        f"method.later_tasks.lr={golden[at + 'lr']}",
        f"method.later_tasks.lr_decay={golden[at + 'lr_decay']}",
        *_scheduler({key.removeprefix(at): golden[key] for key in golden if key.startswith(at)}),
    ]
    config = compose_run(overrides)
    ingredients = ClassIncrementalIngredients(
        0, 3, lambda: build_arch(str(golden[at + "arch"])), None, None, 3072, (), 0
    )  # type: ignore[arg-type]
    method = build(config.method, ingredients)
    sizes = golden[at + "task_sizes"].tolist()
    nothing = Samples(torch.zeros(0, 3, 8, 8, dtype=torch.uint8), torch.zeros(0).long(), torch.zeros(0).long())
    for index in range(len(sizes)):
        known, seen = sum(sizes[:index]), sum(sizes[: index + 1])
        task = ClassTask(index, known, seen, nothing, nothing, lambda: nothing, None, None, None)  # type: ignore[arg-type]
        method.grow(task)
        (stage,) = method.stages(task)
        method.begin_stage(stage, task)
        method.train()
        _check_task(golden, f"{at}t{index}.", method, first=index == 0)


def _check_task(golden: Golden, at: str, method: Any, first: bool) -> None:
    network = method.network
    optimizer, scheduler = sgd(method.stage_parameters(), method.stage.schedule)
    rates = []
    for _ in range(method.stage.schedule.epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    close(rates, golden[f"{at}lr_per_epoch"], 1e-9)
    for name in ("weight_decay", "momentum", "nesterov"):
        assert optimizer.param_groups[0][name] == golden[at + name]
    assert network.trunk.training == golden[f"{at}base_training"]
    assert is_frozen(network.trunk) != golden[f"{at}base_requires_grad"]
    assert [branch.training for branch in network.branches] == golden[f"{at}extractor_training"].tolist()
    assert [not is_frozen(branch) for branch in network.branches] == golden[f"{at}extractor_requires_grad"].tolist()
    # The recorded optimiser holds the auxiliary head in the first task, too, where it gets no gradient.
    auxiliary = sum(parameter.numel() for parameter in network.auxiliary_head.parameters()) * first
    optimised = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
    assert optimised + auxiliary == golden[f"{at}optimised_params"] == golden[f"{at}trainable_params"]
    assert sum(parameter.numel() for parameter in network.parameters()) == golden[f"{at}all_params"]
