from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmcl.backbones.folding import MAPS_AT_ONCE, FoldedEvaluation
from mmcl.backbones.fused import FusedConvolution, fuse, refresh


class Sums(nn.Module):
    """Sums of several kinds; ``kind`` names what is added to the second convolution's maps."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.norm, self.pooled = nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)
        nn.init.uniform_(self.norm.running_var, 0.5, 2.0)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        maps = self.first(images).relu()
        second = self.norm(self.second(maps))
        if self.kind == "read again":
            return functional.relu(second + maps) * maps
        if self.kind == "the input":
            return torch.relu(images + second)
        if self.kind == "broadcast":
            return self.pooled(functional.adaptive_avg_pool2d(second, 1)) + maps
        if self.kind == "both convolutions":
            return functional.relu(second + self.pooled(maps))
        second += maps
        return second


KINDS = ["read again", "the input", "broadcast", "both convolutions", "in place, no relu"]


def images(count: int = 2) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("kind", KINDS)
def test_fused_equals_plain_and_leaves_the_input_alone(kind: str) -> None:
    torch.manual_seed(0)
    module = Sums(kind).eval()
    fused = fuse(module)
    assert fused is not None
    assert any(isinstance(part, FusedConvolution) for part in fused.modules())
    pixels = images()
    with torch.no_grad():
        torch.testing.assert_close(fused(pixels), module(pixels), rtol=1e-5, atol=1e-5)
    assert torch.equal(pixels, images())


def test_batch_norm_sum_and_relu_are_part_of_the_convolution() -> None:
    fused = fuse(Sums("both convolutions").eval())
    assert fused is not None
    assert [node.op for node in fused.graph.nodes] == ["placeholder", *["call_module"] * 3, "output"]


def test_other_padding_is_left_as_it_is() -> None:
    module = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(3)).eval()
    fused = fuse(module)
    assert fused is not None
    assert not any(isinstance(part, FusedConvolution) for part in fused.modules())
    torch.testing.assert_close(fused(images()), module(images()))


def test_refresh_takes_the_present_weights() -> None:
    module = Sums("read again").eval()
    fused = fuse(module)
    assert fused is not None
    with torch.no_grad():
        module.second.weight.mul_(2)
        module.norm.running_mean.add_(1)  # type: ignore[union-attr]
        refresh(fused)
        torch.testing.assert_close(fused(images()), module(images()), rtol=1e-5, atol=1e-5)


def test_what_still_trains_is_evaluated_with_its_present_weights() -> None:
    module, evaluate, many = Sums("read again").eval(), FoldedEvaluation(), images(MAPS_AT_ONCE + 1)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1, fused=True)
    for _ in range(2):
        with torch.no_grad():
            torch.testing.assert_close(evaluate(module, many), module(many), rtol=1e-5, atol=1e-5)
        evaluate(module, many).square().mean().backward()
        optimiser.step()
