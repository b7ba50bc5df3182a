"""The area under the accuracy over memory as a torchmetrics class."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from mmcl.metrics.memory_area import memory_area


class MemoryArea(Metric):
    """Area under the accuracy over memory in MB: AUC-A or AUC-L (Zhou et al., ICLR 2023, arXiv 2205.13218).

    >>> metric = MemoryArea()
    >>> metric.update(memory_mb=7.5, accuracy=0.5)
    >>> metric.update(memory_mb=23.5, accuracy=0.7)
    >>> metric.compute()
    tensor(9.6000, dtype=torch.float64)
    """

    is_differentiable = False
    full_state_update = False
    higher_is_better = True
    points: list[Tensor]

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.add_state("points", [], dist_reduce_fx="cat")

    def update(self, memory_mb: float, accuracy: float) -> None:
        """Add one run: its budget in MB and its accuracy as a fraction."""
        self.points.append(torch.tensor([[memory_mb, accuracy]], dtype=torch.float64, device=self.device))

    def compute(self) -> Tensor:
        """Return the area, a float64 scalar. Raises ``UserError`` where there are fewer than two budgets."""
        if not len(self.points):
            return torch.tensor(memory_area([], []), dtype=torch.float64)
        memory_mb, accuracy = dim_zero_cat(self.points).T.tolist()
        return torch.tensor(memory_area(memory_mb, accuracy), dtype=torch.float64)
