"""The only parameters of DMN: residual projections that begin at zero and so at the training-free method."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmcl.methods.dmn_readout import Projection

ATTENTION = ("query", "key", "value")
POSITIONS: dict[str, tuple[str, ...]] = {
    "none": (),
    "query": ("query",),
    "key": ("key",),
    "value": ("value",),
    "qkv": ATTENTION,
    "output": ("output", "text"),
    "all": (*ATTENTION, "output", "text"),
}
KINDS = ("bias", "affine")


class DmnProjections(nn.Module):
    """Parameters of query, key, value, output and text, each named as its place.

    Those of output and text are a bias for each class ``(C, D)``. So are those of query, key and value with
    ``kind="bias"``; with ``kind="affine"`` they are matrices ``(D, D)`` for all classes. Places outside of ``position``
    are no part of the computation and are never trained.

    Args:
        classes: C.
        dimension: D.
        position: which places act, a key of :data:`POSITIONS`.
        kind: one of :data:`KINDS`.
        shared: one parameter for query, key and value, and one for output and text.
        learn: whether what acts is to be trained.
    """

    query: nn.Parameter
    key: nn.Parameter
    value: nn.Parameter
    output: nn.Parameter
    text: nn.Parameter

    def __init__(self, classes: int, dimension: int, position: str, kind: str, shared: bool, learn: bool) -> None:
        super().__init__()
        self.places, self.kind = POSITIONS[position], kind
        rows = dimension if kind == "affine" else classes
        for places, shape in ((ATTENTION, (rows, dimension)), (("output", "text"), (classes, dimension))):
            common = nn.Parameter(torch.zeros(shape))
            for place in places:
                self.register_parameter(place, common if shared else nn.Parameter(torch.zeros(shape)))
        for place, parameter in self.named_parameters(remove_duplicate=False):
            active = place in self.places or (shared and any(getattr(self, name) is parameter for name in self.places))
            parameter.requires_grad_(learn and active)

    @property
    def text_bias(self) -> Tensor | None:
        """What moves the text classifier ``(C, D)``; None where the position leaves it alone."""
        return self.text if "text" in self.places else None

    def current(self) -> Projection:
        """Return the projections of the readout as they are now."""
        nothing = torch.zeros_like(self.output)
        output = self._acting("output", nothing)
        if self.kind == "affine":
            query, key, value = (getattr(self, name) if name in self.places else None for name in ATTENTION)
            return Projection(nothing[0], nothing, nothing, output, query, key, value)
        query_bias = self._acting("query", nothing).mean(dim=0)
        return Projection(query_bias, self._acting("key", nothing), self._acting("value", nothing), output)

    def _acting(self, place: str, otherwise: Tensor) -> Tensor:
        parameter: Tensor = getattr(self, place)
        return parameter if place in self.places else otherwise
