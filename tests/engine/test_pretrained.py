"""Methods on pre-trained networks through the engine: resume, two processes, features in place of a network."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmcl.config.compose import compose_run
from mmcl.engine.assemble import run
from mmcl.engine.state import StateFile
from mmcl.errors import UserError
from mmcl.methods.base import Method
from tests.engine.tiny import assert_same_outcome, metric_rows, read, run_here, stop_after_each_save
from tests.methods.kinds import PRETRAINED

CHECKOUT = Path(__file__).resolve().parents[2]
SMALL = (
    "benchmark=digits",
    "benchmark.increment=4",
    "backbone=none",
    "backbone._target_=tests.engine.feature_backbone.SmallBackbone",
    "recipe=paper",
    "trainer=cpu",
)
HEADS = (
    "method.representation.epochs=2",
    "method.representation.batch_size=31",
    "method.virtual_batch=124",
    "method.alignment.epochs=3",
    "method.alignment.batch_size=32",
    "method.draws_per_class=32",
)
MEMORY = (
    "method.head.key_mem_units=4",
    "method.head.tau_mu=400",
    "method.head.tau_eta=100",
    "method.representation.lr=0.05",
)
OF_METHOD: dict[str, tuple[str, ...]] = {
    "slca": HEADS,
    "slca_memory_head": (*HEADS, *MEMORY),
    "ncm": (),
    "linear_probe": ("method.classifier.epochs=3",),
    "joint_probe": ("method.classifier.epochs=3", "method.every_task=true"),
}


def _arguments(runs: Path, name: str, *overrides: str) -> list[str]:
    return [f"+method={name}", *SMALL, *OF_METHOD[name], *overrides, f"paths.runs={runs}"]


def _run_until(arguments: list[str], patch: pytest.MonkeyPatch, stage: str, epoch: int) -> None:
    """Run until the first step of an epoch of a stage of the second task, and stop there."""
    account = Method._account

    def interrupt(self: Any, *rest: Any) -> None:
        account(self, *rest)
        if self.known and self.stage.name == stage and self.trainer.current_epoch == epoch:
            raise InterruptedError

    patch.setattr(Method, "_account", interrupt)
    with pytest.raises(InterruptedError):
        run_here(arguments)


def test_all_are_here() -> None:
    assert set(PRETRAINED) <= set(OF_METHOD)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_here(_arguments(tmp_path_factory.mktemp("undisturbed"), "slca_memory_head"))


@pytest.mark.parametrize(("stage", "epoch"), [("representation", 1), ("alignment", 0), ("alignment", 2)])
def test_a_run_goes_on_inside_every_stage(
    stage: str, epoch: int, tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inside an alignment, too, whose later epochs repeat what the first one left in the heads."""
    arguments = _arguments(tmp_path, "slca_memory_head")
    with monkeypatch.context() as patch:
        _run_until(arguments, patch, stage, epoch)
    assert_same_outcome(run_here(arguments), undisturbed)


