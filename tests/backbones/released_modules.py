"""Modules under the names of Mnemonics' released code, to write files as its authors did."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAYOUTS = {"archive": True, "sequence": False}  # what torch.save calls the new zipfile serialization


class Conv2dMtl(nn.Conv2d):
    def __init__(self, *settings: int, **named: object) -> None:
        super().__init__(*settings, **named)  # type: ignore[arg-type]
        self.mtl_weight = nn.Parameter(torch.rand_like(self.weight[:, :, :1, :1]) + 0.5)
        self.register_parameter("mtl_bias", None)

    def forward(self, maps: Tensor) -> Tensor:
        return self._conv_forward(maps, self.weight * self.mtl_weight, None)


class CosineLinear(nn.Module):
    def __init__(self, inputs: int, outputs: int, sigma: bool = True) -> None:
        super().__init__()
        self.in_features, self.out_features = inputs, outputs
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.register_parameter("sigma", nn.Parameter(torch.rand(1) + 1) if sigma else None)

    def forward(self, features: Tensor) -> Tensor:
        scores = F.linear(F.normalize(features), F.normalize(self.weight))
        return scores if self.sigma is None else self.sigma * scores


class SplitCosineLinear(nn.Module):
    def __init__(self, inputs: int, old: int, new: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = CosineLinear(inputs, old, False), CosineLinear(inputs, new, False)
        self.sigma = nn.Parameter(torch.rand(1) + 1)

    def forward(self, features: Tensor) -> Tensor:
        return self.sigma * torch.cat([self.fc1(features), self.fc2(features)], dim=1)


class BasicBlock(nn.Module):
    conv = nn.Conv2d

    def __init__(self, inputs: int, outputs: int, stride: int, last: bool) -> None:
        super().__init__()
        self.conv1 = self.conv(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = self.conv(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1:
            shortcut = self.conv(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))
        self.stride, self.last = stride, last

    def forward(self, maps: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(maps)))))
        maps = residual + (maps if self.downsample is None else self.downsample(maps))
        return maps if self.last else self.relu(maps)


class BasicBlockMtl(BasicBlock):
    conv = Conv2dMtl


class ResNet(nn.Module):
    """For images of 32x32 with three layers, of ``32 * pool`` squared with four."""

    block = BasicBlock

    def __init__(self, blocks: list[int], width: int, pool: int, head: list[int]) -> None:
        super().__init__()
        conv = self.block.conv
        small = len(blocks) == 3
        self.conv1 = conv(3, width, 3, 1, 1, bias=False) if small else conv(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = None if small else nn.MaxPool2d(3, 2, 1)
        inputs = width
        for number, count in enumerate(blocks, start=1):
            outputs = width * 2 ** (number - 1)
            layer = []
            for place in range(count):
                stride = 2 if place == 0 and number > 1 else 1
                layer.append(self.block(inputs, outputs, stride, (number, place) == (len(blocks), count - 1)))
                inputs = outputs
            setattr(self, f"layer{number}", nn.Sequential(*layer))
        self.avgpool = nn.AvgPool2d(8 if small else pool, stride=1)
        self.fc = CosineLinear(inputs, *head) if len(head) == 1 else SplitCosineLinear(inputs, *head)
        self.layers = len(blocks)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.relu(self.bn1(self.conv1(images)))
        maps = maps if self.maxpool is None else self.maxpool(maps)
        for number in range(1, self.layers + 1):
            maps = getattr(self, f"layer{number}")(maps)
        return self.fc(self.avgpool(maps).flatten(1))


class ResNetMtl(ResNet):
    block = BasicBlockMtl


PLACES = {
    "models.modified_linear": (CosineLinear, SplitCosineLinear),
    "utils.incremental.conv2d_mtl": (Conv2dMtl,),
}


def made(*head: int, layers: int = 3, transfer: bool = False, width: int = 4, pool: int = 1, seed: int = 0) -> ResNet:
    """Build a small network in eval mode, none of its tensors as it begins; ``head`` is (new,) or (old, new)."""
    torch.manual_seed(seed)
    network = (ResNetMtl if transfer else ResNet)([1] * layers, width, pool, list(head))
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.weight.uniform_(0.5, 1.5)
                part.bias.normal_(0.0, 0.3)
                part.running_mean.normal_(0.0, 0.3)  # type: ignore[union-attr]
                part.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
                part.num_batches_tracked += 7
    return network.eval()


@contextmanager
def official_names(layers: int) -> Iterator[None]:
    """Let the classes above be found under their official names, for the time being."""
    suffix = "_cifar" if layers == 3 else ""
    nets = {f"models.modified_resnet{suffix}": (ResNet, BasicBlock)}
    nets[f"models.modified_resnetmtl{suffix}"] = (ResNetMtl, BasicBlockMtl)
    before = {}
    packages = ("models", "utils", "utils.incremental")
    sys.modules.update({name: ModuleType(name) for name in (*packages, *PLACES, *nets)})
    for name, classes in (PLACES | nets).items():
        for kind in classes:
            before[kind] = kind.__module__
            kind.__module__ = name
            setattr(sys.modules[name], kind.__name__, kind)
    try:
        yield
    finally:
        for kind, module in before.items():
            kind.__module__ = module
        for name in (*packages, *PLACES, *nets):
            del sys.modules[name]


def save(network: ResNet, file: Path, layout: str = "archive") -> Path:
    """Write the whole module, as the authors did."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with official_names(network.layers):
        torch.save(network, file, _use_new_zipfile_serialization=LAYOUTS[layout])
    return file
