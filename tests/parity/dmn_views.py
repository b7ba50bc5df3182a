"""The operations and mixtures of the AugMix views, image by image and batched."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional

from mmcl.features.augmix import CHAINS, LONGEST, OPERATIONS, MixDraws, alter, augmix
from mmcl.features.augmix_exact import alter_exact, augmix_exact
from tests.parity import Golden, close, parity

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@parity("augmix")
def augmix_views(golden: Golden) -> None:
    pixels = golden["image"]
    image, batch = Image.fromarray(pixels), torch.from_numpy(pixels).permute(2, 0, 1)[None]
    assert sorted(golden["op_names"].tolist()) == sorted(OPERATIONS)
    for key in (name for name in golden if name.startswith("op__") and name.endswith("__out")):
        name, draws = key.split("__")[1], [*golden[key.replace("__out", "__draws")].tolist(), 0.0, 0.0]
        exact = np.asarray(alter_exact(name, image, draws[0], draws[1]))
        assert np.array_equal(exact, golden[key]), key
        levels, signs = (torch.tensor([value], dtype=torch.float64) for value in draws[:2])
        batched = alter(name, batch, levels, signs)[0].permute(1, 2, 0).numpy()
        assert np.abs(batched.astype(int) - golden[key].astype(int)).max() <= 1, key
    for number in range(sum(name.endswith("__depth") for name in golden)):
        draws_ = _draws(golden, f"mix{number}__")
        close(augmix_exact(image, draws_, _preprocess), golden[f"mix{number}__out"])
        close(augmix(batch, draws_, MEAN, STD)[0], golden[f"mix{number}__out"], 2 / 255 / min(STD))


def _preprocess(image: Image.Image) -> Tensor:
    return functional.normalize(functional.to_tensor(image), MEAN, STD)


def _draws(golden: Golden, mix: str) -> MixDraws:
    names = golden["op_names"].tolist()
    chosen, drawn = iter(golden[f"{mix}op_index"].tolist()), iter(golden[f"{mix}op_draws"].tolist())
    depths = torch.from_numpy(golden[f"{mix}depth"])[None]
    operations = torch.zeros(1, CHAINS, LONGEST, dtype=torch.int64)
    levels, signs = (torch.zeros(1, CHAINS, LONGEST, dtype=torch.float64) for _ in range(2))
    for chain, depth in enumerate(depths[0].tolist()):
        for step in range(depth):
            name = names[next(chosen)]
            operations[0, chain, step] = OPERATIONS.index(name)
            if name in ("autocontrast", "equalize"):
                continue
            levels[0, chain, step] = next(drawn)
            if name.startswith(("rotate", "shear", "translate")):
                signs[0, chain, step] = next(drawn)
    assert not [*chosen, *drawn]
    weights, blends = (torch.from_numpy(np.atleast_1d(golden[mix + name])) for name in ("w", "m"))
    return MixDraws(weights[None], blends, depths, operations, levels, signs)
