"""However a run is typed, it is the same run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcl.config.compose import compose_run, compose_sweep
from mmcl.config.identity import identity
from mmcl.config.method_files import VARIABLE, load_method_files
from mmcl.config.overrides import documented, flags_of_a_job, normalise
from mmcl.errors import UserError

TYPED = [
    "+method=wa",
    "+experiment=memo/cifar100_b0_inc10_short",
    "benchmark=cifar10",
    "backbone=conv2",
    "trainer=ddp_cpu",
    "recipe=paper",
    "seed=3",
    "method.later_tasks.epochs=2",
    "paths.runs=/tmp/elsewhere",
]
COMPOSED = compose_run(TYPED)
MINE = """
from dataclasses import dataclass
import torch.nn.functional as F
from mmcl.config.schema import setting
from mmcl.methods.class_incremental import ClassIncremental, ClassIncrementalConfig

@dataclass
class MineConfig(ClassIncrementalConfig):
    strength: float = 0.5

class Mine(ClassIncremental):
    Config = MineConfig

    def losses(self, batch):
        logits = self.network(batch.images).logits
        return {"classification": self.config.strength * F.cross_entropy(logits, batch.labels)}

METHOD = Mine
LIKE = "finetune"
"""


@settings(max_examples=8, deadline=None)
@given(order=st.permutations(TYPED), plus=st.lists(st.booleans(), min_size=len(TYPED), max_size=len(TYPED)))
def test_order_and_plus_signs_never_change_the_run(order: list[str], plus: list[bool]) -> None:
    spelled = ["+" * sign + word.lstrip("+") for word, sign in zip(order, plus, strict=True)]
    assert compose_run(spelled) == COMPOSED


def test_the_command_line_wins_over_the_experiment_and_the_experiment_over_the_method() -> None:
    assert COMPOSED.method.name == "wa"
    assert COMPOSED.benchmark.name == "cifar10"
    assert COMPOSED.backbone.name == "conv2"
    assert COMPOSED.benchmark.increment == 10
    assert COMPOSED.method.first_task.epochs == 5
    assert COMPOSED.method.later_tasks.scheduler == "cosine"
    assert COMPOSED.method.later_tasks.epochs == 2


@pytest.mark.parametrize("path", ["~/data", "/tmp/a folder (1)/data", "/tmp/it's/x=y", "../data", "/"])
def test_paths_need_no_quotes(path: str) -> None:
    config = compose_run(["+method=memo", f"paths.data={path}"])
    assert config.paths.data == path
    assert config.benchmark.data == path


@pytest.mark.parametrize(
    "flags", [["--cfg", "job"], ["-m"], ["--config-dir", "mine"], ["-cd", "mine"], ["--config-dir=mine"]]
)
def test_flags_keep_their_values_wherever_they_stand(flags: list[str]) -> None:
    others = ["+method=memo", "seed=1"]
    for place in range(3):
        assert normalise([*others[:place], *flags, *others[place:]]) == [*flags, "method=memo", "++seed=1"]


def test_the_last_value_of_a_key_counts() -> None:
    config = compose_run(["+method=memo", "seed=2", "+seed=10", "method=wa", "seed=1"])
    assert (config.seed, config.method.name) == (1, "wa")


def test_a_value_in_the_place_of_a_group() -> None:
    with pytest.raises(UserError, match="'method.first_task' is a group of keys, not a value: 3"):
        compose_run(["+method=memo", "method.first_task=3"])


def test_the_documented_spelling_composes_to_the_same_run() -> None:
    normalised = normalise(TYPED)
    spelled = documented(normalised)
    assert not any(word.startswith("++") for word in spelled)
    assert {word.partition("=")[0] for word in spelled if word.startswith("+")} == {"+method", "+experiment"}
    assert compose_run(spelled) == COMPOSED


def test_a_sweep_composes_every_job() -> None:
    jobs = compose_sweep(["-m", "+method=replay,wa", "seed=1,2", "trainer=cpu"])
    assert {(job.method.name, job.seed) for job in jobs} == {("replay", 1), ("replay", 2), ("wa", 1), ("wa", 2)}
    assert {job.trainer.name for job in jobs} == {"cpu"}


def test_flags_of_a_sweep_that_hold_for_its_jobs() -> None:
    arguments = normalise(["+method=replay", "--config-dir", "mine", "-m", "seed=1,2"])
    assert flags_of_a_job(arguments) == ["--config-dir", "mine"]


def test_a_method_in_a_users_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    file = tmp_path / "mine_for_a_test.py"
    file.write_text(MINE)
    config = compose_run([f"+method={file}", "method.strength=2"])
    assert config.method.name == "mine_for_a_test"
    assert config.method.strength == 2.0
    assert config.method.later_tasks == compose_run(["+method=finetune"]).method.later_tasks
    # A child process knows the environment alone.
    monkeypatch.delitem(sys.modules, config.method._target_.rpartition(".")[0])
    load_method_files()
    assert compose_run(["method=mine_for_a_test", "method.strength=2"]) == config
    assert documented(normalise(["method=mine_for_a_test"])) == [f"+method={file}"]
    # Another content is another method: no finished run of the old one may answer for it.
    file.write_text(MINE + "\n# changed\n")
    assert identity(compose_run([f"+method={file}", "method.strength=2"])) != identity(config)


def test_a_method_file_with_a_shipped_name(tmp_path: Path) -> None:
    file = tmp_path / "replay.py"
    file.write_text(MINE)
    with pytest.raises(UserError, match="Rename the file"):
        compose_run([f"+method={file}"])


@pytest.mark.parametrize(("content", "words"), [(None, "no such file"), ("x = 1", "defines no METHOD")])
def test_a_method_file_that_is_none(content: str | None, words: str, tmp_path: Path) -> None:
    file = tmp_path / "not_a_method.py"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=words):
        compose_run([f"+method={file}"])
