"""SqueezeNet and ResNet: pooled features, weights in half precision, and what is said of weights that are not there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from mmcl.backbones import torchvision_backbone
from mmcl.backbones.torchvision_backbone import TorchvisionBackbone, TorchvisionConfig
from mmcl.errors import UserError

CONFIG = TorchvisionConfig("", "squeezenet", "squeezenet1_0", None, None)
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def saved(model: str, tmp_path: Path, dtype: torch.dtype = torch.float32) -> tuple[Any, str]:
    """Save a model with random weights, classifier included; return it with the weights that the file keeps."""
    torch.manual_seed(3)
    net = torchvision.models.get_model(model, weights=None).eval().to(dtype)
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    return net.float(), str(tmp_path / "weights.pt")


def test_squeezenet_is_pooled_before_its_classifier(tmp_path: Path) -> None:
    net, file = saved("squeezenet1_0", tmp_path, torch.float16)
    backbone = TorchvisionBackbone(replace(CONFIG, checkpoint=file)).load().eval()
    with torch.no_grad():
        torch.testing.assert_close(backbone(IMAGES), net.features(IMAGES).mean(dim=(2, 3)))
    assert backbone.dimension == 512
    assert all(parameter.dtype == torch.float32 and parameter.requires_grad for parameter in backbone.parameters())


def test_resnet_gives_what_its_classifier_would_see(tmp_path: Path) -> None:
    net, file = saved("resnet18", tmp_path)
    backbone = TorchvisionBackbone(replace(CONFIG, model="resnet18", checkpoint=file)).load().eval()
    seen = []
    net.fc.register_forward_hook(lambda module, given, out: seen.append(given[0]))
    with torch.no_grad():
        net(IMAGES)
        torch.testing.assert_close(backbone(IMAGES), seen[0])


@pytest.mark.parametrize("model", sorted(torchvision_backbone.CUTS))
def test_every_model_has_the_dimension_it_says(model: str) -> None:
    backbone = TorchvisionBackbone(replace(CONFIG, model=model)).load().eval()
    with torch.no_grad():
        assert backbone(IMAGES).shape == (2, backbone.dimension)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "squeezenet"}, "Did you mean 'squeezenet1_"),
        ({"pretrained": "IMAGENET1K_V3"}, "Did you mean 'IMAGENET1K_V1'"),
        ({"checkpoint": "nowhere.pt"}, "backbone.checkpoint=nowhere.pt: no such file"),
    ],
)
def test_mistakes_are_found_before_anything_is_read(change: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TorchvisionBackbone(replace(CONFIG, **change))


def test_another_models_weights_are_named(tmp_path: Path) -> None:
    _, file = saved("resnet18", tmp_path)
    with pytest.raises(UserError, match=r"does not fit squeezenet1_0: it has no features\.0\.weight.* and 45 more"):
        TorchvisionBackbone(replace(CONFIG, checkpoint=file)).load()


def test_without_a_network_the_message_names_the_file_to_bring(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(url: str) -> Path:
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision_backbone, "download", fail)
    with pytest.raises(UserError, match=r"no route to host.*squeezenet1_0-.*\.pth.*backbone.checkpoint=FILE"):
        TorchvisionBackbone(replace(CONFIG, pretrained="IMAGENET1K_V1")).load()
