"""Whole class-incremental runs of SLCA, with linear and with Memory Heads, against golden values.

The runs go through the engine that real runs use; only data, initial weights, shuffles and drawn features are recorded
ones.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcl import randomness
from mmcl.backbones.feature_backbone import FeatureBackbone
from mmcl.benchmarks.class_incremental import ClassIncrementalBenchmark, ClassIncrementalBenchmarkConfig, RawData
from mmcl.config.components import build
from mmcl.config.compose import compose_run
from mmcl.engine.run_directory import RunDirectory
from mmcl.engine.sequence import Sequence
from mmcl.methods import slca
from mmcl.methods.pretrained import PretrainedIngredients
from mmcl.protocol import ClassTask, Samples
from tests.parity import Golden, close, parity

RUN_TOLERANCE = 1e-4
OPTIONS = "key_mem_units delta distance sigma_eu gamma_alpha tau_alpha tau_mu tau_eta upd_m upd_k beta_k scramble"
TENSORS = ("K", "M", "mu", "eta", "key_counter", "scrambling_count", "weight", "bias")
EXACT = ("mu", "eta", "key_counter", "scrambling_count", "beta_k", "scramble")


class Case(dict[str, np.ndarray]):
    """One case of the golden file, its keys without the case's prefix."""

    def __init__(self, golden: Golden, number: int) -> None:
        prefix = f"c{number:02d}__"
        super().__init__({key.removeprefix(prefix): golden[key] for key in golden if key.startswith(prefix)})

    def tensor(self, key: str) -> Tensor:
        """Return an array as a tensor."""
        return torch.from_numpy(np.array(self[key]))


class RecordedBackbone(FeatureBackbone):
    """The golden runs' backbone: a linear layer and tanh."""

    def __init__(self, case: Case) -> None:
        weight = case.tensor("conv_weight0")
        super().__init__(len(weight))
        self.linear = nn.Linear(weight.shape[1], len(weight))
        self.linear.load_state_dict({"weight": weight, "bias": case.tensor("conv_bias0")})

    def forward(self, images: Tensor) -> Tensor:
        """Return tanh of the linear layer."""
        return torch.tanh(self.linear(images))


