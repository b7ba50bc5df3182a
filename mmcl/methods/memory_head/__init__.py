"""The Memory Head: a linear classifier with several units of weights, found by keys (Tiezzi et al., CoLLAs 2024)."""

from mmcl.methods.memory_head.layer import MHLinear

__all__ = ["MHLinear"]
