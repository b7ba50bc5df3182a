"""Linear probe of a memory: logistic regression on frozen features, fitted anew for the classes of every task.

The probe of Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021, on
whatever labelled images there are. It learns class weights, so another memory means another fit; a baseline for methods
that read a memory without one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn.functional import normalize

from mmcl.config.schema import setting
from mmcl.errors import UserError
from mmcl.memory.prototypes import ClassRows
from mmcl.methods.clip_zeroshot import cosine_logits
from mmcl.methods.on_features import FeatureIngredients, OnFeatures, OnFeaturesConfig
from mmcl.methods.spelling import check_spelling
from mmcl.protocol import MemoryTask, Task

FEATURES = ("raw", "unit")
ITERATIONS = 1000  # of L-BFGS at most, as Radford et al. have it


@dataclass
class MemoryProbeConfig(OnFeaturesConfig):
    """Keys of the linear probe of a memory."""

    features: str = setting("raw: as the encoder gives them, or unit: scaled to length 1.")
    inverse_regularisation: float = setting("scikit-learn's C, above 0; smaller keeps the weights smaller.")

    def __post_init__(self) -> None:
        """Refuse what scikit-learn would refuse after everything was encoded."""
        check_spelling("features", self.features, FEATURES)
        if not self.inverse_regularisation > 0:
            raise UserError(f"method.inverse_regularisation={self.inverse_regularisation}: expected more than 0")


def logistic_regression(rows: ClassRows, class_count: int, inverse_regularisation: float) -> tuple[Tensor, Tensor]:
    """Fit multinomial logistic regression with an L2 penalty on the weights, not on the biases.

    Args:
        rows: of two classes at least.
        class_count: C.
        inverse_regularisation: weight of the summed loss beside half the squared weights.

    Returns:
        Weights float32 ``(C, D)`` and biases float32 ``(C,)``, fitted in float64; the same for the same rows. A class
        without rows has weight 0 and bias minus infinity, so that it is never the answer.
    """
    solver = LogisticRegression(C=inverse_regularisation, max_iter=ITERATIONS)
    solver.fit(rows.features.double().cpu().numpy(), rows.classes.cpu().numpy())
    fitted = torch.from_numpy(solver.coef_).float(), torch.from_numpy(solver.intercept_).float()
    if len(solver.classes_) == 2:  # one row says how much likelier the second class is
        fitted = tuple(torch.cat([torch.zeros_like(part), part]) for part in fitted)  # type: ignore[assignment]
    weights, biases = torch.zeros(class_count, rows.features.shape[1]), torch.full((class_count,), -torch.inf)
    weights[solver.classes_], biases[solver.classes_] = fitted
    return weights, biases


class MemoryProbe(OnFeatures):
    """Fits a linear classifier on labelled images of a task's own classes.

    These are the shots of a memory that has some; else the training queries, where the task is about the classes of
    training and no others; else the images of the memory with all their noise. A memory with images of fewer than two
    classes leaves nothing to fit: then the zero-shot text classifier answers, in both readouts.

    Attributes:
        head: the classifier of the task's classes.
        training_head: the classifier of the classes of training, kept for later tasks about them; None where the
            benchmark has no training queries.
    """

    Config: ClassVar[type] = MemoryProbeConfig
    task_type: ClassVar[type[Task]] = MemoryTask
    readouts: tuple[str, ...] = ("probe", "text")
    config: MemoryProbeConfig
    head: nn.Linear

    def __init__(self, config: MemoryProbeConfig, ingredients: FeatureIngredients) -> None:
        super().__init__(config, ingredients)
        self.training_head: nn.Linear | None = None
        self._training_names: tuple[str, ...] = ()

    def grow(self, task: MemoryTask) -> None:  # type: ignore[override]
        """Make room for the classes of a task and, in the first one, for those of training."""
        super().grow(task)
        self.head = self._empty_head(len(task.class_names))
        if task.training is not None:
            self._training_names = task.training.class_names
            self.training_head = self._empty_head(len(self._training_names))

    def begin_task(self, task: MemoryTask) -> None:  # type: ignore[override]
        """Fit what the task allows."""
        super().begin_task(task)
        if task.training is not None and self.training_head is not None:
            queries = task.training.queries
            self._fit(self.training_head, ClassRows(queries.features[:, 0], queries.labels))
        shots, images = task.memory.shots, task.memory.images
        if shots is not None:
            self._fit(self.head, shots)
        elif self.training_head is not None and task.class_names == self._training_names:
            self.head.load_state_dict(self.training_head.state_dict())
        elif len(set(images.classes.tolist())) > 1:
            self._fit(self.head, images)
        else:
            _assign(self.head, self.logit_scale * self.text_features, torch.zeros(len(task.class_names)))

    def scores(self, images: Tensor) -> dict[str, Tensor]:
        """Return the logits of the probe and of the zero-shot text classifier for plain queries ``(B, 1, D)``."""
        features = images[:, 0]
        return {
            "probe": self.head(self._scaled(features)),
            "text": cosine_logits(features, self.text_features, self.logit_scale),
        }

    def _empty_head(self, class_count: int) -> nn.Linear:
        return nn.Linear(self.ingredients.dimension, class_count).requires_grad_(False)

    def _fit(self, head: nn.Linear, rows: ClassRows) -> None:
        scaled = ClassRows(self._scaled(rows.features.float()), rows.classes)
        _assign(head, *logistic_regression(scaled, head.out_features, self.config.inverse_regularisation))

    def _scaled(self, features: Tensor) -> Tensor:
        return normalize(features, dim=-1) if self.config.features == "unit" else features


def _assign(head: nn.Linear, weights: Tensor, biases: Tensor) -> None:
    with torch.no_grad():
        head.weight.copy_(weights)
        head.bias.copy_(biases)
