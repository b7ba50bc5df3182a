"""What a method keeps, in bytes: measured from the tensors, and by the accounting of MEMO's paper beside it.

The paper (Zhou et al., ICLR 2023, section 3) counts float32 backbone parameters and uint8 pixels: no heads,
no buffers of batch normalisation, no teachers. What it saves against DER, which keeps one backbone a task, it
spends on exemplars.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from mmcl.errors import UserError, nearest
from mmcl.memory.row_store import RowStore

PARAMETER_BYTES = 4
CIFAR_IMAGE_BYTES = 3 * 32 * 32
IMAGENET_IMAGE_BYTES = 3 * 224 * 224
MEBIBYTE = 2**20


class BlockParameters(NamedTuple):
    """Parameters of one backbone: ``plain`` as a whole, and of the two parts that MEMO cuts it into."""

    plain: int
    generalized: int
    specialized: int


_GROWTH: dict[str, Callable[[BlockParameters, int], int]] = {
    "single": lambda blocks, tasks: blocks.plain,
    "der": lambda blocks, tasks: tasks * blocks.plain,
    "memo": lambda blocks, tasks: blocks.generalized + tasks * blocks.specialized,
    "aanets": lambda blocks, tasks: min(tasks, 2) * blocks.plain,
}


def counted_parameters(growth: str, blocks: BlockParameters, tasks: int) -> int:
    """Count the backbone parameters that are kept after ``tasks`` tasks.

    ``growth`` says how the network grows: ``single`` keeps one backbone, ``der`` one a task, ``memo`` one
    generalized block and a specialized block a task, ``aanets`` two from the second task on.

    Raises:
        UserError: an unknown growth.
    """
    if growth not in _GROWTH:
        raise UserError(f"growth {growth!r}: expected one of {', '.join(_GROWTH)}.{nearest(growth, _GROWTH)}")
    return _GROWTH[growth](blocks, tasks)


def aligned_exemplars(base_exemplars: int, budget_parameters: int, own_parameters: int, image_bytes: int) -> int:
    """Count the exemplars that bring a method to the bytes of a budget.

    The budget is ``budget_parameters`` together with ``base_exemplars``; the method keeps ``own_parameters``
    and fills the difference with whole images, or gives images up where it keeps more parameters than the
    budget. In the paper's "fair" protocol the budget is DER's; at the points of its accuracy-memory curves it
    is DER's with the backbone of the point, or one plain backbone at the smallest point.
    """
    return base_exemplars + (budget_parameters - own_parameters) * PARAMETER_BYTES // image_bytes


def exemplars_worth(parameters: int, image_bytes: int) -> int:
    """Return how many whole images take the bytes of float32 parameters (ResNet-32: 603 of CIFAR)."""
    return parameters * PARAMETER_BYTES // image_bytes


def budget_mebibytes(parameters: int, exemplars: int, image_bytes: int) -> float:
    """Return the paper's budget of a model with exemplars, in MiB (which the paper prints as MB)."""
    return (parameters * PARAMETER_BYTES + exemplars * image_bytes) / MEBIBYTE


class ModuleBytes(NamedTuple):
    """Bytes of a module's tensors; one that occurs twice counts once."""

    parameters: int
    buffers: int

    @property
    def total(self) -> int:
        """Parameters and buffers together."""
        return self.parameters + self.buffers


def module_bytes(module: nn.Module) -> ModuleBytes:
    """Measure the tensors of a module, whatever their dtype and whether they are trained or frozen."""
    return ModuleBytes(
        sum(parameter.nbytes for parameter in module.parameters()),
        sum(buffer.nbytes for buffer in module.buffers()),
    )


@dataclass(frozen=True)
class ByteReport:
    """Bytes of what a method keeps after a task, by two accountings that are never mixed.

    Attributes:
        model_bytes: measured: parameters of the model without its heads.
        head_bytes: measured: parameters of the heads, which classify features.
        buffer_bytes: measured: buffers of model and heads, such as the statistics of batch normalisation.
        memory_bytes: measured: kept rows with their labels and sources; files with their sizes.
        teacher_bytes: measured: networks kept beside the model to learn from.
        paper_model_bytes: the paper's: 4 bytes for each parameter of the model without its heads.
        paper_memory_bytes: the paper's: pixels of the exemplars at one byte a channel.
        exemplars: number of kept rows.
        equals_exemplars: number of whole images that ``paper_model_bytes`` would pay for.
    """

    model_bytes: int
    head_bytes: int
    buffer_bytes: int
    memory_bytes: int
    teacher_bytes: int
    paper_model_bytes: int
    paper_memory_bytes: int
    exemplars: int
    equals_exemplars: int

    @classmethod
    def measure(
        cls,
        model: nn.Module,
        *,
        image_bytes: int,
        memory: RowStore | None = None,
        teacher: nn.Module | None = None,
    ) -> ByteReport:
        """Measure a model with its heads, the memory and the teacher, and count as the paper does beside it.

        Args:
            model: what classifies. Submodules called ``head`` or ``..._head`` are heads.
            image_bytes: bytes of one image in the paper's accounting.
            memory: the kept rows.
            teacher: a network kept beside the model to learn from.
        """
        heads = [module for name, module in model.named_modules() if name.endswith("head")]
        of_heads = {parameter for head in heads for parameter in head.parameters()}
        body = [parameter for parameter in model.parameters() if parameter not in of_heads]
        counted = sum(parameter.numel() for parameter in body)
        exemplars = 0 if memory is None else len(memory)
        return cls(
            model_bytes=sum(parameter.nbytes for parameter in body),
            head_bytes=sum(parameter.nbytes for parameter in of_heads),
            buffer_bytes=module_bytes(model).buffers,
            memory_bytes=0 if memory is None else memory.memory_bytes,
            teacher_bytes=0 if teacher is None else module_bytes(teacher).total,
            paper_model_bytes=counted * PARAMETER_BYTES,
            paper_memory_bytes=exemplars * image_bytes,
            exemplars=exemplars,
            equals_exemplars=exemplars_worth(counted, image_bytes),
        )

    @property
    def total_bytes(self) -> int:
        """All that is measured."""
        return self.model_bytes + self.head_bytes + self.buffer_bytes + self.memory_bytes + self.teacher_bytes

    @property
    def paper_bytes(self) -> int:
        """All that the paper counts."""
        return self.paper_model_bytes + self.paper_memory_bytes
