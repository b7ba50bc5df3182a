"""A-GEM: a step that would raise the loss of kept samples is turned until it does not, online.

Chaudhry, Ranzato, Rohrbach, Elhoseiny, "Efficient Lifelong Learning with A-GEM", ICLR 2019. A baseline of Memory Head
on streams.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mmcl.methods.online_replay import OnlineReplay


def projected(gradient: Tensor, reference: Tensor) -> Tensor:
    """Return a gradient that does not oppose a reference: ``g - (g.r / r.r) r`` where ``g.r < 0``, else g.

    The paper's equation 11. Vectors ``(P,)``.
    """
    inner = gradient @ reference
    # Without a branch on a value, nothing waits for the device. Where r is 0, so is g.r, and g stays.
    return gradient - inner.clamp(max=0) / (reference @ reference).clamp(min=torch.finfo(inner.dtype).tiny) * reference


class Agem(OnlineReplay):
    """Kept samples teach nothing themselves: they only keep a step from raising their loss."""

    def replay(self, samples: Tensor, labels: Tensor) -> None:
        """Project the gradient of the step on that of the drawn samples."""
        parameters = list(self.network.parameters())
        gradient = self._gradient()
        for parameter in parameters:
            parameter.grad = None
        self.manual_backward(cross_entropy(self.network(samples), labels))
        changed = projected(gradient, self._gradient())
        parts = torch.split(changed, [parameter.numel() for parameter in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def _gradient(self) -> Tensor:
        """Return a copy of the gradients of all parameters, one after the other ``(P,)``."""
        return torch.cat([p.grad.flatten() for p in self.network.parameters() if p.grad is not None])
