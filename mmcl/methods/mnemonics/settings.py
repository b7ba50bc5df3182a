"""Keys of Mnemonics, and which of them go together."""

from __future__ import annotations

from dataclasses import dataclass

from mmcl.config.schema import ExemplarSchedule, setting
from mmcl.errors import UserError, nearest
from mmcl.methods.aanets import AanetsConfig
from mmcl.methods.mnemonics.storage import STORAGES
from mmcl.methods.mnemonics.unrolling import UNROLLINGS

MODES = ("off", "nme", "unrolled_fc", "unrolled_full")
UNROLLED = ("unrolled_fc", "unrolled_full")
QUERIES = ("new", "new_and_memory")
NETWORKS = ("single", "aanets")


@dataclass
class InnerConfig:
    """Training on the exemplars alone, through which the pixels are learned."""

    lr: float = setting("Learning rate of plain gradient steps, above 0. Paper: 0.01.")
    steps: int = setting(
        "unrolled_full: steps on all exemplars; unrolled_fc: turns of all sets. At least 1. Paper: 50."
    )
    sets: int = setting("unrolled_fc: sets that the exemplars of a class are dealt into; 1 is the full batch.")
    unrolling: str = setting(
        "unrolled_full: whole_graph keeps the graph of all steps; stepwise computes each step again on the way back: "
        "the memory of one step, more time."
    )


@dataclass
class AdjustingConfig:
    """How the exemplars of old classes are adjusted, one half against the other."""

    rounds: int = setting("Rounds of two steps, one for each half; 0 leaves old exemplars as they are. Paper: 10.")
    lr: float = setting("Learning rate of plain gradient steps. Paper: 0.01.")
    lr_decay: float = setting("Factor of the rate after every decay_rounds rounds; 1 keeps it.")
    decay_rounds: int = setting("Rounds between two decays.")


@dataclass
class ExemplarsConfig:
    """The exemplar level."""

    mode: str = setting(
        "off; nme (through class means, one level); unrolled_fc (through the training of the head); unrolled_full "
        "(through the training of the whole network)."
    )
    storage: str = setting("How learned pixels are kept: float, uint8_round, or uint8_trunc as the released code.")
    queries: str = setting("What judges the exemplars: new (images of new classes) or new_and_memory.")
    queries_per_class: int | None = setting("At most so many new images of a class are queries, drawn once; null: all.")
    per_step: int | None = setting("So many exemplars of a class take part in a step, drawn anew each time; null: all.")
    inner: InnerConfig = setting("Training on the exemplars, for the unrolled modes.")
    learning: ExemplarSchedule = setting("How the pixels of new exemplars are learned.")
    adjusting: AdjustingConfig = setting("How old exemplars are adjusted, for the unrolled modes.")

    def __post_init__(self) -> None:
        """Refuse what would learn nothing or stop only after hours."""
        choices: tuple[tuple[str, str, tuple[str, ...]], ...] = (
            ("mode", self.mode, MODES),
            ("storage", self.storage, tuple(STORAGES)),
            ("queries", self.queries, QUERIES),
            ("inner.unrolling", self.inner.unrolling, tuple(UNROLLINGS)),
        )
        for key, value, known in choices:
            if value not in known:
                expected = f"expected one of {', '.join(known)}.{nearest(value, known)}"
                raise UserError(f"method.exemplars.{key}={value}: {expected}")
        if self.mode in UNROLLED and (self.inner.steps < 1 or self.inner.lr <= 0 or self.inner.sets < 1):
            raise UserError(
                f"method.exemplars.inner: steps={self.inner.steps}, lr={self.inner.lr}, sets={self.inner.sets}: "
                "without an inner step the exemplars get no gradient. Expected at least 1, above 0 and at least 1; to "
                "leave pixels alone type method.exemplars.mode=off"
            )
        if self.adjusting.rounds < 0 or self.adjusting.decay_rounds < 1 or self.adjusting.lr <= 0:
            raise UserError(
                f"method.exemplars.adjusting: rounds={self.adjusting.rounds}, decay_rounds="
                f"{self.adjusting.decay_rounds}, lr={self.adjusting.lr}: expected at least 0, at least 1 and above 0"
            )
        for key, number in (("queries_per_class", self.queries_per_class), ("per_step", self.per_step)):
            if number is not None and number < 1:
                raise UserError(f"method.exemplars.{key}={number}: expected at least 1, or null for all")


@dataclass
class MnemonicsConfig(AanetsConfig):
    """Keys of Mnemonics."""

    preset: str = setting("Which settings these began as: paper, released, baseline or aanets.")
    network: str = setting("single, or aanets: two branches (method.aggregation).")
    exemplars: ExemplarsConfig = setting("The exemplar level.")

    def __post_init__(self) -> None:
        """Refuse an unknown network."""
        super().__post_init__()
        if self.network not in NETWORKS:
            hint = nearest(self.network, NETWORKS)
            raise UserError(f"method.network={self.network}: expected one of {', '.join(NETWORKS)}.{hint}")
