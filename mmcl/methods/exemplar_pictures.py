"""What methods with exemplars tell about them after the first and the last task, for people to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmcl.memory.exemplar_record import ExemplarRecord
from mmcl.memory.herding import selector
from mmcl.methods.class_incremental import encode
from mmcl.protocol import ClassTask, Samples

if TYPE_CHECKING:
    from mmcl.methods.cosine_incremental import CosineIncremental

SHOWN_CLASSES = 5


def shown_classes(task: ClassTask) -> int:
    """Return how many classes are shown, the first ones of the class order."""
    return min(SHOWN_CLASSES, task.seen)


def exemplar_record(method: CosineIncremental, task: ClassTask, as_chosen: Samples) -> ExemplarRecord:
    """Describe the exemplars of the shown classes and what lies around them.

    Training images of old classes are read for the picture; nothing of it reaches the method.

    Args:
        method: after the task.
        task: the one that was just learned.
        as_chosen: the shown classes' exemplars before anything changed them, best first inside each class.
    """
    shown = int(as_chosen.labels.max()) + 1
    kept = method.kept(task)
    kept = kept.select(kept.labels < shown)
    as_chosen = _first_of_each_class(as_chosen, kept.labels)
    before, after = (_normalised(samples, task, method.device) for samples in (as_chosen, kept))
    everything = Samples.concatenate([task.past(), task.train])
    images = everything.select(everything.labels < shown)
    features = encode(method.network, task, images, method.device)
    count = int(torch.bincount(kept.labels).max())
    seed = method.ingredients.seed
    return ExemplarRecord(
        mode=method.exemplar_mode,
        images_before=task.pixel_scale.denormalise(before),
        images_after=task.pixel_scale.denormalise(after),
        labels=kept.labels,
        chosen_in=torch.zeros_like(kept.labels),  # the shown classes are those of the first task
        drift=(after - before).flatten(1).norm(dim=1),
        drift_labels=kept.labels,
        features=features,
        feature_labels=images.labels,
        exemplar_features=encode(method.network, task, kept, method.device),
        picks_random=selector("random", seed, "picture")(features, images.labels, count),
        picks_herding=selector("herding_lucir")(features, images.labels, count),
        class_means=method.nearest_mean.means[shown:].float(),
    )


def _normalised(samples: Samples, task: ClassTask, device: torch.device) -> Tensor:
    return torch.cat([batch.images for batch in task.plain_batches(samples, device)])


def _first_of_each_class(samples: Samples, labels: Tensor) -> Samples:
    """Return as many rows of each class as there are in ``labels``, the first ones."""
    counts = torch.bincount(labels)
    rows = [(samples.labels == label).nonzero()[:, 0][: int(count)] for label, count in enumerate(counts)]
    return samples.select(torch.cat(rows))
