"""TPT: the prompt is tuned on each test image alone, so that its confident views agree, and then forgotten.

Shu, Nie, Huang, Yu, Goldstein, Anandkumar, Xiao, "Test-Time Prompt Tuning for Zero-Shot Generalization in
Vision-Language Models", NeurIPS 2022.

One step is taken from the same prompt for every image. So all images of a batch share one forward pass through the
text encoder, each needs one backward pass from its own gradient of the loss by the classifier, and AdamW's step from an
empty state has a closed form.

Where there is no text encoder, the same step moves a shift of the text features (:mod:`mmcl.methods.shift_learner`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmcl.config.schema import setting
from mmcl.errors import UserError
from mmcl.methods.clip_zeroshot import cosine_logits
from mmcl.methods.context_learner import ContextLearner
from mmcl.methods.entropy import average_entropy, confident_count, confident_views
from mmcl.methods.learned_context import LearnedContextConfig, context_learner, refuse_missing_encoder
from mmcl.methods.on_features import FeatureIngredients, OnFeatures
from mmcl.protocol import DatasetTask


@dataclass
class TptConfig(LearnedContextConfig):
    """Keys of test-time prompt tuning."""

    context: str = setting("Words before the class name, whose embeddings are tuned. Paper: a photo of a.")
    views: int = setting("Views of each test image, the plain one included. Paper: 64.")
    selection_share: float = setting("Share of the views, by lowest entropy, that must agree; 1 is all. Paper: 0.1.")
    lr: float = setting("Learning rate of the one step; 0 is plain CLIP. Paper: 0.005.")
    weight_decay: float = setting("Decoupled weight decay of the one step; 0 is none. Released code: 0.01.")

    def __post_init__(self) -> None:
        """Refuse to select no view, and negative rates."""
        super().__post_init__()
        confident_count(self.views, self.selection_share)
        if self.lr < 0 or self.weight_decay < 0:
            raise UserError(f"method.lr={self.lr}, method.weight_decay={self.weight_decay}: expected at least 0 each")


# ------------------------------------------------------------------ mathematics


def confident_rows(logits: Tensor, count: int) -> Tensor:
    """Return the ``count`` views of lowest entropy of softmax, lowest first: ``(..., V, C)`` to ``(..., count)``."""
    log_probabilities = logits.log_softmax(dim=-1)
    return confident_views(-(log_probabilities * log_probabilities.exp()).sum(dim=-1), count)


def classifier_gradients(views: Tensor, classifier: Tensor, logit_scale: float, count: int) -> tuple[Tensor, Tensor]:
    """Return each image's loss and its gradient by the classifier.

    Args:
        views: unit features of the views ``(B, V, D)``.
        classifier: unit rows ``(C, D)``.
        logit_scale: factor of the cosine.
        count: views that must agree.

    Returns:
        Entropies of the mean predictions of the confident views ``(B,)``, and their gradients ``(B, C, D)``.
    """
    rows = confident_rows(logit_scale * views @ classifier.T, count)
    chosen = views.gather(1, rows[..., None].expand(*rows.shape, views.shape[2]))
    with torch.enable_grad():
        own = classifier.detach().expand(len(views), *classifier.shape).clone().requires_grad_()
        losses = average_entropy(logit_scale * chosen @ own.mT)
        (gradients,) = torch.autograd.grad(losses.sum(), own)
    return losses.detach(), gradients


def context_gradients(classify: Callable[[Tensor], Tensor], context: Tensor, gradients: Tensor) -> Tensor:
    """Pull gradients by a classifier back to the context that it is built from.

    Args:
        classify: builds the rows of some classes from a context, ``(P, D)``.
        context: where ``classify`` is taken, of any shape ``S``.
        gradients: of B losses by these rows ``(B, P, D)``.

    Returns:
        Gradients of the B losses by the context, ``(B, *S)``: one forward pass, B backward passes.
    """
    with torch.enable_grad():
        context = context.detach().clone().requires_grad_()
        rows = classify(context)
        pulled = [torch.autograd.grad(rows, context, gradient, retain_graph=True)[0] for gradient in gradients]
    return torch.stack(pulled)


def first_adamw_step(start: Tensor, gradients: Tensor, lr: float, weight_decay: float, eps: float = 1e-8) -> Tensor:
    """Take AdamW's first step from one start along each gradient ``(B, *S)``: ``(B, *S)``.

    Both corrected moments of the first step are the gradient itself, so it moves by ``lr g / (|g| + eps)``.
    """
    return start * (1 - lr * weight_decay) - lr * gradients / (gradients.abs() + eps)


# ------------------------------------------------------------------ method


class Tpt(OnFeatures):
    """Tunes the context on the views of each test image.

    Attributes:
        learner: the data set's classifier under a context; ``text_features`` is the one before tuning.
    """

    Config: ClassVar[type] = TptConfig
    readouts: tuple[str, ...] = ("text", "tpt")
    learner: ContextLearner

    def __init__(self, config: TptConfig, ingredients: FeatureIngredients) -> None:
        super().__init__(config, ingredients)
        refuse_missing_encoder(config, ingredients)
        self.test_views = config.views
        self.kept_views = confident_count(config.views, config.selection_share)

    def grow(self, task: DatasetTask) -> None:
        """Take in the texts of the classes."""
        super().grow(task)
        self.learner = context_learner(self.config, self.ingredients, task, self.config.context)

    def begin_task(self, task: DatasetTask) -> None:
        """Build the text classifier under the context as it comes."""
        with torch.no_grad():
            self.text_features.copy_(self.learner.classifier(self.learner.initial_context()))

    def scores(self, features: Tensor) -> dict[str, Tensor]:
        """Return the logits of the plain views, under the context as it comes and as tuned on each image's views."""
        views = normalize(features, dim=2)
        contexts = self.tuned_contexts(views)
        return {
            "text": cosine_logits(features[:, 0], self.text_features, self.logit_scale),
            "tpt": self._logits_under(contexts, views[:, 0]),
        }

    def tuned_contexts(self, views: Tensor) -> Tensor:
        """Take one step from the initial context for each image of unit views ``(B, V, D)``: ``(B, *S)``.

        The context's shape ``S`` is ``(n, W)`` of a prompt, ``(D,)`` of a shift.
        """
        context = self.learner.initial_context()
        _, gradients = classifier_gradients(views, self.text_features, self.logit_scale, self.kept_views)
        pulled = context.new_zeros(len(views), *context.shape)
        for part in self.learner.parts():
            pulled = pulled + context_gradients(partial(self._rows, part), context, gradients[:, part])
        return first_adamw_step(context, pulled, self.config.lr, self.config.weight_decay)

    def _rows(self, part: slice, context: Tensor) -> Tensor:
        return self.learner.classifiers(context[None], part)[0]

    @torch.no_grad()
    def _logits_under(self, contexts: Tensor, features: Tensor) -> Tensor:
        """Return logits of unit features ``(B, D)``, each under its own context, ``(B, C)``."""
        images_at_once = max(1, self.config.prompts_at_once // self.learner.class_count)
        batches = (torch.split(values, images_at_once) for values in (contexts, features))
        rows = []
        for own_contexts, own_features in zip(*batches, strict=True):
            parts = [self.learner.classifiers(own_contexts, part) for part in self.learner.parts()]
            rows.append((torch.cat(parts, dim=1) @ own_features[..., None])[..., 0])
        return self.logit_scale * torch.cat(rows)
