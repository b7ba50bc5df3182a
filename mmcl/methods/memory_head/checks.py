"""What a Memory Head refuses: spellings, sizes and combinations that do not exist, and values that are no numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from mmcl.errors import DivergedError, UserError, nearest
from mmcl.methods.memory_head.matching import DISTANCES, QUERIES

UNIT_RULES: dict[str | None, str | None] = {None: None, "none": None, "vanilla": None, "WTA": "WTA"}
KEY_RULES: dict[str | None, str | None] = {
    None: None,
    "none": None,
    "grad_not_WTA": None,
    "grad_WTA": "grad_WTA",
    "ad_hoc_WTA": "ad_hoc_WTA",
}
LAYER_NORMS = ("variance", "deviation")
UNSUPPORTED = (
    "query_class_mappings",
    "memory_id_routing",
    "memory_id_mappings",
    "memory_id_size",
    "memory_id_type",
    "memory_id_propagation",
    "memory_id_proproute",
    "propagate",
)


def known_unit_rule(upd_m: str | None) -> str | None:
    """Return "WTA" or None for a spelling of ``upd_m``.

    Raises:
        UserError: another one.
    """
    return UNIT_RULES[_known("upd_m", upd_m, UNIT_RULES)]


def known_key_rule(upd_k: str | None) -> str | None:
    """Return "ad_hoc_WTA", "grad_WTA" or None for a spelling of ``upd_k``.

    Raises:
        UserError: another one.
    """
    return KEY_RULES[_known("upd_k", upd_k, KEY_RULES)]


def _known(name: str, value: str | None, known: Iterable[str | None]) -> str | None:
    if value in known:
        return value
    words = ["null" if word is None else word for word in known]
    meant = [word for word in words if word.lower() == str(value).lower()] or [str(value)]
    raise UserError(f"{name}={value}: expected {', '.join(words)}.{nearest(meant[0], words)}")


def check_head(options: Any) -> None:
    """Refuse what no head can be; ``options`` has the arguments of :class:`MHLinear` as attributes.

    Raises:
        UserError: names the first argument that is wrong.
    """
    _known("psi_fn", options.psi_fn, QUERIES)
    _known("distance", options.distance, DISTANCES)
    _known("layer_norm_by", options.layer_norm_by, LAYER_NORMS)
    unit_rule, key_rule = known_unit_rule(options.upd_m), known_key_rule(options.upd_k)
    if unit_rule == "WTA" and key_rule is None:
        raise UserError(f"upd_m=WTA with upd_k={options.upd_k}: expected upd_k=ad_hoc_WTA or upd_k=grad_WTA")
    if key_rule == "ad_hoc_WTA" and options.beta_k is None:
        raise UserError("beta_k=null with upd_k=ad_hoc_WTA: expected the step of the keys, such as 0.001")
    for name in ("key_mem_units", "delta", "key_size"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"{name}={value}: expected at least 1")
    if not 0 < options.sigma_eu < math.inf:
        raise UserError(f"sigma_eu={options.sigma_eu}: expected more than 0")


def refuse_experimental(arguments: dict[str, object]) -> None:
    """Refuse options that pass on identities of units, and what is no argument at all.

    Raises:
        UserError: such an option has a value.
        TypeError: no such argument.
    """
    for name, value in arguments.items():
        if name not in UNSUPPORTED:
            raise TypeError(f"MHLinear has no argument {name!r}")
        if value:
            raise UserError(
                f"{name}={value}: heads that pass on the identities of their units are not supported, as no published "
                "command uses them; leave it out, or chain heads with key_input=True and matching.with_unit_ids"
            )


def is_finite(values: Tensor) -> bool:
    """Tell whether values have neither NaN nor infinite ones, nor a sum beyond the largest number; in one pass."""
    return math.isfinite(values.sum().item())


def refuse_not_finite(**tensors: Tensor) -> None:
    """Refuse values ``(b, ...)`` that would spoil keys and units for ever.

    Raises:
        UserError: names the first tensor with NaN or infinite values, how many samples have them, and the first.
    """
    for name, values in tensors.items():
        bad = ~values.isfinite().flatten(1).all(dim=1)
        if bool(bad.any()):
            count, first = int(bad.sum()), int(bad.long().argmax())
            kind = UserError if name == "inputs" else DivergedError
            raise kind(
                f"the {name} of a Memory Head have NaN or infinite values in {count} of {len(bad)} samples (first: "
                f"{first}); nothing was changed. Look at the data, or lower the learning rate before the head"
            )


def refuse_other_state(own: dict[str, Tensor], state: Mapping[str, Any], prefix: str) -> None:
    """Refuse the state of a head of another size or kind.

    Args:
        own: parameters and buffers of the head, by name.
        state: of a net.
        prefix: what stands before a name there.

    Raises:
        UserError: names both sizes, or the option.
    """
    for name, tensor in own.items():
        found = state.get(prefix + name)
        if found is not None and found.shape != tensor.shape:
            raise UserError(
                f"the state's {prefix}{name} has the size {tuple(found.shape)}, but this Memory Head's is "
                f"{tuple(tensor.shape)}; type the key_mem_units, key_size, shared_keys, layer_norm and numbers of "
                "features that the state was saved with"
            )
    if f"{prefix}M" in state and (f"{prefix}mu" in state) != ("mu" in own):
        saved = str(f"{prefix}mu" in state).lower()
        raise UserError(f"the state of this Memory Head ({prefix}M) was saved with scramble={saved}; type that")
