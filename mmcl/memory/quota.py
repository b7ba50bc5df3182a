"""How many samples of a class may be kept: a total, a number per class, bytes, or another method's budget."""

from __future__ import annotations

from dataclasses import dataclass

from mmcl.config.schema import setting
from mmcl.errors import UserError
from mmcl.memory.accounting import PARAMETER_BYTES, aligned_exemplars


@dataclass
class MemoryConfig:
    """What may be kept about the past. Exactly one of ``size``, ``per_class`` and ``bytes`` is a number."""

    size: int | None = setting("Samples of all classes together: each of C classes gets floor(size / C).")
    per_class: int | None = setting("Samples of each class; old classes keep theirs, so the memory grows.")
    bytes: int | None = setting("Bytes of samples and, with count_model, of the model together.")
    count_model: bool = setting("true: memory.bytes pays for the model too. false: for samples alone.")
    align_to: str | None = setting("A method, such as der: fill the bytes that it takes with memory.size.")
    select: str = setting(
        "Which samples: herding (greedily near the class mean), herding_lucir (its form in LUCIR's code), random or "
        "first."
    )


@dataclass
class NoMemoryConfig:
    """No budget of images: the method states what it keeps, or keeps nothing."""

    name: str = setting("none.")


@dataclass(frozen=True)
class Quota:
    """The number of samples that each class may keep. A class that has fewer keeps all it has.

    The total is fixed before the first task, so that a budget too small stops before any training.
    ``memory.bytes`` is for a user with so many bytes for model and samples together: the model is paid first,
    at the size it has after the last task, and whole images fill the rest; so no task exceeds the budget, and
    samples are never given up because the model has grown. ``memory.align_to`` lets the samples grow beyond
    ``memory.size`` until they fill the bytes of another method. Both count as MEMO's paper does: float32
    backbone parameters and uint8 pixels.

    Attributes:
        config: what the user allows.
        image_bytes: bytes of one sample, uint8 pixels at the size that the network sees.
        own_parameters: backbone parameters of the method after its last task.
        budget_parameters: the same of the method that ``align_to`` names; None without one.
        total: samples of all classes together; None when ``per_class`` is given.

    Raises:
        UserError: not exactly one of the three budgets, one that is not positive, ``align_to`` without
            ``size``, or a budget that leaves no room for a sample.
    """

    config: MemoryConfig
    image_bytes: int
    own_parameters: int
    budget_parameters: int | None = None

    def __post_init__(self) -> None:
        _require_one_budget(self.config)
        if self.config.align_to is not None and self.budget_parameters is None:
            raise ValueError(f"align_to={self.config.align_to!r} needs budget_parameters")
        _ = self.total

    def per_class(self, seen: int, *, round_up: bool = False) -> int:
        """Return how many samples each of the ``seen`` classes may keep.

        Args:
            seen: number of classes that share the total.
            round_up: as LUCIR's and Mnemonics' released code shares 2000 samples: ``ceil(total / seen)``, so that all
                classes together may have up to ``seen - 1`` more than the total. False keeps within it.

        Raises:
            UserError: the total is below ``seen``.
        """
        if self.total is None:
            return self.config.per_class or 0
        if self.total < seen:
            raise UserError(
                f"memory: {self.total:,} samples in all leave none for each of {seen:,} classes. "
                f"Give a budget for {seen:,} or more."
            )
        return -(-self.total // seen) if round_up else self.total // seen

    @property
    def total(self) -> int | None:
        """Samples of all classes together."""
        config = self.config
        if config.bytes is not None:
            return self._samples_in_bytes(config.bytes)
        if config.size is None or config.align_to is None or self.budget_parameters is None:
            return config.size
        return self._samples_aligned(config.size, self.budget_parameters)

    def _samples_aligned(self, size: int, budget_parameters: int) -> int:
        total = aligned_exemplars(size, budget_parameters, self.own_parameters, self.image_bytes)
        if total <= 0:
            raise UserError(
                f"memory.align_to={self.config.align_to} leaves no room for samples: memory.size={size} plus "
                f"({budget_parameters:,} - {self.own_parameters:,}) parameters * {PARAMETER_BYTES} bytes / "
                f"{self.image_bytes:,} bytes an image make {total:,}. "
                "Give a larger memory.size or a smaller backbone."
            )
        return total

    def _samples_in_bytes(self, budget_bytes: int) -> int:
        model_bytes = self.own_parameters * PARAMETER_BYTES if self.config.count_model else 0
        total = (budget_bytes - model_bytes) // self.image_bytes
        if total <= 0:
            raise UserError(
                f"memory.bytes={budget_bytes} leaves no room for samples: ({budget_bytes:,} bytes - "
                f"{model_bytes:,} of the model after the last task) / {self.image_bytes:,} bytes an image "
                f"make {total:,}. Give memory.bytes={model_bytes + self.image_bytes} or more, "
                "a smaller backbone, or memory.count_model=false."
            )
        return total


def _require_one_budget(config: MemoryConfig) -> None:
    budgets = {"size": config.size, "per_class": config.per_class, "bytes": config.bytes}
    given = {f"memory.{name}": value for name, value in budgets.items() if value is not None}
    if len(given) != 1:
        found = " and ".join(f"{name}={value}" for name, value in given.items()) or "none of them"
        choices = [
            " ".join(f"{other}={value if other == name else 'null'}" for other in given)
            for name, value in given.items()
        ]
        raise UserError(
            f"expected exactly one of memory.size, memory.per_class and memory.bytes, found {found}. "
            f"Type {' or '.join(choices) or 'memory.size=2000'}"
        )
    for name, value in given.items():
        if value <= 0:
            raise UserError(f"{name}={value}: expected a positive number.")
    if config.align_to is not None and config.size is None:
        raise UserError(
            f"memory.align_to={config.align_to} starts from memory.size, which is null. "
            "Type memory.size=2000, or memory.align_to=null."
        )
