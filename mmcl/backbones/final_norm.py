"""What stands behind the last layer of a pre-trained network: its own normalisation, or a fresh one."""

from __future__ import annotations

from torch import nn

from mmcl.errors import UserError, nearest

FRESH, KEPT = "fresh", "kept"
FINAL_NORMS = (FRESH, KEPT)
EPSILON = 1e-5


def check_final_norm(choice: str) -> None:
    """Refuse another value of ``backbone.final_norm`` than ``fresh`` and ``kept``.

    Raises:
        UserError: for any other.
    """
    if choice not in FINAL_NORMS:
        known = " or ".join(FINAL_NORMS)
        raise UserError(f"backbone.final_norm={choice}: expected {known}.{nearest(choice, FINAL_NORMS)}")


def fresh_norm(dimension: int) -> nn.LayerNorm:
    """Return the layer normalisation that SLCA (Zhang et al., ICCV 2023) puts in place of the trained one.

    Weight 1, bias 0, eps 1e-5: features of mean 0 and variance 1, whatever their scale was.
    """
    return nn.LayerNorm(dimension, eps=EPSILON)
