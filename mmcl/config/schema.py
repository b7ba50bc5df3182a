"""Types and meanings of every configuration key. The values live in ``conf/`` alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from mmcl.errors import UserError, nearest

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
MEMORY_OPTIMIZERS = ("ema_sgd", "adam", "half_official")
EXEMPLAR_OPTIMIZERS = ("sgd", "adam")
SCHEDULERS = ("multistep", "cosine")


def setting(help: str) -> Any:
    """Declare a key that the YAML must give; ``help`` is what ``mmcl show`` prints, with the meaning at the limits."""
    return field(default=MISSING, metadata={"help": help})


@dataclass
class ComponentConfig:
    """Keys that every benchmark and method has."""

    _target_: str = setting("Import path of the class.")
    name: str = setting("Name in results and directories.")


@dataclass
class Passes:
    """What every schedule says: how often a stage sees its samples, and how many at once."""

    epochs: int = setting("Passes over the stage's samples; 0 trains nothing.")
    batch_size: int = setting("Samples per step over all processes; the last step of an epoch may be smaller.")

    def __post_init__(self) -> None:
        """Refuse values that would train for ever, or stop only when training begins."""
        if self.epochs < 0 or self.batch_size < 1:
            raise UserError(f"epochs={self.epochs}, batch_size={self.batch_size}: expected at least 0 and at least 1")


@dataclass
class Schedule(Passes):
    """How one stage trains: stochastic gradient descent with momentum and a learning rate per epoch."""

    lr: float = setting("Learning rate of the first epoch.")
    momentum: float = setting("0 is plain SGD.")
    weight_decay: float = setting("L2 on every trained parameter, batch norm and biases included; 0 is none.")
    scheduler: str = setting("multistep: times lr_decay after each milestone; cosine: to 0 over t_max epochs.")
    milestones: list[int] = setting("Epochs after which multistep decays; empty keeps the rate. cosine ignores it.")
    lr_decay: float = setting("Factor of each decay; 1 keeps the rate.")
    t_max: int | None = setting("Epochs from lr to 0 under cosine; null is all of them, fewer turns upwards again.")

    def __post_init__(self) -> None:
        """Refuse values that would train for ever, or stop only when training begins."""
        if self.scheduler not in SCHEDULERS:
            known = " or ".join(SCHEDULERS)
            raise UserError(f"scheduler={self.scheduler}: expected {known}.{nearest(self.scheduler, SCHEDULERS)}")
        super().__post_init__()


@dataclass
class StepSchedule(Passes):
    """How a few parameters are learned on features: a learning rate that falls by a half cosine."""

    lr: float = setting("Learning rate at the start, after the warm-up.")
    lr_final: float = setting("Learning rate that the cosine falls to.")
    optimizer: str = setting("adamw or sgd.")
    momentum: float = setting("Of sgd; adamw ignores it.")
    weight_decay: float = setting("Decoupled from the gradient under adamw, L2 under sgd; 0 is none.")
    eps: float = setting("Of adamw; sgd ignores it.")
    interval: str = setting("step: the rate moves at every step; epoch: after every epoch.")
    warmup_epochs: int = setting("First epochs at warmup_lr; the cosine spans all epochs all the same.")
    warmup_lr: float = setting("Learning rate of the warm-up.")

    def __post_init__(self) -> None:
        """Refuse names that no optimiser answers to."""
        super().__post_init__()
        if self.lr <= 0 or min(self.lr_final, self.warmup_lr, self.weight_decay, self.eps, self.warmup_epochs) < 0:
            raise UserError(f"lr={self.lr}: expected more than 0, and no negative value of any other key")
        for name, known in (("optimizer", ("adamw", "sgd")), ("interval", ("step", "epoch"))):
            value = getattr(self, name)
            if value not in known:
                raise UserError(f"{name}={value}: expected {' or '.join(known)}.{nearest(value, known)}")


@dataclass
class MemorySchedule(Passes):
    """How blocks that reason over a memory are learned, at a constant rate."""

    optimizer: str = setting("ema_sgd (steps of lr / eps), adam, or half_official (Adam on float16 weights).")
    lr: float = setting("Learning rate, above 0; ema_sgd steps by lr / eps.")
    eps: float = setting("Added to the root of Adam's second moment, above 0.")
    weight_decay: float = setting("L2 added to the gradient; 0 is none.")

    def __post_init__(self) -> None:
        """Refuse values that no optimiser takes."""
        super().__post_init__()
        if self.lr <= 0 or self.eps <= 0 or self.weight_decay < 0:
            raise UserError(
                f"method.schedule: lr={self.lr}, eps={self.eps}, weight_decay={self.weight_decay}: expected more than "
                "0, more than 0 and at least 0"
            )
        if self.optimizer not in MEMORY_OPTIMIZERS:
            hint = nearest(self.optimizer, MEMORY_OPTIMIZERS)
            raise UserError(
                f"method.schedule.optimizer={self.optimizer}: expected one of {', '.join(MEMORY_OPTIMIZERS)}.{hint}"
            )


@dataclass
class ExemplarSchedule(Passes):
    """How pixels of exemplars are learned."""

    optimizer: str = setting("sgd or adam.")
    lr: float = setting("Learning rate on normalised pixels, above 0.")
    momentum: float = setting("Of sgd, and the first beta of adam.")
    weight_decay: float = setting("L2 on normalised pixels: pulls them to the mean colour; 0 is none.")
    lr_decay: float = setting("Factor of the rate after every decay_epochs epochs; 1 keeps it.")
    decay_epochs: int = setting("Epochs between two decays, at least 1.")

    def __post_init__(self) -> None:
        """Refuse values that no optimiser takes."""
        super().__post_init__()
        if self.optimizer not in EXEMPLAR_OPTIMIZERS:
            known = " or ".join(EXEMPLAR_OPTIMIZERS)
            hint = nearest(self.optimizer, EXEMPLAR_OPTIMIZERS)
            raise UserError(f"method.exemplars.learning.optimizer={self.optimizer}: expected {known}.{hint}")
        if self.lr <= 0 or not 0 <= self.momentum < 1 or self.weight_decay < 0 or self.decay_epochs < 1:
            raise UserError(
                f"method.exemplars.learning: lr={self.lr}, momentum={self.momentum}, weight_decay={self.weight_decay}, "
                f"decay_epochs={self.decay_epochs}: expected more than 0, from 0 to below 1, at least 0 and at least 1"
            )


@dataclass
class PathsConfig:
    """Where things lie. Paths are no part of a run's identity."""

    data: str = setting("Folder that holds the data sets, one folder each.")
    runs: str = setting("Folder below which every run gets its directory.")
    cache: str = setting("Folder of encoded features, which all runs share.")
    features: str | None = setting(
        "File of your own features for benchmark=features, class_features and features_memory."
    )
    run: str | None = setting("Directory of this run. null derives it from benchmark, method, identity and seed.")


