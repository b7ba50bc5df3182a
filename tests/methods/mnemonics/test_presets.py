"""Presets of Mnemonics: the table of settings that its paper and its code stand for."""

from __future__ import annotations

import pytest
from omegaconf import DictConfig, OmegaConf

from mmcl.config.compose import compose_run
from mmcl.config.locate import options
from tests.methods.kinds import method_node

KEYS = (
    "method.exemplars.mode",
    "method.exemplars.storage",
    "method.exemplars.queries",
    "method.base",
    "method.network",
    "method.weight_transfer",
    "method.round_up",
    "method.second_view",
    "method.balanced.epochs",
    "memory.select",
    "memory.size",
    "memory.per_class",
)
TABLE = {
    "baseline": (
        ("off", "float", "new", "distillation", "single", False, True, "channel_reverse", 0)
        + ("herding_lucir", 2000, None)
    ),
    "released": (
        ("nme", "uint8_trunc", "new_and_memory", "distillation", "single", True, True, "channel_reverse", 0)
        + ("herding_lucir", 2000, None)
    ),
    "paper": ("unrolled_full", "float", "new", "lucir", "single", True, False, "none", 20, "random", None, 20),
    "aanets": ("off", "float", "new", "lucir", "aanets", False, False, "none", 0, "herding_lucir", None, 20),
}


def _composed(*overrides: str) -> DictConfig:
    return compose_run(["+method=mnemonics", "benchmark=cifar100", *overrides])


@pytest.mark.parametrize("name", TABLE)
def test_a_preset_stands_for_a_row_of_the_table(name: str) -> None:
    config = _composed(f"method.preset={name}")
    assert tuple(OmegaConf.select(config, key) for key in KEYS) == TABLE[name]
    assert config.method.preset == name
    assert "???" not in OmegaConf.to_yaml(config)


def test_every_preset_is_in_the_table() -> None:
    assert set(options("preset")) - {"none"} == set(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_a_preset_gives_no_key_that_the_method_lacks(name: str) -> None:
    known = set(method_node("mnemonics"))
    assert set(_composed(f"method.preset={name}").method) == known


@pytest.mark.parametrize("name", TABLE)
def test_every_schedule_is_that_of_the_official_code(name: str) -> None:
    method = _composed(f"method.preset={name}").method
    for stage in (method.first_task, method.later_tasks):
        assert (stage.epochs, stage.batch_size, stage.lr, list(stage.milestones)) == (160, 128, 0.1, [80, 120])
        assert (stage.momentum, stage.weight_decay, stage.lr_decay) == (0.9, 5e-4, 0.1)
    assert (method.soft_targets.temperature, method.soft_targets.beta) == (2.0, 0.25)
    margin = method.less_forget
    assert (margin.lambda_base, margin.hard_negatives, margin.margin, margin.margin_weight) == (5.0, 2, 0.5, 1.0)


def test_pixels_are_learned_at_the_rates_of_paper_and_code() -> None:
    paper, released = (_composed(f"method.preset={name}").method.exemplars for name in ("paper", "released"))
    learning = paper.learning
    assert (learning.optimizer, learning.epochs, learning.lr, learning.momentum) == ("sgd", 50, 0.01, 0.0)
    assert (learning.lr_decay, learning.decay_epochs) == (0.5, 10)
    assert (paper.inner.steps, paper.inner.lr) == (50, 0.01)
    assert (paper.adjusting.rounds, paper.adjusting.lr) == (10, 0.01)
    learning = released.learning
    assert (learning.optimizer, learning.epochs, learning.lr, learning.momentum) == ("sgd", 1, 1e-5, 0.9)
    assert (learning.weight_decay, learning.lr_decay, learning.decay_epochs) == (5e-4, 0.5, 1)
    assert released.adjusting.rounds == 0


def test_without_a_preset_it_is_the_papers() -> None:
    assert _composed() == _composed("method.preset=paper")


def test_what_is_typed_beside_a_preset_comes_last() -> None:
    config = _composed("method.weight_transfer=false", "method.preset=released", "memory.size=500")
    assert config.method.weight_transfer is False
    assert config.memory.size == 500
    assert config.method.exemplars.mode == "nme"
