"""One process and two give equal figures, with an uneven share of samples and one process without any."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from mmcl.metrics.readouts import confusion_matrix, figures, load_state, readout_metrics, synced_state
from tests.metrics.sequences import Answers, feed, made_up

SIZES = [3, 2, 1]
Outcome = dict[str, Any]


def _answers() -> list[Answers]:
    # the single answer after the last task leaves the second process without any
    first, second, third = made_up(SIZES, seed=0, samples=24)
    return [first, second, Answers(2, third.scores[:1], third.labels[:1])]


def _process(rank: int, folder: str, halfway: dict[str, torch.Tensor]) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    whole, resumed, answers = readout_metrics(SIZES), readout_metrics(SIZES), _answers()
    feed(whole, answers[:2], rank, ranks=2)
    saved = synced_state(whole)
    feed(whole, answers[2:], rank, ranks=2)
    load_state(resumed, halfway, is_global_zero=rank == 0)
    feed(resumed, answers[2:], rank, ranks=2)
    outcome = {
        "saved": saved,
        "figures": [figures(whole), figures(resumed)],
        "confusion": [confusion_matrix(whole), confusion_matrix(resumed)],
    }
    torch.save(outcome, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def halfway() -> dict[str, torch.Tensor]:
    collection = readout_metrics(SIZES)
    feed(collection, _answers()[:2])
    return synced_state(collection)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory, halfway: dict[str, torch.Tensor]) -> list[Outcome]:
    folder: Path = tmp_path_factory.mktemp("two_processes")
    mp.spawn(_process, (str(folder), halfway), nprocs=2)  # type: ignore[no-untyped-call]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_figures_are_those_of_one_process(outcomes: list[Outcome]) -> None:
    collection = readout_metrics(SIZES)
    feed(collection, _answers())
    for outcome in outcomes:
        assert outcome["figures"] == [figures(collection)] * 2
        assert all(torch.equal(counts, confusion_matrix(collection)) for counts in outcome["confusion"])


def test_saved_counts_are_those_of_one_process(outcomes: list[Outcome], halfway: dict[str, torch.Tensor]) -> None:
    for outcome in outcomes:
        assert outcome["saved"].keys() == halfway.keys()
        assert all(torch.equal(outcome["saved"][name], counts) for name, counts in halfway.items())
