"""Golden checks of Mnemonics' exemplar level: prototypes, unrolled training, adjusted halves, storage."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from mmcl.backbones.cosine_network import CosineNetwork
from mmcl.backbones.freezing import freeze
from mmcl.methods.mnemonics.adjusting import Halves, half_step_loss
from mmcl.methods.mnemonics.bilevel import UnrolledClassifier, UnrolledNetwork
from mmcl.methods.mnemonics.prototype_level import nme_loss, nme_scores
from mmcl.methods.mnemonics.storage import stored
from mmcl.methods.mnemonics.unrolling import UNROLLINGS, unrolled_fc_loss
from mmcl.pixels import PixelScale
from tests.parity import Golden, parity
from tests.parity.official_nets import tiny_network

CIFAR = PixelScale((0.5071, 0.4866, 0.4409), (0.2009, 0.1984, 0.2023))


def near(actual: object, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    """Assert that the largest difference is at most ``tolerance`` times the largest expected magnitude."""
    found = np.asarray(actual, dtype=np.float64)
    assert found.shape == expected.shape, f"shape {found.shape}, expected {expected.shape}"
    error, scale = np.abs(found - expected).max(), np.abs(expected).max()
    assert error <= tolerance * scale, f"largest difference {error:.3g} of {scale:.3g}, allowed {tolerance:.3g}"


def tensor(golden: Golden, name: str) -> Tensor:
    return torch.from_numpy(np.array(golden[name]))


def frozen_network(golden: Golden) -> CosineNetwork:
    return freeze(tiny_network(golden, "net"))


def queries(golden: Golden, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    for number in range(count):
        yield tensor(golden, f"query/x{number}"), tensor(golden, f"query/y{number}")


def learn(
    golden: Golden,
    exemplars: Tensor,
    optimizer: torch.optim.Optimizer,
    batches: list[tuple[Tensor, Tensor]],
    loss_of: Callable[[Tensor, Tensor], Tensor],
) -> list[float]:
    """Take one step for each batch; compare the first gradient."""
    losses = []
    for number, batch in enumerate(batches):
        optimizer.zero_grad()
        loss = loss_of(*batch)
        loss.backward()
        if number == 0:
            assert exemplars.grad is not None
            near(exemplars.grad.reshape(golden["grad_step0"].shape), golden["grad_step0"])
        optimizer.step()
        losses.append(loss.item())
    return losses


@parity("quantise")
def check_quantise(golden: Golden) -> None:
    for images, expected in (("normalised", "roundtrip_uint8"), ("moved", "moved_uint8")):
        pixels = stored(tensor(golden, images)[None], CIFAR, "uint8_trunc")[0]
        assert np.array_equal(pixels.permute(1, 2, 0).numpy(), golden[expected])
    rounded = stored(tensor(golden, "normalised")[None], CIFAR, "uint8_round")[0]
    assert np.array_equal(rounded.permute(1, 2, 0).numpy(), golden["image"])


@parity("exemplar_nme")
def check_exemplar_nme(golden: Golden) -> None:
    network = frozen_network(golden)
    initial = tensor(golden, "mnemonics_init")
    new, per_class = initial.shape[:2]
    old_means = None if int(golden["is_start"]) else tensor(golden, "class_means_all")[:-new]
    classes = new + (0 if old_means is None else len(old_means))
    exemplars = initial.flatten(0, 1).requires_grad_()
    labels = torch.arange(classes - new, classes).repeat_interleave(per_class)

    def features(images: Tensor) -> Tensor:
        with torch.no_grad():
            return network(images).features

    def loss_of(images: Tensor, targets: Tensor) -> Tensor:
        return nme_loss(features(images), targets, network(exemplars).features, labels, old_means, classes)

    batches = list(queries(golden, int(golden["steps"])))
    scores = nme_scores(features(batches[0][0]), features(exemplars), labels, old_means, classes)
    near(scores, golden["logits_step0"])
    rates = (float(golden[name]) for name in ("lr", "momentum"))
    optimizer = torch.optim.SGD([exemplars], *rates, weight_decay=float(golden["wd"]))
    near(learn(golden, exemplars, optimizer, batches, loss_of), golden["losses"])
    near(exemplars.detach().reshape(initial.shape), golden["mnemonics_final"])


def outer_optimizer(golden: Golden, exemplars: Tensor) -> torch.optim.Optimizer:
    if str(golden["outer"]) == "adam":
        first, second = golden["adam_betas"].tolist()
        return torch.optim.Adam([exemplars], float(golden["outer_lr"]), (first, second))
    return torch.optim.SGD([exemplars], float(golden["outer_lr"]))


@parity("exemplar_unrolled_fc")
def check_exemplar_unrolled_fc(golden: Golden) -> None:
    network = frozen_network(golden)
    initial = tensor(golden, "mnemonics_init")
    sets, size = initial.shape[:2]
    exemplars = initial.flatten(0, 1).requires_grad_()
    labels = tensor(golden, "labels").repeat(sets)
    rows = list(torch.arange(sets * size).split(size))
    rates = golden["inner_lr"].tolist()

    def loss_of(images: Tensor, targets: Tensor) -> Tensor:
        with torch.no_grad():
            asked = network(images).features
        features, epochs = network(exemplars).features, int(golden["inner_epochs"])
        return unrolled_fc_loss(network.head.weight, features, labels, rows, rates, epochs, asked, targets)

    batches = list(queries(golden, int(golden["n_query"]))) * int(golden["outer_epochs"])
    near(learn(golden, exemplars, outer_optimizer(golden, exemplars), batches, loss_of), golden["query_losses"])
    # Adam divides by gradients that are nearly 0, which magnifies their rounding.
    tolerance = 2e-3 if str(golden["outer"]) == "adam" else 1e-5
    near(exemplars.detach().reshape(initial.shape), golden["mnemonics_final"], tolerance)


@parity("exemplar_unrolled_full")
def check_exemplar_unrolled_full(golden: Golden) -> None:
    for unrolling in UNROLLINGS:
        steps, rate = int(golden["inner_steps"]), float(golden["inner_lr"])
        level = UnrolledNetwork(tiny_network(golden, "net"), rate, steps, unrolling)
        exemplars = tensor(golden, "mnemonics_init").requires_grad_()
        labels = tensor(golden, "labels")
        optimizer = torch.optim.SGD([exemplars], float(golden["outer_lr"]))
        batches = list(queries(golden, int(golden["n_query"])))
        losses = learn(golden, exemplars, optimizer, batches, lambda *batch: level(exemplars, labels, *batch))  # noqa: B023
        near(losses, golden["query_losses"])
        near(exemplars.detach(), golden["mnemonics_final"], 1e-4)


@parity("adjust_old")
def check_adjust_old(golden: Golden) -> None:
    level = UnrolledClassifier(frozen_network(golden), float(golden["inner_lr"]), int(golden["inner_steps"]), sets=1)
    first, second = tensor(golden, "A_init"), tensor(golden, "B_init")
    exemplars = torch.cat([first, second]).requires_grad_()
    labels = torch.cat([tensor(golden, "A_labels"), tensor(golden, "B_labels")])
    split = Halves(*torch.arange(len(labels)).split(len(first)))
    optimizer = torch.optim.SGD([exemplars], float(golden["outer_lr"]))
    losses = []
    for number in range(int(golden["rounds"])):
        for name, turn in (("A", split), ("B", split.swapped())):
            optimizer.zero_grad()
            loss = half_step_loss(level, exemplars, labels, turn)
            loss.backward()
            assert exemplars.grad is not None
            if number == 0:
                near(exemplars.grad[turn.first], golden[f"{name}_grad_round0"])
            assert not exemplars.grad[turn.second].any()
            optimizer.step()
            losses.append(loss.item())
    near(np.reshape(losses, (-1, 2)), golden["losses"])
    near(exemplars.detach()[split.first], golden["A_final"])
    near(exemplars.detach()[split.second], golden["B_final"])
