"""Mnemonics' parts the straightforward way, for mnemonics.py; and the scene that both of its sides measure in."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from expansion import Pictures, picture_batches
from herding_lucir import reference as herd_class_by_class
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms

from mmcl.backbones.cosine_network import CosineNetwork
from mmcl.benchmarks.cifar import LucirCifar100
from mmcl.benchmarks.class_incremental import RawData
from mmcl.config.compose import compose_run
from mmcl.engine.assemble import build_method
from mmcl.memory.fast_means import keyed_orders
from mmcl.methods.cosine_losses import less_forget_weight
from mmcl.protocol import Batch, ClassTask, Samples

CLASSES, BASE, NEW, OF_A_CLASS, KEPT = 70, 50, 10, 500, 20
LAST_TASK = (CLASSES - BASE) // NEW
OLD = CLASSES - NEW
TO_TENSOR = [transforms.ToTensor(), transforms.Normalize(LucirCifar100.mean, LucirCifar100.std)]
TRAIN = transforms.Compose(
    [transforms.ToPILImage(), transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), *TO_TENSOR]
)
TEST = transforms.Compose([transforms.ToPILImage(), *TO_TENSOR])
TUNED_CLASSES, EPOCHS, TUNING_RATE, TUNING_BATCH = 12, 50, 0.1, 128
HERDS, HERDED, FEATURES = 20, 40, 500
EXEMPLARS, QUERIES = 4, 64


class Work(NamedTuple):
    """What is timed: units of one run of it, the run, and what it answers to inputs that both sides share."""

    units: float
    run: Callable[[], object]
    answer: Callable[[], Tensor]


class Noise(LucirCifar100):
    """Random images in place of CIFAR-100."""

    def read(self) -> RawData:
        count = CLASSES * OF_A_CLASS
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
        samples = Samples(pixels, torch.arange(count) % CLASSES, torch.arange(count))
        return RawData(samples, samples.select(torch.arange(CLASSES)), [str(label) for label in range(CLASSES)])


class Scene:
    """A method at a task, as a run leaves it there, and the network before it, which no side has changed."""

    def __init__(self, benchmark: Noise, base: str, task: int) -> None:
        settings = [
            f"method.base={base}",
            "benchmark=cifar100_lucir",
            "trainer=cpu",
            "method.second_view=channel_reverse",
        ]
        self.method = cast(Any, build_method(compose_run(["+method=mnemonics", *settings]), benchmark))
        self.task: ClassTask = benchmark.task(task)
        for index in range(task + 1):
            self.before = copy.deepcopy(self.method.network)
            self.method.grow(benchmark.task(index))
            with torch.no_grad():  # running statistics that are not trivial
                self.method.network(torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(index)))
        rows = torch.arange(self.task.known)[:, None] * OF_A_CLASS + torch.arange(KEPT)
        self.kept = self.task.past().select(rows.flatten()) if task else self.task.train.select(torch.arange(0))
        self.method.memory.append(self.kept)
        self.method.begin_stage(self.method.stages(self.task)[0], self.task)
        self.method.train()

    @property
    def network(self) -> CosineNetwork:
        network: CosineNetwork = self.method.network
        return network


class Shared:
    """Inputs that both sides answer to."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(1)
        labels = torch.arange(256) % CLASSES
        self.batch = Batch(torch.randn(128, 3, 32, 32, generator=draw).double(), labels[:128], labels[:128], 1.0)
        self.exemplars = torch.randn(NEW * EXEMPLARS, 3, 32, 32, generator=draw)
        self.exemplar_labels = OLD + torch.arange(NEW * EXEMPLARS) // EXEMPLARS
        self.old_means = F.normalize(torch.randn(OLD, 64, generator=draw), dim=1)
        self.queries = torch.randn(QUERIES, 3, 32, 32, generator=draw)
        self.query_labels = labels[:QUERIES]
        self.features = torch.randn(NEW * OF_A_CLASS, 64, generator=draw) + torch.randn(64, generator=draw)
        self.labels = torch.arange(NEW * OF_A_CLASS) % NEW


