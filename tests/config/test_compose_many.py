"""Many configurations composed together are those composed one by one, errors included."""

from __future__ import annotations

import pytest

from mmcl.config.compose import compose_run
from mmcl.config.compose_many import compose_runs
from mmcl.errors import UserError

RUNS = [
    ("+method=memo",),
    ("+method=memo", "memory.size=50", "benchmark.base=4"),
    ("memory.size=50", "+method=memo", "seed=3"),
    ("+method=mnemonics", "method.preset=released", "method.fast_classifier.epochs=1"),
    ("+experiment=memo/cifar100_b0_inc10_short", "method=der"),
    ("+experiment=dmn/few_shot_vit_b16", "method.schedule_of.food101.epochs=20"),
    ("+method=mml", "benchmark.evaluations=[seen,unseen]"),
    ("+method=memo", "paths.data=~/data", "trainer=cpu"),
    ("+method=slca", "recipe=paper"),
]
WRONG = [
    ("+method=meno",),
    ("+method=memo", "method.alpha_axu=1"),
    ("+method=memo", "memory.size=many"),
    ("+method=memo", "memory.size=[1"),
    ("+method=memo", "method.first_task.epochs.x=1"),
    ("+method=memo", "nothing.x=1"),
    ("+method=dmn", "benchmark=digits"),
]


@pytest.mark.parametrize("processes", [1, 2])
def test_each_is_what_it_is_alone(processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmcl.config.compose_many.FEW", 4)
    alone = [compose_run(list(run)) for run in RUNS]
    assert compose_runs([*RUNS, RUNS[0]], processes) == [*alone, alone[0]]


def test_errors_are_those_of_one_alone_and_stop_no_other() -> None:
    together = compose_runs([RUNS[0], *WRONG, RUNS[0]])
    assert together[0] == together[-1]
    for run, refused in zip(WRONG, together[1:-1], strict=True):
        with pytest.raises(UserError) as error:
            compose_run(list(run))
        assert isinstance(refused, UserError), run
        assert str(refused) == str(error.value)
