"""A context for features without a text encoder: one vector that is added to the text features of all classes.

A prompt's context moves the text feature of every class. What it moves all of them by alike is a shift, which can be
learned in the space of features alone; how it moves one class otherwise than another takes the encoder, and a shift
lacks it. So this stands in for a prompt, to first order, and is no method of a paper.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmcl.methods.context_learner import ContextLearner


def shifted_classifiers(text_features: Tensor, shifts: Tensor) -> Tensor:
    """Return ``normalize(t_c + s)`` for unit text features ``(P, D)`` and shifts ``(B, D)``: unit rows ``(B, P, D)``.

    To first order the cosine of a feature x with class c changes by ``x.s - (x.t_c)(t_c.s)``. The first term is the
    same for all classes and changes no prediction, so a small shift weighs the classes by where they lie along it.
    """
    return normalize(text_features + shifts[:, None], dim=2)


class ShiftLearner(ContextLearner):
    """The text features of a data set's classes behind a shift ``(D,)``, their context.

    Args:
        text_features: unit rows ``(C, D)``.
        classes_at_once: classes that are shifted at once.

    Attributes:
        text_features: as given; no part of a state, since the data set has them.
    """

    text_features: Tensor

    def __init__(self, text_features: Tensor, classes_at_once: int) -> None:
        super().__init__(len(text_features), classes_at_once)
        self.register_buffer("text_features", text_features, persistent=False)

    def initial_context(self) -> Tensor:
        """Return a shift of 0 ``(D,)``."""
        return torch.zeros_like(self.text_features[0])

    def drawn_context(self, generator: torch.Generator) -> Tensor:
        """Return a shift of 0 ``(D,)``: the texts themselves are where learning starts, and nothing is drawn."""
        return torch.zeros(self.text_features.shape[1])

    def classifiers(self, contexts: Tensor, classes: slice = slice(None)) -> Tensor:
        """Shift some classes by shifts ``(B, D)``: unit rows ``(B, P, D)``."""
        return shifted_classifiers(self.text_features[classes], contexts)
