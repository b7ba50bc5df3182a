"""Old classes as Gaussians in feature space, from which a classifier can be trained again without their images.

Zhang, Wang, Kang, Chen, Wei, "SLCA: Slow Learner with Classifier Alignment for Continual Learning on a Pre-trained
Model", ICCV 2023: classifier alignment.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

RIDGE = 1e-4


def class_statistics(features: Tensor, labels: Tensor, known: int, seen: int) -> tuple[Tensor, Tensor]:
    """Return mean and covariance of each of the classes ``known .. seen - 1``.

    Args:
        features: ``(N, D)``.
        labels: int64 ``(N,)``; every one of the classes occurs.
        known: first class.
        seen: one after the last class.

    Returns:
        Means float64 ``(C, D)``, and covariances float32 ``(C, D, D)``: unbiased, computed in float64, with
        ``RIDGE`` on the diagonal. A class with a single sample has the ridge alone.
    """
    features, labels = features.double(), labels.to(features.device)
    ridge = RIDGE * torch.eye(features.shape[1], dtype=torch.float64, device=features.device)
    means, covariances = [], []
    for label in range(known, seen):
        rows = features[labels == label]
        mean = rows.mean(dim=0)
        deviations = rows - mean
        means.append(mean)
        covariances.append((deviations.T @ deviations / max(1, len(rows) - 1) + ridge).float())
    return torch.stack(means), torch.stack(covariances)


def shrinkage(tasks: Tensor, current: int) -> Tensor:
    """Return the factor of each class's mean: ``0.9 + 0.1 (s + 1) / (t + 1)``, smaller the older its task s.

    Args:
        tasks: task of each class, int64 ``(C,)``.
        current: index t of the current task.
    """
    return 0.9 + 0.1 * (tasks + 1) / (current + 1)


def triangular_factors(covariances: Tensor) -> Tensor:
    """Return lower triangular ``L`` with ``L L^T`` the covariance, float32 ``(C, D, D)``, factored in float64.

    Of large features, rounding to float32 may have cost a covariance more than its ridge: it then gets another one.
    """
    return torch.stack([_factor(covariance.double()).float() for covariance in covariances])


def _factor(covariance: Tensor) -> Tensor:
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if failed:
        missing = RIDGE - torch.linalg.eigvalsh(covariance)[0]
        factor = torch.linalg.cholesky(covariance + missing * torch.eye(len(covariance), dtype=covariance.dtype))
    return factor


def draw_gaussian(mean: Tensor, factor: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw from a Gaussian of mean ``(D,)`` and triangular factor ``(D, D)``: float32 ``(count, D)`` on the CPU."""
    noise = torch.randn(count, len(mean), generator=generator)
    return mean.float() + noise @ factor.T


class ClassGaussians(nn.Module):
    """Mean and covariance of every class seen, kept beside the parameters: no process needs to send them at each step.

    Attributes:
        means: float64 ``(C, D)``.
        covariances: float32 ``(C, D, D)``.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.means = torch.zeros(0, dimension, dtype=torch.float64)
        self.covariances = torch.zeros(0, dimension, dimension)

    def __len__(self) -> int:
        return len(self.means)

    @property
    def nbytes(self) -> int:
        """Bytes that are kept."""
        return self.means.nbytes + self.covariances.nbytes

    def add(self, features: Tensor, labels: Tensor, seen: int) -> None:
        """Add the classes from the first unknown one to ``seen - 1``; the others stay as they were."""
        means, covariances = class_statistics(features, labels, len(self), seen)
        self.means = torch.cat([self.means, means.cpu()])
        self.covariances = torch.cat([self.covariances, covariances.cpu()])

    def get_extra_state(self) -> dict[str, Tensor]:
        """Return the statistics."""
        return {"means": self.means, "covariances": self.covariances}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Take saved statistics."""
        self.means, self.covariances = state["means"].cpu(), state["covariances"].cpu()
