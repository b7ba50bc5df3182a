"""A text classifier under a context: what TPT and CoOp learn, whatever the context is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class ContextLearner(nn.Module, ABC):
    """The text classifier of a data set's C classes as a function of a context of shape ``S``, shared by all of them.

    It holds neither an encoder's weights nor a context: that is handed in, and who learns it keeps it.

    Args:
        class_count: number of classes C.
        classes_at_once: classes whose rows are computed at once.
    """

    def __init__(self, class_count: int, classes_at_once: int) -> None:
        super().__init__()
        self.class_count, self.classes_at_once = class_count, classes_at_once

    @abstractmethod
    def initial_context(self) -> Tensor:
        """Return the context of the classifier as it comes, without learning: of shape ``S``."""

    @abstractmethod
    def drawn_context(self, generator: torch.Generator) -> Tensor:
        """Return the context from which shots are learned, of shape ``S`` on the CPU."""

    @abstractmethod
    def classifiers(self, contexts: Tensor, classes: slice = slice(None)) -> Tensor:
        """Return the rows of P classes under contexts ``(B, *S)``: unit rows ``(B, P, D)``."""

    def parts(self) -> list[slice]:
        """Split the classes into parts of at most ``classes_at_once``."""
        size = self.classes_at_once
        return [slice(start, start + size) for start in range(0, self.class_count, size)]

    def classifier(self, context: Tensor) -> Tensor:
        """Return the rows of all classes under one context of shape ``S``: unit rows ``(C, D)``.

        Of more than one part, no activations are kept: the backward pass computes them again.
        """
        parts = self.parts()
        if len(parts) == 1:
            return self.classifiers(context[None])[0]
        rows = [checkpoint(self.classifiers, context[None], part, use_reentrant=False) for part in parts]
        return torch.cat(rows, dim=1)[0]
