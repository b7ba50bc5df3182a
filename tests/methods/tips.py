"""Tip-Adapter and Tip-Adapter-F with four shots and a small grid."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmcl.methods.tip_adapter import TipAdapter, TipAdapterConfig
from mmcl.methods.tip_adapter_f import TipAdapterF, TipAdapterFConfig
from tests.methods.encoded import ingredients, step_schedule

SEARCHLESS = {"search": "fixed"}


def tip_keys(**changed: Any) -> dict[str, Any]:
    """Return the keys that both have."""
    keys: dict[str, Any] = {"_target_": "", "name": "tip_adapter", "prompts": "tip", "shots": 4, "passes": 3}
    limits = dict.fromkeys(("alpha", "beta", "alpha_limit", "beta_limit"))
    return {**keys, "search": "val", **limits, "alpha_steps": 5, "beta_steps": 7, **changed}


def tip(**changed: Any) -> TipAdapter:
    """Build Tip-Adapter."""
    return TipAdapter(TipAdapterConfig(**tip_keys(**changed)), ingredients())


def tip_f(**changed: Any) -> TipAdapterF:
    """Build Tip-Adapter-F with a short schedule."""
    own = {"keep": "last", "schedule": step_schedule(), "epochs_of": None}
    return TipAdapterF(TipAdapterFConfig(**tip_keys(**{**own, **changed})), ingredients())


@torch.no_grad()
def right_answers(method: TipAdapter, features: Tensor, labels: Tensor) -> int:
    """Count the right answers of the readout ``tip``."""
    return int((method.scores(features)["tip"].argmax(1) == labels).sum())
