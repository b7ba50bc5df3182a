"""Tip-Adapter: a cache of few-shot features, read by similarity and added to CLIP's text logits. No training.

Zhang, Zhang, Fang, Gao, Li, Dai, Qiao, Li, "Tip-Adapter: Training-Free Adaption of CLIP for Few-Shot Classification",
ECCV 2022. The share and the sharpness of the cache are searched on a grid; here on validation images, never on the
test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torchmetrics import Metric

from mmcl.config.schema import setting
from mmcl.errors import UserError, nearest
from mmcl.methods.clip_zeroshot import cosine_logits
from mmcl.methods.few_shot import FewShotKeys, training_passes
from mmcl.methods.on_features import OnFeatures, OnFeaturesConfig
from mmcl.protocol import DatasetTask

SEARCHES = ("val", "fixed")
CHUNK_ELEMENTS = 2**22


class Published(NamedTuple):
    """Settings of a data set in Tip-Adapter's released code: start values, and where the search for each ends."""

    alpha: float
    beta: float
    alpha_limit: float
    beta_limit: float


PUBLISHED = {
    "imagenet": Published(1.17, 1, 3, 7),
    "caltech101": Published(3, 1, 5, 12),
    "dtd": Published(2, 1, 13, 13),
    "eurosat": Published(2, 1, 10, 12),
    "fgvc_aircraft": Published(5, 1, 30, 30),
    "food101": Published(1.17, 1, 10, 10),
    "flowers102": Published(10, 1, 50, 50),
    "oxford_pets": Published(1.17, 1, 3, 7),
    "stanford_cars": Published(3, 1, 10, 20),
    "sun397": Published(1.17, 1, 10, 12),
    "ucf101": Published(3, 1, 3, 7),
}
ELSEWHERE = Published(1.17, 1, 10, 12)


@dataclass
class TipAdapterConfig(FewShotKeys, OnFeaturesConfig):
    """Keys of Tip-Adapter."""

    search: str = setting("val: choose alpha and beta on the validation images; fixed: keep the start values.")
    alpha: float | None = setting("Start weight of the cache, 0 is text alone; null: as published for the data set.")
    beta: float | None = setting("Start sharpness, 0 weighs all images alike; null: as published for the data set.")
    alpha_limit: float | None = setting("Where the search for alpha ends; null: as published for the data set.")
    beta_limit: float | None = setting("Where the search for beta ends; null: as published for the data set.")
    alpha_steps: int = setting("Values of alpha that are tried, from 0.1 on. Paper: 20.")
    beta_steps: int = setting("Values of beta that are tried, from 0.1 on. Paper: 200.")

    def __post_init__(self) -> None:
        """Refuse a search that is not known or tries nothing."""
        super().__post_init__()
        if self.search not in SEARCHES:
            hint = nearest(self.search, SEARCHES)
            raise UserError(f"method.search={self.search}: expected {' or '.join(SEARCHES)}.{hint}")
        for name in ("alpha_steps", "beta_steps"):
            if getattr(self, name) < 1:
                raise UserError(f"method.{name}={getattr(self, name)}: expected at least 1")
        for name in Published._fields:
            value = getattr(self, name)
            if value is not None and value < 0:
                raise UserError(f"method.{name}={value}: expected at least 0, or null for the published value")

    def settings_of(self, dataset: str) -> Published:
        """Return the settings of a data set: what is typed, else what is published, else values that fit most."""
        published = PUBLISHED.get(dataset, ELSEWHERE)
        typed = {name: getattr(self, name) for name in Published._fields if getattr(self, name) is not None}
        return published._replace(**typed)


# ------------------------------------------------------------------ mathematics


def cache_keys(features: Tensor, class_count: int) -> Tensor:
    """Return unit means over the augmentation passes.

    Args:
        features: of the shots grouped by class, as the encoder gives them ``(C * K, P, D)``.
        class_count: number of classes C.

    Returns:
        Keys by class ``(C, K, D)``; the group is the one-hot value of the paper.
    """
    return normalize(features.mean(1), dim=1).reshape(class_count, -1, features.shape[2])


def affinities(features: Tensor, keys: Tensor) -> Tensor:
    """Return the products of unit features ``(B, D)`` with keys ``(C, K, D)``: ``(B, C, K)``."""
    return (features @ keys.flatten(0, 1).T).reshape(-1, *keys.shape[:2])


def cache_logits(closeness: Tensor, beta: float | Tensor) -> Tensor:
    """Sum phi(x) = exp(-beta (1 - x)) over the keys of each class (equation 4), from affinities: ``(B, C)``."""
    return (beta * (closeness - 1)).exp().sum(2)


def tip_logits(text_logits: Tensor, closeness: Tensor, alpha: float | Tensor, beta: float | Tensor) -> Tensor:
    """Add the cache, weighted by alpha, to text logits ``(B, C)`` (equation 6)."""
    return text_logits + alpha * cache_logits(closeness, beta)


def search_values(limit: float, steps: int) -> list[float]:
    """Return the values that are tried: ``steps`` of equal distance from 0.1 up to below ``limit``."""
    return [step * (limit - 0.1) / steps + 0.1 for step in range(steps)]


