"""Feature backbones: the identity, the shipped image tower, and that they train or stay frozen as they are told."""

from __future__ import annotations

import torch
from torch.nn.functional import layer_norm

from mmcl.backbones.feature_backbone import Identity
from mmcl.backbones.freezing import freeze
from mmcl.backbones.mini_clip import MiniClip, MiniClipConfig
from mmcl.backbones.mini_clip_image import ImageTower, MiniClipImage, MiniClipImageConfig
from mmcl.benchmarks.shapes_classes import ShapesClasses
from tests.benchmarks.test_shapes_classes import CONFIG


def tower(final_norm: str) -> ImageTower:
    return MiniClipImage(MiniClipImageConfig("", "mini_clip_image", None, final_norm)).load()


def pixels() -> torch.Tensor:
    benchmark = ShapesClasses(CONFIG)
    (batch,) = benchmark.plain_batches(benchmark.task(0).test, torch.device("cpu"))
    return batch.images


def test_the_identity_has_no_parameters() -> None:
    features, identity = torch.randn(3, 5), Identity(5)
    assert identity(features) is features
    assert identity.dimension == 5
    assert list(identity.parameters()) == []


def test_the_tower_is_the_image_side_of_the_mini_clip() -> None:
    encoder = MiniClip(MiniClipConfig("", "mini_clip", None)).load()
    images = pixels()
    with torch.no_grad():
        expected = encoder.encode_images(images)
        torch.testing.assert_close(tower("kept").eval()(images), expected)
        torch.testing.assert_close(tower("fresh").eval()(images), layer_norm(expected, (64,)))


def test_the_tower_trains_unless_it_is_frozen() -> None:
    state = torch.get_rng_state()
    net = tower("fresh")
    assert torch.equal(torch.get_rng_state(), state)
    images = pixels()
    net.train()(images).square().mean().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    frozen = freeze(tower("fresh"))
    assert not frozen(images).requires_grad