def test_a_run_goes_on_after_every_saved_state(
    tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = _arguments(tmp_path, "slca_memory_head")
    stop_after_each_save(arguments, 2 + 3 + 3, monkeypatch)
    assert_same_outcome(run_here(arguments), undisturbed)


@pytest.mark.parametrize(
    ("name", "stage"), [("slca", "alignment"), ("linear_probe", "classifier"), ("joint_probe", "classifier")]
)
def test_every_method_goes_on_inside_a_task(
    name: str, stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = ["method.backbone_lr_scale=0"] if name == "slca" else []
    encoded = [*extra, "method.frozen_features=true"]
    undisturbed = run_here(_arguments(tmp_path / "undisturbed", name, *encoded))
    arguments = _arguments(tmp_path / "interrupted", name, *encoded)
    with monkeypatch.context() as patch:
        _run_until(arguments, patch, stage, 1)
    assert_same_outcome(run_here(arguments), undisturbed)


def test_micro_batches_add_up_to_their_virtual_batch(tmp_path: Path) -> None:
    """124 images of a step at once and in four parts; the epoch's last step is made of smaller parts, so one epoch."""
    short = ("method.representation.epochs=1", "method.alignment.epochs=0", "benchmark.increment=10")
    parts = run_here(_arguments(tmp_path / "parts", "slca", *short))
    whole = run_here(_arguments(tmp_path / "whole", "slca", *short, "method.representation.batch_size=124"))
    states = [StateFile(result.parent / "state").load().method for result in (parts, whole)]
    assert states[0] is not None
    assert states[1] is not None
    # 1442 images: eleven steps of 124 and one of 78, whose mean the parts weigh by 31 of 124.
    for name in ("heads.0.weight", "backbone.layers.3.weight"):
        torch.testing.assert_close(states[0][name], states[1][name], rtol=0.05, atol=2e-3)


# ------------------------------------------------------------------ two processes


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    """Odd batches: some leave the second process a row short, and one leaves it none."""
    odd = ("method.representation.batch_size=27", "method.virtual_batch=108")
    one = run_here(_arguments(tmp_path / "one", "slca_memory_head", *odd))
    arguments = _arguments(tmp_path / "two", "slca_memory_head", *odd, "trainer=ddp_cpu", "trainer.devices=2")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    ended = subprocess.run(
        [sys.executable, "-m", "mmcl.run", *arguments],
        cwd=CHECKOUT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    two = Path(ended.stdout.rstrip().rpartition("\n")[2])
    ours, theirs = (StateFile(result.parent / "state").load().method for result in (one, two))
    assert ours is not None
    assert theirs is not None
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        if name.endswith(("mu", "eta", "scrambling_count")) or (name.endswith("key_counter") and "heads" in name):
            assert torch.equal(value, theirs[name]), name
        elif isinstance(value, torch.Tensor) and not name.endswith("key_counter"):
            torch.testing.assert_close(value, theirs[name], rtol=1e-4, atol=1e-5)
    rows, others = metric_rows(one.parent), metric_rows(two.parent)
    assert rows.keys() == others.keys()
    for position, figure in rows.items():
        assert math.isclose(float(figure), float(others[position]), rel_tol=0, abs_tol=1e-4), position


# ------------------------------------------------------------------ features, and what does not go together


@pytest.fixture
def features(tmp_path: Path) -> Path:
    """A file of features of six classes."""
    numbers = np.random.RandomState(0)
    labels = np.repeat(np.arange(6), 20)
    centres = 3 * numbers.randn(6, 8)
    content: dict[str, Any] = {"class_names": np.array([f"class {label}" for label in range(6)])}
    for split in ("train", "test"):
        content[f"image_{split}"] = (centres[labels] + numbers.randn(len(labels), 8)).astype(np.float32)
        content[f"label_{split}"] = labels
    np.savez(tmp_path / "features.npz", **content)
    return tmp_path / "features.npz"


@pytest.mark.parametrize("name", sorted(OF_METHOD))
def test_every_method_runs_on_a_file_of_features(name: str, features: Path, tmp_path: Path) -> None:
    arguments = [
        f"+method={name}",
        "benchmark=class_features",
        "benchmark.increment=2",
        f"paths.features={features}",
        *OF_METHOD[name],
        *(["method.classifier.batch_size=8", "method.classifier.lr=0.05"] if name.endswith("probe") else []),
        "trainer=cpu",
        f"paths.runs={tmp_path / 'runs'}",
    ]
    result = read(run_here(arguments))
    (figures,) = result["readouts"].values()
    assert figures["accuracy_curve"][-1] > (0.3 if name == "linear_probe" else 0.7)
    assert result["bytes"][-1]["model_bytes"] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["+method=slca", "benchmark=digits", "recipe=paper", "backbone=resnet14"],
            "Type for example backbone=vit_tiny",
        ),
        (["+method=finetune", "benchmark=digits", "backbone=vit_tiny"], "Type for example backbone=resnet32"),
        (["+method=dmn", "backbone=vit_tiny"], "has no text encoder. Type for example backbone=mini_clip"),
    ],
)
def test_a_backbone_of_another_kind_is_refused(arguments: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        run(compose_run([*arguments, "trainer=cpu", f"paths.runs={tmp_path}"]), "")
    assert words in str(refused.value)
    assert not list(tmp_path.rglob("*.json"))


def test_a_network_that_learns_from_images_is_refused_on_features(features: Path, tmp_path: Path) -> None:
    arguments = ["+method=finetune", "benchmark=class_features", "benchmark.increment=2", f"paths.features={features}"]
    with pytest.raises(UserError, match="benchmark=class_features has features. Type for example method=slca"):
        run(compose_run([*arguments, "trainer=cpu", f"paths.runs={tmp_path}"]), "")
