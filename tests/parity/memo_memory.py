"""Parity with MEMO's vectors: herding, order of the memory, class means, nearest-mean ranking, accounting."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mmcl.memory.accounting import (
    CIFAR_IMAGE_BYTES,
    IMAGENET_IMAGE_BYTES,
    MEBIBYTE,
    BlockParameters,
    aligned_exemplars,
    budget_mebibytes,
    counted_parameters,
)
from mmcl.memory.herding import herd_classes
from mmcl.memory.nearest_mean import class_means, nearest_mean_scores
from mmcl.memory.quota import MemoryConfig, Quota
from mmcl.memory.row_store import RowStore
from mmcl.metrics.sequence import top_classes
from mmcl.protocol import Samples
from tests.parity import Golden, close, parity

# Parameters of each backbone as the specification of MEMO lists them: plain, generalized, specialized.
BLOCKS = {
    "conv2": BlockParameters(38_976, 1_920, 37_056),
    "resnet14_cifar": BlockParameters(171_856, 42_320, 129_536),
    "resnet20_cifar": BlockParameters(269_072, 65_552, 203_520),
    "resnet26_cifar": BlockParameters(366_288, 88_784, 277_504),
    "resnet32": BlockParameters(463_504, 112_016, 351_488),
    "conv4": BlockParameters(906_240, 314_880, 591_360),
    "resnet10_imagenet": BlockParameters(4_905_792, 1_232_704, 3_673_088),
    "resnet18": BlockParameters(11_176_512, 2_782_784, 8_393_728),
    "resnet26_imagenet": BlockParameters(13_946_176, 3_444_032, 10_502_144),
    "resnet34_imagenet": BlockParameters(21_284_672, 8_170_304, 13_114_368),
    "resnet50_imagenet": BlockParameters(23_508_032, 8_543_296, 14_964_736),
}
SMALLEST = ("conv2", "conv4")
BASE_EXEMPLARS = 2000
GROWTH = {"icarl": "single", "der": "der", "memo": "memo"}


@parity("memory_nme")
def check_memory_and_nearest_mean(golden: Golden) -> None:
    """A total shared by all classes: what is kept, in which order, its means, and the ranking of queries."""
    for case in range(int(golden["n_cases"])):
        check_memory_case(golden, f"c{case}.", size=int(golden[f"c{case}.memory_size"]))


@parity("memory_fixed")
def check_fixed_memory(golden: Golden) -> None:
    """A constant number for each class: old classes keep all they have."""
    check_memory_case(golden, "", per_class=int(golden["memory_per_class"]))


def check_memory_case(golden: Golden, case: str, size: int | None = None, per_class: int | None = None) -> None:
    labels = torch.from_numpy(golden[f"{case}targets"])
    quota = Quota(MemoryConfig(size, per_class, None, True, None, "herding"), 1, own_parameters=0)
    store = RowStore()
    known = 0
    for task, new_classes in enumerate(golden[f"{case}task_sizes"].tolist()):
        at = f"{case}t{task}."
        features = torch.from_numpy(golden[f"{at}features"])
        seen = known + new_classes
        update_memory(store, features, labels, range(known, seen), quota.per_class(seen))
        kept = store.samples()
        assert kept.sources.tolist() == golden[f"{at}memory_indices"].tolist()
        assert kept.labels.tolist() == golden[f"{at}memory_targets"].tolist()
        means = class_means(features[kept.sources], kept.labels, seen)
        close(means, golden[f"{at}class_means"])
        if f"{at}query" in golden:
            assert quota.per_class(seen) == int(golden[f"{at}per_class"])
            check_ranking(torch.from_numpy(golden[f"{at}query"]), means, golden[f"{at}nme_topk"])
        known = seen


def update_memory(store: RowStore, features: Tensor, labels: Tensor, new_classes: range, count: int) -> None:
    """Cut old classes, then add herded images of the new ones; an image is its number."""
    new = ((labels >= new_classes.start) & (labels < new_classes.stop)).nonzero().flatten()
    store.keep_first(count)
    chosen = new[herd_classes(features[new], labels[new], count)]
    store.append(Samples(chosen[:, None], labels[chosen], chosen))


def check_ranking(queries: Tensor, means: Tensor, expected: np.ndarray) -> None:
    ranked = top_classes(nearest_mean_scores(queries, means), expected.shape[1])
    assert ranked.tolist() == expected.tolist()


@parity("memory_accounting")
def check_memory_accounting(golden: Golden) -> None:
    """Exemplars and bytes of the fair protocol and of the points of the accuracy-memory curves."""
    for protocol in ("fair", "auc"):
        columns = {name.split(".")[1]: golden[name].tolist() for name in golden if name.startswith(f"{protocol}.")}
        point = ""
        for values in zip(*columns.values(), strict=True):
            row = dict(zip(columns, values, strict=True))
            point = row["backbone"] if row["method"] == "memo" else point
            check_accounting_row(row, point if protocol == "auc" else row["backbone"], protocol == "auc")


def check_accounting_row(row: dict[str, object], point: str, is_curve: bool) -> None:
    blocks, tasks = BLOCKS[str(row["backbone"])], int(str(row["n_tasks"]))
    on_cifar = row["dataset"] == "cifar100"
    image_bytes = CIFAR_IMAGE_BYTES if on_cifar else IMAGENET_IMAGE_BYTES
    own = counted_parameters(GROWTH[str(row["method"])], blocks, tasks)
    budget = counted_parameters("der", BLOCKS[point], tasks)
    if is_curve and point in SMALLEST:
        budget = BLOCKS["resnet32" if on_cifar else "resnet18"].plain
    exemplars = aligned_exemplars(BASE_EXEMPLARS, budget, own, image_bytes)
    assert exemplars == row["total_exemplars"]
    assert exemplars - BASE_EXEMPLARS == row["extra_exemplars"]
    assert own == row["model_params"]
    close(budget_mebibytes(own, 0, image_bytes), row["model_mib"], 1e-12)
    close(exemplars * image_bytes / MEBIBYTE, row["exemplar_mib"], 1e-12)
