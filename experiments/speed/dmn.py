"""Speed of DMN on given features: mmcl against the straightforward form, image by image.

    OMP_NUM_THREADS=1 python experiments/speed/dmn.py
    OMP_NUM_THREADS=1 python experiments/speed/dmn.py --only "stream, C=100, K=0"

The straightforward form does what the paper writes: for each image it normalises all slots as keys and as values,
weighs the values, adds them up and normalises again; a training step does so for each image of the batch at once; the
fusion grid takes one pair of weights after the other; channels are scored over pairs of classes. Both sides work on the
same random unit features, and the script says how far their answers are apart (logits are up to 100, gradients are
scaled to 1). The streams begin with a memory that is half full; the sides take turns, and the best of each counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from mmcl.methods.channel_selection import important_channels
from mmcl.methods.dmn_fusion import GRID, grid_correct
from mmcl.methods.dmn_projections import DmnProjections
from mmcl.methods.dmn_readout import make_slots, readout, slot_gram, text_logits
from mmcl.methods.dmn_stream import DynamicMemory

SHARPNESS, SCALE, CAPACITY, DIMENSION = 5.5, 100.0, 50, 512


class Measured(NamedTuple):
    """What one side did: units of work, seconds, and its answer."""

    units: int
    seconds: float
    answer: Tensor


def timed(units: int, work: Callable[[], Tensor]) -> Measured:
    start = time.perf_counter()
    answer = work()
    return Measured(units, time.perf_counter() - start, answer)


def unit_features(*shape: int) -> Tensor:
    return normalize(torch.randn(*shape) + 2 * torch.randn(shape[-1]), dim=-1)


class StraightforwardMemory:
    """The dynamic memory as the paper writes it."""

    def __init__(self, fixed: Tensor, biases: DmnProjections) -> None:
        classes, _, dimension = fixed.shape
        self.fixed, self.biases = fixed, biases
        self.features = torch.zeros(classes, CAPACITY, dimension)
        self.entropies, self.counts = torch.zeros(classes, CAPACITY), torch.zeros(classes, dtype=torch.int64)

    def write(self, feature: Tensor, label: int, entropy: Tensor) -> None:
        count = int(self.counts[label])
        if count < CAPACITY:
            self.counts[label] += 1
        elif entropy < self.entropies[label].max():
            count = CAPACITY - 1 - int(self.entropies[label].flip(0).argmax())
        else:
            return
        self.features[label, count], self.entropies[label, count] = feature, entropy

    def read(self, feature: Tensor) -> Tensor:
        counted = torch.arange(CAPACITY) < self.counts[:, None]
        valid = torch.cat([counted, torch.ones(self.fixed.shape[:2], dtype=torch.bool)], dim=1)
        return straightforward_readout(feature, torch.cat([self.features, self.fixed], dim=1), valid, self.biases)


def straightforward_readout(feature: Tensor, slots: Tensor, valid: Tensor, biases: DmnProjections) -> Tensor:
    """Classify one image ``(D,)``: logits ``(C,)``."""
    query = normalize(feature + biases.query.mean(dim=0), dim=0)
    keys = normalize(slots + biases.key[:, None], dim=2)
    values = normalize(slots + biases.value[:, None], dim=2)
    weights = (-SHARPNESS * (1 - keys @ query)).exp() * valid
    classifier = normalize((weights[..., None] * values).sum(dim=1), dim=1)
    return SCALE * normalize(classifier + biases.output, dim=1) @ feature


def stream(classes: int, shots: int, images: int, straightforward_images: int) -> list[Measured]:
    """Write and read; the straightforward side does the first images only."""
    fixed, biases = unit_features(classes, 1 + shots, DIMENSION), learned_biases(classes, shots)
    earlier = classes * CAPACITY // 2
    features, labels = unit_features(earlier + images, DIMENSION), torch.randint(classes, (earlier + images,))
    entropies = torch.rand(earlier + images)
    ours, theirs = DynamicMemory(classes, 1 + shots, CAPACITY, DIMENSION), StraightforwardMemory(fixed, biases)
    projection = biases.current()
    ours.restart(fixed, projection)
    for feature, label, entropy in zip(features[:earlier], labels[:earlier].tolist(), entropies[:earlier], strict=True):
        theirs.write(feature, label, entropy)
    fill(ours, theirs, projection)
    rows = range(earlier, earlier + straightforward_images)

    def image_by_image() -> Tensor:
        logits = []
        for row in rows:
            theirs.write(features[row], int(labels[row]), entropies[row])
            logits.append(theirs.read(features[row]))
        return torch.stack(logits)

    def ours_at_once() -> Tensor:
        rest = features[earlier:], labels[earlier:], entropies[earlier:]
        return ours.write_and_read(*rest, projection, SHARPNESS, SCALE)[: len(rows)]

    with torch.no_grad():
        return [timed(len(rows), image_by_image), timed(images, ours_at_once)]


def fill(ours: DynamicMemory, theirs: StraightforwardMemory, projection: object) -> None:
    """Give our memory what theirs holds."""
    features = torch.cat([theirs.fixed, theirs.features], dim=1)
    with torch.no_grad():
        for name, part in make_slots(features, projection)._asdict().items():  # type: ignore[arg-type]
            getattr(ours, name).copy_(part)
    ours.entropies.copy_(theirs.entropies)
    ours.counts.copy_(theirs.counts)


def learned_biases(classes: int, shots: int) -> DmnProjections:
    """Return biases as learning leaves them; zeros without shots."""
    biases = DmnProjections(classes, DIMENSION, "all", "bias", shared=False, learn=shots > 0)
    for parameter in biases.parameters():
        parameter.data.normal_(0, 0.005 if shots else 0.0)
    return biases


def training_step(classes: int, shots: int, batch: int, steps: int, straightforward_steps: int) -> list[Measured]:
    """Take gradients of both losses; biases are not moved, so that the sides stay comparable."""
    slots, text = unit_features(classes, 1 + shots, DIMENSION), unit_features(classes, DIMENSION)
    biases = learned_biases(classes, shots)
    features, labels = unit_features(batch, DIMENSION), torch.randint(classes, (batch,))
    everything, gram = torch.ones(classes, 1 + shots), slot_gram(slots, biases.current()).detach()

    def gradient(logits: Tensor) -> Tensor:
        words = text_logits(features, text, biases.text, SCALE)
        loss = cross_entropy(logits, labels) + cross_entropy(words, labels)
        return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(biases.parameters()))])

    def straightforward() -> Tensor:
        query = normalize(features + biases.query.mean(dim=0), dim=1)
        keys = normalize(slots + biases.key[:, None], dim=2)
        values = normalize(slots + biases.value[:, None], dim=2)
        weights = (-SHARPNESS * (1 - torch.einsum("bd,csd->bcs", query, keys))).exp() * everything
        classifier = normalize((weights[..., None] * values).sum(dim=2), dim=2)  # (B, C, S, D) summed over S
        return SCALE * (normalize(classifier + biases.output, dim=2) @ features[:, :, None])[..., 0]

    def ours() -> Tensor:
        projection = biases.current()
        return readout(features, make_slots(slots, projection, gram), None, projection, SHARPNESS, SCALE)

    def repeat(logits: Callable[[], Tensor], count: int) -> Tensor:
        for _ in range(count):
            result = gradient(logits())
        return result / result.abs().max()

    sides = [(straightforward, straightforward_steps), (ours, steps)]
    return [timed(count, lambda side=side, count=count: repeat(side, count)) for side, count in sides]  # type: ignore[misc]


def fusion_grid(images: int, classes: int) -> list[Measured]:
    text, dynamic, static = ((4 * torch.randn(images, classes)).softmax(dim=1) for _ in range(3))
    labels, grid = torch.randint(classes, (images,)), torch.tensor(GRID)

    def one_by_one() -> Tensor:
        counts = torch.zeros(len(GRID), len(GRID), dtype=torch.int64)
        for row, weight_dynamic in enumerate(GRID):
            for column, weight_static in enumerate(GRID):
                fused = text + weight_dynamic * dynamic + weight_static * static
                ranking = fused.topk(5, dim=1).indices  # the published helper ranks five classes
                counts[row, column] = (ranking[:, 0] == labels).sum()
        return counts.double()

    ours = timed(1, lambda: grid_correct(text, dynamic, static, labels, grid).double())
    return [timed(1, one_by_one), ours]


def channel_choice(classes: int, count: int) -> list[Measured]:
    """Score channels; the straightforward side goes over all pairs of classes."""
    text = unit_features(classes, DIMENSION)

    def over_pairs() -> Tensor:
        similarity = torch.zeros(DIMENSION)
        for first in range(classes):
            for second in range(classes):
                if first != second:
                    similarity += text[first] * text[second]
        scores = 0.3 * text.var(dim=0) - 0.7 * similarity / (classes * (classes - 1))
        return scores.sort(descending=True).indices[:count].sort().values.double()

    ours = timed(1, lambda: important_channels(text, count, 0.7).sort().values.double())
    return [timed(1, over_pairs), ours]


WORKS: dict[str, tuple[str, Callable[[], list[Measured]]]] = {
    "stream, C=100, K=0": ("images/s", lambda: stream(100, 0, 1024, 64)),
    "stream, C=100, K=16": ("images/s", lambda: stream(100, 16, 1024, 64)),
    "stream, C=1000, K=16": ("images/s", lambda: stream(1000, 16, 256, 4)),
    "training step, C=100, K=16, B=128": ("steps/s", lambda: training_step(100, 16, 128, 10, 1)),
    "fusion grid, N=2000, C=100": ("grids/s", lambda: fusion_grid(2000, 100)),
    "channel choice, C=1000": ("choices/s", lambda: channel_choice(1000, 256)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=list(WORKS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{'':36}{'straightforward':>18}{'mmcl':>12}{'ratio':>8}{'apart':>10}")
    for name, (unit, work) in WORKS.items():
        if options.only in (None, name):
            torch.manual_seed(0)
            runs = [work() for _ in range(options.repeats)]
            apart = max(float((mine.answer - theirs.answer).abs().max()) for theirs, mine in runs)
            speeds = [max(run[side].units / run[side].seconds for run in runs) for side in (0, 1)]
            figures = f"{speeds[0]:18.2f}{speeds[1]:12.2f}{speeds[1] / speeds[0]:8.1f}{apart:10.1e}"
            print(f"{name:36}{figures}  {unit}")


if __name__ == "__main__":
    main()
