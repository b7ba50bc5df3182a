"""MIR: replay of those kept samples that the next step would harm most, online.

Aljundi, Caccia, Belilovsky, Caccia, Lin, Charlin, Tuytelaars, "Online Continual Learning with Maximally Interfered
Retrieval", NeurIPS 2019. A baseline of Memory Head on streams.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from mmcl.config.schema import setting
from mmcl.errors import UserError
from mmcl.methods.online_replay import BufferedConfig, OnlineReplay


@dataclass
class MirConfig(BufferedConfig):
    """Keys of MIR."""

    candidates: int = setting(
        "Kept samples among which a step chooses replay_size; equal to it chooses all, as published, which is ER."
    )

    def __post_init__(self) -> None:
        """Refuse fewer candidates than are replayed."""
        super().__post_init__()
        if self.candidates < self.replay_size:
            raise UserError(
                f"method.candidates={self.candidates}: expected at least method.replay_size={self.replay_size}"
            )


@torch.no_grad()
def interference(network: nn.Module, lr: float, samples: Tensor, labels: Tensor) -> Tensor:
    """Return by how much a plain step along the network's gradients would raise the loss of each sample ``(n,)``.

    Args:
        network: with gradients; stays as it is.
        lr: rate of that step, whatever the optimiser.
        samples: ``(n, D)``.
        labels: int64 ``(n,)``.
    """
    ahead = {
        name: parameter if parameter.grad is None else parameter - lr * parameter.grad
        for name, parameter in network.named_parameters()
    }
    then = cross_entropy(functional_call(network, ahead, (samples,)), labels, reduction="none")
    return then - cross_entropy(network(samples), labels, reduction="none")


class Mir(OnlineReplay):
    """Replays the candidates whose loss the step would raise most."""

    Config: ClassVar[type] = MirConfig
    config: MirConfig

    def on_train_start(self) -> None:
        """Refuse a precision under which gradients are scaled, since a step along them would mean nothing."""
        if self.trainer.precision == "16-mixed":
            raise UserError(
                "trainer.precision=16-mixed scales gradients, along which method=mir looks ahead. "
                "Type trainer.precision=bf16-mixed or 32-true"
            )

    def drawn_size(self) -> int:
        """Return the number of candidates."""
        return self.config.candidates

    def replay(self, samples: Tensor, labels: Tensor) -> None:
        """Add the gradient of the candidates that suffer most."""
        self.add_gradient_of(*self.retrieve(samples, labels))

    def retrieve(self, samples: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Choose ``replay_size`` candidates, the worst first."""
        scores = interference(self.network, self.config.lr, samples, labels)
        chosen = scores.argsort(descending=True)[: self.config.replay_size]
        return samples[chosen], labels[chosen]
