"""What a search over settings is led by: one figure of a run, and never one of test samples."""

from __future__ import annotations

from pathlib import Path

from mmcl.errors import UserError, nearest
from mmcl.results.store import read_result

VALIDATION = "_validation"


def check_objective(objective: str | None) -> None:
    """Refuse what is no readout of validation samples with a figure behind it; test samples select nothing.

    Raises:
        UserError: with what to type.
    """
    if objective is None:
        return
    readout, _, figure = objective.partition("/")
    if not figure:
        raise UserError(
            f"objective={objective}: expected a readout and one of its figures. Type for example: "
            "objective=head_validation/last_accuracy"
        )
    if not readout.endswith(VALIDATION):
        raise UserError(
            f"objective={objective}: {readout} answers on test samples, and those select nothing. Online methods have "
            "readouts of validation samples; type for example: objective=head_validation/last_accuracy. Class by "
            "class, on frozen features and on replaceable memories there is none: choose settings on other data, such "
            "as other classes, and run the chosen ones once"
        )


def value_of(objective: str | None, result: Path) -> float | None:
    """Return the figure that an objective names, from a run's ``result.json``; None without an objective.

    Raises:
        UserError: the run has no such readout or figure.
    """
    if objective is None:
        return None
    readout, _, figure = objective.partition("/")
    readouts = read_result(result).readouts
    if readout not in readouts:
        known = [name for name in readouts if name.endswith(VALIDATION)]
        words = ", ".join(known) if known else "this run has none of validation samples (benchmark.evaluate)"
        raise UserError(f"objective={objective}: no readout '{readout}'.{nearest(readout, known)} Readouts: {words}")
    value = readouts[readout].get(figure)
    if not isinstance(value, (int, float)):
        known = [name for name, entry in readouts[readout].items() if isinstance(entry, (int, float))]
        hint = nearest(figure, known)
        raise UserError(f"objective={objective}: {readout} has no {figure}.{hint} Figures: {', '.join(known)}")
    return float(value)