class Side(ABC):
    """One side of the works that are no training of the network; the network is in eval mode."""

    def __init__(self, network: nn.Module, scene: Scene, shared: Shared) -> None:
        self.network, self.scene, self.shared = network.eval(), scene, shared
        self.judge = self.network  # of exemplars
        self.few = scene.kept.select(scene.kept.labels < TUNED_CLASSES)
        self.exemplars = nn.Parameter(shared.exemplars.clone())
        self.optimizer = torch.optim.SGD([self.exemplars], 1e-5, momentum=0.9, weight_decay=5e-4)

    @abstractmethod
    def tuned(self, epochs: int) -> Tensor:
        """Return the class means of nme_ft, ``(C, D)``."""

    @abstractmethod
    def features(self, samples: Samples) -> Tensor:
        """Return features ``(N, D)``."""

    @abstractmethod
    def means(self, samples: Samples) -> Tensor:
        """Return class means over two views ``(C, D)``."""

    @abstractmethod
    def exemplar_loss(self, dtype: torch.dtype) -> Tensor:
        """Return the loss ``()`` that moves exemplars in mode nme, for inputs of a type."""

    @abstractmethod
    def picks(self) -> Tensor:
        """Return the herded rows."""

    @abstractmethod
    def works(self) -> dict[str, Work]:
        """Return the works by name."""

    def complete(self, timed: Mapping[str, tuple[float, Callable[[], object]]]) -> dict[str, Work]:
        """Return all works, from those whose turns differ between the sides: units, and what is timed."""
        first_class = self.scene.kept.select(self.scene.kept.labels == 0)
        train = self.scene.task.train
        some, few = train.select(torch.arange(FEATURES)), train.select(torch.arange(100))
        return {
            "nme_ft": Work(*timed["nme_ft"], lambda: self.tuned(2)),
            "class means": Work(*timed["class means"], lambda: self.means(first_class)),
            "herding": Work(HERDS * NEW, lambda: [self.picks() for _ in range(HERDS)], self.picks),
            "exemplar step": Work(1, self.exemplar_step, self.exemplar_gradient),
            "features": Work(FEATURES, lambda: self.features(some), lambda: self.features(few)),
        }

    def exemplar_step(self) -> None:
        self.optimizer.zero_grad()
        self.judge.zero_grad()
        self.exemplar_loss(torch.float32).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def exemplar_gradient(self) -> Tensor:
        with in_float64(self.judge):
            return gradients([self.exemplars], self.exemplar_loss(torch.float64))


def gradients(parameters: list[nn.Parameter], loss: Tensor) -> Tensor:
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters)])


@contextmanager
def in_float64(*modules: nn.Module) -> Iterator[None]:
    """Compute in float64 meanwhile: ReLUs of a network that has not learned turn float32's rounding into percents."""
    for module in modules:
        module.double()
    yield
    for module in modules:
        module.float()


def answerable(batch: Batch, scene: Scene) -> Batch:
    """Return the batch with labels that the task knows."""
    return batch._replace(labels=batch.labels % scene.task.seen)


class Plain(nn.Module):
    """The network as it reads: modules in turn, then cosines."""

    def __init__(self, network: CosineNetwork) -> None:
        super().__init__()
        network = copy.deepcopy(network)
        self.backbone, self.head = network.backbone, network.head

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.backbone(images)
        unit = F.normalize(features, dim=1)
        parts = [weight for weight in (self.head.weight_old, self.head.weight_new) if len(weight)]
        scores = torch.cat([F.linear(unit, F.normalize(weight, dim=1)) for weight in parts], dim=1)
        return self.head.sigma * scores, scores, features


def lucir_loss(output: tuple[Tensor, Tensor, Tensor], old: tuple[Tensor, Tensor, Tensor], labels: Tensor) -> Tensor:
    logits, scores, features = output
    ones = torch.ones(len(labels))
    loss = F.cross_entropy(logits, labels)
    loss = loss + less_forget_weight(5.0, OLD, NEW) * F.cosine_embedding_loss(features, old[2], ones)
    is_old = labels < OLD
    if is_old.any():
        own = scores[is_old].gather(1, labels[is_old, None]).repeat(1, 2).flatten()
        hardest = scores[is_old, OLD:].topk(2, dim=1).values.flatten()
        loss = loss + F.margin_ranking_loss(own, hardest, torch.ones(len(own)), margin=0.5)
    return loss


