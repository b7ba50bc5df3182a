"""The keys of a Memory Head in a configuration."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
import torch

from mmcl.errors import UserError
from mmcl.methods.memory_head.options import MemoryHeadKeys, memory_head

VALUES: dict[str, Any] = {
    "key_mem_units": 10,
    "delta": 2,
    "distance": "euclidean",
    "sigma_eu": 1.5,
    "gamma_alpha": 25.0,
    "tau_alpha": 0.95,
    "tau_mu": 50.0,
    "tau_eta": 60.0,
    "upd_m": "WTA",
    "upd_k": "ad_hoc_WTA",
    "beta_k": 0.01,
    "scramble": True,
    "random_memories": True,
    "shared_keys": False,
    "bias": False,
    "layer_norm": True,
    "psi_fn": "resize1d",
    "key_size": 3,
    "detach_gradients": False,
    "cosine_scale": False,
    "layer_norm_by": "deviation",
}


def test_every_key_reaches_the_head() -> None:
    keys = MemoryHeadKeys(**VALUES)
    assert [field.name for field in fields(keys)] == list(VALUES)
    torch.manual_seed(0)
    made = memory_head(keys, 7, 4)
    assert (made.in_features, made.out_features, made.K.shape) == (7, 4, (4, 10, 3))
    assert {name: getattr(made, name) for name in VALUES} == VALUES


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"delta": 11}, "method.head.delta=11: expected at most method.head.key_mem_units=10"),
        ({"delta": 0}, "method.head.delta=0: expected at least 1"),
        ({"upd_m": "wta"}, "method.head.upd_m=wta: .*Did you mean 'WTA'"),
        ({"upd_k": "vanilla"}, "method.head.upd_k=vanilla: expected null, none, grad_not_WTA"),
        ({"upd_k": None}, "method.head.upd_m=WTA with upd_k=None"),
        ({"beta_k": None}, "method.head.beta_k=null"),
        ({"psi_fn": "id"}, "method.head.psi_fn=id"),
    ],
)
def test_wrong_values_name_their_key(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        MemoryHeadKeys(**{**VALUES, **changed})