@dataclass
class TrainerConfig:
    """How a run is computed. Only ``precision`` and ``matmul_precision`` are part of its identity."""

    name: str = setting("Name of the trainer config.")
    accelerator: str = setting("auto, cpu or gpu.")
    devices: int | str = setting("Devices per node, or auto.")
    num_nodes: int = setting("Nodes of a torchrun or SLURM job.")
    strategy: str = setting("auto on one device, ddp on several.")
    precision: str = setting("Lightning's precision: 32-true, bf16-mixed, ...")
    matmul_precision: str = setting("highest is IEEE float32; high allows TF32 on GPUs that have it.")
    sync_batchnorm: bool = setting("Share batch statistics between processes; GPU only.")
    deterministic: bool = setting("Refuse non-deterministic GPU kernels; slower.")
    compile: bool = setting("Compile the backbones in place; needs a C compiler.")
    checkpoint_every_n_epochs: int = setting(
        "Epochs between checkpoints inside a stage; 0 keeps stage boundaries only."
    )
    checkpoint_every_n_batches: int = setting(
        "Batches of a test stream between two saved states inside it; 0 begins the stream again after a kill."
    )
    progress: bool = setting("Show a progress bar when standard error is a terminal.")
    isolate: bool = setting("Run each job of a sweep in a process of its own.")

    def __post_init__(self) -> None:
        """Refuse what no method here can compute in."""
        if self.precision not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            raise UserError(f"trainer.precision={self.precision}: expected one of {known}. Images are float32.")


@dataclass
class LoggerConfig:
    """Where figures go beside metrics.csv and result.json, which every run writes."""

    name: str = setting("csv (nothing more) or wandb.")
    project: str | None = setting("wandb project.")
    mode: str | None = setting("wandb mode: offline writes files that `wandb sync` uploads later, or online.")


@dataclass
class RunConfig:
    """The whole of one run. ``method``, ``benchmark`` and ``backbone`` are checked against the class they name."""

    seed: int = setting("Keys all randomness and, unless benchmark.order_seed says otherwise, the class order.")
    force: bool = setting("Run again from the start, although a finished or unfinished run is there.")
    eval_only: bool = setting("Learn nothing: answer with what this run has learned before; an error where it has not.")
    objective: str | None = setting(
        "Figure that a sweeper such as Optuna is led by: READOUT/FIGURE of validation samples; null is none."
    )
    paths: PathsConfig = setting("Folders.")
    trainer: TrainerConfig = setting("Devices, precision, strategy.")
    logger: LoggerConfig = setting("Loggers beside the run's own files.")
    memory: Any = setting("What may be kept about the past.")
    benchmark: Any = setting("Data, classes and their order.")
    backbone: Any = setting("The network below the head.")
    method: Any = setting("The method.")