def distillation_loss(
    output: tuple[Tensor, Tensor, Tensor], old: tuple[Tensor, Tensor, Tensor], labels: Tensor
) -> Tensor:
    targets = (old[0] / 2).softmax(dim=1)
    elements = F.kl_div((output[0][:, :OLD] / 2).log_softmax(dim=1), targets, reduction="none")
    return elements.mean() * 2**2 * 0.25 * OLD + F.cross_entropy(output[0], labels)


LOSSES = {"lucir": lucir_loss, "distillation": distillation_loss}


def training_straightforward(scene: Scene, shared: Shared, base: str, size: int) -> Work:
    network, before = Plain(scene.network).train(), Plain(scene.before).eval()
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=5e-4)
    batches = picture_batches(scene.method.stage.samples, size, TRAIN, 0)

    def loss_of(images: Tensor, labels: Tensor) -> Tensor:
        output = network(images)
        if not scene.task.known:
            return F.cross_entropy(output[0], labels)
        with torch.no_grad():
            old = before(images)
        return LOSSES[base](output, old, labels)

    def step() -> None:
        loss = loss_of(*next(batches))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def answer() -> Tensor:
        with in_float64(network, before):
            return gradients(parameters, loss_of(*answerable(shared.batch, scene)[:2]))

    return Work(size, step, answer)


class Straightforward(Side):
    """The other works."""

    def __init__(self, scene: Scene, shared: Shared) -> None:
        super().__init__(Plain(scene.network), scene, shared)

    def tuned(self, epochs: int) -> Tensor:
        means = self.shared.old_means[:TUNED_CLASSES].clone().requires_grad_()
        for order in keyed_orders(len(self.few), epochs, "orders"):
            for images, labels in DataLoader(Pictures(self.few.select(order), TEST), TUNING_BATCH):
                features = self.network(images)[2]
                loss = F.cross_entropy(F.normalize(features, dim=1) @ F.normalize(means, dim=1).T, labels)
                (slope,) = torch.autograd.grad(loss, [means])
                means = (means - TUNING_RATE * slope).detach().requires_grad_()
        return means.detach()

    @torch.no_grad()
    def features(self, samples: Samples) -> Tensor:
        return torch.cat([self.network(images)[2] for images, _ in DataLoader(Pictures(samples, TEST), 128)])

    def means(self, samples: Samples) -> Tensor:
        """Return the mean of one class."""
        reversed_channels = samples.images.flip(1)  # type: ignore[union-attr]
        views = [samples, Samples(reversed_channels, samples.labels, samples.sources)]
        means = [F.normalize(self.features(view).double(), dim=1).mean(dim=0) for view in views]
        return F.normalize((means[0] + means[1])[None] / 2, dim=1)

    def exemplar_loss(self, dtype: torch.dtype) -> Tensor:
        of_classes = self.exemplars.to(dtype).view(NEW, EXEMPLARS, *self.exemplars.shape[1:])
        means = [self.judge(images)[2].mean(dim=0) for images in of_classes]
        prototypes = F.normalize(torch.cat([self.shared.old_means.to(dtype), torch.stack(means)]), dim=1)
        scores = F.linear(F.normalize(self.judge(self.shared.queries.to(dtype))[2], dim=1), prototypes)
        return F.cross_entropy(scores, self.shared.query_labels)

    def picks(self) -> Tensor:
        return torch.tensor(herd_class_by_class(self.shared.features, self.shared.labels, HERDED))

    def works(self) -> dict[str, Work]:
        one_class = self.scene.task.train.select(torch.arange(OF_A_CLASS))
        # A phase needs the mean of every class twice.
        timed = {"nme_ft": (1, lambda: self.tuned(1)), "class means": (0.5, lambda: self.means(one_class))}
        return self.complete(timed)