def grid_hits(
    text_logits: Tensor, closeness: Tensor, labels: Tensor, betas: list[float], alphas: list[float]
) -> Tensor:
    """Count the right answers for every pair of sharpness and weight, int64 ``(len(betas), len(alphas))``.

    Samples go through in chunks, so that memory does not grow with their number.
    """
    hits = torch.zeros(len(betas), len(alphas), dtype=torch.int64, device=labels.device)
    size = max(1, CHUNK_ELEMENTS // closeness[0].numel()) if len(closeness) else 1
    chunks = (torch.split(values, size) for values in (text_logits, closeness, labels))
    for text, near, truth in zip(*chunks, strict=True):
        for row, beta in enumerate(betas):
            cache = cache_logits(near, beta)
            answers = torch.stack([torch.add(text, cache, alpha=alpha).argmax(1) for alpha in alphas])
            hits[row] += (answers == truth).sum(1)
    return hits


def first_best(hits: Tensor) -> tuple[int, int]:
    """Return the first cell with the most right answers, in order of rows: (place of beta, place of alpha)."""
    cell = int((hits.flatten() == hits.max()).nonzero()[0])
    return divmod(cell, hits.shape[1])


class TipGrid(Metric):
    """The grid on test labels, as published searches did on ImageNet. Reported under a name of its own.

    ``update(scores, labels)`` takes the scores of all readouts; ``compute`` returns accuracy, alpha and beta.

    Args:
        closeness: returns the affinities ``(B, C, K)`` of the samples whose scores were asked for last.
        alphas: weights that are tried.
        betas: sharpnesses that are tried.
    """

    is_differentiable = False
    full_state_update = False
    higher_is_better = True
    hits: Tensor
    total: Tensor

    def __init__(self, closeness: Callable[[], Tensor], alphas: list[float], betas: list[float]) -> None:
        super().__init__(compute_with_cache=False)
        self.closeness, self.alphas, self.betas = closeness, alphas, betas
        hits = torch.zeros(len(betas), len(alphas), dtype=torch.int64)
        self.add_state("hits", hits, dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, scores: Mapping[str, Tensor], labels: Tensor) -> None:
        """Count a batch."""
        self.hits = self.hits + grid_hits(scores["text"], self.closeness(), labels, self.betas, self.alphas)
        self.total = self.total + len(labels)

    def compute(self) -> dict[str, Any]:
        """Return the best accuracy as a fraction, and where it is."""
        beta, alpha = first_best(self.hits)
        accuracy = self.hits[beta, alpha].double() / self.total
        return {"accuracy": accuracy, "alpha": self.alphas[alpha], "beta": self.betas[beta]}


# ------------------------------------------------------------------ method


class TipAdapter(OnFeatures):
    """Adds a cache of the shots to the text logits.

    Attributes:
        cache_keys: unit keys by class ``(C, K, D)``.
        alpha: weight of the cache, float64 scalar.
        beta: sharpness, float64 scalar.
    """

    Config: ClassVar[type] = TipAdapterConfig
    readouts: tuple[str, ...] = ("text", "tip")
    cache_keys: Tensor
    alpha: Tensor
    beta: Tensor

    def grow(self, task: DatasetTask) -> None:
        """Make room for the cache."""
        super().grow(task)
        self.hold_keys(torch.zeros(task.size, self.config.shots, self.ingredients.dimension))
        self.register_buffer("alpha", torch.zeros((), dtype=torch.float64))
        self.register_buffer("beta", torch.zeros((), dtype=torch.float64))
        self._closeness: Tensor | None = None

    def hold_keys(self, keys: Tensor) -> None:
        """Keep the keys in the state; here they are fixed."""
        self.register_buffer("cache_keys", keys)

    def begin_task(self, task: DatasetTask) -> None:
        """Build the text classifier and the cache."""
        super().begin_task(task)
        if self.config.search == "val":
            self.validation(task)  # what is missing shall be missed before anything is learned
        shots = training_passes(task, self.config.shots, self.config.passes)
        start = self.config.settings_of(task.name)
        with torch.no_grad():
            self.cache_keys.copy_(cache_keys(shots.features.float(), task.size))
            self.alpha.fill_(start.alpha)
            self.beta.fill_(start.beta)

    def end_task(self, task: DatasetTask) -> None:
        """Choose weight and sharpness on the validation images."""
        if self.config.search == "val":
            betas, alphas = self._grid(task)
            features, labels = self.validation(task)
            with torch.no_grad():
                text, closeness = self._parts(features)
                beta, alpha = first_best(grid_hits(text, closeness, labels, betas, alphas))
            self.alpha.fill_(alphas[alpha])
            self.beta.fill_(betas[beta])

    def oracles(self, task: DatasetTask) -> dict[str, Metric]:
        """Return the grid on test labels."""
        betas, alphas = self._grid(task)
        return {"tip": TipGrid(self._last_closeness, alphas, betas)}

    def scores(self, features: Tensor) -> dict[str, Tensor]:
        """Return the text logits of the plain views, alone and with the cache."""
        text, self._closeness = self._parts(features[:, 0])
        return {"text": text, "tip": tip_logits(text, self._closeness, self.alpha, self.beta)}

    def memory_rows(self) -> list[Tensor]:
        """Return the cache."""
        return [self.cache_keys]

    def validation(self, task: DatasetTask) -> tuple[Tensor, Tensor]:
        """Return all validation images ``(N, D)`` and labels ``(N,)`` on the device.

        Raises:
            UserError: there are none.
        """
        found = task.encoded.validation(None, 1)
        return found.features[:, 0].float().to(self.device), found.labels.to(self.device)

    def _grid(self, task: DatasetTask) -> tuple[list[float], list[float]]:
        limits = self.config.settings_of(task.name)
        betas = search_values(limits.beta_limit, self.config.beta_steps)
        return betas, search_values(limits.alpha_limit, self.config.alpha_steps)

    def _parts(self, features: Tensor) -> tuple[Tensor, Tensor]:
        text = cosine_logits(features, self.text_features, self.logit_scale)
        return text, affinities(normalize(features, dim=1), self.cache_keys)

    def _last_closeness(self) -> Tensor:
        assert self._closeness is not None
        return self._closeness
