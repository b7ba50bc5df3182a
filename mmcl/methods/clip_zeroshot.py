"""Zero-shot CLIP: images are classified by texts about the classes, without any training image.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021. The kind of prompts
makes the variants of the tables: one sentence, an ensemble of templates, or descriptions (Pratt et al., "What does a
platypus look like?", ICCV 2023).
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import normalize

from mmcl.methods.on_features import OnFeatures


def cosine_logits(features: Tensor, classifier: Tensor, logit_scale: float) -> Tensor:
    """Return the scaled cosine of image features, as the encoder gives them ``(..., D)``, with unit rows ``(C, D)``.

    The result is ``(..., C)``.
    """
    return logit_scale * normalize(features, dim=-1) @ classifier.T


class ClipZeroshot(OnFeatures):
    """Answers by the text classifier alone."""

    def scores(self, features: Tensor) -> dict[str, Tensor]:
        """Return the logits of the plain views."""
        return {"text": cosine_logits(features[:, 0], self.text_features, self.logit_scale)}
