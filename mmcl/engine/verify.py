"""Whether ``result.json`` is what a run's kept answers, its saved state and the code give: for ``mmcl verify``."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torchmetrics import MetricCollection

from mmcl.config.identity import identity
from mmcl.engine.answered_again import AnsweredAgain, OtherStateError, answer_again
from mmcl.engine.predictions import FOLDER, Predictions, digest_of, file_of, read_predictions
from mmcl.engine.provenance import provenance
from mmcl.engine.results import with_oracles
from mmcl.engine.run_record import RunRecord, confusions, counted, read_confusion
from mmcl.errors import UserError
from mmcl.metrics.readouts import figures, synced_state

OK, DIFFERS, NOT_CHECKED, LEFT_OUT, NOTE = "ok", "DIFFERS", "not checked", "left out", "note"
LAST_BITS = 1e-12  # relative; a GPU adds in another order
ROUNDING = 1e-3  # of a state that was computed again
SHOWN = 5
Answers = list[dict[str, Predictions]]


@dataclass(frozen=True)
class Check:
    """What came out of one comparison: what was compared, the verdict, and words with both values where they differ."""

    what: str
    verdict: str
    words: str


def verify_run(run: RunRecord, with_checkpoint: bool) -> Iterator[Check]:
    """Compare a finished run with what its files and the code give, line by line.

    Args:
        run: what it left.
        with_checkpoint: answer the last task again, which needs the data.
    """
    yield _identity(run)
    answers = yield from _kept_answers(run)
    if answers is not None:
        yield from _figures(run, answers)
    yield from _state(run)
    if with_checkpoint:
        yield from _again(run, answers)
    else:
        yield Check("checkpoint", LEFT_OUT, "as --without-checkpoint says")
    yield from _origin(run)


def exit_code(checks: list[Check]) -> int:
    """Return 0 if all that was asked for is as it should be, 1 otherwise."""
    return int(any(check.verdict in (DIFFERS, NOT_CHECKED) for check in checks))


def differences(recorded: Any, computed: Any, tolerance: float, where: str = "") -> list[tuple[str, Any, Any]]:
    """Return the places at which two nested figures differ, with both values.

    Args:
        recorded: numbers, strings, None, and lists and mappings of them.
        computed: the same.
        tolerance: relative difference of two floats that counts as none.
        where: name of the place.
    """
    if isinstance(recorded, Mapping) and isinstance(computed, Mapping):
        keys = dict.fromkeys([*recorded, *computed])
        pairs = [(f"{where}.{key}" if where else str(key), recorded.get(key), computed.get(key)) for key in keys]
    elif isinstance(recorded, list) and isinstance(computed, list) and len(recorded) == len(computed):
        pairs = [(f"{where}[{at}]", *pair) for at, pair in enumerate(zip(recorded, computed, strict=True))]
    else:
        return [] if _equal(recorded, computed, tolerance) else [(where, recorded, computed)]
    return [found for name, ours, theirs in pairs for found in differences(ours, theirs, tolerance, name)]


def _equal(recorded: Any, computed: Any, tolerance: float) -> bool:
    if isinstance(recorded, float) and isinstance(computed, float):
        return abs(recorded - computed) <= tolerance * max(abs(recorded), abs(computed))
    return bool(recorded == computed) and isinstance(recorded, bool) == isinstance(computed, bool)


# ------------------------------------------------------------------ parts


def _identity(run: RunRecord) -> Check:
    known_as = run.result["identity"]
    try:
        found = identity(run.config)
    except (UserError, AttributeError, KeyError) as error:
        return Check("identity", NOT_CHECKED, f"this version cannot tell it from the configuration: {error}")
    if found == known_as:
        return Check("identity", OK, f"{known_as} is that of its configuration")
    return Check(
        "identity",
        DIFFERS,
        f"result.json has {known_as}, its configuration gives {found}: a setting was changed, or a file that decides "
        "figures (weights, features) has changed or moved, or the version that made the run told it otherwise",
    )


def _kept_answers(run: RunRecord) -> Generator[Check, None, Answers | None]:
    """Yield whether the kept answers are those that the state knows; return them, or None where some are missing."""
    if not (run.folder / FOLDER).is_dir():
        words = f"there is no {FOLDER}/: the run was made before answers were kept, or copied without them"
        yield Check("answers", NOT_CHECKED, words)
        return None
    answers, bad = [], False
    for task in range(run.task_count):
        path = file_of(run.folder, task)
        digest = run.state.predictions.get(path.name)
        try:
            answers.append(read_predictions(path))
            if digest is not None and digest_of(path) != digest:
                bad = True
                yield Check(
                    "answers",
                    DIFFERS,
                    f"{path.name} was changed after the run: digest {digest_of(path)}, by the state {digest}",
                )
        except UserError as error:
            bad = True
            yield Check("answers", DIFFERS, str(error))
    if not bad:
        samples = max((len(kept) for readouts in answers for kept in readouts.values()), default=0)
        yield Check("answers", OK, f"{run.task_count} files, up to {samples} samples each")
    return answers if len(answers) == run.task_count else None


def _figures(run: RunRecord, answers: Answers) -> Iterator[Check]:
    try:
        counts = counted(run, answers)
    except ValueError as error:
        yield Check("figures", DIFFERS, str(error))
        return
    for name in sorted({name for readouts in answers for name in readouts} - set(counts)):
        yield Check("figures", DIFFERS, f"{name} has answers, but is no readout of result.json")
    for name, metrics in counts.items():
        yield from _readout(run, name, metrics)
    for name, table in confusions(run, counts).items():
        yield _confusion(run, name, table)


def _readout(run: RunRecord, name: str, metrics: MetricCollection) -> Iterator[Check]:
    """Compare the figures of a readout, and its counts with those of the state."""
    recorded: dict[str, Any] = run.result["readouts"][name]
    computed = figures(metrics)
    oracles = [chosen[name] for chosen in run.state.oracles if name in chosen]
    recorded_oracle = {key for key in recorded if key.startswith("acc_oracle")}
    if oracles or not recorded_oracle:
        computed = with_oracles(computed, oracles)
    else:
        yield Check("figures", NOT_CHECKED, f"{name}: acc_oracle needs scores, and there is no state that knows it")
        recorded = {key: value for key, value in recorded.items() if key not in recorded_oracle}
    on_gpu = bool((run.result["provenance"].get("hardware") or {}).get("gpus"))
    found = differences(recorded, computed, LAST_BITS if on_gpu else 0.0, name)
    yield from _differing("figures", found, "result.json", "recomputed")
    known = run.state.readouts.get(name)
    same_counts = known is None or all(known[key].equal(value) for key, value in synced_state(metrics).items())
    if not same_counts:
        yield Check("figures", DIFFERS, f"{name}: the saved state has counted other answers than those that are kept")
    if not found and same_counts:
        yield Check("figures", OK, f"{name}: {len(recorded)} figures, recomputed from the kept answers")


def _confusion(run: RunRecord, name: str, table: list[list[int]]) -> Check:
    file = f"confusion_{name}.csv"
    try:
        found = differences(read_confusion(run.folder / file), table, 0.0, file)
    except UserError as error:
        return Check("confusion", DIFFERS, str(error))
    if not found:
        return Check("confusion", OK, file)
    where, ours, theirs = found[0]
    return Check("confusion", DIFFERS, f"{where}: {ours}, recomputed {theirs} ({len(found)} such places)")


def _state(run: RunRecord) -> Iterator[Check]:
    """Compare the last state with the result: how far it is, and the bytes after each task."""
    state, count = run.state, run.task_count
    if state.method is None:
        yield Check(
            "state", NOT_CHECKED, "there is no good state: the run was copied without it, or its files are damaged"
        )
        return
    if (state.task, state.stages_done) != (count, 0):
        yield Check(
            "state",
            DIFFERS,
            f"the newest good state is of task {state.task} of {count}: the last is missing or damaged",
        )
        return
    found = differences(run.result["bytes"], state.bytes, 0.0, "bytes")
    yield from _differing("state", found, "result.json", "the saved state")
    if not found:
        yield Check("state", OK, f"after task {count} of {count}, with the same bytes of model and memory")


def _again(run: RunRecord, answers: Answers | None) -> Iterator[Check]:
    """Answer the last task again, and compare answers, bytes and what was chosen by test labels."""
    if (run.state.task, run.state.stages_done) != (run.task_count, 0):
        yield Check("checkpoint", NOT_CHECKED, "the state after the last task is not there")
        return
    try:
        again = answer_again(run)
    except OtherStateError as error:
        yield Check("checkpoint", DIFFERS, str(error))
        return
    except UserError as error:
        yield Check("checkpoint", NOT_CHECKED, str(error))
        return
    if answers is None:
        yield from _last_accuracies(run, again)
    else:
        yield from _last_answers(run, answers, again)
    recorded = {name: value for name, value in run.result["bytes"][-1].items() if name != "task"}
    measured = {name: value for name, value in again.bytes.items() if name != "task"}
    found = differences(recorded, measured, 0.0, "bytes")
    yield from _differing("bytes", found, "result.json", "measured again")
    if not found:
        yield Check("bytes", OK, "model and memory after the last task, measured again")
    if again.replayed:
        yield from _replayed(run, again)


def _last_answers(run: RunRecord, answers: Answers, again: AnsweredAgain) -> Iterator[Check]:
    kept = answers[-1]
    for name in dict.fromkeys([*kept, *again.predictions]):
        ours, theirs = kept.get(name), again.predictions.get(name)
        if ours is None or theirs is None or len(ours) != len(theirs) or name not in run.result["readouts"]:
            yield Check("checkpoint", DIFFERS, f"{name}: other samples than those that were asked")
            continue
        other = (ours.answers != theirs.answers) | (ours.ranks != theirs.ranks) | (ours.truths != theirs.truths)
        if not bool(other.any()):
            yield Check("checkpoint", OK, f"{name}: the same {len(ours)} answers again")
            continue
        figure = _last_accuracy(run, [*answers[:-1], again.predictions], name)
        recorded = run.result["readouts"][name]["last_accuracy"]
        words = f"{name}: {int(other.sum())} of {len(ours)} answers or ranks; last_accuracy {recorded}, again {figure}"
        yield Check("checkpoint", DIFFERS, words)


def _last_accuracies(run: RunRecord, again: AnsweredAgain) -> Iterator[Check]:
    """Compare accuracies where no answers were kept."""
    recorded = run.result["readouts"]
    for name in dict.fromkeys([*recorded, *again.predictions]):
        if name not in recorded or name not in again.predictions:
            yield Check("checkpoint", DIFFERS, f"{name}: answered {'then' if name in recorded else 'now'} alone")
            continue
        nothing: Answers = [{} for _ in range(run.task_count - 1)]
        figure = _last_accuracy(run, [*nothing, dict(again.predictions)], name)
        found = differences(recorded[name]["last_accuracy"], figure, LAST_BITS, f"{name}.last_accuracy")
        yield from _differing("checkpoint", found, "result.json", "again")
        if not found:
            yield Check("checkpoint", OK, f"{name}: the same accuracy after the last task")


def _last_accuracy(run: RunRecord, answers: list[Any], name: str) -> Any:
    return figures(counted(run, answers)[name])["last_accuracy"]


def _replayed(run: RunRecord, again: AnsweredAgain) -> Iterator[Check]:
    """Compare what the end of the last task has left with the last state."""
    chosen = run.state.oracles[-1] if run.state.oracles else {}
    found = differences(chosen, again.oracles, LAST_BITS)
    yield from _differing("oracle", found, "the saved state", "chosen again")
    if chosen and not found:
        yield Check("oracle", OK, f"{', '.join(chosen)}: the same choice by test labels again")
    far = {name: value for name, value in again.other_parts.items() if value > ROUNDING}
    if far:
        named = ", ".join(f"{name} by {value:.3g}" for name, value in list(far.items())[:SHOWN])
        yield Check("checkpoint", DIFFERS, f"the state that the end of the last task leaves: {named}")
    else:
        near = f"; {len(again.other_parts)} parts by less than {ROUNDING:g}" if again.other_parts else ""
        yield Check("checkpoint", OK, f"the end of the last task, gone through again, leaves the same state{near}")


def _origin(run: RunRecord) -> Iterator[Check]:
    """Say what has changed since: this is no fault of the run."""
    then, now = run.result["provenance"], provenance()
    changes = [
        f"{name} {before} then, {after} now"
        for name, before, after in (
            ("commit", then.get("commit"), now["commit"]),
            ("python", then.get("python"), now["python"]),
            *((name, (then.get("versions") or {}).get(name), found) for name, found in now["versions"].items()),
            ("hardware", then.get("hardware"), now["hardware"]),
        )
        if before != after
    ]
    yield (
        Check("origin", NOTE, "; ".join(changes))
        if changes
        else Check("origin", OK, "commit, versions, hardware as now")
    )


def _differing(what: str, found: list[tuple[str, Any, Any]], ours: str, theirs: str) -> Iterator[Check]:
    for where, recorded, computed in found[:SHOWN]:
        yield Check(what, DIFFERS, f"{where}: {ours} {recorded}, {theirs} {computed}")
    if len(found) > SHOWN:
        yield Check(what, DIFFERS, f"and {len(found) - SHOWN} more places")
