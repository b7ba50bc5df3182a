"""DER: a whole frozen network per task, one growing classifier over all of them.

Yan, Xie, He, "DER: Dynamically Expandable Representation for Class Incremental Learning", CVPR 2021, in PyCIL's form
without pruning, which the tables come from. It is MEMO with an empty trunk.
"""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from mmcl.backbones.expandable import ExpandableNetwork
from mmcl.backbones.split import unshared
from mmcl.methods.memo import ExpansionMethod


class Der(ExpansionMethod):
    """Adds a copy of the newest network per task and freezes the old ones."""

    growth: ClassVar[str] = "der"

    def make_network(self) -> nn.Module:
        """Build heads; networks come with the tasks."""
        return ExpandableNetwork(lambda: unshared(self.ingredients.make_backbone()), True, False)