class RecordedBenchmark(ClassIncrementalBenchmark):
    """The recorded vectors of each task; a task has test samples of its own."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.recorded_sizes = case["task_sizes"].tolist()
        base, increment, classes = self.recorded_sizes[0], self.recorded_sizes[-1], sum(self.recorded_sizes)
        order = list(range(classes))
        super().__init__(ClassIncrementalBenchmarkConfig("", "golden", "", base, increment, 0, order, False, 0, 3))

    def read(self) -> RawData:
        """Return the recorded vectors."""
        parts = [self._samples(f"t{task}_X", f"t{task}_Y") for task in range(len(self.recorded_sizes))]
        names = [str(label) for label in range(sum(self.recorded_sizes))]
        return RawData(Samples.concatenate(parts), parts[-1], names)

    def task(self, index: int) -> ClassTask:
        """Return a task with its own test samples."""
        return replace(super().task(index), test=self._samples(f"t{index}_test_x", f"t{index}_test_y"))

    def _samples(self, vectors: str, labels: str) -> Samples:
        count = len(self.case[labels])
        return Samples(self.case.tensor(vectors), self.case.tensor(labels), torch.arange(count))


class RecordedSequence(Sequence):
    """Begins every task with the recorded head and compares what comes out of every stage."""

    def __init__(self, case: Case, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.case = case
        self.cross_entropies: list[float] = []

    def _grow(self, task: ClassTask) -> None:
        super()._grow(task)
        at = f"t{task.index}_"
        newest = self.method.heads[-1]
        names = [name for name in newest.state_dict() if name in TENSORS]
        names = [name for name in newest.state_dict() if name in TENSORS]
        recorded = {name: self.case.tensor(f"{at}h{task.index}_{name}_init") for name in names}
        newest.load_state_dict({**newest.state_dict(), **recorded})
        self._check_heads(self.method.heads, at, "init")
        self.cross_entropies.clear()

    def _save(self) -> None:
        super()._save()
        at = f"t{self.state.task}_"
        if self.state.stages_done == 1:
            close(self.cross_entropies, self.case[f"{at}stage1_losses"], RUN_TOLERANCE)
            close(self.method.backbone.linear.weight.detach(), self.case[f"{at}conv_weight1"], RUN_TOLERANCE)
            close(self.method.backbone.linear.bias.detach(), self.case[f"{at}conv_bias1"], RUN_TOLERANCE)
            close(self.method.gaussians.means, self.case[f"{at}class_means"], RUN_TOLERANCE)
            close(self.method.gaussians.covariances, self.case[f"{at}class_covs"], RUN_TOLERANCE)
            self._check_heads(self.method.heads, at, "stage1")
            self.cross_entropies.clear()
        elif self.state.stages_done == 2:
            close(self.cross_entropies, self.case[f"{at}ca_losses"], RUN_TOLERANCE)
            self._check_heads(self.method.answering, at, "ca")

    def _finish_task(self, task: ClassTask) -> None:
        at = f"t{task.index}_"
        self._check_heads(self.method.heads, at, "end")
        self.method.eval()
        with torch.no_grad():
            logits = self.method.scores(task.test.images)["cnn"]
        close(logits, self.case[f"{at}test_logits"], RUN_TOLERANCE)
        super()._finish_task(task)
        top1 = 100 * self.values["cnn"]["accuracy_curve"][task.index]
        close(np.around(top1, 2), self.case[f"{at}test_top1"])

    def _check_heads(self, heads: Any, at: str, when: str) -> None:
        for number, head in enumerate(heads):
            for name, value in _state_of(head).items():
                expected = self.case[f"{at}h{number}_{name}_{when}"]
                if name in EXACT:
                    np.testing.assert_array_equal(value, expected, err_msg=f"{at}h{number}_{name}_{when}")
                else:
                    close(value, expected, RUN_TOLERANCE)


def _state_of(head: nn.Module) -> dict[str, Any]:
    """Return what the golden file says of a head."""
    state = {name: value.detach() for name, value in head.state_dict().items() if name in TENSORS}
    return {**state, **{name: getattr(head, name) for name in ("beta_k", "scramble") if hasattr(head, name)}}


@parity("ci_slca")
def check_runs(golden: Golden) -> None:
    """Whole runs: with the network learning and frozen, keys moving in the alignment and not, linear heads."""
    for number in range(int(golden["n_cases"])):
        run_recorded(Case(golden, number))


def run_recorded(case: Case) -> None:
    """Run a case through the engine, and check every stage."""
    config = compose_run(
        [*_overrides(case), "benchmark=digits", "recipe=paper", "trainer=cpu", "trainer.progress=false"]
    )
    benchmark = RecordedBenchmark(case)
    count = len(benchmark.recorded_sizes)
    method = build(config.method, PretrainedIngredients(config.seed, count, lambda: RecordedBackbone(case), 1))
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        sequence = RecordedSequence(case, config, benchmark, method, RunDirectory(Path(folder), "golden"), "")
        patch.setattr(randomness, "permutation", lambda count, *draw: _shuffle(case, count, draw))
        patch.setattr(slca, "draw_gaussian", _Draws(case, sequence))
        patch.setattr(F, "cross_entropy", _recording(F.cross_entropy, sequence.cross_entropies))
        patch.setattr(type(method), "on_train_epoch_end", _answering(type(method).on_train_epoch_end, benchmark))
        sequence.run()


def _overrides(case: Case) -> list[str]:
    linear = str(case["opt_model"]) == "slca"
    fixed = bool(case["opt_fix_bcb"])
    norm = str(case["opt_logit_norm"])
    keys = {
        "representation.epochs": case["opt_epochs"],
        "representation.batch_size": case["opt_batch_size"],
        "representation.milestones": str(case["opt_milestones"].tolist()).replace(" ", ""),
        "representation.lr": case["opt_lr"],
        "virtual_batch": case["opt_virtual_batch"],
        "backbone_lr_scale": 0 if fixed else case["opt_bcb_lrscale"],
        "alignment.epochs": case["opt_ca_epochs"],
        "alignment.lr": case["opt_lr"],
        "draws_per_class": case["opt_samples_per_class"],
        "logit_norm": "null" if norm == "none" else norm,
    }
    if not linear:
        keys["freeze_keys_in_alignment"] = case["opt_freeze_keys_ca"]
        keys |= {f"head.{name}": case[f"opt_{name}"] for name in [*OPTIONS.split(), "layer_norm"]}
    name = "slca" if linear else "slca_memory_head"
    return [f"+method={name}", *(f"method.{key}={value}" for key, value in keys.items())]


def _shuffle(case: Case, count: int, draw: tuple[int | str, ...]) -> Tensor:
    _, task, stage, _, epoch = draw
    name = "perms" if stage == "representation" else "ca_perms"
    order = case.tensor(f"t{task}_{name}")[int(epoch)].long()
    assert len(order) == count
    return order


class _Draws:
    """Recorded features in the place of drawn ones; class after class, all epochs at once."""

    def __init__(self, case: Case, sequence: Sequence) -> None:
        self.case, self.sequence = case, sequence
        self.label = 0

    def __call__(self, mean: Tensor, factor: Tensor, count: int, generator: torch.Generator) -> Tensor:
        samples = self.case.tensor(f"t{self.sequence.state.task}_ca_samples")
        recorded = samples[:, self.label].transpose(0, 1).flatten(0, 1)
        self.label = (self.label + 1) % samples.shape[1]
        assert len(recorded) == count
        white = torch.linalg.solve_triangular(factor, (recorded - mean.float()).T, upper=False).T
        # What was recorded can be a draw of the Gaussian that is asked for: five standard errors.
        assert white.mean(dim=0).abs().max() < 5 / count**0.5
        assert (white.var(dim=0) - 1).abs().max() < 5 * (2 / count) ** 0.5
        return recorded


def _recording(cross_entropy: Any, values: list[float]) -> Any:
    def record(*arguments: Any, **keywords: Any) -> Tensor:
        value: Tensor = cross_entropy(*arguments, **keywords)
        values.append(value.item())
        return value

    return record


def _answering(epoch_end: Any, benchmark: RecordedBenchmark) -> Any:
    """The recorded runs answered for all test samples after every epoch of an alignment, which heads count."""

    def answer(method: Any) -> None:
        epoch_end(method)
        if method.aligning:
            modes = [head.training for head in method.answering]
            method.answering.eval()
            with torch.no_grad():
                method.scores(benchmark.task(len(method.heads) - 1).test.images)
            for head, mode in zip(method.answering, modes, strict=True):
                head.train(mode)

    return answer
