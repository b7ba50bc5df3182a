"""The text classifier of CLIP: for each class the unit mean of its unit sentence features."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import normalize

from mmcl.errors import UserError


def text_classifier(features: Tensor, classes: Tensor, class_count: int) -> Tensor:
    """Average the sentences of each class; all weigh equally.

    Args:
        features: sentence features as the encoder gives them ``(P, D)``.
        classes: class of each sentence, int64 ``(P,)``.
        class_count: number of classes C.

    Returns:
        Unit rows ``(C, D)``.

    Raises:
        UserError: a class without a sentence.
    """
    sums = features.new_zeros(class_count, features.shape[1]).index_add_(0, classes, normalize(features, dim=1))
    counts = classes.bincount(minlength=class_count)
    if bool((counts == 0).any()):
        missing = (counts == 0).nonzero().flatten().tolist()
        raise UserError(
            f"no sentence for classes {missing[:10]}: give each class at least one, or type method.prompts=tip"
        )
    return normalize(sums / counts[:, None], dim=1)
