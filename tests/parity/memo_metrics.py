"""Parity with MEMO's official grouped accuracies and with the figures that its papers derive from them."""

from __future__ import annotations

import torch

from mmcl.metrics.memory_area import accuracy_per_megabyte, memory_area
from mmcl.metrics.sequence import (
    average_incremental_accuracy,
    correct_within,
    forgetting,
    grouped_by_width,
    last_accuracy,
    rounded_percent,
)
from tests.parity import Golden, close, parity

EXACT = 1e-12


@parity("accuracy")
def check_accuracy(golden: Golden) -> None:
    for case in (f"c{index}." for index in range(int(golden["n_cases"]))):
        ranking, labels = (torch.from_numpy(golden[case + name]) for name in ("pred_topk", "y_true"))
        known, width = int(golden[case + "known_classes"]), int(golden[case + "increment"])
        _close_groups(grouped_by_width(ranking[:, 0], labels, known, width), golden, case)
        default = grouped_by_width(ranking[:, 0], labels, known)
        _close_groups(default, golden, case + "default_")
        close(default["total"], golden[case + "top1_default"], EXACT)
        hits = correct_within(ranking[:, : int(golden[case + "topk"])], labels)
        close(rounded_percent(hits), golden[case + "topk_acc"], EXACT)


@parity("metrics")
def check_metrics(golden: Golden) -> None:
    for case in (f"c{index}." for index in range(int(golden["n_cases"]))):
        matrix = torch.from_numpy(golden[case + "acc_matrix"]).T
        curve = torch.from_numpy(golden[case + "curve"])
        close(forgetting(matrix), golden[case + "forgetting"], EXACT)
        close(average_incremental_accuracy(curve), golden[case + "average"], EXACT)
        close(last_accuracy(curve), golden[case + "last"], EXACT)
    for case in (f"auc{index}." for index in range(int(golden["n_auc"]))):
        memory_mb, accuracy = golden[case + "memory_mb"], golden[case + "accuracy_percent"] / 100
        per_megabyte = accuracy_per_megabyte(memory_mb, accuracy)
        close(memory_area(memory_mb, accuracy), golden[case + "auc"], EXACT)
        close(per_megabyte.smallest, golden[case + "apm_start"], EXACT)
        close(per_megabyte.largest, golden[case + "apm_end"], EXACT)


def _close_groups(groups: dict[str, float], golden: Golden, prefix: str) -> None:
    expected = dict(zip(golden[prefix + "keys"].tolist(), golden[prefix + "values"].tolist(), strict=True))
    assert set(groups) == set(expected)
    close([groups[name] for name in expected], list(expected.values()), EXACT)
