"""Parity with Mnemonics' vectors: one increment with all stages of the paper.

It goes through the engine's stages and the method that real runs use; only data, weights, batches and draws are the
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
from mmcl.engine import ingredients as engine_ingredients
from mmcl.engine.assemble import build_method
from mmcl.engine.progress import Progress
from mmcl.engine.stages import fit_stage
from mmcl.images import FloatPixels
from mmcl.methods.cosine_losses import less_forget_weight
from mmcl.methods.mnemonics import mnemonics
from mmcl.methods.mnemonics.adjusting import Halves
from mmcl.pixels import PixelScale
from mmcl.protocol import Batch, ClassTask, Samples, Stage
from tests.parity import Golden, parity
from tests.parity.mnemonics_runs import CPU, check_state, configured, schedule, tensor
from tests.parity.official_nets import load_official, near, official_arrays, official_tensors, tiny_backbone
from tests.parity.recorded_batches import Epochs, RecordedBatches


class PaperIncrement:
    """Feeds one increment with all of the paper's stages to the engine, and compares every stage."""

    def __init__(self, golden: Golden) -> None:
        self.golden = golden
        new, old = (self._samples(*names) for names in (("new_images", "new_labels"), ("exemplars_old", "labels_old")))
        # Recorded indices count the new images first, then the old exemplars.
        self.new, self.old = new, replace(old, sources=old.sources + len(new))
        labels = torch.cat([self.old.labels, self.new.labels])
        self.known, self.seen = int(self.old.labels.max()) + 1, int(labels.max()) + 1
        order = list(range(self.seen))
        train = Samples.concatenate([self.new, self.old])
        self.benchmark = RecordedBatches(
            RawData(train, train, list(map(str, order))), [self.known, self.seen - self.known], order, self._epochs_of
        )

    def run(self) -> None:
        """Go through the increment, from the network after the first task and its exemplars."""
        golden = self.golden
        config = configured(golden, self._method(), {"per_class": int((golden["labels_old"] == 0).sum())})
        phase0 = official_arrays(golden, "phase0")
        with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
            patch.setattr(engine_ingredients, "build", lambda node: tiny_backbone(phase0))
            patch.setattr(engine_ingredients, "selector", lambda *names: self._select)
            patch.setattr(mnemonics, "halves", self._halves)
            self.method = build_method(config, self.benchmark)
            self.method.watcher = self
            self.method.grow(self.benchmark.task(0))
            load_official(self.method.network, phase0)
            self.method.memory.append(self.old)
            self._train(config, Path(folder))

    def _train(self, config: DictConfig, folder: Path) -> None:
        """Do with the increment what the engine does with a task."""
        task, method = self.benchmark.task(1), self.method
        method.grow(task)
        method.begin_task(task)
        names = [stage.name for stage in method.stages(task)]
        assert names == ["representation", "exemplars", "adjusting", "balanced"]
        for number in range(len(names)):
            fit_stage(
                method,
                self.benchmark,
                task,
                method.stages(task)[number],
                position=(number, len(names)),
                seed=0,
                trainer_config=config.trainer,
                folder=folder,
                metrics=None,
                progress=Progress(1, False, False),
            )
        method.eval()
        method.end_task(task)
        self._check_answers(task)

    def _samples(self, images: str, labels: str) -> Samples:
        """Return normalised images as the float pixels that a memory keeps."""
        pixels = PixelScale(RecordedBatches.mean, RecordedBatches.std).denormalise(tensor(self.golden, images))
        return Samples(FloatPixels(pixels), tensor(self.golden, labels), torch.arange(len(pixels)))

    def _method(self) -> dict[str, Any]:
        golden = self.golden
        descent = {"epochs": 1, "milestones": [], "momentum": golden["momentum"], "weight_decay": golden["wd"]}
        return {
            "preset": "paper",
            **schedule(
                "less_forget",
                lambda_base=float(golden["lambda_"]) / less_forget_weight(1.0, self.known, self.seen - self.known),
                hard_negatives=golden["K"],
                margin=golden["margin"],
                margin_weight=golden["lw_mr"],
            ),
            **schedule("later_tasks", lr=golden["train_lr"], **descent),
            **schedule("balanced", lr=golden["ft_lr"], **descent),
            "exemplars.mode": "unrolled_fc",
            **schedule("exemplars.inner", lr=golden["inner_lr"], steps=golden["inner_steps"], sets=1),
            **schedule("exemplars.learning", epochs=1, lr=golden["outer_lr_new"]),
            **schedule("exemplars.adjusting", rounds=1, lr=golden["outer_lr_old"]),
            "fast_classifier.epochs": 0,
        }

    def _select(self, features: Tensor, labels: Tensor, count: int) -> Tensor:
        return tensor(self.golden, "new_selected")

    def _halves(self, labels: Tensor, *draw: int | str) -> Halves:
        """Return the recorded halves as rows of the exemplars that are adjusted."""
        rows = {source - len(self.new): row for row, source in enumerate(self.method._sources.tolist())}
        first, second = (torch.tensor([rows[index] for index in self.golden[f"split_{half}"]]) for half in "AB")
        return Halves(first, second)

    def _epochs_of(self, samples: Samples, batch_size: int, draw: tuple[int | str, ...]) -> Epochs:
        """Return the recorded rows of a stage's samples; all of them for a round of adjusting."""
        (served,) = self.benchmark.plain_batches(samples, CPU)
        name = draw[-1]
        kinds = {"representation": "train/index", "exemplars": "exemplar/query_index", "balanced": "finetune/index"}
        if name not in kinds:
            return [[served]]
        steps = sum(key.startswith(kinds[name]) for key in self.golden)
        rows = {source: row for row, source in enumerate(served.sources.tolist())}
        counted = self._counted(str(name))
        batches = []
        for step in range(steps):
            index = torch.tensor([rows[int(counted[place])] for place in self.golden[f"{kinds[name]}{step}"]])
            batches.append(Batch(served.images[index], served.labels[index], served.sources[index]))
        return [batches]

    def _counted(self, name: str) -> Tensor:
        """Return the sources of the images that the indices of a stage count."""
        if name == "balanced":
            return torch.cat([self.old.sources, self.new.sources[tensor(self.golden, "new_selected")]])
        return torch.cat([self.new.sources, self.old.sources])

    # What the method tells

    def task_begins(self, task: ClassTask) -> None:
        """Compare the imprinted rows."""
        near(self.method.network.head.weight_new.detach(), self.golden["weight_new_imprinted"])

    def stage_begins(self, stage: Stage, task: ClassTask) -> None:
        """Compare nothing: what begins is what the stage before left."""

    def gradients_are_there(self) -> None:
        """Compare nothing: what gradients make of weights and pixels is compared."""

    def stage_ends(self, stage: Stage, task: ClassTask) -> None:
        """Compare losses, and what was trained."""
        golden, method = self.golden, self.method
        losses = {"representation": "train", "exemplars": "exemplar", "adjusting": "adjust", "balanced": "finetune"}
        near(method.summed_terms(), golden[f"{losses[stage.name]}/losses"])
        if stage.name == "representation":
            check_state(golden, "after_train", method.network, 1e-5)
        elif stage.name == "balanced":
            self._check_trained_head()
        else:
            learned = stage.name == "exemplars"
            places = tensor(golden, "new_selected") if learned else self.old.sources
            rows = {source: row for row, source in enumerate(method._sources.tolist())}
            pixels = method.exemplars.detach()[[rows[int(source)] for source in places]]
            near(pixels, golden["exemplars_new" if learned else "exemplars_old_adjusted"])

    def task_ends(self, task: ClassTask) -> ClassTask:
        """Go on with the task."""
        return task

    def _check_trained_head(self) -> None:
        """Compare the rows after the balanced stage; all else is as it was after the representation."""
        head = {"fc.fc1.weight": "weight_old_final", "fc.fc2.weight": "weight_new_final"}
        after = official_arrays(self.golden, "after_train")
        for name, found in official_tensors(self.method.network).items():
            near(found.detach(), self.golden[head[name]] if name in head else after[name])

    def _check_answers(self, task: ClassTask) -> None:
        """Compare class means, logits and predictions by them."""
        golden, method = self.golden, self.method
        near(method.nearest_mean.means, golden["class_means"])
        with torch.no_grad():
            scores = method.scores(tensor(golden, "eval_images"))
        near(scores["cnn"], golden["eval_logits"])
        np.testing.assert_array_equal(scores["nme"].argmax(1), golden["nme_prediction"])


@parity("minirun_paper")
def check_minirun_paper(golden: Golden) -> None:
    """The paper's increment: LUCIR, exemplars through the unrolled classifier, adjusted halves, a balanced head."""
    PaperIncrement(golden).run()
