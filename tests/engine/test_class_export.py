"""Features of a pre-trained backbone in a file: what the backbone gives, in the order of the data set."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmcl import cli
from mmcl.benchmarks.shapes_classes import ShapesClasses
from mmcl.config.components import build
from mmcl.config.compose import compose_run
from mmcl.engine.class_export import export_class_features
from mmcl.errors import UserError
from mmcl.features.own import read_class_features, read_own_features
from tests.engine.tiny import read, run_here

SMALL = ("benchmark=shapes_classes", "benchmark.train_per_class=3", "benchmark.test_per_class=2", "trainer=cpu")


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_the_file_holds_what_the_backbone_gives(ending: str, tmp_path: Path) -> None:
    config = compose_run(["method=ncm", *SMALL])
    file = export_class_features(config, tmp_path / f"shapes.{ending}")
    content = read_class_features(file)
    benchmark: ShapesClasses = build(config.benchmark)
    raw = benchmark.read()
    net = build(config.backbone).load().eval()
    with torch.no_grad():
        expected = [net(batch.images) for batch in benchmark.plain_batches(raw.train, torch.device("cpu"))]
    assert content.class_names == tuple(raw.class_names)
    assert torch.equal(content.train.features[:, 0], torch.cat(expected).half())
    assert torch.equal(content.train.labels, raw.train.labels)
    assert (len(content.test), content.dimension) == (128, 64)
    with pytest.raises(UserError, match="text_feat: the key is missing"):
        read_own_features(file)


def test_features_too_large_for_half_precision_stay_single(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmcl.backbones.mini_clip_image import ImageTower

    monkeypatch.setattr(ImageTower, "forward", lambda self, images: images.mean(dim=(2, 3)).abs() + 70_000)
    file = export_class_features(compose_run(["method=ncm", *SMALL]), tmp_path / "shapes.npz")
    assert read_class_features(file).train.features.dtype == torch.float32


def test_features_give_the_figures_of_the_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "shapes.npz"
    with pytest.raises(SystemExit) as ended:
        cli.main(["features", "export", "shapes_classes", str(file), *SMALL[1:]])
    assert not ended.value.code
    assert capsys.readouterr().out.strip() == str(file)
    runs = f"paths.runs={tmp_path / 'runs'}"
    images = read(run_here(["+method=ncm", *SMALL, runs]))
    given = ("benchmark=class_features", "benchmark.increment=8", f"paths.features={file}", "trainer=cpu")
    own = read(run_here(["+method=ncm", *given, runs]))
    assert own["class_names"] == images["class_names"]
    for readout, figures in images["readouts"].items():
        ours = torch.tensor(own["readouts"][readout]["accuracy_curve"])
        # Half precision may turn a tie around: one image of 128.
        torch.testing.assert_close(ours, torch.tensor(figures["accuracy_curve"]), atol=100 / 16, rtol=0)


@pytest.mark.parametrize(
    ("typed", "file", "message"),
    [
        (("backbone=resnet20",), "shapes.npz", "Type for example backbone=squeezenet"),
        ((), "shapes.txt", r"expected a file that ends in \.npz or \.safetensors"),
    ],
)
def test_mistakes_are_found_before_anything_is_encoded(
    typed: tuple[str, ...], file: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        export_class_features(compose_run(["method=ncm", *SMALL, *typed]), tmp_path / file)
    assert list(tmp_path.iterdir()) == []
