"""Whole runs of DMN against golden values: learning step by step, the stream, and the fusion of what it says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmcl.methods.dmn import Dmn
from mmcl.methods.dmn_fusion import GRID, FusionGrid, fuse
from mmcl.methods.entropy import confident_mean
from mmcl.protocol import DatasetTask, FeatureBatch, ImageFeatures, TextFeatures
from tests.methods.dmn_cases import dataset_task, dmn_method
from tests.parity import Golden, close, parity
from tests.parity.dmn_memory import PARAMETERS, tensor

LOOSE = ("all", "key", "qkv")


class RecordedFeatures:
    """The features of a golden run."""

    def __init__(self, golden: Golden) -> None:
        self.golden = golden

    def texts(self, prompts: str) -> TextFeatures:
        return TextFeatures(tensor(self.golden, "raw_text_emb"), tensor(self.golden, "prompt_class"))

    def train(self, shots: int, passes: int, interpolation: str = "bilinear") -> ImageFeatures:
        features, labels = tensor(self.golden, "train_raw_feat"), tensor(self.golden, "train_labels")
        plain, further = features[:, :1], features[:, 1:]
        unused = plain.expand(-1, passes - further.shape[1], -1)  # each step brings its own augmented features
        return ImageFeatures(torch.cat([plain, unused, further], dim=1), labels, torch.arange(len(labels)))


def recorded_run(golden: Golden) -> tuple[Dmn, DatasetTask]:
    """Build the method with the settings of a golden run."""
    shots, views = int(golden["n_shot"]), golden["test_raw_feat"].shape[1]
    augmented = golden["train_raw_feat"].shape[1] if shots else 1
    classes, dimension = int(golden["prompt_class"].max()) + 1, golden["raw_text_emb"].shape[1]
    method = dmn_method(
        dimension,
        float(golden["logit_scale_exp"]),
        shots=shots,
        learn=bool(golden["ft"]),
        views=views,
        selection_share=float(golden["selection_p"]),
        slots_per_class=int(golden["memory_size"]),
        sharpness=float(golden["beta"]),
        position=str(golden["position"]),
        shared_parameters=bool(golden["shared_param"]),
        augmented_shots=augmented,
        schedule__epochs=int(golden["epoch"]),
        schedule__lr=float(golden["lr"]),
        schedule__weight_decay=float(golden["weight_decay"]),
        schedule__optimizer=str(golden["optimizer"]),
        passes=1,
    )
    task = dataset_task(RecordedFeatures(golden), classes)
    method.grow(task)
    method.begin_task(task)
    return method, task


def recorded_batches(golden: Golden) -> Iterator[FeatureBatch]:
    labels = tensor(golden, "train_labels")
    for step, length in enumerate(golden["step_batch_len"].tolist()):
        rows = tensor(golden, "step_batch_idx")[step, :length]
        yield FeatureBatch(tensor(golden, "step_batch_raw_feat")[step, :length, None], labels[rows], rows)


def learn(method: Dmn, task: DatasetTask, golden: Golden) -> None:
    """Take the recorded steps and compare each."""
    stage = method.stages(task)[0]
    method.begin_stage(stage, task)
    optimizer, scheduler = method.optimizer_of(stage)
    tolerance = 1e-4 if str(golden["position"]) in LOOSE else 1e-5
    for step, batch in enumerate(recorded_batches(golden)):
        close(scheduler.get_last_lr()[0], golden["step_lr"][step], 1e-9)
        losses = method.losses(batch)
        assert ("text" in losses) == ("step_loss_text" in golden)
        for name, loss in losses.items():
            close(loss.detach(), golden[f"step_loss_{name}"][step])
        total = torch.stack(list(losses.values())).sum()
        close(total.detach(), golden["step_loss_total"][step])
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        check_gradients(method, golden, step)
        optimizer.step()
        scheduler.step()
        check_parameters(method, golden, "step_param__", tolerance, step)
    check_parameters(method, golden, "final_param__", tolerance)
    method.end_stage(stage, task)


def check_gradients(method: Dmn, golden: Golden, step: int) -> None:
    for place, name in PARAMETERS.items():
        parameter = getattr(method.projections, place)
        if f"has_grad__{name}" in golden:
            assert (parameter.grad is not None) == bool(golden[f"has_grad__{name}"]), place
        if f"step_grad__{name}" in golden:
            expected = golden[f"step_grad__{name}"]
            scale = float(np.abs(expected).max())
            close(parameter.grad / scale, expected[step] / scale, 3e-5)


def check_parameters(method: Dmn, golden: Golden, prefix: str, tolerance: float, step: int | None = None) -> None:
    for place, name in PARAMETERS.items():
        if prefix + name in golden:
            expected = golden[prefix + name]
            close(getattr(method.projections, place).detach(), expected if step is None else expected[step], tolerance)


def run_stream(method: Dmn, task: DatasetTask, golden: Golden) -> dict[str, Tensor]:
    """Serve the recorded test images in batches of no particular size."""
    method.eval()
    method.end_task(task)
    method.begin_evaluation(task)
    answers = [method.scores(batch) for batch in tensor(golden, "test_raw_feat").split(83)]
    return {name: torch.cat([answer[name] for answer in answers]) for name in method.readouts}


def check_results(method: Dmn, task: DatasetTask, answers: dict[str, Tensor], golden: Golden) -> None:
    labels = tensor(golden, "test_labels")

    def percent(probabilities: Tensor) -> float:
        return 100 * float((probabilities.argmax(dim=1) == labels).double().mean())

    grid: Any = method.oracles(task)["fused"]
    grid.update(answers, labels)
    best = grid.compute()
    static = percent(answers["static"]) if "static" in answers else 0.0
    accuracies = [percent(answers["text"]), percent(answers["dynamic"]), static, 100 * float(best["accuracy"])]
    weights = [1.0, float(best["weight_dynamic"]), float(best["weight_static"])]
    close([*accuracies, *weights], golden["result_list"])
    if "fused_pred" in golden:
        fused = fuse(answers, grid.best_weights()).argmax(dim=1)
        assert fused.tolist() == golden["fused_pred"].tolist()


@parity("finetune")
def check_finetune(golden: Golden) -> None:
    method, task = recorded_run(golden)
    learn(method, task, golden)
    check_results(method, task, run_stream(method, task, golden), golden)


@parity("stream")
def check_stream(golden: Golden) -> None:
    method, task = recorded_run(golden)
    if golden["ft"]:
        learn(method, task, golden)
    answers = run_stream(method, task, golden)
    close(answers["text"], golden["text_prob_view0"])
    close(answers["dynamic"], golden["dynamic_prob"])
    assert ("static" in answers) == ("static_prob" in golden)
    if "static" in answers:
        close(answers["static"], golden["static_prob"])
    close(pseudo_predictions(method, golden), golden["pseudo_prob"])
    for name, part in (("count", "counts"), ("entropy", "entropies"), ("feat", "written_features")):
        close(getattr(method.memory, part), golden[f"final_mem_{name}"])
    check_results(method, task, answers, golden)


@torch.no_grad()
def pseudo_predictions(method: Dmn, golden: Golden) -> Tensor:
    views = normalize(tensor(golden, "test_raw_feat"), dim=2)
    return confident_mean(method.view_predictions(views), method.confident)


@parity("fusion_search")
def check_fusion_search(golden: Golden) -> None:
    few_shot = int(golden["n_shot"]) > 0
    grid = FusionGrid(static=few_shot)
    close(GRID, golden["weights_dynamic"])
    labels = tensor(golden, "labels")
    names = ("text", "dynamic", *(["static"] if few_shot else []))
    for rows in torch.arange(len(labels)).split(47):
        grid.update({name: tensor(golden, f"p_{name}")[rows] for name in names}, labels[rows])
    close(100 * grid.correct.double() / grid.total, golden["acc_grid"])
    best = grid.compute()
    close(100 * best["accuracy"], golden["best_acc"])
    close(grid.best_weights(), [golden[f"best_w_{name}"] for name in ("text", "dynamic", "static")])
    text = tensor(golden, "p_text")
    ranking = text.sort(dim=1, descending=True, stable=True).indices
    for k in (1, 5):
        close(100 * (ranking[:, :k] == labels[:, None]).any(dim=1).double().mean(), golden[f"top{k}_text"])
