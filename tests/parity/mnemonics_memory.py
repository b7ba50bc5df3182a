"""Parity with Mnemonics' official code: herding, class means, readouts, derived figures, and the protocol's numbers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from mmcl.benchmarks.class_order import class_order, task_sizes
from mmcl.benchmarks.imagenet import seed1993_subset
from mmcl.config.schema import Schedule
from mmcl.memory.fast_means import FastMeans
from mmcl.memory.herding import selector
from mmcl.memory.nearest_mean import TwoViewNearestMean, two_view_means
from mmcl.memory.quota import MemoryConfig, Quota
from mmcl.methods.base import sgd
from mmcl.methods.cosine_losses import less_forget_weight
from mmcl.metrics.sequence import (
    average_incremental_accuracy,
    first_task_forgetting,
    last_accuracy,
    rounded_percent,
    task_ends,
)
from tests.parity import Golden, close, parity
from tests.parity.official_nets import near

EXACT = 1e-12


@parity("herding")
def check_herding(golden: Golden) -> None:
    for case in (f"case{index}/" for index in range(int(golden["n_cases"]))):
        features, reversed_channels = (
            torch.from_numpy(golden[case + name]).flatten(0, 1) for name in ("features", "features_channel_reversed")
        )
        classes, size = golden[case + "rank"].shape
        labels = torch.arange(classes).repeat_interleave(size)
        chosen = selector("herding_lucir")(features, labels, int(golden[case + "m"]))
        for label in range(classes):
            own = chosen[labels[chosen] == label] - label * size
            rank = np.zeros(size, dtype=np.int64)
            rank[own] = np.arange(1, 1 + len(own))
            close(rank, golden[case + "rank"][label], 0)
            expected = golden[case + "selected"][label]
            assert sorted(own.tolist()) == expected[expected >= 0].tolist()
        kept = two_view_means(features[chosen], reversed_channels[chosen], labels[chosen], classes)
        near(kept, golden[case + "class_mean_exemplars"], EXACT)
        every = two_view_means(features, reversed_channels, labels, classes)
        near(every, golden[case + "class_mean_all"], EXACT)


@parity("eval_readouts")
def check_readouts(golden: Golden) -> None:
    features, labels, logits = (torch.from_numpy(golden[name]) for name in ("features", "targets", "logits"))
    nearest_mean, oracle, fast = TwoViewNearestMean(), TwoViewNearestMean(), FastMeans()
    nearest_mean.means, oracle.means = torch.from_numpy(golden["class_means"]).permute(2, 1, 0)
    near(nearest_mean.means.float(), golden["fast_fc_init"])
    train_fast(fast, golden, nearest_mean.means)
    near(fast.means, golden["fast_fc"])
    scores = (logits, nearest_mean(features), oracle(features), fast(features))
    close([rounded_percent(answer.argmax(1) == labels) for answer in scores], golden["acc"], EXACT)


def train_fast(fast: FastMeans, golden: Golden, means: Tensor) -> None:
    """Train on the recorded batches: rows of one long epoch, in the order in which they were met."""
    steps = range(int(golden["n_batches"]))
    features = torch.from_numpy(np.concatenate([golden[f"fast/features{step}"] for step in steps]))
    labels = torch.from_numpy(np.concatenate([golden[f"fast/labels{step}"] for step in steps]))
    sizes = {len(golden[f"fast/labels{step}"]) for step in steps}
    assert len(sizes) == 1
    order = torch.arange(len(labels))
    fast.train_on(features, labels, means, [order], float(golden["fast_fc_lr"]), sizes.pop())


@parity("metrics")
def check_metrics(golden: Golden) -> None:
    curves, first = torch.from_numpy(golden["acc_all_seen"]), torch.from_numpy(golden["acc_first_classes"])
    for readout in range(len(golden["readouts"])):
        curve = curves[:, readout]
        near(average_incremental_accuracy(curve), golden["average_accuracy"][readout], EXACT)
        near(last_accuracy(curve), golden["last_accuracy"][readout], EXACT)
        running = [average_incremental_accuracy(curve[: phase + 1]) for phase in range(len(curve))]
        near(running, golden["running_average"][:, readout], EXACT)
        matrix = curve.new_full((len(curve), len(curve)), torch.nan)
        matrix[:, 0] = first[:, readout]
        near(first_task_forgetting(matrix), golden["forgetting"][readout], EXACT)


@parity("protocol")
def check_protocol(golden: Golden) -> None:
    close(class_order(100, 1993), golden["class_order_100"], 0)
    close(class_order(1000, 1993), golden["class_order_1000"], 0)
    close(class_order(int(golden["order_num_classes"]), int(golden["order_seed"])), golden["order"], 0)
    close(seed1993_subset(), golden["imagenet_subset_indices"], 0)
    for phases in (5, 10, 25):
        check_sequence(golden, f"N{phases}/", 50 // phases)
    near(rates(160, 0.1, [80, 120]), golden["lr_cifar_160"], EXACT)
    near(rates(90, 0.1, [30, 60]), golden["lr_imagenet_90"], EXACT)


def check_sequence(golden: Golden, prefix: str, increment: int) -> None:
    """Half of 100 classes, then ``increment`` at a time: what is seen, kept and held back."""
    seen = task_ends(task_sizes(100, 50, increment)).tolist()
    close(seen, golden[prefix + "classes_seen"], 0)
    quota = Quota(MemoryConfig(2000, None, None, True, None, "herding_lucir"), 1, own_parameters=0)
    kept = [quota.per_class(count, round_up=True) for count in seen]
    close(kept, golden[prefix + "exemplars_per_class_fixed_total_2000"], 0)
    for base in (5, 10):
        weights = [less_forget_weight(base, known, increment) for known in seen[:-1]]
        near([base, *weights], golden[f"{prefix}lambda_lucir_base{base}"], EXACT)


def rates(epochs: int, lr: float, milestones: list[int]) -> list[float]:
    """Return the learning rate of every epoch, as a stage has it."""
    schedule = Schedule(epochs, 128, lr, 0.9, 5e-4, "multistep", milestones, 0.1, None)
    optimizer, scheduler = sgd([nn.Parameter(torch.zeros(1))], schedule)
    rate = []
    for _ in range(epochs):
        rate.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rate
