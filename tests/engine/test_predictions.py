"""Kept answers: what they hold, that they give the metrics back, and that a kill leaves none half."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmcl.engine import predictions
from mmcl.engine.predictions import (
    Predictions,
    Recorder,
    file_of,
    from_tallies,
    ranked,
    read_predictions,
    scores_like,
    tallied,
    write_predictions,
)
from mmcl.engine.state import StateFile
from mmcl.errors import UserError
from mmcl.metrics.readouts import figures, readout_metrics
from mmcl.metrics.stream_metrics import stream_metrics
from tests.engine import mischief
from tests.engine.launched import launch
from tests.engine.tiny import directory_of, run_here, tiny

CHECKOUT = Path(__file__).resolve().parents[2]
SIGKILLED = -9
CLASSES = 7


def _made(seed: int, count: int, distributions: int = 0) -> tuple[torch.Tensor, Predictions]:
    """Return scores with many equal ones, and what they say."""
    numbers = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 4, (count, CLASSES), generator=numbers).float()
    truths = torch.randint(0, CLASSES, (count,), generator=numbers)
    where = torch.arange(count) % distributions if distributions else None
    return scores, Predictions(truths, *ranked(scores, truths), torch.tensor(CLASSES), where)


@given(st.integers(0, 10_000), st.integers(1, 40))
def test_answers_and_ranks_stand_for_the_scores(seed: int, count: int) -> None:
    scores, kept = _made(seed, count)
    again = scores_like(kept)
    assert torch.equal(again.argmax(dim=1), scores.argmax(dim=1))
    for one, other in zip(ranked(again, kept.truths), (kept.answers, kept.ranks), strict=True):
        assert torch.equal(one, other)


def test_they_give_all_figures_back() -> None:
    sizes = [3, 4]
    one, other = readout_metrics(sizes), readout_metrics(sizes)
    for task, seen in enumerate((3, 7)):
        scores, _ = _made(task, 50)
        truths = torch.arange(50) % seen
        kept = Predictions(truths, *ranked(scores[:, :seen], truths), torch.tensor(seen))
        one.update(scores[:, :seen], truths, task)
        for part in kept.parts(20):
            other.update(scores_like(part), part.truths, task)
    assert figures(one) == figures(other)


def test_a_truth_that_the_scores_do_not_know_ranks_behind_all() -> None:
    answers, ranks = ranked(torch.tensor([[1.0, 2.0]]), torch.tensor([5]))
    assert (answers.tolist(), ranks.tolist()) == ([1], [2])


def test_tallies_count_like_the_answers() -> None:
    scores, kept = _made(3, 60, distributions=4)
    one, other = stream_metrics(4, CLASSES), stream_metrics(4, CLASSES)
    one.update(scores, kept.truths, task=0, distributions=kept.distributions)
    short = from_tallies(tallied(kept))
    other.update(scores_like(short), short.truths, task=0, distributions=short.distributions)
    assert figures(one) == figures(other)


def test_samples_come_back_in_their_order_from_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, kept = _made(5, 11)
    recorders = [Recorder(), Recorder()]
    for rank, recorder in enumerate(recorders):
        own = torch.arange(rank, 11, 2)
        for rows in own.split(2):
            places = recorder.next_rows("cnn", len(rows), (rank, 2))
            assert torch.equal(places, rows)
            recorder.add("cnn", scores[rows], kept.truths[rows], places)
    parts: list[object] = []
    monkeypatch.setattr(predictions, "_from_all_processes", lambda own: parts.append(own) or parts)
    recorders[0].synced()
    together = recorders[1].predictions()["cnn"]
    assert torch.equal(together.truths, kept.truths)
    assert torch.equal(together.ranks, kept.ranks)


def test_a_recorder_goes_on_from_a_saved_state() -> None:
    scores, kept = _made(7, 8)
    rows = torch.tensor([3, 1, 7, 0, 2, 4, 6, 5])
    first, second = Recorder(), Recorder()
    first.add("cnn", scores[rows[:4]], kept.truths[rows[:4]], rows[:4])
    assert first.predictions() == {}  # half of the samples are no whole answer
    second.load(first.synced())
    second.add("cnn", scores[rows[4:]], kept.truths[rows[4:]], rows[4:])
    assert torch.equal(second.predictions()["cnn"].answers, kept.answers)


def test_files_hold_small_integers_and_come_back(tmp_path: Path) -> None:
    _, kept = _made(1, 30)
    path = file_of(tmp_path, 2)
    first = write_predictions(path, {"cnn": kept, "nme.ft": kept}, 0, 3)
    assert write_predictions(path, {"cnn": kept, "nme.ft": kept}, 0, 3) == first
    read = read_predictions(path)
    assert set(read) == {"cnn", "nme.ft"}
    assert all(torch.equal(getattr(read["cnn"], name), getattr(kept, name)) for name in ("truths", "answers", "ranks"))
    with np.load(path) as content:
        assert {content[name].dtype for name in content.files} == {np.dtype(np.uint8)}
    assert [path.name for path in path.parent.iterdir()] == ["task_002.npz"]


def test_a_long_stream_keeps_some_windows_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, kept = _made(1, 60, distributions=3)
    monkeypatch.setattr(predictions, "STREAM_BYTES", 60 * 2 * 2)
    whole = []
    for window in range(5):
        write_predictions(file_of(tmp_path, window), {"head": kept}, 4 - window, 5)
        read = read_predictions(file_of(tmp_path, window))["head"]
        assert torch.equal(tallied(read), tallied(kept))
        whole.append(torch.equal(read.answers, kept.answers))
    assert whole == [False, True, False, False, True]


@pytest.mark.parametrize("harm", ["cut", "contradiction", "length"])
def test_a_damaged_file_is_named(harm: str, tmp_path: Path) -> None:
    _, kept = _made(1, 30)
    path = file_of(tmp_path, 0)
    write_predictions(path, {"cnn": kept}, 0, 1)
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    else:
        with np.load(path) as content:
            values = dict(content)
        values["cnn.ranks"] = values["cnn.ranks"][:-1] if harm == "length" else (values["cnn.ranks"] == 0).astype(int)
        np.savez(path, **values)
    with pytest.raises(UserError, match=r"task_000\.npz is damaged"):
        read_predictions(path)


def test_a_killed_run_keeps_the_same_answers(tmp_path: Path) -> None:
    undisturbed = run_here(tiny(tmp_path / "undisturbed", "+method=replay")).parent
    killed = tiny(tmp_path / "killed", "+method=replay")
    assert launch(killed, mischief.die_writing_the_last_state).code == SIGKILLED
    assert file_of(directory_of(tmp_path / "killed"), 1).is_file()  # it is there before the state says so
    again = run_here(killed).parent
    for task in range(2):
        assert file_of(again, task).read_bytes() == file_of(undisturbed, task).read_bytes()
    assert set(StateFile(again / "state").load().predictions) == {"task_000.npz", "task_001.npz"}


@pytest.mark.slow
def test_two_processes_keep_the_same_file(tmp_path: Path) -> None:
    plain = ("backbone._target_=tests.engine.plain_backbone.make", "benchmark.steps_per_block=3")
    one = run_here(tiny(tmp_path / "one", "+method=finetune", *plain)).parent
    arguments = tiny(tmp_path / "two", "+method=finetune", *plain, "trainer=ddp_cpu", "trainer.devices=2")
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    subprocess.run(
        [sys.executable, "-m", "mmcl.run", *arguments], cwd=CHECKOUT, env=environment, timeout=120, check=True
    )
    for task in range(2):
        assert file_of(directory_of(tmp_path / "two"), task).read_bytes() == file_of(one, task).read_bytes()


def test_force_begins_without_them(tmp_path: Path) -> None:
    arguments = tiny(tmp_path, "+method=finetune", "method.later_tasks.epochs=1")
    folder = run_here(arguments).parent
    file_of(folder, 9).write_bytes(b"of an earlier run")
    run_here([*arguments, "force=true"])
    assert not file_of(folder, 9).exists()
