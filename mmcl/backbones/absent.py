"""The place of a backbone where none is needed: features come from a file."""

from __future__ import annotations

from typing import ClassVar

from mmcl.backbones.dual_encoder import DualEncoder
from mmcl.config.schema import ComponentConfig
from mmcl.errors import UserError


class NoBackbone:
    """No encoder at all, for ``benchmark=features``."""

    Config: ClassVar[type[ComponentConfig]] = ComponentConfig

    def __init__(self, config: ComponentConfig) -> None:
        self.config = config

    def load(self) -> DualEncoder:
        """Refuse: there is nothing to load.

        Raises:
            UserError: always.
        """
        raise UserError("backbone=none encodes nothing. Type for example backbone=mini_clip or backbone=clip_vit_b16")
