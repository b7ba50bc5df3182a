"""Exported features give the figures that the images gave; the cache can be listed, verified and cleared."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmcl import cli
from mmcl.config.compose import compose_run
from mmcl.engine.export import export_features
from mmcl.errors import UserError
from tests.engine.tiny import read, run_here

SMALL = (
    "benchmark.classes=unseen",
    "benchmark.train_per_class=2",
    "benchmark.validation_per_class=2",
    "benchmark.test_per_class=2",
    "method.views=4",
    "method.selection_share=0.5",
    "trainer=cpu",
)


def _run(runs: Path, *overrides: str) -> dict[str, object]:
    return read(run_here(["+method=dmn", f"paths.runs={runs}", "method.shots=2", "method.fusion=val", *overrides]))


def test_exported_features_give_the_same_figures(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    images = _run(runs, *SMALL)
    file = tmp_path / "shapes.npz"
    export_features(compose_run(["method=dmn", "benchmark=shapes", *SMALL, f"paths.runs={runs}"]), file)
    own = _run(runs, "benchmark=features", f"paths.features={file}", *SMALL[4:])
    assert own["readouts"] == images["readouts"]


def test_several_data_sets_are_refused(tmp_path: Path) -> None:
    config = compose_run(["method=dmn", "benchmark=shapes_ood", *SMALL, f"paths.runs={tmp_path}"])
    with pytest.raises(UserError, match="one at a time"):
        export_features(config, tmp_path / "file.npz")


def test_the_cache_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run(tmp_path, *SMALL)
    folder = str(tmp_path / "cache")

    def say(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            cli.main(["cache", *arguments, "--cache", folder])
        assert not ended.value.code
        return capsys.readouterr().out

    assert "shapes-test" in say("ls")
    damaged = next((tmp_path / "cache").glob("shapes-test-*")) / "features.npy"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    verified = say("verify")
    assert verified.count("DAMAGED") == 1
    assert "sound" in verified
    assert "shapes-test" in say("clear", "shapes-test-*")
    assert "shapes-test" not in say("ls")
    say("clear")
    assert "shapes" not in say("ls")
