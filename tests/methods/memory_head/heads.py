"""Small heads for tests, and what a head computes as its definition reads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmcl.methods.memory_head import MHLinear, matching
from mmcl.methods.memory_head.blending import standardise

LEARNING: dict[str, Any] = {"upd_m": "WTA", "upd_k": "ad_hoc_WTA", "scramble": True}


def head(seed: int = 0, **options: Any) -> MHLinear:
    """Make a head of 5 inputs and 3 outputs with large units, so that differences show."""
    torch.manual_seed(seed)
    made = MHLinear(5, 3, **{"key_mem_units": 6, "delta": 2, "gamma_alpha": 3.0, **options})
    made.M.data.normal_()
    return made


def defined_output(made: MHLinear, inputs: Tensor) -> Tensor:
    """Blend whole units for each sample, with the gradients that the rules of units and keys allow."""
    queries, matches = made._match(inputs)
    best, chosen = matching.best(matches, made.delta)
    shares = torch.softmax(made.gamma_alpha * best, dim=2)
    outputs = [one_output(made, *each) for each in zip(inputs, shares, chosen, strict=True)]
    return torch.stack(outputs)


def one_output(made: MHLinear, features: Tensor, shares: Tensor, chosen: Tensor) -> Tensor:
    """Classify one sample ``(in,)``."""
    width = features.shape[0] + made.bias
    outputs = []
    for output in range(made.out_features):
        bank, row = (0, output) if made.shared_keys else (output, 0)
        blended = torch.zeros(made.M.shape[2])
        for rank in range(made.delta):
            first = rank == 0 or made.upd_m is None
            unit = made.M[bank, chosen[bank, rank]]
            share = shares[bank, rank]
            if made.upd_m == "WTA" and made.upd_k == "grad_WTA" and rank:
                share = share.detach()
            blended = blended + share * (unit if first else unit.detach())
        weight = blended[row * width : row * width + len(features)]
        bias = blended[row * width + len(features)] if made.bias else 0.0
        if made.layer_norm:
            gain, shift = blended[-2 * len(features) :].split(len(features))
            standard = standardise(features[None], made.layer_norm_by)[0]
            outputs.append((gain * weight * (standard + shift)).sum() + bias)
        else:
            outputs.append((weight * features).sum() + bias)
    return torch.stack(outputs)


def state_of(made: MHLinear) -> dict[str, Tensor]:
    """Copy a head's tensors."""
    return {name: tensor.clone() for name, tensor in made.state_dict().items() if isinstance(tensor, Tensor)}


def train(made: MHLinear, batches: list[Tensor], rate: float = 0.1) -> None:
    """Take steps of plain gradient descent on the sum of the outputs' squares."""
    optimizer = torch.optim.SGD(made.parameters(), rate)
    for inputs in batches:
        optimizer.zero_grad()
        made(inputs).square().sum().backward()
        made.update()
        optimizer.step()
