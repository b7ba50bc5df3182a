"""What methods share that learn from a few images of each class, under augmentation passes that are encoded once."""

from __future__ import annotations

from dataclasses import dataclass

from mmcl.config.schema import setting
from mmcl.errors import UserError
from mmcl.protocol import DatasetTask, ImageFeatures


@dataclass
class FewShotKeys:
    """Keys of a method that needs labelled images."""

    shots: int = setting("Labelled training images of each class, at least 1. Papers: 1, 2, 4, 8, 16.")
    passes: int = setting("Encoded augmentation passes over the shots, at least 1; epoch e sees pass e modulo passes.")

    def __post_init__(self) -> None:
        """Refuse to learn from nothing."""
        if self.shots < 1 or self.passes < 1:
            raise UserError(f"method.shots={self.shots}, method.passes={self.passes}: expected at least 1 each")


def training_passes(task: DatasetTask, shots: int, passes: int) -> ImageFeatures:
    """Return the few shots under their augmentation passes, without the plain view: features ``(C * shots, P, D)``.

    Crops are bicubic, as in Tip-Adapter and CoOp. Raises UserError for more shots than a class has.
    """
    return task.encoded.train(shots, passes, interpolation="bicubic").with_views(slice(1, None))
