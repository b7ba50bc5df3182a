"""Backbones cut into trunk and branch, growing classifiers and the networks built from them."""

from mmcl.backbones.expandable import ExpandableNetwork, ExpandableOutput, load_plain
from mmcl.backbones.freezing import freeze, is_frozen, restore_frozen_modes, trainable_parameters, unfreeze
from mmcl.backbones.heads import GrowingLinear, align_weights
from mmcl.backbones.plain import PlainNetwork, PlainOutput
from mmcl.backbones.split import SplitBackbone, unshared

__all__ = [
    "ExpandableNetwork",
    "ExpandableOutput",
    "GrowingLinear",
    "PlainNetwork",
    "PlainOutput",
    "SplitBackbone",
    "align_weights",
    "freeze",
    "is_frozen",
    "load_plain",
    "restore_frozen_modes",
    "trainable_parameters",
    "unfreeze",
    "unshared",
]
