"""iCaRL with a cosine head: distillation of old logits, classified by the nearest class mean or the largest logit.

Rebuffi, Kolesnikov, Sperl, Lampert, "iCaRL: Incremental Classifier and Representation Learning", CVPR 2017, in the form
that the code of Mnemonics (Liu et al., CVPR 2020) trains: its tables call the readout ``cnn`` LwF and ``nme`` iCaRL.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mmcl.config.schema import setting
from mmcl.methods.cosine_incremental import CosineConfig, CosineIncremental
from mmcl.methods.cosine_losses import SoftTargetsConfig


@dataclass
class IcarlCosineConfig(CosineConfig):
    """Keys of iCaRL with a cosine head."""

    soft_targets: SoftTargetsConfig = setting("Distillation of old logits.")


class IcarlCosine(CosineIncremental):
    """Cross-entropy plus the divergence from the reference's softened logits."""

    Config: ClassVar[type] = IcarlCosineConfig
    base = "distillation"
