"""LUCIR: a cosine head, features held where they were, old classes kept apart from new ones by a margin.

Hou, Pan, Loy, Wang, Lin, "Learning a Unified Classifier Incrementally via Rebalancing", CVPR 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mmcl.config.schema import setting
from mmcl.methods.cosine_incremental import CosineConfig, CosineIncremental
from mmcl.methods.cosine_losses import LessForgetConfig


@dataclass
class LucirConfig(CosineConfig):
    """Keys of LUCIR."""

    less_forget: LessForgetConfig = setting("Terms that hold the old classes.")


class Lucir(CosineIncremental):
    """Cross-entropy, less-forget constraint and margin ranking; imprinted rows; optional balanced fine-tuning."""

    Config: ClassVar[type] = LucirConfig
    base = "lucir"
