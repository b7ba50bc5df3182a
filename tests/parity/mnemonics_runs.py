"""Parity with Mnemonics' vectors: whole runs of the released code on toy data.

All goes through the engine and the method that real runs use; only data, initial weights, batches and draws are the
recorded ones.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor

from mmcl.benchmarks.class_incremental import RawData
from mmcl.config.compose import compose_run
from mmcl.engine import ingredients as engine_ingredients
from mmcl.engine.assemble import build_method
from mmcl.engine.run_directory import RunDirectory
from mmcl.engine.sequence import Sequence
from mmcl.methods import cosine_incremental
from mmcl.methods.cosine_losses import less_forget_weight
from mmcl.methods.mnemonics.mnemonics import EXEMPLARS, Mnemonics
from mmcl.protocol import Batch, ClassTask, Samples, Stage
from tests.parity import Golden, close, parity
from tests.parity.official_nets import load_official, near, official_arrays, official_tensors, tiny_backbone
from tests.parity.recorded_batches import Epochs, RecordedBatches, batches_of

RUN = 1e-3  # of whole runs of three tasks
READOUTS = ["cnn", "nme", "nme_all_oracle", "nme_ft"]
CPU = torch.device("cpu")


def tensor(golden: Golden, name: str) -> Tensor:
    return torch.from_numpy(golden[name])


def recorded(golden: Golden, prefix: str) -> list[Batch]:
    """Return the batches ``prefix/batch000``, ``prefix/batch001``, ..."""
    count = sum(name.startswith(f"{prefix}/batch") and name.endswith("/y") for name in golden)
    images, labels = ([tensor(golden, f"{prefix}/batch{step:03d}/{part}") for step in range(count)] for part in "xy")
    return batches_of(images, labels)


def check_state(golden: Golden, prefix: str, network: Any, limit: float) -> None:
    """Compare all tensors of a network with ``prefix/*``."""
    state, expected = official_tensors(network), official_arrays(golden, prefix)
    assert state.keys() == expected.keys()
    for name, found in state.items():
        near(found.detach(), expected[name], limit)


class Watched(Mnemonics):
    """Keeps the loss of every step; says when something begins and ends.

    Attributes:
        watcher: what looks; has methods of the names used here.
        terms: values of each term of the current stage.
    """

    watcher: Any

    def begin_task(self, task: ClassTask) -> None:
        """Begin the task."""
        super().begin_task(task)
        self.watcher.task_begins(task)

    def begin_stage(self, stage: Stage, task: ClassTask) -> None:
        """Begin the stage."""
        super().begin_stage(stage, task)
        self.terms: dict[str, list[float]] = {}
        self.watcher.stage_begins(stage, task)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the terms."""
        terms = super().losses(batch)
        for name, value in terms.items():
            self.terms.setdefault(name, []).append(value.item())
        return terms

    def after_backward(self, batch: Batch) -> None:
        """Show the gradients."""
        super().after_backward(batch)
        self.watcher.gradients_are_there()

    def end_stage(self, stage: Stage, task: ClassTask) -> None:
        """End the stage."""
        self.watcher.stage_ends(stage, task)
        super().end_stage(stage, task)

    def end_task(self, task: ClassTask) -> None:
        """End the task."""
        task = self.watcher.task_ends(task)
        super().end_task(task)

    def summed_terms(self) -> np.ndarray:
        """Return the loss of each step of the current stage."""
        return np.sum(list(self.terms.values()), axis=0)


def configured(golden: Golden, values: dict[str, Any], memory: dict[str, Any]) -> DictConfig:
    """Return the configuration of a watched run."""
    overrides = [f"method.{name}={value}" for name, value in {**values, "projection_shortcuts": False}.items()]
    overrides += [f"memory.{name}={value}" for name, value in memory.items()]
    spoken = [f"{override}".replace("None", "null").replace(" ", "") for override in overrides]
    config = compose_run(["method=mnemonics", "benchmark=digits", "recipe=paper", *spoken])
    config.trainer = {**config.trainer, "accelerator": "cpu", "progress": False}
    config.method["_target_"] = f"{__name__}.Watched"
    return config


def schedule(stage: str, **values: Any) -> dict[str, Any]:
    """Return the keys of a stage's schedule."""
    return {f"{stage}.{name}": value for name, value in values.items()}


# ---------------------------------------------------------------------- runs of the released code


class ReleasedRun:
    """Feeds a recorded run to the engine, and compares what comes out of every step."""

    def __init__(self, golden: Golden) -> None:
        self.golden = golden
        self.order = golden["class_order"].tolist()
        self.benchmark = RecordedBatches(self._data(), self._sizes(), self.order, self._epochs_of)

    def run(self, preset: str) -> None:
        """Run all tasks."""
        golden = self.golden
        config = configured(golden, {"preset": preset, **self._method()}, self._memory())
        with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
            initial = official_arrays(golden, "p0/before")
            patch.setattr(engine_ingredients, "build", lambda node: tiny_backbone(initial))
            patch.setattr(cosine_incremental, "keyed_orders", self._orders)
            self.method = build_method(config, self.benchmark)
            self.method.watcher = self
            RecordedSequence(self, config, RunDirectory(Path(folder), "golden")).run()

    def _hp(self, name: str) -> Any:
        return self.golden[f"hp/{name}"].tolist()

    def _sizes(self) -> list[int]:
        first, later = self._hp("nb_cl_fg"), self._hp("nb_cl")
        return [first] + [later] * ((len(self.order) - first) // later)

    def _data(self) -> RawData:
        golden = self.golden
        parts = []
        for split in ("train", "test"):
            images = tensor(golden, f"{split}_images").permute(0, 3, 1, 2).contiguous()
            parts.append(Samples(images, tensor(golden, f"{split}_labels"), torch.arange(len(images))))
        return RawData(*parts, [str(label) for label in range(len(self.order))])

    def _method(self) -> dict[str, Any]:
        shared = {
            "epochs": self._hp("epochs"),
            "batch_size": self._hp("train_batch_size"),
            "momentum": self._hp("custom_momentum"),
            "weight_decay": self._hp("custom_weight_decay"),
            "milestones": self._hp("lr_strat"),
            "lr_decay": self._hp("lr_factor"),
        }
        return {
            **schedule("first_task", lr=self._hp("base_lr1"), **shared),
            **schedule("later_tasks", lr=self._hp("base_lr2"), **shared),
            **schedule(
                "exemplars.learning",
                epochs=self._hp("mnemonics_total_epochs"),
                batch_size=self._hp("train_batch_size"),
                lr=self._hp("mnemonics_outer_lr"),
                lr_decay=self._hp("mnemonics_decay_factor"),
                decay_epochs=self._hp("mnemonics_decay_epochs"),
            ),
            **schedule(
                "fast_classifier",
                epochs=self._hp("maml_epoch"),
                lr=self._hp("maml_lr"),
                batch_size=128,
            ),
            "oracle_means": True,
        }

    def _memory(self) -> dict[str, Any]:
        kept = self._hp("nb_protos")
        if self._hp("dynamic_budget"):
            return {"size": None, "per_class": kept}
        return {"size": kept * self._hp("num_classes"), "per_class": None}

    def _epochs_of(self, samples: Samples, batch_size: int, draw: tuple[int | str, ...]) -> Epochs:
        """Return the recorded batches of a stage, whose labels are those of the samples."""
        _, index, name = draw
        kind, count = ("exemplar", "mnemonics_total_epochs") if name == EXEMPLARS else ("train", "epochs")
        batches = recorded(self.golden, f"p{index}/{kind}")
        steps = len(batches) // self._hp(count)
        epochs = [batches[start : start + steps] for start in range(0, len(batches), steps)]
        for epoch in epochs:
            assert [len(batch.labels) for batch in epoch] == [len(part) for part in samples.labels.split(batch_size)]
            np.testing.assert_array_equal(
                torch.cat([batch.labels for batch in epoch]).sort().values, samples.labels.sort().values
            )
        return epochs

    def _orders(self, count: int, epochs: int, *draw: int | str) -> list[Tensor]:
        """Return in which order the recorded batches go through the memory, epoch by epoch."""
        task = self.task
        batches = recorded(self.golden, f"p{task.index}/fastfc")
        (kept,) = task.plain_batches(self.method.kept(task), CPU)
        images, labels = torch.cat([batch.images for batch in batches]), torch.cat([batch.labels for batch in batches])
        distances = (images[:, None] - kept.images).abs().flatten(2).amax(2)
        rows = distances.argmin(1)
        assert distances.min(1).values.max() < 1e-4
        np.testing.assert_array_equal(kept.labels[rows], labels)
        orders = list(rows.split(count))
        assert len(orders) == epochs
        for order in orders:
            np.testing.assert_array_equal(order.sort().values, torch.arange(count))
        return orders

    # What the method tells

    def task_begins(self, task: ClassTask) -> None:
        """Compare the network that is trained: grown, imprinted."""
        self.task, self.at = task, f"p{task.index}/"
        check_state(self.golden, f"{self.at}before", self.method.network, RUN)
        if task.index:
            weight = less_forget_weight(self._hp("lamda"), task.known, task.size)
            close(weight, self.golden[f"{self.at}lambda"])

    def stage_begins(self, stage: Stage, task: ClassTask) -> None:
        """Compare the exemplars before they are learned, and the learning rate."""
        self.steps = 0
        if stage.name == EXEMPLARS:
            self._check_ranks(self.method.candidates.samples())
            close(self._by_source(self.method.exemplars.detach()), self.golden[f"{self.at}mnemonics_init"])
            close(stage.schedule.lr, self.golden[f"{self.at}mnemonics_lr0"])  # type: ignore[union-attr]

    def gradients_are_there(self) -> None:
        """Compare the first gradient of the exemplars."""
        if self.method.stage.name == EXEMPLARS and self.steps == 0:
            gradient = self._by_source(self.method.exemplars.grad)
            near(gradient, self.golden[f"{self.at}mnemonics_grad_step0"], RUN)
        self.steps += 1

    def stage_ends(self, stage: Stage, task: ClassTask) -> None:
        """Compare losses, and what was trained."""
        terms, golden, at = self.method.terms, self.golden, self.at
        if stage.name == EXEMPLARS:
            near(terms["outer"], golden[f"{at}exemplar/ce"], RUN)
            near(self._by_source(self.method.exemplars.detach()), golden[f"{at}mnemonics_final"], RUN)
            return
        near(terms["classification"], golden[f"{at}train/ce"], RUN)
        if task.index:
            # T^2 beta is 1, and the recorded mean is over the old classes, too.
            near(np.array(terms["distillation"]) / task.known, golden[f"{at}train/kl_elementmean"], RUN)
        check_state(golden, f"{at}after", self.method.network, RUN)

    def task_ends(self, task: ClassTask) -> ClassTask:
        """Compare the memory and go on with the recorded one, which the recorded run has among its training images."""
        self.method.select(task)
        kept = self.method.kept(task)
        if f"{self.at}mnemonics_init" not in self.golden:
            self._check_ranks(kept.select(kept.labels >= task.known))
        self._check_images(kept)
        written = {int(source): image for source, image in zip(kept.sources, self._recorded_images(kept), strict=True)}
        for label in self.method.memory.classes:
            samples = self.method.memory.rows(label)
            images = torch.stack([written[int(source)] for source in samples.sources])
            self.method.memory.replace_class(label, replace(samples, images=images))
        past = _rewritten(task.past(), written)
        return replace(task, train=_rewritten(task.train, written), past=lambda: past)

    # Comparisons

    def _by_source(self, exemplars: Tensor) -> Tensor:
        """Return exemplars of new classes ``(classes, per class, ...)``, by data-set order inside a class."""
        samples = self.method.candidates.samples()
        return exemplars[_data_set_order(samples)].unflatten(0, (self.task.size, -1))

    def _check_ranks(self, chosen: Samples) -> None:
        """Compare which images of the new classes were chosen, in which order."""
        task, ranks = self.task, self.golden[f"{self.at}herding_rank"]
        for label in range(task.known, task.seen):
            own = task.train.select(task.train.labels == label).sources
            rank = np.zeros(ranks.shape[1], dtype=np.int64)
            for place, source in enumerate(chosen.sources[chosen.labels == label], start=1):
                rank[int((own == source).nonzero())] = place
            np.testing.assert_array_equal(rank, ranks[label])

    def _recorded_images(self, kept: Samples) -> Tensor:
        """Return the recorded images in the order of the memory, uint8."""
        images = tensor(self.golden, f"{self.at}exemplar_images").permute(0, 1, 4, 2, 3).flatten(0, 1)
        in_order = torch.empty_like(images)
        in_order[_data_set_order(kept)] = images
        return in_order.to(torch.uint8)

    def _check_images(self, kept: Samples) -> None:
        """Compare the memory; a few grey values of learned pixels may differ by one."""
        labels = kept.labels[_data_set_order(kept)]
        raw = torch.tensor(self.order)[labels].unflatten(0, (self.task.seen, -1))
        np.testing.assert_array_equal(raw, self.golden[f"{self.at}exemplar_labels"])
        assert isinstance(kept.images, Tensor)
        difference = (kept.images.int() - self._recorded_images(kept).int()).abs()
        assert difference.max() <= 1
        learned = f"{self.at}mnemonics_init" in self.golden
        assert difference.double().mean() <= (0.005 if learned else 0.0)

    def check_answers(self, values: dict[str, Any]) -> None:
        """Compare class means, tuned means, features, logits and accuracies."""
        task, golden, at, method = self.task, self.golden, self.at, self.method
        means = torch.stack([method.nearest_mean.means.T, method.oracle_mean.means.T], dim=2)
        near(means[:, : task.seen], golden[f"{at}class_means"][:, : task.seen], RUN)
        near(method.fast_means.means, golden[f"{at}fast_fc"], RUN)
        for name, seen in (("acc_all_seen", task.seen), ("acc_first_classes", self._sizes()[0])):
            self._check_outputs(f"{at}{name}", task.test.select(task.test.labels < seen))
        for number, readout in enumerate(READOUTS):
            curve, matrix = (100 * np.array(values[readout][f"accuracy_{name}"], float) for name in ("curve", "matrix"))
            close(curve[task.index], golden[f"{at}acc_all_seen"][number])
            close(matrix[task.index, 0], golden[f"{at}acc_first_classes"][number])
            close(curve[: task.index + 1], golden["acc_matrix_all"][: task.index + 1, number])
            close(matrix[: task.index + 1, 0], golden["acc_matrix_first"][: task.index + 1, number])

    def _check_outputs(self, name: str, test: Samples) -> None:
        """Compare features and logits, recorded task by task in the order of the data set."""
        starts = torch.tensor(self._sizes()).cumsum(0)
        tasks = torch.bucketize(test.labels, starts, right=True)
        test = test.select(torch.from_numpy(np.lexsort((test.sources, tasks))))
        np.testing.assert_array_equal(test.labels, self.golden[f"{name}_targets"])
        self.method.eval()
        with torch.no_grad():
            outputs = [self.method.network(batch.images) for batch in self.task.plain_batches(test, CPU)]
        for part in ("features", "logits"):
            near(torch.cat([getattr(output, part) for output in outputs]), self.golden[f"{name}_{part}"], RUN)


def _data_set_order(samples: Samples) -> Tensor:
    """Return the rows by class, and inside a class as in the data set, not by rank."""
    return torch.from_numpy(np.lexsort((samples.sources, samples.labels)))


def _rewritten(samples: Samples, written: dict[int, Tensor]) -> Samples:
    """Return samples with some images, by source, replaced."""
    assert isinstance(samples.images, Tensor)
    images = samples.images.clone()
    for row, source in enumerate(samples.sources.tolist()):
        if source in written:
            images[row] = written[source]
    return replace(samples, images=images)


class RecordedSequence(Sequence):
    """Begins with the recorded weights, and has the answers after every task compared."""

    def __init__(self, released: ReleasedRun, config: DictConfig, directory: RunDirectory) -> None:
        super().__init__(config, released.benchmark, released.method, directory, "")
        self.released = released

    def _grow(self, task: Any) -> None:
        super()._grow(task)
        if task.index == 0:
            load_official(self.method.network, official_arrays(self.released.golden, "p0/before"))

    def _finish_task(self, task: Any) -> None:
        super()._finish_task(task)
        self.released.check_answers(self.values)


@parity("minirun_nme")
def check_minirun_nme(golden: Golden) -> None:
    """The released code: exemplars learned through class means, weight transfer."""
    ReleasedRun(golden).run("released")


@parity("minirun_baseline")
def check_minirun_baseline(golden: Golden) -> None:
    """The released code's baseline: distillation, herded exemplars."""
    ReleasedRun(golden).run("baseline")
