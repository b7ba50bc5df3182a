"""ER: experience replay, kept samples of the stream are learned from beside each new one, online.

Chaudhry, Rohrbach, Elhoseiny, Ajanthan, Dokania, Torr, Ranzato, "On Tiny Episodic Memories in Continual Learning",
arXiv 1902.10486, 2019. A baseline of Memory Head on streams.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from mmcl.config.schema import setting
from mmcl.memory.stream_buffer import RandomBuffer, ReservoirBuffer, StreamBuffer
from mmcl.methods.online_replay import BufferedConfig, OnlineReplay
from mmcl.methods.spelling import check_spelling

POLICIES: dict[str, type[StreamBuffer]] = {"reservoir": ReservoirBuffer, "random": RandomBuffer}


@dataclass
class ErConfig(BufferedConfig):
    """Keys of experience replay."""

    policy: str = setting("What a full buffer keeps: reservoir, or random (every second sample, in a random place).")

    def __post_init__(self) -> None:
        """Refuse unknown policies."""
        super().__post_init__()
        check_spelling("policy", self.policy, tuple(POLICIES))


class Er(OnlineReplay):
    """The loss of each step has a second term: the cross-entropy of kept samples."""

    Config: ClassVar[type] = ErConfig
    config: ErConfig

    def make_buffer(self, capacity: int, dimension: int) -> StreamBuffer:
        """Build a buffer with the configured policy."""
        return POLICIES[self.config.policy](capacity, dimension)

    def replay(self, samples: Tensor, labels: Tensor) -> None:
        """Add the gradient of the drawn samples."""
        self.add_gradient_of(samples, labels)
