"""The keys of a Memory Head in a method's configuration, below ``method.head``."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from mmcl.config.schema import setting
from mmcl.errors import UserError
from mmcl.methods.memory_head.checks import check_head
from mmcl.methods.memory_head.layer import MHLinear


@dataclass
class MemoryHeadKeys:
    """Options of each head, spelt as the released code does; the last two are corrections of it."""

    key_mem_units: int = setting("Keys and memory units of a head; 1 is a linear classifier.")
    delta: int = setting("Units that an input chooses and blends, at most key_mem_units.")
    distance: str = setting("How inputs match keys: cosine, euclidean or dot_scaled.")
    sigma_eu: float = setting("Temperature of euclidean; larger matches more.")
    gamma_alpha: float = setting("Sharpness of the attention over the chosen units; 0 blends them alike.")
    tau_alpha: float = setting("An input whose best response is below this gets a weak key, where there is one.")
    tau_mu: float = setting("A key that won fewer times is weak if it is old, too; 0 keeps all keys.")
    tau_eta: float = setting("A key that did not win for so many samples is old.")
    upd_m: str | None = setting("Units that learn: WTA (the best) or vanilla (all chosen).")
    upd_k: str | None = setting("How keys learn: ad_hoc_WTA (towards inputs), grad_WTA or grad_not_WTA (gradient).")
    beta_k: float | None = setting("Step of keys under ad_hoc_WTA; 0 keeps them where they are.")
    scramble: bool = setting("Give weak keys and their units to inputs that match badly.")
    random_memories: bool = setting("Such units get random values instead of a copy of the best unit.")
    shared_keys: bool = setting("One set of keys for all outputs; false gives each output its own.")
    bias: bool = setting("Outputs have a bias.")
    layer_norm: bool = setting("Standardise inputs, with gain and shift from the memory.")
    psi_fn: str = setting("How inputs become queries: identity, sign, resize1d, resize2d or resize2d_sign.")
    key_size: int | None = setting("Size of keys; null is that of the inputs, others need a psi_fn that resizes.")
    detach_gradients: bool = setting("No gradient into the inputs through their matching with keys.")
    cosine_scale: bool = setting("True divides the cosine by sqrt(size), as published; false compares it as it is.")
    layer_norm_by: str = setting("variance: divide by the variance, as published; deviation: by its root.")

    def __post_init__(self) -> None:
        """Refuse options that no head can have."""
        check_memory_head(self)


def check_memory_head(options: Any) -> None:
    """Refuse options of a run's heads; more than the layer itself does, which caps ``delta``.

    Raises:
        UserError: names the key below ``method.head`` and what it can be.
    """
    try:
        check_head(options)
    except UserError as error:
        raise UserError(f"method.head.{error}") from None
    if options.delta > options.key_mem_units:
        raise UserError(
            f"method.head.delta={options.delta}: expected at most method.head.key_mem_units={options.key_mem_units}"
        )


def memory_head(keys: MemoryHeadKeys, in_features: int, out_features: int) -> MHLinear:
    """Build a head with a run's options; keys are drawn before units, from torch's generator.

    Raises:
        UserError: keys of another size than the queries.
    """
    if keys.key_size not in (None, in_features) and not keys.psi_fn.startswith("resize"):
        raise UserError(
            f"method.head.key_size={keys.key_size}: method.head.psi_fn={keys.psi_fn} gives queries of "
            f"{in_features}, the size of the inputs. Type method.head.key_size={in_features} or "
            "method.head.psi_fn=resize1d"
        )
    return MHLinear(in_features, out_features, **{field.name: getattr(keys, field.name) for field in fields(keys)})
