"""DMN as its configuration file gives it, on features that a test brings."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf

from mmcl.config.components import build
from mmcl.config.locate import shipped_folder
from mmcl.methods.dmn import Dmn
from mmcl.methods.on_features import FeatureIngredients
from mmcl.protocol import DatasetTask


def dmn_method(dimension: int, scale: float = 100.0, /, **overrides: Any) -> Dmn:
    """Build the method of ``conf/method/dmn.yaml`` with some keys changed; dots are written as ``__``."""
    config = OmegaConf.load(shipped_folder("conf") / "method" / "dmn.yaml").method
    for name, value in overrides.items():
        OmegaConf.update(config, name.replace("__", "."), value, merge=False)
    method: Dmn = build(config, FeatureIngredients(0, 1, dimension, scale, None))
    return method


def dataset_task(encoded: Any, classes: int) -> DatasetTask:
    """Return the one task of a data set."""
    return DatasetTask(0, 0, classes, "toy", tuple(map(str, range(classes))), encoded)
