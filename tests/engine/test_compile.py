"""``trainer.compile``: the same answers from compiled backbones."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.engine.tiny import metric_rows, read, run_here, tiny

QUICK = ("+method=replay", "method.later_tasks.epochs=1", "method.first_task.batch_size=721")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None and shutil.which("cc") is None, reason="compiling needs a C compiler")
def test_a_compiled_run_learns_as_an_eager_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)  # a pool of compilers takes longer to start
    eager = run_here(tiny(tmp_path / "eager", *QUICK))
    compiled = run_here([*tiny(tmp_path / "compiled", *QUICK), "trainer.compile=true"])
    assert read(compiled)["bytes"] == read(eager)["bytes"]
    ours, theirs = metric_rows(compiled.parent), metric_rows(eager.parent)
    assert ours.keys() == theirs.keys()
    for position, value in ours.items():
        if position[-1] == "loss":
            assert float(value) == pytest.approx(float(theirs[position]), abs=1e-3)
